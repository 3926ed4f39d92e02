//! What a sink is called with, and what it answers: sinks that commit, receipts, many partitions at once, frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use pipeline::batch::Batch;
use pipeline::codec::Codec;
use pipeline::cut::Limits;
use pipeline::outgoing::{self, Outgoing};
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::record::{Partition, Section};
use pipeline::sink::{Commits, Order, Shape, Sink};
use pipeline::transform::recipe::{Key, Letters, Recipe, RecipeOptions};
use pipeline::transform::{Out, Program};
use pipeline::{Receipt, Result};

use super::fake::{Book, Lines, Memory, Numbers};
use super::script::{Calling, Fate, Script, Step, Stored, chunk, tenancy, until};
use super::streams::{LIMIT, any, committing, ordered, run, settings};
use crate::support::watchdog;

#[test]
fn a_sink_that_commits_moves_the_watermark_and_marks_are_not_stored() {
    watchdog(LIMIT, || {
        let (a, book) = (tenancy("a", 1), Arc::new(Book { plans: true, ..Book::default() }));
        let sink = Calling::new(committing());
        let steps = vec![
            Step::Assign(a.clone(), 0),
            chunk(&a, 0, 100),
            // Control records: a range without records has to be committed too.
            Step::Chunk(a.clone(), 100, 100, 103),
            Step::Chunk(a.clone(), 103, 110, 120),
            Step::End(a),
        ];
        let (end, metrics) = run(steps, &sink, &book);
        assert_eq!(end.unwrap(), End::Finished);
        let stored: Vec<_> = sink.stored().iter().map(|batch| (batch.2, batch.3)).collect();
        assert_eq!(stored, [(0, 100), (100, 103), (103, 120)]);
        assert_eq!(book.stores.load(Ordering::SeqCst), 0);
        let range = metrics.totals().partitions["a"].clone();
        assert_eq!((range.end, range.read, range.ended), (120, 107, true));
    });
}

/// A position that is remembered nowhere yet is stored at once and alone, whoever commits what follows.
#[test]
fn where_a_partition_begins_is_stored_before_anything_of_it() {
    for (shape, stores) in [(committing(), 1), (ordered(), 2), (any(), 2)] {
        watchdog(LIMIT, move || {
            let (a, b, book) = (tenancy("a", 1), tenancy("b", 1), Arc::new(Book::default()));
            let (sink, seen, earlier) =
                (Calling::new(Shape { part: None, ..shape }), book.clone(), book.clone());
            let steps = vec![
                Step::Begin(a.clone(), 40),
                until(move || seen.stores.load(Ordering::SeqCst) == 1),
                // A beginning that is known is not stored.
                Step::Assign(b.clone(), 7),
                until(move || earlier.watermark("a") == 40 && earlier.watermark("b") == 0),
                chunk(&a, 40, 60),
                Step::End(a),
                Step::End(b),
            ];
            let (end, _) = run(steps, &sink, &book);
            assert_eq!(end.unwrap(), End::Finished);
            assert_eq!(sink.stored().iter().map(|batch| (batch.2, batch.3)).collect::<Vec<_>>(), [(40, 60)]);
            assert_eq!(
                book.stores.load(Ordering::SeqCst) >= 2,
                stores >= 2,
                "the rest is the sink's to commit"
            );
        });
    }
}

#[test]
fn a_sink_that_commits_and_gives_no_receipt_has_lost_the_partition() {
    watchdog(LIMIT, || {
        let (old, new, other) = (tenancy("a", 1), tenancy("a", 2), tenancy("b", 1));
        let mut sink = Calling::new(committing());
        sink.fate = Box::new(|batch: &Batch| match batch.id.partition.identity() {
            identity if identity.name == "a" && identity.epoch == 1 && batch.id.start == 10 => Fate::Dropped,
            _ => Fate::Stored,
        });
        let calls = sink.calls.clone();
        let steps = vec![
            Step::Assign(old.clone(), 0),
            Step::Assign(other.clone(), 0),
            chunk(&old, 0, 10),
            chunk(&old, 10, 20),
            chunk(&other, 0, 10),
            until(move || calls.lock().iter().flatten().any(|batch| batch.0 == "b")),
            chunk(&old, 20, 30),
            Step::Lose(old),
            Step::Assign(new.clone(), 10),
            chunk(&new, 10, 40),
            Step::End(new),
            Step::End(other),
        ];
        let (end, metrics) = run(steps, &sink, &Arc::default());
        assert_eq!(end.unwrap(), End::Finished);
        let mut stored: Vec<_> = sink.stored().into_iter().map(|b| (b.0, b.1, b.2, b.3)).collect();
        stored.sort();
        let expected = [("a", 1, 0, 10), ("a", 2, 10, 40), ("b", 1, 0, 10)];
        assert_eq!(stored, expected.map(|(name, epoch, from, to)| (name.to_owned(), epoch, from, to)));
        assert_eq!(metrics.partitions_lost.load(Ordering::Relaxed), 1);
        assert_eq!(metrics.totals().partitions["a"].end, 40);
    });
}

#[test]
fn a_batch_without_its_receipt_is_an_error_of_the_sink() {
    for (fate, says) in [(Fate::Dropped, "no receipt for batch 10 of"), (Fate::Mixed, "out of order")] {
        watchdog(LIMIT, move || {
            let a = tenancy("a", 1);
            let mut sink = Calling::new(ordered());
            sink.fate = Box::new(move |batch: &Batch| if batch.id.start == 10 { fate } else { Fate::Stored });
            let steps = vec![Step::Assign(a.clone(), 0), chunk(&a, 0, 10), chunk(&a, 10, 20)];
            let book = Arc::new(Book::default());
            let error = run(steps, &sink, &book).0.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(book.watermark("a"), 10);
        });
    }
}

#[test]
fn what_a_failed_call_left_over_is_tried_again_and_nothing_else() {
    watchdog(LIMIT, || {
        let a = tenancy("a", 1);
        let mut sink = Calling::new(Shape { group: 1 << 20, ..ordered() });
        let failed = AtomicBool::new(false);
        sink.fate = Box::new(move |batch: &Batch| {
            let fails = batch.id.start == 20 && !failed.swap(true, Ordering::SeqCst);
            if fails { Fate::Fails } else { Fate::Stored }
        });
        let mut steps = vec![Step::Assign(a.clone(), 0)];
        steps.extend((0..5).map(|at| chunk(&a, at * 10, at * 10 + 10)));
        let (end, _) = run(steps, &sink, &Arc::default());
        end.unwrap();
        let starts: Vec<u64> = sink.stored().iter().map(|batch| batch.2).collect();
        assert_eq!(starts, [0, 10, 20, 30, 40]);
    });
}

/// Stores 40 chunks of four partitions that had to wait behind the first one; returns what each call was given.
fn calls_of(group: usize) -> Vec<Vec<Stored>> {
    watchdog(LIMIT, move || {
        let partitions: Vec<_> = (0..4).map(|index| tenancy(&format!("p{index}"), 1)).collect();
        let mut steps: Vec<Step> = partitions.iter().map(|p| Step::Assign(p.clone(), 0)).collect();
        for at in 0..10 {
            steps.extend(partitions.iter().map(|p| chunk(p, at * 10, at * 10 + 10)));
        }
        let (open, wait) = bounded::<()>(0);
        let mut sink = Calling::new(Shape { group, ..ordered() });
        let first = AtomicBool::new(true);
        sink.gate = Box::new(move || {
            if first.swap(false, Ordering::SeqCst) {
                let _ = wait.recv();
            }
        });
        let (script, book) = (Script::new(steps), Arc::new(Book::default()));
        let pipeline = Pipeline::new(&script, &Lines, &sink).settings(settings()).marks(book.clone());
        let metrics = pipeline.metrics();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| pipeline.run());
            // Without groups the queue is short, and readers wait with it.
            while group > 0 && metrics.seen.load(Ordering::Relaxed) < 400 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            drop(open);
            assert_eq!(run.join().unwrap().unwrap(), End::Finished);
        });
        for partition in 0..4 {
            assert_eq!(book.watermark(&format!("p{partition}")), 100);
        }
        sink.calls.lock().clone()
    })
}

#[test]
fn a_writer_takes_what_is_queued_of_all_partitions_up_to_the_group() {
    let in_order = |calls: &[Vec<Stored>]| {
        let all = calls.concat();
        for partition in 0..4 {
            let name = format!("p{partition}");
            let starts: Vec<u64> = all.iter().filter(|b| b.0 == name).map(|b| b.2).collect();
            assert_eq!(starts, (0..10).map(|at| at * 10).collect::<Vec<_>>());
        }
    };
    let single = calls_of(0);
    assert_eq!(single.len(), 40);
    in_order(&single);
    // All but what the six permits and the reader still hold stood in the queue when the first call returned.
    let all = calls_of(1 << 20);
    assert!(all.len() <= 10, "{} calls", all.len());
    in_order(&all);
    let size = single[0][0].4;
    let some = calls_of(5 * size as usize + 40);
    in_order(&some);
    assert!(some.len() < 20, "{} calls", some.len());
    for call in &some {
        let bytes: u64 = call.iter().map(|batch| batch.4).sum();
        assert!(bytes <= 5 * size + 40, "{bytes} bytes in a call of {} batches", call.len());
    }
    // A chunk that is larger than the group goes alone.
    assert_eq!(calls_of(1).len(), 40);
}

/// Of many small inputs a call for each would be most of the work.
#[test]
fn small_batches_that_come_together_are_stored_together_where_the_sink_asks_for_it() {
    /// Of which nothing is stored.
    struct Nothing;
    impl Program for Nothing {
        fn run(&self, section: &Section<'_>, out: &mut Out) {
            out.counts.read += section.entries().len() as u64;
        }
    }
    let calls_of = |program: &'static (dyn Program + Sync), order, group| {
        watchdog(LIMIT, move || {
            let partitions: Vec<_> = (0..8).map(|index| tenancy(&format!("p{index}"), 1)).collect();
            let whole = |p: &Partition| [Step::Assign(p.clone(), 0), chunk(p, 0, 10), Step::End(p.clone())];
            let script = Script::new(partitions.iter().flat_map(whole));
            let sink = Calling::new(Shape { writers: 1, order, part: None, group, ..Shape::default() });
            let book = Arc::new(Book::default());
            let pipeline = Pipeline::new(&script, program, &sink).settings(settings()).marks(book.clone());
            assert_eq!(pipeline.run().unwrap(), End::Finished);
            let names: Vec<String> = sink.stored().into_iter().map(|batch| batch.0).collect();
            assert_eq!(names, partitions.iter().map(|p| p.name().to_owned()).collect::<Vec<_>>());
            assert!(names.iter().all(|name| book.watermark(name) == 10));
            sink.calls.lock().clone()
        })
    };
    let calls = |order, group| calls_of(&Lines, order, group);
    for order in [Order::Total, Order::Any] {
        let nothing = calls_of(&Nothing, order, 0);
        assert_eq!(nothing.iter().map(Vec::len).collect::<Vec<_>>(), [1; 8]);
        assert_eq!(calls_of(&Nothing, order, 1 << 20).len(), 1);
        let single = calls(order, 0);
        assert_eq!(single.iter().map(Vec::len).collect::<Vec<_>>(), [1; 8]);
        assert_eq!(calls(order, 1 << 20).len(), 1);
        let three = 3 * single[0][0].4 as usize;
        assert_eq!(calls(order, three).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(calls(order, 1).len(), 8, "what is larger goes alone");
    }
}

#[test]
fn batches_that_go_singly_are_stored_side_by_side_and_each_in_a_call_of_its_own() {
    watchdog(LIMIT, || {
        let (a, inside, most) = (tenancy("a", 1), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let mut sink = Calling::new(Shape { singly: true, part: None, ..any() });
        let seen = most.clone();
        sink.gate = Box::new(move || {
            inside.fetch_add(1, Ordering::SeqCst);
            let begun = std::time::Instant::now();
            // A second writer comes while this one is at it, if ever.
            while seen.load(Ordering::SeqCst) < 2 && begun.elapsed() < LIMIT / 4 {
                seen.fetch_max(inside.load(Ordering::SeqCst), Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(1));
            }
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        let script = Script::new([Step::Assign(a.clone(), 0), chunk(&a, 0, 100), Step::End(a)]);
        let limits = Limits { batch_size: 10, ..settings().limits };
        let run = Pipeline::new(&script, &Lines, &sink).settings(Settings { limits, ..settings() });
        assert_eq!(run.marks(Arc::new(Book::default())).run().unwrap(), End::Finished);
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(sink.calls.lock().iter().map(Vec::len).collect::<Vec<_>>(), [1; 10]);
    });
}

#[test]
fn five_hundred_partitions_in_order_stay_within_the_memory_limit() {
    for commits in [Commits::Engine, Commits::Sink] {
        let peak = watchdog(LIMIT, move || {
            let source = Numbers { turn: 100, size: 300, ..Numbers::new(500, 400) };
            let shape = Shape { commits, ..committing() };
            let sink = Memory::new(shape);
            let settings = Settings { memory_limit: 12 << 20, workers: 2, ..settings() };
            let pipeline = Pipeline::new(&source, &Lines, &sink).settings(settings);
            let metrics = pipeline.metrics();
            assert_eq!(pipeline.run().unwrap(), End::Finished);
            sink.check(&source);
            metrics.peak_bytes.load(Ordering::Relaxed)
        });
        assert!(peak < 13 << 20, "{peak} bytes in flight");
    }
}

/// Each record becomes a frame.
struct Frames;

impl Program for Frames {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        for entry in section.entries() {
            let value = section.record(entry).bytes;
            outgoing::put(&mut out.stored, &Outgoing { value: Some(value), ..Outgoing::default() });
            out.counts.read += 1;
            out.counts.stored += 1;
        }
    }
}

/// Reads frames.
struct Unframe(Shape, AtomicUsize);

impl Sink for Unframe {
    fn shape(&self) -> Shape {
        self.0
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            let records = outgoing::read(&batch.stored);
            let whole = records.filter(|record| record.value.is_some_and(|value| value.ends_with(b"}")));
            self.1.fetch_add(whole.count(), Ordering::SeqCst);
            receipts.push(Receipt::of(batch, None, None));
        }
        Ok(())
    }
}

#[test]
fn records_are_whole_frames_and_never_compressed() {
    for (codec, order) in [(Codec::Gzip(1), Order::Any), (Codec::Zstd(1), Order::Partition)] {
        watchdog(LIMIT, move || {
            let source = Numbers { turn: 30, ..Numbers::new(3, 2000) };
            let sink = Unframe(Shape { order, records: true, ..Shape::default() }, AtomicUsize::new(0));
            let limits = Limits { batch_size: 7, ..settings().limits };
            let settings = Settings { codec, limits, ..settings() };
            Pipeline::new(&source, &Frames, &sink).settings(settings).run().unwrap();
            assert_eq!(sink.1.load(Ordering::SeqCst), 6000);
        });
    }
}

/// A recipe that makes lines, and a sink that takes frames, or the other way round.
#[test]
fn a_program_that_makes_what_the_sink_does_not_take_is_refused_before_anything_is_read() {
    let frames = || Recipe::default().records(Key::Source);
    let letters =
        || Recipe::new(RecipeOptions { dead_letters: Letters::Records, ..RecipeOptions::default() });
    let dropped = || Recipe::new(RecipeOptions { dead_letters: Letters::Drop, ..RecipeOptions::default() });
    let shape = |records, letter_records| Shape { records, letter_records, ..ordered() };
    let check = |recipe: Recipe, shape: Shape, says: Option<&str>| {
        let (sink, book) = (Calling::new(shape), Arc::new(Book::default()));
        let begun = Arc::new(AtomicBool::new(false));
        let noticed = begun.clone();
        let script = Script::new([until(move || {
            noticed.store(true, Ordering::SeqCst);
            true
        })]);
        let end = Pipeline::new(&script, &recipe, &sink).settings(settings()).marks(book).run();
        assert_eq!(begun.load(Ordering::SeqCst), says.is_none());
        match says {
            None => assert_eq!(end.unwrap(), End::Finished),
            Some(says) => {
                let error = end.unwrap_err();
                assert!(error.to_string().contains(says) && error.exit_code() == 2, "{error}");
            }
        }
    };
    check(Recipe::default(), shape(false, false), None);
    check(Recipe::default(), shape(true, false), Some("takes records as frames and the program makes lines"));
    check(frames(), shape(false, false), Some("takes records as lines and the program makes frames"));
    check(frames(), shape(true, false), None);
    check(letters(), shape(false, false), Some("takes dead letters as lines"));
    check(letters(), shape(false, true), None);
    check(dropped(), shape(false, true), None);
}
