//! What a check asks of a bucket: who signs, whether it can be listed and written, whether conditions are honoured,
//! and which uploads were left open. The one object that it makes is deleted again.

use std::time::{SystemTime, UNIX_EPOCH};

use quick_xml::de::from_str;
use serde::Deserialize;
use ureq::http::Method;

use super::error::{Error, Result};
use super::{Ask, Bucket, Condition, Content, Object};

/// Something that was found out.
#[derive(Debug)]
pub struct Probed {
    /// What was tried.
    pub what: String,
    /// What came of it.
    pub outcome: Result<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    upload: Vec<OpenUpload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpenUpload {
    key: String,
    #[serde(default)]
    initiated: String,
}

/// Asks a bucket for everything that a run with this prefix needs. Stops where nothing further can work.
pub fn probe(bucket: &Bucket, prefix: &str) -> Vec<Probed> {
    let at = bucket.url(prefix);
    let keys = format!("with the keys of the {}", bucket.credentials().place());
    let listed = bucket.list(prefix, None, 1, None).map(|_| keys);
    let hopeless = matches!(&listed, Err(error) if !error.has_code("AccessDenied"));
    let mut found = vec![Probed { what: format!("output {at}: list"), outcome: listed }];
    if hopeless {
        return found;
    }
    found.push(Probed { what: format!("output {at}: write"), outcome: write(bucket, prefix) });
    if found[1].outcome.is_ok() {
        let outcome = stale(bucket, prefix);
        found.push(Probed { what: format!("output {at}: open uploads"), outcome });
    }
    found
}

/// Writes an object on a condition, and a second time, which must be refused; and reads it.
fn write(bucket: &Bucket, prefix: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let key = format!("{prefix}.pipeline/check-{}-{}", std::process::id(), now.as_nanos());
    let object = Object { key: &key, ..Object::default() };
    let put = |condition| bucket.put(&object, Content::Bytes(b"pipeline --check\n"), condition);
    let conditions = match put(Condition::Absent) {
        Err(error) if error.status() == Some(501) => {
            put(Condition::None)?;
            "the store refuses conditions (If-None-Match)"
        }
        first => {
            first?;
            match put(Condition::Absent) {
                Ok(_) => "the store does not honour conditions (If-None-Match): set s3.conditional = off",
                Err(error) if matches!(error.status(), Some(409 | 412)) => {
                    "conditions (If-None-Match) are honoured"
                }
                Err(error) => {
                    let _ = bucket.delete(&key);
                    return Err(error);
                }
            }
        }
    };
    // The state is read, and what was published before is looked at.
    let read = bucket.get(&key);
    bucket.delete(&key)?;
    read.map(|_| conditions.into())
}

/// Uploads that nobody completed or gave up.
fn stale(bucket: &Bucket, prefix: &str) -> Result<String> {
    let query = [("max-uploads", "100"), ("prefix", prefix), ("uploads", "")];
    let ask = Ask { query: &query, ..Ask::new("list the open uploads of", Method::GET, "") };
    let text = match bucket.ask(ask) {
        // Not every store that has uploads lists them, and not everybody may.
        Err(error) if matches!(error.status(), Some(403 | 405 | 501)) => return Ok("not told".into()),
        reply => reply?.text(),
    };
    let uploads: Uploads = from_str(&text).map_err(|error| Error::Odd {
        what: bucket.subject("list the open uploads of", prefix),
        why: format!("the answer is no listing: {error}"),
    })?;
    let more = if uploads.is_truncated { " or more" } else { "" };
    Ok(match uploads.upload.first() {
        None => "none".into(),
        Some(first) => format!(
            "{}{more}, the first of {} since {}; a run that is at work has some, others are left by dead ones: a \
             lifecycle rule of the bucket removes them",
            uploads.upload.len(),
            first.key,
            first.initiated
        ),
    })
}
