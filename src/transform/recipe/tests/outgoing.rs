//! Records for topics: frames instead of lines.

use super::*;

/// What a recipe of records makes of a chunk.
fn records(options: RecipeOptions, key: Key, chunk: &Chunk) -> Out {
    let (recipe, mut out) = (Recipe::new(options).records(key), Out::default());
    for section in chunk.sections() {
        recipe.run(&section, &mut out);
    }
    out
}

fn frames(bytes: &[u8]) -> Vec<Outgoing<'_>> {
    crate::outgoing::read_bytes(bytes).collect()
}

#[test]
fn outgoing_records_keep_key_time_headers_and_tombstones() {
    let headers: &[Pair<'_>] = &[(b"h", None), (b"h", Some(b"\xff"))];
    let whole = Incoming { key: Some(b"\x00"), value: Some(b" {\"a\":\n1} "), time: Some(9), headers };
    let chunk = incoming(&[whole, Incoming { key: Some(b"d"), value: None, ..VALUE }, VALUE]);
    let out = records(options(), Key::Source, &chunk);
    let read = frames(&out.stored);
    let (time, headers) = (Some(9), Headers::of(headers));
    // Byte for byte, the white space too.
    let value = Some(&b" {\"a\":\n1} "[..]);
    assert_eq!(read[0], Outgoing { key: Some(b"\x00"), value, time, headers });
    let time = Some(5);
    assert_eq!(read[1], Outgoing { key: Some(b"d"), time, ..Outgoing::default() });
    assert_eq!(read[2], Outgoing { value: Some(b"1"), time, ..Outgoing::default() });
    assert_eq!((read.len(), out.counts.stored), (3, 3));

    let out = records(with_envelope(EnvelopeKind::Default), Key::Source, &chunk);
    let read = frames(&out.stored);
    let lines = run(with_envelope(EnvelopeKind::Default), &chunk);
    let values: Vec<&[u8]> = read.iter().filter_map(|record| record.value).collect();
    assert_eq!(values, text(&lines.stored).lines().map(str::as_bytes).collect::<Vec<_>>());
    assert_eq!((read[0].key, read[0].headers), (Some(&b"\x00"[..]), headers));
    assert_eq!((read[1].key, read[1].time), (Some(&b"d"[..]), Some(5)));
}

#[test]
fn text_and_bytes_without_envelope_are_outgoing_as_they_were() {
    for (payload, value) in [(Payload::Text, &b"a \"line\"\r"[..]), (Payload::Binary, b"\xff\n")] {
        let mut chunk = incoming(&[Incoming { value: Some(value), ..VALUE }]);
        chunk.set_payload(payload);
        let out = records(options(), Key::Source, &chunk);
        assert_eq!(frames(&out.stored)[0].value, Some(value));
    }
}

#[test]
fn outgoing_keys_may_be_fields_of_the_output() {
    let field = || Key::Field(Pointer::new("/id").unwrap());
    let given = |value: &'static [u8]| Incoming { key: Some(b"own"), value: Some(value), ..VALUE };
    let chunk = incoming(&[
        given(b"{\"id\":\"x\"}"),
        given(b"{\"id\":7}"),
        given(b"{\"id\":null}"),
        given(b"[]"),
        Incoming { value: None, ..given(b"") },
    ]);
    let out = records(with_envelope(EnvelopeKind::Default), field(), &chunk);
    let keys: Vec<Option<&[u8]>> = frames(&out.stored).iter().map(|record| record.key).collect();
    assert_eq!(keys, [Some(&b"x"[..]), Some(b"7"), None, None, Some(b"own")]);
    // Of what a transform made, each output its own; they share time and headers.
    let split = |_: &Record<'_>, out: &mut Outputs| -> Result<(), Rejection> {
        out.push(b"{\"id\":\"one\"}");
        out.push(b" {\"id\": \"two\"}\n");
        Ok(())
    };
    let out = records(transforming(vec![Arc::new(split)]), field(), &incoming(&[VALUE]));
    let read = frames(&out.stored);
    assert_eq!((read[0].key, read[1].key, read[1].time), (Some(&b"one"[..]), Some(&b"two"[..]), Some(5)));
    assert_eq!(read[1].value, Some(&b"{\"id\": \"two\"}"[..]));
    // A file's records have neither key nor time.
    let out = records(options(), field(), &ndjson(b"{\"id\":1}\n"));
    let expected = Outgoing { key: Some(b"1"), value: Some(b"{\"id\":1}"), ..Outgoing::default() };
    assert_eq!(frames(&out.stored), [expected]);
}

#[test]
fn dead_letters_may_be_records_with_what_went_wrong_in_headers() {
    let headers: &[Pair<'_>] =
        &[(b"trace", None), (b"pipeline.error.kind", Some(b"old")), (b"pipeline.failed_at", Some(b"old"))];
    let bad = Incoming { key: Some(b"\x01"), value: Some(b"{\"a\":\xff}"), time: Some(9), headers };
    let options = RecipeOptions { dead_letters: Letters::Records, ..options() };
    let chunk = incoming(&[VALUE, bad]);
    let out = run(options, &chunk);
    assert_eq!((text(&out.stored), out.counts.rejected), ("1\n", 1));
    let letters = frames(&out.failed);
    assert_eq!((letters.len(), letters[0].key, letters[0].time), (1, Some(&b"\x01"[..]), Some(9)));
    assert_eq!(letters[0].value, Some(&b"{\"a\":\xff}"[..]));
    let headers: Vec<(&str, Option<&str>)> =
        letters[0].headers.map(|(name, value)| (text(name), value.map(text))).collect();
    assert_eq!(
        headers,
        [
            ("trace", None),
            ("pipeline.message_id", Some("kafka:t:0:8")),
            ("pipeline.error.kind", Some("invalid_utf8")),
            ("pipeline.error.message", Some("invalid UTF-8 (0xff) at byte 5 of the record")),
            ("pipeline.failed_at", Some("1970-01-01T00:00:00Z")),
        ]
    );
    // Of a file it is the line, and where only the beginning was kept, the length.
    let options = RecipeOptions { dead_letters: Letters::Records, ..with_envelope(EnvelopeKind::None) };
    let mut chunk = ndjson(b"1\nx\n");
    let why = Rejection { length: Some(70), ..Rejection::new(RejectKind::TooLarge, "too large") };
    chunk.faults.push((1, why));
    let out = run(options, &chunk);
    let letters = frames(&out.failed);
    let headers: Vec<(&str, Option<&str>)> =
        letters[0].headers.map(|(name, value)| (text(name), value.map(text))).collect();
    assert!(headers.contains(&("pipeline.error.line", Some("2"))), "{headers:?}");
    assert!(headers.contains(&("pipeline.error.length", Some("70"))), "{headers:?}");
}

/// A dead-letter topic may be read like any other: text and bytes are valid at any length.
#[test]
fn a_dead_letter_that_is_only_a_beginning_is_none_of_the_records_of_a_topic() {
    let bytes = [b'1'; 4096];
    for (payload, kept, rejected) in [
        (Payload::Text, &bytes[..], 1),
        (Payload::Binary, &bytes[..7], 1),
        (Payload::Json, &bytes[..], 1),
        // It was mended.
        (Payload::Json, &bytes[..7], 0),
    ] {
        let headers: &[Pair<'_>] = &[(b"h", None), (b"pipeline.error.length", Some(b"5000"))];
        let mut chunk = incoming(&[Incoming { value: Some(kept), headers, ..VALUE }, VALUE]);
        chunk.set_payload(payload);
        let out = run(RecipeOptions { dead_letters: Letters::Records, ..options() }, &chunk);
        assert_eq!((out.counts.rejected, out.counts.stored), (rejected, 2 - rejected), "{payload:?}");
        for letter in frames(&out.failed) {
            assert_eq!((letter.value, letter.headers.len()), (Some(kept), 6));
            assert!(letter.headers.into_iter().any(|pair| pair == headers[1]));
        }
    }
}

/// Whoever reads the output as text or bytes would take it for a beginning.
#[test]
fn a_dead_letter_that_was_mended_is_stored_without_its_old_length() {
    let headers: &[Pair<'_>] =
        &[(b"h", None), (b"pipeline.error.length", Some(b"5000")), (b"pipeline.error.line", Some(b"3"))];
    let chunk = incoming(&[Incoming { value: Some(b"{}"), headers, ..VALUE }]);
    let out = records(options(), Key::Source, &chunk);
    let kept: Vec<Pair<'_>> = frames(&out.stored)[0].headers.collect();
    assert_eq!(kept, [headers[0], headers[2]]);
}
