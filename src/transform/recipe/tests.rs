//! What a recipe makes of chunks as sources fill them.

mod letters;
mod lines;
mod outgoing;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::outgoing::{Headers, Outgoing, Pair};
use crate::record::{Chunk, Identity, Incoming, Partition};
use crate::transform::Sample;

/// 2026-11-23T12:00:00.999Z
const STARTED: i64 = 1_795_435_200_999;

fn partition(source: &'static str, name: &str) -> Partition {
    let metadata = format!("\"path\":{}", Value::from(name));
    Partition::new(Identity {
        source,
        name: name.to_owned(),
        metadata,
        position: "offset",
        opened_at: Some(STARTED),
        ..Identity::default()
    })
}

/// A chunk as the file source fills it: the file's bytes, an entry a line, without its line ending.
fn ndjson(bytes: &[u8]) -> Chunk {
    lines_of(&partition("file", "data1.json"), bytes)
}

fn lines_of(partition: &Partition, bytes: &[u8]) -> Chunk {
    let mut chunk = Chunk::default();
    chunk.start(partition, 0);
    chunk.line = 1;
    chunk.bytes.extend_from_slice(bytes);
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let len = line.strip_suffix(b"\n").unwrap_or(line).len();
        let _ = chunk.mark(Entry {
            position: at as u64,
            at: at as u32,
            len: len as u32,
            span: line.len() as u32,
            extra: 0,
        });
        at += line.len();
    }
    chunk
}

/// A chunk as other sources fill it: nothing between the records.
fn pushed(records: &[&[u8]]) -> Chunk {
    let mut chunk = Chunk::default();
    chunk.start(&partition("file", "data1.json"), 0);
    for (position, record) in records.iter().enumerate() {
        let _ = chunk.push(position as u64, record);
    }
    chunk
}

/// A record of Kafka that is nothing but a value and a time.
const VALUE: Incoming<'static, &[Pair<'static>]> =
    Incoming { key: None, value: Some(b"1"), time: Some(5), headers: &[] };

/// A chunk as the Kafka source fills it, from offset 7 of `t-0` on.
fn incoming(records: &[Incoming<'_, &[Pair<'_>]>]) -> Chunk {
    let mut chunk = Chunk::default();
    chunk.start(
        &Partition::new(Identity {
            source: "kafka",
            name: "t:0".into(),
            metadata: "\"topic\":\"t\",\"partition\":0".into(),
            position: "offset",
            ..Identity::default()
        }),
        7,
    );
    for (position, record) in (7..).zip(records) {
        let Incoming { key, value, time, headers } = *record;
        let _ =
            chunk.push_incoming(position, Incoming { key, value, time, headers: headers.iter().copied() });
    }
    chunk
}

fn options() -> RecipeOptions {
    RecipeOptions {
        envelope: EnvelopeKind::None,
        transforms: Vec::new(),
        processed_by: "host1".to_owned(),
        dead_letters: Letters::Keep,
        replay: Replay::No,
        output_cap: 1 << 20,
    }
}

fn transforming(transforms: Vec<Arc<dyn Transform>>) -> RecipeOptions {
    RecipeOptions { transforms, ..options() }
}

fn run(options: RecipeOptions, chunk: &Chunk) -> Out {
    let (recipe, mut out) = (Recipe::new(options), Out::default());
    for section in chunk.sections() {
        recipe.run(&section, &mut out);
    }
    out
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

fn letters(out: &Out) -> Vec<Value> {
    text(&out.failed).lines().map(|line| serde_json::from_str(line).expect("a letter is JSON")).collect()
}

#[track_caller]
fn check(options: RecipeOptions, chunk: &Chunk, stored: &str) {
    let out = run(options, chunk);
    assert_eq!(text(&out.stored), stored);
    assert_eq!(out.counts.stored as usize, stored.lines().count());
    assert_eq!(text(&out.failed), "");
    assert_eq!(out.counts.rejected, 0);
}

fn with_envelope(envelope: EnvelopeKind) -> RecipeOptions {
    RecipeOptions { envelope, ..options() }
}

#[test]
fn the_default_envelope() {
    check(
        with_envelope(EnvelopeKind::Default),
        &ndjson(b"{\"a\": 1.0 }\r\n[\"\\ud800\"]\n"),
        concat!(
            r#"{"message_id":"file:data1.json:0","source":"file","processed_at":"2026-11-23T12:00:00Z","#,
            r#""processed_by":"host1","metadata":{"path":"data1.json","offset":0},"data":{"a": 1.0 }}"#,
            "\n",
            r#"{"message_id":"file:data1.json:13","source":"file","processed_at":"2026-11-23T12:00:00Z","#,
            r#""processed_by":"host1","metadata":{"path":"data1.json","offset":13},"data":["\ud800"]}"#,
            "\n",
        ),
    );
}

#[test]
fn the_cloudevents_envelope() {
    let chunk = lines_of(&partition("my_source", "a b/\"ü\".json"), b"1\n");
    check(
        with_envelope(EnvelopeKind::CloudEvents),
        &chunk,
        concat!(
            r#"{"specversion":"1.0","id":"my_source:a b/\"ü\".json:0","#,
            r#""source":"my-source:a%20b/%22%C3%BC%22.json","type":"pipeline.record","#,
            r#""time":"2026-11-23T12:00:00Z","datacontenttype":"application/json","data":1}"#,
            "\n",
        ),
    );
    let chunk = incoming(&[
        Incoming { key: Some(b"k\""), time: Some(-1), ..VALUE },
        Incoming { key: Some(b"\xff"), value: None, ..VALUE },
    ]);
    let out = run(with_envelope(EnvelopeKind::CloudEvents), &chunk);
    let expected = concat!(
        r#"{"specversion":"1.0","id":"kafka:t:0:7","source":"kafka:t:0","type":"pipeline.record","#,
        r#""time":"1969-12-31T23:59:59.999Z","partitionkey":"k\"","datacontenttype":"application/json","data":1}"#,
        "\n",
        r#"{"specversion":"1.0","id":"kafka:t:0:8","source":"kafka:t:0","type":"pipeline.record","#,
        r#""time":"1970-01-01T00:00:00.005Z","partitionkeybase64":"/w==","tombstone":true,"#,
        r#""datacontenttype":"application/json","data":null}"#,
        "\n",
    );
    assert_eq!(text(&out.stored), expected);
}

#[test]
fn no_envelope_leaves_records_as_they_stood_in_one_line_each() {
    check(
        options(),
        &pushed(&[b" {\"a\"\r\n:\n1}\n", b"2", b"3", b"\"x\\n\"", b"\n\n[1,\r2]", b"4"]),
        "{\"a\"  : 1}\n2\n3\n\"x\\n\"\n[1, 2]\n4\n",
    );
}

#[test]
fn names_are_escaped() {
    let chunk = lines_of(&partition("file", "a\"\n\\.json"), b"1\n");
    let out = run(with_envelope(EnvelopeKind::Default), &chunk);
    let value: Value = serde_json::from_slice(&out.stored).expect("valid");
    assert_eq!(value["message_id"], "file:a\"\n\\.json:0");
    assert_eq!(value["metadata"]["path"], "a\"\n\\.json");
}

#[test]
fn positions_may_have_any_number_of_digits() {
    let mut chunk = Chunk::default();
    chunk.start(&partition("file", "f"), 0);
    let positions = [0, 9, 10, 99, 7, 123_456, u64::MAX - 1, 3];
    for position in positions {
        let _ = chunk.mark(Entry { position, at: 0, len: 0, span: 1, extra: 0 });
    }
    chunk.entries.iter_mut().enumerate().for_each(|(index, entry)| (entry.at, entry.len) = (index as u32, 1));
    chunk.bytes.extend_from_slice(b"12345678");
    let out = run(with_envelope(EnvelopeKind::Default), &chunk);
    // "1" to "8" stand without anything between them, so the stream reads one number: the entries decide.
    for (index, line) in text(&out.stored).lines().enumerate() {
        let value: Value = serde_json::from_str(line).expect("valid");
        assert_eq!(value["message_id"], format!("file:f:{}", positions[index]));
        assert_eq!(value["metadata"]["offset"], positions[index]);
        assert_eq!(value["data"], index + 1);
    }
    assert_eq!(out.counts.stored, 8);
}

#[test]
fn keys_times_and_headers_stand_in_the_metadata() {
    let headers: &[Pair<'_>] = &[(b"h", Some(b"k\"")), (b"h", None), (b"h", Some(b"\xff"))];
    let bare = Incoming { time: None, ..VALUE };
    let full = Incoming { time: Some(5), key: Some(b"k\""), headers, ..VALUE };
    let chunk = incoming(&[bare, full, Incoming { key: Some(b"\xff"), time: None, ..VALUE }]);
    let out = run(with_envelope(EnvelopeKind::Default), &chunk);
    let metadata = concat!(
        r#""metadata":{"topic":"t","partition":0,"offset":8,"timestamp":5,"key":"k\"","#,
        r#""headers":[{"key":"h","value":"k\""},{"key":"h","value":null},{"key":"h","value_base64":"/w=="}]}"#,
    );
    let lines: Vec<&str> = text(&out.stored).lines().collect();
    assert!(lines[0].contains(r#""metadata":{"topic":"t","partition":0,"offset":7},"data":1}"#));
    assert!(lines[1].contains(metadata), "{}", lines[1]);
    assert!(lines[1].starts_with(r#"{"message_id":"kafka:t:0:8""#));
    assert!(lines[2].contains(r#""offset":9,"key_base64":"/w=="},"data":1}"#), "{}", lines[2]);
}

#[test]
fn a_record_of_kafka_in_its_envelope() {
    let headers: &[Pair<'_>] = &[(b"trace", Some(b"\x00\xff"))];
    let value = Some(&b"{\"a\":\n1}"[..]);
    let record = Incoming { key: Some(b"user-1"), value, time: Some(1_795_435_200_999), headers };
    let tombstone = Incoming { key: Some(b"user-2"), value: None, time: Some(2), ..VALUE };
    check(
        with_envelope(EnvelopeKind::Default),
        &incoming(&[record, tombstone]),
        &[
            r#"{"message_id":"kafka:t:0:7","source":"kafka","processed_at":"1970-01-01T00:00:00Z","#,
            r#""processed_by":"host1","metadata":{"topic":"t","partition":0,"offset":7,"#,
            r#""timestamp":1795435200999,"key":"user-1","headers":[{"key":"trace","value_base64":"AP8="}]},"#,
            "\"data\":{\"a\": 1}}\n",
            r#"{"message_id":"kafka:t:0:8","source":"kafka","processed_at":"1970-01-01T00:00:00Z","#,
            r#""processed_by":"host1","metadata":{"topic":"t","partition":0,"offset":8,"#,
            r#""timestamp":2,"key":"user-2","tombstone":true},"data":null}"#,
            "\n",
        ]
        .concat(),
    );
    check(options(), &incoming(&[record, tombstone]), "{\"a\": 1}\nnull\n");
}

#[test]
fn bytes_become_base64() {
    let binary = |value: &'static [u8]| {
        let mut chunk = incoming(&[Incoming { value: Some(value), ..VALUE }]);
        chunk.set_payload(Payload::Binary);
        chunk
    };
    let out = run(with_envelope(EnvelopeKind::Default), &binary(b"\xff\x00"));
    assert!(
        text(&out.stored).ends_with("\"timestamp\":5},\"data_base64\":\"/wA=\"}\n"),
        "{}",
        text(&out.stored)
    );
    let out = run(with_envelope(EnvelopeKind::CloudEvents), &binary(b""));
    assert!(
        text(&out.stored)
            .ends_with("\"datacontenttype\":\"application/octet-stream\",\"data_base64\":\"\"}\n"),
        "{}",
        text(&out.stored)
    );
    check(options(), &binary(b"abc"), "\"YWJj\"\n");
    // A transform sees the JSON string, and what it makes is JSON.
    let twice = |record: &Record<'_>, out: &mut Outputs| -> Result<(), Rejection> {
        out.push(record.bytes);
        out.push(b"1");
        Ok(())
    };
    let options = RecipeOptions { envelope: EnvelopeKind::Default, ..transforming(vec![Arc::new(twice)]) };
    let out = run(options, &binary(b"abc"));
    let lines: Vec<Value> = text(&out.stored).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&lines[0]["data"], &lines[1]["data"]), (&"YWJj".into(), &1.into()));
    assert_eq!(lines[1]["message_id"], "kafka:t:0:7#1");
}

#[test]
fn a_tombstone_passes_transforms_by() {
    let none = |_: &Record<'_>, _: &mut Outputs| -> Result<(), Rejection> { Ok(()) };
    let out = run(
        transforming(vec![Arc::new(none)]),
        &incoming(&[Incoming { value: None, ..VALUE }, VALUE, Incoming { value: Some(b""), ..VALUE }]),
    );
    assert_eq!((text(&out.stored), out.counts.stored), ("null\n", 1));
    // An empty value is a value, and no JSON.
    assert_eq!(out.counts.rejected, 1);
}

#[test]
fn a_partition_that_tells_nothing_has_valid_metadata() {
    let mut chunk = Chunk::default();
    chunk.start(&Partition::new(Identity { source: "own", name: "n".to_owned(), ..Identity::default() }), 0);
    let _ = chunk.push(0, b"1");
    let _ = chunk.push_incoming(1, Incoming { key: None, value: Some(b"1"), time: Some(5), headers: [] });
    let out = run(with_envelope(EnvelopeKind::Default), &chunk);
    assert!(text(&out.stored).contains(r#""metadata":{},"data":1"#));
    let out = run(with_envelope(EnvelopeKind::Default), &chunk);
    assert!(text(&out.stored).contains(r#""metadata":{"timestamp":5},"data":1"#));
}

#[test]
fn parts_are_made_again_for_another_partition_time_or_recipe() {
    let mut out = Out::default();
    let recipes = ["host1", "host2"].map(|name| {
        Recipe::new(RecipeOptions { processed_by: name.to_owned(), ..with_envelope(EnvelopeKind::Default) })
    });
    for (name, recipe) in [("a", 0), ("b", 0), ("a", 1), ("a", 1)] {
        let chunk = lines_of(&partition("file", name), b"1\n");
        let before = out.stored.len();
        chunk.sections().for_each(|section| recipes[recipe].run(&section, &mut out));
        let value: Value = serde_json::from_slice(&out.stored[before..]).expect("valid");
        assert_eq!(value["message_id"], format!("file:{name}:0"));
        assert_eq!(value["processed_by"], format!("host{}", recipe + 1));
    }
}

#[test]
fn deep_and_odd_values_pass_unchanged() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let all = [deep.as_str(), r#""\ud800""#, "1e999", r#"{"a":1,"a":2}"#, r#""\u0000\/""#].join("\n") + "\n";
    check(options(), &ndjson(all.as_bytes()), &all);
}

#[test]
fn text_becomes_a_json_string() {
    let mut chunk = ndjson("a \"b\"\t\u{1}\u{2028}é\n\nx\n".as_bytes());
    chunk.set_payload(Payload::Text);
    check(options(), &chunk, "\"a \\\"b\\\"\\t\\u0001\u{2028}é\"\n\"\"\n\"x\"\n");
    let twice = |record: &Record<'_>, out: &mut Outputs| {
        assert_eq!(record.payload, Payload::Json);
        out.push(record.bytes);
        out.push(record.bytes);
        Ok(())
    };
    chunk = ndjson(b"x\n\xff\n");
    chunk.set_payload(Payload::Text);
    let out = run(transforming(vec![Arc::new(twice)]), &chunk);
    assert_eq!(text(&out.stored), "\"x\"\n\"x\"\n");
    assert_eq!(out.rejects, [(RejectKind::InvalidUtf8, 1)]);
}

#[test]
fn transforms_are_a_chain() {
    let split = |record: &Record<'_>, out: &mut Outputs| {
        for value in serde_json::from_slice::<Vec<&RawValue>>(record.bytes).expect("an array") {
            out.push(value.get().as_bytes());
        }
        Ok(())
    };
    let odd = |record: &Record<'_>, out: &mut Outputs| {
        let number: u64 = serde_json::from_slice(record.bytes).expect("a number");
        if number == 13 {
            return Err(Rejection::new(RejectKind::Transform, "unlucky"));
        }
        if number % 2 == 1 {
            out.push_value(&(number * 10)).expect("a number serialises");
        }
        Ok(())
    };
    let chunk = ndjson(b" [1,2, 3]\n[2]\n[5]\n[7,13]\n");
    let options = RecipeOptions {
        envelope: EnvelopeKind::Default,
        ..transforming(vec![Arc::new(split), Arc::new(odd)])
    };
    let out = run(options, &chunk);
    let ids: Vec<String> = text(&out.stored)
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).expect("valid");
            format!("{} {}", value["message_id"].as_str().expect("text"), value["data"])
        })
        .collect();
    assert_eq!(ids, ["file:data1.json:0#0 10", "file:data1.json:0#1 30", "file:data1.json:14 50"]);
    assert_eq!((out.counts.stored, out.counts.rejected), (3, 1));
    assert_eq!(letters(&out)[0]["payload"], "[7,13]");
    assert_eq!(letters(&out)[0]["error"]["message"], "unlucky");
}

#[test]
fn outputs_are_validated_and_put_in_one_line() {
    let wrong = |record: &Record<'_>, out: &mut Outputs| {
        out.push(b"\n{\"ok\":\n1}\r\n");
        if record.bytes == b"2" {
            out.push(b"{} {}");
        }
        Ok(())
    };
    let out = run(transforming(vec![Arc::new(wrong)]), &ndjson(b"1\n2\n"));
    assert_eq!(text(&out.stored), "{\"ok\": 1}\n");
    assert_eq!(out.rejects, [(RejectKind::Output, 1)]);
    let letters = letters(&out);
    let message = letters[0]["error"]["message"].as_str().expect("text");
    assert_eq!(message, "an output is not one JSON value: trailing characters at column 4 of the record");
}

/// The second of two saw what it had made of the records before, and where it threw that away nobody validated what it
/// pushed instead.
#[test]
fn a_transform_sees_and_drops_only_what_it_made_of_its_record() {
    let three = |_: &Record<'_>, out: &mut Outputs| {
        [&b"1"[..], b"22", b"333"].iter().for_each(|it| out.push(it));
        assert_eq!((out.len(), out.size()), (3, 6));
        Ok(())
    };
    let instead = |with: &'static [u8]| {
        move |record: &Record<'_>, out: &mut Outputs| {
            assert!(out.is_empty() && out.size() == 0 && out.iter().next().is_none());
            out.push(record.bytes);
            if record.bytes == b"333" {
                out.clear();
                out.push(with);
                assert_eq!(out.iter().collect::<Vec<_>>(), [with]);
            }
            Ok(())
        }
    };
    let good = run(transforming(vec![Arc::new(three), Arc::new(instead(b"4"))]), &ndjson(b"0\n"));
    assert_eq!((text(&good.stored), good.counts.stored), ("1\n22\n4\n", 3));
    let bad = run(transforming(vec![Arc::new(three), Arc::new(instead(b"{not JSON"))]), &ndjson(b"0\n"));
    assert_eq!((text(&bad.stored), bad.rejects.as_slice()), ("", &[(RejectKind::Output, 1)][..]));
}

#[test]
fn outputs_are_capped_for_a_record_and_for_a_section() {
    let flood = |record: &Record<'_>, out: &mut Outputs| {
        for _ in 0..100_000 {
            out.push(record.bytes);
        }
        Ok(())
    };
    let one = |cap: usize, chunk: &Chunk| {
        run(
            RecipeOptions {
                output_cap: cap,
                envelope: EnvelopeKind::Default,
                ..transforming(vec![Arc::new(flood)])
            },
            chunk,
        )
    };
    let out = one(1000, &ndjson(b"1\n"));
    assert_eq!((out.rejects.as_slice(), out.stored.len()), (&[(RejectKind::Output, 1)][..], 0));
    // Each record's outputs are small enough, their envelopes are not.
    let out = one(1 << 20, &ndjson(&b"1\n".repeat(5)));
    assert!(out.stored.len() <= SECTION_CAP && out.stored.ends_with(b"}\n"));
    assert_eq!((out.counts.stored, out.counts.rejected), (300_000, 2));
    let large = |_: &Record<'_>, out: &mut Outputs| out.push_value(&"x".repeat(2000));
    let options = RecipeOptions { output_cap: 1000, ..transforming(vec![Arc::new(large)]) };
    assert_eq!(run(options, &ndjson(b"1\n")).rejects, [(RejectKind::Output, 1)]);
}

#[test]
fn buffers_are_kept_from_section_to_section() {
    let chunk = ndjson(&b"{\"a\":[[1],[2]]}\n".repeat(1000));
    let recipe = Recipe::new(with_envelope(EnvelopeKind::Default));
    let mut out = Out::default();
    let mut capacities = Vec::new();
    for _ in 0..3 {
        out.stored.clear();
        chunk.sections().for_each(|section| recipe.run(&section, &mut out));
        capacities.push((out.stored.capacity(), out.stored.as_ptr()));
    }
    assert!(capacities.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(out.failed.capacity(), 0);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn data_is_the_original_value(
        values in prop::collection::vec((json(), any::<bool>(), prop::option::of("[ -~\r\n]{0,9}")), 1..12),
        separated in any::<bool>(),
    ) {
        let records: Vec<Vec<u8>> = values
            .iter()
            .map(|(value, pretty, garbage)| match (garbage, pretty) {
                (Some(garbage), _) => garbage.clone().into_bytes(),
                (None, true) => serde_json::to_vec_pretty(value).expect("serialises"),
                (None, false) => serde_json::to_vec(value).expect("serialises"),
            })
            .collect();
        let chunk = if separated {
            let mut all = Vec::new();
            for record in &records {
                all.extend(record.iter().filter(|byte| **byte != b'\n'));
                all.push(b'\n');
            }
            ndjson(&all)
        } else {
            pushed(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        let out = run(with_envelope(EnvelopeKind::Default), &chunk);
        let mut stored = text(&out.stored).lines();
        let section = chunk.sections().next().expect("one section");
        let mut rejected = 0;
        for entry in chunk.entries.iter() {
            match serde_json::from_slice::<Value>(section.record(entry).bytes) {
                Ok(original) => {
                    let line: Value = serde_json::from_str(stored.next().expect("a line")).expect("valid");
                    prop_assert_eq!(&line["data"], &original);
                    prop_assert_eq!(line["metadata"]["offset"].as_u64(), Some(entry.position));
                }
                Err(_) => rejected += 1,
            }
        }
        prop_assert!(stored.next().is_none());
        prop_assert_eq!(out.counts.rejected, rejected);
        prop_assert_eq!(letters(&out).len() as u64, rejected);
    }

    #[test]
    fn any_bytes_give_valid_lines(bytes in prop::collection::vec(any::<u8>(), 0..200), text_lines in any::<bool>()) {
        let mut chunk = ndjson(&bytes);
        if text_lines {
            chunk.set_payload(Payload::Text);
        }
        let out = run(with_envelope(EnvelopeKind::Default), &chunk);
        for line in text(&out.stored).lines().chain(text(&out.failed).lines()) {
            prop_assert!(serde_json::from_str::<&RawValue>(line).is_ok());
        }
        prop_assert_eq!(out.counts.stored + out.counts.rejected, out.counts.read);
    }
}
