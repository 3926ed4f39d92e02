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

/// What a reader did with its chunk, and what the run says about it.
type Odd = (fn(&mut Chunk) -> Result<Read>, &'static str);

#[test]
fn a_reader_that_would_lose_records_is_told_what_it_did() {
    fn known(chunk: &mut Chunk) -> &mut Chunk {
        chunk.start(&numbers(), 0);
        chunk
    }
    let all: [Odd; 7] = [
        (
            |chunk| push(known(chunk), u64::MAX, 1),
            "pushed position 18446744073709551615, behind which there is none",
        ),
        (|chunk| push(known(chunk), 0, 0), "pushed a record at position 0 that takes none"),
        (
            |chunk| {
                push(known(chunk), 0, 1)?;
                push(known(chunk), 5, 1)
            },
            "started a chunk that had 1 records already",
        ),
        (|_| Ok(Read::Chunk), "returned a chunk that it did not start"),
        (
            |chunk| {
                push(known(chunk), 3, 1)?;
                chunk.set_end(2);
                Ok(Read::Chunk)
            },
            "set the end 2 before 4",
        ),
        (|_| Err(Error::Stopped), "returned Error::Stopped, and nobody stopped the run"),
        // Nothing stands in the chunk then.
        (|chunk| push(known(chunk), 0, 0).map(|_| Read::Idle), "that takes none"),
    ];
    for (read, says) in all {
        watchdog(LIMIT, move || {
            let (end, stored) = run(move || vec![Box::new(read)]);
            fails(end, says);
            assert_eq!(stored, 0);
        });
    }
}

fn push(chunk: &mut Chunk, position: u64, span: u32) -> Result<Read> {
    let _ = chunk.push_spanning(position, span, b"1");
    Ok(Read::Chunk)
}

/// What a reader returns, one after the other.
type Steps = &'static [fn() -> Read];

#[test]
fn a_partition_comes_back_as_another_one() {
    let again: [(Steps, &str); 3] = [
        (&[|| Read::Assigned(numbers(), None), || Read::Assigned(numbers(), None)], "assigned it twice"),
        (&[|| Read::Lost(numbers()), || Read::Assigned(numbers(), None)], "under epoch 0, which it has had"),
        (
            &[|| Read::Revoked(numbers()), || Read::Assigned(numbers(), None)],
            "under epoch 0, which it has had",
        ),
    ];
    for (then, says) in again {
        watchdog(LIMIT, move || {
            let (end, _) = run(move || {
                let (mut first, mut then) = (Some(()), then.iter());
                vec![Box::new(move |chunk: &mut Chunk| {
                    if first.take().is_some() {
                        chunk.start(&numbers(), 0);
                        return push(chunk, 0, 1);
                    }
                    Ok(then.next().map_or(Read::Done, |read| read()))
                }) as Box<dyn Reader>]
            });
            fails(end, says);
        });
    }
}

/// `?` behind a wait is what one writes: with it a drain was an abort, and what was read was lost.
#[test]
fn a_reader_that_sees_the_stop_while_it_waits_has_ended() {
    struct Waiting;
    impl Source for Waiting {
        fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
            let (stop, mut next) = (start.stop.clone(), 0);
            Ok(vec![Box::new(move |chunk: &mut Chunk| {
                if next == 50 {
                    stop.drain();
                    stop.sleep_running(Duration::from_secs(3600))?;
                }
                chunk.start(&numbers(), next);
                next += 1;
                push(chunk, next - 1, 1)
            })])
        }
    }
    watchdog(LIMIT, || {
        let (sink, recipe) = (Count::default(), Recipe::default());
        assert_eq!(Pipeline::new(&Waiting, &recipe, &sink).run().unwrap(), End::Drained);
        assert_eq!(sink.0.into_inner(), 50);
    });
}

/// Where a panic leaves threads behind, the run never ends.
#[test]
fn whatever_is_asked_of_source_and_sink_may_panic() {
    #[derive(Clone, Copy, PartialEq)]
    enum Place {
        Readers,
        Cuts,
        Tasks,
        Shape,
    }
    struct Panics(Place, AtomicUsize);
    impl Panics {
        fn at(&self, place: Place) {
            assert!(self.0 != place, "here");
        }
    }
    impl Source for Panics {
        fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
            Ok(vec![Box::new(|_: &mut Chunk| {
                std::thread::yield_now();
                Ok(Read::Idle)
            })])
        }
        fn readers(&self, workers: usize) -> usize {
            self.at(Place::Readers);
            workers
        }
        fn cuts(&self) -> pipeline::source::Cuts {
            self.at(Place::Cuts);
            pipeline::source::Cuts::Fixed
        }
        fn tasks(&self) -> Vec<pipeline::source::Task<'_>> {
            self.at(Place::Tasks);
            Vec::new()
        }
    }
    impl Sink for Panics {
        fn shape(&self) -> Shape {
            // Not at once: the run asks several times.
            if self.1.fetch_add(1, Ordering::Relaxed) > 4 {
                self.at(Place::Shape);
            }
            Shape::default()
        }
        fn store(&self, _: &[Batch], _: &mut Vec<Receipt>) -> Result<()> {
            Ok(())
        }
    }
    for place in [Place::Readers, Place::Cuts, Place::Tasks, Place::Shape] {
        watchdog(LIMIT, move || {
            let (both, recipe) = (Panics(place, AtomicUsize::new(0)), Recipe::default());
            let end = Pipeline::new(&both, &recipe, &both).run();
            assert!(matches!(&end, Err(Error::Panicked { message, .. }) if message == "here"), "{end:?}");
        });
    }
}

/// As many readers as they like, and none at all.
#[test]
fn any_number_of_readers_may_be_asked_for() {
    struct Asks(usize);
    impl Source for Asks {
        fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
            assert!(start.readers > 0);
            Ok(vec![positions(&numbers(), &[0, 1])])
        }
        fn readers(&self, _: usize) -> usize {
            self.0
        }
    }
    for readers in [0, 1, usize::MAX / 2, usize::MAX] {
        watchdog(LIMIT, move || {
            let (source, sink, recipe) = (Asks(readers), Count::default(), Recipe::default());
            assert_eq!(Pipeline::new(&source, &recipe, &sink).run().unwrap(), End::Finished);
            assert_eq!(sink.0.into_inner(), 2);
        });
    }
}

/// A batch holds memory of the run as long as it lives.
#[test]
fn a_sink_that_keeps_batches_costs_memory_and_no_hang() {
    #[derive(Default)]
    struct Keeps(Mutex<Vec<Batch>>);
    impl Sink for Keeps {
        fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
            self.0.lock().extend_from_slice(batches);
            receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
            Ok(())
        }
    }
    watchdog(LIMIT, || {
        let source = Opened(|| {
            let mut next = 0;
            vec![Box::new(move |chunk: &mut Chunk| {
                if next == 24 {
                    return Ok(Read::Done);
                }
                chunk.start(&numbers(), next);
                next += 1;
                let _ = chunk.push(next - 1, format!("\"{}\"", "x".repeat(1 << 20)).as_bytes());
                Ok(Read::Chunk)
            }) as Box<dyn Reader>]
        });
        let (sink, recipe) = (Keeps::default(), Recipe::default());
        let settings = Settings { workers: 1, memory_limit: 16 << 20, ..Settings::default() };
        assert_eq!(Pipeline::new(&source, &recipe, &sink).settings(settings).run().unwrap(), End::Finished);
        let stored: u64 = sink.0.lock().iter().map(|batch| batch.counts.stored).sum();
        assert_eq!(stored, 24);
    });
}

/// What a program makes is stored, whether it counts or not.
#[test]
fn a_program_that_counts_nothing_loses_nothing() {
    struct Copies;
    impl pipeline::transform::Program for Copies {
        fn run(&self, section: &pipeline::record::Section<'_>, out: &mut pipeline::transform::Out) {
            for entry in section.entries() {
                out.stored.extend_from_slice(section.record(entry).bytes);
                out.stored.push(b'\n');
            }
        }
    }
    #[derive(Default)]
    struct Bytes(AtomicUsize);
    impl Sink for Bytes {
        fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
            let bytes: u64 = batches.iter().map(|batch| batch.stored.len()).sum();
            self.0.fetch_add(bytes as usize, Ordering::Relaxed);
            receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
            Ok(())
        }
    }
    watchdog(LIMIT, || {
        let (source, sink) = (Opened(|| vec![positions(&numbers(), &[0, 1, 2])]), Bytes::default());
        assert_eq!(Pipeline::new(&source, &Copies, &sink).run().unwrap(), End::Finished);
        assert_eq!(sink.0.into_inner(), 6);
    });
}
