//! Assignors: which member of a group reads which partitions. Pure.
//!
//! Only the leader of a group assigns, for all members, ours and Java's alike. So an assignor needs no equal on
//! the other side; it must read what the others tell (what they own, in which generation) and keep the promises
//! of its name: `range` may hand over anything, because members of its kind give up everything before they
//! join; `sticky` must not hand over what another member may still read (KIP-429).

pub(crate) mod range;
pub(crate) mod sticky;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::protocol::{Malformed, Subscription};
use crate::kafka::cluster::TopicPartition;

/// How a group spreads partitions over its members. All members must have it in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Neighbouring partitions of each topic. All members stop for a rebalance.
    Range,
    /// Balanced over all topics, moves as little as it can, and only what moves stops.
    CooperativeSticky,
}

impl Assignor {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::CooperativeSticky => "cooperative-sticky",
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Given by the coordinator.
    pub member: String,
    /// Given by its owner, for static members.
    pub instance: Option<String>,
    /// What it wants and has.
    pub subscription: Subscription,
}

impl Candidate {
    /// # Errors
    /// If its subscription cannot be read.
    pub fn read(member: String, instance: Option<String>, metadata: &[u8]) -> Result<Self, Malformed> {
        Ok(Candidate { member, instance, subscription: Subscription::decode(metadata)? })
    }
}

/// How many partitions each topic has. Topics that are not there have none.
pub(crate) type Counts = BTreeMap<Arc<str>, i32>;
/// What each candidate gets, in the order of the candidates.
pub(crate) type Shares = Vec<Vec<TopicPartition>>;

/// What each candidate gets. Every partition of a topic that somebody wants goes to exactly one who wants it,
/// except those that [`sticky`] holds back for one round.
pub(crate) fn assign(assignor: Assignor, candidates: &[Candidate], counts: &Counts) -> Shares {
    match assignor {
        Assignor::Range => range::assign(candidates, counts),
        Assignor::CooperativeSticky => sticky::assign(candidates, counts),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn topic(name: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: name.into(), partition }
    }

    pub fn candidate(member: &str, topics: &[&str], owned: &[TopicPartition]) -> Candidate {
        let topics = topics.iter().map(|topic| (*topic).into()).collect();
        let subscription =
            Subscription { topics, owned: owned.to_vec(), generation: 1, ..Subscription::default() };
        Candidate { member: member.into(), instance: None, subscription }
    }

    pub fn counts(of: &[(&str, i32)]) -> Counts {
        of.iter().map(|(topic, count)| ((*topic).into(), *count)).collect()
    }

    /// Members with any wishes over three topics.
    pub fn groups() -> impl Strategy<Value = (Vec<Candidate>, Counts)> {
        let wishes =
            proptest::collection::vec(proptest::sample::subsequence(vec!["a", "b", "c"], 1..=3), 1..7);
        (wishes, 0i32..12, 0i32..12, 0i32..4).prop_map(|(wishes, a, b, c)| {
            let named = wishes.iter().enumerate();
            let candidates = named.map(|(n, topics)| candidate(&format!("m{n}"), topics, &[])).collect();
            (candidates, counts(&[("a", a), ("b", b), ("c", c)]))
        })
    }

    /// Each wanted partition goes to exactly one who wants it; those held back to none.
    pub fn check_complete(
        candidates: &[Candidate],
        counts: &Counts,
        shares: &Shares,
        held_back: &[TopicPartition],
    ) {
        let mut given: Vec<&TopicPartition> = shares.iter().flatten().collect();
        given.sort();
        let mut expected = Vec::new();
        for (name, count) in counts {
            let wanted = candidates.iter().any(|candidate| candidate.subscription.topics.contains(name));
            let all = (0..if wanted { *count } else { 0 })
                .map(|partition| TopicPartition { topic: name.clone(), partition });
            expected.extend(all.filter(|of| !held_back.contains(of)));
        }
        assert_eq!(given, expected.iter().collect::<Vec<_>>());
        for (candidate, share) in candidates.iter().zip(shares) {
            assert!(share.iter().all(|of| candidate.subscription.topics.contains(&of.topic)));
        }
    }
}
