//! From a real Kafka to a real S3 server.

use super::{Server, sorted};
use crate::kafka::Kafka;
use crate::runs::lines;

#[test]
fn a_topic_goes_to_a_bucket() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let store = server.bucket("topic");
    let topic = kafka.topic("to-s3", 2);
    let text: String =
        lines(0..200).lines().enumerate().map(|(n, line)| format!("NULL\tk{n}\t{line}\n")).collect();
    kafka.produce(&topic, "none", &text);
    let (brokers, url) = (kafka.brokers(), store.url("events"));
    let args = [
        "-s",
        "kafka",
        "--brokers",
        &brokers,
        "-t",
        &topic,
        "--until",
        "end",
        "-o",
        &url,
        "-g",
        &topic,
        "-b",
        "30",
    ];
    store.run(&args).expect(0, &["200 records"]);
    assert_eq!(store.data("events/processed/"), sorted(&lines(0..200)));
    let first = store.objects();
    let named = |key: &String| key.contains(&format!("/{topic}-0-")) || key.contains(&format!("/{topic}-1-"));
    assert!(first.keys().all(named), "{:?}", first.keys());
    store.run(&args).expect(0, &[]);
    assert_eq!(store.objects(), first, "what is committed is not read again");
}
