//! Boundaries against simple reference parsers, with every size of pieces.

use proptest::prelude::*;

use super::*;
use crate::config::Format;

/// What was found, with the text of each record.
type Seen = Vec<(u64, String, Option<Fault>, u64)>;

/// Scans `text` in pieces of `step` bytes, and takes what is done from the front of the buffer.
fn scan(text: &[u8], syntax: Syntax, step: usize) -> Seen {
    let mut scanner = Scanner::new(syntax, 1 << 20);
    let (mut buffer, mut start, mut seen) = (Vec::new(), 0u64, Vec::new());
    let mut pieces = text.chunks(step);
    loop {
        let tail = match pieces.next() {
            Some(piece) => {
                buffer.extend_from_slice(piece);
                Tail::Open
            }
            None => Tail::Last,
        };
        loop {
            let (span, fault) = match scanner.next(&buffer, tail) {
                Found::Record(span) => (span, None),
                Found::Fault(span, fault) => (span, Some(fault)),
                Found::Nothing => break,
            };
            let record = String::from_utf8_lossy(&buffer[span.begin..span.end]).into_owned();
            assert!(span.begin <= span.end && span.end <= span.stop && span.stop <= span.next);
            seen.push((start + span.begin as u64, record, fault, start + span.next as u64));
        }
        let done = scanner.begin();
        buffer.drain(..done);
        scanner.rebase(done);
        start += done as u64;
        if tail == Tail::Last {
            return seen;
        }
    }
}

/// The records, with `!` behind faults.
#[track_caller]
fn check(text: &str, syntax: Syntax, expected: &[&str]) {
    for step in 1..=text.len().max(1) {
        let seen: Vec<String> = scan(text.as_bytes(), syntax, step)
            .into_iter()
            .map(|(_, record, fault, _)| if fault.is_some() { record + "!" } else { record })
            .collect();
        assert_eq!(seen, expected, "pieces of {step}");
    }
}

#[test]
fn lines() {
    check("1\n\n  \r\n2\r\n{\"a\":\n3", Syntax::Lines, &["1", "2", "{\"a\":", "3"]);
    check("\u{feff}1\n\u{feff}2\n", Syntax::Lines, &["1", "\u{feff}2"]);
    check("\u{feff}", Syntax::Lines, &[]);
    check("", Syntax::Lines, &[]);
    check("1\r", Syntax::Lines, &["1"]);
}

#[test]
fn text_keeps_empty_lines() {
    check("a\n\n b\r\n", Syntax::Text, &["a", "", " b"]);
    check("a\r\nb\rc\r", Syntax::Text, &["a", "b\rc\r"]);
}

#[test]
fn arrays() {
    check(
        " [1, {\"a\":[1,\"],\\\"\"]} ,\n\"x\"\n] \n",
        Syntax::Array,
        &["1", "{\"a\":[1,\"],\\\"\"]}", "\"x\""],
    );
    check("[]", Syntax::Array, &[]);
    check("\u{feff}[ ]\n", Syntax::Array, &[]);
    check("[[1],[2]]", Syntax::Array, &["[1]", "[2]"]);
}

#[test]
fn a_broken_element_is_one_record_and_the_next_comma_goes_on() {
    check("[1 2,},3}}, tru ,{\"a\":1]x,4]", Syntax::Array, &["1 2", "}", "3}}", "tru", "{\"a\":1]x", "4"]);
    check("[1,,2,]", Syntax::Array, &["1", "", "2", ""]);
}

#[test]
fn behind_an_array_every_line_is_a_fault() {
    check("[1] x\n\n  [2]\ny", Syntax::Array, &["1", "x!", "[2]!", "y!"]);
}

#[test]
fn an_array_that_is_not_closed_is_a_fault() {
    check("[", Syntax::Array, &["!"]);
    check("[1,", Syntax::Array, &["1", ",!"]);
    check("[1,,", Syntax::Array, &["1", ",!"]);
    check("[, ,", Syntax::Array, &["", ",!"]);
    check("[ ,", Syntax::Array, &[",!"]);
    check("[1, ", Syntax::Array, &["1", "!"]);
    check("[1,2", Syntax::Array, &["1", "2!"]);
    check("[{\"a\":1},{\"a\":2}\n", Syntax::Array, &["{\"a\":1}", "{\"a\":2}!"]);
    check("[{\"a\":1},{\"a\":", Syntax::Array, &["{\"a\":1}", "{\"a\":!"]);
}

#[test]
fn values() {
    check(
        "{\"a\":\n 1}{\"b\":\"}\"}[1]\"x\"2 3\ntrue[4]",
        Syntax::Values,
        &["{\"a\":\n 1}", "{\"b\":\"}\"}", "[1]", "\"x\"", "2", "3", "true", "[4]"],
    );
    check("\u{feff} 1", Syntax::Values, &["1"]);
}

#[test]
fn garbage_between_values_ends_at_white_space_or_a_bracket() {
    check("{} },x{\"a\":1} y\n{}", Syntax::Values, &["{}", "},x", "{\"a\":1}", "y", "{}"]);
    check("{\"a\":1} {\"b\":", Syntax::Values, &["{\"a\":1}", "{\"b\":!"]);
}

#[test]
fn a_hundred_thousand_levels_are_one_record() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(scan(deep.as_bytes(), Syntax::Values, 4096)[0].1, deep);
    assert_eq!(scan(format!("[{deep},1]").as_bytes(), Syntax::Array, 4096).len(), 2);
}

#[test]
fn a_scan_goes_on_behind_a_comma_or_behind_the_array() {
    for (rest, before, records) in
        [("2,3]", b',', 2), (" ", b',', 1), ("", b',', 0), (" \n", b']', 0), ("x\n", b']', 1)]
    {
        let mut scanner = Scanner::new(Syntax::Array, 100);
        scanner.resume(before);
        let found = std::iter::from_fn(|| match scanner.next(rest.as_bytes(), Tail::Last) {
            Found::Nothing => None,
            other => Some(other),
        });
        assert_eq!(found.count(), records);
    }
}

#[test]
fn a_comma_at_the_end_is_the_same_fault_wherever_a_scan_began() {
    for (before, rest) in [(b'1', ","), (b']', ","), (b',', ",")] {
        let mut scanner = Scanner::new(Syntax::Array, 100);
        scanner.resume(before);
        assert!(matches!(scanner.next(rest.as_bytes(), Tail::Last), Found::Fault(_, Fault::Incomplete)));
        assert_eq!(scanner.next(rest.as_bytes(), Tail::Last), Found::Nothing);
    }
}

#[test]
fn formats_are_found_out() {
    let auto = |head: &str| detect(Format::Auto, head.as_bytes(), Tail::Open);
    assert_eq!(auto("\u{feff} \n[1"), Syntax::Array);
    assert_eq!(auto("{\"a\":1}\n"), Syntax::Lines);
    assert_eq!(auto("garbage\n{\"a\":1}\n"), Syntax::Lines);
    assert_eq!(auto("{\n  \"a\":1\n}\n"), Syntax::Values);
    assert_eq!(auto("{\n  1\n}\n"), Syntax::Values);
    // Among values over several lines one may stand on a line, and so may parts of them.
    for values in ["{\n  \"a\": 1\n}\nnull\n{}\n", "{\n\"a\": [\n2\n]\n}\n", "\n {\"a\":\n1}{}\n1\n"] {
        assert_eq!(auto(values), Syntax::Values, "{values:?}");
    }
    // The first line may be broken.
    for lines in ["{\"a\":\n{}\n", "{\n{}\n", "\"x\n\"y\"\n"] {
        assert_eq!(auto(lines), Syntax::Lines, "{lines:?}");
    }
    assert_eq!(auto("{\"a\":1}"), Syntax::Values);
    assert_eq!(detect(Format::Auto, b"{\"a\":1}", Tail::Last), Syntax::Lines);
    assert_eq!(auto(""), Syntax::Lines);
    assert_eq!(detect(Format::Ndjson, b"[1]\n", Tail::Open), Syntax::Lines);
    assert_eq!(detect(Format::Json, b"{}\n", Tail::Open), Syntax::Values);
    assert_eq!(detect(Format::Json, b" [", Tail::Open), Syntax::Array);
    assert_eq!(detect(Format::Text, b"[", Tail::Open), Syntax::Text);
}

/// Text that looks like JSON often enough to reach every state.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\n"),
        Just("\r\n"),
        Just(" "),
        Just("1"),
        Just("true"),
        Just("\"a\""),
        Just("{\"a\":[1,{}]}"),
        Just("\u{feff}"),
        Just("é"),
        Just("\"\\\"\""),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes())
}

/// A JSON value as text, with white space wherever it may stand.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("1".to_owned()),
        Just("-2.5e3".to_owned()),
        Just("null".to_owned()),
        "\"[a-z{}\\[\\], ]{0,6}(\\\\\"|\\\\\\\\)?\"".prop_map(String::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            proptest::collection::vec(inner, 0..4).prop_map(|items| {
                let members: Vec<String> = items.iter().map(|item| format!("\"k\" : {item}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn pieces_do_not_matter_and_no_byte_is_lost(text in soup(), array in any::<bool>()) {
        let text = if array { [b"[", &text[..]].concat() } else { text };
        let syntaxes: &[Syntax] =
            if array { &[Syntax::Array] } else { &[Syntax::Lines, Syntax::Text, Syntax::Values] };
        for syntax in syntaxes {
            let whole = scan(&text, *syntax, usize::MAX);
            for step in 1..=text.len() {
                prop_assert_eq!(&scan(&text, *syntax, step), &whole);
            }
            // Between records stand only white space, commas and brackets of the array, and a mark.
            let mut at = 0;
            // A place is that of one record.
            prop_assert!(whole.is_sorted_by(|one, other| one.0 < other.0 && one.3 <= other.0));
            for (begin, _, _, next) in &whole {
                let between = &text[at..*begin as usize];
                let between = between.strip_prefix(MARK).filter(|_| at == 0).unwrap_or(between);
                prop_assert!(between.iter().all(|byte| is_white(*byte) || (array && matches!(byte, b'[' | b']'))));
                at = *next as usize;
            }
        }
    }

    #[test]
    fn lines_are_those_that_split_finds(text in soup()) {
        let body = text.strip_prefix(MARK).unwrap_or(&text);
        let expected: Vec<String> = body
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.iter().all(|byte| is_white(*byte)))
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let seen: Vec<String> = scan(&text, Syntax::Lines, 3).into_iter().map(|(_, record, ..)| record).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn valid_values_are_those_that_were_joined(items in proptest::collection::vec(value(), 0..6)) {
        let array = format!(" [ {} ] ", items.join(" , "));
        let values = items.join("\n");
        for step in [1, 2, 5, 1000] {
            for (text, syntax) in [(&array, Syntax::Array), (&values, Syntax::Values)] {
                let seen: Vec<String> =
                    scan(text.as_bytes(), syntax, step).into_iter().map(|(_, record, ..)| record).collect();
                prop_assert_eq!(&seen, &items);
            }
        }
    }
}
