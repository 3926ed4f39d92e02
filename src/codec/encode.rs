//! Compresses one block at a time, in the pool. What comes out depends on the block and the codec alone, never
//! on what the same encoder did before: a batch that is done again has the same bytes whoever compresses it.
//!
//! Every call offers the compressor more room than the worst case takes, so that it never has to stop in the
//! middle: where it stopped would depend on how large the caller's buffer happened to be, and a sync flush that
//! is interrupted may leave two markers. Measured against a stream writer: the same size, no copy in between.

use flate2::{Compress, Compression, FlushCompress};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::Codec;
use crate::budget::make_room;

/// Compresses blocks. One a worker, used again and again; what it does depends on nothing before.
pub struct Encoder(Inner);

enum Inner {
    None,
    Gzip(Compress),
    Zstd(Compressor<'static>),
}

impl Encoder {
    /// An encoder for `codec`. It allocates what the compressor needs, once.
    pub fn new(codec: Codec) -> Self {
        Encoder(match codec {
            Codec::None => Inner::None,
            Codec::Gzip(level) => Inner::Gzip(Compress::new(Compression::new(level.min(9)), false)),
            Codec::Zstd(level) => {
                let mut compressor = Compressor::new(level)
                    .expect("a context is made at any level, out-of-range ones clamped");
                // Four bytes a frame: damage is found when the object is read.
                compressor.set_parameter(CParameter::ChecksumFlag(true)).expect("a flag of every zstd 1.x");
                Inner::Zstd(compressor)
            }
        })
    }

    /// Compresses one block and appends it to `out`; returns the CRC-32 (RFC 1952) of `raw` for gzip, else 0.
    pub fn encode(&mut self, raw: &[u8], out: &mut Vec<u8>) -> u32 {
        match &mut self.0 {
            Inner::None => {
                out.extend_from_slice(raw);
                0
            }
            Inner::Gzip(compress) => {
                deflate(compress, raw, out);
                crc32fast::hash(raw)
            }
            Inner::Zstd(compressor) => {
                frame(compressor, raw, out);
                0
            }
        }
    }
}

/// Appends `raw` as raw deflate blocks that end in a sync flush, on a byte boundary, and refer to nothing before.
fn deflate(compress: &mut Compress, raw: &[u8], out: &mut Vec<u8>) {
    compress.reset();
    // Level 1 writes literals of up to nine bits; stored blocks have five bytes each.
    make_room(out, raw.len() + raw.len() / 8 + 256);
    loop {
        let done = compress.total_in() as usize;
        compress
            .compress_vec(&raw[done..], out, FlushCompress::Sync)
            .expect("deflate fails only for a stream that is not initialised");
        if compress.total_in() as usize == raw.len() && out.len() < out.capacity() {
            return;
        }
        make_room(out, 256);
    }
}

/// Appends `raw` as one zstd frame.
fn frame(compressor: &mut Compressor<'static>, raw: &[u8], out: &mut Vec<u8>) {
    let before = out.len();
    let bound = compress_bound(raw.len());
    make_room(out, bound);
    let fits = "a frame fits into zstd's own bound for it";
    if before == 0 {
        // Into memory that need not be zeroed first.
        compressor.compress_to_buffer(raw, out).expect(fits);
        return;
    }
    out.resize(before + bound, 0);
    let len = compressor.compress_to_buffer(raw, &mut out[before..]).expect(fits);
    out.truncate(before + len);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 7] = [
        Codec::None,
        Codec::Gzip(0),
        Codec::Gzip(1),
        Codec::Gzip(6),
        Codec::Gzip(9),
        Codec::Zstd(1),
        Codec::Zstd(-7),
    ];

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn a_used_encoder_gives_the_bytes_of_a_fresh_one() {
        let text = b"{\"level\":\"error\",\"status\":500}\n".repeat(9000);
        for codec in CODECS {
            let mut used = Encoder::new(codec);
            for raw in [&text[..], &noise(300_000), b"", &text[..70_000], b"x", &text] {
                let (mut again, mut fresh) = (vec![1, 2, 3], Vec::new());
                let crc = used.encode(raw, &mut again);
                assert_eq!(crc, Encoder::new(codec).encode(raw, &mut fresh));
                assert!(again[3..] == fresh, "{codec} differs for {} bytes", raw.len());
            }
        }
    }

    #[test]
    fn output_does_not_depend_on_the_room_in_the_buffer() {
        let raw = noise(100_000);
        for codec in CODECS {
            let mut tight = Vec::new();
            let mut roomy = Vec::with_capacity(1 << 20);
            Encoder::new(codec).encode(&raw, &mut tight);
            Encoder::new(codec).encode(&raw, &mut roomy);
            assert!(tight == roomy, "{codec}");
        }
    }

    #[test]
    fn only_gzip_needs_the_crc() {
        for codec in CODECS {
            let crc = Encoder::new(codec).encode(b"123456789", &mut Vec::new());
            let expected = if matches!(codec, Codec::Gzip(_)) { 0xCBF4_3926 } else { 0 };
            assert_eq!(crc, expected, "{codec}");
        }
    }
}
