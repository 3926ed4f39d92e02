//! Streams whose partitions come and go, and what is known of them: lag, the time of a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use pipeline::batch::Batch;
use pipeline::cut::{Close, Limits};
use pipeline::error::Retry;
use pipeline::metrics::{Metrics, Reach};
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::retry::Policy;
use pipeline::sink::{Commits, Order, Shape, Sink};
use pipeline::source::{Reader, Source, Start, Task};
use pipeline::stop::Stop;
use pipeline::{Error, Result};

use super::fake::{Book, Lines, Memory, Numbers, Refuse};
use super::script::{Calling, Fate, Script, Step, chunk, tenancy, until};
use crate::support::watchdog;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn settings() -> Settings {
    Settings {
        workers: 1,
        memory_limit: 8 << 20,
        limits: Limits { block_bytes: 16 << 10, ..Limits::default() },
        retry: Policy { delay: Duration::from_millis(1), ..Policy::default() },
        batch_wait: Duration::from_secs(3600),
        commit_interval: Duration::from_secs(3600),
        ..Settings::default()
    }
}

pub(super) fn ordered() -> Shape {
    Shape { order: Order::Partition, ..Shape::default() }
}

pub(super) fn any() -> Shape {
    Shape { writers: 2, order: Order::Any, part: Some(4 << 10), ..Shape::default() }
}

pub(super) fn committing() -> Shape {
    Shape { commits: Commits::Sink, group: 1 << 20, ..ordered() }
}

/// Runs a script to its end.
#[track_caller]
pub(super) fn run(steps: Vec<Step>, sink: &dyn Sink, book: &Arc<Book>) -> (Result<End>, Arc<Metrics>) {
    let script = Script::new(steps);
    let pipeline = Pipeline::new(&script, &Lines, sink).settings(settings()).marks(book.clone());
    let metrics = pipeline.metrics();
    (pipeline.run(), metrics)
}

/// A source with a task of its own.
struct Tasked<'t>(Numbers, &'t (dyn Fn(&Receiver<()>) -> Result<()> + Sync));

impl Source for Tasked<'_> {
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        self.0.open(start)
    }

    fn tasks(&self) -> Vec<Task<'_>> {
        vec![Task { name: "group".into(), run: Box::new(self.1) }]
    }
}

#[test]
fn a_task_of_the_source_goes_on_until_behind_the_last_commit() {
    watchdog(LIMIT, || {
        let (book, seen) = (Arc::new(Book::default()), AtomicUsize::new(0));
        let task = |over: &Receiver<()>| {
            assert!(over.recv().is_err(), "nothing is ever sent");
            seen.store(book.watermark("p1") as usize, Ordering::SeqCst);
            Ok(())
        };
        let source = Tasked(Numbers::new(2, 3000), &task);
        let sink = Memory::new(any());
        let end = Pipeline::new(&source, &Lines, &sink).settings(settings()).marks(book.clone()).run();
        assert_eq!(end.unwrap(), End::Finished);
        assert_eq!(seen.load(Ordering::SeqCst), 3000);
    });
}

#[test]
fn a_task_that_fails_ends_the_run_and_a_run_that_fails_ends_its_tasks() {
    watchdog(LIMIT, || {
        let endless = || Numbers { endless: true, ..Numbers::new(1, 10) };
        let fails = |_: &Receiver<()>| Err(Error::other("scripted", Retry::Permanent, "fenced"));
        let (source, sink) = (Tasked(endless(), &fails), Memory::new(any()));
        let error = Pipeline::new(&source, &Lines, &sink).settings(settings()).run().unwrap_err();
        assert_eq!(error.to_string(), "scripted: fenced");

        let waits = |over: &Receiver<()>| {
            let _ = over.recv();
            Ok(())
        };
        let sink = Memory::failing(ordered(), |_| Err(Error::other("scripted", Retry::Permanent, "denied")));
        let source = Tasked(endless(), &waits);
        let error = Pipeline::new(&source, &Lines, &sink).settings(settings()).run().unwrap_err();
        assert_eq!(error.to_string(), "scripted: denied");
    });
}

/// A run in which the marks of the first tenancy of `a` are refused; it comes back, and `b` stays.
fn refused(plans: bool, shape: Shape) {
    watchdog(LIMIT, move || {
        let (first, second, other) = (tenancy("a", 1), tenancy("a", 7), tenancy("b", 2));
        let refuse = |mark: &pipeline::source::Mark| mark.partition.identity().epoch == 1;
        let holder: Arc<Mutex<Option<Arc<Metrics>>>> = Arc::default();
        let seen = holder.clone();
        let is_lost = move || {
            seen.lock().as_ref().is_some_and(|metrics| metrics.partitions_lost.load(Ordering::SeqCst) > 0)
        };
        let book = Arc::new(Book { plans, refuse: Refuse(Box::new(refuse)), ..Book::default() });
        let sink = Calling::new(shape);
        let script = Script::new([
            Step::Assign(first.clone(), 0),
            Step::Assign(other.clone(), 0),
            chunk(&first, 0, 100),
            chunk(&other, 0, 100),
            until(is_lost),
            // The reader does not know yet.
            chunk(&first, 100, 200),
            Step::Lose(first.clone()),
            chunk(&first, 200, 300),
            Step::Assign(second.clone(), 0),
            chunk(&second, 0, 250),
            Step::End(second),
            Step::End(other),
        ]);
        let limits = Limits { batch_size: 100, ..settings().limits };
        let settings = Settings { commit_interval: Duration::from_millis(1), limits, ..settings() };
        let pipeline = Pipeline::new(&script, &Lines, &sink).settings(settings).marks(book.clone());
        let metrics = pipeline.metrics();
        *holder.lock() = Some(metrics.clone());
        assert_eq!(pipeline.run().unwrap(), End::Finished);
        let stored = sink.stored();
        let of = |epoch: u64| -> u64 {
            stored.iter().filter(|batch| batch.1 == epoch).map(|batch| batch.3 - batch.2).sum()
        };
        assert_eq!((of(7), of(2)), (250, 100), "{stored:?}");
        if plans {
            assert_eq!(of(1), 0, "published although its plan was refused: {stored:?}");
        } else {
            // At least once: what was stored before the refusal is stored again.
            assert!(of(1) <= 100, "published behind the refusal: {stored:?}");
        }
        assert_eq!((book.watermark("a"), book.watermark("b")), (250, 100));
        assert_eq!(book.marks.lock()["a"].partition.identity().epoch, 7);
        assert_eq!(metrics.partitions_lost.load(Ordering::Relaxed), 1);
        // What is read again counts once, but for what was known to be published before the refusal.
        let read = metrics.totals().read;
        assert!(read == 350 || read == 350 + of(1), "{read} read, {stored:?}");
    });
}

#[test]
fn a_partition_whose_plan_is_refused_is_lost_and_may_come_back() {
    refused(true, any());
    refused(true, Shape { group: 1 << 20, ..ordered() });
}

#[test]
fn a_partition_whose_mark_is_refused_is_lost_and_may_come_back() {
    refused(false, ordered());
}

#[test]
fn a_refusal_counts_although_the_store_fails_and_is_not_asked_again() {
    /// Refuses `a`, with an error that may pass.
    #[derive(Default)]
    struct Flaky(Mutex<Vec<Vec<String>>>);

    impl pipeline::source::Marks for Flaky {
        fn load(&self, _: &str) -> Result<Option<pipeline::source::Mark>> {
            Ok(None)
        }

        fn store(
            &self,
            marks: &mut [pipeline::source::Mark],
            refused: &mut Vec<pipeline::Partition>,
        ) -> Result<()> {
            let mut calls = self.0.lock();
            let mut names: Vec<String> = marks.iter().map(|mark| mark.partition.name().into()).collect();
            names.sort();
            calls.push(names);
            let known = refused.len();
            refused.extend(marks.iter().map(|m| m.partition.clone()).filter(|p| p.name() == "a"));
            if refused.len() == known {
                return Ok(());
            }
            Err(Error::other("scripted", Retry::Transient, "timeout"))
        }
    }

    watchdog(LIMIT, || {
        let (a, b, marks) = (tenancy("a", 1), tenancy("b", 1), Arc::new(Flaky::default()));
        let steps =
            [Step::Assign(a.clone(), 0), Step::Assign(b.clone(), 0), chunk(&a, 0, 9), chunk(&b, 0, 9)];
        let (script, sink) = (Script::new(steps), Memory::new(ordered()));
        Pipeline::new(&script, &Lines, &sink).settings(settings()).marks(marks.clone()).run().unwrap();
        let calls = marks.0.lock();
        assert_eq!(calls.iter().flatten().filter(|name| *name == "a").count(), 1, "{calls:?}");
        assert!(calls.last().is_some_and(|names| names == &["b"]), "{calls:?}");
    });
}

#[test]
fn a_revoked_partition_is_released_at_once_and_behind_its_commit() {
    for shape in [any(), ordered(), committing()] {
        watchdog(LIMIT, move || {
            let (a, b, book) = (tenancy("a", 3), tenancy("b", 3), Arc::new(Book::default()));
            let (seen, begun) = (book.clone(), book.clone());
            let stores = usize::from(shape.commits == Commits::Engine);
            let steps = vec![
                Step::Assign(b.clone(), 0),
                chunk(&b, 0, 10),
                Step::End(b.clone()),
                // From here on marks are stored once an hour.
                until(move || begun.stores.load(Ordering::SeqCst) >= stores),
                Step::Assign(a.clone(), 0),
                chunk(&a, 0, 100),
                Step::Revoke(a.clone()),
                // Nothing else happens that would make the commit thread store marks.
                until(move || !seen.released.lock().is_empty()),
            ];
            let sink = Memory::new(shape);
            let (end, metrics) = run(steps, &sink, &book);
            assert_eq!(end.unwrap(), End::Finished);
            let (released, stored) = (book.released_at.lock().clone(), sink.ids().len() - 10);
            match (shape.order, shape.commits) {
                // The open batch is the next owner's.
                (Order::Any, _) => assert_eq!((released, stored), (vec![0], 0)),
                (_, Commits::Engine) => assert_eq!((released, stored), (vec![100], 100)),
                (_, Commits::Sink) => {
                    assert_eq!((released, stored), (vec![0], 100));
                    assert_eq!(metrics.totals().partitions["a"].end, 100);
                }
            }
        });
    }
}

#[test]
fn chunks_of_a_lost_tenancy_are_dropped() {
    watchdog(LIMIT, || {
        let (old, new) = (tenancy("a", 1), tenancy("a", 2));
        let steps = vec![
            Step::Assign(old.clone(), 0),
            chunk(&old, 0, 100),
            Step::Lose(old.clone()),
            Step::Assign(new.clone(), 40),
            chunk(&old, 100, 200),
            chunk(&new, 40, 150),
            chunk(&old, 200, 300),
            Step::End(new),
        ];
        let (sink, book) = (Calling::new(any()), Arc::new(Book { plans: true, ..Book::default() }));
        let (end, _) = run(steps, &sink, &book);
        assert_eq!(end.unwrap(), End::Finished);
        let stored: Vec<_> = sink.stored().iter().map(|batch| (batch.1, batch.2, batch.3)).collect();
        assert_eq!(stored, [(2, 40, 150)]);
        assert_eq!(book.watermark("a"), 150);
    });
}

#[test]
fn what_is_published_behind_a_loss_does_not_count() {
    watchdog(LIMIT, || {
        let (a, book) = (tenancy("a", 1), Arc::new(Book::default()));
        let holder: Arc<Mutex<Option<Arc<Metrics>>>> = Arc::default();
        let mut sink = Calling::new(ordered());
        let seen = holder.clone();
        let is_lost = move || {
            seen.lock().as_ref().is_some_and(|metrics| metrics.partitions_lost.load(Ordering::SeqCst) > 0)
        };
        // The batch is being stored while its partition is lost.
        let entered = Arc::new(AtomicBool::new(false));
        let entering = entered.clone();
        sink.gate = Box::new(move || {
            entering.store(true, Ordering::SeqCst);
            while !is_lost() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let calls = sink.calls.clone();
        let script = Script::new([
            Step::Assign(a.clone(), 0),
            chunk(&a, 0, 10),
            until(move || entered.load(Ordering::SeqCst)),
            Step::Lose(a),
            until(move || !calls.lock().is_empty()),
        ]);
        let pipeline = Pipeline::new(&script, &Lines, &sink).settings(settings()).marks(book.clone());
        let metrics = pipeline.metrics();
        *holder.lock() = Some(metrics.clone());
        assert_eq!(pipeline.run().unwrap(), End::Finished);
        assert_eq!((metrics.totals().batches, metrics.totals().read, book.watermark("a")), (0, 0, 0));
    });
}

#[test]
fn a_drain_plans_publishes_and_commits_all_open_batches() {
    watchdog(LIMIT, || {
        let source = Numbers { endless: true, ..Numbers::new(3, 1000) };
        let (sink, book) = (Memory::new(any()), Arc::new(Book { plans: true, ..Book::default() }));
        let stop = Stop::new();
        let pipeline =
            Pipeline::new(&source, &Lines, &sink).settings(settings()).stop(&stop).marks(book.clone());
        let metrics = pipeline.metrics();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| pipeline.run());
            while metrics.seen.load(Ordering::Relaxed) < 3000 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            stop.drain();
            assert_eq!(run.join().unwrap().unwrap(), End::Drained);
        });
        // The last chunk may have stood with the reader: it is read again.
        let stored = sink.ids().len() as u64;
        let committed: u64 = (0..3).map(|index| book.watermark(&format!("p{index}"))).sum();
        assert_eq!(stored, committed);
        assert!(stored >= 2000, "{stored} stored");
        // Each goes to whoever wants it as soon as it is committed.
        let mut released = book.released.lock().clone();
        released.sort();
        assert_eq!(released, ["p0", "p1", "p2"]);
        assert_eq!(book.released_at.lock().iter().sum::<u64>(), committed);
        let drained = metrics.totals().closes.get(&Close::Drain).copied();
        assert!(drained.is_some_and(|count| count >= 2), "{:?}", metrics.totals().closes);
        assert!(book.marks.lock().values().all(|mark| mark.plan.is_empty() && !mark.ended));
    });
}

#[test]
fn lag_is_what_can_be_read_and_is_not_committed() {
    watchdog(LIMIT, || {
        let (a, b, book) = (tenancy("a", 1), tenancy("b", 1), Arc::new(Book::default()));
        let sink = Memory::new(ordered());
        let holder: Arc<Mutex<Option<Arc<Metrics>>>> = Arc::default();
        let reach = |expected: Reach| {
            let holder = holder.clone();
            until(move || holder.lock().as_ref().is_some_and(|metrics| metrics.reach() == Some(expected)))
        };
        let script = Script::new([
            Step::Readable(a.clone(), 100, 350),
            Step::Readable(b.clone(), 0, 50),
            Step::Assign(a.clone(), 100),
            Step::Assign(b.clone(), 0),
            reach(Reach { done: 0, all: 300 }),
            chunk(&a, 100, 300),
            reach(Reach { done: 200, all: 300 }),
            Step::Readable(a.clone(), 300, 400),
            reach(Reach { done: 200, all: 350 }),
            // What is given up is somebody else's lag, but what was done stays done.
            Step::Revoke(a.clone()),
            reach(Reach { done: 200, all: 250 }),
            chunk(&b, 0, 50),
            Step::End(b.clone()),
        ]);
        let settings = Settings { commit_interval: Duration::from_millis(1), ..settings() };
        let pipeline = Pipeline::new(&script, &Lines, &sink).settings(settings).marks(book.clone());
        let metrics = pipeline.metrics();
        assert_eq!(metrics.reach(), None);
        *holder.lock() = Some(metrics.clone());
        assert_eq!(pipeline.run().unwrap(), End::Finished);
        assert_eq!(metrics.reach(), Some(Reach { done: 250, all: 250 }));
        assert_eq!(metrics.lags(), [("b".to_owned(), 0)].into());
    });
}

#[test]
fn a_batch_has_the_time_of_its_first_record_whatever_chunks_it_came_in() {
    let first_time = |times: &'static [Option<i64>]| {
        watchdog(LIMIT, move || {
            let a = tenancy("a", 1);
            let found = Arc::new(Mutex::new(Vec::new()));
            let seen = found.clone();
            let mut sink = Calling::new(any());
            sink.fate = Box::new(move |batch: &Batch| {
                seen.lock().push(batch.id.first_time);
                Fate::Stored
            });
            let mut steps = vec![Step::Assign(a.clone(), 0)];
            steps.extend((0..).zip(times).map(|(at, time)| Step::Timed(a.clone(), at, *time)));
            steps.push(Step::End(a));
            run(steps, &sink, &Arc::default()).0.unwrap();
            std::mem::take(&mut *found.lock())
        })
    };
    assert_eq!(first_time(&[Some(77), Some(5), None]), [77]);
    assert_eq!(first_time(&[None, Some(5)]), [0]);
}
