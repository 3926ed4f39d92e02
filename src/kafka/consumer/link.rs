//! [`Link`]: the connection to one leader, and the one request that is on its way to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{FetchRequest, OffsetForLeaderEpochRequest};

use super::partition::{Partition, State};
use super::{Fetcher, PATIENCE, request};
use crate::error::Retry;
use crate::kafka::connection::{Connection, Pending};
use crate::kafka::error::{Call, Error, Result};
use crate::retry::Delays;

/// One leader.
pub(super) struct Link {
    pub(super) connection: Option<Connection>,
    pub(super) asked: Option<Asked>,
    /// Nothing is sent, and no connection opened, before.
    pub(super) rest_until: Option<Instant>,
    fresh: Delays,
    delays: Delays,
    /// How often it failed since the last answer.
    failures: u32,
    patience: Duration,
}

/// A request on its way.
pub(super) struct Asked {
    pub(super) request: Request,
    /// Its number, which its partitions have too.
    pub(super) serial: u64,
    /// When its answer must be here, by the fetcher's clock.
    pub(super) due: Duration,
    call: Call,
}

pub(super) enum Request {
    Fetch(Pending<FetchRequest>),
    Epochs(Pending<OffsetForLeaderEpochRequest>),
}

impl Link {
    pub(super) fn new(delays: Delays) -> Self {
        Link {
            connection: None,
            asked: None,
            rest_until: None,
            fresh: delays.clone(),
            delays,
            failures: 0,
            patience: PATIENCE,
        }
    }

    pub(super) fn close(&mut self) {
        self.connection = None;
        self.asked = None;
    }

    /// An answer came.
    pub(super) fn recover(&mut self) {
        self.asked = None;
        if std::mem::take(&mut self.failures) > 0 {
            self.delays = self.fresh.clone();
            self.patience = PATIENCE;
        }
    }

    /// Whether it may be used now.
    fn is_rested(&self, now: Instant) -> bool {
        self.rest_until.is_none_or(|until| until <= now)
    }
}

impl Fetcher {
    /// Sends what is to be sent, and ends what takes too long.
    pub(super) fn serve_links(&mut self) -> Result<()> {
        let ids: Vec<i32> = self.links.keys().copied().collect();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else { continue };
            match &link.asked {
                Some(asked) if self.clock.now() >= asked.due => {
                    let after = self.cluster.options().request_timeout;
                    let error = Error::Timeout { call: asked.call.clone(), after };
                    self.fail(id, error)?;
                }
                Some(_) => {}
                None => self.serve(id)?,
            }
        }
        Ok(())
    }

    /// Asks this broker about all that it leads, if it is not asked already.
    pub(super) fn serve(&mut self, id: i32) -> Result<()> {
        let now = Instant::now();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let has_work = self.partitions.values().any(|partition| partition.is_due_at(id));
        if link.asked.is_some() || !link.is_rested(now) || !has_work {
            return Ok(());
        }
        if !link.connection.as_ref().is_some_and(Connection::is_open) {
            let opened = self.cluster.connect_by(id, now + link.patience);
            self.forgive(now.elapsed(), |partition| !partition.is_led_by(id));
            let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
            match opened {
                Ok(connection) => link.connection = Some(connection),
                Err(error) => {
                    let longest = self.cluster.options().connect_timeout;
                    link.patience = (link.patience * 2).min(longest.max(PATIENCE));
                    return self.fail(id, error);
                }
            }
        }
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let throttle = link.connection.as_ref().map_or(Duration::ZERO, Connection::throttle);
        if !throttle.is_zero() {
            link.rest_until = Some(Instant::now() + throttle);
            // The broker said so: its partitions are not silent.
            let heard = self.clock.now() + throttle;
            for partition in self.partitions.values_mut().filter(|one| one.is_led_by(id)) {
                partition.heard = partition.heard.max(heard);
            }
            return Ok(());
        }
        match self.send(id) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(id, error),
        }
    }

    /// This thread was busy for so long: who could not be heard meanwhile is not to blame.
    pub(super) fn forgive(&mut self, busy: Duration, innocent: impl Fn(&Partition) -> bool) {
        for partition in self.partitions.values_mut().filter(|one| innocent(one)) {
            partition.heard += busy;
        }
        for asked in self.links.values_mut().filter_map(|link| link.asked.as_mut()) {
            asked.due += busy;
        }
    }

    fn send(&mut self, id: i32) -> Result<()> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some(connection) = link.connection.as_mut() else { return Ok(()) };
        let mut due: Vec<_> = self.partitions.values_mut().filter(|one| one.is_due_at(id)).collect();
        let (call, wait, request) = if due.iter().any(|one| matches!(one.state, State::Validate(_)))
            && let Ok(version) = connection.version::<OffsetForLeaderEpochRequest>(i16::MAX)
        {
            due.retain(|one| matches!(one.state, State::Validate(_)));
            let request = connection.send(&request::epochs(&due), version)?;
            let call = Call { broker: connection.broker().clone(), api: "OffsetForLeaderEpoch", version };
            (call, Duration::ZERO, Request::Epochs(request))
        } else {
            // Nothing to validate, or a broker that cannot: then epochs are of no use.
            for partition in due.iter_mut().filter(|one| one.state != State::Fetch) {
                partition.epoch = -1;
                partition.is_valid();
            }
            // Who waited longest for records comes first.
            due.sort_by_key(|one| one.turn);
            let any = |is: fn(&Partition) -> bool| due.iter().any(|one| is(one));
            let most = if any(|one| one.is_sent_away) {
                request::MOST_LED
            } else if any(|one| one.topic_id.is_nil()) {
                request::MOST_NAMED
            } else {
                request::MOST
            };
            let version = connection.version::<FetchRequest>(most)?;
            let request = connection.send(&request::fetch(&due, &self.settings, version), version)?;
            let call = Call { broker: connection.broker().clone(), api: "Fetch", version };
            (call, self.settings.max_wait, Request::Fetch(request))
        };
        self.turn += 1;
        due.iter_mut().for_each(|partition: &mut &mut Partition| partition.asked = Some(self.turn));
        let due = self.clock.now() + self.cluster.options().request_timeout + wait;
        link.asked = Some(Asked { request, serial: self.turn, due, call });
        Ok(())
    }

    /// A connection failed. Its partitions look for their leaders again; it is opened again at once for the first
    /// time, then later and later.
    ///
    /// # Errors
    /// The error itself, if another try cannot help.
    pub(super) fn fail(&mut self, id: i32, error: Error) -> Result<()> {
        if error.retry() == Retry::Permanent {
            return Err(error);
        }
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.close();
        link.failures += 1;
        let wait = if link.failures > 1 { link.delays.next() } else { None };
        link.rest_until = wait.map(|wait| Instant::now() + wait);
        let what = format_args!("fetching from broker {id}");
        self.cluster.again(&what, &error, link.failures, wait.unwrap_or_default());
        let trouble: Arc<str> = error.to_string().into();
        for partition in self.partitions.values_mut().filter(|one| one.is_led_by(id)) {
            partition.suffer(&trouble);
        }
        Ok(())
    }
}
