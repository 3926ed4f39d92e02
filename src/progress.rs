//! How far a run is: [`Snapshot`] says what is done, [`Meter`] makes rates, an ETA and one line of it. Pure: no
//! IO, no clock; the time is part of the snapshot. Drawing is the program's.

use std::collections::VecDeque;
use std::time::Duration;

use crate::summary::{bytes, count, seconds};

/// How far a run is at one moment. All numbers only ever grow, `elapsed` with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Time since the start.
    pub elapsed: Duration,
    /// Bytes of the inputs that were read.
    pub bytes_done: u64,
    /// Bytes of all inputs; `None` while one of them (stdin) has no known length.
    pub bytes_known: Option<u64>,
    /// Records read.
    pub records_read: u64,
    /// Records stored.
    pub records_stored: u64,
    /// Records rejected.
    pub records_rejected: u64,
    /// Batches published.
    pub batches: u64,
    /// The stage that the others wait for: `read`, `process` or `write`; empty if unknown.
    pub limiting: &'static str,
    /// Positions committed, and all there are to commit, where a run without a known size has a known end: Kafka
    /// with `--until`. Progress is then measured by these.
    pub positions: Option<(u64, u64)>,
    /// Positions that can be read and are not committed, where known.
    pub lag: Option<u64>,
}

impl Snapshot {
    /// What is done and how much there is, in bytes or positions: what a bar shows. `None` while nobody knows.
    pub fn share(&self) -> Option<(u64, u64)> {
        self.positions.or(self.bytes_known.map(|known| (self.bytes_done, known)))
    }
}

/// Rates over the last seconds, from one snapshot to the next.
#[derive(Debug, Default)]
pub struct Meter {
    /// Elapsed time, bytes, records and share done at up to [`WINDOW`] moments, the oldest first.
    past: VecDeque<(Duration, u64, u64, u64)>,
}

/// How many moments rates look back, at least [`GAP`] apart: ten seconds.
const WINDOW: usize = 20;
const GAP: Duration = Duration::from_millis(500);

/// How fast a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Bytes a second.
    pub bytes: f64,
    /// Records a second.
    pub records: f64,
    /// Time until everything that is known is read.
    pub eta: Option<Duration>,
}

impl Meter {
    /// Takes note of a snapshot; says how fast it goes now.
    pub fn tick(&mut self, now: &Snapshot) -> Rates {
        let first = *self.past.front().unwrap_or(&(Duration::ZERO, 0, 0, 0));
        let span = now.elapsed.saturating_sub(first.0).as_secs_f64();
        let rate = |from: u64, to: u64| if span > 0.0 { to.saturating_sub(from) as f64 / span } else { 0.0 };
        let done = now.share().map_or(0, |(done, _)| done);
        let rates = Rates {
            bytes: rate(first.1, now.bytes_done),
            records: rate(first.2, now.records_read),
            eta: None,
        };
        if self.past.back().is_none_or(|last| now.elapsed >= last.0 + GAP) {
            if self.past.len() == WINDOW {
                self.past.pop_front();
            }
            self.past.push_back((now.elapsed, now.bytes_done, now.records_read, done));
        }
        Rates { eta: eta(now, rate(first.3, done)), ..rates }
    }
}

/// Time left, unless nothing moves or nothing is known.
fn eta(now: &Snapshot, rate: f64) -> Option<Duration> {
    let (done, all) = now.share()?;
    let left = all.saturating_sub(done);
    (rate >= 1.0).then(|| Duration::from_secs_f64((left as f64 / rate).min(1e9)))
}

/// Everything on one line: for a log, once a minute.
pub fn line(now: &Snapshot, rates: Rates) -> String {
    let done = match now.share() {
        Some((done, all)) if all > 0 => {
            let share = (done as f64 / all as f64 * 100.0).min(100.0);
            let all = if now.positions.is_some() { format!("{} records", count(all)) } else { bytes(all) };
            format!("{share:.0}% of {all}")
        }
        _ => bytes(now.bytes_done),
    };
    let lag = now.lag.map_or_else(String::new, |lag| format!(", lag {}", count(lag)));
    let limiting =
        if now.limiting.is_empty() { String::new() } else { format!(", waits for {}", now.limiting) };
    format!(
        "{done} in {}, {} read, {} stored, {} rejected, {} batches, {}{}{lag}{limiting}",
        seconds(now.elapsed.as_secs_f64()),
        count(now.records_read),
        count(now.records_stored),
        count(now.records_rejected),
        count(now.batches),
        speed(rates),
        left(rates),
    )
}

/// What stands beside the bar: short, it shares the line.
pub fn beside_bar(now: &Snapshot, rates: Rates) -> String {
    let known = now.bytes_known.map_or_else(String::new, |known| format!("/{}", bytes(known)));
    let rejected = match now.records_rejected {
        0 => String::new(),
        some => format!(", {} rejected", count(some)),
    };
    let done = match now.positions {
        Some((done, all)) => format!("{}/{}", count(done), count(all)),
        None => format!("{}{known}", bytes(now.bytes_done)),
    };
    let lag = match (now.positions, now.lag) {
        (None, Some(lag)) => format!(", lag {}", count(lag)),
        _ => String::new(),
    };
    format!("{done} {}{}{lag}{rejected}", speed(rates), left(rates))
}

fn speed(rates: Rates) -> String {
    format!("{}/s, {} records/s", bytes(rates.bytes as u64), count(rates.records as u64))
}

fn left(rates: Rates) -> String {
    match rates.eta {
        Some(eta) if eta < Duration::from_secs(1) => String::new(),
        Some(eta) if eta < Duration::from_secs(60) => format!(", {} s left", eta.as_secs()),
        Some(eta) => format!(", {} left", seconds(eta.as_secs_f64())),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, bytes_done: u64) -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(second),
            bytes_done,
            bytes_known: Some(100_000_000),
            records_read: bytes_done / 200,
            ..Snapshot::default()
        }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.tick(&at(0, 0)), Rates::default());
        assert_eq!(meter.tick(&at(1, 10_000_000)).bytes, 10_000_000.0);
        for second in 2..60 {
            meter.tick(&at(second, 10_000_000));
        }
        let rates = meter.tick(&at(60, 10_000_000));
        assert_eq!((rates.bytes, rates.eta), (0.0, None));
    }

    #[test]
    fn the_eta_is_what_is_left_at_this_rate() {
        let mut meter = Meter::default();
        meter.tick(&at(0, 0));
        assert_eq!(meter.tick(&at(2, 20_000_000)).eta, Some(Duration::from_secs(8)));
        let unknown = Snapshot { bytes_known: None, ..at(3, 30_000_000) };
        assert_eq!(meter.tick(&unknown).eta, None);
    }

    #[test]
    fn ticks_in_quick_succession_do_not_shorten_the_window() {
        let mut meter = Meter::default();
        for tick in 0..1000u64 {
            let now = Snapshot { elapsed: Duration::from_millis(tick), ..at(0, tick) };
            meter.tick(&now);
        }
        assert_eq!(meter.past.len(), 2);
    }

    #[test]
    fn the_line_says_everything() {
        let now = Snapshot {
            records_stored: 99_000,
            records_rejected: 2,
            batches: 7,
            limiting: "write",
            ..at(60, 20_000_000)
        };
        let rates = Rates { bytes: 2e6, records: 1e4, eta: Some(Duration::from_secs(40)) };
        assert_eq!(
            line(&now, rates),
            "20% of 100 MB in 1m 00s, 100,000 read, 99,000 stored, 2 rejected, 7 batches, \
             2.0 MB/s, 10,000 records/s, 40 s left, waits for write"
        );
        assert_eq!(
            beside_bar(&now, rates),
            "20.0 MB/100 MB 2.0 MB/s, 10,000 records/s, 40 s left, 2 rejected"
        );
    }

    #[test]
    fn a_run_to_known_positions_is_measured_by_them() {
        let now =
            |second, done| Snapshot { bytes_known: None, positions: Some((done, 1_000)), ..at(second, 0) };
        let mut meter = Meter::default();
        meter.tick(&now(0, 0));
        let half = Snapshot { lag: Some(500), ..now(5, 500) };
        let rates = meter.tick(&half);
        assert_eq!(rates.eta, Some(Duration::from_secs(5)));
        assert!(line(&half, rates).starts_with("50% of 1,000 records in 5.0 s"), "{}", line(&half, rates));
        assert!(line(&half, rates).contains("5 s left, lag 500"), "{}", line(&half, rates));
        assert_eq!(beside_bar(&half, rates), "500/1,000 0 B/s, 0 records/s, 5 s left");
        let endless = Snapshot { positions: None, ..half };
        assert!(beside_bar(&endless, rates).ends_with(", lag 500"), "{}", beside_bar(&endless, rates));
    }

    #[test]
    fn nothing_known_and_nothing_read_is_a_line_too() {
        let text = line(&Snapshot::default(), Rates::default());
        assert!(text.starts_with("0 B in 0.00 s, 0 read"), "{text}");
        let grown = Snapshot { bytes_known: Some(10), bytes_done: 20, ..Snapshot::default() };
        assert!(line(&grown, Rates::default()).starts_with("100% of 10 B"));
    }
}
