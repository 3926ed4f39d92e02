//! [`Publishing`]: what is done, request by request, to give one object its name. Pure: whoever has the bucket asks
//! for the next [`Step`], carries it out and tells what came of it.
//!
//! Where an earlier owner may have stored the batch, the object is looked at first and kept if it is of this batch:
//! records that it holds may have left the source since, and a second object would lack them (boundary plan, rule 15).

use crate::batch::{Batch, BatchId};
use crate::cut::Close;
use crate::s3::{Condition, Found};

use super::{BATCH, Occupied, mark};

/// What an object of a batch must be.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub key: &'a str,
    pub id: &'a BatchId,
    pub again: Again,
    pub len: u64,
    pub crc32c: u32,
}

/// Whether another owner may have stored a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Maybe,
}

impl Again {
    /// Only a planned end may be another owner's.
    pub fn of(batch: &Batch) -> Self {
        if batch.close == Close::Planned { Again::Maybe } else { Again::Never }
    }
}

/// When an object got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Now,
    /// By an earlier try or another owner.
    Before,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look what is there: [`Publishing::found`].
    Look,
    /// Publish if nothing is there: [`Publishing::sent`], [`Publishing::refused`] or [`Publishing::ignored`].
    SendIfAbsent,
    /// Publish if this ETag is still there: [`Publishing::sent`] or [`Publishing::refused`].
    SendIfMatch(String),
    /// Publish whatever is there: [`Publishing::sent`].
    Send,
    /// Nothing: the object is there.
    Done(Published),
    /// Another object is there; this is how it differs.
    Occupied(String),
    /// It is there and it is not: try again later.
    Odd,
}

/// One try to publish one object.
pub(crate) struct Publishing {
    step: Step,
    occupied: Occupied,
    /// What to send if what was looked for first is not there.
    first: Option<Step>,
}

impl Publishing {
    /// Begins. `conditional`: whether the store is asked to refuse what would replace an object.
    pub fn new(again: Again, conditional: Conditional, occupied: Occupied) -> Self {
        let send = match conditional {
            Conditional::Yes => Step::SendIfAbsent,
            Conditional::No => Step::Send,
        };
        match again {
            Again::Maybe => Publishing { step: Step::Look, occupied, first: Some(send) },
            Again::Never => Publishing { step: send, occupied, first: None },
        }
    }

    /// What is to be done next.
    pub fn step(&self) -> Step {
        self.step.clone()
    }

    /// This is there.
    pub fn found(&mut self, expected: &Expected<'_>, found: Option<&Found>) {
        let first = self.first.take();
        self.step = match (found, first) {
            (Some(found), Some(_)) if expected.is_of_batch(found) => Step::Done(Published::Before),
            (_, Some(send)) => send,
            (None, None) => Step::Odd,
            (Some(found), None) => match expected.difference(found) {
                None => Step::Done(Published::Before),
                Some(_) if self.occupied == Occupied::Replace => Step::SendIfMatch(found.etag.clone()),
                Some(how) => Step::Occupied(how),
            },
        };
    }

    /// The store has it.
    pub fn sent(&mut self) {
        self.step = Step::Done(Published::Now);
    }

    /// The store refused, because of the condition: this batch is there, or something else.
    pub fn refused(&mut self) {
        self.step = Step::Look;
    }

    /// The store does not know of conditions.
    pub fn ignored(&mut self) {
        self.step = Step::Send;
    }
}

/// Whether requests carry conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditional {
    Yes,
    No,
}

impl Step {
    /// The condition to send with, if this step sends.
    pub fn condition(&self) -> Option<Condition<'_>> {
        match self {
            Step::SendIfAbsent => Some(Condition::Absent),
            Step::SendIfMatch(etag) => Some(Condition::Match(etag)),
            Step::Send => Some(Condition::None),
            Step::Look | Step::Done(_) | Step::Occupied(_) | Step::Odd => None,
        }
    }
}

impl Expected<'_> {
    fn is_of_batch(&self, found: &Found) -> bool {
        found.metadata(BATCH) == Some(mark(self.id).as_str())
    }

    /// How what is there differs from what was to be stored.
    pub fn difference(&self, found: &Found) -> Option<String> {
        if !self.is_of_batch(found) {
            return Some("it is not of this batch".into());
        }
        if self.again == Again::Maybe {
            // What has left the source since is still in there.
            return None;
        }
        if found.len != self.len {
            return Some(format!("it has {} bytes, not {}", found.len, self.len));
        }
        found.crc32c.filter(|crc32c| *crc32c != self.crc32c).map(|_| "its checksum is another".into())
    }
}
