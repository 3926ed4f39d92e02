//! Strict validation: is a record one JSON value by RFC 8259? Nothing is decoded, so nesting of any depth, lone
//! surrogates and numbers of any size pass as they stand.
//!
//! [`Validator`] says yes, and serde_json has the last word where it does not: so a record is looked at twice only
//! if it is wrong. UTF-8 is looked at where not all is ASCII, and then as far as it goes.

use serde_json::value::RawValue;

use super::envelope::Breaks;
use crate::json::is_white;
use crate::json::validate::Validator;
use crate::record::{Entry, RejectKind, Rejection, Section};

/// The values of a section, asked for in the order of its records.
pub(super) struct Values<'a> {
    buffer: &'a [u8],
    /// Where the section's last record ends.
    end: usize,
    /// Up to here the bytes are UTF-8, from the record on that was the last to be asked for it.
    utf8: usize,
    /// How often a line may still be looked at as if its end were known.
    tries: u32,
    validator: &'a mut Validator,
}

/// What a line is.
pub(super) struct Line<'a> {
    /// Where its record ends, and where the next line begins.
    pub(super) end: usize,
    pub(super) next: usize,
    /// The value and its line breaks; `None`: it is blank.
    pub(super) value: Option<Result<(&'a [u8], Breaks), Rejection>>,
}

/// Lines that are not just a value may cost a look at all that is behind them, so there may be only so many in a
/// section.
const TRIES: u32 = 8;

impl<'a> Values<'a> {
    /// The values of the records of a section.
    pub(super) fn new(section: &Section<'a>, validator: &'a mut Validator) -> Self {
        let buffer = section.buffer();
        let end = match section.lines() {
            Some(_) => buffer.len(),
            None => section.entries().last().map_or(0, |last| (last.at + last.len) as usize),
        };
        Values { buffer, end, utf8: 0, tries: TRIES, validator }
    }

    /// The line that begins at byte `at` of the buffer. Where a value ends is known once it was looked at: a line
    /// is not searched for its end unless there is more in it.
    #[inline]
    pub(super) fn line(&mut self, at: usize) -> Line<'a> {
        if self.tries > 0 {
            if let Some((len, whole)) = self.validator.line(&self.buffer[at..])
                && self.is_utf8(at, at + len)
            {
                let value = Some(Ok((&self.buffer[at..at + len], Breaks::None)));
                return Line { end: at + len, next: at + whole, value };
            }
            self.tries -= 1;
        }
        self.any_line(at)
    }

    #[inline(never)]
    fn any_line(&mut self, at: usize) -> Line<'a> {
        let rest = &self.buffer[at..];
        let (stop, next) = match memchr::memchr(b'\n', rest) {
            Some(feed) => (at + feed, at + feed + 1),
            None => (self.buffer.len(), self.buffer.len()),
        };
        let line = &self.buffer[at..stop];
        if line.iter().all(|byte| is_white(*byte)) {
            return Line { end: stop, next, value: None };
        }
        let end = if line.ends_with(b"\r") { stop - 1 } else { stop };
        let entry = Entry { at: at as u32, len: (end - at) as u32, ..Entry::default() };
        Line { end, next, value: Some(self.next(&entry)) }
    }

    /// The value of the next entry, without the white space around it.
    #[inline]
    pub(super) fn next(&mut self, entry: &Entry) -> Result<(&'a [u8], Breaks), Rejection> {
        let (at, len) = (entry.at as usize, entry.len as usize);
        if let Some(found) = self.validator.value(&self.buffer[at..], len)
            && self.is_utf8(at, at + len)
        {
            let breaks = if found.breaks { Breaks::Perhaps } else { Breaks::None };
            return Ok((&self.buffer[at + found.range.start..at + found.range.end], breaks));
        }
        value(&self.buffer[at..at + len]).map(|value| (value.as_bytes(), Breaks::Perhaps))
    }
}

impl Values<'_> {
    /// Whether the record that was just validated is UTF-8.
    #[inline(always)]
    fn is_utf8(&mut self, at: usize, end: usize) -> bool {
        self.validator.is_ascii() || end <= self.utf8 || self.look_for_utf8(at, end)
    }

    /// Looks at what follows, too: records that are not ASCII seldom come alone, and to look at each took longer.
    #[inline(never)]
    fn look_for_utf8(&mut self, at: usize, end: usize) -> bool {
        let rest = &self.buffer[at..self.end];
        let valid = match std::str::from_utf8(rest) {
            Ok(_) => rest.len(),
            Err(error) => error.valid_up_to(),
        };
        self.utf8 = at + valid;
        end <= self.utf8
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
