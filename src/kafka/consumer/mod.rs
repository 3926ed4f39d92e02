//! [`Fetcher`]: fetches of one reader from several leaders side by side, on the caller's thread.
//!
//! Each leader has a connection and at most one request on its way. When an answer is in, its batch headers are
//! walked for the next offsets and the next request is sent at once, before the caller works on what came: broker
//! and network are ahead by one answer. An answer is read from its socket only when everything before it was
//! handed out, so that there is never more in memory than one answer a leader, besides what the caller holds.
//! Sockets are polled (poll(2)) and read without waiting: a leader that stalls in the middle of an answer holds up
//! nobody else.
//!
//! What goes wrong at a broker or a partition and may pass (leaders that move, broken connections, throttling) is
//! handled here: look up the leader, wait, ask again at the same offset. What does not pass is a [`FetchFault`] of
//! the partition, which is then left alone until it is added again. There are no fetch sessions (KIP-227): every
//! request is complete, so that nothing has to be kept in step with a broker.
//!
//! Read `partition` for one partition, `link` for one leader, `answer` for what an answer means, `wait` for polling.
//!
//! **How long memory lives.** [`Fetched::records`] is a slice of the whole answer, which all its partitions share:
//! the answer is freed when the last of its [`Fetched`] is dropped. Then a connection uses the memory again. Who
//! wants to keep a little of it for long should copy it out. What waits because its partition is paused is copied.

mod answer;
mod link;
mod partition;
mod request;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::cluster::{Cluster, Isolation, TopicPartition};
use super::code::Code;
use super::error::{Error, Result};
use crate::error::Retry;
use crate::retry::Delays;
use link::Link;
use partition::{Partition, State};

/// The first time that opening a connection, or asking the cluster, may hold up everything else.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two calls of [`Fetcher::next`] counts at most so much towards timeouts.
const AWAY: Duration = Duration::from_secs(1);
/// How often at least leaders and connections are seen to.
const TEND: Duration = Duration::from_secs(1);
/// What an answer has besides records, generously.
const OVERHEAD: usize = 1 << 20;

/// How a [`Fetcher`] fetches.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Whether records of open and aborted transactions are seen.
    pub isolation: Isolation,
    /// Bytes of records in one answer, over all partitions. The first batch comes whole even if it is larger, as far as
    /// [`crate::kafka::Options::max_answer`] allows.
    pub max_bytes: i32,
    /// Bytes of records of one partition in one answer; the same exception.
    pub partition_max_bytes: i32,
    /// A broker waits until it has so many bytes of records,
    pub min_bytes: i32,
    /// and at most so long.
    pub max_wait: Duration,
    /// For how long nothing may be heard of a partition that is not paused, before that is an error.
    pub give_up_after: Duration,
}

impl Default for FetchSettings {
    fn default() -> Self {
        FetchSettings {
            isolation: Isolation::ReadCommitted,
            max_bytes: 8 << 20,
            partition_max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            give_up_after: Duration::from_secs(120),
        }
    }
}

/// Where to begin with a partition.
#[derive(Clone, Debug)]
pub struct FetchFrom {
    /// Topic and partition.
    pub of: TopicPartition,
    /// The topic's id; nil if it is not known. Another id in the cluster is [`FetchFault::Recreated`].
    pub topic_id: Uuid,
    /// The first offset wanted.
    pub offset: i64,
    /// The leader epoch of the last record before it, or -1 if that is not known.
    pub leader_epoch: i32,
}

/// What came of one partition. With a fault there are no records, and nothing more comes until the partition is
/// added again.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Topic and partition.
    pub of: TopicPartition,
    /// The offset that was asked for. The first batch may begin before it: those records are to be skipped.
    pub from: i64,
    /// The offset after the last whole batch, where the next fetch goes on.
    pub next: i64,
    /// Record batches; the last may be cut off. Empty where only the watermarks are news. Checksums are not checked.
    /// Behind damage, which whoever reads them finds, nothing more comes of this partition, as after a fault.
    pub records: Bytes,
    /// Aborted transactions in the records: producer id, first offset (see [`crate::kafka::wire::Aborted`]).
    pub aborted: Vec<(i64, i64)>,
    /// The end of what all replicas in sync have.
    pub high_watermark: i64,
    /// The end of what `read_committed` sees; -1 for `read_uncommitted`.
    pub last_stable: i64,
    /// The log's first offset, or -1 from brokers that do not tell.
    pub log_start: i64,
    /// Why nothing more comes.
    pub fault: Option<FetchFault>,
}

/// Why fetching a partition ended.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchFault {
    /// The log does not have the offset any more, or not yet.
    OutOfRange {
        /// The log's first offset; -1 if the broker does not tell (Kafka 4 does not): [`Cluster::offsets`] does.
        log_start: i64,
        /// The log's end; -1 likewise.
        high_watermark: i64,
    },
    /// What was read last is not in the log any more: it was cut back after an unclean election, and other records
    /// may stand at the same offsets now (KIP-320).
    Truncated {
        /// The offset that was to be fetched.
        offset: i64,
        /// The leader epoch of the record before it.
        epoch: i32,
        /// Where the log parts from what was read; -1 if the leader does not know the epoch at all.
        end: i64,
    },
    /// The topic was deleted and created anew: offsets mean other records now.
    Recreated {
        /// The new topic's id.
        id: Uuid,
    },
    /// The user may not read the topic.
    Denied(Code),
    /// Another code that does not pass.
    Other(Code),
}

/// Fetches partitions. See the module for how.
pub struct Fetcher {
    cluster: Cluster,
    settings: FetchSettings,
    partitions: HashMap<TopicPartition, Partition>,
    links: BTreeMap<i32, Link>,
    ready: VecDeque<Fetched>,
    clock: Clock,
    refresh: Refresh,
    tended_at: Instant,
    /// Counts answers and requests: partitions that had their turn long ago come first.
    turn: u64,
    /// How often it waited.
    #[cfg(test)]
    waits: u64,
}

/// Time as timeouts see it: it hardly goes on while the caller is away, because answers may lie in their sockets.
struct Clock {
    began_at: Instant,
    left_at: Instant,
    away: Duration,
}

/// When the cluster was and will be asked who leads.
struct Refresh {
    /// When the last answer was asked for.
    at: Option<Instant>,
    /// The same of the last answer that was looked at, whoever asked.
    looked_at: Option<Instant>,
    /// Whether it said that a topic is not there which is read.
    denied: bool,
    not_before: Instant,
    delays: Delays,
    patience: Duration,
    /// How often it did not answer since it did.
    failures: u32,
}

impl Fetcher {
    /// Fetches nothing yet. Connects when it has partitions.
    pub fn new(cluster: Cluster, mut settings: FetchSettings) -> Self {
        let most = cluster.options().max_answer.saturating_sub(OVERHEAD).max(1);
        settings.max_bytes = settings.max_bytes.clamp(1, i32::try_from(most).unwrap_or(i32::MAX));
        settings.partition_max_bytes = settings.partition_max_bytes.clamp(1, settings.max_bytes);
        let now = Instant::now();
        let delays = cluster.delays();
        Fetcher {
            cluster,
            settings,
            partitions: HashMap::new(),
            links: BTreeMap::new(),
            ready: VecDeque::new(),
            clock: Clock { began_at: now, left_at: now, away: Duration::ZERO },
            refresh: Refresh {
                at: None,
                looked_at: None,
                denied: false,
                not_before: now,
                delays,
                patience: PATIENCE,
                failures: 0,
            },
            tended_at: now,
            turn: 0,
            #[cfg(test)]
            waits: 0,
        }
    }

    /// Fetches this partition from now on. If it is there already, it begins anew. Does not block.
    pub fn add(&mut self, at: FetchFrom) {
        self.remove(&at.of);
        let partition =
            Partition::new(at, self.cluster.delays(), self.settings.partition_max_bytes, self.clock.now());
        self.partitions.insert(partition.of.clone(), partition);
    }

    /// Forgets this partition and what has arrived of it. Does not block.
    pub fn remove(&mut self, of: &TopicPartition) {
        if self.partitions.remove(of).is_some() {
            self.ready.retain(|fetched| fetched.of != *of);
        }
        self.close_idle();
    }

    /// Neither asks for this partition nor returns anything of it until [`Fetcher::resume`]. Keeps what has
    /// arrived, and what arrives of requests already sent: at most two answers' share of this partition, copied.
    pub fn pause(&mut self, of: &TopicPartition) {
        let Some(partition) = self.partitions.get_mut(of).filter(|one| !one.paused) else { return };
        partition.paused = true;
        for fetched in std::mem::take(&mut self.ready) {
            let place = if fetched.of == *of { &mut partition.kept } else { &mut self.ready };
            place.push_back(fetched);
        }
        for fetched in &mut partition.kept {
            fetched.records = Bytes::copy_from_slice(&fetched.records);
        }
    }

    /// Undoes [`Fetcher::pause`]. What was kept comes first.
    pub fn resume(&mut self, of: &TopicPartition) {
        let Some(partition) = self.partitions.get_mut(of).filter(|one| one.paused) else { return };
        partition.paused = false;
        partition.heard = self.clock.now();
        self.ready.extend(partition.kept.drain(..));
    }

    /// The next that comes. `None` if nothing came in time. Waits at most `timeout`, give or take the time that it
    /// takes to open connections and to ask the cluster for leaders: seconds at most, while a broker is a black hole.
    ///
    /// # Errors
    /// [`Error::GaveUp`] if nothing was heard of a partition for too long, with the last trouble; what another try
    /// cannot help (a refused login, a bad certificate); [`Error::HungUp`] after an abort.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Fetched>> {
        let deadline = Instant::now() + timeout;
        self.clock.enter();
        let next = self.next_by(deadline);
        self.clock.left_at = Instant::now();
        next
    }

    fn next_by(&mut self, deadline: Instant) -> Result<Option<Fetched>> {
        // What lies in the sockets is looked at before anyone is blamed for silence.
        let mut looked = false;
        loop {
            // Where there is always something ready nobody would come to it.
            if self.tended_at.elapsed() >= TEND {
                self.tend()?;
            }
            if let Some(fetched) = self.ready.pop_front() {
                return Ok(Some(fetched));
            }
            if !looked {
                self.wait(Instant::now())?;
                looked = true;
                continue;
            }
            self.tend()?;
            self.blame()?;
            if self.ready.is_empty() {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                self.wait(deadline)?;
            }
        }
    }

    /// Sees to leaders and connections.
    fn tend(&mut self) -> Result<()> {
        self.hear_news()?;
        self.take_news();
        self.find_leaders()?;
        self.serve_links()?;
        self.tended_at = Instant::now();
        Ok(())
    }

    /// Asks the cluster again once its last answer is old, whoever asked for that: a leader that does not know that
    /// another leads will never say so. Where a topic is said not to be there although it is read, another broker is
    /// asked, and soon: this one may have just started, or be cut off.
    fn hear_news(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.news_due_at().is_some_and(|due| due <= now) {
            if self.refresh.denied {
                self.cluster.doubt();
            }
            self.ask_cluster(now)?;
        }
        Ok(())
    }

    /// When the cluster is to be asked although nothing is wrong. Not while nothing is read.
    fn news_due_at(&self) -> Option<Instant> {
        let age = self.cluster.metadata_age();
        let age = if self.refresh.denied { age.min(TEND) } else { age };
        let old_at = self.cluster.told_at()?.checked_add(age)?;
        self.partitions.values().any(Partition::is_active).then(|| old_at.max(self.refresh.not_before))
    }

    /// Looks at what the cluster has told since. Leaves leaders of older epochs, to others perhaps: one that is cut off
    /// from its controller does not know that another leads, and goes on answering without anything new.
    fn take_news(&mut self) {
        let told_at = self.cluster.told_at();
        if told_at == self.refresh.looked_at {
            return;
        }
        self.refresh.looked_at = told_at;
        let denied = |of: &TopicPartition| self.cluster.topic_error(&of.topic) != Code::NONE;
        self.refresh.denied = self.partitions.values().any(|one| one.is_active() && denied(&one.of));
        for partition in self.partitions.values_mut() {
            let Ok((leader, epoch)) = self.cluster.leader(&partition.of) else { continue };
            if partition.leader.is_some_and(|(old, before)| old != leader && before < epoch) {
                (partition.leader, partition.asked) = (None, None);
            }
        }
    }

    /// Finds leaders for the partitions that have none.
    fn find_leaders(&mut self) -> Result<()> {
        let now = Instant::now();
        let leaderless: Vec<_> =
            self.partitions.values().filter(|one| one.wants_leader(now)).map(|one| one.of.clone()).collect();
        if leaderless.is_empty() {
            return Ok(());
        }
        let known = self.refresh.at;
        let is_stale = |of: &TopicPartition| {
            self.cluster.topic(&of.topic).is_none() || self.partitions[of].needs_news(known)
        };
        let (stale, mut leaderless): (Vec<_>, Vec<_>) = leaderless.into_iter().partition(is_stale);
        if !stale.is_empty() && self.ask_cluster(now)? {
            leaderless.extend(stale);
        }
        for of in leaderless {
            let found = self.cluster.leader(&of);
            let id = self.cluster.topic(&of.topic).map_or(Uuid::nil(), |topic| topic.id);
            let partition = self.partitions.get_mut(&of).expect("nothing was removed since");
            let followed = partition.follow(found, id);
            if let Some((leader, _)) = partition.leader {
                self.links.entry(leader).or_insert_with(|| Link::new(self.cluster.delays()));
            }
            match followed {
                Ok(None) => {}
                Ok(Some(error)) => self.suffer(&of, &error),
                Err(fault) => self.end(&of, fault),
            }
        }
        self.close_idle();
        Ok(())
    }

    /// Closes connections to brokers that lead nothing any more. When they may be tried again stays known.
    fn close_idle(&mut self) {
        for (id, link) in &mut self.links {
            if !self.partitions.values().any(|partition| partition.is_led_by(*id)) {
                link.close();
            }
        }
    }

    /// Whether the cluster answered, now or after all that is known.
    fn ask_cluster(&mut self, now: Instant) -> Result<bool> {
        if now < self.refresh.not_before {
            return Ok(false);
        }
        let mut topics: Vec<Arc<str>> = self.partitions.keys().map(|of| of.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        let is_urgent = self.partitions.values().any(|partition| partition.wants_leader(now));
        // While all is well nothing is held up for longer, however often there is no answer.
        let patience = if is_urgent { self.refresh.patience } else { PATIENCE };
        let asked = self.cluster.refresh(&topics, now + patience);
        self.forgive(now.elapsed(), |partition| partition.leader.is_some());
        let delay = self.refresh.delays.next().unwrap_or(PATIENCE);
        self.refresh.not_before = Instant::now() + delay;
        match asked {
            Ok(()) => {
                self.refresh.at = Some(now);
                (self.refresh.patience, self.refresh.failures) = (PATIENCE, 0);
                self.refresh.delays = self.cluster.delays();
                Ok(true)
            }
            Err(error) if error.retry() == Retry::Transient => {
                let longest = self.cluster.options().request_timeout;
                self.refresh.patience = (patience * 2).min(longest.max(PATIENCE));
                self.refresh.failures += 1;
                self.cluster.again(&"asking who leads", &error, self.refresh.failures, delay);
                let text: Arc<str> = error.to_string().into();
                for partition in self.partitions.values_mut().filter(|one| one.wants_leader(now)) {
                    partition.trouble = Some(text.clone());
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the caller that a partition ends here.
    fn end(&mut self, of: &TopicPartition, fault: FetchFault) {
        let partition = self.partitions.get_mut(of).expect("only partitions that are there end");
        partition.state = State::Held;
        let fetched = Fetched { fault: Some(fault), ..partition.nothing() };
        partition.deliver(fetched, &mut self.ready);
    }

    /// Ends when nothing was heard of a partition for too long.
    fn blame(&self) -> Result<()> {
        let now = self.clock.now();
        for partition in self.partitions.values().filter(|one| one.is_active()) {
            let silent = now.saturating_sub(partition.heard);
            if silent >= self.settings.give_up_after {
                let text = partition.trouble.as_deref().unwrap_or("its leader does not answer");
                return Err(Error::GaveUp {
                    what: format!("fetching partition {}", partition.of),
                    after: silent,
                    last: Box::new(Error::Unavailable(text.into())),
                });
            }
        }
        Ok(())
    }
}

impl Clock {
    fn enter(&mut self) {
        self.away += self.left_at.elapsed().saturating_sub(AWAY);
    }

    /// Time since the beginning.
    fn now(&self) -> Duration {
        self.began_at.elapsed().saturating_sub(self.away)
    }
}
