//! What blocking HTTP clients have in common: the settings of their agents, how a host is found ([`Known`]), what is
//! told of a URL, and of what went wrong on the way: whether it may pass, and its words.
//! Shared by the object store's client and the source's.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

use crate::error::Retry;
use crate::proxy;

/// So long it is taken for true where a host is: a name that moves is followed soon, and a client that asks a thousand
/// times a second does not look it up each time.
const KNOWN: Duration = Duration::from_secs(5);

/// A URL without what may be secret: scheme, host, port and path.
pub fn shown(url: &Url) -> String {
    format!("{}{}", place(url), url.path())
}

/// Scheme, host and port of a URL.
pub(crate) fn place(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Settings of an agent that sends one request at a time and judges the answer itself. `limit` is that of
/// connecting, of waiting for an answer, and of each read and write.
pub(crate) fn settings(limit: Duration) -> ConfigBuilder<AgentScope> {
    let limit = Some(limit);
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
        .accept("")
        .accept_encoding("")
        .timeout_resolve(limit)
        .timeout_connect(limit)
        .timeout_send_request(limit)
        .timeout_recv_response(limit)
        .timeout_per_read(limit)
        .timeout_per_write(limit)
}

/// An agent with these settings.
pub(crate) fn agent(settings: ConfigBuilder<AgentScope>) -> Agent {
    Agent::with_parts(settings.build(), DefaultConnector::default(), Known::default())
}

/// Whether another try can help where no answer came.
pub(crate) fn retry(error: &ureq::Error) -> Retry {
    match error {
        error if is_tls(error) => Retry::Permanent,
        ureq::Error::ConnectProxyFailed(why) => proxy::Refusal::read(why).retry(),
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BodyStalled
        | ureq::Error::LargeResponseHeader(..)
        | ureq::Error::Protocol(_) => Retry::Transient,
        _ => Retry::Permanent,
    }
}

/// Whether the two could not agree on encryption, or one does not trust the other.
pub(crate) fn is_tls(error: &ureq::Error) -> bool {
    match error {
        // A certificate that is not trusted comes as invalid data, and so does an alert of the server's.
        ureq::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        }
        ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_) | ureq::Error::TlsRequired => true,
        _ => false,
    }
}

/// Whether the server answered without encryption where some was asked for.
pub(crate) fn is_plain(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(source, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// What happened on the way, in words.
pub(crate) struct Plain<'a>(pub(crate) &'a ureq::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            error if is_plain(error) => f.write_str("the server does not speak TLS here"),
            ureq::Error::Io(error) => write!(f, "{error}"),
            ureq::Error::HostNotFound => f.write_str("no host of this name is known"),
            ureq::Error::ConnectionFailed => f.write_str("nobody answers"),
            ureq::Error::Timeout(what) => write!(f, "no answer in time ({what}); see --timeout"),
            ureq::Error::ConnectProxyFailed(why) => write!(f, "{}", proxy::Refusal::read(why)),
            // These may hold what was sent.
            ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => {
                f.write_str("the URL cannot be asked")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// Looks hosts up, and remembers for a moment where they are. A lookup with a timeout takes a thread of its own, and it
/// would be done for each request, whether or not a connection is there already.
#[derive(Default)]
struct Known {
    lookup: DefaultResolver,
    hosts: Mutex<Vec<Host>>,
}

struct Host {
    authority: String,
    encrypted: bool,
    until: Instant,
    addresses: ResolvedSocketAddrs,
}

impl Resolver for Known {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // It decides the port where none is named.
        let encrypted = uri.scheme_str() == Some("https");
        let now = Instant::now();
        let mut hosts = self.hosts.lock();
        hosts.retain(|host| host.until > now);
        if let Some(host) = hosts.iter().find(|it| it.authority == authority && it.encrypted == encrypted) {
            return Ok(host.addresses.clone());
        }
        drop(hosts);
        let addresses = self.lookup.resolve(uri, config, timeout)?;
        let host = Host {
            authority: authority.to_owned(),
            encrypted,
            until: now + KNOWN,
            addresses: addresses.clone(),
        };
        self.hosts.lock().push(host);
        Ok(addresses)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

#[cfg(test)]
mod tests {
    use ureq::Timeout;

    use super::*;

    fn ask(known: &Known, uri: &str) -> Vec<String> {
        let timeout = NextTimeout {
            after: Duration::from_secs(20).into(),
            reason: Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let uri = uri.parse().unwrap();
        let found = known.resolve(&uri, &Agent::config_builder().build(), timeout).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hosts_are_remembered_by_name_port_and_scheme_for_a_moment() {
        let known = Known::default();
        assert_eq!(ask(&known, "http://127.0.0.1:81/a?b"), ["127.0.0.1:81"]);
        assert_eq!(ask(&known, "http://127.0.0.1/"), ["127.0.0.1:80"]);
        assert_eq!(ask(&known, "https://127.0.0.1/"), ["127.0.0.1:443"]);
        assert_eq!(known.hosts.lock().len(), 3);
        known.hosts.lock()[0].addresses[0].set_port(7);
        assert_eq!(ask(&known, "http://127.0.0.1:81/c"), ["127.0.0.1:7"]);
        known.hosts.lock()[0].until = Instant::now();
        assert_eq!(ask(&known, "http://127.0.0.1:81/c"), ["127.0.0.1:81"]);
        assert_eq!(known.hosts.lock().len(), 3);
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let url = Url::parse("https://u:p@h:8443/a/b?token=t#f").unwrap();
        assert_eq!(shown(&url), "https://h:8443/a/b");
    }
}
