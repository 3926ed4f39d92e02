//! Whole objects: put, look at, read, delete, list.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::rfc2822::DateTimeParser;
use quick_xml::de::from_str;
use serde::Deserialize;
use ureq::http::{HeaderName, Method};

use super::error::{Error, Result};
use super::{Ask, Bucket, Content, Reply, root, sign};

/// Longest key that stores take.
const KEY: usize = 1024;
/// What metadata of users stands behind.
const META: &str = "x-amz-meta-";

/// What an object is stored with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<'a> {
    /// Its key.
    pub key: &'a str,
    /// Headers that say how it is stored: `content-type`, `x-amz-storage-class` and so on.
    pub headers: &'a [(&'static str, String)],
    /// User metadata besides that.
    pub metadata: &'a [(&'a str, String)],
}

/// Whether it may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// It may.
    None,
    /// Nothing may be there. A store that does not know of conditions replaces it all the same.
    Absent,
    /// What has this ETag must be there.
    Match(&'a str),
}

/// What an object is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its length.
    pub len: u64,
    /// CRC-32C of all its bytes, where the store keeps it.
    pub crc32c: Option<u32>,
    /// What the store tells versions apart by.
    pub etag: String,
    /// How long ago it was stored, by the store's own clock.
    pub age: Option<Duration>,
    /// Its user metadata.
    pub metadata: Vec<(String, String)>,
}

/// Some keys of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Them, in order.
    pub keys: Vec<String>,
    /// Where the next part of the listing begins.
    pub next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
    #[serde(default)]
    contents: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
}

impl Found {
    fn of(reply: &Reply) -> Self {
        let metadata = reply.headers.iter().filter_map(|(name, value)| {
            Some((name.as_str().strip_prefix(META)?.to_owned(), value.to_str().ok()?.to_owned()))
        });
        let time = |name: &str| DateTimeParser::new().parse_timestamp(reply.header(name)?).ok();
        let age = time("date").zip(time("last-modified")).map(|(now, then)| now.duration_since(then));
        Found {
            len: reply.header("content-length").and_then(|len| len.parse().ok()).unwrap_or_default(),
            crc32c: reply.header("x-amz-checksum-crc32c").and_then(decoded),
            etag: reply.etag().unwrap_or_default().to_owned(),
            age: age.map(|age| Duration::from_secs(age.as_secs().max(0).unsigned_abs())),
            metadata: metadata.collect(),
        }
    }

    /// The value of a user's metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

impl Ask<'_> {
    /// How the object is to be stored.
    pub(super) fn describe(&mut self, object: &Object<'_>) -> Result<()> {
        if object.key.len() > KEY {
            let key = object.key;
            return Err(Error::Config(format!("a key has {} bytes and may have {KEY}: {key}", key.len())));
        }
        for (name, value) in object.headers {
            self.header(name, value)?;
        }
        for (name, value) in object.metadata {
            let odd = |_| Error::Config(format!("{name:?} cannot be the name of metadata"));
            let header = format!("{META}{name}").parse::<HeaderName>().map_err(odd)?;
            sign::put(&mut self.headers, header, value)?;
        }
        Ok(())
    }

    pub(super) fn on(&mut self, condition: Condition<'_>) -> Result<()> {
        match condition {
            Condition::None => Ok(()),
            Condition::Absent => self.header("if-none-match", "*"),
            Condition::Match(etag) => self.header("if-match", etag),
        }
    }
}

/// As checksums stand in headers.
pub(super) fn encoded(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}

fn decoded(text: &str) -> Option<u32> {
    // `…-3` is a checksum of the checksums of three parts.
    let bytes: [u8; 4] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

impl Bucket {
    /// Stores an object in one request; returns what the store tells it apart by.
    ///
    /// # Errors
    /// If it is not known to be stored.
    pub fn put(&self, object: &Object<'_>, content: Content<'_>, condition: Condition<'_>) -> Result<String> {
        let mut ask = Ask::new("PUT", Method::PUT, object.key);
        ask.describe(object)?;
        ask.on(condition)?;
        ask.header("x-amz-checksum-crc32c", &encoded(content.crc32c()))?;
        ask.content = content;
        let op = ask.op;
        let reply = self.ask(ask)?;
        match reply.etag() {
            Some(etag) => Ok(etag.to_owned()),
            None => {
                Err(Error::Odd { what: self.subject(op, object.key), why: "the answer has no ETag".into() })
            }
        }
    }

    /// Looks at an object; `None` if it is not there.
    ///
    /// # Errors
    /// If nobody knows.
    pub fn head(&self, key: &str) -> Result<Option<Found>> {
        let mut ask = Ask::new("HEAD", Method::HEAD, key);
        ask.header("x-amz-checksum-mode", "ENABLED")?;
        let reply = match self.ask(ask) {
            Err(error) if error.status() == Some(404) => return Ok(None),
            reply => reply?,
        };
        Ok(Some(Found::of(&reply)))
    }

    /// Reads an object that is small; `None` if it is not there.
    ///
    /// # Errors
    /// If nobody knows.
    pub fn get(&self, key: &str) -> Result<Option<(Found, Vec<u8>)>> {
        let reply = match self.ask(Ask::new("read", Method::GET, key)) {
            Err(error) if error.has_code("NoSuchKey") => return Ok(None),
            // Some say no more than that.
            Err(error) if error.status() == Some(404) && error.has_code("") => return Ok(None),
            reply => reply?,
        };
        Ok(Some((Found::of(&reply), reply.body)))
    }

    /// Deletes an object; it need not be there.
    ///
    /// # Errors
    /// If it may be there still.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self.ask(Ask::new("DELETE", Method::DELETE, key)) {
            Err(error) if error.has_code("NoSuchKey") => Ok(()),
            reply => reply.map(drop),
        }
    }

    /// Lists keys that begin with `prefix`, `most` at a time, from where [`Listed::next`] says. With a delimiter only
    /// those in which it does not stand behind the prefix.
    ///
    /// # Errors
    /// If they are not told.
    pub fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        most: usize,
        from: Option<&str>,
    ) -> Result<Listed> {
        let most = most.to_string();
        let mut query = vec![("list-type", "2"), ("max-keys", most.as_str()), ("prefix", prefix)];
        query.extend(delimiter.map(|delimiter| ("delimiter", delimiter)));
        query.extend(from.map(|token| ("continuation-token", token)));
        query.sort_unstable();
        let ask = Ask { query: &query, ..Ask::new("list", Method::GET, "") };
        let text = self.ask(ask)?.text();
        let odd = |why: String| Error::Odd { what: self.subject("list", prefix), why };
        // Whatever else it is, a page of a proxy or what not, would be a listing of nothing.
        if root(&text) != Some("ListBucketResult") {
            return Err(odd("the answer is no listing".into()));
        }
        let list: ListBucketResult =
            from_str(&text).map_err(|error| odd(format!("the answer is no listing: {error}")))?;
        let next = list.next_continuation_token.filter(|_| list.is_truncated);
        if list.is_truncated && (next.is_none() || next.as_deref() == from) {
            return Err(odd("the listing is cut off, and does not say where it goes on".into()));
        }
        Ok(Listed { keys: list.contents.into_iter().map(|entry| entry.key).collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_tag_is_asked_for_as_the_strong_one() {
        for (header, expected) in [("W/\"5d41\"", "\"5d41\""), ("\"5d41\"", "\"5d41\""), ("5d41", "5d41")] {
            let headers = [("etag", header)].map(|(name, value)| {
                (HeaderName::from_static(name), value.parse().expect("a value of a header"))
            });
            let reply = Reply {
                status: Default::default(),
                headers: headers.into_iter().collect(),
                body: Vec::new(),
            };
            assert_eq!(Found::of(&reply).etag, expected);
        }
    }
}
