//! One array of any size: its elements are the records.
//!
//! An element reaches to the comma or bracket behind it, whatever stands there, so a broken element is one
//! record and the next one is found. An empty element (`[1,,2]`, `[1,]`) is an empty record: a worker rejects it.

use super::nesting::{Event, Nesting};
use super::{Cursor, Fault, Found, Span, Tail, skip_white, trim_end};

#[derive(Clone, Debug, Default)]
pub(super) struct Array {
    place: Place,
    nesting: Nesting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the array's bracket.
    #[default]
    Before,
    /// Behind the opening bracket.
    First,
    /// Behind a comma.
    Next,
    /// Behind a comma where an earlier run has stopped.
    Again,
    /// In an element.
    Element,
    /// Behind the closing bracket.
    Behind,
    /// At the end of an input that does not close the array.
    Unclosed,
    /// At the end of the input, and that was said.
    Over,
}

impl Array {
    pub(super) fn resume(&mut self, before: u8) {
        self.place = if before == b',' { Place::Again } else { Place::Behind };
    }

    pub(super) fn next(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        loop {
            match self.place {
                Place::Element => return self.element(cursor, bytes, tail),
                Place::Behind => return behind(cursor, bytes, tail),
                Place::Over => return Found::Nothing,
                // If nothing follows, the comma is the last byte of what was said to have no end.
                Place::Again if bytes.is_empty() => return Found::Nothing,
                Place::Again => self.place = Place::Next,
                // What ended it may stand in the next buffer: a chunk may have ended before it.
                Place::Unclosed if tail == Tail::Open => return Found::Nothing,
                Place::Unclosed => return self.unclosed(cursor, bytes),
                Place::Before | Place::First | Place::Next => {}
            }
            cursor.at = skip_white(bytes, cursor.at);
            cursor.begin = cursor.at;
            match (bytes.get(cursor.at), self.place) {
                (None, _) if tail == Tail::Open => return Found::Nothing,
                (None, Place::Before) => self.place = Place::Over,
                (None, _) => self.place = Place::Unclosed,
                (Some(b'['), Place::Before) => self.pass(cursor, Place::First),
                (Some(b']'), Place::First) => self.pass(cursor, Place::Behind),
                (Some(_), _) => (self.place, self.nesting) = (Place::Element, Nesting::default()),
            }
        }
    }

    fn pass(&mut self, cursor: &mut Cursor, place: Place) {
        cursor.at += 1;
        cursor.begin = cursor.at;
        self.place = place;
    }

    fn element(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        let begin = cursor.begin;
        while let Some((event, index)) = self.nesting.next(bytes, cursor.at) {
            let last = index + 1 == bytes.len();
            let (place, next) = match event {
                // Whether an element follows: else the comma belongs to what is said of the array's end, so that
                // this has a place of its own.
                Event::Comma if last && tail == Tail::Open => {
                    cursor.at = index;
                    return Found::Nothing;
                }
                // Nothing but that comma: there is no element to tell of, and one place is not that of two records.
                Event::Comma if last && index == begin => return self.unclosed(cursor, bytes),
                Event::Comma if last => (Place::Unclosed, index),
                Event::Comma => (Place::Next, index + 1),
                Event::Stray if bytes[index] == b']' => (Place::Behind, index + 1),
                _ => {
                    cursor.at = index + 1;
                    continue;
                }
            };
            (self.place, cursor.at, cursor.begin) = (place, next, next);
            let end = trim_end(bytes, begin, index);
            return Found::Record(Span { begin, end, stop: index, next });
        }
        cursor.at = bytes.len();
        if tail == Tail::Open { Found::Nothing } else { self.unclosed(cursor, bytes) }
    }

    /// The input ends before the array does; so may its last element, whatever it looks like.
    fn unclosed(&mut self, cursor: &mut Cursor, bytes: &[u8]) -> Found {
        let (begin, next) = (cursor.begin, bytes.len());
        (self.place, cursor.at, cursor.begin) = (Place::Over, next, next);
        let end = trim_end(bytes, begin, next);
        Found::Fault(Span { begin, end, stop: next, next }, Fault::Incomplete)
    }
}

/// Behind the array every line that is not blank is a fault.
fn behind(cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
    if cursor.begin == cursor.at {
        cursor.at = skip_white(bytes, cursor.at);
        cursor.begin = cursor.at;
    }
    let begin = cursor.begin;
    let (stop, next) = match memchr::memchr(b'\n', &bytes[cursor.at..]) {
        Some(offset) => (cursor.at + offset, cursor.at + offset + 1),
        None if tail == Tail::Open || begin == bytes.len() => {
            cursor.at = bytes.len();
            return Found::Nothing;
        }
        None => (bytes.len(), bytes.len()),
    };
    (cursor.at, cursor.begin) = (next, next);
    let end = trim_end(bytes, begin, stop);
    // A comma as the last byte of all is what `element` leaves of an array that is not closed; a run that goes on
    // there cannot tell it from one behind the array, so both are called the same.
    let fault = if &bytes[begin..] == b"," && tail == Tail::Last { Fault::Incomplete } else { Fault::Behind };
    Found::Fault(Span { begin, end, stop, next }, fault)
}
