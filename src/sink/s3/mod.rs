//! [`S3Sink`]: an object a batch. Small batches are one PUT; larger ones are stored in parts while they are still
//! open (`upload.rs`). Dead letters stand under `failed/` in the same bucket and are there before the output.
//!
//! Where an object may not be replaced ([`Publish::Once`]), it is stored on the condition that nothing has its key.
//! The store's refusal (412) then means one of two things: this very batch was stored before and nobody heard of
//! it, or somebody else's object is there. The metadata that every object carries, its length and its checksum
//! tell which. A store that does not know of conditions (501) is asked without them from then on.

mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::error::Result;
use crate::s3::{self, Bucket, Condition, Content, Object};
use crate::sink::key::Namer;
use crate::sink::{DeadLetters, Framing, Order, Shape, Sink, Upload};

/// What every object carries: where its batch begins and when it was opened.
const BATCH: &str = "pipeline-batch";

/// How batches are stored.
#[derive(Debug)]
pub struct S3Options {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Names, with the prefix.
    pub namer: Namer,
    /// From so many bytes on a batch is stored in parts.
    pub part: usize,
    /// Requests side by side.
    pub writers: usize,
    /// Whether objects may be replaced.
    pub publish: Publish,
    /// Headers that say how objects are stored.
    pub headers: Vec<(&'static str, String)>,
    /// Metadata of the user's.
    pub metadata: Vec<(String, String)>,
}

/// Whether objects may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// They may: the same batch again is the same records.
    Over,
    /// They may not, where the store can tell.
    Once,
    /// They may not, and the store must be able to tell.
    OnceOrNever,
}

/// Stores each batch as an object.
#[derive(Debug)]
pub struct S3Sink {
    target: Arc<Target>,
}

/// What uploads share.
#[derive(Debug)]
struct Target {
    options: S3Options,
    /// Whether the store knows of conditions, as far as is known.
    conditional: AtomicBool,
}

impl S3Sink {
    /// A sink. Asks nobody.
    pub fn new(options: S3Options) -> Self {
        let conditional = AtomicBool::new(options.publish != Publish::Over);
        S3Sink { target: Arc::new(Target { options, conditional }) }
    }
}

impl Target {
    fn bucket(&self) -> &Bucket {
        &self.options.bucket
    }

    fn condition(&self) -> Condition<'static> {
        if self.conditional.load(Ordering::Relaxed) { Condition::Absent } else { Condition::None }
    }

    /// Calls `send` with an object's description.
    fn describe<T>(&self, key: &str, id: &BatchId, send: impl FnOnce(&Object<'_>) -> T) -> T {
        let ours = [(BATCH, mark(id))];
        let users = self.options.metadata.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let metadata: Vec<(&str, String)> = users.chain(ours).collect();
        send(&Object { key, headers: &self.options.headers, metadata: &metadata })
    }

    /// Stores one body as an object.
    fn put(&self, key: &str, id: &BatchId, body: &Body) -> s3::Result<()> {
        let expected = Expected { key, id, len: body.len(), crc32c: body.crc32c() };
        self.once(&expected, |condition| {
            self.describe(key, id, |object| self.bucket().put(object, Content::Pieces(body), condition))
                .map(drop)
        })
    }

    /// Publishes on the condition that there is one, and finds out what a refusal means.
    fn once(
        &self,
        expected: &Expected<'_>,
        publish: impl Fn(Condition<'static>) -> s3::Result<()>,
    ) -> s3::Result<()> {
        let condition = self.condition();
        let error = match publish(condition) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if condition == Condition::None {
            return Err(error);
        }
        match error.status() {
            Some(412) => self.compare(expected),
            Some(501) if self.options.publish == Publish::Once => {
                if self.conditional.swap(false, Ordering::Relaxed) {
                    log::warn!("{error}; storing without conditions from now on (s3.conditional = off)");
                }
                publish(Condition::None)
            }
            _ => Err(error),
        }
    }

    /// Whether what is there is what was to be stored.
    fn compare(&self, expected: &Expected<'_>) -> s3::Result<()> {
        let key = expected.key;
        let what = || self.bucket().subject("store", key);
        let Some(found) = self.bucket().head(key)? else {
            // It was there a moment ago.
            return Err(s3::Error::Odd { what: what(), why: "it is there and it is not".into() });
        };
        let how = if found.metadata(BATCH) != Some(mark(expected.id).as_str()) {
            "it is not of this batch".to_owned()
        } else if found.len != expected.len {
            format!("it has {} bytes, not {}", found.len, expected.len)
        } else if found.crc32c.is_some_and(|crc32c| crc32c != expected.crc32c) {
            "its checksum is another".to_owned()
        } else {
            return Ok(());
        };
        Err(s3::Error::Occupied { what: what(), how })
    }

    fn store(&self, batch: &Batch) -> s3::Result<Receipt> {
        let store = |key: String, body: &Body| {
            (!body.is_empty()).then(|| self.put(&key, &batch.id, body).map(|()| key)).transpose()
        };
        let failed_key = store(self.options.namer.failed(&batch.id), &batch.failed)?;
        let key = store(self.options.namer.stored(&batch.id), &batch.stored)?;
        Ok(Receipt::of(batch, key, failed_key))
    }
}

/// What an object of a batch must be.
struct Expected<'a> {
    key: &'a str,
    id: &'a BatchId,
    len: u64,
    crc32c: u32,
}

/// What tells a batch from others that have had its name.
fn mark(id: &BatchId) -> String {
    format!("{}@{}", id.start, id.opened_at)
}

impl Sink for S3Sink {
    fn shape(&self) -> Shape {
        Shape {
            writers: self.target.options.writers,
            order: Order::Any,
            part: Some(self.target.options.part),
            framing: Framing::Batch,
            dead_letters: DeadLetters::Store,
            checksums: true,
            ..Shape::default()
        }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            receipts.push(self.target.store(batch)?);
        }
        Ok(())
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::S3Upload::new(self.target.clone(), id)))
    }
}
