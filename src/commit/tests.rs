use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::batch::Counts;
use crate::ledger::Content;
use crate::record::Identity;
use crate::source::Forget;

fn tenancy(epoch: u64) -> Partition {
    let name = "a".to_owned();
    Partition::new(Identity { source: "test", name, position: "offset", epoch, ..Identity::default() })
}

fn cut(start: u64, end: u64) -> CutBatch {
    let content = Content::Records;
    CutBatch { start, end, line: 0, resume: None, first_time: 0, opened_at: 0, content }
}

/// Of a partition whose start is remembered nowhere yet.
fn fresh(partition: Partition) -> Mark {
    Mark {
        partition,
        watermark: 0,
        line: 0,
        resume: None,
        plan: Vec::new(),
        rejected: 0,
        ended: false,
        fresh: true,
    }
}

/// Counts how often it is asked to store, and plans.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Marks for Counting {
    fn load(&self, _: &str) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn store(&self, _: &mut [Mark], _: &mut Vec<Partition>) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn plans(&self) -> bool {
        true
    }
}

/// Remembers what was released.
#[derive(Default)]
struct Releasing(Mutex<Vec<Partition>>);

impl Marks for Releasing {
    fn load(&self, _: &str) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn store(&self, _: &mut [Mark], _: &mut Vec<Partition>) -> Result<()> {
        Ok(())
    }

    fn released(&self, partition: &Partition) {
        self.0.lock().push(partition.clone());
    }
}

fn published(partition: &Partition, start: u64, end: u64) -> Note {
    let id = BatchId { partition: partition.clone(), start, first_time: 0, opened_at: 0 };
    let receipt = Receipt {
        id,
        end,
        key: None,
        failed_key: None,
        counts: Counts { read: end - start, ..Counts::default() },
        bytes: 0,
        failed_bytes: 0,
        crc32c: 0,
    };
    Note::Published(vec![(receipt, Close::Count)])
}

/// The marks that are stored now, if anything is.
fn stored(commit: &mut Commit<'_>) -> Option<Vec<Mark>> {
    let flush = commit.begin()?;
    let marks = flush.marks.clone();
    commit.conclude(flush, &[], Ok(())).unwrap();
    Some(marks)
}

#[test]
fn a_partition_has_ended_when_all_of_it_is_published() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Releasing::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    commit.apply(Note::Ended(a.clone())).unwrap();
    let ends = |marks: Option<Vec<Mark>>| -> Vec<(u64, bool)> {
        marks.unwrap().iter().map(|mark| (mark.watermark, mark.ended)).collect()
    };
    assert_eq!(ends(stored(&mut commit)), [(0, false)]);
    commit.apply(published(&a, 0, 10)).unwrap();
    assert_eq!(ends(stored(&mut commit)), [(10, true)]);
    assert!(ledgers.with(&a, |_| ()).is_none(), "it is forgotten");
    assert_eq!(*marks.0.lock(), [], "nobody else waits for it");
}

#[test]
fn a_partition_is_released_when_all_of_it_is_committed() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Releasing::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    commit.apply(Note::Revoked(a.clone())).unwrap();
    assert!(!commit.urgent && stored(&mut commit).is_some());
    assert_eq!(*marks.0.lock(), []);
    commit.apply(published(&a, 0, 10)).unwrap();
    assert!(commit.urgent, "somebody waits for it");
    assert_eq!(*marks.0.lock(), []);
    stored(&mut commit).unwrap();
    assert_eq!(*marks.0.lock(), [a]);
}

#[test]
fn a_partition_that_is_lost_is_not_released() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a, b) = (Releasing::default(), tenancy(1), Partition::named("test", "b"));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    for note in [Note::Assigned(a.clone(), 0, None), Note::Assigned(b.clone(), 0, None)] {
        commit.apply(note).unwrap();
    }
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    commit.apply(Note::Revoked(a.clone())).unwrap();
    commit.apply(Note::Lost(a)).unwrap();
    commit.apply(Note::Ended(b)).unwrap();
    stored(&mut commit).unwrap();
    assert_eq!(*marks.0.lock(), []);
}

/// The note of it may come later: a writer knows it first.
#[test]
fn nothing_is_stored_of_a_partition_that_a_writer_has_lost() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Counting::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    assert!(ledgers.lose(&a));
    assert_eq!(stored(&mut commit).unwrap().len(), 0);
    commit.apply(Note::Cut(a, vec![cut(20, 30)])).unwrap();
    assert!(stored(&mut commit).is_none());
}

#[test]
fn a_mark_goes_on_from_the_one_before() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (a, resume) = (tenancy(1), |byte: u8| Some(std::sync::Arc::from([byte])));
    let mark = Mark {
        partition: a.clone(),
        watermark: 40,
        line: 4,
        resume: resume(1),
        plan: Vec::new(),
        rejected: 3,
        ended: false,
        fresh: true,
    };
    let mut commit = Commit::new(&Forget, &ledgers, &metrics, &stop);
    let found = |commit: &mut Commit<'_>| {
        let mark = stored(commit).unwrap().remove(0);
        (mark.watermark, mark.line, mark.resume, mark.rejected)
    };
    commit.apply(Note::Assigned(a.clone(), 40, Some(mark))).unwrap();
    assert_eq!(found(&mut commit), (40, 4, resume(1), 3));
    let next = CutBatch { line: 6, resume: resume(2), content: Content::Empty, ..cut(40, 60) };
    commit.apply(Note::Cut(a, vec![next])).unwrap();
    assert_eq!(found(&mut commit), (60, 6, resume(2), 3));
}

/// Where nothing is planned a cut alone is no news, but a range without records is.
#[test]
fn a_mark_is_stored_when_the_watermark_moves() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Releasing::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.interval = Duration::from_secs(3600);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    let empty = |start, end| CutBatch { content: Content::Empty, ..cut(start, end) };
    commit.apply(Note::Cut(a.clone(), vec![empty(0, 5)])).unwrap();
    assert_eq!(stored(&mut commit).unwrap()[0].watermark, 5);
    assert!(commit.due > Instant::now() + Duration::from_secs(1800), "the next one is an hour later");
    commit.apply(Note::Cut(a.clone(), vec![cut(5, 10)])).unwrap();
    assert!(commit.is_idle());
    commit.apply(published(&a, 5, 10)).unwrap();
    assert_eq!(stored(&mut commit).unwrap()[0].watermark, 10);
    commit.apply(Note::Cut(a, vec![empty(10, 15)])).unwrap();
    assert_eq!(stored(&mut commit).unwrap()[0].watermark, 15);
}

#[test]
fn marks_are_due_at_once_where_somebody_waits_and_otherwise_now_and_then() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (planning, plain, a) = (Counting::default(), Releasing::default(), tenancy(1));
    for (marks, commits, at_once) in [
        (&planning as &dyn Marks, Commits::Engine, true),
        (&planning, Commits::Sink, true),
        (&plain, Commits::Sink, true),
        (&plain, Commits::Engine, false),
    ] {
        let mut commit = Commit::new(marks, &ledgers, &metrics, &stop);
        (commit.commits, commit.interval) = (commits, Duration::from_secs(3600));
        commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
        assert!(!commit.is_due(), "nothing has changed");
        commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
        assert!(commit.is_due(), "nothing was stored before");
        stored(&mut commit).unwrap();
        commit.apply(published(&a, 0, 10)).unwrap();
        assert_eq!(commit.is_due(), at_once);
        commit.apply(Note::Revoked(a.clone())).unwrap();
        assert!(commit.is_due(), "somebody else is to have it");
        stored(&mut commit).unwrap();
    }
}

#[test]
fn a_mark_that_was_refused_moves_nothing() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Releasing::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.apply(Note::Assigned(a.clone(), 0, None)).unwrap();
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    commit.apply(published(&a, 0, 10)).unwrap();
    let flush = commit.begin().unwrap();
    commit.conclude(flush, std::slice::from_ref(&a), Ok(())).unwrap();
    assert!(ledgers.is_lost(&a) && metrics.totals().partitions.get("a").is_none_or(|range| range.end == 0));
}

#[test]
fn where_the_sink_commits_nothing_is_planned() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, a) = (Counting::default(), tenancy(1));
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.commits = Commits::Sink;
    commit.apply(Note::Assigned(a.clone(), 0, Some(fresh(a.clone())))).unwrap();
    commit.apply(Note::Cut(a.clone(), vec![cut(0, 10)])).unwrap();
    let first = stored(&mut commit).unwrap();
    assert_eq!((first[0].watermark, &first[0].plan[..]), (0, &[][..]));
    commit.apply(published(&a, 0, 10)).unwrap();
    assert_eq!(stored(&mut commit).unwrap().len(), 0, "its receipt is its mark");
}

#[test]
fn behind_an_abort_no_verdict_is_given() {
    let (ledgers, stop, a) = (Ledgers::default(), Stop::default(), tenancy(1));
    ledgers.lose(&a);
    assert_eq!(ledgers.wait_planned(&a, 10, &stop).unwrap(), Verdict::Drop);
    stop.abort();
    assert!(matches!(ledgers.wait_planned(&a, 10, &stop), Err(Error::Stopped)));
}

#[test]
fn with_a_tenancy_all_earlier_ones_are_gone() {
    let mut gone = Gone::default();
    assert!(gone.put(&tenancy(3)) && !gone.put(&tenancy(2)) && !gone.put(&tenancy(3)));
    assert!(gone.contains(&tenancy(2)) && gone.contains(&tenancy(3)) && !gone.contains(&tenancy(4)));
    assert!(gone.put(&tenancy(4)) && gone.contains(&tenancy(4)));
}

#[test]
fn doubts_are_counted_batch_by_batch_in_all_tenancies() {
    let ledgers = Ledgers::default();
    let id = |epoch, start| BatchId { partition: tenancy(epoch), start, first_time: 0, opened_at: 0 };
    let times: Vec<u32> =
        [id(1, 5), id(2, 5), id(2, 9), id(3, 9), id(4, 9)].iter().map(|id| ledgers.doubts(id)).collect();
    assert_eq!(times, [1, 2, 1, 2, 3]);
}

#[test]
fn what_has_come_meanwhile_is_stored_together() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let (marks, (notes, noted)) = (Counting::default(), crossbeam_channel::bounded(100));
    notes.send(Note::Assigned(tenancy(1), 0, None)).unwrap();
    for start in 0..50 {
        notes.send(Note::Cut(tenancy(1), vec![cut(start, start + 1)])).unwrap();
    }
    drop(notes);
    Commit::new(&marks, &ledgers, &metrics, &stop).run(&noted).unwrap();
    assert_eq!(ledgers.verdict(&tenancy(1), 50), Some(Verdict::Publish));
    assert_eq!(marks.0.load(Ordering::SeqCst), 1);
}

#[test]
fn an_end_that_was_not_stored_is_not_planned() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let marks = Counting::default();
    let mut commit = Commit::new(&marks, &ledgers, &metrics, &stop);
    commit.apply(Note::Assigned(tenancy(1), 0, None)).unwrap();
    commit.apply(Note::Cut(tenancy(1), vec![cut(0, 10)])).unwrap();
    let flush = commit.begin().unwrap();
    commit.conclude(flush, &[], Err(Error::Stopped)).unwrap_err();
    assert_eq!(ledgers.verdict(&tenancy(1), 10), None);
    commit.apply(Note::Cut(tenancy(1), vec![cut(10, 20)])).unwrap();
    let flush = commit.begin().unwrap();
    commit.conclude(flush, &[], Ok(())).unwrap();
    assert_eq!(ledgers.verdict(&tenancy(1), 10), Some(Verdict::Publish));
}

#[test]
fn a_loss_that_overtakes_the_assignment_stands() {
    let (ledgers, metrics, stop) = (Ledgers::default(), Metrics::default(), Stop::default());
    let mut commit = Commit::new(&Forget, &ledgers, &metrics, &stop);
    assert!(ledgers.lose(&tenancy(1)));
    commit.assigned(tenancy(1), 0, Some(fresh(tenancy(1))));
    assert!(ledgers.is_lost(&tenancy(1)));
    assert!(!ledgers.lose(&tenancy(1)), "lost once");
    assert!(commit.dirty.is_empty() && !commit.urgent);
    commit.assigned(tenancy(2), 0, Some(fresh(tenancy(2))));
    assert!(!ledgers.is_lost(&tenancy(2)));
    assert!(commit.dirty.contains(&tenancy(2)) && commit.urgent);
}
