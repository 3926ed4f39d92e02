//! A process: one run of the program, made of the real parts, whose threads take their steps in any order.
//!
//! Real: cutters, shop and assembler, ledgers and the commit thread's state, the group's state, rounds of commits,
//! metadata, the table of partitions, names, and what is decided about an object. Simulated: whoever waits for an
//! answer (`tend`: the group's thread, `read`: a reader, `commits`: the sending half of the commit thread, `publish`:
//! writers).

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never};
use parking_lot::Mutex;

use super::commits::Flying;
use super::coordinator::Trouble;
use super::outside::Outside;
use super::publish::Uploading;
use super::read::Held;
use super::tend::Stance;
use crate::assemble::{Assembler, Assembly, Ports};
use crate::batch::Batch;
use crate::budget::{Budget, Recycler};
use crate::codec::Codec;
use crate::commit::{Commit, Ledgers, Note};
use crate::config::kafka::{OutOfRange, Until};
use crate::cut::{Cutters, Limits};
use crate::error::Error;
use crate::kafka::cluster::Cluster;
use crate::kafka::consumer::FetchSettings;
use crate::kafka::group::{Group, GroupSettings};
use crate::lot::Tools;
use crate::metrics::Metrics;
use crate::process::{Chunks, Shop};
use crate::read::{Event, Flows};
use crate::record::{Payload, Section};
use crate::sink::{Framing, Order, Shape};
use crate::source::kafka::marks::GroupMarks;
use crate::source::kafka::{KafkaOptions, KafkaSource, Shared};
use crate::source::{Cuts, Flow};
use crate::stop::Stop;
use crate::transform::{Out, Program};
use crate::write::Job;

/// The topic's name.
pub const TOPIC: &str = "t";
/// No session ends by the clock here.
const LONG: Duration = Duration::from_secs(3600);

/// What is counted is of no interest here.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Things of one kind that live as long as a history: processes borrow from them, and die and come back.
pub struct Shelf<T> {
    value: OnceCell<T>,
    next: OnceCell<Box<Shelf<T>>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf { value: OnceCell::new(), next: OnceCell::new() }
    }
}

impl<T> Shelf<T> {
    /// Keeps a value and moves on to the next place.
    pub fn put<'a>(place: &mut &'a Shelf<T>, value: T) -> &'a T {
        let shelf = *place;
        *place = shelf.next.get_or_init(Box::default);
        shelf.value.get_or_init(|| value)
    }
}

/// Where processes put what they borrow.
pub struct Shelves<'a> {
    pub bases: &'a Shelf<Base>,
    pub assemblies: &'a Shelf<Assembly<'a>>,
    pub offsets: &'a Shelf<Vec<crate::kafka::group::Commit>>,
}

/// What the parts of one process share.
pub struct Base {
    shared: Arc<Shared>,
    marks: GroupMarks,
    pub group: Arc<Group>,
    ledgers: Ledgers,
    stop: Stop,
    budget: Arc<Budget>,
    flows: Flows,
    pending: AtomicUsize,
    faults: Mutex<Vec<Error>>,
    chunks: Chunks,
    buffers: Arc<Recycler>,
}

impl Base {
    pub fn new(cluster: &Cluster, location: u64, outside: &Outside) -> Self {
        let topics = vec![Arc::from(TOPIC)];
        let group = GroupSettings {
            location,
            session_timeout: LONG,
            max_poll_interval: LONG,
            ..GroupSettings::new("g", topics.clone())
        };
        let options = KafkaOptions {
            topics,
            group: Some(group),
            from: outside.from,
            until: Until::Forever,
            on_out_of_range: OutOfRange::Earliest,
            fetch: FetchSettings::default(),
            payload: Payload::Binary,
            max_record_bytes: 1 << 20,
            limit: None,
            plans: true,
        };
        let source = KafkaSource::new(cluster.clone(), options).expect("the options fit together");
        let shared = source.shared();
        shared.desk.open(1, None);
        Base {
            marks: GroupMarks(shared.clone()),
            group: source.group().expect("it has one"),
            shared,
            ledgers: Ledgers::default(),
            stop: Stop::new(),
            budget: Budget::new(1 << 20),
            flows: vec![Mutex::default()],
            pending: AtomicUsize::new(0),
            faults: Mutex::default(),
            chunks: Chunks::new(1, 1 << 20),
            buffers: Recycler::new(2 << 20, 1 << 20),
        }
    }

    pub fn assembly(&self) -> Assembly<'_> {
        Assembly {
            shape: Shape {
                service: "model",
                writers: 3,
                order: Order::Any,
                framing: Framing::Batch,
                checksums: true,
                ..Shape::default()
            },
            ..Assembly::plain((&self.budget, &METRICS, &self.stop), &self.flows, &self.pending, &self.faults)
        }
    }

    fn tools(&self) -> Tools {
        Tools::plain(&self.budget, &self.buffers)
    }
}

/// Rejects one record in four, by its offset and by what stands for "now" in its batch.
struct Picky;

impl Program for Picky {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        for entry in section.entries() {
            let record = section.record(entry);
            let rejects = (section.opened_at() as u64 ^ entry.position).is_multiple_of(4);
            let body = if rejects { &mut out.failed } else { &mut out.stored };
            body.extend_from_slice(record.bytes);
            out.counts.read += 1;
            out.counts.stored += u64::from(!rejects);
            out.counts.rejected += u64::from(rejects);
        }
    }
}

pub struct Process<'a> {
    pub number: usize,
    pub location: u64,
    pub(super) shared: &'a Shared,
    pub(super) marks: &'a GroupMarks,
    pub(super) group: &'a Group,
    pub(super) ledgers: &'a Ledgers,
    flows: &'a Flows,
    pub(super) chunks: &'a Chunks,
    pub(super) shop: Shop<'a>,
    pub(super) cutters: Cutters,
    pub(super) held: Vec<Held>,
    /// What was read and is not assembled.
    pub(super) pipe: VecDeque<Event>,
    /// Gone once the process drains.
    pub(super) assembler: Option<Assembler<'a>>,
    jobs: Receiver<Job>,
    notes: Receiver<Note>,
    pub(super) todo: Vec<Batch>,
    pub(super) uploads: Vec<Uploading>,
    pub(super) noted: VecDeque<Note>,
    pub(super) commit: Commit<'a>,
    pub(super) flying: Option<Flying<'a>>,
    /// How many ends a commit carries at most.
    pub(super) ends: usize,
    pub(super) stance: Stance,
    pub(super) must_join: bool,
    pub(super) joined: i32,
    pub(super) above: i32,
    /// Which topic it knows, and how many partitions of it.
    pub(super) known: (usize, usize),
}

impl<'a> Process<'a> {
    pub fn start(
        number: usize,
        location: u64,
        base: &'a Base,
        assembly: &'a Assembly<'a>,
        outside: &mut Outside,
    ) -> Self {
        let (jobs, todo) = bounded(64);
        let (notes, noted) = bounded(64);
        let ports = Ports { results: never(), permits: bounded(1).0, jobs, notes, rouse: bounded(1).0 };
        // A recovery need not take many steps.
        let (size, ends) = match outside.trouble {
            Trouble::None => (16, 512),
            Trouble::Some => (1 + outside.random.below(6), [1, 2, 512][outside.random.index(3)]),
        };
        let limits = Limits { batch_size: size, ..Limits::default() };
        let mut shop = Shop::new(&Picky, [Codec::None; 2], base.buffers.clone(), &base.chunks);
        (shop.checksums, shop.cuts) = (true, Cuts::Early);
        Process {
            number,
            location,
            shared: &base.shared,
            marks: &base.marks,
            group: &base.group,
            ledgers: &base.ledgers,
            flows: &base.flows,
            chunks: &base.chunks,
            shop,
            cutters: Cutters::new(limits),
            held: Vec::new(),
            pipe: VecDeque::new(),
            assembler: Some(Assembler::new(assembly, base.tools(), ports, 1)),
            jobs: todo,
            notes: noted,
            todo: Vec::new(),
            uploads: Vec::new(),
            noted: VecDeque::new(),
            commit: Commit::new(&base.marks, &base.ledgers, &METRICS, &base.stop),
            flying: None,
            ends,
            stance: Stance::Idle,
            must_join: true,
            joined: -1,
            above: -1,
            known: (outside.log.current(), outside.log.parts().len()),
        }
    }

    /// Takes what the assembler has sent, and what it wants of the reader.
    pub(super) fn sort(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.noted.push_back(note);
        }
        while let Ok(job) = self.jobs.try_recv() {
            if let Job::Store(batches) = job {
                self.todo.extend(batches);
            }
        }
        for (partition, flow) in self.flows[0].lock().drain(..) {
            if let Some(held) = self.held.iter_mut().find(|held| held.partition == partition) {
                held.paused = flow == Flow::Pause;
            }
        }
    }

    /// Whether the coordinator knows it by this name.
    pub fn is(&self, member: &str) -> bool {
        self.group.state().member() == member
    }

    /// Whether it has drained.
    pub fn is_over(&self) -> bool {
        self.assembler.is_none() && self.is_quiet()
    }

    /// Whether nothing is on its way through it.
    pub fn is_quiet(&self) -> bool {
        self.pipe.is_empty()
            && self.todo.is_empty()
            && self.uploads.is_empty()
            && self.noted.is_empty()
            && self.flying.is_none()
            && self.commit.is_idle()
    }
}
