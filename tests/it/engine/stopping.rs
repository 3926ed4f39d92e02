//! Rule 10: drain and abort, with sinks that fail or stall.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use pipeline::Error;
use pipeline::cut::{Close, Limits};
use pipeline::error::Retry;
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::retry::Policy;
use pipeline::sink::{Order, Shape};
use pipeline::source::Cuts;
use pipeline::stop::Stop;

use super::fake::{Book, Lines, Memory, Numbers};
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

fn any() -> Shape {
    Shape { writers: 1, order: Order::Any, part: Some(4 << 10), ..Shape::default() }
}

fn settings() -> Settings {
    Settings {
        workers: 1,
        limits: Limits { block_bytes: 4 << 10, ..Limits::default() },
        batch_wait: Duration::from_secs(3600),
        ..Settings::default()
    }
}

/// Drains once the open batch has begun to be stored, and returns what is stored.
fn drained(cuts: Cuts) -> (End, usize, u64, Memory) {
    watchdog(LIMIT, move || {
        let source = Numbers { endless: true, cuts, ..Numbers::new(1, 1000) };
        let (begun, seen) = bounded(1);
        let sink = Memory::failing(any(), move |_| {
            let _ = begun.try_send(());
            Ok(())
        });
        let (stop, book) = (Stop::new(), Arc::new(Book::default()));
        let end = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                Pipeline::new(&source, &Lines, &sink)
                    .settings(settings())
                    .stop(&stop)
                    .marks(book.clone())
                    .run()
            });
            seen.recv().unwrap();
            stop.drain();
            run.join().unwrap().unwrap()
        });
        (end, sink.ids().len(), book.watermark("p0"), sink)
    })
}

#[test]
fn a_drain_publishes_what_is_open_of_a_stream() {
    let (end, stored, watermark, sink) = drained(Cuts::Early);
    assert_eq!(end, End::Drained);
    assert!(stored > 0 && stored as u64 == watermark, "{stored} stored, watermark {watermark}");
    assert_eq!(sink.finished.load(Ordering::SeqCst), 0);
}

#[test]
fn a_drain_gives_up_what_is_open_of_a_file() {
    let (end, stored, watermark, sink) = drained(Cuts::Fixed);
    assert_eq!((end, stored, watermark), (End::Drained, 0, 0));
    assert_eq!(sink.aborts.load(Ordering::SeqCst), 1, "its upload must be aborted");
}

#[test]
fn an_abort_ends_retries_within_a_second() {
    let waited = watchdog(LIMIT, || {
        let source = Numbers::new(2, 1000);
        let (tried, seen) = bounded(1);
        let sink = Memory::failing(any(), move |_| {
            let _ = tried.try_send(());
            Err(Error::other("scripted", Retry::Transient, "busy"))
        });
        let retry =
            Policy { max_retries: 8, delay: Duration::from_secs(3600), max_delay: Duration::from_secs(3600) };
        let (stop, settings) = (Stop::new(), Settings { retry, ..settings() });
        std::thread::scope(|scope| {
            let run =
                scope.spawn(|| Pipeline::new(&source, &Lines, &sink).settings(settings).stop(&stop).run());
            seen.recv().unwrap();
            let begun = Instant::now();
            stop.drain();
            stop.abort();
            assert!(matches!(run.join().unwrap(), Err(Error::Stopped)));
            begun.elapsed()
        })
    });
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[test]
fn retries_end_and_the_last_error_is_the_cause() {
    let error = watchdog(LIMIT, || {
        let (source, settings) = (Numbers::new(1, 10), settings());
        let sink = Memory::failing(any(), |_| Err(Error::other("scripted", Retry::Transient, "busy")));
        let retry = Policy { max_retries: 3, delay: Duration::from_millis(1), ..Policy::default() };
        Pipeline::new(&source, &Lines, &sink).settings(Settings { retry, ..settings }).run().unwrap_err()
    });
    assert_eq!(error.to_string(), "scripted: busy");
}

#[test]
fn a_panicking_sink_ends_the_run() {
    let error = watchdog(LIMIT, || {
        let source = Numbers::new(3, 5000);
        let sink = Memory::failing(any(), |id| panic!("no room for {}", id.partition));
        Pipeline::new(&source, &Lines, &sink).settings(settings()).run().unwrap_err()
    });
    assert!(error.to_string().starts_with("thread write-0 panicked: no room for p"), "{error}");
}

#[test]
fn a_stalled_sink_keeps_readers_waiting_in_bounded_memory() {
    watchdog(LIMIT, || {
        let source = Numbers::new(4, 100_000);
        let (release, stalled) = bounded::<()>(0);
        let sink = Memory::failing(any(), move |_| {
            let _ = stalled.recv();
            Ok(())
        });
        let settings = Settings { memory_limit: 4 << 20, workers: 2, ..settings() };
        let pipeline = Pipeline::new(&source, &Lines, &sink).settings(settings);
        let metrics = pipeline.metrics();
        let watched = metrics.clone();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| pipeline.run());
            // Readers have come to a halt when they have waited a while: each wait is counted when it ends, so
            // watch what they have read instead.
            let mut last = u64::MAX;
            let mut same = 0;
            while same < 50 {
                let seen = watched.seen.load(Ordering::Relaxed);
                same = if seen == last && seen > 0 { same + 1 } else { 0 };
                last = seen;
                std::thread::park_timeout(Duration::from_millis(2));
            }
            assert!(last < 400_000, "everything was read although nothing was stored");
            drop(release);
            assert_eq!(run.join().unwrap().unwrap(), End::Finished);
        });
        let peak = metrics.peak_bytes.load(Ordering::Relaxed);
        assert!(peak <= 5 << 20, "{peak} bytes in flight");
        sink.check(&source);
    });
}

#[test]
fn a_stream_closes_its_batch_when_the_wait_is_over() {
    watchdog(LIMIT, || {
        let source = Numbers { endless: true, ..Numbers::new(1, 50) };
        let sink = Memory::new(any());
        let (stop, settings) =
            (Stop::new(), Settings { batch_wait: Duration::from_millis(20), ..settings() });
        let pipeline = Pipeline::new(&source, &Lines, &sink).settings(settings).stop(&stop);
        let metrics = pipeline.metrics();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| pipeline.run());
            while metrics.counts().0 < 50 {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            stop.drain();
            run.join().unwrap().unwrap();
        });
        assert_eq!(metrics.totals().closes.get(&Close::Wait), Some(&1));
        sink.check(&source);
    });
}

#[test]
fn a_run_that_came_to_its_end_has_finished_its_sink() {
    // The assembler and the commit thread end at the same moment; more threads than processors make every order of
    // the two likely.
    let finish = || {
        for _ in 0..600 {
            let (sink, source) = (Memory::new(any()), Numbers::new(1, 3));
            assert_eq!(
                Pipeline::new(&source, &Lines, &sink).settings(settings()).run().unwrap(),
                End::Finished
            );
            assert_eq!(sink.finished.load(Ordering::SeqCst), 1);
        }
    };
    watchdog(LIMIT, move || {
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(finish))));
    });
}
