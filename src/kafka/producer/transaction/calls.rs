//! What a transactional producer asks coordinators: who it is, which partitions and offsets belong to the transaction,
//! and how that ends. What the answers mean for the transaction stands here, what it then does in the parent.

use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId, InitProducerIdRequest,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{GroupOffset, Phase, Renew, judge};
use crate::kafka::cluster::{Coordinates, topic_name};
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};
use crate::kafka::group::Identity;
use crate::kafka::producer::Producer;
use crate::kafka::producer::desk::{Answer, Before, Desk, usual};
use crate::kafka::producer::queue::ProducerId;
use crate::kafka::producer::round::At;

/// The last version of AddPartitionsToTxn for clients.
const ADD_PARTITIONS: i16 = 3;
/// The last versions before KIP-890's second part.
const END_BEFORE: i16 = 4;
const OFFSETS_BEFORE: i16 = 4;
/// The first version of InitProducerId that tells the epoch before (KIP-360).
const INIT_AFTER: i16 = 3;

impl Producer {
    /// InitProducerId: aborts or finishes what an earlier producer of this id left, and fences it. With `before`
    /// this producer goes on under the next epoch, unless another one took over.
    pub(in crate::kafka::producer) fn identify_transactional(
        &mut self,
        before: Option<ProducerId>,
        deadline: Instant,
    ) -> Result<()> {
        let patience = self.patience(deadline);
        let transaction = self.transaction_mut()?;
        let (name, id) = (transaction.name(), transaction.settings.id.clone());
        let timeout = i32::try_from(transaction.settings.timeout.as_millis()).unwrap_or(i32::MAX);
        let request = |version| {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(name.clone()))
                .with_transaction_timeout_ms(timeout);
            match before {
                Some(before) if version >= INIT_AFTER => {
                    request.with_producer_id(before.id.into()).with_producer_epoch(before.epoch)
                }
                _ => request,
            }
        };
        let found = transaction.desk.ask(&patience, i16::MAX, request, |call, answer, _| {
            let code = Code(answer.error_code);
            match usual(code) {
                Some(answer) => answer,
                None if code.0 == 0 => {
                    Answer::Done(ProducerId { id: answer.producer_id.0, epoch: answer.producer_epoch })
                }
                None => Answer::Failed(judge(id.clone(), call.api, code)),
            }
        });
        let found = self.note(found)?;
        log::debug!("producer id {} with epoch {}", found.id, found.epoch);
        self.producer = Some(found);
        self.transaction_mut()?.learn();
        Ok(())
    }

    /// Adds partitions to the transaction before anything is sent to them, where the cluster wants that.
    pub(in crate::kafka::producer) fn enlist<'a>(
        &mut self,
        places: impl Iterator<Item = &'a At>,
        deadline: Instant,
    ) -> Result<()> {
        let Some(transaction) = &self.transaction else { return Ok(()) };
        if transaction.phase != Phase::Open {
            return Err(Error::Config("records are sent outside a transaction".into()));
        }
        let new: Vec<At> = places.filter(|at| !transaction.enlisted.contains(*at)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        if !transaction.implicit {
            self.add_partitions(&new, deadline)?;
        }
        let transaction = self.transaction_mut()?;
        transaction.started = true;
        transaction.enlisted.extend(new);
        Ok(())
    }

    fn add_partitions(&mut self, new: &[At], deadline: Instant) -> Result<()> {
        let (patience, producer) = (self.patience(deadline), self.whoami()?);
        let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
        let mut of = None;
        for (index, partition) in new {
            if of.replace(*index) != Some(*index) {
                let name = topic_name(&self.outputs[*index].name);
                topics.push(AddPartitionsToTxnTopic::default().with_name(name));
            }
            topics.last_mut().expect("it was pushed above").partitions.push(*partition as i32);
        }
        let transaction = self.transaction_mut()?;
        transaction.started = true;
        let (name, id) = (transaction.name(), transaction.settings.id.clone());
        let request = |_| {
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(name.clone())
                .with_v3_and_below_producer_id(producer.id.into())
                .with_v3_and_below_producer_epoch(producer.epoch)
                .with_v3_and_below_topics(topics.clone())
        };
        let added = transaction.desk.ask(&patience, ADD_PARTITIONS, request, |call, answer, _| {
            let partitions =
                answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
            let codes = partitions.map(|partition| Code(partition.partition_error_code));
            // What was not tried says nothing: another partition has the reason.
            match codes.filter(|code| code.0 != 0).min_by_key(|code| code.0 == 55) {
                None => Answer::Done(()),
                Some(code) => {
                    usual(code).unwrap_or_else(|| Answer::Failed(judge(id.clone(), call.api, code)))
                }
            }
        });
        self.note(added)
    }

    /// Adds a group's offsets. The inner error is the group's: the member is not what it was.
    pub(super) fn send_offsets(
        &mut self,
        offsets: &[GroupOffset],
        member: &Identity,
    ) -> Result<Result<(), Code>> {
        let deadline = self.deadline();
        if !self.transaction_mut()?.implicit {
            self.add_offsets(member, deadline)?;
        }
        let (patience, producer) = (self.patience(deadline), self.whoami()?);
        let transaction = self.transaction_mut()?;
        transaction.started = true;
        let (name, id) = (transaction.name(), transaction.settings.id.clone());
        let most = if transaction.implicit { i16::MAX } else { OFFSETS_BEFORE };
        let topics = offset_topics(offsets);
        let request = |_| {
            TxnOffsetCommitRequest::default()
                .with_transactional_id(name.clone())
                .with_group_id(group_id(member))
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch)
                .with_generation_id(member.generation)
                .with_member_id(StrBytes::from_string(member.member.to_string()))
                .with_group_instance_id(
                    member.instance.as_ref().map(|instance| StrBytes::from_string(instance.to_string())),
                )
                .with_topics(topics.clone())
        };
        let key: Arc<str> = member.group.as_str().into();
        let (of, desk) =
            transaction.group.get_or_insert_with(|| (key.clone(), Desk::of(Coordinates::Group, &key)));
        if *of != key {
            (*of, *desk) = (key.clone(), Desk::of(Coordinates::Group, &key));
        }
        let stored = desk.ask(&patience, most, request, |call, answer, _| {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let codes = partitions.map(|partition| Code(partition.error_code));
            // What will not change decides.
            let worst = codes.filter(|code| code.0 != 0).min_by_key(|code| usual::<()>(*code).is_some());
            let Some(code) = worst else { return Answer::Done(Ok(())) };
            match code.0 {
                22 | 25 | 82 | 110 | 113 => Answer::Done(Err(code)),
                27 => Answer::Again(code),
                _ => usual(code).unwrap_or_else(|| Answer::Failed(judge(id.clone(), call.api, code))),
            }
        });
        self.note(stored)
    }

    fn add_offsets(&mut self, member: &Identity, deadline: Instant) -> Result<()> {
        let (patience, producer) = (self.patience(deadline), self.whoami()?);
        let transaction = self.transaction_mut()?;
        transaction.started = true;
        let (name, id) = (transaction.name(), transaction.settings.id.clone());
        let request = |_| {
            AddOffsetsToTxnRequest::default()
                .with_transactional_id(name.clone())
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch)
                .with_group_id(group_id(member))
        };
        let added = transaction.desk.ask(&patience, i16::MAX, request, |call, answer, _| {
            let code = Code(answer.error_code);
            match usual(code) {
                Some(answer) => answer,
                None if code.0 == 0 => Answer::Done(()),
                None => Answer::Failed(judge(id.clone(), call.api, code)),
            }
        });
        self.note(added)
    }

    /// EndTxn until its outcome is known. Says whether the epoch is still to be raised.
    pub(super) fn end(&mut self, how: Phase) -> Result<Renew> {
        let (patience, producer) = (self.patience(self.deadline()), self.whoami()?);
        let aborts = how == Phase::Aborting;
        let transaction = self.transaction_mut()?;
        let (name, id) = (transaction.name(), transaction.settings.id.clone());
        let first = !std::mem::replace(&mut transaction.asked, !aborts);
        let most = if transaction.implicit { i16::MAX } else { END_BEFORE };
        let request = |_| {
            EndTxnRequest::default()
                .with_transactional_id(name.clone())
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch)
                .with_committed(!aborts)
        };
        let mut sure = true;
        let ended = transaction.desk.ask(&patience, most, request, |call, answer, before| {
            let code = Code(answer.error_code);
            sure = aborts || (first && before == Before::Never);
            if let Some(answer) = usual(code) {
                return answer;
            }
            match code.0 {
                0 if call.version > END_BEFORE => Answer::Done((
                    Renew::No,
                    Some(ProducerId { id: answer.producer_id.0, epoch: answer.producer_epoch }),
                )),
                0 if aborts => Answer::Done((Renew::Yes, None)),
                0 => Answer::Done((Renew::No, None)),
                // The coordinator has no such transaction: nothing of it counts, which is what an abort is for.
                48 | 49 | 59 | 120 if aborts => Answer::Done((Renew::Yes, None)),
                // A first answer that says so is as good as an abort; a later one may be about what was done.
                120 if sure => Answer::Failed(judge(id.clone(), call.api, code)),
                120 => {
                    Answer::Failed(Error::Transaction { transactional_id: id.clone(), api: call.api, code })
                }
                _ => Answer::Failed(ending(id.clone(), call.api, code)),
            }
        });
        transaction.unsure = !sure;
        let outcome = self.note(ended);
        if let (Err(Error::Abortable { .. }), Some(transaction)) = (&outcome, &mut self.transaction) {
            (transaction.phase, transaction.asked) = (Phase::Open, false);
        }
        let (renew, next) = outcome?;
        // Nil where a broker leaves it out: then the epoch stays.
        if let Some(next) = next.filter(|next| next.id >= 0 && next.epoch >= 0) {
            self.producer = Some(next);
        }
        Ok(renew)
    }
}

/// The same for a commit: whatever is not known to be undone is not tried again.
fn ending(transactional_id: String, api: &'static str, code: Code) -> Error {
    match code.0 {
        // 48 is what KIP-890 answers to whom others have fenced by an abort.
        47 | 48 | 90 => Error::Fenced { transactional_id, code },
        _ => Error::Transaction { transactional_id, api, code },
    }
}

fn group_id(member: &Identity) -> GroupId {
    GroupId(StrBytes::from_string(member.group.to_string()))
}

fn offset_topics(offsets: &[GroupOffset]) -> Vec<TxnOffsetCommitRequestTopic> {
    let mut topics: Vec<TxnOffsetCommitRequestTopic> = Vec::new();
    for offset in offsets {
        let at = topics.iter().position(|topic| topic.name.0[..] == *offset.of.topic).unwrap_or_else(|| {
            topics.push(TxnOffsetCommitRequestTopic::default().with_name(topic_name(&offset.of.topic)));
            topics.len() - 1
        });
        topics[at].partitions.push(
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(offset.of.partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch)
                .with_committed_metadata(Some(StrBytes::from_string(offset.metadata.clone()))),
        );
    }
    topics
}
