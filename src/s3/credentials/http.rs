//! One small request to a service that lends keys: its limits, its answer, and what its refusals mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Deserialize;
use ureq::http::{Method, Request, StatusCode};
use ureq::{Agent, Timeout};
use url::{Host, Url};

use super::super::error::{Error, Result};
use super::super::tls;
use super::{Keys, Lent, failed};
use crate::agent::{self, Plain};
use crate::error::Retry;
use crate::proxy::Proxies;

/// What is read of an answer at most.
const ANSWER: u64 = 64 << 10;
/// How long services on the machine may take.
pub(super) const NEAR: Duration = Duration::from_secs(5);
/// How long connecting to them may take: where there are none, nobody may answer at all.
const CONNECT: Duration = Duration::from_secs(1);
/// The same elsewhere: nothing else ends that where nobody waits any more.
const CONNECT_FAR: Duration = Duration::from_secs(5);
/// Hosts that containers get keys from without encryption, besides the machine itself.
const CONTAINER_HOSTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// A service that lends keys, and how it is asked.
pub(super) struct Service {
    agent: Agent,
    /// The service in words.
    whom: &'static str,
    /// Nothing says that it is there, and it has not been reached yet.
    is_guess: AtomicBool,
}

impl Service {
    /// One on this machine: no proxy stands in between.
    pub fn near(whom: &'static str, url: &Url) -> Result<Self> {
        let config = builder(NEAR).timeout_connect(Some(CONNECT)).proxy(None);
        let config = if url.scheme() == "https" { config.tls_config(tls::config(None)?) } else { config };
        Ok(Service { agent: config.build().new_agent(), whom, is_guess: AtomicBool::new(false) })
    }

    /// One elsewhere, behind the proxy that the environment names for it.
    ///
    /// # Errors
    /// [`Error::Config`] if that is none, or certificates cannot be read.
    pub fn far(
        whom: &'static str,
        url: &Url,
        ca: Option<&Path>,
        limit: Duration,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let proxy = Proxies::of(variable).before(url).map_err(Error::Config)?;
        let connect = Some(limit.min(CONNECT_FAR));
        let config = builder(limit).timeout_resolve(connect).timeout_connect(connect).proxy(proxy);
        let config = if url.scheme() == "https" { config.tls_config(tls::config(ca)?) } else { config };
        Ok(Service { agent: config.build().new_agent(), whom, is_guess: AtomicBool::new(false) })
    }

    /// Nothing says that there is such a service: where nobody can be reached there is none, and no other try helps.
    pub fn guessed(self) -> Self {
        Service { is_guess: AtomicBool::new(true), ..self }
    }

    /// Sends a request and reads the answer.
    pub fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(StatusCode, String)> {
        let whom = self.whom;
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let unsendable =
            |_| failed(Retry::Permanent, format!("{whom}: the request has characters that cannot be sent"));
        let sent = match method {
            Method::GET => self.agent.run(request.body(()).map_err(unsendable)?),
            _ => self.agent.run(request.body(body).map_err(unsendable)?),
        };
        let is_nobody = sent.as_ref().is_err_and(is_nobody);
        let is_guess =
            if is_nobody { self.is_guess.load(Relaxed) } else { self.is_guess.swap(false, Relaxed) };
        let lost = |error: ureq::Error| {
            let retry = match is_nobody && is_guess {
                true => Retry::Permanent,
                false => agent::retry(&error),
            };
            failed(retry, format!("{whom} at {}: {}", shown(url), Plain(&error)))
        };
        let mut response = sent.map_err(lost)?;
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(lost)?;
        Ok((response.status(), text))
    }

    /// Ends the request that is under way, and those that would follow.
    pub fn end(&self) {
        self.agent.clone().shutdown();
    }
}

/// An address as it may be told: what follows a question mark may be secret, and so is who asks.
pub(super) fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "an address that is none".into(), |url| crate::agent::shown(&url))
}

/// Whether no connection was made at all.
fn is_nobody(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied,
    };
    match error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied
        ),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

fn builder(limit: Duration) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(limit))
        .max_idle_connections(0)
}

/// Whether keys may travel to this URL: encrypted, or without leaving the machine or its container service.
pub(super) fn is_safe(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Domain(name))) => name == "localhost",
        ("http", Some(Host::Ipv4(ip))) => ip.is_loopback() || CONTAINER_HOSTS.contains(&IpAddr::V4(ip)),
        ("http", Some(Host::Ipv6(ip))) => ip.is_loopback() || CONTAINER_HOSTS.contains(&IpAddr::V6(ip)),
        _ => false,
    }
}

/// The error that an answer other than a success is. Nothing of its body is told but what `said` found there.
pub(super) fn refused(whom: &str, url: &str, status: StatusCode, said: &str) -> Error {
    let retry = match status.as_u16() {
        408 | 429 | 500.. => Retry::Transient,
        _ => Retry::Permanent,
    };
    let gap = if said.is_empty() { "" } else { " " };
    failed(retry, format!("{whom} at {}: {}{gap}{said}", shown(url), status.as_u16()))
}

/// Keys as containers, instances and programs tell them.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Told {
    pub version: Option<u32>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
}

impl Told {
    /// Reads an answer; parse errors quote nothing of it.
    pub fn read(text: &str) -> std::result::Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("the answer is no JSON of keys (line {}, column {})", error.line(), error.column())
        })
    }

    /// What it says went wrong.
    pub fn said(&self) -> String {
        [&self.code, &self.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }

    pub fn lent(self) -> std::result::Result<Lent, String> {
        lent(
            self.access_key_id,
            self.secret_access_key,
            self.token.or(self.session_token),
            self.expiration.as_deref(),
        )
    }
}

/// Keys that a service has lent, if none of it is missing or empty.
pub(super) fn lent(
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
    expiration: Option<&str>,
) -> std::result::Result<Lent, String> {
    let full = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let access_key_id = full(id).ok_or("the answer has no AccessKeyId")?;
    let secret_access_key = full(secret).ok_or("the answer has no SecretAccessKey")?;
    let until = expiration.filter(|text| !text.is_empty()).map(instant).transpose()?;
    Ok(Lent::new(Keys { access_key_id, secret_access_key, session_token: full(token) }, until))
}

fn instant(text: &str) -> std::result::Result<SystemTime, String> {
    let at: Timestamp = text
        .parse()
        .map_err(|_| format!("Expiration: expected a time like 2026-01-31T12:00:00Z, not {text:?}"))?;
    // Whole seconds are what services tell; a time before 1970 has passed anyhow.
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn keys_travel_encrypted_or_stay_on_the_machine() {
        let safe = |text: &str| is_safe(&Url::parse(text).unwrap());
        for text in [
            "https://example.com/x",
            "http://127.0.0.1:9/x",
            "http://[::1]/x",
            "http://localhost/x",
            "http://169.254.170.2/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert!(safe(text), "{text}");
        }
        for text in
            ["http://example.com/x", "http://169.254.169.254/", "http://10.0.0.1/", "ftp://localhost/"]
        {
            assert!(!safe(text), "{text}");
        }
    }

    #[test]
    fn only_where_nobody_can_be_reached_a_guess_was_wrong() {
        let retry = |service: &Service, url: &str| {
            service.ask(Method::GET, url, &[], "").map(|_| ()).unwrap_err().retry()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let service = || Service::far("somebody", &url, None, Duration::from_millis(100), &|_| None).unwrap();
        // The system takes the connection, and nobody answers.
        let guessed = service().guessed();
        assert_eq!(retry(&guessed, url.as_str()), Retry::Transient);
        drop(listener);
        assert_eq!(retry(&guessed, url.as_str()), Retry::Transient, "it was there once");
        assert_eq!(retry(&service().guessed(), url.as_str()), Retry::Permanent);
        assert_eq!(retry(&service(), url.as_str()), Retry::Transient, "it was named");
    }

    #[test]
    fn what_lacks_something_is_no_key() {
        let told = |text: &str| Told::read(text).and_then(Told::lent).map(|_| ()).unwrap_err();
        assert!(told("{}").contains("no AccessKeyId"));
        assert!(told("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\" \"}").contains("no SecretAccessKey"));
        let odd = told("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Expiration\":\"soon\"}");
        assert!(odd.contains("expected a time"), "{odd}");
        let secret = told("{\"SecretAccessKey\":\"hidden");
        assert!(secret.contains("no JSON") && !secret.contains("hidden"), "{secret}");
    }
}
