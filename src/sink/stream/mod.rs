//! Sinks that are one stream: [`FileSink`] and [`StdoutSink`], and [`WithDeadLetters`], which gives them a place
//! for dead letters. They take everything in one order and frame it as one container.
//!
//! A stream cannot take a byte back, so a write that failed half-way is never tried again: the sink refuses
//! everything after it. Whoever reads a pipe may stall for ever; every wait for it ends within
//! a tenth of a second of an abort.

mod file;
mod letters;
mod pipe;
mod stdout;

pub use file::{FileOptions, FileSink};
pub use letters::WithDeadLetters;
pub use stdout::StdoutSink;

use std::fs::File;
use std::path::PathBuf;

use crate::batch::{Batch, Body, Piece, Receipt};
use crate::codec::{Codec, Encoder, Framer};
use crate::error::{Error, Result, Retry};
use crate::sink::{DeadLetters, Framing, Order, Shape};
use crate::stop::Stop;
use pipe::Kind;

/// So much is handed over at a time, if it is there.
const GROUP: usize = 4 << 20;

/// What the engine must know of a stream.
fn shape() -> Shape {
    Shape {
        writers: 1,
        order: Order::Total,
        part: None,
        framing: Framing::Stream,
        dead_letters: DeadLetters::Refuse,
        checksums: false,
        group: GROUP,
        ..Shape::default()
    }
}

/// An open stream and the container that is written to it.
struct Out {
    file: File,
    kind: Kind,
    /// What errors call it.
    name: PathBuf,
    /// `None` when it is finished.
    framer: Option<Framer>,
    codec: Codec,
    /// Whether it has a block.
    any: bool,
    stop: Stop,
    broken: bool,
}

impl Out {
    fn new(file: File, name: PathBuf, codec: Codec, stop: Stop) -> Result<Self> {
        let kind = Kind::of(&file).map_err(|error| Error::io("examine", &name, error))?;
        Ok(Out { file, kind, name, framer: Some(Framer::new(codec)), codec, any: false, stop, broken: false })
    }

    /// Writes whole batches; what follows the first error is not written.
    fn store(&mut self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            let mut body = Body::default();
            let framer = self.framer.as_mut().ok_or_else(finished)?;
            self.any |= !batch.stored.is_empty();
            batch.stored.pieces().iter().for_each(|piece| framer.push(piece.clone(), &mut body));
            self.write(&body)?;
            receipts.push(Receipt { crc32c: 0, ..Receipt::of(batch, None, None) });
        }
        Ok(())
    }

    /// Writes what stands behind the last block. Nothing can be stored after it; again, it does nothing. Without
    /// any block it is still a container: a file of no bytes is none to `gzip -t`.
    fn finish(&mut self) -> Result<()> {
        let mut body = Body::default();
        if let Some(mut framer) = self.framer.take() {
            if !self.any && self.codec != Codec::None {
                framer.push(empty_block(self.codec), &mut body);
            }
            framer.finish(&mut body);
        }
        self.write(&body)
    }

    fn write(&mut self, body: &Body) -> Result<()> {
        if self.broken {
            return Err(Error::other(
                format!("cannot go on with {}", self.name.display()),
                Retry::Permanent,
                "an earlier write failed half-way",
            ));
        }
        // Until it is known to be whole.
        self.broken = true;
        pipe::write_all(&self.file, self.kind, body, &self.stop).map_err(|error| self.name_error(error))?;
        self.broken = false;
        Ok(())
    }

    fn name_error(&self, error: pipe::WriteError) -> Error {
        match error {
            pipe::WriteError::Stopped => Error::Stopped,
            pipe::WriteError::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Error::OutputClosed
            }
            pipe::WriteError::Io(error) => Error::io("write", &self.name, error),
        }
    }
}

fn empty_block(codec: Codec) -> Piece {
    let mut bytes = Vec::new();
    let raw_crc = Encoder::new(codec).encode(&[], &mut bytes);
    let mut piece = Piece::owned(bytes);
    (piece.raw_len, piece.raw_crc) = (0, raw_crc);
    piece
}

fn finished() -> Error {
    Error::other("cannot store", Retry::Permanent, "the stream was finished")
}

#[cfg(test)]
mod tests;
