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
    /// How it ended; a run that did not begin has failed.
    pub fn outcome(&self) -> Outcome {
        self.summary.as_ref().map_or(Outcome::Failed, |summary| summary.outcome)
    }

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
            (None, Some(summary)) if summary.any_rejected() && rejects == Rejects::Count => 3,
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

/// One sentence on what to do about an error, where there is one.
pub fn hint(error: &Error) -> Option<&'static str> {
    #[cfg(feature = "kafka")]
    if let Some(error) = std::iter::successors(cause(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<pipeline::kafka::Error>())
    {
        return of_kafka(error);
    }
    error.hint()
}

/// What an error of another kind of error was made of: `source()` leaves that out, because the text has it.
#[cfg(feature = "kafka")]
fn cause(error: &Error) -> Option<&(dyn std::error::Error + 'static)> {
    match error {
        Error::Other { source, .. } => Some(source.as_ref()),
        _ => None,
    }
}

#[cfg(feature = "kafka")]
fn of_kafka(error: &pipeline::kafka::Error) -> Option<&'static str> {
    use pipeline::kafka::Error as Kafka;
    match error {
        Kafka::GaveUp { last, .. } => of_kafka(last),
        Kafka::Resolve { .. } | Kafka::Connect { .. } | Kafka::Unavailable(_) => {
            Some("--check tells which brokers can be reached")
        }
        Kafka::Authenticate { .. } => Some("check kafka.sasl.mechanism, username and password"),
        Kafka::Refused { code, .. }
        | Kafka::Topic { code, .. }
        | Kafka::Partition { code, .. }
        | Kafka::Coordinator { code, .. } => of_code(*code),
        _ => None,
    }
}

#[cfg(feature = "kafka")]
fn of_code(code: pipeline::kafka::Code) -> Option<&'static str> {
    Some(match code.name() {
        "OFFSET_OUT_OF_RANGE" => {
            "records were deleted before they were read; --set kafka.source.on_out_of_range=earliest goes on with \
             those that are there"
        }
        "UNKNOWN_TOPIC_OR_PARTITION" => {
            "create the topic first, or check its name: topics are never created here"
        }
        "MESSAGE_TOO_LARGE" => "the topic's max.message.bytes is too small for this record",
        "TOPIC_AUTHORIZATION_FAILED" => {
            "the user needs Read and Describe on topics that are read, Write on those that are written"
        }
        "GROUP_AUTHORIZATION_FAILED" => "the user needs Read on the group; -g names another",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" => {
            "the user needs Write on the transactional id; kafka.sink.transactional_id names another"
        }
        "FENCED_INSTANCE_ID" => "each member of a group needs a kafka.source.instance_id of its own",
        "INVALID_PRODUCER_EPOCH" | "PRODUCER_FENCED" => {
            "each running job needs a kafka.sink.transactional_id of its own"
        }
        _ => return None,
    })
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
        ended(Outcome::Ended, 0, Some(143), 0);
        ended(Outcome::Ended, 2, Some(143), 3);
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

    #[cfg(feature = "kafka")]
    #[test]
    fn errors_of_brokers_have_hints() {
        use pipeline::kafka::{Code, Error as Kafka};
        let topic = |code| Kafka::Topic { topic: "orders".into(), code: Code(code) };
        let said = |error: Kafka| hint(&Error::from(error)).unwrap_or_default();
        assert!(said(topic(3)).starts_with("create the topic first"));
        assert!(said(topic(29)).starts_with("the user needs Read and Describe"));
        assert_eq!(said(topic(-1)), "");
        let (what, after) = ("metadata".into(), std::time::Duration::ZERO);
        let gave_up = Kafka::GaveUp { what, after, last: Box::new(topic(1)) };
        assert!(said(gave_up).contains("on_out_of_range"));
        assert_eq!(hint(&Error::Changed { what: "x".into() }), Error::Changed { what: "x".into() }.hint());
        // Each code above is one that brokers send.
        for code in [1, 3, 10, 29, 30, 47, 53, 82, 90] {
            assert!(of_code(Code(code)).is_some(), "{code}");
        }
    }

    #[test]
    fn a_chain_says_everything_once() {
        let error = Error::other("store the batch", Retry::Permanent, io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "store the batch: disk on fire");
    }
}
