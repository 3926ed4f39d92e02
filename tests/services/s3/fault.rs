//! [`Faulty`]: a proxy in front of the server that understands requests, and does to some of them what a healthy
//! server never does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Server;

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// It is passed on, and so is the answer.
    Pass,
    /// It is not passed on; this is the answer: status, further header lines, body.
    Answer(u16, &'static str, String),
    /// It is passed on, and the connection is cut before the answer.
    Swallow,
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
    /// It is passed on with one bit changed in its body.
    Spoil,
    /// There is no answer, and the connection stays open.
    Silence,
    /// The body comes byte by byte and never to its end.
    Trickle,
}

/// A request as rules see it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The request line and all headers.
    pub head: String,
    /// How many came before it that a rule was asked about.
    pub number: usize,
}

impl Asked {
    /// The value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether it stores a batch as a whole.
    pub fn is_put(&self) -> bool {
        self.method == "PUT" && !self.target.contains('?') && !self.is_of_state()
    }

    /// Whether it is about what is remembered.
    pub fn is_of_state(&self) -> bool {
        self.target.contains("/.pipeline/")
    }

    /// Whether it stores a part.
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.target.contains("partNumber=")
    }

    /// Whether it completes an upload.
    pub fn is_complete(&self) -> bool {
        self.method == "POST" && self.target.contains("uploadId=")
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Act + Send>;

/// Listens on a free port. Dropping it ends it.
pub struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    rule: Mutex<(usize, Rule)>,
    seen: Mutex<Vec<Asked>>,
    held: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faulty {
    pub fn new(server: &Server, rule: impl FnMut(&Asked) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server: SocketAddr::from(([127, 0, 0, 1], server.port)),
            rule: Mutex::new((0, Box::new(rule))),
            seen: Mutex::default(),
            held: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let ours = shared.clone();
        start(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ours.over.load(Ordering::Relaxed) {
                    break;
                }
                let ours = ours.clone();
                start(move || drop(serve(&ours, client)));
            }
        });
        Faulty { address, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Asked> {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        lock(&self.shared.held).drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn start(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("faulty".into()).spawn(work).expect("a thread can be started");
}

/// One request; every answer ends its connection.
fn serve(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
    let (method, target) = (word(words.next()), word(words.next()));
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let act = {
        let mut rule = lock(&shared.rule);
        let asked = Asked { method, target, head: head.clone(), number: rule.0 };
        rule.0 += 1;
        lock(&shared.seen).push(asked.clone());
        rule.1(&asked)
    };
    let length = length.unwrap_or(0);
    let wanted = if let Act::Cut(count) = act { length.min(count) } else { length };
    let mut body = vec![0; wanted];
    client.read_exact(&mut body)?;
    let answer = match &act {
        Act::Cut(_) => return client.shutdown(Shutdown::Both),
        Act::Silence => {
            lock(&shared.held).push(client);
            return Ok(());
        }
        Act::Trickle => {
            client.write_all(b"HTTP/1.1 200 Made Up\r\nContent-Length: 1000000\r\n\r\n")?;
            while !shared.over.load(Ordering::Relaxed) {
                client.write_all(b" ")?;
                thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        Act::Answer(status, headers, body) => made(*status, headers, body),
        Act::Pass | Act::Swallow | Act::Spoil => {
            if let (Act::Spoil, Some(last)) = (&act, body.last_mut()) {
                *last ^= 1;
            }
            let passed = pass(shared, &head, &body)?;
            if matches!(act, Act::Swallow) {
                return client.shutdown(Shutdown::Both);
            }
            passed
        }
    };
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)?;
    // The other end closes first, so that nothing that it still sends resets what it has not read.
    let _ = client.read_to_end(&mut Vec::new());
    Ok(())
}

fn made(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Made Up\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn pass(shared: &Shared, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(shared.server)?;
    let Some(head) = super::session::without_token(head) else {
        return Ok(made(403, "", "<Error><Code>SignatureDoesNotMatch</Code></Error>"));
    };
    // No header that is signed.
    server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
