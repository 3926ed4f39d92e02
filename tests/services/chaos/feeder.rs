//! [`Feeder`]: writes numbered records. The number of a record is its offset, so a record that is missing or there
//! twice is known by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use pipeline::kafka::Connection;
use pipeline::kafka::wire::Compression;

use super::schedule::Random;
use crate::kafka::Kafka;
use crate::records::{Row, batch, leader, patiently, send};

/// No more records a second are written, in the mean: on a fast machine a round would have more than a group can store
/// in time, where each object has few of them.
const MOST: u64 = 2500;

/// Writes to all partitions of a topic until it is told to stop, whatever happens to the broker.
pub struct Feeder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<u64>>>,
}

impl Feeder {
    /// Begins; `pause` is the time between two batches.
    pub fn start(kafka: Arc<Kafka>, topic: &str, partitions: i32, random: Random, pause: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            kafka,
            topic: topic.to_owned(),
            random,
            leaders: (0..partitions).map(|_| None).collect(),
            written: vec![0; partitions as usize],
        };
        let told = over.clone();
        let thread = Builder::new().name("feeder".into()).spawn(move || {
            let begun = Instant::now();
            while !told.load(Ordering::Relaxed) {
                work.step();
                let due = Duration::from_secs_f64(work.written.iter().sum::<u64>() as f64 / MOST as f64);
                std::thread::sleep(pause.max(due.saturating_sub(begun.elapsed())));
            }
            work.written
        });
        Feeder { over, thread: Some(thread.expect("a thread can be started")) }
    }

    /// Ends it and returns how many records each partition has.
    #[track_caller]
    pub fn stop(mut self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("taken only here").join().expect("the feeder does not fail")
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Work {
    kafka: Arc<Kafka>,
    topic: String,
    random: Random,
    leaders: Vec<Option<Connection>>,
    written: Vec<u64>,
}

impl Work {
    fn step(&mut self) {
        let partition = self.random.below(self.written.len() as u64) as usize;
        let next = self.written[partition];
        let count = 1 + self.random.below(40);
        let rows: Vec<Row> = (next..next + count).map(|n| row(partition, n, &mut self.random)).collect();
        let (topic, index) = (self.topic.clone(), partition as i32);
        let compression = self.random.pick(&[Compression::Lz4, Compression::None, Compression::Snappy]);
        let bytes = batch(compression, &rows);
        let known = &mut self.leaders[partition];
        if known.is_none() {
            *known = leader(&self.kafka, &topic, index);
        }
        let sent = known.as_mut().and_then(|connection| send(connection, &topic, index, &bytes));
        let end = match sent {
            Some(first) => first as u64 + count,
            None => {
                *known = None;
                // Nobody else writes, and a broker that was killed stores nothing late: the end tells what became
                // of it.
                patiently("a partition's end is known", || self.kafka.end(&topic, index)) as u64
            }
        };
        assert!(
            end == next || end == next + count,
            "{end} records in partition {partition}, not {next} + {count}"
        );
        self.written[partition] = end;
    }
}

/// What a record is like: short ones, now and then one that fills a good part of an object, and a few that are no
/// JSON and so become dead letters.
fn row(partition: usize, n: u64, random: &mut Random) -> Row {
    let length = match random.below(1000) {
        0..12 => 50_000 + random.below(250_000),
        12..300 => random.below(800),
        _ => random.below(60),
    };
    let filler = "pack my box with five dozen liquor jugs ".repeat(length as usize / 40 + 1);
    let text = &filler[..length as usize];
    let value = match random.below(150) {
        0 => format!("no JSON {partition} {n} {text}"),
        _ => format!("{{\"p\":{partition},\"n\":{n},\"text\":\"{text}\"}}"),
    };
    Row {
        key: random.chance(50).then(|| format!("key-{}", n % 7).into()),
        value: Some(value.into()),
        time: 1_700_000_000_000 + n as i64 * 200,
        ..Row::default()
    }
}
