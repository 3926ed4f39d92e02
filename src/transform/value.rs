//! Strict validation: is a record one JSON value by RFC 8259? Nothing is decoded, so nesting of any depth, lone
//! surrogates and numbers of any size pass as they stand.
//!
//! [`Validator`] says yes, and serde_json has the last word where it does not: so a record is looked at twice only
//! if it is wrong. UTF-8 is checked once for the whole section, and record by record only where that fails.

use serde_json::value::RawValue;

use super::envelope::Breaks;
use crate::json::validate::Validator;
use crate::record::{Entry, Payload, RejectKind, Rejection, Section};

/// The values of a section, asked for in the order of its entries.
pub(super) struct Values<'a> {
    buffer: &'a [u8],
    /// Whether all bytes from the first entry to the last are UTF-8.
    checked: bool,
    validator: &'a mut Validator,
}

impl<'a> Values<'a> {
    /// The values of the records of a section.
    pub(super) fn new(section: &Section<'a>, validator: &'a mut Validator) -> Self {
        let buffer = section.buffer();
        // Nobody asks for the values of text and bytes.
        let checked = section.payload() == Payload::Json
            && section.entries().first().zip(section.entries().last()).is_some_and(|(first, last)| {
                std::str::from_utf8(&buffer[first.at as usize..(last.at + last.len) as usize]).is_ok()
            });
        Values { buffer, checked, validator }
    }

    /// The value of the next entry, without the white space around it.
    #[inline]
    pub(super) fn next(&mut self, entry: &Entry) -> Result<(&'a [u8], Breaks), Rejection> {
        let (at, len) = (entry.at as usize, entry.len as usize);
        // Characters are whole in it: it begins and ends with a byte of ASCII, and so does what is around it.
        if self.checked
            && let Some(found) = self.validator.value(&self.buffer[at..], len)
        {
            let breaks = if found.breaks { Breaks::Perhaps } else { Breaks::None };
            return Ok((&self.buffer[at + found.range.start..at + found.range.end], breaks));
        }
        value(&self.buffer[at..at + len]).map(|value| (value.as_bytes(), Breaks::Perhaps))
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
