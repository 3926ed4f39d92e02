//! [`Server`]: HTTP/1.1 for the status, in one thread that waits for all connections at once.
//!
//! No connection has a thread, so a slow client holds none: it has a deadline of a few seconds, a place among
//! thirty-two, and a few KiB. Where all places are taken, the oldest connection goes. One request a connection: a
//! scrape every fifteen seconds gains nothing from more, and there is nothing to time out in between. A library
//! server would bring threads of its own (tiny_http has one a connection, without a limit of time).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sha2::{Digest, Sha256};

use super::request::{self, HEAD, Hosts, Refusal, Request};
use super::{Board, Doing};
use crate::error::{Error, Result};

/// Connections at a time.
const MOST: usize = 32;
/// From connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a request is read and dropped, so that the answer is not lost with an early close.
const DRAINED: usize = 64 << 10;
/// So long nobody is accepted when no more files can be opened.
const SPENT: Duration = Duration::from_millis(100);

const PAGE: &str = include_str!("page.html");

/// Listens, and serves the status once it is told to.
pub struct Server {
    listener: TcpListener,
    hosts: Hosts,
    policy: String,
    wake: UnixStream,
}

/// Ends [`Server::serve`] when it is dropped.
pub struct Close(#[allow(dead_code, reason = "closed when it is dropped")] UnixStream);

impl Server {
    /// Listens on `address`, `HOST:PORT`. The page and the JSON are served to those who ask for an address,
    /// `localhost`, the host of `address`, or one of `hosts`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(address: &str, hosts: &[String]) -> Result<(Self, Close)> {
        let failed = |error| Error::io("listen on", address, error);
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (wake, close) = UnixStream::pair().map_err(failed)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let hosts = Hosts(hosts.iter().cloned().chain([host.to_owned()]).collect());
        Ok((Server { listener, hosts, policy: policy(), wake }, Close(close)))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::io("listen on", "socket", error))
    }

    /// Serves until its [`Close`] is dropped. Blocks.
    pub fn serve(&self, board: &Board) {
        let mut open: Vec<Connection> = Vec::new();
        loop {
            let now = Instant::now();
            open.retain(|connection| connection.deadline > now);
            let ready = match self.wait(&open) {
                Ok(ready) => ready,
                Err(error) => {
                    log::error!("the status is no longer served: {error}");
                    return;
                }
            };
            if ready[0] {
                return;
            }
            let mut index = 0;
            open.retain_mut(|connection| {
                index += 1;
                !ready[index + 1] || connection.proceed(|bytes| self.answer(bytes, board)).is_ok()
            });
            if ready[1] {
                self.accept(&mut open);
            }
        }
    }

    /// What is ready: the end, the listener, and each connection. An empty answer of the system is a deadline.
    fn wait(&self, open: &[Connection]) -> io::Result<Vec<bool>> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        fds.extend(open.iter().map(|it| PollFd::from_borrowed_fd(it.stream.as_fd(), it.wants())));
        let next = open.iter().map(|it| it.deadline).min();
        let left = next.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn accept(&self, open: &mut Vec<Connection>) {
        loop {
            let accepted = self.listener.accept();
            let spent = matches!(&accepted, Err(error) if is_out_of_files(error));
            if (spent || (accepted.is_ok() && open.len() == MOST)) && !open.is_empty() {
                // The oldest: they stand in the order in which they came.
                open.remove(0);
            }
            match accepted {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => open.push(Connection::new(stream)),
                Ok(_) => {}
                // Who waits is still there, and would be asked about again at once.
                Err(_) if spent => return std::thread::sleep(SPENT),
                Err(_) => return,
            }
        }
    }

    fn answer(&self, bytes: &[u8], board: &Board) -> Option<Vec<u8>> {
        let (request, head_only) = request::read(bytes, &self.hosts)?;
        Some(match request {
            Request::Metrics => {
                self.response(200, "text/plain; version=0.0.4; charset=utf-8", &board.text(), head_only)
            }
            Request::Live => self.plain(200, "live\n", head_only),
            Request::Ready => {
                let doing = board.doing();
                let code = if doing == Doing::Running { 200 } else { 503 };
                self.plain(code, &format!("{}\n", doing.name()), head_only)
            }
            Request::Status => self.response(200, "application/json", &board.json(), head_only),
            Request::Page => self.response(200, "text/html; charset=utf-8", PAGE, head_only),
            Request::Refused(refusal) => {
                let (code, text) = refused(refusal);
                self.plain(code, text, head_only)
            }
        })
    }

    fn plain(&self, code: u16, text: &str, head_only: bool) -> Vec<u8> {
        self.response(code, "text/plain; charset=utf-8", text, head_only)
    }

    fn response(&self, code: u16, kind: &str, body: &str, head_only: bool) -> Vec<u8> {
        let allow = if code == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut out = format!(
            "HTTP/1.1 {code} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: {}\r\n\r\n",
            reason(code),
            body.len(),
            self.policy,
        );
        if !head_only {
            out.push_str(body);
        }
        out.into_bytes()
    }
}

fn refused(refusal: Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::Malformed => (400, "this is no request\n"),
        Refusal::TooLong => (431, "the request's head is too long\n"),
        Refusal::NotFound => (404, "expected /, /status, /metrics, /health or /ready\n"),
        Refusal::Method => (405, "expected GET or HEAD\n"),
        Refusal::Host => (
            421,
            "this name is not served; ask for the address, for localhost, or add the name to status.hosts\n",
        ),
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

/// What a browser may do with an answer: run the page's own script and style, and ask this server.
fn policy() -> String {
    let hash = |tag: &str| {
        let inner =
            PAGE.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        inner.map_or_else(String::new, |(inner, _)| STANDARD.encode(Sha256::digest(inner)))
    };
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; script-src 'sha256-{}'; style-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
}

/// One client.
struct Connection {
    stream: TcpStream,
    deadline: Instant,
    head: Vec<u8>,
    answer: Option<Vec<u8>>,
    sent: usize,
    drained: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let deadline = Instant::now() + PATIENCE;
        Connection { stream, deadline, head: Vec::new(), answer: None, sent: 0, drained: 0 }
    }

    fn is_sent(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| self.sent == answer.len())
    }

    fn wants(&self) -> PollFlags {
        if self.answer.is_some() && !self.is_sent() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// Goes on as far as it can without waiting.
    ///
    /// # Errors
    /// The connection is over, well or badly.
    fn proceed(&mut self, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
        match self.try_proceed(answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            result => result,
        }
    }

    fn try_proceed(&mut self, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
        let mut bytes = [0; 1024];
        while self.answer.is_none() {
            let room = bytes.len().min(HEAD - self.head.len());
            let count = self.stream.read(&mut bytes[..room])?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.head.extend_from_slice(&bytes[..count]);
            self.answer = answer(&self.head);
        }
        while let Some(rest) =
            self.answer.as_ref().map(|answer| &answer[self.sent..]).filter(|rest| !rest.is_empty())
        {
            self.sent += self.stream.write(rest)?;
            if self.is_sent() {
                self.stream.shutdown(Shutdown::Write)?;
            }
        }
        // What the client still sends is read: closing over it would take the answer back.
        while self.drained < DRAINED {
            match self.stream.read(&mut bytes)? {
                0 => break,
                count => self.drained += count,
            }
        }
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// Whether this process, or the machine, can open no more files.
fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
