//! The memory plan of a run: how many chunks may be in flight, how many bytes may wait. Checked before the
//! start, with the arithmetic in the message.
//!
//! | share | bytes |
//! |---|---|
//! | carry | each reader keeps up to one chunk that it has read but not yet handed on |
//! | recycled | idle chunks and output buffers |
//! | buffers | what readers hold outside of chunks ([`crate::source::Source::buffers`]) |
//! | flow | everything else between read and stored: chunks, outputs, parts |
//!
//! Block sizes are not part of the plan: compressed output must not depend on memory or workers.

use std::iter::successors;
use std::time::Duration;

use crate::cut::Limits;
use crate::error::{Error, Result};
use crate::pipeline::Settings;
use crate::sink::{Framing, Order, Shape};
use crate::source::Source;

/// More readers side by side are not worth a thread each.
const READERS: usize = 1 << 12;
/// Object stores take no smaller parts, so a slot is never counted for less.
const SLOT: usize = 5 << 20;
/// A chunk and what it becomes: the envelope doubles small records.
const GROWTH: usize = 3;
/// Jobs that wait where a writer takes several at once: most are small then. Their bytes are in the flow budget.
const GROUPED: usize = 256;
/// A full chunk takes a worker about so long, on a fast machine.
const TASK: Duration = Duration::from_micros(150);
/// More is not worth waiting for.
const GATHER: Duration = Duration::from_micros(400);

/// A stream's output is handed on by so large a part of the flow budget: so seldom a writer is woken.
const HOLD: u64 = 8;

/// How the memory of a run is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Readers side by side.
    pub readers: usize,
    /// Tasks in flight between readers and assembler: a chunk each, or several small ones.
    pub permits: usize,
    /// Jobs that wait for a writer.
    pub queue: usize,
    /// The flow budget.
    pub flow: usize,
    /// Partitions with planned ends that are fetched at a time.
    pub slots: usize,
    /// Bytes taken before a chunk is filled.
    pub chunk_bytes: usize,
    /// Bytes of idle output buffers.
    pub outputs: usize,
    /// Larger buffers are not kept for the next use.
    pub largest: usize,
    /// For so long the assembler may let results gather.
    pub gather: Duration,
    /// So many bytes of output it may hold back while more is about to come.
    pub hold: u64,
    /// What bounds batches and blocks.
    pub limits: Limits,
}

/// What a run would like to have.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Threads of the pool.
    pub workers: usize,
    /// Readers side by side.
    pub readers: usize,
    /// What readers hold outside of chunks, in bytes.
    pub buffers: usize,
}

impl Needs {
    /// Of this source, with so many threads in the pool.
    pub fn of(source: &dyn Source, workers: usize) -> Self {
        Needs { workers, readers: source.readers(workers).clamp(1, READERS), buffers: source.buffers() }
    }
}

impl Plan {
    /// Divides `settings.memory_limit`.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is too little.
    pub fn new(settings: &Settings, shape: &Shape, needs: Needs) -> Result<Plan> {
        let Needs { workers, readers, buffers } = needs;
        let chunk_bytes =
            usize::try_from(settings.limits.block_bytes).unwrap_or(usize::MAX).saturating_mul(2);
        let most = 4 * workers + 2;
        let wanted = if shape.order == Order::Total { 1 } else { readers };
        let plans =
            (1..=most).rev().map(|permits| Division { chunk_bytes, permits, readers: wanted, buffers });
        // Then fewer readers, with a permit for each at least.
        let halves =
            successors(Some(wanted / 2), |readers| Some(readers / 2)).take_while(|readers| *readers > 0);
        let fewer = halves.flat_map(|readers| {
            (readers..=most).rev().map(move |permits| Division { chunk_bytes, permits, readers, buffers })
        });
        let fitting = |division: &Division| division.need(shape) <= settings.memory_limit;
        let least = Division { chunk_bytes, permits: 1, readers: 1, buffers };
        let division = plans
            .chain(fewer)
            .chain([least])
            .find(fitting)
            .ok_or_else(|| too_little(settings.memory_limit, shape, &least))?;
        Ok(Plan { gather: division.gather(workers), ..division.plan(settings, shape) })
    }
}

/// A way to divide the memory.
#[derive(Clone, Copy)]
struct Division {
    chunk_bytes: usize,
    permits: usize,
    readers: usize,
    buffers: usize,
}

impl Division {
    fn carry(&self) -> usize {
        self.chunk_bytes.saturating_mul(self.readers)
    }

    fn recycled(&self) -> usize {
        self.chunk_bytes.saturating_mul(self.permits + self.readers).saturating_add(self.outputs())
    }

    /// Of recycled buffers, those of outputs.
    fn outputs(&self) -> usize {
        self.chunk_bytes.saturating_mul((self.permits + 2) * 2)
    }

    fn chunks(&self) -> usize {
        self.chunk_bytes.saturating_mul((self.permits + self.readers) * GROWTH)
    }

    fn need(&self, shape: &Shape) -> usize {
        let shares = [self.carry(), self.recycled(), self.buffers, self.chunks(), parts(shape)];
        shares.into_iter().fold(0, usize::saturating_add)
    }

    /// A sink that keeps order has a job of each chunk that is not small. With places for all of them the assembler waits
    /// for a writer where that one is slow, and not at every chunk until both have been woken: on two processors, which
    /// the pool keeps busy, results stood there for so long that workers ran out of chunks (one run took 1.15x of the
    /// time).
    fn queue(&self, shape: &Shape) -> usize {
        let writers = shape.writers.max(1);
        match shape.order {
            _ if is_grouped(shape) => GROUPED,
            Order::Total | Order::Partition => self.permits.max(writers),
            Order::Any => writers,
        }
    }

    /// About half of the time in which the workers are through with all chunks in flight: none of them runs out of
    /// chunks, and no reader of permits, while results gather.
    fn gather(&self, workers: usize) -> Duration {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let time = (TASK.saturating_mul(count(self.permits)) / count(workers.max(1)) / 2).min(GATHER);
        if time < TASK { Duration::ZERO } else { time }
    }

    fn plan(self, settings: &Settings, shape: &Shape) -> Plan {
        let flow = settings.memory_limit - self.carry() - self.recycled() - self.buffers;
        let slots = (flow / 2 / shape.part.unwrap_or(0).max(SLOT)).max(1);
        let readers = if shape.part.is_some() { self.readers.min(slots) } else { self.readers };
        let mut limits = settings.limits;
        if shape.framing == Framing::Stream {
            // One stream has no objects: cuts would only make more and smaller writes.
            (limits.batch_size, limits.batch_bytes) = (0, 0);
        }
        if shape.part.is_none() && shape.order == Order::Any {
            // Whole batches stand in memory: all open ones together take at most a quarter of it.
            let most = (flow / 4 / readers) as u64;
            limits.batch_bytes = if limits.batch_bytes == 0 { most } else { limits.batch_bytes.min(most) };
        }
        Plan {
            readers,
            permits: self.permits,
            queue: self.queue(shape),
            flow,
            slots,
            chunk_bytes: self.chunk_bytes,
            outputs: self.outputs(),
            largest: 4 * self.chunk_bytes,
            gather: Duration::ZERO,
            hold: if shape.order == Order::Total { flow as u64 / HOLD } else { 0 },
            limits,
        }
    }
}

/// Whether a writer takes several jobs at once.
pub(crate) fn is_grouped(shape: &Shape) -> bool {
    shape.group > 0 && shape.order == Order::Partition
}

/// Parts that are queued or being written.
fn parts(shape: &Shape) -> usize {
    shape.writers.max(1).saturating_mul(2).saturating_mul(shape.part.unwrap_or(0))
}

fn too_little(limit: usize, shape: &Shape, least: &Division) -> Error {
    let kib = |bytes: usize| bytes.div_ceil(1024);
    Error::Usage(format!(
        "memory_limit is {} KiB, but at least {} KiB are needed: {} for reading, {} for recycled buffers, {} for \
         answers of the source, {} for chunks in flight, {} for parts of {} writers",
        kib(limit),
        kib(least.need(shape)),
        kib(least.carry()),
        kib(least.recycled()),
        kib(least.buffers),
        kib(least.chunks()),
        kib(parts(shape)),
        shape.writers,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(part: Option<usize>, order: Order) -> Shape {
        Shape { writers: 2, order, part, ..Shape::default() }
    }

    fn needs(workers: usize, buffers: usize) -> Needs {
        Needs { workers, readers: workers, buffers }
    }

    #[test]
    fn the_default_for_two_workers_has_all_permits_and_readers() {
        let settings = Settings { memory_limit: 48 << 20, ..Settings::default() };
        let plan = Plan::new(&settings, &shape(Some(1 << 20), Order::Any), needs(2, 0)).unwrap();
        assert_eq!((plan.readers, plan.permits, plan.flow), (2, 10, 29 << 20));
        assert!(plan.slots * SLOT <= plan.flow / 2);
    }

    #[test]
    fn where_each_chunk_is_a_job_all_of_them_may_wait() {
        let queue = |shape: Shape| {
            let plan =
                Plan::new(&Settings { memory_limit: 48 << 20, ..Settings::default() }, &shape, needs(2, 0));
            plan.unwrap().queue
        };
        assert_eq!(queue(shape(None, Order::Total)), 10, "one for each permit");
        assert_eq!(queue(shape(None, Order::Partition)), 10);
        assert_eq!(queue(Shape { group: 1 << 20, ..shape(None, Order::Partition) }), GROUPED);
        // Parts that wait are memory that the plan counts by writers.
        assert_eq!(queue(shape(Some(1 << 20), Order::Any)), 2);
        let little = Settings { memory_limit: 8 << 20, ..Settings::default() };
        let plan = Plan::new(&little, &shape(None, Order::Total), needs(1, 0)).unwrap();
        assert_eq!((plan.permits, plan.queue), (1, 2), "as many as writers at least");
    }

    #[test]
    fn results_gather_while_there_are_chunks_enough() {
        let gather = |mebibytes: usize, workers: usize| {
            let settings = Settings { memory_limit: mebibytes << 20, ..Settings::default() };
            Plan::new(&settings, &shape(None, Order::Total), needs(workers, 0)).unwrap().gather.as_micros()
        };
        assert_eq!(gather(48, 2), 375, "ten permits");
        assert_eq!(gather(48, 1), 400, "six, which is enough for longer");
        assert_eq!(gather(20, 2), 187, "five");
        assert_eq!(gather(17, 2), 150, "four");
        assert_eq!(gather(14, 2), 0, "three: to sleep and to wake would take as long");
        assert_eq!(gather(8, 2), 0, "one: a reader waits for it");
        assert_eq!(gather(48, 64), 0, "a worker has not a chunk each");
    }

    #[test]
    fn the_default_of_many_workers_keeps_them_busy() {
        for workers in [1usize, 3, 8, 64, 256] {
            let memory_limit = (48 << 20).max(workers * (8 << 20));
            let settings = Settings { memory_limit, ..Settings::default() };
            let plan = Plan::new(&settings, &shape(Some(1 << 20), Order::Any), needs(workers, 0)).unwrap();
            assert!(plan.permits > workers, "{workers} workers, {} permits", plan.permits);
        }
    }

    #[test]
    fn where_many_readers_do_not_fit_some_do() {
        for (mebibytes, workers) in [(48, 16), (102, 32), (160, 64), (32, 6)] {
            let settings = Settings { memory_limit: mebibytes << 20, ..Settings::default() };
            let shape = Shape { writers: 4, order: Order::Any, part: Some(1 << 20), ..Shape::default() };
            let plan = Plan::new(&settings, &shape, needs(workers, 0)).unwrap();
            assert!(
                plan.readers > 1 && plan.permits >= plan.readers.min(4),
                "{mebibytes} {workers}: {plan:?}"
            );
        }
    }

    #[test]
    fn less_memory_is_fewer_chunks_in_flight_and_then_an_error_with_the_arithmetic() {
        let settings = Settings { memory_limit: 10 << 20, ..Settings::default() };
        let plan = Plan::new(&settings, &shape(None, Order::Total), needs(4, 0)).unwrap();
        assert!(plan.permits < 8);
        let settings = Settings { memory_limit: 1 << 20, ..Settings::default() };
        let error = Plan::new(&settings, &shape(Some(1 << 20), Order::Any), needs(4, 0)).unwrap_err();
        assert!(error.to_string().contains("memory_limit is 1024 KiB, but at least"), "{error}");
        assert_eq!(error.exit_code(), 2);
        let limits = Limits { block_bytes: u64::MAX, ..Limits::default() };
        let endless = Settings { limits, ..Settings::default() };
        assert!(Plan::new(&endless, &shape(None, Order::Total), needs(4, 0)).is_err());
    }

    #[test]
    fn whole_batches_in_memory_are_bounded_by_it() {
        let settings = Settings { memory_limit: 48 << 20, ..Settings::default() };
        let plan = Plan::new(&settings, &shape(None, Order::Any), needs(2, 0)).unwrap();
        assert!(plan.limits.batch_bytes as usize * plan.readers <= plan.flow / 4);
    }

    #[test]
    fn as_many_files_are_open_as_there_are_slots() {
        let settings = Settings { memory_limit: 40 << 20, ..Settings::default() };
        let plan = |part| Plan::new(&settings, &shape(part, Order::Any), needs(3, 0)).unwrap();
        let (parts, whole) = (plan(Some(1 << 20)), plan(None));
        assert_eq!(whole.readers, 3, "there is enough for three");
        assert!(parts.slots < 3 && parts.readers == parts.slots, "{parts:?}");
    }

    #[test]
    fn what_readers_hold_is_taken_from_the_rest() {
        let settings = Settings { memory_limit: 48 << 20, ..Settings::default() };
        let plan = |buffers| Plan::new(&settings, &shape(None, Order::Partition), needs(2, buffers));
        let (without, with) = (plan(0).unwrap(), plan(8 << 20).unwrap());
        assert_eq!((with.permits, with.flow), (without.permits, without.flow - (8 << 20)));
        let error = plan(64 << 20).unwrap_err().to_string();
        assert!(error.contains("65536 for answers of the source"), "{error}");
    }
}
