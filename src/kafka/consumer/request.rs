//! What is asked of a leader: Fetch, and OffsetForLeaderEpoch to validate positions (KIP-320).

use std::sync::Arc;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, OffsetForLeaderEpochRequest};

use super::FetchSettings;
use super::partition::Partition;
use crate::kafka::cluster::topic_name;

/// The highest version; what comes after it concerns replicas.
pub(super) const MOST: i16 = 17;
/// The highest version that names topics (KIP-516).
pub(super) const MOST_NAMED: i16 = 12;
/// The highest version in which a leader answers itself and names no other replica to read from (KIP-392).
pub(super) const MOST_LED: i16 = 10;
/// From here on a leader compares the epoch of the last record itself.
const COMPARES_EPOCHS: i16 = 12;

/// By topic, topics in the order of their first partition.
fn by_topic<T>(
    partitions: &[&mut Partition],
    ask: impl Fn(&Partition) -> T,
) -> Vec<(Arc<str>, uuid::Uuid, Vec<T>)> {
    let mut topics: Vec<(Arc<str>, uuid::Uuid, Vec<T>)> = Vec::new();
    for partition in partitions {
        let asked = ask(partition);
        match topics.iter_mut().find(|(topic, ..)| *topic == partition.of.topic) {
            Some((.., all)) => all.push(asked),
            None => topics.push((partition.of.topic.clone(), partition.topic_id, vec![asked])),
        }
    }
    topics
}

/// A fetch of these partitions, in this order: a broker that runs into `max_bytes` serves the first ones.
pub(super) fn fetch(partitions: &[&mut Partition], settings: &FetchSettings, version: i16) -> FetchRequest {
    let ask = |partition: &Partition| {
        let last = if version >= COMPARES_EPOCHS { partition.epoch } else { -1 };
        FetchPartition::default()
            .with_partition(partition.of.partition)
            .with_fetch_offset(partition.offset)
            .with_current_leader_epoch(partition.leader.map_or(-1, |(_, epoch)| epoch))
            .with_last_fetched_epoch(last)
            .with_partition_max_bytes(partition.max_bytes)
    };
    let topic = |(name, id, partitions): (Arc<str>, _, _)| {
        let topic = FetchTopic::default().with_partitions(partitions);
        if version > MOST_NAMED { topic.with_topic_id(id) } else { topic.with_topic(topic_name(&name)) }
    };
    // Session 0, epoch -1, as in the default: no session.
    FetchRequest::default()
        .with_max_wait_ms(i32::try_from(settings.max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(settings.min_bytes)
        .with_max_bytes(settings.max_bytes)
        .with_isolation_level(settings.isolation as i8)
        .with_topics(by_topic(partitions, ask).into_iter().map(topic).collect())
}

/// Where the logs of these partitions end in the epochs of what was read last.
pub(super) fn epochs(partitions: &[&mut Partition]) -> OffsetForLeaderEpochRequest {
    let ask = |partition: &Partition| {
        OffsetForLeaderPartition::default()
            .with_partition(partition.of.partition)
            .with_current_leader_epoch(partition.leader.map_or(-1, |(_, epoch)| epoch))
            .with_leader_epoch(partition.epoch)
    };
    let topic = |(name, _, partitions): (Arc<str>, _, _)| {
        OffsetForLeaderTopic::default().with_topic(topic_name(&name)).with_partitions(partitions)
    };
    // The schema's default is that of a debugging tool.
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(by_topic(partitions, ask).into_iter().map(topic).collect())
}
