//! The assembler: puts results back into order, cuts them into batches and parts, closes batches early.
//!
//! One thread. It gives permits back when it receives results, in order or not, a few at a time: a wake-up of a
//! reader for every chunk keeps two busy threads on one CPU while another is idle (a quarter of the time on two
//! CPUs). While more is under way it lets results gather for a moment: to be woken for each of them takes workers
//! off their CPUs (two workers on two took 1.06x of the time). It selects over results, pressure and a tick: under
//! pressure with nothing in flight no result would arrive to wake it. Where one lane's results stand in order, its
//! partitions do too, so order is kept by lane.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select, tick};
use parking_lot::Mutex;

use crate::batch::Batch;
use crate::budget::Budget;
use crate::commit::{Gone, Note};
use crate::config::{MaxRejected, OnReject};
use crate::cut::Close;
use crate::error::{Error, Intolerance, Result, Retry};
use crate::ledger::{Content, CutBatch};
use crate::lot::{Finished, Lot, Rest, Tools};
use crate::metrics::Metrics;
use crate::process::{Processed, SectionOut};
use crate::read::{Event, Flows, Message};
use crate::record::Partition;
use crate::sink::{Commits, DeadLetters, Order, Shape};
use crate::source::{Cuts, Flow, Mark};
use crate::stop::Stop;
use crate::write::Job;

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
/// permits.
const MUCH: u64 = 128 << 10;

/// The channels of the assembler. Dropping them is what ends writers and the commit thread.
pub(crate) struct Ports {
    pub results: Receiver<Message>,
    pub permits: Sender<()>,
    pub jobs: Sender<Job>,
    pub notes: Sender<Note>,
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
    /// Since when somebody has kept bytes that a reader waits for, and whether that was said.
    kept: Option<Instant>,
    told: bool,
}

/// Restores the order of one lane.
#[derive(Default)]
struct LaneOrder {
    next: u64,
    early: BTreeMap<u64, Event>,
}

impl LaneOrder {
    /// Keeps an event; yields it, and those it was missing for, in order by [`LaneOrder::next`].
    fn put(&mut self, seq: u64, event: Event) {
        self.early.insert(seq, event);
    }

    fn next(&mut self) -> Option<Event> {
        let event = self.early.remove(&self.next)?;
        self.next += 1;
        Some(event)
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
            kept: None,
            told: false,
        }
    }

    /// Assembles until all readers are gone. Blocks.
    ///
    /// # Errors
    /// A panic of a transform; [`Error::Stopped`] if writers or the commit thread are gone.
    pub fn run(mut self) -> Result<Reading> {
        let early = self.at.cuts == Cuts::Early && self.at.shape.order == Order::Any;
        let wait = (self.at.batch_wait / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let ticks = if early { tick(wait) } else { never() };
        let results = self.ports.results.clone();
        loop {
            select! {
                recv(results) -> message => match message {
                    Ok(message) => {
                        let much = message.bytes() >= MUCH;
                        self.receive(message)?;
                        if much && results.is_empty() && self.is_any_under_way() {
                            std::thread::sleep(self.at.gather);
                        }
                    }
                    Err(_) => break,
                },
                recv(self.at.budget.pressure()) -> _ => self.relieve()?,
                recv(ticks) -> _ => self.close_aged()?,
            }
        }
        self.end()
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        self.give_back();
        if matches!(message.event, Event::Chunk(_)) {
            self.at.metrics.flow.chunks_assembled.fetch_add(1, Ordering::Relaxed);
        }
        self.lanes[message.lane].put(message.seq, message.event);
        while let Some(event) = self.lanes[message.lane].next() {
            self.event(message.lane, event)?;
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

    fn chunk(&mut self, processed: Processed) -> Result<()> {
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
        if out.batches.is_empty() { Ok(()) } else { self.job(Job::Store(out.batches)) }
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

    /// Why the run may not go on past this chunk, if so.
    fn refusal(&mut self, processed: &Processed) -> Option<Error> {
        let rejected: u64 = processed.sections.iter().map(|section| section.counts.rejected).sum();
        let read: u64 = processed.sections.iter().map(|section| section.counts.read).sum();
        self.seen = (self.seen.0 + read, self.seen.1 + rejected);
        let refuse =
            self.at.shape.dead_letters == DeadLetters::Refuse && self.at.on_reject == OnReject::DeadLetter;
        if rejected > 0 && (refuse || self.at.on_reject == OnReject::Fail) {
            let sample = processed.samples.first();
            let what =
                sample.map_or_else(String::new, |sample| format!("{}: {}", sample.place, sample.reason));
            let because = match self.at.on_reject {
                OnReject::Fail => Intolerance::Configured,
                OnReject::DeadLetter | OnReject::Drop => Intolerance::NoPlace,
            };
            return Some(Error::Rejected { what, because });
        }
        self.too_many(Certainty::SoFar)
    }

    fn too_many(&self, certainty: Certainty) -> Option<Error> {
        let (read, rejected) = self.seen;
        let (over, before, limit) = match self.at.max_rejected? {
            MaxRejected::Count(count) => {
                let before = self.at.rejected_before;
                (rejected + before > count, before, count.to_string())
            }
            MaxRejected::Percent(percent) => {
                let enough = read >= ENOUGH || certainty == Certainty::Final;
                let over = enough && rejected as f64 * 100.0 > percent * read as f64;
                (over, 0, format!("{percent}%"))
            }
        };
        over.then_some(Error::TooManyRejected { rejected, read, before, limit })
    }

    /// Ends the run in order: what came before is stored, nothing behind it is.
    fn refuse(&mut self, error: Error) -> Result<()> {
        self.at.faults.lock().push(error);
        self.closed = true;
        for (_, mut lot) in self.lots.drain() {
            drop(lot.take_upload());
        }
        self.at.stop.drain();
        Ok(())
    }

    /// All readers are gone: closes open batches of streams and gives their partitions up, drops those of files that
    /// are not at their end.
    pub(crate) fn end(mut self) -> Result<Reading> {
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

    fn job(&self, job: Job) -> Result<()> {
        let _waiting = self.at.metrics.writer_waits.begin();
        self.at.pending.fetch_add(1, Ordering::AcqRel);
        self.ports.jobs.send(job).map_err(|_| Error::Stopped)?;
        self.at.metrics.flow.jobs_queued.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn note(&self, note: Note) -> Result<()> {
        self.ports.notes.send(note).map_err(|_| Error::Stopped)
    }
}

/// Batches closed while one chunk was taken.
#[derive(Default)]
struct Closed {
    partition: Option<Partition>,
    cuts: Vec<CutBatch>,
    batches: Vec<Batch>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Certainty {
    SoFar,
    Final,
}

/// A share of a hundred means nothing before there were some records.
const ENOUGH: u64 = 1000;

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::batch::{Counts, Piece};
    use crate::budget::Recycler;
    use crate::codec::{Codec, Encoder};
    use crate::process::{Block, Wait};
    use crate::record::{Cut, Identity};
    use crate::sink::Framing;
    use crate::source::Planned;
    use crate::transform::Sample;

    const HOUR: Duration = Duration::from_secs(3600);
    const PERMITS: usize = 6;
    const LIMIT: usize = 1000;

    /// What an assembler shares with others.
    struct Scene {
        budget: Arc<Budget>,
        metrics: Metrics,
        stop: Stop,
        flows: Flows,
        pending: AtomicUsize,
        faults: Mutex<Vec<Error>>,
    }

    /// The other ends of its channels.
    struct Ends {
        permits: Receiver<()>,
        jobs: Receiver<Job>,
        notes: Receiver<Note>,
    }

    impl Scene {
        fn new() -> Self {
            Scene {
                budget: Budget::new(LIMIT),
                metrics: Metrics::default(),
                stop: Stop::new(),
                flows: vec![Mutex::default()],
                pending: AtomicUsize::new(0),
                faults: Mutex::default(),
            }
        }

        fn assembly(&self) -> Assembly<'_> {
            Assembly {
                shape: Shape { order: Order::Any, ..Shape::default() },
                cuts: Cuts::Early,
                budget: &self.budget,
                metrics: &self.metrics,
                stop: &self.stop,
                flows: &self.flows,
                pending: &self.pending,
                batch_wait: HOUR,
                gather: Duration::ZERO,
                on_reject: OnReject::DeadLetter,
                max_rejected: None,
                rejected_before: 0,
                slots: 1,
                faults: &self.faults,
            }
        }

        /// Partitions that were paused, or go on.
        fn flows(&self) -> Vec<(String, Flow)> {
            self.flows[0].lock().drain(..).map(|(of, flow)| (of.name().to_owned(), flow)).collect()
        }
    }

    /// An assembler of one lane, with all permits free.
    fn assembler<'a>(at: &'a Assembly<'a>) -> (Assembler<'a>, Ends) {
        let (free, permits) = bounded(PERMITS);
        let ((jobs, todo), (notes, noted)) = (bounded(100), bounded(100));
        for _ in 0..PERMITS {
            free.send(()).unwrap();
        }
        let tools = Tools {
            codecs: [Codec::None; 2],
            framing: Framing::Stream,
            part: None,
            even_parts: [false; 2],
            budget: at.budget.clone(),
            checksums: false,
            buffers: Recycler::new(0, 0),
            encoder: Encoder::new(Codec::None),
        };
        let ports = Ports { results: never(), permits: free, jobs, notes };
        (Assembler::new(at, tools, ports, 1), Ends { permits, jobs: todo, notes: noted })
    }

    impl Ends {
        /// Name, end and reason of the batches that go to the sink.
        fn batches(&self) -> Vec<(String, u64, Close)> {
            let stored = self.jobs.try_iter().flat_map(|job| match job {
                Job::Store(batches) => batches,
                _ => Vec::new(),
            });
            stored.map(|batch| (batch.id.partition.name().to_owned(), batch.end, batch.close)).collect()
        }
    }

    fn of(name: &str) -> Partition {
        Partition::named("test", name)
    }

    /// A chunk of one open section, of which some records are rejected; a byte of output for each position.
    fn chunk(name: &str, from: u64, to: u64, rejected: u64) -> Event {
        section(name, from, to, rejected, Close::Open)
    }

    fn section(name: &str, from: u64, to: u64, rejected: u64, close: Close) -> Event {
        let section = SectionOut {
            cut: Cut { entry: 0, end: to, line: 0, close, opened_at: 0 },
            opened_at: 0,
            first_time: None,
            counts: Counts { read: to - from, rejected, ..Counts::default() },
            wait: Wait::Size,
            stored: Some(Block::Encoded(Piece::owned(vec![b'x'; (to - from) as usize]))),
            failed: None,
        };
        Event::Chunk(Ok(Processed {
            partition: of(name),
            start: from,
            first: Some(from),
            end: to,
            sections: vec![section],
            resume: None,
            within: Vec::new(),
            samples: vec![Sample { place: name.into(), reason: "scripted".into() }],
        }))
    }

    fn planned(name: &str, ends: &[u64]) -> Event {
        let mark = Mark {
            partition: of(name),
            watermark: 0,
            line: 0,
            resume: None,
            plan: ends.iter().map(|end| Planned { end: *end, first_time: 0, opened_at: 0 }).collect(),
            rejected: 0,
            ended: false,
            fresh: false,
        };
        Event::Assigned(of(name), Some(mark))
    }

    #[test]
    fn a_slot_goes_to_the_next_when_its_partition_needs_it_no_more() {
        let ways: [fn() -> Event; 4] = [
            || section("a", 0, 20, 0, Close::Planned),
            || Event::Lost(of("a")),
            || Event::Revoked(of("a")),
            || Event::Ended(of("a")),
        ];
        for (way, leaves) in ways.iter().enumerate() {
            let scene = Scene::new();
            let assembly = scene.assembly();
            let (mut assembler, _ends) = assembler(&assembly);
            for event in [planned("a", &[20]), planned("b", &[20])] {
                assembler.event(0, event).unwrap();
            }
            assert_eq!(scene.flows(), [("b".to_owned(), Flow::Pause)]);
            assembler.event(0, leaves()).unwrap();
            assert_eq!(scene.flows(), [("b".to_owned(), Flow::Run)], "way {way}");
        }
    }

    #[test]
    fn a_slot_is_kept_until_all_planned_ends_are_passed() {
        let scene = Scene::new();
        let assembly = scene.assembly();
        let (mut assembler, _ends) = assembler(&assembly);
        for event in [planned("a", &[20, 30]), planned("b", &[20])] {
            assembler.event(0, event).unwrap();
        }
        scene.flows();
        assembler.event(0, section("a", 0, 20, 0, Close::Planned)).unwrap();
        assert_eq!(scene.flows(), []);
        assembler.event(0, section("a", 20, 30, 0, Close::Planned)).unwrap();
        assert_eq!(scene.flows(), [("b".to_owned(), Flow::Run)]);
    }

    #[test]
    fn whoever_goes_while_it_waits_for_a_slot_is_given_none() {
        let scene = Scene::new();
        let assembly = scene.assembly();
        let (mut assembler, _ends) = assembler(&assembly);
        for event in [planned("a", &[20]), planned("b", &[20]), Event::Lost(of("b")), planned("c", &[20])] {
            assembler.event(0, event).unwrap();
        }
        let named = |flows: &[(&str, Flow)]| -> Vec<(String, Flow)> {
            flows.iter().map(|(name, flow)| ((*name).to_owned(), *flow)).collect()
        };
        assert_eq!(scene.flows(), named(&[("b", Flow::Pause), ("b", Flow::Run), ("c", Flow::Pause)]));
        assembler.event(0, Event::Lost(of("a"))).unwrap();
        assert_eq!(scene.flows(), named(&[("c", Flow::Run)]));
        // Others wait longer.
        for event in [planned("d", &[20]), planned("e", &[20]), Event::Lost(of("e"))] {
            assembler.event(0, event).unwrap();
        }
        assert_eq!(scene.flows(), named(&[("d", Flow::Pause), ("e", Flow::Pause), ("e", Flow::Run)]));
        assembler.event(0, Event::Lost(of("d"))).unwrap();
        assert_eq!(scene.flows(), named(&[("d", Flow::Run)]));
        // Nobody waits: it is free.
        assembler.event(0, Event::Lost(of("c"))).unwrap();
        assembler.event(0, planned("f", &[20])).unwrap();
        assert_eq!(scene.flows(), []);
    }

    /// But a sink that commits is told of it.
    #[test]
    fn a_range_without_records_is_cut_and_not_stored() {
        for (commits, stored) in [(Commits::Engine, 0), (Commits::Sink, 1)] {
            let scene = Scene::new();
            let mut assembly = scene.assembly();
            assembly.shape.commits = commits;
            let (mut assembler, ends) = assembler(&assembly);
            let Event::Chunk(Ok(mut processed)) = section("a", 0, 10, 0, Close::Count) else {
                unreachable!()
            };
            processed.first = None;
            (processed.sections[0].counts, processed.sections[0].stored) = (Counts::default(), None);
            assembler.event(0, Event::Chunk(Ok(processed))).unwrap();
            assert_eq!(ends.batches().len(), stored);
            let cuts = ends.notes.try_iter().flat_map(|note| match note {
                Note::Cut(_, cuts) => cuts,
                _ => Vec::new(),
            });
            let told = if stored == 0 { Content::Empty } else { Content::Records };
            assert_eq!(cuts.map(|cut| (cut.end, cut.content)).collect::<Vec<_>>(), [(10, told)]);
        }
    }

    #[test]
    fn where_no_dead_letter_can_be_kept_it_ends_the_run_unless_all_are_dropped() {
        for (dead_letters, on_reject, refused) in [
            (DeadLetters::Refuse, OnReject::DeadLetter, true),
            (DeadLetters::Refuse, OnReject::Drop, false),
            (DeadLetters::Store, OnReject::DeadLetter, false),
            (DeadLetters::Store, OnReject::Fail, true),
        ] {
            let scene = Scene::new();
            let mut assembly = Assembly { on_reject, ..scene.assembly() };
            assembly.shape.dead_letters = dead_letters;
            let (mut assembler, _ends) = assembler(&assembly);
            assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
            assert!(scene.stop.is_running());
            assembler.event(0, chunk("a", 10, 20, 1)).unwrap();
            assert_eq!(!scene.stop.is_running(), refused, "{dead_letters:?} {on_reject:?}");
        }
    }

    /// What was dropped is not at its end, whatever the reader says.
    #[test]
    fn behind_a_refusal_nothing_is_cut_and_nothing_ends() {
        let scene = Scene::new();
        let assembly = Assembly { on_reject: OnReject::Fail, ..scene.assembly() };
        let (mut assembler, ends) = assembler(&assembly);
        assembler.event(0, section("a", 0, 10, 0, Close::Count)).unwrap();
        assembler.event(0, chunk("b", 0, 10, 0)).unwrap();
        assert!(scene.stop.is_running());
        assembler.event(0, section("a", 10, 20, 1, Close::Count)).unwrap();
        assert!(!scene.stop.is_running() && !scene.stop.is_aborted());
        assert!(matches!(scene.faults.lock()[..], [Error::Rejected { .. }]));
        ends.notes.try_iter().for_each(drop);
        assert_eq!(ends.batches(), [("a".to_owned(), 10, Close::Count)]);
        for event in [section("a", 20, 30, 0, Close::Count), section("c", 0, 10, 0, Close::Count)] {
            assembler.event(0, event).unwrap();
        }
        for event in [Event::Ended(of("a")), Event::Ended(of("b")), Event::Done] {
            assembler.event(0, event).unwrap();
        }
        assert_eq!(assembler.end().unwrap(), Reading::Cut);
        assert!(ends.notes.try_iter().all(|note| matches!(note, Note::Revoked(_))));
        assert_eq!(ends.batches(), []);
    }

    /// Takes chunks of so many records, of which so many are rejected, and then the end of the run, if it comes to one.
    /// Returns after how many chunks there are too many, one more standing for the end.
    fn too_many(limit: MaxRejected, before: u64, chunks: &[(u64, u64)], finished: bool) -> Option<usize> {
        let scene = Scene::new();
        let assembly = Assembly { max_rejected: Some(limit), rejected_before: before, ..scene.assembly() };
        let (mut assembler, _ends) = assembler(&assembly);
        let (mut at, mut found) = (0, None);
        for (index, (read, rejected)) in chunks.iter().enumerate() {
            assembler.event(0, chunk("a", at, at + read, *rejected)).unwrap();
            at += read;
            found = found.or((!scene.faults.lock().is_empty()).then_some(index + 1));
        }
        if finished {
            assembler.event(0, Event::Done).unwrap();
        }
        assembler.end().unwrap();
        found.or((!scene.faults.lock().is_empty()).then_some(chunks.len() + 1))
    }

    #[test]
    fn more_than_a_count_are_too_many_with_those_of_the_run_before() {
        let five = MaxRejected::Count(5);
        assert_eq!(too_many(five, 0, &[(10, 5), (10, 0)], true), None);
        assert_eq!(too_many(five, 0, &[(10, 3), (10, 0), (10, 3)], true), Some(3));
        assert_eq!(too_many(five, 2, &[(10, 3), (10, 1)], true), Some(2));
    }

    #[test]
    fn more_than_a_share_are_too_many_once_there_are_records_enough_or_no_more() {
        let tenth = MaxRejected::Percent(10.0);
        assert_eq!(too_many(tenth, 0, &[(999, 500), (1, 0)], true), Some(2), "a thousand are enough");
        assert_eq!(too_many(tenth, 0, &[(1000, 100)], true), None);
        assert_eq!(too_many(tenth, 0, &[(500, 0), (500, 101)], true), Some(2));
        assert_eq!(too_many(tenth, 0, &[(10, 2)], true), Some(2), "of all there are");
        assert_eq!(too_many(tenth, 0, &[(10, 2)], false), None, "there are more, which nobody has read");
        assert_eq!(too_many(tenth, 100, &[(10, 1)], true), None);
    }

    /// What is stored and given up at the end of a run that was not finished.
    fn drained(cuts: Cuts, once: bool) -> (Vec<u64>, usize) {
        let scene = Scene::new();
        let assembly = Assembly { cuts, ..scene.assembly() };
        let (mut assembler, ends) = assembler(&assembly);
        let Event::Chunk(Ok(mut processed)) = chunk("a", 0, 10, 0) else { unreachable!() };
        processed.partition = Partition::new(Identity { once, ..of("a").identity().clone() });
        assembler.event(0, Event::Chunk(Ok(processed))).unwrap();
        assert_eq!(assembler.end().unwrap(), Reading::Cut);
        let revoked = ends.notes.try_iter().filter(|note| matches!(note, Note::Revoked(_))).count();
        (ends.batches().into_iter().map(|(_, end, _)| end).collect(), revoked)
    }

    #[test]
    fn what_is_open_at_a_drain_is_stored_unless_it_can_be_cut_elsewhere_the_next_time() {
        assert_eq!(drained(Cuts::Early, false), (vec![10], 1));
        assert_eq!(drained(Cuts::Fixed, false), (vec![], 0));
        assert_eq!(drained(Cuts::Fixed, true), (vec![10], 0));
    }

    #[test]
    fn behind_an_abort_nothing_is_closed() {
        let scene = Scene::new();
        let assembly = scene.assembly();
        let (mut assembler, ends) = assembler(&assembly);
        assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
        scene.stop.abort();
        assert!(matches!(assembler.end(), Err(Error::Stopped)));
        assert_eq!(ends.batches(), []);
    }

    #[test]
    fn a_batch_is_closed_when_it_was_open_for_long_enough() {
        for (batch_wait, closed) in [(HOUR, 0), (Duration::ZERO, 1)] {
            let scene = Scene::new();
            let assembly = Assembly { batch_wait, ..scene.assembly() };
            let (mut assembler, ends) = assembler(&assembly);
            assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
            assembler.close_aged().unwrap();
            assert_eq!(ends.batches().len(), closed);
        }
    }

    /// Otherwise it would never be known that nothing is in flight.
    #[test]
    fn behind_the_last_result_no_permit_is_owed() {
        let scene = Scene::new();
        let assembly = scene.assembly();
        let (mut assembler, ends) = assembler(&assembly);
        for _ in 0..3 {
            ends.permits.recv().unwrap();
        }
        let mut free = Vec::new();
        for (seq, more) in [(0, true), (1, true), (2, false)] {
            let event = chunk("a", seq * 10, seq * 10 + 10, 0);
            assembler.receive(Message { lane: 0, seq, event }).unwrap();
            assert_eq!(assembler.is_any_under_way(), more);
            free.push(ends.permits.len());
        }
        assert_eq!(free, [PERMITS - 3, PERMITS - 1, PERMITS], "a third of all at a time, and the last alone");
    }

    /// Open batches of these sizes, and what else there is.
    struct Tight<'a> {
        open: &'a [(&'a str, u64)],
        cuts: Cuts,
        elsewhere: usize,
        pending: usize,
        permits: usize,
    }

    impl Tight<'_> {
        /// Lets a reader wait for bytes. Returns the batches that were closed, and whether the reader may go on all the
        /// same.
        fn relieved(&self) -> (Vec<(String, u64, Close)>, bool) {
            let scene = Scene::new();
            let assembly = Assembly { cuts: self.cuts, ..scene.assembly() };
            let (mut assembler, ends) = assembler(&assembly);
            for (name, size) in self.open {
                assembler.event(0, chunk(name, 0, *size, 0)).unwrap();
            }
            scene.pending.store(self.pending, Ordering::Relaxed);
            for _ in self.permits..PERMITS {
                ends.permits.recv().unwrap();
            }
            let held: u64 = self.open.iter().map(|(_, size)| size).sum();
            let _out = scene.budget.charge(held as usize + self.elsewhere);
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| drop(scene.budget.acquire(LIMIT, &scene.stop)));
                scene.budget.pressure().recv().unwrap();
                assembler.relieve().unwrap();
                let goes_on = scene.budget.waiting_still() == 0;
                scene.stop.drain();
                scene.budget.notify();
                reader.join().unwrap();
                (ends.batches(), goes_on)
            })
        }
    }

    const TIGHT: Tight<'_> = Tight {
        open: &[("a", 100), ("b", 300), ("c", 200)],
        cuts: Cuts::Early,
        elsewhere: LIMIT / 4,
        pending: 0,
        permits: PERMITS,
    };

    #[test]
    fn under_pressure_the_largest_batch_is_closed_if_little_else_would_free_bytes() {
        let largest = (vec![("b".to_owned(), 300, Close::Pressure)], false);
        assert_eq!(TIGHT.relieved(), largest);
        assert_eq!(Tight { pending: 1, permits: 0, ..TIGHT }.relieved(), largest, "whatever is in flight");
        let much = Tight { elsewhere: LIMIT / 4 + 1, ..TIGHT };
        assert_eq!(Tight { pending: 1, ..much }.relieved(), (vec![], false), "much is stored soon");
        assert_eq!(Tight { permits: 0, ..much }.relieved(), (vec![], false), "much is on its way");
    }

    #[test]
    fn where_nothing_may_be_closed_a_reader_overdraws_once_nothing_is_in_flight() {
        let fixed = || Tight { cuts: Cuts::Fixed, ..TIGHT };
        assert_eq!(fixed().relieved(), (vec![], true));
        assert_eq!(Tight { pending: 1, ..fixed() }.relieved(), (vec![], false), "a job is with the sink");
        let under_way = Tight { permits: PERMITS - 1, ..fixed() };
        assert_eq!(under_way.relieved(), (vec![], false), "a chunk is with the pool");
        // Somebody keeps it, but not for a second yet.
        assert_eq!(Tight { elsewhere: LIMIT / 4 + 1, ..fixed() }.relieved(), (vec![], false));
        // To close what holds nothing would free nothing.
        assert_eq!(Tight { open: &[("a", 0)], elsewhere: 1, ..TIGHT }.relieved(), (vec![], true));
    }
}
