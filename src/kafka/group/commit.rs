//! Commits: one OffsetCommit in flight, on a connection of its own, fenced by generation and member id.
//!
//! What was sent and neither acknowledged nor refused is remembered in `state`, so that a rebalance can tell
//! whether a tenancy is still what it was. When no answer comes, nobody knows whether the commit will still arrive:
//! the connection is closed, all tenancies are lost, and the group's thread forces a new generation, which fences
//! it (boundary plan, rule 1).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use super::fault::advice;
use super::member::text;
use super::metadata::Metadata;
use super::state::{Phase, Stored, Summons};
use super::{Group, fault};
use crate::error::{Error, Result, Retry};
use crate::kafka::cluster::{Coordinates, SERVICE, TopicPartition, topic_name};
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};

/// The highest version with topic names.
const MOST: i16 = 9;
/// From this version on a commit says which static member it is.
const STATIC: i16 = 7;
/// From this version on leader epochs are kept.
const EPOCHS: i16 = 6;
/// How many ends a commit carries at most, before a broker has refused that.
const ENDS: usize = 512;
/// Before something is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one search for the coordinator may take.
const SEARCH: Duration = Duration::from_secs(2);
/// How often a waiting commit looks whether the run was aborted.
const SLICE: Duration = Duration::from_millis(100);
/// A connection that was idle for so long may have been closed by the broker, which would look like a lost reply.
const IDLE: Duration = Duration::from_secs(60);

/// What is to be remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which partition.
    pub of: TopicPartition,
    /// Its tenancy.
    pub epoch: u64,
    /// Everything before it is done.
    pub offset: i64,
    /// Leader epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What stands beside it; see [`Group::metadata`].
    pub metadata: Metadata,
}

/// A commit that is durable, but for the last ends of its plan: they did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutShort {
    /// Which partition.
    pub of: TopicPartition,
    /// Its tenancy.
    pub epoch: u64,
    /// So many ends are durable, from the first.
    pub ends: usize,
}

/// The commit thread's own.
pub(super) struct CommitPath {
    connection: Option<Connection>,
    used: Instant,
    /// How many ends a commit carries at most; halved when the broker says that the metadata are too large.
    ends: usize,
}

impl Default for CommitPath {
    fn default() -> Self {
        CommitPath { connection: None, used: Instant::now(), ends: ENDS }
    }
}

/// As whom one try is made.
struct Attempt {
    member: String,
    generation: i32,
}

/// What one answer means for one partition.
enum Verdict {
    Stored,
    Again,
    /// A rebalance has begun: its outcome decides.
    Wait,
    TooLarge,
    Expelled,
    Gone,
    Fatal,
}

impl Verdict {
    fn of(code: Code) -> Self {
        match code {
            Code::NONE => Verdict::Stored,
            Code::REBALANCE_IN_PROGRESS => Verdict::Again,
            Code::ILLEGAL_GENERATION | Code::UNKNOWN_MEMBER_ID => Verdict::Wait,
            Code::FENCED_INSTANCE_ID => Verdict::Expelled,
            Code::OFFSET_METADATA_TOO_LARGE => Verdict::TooLarge,
            Code::UNKNOWN_TOPIC_OR_PARTITION => Verdict::Gone,
            code if code.retry() == Retry::Transient => Verdict::Again,
            _ => Verdict::Fatal,
        }
    }
}

/// What one try would store of one partition.
struct Sent {
    /// Its place among the offsets.
    place: usize,
    stored: Stored,
    /// How many ends of the plan are in it.
    ends: usize,
    /// How many of those may not be left out.
    kept: usize,
}

/// One call of [`Group::commit`].
struct Round<'a> {
    group: &'a Group,
    offsets: &'a [Commit],
    /// Places in `offsets` that are not settled.
    open: Vec<usize>,
    short: Vec<CutShort>,
    /// A generation that the coordinator refused while a rebalance was under way.
    refused_in: Option<i32>,
    begun: Instant,
    /// How often something went wrong that may pass.
    tries: u32,
}

impl Group {
    /// Commits. For the commit thread only. Blocks until each partition is durable or no longer ours: through a
    /// rebalance if one is under way, and through the absence of a coordinator while the session may last.
    ///
    /// Tenancies that are fenced or lost are pushed to `refused`; they end with [`super::Change::Lost`]. What is
    /// returned tells of plans that did not fit whole.
    ///
    /// # Errors
    /// What no further try can help; [`Error::Stopped`] after an abort. The run must end.
    pub fn commit(
        &self,
        offsets: &[Commit],
        refused: &mut Vec<(TopicPartition, u64)>,
    ) -> Result<Vec<CutShort>> {
        let mut path = self.commits.lock();
        let mut round = Round {
            group: self,
            offsets,
            open: (0..offsets.len()).collect(),
            short: Vec::new(),
            refused_in: None,
            begun: Instant::now(),
            tries: 0,
        };
        while let Some(attempt) = round.next(refused)? {
            match round.attempt(&mut path, &attempt) {
                Ok(()) => {}
                Err(error) if error.is_ambiguous() => {
                    path.connection = None;
                    self.cluster.options().services.retry(SERVICE, error.kind());
                    self.doubt(&error.to_string());
                }
                Err(KafkaError::HungUp) => return Err(Error::Stopped),
                Err(error) if error.retry() == Retry::Transient => {
                    path.connection = None;
                    round.tries += 1;
                    let what = format_args!("group {}: committing", self.settings.group);
                    self.cluster.again(&what, &error, round.tries, PAUSE);
                    self.cluster.stop().sleep(PAUSE)?;
                }
                Err(error) => return Err(round.fatal(error)),
            }
        }
        Ok(round.short)
    }

    /// Whoever commits in a transaction says so before it sends the offset, and [`Group::stored`] after the
    /// transaction is committed: else a rebalance takes what it then finds for somebody else's, and the tenancy is
    /// lost. `metadata` is the text that stands beside the offset.
    pub fn sending(&self, of: &TopicPartition, epoch: u64, offset: i64, metadata: &str) {
        self.state.lock().sending(of, epoch, Stored { offset, text: metadata.into() });
    }

    /// The transaction with this offset is committed.
    pub fn stored(&self, of: &TopicPartition, epoch: u64, offset: i64, metadata: &str) {
        self.state.lock().acknowledge(of, epoch, &Stored { offset, text: metadata.into() });
    }

    /// Nobody knows what was committed: all tenancies end, and after a new generation, which fences whatever is
    /// still on its way, the group tells where to go on. For whoever commits in transactions, too.
    pub fn doubt(&self, why: &str) {
        log::warn!(
            "group {}: {why}: it is not known what was committed; all partitions are read again from there",
            self.settings.group
        );
        self.summon(Summons::Doubt);
    }

    fn summon(&self, summons: Summons) {
        let mut state = self.state.lock();
        state.lose_all();
        state.summons = Some(summons);
        drop(state);
        self.rouse();
    }
}

impl Commit {
    /// What the coordinator is to keep, and how many ends of the plan that has.
    fn stored(&self, ends: usize, kept: usize) -> (Stored, usize) {
        let written = self.metadata.write(self.offset, ends, kept);
        (Stored { offset: self.offset, text: written.text }, written.ends)
    }
}

impl Round<'_> {
    /// Waits until a try makes sense. `None`: nothing is open any more.
    fn next(&mut self, refused: &mut Vec<(TopicPartition, u64)>) -> Result<Option<Attempt>> {
        let mut state = self.group.state.lock();
        loop {
            if self.group.cluster.stop().is_aborted() {
                return Err(Error::Stopped);
            }
            if state.expire(Instant::now()) {
                state.summons = Some(Summons::Doubt);
                self.group.rouse();
            }
            self.open.retain(|place| {
                let commit = &self.offsets[*place];
                let owned = state.is_owned(&commit.of, commit.epoch, Instant::now());
                if !owned {
                    refused.push((commit.of.clone(), commit.epoch));
                }
                owned
            });
            if self.open.is_empty() {
                return Ok(None);
            }
            if state.generation() >= 0 && self.refused_in != Some(state.generation()) {
                return Ok(Some(Attempt { member: state.member().into(), generation: state.generation() }));
            }
            let _ = self.group.changed.wait_for(&mut state, SLICE);
        }
    }

    fn attempt(&mut self, path: &mut CommitPath, attempt: &Attempt) -> KafkaResult<()> {
        if path.used.elapsed() > IDLE {
            path.connection = None;
        }
        let connection = path.connect(self.group)?;
        let version = connection.version::<OffsetCommitRequest>(MOST)?;
        let (request, sent) = self.request(attempt, version, path.ends);
        let timeout = self.group.cluster.options().request_timeout;
        let connection = path.connect(self.group)?;
        let wait = connection.throttle().min(timeout);
        if !wait.is_zero() && self.group.cluster.stop().sleep(wait).is_err() {
            return Err(KafkaError::HungUp);
        }
        let answer = connection.call_within(&request, version, timeout)?;
        path.used = Instant::now();
        self.learn(path, attempt, &answer, &sent)
    }

    /// The request, and what it would store by place.
    fn request(&self, attempt: &Attempt, version: i16, ends: usize) -> (OffsetCommitRequest, Vec<Sent>) {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        let mut sent = Vec::with_capacity(self.open.len());
        let mut state = self.group.state.lock();
        for place in &self.open {
            let commit = &self.offsets[*place];
            let durable = state.planned_until(&commit.of, commit.epoch);
            let kept = commit.metadata.plan.iter().take_while(|planned| Some(planned.end) <= durable).count();
            let (stored, ends) = commit.stored(ends, kept);
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(commit.of.partition)
                .with_committed_offset(commit.offset)
                .with_committed_leader_epoch(if version >= EPOCHS { commit.leader_epoch } else { -1 })
                .with_committed_metadata(Some(text(&stored.text)));
            topics.entry(&commit.of.topic).or_default().push(partition);
            state.sending(&commit.of, commit.epoch, stored.clone());
            sent.push(Sent { place: *place, stored, ends, kept });
        }
        let topic = |(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        };
        let settings = &self.group.settings;
        let instance = settings.instance_id.as_deref().filter(|_| version >= STATIC).map(text);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&settings.group)))
            .with_generation_id_or_member_epoch(attempt.generation)
            .with_member_id(StrBytes::from_string(attempt.member.clone()))
            .with_group_instance_id(instance)
            .with_topics(topics.into_iter().map(topic).collect());
        (request, sent)
    }

    /// Takes the answer apart. What it does not mention stays open.
    fn learn(
        &mut self,
        path: &mut CommitPath,
        attempt: &Attempt,
        answer: &OffsetCommitResponse,
        sent: &[Sent],
    ) -> KafkaResult<()> {
        let mut codes = BTreeMap::new();
        for topic in &answer.topics {
            let rows = topic.partitions.iter();
            codes.extend(rows.map(|one| ((&topic.name.0[..], one.partition_index), Code(one.error_code))));
        }
        let (mut pause, mut too_large, mut trouble) = (false, None, None);
        for Sent { place, stored, ends, kept } in sent {
            let commit = &self.offsets[*place];
            let Some(code) = codes.get(&(&commit.of.topic[..], commit.of.partition)).copied() else {
                pause = true;
                continue;
            };
            let verdict = Verdict::of(code);
            self.note(commit, stored, code);
            match verdict {
                Verdict::Stored => {
                    self.open.retain(|open| open != place);
                    if *ends < commit.metadata.plan.len() {
                        self.short.push(CutShort { of: commit.of.clone(), epoch: commit.epoch, ends: *ends });
                    }
                }
                Verdict::Again => {
                    pause = true;
                    if code != Code::REBALANCE_IN_PROGRESS {
                        path.connection = None;
                        self.retried(commit, code);
                    }
                }
                Verdict::Wait => self.fenced(attempt, code),
                Verdict::Expelled => self.group.summon(Summons::Expelled(code)),
                // One end at least must fit, or nothing would ever be published again.
                Verdict::TooLarge if *ends > 1.max(*kept) => too_large = too_large.max(Some(*ends)),
                // The topic may be deleted, or this broker may not know of it yet.
                Verdict::Gone if self.begun.elapsed() > self.group.cluster.options().request_timeout => {
                    self.gone(commit);
                }
                Verdict::Gone => {
                    pause = true;
                    self.retried(commit, code);
                }
                Verdict::TooLarge | Verdict::Fatal => {
                    trouble =
                        Some(KafkaError::Partition { of: commit.of.clone(), api: "OffsetCommit", code });
                }
            }
        }
        if let Some(ends) = too_large {
            path.ends = ends / 2;
        }
        if pause && self.group.cluster.stop().sleep(PAUSE).is_err() {
            return Err(KafkaError::HungUp);
        }
        trouble.map_or(Ok(()), Err)
    }

    /// The coordinator refused a commit for now.
    fn retried(&mut self, commit: &Commit, code: Code) {
        self.tries += 1;
        let what = format_args!("group {}: committing", self.group.settings.group);
        let error = KafkaError::Partition { of: commit.of.clone(), api: "OffsetCommit", code };
        self.group.cluster.again(&what, &error, self.tries, PAUSE);
    }

    /// The topic was deleted, as it seems. Another join shows what there is.
    fn gone(&self, commit: &Commit) {
        log::warn!("group {}: {} cannot be committed: it is not there", self.group.settings.group, commit.of);
        let mut state = self.group.state.lock();
        state.lose(&commit.of);
        state.summons.get_or_insert(Summons::Doubt);
        drop(state);
        self.group.rouse();
    }

    fn note(&self, commit: &Commit, stored: &Stored, code: Code) {
        let mut state = self.group.state.lock();
        match code {
            Code::NONE => state.acknowledge(&commit.of, commit.epoch, stored),
            // It may stand in the coordinator's log all the same.
            Code::COORDINATOR_NOT_AVAILABLE | Code::REQUEST_TIMED_OUT | Code(-1) => {}
            _ => state.refuse(&commit.of, commit.epoch, stored),
        }
    }

    /// The generation of this try is over. In a rebalance its outcome is waited for; else the group went on
    /// without us.
    fn fenced(&mut self, attempt: &Attempt, code: Code) {
        let mut state = self.group.state.lock();
        let current = state.generation() == attempt.generation && state.member() == attempt.member;
        let stable = state.phase == Phase::Stable;
        // The answer to the join must be on its way: it is not waited for without end.
        state.begun(Instant::now(), self.group.settings.session_timeout);
        drop(state);
        if current && stable {
            self.group.summon(Summons::Expelled(code));
        } else if current {
            self.refused_in = Some(attempt.generation);
        }
    }

    fn fatal(&self, error: KafkaError) -> Error {
        let settings = &self.group.settings;
        let text = match &error {
            KafkaError::Partition { code: Code::OFFSET_METADATA_TOO_LARGE, .. } => Some(
                "the broker takes too few bytes of metadata beside an offset to remember which batches may be \
                 published: set its offset.metadata.max.bytes to 4096 or more"
                    .to_string(),
            ),
            KafkaError::Partition { code, .. } | KafkaError::Coordinator { code, .. } => {
                advice(settings, *code)
            }
            _ => None,
        };
        match text {
            Some(text) => fault::permanent(settings, format!("{text} ({error})")),
            None => error.into(),
        }
    }
}

impl CommitPath {
    fn connect(&mut self, group: &Group) -> KafkaResult<&mut Connection> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            let deadline = Instant::now() + SEARCH;
            match group.cluster.coordinator(Coordinates::Group, &group.settings.group, deadline) {
                Ok(found) => {
                    if let Err(error) = found.reset_on_close() {
                        log::debug!("group {}: {error}", group.settings.group);
                    }
                    self.connection = Some(found);
                }
                // Nothing of the commit was sent: an error of the way there is no doubt.
                Err(error) if error.is_ambiguous() && error.retry() == Retry::Transient => {
                    return Err(KafkaError::Unavailable(error.to_string()));
                }
                Err(error) => return Err(error),
            }
            self.used = Instant::now();
        }
        Ok(self.connection.as_mut().expect("it was put there right now"))
    }
}
