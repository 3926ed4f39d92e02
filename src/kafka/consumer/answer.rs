//! What answers mean: offsets that advance, codes that pass and codes that do not.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::offset_for_leader_epoch_response::EpochEndOffset;
use kafka_protocol::messages::{FetchResponse, OffsetForLeaderEpochResponse};
use uuid::Uuid;

use super::partition::{State, refusal};
use super::{FetchFault, Fetched, Fetcher};
use crate::error::Retry;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::code::Code;
use crate::kafka::error::Error;
use crate::kafka::wire::{Batches, Crc};

/// What the headers of a partition's batches say.
pub(super) struct Walk {
    /// Where to go on: behind the last whole batch, as far as there is one.
    pub(super) next: i64,
    /// The leader epoch of the last whole batch, or -1.
    pub(super) epoch: i32,
    /// How many whole batches there are.
    pub(super) batches: usize,
    /// Whether something else than a batch came.
    pub(super) is_damaged: bool,
}

/// Walks batch headers, without checksums, from where was asked for. The next offset comes from a batch's last
/// offset, which compaction leaves alone when it removes records; a last batch that is cut off does not count.
pub(super) fn walk(records: &[u8], from: i64) -> Walk {
    let mut walk = Walk { next: from, epoch: -1, batches: 0, is_damaged: false };
    for batch in Batches::with_crc(records, Crc::Skip) {
        match batch {
            Ok(batch) => {
                walk.next = walk.next.max(batch.next_offset());
                walk.epoch = batch.leader_epoch();
                walk.batches += 1;
            }
            Err(_) => walk.is_damaged = true,
        }
    }
    walk
}

impl Fetcher {
    /// Takes what came of the request `serial`.
    pub(super) fn take_fetch(&mut self, serial: u64, answer: FetchResponse) {
        if let Err(code) = Code(answer.error_code).check() {
            return self.refuse_all(serial, code);
        }
        if answer.responses.is_empty() && answer.throttle_time_ms > 0 {
            return self.put_off(serial);
        }
        let names: HashMap<Uuid, Arc<str>> = self
            .partitions
            .values()
            .filter(|partition| partition.asked == Some(serial))
            .map(|partition| (partition.topic_id, partition.of.topic.clone()))
            .collect();
        for topic in answer.responses {
            // One of both stands in an answer.
            let name = match topic.topic_id.is_nil() {
                true => Some(Arc::from(&topic.topic.0[..])),
                false => names.get(&topic.topic_id).cloned(),
            };
            let Some(name) = name else { continue };
            for data in topic.partitions {
                let of = TopicPartition::new(name.clone(), data.partition_index);
                self.take_partition(serial, &of, data);
            }
        }
        self.miss(serial);
    }

    fn take_partition(&mut self, serial: u64, of: &TopicPartition, data: PartitionData) {
        // Removed, or led by another broker since: whoever is asked now begins at the same offset.
        let Some(partition) = self.partitions.get_mut(of).filter(|one| one.asked == Some(serial)) else {
            return;
        };
        partition.asked = None;
        if partition.state != State::Fetch {
            return;
        }
        if let Err(code) = Code(data.error_code).check() {
            let out_of_range = FetchFault::OutOfRange {
                log_start: data.log_start_offset,
                high_watermark: data.high_watermark,
            };
            return match code {
                // The leader may say so because it does not know the epoch: that is another matter.
                Code::OFFSET_OUT_OF_RANGE if partition.epoch >= 0 => {
                    partition.state = State::Validate(Some(out_of_range));
                    partition.recover(self.clock.now());
                }
                Code::OFFSET_OUT_OF_RANGE => self.end(of, out_of_range),
                code => self.refuse(of, code),
            };
        }
        let parted = data.diverging_epoch.end_offset;
        if parted >= 0 && parted < partition.offset {
            let fault =
                FetchFault::Truncated { offset: partition.offset, epoch: partition.epoch, end: parted };
            return self.end(of, fault);
        }
        if parted >= 0 {
            // Only the epoch is not the same there, as when its record was compacted away: go on without.
            partition.epoch = -1;
            return partition.recover(self.clock.now());
        }
        self.take_records(of, data);
    }

    fn take_records(&mut self, of: &TopicPartition, data: PartitionData) {
        let Some(partition) = self.partitions.get_mut(of) else { return };
        // A leader whose brokers choose replicas by more than the rack, which we do not tell, would say so again and
        // again, at once. In an older version it answers itself.
        partition.is_sent_away |= data.preferred_read_replica.0 >= 0;
        let records = data.records.unwrap_or_default();
        let walk = walk(&records, partition.offset);
        if !records.is_empty() && !walk.is_damaged {
            if walk.batches == 0 {
                return self.ask_for_more(of);
            }
            if walk.next == partition.offset {
                // Only batches from before what was asked for: they would come again and again.
                return self.refuse(of, Code::CORRUPT_MESSAGE);
            }
        }
        if !records.is_empty() {
            partition.turn = self.turn;
        }
        let aborted = data.aborted_transactions.unwrap_or_default();
        let fetched = Fetched {
            of: of.clone(),
            from: partition.offset,
            next: walk.next,
            records,
            aborted: aborted.iter().map(|one| (one.producer_id.0, one.first_offset)).collect(),
            high_watermark: data.high_watermark,
            last_stable: data.last_stable_offset,
            log_start: data.log_start_offset,
            fault: None,
        };
        partition.recover(self.clock.now());
        partition.advance(walk.next, walk.epoch);
        if walk.is_damaged {
            // Whoever reads the records will find the damage, and say where.
            partition.state = State::Held;
        }
        partition.deliver(fetched, &mut self.ready);
    }

    /// Not even the first batch is whole: a broker from before Fetch v3's promise, or one that breaks it.
    fn ask_for_more(&mut self, of: &TopicPartition) {
        let Some(partition) = self.partitions.get_mut(of) else { return };
        if partition.max_bytes >= self.settings.max_bytes {
            let fault = FetchFault::Other(Code::MESSAGE_TOO_LARGE);
            return self.end(of, fault);
        }
        partition.max_bytes = partition.max_bytes.saturating_mul(2).min(self.settings.max_bytes);
        partition.recover(self.clock.now());
    }

    /// Takes what leaders say about the epochs of what was read last.
    pub(super) fn take_epochs(&mut self, serial: u64, answer: OffsetForLeaderEpochResponse) {
        for topic in answer.topics {
            for ends in topic.partitions {
                let of = TopicPartition::new(&topic.topic.0[..], ends.partition);
                self.take_epoch(serial, &of, &ends);
            }
        }
        self.miss(serial);
    }

    fn take_epoch(&mut self, serial: u64, of: &TopicPartition, ends: &EpochEndOffset) {
        let Some(partition) = self.partitions.get_mut(of).filter(|one| one.asked == Some(serial)) else {
            return;
        };
        partition.asked = None;
        if let Err(code) = Code(ends.error_code).check() {
            return self.refuse(of, code);
        }
        let is_unknown = ends.leader_epoch < 0 || ends.end_offset < 0;
        if let Some((_, led)) = partition.leader
            && is_unknown
            && (0..partition.epoch).contains(&led)
        {
            // It led before what was read was written, and has not heard that another leads now; or none does.
            let why = format!(
                "the leader of {of} is of epoch {led}, what was read last of epoch {}: what brokers know is out of \
                 date; if it stays so (the cluster is an older one, restored), reset the group's offset",
                partition.epoch
            );
            return self.suffer(of, &Error::Unavailable(why));
        }
        if is_unknown || ends.end_offset < partition.offset {
            let end = if is_unknown { -1 } else { ends.end_offset };
            let fault = FetchFault::Truncated { offset: partition.offset, epoch: partition.epoch, end };
            return self.end(of, fault);
        }
        match std::mem::replace(&mut partition.state, State::Fetch) {
            State::Validate(Some(fault)) => self.end(of, fault),
            _ => {
                partition.is_valid();
                partition.recover(self.clock.now());
            }
        }
    }

    /// A broker refuses a partition: for now, or for good.
    fn refuse(&mut self, of: &TopicPartition, code: Code) {
        match code.retry_reading() {
            Retry::Transient => self.suffer(of, &Error::Partition { of: of.clone(), api: "Fetch", code }),
            Retry::Permanent if self.partitions.contains_key(of) => self.end(of, refusal(code)),
            Retry::Permanent => {}
        }
    }

    /// A partition is in trouble that may pass.
    pub(super) fn suffer(&mut self, of: &TopicPartition, error: &Error) {
        let Some(partition) = self.partitions.get_mut(of) else { return };
        let (attempt, rest) = partition.suffer(&error.to_string().into());
        self.cluster.again(&"fetching", error, attempt, rest);
    }

    fn refuse_all(&mut self, serial: u64, code: Code) {
        let all: Vec<_> = self.asked_in(serial);
        for of in all {
            self.refuse(&of, code);
        }
    }

    /// A broker that wants to be left alone sends an answer without anything in it (KIP-219). Nothing is wrong with its
    /// partitions: they are asked for again when it may be asked.
    fn put_off(&mut self, serial: u64) {
        let now = self.clock.now();
        for partition in self.partitions.values_mut().filter(|one| one.asked == Some(serial)) {
            (partition.asked, partition.heard) = (None, now);
        }
    }

    /// Partitions that were asked for and do not stand in the answer are asked for again, but not at once.
    fn miss(&mut self, serial: u64) {
        for of in self.asked_in(serial) {
            let why = format!("the leader left {of} out of its answer");
            self.suffer(&of, &Error::Unavailable(why));
        }
    }

    fn asked_in(&self, serial: u64) -> Vec<TopicPartition> {
        let asked = self.partitions.values().filter(|one| one.asked == Some(serial));
        asked.map(|one| one.of.clone()).collect()
    }
}
