//! A coordinator with one real member, us, and others that only exist in its answers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;

use super::super::protocol::{Subscription, encode_assignment};
use super::super::*;
use crate::kafka::cluster::tests::{broker, metadata, soon, topic};
use crate::kafka::fake::{Asked, Fake, Reply, answer_versions};
use crate::kafka::{Address, Options};
use crate::stop::Stop;

/// What happens to the next request of a kind, instead of what usually does.
pub enum Act {
    /// This error code; of each partition, where it has partitions.
    Code(i16),
    /// The connection is cut before anything is done.
    Cut,
    /// It is done, but nothing is said.
    DoneSilently,
    /// Nothing is done and nothing is said.
    Silence,
}

#[derive(Default)]
pub struct World {
    pub address: Option<Arc<Address>>,
    pub partitions: usize,
    pub topic_id: u128,
    pub generation: i32,
    pub member: String,
    pub names: u32,
    /// So many joins make no new generation.
    pub stale: u32,
    pub acts: HashMap<ApiKey, VecDeque<Act>>,
    /// What a heartbeat says until the next join.
    pub rebalancing: bool,
    /// What we get whatever the leader says; also makes another member the leader.
    pub given: Option<Vec<i32>>,
    /// What other members say, while we lead.
    pub others: Vec<(String, Bytes)>,
    pub offsets: BTreeMap<i32, (i64, String)>,
    /// In so many answers about offsets these partitions are left out.
    pub left_out: (usize, Vec<i32>),
    /// So many bytes of metadata are kept; `None`: all.
    pub keeps: Option<usize>,
    /// What was asked, in order.
    pub log: Vec<String>,
    /// The shares that we gave as the leader.
    pub shares: Vec<(String, Bytes)>,
    pub joins: Vec<Subscription>,
}

impl World {
    pub fn act(&mut self, key: ApiKey, act: Act) {
        self.acts.entry(key).or_default().push_back(act);
    }

    pub fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(what)).count()
    }

    fn serve(&mut self, asked: &Asked) -> Reply {
        if asked.key == ApiKey::ApiVersions {
            return answer_versions(asked);
        }
        let (mut code, mut silent) = (0, false);
        match self.acts.get_mut(&asked.key).and_then(VecDeque::pop_front) {
            None => {}
            Some(Act::Cut) => {
                self.log.push(format!("{:?} cut", asked.key));
                return Reply::Cut;
            }
            Some(Act::Silence) => {
                self.log.push(format!("{:?} silence", asked.key));
                return Reply::Silence;
            }
            Some(Act::Code(given)) => code = given,
            Some(Act::DoneSilently) => silent = true,
        }
        let reply = match asked.key {
            ApiKey::Metadata => self.metadata(asked),
            ApiKey::FindCoordinator => self.find(asked, code),
            ApiKey::JoinGroup => self.join(asked, code),
            ApiKey::SyncGroup => self.sync(asked, code),
            ApiKey::Heartbeat => self.heartbeat(asked, code),
            ApiKey::OffsetFetch => self.fetch(asked, code),
            ApiKey::OffsetCommit => self.commit(asked, code),
            ApiKey::LeaveGroup => self.leave(asked),
            key => panic!("unexpected {key:?}"),
        };
        if silent { Reply::Silence } else { reply }
    }

    fn metadata(&mut self, asked: &Asked) -> Reply {
        let at = self.address.clone().unwrap();
        let topics = vec![topic("in", self.topic_id, &vec![(0, 0); self.partitions])];
        asked.answer::<MetadataRequest>(&metadata(vec![broker(0, &at)], topics))
    }

    fn find(&mut self, asked: &Asked, code: i16) -> Reply {
        self.log.push("FindCoordinator".into());
        let at = self.address.clone().unwrap();
        let found = Coordinator::default()
            .with_key(StrBytes::from_static_str("g"))
            .with_host(at.host.clone().into())
            .with_port(at.port.into())
            .with_error_code(code);
        asked.answer::<FindCoordinatorRequest>(
            &FindCoordinatorResponse::default().with_coordinators(vec![found]),
        )
    }

    fn join(&mut self, asked: &Asked, mut code: i16) -> Reply {
        let request = asked.request::<JoinGroupRequest>();
        let subscription = Subscription::decode(&request.protocols[0].metadata).unwrap();
        let mut owned: Vec<_> = subscription.owned.iter().map(|of| of.partition).collect();
        owned.sort();
        self.log.push(format!("JoinGroup {:?} owned {owned:?}", &request.member_id[..]));
        let fresh = request.member_id.is_empty();
        let mut member = request.member_id.to_string();
        if code == 0 && fresh {
            self.names += 1;
            member = format!("m{}", self.names);
            if request.group_instance_id.is_none() {
                code = 79;
            }
        } else if code == 0 && member != self.member && !member.ends_with(&self.names.to_string()) {
            code = 25;
        }
        if code == 0 {
            self.member = member.clone();
            match self.stale.checked_sub(1) {
                Some(less) => self.stale = less,
                None => self.generation += 1,
            }
            self.rebalancing = false;
            self.joins.push(subscription);
        }
        let leads = self.given.is_none();
        let all = std::iter::once((member.clone(), request.protocols[0].metadata.clone()));
        let row = |(id, metadata): (String, Bytes)| {
            JoinGroupResponseMember::default()
                .with_member_id(StrBytes::from_string(id))
                .with_metadata(metadata)
        };
        let members = if leads { all.chain(self.others.clone()).map(row).collect() } else { vec![] };
        let answer = JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(self.generation)
            .with_protocol_name(Some(request.protocols[0].name.clone()))
            .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
            .with_leader(StrBytes::from_string(if leads { member.clone() } else { "other".into() }))
            .with_member_id(StrBytes::from_string(member))
            .with_members(members);
        asked.answer::<JoinGroupRequest>(&answer)
    }

    fn sync(&mut self, asked: &Asked, code: i16) -> Reply {
        let request = asked.request::<SyncGroupRequest>();
        self.log.push(format!("SyncGroup {}", request.generation_id));
        self.shares = request
            .assignments
            .iter()
            .map(|share| (share.member_id.to_string(), share.assignment.clone()))
            .collect();
        let ours = self.shares.iter().find(|share| share.0 == self.member).map(|share| share.1.clone());
        let given = self.given.as_ref().map(|given| {
            let all: Vec<_> = given.iter().map(|partition| TopicPartition::new("in", *partition)).collect();
            encode_assignment(&all)
        });
        let answer = SyncGroupResponse::default()
            .with_error_code(self.verdict(&request.member_id, request.generation_id, code))
            .with_assignment(given.or(ours).unwrap_or_default());
        asked.answer::<SyncGroupRequest>(&answer)
    }

    fn verdict(&self, member: &str, generation: i32, code: i16) -> i16 {
        match code {
            0 if member != self.member => 25,
            0 if generation != self.generation => 22,
            code => code,
        }
    }

    fn heartbeat(&mut self, asked: &Asked, code: i16) -> Reply {
        let request = asked.request::<HeartbeatRequest>();
        self.log.push(format!("Heartbeat {}", request.generation_id));
        let mut code = self.verdict(&request.member_id, request.generation_id, code);
        if code == 0 && self.rebalancing {
            code = 27;
        }
        asked.answer::<HeartbeatRequest>(&HeartbeatResponse::default().with_error_code(code))
    }

    fn fetch(&mut self, asked: &Asked, code: i16) -> Reply {
        let request = asked.request::<OffsetFetchRequest>();
        assert!(request.require_stable);
        self.log.push("OffsetFetch".into());
        let mut asked_for = request.groups[0].topics.clone().unwrap();
        if let Some(less) = self.left_out.0.checked_sub(1) {
            self.left_out.0 = less;
            for topic in &mut asked_for {
                topic.partition_indexes.retain(|index| !self.left_out.1.contains(index));
            }
        }
        let row = |index: &i32| {
            let (offset, text) = self.offsets.get(index).cloned().unwrap_or((-1, String::new()));
            OffsetFetchResponsePartitions::default()
                .with_partition_index(*index)
                .with_error_code(code)
                .with_committed_offset(if code == 0 { offset } else { -1 })
                .with_committed_leader_epoch(-1)
                .with_metadata(Some(StrBytes::from_string(text)))
        };
        let topics = asked_for.iter().map(|topic| {
            OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partition_indexes.iter().map(row).collect())
        });
        let group = OffsetFetchResponseGroup::default()
            .with_group_id(request.groups[0].group_id.clone())
            .with_topics(topics.collect());
        asked.answer::<OffsetFetchRequest>(&OffsetFetchResponse::default().with_groups(vec![group]))
    }

    fn commit(&mut self, asked: &Asked, code: i16) -> Reply {
        let request = asked.request::<OffsetCommitRequest>();
        assert!(request.generation_id_or_member_epoch >= 0, "a commit without a generation");
        let code = self.verdict(&request.member_id, request.generation_id_or_member_epoch, code);
        let mut topics = Vec::new();
        for topic in &request.topics {
            let mut rows = Vec::new();
            for one in &topic.partitions {
                let mut text = one.committed_metadata.clone().unwrap().to_string();
                assert!(!text.is_empty(), "a commit without metadata");
                let generation = request.generation_id_or_member_epoch;
                self.log.push(format!(
                    "OffsetCommit {generation} {}@{} {code}",
                    one.partition_index, one.committed_offset
                ));
                text.truncate(self.keeps.unwrap_or(usize::MAX));
                if code == 0 {
                    self.offsets.insert(one.partition_index, (one.committed_offset, text));
                }
                let row = OffsetCommitResponsePartition::default().with_partition_index(one.partition_index);
                rows.push(row.with_error_code(code));
            }
            topics.push(
                OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(rows),
            );
        }
        asked.answer::<OffsetCommitRequest>(&OffsetCommitResponse::default().with_topics(topics))
    }

    fn leave(&mut self, asked: &Asked) -> Reply {
        let request = asked.request::<LeaveGroupRequest>();
        self.log.push(format!("LeaveGroup {}", &request.members[0].member_id[..]));
        self.member = String::new();
        asked.answer::<LeaveGroupRequest>(&LeaveGroupResponse::default())
    }
}

/// A group at work against such a coordinator.
pub struct Setup {
    pub world: Arc<Mutex<World>>,
    pub group: Arc<Group>,
    pub stop: Stop,
    over: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<crate::Result<()>>>,
    _fake: Fake,
}

pub const LONG: Duration = Duration::from_secs(20);

pub fn settings(assignor: Assignor) -> GroupSettings {
    GroupSettings {
        session_timeout: LONG,
        max_poll_interval: LONG * 3,
        release_within: LONG,
        metadata_every: LONG * 3,
        give_up_after: LONG,
        assignor,
        ..GroupSettings::new("g", vec!["in".into()])
    }
}

impl Setup {
    /// With a topic of three partitions.
    pub fn new(settings: GroupSettings, prepare: impl FnOnce(&mut World)) -> Self {
        Setup::with(settings, Duration::from_secs(20), prepare)
    }

    pub fn with(
        settings: GroupSettings,
        request_timeout: Duration,
        prepare: impl FnOnce(&mut World),
    ) -> Self {
        let mut world = World { partitions: 3, topic_id: 7, ..World::default() };
        prepare(&mut world);
        let world = Arc::new(Mutex::new(world));
        let served = world.clone();
        let fake = Fake::start(move |asked| served.lock().serve(asked));
        world.lock().address = Some(fake.address.clone());
        let stop = Stop::new();
        let options = Options { request_timeout, connect_timeout: LONG, ..Options::default() };
        let cluster = Cluster::new(vec![fake.address.clone()], Arc::new(options), &stop, soon());
        let group = Group::new(cluster, settings);
        Setup { world, group, stop, over: None, thread: None, _fake: fake }.start()
    }

    fn start(mut self) -> Self {
        let (over, until) = bounded(0);
        let group = self.group.clone();
        self.over = Some(over);
        self.thread = Some(std::thread::Builder::new().spawn(move || group.attend(&until)).unwrap());
        self
    }

    /// Ends the work and returns how it ended.
    pub fn end(&mut self) -> crate::Result<()> {
        self.over = None;
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits for the group's thread to end by itself.
    pub fn failed(&mut self) -> crate::Error {
        until("the group's end", || self.thread.as_ref().unwrap().is_finished().then_some(()));
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }

    pub fn change(&self) -> Change {
        until("a change", || self.group.next_change())
    }

    /// The next changes, all of them assignments.
    pub fn assigned<const N: usize>(&self) -> [Tenancy; N] {
        std::array::from_fn(|_| match self.change() {
            Change::Assigned(tenancy) => tenancy,
            other => panic!("{other:?}"),
        })
    }

    pub fn commit(&self, tenancy: &Tenancy, offset: i64) -> Vec<(TopicPartition, u64)> {
        let mut refused = Vec::new();
        self.group.commit(&[commit_of(tenancy, offset)], &mut refused).unwrap();
        refused
    }

    pub fn wait_for(&self, what: &str, times: usize) {
        until(what, || (self.world.lock().count(what) >= times).then_some(()));
    }

    pub fn log(&self) -> Vec<String> {
        self.world.lock().log.clone()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.over = None;
        self.stop.abort();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A commit with a plan of so many ends.
pub fn planned(setup: &Setup, tenancy: &Tenancy, offset: i64, ends: u64) -> Commit {
    let end = |n| crate::source::Planned { end: offset as u64 + n, first_time: 1, opened_at: 2 };
    let metadata = setup.group.metadata(tenancy.topic_id, (1..=ends).map(end).collect());
    Commit { metadata, ..commit_of(tenancy, offset) }
}

pub fn commit_of(tenancy: &Tenancy, offset: i64) -> Commit {
    let metadata = Metadata { topic_id: tenancy.topic_id, location: 0, plan: vec![] };
    Commit { of: tenancy.of.clone(), epoch: tenancy.epoch, offset, leader_epoch: -1, metadata }
}

#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
