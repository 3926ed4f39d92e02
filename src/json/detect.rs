//! Which syntax an input has, from its first bytes.

use serde_json::value::RawValue;

use crate::config::Format;

use super::{MARK, Tail, is_white, skip_white};

/// How records stand in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// One JSON value a line.
    Lines,
    /// One array, whose elements are the records.
    Array,
    /// Values one after another, over as many lines as they like.
    Values,
    /// Lines of text.
    Text,
}

/// The syntax of an input that begins with `head`; [`Tail::Last`] if that is all of it.
///
/// `auto` takes a first byte `[` for one array (NDJSON of arrays must be asked for), then concatenated values if the
/// first value is whole and goes over several lines, then NDJSON if any line that begins in column 0 is a complete value,
/// then concatenated values.
pub fn detect(format: Format, head: &[u8], tail: Tail) -> Syntax {
    let head = head.strip_prefix(MARK).unwrap_or(head);
    let array = head.get(skip_white(head, 0)) == Some(&b'[');
    match format {
        Format::Ndjson => Syntax::Lines,
        // Binary is Kafka's, whose values are not scanned, and whose dead letters stand in lines.
        Format::Text | Format::Binary => Syntax::Text,
        Format::Auto | Format::Json if array => Syntax::Array,
        Format::Json => Syntax::Values,
        // Before lines are looked at: among values over several lines there may be one on a line of its own.
        Format::Auto if first_value(head) == First::OverLines => Syntax::Values,
        Format::Auto if any_line_is_a_value(head, tail) => Syntax::Lines,
        // Nothing but white space says nothing: lines are the cheapest way to go on looking.
        Format::Auto if skip_white(head, 0) == head.len() => Syntax::Lines,
        Format::Auto => Syntax::Values,
    }
}

/// Whether nothing that follows `head` can make it another syntax.
pub(crate) fn is_decided(format: Format, head: &[u8]) -> bool {
    let head = head.strip_prefix(MARK).unwrap_or(head);
    match head.get(skip_white(head, 0)) {
        None => false,
        Some(first) if format != Format::Auto || *first == b'[' => true,
        Some(_) => match first_value(head) {
            First::OverLines => true,
            // What follows may make it whole.
            First::Open => false,
            First::Within | First::Broken => detect(format, head, Tail::Open) != Syntax::Values,
        },
    }
}

/// What stands first.
#[derive(PartialEq, Eq)]
enum First {
    /// A value on one line.
    Within,
    /// A value with a line feed in it.
    OverLines,
    /// The beginning of a value.
    Open,
    /// No value.
    Broken,
}

fn first_value(head: &[u8]) -> First {
    match serde_json::Deserializer::from_slice(head).into_iter::<&RawValue>().next() {
        Some(Ok(value)) if value.get().contains('\n') => First::OverLines,
        Some(Ok(_)) => First::Within,
        Some(Err(error)) if error.is_eof() => First::Open,
        Some(Err(_)) => First::Broken,
        None => First::Open,
    }
}

fn any_line_is_a_value(head: &[u8], tail: Tail) -> bool {
    head.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n") || tail == Tail::Last)
        .filter(|line| line.first().is_some_and(|byte| !is_white(*byte)))
        .any(|line| serde_json::from_slice::<&RawValue>(line).is_ok())
}
