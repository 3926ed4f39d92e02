//! [`GroupSettings`]: which group, of what, and how patient.

use std::sync::Arc;
use std::time::Duration;

use super::assign::Assignor;
use crate::error::{Error, Result};

/// What a [`super::Group`] is made of.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// The group's id.
    pub group: String,
    /// What is read.
    pub topics: Vec<Arc<str>>,
    /// Makes the member static (KIP-345): it keeps its partitions over a restart within the session timeout.
    pub instance_id: Option<String>,
    /// Without a heartbeat for so long, the coordinator gives the partitions away.
    pub session_timeout: Duration,
    /// Without [`super::Group::polled`] for so long, the member leaves. Also how long others are waited for in a
    /// rebalance.
    pub max_poll_interval: Duration,
    /// How long readers and writers have to let go of a revoked partition.
    pub release_within: Duration,
    /// How partitions are spread over members.
    pub assignor: Assignor,
    /// Fingerprint of where the output goes, for commits.
    pub location: u64,
    /// The transactional id of whoever commits the group's offsets in transactions, made by [`transactional_id`]: the
    /// group's leader ends what members of such ids have left open when they died.
    ///
    /// [`transactional_id`]: super::transactional_id
    pub transactional_id: Option<String>,
    /// How often the coordinator is told that the member lives; `None`: three times in a session timeout.
    pub heartbeat_every: Option<Duration>,
    /// How often is looked for new partitions.
    pub metadata_every: Duration,
    /// Without any answer of a coordinator for so long, [`super::Group::attend`] fails.
    pub give_up_after: Duration,
}

impl GroupSettings {
    /// With Kafka's own times.
    pub fn new(group: impl Into<String>, topics: Vec<Arc<str>>) -> Self {
        GroupSettings {
            group: group.into(),
            topics,
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            release_within: Duration::from_secs(60),
            assignor: Assignor::CooperativeSticky,
            location: 0,
            transactional_id: None,
            heartbeat_every: None,
            metadata_every: Duration::from_secs(30),
            give_up_after: Duration::from_secs(300),
        }
    }

    /// # Errors
    /// [`Error::Usage`] if they contradict each other.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::Usage(text.into()));
        if self.group.is_empty() || self.group.len() > 1000 {
            return wrong("kafka.group must have from 1 to 1000 bytes");
        }
        if self.topics.is_empty() {
            return wrong("kafka.topics names no topic");
        }
        if self.instance_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 249) {
            return wrong("kafka.instance_id must have from 1 to 249 bytes");
        }
        if self.session_timeout.is_zero() || self.session_timeout > self.max_poll_interval {
            return wrong("kafka.session_timeout must be above 0 and at most kafka.max_poll_interval");
        }
        Ok(())
    }

    pub(super) fn heartbeat_every(&self) -> Duration {
        let third = self.session_timeout / 3;
        self.heartbeat_every.map_or(third, |every| every.min(third))
    }

    /// Others wait for this member for at most `max_poll_interval` once the rebalance has begun.
    pub(super) fn release_deadline(&self) -> Duration {
        self.release_within.min(self.max_poll_interval / 4 * 3)
    }
}
