//! The envelope: the original JSON spliced in byte for byte, never serialised again.
//!
//! Everything around a record but its position is the same for all records of a section, and mostly for all of a
//! partition. So what stands before `data` is kept ready as a template with holes for the position's digits; a
//! record costs one patch and three copies. Records that differ in more (a key, headers, several outputs, a
//! replayed dead letter) are written member by member, by the same function that makes the template.

use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::letter::Letter;
pub use crate::config::EnvelopeKind;
use crate::record::{Extra, Partition, Record, Section};

/// What is put around records in a run.
#[derive(Debug)]
pub(super) struct Envelope(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    kind: EnvelopeKind,
    /// As a JSON string.
    processed_by: Vec<u8>,
}

/// What stands around all records of a partition and batch, ready to be copied. Kept from section to section.
#[derive(Debug, Default)]
pub(super) struct Parts {
    made_for: Option<(Arc<Settings>, Partition, i64)>,
    /// The message id up to the position, as a JSON string: `"file:data1.json:"`.
    id: Vec<u8>,
    /// The same for a record of a page that has an identity of its own: `"http:host/path:`.
    own: Vec<u8>,
    /// The source as a JSON string.
    source: Vec<u8>,
    /// `"path":"data1.json","offset":`
    metadata: Vec<u8>,
    /// The partition as a URI reference: `file:data1.json`.
    uri: String,
    /// The batch's time: `2026-11-23T12:00:00Z`.
    pub(super) time: Vec<u8>,
    /// What stands before `data` for a record that has nothing but a position.
    template: Vec<u8>,
    /// Where in the template the position's digits stand, and how many there are.
    holes: Holes,
    digits: usize,
    /// Which page the template is of, for partitions that are read in pages; else 0.
    page: u64,
    /// Whether positions are page and index.
    paged: bool,
    /// A line of text as a JSON string.
    pub(super) quoted: Vec<u8>,
    /// The value of an outgoing record.
    pub(super) value: Vec<u8>,
}

/// What is put into an envelope: one JSON value, and whether CR or LF may stand in it.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub(super) json: &'a [u8],
    pub(super) breaks: Breaks,
    pub(super) member: Member,
}

/// What an envelope calls its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// `data`.
    Value,
    /// `data_base64`: a JSON string with bytes.
    Base64,
}

impl<'a> Data<'a> {
    /// A JSON value.
    pub(super) fn value(json: &'a [u8], breaks: Breaks) -> Self {
        Data { json, breaks, member: Member::Value }
    }
}

/// Where the position's digits stand, in the message id and in the metadata.
type Holes = [Option<usize>; 2];

/// Where a record comes from: what its envelope tells.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// Nothing is known but its position.
    Bare(u64),
    /// Read from its source.
    Read(Record<'a>),
    /// Fed back as a dead letter, which tells where it came from at first.
    Replayed(&'a Letter<'a>),
}

impl Envelope {
    /// An envelope of this kind; `processed_by` names the machine.
    pub(super) fn new(kind: EnvelopeKind, processed_by: &str) -> Self {
        let mut quoted = Vec::new();
        string(processed_by, &mut quoted);
        Envelope(Arc::new(Settings { kind, processed_by: quoted }))
    }

    /// Makes the parts those of this section.
    pub(super) fn prepare(&self, section: &Section<'_>, parts: &mut Parts) {
        let (partition, opened_at) = (section.partition(), section.opened_at());
        if let Some((settings, same, at)) = &parts.made_for
            && Arc::ptr_eq(settings, &self.0)
            && same == partition
            && *at == opened_at
        {
            return;
        }
        parts.name(partition, opened_at);
        parts.digits = 0;
        parts.made_for = Some((self.0.clone(), partition.clone(), opened_at));
    }

    /// How many bytes a record that has nothing but a position takes beside its own.
    pub(super) fn overhead(&self, parts: &mut Parts, position: u64) -> usize {
        self.before(parts, position).len() + self.after().len()
    }

    /// Appends one line: `data`, one JSON value, in the envelope of a record that has nothing but a position.
    #[inline]
    pub(super) fn write(
        &self,
        parts: &mut Parts,
        position: u64,
        (data, breaks): (&[u8], Breaks),
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(self.before(parts, position));
        splice(data, breaks, out);
        self.close(out);
    }

    /// Appends what stands behind the data. Of known length each, so that nobody is called to copy two bytes.
    #[inline]
    fn close(&self, out: &mut Vec<u8>) {
        match self.0.kind {
            EnvelopeKind::None => out.push(b'\n'),
            _ => out.extend_from_slice(b"}\n"),
        }
    }

    /// Appends one line of any record. `number` tells apart the outputs of a record that has several.
    pub(super) fn write_any(
        &self,
        parts: &mut Parts,
        (origin, number): (&Origin<'_>, Option<usize>),
        data: Data<'_>,
        out: &mut Vec<u8>,
    ) {
        match (origin, number) {
            (Origin::Read(Record { extra: None, position, .. }), None) if data.member == Member::Value => {
                return self.write(parts, *position, (data.json, data.breaks), out);
            }
            (Origin::Read(record), None)
                if self.0.kind == EnvelopeKind::Default && parts.own_id(record).is_none() =>
            {
                self.open_known(parts, record, data.member, out);
            }
            _ => drop(self.open(parts, origin, (number, data.member), out)),
        }
        splice(data.json, data.breaks, out);
        out.extend_from_slice(self.after());
    }

    /// Appends what stands before the data of a record with a key, a time or headers: the template, and what the
    /// metadata has more.
    fn open_known(&self, parts: &mut Parts, record: &Record<'_>, member: Member, out: &mut Vec<u8>) {
        let comma = !parts.metadata.is_empty();
        let before = self.before(parts, record.position);
        out.extend_from_slice(&before[..before.len() - DATA.len() - 1]);
        if let Some(extra) = record.extra {
            members(record, extra, comma, out);
        }
        out.push(b'}');
        out.extend_from_slice(data_name(member));
    }

    fn after(&self) -> &'static [u8] {
        if self.0.kind == EnvelopeKind::None { b"\n" } else { b"}\n" }
    }

    /// The template with a position in it.
    #[inline]
    fn before<'a>(&self, parts: &'a mut Parts, position: u64) -> &'a [u8] {
        let mut digits = itoa::Buffer::new();
        let (page, last) = parts.split(position);
        let digits = digits.format(last).as_bytes();
        if digits.len() == parts.digits && page == parts.page {
            for at in parts.holes.into_iter().flatten() {
                parts.template[at..at + digits.len()].copy_from_slice(digits);
            }
        } else {
            self.make_template(parts, position, digits.len());
        }
        &parts.template
    }

    /// Makes the template for positions of so many digits, with this one in it.
    #[cold]
    fn make_template(&self, parts: &mut Parts, position: u64, digits: usize) {
        let mut template = std::mem::take(&mut parts.template);
        template.clear();
        parts.holes = self.open(parts, &Origin::Bare(position), (None, Member::Value), &mut template);
        (parts.digits, parts.page) = (digits, parts.split(position).0);
        parts.template = template;
    }

    /// Appends what stands before `data`.
    fn open(
        &self,
        parts: &Parts,
        origin: &Origin<'_>,
        (number, member): (Option<usize>, Member),
        out: &mut Vec<u8>,
    ) -> Holes {
        match self.0.kind {
            EnvelopeKind::None => [None, None],
            EnvelopeKind::Default => {
                out.extend_from_slice(b"{\"message_id\":");
                let in_id = parts.message_id(origin, number, out);
                out.extend_from_slice(b",\"source\":");
                parts.source(origin, out);
                out.extend_from_slice(b",\"processed_at\":\"");
                out.extend_from_slice(&parts.time);
                out.extend_from_slice(b"\",\"processed_by\":");
                out.extend_from_slice(&self.0.processed_by);
                out.extend_from_slice(b",\"metadata\":");
                let in_metadata = parts.metadata(origin, out);
                out.extend_from_slice(data_name(member));
                [in_id, in_metadata]
            }
            EnvelopeKind::CloudEvents => {
                out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
                let in_id = parts.message_id(origin, number, out);
                out.extend_from_slice(b",\"source\":\"");
                parts.uri(origin, out);
                out.extend_from_slice(b"\",\"type\":\"pipeline.record\",\"time\":\"");
                match origin {
                    Origin::Read(record) => attributes(record, &parts.time, out),
                    _ => {
                        out.extend_from_slice(&parts.time);
                        out.push(b'"');
                    }
                }
                out.extend_from_slice(match member {
                    Member::Value => b",\"datacontenttype\":\"application/json\"",
                    Member::Base64 => b",\"datacontenttype\":\"application/octet-stream\"",
                });
                out.extend_from_slice(data_name(member));
                [in_id, None]
            }
        }
    }
}

/// What stands before a JSON value.
const DATA: &[u8] = b",\"data\":";

fn data_name(member: Member) -> &'static [u8] {
    match member {
        Member::Value => DATA,
        Member::Base64 => b",\"data_base64\":",
    }
}

/// Appends the attributes of a CloudEvents event that a record decides: the end of `time`, and as extensions the
/// key (of the partitioning extension) and that it is a tombstone. Headers have no place there: attributes are of
/// simple types.
fn attributes(record: &Record<'_>, otherwise: &[u8], out: &mut Vec<u8>) {
    match record.time() {
        Some(time) => rfc3339_millis(time, out),
        None => out.extend_from_slice(otherwise),
    }
    out.push(b'"');
    if let Some(key) = record.key() {
        match std::str::from_utf8(key) {
            Ok(text) => {
                out.extend_from_slice(b",\"partitionkey\":");
                string(text, out);
            }
            Err(_) => {
                out.extend_from_slice(b",\"partitionkeybase64\":");
                base64(key, out);
            }
        }
    }
    if record.is_tombstone() {
        out.extend_from_slice(b",\"tombstone\":true");
    }
}

impl Parts {
    /// Writes down what is the same for all records of a partition.
    fn name(&mut self, partition: &Partition, opened_at: i64) {
        let identity = partition.identity();
        for part in [&mut self.id, &mut self.source, &mut self.metadata, &mut self.time] {
            part.clear();
        }
        let cycle = identity.cycle.map_or(String::new(), |cycle| format!("{cycle}:"));
        self.paged = identity.cycle.is_some();
        self.own.clear();
        string(&format!("{}:{}:", identity.source, identity.name), &mut self.own);
        string(&format!("{}:{}:{cycle}", identity.source, identity.name), &mut self.id);
        string(identity.source, &mut self.source);
        self.metadata.extend_from_slice(identity.metadata.as_bytes());
        if let Some(cycle) = identity.cycle {
            self.metadata.extend_from_slice(format!(",\"cycle\":{cycle},\"page\":").as_bytes());
        } else if !identity.position.is_empty() {
            if !self.metadata.is_empty() {
                self.metadata.push(b',');
            }
            string(identity.position, &mut self.metadata);
            self.metadata.push(b':');
        }
        self.uri = uri(identity.source, &identity.name);
        rfc3339(opened_at, &mut self.time);
    }

    /// The identity that a record of a page has of its own: its key.
    fn own_id<'r>(&self, record: &Record<'r>) -> Option<&'r str> {
        record.key().filter(|_| self.paged).and_then(|key| std::str::from_utf8(key).ok())
    }

    /// The page, and the number that differs from record to record.
    #[inline]
    fn split(&self, position: u64) -> (u64, u64) {
        if self.paged { (position >> 32, position & u64::from(u32::MAX)) } else { (0, position) }
    }

    /// Appends a position with `between` before the index, where there is a page; returns where its last number stands.
    fn position(&self, position: u64, between: &[u8], out: &mut Vec<u8>) -> usize {
        let (page, last) = self.split(position);
        if self.paged {
            integer(page, out);
            out.extend_from_slice(between);
        }
        let at = out.len();
        integer(last, out);
        at
    }

    /// Appends the message id, as a JSON string; returns where the position stands in it.
    pub(super) fn message_id(
        &self,
        origin: &Origin<'_>,
        number: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut hole = None;
        match origin {
            Origin::Read(record) if let Some(own) = self.own_id(record) => {
                out.extend_from_slice(&self.own[..self.own.len() - 1]);
                let before = out.len();
                string(own, out);
                // Without its quotes: it goes on in the string that has begun.
                out.remove(before);
                out.pop();
            }
            Origin::Bare(position) | Origin::Read(Record { position, .. }) => {
                out.extend_from_slice(&self.id[..self.id.len() - 1]);
                hole = Some(self.position(*position, b":", out));
            }
            Origin::Replayed(letter) => {
                let id = letter.message_id.get();
                out.extend_from_slice(&id.as_bytes()[..id.len() - 1]);
            }
        }
        if let Some(number) = number {
            out.push(b'#');
            integer(number as u64, out);
        }
        out.push(b'"');
        hole
    }

    /// Appends the source, as a JSON string.
    pub(super) fn source(&self, origin: &Origin<'_>, out: &mut Vec<u8>) {
        match origin {
            Origin::Bare(_) | Origin::Read(_) => out.extend_from_slice(&self.source),
            Origin::Replayed(letter) => out.extend_from_slice(letter.source.get().as_bytes()),
        }
    }

    /// Appends the metadata object; returns where the position stands.
    pub(super) fn metadata(&self, origin: &Origin<'_>, out: &mut Vec<u8>) -> Option<usize> {
        let (position, record) = match origin {
            Origin::Bare(position) => (*position, None),
            Origin::Read(record) => (record.position, Some(record)),
            Origin::Replayed(letter) => {
                splice(letter.metadata.get().as_bytes(), Breaks::Perhaps, out);
                return None;
            }
        };
        out.push(b'{');
        out.extend_from_slice(&self.metadata);
        let mut hole = None;
        if self.metadata.ends_with(b":") {
            hole = Some(self.position(position, b",\"index\":", out));
        }
        if let Some((record, extra)) = record.and_then(|record| Some((record, record.extra?))) {
            members(record, extra, !self.metadata.is_empty(), out);
        }
        out.push(b'}');
        hole
    }

    /// Appends the partition as a URI reference.
    fn uri(&self, origin: &Origin<'_>, out: &mut Vec<u8>) {
        match origin {
            Origin::Bare(_) | Origin::Read(_) => out.extend_from_slice(self.uri.as_bytes()),
            Origin::Replayed(letter) => {
                // The id is source, partition and position; what stands before the position is the partition.
                let id: String = serde_json::from_str(letter.message_id.get()).unwrap_or_default();
                let partition = id.rsplit_once(':').map_or(id.as_str(), |(partition, _)| partition);
                let (source, name) = partition.split_once(':').unwrap_or(("replayed", partition));
                out.extend_from_slice(uri(source, name).as_bytes());
            }
        }
    }
}

/// Appends what only some sources know of a record, as members of its metadata.
fn members(record: &Record<'_>, extra: &Extra, comma: bool, out: &mut Vec<u8>) {
    let before = out.len();
    if let Some(time) = extra.time {
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(itoa::Buffer::new().format(time).as_bytes());
    }
    if let Some(key) = record.key() {
        out.push(b',');
        text_or_base64("key", key, out);
    }
    let headers = record.headers();
    for (index, (name, value)) in headers.enumerate() {
        out.extend_from_slice(if index == 0 { b",\"headers\":[{" } else { b",{" });
        text_or_base64("key", name, out);
        out.push(b',');
        match value {
            Some(value) => text_or_base64("value", value, out),
            None => out.extend_from_slice(b"\"value\":null"),
        }
        out.push(b'}');
    }
    if headers.len() > 0 {
        out.push(b']');
    }
    if extra.tombstone {
        out.extend_from_slice(b",\"tombstone\":true");
    }
    if !comma && out.len() > before {
        out.remove(before);
    }
}

/// Appends a member with the bytes as text, or in base64 under `name` with `_base64` behind it.
pub(super) fn text_or_base64(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"\":");
            string(text, out);
        }
        Err(_) => {
            out.extend_from_slice(b"_base64\":");
            base64(bytes, out);
        }
    }
}

/// Appends bytes as a JSON string in base64.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    let len = BASE64_STANDARD.encode_slice(bytes, &mut out[from..]).expect("four characters for three");
    out.truncate(from + len);
    out.push(b'"');
}

/// Appends a JSON string.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text serialises, and a vector takes every write");
}

/// Appends a number.
pub(super) fn integer(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a time in milliseconds since the epoch as RFC 3339 in UTC, in whole seconds.
fn rfc3339(milliseconds: i64, out: &mut Vec<u8>) {
    let last = if milliseconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let time = jiff::Timestamp::from_second(milliseconds.div_euclid(1000)).unwrap_or(last);
    write!(out, "{time:.0}").expect("a vector takes every write");
}

/// The same with milliseconds.
fn rfc3339_millis(milliseconds: i64, out: &mut Vec<u8>) {
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(time) => write!(out, "{time:.3}").expect("a vector takes every write"),
        Err(_) => rfc3339(milliseconds, out),
    }
}

/// A URI reference (RFC 3986) for a partition: its source as the scheme, then its name.
fn uri(source: &str, name: &str) -> String {
    let mut uri = String::with_capacity(source.len() + name.len() + 1);
    if !source.starts_with(|first: char| first.is_ascii_alphabetic()) {
        uri.push_str("x-");
    }
    uri.extend(source.chars().map(|c| if c.is_ascii_alphanumeric() || "+-.".contains(c) { c } else { '-' }));
    uri.push(':');
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
                uri.push(byte.into());
            }
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                uri.push('%');
                uri.push(DIGITS[usize::from(byte >> 4)].into());
                uri.push(DIGITS[usize::from(byte & 15)].into());
            }
        }
    }
    uri
}

/// Whether CR or LF may stand in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    /// It is known that none does.
    None,
    /// One may.
    Perhaps,
}

/// Appends a JSON value as it stands, but in one line: CR and LF can stand only between tokens, and become spaces.
#[inline]
pub(super) fn splice(value: &[u8], breaks: Breaks, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(value);
    if breaks == Breaks::Perhaps {
        let spliced = &mut out[from..];
        let mut at = 0;
        while let Some(next) = memchr::memchr2(b'\r', b'\n', &spliced[at..]) {
            at += next;
            spliced[at] = b' ';
        }
    }
}
