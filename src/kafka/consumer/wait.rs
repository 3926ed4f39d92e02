//! Waiting: for bytes on any socket, or for the next thing to do.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Fetcher;
use super::link::Request;
use crate::kafka::error::{Error, Result};

/// The shortest wait for something that should have been done already.
const LEAST: Duration = Duration::from_millis(1);

impl Fetcher {
    /// Waits until something comes, something is to be done, or `until`; then takes what came. If `until` is not in the
    /// future, it only looks.
    pub(super) fn wait(&mut self, until: Instant) -> Result<()> {
        #[cfg(test)]
        {
            self.waits += 1;
        }
        let now = Instant::now();
        let mut timeout = until.saturating_duration_since(now);
        if !timeout.is_zero() {
            timeout = timeout.min(self.next_thing(now).max(LEAST));
        }
        let waiting: Vec<i32> =
            self.links.iter().filter(|(_, link)| link.asked.is_some()).map(|(id, _)| *id).collect();
        for id in self.readable(&waiting, timeout)? {
            self.hear(id)?;
        }
        Ok(())
    }

    /// Which of these brokers have something to read.
    fn readable(&mut self, waiting: &[i32], mut timeout: Duration) -> Result<Vec<i32>> {
        let mut has_buffered = vec![false; waiting.len()];
        for (id, has) in waiting.iter().zip(&mut has_buffered) {
            let connection = self.links.get_mut(id).and_then(|link| link.connection.as_mut());
            *has = connection.is_some_and(|connection| connection.has_buffered());
            if *has {
                timeout = Duration::ZERO;
            }
        }
        let mut sockets = Vec::with_capacity(waiting.len());
        let mut places = Vec::with_capacity(waiting.len());
        for (place, id) in waiting.iter().enumerate() {
            let connection = self.links.get(id).and_then(|link| link.connection.as_ref());
            if let Some(socket) = connection.and_then(|connection| connection.as_fd()) {
                sockets.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
                places.push(place);
            }
        }
        if sockets.is_empty() {
            self.cluster.sleep(timeout)?;
            return Ok(Vec::new());
        }
        let timespec = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut sockets, Some(&timespec)) {
            // A signal: the caller's loop looks at the time.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Unavailable(format!("poll failed: {error}"))),
        }
        let came = places
            .iter()
            .zip(&sockets)
            .filter(|(place, socket)| has_buffered[**place] || !socket.revents().is_empty());
        Ok(came.map(|(place, _)| waiting[*place]).collect())
    }

    /// Reads what came from this broker. If that is a whole answer, the next request goes out at once.
    fn hear(&mut self, id: i32) -> Result<()> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let (Some(connection), Some(asked)) = (link.connection.as_mut(), &link.asked) else { return Ok(()) };
        let serial = asked.serial;
        match &asked.request {
            Request::Fetch(pending) => match connection.look(pending) {
                Ok(None) => return Ok(()),
                Ok(Some(answer)) => {
                    link.recover();
                    self.take_fetch(serial, answer);
                }
                Err(error) => return self.fail(id, error),
            },
            Request::Epochs(pending) => match connection.look(pending) {
                Ok(None) => return Ok(()),
                Ok(Some(answer)) => {
                    link.recover();
                    self.take_epochs(serial, answer);
                }
                Err(error) => return self.fail(id, error),
            },
        }
        self.serve(id)
    }

    /// How long until something is to be done besides reading answers.
    fn next_thing(&self, now: Instant) -> Duration {
        let clock = self.clock.now();
        let until = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let mut next = self.news_due_at().map_or(Duration::MAX, |due| due.saturating_duration_since(now));
        for partition in self.partitions.values().filter(|one| one.is_active()) {
            let patience = partition.heard.saturating_add(self.settings.give_up_after);
            next = next.min(patience.saturating_sub(clock));
            if let Some(rest_until) = partition.leader_wanted_at() {
                next = next.min(until(rest_until.max(Some(self.refresh.not_before))));
            }
        }
        for (id, link) in &self.links {
            match &link.asked {
                Some(asked) => next = next.min(asked.due.saturating_sub(clock)),
                None if self.partitions.values().any(|one| one.is_due_at(*id)) => {
                    next = next.min(until(link.rest_until));
                }
                None => {}
            }
        }
        next
    }
}
