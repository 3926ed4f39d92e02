//! What happens to partitions: [`Change`], in order, through a queue that is bounded by what it says.
//!
//! Of a partition at most the end of one tenancy and the beginning of the next stand in the queue: a tenancy that
//! ends before anyone heard of it is taken out, and an end that is made final takes the place of the one before.

use std::collections::VecDeque;

use uuid::Uuid;

use super::metadata::Remembered;
use crate::kafka::cluster::TopicPartition;

/// One member's ownership of a partition in one (member id, generation, assignment).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// Which partition.
    pub of: TopicPartition,
    /// The topic's id when it was assigned; nil where brokers have none.
    pub topic_id: Uuid,
    /// Unique in this process.
    pub epoch: u64,
    /// What the group remembers of it; `None` if nothing was ever committed, or of another topic of this name.
    pub committed: Option<Committed>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything before it is done.
    pub offset: i64,
    /// Leader epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What stands beside it.
    pub metadata: Remembered,
}

/// What happened to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Read it from now on.
    Assigned(Tenancy),
    /// Stop reading, finish what is planned, commit, then [`super::Group::released`].
    Revoked(TopicPartition, u64),
    /// It is gone: drop everything of it.
    Lost(TopicPartition, u64),
}

/// Whether anyone has heard of a tenancy that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its end is in the queue now.
    Yes,
    /// Its beginning was still in the queue and is taken out; there is nothing to release.
    No,
}

/// Changes that nobody has taken yet.
#[derive(Default)]
pub(super) struct Changes(VecDeque<Change>);

impl Changes {
    pub fn assigned(&mut self, tenancy: Tenancy) {
        self.0.push_back(Change::Assigned(tenancy));
    }

    pub fn revoked(&mut self, of: &TopicPartition, epoch: u64) -> Heard {
        self.end(Change::Revoked(of.clone(), epoch), epoch)
    }

    pub fn lost(&mut self, of: &TopicPartition, epoch: u64) {
        self.0.retain(|change| !matches!(change, Change::Revoked(_, other) if *other == epoch));
        self.end(Change::Lost(of.clone(), epoch), epoch);
    }

    fn end(&mut self, change: Change, epoch: u64) -> Heard {
        let before = self.0.len();
        self.0.retain(|change| !matches!(change, Change::Assigned(tenancy) if tenancy.epoch == epoch));
        if self.0.len() < before {
            return Heard::No;
        }
        self.0.push_back(change);
        Heard::Yes
    }

    pub fn next(&mut self) -> Option<Change> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> TopicPartition {
        TopicPartition::new("in", 0)
    }

    fn tenancy(epoch: u64) -> Tenancy {
        Tenancy { of: of(), topic_id: Uuid::nil(), epoch, committed: None }
    }

    #[test]
    fn the_queue_does_not_grow_while_nobody_takes() {
        let mut changes = Changes::default();
        changes.assigned(tenancy(0));
        assert!(changes.next().is_some());
        for epoch in 1..1000 {
            if epoch % 3 != 0 || changes.revoked(&of(), epoch - 1) == Heard::Yes {
                changes.lost(&of(), epoch - 1);
            }
            changes.assigned(tenancy(epoch));
            assert!(changes.0.len() <= 2);
        }
        assert_eq!(changes.next(), Some(Change::Lost(of(), 0)));
        assert_eq!(changes.next(), Some(Change::Assigned(tenancy(999))));
        assert_eq!(changes.next(), None);
    }

    #[test]
    fn a_revocation_that_becomes_a_loss_is_told_once() {
        let mut changes = Changes::default();
        assert_eq!(changes.revoked(&of(), 1), Heard::Yes);
        changes.lost(&of(), 1);
        assert_eq!(changes.next(), Some(Change::Lost(of(), 1)));
        assert_eq!(changes.next(), None);
        // It was taken already: then the loss comes behind it.
        changes.revoked(&of(), 2);
        changes.next();
        changes.lost(&of(), 2);
        assert_eq!(changes.next(), Some(Change::Lost(of(), 2)));
    }

    #[test]
    fn a_tenancy_that_nobody_heard_of_is_not_told_at_all() {
        let mut changes = Changes::default();
        changes.assigned(tenancy(1));
        assert_eq!(changes.revoked(&of(), 1), Heard::No);
        assert_eq!(changes.next(), None);
    }
}
