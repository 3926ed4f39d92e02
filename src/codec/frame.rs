//! Joins blocks to one container: what stands before and behind them. Bytes only; a container may be spread over
//! many bodies (the parts of an upload), so the framer outlives each of them.

use crc32fast::Hasher;

use super::Codec;
use crate::batch::{Body, Piece};

/// RFC 1952: deflate, no flags, no time, no extra flags, operating system unknown. No clock, so that a batch done
/// again has the same bytes.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// RFC 1951: an empty block with fixed codes, the last of the stream.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Puts blocks together to one container: what stands before and behind them.
pub struct Framer {
    codec: Codec,
    checksum: Hasher,
    raw_len: u64,
    begun: bool,
}

impl Framer {
    /// A container that is still empty.
    pub fn new(codec: Codec) -> Self {
        Framer { codec, checksum: Hasher::new(), raw_len: 0, begun: false }
    }

    /// Appends a block to `body`, behind the container's header if it is the first. For gzip the block's
    /// `raw_len` and `raw_crc` must be those of what was encoded.
    pub fn push(&mut self, block: Piece, body: &mut Body) {
        if let Codec::Gzip(_) = self.codec {
            if !self.begun {
                body.push(around(GZIP_HEADER.to_vec()));
            }
            self.checksum.combine(&Hasher::new_with_initial_len(block.raw_crc, block.raw_len));
            self.raw_len += block.raw_len;
        }
        self.begun = true;
        body.push(block);
    }

    /// Appends the container's trailer, if it has a block; a container without a block stays empty.
    pub fn finish(self, body: &mut Body) {
        if !self.begun || !matches!(self.codec, Codec::Gzip(_)) {
            return;
        }
        let mut trailer = LAST_BLOCK.to_vec();
        trailer.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        // ISIZE is the length modulo 2^32.
        trailer.extend_from_slice(&(self.raw_len as u32).to_le_bytes());
        body.push(around(trailer));
    }
}

/// A piece of the container itself: it encodes nothing.
fn around(bytes: Vec<u8>) -> Piece {
    let mut piece = Piece::owned(bytes);
    piece.raw_len = 0;
    piece
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::codec::Encoder;

    fn container(codec: Codec, blocks: &[&[u8]]) -> Vec<u8> {
        let (mut encoder, mut framer, mut body) = (Encoder::new(codec), Framer::new(codec), Body::default());
        for raw in blocks {
            let mut bytes = Vec::new();
            let raw_crc = encoder.encode(raw, &mut bytes);
            let mut piece = Piece::owned(bytes);
            (piece.raw_len, piece.raw_crc) = (raw.len() as u64, raw_crc);
            framer.push(piece, &mut body);
        }
        framer.finish(&mut body);
        let bytes: Vec<u8> = body.pieces().iter().flat_map(|piece| piece.bytes()).copied().collect();
        assert_eq!(body.crc32c(), crc32c::crc32c(&bytes));
        assert_eq!(
            body.pieces().iter().map(|piece| piece.raw_len).sum::<u64>() as usize,
            blocks.concat().len()
        );
        bytes
    }

    /// Reads one member, and fails if anything stands behind it.
    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        decoder.read_to_end(&mut raw).expect("valid gzip");
        assert!(decoder.into_inner().is_empty(), "more than one member");
        raw
    }

    #[test]
    fn a_container_without_a_block_is_empty() {
        for codec in [Codec::None, Codec::Gzip(1), Codec::Zstd(1)] {
            assert!(container(codec, &[]).is_empty());
        }
    }

    #[test]
    fn blocks_become_one_member_that_gzip_itself_accepts() {
        let lines = b"{\"a\":1}\n".repeat(5000);
        let bytes = container(Codec::Gzip(1), &[&lines, b"", &lines[..800], b"x\n"]);
        assert_eq!(&bytes[..10], &GZIP_HEADER);
        let Ok(mut child) = Command::new("gzip").arg("-t").stdin(Stdio::piped()).spawn() else {
            eprintln!("skipped: there is no gzip program here");
            return;
        };
        child.stdin.take().expect("piped").write_all(&bytes).expect("gzip reads");
        assert!(child.wait().expect("gzip ends").success());
    }

    #[test]
    fn a_container_may_be_spread_over_bodies() {
        let mut framer = Framer::new(Codec::Gzip(6));
        let mut bytes = Vec::new();
        for raw in [&b"one\n"[..], b"two\n"] {
            let (mut body, mut block) = (Body::default(), Vec::new());
            let raw_crc = Encoder::new(Codec::Gzip(6)).encode(raw, &mut block);
            let mut piece = Piece::owned(block);
            (piece.raw_len, piece.raw_crc) = (raw.len() as u64, raw_crc);
            framer.push(piece, &mut body);
            bytes.extend(body.pieces().iter().flat_map(|piece| piece.bytes()).copied());
        }
        let mut body = Body::default();
        framer.finish(&mut body);
        bytes.extend(body.pieces().iter().flat_map(|piece| piece.bytes()).copied());
        assert_eq!(gunzip(&bytes), b"one\ntwo\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_the_blocks_the_bytes_come_back(
            blocks in prop::collection::vec(prop::collection::vec(97u8..105, 0..4000), 1..8),
            gzip in 0u32..=9,
            zstd in -7i32..=9,
        ) {
            let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let raw = blocks.concat();
            prop_assert_eq!(&gunzip(&container(Codec::Gzip(gzip), &blocks)), &raw);
            let frames = container(Codec::Zstd(zstd), &blocks);
            prop_assert_eq!(&zstd::stream::decode_all(&frames[..]).expect("valid zstd"), &raw);
            prop_assert_eq!(&container(Codec::None, &blocks), &raw);
        }
    }
}
