//! [`KafkaSink`]: records to a topic. Without transactions each is stored once for each time that the run gets to
//! it; with them, and the group whose partitions it reads, exactly once.
//!
//! One [`Sink::store`] call is one flush or one transaction. Records keep the order of their batches, and equal
//! keys go to one partition, so what had an order in the source has it in the destination. A try that failed
//! without a transaction goes on with the same sequence numbers; a transaction that failed is aborted and done
//! again from its beginning, and one whose end is not known is asked for until it is
//! ([`crate::kafka::producer::Producer::finish`]).
//!
//! [`letters`] puts dead letters into a topic beside any sink, [`notify`] tells a topic of each published batch.

pub mod letters;
pub mod notify;
mod mailbox;
mod membership;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use letters::WithLetterTopic;
pub use notify::Notifying;

use crate::batch::{Batch, Receipt};
use crate::error::{Error, Result, Retry};
use crate::kafka::Cluster;
use crate::kafka::cluster::SERVICE;
use crate::kafka::error as kafka;
use crate::kafka::group::{Group, Identity};
use crate::kafka::producer::{Ended, GroupOffset, ProducerSettings, Revived, Whose};
use crate::sink::{Commits, DeadLetters, Shape, Sink};
use mailbox::{Delivery, Mailbox, append_all};
use membership::{Membership, Sent, leader_epoch, place};

/// Bytes of queued output that go into one flush or transaction: a transaction costs about four round trips,
/// whatever is in it. Nobody waits for so many; they are what has gathered behind the one before. Measured from one
/// topic to another with envelopes, thousand records of 300 bytes a second: 159 with 1 MiB, 337 with 4, 467 with 8.
const GROUP: usize = 8 << 20;
/// How often is looked whether the group has a generation.
const LOOK: Duration = Duration::from_millis(20);

/// Stores records in a topic.
pub struct KafkaSink {
    cluster: Cluster,
    patience: Duration,
    group: Option<Arc<dyn Membership>>,
    transactional: bool,
    whose: Whose,
    state: Mutex<State>,
}

struct State {
    mailbox: Mailbox,
    /// The deliveries of a transaction whose commit is not known to count.
    committing: Vec<Delivery>,
    /// The offsets in it.
    sent: Vec<Sent>,
}

impl KafkaSink {
    /// Finds the topic. With a transactional id in `settings` each call of [`Sink::store`] is one transaction; with
    /// the group whose partitions are read, which is of the same cluster, it holds the offsets too. Blocks until
    /// the cluster has told of the topic.
    ///
    /// # Errors
    /// If the topic is not there, or not allowed; [`Error::Usage`] for a group without a transactional id.
    pub fn prepare(
        cluster: Cluster,
        topic: &str,
        settings: ProducerSettings,
        group: Option<Arc<Group>>,
    ) -> Result<Self> {
        let id = settings.transactional.as_ref().map(|transactional| &transactional.id);
        let mine = group.as_ref().is_some_and(|group| group.settings().transactional_id.as_ref() == id);
        let whose = if mine { Whose::Mine } else { Whose::Anyones };
        KafkaSink::with(cluster, topic, settings, group.map(|group| group as Arc<dyn Membership>), whose)
    }

    fn with(
        cluster: Cluster,
        topic: &str,
        settings: ProducerSettings,
        group: Option<Arc<dyn Membership>>,
        whose: Whose,
    ) -> Result<Self> {
        let transactional = settings.transactional.is_some();
        if group.is_some() && !transactional {
            return Err(Error::Usage("offsets go into transactions only: set a transactional id".into()));
        }
        let patience = settings.delivery_timeout;
        let mut mailbox = Mailbox::open(cluster.clone(), topic, settings)?;
        if transactional {
            mailbox.producer().0.take_over()?;
        }
        let state = Mutex::new(State { mailbox, committing: Vec::new(), sent: Vec::new() });
        Ok(KafkaSink { cluster, patience, group, transactional, whose, state })
    }

    fn store_plain(&self, state: &mut State, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let deliveries = batches.iter().map(|batch| (Delivery::of(batch), &batch.stored));
        state.mailbox.deliver(deliveries, append_all)?;
        let place = state.mailbox.place();
        receipts.extend(batches.iter().map(|batch| receipt(batch, &place)));
        Ok(())
    }

    /// One transaction of what is still owned, begun again while the group refuses its offsets.
    fn transact(&self, state: &mut State, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let (mut refused, mut attempt) = (None, 0);
        loop {
            let Some((owned, member)) = self.owned(batches, refused.as_ref())? else { return Ok(()) };
            // What was lost right now is left out.
            let Some(sent) = self.offsets(&owned)? else { continue };
            state.sent = sent;
            let offsets: Vec<GroupOffset> = state.sent.iter().map(|sent| sent.offset.clone()).collect();
            let (producer, output) = state.mailbox.producer();
            let ended = producer.begin().and_then(|()| {
                owned.iter().try_for_each(|batch| append_all(producer, output, &batch.stored))?;
                if let Some(group) = &self.group {
                    state.sent.iter().for_each(|sent| group.sending(sent));
                }
                producer.commit(&offsets, member.as_ref())
            });
            match ended {
                Ok(Ended::Committed) => {
                    self.stored(state);
                    let place = state.mailbox.place();
                    receipts.extend(owned.iter().map(|batch| receipt(batch, &place)));
                    return Ok(());
                }
                Ok(Ended::Refused(code)) => {
                    attempt += 1;
                    self.cluster.options().services.retry(SERVICE, code.name());
                    log::warn!(
                        service = SERVICE, attempt;
                        "the group refused the offsets of a transaction, which was aborted: {code}; attempt {attempt}, \
                         next when the group has a new generation"
                    );
                    refused = member;
                }
                Err(error) => return Err(self.undo(state, &owned, error)),
            }
        }
    }

    /// Tells the group that the offsets in the last transaction are its own.
    fn stored(&self, state: &mut State) {
        let sent = std::mem::take(&mut state.sent);
        if let Some(group) = &self.group {
            sent.iter().for_each(|sent| group.stored(sent));
        }
    }

    /// Asks for the outcome of a commit. What was in it has receipts if it counts.
    fn finish(&self, state: &mut State, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        if let Err(error) = state.mailbox.producer().0.finish() {
            return Err(self.revive(state, error));
        }
        self.stored(state);
        let (place, committed) = (state.mailbox.place(), std::mem::take(&mut state.committing));
        let ours = batches.iter().filter(|batch| committed.contains(&Delivery::of(batch)));
        receipts.extend(ours.map(|batch| receipt(batch, &place)));
        Ok(())
    }

    /// The batches whose partitions are still this member's, and who the member is; `None` if no batch is left.
    /// Waits for a generation other than that of `refused`.
    fn owned<'b>(
        &self,
        batches: &'b [Batch],
        refused: Option<&Identity>,
    ) -> Result<Option<(Vec<&'b Batch>, Option<Identity>)>> {
        let Some(group) = &self.group else { return Ok(Some((batches.iter().collect(), None))) };
        let deadline = Instant::now() + self.patience;
        loop {
            // Before it is asked what is owned: what is lost in between is refused with this identity.
            let member = group.identity();
            let mut owned = Vec::with_capacity(batches.len());
            for batch in batches {
                if group.is_owned(&place(&batch.id.partition)?, batch.id.partition.identity().epoch) {
                    owned.push(batch);
                }
            }
            if owned.is_empty() {
                return Ok(None);
            }
            if member.is_some() && member.as_ref() != refused {
                return Ok(Some((owned, member)));
            }
            if Instant::now() >= deadline {
                let source = "the consumer group has no generation that takes offsets";
                return Err(Error::other("kafka", Retry::Transient, source));
            }
            self.cluster.stop().sleep(LOOK)?;
        }
    }

    /// Aborts a transaction that failed, unless it may have been committed: then what is in it is remembered.
    fn undo(&self, state: &mut State, owned: &[&Batch], error: kafka::Error) -> Error {
        let (producer, _) = state.mailbox.producer();
        if producer.is_committing() {
            state.committing = owned.iter().map(|batch| Delivery::of(batch)).collect();
            return error.into();
        }
        let worst = match producer.abort() {
            // Fenced, say, which is why it failed.
            Err(worse) if worse.retry() == Retry::Permanent && error.retry() == Retry::Transient => worse,
            // The next transaction goes on with the abort.
            _ => error,
        };
        self.revive(state, worst)
    }

    /// Goes on after somebody else has ended a transaction, if that can be: what this process no longer owns, the
    /// group knows. What is not known to count is read again from where the group says.
    ///
    /// Without a group nobody can tell the cluster, which has waited for long enough, from another pipeline that took
    /// over while this process was stopped. To go on could store again what that one has stored.
    fn revive(&self, state: &mut State, error: kafka::Error) -> Error {
        let kafka::Error::Fenced { transactional_id, code } = &error else { return error.into() };
        let (producer, _) = state.mailbox.producer();
        let Some(group) = &self.group else {
            if !producer.is_overdue() {
                return error.into();
            }
            let what = format!(
                "a transaction of {transactional_id} took longer than its timeout and was ended by the cluster, or by \
                 another pipeline that uses this transactional_id ({code})"
            );
            return Error::InDoubt { what };
        };
        match producer.revive(self.whose) {
            Revived::No => return error.into(),
            Revived::Undone => {}
            Revived::Unknown => {
                group.doubt("a transaction was ended by somebody else while it was committed")
            }
        }
        state.committing.clear();
        let transactional_id = transactional_id.clone();
        kafka::Error::Abortable { transactional_id, api: "the transaction", code: *code }.into()
    }

    /// Where each partition goes on behind its last batch; `None` if one is not owned any more.
    fn offsets(&self, owned: &[&Batch]) -> Result<Option<Vec<Sent>>> {
        let Some(group) = &self.group else { return Ok(Some(Vec::new())) };
        let mut offsets: Vec<Sent> = Vec::new();
        for batch in owned {
            let of = place(&batch.id.partition)?;
            let offset = batch.end as i64;
            let epoch = batch.id.partition.identity().epoch;
            let Some(metadata) = group.metadata(&of, epoch, offset) else { return Ok(None) };
            let next = GroupOffset { of, offset, leader_epoch: leader_epoch(batch), metadata };
            let next = Sent { epoch, offset: next };
            match offsets.iter_mut().find(|known| known.offset.of == next.offset.of) {
                Some(known) => *known = next,
                None => offsets.push(next),
            }
        }
        Ok(Some(offsets))
    }
}

impl Sink for KafkaSink {
    fn shape(&self) -> Shape {
        Shape {
            service: "kafka",
            dead_letters: DeadLetters::Refuse,
            commits: if self.group.is_some() { Commits::Sink } else { Commits::Engine },
            records: true,
            group: GROUP,
            ..Shape::default()
        }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let state = &mut *self.state.lock();
        match self.transactional {
            false => self.store_plain(state, batches, receipts),
            true if !state.committing.is_empty() => self.finish(state, batches, receipts),
            true => self.transact(state, batches, receipts),
        }
    }
}

fn receipt(batch: &Batch, place: &str) -> Receipt {
    Receipt::of(batch, (batch.counts.stored > 0).then(|| place.to_string()), None)
}
