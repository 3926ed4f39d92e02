//! A broker with records on it, Kafka's own programs against it, and runs of ours that are measured: for benches
//! that compare whole runs.
//!
//! A rate of ours is records by the time of the whole process, its start and its joining of a group included. A
//! rival's is the one that it prints itself: without the start of its JVM, and for the consumer without the time of
//! the rebalance. Processor time is what the kernel has counted when the process is gone; peak memory is VmHWM as
//! the program's summary states it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::corpus;
use crate::nodes::{Nodes, SCRIPT};

/// Bytes of a record, without the end of its line.
pub const RECORD: usize = 300;
/// How many different records the rival draws from: it holds them all.
const DIFFERENT: usize = 20_000;
pub const MIB: f64 = 1_048_576.0;
/// What the kernel counts processor time in; the same on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// What a run was like.
#[derive(Clone, Copy)]
pub struct Measured {
    /// Records a second.
    pub rate: f64,
    /// Processor seconds a million records, and MiB: of our program.
    pub ours: Option<(f64, f64)>,
}

/// One line of the table: its name, and what is run in each round.
pub type Row<'a> = (&'static str, Box<dyn Fn(usize) -> Measured + 'a>);

/// One line of the table, and its runs so far.
pub struct Variant {
    name: &'static str,
    pub runs: Vec<Measured>,
}

/// Runs every row once a round, so that a noisy machine slows all of them alike. `only`: those whose name contains it.
pub fn run(mut rows: Vec<Row<'_>>, rounds: usize, only: Option<&str>) -> Vec<Variant> {
    rows.retain(|(name, _)| only.is_none_or(|only| name.contains(only)));
    let mut variants: Vec<Variant> =
        rows.iter().map(|(name, _)| Variant { name, runs: Vec::new() }).collect();
    for round in 0..rounds {
        for ((_, run), variant) in rows.iter().zip(&mut variants) {
            variant.runs.push(run(round));
        }
    }
    variants
}

/// Whether a broker can be started here; says what lacks, and what its JVMs should be like.
pub fn is_possible(make: &str) -> bool {
    let lack = Command::new(SCRIPT).arg("missing").output().expect("the script starts").stdout;
    if !lack.is_empty() {
        println!("skipped: no {}", String::from_utf8_lossy(&lack).trim());
        return false;
    }
    if std::env::var("KAFKA_JIT").as_deref() != Ok("4") {
        println!("KAFKA_JIT is not 4: Kafka's JVMs are slower than they could be. `make {make}` sets it\n");
    }
    true
}

/// A number from the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A running broker, and a directory to work in.
pub struct Broker {
    pub nodes: Nodes,
    dir: tempfile::TempDir,
    /// How many records `in` has.
    pub records: usize,
}

impl Broker {
    /// A broker with `in`, a topic of four partitions that holds so many records of [`RECORD`] bytes, lz4.
    pub fn new(records: usize) -> Self {
        // What is deleted goes at once: each round makes new topics.
        let nodes = Nodes::new(1, &["file.delete.delay.ms=1000", "log.segment.bytes=67108864"]);
        assert!(nodes.order("start", 1));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let broker = Broker { nodes, dir, records };
        fs::write(broker.path("different"), lines(DIFFERENT)).expect("it can be written");
        broker.create("in", 4);
        assert_eq!(broker.fill("in", records), records, "they were sent twice");
        broker
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn address(&self) -> String {
        format!("localhost:{}", self.nodes.port(1, 0))
    }

    /// One of Kafka's programs; what it printed.
    pub fn tool(&self, class: &str, args: &[&str]) -> String {
        let address = self.address();
        let mut command = Command::new(SCRIPT);
        command.args(["tool", class, "--bootstrap-server", &address]).args(args).stdin(Stdio::null());
        let output = command.output().expect("the script starts");
        assert!(output.status.success(), "{class} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    }

    pub fn create(&self, topic: &str, partitions: usize) {
        self.tool("TopicCommand", &["--create", "--topic", topic, "--partitions", &partitions.to_string()]);
    }

    pub fn delete(&self, topic: &str) {
        self.tool("TopicCommand", &["--delete", "--topic", topic]);
    }

    /// Kafka's producer: all replicas acknowledge, lz4, all else as it is by default.
    pub fn produce(&self, topic: &str, records: usize) -> Measured {
        // "2000000 records sent, 512345.6 records/sec (146.5 MB/sec), ..."
        let last = self.send(topic, records, &[]);
        // What failed is not in the number, and the program ends well all the same.
        assert!(last.starts_with(&format!("{records} ")), "{last}; in the topic: {}", self.held(topic));
        let rate = last.split(", ").nth(1).and_then(|rate| rate.split(' ').next());
        Measured { rate: rate.and_then(|rate| rate.parse().ok()).expect("a number"), ours: None }
    }

    /// The same, unmeasured; how many records a fresh topic has at last. Where it has hundreds of partitions, Kafka's
    /// producer leaves some batches unsent until it gives them up.
    pub fn fill(&self, topic: &str, records: usize) -> usize {
        let patience = ["delivery.timeout.ms=10000", "request.timeout.ms=5000"];
        let mut held = 0;
        while held < records {
            self.send(topic, records - held, &patience);
            held = self.held(topic);
        }
        held
    }

    /// The last thing that Kafka's producer says.
    fn send(&self, topic: &str, records: usize, settings: &[&str]) -> String {
        let (number, payload) = (records.to_string(), text(&self.path("different")));
        let args = ["--topic", topic, "--num-records", &number, "--payload-file", &payload];
        let all = ["--throughput", "-1", "--command-property", "acks=all", "compression.type=lz4"];
        let said = self.tool("ProducerPerformance", &[&args[..], &all, settings].concat());
        let last = said.lines().rfind(|line| line.contains(" records sent, "));
        last.expect("it says how fast it was").to_owned()
    }

    /// How many records a topic has, as Kafka's tool says.
    fn held(&self, topic: &str) -> usize {
        let said = self.tool("GetOffsetShell", &["--topic", topic]);
        said.lines().filter_map(|line| line.rsplit(':').next()?.parse::<usize>().ok()).sum()
    }

    /// Kafka's consumer. Its last column is the rate without the rebalance.
    pub fn consume(&self) -> Measured {
        let records = self.records.to_string();
        let said = self.tool("ConsumerPerformance", &["--topic", "in", "--num-records", &records]);
        let last = said.lines().rfind(|line| line.contains(':')).expect("it says how fast it was");
        let columns: Vec<&str> = last.split(", ").collect();
        assert_eq!(columns.len(), 10, "{said}");
        Measured { rate: columns[9].trim().parse().expect("a number"), ours: None }
    }

    /// Our program, which has to store this many records.
    pub fn pipeline(&self, records: usize, args: &[&str]) -> Measured {
        self.pipeline_with(records, args, &[])
    }

    /// The same with these variables in its environment.
    pub fn pipeline_with(&self, records: usize, args: &[&str], variables: &[(&str, &str)]) -> Measured {
        let (address, summary) = (self.address(), self.path("summary.json"));
        let to = format!("json={}", text(&summary));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["-q", "--progress", "never", "--brokers", &address, "--summary", &to]).args(args);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
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
        if summary["records_stored"].as_u64() != Some(records as u64) {
            let kept = self.dir.path().with_extension("kept");
            fs::rename(self.dir.path(), &kept).expect("it can be renamed");
            let topic = args.iter().skip_while(|arg| **arg != "-t").nth(1);
            let held = topic.map(|topic| self.held(topic));
            panic!("not all are stored: {args:?}: {summary}\nin {topic:?}: {held:?}; see {}", kept.display());
        }
        let peak = summary["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN) / MIB;
        let ours = Some((processor / records as f64 * 1e6, peak));
        Measured { rate: records as f64 / seconds, ours }
    }
}

/// Records of [`RECORD`] bytes, one a line.
pub fn lines(count: usize) -> Vec<u8> {
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

/// The table.
pub fn rates(variants: &[Variant]) {
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

/// A line of the table of goals: how much faster one is than the other.
pub fn goal(name: &str, limit: f64, of: &Variant, against: &Variant) {
    let pairs = of.runs.iter().zip(&against.runs);
    let ratio = median(pairs.map(|(one, other)| one.rate / other.rate).collect());
    let best = |of: &Variant| of.runs.iter().map(|run| run.rate).fold(0.0, f64::max);
    println!("| {name} | >= {limit}x | {ratio:.2}x | {:.2}x |", best(of) / best(against));
}

/// The middle one.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
