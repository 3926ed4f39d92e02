//! A rebalance as the group's thread goes through it: let go, join, lead if chosen, sync, read offsets, settle.
//!
//! Eager (`range`): everything is let go of before the JoinGroup. Cooperative: the join says what is owned; what is
//! then taken away is let go of in the new generation, followed by another join (KIP-429). Each join carries
//! metadata that differ from the last one's, so that the coordinator always makes a new generation of it.
//! A dynamic member whose run drains lets go and leaves instead of joining again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{JoinGroupRequest, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;

use super::assign::Assignor;
use super::fault::{Fault, permanent};
use super::member::{Member, text};
use super::protocol::{Subscription, decode_assignment};
use super::state::Settled;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::code::Code;
use crate::kafka::error::Error as KafkaError;

/// What kind of group it is: one of consumers.
const KIND: StrBytes = StrBytes::from_static_str("consumer");
/// From this version on a join may say why.
const REASONS: i16 = 8;
/// From this version on a sync repeats the protocol.
const NAMES: i16 = 5;
/// How much later than its own timeout a coordinator may answer a join.
const GRACE: Duration = Duration::from_secs(5);
/// Before a join is tried again that made no new generation.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many such joins the member becomes another.
const STALE: u32 = 5;

/// How long a member that has left sleeps at a time.
const REST: Duration = Duration::from_secs(1);

/// A generation that was joined.
struct Joined {
    generation: i32,
    protocol: Option<StrBytes>,
    /// All members, if this one leads and must assign.
    led: Option<Vec<JoinGroupResponseMember>>,
    leads: bool,
}

impl Member<'_> {
    pub fn rebalance(&mut self) -> Result<(), Fault> {
        if !self.group.cluster.stop().is_running() && self.group.settings.instance_id.is_none() {
            return self.depart();
        }
        self.know_topics()?;
        if self.group.settings.assignor == Assignor::Range {
            let owned = self.group.state.lock().owned();
            self.give_up(&owned)?;
        }
        self.must_join = false;
        let settled = self.join_and_settle().inspect_err(|_| self.must_join = true)?;
        self.must_join |= settled.again;
        self.give_up(&settled.taken).inspect_err(|_| self.must_join = true)
    }

    /// The run drains, so nobody would read what a join brings. Lets go of everything as soon as what is in flight
    /// is committed, and leaves: the others need not wait for the end of this run. Blocks until that end.
    fn depart(&mut self) -> Result<(), Fault> {
        let owned = self.group.state.lock().departing(self.joined);
        self.give_up(&owned)?;
        self.leave("the run ends");
        loop {
            self.wait(Instant::now() + REST)?;
        }
    }

    fn know_topics(&mut self) -> Result<(), Fault> {
        let topics = &self.group.settings.topics;
        if topics.iter().all(|topic| self.group.cluster.topic(topic).is_some()) {
            return Ok(());
        }
        self.look_at = Instant::now() + self.group.settings.metadata_every;
        self.refresh(topics, Instant::now() + self.group.settings.session_timeout / 2)?;
        for topic in topics {
            let missing =
                |topic: &crate::kafka::cluster::Topic| topic.error == Code::UNKNOWN_TOPIC_OR_PARTITION;
            if self.group.cluster.topic(topic).is_some_and(|topic| missing(&topic)) {
                log::warn!("group {}: there is no topic {topic} yet", self.group.settings.group);
            }
        }
        Ok(())
    }

    fn join_and_settle(&mut self) -> Result<Settled, Fault> {
        self.round = self.round.wrapping_add(1);
        self.group.state.lock().joining();
        let sent = Instant::now();
        let joined = self.join().inspect_err(|_| {
            // Nobody knows since when the coordinator counts.
            self.group.state.lock().renew(sent, self.group.settings.session_timeout);
        })?;
        self.joined = joined.generation;
        self.heard(Instant::now());
        if joined.generation <= self.above {
            self.stale += 1;
            if self.stale >= STALE {
                self.become_another();
            }
            self.wait(Instant::now() + PAUSE)?;
            return Err(Fault::Rejoin);
        }
        self.stale = 0;
        let shares = match &joined.led {
            Some(members) => self.lead(members)?,
            None => Vec::new(),
        };
        if !joined.leads {
            (self.led, self.leftovers) = (None, None);
        }
        let assigned = self.sync(&joined, shares)?;
        self.heard(Instant::now());
        self.end_leftovers();
        let mut wanted = assigned.clone();
        wanted.extend(self.group.state.lock().owned());
        wanted.sort();
        wanted.dedup();
        let fetched = self.fetch_offsets(&wanted)?;
        self.group.polled();
        let settled = self.group.state.lock().settle(joined.generation, &assigned, fetched);
        self.group.changed.notify_all();
        self.expulsions = 0;
        log::info!(
            "group {}: {} partitions in generation {}{}",
            self.group.settings.group,
            assigned.len(),
            joined.generation,
            if joined.leads { ", as leader" } else { "" }
        );
        Ok(settled)
    }

    /// No join makes a new generation: in a group that has members of the newer protocol (KIP-848) an epoch rises only
    /// when the assignment changes. Another member id fences what is on its way just as well.
    fn become_another(&mut self) {
        self.stale = 0;
        self.leave("no new generation comes");
        // A static member stays, and gets another id as if it were started anew.
        self.group.state.lock().set_member("");
        self.above = -1;
    }

    fn join(&mut self) -> Result<Joined, Fault> {
        let settings = &self.group.settings;
        let mut asked_again = false;
        loop {
            let request = self.join_request();
            let timeout = settings.max_poll_interval + GRACE;
            let (answer, call) = self.ask_slowly(timeout, |connection| {
                let version = connection.version::<JoinGroupRequest>(i16::MAX)?;
                let reason = (version >= REASONS).then(|| StrBytes::from_static_str("rebalance"));
                Ok((request.with_reason(reason), version))
            })?;
            match Code(answer.error_code) {
                Code::NONE => {}
                // KIP-394: the coordinator keeps the id for whoever joins with it.
                Code::MEMBER_ID_REQUIRED if !asked_again && !answer.member_id.is_empty() => {
                    self.group.state.lock().set_member(&answer.member_id);
                    asked_again = true;
                    continue;
                }
                code => return Err(Fault::of(settings, KafkaError::Refused { call, code })),
            }
            if answer.generation_id < 0 {
                return Err(Fault::Again(KafkaError::Unavailable(
                    "the coordinator joined without a generation".into(),
                )));
            }
            if answer.protocol_name.as_deref().is_some_and(|name| name != settings.assignor.name()) {
                return Err(Fault::Fatal(permanent(
                    settings,
                    "the coordinator chose another assignor".into(),
                )));
            }
            self.group.state.lock().set_member(&answer.member_id);
            let leads = answer.leader == answer.member_id;
            return Ok(Joined {
                generation: answer.generation_id,
                protocol: answer.protocol_name,
                led: (leads && !answer.skip_assignment).then_some(answer.members),
                leads,
            });
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let settings = &self.group.settings;
        let state = self.group.state.lock();
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(settings.assignor.name()))
            .with_metadata(self.subscription(state.owned(), state.generation()));
        JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(millis(settings.session_timeout))
            .with_rebalance_timeout_ms(millis(settings.max_poll_interval))
            .with_member_id(text(state.member()))
            .with_group_instance_id(self.instance())
            .with_protocol_type(KIND)
            .with_protocols(vec![protocol])
    }

    /// The generation stands in the user data too, where assignors of before version 2 look for it; the count
    /// of rounds behind it, so that no two are the same; then the transactional id, for the leader.
    fn subscription(&self, owned: Vec<TopicPartition>, generation: i32) -> Bytes {
        let mut user_data = generation.to_be_bytes().to_vec();
        user_data.extend_from_slice(&self.round.to_be_bytes());
        user_data.extend_from_slice(
            self.group.settings.transactional_id.as_deref().unwrap_or_default().as_bytes(),
        );
        let topics = self.group.settings.topics.clone();
        Subscription { topics, user_data: Some(user_data), owned, generation, rack: None }.encode()
    }

    fn sync(
        &mut self,
        joined: &Joined,
        shares: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>, Fault> {
        let settings = &self.group.settings;
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(joined.generation)
            .with_member_id(text(self.group.state.lock().member()))
            .with_group_instance_id(self.instance())
            .with_assignments(shares);
        let timeout = self.group.cluster.options().request_timeout.max(settings.session_timeout);
        let (answer, call) = self.ask_slowly(timeout, |connection| {
            let version = connection.version::<SyncGroupRequest>(i16::MAX)?;
            let request = match version {
                NAMES.. => request.with_protocol_type(Some(KIND)).with_protocol_name(joined.protocol.clone()),
                _ => request,
            };
            Ok((request, version))
        })?;
        Code(answer.error_code)
            .check()
            .map_err(|code| Fault::of(settings, KafkaError::Refused { call: call.clone(), code }))?;
        let mut assigned = decode_assignment(&answer.assignment).map_err(|_| {
            Fault::Fatal(permanent(
                settings,
                format!("the leader's assignment is malformed, says {}", call.broker),
            ))
        })?;
        assigned.sort();
        assigned.dedup();
        // A leader that gives us what we did not ask for.
        assigned.retain(|of| settings.topics.contains(&of.topic));
        Ok(assigned)
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
