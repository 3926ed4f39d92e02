//! [`Limit`]: lines of one place of the program, no more than so many in a while. A service that is away would
//! otherwise fill a disk with one line, said by every thread. How many were left out is told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many lines of one place are logged in [`WINDOW`].
const MOST: u64 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// A place of the program: file and line.
pub type Place = (&'static str, u32);

/// Counts lines by place.
#[derive(Default)]
pub struct Limit(HashMap<Place, Said>);

struct Said {
    since: Instant,
    lines: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is logged; before it is told that so many of its place were not, if any.
    Log(u64),
    /// It is left out.
    LeaveOut,
}

impl Limit {
    /// A line comes from `place`.
    pub fn line(&mut self, place: Place, now: Instant) -> Verdict {
        let said = self.0.entry(place).or_insert(Said { since: now, lines: 0 });
        let mut left_out = 0;
        if now.duration_since(said.since) >= WINDOW {
            left_out = said.lines.saturating_sub(MOST);
            *said = Said { since: now, lines: 0 };
        }
        said.lines += 1;
        if said.lines > MOST { Verdict::LeaveOut } else { Verdict::Log(left_out) }
    }

    /// How many lines were left out and not told of; they count as told.
    pub fn rest(&mut self) -> u64 {
        let rest = self.0.values().map(|said| said.lines.saturating_sub(MOST)).sum();
        self.0.clear();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_left_out_and_counted() {
        let (mut limit, begin) = (Limit::default(), Instant::now());
        let later = begin + WINDOW;
        for line in 0..50 {
            let expected = if line < MOST { Verdict::Log(0) } else { Verdict::LeaveOut };
            assert_eq!(limit.line(("a", 1), begin), expected);
        }
        assert_eq!(limit.line(("a", 2), begin), Verdict::Log(0), "another place");
        assert_eq!(limit.line(("a", 1), later), Verdict::Log(50 - MOST));
        assert_eq!(limit.line(("a", 1), later), Verdict::Log(0));
        assert_eq!(limit.rest(), 0);
        for _ in 0..MOST + 2 {
            limit.line(("a", 1), later);
        }
        assert_eq!((limit.rest(), limit.rest()), (2, 0));
    }
}
