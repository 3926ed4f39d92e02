//! The commit thread: keeps the ledgers, and stores marks in groups.
//!
//! It only receives; it never sends to readers, assembler or writers, so nobody it waits for can wait for it.
//! Writers that must not publish before an end is planned look at the ledgers under a condition variable
//! ([`Ledgers::wait_planned`]). A mark is stored only for what is published. Where the sink commits, receipts alone
//! move the ledgers.
//!
//! A partition is lost when its reader says so, when its mark is refused, when a batch of it is in doubt, or when a
//! sink that commits gives no receipt for it: its ledger is dropped, and with it everything that was not committed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never};
use parking_lot::{Condvar, Mutex};

use crate::batch::{BatchId, Receipt};
use crate::cut::Close;
use crate::error::{Error, Result, Retry};
use crate::ledger::{CutBatch, Gap, Ledger, Request};
use crate::metrics::Metrics;
use crate::record::Partition;
use crate::retry::Policy;
use crate::sink::Commits;
use crate::source::{Mark, Marks};
use crate::stop::{CENTURY, Stop};
use crate::write::Patience;

/// What the commit thread is told.
pub(crate) enum Note {
    /// A partition begins at a position, with what an earlier run did of it.
    Assigned(Partition, u64, Option<Mark>),
    /// Batches were cut. Comes before their receipts.
    Cut(Partition, Vec<CutBatch>),
    /// Batches are durable.
    Published(Vec<(Receipt, Close)>),
    /// No more batches will be cut: the partition is at its end.
    Ended(Partition),
    /// The partition goes to another reader once what is cut is published.
    Revoked(Partition),
    /// The partition is gone: nothing more of it is committed.
    Lost(Partition),
    /// The same, but it is to be assigned anew: what became of a batch of it is not known.
    Doubted(Partition),
}

/// The ledgers of all partitions, shared with the writers.
#[derive(Default)]
pub(crate) struct Ledgers {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    open: HashMap<Partition, Ledger>,
    lost: Gone,
    /// The last batch of a partition that was in doubt, and how often it was.
    doubts: HashMap<String, (u64, u32)>,
}

impl Table {
    fn verdict(&self, partition: &Partition, end: u64) -> Option<Verdict> {
        if self.lost.contains(partition) {
            return Some(Verdict::Drop);
        }
        // A writer may be ahead of the note that assigns the partition.
        self.open.get(partition)?.is_planned(end).then_some(Verdict::Publish)
    }
}

/// Partitions that went elsewhere. Epochs only grow, so one a name is enough: a run of many days sees any number
/// of tenancies.
#[derive(Default)]
pub(crate) struct Gone(HashMap<String, u64>);

impl Gone {
    /// It is gone, and so is every earlier tenancy of it. Says whether that is news.
    pub fn put(&mut self, partition: &Partition) -> bool {
        let news = !self.contains(partition);
        if news {
            self.0.insert(partition.name().to_owned(), partition.identity().epoch);
        }
        news
    }

    pub fn contains(&self, partition: &Partition) -> bool {
        self.0.get(partition.name()).is_some_and(|epoch| *epoch >= partition.identity().epoch)
    }
}

/// What becomes of a batch that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its end is planned.
    Publish,
    /// Its partition is lost: it must not be published.
    Drop,
}

impl Ledgers {
    /// Blocks until it is known whether the batch that ends at `end` may be published.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run is aborted.
    pub fn wait_planned(&self, partition: &Partition, end: u64, stop: &Stop) -> Result<Verdict> {
        let mut table = self.table.lock();
        loop {
            if stop.is_aborted() {
                return Err(Error::Stopped);
            }
            if let Some(verdict) = table.verdict(partition, end) {
                return Ok(verdict);
            }
            let _ = self.changed.wait_for(&mut table, Duration::from_millis(100));
        }
    }

    /// What becomes of the batch that ends at `end`, if that is known.
    pub fn verdict(&self, partition: &Partition, end: u64) -> Option<Verdict> {
        self.table.lock().verdict(partition, end)
    }

    #[cfg(test)]
    pub fn with<T>(&self, partition: &Partition, look: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        self.table.lock().open.get_mut(partition).map(look)
    }

    /// Whether nothing more of this partition may be published.
    pub fn is_lost(&self, partition: &Partition) -> bool {
        self.table.lock().lost.contains(partition)
    }

    /// A batch is in doubt: says for which time, whatever the tenancy.
    pub fn doubts(&self, id: &BatchId) -> u32 {
        let mut table = self.table.lock();
        let doubts = table.doubts.entry(id.partition.name().to_owned()).or_default();
        let times = if doubts.0 == id.start { doubts.1 + 1 } else { 1 };
        *doubts = (id.start, times);
        times
    }

    /// The partition is lost: drops its ledger. Says whether that is news.
    pub fn lose(&self, partition: &Partition) -> bool {
        let mut table = self.table.lock();
        table.open.remove(partition);
        let news = table.lost.put(partition);
        self.changed.notify_all();
        news
    }
}

/// Marks that are being stored, and the requests that they stand for, in the same order.
pub(crate) struct Flush {
    pub requests: Vec<(Partition, Request)>,
    pub marks: Vec<Mark>,
    begun: Instant,
}

/// What ends a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Ended,
    Revoked,
}

/// Where nothing waits for the commit thread it looks at notes so often at most. A fast sink sends thousands a
/// second, and to be woken for each of them took one to two hundredths of all processor time, as often as not on the
/// reader's processor.
const NAP: Duration = Duration::from_millis(5);

/// So many notes more than there are results and jobs may wait for it. Where half of them come at once
/// it does not nap, and where they come in a nap it is roused: others would soon wait for it.
pub(crate) const NOTES: usize = 256;

/// The commit thread's state.
pub(crate) struct Commit<'a> {
    pub marks: &'a dyn Marks,
    pub ledgers: &'a Ledgers,
    pub metrics: &'a Metrics,
    pub stop: &'a Stop,
    pub retry: Policy,
    /// At most so often marks are stored, where nothing waits for them.
    pub interval: Duration,
    /// Who commits.
    pub commits: Commits,
    /// Something comes here where there are many notes to be read, and it ends when nothing more is assembled: either
    /// ends a nap.
    pub roused: Receiver<()>,
    /// A partition is to be released, or begins: its mark is stored at once.
    urgent: bool,
    /// Partitions whose start is remembered nowhere yet.
    fresh: HashSet<Partition>,
    dirty: HashSet<Partition>,
    endings: HashMap<Partition, Ending>,
    due: Instant,
}

impl<'a> Commit<'a> {
    pub fn new(marks: &'a dyn Marks, ledgers: &'a Ledgers, metrics: &'a Metrics, stop: &'a Stop) -> Self {
        Commit {
            marks,
            ledgers,
            metrics,
            stop,
            retry: Policy::default(),
            interval: Duration::from_millis(500),
            commits: Commits::Engine,
            roused: never(),
            urgent: false,
            fresh: HashSet::new(),
            dirty: HashSet::new(),
            endings: HashMap::new(),
            due: Instant::now(),
        }
    }

    /// Receives until all who send are gone; then stores the last marks. Blocks.
    ///
    /// # Errors
    /// If marks cannot be stored, or the engine broke the order of batches.
    pub fn run(&mut self, notes: &Receiver<Note>) -> Result<()> {
        loop {
            let note = if self.dirty.is_empty() {
                notes.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                notes.recv_deadline(self.due)
            };
            match note {
                Ok(note) => self.apply(note)?,
                Err(RecvTimeoutError::Timeout) => self.flush()?,
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            let mut count = 1;
            while let Ok(note) = notes.try_recv() {
                self.apply(note)?;
                count += 1;
            }
            let waited = self.is_waited_for();
            if self.is_due() {
                self.flush()?;
            }
            if !waited && count < NOTES / 2 {
                let _ = self.roused.recv_timeout(NAP);
            }
        }
    }

    fn plans(&self) -> bool {
        self.marks.plans() && self.commits == Commits::Engine
    }

    /// Whether writers, or whoever gets a partition next, wait for what is stored.
    fn is_waited_for(&self) -> bool {
        self.urgent || self.plans() || self.commits == Commits::Sink
    }

    /// Whether something is to be stored now.
    fn is_due(&self) -> bool {
        !self.dirty.is_empty() && (self.is_waited_for() || Instant::now() >= self.due)
    }

    pub(crate) fn apply(&mut self, note: Note) -> Result<()> {
        match note {
            Note::Assigned(partition, start, mark) => self.assigned(partition, start, mark),
            Note::Cut(partition, cuts) => self.cut(&partition, cuts)?,
            Note::Published(mut receipts) => self.published(&mut receipts)?,
            Note::Ended(partition) => self.ending(partition, Ending::Ended),
            Note::Revoked(partition) => self.ending(partition, Ending::Revoked),
            Note::Lost(partition) => self.lost(&partition),
            Note::Doubted(partition) => {
                self.lost(&partition);
                self.marks.doubted(&partition);
            }
        }
        Ok(())
    }

    fn assigned(&mut self, partition: Partition, start: u64, mark: Option<Mark>) {
        self.metrics.begun(&partition, start);
        let ledgers = self.ledgers;
        let mut table = ledgers.table.lock();
        // A writer may have lost it before this note was read; it comes back with a greater epoch only.
        if table.lost.contains(&partition) {
            return;
        }
        if mark.as_ref().is_some_and(|mark| mark.fresh) {
            self.fresh.insert(partition.clone());
            self.dirty.insert(partition.clone());
            self.urgent = true;
        }
        let ledger = mark.map_or_else(
            || Ledger::new(start, 0, 0, []),
            |mark| Ledger::new(start, mark.line, mark.rejected, mark.plan).resuming(mark.resume),
        );
        table.open.insert(partition, ledger);
    }

    fn ending(&mut self, partition: Partition, ending: Ending) {
        self.dirty.insert(partition.clone());
        self.endings.insert(partition.clone(), ending);
        self.urgent |= self.is_over(&partition, Ending::Revoked);
    }

    /// Forgets a partition that somebody else owns.
    fn lost(&mut self, partition: &Partition) {
        self.dirty.remove(partition);
        self.endings.remove(partition);
        self.fresh.remove(partition);
        if self.ledgers.lose(partition) {
            self.metrics.lost(partition);
        }
    }

    fn cut(&mut self, partition: &Partition, cuts: Vec<CutBatch>) -> Result<()> {
        let plans = self.plans();
        let mut table = self.ledgers.table.lock();
        let Some(ledger) = table.open.get_mut(partition) else { return Ok(()) };
        for cut in cuts {
            ledger.cut(cut).map_err(|gap| broken(partition, &gap))?;
        }
        if plans || ledger.has_moved() {
            self.dirty.insert(partition.clone());
        }
        Ok(())
    }

    fn published(&mut self, receipts: &mut Vec<(Receipt, Close)>) -> Result<()> {
        let mut table = self.ledgers.table.lock();
        // What is stored of a lost partition will be read again: it counts then.
        receipts.retain(|(receipt, _)| !table.lost.contains(&receipt.id.partition));
        self.metrics.published(receipts);
        for (receipt, _) in receipts {
            let partition = &receipt.id.partition;
            if let Some(ledger) = table.open.get_mut(partition) {
                let published = ledger.publish(receipt.id.start, receipt.counts.rejected);
                published.map_err(|gap| broken(partition, &gap))?;
                if !self.dirty.contains(partition) {
                    self.dirty.insert(partition.clone());
                }
                let revoked = ledger.open() == 0 && self.endings.get(partition) == Some(&Ending::Revoked);
                self.urgent |= revoked;
            }
        }
        Ok(())
    }

    /// Stores the marks of all partitions that changed, and tells the ledgers.
    fn flush(&mut self) -> Result<()> {
        let Some(mut flush) = self.begin() else { return Ok(()) };
        let mut refused = Vec::new();
        let stored = self.store(&mut flush.marks, &mut refused);
        self.conclude(flush, &refused, stored)
    }

    /// Whether there is anything to store.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.dirty.is_empty()
    }

    /// What is to be stored now; `None` if nothing changed. Behind it comes [`Commit::conclude`], before anything else.
    pub(crate) fn begin(&mut self) -> Option<Flush> {
        self.urgent = false;
        if self.dirty.is_empty() {
            return None;
        }
        let begun = Instant::now();
        let requests = self.requests();
        let mut marks: Vec<Mark> =
            requests.iter().map(|(partition, request)| self.mark(partition, request)).collect();
        if self.commits == Commits::Sink {
            // Receipts say that it is committed.
            marks.retain(|mark| self.fresh.contains(&mark.partition));
        }
        Some(Flush { requests, marks, begun })
    }

    /// Tells the ledgers what became of it. `refused` partitions are lost; of the others the marks are durable with
    /// the ends that are left in them, if they are stored.
    pub(crate) fn conclude(&mut self, flush: Flush, refused: &[Partition], stored: Result<()>) -> Result<()> {
        let Flush { mut requests, marks, begun } = flush;
        for partition in refused {
            log::info!("{partition} belongs to another owner now; nothing more of it is committed here");
            self.lost(partition);
        }
        shorten(&mut requests, &marks);
        self.settle(&requests, stored.is_ok());
        stored?;
        self.fresh.clear();
        for (partition, request) in &requests {
            if self.ledgers.is_lost(partition) {
                continue;
            }
            self.metrics.moved(partition, request.watermark, self.is_over(partition, Ending::Ended));
        }
        self.end_partitions();
        // A state of 100,000 files takes a while to write: never more than one part in twenty of the time.
        self.due = Instant::now() + self.interval.max(begun.elapsed() * 20).min(CENTURY);
        Ok(())
    }

    /// Stores marks; those of partitions that are refused are taken away.
    fn store(&mut self, marks: &mut Vec<Mark>, refused: &mut Vec<Partition>) -> Result<()> {
        let count = marks.len();
        let what = || format!("store the marks of {count} partitions");
        let (stop, metrics) = (self.stop, self.metrics);
        let patience = Patience { policy: self.retry, stop, metrics, service: self.marks.service() };
        patience.retry(&what, || {
            if marks.is_empty() {
                return Ok(());
            }
            let known = refused.len();
            let begun = Instant::now();
            let stored = self.marks.store(marks, refused);
            self.metrics.latencies.commit.since(begun);
            if refused.len() > known {
                marks.retain(|mark| !refused.contains(&mark.partition));
            }
            stored
        })
    }

    fn requests(&mut self) -> Vec<(Partition, Request)> {
        let plans = self.plans();
        let mut table = self.ledgers.table.lock();
        let dirty = self.dirty.drain();
        dirty
            .filter_map(|partition| {
                let ledger = table.open.get_mut(&partition)?;
                let request = if plans { ledger.request() } else { ledger.snapshot() };
                Some((partition, request))
            })
            .collect()
    }

    fn mark(&self, partition: &Partition, request: &Request) -> Mark {
        Mark {
            partition: partition.clone(),
            watermark: request.watermark,
            line: request.line,
            resume: request.resume.clone(),
            plan: request.plan.clone(),
            rejected: request.rejected,
            ended: self.is_over(partition, Ending::Ended),
            fresh: false,
        }
    }

    fn is_over(&self, partition: &Partition, ending: Ending) -> bool {
        self.endings.get(partition) == Some(&ending)
            && self.ledgers.table.lock().open.get(partition).is_some_and(|ledger| ledger.open() == 0)
    }

    fn settle(&self, requests: &[(Partition, Request)], stored: bool) {
        let mut table = self.ledgers.table.lock();
        for (partition, request) in requests {
            match table.open.get_mut(partition) {
                Some(ledger) if stored => ledger.acknowledge(request),
                Some(ledger) => ledger.refuse(),
                None => {}
            }
        }
        self.ledgers.changed.notify_all();
    }

    /// Forgets partitions of which nothing is in flight any more.
    fn end_partitions(&mut self) {
        let mut table = self.ledgers.table.lock();
        let (marks, metrics) = (self.marks, self.metrics);
        self.endings.retain(|partition, ending| {
            let open = table.open.get(partition).is_some_and(|ledger| ledger.open() > 0);
            if !open {
                table.open.remove(partition);
                if *ending == Ending::Revoked {
                    metrics.released(partition);
                    marks.released(partition);
                }
            }
            open
        });
    }
}

/// Takes away the ends that the marks had no room for: they are not durable. Marks stand in the requests' order.
fn shorten(requests: &mut [(Partition, Request)], marks: &[Mark]) {
    let mut requests = requests.iter_mut();
    for mark in marks {
        if let Some((_, request)) = requests.find(|(partition, _)| *partition == mark.partition) {
            request.plan.truncate(mark.plan.len());
        }
    }
}

fn broken(partition: &Partition, gap: &Gap) -> Error {
    let found = format!("a batch at {} where {} was expected", gap.found, gap.expected);
    Error::other(format!("internal error: the ledger of {partition} was told of"), Retry::Permanent, found)
}

#[cfg(test)]
mod tests;
