//! [`Socket`]: a TCP connection, with or without TLS, on which every read and write has one common deadline.
//!
//! Timeouts of the socket are set before each system call to what is left until the deadline: a peer that sends
//! a byte now and then, or a TLS record that never ends, cannot extend it. Connecting does not use
//! `TcpStream::connect_timeout` but a poll in slices, so that a hang-up is seen while a black hole is dialled.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, RecvFlags, SocketType, connect, recv, socket, sockopt};

use super::address::Address;
use super::hangup::{Hangup, Place};
use crate::kafka::error::{Error, Result};

/// How soon a hang-up is seen while connecting.
const SLICE: Duration = Duration::from_millis(50);

/// TCP with a deadline.
pub(crate) struct Tcp {
    stream: TcpStream,
    pub(crate) deadline: Instant,
    /// Whether reads wait.
    reads: Reads,
}

/// Whether reads wait for bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Until the deadline.
    Wait,
    /// Not at all: without bytes they fail with `WouldBlock`.
    Look,
}

/// The stream that requests and answers go over.
pub(crate) enum Socket {
    /// Without TLS.
    Plain(Tcp),
    /// With TLS.
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Tcp>>),
}

impl Tcp {
    /// Connects to the first of all addresses of `broker` that answers, each within `timeout`.
    pub(crate) fn connect(broker: &Arc<Address>, timeout: Duration, hangup: &Hangup) -> Result<(Tcp, Place)> {
        let resolve = |source| Error::Resolve { broker: broker.clone(), source };
        let addresses: Vec<_> = (&broker.host[..], broker.port).to_socket_addrs().map_err(resolve)?.collect();
        let mut tried = Vec::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            hangup.check()?;
            match dial(address, timeout, hangup) {
                Ok(stream) => {
                    let tcp = Tcp { stream, deadline: Instant::now() + timeout, reads: Reads::Wait };
                    let place = tcp.prepare(hangup).map_err(|source| Error::Connect {
                        broker: broker.clone(),
                        tried: address.to_string(),
                        source,
                    })?;
                    return Ok((tcp, place));
                }
                Err(error) => {
                    tried.push(format!("{address}: {error}"));
                    last = error;
                }
            }
        }
        hangup.check()?;
        let tried = if tried.is_empty() { last.to_string() } else { tried.join(", ") };
        Err(Error::Connect { broker: broker.clone(), tried, source: last })
    }

    fn prepare(&self, hangup: &Hangup) -> io::Result<Place> {
        self.stream.set_nodelay(true)?;
        // A peer that vanished without a word is noticed on idle connections too.
        sockopt::set_socket_keepalive(&self.stream, true)?;
        hangup.enter(&self.stream)
    }

    /// What is left until the deadline.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

fn dial(address: SocketAddr, timeout: Duration, hangup: &Hangup) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Not by flags of the call, which not every system has.
    let socket = socket(family, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => wait(&socket, Instant::now() + timeout, hangup)?,
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Waits until a connection is made or refused.
fn wait(socket: &impl AsFd, deadline: Instant, hangup: &Hangup) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        if hangup.is_down() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let slice = left.min(SLICE);
        let slice = Timespec { tv_sec: 0, tv_nsec: slice.as_nanos() as _ };
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&slice)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A timeout of the socket, whichever way the system spells it.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Tcp {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.reads == Reads::Look {
            let (n, _) = recv(&self.stream, out, RecvFlags::DONTWAIT)?;
            return Ok(n);
        }
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(out).map_err(timed_out)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Plain(tcp) => tcp.stream.as_fd(),
            Socket::Tls(tls) => tls.sock.stream.as_fd(),
        }
    }
}

impl Socket {
    /// Until when reads and writes may take.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Socket::Plain(tcp) => tcp.deadline = deadline,
            Socket::Tls(tls) => tls.sock.deadline = deadline,
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Plain(tcp) => tcp.write_all(bytes),
            Socket::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()
            }
        }
    }

    /// Whether reads wait, from now on.
    pub(crate) fn set_reads(&mut self, reads: Reads) {
        match self {
            Socket::Plain(tcp) => tcp.reads = reads,
            Socket::Tls(tls) => tls.sock.reads = reads,
        }
    }

    /// Reads at least one byte.
    pub(crate) fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Socket::Plain(tcp) => tcp.read(out),
                Socket::Tls(tls) => tls.read(out),
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// What to poll.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Plain(tcp) => tcp.stream.as_fd(),
            Socket::Tls(tls) => tls.sock.stream.as_fd(),
        }
    }

    /// Whether bytes have left the socket that nobody has read: polling it would not tell.
    pub(crate) fn has_buffered(&mut self) -> bool {
        match self {
            Socket::Plain(_) => false,
            Socket::Tls(tls) => !tls.conn.wants_read(),
        }
    }
}
