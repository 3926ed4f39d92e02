//! [`Waits`]: for how long threads have waited for something, those that still wait included: whoever looks five times
//! a second at a stage that waits for ten seconds must see it wait each time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long threads have waited. Locked twice a wait, a few times a chunk.
#[derive(Debug)]
pub struct Waits {
    made: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of those that are over.
    past: Duration,
    /// How many wait now, and the sum of when each began.
    waiting: u32,
    since: Duration,
}

/// A wait that goes on until this is dropped.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    began: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Waits { made: Instant::now(), state: Mutex::default() }
    }
}

impl Waits {
    /// All waits until now, of all threads.
    pub fn total(&self) -> Duration {
        self.total_at(self.made.elapsed())
    }

    fn total_at(&self, now: Duration) -> Duration {
        let state = self.state.lock();
        state.past + (now * state.waiting).saturating_sub(state.since)
    }

    /// A thread begins to wait.
    pub(crate) fn begin(&self) -> Waiting<'_> {
        let began = self.made.elapsed();
        let mut state = self.state.lock();
        state.waiting += 1;
        state.since += began;
        Waiting { waits: self, began }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = self.waits.made.elapsed();
        let mut state = self.waits.state.lock();
        state.waiting -= 1;
        state.since -= self.began;
        state.past += now.saturating_sub(self.began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_goes_on_counts() {
        let waits = Waits::default();
        let (one, two) = (waits.begin(), waits.begin());
        let hour = Duration::from_secs(3600);
        assert!(waits.total_at(hour) > hour && waits.total_at(hour) <= 2 * hour);
        drop(one);
        assert!(waits.total_at(hour) <= hour + waits.made.elapsed());
        drop(two);
        let total = waits.total();
        assert_eq!((waits.total_at(hour), waits.total()), (total, total), "it is over");
    }
}
