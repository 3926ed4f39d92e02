//! The leader's part: which member gets what, by the numbers of partitions that the cluster tells.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

use super::assign::{self, Candidate};
use super::fault::Fault;
use super::leftover::{Leftovers, told_id};
use super::member::{Member, counts, text};
use super::protocol::{Subscription, encode_assignment};

impl Member<'_> {
    /// Assigns for all members. Remembers the counts, to join again when they change.
    pub fn lead(
        &mut self,
        members: &[JoinGroupResponseMember],
    ) -> Result<Vec<SyncGroupRequestAssignment>, Fault> {
        let settings = &self.group.settings;
        let candidates: Vec<Candidate> = members.iter().map(|member| self.candidate(member)).collect();
        let topics: BTreeSet<Arc<str>> =
            candidates.iter().flat_map(|candidate| candidate.subscription.topics.iter().cloned()).collect();
        let topics: Vec<Arc<str>> = topics.into_iter().collect();
        // The others wait, and this member sends no heartbeats meanwhile.
        let refreshed = self.refresh(&topics, Instant::now() + settings.session_timeout / 2);
        let known = topics.iter().all(|topic| self.group.cluster.topic(topic).is_some());
        match refreshed {
            Err(Fault::Again(error)) if known => {
                log::warn!("group {}: assigning by what is known: {error}", settings.group);
            }
            outcome => outcome?,
        }
        let counts = counts(&self.group.cluster, topics.iter());
        let shares = assign::assign(settings.assignor, &candidates, &counts);
        self.led = Some(counts);
        self.leftovers = self.group.settings.transactional_id.is_some().then(|| {
            let live = candidates.iter().filter_map(|candidate| told_id(&candidate.subscription));
            Leftovers::besides(live.collect())
        });
        self.look_at = Instant::now() + settings.metadata_every;
        let share = |(candidate, share): (Candidate, Vec<_>)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&candidate.member))
                .with_assignment(encode_assignment(&share))
        };
        Ok(candidates.into_iter().zip(shares).map(share).collect())
    }

    fn candidate(&self, member: &JoinGroupResponseMember) -> Candidate {
        let instance = member.group_instance_id.as_ref().map(ToString::to_string);
        let id = member.member_id.to_string();
        Candidate::read(id.clone(), instance.clone(), &member.metadata).unwrap_or_else(|_| {
            log::warn!(
                "group {}: member {id} says nothing readable: it gets nothing",
                self.group.settings.group
            );
            Candidate { member: id, instance, subscription: Subscription::default() }
        })
    }
}
