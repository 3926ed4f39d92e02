//! [`DirUpload`]: a batch that is written in parts while it is still open: one temporary file a stream, made
//! when its first part comes, parts at their offsets in any order and in parallel.
//!
//! [`Upload::publish`] may be called again after an error at any point: a file that already has its name is
//! left alone, and its directory is synced again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::place::{Place, Touched};
use super::temporary::TempFile;
use super::{Dated, Letters, replace};
use crate::batch::{Batch, BatchId, Receipt};
use crate::error::{Error, Result, Retry};
use crate::sink::{Part, Stream, Totals, Upload};

/// A batch that is being written.
#[derive(Debug)]
pub struct DirUpload {
    stored: Arc<Place>,
    letters: Arc<Letters>,
    /// Names of the output and of the dead letters.
    keys: [String; 2],
    redo: bool,
    files: [Mutex<Slot>; 2],
}

/// The temporary file of one stream.
#[derive(Debug, Default)]
enum Slot {
    /// No part came yet.
    #[default]
    Empty,
    /// The file, and the descriptor that parts are written through.
    Open(TempFile, Arc<File>),
    /// It has its name.
    Published,
    /// It was given up.
    Aborted,
}

impl DirUpload {
    pub(super) fn new(stored: Arc<Place>, letters: Arc<Letters>, id: &BatchId, redo: bool) -> Self {
        let keys = [letters.namer.stored(id), letters.namer.failed(id)];
        DirUpload { stored, letters, keys, redo, files: Default::default() }
    }

    fn key(&self, stream: Stream) -> &str {
        &self.keys[stream as usize]
    }

    fn place(&self, stream: Stream) -> &Place {
        match stream {
            Stream::Stored => &self.stored,
            Stream::Failed => self.letters.place(),
        }
    }

    /// The descriptor of a stream's file; the file is made if there is none yet.
    fn file(&self, stream: Stream) -> Result<Arc<File>> {
        let mut slot = self.files[stream as usize].lock();
        match &*slot {
            Slot::Open(_, file) => Ok(file.clone()),
            Slot::Published | Slot::Aborted => Err(misuse(self.key(stream), "a part came after the end")),
            Slot::Empty => {
                let temp = self.place(stream).file()?;
                let file = temp.file().try_clone();
                let file = Arc::new(file.map_err(|error| Error::io("open", temp.path(), error))?);
                *slot = Slot::Open(temp, file.clone());
                Ok(file)
            }
        }
    }

    /// Publishes one stream of `len` bytes, or removes a stale file if it has none; tells the name it then has.
    fn publish_stream(&self, stream: Stream, batch: &Batch, len: u64) -> Result<Option<String>> {
        let mut slot = self.files[stream as usize].lock();
        let place = self.place(stream);
        let key = self.key(stream).to_owned();
        let mut touched = Touched::default();
        let dated = Dated::of(batch, self.redo);
        let key = match &mut *slot {
            Slot::Open(temp, _) => {
                check_len(temp, len, &key)?;
                dated.map_or(Ok(()), |dated| place.date(temp, dated.opened_at))?;
                if let Err(error) = place.sync(temp) {
                    // The kernel tells of lost pages once: a second sync would succeed without them.
                    *slot = Slot::Aborted;
                    return Err(error);
                }
                self.letters.any.fetch_or(stream == Stream::Failed, Ordering::Relaxed);
                let key = replace(place, Some(temp), key, dated, &mut touched)?;
                *slot = Slot::Published;
                key
            }
            Slot::Published => {
                place.touch(&key, &mut touched)?;
                Some(key)
            }
            Slot::Empty if len == 0 => match stream {
                Stream::Stored => replace(place, None, key, dated, &mut touched)?,
                Stream::Failed => self.letters.publish(&batch.id, None, dated, &mut touched)?,
            },
            Slot::Empty | Slot::Aborted => return Err(misuse(&key, "parts are missing")),
        };
        place.settle(touched)?;
        Ok(key)
    }
}

impl Upload for DirUpload {
    fn part(&self, part: &Part) -> Result<()> {
        let (file, mut at) = (self.file(part.stream)?, part.offset);
        for piece in part.body.pieces() {
            if let Err(error) = file.write_all_at(piece.bytes(), at) {
                // Named by the path that people know; the temporary one is gone when they look.
                let path = self.place(part.stream).root().join(self.key(part.stream));
                return Err(Error::io("write", path, error));
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        let failed_key = self.publish_stream(Stream::Failed, batch, totals.failed)?;
        let key = self.publish_stream(Stream::Stored, batch, totals.stored)?;
        Ok(totals.receipt(batch, key, failed_key))
    }

    fn abort(&self) {
        for slot in &self.files {
            let mut slot = slot.lock();
            if !matches!(*slot, Slot::Published) {
                *slot = Slot::Aborted;
            }
        }
    }
}

/// The last look before a file becomes visible: all of it must be there.
fn check_len(temp: &TempFile, len: u64, key: &str) -> Result<()> {
    let metadata = temp.file().metadata().map_err(|error| Error::io("examine", temp.path(), error))?;
    match metadata.len() == len {
        true => Ok(()),
        false => Err(misuse(key, &format!("{} of {len} bytes were written", metadata.len()))),
    }
}

/// The engine did not keep the rules of [`Upload`].
fn misuse(key: &str, what: &str) -> Error {
    Error::other(format!("cannot publish {key}"), Retry::Permanent, what.to_owned())
}
