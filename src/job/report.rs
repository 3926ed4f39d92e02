//! What a run tells while it goes on and at its end: [`Reporter`] makes snapshots and the summary of the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Parts;
use crate::job::Observer;
use crate::metrics::Metrics;
use crate::progress::Snapshot;
use crate::summary::{Outcome, PartitionRange, RejectedRecord, Summary};

/// Makes snapshots and the summary.
pub(super) struct Reporter<'a> {
    size: Option<u64>,
    consumed: Arc<AtomicU64>,
    skipped: Arc<AtomicU64>,
    observer: &'a dyn Observer,
    waits: Mutex<(Duration, Duration)>,
    extent: Extent,
    paged: bool,
}

/// Whether what a source has ends where its partitions end at the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// It goes on for ever, or is known in bytes.
    Open,
    /// Once everything that is readable is committed, the run is over: a bar over positions makes sense.
    Bounded,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(parts: &Parts<'_>, observer: &'a dyn Observer) -> Self {
        Reporter {
            size: parts.source.size(),
            consumed: parts.consumed.clone(),
            skipped: parts.skipped.clone(),
            observer,
            waits: Mutex::default(),
            extent: parts.extent,
            paged: parts.paged,
        }
    }

    /// Tells the observer how far the run is.
    pub(super) fn tick(&self, metrics: &Metrics) {
        let (records_read, records_stored, records_rejected, batches) = metrics.counts();
        let mut waits = self.waits.lock();
        let (stage, now) = metrics.limiting(*waits);
        *waits = now;
        let reach = metrics.reach();
        self.observer.tick(&Snapshot {
            elapsed: metrics.started().elapsed(),
            bytes_done: self.consumed.load(Ordering::Relaxed),
            bytes_known: self.size,
            records_read,
            records_stored,
            records_rejected,
            batches,
            limiting: stage.name(),
            positions: reach.filter(|_| self.extent == Extent::Bounded).map(|reach| (reach.done, reach.all)),
            lag: reach.map(crate::metrics::Reach::lag),
        });
    }

    /// What the run did.
    pub(super) fn summary(&self, metrics: &Metrics, outcome: Outcome) -> Summary {
        let totals = metrics.totals();
        let lags = metrics.lags();
        let partition = |(name, range): (String, crate::metrics::Range)| PartitionRange {
            lag: lags.get(&name).copied(),
            name,
            start: range.start,
            end: range.end,
            records: range.read,
            ended: range.ended,
            paged: self.paged,
        };
        let sample =
            |sample: crate::transform::Sample| RejectedRecord { place: sample.place, reason: sample.reason };
        Summary {
            outcome,
            records_read: totals.read,
            records_stored: totals.stored,
            records_rejected: totals.rejected,
            rejected: totals.rejects.iter().map(|(kind, count)| (kind.name().into(), count)).collect(),
            bytes_in: self
                .consumed
                .load(Ordering::Relaxed)
                .saturating_sub(self.skipped.load(Ordering::Relaxed)),
            bytes_out: totals.bytes_stored,
            batches: totals.batches,
            seconds: metrics.started().elapsed().as_secs_f64(),
            lag: metrics.reach().map(crate::metrics::Reach::lag),
            peak_memory_bytes: peak_memory(),
            close_reasons: totals.closes.iter().map(|(close, count)| (close.name().into(), *count)).collect(),
            partition_count: totals.partition_count,
            partitions: totals.partitions.into_iter().map(partition).collect(),
            samples: totals.samples.into_iter().map(sample).collect(),
            ..Summary::default()
        }
        .with_rates()
    }
}

/// The most memory that the process has held at once, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
