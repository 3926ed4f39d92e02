//! [`Error`]: what fails between this client and its brokers, with the broker and the request it belongs to.
//!
//! Whether another try can help is decided in one method, [`Error::retry`]. What a broker says about one topic
//! or partition is a [`Code`] in an answer, not an error of the connection: the layer that asked decides.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Coordinates, TopicPartition};
use super::code::Code;
use super::connection::address::Address;
use super::wire::Unwritable;
use super::wire::frame::FrameFault;
use crate::error::Retry;

/// Result with the client's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A broker and what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Host and port.
    pub broker: Arc<Address>,
    /// The request's name.
    pub api: &'static str,
    /// The request's version; -1 before there are requests.
    pub version: i16,
}

/// Why a broker could not be asked, or gave no answer.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The settings contradict each other, or name something that is not there.
    Config(String),
    /// The host has no address.
    Resolve {
        /// Host and port.
        broker: Arc<Address>,
        /// The cause.
        source: io::Error,
    },
    /// No address of the host took the connection.
    Connect {
        /// Host and port.
        broker: Arc<Address>,
        /// Each address that was tried, and what it said.
        tried: String,
        /// The last cause.
        source: io::Error,
    },
    /// TLS could not be set up, by certificates or protocol.
    Tls {
        /// Host and port.
        broker: Arc<Address>,
        /// The cause.
        source: rustls::Error,
    },
    /// The broker refuses the user, or could not prove that it knows the password.
    Authenticate {
        /// Host and port.
        broker: Arc<Address>,
        /// The SASL mechanism.
        mechanism: &'static str,
        /// Why.
        reason: String,
    },
    /// The broker closed the connection, or the network failed.
    Io {
        /// What was asked.
        call: Call,
        /// The cause.
        source: io::Error,
    },
    /// No answer came in time. Whether the broker did what was asked is not known.
    Timeout {
        /// What was asked.
        call: Call,
        /// How long was waited.
        after: Duration,
    },
    /// Bytes came that are no answer; the connection was closed.
    Frame {
        /// What was asked.
        call: Call,
        /// What is wrong with them.
        fault: FrameFault,
    },
    /// Broker and client have no version of a request in common.
    Version {
        /// Host and port.
        broker: Arc<Address>,
        /// The request's name.
        api: &'static str,
        /// The client's versions.
        ours: (i16, i16),
        /// The broker's versions; `None` if it does not have the request at all.
        theirs: Option<(i16, i16)>,
    },
    /// The broker refuses the whole request.
    Refused {
        /// What was asked.
        call: Call,
        /// Why.
        code: Code,
    },
    /// The connection was closed before, by an error or from outside.
    Closed {
        /// Host and port.
        broker: Arc<Address>,
    },
    /// Nobody can be asked at the moment: no broker is known, or not this one.
    Unavailable(String),
    /// A topic cannot be used.
    Topic {
        /// Its name.
        topic: Arc<str>,
        /// Why.
        code: Code,
    },
    /// A request failed for one partition.
    Partition {
        /// Topic and partition.
        of: TopicPartition,
        /// The request's name.
        api: &'static str,
        /// Why.
        code: Code,
    },
    /// There is no coordinator of a group or transaction, or not for this user.
    Coordinator {
        /// Of what.
        kind: Coordinates,
        /// The group's or the transaction's name.
        key: String,
        /// Why.
        code: Code,
    },
    /// It was tried until the deadline.
    GaveUp {
        /// What was tried.
        what: String,
        /// For how long.
        after: Duration,
        /// How the last try failed.
        last: Box<Error>,
    },
    /// A topic to write to is not there.
    NoTopic {
        /// Its name.
        topic: Arc<str>,
    },
    /// A broker will never store these records.
    Records {
        /// Topic and partition.
        of: TopicPartition,
        /// Why.
        code: Code,
        /// What the broker adds, with a separator before it; may be empty.
        detail: String,
    },
    /// One record is larger than the topic takes.
    RecordTooLarge {
        /// Topic and partition.
        of: TopicPartition,
        /// Its size in bytes, before compression.
        size: usize,
        /// The beginning of its key, printable.
        key: Option<String>,
    },
    /// Records cannot be written as a batch.
    Unwritable {
        /// The topic.
        topic: Arc<str>,
        /// The cause.
        source: Unwritable,
    },
    /// It can no longer be found out whether the last records of a partition are stored.
    Uncertain {
        /// Topic and partition.
        of: TopicPartition,
        /// What the broker said at last.
        code: Code,
    },
    /// Another producer took over the transactional id, or the cluster aborted a transaction that took too long.
    Fenced {
        /// The id.
        transactional_id: String,
        /// What the broker said.
        code: Code,
    },
    /// The open transaction must be aborted; then the same can be tried again.
    Abortable {
        /// The transactional id.
        transactional_id: String,
        /// The request's name.
        api: &'static str,
        /// Why.
        code: Code,
    },
    /// A transaction failed for good.
    Transaction {
        /// The transactional id.
        transactional_id: String,
        /// The request's name.
        api: &'static str,
        /// Why.
        code: Code,
    },
    /// The client was shut down from another thread.
    HungUp,
}

impl Error {
    /// Whether another try, on a new connection, can help: the one place where this is decided.
    pub fn retry(&self) -> Retry {
        match self {
            Error::Refused { code, .. }
            | Error::Topic { code, .. }
            | Error::Partition { code, .. }
            | Error::Coordinator { code, .. } => code.retry(),
            Error::GaveUp { last, .. } => last.retry(),
            Error::Uncertain { .. } | Error::Abortable { .. } => Retry::Transient,
            Error::NoTopic { .. }
            | Error::Records { .. }
            | Error::RecordTooLarge { .. }
            | Error::Unwritable { .. }
            | Error::Fenced { .. }
            | Error::Transaction { .. } => Retry::Permanent,
            Error::Unavailable(_)
            | Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::Io { .. }
            | Error::Timeout { .. }
            | Error::Closed { .. } => Retry::Transient,
            // A cut-off or swapped answer is the network's fault; a size or a version is not, nor a request
            // that cannot be encoded.
            Error::Frame { fault: FrameFault::Correlation { .. } | FrameFault::Malformed { .. }, .. } => {
                Retry::Transient
            }
            Error::Config(_)
            | Error::Tls { .. }
            | Error::Authenticate { .. }
            | Error::Frame { .. }
            | Error::Version { .. }
            | Error::HungUp => Retry::Permanent,
        }
    }

    /// What kind of failure it is, in a word: the broker's code where there is one.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Refused { code, .. }
            | Error::Topic { code, .. }
            | Error::Partition { code, .. }
            | Error::Coordinator { code, .. }
            | Error::Records { code, .. }
            | Error::Uncertain { code, .. }
            | Error::Fenced { code, .. }
            | Error::Abortable { code, .. }
            | Error::Transaction { code, .. } => code.name(),
            Error::GaveUp { last, .. } => last.kind(),
            Error::Config(_) => "usage",
            Error::Resolve { .. } => "resolve",
            Error::Connect { .. } | Error::Io { .. } | Error::Closed { .. } => "connection",
            Error::Tls { .. } => "tls",
            Error::Authenticate { .. } => "authentication",
            Error::Timeout { .. } => "timeout",
            Error::Frame { .. } | Error::Version { .. } => "protocol",
            Error::Unavailable(_) => "unavailable",
            Error::NoTopic { .. } => "not_found",
            Error::RecordTooLarge { .. } => "too_large",
            Error::Unwritable { .. } => "unwritable",
            Error::HungUp => "stopped",
        }
    }

    /// Who was asked, or called, and gave no answer in time.
    pub(crate) fn silent(&self) -> Option<&Arc<Address>> {
        match self {
            Error::GaveUp { last, .. } => last.silent(),
            Error::Timeout { call, .. } => Some(&call.broker),
            Error::Connect { broker, source, .. } if source.kind() == io::ErrorKind::TimedOut => Some(broker),
            _ => None,
        }
    }

    /// Whether it may have been done although no answer came.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::GaveUp { last, .. } => last.is_ambiguous(),
            _ => matches!(self, Error::Io { .. } | Error::Timeout { .. } | Error::Frame { .. }),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0.. => write!(f, "{} v{} to {}", self.api, self.version, self.broker),
            _ => write!(f, "{} with {}", self.api, self.broker),
        }
    }
}

/// What to do about an answer that is no frame, where something can be done: one batch comes whole, however large it is.
fn frame_advice(call: &Call, fault: &FrameFault) -> &'static str {
    match fault {
        FrameFault::Size { size, cap } if call.api == "Fetch" && *size > 0 && *size as usize > *cap => {
            "; if it is a record batch that is so large, raise kafka.source.fetch_max_bytes"
        }
        _ => "",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            Error::Resolve { broker, source } => write!(f, "cannot find the address of {broker}: {source}"),
            Error::Connect { broker, tried, .. } => write!(f, "cannot connect to {broker}: {tried}"),
            Error::Tls { broker, source } => {
                write!(f, "TLS with {broker} failed: {source}{}", advice(source))
            }
            Error::Authenticate { broker, mechanism, reason } => {
                write!(f, "{broker} refused {mechanism} authentication: {reason}")
            }
            Error::Io { call, source } => write!(f, "{call} failed: {source}"),
            Error::Timeout { call, after } => write!(f, "{call}: no answer within {after:?}"),
            Error::Frame { call, fault } => write!(f, "{call}: {fault}{}", frame_advice(call, fault)),
            Error::Version { broker, api, ours, theirs: Some(theirs) } => write!(
                f,
                "{broker} has {api} v{} to v{}, this program v{} to v{}",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Error::Version { broker, api, .. } => write!(f, "{broker} does not have {api}"),
            Error::Refused { call, code } => write!(f, "{call} was refused: {code}"),
            Error::Closed { broker } => write!(f, "the connection to {broker} is closed"),
            Error::Unavailable(text) => f.write_str(text),
            Error::Topic { topic, code } => write!(f, "topic {topic}: {code}"),
            Error::Partition { of, api, code } => write!(f, "partition {of}: {api} failed: {code}"),
            Error::Coordinator { kind, key, code } => write!(f, "coordinator of {kind} {key}: {code}"),
            Error::GaveUp { what, after, last } => {
                write!(f, "{what}: gave up after {:.1} s: {last}", after.as_secs_f64())
            }
            Error::NoTopic { topic } => {
                write!(f, "topic {topic} does not exist; create it, or correct its name")
            }
            Error::Records { of, code, detail } => write!(f, "records for {of} are refused: {code}{detail}"),
            Error::RecordTooLarge { of, size, key } => {
                write!(f, "a record of {size} bytes for {of} ")?;
                match key {
                    Some(key) => write!(f, "with key \"{key}\" ")?,
                    None => f.write_str("without key ")?,
                }
                f.write_str(
                    "is larger than the topic takes; raise its max.message.bytes, or make dead letters of such records with a smaller \
                     input.max_record_bytes",
                )
            }
            Error::Unwritable { topic, source } => write!(f, "cannot write records for {topic}: {source}"),
            Error::Uncertain { of, code } => write!(
                f,
                "whether the last records for {of} are stored can no longer be found out ({code}); they are \
                 stored again when the run is started again"
            ),
            Error::Fenced { transactional_id, code } => write!(
                f,
                "another pipeline with transactional id {transactional_id} took over, or a transaction took \
                 longer than its timeout ({code})"
            ),
            Error::Abortable { transactional_id, api, code } => {
                write!(
                    f,
                    "transaction of {transactional_id}: {api} failed: {code}; it is aborted and tried again"
                )
            }
            Error::Transaction { transactional_id, api, code } => {
                write!(f, "transaction of {transactional_id}: {api} failed: {code}")
            }
            Error::HungUp => f.write_str("the client was shut down"),
        }
    }
}

/// What to do about a TLS error, where it can be known.
fn advice(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "; kafka.tls.ca names the authority's certificate where the system does not know it"
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "; the certificate is for another host name"
        }
        rustls::Error::InvalidMessage(_) => "; does this port speak TLS?",
        rustls::Error::AlertReceived(_) => "; does the broker ask for a client certificate?",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Resolve { source, .. } | Error::Connect { source, .. } | Error::Io { source, .. } => {
                source.source()
            }
            Error::Tls { source, .. } => source.source(),
            Error::Unwritable { source, .. } => source.source(),
            Error::GaveUp { last, .. } => last.source(),
            _ => None,
        }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(text) => crate::Error::Usage(text),
            Error::HungUp => crate::Error::Stopped,
            error => crate::Error::other("kafka", error.retry(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_answer_above_the_cap_names_the_setting() {
        let broker = Arc::new(Address { host: "b".into(), port: 9 });
        let told = |api, size| {
            let call = Call { broker: broker.clone(), api, version: 17 };
            Error::Frame { call, fault: FrameFault::Size { size, cap: 10 } }.to_string()
        };
        assert!(told("Fetch", 11).ends_with("raise kafka.source.fetch_max_bytes"));
        for other in [told("Fetch", -1), told("Fetch", 3), told("Metadata", 11)] {
            assert!(other.ends_with("not from 4 to 10"), "{other}");
        }
    }
}
