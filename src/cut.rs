//! Where batches and compressed blocks end. Pure: a function of the records since the batch's start, of the
//! settings, and of ends that were planned before; the time is a parameter.
//!
//! A *block* is the unit of compression: it closes at the first record that brings it to [`Limits::block_bytes`]
//! or [`Limits::block_records`], counted from the block's start, which is the batch's start or the previous
//! block's end. A chunk may only end where a block or a batch ends (or its partition does), so blocks never
//! span chunks, and the same batch read again from its start falls into the same blocks.

use std::collections::{HashMap, VecDeque};

use crate::record::Partition;
use crate::source::Planned;

/// Why a batch was closed. Counted in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Close {
    /// Not closed: the batch goes on in the next chunk.
    Open,
    /// `batch_size` records.
    Count,
    /// `batch_bytes`.
    Bytes,
    /// `batch_wait` is over.
    Wait,
    /// The memory was needed.
    Pressure,
    /// An end that an earlier run had planned.
    Planned,
    /// The partition ended.
    End,
    /// The run was stopped.
    Drain,
    /// The sink keeps order and takes what there is.
    Chunk,
}

impl Close {
    /// Every reason for which a batch is closed.
    pub const ALL: [Close; 8] = [
        Close::Count,
        Close::Bytes,
        Close::Wait,
        Close::Pressure,
        Close::Planned,
        Close::End,
        Close::Drain,
        Close::Chunk,
    ];

    /// The name that metrics and the summary carry.
    pub fn name(self) -> &'static str {
        match self {
            Close::Open => "open",
            Close::Count => "count",
            Close::Bytes => "bytes",
            Close::Wait => "wait",
            Close::Pressure => "pressure",
            Close::Planned => "planned",
            Close::End => "end",
            Close::Drain => "drain",
            Close::Chunk => "chunk",
        }
    }
}

/// What bounds batches and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records in a batch; 0: no limit by count.
    pub batch_size: u64,
    /// Bytes of records in a batch, in files with what stands between them; 0: no limit by bytes. Less where a sink
    /// takes whole batches in any order ([`crate::sink::Order::Any`] without [`crate::sink::Shape::part`]): all open
    /// ones together take at most a quarter of the memory.
    pub batch_bytes: u64,
    /// The same of a block: it closes behind the record that reaches it.
    pub block_bytes: u64,
    /// Records after which a block closes: bounds what many tiny records grow to.
    pub block_records: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { batch_size: 0, batch_bytes: 64 << 20, block_bytes: 256 << 10, block_records: 4096 }
    }
}

/// What follows from one more record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The block goes on.
    More,
    /// The block ends behind this record, the batch goes on.
    Block,
    /// The batch ends behind this record, and so does the block.
    Cut(Close),
}

/// Cuts one partition. It outlives the chunks.
#[derive(Clone, Debug)]
pub struct Cutter {
    limits: Limits,
    batch_records: u64,
    batch_bytes: u64,
    block_records: u64,
    block_bytes: u64,
    planned: VecDeque<Planned>,
    fixed_time: Option<i64>,
    opened_at: i64,
}

impl Cutter {
    /// A cutter at the start of a batch. `planned` are ends that override every other reason, ascending;
    /// `fixed_time` is what every batch's `opened_at` is, where it does not depend on a clock.
    pub fn new(
        limits: Limits,
        planned: impl IntoIterator<Item = Planned>,
        fixed_time: Option<i64>,
        now: i64,
    ) -> Self {
        let planned: VecDeque<Planned> = planned.into_iter().collect();
        let mut cutter = Cutter {
            limits,
            batch_records: 0,
            batch_bytes: 0,
            block_records: 0,
            block_bytes: 0,
            planned,
            fixed_time,
            opened_at: now,
        };
        cutter.open(now);
        cutter
    }

    /// `opened_at` of the open batch.
    pub fn opened_at(&self) -> i64 {
        self.opened_at
    }

    /// The next end that was planned before, if any.
    pub fn planned(&self) -> Option<u64> {
        self.planned.front().map(|planned| planned.end)
    }

    /// Passes the next planned end if it is at or before `position`, although no record ended there.
    pub fn pass_planned(&mut self, position: u64) -> Option<u64> {
        let planned = self.planned.pop_front_if(|planned| planned.end <= position)?;
        let now = self.opened_at;
        self.open(now);
        Some(planned.end)
    }

    /// The time at which batches that are opened from now on are opened.
    pub fn set_now(&mut self, now: i64) {
        if self.batch_records == 0 && self.planned.is_empty() && self.fixed_time.is_none() {
            self.opened_at = now;
        }
    }

    /// Counts one record that ends at position `end` and has `len` bytes.
    #[inline(always)]
    pub fn step(&mut self, end: u64, len: u32) -> Step {
        self.batch_records += 1;
        self.block_records += 1;
        self.batch_bytes += u64::from(len);
        self.block_bytes += u64::from(len);
        if !self.planned.is_empty() {
            return self.step_planned(end);
        }
        if self.batch_records == self.limits.batch_size {
            return self.cut(Close::Count);
        }
        if self.limits.batch_bytes > 0 && self.batch_bytes >= self.limits.batch_bytes {
            return self.cut(Close::Bytes);
        }
        self.block()
    }

    /// Whether the next record begins a block.
    pub(crate) fn is_block_begin(&self) -> bool {
        self.block_records == 0
    }

    /// Whether a block of at most so many bytes may be taken whole: a block begins here, and no batch ends in it.
    pub(crate) fn takes_block(&self, bytes: u64) -> bool {
        let Limits { batch_size, batch_bytes, .. } = self.limits;
        let room = batch_bytes == 0 || self.batch_bytes + bytes < batch_bytes;
        self.is_block_begin() && self.planned.is_empty() && batch_size == 0 && room
    }

    /// Counts a whole block, as its records would be one by one, of which there is one at least. Only where
    /// [`Cutter::takes_block`] says so.
    pub(crate) fn take_block(&mut self, bytes: u64) {
        // How many there are counts nowhere: no batch ends by it.
        self.batch_records += 1;
        self.batch_bytes += bytes;
    }

    /// So many bytes, the last of the batch, were taken as whole blocks and come again.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.batch_bytes -= bytes;
        if self.batch_bytes == 0 {
            self.batch_records = 0;
        }
    }

    /// Ends the block behind the last record.
    pub(crate) fn close_block(&mut self) {
        (self.block_bytes, self.block_records) = (0, 0);
    }

    #[inline]
    fn block(&mut self) -> Step {
        if self.block_bytes >= self.limits.block_bytes || self.block_records >= self.limits.block_records {
            (self.block_bytes, self.block_records) = (0, 0);
            return Step::Block;
        }
        Step::More
    }

    #[cold]
    fn step_planned(&mut self, end: u64) -> Step {
        match self.planned.front() {
            Some(planned) if end >= planned.end => {
                self.planned.pop_front();
                self.cut(Close::Planned)
            }
            _ => self.block(),
        }
    }

    #[cold]
    fn cut(&mut self, close: Close) -> Step {
        let now = self.opened_at;
        self.open(now);
        Step::Cut(close)
    }

    fn open(&mut self, now: i64) {
        (self.batch_records, self.batch_bytes, self.block_records, self.block_bytes) = (0, 0, 0, 0);
        self.opened_at = match (self.fixed_time, self.planned.front()) {
            (_, Some(planned)) => planned.opened_at,
            (Some(time), None) => time,
            (None, None) => now,
        };
    }
}

/// The cutters of one reader's partitions. Travels in the chunk while the reader fills it.
#[derive(Default)]
pub struct Cutters(Option<Box<Table>>);

struct Table {
    limits: Limits,
    now: i64,
    cutters: HashMap<Partition, Cutter>,
    current: Option<(Partition, Cutter)>,
}

impl Cutters {
    /// No partition yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Cutters(Some(Box::new(Table { limits, now: 0, cutters: HashMap::new(), current: None })))
    }

    fn table(&mut self) -> &mut Table {
        // A chunk that an embedder made by hand, in a test of its reader, has the default limits.
        self.0.get_or_insert_with(|| {
            Box::new(Table { limits: Limits::default(), now: 0, cutters: HashMap::new(), current: None })
        })
    }

    pub(crate) fn set_now(&mut self, now: i64) {
        self.table().now = now;
    }

    pub(crate) fn limits(&mut self) -> Limits {
        self.table().limits
    }

    /// A partition that was assigned: it may have planned ends.
    pub(crate) fn assign(&mut self, partition: &Partition, planned: &[Planned]) {
        let table = self.table();
        let cutter =
            Cutter::new(table.limits, planned.iter().cloned(), partition.identity().opened_at, table.now);
        table.cutters.insert(partition.clone(), cutter);
    }

    /// A partition that ended or was given up.
    pub(crate) fn remove(&mut self, partition: &Partition) {
        let table = self.table();
        table.cutters.remove(partition);
        if table.current.as_ref().is_some_and(|(current, _)| current == partition) {
            table.current = None;
        }
    }

    /// Makes `partition` the one that [`Cutters::current`] cuts; returns its open batch's `opened_at`.
    pub(crate) fn begin(&mut self, partition: &Partition) -> i64 {
        let table = self.table();
        if table.current.as_ref().is_none_or(|(current, _)| current != partition) {
            if let Some((old, cutter)) = table.current.take() {
                table.cutters.insert(old, cutter);
            }
            let cutter = table
                .cutters
                .remove(partition)
                .unwrap_or_else(|| Cutter::new(table.limits, [], partition.identity().opened_at, table.now));
            table.current = Some((partition.clone(), cutter));
        }
        let (_, cutter) = table.current.as_mut().expect("set just above");
        cutter.set_now(table.now);
        cutter.opened_at()
    }

    #[inline]
    pub(crate) fn current(&mut self) -> &mut Cutter {
        &mut self.0.as_mut().and_then(|table| table.current.as_mut()).expect("start comes before push").1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn planned(end: u64) -> Planned {
        Planned { end, first_time: 0, opened_at: end as i64 * 10 }
    }

    /// What a record comes to by the definition: from all records since the batch's and the block's start.
    fn expected(limits: &Limits, planned: Option<u64>, end: u64, batch: &[u32], block: &[u32]) -> Step {
        let sum = |lens: &[u32]| lens.iter().map(|len| u64::from(*len)).sum::<u64>();
        let full = sum(block) >= limits.block_bytes || block.len() as u64 >= limits.block_records;
        let otherwise = if full { Step::Block } else { Step::More };
        match planned {
            Some(planned) if end >= planned => Step::Cut(Close::Planned),
            Some(_) => otherwise,
            None if batch.len() as u64 == limits.batch_size => Step::Cut(Close::Count),
            None if limits.batch_bytes > 0 && sum(batch) >= limits.batch_bytes => Step::Cut(Close::Bytes),
            None => otherwise,
        }
    }

    proptest! {
        #[test]
        fn batches_and_blocks_end_where_the_limits_say(
            batch_size in 0u64..8,
            batch_bytes in 0u64..60,
            block_bytes in 1u64..30,
            block_records in 1u64..6,
            plan in prop::collection::btree_set(1u64..25, 0..3),
            lens in prop::collection::vec(0u32..12, 1..60),
        ) {
            let limits = Limits { batch_size, batch_bytes, block_bytes, block_records };
            let mut plan: VecDeque<u64> = plan.into_iter().collect();
            let mut cutter = Cutter::new(limits, plan.iter().copied().map(planned), None, 7);
            let (mut batch, mut block) = (Vec::new(), Vec::new());
            for (end, len) in (1u64..).zip(lens) {
                prop_assert_eq!(cutter.planned(), plan.front().copied());
                if let Some(end) = plan.front() {
                    prop_assert_eq!(cutter.opened_at(), *end as i64 * 10);
                }
                prop_assert_eq!(cutter.is_block_begin(), block.is_empty());
                batch.push(len);
                block.push(len);
                let step = cutter.step(end, len);
                prop_assert_eq!(step, expected(&limits, plan.front().copied(), end, &batch, &block), "at {}", end);
                if step != Step::More {
                    block.clear();
                }
                if let Step::Cut(close) = step {
                    batch.clear();
                    if close == Close::Planned {
                        plan.pop_front();
                    }
                }
            }
        }

        /// Blocks of lines are taken whole; what follows must not tell.
        #[test]
        fn a_block_that_is_taken_whole_counts_as_its_records_do(
            batch_bytes in 0u64..200,
            blocks in prop::collection::vec(prop::collection::vec(1u32..12, 1..6), 1..12),
        ) {
            let limits = Limits { batch_size: 0, batch_bytes, block_bytes: 1000, block_records: 1000 };
            let mut whole = Cutter::new(limits, [], None, 0);
            let mut singly = whole.clone();
            for (end, block) in (1u64..).zip(&blocks) {
                let bytes = block.iter().map(|len| u64::from(*len)).sum();
                let takes = whole.takes_block(bytes);
                let steps: Vec<Step> = block.iter().map(|len| singly.step(end, *len)).collect();
                let cuts = steps.iter().any(|step| matches!(step, Step::Cut(_)));
                prop_assert_eq!(takes, !cuts, "block {}", end);
                if cuts {
                    break;
                }
                singly.close_block();
                if end % 3 == 0 {
                    whole.take_block(1);
                    whole.take_block(bytes);
                    whole.give_back(bytes + 1);
                }
                whole.take_block(bytes);
                prop_assert!(whole.is_block_begin());
            }
        }
    }

    #[test]
    fn a_block_is_not_taken_whole_where_records_count() {
        let takes = |limits: Limits, plan: Option<u64>| {
            Cutter::new(limits, plan.map(planned), None, 0).takes_block(10)
        };
        let limits = Limits { batch_size: 0, batch_bytes: 0, ..Limits::default() };
        assert!(takes(limits, None));
        assert!(!takes(limits, Some(1000)), "a planned end may be in it");
        assert!(!takes(Limits { batch_size: 1000, ..limits }, None));
        let mut begun = Cutter::new(limits, [], None, 0);
        assert_eq!(begun.step(1, 1), Step::More);
        assert!(!begun.takes_block(10), "within a block");
    }

    #[test]
    fn a_batch_is_opened_when_its_first_record_may_come() {
        let limits = Limits { batch_size: 2, ..Limits::default() };
        let mut cutter = Cutter::new(limits, [planned(1)], None, 5);
        cutter.set_now(6);
        assert_eq!(cutter.opened_at(), 10, "as it was planned");
        assert_eq!(cutter.pass_planned(0), None, "it ends later");
        assert_eq!(cutter.pass_planned(3), Some(1));
        cutter.set_now(20);
        assert_eq!(cutter.opened_at(), 20);
        assert_eq!(cutter.step(4, 1), Step::More);
        cutter.set_now(30);
        assert_eq!(cutter.opened_at(), 20, "it has a record");
        assert_eq!(cutter.step(5, 1), Step::Cut(Close::Count));
        cutter.set_now(40);
        assert_eq!(cutter.opened_at(), 40);

        let mut fixed = Cutter::new(limits, [], Some(99), 5);
        fixed.set_now(6);
        assert_eq!(fixed.opened_at(), 99, "no clock decides");
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Close::ALL.iter().map(|close| close.name()).collect();
        assert_eq!(names.len(), Close::ALL.len());
        assert!(names.iter().all(|name| !name.is_empty()) && !names.contains(Close::Open.name()));
    }
}
