//! What the group remembers of its partitions (OffsetFetch), and what to think of it.
//!
//! Always with `require_stable` (KIP-447): an offset that a transaction is about to change is waited for, with
//! heartbeats meanwhile. Boundary plan, rules 4 and 8.
//!
//! What an answer does not name is not known, which is something else than that nothing was committed: it is asked for
//! again, and in the end that is an error ([`Omissions`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use uuid::Uuid;

use super::Group;
use super::change::Committed;
use super::fault::Fault;
use super::member::{Member, check, delay};
use super::metadata::{Remembered, seems_ours};
use super::settings::GroupSettings;
use super::state::{Fetched, Stored};
use crate::error::{Error, Retry};
use crate::kafka::cluster::{SERVICE, TopicPartition, topic_name};
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::connection::address::Address;
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};
use crate::kafka::wire::Api;

/// The highest version with topic names.
const MOST: i16 = 9;
/// From this version on unstable offsets are told apart (Kafka 2.5).
const STABLE: i16 = 7;
/// From this version on a request is for several groups.
const GROUPS: i16 = 8;
/// Before unstable offsets are asked for again.
const PAUSE: Duration = Duration::from_millis(100);
/// When waiting is worth a message.
const LONG: Duration = Duration::from_secs(10);

/// Of what is left out, so many partitions are named.
const NAMED: usize = 5;

/// One partition's answer.
pub(super) struct Row {
    pub of: TopicPartition,
    pub code: Code,
    offset: i64,
    leader_epoch: i32,
    text: String,
}

/// What a coordinator did not answer, although it was asked; may be nothing.
pub(crate) struct LeftOut {
    pub by: Arc<Address>,
    pub missing: Vec<TopicPartition>,
}

impl From<&LeftOut> for KafkaError {
    fn from(left_out: &LeftOut) -> Self {
        KafkaError::Unavailable(left_out.to_string())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.missing.len();
        let plural = if count == 1 { "" } else { "s" };
        let named: Vec<_> = self.missing.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if count > NAMED { ", …" } else { "" };
        write!(
            f,
            "coordinator {} left {count} partition{plural} out of its answer about offsets: {}{more}",
            self.by,
            named.join(", ")
        )
    }
}

/// Since when a coordinator leaves partitions out of its answers, and how often it has: it is asked again, later and
/// later, and not for ever.
#[derive(Default)]
pub(super) struct Omissions(Option<(Instant, u32)>);

impl Omissions {
    /// Takes what an answer left out. How long to wait before asking again. Says so the first time.
    ///
    /// # Errors
    /// [`KafkaError::GaveUp`] once something was left out for the group's `give_up_after`.
    pub fn take(&mut self, group: &Group, left_out: &LeftOut) -> KafkaResult<Duration> {
        if left_out.missing.is_empty() {
            self.0 = None;
            return Ok(PAUSE);
        }
        let (settings, error) = (&group.settings, KafkaError::from(left_out));
        let (since, tries) = *self.0.get_or_insert_with(|| {
            group.cluster.options().services.retry(SERVICE, error.kind());
            log::warn!(
                service = SERVICE;
                "group {}: {error}; asking again, with growing delays, for {:?}", settings.group, settings.give_up_after
            );
            (Instant::now(), 0)
        });
        if since.elapsed() >= settings.give_up_after {
            let what = format!("group {}: asking for offsets", settings.group);
            return Err(KafkaError::GaveUp { what, after: since.elapsed(), last: Box::new(error) });
        }
        self.0 = Some((since, tries + 1));
        Ok(delay(tries))
    }
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
            let (rows, left_out) = self.ask_offsets(&open)?;
            for row in rows {
                match row.code {
                    Code::NONE => {
                        let topic = self.group.cluster.topic(&row.of.topic);
                        let topic_id = topic.map_or(Uuid::nil(), |topic| topic.id);
                        let found = row.stored().map(|stored| (stored, row.leader_epoch));
                        let judged = judge(&self.group.settings, &row.of, topic_id, found);
                        fetched.insert(row.of, judged.map_err(Fault::Fatal)?);
                    }
                    code if code.retry() == Retry::Transient => unstable = Some((row.of, code)),
                    code => {
                        let error = KafkaError::Partition { of: row.of, api: "OffsetFetch", code };
                        return Err(Fault::Fatal(error.into()));
                    }
                }
            }
            let pause = self.omissions.take(self.group, &left_out);
            let pause = pause.map_err(|error| Fault::Fatal(error.into()))?;
            if fetched.len() < partitions.len() {
                // Others' transactions take some seconds at times. That counts once, and is told if it takes long.
                let is_news = tries == 0 || tries == 1 && begun.elapsed() >= LONG;
                if let (Some((of, code)), true) = (unstable, is_news) {
                    tries += 1;
                    let what = format_args!("group {}: waiting for offsets", self.group.settings.group);
                    let error = KafkaError::Partition { of, api: "OffsetFetch", code };
                    self.group.cluster.again(&what, &error, tries, PAUSE);
                }
                self.wait(self.beat_at.min(Instant::now() + pause))?;
                self.beat_if_due()?;
                self.end_leftovers();
            }
        }
        self.omissions = Omissions::default();
        Ok(fetched)
    }

    fn ask_offsets(&mut self, partitions: &[TopicPartition]) -> Result<(Vec<Row>, LeftOut), Fault> {
        let group = self.group_id();
        let timeout = self.group.cluster.options().request_timeout;
        self.ask(&OffsetFetchRequest::default(), |connection, _| {
            stable_offsets(connection, group, partitions, timeout)
        })
    }
}

/// Asks for offsets that nothing is about to change (KIP-447). Returns what was answered, and what was not.
pub(super) fn stable_offsets(
    connection: &mut Connection,
    group: GroupId,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> KafkaResult<(Vec<Row>, LeftOut)> {
    let version = connection.version::<OffsetFetchRequest>(MOST)?;
    if version < STABLE {
        return Err(too_old(connection, version));
    }
    let request = request(group, partitions, version);
    let answer = connection.call_within(&request, version, timeout)?;
    let code = answer.groups.first().map_or(answer.error_code, |group| group.error_code);
    check(connection, &request, version, code)?;
    let mut missing: BTreeSet<_> = partitions.iter().cloned().collect();
    let rows = rows(answer).into_iter().filter(|row| missing.remove(&row.of)).collect();
    Ok((rows, LeftOut { by: connection.broker().clone(), missing: missing.into_iter().collect() }))
}

fn request(group: GroupId, partitions: &[TopicPartition], version: i16) -> OffsetFetchRequest {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    partitions.iter().for_each(|of| topics.entry(&of.topic).or_default().push(of.partition));
    let request = OffsetFetchRequest::default().with_require_stable(true);
    if version >= GROUPS {
        let topic = |(name, partitions): (&str, Vec<i32>)| {
            OffsetFetchRequestTopics::default().with_name(topic_name(name)).with_partition_indexes(partitions)
        };
        let topics = topics.into_iter().map(topic).collect();
        let asked = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(topics));
        return request.with_groups(vec![asked]);
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(partitions)
    };
    request.with_group_id(group).with_topics(Some(topics.into_iter().map(topic).collect()))
}

impl Row {
    /// What is stored, if anything is.
    pub fn stored(&self) -> Option<Stored> {
        (self.offset >= 0).then(|| Stored { offset: self.offset, text: self.text.clone() })
    }
}

/// Rule 8: another topic's commit means nothing, another output's plan must not be carried out here. `topic_id` is
/// the topic's id now. Pure.
///
/// # Errors
/// [`Error::Usage`] if batches of another output are begun.
pub(crate) fn judge(
    settings: &GroupSettings,
    of: &TopicPartition,
    topic_id: Uuid,
    found: Option<(Stored, i32)>,
) -> Result<Fetched, Error> {
    let Some((stored, leader_epoch)) = found else {
        return Ok(Fetched { topic_id, stored: None, committed: None });
    };
    let metadata = Remembered::read(Some(&stored.text), stored.offset);
    match &metadata {
        Remembered::Ours(ours) if foreign(ours.topic_id, topic_id) => {
            log::warn!("{of}: the commit is of an earlier topic of this name and is ignored");
            return Ok(Fetched { topic_id, stored: Some(stored), committed: None });
        }
        Remembered::Ours(ours) if ours.location != settings.location && !ours.plan.is_empty() => {
            return Err(Error::Usage(format!(
                "group {} has begun batches of {of} for another output or with other names \
                 (output.key, compress); finish with those, or use another group",
                settings.group
            )));
        }
        Remembered::Ours(ours) if ours.location != settings.location => {
            log::warn!(
                "{of}: group {} has stored what comes before {} in another output, or under other names; it goes on \
                 in this one from there",
                settings.group,
                stored.offset
            );
        }
        // What it plans may be published.
        Remembered::Foreign(text) if seems_ours(text) => {
            return Err(Error::Usage(format!(
                "what group {} remembers of {of} was written by another version of this program, or is damaged; go on \
                 with that version, or set the group's offset (kafka-consumer-groups --reset-offsets)",
                settings.group
            )));
        }
        // What was set from outside is for the source to mention, once an assignment.
        _ => {}
    }
    let committed = Committed { offset: stored.offset, leader_epoch, metadata };
    Ok(Fetched { topic_id, stored: Some(stored), committed: Some(committed) })
}

fn foreign(committed: Uuid, current: Uuid) -> bool {
    !committed.is_nil() && !current.is_nil() && committed != current
}

fn too_old(connection: &Connection, version: i16) -> KafkaError {
    let api = <OffsetFetchRequest as Api>::NAME;
    KafkaError::Version {
        broker: connection.broker().clone(),
        api,
        ours: (STABLE, MOST),
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
