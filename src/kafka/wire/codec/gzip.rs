//! Gzip (RFC 1952) around raw deflate, so that the inflater's state is recycled and the output goes to where
//! it is walked. Members one behind the other are one stream, as in Java.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::super::unpack::{Output, Stuck};

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// What is written: no name, no time, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The least room to inflate into.
const STEP: usize = 16 * 1024;

/// The decoder's state, about 40 KiB.
pub(crate) struct Gunzip(Decompress);

impl Gunzip {
    pub(crate) fn new() -> Self {
        Gunzip(Decompress::new(false))
    }

    /// Decompresses all members of `input`.
    pub(crate) fn unpack(&mut self, mut input: &[u8], out: &mut Output) -> Result<(), Stuck> {
        loop {
            skip_header(&mut input)?;
            self.member(&mut input, out)?;
            if input.is_empty() {
                return Ok(());
            }
        }
    }

    fn member(&mut self, input: &mut &[u8], out: &mut Output) -> Result<(), Stuck> {
        let start = out.split().0.len();
        self.0.reset(false);
        while self.inflate(input, out)? != Status::StreamEnd {}
        let trailer = take(input, 8)?;
        let member = &out.split().0[start..];
        let word =
            |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
        if word(0) != crc32fast::hash(member) || word(4) != member.len() as u32 {
            return Err(Stuck::damaged("checksum mismatch"));
        }
        Ok(())
    }

    /// One call of the inflater: it either takes, gives, or ends.
    fn inflate(&mut self, input: &mut &[u8], out: &mut Output) -> Result<Status, Stuck> {
        // At the cap the stream may just have ended: the inflater is asked before it is called too large.
        let full = out.room(STEP.max(input.len().saturating_mul(2))).is_err();
        let (taken, given) = (self.0.total_in(), self.0.total_out());
        let status = self
            .0
            .decompress(input, out.split().1, FlushDecompress::None)
            .map_err(|_| Stuck::damaged("not deflated data"))?;
        let (taken, given) = (self.0.total_in() - taken, self.0.total_out() - given);
        *input = &input[taken as usize..];
        out.advance(given as usize);
        match (status, taken, given) {
            (Status::StreamEnd, ..) => Ok(status),
            (_, 0, 0) if full => Err(Stuck::Full),
            (_, 0, 0) => Err(Stuck::damaged("cut off")),
            _ => Ok(status),
        }
    }
}

fn skip_header(input: &mut &[u8]) -> Result<(), Stuck> {
    let head = take(input, HEAD.len())?;
    if !head.starts_with(&MAGIC) {
        return Err(Stuck::damaged("not a gzip member"));
    }
    let flags = head[3];
    if flags & 4 != 0 {
        let size = take(input, 2)?;
        take(input, usize::from(u16::from_le_bytes([size[0], size[1]])))?;
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = memchr::memchr(0, input).ok_or_else(|| Stuck::damaged("cut off in the header"))?;
            take(input, end + 1)?;
        }
    }
    take(input, if flags & 2 != 0 { 2 } else { 0 }).map(drop)
}

fn take<'a>(input: &mut &'a [u8], size: usize) -> Result<&'a [u8], Stuck> {
    let (taken, rest) = input.split_at_checked(size).ok_or_else(|| Stuck::damaged("cut off"))?;
    *input = rest;
    Ok(taken)
}

/// The encoder's state.
pub(crate) struct Gzip(Compress);

impl Gzip {
    pub(crate) fn new(level: i32) -> Self {
        Gzip(Compress::new(Compression::new(level.clamp(0, 9) as u32), false))
    }

    /// Compresses `input` behind `out`.
    pub(crate) fn pack(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(&HEAD);
        self.0.reset();
        loop {
            let taken = self.0.total_in() as usize;
            out.reserve((input.len() - taken) / 4 + STEP);
            let status = self
                .0
                .compress_vec(&input[taken..], out, FlushCompress::Finish)
                .map_err(|error| error.to_string())?;
            if status == Status::StreamEnd {
                break;
            }
        }
        out.extend_from_slice(&crc32fast::hash(input).to_le_bytes());
        out.extend_from_slice(&(input.len() as u32).to_le_bytes());
        Ok(())
    }
}
