//! [`Pace`]: how fast each stage goes, over the last ten seconds. A window, because a slow stage does one thing in some
//! seconds: between two looks it does nothing, or far too much. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// How many moments are kept, and how far apart they are at least.
const MOMENTS: usize = 20;
const GAP: Duration = Duration::from_millis(500);

/// What `N` stages were done with at moments of the last seconds.
#[derive(Debug)]
pub(super) struct Pace<const N: usize> {
    past: VecDeque<(Duration, [u64; N])>,
    rates: [f64; N],
}

impl<const N: usize> Default for Pace<N> {
    fn default() -> Self {
        Pace { past: VecDeque::new(), rates: [0.0; N] }
    }
}

impl<const N: usize> Pace<N> {
    /// Takes note of what they are done with after so much time.
    pub fn tick(&mut self, elapsed: Duration, done: [u64; N]) {
        if let Some((since, before)) = self.past.front() {
            let span = elapsed.saturating_sub(*since).as_secs_f64();
            let rate = |index: usize| done[index].saturating_sub(before[index]) as f64 / span;
            self.rates = if span > 0.0 { std::array::from_fn(rate) } else { self.rates };
        }
        if self.past.back().is_none_or(|(last, _)| elapsed >= *last + GAP) {
            if self.past.len() == MOMENTS {
                self.past.pop_front();
            }
            self.past.push_back((elapsed, done));
        }
    }

    /// Things a second, by stage.
    pub fn rates(&self) -> [f64; N] {
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_ten_seconds() {
        let mut pace = Pace::<2>::default();
        for tick in 0..100u64 {
            pace.tick(Duration::from_millis(tick * 200), [tick / 10, tick * 40]);
        }
        let [slow, fast] = pace.rates();
        assert!((0.4..=0.6).contains(&slow), "one in two seconds: {slow}");
        assert!((199.0..=201.0).contains(&fast), "{fast}");
        assert!(pace.past.len() <= MOMENTS);
        for tick in 100..200u64 {
            pace.tick(Duration::from_millis(tick * 200), [10, 4_000]);
        }
        assert_eq!(pace.rates(), [0.0, 0.0]);
    }
}
