//! What a run counts. Records, bytes and batches count when they are durable, never before.
//!
//! Written by the engine's threads with relaxed atomics, a few per chunk; read by progress, summary and status. What
//! is not durable yet is in [`Metrics::seen`], [`Flow`] and the latencies, and is named so.

mod age;
mod latency;
mod service;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::batch::{Kinds, Receipt};
use crate::budget::Budget;
use crate::cut::Close;
use crate::error::Error;
use crate::record::{Chunk, Partition};
use crate::transform::Sample;
use age::Ages;
pub use latency::{Histogram, Latency};
pub use service::{Services, Told, Trouble};
pub use wait::Waits;

/// How many partitions are listed one by one; the rest only counts in the sums.
const LISTED: usize = 1000;
/// Waiting between two looks that means nothing: taking what is free takes time, too.
const HARDLY: Duration = Duration::from_millis(10);
/// How many rejected records are shown.
const SAMPLES: usize = 3;

/// Counters of one run.
pub struct Metrics {
    made: Instant,
    started: OnceLock<Instant>,
    /// Records that workers are done with and that came in order, durable or not.
    pub seen: AtomicU64,
    /// Retries of sinks and marks.
    pub retries: AtomicU64,
    /// How long readers have waited for bytes or permits.
    pub reader_waits: Waits,
    /// How long the assembler has waited for writers.
    pub writer_waits: Waits,
    /// The most bytes that were between read and stored at once; set when the run is over.
    pub peak_bytes: AtomicU64,
    /// Partitions that somebody else took over before everything of them was committed.
    pub partitions_lost: AtomicU64,
    /// What passes the stages.
    pub flow: Flow,
    /// How long the stages take for it.
    pub latencies: Latencies,
    /// What went wrong with whom.
    pub services: Services,
    held: AtomicBool,
    finished: AtomicBool,
    budget: OnceLock<Arc<Budget>>,
    totals: Mutex<Totals>,
    reaches: Mutex<Reaches>,
    ages: Mutex<Ages>,
}

/// What passed each stage so far; what waits between two of them is the difference. Not durable.
#[derive(Debug, Default)]
pub struct Flow {
    /// Chunks that readers gave to the pool.
    pub chunks_read: AtomicU64,
    /// Chunks that the pool is done with.
    pub chunks_processed: AtomicU64,
    /// Chunks that the assembler took.
    pub chunks_assembled: AtomicU64,
    /// Batches that are open now.
    pub open_batches: AtomicU64,
    /// Jobs that the assembler gave to the writers.
    pub jobs_queued: AtomicU64,
    /// Jobs that writers are done with.
    pub jobs_done: AtomicU64,
    /// Tasks that readers gave to the pool: a chunk each, or several small ones.
    pub tasks_queued: AtomicU64,
    /// Tasks that the pool is done with.
    pub tasks_done: AtomicU64,
    /// How many tasks may be between reader and assembler at once.
    pub tasks_limit: AtomicU64,
    /// How many jobs may wait for a writer or be with one.
    pub jobs_limit: AtomicU64,
}

impl Flow {
    fn is_stuck_behind_the_pool(&self) -> bool {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let jobs = load(&self.jobs_queued).saturating_sub(load(&self.jobs_done));
        jobs > 0 && load(&self.chunks_read) <= load(&self.chunks_processed)
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Reading a chunk from the source.
    pub fetch: Latency,
    /// Making output of a chunk.
    pub process: Latency,
    /// One call of the sink that publishes.
    pub publish: Latency,
    /// Storing marks.
    pub commit: Latency,
}

/// How far partitions are done that have a known end: positions, which for Kafka are records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Committed by this run.
    pub done: u64,
    /// Committed by this run, or readable and not yet committed.
    pub all: u64,
}

impl Reach {
    /// What can be read and is not committed.
    pub fn lag(self) -> u64 {
        self.all - self.done
    }
}

/// The partitions whose readers know how far they can be read.
#[derive(Default)]
struct Reaches {
    open: HashMap<Partition, Extent>,
    /// What was done of partitions that are gone.
    past: u64,
}

struct Extent {
    start: u64,
    done: u64,
    end: u64,
}

impl Extent {
    fn reach(&self) -> Reach {
        let done = self.done.saturating_sub(self.start);
        Reach { done, all: done + self.end.saturating_sub(self.done) }
    }
}

/// Sums over everything that is durable.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Records read, and stored or rejected for good.
    pub read: u64,
    /// Outputs stored.
    pub stored: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Rejected records by kind.
    pub rejects: Kinds,
    /// Bytes of records read.
    pub bytes_read: u64,
    /// Bytes stored, dead letters included.
    pub bytes_stored: u64,
    /// Batches published.
    pub batches: u64,
    /// Batches by the reason they were closed for.
    pub closes: BTreeMap<Close, u64>,
    /// What was done of each partition, by name; at most a thousand are listed, and those that ended give way to
    /// others.
    pub partitions: BTreeMap<String, Range>,
    /// How many partitions there were.
    pub partition_count: u64,
    /// The first rejected records.
    pub samples: Vec<Sample>,
}

/// What was done of one partition in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The position it started at.
    pub start: u64,
    /// Everything before this is stored.
    pub end: u64,
    /// Records read.
    pub read: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Whether it was read and stored to its end.
    pub ended: bool,
}

/// The stage that the others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The source.
    Read,
    /// The pool.
    Process,
    /// The sink.
    Write,
}

impl Stage {
    /// The name that logs and progress carry.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Process => "process",
            Stage::Write => "write",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            made: Instant::now(),
            started: OnceLock::new(),
            seen: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            reader_waits: Waits::default(),
            writer_waits: Waits::default(),
            peak_bytes: AtomicU64::new(0),
            partitions_lost: AtomicU64::new(0),
            flow: Flow::default(),
            latencies: Latencies::default(),
            services: Services::default(),
            held: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            budget: OnceLock::new(),
            reaches: Mutex::default(),
            totals: Mutex::default(),
            ages: Mutex::default(),
        }
    }
}

impl Metrics {
    /// When the run began; before that, when these were made.
    pub fn started(&self) -> Instant {
        *self.started.get().unwrap_or(&self.made)
    }

    /// Whether the engine has begun to run.
    pub fn is_running(&self) -> bool {
        self.started.get().is_some()
    }

    /// The sums so far. While the output is held, nothing counts as stored.
    pub fn totals(&self) -> Totals {
        let totals = self.totals.lock().clone();
        if !self.held.load(Ordering::Acquire) {
            return totals;
        }
        Totals { stored: 0, bytes_stored: 0, batches: 0, closes: BTreeMap::new(), ..totals }
    }

    /// Nothing that is stored can be seen before the run's end, so that it does not count as stored until
    /// [`Metrics::release`]: output that is one file.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// What was stored can be seen.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// The sink was finished: all that could be read is stored.
    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    /// Whether the sink was finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Bytes between read and stored, and how many there may be; `None` before the run.
    pub fn in_flight(&self) -> Option<(usize, usize)> {
        self.budget.get().map(|budget| (budget.used(), budget.limit()))
    }

    /// The most bytes that were between read and stored at once so far.
    pub fn peak(&self) -> usize {
        self.budget.get().map_or(0, |budget| budget.peak())
    }

    /// How long ago the oldest record was read that is not committed; `None` where there is none.
    pub fn oldest(&self) -> Option<Duration> {
        self.ages.lock().oldest().map(|since| since.elapsed())
    }

    /// The same by name of partition.
    pub fn oldest_each(&self) -> BTreeMap<String, Duration> {
        let ages = self.ages.lock();
        ages.each().map(|(partition, since)| (partition.name().to_owned(), since.elapsed())).collect()
    }

    /// The run begins.
    pub(crate) fn begin(&self, budget: &Arc<Budget>, tasks: usize, jobs: usize) {
        let _ = self.started.set(Instant::now());
        let _ = self.budget.set(budget.clone());
        self.flow.tasks_limit.store(tasks as u64, Ordering::Relaxed);
        self.flow.jobs_limit.store(jobs as u64, Ordering::Relaxed);
    }

    /// A reader hands on what it has read.
    pub(crate) fn read(&self, chunk: &Chunk) {
        if let (Some(partition), Some((first, last))) = (&chunk.partition, chunk.span()) {
            self.ages.lock().read(partition, first, last, Instant::now());
        }
    }

    /// Records read, stored and rejected, and batches: for callers that ask often.
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        let totals = self.totals.lock();
        (totals.read, totals.stored, totals.rejected, totals.batches)
    }

    /// The stage that the others wait for, judged by who has waited since `earlier` (reader and writer waits), which
    /// should be some tenths of a second ago. Where readers have hardly waited, all wait for them. Where they wait for
    /// bytes while the pool has nothing to do, the writers have the bytes.
    pub fn limiting(&self, earlier: (Duration, Duration)) -> (Stage, (Duration, Duration)) {
        let now = (self.reader_waits.total(), self.writer_waits.total());
        let (reader, writer) = (now.0.saturating_sub(earlier.0), now.1.saturating_sub(earlier.1));
        let stage = if writer > HARDLY && writer >= reader / 4 {
            Stage::Write
        } else if reader <= HARDLY {
            Stage::Read
        } else if self.flow.is_stuck_behind_the_pool() {
            Stage::Write
        } else {
            Stage::Process
        };
        (stage, now)
    }

    /// How far the partitions are done whose readers know their ends; `None` while there is none.
    pub fn reach(&self) -> Option<Reach> {
        let reaches = self.reaches.lock();
        let sum = |sum: Reach, next: Reach| Reach { done: sum.done + next.done, all: sum.all + next.all };
        let past = Reach { done: reaches.past, all: reaches.past };
        let known = !reaches.open.is_empty() || reaches.past > 0;
        known.then(|| reaches.open.values().map(Extent::reach).fold(past, sum))
    }

    /// How many positions of each partition can be read and are not committed, by name.
    pub fn lags(&self) -> BTreeMap<String, u64> {
        let reaches = self.reaches.lock();
        reaches.open.iter().map(|(of, extent)| (of.name().to_owned(), extent.reach().lag())).collect()
    }

    /// A service failed for good, outside of the calls that are tried again.
    pub(crate) fn failed(&self, error: &Error) {
        if let Some(service) = error.service() {
            self.services.error(service, error.kind());
        }
    }

    /// Readers tell: a partition, where they stand in it, and where it ends for now.
    pub(crate) fn readable(&self, told: &mut Vec<(Partition, u64, u64)>) {
        let mut reaches = self.reaches.lock();
        for (partition, at, end) in told.drain(..) {
            let extent = reaches.open.entry(partition).or_insert(Extent { start: at, done: at, end });
            extent.end = end;
        }
    }

    /// A partition was taken over by somebody else.
    pub(crate) fn lost(&self, partition: &Partition) {
        self.partitions_lost.fetch_add(1, Ordering::Relaxed);
        self.released(partition);
    }

    /// A partition was given up: its lag is somebody else's.
    pub(crate) fn released(&self, partition: &Partition) {
        let mut reaches = self.reaches.lock();
        if let Some(extent) = reaches.open.remove(partition) {
            reaches.past += extent.reach().done;
        }
        drop(reaches);
        self.ages.lock().gone(partition);
    }

    pub(crate) fn begun(&self, partition: &Partition, start: u64) {
        let mut totals = self.totals.lock();
        if let Some(range) = totals.partitions.get_mut(partition.name()) {
            // It was here before, went elsewhere and came back: what was read then counts.
            (range.start, range.end, range.ended) = (range.start.min(start), start, false);
            return;
        }
        totals.partition_count += 1;
        if totals.partitions.len() == LISTED {
            // Of 10,000 files those are of interest that are not done.
            let ended = totals.partitions.iter().find(|(_, range)| range.ended).map(|(name, _)| name.clone());
            let Some(ended) = ended else { return };
            totals.partitions.remove(&ended);
        }
        let range = Range { start, end: start, ..Range::default() };
        totals.partitions.insert(partition.name().into(), range);
    }

    pub(crate) fn published(&self, receipts: &[(Receipt, Close)]) {
        let mut totals = self.totals.lock();
        for (receipt, close) in receipts {
            totals.read += receipt.counts.read;
            totals.stored += receipt.counts.stored;
            totals.rejected += receipt.counts.rejected;
            totals.rejects += receipt.counts.kinds;
            totals.bytes_read += receipt.counts.bytes_read;
            totals.bytes_stored += receipt.bytes;
            totals.batches += 1;
            *totals.closes.entry(*close).or_default() += 1;
            if let Some(range) = totals.partitions.get_mut(receipt.id.partition.name()) {
                range.read += receipt.counts.read;
                range.rejected += receipt.counts.rejected;
            }
        }
    }

    pub(crate) fn moved(&self, partition: &Partition, watermark: u64, ended: bool) {
        if let Some(range) = self.totals.lock().partitions.get_mut(partition.name()) {
            range.end = watermark;
            range.ended = ended;
        }
        if let Some(extent) = self.reaches.lock().open.get_mut(partition) {
            (extent.start, extent.done) = (extent.start.min(watermark), watermark);
        }
        let mut ages = self.ages.lock();
        if ended {
            ages.gone(partition);
        } else {
            ages.committed(partition, watermark);
        }
    }

    /// The first records that were rejected are shown, stored or not: they say why a run failed, too.
    pub(crate) fn rejected(&self, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        let mut totals = self.totals.lock();
        let room = SAMPLES.saturating_sub(totals.samples.len());
        totals.samples.extend(samples.iter().take(room).cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchId, Counts};
    use crate::record::Identity;

    fn tenancy(epoch: u64) -> Partition {
        Partition::new(Identity { source: "kafka", name: "t:0".into(), epoch, ..Identity::default() })
    }

    fn receipt(partition: &Partition, start: u64, read: u64) -> (Receipt, Close) {
        let id = BatchId { partition: partition.clone(), start, first_time: 0, opened_at: 0 };
        let counts = Counts { read, ..Counts::default() };
        let (end, key, failed_key) = (start + read, None, None);
        (Receipt { id, end, key, failed_key, counts, bytes: 0, failed_bytes: 0, crc32c: 0 }, Close::Chunk)
    }

    #[test]
    fn a_partition_that_comes_back_keeps_its_counts() {
        let metrics = Metrics::default();
        for (epoch, start) in [(1, 100), (5, 40)] {
            let partition = tenancy(epoch);
            metrics.begun(&partition, start);
            metrics.published(&[receipt(&partition, start, 60)]);
            metrics.moved(&partition, start + 60, false);
        }
        let totals = metrics.totals();
        assert_eq!(totals.partition_count, 1);
        let range = Range { start: 40, end: 100, read: 120, rejected: 0, ended: false };
        assert_eq!(totals.partitions["t:0"], range);
    }

    #[test]
    fn who_is_waited_for_is_limiting_also_while_a_wait_goes_on() {
        let metrics = Metrics::default();
        let look = |earlier| metrics.limiting(earlier).0;
        let none = (Duration::ZERO, Duration::ZERO);
        assert_eq!(look(none), Stage::Read);
        let long = |waits: &Waits| {
            let begun = waits.total();
            until(|| waits.total() > begun + 2 * HARDLY);
        };
        let _reader = metrics.reader_waits.begin();
        long(&metrics.reader_waits);
        assert_eq!(look(none), Stage::Process);
        metrics.flow.jobs_queued.fetch_add(1, Ordering::Relaxed);
        assert_eq!(look(none), Stage::Write, "the bytes are with the writers");
        metrics.flow.chunks_read.fetch_add(1, Ordering::Relaxed);
        assert_eq!(look(none), Stage::Process);
        let _writer = metrics.writer_waits.begin();
        let earlier = (metrics.reader_waits.total(), metrics.writer_waits.total());
        long(&metrics.writer_waits);
        assert_eq!(look(earlier), Stage::Write);
    }

    fn until(is: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < end, "never");
            std::thread::yield_now();
        }
    }

    #[test]
    fn of_many_partitions_a_thousand_are_listed_and_those_that_are_done_give_way() {
        let metrics = Metrics::default();
        for file in 0..10_000 {
            let partition = Partition::named("file", format!("f{file:05}"));
            metrics.begun(&partition, 0);
            metrics.moved(&partition, 1, file < 9_900);
        }
        let totals = metrics.totals();
        assert_eq!((totals.partitions.len(), totals.partition_count), (LISTED, 10_000));
        assert_eq!(totals.partitions.values().filter(|range| !range.ended).count(), 100);
    }

    #[test]
    fn reach_is_done_and_lag_and_outlives_tenancies() {
        let (metrics, old, new) = (Metrics::default(), tenancy(1), tenancy(2));
        assert_eq!(metrics.reach(), None);
        metrics.readable(&mut vec![(old.clone(), 10, 30)]);
        metrics.moved(&old, 25, false);
        assert_eq!(metrics.reach(), Some(Reach { done: 15, all: 20 }));
        metrics.lost(&old);
        assert_eq!(metrics.reach(), Some(Reach { done: 15, all: 15 }));
        // The reader is ahead of what is committed, and the log may be shorter than it was.
        metrics.readable(&mut vec![(new.clone(), 40, 50)]);
        metrics.moved(&new, 25, false);
        assert_eq!(metrics.reach(), Some(Reach { done: 15, all: 40 }));
        metrics.readable(&mut vec![(new.clone(), 40, 20)]);
        assert_eq!(metrics.reach().map(Reach::lag), Some(0));
        assert_eq!(metrics.lags()["t:0"], 0);
    }
}
