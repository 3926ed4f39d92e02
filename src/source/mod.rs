//! Where records come from: [`Source`], [`Reader`] and the [`Marks`] that remember how far they are done.
//!
//! A reader only finds record boundaries and fills chunks; it never parses. Each reader has a thread of its
//! own. Its `read` returns within 500 ms, with [`Read::Idle`] if there is nothing, so that a stop is seen.
//! Read [`mod@file`] for a real one.

pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "http")]
pub mod http;

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::error::{Error, Result};
use crate::record::{Chunk, Partition};
use crate::stop::Stop;

/// Something that records come from.
pub trait Source: Send + Sync {
    /// Opens the source: one reader, and one thread, each. At most `start.readers` of them.
    ///
    /// # Errors
    /// Whatever keeps it from reading at all; the run ends with it.
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>>;

    /// How many readers are worth having beside so many threads of the pool. More than those only where readers do
    /// nothing but wait most of the time.
    fn readers(&self, workers: usize) -> usize {
        workers
    }

    /// Where this source remembers what is done, if it does so itself (a Kafka group); else the run's state.
    fn marks(&self) -> Option<Arc<dyn Marks>> {
        None
    }

    /// Who decides where batches end.
    fn cuts(&self) -> Cuts {
        Cuts::Early
    }

    /// How many bytes there are to read, if that is known: for the progress bar.
    fn size(&self) -> Option<u64> {
        None
    }

    /// What must go on beside the readers and behind their end, until the last commit: a group's heartbeats.
    /// Asked for once, after [`Source::open`]. Tasks hold no bytes of the budget.
    fn tasks(&self) -> Vec<Task<'_>> {
        Vec::new()
    }

    /// Bytes that the readers hold outside of chunks (answers, unpacked batches), all of them together: a fixed
    /// share of `memory_limit`.
    fn buffers(&self) -> usize {
        0
    }
}

/// Something that a source does in a thread of its own.
pub struct Task<'a> {
    /// The thread's name, for logs and errors.
    pub name: String,
    /// Blocks until the channel that it is given is disconnected, which happens behind the last commit, whatever
    /// became of the run; ends soon after. Nothing is ever sent. An error ends the run.
    pub run: TaskBody<'a>,
}

/// The body of a [`Task`].
pub type TaskBody<'a> = Box<dyn FnOnce(&Receiver<()>) -> Result<()> + Send + 'a>;

/// What a source is opened with.
pub struct Start<'a> {
    /// What an earlier run has done.
    pub marks: &'a dyn Marks,
    /// How many readers may be open side by side; 1 where the sink takes one stream in order.
    pub readers: usize,
    /// How many threads process chunks. Where they are so many that readers would keep them from it, or could not keep
    /// up with them, a source may leave work to them that it would do itself, and then the records of a chunk are
    /// seen in the pool only. 0: who opens it looks at the chunks on their own.
    pub workers: usize,
    /// Ends the run; a reader that waits for something must see it.
    pub stop: &'a Stop,
}

/// Who decides where batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// The reader alone, from start and settings: nothing may be closed early. Files.
    Fixed,
    /// Batches may also be closed early, by time, by pressure or by a drain. Streams.
    Early,
}

/// Reads some partitions of a source, one after another or in turn.
pub trait Reader: Send {
    /// Fills the chunk with records of one partition, or tells what else happened. Returns within 500 ms. No other
    /// reader reads this partition at the same time, and its positions only grow.
    ///
    /// # Errors
    /// Ends the run, as records do that stand in a chunk which is told as anything but [`Read::Chunk`]. A fault of one
    /// partition alone is [`Read::Failed`].
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read>;

    /// Whether the next [`Reader::read`] does not wait for anybody. Then what was read is kept until that returns, and
    /// what is small is handed on together with what comes next: many small partitions take a third of the time. A few
    /// chunks may be left to one worker then, and their output goes to an ordered sink together.
    fn has_more_at_hand(&self) -> bool {
        false
    }

    /// Stops or goes on fetching a partition.
    fn pause(&mut self, _partition: &Partition, _flow: Flow) {}
}

impl<F> Reader for F
where
    F: FnMut(&mut Chunk) -> Result<Read> + Send,
{
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        self(chunk)
    }
}

/// Whether a partition may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Fetch it.
    Run,
    /// Leave it for now.
    Pause,
}

/// What came of a [`Reader::read`].
#[derive(Debug)]
pub enum Read {
    /// The chunk was filled.
    Chunk,
    /// Nothing yet; the chunk is unused. The reader is asked again at once, so it waited before.
    Idle,
    /// From now on chunks of this partition come; it was done up to the mark. Not needed where there is no mark. One
    /// that was revoked or lost comes back with a greater [`crate::record::Identity::epoch`].
    Assigned(Partition, Option<Mark>),
    /// The partition goes to another reader: drop what is open, publish what is cut, commit it, then
    /// [`Marks::released`].
    Revoked(Partition),
    /// The partition is gone: drop everything that is not published, commit nothing more. It may be assigned
    /// again with a greater [`crate::record::Identity::epoch`].
    Lost(Partition),
    /// The partition was read to its end: nothing more of it comes.
    Ended(Partition),
    /// The rest of the partition cannot be read. What stood before it is stored; the run goes on with the
    /// others and returns this error at its end.
    Failed(Partition, Error),
    /// Nothing will come any more.
    Done,
}

/// Remembers how far partitions are done.
pub trait Marks: Send + Sync {
    /// What is remembered of a partition.
    ///
    /// # Errors
    /// If it cannot be known: the run ends.
    fn load(&self, partition: &str) -> Result<Option<Mark>>;

    /// Remembers. Called by the commit thread only, one call at a time. Durable on return, but for partitions
    /// that it adds to `refused`: somebody else owns them by now. Where not all ends of a plan have room, it takes
    /// the last ones away: nothing is published there until a later call has them. They are treated as
    /// [`Read::Lost`] at once (nothing more of them is published or committed) and the run goes on.
    ///
    /// # Errors
    /// If it is not durable: the run ends, and nothing more is published that was newly planned. What stands in
    /// `refused` counts all the same: only the rest is tried again.
    fn store(&self, marks: &mut [Mark], refused: &mut Vec<Partition>) -> Result<()>;

    /// What metrics call the service that remembers.
    fn service(&self) -> &'static str {
        "state"
    }

    /// Whether ends must stand in the plan before a batch is published.
    fn plans(&self) -> bool {
        false
    }

    /// Nothing of this partition is in flight any more; its last mark is stored.
    fn released(&self, _partition: &Partition) {}

    /// Whether a partition can be given up at any time, to be assigned anew and read again from its mark:
    /// [`Marks::doubted`]. Where it cannot, an [`Error::InDoubt`] ends the run.
    fn rereads(&self) -> bool {
        false
    }

    /// It is not known what became of a batch of this partition. It is treated as [`Read::Lost`] from now on, and is
    /// to be assigned again, with a greater epoch, from its mark.
    fn doubted(&self, _partition: &Partition) {}

    /// The run reached the end of all partitions; everything is stored.
    ///
    /// # Errors
    /// If that cannot be remembered.
    fn finished(&self) -> Result<()> {
        Ok(())
    }
}

/// How far a partition is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which partition.
    pub partition: Partition,
    /// Everything before this position is stored.
    pub watermark: u64,
    /// Number of the line that begins at the watermark; 0 where lines are not counted.
    pub line: u64,
    /// What the source needs besides to go on from there.
    pub resume: Option<Arc<[u8]>>,
    /// Ends beyond the watermark at which a batch may already be published.
    pub plan: Vec<Planned>,
    /// Records that were rejected up to the watermark.
    pub rejected: u64,
    /// Whether the partition was read and stored to its end.
    pub ended: bool,
    /// Whether it is remembered nowhere yet: then it is stored before anything else of the partition, also
    /// where the sink commits.
    pub fresh: bool,
}

/// An end at which a batch may already be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The batch's end.
    pub end: u64,
    /// The first record's time, which its name is made of.
    pub first_time: i64,
    /// What stands for "now" in the batch.
    pub opened_at: i64,
}

/// Whether an input is still the one that an earlier run has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Same {
    /// It is the same.
    Unchanged,
    /// It has the same beginning, and more behind it.
    Grown {
        /// Its length then.
        from: u64,
        /// Its length now.
        to: u64,
    },
    /// It is another one.
    Changed {
        /// What tells so, for people.
        what: String,
    },
}

/// Remembers nothing.
pub struct Forget;

impl Marks for Forget {
    fn load(&self, _partition: &str) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn store(&self, _marks: &mut [Mark], _refused: &mut Vec<Partition>) -> Result<()> {
        Ok(())
    }
}
