//! Waiting for an answer that may take minutes, without losing the connection when there is none yet.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Connection;

impl Connection {
    /// Whether the broker has sent something, or closed. Blocks for at most `timeout`, or until a hang-up. Only
    /// when all earlier answers were received: what TLS holds back of an answer is not seen.
    pub(crate) fn is_answered(&self, timeout: Duration) -> io::Result<bool> {
        let Some((socket, _)) = &self.stream else { return Ok(true) };
        let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
