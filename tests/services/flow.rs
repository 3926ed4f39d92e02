//! [`Flow`]: a topic, a group, and runs of the real executable that read the one as members of the other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kafka::{Kafka, unique};
use crate::records::Id;
use crate::runs::{Bench, Ran, Running, text};

/// How long a run may take to its end.
pub const RUN: Duration = Duration::from_secs(90);

/// A topic to be read, and a directory to work in.
pub struct Flow<'k> {
    pub kafka: &'k Kafka,
    pub topic: String,
    pub group: String,
    pub bench: Bench,
}

impl<'k> Flow<'k> {
    /// A new topic of this name and so many partitions.
    #[track_caller]
    pub fn new(kafka: &'k Kafka, name: &str, partitions: i32) -> Self {
        let (topic, group) = (kafka.topic(name, partitions), unique(&format!("{name}-readers")));
        Flow { kafka, topic, group, bench: Bench::new() }
    }

    /// A run with these arguments behind those that name cluster, topic and group.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        let brokers = self.kafka.brokers();
        let member = ["-s", "kafka", "--brokers", &brokers, "-t", &self.topic, "-g", &self.group];
        // Killed members are missed soon, and batches are stored soon.
        let quick = ["--set", "kafka.source.session_timeout=3s", "--set", "processing.batch_wait=200ms"];
        let mut command = self.bench.command(&[&member[..], &quick, args].concat());
        // What it says about its partitions is waited for, and shown with a test that fails.
        command.env("RUST_LOG", "info");
        Running::start(command)
    }

    /// A run to the offsets that are the ends when it begins.
    #[track_caller]
    pub fn until_end(&self, args: &[&str]) -> Ran {
        self.start(&[&["--until", "end"], args].concat()).ended_within(RUN)
    }

    /// A run to the end into `out`, which must succeed.
    #[track_caller]
    pub fn to_dir(&self) -> Ran {
        self.until_end(&["-o", "out"]).expect(0, &[])
    }

    /// Everything that is stored in `out`, in order of names.
    pub fn stored(&self) -> Vec<Value> {
        let mut stored = Vec::new();
        for (name, bytes) in
            self.bench.objects("out").iter().filter(|(name, _)| name.starts_with("processed/"))
        {
            let lines = text(name, bytes);
            stored.extend(lines.lines().map(|line| -> Value { serde_json::from_str(line).expect("JSON") }));
        }
        stored
    }

    /// The ids of what is stored in `out`.
    pub fn stored_ids(&self) -> Vec<Id> {
        self.stored().iter().map(|value| id(value, &self.topic)).collect()
    }

    /// Each record of the topic is in `out`, once.
    #[track_caller]
    pub fn is_stored_once(&self) {
        same_ids(self.stored_ids(), &self.kafka.ids(&self.topic), Times::Once);
    }

    /// Waits until `out` has everything that is in the topic now, for at most `limit`. There must be something: a
    /// feeder that has just begun may have written nothing yet.
    #[track_caller]
    pub fn stores_within(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut expected = self.kafka.ids(&self.topic);
        while expected.is_empty() {
            assert!(Instant::now() < end, "nothing is in the topic after {limit:?}");
            std::thread::sleep(Duration::from_millis(100));
            expected = self.kafka.ids(&self.topic);
        }
        loop {
            let missing = expected.difference(&self.stored_ids().into_iter().collect()).count();
            if missing == 0 {
                return;
            }
            assert!(Instant::now() < end, "{missing} of {} are not stored after {limit:?}", expected.len());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// How often a record may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    AtLeastOnce,
}

/// Nothing is missing, nothing is invented, and nothing is there twice where that is not allowed.
#[track_caller]
pub fn same_ids(found: Vec<Id>, expected: &BTreeSet<Id>, times: Times) {
    let distinct: BTreeSet<Id> = found.iter().copied().collect();
    let missing: Vec<_> = expected.difference(&distinct).take(5).collect();
    let invented: Vec<_> = distinct.difference(expected).take(5).collect();
    let (found, distinct) = (found.len(), distinct.len());
    assert!(missing.is_empty(), "{distinct} of {}: missing {missing:?}", expected.len());
    assert!(invented.is_empty(), "not in the topic: {invented:?}");
    assert!(times == Times::AtLeastOnce || found == distinct, "{} are there twice", found - distinct);
}

/// Partition and offset of an envelope's record, which must be of this topic.
#[track_caller]
pub fn id(envelope: &Value, topic: &str) -> Id {
    let metadata = &envelope["metadata"];
    let number = |name: &str| metadata[name].as_u64().unwrap_or_else(|| panic!("no {name}: {envelope}"));
    let (partition, offset) = (number("partition"), number("offset"));
    assert_eq!(envelope["message_id"], format!("kafka:{topic}:{partition}:{offset}"), "{envelope}");
    (partition as u32, offset)
}

/// Arguments that set a key each.
pub fn settings<'a>(list: &[&'a str]) -> Vec<&'a str> {
    list.iter().flat_map(|setting| ["--set", *setting]).collect()
}

/// A run with these variables in its environment.
#[track_caller]
pub fn run_with(bench: &Bench, args: &[&str], variables: &[(&str, &OsStr)]) -> Ran {
    let mut command = bench.command(args);
    command.envs(variables.iter().copied());
    Running::start(command).ended_within(RUN)
}
