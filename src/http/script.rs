//! A scripted server in this process, for tests: it takes connections and answers each request as the test's closure
//! says, cut, garbled or not at all if it says so. Everything ends when it is dropped.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use url::Url;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// How many requests came before it.
    pub index: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        let url = Url::parse("http://h").unwrap().join(&self.target).unwrap();
        let found = url.query_pairs().find(|(other, _)| other == name);
        found.map(|(_, value)| value.into_owned())
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.param(name)?.parse().ok()
    }
}

/// What is written, and what becomes of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Instead of the body's length.
    length: Option<Option<usize>>,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    /// Nothing more comes, and the connection stays.
    Hang,
    /// The body comes byte by byte.
    Trickle,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Answer { status: 200, headers: Vec::new(), body: body.into(), length: None, then: Then::GoOn }
    }

    pub fn status(status: u16) -> Self {
        Answer { status, ..Answer::ok("") }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Declares another length than that of the body, then closes.
    pub fn declaring(self, length: usize) -> Self {
        Answer { length: Some(Some(length)), then: Then::Close, ..self }
    }

    /// Declares no length: the body ends with the connection.
    pub fn unbounded(self) -> Self {
        Answer { length: Some(None), then: Then::Close, ..self }
    }

    /// Declares more than comes, and keeps the connection.
    pub fn hanging(self) -> Self {
        Answer { length: Some(Some(self.body.len() + 1)), then: Then::Hang, ..self }
    }

    pub fn trickling(self) -> Self {
        Answer { then: Then::Trickle, ..self }
    }

    fn write(&self, to: &mut TcpStream, over: &AtomicBool) -> io::Result<bool> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.length {
            None => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Some(Some(length)) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Some(None) => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        if self.then == Then::Trickle {
            for byte in &self.body {
                if over.load(Ordering::Acquire) {
                    return Ok(false);
                }
                to.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(true);
        }
        to.write_all(&self.body)?;
        while self.then == Then::Hang && !over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(matches!(self.then, Then::GoOn))
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The server.
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (seen, ending) = (asked.clone(), over.clone());
        let thread = std::thread::Builder::new()
            .name("scripted server".into())
            .spawn(move || accept(&listener, &script, &seen, &ending))
            .unwrap();
        Server { address, asked, over, thread: Some(thread) }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes whoever accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, script: &Script, seen: &Mutex<Vec<Asked>>, over: &AtomicBool) {
    std::thread::scope(|scope| {
        while let Ok((stream, _)) = listener.accept() {
            if over.load(Ordering::Acquire) {
                return;
            }
            scope.spawn(move || {
                let _ = serve(stream, script, seen, over);
            });
        }
    });
}

fn serve(
    mut stream: TcpStream,
    script: &Script,
    seen: &Mutex<Vec<Asked>>,
    over: &AtomicBool,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(mut asked) = read(&mut stream, &mut buffer, over)? {
        {
            let mut seen = seen.lock();
            asked.index = seen.len();
            seen.push(asked.clone());
        }
        if !script(&asked).write(&mut stream, over)? {
            break;
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// Reads one request; `None`: no more come.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, over: &AtomicBool) -> io::Result<Option<Asked>> {
    loop {
        if let Some((asked, used)) = parse(buffer) {
            buffer.drain(..used);
            return Ok(Some(asked));
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if over.load(Ordering::Acquire) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn parse(buffer: &[u8]) -> Option<(Asked, usize)> {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let asked = Asked { method, target, headers, body: String::new(), index: 0 };
    let length = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
    let body = buffer.get(end..end + length)?;
    let body = String::from_utf8_lossy(body).into_owned();
    Some((Asked { body, ..asked }, end + length))
}
