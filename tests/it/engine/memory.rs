//! Rules 2, 3, 5 and 13: what only memory tells of, or a pool that is somebody else's too.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use pipeline::cut::{Close, Limits};
use pipeline::metrics::Metrics;
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::record::Section;
use pipeline::sink::{Order, Shape};
use pipeline::source::Cuts;
use pipeline::transform::{Out, Program};

use super::fake::{Lines, Memory, Numbers};
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

fn any(part: usize) -> Shape {
    Shape { writers: 2, order: Order::Any, part: Some(part), ..Shape::default() }
}

fn settings(memory_limit: usize) -> Settings {
    Settings {
        workers: 2,
        memory_limit,
        limits: Limits { block_bytes: 16 << 10, ..Limits::default() },
        batch_wait: Duration::from_secs(3600),
        ..Settings::default()
    }
}

/// Looks at the budget while a record is in the pool.
struct Weigh<'m>(&'m Metrics, Mutex<Vec<usize>>);

impl Program for Weigh<'_> {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let (used, _) = self.0.in_flight().expect("the run has begun");
        self.1.lock().push(used);
        Lines.run(section, out);
    }
}

#[test]
fn rule_2_a_record_larger_than_the_budget_is_charged_to_it() {
    watchdog(LIMIT, || {
        let source = Numbers { size: 6 << 20, ..Numbers::new(1, 1) };
        let sink = Memory::new(any(256 << 10));
        let metrics = std::sync::Arc::new(Metrics::default());
        let program = Weigh(&metrics, Mutex::default());
        let run = Pipeline::new(&source, &program, &sink).settings(settings(4 << 20)).counting(&metrics);
        assert_eq!(run.run().unwrap(), End::Finished);
        sink.check(&source);
        let used = program.1.into_inner();
        assert!(
            used.len() == 1 && used[0] >= 6 << 20,
            "{used:?} bytes are out while the record is in the pool"
        );
    });
}

/// Tasks hold a permit each, and there is a place for each result: so none waits in the pool for the assembler, which
/// waits for writers, and whoever else has work for the pool gets it done.
#[test]
fn rule_3_a_stalled_sink_leaves_the_pool_to_others() {
    watchdog(LIMIT, || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let source = Numbers::new(4, 20_000);
        let (release, stalled) = bounded::<()>(0);
        let sink = Memory::failing(any(4 << 10), move |_| {
            let _ = stalled.recv();
            Ok(())
        });
        let pipeline = Pipeline::new(&source, &Lines, &sink).pool(&pool).settings(settings(4 << 20));
        let metrics = pipeline.metrics();
        let answered = std::thread::scope(|scope| {
            scope.spawn(|| pipeline.run().unwrap());
            // Everybody has come to a halt when nothing more is read.
            let (mut last, mut same) = (0, 0);
            while same < 50 {
                let seen = metrics.seen.load(Ordering::Relaxed);
                same = if seen == last && seen > 0 { same + 1 } else { 0 };
                last = seen;
                std::thread::park_timeout(Duration::from_millis(2));
            }
            let (answer, answered) = bounded(1);
            pool.spawn(move || answer.send(()).unwrap_or_default());
            let answered = answered.recv_timeout(Duration::from_secs(10));
            drop(release);
            answered
        });
        assert!(answered.is_ok(), "a task waits in the pool");
        sink.check(&source);
    });
}

#[test]
fn rule_5_the_tail_of_a_chunk_does_not_pin_the_whole() {
    watchdog(LIMIT, || {
        // Each chunk fills a batch and begins the next with a record: 500 tails are nothing, 500 chunks too much.
        let source = Numbers { turn: 101, size: 300, ..Numbers::new(500, 202) };
        let sink = Memory::new(any(1 << 20));
        let limits = Limits { batch_size: 100, block_bytes: 64 << 10, ..Limits::default() };
        let run = Pipeline::new(&source, &Lines, &sink).settings(Settings { limits, ..settings(12 << 20) });
        let metrics = run.metrics();
        assert_eq!(run.run().unwrap(), End::Finished);
        sink.check(&source);
        assert_eq!(metrics.totals().closes.get(&Close::Pressure), None);
    });
}

#[test]
fn rule_13_fixed_cuts_stay_where_they_are_under_pressure() {
    watchdog(LIMIT, || {
        // More is open than the budget has.
        let source = Numbers { turn: 250, size: 300, cuts: Cuts::Fixed, ..Numbers::new(30, 500) };
        let sink = Memory::new(any(256 << 10));
        let run = Pipeline::new(&source, &Lines, &sink).settings(settings(4 << 20));
        let metrics = run.metrics();
        assert_eq!(run.run().unwrap(), End::Finished);
        sink.check(&source);
        let ends: Vec<u64> = sink.objects.lock().values().map(|object| object.end).collect();
        assert_eq!(ends, [500; 30]);
        let (peak, (_, limit)) =
            (metrics.peak_bytes.load(Ordering::Relaxed) as usize, metrics.in_flight().unwrap());
        assert!(peak > limit, "the test needs pressure: {peak} bytes of {limit}");
    });
}
