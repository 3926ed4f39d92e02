//! From a real Kafka to a real S3 server while everything breaks: nothing is lost, nothing is there twice.
//!
//! A round writes numbered records to a topic (`feeder.rs`) while one to four members of a group store them in a
//! bucket (`member.rs`). What is done to them is drawn from a seed (`schedule.rs`): they are killed, frozen for longer
//! than their session, stopped and started again, each time with other sizes of batches; connections to the broker and
//! to the store are cut, held, delayed and refused (`proxy.rs`); the broker is frozen and killed; records that are
//! stored leave the topic before they are committed. Then everything heals, the group has to come to the end by
//! itself, and every object is read with a client that is not ours and compared (`bucket.rs`): each record once, in
//! order.
//!
//! `make chaos MINUTES=10 SEED=7` runs rounds of a minute with the seeds 7, 8, …; in the suite there is one short
//! round. The same seed does the same at the same times with the same settings; what the processes are at just then
//! is theirs. A round that fails leaves its evidence: what was done when, what each member said, which objects there
//! were, and those that something is wrong with.

mod bucket;
mod feeder;
mod member;
mod proxy;
mod schedule;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{DeleteRecordsRequest, GroupId, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use self::bucket::Inspector;
use self::feeder::Feeder;
use self::member::{Ended, Slot};
use self::proxy::Proxy;
use self::schedule::{Act, MEMBERS, Net, Random, Schedule};
use crate::kafka::{Kafka, Listener, is_possible, options};
use crate::runs::Running;
use crate::s3::{Server, Store};

const PREFIX: &str = "events/";
const PARTITIONS: i32 = 6;
/// How long a round is broken in the suite, and with `make chaos`.
const SHORT: Duration = Duration::from_secs(12);
const LONG: Duration = Duration::from_secs(60);
/// How long a request to the store and its answer may take on their way: most stores are not next door.
const LATENCY: Duration = Duration::from_millis(60);
/// How long the group may take to the end once nothing breaks any more.
const HEALED: Duration = Duration::from_secs(150);
/// How often the driver looks after its members.
const LOOK: Duration = Duration::from_millis(10);

/// A broker whose clients come through a proxy: it says that it is where the proxy listens.
struct Broken {
    /// Reached by tests without the proxy.
    kafka: Arc<Kafka>,
    server: &'static Server,
    proxies: [Proxy; 2],
}

impl Broken {
    fn start(server: &'static Server) -> Self {
        let proxies = [Proxy::new(Duration::ZERO), Proxy::new(LATENCY)];
        let advertised = format!(
            "advertised.listeners=PLAINTEXT://localhost:{{0}},PROXIED://localhost:{}",
            proxies[Net::Kafka as usize].port()
        );
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:{0},PROXIED://127.0.0.1:{1},CONTROLLER://127.0.0.1:{9}",
            &advertised,
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ];
        let kafka = Arc::new(Kafka::start(1, &settings));
        proxies[Net::Kafka as usize].passes_to(kafka.nodes.port(1, 1));
        proxies[Net::S3 as usize].passes_to(server.port);
        Broken { kafka, server, proxies }
    }
}

/// One topic, one group, one bucket, one seed.
struct Round<'a> {
    on: &'a Broken,
    seed: u64,
    /// How many times faster than usually things happen.
    pace: u32,
    /// Whether members are static.
    known: bool,
    random: Random,
    store: Store<'a>,
    topic: String,
    /// What all members have in common: the name of objects depends on it.
    common: Vec<String>,
    slots: Vec<Slot>,
    begun: Instant,
    evidence: PathBuf,
    events: File,
    thaw_broker: Option<Instant>,
    failures: usize,
}

impl<'a> Round<'a> {
    fn new(on: &'a Broken, seed: u64, pace: u32) -> Self {
        let evidence = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
        let _ = std::fs::remove_dir_all(&evidence);
        std::fs::create_dir_all(&evidence).expect("a directory can be made");
        let events = File::create(evidence.join("events.log")).expect("it can be made");
        let mut random = Random::new(seed);
        let endpoint = format!("http://127.0.0.1:{}", on.proxies[Net::S3 as usize].port());
        let store = on.server.bucket("chaos").by(endpoint);
        let topic = on.kafka.topic("chaos", PARTITIONS);
        let mut common = vec![
            // Retention only takes what is stored.
            "kafka.source.on_out_of_range=earliest".to_owned(),
            format!("output.compress={}", random.pick(&["none", "none", "gzip", "zstd"])),
            format!("kafka.source.assignor={}", random.pick(&["cooperative-sticky", "range"])),
        ];
        // Not drawn: what was drawn for a seed stays as it was.
        if seed % 2 == 1 {
            common.push("output.key=hive".into());
        }
        // A static member that is started again within its session has its partitions again at once.
        let known = random.chance(if pace > 1 { 100 } else { 40 });
        let slot = |number| Slot::new(number, &evidence, random.fork(100 + number as u64), pace);
        let slots = (0..MEMBERS).map(slot).collect();
        let begun = Instant::now();
        let mut round = Round {
            on,
            seed,
            pace,
            known,
            random,
            store,
            topic,
            common,
            slots,
            begun,
            evidence,
            events,
            thaw_broker: None,
            failures: 0,
        };
        round.say(&format!("seed {seed}, {}", round.common.join(" ")));
        round
    }

    fn say(&mut self, what: &str) {
        writeln!(self.events, "{:8.3} {what}", self.begun.elapsed().as_secs_f64())
            .expect("it can be written");
    }

    /// Breaks things for so long, heals them, and compares.
    fn run(mut self, time: Duration) {
        let pause = self.random.fork(1).millis(1, 6);
        let (kafka, random) = (self.on.kafka.clone(), self.random.fork(2));
        let feeder = Feeder::start(kafka, &self.topic, PARTITIONS, random, pause);
        self.members(2);
        let mut schedule = Schedule::new(self.random.fork(3), self.pace);
        let (mut next, mut act) =
            schedule.next().map(|(pause, act)| (self.begun + pause, act)).expect("endless");
        while self.begun.elapsed() < time {
            if Instant::now() >= next {
                self.act(act);
                let (pause, following) = schedule.next().expect("endless");
                (next, act) = (Instant::now() + pause, following);
            }
            self.look();
        }
        self.heal();
        let written = feeder.stop();
        self.say(&format!("written: {written:?}"));
        self.settle(&written);
        let (topic, evidence) = (self.topic.clone(), self.evidence.clone());
        match self.inspector().compare(&topic, &written, &evidence) {
            Ok(found) => println!(
                "seed {}: {found}; {} starts of members, {} failed by themselves; connections so far and harmed: \
                 Kafka {:?}, S3 {:?}; {:.0} s",
                self.seed,
                self.slots.iter().map(Slot::started).sum::<usize>(),
                self.failures,
                self.on.proxies[Net::Kafka as usize].counts(),
                self.on.proxies[Net::S3 as usize].counts(),
                self.begun.elapsed().as_secs_f64()
            ),
            Err(wrong) => self.fail(&wrong),
        }
        drop(self.slots);
        if std::env::var_os("CHAOS_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&evidence);
        }
    }

    fn fail(&mut self, wrong: &str) -> ! {
        self.say(wrong);
        std::fs::write(self.evidence.join("broker.log"), self.on.kafka.nodes.log(1))
            .expect("it can be written");
        let shown: Vec<&str> = wrong.lines().take(20).collect();
        panic!("seed {}: {}\nevidence: {}", self.seed, shown.join("\n"), self.evidence.display());
    }

    fn act(&mut self, act: Act) {
        let mut random = self.random.fork(self.random.clone().next());
        self.random.next();
        let mut harmed = String::new();
        match &act {
            Act::Kill(slot) => self.running(*slot).kill(),
            Act::KillAll => self.slots.iter_mut().for_each(Slot::kill),
            Act::Stop(slot) => self.running(*slot).stop(),
            Act::Freeze(slot, time) => self.running(*slot).freeze(*time),
            Act::Members(count) => self.members(*count),
            Act::Net(net, harm, share, time) => {
                let count = self.on.proxies[*net as usize].harm(*harm, *share, *time, &mut random);
                let _ = write!(harmed, " ({count})");
            }
            Act::Retention(rest) => {
                let _ = write!(harmed, " ({:?})", self.retention(*rest));
            }
            Act::FreezeBroker(time) => {
                self.on.kafka.nodes.order("freeze", 1);
                self.thaw_broker = Some(Instant::now() + *time);
            }
            Act::RestartBroker => {
                self.on.kafka.nodes.order("kill", 1);
                self.on.kafka.nodes.order("start", 1);
                self.thaw_broker = None;
            }
        }
        self.say(&format!("{act:?}{harmed}"));
    }

    fn inspector(&self) -> Inspector {
        Inspector::new(self.on.server.endpoint(), &self.store.bucket, PREFIX)
    }

    /// Deletes records that are stored; returns where each partition begins then. A frozen broker keeps all.
    fn retention(&mut self, rest: u64) -> Option<Vec<u64>> {
        if self.thaw_broker.is_some() {
            return None;
        }
        let stored = self.inspector().stored(&self.topic, PARTITIONS as usize);
        let begins: Vec<u64> = match stored {
            Ok(stored) => stored.into_iter().map(|end| end.saturating_sub(rest)).collect(),
            Err(wrong) => self.fail(&wrong),
        };
        let partition = |(index, begin): (usize, &u64)| {
            DeleteRecordsPartition::default().with_partition_index(index as i32).with_offset(*begin as i64)
        };
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.clone())))
            .with_partitions(begins.iter().enumerate().map(partition).collect());
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        // A broker that was killed a moment ago keeps all.
        let connect = self.on.kafka.connect(Listener::Plaintext, options());
        connect.and_then(|mut connection| connection.call(&request)).ok().map(|_| begins)
    }

    /// The slot of this number or the next one after it that has a member.
    fn running(&mut self, number: usize) -> &mut Slot {
        let numbers = (number..number + MEMBERS).map(|number| number % MEMBERS);
        let found = numbers.into_iter().find(|number| self.slots[*number].is_running());
        &mut self.slots[found.unwrap_or(number)]
    }

    /// So many members from now on; the others are stopped.
    fn members(&mut self, count: usize) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            slot.wanted = number < count;
            if !slot.wanted {
                slot.stop();
            }
        }
    }

    /// Starts members that are to run, and sees how others ended. Takes a moment.
    fn look(&mut self) {
        for number in 0..self.slots.len() {
            if let Some(mut settings) = self.slots[number].is_due() {
                if self.known {
                    settings.extend(["--set".into(), format!("kafka.source.instance_id=member-{number}")]);
                }
                let args = self.args(&settings.iter().map(String::as_str).collect::<Vec<_>>());
                let command = self.store.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
                let begun = self.slots[number].begin(command);
                self.say(&format!("{begun}: {}", settings.join(" ")));
            }
            let ended = self.slots[number].watch();
            if let Some(ended) = ended {
                self.ended(number, &ended);
            }
        }
        if self.thaw_broker.is_some_and(|thaw| Instant::now() >= thaw) {
            self.thaw_broker();
        }
        std::thread::sleep(LOOK);
    }

    fn ended(&mut self, number: usize, ended: &Ended) {
        self.say(&format!("member {number} ended: {ended:?}"));
        self.failures += usize::from(!ended.asked || ended.code == Some(1));
        if !ended.is_allowed() {
            self.fail(&format!("member {number} must not end like this: {ended:?}"));
        }
    }

    fn thaw_broker(&mut self) {
        if self.thaw_broker.take().is_some() {
            self.on.kafka.nodes.order("thaw", 1);
            self.say("the broker thaws");
        }
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let proxied = format!("localhost:{}", self.on.proxies[Net::Kafka as usize].port());
        let (topic, url) = (self.topic.as_str(), self.store.url(PREFIX));
        let who = ["-s", "kafka", "--brokers", &proxied, "-t", topic, "-g", topic, "-o", &url];
        let common = self.common.iter().flat_map(|setting| ["--set", setting]);
        who.into_iter().chain(common).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    /// Nothing breaks from now on.
    fn heal(&mut self) {
        self.thaw_broker();
        self.on.proxies.iter().for_each(Proxy::heal);
        self.slots.iter_mut().for_each(Slot::thaw);
        self.say("healed");
    }

    /// The members come to the end, stop when they are asked to, and leave nothing to do.
    fn settle(&mut self, written: &[u64]) {
        self.slots[0].wanted = true;
        let end = Instant::now() + HEALED;
        loop {
            let committed = self.committed();
            if committed.as_deref() == Some(written) {
                break;
            }
            if Instant::now() > end {
                self.fail(&format!("no end after {HEALED:?}: {committed:?} of {written:?} are committed"));
            }
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until {
                self.look();
            }
        }
        self.say("all is committed");
        self.members(0);
        while self.slots.iter().any(Slot::is_running) {
            self.look();
        }
        let args = self.args(&["--until", "end"]);
        let command = self.store.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let last = Running::start(command).ended_within(HEALED);
        if last.code != Some(0) {
            self.fail(&format!("the last run: {last:?}"));
        }
    }

    /// What the group has committed, by partition, if the broker says so.
    fn committed(&self) -> Option<Vec<u64>> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(&self.topic)))
            .with_partition_indexes((0..PARTITIONS).collect());
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(&self.topic)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let mut connection = self.on.kafka.plain();
        let version = connection.version::<OffsetFetchRequest>(9).ok()?;
        let answer = connection.call_within(&request, version, Duration::from_secs(10)).ok()?;
        let partitions = &answer.groups.first()?.topics.first()?.partitions;
        let mut committed = vec![0; PARTITIONS as usize];
        for partition in partitions {
            committed[partition.partition_index as usize] =
                u64::try_from(partition.committed_offset).unwrap_or(0);
        }
        Some(committed)
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_breaks_each_record_is_stored_once() {
    if !is_possible() {
        return;
    }
    let Some(server) = Server::shared() else { return };
    let broken = Broken::start(server);
    let minutes = number("CHAOS_MINUTES");
    let drawn = || SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos() as u64 % 100_000;
    let first = number("CHAOS_SEED").unwrap_or_else(|| if minutes.is_some() { drawn() } else { 1 });
    let Some(minutes) = minutes else { return Round::new(&broken, first, 4).run(SHORT) };
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    for seed in first.. {
        Round::new(&broken, seed, 1).run(LONG);
        if Instant::now() >= end {
            break;
        }
    }
}
