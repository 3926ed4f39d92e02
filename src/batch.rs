//! What is stored: [`Batch`], its [`Body`] and the [`Receipt`] for it. Plain data.
//!
//! A body is a list of slices into the pool's output buffers; it is never joined into one. A buffer goes back
//! to its owner, and its bytes to the budget, when the last slice of it is dropped.

use std::io::{self, Write};
use std::ops::{AddAssign, Range};
use std::sync::Arc;

use crate::budget::{Lease, Recycler};
use crate::codec::sum::joined;
use crate::cut::Close;
use crate::record::{Partition, RejectKind};

/// Which batch: its partition and start alone name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// The partition.
    pub partition: Partition,
    /// The position it starts at: the end of the batch before it.
    pub start: u64,
    /// The first record's time, in milliseconds since the epoch; 0 where records have none.
    pub first_time: i64,
    /// What stands for "now" in it, in milliseconds since the epoch.
    pub opened_at: i64,
}

/// Records read, stored and rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read.
    pub read: u64,
    /// Outputs to store; a transform may make none or several of a record.
    pub stored: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Bytes of the records read.
    pub bytes_read: u64,
    /// Records rejected, by kind.
    pub kinds: Kinds,
}

/// How many records were rejected, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds([u64; RejectKind::ALL.len()]);

impl Kinds {
    /// Adds records of a kind.
    pub fn add(&mut self, kind: RejectKind, count: u64) {
        self.0[kind as usize] += count;
    }

    /// The kinds of which there are any, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (RejectKind, u64)> {
        RejectKind::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

impl AddAssign for Kinds {
    fn add_assign(&mut self, other: Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.stored += other.stored;
        self.rejected += other.rejected;
        self.bytes_read += other.bytes_read;
        if other.rejected > 0 {
            self.kinds += other.kinds;
        }
    }
}

/// A batch, ready to be stored. It holds a part of the run's memory: a sink that keeps one, or a clone, lets readers wait.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which one.
    pub id: BatchId,
    /// The position behind its last record.
    pub end: u64,
    /// Number of the line that begins at `end`; 0 where lines are not counted.
    pub line: u64,
    /// What the source needs to go on from `end`.
    pub resume: Option<Arc<[u8]>>,
    /// Its records.
    pub counts: Counts,
    /// Why it was closed.
    pub close: Close,
    /// The output, framed as the sink's shape asks. Empty for a batch that went to an [`crate::sink::Upload`].
    pub stored: Body,
    /// The dead letters, likewise.
    pub failed: Body,
}

/// Encoded bytes of one stream of a batch, in order.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pieces: Vec<Piece>,
    len: u64,
}

impl Body {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Piece) {
        self.len += piece.len() as u64;
        self.pieces.push(piece);
    }

    /// Its pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The first piece, to be replaced by one with the same bytes.
    pub(crate) fn first_mut(&mut self) -> Option<&mut Piece> {
        self.pieces.first_mut()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first `len` bytes, or all where there are fewer.
    pub(crate) fn take_front(&mut self, len: u64) -> Body {
        let mut front = Body::default();
        let whole = self.pieces.iter().take_while(|piece| {
            let fits = front.len + piece.len() as u64 <= len;
            front.len += if fits { piece.len() as u64 } else { 0 };
            fits
        });
        let whole = whole.count();
        front.pieces = self.pieces.drain(..whole).collect();
        self.len -= front.len;
        let more = (len - front.len) as usize;
        if more > 0 && !self.pieces.is_empty() {
            let (first, rest) = self.pieces[0].split_at(more);
            self.pieces[0] = rest;
            self.len -= more as u64;
            front.push(first);
        }
        front
    }

    /// Writes all its bytes.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        self.pieces.iter().try_for_each(|piece| to.write_all(piece.bytes()))
    }

    /// CRC-32C (RFC 3720) of all its bytes.
    pub fn crc32c(&self) -> u32 {
        let mut pieces = self.pieces.iter();
        let first = pieces.next().map_or(0, |piece| piece.crc32c);
        pieces.fold(first, |crc, piece| joined(crc, piece.crc32c, piece.len() as u64))
    }
}

/// A slice of an output buffer, with what containers need to know of it.
#[derive(Clone, Debug)]
pub struct Piece {
    buffer: Arc<Buffer>,
    range: Range<usize>,
    /// Length of what was encoded.
    pub raw_len: u64,
    /// CRC-32 (RFC 1952) of what was encoded; 0 where the codec does not need it.
    pub raw_crc: u32,
    /// CRC-32C of the bytes; 0 where the sink does not ask for checksums.
    pub crc32c: u32,
}

impl Piece {
    /// A slice of a buffer; its checksums are zero.
    pub fn new(buffer: &Arc<Buffer>, range: Range<usize>) -> Self {
        Piece { buffer: buffer.clone(), raw_len: range.len() as u64, range, raw_crc: 0, crc32c: 0 }
    }

    /// A piece with a buffer of its own, outside the budget: headers, trailers and tests.
    pub fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let mut piece = Piece::new(&Arc::new(Buffer { bytes, lease: Lease::default(), home: None }), 0..len);
        piece.crc32c = crc32c::crc32c(piece.bytes());
        piece
    }

    /// Both sides of `at`, each with its CRC-32C, where the piece has one. What was encoded is not known of them.
    fn split_at(&self, at: usize) -> (Piece, Piece) {
        let side = |range: Range<usize>| {
            let mut side = Piece { range, raw_len: 0, raw_crc: 0, ..self.clone() };
            side.crc32c = if self.crc32c == 0 { 0 } else { crc32c::crc32c(side.bytes()) };
            side
        };
        let middle = self.range.start + at;
        (side(self.range.start..middle), side(middle..self.range.end))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.bytes[self.range.clone()]
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// How many bytes its buffer holds in memory, of which this may be a small part.
    pub fn pinned(&self) -> usize {
        self.buffer.bytes.capacity()
    }
}

/// Output of the pool. Goes back to its owner when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lease: Lease,
    pub(crate) home: Option<Arc<Recycler>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give(std::mem::take(&mut self.bytes));
        }
        drop(std::mem::take(&mut self.lease));
    }
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which batch.
    pub id: BatchId,
    /// The position behind its last record.
    pub end: u64,
    /// Where the records are; `None` if there were none to store.
    pub key: Option<String>,
    /// Where the dead letters are; `None` if there were none.
    pub failed_key: Option<String>,
    /// Its records.
    pub counts: Counts,
    /// Bytes stored, dead letters included.
    pub bytes: u64,
    /// How many of them are dead letters.
    pub failed_bytes: u64,
    /// CRC-32C of the stored object; 0 where the sink does not ask for checksums.
    pub crc32c: u32,
}

impl Receipt {
    /// A receipt for a whole batch.
    pub fn of(batch: &Batch, key: Option<String>, failed_key: Option<String>) -> Self {
        Receipt {
            id: batch.id.clone(),
            end: batch.end,
            key,
            failed_key,
            counts: batch.counts,
            bytes: batch.stored.len() + batch.failed.len(),
            failed_bytes: batch.failed.len(),
            crc32c: batch.stored.crc32c(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body is cut at any length into two with the same bytes and checksums.
    #[test]
    fn a_front_is_taken_anywhere() {
        let texts = ["one", "", "two and ", "three"];
        let all = texts.concat();
        for at in 0..=all.len() + 1 {
            let mut rest = Body::default();
            texts.iter().for_each(|text| rest.push(Piece::owned(text.as_bytes().to_vec())));
            let front = rest.take_front(at as u64);
            let (left, right) = all.split_at(at.min(all.len()));
            for (body, text) in [(&front, left), (&rest, right)] {
                let mut bytes = Vec::new();
                body.write_to(&mut bytes).unwrap();
                assert_eq!((bytes.as_slice(), body.len()), (text.as_bytes(), text.len() as u64), "{at}");
                assert_eq!(body.crc32c(), crc32c::crc32c(text.as_bytes()), "{at}");
            }
        }
    }
}
