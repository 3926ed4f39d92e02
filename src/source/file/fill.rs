//! Fills chunks with the records of one input: [`Filler`].
//!
//! A chunk ends where a block or a batch ends, behind a record that was too large, before a gap of much white
//! space, or with the input: all of that follows from the bytes alone, never from how many of them one read
//! returned. So if a read returns nothing yet, what stands in the chunk is kept here until the next call. Of a pipe it
//! is handed on: nobody reads a pipe again, and whoever writes to it may wait for what comes of it.
//!
//! Where records are lines and a batch does not end, a block is taken whole: how many lines it has is all that is
//! looked at, here or by a worker (`far`), and the worker that validates them finds them on the way. A reader that has
//! to decode is the bottleneck, and a run over flat events saves a tenth of its processor time by it. In doubt, and
//! wherever records count (`batch_size`, `-n`, a line that may be too large), records are marked one by one; blocks
//! end at the same bytes either way.
//!
//! Byte `i` of a chunk's buffer stands at position `start + i`, unless bytes were dropped: the inside of a record
//! that is too large (a chunk ends behind it), or white space before the chunk's first record.

mod block;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::json::{Fault, Found, Scanner, Span, Tail};
use crate::record::{BEGINNING, Chunk, Cut, Entry, Partition, Payload, RejectKind, Rejection, Room};
use crate::stop::Stop;

use super::ahead::Ahead;
use super::bytes::{Bytes, End, Got};
use super::entries::Entries;
use super::far::Far;
use super::growth::{Growth, Permission};

#[cfg(test)]
pub(super) use block::LAST;
pub(super) use block::may_have_gap;

/// So much white space between two records ends a chunk: it is not held in memory.
const GAP: usize = 64 << 10;

/// A block has at most so many more bytes than its records, for line endings and the last record, unless that is
/// larger; and this is how much is taken at a time of what was read ahead.
const PIECE: usize = 32 << 10;

/// A chunk has room for so many more bytes than the last one took. What is read beyond its end is copied twice.
const OVER: usize = 8 << 10;

/// A small input has room for so many more bytes than it has.
const END: usize = 64;

/// A call returns after so long even if there is more: the inside of a record without an end is dropped for minutes.
const PATIENCE: Duration = Duration::from_millis(100);

/// From this size on a chunk needs the permission to grow.
const LARGE: usize = 1 << 20;

/// Fills chunks with the records of one input.
pub(super) struct Filler {
    partition: Partition,
    payload: Payload,
    /// Whether records are lines.
    by_lines: bool,
    scanner: Scanner,
    /// What the scanner found already, but stands in the next chunk.
    pending: Option<(Span, Option<Fault>)>,
    ahead: Ahead,
    /// Where the next chunk begins, and the number of that line.
    position: u64,
    line: u64,
    /// How many bytes the last chunk took.
    expect: usize,
    /// Where the input ends, if that is known.
    size: Option<u64>,
    work: Work,
    entries: Entries,
    stash: Option<Stash>,
    closing: Option<Closing>,
    growth: Arc<Growth>,
    permission: Option<Permission>,
    longest: usize,
    /// How many records may still be read.
    left: Option<u64>,
    far: Option<Far>,
    /// Whether the lines of the last block were short.
    dense: bool,
    /// So many blocks more the reader counts the lines of.
    near: usize,
}

/// What is known of the chunk that is being filled.
#[derive(Default)]
struct Work {
    /// Byte `i` of the buffer stands at position `chunk.start + shift + i`.
    shift: u64,
    /// Line feeds before this byte of the buffer are counted in `line`.
    counted: usize,
    line: u64,
    /// The byte behind the last record.
    done: usize,
    /// How many bytes, and line feeds, of the record under way were dropped.
    dropped: u64,
    dropped_lines: u64,
    /// Whether the chunk may become a block of lines that nobody has looked for.
    whole: bool,
    /// Whether the reader counts its lines.
    counts: bool,
    /// How many line feeds of it have come so far, and how many bytes those were.
    feeds: usize,
    arrived: usize,
}

/// A chunk's contents while there is nothing to read.
#[derive(Default)]
struct Stash {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    cuts: Vec<Cut>,
    start: u64,
    end: u64,
    line: u64,
    opened_at: i64,
}

/// How the input ends.
enum Closing {
    Whole,
    /// Behind the last record that is complete.
    Grew,
    Failed(Error),
    /// As many records were read as were asked for, or the end was told already.
    Limit,
}

/// What came of [`Filler::fill`].
pub(super) enum Filled {
    /// A chunk.
    Chunk,
    /// Nothing yet; the chunk is unused.
    Idle,
    /// What stands from this position on, with this line, is to be read again; the chunk is unused.
    Back(u64, u64),
    /// There is nothing more; the chunk is unused. With the error that keeps the rest from being read.
    Over(Option<Error>),
}

/// What a [`Filler`] begins with.
pub(super) struct Begin {
    pub(super) partition: Partition,
    pub(super) payload: Payload,
    pub(super) scanner: Scanner,
    pub(super) ahead: Ahead,
    pub(super) position: u64,
    pub(super) line: u64,
    pub(super) longest: usize,
    pub(super) left: Option<u64>,
    /// Where the input ends, if that is known: small ones take little memory.
    pub(super) size: Option<u64>,
    /// Leaves what it can to workers.
    pub(super) far: Option<Far>,
    pub(super) growth: Arc<Growth>,
}

impl Filler {
    pub(super) fn new(begin: Begin) -> Self {
        let Begin { partition, payload, scanner, ahead, position, line, longest, left, size, far, growth } =
            begin;
        Filler {
            partition,
            payload,
            by_lines: scanner.finds_lines(),
            scanner,
            pending: None,
            ahead,
            position,
            line,
            expect: 0,
            size,
            work: Work::default(),
            entries: Entries::default(),
            stash: None,
            closing: None,
            growth,
            permission: None,
            longest,
            left,
            far,
            dense: false,
            near: 0,
        }
    }

    /// How many records may still be read, if that is limited.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Fills a chunk.
    pub(super) fn fill(&mut self, chunk: &mut Chunk, bytes: &mut dyn Bytes, stop: &Stop) -> Filled {
        if matches!(self.closing, Some(Closing::Limit)) {
            return Filled::Over(None);
        }
        if let Some(filled) = self.leave(chunk, bytes) {
            return filled;
        }
        self.begin(chunk);
        let began = Instant::now();
        loop {
            if let Some(filled) = self.scan_block(chunk, bytes) {
                return filled;
            }
            if !self.work.whole && self.scan(chunk) == Room::Full {
                self.hand_over(chunk);
                return Filled::Chunk;
            }
            // Before the end, too: a gap there ends a chunk whether it was seen to come or not.
            if self.drop_white_space(chunk) == Room::Full {
                self.hand_over(chunk);
                return Filled::Chunk;
            }
            if self.closing.is_some() && self.ahead.is_empty() {
                return self.close(chunk);
            }
            self.drop_record(chunk);
            let late = began.elapsed() > PATIENCE;
            if late || !self.make_room(chunk, stop) || !self.more(chunk, bytes) {
                if self.is_once() && self.scan_lines(chunk) && self.work.dropped == 0 {
                    self.hand_over(chunk);
                    return Filled::Chunk;
                }
                self.keep(chunk);
                return Filled::Idle;
            }
        }
    }

    /// Whether what was read is handed on when nothing more is there: nobody reads it again.
    fn is_once(&self) -> bool {
        self.partition.identity().once
    }

    /// Marks the records that stand in the buffer if nobody has looked for them yet; whether there are any.
    fn scan_lines(&mut self, chunk: &mut Chunk) -> bool {
        if self.work.whole {
            self.work.whole = false;
            // If it is full it ends as it would anyway.
            let _ = self.scan(chunk);
        }
        !chunk.is_empty()
    }

    fn begin(&mut self, chunk: &mut Chunk) {
        match self.stash.take() {
            Some(stash) => {
                chunk.start(&self.partition, stash.start);
                (chunk.end, chunk.line, chunk.opened_at) = (stash.end, stash.line, stash.opened_at);
                (chunk.bytes, chunk.entries, chunk.cuts) = (stash.bytes, stash.entries, stash.cuts);
            }
            None => {
                chunk.start(&self.partition, self.position);
                chunk.line = self.line;
                self.entries.lend(chunk);
                self.work = Work { line: self.line, ..Work::default() };
                let block = chunk.cutters.limits().block_bytes as usize;
                self.work.whole = self.may_take(chunk, block);
                self.work.counts = self.counts(chunk, block);
                self.reserve(chunk, block);
            }
        }
        chunk.set_payload(self.payload);
        if self.is_once() {
            // Its chunks end anywhere.
            chunk.join_blocks();
        }
    }

    /// Keeps the chunk's contents until the next call. Faults need not be kept: a chunk ends behind one.
    fn keep(&mut self, chunk: &mut Chunk) {
        self.stash = Some(Stash {
            bytes: std::mem::take(&mut chunk.bytes),
            entries: std::mem::take(&mut chunk.entries),
            cuts: std::mem::take(&mut chunk.cuts),
            start: chunk.start,
            end: chunk.end,
            line: chunk.line,
            opened_at: chunk.opened_at,
        });
    }

    /// Whether all that was looked at stands in the buffer again, behind a gap that ended the chunk before.
    fn caught_up(&self, chunk: &Chunk) -> bool {
        self.pending.is_none() && chunk.bytes.len() >= self.scanner.looked_at()
    }

    /// Marks the records that stand in the buffer.
    fn scan(&mut self, chunk: &mut Chunk) -> Room {
        if chunk.bytes.len() < self.scanner.looked_at() {
            return Room::More;
        }
        let tail = match &self.closing {
            Some(Closing::Whole) if self.ahead.is_empty() => Tail::Last,
            _ => Tail::Open,
        };
        if let Some((span, fault)) = self.pending.take()
            && self.take(chunk, span, fault) == Room::Full
        {
            return Room::Full;
        }
        // Lines apart: what is found comes in registers. Through memory a record took twice as long.
        if self.by_lines {
            while let Some(span) = self.scanner.next_line(&chunk.bytes, tail) {
                if self.take(chunk, span, None) == Room::Full {
                    return Room::Full;
                }
            }
            return Room::More;
        }
        loop {
            let (span, fault) = match self.scanner.next(&chunk.bytes, tail) {
                Found::Record(span) => (span, None),
                Found::Fault(span, fault) => (span, Some(fault)),
                Found::Nothing => return Room::More,
            };
            if self.take(chunk, span, fault) == Room::Full {
                return Room::Full;
            }
        }
    }

    /// Marks what was found, unless a gap before it ends the chunk.
    #[inline(always)]
    fn take(&mut self, chunk: &mut Chunk, span: Span, fault: Option<Fault>) -> Room {
        if span.begin - self.work.done > GAP && !chunk.is_empty() {
            self.pending = Some((span, fault));
            chunk.close_block();
            return Room::Full;
        }
        self.mark(chunk, span, fault)
    }

    #[inline(always)]
    fn mark(&mut self, chunk: &mut Chunk, span: Span, fault: Option<Fault>) -> Room {
        let length = (span.stop - span.begin) as u64 + self.work.dropped;
        if length > self.longest as u64 || fault.is_some() {
            return self.mark_rejected(chunk, span, length, fault);
        }
        let cuts = chunk.cuts.len();
        let room = chunk.mark_bytes(Entry {
            position: chunk.start + self.work.shift + span.begin as u64,
            at: span.begin as u32,
            len: (span.end - span.begin) as u32,
            span: (span.next - span.begin) as u32,
            extra: 0,
        });
        self.work.done = span.next;
        // A line has no line feed but the one that ended it: what is known need not be counted.
        if self.by_lines && self.work.counted == span.begin {
            self.work.line += u64::from(span.next > span.stop);
            self.work.counted = span.next;
        }
        if chunk.cuts.len() > cuts {
            self.number_cut(chunk);
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.closing = Some(Closing::Limit);
                return Room::Full;
            }
        }
        room
    }

    /// Marks a record that is too large, or known to be none. Blocks and the chunk end behind it.
    #[cold]
    fn mark_rejected(&mut self, chunk: &mut Chunk, span: Span, length: u64, fault: Option<Fault>) -> Room {
        let position = chunk.start + self.work.shift + span.begin as u64;
        let spanned = (span.next - span.begin) as u64 + self.work.dropped;
        let too_large = length > self.longest as u64;
        let len = if too_large { BEGINNING.min(span.stop - span.begin) } else { span.end - span.begin };
        let cuts = chunk.cuts.len();
        // Whether the chunk has room does not matter: it ends here.
        let _ = chunk.mark(Entry {
            position,
            at: span.begin as u32,
            len: len as u32,
            span: u32::try_from(spanned).unwrap_or(u32::MAX),
            extra: 0,
        });
        chunk.reject_last(match fault {
            _ if too_large => self.too_large(length),
            Some(Fault::Behind) => Rejection::new(
                RejectKind::InvalidJson,
                "data after the array; lines that are arrays need --format ndjson",
            ),
            _ => Rejection::new(RejectKind::Incomplete, "the input ends before the value does"),
        });
        chunk.end = position + spanned;
        self.work.done = span.next;
        self.work.line += self.work.dropped_lines;
        if chunk.cuts.len() > cuts {
            self.number_cut(chunk);
        } else {
            chunk.close_block();
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.closing = Some(Closing::Limit);
            }
        }
        Room::Full
    }

    fn too_large(&self, length: u64) -> Rejection {
        let message = format!("{length} bytes; max_record_bytes is {}", self.longest);
        Rejection { length: Some(length), ..Rejection::new(RejectKind::TooLarge, message) }
    }

    /// Gives the cut behind the last record its line number, and its end where that is too far for a span.
    fn number_cut(&mut self, chunk: &mut Chunk) {
        self.count_lines(&chunk.bytes, self.work.done);
        if let Some(cut) = chunk.cuts.last_mut() {
            (cut.end, cut.line) = (chunk.end, self.work.line);
        }
    }

    fn count_lines(&mut self, bytes: &[u8], upto: usize) {
        self.work.line += bytecount::count(&bytes[self.work.counted..upto], b'\n') as u64;
        self.work.counted = upto;
    }

    /// Ends the chunk behind its last record; what stands behind that goes to the next chunk.
    fn hand_over(&mut self, chunk: &mut Chunk) {
        let done = self.work.done;
        self.count_lines(&chunk.bytes, done);
        chunk.end_line = self.work.line;
        self.ahead.give_back(&chunk.bytes[done..]);
        chunk.bytes.truncate(done);
        self.entries.copy(chunk);
        self.scanner.rebase(done);
        if let Some((span, _)) = &mut self.pending {
            for index in [&mut span.begin, &mut span.end, &mut span.stop, &mut span.next] {
                *index -= done;
            }
        }
        (self.position, self.line, self.expect) = (chunk.end, self.work.line, done);
        self.permission = None;
    }

    /// There is nothing more to read: hands over what is left.
    fn close(&mut self, chunk: &mut Chunk) -> Filled {
        let end = match &self.closing {
            Some(Closing::Whole) => Some(chunk.bytes.len()),
            Some(Closing::Grew) => Some(self.scanner.begin()),
            _ => None,
        };
        // White space that was dropped before it counts, too, whether or not there is more behind it.
        if let Some(end) = end
            && chunk.start + self.work.shift + end as u64 > chunk.end
        {
            chunk.set_end(chunk.start + self.work.shift + end as u64);
            self.work.done = end;
        }
        let used = chunk.end > chunk.start;
        if used {
            self.hand_over(chunk);
        }
        self.scanner.forget_all();
        self.ahead = Ahead::default();
        self.permission = None;
        if used {
            return Filled::Chunk;
        }
        match self.closing.replace(Closing::Limit) {
            Some(Closing::Failed(error)) => Filled::Over(Some(error)),
            _ => Filled::Over(None),
        }
    }

    /// Drops white space before the chunk's first record; behind a record much of it ends the chunk.
    fn drop_white_space(&mut self, chunk: &mut Chunk) -> Room {
        let begin = self.scanner.begin();
        if !self.caught_up(chunk) || begin - self.work.done <= GAP {
            return Room::More;
        }
        if !chunk.is_empty() {
            chunk.close_block();
            return Room::Full;
        }
        chunk.line += bytecount::count(&chunk.bytes[..begin], b'\n') as u64;
        chunk.bytes.drain(..begin);
        self.scanner.rebase(begin);
        self.work = Work { shift: self.work.shift + begin as u64, line: chunk.line, ..Work::default() };
        Room::More
    }

    /// Drops the inside of a record that is too large. Two more bytes may be its line ending.
    fn drop_record(&mut self, chunk: &mut Chunk) {
        let begin = self.scanner.begin();
        let keep = begin + BEGINNING;
        let most = begin + BEGINNING.max(self.longest + 2);
        // What was not looked at stays: a comma that ends the record may wait for the byte behind it.
        let all_seen = self.pending.is_none() && self.scanner.looked_at() == chunk.bytes.len();
        if chunk.bytes.len() <= most || !self.scanner.in_record() || !all_seen {
            return;
        }
        self.work.dropped += (chunk.bytes.len() - keep) as u64;
        self.work.dropped_lines += bytecount::count(&chunk.bytes[keep..], b'\n') as u64;
        chunk.bytes.truncate(keep);
        self.scanner.forget_from(keep);
    }

    /// Sees to it that the buffer has spare capacity; `false` if it may not grow yet.
    fn make_room(&mut self, chunk: &mut Chunk, stop: &Stop) -> bool {
        let len = chunk.bytes.len();
        if len == chunk.bytes.capacity() {
            let more = self.growth_from(len);
            if len + more > LARGE && self.permission.is_none() {
                self.permission = self.growth.take(stop);
                if self.permission.is_none() {
                    return false;
                }
            }
            chunk.bytes.reserve_exact(more);
        }
        if chunk.bytes.capacity() > chunk.lease.bytes() {
            chunk.lease.resize(chunk.bytes.capacity());
        }
        true
    }

    /// How much a full buffer grows by. A large one goes in few big steps to what the longest record takes: each
    /// step copies, and the allocator may keep what was left behind (a line of 1 GiB: 94 MB at most in steps of a
    /// quarter, 55 MB this way), while pages that were never touched cost nothing.
    fn growth_from(&self, len: usize) -> usize {
        let most = self.longest + 2 * PIECE;
        match len {
            0..LARGE => (len / 4).max(2 * PIECE),
            _ => (3 * len).min(most.saturating_sub(len)).max(2 * PIECE),
        }
    }

    /// Gets more bytes into the buffer, or learns how the input ends; `false` if there is nothing yet.
    fn more(&mut self, chunk: &mut Chunk, bytes: &mut dyn Bytes) -> bool {
        if !self.ahead.is_empty() {
            let want = if chunk.bytes.is_empty() { self.expect + PIECE } else { PIECE };
            let spare = chunk.bytes.capacity() - chunk.bytes.len();
            self.ahead.take(want.min(spare), &mut chunk.bytes);
            return true;
        }
        self.ahead.forget();
        match bytes.read(&mut chunk.bytes) {
            Got::Bytes => {}
            Got::Idle => return false,
            Got::End(End::Whole) => self.closing = Some(Closing::Whole),
            Got::End(End::Grew) => self.closing = Some(Closing::Grew),
            Got::Failed(error) => self.closing = Some(Closing::Failed(error)),
        }
        true
    }
}
