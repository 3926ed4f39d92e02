use std::time::Duration;

use crossbeam_channel::bounded;

use super::*;
use crate::batch::{Body, Counts, Piece};
use crate::commit::Commit;
use crate::ledger::{Content, CutBatch};
use crate::record::Partition;
use crate::sink::{Order, Stream};
use crate::source::{Mark, Marks};

/// What a sink does in a call.
type Act<'a> = Box<dyn Fn(&[Batch], &mut Vec<Receipt>) -> Result<()> + Send + Sync + 'a>;

/// A sink that does what it is told, and whose uploads are in doubt from their first part on.
struct Told<'a> {
    shape: Shape,
    act: Act<'a>,
    opened: AtomicUsize,
}

fn told<'a>(
    shape: Shape,
    act: impl Fn(&[Batch], &mut Vec<Receipt>) -> Result<()> + Send + Sync + 'a,
) -> Told<'a> {
    Told { shape, act: Box::new(act), opened: AtomicUsize::new(0) }
}

impl Sink for Told<'_> {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        (self.act)(batches, receipts)
    }

    fn open(&self, _: &BatchId) -> Result<Box<dyn Upload>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Doubtful))
    }
}

struct Doubtful;

impl Upload for Doubtful {
    fn part(&self, _: &Part) -> Result<()> {
        Err(Error::InDoubt { what: "scripted".into() })
    }

    fn publish(&self, _: &Batch, _: &Totals) -> Result<Receipt> {
        panic!("no part is stored")
    }

    fn abort(&self) {}
}

fn busy() -> Error {
    Error::other("scripted", Retry::Transient, "busy")
}

fn any() -> Shape {
    Shape { order: Order::Any, ..Shape::default() }
}

fn grouped(group: usize) -> Shape {
    Shape { group, ..Shape::default() }
}

fn batch(partition: &Partition, start: u64) -> Batch {
    let (mut stored, mut failed) = (Body::default(), Body::default());
    stored.push(Piece::owned(vec![1; 6]));
    failed.push(Piece::owned(vec![2; 4]));
    Batch {
        id: BatchId { partition: partition.clone(), start, first_time: 0, opened_at: 0 },
        end: start + 10,
        line: 0,
        resume: None,
        counts: Counts { read: 10, ..Counts::default() },
        close: Close::Count,
        stored,
        failed,
    }
}

fn part(upload: &Arc<OpenUpload>) -> Job {
    upload.expect_part();
    let part = Part { stream: Stream::Stored, index: 0, offset: 0, body: Body::default(), last: false };
    Job::Part(upload.clone(), part)
}

/// What a writer shares with others.
#[derive(Default)]
struct Scene {
    ledgers: Ledgers,
    metrics: Metrics,
    stop: Stop,
    pending: AtomicUsize,
}

impl Scene {
    /// They try each call twice.
    fn writers<'a>(&'a self, sink: &'a dyn Sink) -> Writers<'a> {
        Writers {
            sink,
            stop: &self.stop,
            retry: Policy { max_retries: 1, delay: Duration::ZERO, max_delay: Duration::ZERO },
            metrics: &self.metrics,
            ledgers: &self.ledgers,
            plans: false,
            rereads: true,
            shape: sink.shape(),
            pending: &self.pending,
        }
    }

    /// Does these jobs; returns what the commit thread was told.
    fn run(&self, sink: &dyn Sink, jobs: Vec<Job>) -> (Result<()>, Vec<Note>) {
        let (queue, todo) = bounded(jobs.len());
        self.pending.fetch_add(jobs.len(), Ordering::Relaxed);
        for job in jobs {
            queue.send(job).unwrap();
        }
        drop(queue);
        let (notes, noted) = bounded(100);
        let result = self.writers(sink).run(&todo, &notes);
        drop(notes);
        (result, noted.iter().collect())
    }
}

/// Partition and start of what was published.
fn published(notes: &[Note]) -> Vec<(String, u64)> {
    let receipts = notes.iter().flat_map(|note| match note {
        Note::Published(receipts) => &receipts[..],
        _ => &[],
    });
    receipts.map(|(receipt, _)| (receipt.id.partition.name().to_owned(), receipt.id.start)).collect()
}

#[test]
fn a_call_has_so_many_batches_and_behind_an_abort_there_is_none() {
    let (scene, calls) = (Scene::default(), Mutex::new(Vec::new()));
    let sink = told(any(), |batches, receipts| {
        calls.lock().push(batches.len());
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        scene.stop.abort();
        Ok(())
    });
    let a = Partition::named("test", "a");
    let batches = (0..=GROUP as u64).map(|index| batch(&a, index * 10)).collect();
    let (result, notes) = scene.run(&sink, vec![Job::Store(batches)]);
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!((&calls.lock()[..], published(&notes).len()), (&[GROUP][..], GROUP));
}

/// Marks that plan.
struct Planning;

impl Marks for Planning {
    fn load(&self, _: &str) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn store(&self, _: &mut [Mark], _: &mut Vec<Partition>) -> Result<()> {
        Ok(())
    }

    fn plans(&self) -> bool {
        true
    }
}

#[test]
fn all_that_are_planned_go_in_one_call_and_the_others_in_a_later_one() {
    let (scene, calls, a) = (Scene::default(), Mutex::new(Vec::new()), Partition::named("test", "a"));
    let mut commit = Commit::new(&Planning, &scene.ledgers, &scene.metrics, &scene.stop);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    let batches = [0, 10, 20].map(|start| batch(&a, start));
    let cuts = batches.iter().map(|batch| CutBatch {
        start: batch.id.start,
        end: batch.end,
        line: 0,
        resume: None,
        first_time: 0,
        opened_at: 0,
        content: Content::Records,
    });
    let mut cuts: Vec<CutBatch> = cuts.collect();
    let later = cuts.split_off(2);
    let plan = |commit: &mut Commit<'_>, cuts| {
        commit.apply(Note::Cut(a.clone(), cuts)).unwrap();
        let flush = commit.begin().unwrap();
        commit.conclude(flush, &[], Ok(())).unwrap();
    };
    plan(&mut commit, cuts);
    let commit = Mutex::new((commit, later));
    let sink = told(any(), |batches, receipts| {
        let (commit, later) = &mut *commit.lock();
        if !later.is_empty() {
            plan(commit, std::mem::take(later));
        }
        calls.lock().push(batches.len());
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        Ok(())
    });
    let (queue, todo) = bounded(1);
    queue.send(Job::Store(batches.into())).unwrap();
    drop(queue);
    let (notes, _noted) = bounded(10);
    Writers { plans: true, ..scene.writers(&sink) }.run(&todo, &notes).unwrap();
    assert_eq!(calls.lock()[..], [2, 1]);
}

#[test]
fn behind_an_abort_no_upload_is_begun() {
    let (scene, a) = (Scene::default(), Partition::named("test", "a"));
    let sink = told(any(), |_, _| Ok(()));
    scene.stop.abort();
    let (result, _) = scene.run(&sink, vec![part(&OpenUpload::new(batch(&a, 0).id))]);
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!(sink.opened.load(Ordering::Relaxed), 0);
}

/// Each call stores one batch before it fails: more calls than there are tries.
#[test]
fn tries_are_those_of_one_batch_and_what_is_stored_is_not_stored_again() {
    let (scene, calls) = (Scene::default(), AtomicUsize::new(0));
    let sink = told(grouped(1 << 20), |batches, receipts| {
        calls.fetch_add(1, Ordering::Relaxed);
        receipts.extend(batches.iter().take(1).map(|batch| Receipt::of(batch, None, None)));
        if batches.len() > 1 { Err(busy()) } else { Ok(()) }
    });
    let (a, b) = (Partition::named("test", "a"), Partition::named("test", "b"));
    let batches = [batch(&a, 0), batch(&b, 0), batch(&a, 10), batch(&b, 10)];
    let jobs = batches.into_iter().map(|batch| Job::Store(vec![batch])).collect();
    let (result, notes) = scene.run(&sink, jobs);
    result.unwrap();
    let expected = [("a", 0), ("b", 0), ("a", 10), ("b", 10)];
    assert_eq!(published(&notes), expected.map(|(name, start)| (name.to_owned(), start)));
    assert_eq!(calls.load(Ordering::Relaxed), 4);
    let done = scene.metrics.flow.jobs_done.load(Ordering::Relaxed);
    assert_eq!((scene.pending.load(Ordering::Relaxed), done), (0, 4), "a group is all its jobs");
}

#[test]
fn what_was_stored_before_an_abort_counts_and_the_rest_is_not_tried() {
    // There is another try, or there is none.
    for last in [1, 2] {
        let (scene, calls) = (Scene::default(), AtomicUsize::new(0));
        let sink = told(any(), |batches, receipts| {
            receipts.push(Receipt::of(&batches[0], None, None));
            if calls.fetch_add(1, Ordering::Relaxed) + 1 == last {
                scene.stop.abort();
            }
            Err(busy())
        });
        let a = Partition::named("test", "a");
        let batches = [0, 10, 20].map(|start| batch(&a, start)).into();
        let (result, notes) = scene.run(&sink, vec![Job::Store(batches)]);
        assert!(result.is_err());
        assert_eq!((calls.load(Ordering::Relaxed), published(&notes).len()), (last, last));
    }
}

#[test]
fn a_call_that_stores_nothing_is_tried_so_often_and_no_more() {
    let (scene, calls) = (Scene::default(), AtomicUsize::new(0));
    let sink = told(any(), |_, _| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) < 2, "one more try");
        Err(busy())
    });
    let jobs = vec![Job::Store(vec![batch(&Partition::named("test", "a"), 0)])];
    assert_eq!(scene.run(&sink, jobs).0.unwrap_err().to_string(), "scripted: busy");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_of_a_lost_partition_is_published() {
    let (scene, a) = (Scene::default(), Partition::named("test", "a"));
    let sink = told(any(), |_, _| panic!("it is lost"));
    scene.ledgers.lose(&a);
    let close = Job::Close(OpenUpload::new(batch(&a, 0).id), Box::new(batch(&a, 0)), Totals::default());
    let (result, notes) = scene.run(&sink, vec![Job::Store(vec![batch(&a, 0)]), close]);
    result.unwrap();
    assert!(notes.is_empty() && sink.opened.load(Ordering::Relaxed) == 0);
}

#[test]
fn a_batch_whose_partition_is_lost_meanwhile_needs_no_receipt() {
    let scene = Scene::default();
    let (a, b) = (Partition::named("test", "a"), Partition::named("test", "b"));
    let sink = told(any(), |batches, _| {
        scene.ledgers.lose(&batches[0].id.partition);
        Ok(())
    });
    let (result, notes) = scene.run(&sink, vec![Job::Store(vec![batch(&a, 0)])]);
    result.unwrap();
    assert!(notes.is_empty());
    let sink = told(any(), |_, _| Ok(()));
    assert!(scene.run(&sink, vec![Job::Store(vec![batch(&b, 0)])]).0.is_err());
}

#[test]
fn a_partition_is_lost_once_however_many_of_its_batches_are_in_doubt() {
    let (scene, a) = (Scene::default(), Partition::named("test", "a"));
    let jobs = [0, 10].map(|start| part(&OpenUpload::new(batch(&a, start).id)));
    let (result, notes) = scene.run(&told(any(), |_, _| Ok(())), jobs.into());
    result.unwrap();
    assert!(matches!(&notes[..], [Note::Doubted(lost)] if *lost == a));
    assert_eq!(scene.metrics.partitions_lost.load(Ordering::Relaxed), 1);
}

#[test]
fn a_partition_is_lost_once_however_many_of_its_batches_have_no_receipt() {
    let (scene, a) = (Scene::default(), Partition::named("test", "a"));
    let sink = told(Shape { commits: Commits::Sink, ..any() }, |_, _| Ok(()));
    let (result, notes) = scene.run(&sink, vec![Job::Store(vec![batch(&a, 0), batch(&a, 10)])]);
    result.unwrap();
    assert!(matches!(&notes[..], [Note::Lost(lost)] if *lost == a));
    assert_eq!(scene.metrics.partitions_lost.load(Ordering::Relaxed), 1);
}

#[test]
fn dead_letters_count_for_a_group_too() {
    let (scene, calls) = (Scene::default(), Mutex::new(Vec::new()));
    // Two batches have twenty bytes, and a third does not fit.
    let sink = told(grouped(25), |batches, receipts| {
        calls.lock().push(batches.len());
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        Ok(())
    });
    let a = Partition::named("test", "a");
    let jobs = (0..5).map(|index| Job::Store(vec![batch(&a, index * 10)])).collect();
    scene.run(&sink, jobs).0.unwrap();
    assert_eq!(calls.lock()[..], [2, 2, 1]);
    assert_eq!(scene.pending.load(Ordering::Relaxed), 0, "also the job that did not fit is counted once");
}

#[test]
fn an_upload_is_published_behind_its_last_part_and_its_end() {
    let batch = batch(&Partition::named("test", "a"), 0);
    let close = |upload: &OpenUpload| upload.close(Box::new(batch.clone()), Totals::default()).is_some();
    let upload = OpenUpload::new(batch.id.clone());
    assert!(close(&upload), "no part is on its way");
    let upload = OpenUpload::new(batch.id.clone());
    upload.expect_part();
    assert!(upload.stored_part().is_none(), "it is not closed");
    upload.expect_part();
    upload.expect_part();
    assert!(!close(&upload) && upload.stored_part().is_none(), "one is on its way");
    assert!(upload.stored_part().is_some());
}

/// Two panics at once end the process.
#[test]
fn an_upload_that_panics_when_it_is_given_up_meets_no_other_panic() {
    struct Panics(AtomicUsize);
    impl Upload for Panics {
        fn part(&self, _: &Part) -> Result<()> {
            Ok(())
        }
        fn publish(&self, _: &Batch, _: &Totals) -> Result<Receipt> {
            Err(Error::Stopped)
        }
        fn abort(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("an upload");
        }
    }
    let upload = Arc::new(Panics(AtomicUsize::new(0)));
    let partition = crate::Partition::named("test", "a");
    let open = OpenUpload::new(BatchId { partition, start: 0, first_time: 0, opened_at: 0 });
    *open.handle.lock() = Some(upload.clone());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _open = open;
        panic!("another");
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"another"));
    assert_eq!(upload.0.load(Ordering::Relaxed), 1);
}

#[test]
fn an_abort_is_what_ends_tries_and_a_permanent_error_is_itself() {
    let (stop, metrics) = (Stop::new(), Metrics::default());
    stop.abort();
    let patience =
        Patience { policy: Policy::default(), stop: &stop, metrics: &metrics, service: "scripted" };
    let fail = |retry| patience.retry(&|| "store".into(), || Err(Error::other("scripted", retry, "busy")));
    assert!(matches!(fail(Retry::Transient), Err(Error::Stopped)));
    assert_eq!(fail(Retry::Permanent).unwrap_err().to_string(), "scripted: busy");
}
