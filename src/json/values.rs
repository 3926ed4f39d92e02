//! Concatenated values: pretty-printed, with or without white space between them.
//!
//! A container or string ends at its own last byte. Anything else is a token, up to white space or the next
//! bracket that opens: a number, a literal, or garbage that a worker rejects.

use super::nesting::{Event, Nesting};
use super::{Cursor, Fault, Found, Span, Tail, is_white, skip_white};

#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    place: Place,
    nesting: Nesting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Between,
    /// In an object, an array or a string.
    Nested,
    Token,
}

impl Values {
    pub(super) fn next(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        if self.place == Place::Between {
            cursor.at = skip_white(bytes, cursor.at);
            cursor.begin = cursor.at;
            self.place = match bytes.get(cursor.at) {
                None => return Found::Nothing,
                Some(b'{' | b'[' | b'"') => Place::Nested,
                Some(_) => Place::Token,
            };
            self.nesting = Nesting::default();
        }
        match self.place {
            Place::Token => self.token(cursor, bytes, tail),
            _ => self.nested(cursor, bytes, tail),
        }
    }

    fn token(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        let ends = |byte: &u8| is_white(*byte) || matches!(byte, b'{' | b'[');
        match bytes[cursor.at..].iter().position(ends) {
            Some(offset) => self.found(cursor, cursor.at + offset),
            None if tail == Tail::Last => self.found(cursor, bytes.len()),
            None => {
                cursor.at = bytes.len();
                Found::Nothing
            }
        }
    }

    fn nested(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        while let Some((event, index)) = self.nesting.next(bytes, cursor.at) {
            cursor.at = index + 1;
            if matches!(event, Event::Closed | Event::Quoted) {
                return self.found(cursor, index + 1);
            }
        }
        cursor.at = bytes.len();
        if tail == Tail::Open {
            return Found::Nothing;
        }
        match self.found(cursor, bytes.len()) {
            Found::Record(span) => Found::Fault(span, Fault::Incomplete),
            other => other,
        }
    }

    fn found(&mut self, cursor: &mut Cursor, end: usize) -> Found {
        let begin = cursor.begin;
        (cursor.at, cursor.begin, self.place) = (end, end, Place::Between);
        Found::Record(Span { begin, end, stop: end, next: end })
    }
}
