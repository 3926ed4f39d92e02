//! What is asked for: [`read`] makes a [`Request`] of the head of an HTTP/1 request. Pure.
//!
//! A page of another site that has its name point to this machine would be let in by a browser: it sends that name as
//! `Host`. So what names inputs and outputs is served only for names that cannot be such a site's: addresses,
//! `localhost`, and names that the configuration has.

use std::net::IpAddr;

/// The longest head that is read.
pub(super) const HEAD: usize = 8 << 10;
const HEADERS: usize = 64;

/// What is asked for, once the head is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `/metrics`.
    Metrics,
    /// `/health`, `/livez`.
    Live,
    /// `/ready`, `/readyz`.
    Ready,
    /// `/status`.
    Status,
    /// `/`.
    Page,
    /// Something that is refused, with its status.
    Refused(Refusal),
}

/// Why nothing is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    TooLong,
    NotFound,
    Method,
    Host,
}

/// Names that are let in beside addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(pub Vec<String>);

/// A request, and whether only its head is asked for. `None` while the head is not whole.
pub(super) fn read(bytes: &[u8], hosts: &Hosts) -> Option<(Request, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some((Request::Refused(Refusal::TooLong), false));
        }
        Err(_) => return Some((Request::Refused(Refusal::Malformed), false)),
    }
    let method = head.method.unwrap_or_default();
    let request = match (method, target(head.path.unwrap_or_default())) {
        ("GET" | "HEAD", Ok(Request::Page | Request::Status)) if !hosts.allow(head.headers) => {
            Request::Refused(Refusal::Host)
        }
        ("GET" | "HEAD", Ok(request)) => request,
        (_, Ok(_)) => Request::Refused(Refusal::Method),
        (_, Err(refusal)) => Request::Refused(refusal),
    };
    Some((request, method == "HEAD"))
}

fn target(target: &str) -> Result<Request, Refusal> {
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => Ok(Request::Metrics),
        "/health" | "/livez" => Ok(Request::Live),
        "/ready" | "/readyz" => Ok(Request::Ready),
        "/status" => Ok(Request::Status),
        "/" => Ok(Request::Page),
        // Another form of target would say another host than the header.
        path if path.starts_with('/') => Err(Refusal::NotFound),
        _ => Err(Refusal::Malformed),
    }
}

impl Hosts {
    /// Whether there is one `Host`, and it is let in.
    fn allow(&self, headers: &[httparse::Header<'_>]) -> bool {
        let mut named = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        let (Some(host), None) = (named.next(), named.next()) else { return false };
        std::str::from_utf8(host.value).is_ok_and(|host| self.allows(host.trim()))
    }

    fn allows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if is_port(port) => return address.parse::<IpAddr>().is_ok(),
                _ => return false,
            },
            None => match host.split_once(':') {
                Some((name, _)) if is_port(&host[name.len()..]) => name,
                Some(_) => return false,
                None => host,
            },
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, expected: Request) {
        assert_eq!(
            read(head.as_bytes(), &Hosts(vec!["Box".into()])).map(|it| it.0),
            Some(expected),
            "{head}"
        );
    }

    #[test]
    fn what_is_served_is_asked_for_by_path() {
        check("GET /metrics HTTP/1.0\r\n\r\n", Request::Metrics);
        check("GET /metrics?a=b HTTP/1.1\r\nHost: evil.example\r\n\r\n", Request::Metrics);
        check("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", Request::Ready);
        check("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", Request::Live);
        check("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", Request::Refused(Refusal::NotFound));
        check("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Request::Refused(Refusal::Method));
        check("GET http://x/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Request::Refused(Refusal::Malformed));
        check("nonsense\r\n\r\n", Request::Refused(Refusal::Malformed));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        check(&many, Request::Refused(Refusal::TooLong));
        check(&format!("GET /{}", "a".repeat(HEAD)), Request::Refused(Refusal::TooLong));
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: local", &Hosts::default()), None);
    }

    #[test]
    fn a_page_is_served_under_names_that_no_site_can_have() {
        let page = |host: &str, expected| check(&format!("GET / HTTP/1.1\r\n{host}\r\n\r\n"), expected);
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9464",
            "10.1.2.3",
            "[::1]:80",
            "[::1]",
            "box:9464",
            "box.",
        ] {
            page(&format!("Host: {host}"), Request::Page);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "box.evil:1",
            "localhost:x",
            "[::1",
            "",
            "1.2.3.4.example",
        ] {
            page(&format!("Host: {host}"), Request::Refused(Refusal::Host));
        }
        page("Host: localhost\r\nhost: evil.example", Request::Refused(Refusal::Host));
        page("Accept: a", Request::Refused(Refusal::Host));
        check("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", Request::Refused(Refusal::Host));
    }
}
