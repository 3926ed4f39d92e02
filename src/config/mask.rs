//! What is printed of settings that are no secrets, but may hold one: URLs, headers, parameters, a body. Not the
//! whole of them: it depends on what kind of text a key has, and in doubt a value is hidden.

use super::key::{Key, Shape, Wrong};
use super::secret::{HIDDEN, without_user};
use super::setting::Value;

/// What a key's texts may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing that must be hidden, but a user in an address.
    Open,
    /// A URL with parameters.
    Url,
    /// `NAME=VALUE` of a header.
    Header,
    /// `NAME=VALUE` of a parameter.
    Parameter,
    /// Anything.
    Closed,
}

/// Headers whose values are no secrets; of every other one they may be.
const OPEN_HEADERS: [&str; 8] = [
    "accept",
    "accept-charset",
    "accept-language",
    "cache-control",
    "content-language",
    "content-type",
    "prefer",
    "user-agent",
];

/// What sounds like a secret anywhere in a name.
const PARTS: [&str; 12] = [
    "auth",
    "cookie",
    "credential",
    "jwt",
    "key",
    "pass",
    "pwd",
    "saml",
    "secret",
    "session",
    "signature",
    "token",
];

/// What sounds like a secret as a word of a name, and is part of harmless ones.
const WORDS: [&str; 9] = ["assertion", "code", "hash", "hmac", "nonce", "otp", "pin", "sid", "sig"];

/// More than this is no word, number, date or id.
const LONGEST_PLAIN: usize = 40;

fn kind(key: &Key) -> Kind {
    match (key.section, key.name) {
        ("http", "urls") | ("http.auth", "token_url") => Kind::Url,
        ("http", "headers") => Kind::Header,
        ("http", "query") => Kind::Parameter,
        ("http", "body") => Kind::Closed,
        _ if key.shape == Shape::Secret => Kind::Closed,
        _ => Kind::Open,
    }
}

/// A text of `key` as `--print-config` shows it: names stay, and what may be secret is `***`.
pub fn masked(key: &Key, text: &str) -> String {
    match kind(key) {
        Kind::Open if key.section == "kafka" => without_user(text),
        Kind::Open => text.into(),
        Kind::Url => url(text),
        Kind::Header => header(text),
        Kind::Parameter => parameter(text),
        Kind::Closed => HIDDEN.into(),
    }
}

/// A value that is wrong, as its message tells it; `None` where nothing may be told. An empty text is no secret.
pub(super) fn told(key: &Key, value: &Value) -> Option<String> {
    let told = match value {
        Value::Text(text) => Value::Text(without_user(text)),
        Value::List(texts) => Value::List(texts.iter().map(|text| without_user(text)).collect()),
        Value::Secret(secret) => Value::Secret(secret.clone()),
    };
    let is_empty = matches!(value, Value::Text(text) if text.is_empty());
    (kind(key) == Kind::Open || is_empty).then(|| told.to_string())
}

/// What [`masked`] has hidden is not taken for what it stands for. Real secrets say so themselves.
pub(super) fn is_itself(key: &Key, value: &Value) -> Result<(), Wrong> {
    let stands_for_one = |text: &String| match kind(key) {
        Kind::Open => false,
        Kind::Closed => text.trim() == HIDDEN,
        Kind::Header | Kind::Parameter => is_hidden(text),
        Kind::Url => text.split(['?', '&', '#']).skip(1).any(is_hidden),
    };
    let found = match value {
        Value::Text(text) => stands_for_one(text),
        Value::List(texts) => texts.iter().any(stands_for_one),
        Value::Secret(_) => false,
    };
    match found {
        true => Err(Wrong::Because(stands_for_a_secret("the secret itself"))),
        false => Ok(()),
    }
}

/// What is wrong with `***`.
pub(super) fn stands_for_a_secret(expected: &str) -> String {
    format!("{HIDDEN} stands for a secret in what --print-config shows, and is none; expected {expected}")
}

fn is_hidden(pair: &str) -> bool {
    pair.split_once('=').map_or(pair, |(_, value)| value).trim() == HIDDEN
}

/// Without its fragment, which is never sent.
fn url(text: &str) -> String {
    let text = without_user(text.split('#').next().unwrap_or_default());
    match text.split_once('?') {
        Some((before, query)) => {
            let pairs: Vec<String> = query.split('&').map(parameter).collect();
            format!("{before}?{}", pairs.join("&"))
        }
        None => text,
    }
}

fn header(text: &str) -> String {
    match text.split_once('=') {
        Some((name, _)) if OPEN_HEADERS.iter().any(|open| name.trim().eq_ignore_ascii_case(open)) => {
            text.into()
        }
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None => HIDDEN.into(),
    }
}

fn parameter(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if is_secret(name) || !is_plain(value) => format!("{name}={HIDDEN}"),
        Some(_) => text.into(),
        None if is_plain(text) => text.into(),
        None => HIDDEN.into(),
    }
}

/// Whether a name sounds like that of a secret.
fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    PARTS.iter().any(|part| lower.contains(part)) || words(name).iter().any(|word| WORDS.contains(&&word[..]))
}

/// `sig` of `x-sig`, `my_sig` and `urlSig`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// A word, a number, a date or an id; no URL and nothing long.
fn is_plain(value: &str) -> bool {
    let fine = |c: char| c.is_alphanumeric() || "-_.,:+/*% ".contains(c);
    value.chars().count() <= LONGEST_PLAIN && value.chars().all(fine) && !value.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{file, key, resolve, setting, show};
    use std::path::Path;

    #[track_caller]
    fn check(path: &str, cases: &[(&str, &str)]) {
        let key = key::find(path).unwrap();
        for (text, expected) in cases {
            assert_eq!(masked(key, text), *expected, "{path} {text}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_masked() {
        check(
            "http.headers",
            &[
                ("X-Api-Key=abc=", "X-Api-Key=***"),
                ("X-Api-Key=http://s3cret", "X-Api-Key=***"),
                ("X-Jwt=s3cret", "X-Jwt=***"),
                ("X-Team=data", "X-Team=***"),
                ("accept=application/json; q=1", "accept=application/json; q=1"),
            ],
        );
        check(
            "http.query",
            &[
                ("token=http://s3cret", "token=***"),
                ("callback=http://u:s3cret@h", "callback=***"),
                ("state=open", "state=open"),
                ("since=2026-11-23T12:00:00+01:00", "since=2026-11-23T12:00:00+01:00"),
                ("sig=x", "sig=***"),
                ("userPwd=x", "userPwd=***"),
                ("urlSig=x", "urlSig=***"),
                ("code=x", "code=***"),
                ("jwt=x", "jwt=***"),
                ("design=x", "design=x"),
                ("filter={a}", "filter=***"),
            ],
        );
        for path in ["http.urls", "http.auth.token_url"] {
            check(
                path,
                &[
                    ("https://a/b?x=1&access_token=t&y", "https://a/b?x=1&access_token=***&y"),
                    ("https://a/token=b", "https://a/token=b"),
                    ("https://a/b#token=s3cret", "https://a/b"),
                    ("https://a/b?sig=s3cret#x?y", "https://a/b?sig=***"),
                    ("https://a?next=http://s3cret", "https://a?next=***"),
                ],
            );
        }
        check("http.body", &[("{\"a\":1}", "***")]);
        check("kafka.brokers", &[("u:s3cret@h:1", "***@h:1"), ("h:1", "h:1")]);
        check("http.records", &[("/items", "/items")]);
    }

    #[test]
    fn what_is_masked_is_not_taken_back() {
        let set = |pairs: &[&str]| {
            resolve::resolve(pairs.iter().map(|pair| setting::parse_set(pair).unwrap()).collect())
        };
        for pair in [
            "http.urls=https://h/x?a=1&token=s3cret",
            "http.headers=X-Jwt=s3cret",
            "http.query=token=s3cret",
            "http.body=s3cret",
            "http.auth.token_url=https://h/x?code=s3cret",
        ] {
            let shown = show::effective(&set(&[pair]).unwrap());
            assert!(shown.contains("***") && !shown.contains("s3cret"), "{shown}");
            let back = file::parse(Path::new("back.toml"), &shown).checked().unwrap();
            let problems = resolve::resolve(back).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            let name = pair.split_once('=').unwrap().0;
            assert!(problems[0].contains(&format!("{name}: *** stands for a secret")), "{problems:?}");
        }
        assert!(set(&["http.body=a ***", "http.query=a=x***"]).is_ok());
    }
}
