//! [`Server`]: a small blocking HTTP server that answers as a test says, faults included, and remembers all that it
//! was asked. It may also be a proxy: what it is asked for by a whole address, or after CONNECT, it answers itself.
//!
//! It listens on a free port of 127.0.0.1 and is gone, threads and all, when it is dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// No request of ours has a longer head.
const MAX_HEAD: u64 = 64 << 10;

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head was there.
    pub at: Instant,
    pub method: String,
    /// What stands in the first line: path and query, or a whole address for a proxy.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        parameter(self.target.split_once('?')?.1, name)
    }

    /// A field of a body that is a form.
    pub fn form(&self, name: &str) -> Option<String> {
        parameter(&self.body, name)
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.query(name)?.parse().ok()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
}

/// Writes an answer piece by piece.
type Script = Box<dyn FnOnce(&mut Wire<'_>) -> io::Result<()> + Send>;

enum Body {
    /// With its length.
    Sized(Vec<u8>),
    /// Whatever is written, then the end of the connection.
    Scripted(Script),
}

/// What is answered.
pub struct Reply {
    /// Status line and headers, and the empty line behind them.
    head: String,
    body: Body,
}

impl Reply {
    /// A status and a text.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply { head: format!("HTTP/1.1 {status} Whatever\r\n"), body: Body::Sized(body.into()) }
    }

    /// 200 and JSON.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Reply::new(200, body).with("Content-Type", "application/json")
    }

    /// 200 with no length of its own: headers by [`Reply::with`], then what the script writes, then the end.
    pub fn script(script: impl FnOnce(&mut Wire<'_>) -> io::Result<()> + Send + 'static) -> Self {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n".into();
        Reply { head, body: Body::Scripted(Box::new(script)) }
    }

    /// The script writes everything, the status line included.
    pub fn bare(script: impl FnOnce(&mut Wire<'_>) -> io::Result<()> + Send + 'static) -> Self {
        Reply { head: String::new(), body: Body::Scripted(Box::new(script)) }
    }

    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.head.push_str(&format!("{name}: {}\r\n", value.as_ref()));
        self
    }

    /// A redirect.
    pub fn moved(status: u16, to: &str) -> Self {
        Reply::new(status, "elsewhere").with("Location", to)
    }

    /// Whether the connection can serve another request.
    fn write(self, wire: &mut Wire<'_>) -> io::Result<bool> {
        match self.body {
            Body::Sized(body) => {
                let length = format!("Content-Length: {}\r\n\r\n", body.len());
                wire.write(&[self.head.as_bytes(), length.as_bytes(), &body].concat())?;
                Ok(true)
            }
            Body::Scripted(script) => {
                if !self.head.is_empty() {
                    wire.write(format!("{}\r\n", self.head).as_bytes())?;
                }
                script(wire)?;
                Ok(false)
            }
        }
    }
}

/// The connection as a script sees it.
pub struct Wire<'a> {
    stream: &'a mut dyn Write,
    tcp: &'a TcpStream,
    shared: &'a Shared,
}

impl Wire<'_> {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// One chunk of a body with `Transfer-Encoding: chunked`; an empty one is its end.
    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Waits for so long. An error when the server is dropped meanwhile.
    pub fn rest(&self, time: Duration) -> io::Result<()> {
        let over = self.shared.over();
        let (over, _) = self.shared.ending.wait_timeout_while(over, time, |over| !*over).expect("unpoisoned");
        if *over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Says nothing more until the other side has gone.
    pub fn hold(&mut self) -> io::Result<()> {
        self.tcp.set_read_timeout(Some(Duration::from_millis(20)))?;
        loop {
            match self.tcp.peek(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.rest(Duration::ZERO)?,
                // A request that was sent early: it is not read, so it stays there.
                Ok(1..) => self.rest(Duration::from_millis(20))?,
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }

    /// The connection breaks: what is on its way may be lost.
    pub fn reset(&mut self) -> io::Result<()> {
        self.tcp.shutdown(Shutdown::Both)
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

/// What all threads of a server share.
struct Shared {
    answer: Box<Answer>,
    tls: Option<Arc<ServerConfig>>,
    seen: Mutex<Vec<Seen>>,
    over: Mutex<bool>,
    ending: Condvar,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

impl Shared {
    fn over(&self) -> MutexGuard<'_, bool> {
        self.over.lock().expect("nobody panics with it")
    }
}

/// A server that runs.
pub struct Server {
    shared: Arc<Shared>,
    pub port: u16,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request as `answer` says.
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Server::run(Box::new(answer), None)
    }

    /// The same over TLS.
    pub fn start_tls(tls: ServerConfig, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Server::run(Box::new(answer), Some(Arc::new(tls)))
    }

    fn run(answer: Box<Answer>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            answer,
            tls,
            seen: Mutex::default(),
            over: Mutex::new(false),
            ending: Condvar::new(),
            connections: Mutex::default(),
        });
        let accepting = {
            let shared = shared.clone();
            thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &shared))
        };
        Server { shared, port, accepting: Some(accepting.expect("a thread can be started")) }
    }

    /// The address of a path, by number of the host.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    /// The same by name.
    pub fn named(&self, path: &str) -> String {
        self.url(path).replace("127.0.0.1", "localhost")
    }

    /// All requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those for a path.
    pub fn asked(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path() == path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.shared.over() = true;
        self.shared.ending.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let accepting = self.accepting.take().map(JoinHandle::join);
        let mut panicked = matches!(accepting, Some(Err(_)));
        let connections =
            std::mem::take(&mut *self.shared.connections.lock().expect("nobody panics with it"));
        for (stream, _) in &connections {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for (_, thread) in connections {
            panicked |= thread.join().is_err();
        }
        assert!(!panicked || thread::panicking(), "an answer of the server panicked");
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if *shared.over() {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (Ok(ours), Ok(control)) = (stream.try_clone(), stream.try_clone()) else { continue };
        let own = shared.clone();
        let thread = thread::Builder::new().name("serve".into()).spawn(move || {
            // A client that went away, or a handshake that failed: the test asks the client about it.
            let _ = connection(stream, &control, &own);
            let _ = control.shutdown(Shutdown::Both);
        });
        let thread = thread.expect("a thread can be started");
        shared.connections.lock().expect("nobody panics with it").push((ours, thread));
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn connection(stream: TcpStream, tcp: &TcpStream, shared: &Shared) -> io::Result<()> {
    let stream: Box<dyn Stream> = match &shared.tls {
        None => Box::new(stream),
        Some(tls) => {
            let session = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(session, stream))
        }
    };
    let mut stream = BufReader::new(stream);
    while let Some(seen) = request(&mut stream)? {
        shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
        tcp.set_read_timeout(None)?;
        let mut wire = Wire { stream: stream.get_mut(), tcp, shared };
        let goes_on = if seen.method == "CONNECT" {
            wire.write(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            true
        } else {
            (shared.answer)(&seen).write(&mut wire)?
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// The next request; nothing at the end of the connection.
fn request(stream: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let limited = &mut Read::take(&mut *stream, MAX_HEAD);
        if limited.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first().map(String::as_str).unwrap_or_default().split(' ');
    let mut word = || first.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let header = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    let headers = lines.iter().skip(1).filter_map(header).collect();
    let mut seen = Seen { at: Instant::now(), method, target, headers, body: String::new() };
    let length = seen.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    match seen.header("transfer-encoding") {
        Some(_) => seen.body = chunked(stream)?,
        None => drop(stream.take(length).read_to_string(&mut seen.body)?),
    }
    Ok(Some(seen))
}

/// A body in chunks.
fn chunked(stream: &mut impl BufRead) -> io::Result<String> {
    let mut body = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        Read::take(&mut *stream, length).read_to_string(&mut body)?;
        stream.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(body);
        }
    }
}
