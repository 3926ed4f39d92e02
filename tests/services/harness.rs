//! The harness itself: brokers go with their process, come back after faults, and Kafka's tools reach them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;

use crate::admin;
use crate::cluster::Cluster3;
use crate::kafka::{Kafka, is_possible};
use crate::nodes::Nodes;
use crate::runs::until;

/// Set where `a_process_with_a_broker` is to be one.
const HOLD: &str = "PIPELINE_TEST_HOLDS_A_BROKER";

/// Not a test by itself: the process that the next one kills.
#[test]
fn a_process_with_a_broker() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let nodes = Nodes::new(1, &[]);
    nodes.order("start", 1);
    println!("\nbroker in {}", nodes.dir().display());
    loop {
        std::thread::park();
    }
}

/// Processes that were started with this directory.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.to_string_lossy();
    let all = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    let commands = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(&*dir)).count()
}

#[test]
fn a_killed_process_leaves_no_broker_and_no_files() {
    if !is_possible() {
        return;
    }
    let this = std::env::current_exe().expect("it runs");
    let mut holder = Command::new(this)
        .args(["--exact", "harness::a_process_with_a_broker", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(holder.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let dir = lines.filter_map(|line| line.strip_prefix("broker in ").map(str::to_string)).next();
    let dir = dir.expect("it says where");
    let dir = Path::new(&dir);
    let java = || dir.join("1/log").exists();
    until("the JVM", java);
    assert!(processes_of(dir) > 0);
    holder.kill().expect("it runs");
    holder.wait().expect("it is a child");
    until("the end of all processes", || processes_of(dir) == 0);
    until("the end of the directory", || !dir.exists());
}

#[test]
fn kafkas_tools_read_what_they_wrote() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("tools", 1);
    kafka.produce(&topic, "none", "a:1\tk\tv\nNULL\tgone\tNULL\n");
    let read = kafka.consume(&topic, 2);
    assert_eq!(read, ["Partition:0\tOffset:0\ta:1\tk\tv", "Partition:0\tOffset:1\tNO_HEADERS\tgone\tnull"]);
    admin::delete(kafka, &topic);
}

#[test]
fn a_killed_broker_is_missed_and_comes_back() {
    let Some(cluster) = Cluster3::take() else { return };
    let topic = cluster.topic("harness", 3);
    let known = || {
        let request =
            MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(false);
        cluster.plain().call(&request).map_or(0, |answer| answer.brokers.len())
    };
    assert_eq!(known(), 3);
    cluster.kill(2);
    until("the others miss it", || known() == 2);
    cluster.start(2);
    cluster.ready();
    cluster.until_in_sync(&topic);
    assert_eq!(known(), 3);
}

#[test]
fn a_stopped_broker_hands_its_partitions_over() {
    let Some(cluster) = Cluster3::take() else { return };
    let topic = cluster.topic("handover", 6);
    cluster.stop(3);
    let led_by_others = |partition: &MetadataResponsePartition| [1, 2].contains(&partition.leader_id.0);
    admin::until_known(&cluster, &topic, |topic| topic.partitions.iter().all(led_by_others));
}
