//! Where a partition begins: at its commit, or where `from` says.

use std::time::Instant;

use super::desk::Seat;
use super::{PATIENCE, Shared, refused};
use crate::config::kafka::{From, Until};
use crate::error::Result;
use crate::kafka::cluster::{At, Isolation, PartitionInfo, TopicPartition};
use crate::kafka::group::{Committed, Remembered};
use crate::source::{Mark, Planned};

/// Where a partition begins.
pub(crate) struct Begin {
    pub offset: u64,
    /// The epoch of the leader that wrote the record before it, or -1.
    pub leader_epoch: i32,
    pub plan: Vec<Planned>,
}

impl Shared {
    /// Where a partition begins. Blocks while brokers are asked.
    ///
    /// # Errors
    /// If they do not say within a minute, or the commit belongs to another output.
    pub(super) fn begin(&self, seat: &Seat) -> Result<Begin> {
        let of = &seat.tenancy.of;
        if let Some(committed) = &seat.tenancy.committed {
            let offset = committed.offset.max(0) as u64;
            // Only the end that this run asked for is the log's.
            let end = self.desk.end(of).filter(|_| self.options.until == Until::End);
            let log_end = || {
                let (_, epoch) = self.cluster.leader(of)?;
                // One that is cut off from the others does not know what they have written since.
                let is_older = committed.leader_epoch < 0 || epoch < committed.leader_epoch;
                if is_older {
                    Ok(None)
                } else {
                    self.offset(of, At::Latest, Isolation::ReadUncommitted).map(Some)
                }
            };
            still_there(of, offset, end, log_end)?;
            return Ok(Begin {
                offset,
                leader_epoch: committed.leader_epoch,
                plan: self.plan(of, committed)?,
            });
        }
        let age = match seat.age {
            Some(age) => age,
            None if self.options.from != From::Earliest && self.is_known(of)? => Age::Younger,
            None => Age::Older,
        };
        match origin(self.options.from, age) {
            From::Earliest => self.resolve(of, At::Earliest),
            From::Latest => self.resolve(of, At::Latest),
            From::Time(time) => match self.resolve(of, At::Time(time))? {
                // Nothing that late yet.
                begin if begin.offset == u64::MAX => self.resolve(of, At::Latest),
                begin => Ok(begin),
            },
        }
    }

    /// The ends beyond a commit at which batches may be published already. The group has seen to it that they are of
    /// this output.
    fn plan(&self, of: &TopicPartition, committed: &Committed) -> Result<Vec<Planned>> {
        recovered(of, committed, || self.offset(of, At::Latest, Isolation::ReadUncommitted))
    }

    /// Whether the group has committed anything of a partition's topic.
    fn is_known(&self, of: &TopicPartition) -> Result<bool> {
        let Some(topic) = self.cluster.topic(&of.topic) else { return Ok(false) };
        let partition = |info: &PartitionInfo| TopicPartition::new(of.topic.clone(), info.index);
        let all: Vec<TopicPartition> = topic.partitions.iter().map(partition).collect();
        self.has_committed(&all)
    }

    /// The offset at a place of the log.
    pub(super) fn resolve(&self, of: &TopicPartition, at: At) -> Result<Begin> {
        let offset = self.offset(of, at, self.options.fetch.isolation)?;
        Ok(Begin { offset, leader_epoch: -1, plan: Vec::new() })
    }

    fn offset(&self, of: &TopicPartition, at: At, isolation: Isolation) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        let found = self.cluster.offsets(std::slice::from_ref(of), at, isolation, deadline)?;
        let found = found.first().ok_or_else(|| refused(&of.topic, "the broker did not name its offsets"))?;
        Ok(u64::try_from(found.offset).unwrap_or(u64::MAX))
    }
}

/// Whether a partition has been there for longer than the group has committed anything of its topic, or, without a
/// group, than the run has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Older,
    Younger,
}

/// Where a partition without a commit begins: one that is younger than the group's first commit, or than the run without
/// a group, is read whole. Pure.
pub(crate) fn origin(from: From, age: Age) -> From {
    if age == Age::Younger { From::Earliest } else { from }
}

/// Where a run ends before the commit it fetches nothing, so nobody tells it that the log was cut back. `log_end` is
/// asked for there: others may have gone on behind the end of this run, or the leader may not know of what they wrote.
///
/// # Errors
/// If the log ends before the commit: what is written there now would never be read.
fn still_there(
    of: &TopicPartition,
    offset: u64,
    end: Option<u64>,
    log_end: impl FnOnce() -> Result<Option<u64>>,
) -> Result<()> {
    if end.is_none_or(|end| end >= offset) {
        return Ok(());
    }
    let Some(log_end) = log_end()?.filter(|end| *end < offset) else { return Ok(()) };
    let why = format!(
        "the group has committed offset {offset}, but the log ends at {log_end}: its end was lost, as after an unclean \
         leader election; reset the group's offset to go on"
    );
    Err(refused(&of.to_string(), why))
}

/// The planned ends beside a commit. `log_end` is asked for if there are any.
///
/// # Errors
/// If a batch is planned beyond the log's end: waiting for it would mix records of two logs.
pub(crate) fn recovered(
    of: &TopicPartition,
    committed: &Committed,
    log_end: impl FnOnce() -> Result<u64>,
) -> Result<Vec<Planned>> {
    let Remembered::Ours(metadata) = &committed.metadata else {
        log::warn!("{of}: the commit at {} was not made by this program; going on there", committed.offset);
        return Ok(Vec::new());
    };
    let Some(last) = metadata.plan.last() else { return Ok(Vec::new()) };
    let end = log_end()?;
    if last.end > end {
        let planned = last.end;
        let why = format!(
            "batches of {of} are planned up to {planned}, but the log ends at {end}: its end was lost, as after an \
             unclean leader election. What is published may hold records that the topic has no longer. Look at the \
             output, then set the group's offset (kafka-consumer-groups --reset-offsets) to go on"
        );
        return Err(refused(&of.topic, why));
    }
    Ok(metadata.plan.clone())
}

impl Begin {
    /// Where a partition ends that would end at `end`: not before what is planned, which may be published already.
    pub fn end(&self, end: Option<u64>) -> Option<u64> {
        let planned = self.plan.last().map_or(0, |planned| planned.end);
        end.map(|end| end.max(planned))
    }

    /// As the engine knows it.
    pub fn mark(&self, seat: &Seat) -> Mark {
        Mark {
            partition: seat.partition.clone(),
            watermark: self.offset,
            line: 0,
            resume: Some(self.leader_epoch.to_be_bytes().into()),
            plan: self.plan.clone(),
            rejected: 0,
            ended: false,
            fresh: !seat.begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::group::Metadata;

    fn committed(metadata: Remembered) -> Committed {
        Committed { offset: 5, leader_epoch: -1, metadata }
    }

    #[test]
    fn a_batch_that_is_planned_beyond_the_end_of_the_log_is_an_error() {
        let of = TopicPartition::new("t", 3);
        let plan = vec![Planned { end: 9, first_time: 1, opened_at: 2 }];
        let ours = Metadata { topic_id: uuid::Uuid::nil(), location: 0, plan: plan.clone() };
        let ours = committed(Remembered::Ours(ours));
        assert_eq!(recovered(&of, &ours, || Ok(9)).unwrap(), plan);
        let error = recovered(&of, &ours, || Ok(8)).unwrap_err();
        assert!(error.to_string().contains("planned up to 9, but the log ends at 8"), "{error}");
        assert_eq!(error.exit_code(), 4);
        // Nobody is asked where nothing is planned.
        for other in [Remembered::Absent, Remembered::Foreign("x".into())] {
            assert_eq!(recovered(&of, &committed(other), || unreachable!()).unwrap(), []);
        }
    }

    #[test]
    fn a_log_that_ends_before_the_commit_is_an_error_where_a_run_would_read_nothing() {
        let of = TopicPartition::new("t", 3);
        // Where it fetches the leader tells.
        for end in [None, Some(5), Some(9)] {
            still_there(&of, 5, end, || unreachable!()).unwrap();
        }
        // Another member has gone on.
        still_there(&of, 5, Some(4), || Ok(Some(5))).unwrap();
        still_there(&of, 5, Some(4), || Ok(None)).unwrap();
        let error = still_there(&of, 5, Some(4), || Ok(Some(4))).unwrap_err();
        assert!(error.to_string().contains("committed offset 5, but the log ends at 4"), "{error}");
        assert_eq!(error.exit_code(), 4);
    }

    #[test]
    fn a_run_with_an_end_reads_on_to_what_is_planned() {
        let begin = |plan| Begin { offset: 5, leader_epoch: -1, plan };
        let planned = vec![Planned { end: 9, first_time: 1, opened_at: 2 }];
        assert_eq!(begin(planned.clone()).end(Some(7)), Some(9));
        assert_eq!(begin(planned.clone()).end(Some(12)), Some(12));
        assert_eq!(begin(planned).end(None), None);
        assert_eq!(begin(Vec::new()).end(Some(7)), Some(7));
    }

    #[test]
    fn a_partition_that_is_younger_than_the_groups_commits_is_read_whole() {
        for from in [From::Earliest, From::Latest, From::Time(7)] {
            assert_eq!(origin(from, Age::Older), from);
            assert_eq!(origin(from, Age::Younger), From::Earliest);
        }
    }
}
