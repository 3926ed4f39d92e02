//! [`Lender`]: a small HTTP service that lends keys, as tasks, pods, machines and the security token service have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A request to it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Method and path, with a space between.
    pub line: String,
    /// All headers, in lower case.
    pub headers: String,
    pub body: String,
    /// How many came before it.
    pub number: usize,
}

/// Listens on a free port. Dropping it ends it.
pub struct Lender {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Wish>>>,
    over: Arc<AtomicBool>,
}

impl Lender {
    pub fn new(answer: impl Fn(&Wish) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (seen, over) = (Arc::<Mutex<Vec<Wish>>>::default(), Arc::<AtomicBool>::default());
        let (ours, ended) = (seen.clone(), over.clone());
        start(move || {
            let answer = Arc::new(answer);
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (ours, answer) = (ours.clone(), answer.clone());
                start(move || drop(serve(client, &ours, &*answer)));
            }
        });
        Lender { address, seen, over }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Wish> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn start(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("lender".into()).spawn(work).expect("a thread can be started");
}

fn serve(
    client: TcpStream,
    seen: &Mutex<Vec<Wish>>,
    answer: &(impl Fn(&Wish) -> (u16, String) + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = String::new();
    while reader.read_line(&mut headers)? > 2 {}
    let headers = headers.to_ascii_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let line = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let wish = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let body = String::from_utf8_lossy(&body).into_owned();
        let wish = Wish { line, headers, body, number: seen.len() };
        seen.push(wish.clone());
        wish
    };
    let (status, text) = answer(&wish);
    let length = text.len();
    let mut client = reader.into_inner();
    write!(client, "HTTP/1.1 {status} Made Up\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
}

/// So many seconds from now, as services write times.
pub fn after(seconds: u64) -> String {
    let at = SystemTime::now() + Duration::from_secs(seconds);
    let second = at.duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    jiff::Timestamp::from_second(i64::try_from(second).expect("it is near")).expect("it is near").to_string()
}

/// Keys as containers and machines tell them: those of the server, with this token.
pub fn keys(token: &str, seconds: u64) -> String {
    let (id, secret, until) = (super::KEY, super::SECRET, after(seconds));
    format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"{secret}\",\"Token\":\"{token}\",\
         \"Expiration\":\"{until}\"}}"
    )
}
