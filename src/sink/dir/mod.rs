//! The directory sink: one file a batch, under a temporary name until it is whole and durable.
//!
//! A batch is seen whole or not at all: its file is written in the run's [`temporary`] directory, synced,
//! renamed into place, and has a receipt only when its directory entry is durable too ([`place`]). Dead letters
//! become visible before the output of their batch. Storing a batch again replaces its files; a stream that has
//! become empty takes its stale file away. It never reads a clock and never touches a file that it did not name.
//!
//! Whole batches come to [`DirSink`]; batches larger than a part go through an [`upload`].

pub mod place;
pub mod temporary;
pub mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use place::Touched;
pub use place::{Fsync, Place};
use temporary::TempFile;

use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::codec::Codec;
use crate::cut::Close;
use crate::error::Result;
use crate::sink::key::{Namer, top};
use crate::sink::{DeadLetters, Framing, Order, Shape, Sink, Stream, Upload};

/// Size in bytes from which a batch comes in parts.
pub const PART: usize = 1 << 20;
/// Batches whose files are open at a time: two each, and a process has 1024 unless told otherwise.
const GROUP: usize = 64;

/// What a [`DirSink`] is made of.
#[derive(Clone, Debug)]
pub struct DirOptions {
    /// The directory. Made where it is missing.
    pub root: PathBuf,
    /// Names of the files.
    pub namer: Namer,
    /// Whether a receipt survives a power failure.
    pub fsync: Fsync,
    /// How many threads may store at a time.
    pub writers: usize,
    /// Another directory under which `failed/` stands; `None`: the root.
    pub dead_letter: Option<PathBuf>,
    /// Whether another owner may be told to store a batch that is stored already. Files then have the time that
    /// their batch was opened at as their own, and one that has it is left alone: records that it holds may have
    /// left the source since.
    pub redo: bool,
}

impl DirOptions {
    /// This directory, default names, everything synced, dead letters beside the output. `codec` must be the one
    /// of [`crate::Settings`]: it is part of the names.
    pub fn new(root: impl Into<PathBuf>, codec: Codec) -> Self {
        let namer = Namer::new("", codec);
        DirOptions { root: root.into(), namer, fsync: Fsync::On, writers: 4, dead_letter: None, redo: false }
    }
}

/// Stores each batch as a file.
#[derive(Debug)]
pub struct DirSink {
    stored: Arc<Place>,
    letters: Arc<Letters>,
    namer: Namer,
    writers: usize,
    redo: bool,
}

impl DirSink {
    /// Makes the directories, checks that they can be written and sweeps what dead runs left there.
    ///
    /// # Errors
    /// If nothing can be stored there.
    pub fn prepare(options: DirOptions) -> Result<Self> {
        let stored = Place::prepare(&options.root, options.fsync)?;
        let failed = match &options.dead_letter {
            Some(root) => Place::prepare(root, options.fsync)?,
            None => stored.clone(),
        };
        let letters = Arc::new(Letters::new(failed, options.namer.clone()));
        Ok(DirSink {
            stored,
            letters,
            namer: options.namer,
            writers: options.writers.max(1),
            redo: options.redo,
        })
    }

    /// Stores up to [`GROUP`] batches; an error may follow receipts for those before it.
    fn store_group(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let mut staged = Vec::with_capacity(batches.len());
        let mut outcome = Ok(());
        for batch in batches {
            match self.stage(batch) {
                Ok(files) => {
                    if batches.len() > 1 {
                        files.stored.iter().for_each(|file| self.stored.begin_sync(file));
                        files.failed.iter().for_each(|file| self.letters.place.begin_sync(file));
                    }
                    staged.push(files);
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut ready = Vec::with_capacity(staged.len());
        let mut touched = [Touched::default(), Touched::default()];
        for files in &mut staged {
            match self.publish(files, &mut touched) {
                Ok(receipt) => ready.push(receipt),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let [stored, failed] = touched;
        self.letters.place.settle(failed)?;
        self.stored.settle(stored)?;
        receipts.append(&mut ready);
        outcome
    }

    fn stage<'a>(&self, batch: &'a Batch) -> Result<Staged<'a>> {
        let dated = Dated::of(batch, self.redo);
        let stage =
            |place: &Place, body: &Body| (!body.is_empty()).then(|| stage(place, body, dated)).transpose();
        let failed = stage(&self.letters.place, &batch.failed)?;
        Ok(Staged { batch, dated, stored: stage(&self.stored, &batch.stored)?, failed })
    }

    fn publish(&self, files: &mut Staged<'_>, touched: &mut [Touched; 2]) -> Result<Receipt> {
        let [stored, failed] = touched;
        // Synced in full before the first rename, so that both become visible close together.
        files.stored.iter().try_for_each(|file| self.stored.sync(file))?;
        let failed_key = self.letters.publish(&files.batch.id, files.failed.as_mut(), files.dated, failed)?;
        let key = self.namer.stored(&files.batch.id);
        let key = replace(&self.stored, files.stored.as_mut(), key, files.dated, stored)?;
        Ok(Receipt::of(files.batch, key, failed_key))
    }
}

impl Sink for DirSink {
    fn shape(&self) -> Shape {
        Shape {
            service: "directory",
            writers: self.writers,
            order: Order::Any,
            part: Some(PART),
            framing: Framing::Batch,
            dead_letters: DeadLetters::Store,
            checksums: true,
            codec: Some(self.namer.codec()),
            // Directories of many small inputs are synced once for several of them.
            group: PART,
            ..Shape::default()
        }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        batches.chunks(GROUP).try_for_each(|group| self.store_group(group, receipts))
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::DirUpload::new(self.stored.clone(), self.letters.clone(), id, self.redo)))
    }
}

/// A batch's files, written but not visible.
struct Staged<'a> {
    batch: &'a Batch,
    dated: Option<Dated>,
    stored: Option<TempFile>,
    failed: Option<TempFile>,
}

/// When a batch was opened, where files are dated with that.
#[derive(Clone, Copy, Debug)]
struct Dated {
    opened_at: i64,
    /// Whether an earlier owner planned the batch, so that it may be stored already.
    again: bool,
}

impl Dated {
    fn of(batch: &Batch, redo: bool) -> Option<Self> {
        redo.then_some(Dated { opened_at: batch.id.opened_at, again: batch.close == Close::Planned })
    }
}

fn stage(place: &Place, body: &Body, dated: Option<Dated>) -> Result<TempFile> {
    let file = place.stage(body)?;
    dated.map_or(Ok(()), |dated| place.date(&file, dated.opened_at))?;
    Ok(file)
}

/// The dead letters' half of a directory sink; of use to sinks that have no place for them.
#[derive(Debug)]
pub struct Letters {
    place: Arc<Place>,
    namer: Namer,
    /// Whether anything may stand under `failed/`. Most runs have none, and save a system call a batch.
    any: AtomicBool,
}

impl Letters {
    /// Dead letters under `failed/` in `place`.
    pub fn new(place: Arc<Place>, namer: Namer) -> Self {
        let top = place.root().join(namer.prefix()).join(top(Stream::Failed));
        let any = AtomicBool::new(top.symlink_metadata().is_ok());
        Letters { place, namer, any }
    }

    /// Where they are.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Stores the dead letters of one batch, or removes stale ones. Durable on return.
    ///
    /// # Errors
    /// If they are not stored.
    pub fn store(&self, id: &BatchId, body: &Body) -> Result<Option<String>> {
        let mut file = (!body.is_empty()).then(|| self.place.stage(body)).transpose()?;
        let mut touched = Touched::default();
        let key = self.publish(id, file.as_mut(), None, &mut touched)?;
        self.place.settle(touched)?;
        Ok(key)
    }

    /// Makes a file visible as the dead letters of a batch, or removes stale ones.
    fn publish(
        &self,
        id: &BatchId,
        file: Option<&mut TempFile>,
        dated: Option<Dated>,
        touched: &mut Touched,
    ) -> Result<Option<String>> {
        if file.is_some() {
            self.any.store(true, Ordering::Relaxed);
        } else if !self.any.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(file) = &file {
            self.place.sync(file)?;
        }
        replace(&self.place, file, self.namer.failed(id), dated, touched)
    }
}

/// Gives a file its name, or removes what has it; tells the name if a file stands there. What an earlier owner has
/// stored of the same batch stays.
fn replace(
    place: &Place,
    file: Option<&mut TempFile>,
    key: String,
    dated: Option<Dated>,
    touched: &mut Touched,
) -> Result<Option<String>> {
    if let Some(Dated { opened_at, again: true }) = dated
        && place.has(&key, opened_at)?
    {
        return place.touch(&key, touched).map(|()| Some(key));
    }
    match file {
        Some(file) => place.publish(file, &key, touched).map(|()| Some(key)),
        None => place.remove(&key, touched).map(|()| None),
    }
}

#[cfg(test)]
pub(crate) mod tests;
