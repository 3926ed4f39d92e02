//! How fast is too slow, and how often is too often: [`Pace`] of a body, and [`Rate`] of requests. The time is a
//! parameter of the first, and the stop ends the waiting of the second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Result;
use crate::stop::Stop;

/// Finds out whether hardly anything of a body comes. Only the time that is spent waiting for it counts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    window: Duration,
    least: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// At least `least` bytes must come while `window` is waited.
    pub fn new(window: Duration, least: u64) -> Self {
        Pace { window, least, waited: Duration::ZERO, bytes: 0 }
    }

    /// So many bytes came in so much time. `false`: that is too slow.
    pub fn keeps(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.least;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

impl Default for Pace {
    /// 1 KiB a second for a minute.
    fn default() -> Self {
        Pace::new(Duration::from_secs(60), 60 << 10)
    }
}

/// Keeps requests apart, whoever sends them.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Rate {
    /// So many requests a second.
    pub fn new(per_second: f64) -> Self {
        Rate { interval: Duration::from_secs_f64(1.0 / per_second), next: Mutex::new(None) }
    }

    /// Takes the next turn. Blocks until it has come.
    ///
    /// # Errors
    /// If the run is drained meanwhile.
    pub fn wait(&self, stop: &Stop) -> Result<()> {
        let now = Instant::now();
        let at = {
            let mut next = self.next.lock();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.interval);
            at
        };
        stop.sleep_running(at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_keep_its_pace() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert!((0..59).all(|_| pace.keeps(1, second)));
        assert!(!pace.keeps(1, second), "60 bytes in a minute");
        assert!((0..600).all(|_| pace.keeps(1024, second)));
    }

    #[test]
    fn turns_are_an_interval_apart() {
        let (rate, stop) = (Rate::new(20.0), Stop::new());
        let begun = Instant::now();
        for _ in 0..4 {
            rate.wait(&stop).unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
        let (rate, other) = (Rate::new(0.001), stop.clone());
        rate.wait(&stop).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| rate.wait(&stop));
            other.drain();
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
