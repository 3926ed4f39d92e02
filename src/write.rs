//! The writers: blocking threads that take jobs from one queue in the assembler's order and retry in place.
//!
//! A writer waits only for jobs that came earlier, for its own retries, and for ends that are being planned; it
//! never waits for bytes. Whoever stores the last part of an upload publishes it. What was begun and not
//! published is aborted when the upload is dropped, whatever the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::batch::{Batch, BatchId, Receipt};
use crate::commit::{Ledgers, Note, Verdict};
use crate::cut::Close;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::retry::Policy;
use crate::sink::{Part, Sink, Totals, Upload};
use crate::stop::Stop;

/// Batches a call of [`Sink::store`]: an abort is seen between calls, and two hundred files are synced in less
/// than a second.
const GROUP: usize = 256;

/// Work for a writer.
pub(crate) enum Job {
    /// Whole batches of one partition, in order.
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
            upload.abort();
        }
    }
}

/// What writers share.
pub(crate) struct Writers<'a> {
    pub sink: &'a dyn Sink,
    pub stop: &'a Stop,
    pub retry: Policy,
    pub metrics: &'a Metrics,
    /// Where planned ends are looked up; `None` where nothing is planned.
    pub planned: Option<&'a Ledgers>,
    /// Jobs that are queued or being done.
    pub pending: &'a AtomicUsize,
}

impl Writers<'_> {
    /// One writer: takes jobs until there are no more. Blocks.
    ///
    /// # Errors
    /// The first failure that is permanent or outlasts its retries.
    pub fn run(&self, jobs: &Receiver<Job>, notes: &Sender<Note>) -> Result<()> {
        for job in jobs {
            if self.stop.is_aborted() {
                return Err(Error::Stopped);
            }
            match job {
                Job::Store(batches) => self.store(&batches, notes)?,
                Job::Part(upload, part) => self.part(&upload, &part, notes)?,
                Job::Close(upload, batch, totals) => {
                    if let Some(closed) = upload.close(batch, totals) {
                        self.publish(&upload, closed, notes)?;
                    }
                }
                Job::Abort(upload) => drop(upload),
            }
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn store(&self, batches: &[Batch], notes: &Sender<Note>) -> Result<()> {
        batches.chunks(GROUP).try_for_each(|group| self.store_group(group, notes))
    }

    fn store_group(&self, batches: &[Batch], notes: &Sender<Note>) -> Result<()> {
        if self.stop.is_aborted() {
            return Err(Error::Stopped);
        }
        for batch in batches {
            if self.wait_planned(&batch.id, batch.end)? == Verdict::Drop {
                return Ok(());
            }
        }
        let mut receipts = Vec::with_capacity(batches.len());
        let result = self.retry("store", &batches[0].id, || {
            let done = receipts.len();
            self.sink.store(&batches[done..], &mut receipts)
        });
        // Durable is durable: receipts count even if an error follows.
        let closes = batches.iter().map(|batch| batch.close);
        let sent = self.note(notes, receipts.into_iter().zip(closes).collect());
        result.and(sent)
    }

    fn part(&self, upload: &Arc<OpenUpload>, part: &Part, notes: &Sender<Note>) -> Result<()> {
        let handle = self.open(upload)?;
        self.retry("store a part", &upload.id, || handle.part(part))?;
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
        if self.wait_planned(&batch.id, batch.end)? == Verdict::Drop {
            return Ok(());
        }
        let handle = self.open(upload)?;
        let mut receipt = None;
        self.retry("publish", &upload.id, || {
            receipt = Some(handle.publish(&batch, &totals)?);
            Ok(())
        })?;
        upload.progress.lock().published = true;
        self.note(notes, receipt.map(|receipt| (receipt, batch.close)).into_iter().collect())
    }

    fn wait_planned(&self, id: &BatchId, end: u64) -> Result<Verdict> {
        self.planned
            .map_or(Ok(Verdict::Publish), |ledgers| ledgers.wait_planned(&id.partition, end, self.stop))
    }

    fn note(&self, notes: &Sender<Note>, receipts: Vec<(Receipt, Close)>) -> Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        notes.send(Note::Published(receipts)).map_err(|_| Error::Stopped)
    }

    fn retry(&self, what: &str, id: &BatchId, call: impl FnMut() -> Result<()>) -> Result<()> {
        let what = || format!("{what} batch {} of {}", id.start, id.partition);
        retry(self.retry, self.stop, self.metrics, &what, call)
    }
}

/// Calls until it succeeds, fails for good, or the run is aborted. Blocks between tries.
pub(crate) fn retry(
    policy: Policy,
    stop: &Stop,
    metrics: &Metrics,
    what: &dyn Fn() -> String,
    mut call: impl FnMut() -> Result<()>,
) -> Result<()> {
    // Seeded by the address of a local: different for each thread, which is all the jitter needs.
    let mut delays = policy.delays(std::ptr::from_ref(&call) as usize as u64);
    let mut attempt = 1;
    loop {
        let error = match call() {
            Err(error) if error.is_transient() && !stop.is_aborted() => error,
            result => return result,
        };
        let Some(delay) = delays.next() else { return Err(error) };
        metrics.retries.fetch_add(1, Ordering::Relaxed);
        let (what, wait) = (what(), delay.as_millis());
        log::warn!(
            "cannot {what}: {error}; attempt {attempt} of {}, next in {wait} ms",
            policy.max_retries + 1
        );
        attempt += 1;
        stop.sleep(delay)?;
    }
}
