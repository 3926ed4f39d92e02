//! Tests of the fetcher against scripted brokers: one that knows the cluster, two that lead partitions.

mod codes;
mod fault;
mod flow;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, FetchRequest, FetchResponse, MetadataRequest, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use parking_lot::Mutex;

use super::*;
use crate::kafka::Address;
use crate::kafka::cluster::ClusterSettings;
use crate::kafka::cluster::tests::{broker, metadata, soon, topic};
use crate::kafka::connection::options::Options;
use crate::kafka::fake::{Asked, Fake, Reply, versions};
use crate::kafka::wire::{BatchWriter, Compression, Stamp, Unpacker};
use crate::stop::Stop;

const TOPIC: &str = "t";
/// Far more than any of these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// A batch as a log has it.
pub(super) fn batch(base: i64, count: i32, epoch: i32) -> Vec<u8> {
    let mut writer = BatchWriter::new(Compression::None, None);
    for index in 0..count {
        writer.push(1, None, Some(&index.to_be_bytes()), std::iter::empty()).unwrap();
    }
    let mut out = Vec::new();
    writer.finish(&Stamp::NONE, &mut out).unwrap();
    out[..8].copy_from_slice(&base.to_be_bytes());
    out[12..16].copy_from_slice(&epoch.to_be_bytes());
    out
}

/// What leaders and controller agree on.
struct Log {
    leader: i32,
    epoch: i32,
    /// The leader of epoch 0.
    first: i32,
    batches: Vec<(i64, Vec<u8>)>,
    start: i64,
    end: i64,
}

/// One partition of a fetch request.
#[derive(Clone, Debug)]
struct Ask {
    partition: i32,
    offset: i64,
    epoch: i32,
    last_epoch: i32,
    max_bytes: i32,
}

/// A fetch request, as a leader saw it.
#[derive(Clone, Debug)]
struct Seen {
    broker: i32,
    version: i16,
    at: Instant,
    asks: Vec<Ask>,
}

/// Says what a leader answers instead of what it should. Its number counts this leader's fetches from 1.
type Twist = Box<dyn FnMut(i32, usize, &Asked, &Scene) -> Option<Reply> + Send>;

struct Scene {
    addresses: Vec<Arc<Address>>,
    /// Brokers that have not heard of any leader but the first; the one that is asked first is 0.
    behind: Vec<i32>,
    /// Brokers that do not know of the topic.
    ignorant: Vec<i32>,
    /// Nobody says anything about the cluster.
    silent: bool,
    logs: BTreeMap<i32, Log>,
    id: u128,
    metadata_count: usize,
    seen: Vec<Seen>,
    /// Where epochs end; not listed: nowhere.
    ends: HashMap<i32, (i32, i64)>,
    validated: usize,
    /// Codes of the next answers to whoever asks for ends.
    refusals: Vec<i16>,
    most: i16,
    /// Batches in one answer.
    batches: usize,
}

struct World {
    scene: Arc<Mutex<Scene>>,
    _fakes: Vec<Fake>,
    fetcher: Fetcher,
    stop: Stop,
    /// Where each partition stands, by the records that came.
    at: HashMap<i32, i64>,
    unpacker: Unpacker,
}

#[derive(Default)]
struct Setup {
    /// Leaders of the partitions from 0.
    leaders: Vec<i32>,
    twist: Option<Twist>,
    request_timeout: Option<Duration>,
    metadata_age: Option<Duration>,
    /// See [`Scene`].
    behind: Vec<i32>,
    settings: Option<FetchSettings>,
}

fn settings() -> FetchSettings {
    FetchSettings { max_wait: Duration::from_millis(5), give_up_after: LONG, ..FetchSettings::default() }
}

impl World {
    fn new(setup: Setup) -> Self {
        let logs = (0..).zip(&setup.leaders).map(|(partition, leader)| {
            let batches = (0..20).map(|number| (number * 3 + 3, batch(number * 3, 3, 0))).collect();
            (partition, Log { leader: *leader, epoch: 0, first: *leader, batches, start: 0, end: 60 })
        });
        let scene = Arc::new(Mutex::new(Scene {
            addresses: Vec::new(),
            behind: setup.behind.clone(),
            ignorant: Vec::new(),
            silent: false,
            logs: logs.collect(),
            id: 5,
            metadata_count: 0,
            seen: Vec::new(),
            ends: HashMap::new(),
            validated: 0,
            refusals: Vec::new(),
            most: 17,
            batches: 1,
        }));
        let twist = Arc::new(Mutex::new(setup.twist));
        let mut fakes = Vec::new();
        for id in [1, 2] {
            let (scene, twist) = (scene.clone(), twist.clone());
            fakes.push(Fake::start(move |asked| serve(id, asked, &scene, &twist)));
        }
        // The third takes connections and says nothing.
        fakes.push(Fake::start(|_| Reply::Silence));
        scene.lock().addresses = fakes.iter().map(|fake| fake.address.clone()).collect();
        let told = scene.clone();
        let control = Fake::start(move |asked| match asked.key {
            ApiKey::ApiVersions => answer_versions(asked, 17),
            _ => told.lock().tell(0, asked),
        });
        let stop = Stop::new();
        let options = Options {
            request_timeout: setup.request_timeout.unwrap_or(LONG),
            connect_timeout: LONG,
            ..Options::default()
        };
        let age = setup.metadata_age.unwrap_or(LONG * 10);
        let cluster = ClusterSettings { retry: soon(), metadata_age: age };
        let cluster = Cluster::new(vec![control.address.clone()], Arc::new(options), &stop, cluster);
        fakes.push(control);
        let fetcher = Fetcher::new(cluster, setup.settings.unwrap_or_else(settings));
        let (at, unpacker) = (HashMap::new(), Unpacker::new(1 << 20));
        World { scene, _fakes: fakes, fetcher, stop, at, unpacker }
    }

    fn of(partition: i32) -> TopicPartition {
        TopicPartition::new(TOPIC, partition)
    }

    fn add(&mut self, partition: i32, offset: i64, leader_epoch: i32) {
        let of = World::of(partition);
        self.at.insert(partition, offset);
        self.fetcher.add(FetchFrom { of, topic_id: Uuid::from_u128(5), offset, leader_epoch });
    }

    /// Whatever comes next, with records checked: nothing is lost and nothing comes twice.
    fn next(&mut self, timeout: Duration) -> Result<Option<Fetched>> {
        let next = self.fetcher.next(timeout)?;
        if let Some(fetched) = &next {
            let at = self.at.get_mut(&fetched.of.partition).expect("a partition that was added");
            assert_eq!(fetched.from, *at);
            for batch in crate::kafka::wire::Batches::new(&fetched.records) {
                let batch = batch.unwrap();
                for record in self.unpacker.records(&batch).unwrap() {
                    let offset = record.unwrap().offset;
                    if offset >= *at {
                        assert_eq!(offset, *at);
                        *at += 1;
                    }
                }
            }
            assert_eq!(fetched.next, *at);
        }
        Ok(next)
    }

    /// Reads until these partitions are at these offsets.
    #[track_caller]
    fn read_to(&mut self, goals: &[(i32, i64)]) {
        let deadline = Instant::now() + LONG;
        while !goals.iter().all(|(partition, goal)| self.at[partition] >= *goal) {
            assert!(Instant::now() < deadline, "stuck at {:?}; {:?}", self.at, self.scene.lock().seen.last());
            let next = self.next(LONG).unwrap();
            let fault = next.and_then(|fetched| fetched.fault);
            assert_eq!(fault, None);
        }
    }

    /// The first fault that comes.
    #[track_caller]
    fn fault(&mut self) -> (i32, FetchFault) {
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "no fault comes");
            let next = self.next(LONG).unwrap();
            if let Some(Fetched { of, fault: Some(fault), .. }) = next {
                return (of.partition, fault);
            }
        }
    }
}

fn answer_versions(asked: &Asked, most: i16) -> Reply {
    let mut versions = versions();
    let fetch = versions.api_keys.iter_mut().find(|api| api.api_key == ApiKey::Fetch as i16).unwrap();
    fetch.max_version = most;
    asked.answer::<ApiVersionsRequest>(&versions)
}

fn serve(id: i32, asked: &Asked, scene: &Mutex<Scene>, twist: &Mutex<Option<Twist>>) -> Reply {
    match asked.key {
        ApiKey::ApiVersions => answer_versions(asked, scene.lock().most),
        ApiKey::OffsetForLeaderEpoch => scene.lock().validate(asked),
        ApiKey::Metadata => scene.lock().tell(id, asked),
        _ => {
            let mut scene = scene.lock();
            let asks = scene.see(id, asked);
            let count = scene.seen.iter().filter(|seen| seen.broker == id).count();
            if let Some(reply) = twist.lock().as_mut().and_then(|twist| twist(id, count, asked, &scene)) {
                return reply;
            }
            let (answer, is_empty) = scene.fetch(id, &asks, asked.version);
            drop(scene);
            if is_empty {
                // What a broker does while it has nothing.
                std::thread::sleep(Duration::from_millis(5));
            }
            asked.answer::<FetchRequest>(&answer)
        }
    }
}

impl Scene {
    /// Another broker leads from this epoch on.
    fn lead(&mut self, partition: i32, leader: i32, epoch: i32) {
        let log = self.logs.get_mut(&partition).expect("it has a log");
        (log.leader, log.epoch) = (leader, epoch);
    }

    /// What this broker knows of the cluster.
    fn tell(&mut self, id: i32, asked: &Asked) -> Reply {
        self.metadata_count += 1;
        if self.silent {
            return Reply::Silence;
        }
        let is_behind = self.behind.contains(&id);
        let leader = |log: &Log| if is_behind { (log.first, 0) } else { (log.leader, log.epoch) };
        let leaders: Vec<_> = self.logs.values().map(leader).collect();
        // The third says nothing: it is listed only where it is needed.
        let listed =
            (1..).zip(&self.addresses).filter(|(id, _)| *id < 3 || leaders.iter().any(|led| led.0 == *id));
        let brokers = listed.map(|(id, at)| broker(id, at)).collect();
        let told = match self.ignorant.contains(&id) {
            true => topic(TOPIC, 0, &[]).with_error_code(Code::UNKNOWN_TOPIC_OR_PARTITION.0),
            false => topic(TOPIC, self.id, &leaders),
        };
        asked.answer::<MetadataRequest>(&metadata(brokers, vec![told]))
    }

    fn see(&mut self, broker: i32, asked: &Asked) -> Vec<Ask> {
        let request = asked.request::<FetchRequest>();
        assert_eq!((request.session_id, request.session_epoch, request.replica_id.0), (0, -1, -1));
        let asks: Vec<_> = request
            .topics
            .iter()
            .inspect(|topic| match asked.version {
                13.. => assert_eq!(topic.topic_id, Uuid::from_u128(5)),
                _ => assert_eq!(&topic.topic.0[..], TOPIC),
            })
            .flat_map(|topic| &topic.partitions)
            .map(|one| Ask {
                partition: one.partition,
                offset: one.fetch_offset,
                epoch: one.current_leader_epoch,
                last_epoch: one.last_fetched_epoch,
                max_bytes: one.partition_max_bytes,
            })
            .collect();
        self.seen.push(Seen { broker, version: asked.version, at: Instant::now(), asks: asks.clone() });
        asks
    }

    /// What a broker answers that does as it should: `batches` batches of the first partition that has any.
    fn fetch(&self, broker: i32, asks: &[Ask], version: i16) -> (FetchResponse, bool) {
        let mut left = self.batches;
        let mut partitions = Vec::new();
        let mut is_empty = true;
        for ask in asks {
            let log = &self.logs[&ask.partition];
            let data = self.data(ask);
            let data = if log.leader != broker {
                data.with_error_code(6)
            } else if (0..log.epoch).contains(&ask.epoch) {
                data.with_error_code(74)
            } else if ask.offset > log.end || ask.offset < log.start {
                data.with_error_code(1)
            } else {
                let from = log.batches.iter().filter(|(end, _)| *end > ask.offset);
                let records: Vec<_> = from.take(left).collect();
                left -= records.len();
                is_empty &= records.is_empty();
                data.with_records(Some(records.iter().flat_map(|(_, batch)| batch.clone()).collect()))
            };
            is_empty &= data.error_code == 0;
            partitions.push(data);
        }
        (answer(partitions, version, self.id), is_empty)
    }

    fn data(&self, ask: &Ask) -> PartitionData {
        let log = &self.logs[&ask.partition];
        PartitionData::default()
            .with_partition_index(ask.partition)
            .with_high_watermark(log.end)
            .with_last_stable_offset(log.end)
            .with_log_start_offset(log.start)
    }

    fn validate(&mut self, asked: &Asked) -> Reply {
        self.validated += 1;
        let request = asked.request::<OffsetForLeaderEpochRequest>();
        assert_eq!(request.replica_id.0, -1);
        let code = self.refusals.pop().unwrap_or_default();
        let end =
            |one: &kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition| {
                let (epoch, end) =
                    self.ends.get(&one.partition).copied().unwrap_or((one.leader_epoch, i64::MAX));
                EpochEndOffset::default()
                    .with_error_code(code)
                    .with_partition(one.partition)
                    .with_leader_epoch(epoch)
                    .with_end_offset(end)
            };
        let topics = request.topics.iter().map(|topic| {
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(topic.partitions.iter().map(end).collect())
        });
        let answer = OffsetForLeaderEpochResponse::default().with_topics(topics.collect());
        asked.answer::<OffsetForLeaderEpochRequest>(&answer)
    }
}

fn answer(partitions: Vec<PartitionData>, version: i16, id: u128) -> FetchResponse {
    let topic = FetchableTopicResponse::default().with_partitions(partitions);
    let topic = match version {
        13.. => topic.with_topic_id(Uuid::from_u128(id)),
        _ => topic.with_topic(crate::kafka::cluster::topic_name(TOPIC)),
    };
    FetchResponse::default().with_responses(vec![topic])
}

/// The answer that a leader should give, changed.
fn changed(id: i32, asked: &Asked, scene: &Scene, change: impl Fn(&mut PartitionData)) -> Reply {
    let asks = &scene.seen.last().unwrap().asks;
    let (mut answer, _) = scene.fetch(id, asks, asked.version);
    for topic in &mut answer.responses {
        topic.partitions.iter_mut().for_each(&change);
    }
    asked.answer::<FetchRequest>(&answer)
}
