//! Kafka in and out, against Kafka's own performance tools: whole runs of the release binary on a real broker.
//!
//! `make bench-kafka`, which fetches Kafka and has its JVMs compile with C2, as those of users do. Two million JSON
//! records of 300 bytes are produced with lz4 into four partitions by Kafka's own tool. Then every round runs every
//! variant once, so that a noisy machine slows all of them alike. `BENCH_RECORDS` (2000000) and `BENCH_ROUNDS` (5);
//! `BENCH_ONLY` runs the variants whose name contains it, and prints no ratios.
//!
//! A rate of ours is records by the time of the whole process, its start and its joining of a group included. A
//! rival's is the one that it prints itself: without the start of its JVM, and for the consumer without the time of
//! the rebalance. Processor time is what the kernel has counted when the process is gone; peak memory is VmHWM as
//! the program's summary states it.

mod corpus;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/services/nodes.rs"]
mod nodes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nodes::{Nodes, SCRIPT};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Bytes of a record, without the end of its line.
const RECORD: usize = 300;
/// How many different records the rival draws from: it holds them all.
const DIFFERENT: usize = 20_000;
const MIB: f64 = 1_048_576.0;
/// What the kernel counts processor time in; the same on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// One line of the table: what is run in each round.
type Row<'a> = Box<dyn Fn(usize) -> Measured + 'a>;

/// What a run was like.
#[derive(Clone, Copy)]
struct Measured {
    /// Records a second.
    rate: f64,
    /// Processor seconds a million records, and MiB: of our program.
    ours: Option<(f64, f64)>,
}

struct Variant<'a> {
    name: &'a str,
    run: Box<dyn Fn(usize) -> Measured + 'a>,
    runs: Vec<Measured>,
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let lack = Command::new(SCRIPT).arg("missing").output().expect("the script starts").stdout;
    if !lack.is_empty() {
        println!("skipped: no {}", String::from_utf8_lossy(&lack).trim());
        return;
    }
    if std::env::var("KAFKA_JIT").as_deref() != Ok("4") {
        println!(
            "KAFKA_JIT is not 4: Kafka's JVMs are slower than they could be. `make bench-kafka` sets it\n"
        );
    }
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (records, rounds) = (number("BENCH_RECORDS", 2_000_000), number("BENCH_ROUNDS", 5));
    let bench = Bench::new(records);
    bench.speed(rounds);
    if std::env::var_os("BENCH_ONLY").is_none() {
        bench.memory();
    }
}

struct Bench {
    broker: Nodes,
    dir: tempfile::TempDir,
    records: usize,
}

impl Bench {
    fn new(records: usize) -> Self {
        // What is deleted goes at once: each round makes new topics.
        let broker = Nodes::new(1, &["file.delete.delay.ms=1000", "log.segment.bytes=67108864"]);
        assert!(broker.order("start", 1));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bench = Bench { broker, dir, records };
        fs::write(bench.path("different"), lines(DIFFERENT)).expect("it can be written");
        fs::write(bench.path("all.ndjson"), lines(records)).expect("it can be written");
        bench.create("in", 4);
        bench.produce("in", records);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn address(&self) -> String {
        format!("localhost:{}", self.broker.port(1, 0))
    }

    /// One of Kafka's programs; what it printed.
    fn tool(&self, class: &str, args: &[&str]) -> String {
        let address = self.address();
        let mut command = Command::new(SCRIPT);
        command.args(["tool", class, "--bootstrap-server", &address]).args(args).stdin(Stdio::null());
        let output = command.output().expect("the script starts");
        assert!(output.status.success(), "{class} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    }

    fn create(&self, topic: &str, partitions: usize) {
        self.tool("TopicCommand", &["--create", "--topic", topic, "--partitions", &partitions.to_string()]);
    }

    fn delete(&self, topic: &str) {
        self.tool("TopicCommand", &["--delete", "--topic", topic]);
    }

    /// Kafka's producer: all replicas acknowledge, lz4, all else as it is by default.
    fn produce(&self, topic: &str, records: usize) -> Measured {
        let (records, payload) = (records.to_string(), text(&self.path("different")));
        let args = ["--topic", topic, "--num-records", &records, "--payload-file", &payload];
        let settings = ["--throughput", "-1", "--command-property", "acks=all", "compression.type=lz4"];
        let said = self.tool("ProducerPerformance", &[&args[..], &settings].concat());
        // "2000000 records sent, 512345.6 records/sec (146.5 MB/sec), ..." stands last.
        let last =
            said.lines().rfind(|line| line.contains(" records sent, ")).expect("it says how fast it was");
        let rate = last.split(", ").nth(1).and_then(|rate| rate.split(' ').next());
        Measured { rate: rate.and_then(|rate| rate.parse().ok()).expect("a number"), ours: None }
    }

    /// Kafka's consumer. Its last column is the rate without the rebalance.
    fn consume(&self) -> Measured {
        let records = self.records.to_string();
        let said = self.tool("ConsumerPerformance", &["--topic", "in", "--num-records", &records]);
        let last = said.lines().rfind(|line| line.contains(':')).expect("it says how fast it was");
        let columns: Vec<&str> = last.split(", ").collect();
        assert_eq!(columns.len(), 10, "{said}");
        Measured { rate: columns[9].trim().parse().expect("a number"), ours: None }
    }

    /// Our program, which has to store this many records.
    fn pipeline(&self, records: usize, args: &[&str]) -> Measured {
        let (address, summary) = (self.address(), self.path("summary.json"));
        let to = format!("json={}", text(&summary));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["-q", "--progress", "never", "--brokers", &address, "--summary", &to]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let pid = Pid::from_child(&child);
        // It is over, but the kernel still has its numbers.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it is a child");
        let seconds = begun.elapsed().as_secs_f64();
        let processor = processor(child.id());
        assert!(child.wait().expect("it is a child").success(), "{args:?}");
        let summary: serde_json::Value =
            serde_json::from_slice(&fs::read(summary).expect("it is there")).expect("it is JSON");
        assert_eq!(summary["records_stored"].as_u64(), Some(records as u64), "{args:?}");
        let peak = summary["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN) / MIB;
        let ours = Some((processor / records as f64 * 1e6, peak));
        Measured { rate: records as f64 / seconds, ours }
    }

    fn reading(&self, more: &[&str]) -> Measured {
        self.pipeline(self.records, &[&["-t", "in", "--until", "end"], more].concat())
    }

    fn to_directory(&self, fsync: &str, round: usize) -> Measured {
        let (out, group) = (self.path("out"), format!("directory-{fsync}-{round}"));
        let fsync = format!("output.fsync={fsync}");
        let measured = self.reading(&["-o", &text(&out), "-g", &group, "--set", &fsync]);
        fs::remove_dir_all(out).expect("it was made");
        measured
    }

    /// Into a topic that is there for this alone.
    fn to_topic(&self, name: &str, run: impl Fn(&str) -> Measured) -> Measured {
        self.create(name, 4);
        let measured = run(name);
        self.delete(name);
        measured
    }

    fn speed(&self, rounds: usize) {
        const BARE: [&str; 2] = ["--set", "output.envelope=none"];
        let file = text(&self.path("all.ndjson"));
        let rows: Vec<(&str, Row<'_>)> = vec![
            ("ConsumerPerformance", Box::new(|_| self.consume())),
            ("to a null sink, validated", Box::new(|_| self.reading(&[&["-o", "-"], &BARE[..]].concat()))),
            ("to a null sink, envelope", Box::new(|_| self.reading(&["-o", "-"]))),
            ("to a directory, envelope, fsync", Box::new(|round| self.to_directory("true", round))),
            ("to a directory, envelope, no fsync", Box::new(|round| self.to_directory("false", round))),
            ("to a topic, envelope, exactly once", {
                Box::new(|round| {
                    self.to_topic("copy", |topic| {
                        let (to, group) = (format!("kafka:{topic}"), format!("copy-{round}"));
                        self.reading(&["-o", &to, "-g", &group])
                    })
                })
            }),
            ("to a topic, bare, exactly once", {
                Box::new(|round| {
                    self.to_topic("bare", |topic| {
                        let (to, group) = (format!("kafka:{topic}"), format!("bare-{round}"));
                        self.reading(&[&["-o", &to, "-g", &group], &BARE[..]].concat())
                    })
                })
            }),
            ("ProducerPerformance", {
                Box::new(|_| self.to_topic("theirs", |topic| self.produce(topic, self.records)))
            }),
            ("a file to a topic, bare", {
                Box::new(|_| {
                    self.to_topic("ours", |topic| {
                        let to = format!("kafka:{topic}");
                        self.pipeline(self.records, &[&[&*file, "-o", &to], &BARE[..]].concat())
                    })
                })
            }),
        ];
        let new = |(name, run)| Variant { name, run, runs: Vec::new() };
        let mut variants: Vec<Variant> = rows.into_iter().map(new).collect();
        let only = std::env::var("BENCH_ONLY").ok();
        if let Some(only) = &only {
            variants.retain(|variant| variant.name.contains(only.as_str()));
        }
        for round in 0..rounds {
            for variant in &mut variants {
                let measured = (variant.run)(round);
                variant.runs.push(measured);
            }
        }
        rates(&variants);
        if only.is_none() {
            goals(&variants);
        }
    }

    /// Many partitions in little memory.
    fn memory(&self) {
        const PARTITIONS: usize = 500;
        let records = self.records / 4;
        self.create("many", PARTITIONS);
        self.produce("many", records);
        println!("\n| peak memory | MiB | limit |\n|---|---|---|");
        let peak = |name: &str, partitions: &[&str]| {
            let own =
                ["--until", "end", "--set", "processing.memory_limit=64MiB", "--set", "output.fsync=false"];
            let measured = self.pipeline(records, &[&own[..], partitions].concat());
            let peak = measured.ours.map_or(f64::NAN, |(_, peak)| peak);
            println!("| {PARTITIONS} partitions, memory_limit 64 MiB, to {name} | {peak:.0} | 112 |");
        };
        peak("a directory", &["-t", "many", "-g", "m1", "-o", &text(&self.path("m1"))]);
        self.create("few", 4);
        peak("a topic", &["-t", "many", "-g", "m2", "-o", "kafka:few"]);
    }
}

/// Records of [`RECORD`] bytes, one a line.
fn lines(count: usize) -> Vec<u8> {
    let mut random = corpus::Random::new(7);
    let mut out = Vec::with_capacity(count * (RECORD + 1));
    let words =
        ["shipping", "returned", "payment", "warehouse", "customer", "invoice", "delayed", "approved"];
    for id in 0..count {
        let from = out.len();
        let level = random.pick(&["debug", "info", "info", "info", "warn", "error"]);
        let (user, took, status) =
            (random.below(1 << 32), random.below(5000), random.pick(&[200, 201, 404, 500]));
        let head = format!(
            "{{\"id\":\"evt-{id:010}\",\"level\":\"{level}\",\"user\":{user},\"took_ms\":{took},\
             \"status\":{status},\"trace\":\"{:016x}\",\"message\":\"",
            random.next()
        );
        out.extend_from_slice(head.as_bytes());
        while out.len() - from < RECORD - 2 {
            let room = RECORD - 2 - (out.len() - from);
            let word = random.pick(&words).as_bytes();
            out.extend_from_slice(&word[..word.len().min(room)]);
            if room > word.len() {
                out.push(b' ');
            }
        }
        out.extend_from_slice(b"\"}\n");
    }
    out
}

/// Processor seconds of a process that is over and was not waited for yet: user and system.
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it was not waited for");
    // The name may hold anything, a parenthesis included; the fields behind it begin with the third.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    (ticks(14) + ticks(15)) / TICKS
}

fn rates(variants: &[Variant]) {
    println!(
        "| what | thousand records/s, median | best | CPU s a million | peak MiB |\n|---|---|---|---|---|"
    );
    for variant in variants {
        let rates = || variant.runs.iter().map(|run| run.rate / 1e3);
        let best = rates().fold(0.0, f64::max);
        let of = |which: fn((f64, f64)) -> f64| {
            let numbers: Vec<f64> = variant.runs.iter().filter_map(|run| run.ours.map(which)).collect();
            if numbers.is_empty() { f64::NAN } else { median(numbers) }
        };
        let (processor, peak) = (of(|ours| ours.0), of(|ours| ours.1));
        let ours = if processor.is_nan() { "| |".into() } else { format!("{processor:.2} | {peak:.0} |") };
        println!("| {} | {:.0} | {best:.0} | {ours}", variant.name, median(rates().collect()));
    }
}

fn goals(variants: &[Variant]) {
    println!("\n| goal | limit | median of ratios | ratio of the best |\n|---|---|---|---|");
    let goals = [
        ("null sink, validated, against ConsumerPerformance", 1, 0, 1.0),
        ("null sink, envelope, against ConsumerPerformance", 2, 0, 1.0),
        ("directory, fsync, against ConsumerPerformance", 3, 0, 0.5),
        ("directory, no fsync, against ConsumerPerformance", 4, 0, 0.5),
        ("a file to a topic against ProducerPerformance", 8, 7, 1.0),
    ];
    for (name, of, against, limit) in goals {
        let pairs = || variants[of].runs.iter().zip(&variants[against].runs);
        let best = |at: usize| variants[at].runs.iter().map(|run| run.rate).fold(0.0, f64::max);
        let ratio = median(pairs().map(|(one, other)| one.rate / other.rate).collect());
        println!("| {name} | >= {limit}x | {ratio:.2}x | {:.2}x |", best(of) / best(against));
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
