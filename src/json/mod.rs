//! Record boundaries in bytes: newline-delimited, one array, concatenated values, lines of text. Pure: no IO;
//! any split of the input into reads gives the same records.
//!
//! A [`Scanner`] finds where records begin and end and never validates: workers do that, strictly and in
//! parallel. So garbage becomes (part of) some record, which a worker rejects with its place; nothing is
//! skipped but white space between records. No byte is looked at twice and nothing recurses, so neither the
//! time nor the stack depends on what the bytes are.
//!
//! Where it goes on after garbage: lines at the next line; an array at the next comma of its own level;
//! concatenated values at the next white space, `{` or `[`. A string ends at its quote only: a raw line feed in
//! a string (the usual fault of hand-made JSON) then spoils one record and not the count of brackets.

pub mod validate;
mod array;
mod detect;
mod feeds;
mod label;
mod lines;
mod nesting;
mod page;
mod sixteen;
mod values;

pub(crate) use detect::is_decided;
pub use detect::{Syntax, detect};
pub use page::{Listed, Told};

use array::Array;
use lines::Lines;
use page::Page;
use values::Values;

/// A record's place in the buffer that is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub begin: usize,
    /// Behind its last byte, without line ending and white space.
    pub end: usize,
    /// Behind its last byte, with white space up to what ended it. `stop - begin` is the length that counts
    /// against a limit: unlike `end` it needs no byte but the one that ended the record.
    pub stop: usize,
    /// Where the next record may begin.
    pub next: usize,
}

/// What a scanner found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record(Span),
    /// Bytes that are known to be no record.
    Fault(Span, Fault),
    /// Nothing more in these bytes.
    Nothing,
}

/// Why bytes are known to be no record, without a look at their grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The input ended inside a value or before the `]` of its array.
    Incomplete,
    /// They stand behind the array.
    Behind,
    /// What stands around the records is no JSON; the rest of the input is part of the fault.
    Broken,
}

/// Whether more bytes may follow those in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// More may follow.
    Open,
    /// These are the last ones.
    Last,
}

/// Finds the records in a buffer to whose end bytes are added, and from whose beginning they may be taken away.
#[derive(Clone, Debug)]
pub struct Scanner {
    cursor: Cursor,
    kind: Kind,
}

/// How far the buffer is scanned.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Every byte before it was looked at.
    at: usize,
    /// Where the record under way begins; equal to `at` between records.
    begin: usize,
    /// Whether `begin` stands at the very first byte of the input, where a byte order mark may be.
    first: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Lines(Lines),
    Array(Array),
    Values(Values),
    Page(Page),
}

impl Scanner {
    /// A scanner at the first byte of an input. Records longer than `longest` are never taken for blank.
    pub fn new(syntax: Syntax, longest: usize) -> Self {
        let kind = match syntax {
            Syntax::Lines => Kind::Lines(Lines::json(longest)),
            Syntax::Text => Kind::Lines(Lines::text(longest)),
            Syntax::Array => Kind::Array(Array::default()),
            Syntax::Values => Kind::Values(Values::default()),
        };
        Scanner { cursor: Cursor { first: true, ..Cursor::default() }, kind }
    }

    /// Whether each record is a line.
    pub fn finds_lines(&self) -> bool {
        matches!(self.kind, Kind::Lines(_))
    }

    /// Whether the next byte that it looks at begins a line, and records are lines.
    pub fn is_at_line(&self) -> bool {
        self.finds_lines() && !self.cursor.first && !self.in_record()
    }

    /// [`Scanner::next`] where each record is a line, which is all that is found then.
    #[inline(always)]
    pub fn next_line(&mut self, bytes: &[u8], tail: Tail) -> Option<Span> {
        if self.cursor.first && !self.skip_mark(bytes, tail) {
            return None;
        }
        match &mut self.kind {
            Kind::Lines(lines) => lines.next(&mut self.cursor, bytes, tail),
            _ => None,
        }
    }

    /// A scanner of one value that has the array of records somewhere inside. `pointers` are the steps to that array,
    /// then those to small values that are wanted besides ([`Scanner::told`]); at most 31 of them.
    pub fn page(pointers: Vec<Vec<String>>) -> Self {
        let cursor = Cursor { first: true, ..Cursor::default() };
        Scanner { cursor, kind: Kind::Page(Page::new(pointers)) }
    }

    /// What stands at the pointer of value `index`, as far as it is known by now.
    pub fn told(&self, index: usize) -> &Told {
        match &self.kind {
            Kind::Page(page) => page.told(index),
            _ => &Told::Nothing,
        }
    }

    /// What stands where the records should: an array, of everything that is no page.
    pub fn listed(&self) -> Listed {
        match &self.kind {
            Kind::Page(page) => page.listed(),
            _ => Listed::Array,
        }
    }

    /// Goes on where a record ended in an earlier run, which was at the byte `before`.
    pub fn resume(&mut self, before: u8) {
        self.cursor.first = false;
        if let Kind::Array(array) = &mut self.kind {
            array.resume(before);
        }
    }

    /// The next record of `bytes`, which are those of the last call and perhaps more.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], tail: Tail) -> Found {
        if self.cursor.first && !self.skip_mark(bytes, tail) {
            return Found::Nothing;
        }
        match &mut self.kind {
            Kind::Lines(lines) => match lines.next(&mut self.cursor, bytes, tail) {
                Some(span) => Found::Record(span),
                None => Found::Nothing,
            },
            Kind::Array(array) => array.next(&mut self.cursor, bytes, tail),
            Kind::Values(values) => values.next(&mut self.cursor, bytes, tail),
            Kind::Page(page) => page.next(&mut self.cursor, bytes, tail),
        }
    }

    /// Skips a byte order mark (RFC 8259, section 8.1, allows to); `false` if that needs more bytes.
    #[cold]
    fn skip_mark(&mut self, bytes: &[u8], tail: Tail) -> bool {
        if bytes.len() < MARK.len() && MARK.starts_with(bytes) && tail == Tail::Open {
            return false;
        }
        if bytes.starts_with(MARK) {
            (self.cursor.at, self.cursor.begin) = (MARK.len(), MARK.len());
        }
        self.cursor.first = false;
        true
    }

    /// Where the record under way begins; if there is none, the first byte that was not looked at.
    pub fn begin(&self) -> usize {
        self.cursor.begin
    }

    /// Whether a record is under way.
    pub fn in_record(&self) -> bool {
        self.cursor.at > self.cursor.begin
    }

    /// How many bytes of the buffer were looked at: the next call needs at least these.
    pub fn looked_at(&self) -> usize {
        self.cursor.at
    }

    /// Somebody else looks for the records in the first `count` bytes, which are lines.
    pub fn pass(&mut self, count: usize) {
        (self.cursor.at, self.cursor.begin) = (count, count);
    }

    /// The first `count` bytes of the buffer were taken away.
    pub fn rebase(&mut self, count: usize) {
        self.cursor.at -= count;
        self.cursor.begin -= count;
        self.restart();
    }

    /// All bytes were taken away, and no more will come.
    pub fn forget_all(&mut self) {
        (self.cursor.at, self.cursor.begin) = (0, 0);
        self.restart();
    }

    /// All bytes from `at` on, which were looked at, were taken away.
    pub fn forget_from(&mut self, at: usize) {
        self.cursor.at = self.cursor.at.min(at);
        self.restart();
        if let Kind::Lines(lines) = &mut self.kind {
            lines.shorten();
        }
    }

    /// What was found ahead stands elsewhere now.
    fn restart(&mut self) {
        if let Kind::Lines(lines) = &mut self.kind {
            lines.restart(self.cursor.at);
        }
    }
}

/// U+FEFF in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// JSON white space.
#[inline]
pub(crate) fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Index of the first byte from `at` on that is no white space.
#[inline]
fn skip_white(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| !is_white(*byte)).map_or(bytes.len(), |offset| at + offset)
}

/// Where `bytes[begin..end]` ends without the white space at its end.
fn trim_end(bytes: &[u8], begin: usize, end: usize) -> usize {
    bytes[begin..end].iter().rposition(|byte| !is_white(*byte)).map_or(begin, |offset| begin + offset + 1)
}

#[cfg(test)]
mod tests;
