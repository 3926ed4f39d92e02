//! Dead letters, and what becomes of those that are fed back.

use super::*;

#[test]
fn a_bad_record_is_a_dead_letter_and_the_others_are_stored() {
    let bytes = b"{\"a\":1}\n{\"b\":\n\n\"\xff\"\n1 x\n\"\t\"\n2\n";
    let out = run(options(), &ndjson(bytes));
    assert_eq!(text(&out.stored), "{\"a\":1}\n2\n");
    assert_eq!(
        text(&out.failed).lines().next(),
        Some(concat!(
            r#"{"message_id":"file:data1.json:8","source":"file","metadata":{"path":"data1.json","offset":8},"#,
            r#""error":{"kind":"invalid_json","message":"EOF while parsing a value at column 5 of the record","#,
            r#""line":2},"failed_at":"2026-11-23T12:00:00Z","payload":"{\"b\":"}"#
        ))
    );
    let letters = letters(&out);
    let kinds: Vec<&str> = letters.iter().filter_map(|letter| letter["error"]["kind"].as_str()).collect();
    assert_eq!(kinds, ["invalid_json", "invalid_json", "invalid_utf8", "invalid_json", "invalid_json"]);
    let lines: Vec<u64> = letters.iter().filter_map(|letter| letter["error"]["line"].as_u64()).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6]);
    assert_eq!(letters[2]["payload_base64"], "Iv8i");
    assert_eq!(out.rejects, [(RejectKind::InvalidJson, 4), (RejectKind::InvalidUtf8, 1)]);
    assert_eq!((out.counts.read, out.counts.stored, out.counts.rejected), (7, 2, 5));
    assert_eq!(out.samples.len(), 3);
    assert_eq!(
        out.samples[0],
        Sample {
            place: "data1.json line 2 (byte 8)".to_owned(),
            reason: "invalid_json: EOF while parsing a value at column 5 of the record".to_owned(),
        }
    );
}

#[test]
fn a_value_over_two_records_is_no_record() {
    let out = run(options(), &ndjson(b"[1,\n2]\n3\n"));
    assert_eq!((text(&out.stored), out.counts.rejected), ("3\n", 2));
    let out = run(options(), &pushed(&[b"1", b"2", "\"é\"".as_bytes(), b"\xc3", b"\xa9", b"4"]));
    assert_eq!((text(&out.stored), out.counts.rejected), ("1\n2\n\"é\"\n4\n", 2));
}

#[test]
fn dropped_records_are_counted_only() {
    let options = RecipeOptions { dead_letters: Letters::Drop, ..options() };
    let out = run(options, &ndjson(b"x\n1\n"));
    assert_eq!((text(&out.stored), text(&out.failed)), ("1\n", ""));
    assert_eq!((out.counts.rejected, out.samples.len()), (1, 1));
}

#[test]
fn what_the_reader_rejected_becomes_a_dead_letter() {
    let mut chunk = pushed(&[b"1", "\"aé".as_bytes()]);
    // Only the first half of the last character was kept.
    chunk.bytes.pop();
    chunk.entries[1].len -= 1;
    let why = Rejection { length: Some(9000), ..Rejection::new(RejectKind::TooLarge, "longer than 8 bytes") };
    chunk.reject_last(why);
    let _ = chunk.push(2, b"3");
    let out = run(options(), &chunk);
    assert_eq!(text(&out.stored), "1\n3\n");
    let letters = letters(&out);
    assert_eq!(letters[0]["payload"], "\"a");
    assert_eq!(letters[0]["error"]["length"], 9000);
    assert_eq!(letters[0]["error"]["kind"], "too_large");
}

#[test]
fn dead_letters_can_be_fed_back() {
    let first = run(options(), &ndjson(b"1\n{\"a\":\n\"\xff\"\n"));
    let mut fixed = text(&first.failed).replace("\"{\\\"a\\\":\"", "\" {\\\"a\\\":\\n1}\"");
    fixed.push_str("{\"no\":1}\n17\n");
    let replay = |envelope| RecipeOptions { replay: Replay::Yes, envelope, ..options() };
    let chunk = lines_of(&partition("file", "failed.ndjson"), fixed.as_bytes());
    let out = run(replay(EnvelopeKind::Default), &chunk);
    assert_eq!(
        text(&out.stored),
        concat!(
            r#"{"message_id":"file:data1.json:2","source":"file","processed_at":"2026-11-23T12:00:00Z","#,
            r#""processed_by":"host1","metadata":{"path":"data1.json","offset":2},"data":{"a": 1}}"#,
            "\n"
        )
    );
    let again = letters(&out);
    assert_eq!(again[0]["message_id"], "file:data1.json:8");
    assert_eq!(again[0]["payload_base64"], "Iv8i");
    assert_eq!(again[0]["error"]["line"], 3);
    assert_eq!(again[0]["metadata"]["path"], "data1.json");
    assert_eq!(again[1]["payload"], "{\"no\":1}");
    assert_eq!(again[2]["error"]["message"], "not a dead letter: it is no object");
    assert_eq!(again[2]["metadata"]["path"], "failed.ndjson");
    assert_eq!((out.counts.stored, out.counts.rejected), (1, 3));
    assert!(out.samples[0].place.starts_with("failed.ndjson line 2"));
    let out = run(replay(EnvelopeKind::CloudEvents), &chunk);
    assert!(text(&out.stored).contains(r#""id":"file:data1.json:2","source":"file:data1.json","#));
}

#[test]
fn a_letter_that_kept_only_a_beginning_is_not_fed_back() {
    // Where a character was cut in two a few bytes less are kept.
    for kept in [4096, 4093] {
        let mut chunk = pushed(&[&b"1".repeat(kept)]);
        chunk.reject_last(Rejection {
            length: Some(9999),
            ..Rejection::new(RejectKind::TooLarge, "too long")
        });
        let first = run(options(), &chunk);
        let replay = || RecipeOptions { replay: Replay::Yes, ..options() };
        let out = run(replay(), &ndjson(&first.failed));
        assert_eq!((out.counts.stored, out.rejects), (0, vec![(RejectKind::TooLarge, 1)]));
        assert_eq!(letters_of(&out.failed)["error"]["length"], 9999);
        // Whoever mended the payload need not know what the length is for.
        let mut mended = letters_of(&first.failed);
        mended["payload"] = "{\"mended\":true}".into();
        let out = run(replay(), &ndjson(mended.to_string().as_bytes()));
        assert_eq!((out.counts.stored, out.counts.rejected), (1, 0));
        // Nothing tells whether text is whole.
        let mut text = ndjson(mended.to_string().as_bytes());
        text.set_payload(Payload::Text);
        assert_eq!(run(replay(), &text).rejects, [(RejectKind::TooLarge, 1)]);
    }
}

fn letters_of(line: &[u8]) -> Value {
    serde_json::from_slice(line).expect("one letter")
}

/// Each would be quadratic if the stream were begun again at each record, or lines counted from the start.
#[test]
fn hostile_sections_are_linear() {
    for line in [&b"[\n"[..], b"\n", b"{\"a\":[\n", b"\"\n", b"\xff\n", b"1 \n2]\n"] {
        let bytes = line.repeat(100_000);
        let mut chunk = ndjson(&bytes);
        chunk.cuts.clear();
        let out = run(options(), &chunk);
        assert_eq!(out.counts.read as usize, chunk.len());
        assert!(out.counts.rejected >= 100_000);
        let last = text(&out.failed).lines().last().map(|line| letters_of(line.as_bytes()));
        assert_eq!(last.map(|letter| letter["error"]["line"].clone()), Some(chunk.len().into()));
        let lined = run(options(), &super::lines::lined(&bytes));
        // Blank ones are no records there.
        let expected = if line == b"\n" { (0, 0) } else { (out.counts.read, out.counts.rejected) };
        assert_eq!((lined.counts.read, lined.counts.rejected), expected);
    }
}
