//! Proxies that the environment names: `HTTPS_PROXY` for `https`, `HTTP_PROXY` for `http`, `ALL_PROXY` for both, in
//! small letters too, and `NO_PROXY` for hosts that are reached without. ureq would take one of them for everything.
//! Shared by the object store's client and the source's.

use std::fmt;

use ureq::{Proxy, ProxyProtocol};
use url::Url;

use crate::error::Retry;

/// Which proxy stands before a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    without: Vec<String>,
}

/// A proxy, or why it cannot be used, which matters only to who needs it.
type Named = Result<Proxy, String>;

impl Proxies {
    /// Those of this process's environment.
    pub fn from_env() -> Self {
        Proxies::of(&|name| std::env::var(name).ok())
    }

    /// Those of an environment.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| -> Option<Named> {
            for name in names.iter().flat_map(|name| [name.to_ascii_lowercase(), (*name).to_owned()]) {
                // A server of CGI gets a header `Proxy` as HTTP_PROXY, but this is no such server.
                if let Some(text) = variable(&name).filter(|text| !text.trim().is_empty()) {
                    let proxy = Proxy::new(text.trim()).ok();
                    return Some(proxy.filter(|proxy| proxy.protocol() == ProxyProtocol::Http).ok_or_else(|| {
                        format!(
                            "{name}: expected a proxy like http://HOST:PORT; SOCKS, and TLS to the proxy, are not \
                             supported (NO_PROXY names hosts that are reached without)"
                        )
                    }));
                }
            }
            None
        };
        let without = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
        let without = without.split(',').map(|host| host.trim().to_ascii_lowercase());
        Proxies {
            http: first(&["HTTP_PROXY", "ALL_PROXY"]),
            https: first(&["HTTPS_PROXY", "ALL_PROXY"]),
            without: without.filter(|host| !host.is_empty()).collect(),
        }
    }

    /// The proxy before a server; `None`: it is reached without.
    ///
    /// # Errors
    /// If what stands before it is no URL of a proxy that is spoken to over plain HTTP. It is not told: it may hold a
    /// password.
    pub fn before(&self, url: &Url) -> Result<Option<Proxy>, String> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.clone().filter(|_| !self.is_without(url)).transpose()
    }

    /// A host, and every host below it; with a port only there.
    fn is_without(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = url.port_or_known_default().unwrap_or_default().to_string();
        self.without.iter().any(|entry| {
            let entry = entry.strip_suffix(&format!(":{port}")).unwrap_or(entry);
            let name = entry.trim_start_matches('*').trim_start_matches('.');
            let below = || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
            entry == "*" || host == name || (!name.is_empty() && below())
        })
    }
}

/// What a proxy does instead of connecting to the server: the status of its answer, if it gave one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(Option<u16>);

impl Refusal {
    /// Reads it from what ureq says of `ConnectProxyFailed`: it has the status in no other place.
    pub fn read(why: &str) -> Self {
        Refusal(why.split(|byte: char| !byte.is_ascii_digit()).find_map(|word| word.parse().ok()))
    }

    /// Whether another try can help. What a proxy forbids it will forbid again.
    pub fn retry(self) -> Retry {
        match self.0 {
            Some(408 | 425 | 429) | Some(500..) | None => Retry::Transient,
            Some(_) => Retry::Permanent,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(407) => f.write_str(
                "the proxy wants another name and password (407); http://USER:PASSWORD@HOST:PORT in HTTPS_PROXY, \
                 HTTP_PROXY or ALL_PROXY",
            ),
            Some(status) if self.retry() == Retry::Transient => {
                write!(f, "the proxy cannot connect to it ({status})")
            }
            Some(status) => write!(
                f,
                "the proxy does not connect to it ({status}); it must allow CONNECT to this port, for plain http, too \
                 (NO_PROXY names hosts that are reached without)"
            ),
            None => f.write_str("the proxy does not answer; see HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let find = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, it)| (*it).to_owned());
        let proxy = Proxies::of(&find).before(&Url::parse(url).unwrap()).unwrap();
        proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = [("HTTP_PROXY", "http://plain:1"), ("https_proxy", "http://u:p@secure:2")];
        assert_eq!(before(&both, "http://h/").as_deref(), Some("plain:1"));
        assert_eq!(before(&both, "https://h/").as_deref(), Some("secure:2"));
        assert_eq!(before(&[("ALL_PROXY", "http://all:3")], "https://h/").as_deref(), Some("all:3"));
        assert_eq!(before(&[("HTTPS_PROXY", "http://x:1")], "http://h/"), None);
        assert_eq!(before(&[("HTTP_PROXY", "")], "http://h/"), None);
    }

    #[test]
    fn some_hosts_are_reached_without() {
        let without = |list: &str, url: &str| {
            before(&[("ALL_PROXY", "http://all:3"), ("NO_PROXY", list)], url).is_none()
        };
        assert!(
            without("example.com", "http://api.example.com/")
                && without(".example.com", "http://example.com/")
        );
        assert!(without("a, localhost", "http://localhost:8080/") && without("*", "http://h/"));
        assert!(
            without("h:81", "http://h:81/")
                && without("::1", "http://[::1]/")
                && without("*.b", "http://a.b/")
        );
        assert!(!without("example.com", "http://badexample.com/") && !without("h:81", "http://h/"));
        assert!(!without("", "http://h/"));
    }

    #[test]
    fn what_a_proxy_forbids_is_final_and_what_it_cannot_do_may_pass() {
        for (status, retry, said) in [
            (403, Retry::Permanent, "it must allow CONNECT to this port"),
            (405, Retry::Permanent, "does not connect to it (405)"),
            (407, Retry::Permanent, "http://USER:PASSWORD@HOST:PORT"),
            (429, Retry::Transient, "cannot connect to it (429)"),
            (502, Retry::Transient, "cannot connect to it (502)"),
        ] {
            let refusal = Refusal::read(&format!("proxy server responded {status}/{status}"));
            assert_eq!((refusal, refusal.retry()), (Refusal(Some(status)), retry));
            assert!(refusal.to_string().contains(said), "{refusal}");
        }
        let silent = Refusal::read("proxy server did not respond");
        assert_eq!((silent, silent.retry()), (Refusal(None), Retry::Transient));
    }

    #[test]
    fn what_is_no_proxy_is_told_without_its_password() {
        for proxy in
            ["ftp://u:secret@h", "socks5://u:secret@h:1080", "socks4://u:secret@h", "https://u:secret@h:1"]
        {
            let find = |name: &str| match name {
                "HTTPS_PROXY" => Some(proxy.to_owned()),
                "NO_PROXY" => Some("near".to_owned()),
                _ => None,
            };
            let proxies = Proxies::of(&find);
            let before = |url: &str| proxies.before(&Url::parse(url).unwrap());
            let error = before("https://h/").unwrap_err();
            assert!(before("http://h/").unwrap().is_none() && before("https://near/").unwrap().is_none());
            assert!(
                error.starts_with("HTTPS_PROXY: expected a proxy") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
