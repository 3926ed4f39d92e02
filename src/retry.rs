//! Backoff as an iterator: exponential with full jitter between half and all of a delay, bounded by a number of
//! tries. Pure: the randomness is a seed, the waiting is the caller's.

use std::time::Duration;

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many tries follow the first one.
    pub max_retries: u32,
    /// The first delay; it doubles with every try.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { max_retries: 8, delay: Duration::from_millis(500), max_delay: Duration::from_secs(30) }
    }
}

impl Policy {
    /// The delays before each further try, in order.
    pub fn delays(self, seed: u64) -> Delays {
        Delays { policy: self, tries: 0, random: seed }
    }
}

/// Iterator over delays; ends when nothing is to be tried any more.
#[derive(Clone, Debug)]
pub struct Delays {
    policy: Policy,
    tries: u32,
    random: u64,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.tries == self.policy.max_retries {
            return None;
        }
        let full = self.policy.delay.saturating_mul(1 << self.tries.min(20)).min(self.policy.max_delay);
        self.tries += 1;
        // SplitMix64 (Steele, Lea, Flood 2014): enough to keep writers from trying in step.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        Some(full.mul_f64(0.5 + share / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_end() {
        let policy = Policy {
            max_retries: 5,
            delay: Duration::from_millis(100),
            max_delay: Duration::from_millis(350),
        };
        let delays: Vec<_> = policy.delays(7).collect();
        assert_eq!(delays.len(), 5);
        for (delay, full) in delays.iter().zip([100, 200, 350, 350, 350]) {
            let full = Duration::from_millis(full);
            assert!(*delay >= full / 2 && *delay <= full, "{delay:?} of {full:?}");
        }
    }

    #[test]
    fn no_retries_is_no_delay() {
        assert_eq!(Policy { max_retries: 0, ..Policy::default() }.delays(1).count(), 0);
    }
}
