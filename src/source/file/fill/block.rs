//! Blocks of lines in which nobody looks for the records before a worker does.

use memchr::{memchr, memrchr};

use crate::cut::Limits;
use crate::json::is_white;
use crate::record::{Chunk, Payload, Room};

use super::super::ahead::Ahead;
use super::super::bytes::Bytes;
use super::super::tally::Reached;
use super::{END, Filled, Filler, GAP, OVER, PIECE};

impl Filler {
    /// Leaves the next block to a worker if that can be. Else the reader fills the chunk, once it knows with which line
    /// that begins.
    pub(super) fn leave(&mut self, chunk: &mut Chunk, bytes: &mut dyn Bytes) -> Option<Filled> {
        if self.far.is_none() || self.stash.is_some() {
            return None;
        }
        chunk.start(&self.partition, self.position);
        let limits = chunk.cutters.limits();
        let block = limits.block_bytes as usize;
        let may = self.closing.is_none() && self.may_take(chunk, block);
        let (far, most) = (self.far.as_mut()?, (block + PIECE) as u64);
        if may && let Some(left) = far.leave(self.position, self.line, most, limits) {
            self.expect = (left.end - left.start) as usize;
            self.reserve(chunk, block);
            self.position = left.end;
            // What was read ahead is read again: it is not much.
            self.ahead = Ahead::default();
            bytes.pass(left.end);
            chunk.leave_block(self.expect as u64, Box::new(left));
            return Some(Filled::Chunk);
        }
        match far.join(self.position)? {
            Reached::Line(line) => self.line = line,
            Reached::Back(at, line) => {
                chunk.cutters.current().give_back(self.position - at);
                bytes.pass(at);
                (self.position, self.line) = (at, line);
            }
            Reached::NotYet | Reached::Aborted => return Some(Filled::Idle),
        }
        None
    }

    /// Whether a block of lines may be taken whole here, and the next line begins with the chunk.
    pub(super) fn may_take(&self, chunk: &mut Chunk, block: usize) -> bool {
        let most = block + PIECE;
        let between = self.scanner.looked_at() == 0 && self.pending.is_none() && self.left.is_none();
        let fits = most <= self.longest && chunk.cutters.current().takes_block(most as u64);
        between && fits && self.payload == Payload::Json && self.scanner.is_at_line()
    }

    /// Takes a block of lines whole, if one stands in the buffer; `None` if that cannot be, and what stands there
    /// must be looked at record by record. Either way blocks end at the same bytes.
    pub(super) fn take_block(&mut self, chunk: &mut Chunk) -> Option<Room> {
        let Limits { block_bytes, block_records, .. } = chunk.cutters.limits();
        let (block, bytes) = (block_bytes as usize, &chunk.bytes);
        if self.closing.is_some() {
            return None;
        }
        let mut end = block.max(1) - 1;
        loop {
            // A line that does not end here may be too large.
            let Some(feed) = bytes.get(end..).and_then(|rest| memchr(b'\n', rest)) else {
                // While they are in the processor's cache.
                self.work.feeds += bytecount::count(&bytes[self.work.arrived..], b'\n');
                self.work.arrived = bytes.len();
                return (bytes.len() < block + PIECE).then_some(Room::More);
            };
            end += feed + 1;
            let begin = memrchr(b'\n', &bytes[..end - 1]).map_or(0, |at| at + 1);
            if !bytes[begin..end].iter().all(|byte| is_white(*byte)) {
                break;
            }
        }
        let lines = self.work.feeds + bytecount::count(&bytes[self.work.arrived..end], b'\n');
        if end > block + PIECE || lines as u64 >= block_records || may_have_gap(&bytes[..end]) {
            return None;
        }
        self.work.line += lines as u64;
        (self.work.done, self.work.counted) = (end, end);
        self.scanner.pass(end);
        chunk.take_block(lines as u32, end as u64);
        Some(Room::Full)
    }

    /// Makes room for a block.
    pub(super) fn reserve(&self, chunk: &mut Chunk, block: usize) {
        let rest = self.size.map_or(u64::MAX, |size| size.saturating_sub(self.position));
        let size = self.expect.clamp(block, block + PIECE) + OVER;
        // There must be some room left where the end is to be seen.
        let size = usize::try_from(rest).map_or(size, |rest| size.min(rest.saturating_add(END)));
        if chunk.bytes.capacity() > 2 * size {
            chunk.bytes = Vec::new();
        }
        chunk.bytes.reserve_exact(size);
    }
}

/// Whether so much white space may stand in these bytes that it ends a chunk. Looks at one byte in many.
pub(in super::super) fn may_have_gap(bytes: &[u8]) -> bool {
    let mut looks = bytes.iter().step_by(GAP / 2).map(|byte| is_white(*byte));
    let mut before = false;
    looks.any(|white| std::mem::replace(&mut before, white) && white)
}
