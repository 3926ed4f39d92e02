//! [`Topic`] and [`TopicPartition`]: what the cluster said about a topic, and how the next answer changes that.
//!
//! Answers come from brokers that may be behind. A partition therefore never goes back to an older leader epoch
//! (KIP-320), unless the topic has another id (KIP-516): then it was deleted and created anew, and what was known
//! of the old one means nothing. Nor does a topic of the same id lose partitions, which only become more.

use std::fmt;
use std::sync::Arc;

use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use uuid::Uuid;

use crate::kafka::code::Code;

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A topic as the cluster last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; nil where brokers are too old to tell (before 2.8).
    pub id: Uuid,
    /// Its partitions, ascending. With an error: those that were known before, which may be gone.
    pub partitions: Vec<PartitionInfo>,
    /// Why it cannot be used: unknown, not allowed, no valid name. The caller decides what that means.
    pub error: Code,
}

/// A partition as the cluster last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number, from 0.
    pub index: i32,
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 if it is not known.
    pub epoch: i32,
    /// Why it has no leader.
    pub error: Code,
}

impl Topic {
    /// The partition of this number.
    pub fn partition(&self, index: i32) -> Option<&PartitionInfo> {
        let at = self.partitions.binary_search_by_key(&index, |partition| partition.index).ok()?;
        Some(&self.partitions[at])
    }

    /// What is known after an answer.
    pub(super) fn after(before: Option<&Topic>, name: Arc<str>, answer: &MetadataResponseTopic) -> Topic {
        let error = Code(answer.error_code);
        // A broker that is too old for ids does not mean another topic.
        let same = before
            .filter(|before| answer.topic_id.is_nil() || before.id.is_nil() || before.id == answer.topic_id);
        let id =
            if answer.topic_id.is_nil() { same.map_or(Uuid::nil(), |same| same.id) } else { answer.topic_id };
        if error != Code::NONE {
            let partitions = same.map(|same| same.partitions.clone()).unwrap_or_default();
            return Topic { name, id, partitions, error };
        }
        let mut partitions: Vec<_> = answer.partitions.iter().map(PartitionInfo::of).collect();
        partitions.sort_by_key(|partition| partition.index);
        partitions.dedup_by_key(|partition| partition.index);
        for partition in &mut partitions {
            if let Some(newer) = same.and_then(|same| same.partition(partition.index))
                && partition.epoch >= 0
                && partition.epoch < newer.epoch
            {
                *partition = newer.clone();
            }
        }
        if let Some(same) = same.filter(|same| same.id == id && !id.is_nil()) {
            let told = partitions.len();
            let lacks = |known: &&PartitionInfo| {
                partitions[..told].binary_search_by_key(&known.index, |one| one.index).is_err()
            };
            let lacking: Vec<_> = same.partitions.iter().filter(lacks).cloned().collect();
            partitions.extend(lacking);
            partitions.sort_by_key(|partition| partition.index);
        }
        Topic { name, id, partitions, error }
    }
}

impl PartitionInfo {
    fn of(answer: &MetadataResponsePartition) -> Self {
        PartitionInfo {
            index: answer.partition_index,
            leader: Some(answer.leader_id.0).filter(|leader| *leader >= 0),
            epoch: answer.leader_epoch,
            error: Code(answer.error_code),
        }
    }
}
