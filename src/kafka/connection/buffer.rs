//! [`FrameBuffer`]: reads answers into memory that is used again once nobody holds the last answer.
//!
//! Fetched records are slices of their frame. The buffer keeps a handle of it; when the next answer is read and
//! that handle is the only one left, the memory is filled again, otherwise it is left to its holders. Memory
//! grows with the bytes that arrive, not with the size that a frame claims.

use std::io;

use bytes::{Bytes, BytesMut};

use super::socket::Socket;
use crate::kafka::wire::frame::{self, FrameFault};

/// How much is made ready before the first byte.
const FIRST: usize = 64 << 10;
/// Larger buffers are not kept.
const KEEP: usize = 16 << 20;

/// The memory of a connection's answers.
#[derive(Default)]
pub(crate) struct FrameBuffer {
    whole: Bytes,
}

impl FrameBuffer {
    /// Reads one frame, without its size.
    pub(crate) fn read(&mut self, socket: &mut Socket, cap: usize) -> io::Result<Result<Bytes, FrameFault>> {
        let mut prefix = [0; frame::PREFIX];
        socket.read_exact(&mut prefix)?;
        let size = match frame::size(prefix, cap) {
            Ok(size) => size,
            Err(fault) => return Ok(Err(fault)),
        };
        // Everything in it is initialised, so that only growth is zeroed.
        let mut whole = std::mem::take(&mut self.whole).try_into_mut().unwrap_or_default();
        fill(&mut whole, size, socket)?;
        let whole = whole.freeze();
        let answer = whole.slice(..size);
        if whole.len() <= KEEP {
            self.whole = whole;
        }
        Ok(Ok(answer))
    }
}

fn fill(whole: &mut BytesMut, size: usize, socket: &mut Socket) -> io::Result<()> {
    let mut filled = 0;
    while filled < size {
        let ready = size.min(whole.len().max(filled * 2).max(FIRST));
        if whole.len() < ready {
            whole.resize(ready, 0);
        }
        socket.read_exact(&mut whole[filled..ready])?;
        filled = ready;
    }
    Ok(())
}
