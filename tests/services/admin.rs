//! Topics, by way of our own connection: a Java tool takes most of a second to do the same.

use std::io::Write;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use pipeline::kafka::{Code, Connection};

use crate::kafka::Kafka;

/// How long a topic may take to be there everywhere, or to be gone.
const SOON: Duration = Duration::from_secs(60);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Creates a topic with as many replicas as the cluster gives by default.
#[track_caller]
pub fn create(kafka: &Kafka, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let setting = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(settings.iter().map(setting).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = kafka.plain().call(&request).expect("the broker answers");
    let answer = &answer.topics[0];
    assert_eq!(answer.error_code, 0, "{name}: {:?}", answer.error_message);
    until_known(kafka, name, |topic| {
        topic.partitions.len() == partitions as usize
            && topic.partitions.iter().all(|partition| partition.error_code == 0)
    });
}

/// Deletes a topic.
#[track_caller]
pub fn delete(kafka: &Kafka, name: &str) {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_topic_names(vec![TopicName(text(name))])
        .with_timeout_ms(10_000);
    let mut connection = kafka.plain();
    let version = connection.version::<DeleteTopicsRequest>(i16::MAX).expect("it has that");
    let request = if version >= 6 { request.with_topic_names(vec![]) } else { request.with_topics(vec![]) };
    let answer = connection.call(&request).expect("the broker answers");
    assert_eq!(
        answer.responses[0].error_code,
        0,
        "{name}: {:?}",
        Code(answer.responses[0].error_code).name()
    );
    until_known(kafka, name, |topic| topic.error_code == 3);
}

/// What a broker knows of a topic.
#[track_caller]
pub fn describe(connection: &mut Connection, name: &str) -> MetadataResponseTopic {
    try_describe(connection, name).expect("the broker answers")
}

/// The same, if it answers.
pub fn try_describe(connection: &mut Connection, name: &str) -> Option<MetadataResponseTopic> {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request =
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
    connection.call(&request).ok()?.topics.pop()
}

/// Waits until every broker that runs knows this of the topic.
#[track_caller]
pub fn until_known(kafka: &Kafka, name: &str, is_so: impl Fn(&MetadataResponseTopic) -> bool) {
    let end = Instant::now() + SOON;
    for node in 1..=kafka.nodes.count() {
        if !kafka.nodes.order("alive", node) {
            continue;
        }
        let listener = crate::kafka::Listener::Plaintext;
        let mut connection =
            kafka.connect_to(node, listener, crate::kafka::options()).expect("the broker runs");
        loop {
            let topic = describe(&mut connection, name);
            if is_so(&topic) {
                break;
            }
            assert!(Instant::now() < end, "not within {SOON:?}: {topic:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Gives each partition of a topic these replicas, the first as leader.
#[track_caller]
pub fn reassign(kafka: &Kafka, topic: &str, partitions: i32, replicas: &str) {
    let one =
        |partition| format!("{{\"topic\":\"{topic}\",\"partition\":{partition},\"replicas\":[{replicas}]}}");
    let list = (0..partitions).map(one).collect::<Vec<_>>().join(",");
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "{{\"version\":1,\"partitions\":[{list}]}}").expect("it can be written");
    let path = file.path().to_str().expect("it is text");
    kafka.tool("ReassignPartitionsCommand", &["--reassignment-json-file", path, "--execute"], "");
    kafka.tool("LeaderElectionCommand", &["--election-type", "preferred", "--all-topic-partitions"], "");
    let leader = replicas.split(',').next().expect("there is one").parse::<i32>().expect("it is a number");
    until_known(kafka, topic, |topic| {
        topic.partitions.iter().all(|partition| partition.leader_id.0 == leader)
    });
}

/// The node that is the controller.
#[track_caller]
pub fn controller(kafka: &Kafka) -> u16 {
    let said = kafka.tool("MetadataQuorumCommand", &["describe", "--status"], "");
    let leader = said.lines().find_map(|line| line.strip_prefix("LeaderId:")).expect("it says so");
    leader.trim().parse().expect("it is a number")
}
