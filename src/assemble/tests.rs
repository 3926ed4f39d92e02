use crate::sink::DeadLetters;
use crossbeam_channel::{bounded, never};

use super::*;
use crate::batch::{Counts, Piece};
use crate::budget::Recycler;
use crate::process::{Block, Wait};
use crate::record::{Chunk, Cut, Errand, Identity};
use crate::sink::Framing;
use crate::source::Planned;
use crate::transform::Sample;

const HOUR: Duration = Duration::from_secs(3600);
const PERMITS: usize = 6;
const LIMIT: usize = 1000;

impl<'a> Assembly<'a> {
    /// Of a sink that stores in any order; nothing closes by itself.
    pub(crate) fn plain(
        (budget, metrics, stop): (&'a Arc<Budget>, &'a Metrics, &'a Stop),
        flows: &'a Flows,
        pending: &'a AtomicUsize,
        faults: &'a Mutex<Vec<Error>>,
    ) -> Self {
        Assembly {
            shape: Shape { order: Order::Any, ..Shape::default() },
            cuts: Cuts::Early,
            budget,
            metrics,
            stop,
            flows,
            pending,
            batch_wait: HOUR,
            gather: Duration::ZERO,
            hold: 0,
            on_reject: OnReject::DeadLetter,
            max_rejected: None,
            rejected_before: 0,
            slots: 1,
            faults,
        }
    }
}

/// What an assembler shares with others.
pub(super) struct Scene {
    budget: Arc<Budget>,
    metrics: Metrics,
    stop: Stop,
    flows: Flows,
    pending: AtomicUsize,
    faults: Mutex<Vec<Error>>,
}

/// The other ends of its channels.
struct Ends {
    permits: Receiver<()>,
    jobs: Receiver<Job>,
    notes: Receiver<Note>,
}

impl Scene {
    pub(super) fn new() -> Self {
        Scene {
            budget: Budget::new(LIMIT),
            metrics: Metrics::default(),
            stop: Stop::new(),
            flows: vec![Mutex::default()],
            pending: AtomicUsize::new(0),
            faults: Mutex::default(),
        }
    }

    pub(super) fn assembly(&self) -> Assembly<'_> {
        let shared = (&self.budget, &self.metrics, &self.stop);
        Assembly::plain(shared, &self.flows, &self.pending, &self.faults)
    }

    /// Partitions that were paused, or go on.
    fn flows(&self) -> Vec<(String, Flow)> {
        self.flows[0].lock().drain(..).map(|(of, flow)| (of.name().to_owned(), flow)).collect()
    }
}

/// An assembler of one lane, with all permits free.
fn assembler<'a>(at: &'a Assembly<'a>) -> (Assembler<'a>, Ends) {
    let (free, permits) = bounded(PERMITS);
    let ((jobs, todo), (notes, noted)) = (bounded(100), bounded(100));
    for _ in 0..PERMITS {
        free.send(()).unwrap();
    }
    let tools = Tools { framing: Framing::Stream, ..Tools::plain(at.budget, &Recycler::new(0, 0)) };
    let ports = Ports { results: never(), permits: free, jobs, notes, rouse: bounded(1).0 };
    (Assembler::new(at, tools, ports, 1), Ends { permits, jobs: todo, notes: noted })
}

impl Ends {
    /// Name, end and reason of the batches that go to the sink.
    fn batches(&self) -> Vec<(String, u64, Close)> {
        let stored = self.jobs.try_iter().flat_map(|job| match job {
            Job::Store(batches) => batches,
            _ => Vec::new(),
        });
        stored.map(|batch| (batch.id.partition.name().to_owned(), batch.end, batch.close)).collect()
    }
}

fn of(name: &str) -> Partition {
    Partition::named("test", name)
}

/// A chunk of one open section, of which some records are rejected; a byte of output for each position.
pub(super) fn chunk(name: &str, from: u64, to: u64, rejected: u64) -> Event {
    section(name, from, to, rejected, Close::Open)
}

fn section(name: &str, from: u64, to: u64, rejected: u64, close: Close) -> Event {
    let section = SectionOut {
        cut: Cut { entry: 0, end: to, line: 0, close, opened_at: 0 },
        opened_at: 0,
        first_time: None,
        counts: Counts { read: to - from, rejected, ..Counts::default() },
        wait: Wait::Size,
        stored: Some(Block::Encoded(Piece::owned(vec![b'x'; (to - from) as usize]))),
        failed: None,
    };
    Event::Chunk(Ok(Processed {
        partition: of(name),
        start: from,
        first: Some(from),
        end: to,
        sections: vec![section],
        resume: None,
        within: Vec::new(),
        samples: vec![Sample { place: name.into(), reason: "scripted".into() }],
        errand: None,
    }))
}

fn planned(name: &str, ends: &[u64]) -> Event {
    let mark = Mark {
        partition: of(name),
        watermark: 0,
        line: 0,
        resume: None,
        plan: ends.iter().map(|end| Planned { end: *end, first_time: 0, opened_at: 0 }).collect(),
        rejected: 0,
        ended: false,
        fresh: false,
    };
    Event::Assigned(of(name), Some(mark))
}

/// Knows the lines of its chunk, or that nothing of it may be stored.
struct Knows(Option<(u64, u64)>);

impl Errand for Knows {
    fn run(&mut self, _chunk: &mut Chunk) {}

    fn lines(&self) -> Option<(u64, u64)> {
        self.0
    }
}

/// What a worker could not read, and what it read behind that, is as if it had not been: it may come again.
#[test]
fn what_may_not_be_stored_moves_nothing() {
    let left = |from, to, lines| {
        let Event::Chunk(Ok(mut processed)) = chunk("a", from, to, 1) else { unreachable!() };
        processed.errand = Some(Box::new(Knows(lines)));
        Event::Chunk(Ok(processed))
    };
    let scene = Scene::new();
    let assembly = scene.assembly();
    let (mut assembler, ends) = assembler(&assembly);
    for event in [left(0, 10, Some((1, 6))), left(10, 20, None), left(20, 30, None), chunk("a", 10, 15, 0)] {
        assembler.event(0, event).unwrap();
    }
    assert_eq!(scene.metrics.seen.load(Ordering::Relaxed), 15);
    let failed = || Event::Failed(of("a"), Error::Usage("it cannot be read".into()));
    assembler.event(0, left(15, 25, Some((6, 9)))).unwrap();
    assembler.event(0, left(25, 35, None)).unwrap();
    assembler.event(0, failed()).unwrap();
    let batches: Vec<Batch> = ends
        .jobs
        .try_iter()
        .filter_map(|job| match job {
            Job::Store(mut batches) => batches.pop(),
            _ => None,
        })
        .collect();
    assert_eq!(batches.len(), 1);
    assert_eq!((batches[0].end, batches[0].line, batches[0].counts.read), (25, 9, 25));
}

#[test]
fn a_slot_goes_to_the_next_when_its_partition_needs_it_no_more() {
    let ways: [fn() -> Event; 4] = [
        || section("a", 0, 20, 0, Close::Planned),
        || Event::Lost(of("a")),
        || Event::Revoked(of("a")),
        || Event::Ended(of("a")),
    ];
    for (way, leaves) in ways.iter().enumerate() {
        let scene = Scene::new();
        let assembly = scene.assembly();
        let (mut assembler, _ends) = assembler(&assembly);
        for event in [planned("a", &[20]), planned("b", &[20])] {
            assembler.event(0, event).unwrap();
        }
        assert_eq!(scene.flows(), [("b".to_owned(), Flow::Pause)]);
        assembler.event(0, leaves()).unwrap();
        assert_eq!(scene.flows(), [("b".to_owned(), Flow::Run)], "way {way}");
    }
}

#[test]
fn a_slot_is_kept_until_all_planned_ends_are_passed() {
    let scene = Scene::new();
    let assembly = scene.assembly();
    let (mut assembler, _ends) = assembler(&assembly);
    for event in [planned("a", &[20, 30]), planned("b", &[20])] {
        assembler.event(0, event).unwrap();
    }
    scene.flows();
    assembler.event(0, section("a", 0, 20, 0, Close::Planned)).unwrap();
    assert_eq!(scene.flows(), []);
    assembler.event(0, section("a", 20, 30, 0, Close::Planned)).unwrap();
    assert_eq!(scene.flows(), [("b".to_owned(), Flow::Run)]);
}

#[test]
fn whoever_goes_while_it_waits_for_a_slot_is_given_none() {
    let scene = Scene::new();
    let assembly = scene.assembly();
    let (mut assembler, _ends) = assembler(&assembly);
    for event in [planned("a", &[20]), planned("b", &[20]), Event::Lost(of("b")), planned("c", &[20])] {
        assembler.event(0, event).unwrap();
    }
    let named = |flows: &[(&str, Flow)]| -> Vec<(String, Flow)> {
        flows.iter().map(|(name, flow)| ((*name).to_owned(), *flow)).collect()
    };
    assert_eq!(scene.flows(), named(&[("b", Flow::Pause), ("b", Flow::Run), ("c", Flow::Pause)]));
    assembler.event(0, Event::Lost(of("a"))).unwrap();
    assert_eq!(scene.flows(), named(&[("c", Flow::Run)]));
    // Others wait longer.
    for event in [planned("d", &[20]), planned("e", &[20]), Event::Lost(of("e"))] {
        assembler.event(0, event).unwrap();
    }
    assert_eq!(scene.flows(), named(&[("d", Flow::Pause), ("e", Flow::Pause), ("e", Flow::Run)]));
    assembler.event(0, Event::Lost(of("d"))).unwrap();
    assert_eq!(scene.flows(), named(&[("d", Flow::Run)]));
    // Nobody waits: it is free.
    assembler.event(0, Event::Lost(of("c"))).unwrap();
    assembler.event(0, planned("f", &[20])).unwrap();
    assert_eq!(scene.flows(), []);
}

/// But a sink that commits is told of it.
#[test]
fn a_range_without_records_is_cut_and_not_stored() {
    for (commits, stored) in [(Commits::Engine, 0), (Commits::Sink, 1)] {
        let scene = Scene::new();
        let mut assembly = scene.assembly();
        assembly.shape.commits = commits;
        let (mut assembler, ends) = assembler(&assembly);
        let Event::Chunk(Ok(mut processed)) = section("a", 0, 10, 0, Close::Count) else { unreachable!() };
        processed.first = None;
        (processed.sections[0].counts, processed.sections[0].stored) = (Counts::default(), None);
        assembler.event(0, Event::Chunk(Ok(processed))).unwrap();
        assert_eq!(ends.batches().len(), stored);
        let cuts = ends.notes.try_iter().flat_map(|note| match note {
            Note::Cut(_, cuts) => cuts,
            _ => Vec::new(),
        });
        let told = if stored == 0 { Content::Empty } else { Content::Records };
        assert_eq!(cuts.map(|cut| (cut.end, cut.content)).collect::<Vec<_>>(), [(10, told)]);
    }
}

#[test]
fn where_no_dead_letter_can_be_kept_it_ends_the_run_unless_all_are_dropped() {
    for (dead_letters, on_reject, refused) in [
        (DeadLetters::Refuse, OnReject::DeadLetter, true),
        (DeadLetters::Refuse, OnReject::Drop, false),
        (DeadLetters::Store, OnReject::DeadLetter, false),
        (DeadLetters::Store, OnReject::Fail, true),
    ] {
        let scene = Scene::new();
        let mut assembly = Assembly { on_reject, ..scene.assembly() };
        assembly.shape.dead_letters = dead_letters;
        let (mut assembler, _ends) = assembler(&assembly);
        assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
        assert!(scene.stop.is_running());
        assembler.event(0, chunk("a", 10, 20, 1)).unwrap();
        assert_eq!(!scene.stop.is_running(), refused, "{dead_letters:?} {on_reject:?}");
    }
}

/// What was dropped is not at its end, whatever the reader says.
#[test]
fn behind_a_refusal_nothing_is_cut_and_nothing_ends() {
    let scene = Scene::new();
    let assembly = Assembly { on_reject: OnReject::Fail, ..scene.assembly() };
    let (mut assembler, ends) = assembler(&assembly);
    assembler.event(0, section("a", 0, 10, 0, Close::Count)).unwrap();
    assembler.event(0, chunk("b", 0, 10, 0)).unwrap();
    assert!(scene.stop.is_running());
    assembler.event(0, section("a", 10, 20, 1, Close::Count)).unwrap();
    assert!(!scene.stop.is_running() && !scene.stop.is_aborted());
    assert!(matches!(scene.faults.lock()[..], [Error::Rejected { .. }]));
    ends.notes.try_iter().for_each(drop);
    assert_eq!(ends.batches(), [("a".to_owned(), 10, Close::Count)]);
    for event in [section("a", 20, 30, 0, Close::Count), section("c", 0, 10, 0, Close::Count)] {
        assembler.event(0, event).unwrap();
    }
    for event in [Event::Ended(of("a")), Event::Ended(of("b")), Event::Done] {
        assembler.event(0, event).unwrap();
    }
    assert_eq!(assembler.end().unwrap(), Reading::Cut);
    assert!(ends.notes.try_iter().all(|note| matches!(note, Note::Revoked(_))));
    assert_eq!(ends.batches(), []);
}

/// Takes chunks of so many records, of which so many are rejected, and then the end of the run, if it comes to one.
/// Returns after how many chunks there are too many, one more standing for the end.
fn too_many(limit: MaxRejected, before: u64, chunks: &[(u64, u64)], finished: bool) -> Option<usize> {
    let scene = Scene::new();
    let assembly = Assembly { max_rejected: Some(limit), rejected_before: before, ..scene.assembly() };
    let (mut assembler, _ends) = assembler(&assembly);
    let (mut at, mut found) = (0, None);
    for (index, (read, rejected)) in chunks.iter().enumerate() {
        assembler.event(0, chunk("a", at, at + read, *rejected)).unwrap();
        at += read;
        found = found.or((!scene.faults.lock().is_empty()).then_some(index + 1));
    }
    if finished {
        assembler.event(0, Event::Done).unwrap();
    }
    assembler.end().unwrap();
    found.or((!scene.faults.lock().is_empty()).then_some(chunks.len() + 1))
}

#[test]
fn more_than_a_count_are_too_many_with_those_of_the_run_before() {
    let five = MaxRejected::Count(5);
    assert_eq!(too_many(five, 0, &[(10, 5), (10, 0)], true), None);
    assert_eq!(too_many(five, 0, &[(10, 3), (10, 0), (10, 3)], true), Some(3));
    assert_eq!(too_many(five, 2, &[(10, 3), (10, 1)], true), Some(2));
}

#[test]
fn more_than_a_share_are_too_many_once_there_are_records_enough_or_no_more() {
    let tenth = MaxRejected::Percent(10.0);
    assert_eq!(too_many(tenth, 0, &[(999, 500), (1, 0)], true), Some(2), "a thousand are enough");
    assert_eq!(too_many(tenth, 0, &[(1000, 100)], true), None);
    assert_eq!(too_many(tenth, 0, &[(500, 0), (500, 101)], true), Some(2));
    assert_eq!(too_many(tenth, 0, &[(10, 2)], true), Some(2), "of all there are");
    assert_eq!(too_many(tenth, 0, &[(10, 2)], false), None, "there are more, which nobody has read");
    assert_eq!(too_many(tenth, 100, &[(10, 1)], true), None);
}

/// What is stored and given up at the end of a run that was not finished.
fn drained(cuts: Cuts, once: bool) -> (Vec<u64>, usize) {
    let scene = Scene::new();
    let assembly = Assembly { cuts, ..scene.assembly() };
    let (mut assembler, ends) = assembler(&assembly);
    let Event::Chunk(Ok(mut processed)) = chunk("a", 0, 10, 0) else { unreachable!() };
    processed.partition = Partition::new(Identity { once, ..of("a").identity().clone() });
    assembler.event(0, Event::Chunk(Ok(processed))).unwrap();
    assert_eq!(assembler.end().unwrap(), Reading::Cut);
    let revoked = ends.notes.try_iter().filter(|note| matches!(note, Note::Revoked(_))).count();
    (ends.batches().into_iter().map(|(_, end, _)| end).collect(), revoked)
}

#[test]
fn what_is_open_at_a_drain_is_stored_unless_it_can_be_cut_elsewhere_the_next_time() {
    assert_eq!(drained(Cuts::Early, false), (vec![10], 1));
    assert_eq!(drained(Cuts::Fixed, false), (vec![], 0));
    assert_eq!(drained(Cuts::Fixed, true), (vec![10], 0));
}

#[test]
fn behind_an_abort_nothing_is_closed() {
    let scene = Scene::new();
    let assembly = scene.assembly();
    let (mut assembler, ends) = assembler(&assembly);
    assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
    scene.stop.abort();
    assert!(matches!(assembler.end(), Err(Error::Stopped)));
    assert_eq!(ends.batches(), []);
}

#[test]
fn a_batch_is_closed_when_it_was_open_for_long_enough() {
    for (batch_wait, closed) in [(HOUR, 0), (Duration::ZERO, 1)] {
        let scene = Scene::new();
        let assembly = Assembly { batch_wait, ..scene.assembly() };
        let (mut assembler, ends) = assembler(&assembly);
        assembler.event(0, chunk("a", 0, 10, 0)).unwrap();
        assembler.close_aged().unwrap();
        assert_eq!(ends.batches().len(), closed);
    }
}

/// Otherwise it would never be known that nothing is in flight.
#[test]
fn behind_the_last_result_no_permit_is_owed() {
    let scene = Scene::new();
    let assembly = scene.assembly();
    let (mut assembler, ends) = assembler(&assembly);
    for _ in 0..3 {
        ends.permits.recv().unwrap();
    }
    let mut free = Vec::new();
    for (seq, more) in [(0, true), (1, true), (2, false)] {
        let event = chunk("a", seq * 10, seq * 10 + 10, 0);
        assembler.receive(Message { lane: 0, seq, events: vec![event], next: Next::Unknown }).unwrap();
        assert_eq!(assembler.is_any_under_way(), more);
        free.push(ends.permits.len());
    }
    assert_eq!(free, [PERMITS - 3, PERMITS - 1, PERMITS], "a third of all at a time, and the last alone");
}

/// Open batches of these sizes, and what else there is.
struct Tight<'a> {
    open: &'a [(&'a str, u64)],
    cuts: Cuts,
    elsewhere: usize,
    pending: usize,
    permits: usize,
}

impl Tight<'_> {
    /// Lets a reader wait for bytes. Returns the batches that were closed, and whether the reader may go on all the
    /// same.
    fn relieved(&self) -> (Vec<(String, u64, Close)>, bool) {
        let scene = Scene::new();
        let assembly = Assembly { cuts: self.cuts, ..scene.assembly() };
        let (mut assembler, ends) = assembler(&assembly);
        for (name, size) in self.open {
            assembler.event(0, chunk(name, 0, *size, 0)).unwrap();
        }
        scene.pending.store(self.pending, Ordering::Relaxed);
        for _ in self.permits..PERMITS {
            ends.permits.recv().unwrap();
        }
        let held: u64 = self.open.iter().map(|(_, size)| size).sum();
        let _out = scene.budget.charge(held as usize + self.elsewhere);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| drop(scene.budget.acquire(LIMIT, &scene.stop)));
            scene.budget.pressure().recv().unwrap();
            assembler.relieve().unwrap();
            let goes_on = scene.budget.waiting_still() == 0;
            scene.stop.drain();
            scene.budget.notify();
            reader.join().unwrap();
            (ends.batches(), goes_on)
        })
    }
}

const TIGHT: Tight<'_> = Tight {
    open: &[("a", 100), ("b", 300), ("c", 200)],
    cuts: Cuts::Early,
    elsewhere: LIMIT / 4,
    pending: 0,
    permits: PERMITS,
};

#[test]
fn under_pressure_the_largest_batch_is_closed_if_little_else_would_free_bytes() {
    let largest = (vec![("b".to_owned(), 300, Close::Pressure)], false);
    assert_eq!(TIGHT.relieved(), largest);
    assert_eq!(Tight { pending: 1, permits: 0, ..TIGHT }.relieved(), largest, "whatever is in flight");
    let much = Tight { elsewhere: LIMIT / 4 + 1, ..TIGHT };
    assert_eq!(Tight { pending: 1, ..much }.relieved(), (vec![], false), "much is stored soon");
    assert_eq!(Tight { permits: 0, ..much }.relieved(), (vec![], false), "much is on its way");
}

#[test]
fn where_nothing_may_be_closed_a_reader_overdraws_once_nothing_is_in_flight() {
    let fixed = || Tight { cuts: Cuts::Fixed, ..TIGHT };
    assert_eq!(fixed().relieved(), (vec![], true));
    assert_eq!(Tight { pending: 1, ..fixed() }.relieved(), (vec![], false), "a job is with the sink");
    let under_way = Tight { permits: PERMITS - 1, ..fixed() };
    assert_eq!(under_way.relieved(), (vec![], false), "a chunk is with the pool");
    // Somebody keeps it, but not for a second yet.
    assert_eq!(Tight { elsewhere: LIMIT / 4 + 1, ..fixed() }.relieved(), (vec![], false));
    // To close what holds nothing would free nothing.
    assert_eq!(Tight { open: &[("a", 0)], elsewhere: 1, ..TIGHT }.relieved(), (vec![], true));
}
