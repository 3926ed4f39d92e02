//! The ledger of one partition: which batches are cut, planned and published. Pure.
//!
//! It yields the **watermark**, the end of the contiguous published prefix, and the **plan**, the ends beyond it
//! at which a batch may already be published. A batch may be published only when its end is known to be durable
//! in the plan; a reply acknowledges only the ends that were in its request ([`Ledger::request`]), and an end
//! leaves the plan only when the watermark passes it. Ends recovered from an earlier owner are carried in every
//! request until then.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::source::Planned;

/// The batches of one partition in one tenancy.
#[derive(Clone, Debug)]
pub struct Ledger {
    watermark: u64,
    line: u64,
    resume: Option<Arc<[u8]>>,
    rejected: u64,
    batches: VecDeque<Entry>,
    recovered: VecDeque<Planned>,
    stored: Option<u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    cut: CutBatch,
    stage: Stage,
}

/// A batch as the assembler cut it.
#[derive(Clone, Debug)]
pub struct CutBatch {
    /// Where it starts: the end of the batch before it.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Number of the line that begins at `end`; 0 where lines are not counted.
    pub line: u64,
    /// What the source needs to go on from `end`.
    pub resume: Option<Arc<[u8]>>,
    /// The first record's time.
    pub first_time: i64,
    /// What stands for "now" in it.
    pub opened_at: i64,
    /// Whether there is anything to publish.
    pub content: Content,
}

/// Whether a range has records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It has: the watermark waits for its receipt.
    Records,
    /// It has none: it is done when it is cut.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Cut,
    Requested,
    Planned,
    Published,
}

/// Why the ledger refused something: the engine is wrong, not the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the batch had to start, or the start that is not known.
    pub expected: u64,
    /// Where it started.
    pub found: u64,
}

/// What is to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Everything before this is published.
    pub watermark: u64,
    /// Number of the line that begins at the watermark.
    pub line: u64,
    /// What the source needs to go on from the watermark.
    pub resume: Option<Arc<[u8]>>,
    /// Ends beyond the watermark.
    pub plan: Vec<Planned>,
    /// Records that were rejected before the watermark.
    pub rejected: u64,
}

impl Ledger {
    /// A partition that is done up to `watermark`, with the ends that an earlier owner planned beyond it.
    pub fn new(
        watermark: u64,
        line: u64,
        rejected: u64,
        recovered: impl IntoIterator<Item = Planned>,
    ) -> Self {
        let recovered = recovered.into_iter().filter(|planned| planned.end > watermark).collect();
        Ledger { watermark, line, resume: None, rejected, batches: VecDeque::new(), recovered, stored: None }
    }

    /// With what the source needs to go on from the watermark, until another batch is published.
    pub fn resuming(self, resume: Option<Arc<[u8]>>) -> Self {
        Ledger { resume, ..self }
    }

    /// Everything before this position is published.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Where the next batch must start.
    pub fn head(&self) -> u64 {
        self.batches.back().map_or(self.watermark, |entry| entry.cut.end)
    }

    /// How many batches are cut and not yet below the watermark.
    pub fn open(&self) -> usize {
        self.batches.len()
    }

    /// A batch was cut.
    ///
    /// # Errors
    /// If it does not start where the last one ended, or is no range: a record would be lost or stored twice.
    pub fn cut(&mut self, cut: CutBatch) -> Result<(), Gap> {
        let expected = self.head();
        if cut.start != expected || cut.end <= cut.start {
            return Err(Gap { expected, found: cut.start });
        }
        let recovered = self.recovered.iter().any(|planned| planned.end == cut.end);
        let stage = match cut.content {
            Content::Empty => Stage::Published,
            Content::Records if recovered => Stage::Planned,
            Content::Records => Stage::Cut,
        };
        self.batches.push_back(Entry { cut, stage });
        self.advance();
        Ok(())
    }

    /// What is to be made durable now, with every end that is cut. Remember it until the reply:
    /// [`Ledger::acknowledge`] takes it.
    pub fn request(&mut self) -> Request {
        for entry in &mut self.batches {
            if entry.stage == Stage::Cut {
                entry.stage = Stage::Requested;
            }
        }
        Request { plan: self.plan(), ..self.snapshot() }
    }

    /// What is to be made durable where nothing is planned.
    pub fn snapshot(&self) -> Request {
        Request {
            watermark: self.watermark,
            line: self.line,
            resume: self.resume.clone(),
            plan: Vec::new(),
            rejected: self.rejected,
        }
    }

    fn plan(&self) -> Vec<Planned> {
        // Ends of empty ranges too: a batch behind one starts there, and its name comes from its start.
        let mut plan: Vec<Planned> = self
            .batches
            .iter()
            .map(|entry| Planned {
                end: entry.cut.end,
                first_time: entry.cut.first_time,
                opened_at: entry.cut.opened_at,
            })
            .collect();
        let head = self.head();
        plan.extend(self.recovered.iter().filter(|planned| planned.end > head).cloned());
        plan
    }

    /// The request is durable: its ends may be published.
    pub fn acknowledge(&mut self, request: &Request) {
        for entry in &mut self.batches {
            if entry.stage == Stage::Requested
                && request.plan.iter().any(|planned| planned.end == entry.cut.end)
            {
                entry.stage = Stage::Planned;
            }
        }
        self.stored = Some(request.watermark);
    }

    /// The request failed: its ends must be requested again.
    pub fn refuse(&mut self) {
        for entry in &mut self.batches {
            if entry.stage == Stage::Requested {
                entry.stage = Stage::Cut;
            }
        }
    }

    /// Whether the batch that ends at `end` may be published. An end below the watermark may.
    pub fn is_planned(&self, end: u64) -> bool {
        let index = self.batches.partition_point(|entry| entry.cut.end < end);
        end <= self.watermark
            || self
                .batches
                .get(index)
                .is_some_and(|entry| entry.cut.end == end && entry.stage >= Stage::Planned)
    }

    /// Whether the watermark moved since the last acknowledged request.
    pub fn has_moved(&self) -> bool {
        self.stored.is_none_or(|stored| stored < self.watermark)
    }

    /// The batch that starts at `start` is published.
    ///
    /// # Errors
    /// If no such batch is open.
    pub fn publish(&mut self, start: u64, rejected: u64) -> Result<(), Gap> {
        let index = self.batches.partition_point(|entry| entry.cut.start < start);
        match self.batches.get_mut(index) {
            Some(entry) if entry.cut.start == start && entry.stage < Stage::Published => {
                entry.stage = Stage::Published
            }
            _ => return Err(Gap { expected: self.watermark, found: start }),
        }
        self.rejected += rejected;
        self.advance();
        Ok(())
    }

    fn advance(&mut self) {
        while let Some(entry) = self.batches.pop_front_if(|entry| entry.stage == Stage::Published) {
            self.watermark = entry.cut.end;
            self.line = entry.cut.line;
            self.resume = entry.cut.resume;
        }
        while self.recovered.pop_front_if(|planned| planned.end <= self.watermark).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn batch(start: u64, end: u64, content: Content) -> CutBatch {
        CutBatch { start, end, line: 0, resume: None, first_time: 0, opened_at: 0, content }
    }

    #[test]
    fn the_watermark_is_the_end_of_the_contiguous_published_prefix() {
        let mut ledger = Ledger::new(10, 0, 0, []);
        for start in [10, 20, 30] {
            ledger.cut(batch(start, start + 10, Content::Records)).unwrap();
        }
        ledger.publish(30, 0).unwrap();
        ledger.publish(10, 2).unwrap();
        assert_eq!(ledger.watermark(), 20);
        ledger.publish(20, 1).unwrap();
        assert_eq!((ledger.watermark(), ledger.request().rejected), (40, 3));
    }

    #[test]
    fn a_gap_and_a_second_receipt_are_refused() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        assert_eq!(ledger.cut(batch(5, 9, Content::Records)), Err(Gap { expected: 0, found: 5 }));
        ledger.cut(batch(0, 9, Content::Records)).unwrap();
        ledger.publish(0, 0).unwrap();
        assert!(ledger.publish(0, 0).is_err());
    }

    #[test]
    fn a_batch_without_a_position_is_no_batch() {
        let mut ledger = Ledger::new(7, 0, 0, []);
        for end in [7, 6] {
            let gap = Gap { expected: 7, found: 7 };
            assert_eq!(ledger.cut(batch(7, end, Content::Records)), Err(gap), "it ends at {end}");
        }
    }

    /// Also while an earlier batch keeps the watermark back.
    #[test]
    fn only_a_batch_that_is_open_is_published() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        ledger.cut(batch(0, 10, Content::Records)).unwrap();
        ledger.cut(batch(10, 20, Content::Records)).unwrap();
        assert_eq!(ledger.publish(5, 1), Err(Gap { expected: 0, found: 5 }), "no batch starts there");
        ledger.publish(10, 1).unwrap();
        assert_eq!(ledger.publish(10, 1), Err(Gap { expected: 0, found: 10 }), "published twice");
        ledger.publish(0, 0).unwrap();
        assert_eq!((ledger.watermark(), ledger.request().rejected), (20, 1));
    }

    #[test]
    fn what_goes_on_at_the_watermark_moves_with_it() {
        let resume = |byte: u8| Some(Arc::from([byte]));
        let at = |ledger: &Ledger| {
            let request = ledger.snapshot();
            (request.watermark, request.line, request.resume)
        };
        let mut ledger = Ledger::new(10, 2, 0, []).resuming(resume(1));
        for (start, line) in [(10, 4), (20, 6)] {
            let cut = batch(start, start + 10, Content::Records);
            ledger.cut(CutBatch { line, resume: resume(line as u8), ..cut }).unwrap();
        }
        assert_eq!(at(&ledger), (10, 2, resume(1)));
        ledger.publish(20, 0).unwrap();
        assert_eq!(at(&ledger), (10, 2, resume(1)));
        ledger.publish(10, 0).unwrap();
        assert_eq!(at(&ledger), (30, 6, resume(6)));
    }

    #[test]
    fn it_has_moved_until_its_watermark_is_stored() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        assert!(ledger.has_moved(), "where it begins is stored nowhere");
        let request = ledger.request();
        ledger.acknowledge(&request);
        ledger.cut(batch(0, 5, Content::Records)).unwrap();
        assert!(!ledger.has_moved());
        ledger.publish(0, 0).unwrap();
        assert!(ledger.has_moved());
    }

    #[test]
    fn what_is_below_the_watermark_may_be_published() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        ledger.cut(batch(0, 5, Content::Empty)).unwrap();
        assert!(ledger.is_planned(5) && !ledger.is_planned(6));
    }

    #[test]
    fn an_empty_range_advances_without_a_receipt() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        ledger.cut(batch(0, 7, Content::Empty)).unwrap();
        assert_eq!(ledger.watermark(), 7);
    }

    #[test]
    fn a_reply_acknowledges_only_the_ends_of_its_request() {
        let mut ledger = Ledger::new(0, 0, 0, []);
        ledger.cut(batch(0, 5, Content::Records)).unwrap();
        let request = ledger.request();
        ledger.cut(batch(5, 9, Content::Records)).unwrap();
        ledger.acknowledge(&request);
        assert!(ledger.is_planned(5) && !ledger.is_planned(9));
    }

    #[test]
    fn recovered_ends_stay_in_the_plan_until_the_watermark_passes_them() {
        let end = |end| Planned { end, first_time: 1, opened_at: 2 };
        let mut ledger = Ledger::new(0, 0, 0, [end(5), end(9)]);
        ledger.cut(batch(0, 5, Content::Records)).unwrap();
        assert!(ledger.is_planned(5));
        let ends = |ledger: &mut Ledger| ledger.request().plan.iter().map(|p| p.end).collect::<Vec<_>>();
        assert_eq!(ends(&mut ledger), [5, 9]);
        ledger.publish(0, 0).unwrap();
        assert_eq!(ends(&mut ledger), [9]);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Cut(u64, bool),
        Request,
        Reply(bool),
        Publish(usize),
        Crash,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0u64..5, any::<bool>()).prop_map(|(len, empty)| Act::Cut(len, empty)),
            Just(Act::Request),
            any::<bool>().prop_map(Act::Reply),
            (0usize..4).prop_map(Act::Publish),
            Just(Act::Crash),
        ];
        proptest::collection::vec(act, 0..120)
    }

    /// What is durable: the coordinator's mark, and the objects by start.
    #[derive(Default)]
    struct World {
        mark: Option<Request>,
        objects: std::collections::BTreeMap<u64, u64>,
    }

    impl World {
        /// No position stored twice, none missing below the watermark.
        fn check(&self, watermark: u64) {
            let mut covered = HashSet::new();
            for (start, end) in &self.objects {
                for position in *start..*end {
                    assert!(covered.insert(position), "position {position} is stored twice");
                }
            }
            for position in 0..watermark {
                // Odd positions hold no record: ranges of only those are never stored.
                assert!(covered.contains(&position) || position % 2 == 1, "position {position} is lost");
            }
        }

        fn recover(&self) -> Ledger {
            let mark = self.mark.clone();
            mark.map_or_else(
                || Ledger::new(0, 0, 0, []),
                |mark| Ledger::new(mark.watermark, 0, mark.rejected, mark.plan),
            )
        }
    }

    /// The next batch: up to a recovered end if there is one. A range is empty only if it has no even position.
    fn next_batch(ledger: &Ledger, len: u64, want_empty: bool) -> CutBatch {
        let start = ledger.head();
        let planned = ledger.recovered.iter().map(|planned| planned.end).find(|end| *end > start);
        let empty = want_empty && start % 2 == 1;
        let end = planned.unwrap_or(if empty { start + 1 } else { start + len + 1 });
        let content = if end - start == 1 && start % 2 == 1 { Content::Empty } else { Content::Records };
        batch(start, end, content)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// A random history with crashes: whatever happens, positions are stored once, and none is skipped.
        #[test]
        fn a_history_loses_nothing_and_stores_nothing_twice(acts in acts()) {
            let mut world = World::default();
            let mut ledger = world.recover();
            let mut sent: Option<Request> = None;
            for act in acts {
                match act {
                    Act::Cut(len, empty) => ledger.cut(next_batch(&ledger, len, empty)).unwrap(),
                    Act::Request if sent.is_none() => {
                        let request = ledger.request();
                        world.mark = Some(request.clone());
                        sent = Some(request);
                    }
                    Act::Reply(arrives) => if let Some(request) = sent.take() {
                        if arrives { ledger.acknowledge(&request) } else { ledger.refuse() }
                    }
                    Act::Publish(nth) => {
                        let ready = ledger.batches.iter().filter(|e| e.stage == Stage::Planned).nth(nth);
                        if let Some((start, end)) = ready.map(|e| (e.cut.start, e.cut.end)) {
                            world.objects.insert(start, end);
                            ledger.publish(start, 0).unwrap();
                        }
                    }
                    Act::Crash => {
                        sent = None;
                        ledger = world.recover();
                    }
                    Act::Request => {}
                }
                let stored = world.mark.as_ref().map_or(0, |mark| mark.watermark);
                prop_assert!(stored <= ledger.watermark());
                world.check(ledger.watermark());
            }
        }
    }
}
