//! The writers: blocking threads that take jobs from one queue in the assembler's order and retry in place.
//!
//! A writer waits only for jobs that came earlier, for its own retries, and for ends that are being planned; it
//! never waits for bytes. Whoever stores the last part of an upload publishes it. What was begun and not
//! published is aborted when the upload is dropped, whatever the reason.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender};
use parking_lot::Mutex;

use crate::batch::{Batch, BatchId, Receipt};
use crate::commit::{Ledgers, Note, Verdict};
use crate::cut::Close;
use crate::error::{Error, Result, Retry};
use crate::memory::is_grouped;
use crate::metrics::Metrics;
use crate::retry::Policy;
use crate::sink::{Commits, Part, Shape, Sink, Totals, Upload};
use crate::stop::Stop;

/// Batches a call of [`Sink::store`]: an abort is seen between calls, and two hundred files are synced in less
/// than a second.
const GROUP: usize = 256;

/// How often the same batch may be in doubt before the run ends.
const DOUBTS: u32 = 3;

/// Work for a writer.
pub(crate) enum Job {
    /// Whole batches, in order: those that one chunk left, or that came together ([`Shape::group`]).
    Store(Vec<Batch>),
    /// A part of an open batch.
    Part(Arc<OpenUpload>, Part),
    /// All parts of this batch have been queued.
    Close(Arc<OpenUpload>, Box<Batch>, Totals),
    /// The batch is given up.
    Abort(Arc<OpenUpload>),
}

/// A batch that is being stored in parts. Shared by the writers that store them.
pub(crate) struct OpenUpload {
    id: BatchId,
    handle: Mutex<Option<Arc<dyn Upload>>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    pending: usize,
    closed: Option<(Box<Batch>, Totals)>,
    published: bool,
}

impl OpenUpload {
    pub fn new(id: BatchId) -> Arc<Self> {
        Arc::new(OpenUpload { id, handle: Mutex::default(), progress: Mutex::default() })
    }

    /// A part is about to be queued. Called by the assembler before it queues the part.
    pub fn expect_part(&self) {
        self.progress.lock().pending += 1;
    }

    /// A part is stored: returns what is to be published, if it was the last.
    fn stored_part(&self) -> Option<(Box<Batch>, Totals)> {
        let mut progress = self.progress.lock();
        progress.pending -= 1;
        if progress.pending == 0 { progress.closed.take() } else { None }
    }

    /// The batch is closed: returns it if no part is pending.
    fn close(&self, batch: Box<Batch>, totals: Totals) -> Option<(Box<Batch>, Totals)> {
        let mut progress = self.progress.lock();
        if progress.pending == 0 {
            return Some((batch, totals));
        }
        progress.closed = Some((batch, totals));
        None
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if let Some(upload) = self.handle.lock().take()
            && !self.progress.lock().published
        {
            // A panic of the sink's must not meet another one on its way.
            if catch_unwind(AssertUnwindSafe(|| upload.abort())).is_err() {
                log::error!("the sink panicked while it gave up an upload");
            }
        }
    }
}

/// What writers share.
pub(crate) struct Writers<'a> {
    pub sink: &'a dyn Sink,
    pub stop: &'a Stop,
    pub retry: Policy,
    pub metrics: &'a Metrics,
    /// Where planned ends and lost partitions are looked up.
    pub ledgers: &'a Ledgers,
    /// Whether ends must be planned before a batch is published.
    pub plans: bool,
    /// Whether a partition in doubt can be read again.
    pub rereads: bool,
    pub shape: Shape,
    /// Jobs that are queued or being done.
    pub pending: &'a AtomicUsize,
}

impl Writers<'_> {
    /// One writer: takes jobs until there are no more. Blocks.
    ///
    /// # Errors
    /// The first failure that is permanent or outlasts its retries.
    pub fn run(&self, jobs: &Receiver<Job>, notes: &Sender<Note>) -> Result<()> {
        let mut next = None;
        // Like `recv`, which spins and yields for a while before it sleeps, but for that: where jobs come one by
        // one a writer was put on a processor twice as often.
        let mut any = Select::new();
        any.recv(jobs);
        while let Some(job) = next.take().or_else(|| any.select().recv(jobs).ok()) {
            if self.stop.is_aborted() {
                return Err(Error::Stopped);
            }
            let mut done = 1;
            match job {
                Job::Store(mut batches) => {
                    if is_grouped(&self.shape) {
                        (done, next) = self.gather(&mut batches, jobs);
                    }
                    self.store(batches, notes)?;
                }
                Job::Part(upload, part) => self.part(&upload, &part, notes)?,
                Job::Close(upload, batch, totals) => {
                    if let Some(closed) = upload.close(batch, totals) {
                        self.publish(&upload, closed, notes)?;
                    }
                }
                Job::Abort(upload) => drop(upload),
            }
            self.pending.fetch_sub(done, Ordering::AcqRel);
            self.metrics.flow.jobs_done.fetch_add(done as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Adds what else is queued to `batches`, up to the sink's group. Returns how many jobs these are, and the
    /// one that does not fit. Never waits: while one group is stored, the next gathers in the queue.
    fn gather(&self, batches: &mut Vec<Batch>, jobs: &Receiver<Job>) -> (usize, Option<Job>) {
        let (mut count, mut bytes) = (1, size(batches));
        while bytes < self.shape.group as u64 {
            match jobs.try_recv() {
                Ok(Job::Store(more)) if bytes + size(&more) <= self.shape.group as u64 => {
                    bytes += size(&more);
                    batches.extend(more);
                    count += 1;
                }
                Ok(job) => return (count, Some(job)),
                Err(_) => break,
            }
        }
        (count, None)
    }

    fn store(&self, mut batches: Vec<Batch>, notes: &Sender<Note>) -> Result<()> {
        let most = if is_grouped(&self.shape) { usize::MAX } else { GROUP };
        while !batches.is_empty() {
            let rest = batches.split_off(self.ready(&batches[..batches.len().min(most)])?);
            self.store_group(batches, notes)?;
            batches = rest;
        }
        Ok(())
    }

    /// How many batches, from the first, may be stored now. Waits for the first alone: a plan may have no room for
    /// the others' ends before that one is published.
    fn ready(&self, batches: &[Batch]) -> Result<usize> {
        let Some((first, others)) = batches.split_first() else { return Ok(0) };
        if !self.waits() {
            return Ok(batches.len());
        }
        self.verdict(&first.id, first.end)?;
        let known = |batch: &&Batch| self.ledgers.verdict(&batch.id.partition, batch.end).is_some();
        Ok(1 + others.iter().take_while(known).count())
    }

    /// Whether ends must be planned before they are published.
    fn waits(&self) -> bool {
        self.plans && self.shape.commits == Commits::Engine
    }

    fn store_group(&self, mut batches: Vec<Batch>, notes: &Sender<Note>) -> Result<()> {
        if self.stop.is_aborted() {
            return Err(Error::Stopped);
        }
        for index in (0..batches.len()).rev() {
            if self.verdict(&batches[index].id, batches[index].end)? == Verdict::Drop {
                batches.remove(index);
            }
        }
        let Some(first) = batches.first() else { return Ok(()) };
        let mut receipts: Vec<Receipt> = Vec::with_capacity(batches.len());
        let result = loop {
            let before = receipts.len();
            let result = self.retry("store", &first.id, || {
                let last =
                    receipts.last().and_then(|last| batches.iter().rposition(|batch| is_of(last, batch)));
                let done = last.map_or(0, |last| last + 1);
                let begun = Instant::now();
                let stored = self.sink.store(&batches[done..], &mut receipts);
                self.metrics.latencies.publish.since(begun);
                stored
            });
            match result {
                // The tries are those of one batch: of two hundred some fail even where most requests succeed.
                Err(error) if error.is_transient() && receipts.len() > before && !self.stop.is_aborted() => {}
                result => break result,
            }
        };
        self.settle(&batches, receipts, result, notes)
    }

    /// Tells the commit thread what is durable: receipts count even if an error follows. Batches of a call that
    /// succeeded must all have one, unless their partition is lost.
    fn settle(
        &self,
        batches: &[Batch],
        receipts: Vec<Receipt>,
        result: Result<()>,
        notes: &Sender<Note>,
    ) -> Result<()> {
        let mut published = Vec::with_capacity(receipts.len());
        let (mut missing, mut receipts) = (Vec::new(), receipts.into_iter().peekable());
        for batch in batches {
            match receipts.next_if(|receipt| is_of(receipt, batch)) {
                Some(receipt) => published.push((receipt, batch.close)),
                None => missing.push(batch),
            }
        }
        let odd = receipts.next().map(|receipt| unasked(&receipt));
        let sent = self.note(notes, published);
        result?;
        sent?;
        if let Some(odd) = odd {
            return Err(odd);
        }
        missing.into_iter().try_for_each(|batch| self.missing(batch, notes))
    }

    /// A batch has no receipt although the sink has no complaint.
    fn missing(&self, batch: &Batch, notes: &Sender<Note>) -> Result<()> {
        let partition = &batch.id.partition;
        if self.shape.commits == Commits::Sink {
            // At once, so that nothing behind it is stored; the note is for the commit thread's own books.
            if self.ledgers.lose(partition) {
                self.metrics.lost(partition);
                notes.send(Note::Lost(partition.clone())).map_err(|_| Error::Stopped)?;
            }
            return Ok(());
        }
        if self.ledgers.is_lost(partition) {
            return Ok(());
        }
        let what = format!("the sink returned Ok and no receipt for batch {} of", batch.id.start);
        Err(Error::other(what, Retry::Permanent, partition.to_string()))
    }

    fn part(&self, upload: &Arc<OpenUpload>, part: &Part, notes: &Sender<Note>) -> Result<()> {
        let handle = self.open(upload)?;
        if let Err(error) = self.retry("store a part", &upload.id, || handle.part(part)) {
            return self.doubt(&upload.id, error, notes);
        }
        match upload.stored_part() {
            Some(closed) => self.publish(upload, closed, notes),
            None => Ok(()),
        }
    }

    /// The upload's handle; whoever comes first opens it.
    fn open(&self, upload: &OpenUpload) -> Result<Arc<dyn Upload>> {
        let mut handle = upload.handle.lock();
        if let Some(handle) = &*handle {
            return Ok(handle.clone());
        }
        let mut opened = None;
        self.retry("begin", &upload.id, || {
            opened = Some(Arc::from(self.sink.open(&upload.id)?));
            Ok(())
        })?;
        let opened: Arc<dyn Upload> = opened.expect("retry returned success, so the last try set it");
        *handle = Some(opened.clone());
        Ok(opened)
    }

    fn publish(&self, upload: &OpenUpload, closed: (Box<Batch>, Totals), notes: &Sender<Note>) -> Result<()> {
        let (batch, totals) = closed;
        if self.verdict(&batch.id, batch.end)? == Verdict::Drop {
            return Ok(());
        }
        let handle = self.open(upload)?;
        let mut receipt = None;
        let published = self.retry("publish", &upload.id, || {
            let begun = Instant::now();
            receipt = Some(handle.publish(&batch, &totals)?);
            self.metrics.latencies.publish.since(begun);
            Ok(())
        });
        if let Err(error) = published {
            return self.doubt(&upload.id, error, notes);
        }
        upload.progress.lock().published = true;
        self.note(notes, receipt.map(|receipt| (receipt, batch.close)).into_iter().collect())
    }

    /// If it is not known what became of a batch, its partition is read again from its mark, where that can be
    /// done: whoever reads it then looks at what is there. Any other error is passed on.
    fn doubt(&self, id: &BatchId, error: Error, notes: &Sender<Note>) -> Result<()> {
        let partition = &id.partition;
        if !matches!(error, Error::InDoubt { .. }) || !self.rereads || self.ledgers.doubts(id) > DOUBTS {
            return Err(error);
        }
        log::warn!("{error}; {partition} is read again from its last commit");
        if self.ledgers.lose(partition) {
            self.metrics.lost(partition);
            notes.send(Note::Doubted(partition.clone())).map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    /// Whether a batch may be published; blocks until that is known.
    fn verdict(&self, id: &BatchId, end: u64) -> Result<Verdict> {
        if self.waits() {
            return self.ledgers.wait_planned(&id.partition, end, self.stop);
        }
        Ok(if self.ledgers.is_lost(&id.partition) { Verdict::Drop } else { Verdict::Publish })
    }

    fn note(&self, notes: &Sender<Note>, receipts: Vec<(Receipt, Close)>) -> Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        notes.send(Note::Published(receipts)).map_err(|_| Error::Stopped)
    }

    fn retry(&self, what: &str, id: &BatchId, call: impl FnMut() -> Result<()>) -> Result<()> {
        let what = || format!("{what} batch {} of {}", id.start, id.partition);
        let patience = Patience {
            policy: self.retry,
            stop: self.stop,
            metrics: self.metrics,
            service: self.shape.service,
        };
        patience.retry(&what, call)
    }
}

/// How many bytes they have.
pub(crate) fn size(batches: &[Batch]) -> u64 {
    batches.iter().map(|batch| batch.stored.len() + batch.failed.len()).sum()
}

fn is_of(receipt: &Receipt, batch: &Batch) -> bool {
    receipt.id.start == batch.id.start && receipt.id.partition == batch.id.partition
}

fn unasked(receipt: &Receipt) -> Error {
    let what = format!("the sink returned a receipt out of order, for batch {} of", receipt.id.start);
    Error::other(what, Retry::Permanent, receipt.id.partition.to_string())
}

/// How calls of a service are tried again, and where that is counted.
pub(crate) struct Patience<'a> {
    pub policy: Policy,
    pub stop: &'a Stop,
    pub metrics: &'a Metrics,
    pub service: &'static str,
}

impl Patience<'_> {
    /// Calls until it succeeds, fails for good, or the run is aborted. Blocks between tries.
    pub fn retry(&self, what: &dyn Fn() -> String, mut call: impl FnMut() -> Result<()>) -> Result<()> {
        // Seeded by the address of a local: different for each thread, which is all the jitter needs.
        let mut delays = self.policy.delays(std::ptr::from_ref(&call) as usize as u64);
        let mut attempt = 1;
        loop {
            let Err(error) = call() else { return Ok(()) };
            let delay = match delays.next() {
                // What would be tried again is not why the run ends, whether the abort came before the wait or in it.
                Some(_) if error.is_transient() && self.stop.is_aborted() => return Err(Error::Stopped),
                Some(delay) if error.is_transient() => delay,
                _ => {
                    if error.is_cause() {
                        self.metrics.services.error(self.service, error.kind());
                    }
                    return Err(error);
                }
            };
            let delay = delay.max(error.retry_after().unwrap_or_default());
            self.metrics.retries.fetch_add(1, Ordering::Relaxed);
            self.metrics.services.retry(self.service, error.kind());
            let (what, tries, wait) =
                (what(), self.policy.max_retries.saturating_add(1), delay.as_millis() as u64);
            log::warn!(
                service = self.service, attempt, tries, wait_ms = wait;
                "cannot {what}: {error}; attempt {attempt} of {tries}, next in {wait} ms"
            );
            attempt += 1;
            self.stop.sleep(delay)?;
        }
    }
}

#[cfg(test)]
mod tests;
