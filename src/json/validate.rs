//! Is this one JSON value by RFC 8259? [`Validator::value`] answers with where the value stands, and nothing else:
//! nothing is decoded, so lone surrogates, numbers of any size and nesting of any depth pass as they stand. Pure.
//!
//! Of a run that only wraps records, nearly three quarters of the instructions were serde_json's skipping of
//! values. With this the run takes 0.91x of the instructions (flat events, one worker, to `/dev/null`; counted, so
//! repeatable); of the processor time it took 0.87x and 1.00x in two series of nine interleaved pairs on a busy
//! machine. It allocates only for nesting beyond 64 levels.
//!
//! It only ever says yes: whoever gets a no asks serde_json, which has the last word and the message. That it never
//! says yes where serde_json says no is property-tested. Whether the bytes are UTF-8 is for the caller to check: it
//! does so for many records at once.

use std::ops::Range;

/// One in every byte of a word, and the highest bit of every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Checks values. Keeps memory for nesting beyond 64 levels.
#[derive(Debug, Default)]
pub struct Validator {
    /// Words of 64 outer levels each, one bit a level.
    outer: Vec<u64>,
}

/// The open arrays and objects, one bit a level, the innermost lowest.
struct Levels<'a> {
    outer: &'a mut Vec<u64>,
    inner: u64,
    depth: usize,
}

impl Levels<'_> {
    #[inline]
    fn push(&mut self, object: u64) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | object;
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        if self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        } else {
            self.inner >>= 1;
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

impl Validator {
    /// Where the value stands, if these bytes are one value with nothing but white space around it.
    #[inline]
    pub fn value(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = space(bytes, 0);
        let end = self.end(bytes, start)?;
        (space(bytes, end) == bytes.len()).then_some(start..end)
    }

    /// The index behind the value that begins at `at`.
    fn end(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        self.outer.clear();
        let mut levels = Levels { outer: &mut self.outer, inner: 0, depth: 0 };
        loop {
            match *bytes.get(at)? {
                b'"' => at = string(bytes, at + 1)?,
                b'{' => {
                    at = space(bytes, at + 1);
                    if *bytes.get(at)? != b'}' {
                        levels.push(1);
                        at = key(bytes, at)?;
                        continue;
                    }
                    at += 1;
                }
                b'[' => {
                    at = space(bytes, at + 1);
                    if *bytes.get(at)? != b']' {
                        levels.push(0);
                        continue;
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => at = number(bytes, at)?,
                b't' => at = literal(bytes, at, b"true")?,
                b'f' => at = literal(bytes, at, b"false")?,
                b'n' => at = literal(bytes, at, b"null")?,
                _ => return None,
            }
            match behind(bytes, at, &mut levels)? {
                Next::Over(end) => return Some(end),
                Next::Value(next) => at = next,
            }
        }
    }
}

enum Next {
    Over(usize),
    Value(usize),
}

/// What follows behind a value: closes levels until there is a comma, or none is left.
#[inline]
fn behind(bytes: &[u8], mut at: usize, levels: &mut Levels<'_>) -> Option<Next> {
    while levels.depth > 0 {
        at = space(bytes, at);
        match (*bytes.get(at)?, levels.in_object()) {
            (b',', true) => return key(bytes, space(bytes, at + 1)).map(Next::Value),
            (b',', false) => return Some(Next::Value(space(bytes, at + 1))),
            (b'}', true) | (b']', false) => levels.pop(),
            _ => return None,
        }
        at += 1;
    }
    Some(Next::Over(at))
}

/// The index of the first byte from `at` on that is no white space.
#[inline]
fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The index of the value behind the key that begins at `at`.
#[inline]
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let colon = space(bytes, string(bytes, at + 1)?);
    (*bytes.get(colon)? == b':').then(|| space(bytes, colon + 1))
}

/// The index behind the string whose first byte, behind the quote, is at `at`.
#[inline]
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += plain(bytes.get(at..)?);
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape(bytes, at + 1)?,
            _ => return None,
        }
    }
}

/// How many bytes there are before the first quote, backslash or control character. Eight at a time: of each
/// test, the lowest byte that is marked is certain, and that is the one that counts. (Sixteen at a time, left to
/// the compiler to vectorise, was slower: the strings of records are short.)
#[inline]
fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let marked = (zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control) & HIGH;
        if marked != 0 {
            return at + (marked.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
}

/// The index behind the escape whose letter is at `at`.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
        _ => None,
    }
}

/// The index behind the number that begins at `at`.
#[inline]
fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(bytes[at] == b'-');
    let first = *bytes.get(at)?;
    let whole = digits(bytes, at)?;
    if first == b'0' && whole > at + 1 {
        return None;
    }
    at = whole;
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        at = digits(bytes, at)?;
    }
    Some(at)
}

/// The index behind the digits at `at`, if there is one at least.
#[inline]
fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    (end > at).then_some(end)
}

#[inline]
fn literal(bytes: &[u8], at: usize, text: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(text).then_some(at + text.len())
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
        let found = Validator::default().value(text.as_bytes());
        assert_eq!(found.map(|range| &text[range]), oracle(text), "{text:?}");
    }

    #[test]
    fn it_says_what_serde_json_says() {
        let texts = [
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
        for text in texts {
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
            assert_eq!(Validator::default().value(text.as_bytes()), Some(0..text.len()), "depth {depth}");
            let wrong: String = open
                + "1"
                + &(0..depth)
                    .rev()
                    .map(|level| {
                        if level == depth / 2 { if object(level) { ']' } else { '}' } } else { close(level) }
                    })
                    .collect::<String>();
            assert_eq!(Validator::default().value(wrong.as_bytes()), None, "depth {depth}");
        }
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
        #![proptest_config(ProptestConfig::with_cases(2000))]
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
            const BYTES: &[u8] = b"\"\\{}[]:,0123456789.eE+-truefalsn \t\n\r\x00\x1f\x20\x7fu/bx";
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
            if let Ok(text) = std::str::from_utf8(&bytes) {
                check(text);
            }
        }

        #[test]
        fn any_text_gets_the_same_answer(text in "[\\[\\]{}\",:0-9eE.+\\- a-z\\\\]{0,12}") {
            check(&text);
        }
    }
}
