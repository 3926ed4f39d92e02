//! Waiting for an answer that may take minutes, without losing the connection when there is none yet; and
//! taking back what was not sent yet.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

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

    /// From now on, closing drops what the system has not sent yet, and tells the broker to drop what it has not
    /// read yet. Else a request whose answer did not come in time may still arrive long after.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match &self.stream {
            Some((socket, _)) => Ok(set_socket_linger(socket, Some(Duration::ZERO))?),
            None => Ok(()),
        }
    }
}
