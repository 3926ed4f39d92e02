//! Reads compressed input: gzip of several members, zstd of several frames, known by their magic bytes.
//!
//! Pure: bytes in, bytes out, no IO. A [`Decoder`] writes straight into the caller's buffer, as much as its spare
//! capacity takes, so a file that grows a thousandfold streams in bounded memory. Checksums are verified; what
//! was decoded before a fault stays in the buffer.

use super::gunzip::Gzip;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// How an input is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// How many bytes [`sniff`] needs to be certain.
pub const SNIFF: usize = 4;

/// How an input is compressed that begins with `head`; `None` if it is not.
pub fn sniff(head: &[u8]) -> Option<Packing> {
    match head {
        [0x1f, 0x8b, ..] => Some(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Packing::Zstd),
        _ => None,
    }
}

/// What an input is that begins with `head`, if it is known to be nothing that can be read: found by its magic
/// number, it is said at once instead of record by record.
pub fn foreign(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..] => Some("bzip2"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        [b'P', b'A', b'R', b'1', ..] => Some("Parquet"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// What is wrong with compressed bytes, for people.
pub type Fault = String;

/// Decodes one input.
pub struct Decoder(Kind);

enum Kind {
    Gzip(Gzip),
    Zstd(Zstd),
}

impl Decoder {
    /// A decoder at the beginning of an input. Zstd frames with a window above `window_limit` bytes are refused.
    pub fn new(packing: Packing, window_limit: u64) -> Self {
        Decoder(match packing {
            Packing::Gzip => Kind::Gzip(Gzip::default()),
            Packing::Zstd => Kind::Zstd(Zstd::new(window_limit)),
        })
    }

    /// Decodes from `input` into the spare capacity of `out`, which must not be empty; returns how many bytes it
    /// took. To be called again, with the rest of the input if there is any, as long as `out` grows.
    ///
    /// # Errors
    /// If the bytes are damaged. Nothing more can be decoded then.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        match &mut self.0 {
            Kind::Gzip(gzip) => gzip.decode(input, out),
            Kind::Zstd(zstd) => zstd.decode(input, out),
        }
    }

    /// All input was decoded: whether that is a whole number of members or frames.
    ///
    /// # Errors
    /// If it ends in the middle of one.
    pub fn finish(&self) -> Result<(), Fault> {
        match &self.0 {
            Kind::Gzip(gzip) if gzip.is_inside() => Err("it ends in the middle of a gzip member".into()),
            Kind::Zstd(zstd) if zstd.inside => Err("it ends in the middle of a zstd frame".into()),
            _ => Ok(()),
        }
    }
}

struct Zstd {
    context: DCtx<'static>,
    /// Whether the input so far ends inside a frame.
    inside: bool,
    /// The first bytes of the frame, to say how large its window is.
    header: Vec<u8>,
    window_limit: u64,
}

/// The longest header of a frame (RFC 8878, section 3.1.1.1), magic number included.
const HEADER: usize = 18;

impl Zstd {
    fn new(window_limit: u64) -> Self {
        let mut context = DCtx::create();
        // Between 1 KiB and 2 GiB, zstd's own bounds; a power of two.
        let log = window_limit.clamp(1 << 10, 1 << 31).ilog2();
        // It can only fail for a value out of these bounds; zstd's own limit of 128 MiB holds then.
        let _ = context.set_parameter(DParameter::WindowLogMax(log));
        Zstd { context, inside: false, header: Vec::with_capacity(HEADER), window_limit: 1 << log }
    }

    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            if rest.is_empty() && !self.inside {
                return Ok(used);
            }
            let known = self.header.len();
            self.header.extend(rest.iter().take(HEADER - known));
            let before = out.len();
            let mut from = InBuffer::around(rest);
            let result = self.context.decompress_stream(&mut OutBuffer::around_pos(out, before), &mut from);
            let taken = from.pos();
            used += taken;
            let left = result.map_err(|code| self.fault(zstd::zstd_safe::get_error_name(code)))?;
            self.header.truncate(known + taken);
            self.inside = left != 0;
            if !self.inside {
                self.header.clear();
            }
            if out.len() == out.capacity() || (taken == 0 && out.len() == before) || used == input.len() {
                return Ok(used);
            }
        }
    }

    fn fault(&self, reason: &str) -> Fault {
        match window(&self.header) {
            Some(window) if window > self.window_limit => format!(
                "a zstd frame needs a window of {} KiB, and memory_limit leaves {} KiB for it; a larger \
                 memory_limit reads it",
                window.div_ceil(1 << 10),
                self.window_limit >> 10
            ),
            _ => format!("zstd: {reason}"),
        }
    }
}

/// The window that a frame with this header needs, in bytes (RFC 8878, section 3.1.1.1.2).
fn window(header: &[u8]) -> Option<u64> {
    let descriptor = *header.get(4)?;
    if descriptor & 0x20 == 0 {
        let byte = u64::from(*header.get(5)?);
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let len = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..len].copy_from_slice(header.get(5 + dictionary..5 + dictionary + len)?);
    // Two bytes hold the size less 256.
    Some(u64::from_le_bytes(size).saturating_add(if len == 2 { 256 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(data, 1).unwrap()
    }

    /// Decodes in pieces of `step` bytes of input and at most `room` bytes of output.
    fn decode(packed: &[u8], step: usize, room: usize) -> (Vec<u8>, Result<(), Fault>) {
        let mut decoder = Decoder::new(sniff(packed).unwrap(), 8 << 20);
        let (mut all, mut out) = (Vec::new(), Vec::with_capacity(room));
        for piece in packed.chunks(step) {
            let mut rest = piece;
            loop {
                let result = decoder.decode(rest, &mut out);
                let grown = !out.is_empty();
                all.append(&mut out);
                match result {
                    Ok(used) => rest = &rest[used..],
                    Err(fault) => return (all, Err(fault)),
                }
                if !grown && rest.is_empty() {
                    break;
                }
            }
        }
        (all, decoder.finish())
    }

    fn sample() -> Vec<u8> {
        (0..20_000u32)
            .flat_map(|n| format!("{{\"n\":{}}}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    #[test]
    fn members_and_frames_are_joined_whatever_the_pieces() {
        let data = sample();
        let (head, tail) = data.split_at(1000);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let padded = [gzip(head), gzip(b""), gzip(tail), vec![0; 700]].concat();
        let framed = [skippable.clone(), zstd(head), skippable.clone(), zstd(tail), skippable].concat();
        for packed in [padded, framed] {
            for (step, room) in [(1, 64), (7, 100_000), (1000, 13), (1 << 20, 1 << 20)] {
                let (all, result) = decode(&packed, step, room);
                assert_eq!(result, Ok(()), "{step} {room}");
                assert!(all == data, "{step} {room}: {} of {} bytes", all.len(), data.len());
            }
        }
    }

    #[test]
    fn what_stands_before_a_cut_is_decoded() {
        let data = sample();
        for packed in [gzip(&data), zstd(&data)] {
            let (all, result) = decode(&packed[..packed.len() - 5], 1000, 4096);
            assert!(result.unwrap_err().contains("in the middle"));
            assert!(data.starts_with(&all) && all.len() > data.len() / 2, "{}", all.len());
        }
    }

    #[test]
    fn a_wrong_checksum_is_a_fault_behind_the_data() {
        let data = sample();
        let mut packed = gzip(&data);
        let crc = packed.len() - 8;
        packed[crc] ^= 1;
        let (all, result) = decode(&packed, 1 << 20, 1 << 20);
        assert!(all == data);
        assert!(result.is_err());
    }

    #[test]
    fn garbage_behind_the_last_member_is_a_fault() {
        for packed in [gzip(b"1\n"), zstd(b"1\n")] {
            let (all, result) = decode(&[&packed[..], b"garbage"].concat(), 3, 64);
            assert_eq!(all, b"1\n");
            assert!(result.is_err());
        }
    }

    #[test]
    fn a_large_window_is_refused_by_name() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&sample()).unwrap();
        let packed = encoder.finish().unwrap();
        for step in [1, 1 << 20] {
            let fault = decode(&packed, step, 4096).1.unwrap_err();
            assert!(fault.contains("131072 KiB") && fault.contains("8192 KiB"), "{fault}");
        }
    }

    #[test]
    fn only_magic_bytes_count() {
        assert_eq!(sniff(b"{\"a\":1}"), None);
        assert_eq!(sniff(b"\x1f"), None);
        assert_eq!(sniff(b""), None);
    }
}
