//! [`Proxy`]: a TCP proxy that harms some of its connections and leaves the others alone.
//!
//! What is held on its way to the server is kept here, not in the client's socket: it arrives later even if whoever
//! sent it was killed meanwhile, as with a network that delivers late.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::schedule::Random;

/// How often a connection is asked whether its harm is over.
const LOOK: Duration = Duration::from_millis(20);
/// After a pause like this a new request or answer begins.
const GAP: Duration = Duration::from_millis(3);
/// So much is kept of what is held; what comes after it waits in the sockets.
const HELD: usize = 32 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Harm {
    /// Both ends are closed.
    Cut,
    /// Both ends are closed after so many bytes that go this way.
    CutAfter(Direction, usize),
    /// What goes this way waits for so long.
    Hold(Direction, Duration),
    /// The same, and then both ends are closed.
    HoldAndCut(Direction, Duration),
    /// Each piece waits for the first time, as long as the second.
    Delay(Duration, Duration),
    /// Both ends are closed, of new connections at once.
    Refuse,
}

/// Listens on a free port and passes on to one server. Dropping it cuts all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// What is done to this share of new connections, until when.
    now: Mutex<Option<(Harmed, u64, Random)>>,
    harmed: AtomicUsize,
    accepted: AtomicUsize,
    /// How far the server is: each request and each answer takes up to so long.
    latency: Duration,
    over: AtomicBool,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    latency: Duration,
    harm: Mutex<Option<Harmed>>,
    closed: AtomicBool,
}

#[derive(Clone, Copy)]
struct Harmed {
    harm: Harm,
    until: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy that nobody stands behind yet. Each request and each answer takes up to `latency`.
    pub fn new(latency: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server: Mutex::new(address),
            connections: Mutex::default(),
            now: Mutex::default(),
            harmed: AtomicUsize::default(),
            accepted: AtomicUsize::default(),
            latency,
            over: AtomicBool::new(false),
        });
        let ours = shared.clone();
        start(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ours.over.load(Ordering::Relaxed) {
                    break;
                }
                ours.accept(client);
            }
        });
        Proxy { address, shared }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Says where the server is.
    pub fn passes_to(&self, port: u16) {
        *lock(&self.shared.server) = SocketAddr::from(([127, 0, 0, 1], port));
    }

    /// Harms this share of the connections, in percent, and of those that are opened within `time`. Returns how many
    /// there were.
    pub fn harm(&self, harm: Harm, share: u64, time: Duration, random: &mut Random) -> usize {
        let until = Instant::now() + time;
        *lock(&self.shared.now) = Some((Harmed { harm, until }, share, random.fork(1)));
        let mut connections = lock(&self.shared.connections);
        connections.retain(|connection| !connection.closed.load(Ordering::Relaxed));
        let chosen = connections.iter().filter(|_| random.chance(share));
        let count = chosen.map(|connection| connection.take(harm)).count();
        self.shared.harmed.fetch_add(count, Ordering::Relaxed);
        count
    }

    /// How many connections there were, and how many of them were harmed.
    pub fn counts(&self) -> (usize, usize) {
        (self.shared.accepted.load(Ordering::Relaxed), self.shared.harmed.load(Ordering::Relaxed))
    }

    /// Ends everything that is still being done to connections.
    pub fn heal(&self) {
        *lock(&self.shared.now) = None;
        lock(&self.shared.connections).iter().for_each(|connection| *lock(&connection.harm) = None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        lock(&self.shared.connections).drain(..).for_each(|connection| connection.close());
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn harm_of_new(&self) -> Option<Harm> {
        let mut now = lock(&self.now);
        let (Harmed { harm, until }, share, random) = now.as_mut()?;
        let meets = Instant::now() < *until && random.chance(*share);
        // It was not there when it was to be cut.
        let meets = meets && *harm != Harm::Cut;
        self.harmed.fetch_add(usize::from(meets), Ordering::Relaxed);
        meets.then_some(*harm)
    }

    fn accept(&self, client: TcpStream) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let harm = self.harm_of_new();
        if matches!(harm, Some(Harm::Refuse)) {
            return;
        }
        // A server that is down: the client's connection is closed, as it would be.
        let server = *lock(&self.server);
        let Ok(server) = TcpStream::connect(server) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("it is a socket");
            stream.set_read_timeout(Some(LOOK)).expect("it is no zero");
        }
        let connection = Connection {
            client,
            server,
            latency: self.latency,
            harm: Mutex::default(),
            closed: AtomicBool::default(),
        };
        let connection = Arc::new(connection);
        if let Some(harm) = harm {
            connection.take(harm);
        }
        lock(&self.connections).push(connection.clone());
        let other = connection.clone();
        start(move || other.pass(Direction::ToServer));
        start(move || connection.pass(Direction::ToClient));
    }
}

/// What may pass at the moment.
enum Passage {
    All,
    Nothing,
    /// So many bytes, and then no more.
    Some(usize),
    Later(Duration),
}

impl Connection {
    fn take(&self, harm: Harm) {
        let now = Instant::now();
        let (until, at_once) = match harm {
            Harm::Cut | Harm::Refuse => (now, true),
            Harm::CutAfter(..) => (now + Duration::from_secs(3600), false),
            Harm::Hold(_, time) | Harm::HoldAndCut(_, time) | Harm::Delay(_, time) => (now + time, false),
        };
        *lock(&self.harm) = Some(Harmed { harm, until });
        if at_once {
            self.close();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn passage(&self, way: Direction) -> Passage {
        let mut harm = lock(&self.harm);
        let Some(harmed) = *harm else { return Passage::All };
        let over = Instant::now() >= harmed.until;
        match harmed.harm {
            Harm::Cut | Harm::Refuse => Passage::Some(0),
            Harm::HoldAndCut(..) if over => Passage::Some(0),
            Harm::CutAfter(which, bytes) if which == way => Passage::Some(bytes),
            Harm::Hold(which, _) | Harm::HoldAndCut(which, _) if which == way && !over => Passage::Nothing,
            Harm::Delay(time, _) if !over => Passage::Later(time),
            _ => {
                if over {
                    *harm = None;
                }
                Passage::All
            }
        }
    }

    /// Passes bytes on in one direction until an end is closed.
    fn pass(&self, way: Direction) {
        let (mut from, mut to) = match way {
            Direction::ToServer => (&self.client, &self.server),
            Direction::ToClient => (&self.server, &self.client),
        };
        let mut bytes = vec![0; 64 << 10];
        let mut held: Vec<u8> = Vec::new();
        let mut ended = false;
        let (mut random, mut busy) = (Random::new(from.as_raw_fd() as u64), Instant::now());
        loop {
            if !ended && held.len() < HELD {
                match from.read(&mut bytes) {
                    Ok(0) => ended = true,
                    Ok(size) => {
                        // What follows at once belongs to it.
                        if busy.elapsed() > GAP && !self.latency.is_zero() {
                            thread::sleep(self.latency.mul_f64(random.below(100) as f64 / 100.0));
                        }
                        busy = Instant::now();
                        held.extend_from_slice(&bytes[..size]);
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => ended = true,
                }
            } else if !held.is_empty() {
                thread::sleep(LOOK);
            }
            let mut last = false;
            let now = match self.passage(way) {
                Passage::All => held.len(),
                Passage::Nothing => 0,
                Passage::Later(time) => {
                    thread::sleep(time);
                    held.len()
                }
                Passage::Some(most) => {
                    last = held.len() >= most;
                    most.min(held.len())
                }
            };
            let sent = now == 0 || to.write_all(&held[..now]).is_ok();
            held.drain(..now);
            self.passed(way, now);
            if last || !sent || (ended && held.is_empty()) || self.closed.load(Ordering::Relaxed) {
                break;
            }
        }
        self.close();
    }

    /// Counts down to a cut.
    fn passed(&self, way: Direction, count: usize) {
        if let Some(Harmed { harm: Harm::CutAfter(which, bytes), .. }) = &mut *lock(&self.harm)
            && *which == way
        {
            *bytes = bytes.saturating_sub(count);
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("proxy".into()).spawn(work).expect("a thread can be started");
}
