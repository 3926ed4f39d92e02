//! Is this one JSON value by RFC 8259? [`Validator::value`] answers with where the value stands, and nothing else:
//! nothing is decoded, so lone surrogates, numbers of any size and nesting of any depth pass as they stand. Pure.
//!
//! Of a run that only wraps records, nearly three quarters of the instructions were serde_json's skipping of
//! values. Two things make this faster. Strings and numbers are looked at in sixteen bytes at a time
//! (`sixteen`). And records of one kind have the same keys in the same order: what stands before a
//! member's value is compared with what stood there in the record before (`label`). It allocates only for
//! nesting beyond 64 levels.
//!
//! It only ever says yes: whoever gets a no asks serde_json, which has the last word and the message. That it never
//! says yes where serde_json says no is property-tested. Whether the bytes are UTF-8 is for the caller to check, where
//! they are not all ASCII: that is seen on the way.

use std::ops::Range;

use super::label::{Before, Labels};
use super::sixteen::{self, Seen, Sixteen};

/// Checks values. Remembers the labels of earlier ones, and keeps memory for nesting beyond 64 levels.
#[derive(Debug, Default)]
pub struct Validator {
    labels: Labels,
    /// Words of 64 outer levels each, one bit a level.
    outer: Vec<u64>,
    /// Whether CR or LF stands between tokens.
    breaks: bool,
    /// The bytes of strings, and some behind them.
    seen: Seen,
}

/// A value that is valid, if it is UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it stands, without the white space around it.
    pub range: Range<usize>,
    /// Whether CR or LF may stand between its tokens; nowhere else can they be.
    pub breaks: bool,
}

/// The open arrays and objects, one bit a level, the innermost lowest: a one is an object.
struct Levels<'a> {
    outer: &'a mut Vec<u64>,
    inner: u64,
    depth: usize,
}

impl Levels<'_> {
    #[inline]
    fn push(&mut self, object: u64) {
        if self.depth.is_multiple_of(64) {
            deeper(self.outer, self.inner);
        }
        self.inner = self.inner << 1 | object;
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.inner = if self.depth.is_multiple_of(64) { shallower(self.outer) } else { self.inner >> 1 };
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

// Apart and cold, because the vector's code in the loop costs it registers: 5% of the whole.
#[cold]
#[inline(never)]
fn deeper(outer: &mut Vec<u64>, inner: u64) {
    outer.push(inner);
}

#[cold]
#[inline(never)]
fn shallower(outer: &mut Vec<u64>) -> u64 {
    outer.pop().unwrap_or_default()
}

impl Validator {
    /// The value, if the first `len` bytes are one value with nothing but white space around it. More bytes may
    /// follow: a few are looked at, since that is faster than to stop exactly, but decide nothing.
    #[inline]
    pub fn value(&mut self, bytes: &[u8], len: usize) -> Option<Value> {
        // No more: thousands of records of white space would each be read to the end of all.
        let bytes = &bytes[..bytes.len().min(len + size_of::<Sixteen>())];
        self.breaks = false;
        let mut outside = false;
        let rest = space(bytes, &mut outside);
        let start = bytes.len() - rest.len();
        let end = bytes.len() - self.behind(rest)?.len();
        if end != len && (end > len || !space(&bytes[end..len], &mut outside).is_empty()) {
            return None;
        }
        Some(Value { range: start..end, breaks: self.breaks })
    }

    /// The line that `bytes` begin with, if it is one value (if that is UTF-8) with no white space around it: how long that is, and how long
    /// it is with its line ending. A no may cost a look at all of the bytes.
    #[inline]
    pub fn line(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        self.breaks = false;
        let rest = self.behind(bytes)?;
        let ending = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return None,
        };
        let len = bytes.len() - rest.len();
        (!self.breaks).then_some((len, len + ending))
    }

    /// Whether the last value that was found to be valid is ASCII. A no may be due to what stands behind it.
    #[inline(always)]
    pub fn is_ascii(&self) -> bool {
        self.seen.is_ascii()
    }

    /// What stands behind the value that `bytes` begin with.
    fn behind<'a>(&mut self, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        let Validator { labels, outer, breaks, .. } = self;
        outer.clear();
        labels.begin();
        let mut seen = Seen::default();
        let mut levels = Levels { outer, inner: 0, depth: 0 };
        loop {
            let (first, rest) = bytes.split_first()?;
            bytes = match first {
                b'"' => string(rest, &mut seen)?,
                b'0'..=b'9' => number(bytes)?,
                b'{' => {
                    if let Some(value) = labels.follow(Before::Brace, bytes) {
                        levels.push(1);
                        bytes = value;
                        continue;
                    }
                    match space(rest, breaks) {
                        [b'}', rest @ ..] => rest,
                        inside => {
                            levels.push(1);
                            bytes = labels.learn(Before::Brace, bytes, key(inside, breaks)?, &mut seen);
                            continue;
                        }
                    }
                }
                b'[' => match space(rest, breaks) {
                    [b']', rest @ ..] => rest,
                    inside => {
                        levels.push(0);
                        bytes = inside;
                        continue;
                    }
                },
                b'-' => any_number(bytes)?,
                _ => literal(bytes)?,
            };
            // Closes levels until there is a comma, or none is left.
            loop {
                if levels.in_object() {
                    if let Some(value) = labels.follow(Before::Comma, bytes) {
                        bytes = value;
                        break;
                    }
                } else if levels.depth == 0 {
                    self.seen = seen;
                    return Some(bytes);
                }
                let (first, rest) = space(bytes, breaks).split_first()?;
                match (first, levels.in_object()) {
                    (b',', true) => {
                        let value = key(space(rest, breaks), breaks)?;
                        bytes = labels.learn(Before::Comma, bytes, value, &mut seen);
                    }
                    (b',', false) => bytes = space(rest, breaks),
                    (b'}', true) | (b']', false) => {
                        levels.pop();
                        bytes = rest;
                        continue;
                    }
                    _ => return None,
                }
                break;
            }
        }
    }
}

/// What stands behind the white space, if there is some. Notes CR and LF.
#[inline(always)]
fn space<'a>(bytes: &'a [u8], breaks: &mut bool) -> &'a [u8] {
    match bytes.first() {
        Some(byte) if *byte <= b' ' => spaces(bytes, breaks),
        _ => bytes,
    }
}

#[inline(never)]
fn spaces<'a>(mut bytes: &'a [u8], breaks: &mut bool) -> &'a [u8] {
    while let [byte @ (b' ' | b'\n' | b'\r' | b'\t'), rest @ ..] = bytes {
        *breaks |= matches!(byte, b'\n' | b'\r');
        bytes = rest;
    }
    bytes
}

/// The value behind the key that `bytes` begin with.
#[inline(never)]
fn key<'a>(bytes: &'a [u8], breaks: &mut bool) -> Option<&'a [u8]> {
    let [b'"', bytes @ ..] = bytes else { return None };
    // The caller sees its bytes.
    match space(string(bytes, &mut Seen::default())?, breaks) {
        [b':', value @ ..] => Some(space(value, breaks)),
        _ => None,
    }
}

/// What stands behind a string, from its first byte behind the quote on.
#[inline(always)]
fn string<'a>(mut bytes: &'a [u8], seen: &mut Seen) -> Option<&'a [u8]> {
    while let Some((first, rest)) = bytes.split_first_chunk() {
        seen.add(first);
        let marks = sixteen::marks(first);
        if marks != 0 {
            let at = marks.trailing_zeros() as usize;
            if bytes[at] == b'"' {
                return Some(&bytes[at + 1..]);
            }
            break;
        }
        bytes = rest;
    }
    let (rest, ascii) = any_string(bytes)?;
    if !ascii {
        seen.add_other();
    }
    Some(rest)
}

/// The same for a string with escapes, or at the end of all bytes. Says also whether it is ASCII.
#[inline(never)]
fn any_string(mut bytes: &[u8]) -> Option<(&[u8], bool)> {
    let mut seen = Seen::default();
    loop {
        let marks = bytes.first_chunk().map(|first| {
            seen.add(first);
            sixteen::marks(first)
        });
        let plain = match marks {
            Some(0) => 16,
            Some(marks) => marks.trailing_zeros() as usize,
            None => {
                let plain = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
                if !bytes[..plain].is_ascii() {
                    seen.add_other();
                }
                plain
            }
        };
        match &bytes[plain..] {
            [b'"', rest @ ..] => return Some((rest, seen.is_ascii())),
            [b'\\', rest @ ..] => bytes = escape(rest)?,
            rest if plain == 16 => bytes = rest,
            _ => return None,
        }
    }
}

/// What stands behind an escape, from its letter on.
fn escape(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => Some(rest),
        [b'u', rest @ ..] => {
            let (digits, rest) = rest.split_first_chunk::<4>()?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(rest)
        }
        _ => None,
    }
}

/// What stands behind the number that `bytes` begin with. Here are the usual ones, which are short, have no sign and
/// no exponent.
#[inline(always)]
fn number(bytes: &[u8]) -> Option<&[u8]> {
    if let Some(first) = bytes.first_chunk() {
        let others = !sixteen::digits(first);
        let whole = others.trailing_zeros() as usize;
        if whole < 16 && (whole == 1 || bytes[0] != b'0') {
            let fraction = (others >> whole & !1).trailing_zeros() as usize;
            let end = if bytes[whole] == b'.' { whole + fraction } else { whole };
            if end < 16 && (end == whole || fraction > 1) && bytes[end] | 0x20 != b'e' {
                return Some(&bytes[end..]);
            }
        }
    }
    any_number(bytes)
}

#[inline(never)]
fn any_number(bytes: &[u8]) -> Option<&[u8]> {
    let whole = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut rest = digits(whole)?;
    if whole[0] == b'0' && rest.len() + 1 < whole.len() {
        return None;
    }
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-"));
        rest = digits(unsigned.unwrap_or(exponent))?;
    }
    Some(rest)
}

/// What stands behind the digits that `bytes` begin with, if there is one at least.
fn digits(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    (count > 0).then(|| &bytes[count..])
}

/// What stands behind the literal that `bytes` begin with. Which one it is shall not be guessed: one comparison each,
/// and the length is reckoned.
#[inline(always)]
fn literal(bytes: &[u8]) -> Option<&[u8]> {
    let word = u32::from_le_bytes(*bytes.first_chunk()?);
    let is = |text: &[u8; 4]| word == u32::from_le_bytes(*text);
    let longer = is(b"fals");
    let known = is(b"true") | is(b"null") | (longer && bytes.get(4) == Some(&b'e'));
    known.then(|| &bytes[4 + usize::from(longer)..])
}

#[cfg(test)]
mod tests {
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
                    assert!(
                        matches!(&all[len..], "" | "\r") || all[len..].starts_with(['\r', '\n']),
                        "{all:?}"
                    );
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
            let wrong: String = open
                + "1"
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
        check_in_turn(&[
            member,
            "{\"a\":,\"x\":2}",
            "[1,\"x\":2]",
            "{\"a\":[1,\"x\":2]}",
            "1,\"x\":2",
            object,
        ]);
        check_in_turn(&[member, ",\"x\":2}", "{,\"x\":2}", "{\"a\":1,\"x\":}", "{\"a\":1,\"x\":2,}", member]);
        check_in_turn(&["{\"a\" : 1 , \"x\" : 2}", "{\"a\" : 1 , \"x\" : 2}", "{\"a\" : , \"x\" : 2}"]);
    }

    /// Labels and values of few kinds in turn, so that labels stand where others have learnt them, and where they may
    /// not stand.
    fn turns() -> impl Strategy<Value = String> {
        let label =
            prop::sample::select(vec!["{\"a\":", ",\"a\":", "{\"b\":", ",\"b\":", ", \"b\": ", ",", "["]);
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
}
