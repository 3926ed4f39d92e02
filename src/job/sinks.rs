//! The sink of a job: where the output goes, and around it what dead letters and notifications need.
//!
//! From the inside out: the output, the dead letters' place where that is another one, the notifications. Each is
//! a sink that wraps a sink, so every pair of them works.

use super::rehearsal::Rehearsal;
use super::{Job, Mode};
use crate::codec::Codec;
use crate::config::Place;
use crate::error::{Error, Result};
use crate::memory::{Needs, Plan};
use crate::sink::dir::{DirOptions, DirSink, Fsync, PART};
use crate::sink::key::Namer;
use crate::sink::stream::{FileOptions as FileTo, FileSink, StdoutSink, WithDeadLetters};
use crate::sink::{DeadLetters, Order, Shape, Sink};
use crate::source::Source;

/// Threads that store files: they mostly wait for the disk.
const WRITERS: usize = 4;

impl Job<'_> {
    /// Refuses a `memory_limit` that is too small for this source and the output. The engine would too, but then
    /// directories are made, and the state is there.
    pub(super) fn check_memory(&self, source: &dyn Source) -> Result<()> {
        let settings = self.settings(0);
        Plan::new(&settings, &self.shape(), Needs::of(source, settings.workers)).map(drop)
    }

    /// What of the sink's shape is known before there is one, and decides how much memory it takes.
    fn shape(&self) -> Shape {
        let any = |writers, part| Shape { writers, part: Some(part), order: Order::Any, ..Shape::default() };
        match &self.config.output.to {
            Place::Dir(_) if self.mode == Mode::Store => any(WRITERS, PART),
            #[cfg(feature = "s3")]
            Place::S3 { .. } if self.mode == Mode::Store => {
                let s3 = &self.config.s3;
                any(s3.concurrency, usize::try_from(s3.part_size).unwrap_or(usize::MAX))
            }
            Place::Kafka(_) if self.mode == Mode::Store => Shape::default(),
            _ => Shape { order: Order::Total, ..Shape::default() },
        }
    }

    /// The sink of a job that needs no brokers, or only to write to.
    pub(super) fn sink(&self, namer: &Namer) -> Result<Box<dyn Sink>> {
        #[cfg(feature = "kafka")]
        if self.mode == Mode::Store && self.config.uses_kafka() {
            return self.sink_with_kafka(namer, &self.cluster()?, None);
        }
        self.local_sink(namer)
    }

    /// Directory, file, bucket or stdout.
    pub(super) fn local_sink(&self, namer: &Namer) -> Result<Box<dyn Sink>> {
        let output = &self.config.output;
        if self.mode == Mode::Rehearse {
            let out = StdoutSink::new(Codec::None, self.stop)?;
            return Ok(Box::new(Rehearsal::new(out, self.letters_in_earnest())));
        }
        let fsync = if output.fsync { Fsync::On } else { Fsync::Off };
        let (codec, stop) = (output.codec, self.stop.clone());
        match &output.to {
            Place::Dir(root) => Ok(Box::new(DirSink::prepare(DirOptions {
                root: root.clone(),
                namer: namer.clone(),
                fsync,
                writers: WRITERS,
                dead_letter: output.dead_letter_dir().cloned(),
                redo: self.config.plans(),
            })?)),
            Place::File(path) => {
                let options = FileTo { path: path.clone(), codec, fsync, stop };
                self.with_letters(FileSink::create(options)?, namer)
            }
            Place::Stdout => self.with_letters(StdoutSink::new(codec, self.stop)?, namer),
            #[cfg(feature = "s3")]
            Place::S3 { bucket, .. } => Ok(Box::new(self.bucket_sink(bucket, namer)?)),
            #[cfg(not(feature = "s3"))]
            Place::S3 { .. } => Err(Error::Usage("this build has no S3 client (feature s3)".into())),
            Place::Kafka(topic) => Err(Error::Usage(format!("this build cannot write to kafka:{topic}"))),
        }
    }

    /// What the run that is rehearsed would do with dead letters.
    fn letters_in_earnest(&self) -> DeadLetters {
        let output = &self.config.output;
        let named = output.dead_letter.is_some();
        match &output.to {
            Place::Dir(_) | Place::S3 { .. } => DeadLetters::Store,
            Place::File(_) | Place::Stdout | Place::Kafka(_) if named => DeadLetters::Store,
            Place::File(_) | Place::Stdout | Place::Kafka(_) => DeadLetters::Refuse,
        }
    }

    /// With dead letters in a directory, where one was named.
    pub(super) fn with_letters<S: Sink + 'static>(&self, main: S, namer: &Namer) -> Result<Box<dyn Sink>> {
        let fsync = if self.config.output.fsync { Fsync::On } else { Fsync::Off };
        match self.config.output.dead_letter_dir() {
            Some(root) => Ok(Box::new(WithDeadLetters::prepare(main, root, namer.clone(), fsync)?)),
            None => Ok(Box::new(main)),
        }
    }
}
