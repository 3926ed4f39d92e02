//! [`Membership`]: what a transaction must know of the consumer group whose offsets it carries (KIP-447).

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kafka::TopicPartition;
use crate::kafka::group::{Group, Identity};
use crate::kafka::producer::GroupOffset;
use crate::record::Partition;

/// A member of a consumer group.
pub(crate) trait Membership: Send + Sync {
    /// Who commits; `None` while the member is in no generation.
    fn identity(&self) -> Option<Identity>;

    /// Whether this tenancy still holds.
    fn is_owned(&self, of: &TopicPartition, epoch: u64) -> bool;

    /// What stands beside an offset of this tenancy; `None` once it is over. It names the topic that was assigned: one
    /// that took its name since begins anew, and must not go on behind this offset.
    fn metadata(&self, of: &TopicPartition, epoch: u64, offset: i64) -> Option<String>;

    /// This goes into a transaction now.
    fn sending(&self, commit: &Sent);

    /// Its transaction counts.
    fn stored(&self, commit: &Sent);

    /// Nobody can find out whether a transaction with offsets counts: all tenancies end, and the group tells where
    /// to go on.
    fn doubt(&self, why: &str);
}

/// An offset of a tenancy, as it goes into a transaction. The group must hear of it before and after: what it finds
/// after a rebalance and was not told of, somebody else has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub epoch: u64,
    pub offset: GroupOffset,
}

impl Membership for Group {
    fn identity(&self) -> Option<Identity> {
        Group::identity(self)
    }

    fn is_owned(&self, of: &TopicPartition, epoch: u64) -> bool {
        Group::is_owned(self, of, epoch)
    }

    fn metadata(&self, of: &TopicPartition, epoch: u64, offset: i64) -> Option<String> {
        // Nothing is planned: records and offsets are published together.
        let topic_id = self.topic_id(of, epoch)?;
        Some(Group::metadata(self, topic_id, Vec::new()).write(offset, 0, 0).text)
    }

    fn sending(&self, Sent { epoch, offset }: &Sent) {
        Group::sending(self, &offset.of, *epoch, offset.offset, &offset.metadata);
    }

    fn stored(&self, Sent { epoch, offset }: &Sent) {
        Group::stored(self, &offset.of, *epoch, offset.offset, &offset.metadata);
    }

    fn doubt(&self, why: &str) {
        Group::doubt(self, why);
    }
}

/// Topic and number of a partition whose name is `topic:0`.
pub(super) fn place(partition: &Partition) -> Result<TopicPartition> {
    let parsed = partition.name().rsplit_once(':').and_then(|(topic, number)| {
        let number = number.parse().ok().filter(|_| partition.source() == "kafka")?;
        Some(TopicPartition::new(topic, number))
    });
    parsed.ok_or_else(|| Error::Usage(format!("{partition:?} is no partition of a Kafka topic")))
}

/// The leader epoch of a batch's last record, -1 if it is not known: four bytes, big endian, in what the source
/// remembers for going on.
pub(super) fn leader_epoch(batch: &Batch) -> i32 {
    let resume = batch.resume.as_deref().and_then(<[u8]>::first_chunk);
    resume.map_or(-1, |bytes| i32::from_be_bytes(*bytes))
}
