//! What an operator sees of a run: [`Board`] watches it, and renders what it saw as Prometheus text ([`Board::text`]),
//! as JSON ([`Board::json`]) and on one line ([`Board::line`]). [`server::Server`] serves them beside a live page.
//!
//! Everything here is a number, a name that the configuration gave, or a word of the program: no record's content, and
//! no message about one, since those quote it. Nothing here is on the path of records: the board is fed five times a
//! second, and reads the counters when it is asked.
//!
//! The text is our own writer: `prometheus-client` writes OpenMetrics, which `promtool check metrics` refuses, and its
//! families hold counters of their own, while ours are snapshots of what the engine counts anyway.

mod json;
mod pace;
mod request;
pub mod server;
mod text;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::config::{Config, SourceKind};
use crate::job::Observer;
use crate::metrics::Metrics;
use crate::progress::{self, Meter, Rates, Snapshot};
use crate::stop::{Phase, Stop};
use crate::summary::Outcome;
use pace::Pace;
use text::{STAGES, stages};

/// The distance of two points of the history, and how many there are: five minutes.
const POINT: Duration = Duration::from_secs(1);
const POINTS: usize = 300;
/// The limiting stage is the one that was it most often of so many looks: two seconds.
const LOOKS: usize = 10;

/// Watches one run.
pub struct Board {
    source: String,
    output: String,
    stop: Stop,
    made_at: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    metrics: Option<Arc<Metrics>>,
    now: Snapshot,
    meter: Meter,
    pace: Pace<STAGES>,
    rates: Rates,
    looks: VecDeque<&'static str>,
    history: VecDeque<Point>,
    outcome: Option<Outcome>,
}

/// Rates at one moment of the run.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    elapsed: Duration,
    records: f64,
    bytes: f64,
}

/// What a run is doing, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It sets itself up.
    Starting,
    /// Records flow.
    Running,
    /// It finishes what is in flight.
    Draining,
    /// It ends at once.
    Aborting,
    /// It is over.
    Over(Outcome),
}

impl Doing {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Doing::Starting => "starting",
            Doing::Running => "running",
            Doing::Draining => "draining",
            Doing::Aborting => "aborting",
            Doing::Over(outcome) => outcome_name(outcome),
        }
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Drained => "drained",
        Outcome::Ended => "ended",
        Outcome::Failed => "failed",
        Outcome::NothingToDo => "nothing-to-do",
    }
}

impl Board {
    /// A board for a run of this configuration, which `stop` stops.
    pub fn new(config: &Config, stop: &Stop) -> Self {
        let source = match config.input.source {
            SourceKind::File => "file",
            SourceKind::Kafka => "kafka",
            SourceKind::Http => "http",
        };
        let output = config.output.to.to_string();
        let made_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64());
        let state = Mutex::default();
        Board { source: source.into(), output, stop: stop.clone(), made_at, state }
    }

    /// The run is over.
    pub fn end(&self, outcome: Outcome) {
        self.state.lock().outcome = Some(outcome);
    }

    /// What the run is doing.
    pub fn doing(&self) -> Doing {
        self.state.lock().doing(&self.stop)
    }

    /// How far it is, on one line.
    pub fn line(&self) -> String {
        let state = self.state.lock();
        let mut now = state.now.clone();
        if let Some(metrics) = &state.metrics {
            (now.records_read, now.records_stored, now.records_rejected, now.batches) = metrics.counts();
            now.elapsed = metrics.started().elapsed();
        }
        format!("{}: {}", state.doing(&self.stop).name(), progress::line(&now, state.rates))
    }
}

impl Observer for Board {
    fn begin(&self, metrics: &Arc<Metrics>) {
        self.state.lock().metrics = Some(metrics.clone());
    }

    fn tick(&self, snapshot: &Snapshot) {
        self.state.lock().tick(snapshot);
    }
}

impl State {
    fn tick(&mut self, snapshot: &Snapshot) {
        self.rates = self.meter.tick(snapshot);
        self.now = snapshot.clone();
        if let Some(metrics) = &self.metrics {
            self.pace.tick(snapshot.elapsed, stages(metrics).map(|(_, done)| done));
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(snapshot.limiting);
        if self.history.back().is_none_or(|last| snapshot.elapsed >= last.elapsed + POINT) {
            if self.history.len() == POINTS {
                self.history.pop_front();
            }
            let Rates { records, bytes, .. } = self.rates;
            self.history.push_back(Point { elapsed: snapshot.elapsed, records, bytes });
        }
    }

    fn doing(&self, stop: &Stop) -> Doing {
        let runs = self.metrics.as_ref().is_some_and(|metrics| metrics.is_running());
        match (self.outcome, stop.phase()) {
            (Some(outcome), _) => Doing::Over(outcome),
            (None, Phase::Abort) => Doing::Aborting,
            (None, Phase::Drain) => Doing::Draining,
            (None, Phase::Running) if runs => Doing::Running,
            (None, Phase::Running) => Doing::Starting,
        }
    }

    /// The stage that most looks found to be limiting; empty before the first.
    fn limiting(&self) -> &'static str {
        let often = |stage: &&str| self.looks.iter().filter(|look| **look == *stage).count();
        self.looks.iter().copied().max_by_key(|stage| often(stage)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiting_stage_is_the_most_frequent_one_and_history_is_bounded() {
        let mut state = State::default();
        for second in 0..1_000 {
            let limiting = if second % 3 == 0 { "read" } else { "write" };
            state.tick(&Snapshot {
                elapsed: Duration::from_secs(second),
                limiting,
                records_read: second * 10,
                ..Snapshot::default()
            });
        }
        assert_eq!((state.limiting(), state.history.len()), ("write", POINTS));
        assert_eq!(state.history.back().map(|point| point.records), Some(10.0));
    }

    #[test]
    fn what_a_run_does_follows_its_stop_and_its_end() {
        let stop = Stop::new();
        let board = Board::new(&Config::default(), &stop);
        assert_eq!(board.doing(), Doing::Starting);
        stop.drain();
        assert_eq!(board.doing(), Doing::Draining);
        board.end(Outcome::NothingToDo);
        assert_eq!(board.doing().name(), "nothing-to-do");
    }
}
