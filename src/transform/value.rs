//! Strict validation: is a record one JSON value by RFC 8259? Nothing is decoded, so nesting of any depth, lone
//! surrogates and numbers of any size pass as they stand.
//!
//! [`Validator`] says yes, and serde_json has the last word where it does not: so a record is looked at twice only
//! if it is wrong. UTF-8 is checked once for the whole section, and record by record only where that fails.

use serde_json::value::RawValue;

use crate::json::validate::Validator;
use crate::record::{Entry, Payload, RejectKind, Rejection, Section};

/// The values of a section, asked for in the order of its entries.
pub(super) struct Values<'a> {
    buffer: &'a [u8],
    /// The buffer from the first entry on, if all of it is UTF-8, and where it begins.
    text: Option<(&'a str, usize)>,
    validator: Validator,
}

impl<'a> Values<'a> {
    /// The values of the records of a section.
    pub(super) fn new(section: &Section<'a>) -> Self {
        let buffer = section.buffer();
        let text = || {
            let (first, last) = (section.entries().first()?, section.entries().last()?);
            let from = first.at as usize;
            let text = std::str::from_utf8(&buffer[from..(last.at + last.len) as usize]).ok()?;
            Some((text, from))
        };
        // Nobody asks for the values of text and bytes.
        let text = if section.payload() == Payload::Json { text() } else { None };
        Values { buffer, text, validator: Validator::default() }
    }

    /// The value of the next entry, without the white space around it.
    #[inline]
    pub(super) fn next(&mut self, entry: &Entry) -> Result<&'a str, Rejection> {
        let at = entry.at as usize;
        let record = &self.buffer[at..at + entry.len as usize];
        if let Some((text, from)) = self.text
            && let Some(found) = self.validator.value(record)
            && let Some(value) = text.get(at - from + found.start..at - from + found.end)
        {
            return Ok(value);
        }
        value(record)
    }
}

/// One JSON value, without the white space around it.
pub(super) fn value(bytes: &[u8]) -> Result<&str, Rejection> {
    let text = utf8(bytes)?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(Rejection::new(RejectKind::InvalidJson, fault(&error, text))),
    }
}

/// The bytes as text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("invalid UTF-8 (0x{:02x}) at byte {at} of the record", bytes[at]);
        Rejection::new(RejectKind::InvalidUtf8, message)
    })
}

/// What is wrong and where within the record, without a line where the record has but one: it would be mistaken
/// for the line of the file.
fn fault(error: &serde_json::Error, text: &str) -> String {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let what = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
    if text.trim().is_empty() {
        "no value".to_owned()
    } else if text.trim_end().contains(['\n', '\r']) {
        format!("{what} at line {line} column {column} of the record")
    } else {
        format!("{what} at column {column} of the record")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejected(bytes: &[u8], kind: RejectKind, message: &str) {
        let rejection = value(bytes).expect_err("rejected");
        assert_eq!((rejection.kind, rejection.message.as_str()), (kind, message));
    }

    #[test]
    fn what_rfc_8259_allows_passes_as_it_stands() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [r#""\ud800""#, "1e999", "-0.0", r#"{"a":1,"a":2}"#, "null", r#""""#, &deep] {
            assert_eq!(value(text.as_bytes()), Ok(text));
            assert_eq!(value(format!(" \t{text}\r\n").as_bytes()), Ok(text));
        }
    }

    #[test]
    fn what_it_does_not_is_rejected_with_its_place() {
        let json = RejectKind::InvalidJson;
        rejected(b"", json, "no value");
        rejected(b" \r\n", json, "no value");
        rejected(b"{\"a\":1} x", json, "trailing characters at column 9 of the record");
        rejected(b"{\"a\":", json, "EOF while parsing a value at column 5 of the record");
        rejected(b"{\"a\":1,}", json, "key must be a string at column 8 of the record");
        rejected(b"{\n  \"a\": x}", json, "expected value at line 2 column 8 of the record");
        rejected(b"1 2", json, "trailing characters at column 3 of the record");
        rejected("\u{feff}1".as_bytes(), json, "expected value at column 1 of the record");
        for text in ["01", "+1", "1.", "nan", "'a'", "\"\t\"", "\"\\x\"", "\"\u{1}\"", "[1,]", "\"a"] {
            assert_eq!(value(text.as_bytes()).expect_err(text).kind, json);
        }
        rejected(b"\"a\xff\"", RejectKind::InvalidUtf8, "invalid UTF-8 (0xff) at byte 2 of the record");
        rejected(
            b"\"\xed\xa0\x80\"",
            RejectKind::InvalidUtf8,
            "invalid UTF-8 (0xed) at byte 1 of the record",
        );
    }
}
