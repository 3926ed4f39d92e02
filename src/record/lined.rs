//! Records that nobody has looked for yet: all that is known of a chunk is how many lines it has.
//!
//! A reader that takes a block of lines whole need not look at each of them, and the worker that validates a line sees
//! where it ends. Whoever wants entries all the same has them made when asking: [`Lined::entries`].

use std::sync::OnceLock;

use super::Entry;
use crate::json::{Scanner, Syntax, Tail};

/// Lines of a chunk's whole buffer.
#[derive(Default)]
pub(crate) struct Lined {
    /// How many, blank ones included; 0: the chunk has entries.
    count: u32,
    entries: OnceLock<Vec<Entry>>,
}

impl Lined {
    /// So many lines.
    pub fn new(count: u32) -> Self {
        Lined { count, entries: OnceLock::new() }
    }

    /// How many lines there are, blank ones included, if nobody has looked for the records.
    pub fn count(&self) -> Option<usize> {
        (self.count > 0).then_some(self.count as usize)
    }

    /// The records of these lines, of which the first begins at position `start`.
    pub fn entries(&self, bytes: &[u8], start: u64) -> &[Entry] {
        self.entries.get_or_init(|| {
            let mut scanner = Scanner::new(Syntax::Lines, usize::MAX);
            // A line ended before the first of these.
            scanner.resume(b'\n');
            let mut entries = Vec::with_capacity(self.count as usize);
            while let Some(span) = scanner.next_line(bytes, Tail::Last) {
                entries.push(entry(start, span.begin, span.end, span.next));
            }
            entries
        })
    }
}

/// The entry of a record from byte `at` to `end` of the buffer, where the next line begins at `next` and byte 0
/// stands at position `start`.
pub(crate) fn entry(start: u64, at: usize, end: usize, next: usize) -> Entry {
    let (len, span) = ((end - at) as u32, (next - at) as u32);
    Entry { position: start + at as u64, at: at as u32, len, span, extra: 0 }
}
