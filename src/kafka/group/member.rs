//! [`Member`]: the group's thread. Keeps the membership alive and watches all deadlines; see `join` for how a
//! rebalance goes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, LeaveGroupRequest};
use kafka_protocol::protocol::StrBytes;

use super::Group;
use super::assign::Counts;
use super::fault::Fault;
use super::leftover::Leftovers;
use super::offsets::Omissions;
use super::state::{Phase, Summons};
use crate::error::{Error, Result};
use crate::kafka::cluster::{Cluster, Coordinates, SERVICE, TopicPartition};
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::error::{Call, Error as KafkaError, Result as KafkaResult};
use crate::kafka::wire::Api;

/// How long one search for the coordinator may take, before deadlines are looked at again.
const SEARCH: Duration = Duration::from_secs(2);
/// How soon the end is seen while a join waits.
const SLICE: Duration = Duration::from_millis(50);
/// Delays between tries double from the first to the last.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LAST_DELAY: Duration = Duration::from_secs(1);
/// Leaving is a courtesy: the others would also wait for the session to expire.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// Where the run is aborted, finding the coordinator and telling it may take no longer than this.
const LEAVE_ABORTED: Duration = Duration::from_secs(2);

/// The state of the group's thread.
pub(super) struct Member<'a> {
    pub group: &'a Group,
    over: &'a Receiver<()>,
    connection: Option<Connection>,
    /// The generation that was joined, settled or not.
    pub joined: i32,
    pub beat_at: Instant,
    pub look_at: Instant,
    pub must_join: bool,
    /// Changes with each rebalance of ours: metadata that changed force the coordinator to make a new generation.
    pub round: u32,
    /// After a doubt, a generation must be newer than this.
    pub above: i32,
    /// How many joins made no such generation.
    pub stale: u32,
    /// The partition counts that were assigned, while this member leads.
    pub led: Option<Counts>,
    /// Transactions of dead members, which are to be ended by whoever leads.
    pub leftovers: Option<Leftovers>,
    /// How often it was expelled since it last entered a generation.
    pub expulsions: u32,
    /// Since when no coordinator answers, and how often it was tried.
    silent: Option<(Instant, u32)>,
    /// What the coordinator leaves out of its answers about offsets.
    pub omissions: Omissions,
}

impl<'a> Member<'a> {
    pub fn new(group: &'a Group, over: &'a Receiver<()>) -> Self {
        let now = Instant::now();
        Member {
            group,
            over,
            connection: None,
            joined: -1,
            beat_at: now,
            look_at: now,
            must_join: true,
            round: 0,
            above: -1,
            stale: 0,
            led: None,
            leftovers: None,
            expulsions: 0,
            silent: None,
            omissions: Omissions::default(),
        }
    }

    pub fn run(&mut self) -> Result<()> {
        loop {
            let outcome = self.step();
            match outcome.and_then(|()| self.check_over()) {
                Ok(()) => {}
                Err(fault) => match self.recover(fault) {
                    Ok(()) => {}
                    Err(_) if self.group.cluster.stop().is_aborted() => {
                        self.leave_aborted();
                        return Err(Error::Stopped);
                    }
                    Err(Fault::Fatal(error)) => {
                        // Nothing counts any more that is published from here on.
                        self.group.state.lock().lose_all();
                        self.leave("the run has failed");
                        return Err(error);
                    }
                    Err(_) => {
                        self.leave("the work is done");
                        return Ok(());
                    }
                },
            }
        }
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.look_at_summons()?;
        self.expire();
        if self.group.asleep.load(Ordering::Acquire) {
            return self.sleep();
        }
        if self.must_join {
            return self.rebalance();
        }
        self.pass_time()
    }

    /// Does about a fault what can be done. Returns it if that is nothing.
    fn recover(&mut self, fault: Fault) -> Result<(), Fault> {
        match fault {
            Fault::Over | Fault::Fatal(_) => return Err(fault),
            Fault::Rejoin => self.must_join = true,
            Fault::Expelled(code) => {
                self.expelled(code);
                // Once is ordinary. A coordinator that says so to every join is not asked as fast as it answers.
                if self.expulsions > 1 {
                    self.wait(Instant::now() + delay(self.expulsions - 1))?;
                }
            }
            Fault::Again(error) => {
                self.connection = None;
                let now = Instant::now();
                let (since, tries) = self.silent.unwrap_or((now, 0));
                self.silent = Some((since, tries + 1));
                if now.duration_since(since) >= self.group.settings.give_up_after {
                    return Err(Fault::Fatal(error.into()));
                }
                let delay = delay(tries);
                let what =
                    format_args!("group {}: looking for the coordinator again", self.group.settings.group);
                self.group.cluster.again(&what, &error, tries + 1, delay);
                self.wait(now + delay)?;
                self.expire();
            }
        }
        Ok(())
    }

    fn expelled(&mut self, code: Code) {
        self.group.cluster.options().services.retry(SERVICE, code.name());
        log::warn!("group {}: {code}; joining again", self.group.settings.group);
        self.expulsions = self.expulsions.saturating_add(1);
        let mut state = self.group.state.lock();
        if code == Code::UNKNOWN_MEMBER_ID {
            state.set_member("");
            self.above = -1;
        }
        state.lose_all();
        state.phase = Phase::Out;
        self.joined = -1;
        self.must_join = true;
        self.group.changed.notify_all();
    }

    fn look_at_summons(&mut self) -> Result<(), Fault> {
        let settings = &self.group.settings;
        let mut state = self.group.state.lock();
        match state.summons.take() {
            None => Ok(()),
            Some(Summons::Expelled(code)) => {
                let (kind, key) = (Coordinates::Group, settings.group.clone());
                Err(Fault::of(settings, KafkaError::Coordinator { kind, key, code }))
            }
            Some(Summons::Doubt) => {
                self.above = self.joined.max(state.generation());
                self.must_join = true;
                Ok(())
            }
        }
    }

    /// Everything is lost once the session must have expired, whatever the coordinator says later.
    fn expire(&mut self) {
        let mut state = self.group.state.lock();
        if state.expire(Instant::now()) {
            log::warn!("group {}: no heartbeat within the session timeout", self.group.settings.group);
            self.above = self.joined;
            self.must_join = true;
            state.phase = Phase::Out;
            self.group.changed.notify_all();
        }
    }

    /// Heartbeats, watching, until something is due.
    fn pass_time(&mut self) -> Result<(), Fault> {
        let settings = &self.group.settings;
        let stalled_at =
            Instant::now() + settings.max_poll_interval.saturating_sub(self.group.since_polled());
        let (holds, lease) = {
            let state = self.group.state.lock();
            (state.holds_any(), state.lease())
        };
        let mut until = self.beat_at.min(self.look_at);
        if let Some(leftovers) = &self.leftovers {
            until = until.min(leftovers.due());
        }
        if holds {
            until = until.min(stalled_at);
        }
        self.wait(lease.map_or(until, |lease| until.min(lease)))?;
        self.expire();
        if holds && self.group.since_polled() >= settings.max_poll_interval {
            self.fall_asleep();
            return Ok(());
        }
        self.beat_if_due()?;
        self.end_leftovers();
        if Instant::now() >= self.look_at { self.look() } else { Ok(()) }
    }

    pub fn beat_if_due(&mut self) -> Result<(), Fault> {
        if self.must_join_anew() || Instant::now() < self.beat_at {
            return Ok(());
        }
        let every = self.group.settings.heartbeat_every();
        let sent = Instant::now();
        let request = {
            let state = self.group.state.lock();
            HeartbeatRequest::default()
                .with_group_id(self.group_id())
                .with_generation_id(self.joined)
                .with_member_id(text(state.member()))
                .with_group_instance_id(self.instance())
        };
        let third = self.group.settings.session_timeout / 3;
        let timeout = third.min(self.group.cluster.options().request_timeout);
        let answer = self.ask(&request, |connection, request| {
            let version = connection.version::<HeartbeatRequest>(i16::MAX)?;
            let answer = connection.call_within(request, version, timeout)?;
            check(connection, request, version, answer.error_code).map(|()| answer)
        });
        // A heartbeat that says "rebalance" also keeps the member alive.
        if matches!(answer, Ok(_) | Err(Fault::Rejoin)) {
            self.group.state.lock().renew(sent, self.group.settings.session_timeout);
            self.beat_at = sent + every;
        }
        answer.map(|_| ())
    }

    /// Whether there is no generation to keep alive.
    fn must_join_anew(&self) -> bool {
        self.joined < 0
    }

    /// A generation was joined, or an answer of a rebalance came: the coordinator counts from then.
    pub fn heard(&mut self, at: Instant) {
        self.group.state.lock().renew(at, self.group.settings.session_timeout);
        self.beat_at = at + self.group.settings.heartbeat_every();
    }

    /// Lets go of partitions: tells the readers, then waits, with heartbeats, until all are released; what is late
    /// is lost.
    pub fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        if partitions.is_empty() {
            return Ok(());
        }
        log::info!("group {}: {} partitions are revoked", self.group.settings.group, partitions.len());
        let deadline = Instant::now() + self.group.settings.release_deadline();
        partitions.iter().for_each(|of| self.group.state.lock().revoke(of));
        while self.group.state.lock().is_any_leaving() && Instant::now() < deadline {
            self.wait(deadline.min(self.beat_at))?;
            self.expire();
            match self.look_at_summons().and_then(|()| self.beat_if_due()) {
                Ok(()) => {}
                // That is known already, or comes right after.
                Err(Fault::Rejoin) => self.must_join = true,
                Err(fault) => self.recover(fault)?,
            }
        }
        let late = self.group.state.lock().lose_leaving();
        if late > 0 {
            log::warn!(
                "group {}: {late} partitions were not released within {:?}",
                self.group.settings.group,
                self.group.settings.release_deadline()
            );
        }
        Ok(())
    }

    /// Nobody polls: the pipeline is stalled, so its partitions go to others.
    fn fall_asleep(&mut self) {
        let settings = &self.group.settings;
        log::warn!(
            "group {}: nothing was read for {:?} (kafka.max_poll_interval): leaving the group until it goes on",
            settings.group,
            settings.max_poll_interval
        );
        self.above = self.joined;
        self.group.asleep.store(true, Ordering::Release);
        {
            let mut state = self.group.state.lock();
            state.lose_all();
            state.phase = Phase::Out;
            self.group.changed.notify_all();
        }
        self.leave("the pipeline is stalled");
        self.must_join = true;
    }

    fn sleep(&mut self) -> Result<(), Fault> {
        if self.group.since_polled() < self.group.settings.max_poll_interval {
            self.group.asleep.store(false, Ordering::Release);
            return Ok(());
        }
        self.wait(Instant::now() + Duration::from_secs(1))
    }

    /// Looks whether topics have more partitions, or are others.
    fn look(&mut self) -> Result<(), Fault> {
        let settings = &self.group.settings;
        self.look_at = Instant::now() + settings.metadata_every;
        let deadline = Instant::now() + (settings.session_timeout / 3).min(SEARCH);
        let mut topics = settings.topics.clone();
        topics.extend(self.led.iter().flat_map(|led| led.keys().cloned()));
        if let Err(error) = self.refresh(&topics, deadline) {
            match error {
                // It is looked again in `metadata_every` anyway.
                Fault::Again(error) => {
                    let what = format_args!("group {}: looking for new partitions", settings.group);
                    self.group.cluster.again(&what, &error, 1, settings.metadata_every);
                }
                fault => return Err(fault),
            }
        }
        if self.led.as_ref().is_some_and(|led| *led != counts(&self.group.cluster, led.keys())) {
            log::info!("group {}: the number of partitions has changed", settings.group);
            self.must_join = true;
        }
        let mut state = self.group.state.lock();
        for of in state.recreated(|name| Some(self.group.cluster.topic(name)?.id)) {
            log::warn!("group {}: topic {} was created anew", settings.group, of.topic);
            state.lose(&of);
            self.must_join = true;
        }
        Ok(())
    }

    /// Refreshes topics, and fails if one of ours cannot be used.
    pub fn refresh(&self, topics: &[std::sync::Arc<str>], deadline: Instant) -> Result<(), Fault> {
        let settings = &self.group.settings;
        self.group.cluster.refresh(topics, deadline).map_err(|error| Fault::of(settings, error))?;
        for name in &settings.topics {
            let Some(code) = self.group.cluster.topic(name).map(|topic| topic.error) else { continue };
            if matches!(code, Code::TOPIC_AUTHORIZATION_FAILED | Code::INVALID_TOPIC_EXCEPTION) {
                return Err(Fault::Fatal(KafkaError::Topic { topic: name.clone(), code }.into()));
            }
        }
        Ok(())
    }

    /// Blocks until `until`, or until something happens.
    pub fn wait(&self, until: Instant) -> Result<(), Fault> {
        select! {
            recv(self.over) -> _ => return Err(Fault::Over),
            recv(self.group.woken) -> _ => {}
            recv(after(until.saturating_duration_since(Instant::now()))) -> _ => {}
        }
        self.check_over()
    }

    fn check_over(&self) -> Result<(), Fault> {
        let over =
            matches!(self.over.try_recv(), Ok(()) | Err(crossbeam_channel::TryRecvError::Disconnected));
        if over || self.group.cluster.stop().is_aborted() { Err(Fault::Over) } else { Ok(()) }
    }

    /// Asks the coordinator, which is found first if need be.
    pub fn ask<R: Api, T>(
        &mut self,
        request: &R,
        question: impl FnOnce(&mut Connection, &R) -> KafkaResult<T>,
    ) -> Result<T, Fault> {
        let settings = &self.group.settings;
        let outcome = self.connect().and_then(|connection| question(connection, request));
        match outcome {
            Ok(answer) => {
                self.silent = None;
                Ok(answer)
            }
            Err(error) => Err(Fault::of(settings, error)),
        }
    }

    fn connect(&mut self) -> KafkaResult<&mut Connection> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            let settings = &self.group.settings;
            let deadline = Instant::now() + (settings.session_timeout / 3).min(SEARCH);
            let found = self.group.cluster.coordinator(Coordinates::Group, &settings.group, deadline)?;
            self.connection = Some(found);
        }
        Ok(self.connection.as_mut().expect("it was put there right now"))
    }

    /// Asks what the coordinator answers only when all members have come, and sees the end meanwhile.
    pub fn ask_slowly<R: Api>(
        &mut self,
        timeout: Duration,
        request: impl FnOnce(&Connection) -> KafkaResult<(R, i16)>,
    ) -> Result<(R::Answer, Call), Fault> {
        let settings = &self.group.settings;
        let failed = |error| Fault::of(settings, error);
        let deadline = Instant::now() + timeout;
        let sent = self.connect().and_then(|connection| {
            let (request, version) = request(connection)?;
            let call = Call { broker: connection.broker().clone(), api: R::NAME, version };
            Ok((connection.send(&request, version)?, call))
        });
        let (pending, call) = sent.map_err(failed)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let connection = self.connection.as_mut().expect("it was sent on one");
            let answered = connection.is_answered(SLICE.min(left));
            if left.is_zero() || answered.unwrap_or(true) {
                let answer = connection.receive(pending, left.max(SLICE)).map_err(failed)?;
                self.silent = None;
                return Ok((answer, call));
            }
            // The answer is still wanted: it tells what is to be read next.
            if self.group.state.lock().expire(Instant::now()) {
                log::warn!("group {}: the session has expired in a rebalance", settings.group);
                self.group.changed.notify_all();
            }
            if let Err(fault) = self.check_over() {
                // What comes on it would be taken for the answer to something else.
                self.connection = None;
                return Err(fault);
            }
        }
    }

    /// Leaves although all connections are hung up. What is still in flight of this run is of a member that is gone, as
    /// when its session is over; and the others, or the next run, do not have to wait for that.
    fn leave_aborted(&mut self) {
        if !self.may_leave() {
            return;
        }
        let (cluster, name) = (self.group.cluster.behind_abort(), &self.group.settings.group);
        let deadline = Instant::now() + LEAVE_ABORTED;
        self.connection = cluster.coordinator(Coordinates::Group, name, deadline).ok();
        if self.connection.is_some() {
            self.leave_within("the run was aborted", deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Whether there is a membership that ends with this run: static members stay.
    fn may_leave(&self) -> bool {
        self.group.settings.instance_id.is_none() && !self.group.state.lock().member().is_empty()
    }

    /// Tells the coordinator, so that it need not wait for the session to expire. Static members stay.
    pub fn leave(&mut self, reason: &'static str) {
        self.leave_within(reason, LEAVE_WITHIN);
    }

    fn leave_within(&mut self, reason: &'static str, limit: Duration) {
        self.joined = -1;
        if !self.may_leave() {
            return;
        }
        let settings = &self.group.settings;
        let member = self.group.state.lock().member().to_string();
        let group = self.group_id();
        let outcome = self.connect().and_then(|connection| {
            let version = connection.version::<LeaveGroupRequest>(i16::MAX)?;
            let request = LeaveGroupRequest::default().with_group_id(group);
            let request = match version {
                3.. => {
                    let reason = (version >= 5).then(|| StrBytes::from_static_str(reason));
                    let member = MemberIdentity::default().with_member_id(text(&member)).with_reason(reason);
                    request.with_members(vec![member])
                }
                _ => request.with_member_id(text(&member)),
            };
            connection.call_within(&request, version, limit)
        });
        match outcome {
            Ok(_) => log::info!("group {}: left", settings.group),
            Err(error) => log::info!("group {}: left without a word: {error}", settings.group),
        }
        self.group.state.lock().set_member("");
        self.above = -1;
    }

    pub fn group_id(&self) -> GroupId {
        GroupId(text(&self.group.settings.group))
    }

    pub fn instance(&self) -> Option<StrBytes> {
        self.group.settings.instance_id.as_deref().map(text)
    }
}

/// How long to wait after so many tries.
pub(super) fn delay(tries: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << tries.min(10)).min(LAST_DELAY)
}

/// An error code inside an answer as an error of the call.
pub(super) fn check<R: Api>(connection: &Connection, _: &R, version: i16, code: i16) -> KafkaResult<()> {
    let call = Call { broker: connection.broker().clone(), api: R::NAME, version };
    Code(code).check().map_err(|code| KafkaError::Refused { call, code })
}

/// How many partitions these topics have, as last heard.
pub(super) fn counts<'t>(
    cluster: &Cluster,
    topics: impl Iterator<Item = &'t std::sync::Arc<str>>,
) -> BTreeMap<std::sync::Arc<str>, i32> {
    let count = |topic: &std::sync::Arc<str>| match cluster.topic(topic) {
        Some(found) if found.error != Code::UNKNOWN_TOPIC_OR_PARTITION => found.partitions.len() as i32,
        _ => 0,
    };
    topics.map(|topic| (topic.clone(), count(topic))).collect()
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}
