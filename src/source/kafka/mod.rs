//! The Kafka source: topics, read by a group or alone.
//!
//! Owns which partitions there are to read, where each begins and ends, and putting fetched records into chunks;
//! parses nothing. `desk` is the one table of partitions, shared by the readers, the group and the commit
//! thread. `start` decides where a partition begins, `fill` makes chunks of what was fetched, `reader` is the
//! loop of one reader, `marks` commits. Read them in this order.
//!
//! Decided here:
//! - A partition stays with one reader as long as this run has it, whoever leads it: chunks of a partition must
//!   come in one order. There are as many readers as brokers, at most as many as the engine takes, and each
//!   fetches from all the leaders of its partitions side by side.
//! - Whoever reads without a group commits nothing and reads all partitions: where it has no end, also those that are
//!   added later, from their beginning, as a group does. (Java's `assign` leaves that to its caller.)
//! - Before the first fetch of a partition that has no commit, the start is committed (boundary plan, rule 7):
//!   otherwise a run that dies before its first commit begins elsewhere the next time.

mod commits;
pub(crate) mod desk;
mod fill;
pub(crate) mod marks;
mod reader;
pub(crate) mod start;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::config::kafka::{From, OutOfRange, Until};
use crate::error::{Error, Result, Retry};
use crate::kafka::Code;
use crate::kafka::cluster::{At, Cluster, REACH, TopicPartition};
use crate::kafka::consumer::FetchSettings;
use crate::kafka::group::{Group, GroupSettings};
use crate::record::Payload;
use crate::source::{Marks, Reader, Source, Start, Task};

use desk::Desk;
use marks::GroupMarks;
use reader::KafkaReader;
use start::Age;

/// How long asking for topics and offsets is tried once the cluster has answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The topics.
    pub topics: Vec<Arc<str>>,
    /// The group to join; `None`: all partitions are read, and nothing is committed.
    pub group: Option<GroupSettings>,
    /// Where to begin where nothing is committed.
    pub from: From,
    /// Where to end.
    pub until: Until,
    /// What to do when the broker no longer has what comes next.
    pub on_out_of_range: OutOfRange,
    /// How records are fetched.
    pub fetch: FetchSettings,
    /// What record values are meant to be.
    pub payload: Payload,
    /// The longest value in bytes; of a longer one only the first 4 KiB are kept, in a dead letter.
    pub max_record_bytes: u64,
    /// Stop after so many records; only without a group.
    pub limit: Option<u64>,
    /// Whether the ends of batches are committed before the batches are published: for sinks that store a batch
    /// under a name of its own.
    pub plans: bool,
}

/// Reads topics.
pub struct KafkaSource {
    shared: Arc<Shared>,
}

/// What readers, group and commit thread share.
pub(crate) struct Shared {
    cluster: Cluster,
    options: KafkaOptions,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) desk: Desk,
    /// Bytes of record batches that were fetched, as they are stored in the brokers.
    consumed: Arc<AtomicU64>,
}

impl KafkaSource {
    /// A source that is not connected yet.
    ///
    /// # Errors
    /// [`Error::Usage`] if the options contradict each other.
    pub fn new(cluster: Cluster, options: KafkaOptions) -> Result<Self> {
        if options.limit.is_some() && options.group.is_some() {
            return Err(Error::Usage("a limit of records needs a run without a group".into()));
        }
        let group = options.group.clone().map(|settings| Group::new(cluster.clone(), settings));
        let shared = Shared { cluster, options, group, desk: Desk::default(), consumed: Arc::default() };
        Ok(KafkaSource { shared: Arc::new(shared) })
    }

    /// The cluster it reads from.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// Bytes of record batches that were fetched so far: of compressed ones, the compressed bytes.
    pub fn consumed(&self) -> Arc<AtomicU64> {
        self.shared.consumed.clone()
    }

    /// Finds the cluster and the topics, before anything else is asked of it. Blocks for at most about 20 seconds.
    ///
    /// # Errors
    /// If no broker answers, or a topic cannot be read.
    pub fn reach(&self) -> Result<()> {
        self.shared.partitions().map(drop)
    }

    /// The group it is a member of, for a sink that commits offsets in its transactions.
    pub fn group(&self) -> Option<Arc<Group>> {
        self.shared.group.clone()
    }
}

#[cfg(test)]
impl KafkaSource {
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Source for KafkaSource {
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let shared = &self.shared;
        let all = shared.partitions()?;
        let ends = shared.ends(&all)?;
        let brokers = shared.cluster.brokers().len();
        let readers = match shared.options.limit {
            Some(_) => 1,
            None => start.readers.clamp(1, brokers.max(1)),
        };
        shared.desk.open(readers, ends);
        if shared.group.is_none() {
            for of in &all {
                shared.desk.assign_alone(of, shared.topic_id(of), shared.reader_of(of, readers), Age::Older);
            }
        }
        let reader = |index| -> Box<dyn Reader> {
            Box::new(KafkaReader::new(shared.clone(), index, start.stop.clone()))
        };
        Ok((0..readers).map(reader).collect())
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        self.shared.group.as_ref().map(|_| -> Arc<dyn Marks> { Arc::new(GroupMarks(self.shared.clone())) })
    }

    fn tasks(&self) -> Vec<Task<'_>> {
        let Some(group) = &self.shared.group else { return Vec::new() };
        let run = move |over: &Receiver<()>| group.attend(over);
        vec![Task { name: "group".into(), run: Box::new(run) }]
    }

    /// One answer of each broker, and what a batch unpacks to.
    fn buffers(&self) -> usize {
        2 * self.shared.options.fetch.max_bytes as usize
    }
}

impl Shared {
    /// All partitions of the topics.
    fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let topics = &self.options.topics;
        self.cluster.refresh(topics, Instant::now() + REACH)?;
        let mut all = Vec::new();
        for name in topics {
            let topic = self.cluster.topic(name);
            let topic = topic.ok_or_else(|| refused(name, "the brokers did not answer for it"))?;
            let unreadable = |code| crate::kafka::Error::Topic { topic: name.clone(), code };
            let check = topic.error.check().map_err(unreadable);
            check.map_err(|error| Error::other("cannot read", Retry::Permanent, error))?;
            let index = topic.partitions.iter().map(|partition| partition.index);
            all.extend(index.map(|partition| TopicPartition { topic: name.clone(), partition }));
        }
        Ok(all)
    }

    /// Where each partition ends; `None`: nowhere.
    fn ends(&self, all: &[TopicPartition]) -> Result<Option<Vec<(TopicPartition, i64)>>> {
        let deadline = Instant::now() + PATIENCE;
        let isolation = self.options.fetch.isolation;
        let latest = || self.cluster.offsets(all, At::Latest, isolation, deadline);
        let offsets = match self.options.until {
            Until::Forever => return Ok(None),
            Until::End => latest()?,
            Until::Time(time) => {
                // Nothing that late: up to what there is now.
                let at = self.cluster.offsets(all, At::Time(time), isolation, deadline)?;
                let none = |offset: i64| offset < 0;
                let latest = if at.iter().any(|at| none(at.offset)) { latest()? } else { at.clone() };
                let or = |(at, latest): (_, _)| -> crate::kafka::cluster::Offset {
                    let at: crate::kafka::cluster::Offset = at;
                    if none(at.offset) { latest } else { at }
                };
                at.into_iter().zip(latest).map(or).collect()
            }
        };
        Ok(Some(all.iter().cloned().zip(offsets.iter().map(|offset| offset.offset)).collect()))
    }

    /// Gives partitions to readers that topics got since the run began, where no group does that. A run that has an end
    /// reads what was there when it began.
    fn add_partitions(&self) {
        if self.group.is_some() || self.options.until != Until::Forever {
            return;
        }
        let topics = self.options.topics.iter().filter_map(|name| self.cluster.topic(name));
        for topic in topics.filter(|topic| topic.error == Code::NONE) {
            for info in &topic.partitions {
                let of = TopicPartition::new(topic.name.clone(), info.index);
                if self.desk.assign_alone(&of, topic.id, self.reader_of(&of, usize::MAX), Age::Younger) {
                    log::info!("{of}: added to the topic while it is read");
                }
            }
        }
    }

    fn topic_id(&self, of: &TopicPartition) -> uuid::Uuid {
        self.cluster.topic(&of.topic).map_or_else(uuid::Uuid::nil, |topic| topic.id)
    }

    /// What one record batch may unpack to: the longest record, and Java's largest request twice over.
    fn unpack_cap(&self) -> usize {
        (4 * self.options.max_record_bytes as usize).max(64 << 20)
    }

    /// Which reader takes a partition: that of its leader.
    fn reader_of(&self, of: &TopicPartition, readers: usize) -> usize {
        let topic = self.cluster.topic(&of.topic);
        let leader = topic
            .and_then(|topic| topic.partitions.iter().find(|it| it.index == of.partition)?.leader)
            .unwrap_or(of.partition);
        leader.unsigned_abs() as usize % readers
    }
}

fn refused(topic: &str, why: impl std::fmt::Display) -> Error {
    Error::other(format!("cannot read topic {topic}"), Retry::Permanent, why.to_string())
}
