//! Dead letters: what a rejected record is kept as, and how one is read back for another try.
//!
//! A dead letter has the message id that the record itself would have had, its original bytes, and why and where
//! it was rejected. One that is fed back and fails again keeps the identity it had at first.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Sample;
use super::envelope::{Origin, Parts, integer, string, text_or_base64};
use crate::outgoing::{self, Headers, Outgoing, Pair};
use crate::record::{BEGINNING, Entry, Payload, Record, RejectKind, Rejection, Section};

/// How many rejected records of a chunk the summary may show.
const SAMPLES: usize = 3;

/// Lines of a section, for entries that are asked for in order. Each stretch of the buffer is counted once, so
/// that a chunk of nothing but rejected records takes no quadratic time.
#[derive(Default)]
pub(super) struct Lines(Option<(usize, u64)>);

impl Lines {
    /// Number of the line in which the byte `at` of the section's buffer stands, where lines are counted.
    fn line(&mut self, section: &Section<'_>, at: usize) -> Option<u64> {
        let line = match self.0 {
            Some((from, line)) if from <= at => {
                line + bytecount::count(&section.buffer()[from..at], b'\n') as u64
            }
            _ => section.line(at)?,
        };
        self.0 = Some((at, line));
        Some(line)
    }
}

/// A record that was rejected.
pub(super) struct Rejected<'a> {
    /// Its section, and where it stands in it.
    pub(super) section: &'a Section<'a>,
    pub(super) entry: &'a Entry,
    /// What it says of where it comes from.
    pub(super) origin: Origin<'a>,
    /// Its original bytes.
    pub(super) payload: &'a [u8],
}

/// Where rejected records go, and what is counted of them.
pub(super) struct Tally<'a> {
    pub(super) failed: &'a mut Vec<u8>,
    pub(super) samples: &'a mut Vec<Sample>,
    pub(super) rejects: &'a mut Vec<(RejectKind, u64)>,
    pub(super) lines: Lines,
}

impl Tally<'_> {
    /// Counts a rejected record, and notes the first ones for the summary. Returns its line, where that is known.
    pub(super) fn count(&mut self, rejected: &Rejected<'_>, why: &Rejection) -> Option<u64> {
        match self.rejects.iter_mut().find(|(kind, _)| *kind == why.kind) {
            Some((_, count)) => *count += 1,
            None => self.rejects.push((why.kind, 1)),
        }
        let line = self.lines.line(rejected.section, rejected.entry.at as usize);
        if self.samples.len() < SAMPLES {
            self.samples.push(Sample {
                place: place(rejected, line),
                reason: format!("{}: {}", why.kind.name(), why.message),
            });
        }
        line
    }
}

/// Where a record stands, for people: `data1.json line 3 (byte 120)`.
fn place(rejected: &Rejected<'_>, line: Option<u64>) -> String {
    let partition = rejected.section.partition();
    let unit = match (partition.source(), partition.identity().position) {
        ("file", _) => "byte",
        (_, "") => "position",
        (_, name) => name,
    };
    let position = rejected.entry.position;
    if partition.identity().cycle.is_some() {
        let (page, index) = (position >> 32, position as u32);
        return format!("{partition} page {page} index {index}");
    }
    match line {
        Some(line) => format!("{partition} line {line} ({unit} {position})"),
        None => format!("{partition} {unit} {position}"),
    }
}

/// Appends the dead letter of a rejected record, as a line.
pub(super) fn write(
    parts: &Parts,
    rejected: &Rejected<'_>,
    why: &Rejection,
    line: Option<u64>,
    out: &mut Vec<u8>,
) {
    let origin = &rejected.origin;
    out.extend_from_slice(b"{\"message_id\":");
    parts.message_id(origin, None, out);
    out.extend_from_slice(b",\"source\":");
    parts.source(origin, out);
    out.extend_from_slice(b",\"metadata\":");
    parts.metadata(origin, out);
    error(why, line, out);
    out.extend_from_slice(b",\"failed_at\":\"");
    out.extend_from_slice(&parts.time);
    out.extend_from_slice(b"\",");
    text_or_base64("payload", whole_characters(rejected.payload, why), out);
    out.extend_from_slice(b"}\n");
}

/// The header that tells the length of a record of which only the beginning was kept. No record that is stored has it:
/// whoever reads that would take it for a beginning.
pub(super) const LENGTH: &str = "pipeline.error.length";
/// What the headers of dead letters that are records are called. A dead letter that is rejected again has them once.
const HEADERS: [&str; 7] = [
    "pipeline.message_id",
    "pipeline.error.kind",
    "pipeline.error.message",
    "pipeline.error.line",
    "pipeline.error.pointer",
    LENGTH,
    "pipeline.failed_at",
];

/// The length of a record whose headers tell that it is a dead letter and only its beginning: a dead-letter topic may be
/// read like any other.
pub(super) fn cut_record(record: &Record<'_>) -> Option<u64> {
    let (_, value) = record.headers().find(|(name, _)| *name == LENGTH.as_bytes())?;
    let length = std::str::from_utf8(value?).ok()?.parse().ok()?;
    is_cut(record.bytes.len(), length, record.payload).then_some(length)
}

/// Whether `kept` bytes are only the beginning of so many. Whoever mends a record may leave the length there: so JSON
/// of another length is taken as mended, it is validated anyway. Text and bytes are all valid, and are not.
fn is_cut(kept: usize, length: u64, of: Payload) -> bool {
    // All that is kept, or a few bytes less where a character was cut.
    let as_kept = (BEGINNING - 3..=BEGINNING).contains(&kept);
    length > kept as u64 && (as_kept || of != Payload::Json)
}

/// Appends the dead letter of a rejected record, as a frame: its key, value, time and headers as they were, and
/// headers that tell why.
pub(super) fn put(
    parts: &Parts,
    rejected: &Rejected<'_>,
    why: &Rejection,
    line: Option<u64>,
    out: &mut Vec<u8>,
) {
    let record = rejected.section.record(rejected.entry);
    let mut quoted = Vec::new();
    parts.message_id(&rejected.origin, None, &mut quoted);
    let id: String = serde_json::from_slice(&quoted).unwrap_or_default();
    let (line, length) = (line.map(|line| line.to_string()), why.length.map(|length| length.to_string()));
    let values: [Option<&[u8]>; 7] = [
        Some(id.as_bytes()),
        Some(why.kind.name().as_bytes()),
        Some(why.message.as_bytes()),
        line.as_deref().map(str::as_bytes),
        why.pointer.as_deref().map(str::as_bytes),
        length.as_deref().map(str::as_bytes),
        Some(&parts.time),
    ];
    let own = |(name, _): &Pair<'_>| HEADERS.iter().any(|header| header.as_bytes() == *name);
    let mut headers: Vec<Pair<'_>> = record.headers().filter(|header| !own(header)).collect();
    let told = HEADERS.iter().zip(values).filter(|(_, value)| value.is_some());
    headers.extend(told.map(|(name, value)| (name.as_bytes(), value)));
    let value = if record.is_tombstone() { None } else { Some(rejected.payload) };
    let (key, time, headers) = (record.key(), record.time(), Headers::of(&headers));
    outgoing::put(out, &Outgoing { key, value, time, headers });
}

/// Appends the member that tells why.
fn error(why: &Rejection, line: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"error\":{\"kind\":\"");
    out.extend_from_slice(why.kind.name().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    string(&why.message, out);
    if let Some(line) = line {
        out.extend_from_slice(b",\"line\":");
        integer(line, out);
    }
    if let Some(pointer) = &why.pointer {
        out.extend_from_slice(b",\"pointer\":");
        string(pointer, out);
    }
    if let Some(length) = why.length {
        out.extend_from_slice(b",\"length\":");
        integer(length, out);
    }
    out.push(b'}');
}

/// The payload without the half character that it ends with if only its beginning was kept: else text would
/// become base64 for one byte.
fn whole_characters<'a>(payload: &'a [u8], why: &Rejection) -> &'a [u8] {
    match std::str::from_utf8(payload) {
        Err(error) if why.length.is_some() && error.error_len().is_none() => &payload[..error.valid_up_to()],
        _ => payload,
    }
}

/// A dead letter that is fed back.
pub(super) struct Letter<'a> {
    /// As a JSON string.
    pub(super) message_id: &'a RawValue,
    /// As a JSON string.
    pub(super) source: &'a RawValue,
    /// A JSON object.
    pub(super) metadata: &'a RawValue,
    /// The record's line in its first input.
    pub(super) line: Option<u64>,
    /// The record.
    pub(super) payload: Vec<u8>,
    /// The length of the record, if it was too long.
    length: Option<u64>,
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    message_id: &'a RawValue,
    #[serde(borrow)]
    source: &'a RawValue,
    #[serde(borrow)]
    metadata: &'a RawValue,
    error: ErrorShape,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload_base64: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorShape {
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    length: Option<u64>,
}

impl<'a> Letter<'a> {
    /// Reads a dead letter from its line.
    pub(super) fn parse(text: &'a str) -> Result<Self, Rejection> {
        if !text.starts_with('{') {
            return Err(not_a_letter("it is no object"));
        }
        let shape: Shape<'a> =
            serde_json::from_str(text).map_err(|error| not_a_letter(&error.to_string()))?;
        for (name, value, first) in [
            ("message_id", shape.message_id, '"'),
            ("source", shape.source, '"'),
            ("metadata", shape.metadata, '{'),
        ] {
            if !value.get().starts_with(first) {
                let kind = if first == '{' { "object" } else { "string" };
                return Err(not_a_letter(&format!("{name} is no {kind}")));
            }
        }
        let payload = payload(shape.payload, shape.payload_base64)?;
        Ok(Letter {
            message_id: shape.message_id,
            source: shape.source,
            metadata: shape.metadata,
            line: shape.error.line,
            length: shape.error.length,
            payload,
        })
    }

    /// The length of the record, if its payload is only the beginning that was kept.
    pub(super) fn cut_from(&self, of: Payload) -> Option<u64> {
        self.length.filter(|length| is_cut(self.payload.len(), *length, of))
    }
}

/// The original bytes that a dead letter keeps.
fn payload(text: Option<&RawValue>, base64: Option<&RawValue>) -> Result<Vec<u8>, Rejection> {
    let read = |value: &RawValue, name: &str| {
        serde_json::from_str::<Cow<'_, str>>(value.get())
            .map(Cow::into_owned)
            .map_err(|_| not_a_letter(&format!("{name} is no string")))
    };
    match (text, base64) {
        (Some(text), None) => Ok(read(text, "payload")?.into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(read(base64, "payload_base64")?)
            .map_err(|error| not_a_letter(&format!("payload_base64: {error}"))),
        (None, None) => Err(not_a_letter("it has neither payload nor payload_base64")),
        (Some(_), Some(_)) => Err(not_a_letter("it has both payload and payload_base64")),
    }
}

/// The reason is cut short: it may quote a value of any length.
fn not_a_letter(why: &str) -> Rejection {
    let end = why.char_indices().nth(200).map_or(why.len(), |(end, _)| end);
    Rejection::new(RejectKind::InvalidJson, format!("not a dead letter: {}", &why[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: &str =
        r#"{"message_id":"file:f:0","source":"file","metadata":{},"error":{},"payload":"1"}"#;

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let rejection = Letter::parse(text).err().expect("refused");
        assert_eq!(rejection.kind, RejectKind::InvalidJson);
        assert!(rejection.message.starts_with(&format!("not a dead letter: {why}")), "{}", rejection.message);
        assert!(rejection.message.len() < 1000);
    }

    #[test]
    fn what_has_another_shape_is_refused() {
        assert!(Letter::parse(LETTER).is_ok());
        refused("[]", "it is no object");
        refused("{}", "missing field `message_id`");
        refused(&LETTER.replace("\"file\"", "1"), "source is no string");
        refused(&LETTER.replace("\"file:f:0\"", "null"), "message_id is no string");
        refused(&LETTER.replace("\"metadata\":{}", "\"metadata\":[]"), "metadata is no object");
        refused(&LETTER.replace("\"error\":{},", ""), "missing field `error`");
        refused(&LETTER.replace("\"1\"", "1"), "payload is no string");
        refused(&LETTER.replace("payload", "other"), "it has neither");
        refused(&LETTER.replace("payload", "payload_base64"), "payload_base64: ");
        refused(&LETTER.replace("1\"}", "1\",\"payload_base64\":\"MQ==\"}"), "it has both");
        refused(
            &LETTER.replace("\"error\":{}", &format!("\"error\":\"{}\"", "ü".repeat(9000))),
            "invalid type",
        );
    }

    #[test]
    fn what_it_does_not_know_may_be_of_any_depth() {
        let deep = format!("{{\"more\":{}{},", "[".repeat(100_000), "]".repeat(100_000));
        let text = LETTER.replacen('{', &deep, 1);
        assert_eq!(Letter::parse(&text).map(|letter| letter.payload), Ok(b"1".to_vec()));
    }
}
