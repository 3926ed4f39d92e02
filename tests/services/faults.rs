//! Brokers that die and come back, leaders that move, topics that change. Each test says within what time the run
//! must be going again; nothing may be missing afterwards. And a broker whose disk lies.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::admin;
use crate::cluster::Cluster3;
use crate::flow::{Flow, RUN};
use crate::kafka::Kafka;
use crate::records::Feeder;
use crate::runs::Running;

const PARTITIONS: i32 = 4;

/// A run into a directory that reads while a feeder writes.
struct Underway {
    flow: Flow<'static>,
    run: Running,
    feeder: Feeder,
}

impl Underway {
    fn begin(kafka: &'static Kafka, name: &str) -> Self {
        let flow = Flow::new(kafka, name, PARTITIONS);
        let feeder = Feeder::start(kafka, &flow.topic, PARTITIONS, Duration::from_millis(20));
        let run = flow.start(&["-o", "out"]);
        flow.stores_within(Duration::from_secs(30));
        Underway { flow, run, feeder }
    }

    /// Ends it, and reads the rest with another run. Everything must be there.
    fn end(self) {
        assert!(self.feeder.stop() > 0);
        self.run.signal(Signal::TERM);
        self.run.ended().expect(0, &[]);
        self.flow.to_dir();
        self.flow.is_stored_once();
    }
}

/// Deadline: 30 s from the kill, with the broker down.
#[test]
fn a_killed_broker_is_done_without() {
    let Some(cluster) = Cluster3::take() else { return };
    let underway = Underway::begin(cluster.brokers_of_all(), "broker-killed");
    cluster.kill(2);
    underway.flow.stores_within(Duration::from_secs(30));
    cluster.start(2);
    cluster.ready();
    underway.flow.stores_within(Duration::from_secs(30));
    underway.end();
}

/// Deadline: 30 s from the moment that all brokers are back.
#[test]
fn all_brokers_are_down_for_ten_seconds() {
    let Some(cluster) = Cluster3::take() else { return };
    let underway = Underway::begin(cluster.brokers_of_all(), "all-down");
    (1..=3).for_each(|node| cluster.kill(node));
    // The fault itself is a length of time.
    std::thread::sleep(Duration::from_secs(10));
    cluster.mend();
    underway.flow.stores_within(Duration::from_secs(30));
    underway.end();
}

/// Deadline: 20 s after each broker is back, and after the last one.
#[test]
fn brokers_are_restarted_one_after_the_other() {
    let Some(cluster) = Cluster3::take() else { return };
    let underway = Underway::begin(cluster.brokers_of_all(), "rolled");
    for node in 1..=3 {
        cluster.stop(node);
        cluster.start(node);
        cluster.ready();
        cluster.until_in_sync(&underway.flow.topic);
        underway.flow.stores_within(Duration::from_secs(20));
    }
    underway.end();
}

/// Deadline: 20 s.
#[test]
fn leaders_move() {
    let Some(cluster) = Cluster3::take() else { return };
    let underway = Underway::begin(cluster.brokers_of_all(), "moved");
    for first in ["2,3,1", "3,1,2", "1,2,3"] {
        admin::reassign(&cluster, &underway.flow.topic, PARTITIONS, first);
        underway.flow.stores_within(Duration::from_secs(20));
    }
    underway.end();
}

/// Deadline: 30 s.
#[test]
fn the_controller_moves() {
    let Some(cluster) = Cluster3::take() else { return };
    let underway = Underway::begin(cluster.brokers_of_all(), "controller");
    let controller = admin::controller(&cluster);
    cluster.kill(controller);
    underway.flow.stores_within(Duration::from_secs(30));
    underway.end();
}

/// Deadline: 40 s for the new partitions to be read (metadata is asked for again after a while).
#[test]
fn partitions_are_added() {
    let Some(kafka) = Kafka::shared() else { return };
    let Underway { flow, run, feeder } = Underway::begin(kafka, "raised");
    let args = ["--alter", "--topic", &flow.topic, "--partitions", "7"];
    kafka.tool("TopicCommand", &args, "");
    admin::until_known(kafka, &flow.topic, |topic| {
        topic.partitions.len() == 7 && topic.partitions.iter().all(|partition| partition.error_code == 0)
    });
    kafka.fill(&flow.topic, 7, 20);
    flow.stores_within(Duration::from_secs(40));
    Underway { flow, run, feeder }.end();
}

/// A topic of the same name is another one: its offsets begin again, and the group's commits are not for it.
#[test]
fn a_topic_is_deleted_and_created_again() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "recreated", 2);
    kafka.fill(&flow.topic, 2, 50);
    flow.to_dir();
    flow.is_stored_once();
    admin::delete(kafka, &flow.topic);
    admin::create(kafka, &flow.topic, 2, &[]);
    kafka.fill(&flow.topic, 2, 60);
    flow.to_dir();
    assert_eq!(flow.stored_ids().len(), 220, "all of the old one and all of the new one");
}

/// Deadline: the run ends within 60 s, with an error that names the topic.
#[test]
fn a_topic_is_deleted_under_a_run() {
    let Some(kafka) = Kafka::shared() else { return };
    let Underway { flow, run, feeder } = Underway::begin(kafka, "deleted");
    feeder.stop();
    admin::delete(kafka, &flow.topic);
    let ran = run.ended_within(Duration::from_secs(60));
    assert!(matches!(ran.code, Some(1 | 4)) && ran.stderr.contains(&flow.topic), "{ran:?}");
}

/// The first segment of a partition as it stands on the broker's disk, which hands it out and looks at no checksum.
struct Segment(File);

impl Segment {
    fn of(kafka: &Kafka, topic: &str, partition: i32) -> Self {
        let path = format!("1/data/{topic}-{partition}/{:020}.log", 0);
        let file = File::options().read(true).write(true).open(kafka.nodes.dir().join(path));
        Segment(file.expect("the broker's directories are as they were"))
    }

    /// Turns each bit of the last byte of the second batch; once more, and it is as it was.
    fn damage(&self) {
        let behind = |begin: u64| {
            let mut length = [0; 4];
            self.0.read_exact_at(&mut length, begin + 8).expect("a batch is there");
            begin + 12 + u64::from(u32::from_be_bytes(length))
        };
        let last = behind(behind(0)) - 1;
        let mut byte = [0; 1];
        self.0.read_exact_at(&mut byte, last).expect("the second batch is there");
        self.0.write_all_at(&[!byte[0]], last).expect("it can be written");
    }
}

#[test]
fn a_batch_that_is_damaged_on_the_brokers_disk_ends_the_run_where_it_stands() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "damaged", 2);
    kafka.fill(&flow.topic, 2, 10);
    for _ in 0..2 {
        kafka.fill(&flow.topic, 1, 10);
    }
    let segment = Segment::of(kafka, &flow.topic, 0);
    segment.damage();

    let damaged = format!("kafka topic partition {}-0 is damaged at offset 10: ", flow.topic);
    // A run without an end does not go on without the partition, either.
    for args in [&["--until", "end", "-o", "out"][..], &["-o", "out"], &["--until", "end", "-o", "out"]] {
        flow.start(args).ended_within(RUN).expect(4, &[&damaged]);
        assert_eq!(flow.stored().len(), 20, "what stands before it and all of the other partition, once");
    }

    segment.damage();
    flow.to_dir();
    flow.is_stored_once();
}

/// None of them waits for what another cannot commit.
#[test]
fn members_of_a_group_that_meet_damage_all_end() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "all-damaged", 2);
    for _ in 0..2 {
        kafka.fill(&flow.topic, 2, 10);
    }
    let segments = [0, 1].map(|partition| Segment::of(kafka, &flow.topic, partition));
    segments.iter().for_each(Segment::damage);
    let members: Vec<Running> = (0..2).map(|_| flow.start(&["--until", "end", "-o", "out"])).collect();
    for member in members {
        member.ended_within(RUN).expect(4, &["is damaged at offset 10: "]);
    }
    assert_eq!(flow.stored().len(), 20);

    segments.iter().for_each(Segment::damage);
    flow.to_dir();
    flow.is_stored_once();
}
