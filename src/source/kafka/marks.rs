//! Commits: how far partitions are done stands in the group, with versioned metadata beside each offset.

use std::sync::Arc;

use super::Shared;
use super::desk::Seat;
use crate::error::Result;
use crate::kafka::group::{Commit, Tenancy};
use crate::record::Partition;
use crate::source::{Mark, Marks};

/// The group's commits as the engine's marks.
pub(super) struct GroupMarks(pub Arc<Shared>);

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
        let seats: Vec<Option<Seat>> = marks.iter().map(|mark| self.0.desk.seat(&mark.partition)).collect();
        let commit = |(mark, seat): (&Mark, &Option<Seat>)| {
            let Tenancy { of, epoch, topic_id, .. } = &*seat.as_ref()?.tenancy;
            Some(Commit {
                of: of.clone(),
                epoch: *epoch,
                offset: mark.watermark as i64,
                leader_epoch: leader_epoch(mark),
                metadata: group.metadata(*topic_id, mark.plan.clone()),
            })
        };
        let commits: Vec<Commit> = marks.iter().zip(&seats).filter_map(commit).collect();
        let mut fenced = Vec::new();
        let short = group.commit(&commits, &mut fenced)?;
        for (mark, seat) in marks.iter_mut().zip(&seats) {
            let epoch = mark.partition.identity().epoch;
            // Without a seat the partition is lost already, and its mark was not committed.
            if seat.is_none() || fenced.iter().any(|(_, fenced)| *fenced == epoch) {
                refused.push(mark.partition.clone());
                continue;
            }
            if let Some(cut) = short.iter().find(|cut| cut.epoch == epoch) {
                mark.plan.truncate(cut.ends);
            }
            self.0.desk.begun(&mark.partition);
        }
        Ok(())
    }

    fn plans(&self) -> bool {
        self.0.group.is_some() && self.0.options.plans
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
