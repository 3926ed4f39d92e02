//! `[http]`, `[http.tls]`: which endpoints are read, and how they are asked.

use std::time::Duration;

use super::read::{
    DURATION, FILE, SIZE, SWITCH, check, duration, file, items, name, names, one_of, pointer, put,
};
use super::read::{size, switch, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::http::{self, Method, is_ours};
use crate::config::setting::Value;

const SECTION: &str = "http";
const TLS: &str = "http.tls";
pub(super) const POINTER: &str = "a JSON pointer like /items";

pub(super) const KEYS: &[Key] = &[
    Key {
        section: SECTION,
        name: "urls",
        shape: Shape::List,
        default: Default::Absent("[\"https://api.example.com/v1/items\"]", "none"),
        help: "endpoints that are read; what they store is named after host and path",
        expected: "http://HOST[:PORT]/PATH or https://…, one an item",
        set: |draft, value| {
            // Not the whole value: it may hold a token.
            let urls = items(value).map_err(|_| expected_url("a URL is empty"))?;
            for url in &urls {
                http::name(url).map_err(Wrong::Because)?;
            }
            put(&mut draft.config.http.urls, urls)
        },
    },
    Key {
        section: SECTION,
        name: "method",
        shape: Shape::Text,
        default: Default::Is("GET"),
        help: "GET, or POST with a body",
        expected: "GET or POST",
        set: |draft, value| {
            let kinds = [("GET", Method::Get), ("POST", Method::Post)];
            put(&mut draft.config.http.method, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "headers",
        shape: Shape::List,
        default: Default::Absent("[\"Accept=application/json\"]", "none"),
        help: "headers of every request, NAME=VALUE each; what is secret belongs in http.auth",
        expected: "NAME=VALUE, one an item",
        set: |draft, value| put(&mut draft.config.http.headers, headers(value)?),
    },
    Key {
        section: SECTION,
        name: "query",
        shape: Shape::List,
        default: Default::Absent("[\"status=open\"]", "none"),
        help: "parameters of every request but those that links and next URLs make, NAME=VALUE each, as they are: they are encoded here",
        expected: "NAME=VALUE, one an item",
        set: |draft, value| put(&mut draft.config.http.query, pairs(value)?),
    },
    Key {
        section: SECTION,
        name: "body",
        shape: Shape::Text,
        default: Default::Absent("{}", "none"),
        help: "what is sent with a POST; JSON unless a header Content-Type says otherwise",
        expected: "a text",
        set: |draft, value| put(&mut draft.config.http.body, Some(name(value)?.to_owned())),
    },
    Key {
        section: SECTION,
        name: "records",
        shape: Shape::Text,
        default: Default::Absent("/items", "the whole page: an array's elements, or a value a line"),
        help: "where the array of records stands in a page (a JSON pointer)",
        expected: POINTER,
        set: |draft, value| put(&mut draft.config.http.records, Some(pointer(value)?)),
    },
    Key {
        section: SECTION,
        name: "id",
        shape: Shape::Text,
        default: Default::Absent("/id", "a record is known by cycle, page and index"),
        help: "where a record's own identity stands in it: the last part of its message_id (a JSON pointer)",
        expected: POINTER,
        set: |draft, value| put(&mut draft.config.http.id, Some(pointer(value)?)),
    },
    Key {
        section: SECTION,
        name: "since",
        shape: Shape::Text,
        default: Default::Absent("/updated_at", "every pass reads everything"),
        help: "a value that grows from change to change: the next pass asks for what comes behind the highest one seen (a JSON pointer)",
        expected: POINTER,
        set: |draft, value| put(&mut draft.config.http.since, Some(pointer(value)?)),
    },
    Key {
        section: SECTION,
        name: "since_param",
        shape: Shape::Text,
        default: Default::Absent("updated_since", "the last name of http.since"),
        help: "the parameter that carries that value",
        expected: "the name of a parameter",
        set: |draft, value| put(&mut draft.config.http.since_param, Some(name(value)?.to_owned())),
    },
    Key {
        section: SECTION,
        name: "allow_hosts",
        shape: Shape::List,
        default: Default::Absent("[\"cdn.example.com\"]", "none but an endpoint's own"),
        help: "hosts that redirects and next URLs may lead to besides: HOST[:PORT] each; they get no credentials",
        expected: "HOST[:PORT], several with commas between",
        set: |draft, value| {
            let hosts = names(value)?;
            check(hosts.iter().all(|host| {
                !host.contains("//") && host.chars().all(|c| c.is_ascii_graphic() && !"/?#@".contains(c))
            }))?;
            put(&mut draft.config.http.allow_hosts, hosts)
        },
    },
    Key {
        section: SECTION,
        name: "rate_limit",
        shape: Shape::Number,
        default: Default::Absent("10", "none"),
        help: "requests a second at most, of all endpoints together; \"0.5\" is one in two seconds",
        expected: "a number of requests above 0, like 10 or 0.5",
        set: |draft, value| {
            let rate: f64 = text(value)?.trim().parse().map_err(|_| Wrong::Expected)?;
            check(rate.is_finite() && (0.0001..=1e6).contains(&rate))?;
            put(&mut draft.config.http.rate_limit, Some(rate))
        },
    },
    Key {
        section: SECTION,
        name: "poll",
        shape: Shape::Text,
        default: Default::Absent("30s", "there is one pass"),
        help: "a pass begins so long after the last one began, for ever",
        expected: DURATION,
        set: |draft, value| {
            let poll = duration(value)?;
            check(poll >= Duration::from_millis(10))?;
            put(&mut draft.config.http.poll, Some(poll))
        },
    },
    Key {
        section: SECTION,
        name: "max_body_bytes",
        shape: Shape::Text,
        default: Default::Is("8GiB"),
        help: "the longest page, unpacked; pages are never held in memory as a whole",
        expected: SIZE,
        set: |draft, value| {
            let bytes = size(value)?;
            check(bytes > 0)?;
            put(&mut draft.config.http.max_body_bytes, bytes)
        },
    },
    Key {
        section: TLS,
        name: "ca",
        shape: Shape::Text,
        default: Default::Absent("ca.pem", "the system's"),
        help: "PEM file of the authorities that servers are verified against",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.http.tls.ca, file(value)?),
    },
    Key {
        section: TLS,
        name: "cert",
        shape: Shape::Text,
        default: Default::Absent("client.pem", "none"),
        help: "PEM file of this client's certificate",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.http.tls.cert, file(value)?),
    },
    Key {
        section: TLS,
        name: "key",
        shape: Shape::Text,
        default: Default::Absent("client.key", "it stands in the file of the certificate"),
        help: "PEM file of this client's key, without a password",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.http.tls.key, file(value)?),
    },
    Key {
        section: TLS,
        name: "verify",
        shape: Shape::Switch,
        default: Default::Is("true"),
        help: "servers must prove who they are; false: anybody can pretend to be one",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.http.tls.verify, switch(value)?),
    },
];

pub(super) fn expected_url(why: &str) -> Wrong {
    Wrong::Because(format!("{why}; expected http://HOST[:PORT]/PATH or https://…"))
}

/// `NAME=VALUE`, one an item: values may hold commas.
fn pairs(value: &Value) -> Result<Vec<(String, String)>, Wrong> {
    let pair = |item: &String| {
        let (name, value) = item.split_once('=')?;
        let fine = !name.trim().is_empty() && !item.chars().any(char::is_control);
        fine.then(|| (name.trim().to_owned(), value.to_owned()))
    };
    // Values may be secret after all: they are not told.
    let wrong = || Wrong::Because("expected NAME=VALUE, one an item".into());
    let pairs: Option<Vec<_>> = items(value).map_err(|_| wrong())?.iter().map(pair).collect();
    pairs.ok_or_else(wrong)
}

/// Pairs whose names can be those of headers (RFC 9110, section 5.6.2), but not of those that belong to this client.
fn headers(value: &Value) -> Result<Vec<(String, String)>, Wrong> {
    let pairs = pairs(value)?;
    for (name, value) in &pairs {
        if !is_header(name) || !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            return Err(Wrong::Because(format!(
                "{name:?} cannot be sent as a header; expected NAME=VALUE in ASCII"
            )));
        }
        free(name)?;
    }
    Ok(pairs)
}

/// A header that may be set.
pub(super) fn free(name: &str) -> Result<(), Wrong> {
    match is_ours(name) {
        true => {
            Err(Wrong::Because(format!("the header {name} is set by this program; expected another one")))
        }
        false => Ok(()),
    }
}

pub(super) fn is_header(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
