//! Commits: how far partitions are done stands in the group, with versioned metadata beside each offset.

use std::sync::Arc;

use super::Shared;
use crate::error::Result;
use crate::kafka::group::{Commit, Metadata};
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

    fn store(&self, marks: &[Mark], refused: &mut Vec<Partition>) -> Result<()> {
        let Some(group) = &self.0.group else { return Ok(()) };
        let location = self.0.options.group.as_ref().map_or(0, |group| group.location);
        // Without a seat the partition is lost already, and its mark must not be committed.
        let seated = marks.iter().map(|mark| (mark, self.0.desk.seat(&mark.partition)));
        let (held, lost): (Vec<_>, Vec<_>) = seated.partition(|(_, seat)| seat.is_some());
        let commits: Vec<Commit> = held
            .iter()
            .filter_map(|(mark, seat)| {
                let tenancy = &seat.as_ref()?.tenancy;
                Some(Commit {
                    of: tenancy.of.clone(),
                    epoch: tenancy.epoch,
                    offset: mark.watermark as i64,
                    leader_epoch: leader_epoch(mark),
                    metadata: Metadata { topic_id: tenancy.topic_id, location, plan: mark.plan.clone() },
                })
            })
            .collect();
        let mut fenced = Vec::new();
        group.commit(&commits, &mut fenced)?;
        refused.extend(lost.iter().map(|(mark, _)| mark.partition.clone()));
        for (mark, _) in held {
            if fenced.iter().any(|(_, epoch)| *epoch == mark.partition.identity().epoch) {
                refused.push(mark.partition.clone());
            } else {
                self.0.desk.begun(&mark.partition);
            }
        }
        Ok(())
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
