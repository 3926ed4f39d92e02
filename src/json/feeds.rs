//! Where the line feeds stand: [`Feeds`] finds them a few dozen at a time. Pure.
//!
//! One search a line stops at another length each time, which the processor cannot foresee. Here a block of 64 bytes
//! costs the same with a line feed and without: lines of 200 bytes are found in two thirds of the time.

use super::sixteen;

/// So many bytes are looked at in one go.
const BLOCK: usize = 64;
/// With so many in hand the search stops.
const ENOUGH: usize = 32;

/// Line feeds that were found and not asked for yet.
#[derive(Clone, Debug)]
pub(super) struct Feeds {
    found: Box<[usize; ENOUGH + BLOCK]>,
    head: usize,
    len: usize,
    /// Every byte before it was searched.
    searched: usize,
}

impl Default for Feeds {
    fn default() -> Self {
        Feeds { found: Box::new([0; ENOUGH + BLOCK]), head: 0, len: 0, searched: 0 }
    }
}

impl Feeds {
    /// Where the next one stands in `bytes`, which are those of the last call and perhaps more.
    #[inline(always)]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.head == self.len {
            self.search(bytes);
        }
        let at = self.found[..self.len].get(self.head)?;
        self.head += 1;
        Some(*at)
    }

    /// The buffer is another one: it was looked at before `at`.
    pub(super) fn restart(&mut self, at: usize) {
        (self.head, self.len, self.searched) = (0, 0, at);
    }

    #[inline(never)]
    fn search(&mut self, bytes: &[u8]) {
        let (mut len, mut at) = (0, self.searched);
        while len < ENOUGH
            && let Some(block) = bytes[at..].first_chunk::<BLOCK>()
        {
            let mut feeds = sixteen::feeds(block);
            // Written down whether or not there is one, so that there is nothing to foresee.
            self.found[len] = at + feeds.trailing_zeros() as usize;
            len += usize::from(feeds != 0);
            feeds &= feeds.wrapping_sub(1);
            while feeds != 0 {
                self.found[len] = at + feeds.trailing_zeros() as usize;
                len += 1;
                feeds &= feeds - 1;
            }
            at += BLOCK;
        }
        if len < ENOUGH {
            for index in memchr::memchr_iter(b'\n', &bytes[at..]) {
                self.found[len] = at + index;
                len += 1;
            }
            at = bytes.len();
        }
        (self.head, self.len, self.searched) = (0, len, at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_found_once_however_the_bytes_come(
            bytes in prop::collection::vec(prop_oneof![1 => Just(b'\n'), 20 => Just(b'a')], 0..2000),
            dense in prop::collection::vec(prop_oneof![9 => Just(b'\n'), 1 => Just(b'a')], 0..300),
            step in 1usize..400,
        ) {
            let bytes = [bytes, dense].concat();
            let expected: Vec<usize> = memchr::memchr_iter(b'\n', &bytes).collect();
            let (mut feeds, mut found) = (Feeds::default(), Vec::new());
            for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
                found.extend(std::iter::from_fn(|| feeds.next(&bytes[..end])));
            }
            prop_assert_eq!(&found, &expected);
            let half = expected.len() / 2;
            if let Some(before) = expected.get(half) {
                feeds.restart(*before);
                let rest: Vec<usize> = std::iter::from_fn(|| feeds.next(&bytes)).collect();
                prop_assert_eq!(&rest, &expected[half..]);
            }
        }
    }
}
