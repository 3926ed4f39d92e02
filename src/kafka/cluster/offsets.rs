//! Where logs begin and end (ListOffsets), asked of each partition's leader.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};

use super::{Cluster, TopicPartition, topic_name};
use crate::error::Retry;
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::error::{Error, Result};

/// From 10 on a broker may wait for remote storage, which we do not ask for.
const MOST: i16 = 9;

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first that the log still has.
    Earliest,
    /// The one that the next record will get; under [`Isolation::ReadCommitted`] the last stable offset, which is
    /// that of the first open transaction if there is one.
    Latest,
    /// The first whose timestamp is at or after this, in milliseconds since the epoch.
    Time(i64),
}

impl At {
    fn timestamp(self) -> i64 {
        match self {
            At::Latest => -1,
            At::Earliest => -2,
            At::Time(time) => time,
        }
    }
}

/// Whether records of transactions that are open or were aborted are seen (KIP-98).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// They are.
    #[default]
    ReadUncommitted,
    /// They are not.
    ReadCommitted,
}

/// An offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The offset; -1 if no record is at or after the time that was asked for.
    pub offset: i64,
    /// The epoch of the leader that wrote the record there, or -1.
    pub leader_epoch: i32,
    /// The record's time in milliseconds, or -1; only where a time was asked for.
    pub timestamp: i64,
}

/// What is left to ask, and what was answered, by place in the caller's list.
struct Round<'a> {
    partitions: &'a [TopicPartition],
    at: At,
    isolation: Isolation,
    deadline: Instant,
    found: Vec<Option<Offset>>,
    connections: HashMap<i32, Connection>,
    /// The last thing that went wrong and may be different next time.
    trouble: Option<Error>,
}

impl Cluster {
    /// The offset of each of `partitions`, in their order. Asked of the leaders; leaders that changed are looked up
    /// again. Blocks until about `deadline`.
    ///
    /// # Errors
    /// [`Error::Topic`] and [`Error::Partition`] for what another try cannot help; [`Error::GaveUp`] with the
    /// last error at the deadline.
    pub fn offsets(
        &self,
        partitions: &[TopicPartition],
        at: At,
        isolation: Isolation,
        deadline: Instant,
    ) -> Result<Vec<Offset>> {
        let mut topics: Vec<Arc<str>> = partitions.iter().map(|of| of.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        if !self.knows(&topics) {
            self.refresh(&topics, deadline)?;
        }
        let mut round = Round {
            partitions,
            at,
            isolation,
            deadline,
            found: vec![None; partitions.len()],
            connections: HashMap::new(),
            trouble: None,
        };
        let what = || format!("offsets of {}", topics.join(", "));
        self.persist(what, deadline, || {
            if round.trouble.take().is_some() {
                self.refresh(&topics, deadline)?;
            }
            for (leader, asked) in self.leaders(&mut round)? {
                match self.ask_leader(&mut round, leader, &asked) {
                    Err(error) if error.retry() == Retry::Transient => round.trouble = Some(error),
                    Err(error) => return Err(error),
                    Ok(()) => {}
                }
            }
            // The error is told twice: to the next try, which then refreshes, and to who waits.
            match (&round.trouble, round.found.iter().copied().collect::<Option<Vec<_>>>()) {
                (None, Some(found)) => Ok(found),
                (trouble, _) => Err(again(trouble.as_ref())),
            }
        })
    }

    /// Places in the caller's list that have no offset yet, by leader, with the leader's epoch.
    fn leaders(&self, round: &mut Round<'_>) -> Result<BTreeMap<i32, Vec<(usize, i32)>>> {
        let mut leaders: BTreeMap<i32, Vec<(usize, i32)>> = BTreeMap::new();
        for (place, of) in round.partitions.iter().enumerate() {
            if round.found[place].is_some() {
                continue;
            }
            match self.leader(of) {
                Ok((leader, epoch)) => leaders.entry(leader).or_default().push((place, epoch)),
                Err(error) if error.retry() == Retry::Transient => round.trouble = Some(error),
                Err(error) => return Err(error),
            }
        }
        Ok(leaders)
    }

    /// Who leads this partition, and in which epoch, as last heard.
    ///
    /// # Errors
    /// [`Error::Topic`] or [`Error::Partition`] if nobody does.
    pub(crate) fn leader(&self, of: &TopicPartition) -> Result<(i32, i32)> {
        let failed = |code| Error::Partition { of: of.clone(), api: "Metadata", code };
        let topic = self.topic(&of.topic).ok_or_else(|| failed(Code::UNKNOWN_TOPIC_OR_PARTITION))?;
        topic.error.check().map_err(|code| Error::Topic { topic: of.topic.clone(), code })?;
        let info = topic.partition(of.partition).ok_or_else(|| failed(Code::UNKNOWN_TOPIC_OR_PARTITION))?;
        match info.leader {
            Some(leader) => Ok((leader, info.epoch)),
            None if info.error == Code::NONE => Err(failed(Code::LEADER_NOT_AVAILABLE)),
            None => Err(failed(info.error)),
        }
    }

    fn ask_leader(&self, round: &mut Round<'_>, leader: i32, asked: &[(usize, i32)]) -> Result<()> {
        let mut connection = match round.connections.remove(&leader) {
            Some(connection) => connection,
            None => self.connect(leader)?,
        };
        let version = connection.version::<ListOffsetsRequest>(MOST)?;
        let answer = connection.call_within(&round.request(asked), version, self.patience(round.deadline))?;
        round.connections.insert(leader, connection);
        round.learn(asked, &answer)
    }
}

impl Round<'_> {
    fn request(&self, asked: &[(usize, i32)]) -> ListOffsetsRequest {
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (place, epoch) in asked {
            let of = &self.partitions[*place];
            let partition = ListOffsetsPartition::default()
                .with_partition_index(of.partition)
                .with_current_leader_epoch(*epoch)
                .with_timestamp(self.at.timestamp());
            topics.entry(&of.topic).or_default().push(partition);
        }
        let topic = |(name, partitions): (&str, _)| {
            ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        };
        // The schema's default is broker 0, not a consumer.
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(self.isolation as i8)
            .with_topics(topics.into_iter().map(topic).collect())
    }

    fn learn(&mut self, asked: &[(usize, i32)], answer: &ListOffsetsResponse) -> Result<()> {
        let mut answered = HashMap::new();
        for topic in &answer.topics {
            answered
                .extend(topic.partitions.iter().map(|one| ((&topic.name.0[..], one.partition_index), one)));
        }
        for (place, _) in asked {
            let of = &self.partitions[*place];
            let Some(one) = answered.get(&(&of.topic[..], of.partition)) else { continue };
            if let Err(code) = Code(one.error_code).check() {
                let error = Error::Partition { of: of.clone(), api: "ListOffsets", code };
                self.trouble = match code.retry_reading() {
                    Retry::Permanent => return Err(error),
                    // Told as what may pass, whatever the code is elsewhere.
                    Retry::Transient if error.retry() == Retry::Permanent => {
                        Some(Error::Unavailable(error.to_string()))
                    }
                    Retry::Transient => Some(error),
                };
                continue;
            }
            self.found[*place] =
                Some(Offset { offset: one.offset, leader_epoch: one.leader_epoch, timestamp: one.timestamp });
        }
        Ok(())
    }
}

/// The same trouble, for whoever waits.
fn again(trouble: Option<&Error>) -> Error {
    match trouble {
        Some(Error::Partition { of, api, code }) => Error::Partition { of: of.clone(), api, code: *code },
        Some(Error::Topic { topic, code }) => Error::Topic { topic: topic.clone(), code: *code },
        Some(Error::Timeout { call, after }) => Error::Timeout { call: call.clone(), after: *after },
        Some(error) => Error::Unavailable(error.to_string()),
        None => Error::Unavailable("the leader left partitions out of its answer".into()),
    }
}
