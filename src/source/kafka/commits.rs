//! What a group has committed of any partition, whoever has it: `--until` ends when all of it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{PATIENCE, Shared};
use crate::error::{Error, Result};
use crate::kafka::Code;
use crate::kafka::cluster::{Coordinates, SERVICE, TopicPartition};

/// From this version on a request asks for several groups (KIP-709).
const GROUPS: i16 = 8;
/// The highest version that names topics; later ones have their ids.
const NAMES: i16 = 9;

impl Shared {
    /// Whether the group has committed all of these offsets, or there was nothing before them.
    ///
    /// # Errors
    /// If the coordinator does not say within a minute.
    pub(super) fn is_committed(&self, ends: &[(TopicPartition, i64)]) -> Result<bool> {
        let commits = self.commits(ends.iter().map(|(of, _)| of))?;
        Ok(ends.iter().all(|(of, end)| *end <= 0 || commits.get(of).is_some_and(|commit| commit >= end)))
    }

    /// The group's commits could not be asked for, and are asked for again in `wait`.
    pub(super) fn again(&self, error: &Error, attempt: u32, wait: Duration) {
        self.cluster.options().services.retry(SERVICE, error.kind());
        let wait = wait.as_millis() as u64;
        log::warn!(
            service = SERVICE, attempt, wait_ms = wait;
            "cannot ask for the group's commits: {error}; attempt {attempt}, next in {wait} ms"
        );
    }

    /// What the group has committed of these partitions; those without a commit are missing.
    pub(super) fn commits<'a>(
        &self,
        of: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<HashMap<TopicPartition, i64>> {
        let Some(settings) = &self.options.group else { return Ok(HashMap::new()) };
        let mut topics: HashMap<Arc<str>, Vec<i32>> = HashMap::new();
        for one in of {
            topics.entry(one.topic.clone()).or_default().push(one.partition);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut connection = self.cluster.coordinator(Coordinates::Group, &settings.group, deadline)?;
        let version = connection.version::<OffsetFetchRequest>(NAMES)?;
        let request = request(&settings.group, &topics, version);
        let timeout = self.cluster.options().request_timeout;
        let answer = connection.call_within(&request, version, timeout)?;
        Ok(read(&answer))
    }
}

fn request(group: &str, topics: &HashMap<Arc<str>, Vec<i32>>, version: i16) -> OffsetFetchRequest {
    let name = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
    let group = GroupId(StrBytes::from_string(group.to_owned()));
    if version >= GROUPS {
        let topic = |(topic, partitions): (&Arc<str>, &Vec<i32>)| {
            OffsetFetchRequestTopics::default()
                .with_name(name(topic))
                .with_partition_indexes(partitions.clone())
        };
        let topics = topics.iter().map(topic).collect();
        let group = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(topics));
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topic = |(topic, partitions): (&Arc<str>, &Vec<i32>)| {
        OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(partitions.clone())
    };
    OffsetFetchRequest::default().with_group_id(group).with_topics(Some(topics.iter().map(topic).collect()))
}

/// An error of one partition counts as no commit: it is asked again.
fn read(answer: &OffsetFetchResponse) -> HashMap<TopicPartition, i64> {
    let mut commits = HashMap::new();
    let mut add = |topic: &TopicName, partition: i32, code: i16, offset: i64| {
        if Code(code).check().is_ok() && offset >= 0 {
            commits.insert(TopicPartition { topic: Arc::from(&*topic.0), partition }, offset);
        }
    };
    for topic in &answer.topics {
        for one in &topic.partitions {
            add(&topic.name, one.partition_index, one.error_code, one.committed_offset);
        }
    }
    for topic in answer.groups.iter().flat_map(|group| &group.topics) {
        for one in &topic.partitions {
            add(&topic.name, one.partition_index, one.error_code, one.committed_offset);
        }
    }
    commits
}
