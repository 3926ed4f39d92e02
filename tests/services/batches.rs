//! What Kafka's own producer wrote, fetched over our connection and read by `kafka::wire`.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use pipeline::kafka::wire::{Batches, Compression, Unpacker};
use pipeline::kafka::{Code, Connection};

use crate::admin;
use crate::kafka::Kafka;

/// One record as the console tools print it.
type Row = (Vec<(String, Option<String>)>, Option<String>, Option<String>);

/// The first megabyte of partition 0.
fn fetch(connection: &mut Connection, topic: &str) -> Vec<u8> {
    let id = admin::describe(connection, topic).topic_id;
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(-1);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.into())))
        .with_topic_id(id)
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_max_wait_ms(1000)
        .with_min_bytes(1)
        .with_isolation_level(1)
        .with_topics(vec![topic]);
    let answer = connection.call(&request).expect("the broker answers");
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(Code(partition.error_code).name(), "NONE");
    partition.records.as_ref().expect("there are records").to_vec()
}

fn rows(bytes: &[u8], expected: Compression) -> Vec<Row> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
    let mut unpacker = Unpacker::new(1 << 20);
    let mut rows = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.expect("the batch is whole");
        assert_eq!(batch.compression(), expected);
        for record in unpacker.records(&batch).expect("it can be unpacked") {
            let record = record.expect("the record is whole");
            assert_eq!(record.offset, rows.len() as i64);
            let header = |(name, value): (&[u8], Option<&[u8]>)| (text(name), value.map(text));
            let headers = record.headers.map(|pair| header(pair.expect("headers are whole"))).collect();
            rows.push((headers, record.key.map(text), record.value.map(text)));
        }
    }
    rows
}

#[track_caller]
fn check(compression: Compression) {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(compression.name(), 1);
    let long = "compress me ".repeat(400);
    let values: Vec<String> =
        (0..200).map(|number| format!("{{\"id\":{number},\"text\":\"{long}\"}}")).collect();
    let mut lines = String::from("trace:1,trace:2,empty:\tkey\tZoë\nNULL\tgone\tNULL\nNULL\tNULL\tno key\n");
    lines.extend(values.iter().map(|value| format!("NULL\tk\t{value}\n")));
    kafka.produce(&topic, compression.name(), &lines);

    let some = |text: &str| Some(text.to_string());
    let header = |name: &str, value: &str| (name.to_string(), some(value));
    let mut expected: Vec<Row> = vec![
        (vec![header("trace", "1"), header("trace", "2"), header("empty", "")], some("key"), some("Zoë")),
        (vec![], some("gone"), None),
        (vec![], None, some("no key")),
    ];
    expected.extend(values.into_iter().map(|value| (vec![], some("k"), Some(value))));
    let read = rows(&fetch(&mut kafka.plain(), &topic), compression);
    assert!(read.len() > 60, "a megabyte has more");
    assert_eq!(read[..], expected[..read.len()]);
    assert!(compression == Compression::None || read.len() == expected.len());
}

#[test]
fn uncompressed() {
    check(Compression::None);
}

#[test]
fn gzip() {
    check(Compression::Gzip);
}

#[test]
fn snappy() {
    check(Compression::Snappy);
}

#[test]
fn lz4() {
    check(Compression::Lz4);
}

#[test]
fn zstd() {
    check(Compression::Zstd);
}
