//! The table of the README: whole runs of the release binary against what they are measured by, interleaved.
//!
//! `cargo bench --bench table`, or `make bench`. Every round runs every variant once, so that a noisy machine
//! slows all of them alike; printed are medians, the median of the ratios within a round, and the best of all
//! rounds. `BENCH_MB` (256) sets the size of the corpus, `BENCH_ROUNDS` (9) the number of rounds. DuckDB, Benthos and jq
//! are measured where `duckdb`, `benthos` and `jq` are found.

mod corpus;
mod fake;

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use fake::{Memory, Null, recipe};
use pipeline::cut::Limits;
use pipeline::pipeline::{Pipeline, Settings};
use serde_json::value::RawValue;

/// What is measured: a name, and how it is done once; returns seconds.
struct Variant<'a> {
    name: &'a str,
    bytes: u64,
    run: Box<dyn Fn() -> f64 + 'a>,
    seconds: Vec<f64>,
}

/// A goal: a variant against another.
struct Goal {
    text: &'static str,
    of: usize,
    against: usize,
    /// How much more one has to do than the other, for the ratio of times to mean the same work.
    limit: Limit,
}

/// A variant's name, bytes, and how it is done once.
type Row<'a> = (&'a str, u64, Box<dyn Fn() -> f64 + 'a>);

enum Limit {
    AtLeastSpeed(f64),
    AtMostTime(f64),
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (megabytes, rounds) = (number("BENCH_MB", 256), number("BENCH_ROUNDS", 9));
    let dir = std::env::temp_dir().join(format!("pipeline-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("the temporary directory can be made");
    let corpora = Corpora::make(&dir, megabytes << 20);
    speed(&corpora, rounds);
    rivals(&corpora, rounds);
    memory(&corpora, &dir);
    startup(rounds);
    fs::remove_dir_all(&dir).expect("the temporary directory can be removed");
}

struct Corpora {
    dir: PathBuf,
    flat: Vec<u8>,
    file: PathBuf,
    halves: [PathBuf; 2],
    gzip: PathBuf,
    zstd: PathBuf,
    nested: PathBuf,
    nested_bytes: Vec<u8>,
}

impl Corpora {
    fn make(dir: &Path, bytes: usize) -> Self {
        let at = |name: &str| dir.join(name);
        let flat = corpus::flat(bytes);
        let nested_bytes = corpus::nested(bytes);
        let middle =
            memchr::memchr(b'\n', &flat[flat.len() / 2..]).map_or(flat.len(), |at| flat.len() / 2 + at + 1);
        let write = |name: &str, bytes: &[u8]| {
            fs::write(at(name), bytes).expect("the corpus can be written");
            at(name)
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&flat).expect("memory takes it");
        let gzip = gzip.finish().expect("memory takes it");
        let zstd = zstd::bulk::compress(&flat, 1).expect("memory takes it");
        Corpora {
            dir: dir.to_owned(),
            file: write("flat.ndjson", &flat),
            halves: [write("a.ndjson", &flat[..middle]), write("b.ndjson", &flat[middle..])],
            gzip: write("flat.ndjson.gz", &gzip),
            zstd: write("flat.ndjson.zst", &zstd),
            nested: write("nested.ndjson", &nested_bytes),
            flat,
            nested_bytes,
        }
    }
}

/// The program, quiet and without a state, with these arguments.
fn pipeline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.args(["-q", "--progress", "never", "--state", "none"]).args(args).stdin(Stdio::null());
    command
}

/// Seconds until all of these, started together, are done.
fn together(commands: Vec<Command>) -> f64 {
    let begun = Instant::now();
    let running: Vec<_> = commands.into_iter().map(|mut c| c.spawn().expect("the program starts")).collect();
    for mut child in running {
        assert!(child.wait().expect("the program ends").success());
    }
    begun.elapsed().as_secs_f64()
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// What every program on this job must do at least: look at each byte of each line.
fn validate(lines: &[u8]) {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        black_box(serde_json::from_slice::<&RawValue>(line).expect("the corpus is valid"));
    }
}

/// The engine without files: a sink of objects that keeps nothing.
fn engine(memory: &Memory, batch_size: u64) {
    let limits = Limits { batch_size, ..Limits::default() };
    let settings = Settings { workers: 2, limits, ..Settings::default() };
    Pipeline::new(memory, &recipe(), &Null::default()).settings(settings).run().expect("nothing can fail");
}

fn decode(mut reader: impl Read) {
    let mut buffer = vec![0; 256 << 10];
    while reader.read(&mut buffer).expect("the corpus is not damaged") > 0 {
        black_box(&buffer);
    }
}

/// Seconds that decoding takes which does nothing else.
fn decoder<R: Read>(packed: &Path, open: impl Fn(fs::File) -> R) -> impl Fn() -> f64 {
    move || timed(|| decode(open(fs::File::open(packed).expect("it is there"))))
}

/// One run of the program.
fn once(args: &[String]) -> f64 {
    together(vec![pipeline(&args.iter().map(String::as_str).collect::<Vec<_>>())])
}

/// One run to /dev/null.
fn null(args: &[&str]) -> Box<dyn Fn() -> f64> {
    let args: Vec<String> = args.iter().chain(&["-o", "/dev/null"]).map(ToString::to_string).collect();
    Box::new(move || once(&args))
}

/// One run to an empty directory.
fn to_dir(args: &[&str], out: &str) -> Box<dyn Fn() -> f64> {
    let args: Vec<String> = args.iter().chain(&["-o", out]).map(ToString::to_string).collect();
    let out = out.to_owned();
    Box::new(move || {
        let _ = fs::remove_dir_all(&out);
        once(&args)
    })
}

/// All that is measured. [`GOALS`] counts them.
fn rows(corpora: &Corpora) -> Vec<Row<'_>> {
    let path = |path: &Path| path.display().to_string();
    let (file, nested, out) = (path(&corpora.file), path(&corpora.nested), path(&corpora.dir.join("out")));
    let (gzip, zstd) = (path(&corpora.gzip), path(&corpora.zstd));
    let (flat, nested_len) = (corpora.flat.len() as u64, corpora.nested_bytes.len() as u64);
    let memory = Memory(Arc::new(corpora.flat[..corpora.flat.len() / 4].to_vec()));
    let quarter = memory.0.len() as u64;
    let other = Memory(memory.0.clone());
    let loops = |bytes: &'_ [u8]| timed(|| validate(bytes));
    let alone = move |half: &PathBuf| pipeline(&["-w", "1", "-o", "/dev/null", &path(half)]);
    vec![
        ("validation loop in memory, one core (flat)", flat, Box::new(move || loops(&corpora.flat))),
        ("flat, one worker, to /dev/null", flat, null(&["-w", "1", &file])),
        (
            "validation loop in memory, one core (nested)",
            nested_len,
            Box::new(move || loops(&corpora.nested_bytes)),
        ),
        ("nested, one worker, to /dev/null", nested_len, null(&["-w", "1", &nested])),
        ("flat, two workers, to /dev/null", flat, null(&["-w", "2", &file])),
        (
            "two runs of one worker, half of the file each",
            flat,
            Box::new(move || together(corpora.halves.iter().map(alone).collect())),
        ),
        (
            "engine alone, memory to null sink, two workers",
            quarter,
            Box::new(move || timed(|| engine(&memory, 0))),
        ),
        ("engine alone, memory to null sink, -b 50", quarter, Box::new(move || timed(|| engine(&other, 50)))),
        ("gzip decoder alone", flat, Box::new(decoder(&corpora.gzip, flate2::read::MultiGzDecoder::new))),
        ("flat.gz, two workers, to /dev/null", flat, null(&["-w", "2", &gzip])),
        (
            "zstd decoder alone",
            flat,
            Box::new(decoder(&corpora.zstd, |file| zstd::Decoder::new(file).expect("memory is there"))),
        ),
        ("flat.zst, two workers, to /dev/null", flat, null(&["-w", "2", &zstd])),
        ("flat, two workers, to a directory", flat, to_dir(&["-w", "2", &file], &out)),
        ("flat, two workers, to a directory, gzip", flat, to_dir(&["-w", "2", "-z", "gzip", &file], &out)),
        ("flat, two workers, to a directory, zstd", flat, to_dir(&["-w", "2", "-z", "zstd", &file], &out)),
    ]
}

const GOALS: [Goal; 6] = [
    Goal { text: "one worker, flat", of: 1, against: 0, limit: Limit::AtLeastSpeed(0.8) },
    Goal { text: "one worker, nested", of: 3, against: 2, limit: Limit::AtLeastSpeed(0.8) },
    Goal { text: "two workers against two runs", of: 4, against: 5, limit: Limit::AtMostTime(1.15) },
    Goal { text: "-b 50 against no limit", of: 7, against: 6, limit: Limit::AtMostTime(1.5) },
    Goal { text: "gzip input against its decoder", of: 9, against: 8, limit: Limit::AtMostTime(1.1) },
    Goal { text: "zstd input against its decoder", of: 11, against: 10, limit: Limit::AtMostTime(1.1) },
];

fn speed(corpora: &Corpora, rounds: usize) {
    let variants = measure(rows(corpora), rounds);
    println!("\n| goal | limit | median of ratios | ratio of the best |\n|---|---|---|---|");
    for Goal { text, of, against, limit } in GOALS {
        let (of, against) = (&variants[of].seconds, &variants[against].seconds);
        let time = median(of.iter().zip(against).map(|(one, other)| one / other).collect());
        let least = best(of) / best(against);
        match limit {
            Limit::AtLeastSpeed(limit) => {
                println!("| {text} | >= {limit}x the speed | {:.2}x | {:.2}x |", 1.0 / time, 1.0 / least)
            }
            Limit::AtMostTime(limit) => {
                println!("| {text} | <= {limit}x the time | {time:.2}x | {least:.2}x |")
            }
        }
    }
}

/// Runs every variant once a round, and prints their rates.
fn measure(rows: Vec<Row<'_>>, rounds: usize) -> Vec<Variant<'_>> {
    let mut variants: Vec<Variant> = rows
        .into_iter()
        .map(|(name, bytes, run)| Variant { name, bytes, run, seconds: Vec::new() })
        .collect();
    for _ in 0..rounds {
        for variant in &mut variants {
            let seconds = (variant.run)();
            variant.seconds.push(seconds);
        }
    }
    println!("| what | MB/s, median | MB/s, best |\n|---|---|---|");
    for variant in &variants {
        let rate = |seconds: f64| variant.bytes as f64 / 1e6 / seconds;
        let (median, best) = (median(variant.seconds.clone()), best(&variant.seconds));
        println!("| {} | {:.0} | {:.0} |", variant.name, rate(median), rate(best));
    }
    variants
}

/// An envelope around each flat event, from one file into one file, by us and by programs that people use for it.
/// All of them leave the bytes to the kernel, and the others' envelopes have no `message_id`. Those that take minutes
/// for the whole corpus get the first [`SHARE`]th of it.
fn rivals(corpora: &Corpora, rounds: usize) {
    let into = corpora.dir.join("rival.ndjson");
    let (from, to) = (corpora.file.display().to_string(), into.display().to_string());
    let share = corpora.dir.join("share.ndjson");
    let part = &corpora.flat[..corpora.flat.len() / SHARE];
    let part = &part[..memchr::memrchr(b'\n', part).map_or(0, |at| at + 1)];
    fs::write(&share, part).expect("the corpus can be written");
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut add = |name, bytes: &[u8], command: Box<dyn Fn() -> Command>| {
        let into = into.clone();
        let run = Box::new(move || {
            // Otherwise each gives back the pages of the one before.
            let _ = fs::remove_file(&into);
            together(vec![command()])
        });
        rows.push((name, bytes.len() as u64, run));
    };
    {
        let (from, to) = (from.clone(), to.clone());
        add("flat, two workers, to a file, no fsync", &corpora.flat, {
            Box::new(move || pipeline(&["-w", "2", &from, "-o", &to, "--set", "output.fsync=false"]))
        });
    }
    if is_there("duckdb") {
        add("DuckDB, two threads", &corpora.flat, Box::new(move || duckdb(&from, &to)));
    }
    if is_there("benthos") {
        let config = corpora.dir.join("benthos.yaml");
        fs::write(&config, benthos(&share, &into)).expect("its configuration can be written");
        let run = move || {
            let mut command = Command::new("benthos");
            command.arg("-c").arg(&config).stdin(Stdio::null());
            command
        };
        add("Benthos, two threads", part, Box::new(run));
    }
    if is_there("jq") {
        let into = into.clone();
        add("jq", part, Box::new(move || jq(&share, &into)));
    }
    println!();
    let variants = measure(rows, rounds);
    println!("\n| against | goal | median of ratios | ratio of the best |\n|---|---|---|---|");
    let (ours, theirs) = variants.split_first().expect("ours is there");
    for Variant { name, bytes, seconds, .. } in theirs {
        // They may have done less.
        let less = ours.bytes as f64 / *bytes as f64;
        let times =
            median(seconds.iter().zip(&ours.seconds).map(|(their, our)| less * their / our).collect());
        let goal = match name.split(',').next() {
            Some("DuckDB") => ">= 3x the speed",
            Some("Benthos") => ">= 20x the speed",
            _ => "",
        };
        println!("| {name} | {goal} | {times:.1}x | {:.1}x |", less * best(seconds) / best(&ours.seconds));
    }
}

/// What part of the corpus the slow ones get.
const SHARE: usize = 8;

fn is_there(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn duckdb(from: &str, to: &str) -> Command {
    let sql = format!(
        "SET threads = 2; COPY (SELECT 'file' AS source, now() AS processed_at, 'host' AS processed_by, \
         {{'path': '{from}'}} AS metadata, json AS data \
         FROM read_json_objects('{from}', format = 'newline_delimited')) TO '{to}' (FORMAT json)"
    );
    let mut command = Command::new("duckdb");
    command.args(["-c", &sql]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A configuration that looks into no record, which takes it half of the time that parsing would.
fn benthos(from: &Path, to: &Path) -> String {
    let (from, to) = (from.display(), to.display());
    format!(
        r#"http: {{ enabled: false }}
logger: {{ level: ERROR }}
input:
  file: {{ paths: ["{from}"], scanner: {{ lines: {{}} }} }}
pipeline:
  threads: 2
  processors:
    - mapping: |
        root = "{{\"source\":\"file\",\"processed_at\":\"" + now() + "\",\"processed_by\":\"host\",\"metadata\":{{\"path\":\"{from}\"}},\"data\":" + content().string() + "}}"
output:
  file: {{ path: "{to}", codec: lines }}
"#
    )
}

fn jq(from: &Path, to: &Path) -> Command {
    let filter = "{source: \"file\", processed_at: \"2026-01-01T00:00:00Z\", processed_by: \"host\", \
                  metadata: {path: $path}, data: .}";
    let mut command = Command::new("jq");
    command.args(["-c", "--arg", "path", &from.display().to_string(), filter]).arg(from).stdin(Stdio::null());
    command.stdout(fs::File::create(to).expect("it can be made"));
    command
}

/// The least time: what others on the machine disturb least.
fn best(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Peak memory of runs over inputs of different size and form, as the program's own summary states it (VmHWM).
fn memory(corpora: &Corpora, dir: &Path) {
    let array = dir.join("array.json");
    let mut bytes = b"[".to_vec();
    bytes.extend(corpora.flat.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
    *bytes.last_mut().expect("it begins with a bracket") = b']';
    fs::write(&array, &bytes).expect("the corpus can be written");
    drop(bytes);
    let summary = dir.join("summary.json");
    let mebibytes = |args: &[&str]| {
        let to = format!("json={}", summary.display());
        assert!(
            pipeline(args)
                .args(["-w", "2", "--summary", &to])
                .status()
                .expect("the program starts")
                .success()
        );
        let text = fs::read_to_string(&summary).expect("the summary is there");
        let value: serde_json::Value = serde_json::from_str(&text).expect("the summary is JSON");
        value["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20)
    };
    let text = |path: &Path| path.display().to_string();
    let (file, half, array) = (text(&corpora.file), text(&corpora.halves[0]), text(&array));
    let (gzip, zstd, nested) = (text(&corpora.gzip), text(&corpora.zstd), text(&corpora.nested));
    let out = |name: &str| text(&dir.join(name));
    println!("\n| peak memory, two workers | MiB (limit 64) |\n|---|---|");
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("half of flat, to a directory", vec!["-o".into(), out("m1"), half]),
        ("flat, to a directory", vec!["-o".into(), out("m2"), file.clone()]),
        ("flat as one array on one line, to a directory", vec!["-o".into(), out("m3"), array]),
        ("flat.gz, to a directory", vec!["-o".into(), out("m4"), gzip]),
        ("flat.zst, to a directory, gzip", vec!["-o".into(), out("m5"), "-z".into(), "gzip".into(), zstd]),
        ("flat and nested side by side, to a directory", vec!["-o".into(), out("m6"), file, nested]),
    ];
    for (name, args) in rows {
        let peak = mebibytes(&args.iter().map(String::as_str).collect::<Vec<_>>());
        println!("| {name} | {peak:.0} |");
    }
}

fn startup(rounds: usize) {
    let version = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.arg("--version").stdout(Stdio::null());
        together(vec![command])
    };
    let seconds: Vec<f64> = (0..rounds.max(20)).map(|_| version()).collect();
    println!("\n`--version`: {:.1} ms (limit 10)", median(seconds) * 1e3);
}
