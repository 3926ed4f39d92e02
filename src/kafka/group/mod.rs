//! [`Group`]: membership of a consumer group, by the classic protocol. Which partitions are whose, and commits
//! that are fenced when they are no longer whose they were.
//!
//! Two threads do IO here, each on a connection of its own: the group's ([`Group::attend`]: join, heartbeat,
//! leave; see `member` and `join`) and the engine's commit thread ([`Group::commit`]). What they share is in
//! `state`, under a lock that is never held over IO. Everybody else only looks.
//!
//! Kept from the boundary plan: one OffsetCommit is in flight; a tenancy ends before the JoinGroup that gives it up
//! and is kept over a rebalance only as `state` says; a commit whose reply is lost ends all tenancies and forces a
//! new generation; offsets are read with `require_stable`; metadata is never empty; nothing is ever committed
//! without a generation. Pure: `assign`, `protocol`, `metadata`, `change`, `state`; `round` sends nothing either.

pub mod assign;
pub mod change;
pub mod metadata;
pub mod settings;
mod commit;
mod fault;
mod join;
mod kept;
mod lead;
mod leftover;
mod member;
pub(crate) mod offsets;
mod protocol;
pub(crate) mod round;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

pub use assign::Assignor;
pub use change::{Change, Committed, Tenancy};
pub use commit::{Commit, CutShort};
pub use leftover::{static_transactional_id, transactional_id};
pub use metadata::{Metadata, Remembered};
pub use settings::GroupSettings;

use super::cluster::{Cluster, TopicPartition};
use crate::error::Result;
use crate::source::Planned;
use commit::CommitPath;
use member::Member;
use state::{Phase, State, Summons};

/// A member of a consumer group.
pub struct Group {
    cluster: Cluster,
    settings: GroupSettings,
    state: Mutex<State>,
    /// The state changed; the commit thread may wait for that.
    changed: Condvar,
    /// Wakes the group's thread.
    wake: Sender<()>,
    woken: Receiver<()>,
    began: Instant,
    /// Milliseconds since `began`.
    polled: AtomicU64,
    /// Whether the member has left because nobody polled.
    asleep: AtomicBool,
    commits: Mutex<CommitPath>,
}

/// Who commits, for TxnOffsetCommit (KIP-447).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group's id.
    pub group: String,
    /// The settled generation.
    pub generation: i32,
    /// The member id.
    pub member: String,
    /// The instance id of a static member.
    pub instance: Option<String>,
}

impl Group {
    /// Nothing is connected yet.
    pub fn new(cluster: Cluster, settings: GroupSettings) -> Arc<Self> {
        let (wake, woken) = bounded(1);
        let switch = wake.clone();
        cluster.stop().on_abort(move || {
            let _ = switch.try_send(());
        });
        Arc::new(Group {
            cluster,
            settings,
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            wake,
            woken,
            began: Instant::now(),
            polled: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            commits: Mutex::default(),
        })
    }

    /// The body of the group's own thread: joins, keeps the membership alive, rejoins, until `over` is
    /// disconnected; then leaves the group, if it is a dynamic member. Returns within some seconds after that, and
    /// within about two after an abort.
    ///
    /// # Errors
    /// What no further try can help: no permission, a fenced instance id, no common assignor; a coordinator that
    /// could not be reached for `give_up_after`; [`crate::Error::Stopped`] after an abort.
    pub fn attend(&self, over: &Receiver<()>) -> Result<()> {
        self.settings.check()?;
        let outcome = Member::new(self, over).run();
        let mut state = self.state.lock();
        state.lose_all();
        state.phase = Phase::Out;
        self.changed.notify_all();
        outcome
    }

    /// The next change, in order, if there is one. Does not block.
    pub fn next_change(&self) -> Option<Change> {
        self.state.lock().changes.next()
    }

    /// A reader that has partitions has looked for records: the pipeline is not stalled.
    pub fn polled(&self) {
        let now = self.began.elapsed().as_millis() as u64;
        self.polled.store(now, Ordering::Release);
        if self.asleep.load(Ordering::Acquire) {
            self.rouse();
        }
    }

    /// Nothing of this tenancy is in flight any more, and its last offset is committed. The group's thread waits
    /// for that, before it joins again.
    pub fn released(&self, of: &TopicPartition, epoch: u64) {
        if self.state.lock().release(of, epoch) {
            self.rouse();
        }
    }

    /// Whether this tenancy still holds: not lost, and the session cannot have expired.
    pub fn is_owned(&self, of: &TopicPartition, epoch: u64) -> bool {
        self.state.lock().is_owned(of, epoch, Instant::now())
    }

    /// The id of the topic that this tenancy is of, while it holds.
    pub fn topic_id(&self, of: &TopicPartition, epoch: u64) -> Option<Uuid> {
        self.state.lock().topic_id(of, epoch, Instant::now())
    }

    /// Who commits; `None` while the member is in no generation.
    pub fn identity(&self) -> Option<Identity> {
        let state = self.state.lock();
        let settled = state.phase != Phase::Out && state.generation() >= 0;
        settled.then(|| Identity {
            group: self.settings.group.clone(),
            generation: state.generation(),
            member: state.member().to_string(),
            instance: self.settings.instance_id.clone(),
        })
    }

    /// What to commit beside an offset of this topic.
    pub fn metadata(&self, topic_id: Uuid, plan: Vec<Planned>) -> Metadata {
        Metadata { topic_id, location: self.settings.location, plan }
    }

    /// How it was set.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// This tenancy is in doubt: nothing more of it is committed, and the group gives the partition anew, to be read
    /// again from what is committed. The others stay.
    pub fn doubted(&self, of: &TopicPartition, epoch: u64) {
        let mut state = self.state.lock();
        if state.is_owned(of, epoch, Instant::now()) {
            state.lose(of);
            state.summons.get_or_insert(Summons::Doubt);
            drop(state);
            self.rouse();
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    fn rouse(&self) {
        // One that is there already says the same.
        let _ = self.wake.try_send(());
    }

    fn since_polled(&self) -> Duration {
        let polled = Duration::from_millis(self.polled.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(polled)
    }
}
