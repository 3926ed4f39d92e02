//! Objects in parts: begin, parts in any order and in parallel, complete or abort. Nothing is visible before it is
//! complete.

use std::time::Duration;

use quick_xml::de::from_str;
use serde::Deserialize;
use ureq::http::Method;

use super::error::{Error, Result};
use super::object::encoded;
use super::{Ask, Bucket, Condition, Content, Object};

/// How long giving up may take: the run is ending, and the store sweeps what is left.
const ABORT: Duration = Duration::from_secs(5);
/// Most parts of an object.
pub(crate) const PARTS: u32 = 10_000;

/// An object that is being stored in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// Its key.
    pub key: String,
    /// What the store calls the upload.
    pub id: String,
    /// Whether the store checks the checksum of the whole object.
    pub whole: bool,
}

/// A part that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartTag {
    /// What the store calls it.
    pub etag: String,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Initiated {
    upload_id: String,
}

impl Bucket {
    /// Begins an upload.
    ///
    /// # Errors
    /// If nothing was begun, or nobody knows what.
    pub fn begin(&self, object: &Object<'_>) -> Result<Multipart> {
        let mut ask = Ask::new("begin an upload of", Method::POST, object.key);
        ask.describe(object)?;
        ask.header("x-amz-checksum-algorithm", "CRC32C")?;
        ask.header("x-amz-checksum-type", "FULL_OBJECT")?;
        ask.query = &[("uploads", "")];
        let op = ask.op;
        let reply = self.ask(ask)?;
        let whole = reply.header("x-amz-checksum-type") == Some("FULL_OBJECT");
        let begun: Initiated = from_str(&reply.text()).map_err(|error| Error::Odd {
            what: self.subject(op, object.key),
            why: format!("the answer names no upload: {error}"),
        })?;
        Ok(Multipart { key: object.key.to_owned(), id: begun.upload_id, whole })
    }

    /// Stores part `number`, 1 for the first; again if it failed.
    ///
    /// # Errors
    /// If it is not known to be stored.
    pub fn part(&self, upload: &Multipart, number: u32, content: Content<'_>) -> Result<PartTag> {
        if number > PARTS {
            let what =
                format!("{} would have more than {PARTS} parts: raise s3.part_size", self.url(&upload.key));
            return Err(Error::Config(what));
        }
        let (text, crc32c) = (number.to_string(), content.crc32c());
        let query = [("partNumber", text.as_str()), ("uploadId", &upload.id)];
        let mut ask = Ask { query: &query, content, ..Ask::new("PUT a part of", Method::PUT, &upload.key) };
        ask.header("x-amz-checksum-crc32c", &encoded(crc32c))?;
        let op = ask.op;
        let reply = self.ask(ask)?;
        match reply.etag() {
            Some(etag) => Ok(PartTag { etag: etag.to_owned(), crc32c }),
            None => {
                Err(Error::Odd { what: self.subject(op, &upload.key), why: "the answer has no ETag".into() })
            }
        }
    }

    /// Makes the object visible. `crc32c` is that of all its bytes.
    ///
    /// # Errors
    /// If it is not known to be visible. A store may begin to answer before it knows, so a success with an error
    /// inside is one too.
    pub fn complete(
        &self,
        upload: &Multipart,
        parts: &[PartTag],
        crc32c: u32,
        condition: Condition<'_>,
    ) -> Result<()> {
        let mut text =
            String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (index, part) in parts.iter().enumerate() {
            text.push_str(&format!(
                "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag><ChecksumCRC32C>{}</ChecksumCRC32C></Part>",
                index + 1,
                quick_xml::escape::escape(part.etag.as_str()),
                encoded(part.crc32c)
            ));
        }
        text.push_str("</CompleteMultipartUpload>");
        let query = [("uploadId", upload.id.as_str())];
        let mut ask = Ask { query: &query, ..Ask::new("complete", Method::POST, &upload.key) };
        ask.content = Content::Bytes(text.as_bytes());
        ask.header("content-type", "application/xml")?;
        ask.on(condition)?;
        if upload.whole {
            ask.header("x-amz-checksum-crc32c", &encoded(crc32c))?;
            ask.header("x-amz-checksum-type", "FULL_OBJECT")?;
        }
        let op = ask.op;
        let reply = self.ask(ask)?;
        let body = reply.text();
        if body.contains("<CompleteMultipartUploadResult") {
            return Ok(());
        }
        let what = self.subject(op, &upload.key);
        Err(Error::Odd { what, why: "the answer says neither that it is complete nor that it is not".into() })
    }

    /// Gives an upload up; it need not be there.
    ///
    /// # Errors
    /// If parts of it may be stored still.
    pub fn abort(&self, upload: &Multipart) -> Result<()> {
        let query = [("uploadId", upload.id.as_str())];
        let ask = Ask {
            query: &query,
            limit: Some(ABORT),
            ..Ask::new("give up the upload of", Method::DELETE, &upload.key)
        };
        match self.ask(ask) {
            Err(error) if error.status() == Some(404) => Ok(()),
            reply => reply.map(drop),
        }
    }
}
