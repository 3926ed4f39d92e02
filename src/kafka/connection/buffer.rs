//! [`FrameBuffer`]: reads answers into memory that is used again once nobody holds the last answer.
//!
//! Fetched records are slices of their frame. The buffer keeps a handle of it; when the next answer is read and
//! that handle is the only one left, the memory is filled again, otherwise it is left to its holders. Memory
//! grows with the bytes that arrive, not with the size that a frame claims. What has arrived of an answer stays here
//! while its socket has no more.

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
    /// That of the last answer.
    whole: Bytes,
    prefix: [u8; frame::PREFIX],
    prefixed: usize,
    part: Option<Part>,
}

/// An answer of which not all is here.
struct Part {
    /// Everything in it is initialised, so that only growth is zeroed.
    bytes: BytesMut,
    size: usize,
    filled: usize,
}

impl FrameBuffer {
    /// Reads on, until there is one frame, which is returned without its size. After an error that the socket may
    /// get over (no more bytes for now) the next call goes on.
    pub(crate) fn read(&mut self, socket: &mut Socket, cap: usize) -> io::Result<Result<Bytes, FrameFault>> {
        while self.prefixed < frame::PREFIX {
            self.prefixed += socket.read_some(&mut self.prefix[self.prefixed..])?;
        }
        let part = match &mut self.part {
            Some(part) => part,
            None => match frame::size(self.prefix, cap) {
                Ok(size) => {
                    let bytes = std::mem::take(&mut self.whole).try_into_mut().unwrap_or_default();
                    self.part.insert(Part { bytes, size, filled: 0 })
                }
                Err(fault) => return Ok(Err(fault)),
            },
        };
        part.fill(socket)?;
        let Some(part) = self.part.take() else { unreachable!("it was there to be filled") };
        self.prefixed = 0;
        let whole = part.bytes.freeze();
        let answer = whole.slice(..part.size);
        if whole.len() <= KEEP {
            self.whole = whole;
        }
        Ok(Ok(answer))
    }
}

impl Part {
    fn fill(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.filled < self.size {
            if self.filled == self.bytes.len() {
                self.bytes.resize(self.size.min((self.filled * 2).max(FIRST)), 0);
            }
            let ready = self.size.min(self.bytes.len());
            self.filled += socket.read_some(&mut self.bytes[self.filled..ready])?;
        }
        Ok(())
    }
}
