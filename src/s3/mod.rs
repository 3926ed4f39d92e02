//! The blocking client of one bucket of an object store that speaks S3. It signs with rust-s3 and sends with one
//! pooled [`ureq::Agent`]; every call is one request and one attempt, and ends within the timeout.
//!
//! rust-s3's own transport is not used: it opens a connection a request. Retries are the caller's: writers have
//! the engine's, everybody else [`Bucket::patiently`]. Bodies are sent from the batch's pieces as they are, never
//! joined; over plain HTTP they are hashed for the signature, over TLS only their CRC-32C goes with them, signed.
//!
//! Read `object.rs` for whole objects, `multipart.rs` for those in parts, `error.rs` for what may go wrong.

mod credentials;
mod endpoint;
mod error;
mod multipart;
mod object;
pub mod probe;
mod sign;
mod tls;

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ureq::http::{self, HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use ureq::{Agent, AsSendBody, SendBody};

pub use credentials::{Asks, Credentials, Keys, region_of};
pub use endpoint::{Endpoint, Style, check_bucket, check_endpoint};
pub use error::{Answer, Error, Result, Subject};
pub use multipart::{Multipart, PartTag};
pub use object::{Condition, Found, Listed, Object};
pub use sign::form;

use crate::batch::{Body, Piece};
use crate::error::Retry;
use crate::metrics::Services;
use crate::proxy::Proxies;
use crate::retry::Policy;
use crate::stop::Stop;

/// What metrics and logs call the store.
const SERVICE: &str = "s3";
/// Behind an abort nobody waits longer for one request.
const LATE: Duration = Duration::from_secs(2);
/// What is kept of an answer's body at most: a listing of a thousand long keys is smaller.
const ANSWER: u64 = 16 << 20;

/// How a bucket is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Who signs.
    pub credentials: Credentials,
    /// PEM file of the authorities that the service is verified against; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// Limit of connecting, of waiting for an answer, of receiving all of it, and of each read and write.
    pub timeout: Duration,
    /// Connections that are kept open.
    pub connections: usize,
    /// Where it is counted what fails, and what is tried again.
    pub services: Services,
}

/// A bucket.
pub struct Bucket {
    agent: Agent,
    /// For what is still to be asked behind an abort: giving back a lease, giving up uploads.
    late: Agent,
    aborted: Arc<AtomicBool>,
    endpoint: Endpoint,
    credentials: Credentials,
    services: Services,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.url(""))
    }
}

/// One request.
struct Ask<'a> {
    op: &'static str,
    method: Method,
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: HeaderMap,
    content: Content<'a>,
    /// Instead of the timeout, where less is enough.
    limit: Option<Duration>,
}

impl<'a> Ask<'a> {
    fn new(op: &'static str, method: Method, key: &'a str) -> Self {
        let (headers, content) = (HeaderMap::new(), Content::None);
        Ask { op, method, key, query: &[], headers, content, limit: None }
    }

    fn header(&mut self, name: &'static str, value: &str) -> Result<()> {
        sign::put(&mut self.headers, HeaderName::from_static(name), value)
    }
}

/// What is sent.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// The pieces of a body, one behind the other.
    Pieces(&'a Body),
}

impl Content<'_> {
    fn len(&self) -> u64 {
        match self {
            Content::None => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Pieces(body) => body.len(),
        }
    }

    fn hash(&self) -> String {
        match self {
            Content::None => sign::hash([]),
            Content::Bytes(bytes) => sign::hash([*bytes]),
            Content::Pieces(body) => sign::hash(body.pieces().iter().map(Piece::bytes)),
        }
    }

    fn crc32c(&self) -> u32 {
        match self {
            Content::None => 0,
            Content::Bytes(bytes) => crc32c::crc32c(bytes),
            Content::Pieces(body) => body.crc32c(),
        }
    }
}

/// What came back.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the root of the body is an error, whatever the status says.
    fn is_error(&self) -> bool {
        // A declaration and a name are short.
        let head = String::from_utf8_lossy(&self.body[..self.body.len().min(1 << 10)]);
        root(&head) == Some("Error")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the store tells the object apart by. A proxy that packs bodies makes weak tags of strong ones, which no
    /// `If-Match` matches (RFC 9110, section 13.1.1).
    fn etag(&self) -> Option<&str> {
        self.header("etag").map(|etag| etag.strip_prefix("W/").unwrap_or(etag))
    }
}

/// The name of the element that an XML document consists of.
fn root(text: &str) -> Option<&str> {
    let mut text = text.trim_start_matches('\u{feff}').trim_ascii_start();
    for (begin, end) in [("<?", "?>"), ("<!--", "-->")] {
        while let Some(rest) = text.strip_prefix(begin) {
            text = rest.split_once(end)?.1.trim_ascii_start();
        }
    }
    let name = text.strip_prefix('<')?;
    name.split(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/')).next()
}

impl Bucket {
    /// Makes the agent; asks nobody.
    ///
    /// # Errors
    /// [`Error::Config`] if certificates cannot be read, or the environment names a proxy that is none.
    pub fn new(options: Options) -> Result<Self> {
        let proxy = Proxies::from_env().before(&options.endpoint.url("", &[])?).map_err(Error::Config)?;
        let agent = |limit: Duration, connections: usize| -> Result<Agent> {
            let mut config = crate::agent::settings(limit)
                .timeout_recv_body(Some(limit))
                .proxy(proxy.clone())
                .max_idle_connections(connections)
                .max_idle_connections_per_host(connections);
            if options.endpoint.is_encrypted() {
                config = config.tls_config(tls::config(options.ca.as_deref())?);
            }
            Ok(crate::agent::agent(config))
        };
        let (late, agent) =
            (agent(LATE.min(options.timeout), 1)?, agent(options.timeout, options.connections)?);
        let Options { endpoint, credentials, services, .. } = options;
        credentials.count_into(&services);
        Ok(Bucket { agent, late, aborted: Arc::default(), endpoint, credentials, services })
    }

    /// Once `stop` is aborted all requests under way end with an error; those that follow get two seconds, and none
    /// any more when one of them was not answered. Nobody waits for keys then.
    pub fn hang_up_with(&self, stop: &Stop) {
        self.credentials.hang_up_with(stop);
        let (agent, aborted) = (self.agent.clone(), self.aborted.clone());
        stop.on_abort(move || {
            aborted.store(true, Ordering::Release);
            agent.clone().shutdown();
        });
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Who signs.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// `s3://bucket/key`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.endpoint.bucket())
    }

    pub(crate) fn subject(&self, op: &'static str, key: &str) -> Box<Subject> {
        Box::new(Subject {
            op,
            target: self.url(key),
            service: self.endpoint.service().into(),
            region: self.endpoint.region().into(),
        })
    }

    /// Sends a request; an answer that is no success is an error, and so is a success with an error inside.
    fn ask(&self, ask: Ask<'_>) -> Result<Reply> {
        let what = self.subject(ask.op, ask.key);
        let keys = self.credentials.keys()?;
        // What is read may be anything; what is changed is not changed where an error is told.
        let reads = ask.method == Method::GET;
        let reply = self.send(ask, &what, &keys)?;
        if reply.status.is_success() && (reads || !reply.is_error()) {
            return Ok(reply);
        }
        let mut answer = Answer::read(reply.status, &reply.headers, &reply.text());
        if answer.is_of_old_keys(&keys) {
            answer.renews = self.credentials.expired(&keys);
        }
        Err(Error::Refused { what, answer: Box::new(answer) })
    }

    fn send(&self, ask: Ask<'_>, what: &Subject, keys: &Keys) -> Result<Reply> {
        let url = self.endpoint.url(ask.key, ask.query)?;
        let payload = match self.endpoint.is_encrypted() {
            true => sign::UNSIGNED.to_owned(),
            false => ask.content.hash(),
        };
        let subject = sign::Subject {
            method: &ask.method,
            url: &url,
            region: self.endpoint.region(),
            payload: &payload,
            now: SystemTime::now().into(),
        };
        let mut headers = ask.headers;
        sign::sign(&subject, keys, &mut headers)?;
        // What was read and compared is what is asked for: `Url` has not changed the encoding of the key.
        let mut request = Request::builder().method(&ask.method).uri(url.as_str());
        if matches!(ask.method, Method::PUT | Method::POST) {
            request = request.header(header::CONTENT_LENGTH, ask.content.len());
        }
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
        }
        let transport =
            |source: ureq::Error| Error::Transport { what: Box::new(what.clone()), source: Box::new(source) };
        let mut reader = Reading::new(ask.content);
        let response = match ask.method {
            Method::PUT | Method::POST => {
                self.run(request.body(SendBody::from_reader(&mut reader)), ask.limit)
            }
            _ => self.run(request.body(()), ask.limit),
        };
        let (parts, mut body) = response.map_err(transport)?.into_parts();
        let body = body.with_config().limit(ANSWER).read_to_vec().map_err(transport)?;
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    fn run(
        &self,
        request: http::Result<Request<impl AsSendBody>>,
        limit: Option<Duration>,
    ) -> std::result::Result<Response<ureq::Body>, ureq::Error> {
        let aborted = self.aborted.load(Ordering::Acquire);
        let agent = if aborted { &self.late } else { &self.agent };
        let answer = match limit {
            None => agent.run(request?),
            Some(limit) => agent.run(agent.configure_request(request?).timeout_global(Some(limit)).build()),
        };
        if aborted && answer.is_err() {
            self.late.clone().shutdown();
        }
        answer
    }

    /// Something of this bucket failed and is tried again in `wait`: counts it and says so. `attempt` is the one that
    /// failed, the first being 1; `tries` how many there are, where they are counted.
    pub(crate) fn again(&self, error: &Error, attempt: u32, tries: Option<u32>, wait: Duration) {
        self.services.retry(SERVICE, error.kind());
        let of = tries.map_or_else(String::new, |tries| format!(" of {tries}"));
        let wait = wait.as_millis() as u64;
        log::warn!(
            service = SERVICE, attempt, wait_ms = wait;
            "{error}; attempt {attempt}{of}, next in {wait} ms"
        );
    }

    /// Calls until it succeeds, fails for good, or the run is stopped. Blocks between tries.
    ///
    /// # Errors
    /// The last failure; [`crate::Error::Stopped`].
    pub fn patiently<T>(
        &self,
        policy: Policy,
        stop: &Stop,
        mut call: impl FnMut() -> Result<T>,
    ) -> crate::Result<T> {
        let mut delays = policy.delays(std::ptr::from_ref(&call) as usize as u64);
        let mut attempt = 0;
        loop {
            let error = match call() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.retry() == Retry::Transient && stop.is_aborted() {
                // It is the abort that ended the request, or its consequence.
                return Err(crate::Error::Stopped);
            }
            let Some(delay) = delays.next().filter(|_| error.retry() == Retry::Transient) else {
                return Err(error.into());
            };
            let delay = delay.max(error.retry_after().unwrap_or_default());
            attempt += 1;
            self.again(&error, attempt, Some(policy.max_retries.saturating_add(1)), delay);
            stop.sleep_running(delay)?;
        }
    }
}

/// A content that is read once.
struct Reading<'a> {
    pieces: &'a [Piece],
    rest: &'a [u8],
}

impl<'a> Reading<'a> {
    fn new(content: Content<'a>) -> Self {
        match content {
            Content::None => Reading { pieces: &[], rest: &[] },
            Content::Bytes(bytes) => Reading { pieces: &[], rest: bytes },
            Content::Pieces(body) => Reading { pieces: body.pieces(), rest: &[] },
        }
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.rest.is_empty() {
                let Some((piece, pieces)) = self.pieces.split_first() else { break };
                (self.rest, self.pieces) = (piece.bytes(), pieces);
                continue;
            }
            let (now, later) = self.rest.split_at(self.rest.len().min(buffer.len() - filled));
            buffer[filled..filled + now.len()].copy_from_slice(now);
            (self.rest, filled) = (later, filled + now.len());
        }
        Ok(filled)
    }
}
