//! Validation, the whole recipe, and the codec, on one core and in memory.
//!
//! Besides criterion's own report it prints the ratios that the project promises: rounds in which all variants take
//! turns, so that a noisy machine slows all of them alike; their medians, and the best, which noise spoils least.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod corpus;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pipeline::codec::{Codec, Encoder};
use pipeline::config::EnvelopeKind;
use pipeline::transform::recipe::{Letters, Recipe, RecipeOptions, Replay};
use pipeline::transform::{Out, Program};
use pipeline::{Chunk, Outputs, Partition, Record, Room, Transform};
use serde_json::value::RawValue;

const BYTES: usize = 4 << 20;
const ROUNDS: usize = 101;

/// Chunks as a source of messages fills them: nothing between the records.
fn chunks(corpus: &[u8], ending: Ending) -> Vec<Chunk> {
    let partition = Partition::named("file", "data1.json");
    let mut chunks: Vec<Chunk> = Vec::new();
    let (mut position, mut room) = (0, Room::Full);
    for line in corpus.split_inclusive(|byte| *byte == b'\n') {
        if room == Room::Full {
            chunks.push(Chunk::default());
            chunks.last_mut().expect("just pushed").start(&partition, position);
        }
        let record = if ending == Ending::Kept { line } else { &line[..line.len() - 1] };
        let chunk = chunks.last_mut().expect("the first round pushes one");
        room = chunk.push_spanning(position, line.len() as u32, record);
        position += line.len() as u64;
    }
    chunks
}

/// What a record's bytes end with.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// With the value.
    None,
    /// With a line feed: each record looks as if it had to be put into one line.
    Kept,
}

fn recipe(envelope: EnvelopeKind, transforms: Vec<Arc<dyn Transform>>) -> Recipe {
    Recipe::new(RecipeOptions {
        envelope,
        transforms,
        processed_by: "host1".to_owned(),
        dead_letters: Letters::Keep,
        replay: Replay::No,
        output_cap: 64 << 20,
    })
}

/// The yardstick: each line is validated, nothing else is done.
fn validate(corpus: &[u8]) {
    let mut from = 0;
    while let Some(len) = memchr::memchr(b'\n', &corpus[from..]) {
        let value: &RawValue = serde_json::from_slice(&corpus[from..from + len]).expect("valid");
        black_box(value.get().len());
        from += len + 1;
    }
}

/// The same of text that is known to be UTF-8.
fn validate_text(corpus: &str) {
    for line in corpus.lines() {
        let value: &RawValue = serde_json::from_str(line).expect("valid");
        black_box(value.get().len());
    }
}

fn run(recipe: &Recipe, chunks: &[Chunk], out: &mut Out) {
    for chunk in chunks {
        out.stored.clear();
        for section in chunk.sections() {
            recipe.run(&section, out);
        }
        black_box(out.stored.len());
    }
    assert_eq!(out.counts.rejected, 0);
}

fn encode(encoder: &mut Encoder, blocks: &[Vec<u8>], out: &mut Vec<u8>) {
    for block in blocks {
        out.clear();
        black_box(encoder.encode(block, out));
    }
}

/// One thing to measure.
type Variant<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Prints the speed of each variant and its ratio to the first: the medians, then the best rounds.
fn ratios(corpus: &str, bytes: usize, variants: &mut [Variant<'_>]) {
    let mut times = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((_, variant), times) in variants.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            variant();
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
    let (median, best) = (times[0][ROUNDS / 2], times[0][0]);
    println!("{corpus:8} {:32} {:>17}  {:>17}", "", "median", "best");
    for ((name, _), times) in variants.iter().zip(&times) {
        let middle = times[ROUNDS / 2];
        println!(
            "{corpus:8} {name:32} {:6.0} MB/s {:5.2}x  {:6.0} MB/s {:5.2}x",
            rate(middle),
            median / middle,
            rate(times[0]),
            best / times[0]
        );
    }
}

fn bench(criterion: &mut Criterion) {
    for (name, corpus) in [("flat", corpus::flat(BYTES)), ("nested", corpus::nested(BYTES))] {
        measure(criterion, name, &corpus);
    }
}

fn measure(criterion: &mut Criterion, name: &str, corpus: &[u8]) {
    let (all, kept) = (chunks(corpus, Ending::None), chunks(corpus, Ending::Kept));
    let singles = single(corpus);
    let identity: Arc<dyn Transform> = Arc::new(|record: &Record<'_>, out: &mut Outputs| {
        out.push(record.bytes);
        Ok(())
    });
    let envelope = recipe(EnvelopeKind::Default, Vec::new());
    let bare = recipe(EnvelopeKind::None, Vec::new());
    let events = recipe(EnvelopeKind::CloudEvents, Vec::new());
    let filter = recipe(EnvelopeKind::Default, vec![identity]);
    let text = std::str::from_utf8(corpus).expect("corpora are UTF-8");
    let mut outs: [Out; 6] = Default::default();
    let [a, b, c, d, e, f] = &mut outs;
    let mut variants: Vec<Variant<'_>> = vec![
        ("RawValue loop", Box::new(|| validate(corpus))),
        ("RawValue loop over checked text", Box::new(|| validate_text(text))),
        ("validate + envelope", Box::new(|| run(&envelope, &all, a))),
        ("validate + bare", Box::new(|| run(&bare, &all, b))),
        ("validate + CloudEvents", Box::new(|| run(&events, &all, c))),
        ("records end with LF", Box::new(|| run(&envelope, &kept, d))),
        ("one record a section", Box::new(|| run(&envelope, &singles, e))),
        ("a transform that keeps all", Box::new(|| run(&filter, &all, f))),
    ];
    ratios(name, corpus.len(), &mut variants);
    let mut group = criterion.benchmark_group(format!("transform/{name}"));
    group.throughput(Throughput::Bytes(corpus.len() as u64)).sample_size(10);
    for (name, variant) in &mut variants {
        group.bench_function(*name, |bencher| bencher.iter(&mut *variant));
    }
    group.finish();
    codecs(criterion, name, corpus);
}

/// A chunk for each record: what `-b 1` costs the recipe.
fn single(corpus: &[u8]) -> Vec<Chunk> {
    let partition = Partition::named("file", "data1.json");
    let mut position = 0;
    let lines = corpus[..corpus.len()].split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| {
            let mut chunk = Chunk::default();
            chunk.start(&partition, position);
            let _ = chunk.push_spanning(position, line.len() as u32, &line[..line.len() - 1]);
            position += line.len() as u64;
            chunk
        })
        .collect()
}

fn codecs(criterion: &mut Criterion, name: &str, corpus: &[u8]) {
    let blocks: Vec<Vec<u8>> = corpus.chunks(256 << 10).map(<[u8]>::to_vec).collect();
    let mut group = criterion.benchmark_group(format!("codec/{name}"));
    group.throughput(Throughput::Bytes(corpus.len() as u64)).sample_size(10);
    for codec in [Codec::Gzip(1), Codec::Gzip(6), Codec::Zstd(1), Codec::Zstd(3)] {
        let (mut encoder, mut out) = (Encoder::new(codec), Vec::new());
        group.bench_function(codec.to_string(), |bencher| {
            bencher.iter(|| encode(&mut encoder, &blocks, &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
