//! The run in Prometheus' text format 0.0.4. Names, units and help follow its conventions: base units, `_total` for
//! counters, one `TYPE` and `HELP` a family, a family's samples together.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Board, State, outcome_name};
use crate::cut::Close;
use crate::metrics::{Histogram, Metrics, Range, Reach, Totals};
use crate::record::RejectKind;
use crate::summary::Outcome;

/// Partitions listed one by one.
const LISTED: usize = 1000;
/// How many stages there are.
pub(super) const STAGES: usize = 5;

impl Board {
    /// Everything that was counted, as Prometheus reads it.
    pub fn text(&self) -> String {
        let state = self.state.lock();
        let mut out = Text::default();
        out.gauge("pipeline_build_info", "Version of the program; always 1.");
        out.labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        out.gauge("pipeline_start_time_seconds", "Unix time at which the run began.");
        out.value(self.made_at);
        self.doing_families(&state, &mut out);
        // Before the run has any they are all zero: who scrapes finds every family from the beginning.
        let metrics = state.metrics.clone().unwrap_or_default();
        let totals = metrics.totals();
        durable(&totals, &mut out);
        flowing(&metrics, &state, &mut out);
        partitions(&metrics, &totals, &mut out);
        services(&metrics, &mut out);
        latencies(&metrics, &mut out);
        process(&mut out);
        out.0
    }

    fn doing_families(&self, state: &State, out: &mut Text) {
        out.gauge("pipeline_phase", "1 for what the run is doing, 0 for everything else.");
        let doing = state.doing(&self.stop).name();
        let outcomes =
            [Outcome::Finished, Outcome::Ended, Outcome::Drained, Outcome::Failed, Outcome::NothingToDo];
        let phases = ["starting", "running", "draining", "aborting"];
        for phase in phases.into_iter().chain(outcomes.map(outcome_name)) {
            out.labelled(&[("phase", phase)], u64::from(phase == doing));
        }
        out.gauge("pipeline_run_seconds", "Time since the run began to read, at the last look.");
        out.value(state.now.elapsed.as_secs_f64());
    }
}

/// What counts once it is published.
fn durable(totals: &Totals, out: &mut Text) {
    out.counter("pipeline_records_read_total", "Records read, and stored or rejected for good.");
    out.value(totals.read);
    out.counter("pipeline_records_stored_total", "Outputs stored.");
    out.value(totals.stored);
    out.counter("pipeline_records_rejected_total", "Records rejected for good, by kind.");
    for kind in RejectKind::ALL {
        let count = totals.rejects.iter().find(|(other, _)| *other == kind).map_or(0, |(_, count)| count);
        out.labelled(&[("kind", kind.name())], count);
    }
    out.counter(
        "pipeline_record_bytes_read_total",
        "Bytes of the records read and stored or rejected for good.",
    );
    out.value(totals.bytes_read);
    out.counter("pipeline_bytes_stored_total", "Bytes stored, dead letters included.");
    out.value(totals.bytes_stored);
    out.counter("pipeline_batches_published_total", "Batches published, by the reason they were closed for.");
    for close in Close::ALL {
        out.labelled(&[("reason", close.name())], totals.closes.get(&close).copied().unwrap_or(0));
    }
}

/// What is on its way.
fn flowing(metrics: &Metrics, state: &State, out: &mut Text) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let flow = &metrics.flow;
    out.counter("pipeline_source_records_total", "Records that were read and processed, durable or not.");
    out.value(load(&metrics.seen));
    out.counter(
        "pipeline_source_bytes_total",
        "Bytes read from the source as they stand there, durable or not.",
    );
    out.value(state.now.bytes_done);
    out.counter(
        "pipeline_stage_items_total",
        "Chunks (read, process, assemble), jobs (write) and commits that a stage is done with.",
    );
    for (stage, done) in stages(metrics) {
        out.labelled(&[("stage", stage)], done);
    }
    out.gauge(
        "pipeline_queue_length",
        "Tasks (process: a chunk or several small ones), chunks (assemble) and jobs (write) that wait for a stage or are \
         in it.",
    );
    for (stage, length, _) in queues(metrics) {
        out.labelled(&[("stage", stage)], length);
    }
    out.gauge(
        "pipeline_queue_limit",
        "How many tasks may be between reader and assembler, and how many jobs with the writers.",
    );
    out.labelled(&[("stage", "process")], load(&flow.tasks_limit));
    out.labelled(&[("stage", "write")], load(&flow.jobs_limit));
    out.gauge("pipeline_open_batches", "Batches that are open.");
    out.value(load(&flow.open_batches));
    out.counter(
        "pipeline_stage_wait_seconds_total",
        "Time that readers waited for memory or the pool, and the assembler for writers.",
    );
    out.labelled(&[("stage", "read")], metrics.reader_waits.total().as_secs_f64());
    out.labelled(&[("stage", "assemble")], metrics.writer_waits.total().as_secs_f64());
    out.gauge("pipeline_limiting_stage", "1 for the stage that the others wait for.");
    for stage in ["read", "process", "write"] {
        out.labelled(&[("stage", stage)], u64::from(stage == state.limiting()));
    }
    let (used, limit) = metrics.in_flight().unwrap_or_default();
    out.gauge("pipeline_inflight_bytes", "Bytes between read and stored.");
    out.value(used as u64);
    out.gauge(
        "pipeline_inflight_limit_bytes",
        "Bytes that may be between read and stored before readers wait.",
    );
    out.value(limit as u64);
    out.gauge("pipeline_inflight_peak_bytes", "The most bytes that were between read and stored at once.");
    out.value(metrics.peak() as u64);
    out.gauge(
        "pipeline_oldest_unpublished_age_seconds",
        "Time since the oldest record was read that is not committed; 0 where there is none.",
    );
    out.value(metrics.oldest().unwrap_or_default().as_secs_f64());
}

/// What each stage is done with.
pub(super) fn stages(metrics: &Metrics) -> [(&'static str, u64); STAGES] {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let flow = &metrics.flow;
    [
        ("read", load(&flow.chunks_read)),
        ("process", load(&flow.chunks_processed)),
        ("assemble", load(&flow.chunks_assembled)),
        ("write", load(&flow.jobs_done)),
        ("commit", metrics.latencies.commit.count()),
    ]
}

/// What waits for a stage or is in it, and its limit.
pub(super) fn queues(metrics: &Metrics) -> [(&'static str, u64, Option<u64>); 3] {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let flow = &metrics.flow;
    // The later counter first: what moves on in between must not make a queue negative.
    let (done, queued) = (load(&flow.jobs_done), load(&flow.jobs_queued));
    let (over, tasks) = (load(&flow.tasks_done), load(&flow.tasks_queued));
    let (assembled, processed) = (load(&flow.chunks_assembled), load(&flow.chunks_processed));
    [
        ("process", tasks.saturating_sub(over), Some(load(&flow.tasks_limit))),
        ("assemble", processed.saturating_sub(assembled), None),
        ("write", queued.saturating_sub(done), Some(load(&flow.jobs_limit))),
    ]
}

fn partitions(metrics: &Metrics, totals: &Totals, out: &mut Text) {
    out.gauge("pipeline_partitions", "Partitions that the run has begun.");
    out.value(totals.partition_count);
    out.counter(
        "pipeline_partitions_lost_total",
        "Partitions that went to another owner before all was committed.",
    );
    out.value(metrics.partitions_lost.load(Ordering::Relaxed));
    if let Some(reach) = metrics.reach() {
        out.gauge("pipeline_lag", "Positions (of Kafka: records) that can be read and are not committed.");
        out.value(Reach::lag(reach));
    }
    let listed = || totals.partitions.iter().take(LISTED);
    let mut each = |name: &str, kind, help: &str, value: fn(&Range) -> u64| {
        out.family(name, kind, help);
        for (partition, range) in listed() {
            out.labelled(&[("partition", partition)], value(range));
        }
    };
    each("pipeline_partition_watermark", "gauge", "Position before which everything is committed.", |it| {
        it.end
    });
    each(
        "pipeline_partition_records_read_total",
        "counter",
        "Records read, and stored or rejected for good.",
        |it| it.read,
    );
    each("pipeline_partition_records_rejected_total", "counter", "Records rejected for good.", |it| {
        it.rejected
    });
    each("pipeline_partition_ended", "gauge", "1 where the partition is read and stored to its end.", |it| {
        it.ended.into()
    });
    out.gauge(
        "pipeline_partition_lag",
        "Positions that can be read and are not committed, where the end is known.",
    );
    let lags = metrics.lags();
    for (partition, lag) in listed().filter_map(|(name, _)| lags.get_key_value(name)) {
        out.labelled(&[("partition", partition)], lag);
    }
}

fn services(metrics: &Metrics, out: &mut Text) {
    let told = metrics.services.told();
    out.counter("pipeline_service_errors_total", "Calls of a service that failed, by kind.");
    for ((service, kind), trouble) in &told {
        out.labelled(&[("service", service), ("kind", kind)], trouble.errors);
    }
    out.counter(
        "pipeline_service_retries_total",
        "Calls of a service that failed and were tried again, by kind.",
    );
    for ((service, kind), trouble) in &told {
        out.labelled(&[("service", service), ("kind", kind)], trouble.retries);
    }
}

fn latencies(metrics: &Metrics, out: &mut Text) {
    let times = &metrics.latencies;
    out.histogram(
        "pipeline_fetch_duration_seconds",
        "Time to read one chunk from the source.",
        &times.fetch.histogram(),
    );
    out.histogram(
        "pipeline_process_duration_seconds",
        "Time to make output of one chunk.",
        &times.process.histogram(),
    );
    out.histogram(
        "pipeline_publish_duration_seconds",
        "Time of one call of the sink that publishes.",
        &times.publish.histogram(),
    );
    out.histogram(
        "pipeline_commit_duration_seconds",
        "Time to remember what is done.",
        &times.commit.histogram(),
    );
}

/// What the system tells of this process; nothing where it does not.
fn process(out: &mut Text) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    if let Some(resident) = kib("VmRSS") {
        out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
        out.value(resident * 1024);
    }
    let usage = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Number of open file descriptors.");
        out.value(open.count() as u64);
    }
    if let Some(limit) = usage.current {
        out.gauge("process_max_fds", "Maximum number of open file descriptors.");
        out.value(limit);
    }
}

/// A document in the text format.
#[derive(Default)]
struct Text(String, Name);

/// The family that samples belong to.
type Name = String;

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.1.replace_range(.., name);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    fn value(&mut self, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{} {value}", self.1);
    }

    fn labelled(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(&self.1);
        sample(&mut self.0, labels, value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        for (bound, count) in &histogram.buckets {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let _ = write!(self.0, "{name}_bucket");
            sample(&mut self.0, &[("le", &bound)], count);
        }
        let _ = writeln!(self.0, "{name}_sum {}\n{name}_count {}", histogram.sum, histogram.count());
    }
}

fn sample(out: &mut String, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    for (index, (name, text)) in labels.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        let _ = write!(out, "{name}=\"");
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    let _ = writeln!(out, "}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many partitions there are, a scrape is bounded, and its sums are of all.
    #[test]
    fn a_scrape_of_ten_thousand_partitions_is_bounded() {
        let board = Board::new(&crate::config::Config::default(), &crate::stop::Stop::new());
        let metrics = std::sync::Arc::new(Metrics::default());
        crate::job::Observer::begin(&board, &metrics);
        for index in 0..10_000 {
            let partition = crate::record::Partition::named("test", format!("orders:{index}"));
            metrics.begun(&partition, 0);
            metrics.readable(&mut vec![(partition, 0, 3)]);
        }
        let text = board.text();
        let listed = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        for name in ["pipeline_partition_watermark{", "pipeline_partition_lag{"] {
            assert_eq!(listed(name), LISTED, "{name}");
        }
        assert!(text.contains("\npipeline_partitions 10000\n") && text.contains("\npipeline_lag 30000\n"));
        assert!(text.len() < 500_000, "{} bytes", text.len());
        assert!(board.json().len() < 50_000);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.gauge("a", "An a.");
        text.labelled(&[("of", "x\"\\\ny"), ("and", "z")], 1);
        assert_eq!(text.0, "# HELP a An a.\n# TYPE a gauge\na{of=\"x\\\"\\\\\\ny\",and=\"z\"} 1\n");
    }
}
