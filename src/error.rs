//! The one error type. A bad record is data (a dead letter); a bad stage is an `Error`.
//!
//! Each variant names the operation that failed with its context: what, where, why. Whether it is worth
//! another try is decided in one method ([`Error::is_transient`]), and so is what the program exits with
//! ([`Error::exit_code`]). Read `stage.rs` next for how the first *cause* of a failed run is found.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run, or a part of it, failed.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// Wrong use or configuration: nothing was run. The text says what was expected.
    Usage(String),
    /// The input or the settings are not those that the state beside the output remembers.
    Changed {
        /// What changed, with its old and new value.
        what: String,
    },
    /// Another run holds the state.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What is known of the other run; may be empty.
        holder: String,
    },
    /// An operation on a local file failed.
    Io {
        /// What was being done, as a verb: `open`, `read`, `write`, `rename`.
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An input is damaged, or was changed while it was read. What stood before is stored.
    Damaged {
        /// The input.
        name: String,
        /// What its positions count: `byte`, `offset`.
        unit: &'static str,
        /// The first position that could not be read.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record was rejected, and that may not be.
    Rejected {
        /// Where the record stood and why it was rejected.
        what: String,
        /// Why it may not be.
        because: Intolerance,
    },
    /// More records were rejected than `max_rejected` allows.
    TooManyRejected {
        /// How many records were rejected.
        rejected: u64,
        /// How many records were read.
        read: u64,
        /// How many were rejected before the run was interrupted that this one went on with, where they count.
        before: u64,
        /// The limit, as it was written.
        limit: String,
    },
    /// Whoever reads the output closed it. Not a failure of the run.
    OutputClosed,
    /// A thread of the run panicked.
    Panicked {
        /// The thread's name.
        thread: String,
        /// The panic's message.
        message: String,
    },
    /// It is not known what became of a batch, and trying again cannot tell. A source that can read its partition
    /// again from its mark does so; else the run ends, and the next goes on.
    InDoubt {
        /// What happened, and to what.
        what: String,
    },
    /// `run` was called from a worker of the very pool that it would have to wait for.
    OwnPool,
    /// The work ended because the run was stopped; the cause is elsewhere.
    Stopped,
    /// An error of a source, transform or sink outside this crate.
    Other {
        /// What was being done.
        what: String,
        /// Whether another try can help.
        retry: Retry,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a rejected record ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intolerance {
    /// The output has no place for dead letters, and none was named.
    NoPlace,
    /// The configuration asks for it.
    Configured,
}

/// Whether trying an operation again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later.
    Transient,
    /// The same call will fail again.
    Permanent,
}

impl Error {
    /// An error of a source, transform or sink outside this crate.
    pub fn other(
        what: impl Into<String>,
        retry: Retry,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Other { what: what.into(), retry, source: source.into() }
    }

    /// An I/O error with the operation and the file it belongs to.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::Io { op, path: path.into(), source }
    }

    /// Whether another try can help: the one place where this is decided.
    ///
    /// A full disk, a quota or a file size limit is permanent for a run: it ends cleanly and goes on when it
    /// is started again, instead of holding everything while it waits for space.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::ResourceBusy
            ),
            Error::Other { retry, .. } => *retry == Retry::Transient,
            _ => false,
        }
    }

    /// What kind of failure it is, in a word: for metrics, where texts would be without number.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Usage(_) => "usage",
            Error::Changed { .. } => "changed",
            Error::Locked { .. } => "locked",
            Error::Io { source, .. } => io_kind(source),
            Error::Damaged { .. } => "damaged",
            Error::Rejected { .. } | Error::TooManyRejected { .. } => "rejected",
            Error::OutputClosed => "closed",
            Error::Panicked { .. } => "panicked",
            Error::InDoubt { .. } => "doubt",
            Error::OwnPool => "pool",
            Error::Stopped => "stopped",
            Error::Other { source, .. } => other_kind(&**source),
        }
    }

    /// The service that failed or refused, where that is known: as metrics and logs call it.
    pub fn service(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "kafka")]
            Error::Other { source, .. } if source.is::<crate::kafka::Error>() => Some("kafka"),
            #[cfg(feature = "s3")]
            Error::Other { source, .. } if source.is::<crate::s3::Error>() => Some("s3"),
            _ => None,
        }
    }

    /// How long whoever refused wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "s3")]
            Error::Other { source, .. } => source.downcast_ref::<crate::s3::Error>()?.retry_after(),
            _ => None,
        }
    }

    /// Whether this can be the first cause of a failed run, not merely its consequence.
    pub fn is_cause(&self) -> bool {
        !matches!(self, Error::Stopped)
    }

    /// What a program that failed with this exits with: 1 run again to go on, 2 wrong use, 4 running again
    /// cannot help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Changed { .. } | Error::OwnPool => 2,
            Error::Damaged { .. } => 4,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidFilename => 4,
                _ => 1,
            },
            Error::Other { retry: Retry::Permanent, .. } => 4,
            Error::OutputClosed => 0,
            _ => 1,
        }
    }

    /// One sentence on what to do about it, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Changed { .. } => Some("--fresh begins again and replaces what the earlier run left"),
            Error::Locked { .. } => Some("wait for the other run to end, or give this one another --output"),
            Error::Rejected { because: Intolerance::NoPlace, .. } => Some(
                "--dead-letter DIR or kafka:TOPIC keeps rejected records and goes on; see also --set processing.on_reject=drop",
            ),
            Error::Rejected { because: Intolerance::Configured, .. } => {
                Some("--set processing.on_reject=dead-letter keeps rejected records and goes on")
            }
            Error::TooManyRejected { .. } => {
                Some("the summary shows the first of them; --set processing.max_rejected=N raises the limit")
            }
            Error::InDoubt { .. } => {
                Some("run the same command again: it goes on where its state, or its consumer group, says")
            }
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Some("make room and run the same command again")
                }
                io::ErrorKind::PermissionDenied => {
                    Some("check the owner and mode of the file and its directory")
                }
                _ => None,
            },
            #[cfg(feature = "http")]
            Error::Other { source, .. } => source.downcast_ref::<crate::http::Error>()?.hint(),
            _ => None,
        }
    }
}

fn io_kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "no_space",
        io::ErrorKind::NotFound => "not_found",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "denied",
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => "connection",
        _ => "io",
    }
}

/// The kind of an error of another kind of error, or of the first cause of it that has one.
fn other_kind(error: &(dyn std::error::Error + 'static)) -> &'static str {
    #[cfg(feature = "kafka")]
    if let Some(error) = error.downcast_ref::<crate::kafka::Error>() {
        return error.kind();
    }
    #[cfg(feature = "s3")]
    if let Some(error) = error.downcast_ref::<crate::s3::Error>() {
        return error.kind();
    }
    #[cfg(feature = "http")]
    if let Some(error) = error.downcast_ref::<crate::http::Error>() {
        return error.kind();
    }
    match (error.downcast_ref::<io::Error>(), error.source()) {
        (Some(error), _) => io_kind(error),
        (None, Some(cause)) => other_kind(cause),
        (None, None) => "other",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) => f.write_str(text),
            Error::Changed { what } => write!(f, "{what}"),
            Error::Locked { path, holder } => {
                write!(f, "another run is at work here: {} is locked", path.display())?;
                if holder.is_empty() { Ok(()) } else { write!(f, " by {holder}") }
            }
            Error::Io { op, path, source } => write!(f, "cannot {op} {}: {source}", path.display()),
            Error::Damaged { name, unit, position, reason } => {
                write!(f, "input {name} is damaged at {unit} {position}: {reason}")
            }
            Error::Rejected { what, because: Intolerance::NoPlace } => {
                write!(f, "a record was rejected and there is no place for it: {what}")
            }
            Error::Rejected { what, because: Intolerance::Configured } => {
                write!(f, "a record was rejected and on_reject is fail: {what}")
            }
            Error::TooManyRejected { rejected, read, before, limit } => {
                write!(f, "{rejected} of {read} records were rejected")?;
                if *before > 0 {
                    write!(f, ", and {before} before the run was interrupted")?;
                }
                write!(f, "; max_rejected is {limit}")
            }
            Error::OutputClosed => f.write_str("the output was closed by its reader"),
            Error::Panicked { thread, message } => write!(f, "thread {thread} panicked: {message}"),
            Error::InDoubt { what } => write!(f, "{what}: it is not known what became of the batch"),
            Error::OwnPool => f.write_str(
                "run was called from a worker of the thread pool that it was given; call it from outside",
            ),
            Error::Stopped => f.write_str("stopped"),
            Error::Other { what, source, .. } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => source.source(),
            Error::Other { source, .. } => source.source(),
            _ => None,
        }
    }
}
