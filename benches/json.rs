//! Record boundaries: the scanners over a buffer, and the file source from the page cache into chunks.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use pipeline::Chunk;
use pipeline::config::Format;
use pipeline::json::{Found, Scanner, Syntax, Tail};
use pipeline::source::file::{FileOptions, FileSource};
use pipeline::source::{Forget, Read, Source, Start};
use pipeline::stop::Stop;

/// Flat events of about 200 bytes, joined by `between`.
fn events(bytes: usize, between: &str) -> String {
    let mut text = String::with_capacity(bytes + 300);
    let mut n = 0u64;
    while text.len() < bytes {
        if n > 0 {
            text.push_str(between);
        }
        n = n.wrapping_add(1);
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.push_str(&format!(
            "{{\"id\":{n},\"time\":\"2026-11-23T12:00:{:02}Z\",\"level\":\"info\",\"service\":\"shop-{}\",\
             \"status\":200,\"duration_ms\":{},\"user\":\"{hash:016x}\",\"message\":\"request served from cache\"}}",
            n % 60,
            hash % 16,
            hash % 997
        ));
    }
    text
}

fn scan(text: &[u8], syntax: Syntax) -> usize {
    let mut scanner = Scanner::new(syntax, 16 << 20);
    let mut count = 0;
    while let Found::Record(span) = scanner.next(text, Tail::Last) {
        count += span.end - span.begin;
    }
    count
}

fn scanners(c: &mut Criterion) {
    let mut group = c.benchmark_group("boundaries");
    let lines = events(4 << 20, "\n");
    let array = format!("[{}]", events(4 << 20, ","));
    for (name, text, syntax) in [
        ("ndjson", &lines, Syntax::Lines),
        ("array", &array, Syntax::Array),
        ("values", &lines, Syntax::Values),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| scan(black_box(text.as_bytes()), syntax)));
    }
}

fn read(path: &str, chunk: &mut Chunk) -> usize {
    let source = FileSource::new(FileOptions {
        inputs: vec![path.to_owned()],
        format: Format::Auto,
        max_record_bytes: 16 << 20,
        shard: None,
        limit: None,
        window_limit: 8 << 20,
        outputs: Vec::new(),
    })
    .expect("the file was just written");
    let stop = Stop::new();
    let start = Start { marks: &Forget, readers: 1, workers: 0, stop: &stop };
    let mut readers = source.open(&start).expect("a file source opens");
    let mut count = 0;
    loop {
        match readers[0].read(chunk).expect("reading does not fail") {
            Read::Chunk => count += chunk.len(),
            Read::Done => return count,
            Read::Failed(_, error) => panic!("{error}"),
            _ => {}
        }
    }
}

/// A file that is removed when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("pipeline-bench-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary directory takes a file");
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn reader(c: &mut Criterion) {
    let mut group = c.benchmark_group("reader");
    group.sample_size(10);
    let lines = events(64 << 20, "\n");
    let array = format!("[{}]", events(64 << 20, ","));
    let tiny = "12345678\n".repeat(2 << 20);
    let packed = zstd::bulk::compress(lines.as_bytes(), 1).expect("it compresses");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, lines.as_bytes()).expect("a vector takes it");
    let gzip = gzip.finish().expect("a vector takes it");
    let mut chunk = Chunk::default();
    for (name, bytes, len) in [
        ("ndjson", lines.as_bytes(), lines.len()),
        ("array", array.as_bytes(), array.len()),
        ("tiny", tiny.as_bytes(), tiny.len()),
        ("zstd", &packed, lines.len()),
        ("gzip", &gzip, lines.len()),
    ] {
        let file = Temporary::new(name, bytes);
        let path = file.0.to_str().expect("a temporary path is UTF-8").to_owned();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| read(&path, &mut chunk)));
    }
    drop(group);
    decoders(c, &packed, &gzip, lines.len());
}

/// The decoders alone, for comparison.
fn decoders(c: &mut Criterion, packed: &[u8], gzip: &[u8], len: usize) {
    let mut group = c.benchmark_group("decoder");
    group.sample_size(10).throughput(Throughput::Bytes(len as u64));
    let mut out = vec![0; 256 << 10];
    group.bench_function("zstd", |b| {
        b.iter(|| {
            let decoder = zstd::stream::Decoder::with_buffer(packed).expect("it was just compressed");
            drain(decoder, &mut out)
        });
    });
    group.bench_function("gzip", |b| b.iter(|| drain(flate2::bufread::MultiGzDecoder::new(gzip), &mut out)));
}

fn drain(mut from: impl std::io::Read, out: &mut [u8]) -> usize {
    let mut all = 0;
    loop {
        match from.read(out).expect("it was just compressed") {
            0 => return all,
            count => all += count,
        }
    }
}

criterion_group!(benches, scanners, reader);
criterion_main!(benches);
