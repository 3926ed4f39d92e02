//! The reader loop: flow budget, fill, permit, task. One thread a reader.
//!
//! What is small goes on in bundles, as one task and one message, while the reader has more at hand: of 100,000 files
//! with a line each the threads would do little else than wake each other, three times a file.
//!
//! What a reader left to the worker ([`Errand`](crate::record::Errand)) is what a task does first, for all of its
//! chunks: whoever processes a later one may ask for what comes of it.
//!
//! A reader waits for bytes while it holds none, and for a permit, which the assembler gives back when it
//! receives a task's result. There are no more tasks than permits, and the results channel has a place for each, so a
//! task never blocks when it sends. Tasks start in the order in which they were read ([`Crew`]), so the oldest chunk
//! always runs. In a pool of the caller's a worker leaves every few milliseconds and another is called from outside
//! ([`Readers::work`]): it comes behind what waits there already. It does not do that between two tasks itself, as rayon
//! has it done: whatever waits for the run's end would keep the run from it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use crate::assemble::Desk;
use crate::budget::{Budget, Lease};
use crate::crew::{Crew, Next};
use crate::cut::{Cutters, Limits};
use crate::error::{Error, Result, Retry};
use crate::metrics::Metrics;
use crate::process::{Processed, Shop, guarded};
use crate::record::{Chunk, Partition};
use crate::source::{Flow, Mark, Read, Reader};
use crate::stop::Stop;

/// What a reader sends to the assembler, by way of the pool or directly. Numbered within its lane.
pub(crate) struct Message {
    pub lane: usize,
    pub seq: u64,
    /// In order; one at least.
    pub events: Vec<Event>,
    /// What comes behind it.
    pub next: Next,
}

impl Message {
    /// How many bytes of records were read for it.
    pub fn bytes(&self) -> u64 {
        let bytes = |event: &Event| match event {
            Event::Chunk(Ok(processed)) => {
                processed.sections.iter().map(|section| section.counts.bytes_read).sum()
            }
            _ => 0,
        };
        self.events.iter().map(bytes).sum()
    }

    /// How many chunks it was made of.
    pub fn chunks(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Chunk(_))).count()
    }
}

thread_local! {
    /// Whether this worker is at work already, further out.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// What happened in a lane.
pub(crate) enum Event {
    Chunk(Result<Processed>),
    Assigned(Partition, Option<Mark>),
    Revoked(Partition),
    Lost(Partition),
    Ended(Partition),
    Failed(Partition, Error),
    Done,
}

/// What waits to be sent together.
#[derive(Default)]
struct Bundle {
    items: Vec<Item>,
    chunks: u64,
    /// How much memory the chunks hold.
    bytes: usize,
    /// Whether the reader may come to wait for what a worker does with them.
    urgent: bool,
}

enum Item {
    Chunk(Box<Chunk>),
    Event(Event),
}

impl Item {
    /// Does what the reader left to the worker.
    fn run_errand(&mut self) {
        if let Item::Chunk(chunk) = self
            && let Err(panic) = guarded(|| chunk.run_errand())
        {
            *self = Item::Event(Event::Chunk(Err(panic)));
        }
    }
}

/// What a worker does, once it has a permit.
pub(crate) struct Task {
    lane: usize,
    seq: u64,
    items: Vec<Item>,
    next: Next,
    results: Sender<Message>,
}

/// A bundle is sent when it has so much, in bytes of memory and in items.
const FULL: (usize, usize) = (128 << 10, 96);

/// So long a worker goes on where others may be in the pool. To call the next takes one thread to be woken.
const TURN: Duration = Duration::from_millis(5);

/// Where a chunk takes longer than this each goes alone, so that all workers have one: a transform may be slow.
const QUICK: Duration = Duration::from_micros(300);

/// Where a chunk takes longer than this nothing waits for the next: neither output for more of it, nor a task for a
/// worker that has another one.
const SLOW: Duration = Duration::from_millis(2);

/// So many chunks a bundle has while nobody knows how long they take.
const FEW: u64 = 16;

impl Bundle {
    fn push(&mut self, item: Item) {
        if let Item::Chunk(chunk) = &item {
            self.chunks += 1;
            self.bytes += chunk.lease.bytes();
            self.urgent |= chunk.errand.is_some();
        }
        self.items.push(item);
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// `each` is how long a chunk has taken so far.
    fn is_full(&self, each: Option<Duration>) -> bool {
        let most = match each {
            None => FEW,
            Some(each) if each > QUICK => 1,
            Some(_) => u64::MAX,
        };
        self.urgent || self.chunks >= most || self.bytes >= FULL.0 || self.items.len() >= FULL.1
    }
}

/// Partitions that the assembler wants paused or resumed, by lane.
pub(crate) type Flows = Vec<Mutex<Vec<(Partition, Flow)>>>;

/// What readers share.
pub(crate) struct Readers<'a> {
    pub shop: &'a Shop<'a>,
    pub budget: &'a Arc<Budget>,
    pub permits: &'a Receiver<()>,
    pub flows: &'a Flows,
    pub stop: &'a Stop,
    pub metrics: &'a Metrics,
    pub crew: Crew<Task>,
    pub desk: &'a Desk<'a>,
    /// Whether others may be in the pool.
    pub shared: bool,
    pub limits: Limits,
    /// Bytes taken before a chunk is filled.
    pub chunk_bytes: usize,
}

/// One reader's side of the engine.
pub(crate) struct Lane<'s, 'scope> {
    pub index: usize,
    pub results: Sender<Message>,
    pub pool: &'s rayon::Scope<'scope>,
}

impl<'scope> Readers<'scope> {
    /// Reads until the reader is done or the run is stopped. Blocks.
    ///
    /// # Errors
    /// What the reader returns.
    pub fn run(&'scope self, mut reader: Box<dyn Reader>, lane: &Lane<'_, 'scope>) -> Result<()> {
        let mut cutters = Cutters::new(self.limits);
        let mut tenancies = Tenancies::default();
        let (mut bundle, mut seq) = (Bundle::default(), 0);
        while self.stop.is_running() {
            // Whoever assembles shall not wait for the reader.
            let flows = std::mem::take(&mut *self.flows[lane.index].lock());
            flows.into_iter().for_each(|(partition, flow)| reader.pause(&partition, flow));
            let Some(lease) = self.lease(&mut bundle, lane, &mut seq)? else { break };
            let mut chunk = self.shop.chunks.take();
            chunk.lease = lease;
            chunk.cutters = cutters;
            chunk.cutters.set_now(now());
            let fetching = Instant::now();
            let read = match reader.read(&mut chunk) {
                // It saw the stop while it waited.
                Err(Error::Stopped) if !self.stop.is_running() && !self.stop.is_aborted() => break,
                Err(Error::Stopped) if self.stop.is_running() => {
                    return Err(broken(&chunk, "returned Error::Stopped, and nobody stopped the run"));
                }
                read => read.inspect_err(|error| self.metrics.failed(error))?,
            };
            if matches!(read, Read::Chunk) {
                self.metrics.latencies.fetch.since(fetching);
            }
            if !chunk.readable.is_empty() {
                self.metrics.readable(&mut chunk.readable);
            }
            cutters = std::mem::take(&mut chunk.cutters);
            tenancies.check(&read)?;
            let item = self.item(read, chunk, &mut cutters)?;
            let goes_on = item.is_some() && reader.has_more_at_hand();
            let done = matches!(item, Some(Item::Event(Event::Done)));
            item.into_iter().for_each(|item| bundle.push(item));
            if !goes_on || bundle.is_full(self.metrics.latencies.process.mean()) {
                let quick = self.metrics.latencies.process.mean().is_some_and(|each| each <= SLOW);
                let next = if goes_on && !done && quick { Next::Soon } else { Next::Unknown };
                self.send(&mut bundle, lane, &mut seq, next)?;
            }
            if done {
                break;
            }
        }
        self.send(&mut bundle, lane, &mut seq, Next::Unknown)
    }

    /// Takes the bytes of a chunk. Blocks, with nothing held; `None` if the run was stopped meanwhile.
    fn lease(
        &'scope self,
        bundle: &mut Bundle,
        lane: &Lane<'_, 'scope>,
        seq: &mut u64,
    ) -> Result<Option<Lease>> {
        if let Some(lease) = self.budget.try_acquire(self.chunk_bytes) {
            return Ok(Some(lease));
        }
        self.send(bundle, lane, seq, Next::Unknown)?;
        let _waiting = self.metrics.reader_waits.begin();
        Ok(self.budget.acquire(self.chunk_bytes, self.stop).ok())
    }

    /// What is to be sent of what was read; `None` if that is nothing.
    fn item(&self, read: Read, mut chunk: Box<Chunk>, cutters: &mut Cutters) -> Result<Option<Item>> {
        if let Some(what) = &chunk.broken {
            return Err(broken(&chunk, what));
        }
        if let Read::Chunk = read {
            if chunk.partition.is_none() {
                return Err(broken(&chunk, "returned a chunk that it did not start"));
            }
            let memory = chunk.memory();
            chunk.lease.resize(memory);
            self.metrics.read(&chunk);
            return Ok(Some(Item::Chunk(chunk)));
        }
        if !chunk.is_empty() {
            return Err(broken(&chunk, &format!("left records in the chunk and returned {read:?}")));
        }
        self.shop.chunks.give(chunk);
        let event = match read {
            Read::Chunk | Read::Idle => return Ok(None),
            // A reader that sees the stop is done too, but its partitions are not at their end.
            Read::Done if !self.stop.is_running() => return Ok(None),
            Read::Assigned(partition, mark) => {
                cutters.assign(&partition, mark.as_ref().map_or(&[], |mark| &mark.plan));
                Event::Assigned(partition, mark)
            }
            Read::Revoked(partition) => {
                cutters.remove(&partition);
                Event::Revoked(partition)
            }
            Read::Lost(partition) => {
                cutters.remove(&partition);
                Event::Lost(partition)
            }
            Read::Ended(partition) => {
                cutters.remove(&partition);
                Event::Ended(partition)
            }
            Read::Failed(partition, error) => {
                cutters.remove(&partition);
                Event::Failed(partition, error)
            }
            Read::Done => Event::Done,
        };
        Ok(Some(Item::Event(event)))
    }

    /// Sends the bundle, by way of the pool if there are chunks in it. Blocks until a permit is free.
    fn send(
        &'scope self,
        bundle: &mut Bundle,
        lane: &Lane<'_, 'scope>,
        seq: &mut u64,
        next: Next,
    ) -> Result<()> {
        if next == Next::Unknown {
            self.hurry(lane.pool);
        }
        if bundle.is_empty() {
            return Ok(());
        }
        let Bundle { items, chunks, .. } = std::mem::take(bundle);
        self.permit(lane.pool)?;
        let task = Task { lane: lane.index, seq: *seq, items, next, results: lane.results.clone() };
        *seq += 1;
        if chunks == 0 {
            let (message, results) = self.message(task);
            return results.send(message).map_err(|_| Error::Stopped);
        }
        let flow = &self.metrics.flow;
        flow.chunks_read.fetch_add(chunks, Ordering::Relaxed);
        flow.tasks_queued.fetch_add(1, Ordering::Relaxed);
        if self.crew.put(task, next) {
            self.call(lane.pool);
        }
        Ok(())
    }

    /// Calls a worker. From outside of the pool: behind what waits there already.
    pub fn call(&'scope self, pool: &rayon::Scope<'scope>) {
        pool.spawn(move |pool| self.work(pool));
    }

    /// The reader is about to wait: calls all workers that there is a task for.
    fn hurry(&'scope self, pool: &rayon::Scope<'scope>) {
        while self.crew.hurry() {
            self.call(pool);
        }
    }

    /// A worker, from its call until there is nothing to do, or its turn is over: what else waits in a pool is the
    /// caller's, or of another run.
    fn work(&'scope self, pool: &rayon::Scope<'scope>) {
        let (begun, inside) = (Instant::now(), AT_WORK.replace(true));
        let mut next = Next::Unknown;
        while let Some(task) = self.crew.next(next) {
            next = task.next;
            let (message, results) = self.message(task);
            self.metrics.flow.tasks_done.fetch_add(1, Ordering::Relaxed);
            if let Some(message) = self.desk.offer(message, self.crew.waiting()) {
                // Fails only when the assembler is gone: the cause is elsewhere.
                let _ = results.send(message);
            }
            // Inside of a task, which a transform may be by means of rayon's, that one shall go on soon.
            if inside || (self.shared && begun.elapsed() >= TURN) {
                if self.crew.leave() && self.desk.recall().is_err() {
                    self.call(pool);
                }
                break;
            }
        }
        AT_WORK.set(inside);
        self.desk.settle();
    }

    /// What comes of a task, and where it goes.
    fn message(&self, mut task: Task) -> (Message, Sender<Message>) {
        if !self.stop.is_aborted() {
            task.items.iter_mut().for_each(Item::run_errand);
        }
        let events = task.items.into_iter().map(|item| self.event(item)).collect();
        (Message { lane: task.lane, seq: task.seq, events, next: task.next }, task.results)
    }

    /// What the assembler receives. Processes a chunk.
    fn event(&self, item: Item) -> Event {
        let chunk = match item {
            Item::Chunk(chunk) => chunk,
            Item::Event(event) => return event,
        };
        let begun = Instant::now();
        // Behind an abort nobody waits for it, and what panicked once would panic again.
        let result = if self.stop.is_aborted() { Err(Error::Stopped) } else { self.shop.run(chunk) };
        self.metrics.latencies.process.since(begun);
        self.metrics.flow.chunks_processed.fetch_add(1, Ordering::Relaxed);
        Event::Chunk(result)
    }

    /// Blocks until a permit is free.
    fn permit(&'scope self, pool: &rayon::Scope<'scope>) -> Result<()> {
        if self.permits.try_recv().is_ok() {
            return Ok(());
        }
        self.hurry(pool);
        let _waiting = self.metrics.reader_waits.begin();
        loop {
            match self.permits.recv_timeout(Duration::from_millis(100)) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if !self.stop.is_aborted() => {}
                Err(_) => return Err(Error::Stopped),
            }
        }
    }
}

/// Which partitions a reader was assigned, and which it gave up.
#[derive(Default)]
struct Tenancies {
    assigned: HashSet<Partition>,
    /// The last epoch of each, by source and name.
    given_up: HashMap<(&'static str, String), u64>,
}

impl Tenancies {
    /// An open batch would be dropped where a partition is assigned twice, and everything behind it where it comes back
    /// as what it was.
    fn check(&mut self, read: &Read) -> Result<()> {
        let key = |partition: &Partition| (partition.identity().source, partition.name().to_owned());
        match read {
            Read::Assigned(partition, _) => {
                let epoch = partition.identity().epoch;
                if self.given_up.get(&key(partition)).is_some_and(|last| epoch <= *last) {
                    let what = format!(
                        "assigned it again under epoch {epoch}, which it has had; Identity::epoch grows with each \
                         tenancy"
                    );
                    return Err(broken_at(partition, &what));
                }
                if !self.assigned.insert(partition.clone()) {
                    return Err(broken_at(partition, "assigned it twice"));
                }
            }
            Read::Revoked(partition) | Read::Lost(partition) => {
                self.assigned.remove(partition);
                self.given_up.insert(key(partition), partition.identity().epoch);
            }
            Read::Ended(partition) | Read::Failed(partition, _) => {
                self.assigned.remove(partition);
            }
            Read::Chunk | Read::Idle | Read::Done => {}
        }
        Ok(())
    }
}

/// A reader that is not what [`Reader`] says would lose records.
fn broken_at(partition: &Partition, what: &str) -> Error {
    Error::other(format!("the reader of {partition} {what}"), Retry::Permanent, "records would be lost")
}

/// The same of the partition that a chunk has records of.
fn broken(chunk: &Chunk, what: &str) -> Error {
    let name = chunk.partition.as_ref().map_or_else(|| "a partition".to_owned(), ToString::to_string);
    Error::other(format!("the reader of {name} {what}"), Retry::Permanent, "its records would be lost")
}

/// Milliseconds since the epoch: the only clock that batches of streams are opened by.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Errand;

    /// How many small chunks share a task.
    fn shared(each: Option<Duration>, memory: usize) -> u64 {
        let budget = Budget::new(usize::MAX);
        let mut bundle = Bundle::default();
        while !bundle.is_full(each) {
            bundle.push(Item::Event(Event::Done));
            let lease = budget.charge(memory);
            bundle.push(Item::Chunk(Box::new(Chunk { lease, ..Chunk::default() })));
        }
        bundle.chunks
    }

    #[test]
    fn a_chunk_goes_alone_where_it_is_large_or_slow() {
        assert_eq!(shared(Some(QUICK), FULL.0), 1);
        assert_eq!(shared(Some(QUICK + Duration::from_nanos(1)), 100), 1);
        assert_eq!(shared(None, 100), FEW);
        assert_eq!(shared(Some(QUICK), FULL.0 / 4), 4);
        assert_eq!(shared(Some(QUICK), 100), FULL.1 as u64 / 2, "with an event each");
    }

    /// The reader may wait for it in its next call.
    #[test]
    fn what_is_left_to_a_worker_is_sent_at_once() {
        struct Nothing;
        impl Errand for Nothing {
            fn run(&mut self, _chunk: &mut Chunk) {}
            fn lines(&self) -> Option<(u64, u64)> {
                None
            }
        }
        let mut bundle = Bundle::default();
        bundle.push(Item::Chunk(Box::default()));
        assert!(!bundle.is_full(Some(QUICK)));
        bundle.push(Item::Chunk(Box::new(Chunk { errand: Some(Box::new(Nothing)), ..Chunk::default() })));
        assert!(bundle.is_full(Some(QUICK)));
    }
}
