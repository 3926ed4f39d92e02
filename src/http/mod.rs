//! The blocking client of HTTP endpoints: one pooled [`ureq::Agent`], and what an honest client of foreign servers
//! needs: [`Client::open`] asks once and follows redirects, [`Client::open_patiently`] tries again.
//!
//! What must never happen: that credentials, headers or a body go to a server that is not the endpoint's own
//! (`origin.rs`); that a query string or a token stands in an error or a log (`error.rs`); that a body is held in
//! memory as a whole (`body.rs`). [`pagination`] says what is asked next; it does no IO.

mod auth;
mod body;
mod error;
mod origin;
mod pace;
pub mod pagination;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody};
use url::Url;

pub use crate::agent::shown;
pub use auth::Login;
pub use body::{Body, Bounds, Got};
pub use error::{Error, Fault, Result};
pub use origin::{Hosts, Trust};
pub use pace::Pace;

use crate::agent::place;
use crate::config::http::is_ours;
use crate::error::Retry;
use crate::metrics::Services;
use crate::proxy::Proxies;
use crate::retry::{Delays, Policy};
use crate::stop::Stop;
use auth::Auth;
use pace::Rate;

/// How often an answer may lead on before it leads nowhere.
const REDIRECTS: usize = 10;
/// The longest that a server may ask to be left alone.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How endpoints are asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is sent with a POST; `None`: requests are GET.
    pub body: Option<String>,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub login: Login,
    /// Hosts besides an endpoint's own that it may lead to.
    pub hosts: Hosts,
    /// Certificates; `None`: no URL begins with `https`, and none may be led to.
    pub tls: Option<Tls>,
    /// Requests a second.
    pub rate_limit: Option<f64>,
    /// Limit of connecting, of waiting for an answer, and of each read and write.
    pub timeout: Duration,
    /// What bodies may be.
    pub bounds: Bounds,
}

/// Certificates.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file of the authorities; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of its key; the file of the certificate if `None`.
    pub key: Option<PathBuf>,
    /// Whether servers are verified.
    pub verify: Verify,
}

/// Whether a server must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its certificate must be valid, and for its host name.
    #[default]
    Host,
    /// Anybody will do.
    Nothing,
}

/// Asks endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    line: Line,
    /// For strangers: without the client's certificate.
    open_line: Line,
    options: Options,
    headers: HeaderMap,
    auth: Auth,
    rate: Option<Rate>,
    stop: Stop,
    services: Services,
}

/// Sends requests, through the proxy that stands before a server.
struct Line {
    agent: Agent,
    proxies: Proxies,
}

impl Line {
    fn send(&self, what: &str, url: &Url, request: Request<impl AsSendBody>) -> Result<Response<ureq::Body>> {
        let proxy = self.proxies.before(url).map_err(Error::Config)?;
        let answer = self.agent.run(self.agent.configure_request(request).proxy(proxy).build());
        answer.map_err(|error| Error::Transport { what: what.to_owned(), source: Box::new(error) })
    }
}

/// An answer whose body is still to be read.
pub struct Reply {
    /// The status, a success.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it came from at last.
    pub url: Url,
    /// The body.
    pub body: Body,
}

/// How often something was tried, from one success to the next.
pub struct Tries {
    policy: Policy,
    delays: Delays,
    count: u32,
}

impl Tries {
    /// As many as the policy has.
    pub fn new(policy: Policy) -> Self {
        Tries { policy, delays: policy.delays(seed()), count: 0 }
    }

    /// It went on: the next failure is the first one again.
    pub fn reset(&mut self) {
        if self.count > 0 {
            *self = Tries::new(self.policy);
        }
    }
}

/// Something that differs from reader to reader and from run to run.
fn seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

impl Client {
    /// Makes the agent; asks nobody. When `stop` drains, every request ends.
    ///
    /// # Errors
    /// [`Error::Config`] if certificates cannot be read, or something cannot be sent.
    pub fn new(options: Options, stop: &Stop, services: &Services) -> Result<Self> {
        let files = options.tls.as_ref().map(files);
        let agent = agent(options.timeout, files.as_ref())?;
        let open = match files.filter(|files| files.cert.is_some()) {
            Some(files) => {
                self::agent(options.timeout, Some(&crate::tls::Files { cert: None, key: None, ..files }))?
            }
            None => agent.clone(),
        };
        // Readers stop at a drain: nothing that they wait for matters any more.
        let ending = [agent.clone(), open.clone()];
        stop.on_change(move || ending.iter().for_each(|agent| agent.clone().shutdown()));
        let proxies = Proxies::from_env();
        let inner = Inner {
            line: Line { agent, proxies: proxies.clone() },
            open_line: Line { agent: open, proxies },
            headers: headers(&options)?,
            auth: Auth::new(options.login.clone()),
            rate: options.rate_limit.map(Rate::new),
            options,
            stop: stop.clone(),
            services: services.clone(),
        };
        Ok(Client(Arc::new(inner)))
    }

    /// The method that endpoints are asked with.
    fn method(&self) -> Method {
        if self.0.options.body.is_some() { Method::POST } else { Method::GET }
    }

    /// What a request is called in errors.
    pub fn what(&self, url: &Url) -> String {
        format!("{} {}", self.method(), shown(url))
    }

    /// Asks for `url`, which the endpoint at `home` has led to, once. Follows redirects. Blocks until the head of the
    /// answer is there.
    ///
    /// # Errors
    /// If there is no answer, it is no success, or it leads elsewhere.
    pub fn open(&self, home: &Url, url: &Url) -> Result<Reply> {
        let what = self.what(url);
        let (mut url, mut method) = (nobody(url.clone()), self.method());
        for _ in 0..=REDIRECTS {
            let answer = self.answer(&what, home, &url, &method)?;
            let status = answer.status();
            let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let (true, Some(location)) = (matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308), location)
            else {
                return self.reply(&what, url, answer);
            };
            let joined = url.join(location);
            let joined =
                joined.map_err(|_| Error::Elsewhere { what: what.clone(), to: "what is no URL".into() })?;
            url = nobody(joined);
            if !matches!(status.as_u16(), 307 | 308) {
                method = Method::GET;
            }
        }
        let why = format!("it leads on and on: {REDIRECTS} redirects and no page");
        Err(Error::Page { what, why, retry: Retry::Permanent })
    }

    /// Asks once; with another token where the server does not take the first.
    fn answer(&self, what: &str, home: &Url, url: &Url, method: &Method) -> Result<Response<ureq::Body>> {
        let elsewhere = || Error::Elsewhere { what: what.to_owned(), to: place(url) };
        let trust = self.0.options.hosts.trust(home, url).ok_or_else(elsewhere)?;
        if url.scheme() == "https" && self.0.options.tls.is_none() {
            return Err(elsewhere());
        }
        if trust == Trust::Stranger && *method != Method::GET {
            return Err(elsewhere());
        }
        let answer = self.send(what, url, method, trust)?;
        if answer.status() == StatusCode::UNAUTHORIZED && trust == Trust::Home && self.0.auth.refused() {
            return self.send(what, url, method, trust);
        }
        Ok(answer)
    }

    fn send(&self, what: &str, url: &Url, method: &Method, trust: Trust) -> Result<Response<ureq::Body>> {
        let inner = &self.0;
        if let Some(rate) = &inner.rate {
            // A drain is told by the caller, who looks at the stop.
            let _ = rate.wait(&inner.stop);
        }
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(all) = request.headers_mut() {
            match trust {
                Trust::Home => {
                    all.extend(inner.headers.clone());
                    all.extend(inner.auth.header(&inner.line)?);
                }
                Trust::Stranger => all.extend(common()),
            }
        }
        let line = if trust == Trust::Home { &inner.line } else { &inner.open_line };
        let unsendable = |_| Error::Config(format!("{what}: the request has characters that cannot be sent"));
        match &inner.options.body {
            Some(body) if *method == Method::POST => {
                let typed = request.headers_ref().is_some_and(|all| all.contains_key(header::CONTENT_TYPE));
                if !typed {
                    request = request.header(header::CONTENT_TYPE, "application/json");
                }
                line.send(what, url, request.body(body.as_str()).map_err(unsendable)?)
            }
            _ => line.send(what, url, request.body(()).map_err(unsendable)?),
        }
    }

    fn reply(&self, what: &str, url: Url, answer: Response<ureq::Body>) -> Result<Reply> {
        let (parts, body) = answer.into_parts();
        if !parts.status.is_success() {
            let after = retry_after(&parts.headers, SystemTime::now());
            return Err(Error::Refused { what: what.to_owned(), status: parts.status.as_u16(), after });
        }
        let body = Body::new(what, &parts.headers, body.into_reader(), self.0.options.bounds)?;
        Ok(Reply { status: parts.status, headers: parts.headers, url, body })
    }

    /// Asks until there is an answer, it fails for good, or the run is stopped. Blocks between tries.
    ///
    /// # Errors
    /// The last failure; [`crate::Error::Stopped`] on a drain.
    pub fn open_patiently(&self, home: &Url, url: &Url, tries: &mut Tries) -> crate::Result<Reply> {
        loop {
            if !self.0.stop.is_running() {
                return Err(crate::Error::Stopped);
            }
            match self.open(home, url) {
                Ok(reply) => return Ok(reply),
                Err(error) => self.again(error, tries)?,
            }
        }
    }

    /// Waits until what failed is to be tried again. Blocks.
    ///
    /// # Errors
    /// The failure, if it is not; [`crate::Error::Stopped`] on a drain.
    pub fn again(&self, error: Error, tries: &mut Tries) -> crate::Result<()> {
        if !self.0.stop.is_running() {
            return Err(crate::Error::Stopped);
        }
        let delay = (error.retry() == Retry::Transient).then(|| tries.delays.next()).flatten();
        let Some(delay) = delay else {
            self.0.services.error("http", error.kind());
            return Err(error.into());
        };
        self.0.services.retry("http", error.kind());
        tries.count += 1;
        let delay = delay.max(error.retry_after().unwrap_or_default());
        log::warn!(
            "{error}; retry {} of {} in {} ms",
            tries.count,
            tries.policy.max_retries,
            delay.as_millis()
        );
        self.0.stop.sleep_running(delay)
    }
}

fn agent(timeout: Duration, files: Option<&crate::tls::Files>) -> Result<Agent> {
    let config = crate::agent::settings(timeout).proxy(None);
    Ok(crate::agent::agent(match files {
        Some(files) => config.tls_config(crate::tls::config(files).map_err(Error::Config)?),
        None => config,
    }))
}

/// Who leads here names no user: with whose login is not a server's to say.
fn nobody(mut url: Url) -> Url {
    // Both fail only for URLs that have no place for a user.
    let _ = (url.set_username(""), url.set_password(None));
    url
}

fn files(tls: &Tls) -> crate::tls::Files {
    if tls.verify == Verify::Nothing {
        log::warn!("http.tls.verify = false: anybody can pretend to be the server");
    }
    crate::tls::Files {
        settings: "http.tls.",
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        trusting: tls.verify == Verify::Nothing,
    }
}

/// What every server is told.
fn common() -> HeaderMap {
    let mut all = HeaderMap::new();
    let accept = "application/json, application/x-ndjson;q=0.9, */*;q=0.5";
    all.insert(header::ACCEPT, HeaderValue::from_static(accept));
    all.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
    all
}

/// What an endpoint's own server is told.
fn headers(options: &Options) -> Result<HeaderMap> {
    let mut all = common();
    let login = match &options.login {
        Login::Key { header, .. } => Some(header),
        _ => None,
    };
    let mut names = options.headers.iter().map(|(name, _)| name).chain(login);
    if let Some(name) = names.find(|name| is_ours(name)) {
        return Err(Error::Config(format!("the header {name} is set by this client alone")));
    }
    for (name, value) in &options.headers {
        let parsed = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
        let (Ok(name), Ok(value)) = parsed else {
            return Err(Error::Config(format!("the header {name:?} of http.headers cannot be sent")));
        };
        all.insert(name, value);
    }
    Ok(all)
}

/// How long a server wants to be left alone: in seconds, or up to a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            let wait = i128::from(at.as_millisecond()) - now as i128;
            Duration::from_millis(u64::try_from(wait).unwrap_or_default())
        }
    };
    Some(after.min(PATIENCE))
}
