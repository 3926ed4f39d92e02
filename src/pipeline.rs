//! The engine: [`Pipeline`] puts a source, a program and a sink together, and [`Pipeline::run`] runs them.
//!
//! Read this first. `run` is one picture: it computes the memory plan, makes the channels, starts the threads
//! and joins them. Every channel is bounded and carries chunks or jobs, never records; the normal end is
//! disconnection, from readers to writers to the commit thread; a failed `send` means that downstream is gone
//! and the cause is elsewhere.
//!
//! ```text
//!  read-N ──task──▶ pool ──chunk─▶ assemble ──job─▶ write-N ──receipt─▶ commit
//!    ▲ budget, permits               │ └──────────────cuts────────────────▶ │
//!    └───────────────────────────────┘                                marks.store
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::assemble::{Assembler, Assembly, Desk, Ports, Reading};
use crate::budget::{Budget, Recycler};
use crate::codec::{Codec, Encoder};
use crate::commit::{Commit, Ledgers, NOTES, Note};
use crate::config::{MaxRejected, OnReject};
use crate::crew::Crew;
use crate::cut::Limits;
use crate::error::{Error, Result};
use crate::lot::Tools;
use crate::memory::{Needs, Plan};
use crate::metrics::Metrics;
use crate::process::{Chunks, Shop};
use crate::read::{Flows, Lane, Readers};
use crate::retry::Policy;
use crate::sink::{Order, Shape, Sink};
use crate::source::{Forget, Marks, Reader, Source, Start};
use crate::stage::{Cause, Stages, panicked};
use crate::stop::Stop;
use crate::transform::{Form, Forms, Program};
use crate::write::{Job, Writers};

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads of the pool, if it is the run's own.
    pub workers: usize,
    /// What bounds batches and blocks.
    pub limits: Limits,
    /// How long a batch of a stream stays open.
    pub batch_wait: Duration,
    /// Bytes between read and stored.
    pub memory_limit: usize,
    /// Retries of sinks and marks.
    pub retry: Policy,
    /// Compression of the output.
    pub codec: Codec,
    /// What becomes of rejected records.
    pub on_reject: OnReject,
    /// How many rejected records end the run.
    pub max_rejected: Option<MaxRejected>,
    /// Records that an interrupted run rejected before this one went on with it: they count as well where
    /// [`Settings::max_rejected`] is a count.
    pub rejected_before: u64,
    /// At most so often marks are stored, where nothing waits for them.
    pub commit_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Settings {
            workers,
            limits: Limits::default(),
            batch_wait: Duration::from_secs(10),
            memory_limit: (48 << 20).max(workers * (8 << 20)),
            retry: Policy::default(),
            codec: Codec::None,
            on_reject: OnReject::default(),
            max_rejected: None,
            rejected_before: 0,
            commit_interval: Duration::from_millis(500),
        }
    }
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that the source had is stored, but for partitions that were lost to others, which go on with them
    /// (`partitions_lost` of the metrics).
    Finished,
    /// It was stopped: everything that was taken is stored, or will be read again.
    Drained,
}

/// Called now and then while a run goes on, from a thread of its own.
pub type Observe<'a> = &'a (dyn Fn(&Metrics) + Sync);

/// A source, a program and a sink, ready to run.
pub struct Pipeline<'a> {
    source: &'a dyn Source,
    program: &'a dyn Program,
    sink: &'a dyn Sink,
    settings: Settings,
    marks: Option<Arc<dyn Marks>>,
    pool: Option<&'a ThreadPool>,
    stop: Stop,
    metrics: Arc<Metrics>,
    observe: Option<(Duration, Observe<'a>)>,
}

impl<'a> Pipeline<'a> {
    /// A pipeline with default [`Settings`], a pool of its own, and no memory of earlier runs unless the source
    /// has one.
    pub fn new(source: &'a dyn Source, program: &'a dyn Program, sink: &'a dyn Sink) -> Self {
        Pipeline {
            source,
            program,
            sink,
            settings: Settings::default(),
            marks: None,
            pool: None,
            stop: Stop::new(),
            metrics: Arc::default(),
            observe: None,
        }
    }

    /// Replaces the settings.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where it is remembered what is done, for sources that do not remember it themselves.
    pub fn marks(mut self, marks: Arc<dyn Marks>) -> Self {
        self.marks = Some(marks);
        self
    }

    /// Runs in the caller's pool. [`Pipeline::run`] must not be called from one of its workers.
    pub fn pool(mut self, pool: &'a ThreadPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Lets the caller stop the run. To be used for this run alone: a run that fails aborts it, so that whatever waits
    /// sees that.
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Calls `observe` every `interval`, and once at the end, from a thread of its own.
    pub fn observe(mut self, interval: Duration, observe: Observe<'a>) -> Self {
        self.observe = Some((interval, observe));
        self
    }

    /// Counts into these, which the caller made before: sources and sinks may count into them too
    /// ([`Metrics::services`]).
    pub fn counting(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// What the run counts; stays valid behind its end, also if it failed.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Runs until the source is done or the run is stopped. Blocks.
    ///
    /// # Errors
    /// The first cause, if a stage failed: everything that was published before is committed. If only single
    /// partitions failed or records were refused, the rest is stored first.
    pub fn run(self) -> Result<End> {
        // Also where source or sink are only asked what they are.
        catch_unwind(AssertUnwindSafe(|| self.run_here()))
            .unwrap_or_else(|panic| Err(panicked("run", &*panic)))
    }

    fn run_here(&self) -> Result<End> {
        if self.pool.is_some_and(|pool| pool.current_thread_index().is_some()) {
            return Err(Error::OwnPool);
        }
        let shape = self.sink.shape();
        fits(self.program.forms(), &shape)?;
        if let Some(codec) = shape.codec.filter(|codec| *codec != self.settings.codec) {
            return Err(Error::Usage(format!(
                "the sink names what it stores as {codec:?} and Settings::codec is {:?}; give both the same",
                self.settings.codec
            )));
        }
        let own;
        let pool = match self.pool {
            Some(pool) => pool,
            None => {
                own = own_pool(self.settings.workers)?;
                &own
            }
        };
        let marks = self.source.marks().or_else(|| self.marks.clone()).unwrap_or_else(|| Arc::new(Forget));
        Run::new(self, pool, &*marks)?.run()
    }
}

/// Whether the program makes what the sink takes. Lines taken for frames would be found out record by record, or
/// worse, not.
fn fits(made: Forms, shape: &Shape) -> Result<()> {
    let differs =
        |made: Option<Form>, frames: bool| made.is_some_and(|made| (made == Form::Frames) != frames);
    let (what, frames) = if differs(made.stored, shape.records) {
        ("records", shape.records)
    } else if differs(made.failed, shape.letter_records) {
        ("dead letters", shape.letter_records)
    } else {
        return Ok(());
    };
    let (taken, other) = if frames { ("frames", "lines") } else { ("lines", "frames") };
    Err(Error::Usage(format!(
        "the sink takes {what} as {taken} and the program makes {other}; with Recipe::records and Letters::Records \
         a recipe makes frames"
    )))
}

/// How many threads write to a sink of this shape.
fn writer_threads(shape: &Shape) -> usize {
    if shape.order == Order::Any { shape.writers.max(1) } else { 1 }
}

/// Opens the source, which may be anybody's.
fn open(source: &dyn Source, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
    let opened = catch_unwind(AssertUnwindSafe(|| source.open(start)));
    let readers = opened.unwrap_or_else(|panic| Err(panicked("open", &*panic)))?;
    if readers.len() > start.readers {
        return Err(Error::Usage(format!(
            "the source opened {} readers, and {} may be open side by side; Source::readers says how many are worth \
             having",
            readers.len(),
            start.readers
        )));
    }
    Ok(readers)
}

fn own_pool(workers: usize) -> Result<ThreadPool> {
    let builder =
        ThreadPoolBuilder::new().num_threads(workers.max(1)).thread_name(|index| format!("work-{index}"));
    builder
        .build()
        .map_err(|error| Error::other("cannot start the thread pool", crate::error::Retry::Permanent, error))
}

/// One run: what its threads share, outliving them all.
struct Run<'a> {
    pipe: &'a Pipeline<'a>,
    pool: &'a ThreadPool,
    marks: &'a dyn Marks,
    plan: Plan,
    budget: Arc<Budget>,
    buffers: Arc<Recycler>,
    ledgers: Ledgers,
    flows: Flows,
    pending: AtomicUsize,
    faults: Mutex<Vec<Error>>,
    cause: Cause,
}

impl<'a> Run<'a> {
    fn new(pipe: &'a Pipeline<'a>, pool: &'a ThreadPool, marks: &'a dyn Marks) -> Result<Self> {
        let workers = pool.current_num_threads();
        let needs = Needs::of(pipe.source, workers);
        let plan = Plan::new(&pipe.settings, &pipe.sink.shape(), needs)?;
        let budget = Budget::new(plan.flow);
        let freed = budget.clone();
        pipe.stop.on_change(move || freed.notify());
        pipe.metrics.begin(&budget, plan.permits, plan.queue + writer_threads(&pipe.sink.shape()));
        let flows = (0..plan.readers).map(|_| Mutex::default()).collect();
        Ok(Run {
            pipe,
            pool,
            marks,
            buffers: Recycler::new(plan.outputs, plan.largest),
            plan,
            budget,
            ledgers: Ledgers::default(),
            flows,
            pending: AtomicUsize::new(0),
            faults: Mutex::default(),
            cause: Cause::default(),
        })
    }

    fn run(self) -> Result<End> {
        let (pipe, plan) = (self.pipe, &self.plan);
        let workers = self.pool.current_num_threads();
        let start = Start { marks: self.marks, readers: plan.readers, workers, stop: &pipe.stop };
        let readers = open(pipe.source, &start).inspect_err(|error| pipe.metrics.failed(error))?;
        let chunks = Chunks::new(plan.permits + readers.len(), plan.largest);
        let shop = self.shop(&chunks);
        let assembly = self.assembly();
        let (free, permits) = full(plan.permits);
        // Source and sink are asked now: with threads at work a panic here would leave them waiting.
        let (tasks, tools) = (pipe.source.tasks(), self.tools());
        let writers = writer_threads(&pipe.sink.shape());
        let (this, reading) = (&self, &Mutex::new(Reading::Cut));
        let (results, received) = bounded(plan.permits);
        let (jobs, todo) = bounded(plan.queue);
        let (notes, noted) = bounded(plan.queue + plan.permits + NOTES);
        let (rouse, roused) = bounded(1);
        let ports = Ports { results: received, permits: free, jobs, notes: notes.clone(), rouse };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let desk =
            Desk::new(Assembler::new(&assembly, tools, ports, readers.len()), workers, workers < processors);
        let shared = self.readers(&shop, &permits, &desk);
        self.pool.in_place_scope(|pool| {
            std::thread::scope(|scope| {
                let stages = Stages { scope, cause: &self.cause, stop: &pipe.stop };
                let (over, ended) = bounded(0);
                for (index, reader) in readers.into_iter().enumerate() {
                    let (lane, shared) = (Lane { index, results: results.clone(), pool }, &shared);
                    stages.spawn(format!("read-{index}"), move || shared.run(reader, &lane));
                }
                drop(results);
                // Its end of the notes outlives the assembler: the commit thread looks at `reading` when they end.
                let held = notes.clone();
                let (desk, calls, closing) = (&desk, &shared, desk.closing());
                stages.spawn("assemble", move || {
                    let _closing = closing;
                    *reading.lock() = desk.run(|| calls.call(pool))?;
                    drop(held);
                    Ok(())
                });
                this.spawn_writers(&stages, writers, &todo, &notes);
                drop((todo, notes));
                stages.spawn("commit", move || this.commit(&noted, roused, reading, over));
                for task in tasks {
                    let ended = ended.clone();
                    stages.spawn(task.name, move || {
                        (task.run)(&ended).inspect_err(|error| pipe.metrics.failed(error))
                    });
                }
                this.spawn_observer(&stages, ended);
            });
        });
        let reading = *reading.lock();
        self.result(reading)
    }

    fn shop<'s>(&'s self, chunks: &'s Chunks) -> Shop<'s> {
        let (pipe, shape) = (self.pipe, self.pipe.sink.shape());
        let mut shop = Shop::new(pipe.program, codecs(pipe), self.buffers.clone(), chunks);
        shop.checksums = shape.checksums;
        shop.cuts = pipe.source.cuts();
        shop
    }

    fn readers<'s>(
        &'s self,
        shop: &'s Shop<'s>,
        permits: &'s Receiver<()>,
        desk: &'s Desk<'s>,
    ) -> Readers<'s> {
        Readers {
            crew: Crew::new(self.pool.current_num_threads()),
            desk,
            shared: self.pipe.pool.is_some(),
            shop,
            budget: &self.budget,
            permits,
            flows: &self.flows,
            stop: &self.pipe.stop,
            metrics: &self.pipe.metrics,
            limits: self.plan.limits,
            chunk_bytes: self.plan.chunk_bytes,
        }
    }

    fn assembly(&self) -> Assembly<'_> {
        let (pipe, settings) = (self.pipe, &self.pipe.settings);
        Assembly {
            shape: pipe.sink.shape(),
            cuts: pipe.source.cuts(),
            budget: &self.budget,
            metrics: &pipe.metrics,
            stop: &pipe.stop,
            flows: &self.flows,
            pending: &self.pending,
            batch_wait: settings.batch_wait,
            gather: self.plan.gather,
            hold: self.plan.hold,
            on_reject: settings.on_reject,
            max_rejected: settings.max_rejected,
            rejected_before: settings.rejected_before,
            slots: self.plan.slots,
            faults: &self.faults,
        }
    }

    fn tools(&self) -> Tools {
        let (shape, codecs) = (self.pipe.sink.shape(), codecs(self.pipe));
        Tools {
            codecs,
            framing: shape.framing,
            part: shape.part,
            even_parts: [shape.records, shape.letter_records].map(|records| shape.even_parts && !records),
            budget: self.budget.clone(),
            checksums: shape.checksums,
            buffers: self.buffers.clone(),
            encoder: Encoder::new(self.pipe.settings.codec),
        }
    }

    fn spawn_writers<'s>(
        &'s self,
        stages: &Stages<'s, '_>,
        writers: usize,
        todo: &Receiver<Job>,
        notes: &Sender<Note>,
    ) {
        for index in 0..writers {
            let (todo, notes) = (todo.clone(), notes.clone());
            stages.spawn(format!("write-{index}"), move || self.writers().run(&todo, &notes));
        }
    }

    fn writers(&self) -> Writers<'_> {
        let pipe = self.pipe;
        Writers {
            sink: pipe.sink,
            stop: &pipe.stop,
            retry: pipe.settings.retry,
            metrics: &pipe.metrics,
            ledgers: &self.ledgers,
            plans: self.marks.plans(),
            rereads: self.marks.rereads(),
            shape: pipe.sink.shape(),
            pending: &self.pending,
        }
    }

    /// The commit thread; it is the last to end, so it also finishes the run. Dropping `over` ends the observer
    /// and the source's tasks.
    fn commit(
        &self,
        notes: &Receiver<Note>,
        roused: Receiver<()>,
        reading: &Mutex<Reading>,
        over: Sender<()>,
    ) -> Result<()> {
        let (pipe, settings) = (self.pipe, &self.pipe.settings);
        let mut commit = Commit::new(self.marks, &self.ledgers, &pipe.metrics, &pipe.stop);
        (commit.retry, commit.interval) = (settings.retry, settings.commit_interval);
        (commit.commits, commit.roused) = (pipe.sink.shape().commits, roused);
        commit.run(notes)?;
        let damaged_only = self.faults.lock().iter().all(|fault| matches!(fault, Error::Damaged { .. }));
        if *reading.lock() == Reading::Complete && !pipe.stop.is_aborted() && damaged_only {
            pipe.sink.finish()?;
            pipe.metrics.finish();
            if self.faults.lock().is_empty() {
                self.marks.finished()?;
            }
        }
        drop(over);
        Ok(())
    }

    fn spawn_observer<'s>(&'s self, stages: &Stages<'s, '_>, ended: Receiver<()>) {
        let Some((interval, observe)) = self.pipe.observe else { return };
        stages.spawn("observe", move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
                observe(&self.pipe.metrics);
            }
            observe(&self.pipe.metrics);
            Ok(())
        });
    }

    fn result(self, reading: Reading) -> Result<End> {
        self.pipe.metrics.peak_bytes.store(self.budget.peak() as u64, Ordering::Relaxed);
        if let Some(cause) = self.cause.take() {
            return Err(cause);
        }
        let mut faults = self.faults.into_inner().into_iter();
        if let Some(fault) = faults.next() {
            // One ends the run, and each is told.
            faults.for_each(|other| log::error!("{other}"));
            return Err(fault);
        }
        match reading {
            _ if self.pipe.stop.is_aborted() => Err(Error::Stopped),
            Reading::Complete => Ok(End::Finished),
            Reading::Cut => Ok(End::Drained),
        }
    }
}

/// How output and dead letters are compressed: records are not, that is their sink's business.
fn codecs(pipe: &Pipeline<'_>) -> [Codec; 2] {
    let shape = pipe.sink.shape();
    [shape.records, shape.letter_records]
        .map(|records| if records { Codec::None } else { pipe.settings.codec })
}

/// A channel that is full of permits: receiving takes one, sending gives it back.
fn full(permits: usize) -> (Sender<()>, Receiver<()>) {
    let (free, taken) = bounded(permits);
    for _ in 0..permits {
        let _ = free.try_send(());
    }
    (free, taken)
}
