//! A source that does what a script says, and a sink that keeps what each call was given.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline::batch::{Batch, Receipt};
use pipeline::error::Retry::{Permanent, Transient};
use pipeline::record::{Chunk, Identity, Incoming, Partition, Room};
use pipeline::sink::{Shape, Sink};
use pipeline::source::{Mark, Planned, Read, Reader, Source, Start};
use pipeline::{Error, Result};

/// What a reader does next.
pub enum Step {
    Assign(Partition, u64),
    /// Assigns what is remembered nowhere yet, to be begun at a position.
    Begin(Partition, u64),
    /// Assigns with ends that an earlier owner planned.
    Recover(Partition, u64, Vec<u64>),
    /// Records from a position on, up to another; the chunk is done to a third.
    Chunk(Partition, u64, u64, u64),
    /// One record at a position, of this time.
    Timed(Partition, u64, Option<i64>),
    Readable(Partition, u64, u64),
    Revoke(Partition),
    Lose(Partition),
    End(Partition),
    /// The rest of it cannot be read.
    Fail(Partition),
    /// Idle until it is so.
    Until(Box<dyn Fn() -> bool + Send>),
}

/// A partition of some epoch.
pub fn tenancy(name: &str, epoch: u64) -> Partition {
    let name = name.to_owned();
    Partition::new(Identity { source: "script", name, position: "offset", epoch, ..Identity::default() })
}

/// Waits for a condition.
pub fn until(condition: impl Fn() -> bool + Send + 'static) -> Step {
    Step::Until(Box::new(condition))
}

/// `Chunk` without anything behind its last record.
pub fn chunk(partition: &Partition, from: u64, to: u64) -> Step {
    Step::Chunk(partition.clone(), from, to, to)
}

/// A reader for each script.
pub struct Script(Mutex<Vec<VecDeque<Step>>>);

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Script(Mutex::new(vec![steps.into_iter().collect()]))
    }
}

impl Source for Script {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let scripts = std::mem::take(&mut *self.0.lock());
        Ok(scripts.into_iter().map(|steps| Box::new(ScriptReader(steps)) as Box<dyn Reader>).collect())
    }
}

/// All but what it waits for is at hand.
struct ScriptReader(VecDeque<Step>);

impl Reader for ScriptReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        let Some(step) = self.0.pop_front() else { return Ok(Read::Done) };
        Ok(match step {
            Step::Assign(partition, watermark) => {
                let mark = (watermark > 0).then(|| mark(&partition, watermark));
                Read::Assigned(partition, mark)
            }
            Step::Begin(partition, watermark) => {
                let mark = Mark { fresh: true, ..mark(&partition, watermark) };
                Read::Assigned(partition, Some(mark))
            }
            Step::Recover(partition, watermark, ends) => {
                let planned = |end| Planned { end, first_time: 7, opened_at: 11 };
                let plan = ends.into_iter().map(planned).collect();
                let mark = Mark { plan, ..mark(&partition, watermark) };
                Read::Assigned(partition, Some(mark))
            }
            Step::Chunk(partition, from, to, end) => {
                chunk.start(&partition, from);
                let mut at = from;
                while at < to {
                    let line = format!("{{\"id\":\"{}-{at}\"}}", partition.name());
                    at += 1;
                    if chunk.push(at - 1, line.as_bytes()) == Room::Full {
                        break;
                    }
                }
                if at < to {
                    self.0.push_front(Step::Chunk(partition, at, to, end));
                } else {
                    chunk.set_end(end);
                }
                Read::Chunk
            }
            Step::Timed(partition, at, time) => {
                chunk.start(&partition, at);
                let record = Incoming { key: None, value: Some(&b"1"[..]), time, headers: [] };
                let _ = chunk.push_incoming(at, record);
                Read::Chunk
            }
            Step::Readable(partition, at, end) => {
                chunk.set_readable(&partition, at, end);
                Read::Idle
            }
            Step::Revoke(partition) => Read::Revoked(partition),
            Step::Lose(partition) => Read::Lost(partition),
            Step::End(partition) => Read::Ended(partition),
            Step::Fail(partition) => Read::Failed(partition, Error::other("scripted", Permanent, "gone")),
            Step::Until(condition) => {
                if !condition() {
                    self.0.push_front(Step::Until(condition));
                    std::thread::yield_now();
                }
                Read::Idle
            }
        })
    }

    fn has_more_at_hand(&self) -> bool {
        !matches!(self.0.front(), Some(Step::Until(_)))
    }
}

fn mark(partition: &Partition, watermark: u64) -> Mark {
    Mark {
        partition: partition.clone(),
        watermark,
        line: 0,
        resume: None,
        plan: Vec::new(),
        rejected: 0,
        ended: false,
        fresh: false,
    }
}

/// A stored batch: name, epoch, start, end, bytes.
pub type Stored = (String, u64, u64, u64, u64);

/// What the calls of a sink were given.
pub type Calls = Arc<Mutex<Vec<Vec<Stored>>>>;

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Stored,
    /// Nothing is said of it.
    Dropped,
    Fails,
    /// A receipt for another batch.
    Mixed,
}

/// A sink that keeps order and decides of each batch.
pub struct Calling {
    pub shape: Shape,
    pub calls: Calls,
    /// Called before anything is done.
    pub gate: Box<dyn Fn() + Send + Sync>,
    pub fate: Box<dyn Fn(&Batch) -> Fate + Send + Sync>,
}

impl Calling {
    pub fn new(shape: Shape) -> Self {
        Calling { shape, calls: Arc::default(), gate: Box::new(|| {}), fate: Box::new(|_| Fate::Stored) }
    }

    /// All that is stored, in order.
    pub fn stored(&self) -> Vec<Stored> {
        self.calls.lock().concat()
    }
}

impl Sink for Calling {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        (self.gate)();
        let mut call = Vec::new();
        let mut result = Ok(());
        for batch in batches {
            let id = &batch.id;
            let mut receipt = Receipt::of(batch, None, None);
            match (self.fate)(batch) {
                Fate::Stored => {}
                Fate::Dropped => continue,
                Fate::Fails => {
                    result = Err(Error::other("scripted", Transient, "busy"));
                    break;
                }
                Fate::Mixed => receipt.id.start += 1,
            }
            let (name, epoch) = (id.partition.name().to_owned(), id.partition.identity().epoch);
            call.push((name, epoch, id.start, batch.end, batch.stored.len()));
            receipts.push(receipt);
        }
        self.calls.lock().push(call);
        result
    }
}
