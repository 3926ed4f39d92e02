//! Kafka in and out, against Kafka's own performance tools: whole runs of the release binary on a real broker.
//!
//! `make bench-kafka`, which fetches Kafka and has its JVMs compile with C2, as those of users do. Two million JSON
//! records of 300 bytes are produced with lz4 into four partitions by Kafka's own tool. Then every round runs every
//! variant once, so that a noisy machine slows all of them alike. `BENCH_RECORDS` (2000000) and `BENCH_ROUNDS` (5);
//! `BENCH_ONLY` runs the variants whose name contains it, and prints no ratios; `memory` runs what measures memory.
//!
//! What rates, processor time and memory are: see `broker.rs`.

#[allow(dead_code, reason = "another bench uses more of it")]
mod broker;
mod corpus;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/services/nodes.rs"]
mod nodes;

use std::fs;

use broker::{Broker, Measured, Row, Variant, lines, rates, text};

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if !broker::is_possible("bench-kafka") {
        return;
    }
    let (records, rounds) = (broker::number("BENCH_RECORDS", 2_000_000), broker::number("BENCH_ROUNDS", 5));
    let bench = Bench::new(records);
    let only = std::env::var("BENCH_ONLY").ok();
    bench.speed(rounds, only.as_deref());
    if only.is_none_or(|only| only == "memory") {
        bench.memory();
    }
}

struct Bench(Broker);

impl Bench {
    fn new(records: usize) -> Self {
        let broker = Broker::new(records);
        fs::write(broker.path("all.ndjson"), lines(records)).expect("it can be written");
        Bench(broker)
    }

    fn reading(&self, more: &[&str]) -> Measured {
        self.0.pipeline(self.0.records, &[&["-t", "in", "--until", "end"], more].concat())
    }

    fn to_directory(&self, fsync: &str, round: usize) -> Measured {
        let (out, group) = (self.0.path("out"), format!("directory-{fsync}-{round}"));
        let fsync = format!("output.fsync={fsync}");
        let measured = self.reading(&["-o", &text(&out), "-g", &group, "--set", &fsync]);
        fs::remove_dir_all(out).expect("it was made");
        measured
    }

    /// Into a topic that is there for this alone.
    fn to_topic(&self, name: &str, run: impl Fn(&str) -> Measured) -> Measured {
        self.0.create(name, 4);
        let measured = run(name);
        self.0.delete(name);
        measured
    }

    fn speed(&self, rounds: usize, only: Option<&str>) {
        const BARE: [&str; 2] = ["--set", "output.envelope=none"];
        let file = text(&self.0.path("all.ndjson"));
        let rows: Vec<Row<'_>> = vec![
            ("ConsumerPerformance", Box::new(|_| self.0.consume())),
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
                Box::new(|_| self.to_topic("theirs", |topic| self.0.produce(topic, self.0.records)))
            }),
            ("a file to a topic, bare", {
                Box::new(|_| {
                    self.to_topic("ours", |topic| {
                        let to = format!("kafka:{topic}");
                        self.0.pipeline(self.0.records, &[&[&*file, "-o", &to], &BARE[..]].concat())
                    })
                })
            }),
        ];
        let variants = broker::run(rows, rounds, only);
        rates(&variants);
        if only.is_none() {
            goals(&variants);
        }
    }

    /// Many partitions in little memory.
    fn memory(&self) {
        const PARTITIONS: usize = 500;
        self.0.create("many", PARTITIONS);
        let records = self.0.fill("many", self.0.records / 4);
        println!("\n| peak memory | MiB | limit |\n|---|---|---|");
        let peak = |name: &str, partitions: &[&str]| {
            let own =
                ["--until", "end", "--set", "processing.memory_limit=64MiB", "--set", "output.fsync=false"];
            let measured = self.0.pipeline(records, &[&own[..], partitions].concat());
            let peak = measured.ours.map_or(f64::NAN, |(_, peak)| peak);
            println!("| {PARTITIONS} partitions, memory_limit 64 MiB, to {name} | {peak:.0} | 112 |");
        };
        peak("a directory", &["-t", "many", "-g", "m1", "-o", &text(&self.0.path("m1"))]);
        self.0.create("few", 4);
        peak("a topic", &["-t", "many", "-g", "m2", "-o", "kafka:few"]);
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
        broker::goal(name, limit, &variants[of], &variants[against]);
    }
}
