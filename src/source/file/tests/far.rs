//! Blocks that a reader leaves to workers.

use std::time::Duration;

use proptest::prelude::*;

use super::super::bytes::{Home, Place, Raw};
use super::super::far::{Far, Way, is_worth_it};
use super::super::tally::{Reached, Tally, Why};
use super::streaming::{begin, fill_by, lines_of_many_kinds};
use super::*;

/// Looks at a file wherever the test stands: not every file system tells whether somebody would have to wait.
pub(super) fn look(home: &Home, out: &mut [u8], at: u64) -> usize {
    let mut read = Vec::with_capacity(out.len());
    home.read_at(&mut read, at).unwrap();
    let count = read.len().min(out.len());
    out[..count].copy_from_slice(&read[..count]);
    count
}

/// A file, what fills chunks of it, and chunks that were left to a worker.
struct Scene {
    _dir: Dir,
    path: String,
    raw: Raw,
    filler: Filler,
    cutters: Cutters,
}

impl Scene {
    fn new(bytes: &[u8], limits: Limits) -> Self {
        Scene::looking(bytes, limits, look)
    }

    fn looking(bytes: &[u8], limits: Limits, look: super::super::bytes::Look) -> Self {
        let dir = Dir::new();
        let path = dir.write("x", bytes);
        let raw = Raw::regular("x", Path::new(&path), &Arc::default()).unwrap();
        let far = Far::new(Way::Read(Place { look, ..raw.place().unwrap() }), 2);
        let size = Some(bytes.len() as u64);
        let filler = Filler::new(Begin { far: Some(far), size, ..begin(Syntax::Lines, 200_000) });
        Scene { _dir: dir, path, raw, filler, cutters: Cutters::new(limits) }
    }

    fn fill(&mut self) -> (Filled, Chunk) {
        let mut chunk = Chunk { cutters: std::mem::take(&mut self.cutters), ..Chunk::default() };
        let filled = self.filler.fill(&mut chunk, &mut self.raw, &Stop::new());
        self.cutters = std::mem::take(&mut chunk.cutters);
        (filled, chunk)
    }

    fn drive(mut self, depth: usize) -> (Heard, usize, usize) {
        drive_left(depth, || self.fill())
    }
}

/// All that comes of it, how many chunks were left to workers, who begin with so many at a time, the last first, and
/// how many of those were of no use.
pub(super) fn drive_left(depth: usize, mut fill: impl FnMut() -> (Filled, Chunk)) -> (Heard, usize, usize) {
    let (mut heard, mut left, mut useless, mut begun) = (Heard::default(), 0, 0, Vec::new());
    loop {
        let (filled, chunk) = fill();
        let is_chunk = matches!(filled, Filled::Chunk);
        if is_chunk {
            left += usize::from(chunk.errand.is_some());
            begun.push(chunk);
        }
        if begun.len() >= depth || !is_chunk {
            begun.iter_mut().rev().for_each(Chunk::run_errand);
            for chunk in begun.drain(..) {
                match chunk.errand.as_ref().is_some_and(|errand| errand.lines().is_none()) {
                    true => useless += 1,
                    false => heard.add(&chunk),
                }
            }
        }
        if let Filled::Over(error) = filled {
            assert!(error.is_none(), "{error:?}");
            return (heard, left, useless);
        }
    }
}

pub(super) const SMALL: Limits =
    Limits { batch_size: 0, batch_bytes: 0, block_bytes: 20_000, block_records: 4000 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn workers_find_what_a_reader_finds_line_by_line(
        numbers in prop::collection::vec(any::<u32>(), 1000..3000),
        cut in 0..3usize,
        batch_bytes in prop::sample::select(vec![0, 200_000, 1 << 20]),
        // In the first many records fit, in the last much white space.
        (block_bytes, block_records) in prop::sample::select(vec![(2000, 1000), (5000, 60), (150_000, 4000)]),
    ) {
        let mut bytes = lines_of_many_kinds(&numbers);
        bytes.truncate(bytes.len() - cut);
        let limits = Limits { batch_size: 0, batch_bytes, block_bytes, block_records };
        let (one_by_one, none) = fill_by(&bytes, (Syntax::Lines, 200_000), (5000, false), limits, Some(u64::MAX));
        prop_assert_eq!(none, 0);
        let (heard, left, useless) = Scene::new(&bytes, limits).drive(1);
        prop_assert!(heard == one_by_one);
        prop_assert!(left > useless + 1 || block_bytes > 2000, "{}, {}", left, useless);
    }
}

/// Lines of ten bytes, from number 0 on.
pub(super) fn numbered(count: usize) -> Vec<u8> {
    (0..count).map(|n| format!("{n:9}\n")).collect::<String>().into_bytes()
}

#[test]
fn all_but_the_first_and_the_last_block_are_left_to_workers() {
    let bytes = numbered(40_000);
    let (heard, left, useless) = Scene::new(&bytes, SMALL).drive(1);
    assert_eq!((heard.records.len(), heard.chunks.len()), (40_000, 20));
    // Up to the end there may be a block and a long line.
    assert_eq!((left, useless), (20 - 1 - 2, 0));
}

#[test]
fn what_is_not_at_hand_is_read_by_the_reader_and_so_are_the_next_ones() {
    let bytes = numbered(80_000);
    // Nothing is at hand behind the first 100 KB.
    let (heard, left, useless) = Scene::looking(&bytes, SMALL, |home, out, at| match at {
        0..100_000 | 300_000.. => look(home, out, at),
        _ => 0,
    })
    .drive(1);
    assert_eq!((heard.records.len(), heard.chunks.len()), (80_000, 40));
    assert_eq!((left, useless), (3 + (40 - 4 - 17 - 2), 0));
}

#[test]
fn tiny_records_are_the_readers() {
    let bytes = [numbered(20_000), b"1\n".repeat(400_000)].concat();
    let limits = Limits { block_records: 2500, ..SMALL };
    let (heard, left, useless) = Scene::new(&bytes, limits).drive(1);
    assert_eq!((heard.records.len(), left, useless), (420_000, 8, 0));
}

#[test]
fn the_reader_goes_back_to_blocks_that_turn_out_to_be_several() {
    let long = format!("{:4999}\n", 7);
    // What is seen of such blocks is their ends: of tiny records, and of white space.
    for (inside, limits) in [
        ("1\n".repeat(5000), SMALL),
        (" ".repeat(75_000) + "\n", Limits { block_bytes: 85_001, block_records: 20_000, ..SMALL }),
    ] {
        let block = [&*long, &inside, &long].concat();
        let begin = numbered(2 * limits.block_bytes as usize / 10);
        let bytes = [begin, block.repeat(30).into_bytes(), numbered(50_000)].concat();
        let (one_by_one, _) =
            fill_by(&bytes, (Syntax::Lines, 200_000), (5000, false), limits, Some(u64::MAX));
        assert!(one_by_one.records.len() > 50_000);
        for depth in [1, 4] {
            let (heard, left, useless) = Scene::new(&bytes, limits).drive(depth);
            assert!(heard == one_by_one);
            assert!(useless > 0, "of {left}");
        }
    }
}

#[test]
fn the_reader_waits_for_lines_that_are_still_counted() {
    let bytes = numbered(10_000);
    let mut scene = Scene::new(&bytes, SMALL);
    let (Filled::Chunk, first) = scene.fill() else { panic!() };
    let (Filled::Chunk, mut second) = scene.fill() else { panic!() };
    let (Filled::Chunk, mut third) = scene.fill() else { panic!() };
    assert!(first.errand.is_none() && second.errand.is_some() && third.errand.is_some());
    third.run_errand();
    assert!(matches!(scene.fill().0, Filled::Idle));
    second.run_errand();
    assert_eq!(second.errand.as_ref().unwrap().lines(), Some((2001, 4001)));
    assert_eq!(third.errand.as_ref().unwrap().lines(), Some((4001, 6001)));
    let (Filled::Chunk, fourth) = scene.fill() else { panic!() };
    assert_eq!((fourth.line, fourth.end_line), (6001, 8001));
}

/// What comes of a file that is changed when two blocks of it were left to workers.
#[track_caller]
fn meddled(meddle: impl FnOnce(&str)) -> (Heard, String) {
    let mut scene = Scene::new(&numbered(10_000), SMALL);
    let mut heard = Heard::default();
    let (Filled::Chunk, first) = scene.fill() else { panic!() };
    heard.add(&first);
    let (Filled::Chunk, mut second) = scene.fill() else { panic!() };
    let (Filled::Chunk, mut third) = scene.fill() else { panic!() };
    meddle(&scene.path);
    second.run_errand();
    third.run_errand();
    assert!(second.bytes.is_empty() && second.is_empty());
    assert_eq!(second.errand.as_ref().unwrap().lines(), None);
    assert_eq!(third.errand.as_ref().unwrap().lines(), None);
    loop {
        match scene.fill() {
            (Filled::Chunk, chunk) => heard.add(&chunk),
            (Filled::Idle, _) => {}
            (Filled::Back(..), _) => panic!("nothing was decoded"),
            (Filled::Over(error), _) => {
                assert!(matches!(scene.fill().0, Filled::Over(None)), "told once");
                return (heard, error.unwrap().to_string());
            }
        }
    }
}

/// The reader sees the fault itself, and every record before it.
#[test]
fn the_reader_goes_back_to_a_block_that_cannot_be_read() {
    let truncate = |path: &str| fs::File::options().write(true).open(path).unwrap().set_len(30_000).unwrap();
    let (heard, said) = meddled(truncate);
    assert!(said.contains("truncated while it was read, from 100000 to 30000 bytes"), "{said}");
    assert!(said.contains("byte 30000"), "{said}");
    assert_eq!((heard.records.len(), heard.records[2999].line), (3000, 3000));
    let (_, said) = meddled(|path| fs::write(path, "y".repeat(100_000)).unwrap());
    assert!(said.contains("while it was read"), "{said}");
}

#[test]
fn where_nobody_does_the_work_nobody_waits_for_it() {
    let mut scene = Scene::new(&numbered(10_000), SMALL);
    let (Filled::Chunk, _) = scene.fill() else { panic!() };
    let (Filled::Chunk, second) = scene.fill() else { panic!() };
    let (Filled::Chunk, mut third) = scene.fill() else { panic!() };
    third.run_errand();
    drop(second);
    assert_eq!(third.errand.as_ref().unwrap().lines(), None);
    assert!(matches!(scene.fill().0, Filled::Idle), "the run is aborted");
}

#[test]
fn the_first_block_that_is_given_up_ends_it_and_lines_before_it_are_known() {
    let tally = Tally::new();
    tally.begin(100, 5);
    tally.give_up(300, Why::Aborted);
    assert_eq!(tally.reach(400, Duration::ZERO), Reached::NotYet, "it may be an earlier one");
    tally.give_up(200, Why::Unfit);
    tally.give_up(400, Why::Aborted);
    assert_eq!(tally.reach(400, Duration::ZERO), Reached::NotYet);
    tally.count(100, 200, 7);
    assert_eq!(tally.lines(100), Some((5, 12)));
    assert_eq!(tally.reach(400, Duration::ZERO), Reached::Back(200, 12));
    tally.count(300, 400, 1);
    assert!(tally.is_given_up() && tally.lines(200).is_none() && tally.lines(300).is_none());
}

/// A chunk may be dropped when its lines were counted, before those in front of it were.
#[test]
fn a_block_that_is_forgotten_keeps_nobody_from_the_lines_behind_it() {
    let tally = Tally::new();
    tally.begin(0, 1);
    tally.count(10, 20, 3);
    tally.forget(10);
    tally.count(20, 30, 5);
    tally.count(0, 10, 4);
    assert_eq!(tally.lines(20), Some((8, 13)));
    assert_eq!(tally.reach(30, Duration::ZERO), Reached::Line(13));
}

#[test]
fn long_lines_are_left_to_workers_too() {
    for length in [200, 500, 1000, 3000] {
        let bytes: String = (0..1_000_000 / length).map(|n| format!("{n:0$}\n", length - 1)).collect();
        let (heard, left, useless) = Scene::new(bytes.as_bytes(), SMALL).drive(1);
        // Of the first and the last ones the reader takes care.
        assert!(left >= heard.chunks.len() - 5 && useless == 0, "{length}: {left} of {}", heard.chunks.len());
    }
}

#[test]
fn the_last_block_that_is_left_has_room() {
    let bytes = numbered(70_000);
    let limits = Limits { block_bytes: 150_000, block_records: 100_000, ..SMALL };
    let mut scene = Scene::new(&bytes, limits);
    let mut left = 0;
    while let (Filled::Chunk, mut chunk) = scene.fill() {
        if chunk.errand.is_some() {
            left += 1;
            let room = chunk.bytes.capacity();
            chunk.run_errand();
            assert!(room >= chunk.bytes.len() && chunk.bytes.capacity() == room, "{room}");
        }
    }
    assert_eq!(left, 3);
}

#[test]
fn whoever_waits_for_lines_hears_of_them() {
    let tally = Tally::new();
    tally.begin(0, 1);
    tally.count(10, 20, 3);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tally.lines(10));
        let reader = scope.spawn(|| tally.reach(20, Duration::from_secs(60)) == Reached::Line(8));
        tally.count(0, 10, 4);
        assert_eq!(waiting.join().unwrap(), Some((5, 8)));
        assert!(reader.join().unwrap());
    });
    tally.forget(0);
    tally.forget(10);
}

#[test]
fn workers_read_where_no_processor_is_free_for_the_reader_or_one_reader_is_not_enough() {
    for (workers, processors, far) in [
        (0, 1, false),
        (1, 1, true),
        (1, 2, false),
        (2, 2, true),
        (3, 4, false),
        (4, 16, true),
        (3, 16, false),
    ] {
        assert_eq!(is_worth_it(workers, processors), far, "{workers} workers, {processors} processors");
    }
}
