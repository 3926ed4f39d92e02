//! How a run ended, and what the process exits with. Pure; [`Finish::exit_code`] is the one place where exit
//! codes of runs are decided.

use pipeline::summary::{Outcome, Summary};
use pipeline::{Error, Result};

/// What came of a run: what it did, and why it failed, if it failed. A run that fails after it began has both.
#[derive(Debug)]
pub struct Finish {
    /// What it did, once it began.
    pub summary: Option<Summary>,
    /// Why it failed.
    pub error: Option<Error>,
}

/// Whether rejected records are a reason for an exit code of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejects {
    /// They make it 3.
    Count,
    /// They are fine.
    AreFine,
}

impl From<Result<Summary>> for Finish {
    fn from(result: Result<Summary>) -> Self {
        match result {
            Ok(summary) => Finish { summary: Some(summary), error: None },
            Err(error) => Finish { summary: None, error: Some(error) },
        }
    }
}

impl Finish {
    /// The error that a user must read: not that a reader closed its pipe or that the run was told to stop.
    pub fn complaint(&self) -> Option<&Error> {
        self.error.as_ref().filter(|error| !matches!(error, Error::OutputClosed | Error::Stopped))
    }

    /// The summary, unless the reader of the output went away: it has what it wanted, and nobody wants to be told.
    pub fn told(&self) -> Option<&Summary> {
        self.summary.as_ref().filter(|_| !matches!(self.error, Some(Error::OutputClosed)))
    }

    /// What the process exits with. `signal` is 130 or 143 if one asked the run to stop: it counts only where the
    /// run did not come to its end.
    pub fn exit_code(&self, rejects: Rejects, signal: Option<u8>) -> u8 {
        match (&self.error, &self.summary) {
            (Some(Error::Stopped), _) => signal.unwrap_or(1),
            (Some(error), _) => error.exit_code(),
            (None, Some(summary)) if summary.outcome == Outcome::Drained && signal.is_some() => {
                signal.unwrap_or_default()
            }
            (None, Some(summary)) if summary.records_rejected > 0 && rejects == Rejects::Count => 3,
            (None, _) => 0,
        }
    }
}

/// An error and what caused it, on one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::error::Retry;
    use std::io;

    #[track_caller]
    fn ended(outcome: Outcome, rejected: u64, signal: Option<u8>, expected: u8) {
        let summary = Summary { outcome, records_rejected: rejected, ..Summary::default() };
        assert_eq!(Finish::from(Ok(summary)).exit_code(Rejects::Count, signal), expected);
    }

    #[track_caller]
    fn failed(error: Error, signal: Option<u8>, expected: u8) {
        assert_eq!(Finish::from(Err(error)).exit_code(Rejects::Count, signal), expected);
    }

    #[test]
    fn each_end_has_its_code() {
        ended(Outcome::Finished, 0, None, 0);
        ended(Outcome::Finished, 1, None, 3);
        ended(Outcome::Finished, 0, Some(130), 0);
        ended(Outcome::NothingToDo, 2, None, 3);
        ended(Outcome::Drained, 2, Some(143), 143);
        ended(Outcome::Drained, 0, None, 0);
        failed(Error::Stopped, Some(130), 130);
        failed(Error::Stopped, None, 1);
        failed(Error::OutputClosed, None, 0);
        failed(Error::Usage("x".into()), Some(130), 2);
        failed(Error::other("x", Retry::Permanent, "y"), None, 4);
        let rejected = Summary { records_rejected: 1, ..Summary::default() };
        assert_eq!(Finish::from(Ok(rejected)).exit_code(Rejects::AreFine, None), 0);
    }

    #[test]
    fn a_closed_pipe_and_a_stop_are_no_complaints() {
        assert!(Finish::from(Err(Error::OutputClosed)).complaint().is_none());
        assert!(Finish::from(Err(Error::Stopped)).complaint().is_none());
        assert!(Finish::from(Err(Error::OwnPool)).complaint().is_some());
    }

    #[test]
    fn nothing_is_told_of_a_run_whose_reader_went_away() {
        let ended = |error| Finish { summary: Some(Summary::default()), error };
        assert!(ended(Some(Error::OutputClosed)).told().is_none());
        assert!(ended(Some(Error::OwnPool)).told().is_some() && ended(None).told().is_some());
    }

    #[test]
    fn a_chain_says_everything_once() {
        let error = Error::other("store the batch", Retry::Permanent, io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "store the batch: disk on fire");
    }
}
