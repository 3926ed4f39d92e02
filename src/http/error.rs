//! [`Error`]: what went wrong with an endpoint. It names scheme, host, path and status, never a query string, a user,
//! a header or anything of a body: any of them may hold a token.

use std::fmt;
use std::time::Duration;

use crate::agent::{self, Plain, is_plain, is_tls};
use crate::error::Retry;

/// Result with the client's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a page did not come.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The configuration cannot be used.
    Config(String),
    /// No answer came, or it broke off.
    Transport {
        /// What was asked: `GET https://host/path`.
        what: String,
        /// The cause.
        source: Box<ureq::Error>,
    },
    /// The answer is no success.
    Refused {
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
        /// How long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// It leads to where it may not lead.
    Elsewhere {
        /// What was asked.
        what: String,
        /// The place: scheme, host and port.
        to: String,
    },
    /// The body cannot be read.
    Body {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// No token was had.
    Token {
        /// What is wrong.
        why: String,
        /// Whether another try can help.
        retry: Retry,
    },
    /// The page is not what the configuration says.
    Page {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        why: String,
        /// Whether another try can help.
        retry: Retry,
    },
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than `http.max_body_bytes`, unpacked.
    TooLong(u64),
    /// Hardly anything of it comes.
    Slow,
    /// It is packed in a way that is not known.
    Packing(String),
    /// What it is packed in is damaged.
    Damaged(String),
    /// It ends too early, or the connection broke.
    Cut(String),
}

impl Error {
    /// Whether another try can help.
    pub fn retry(&self) -> Retry {
        match self {
            Error::Config(_) | Error::Elsewhere { .. } => Retry::Permanent,
            Error::Transport { source, .. } => agent::retry(source),
            Error::Refused { status: 408 | 425 | 429 | 500 | 502..=504 | 506..=599, .. } => Retry::Transient,
            Error::Refused { .. } => Retry::Permanent,
            Error::Body { fault: Fault::TooLong(_) | Fault::Packing(_), .. } => Retry::Permanent,
            Error::Body { .. } => Retry::Transient,
            Error::Token { retry, .. } | Error::Page { retry, .. } => *retry,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { after, .. } => *after,
            _ => None,
        }
    }

    /// The status, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What kind of failure it is, in a word: for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Config(_) => "configuration",
            Error::Transport { source, .. } => match &**source {
                ureq::Error::Timeout(_) => "timeout",
                ureq::Error::HostNotFound => "name",
                source if is_tls(source) => "tls",
                _ => "connection",
            },
            Error::Refused { status: 401 | 403 | 407, .. } => "denied",
            Error::Refused { status: 404 | 410, .. } => "not_found",
            Error::Refused { status: 429, .. } => "throttled",
            Error::Refused { status: 500.., .. } => "server",
            Error::Refused { .. } => "refused",
            Error::Elsewhere { .. } => "elsewhere",
            Error::Body { fault: Fault::TooLong(_), .. } => "too_large",
            Error::Body { fault: Fault::Slow, .. } => "slow",
            Error::Body { fault: Fault::Cut(_), .. } => "cut",
            Error::Body { .. } => "packing",
            Error::Token { .. } => "token",
            Error::Page { .. } => "page",
        }
    }

    /// One sentence on what to do about it, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::Refused { status: 401, .. } => "check http.auth: the server does not know who asks",
            Error::Refused { status: 403, .. } => "check http.auth: who asks may not read this",
            Error::Refused { status: 404 | 410, .. } => {
                "check the path of the URL, and http.pagination (max_pages, if the server answers so behind its last page)"
            }
            Error::Refused { status: 405, .. } => "check http.method",
            Error::Refused { status: 429, .. } => "http.rate_limit asks less often",
            Error::Elsewhere { .. } => {
                "http.allow_hosts names hosts that may be asked besides; they get no credentials"
            }
            Error::Body { fault: Fault::TooLong(_), .. } => "http.max_body_bytes is the limit",
            Error::Token { .. } => "check http.auth.token_url, client_id, client_secret and scope",
            Error::Transport { source, .. } if is_plain(source) => {
                "check the URL: is it http://, or another port?"
            }
            Error::Transport { source, .. } if is_tls(source) => {
                "check http.tls.ca (who is trusted), and http.tls.cert where the server asks for a certificate"
            }
            Error::Transport { source, .. } if matches!(**source, ureq::Error::HostNotFound) => {
                "check the host of the URL; --check asks it"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong(limit) => write!(f, "the page has more than {limit} bytes"),
            Fault::Slow => f.write_str("less than 1 KiB a second came for a minute"),
            Fault::Packing(how) => write!(f, "Content-Encoding {how:?} is not known; expected gzip or zstd"),
            Fault::Damaged(why) => write!(f, "the packed page is damaged: {why}"),
            Fault::Cut(why) => write!(f, "the page broke off: {why}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            Error::Transport { what, source } => write!(f, "{what}: {}", Plain(source)),
            Error::Refused { what, status, .. } => {
                let reason =
                    ureq::http::StatusCode::from_u16(*status).ok().and_then(|it| it.canonical_reason());
                write!(f, "{what}: the server answers {status}")?;
                reason.map_or(Ok(()), |reason| write!(f, " {reason}"))
            }
            Error::Elsewhere { what, to } => write!(f, "{what}: it leads to {to}, which it may not"),
            Error::Body { what, fault } => write!(f, "{what}: {fault}"),
            Error::Token { why, .. } => write!(f, "no token: {why}"),
            Error::Page { what, why, .. } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(text) => crate::Error::Usage(text),
            error => crate::Error::other("http", error.retry(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let refused = |status| Error::Refused { what: "GET http://h/".into(), status, after: None };
        for status in [408, 429, 500, 502, 503, 504, 520] {
            assert_eq!(refused(status).retry(), Retry::Transient, "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 501, 505] {
            assert_eq!(refused(status).retry(), Retry::Permanent, "{status}");
        }
        let lost =
            |source| Error::Transport { what: "GET http://h/".into(), source: Box::new(source) }.retry();
        assert_eq!(lost(ureq::Error::HostNotFound), Retry::Transient);
        assert_eq!(lost(ureq::Error::Io(std::io::ErrorKind::ConnectionReset.into())), Retry::Transient);
        assert_eq!(lost(ureq::Error::Io(std::io::ErrorKind::InvalidData.into())), Retry::Permanent);
    }

    #[test]
    fn refusals_say_what_to_look_at() {
        let error = Error::Refused { what: "GET https://h/a".into(), status: 401, after: None };
        assert_eq!(error.to_string(), "GET https://h/a: the server answers 401 Unauthorized");
        assert!(error.hint().unwrap().contains("http.auth"));
        assert_eq!(
            (
                crate::Error::from(error).exit_code(),
                crate::Error::from(Error::Config("x".into())).exit_code()
            ),
            (4, 2)
        );
    }
}
