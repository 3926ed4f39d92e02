//! From a real Kafka to a real S3 server.

use std::time::Duration;

use super::fault::{Act, Faulty};
use super::{Server, Store, sorted};
use crate::exposition::{Exposition, promtool};
use crate::flow::{Times, id, same_ids};
use crate::kafka::Kafka;
use crate::records::{Feeder, Id};
use crate::runs::{Running, lines, text, until};

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
    let told = [&args[..], &["--metrics-file", "m.prom", "--summary", "json=s.json"]].concat();
    kafka.produce(&topic, "none", "NULL\tk\t{broken\n");
    store.run(&told).expect(3, &[]);
    assert_eq!(store.data("events/processed/"), sorted(&lines(0..200)));
    agree(&store, 200);
    let first = store.objects();
    let named = |key: &String| key.contains(&format!("/{topic}-0-")) || key.contains(&format!("/{topic}-1-"));
    assert!(first.keys().all(named), "{:?}", first.keys());
    store.run(&args).expect(0, &[]);
    assert_eq!(store.objects(), first, "what is committed is not read again");
}

/// Metrics and summary tell of what is in the bucket, to the last record.
#[track_caller]
fn agree(store: &Store<'_>, good: usize) {
    let file = |name: &str| std::fs::read_to_string(store.bench.path(name)).expect("it is there");
    let summary: serde_json::Value = serde_json::from_str(&file("s.json")).expect("JSON");
    let (metrics, objects) = (Exposition::parse(&file("m.prom")), store.objects());
    promtool(&file("m.prom"));
    let under = |top: &str| objects.iter().filter(|(key, _)| key.contains(top)).collect::<Vec<_>>();
    let count =
        |top: &str| under(top).iter().map(|(key, bytes)| text(key, bytes).lines().count()).sum::<usize>();
    let bytes: usize = objects.values().map(Vec::len).sum();
    let agreed = [
        ("records_read", "pipeline_records_read_total", good + 1),
        ("records_stored", "pipeline_records_stored_total", count("/processed/")),
        ("records_rejected", "pipeline_records_rejected_total", count("/failed/")),
        ("bytes_out", "pipeline_bytes_stored_total", bytes),
        ("batches", "pipeline_batches_published_total", under("/processed/").len()),
        ("lag", "pipeline_lag", 0),
    ];
    for (key, metric, expected) in agreed {
        let told = (summary[key].as_u64(), metrics.sum(metric));
        assert_eq!(told, (Some(expected as u64), expected as f64), "{key}");
    }
    assert_eq!((count("/processed/"), count("/failed/")), (good, 1));
}

/// A run of one group into the bucket, whose killed members are missed soon.
pub fn start(store: &Store<'_>, kafka: &Kafka, topic: &str, args: &[&str]) -> Running {
    let (brokers, url) = (kafka.brokers(), store.url("p"));
    let member = ["-s", "kafka", "--brokers", &brokers, "-t", topic, "-g", topic, "-o", &url, "-b", "7"];
    let quick = ["--set", "kafka.source.session_timeout=3s", "--set", "processing.batch_wait=200ms"];
    Running::start(store.command(&[&member[..], &quick, args].concat()))
}

/// The ids of everything that is stored.
pub fn stored_ids(store: &Store<'_>, topic: &str) -> Vec<Id> {
    let envelope = |line: &str| id(&serde_json::from_str(line).expect("JSON"), topic);
    let objects = store.objects();
    let texts = objects.iter().map(|(key, bytes)| text(key, bytes));
    texts.flat_map(|text| text.lines().map(envelope).collect::<Vec<_>>()).collect()
}

/// Killed again and again while records come in and answers of the store are lost, and started again by the same
/// command: each record stands in one object.
#[test]
fn sigkill_and_lost_answers_store_nothing_twice() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let faulty = Faulty::new(server, |asked| match asked.number % 11 {
        3 if asked.is_put() => Act::Swallow,
        7 => Act::Answer(503, "", String::new()),
        _ => Act::Pass,
    });
    let store = server.bucket("planned").by(faulty.endpoint());
    let topic = kafka.topic("planned-s3", 3);
    let feeder = Feeder::start(kafka, &topic, 3, Duration::from_millis(3));
    for _ in 0..6 {
        let before = store.objects().len();
        let run = start(&store, kafka, &topic, &[]);
        until("the run stores", || store.objects().len() > before + 15);
        run.kill();
    }
    feeder.stop();
    start(&store, kafka, &topic, &["--until", "end"]).ended().expect(0, &[]);
    same_ids(stored_ids(&store, &topic), &kafka.ids(&topic), Times::Once);
    assert!(faulty.seen().iter().any(|asked| asked.method == "HEAD"), "something was looked for");
}

/// A store that refuses ends the run, and the group has committed nothing that is not stored.
#[test]
fn a_refusal_commits_nothing_beyond_what_is_stored() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    let faulty = Faulty::new(server, move |asked| {
        // The sixth batch of each partition, while later ones may be stored.
        match asked.is_put() && asked.target.contains("-00000000000000000035.") {
            true => Act::Answer(403, "", denied.into()),
            false => Act::Pass,
        }
    });
    let store = server.bucket("refused").by(faulty.endpoint());
    let topic = kafka.topic("refused-s3", 2);
    kafka.fill(&topic, 2, 200);
    start(&store, kafka, &topic, &["--until", "end"]).ended().expect(4, &["403 AccessDenied"]);
    assert!(stored_ids(&store, &topic).len() < 400);
    drop(faulty);
    let store = store.by(server.endpoint());
    start(&store, kafka, &topic, &["--until", "end"]).ended().expect(0, &[]);
    same_ids(stored_ids(&store, &topic), &kafka.ids(&topic), Times::Once);
}
