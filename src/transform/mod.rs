//! What a record becomes: [`Transform`], from a record to zero or more outputs or a rejection, and
//! [`Program`], which the pool runs once a section. Pure: no IO, no clock but [`Record::opened_at`].
//!
//! [`recipe::Recipe`] is the program of every run: validate, transform, wrap into the envelope, in one pass.

pub mod envelope;
pub mod letter;
pub mod pointer;
pub mod recipe;
mod value;

use std::io;

use crate::batch::Counts;
use crate::json::validate::Validator;
use crate::record::{Record, RejectKind, Rejection, Section};

/// A pure function from a record to zero or more outputs, or a rejection.
///
/// ```
/// use pipeline::{Outputs, Record, Rejection, Transform};
///
/// /// Keeps records that mention an error.
/// struct Errors;
///
/// impl Transform for Errors {
///     fn apply(&self, record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection> {
///         if record.bytes.windows(5).any(|word| word == b"error") {
///             out.push(record.bytes);
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Transform: Send + Sync {
    /// Pushes what the record becomes.
    ///
    /// # Errors
    /// A rejection makes the record a dead letter; what was pushed for it is dropped.
    fn apply(&self, record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection>;
}

impl<F> Transform for F
where
    F: Fn(&Record<'_>, &mut Outputs) -> Result<(), Rejection> + Send + Sync,
{
    fn apply(&self, record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection> {
        self(record, out)
    }
}

/// What transforms make of one record: JSON values, one buffer for all.
///
/// It takes no more bytes than its limit: what goes beyond is dropped, and the record is rejected for it. So a
/// transform that makes too much of a record costs no memory.
///
/// A transform sees what it pushed itself for the record that it was given, and nothing else.
#[derive(Debug)]
pub struct Outputs {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many outputs are another record's.
    floor: usize,
    limit: usize,
    overflown: bool,
}

impl Default for Outputs {
    /// Without a limit.
    fn default() -> Self {
        Outputs { bytes: Vec::new(), ends: Vec::new(), floor: 0, limit: usize::MAX, overflown: false }
    }
}

impl Outputs {
    /// Adds one output: one JSON value.
    pub fn push(&mut self, json: &[u8]) {
        if self.overflown || json.len() > self.room() {
            self.overflown = true;
            return;
        }
        self.bytes.extend_from_slice(json);
        self.ends.push(self.bytes.len());
    }

    /// Adds one output, serialised without a buffer in between.
    ///
    /// # Errors
    /// A rejection if the value does not serialise (a map with keys that are no strings), or is too large.
    pub fn push_value(&mut self, value: &impl serde::Serialize) -> Result<(), Rejection> {
        let before = self.bytes.len();
        if let Err(error) = serde_json::to_writer(Limited(self), value) {
            self.bytes.truncate(before);
            let kind = if self.overflown { RejectKind::Output } else { RejectKind::Transform };
            return Err(Rejection::new(kind, error.to_string()));
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// How many bytes the next output may have; its end is counted, so that empty ones are bounded too.
    fn room(&self) -> usize {
        let used = self.bytes.len() + (self.ends.len() + 1) * size_of::<usize>();
        self.limit.saturating_sub(used)
    }

    /// Forgets the outputs, keeps the memory, and takes at most `limit` bytes from now on.
    fn begin(&mut self, limit: usize) {
        self.show_all();
        self.clear();
        self.limit = limit;
    }

    /// Another record comes: what is there is hidden from now on.
    fn hide_all(&mut self) {
        self.floor = self.ends.len();
    }

    /// All of it can be seen again.
    fn show_all(&mut self) {
        self.floor = 0;
    }

    /// Where the first of the outputs begins.
    fn base(&self) -> usize {
        self.floor.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// The outputs in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = &self.ends[self.floor..];
        let starts = std::iter::once(self.base()).chain(ends.iter().copied());
        starts.zip(ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// How many outputs.
    pub fn len(&self) -> usize {
        self.ends.len() - self.floor
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all outputs together.
    pub fn size(&self) -> usize {
        self.bytes.len() - self.base()
    }

    /// Forgets the outputs and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.base());
        self.ends.truncate(self.floor);
        self.overflown = false;
    }
}

/// Writes to outputs until their limit.
struct Limited<'a>(&'a mut Outputs);

impl io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0.room() {
            self.0.overflown = true;
            return Err(io::Error::other("the outputs of one record are too large"));
        }
        self.0.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the pool runs over the records of a chunk that belong to one batch: one virtual call a section. Records may be
/// seen again, and what came of them the first time is dropped: where a file has to be read again at some place.
pub trait Program: Send + Sync {
    /// Appends output and dead letters of these records, each as lines, or as [`crate::outgoing`] frames where the
    /// sink's shape asks for them, and counts what it did in [`Out::counts`], for summary and receipts.
    fn run(&self, section: &Section<'_>, out: &mut Out);

    /// What output and dead letters are appended as, where the program can tell: a run whose sink takes something
    /// else does not begin.
    fn forms(&self) -> Forms {
        Forms::default()
    }
}

/// What a [`Program`] appends; `None`: it does not tell, or there is nothing of the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// The output.
    pub stored: Option<Form>,
    /// The dead letters.
    pub failed: Option<Form>,
}

/// How one output stands behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As lines.
    Lines,
    /// As [`crate::outgoing`] frames them.
    Frames,
}

/// What a [`Program`] writes. Recycled; the engine takes what each call appended.
#[derive(Debug, Default)]
pub struct Out {
    /// The output: lines or frames.
    pub stored: Vec<u8>,
    /// The dead letters: lines or frames.
    pub failed: Vec<u8>,
    /// What was counted since the engine last took it.
    pub counts: Counts,
    /// The first rejected records of this chunk, at most three, for the summary.
    pub samples: Vec<Sample>,
    /// How many records were rejected, by kind, since the engine last took it.
    pub rejects: Vec<(RejectKind, u64)>,
    /// Scratch of the program.
    pub outputs: [Outputs; 2],
    /// Scratch of the envelope: what is the same for all records of a section.
    parts: envelope::Parts,
    /// What knows the labels of earlier records.
    validator: Validator,
}

/// A rejected record as the summary shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it stood: path, line and position.
    pub place: String,
    /// Why it was rejected: kind and message.
    pub reason: String,
}
