//! Records that are rejected although none may be, or too many of them: the run ends in order.

use super::Assembler;
use crate::config::{MaxRejected, OnReject};
use crate::error::{Error, Intolerance, Result};
use crate::process::Processed;
use crate::sink::DeadLetters;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    SoFar,
    Final,
}

/// A share of a hundred means nothing before there were some records.
const ENOUGH: u64 = 1000;

impl Assembler<'_> {
    /// Why the run may not go on past this chunk, if so.
    pub(super) fn refusal(&mut self, processed: &Processed) -> Option<Error> {
        let rejected: u64 = processed.sections.iter().map(|section| section.counts.rejected).sum();
        let read: u64 = processed.sections.iter().map(|section| section.counts.read).sum();
        self.seen = (self.seen.0 + read, self.seen.1 + rejected);
        let refuse =
            self.at.shape.dead_letters == DeadLetters::Refuse && self.at.on_reject == OnReject::DeadLetter;
        if rejected > 0 && (refuse || self.at.on_reject == OnReject::Fail) {
            let sample = processed.samples.first();
            let what =
                sample.map_or_else(String::new, |sample| format!("{}: {}", sample.place, sample.reason));
            let because = match self.at.on_reject {
                OnReject::Fail => Intolerance::Configured,
                OnReject::DeadLetter | OnReject::Drop => Intolerance::NoPlace,
            };
            return Some(Error::Rejected { what, because });
        }
        self.too_many(Certainty::SoFar)
    }

    pub(super) fn too_many(&self, certainty: Certainty) -> Option<Error> {
        let (read, rejected) = self.seen;
        let (over, before, limit) = match self.at.max_rejected? {
            MaxRejected::Count(count) => {
                let before = self.at.rejected_before;
                (rejected + before > count, before, count.to_string())
            }
            MaxRejected::Percent(percent) => {
                let enough = read >= ENOUGH || certainty == Certainty::Final;
                let over = enough && rejected as f64 * 100.0 > percent * read as f64;
                (over, 0, format!("{percent}%"))
            }
        };
        over.then_some(Error::TooManyRejected { rejected, read, before, limit })
    }

    /// Ends the run in order: what came before is stored, nothing behind it is.
    pub(super) fn refuse(&mut self, error: Error) -> Result<()> {
        self.at.faults.lock().push(error);
        self.closed = true;
        for (_, mut lot) in self.lots.drain() {
            drop(lot.take_upload());
        }
        self.at.stop.drain();
        Ok(())
    }
}
