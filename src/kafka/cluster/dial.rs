//! Connections of a [`Cluster`]: the control connection, and new ones for work.
//!
//! Whom to dial: the known brokers, then the bootstrap list, each in random order, so that many clients do not
//! all press on the first broker of a list; last whoever gave no answer of late. Once the control connection is as old
//! as metadata may be, another broker is asked in place of this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Cluster, SERVICE, random};
use crate::error::Retry;
use crate::kafka::connection::Connection;
use crate::kafka::connection::address::Address;
use crate::kafka::error::{Error, Result};

/// How long another broker may take to be connected to, at most, while there is one that answers.
const DRAW: Duration = Duration::from_secs(5);

/// The control connection.
pub(super) struct Control {
    connection: Connection,
    /// When another is drawn; `None`: never.
    draw_at: Option<Instant>,
}

impl Control {
    fn new(connection: Connection, age: Duration) -> Self {
        Control { connection, draw_at: Instant::now().checked_add(age) }
    }

    fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    fn is_old(&self) -> bool {
        self.draw_at.is_some_and(|at| at <= Instant::now())
    }
}

impl Cluster {
    /// A new connection to this broker. Blocks as [`Connection::open`] does. Tries once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the cluster did not list it: refresh and look again. Else see
    /// [`Connection::open`].
    pub fn connect(&self, broker: i32) -> Result<Connection> {
        Connection::open(&self.address(broker)?, &self.0.options, &self.0.hangup)
    }

    /// The same, by about `deadline`.
    pub(crate) fn connect_by(&self, broker: i32, deadline: Instant) -> Result<Connection> {
        self.dial(&self.address(broker)?, deadline)
    }

    fn address(&self, broker: i32) -> Result<Arc<Address>> {
        let address = self.0.known.lock().brokers.get(&broker).cloned();
        address.ok_or_else(|| Error::Unavailable(format!("the cluster lists no broker {broker}")))
    }

    /// A new connection to any broker, known or of the bootstrap list. Blocks until about `deadline`.
    ///
    /// # Errors
    /// [`Error::GaveUp`] with the last error at the deadline; at once what another try cannot help.
    pub fn connect_any(&self, deadline: Instant) -> Result<Connection> {
        self.persist(|| "connecting to any broker".into(), deadline, || self.dial_any(None, deadline))
    }

    /// Opens a connection to this address by about `deadline`.
    pub(super) fn dial(&self, broker: &Arc<Address>, deadline: Instant) -> Result<Connection> {
        Connection::open_by(broker, &self.0.options, &self.0.hangup, deadline)
    }

    /// The first of all candidates that takes a connection; `but` comes last.
    fn dial_any(&self, but: Option<&Address>, deadline: Instant) -> Result<Connection> {
        let mut last: Option<Error> = None;
        let mut candidates = self.candidates();
        // Stable: the others stay in their random order.
        candidates.sort_by_key(|broker| (self.is_silent(broker), but.is_some_and(|but| **broker == *but)));
        for broker in candidates {
            if last.is_some() && Instant::now() >= deadline {
                break;
            }
            if let Some(error) = &last {
                self.0.options.services.retry(SERVICE, error.kind());
                log::debug!("{error}; trying {broker}");
            }
            match self.dial(&broker, deadline) {
                Err(error) if error.retry() == Retry::Transient => {
                    self.suspect(&error);
                    last = Some(error);
                }
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| Error::Config("kafka.brokers names no broker".into())))
    }

    fn candidates(&self) -> Vec<Arc<Address>> {
        let mut known: Vec<_> = self.0.known.lock().brokers.values().cloned().collect();
        shuffle(&mut known);
        let mut others = self.0.bootstrap.clone();
        others.retain(|broker| !known.contains(broker));
        shuffle(&mut others);
        known.append(&mut others);
        known
    }

    /// Asks on the control connection, which is opened if need be. A connection that was left open by an earlier
    /// question may have been closed by the broker since: then a new one is asked at once. Waits until
    /// `deadline` for other threads that ask.
    pub(super) fn ask<T>(
        &self,
        deadline: Instant,
        mut question: impl FnMut(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let Some(mut control) = self.0.control.try_lock_until(deadline) else {
            return Err(Error::Unavailable("other questions to the cluster are not answered".into()));
        };
        let is_doubted = self.0.doubted.swap(false, Ordering::Relaxed);
        if let Some(mut kept) = control.take_if(|kept| kept.is_open()) {
            if is_doubted || kept.is_old() || self.is_silent(kept.connection.broker()) {
                kept = self.draw(kept, deadline)?;
            }
            let throttle = kept.connection.throttle();
            self.sleep(throttle.min(deadline.saturating_duration_since(Instant::now())))?;
            match question(&mut kept.connection) {
                Err(Error::Io { .. } | Error::Closed { .. }) => {}
                outcome => return self.keep(&mut control, kept, outcome),
            }
        }
        let closed = control.as_ref().filter(|_| is_doubted).map(|kept| kept.connection.broker().clone());
        let mut fresh = Control::new(self.dial_any(closed.as_deref(), deadline)?, self.metadata_age());
        let outcome = question(&mut fresh.connection);
        self.keep(&mut control, fresh, outcome)
    }

    /// After a question: keeps the connection for the next one, if it is still good.
    fn keep<T>(&self, control: &mut Option<Control>, asked: Control, outcome: Result<T>) -> Result<T> {
        if asked.is_open() {
            self.trust(asked.connection.broker());
            *control = Some(asked);
        }
        outcome
    }

    /// A connection to another broker in place of this one, or to the same if no other can be had. If none can be had
    /// in time, this one, which still answers, is asked for a while longer.
    fn draw(&self, old: Control, deadline: Instant) -> Result<Control> {
        let (now, age) = (Instant::now(), self.metadata_age());
        // The question itself needs time too, on whichever connection.
        let within = (deadline.saturating_duration_since(now) / 4 * 3).min(DRAW);
        match self.dial_any(Some(old.connection.broker()), now + within) {
            Ok(connection) => {
                log::debug!("{} is asked in place of {}", connection.broker(), old.connection.broker());
                Ok(Control::new(connection, age))
            }
            Err(Error::HungUp) => Err(Error::HungUp),
            Err(error) => {
                log::debug!("{} is asked on: {error}", old.connection.broker());
                Ok(Control::new(old.connection, age / 10))
            }
        }
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, (random() % (last as u64 + 1)) as usize);
    }
}
