//! The run as one JSON object: what the live page draws. Keys are only ever added.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::text::{STAGES, queues, stages};
use super::{Board, State};
use crate::metrics::{Latency, Metrics, Reach};

/// Partitions listed, those with the greatest lag first.
const LISTED: usize = 100;

#[derive(Default, Serialize)]
struct Status<'a> {
    version: &'static str,
    phase: &'static str,
    source: &'a str,
    output: &'a str,
    started_at: f64,
    seconds: f64,
    records_seen: u64,
    records_read: u64,
    records_stored: u64,
    records_rejected: u64,
    rejected: BTreeMap<&'static str, u64>,
    dead_letters: Vec<Letter>,
    bytes_in: u64,
    bytes_known: Option<u64>,
    bytes_out: u64,
    batches: u64,
    close_reasons: BTreeMap<&'static str, u64>,
    records_per_second: f64,
    bytes_per_second: f64,
    eta_seconds: Option<f64>,
    lag: Option<u64>,
    oldest_unpublished_seconds: Option<f64>,
    limiting: &'static str,
    inflight_bytes: usize,
    inflight_limit_bytes: usize,
    open_batches: u64,
    stages: Vec<Stage>,
    partition_count: u64,
    partitions: Vec<Partition>,
    services: Vec<Service>,
    history: History,
}

/// A rejected record: where and of which kind. Not why in words: those quote it.
#[derive(Serialize)]
struct Letter {
    kind: String,
    place: String,
}

#[derive(Serialize)]
struct Stage {
    name: &'static str,
    done: u64,
    /// Over the last ten seconds.
    per_second: f64,
    queue: Option<u64>,
    limit: Option<u64>,
    mean_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Partition {
    name: String,
    start: u64,
    watermark: u64,
    records: u64,
    rejected: u64,
    lag: Option<u64>,
    oldest_seconds: Option<f64>,
    ended: bool,
}

#[derive(Serialize)]
struct Service {
    service: &'static str,
    kind: &'static str,
    errors: u64,
    retries: u64,
}

#[derive(Default, Serialize)]
struct History {
    seconds: Vec<f64>,
    records: Vec<f64>,
    bytes: Vec<f64>,
}

impl Board {
    /// The status as one JSON object.
    pub fn json(&self) -> String {
        let state = self.state.lock();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION"),
            phase: state.doing(&self.stop).name(),
            source: &self.source,
            output: &self.output,
            started_at: self.made_at,
            ..Status::default()
        };
        status.observed(&state);
        if let Some(metrics) = &state.metrics {
            status.counted(metrics, state.pace.rates());
        }
        drop(state);
        // Every map has keys that are texts, the only thing that could fail.
        serde_json::to_string(&status).unwrap_or_default()
    }
}

impl Status<'_> {
    fn observed(&mut self, state: &State) {
        let (now, rates) = (&state.now, state.rates);
        self.seconds = now.elapsed.as_secs_f64();
        (self.bytes_in, self.bytes_known, self.lag) = (now.bytes_done, now.bytes_known, now.lag);
        (self.records_per_second, self.bytes_per_second) = (rates.records, rates.bytes);
        self.eta_seconds = rates.eta.map(|eta| eta.as_secs_f64());
        self.limiting = state.limiting();
        for point in &state.history {
            self.history.seconds.push(tenths(point.elapsed.as_secs_f64()));
            self.history.records.push(point.records.round());
            self.history.bytes.push(point.bytes.round());
        }
    }

    fn counted(&mut self, metrics: &Metrics, rates: [f64; STAGES]) {
        let totals = metrics.totals();
        self.records_seen = metrics.seen.load(Ordering::Relaxed);
        (self.records_read, self.records_stored) = (totals.read, totals.stored);
        (self.records_rejected, self.bytes_out) = (totals.rejected, totals.bytes_stored);
        self.batches = totals.batches;
        self.rejected = totals.rejects.iter().map(|(kind, count)| (kind.name(), count)).collect();
        self.close_reasons = totals.closes.iter().map(|(close, count)| (close.name(), *count)).collect();
        let letter = |sample: &crate::transform::Sample| Letter {
            kind: sample.reason.split(':').next().unwrap_or_default().into(),
            place: sample.place.clone(),
        };
        self.dead_letters = totals.samples.iter().map(letter).collect();
        self.lag = metrics.reach().map(Reach::lag).or(self.lag);
        self.oldest_unpublished_seconds = metrics.oldest().map(|age| tenths(age.as_secs_f64()));
        (self.inflight_bytes, self.inflight_limit_bytes) = metrics.in_flight().unwrap_or_default();
        self.open_batches = metrics.flow.open_batches.load(Ordering::Relaxed);
        self.stages = each_stage(metrics, rates);
        self.partition_count = totals.partition_count;
        self.partitions = each_partition(metrics, totals.partitions);
        let service =
            |((service, kind), trouble): ((&'static str, &'static str), crate::metrics::Trouble)| Service {
                service,
                kind,
                errors: trouble.errors,
                retries: trouble.retries,
            };
        self.services = metrics.services.told().into_iter().map(service).collect();
    }
}

fn each_stage(metrics: &Metrics, rates: [f64; STAGES]) -> Vec<Stage> {
    let times = &metrics.latencies;
    let queues = queues(metrics);
    let stage = |((name, done), per_second): ((&'static str, u64), f64)| {
        let queue = queues.iter().find(|(of, ..)| *of == name);
        let latency: Option<&Latency> = match name {
            "read" => Some(&times.fetch),
            "process" => Some(&times.process),
            "write" => Some(&times.publish),
            "commit" => Some(&times.commit),
            _ => None,
        };
        Stage {
            name,
            done,
            per_second: tenths(per_second),
            queue: queue.map(|(_, length, _)| *length),
            limit: queue.and_then(|(.., limit)| *limit),
            mean_seconds: latency.and_then(|latency| latency.histogram().mean()),
        }
    };
    stages(metrics).into_iter().zip(rates).map(stage).collect()
}

fn each_partition(metrics: &Metrics, ranges: BTreeMap<String, crate::metrics::Range>) -> Vec<Partition> {
    let (lags, ages) = (metrics.lags(), metrics.oldest_each());
    let partition = |(name, range): (String, crate::metrics::Range)| Partition {
        start: range.start,
        watermark: range.end,
        records: range.read,
        rejected: range.rejected,
        lag: lags.get(&name).copied(),
        oldest_seconds: ages.get(&name).map(|age| tenths(age.as_secs_f64())),
        ended: range.ended,
        name,
    };
    let mut all: Vec<Partition> = ranges.into_iter().map(partition).collect();
    all.sort_by_key(|it| (it.ended, std::cmp::Reverse(it.lag), it.oldest_seconds.is_none()));
    all.truncate(LISTED);
    all
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
