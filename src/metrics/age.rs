//! [`Ages`]: since when the oldest record waits that was read and is not committed.
//!
//! A mark a chunk would be unbounded where a batch is: chunks that come within a quarter of a second share one, and
//! where a partition has too many, every second one is dropped and the distance doubles. An age is then too great
//! by at most that distance, a few hundredths of the time that is covered, and never too small.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::record::Partition;

/// Chunks closer than this share a mark.
const GAP: Duration = Duration::from_millis(250);
/// Marks a partition.
const MOST: usize = 64;

/// When records were read that are not committed, by partition.
#[derive(Default)]
pub(super) struct Ages(HashMap<Partition, Waiting>);

/// Of one partition: positions, and when they were read, in order.
struct Waiting {
    marks: VecDeque<(u64, Instant)>,
    last: u64,
    gap: Duration,
}

impl Ages {
    /// Records were read; `first` and `last` are positions.
    pub fn read(&mut self, partition: &Partition, first: u64, last: u64, now: Instant) {
        let waiting = match self.0.get_mut(partition) {
            Some(waiting) => waiting,
            None => {
                self.0.entry(partition.clone()).or_insert(Waiting { marks: VecDeque::new(), last, gap: GAP })
            }
        };
        waiting.last = last;
        if waiting.marks.back().is_none_or(|(_, at)| now.duration_since(*at) >= waiting.gap) {
            waiting.marks.push_back((first, now));
        }
        if waiting.marks.len() > MOST {
            waiting.gap *= 2;
            let mut index = 0;
            waiting.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Everything before `watermark` is committed.
    pub fn committed(&mut self, partition: &Partition, watermark: u64) {
        let Some(waiting) = self.0.get_mut(partition) else { return };
        if watermark > waiting.last {
            waiting.marks.clear();
            waiting.gap = GAP;
        }
        while waiting.marks.get(1).is_some_and(|(first, _)| *first <= watermark) {
            waiting.marks.pop_front();
        }
    }

    /// Nothing more of this partition is committed here.
    pub fn gone(&mut self, partition: &Partition) {
        self.0.remove(partition);
    }

    /// Since when the oldest record waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.0.values().filter_map(Waiting::since).min()
    }

    /// The same by partition.
    pub fn each(&self) -> impl Iterator<Item = (&Partition, Instant)> {
        self.0.iter().filter_map(|(partition, waiting)| Some((partition, waiting.since()?)))
    }
}

impl Waiting {
    fn since(&self) -> Option<Instant> {
        self.marks.front().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn the_oldest_is_the_first_that_is_not_committed() {
        let (mut ages, of, begin) = (Ages::default(), Partition::named("test", "a"), Instant::now());
        for chunk in 0..5 {
            ages.read(&of, chunk * 10, chunk * 10 + 9, second(begin, chunk));
        }
        assert_eq!(ages.oldest(), Some(begin));
        ages.committed(&of, 10);
        assert_eq!(ages.oldest(), Some(second(begin, 1)));
        ages.committed(&of, 39);
        assert_eq!(ages.oldest(), Some(second(begin, 3)), "record 39 waits");
        ages.committed(&of, 50);
        assert_eq!(ages.oldest(), None);
        ages.read(&of, 50, 59, second(begin, 9));
        assert_eq!(ages.each().next(), Some((&of, second(begin, 9))));
        ages.gone(&of);
        assert_eq!(ages.oldest(), None);
    }

    #[test]
    fn marks_are_bounded_and_an_age_is_never_too_small() {
        let (mut ages, of, begin) = (Ages::default(), Partition::named("test", "a"), Instant::now());
        for chunk in 0..10_000u64 {
            ages.read(&of, chunk, chunk, second(begin, chunk));
            assert!(ages.0[&of].marks.len() <= MOST);
        }
        ages.committed(&of, 4_000);
        let oldest = ages.oldest().expect("it is not all committed");
        assert!(oldest <= second(begin, 4_000) && oldest > second(begin, 3_600), "{:?}", oldest - begin);
    }

    #[test]
    fn chunks_in_quick_succession_share_a_mark() {
        let (mut ages, of, begin) = (Ages::default(), Partition::named("test", "a"), Instant::now());
        for chunk in 0..100 {
            ages.read(&of, chunk, chunk, begin + Duration::from_millis(chunk));
        }
        assert_eq!(ages.0[&of].marks.len(), 1);
    }
}
