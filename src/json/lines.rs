//! Lines: NDJSON, where blank lines are no records, and text, where every line is one.

use super::feeds::Feeds;
use super::{Cursor, Span, Tail, is_white};

#[derive(Clone, Debug)]
pub(super) struct Lines {
    blank: Blank,
    longest: usize,
    feeds: Feeds,
    /// Whether bytes of the line under way were dropped.
    short: bool,
}

/// What a line without anything but white space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blank {
    Skip,
    Record,
}

impl Lines {
    pub(super) fn json(longest: usize) -> Self {
        Lines { blank: Blank::Skip, longest, feeds: Feeds::default(), short: false }
    }

    pub(super) fn text(longest: usize) -> Self {
        Lines { blank: Blank::Record, longest, feeds: Feeds::default(), short: false }
    }

    #[inline(always)]
    pub(super) fn next(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Option<Span> {
        loop {
            let begin = cursor.begin;
            let (stop, next) = match self.feeds.next(bytes) {
                Some(at) => (at, at + 1),
                None => {
                    cursor.at = bytes.len();
                    if tail == Tail::Open || begin == bytes.len() {
                        return None;
                    }
                    (bytes.len(), bytes.len())
                }
            };
            (cursor.at, cursor.begin) = (next, next);
            let line = &bytes[begin..stop];
            let short = self.short;
            if short {
                self.short = false;
            }
            if short || self.blank == Blank::Record || !self.is_blank(line) {
                // At the end of all it belongs to no line ending; in JSON it is white space.
                let ends = next > stop || self.blank == Blank::Skip;
                let end = if ends && line.ends_with(b"\r") { stop - 1 } else { stop };
                return Some(Span { begin, end, stop, next });
            }
        }
    }

    /// The buffer is another one: it was looked at before `at`.
    pub(super) fn restart(&mut self, at: usize) {
        self.feeds.restart(at);
    }

    /// Bytes of the line under way were dropped: it is too long to be blank.
    pub(super) fn shorten(&mut self) {
        self.short = true;
    }

    /// A line of nothing but white space. A longer one than a record may be is none: if it came in pieces, its
    /// inside was dropped before its end was seen.
    #[inline]
    fn is_blank(&self, line: &[u8]) -> bool {
        match line.first() {
            None => true,
            Some(byte) if *byte > b' ' => false,
            Some(_) => line.len() <= self.longest && line.iter().all(|byte| is_white(*byte)),
        }
    }
}
