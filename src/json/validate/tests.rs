//! What the validator says is what serde_json says.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// What serde_json says: the value without the white space around it.
fn oracle(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

#[track_caller]
fn check(text: &str) {
    let expected = oracle(text);
    // With every ending: what stands behind the record must not decide.
    for behind in
        ["", "\n", "7", "\"", ",\"a\":1}", ".5e7]          ", "}                ", "0123456789abcdef"]
    {
        let all = format!("{text}{behind}");
        let mut validator = Validator::default();
        // The second time it knows the labels.
        for _ in 0..2 {
            if let Some((len, _)) = validator.line(format!("{all}\n").as_bytes()) {
                assert_eq!(oracle(&all[..len]), Some(&all[..len]), "{all:?}");
                assert!(!all[..len].contains(['\r', '\n']), "{all:?}");
                assert!(matches!(&all[len..], "" | "\r") || all[len..].starts_with(['\r', '\n']), "{all:?}");
            }
            let found = validator.value(all.as_bytes(), text.len());
            let value = found.clone().map(|value| &text[value.range]);
            // A number's end is its record's end only if that is seen.
            if value.is_some() || !behind.starts_with(|byte: char| byte.is_ascii_digit() || byte == '.') {
                assert_eq!(value, expected, "{text:?} before {behind:?}");
            }
            let breaks = value.is_some_and(|value| value.contains(['\r', '\n']));
            assert_eq!(found.is_some_and(|value| value.breaks), breaks, "{text:?}");
        }
    }
}

/// What is small and nearly JSON, or odd and is.
const SMALL: [&str; 62] = [
    "",
    " ",
    "1",
    "-",
    "-0",
    "01",
    "-01",
    "0.5",
    "1.",
    ".5",
    "1e5",
    "1E+5",
    "1e-",
    "1e",
    "1e999",
    "1 2",
    "+1",
    "true",
    "tru",
    "truex",
    "nullnull",
    "false ",
    "nul",
    "\"",
    "\"\"",
    "\"a",
    "\"\\\"",
    "\"\\\"\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\u00G0\"",
    "\"\\x\"",
    "\"\t\"",
    "\"\u{1f}\"",
    "\"\u{7f}\u{80}é漢\"",
    "[",
    "]",
    "[]",
    "[ ]",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1,2]",
    "{}",
    "{ }",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1,\"a\":[{}]}",
    "{1:2}",
    "[}",
    "{]",
    "[[]",
    "[]]",
    "{\"a\":[1,{\"b\":null}]} x",
    "\u{feff}1",
    "\"01234567\"",
    "\"0123456789abcdef\\n0123456\u{1}\"",
    "[\"1234567\",\"12345678\"]",
    "\u{b}1",
    "1\u{a0}",
];

#[test]
fn it_says_what_serde_json_says() {
    for text in SMALL {
        check(text);
        check(&format!(" \t{text}\r\n"));
        check(&format!("[{text}]"));
        check(&format!("{{\"k\":{text},\"l\":{text}}}"));
    }
}

#[test]
fn levels_of_arrays_and_objects_are_told_apart_at_any_depth() {
    for depth in [1usize, 63, 64, 65, 127, 128, 129, 1000, 100_000] {
        // Bit patterns that differ from level to level.
        let object = |level: usize| level.wrapping_mul(0x9E37_79B9) >> 7 & 1 == 1;
        let open: String = (0..depth).map(|level| if object(level) { "{\"k\":" } else { "[" }).collect();
        let close = |level: usize| if object(level) { '}' } else { ']' };
        let text: String = open.clone() + "1" + &(0..depth).rev().map(close).collect::<String>();
        let found = Validator::default().value(text.as_bytes(), text.len());
        assert_eq!(found.map(|value| value.range), Some(0..text.len()), "depth {depth}");
        let wrong: String =
            open + "1"
                + &(0..depth)
                    .rev()
                    .map(|level| {
                        if level == depth / 2 { if object(level) { ']' } else { '}' } } else { close(level) }
                    })
                    .collect::<String>();
        assert_eq!(Validator::default().value(wrong.as_bytes(), wrong.len()), None, "depth {depth}");
    }
}

/// What one validator says of these, one after the other: what it remembers must not make it say yes.
#[track_caller]
fn check_in_turn(texts: &[&str]) {
    let mut validator = Validator::default();
    for text in texts {
        let found = validator.value(format!("{text}\n0123456789abcdef").as_bytes(), text.len());
        assert_eq!(found.map(|value| &text[value.range]), oracle(text), "{text:?} among {texts:?}");
    }
}

#[test]
fn what_was_valid_elsewhere_is_not_valid_everywhere() {
    let (member, object) = ("{\"a\":1,\"x\":2}", "{\"a\":{\"x\":2}}");
    check_in_turn(&[object, "{\"a\":1{\"x\":2}", "{\"a\":1{\"x\":2}}", member]);
    check_in_turn(&[member, "{\"a\":,\"x\":2}", "[1,\"x\":2]", "{\"a\":[1,\"x\":2]}", "1,\"x\":2", object]);
    check_in_turn(&[member, ",\"x\":2}", "{,\"x\":2}", "{\"a\":1,\"x\":}", "{\"a\":1,\"x\":2,}", member]);
    check_in_turn(&["{\"a\" : 1 , \"x\" : 2}", "{\"a\" : 1 , \"x\" : 2}", "{\"a\" : , \"x\" : 2}"]);
}

/// Labels and values of few kinds in turn, so that labels stand where others have learnt them, and where they may
/// not stand.
fn turns() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["{\"a\":", ",\"a\":", "{\"b\":", ",\"b\":", ", \"b\": ", ",", "["]);
    let value = prop::sample::select(vec!["1", "-2.5e3", "\"s\"", "", "", "1}", "{}", "1]"]);
    let turns = proptest::collection::vec((label, value), 1..5);
    (turns, 0..3usize).prop_map(|(turns, closed)| {
        let text: String = turns.iter().flat_map(|(label, value)| [*label, *value]).collect();
        format!("{{\"a\":{text}{}", &"}}}"[..closed])
    })
}

fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| serde_json::json!(number)),
        "\\PC{0,20}".prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::vec(("\\PC{0,9}", inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn valid_values_pass_plain_and_pretty(value in values()) {
        check(&value.to_string());
        check(&serde_json::to_string_pretty(&value).unwrap());
    }

    /// A few bytes changed, cut out or put in: yes and no are serde_json's.
    #[test]
    fn damaged_values_get_the_same_answer(
        value in values(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<prop::sample::Index>()), 1..4),
    ) {
        const BYTES: &[u8] = b"\"\\{}[]:,0123456789.eE+-truefalsn \t\n\r\x00\x1f\x20\x7fu/bx\x80\xbf\xc3\xff";
        let mut bytes = value.to_string().into_bytes();
        for (at, how, with) in damage {
            let at = at.index(bytes.len() + 1);
            let with = BYTES[with.index(BYTES.len())];
            match how {
                0 if at < bytes.len() => bytes[at] = with,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, with),
            }
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => check(text),
            Err(_) => {
                let mut validator = Validator::default();
                for _ in 0..2 {
                    prop_assert!(validator.value(&bytes, bytes.len()).is_none() || !validator.is_ascii());
                    let line = [&bytes, &b"\n{\"a\":1}\n        "[..]].concat();
                    if let Some((len, _)) = validator.line(&line)
                        && validator.is_ascii()
                    {
                        let text = std::str::from_utf8(&line[..len]).expect("it is ASCII");
                        prop_assert_eq!(oracle(text), Some(text));
                    }
                }
            }
        }
    }

    #[test]
    fn memory_makes_no_difference(texts in proptest::collection::vec(turns(), 1..60)) {
        check_in_turn(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Mostly well formed values, and each with one token taken away or twice.
    #[test]
    fn memory_of_values_makes_no_difference(
        values in proptest::collection::vec(values(), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let mut texts = Vec::new();
        for value in &values {
            let text = value.to_string();
            let marks: Vec<usize> = text.match_indices(['{', '}', '[', ']', ',', ':', '"']).map(|m| m.0).collect();
            texts.push(text.clone());
            if !marks.is_empty() {
                let at = marks[at.index(marks.len())];
                texts.push(format!("{}{}", &text[..at], &text[at + 1..]));
                texts.push(format!("{}{}", &text[..=at], &text[at..]));
            }
            texts.push(text);
        }
        check_in_turn(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn any_text_gets_the_same_answer(text in "[\\[\\]{}\",:0-9eE.+\\- a-z\\\\]{0,12}") {
        check(&text);
    }
}
