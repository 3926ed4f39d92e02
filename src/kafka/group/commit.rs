//! Commits: one OffsetCommit in flight, on a connection of its own, fenced by generation and member id.
//!
//! What was sent and neither acknowledged nor refused is remembered in `state`, so that a rebalance can tell
//! whether a tenancy is still what it was. When no answer comes, nobody knows whether the commit will still arrive:
//! the connection is closed, all tenancies are lost, and the group's thread forces a new generation, which fences
//! it (boundary plan, rule 1).

use std::time::{Duration, Instant};

use kafka_protocol::messages::OffsetCommitRequest;

use super::Group;
use super::metadata::Metadata;
use super::round::{Attempt, Ready, Round};
use super::state::{Stored, Summons};
use crate::error::{Error, Result, Retry};
use crate::kafka::cluster::{Coordinates, TopicPartition};
use crate::kafka::connection::Connection;
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};

/// The highest version with topic names.
const MOST: i16 = 9;
/// How many ends a commit carries at most, before a broker has refused that.
const ENDS: usize = 512;
/// Before something is tried again: it doubles from the first to the longest.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one search for the coordinator may take.
const SEARCH: Duration = Duration::from_secs(2);
/// How often a waiting commit looks whether the run was aborted.
const SLICE: Duration = Duration::from_millis(100);
/// A connection that was idle for so long may have been closed by the broker, which would look like a lost reply.
const IDLE: Duration = Duration::from_secs(60);

/// What is to be remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which partition.
    pub of: TopicPartition,
    /// Its tenancy.
    pub epoch: u64,
    /// Everything before it is done.
    pub offset: i64,
    /// Leader epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What stands beside it; see [`Group::metadata`].
    pub metadata: Metadata,
}

/// A commit that is durable, but for the last ends of its plan: they did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutShort {
    /// Which partition.
    pub of: TopicPartition,
    /// Its tenancy.
    pub epoch: u64,
    /// So many ends are durable, from the first.
    pub ends: usize,
}

/// The commit thread's own.
pub(super) struct CommitPath {
    connection: Option<Connection>,
    used: Instant,
    /// How many ends a commit carries at most; halved when the broker says that the metadata are too large.
    ends: usize,
}

impl Default for CommitPath {
    fn default() -> Self {
        CommitPath { connection: None, used: Instant::now(), ends: ENDS }
    }
}

impl Group {
    /// Commits. For the commit thread only. Blocks until each partition is durable or no longer ours: through a
    /// rebalance if one is under way, and through the absence of a coordinator while the session may last.
    ///
    /// Tenancies that are fenced or lost are pushed to `refused`; they end with [`super::Change::Lost`]. What is
    /// returned tells of plans that did not fit whole.
    ///
    /// # Errors
    /// What no further try can help; [`Error::Stopped`] after an abort. The run must end.
    pub fn commit(
        &self,
        offsets: &[Commit],
        refused: &mut Vec<(TopicPartition, u64)>,
    ) -> Result<Vec<CutShort>> {
        let mut path = self.commits.lock();
        let mut round = Round::new(self, offsets);
        while let Some(attempt) = self.next_attempt(&mut round, refused)? {
            match self.attempt(&mut round, &mut path, &attempt) {
                Ok(()) => {}
                Err(error) if error.is_ambiguous() => {
                    path.connection = None;
                    self.doubt(&round.doubted(&error));
                }
                Err(KafkaError::HungUp) => return Err(Error::Stopped),
                Err(error) if error.retry() == Retry::Transient => {
                    path.connection = None;
                    round.failed(&error);
                    self.cluster.stop().sleep(round.wait())?;
                }
                Err(error) => return Err(round.fatal(error)),
            }
        }
        let short = std::mem::take(&mut round.short);
        self.prove(&mut path, offsets)?;
        Ok(short)
    }

    /// Waits until a try makes sense. `None`: nothing is open any more.
    fn next_attempt(
        &self,
        round: &mut Round<'_>,
        refused: &mut Vec<(TopicPartition, u64)>,
    ) -> Result<Option<Attempt>> {
        let mut state = self.state.lock();
        loop {
            if self.cluster.stop().is_aborted() {
                return Err(Error::Stopped);
            }
            match round.ready(&mut state, refused) {
                Ready::Done => return Ok(None),
                Ready::Go(attempt) => return Ok(Some(attempt)),
                Ready::Wait => drop(self.changed.wait_for(&mut state, SLICE)),
            }
        }
    }

    fn attempt(&self, round: &mut Round<'_>, path: &mut CommitPath, attempt: &Attempt) -> KafkaResult<()> {
        if path.used.elapsed() > IDLE {
            path.connection = None;
        }
        let connection = path.connect(self)?;
        let version = connection.version::<OffsetCommitRequest>(MOST)?;
        let (request, sent) = round.request(attempt, version, path.ends);
        let timeout = self.cluster.options().request_timeout;
        let connection = path.connect(self)?;
        let wait = connection.throttle().min(timeout);
        if !wait.is_zero() && self.cluster.stop().sleep(wait).is_err() {
            return Err(KafkaError::HungUp);
        }
        let answer = connection.call_within(&request, version, timeout)?;
        path.used = Instant::now();
        let learned = round.learn(attempt, &answer, &sent)?;
        path.ends = learned.ends.unwrap_or(path.ends);
        if learned.search {
            path.connection = None;
        }
        if learned.pause && self.cluster.stop().sleep(round.wait()).is_err() {
            return Err(KafkaError::HungUp);
        }
        Ok(())
    }

    /// Whoever commits in a transaction says so before it sends the offset, and [`Group::stored`] after the
    /// transaction is committed: else a rebalance takes what it then finds for somebody else's, and the tenancy is
    /// lost. `metadata` is the text that stands beside the offset.
    pub fn sending(&self, of: &TopicPartition, epoch: u64, offset: i64, metadata: &str) {
        self.state.lock().sending(of, epoch, Stored { offset, text: metadata.into() });
    }

    /// The transaction with this offset is committed.
    pub fn stored(&self, of: &TopicPartition, epoch: u64, offset: i64, metadata: &str) {
        self.state.lock().acknowledge(of, epoch, &Stored { offset, text: metadata.into() });
    }

    /// Nobody knows what was committed: all tenancies end, and after a new generation, which fences whatever is
    /// still on its way, the group tells where to go on. For whoever commits in transactions, too.
    pub fn doubt(&self, why: &str) {
        log::warn!(
            "group {}: {why}: it is not known what was committed; all partitions are read again from there",
            self.settings.group
        );
        self.summon(Summons::Doubt);
    }

    pub(super) fn summon(&self, summons: Summons) {
        let mut state = self.state.lock();
        state.lose_all();
        state.summons = Some(summons);
        drop(state);
        self.rouse();
    }
}

impl Commit {
    /// What the coordinator is to keep, and how many ends of the plan that has.
    pub(super) fn stored(&self, ends: usize, kept: usize) -> (Stored, usize) {
        let written = self.metadata.write(self.offset, ends, kept);
        (Stored { offset: self.offset, text: written.text }, written.ends)
    }
}

impl CommitPath {
    /// Closes the connection.
    pub fn forget(&mut self) {
        self.connection = None;
    }

    pub fn connect(&mut self, group: &Group) -> KafkaResult<&mut Connection> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            let deadline = Instant::now() + SEARCH;
            match group.cluster.coordinator(Coordinates::Group, &group.settings.group, deadline) {
                Ok(found) => {
                    if let Err(error) = found.reset_on_close() {
                        log::debug!("group {}: {error}", group.settings.group);
                    }
                    self.connection = Some(found);
                }
                // Nothing of the commit was sent: an error of the way there is no doubt.
                Err(error) if error.is_ambiguous() && error.retry() == Retry::Transient => {
                    return Err(KafkaError::Unavailable(error.to_string()));
                }
                Err(error) => return Err(error),
            }
            self.used = Instant::now();
        }
        Ok(self.connection.as_mut().expect("it was put there right now"))
    }
}
