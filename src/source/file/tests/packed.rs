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
        let dir = Dir::new();
        let path = dir.write("x", packed);
        let options =
            FileOptions { format: Format::Ndjson, max_record_bytes: 200_000, ..options(&[path.as_str()]) };
        let stop = Stop::new();
        let start = Start { marks: &Forget, readers: 1, workers: 1, stop: &stop };
        let mut reader = FileSource::new(options).unwrap().open(&start).unwrap().remove(0);
        let mut chunk = Chunk { cutters: Cutters::new(limits), ..Chunk::default() };
        let Read::Assigned(partition, None) = reader.read(&mut chunk).unwrap() else { panic!() };
        chunk.cutters.assign(&partition, &[]);
        Scene { _dir: dir, path, reader, cutters: chunk.cutters }
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
    ) {
        let mut bytes = lines_of_many_kinds(&numbers);
        bytes.truncate(bytes.len() - cut);
        let limits = Limits { batch_size: 0, batch_bytes, block_bytes, block_records };
        let (heard, left, useless) =
            { let mut scene = Scene::of(packed(&bytes, gzip), limits); drive_left(depth, || scene.fill()) };
        prop_assert!(heard == one_by_one(&bytes, limits));
        prop_assert!(left > 0 || block_bytes > 2000, "{}", useless);
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
    let bytes = [numbered(20_000), b"1\n".repeat(400_000), numbered(20_000)].concat();
    let limits = Limits { block_records: 2700, ..SMALL };
    let mut scene = Scene::new(&bytes, limits);
    let (heard, left, useless) = drive_left(1, || scene.fill());
    // Nine, and seven behind the first that is not dense; one that is partly so is left, too.
    assert_eq!((heard.records.len(), left, useless), (440_000, 17, 0));
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

#[test]
fn a_file_that_is_another_one_when_the_reader_goes_back_is_never_mixed() {
    let limits = Limits { block_records: 3500, ..SMALL };
    for (other, said) in [
        (packed(&numbered(7000), false), "changed while it was read"),
        (packed(&numbered(30_000), true), "changed while it was read"),
        (b"x\n".repeat(50_000), "changed while it was read"),
    ] {
        let mut scene = Scene::new(&deceiving(30), limits);
        let begun: Vec<Chunk> = (0..5).map(|_| scene.next()).collect();
        let length = fs::metadata(&scene.path).unwrap().len();
        // In place.
        fs::write(&scene.path, &other).unwrap();
        let file = fs::File::options().write(true).open(&scene.path).unwrap();
        file.set_len(length.max(other.len() as u64)).unwrap();
        let mut begun = begun.into_iter().map(|mut chunk| {
            chunk.run_errand();
            chunk
        });
        let mut heard = Heard::default();
        let error = loop {
            let (filled, mut chunk) = match begun.next() {
                Some(chunk) => (Filled::Chunk, chunk),
                None => scene.fill(),
            };
            match filled {
                Filled::Chunk => {
                    chunk.run_errand();
                    if chunk.errand.as_ref().is_none_or(|errand| errand.lines().is_some()) {
                        heard.add(&chunk);
                    }
                }
                Filled::Over(error) => break error.map(|error| error.to_string()).unwrap_or_default(),
                _ => {}
            }
        };
        assert!(error.contains(said), "{error}");
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
    let mut chunks = Vec::new();
    loop {
        let (filled, chunk) = scene.fill();
        if matches!(filled, Filled::Idle) {
            break;
        }
        chunks.push(chunk);
    }
    let counted = chunks.iter().position(|chunk| chunk.lined.count().is_some()).unwrap();
    let rest = &chunks[counted..];
    assert!(counted > 40 && rest.len() > LAST, "{counted}, {}", rest.len());
    assert!(chunks.iter().all(|chunk| chunk.errand.is_some()));
    assert!(rest.iter().all(|chunk| chunk.lined.count() == Some(2000)));
    // Where those before are done by now the last one begins.
    chunks[..counted].iter_mut().for_each(Chunk::run_errand);
    let last = std::iter::from_fn(|| Some(scene.next())).find(|chunk| {
        assert!(chunk.errand.is_none() && chunk.line == chunk.start / 10 + 1);
        !chunk.cuts.is_empty()
    });
    assert_eq!(last.unwrap().cuts[0].line, 200_001);
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
