//! Chunks do not depend on what one read returns, and endless input needs little memory.

use proptest::prelude::*;

use super::*;
use crate::record::Identity;

/// Gives bytes in pieces of given sizes, with pauses.
struct Slow {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    reads: usize,
}

impl Bytes for Slow {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        self.reads += 1;
        if self.reads.is_multiple_of(3) {
            return Got::Idle;
        }
        let count = self.step.min(out.capacity() - out.len()).min(self.bytes.len() - self.at);
        if count == 0 {
            return Got::End(End::Whole);
        }
        out.extend_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Got::Bytes
    }
}

fn fill(bytes: &[u8], syntax: Syntax, step: usize, longest: usize) -> Heard {
    fill_by(bytes, (syntax, longest), (step, false), limits(7, 1000), None).0
}

pub(super) fn partition(once: bool) -> Partition {
    Partition::new(Identity {
        source: "file",
        name: "x".into(),
        position: "offset",
        once,
        ..Identity::default()
    })
}

/// At the beginning of a file.
pub(super) fn begin(syntax: Syntax, longest: usize) -> Begin {
    Begin {
        partition: partition(false),
        payload: Payload::Json,
        scanner: Scanner::new(syntax, longest),
        ahead: ahead::Ahead::default(),
        position: 0,
        line: 1,
        longest,
        size: None,
        far: None,
        left: None,
        growth: Arc::default(),
    }
}

/// What is read, of a pipe if it is `live`, and how many of the chunks were taken whole; `left` is how many records may
/// be read.
pub(super) fn fill_by(
    bytes: &[u8],
    (syntax, longest): (Syntax, usize),
    (step, live): (usize, bool),
    limits: Limits,
    left: Option<u64>,
) -> (Heard, usize) {
    let mut filler = Filler::new(Begin { partition: partition(live), left, ..begin(syntax, longest) });
    let mut slow = Slow { bytes: bytes.to_vec(), at: 0, step, reads: 0 };
    let mut chunk = Chunk { cutters: Cutters::new(limits), ..Chunk::default() };
    let (mut heard, mut whole) = (Heard::default(), 0);
    loop {
        match filler.fill(&mut chunk, &mut slow, &Stop::new()) {
            Filled::Chunk => {
                whole += usize::from(chunk.lined.count().is_some());
                heard.add(&chunk);
            }
            Filled::Idle => {}
            Filled::Back(..) => panic!("nothing was decoded"),
            Filled::Over(error) => {
                assert!(error.is_none());
                return (heard, whole);
            }
        }
        assert!(chunk.bytes.capacity() < 2 << 20, "{}", chunk.bytes.capacity());
    }
}

#[test]
fn cuts_and_blocks_do_not_depend_on_what_a_read_returns() {
    let white = " \n".repeat(50_000);
    let long = format!("\"{}\"", "long\n ".repeat(30_000));
    let item = |n: usize| match n {
        n if n % 97 == 50 => format!("{white}{n}"),
        n if n % 61 == 30 => long.clone(),
        n if n % 41 == 20 => format!("{{\"n\":\"{}\"}}", "y".repeat(n * 10)),
        n => format!("{{\"n\":{n}}}"),
    };
    let items: Vec<String> = (0..400).map(item).collect();
    let lines: Vec<String> = items.iter().map(|item| item.replace("long\n", "long")).collect();
    for (text, syntax) in [
        (lines.join("\n"), Syntax::Lines),
        (format!("{white}[{}]{white}x\n", items.join(",\n")), Syntax::Array),
        (items.join("\n"), Syntax::Values),
    ] {
        let whole = fill(text.as_bytes(), syntax, usize::MAX, 100_000);
        assert!(whole.records.len() >= 400 && whole.cuts.len() > 50 && whole.chunks.len() > 20);
        assert_eq!(whole.records.iter().filter(|seen| seen.fault == Some(RejectKind::TooLarge)).count(), 7);
        let feeds: Vec<usize> = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        let line_of = |at: usize| 1 + feeds.partition_point(|feed| *feed < at) as u64;
        for seen in whole.records.iter().filter(|seen| seen.fault.is_none()) {
            let at = seen.position as usize;
            assert_eq!(&text[at..at + seen.text.len()], seen.text);
            assert_eq!(seen.line, line_of(at), "{syntax:?} at {at}");
        }
        let cuts = whole.cuts.iter().map(|(end, line, _)| (*end, *line));
        for (end, line) in cuts.chain(whole.chunks.iter().map(|(end, line, _)| (*end, *line))) {
            assert_eq!(line, line_of(end as usize), "{syntax:?} up to {end}");
        }
        for step in [1111, 4096, 70_001] {
            assert!(fill(text.as_bytes(), syntax, step, 100_000) == whole, "{syntax:?}, pieces of {step}");
            let (piped, _) = fill_by(text.as_bytes(), (syntax, 100_000), (step, true), limits(7, 1000), None);
            assert!(piped.records == whole.records && piped.cuts == whole.cuts, "{syntax:?}, by {step}");
            assert!(step < 2000 || piped.chunks.len() > 20);
        }
    }
}

/// Lines of many kinds, one a number; most are records.
pub(super) fn lines_of_many_kinds(numbers: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let length = (number >> 8) as usize;
        let text = match number % 200 {
            0 if length.is_multiple_of(2) => " \n".repeat(35_000),
            // Few lines.
            0 => format!("{}\n", " ".repeat(35_000)).repeat(2),
            1 => "\n".repeat(length & 0xfff),
            2 => format!("\"{}\"", "x".repeat(40_000)),
            3 => "7\n".repeat(150),
            kind @ 4..12 => {
                ["", " ", "\t\r", "\r", "\u{c}", "  {} ", "{", "\u{e9}"][kind as usize - 4].to_owned()
            }
            _ => format!("{{\"n\":\"{}\"}}", "y".repeat(length & 0xff)),
        };
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(if number >> 16 & 7 == 0 { b"\r\n" } else { b"\n" });
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn blocks_that_are_taken_whole_are_those_that_are_found_line_by_line(
        numbers in prop::collection::vec(any::<u32>(), 500..1000),
        cut in 0..3usize,
        white in prop::sample::select(vec![0, 0, 20_000, 35_000]),
        batch_bytes in prop::sample::select(vec![0, 30_000, 1 << 20]),
        // In the second much white space fits, which ends a chunk.
        (block_bytes, block_records) in prop::sample::select(vec![(2000, 100), (150_000, 4000)]),
    ) {
        let mut bytes = lines_of_many_kinds(&numbers);
        bytes.truncate(bytes.len() - cut);
        bytes.extend(" \n".repeat(white).bytes());
        let limits = Limits { batch_size: 0, batch_bytes, block_bytes, block_records };
        let kind = (Syntax::Lines, 200_000);
        let (one_by_one, none) = fill_by(&bytes, kind, (5000, false), limits, Some(u64::MAX));
        prop_assert_eq!(none, 0);
        for step in [700, 3001, usize::MAX] {
            let (heard, whole) = fill_by(&bytes, kind, (step, false), limits, None);
            prop_assert!(heard == one_by_one, "pieces of {step}");
            prop_assert!(whole > 5 || batch_bytes == 30_000 || block_bytes > 2000, "{whole}");
        }
    }
}

#[test]
fn a_record_larger_than_a_chunk_waits_for_the_permission_to_grow() {
    let text = format!("1\n\"{}\"\n2\n", "x".repeat(3 << 20));
    let growth = Arc::<Growth>::default();
    let stop = Stop::new();
    let mut filler = Filler::new(Begin { growth: growth.clone(), ..begin(Syntax::Lines, 16 << 20) });
    let mut slow = Slow { bytes: text.clone().into_bytes(), at: 0, step: 1 << 20, reads: 0 };
    let mut chunk = Chunk { cutters: Cutters::new(Limits::default()), ..Chunk::default() };
    let other = growth.take(&stop);
    for _ in 0..6 {
        assert!(matches!(filler.fill(&mut chunk, &mut slow, &stop), Filled::Idle));
    }
    drop(other);
    let mut heard = Heard::default();
    loop {
        match filler.fill(&mut chunk, &mut slow, &stop) {
            Filled::Chunk => {
                heard.add(&chunk);
                assert!(growth.take(&stop).is_some(), "given back when the chunk is handed over");
                assert!(chunk.lease.bytes() >= chunk.bytes.len());
            }
            Filled::Idle => {}
            Filled::Back(..) => panic!("nothing was decoded"),
            Filled::Over(_) => break,
        }
    }
    assert_eq!(heard.texts().join("\n") + "\n", text);
}

/// Gives one line of any length.
struct Line(usize);

impl Bytes for Line {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        if self.0 == 0 {
            return Got::End(End::Whole);
        }
        let count = self.0.min(out.capacity() - out.len());
        out.resize(out.len() + count, b'x');
        self.0 -= count;
        Got::Bytes
    }
}

#[test]
fn a_line_without_an_end_needs_little_memory() {
    let mut filler = Filler::new(begin(Syntax::Lines, 1 << 20));
    let mut chunk = Chunk { cutters: Cutters::new(Limits::default()), ..Chunk::default() };
    let (mut bytes, mut heard) = (Line(64 << 20), Heard::default());
    loop {
        match filler.fill(&mut chunk, &mut bytes, &Stop::new()) {
            Filled::Chunk => heard.add(&chunk),
            Filled::Idle => {}
            Filled::Back(..) => panic!("nothing was decoded"),
            Filled::Over(_) => break,
        }
        assert!(chunk.bytes.capacity() < 2 << 20);
    }
    assert_eq!((heard.records[0].length, heard.chunks[0].0), (Some(64 << 20), 64 << 20));
}

/// An array of a given number of elements on one line, made as it is read.
struct Endless {
    left: usize,
}

impl Bytes for Endless {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        const ELEMENT: &[u8] = b"{\"name\":\"a [ \\\" name\",\"list\":[1,2,3]}";
        if self.left == 0 {
            return Got::End(End::Whole);
        }
        while self.left > 0 && out.capacity() - out.len() > ELEMENT.len() {
            out.extend_from_slice(ELEMENT);
            self.left -= 1;
            out.push(if self.left == 0 { b']' } else { b',' });
        }
        Got::Bytes
    }
}

#[test]
fn an_array_of_any_size_streams_in_little_memory() {
    let mut ahead = ahead::Ahead::default();
    ahead.buffer().push(b'[');
    let mut filler = Filler::new(Begin { ahead, ..begin(Syntax::Array, 1 << 20) });
    let mut chunk = Chunk { cutters: Cutters::new(Limits::default()), ..Chunk::default() };
    let (mut bytes, mut records) = (Endless { left: 300_000 }, 0);
    loop {
        match filler.fill(&mut chunk, &mut bytes, &Stop::new()) {
            Filled::Chunk => records += chunk.len(),
            Filled::Idle => {}
            Filled::Back(..) => panic!("nothing was decoded"),
            Filled::Over(_) => break,
        }
        assert!(chunk.bytes.capacity() < 600 << 10);
    }
    assert_eq!(records, 300_000);
}

/// Gives a line, and another one a moment later, and so on.
struct Trickle;

impl Bytes for Trickle {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        std::thread::sleep(std::time::Duration::from_millis(1));
        out.extend_from_slice(b"1\n");
        Got::Bytes
    }
}

/// Of a pipe that is never idle, records are handed on all the same.
#[test]
fn lines_that_come_one_by_one_do_not_wait_for_a_block() {
    let mut filler = Filler::new(Begin { partition: partition(true), ..begin(Syntax::Lines, 1 << 20) });
    let limits = Limits { batch_bytes: 0, ..Limits::default() };
    let mut chunk = Chunk { cutters: Cutters::new(limits), ..Chunk::default() };
    let mut heard = Heard::default();
    for _ in 0..3 {
        assert!(matches!(filler.fill(&mut chunk, &mut Trickle, &Stop::new()), Filled::Chunk));
        heard.add(&chunk);
    }
    // A line takes a millisecond at least, so there were a few hundred; a block has thousands.
    assert!(heard.records.len() < 1000, "{}", heard.records.len());
    assert!(heard.texts().iter().all(|text| *text == "1"));
}

/// Gives bytes in pieces, some of which end behind a byte that separates records, with pauses.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, (usize, bool)>>,
}

impl Bytes for Pieces<'_> {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        let (size, to_separator) = *self.sizes.next().unwrap();
        if size.is_multiple_of(5) {
            return Got::Idle;
        }
        let separator = |byte: &u8| matches!(byte, b',' | b'\n');
        let more = self.bytes.iter().skip(size).position(separator).filter(|_| to_separator);
        let count = more.map_or(size, |more| size + more + 1).min(out.capacity() - out.len());
        let (piece, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        if piece.is_empty() {
            return Got::End(End::Whole);
        }
        out.extend_from_slice(piece);
        self.bytes = rest;
        Got::Bytes
    }
}

/// The longest record where some are longer.
const LONGEST: usize = 6000;

fn an_item() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..1000u32).prop_map(|number| format!("{{\"n\":{number}}}")),
        1 => (0..3 * LONGEST).prop_map(|length| format!("\"{}\"", "x".repeat(length))),
        1 => (0..LONGEST).prop_map(|count| format!("[{}1]", "1,".repeat(count))),
        // White space counts, too: what is kept of it is nothing else.
        1 => (0..2 * LONGEST).prop_map(|length| format!("7{}8", " ".repeat(length))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn records_beside_one_that_is_too_large_are_all_there(
        items in prop::collection::vec(an_item(), 1..60),
        sizes in prop::collection::vec((1usize..9000, any::<bool>()), 1..20),
        (syntax, white, live) in (0..3usize, 0..9000usize, any::<bool>()),
    ) {
        let syntax = [Syntax::Array, Syntax::Lines, Syntax::Values][syntax];
        let (mut text, mut expected) = (String::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            text.push_str(match (syntax, index) {
                (Syntax::Array, 0) => "[",
                (Syntax::Array, _) => ",",
                _ => "",
            });
            // Of a line, white space around the value is a part.
            let item = match syntax {
                Syntax::Lines if index % 5 == 3 => format!("{0}{item}{0}", " ".repeat(white)),
                Syntax::Values => item.replace(' ', "7"),
                _ => item.clone(),
            };
            expected.push((text.len() as u64, item.clone()));
            text.push_str(&item);
            text.push_str(if syntax == Syntax::Array { "" } else { "\n" });
        }
        if syntax == Syntax::Array {
            text.push(']');
        }
        let mut filler = Filler::new(Begin { partition: partition(live), ..begin(syntax, LONGEST) });
        let mut pieces = Pieces { bytes: text.as_bytes(), sizes: sizes.iter().cycle() };
        // Pauses alone would not end.
        prop_assume!(sizes.iter().any(|(size, _)| !size.is_multiple_of(5)));
        let mut chunk = Chunk { cutters: Cutters::new(limits(7, 5000)), ..Chunk::default() };
        let mut heard = Heard::default();
        loop {
            match filler.fill(&mut chunk, &mut pieces, &Stop::new()) {
                Filled::Chunk => heard.add(&chunk),
                Filled::Idle => {}
                Filled::Back(..) => panic!("nothing was decoded"),
                Filled::Over(_) => break,
            }
        }
        let at: Vec<u64> = heard.records.iter().map(|seen| seen.position).collect();
        prop_assert_eq!(at, expected.iter().map(|(at, _)| *at).collect::<Vec<_>>());
        for (seen, (_, item)) in heard.records.iter().zip(&expected) {
            let too_large = seen.fault == Some(RejectKind::TooLarge);
            prop_assert_eq!(too_large, item.len() > LONGEST, "{} bytes", item.len());
            prop_assert!(too_large || seen.text == *item);
        }
        prop_assert_eq!(heard.chunks.last().map(|chunk| chunk.0), Some(text.len() as u64));
    }
}

/// How much white space ends a chunk must not depend on whether it was seen to come.
#[test]
fn a_gap_ends_a_chunk_from_the_same_length_on_however_it_comes() {
    for length in (64 << 10) - 1..=(64 << 10) + 1 {
        let text = format!("1\n{}2\n", "\n".repeat(length));
        for syntax in [Syntax::Lines, Syntax::Values] {
            let limits = Limits { block_bytes: 1 << 20, ..limits(7, 0) };
            let by = |step| fill_by(text.as_bytes(), (syntax, 1000), (step, false), limits, Some(9)).0;
            let whole = by(usize::MAX);
            // The line feed of a line is a part of it.
            let gap = length + usize::from(syntax == Syntax::Values);
            assert_eq!(whole.chunks.len(), 1 + usize::from(gap > 64 << 10), "{syntax:?}, {length}");
            for step in [1000, 70_000] {
                assert!(by(step) == whole, "{syntax:?}, {length} by {step}");
            }
        }
    }
}

/// A run that goes on must find the end as stored, or it would look at all of that again.
#[test]
fn white_space_alone_is_read_to_its_end() {
    let white = " \n".repeat(100_000);
    for step in [4096, usize::MAX] {
        let heard = fill(white.as_bytes(), Syntax::Lines, step, 1000);
        assert_eq!(heard.chunks, [(200_000, 100_001, false)], "{step}");
        let heard = fill((white.clone() + "1\n").as_bytes(), Syntax::Lines, step, 1000);
        assert_eq!((heard.records[0].position, heard.records[0].line), (200_000, 100_001), "{step}");
    }
}

/// Its line ending may come later.
#[test]
fn a_record_may_be_as_long_as_is_allowed() {
    let item = format!("\"{}\"", "x".repeat(LONGEST - 2));
    for syntax in [Syntax::Lines, Syntax::Values, Syntax::Array] {
        let text = match syntax {
            Syntax::Array => format!("[{item},{item}]"),
            _ => format!("{item}\n{item}\n"),
        };
        for step in [LONGEST, LONGEST + 1, LONGEST + 2, 7, usize::MAX] {
            let heard = fill(text.as_bytes(), syntax, step, LONGEST);
            let seen: Vec<_> = heard.records.iter().map(|seen| (seen.text.len(), seen.fault)).collect();
            assert_eq!(seen, [(LONGEST, None); 2], "{syntax:?} by {step}");
            let heard = fill(text.as_bytes(), syntax, step, LONGEST - 1);
            let long = heard.records.iter().filter(|seen| seen.fault == Some(RejectKind::TooLarge));
            assert_eq!(long.map(|seen| seen.length).collect::<Vec<_>>(), [Some(LONGEST as u64); 2]);
        }
    }
}

#[test]
fn what_is_rejected_counts_for_a_limit_and_ends_its_block() {
    let text = format!("1\n{}\n2\n{}\n3\n", "x".repeat(200), "y".repeat(200));
    for (left, records) in [(1, 1), (2, 2), (3, 3), (4, 4), (9, 5)] {
        let kind = (Syntax::Lines, 100);
        let heard = fill_by(text.as_bytes(), kind, (50, false), limits(0, 1 << 20), Some(left)).0;
        assert_eq!(heard.records.len(), records, "{left}");
        for chunk in heard.chunks.iter().filter(|chunk| [203, 406].contains(&chunk.0)) {
            assert!(chunk.2, "{left}");
        }
    }
}
