//! Records as they are read: [`Partition`], [`Chunk`] and [`Record`]. Plain data, no IO, no clock.
//!
//! A [`Chunk`] is one recycled buffer with the boundaries of its records: readers fill it, the pool turns it
//! into output. It also carries the *cuts*, where a batch ends, and the *blocks*, where a compressed run ends.
//! Both depend only on the records since the batch's start and on the settings ([`crate::cut`]), never on how
//! much one `read` returned, so a batch that is done again comes out with the same bytes.

mod errand;
mod lined;
mod partition;
mod rejection;
mod side;

use std::sync::Arc;

use crate::budget::Lease;
use crate::cut::{Close, Cutters, Step};
use crate::outgoing::{Headers, Pair};

pub(crate) use errand::Errand;
pub(crate) use lined::Lined;
pub use partition::{Identity, Partition, TopicPart};
pub use rejection::{RejectKind, Rejection};
pub use side::{Extra, Incoming};
pub(crate) use side::{Header, Side};

/// What the bytes of a record are meant to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value (RFC 8259), not yet validated.
    #[default]
    Json,
    /// One line of text; it becomes a JSON string.
    Text,
    /// Bytes of any kind; they become a JSON string in base64 (RFC 4648).
    Binary,
}

/// Where one record stands in its chunk and in its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its position in the partition.
    pub position: u64,
    /// The first byte in the chunk's buffer.
    pub at: u32,
    /// How many bytes it has.
    pub len: u32,
    /// The position after it is `position + span`: 1 for offsets, the length with its line ending for bytes.
    pub span: u32,
    /// Index into the chunk's extras, plus one; 0 for none.
    pub extra: u32,
}

impl Entry {
    /// The position after this record.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.span)
    }
}

/// A batch ends behind entry `entry - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Index of the first entry behind the cut.
    pub entry: u32,
    /// The position at which the batch ends.
    pub end: u64,
    /// Number of the line that begins at `end`; 0 where lines are not counted.
    pub line: u64,
    /// Why it was cut.
    pub close: Close,
    /// `opened_at` of the batch that begins here.
    pub opened_at: i64,
}

/// So many bytes a chunk may have: entries point to them with 32 bits.
const MOST: usize = u32::MAX as usize;
const TOO_MUCH: &str = "pushed more than 4 GiB into one chunk";

/// How many bytes of a record that is too large a source keeps.
pub(crate) const BEGINNING: usize = 4 << 10;

/// Whether a chunk takes more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// It takes more.
    More,
    /// It is complete: return it. (Going on costs the guarantee that a batch done again has the same bytes.)
    Full,
}

/// Consecutive records of one partition as read. The unit of transport and of work in the pool.
///
/// An embedder's reader needs [`Chunk::start`], [`Chunk::push`] and [`Chunk::set_end`]. Buffers keep their
/// capacity from use to use; what they hold is counted in the byte budget.
#[derive(Default)]
pub struct Chunk {
    pub(crate) partition: Option<Partition>,
    pub(crate) payload: Payload,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    /// Lines instead of entries: then there is no cut and no fault either.
    pub(crate) lined: Lined,
    /// What the reader left to the worker: that is done before anybody looks at the records.
    pub(crate) errand: Option<Box<dyn Errand>>,
    pub(crate) side: Side,
    pub(crate) cuts: Vec<Cut>,
    /// Records that the reader itself rejects, by entry index, ascending.
    pub(crate) faults: Vec<(u32, Rejection)>,
    /// Position of the first byte.
    pub(crate) start: u64,
    /// Position up to which this chunk has taken its partition.
    pub(crate) end: u64,
    /// Number of the line that begins at `start`, 1 for the first; 0 where lines are not counted.
    pub(crate) line: u64,
    /// Number of the line that begins at `end`; 0 where lines are not counted.
    pub(crate) end_line: u64,
    /// `opened_at` of the batch that this chunk begins in.
    pub(crate) opened_at: i64,
    /// Whether the first record begins a compressed block, and whether the last one ends one.
    pub(crate) block_begin: bool,
    pub(crate) block_end: bool,
    /// Whether what is compressed does not depend on where chunks end: parts of a block then wait for its end.
    pub(crate) joins: bool,
    /// What the source needs to go on from `end`, for sources whose positions alone do not tell.
    pub(crate) resume: Option<Arc<[u8]>>,
    /// The same for positions before `end`, where batches may end, too: for those from the given one on, ascending.
    pub(crate) within: Vec<(u64, Arc<[u8]>)>,
    /// What the reader knows of partitions, not only of this one: where it stands, and where they end for now.
    pub(crate) readable: Vec<(Partition, u64, u64)>,
    /// What the reader did that would lose records, the first time.
    pub(crate) broken: Option<String>,
    pub(crate) lease: Lease,
    pub(crate) cutters: Cutters,
}

impl Chunk {
    /// Begins to fill: `partition`, from `position` on. Must come before the first [`Chunk::push`].
    pub fn start(&mut self, partition: &Partition, position: u64) {
        let records = self.entries.len();
        self.clear();
        if records > 0 {
            self.broken = Some(format!("started a chunk that had {records} records already"));
        }
        self.partition = Some(partition.clone());
        self.start = position;
        self.end = position;
        self.opened_at = self.cutters.begin(partition);
        self.block_begin = self.cutters.current().is_block_begin();
    }

    /// Positions of the first and of the last record; where nobody has looked for them yet, of the first and of the
    /// last byte.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        if self.lined.count().is_some() || self.errand.is_some() {
            return Some((self.start, self.end - 1));
        }
        Some((self.entries.first()?.position, self.entries.last()?.position))
    }

    /// Adds one record: its position, and its bytes (copied). The position after it is `position + 1`, or set
    /// by [`Chunk::push_spanning`]. A position before the end of what the partition has given already ends the run, as
    /// more than 4 GiB in one chunk do.
    pub fn push(&mut self, position: u64, bytes: &[u8]) -> Room {
        self.push_spanning(position, 1, bytes)
    }

    /// Adds one record that takes `span` positions, one at least.
    pub fn push_spanning(&mut self, position: u64, span: u32, bytes: &[u8]) -> Room {
        if !self.takes(position, span, bytes.len()) {
            return Room::Full;
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.mark(Entry { position, at, len: bytes.len() as u32, span, extra: 0 })
    }

    /// Adds one record with its key, time and headers (copied). The position after it is `position + 1`.
    pub fn push_incoming<'a, H>(&mut self, position: u64, record: Incoming<'a, H>) -> Room
    where
        H: IntoIterator<Item = Pair<'a>>,
    {
        let value = record.value.unwrap_or_default();
        if !self.takes(position, 1, value.len()) {
            return Room::Full;
        }
        let (at, before) = (self.bytes.len() as u32, self.side.bytes.len());
        self.bytes.extend_from_slice(value);
        self.side.push(record);
        // How much that would be is known only now.
        if self.bytes.len() + self.side.bytes.len() > MOST {
            self.refuse(TOO_MUCH.to_owned());
            return Room::Full;
        }
        let (len, extra) = (self.bytes.len() as u32 - at, self.side.extras.len() as u32);
        let weight = len + (self.side.bytes.len() - before) as u32;
        self.mark_weighing(Entry { position, at, len, span: 1, extra }, weight)
    }

    /// Whether a record can stand there. Positions only grow: what stands behind the end of a batch already would be
    /// lost.
    #[inline]
    fn takes(&mut self, position: u64, span: u32, bytes: usize) -> bool {
        let is_last = position.checked_add(u64::from(span)).is_none();
        let is_much = self.bytes.len().saturating_add(bytes) > MOST;
        if position < self.end || span == 0 || is_last || is_much {
            self.refuse_record(position, span, is_much);
            return false;
        }
        true
    }

    #[cold]
    fn refuse_record(&mut self, position: u64, span: u32, is_much: bool) {
        let why = match span {
            _ if position < self.end => {
                format!("pushed position {position} behind {}; they only grow", self.end)
            }
            0 => format!("pushed a record at position {position} that takes none"),
            _ if is_much => TOO_MUCH.to_owned(),
            _ => format!("pushed position {position}, behind which there is none"),
        };
        self.refuse(why);
    }

    #[cold]
    fn refuse(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    /// Adds the boundaries of a record whose bytes already stand in the buffer, and cuts where it is time to.
    #[inline]
    pub(crate) fn mark(&mut self, entry: Entry) -> Room {
        self.mark_weighing(entry, entry.len)
    }

    /// [`Chunk::mark`] where positions are bytes: what the record takes of them is what it counts for, so that a whole
    /// block can be counted by its length ([`Chunk::take_block`]).
    #[inline]
    pub(crate) fn mark_bytes(&mut self, entry: Entry) -> Room {
        let weight = u32::try_from(entry.end() - self.end).unwrap_or(u32::MAX);
        self.mark_weighing(entry, weight)
    }

    /// Ends the block, and the chunk with it, behind so many bytes, which are so many lines: 0 if the errand says how
    /// many. What the buffer has beyond them the reader takes away. A worker looks for the records.
    pub(crate) fn take_block(&mut self, lines: u32, bytes: u64, errand: Option<Box<dyn Errand>>) {
        self.lined = Lined::new(lines);
        self.errand = errand;
        self.end = self.start + bytes;
        self.block_end = true;
        self.cutters.current().take_block(bytes);
    }

    /// Does what the reader left to be done. Before that nobody may look at the records. Blocks only for a disk.
    pub(crate) fn run_errand(&mut self) {
        if let Some(mut errand) = self.errand.take() {
            errand.run(self);
            self.errand = Some(errand);
        }
    }

    /// Where its records stand.
    fn records(&self) -> &[Entry] {
        match self.lined.count() {
            Some(_) => self.lined.entries(&self.bytes, self.start),
            None => &self.entries,
        }
    }

    /// [`Chunk::mark`] for a record that counts for `weight` bytes.
    #[inline(always)]
    fn mark_weighing(&mut self, entry: Entry, weight: u32) -> Room {
        if self.cutters.current().planned().is_some() {
            self.cut_planned(entry.position);
        }
        self.end = entry.end();
        let used = entry.end() - self.start;
        self.entries.push(entry);
        self.block_end = false;
        match self.cutters.current().step(entry.end(), weight) {
            Step::More => Room::More,
            Step::Block => {
                self.block_end = true;
                Room::Full
            }
            Step::Cut(close) => self.cut(close, used),
        }
    }

    /// Cuts at the planned ends up to `position`, whether or not a record ended there.
    #[cold]
    fn cut_planned(&mut self, position: u64) {
        while let Some(end) = self.cutters.current().pass_planned(position) {
            let (entry, opened_at) = (self.entries.len() as u32, self.cutters.current().opened_at());
            self.cuts.push(Cut { entry, end, line: 0, close: Close::Planned, opened_at });
        }
    }

    #[cold]
    fn cut(&mut self, close: Close, used: u64) -> Room {
        let opened_at = self.cutters.current().opened_at();
        let entry = self.entries.len() as u32;
        self.cuts.push(Cut { entry, end: self.end, line: 0, close, opened_at });
        let limits = self.cutters.limits();
        // Not the buffer's length: a file's reader has more in it than it has marked.
        let filled = self.entries.last().map_or(0, |last| u64::from(last.at) + u64::from(last.len));
        let filled = filled + self.side.bytes.len() as u64;
        // Positions that count pages count no bytes.
        let paged = self.partition.as_ref().is_some_and(|partition| partition.identity().cycle.is_some());
        let bytes = if paged { filled } else { used.max(filled) };
        if bytes >= limits.block_bytes || u64::from(entry) >= limits.block_records {
            Room::Full
        } else {
            Room::More
        }
    }

    /// Ends the block behind the last record, although it is not full: this chunk must end here, whatever reads
    /// returned. Must depend on the records alone.
    pub(crate) fn close_block(&mut self) {
        self.cutters.current().close_block();
        self.block_end = true;
    }

    /// Lets this chunk end anywhere without a difference to what is compressed. For readers whose chunks seldom end
    /// within a block: parts of blocks are compressed by the assembler.
    pub(crate) fn join_blocks(&mut self) {
        self.joins = true;
    }

    /// Rejects the last pushed record: the reader itself found the fault. Nothing, if there is none.
    pub fn reject_last(&mut self, rejection: Rejection) {
        if let Some(last) = self.entries.len().checked_sub(1) {
            self.faults.push((last as u32, rejection));
        }
    }

    /// How far this chunk has taken its partition, where that is beyond the last record's end (blank lines,
    /// control records, compacted offsets).
    pub fn set_end(&mut self, end: u64) {
        if end < self.end {
            self.refuse(format!("set the end {end} before {}; positions only grow", self.end));
            return;
        }
        self.cut_planned(end);
        self.end = end;
    }

    /// Tells how far a partition can be read for now, and where the reader stands in it: this is what lag and, for
    /// runs with an end, progress are made of. May be told with a chunk of another partition, or with
    /// [`crate::source::Read::Idle`]; survives [`Chunk::start`].
    pub fn set_readable(&mut self, partition: &Partition, at: u64, end: u64) {
        self.readable.push((partition.clone(), at, end));
    }

    /// What the source needs to go on from the end of this chunk; comes back in [`crate::source::Mark`].
    pub fn set_resume(&mut self, resume: Arc<[u8]>) {
        self.resume = Some(resume);
    }

    /// What the source needs to go on from any position in this chunk from where it now ends, until it is told anew:
    /// batches may end there. A source that cannot tell that for all of them ends the chunk.
    pub fn set_resume_within(&mut self, resume: Arc<[u8]>) {
        self.resume = Some(resume.clone());
        self.within.push((self.end, resume));
    }

    /// What the records are meant to be; JSON unless told otherwise.
    pub fn set_payload(&mut self, payload: Payload) {
        self.payload = payload;
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records().is_empty()
    }

    /// The buffer; entries point into it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes of memory its buffers hold.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>() + self.side.memory()
    }

    /// Forgets the contents and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.partition = None;
        self.payload = Payload::Json;
        self.bytes.clear();
        self.entries.clear();
        self.lined = Lined::default();
        self.errand = None;
        self.side.clear();
        self.cuts.clear();
        self.faults.clear();
        (self.start, self.end, self.line, self.end_line) = (0, 0, 0, 0);
        (self.block_begin, self.block_end, self.joins) = (false, false, false);
        self.resume = None;
        self.within.clear();
        self.broken = None;
    }

    /// The parts of this chunk that belong to different batches, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        let last = Cut {
            entry: self.entries.len() as u32,
            end: self.end,
            line: self.end_line,
            close: Close::Open,
            opened_at: 0,
        };
        let open = match self.cuts.last() {
            Some(cut) => cut.end < self.end || (cut.entry as usize) < self.entries.len(),
            None => true,
        };
        let mut from = (0u32, self.opened_at);
        self.cuts.iter().copied().chain(open.then_some(last)).map(move |cut| {
            let section = Section { chunk: self, from: from.0, to: cut.entry, cut, opened_at: from.1 };
            from = (cut.entry, cut.opened_at);
            section
        })
    }
}

/// The records of a chunk that belong to one batch.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    chunk: &'a Chunk,
    from: u32,
    to: u32,
    cut: Cut,
    opened_at: i64,
}

impl<'a> Section<'a> {
    /// Where it ends; `close` is [`Close::Open`] if the batch goes on.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// The partition.
    pub fn partition(&self) -> &'a Partition {
        self.chunk.partition.as_ref().expect("a chunk that is processed was started")
    }

    /// What stands for "now" in this batch, in milliseconds since the epoch.
    pub fn opened_at(&self) -> i64 {
        self.opened_at
    }

    /// What the records are meant to be.
    pub fn payload(&self) -> Payload {
        self.chunk.payload
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Their entries.
    pub fn entries(&self) -> &'a [Entry] {
        match self.chunk.lined.count() {
            Some(_) => self.chunk.records(),
            None => &self.chunk.entries[self.from as usize..self.to as usize],
        }
    }

    /// If nobody has looked for the records yet: they are the lines of the whole buffer, which has so many, blank ones
    /// included. Whoever looks for them while it does something else saves a look at every byte.
    pub(crate) fn lines(&self) -> Option<usize> {
        self.chunk.lined.count()
    }

    /// The entry of a record that was found in such lines: its first byte, the one behind its last, and where the next
    /// line begins.
    pub(crate) fn line_entry(&self, at: usize, end: usize, next: usize) -> Entry {
        lined::entry(self.chunk.start, at, end, next)
    }

    /// The chunk's buffer, into which entries point.
    pub fn buffer(&self) -> &'a [u8] {
        &self.chunk.bytes
    }

    /// Rejections by the reader: index within [`Section::entries`] and why, ascending.
    pub fn faults(&self) -> impl Iterator<Item = (usize, &'a Rejection)> + use<'a> {
        let (from, to) = (self.from, self.to);
        let faults = &self.chunk.faults;
        let first = faults.partition_point(|(entry, _)| *entry < from);
        faults[first..]
            .iter()
            .take_while(move |(entry, _)| *entry < to)
            .map(move |(entry, why)| ((entry - from) as usize, why))
    }

    /// The record of an entry.
    pub fn record(&self, entry: &Entry) -> Record<'a> {
        let at = entry.at as usize;
        Record {
            partition: self.partition(),
            position: entry.position,
            payload: self.chunk.payload,
            bytes: &self.chunk.bytes[at..at + entry.len as usize],
            extra: (entry.extra as usize).checked_sub(1).map(|index| &self.chunk.side.extras[index]),
            side: &self.chunk.side,
            opened_at: self.opened_at,
        }
    }

    /// Number of the line in which the byte `at` of the buffer stands; `None` where lines are not counted. Blocks
    /// while other threads count the lines before this chunk, which they have begun with.
    pub fn line(&self, at: usize) -> Option<u64> {
        let first = match &self.chunk.errand {
            Some(errand) => errand.lines()?.0,
            None => self.chunk.line,
        };
        (first > 0).then(|| first + bytecount::count(&self.chunk.bytes[..at], b'\n') as u64)
    }

    /// The timestamp of the first record, in milliseconds since the epoch, if the source knows it.
    pub fn first_time(&self) -> Option<i64> {
        match self.lines() {
            Some(_) => None,
            None => self.record(self.entries().first()?).extra?.time,
        }
    }
}

/// One record as a transform sees it.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: &'a Partition,
    /// Its position in the partition.
    pub position: u64,
    /// What the bytes are meant to be.
    pub payload: Payload,
    /// The record. For JSON: one value, validated before the first transform, perhaps with white space around.
    pub bytes: &'a [u8],
    /// Key, time and headers, where the source knows them.
    pub extra: Option<&'a Extra>,
    /// What stands for "now" in its batch, in milliseconds since the epoch: the only clock a transform may use.
    pub opened_at: i64,
    pub(crate) side: &'a Side,
}

impl<'a> Record<'a> {
    /// The key, where there is one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.side.key(self.extra?)
    }

    /// The time, in milliseconds since the epoch, where the source knows it.
    pub fn time(&self) -> Option<i64> {
        self.extra?.time
    }

    /// The headers, in order, duplicates kept.
    pub fn headers(&self) -> Headers<'a> {
        self.extra.map_or_else(Headers::default, |extra| self.side.headers_of(extra))
    }

    /// Whether the record has a null value: it says that its key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.extra.is_some_and(|extra| extra.tombstone)
    }
}
