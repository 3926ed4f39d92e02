//! [`Connection`]: one blocking connection to one broker. Requests go out, answers come back in order.
//!
//! Opening it connects, encrypts, learns the broker's versions and logs in. Afterwards each request has a
//! deadline of its own. After any error of the stream (cut, timeout, an answer that is not understood) the
//! connection is closed and stays so: what comes next on it could be the answer to something else. Nothing is
//! tried again here; [`crate::kafka::error::Error::retry`] says what the layers above may.

pub mod address;
pub mod hangup;
pub mod options;
mod buffer;
mod login;
mod ready;
mod socket;
mod versions;
#[cfg(test)]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::error::{Call, Error, Result};
use super::wire::Api;
use super::wire::frame;
use address::Address;
use buffer::FrameBuffer;
use hangup::{Hangup, Place};
use options::Options;
use socket::{Reads, Socket, Tcp};
use versions::Versions;

/// The longest time for which a broker is left alone because it said so. Brokers bound it by the window of their
/// quotas, 11 s by default; one that says weeks is wrong, and would hang a run.
const LONGEST_THROTTLE: Duration = Duration::from_secs(60);

/// One connection to one broker. Dropping it closes it.
pub struct Connection {
    broker: Arc<Address>,
    options: Arc<Options>,
    hangup: Hangup,
    stream: Option<(Socket, Place)>,
    client_id: StrBytes,
    versions: Versions,
    next_id: i32,
    waiting: u32,
    answered: Answered,
    out: Vec<u8>,
    buffer: FrameBuffer,
    throttled_until: Option<Instant>,
    login_again_at: Option<Instant>,
}

/// What a broker has answered so far: a listener that expects something else closes at a telling moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    Nothing,
    Versions,
    Requests,
}

/// A request that was sent; its answer must be received in the order of sending.
#[must_use = "an answer that is not received is taken for that of the next request"]
pub struct Pending<R> {
    id: i32,
    version: i16,
    request: PhantomData<fn(R)>,
}

impl Connection {
    /// Connects, encrypts, agrees on versions and logs in. Blocks for at most the connect timeout for each
    /// address of the host, the same for TLS, and the request timeout for each request of the handshake.
    ///
    /// # Errors
    /// Whatever fails on the way; see [`Error::retry`].
    pub fn open(broker: &Arc<Address>, options: &Arc<Options>, hangup: &Hangup) -> Result<Self> {
        options.check()?;
        hangup.check()?;
        let (tcp, place) = Tcp::connect(broker, options.connect_timeout, hangup)?;
        let mut connection = Connection {
            broker: broker.clone(),
            options: options.clone(),
            hangup: hangup.clone(),
            stream: None,
            client_id: StrBytes::from_string(options.client_id.clone()),
            versions: Versions::default(),
            next_id: 0,
            waiting: 0,
            answered: Answered::Nothing,
            out: Vec::new(),
            buffer: FrameBuffer::default(),
            throttled_until: None,
            login_again_at: None,
        };
        let socket = connection.encrypt(tcp)?;
        connection.stream = Some((socket, place));
        connection.learn_versions()?;
        connection.login()?;
        Ok(connection)
    }

    /// The same, by `deadline` at the latest if that comes before the timeouts of `options`, give or take the
    /// number of the host's addresses and of the handshake's requests.
    ///
    /// # Errors
    /// See [`Connection::open`].
    pub(crate) fn open_by(
        broker: &Arc<Address>,
        options: &Arc<Options>,
        hangup: &Hangup,
        deadline: Instant,
    ) -> Result<Self> {
        // Never zero, which would be no timeout that a socket takes.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if left >= options.connect_timeout.max(options.request_timeout) {
            return Connection::open(broker, options, hangup);
        }
        let hurried = Options {
            connect_timeout: options.connect_timeout.min(left),
            request_timeout: options.request_timeout.min(left),
            ..Options::clone(options)
        };
        let mut connection = Connection::open(broker, &Arc::new(hurried), hangup)?;
        connection.options = options.clone();
        Ok(connection)
    }

    fn encrypt(&self, mut tcp: Tcp) -> Result<Socket> {
        let Some(tls) = &self.options.tls else { return Ok(Socket::Plain(tcp)) };
        let failed = |source| Error::Tls { broker: self.broker.clone(), source };
        let mut session = tls.connection(&self.broker.host).map_err(failed)?;
        tcp.deadline = Instant::now() + self.options.connect_timeout;
        while session.is_handshaking() {
            session.complete_io(&mut tcp).map_err(|error| {
                let call = Call { broker: self.broker.clone(), api: "TLS handshake", version: -1 };
                self.explain(call, self.options.connect_timeout, error)
            })?;
        }
        Ok(Socket::Tls(Box::new(rustls::StreamOwned::new(session, tcp))))
    }

    /// The broker's address.
    pub fn broker(&self) -> &Arc<Address> {
        &self.broker
    }

    /// The highest version of `R` that both sides have, and at most `most`.
    ///
    /// # Errors
    /// [`Error::Version`] if there is none.
    pub fn version<R: Api>(&self, most: i16) -> Result<i16> {
        self.versions.choose::<R>(&self.broker, most)
    }

    /// How much longer the broker asked not to be asked (KIP-219), a minute at most. Whoever sends next should wait
    /// that long.
    pub fn throttle(&self) -> Duration {
        self.throttled_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Whether it can still be used.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Closes it; a second time does nothing.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Asks in the highest version that both sides have and waits for the answer, for at most the request
    /// timeout.
    ///
    /// # Errors
    /// See [`Error`]. Error codes inside the answer are the caller's.
    pub fn call<R: Api>(&mut self, request: &R) -> Result<R::Answer> {
        let version = self.version::<R>(i16::MAX)?;
        self.call_within(request, version, self.options.request_timeout)
    }

    /// The same, in this version, for at most `timeout`: for requests that a broker holds on purpose.
    ///
    /// # Errors
    /// See [`Connection::call`].
    pub fn call_within<R: Api>(&mut self, request: &R, version: i16, timeout: Duration) -> Result<R::Answer> {
        let deadline = Instant::now() + timeout;
        self.login_if_due()?;
        let pending = self.send_by(request, version, deadline)?;
        self.receive(pending, deadline.saturating_duration_since(Instant::now()))
    }

    /// Sends a request without waiting for its answer. Logs in anew first, where the login is about to expire
    /// and no answer is waited for. Blocks for at most the request timeout.
    ///
    /// # Errors
    /// See [`Connection::call`].
    pub fn send<R: Api>(&mut self, request: &R, version: i16) -> Result<Pending<R>> {
        self.login_if_due()?;
        self.send_by(request, version, Instant::now() + self.options.request_timeout)
    }

    /// Whether the login is about to expire. Whoever always has a request on its way must then receive all
    /// answers before it sends on, or the broker closes the connection.
    pub fn is_login_due(&self) -> bool {
        self.login_again_at.is_some_and(|at| at <= Instant::now())
    }

    fn login_if_due(&mut self) -> Result<()> {
        if self.waiting == 0 && self.is_login_due() { self.login() } else { Ok(()) }
    }

    /// One request of the handshake: in this version, within the request timeout, never logging in first.
    fn shake<R: Api>(&mut self, request: &R, version: i16) -> Result<Pending<R>> {
        self.send_by(request, version, Instant::now() + self.options.request_timeout)
    }

    fn send_by<R: Api>(&mut self, request: &R, version: i16, deadline: Instant) -> Result<Pending<R>> {
        let call = self.name::<R>(version);
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.out.clear();
        // Nothing was sent yet: an unencodable request leaves the connection as it is.
        frame::encode(request, version, id, &self.client_id, &mut self.out)
            .map_err(|fault| Error::Frame { call: call.clone(), fault })?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let out = std::mem::take(&mut self.out);
        let done = self.stream(deadline).map(|socket| socket.write_all(&out));
        self.out = out;
        done?.map_err(|error| self.fail(call, timeout, error))?;
        self.waiting += 1;
        Ok(Pending { id, version, request: PhantomData })
    }

    /// Waits for the answer to a request, for at most `timeout`.
    ///
    /// # Errors
    /// See [`Connection::call`].
    pub fn receive<R: Api>(&mut self, pending: Pending<R>, timeout: Duration) -> Result<R::Answer> {
        let frame = self.receive_frame(&pending, timeout)?;
        self.understand(&pending, frame)
    }

    /// Reads what has arrived of the answer to a request, and returns it once it is whole. Does not wait.
    ///
    /// # Errors
    /// See [`Connection::call`].
    pub(crate) fn look<R: Api>(&mut self, pending: &Pending<R>) -> Result<Option<R::Answer>> {
        match self.read_frame(pending, Reads::Look, Duration::ZERO)? {
            Some(frame) => self.understand(pending, frame).map(Some),
            None => Ok(None),
        }
    }

    /// What to poll for answers; `None` if it is closed.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|(socket, _)| socket.as_fd())
    }

    /// Whether [`Connection::look`] may find something although a poll says that nothing has come.
    pub(crate) fn has_buffered(&mut self) -> bool {
        self.stream.as_mut().is_some_and(|(socket, _)| socket.has_buffered())
    }

    fn understand<R: Api>(&mut self, pending: &Pending<R>, frame: Bytes) -> Result<R::Answer> {
        let answer = frame::decode::<R>(frame, pending.version).map_err(|fault| {
            self.close();
            Error::Frame { call: self.name::<R>(pending.version), fault }
        })?;
        if let Ok(wait @ 1..) = u64::try_from(R::throttle(&answer)) {
            let wait = Duration::from_millis(wait).min(LONGEST_THROTTLE);
            self.throttled_until = Some(Instant::now() + wait);
        }
        Ok(answer)
    }

    /// The answer as it came, correlation checked.
    fn receive_frame<R: Api>(&mut self, pending: &Pending<R>, timeout: Duration) -> Result<Bytes> {
        let frame = self.read_frame(pending, Reads::Wait, timeout)?;
        Ok(frame.expect("only reads that do not wait end without an answer"))
    }

    fn read_frame<R: Api>(
        &mut self,
        pending: &Pending<R>,
        reads: Reads,
        timeout: Duration,
    ) -> Result<Option<Bytes>> {
        let call = self.name::<R>(pending.version);
        let cap = self.options.max_answer;
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.stream(Instant::now() + timeout).map(|socket| {
            socket.set_reads(reads);
            let read = buffer.read(socket, cap);
            socket.set_reads(Reads::Wait);
            read
        });
        self.buffer = buffer;
        let frame = match read? {
            Ok(frame) => frame.and_then(|frame| frame::check(&frame, pending.id).map(|()| frame)),
            Err(error) if reads == Reads::Look && error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(None);
            }
            Err(error) => return Err(self.fail(call, timeout, error)),
        };
        self.waiting = self.waiting.saturating_sub(1);
        match frame {
            Ok(frame) => {
                self.answered = match self.answered {
                    Answered::Nothing => Answered::Versions,
                    _ => Answered::Requests,
                };
                Ok(Some(frame))
            }
            Err(fault) => {
                self.close();
                Err(Error::Frame { call, fault })
            }
        }
    }

    fn name<R: Api>(&self, version: i16) -> Call {
        Call { broker: self.broker.clone(), api: R::NAME, version }
    }

    fn stream(&mut self, deadline: Instant) -> Result<&mut Socket> {
        match &mut self.stream {
            Some((socket, _)) => {
                socket.set_deadline(deadline);
                Ok(socket)
            }
            None if self.hangup.is_down() => Err(Error::HungUp),
            None => Err(Error::Closed { broker: self.broker.clone() }),
        }
    }

    /// Closes the connection after an error of the stream.
    fn fail(&mut self, call: Call, timeout: Duration, error: io::Error) -> Error {
        let error = self.explain(call, timeout, error);
        self.close();
        error
    }

    fn explain(&self, call: Call, timeout: Duration, error: io::Error) -> Error {
        if self.hangup.is_down() {
            return Error::HungUp;
        }
        if error.kind() == io::ErrorKind::TimedOut {
            return Error::Timeout { call, after: timeout };
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(source) => Error::Tls { broker: call.broker, source: source.clone() },
            None => Error::Io { call, source: self.closed_by_broker(error) },
        }
    }

    /// A broker says nothing to those who come to the wrong listener: it closes.
    fn closed_by_broker(&self, error: io::Error) -> io::Error {
        let closed =
            [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        if !closed.contains(&error.kind()) {
            return error;
        }
        let guess = match (self.answered, &self.options.tls, &self.options.sasl) {
            (Answered::Nothing, None, _) => "; does this listener want TLS?",
            (Answered::Nothing, Some(_), _) => "; does this listener speak TLS?",
            (Answered::Versions, _, None) => "; does this listener want a login (kafka.sasl)?",
            _ => "",
        };
        io::Error::new(error.kind(), format!("the broker closed the connection{guess}"))
    }
}
