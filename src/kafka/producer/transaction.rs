//! Transactions (KIP-98): records and the offsets of the records that they were made of (KIP-447) count together
//! or not at all.
//!
//! Clusters whose `transaction.version` is 2 (KIP-890) add partitions by themselves and raise the epoch at every
//! end, so nothing that was sent late can get into the next transaction. For others this client adds partitions
//! first, and raises the epoch itself after an abort.
//!
//! A lost answer to EndTxn is asked for again under the same epoch until it is known; as long as it is not, no
//! other transaction begins and nobody may say that the records are stored, or that they are not.

mod calls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::TransactionalId;
use kafka_protocol::protocol::StrBytes;

use super::Producer;
use super::desk::Desk;
use super::queue::ProducerId;
use super::round::At;
use crate::kafka::cluster::{Coordinates, TopicPartition};
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};
use crate::kafka::group::Identity;

/// The feature and the level from which on partitions are added implicitly.
const FEATURE: (&str, i16) = ("transaction.version", 2);
/// How transactions are made.
#[derive(Clone, Debug)]
pub struct Transactional {
    /// Who makes them: whoever comes later with the same id takes over, and the earlier one is fenced.
    pub id: String,
    /// After this time without an end the cluster aborts a transaction. At most its
    /// `transaction.max.timeout.ms`, 15 minutes by default.
    pub timeout: Duration,
}

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// Topic and partition.
    pub of: TopicPartition,
    /// The position behind the last record.
    pub offset: i64,
    /// The leader epoch of the last record; -1 if it is not known.
    pub leader_epoch: i32,
    /// Metadata of the commit.
    pub metadata: String,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It counts.
    Committed,
    /// The group refused the offsets, because this member is no longer what it was: the transaction was aborted.
    /// Nothing of it counts. What the member still owns can be tried again.
    Refused(Code),
}

/// Who may use a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This producer alone.
    Mine,
    /// Whoever is told to.
    Anyones,
}

/// Whether a producer that was fenced goes on, and what became of its last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revived {
    /// It does not.
    No,
    /// It does; nothing of the transaction counts.
    Undone,
    /// It does; nobody knows whether the transaction counts. The group's offsets tell, once they are stable.
    Unknown,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    Committing,
    Aborting,
    Fenced(Code),
}

/// The transactions of a producer.
pub(super) struct Transaction {
    settings: Transactional,
    phase: Phase,
    desk: Desk,
    group: Option<(Arc<str>, Desk)>,
    implicit: bool,
    /// The partitions that were added to the open transaction.
    enlisted: BTreeSet<At>,
    /// Whether the coordinator may know of the open transaction.
    started: bool,
    /// Whether a commit was asked for before, and no answer came.
    asked: bool,
    /// Whether the transaction may have been committed before this producer was fenced.
    unsure: bool,
    began: Instant,
}

impl Transaction {
    pub fn new(settings: Transactional) -> Self {
        let desk = Desk::of(Coordinates::Transaction, &settings.id);
        Transaction {
            settings,
            phase: Phase::Idle,
            desk,
            group: None,
            implicit: false,
            enlisted: BTreeSet::new(),
            started: false,
            asked: false,
            unsure: false,
            began: Instant::now(),
        }
    }

    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// Whether brokers add partitions by themselves.
    pub fn is_implicit(&self) -> bool {
        self.implicit
    }

    fn name(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.settings.id.clone()))
    }

    fn learn(&mut self) {
        if let Some(level) = self.desk.feature(FEATURE.0) {
            self.implicit = level >= FEATURE.1;
        }
    }

    fn over(&mut self) {
        self.phase = Phase::Idle;
        self.started = false;
        self.asked = false;
        self.unsure = false;
        self.enlisted.clear();
    }
}

impl Producer {
    /// Takes the transactional id over: what an earlier producer of this id left open is aborted now, not after
    /// its timeout, until when nobody could read its group's offsets. Done before the first transaction anyway.
    /// Blocks for at most about the delivery timeout.
    ///
    /// # Errors
    /// As [`Producer::begin`].
    pub fn take_over(&mut self) -> Result<()> {
        self.identify(self.deadline())
    }

    /// Begins a transaction. An earlier one that is still being aborted is aborted first. Blocks for at most about
    /// the delivery timeout.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another producer took over; what the coordinator says for good; [`Error::GaveUp`].
    pub fn begin(&mut self) -> Result<()> {
        match self.phase()? {
            Phase::Idle => {}
            Phase::Aborting => self.abort()?,
            Phase::Fenced(code) => return Err(self.fenced(code)),
            Phase::Open | Phase::Committing => {
                return Err(Error::Config("a transaction begins before the one before it has ended".into()));
            }
        }
        let deadline = self.deadline();
        self.identify(deadline)?;
        let transaction = self.transaction_mut()?;
        transaction.learn();
        (transaction.phase, transaction.began) = (Phase::Open, Instant::now());
        Ok(())
    }

    /// Flushes, adds these offsets of `member`'s group, and commits. Blocks for at most a few delivery timeouts.
    ///
    /// # Errors
    /// As [`Producer::flush`]; [`Error::GaveUp`]. After an error look at [`Producer::is_committing`]: if it is so,
    /// the commit may count, and only [`Producer::finish`] can tell; otherwise [`Producer::abort`].
    pub fn commit(&mut self, offsets: &[GroupOffset], member: Option<&Identity>) -> Result<Ended> {
        self.flush()?;
        if let Some(member) = member
            && !offsets.is_empty()
            && let Err(code) = self.send_offsets(offsets, member)?
        {
            self.abort()?;
            return Ok(Ended::Refused(code));
        }
        let transaction = self.transaction_mut()?;
        if !transaction.started {
            transaction.over();
            return Ok(Ended::Committed);
        }
        transaction.phase = Phase::Committing;
        self.finish()?;
        Ok(Ended::Committed)
    }

    /// Whether a commit was asked for, and nobody knows yet whether it counts.
    pub fn is_committing(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.phase == Phase::Committing)
    }

    /// Asks for the outcome of a commit until it is known. Does nothing if there is none under way.
    ///
    /// # Errors
    /// [`Error::GaveUp`]: it is still not known, and may be asked again. [`Error::Fenced`] and others: it is not
    /// known to count.
    pub fn finish(&mut self) -> Result<()> {
        if self.is_committing() {
            self.end(Phase::Committing)?;
            self.transaction_mut()?.over();
        }
        Ok(())
    }

    /// Drops what waits and aborts the open transaction: nothing of it counts. Blocks for at most about two
    /// delivery timeouts. Does nothing if there is none.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another producer took over; [`Error::GaveUp`]: the next [`Producer::begin`] goes on
    /// with it.
    pub fn abort(&mut self) -> Result<()> {
        self.forget();
        match self.phase()? {
            Phase::Idle => return Ok(()),
            Phase::Fenced(code) => return Err(self.fenced(code)),
            Phase::Committing => {
                return Err(Error::Config(
                    "a transaction that may have been committed cannot be aborted".into(),
                ));
            }
            Phase::Open | Phase::Aborting => {}
        }
        let transaction = self.transaction_mut()?;
        transaction.phase = Phase::Aborting;
        // Only the first version needs it raised, and only if something was numbered, but aborts are rare.
        let renew = if transaction.started { self.end(Phase::Aborting)? } else { Renew::No };
        if renew == Renew::Yes {
            let deadline = self.deadline();
            let before = self.producer.take();
            if let Err(error) = self.identify_transactional(before, deadline) {
                self.producer = before;
                return Err(error);
            }
        }
        self.transaction_mut()?.over();
        Ok(())
    }

    /// Whether the last transaction began so long ago that the cluster aborts it.
    pub fn is_overdue(&self) -> bool {
        self.transaction.as_ref().is_some_and(|it| it.began.elapsed() >= it.settings.timeout)
    }

    /// After [`Error::Fenced`]: whether this producer may go on. Then the next [`Producer::begin`] takes the
    /// transactional id over again. To be called only by whom a consumer group fences as well: another producer
    /// that took over in the meantime is fenced by this.
    ///
    /// An id that others may use goes on only if the cluster aborted its transaction because that took longer than
    /// its timeout (this process was stopped, say, or brokers were away). One that is this producer's alone always
    /// does: nobody else wants it, its transaction was aborted for somebody who waited for it.
    pub fn revive(&mut self, id: Whose) -> Revived {
        let expired = self.is_overdue();
        let Some(transaction) = &mut self.transaction else { return Revived::No };
        let revived = match (transaction.phase, transaction.unsure) {
            (Phase::Fenced(_), _) if id == Whose::Anyones && !expired => return Revived::No,
            (Phase::Fenced(_), true) => Revived::Unknown,
            (Phase::Fenced(_), false) => Revived::Undone,
            _ => return Revived::No,
        };
        transaction.over();
        self.producer = None;
        self.forget();
        revived
    }

    fn phase(&self) -> Result<Phase> {
        let none = || Error::Config("the producer has no transactional id".into());
        Ok(self.transaction.as_ref().ok_or_else(none)?.phase)
    }

    fn transaction_mut(&mut self) -> Result<&mut Transaction> {
        self.transaction.as_mut().ok_or_else(|| Error::Config("the producer has no transactional id".into()))
    }

    /// The error for a code that ends a transaction.
    pub(super) fn transaction_failed(&mut self, api: &'static str, code: Code) -> Error {
        let fenced = code.0 == 90;
        if let Some(transaction) = &mut self.transaction {
            if fenced {
                transaction.phase = Phase::Fenced(code);
            }
            let id = transaction.settings.id.clone();
            return judge(id, api, code);
        }
        judge(String::new(), api, code)
    }

    fn fenced(&self, code: Code) -> Error {
        let id = self.transaction.as_ref().map(|transaction| transaction.settings.id.clone());
        Error::Fenced { transactional_id: id.unwrap_or_default(), code }
    }

    /// Remembers that nothing can be done any more.
    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let (Err(Error::Fenced { code, .. }), Some(transaction)) = (&result, &mut self.transaction) {
            transaction.phase = Phase::Fenced(*code);
        }
        result
    }

    fn whoami(&self) -> Result<ProducerId> {
        self.producer.ok_or_else(|| Error::Unavailable("the transaction has no producer id".into()))
    }
}

/// Whether the epoch must be raised by InitProducerId.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renew {
    Yes,
    No,
}

/// What a code says about the transaction: fenced, to be aborted, or of no use.
fn judge(transactional_id: String, api: &'static str, code: Code) -> Error {
    match code.0 {
        47 if api == "Produce" => Error::Abortable { transactional_id, api, code },
        47 | 90 => Error::Fenced { transactional_id, code },
        45 | 48 | 49 | 59 | 120 => Error::Abortable { transactional_id, api, code },
        _ => Error::Transaction { transactional_id, api, code },
    }
}
