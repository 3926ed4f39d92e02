//! The group's thread of a process: heartbeats, letting go, joins, offsets, settling. It asks the simulated coordinator
//! and tells the real state, as `kafka/group/member.rs` and `join.rs` do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::coordinator::{REBALANCING, Read, UNKNOWN_MEMBER};
use super::log::Log;
use super::outside::{Outside, Protocol};
use super::process::{Process, TOPIC};
use crate::error::Result;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::group::Remembered;
use crate::kafka::group::offsets::judge;
use crate::kafka::group::state::{Fetched, Phase, Stored, Summons};

/// Where the group's thread stands.
pub enum Stance {
    Idle,
    /// Waits for readers and writers to let go, then goes on with this.
    LettingGo(Next),
    /// Waits for a generation.
    Joining,
    /// Has a share of a generation, and must read its offsets.
    Joined(i32, Vec<TopicPartition>),
    /// Knows all, and must settle.
    Fetched(i32, Vec<TopicPartition>, BTreeMap<TopicPartition, Fetched>),
}

/// What follows when all is let go of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Join,
    /// Only what a later join needs.
    Later,
    Leave,
}

pub fn of(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

impl Process<'_> {
    /// One step. Says whether anything was done.
    ///
    /// # Errors
    /// What ends the process.
    pub fn tend(&mut self, outside: &mut Outside) -> Result<bool> {
        self.look_at_summons(outside);
        match std::mem::replace(&mut self.stance, Stance::Idle) {
            Stance::Idle if self.must_join => {
                self.begin_join(outside);
                Ok(true)
            }
            Stance::Idle => Ok(self.beat(outside) || self.look(outside)),
            Stance::LettingGo(next) => Ok(self.let_go(next, outside)),
            Stance::Joining => Ok(self.hear(outside)),
            Stance::Joined(generation, share) => self.fetch(generation, share, outside).map(|()| true),
            Stance::Fetched(generation, share, fetched) => {
                self.settle(generation, &share, fetched, outside);
                Ok(true)
            }
        }
    }

    fn look_at_summons(&mut self, outside: &mut Outside) {
        let mut state = self.group.state();
        let (summons, generation) = (state.summons.take(), state.generation());
        drop(state);
        match summons {
            None => {}
            Some(Summons::Expelled(code)) => self.expelled(code.0, outside),
            Some(Summons::Doubt) => {
                self.above = self.joined.max(generation);
                self.must_join = true;
            }
        }
    }

    fn expelled(&mut self, code: i16, outside: &mut Outside) {
        outside.say(|| format!("p{}: expelled ({code})", self.number));
        let mut state = self.group.state();
        if code == UNKNOWN_MEMBER {
            self.above = -1;
        }
        if outside.without.has(3) {
            if code == UNKNOWN_MEMBER {
                state.set_member("");
            }
            state.lose_all();
        }
        state.phase = Phase::Out;
        (self.joined, self.must_join, self.stance) = (-1, true, Stance::Idle);
    }

    fn begin_join(&mut self, outside: &mut Outside) {
        let (next, owned) = match outside.protocol {
            _ if self.assembler.is_none() => (Next::Leave, self.group.state().departing(self.joined)),
            Protocol::Eager => (Next::Join, self.group.state().owned()),
            Protocol::Cooperative => return self.join(outside),
        };
        // Without rule 2 what is had is kept, and goes on in whatever generation comes.
        if outside.without.has(2) || next == Next::Leave {
            owned.iter().for_each(|of| self.group.state().revoke(of));
        }
        self.stance = Stance::LettingGo(next);
    }

    fn let_go(&mut self, next: Next, outside: &mut Outside) -> bool {
        let waits = self.group.state().is_any_leaving();
        if waits && !outside.fails(6) {
            self.stance = Stance::LettingGo(next);
            return false;
        }
        let late = self.group.state().lose_leaving();
        outside.say(|| format!("p{}: has let go, {late} were late", self.number));
        match next {
            Next::Join => self.join(outside),
            Next::Later => self.must_join = true,
            Next::Leave => {
                let member = self.group.state().member().to_owned();
                outside.coordinator.remove(&member);
                self.group.state().set_member("");
                self.must_join = false;
            }
        }
        true
    }

    fn join(&mut self, outside: &mut Outside) {
        self.must_join = false;
        let mut state = self.group.state();
        state.joining();
        let claims = match outside.protocol {
            Protocol::Eager => Vec::new(),
            Protocol::Cooperative => state.owned().iter().map(|of| of.partition).collect(),
        };
        let member = outside.coordinator.join(state.member(), claims);
        if outside.without.has(3) {
            state.set_member(&member)
        } else {
            state.rename(&member)
        }
        outside.say(|| format!("p{}: joins as {member}", self.number));
        self.stance = Stance::Joining;
    }

    fn hear(&mut self, outside: &mut Outside) -> bool {
        let member = self.group.state().member().to_owned();
        match outside.coordinator.answer(&member) {
            Err(code) => self.expelled(code, outside),
            Ok(None) => {
                self.stance = Stance::Joining;
                return false;
            }
            Ok(Some((generation, share))) => {
                self.joined = generation;
                self.group.state().renew(Instant::now(), Duration::from_secs(3600));
                if generation <= self.above {
                    self.must_join = true;
                } else {
                    self.stance = Stance::Joined(generation, share.into_iter().map(of).collect());
                }
            }
        }
        true
    }

    /// What is committed of all that is assigned or held. If the group rebalances again, the sync fails.
    fn fetch(&mut self, generation: i32, share: Vec<TopicPartition>, outside: &mut Outside) -> Result<()> {
        let member = self.group.state().member().to_owned();
        match outside.coordinator.heartbeat(&member, generation) {
            0 => {}
            REBALANCING => {
                self.must_join = true;
                return Ok(());
            }
            code => {
                self.expelled(code, outside);
                return Ok(());
            }
        }
        let mut wanted = share.clone();
        wanted.extend(self.group.state().owned());
        let read = if outside.without.has(4) { Read::Stable } else { Read::Any };
        let (topic_id, mut fetched) = (Log::id(self.known.0), BTreeMap::new());
        for of in wanted {
            let stored = outside.coordinator.fetch(of.partition, &mut outside.random, read);
            let found = stored.map(|stored| (stored, 0));
            let settings = self.group.settings();
            let judged = if outside.without.has(8) {
                judge(settings, &of, topic_id, found)?
            } else {
                self.believe(&of, found)?
            };
            fetched.insert(of, judged);
        }
        self.stance = Stance::Fetched(generation, share, fetched);
        Ok(())
    }

    /// Takes each commit for one of this topic and this output.
    fn believe(&self, of: &TopicPartition, found: Option<(Stored, i32)>) -> Result<Fetched> {
        let mut settings = self.group.settings().clone();
        let mut topic_id = Log::id(self.known.0);
        if let Some((stored, _)) = &found
            && let Remembered::Ours(ours) = Remembered::read(Some(&stored.text), stored.offset)
        {
            (settings.location, topic_id) = (ours.location, ours.topic_id);
        }
        let judged = judge(&settings, of, topic_id, found)?;
        Ok(Fetched { topic_id: Log::id(self.known.0), ..judged })
    }

    fn settle(
        &mut self,
        generation: i32,
        share: &[TopicPartition],
        fetched: BTreeMap<TopicPartition, Fetched>,
        outside: &mut Outside,
    ) {
        outside.say(|| {
            let share: Vec<i32> = share.iter().map(|of| of.partition).collect();
            format!("p{}: settles in generation {generation} with {share:?}", self.number)
        });
        let mut state = self.group.state();
        if !outside.without.has(3) {
            state.assume(generation, &fetched);
        }
        let settled = state.settle(generation, share, fetched);
        if settled.again && outside.without.has(2) {
            settled.taken.iter().for_each(|of| state.revoke(of));
            self.stance = Stance::LettingGo(Next::Later);
        }
    }

    fn beat(&mut self, outside: &mut Outside) -> bool {
        let member = self.group.state().member().to_owned();
        if self.joined < 0 || member.is_empty() {
            return false;
        }
        match outside.coordinator.heartbeat(&member, self.joined) {
            0 => return false,
            REBALANCING => self.must_join = true,
            code => self.expelled(code, outside),
        }
        true
    }

    /// Looks whether the topic has more partitions, or is another.
    fn look(&mut self, outside: &mut Outside) -> bool {
        let now = (outside.log.current(), outside.log.parts().len());
        if self.known == now || self.assembler.is_none() {
            return false;
        }
        self.known = now;
        let mut state = self.group.state();
        for of in state.recreated(|_| Some(Log::id(now.0))) {
            state.lose(&of);
        }
        self.must_join = true;
        true
    }
}
