//! One call of [`Group::commit`]: what each OffsetCommit of it carries, and what the answer means for each partition.
//! Sends nothing and waits for nothing; it looks at the group's state and changes it.
//!
//! A reply settles only what it names, partition by partition; what it does not mention stays open. Nothing goes out
//! for a tenancy that is over, and nothing without a generation, which nobody could fence (boundary plan, rules 2,
//! 5 and 10).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use super::commit::{Commit, CutShort, LONGEST_PAUSE, PAUSE};
use super::fault::advice;
use super::member::text;
use super::state::{Phase, State, Stored, Summons};
use super::{Group, fault};
use crate::error::{Error, Retry};
use crate::kafka::cluster::{SERVICE, TopicPartition, topic_name};
use crate::kafka::code::Code;
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};

/// From this version on a commit says which static member it is.
const STATIC: i16 = 7;
/// From this version on leader epochs are kept.
const EPOCHS: i16 = 6;

/// As whom one try is made.
pub(crate) struct Attempt {
    pub member: String,
    pub generation: i32,
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
pub(crate) struct Sent {
    /// Its place among the offsets.
    pub place: usize,
    pub stored: Stored,
    /// How many ends of the plan are in it.
    pub ends: usize,
    /// How many of those may not be left out.
    pub kept: usize,
}

/// One call of [`Group::commit`].
pub(crate) struct Round<'a> {
    group: &'a Group,
    offsets: &'a [Commit],
    /// Places in `offsets` that are not settled.
    open: Vec<usize>,
    /// What is durable but for the last ends.
    pub short: Vec<CutShort>,
    /// A generation that the coordinator refused while a rebalance was under way.
    refused_in: Option<i32>,
    begun: Instant,
    /// How often something went wrong that may pass.
    tries: u32,
    /// How often a try was waited for.
    waits: u32,
}

/// What is to be done next.
pub(crate) enum Ready {
    /// Nothing is open any more.
    Done,
    /// Try, as this member.
    Go(Attempt),
    /// Not now: the outcome of a rebalance decides.
    Wait,
}

/// What an answer asks for besides.
#[derive(Default)]
pub(crate) struct Learned {
    /// To wait a moment.
    pub pause: bool,
    /// To look for the coordinator again.
    pub search: bool,
    /// To carry at most so many ends from now on.
    pub ends: Option<usize>,
}

impl<'a> Round<'a> {
    pub fn new(group: &'a Group, offsets: &'a [Commit]) -> Self {
        Round {
            group,
            offsets,
            open: (0..offsets.len()).collect(),
            short: Vec::new(),
            refused_in: None,
            begun: Instant::now(),
            tries: 0,
            waits: 0,
        }
    }

    /// A try failed in a way that may pass: counts it, and says when the next one comes.
    pub fn failed(&mut self, error: &KafkaError) {
        self.tries += 1;
        let what = format_args!("group {}: committing", self.group.settings.group);
        self.group.cluster.again(&what, error, self.tries, self.pause());
    }

    /// How long it is to the next try.
    fn pause(&self) -> Duration {
        PAUSE.saturating_mul(1 << self.waits.min(10)).min(LONGEST_PAUSE)
    }

    /// How long to wait now, however many partitions were refused in one answer; the next time it is longer.
    pub fn wait(&mut self) -> Duration {
        let pause = self.pause();
        self.waits += 1;
        pause
    }

    /// Nobody knows what became of a try: counts it, and tells what the next one waits for.
    pub fn doubted(&mut self, error: &KafkaError) -> String {
        self.tries += 1;
        self.group.cluster.options().services.retry(SERVICE, error.kind());
        format!("committing: {error}; attempt {}, next when the group has a new generation", self.tries)
    }

    /// The coordinator refused a commit for now.
    fn refused(&mut self, commit: &Commit, code: Code) {
        self.failed(&KafkaError::Partition { of: commit.of.clone(), api: "OffsetCommit", code });
    }

    /// Whether a try makes sense. Tenancies that are over are pushed to `refused` and not tried any more.
    pub fn ready(&mut self, state: &mut State, refused: &mut Vec<(TopicPartition, u64)>) -> Ready {
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
        match state.generation() {
            _ if self.open.is_empty() => Ready::Done,
            // A commit without a generation would be taken from anyone.
            generation if generation >= 0 && self.refused_in != Some(generation) => {
                Ready::Go(Attempt { member: state.member().into(), generation })
            }
            _ => Ready::Wait,
        }
    }

    /// The request, and what it would store by place.
    pub fn request(&self, attempt: &Attempt, version: i16, ends: usize) -> (OffsetCommitRequest, Vec<Sent>) {
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
    ///
    /// # Errors
    /// What no further try can help.
    pub fn learn(
        &mut self,
        attempt: &Attempt,
        answer: &OffsetCommitResponse,
        sent: &[Sent],
    ) -> KafkaResult<Learned> {
        let mut codes = BTreeMap::new();
        for topic in &answer.topics {
            let rows = topic.partitions.iter();
            codes.extend(rows.map(|one| ((&topic.name.0[..], one.partition_index), Code(one.error_code))));
        }
        let (mut learned, mut trouble) = (Learned::default(), None);
        for Sent { place, stored, ends, kept } in sent {
            let commit = &self.offsets[*place];
            let Some(code) = codes.get(&(&commit.of.topic[..], commit.of.partition)).copied() else {
                learned.pause = true;
                continue;
            };
            self.note(commit, stored, code);
            match Verdict::of(code) {
                Verdict::Stored => {
                    self.open.retain(|open| open != place);
                    if *ends < commit.metadata.plan.len() {
                        self.short.push(CutShort { of: commit.of.clone(), epoch: commit.epoch, ends: *ends });
                    }
                }
                Verdict::Again => {
                    learned.pause = true;
                    if code != Code::REBALANCE_IN_PROGRESS {
                        learned.search = true;
                        self.refused(commit, code);
                    }
                }
                Verdict::Wait => self.fenced(attempt, code),
                Verdict::Expelled => self.group.summon(Summons::Expelled(code)),
                // One end at least must fit, or nothing would ever be published again.
                Verdict::TooLarge if *ends > 1.max(*kept) => learned.ends = learned.ends.max(Some(*ends / 2)),
                // The topic may be deleted, or this broker may not know of it yet.
                Verdict::Gone if self.begun.elapsed() > self.group.cluster.options().request_timeout => {
                    self.gone(commit);
                }
                Verdict::Gone => {
                    learned.pause = true;
                    self.refused(commit, code);
                }
                Verdict::TooLarge | Verdict::Fatal => {
                    trouble =
                        Some(KafkaError::Partition { of: commit.of.clone(), api: "OffsetCommit", code });
                }
            }
        }
        trouble.map_or(Ok(learned), Err)
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

    pub fn fatal(&self, error: KafkaError) -> Error {
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
