//! What Kafka itself wrote: see `testdata/kafka/batches/README.md`.

use super::rows::*;
use crate::kafka::wire::*;

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/kafka/batches/{name}.batches", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// The thirty records, as the Java program made them.
fn expected() -> Vec<Row> {
    let time = 1_700_000_000_000;
    let header = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
    let keyed = |row: Row, key: &str| Row { key: Some(key.into()), ..row };
    let mut rows = vec![
        Row {
            headers: vec![
                header("trace", Some("1")),
                header("trace", Some("2")),
                header("none", None),
                header("empty", Some("")),
            ],
            ..keyed(Row::new(0, time, r#"{"id":0}"#), "k0")
        },
        Row::new(1, time + 5, r#"{"id":1,"name":"Zoë"}"#),
        Row { value: None, ..keyed(Row::new(2, time - 7, ""), "k2") },
        keyed(Row::new(3, time + 9, ""), ""),
        keyed(
            Row::new(4, time + 10, &(0..5000).map(|i| format!("line {} ", i % 37)).collect::<String>()),
            "big",
        ),
    ];
    rows.extend((5..30).map(|i| keyed(Row::new(i, time + i, &format!(r#"{{"id":{i}}}"#)), &format!("k{i}"))));
    rows
}

#[test]
fn every_compression_of_javas_producer_is_read() {
    for compression in Compression::ALL {
        let bytes = file(compression.name());
        let batch = Batches::new(&bytes).next().unwrap().unwrap();
        assert_eq!((batch.compression(), batch.count(), batch.next_offset()), (compression, 30, 30));
        assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), expected(), "{compression:?}");
    }
}

#[test]
fn the_brokers_time_counts_where_the_topic_says_so() {
    let bytes = file("append");
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppend);
    let mut times = expected();
    times.iter_mut().for_each(|row| row.time = batch.max_timestamp());
    assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), times);
}

#[test]
fn our_batch_without_compression_is_javas_byte_for_byte() {
    let mut theirs = file("none");
    let batch = Batches::new(&theirs).next().unwrap().unwrap();
    let stamp = Stamp {
        producer_id: batch.producer_id(),
        epoch: batch.producer_epoch(),
        sequence: batch.base_sequence(),
        scope: Scope::Plain,
    };
    let mut writer = BatchWriter::new(Compression::None, None);
    let mut ours = write(&mut writer, &expected());
    writer::restamp(&mut ours, &stamp);
    // The leader epoch is the broker's.
    theirs[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    assert_eq!(ours, theirs);
}

/// The values that count, given the aborted transactions that a broker would list.
fn committed(bytes: &[u8], aborted: &[(i64, i64)]) -> Vec<String> {
    let mut unpacker = Unpacker::new(CAP);
    let mut aborted = Aborted::new(aborted.iter().copied());
    let mut values = Vec::new();
    for batch in Batches::new(bytes).map(Result::unwrap) {
        if aborted.verdict(&batch, &mut unpacker).unwrap() == Verdict::Read {
            let value = |record: Record<'_>| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.extend(unpacker.records(&batch).unwrap().map(|record| value(record.unwrap())));
        }
    }
    values
}

#[test]
fn aborted_transactions_of_javas_producer_do_not_count() {
    let bytes = file("txn");
    let values = committed(&bytes, &[(6, 4), (6, 13)]);
    let expected =
        ["commit 0 0", "commit 0 1", "commit 0 2", "commit 2 0", "commit 2 1", "commit 2 2", "commit 2 more"];
    assert_eq!(values, expected);
    assert_eq!(committed(&bytes, &[]).len(), 13);
    assert_eq!(Batches::new(&bytes).last().unwrap().unwrap().next_offset(), 17);
}

#[test]
fn what_the_log_cleaner_leaves_is_read_and_advanced_over() {
    let bytes = file("compact");
    let batches: Vec<_> = Batches::new(&bytes).map(Result::unwrap).collect();
    let spans: Vec<_> =
        batches.iter().map(|batch| (batch.base_offset(), batch.next_offset(), batch.count())).collect();
    assert_eq!(spans, [(0, 3, 0), (3, 6, 1), (8, 9, 1), (9, 11, 2), (11, 12, 1), (12, 13, 1), (13, 14, 1)]);
    let mut unpacker = Unpacker::new(CAP);
    let mut aborted = Aborted::new([(2, 6)]);
    let mut found = Vec::new();
    for batch in &batches {
        if aborted.verdict(batch, &mut unpacker).unwrap() == Verdict::Read {
            for record in unpacker.records(batch).unwrap().map(Result::unwrap) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((
                    record.offset,
                    record.timestamp,
                    text(record.key.unwrap()),
                    record.value.map(text),
                ));
            }
        }
    }
    let row =
        |offset, time, key: &str, value: Option<&str>| (offset, time, key.into(), value.map(Into::into));
    // Times as Kafka's own DumpLogSegments prints them, under the delete horizon too.
    let expected = [
        row(4, 1_795_462_641_353, "k4", Some("keep")),
        row(9, 1_795_462_642_098, "k2", Some("new")),
        row(10, 1_795_462_642_099, "k3", None),
        row(12, 1_795_462_642_228, "k1", Some("new")),
        row(13, 1_795_462_643_783, "k8", Some("roll")),
    ];
    assert_eq!(found, expected);
}
