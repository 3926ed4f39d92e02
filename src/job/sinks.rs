//! The sink of a job: where the output goes, and around it what dead letters need.

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
    pub(super) fn sink(&self, namer: &Namer) -> Result<Box<dyn Sink>> {
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
            })?)),
            Place::File(path) => self.with_letters(
                FileSink::create(FileTo { path: path.clone(), codec, fsync, stop })?,
                namer,
                fsync,
            ),
            Place::Stdout => self.with_letters(StdoutSink::new(codec, self.stop)?, namer, fsync),
            Place::Kafka(topic) => Err(Error::Usage(format!("this build cannot write to kafka:{topic} yet"))),
        }
    }

    fn with_letters<S: Sink + 'static>(&self, main: S, namer: &Namer, fsync: Fsync) -> Result<Box<dyn Sink>> {
        match self.config.output.dead_letter_dir() {
            Some(root) => Ok(Box::new(WithDeadLetters::prepare(main, root, namer.clone(), fsync)?)),
            None => Ok(Box::new(main)),
        }
    }
}
