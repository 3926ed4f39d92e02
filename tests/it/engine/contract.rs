//! Sources and sinks of somebody's own that are not what the traits say: the run says so and loses nothing silently.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline::codec::Codec;
use pipeline::sink::dir::{DirOptions, DirSink};
use pipeline::sink::{Order, Shape};
use pipeline::{
    Batch, Chunk, End, Error, Partition, Pipeline, Read, Reader, Receipt, Recipe, RejectKind, Rejection,
};
use pipeline::{Result, Settings, Sink, Source, Start};

use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

/// Opens what a closure gives.
struct Opened<F>(F);

impl<F: Fn() -> Vec<Box<dyn Reader>> + Send + Sync> Source for Opened<F> {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        Ok((self.0)())
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Sink for Count {
    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let stored: u64 = batches.iter().map(|batch| batch.counts.stored).sum();
        self.0.fetch_add(stored as usize, Ordering::Relaxed);
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        Ok(())
    }
}

/// A reader that gives these positions of a partition, each in a chunk of its own.
fn positions(partition: &Partition, positions: &'static [u64]) -> Box<dyn Reader> {
    let (partition, mut left) = (partition.clone(), positions.iter());
    Box::new(move |chunk: &mut Chunk| {
        let Some(position) = left.next() else { return Ok(Read::Done) };
        chunk.start(&partition, *position);
        let _ = chunk.push(*position, b"1");
        Ok(Read::Chunk)
    })
}

fn run(open: impl Fn() -> Vec<Box<dyn Reader>> + Send + Sync + 'static) -> (Result<End>, usize) {
    let (source, sink, recipe) = (Opened(open), Count::default(), Recipe::default());
    let settings = Settings { workers: 2, ..Settings::default() };
    let end = Pipeline::new(&source, &recipe, &sink).settings(settings).run();
    (end, sink.0.into_inner())
}

#[track_caller]
fn fails(end: Result<End>, says: &str) {
    let error = end.unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
}

fn numbers() -> Partition {
    Partition::named("test", "numbers")
}

#[test]
fn positions_only_grow_from_chunk_to_chunk() {
    watchdog(LIMIT, || {
        let (end, stored) = run(|| vec![positions(&numbers(), &[0, 1, 5])]);
        assert_eq!((end.unwrap(), stored), (End::Finished, 3));
        for repeated in [&[0, 1, 1, 2][..], &[3, 2]] {
            let (end, _) = run(move || vec![positions(&numbers(), repeated)]);
            fails(end, "its positions only grow");
        }
    });
}

#[test]
fn positions_only_grow_within_a_chunk() {
    watchdog(LIMIT, || {
        let (end, stored) = run(|| {
            vec![Box::new(|chunk: &mut Chunk| {
                chunk.start(&numbers(), 0);
                for position in [0, 1, 1] {
                    let _ = chunk.push(position, b"1");
                }
                Ok(Read::Chunk)
            })]
        });
        fails(end, "pushed position 1 behind 2");
        assert_eq!(stored, 0);
    });
}

#[test]
fn two_readers_do_not_read_one_partition() {
    watchdog(LIMIT, || {
        // The second begins where the first one has been.
        let (end, _) = run(|| vec![positions(&numbers(), &[0, 1, 2]), positions(&numbers(), &[0, 1, 2])]);
        fails(end, "one reader reads a partition");
    });
}

#[test]
fn records_in_the_chunk_are_told_as_a_chunk() {
    watchdog(LIMIT, || {
        for read in [|| Read::Done, || Read::Idle] {
            let (end, _) = run(move || {
                vec![Box::new(move |chunk: &mut Chunk| {
                    chunk.start(&numbers(), 0);
                    let _ = chunk.push(0, b"1");
                    Ok(read())
                })]
            });
            fails(end, "left records in the chunk");
        }
    });
}

#[test]
fn as_many_readers_are_opened_as_may_be_open() {
    watchdog(LIMIT, || {
        let (end, _) = run(|| (0..3).map(|_| positions(&numbers(), &[])).collect());
        fails(end, "opened 3 readers, and 2 may be open");
    });
}

#[test]
fn a_source_that_panics_when_it_is_opened_is_told() {
    watchdog(LIMIT, || {
        let (end, _) = run(|| panic!("no source"));
        assert!(matches!(end, Err(Error::Panicked { message, .. }) if message == "no source"));
    });
}

#[test]
fn nothing_to_reject_is_nothing() {
    watchdog(LIMIT, || {
        let (end, _) = run(|| {
            vec![Box::new(|chunk: &mut Chunk| {
                chunk.start(&numbers(), 0);
                chunk.reject_last(Rejection::new(RejectKind::Transform, "there is none"));
                Ok(Read::Done)
            })]
        });
        assert_eq!(end.unwrap(), End::Finished);
    });
}

#[test]
fn names_say_how_files_are_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirSink::prepare(DirOptions::new(dir.path().join("out"), Codec::Gzip(1))).unwrap();
    let source = Opened(|| vec![positions(&numbers(), &[0])]);
    let recipe = Recipe::default();
    fails(Pipeline::new(&source, &recipe, &sink).run(), "give both the same");
    let settings = Settings { codec: Codec::Gzip(1), ..Settings::default() };
    assert_eq!(Pipeline::new(&source, &recipe, &sink).settings(settings).run().unwrap(), End::Finished);
}

/// An interval without an end is no panic.
#[test]
fn marks_may_be_stored_at_the_end_only() {
    watchdog(LIMIT, || {
        let (source, sink, recipe) =
            (Opened(|| vec![positions(&numbers(), &[0, 1])]), Count::default(), Recipe::default());
        let settings = Settings { commit_interval: Duration::MAX, ..Settings::default() };
        assert_eq!(Pipeline::new(&source, &recipe, &sink).settings(settings).run().unwrap(), End::Finished);
    });
}

/// What `Batch::failed` holds is the sink's to store, unless it says otherwise.
#[test]
fn a_sink_without_a_place_for_dead_letters_refuses_them() {
    struct Refusing(Mutex<u64>);
    impl Sink for Refusing {
        fn shape(&self) -> Shape {
            Shape {
                dead_letters: pipeline::sink::DeadLetters::Refuse,
                order: Order::Partition,
                ..Shape::default()
            }
        }
        fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
            *self.0.lock() += batches.iter().map(|batch| batch.counts.rejected).sum::<u64>();
            receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
            Ok(())
        }
    }
    watchdog(LIMIT, || {
        let source = Opened(|| {
            let mut once = Some(());
            vec![Box::new(move |chunk: &mut Chunk| {
                let Some(()) = once.take() else { return Ok(Read::Done) };
                chunk.start(&numbers(), 0);
                let _ = chunk.push(0, b"half");
                Ok(Read::Chunk)
            }) as Box<dyn Reader>]
        });
        let (sink, recipe) = (Refusing(Mutex::new(0)), Recipe::default());
        fails(Pipeline::new(&source, &recipe, &sink).run(), "there is no place for it");
        assert_eq!(sink.0.into_inner(), 0);
    });
}
