//! From Kafka into a directory: what a record becomes, where a run begins and ends, and what its group remembers.

use std::time::Duration;

use pipeline::kafka::wire::Compression;
use serde_json::{Value, json};

use crate::admin;
use crate::client::{append, producer};
use crate::flow::{Flow, Times, run_with, same_ids, settings};
use crate::kafka::{Kafka, unique};
use crate::records::{Feeder, Id, Row};
use crate::runs::{Bench, lines, until};

#[test]
fn every_record_is_stored_once_and_only_once() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "once", 3);
    for (round, compression) in Compression::ALL.into_iter().enumerate() {
        for partition in 0..3 {
            let rows: Vec<Row> = (0..500).map(|number| Row::numbered(round * 500 + number)).collect();
            kafka.write(&flow.topic, partition, compression, &rows);
        }
    }
    flow.to_dir();
    flow.is_stored_once();
    assert_eq!(flow.stored_ids().len(), 7500);
    flow.to_dir();
    assert_eq!(flow.stored_ids().len(), 7500, "there was nothing new");
    kafka.fill(&flow.topic, 3, 40);
    flow.to_dir();
    flow.is_stored_once();
}

/// Keys, headers, times and null values, as Kafka's own producer and as ours write them.
#[test]
fn an_envelope_has_all_that_a_record_had() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "envelope", 1);
    kafka.produce(&flow.topic, "zstd", "a:1,a:2\tkey\t{\"n\": 1.50}\nNULL\tgone\tNULL\nNULL\tNULL\t[]\n");
    let headers = vec![("bin".into(), Some(vec![0xff, 0])), ("none".into(), None)];
    let (key, value) = (Some(vec![0xc3, 0x28]), Some(b"\"last\"".to_vec()));
    kafka.write(&flow.topic, 0, Compression::Gzip, &[Row { key, value, headers, time: 1_700_000_000_123 }]);
    flow.to_dir();
    flow.is_stored_once();

    let stored = flow.stored();
    let metadata = |index: usize| {
        let mut metadata = stored[index]["metadata"].clone();
        assert!(metadata["timestamp"].as_i64().is_some_and(|time| time > 1_600_000_000_000), "{metadata}");
        metadata.as_object_mut().expect("it is one").remove("timestamp");
        metadata
    };
    let at = |offset: u64| json!({"topic": flow.topic, "partition": 0, "offset": offset});
    let with = |mut value: Value, members: Value| {
        value.as_object_mut().expect("it is one").extend(members.as_object().expect("it is one").clone());
        value
    };
    let twice = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]);
    assert_eq!(metadata(0), with(at(0), json!({"key": "key", "headers": twice})));
    assert_eq!(metadata(1), with(at(1), json!({"key": "gone", "tombstone": true})));
    assert_eq!(metadata(2), at(2));
    let headers = json!([{"key": "bin", "value_base64": "/wA="}, {"key": "none", "value": null}]);
    assert_eq!(metadata(3), with(at(3), json!({"key_base64": "wyg=", "headers": headers})));
    assert_eq!(stored[3]["metadata"]["timestamp"], 1_700_000_000_123_i64);
    assert_eq!(stored[1]["data"], Value::Null);
    assert_eq!(stored[3]["data"], "last");
    assert!(stored.iter().all(|envelope| envelope["source"] == "kafka"));
    let tree = flow.bench.objects("out");
    let written =
        tree.values().any(|bytes| String::from_utf8_lossy(bytes).contains("\"data\":{\"n\": 1.50}"));
    assert!(written, "a record's bytes stay as they are");
}

#[test]
fn a_run_ends_where_the_end_was_when_it_began() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "goes-on", 2);
    kafka.fill(&flow.topic, 2, 100);
    let before = kafka.ids(&flow.topic);
    let feeder = Feeder::start(kafka, &flow.topic, 2, Duration::from_millis(2));
    flow.to_dir();
    let stored = flow.stored_ids();
    assert!(feeder.stop() > 0);
    assert!(before.is_subset(&stored.iter().copied().collect()), "everything that was there is stored");
    flow.to_dir();
    flow.is_stored_once();
}

#[test]
fn an_empty_topic_is_done_at_once() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "empty", 3);
    flow.to_dir();
    assert_eq!(flow.stored(), Vec::<Value>::new());
}

/// Without a commit a group begins where it is told to; with one it goes on.
#[test]
fn a_group_begins_where_it_is_told() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "begin", 1);
    kafka.fill(&flow.topic, 1, 100);
    let from = |when: &str| {
        let other = Flow { kafka, topic: flow.topic.clone(), group: unique("begin"), bench: Bench::new() };
        other.until_end(&["-o", "out", "--from", when]).expect(0, &[]);
        let first = other.stored_ids()[0];
        // The group has a commit now, so this says nothing any more.
        other.until_end(&["-o", "out", "--from", "earliest"]).expect(0, &[]);
        assert_eq!(other.stored_ids().len() as u64, 100 - first.1);
        first
    };
    assert_eq!(from("earliest"), (0, 0));
    // The fiftieth record is from then.
    assert_eq!(from("2023-11-14T22:13:20.050Z"), (0, 50));
}

#[test]
fn latest_is_what_comes_after_the_first_start() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "latest", 1);
    kafka.fill(&flow.topic, 1, 100);
    let run = flow.start(&["-o", "out", "--from", "latest"]);
    // When it has begun is known only by what it reads.
    until("something new is stored", || {
        kafka.fill(&flow.topic, 1, 1);
        !flow.stored().is_empty()
    });
    let said = run.kill().stderr;
    let begin = said.split("reading from offset ").nth(1).and_then(|rest| rest.lines().next());
    let first: u64 = begin.and_then(|begin| begin.parse().ok()).expect("it says where it begins");
    assert!(first >= 100, "{first} was there before");
    kafka.fill(&flow.topic, 1, 10);
    flow.to_dir();
    let expected = kafka.ids(&flow.topic).into_iter().filter(|(_, offset)| *offset >= first).collect();
    same_ids(flow.stored_ids(), &expected, Times::AtLeastOnce);
}

#[test]
fn stdout_joins_no_group_and_begins_anew_each_time() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, bench) = (kafka.topic("stdout", 2), Bench::new());
    kafka.fill(&topic, 2, 50);
    let brokers = kafka.brokers();
    let args = ["-s", "kafka", "--brokers", &brokers, "-t", &topic, "--until", "end", "-q", "-o", "-"];
    for _ in 0..2 {
        let ran = run_with(&bench, &args, &[]).expect(0, &[]);
        assert_eq!(ran.stdout.lines().count(), 100);
    }
    run_with(&bench, &[&args[..], &["--dry-run"]].concat(), &[]).expect(0, &[]);
    run_with(&bench, &[&args[..], &["--check"]].concat(), &[]).expect(0, &[]);
    let groups = kafka.tool("ConsumerGroupCommand", &["--list"], "");
    assert!(!groups.contains(&topic), "a group was made: {groups}");
}

/// What the group has committed, as Kafka's own tool tells it.
#[test]
fn commits_are_those_of_a_consumer_group() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "commits", 2);
    kafka.fill(&flow.topic, 2, 70);
    flow.to_dir();
    let said = kafka.tool("ConsumerGroupCommand", &["--describe", "--group", &flow.group], "");
    let of_topic: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&&*flow.topic))
        .collect();
    assert_eq!(of_topic.len(), 2, "{said}");
    for words in of_topic {
        assert_eq!(words[3..6], ["70", "70", "0"], "offset, end and lag: {said}");
    }
}

#[test]
fn records_of_aborted_transactions_are_read_only_when_asked() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "aborted", 1);
    kafka.fill(&flow.topic, 1, 10);
    let mut producer = producer(kafka, Compression::Lz4, Some(&flow.group));
    producer.begin().expect("it begins");
    (0..5).for_each(|_| append(&mut producer, &flow.topic, "{}"));
    producer.flush().expect("it is sent");
    producer.abort().expect("it is aborted");
    producer.begin().expect("it begins");
    append(&mut producer, &flow.topic, "{}");
    producer.commit(&[], None).expect("it is committed");
    kafka.fill(&flow.topic, 1, 10);
    // Markers take an offset each: behind the aborted records, and behind the committed one.
    let committed: Vec<Id> = (0..10).chain(16..17).chain(18..28).map(|offset| (0, offset)).collect();
    let all: Vec<Id> = (0..15).chain(16..17).chain(18..28).map(|offset| (0, offset)).collect();
    flow.to_dir();
    assert_eq!(flow.stored_ids(), committed);
    let other = Flow { kafka, topic: flow.topic.clone(), group: unique("uncommitted"), bench: Bench::new() };
    let asked = settings(&["kafka.source.isolation=read_uncommitted"]);
    other.until_end(&[&["-o", "out"], &asked[..]].concat()).expect(0, &[]);
    assert_eq!(other.stored_ids(), all);
}

#[test]
fn broken_records_are_dead_letters() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "broken", 1);
    let bad = Row { value: Some(b"not json".to_vec()), ..Row::numbered(0) };
    kafka.write(&flow.topic, 0, Compression::None, &[Row::numbered(1), bad, Row::numbered(2)]);
    flow.until_end(&["-o", "out"]).expect(3, &[]);
    assert_eq!(flow.stored_ids(), [(0, 0), (0, 2)]);
    let objects = flow.bench.objects("out");
    let letters: Vec<Value> = objects
        .iter()
        .filter(|(name, _)| name.starts_with("failed/"))
        .flat_map(|(_, bytes)| serde_json::Deserializer::from_slice(bytes).into_iter().map(Result::unwrap))
        .collect();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["message_id"], format!("kafka:{}:0:1", flow.topic));
    assert_eq!(letters[0]["payload"], "not json");
    assert_eq!(letters[0]["metadata"]["key"], "key-0");
    assert_eq!(letters[0]["error"]["kind"], "invalid_json");
}

#[test]
fn small_batches_and_several_topics_work_too() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "first", 3);
    let second = kafka.topic("second", 2);
    kafka.fill(&flow.topic, 3, 200);
    kafka.fill(&second, 2, 100);
    let small =
        settings(&["kafka.source.fetch_max_bytes=64KiB", "kafka.source.fetch_partition_max_bytes=1KiB"]);
    let args = ["-o", "out", "-b", "7", "-w", "2", "-z", "gzip", "-t", &second];
    flow.until_end(&[&args[..], &small].concat()).expect(0, &[]);
    let of = |topic: &str| flow.stored().iter().filter(|value| value["metadata"]["topic"] == topic).count();
    assert_eq!((of(&flow.topic), of(&second)), (600, 200));
}

/// What a file becomes in Kafka and out of it again.
#[test]
fn a_file_goes_through_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "file", 3);
    flow.bench.write("in.ndjson", lines(0..500));
    let (brokers, output) = (kafka.brokers(), format!("kafka:{}", flow.topic));
    let args = ["in.ndjson", "--brokers", &brokers, "-o", &output];
    let bare = settings(&["output.envelope=none", "kafka.sink.key=/n"]);
    run_with(&flow.bench, &[&args[..], &bare].concat(), &[]).expect(0, &[]);
    flow.to_dir();
    let mut numbers: Vec<u64> =
        flow.stored().iter().map(|value| value["data"]["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..500).collect::<Vec<u64>>());
    assert!(
        flow.stored()
            .iter()
            .all(|value| value["metadata"]["key"].as_str() == Some(&*value["data"]["n"].to_string()))
    );
}

/// Whoever comes next does not have to wait until the session of one that has failed is over.
#[test]
fn a_run_that_fails_leaves_its_group() {
    let Some(kafka) = Kafka::shared() else { return };
    let (flow, small) = (Flow::new(kafka, "failing", 1), unique("small"));
    admin::create(kafka, &small, 1, &[("max.message.bytes", "500")]);
    // Nothing that can be compressed to less.
    let digits: String =
        (1..200u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let large = Row { value: Some(format!("\"{digits}\"").into_bytes()), ..Row::numbered(0) };
    kafka.write(&flow.topic, 0, Compression::None, &[large]);
    let left = format!("group {}: left\n", flow.group);
    let place = format!("kafka:{small}");
    flow.until_end(&["-o", &place])
        .expect(4, &["is larger than the topic takes", "input.max_record_bytes", &left]);
    flow.until_end(&[
        "-o",
        "out",
        "--set",
        "processing.on_reject=fail",
        "--set",
        "input.max_record_bytes=1000",
    ])
    .expect(1, &[&left]);
    flow.to_dir();
    assert_eq!(flow.stored().len(), 1);
}
