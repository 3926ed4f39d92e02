//! Where batches go: [`Sink`] and [`Upload`]. Storing the same batch twice leaves it there once.
//!
//! A sink is called by blocking writer threads. It does one attempt and returns; retries, backoff and the stop
//! are the engine's. Every call ends within the configured timeout.

pub mod dir;
pub mod key;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "s3")]
pub mod s3;
pub mod stream;

use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::codec::Codec;
use crate::error::{Error, Result};

/// Stores processed batches durably.
pub trait Sink: Send + Sync {
    /// What the engine must know to feed it.
    fn shape(&self) -> Shape {
        Shape::default()
    }

    /// Stores whole batches, each with its dead letters ([`Batch::failed`]; always empty with
    /// [`DeadLetters::Refuse`]), of several partitions where [`Shape::group`] asks for it; those of one partition
    /// stand in order. Receipts come in the order of the batches. Each pushed receipt is durable, even if an
    /// error follows; the engine tries the rest again if the error is transient. Batches that stand in `receipts`
    /// already, and those before them, are not passed again.
    ///
    /// `Ok` with a batch that has no receipt means that its partition is lost: with [`Commits::Sink`] it is
    /// treated as such from then on; else the engine must know of it already, or the run ends.
    ///
    /// # Errors
    /// What went wrong with the first batch that is not in `receipts`.
    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()>;

    /// Begins a batch that is larger than one part. Called only where [`Shape::part`] is set.
    ///
    /// # Errors
    /// If nothing can be begun; may be tried again.
    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        let partition = &id.partition;
        Err(Error::Usage(format!("the sink asks for parts ({partition}) but does not implement Sink::open")))
    }

    /// All batches of the run are stored: makes visible what becomes so only as a whole. Not called for a run
    /// that failed or was stopped, and not again after an error. It is called where all that failed is that inputs
    /// are damaged ([`Error::Damaged`]): what stands before is stored.
    ///
    /// # Errors
    /// If that fails.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// A sink of any kind, for sinks that wrap one.
impl<S: Sink + ?Sized> Sink for Box<S> {
    fn shape(&self) -> Shape {
        (**self).shape()
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        (**self).store(batches, receipts)
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        (**self).open(id)
    }

    fn finish(&self) -> Result<()> {
        (**self).finish()
    }
}

/// A batch that is stored in parts while it is still open. Nothing is visible before [`Upload::publish`].
pub trait Upload: Send + Sync {
    /// Stores one part: in any order, several at a time; the same one again if it failed.
    ///
    /// # Errors
    /// If the part is not stored.
    fn part(&self, part: &Part) -> Result<()>;

    /// Publishes the batch: all parts are stored. `batch` has no bodies, but their lengths and checksums stand
    /// in `totals`.
    ///
    /// # Errors
    /// If it is not known to be published; may be called again.
    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt>;

    /// Removes what was stored of it. Called at most once, instead of a `publish` that succeeded.
    fn abort(&self);
}

/// Length and checksum of what went through an upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the output.
    pub stored: u64,
    /// CRC-32C of the output.
    pub stored_crc32c: u32,
    /// Bytes of the dead letters.
    pub failed: u64,
}

impl Totals {
    /// The receipt of a batch that was stored in parts under these names.
    pub fn receipt(&self, batch: &Batch, key: Option<String>, failed_key: Option<String>) -> Receipt {
        Receipt {
            id: batch.id.clone(),
            end: batch.end,
            key,
            failed_key,
            counts: batch.counts,
            bytes: self.stored + self.failed,
            failed_bytes: self.failed,
            crc32c: self.stored_crc32c,
        }
    }
}

/// Some consecutive bytes of an open batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// Of the output or of the dead letters.
    pub stream: Stream,
    /// 0, 1, 2, … within the stream.
    pub index: u32,
    /// Where in the stream it begins.
    pub offset: u64,
    /// Its bytes.
    pub body: Body,
    /// Whether it is known to be the last of its stream; a stream may also end without such a part.
    pub last: bool,
}

/// The two things a batch leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The output: `processed/`.
    Stored,
    /// The dead letters: `failed/`.
    Failed,
}

/// What the engine must know of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What metrics call the service that it writes to.
    pub service: &'static str,
    /// How many threads may call it at a time.
    pub writers: usize,
    /// Which order it needs.
    pub order: Order,
    /// Size in bytes from which a batch is stored in parts; `None`: whole batches only.
    pub part: Option<usize>,
    /// Whether all parts of a stream but its last have that very size, and the last no more; else they end where pieces
    /// do, as those of a stream of records always do.
    pub even_parts: bool,
    /// Who writes container headers and trailers.
    pub framing: Framing,
    /// What becomes of rejected records.
    pub dead_letters: DeadLetters,
    /// Whether pieces carry a CRC-32C.
    pub checksums: bool,
    /// How what it stores must be compressed, because its names say so; `None`: however the settings say.
    pub codec: Option<Codec>,
    /// Who commits what is stored.
    pub commits: Commits,
    /// Whether [`Batch::stored`] holds records as [`crate::outgoing`] frames them, not lines. They are not
    /// compressed, whatever the settings say: that is the sink's business.
    pub records: bool,
    /// Whether [`Batch::failed`] does.
    pub letter_records: bool,
    /// Bytes of output, of any partitions, that are handed to one [`Sink::store`] call; 0: what one chunk left. More
    /// than this is one chunk's only. With [`Order::Partition`] a writer takes all that is queued. With others batches
    /// share a call while the reader has more at hand ([`crate::source::Reader::has_more_at_hand`]): 32 of them at
    /// most, up to 128 KiB where their chunks came together, and with [`Order::Total`] up to an eighth of the memory
    /// for what is under way.
    pub group: usize,
    /// Whether each batch goes to a [`Sink::store`] call of its own, because several cost what they cost one by one, and
    /// writers can do them side by side. Counts for [`Order::Any`] alone.
    pub singly: bool,
}

impl Default for Shape {
    /// One writer, batches in order, no parts.
    fn default() -> Self {
        Shape {
            service: "sink",
            writers: 1,
            order: Order::Partition,
            part: None,
            even_parts: false,
            framing: Framing::Batch,
            dead_letters: DeadLetters::Store,
            checksums: false,
            codec: None,
            commits: Commits::Engine,
            records: false,
            letter_records: false,
            group: 0,
            singly: false,
        }
    }
}

/// Which order a sink needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Batches of one partition may be published in any order.
    Any,
    /// Batches of one partition in order. One writer, no open batches.
    Partition,
    /// Everything in one order: partitions are read one after another. One writer, no open batches.
    Total,
}

/// Who commits what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// The engine, by [`crate::source::Marks::store`], behind the receipts.
    Engine,
    /// The sink, together with the output (a transaction): a receipt means that the batch's end is committed
    /// too. It is therefore also given batches without records, whose ends must not be forgotten. `Marks::store`
    /// is not called.
    Sink,
}

/// Who writes container headers and trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each batch is a container of its own: the engine frames it.
    Batch,
    /// Batches are joined to one stream: the sink frames it.
    Stream,
}

/// What a sink does with rejected records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// Keeps [`Batch::failed`] beside the output.
    Store,
    /// Has no place for them: a rejection ends the run.
    Refuse,
}
