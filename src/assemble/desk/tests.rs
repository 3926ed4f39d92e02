use crossbeam_channel::TryRecvError;

use super::*;
use crate::assemble::tests::{Scene, chunk};
use crate::assemble::{Assembly, Ports};
use crate::batch::Batch;
use crate::budget::Recycler;
use crate::commit::{NOTES, Note};
use crate::crew::Next;
use crate::error::{Error, Retry};
use crate::lot::Tools;
use crate::read::Event;
use crate::sink::{Framing, Shape};
use crate::write::Job;

/// So many bytes are held back.
const HOLD: u64 = 100;

/// The other ends of a desk's channels.
struct Ends {
    results: Sender<Message>,
    jobs: Receiver<Job>,
    notes: Receiver<Note>,
    roused: Receiver<()>,
    _permits: Receiver<()>,
}

fn total(scene: &Scene) -> Assembly<'_> {
    let shape = Shape { order: Order::Total, group: 1 << 20, ..Shape::default() };
    Assembly { shape, hold: HOLD, ..scene.assembly() }
}

/// A desk of one lane and six permits, with places for so many jobs and notes.
fn desk<'a>(at: &'a Assembly<'a>, (jobs, notes): (usize, usize), spare: bool) -> (Desk<'a>, Ends) {
    let ((free, permits), (results, received)) = (bounded(6), bounded(6));
    let ((jobs, todo), (notes, noted)) = (bounded(jobs), bounded(notes));
    let tools = Tools { framing: Framing::Stream, ..Tools::plain(at.budget, &Recycler::new(0, 0)) };
    let (rouse, roused) = bounded(1);
    let ports = Ports { results: received, permits: free, jobs, notes, rouse };
    let desk = Desk::new(Assembler::new(at, tools, ports, 1), 1, spare);
    (desk, Ends { results, jobs: todo, notes: noted, roused, _permits: permits })
}

/// The result of a chunk of thirty bytes.
fn result(seq: u64, next: Next) -> Message {
    Message { lane: 0, seq, events: vec![chunk("a", seq * 30, seq * 30 + 30, 0)], next }
}

/// Where the batches of a job end.
fn ends(job: Job) -> Vec<u64> {
    match job {
        Job::Store(batches) => batches.iter().map(|batch: &Batch| batch.end).collect(),
        _ => Vec::new(),
    }
}

impl Ends {
    fn queued(&self) -> Vec<Vec<u64>> {
        self.jobs.try_iter().map(ends).collect()
    }
}

#[test]
fn output_is_held_back_while_more_is_about_to_come() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (100, 100), false);
    for seq in 0..3 {
        assert!(desk.offer(result(seq, Next::Soon), 0).is_none());
        assert!(others.jobs.is_empty());
    }
    assert!(desk.offer(result(3, Next::Soon), 0).is_none());
    assert_eq!(others.queued(), [[30, 60, 90]], "with the fourth it would be too much");
    desk.settle();
    assert_eq!(others.queued(), [[120]], "the worker leaves");
    assert!(desk.offer(result(4, Next::Soon), 0).is_none());
    assert!(desk.offer(result(5, Next::Unknown), 0).is_none());
    assert_eq!(others.queued(), [[150], [180]], "nobody knows what comes");
    assert!(desk.offer(result(6, Next::Soon), 0).is_none());
    desk.act(Assembler::relieve).unwrap();
    assert_eq!(others.queued(), [[210]], "a reader waits for bytes");
    desk.act(|assembler| assembler.receive(result(7, Next::Soon))).unwrap();
    assert_eq!(others.queued(), [[240]], "the thread knows of nobody who comes back");
}

#[test]
fn the_last_output_is_not_forgotten() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (100, 100), false);
    assert!(desk.offer(result(0, Next::Soon), 0).is_none());
    drop(others.results);
    assert_eq!(desk.run(|| {}).unwrap(), Reading::Cut);
    assert_eq!(others.jobs.try_iter().map(ends).collect::<Vec<_>>(), [[30]]);
    assert_eq!(others.jobs.try_recv().err(), Some(TryRecvError::Disconnected), "writers end");
}

/// What finds no place is handed on by the thread, in the order in which it came.
#[test]
fn a_worker_never_waits_for_a_writer() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (1, 100), false);
    let offer = |seq| desk.offer(result(seq, Next::Unknown), 0);
    assert!(offer(0).is_none() && offer(1).is_none(), "the second finds no place, and is kept");
    let third = offer(2).expect("the thread has to catch up first");
    desk.settle();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| desk.run(|| {}));
        let results = others.results;
        results.send(third).unwrap();
        drop(results);
        let stored: Vec<u64> = others.jobs.iter().flat_map(ends).collect();
        assert_eq!(stored, [30, 60, 90]);
        assert_eq!(thread.join().unwrap().unwrap(), Reading::Cut);
    });
}

/// A note of a batch comes before its job does, whoever sends them.
#[test]
fn what_is_kept_stays_in_order() {
    let scene = Scene::new();
    let at = total(&scene);
    // The first chunk has two notes: of its partition, and of its batch.
    let (desk, others) = desk(&at, (100, 1), false);
    assert!(desk.offer(result(0, Next::Unknown), 0).is_none());
    assert_eq!((others.notes.len(), others.jobs.len()), (1, 0), "the job waits for the note before it");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| desk.run(|| {}));
        assert!(matches!(others.notes.recv(), Ok(Note::Assigned(..))));
        assert!(matches!(others.notes.recv(), Ok(Note::Cut(..))));
        assert_eq!(others.jobs.recv().map(ends), Ok(vec![30]));
        drop(others.results);
        assert_eq!(thread.join().unwrap().unwrap(), Reading::Cut);
    });
}

/// Whoever sends one more than there is place for would wait until its nap is over.
#[test]
fn the_commit_thread_is_roused_where_notes_come_fast() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (1000, 1000), false);
    let mut notes = 0;
    for seq in 0.. {
        assert!(desk.offer(result(seq, Next::Unknown), 0).is_none());
        if others.roused.try_recv().is_ok() {
            break;
        }
        notes = others.notes.len();
        assert!(notes < NOTES);
    }
    assert!((NOTES / 2 - 2..=NOTES / 2).contains(&notes), "{notes}");
    drop(desk);
    assert_eq!(others.roused.try_recv(), Err(TryRecvError::Disconnected), "it takes no nap any more");
}

#[test]
fn what_goes_wrong_with_a_worker_is_told_by_the_thread() {
    let failed = || Event::Chunk(Err(Error::other("scripted", Retry::Permanent, "broken")));
    // There is no such lane: that is a panic.
    for (lane, what) in [(0, "broken"), (7, "index out of bounds")] {
        let scene = Scene::new();
        let at = total(&scene);
        let (desk, others) = desk(&at, (100, 100), false);
        let message = Message { lane, seq: 0, events: vec![failed()], next: Next::Unknown };
        assert!(desk.offer(message, 0).is_none());
        let late = desk.offer(result(1, Next::Unknown), 0);
        assert!(late.is_some(), "nothing is assembled behind that");
        let error = desk.act(|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(others.notes.try_recv().err(), Some(TryRecvError::Disconnected));
        assert!(desk.offer(result(2, Next::Unknown), 0).is_some(), "it is over");
        desk.settle();
    }
}

#[test]
fn where_a_processor_is_free_busy_workers_leave_results_to_the_thread() {
    let scene = Scene::new();
    let at = total(&scene);
    for (spare, waiting, leaves) in [(true, BEHIND, true), (true, BEHIND - 1, false), (false, 1000, false)] {
        let (desk, _others) = desk(&at, (100, 100), spare);
        assert_eq!(desk.offer(result(0, Next::Soon), waiting).is_some(), leaves);
    }
}

/// Whoever came next would take what is missing for done: the next run would begin behind it.
#[test]
fn behind_an_error_of_the_thread_nobody_assembles() {
    for panics in [false, true] {
        let scene = Scene::new();
        let at = total(&scene);
        let (desk, others) = desk(&at, (100, 100), false);
        assert!(desk.offer(result(0, Next::Unknown), 0).is_none());
        let error = Event::Chunk(Err(Error::other("scripted", Retry::Permanent, "broken")));
        let message = Message { lane: 0, seq: 1, events: vec![error], next: Next::Unknown };
        let done = desk.act(|assembler| {
            assert!(!panics, "scripted");
            assembler.receive(message)
        });
        assert!(done.unwrap_err().to_string().contains("scripted"));
        assert!(desk.offer(result(2, Next::Unknown), 0).is_some());
        assert_eq!(others.jobs.try_iter().map(ends).collect::<Vec<_>>(), [[30]]);
        assert_eq!(others.jobs.try_recv().err(), Some(TryRecvError::Disconnected));
        assert!(others.notes.try_iter().all(|note| !matches!(note, Note::Cut(_, cuts) if cuts[0].end > 30)));
    }
}

#[test]
fn writers_end_though_the_thread_never_began() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (100, 100), false);
    drop(desk.closing());
    assert_eq!(others.jobs.try_recv().err(), Some(TryRecvError::Disconnected));
    assert_eq!(others.notes.try_recv().err(), Some(TryRecvError::Disconnected));
}

/// A worker does not wait for another either.
#[test]
fn where_workers_meet_the_thread_takes_the_result() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (100, 100), false);
    let lock = desk.assembler.lock();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let given_back = desk.offer(result(1, Next::Soon), 0).is_some();
            desk.settle();
            given_back
        });
        assert!(worker.join().unwrap());
    });
    drop(lock);
    assert!(desk.nudged.try_recv().is_ok(), "somebody has to look what is held back");
    drop(others);
}

#[test]
fn the_thread_calls_workers_again() {
    let scene = Scene::new();
    let at = total(&scene);
    let (desk, others) = desk(&at, (100, 100), false);
    desk.recall().unwrap();
    assert!(desk.recall().is_err(), "there is one");
    let (called, calls) = bounded(10);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| desk.run(|| called.send(()).unwrap()));
        calls.recv().unwrap();
        desk.recall().unwrap();
        calls.recv().unwrap();
        drop(others.results);
        thread.join().unwrap().unwrap();
    });
    assert!(calls.is_empty());
}
