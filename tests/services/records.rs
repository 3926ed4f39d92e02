//! Records into topics and what became of them, by way of our own wire layer: no JVM to wait for.
//!
//! What counts is the place of a record: partition and offset are its id. So a record that the feeder wrote twice,
//! because it heard nothing of the first time, is two records that must both arrive.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ListOffsetsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use pipeline::kafka::wire::{BatchWriter, Compression, Stamp};
use pipeline::kafka::{Code, Connection};

use crate::admin;
use crate::kafka::{Kafka, Listener, options};

/// How long writing or asking is tried while brokers come and go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch.
    pub time: i64,
}

impl Row {
    /// `{"id":number}` under the key `key-{number % 10}`.
    pub fn numbered(number: usize) -> Self {
        Row {
            key: Some(format!("key-{}", number % 10).into()),
            value: Some(format!("{{\"id\":{number}}}").into()),
            time: 1_700_000_000_000 + number as i64,
            ..Row::default()
        }
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.into()))
}

/// A connection to the leader of a partition, if there is one now.
pub fn leader(kafka: &Kafka, topic: &str, partition: i32) -> Option<Connection> {
    let connect = |node| kafka.connect_to(node, Listener::Plaintext, options()).ok();
    let topic = admin::try_describe(&mut (1..=kafka.nodes.count()).find_map(connect)?, topic)?;
    let partition = topic.partitions.iter().find(|known| known.partition_index == partition)?;
    let leader = u16::try_from(partition.leader_id.0).ok()?;
    (partition.error_code == 0).then(|| connect(leader))?
}

/// Tries until it is done.
#[track_caller]
pub fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends one batch; the offset of its first record, or `None` if it may not be there.
pub fn send(connection: &mut Connection, topic: &str, partition: i32, batch: &[u8]) -> Option<i64> {
    let data =
        PartitionProduceData::default().with_index(partition).with_records(Some(batch.to_vec().into()));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    // From version 13 on topics are named by their ids.
    let version = connection.version::<ProduceRequest>(12).ok()?;
    let answer = connection.call_within(&request, version, Duration::from_secs(15)).ok()?;
    let answer = &answer.responses[0].partition_responses[0];
    (answer.error_code == 0).then_some(answer.base_offset)
}

pub fn batch(compression: Compression, rows: &[Row]) -> Vec<u8> {
    let mut writer = BatchWriter::new(compression, None);
    for row in rows {
        let headers = row.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
        writer.push(row.time, row.key.as_deref(), row.value.as_deref(), headers).expect("it is small");
    }
    let mut bytes = Vec::new();
    writer.finish(&Stamp::NONE, &mut bytes).expect("it can be compressed");
    bytes
}

impl Kafka {
    /// Writes one batch and returns the offset of its first record.
    #[track_caller]
    pub fn write(&self, topic: &str, partition: i32, compression: Compression, rows: &[Row]) -> i64 {
        let batch = batch(compression, rows);
        let attempt = || send(&mut leader(self, topic, partition)?, topic, partition, &batch);
        patiently("a batch is written", attempt)
    }

    /// Writes so many numbered records to each partition.
    #[track_caller]
    pub fn fill(&self, topic: &str, partitions: i32, count: usize) {
        for partition in 0..partitions {
            let rows: Vec<Row> = (0..count).map(Row::numbered).collect();
            self.write(topic, partition, Compression::Lz4, &rows);
        }
    }

    /// The end of each partition, by index.
    #[track_caller]
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        let count = patiently("the topic is known", || {
            let found = admin::try_describe(&mut self.plain(), topic)?;
            (found.error_code == 0).then_some(found.partitions.len())
        });
        let end = |partition| patiently("a partition's end is known", || self.end(topic, partition));
        (0..count as i32).map(end).collect()
    }

    pub fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1);
        let asked = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        let answer = leader(self, topic, partition)?.call(&request).ok()?;
        let answer = &answer.topics[0].partitions[0];
        (Code(answer.error_code) == Code(0)).then_some(answer.offset)
    }

    /// The ids of all records that are in the topic now. Only for topics without transactions and deletions.
    #[track_caller]
    pub fn ids(&self, topic: &str) -> BTreeSet<Id> {
        let ends = self.ends(topic);
        let of =
            |(partition, end): (usize, i64)| (0..end as u64).map(move |offset| (partition as u32, offset));
        ends.into_iter().enumerate().flat_map(of).collect()
    }
}

/// Partition and offset of a record.
pub type Id = (u32, u64);

/// Writes records until it is told to stop, whatever happens to the brokers.
pub struct Feeder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Feeder {
    /// Begins: batches of ten records, to one partition after the other, `pause` between them.
    pub fn start(kafka: &'static Kafka, topic: &str, partitions: i32, pause: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (topic, told) = (topic.to_string(), over.clone());
        let thread = Builder::new().name("feeder".into());
        let work = move || feed(kafka, &topic, partitions, pause, &told);
        Feeder { over, thread: Some(thread.spawn(work).expect("a thread can be started")) }
    }

    /// Ends it and returns how many records were acknowledged.
    #[track_caller]
    pub fn stop(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("taken only here").join().expect("the feeder does not fail")
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn feed(kafka: &Kafka, topic: &str, partitions: i32, pause: Duration, over: &AtomicBool) -> usize {
    let mut leaders: Vec<Option<Connection>> = (0..partitions).map(|_| None).collect();
    let mut written = 0;
    for partition in (0..partitions).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let known = &mut leaders[partition as usize];
        if known.is_none() {
            *known = leader(kafka, topic, partition);
        }
        let rows: Vec<Row> = (written..written + 10).map(Row::numbered).collect();
        let sent = known
            .as_mut()
            .and_then(|connection| send(connection, topic, partition, &batch(Compression::Lz4, &rows)));
        match sent {
            Some(_) => written += rows.len(),
            // The next partition may have a leader that runs.
            None => *known = None,
        }
        std::thread::sleep(pause);
    }
    written
}
