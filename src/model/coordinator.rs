//! The group's coordinator: members, generations, assignments, and commits that it fences by them.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::random::Random;
use crate::kafka::group::state::Stored;

const REQUEST_TIMED_OUT: i16 = 7;
const METADATA_TOO_LARGE: i16 = 12;
const LOADING: i16 = 14;
const ILLEGAL_GENERATION: i16 = 22;
pub const UNKNOWN_MEMBER: i16 = 25;
pub const REBALANCING: i16 = 27;

/// A member as the coordinator knows it.
#[derive(Default)]
struct Seat {
    /// What it says it has and keeps (cooperative).
    claims: Vec<i32>,
    /// Whether it waits for the next generation.
    joined: bool,
    /// What it has not been told yet.
    answer: Option<(i32, Vec<i32>)>,
}

#[derive(Default)]
pub struct Coordinator {
    generation: i32,
    members: BTreeMap<String, Seat>,
    preparing: bool,
    /// By partition.
    pub offsets: BTreeMap<i32, Stored>,
    /// What stood there before.
    before: BTreeMap<i32, Stored>,
    names: u32,
    limit: usize,
}

impl Coordinator {
    /// One that keeps metadata of at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Coordinator { limit, ..Coordinator::default() }
    }

    /// Joins, with a name if the member has none. Its answer comes with the next generation.
    pub fn join(&mut self, member: &str, claims: Vec<i32>) -> String {
        let member = if self.members.contains_key(member) {
            member.to_owned()
        } else {
            self.names += 1;
            format!("m{}", self.names)
        };
        self.members.insert(member.clone(), Seat { claims, joined: true, answer: None });
        self.preparing = true;
        member
    }

    /// The member is gone: it left, or its session is over.
    pub fn remove(&mut self, member: &str) {
        if self.members.remove(member).is_some() {
            self.preparing = !self.members.is_empty();
        }
    }

    pub fn members(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Begins a generation, if one is due: when all have joined, or by expelling those who have not.
    pub fn complete(&mut self, random: &mut Random, partitions: usize, late: Late) -> bool {
        let all = self.members.values().all(|seat| seat.joined);
        if !self.preparing || (!all && late == Late::Wait) {
            return false;
        }
        self.members.retain(|_, seat| seat.joined);
        if self.members.is_empty() {
            self.preparing = false;
            return false;
        }
        self.generation += 1;
        self.preparing = false;
        let shares = self.assign(random, partitions);
        for (member, seat) in &mut self.members {
            (seat.joined, seat.answer) =
                (false, Some((self.generation, shares.get(member).cloned().unwrap_or_default())));
        }
        true
    }

    /// What somebody claims goes to nobody else before a later generation (KIP-429).
    fn assign(&self, random: &mut Random, partitions: usize) -> BTreeMap<String, Vec<i32>> {
        let names: Vec<&String> = self.members.keys().collect();
        let mut shares: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for partition in 0..partitions as i32 {
            let claimant = names.iter().find(|name| self.members[**name].claims.contains(&partition));
            let chosen = names[random.index(names.len())];
            let owner = match claimant {
                Some(claimant) if random.one_in(3) && *claimant != chosen => continue,
                Some(claimant) => claimant,
                None => chosen,
            };
            shares.entry(owner.clone()).or_default().push(partition);
        }
        shares
    }

    /// The generation and the share of a member that waits; an error code if it is nobody.
    pub fn answer(&mut self, member: &str) -> Result<Option<(i32, Vec<i32>)>, i16> {
        self.members.get_mut(member).map(|seat| seat.answer.take()).ok_or(UNKNOWN_MEMBER)
    }

    pub fn heartbeat(&self, member: &str, generation: i32) -> i16 {
        match self.fence(member, generation) {
            0 if self.preparing => REBALANCING,
            code => code,
        }
    }

    fn fence(&self, member: &str, generation: i32) -> i16 {
        match self.members.get(member) {
            None => UNKNOWN_MEMBER,
            Some(_) if generation != self.generation => ILLEGAL_GENERATION,
            Some(_) => 0,
        }
    }

    /// A commit arrives. With trouble, single partitions are refused, or stored and refused all the same.
    pub fn commit(
        &mut self,
        request: &OffsetCommitRequest,
        random: &mut Random,
        trouble: Trouble,
    ) -> OffsetCommitResponse {
        let generation = request.generation_id_or_member_epoch;
        // Nothing fences who belongs to no generation.
        let mut fence = if generation < 0 { 0 } else { self.fence(&request.member_id, generation) };
        if fence == 0 && self.preparing && trouble == Trouble::Some && random.one_in(6) {
            fence = REBALANCING;
        }
        let mut rows = Vec::new();
        for one in request.topics.iter().flat_map(|topic| &topic.partitions) {
            let text = one.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
            let (code, stores) = match fence {
                0 if text.len() > self.limit => (METADATA_TOO_LARGE, false),
                0 if trouble == Trouble::Some && random.one_in(20) => (LOADING, false),
                0 if trouble == Trouble::Some && random.one_in(20) => (REQUEST_TIMED_OUT, random.one_in(2)),
                code => (code, code == 0),
            };
            if stores {
                let stored = Stored { offset: one.committed_offset, text };
                self.set(one.partition_index, stored);
            }
            let row = OffsetCommitResponsePartition::default().with_partition_index(one.partition_index);
            rows.push(row.with_error_code(code));
        }
        let topic = request.topics.first().map(|topic| topic.name.clone()).unwrap_or_default();
        let topic = OffsetCommitResponseTopic::default().with_name(topic).with_partitions(rows);
        OffsetCommitResponse::default().with_topics(vec![topic])
    }

    pub fn set(&mut self, partition: i32, stored: Stored) {
        if let Some(before) = self.offsets.insert(partition, stored) {
            self.before.insert(partition, before);
        }
    }

    /// What is committed. Unless it must be stable, it may be what was there before.
    pub fn fetch(&self, partition: i32, random: &mut Random, read: Read) -> Option<Stored> {
        let stale = read == Read::Any && random.one_in(3);
        let before = self.before.get(&partition).filter(|_| stale);
        before.or_else(|| self.offsets.get(&partition)).cloned()
    }

    /// The topic is gone, and its commits with it; or those at least that do not say which topic they are of.
    pub fn forget(&mut self, which: Which) {
        let keeps = |stored: &Stored| which == Which::Unnamed && !stored.text.is_empty();
        self.offsets.retain(|_, stored| keeps(stored));
        self.before.retain(|_, stored| keeps(stored));
    }
}

/// What becomes of members that do not join in time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Late {
    Wait,
    Expel,
}

/// Which commits go with their topic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Unnamed,
}

/// Whether single partitions have trouble.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    Some,
}

/// Whether offsets must be stable (KIP-447).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Stable,
    Any,
}
