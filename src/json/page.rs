//! A page of an API: one JSON value with the array of records somewhere inside, and small values beside it that
//! lead to the next page. The records are handed on while the rest of the page has not come yet; of everything
//! else only what is asked for is kept, so a page of any size and depth takes little memory.
//!
//! Inside the array the rules are those of `array.rs`: an element reaches to the comma or bracket behind it,
//! whatever stands there. Outside of it the page must be JSON as far as brackets, commas, colons and keys go: where
//! it is not, nobody can tell what follows, and the rest is one fault.

use super::nesting::{Event, Nesting};
use super::{Cursor, Fault, Found, Span, Tail, skip_white, trim_end};

/// Keys and values that are kept are no longer than this; longer ones are not what is looked for.
const KEPT: usize = 64 << 10;

/// What a page is asked for besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// It has no such value (yet).
    #[default]
    Nothing,
    /// A string, number, `true`, `false` or `null`, as JSON text.
    Scalar(String),
    /// Something stands there that is no such value, or is too long.
    Other,
}

/// What stands at the pointer of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// Nothing (yet).
    #[default]
    Missing,
    /// An array.
    Array,
    /// `null`.
    Null,
    /// Something else.
    Other,
}

/// Pointers that are still possible: bit 0 is that of the records, bit `n + 1` that of value `n`.
type Live = u32;
const RECORDS: Live = 1;

#[derive(Clone, Debug)]
pub(super) struct Page {
    pointers: Vec<Vec<String>>,
    told: Vec<Told>,
    listed: Listed,
    frames: Vec<Frame>,
    place: Place,
    nesting: Nesting,
    /// The key, string or token under way, as far as it is wanted.
    text: Vec<u8>,
    escaped: bool,
}

/// An open container on the way to something that is looked for.
#[derive(Clone, Copy, Debug)]
struct Frame {
    live: Live,
    /// Index of the item under way; `None` in an object.
    index: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a value to which these pointers lead.
    Value(Live),
    /// Behind the bracket of an array: a value or the end.
    FirstItem,
    /// Behind the brace of an object: a key or the end.
    FirstKey,
    Key,
    InKey,
    /// Behind a key that these pointers have.
    Colon(Live),
    InString(Live),
    InToken(Live),
    /// In a container in which nothing is looked for.
    Skip,
    /// Behind a value.
    After,
    /// In the array of records: behind its bracket, behind a comma, in an element.
    First,
    Next,
    Element,
    /// Behind the whole page.
    Behind,
    /// Behind a fault: the rest is part of it.
    Broken,
}

/// Whether one more byte of structure was understood.
enum Step {
    On,
    Wrong,
}

impl Page {
    /// `pointers`: first that of the records, then those of the values that are wanted besides.
    pub(super) fn new(pointers: Vec<Vec<String>>) -> Self {
        let (all, wanted) = ((1 << pointers.len()) - 1, pointers.len() - 1);
        Page {
            pointers,
            told: vec![Told::Nothing; wanted],
            listed: Listed::Missing,
            frames: Vec::new(),
            place: Place::Value(all),
            nesting: Nesting::default(),
            text: Vec::new(),
            escaped: false,
        }
    }

    pub(super) fn told(&self, index: usize) -> &Told {
        &self.told[index]
    }

    pub(super) fn listed(&self) -> Listed {
        self.listed
    }

    pub(super) fn next(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        loop {
            let wrong = match self.place {
                Place::Element => return self.element(cursor, bytes, tail),
                Place::InKey | Place::InString(_) => !self.string(cursor, bytes),
                Place::InToken(live) => !self.token(live, cursor, bytes, tail),
                Place::Skip => !self.skip(cursor, bytes),
                Place::Broken => {
                    (cursor.at, cursor.begin) = (bytes.len(), bytes.len());
                    return Found::Nothing;
                }
                _ => {
                    cursor.at = skip_white(bytes, cursor.at);
                    cursor.begin = cursor.at;
                    match bytes.get(cursor.at) {
                        None => true,
                        Some(byte) => match self.structure(*byte, cursor) {
                            Step::On => false,
                            Step::Wrong => return self.broken(cursor, bytes),
                        },
                    }
                }
            };
            if wrong {
                return self.out_of_bytes(cursor, bytes, tail);
            }
        }
    }

    /// There are no more bytes: for now, or at all.
    fn out_of_bytes(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        (cursor.at, cursor.begin) = (bytes.len(), bytes.len());
        if tail == Tail::Open || self.place == Place::Behind {
            return Found::Nothing;
        }
        self.place = Place::Broken;
        let end = bytes.len();
        Found::Fault(Span { begin: end, end, stop: end, next: end }, Fault::Incomplete)
    }

    /// What stands here cannot be: the rest is a fault.
    fn broken(&mut self, cursor: &mut Cursor, bytes: &[u8]) -> Found {
        let (begin, next) = (cursor.at, bytes.len());
        let fault = if self.place == Place::Behind { Fault::Behind } else { Fault::Broken };
        self.place = Place::Broken;
        (cursor.at, cursor.begin) = (next, next);
        Found::Fault(Span { begin, end: trim_end(bytes, begin, next), stop: next, next }, fault)
    }

    /// Takes one byte between keys and values.
    fn structure(&mut self, byte: u8, cursor: &mut Cursor) -> Step {
        match (self.place, byte) {
            (Place::First, b']') => self.ended(),
            // The element begins with this byte, or is empty.
            (Place::First | Place::Next, _) => {
                (self.place, self.nesting) = (Place::Element, Nesting::default());
                return Step::On;
            }
            (Place::FirstItem, b']') | (Place::FirstKey, b'}') => self.close(),
            (Place::FirstItem, _) => return self.item(),
            (Place::FirstKey | Place::Key, b'"') => self.begin_text(Place::InKey),
            (Place::Colon(live), b':') => self.place = Place::Value(live),
            (Place::Value(live), _) => return self.value(live, byte, cursor),
            (Place::After, _) => return self.after(byte, cursor),
            _ => return Step::Wrong,
        }
        cursor.at += 1;
        Step::On
    }

    /// Behind a value in a container.
    fn after(&mut self, byte: u8, cursor: &mut Cursor) -> Step {
        let in_array = self.frames.last().is_some_and(|frame| frame.index.is_some());
        match (byte, in_array) {
            (b',', true) => {
                if let Some(Frame { index: Some(index), .. }) = self.frames.last_mut() {
                    *index += 1;
                }
                cursor.at += 1;
                return self.item();
            }
            (b',', false) => self.place = Place::Key,
            (b']', true) | (b'}', false) => self.close(),
            _ => return Step::Wrong,
        }
        cursor.at += 1;
        Step::On
    }

    /// An item of an array begins.
    fn item(&mut self) -> Step {
        let Some(Frame { live, index: Some(index) }) = self.frames.last().copied() else {
            return Step::Wrong;
        };
        let index = index.to_string();
        self.place = Place::Value(self.follow(live, |step| step == index));
        Step::On
    }

    /// The pointers of `live` whose step in the innermost container is this one.
    fn follow(&self, live: Live, is: impl Fn(&str) -> bool) -> Live {
        let step = self.frames.len() - 1;
        let same = |pointer: &Vec<String>| pointer.get(step).is_some_and(|step| is(step));
        let bits = self.pointers.iter().enumerate().filter(|(_, pointer)| same(pointer));
        live & bits.map(|(bit, _)| 1 << bit).sum::<Live>()
    }

    /// The pointers of `live` that end at a value this deep.
    fn here(&self, live: Live) -> Live {
        let depth = self.frames.len();
        let ending = self.pointers.iter().enumerate().filter(|(_, pointer)| pointer.len() == depth);
        live & ending.map(|(bit, _)| 1 << bit).sum::<Live>()
    }

    fn value(&mut self, live: Live, byte: u8, cursor: &mut Cursor) -> Step {
        let here = self.here(live);
        match byte {
            b'[' if here & RECORDS != 0 => {
                self.tell(here & !RECORDS, Told::Other);
                (self.listed, self.place) = (Listed::Array, Place::First);
            }
            b'{' | b'[' => {
                self.tell(here, Told::Other);
                let below = live & !here;
                if below == 0 {
                    // The bracket itself is the first thing that is skipped.
                    (self.place, self.nesting) = (Place::Skip, Nesting::default());
                    return Step::On;
                }
                let index = (byte == b'[').then_some(0);
                self.frames.push(Frame { live: below, index });
                self.place = if index.is_some() { Place::FirstItem } else { Place::FirstKey };
            }
            b'"' => self.begin_text(Place::InString(here)),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.begin_text(Place::InToken(here));
                return Step::On;
            }
            _ => return Step::Wrong,
        }
        cursor.at += 1;
        Step::On
    }

    fn begin_text(&mut self, place: Place) {
        self.text.clear();
        (self.place, self.escaped) = (place, false);
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One more than what is kept tells that there was more.
        let room = (KEPT + 1).saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Goes on in a string or key; `false` if it does not end in these bytes.
    fn string(&mut self, cursor: &mut Cursor, bytes: &[u8]) -> bool {
        let wanted = !matches!(self.place, Place::InString(0));
        let from = cursor.at;
        let mut at = from;
        let end = loop {
            if self.escaped && at < bytes.len() {
                self.escaped = false;
                at += 1;
            }
            match memchr::memchr2(b'"', b'\\', &bytes[at..]) {
                Some(offset) if bytes[at + offset] == b'"' => break Some(at + offset),
                Some(offset) => (at, self.escaped) = (at + offset + 1, true),
                None => break None,
            }
        };
        if wanted {
            self.keep(&bytes[from..end.unwrap_or(bytes.len())]);
        }
        let Some(end) = end else { return false };
        cursor.at = end + 1;
        match self.place {
            Place::InString(here) => {
                if here != 0 {
                    let text = std::mem::take(&mut self.text);
                    self.tell_scalar(here, &[b"\"", &text[..], b"\""].concat());
                }
                self.ended();
            }
            _ => self.key_ended(),
        }
        true
    }

    fn key_ended(&mut self) {
        let key = std::mem::take(&mut self.text);
        let live = self.frames.last().map_or(0, |frame| frame.live);
        let live = if key.len() > KEPT {
            0
        } else if key.contains(&b'\\') {
            let quoted = [b"\"", &key[..], b"\""].concat();
            let key: String = serde_json::from_slice(&quoted).unwrap_or_default();
            self.follow(live, |step| step == key)
        } else {
            self.follow(live, |step| step.as_bytes() == key)
        };
        (self.text, self.place) = (key, Place::Colon(live));
    }

    /// Goes on in a number or literal; `false` if it may go on behind these bytes.
    fn token(&mut self, here: Live, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> bool {
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        let end = bytes[cursor.at..].iter().position(ends).map(|offset| cursor.at + offset);
        let last = tail == Tail::Last && self.frames.is_empty();
        self.keep(&bytes[cursor.at..end.unwrap_or(bytes.len())]);
        let Some(end) = end.or(last.then_some(bytes.len())) else { return false };
        (cursor.at, cursor.begin) = (end, end);
        let text = std::mem::take(&mut self.text);
        self.tell_scalar(here, &text);
        self.ended();
        true
    }

    /// Goes on in a container in which nothing is looked for; `false` if it does not end in these bytes.
    fn skip(&mut self, cursor: &mut Cursor, bytes: &[u8]) -> bool {
        while let Some((event, index)) = self.nesting.next(bytes, cursor.at) {
            cursor.at = index + 1;
            if event == Event::Closed {
                self.ended();
                return true;
            }
        }
        false
    }

    fn element(&mut self, cursor: &mut Cursor, bytes: &[u8], tail: Tail) -> Found {
        let begin = cursor.begin;
        while let Some((event, index)) = self.nesting.next(bytes, cursor.at) {
            cursor.at = index + 1;
            match event {
                Event::Comma => self.place = Place::Next,
                Event::Stray if bytes[index] == b']' => self.ended(),
                _ => continue,
            }
            cursor.begin = cursor.at;
            let end = trim_end(bytes, begin, index);
            return Found::Record(Span { begin, end, stop: index, next: index + 1 });
        }
        cursor.at = bytes.len();
        if tail == Tail::Open {
            return Found::Nothing;
        }
        let next = bytes.len();
        (self.place, cursor.begin) = (Place::Broken, next);
        let end = trim_end(bytes, begin, next);
        Found::Fault(Span { begin, end, stop: next, next }, Fault::Incomplete)
    }

    /// The innermost container has ended.
    fn close(&mut self) {
        self.frames.pop();
        self.ended();
    }

    /// A value has ended.
    fn ended(&mut self) {
        self.place = if self.frames.is_empty() { Place::Behind } else { Place::After };
    }

    fn tell_scalar(&mut self, here: Live, text: &[u8]) {
        let told = match std::str::from_utf8(text) {
            Ok(text) if text.len() <= KEPT => Told::Scalar(text.to_owned()),
            _ => Told::Other,
        };
        if here & RECORDS != 0 {
            self.listed = if text == b"null" { Listed::Null } else { Listed::Other };
        }
        self.tell(here & !RECORDS, told);
    }

    fn tell(&mut self, here: Live, told: Told) {
        if here & RECORDS != 0 {
            self.listed = Listed::Other;
        }
        for (index, place) in self.told.iter_mut().enumerate() {
            if here & (1 << (index + 1)) != 0 {
                *place = told.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Fault, Found, Scanner, Tail};
    use super::*;

    fn steps(pointer: &str) -> Vec<String> {
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
    }

    /// Records (with `!` behind faults), what stands at the records' pointer, and what was told.
    type Seen = (Vec<String>, Listed, Vec<Told>);

    fn scan(text: &[u8], pointers: &[&str], step: usize) -> Seen {
        let mut scanner = Scanner::page(pointers.iter().map(|pointer| steps(pointer)).collect());
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        let mut pieces = text.chunks(step);
        loop {
            let piece = pieces.next();
            buffer.extend_from_slice(piece.unwrap_or_default());
            let tail = if piece.is_some() { Tail::Open } else { Tail::Last };
            loop {
                let (span, fault) = match scanner.next(&buffer, tail) {
                    Found::Record(span) => (span, ""),
                    Found::Fault(span, Fault::Incomplete) => (span, "!"),
                    Found::Fault(span, _) => (span, "!!"),
                    Found::Nothing => break,
                };
                assert!(span.begin <= span.end && span.end <= span.stop && span.stop <= span.next);
                seen.push(String::from_utf8_lossy(&buffer[span.begin..span.end]).into_owned() + fault);
            }
            let done = scanner.begin();
            buffer.drain(..done);
            scanner.rebase(done);
            if tail == Tail::Last {
                let told = (1..pointers.len()).map(|index| scanner.told(index - 1).clone()).collect();
                return (seen, scanner.listed(), told);
            }
        }
    }

    #[track_caller]
    fn check(text: &str, pointers: &[&str], records: &[&str], told: &[&str]) {
        for step in 1..=text.len().max(1) {
            let (seen, _, found) = scan(text.as_bytes(), pointers, step);
            // A fault is told with what has come by then.
            assert_eq!(seen.len(), records.len(), "pieces of {step}: {seen:?}");
            for (seen, expected) in seen.iter().zip(records) {
                let same = seen == expected || (expected.ends_with("!!") && seen.ends_with("!!"));
                assert!(same, "pieces of {step}: {seen} {expected}");
            }
            let found: Vec<String> = found
                .into_iter()
                .map(|told| match told {
                    Told::Nothing => "-".into(),
                    Told::Scalar(text) => text,
                    Told::Other => "?".into(),
                })
                .collect();
            assert_eq!(found, told, "pieces of {step}");
        }
    }

    #[test]
    fn records_and_what_leads_on_are_found_wherever_they_stand() {
        let both = ["/items", "/next"];
        check(
            r#"{"items":[1,{"a":[2]},"x,]"],"next":"c\"1"}"#,
            &both,
            &["1", r#"{"a":[2]}"#, r#""x,]""#],
            &[r#""c\"1""#],
        );
        check(r#" {"next" : 7 , "items" : [ ] } "#, &both, &[], &["7"]);
        check(r#"{"items":[1],"more":{"next":1},"x":[[]]}"#, &both, &["1"], &["-"]);
        check(r#"{"next":null,"items":null}"#, &both, &[], &["null"]);
        check(r#"{"next":{"a":1},"items":{}}"#, &both, &[], &["?"]);
        check(r#"{"a":{"b":[0,{"c":[1,2]}]},"b":[9]}"#, &["/a/b/1/c"], &["1", "2"], &[]);
        check(r#"{"\u0069tems":[1],"a/b":2}"#, &["/items", "/a~1b"], &["1"], &["2"]);
        check("[1,2]", &[""], &["1", "2"], &[]);
        check("\u{feff}[1]", &[""], &["1"], &[]);
        check(r#"{"meta":{"next":"u"},"items":[1]}"#, &["/items", "/meta/next"], &["1"], &[r#""u""#]);
    }

    #[test]
    fn what_stands_at_the_pointer_is_known() {
        let listed = |text: &str| scan(text.as_bytes(), &["/items"], 3).1;
        assert_eq!(listed(r#"{"items":[]}"#), Listed::Array);
        assert_eq!(listed(r#"{"items":null}"#), Listed::Null);
        assert_eq!(listed(r#"{"items":"x"}"#), Listed::Other);
        assert_eq!(listed(r#"{"items":{"a":1}}"#), Listed::Other);
        assert_eq!(listed(r#"{"error":"x"}"#), Listed::Missing);
        assert_eq!(listed("7"), Listed::Missing);
    }

    #[test]
    fn broken_elements_are_records_and_broken_structure_is_a_fault() {
        check(r#"{"items":[{"a":],2],"b":1}"#, &["/items"], &[r#"{"a":]"#, "2"], &[]);
        check(r#"{"items":[nul,2,],"b":1}"#, &["/items"], &["nul", "2", ""], &[]);
        check(r#"{"items":[1] "next":2}"#, &["/items", "/next"], &["1", "!!"], &["-"]);
        check(r#"{"items":[1]}x"#, &["/items"], &["1", "!!"], &[]);
        check("<html>", &["/items"], &["!!"], &[]);
        check("", &["/items"], &["!"], &[]);
        check(r#"{"items":[1,{"a":"#, &["/items"], &["1", r#"{"a":!"#], &[]);
        check(r#"{"items":[1],"#, &["/items"], &["1", "!"], &[]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ab\\\\\"\\[\\]{},:é]{0,6}".prop_map(Value::from),
        ];
        let key = prop_oneof![Just("items".to_owned()), Just("next".to_owned()), "[a~/\"]{0,3}"];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..5);
            let map = proptest::collection::vec((key.clone(), inner), 0..5);
            prop_oneof![
                list.prop_map(Value::from),
                map.prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_pages_say_what_a_parser_finds(
            value in json(),
            pointer in prop_oneof![Just("/items"), Just("/items/next"), Just("/0/items"), Just("")],
            pretty: bool,
            step in 1usize..20,
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let (seen, listed, told) = scan(text.unwrap().as_bytes(), &[pointer, "/next"], step);
            let parsed: Vec<Value> = seen.iter().map(|record| serde_json::from_str(record).unwrap()).collect();
            let found = value.pointer(pointer);
            let expected = found.and_then(Value::as_array).cloned().unwrap_or_default();
            prop_assert_eq!(parsed, expected);
            prop_assert_eq!(listed == Listed::Array, found.is_some_and(Value::is_array));
            prop_assert_eq!(listed == Listed::Null, found.is_some_and(Value::is_null));
            prop_assert_eq!(listed == Listed::Missing, found.is_none());
            match (value.pointer("/next"), &told[0]) {
                (None, told) => prop_assert_eq!(told, &Told::Nothing),
                (Some(Value::Array(_) | Value::Object(_)), told) => prop_assert_eq!(told, &Told::Other),
                (Some(value), Told::Scalar(text)) => {
                    prop_assert_eq!(&serde_json::from_str::<Value>(text).unwrap(), value)
                }
                (Some(_), told) => prop_assert!(false, "{:?}", told),
            }
        }

        #[test]
        fn any_bytes_are_scanned_to_their_end(
            text in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'),
                Just(b'\\'), Just(b','), Just(b':'), Just(b'1'), Just(b' '), any::<u8>()], 0..60),
            step in 1usize..8,
        ) {
            let whole = scan(&text, &["/items", "/next"], text.len().max(1));
            let pieces = scan(&text, &["/items", "/next"], step);
            prop_assert_eq!(whole.0.len(), pieces.0.len());
            prop_assert_eq!((whole.1, whole.2), (pieces.1, pieces.2));
        }
    }
}
