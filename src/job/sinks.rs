//! The sink of a job: where the output goes, and around it what dead letters and notifications need.
//!
//! From the inside out: the output, the dead letters' place where that is another one, the notifications. Each is
//! a sink that wraps a sink, so every pair of them works.

use super::rehearsal::Rehearsal;
use super::{Job, Mode};
use crate::codec::Codec;
use crate::config::Place;
use crate::error::{Error, Result};
use crate::sink::Sink;
use crate::sink::dir::{DirOptions, DirSink, Fsync};
use crate::sink::key::Namer;
use crate::sink::stream::{FileOptions as FileTo, FileSink, StdoutSink, WithDeadLetters};

/// Threads that store files: they mostly wait for the disk.
const WRITERS: usize = 4;

impl Job<'_> {
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
            return Ok(Box::new(Rehearsal::new(StdoutSink::new(Codec::None, self.stop)?)));
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

    /// With dead letters in a directory, where one was named.
    pub(super) fn with_letters<S: Sink + 'static>(&self, main: S, namer: &Namer) -> Result<Box<dyn Sink>> {
        let fsync = if self.config.output.fsync { Fsync::On } else { Fsync::Off };
        match self.config.output.dead_letter_dir() {
            Some(root) => Ok(Box::new(WithDeadLetters::prepare(main, root, namer.clone(), fsync)?)),
            None => Ok(Box::new(main)),
        }
    }
}
