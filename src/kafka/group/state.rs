//! What the threads of a group share: who the member is, and which tenancies it holds. Time is a parameter; the
//! lock around it is never held over IO.
//!
//! A tenancy belongs to the member id and generation of its assignment. It outlives a rebalance only in
//! [`State::settle`]: the member id is the same (a new one loses all), the generation rose by exactly one since
//! the last settled one, and the offset that the group now remembers is the last that was acknowledged, or one
//! that may have been stored without our hearing of it. After a follow-up rebalance the same is checked again,
//! each time against the generation that was settled last. A generation that was joined but not settled
//! therefore ends all tenancies; so does any doubt.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::change::{Changes, Committed, Heard, Tenancy};
use super::metadata::Remembered;
use super::protocol::NO_GENERATION;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::code::Code;

/// An offset with its metadata, as the coordinator keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub offset: i64,
    pub text: String,
}

/// What the group remembers of a partition after a rebalance.
pub(crate) struct Fetched {
    pub topic_id: Uuid,
    pub stored: Option<Stored>,
    pub committed: Option<Committed>,
}

/// Where the member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In no generation.
    Out,
    /// A rebalance is under way; the last settled generation may be over.
    Joining,
    /// In a generation.
    Stable,
}

/// Why the group's thread must join again, as another thread found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summons {
    /// The coordinator refused the member.
    Expelled(Code),
    /// It is not known what was committed: nothing may be done before there is a new generation.
    Doubt,
}

struct Held {
    epoch: u64,
    topic_id: Uuid,
    acknowledged: Option<Stored>,
    /// Sent, and neither acknowledged nor refused for sure.
    sent: Vec<Stored>,
    leaving: bool,
    /// Nothing of it is in flight and nothing more will come: it need not be asked for.
    released: bool,
    /// Whether the coordinator is known to keep plans.
    kept: bool,
}

pub(crate) struct State {
    pub phase: Phase,
    member: String,
    generation: i32,
    /// When the coordinator may have given up on this member; unknown while it waits for a join.
    lease: Option<Instant>,
    pub summons: Option<Summons>,
    pub(super) changes: Changes,
    held: BTreeMap<TopicPartition, Held>,
    /// What the last join said that it has.
    claimed: Vec<TopicPartition>,
    next_epoch: u64,
}

/// What follows from a new generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// What was taken away, and must be let go of before the next join.
    pub taken: Vec<TopicPartition>,
    /// Whether another join must follow: what was claimed and is not assigned any more goes to nobody before that,
    /// even if it was lost meanwhile.
    pub again: bool,
}

impl State {
    pub fn new() -> Self {
        State {
            phase: Phase::Out,
            member: String::new(),
            generation: NO_GENERATION,
            lease: None,
            summons: None,
            changes: Changes::default(),
            held: BTreeMap::new(),
            claimed: Vec::new(),
            next_epoch: 1,
        }
    }

    pub fn member(&self) -> &str {
        &self.member
    }

    /// The last settled generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Another member id is another member: it holds nothing.
    pub fn set_member(&mut self, member: &str) {
        if self.member != member {
            self.lose_all();
            self.member = member.to_string();
            self.generation = NO_GENERATION;
        }
    }

    /// The coordinator heard from this member at `at`.
    pub fn renew(&mut self, at: Instant, session_timeout: Duration) {
        self.lease = Some(at + session_timeout);
    }

    /// While a join waits: its generation has begun by `at`, and the coordinator counts.
    pub fn begun(&mut self, at: Instant, session_timeout: Duration) {
        self.lease.get_or_insert(at + session_timeout);
    }

    pub fn lease(&self) -> Option<Instant> {
        self.lease
    }

    /// A join is about to be sent. While it waits, the coordinator keeps the member without heartbeats.
    pub fn joining(&mut self) {
        self.phase = Phase::Joining;
        self.lease = None;
        self.claimed = self.owned();
    }

    /// Whether the session must have expired. Then everything is lost, without asking anyone.
    pub fn expire(&mut self, now: Instant) -> bool {
        let expired = self.lease.is_some_and(|lease| now >= lease);
        if expired {
            self.lose_all();
            self.lease = None;
        }
        expired
    }

    pub fn is_owned(&self, of: &TopicPartition, epoch: u64, now: Instant) -> bool {
        self.topic_id(of, epoch, now).is_some()
    }

    /// The topic of this tenancy, as long as it is owned.
    pub fn topic_id(&self, of: &TopicPartition, epoch: u64, now: Instant) -> Option<Uuid> {
        let held = self.held.get(of).filter(|held| held.epoch == epoch)?;
        self.lease.is_none_or(|lease| now < lease).then_some(held.topic_id)
    }

    /// The member will not join again. If it has joined a generation that it did not settle, whatever is in flight is
    /// fenced, and all is lost at once. Returns what is still to be let go of.
    pub fn departing(&mut self, joined: i32) -> Vec<TopicPartition> {
        if joined > self.generation {
            self.lose_all();
        }
        self.owned()
    }

    pub fn owned(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    pub fn is_any_leaving(&self) -> bool {
        self.held.values().any(|held| held.leaving)
    }

    /// Those whose topic is another one now.
    pub fn recreated(&self, id_of: impl Fn(&str) -> Option<Uuid>) -> Vec<TopicPartition> {
        let other = |of: &TopicPartition, held: &Held| {
            id_of(&of.topic).is_some_and(|id| !id.is_nil() && !held.topic_id.is_nil() && id != held.topic_id)
        };
        self.held.iter().filter(|(of, held)| other(of, held)).map(|(of, _)| of.clone()).collect()
    }

    pub fn revoke(&mut self, of: &TopicPartition) {
        let Some(held) = self.held.get_mut(of) else { return };
        if held.leaving {
            return;
        }
        held.leaving = true;
        // Of one that is released already nobody need hear.
        if held.released || self.changes.revoked(of, held.epoch) == Heard::No {
            self.held.remove(of);
        }
    }

    /// Nothing of it is in flight any more. Whether it was waited for; else it stays until it is revoked.
    pub fn release(&mut self, of: &TopicPartition, epoch: u64) -> bool {
        let Some(held) = self.held.get_mut(of).filter(|held| held.epoch == epoch) else { return false };
        held.released = true;
        let leaving = held.leaving;
        if leaving {
            self.held.remove(of);
        }
        leaving
    }

    pub fn lose(&mut self, of: &TopicPartition) {
        if let Some(held) = self.held.remove(of) {
            self.changes.lost(of, held.epoch);
        }
    }

    pub fn lose_leaving(&mut self) -> usize {
        let late: Vec<_> =
            self.held.iter().filter(|(_, held)| held.leaving).map(|(of, _)| of.clone()).collect();
        late.iter().for_each(|of| self.lose(of));
        late.len()
    }

    pub fn lose_all(&mut self) {
        while let Some((of, held)) = self.held.pop_first() {
            self.changes.lost(&of, held.epoch);
        }
    }

    /// Enters a generation with what was assigned. `fetched` has everything that is assigned or held.
    pub fn settle(
        &mut self,
        generation: i32,
        assigned: &[TopicPartition],
        fetched: BTreeMap<TopicPartition, Fetched>,
    ) -> Settled {
        if self.generation == NO_GENERATION || self.generation.checked_add(1) != Some(generation) {
            self.lose_all();
        }
        self.generation = generation;
        self.phase = Phase::Stable;
        let doubtful: Vec<_> = self
            .held
            .iter()
            .filter(|(of, held)| !held.agrees(fetched.get(of)))
            .map(|(of, _)| of.clone())
            .collect();
        doubtful.iter().for_each(|of| self.lose(of));
        let again = self.claimed.iter().any(|of| !assigned.contains(of));
        let taken: Vec<_> = self.held.keys().filter(|of| !assigned.contains(of)).cloned().collect();
        for (of, fetched) in fetched {
            match self.held.get_mut(&of) {
                Some(held) => {
                    held.acknowledged = fetched.stored;
                    // The old generation is fenced now: what is not stored by now never will be.
                    held.sent.clear();
                }
                None if assigned.contains(&of) => self.assign(of, fetched),
                None => {}
            }
        }
        Settled { taken, again }
    }

    fn assign(&mut self, of: TopicPartition, fetched: Fetched) {
        let (epoch, topic_id) = (self.next_epoch, fetched.topic_id);
        self.next_epoch += 1;
        let held = Held {
            epoch,
            topic_id,
            kept: planned_until(fetched.stored.as_ref()).is_some(),
            acknowledged: fetched.stored,
            sent: Vec::new(),
            leaving: false,
            released: false,
        };
        self.held.insert(of.clone(), held);
        self.changes.assigned(Tenancy { of, topic_id, epoch, committed: fetched.committed });
    }

    /// The last end that the coordinator is known to have planned: batches may be published up to it.
    pub fn planned_until(&self, of: &TopicPartition, epoch: u64) -> Option<u64> {
        let held = self.held.get(of).filter(|held| held.epoch == epoch)?;
        planned_until(held.acknowledged.as_ref())
    }

    /// What the coordinator acknowledged, if it is the first plan of its tenancy and was not read back yet.
    pub fn unproven(&self, of: &TopicPartition, epoch: u64) -> Option<Stored> {
        let held = self.held.get(of).filter(|held| held.epoch == epoch && !held.kept)?;
        held.acknowledged.clone().filter(|stored| planned_until(Some(stored)).is_some())
    }

    /// The coordinator keeps the plans of this tenancy.
    pub fn proven(&mut self, of: &TopicPartition, epoch: u64) {
        if let Some(held) = self.held.get_mut(of).filter(|held| held.epoch == epoch) {
            held.kept = true;
        }
    }

    /// This goes out now.
    pub fn sending(&mut self, of: &TopicPartition, epoch: u64, stored: Stored) {
        if let Some(held) = self.held.get_mut(of).filter(|held| held.epoch == epoch)
            && !held.sent.contains(&stored)
        {
            held.sent.push(stored);
        }
    }

    /// The coordinator has it.
    pub fn acknowledge(&mut self, of: &TopicPartition, epoch: u64, stored: &Stored) {
        if let Some(held) = self.held.get_mut(of).filter(|held| held.epoch == epoch) {
            held.acknowledged = Some(stored.clone());
            held.sent.clear();
        }
    }

    /// The coordinator said that it does not have it.
    pub fn refuse(&mut self, of: &TopicPartition, epoch: u64, stored: &Stored) {
        if let Some(held) = self.held.get_mut(of).filter(|held| held.epoch == epoch) {
            held.sent.retain(|sent| sent != stored);
        }
    }
}

/// What the model falsifies when it takes rule 3 away.
#[cfg(all(test, feature = "kafka", feature = "s3"))]
impl State {
    /// Another name without the loss of everything.
    pub fn rename(&mut self, member: &str) {
        self.member = member.to_string();
    }

    /// As if nothing had happened since the generation before.
    pub fn assume(&mut self, generation: i32, fetched: &BTreeMap<TopicPartition, Fetched>) {
        self.generation = generation - 1;
        for (of, held) in &mut self.held {
            if let Some(fetched) = fetched.get(of) {
                held.acknowledged = fetched.stored.clone();
            }
        }
    }
}

/// The last end of the plan that is in it.
fn planned_until(stored: Option<&Stored>) -> Option<u64> {
    let stored = stored?;
    match Remembered::read(Some(&stored.text), stored.offset) {
        Remembered::Ours(metadata) => metadata.plan.last().map(|planned| planned.end),
        Remembered::Absent | Remembered::Foreign(_) => None,
    }
}

impl Held {
    fn agrees(&self, fetched: Option<&Fetched>) -> bool {
        let Some(fetched) = fetched else { return false };
        let same_topic =
            fetched.topic_id == self.topic_id || fetched.topic_id.is_nil() || self.topic_id.is_nil();
        let sent = fetched.stored.as_ref().is_some_and(|stored| self.sent.contains(stored));
        same_topic && (fetched.stored == self.acknowledged || sent)
    }
}
