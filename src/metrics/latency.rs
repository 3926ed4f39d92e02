//! [`Latency`]: how long something took, as a histogram with fixed bounds. Lock-free; two relaxed additions a call,
//! and it is called a few times a chunk, never for a record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets in microseconds; what takes longer than the last one is in a bucket of its own.
const BOUNDS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    15_000_000, 60_000_000,
];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound in seconds, and how many took at most that long. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds in all.
    pub sum: f64,
}

impl Latency {
    /// It took this long.
    pub fn took(&self, time: Duration) {
        let micros = time.as_micros() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// It took from `begun` until now.
    pub fn since(&self, begun: Instant) {
        self.took(begun.elapsed());
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// How long it took on average; `None` where nothing was measured.
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.nanos.load(Ordering::Relaxed).checked_div(self.count())?;
        Some(Duration::from_nanos(nanos))
    }

    /// What was measured so far, buckets cumulated.
    pub fn histogram(&self) -> Histogram {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let mut below = 0;
        let cumulated = |(bound, count): (f64, &AtomicU64)| {
            below += count.load(Ordering::Relaxed);
            (bound, below)
        };
        let buckets = bounds.zip(&self.buckets).map(cumulated).collect();
        Histogram { buckets, sum: self.nanos.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

impl Histogram {
    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }

    /// Mean in seconds; `None` where nothing was measured.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum / self.count() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulated_and_bounds_belong_to_their_bucket() {
        let latency = Latency::default();
        assert_eq!(latency.mean(), None);
        for micros in [250, 251, 1_000, 90_000_000] {
            latency.took(Duration::from_micros(micros));
        }
        let histogram = latency.histogram();
        assert_eq!(histogram.buckets[..3], [(0.00025, 1), (0.0005, 2), (0.001, 3)]);
        assert_eq!(histogram.buckets[14], (60.0, 3));
        assert_eq!(histogram.buckets[15], (f64::INFINITY, 4));
        assert_eq!((histogram.count(), histogram.sum), (4, 90.001501));
        assert_eq!(Latency::default().histogram().mean(), None);
    }
}
