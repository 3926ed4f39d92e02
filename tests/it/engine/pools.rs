//! Runs in a pool of the caller's: whoever else works there has a turn. And nothing stands still while a reader takes
//! longer than it said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pipeline::cut::Limits;
use pipeline::record::Section;
use pipeline::sink::{Order, Shape};
use pipeline::transform::{Out, Program};
use pipeline::{
    Batch, Chunk, End, Partition, Pipeline, Read, Reader, Receipt, Result, Settings, Sink, Source, Start,
};

use super::fake::Lines;
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

/// What a reader does next.
enum Turn {
    Chunk,
    /// It says that there is more at hand, and then it takes its time.
    Wait,
    Done,
}

/// A source that is never idle. How it goes on is decided by how many chunks there were.
struct Busy(Arc<dyn Fn(usize) -> Turn + Send + Sync>);

struct BusyReader {
    partition: Partition,
    chunks: usize,
    decides: Arc<dyn Fn(usize) -> Turn + Send + Sync>,
}

impl Source for Busy {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let partition = Partition::named("busy", "p");
        Ok(vec![Box::new(BusyReader { partition, chunks: 0, decides: self.0.clone() })])
    }
}

impl Reader for BusyReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        loop {
            match (self.decides)(self.chunks) {
                Turn::Chunk => break,
                Turn::Wait => std::thread::yield_now(),
                Turn::Done => return Ok(Read::Done),
            }
        }
        let at = self.chunks as u64;
        chunk.start(&self.partition, at);
        // So much that it goes alone.
        let _ = chunk.push(at, &[b'1'; 200_000]);
        self.chunks += 1;
        Ok(Read::Chunk)
    }

    fn has_more_at_hand(&self) -> bool {
        true
    }
}

/// A stream that counts what it is given.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Sink for Count {
    fn shape(&self) -> Shape {
        Shape { order: Order::Total, group: 1 << 20, ..Shape::default() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let stored: u64 = batches.iter().map(|batch| batch.counts.read).sum();
        self.0.fetch_add(stored as usize, Ordering::SeqCst);
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        Ok(())
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn run(pool: &rayon::ThreadPool, source: &Busy, program: &dyn Program, sink: &Count) -> End {
    let limits = Limits { block_bytes: 128 << 10, ..Limits::default() };
    let settings = Settings { limits, memory_limit: 16 << 20, ..Settings::default() };
    Pipeline::new(source, program, sink).settings(settings).pool(pool).run().unwrap()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Goes on only when the next chunk waits for a worker, until it is done.
struct Behind {
    read: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
}

impl Program for Behind {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let this = section.entries()[0].position as usize;
        while self.read.load(Ordering::SeqCst) < this + 2 && !self.done.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Lines.run(section, out);
    }
}

#[test]
fn what_the_caller_does_in_the_pool_has_a_turn_while_a_run_is_busy() {
    watchdog(LIMIT, || {
        let (pool, sink, done) = (pool(1), Count::default(), Arc::new(AtomicBool::new(false)));
        let program = Behind { read: Arc::default(), done: done.clone() };
        let (read, seen) = (program.read.clone(), done.clone());
        let source = Busy(Arc::new(move |at| {
            read.store(at, Ordering::SeqCst);
            if seen.load(Ordering::SeqCst) { Turn::Done } else { Turn::Chunk }
        }));
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| run(&pool, &source, &program, &sink));
            while sink.get() < 100 {
                assert!(!busy.is_finished());
                std::thread::yield_now();
            }
            pool.spawn(move || done.store(true, Ordering::SeqCst));
            assert_eq!(busy.join().unwrap(), End::Finished);
        });
    });
}

/// Somebody in the pool may wait for the run's end, as long as there is another thread.
#[test]
fn what_waits_in_the_pool_for_the_end_of_a_run_does_not_keep_it_from_it() {
    watchdog(LIMIT, || {
        let (pool, sink, waits) = (pool(2), Count::default(), Arc::new(AtomicBool::new(false)));
        let seen = waits.clone();
        let source =
            Busy(Arc::new(move |_| if seen.load(Ordering::SeqCst) { Turn::Done } else { Turn::Chunk }));
        let (over, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| run(&pool, &source, &Lines, &sink));
            while sink.get() < 100 {
                assert!(!busy.is_finished());
                std::thread::yield_now();
            }
            pool.spawn(move || {
                waits.store(true, Ordering::SeqCst);
                let _ = ended.recv();
            });
            assert_eq!(busy.join().unwrap(), End::Finished);
            drop(over);
        });
    });
}

#[test]
fn two_runs_in_a_pool_of_one_thread_go_on_side_by_side() {
    watchdog(LIMIT, || {
        let (pool, sinks) = (pool(1), [Count::default(), Count::default()]);
        // Each goes on until both have stored something.
        let sources = [(); 2].map(|()| {
            let sinks = sinks.clone();
            let done = move || sinks.iter().all(|sink| sink.get() > 100);
            Busy(Arc::new(move |_| if done() { Turn::Done } else { Turn::Chunk }))
        });
        std::thread::scope(|scope| {
            let runs = [0, 1].map(|of| {
                let (pool, source, sink) = (&pool, &sources[of], &sinks[of]);
                scope.spawn(move || run(pool, source, &Lines, sink))
            });
            runs.into_iter().for_each(|run| assert_eq!(run.join().unwrap(), End::Finished));
        });
        assert!(sinks.iter().all(|sink| sink.get() > 100));
    });
}

/// Output is held back while more is about to come, and not for longer.
#[test]
fn what_is_held_back_is_stored_when_a_reader_takes_its_time() {
    for (threads, chunks) in [(1, 1), (1, 5), (3, 1), (3, 5)] {
        watchdog(LIMIT, move || {
            let sink = Count::default();
            let stored = sink.clone();
            let source = Busy(Arc::new(move |at| match at {
                _ if at < chunks => Turn::Chunk,
                _ if stored.get() < chunks => Turn::Wait,
                _ => Turn::Done,
            }));
            assert_eq!(run(&pool(threads), &source, &Lines, &sink), End::Finished);
            assert_eq!(sink.get(), chunks);
        });
    }
}

/// The last chunks wait for each other, as many as there are threads.
struct Together {
    threads: usize,
    chunks: usize,
    met: Arc<AtomicUsize>,
}

impl Program for Together {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let this = section.entries()[0].position as usize;
        self.met.fetch_add(usize::from(this + self.threads >= self.chunks), Ordering::SeqCst);
        while this + self.threads >= self.chunks && self.met.load(Ordering::SeqCst) < self.threads {
            std::thread::yield_now();
        }
        Lines.run(section, out);
    }
}

/// A task is left to a worker that is busy only while the reader goes on.
#[test]
fn the_last_chunks_have_a_worker_each() {
    for (threads, chunks) in [(2, 2), (3, 3), (2, 40), (3, 40)] {
        watchdog(LIMIT, move || {
            let (sink, program) = (Count::default(), Together { threads, chunks, met: Arc::default() });
            let source = Busy(Arc::new(move |at| if at < chunks { Turn::Chunk } else { Turn::Done }));
            assert_eq!(run(&pool(threads), &source, &program, &sink), End::Finished);
            assert_eq!(sink.get(), chunks);
        });
    }
}

/// The first chunk takes long; each waits until all before it are stored.
struct Slow(Count);

impl Program for Slow {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let (begun, this) = (Instant::now(), section.entries()[0].position as usize);
        let least = Duration::from_millis(if this == 0 { 50 } else { 0 });
        while self.0.get() < this || begun.elapsed() < least {
            std::thread::yield_now();
        }
        Lines.run(section, out);
    }
}

/// Where tasks take long nobody knows when more comes, however much the reader has at hand.
#[test]
fn behind_slow_tasks_nothing_is_held_back() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, processors] {
        watchdog(LIMIT, move || {
            let sink = Count::default();
            let source = Busy(Arc::new(|at| if at < 10 { Turn::Chunk } else { Turn::Done }));
            assert_eq!(run(&pool(threads), &source, &Slow(sink.clone()), &sink), End::Finished);
            assert_eq!(sink.get(), 10);
        });
    }
}
