//! Commits: how far partitions are done stands in the group, with versioned metadata beside each offset.

use std::sync::Arc;

use super::Shared;
use crate::error::Result;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::group::{Commit, CutShort, Group, Tenancy};
use crate::record::Partition;
use crate::source::{Mark, Marks};

/// The group's commits as the engine's marks.
pub(crate) struct GroupMarks(pub Arc<Shared>);

/// What became of commits: all are durable but those that were fenced, and the ends of plans that did not fit.
pub(crate) struct Committed<'a> {
    pub commits: &'a [Commit],
    pub fenced: &'a [(TopicPartition, u64)],
    pub short: &'a [CutShort],
}

impl GroupMarks {
    /// What is to be committed for these marks; nothing for those whose partition is lost already.
    pub(crate) fn commits(&self, group: &Group, marks: &[Mark]) -> Vec<Commit> {
        let commit = |mark: &Mark| {
            let seat = self.0.desk.seat(&mark.partition)?;
            let Tenancy { of, epoch, topic_id, .. } = &*seat.tenancy;
            Some(Commit {
                of: of.clone(),
                epoch: *epoch,
                offset: mark.watermark as i64,
                leader_epoch: leader_epoch(mark),
                metadata: group.metadata(*topic_id, mark.plan.clone()),
            })
        };
        marks.iter().filter_map(commit).collect()
    }

    /// Tells marks what of them is durable, and which partitions are lost.
    pub(crate) fn committed(
        &self,
        marks: &mut [Mark],
        outcome: &Committed<'_>,
        refused: &mut Vec<Partition>,
    ) {
        // In the order of the marks.
        let mut sent = outcome.commits.iter().peekable();
        for mark in marks {
            let epoch = mark.partition.identity().epoch;
            let sent = sent.next_if(|commit| commit.epoch == epoch);
            if sent.is_none() || outcome.fenced.iter().any(|(_, fenced)| *fenced == epoch) {
                refused.push(mark.partition.clone());
                continue;
            }
            if let Some(cut) = outcome.short.iter().find(|cut| cut.epoch == epoch) {
                mark.plan.truncate(cut.ends);
            }
            self.0.desk.begun(&mark.partition);
        }
    }
}

impl Marks for GroupMarks {
    fn service(&self) -> &'static str {
        "kafka"
    }

    /// Readers are told with the assignment.
    fn load(&self, _partition: &str) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn store(&self, marks: &mut [Mark], refused: &mut Vec<Partition>) -> Result<()> {
        let Some(group) = &self.0.group else { return Ok(()) };
        let commits = self.commits(group, marks);
        let mut fenced = Vec::new();
        let short = group.commit(&commits, &mut fenced)?;
        self.committed(marks, &Committed { commits: &commits, fenced: &fenced, short: &short }, refused);
        Ok(())
    }

    fn plans(&self) -> bool {
        self.0.group.is_some() && self.0.options.plans
    }

    fn rereads(&self) -> bool {
        self.0.group.is_some()
    }

    fn doubted(&self, partition: &Partition) {
        if let (Some(group), Some(seat)) = (&self.0.group, self.0.desk.seat(partition)) {
            group.doubted(&seat.tenancy.of, seat.tenancy.epoch);
        }
    }

    fn released(&self, partition: &Partition) {
        if let (Some(group), Some(seat)) = (&self.0.group, self.0.desk.released(partition)) {
            group.released(&seat.tenancy.of, seat.tenancy.epoch);
        }
    }
}

/// The epoch of the leader that wrote the last record before the mark, or -1.
fn leader_epoch(mark: &Mark) -> i32 {
    let bytes = mark.resume.as_deref().and_then(|resume| resume.try_into().ok());
    bytes.map_or(-1, i32::from_be_bytes)
}
