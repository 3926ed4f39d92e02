//! The client's upper layers against real brokers: a group with our members and Java's, transactions, the producer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use pipeline::kafka::group::{Assignor, Change, Group, GroupSettings, Identity};
use pipeline::kafka::producer::{Ended, GroupOffset, Message, Producer, ProducerSettings, Transactional};
use pipeline::kafka::wire::Compression;
use pipeline::kafka::{Cluster, Error, TopicPartition};
use pipeline::{Stop, retry::Policy};

use crate::kafka::{Kafka, Listener, options, unique};
use crate::runs::until;

fn cluster(kafka: &Kafka, stop: &Stop) -> Cluster {
    let policy =
        Policy { max_retries: 8, delay: Duration::from_millis(20), max_delay: Duration::from_millis(500) };
    Cluster::new(vec![kafka.address(Listener::Plaintext)], Arc::new(options()), stop, policy)
}

type Owned = BTreeMap<TopicPartition, u64>;

/// A member that reads nothing: it lets go of partitions as soon as it is asked.
struct Member {
    group: Arc<Group>,
    stop: Stop,
    owned: Arc<Mutex<Owned>>,
    over: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    done: Arc<AtomicBool>,
}

impl Member {
    fn join(kafka: &Kafka, group: &str, topic: &str, assignor: Assignor) -> Self {
        let stop = Stop::new();
        let settings = GroupSettings {
            session_timeout: Duration::from_secs(3),
            release_within: Duration::from_secs(5),
            assignor,
            ..GroupSettings::new(group, vec![topic.into()])
        };
        let group = Group::new(cluster(kafka, &stop), settings);
        let (over, ends) = bounded(0);
        let (owned, done) = (Arc::new(Mutex::new(Owned::new())), Arc::new(AtomicBool::new(false)));
        let attending = group.clone();
        let attend = move || {
            if let Err(error) = attending.attend(&ends) {
                assert!(matches!(error, pipeline::Error::Stopped), "{error}");
            }
        };
        let (looking, holds, over_for_good) = (group.clone(), owned.clone(), done.clone());
        let look = move || {
            while !over_for_good.load(Ordering::Relaxed) {
                looking.polled();
                while let Some(change) = looking.next_change() {
                    let mut holds = holds.lock().expect("nobody panics with it");
                    match change {
                        Change::Assigned(tenancy) => {
                            assert_eq!(holds.insert(tenancy.of, tenancy.epoch), None, "it is owned already");
                        }
                        Change::Revoked(of, epoch) => {
                            assert_eq!(holds.remove(&of), Some(epoch));
                            looking.released(&of, epoch);
                        }
                        Change::Lost(of, _) => drop(holds.remove(&of)),
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let threads = vec![start(attend), start(look)];
        Member { group, stop, owned, over: Some(over), threads, done }
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.owned.lock().expect("nobody panics with it").keys().cloned().collect()
    }

    /// Leaves as one should.
    fn leave(mut self) {
        self.over = None;
        self.end();
    }

    /// Is gone without a word.
    fn die(mut self) {
        self.stop.abort();
        self.end();
    }

    fn end(&mut self) {
        self.threads.remove(0).join().expect("it does not panic");
        self.done.store(true, Ordering::Relaxed);
        self.threads.remove(0).join().expect("it does not panic");
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name("member".into()).spawn(work).expect("a thread can be started")
}

/// Waits until each partition has one of these owners, and each owner at least one partition.
#[track_caller]
fn shared_among(members: &[&Member], partitions: usize) {
    until("every partition has one owner", || {
        let owned: Vec<Vec<TopicPartition>> = members.iter().map(|member| member.owned()).collect();
        let mut all: Vec<_> = owned.iter().flatten().collect();
        all.sort();
        all.dedup();
        let sum: usize = owned.iter().map(Vec::len).sum();
        all.len() == partitions && sum == partitions && owned.iter().all(|own| !own.is_empty())
    });
}

#[track_caller]
fn check_sharing(assignor: Assignor) {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, group) = (kafka.topic("shared", 6), unique("sharers"));
    let join = || Member::join(kafka, &group, &topic, assignor);
    let first = join();
    shared_among(&[&first], 6);
    let second = join();
    shared_among(&[&first, &second], 6);
    let third = join();
    shared_among(&[&first, &second, &third], 6);
    second.leave();
    shared_among(&[&first, &third], 6);
    first.die();
    shared_among(&[&third], 6);
    third.leave();
}

#[test]
fn cooperative_members_share_all_partitions() {
    check_sharing(Assignor::CooperativeSticky);
}

#[test]
fn members_with_ranges_share_all_partitions() {
    check_sharing(Assignor::Range);
}

/// Java's consumer in our group, once as leader and once not.
#[track_caller]
fn check_with_java(assignor: Assignor, javas: &str) {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, group) = (kafka.topic("mixed", 4), unique("mixed"));
    let strategy = format!("partition.assignment.strategy=org.apache.kafka.clients.consumer.{javas}");
    let args = ["--topic", &topic, "--group", &group, "--command-property", &strategy];
    let quick = ["session.timeout.ms=3000", "heartbeat.interval.ms=500"];
    let args = [&args[..], &quick.map(|property| ["--command-property", property]).concat()].concat();
    let first = Member::join(kafka, &group, &topic, assignor);
    shared_among(&[&first], 4);
    let mut java = kafka.background("ConsoleConsumer", &args);
    until("Java has its half", || first.owned().len() == 2 || java.is_over());
    if java.is_over() {
        panic!("{:?}", java.ended());
    }
    // Now Java leads.
    first.leave();
    let second = Member::join(kafka, &group, &topic, assignor);
    until("we have our half", || second.owned().len() == 2);
    drop(java);
    shared_among(&[&second], 4);
    second.leave();
}

#[test]
fn a_java_consumer_cooperates() {
    check_with_java(Assignor::CooperativeSticky, "CooperativeStickyAssignor");
}

#[test]
fn a_java_consumer_takes_ranges() {
    check_with_java(Assignor::Range, "RangeAssignor");
}

/// One of the newer protocol (KIP-848) makes the group one of that. There a generation is the member's epoch, which no join
/// makes newer.
#[test]
fn a_java_consumer_of_the_newer_protocol_and_a_doubt() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, group) = (kafka.topic("newer", 4), unique("newer"));
    let args = ["--topic", &topic, "--group", &group, "--command-property", "group.protocol=consumer"];
    let ours = Member::join(kafka, &group, &topic, Assignor::CooperativeSticky);
    shared_among(&[&ours], 4);
    let mut java = kafka.background("ConsoleConsumer", &args);
    // In the generation before we still let go of it.
    let rests = || ours.group.identity().is_some_and(|now| now.generation > 1);
    until("Java has its half", || ours.owned().len() == 2 && rests() || java.is_over());
    if java.is_over() {
        panic!("{:?}", java.ended());
    }
    let tenancies = || ours.owned.lock().expect("nobody panics with it").clone();
    let before = tenancies().into_values().max();
    ours.group.doubt("a reply was lost");
    until("we have half of it anew", || {
        let now = tenancies();
        now.len() == 2 && now.into_values().min() > before
    });
    ours.leave();
}

pub fn producer(kafka: &Kafka, compression: Compression, id: Option<&str>) -> Producer {
    let timeout = Duration::from_secs(20);
    let transactional = id.map(|id| Transactional { id: id.into(), timeout });
    let settings = ProducerSettings {
        compression,
        delivery_timeout: Duration::from_secs(30),
        transactional,
        ..ProducerSettings::default()
    };
    Producer::new(cluster(kafka, &Stop::new()), settings)
}

#[track_caller]
pub fn append(producer: &mut Producer, topic: &str, value: &str) {
    let output = producer.output(topic).expect("the topic is there");
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a", Some(b"1")), (b"a", Some(b"2"))];
    let message = Message {
        key: Some(b"key"),
        value: Some(value.as_bytes()),
        time: 1_700_000_000_000,
        headers: headers.into_iter(),
    };
    producer.append(output, message).expect("it is small");
}

#[test]
fn javas_consumer_reads_every_compression_of_ours() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("written", 1);
    let mut expected = Vec::new();
    for compression in Compression::ALL {
        let mut producer = producer(kafka, compression, None);
        for number in 0..50 {
            let value = format!("{} {number} {}", compression.name(), "again and again ".repeat(20));
            append(&mut producer, &topic, &value);
            expected.push(value);
        }
        producer.flush().expect("it is stored");
    }
    let read = kafka.consume(&topic, 250);
    let line =
        |(offset, value): (usize, String)| format!("Partition:0\tOffset:{offset}\ta:1,a:2\tkey\t{value}");
    assert_eq!(read, expected.into_iter().enumerate().map(line).collect::<Vec<_>>());
}

/// Records and offsets count together, and an aborted transaction leaves nothing.
#[test]
fn transactions_take_offsets_along() {
    let Some(kafka) = Kafka::shared() else { return };
    let (input, output, group) = (kafka.topic("in", 1), kafka.topic("out", 2), unique("transactions"));
    kafka.fill(&input, 1, 20);
    let member = Member::join(kafka, &group, &input, Assignor::CooperativeSticky);
    shared_among(&[&member], 1);
    let identity = member.group.identity().expect("it is a member");
    let mut producer = producer(kafka, Compression::Lz4, Some(&group));
    let offset = |offset| GroupOffset {
        of: TopicPartition::new(&*input, 0),
        offset,
        leader_epoch: 0,
        metadata: "none".into(),
    };
    let mut transact = |value: &str, identity: &Identity, at: i64| {
        producer.begin().expect("it begins");
        append(&mut producer, &output, value);
        producer.commit(&[offset(at)], Some(identity)).expect("it ends")
    };
    assert_eq!(transact("first", &identity, 5), Ended::Committed);
    let fenced = Identity { generation: identity.generation - 1, ..identity.clone() };
    assert!(matches!(transact("never", &fenced, 9), Ended::Refused(_)));
    assert_eq!(transact("second", &identity, 7), Ended::Committed);
    producer.begin().expect("it begins");
    append(&mut producer, &output, "aborted");
    producer.flush().expect("it is sent");
    producer.abort().expect("it is aborted");

    let read = kafka.consume(&output, 2);
    let values: Vec<_> = read.iter().map(|line| line.rsplit('\t').next().expect("a value")).collect();
    assert_eq!(values, ["first", "second"]);
    let said = kafka.tool("ConsumerGroupCommand", &["--describe", "--group", &group], "");
    let line = said.lines().find(|line| line.contains(&input)).expect("it is in the group");
    assert_eq!(line.split_whitespace().nth(3), Some("7"), "{said}");
    member.leave();
}

/// A second producer of the same id ends the first one for good.
#[test]
fn the_later_producer_fences_the_earlier() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, id) = (kafka.topic("fenced", 1), unique("id"));
    let mut first = producer(kafka, Compression::None, Some(&id));
    first.begin().expect("it begins");
    append(&mut first, &topic, "zombie");
    first.flush().expect("it is sent");
    let mut second = producer(kafka, Compression::None, Some(&id));
    second.begin().expect("it begins");
    append(&mut second, &topic, "alive");
    assert_eq!(second.commit(&[], None).expect("it ends"), Ended::Committed);
    let error = first.commit(&[], None).expect_err("it was fenced");
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    let read = kafka.consume(&topic, 1);
    assert!(read[0].ends_with("\talive"), "{read:?}");
}
