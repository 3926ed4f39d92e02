//! [`Guard`]: a buffer that refuses counts which its bytes cannot hold.
//!
//! `kafka-protocol` reserves memory for as many elements as an array says to have, before it looks at one. A
//! damaged count of four billion then ends the process, because a failed allocation is an abort and no error.
//! In flexible versions each count and each length is an unsigned varint, read byte by byte and by nothing
//! else: that is where this looks. In older versions counts cannot be told from other 32-bit numbers, except in
//! the two answers of which all 32-bit numbers are counts ([`Words::Counts`]).

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;

/// Tags are numbers too, but small.
const TAGS: u64 = 64;

/// What the 32-bit numbers of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Anything.
    Any,
    /// Counts of elements that take a byte or more.
    Counts,
}

/// The bytes of one message.
pub(crate) struct Guard {
    bytes: Bytes,
    words: Words,
    value: u32,
    length: u32,
}

impl Guard {
    pub(crate) fn new(bytes: Bytes, words: Words) -> Self {
        Guard { bytes, words, value: 0, length: 0 }
    }

    fn check(&self, count: u64) -> Result<(), TryGetError> {
        let available = self.bytes.len();
        if count <= available as u64 + TAGS {
            return Ok(());
        }
        Err(TryGetError { requested: usize::try_from(count).unwrap_or(usize::MAX), available })
    }
}

impl Buf for Guard {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        self.bytes.copy_to_bytes(n)
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.value |= u32::from(byte & 0x7f) << (7 * self.length);
        self.length += 1;
        if byte < 0x80 || self.length == 5 {
            let count = std::mem::take(&mut self.value);
            self.length = 0;
            self.check(u64::from(count))?;
        }
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
        if self.words == Words::Counts && value > 0 {
            self.check(value as u64)?;
        }
        Ok(value)
    }
}

impl ByteBuf for Guard {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.bytes.split_to(size)
    }
}
