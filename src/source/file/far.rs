//! Which blocks of lines a reader leaves to the workers: [`Far`].
//!
//! Of a file that is not compressed they read them, of another one they only count the lines, which takes a reader
//! that decodes two or three hundredths of its time, and it is what the run waits for.
//!
//! A worker that reads a block itself finds it in its own processor's cache, and a reader that copies nothing feeds
//! any number of workers. It looks for the ends of blocks only, at a few KiB of each. Where a processor is free for the
//! reader, it reads ahead of the workers instead ([`is_worth_it`]).
//!
//! Nobody waits for a disk here: a block whose end is not in the page cache is read by the reader. So is everything
//! that needs a look at the bytes: the first block and the last, one with a line that ends far behind the block's
//! end, and one with so many lines or so much white space that it is not one block. If only the worker sees that
//! such a block was left to it, or one that cannot be read, the reader goes back there; what was left behind it is
//! thrown away, and the reader reads on itself for a while. So blocks end at the same bytes whoever reads.
//!
//! What is decoded has no places to go to: to go back there is to decode everything before it again. So the reader
//! looks how long the lines are at a few places of each block, counts the short ones, and goes back once in a file at
//! most.

use std::sync::Arc;
use std::time::Duration;

use memchr::{memchr, memrchr};

use crate::crew::LEFT;
use crate::cut::Limits;
use crate::json::is_white;

use super::bytes::Place;
use super::errand::{Bring, Done, Left};
use super::stock::Stock;
use super::tally::{Reached, Tally};

/// So many bytes are looked at around the end of a block, of which so many stand before it.
const WINDOW: usize = 4 << 10;
const BEFORE: usize = 64;

/// Behind a block of which nothing is at hand, or that seems to have too many lines, the reader reads so many itself.
const NEAR: u32 = 16;

/// Behind the first that it had to go back to it reads so many, then twice as many, and so on.
const MOST: u32 = 1 << 16;

/// One reader can feed so many workers without being what they wait for.
const FEEDS: usize = 3;

/// More blocks wait for workers only where all of them are at work; and where there is one, which is never left more
/// than five.
const BEHIND: usize = LEFT + 1;
const ALONE: usize = 4;

/// How long the reader waits for workers at a time.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether so many workers should read blocks themselves; `processors` is how many there are.
pub(super) fn is_worth_it(workers: usize, processors: usize) -> bool {
    workers >= processors.min(FEEDS + 1)
}

/// Leaves blocks of lines of one regular file to workers.
pub(super) struct Far {
    way: Way,
    /// Where so many blocks wait for workers the run waits for those, and the reader has the time to do what it can.
    behind: usize,
    tally: Arc<Tally>,
    /// Whether there are blocks before this point of which it is not known how many lines they have.
    open: bool,
    /// Whether the reader waits for what workers count.
    waits: bool,
    /// So many blocks are still to be read by the reader.
    near: u32,
    /// So many will be when it has to go back the next time.
    again: u32,
}

/// What is left to workers.
pub(super) enum Way {
    /// They read blocks.
    Read(Place),
    /// They count the lines of those that the reader has brought, and fetch what it decodes next.
    Count(Arc<Stock>),
}

impl Far {
    /// For so many workers.
    pub(super) fn new(way: Way, workers: usize) -> Self {
        let behind = if workers > 1 { BEHIND } else { ALONE };
        Far { way, behind, tally: Arc::new(Tally::new()), open: false, waits: false, near: 0, again: NEAR }
    }

    /// Whether the reader brings the next block, and only its lines are left to be counted.
    pub(super) fn only_counts(&self) -> bool {
        matches!(self.way, Way::Count(_)) && !self.tally.is_given_up()
    }

    /// Whether workers are what the run waits for: more is not left to them.
    pub(super) fn is_behind(&self) -> bool {
        self.tally.waiting() >= self.behind
    }

    /// The block that the reader has brought from `start` to `end`, where line `line` begins if no line before it is
    /// still to be counted: as its lines are left to a worker, unless they were counted. `None` if there is nothing to
    /// be counted.
    pub(super) fn leave_lines(
        &mut self,
        (start, end): (u64, u64),
        line: u64,
        lines: Option<u64>,
        limits: Limits,
    ) -> Option<Left> {
        let Way::Count(stock) = &self.way else { return None };
        if lines.is_some() && !self.open {
            return None;
        }
        let bring = Bring::Stands(stock.clone());
        self.begin(start, line);
        let done = lines.map_or(Done::Nothing, |lines| {
            self.tally.count(start, end, lines);
            Done::Counted
        });
        Some(self.left(bring, (start, end), limits, done))
    }

    fn left(&self, bring: Bring, (start, end): (u64, u64), limits: Limits, done: Done) -> Left {
        self.tally.hand_out();
        let behind = self.behind;
        Left { bring, behind, tally: self.tally.clone(), start, end, limits, done, begun: false }
    }

    fn begin(&mut self, start: u64, line: u64) {
        if !std::mem::replace(&mut self.open, true) {
            self.tally.begin(start, line);
        }
    }

    /// The block from `start` on, where line `line` begins if no line before it is still to be counted, has at most
    /// `most` bytes: as it is left to a worker. `None` if the reader has to read it itself.
    pub(super) fn leave(&mut self, start: u64, line: u64, most: u64, limits: Limits) -> Option<Left> {
        if self.tally.is_given_up() {
            return None;
        }
        let Way::Read(Place { home, size, .. }) = &self.way else { return None };
        let (home, size) = (home.clone(), *size);
        if let Some(rest) = self.near.checked_sub(1) {
            self.near = rest;
            return None;
        }
        // What follows the last block is the reader's.
        if start.saturating_add(most) >= size {
            return None;
        }
        let end = self.end(start, limits)?;
        self.begin(start, line);
        Some(self.left(Bring::Read(home), (start, end), limits, Done::Nothing))
    }

    /// Where the block ends; `None` if that is not known.
    fn end(&mut self, start: u64, limits: Limits) -> Option<u64> {
        // It does not end before this byte.
        let last = start + limits.block_bytes.max(1) - 1;
        let from = last.saturating_sub(BEFORE as u64).max(start);
        let mut window = [0; WINDOW];
        let Way::Read(Place { home, look, .. }) = &self.way else { return None };
        let read = look(home, &mut window, from);
        let bytes = &window[..read];
        let too_many = |lines: usize| {
            (lines as u64).saturating_mul(limits.block_bytes)
                > limits.block_records.saturating_mul(read as u64)
        };
        if read < WINDOW || too_many(bytecount::count(bytes, b'\n')) {
            self.near = NEAR;
            return None;
        }
        let mut end = (last - from) as usize;
        loop {
            end += memchr(b'\n', &bytes[end..])? + 1;
            let before = memrchr(b'\n', &bytes[..end - 1]);
            let line = &bytes[before.map_or(0, |at| at + 1)..end];
            // It may begin before the window, but what is seen of it tells.
            if !line.iter().all(|byte| is_white(*byte)) {
                return Some(from + end as u64);
            }
            before?;
        }
    }

    /// The reader reads on itself, from `position`: what is the number of the line there? `None` if it knows that.
    pub(super) fn join(&mut self, position: u64) -> Option<Reached> {
        if !self.open {
            return None;
        }
        // At first it says that it waits: workers are called where there are tasks, then.
        let patience = if std::mem::replace(&mut self.waits, true) { PATIENCE } else { Duration::ZERO };
        let reached = self.tally.reach(position, patience);
        self.waits = matches!(reached, Reached::NotYet | Reached::Aborted);
        match reached {
            Reached::Line(_) => self.open = false,
            Reached::Back(..) => {
                // Those that are still under way count for nothing.
                (self.open, self.tally) = (false, Arc::new(Tally::new()));
                (self.near, self.again) = (self.again, MOST.min(self.again * 2));
            }
            Reached::NotYet | Reached::Aborted => {}
        }
        Some(reached)
    }
}
