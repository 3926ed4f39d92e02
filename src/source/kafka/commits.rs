//! What a group has committed of any partition, whoever has it: `--until` ends when all of it is done.

use std::collections::{BTreeSet, HashMap};
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
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};
use crate::kafka::group::offsets::LeftOut;

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
        let commits = self.commits(ends.iter().map(|(of, _)| of), Instant::now() + PATIENCE)?;
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

    /// Whether the group has committed any of these offsets. Asks until it is told: where nobody knows, a partition
    /// must not be taken for new.
    ///
    /// # Errors
    /// If the coordinator does not say within a minute.
    pub(super) fn has_committed(&self, any: &[TopicPartition]) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        let what = || "what the group has committed".to_owned();
        let commits = self.cluster.persist(what, deadline, || self.commits(any.iter(), deadline))?;
        Ok(!commits.is_empty())
    }

    /// What the group has committed of these partitions; those without a commit are missing. One try, once there is a
    /// coordinator. That it leaves one out of its answer is an error that may pass.
    fn commits<'a>(
        &self,
        of: impl Iterator<Item = &'a TopicPartition>,
        deadline: Instant,
    ) -> KafkaResult<HashMap<TopicPartition, i64>> {
        let Some(settings) = &self.options.group else { return Ok(HashMap::new()) };
        let mut topics: HashMap<Arc<str>, Vec<i32>> = HashMap::new();
        let mut missing = BTreeSet::new();
        for one in of {
            topics.entry(one.topic.clone()).or_default().push(one.partition);
            missing.insert(one.clone());
        }
        let mut connection = self.cluster.coordinator(Coordinates::Group, &settings.group, deadline)?;
        let version = connection.version::<OffsetFetchRequest>(NAMES)?;
        let request = request(&settings.group, &topics, version);
        let timeout = self.cluster.options().request_timeout;
        let answer = connection.call_within(&request, version, timeout)?;
        let mut commits = read(&answer, &settings.group)?;
        missing.retain(|of| !commits.contains_key(of));
        if !missing.is_empty() {
            let by = connection.broker().clone();
            return Err((&LeftOut { by, missing: missing.into_iter().collect() }).into());
        }
        commits.retain(|_, offset| *offset >= 0);
        Ok(commits)
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

/// What is told of each partition: -1 where nothing is committed. An error of anything is one of the whole: what is not
/// told is not taken for missing.
fn read(answer: &OffsetFetchResponse, group: &str) -> KafkaResult<HashMap<TopicPartition, i64>> {
    for code in answer.groups.iter().map(|group| group.error_code).chain([answer.error_code]) {
        let refused =
            |code| KafkaError::Coordinator { kind: Coordinates::Group, key: group.to_owned(), code };
        Code(code).check().map_err(refused)?;
    }
    let mut commits = HashMap::new();
    let mut add = |topic: &TopicName, partition: i32, code: i16, offset: i64| {
        let of = TopicPartition { topic: Arc::from(&*topic.0), partition };
        match Code(code).check() {
            Ok(()) => drop(commits.insert(of, offset)),
            Err(code) => return Err(KafkaError::Partition { of, api: "OffsetFetch", code }),
        }
        Ok(())
    };
    for topic in &answer.topics {
        for one in &topic.partitions {
            add(&topic.name, one.partition_index, one.error_code, one.committed_offset)?;
        }
    }
    for topic in answer.groups.iter().flat_map(|group| &group.topics) {
        for one in &topic.partitions {
            add(&topic.name, one.partition_index, one.error_code, one.committed_offset)?;
        }
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };

    use super::*;
    use crate::error::Retry;

    /// An answer about two partitions of `orders`, the second with this code, in a group with that one.
    fn answer(partition: i16, group: i16) -> OffsetFetchResponse {
        let row = |index, offset| {
            OffsetFetchResponsePartitions::default().with_partition_index(index).with_committed_offset(offset)
        };
        let rows = vec![row(0, 7), row(1, -1).with_error_code(partition)];
        let name = TopicName(StrBytes::from_static_str("orders"));
        let topic = OffsetFetchResponseTopics::default().with_name(name).with_partitions(rows);
        let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]).with_error_code(group);
        OffsetFetchResponse::default().with_groups(vec![group])
    }

    /// With `--from latest` a group that seems to have committed nothing begins at the end.
    #[test]
    fn what_is_not_told_is_not_taken_for_missing() {
        let mut commits: Vec<_> = read(&answer(0, 0), "nightly").unwrap().into_iter().collect();
        commits.sort();
        let of = |partition| TopicPartition::new("orders", partition);
        assert_eq!(commits, [(of(0), 7), (of(1), -1)]);
        // COORDINATOR_LOAD_IN_PROGRESS, UNSTABLE_OFFSET_COMMIT
        for (partition, group) in [(14, 0), (0, 14), (88, 0)] {
            let error = read(&answer(partition, group), "nightly").unwrap_err();
            assert_eq!(error.retry(), Retry::Transient, "{error}");
        }
    }
}
