//! Gzip input (RFC 1952), member after member: the header, raw deflate, CRC-32 and length.
//!
//! The inflater could read header and trailer itself, but computes its CRC-32 without the processor's carry-less
//! multiplication: that was 23% of the instructions of decoding flat events.

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

use super::decode::Fault;

/// The longest header that is read: names and comments are short, an extra field is at most 64 KiB.
const HEADER: usize = 256 << 10;
/// Bits of the header's flags (RFC 1952, section 2.3.1).
const HCRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Decodes members.
#[derive(Default)]
pub(super) enum Gzip {
    /// Before a member, or behind the last one, where zeros may stand: tapes and some writers pad with them.
    #[default]
    Between,
    /// In a header: what there is of it.
    Header(Vec<u8>),
    Body(Box<Body>),
    /// In a trailer: what it must be, and what there is of it.
    Trailer([u8; 8], Vec<u8>),
}

/// The deflated part of a member.
pub(super) struct Body {
    inflate: Decompress,
    crc: Hasher,
    /// Bytes inflated.
    len: u32,
}

impl Gzip {
    /// Whether a member has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        !matches!(self, Gzip::Between)
    }

    /// Decodes from `input` into the spare capacity of `out`; returns how many bytes it took.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            match self {
                Gzip::Between => {
                    used += input[used..].iter().take_while(|byte| **byte == 0).count();
                    match input.get(used) {
                        None => return Ok(used),
                        Some(0x1f) => *self = Gzip::Header(Vec::new()),
                        Some(_) => return Err("what follows the last gzip member is not gzip".into()),
                    }
                }
                Gzip::Header(header) => {
                    let Some(byte) = input.get(used) else { return Ok(used) };
                    header.push(*byte);
                    used += 1;
                    if is_whole(header)? {
                        *self = Gzip::Body(Box::new(Body::new()));
                    }
                }
                Gzip::Body(body) => {
                    let (took, over) = body.decode(&input[used..], out)?;
                    used += took;
                    match over {
                        true => *self = Gzip::Trailer(body.trailer(), Vec::new()),
                        false => return Ok(used),
                    }
                }
                Gzip::Trailer(expected, found) => {
                    let Some(byte) = input.get(used) else { return Ok(used) };
                    found.push(*byte);
                    used += 1;
                    if found.len() == expected.len() {
                        if found != expected {
                            return Err("gzip: its CRC-32 or length is not that of its content".into());
                        }
                        *self = Gzip::Between;
                    }
                }
            }
        }
    }
}

impl Body {
    fn new() -> Self {
        Body { inflate: Decompress::new(false), crc: Hasher::new(), len: 0 }
    }

    /// How many bytes it took, and whether the member is over.
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Fault> {
        let (before, from) = (self.inflate.total_in(), out.len());
        let status = self.inflate.decompress_vec(input, out, FlushDecompress::None);
        self.crc.update(&out[from..]);
        self.len = self.len.wrapping_add((out.len() - from) as u32);
        let status = status.map_err(|error| format!("gzip: {error}"))?;
        Ok(((self.inflate.total_in() - before) as usize, status == Status::StreamEnd))
    }

    /// What the trailer must be: CRC-32 and length modulo 2^32.
    fn trailer(&self) -> [u8; 8] {
        let crc = u64::from(self.crc.clone().finalize());
        (u64::from(self.len) << 32 | crc).to_le_bytes()
    }
}

/// Whether these bytes are a whole header; they are asked for one by one.
fn is_whole(header: &[u8]) -> Result<bool, Fault> {
    let wrong = |what: &str| Err(format!("gzip: {what} in a header"));
    match header {
        [_, second, ..] if *second != 0x8b => return wrong("a wrong magic number"),
        [_, _, method, ..] if *method != 8 => return wrong("an unknown method"),
        [_, _, _, flags, ..] if flags & RESERVED != 0 => return wrong("an unknown flag"),
        _ if header.len() > HEADER => return wrong("an endless name"),
        _ => {}
    }
    let Some(end) = end_of_header(header) else { return Ok(false) };
    if header[3] & HCRC == 0 {
        return Ok(true);
    }
    if header.len() < end + 2 {
        return Ok(false);
    }
    let mut crc = Hasher::new();
    crc.update(&header[..end]);
    let expected = (crc.finalize() as u16).to_le_bytes();
    if header[end..end + 2] == expected { Ok(true) } else { wrong("a wrong checksum") }
}

/// Where the header ends, its checksum aside, if all of it is there.
fn end_of_header(header: &[u8]) -> Option<usize> {
    let flags = *header.get(3)?;
    let mut end = 10;
    if flags & EXTRA != 0 {
        let len = header.get(end..end + 2)?;
        end += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            end += memchr::memchr(0, header.get(end..)?)? + 1;
        }
    }
    (header.len() >= end).then_some(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    /// Decodes in pieces of `step` bytes of input and 7 of output.
    fn decode(packed: &[u8], step: usize) -> Result<Vec<u8>, Fault> {
        let (mut gzip, mut all, mut at) = (Gzip::default(), Vec::new(), 0);
        loop {
            let mut out = Vec::with_capacity(7);
            let took = gzip.decode(&packed[at..(at + step).min(packed.len())], &mut out)?;
            at += took;
            all.extend_from_slice(&out);
            if took == 0 && out.is_empty() {
                break;
            }
        }
        assert_eq!(at, packed.len());
        if gzip.is_inside() { Err("cut".into()) } else { Ok(all) }
    }

    fn member(builder: GzBuilder, content: &[u8]) -> Vec<u8> {
        let mut writer = builder.write(Vec::new(), Compression::fast());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn headers_of_all_forms_in_any_pieces() {
        let whole = GzBuilder::new().filename("data.json").comment("a comment").extra(vec![7; 300]).mtime(5);
        let mut packed = member(whole, b"hello hello hello ");
        packed.extend(member(GzBuilder::new(), b"world"));
        packed.extend([0; 20]);
        for step in [1, 2, 3, 10, 1000] {
            assert_eq!(decode(&packed, step).unwrap(), b"hello hello hello world", "step {step}");
        }
    }

    #[test]
    fn a_header_with_a_checksum_is_checked() {
        let mut packed = member(GzBuilder::new(), b"hello");
        packed[3] |= HCRC;
        let mut crc = Hasher::new();
        crc.update(&packed[..10]);
        let sum = (crc.finalize() as u16).to_le_bytes();
        packed.splice(10..10, sum);
        assert_eq!(decode(&packed, 1).unwrap(), b"hello");
        packed[10] ^= 1;
        assert_eq!(decode(&packed, 1).unwrap_err(), "gzip: a wrong checksum in a header");
    }

    #[test]
    fn every_cut_and_every_flipped_trailer_bit_is_found() {
        let packed = member(GzBuilder::new().filename("n"), b"hello hello");
        for end in 1..packed.len() {
            assert!(decode(&packed[..end], 5).is_err(), "cut at {end}");
        }
        for at in packed.len() - 8..packed.len() {
            let mut wrong = packed.clone();
            wrong[at] ^= 4;
            assert!(decode(&wrong, 1000).unwrap_err().contains("CRC-32 or length"));
        }
    }
}
