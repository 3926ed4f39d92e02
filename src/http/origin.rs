//! Where an endpoint may lead: [`Hosts`]. Pure.
//!
//! Redirects and next URLs stay at scheme, host and port of the endpoint, or go to a host that is allowed by name.
//! There, nothing is sent that belongs to the endpoint: no credentials, no headers, no body. Nothing ever leads from
//! an encrypted endpoint to one that is not.

use url::Url;

/// Whether what belongs to an endpoint may be sent to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is the endpoint's own server.
    Home,
    /// It is another one, which is allowed.
    Stranger,
}

/// Hosts that may be asked besides an endpoint's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// `host` for any port, or `host:port`.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Hosts(hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    /// Whether an endpoint at `home` may lead to `to`; `None`: it may not.
    pub fn trust(&self, home: &Url, to: &Url) -> Option<Trust> {
        if home.origin() == to.origin() {
            return Some(Trust::Home);
        }
        let known = matches!(to.scheme(), "http" | "https");
        if !known || (home.scheme() == "https" && to.scheme() != "https") {
            return None;
        }
        let host = to.host_str()?.to_ascii_lowercase();
        let port = to.port_or_known_default().unwrap_or_default();
        let full = format!("{host}:{port}");
        self.0.iter().any(|allowed| *allowed == host || *allowed == full).then_some(Trust::Stranger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(home: &str, to: &str, expected: Option<Trust>) {
        let hosts = Hosts::new(["CDN.example.com".into(), "other:8080".into()]);
        let trust = hosts.trust(&Url::parse(home).unwrap(), &Url::parse(to).unwrap());
        assert_eq!(trust, expected, "{home} to {to}");
    }

    #[test]
    fn an_endpoint_leads_to_its_own_server_and_to_allowed_hosts() {
        check("https://h/a", "https://h:443/b?c", Some(Trust::Home));
        check("http://h/a", "http://h:81/a", None);
        check("http://h/a", "https://h/a", None);
        check("https://h/a", "https://cdn.example.com/x", Some(Trust::Stranger));
        check("https://h/a", "https://cdn.example.com:9/x", Some(Trust::Stranger));
        check("https://h/a", "http://cdn.example.com/x", None);
        check("http://h/a", "http://other:8080/", Some(Trust::Stranger));
        check("http://h/a", "http://other/", None);
        check("http://h/a", "http://cdn.example.com.evil/", None);
        check("http://h/a", "file:///etc/passwd", None);
    }
}
