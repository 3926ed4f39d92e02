//! Standard output: records only, in order. A reader that goes away ends the run quietly.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{Out, pipe, shape};
use crate::batch::{Batch, Receipt};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::sink::{Shape, Sink};
use crate::stop::Stop;

/// Writes to standard output. Nothing is kept back: what has a receipt was taken by the system.
pub struct StdoutSink(Mutex<Out>);

impl StdoutSink {
    /// The process's standard output.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(codec: Codec, stop: &Stop) -> Result<Self> {
        let name = PathBuf::from("standard output");
        let file = io::stdout().as_fd().try_clone_to_owned();
        let file = file.map_err(|error| Error::io("open", &name, error))?;
        Self::on(file.into(), codec, stop)
    }

    /// An open descriptor in its place.
    ///
    /// # Errors
    /// If it cannot be examined.
    pub fn on(file: File, codec: Codec, stop: &Stop) -> Result<Self> {
        let file = pipe::reopen(&file).unwrap_or(file);
        Ok(Self::of(Out::new(file, "standard output".into(), codec, stop.clone())?))
    }

    pub(super) fn of(out: Out) -> Self {
        StdoutSink(Mutex::new(out))
    }
}

impl Sink for StdoutSink {
    fn shape(&self) -> Shape {
        Shape { service: "stdout", ..shape() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        self.0.lock().store(batches, receipts)
    }

    fn finish(&self) -> Result<()> {
        self.0.lock().finish()
    }
}
