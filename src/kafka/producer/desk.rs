//! [`Desk`]: asks one coordinator, or any broker, until it answers something that counts.
//!
//! A coordinator that moved is found again. An answer that was lost leaves it open whether the request was done:
//! each request here may be sent twice, and whoever judges the answer is told that it was.

use std::time::Instant;

use super::super::cluster::{Cluster, Coordinates, endless};
use super::super::connection::Connection;
use crate::error::Retry;
use crate::kafka::code::Code;
use crate::kafka::error::{Call, Error, Result};
use crate::kafka::wire::Api;
use crate::retry::Policy;

/// How long and with which delays is asked.
pub(super) struct Patience {
    pub cluster: Cluster,
    pub retry: Policy,
    pub deadline: Instant,
}

/// Whom is asked, with the connection that is kept.
pub(super) struct Desk {
    coordinator: Option<(Coordinates, String)>,
    connection: Option<Connection>,
}

/// What an answer means.
pub(super) enum Answer<T> {
    /// That is it.
    Done(T),
    /// Ask again.
    Again(Code),
    /// Find the coordinator again, and ask it.
    Moved(Code),
    /// Asking again is of no use.
    Failed(Error),
}

/// Whether the request may have been done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Never,
    Perhaps,
}

/// What codes mean to every request: `None` for success and for what is the request's own.
pub(super) fn usual<T>(code: Code) -> Option<Answer<T>> {
    match code.0 {
        0 => None,
        // No such coordinator, or not any more; a coordinator that cannot finish in time may be cut off.
        7 | 15 | 16 => Some(Answer::Moved(code)),
        _ if code.retry() == Retry::Transient => Some(Answer::Again(code)),
        _ => None,
    }
}

impl Desk {
    /// Any broker.
    pub fn any() -> Self {
        Desk { coordinator: None, connection: None }
    }

    /// The coordinator of `key`.
    pub fn of(kind: Coordinates, key: &str) -> Self {
        Desk { coordinator: Some((kind, key.to_string())), connection: None }
    }

    /// The finalized level of a feature of the cluster, as the connection that was last opened told it.
    pub fn feature(&self, name: &str) -> Option<i16> {
        self.connection.as_ref()?.feature(name)
    }

    /// The connection, opened if need be.
    fn connect(&mut self, patience: &Patience) -> Result<&mut Connection> {
        let cluster = &patience.cluster;
        // Whoever gave no answer to others will hardly give one here, and may be no coordinator any more.
        let is_good = |kept: &Connection| kept.is_open() && !cluster.is_silent(kept.broker());
        if !self.connection.as_ref().is_some_and(is_good) {
            self.connection = Some(match &self.coordinator {
                Some((kind, key)) => cluster.coordinator(*kind, key, patience.deadline)?,
                None => cluster.connect_any(patience.deadline)?,
            });
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    /// Asks in the highest version up to `most` until `judge` is content. Blocks until about the deadline.
    ///
    /// # Errors
    /// What `judge` says; [`Error::GaveUp`] with the last error at the deadline.
    pub fn ask<R: Api, T>(
        &mut self,
        patience: &Patience,
        most: i16,
        request: impl Fn(i16) -> R,
        mut judge: impl FnMut(Call, R::Answer, Before) -> Answer<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        let (mut before, mut tries) = (Before::Never, 0);
        let mut delays = endless(patience.retry);
        loop {
            let error = match self.attempt(patience, most, &request) {
                Ok((call, answer)) => match judge(call.clone(), answer, before) {
                    Answer::Done(done) => return Ok(done),
                    Answer::Failed(error) => return Err(error),
                    Answer::Again(code) => Error::Refused { call, code },
                    Answer::Moved(code) => {
                        // What it wrote down before it could not go on, the next coordinator finishes: nothing is sure any more,
                        // and what ends a try for good ends the run.
                        before = Before::Perhaps;
                        self.connection = None;
                        Error::Refused { call, code }
                    }
                },
                Err(error @ Error::GaveUp { .. }) => return Err(error),
                Err(error) if error.retry() == Retry::Transient => {
                    if error.is_ambiguous() {
                        before = Before::Perhaps;
                    }
                    self.connection = None;
                    error
                }
                Err(error) => return Err(error),
            };
            let delay = delays.next().unwrap_or(patience.retry.max_delay);
            if Instant::now() + delay >= patience.deadline {
                let (what, after) = (R::NAME.to_string(), begun.elapsed());
                return Err(Error::GaveUp { what, after, last: Box::new(error) });
            }
            tries += 1;
            patience.cluster.again(&R::NAME, &error, tries, delay);
            patience.cluster.stop().sleep(delay).map_err(|_| Error::HungUp)?;
        }
    }

    fn attempt<R: Api>(
        &mut self,
        patience: &Patience,
        most: i16,
        request: &impl Fn(i16) -> R,
    ) -> Result<(Call, R::Answer)> {
        let cluster = patience.cluster.clone();
        let left = || patience.deadline.saturating_duration_since(Instant::now());
        let connection = self.connect(patience)?;
        let wait = connection.throttle().min(left());
        cluster.stop().sleep(wait).map_err(|_| Error::HungUp)?;
        let version = connection.version::<R>(most)?;
        let call = Call { broker: connection.broker().clone(), api: R::NAME, version };
        let timeout = left().min(cluster.options().request_timeout);
        let answer = connection.call_within(&request(version), version, timeout)?;
        cluster.trust(&call.broker);
        Ok((call, answer))
    }
}
