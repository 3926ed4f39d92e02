//! Blocks of decoded lines, which workers count.

use proptest::prelude::*;

use super::super::fill::LAST;
use super::far::{SMALL, drive_left, numbered};
use super::streaming::{fill_by, lines_of_many_kinds};
use super::*;

/// A compressed file, and what reads it.
struct Scene {
    _dir: Dir,
    path: String,
    reader: Box<dyn Reader>,
    cutters: Cutters,
    consumed: Arc<AtomicU64>,
}

/// In members of all sizes.
fn packed(bytes: &[u8], gzip: bool) -> Vec<u8> {
    let pack = |piece: &[u8]| match gzip {
        true => super::gzip(piece),
        false => zstd::bulk::compress(piece, 1).unwrap(),
    };
    let (small, rest) = bytes.split_at(bytes.len().min(10_001));
    let (most, last) = rest.split_at(rest.len() * 2 / 3);
    [small, most, last].map(pack).concat()
}

impl Scene {
    fn new(bytes: &[u8], limits: Limits) -> Self {
        Scene::of(packed(bytes, false), limits)
    }

    fn of(packed: Vec<u8>, limits: Limits) -> Self {
        Scene::from(packed, limits, 0)
    }

    /// Goes on at byte `at`, before which there are lines of ten bytes.
    fn from(packed: Vec<u8>, limits: Limits, at: u64) -> Self {
        let dir = Dir::new();
        let path = dir.write("x", packed);
        let options =
            FileOptions { format: Format::Ndjson, max_record_bytes: 200_000, ..options(&[path.as_str()]) };
        let stop = Stop::new();
        let start = Start { marks: &At(at, at / 10 + 1, false), readers: 1, workers: 1, stop: &stop };
        let source = FileSource::new(options).unwrap();
        let (mut reader, consumed) = (source.open(&start).unwrap().remove(0), source.consumed());
        let mut chunk = Chunk { cutters: Cutters::new(limits), ..Chunk::default() };
        let Read::Assigned(partition, _) = reader.read(&mut chunk).unwrap() else { panic!() };
        chunk.cutters.assign(&partition, &[]);
        Scene { _dir: dir, path, reader, cutters: chunk.cutters, consumed }
    }

    fn fill(&mut self) -> (Filled, Chunk) {
        let mut chunk = Chunk { cutters: std::mem::take(&mut self.cutters), ..Chunk::default() };
        let filled = match self.reader.read(&mut chunk).unwrap() {
            Read::Chunk => Filled::Chunk,
            Read::Idle => Filled::Idle,
            Read::Ended(_) => Filled::Over(None),
            Read::Failed(_, error) => Filled::Over(Some(error)),
            other => panic!("{other:?}"),
        };
        self.cutters = std::mem::take(&mut chunk.cutters);
        (filled, chunk)
    }

    fn next(&mut self) -> Chunk {
        let (Filled::Chunk, chunk) = self.fill() else { panic!() };
        chunk
    }
}

fn one_by_one(bytes: &[u8], limits: Limits) -> Heard {
    fill_by(bytes, (Syntax::Lines, 200_000), (5000, false), limits, Some(u64::MAX)).0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn workers_count_what_a_reader_counts(
        numbers in prop::collection::vec(any::<u32>(), 1000..3000),
        cut in 0..3usize,
        gzip: bool,
        depth in 1..6usize,
        batch_bytes in prop::sample::select(vec![0, 1 << 20, 2 << 20]),
        // In the first many records fit, in the last much white space.
        (block_bytes, block_records) in prop::sample::select(vec![(2000, 1000), (5000, 60), (9000, 3000), (150_000, 4000)]),
        tame: bool,
    ) {
        // Without what is no block; then more of them are left to workers.
        let tamed = |number: u32| if tame && number % 200 < 3 { number - number % 200 + 20 } else { number };
        let numbers: Vec<u32> = numbers.into_iter().map(tamed).collect();
        let mut bytes = lines_of_many_kinds(&numbers);
        bytes.truncate(bytes.len() - cut);
        let limits = Limits { batch_size: 0, batch_bytes, block_bytes, block_records };
        let (heard, left, useless) =
            { let mut scene = Scene::of(packed(&bytes, gzip), limits); drive_left(depth, || scene.fill()) };
        prop_assert!(heard == one_by_one(&bytes, limits));
        prop_assert!(left > 0 || !tame || !matches!(block_bytes, 2000 | 9000), "{}", useless);
    }
}

#[test]
fn all_blocks_are_left_to_workers_but_the_first() {
    for gzip in [false, true] {
        let bytes = numbered(40_000);
        let mut scene = Scene::of(packed(&bytes, gzip), SMALL);
        let (heard, left, useless) = drive_left(1, || scene.fill());
        assert_eq!((heard.records.len(), heard.chunks.len(), left, useless), (40_000, 20, 19, 0));
    }
}

#[test]
fn the_reader_counts_short_lines_itself() {
    let bytes = [numbered(20_000), b"1\n".repeat(400_000), numbered(60_000)].concat();
    let limits = Limits { block_records: 2700, ..SMALL };
    let mut scene = Scene::new(&bytes, limits);
    let (heard, left, useless) = drive_left(1, || scene.fill());
    assert_eq!((heard.records.len(), useless), (480_000, 0));
    // The reader goes on with it for sixteen blocks.
    assert_eq!(left, 9 + 30 - 16);
}

/// What is looked at stands between what is dense: this is found by a worker.
fn deceiving(blocks: usize) -> Vec<u8> {
    let block = [format!("{:299}\n", 7), "1\n".repeat(3800), format!("{:12100}\n", 7)].concat();
    [numbered(8000), block.repeat(blocks).into_bytes(), numbered(50_000)].concat()
}

#[test]
fn the_reader_goes_back_to_blocks_that_turn_out_to_be_several() {
    let limits = Limits { block_records: 3500, ..SMALL };
    let bytes = deceiving(30);
    let expected = one_by_one(&bytes, limits);
    assert!(expected.records.len() > 100_000);
    for depth in [1, 4] {
        let mut scene = Scene::new(&bytes, limits);
        let (heard, left, useless) = drive_left(depth, || scene.fill());
        assert!(heard == expected);
        // Once: to come there all that stands before was decoded again.
        assert_eq!((left, useless), (3 + depth, depth));
    }
}

/// Fills until the input is over or fails: what is heard, and what is said.
fn rest(scene: &mut Scene, mut begun: Vec<Chunk>) -> (Heard, String) {
    let mut heard = Heard::default();
    begun.iter_mut().for_each(Chunk::run_errand);
    loop {
        for chunk in begun.drain(..) {
            if chunk.errand.as_ref().is_none_or(|errand| errand.lines().is_some()) {
                heard.add(&chunk);
            }
        }
        match scene.fill() {
            (Filled::Chunk, mut chunk) => {
                chunk.run_errand();
                begun.push(chunk);
            }
            (Filled::Over(error), _) => {
                return (heard, error.map_or_else(String::new, |error| error.to_string()));
            }
            _ => {}
        }
    }
}

#[test]
fn a_file_that_is_another_one_when_the_reader_goes_back_is_never_mixed() {
    let limits = Limits { block_records: 3500, ..SMALL };
    let (old, new) = (deceiving(30), numbered(30_000).iter().rev().copied().collect::<Vec<u8>>());
    let expected = one_by_one(&old, limits);
    let foreign = b"PK\x03\x04".repeat(20_000);
    for other in [
        packed(&new[1..], true),
        packed(&new[1..], false),
        packed(&new[..70_000], false),
        old.clone(),
        foreign,
    ] {
        let mut scene = Scene::new(&old, limits);
        let begun: Vec<Chunk> = (0..5).map(|_| scene.next()).collect();
        fs::write(&scene.path, &other).unwrap();
        let (heard, said) = rest(&mut scene, begun);
        assert!(said.contains("while it was read"), "{said}");
        assert_eq!(heard.records.len(), 8000, "{said}");
        assert!(heard.records == expected.records[..8000]);
    }
}

#[test]
fn a_file_that_has_grown_when_the_reader_goes_back_is_read_to_where_it_ended() {
    let limits = Limits { block_records: 3500, ..SMALL };
    let mut scene = Scene::new(&deceiving(3), limits);
    let begun: Vec<Chunk> = (0..5).map(|_| scene.next()).collect();
    let mut file = fs::File::options().append(true).open(&scene.path).unwrap();
    file.write_all(&packed(b"1\n", false)).unwrap();
    let (heard, said) = rest(&mut scene, begun);
    assert_eq!(said, "");
    assert!(heard == one_by_one(&deceiving(3), limits));
}

#[test]
fn damage_behind_the_place_to_which_the_reader_goes_back_is_told_as_ever() {
    let limits = Limits { block_records: 3500, ..SMALL };
    let whole = packed(&deceiving(30), true);
    let mut scene = Scene::of(whole[..whole.len() - 1000].to_vec(), limits);
    let (heard, said) = rest(&mut scene, Vec::new());
    assert!(said.contains("it ends in the middle of a gzip member"), "{said}");
    let expected = one_by_one(&deceiving(30), limits);
    assert!(heard.records.len() > 100_000 && heard.records == expected.records[..heard.records.len()]);
}

/// Whoever goes on behind a mark goes back to nothing before it.
#[test]
fn what_is_decoded_again_is_read_once() {
    let limits = Limits { block_records: 3500, ..SMALL };
    let bytes = deceiving(3);
    for at in [0, 40_000] {
        let mut scene = Scene::from(packed(&bytes, false), limits, at);
        let (heard, said) = rest(&mut scene, Vec::new());
        assert_eq!(said, "");
        let expected = one_by_one(&bytes, limits);
        assert!(heard.records == expected.records[at as usize / 10..]);
        let size = fs::metadata(&scene.path).unwrap().len();
        assert_eq!(scene.consumed.load(Ordering::Relaxed), size, "each byte counts once");
    }
}

#[test]
fn a_chunk_waits_for_the_number_of_its_first_line() {
    let bytes = [numbered(6000), b"\"".to_vec(), b"x".repeat(120_000), b"\"\n".to_vec()].concat();
    let mut scene = Scene::new(&bytes, SMALL);
    let (_, mut first, mut second) = (scene.next(), scene.next(), scene.next());
    assert!(first.errand.is_some() && second.errand.is_some());
    second.run_errand();
    // A line that ends so far behind the block's end is looked at.
    assert!(matches!(scene.fill().0, Filled::Idle) && matches!(scene.fill().0, Filled::Idle));
    first.run_errand();
    let third = scene.next();
    assert_eq!((third.line, third.end_line, third.start, third.end), (6001, 6002, 60_000, 180_003));
    assert!(third.errand.is_none());
}

/// When a batch ends the number of the line has to be known; nobody waits for it.
#[test]
fn the_reader_counts_the_last_blocks_of_a_batch_itself() {
    let limits = Limits { batch_bytes: 2_000_000, ..SMALL };
    let mut scene = Scene::new(&numbered(800_000), limits);
    scene.next();
    let mut counted = Vec::new();
    let mut left = 0;
    let last = loop {
        let mut chunk = scene.next();
        if chunk.errand.is_none() {
            break chunk;
        }
        match chunk.lined.count() {
            None => {
                assert!(counted.is_empty());
                left += 1;
                chunk.run_errand();
            }
            Some(lines) => {
                assert_eq!(lines, 2000);
                counted.push(chunk);
            }
        }
    };
    assert!(left > 40 && counted.len() > LAST, "{left}, {}", counted.len());
    assert_eq!(last.line, last.start / 10 + 1);
    let cut = std::iter::once(last)
        .chain(std::iter::from_fn(|| Some(scene.next())))
        .find(|chunk| !chunk.cuts.is_empty());
    assert_eq!(cut.unwrap().cuts[0].line, 200_001);
}

#[test]
fn where_workers_are_behind_the_reader_counts_itself() {
    let mut scene = Scene::new(&numbered(400_000), SMALL);
    scene.next();
    let mut begun: Vec<Chunk> = (0..30).map(|_| scene.next()).collect();
    let left = begun.iter().filter(|chunk| chunk.lined.count().is_none()).count();
    assert_eq!(left, 4);
    begun.iter_mut().for_each(Chunk::run_errand);
    assert!(scene.next().lined.count().is_none(), "they are not any more");
}

#[test]
fn where_nobody_counts_nobody_waits_for_it() {
    let mut scene = Scene::new(&numbered(10_000), SMALL);
    let (_, first, mut second) = (scene.next(), scene.next(), scene.next());
    second.run_errand();
    drop(first);
    assert_eq!(second.errand.as_ref().unwrap().lines(), None);
    assert!(matches!(scene.fill().0, Filled::Idle), "the run is aborted");
}
