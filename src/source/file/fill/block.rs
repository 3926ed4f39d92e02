//! Blocks of lines in which nobody looks for the records before a worker does.

use memchr::{memchr, memrchr};

use crate::json::is_white;
use crate::record::{Chunk, Errand, Payload, Room};

use super::super::ahead::Ahead;
use super::super::bytes::Bytes;
use super::super::tally::Reached;
use super::{END, Filled, Filler, GAP, OVER, PIECE};

/// Of so many bytes the first so many are looked at to see how long lines are.
const SAMPLED: usize = 8 << 10;
const SAMPLE: usize = 256;

/// The reader counts the lines of so many blocks itself at the end of a batch, and behind something else than a block:
/// it waits for workers where that comes.
pub(in super::super) const LAST: usize = 16;

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
        if may && far.only_counts() {
            return None;
        }
        if may && let Some(left) = far.leave(self.position, self.line, most, limits) {
            self.expect = (left.end - left.start) as usize;
            self.reserve(chunk, block);
            self.position = left.end;
            // What was read ahead is read again: it is not much.
            self.ahead = Ahead::default();
            bytes.pass(left.end);
            chunk.take_block(0, self.expect as u64, Some(Box::new(left)));
            return Some(Filled::Chunk);
        }
        self.join(chunk, bytes)
    }

    /// Learns with which line the chunk begins, if that is not known, before anybody looks for its records. Else says
    /// that it is not told yet, or that the reader has to go back where it cannot do that here.
    fn join(&mut self, chunk: &mut Chunk, bytes: &mut dyn Bytes) -> Option<Filled> {
        match self.far.as_mut()?.join(self.position)? {
            Reached::Line(line) => (self.line, self.work.line, chunk.line) = (line, line, line),
            Reached::Back(at, line) => {
                chunk.cutters.current().give_back(self.position - at);
                if !bytes.pass(at) {
                    return Some(Filled::Back(at, line));
                }
                (self.position, self.line) = (at, line);
            }
            Reached::NotYet | Reached::Aborted => return Some(Filled::Idle),
        }
        None
    }

    /// Whether the reader counts the lines of the block that begins here, which is one less that is near. It does so
    /// where workers have no time for that, and at the end of a batch: then the lines before are counted when it has to
    /// know how many there were.
    pub(super) fn counts(&mut self, chunk: &mut Chunk, block: usize) -> bool {
        let many = (block + PIECE) * (LAST + 1);
        let leaves = self.far.as_ref().is_some_and(|far| far.only_counts() && !far.is_behind());
        let is_near = self.near > 0;
        self.near = self.near.saturating_sub(1);
        !leaves || self.dense || is_near || !chunk.cutters.current().takes_block(many as u64)
    }

    /// Takes a block whole, if the chunk may become one and that stands in the buffer. Before records are looked for
    /// one by one the number of the first line has to be known: then something else may come of it.
    pub(super) fn scan_block(&mut self, chunk: &mut Chunk, bytes: &mut dyn Bytes) -> Option<Filled> {
        if self.work.whole {
            match self.take_block(chunk) {
                Some(Room::Full) => {
                    self.hand_over(chunk);
                    return Some(Filled::Chunk);
                }
                Some(Room::More) => return None,
                None => (self.work.whole, self.near) = (false, LAST),
            }
        }
        let filled = self.join(chunk, bytes)?;
        if matches!(filled, Filled::Idle) {
            self.keep(chunk);
        }
        Some(filled)
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
        let limits = chunk.cutters.limits();
        let (block, bytes) = (limits.block_bytes as usize, &chunk.bytes);
        if self.closing.is_some() {
            return None;
        }
        let mut end = block.max(1) - 1;
        loop {
            // A line that does not end here may be too large.
            let Some(feed) = bytes.get(end..).and_then(|rest| memchr(b'\n', rest)) else {
                if self.work.counts {
                    // While they are in the processor's cache.
                    self.work.feeds += bytecount::count(&bytes[self.work.arrived..], b'\n');
                    self.work.arrived = bytes.len();
                }
                return (bytes.len() < block + PIECE).then_some(Room::More);
            };
            end += feed + 1;
            let begin = memrchr(b'\n', &bytes[..end - 1]).map_or(0, |at| at + 1);
            if !bytes[begin..end].iter().all(|byte| is_white(*byte)) {
                break;
            }
        }
        let (far, rest) = (self.far.as_mut(), &bytes[self.work.arrived..end]);
        let may_leave = far.as_ref().is_some_and(|far| far.only_counts());
        self.dense = may_leave && is_dense(&bytes[..end], limits.block_records);
        let lines = (self.work.counts || self.dense)
            .then(|| (self.work.feeds + bytecount::count(rest, b'\n')) as u64);
        let too_many = lines.is_some_and(|lines| lines >= limits.block_records);
        if end > block + PIECE || too_many || may_have_gap(&bytes[..end]) {
            return None;
        }
        let place = (self.position, self.position + end as u64);
        let left = far.and_then(|far| far.leave_lines(place, self.line, lines, limits));
        let lines = lines.unwrap_or(0);
        self.work.line += lines;
        (self.work.done, self.work.counted) = (end, end);
        self.scanner.pass(end);
        chunk.take_block(lines as u32, end as u64, left.map(|left| Box::new(left) as Box<dyn Errand>));
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

/// Whether so many lines may stand in these bytes that the reader had better count them. Looks at one byte in many.
fn is_dense(bytes: &[u8], block_records: u64) -> bool {
    let samples = bytes.chunks(SAMPLED).map(|bytes| &bytes[..SAMPLE.min(bytes.len())]);
    let (seen, lines) = samples.fold((0, 0), |(seen, lines), sample| {
        (seen + sample.len() as u64, lines + bytecount::count(sample, b'\n') as u64)
    });
    // What was seen is not all: three quarters of what there may be are many.
    4 * lines * bytes.len() as u64 > 3 * block_records.saturating_mul(seen)
}

/// Whether so much white space may stand in these bytes that it ends a chunk. Looks at one byte in many.
pub(in super::super) fn may_have_gap(bytes: &[u8]) -> bool {
    let mut looks = bytes.iter().step_by(GAP / 2).map(|byte| is_white(*byte));
    let mut before = false;
    looks.any(|white| std::mem::replace(&mut before, white) && white)
}
