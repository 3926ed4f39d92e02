//! [`S3Upload`]: a batch that is stored in parts while it is still open. Each of its two streams is a multipart
//! upload, begun when its first part comes; a stream whose first part is its last waits and is one PUT.
//!
//! [`Upload::publish`] may be called again after an error at any point. If the store does not know the upload any
//! more, it was completed and nobody heard of it, or somebody else gave it up: the object tells which. In the second
//! case the batch is in doubt ([`Error::InDoubt`]), and whoever can reads it again (boundary plan, rule 16).

use parking_lot::Mutex;

use super::{Again, Expected, Published, Target};
use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::codec::sum::joined;
use crate::error::{Error, Result, Retry};
use crate::s3::{self, Bucket, Content, Multipart, PartTag};
use crate::sink::{Part, Stream, Totals, Upload};
use std::sync::Arc;

/// A batch that is being stored.
pub(super) struct S3Upload {
    target: Arc<Target>,
    id: BatchId,
    /// Keys of the output and of the dead letters.
    keys: [String; 2],
    slots: [Mutex<Slot>; 2],
}

/// What is stored of one stream.
#[derive(Default)]
enum Slot {
    /// No part came yet.
    #[default]
    Empty,
    /// All of it, in memory.
    Whole(Body),
    /// The upload and its parts.
    Begun(Arc<Multipart>, Tags),
    /// It has its name.
    Published,
    /// It was given up.
    Aborted,
}

/// Parts by index, and the checksum and length of each.
type Tags = Vec<Option<(PartTag, u64)>>;

impl S3Upload {
    pub(super) fn new(target: Arc<Target>, id: &BatchId) -> Self {
        let keys = [target.options.namer.stored(id), target.options.namer.failed(id)];
        S3Upload { target, id: id.clone(), keys, slots: Default::default() }
    }

    /// The upload of a stream; whoever comes first begins it.
    fn upload(&self, stream: Stream) -> Result<Arc<Multipart>> {
        let mut slot = self.slots[stream as usize].lock();
        let key = &self.keys[stream as usize];
        match &*slot {
            Slot::Begun(upload, _) => Ok(upload.clone()),
            Slot::Empty => {
                let bucket = self.target.bucket();
                let upload = Arc::new(self.target.describe(key, &self.id, |object| bucket.begin(object))?);
                *slot = Slot::Begun(upload.clone(), Vec::new());
                Ok(upload)
            }
            Slot::Whole(_) | Slot::Published | Slot::Aborted => Err(misuse(key, "a part came after the end")),
        }
    }

    fn publish_stream(
        &self,
        stream: Stream,
        again: Again,
        len: u64,
        crc32c: Option<u32>,
    ) -> Result<Option<String>> {
        let key = &self.keys[stream as usize];
        let mut slot = self.slots[stream as usize].lock();
        match &*slot {
            Slot::Empty if len == 0 => return Ok(None),
            Slot::Whole(body) if body.len() == len => {
                self.target.put(key, &self.id, again, body)?;
            }
            Slot::Begun(upload, tags) => {
                let Some((tags, all)) = whole(tags, len) else {
                    return Err(misuse(key, "parts are missing"));
                };
                let expected = Expected { key, id: &self.id, again, len, crc32c: crc32c.unwrap_or(all) };
                self.complete(upload, &tags, &expected)?;
            }
            Slot::Published => {}
            Slot::Empty | Slot::Whole(_) | Slot::Aborted => return Err(misuse(key, "parts are missing")),
        }
        *slot = Slot::Published;
        Ok(Some(key.clone()))
    }

    fn complete(&self, upload: &Multipart, tags: &[PartTag], expected: &Expected<'_>) -> Result<()> {
        let bucket = self.target.bucket();
        let completed = self
            .target
            .publish(expected, |condition| bucket.complete(upload, tags, expected.crc32c, condition));
        match completed {
            Ok(Published::Now) => Ok(()),
            Ok(Published::Before) => {
                give_up(bucket, upload);
                Ok(())
            }
            Err(error) if is_gone(&error) => match self.target.is_published(expected)? {
                true => Ok(()),
                false => Err(Error::InDoubt { what: error.to_string() }),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the store does not know the upload any more.
fn is_gone(error: &s3::Error) -> bool {
    error.has_code("NoSuchUpload")
}

/// Removes the parts of an upload that comes to nothing.
fn give_up(bucket: &Bucket, upload: &Multipart) {
    if let Err(error) = bucket.abort(upload) {
        log::warn!("{error}; its parts stay there until the store's own rules remove them");
    }
}

/// All parts and the checksum of all their bytes, if they are `len` bytes together.
fn whole(tags: &Tags, len: u64) -> Option<(Vec<PartTag>, u32)> {
    let tags: Option<Vec<_>> = tags.iter().cloned().collect();
    let tags = tags?;
    if tags.iter().map(|(_, len)| len).sum::<u64>() != len {
        return None;
    }
    let crc32c = tags.iter().fold(0, |crc, (tag, len)| joined(crc, tag.crc32c, *len));
    Some((tags.into_iter().map(|(tag, _)| tag).collect(), crc32c))
}

impl Upload for S3Upload {
    fn part(&self, part: &Part) -> Result<()> {
        let place = part.stream as usize;
        if part.last && part.index == 0 {
            *self.slots[place].lock() = Slot::Whole(part.body.clone());
            return Ok(());
        }
        let upload = self.upload(part.stream)?;
        let tag = self.target.bucket().part(&upload, part.index + 1, Content::Pieces(&part.body));
        let tag = tag.map_err(|error| match is_gone(&error) {
            true => Error::InDoubt { what: error.to_string() },
            false => error.into(),
        })?;
        if let Slot::Begun(_, tags) = &mut *self.slots[place].lock() {
            let index = part.index as usize;
            if tags.len() <= index {
                tags.resize(index + 1, None);
            }
            tags[index] = Some((tag, part.body.len()));
        }
        Ok(())
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        let again = self.target.again(batch);
        let failed_key = self.publish_stream(Stream::Failed, again, totals.failed, None)?;
        let key = self.publish_stream(Stream::Stored, again, totals.stored, Some(totals.stored_crc32c))?;
        Ok(totals.receipt(batch, key, failed_key))
    }

    fn abort(&self) {
        for slot in &self.slots {
            let mut slot = slot.lock();
            if matches!(*slot, Slot::Published) {
                continue;
            }
            if let Slot::Begun(upload, _) = std::mem::replace(&mut *slot, Slot::Aborted) {
                give_up(self.target.bucket(), &upload);
            }
        }
    }
}

/// The engine did not keep the rules of [`Upload`].
fn misuse(key: &str, what: &str) -> Error {
    Error::other(format!("cannot publish {key}"), Retry::Permanent, what.to_owned())
}
