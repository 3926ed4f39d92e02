//! Snappy: raw, as librdkafka writes it, or in blocks behind a magic number, as Java's library does.
//!
//! Blocks are what is written: every client reads them. Framing: snappy-java's `SnappyOutputStream`.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::super::unpack::{Output, Stuck};

/// Magic number, version 1, compatible with version 1.
const HEAD: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const MAGIC: usize = 8;
/// Java's block size.
const BLOCK: usize = 32 * 1024;

/// Decompresses.
pub(crate) fn unpack(input: &[u8], out: &mut Output) -> Result<(), Stuck> {
    if !input.starts_with(&HEAD[..MAGIC]) {
        return unpack_block(input, out);
    }
    let mut rest = input.get(HEAD.len()..).ok_or_else(|| Stuck::damaged("cut off in the header"))?;
    while !rest.is_empty() {
        // Streams may stand one behind the other, each with its header.
        if rest.starts_with(&HEAD[..MAGIC]) && rest.len() >= HEAD.len() {
            rest = &rest[HEAD.len()..];
            continue;
        }
        let (length, behind) =
            rest.split_first_chunk::<4>().ok_or_else(|| Stuck::damaged("cut off before a block"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, behind) =
            behind.split_at_checked(length).ok_or_else(|| Stuck::damaged("cut off in a block"))?;
        unpack_block(block, out)?;
        rest = behind;
    }
    Ok(())
}

fn unpack_block(block: &[u8], out: &mut Output) -> Result<(), Stuck> {
    let size = decompress_len(block).map_err(Stuck::damaged)?;
    // The format's best ratio is 64 bytes out of three; a claim beyond that is not worth the memory.
    if size / 32 > block.len() {
        return Err(Stuck::damaged("impossible size of a block"));
    }
    let room = out.room_exact(size)?;
    let written = Decoder::new().decompress(block, room).map_err(Stuck::damaged)?;
    out.advance(written);
    Ok(())
}

/// Compresses `input` behind `out`.
pub(crate) fn pack(encoder: &mut Encoder, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    out.extend_from_slice(&HEAD);
    for block in input.chunks(BLOCK) {
        let at = out.len();
        out.resize(at + 4 + max_compress_len(block.len()), 0);
        let size = encoder.compress(block, &mut out[at + 4..]).map_err(|error| error.to_string())?;
        out[at..at + 4].copy_from_slice(&(size as u32).to_be_bytes());
        out.truncate(at + 4 + size);
    }
    Ok(())
}
