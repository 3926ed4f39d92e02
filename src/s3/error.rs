//! Why a request failed: what was asked, of which object, what the service said, and what to look at. Whether
//! another try can help is decided here alone.

use std::fmt;
use std::time::Duration;

use quick_xml::de::from_str;
use serde::Deserialize;
use ureq::http::{HeaderMap, StatusCode, header};

use super::credentials::Keys;
use crate::agent::{self, Plain};
use crate::error::Retry;

/// Result with this module's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest wait that a service may ask for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a request failed, or was not sent.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// A setting cannot be used.
    Config(String),
    /// There is nobody to sign as.
    Credentials {
        /// What was tried and what came of it.
        why: String,
        /// Whether it may be otherwise later.
        retry: Retry,
    },
    /// No answer came.
    Transport {
        /// What was asked.
        what: Box<Subject>,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// The service refused.
    Refused {
        /// What was asked.
        what: Box<Subject>,
        /// What it said.
        answer: Box<Answer>,
    },
    /// Something else than what was to be stored is there already.
    Occupied {
        /// What was asked.
        what: Box<Subject>,
        /// How it differs.
        how: String,
    },
    /// An answer makes no sense.
    Odd {
        /// What was asked.
        what: Box<Subject>,
        /// What is odd about it.
        why: String,
    },
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The operation, as a verb.
    pub op: &'static str,
    /// `s3://bucket/key`.
    pub target: String,
    /// The service.
    pub service: String,
    /// The region that was signed for.
    pub region: String,
}

/// What the service said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The error's code; empty where there was none.
    pub code: String,
    /// Its message.
    pub message: String,
    /// What the operator of the service finds the request by.
    pub request_id: String,
    /// The bucket's region, where it was told.
    pub region: Option<String>,
    /// When the service wants to be asked again.
    pub retry_after: Option<Duration>,
    /// The keys have expired, and others may be had.
    pub renews: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    code: String,
    message: String,
    request_id: String,
    region: Option<String>,
}

impl Answer {
    /// Reads an answer that is no success.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let body: Body = from_str(body).unwrap_or_default();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let seconds = text(header::RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
        Answer {
            status: status.as_u16(),
            code: body.code,
            message: body.message,
            request_id: text("x-amz-request-id").unwrap_or(body.request_id),
            region: text("x-amz-bucket-region").or(body.region),
            retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(PATIENCE)),
            renews: false,
        }
    }

    /// Whether it says that these keys were valid once. Answers to HEAD have no body that could say so.
    pub(super) fn is_of_old_keys(&self, keys: &Keys) -> bool {
        match self.code.as_str() {
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => true,
            "InvalidToken" | "InvalidAccessKeyId" => keys.session_token.is_some(),
            "" => matches!(self.status, 400 | 403) && keys.session_token.is_some(),
            _ => false,
        }
    }

    fn retry(&self) -> Retry {
        let code = matches!(
            self.code.as_str(),
            "SlowDown"
                | "InternalError"
                | "ServiceUnavailable"
                | "RequestTimeout"
                | "IncompleteBody"
                | "BadDigest"
                | "XAmzContentSHA256Mismatch"
                | "OperationAborted"
                | "ConditionalRequestConflict"
        );
        let full = matches!(self.code.as_str(), "XMinioStorageFull" | "QuotaExceeded");
        match self.status {
            _ if full => Retry::Permanent,
            _ if code || self.renews => Retry::Transient,
            408 | 429 | 500 | 502 | 503 | 504 => Retry::Transient,
            506.. if !matches!(self.status, 507 | 511) => Retry::Transient,
            _ => Retry::Permanent,
        }
    }

    /// What to look at.
    fn advice(&self, what: &Subject) -> Option<String> {
        let region = |found: &str| {
            format!("the bucket is in region {found}, not {}: set s3.region or AWS_REGION", what.region)
        };
        Some(match (self.code.as_str(), self.status) {
            _ if self.renews => "the keys have expired, or so it seems; asking for new ones".into(),
            ("InvalidAccessKeyId" | "UserNotFound", _) => {
                "nobody there has this access key: check AWS_ACCESS_KEY_ID, and that the endpoint is the right one".into()
            }
            ("SignatureDoesNotMatch", _) => {
                "check AWS_SECRET_ACCESS_KEY, and that no proxy changes requests".into()
            }
            ("NoSuchBucket", _) => "check the bucket's name, and that the endpoint is the right one".into(),
            ("RequestTimeTooSkewed", _) => "this machine's clock is wrong: set it".into(),
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => {
                "the session token is not valid any more: get a new one, or use credentials that are renewed (a \
                 profile, web identity, a container's or an instance's role)".into()
            }
            ("XMinioStorageFull" | "QuotaExceeded", _) | (_, 507) => {
                "the store is full: make room there or raise its quota, and run again".into()
            }
            ("AccessDenied", _) | (_, 403) => {
                "check the rights of this access key: s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload and \
                 s3:ListBucket are needed".into()
            }
            ("NotImplemented", _) | (_, 501) => {
                "this store lacks something that was asked for: see s3.conditional and the other [s3] settings".into()
            }
            (_, 301 | 307 | 308 | 400) => region(self.region.as_deref().filter(|found| *found != what.region)?),
            _ => return None,
        })
    }
}

impl Error {
    /// What kind of failure it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Config(_) => "usage",
            Error::Credentials { .. } => "credentials",
            Error::Transport { source, .. } => match &**source {
                ureq::Error::Timeout(_) => "timeout",
                _ => "connection",
            },
            Error::Refused { answer, .. } => match answer.status {
                _ if answer.code == "SlowDown" => "throttled",
                429 | 503 => "throttled",
                401 | 403 => "denied",
                404 => "not_found",
                408 => "timeout",
                409 | 412 => "conflict",
                500.. => "server",
                _ => "refused",
            },
            Error::Occupied { .. } => "occupied",
            Error::Odd { .. } => "protocol",
        }
    }

    /// Whether another try can help.
    pub fn retry(&self) -> Retry {
        match self {
            Error::Config(_) | Error::Occupied { .. } => Retry::Permanent,
            Error::Credentials { retry, .. } => *retry,
            Error::Refused { answer, .. } => answer.retry(),
            Error::Odd { .. } => Retry::Transient,
            Error::Transport { source, .. } => agent::retry(source),
        }
    }

    /// How long the service wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { answer, .. } => answer.retry_after,
            _ => None,
        }
    }

    /// What the service said, if it did.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Error::Refused { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// The HTTP status, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status)
    }

    /// Whether the service's error has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.answer().is_some_and(|answer| answer.code == code)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {} at {}", self.op, self.target, self.service)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            Error::Credentials { why, .. } => write!(f, "no credentials: {why}"),
            Error::Transport { what, source } => {
                write!(f, "{what}: {}", Plain(source))?;
                f.write_str(match **source {
                    ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => "; check s3.endpoint",
                    _ if agent::is_plain(source) => "; check s3.endpoint: is it http://?",
                    _ if unencrypted(what, source) => "; does it want https? See s3.endpoint",
                    _ => "",
                })
            }
            Error::Occupied { what, how } => write!(
                f,
                "{what}: another object is there already ({how}); two runs write to one place, or its settings changed"
            ),
            Error::Odd { what, why } => write!(f, "{what}: {why}"),
            Error::Refused { what, answer } => {
                write!(f, "{what}: {}", answer.status)?;
                for text in [&answer.code, &answer.message] {
                    if !text.is_empty() {
                        write!(f, " {text}")?;
                    }
                }
                if !answer.request_id.is_empty() {
                    write!(f, " (request id {})", answer.request_id)?;
                }
                answer.advice(what).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
        }
    }
}

/// Whether it may be that a service which wants TLS was asked without. It answers with an alert that is no HTTP, or
/// hangs up without a word.
fn unencrypted(what: &Subject, source: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    let silent = match source {
        ureq::Error::Io(error) => matches!(error.kind(), ConnectionAborted | ConnectionReset | UnexpectedEof),
        ureq::Error::Protocol(_) => true,
        _ => false,
    };
    silent && what.service.starts_with("http://")
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(text) => crate::Error::Usage(text),
            Error::Credentials { retry: Retry::Permanent, .. } => crate::Error::Usage(error.to_string()),
            error => crate::Error::other("s3", error.retry(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what() -> Box<Subject> {
        Box::new(Subject {
            op: "PUT",
            target: "s3://b/k".into(),
            service: "http://h".into(),
            region: "eu-west-1".into(),
        })
    }

    fn refused(status: u16, body: &str, headers: &[(&'static str, &'static str)]) -> Error {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        let answer = Answer::read(StatusCode::from_u16(status).unwrap(), &headers, body);
        Error::Refused { what: what(), answer: Box::new(answer) }
    }

    #[test]
    fn an_answer_is_told_with_what_to_check() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>a &lt;b&gt;</Message>\
                    <RequestId>R1</RequestId><X>y</X></Error>";
        let error = refused(404, body, &[]);
        assert_eq!(
            error.to_string(),
            "cannot PUT s3://b/k at http://h: 404 NoSuchBucket a <b> (request id R1); check the bucket's name, and \
             that the endpoint is the right one"
        );
        assert_eq!(error.retry(), Retry::Permanent);
        let error = refused(301, "", &[("x-amz-bucket-region", "us-west-2")]);
        assert!(error.to_string().contains("the bucket is in region us-west-2, not eu-west-1"), "{error}");
        assert_eq!(error.retry(), Retry::Permanent);
    }

    #[test]
    fn a_service_that_hangs_up_without_a_word_may_want_tls() {
        let told = |service: &str, kind| {
            let what = Box::new(Subject { service: service.into(), ..*what() });
            let source = Box::new(ureq::Error::Io(std::io::Error::new(kind, "Peer disconnected")));
            Error::Transport { what, source }.to_string()
        };
        let disconnected = std::io::ErrorKind::UnexpectedEof;
        assert_eq!(
            told("http://h", disconnected),
            "cannot PUT s3://b/k at http://h: Peer disconnected; does it want https? See s3.endpoint"
        );
        assert!(told("https://h", disconnected).ends_with("Peer disconnected"));
        assert!(told("http://h", std::io::ErrorKind::HostUnreachable).ends_with("Peer disconnected"));
    }

    #[test]
    fn a_proxy_in_trouble_is_asked_again() {
        let answered = |status: u16| {
            let why = format!("proxy server responded {status}/{status}");
            let source = Box::new(ureq::Error::ConnectProxyFailed(why));
            Error::Transport { what: what(), source }
        };
        assert_eq!(answered(503).retry(), Retry::Transient);
        assert_eq!(answered(403).retry(), Retry::Permanent);
        let said = "cannot PUT s3://b/k at http://h: the proxy cannot connect to it (503)";
        assert_eq!(answered(503).to_string(), said);
    }

    #[test]
    fn storms_and_broken_bodies_are_tried_again() {
        let error = refused(503, "<html>", &[("retry-after", "7")]);
        assert_eq!((error.retry(), error.retry_after()), (Retry::Transient, Some(Duration::from_secs(7))));
        let timeout = "<Error><Code>RequestTimeout</Code></Error>";
        assert_eq!(refused(400, timeout, &[]).retry(), Retry::Transient);
        assert_eq!(refused(200, "<Error><Code>InternalError</Code></Error>", &[]).retry(), Retry::Transient);
        for status in [400, 403, 404, 405, 412, 501, 505, 507] {
            assert_eq!(refused(status, "", &[]).retry(), Retry::Permanent, "{status}");
        }
        for status in [408, 429, 500, 502, 504, 520] {
            assert_eq!(refused(status, "", &[]).retry(), Retry::Transient, "{status}");
        }
    }
}
