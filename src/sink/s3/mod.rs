//! [`S3Sink`]: an object a batch. Small batches are one PUT; larger ones are stored in parts while they are still
//! open (`upload.rs`). Dead letters stand under `failed/` in the same bucket and are there before the output.
//!
//! Objects are stored on the condition that nothing has their key. The store's refusal (412) then means one of two
//! things: this very batch was stored before and nobody heard of it, or another object is there. The metadata that
//! every object carries, its length and its checksum tell which. Another one is an error, or is replaced where that
//! is meant ([`Occupied`]), on the condition that it is still the one that was seen: so a request that arrives late
//! replaces nothing. A store that does not know of conditions (501) is asked without them from then on.
//!
//! A batch that an earlier owner planned may be stored already, and records that its object holds may have left the
//! source since: the object is looked at first, and stays if it is of this batch.

pub(crate) mod publish;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::error::Result;
use crate::s3::{self, Bucket, Condition, Content, Object};
use crate::sink::key::Namer;
use crate::sink::{DeadLetters, Framing, Order, Shape, Sink, Upload};

use publish::{Again, Conditional, Expected, Published, Publishing, Step};

/// What every object carries: where its batch begins and when it was opened.
pub(crate) const BATCH: &str = "pipeline-batch";

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
    /// Whether the store is asked to refuse what would replace an object.
    pub conditions: Conditions,
    /// What is done about another object.
    pub occupied: Occupied,
    /// Whether another owner may be told to store a batch that is stored already.
    pub redo: bool,
    /// Headers that say how objects are stored.
    pub headers: Vec<(&'static str, String)>,
    /// Metadata of the user's.
    pub metadata: Vec<(String, String)>,
}

/// Whether the store is asked to refuse what would replace an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions {
    /// It is not.
    Never,
    /// It is, as long as it does not say that it cannot.
    Try,
    /// It is, and must be able to.
    Must,
}

/// What is done about another object that has a batch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// The run ends: names belong to one run and its state.
    Refuse,
    /// It is replaced: somebody reset what was committed, and has it exported again.
    Replace,
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
        let conditional = AtomicBool::new(options.conditions != Conditions::Never);
        S3Sink { target: Arc::new(Target { options, conditional }) }
    }
}

impl Target {
    fn bucket(&self) -> &Bucket {
        &self.options.bucket
    }

    /// Calls `send` with an object's description.
    fn describe<T>(&self, key: &str, id: &BatchId, send: impl FnOnce(&Object<'_>) -> T) -> T {
        let ours = [(BATCH, mark(id))];
        let users = self.options.metadata.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let metadata: Vec<(&str, String)> = users.chain(ours).collect();
        send(&Object { key, headers: &self.options.headers, metadata: &metadata })
    }

    /// Stores one body as an object.
    fn put(&self, key: &str, id: &BatchId, again: Again, body: &Body) -> s3::Result<Published> {
        let expected = Expected { key, id, again, len: body.len(), crc32c: body.crc32c() };
        self.publish(&expected, |condition| {
            let put = |object: &Object<'_>| self.bucket().put(object, Content::Pieces(body), condition);
            self.describe(key, id, put).map(drop)
        })
    }

    /// Publishes on the condition that nothing is there, and finds out what a refusal means.
    fn publish(
        &self,
        expected: &Expected<'_>,
        send: impl Fn(Condition<'_>) -> s3::Result<()>,
    ) -> s3::Result<Published> {
        let what = || self.bucket().subject("store", expected.key);
        let conditional =
            if self.conditional.load(Ordering::Relaxed) { Conditional::Yes } else { Conditional::No };
        let mut publishing = Publishing::new(expected.again, conditional, self.options.occupied);
        loop {
            let step = publishing.step();
            match &step {
                Step::Look => publishing.found(expected, self.bucket().head(expected.key)?.as_ref()),
                Step::Done(published) => return Ok(*published),
                Step::Occupied(how) => {
                    return Err(s3::Error::Occupied { what: what(), how: how.clone() });
                }
                Step::Odd => {
                    // It was there a moment ago.
                    return Err(s3::Error::Odd { what: what(), why: "it is there and it is not".into() });
                }
                Step::SendIfAbsent | Step::SendIfMatch(_) | Step::Send => {
                    let condition = step.condition().unwrap_or(Condition::None);
                    match send(condition) {
                        Ok(()) => publishing.sent(),
                        Err(error) => match error.status() {
                            Some(412) if condition != Condition::None => publishing.refused(),
                            Some(501) if condition != Condition::None && self.may_do_without(&error) => {
                                publishing.ignored();
                            }
                            _ => return Err(error),
                        },
                    }
                }
            }
        }
    }

    /// Whether a store that does not know of conditions will do; it is not asked with them any more.
    fn may_do_without(&self, error: &s3::Error) -> bool {
        let may = self.options.conditions == Conditions::Try;
        if may && self.conditional.swap(false, Ordering::Relaxed) {
            log::warn!("{error}; storing without conditions from now on (s3.conditional = off)");
        }
        may
    }

    /// Whether the batch is there although nobody heard of it.
    fn is_published(&self, expected: &Expected<'_>) -> s3::Result<bool> {
        let found = self.bucket().head(expected.key)?;
        Ok(found.is_some_and(|found| expected.difference(&found).is_none()))
    }

    fn again(&self, batch: &Batch) -> Again {
        if self.options.redo { Again::of(batch) } else { Again::Never }
    }

    fn store(&self, batch: &Batch) -> s3::Result<Receipt> {
        let again = self.again(batch);
        let store = |key: String, body: &Body| {
            (!body.is_empty()).then(|| self.put(&key, &batch.id, again, body).map(|_| key)).transpose()
        };
        let failed_key = store(self.options.namer.failed(&batch.id), &batch.failed)?;
        let key = store(self.options.namer.stored(&batch.id), &batch.stored)?;
        Ok(Receipt::of(batch, key, failed_key))
    }
}

/// What tells a batch from others that have had its name.
pub(crate) fn mark(id: &BatchId) -> String {
    format!("{}@{}", id.start, id.opened_at)
}

impl Sink for S3Sink {
    fn shape(&self) -> Shape {
        Shape {
            service: "s3",
            writers: self.target.options.writers,
            order: Order::Any,
            part: Some(self.target.options.part),
            // R2 takes no others.
            even_parts: true,
            framing: Framing::Batch,
            dead_letters: DeadLetters::Store,
            checksums: true,
            codec: Some(self.target.options.namer.codec()),
            singly: true,
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
