//! The assembler: puts results back into order, cuts them into batches and parts, closes batches early.
//!
//! One at a time is at it: a worker or the assembler's own thread ([`Desk`]). It gives permits back when it receives
//! results, in order or not, a few at a time: a wake-up of a reader for every chunk keeps two busy threads on one CPU
//! while another is idle (a quarter of the time on two CPUs). Under pressure with nothing in flight no result would
//! come, so the thread looks at that and at a tick too. Where one lane's results stand in order, its partitions do too,
//! so order is kept by lane.
//!
//! Output of an ordered stream is held back while more is about to come ([`Assembly::hold`]): a writer that is woken
//! for each chunk takes the processor of whoever the run waits for. It goes on when there is enough, when a worker
//! leaves, and when a reader waits for bytes.

mod desk;
mod outlet;
mod refusal;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::batch::Batch;
use crate::budget::Budget;
use crate::commit::{Gone, NOTES, Note};
use crate::config::{MaxRejected, OnReject};
use crate::crew::Next;
use crate::cut::Close;
use crate::error::{Error, Result, Retry};
use crate::ledger::{Content, CutBatch};
use crate::lot::{Finished, Lot, Rest, Tools};
use crate::metrics::Metrics;
use crate::process::{Processed, SectionOut};
use crate::read::{Event, Flows, Message};
use crate::record::Partition;
use crate::sink::{Commits, Order, Shape};
use crate::source::{Cuts, Flow, Mark};
use crate::stop::Stop;
use crate::write::{Job, size};
pub(crate) use desk::Desk;
use outlet::Outgoing;
use refusal::Certainty;

/// The assembler's surroundings.
pub(crate) struct Assembly<'a> {
    pub shape: Shape,
    pub cuts: Cuts,
    pub budget: &'a Arc<Budget>,
    pub metrics: &'a Metrics,
    pub stop: &'a Stop,
    pub flows: &'a Flows,
    /// Jobs that are queued or being done.
    pub pending: &'a AtomicUsize,
    /// How long a batch of a stream stays open.
    pub batch_wait: Duration,
    /// How long results may gather.
    pub gather: Duration,
    /// So many bytes of output may be held back while a result is about to come.
    pub hold: u64,
    pub on_reject: OnReject,
    pub max_rejected: Option<MaxRejected>,
    pub rejected_before: u64,
    /// How many partitions with planned ends may be fetched at a time.
    pub slots: usize,
    /// What went wrong with one partition while the run went on.
    pub faults: &'a Mutex<Vec<Error>>,
}

/// So long bytes may be held while nothing is in flight, before a reader goes on without them.
const KEPT: Duration = Duration::from_secs(1);

/// Results gather behind that of a chunk of so many bytes: small ones come faster, and readers would run out of
/// permits. And batches of fewer bytes are small: they may share a job.
const MUCH: u64 = 128 << 10;

/// So many small batches make a job, and more do not wait for each other: writers work side by side.
const GATHERED: usize = 32;

/// The channels of the assembler. Dropping them is what ends writers and the commit thread.
pub(crate) struct Ports {
    pub results: Receiver<Message>,
    pub permits: Sender<()>,
    pub jobs: Sender<Job>,
    pub notes: Sender<Note>,
    /// Ends a nap of the commit thread, which takes none when this is gone.
    pub rouse: Sender<()>,
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All readers are done.
    Complete,
    /// Readers were stopped before their end.
    Cut,
}

pub(crate) struct Assembler<'a> {
    at: &'a Assembly<'a>,
    tools: Tools,
    ports: Ports,
    lanes: Vec<LaneOrder>,
    lots: HashMap<Partition, Lot>,
    /// Partitions that were lost or revoked: what still arrives of them is dropped.
    gone: Gone,
    /// Partitions with planned ends that wait for a slot, with their lane.
    waiting: VecDeque<(usize, Partition)>,
    slots: usize,
    open_lanes: usize,
    seen: (u64, u64),
    closed: bool,
    /// Permits of results that have come, not given back yet.
    owed: usize,
    /// Batches that are still to be queued, as one job: small ones while there are more events in the same message, and
    /// those of a stream while more is about to come.
    gathered: Vec<Batch>,
    /// So many bytes of them may stand together.
    most: u64,
    /// Since when somebody has kept bytes that a reader waits for, and whether that was said.
    kept: Option<Instant>,
    told: bool,
    /// Whether it may wait for a place in a channel: workers may not. What found none, in order.
    may_wait: bool,
    left: VecDeque<Outgoing>,
    /// What went wrong while a worker was at it.
    failed: Option<Error>,
}

/// Restores the order of one lane.
#[derive(Default)]
struct LaneOrder {
    next: u64,
    early: BTreeMap<u64, Vec<Event>>,
}

impl LaneOrder {
    /// Keeps events; yields them, and those they were missing for, in order by [`LaneOrder::next`].
    fn put(&mut self, seq: u64, events: Vec<Event>) {
        self.early.insert(seq, events);
    }

    fn next(&mut self) -> Option<Vec<Event>> {
        let events = self.early.remove(&self.next)?;
        self.next += 1;
        Some(events)
    }
}

impl<'a> Assembler<'a> {
    pub fn new(at: &'a Assembly<'a>, tools: Tools, ports: Ports, lanes: usize) -> Self {
        Assembler {
            at,
            tools,
            ports,
            lanes: (0..lanes).map(|_| LaneOrder::default()).collect(),
            lots: HashMap::new(),
            gone: Gone::default(),
            waiting: VecDeque::new(),
            slots: at.slots.max(1),
            open_lanes: lanes,
            seen: (0, 0),
            closed: false,
            owed: 0,
            gathered: Vec::new(),
            most: 0,
            kept: None,
            told: false,
            may_wait: true,
            left: VecDeque::new(),
            failed: None,
        }
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        self.give_back();
        self.at.metrics.flow.chunks_assembled.fetch_add(message.chunks() as u64, Ordering::Relaxed);
        self.lanes[message.lane].put(message.seq, message.events);
        let group = self.at.shape.group as u64;
        let holds = message.next == Next::Soon && !self.may_wait;
        let hold = if holds { group.min(self.at.hold) } else { 0 };
        while let Some(events) = self.lanes[message.lane].next() {
            self.most = if events.len() > 1 { group.min(MUCH).max(hold) } else { hold };
            for event in events {
                self.event(message.lane, event)?;
            }
            self.most = 0;
            if size(&self.gathered) >= hold {
                self.queue_gathered()?;
            }
        }
        self.at.metrics.flow.open_batches.store(self.lots.len() as u64, Ordering::Relaxed);
        self.kept = None;
        // This was the last that might have freed something.
        if self.is_idle() && self.at.budget.waiting() > 0 { self.relieve() } else { Ok(()) }
    }

    /// Whether there are results to come.
    fn is_any_under_way(&self) -> bool {
        self.owed + self.ports.permits.len() < self.ports.permits.capacity().unwrap_or(0)
    }

    /// Whether nothing is between readers and here, nor between here and the sink.
    fn is_idle(&self) -> bool {
        self.ports.permits.is_full() && self.at.pending.load(Ordering::Acquire) == 0
    }

    /// Gives permits back by a third of all, or when no other is in use: a reader never waits for a permit that
    /// no result will bring.
    fn give_back(&mut self) {
        let free = &self.ports.permits;
        let all = free.capacity().unwrap_or(0);
        self.owed += 1;
        if self.owed >= all / 3 || self.owed + free.len() >= all {
            // There is a place for every permit, so this never blocks; readers that are gone do not matter.
            while self.owed > 0 {
                let _ = free.try_send(());
                self.owed -= 1;
            }
        }
    }

    pub(crate) fn event(&mut self, lane: usize, event: Event) -> Result<()> {
        match event {
            Event::Chunk(processed) => self.chunk(processed?),
            Event::Assigned(partition, mark) => self.assigned(lane, partition, mark),
            Event::Revoked(partition) => self.give_up(&partition, Note::Revoked),
            Event::Lost(partition) => self.give_up(&partition, Note::Lost),
            // Behind a refusal chunks are dropped, so nothing has come to its end.
            Event::Ended(_) if self.closed => Ok(()),
            Event::Ended(partition) => {
                self.close_last(&partition)?;
                self.note(Note::Ended(partition))
            }
            Event::Failed(partition, error) => {
                self.at.faults.lock().push(error);
                match self.lots.get(&partition).is_some_and(Lot::is_planned) {
                    // It must end where it is planned, and nowhere else: the next run does it.
                    true => self.drop_lot(&partition),
                    false => self.close_last(&partition),
                }
            }
            Event::Done => {
                self.open_lanes -= 1;
                Ok(())
            }
        }
    }

    fn assigned(&mut self, lane: usize, partition: Partition, mark: Option<Mark>) -> Result<()> {
        let start = mark.as_ref().map_or(0, |mark| mark.watermark);
        let lot = Lot::new(&partition, start, mark.iter().flat_map(|mark| mark.plan.iter().cloned()));
        if lot.is_planned() {
            self.take_slot(lane, &partition);
        }
        self.lots.insert(partition.clone(), lot);
        self.note(Note::Assigned(partition, start, mark))
    }

    fn take_slot(&mut self, lane: usize, partition: &Partition) {
        if self.slots > 0 {
            self.slots -= 1;
        } else {
            self.at.flows[lane].lock().push((partition.clone(), Flow::Pause));
            self.waiting.push_back((lane, partition.clone()));
        }
    }

    /// A partition has passed its planned ends, or is gone: the next may be fetched.
    fn free_slot(&mut self) {
        match self.waiting.pop_front() {
            Some((lane, partition)) => self.at.flows[lane].lock().push((partition, Flow::Run)),
            None => self.slots += 1,
        }
    }

    /// A partition that had a slot needs it no more, or one that waited for it: what had come of it already was enough,
    /// and what follows may be fetched.
    fn leave_slot(&mut self, partition: &Partition) {
        match self.waiting.iter().position(|(_, other)| other == partition) {
            Some(at) => {
                let Some((lane, partition)) = self.waiting.remove(at) else { return };
                self.at.flows[lane].lock().push((partition, Flow::Run));
            }
            None => self.free_slot(),
        }
    }

    fn chunk(&mut self, mut processed: Processed) -> Result<()> {
        if let Some(errand) = processed.errand.take() {
            // Known by now: all chunks before it have come.
            match errand.lines() {
                Some((_, line)) => processed.sections.iter_mut().for_each(|section| section.cut.line = line),
                // It is missing, or what stands before it. The reader knows.
                None => return Ok(()),
            }
        }
        let read: u64 = processed.sections.iter().map(|section| section.counts.read).sum();
        self.at.metrics.seen.fetch_add(read, Ordering::Relaxed);
        let partition = processed.partition.clone();
        if self.closed || self.gone.contains(&partition) {
            return Ok(());
        }
        self.at.metrics.rejected(&processed.samples);
        if let Some(error) = self.refusal(&processed) {
            return self.refuse(error);
        }
        let mut lot = match self.lots.remove(&partition) {
            Some(lot) => lot,
            None => {
                self.note(Note::Assigned(partition.clone(), processed.start, None))?;
                Lot::new(&partition, processed.start, [])
            }
        };
        if let Some(first) = processed.first.filter(|first| *first < lot.end()) {
            let what = format!(
                "{partition} came to {} and then had a record at {first}; one reader reads a partition, and its \
                 positions only grow",
                lot.end()
            );
            return Err(Error::other(what, Retry::Permanent, "records would be lost"));
        }
        let mut out = Closed::default();
        let (end, resume) = (processed.end, processed.resume);
        lot.enter(processed.within);
        for section in processed.sections {
            self.section(&mut lot, section, &mut out)?;
        }
        lot.advance(end, resume);
        if self.at.shape.order != Order::Any {
            self.close(&mut lot, Close::Chunk, &mut out)?;
        }
        self.lots.insert(partition, lot);
        self.flush(out)
    }

    fn section(&mut self, lot: &mut Lot, section: SectionOut, out: &mut Closed) -> Result<()> {
        let cut = section.cut;
        lot.add(section, &mut self.tools);
        if cut.close != Close::Open {
            return self.close(lot, cut.close, out);
        }
        self.parts(lot)
    }

    /// Queues what an open batch has beyond a part.
    fn parts(&mut self, lot: &mut Lot) -> Result<()> {
        while let Some(part) = lot.part(&self.tools) {
            let upload = lot.upload();
            upload.expect_part();
            self.job(Job::Part(upload, part))?;
        }
        Ok(())
    }

    /// Closes the open batch of `lot`; the next starts where it ends.
    fn close(&mut self, lot: &mut Lot, reason: Close, out: &mut Closed) -> Result<()> {
        if lot.is_void() {
            return Ok(());
        }
        self.parts(lot)?;
        let was_planned = lot.is_planned();
        let Finished { batch, upload } = lot.close(reason, &mut self.tools);
        if was_planned && !lot.is_planned() {
            self.leave_slot(&batch.id.partition);
        }
        // A sink that commits must be told of ends behind which there is nothing.
        let told = batch.counts.read > 0 || self.at.shape.commits == Commits::Sink;
        let content = if told { Content::Records } else { Content::Empty };
        out.cuts.push(CutBatch {
            start: batch.id.start,
            end: batch.end,
            line: batch.line,
            resume: batch.resume.clone(),
            first_time: batch.id.first_time,
            opened_at: batch.id.opened_at,
            content,
        });
        out.partition = Some(batch.id.partition.clone());
        match upload {
            Some(rest) => self.close_upload(rest, batch, out),
            None if content == Content::Records => {
                out.batches.push(batch);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Queues the last parts of an upload and its end. The ledger must know of the batch before its receipt.
    fn close_upload(&mut self, rest: Rest, batch: Batch, out: &mut Closed) -> Result<()> {
        self.flush(std::mem::take(out))?;
        for part in rest.parts {
            rest.upload.expect_part();
            self.job(Job::Part(rest.upload.clone(), part))?;
        }
        self.job(Job::Close(rest.upload, Box::new(batch), rest.totals))
    }

    fn flush(&mut self, out: Closed) -> Result<()> {
        let Some(partition) = out.partition else { return Ok(()) };
        self.note(Note::Cut(partition, out.cuts))?;
        if self.at.shape.singly && self.at.shape.order == Order::Any {
            return out.batches.into_iter().try_for_each(|batch| self.job(Job::Store(vec![batch])));
        }
        if out.batches.is_empty() {
            return Ok(());
        }
        // Batches of no bytes, too: where none is asked for the sink may not look for several partitions.
        if self.most == 0 || size(&out.batches) > self.most {
            return self.job(Job::Store(out.batches));
        }
        let count = self.gathered.len() + out.batches.len();
        if count > GATHERED || size(&self.gathered) + size(&out.batches) > self.most {
            self.queue_gathered()?;
        }
        self.gathered.extend(out.batches);
        Ok(())
    }

    fn queue_gathered(&mut self) -> Result<()> {
        match std::mem::take(&mut self.gathered) {
            none if none.is_empty() => Ok(()),
            batches => self.queue(Job::Store(batches)),
        }
    }

    /// Closes what is open of a partition that is at its end.
    fn close_last(&mut self, partition: &Partition) -> Result<()> {
        let Some(mut lot) = self.lots.remove(partition) else { return Ok(()) };
        let mut out = Closed::default();
        self.close(&mut lot, Close::End, &mut out)?;
        self.flush(out)?;
        if lot.is_planned() {
            self.leave_slot(partition);
        }
        Ok(())
    }

    /// Drops what is open of a partition that goes elsewhere.
    fn give_up(&mut self, partition: &Partition, note: fn(Partition) -> Note) -> Result<()> {
        self.drop_lot(partition)?;
        self.gone.put(partition);
        self.note(note(partition.clone()))
    }

    fn drop_lot(&mut self, partition: &Partition) -> Result<()> {
        let Some(mut lot) = self.lots.remove(partition) else { return Ok(()) };
        if lot.is_planned() {
            self.leave_slot(partition);
        }
        match lot.take_upload() {
            Some(upload) => self.job(Job::Abort(upload)),
            None => Ok(()),
        }
    }

    /// Closes batches that were open for long enough.
    fn close_aged(&mut self) -> Result<()> {
        let wait = self.at.batch_wait;
        let aged = |lot: &Lot| !lot.is_planned() && lot.age().is_some_and(|age| age >= wait);
        let aged: Vec<Partition> =
            self.lots.iter().filter(|(_, lot)| aged(lot)).map(|(p, _)| p.clone()).collect();
        aged.iter().try_for_each(|partition| self.close_early(partition, Close::Wait))
    }

    #[cfg(all(test, feature = "kafka", feature = "s3"))]
    pub(crate) fn may_close(&self, partition: &Partition) -> bool {
        self.lots.get(partition).is_some_and(|lot| !lot.is_planned())
    }

    pub(crate) fn close_early(&mut self, partition: &Partition, reason: Close) -> Result<()> {
        let Some(mut lot) = self.lots.remove(partition) else { return Ok(()) };
        let mut out = Closed::default();
        self.close(&mut lot, reason, &mut out)?;
        self.lots.insert(partition.clone(), lot);
        self.flush(out)
    }

    /// A reader waits for bytes. If little is in flight that would free some, closes the largest open batch that
    /// may be closed; if none may and nothing is in flight, lets the reader overdraw.
    fn relieve(&mut self) -> Result<()> {
        self.queue_gathered()?;
        let budget = self.at.budget;
        let idle = self.is_idle();
        let held: usize = self.lots.values().map(Lot::held).sum();
        let elsewhere = budget.used().saturating_sub(held);
        let is_much = elsewhere > budget.limit() / 4;
        if budget.waiting() == 0 || (is_much && !self.is_kept(idle)) {
            return Ok(());
        }
        if self.at.cuts == Cuts::Early {
            let free = self.lots.iter().filter(|(_, lot)| !lot.is_planned() && lot.held() > 0);
            let largest = free.max_by_key(|(_, lot)| lot.held()).map(|(partition, _)| partition.clone());
            if let Some(partition) = largest {
                return self.close_early(&partition, Close::Pressure);
            }
        }
        if !idle {
            return Ok(());
        }
        if is_much && !self.told {
            self.told = true;
            log::warn!(
                "nothing is in flight, and {elsewhere} bytes are not given back: the sink keeps batches, or a reader a \
                 large record; going on beyond memory_limit"
            );
        }
        log::debug!(
            "{held} bytes stand in open batches that may not be closed; going on beyond memory_limit"
        );
        budget.overdraw();
        Ok(())
    }

    /// Whether much is held although nothing has been in flight for a while: somebody keeps it.
    fn is_kept(&mut self, idle: bool) -> bool {
        if !idle {
            self.kept = None;
            return false;
        }
        // Who has waited once need not find it out again.
        let wait = if self.told { KEPT / 10 } else { KEPT };
        self.kept.get_or_insert_with(Instant::now).elapsed() >= wait
    }

    /// All readers are gone: closes open batches of streams and gives their partitions up, drops those of files that
    /// are not at their end.
    pub(crate) fn end(mut self) -> Result<Reading> {
        self.catch_up()?;
        self.queue_gathered()?;
        if self.at.stop.is_aborted() {
            return Err(Error::Stopped);
        }
        let complete = self.open_lanes == 0 && !self.closed;
        let reason = if complete { Close::End } else { Close::Drain };
        let early = complete || self.at.cuts == Cuts::Early;
        // A batch with planned ends ahead must end there and nowhere else: the next run does it. Behind a refusal
        // nothing is open.
        let closable =
            self.lots.iter().filter(|(of, lot)| !lot.is_planned() && (early || of.identity().once));
        let closable: Vec<Partition> = closable.map(|(partition, _)| partition.clone()).collect();
        closable.iter().try_for_each(|partition| self.close_early(partition, reason))?;
        if !complete && self.at.cuts == Cuts::Early {
            // Nobody reads them any more: whoever wants them has them as soon as what is cut is committed.
            let all: Vec<Partition> = self.lots.keys().cloned().collect();
            all.iter().try_for_each(|partition| self.give_up(partition, Note::Revoked))?;
        }
        if complete && let Some(error) = self.too_many(Certainty::Final) {
            self.at.faults.lock().push(error);
        }
        Ok(if complete { Reading::Complete } else { Reading::Cut })
    }

    /// Queues a job behind all that was gathered.
    fn job(&mut self, job: Job) -> Result<()> {
        self.queue_gathered()?;
        self.queue(job)
    }

    fn queue(&mut self, job: Job) -> Result<()> {
        self.at.pending.fetch_add(1, Ordering::AcqRel);
        self.at.metrics.flow.jobs_queued.fetch_add(1, Ordering::Relaxed);
        self.send(Outgoing::Job(job))
    }

    fn note(&mut self, note: Note) -> Result<()> {
        if self.ports.notes.len() >= NOTES / 2 {
            // If it is full the commit thread has yet to look.
            let _ = self.ports.rouse.try_send(());
        }
        self.send(Outgoing::Note(note))
    }
}

/// Batches closed while one chunk was taken.
#[derive(Default)]
struct Closed {
    partition: Option<Partition>,
    cuts: Vec<CutBatch>,
    batches: Vec<Batch>,
}

#[cfg(test)]
mod tests;
