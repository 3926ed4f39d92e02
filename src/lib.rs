//! A synchronous, thread-pool batch processor: JSON records from a source, through a transform, into a sink.
//! Nothing is lost, nothing is stored twice, memory is bounded, and there is no async runtime anywhere.
//!
//! The `pipeline` program is a thin layer over this library. Take it without what only the program needs:
//!
//! ```toml
//! [dependencies]
//! pipeline-batch = { version = "0.1", default-features = false }
//! ```
//!
//! The crate that it brings is called `pipeline`. A pool of yours is one of `rayon` 1.
//!
//! # In five minutes
//!
//! A [`Pipeline`] puts three things together, and [`Pipeline::run`] blocks until all is stored. Each of the three
//! may be one of this crate's or your own. Here all are ours to write: numbers from a range, a transform that
//! keeps the even ones, a sink that appends lines to a buffer.
//!
//! ```
//! use std::sync::Mutex;
//!
//! use pipeline::sink::{DeadLetters, Shape};
//! use pipeline::{Batch, Chunk, Error, Outputs, Partition, Pipeline, Read, Reader, Receipt, Recipe, Record};
//! use pipeline::{RejectKind, Rejection, Result, Room, Sink, Source, Start, Transform};
//!
//! struct Numbers(u64);
//!
//! impl Source for Numbers {
//!     fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
//!         let (partition, mut numbers) = (Partition::named("numbers", "all"), 0..self.0);
//!         Ok(vec![Box::new(move |chunk: &mut Chunk| {
//!             chunk.start(&partition, numbers.start);
//!             while let Some(number) = numbers.next() {
//!                 if chunk.push(number, number.to_string().as_bytes()) == Room::Full {
//!                     break;
//!                 }
//!             }
//!             Ok(if chunk.is_empty() { Read::Done } else { Read::Chunk })
//!         })])
//!     }
//! }
//!
//! struct Even;
//!
//! impl Transform for Even {
//!     fn apply(&self, record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection> {
//!         let number: u64 = serde_json::from_slice(record.bytes)
//!             .map_err(|error| Rejection::new(RejectKind::Transform, error.to_string()))?;
//!         if number % 2 == 0 { out.push_value(&number) } else { Ok(()) }
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Lines(Mutex<Vec<u8>>);
//!
//! impl Sink for Lines {
//!     // It has no place for dead letters: a rejected record ends the run.
//!     fn shape(&self) -> Shape {
//!         Shape { dead_letters: DeadLetters::Refuse, ..Shape::default() }
//!     }
//!
//!     fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
//!         let mut lines = self.0.lock().expect("no holder panics");
//!         for batch in batches {
//!             batch.stored.write_to(&mut *lines).map_err(|error| Error::io("write", "memory", error))?;
//!             receipts.push(Receipt::of(batch, None, None));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let (recipe, lines) = (Recipe::default().transform(Even).bare(), Lines::default());
//! Pipeline::new(&Numbers(6), &recipe, &lines).run()?;
//! assert_eq!(lines.0.into_inner().unwrap(), b"0\n2\n4\n");
//! # Ok::<(), Error>(())
//! ```
//!
//! # What flows
//!
//! * A **record** is one JSON value, or one line of text, with its **position** in its **partition**: one
//!   independently ordered stream, such as a file.
//! * A [`Reader`] fills [`Chunk`]s with consecutive records of one partition. It finds boundaries and parses
//!   nothing. Each reader has a thread.
//! * The pool runs the [`Recipe`] over chunks: every record is validated, transformed and wrapped into the
//!   envelope in one pass, then compressed. One partition alone also uses every core.
//! * A **batch** is a contiguous range of one partition: the unit of storing. [`Settings::limits`] bound it.
//! * A [`Sink`] stores batches, and pushes a [`Receipt`] for each that is durable.
//! * The watermark of a partition moves over the published batches without a gap, and is given to
//!   [`source::Marks`], which remember it for the next run.
//!
//! # Sources
//!
//! [`source::file::FileSource`] reads files, directories, pipes and stdin, plain or compressed, in whatever form
//! their JSON stands. With the feature `kafka`, [`source::kafka::KafkaSource`] reads topics, as a member of a group
//! that remembers what is done, or alone. With the feature `http`, [`source::http::HttpSource`] reads endpoints
//! page after page, and remembers which one comes next. To write your own, implement [`Source`] and [`Reader`]; a
//! closure is a reader. The rules:
//!
//! * [`Chunk::start`] comes first, with the partition and the position. Then [`Chunk::push`] until it says
//!   [`Room::Full`]; that record is in the chunk.
//! * Positions of a partition only grow, and one reader reads it. A position is what a record is known by: envelopes,
//!   dead letters and marks carry it. A run in which they do not grow fails.
//! * `read` returns within half a second: [`Read::Idle`] if there is nothing yet. So a stop is always seen. It is
//!   asked again at once, so it is the reader that waits.
//! * At most [`Start::readers`] readers are opened; [`Source::readers`] says how many are worth having.
//! * A source that is read again in the same way every time says so: [`source::Cuts::Fixed`] lets nothing but
//!   records and settings decide where batches end, and a batch that is stored again is the same batch.
//!
//! # Transforms
//!
//! A [`Transform`] makes none, one or several outputs of a record, or a [`Rejection`]; a closure is one. It does
//! no IO and reads no clock but [`Record::opened_at`], so that doing a batch again makes the same bytes. A rejected
//! record becomes a **dead letter** with its bytes, its place and the reason; the run goes on. Several
//! transforms are one pass.
//!
//! ```
//! use pipeline::{Outputs, Recipe, Record, Rejection};
//!
//! let recipe = Recipe::default().transform(|record: &Record<'_>, out: &mut Outputs| -> Result<(), Rejection> {
//!     if record.bytes.starts_with(b"{") {
//!         out.push(record.bytes);
//!     }
//!     Ok(())
//! });
//! ```
//!
//! # Sinks
//!
//! [`sink::dir::DirSink`] stores a file a batch, [`sink::stream`] has one file and stdout, and
//! [`sink::kafka::KafkaSink`] writes to a topic: with the group whose topics are read it commits their offsets in
//! the same transaction ([`sink::Commits::Sink`]), so each record is there exactly once. It takes records with key
//! and headers ([`outgoing`]), which [`Recipe::records`] makes of them. Your own [`Sink`] is
//! called from a blocking thread, does one attempt, and returns. A transient error
//! ([`error::Retry::Transient`]) is tried again by the engine with growing delays; a permanent one ends the run,
//! with nothing committed behind the last receipt. A batch that is not known to be stored is stored again, so
//! name what you store by [`batch::BatchId`]: partition and start.
//!
//! A batch has two bodies: [`Batch::stored`] and [`Batch::failed`], the dead letters of the records that were
//! rejected. A receipt stands for both, so a sink stores both, or says with
//! [`sink::DeadLetters::Refuse`] that it has no place for dead letters: then the run ends at the first rejected record
//! with [`Error::Rejected`]. The engine does not try [`Sink::finish`] again.
//!
//! By default a sink gets each partition in order, in batches that end with their chunk. [`Shape`](sink::Shape)
//! asks for more: several writers and larger batches with [`Order::Any`](sink::Order::Any), and parts of batches
//! while they are still open.
//!
//! # Going on where a run stopped
//!
//! Give the pipeline [`source::Marks`], and read them when the source is opened. They are stored after the batches
//! they stand for, so a run that was killed goes on with the first batch that is not known to be stored.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//!
//! use pipeline::source::{Cuts, Mark, Marks};
//! use pipeline::{Batch, Chunk, Partition, Pipeline, Read, Reader, Receipt, Recipe, Result, Sink, Source, Start};
//!
//! /// In memory here; a table or a file in earnest: `store` returns when it is durable.
//! #[derive(Default)]
//! struct Remembered(Mutex<HashMap<String, Mark>>);
//!
//! impl Marks for Remembered {
//!     fn load(&self, partition: &str) -> Result<Option<Mark>> {
//!         Ok(self.0.lock().expect("no holder panics").get(partition).cloned())
//!     }
//!
//!     fn store(&self, marks: &mut [Mark], _refused: &mut Vec<Partition>) -> Result<()> {
//!         let named = marks.iter().map(|mark| (mark.partition.name().to_owned(), mark.clone()));
//!         self.0.lock().expect("no holder panics").extend(named);
//!         Ok(())
//!     }
//! }
//!
//! /// Three letters, which later become more.
//! struct Letters(&'static [&'static str]);
//!
//! impl Source for Letters {
//!     fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
//!         let (partition, letters) = (Partition::named("letters", "all"), self.0);
//!         let mark = start.marks.load(partition.name())?;
//!         let mut next = mark.as_ref().map_or(0, |mark| mark.watermark);
//!         let mut assigned = Some(Read::Assigned(partition.clone(), mark));
//!         Ok(vec![Box::new(move |chunk: &mut Chunk| {
//!             if let Some(assigned) = assigned.take() {
//!                 return Ok(assigned);
//!             }
//!             let Some(letter) = letters.get(next as usize) else { return Ok(Read::Done) };
//!             chunk.start(&partition, next);
//!             let _ = chunk.push(next, format!("\"{letter}\"").as_bytes());
//!             next += 1;
//!             Ok(Read::Chunk)
//!         })])
//!     }
//!
//!     fn cuts(&self) -> Cuts {
//!         Cuts::Fixed
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Count(Mutex<u64>);
//!
//! impl Sink for Count {
//!     fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
//!         *self.0.lock().expect("no holder panics") += batches.iter().map(|batch| batch.counts.read).sum::<u64>();
//!         receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
//!         Ok(())
//!     }
//! }
//!
//! let (marks, count, recipe) = (Arc::new(Remembered::default()), Count::default(), Recipe::default());
//! Pipeline::new(&Letters(&["a", "b", "c"]), &recipe, &count).marks(marks.clone()).run()?;
//! Pipeline::new(&Letters(&["a", "b", "c", "d"]), &recipe, &count).marks(marks).run()?;
//! assert_eq!(*count.0.lock().unwrap(), 4, "the second run stores what is new");
//! # Ok::<(), pipeline::Error>(())
//! ```
//!
//! # In your program
//!
//! * **Threads.** The pool is the run's own, or yours: [`Pipeline::pool`]. It is never rayon's global one. A run may
//!   keep all threads of yours busy, but every few milliseconds each does what else waits in the pool. Readers, writers,
//!   the assembler and the commit thread are scoped threads, and all are joined when `run` returns. From a worker of
//!   the pool it was given, `run` returns [`Error::OwnPool`] rather than wait for itself.
//! * **Stopping.** The library installs no signal handler. Each run has a [`Stop`] of its own: one that fails aborts
//!   it, so two runs must not share one. [`Stop::drain`] from any thread stops reading, and
//!   `run` returns [`End::Drained`] when what is in flight is stored; [`Stop::abort`] also ends retries and waits.
//! * **Logs.** It logs through the `log` crate, installs no logger, and prints nothing of its own.
//! * **Watching.** [`Pipeline::observe`] calls you at intervals with the [`metrics`]; [`Pipeline::metrics`] stay
//!   valid behind the run's end.
//! * **Memory.** [`Settings::memory_limit`] covers everything between read and stored. What your transform or
//!   your sink allocates for itself is not counted.
//! * **Panics.** A transform, a source or a sink that panics ends the run with [`Error::Panicked`].
//!
//! This crate's source and sink in a pool of yours:
//!
//! ```
//! use pipeline::codec::Codec;
//! use pipeline::sink::dir::{DirOptions, DirSink};
//! use pipeline::source::file::{FileOptions, FileSource};
//! use pipeline::{End, Pipeline, Recipe, Stop};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path();
//! # std::fs::write(dir.join("data.ndjson"), "{\"a\":1}\n{\"a\":2}\n")?;
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let source = FileSource::new(FileOptions::new(vec![dir.join("data.ndjson").display().to_string()]))?;
//! let sink = DirSink::prepare(DirOptions::new(dir.join("out"), Codec::None))?;
//! let (recipe, stop) = (Recipe::default(), Stop::new());
//! let pipeline = Pipeline::new(&source, &recipe, &sink).pool(&pool).stop(&stop);
//! let metrics = pipeline.metrics();
//! assert_eq!(pipeline.run()?, End::Finished);
//! assert_eq!(metrics.totals().stored, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/embed.rs` has an endless source, a handle that stops it, and a sink that counts.
//!
//! # A whole job
//!
//! [`job::run`] does what the command line does: files to a directory with its state beside it, so that a second
//! run goes on where the first one stopped, or finds nothing to do.
//!
//! ```
//! use pipeline::config::{Config, Place};
//! use pipeline::job::{self, Mode};
//! use pipeline::summary::Outcome;
//! use pipeline::Stop;
//!
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path();
//! let input = dir.join("data.ndjson");
//! std::fs::write(&input, "{\"a\":1}\n{\"a\":2}\nnot JSON\n")?;
//!
//! let config = Config::new(vec![input.display().to_string()], Place::Dir(dir.join("out")));
//! let done = job::run(&config, Mode::Store, &Stop::new(), &|_| {});
//! assert!(done.error.is_none());
//! let summary = done.summary.expect("it began");
//! assert_eq!((summary.records_stored, summary.records_rejected), (2, 1));
//!
//! let again = job::run(&config, Mode::Store, &Stop::new(), &|_| {});
//! assert_eq!(again.summary.expect("it looked").outcome, Outcome::NothingToDo);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A job from Kafka differs in its configuration alone: brokers, topics, and where it ends. The group remembers what
//! is done, so there is no state beside the output.
//!
//! ```no_run
//! use pipeline::config::kafka::Until;
//! use pipeline::config::{Config, Place, SourceKind};
//! use pipeline::job::{self, Mode};
//! use pipeline::Stop;
//!
//! let mut config = Config::new(vec![], Place::Kafka("data-copy".into()));
//! config.input.source = SourceKind::Kafka;
//! config.kafka.brokers = vec!["localhost:9092".into()];
//! config.kafka.source.topics = vec!["data-input".into()];
//! config.kafka.source.until = Until::End;
//! let done = job::run(&config, Mode::Store, &Stop::new(), &|_| {});
//! assert!(done.error.is_none(), "{:?}", done.error);
//! ```
//!
//! So does one that reads an HTTP API: its state stands beside the output, as that of files does.
//!
//! ```no_run
//! use pipeline::config::http::Style;
//! use pipeline::config::{Config, Place};
//! use pipeline::job::{self, Mode};
//! use pipeline::Stop;
//!
//! let mut config = Config::from_http(vec!["https://api.example.com/v1/items".into()], Place::Dir("out".into()));
//! config.http.records = Some("/items".into());
//! config.http.pagination.style = Style::Cursor;
//! let done = job::run(&config, Mode::Store, &Stop::new(), &|_| {});
//! assert!(done.error.is_none(), "{:?}", done.error);
//! ```
//!
//! # Reading the source
//!
//! The modules stand below in the order in which to read them: [`pipeline`] first, then what flows, then the three
//! traits, then the engine's threads, then what they lean on.

// The manual names what some features bring; it is read with all of them.
#![cfg_attr(not(all(feature = "kafka", feature = "http")), allow(rustdoc::broken_intra_doc_links))]

pub mod pipeline;
pub mod record;
pub mod cut;
pub mod batch;
pub mod source;
pub mod transform;
pub mod sink;
pub mod outgoing;
mod crew;
mod read;
mod process;
mod assemble;
mod lot;
mod write;
mod commit;
pub mod ledger;
mod stage;
pub mod stop;
pub mod budget;
mod memory;
mod allowance;
pub mod retry;
pub mod metrics;
pub mod error;
pub mod json;
pub mod codec;
pub mod state;
pub mod config;
pub mod job;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "s3", feature = "http"))]
mod agent;
#[cfg(any(feature = "s3", feature = "http"))]
mod proxy;
#[cfg(any(feature = "s3", feature = "http"))]
mod tls;
pub mod summary;
pub mod progress;
#[cfg(feature = "status")]
pub mod status;
#[cfg(all(test, feature = "kafka", feature = "s3"))]
mod model;

pub use batch::{Batch, Receipt};
pub use error::{Error, Result};
pub use pipeline::{End, Pipeline, Settings};
pub use record::{Chunk, Partition, Payload, Record, RejectKind, Rejection, Room};
pub use sink::Sink;
pub use source::{Read, Reader, Source, Start};
pub use stop::Stop;
pub use transform::recipe::Recipe;
pub use transform::{Outputs, Transform};
