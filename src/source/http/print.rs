//! Whether two pages have the same records: [`Print`], a hash of them as if they were joined with commas, however they
//! came in pieces. Pure.

use std::ops::Range;

/// Hash of a page's records.
#[derive(Default)]
pub(super) struct Print {
    hash: u32,
    any: bool,
    /// Records in the window that follow each other with nothing but commas between, not hashed yet: one long hash
    /// takes a fraction of the time of many short ones.
    run: Option<Range<usize>>,
}

impl Print {
    /// One more record, at `place` in the window.
    #[inline]
    pub fn add(&mut self, window: &[u8], place: Range<usize>) {
        if let Some(run) = &mut self.run
            && run.end + 1 == place.start
            && window[run.end] == b','
        {
            run.end = place.end;
            return;
        }
        self.settle(window);
        if self.any {
            self.hash = crc32c::crc32c_append(self.hash, b",");
        }
        (self.any, self.run) = (true, Some(place));
    }

    /// The window is going to change.
    pub fn settle(&mut self, window: &[u8]) {
        if let Some(run) = self.run.take() {
            self.hash = crc32c::crc32c_append(self.hash, &window[run]);
        }
    }

    /// The hash of all records so far. The window was settled.
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(windows: &[(&str, &[Range<usize>])]) -> u32 {
        let mut print = Print::default();
        for (window, places) in windows {
            places.iter().for_each(|place| print.add(window.as_bytes(), place.clone()));
            print.settle(window.as_bytes());
        }
        print.hash()
    }

    #[test]
    fn only_records_and_their_order_count() {
        let whole = print(&[("[1,22,3]", &[1..2, 3..5, 6..7])]);
        assert_eq!(whole, crc32c::crc32c(b"1,22,3"));
        assert_eq!(print(&[("[1,22,", &[1..2, 3..5]), ("3]", std::slice::from_ref(&(0..1)))]), whole);
        assert_eq!(print(&[("1\n22\n3\n", &[0..1, 2..4, 5..6])]), whole);
        assert_eq!(print(&[("[ 1 , 22,3 ]", &[2..3, 6..8, 9..10])]), whole);
        assert_ne!(print(&[("[1,2,23]", &[1..2, 3..4, 5..7])]), whole);
        assert_ne!(print(&[("[22,1,3]", &[1..3, 4..5, 6..7])]), whole);
    }
}
