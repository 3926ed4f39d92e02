//! What goes on from the assembler: jobs to writers, notes to the commit thread, in one order.
//!
//! A worker that assembles may not wait for either. What finds no place is kept, and whatever comes behind it.

use crossbeam_channel::TrySendError;

use super::Assembler;
use crate::commit::Note;
use crate::error::{Error, Result};
use crate::write::Job;

/// What goes on.
pub(super) enum Outgoing {
    Job(Job),
    Note(Note),
}

impl Assembler<'_> {
    /// Hands on, or keeps what finds no place where it may not wait for one.
    pub(super) fn send(&mut self, outgoing: Outgoing) -> Result<()> {
        if self.may_wait {
            return self.send_now(outgoing);
        }
        let left = match outgoing {
            outgoing if !self.left.is_empty() => Some(outgoing),
            Outgoing::Job(job) => unsent(self.ports.jobs.try_send(job))?.map(Outgoing::Job),
            Outgoing::Note(note) => unsent(self.ports.notes.try_send(note))?.map(Outgoing::Note),
        };
        self.left.extend(left);
        Ok(())
    }

    /// Blocks until there is a place.
    fn send_now(&self, outgoing: Outgoing) -> Result<()> {
        match outgoing {
            Outgoing::Job(job) => {
                let _waiting = self.at.metrics.writer_waits.begin();
                self.ports.jobs.send(job).map_err(|_| Error::Stopped)
            }
            Outgoing::Note(note) => self.ports.notes.send(note).map_err(|_| Error::Stopped),
        }
    }

    /// Does what a worker could not: tells what went wrong, and hands on what found no place. Blocks.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some(outgoing) = self.left.pop_front() {
            self.send_now(outgoing)?;
        }
        Ok(())
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.failed.is_none() && self.left.is_empty()
    }
}

/// What found no place.
fn unsent<T>(sent: std::result::Result<(), TrySendError<T>>) -> Result<Option<T>> {
    match sent {
        Ok(()) => Ok(None),
        Err(TrySendError::Full(unsent)) => Ok(Some(unsent)),
        Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
    }
}
