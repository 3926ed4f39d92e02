//! [`Partition`]: where one partition is read, who leads it, and what went wrong with it. No sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{FetchFault, FetchFrom, Fetched};
use crate::error::Retry;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};
use crate::retry::Delays;

/// What is to be asked of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Records.
    Fetch,
    /// Whether its log still has what was read last. Then, if the broker said that the offset is out of range,
    /// that is told.
    Validate(Option<FetchFault>),
    /// Nothing: the caller knows why.
    Held,
}

/// One partition that is fetched.
pub(super) struct Partition {
    pub(super) of: TopicPartition,
    pub(super) topic_id: Uuid,
    /// What to fetch next.
    pub(super) offset: i64,
    /// The leader epoch of the record before, or -1.
    pub(super) epoch: i32,
    /// The leader and its epoch.
    pub(super) leader: Option<(i32, i32)>,
    /// The leader's epoch when the position was last known to be right.
    validated: i32,
    pub(super) state: State,
    pub(super) paused: bool,
    /// What came while it is paused.
    pub(super) kept: VecDeque<Fetched>,
    /// The request that is on its way with it.
    pub(super) asked: Option<u64>,
    /// When it last brought records.
    pub(super) turn: u64,
    pub(super) max_bytes: i32,
    /// Its leader has named another replica to read from, and sent nothing.
    pub(super) is_sent_away: bool,
    /// When something was last heard of it, by the fetcher's clock.
    pub(super) heard: Duration,
    pub(super) trouble: Option<Arc<str>>,
    troubled_at: Option<Instant>,
    /// How often it was in trouble since all was well.
    troubles: u32,
    rest_until: Option<Instant>,
    fresh: Delays,
    delays: Delays,
    /// High watermark, last stable offset and log start as the caller knows them.
    watermarks: Option<(i64, i64, i64)>,
}

impl Partition {
    pub(super) fn new(at: FetchFrom, delays: Delays, max_bytes: i32, heard: Duration) -> Self {
        Partition {
            of: at.of,
            topic_id: at.topic_id,
            offset: at.offset,
            epoch: at.leader_epoch,
            leader: None,
            validated: -1,
            state: State::Fetch,
            paused: false,
            kept: VecDeque::new(),
            asked: None,
            turn: 0,
            max_bytes,
            is_sent_away: false,
            heard,
            trouble: None,
            troubled_at: None,
            troubles: 0,
            rest_until: None,
            fresh: delays.clone(),
            delays,
            watermarks: None,
        }
    }

    pub(super) fn is_led_by(&self, broker: i32) -> bool {
        self.leader.is_some_and(|(leader, _)| leader == broker)
    }

    /// Whether something should be heard of it.
    pub(super) fn is_active(&self) -> bool {
        !self.paused && self.state != State::Held
    }

    /// Whether `broker` can be asked about it now.
    pub(super) fn is_due_at(&self, broker: i32) -> bool {
        self.is_active() && self.asked.is_none() && self.is_led_by(broker)
    }

    /// Whether its leader is to be found, and when.
    pub(super) fn leader_wanted_at(&self) -> Option<Option<Instant>> {
        (self.is_active() && self.leader.is_none()).then_some(self.rest_until)
    }

    pub(super) fn wants_leader(&self, now: Instant) -> bool {
        self.leader_wanted_at().is_some_and(|rest| rest.is_none_or(|until| until <= now))
    }

    /// Whether what the cluster said at `known` is from before the trouble.
    pub(super) fn needs_news(&self, known: Option<Instant>) -> bool {
        self.troubled_at > known
    }

    /// Follows what the cluster says about its leader, and about its topic's id. What may pass is returned.
    ///
    /// # Errors
    /// The fault, if the partition ends here.
    pub(super) fn follow(
        &mut self,
        found: Result<(i32, i32)>,
        id: Uuid,
    ) -> Result<Option<Error>, FetchFault> {
        if self.topic_id.is_nil() {
            self.topic_id = id;
        }
        if !id.is_nil() && id != self.topic_id {
            return Err(FetchFault::Recreated { id });
        }
        let (leader, epoch) = match found {
            Ok(found) => found,
            Err(Error::Topic { code, .. } | Error::Partition { code, .. })
                if code.retry() == Retry::Permanent =>
            {
                return Err(refusal(code));
            }
            Err(error) => return Ok(Some(error)),
        };
        self.leader = Some((leader, epoch));
        self.is_sent_away = false;
        if self.state == State::Fetch && self.epoch >= 0 && epoch >= 0 && epoch != self.validated {
            self.state = State::Validate(None);
        }
        Ok(None)
    }

    /// The leader's log has what was read last, or cannot tell.
    pub(super) fn is_valid(&mut self) {
        self.state = State::Fetch;
        self.validated = self.leader.map_or(-1, |(_, epoch)| epoch);
    }

    /// Something went wrong that may pass: looks for a leader again, at once for the first time. How often that was
    /// so, and how long it rests.
    pub(super) fn suffer(&mut self, trouble: &Arc<str>) -> (u32, Duration) {
        let now = Instant::now();
        let rest = if self.trouble.is_some() { self.delays.next() } else { None };
        self.rest_until = rest.map(|rest| now + rest);
        self.troubles += 1;
        self.trouble = Some(trouble.clone());
        self.troubled_at = Some(now);
        self.leader = None;
        self.asked = None;
        (self.troubles, rest.unwrap_or_default())
    }

    /// All is well.
    pub(super) fn recover(&mut self, now: Duration) {
        self.heard = now;
        if self.trouble.take().is_some() {
            (self.rest_until, self.troubles) = (None, 0);
            self.delays = self.fresh.clone();
        }
    }

    /// Goes on behind what came. Whether records were fetched in this epoch, the position is right in it.
    pub(super) fn advance(&mut self, next: i64, epoch: i32) {
        self.offset = next;
        if epoch >= 0 {
            self.epoch = epoch;
            self.validated = self.leader.map_or(-1, |(_, epoch)| epoch);
        }
    }

    /// What comes when nothing comes.
    pub(super) fn nothing(&self) -> Fetched {
        let (high_watermark, last_stable, log_start) = self.watermarks.unwrap_or((-1, -1, -1));
        Fetched {
            of: self.of.clone(),
            from: self.offset,
            next: self.offset,
            records: Bytes::new(),
            aborted: Vec::new(),
            high_watermark,
            last_stable,
            log_start,
            fault: None,
        }
    }

    /// Hands it to the caller, or keeps it for later. What is no news is dropped.
    pub(super) fn deliver(&mut self, mut fetched: Fetched, ready: &mut VecDeque<Fetched>) {
        let watermarks = Some((fetched.high_watermark, fetched.last_stable, fetched.log_start));
        if fetched.records.is_empty() && fetched.fault.is_none() && watermarks == self.watermarks {
            return;
        }
        self.watermarks = watermarks;
        if self.paused {
            fetched.records = Bytes::copy_from_slice(&fetched.records);
            self.kept.push_back(fetched);
        } else {
            ready.push_back(fetched);
        }
    }
}

/// The fault of a code that does not pass.
pub(super) fn refusal(code: Code) -> FetchFault {
    match code {
        Code::TOPIC_AUTHORIZATION_FAILED => FetchFault::Denied(code),
        code => FetchFault::Other(code),
    }
}
