//! What the group remembers of its partitions (OffsetFetch), and what to think of it.
//!
//! Always with `require_stable` (KIP-447): an offset that a transaction is about to change is waited for, with
//! heartbeats meanwhile. Boundary plan, rules 4 and 8.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use uuid::Uuid;

use super::change::Committed;
use super::fault::Fault;
use super::member::{Member, check};
use super::metadata::Remembered;
use super::state::{Fetched, Stored};
use crate::error::{Error, Retry};
use crate::kafka::cluster::{TopicPartition, topic_name};
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::error::Error as KafkaError;
use crate::kafka::wire::Api;

/// From this version on unstable offsets are told apart (Kafka 2.5).
const STABLE: i16 = 7;
/// From this version on a request is for several groups.
const GROUPS: i16 = 8;
/// Before unstable offsets are asked for again.
const PAUSE: Duration = Duration::from_millis(100);
/// When waiting is worth a message.
const LONG: Duration = Duration::from_secs(10);

/// One partition's answer.
struct Row {
    of: TopicPartition,
    code: Code,
    offset: i64,
    leader_epoch: i32,
    text: String,
}

impl Member<'_> {
    pub fn fetch_offsets(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Fetched>, Fault> {
        let begun = Instant::now();
        let mut tries = 0;
        let mut fetched = BTreeMap::new();
        while fetched.len() < partitions.len() {
            let open: Vec<_> = partitions.iter().filter(|of| !fetched.contains_key(*of)).cloned().collect();
            let mut unstable = None;
            for row in self.ask_offsets(&open)? {
                match row.code {
                    Code::NONE => {
                        let (of, found) = self.judge(row)?;
                        fetched.insert(of, found);
                    }
                    code if code.retry() == Retry::Transient => unstable = Some((row.of, code)),
                    code => {
                        let error = KafkaError::Partition { of: row.of, api: "OffsetFetch", code };
                        return Err(Fault::Fatal(error.into()));
                    }
                }
            }
            if fetched.len() < partitions.len() {
                // Others' transactions take some seconds at times. That counts once, and is told if it takes long.
                let is_news = tries == 0 || tries == 1 && begun.elapsed() >= LONG;
                if let (Some((of, code)), true) = (unstable, is_news) {
                    tries += 1;
                    let what = format_args!("group {}: waiting for offsets", self.group.settings.group);
                    let error = KafkaError::Partition { of, api: "OffsetFetch", code };
                    self.group.cluster.again(&what, &error, tries, PAUSE);
                }
                self.wait(Instant::now() + PAUSE)?;
                self.beat_if_due()?;
                self.end_leftovers();
            }
        }
        Ok(fetched)
    }

    fn ask_offsets(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Row>, Fault> {
        let group = self.group_id();
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        partitions.iter().for_each(|of| topics.entry(&of.topic).or_default().push(of.partition));
        let rows =
            self.ask(&OffsetFetchRequest::default().with_require_stable(true), |connection, request| {
                let version = connection.version::<OffsetFetchRequest>(9)?;
                if version < STABLE {
                    return Err(too_old(connection, version));
                }
                let request = match version {
                    GROUPS.. => {
                        let topic = |(name, partitions): (&&str, &Vec<i32>)| {
                            OffsetFetchRequestTopics::default()
                                .with_name(topic_name(name))
                                .with_partition_indexes(partitions.clone())
                        };
                        let asked = OffsetFetchRequestGroup::default()
                            .with_group_id(group)
                            .with_topics(Some(topics.iter().map(topic).collect()));
                        request.clone().with_groups(vec![asked])
                    }
                    _ => {
                        let topic = |(name, partitions): (&&str, &Vec<i32>)| {
                            OffsetFetchRequestTopic::default()
                                .with_name(topic_name(name))
                                .with_partition_indexes(partitions.clone())
                        };
                        request
                            .clone()
                            .with_group_id(group)
                            .with_topics(Some(topics.iter().map(topic).collect()))
                    }
                };
                let timeout = self.group.cluster.options().request_timeout;
                let answer = connection.call_within(&request, version, timeout)?;
                let code = answer.groups.first().map_or(answer.error_code, |group| group.error_code);
                check(connection, &request, version, code)?;
                Ok(rows(answer))
            })?;
        Ok(rows.into_iter().filter(|row| partitions.contains(&row.of)).collect())
    }

    /// Rule 8: another topic's commit means nothing, another output's plan must not be carried out here.
    fn judge(&self, row: Row) -> Result<(TopicPartition, Fetched), Fault> {
        let settings = &self.group.settings;
        let topic_id = self.group.cluster.topic(&row.of.topic).map_or(Uuid::nil(), |topic| topic.id);
        if row.offset < 0 {
            return Ok((row.of, Fetched { topic_id, stored: None, committed: None }));
        }
        let metadata = Remembered::read(Some(&row.text), row.offset);
        let stored = Some(Stored { offset: row.offset, text: row.text });
        match &metadata {
            Remembered::Ours(ours) if foreign(ours.topic_id, topic_id) => {
                log::warn!("{}: the commit is of an earlier topic of this name and is ignored", row.of);
                return Ok((row.of, Fetched { topic_id, stored, committed: None }));
            }
            Remembered::Ours(ours) if ours.location != settings.location && !ours.plan.is_empty() => {
                let what = format!(
                    "group {} has begun batches of {} for another output; finish with that output, or use another \
                     group",
                    settings.group, row.of
                );
                return Err(Fault::Fatal(Error::Usage(what)));
            }
            // What was set from outside is for the source to mention, once an assignment.
            _ => {}
        }
        let committed = Committed { offset: row.offset, leader_epoch: row.leader_epoch, metadata };
        Ok((row.of, Fetched { topic_id, stored, committed: Some(committed) }))
    }
}

fn foreign(committed: Uuid, current: Uuid) -> bool {
    !committed.is_nil() && !current.is_nil() && committed != current
}

fn too_old(connection: &Connection, version: i16) -> KafkaError {
    let api = <OffsetFetchRequest as Api>::NAME;
    KafkaError::Version {
        broker: connection.broker().clone(),
        api,
        ours: (STABLE, 9),
        theirs: Some((0, version)),
    }
}

fn rows(answer: OffsetFetchResponse) -> Vec<Row> {
    let of = |name: &TopicName, partition| TopicPartition::new(&name.0[..], partition);
    let mut rows = Vec::new();
    for topic in answer.groups.iter().flat_map(|group| &group.topics) {
        rows.extend(topic.partitions.iter().map(|one| Row {
            of: of(&topic.name, one.partition_index),
            code: Code(one.error_code),
            offset: one.committed_offset,
            leader_epoch: one.committed_leader_epoch,
            text: one.metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
        }));
    }
    for topic in &answer.topics {
        rows.extend(topic.partitions.iter().map(|one| Row {
            of: of(&topic.name, one.partition_index),
            code: Code(one.error_code),
            offset: one.committed_offset,
            leader_epoch: one.committed_leader_epoch,
            text: one.metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
        }));
    }
    rows
}
