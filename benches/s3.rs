//! From Kafka to S3, against Kafka's own consumer: whole runs of the release binary between a real broker and a real
//! S3 server on this machine. And the sink alone, against a loop that does nothing but PUT.
//!
//! `make bench-s3`, which fetches both. Two million JSON records of 300 bytes, lz4, in four partitions; objects in
//! parts of 8 MiB. Every round runs every variant once. `BENCH_RECORDS` (2000000), `BENCH_ROUNDS` (5); `BENCH_ONLY`
//! runs the variants whose name contains it, and prints no goals.
//!
//! What rates, processor time and memory are: see `broker.rs`. The bare loop is four threads that PUT bodies of 8 MiB
//! in memory with the library's client: the same agent, the same signatures and checksums, but no engine, conditions,
//! metadata, parts or receipts. The sink gets the same bytes from four threads as the engine's writers would hand them
//! over: in pieces of 256 KiB that know their checksums.

#[allow(dead_code, reason = "another bench uses more of it")]
mod broker;
mod corpus;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/services/nodes.rs"]
mod nodes;
#[path = "../tests/services/s3/server.rs"]
mod server;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker::{Broker, MIB, Measured, Row, Variant, median, rates};
use pipeline::Partition;
use pipeline::batch::{Batch, BatchId, Body, Counts, Piece};
use pipeline::codec::Codec;
use pipeline::cut::Close;
use pipeline::s3::{Bucket, Condition, Content, Credentials, Endpoint, Keys, Object, Options};
use pipeline::sink::key::Namer;
use pipeline::sink::s3::{Conditions, Occupied, S3Options, S3Sink};
use pipeline::sink::{Part, Sink, Stream, Totals};
use server::{KEY, SECRET, Server};

const BUCKET: &str = "bench";
const PART: usize = 8 << 20;
/// Threads that store.
const THREADS: usize = 4;
/// Parts of a batch that is stored in parts, and how many a round stores in all.
const PARTS: u64 = 8;
const TOTAL: u64 = 64;

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if !broker::is_possible("bench-s3") || !server::is_possible() {
        return;
    }
    let (records, rounds) = (broker::number("BENCH_RECORDS", 2_000_000), broker::number("BENCH_ROUNDS", 5));
    let only = std::env::var("BENCH_ONLY").ok();
    let server = Server::start();
    fs::create_dir(server.dir.join("data").join(BUCKET)).expect("it can be made");
    let stored = upload(&server, rounds, only.as_deref());
    let bench = Bench { broker: Broker::new(records), server };
    bench.speed(rounds, only.as_deref());
    if only.is_none() {
        upload_goals(&stored);
        bench.memory();
    }
}

struct Bench {
    broker: Broker,
    server: Server,
}

impl Bench {
    /// A run into the bucket, which is empty afterwards.
    fn stores(&self, records: usize, args: &[&str]) -> Measured {
        let to = format!("s3://{BUCKET}/events");
        let own = ["--until", "end", "-o", &to, "--set", "s3.part_size=8MiB"];
        let endpoint = self.server.endpoint();
        let variables =
            [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        let measured = self.broker.pipeline_with(records, &[&own[..], args].concat(), &variables);
        empty(&self.server);
        measured
    }

    fn speed(&self, rounds: usize, only: Option<&str>) {
        let into = |name: &'static str, settings: &'static [&str]| -> Row<'_> {
            let run = move |round| {
                let group = format!("{}-{round}", name.replace([' ', ','], "-"));
                let args = ["-t", "in", "-g", &group];
                self.stores(self.broker.records, &[&args[..], settings].concat())
            };
            (name, Box::new(run))
        };
        let rows: Vec<Row<'_>> = vec![
            ("ConsumerPerformance", Box::new(|_| self.broker.consume())),
            into("to S3, bare", &["--set", "output.envelope=none"]),
            into("to S3, envelope", &[]),
            into("to S3, envelope, zstd", &["-z", "zstd:1"]),
        ];
        let variants = broker::run(rows, rounds, only);
        rates(&variants);
        if only.is_none() {
            println!("\n| goal | limit | median of ratios | ratio of the best |\n|---|---|---|---|");
            broker::goal("bare, against ConsumerPerformance", 0.33, &variants[1], &variants[0]);
            broker::goal("envelope, against ConsumerPerformance", 0.33, &variants[2], &variants[0]);
            processor("bare", &variants[1]);
            processor("envelope", &variants[2]);
        }
    }

    /// Many partitions in little memory.
    fn memory(&self) {
        const PARTITIONS: usize = 500;
        self.broker.create("many", PARTITIONS);
        let records = self.broker.fill("many", self.broker.records);
        println!("\n| peak memory | MiB | limit |\n|---|---|---|");
        for limit in [128, 256] {
            let (group, memory) = (format!("m{limit}"), format!("processing.memory_limit={limit}MiB"));
            let measured = self.stores(records, &["-t", "many", "-g", &group, "--set", &memory]);
            let peak = measured.ours.map_or(f64::NAN, |(_, peak)| peak);
            println!("| {PARTITIONS} partitions, memory_limit {limit} MiB | {peak:.0} | {} |", limit + 48);
        }
    }
}

fn processor(name: &str, of: &Variant) {
    let seconds = median(of.runs.iter().filter_map(|run| Some(run.ours?.0)).collect());
    println!("| {name}: our processor seconds a million records | <= 1.5 | {seconds:.2} | |");
}

fn empty(server: &Server) {
    let dir = server.dir.join("data").join(BUCKET);
    for entry in fs::read_dir(dir).expect("it is there").flatten() {
        let removed = match entry.file_type().expect("it is there").is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.expect("nobody uses it");
    }
}

/// What a round of uploads did, in MiB a second.
struct Uploads {
    name: &'static str,
    rates: Vec<f64>,
}

/// What four threads do: the number of a task goes in.
type Task<'a> = Box<dyn Fn(u64) + Sync + 'a>;

fn upload(server: &Server, rounds: usize, only: Option<&str>) -> Vec<Uploads> {
    let bucket = Arc::new(bucket(server));
    let sink = S3Sink::new(S3Options {
        bucket: bucket.clone(),
        namer: Namer::new("sink", Codec::None),
        part: PART,
        writers: THREADS,
        conditions: Conditions::Try,
        occupied: Occupied::Replace,
        redo: true,
        headers: vec![("content-type", "application/x-ndjson".into())],
        metadata: Vec::new(),
    });
    let bytes = broker::lines(PART / broker::RECORD)[..PART].to_vec();
    let mut body = Body::default();
    bytes.chunks(256 << 10).for_each(|piece| body.push(Piece::owned(piece.to_vec())));
    let put = |task: u64| {
        let key = format!("bare/{task}");
        let object = Object { key: &key, headers: &[], metadata: &[] };
        bucket.put(&object, Content::Bytes(&bytes), Condition::None).map(drop).expect("it is stored");
    };
    let tasks: [(&str, u64, Task<'_>); 3] = [
        ("a bare loop of PUT", TOTAL, Box::new(put)),
        ("the sink, objects of 8 MiB", TOTAL, Box::new(|task| store(&sink, task, &body))),
        (
            "the sink, objects of 64 MiB in parts of 8 MiB",
            TOTAL / PARTS,
            Box::new(|task| parts(&sink, task, &body)),
        ),
    ];
    let new = |(name, ..): &(&'static str, u64, Task<'_>)| Uploads { name, rates: Vec::new() };
    let mut uploads: Vec<Uploads> = tasks.iter().map(new).collect();
    for _ in 0..rounds {
        for ((name, count, task), upload) in tasks.iter().zip(&mut uploads) {
            if only.is_none_or(|only| name.contains(only)) {
                let seconds = in_threads(*count, task);
                upload.rates.push((TOTAL * PART as u64) as f64 / MIB / seconds);
                empty(server);
            }
        }
    }
    println!("| uploads, four threads | MiB/s, median | best |\n|---|---|---|");
    for upload in uploads.iter().filter(|upload| !upload.rates.is_empty()) {
        let best = upload.rates.iter().copied().fold(0.0, f64::max);
        println!("| {} | {:.0} | {best:.0} |", upload.name, median(upload.rates.clone()));
    }
    println!();
    uploads
}

fn upload_goals(uploads: &[Uploads]) {
    let best = |upload: &Uploads| upload.rates.iter().copied().fold(0.0, f64::max);
    for upload in &uploads[1..] {
        let pairs = upload.rates.iter().zip(&uploads[0].rates);
        let ratio = median(pairs.map(|(one, other)| one / other).collect());
        let of_best = best(upload) / best(&uploads[0]);
        println!("| {}, against the bare loop | >= 0.9x | {ratio:.2}x | {of_best:.2}x |", upload.name);
    }
}

/// Seconds that it takes to do all of it.
fn in_threads(count: u64, task: &Task<'_>) -> f64 {
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    task(number);
                }
            });
        }
    });
    begun.elapsed().as_secs_f64()
}

fn bucket(server: &Server) -> Bucket {
    let endpoint = Endpoint::new(Some(&server.endpoint()), BUCKET, "us-east-1", None).expect("it is one");
    let keys = Keys { access_key_id: KEY.into(), secret_access_key: SECRET.into(), session_token: None };
    let (credentials, timeout) = (Credentials::fixed(keys), Duration::from_secs(30));
    Bucket::new(Options {
        endpoint,
        credentials,
        ca: None,
        timeout,
        connections: THREADS + 1,
        services: Default::default(),
    })
    .expect("it is made")
}

/// A batch without bodies.
fn batch(task: u64) -> Batch {
    let partition = Partition::named("bench", "upload");
    let id = BatchId { partition, start: task, first_time: 0, opened_at: 0 };
    let (stored, failed) = Default::default();
    Batch {
        id,
        end: task + 1,
        line: 0,
        resume: None,
        counts: Counts::default(),
        close: Close::Bytes,
        stored,
        failed,
    }
}

fn store(sink: &S3Sink, task: u64, body: &Body) {
    let batch = Batch { stored: body.clone(), ..batch(task) };
    sink.store(&[batch], &mut Vec::new()).expect("it is stored");
}

fn parts(sink: &S3Sink, task: u64, body: &Body) {
    let batch = batch(task);
    let upload = sink.open(&batch.id).expect("it is opened");
    let mut totals = Totals::default();
    for index in 0..PARTS {
        let (offset, last) = (totals.stored, false);
        let part = Part { stream: Stream::Stored, index: index as u32, offset, body: body.clone(), last };
        upload.part(&part).expect("it is stored");
        totals.stored_crc32c =
            crc32c::crc32c_combine(totals.stored_crc32c, body.crc32c(), body.len() as usize);
        totals.stored += body.len();
    }
    upload.publish(&batch, &totals).expect("it is published");
}
