//! [`Proxy`]: a TCP proxy that does to connections what networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pipeline::kafka::Address;

/// What happens to bytes that come from the server. Those to the server pass, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// Both ends are closed after this many bytes of a connection.
    CutAfter(usize),
    /// Each piece comes this much later.
    Delay(Duration),
    /// Neither direction passes any more; both ends stay open.
    BlackHole,
    /// The client's bytes pass, the server's do not: what was asked is done, but nobody hears of it.
    HalfOpen,
}

/// Listens on a free port and passes on to one server. Dropping it cuts all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

struct State {
    fault: Fault,
    open: Vec<TcpStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault as it is now, once bytes of this direction may pass.
    fn passage(&self, direction: Direction) -> Fault {
        let mut state = self.state();
        loop {
            let held = match state.fault {
                Fault::BlackHole => true,
                Fault::HalfOpen => direction == Direction::ToClient,
                _ => false,
            };
            if !held || self.over.load(Ordering::Relaxed) {
                return state.fault;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Proxy {
    /// A proxy in front of `server`.
    pub fn new(server: &Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Mutex::new(State { fault: Fault::None, open: Vec::new() });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), over: AtomicBool::new(false) });
        let (held, server) = (shared.clone(), (server.host.clone(), server.port));
        start(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if held.over.load(Ordering::Relaxed) {
                    break;
                }
                // A server that is down: the client's connection is closed, as it would be.
                if let Ok(server) = TcpStream::connect(&server) {
                    join(&held, client, server);
                }
            }
        });
        Proxy { address, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> Arc<Address> {
        Arc::new(Address { host: "localhost".into(), port: self.address.port() })
    }

    /// Changes what happens, for open connections too.
    pub fn set(&self, fault: Fault) {
        self.shared.state().fault = fault;
        self.shared.changed.notify_all();
    }

    /// Cuts all connections that are open now.
    pub fn cut(&self) {
        for stream in self.shared.state().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let mut state = shared.state();
    state.open.extend([clone(&client), clone(&server)]);
    drop(state);
    let (from, to, held) = (clone(&client), clone(&server), shared.clone());
    start(move || pass(&held, from, to, Direction::ToServer));
    let held = shared.clone();
    start(move || pass(&held, server, client, Direction::ToClient));
}

fn pass(shared: &Shared, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
    let mut bytes = [0; 16 << 10];
    let mut passed = 0;
    while let Ok(size @ 1..) = from.read(&mut bytes) {
        let fault = shared.passage(direction);
        let mut size = size;
        match fault {
            Fault::CutAfter(limit) if direction == Direction::ToClient => {
                size = size.min(limit.saturating_sub(passed))
            }
            Fault::Delay(time) if direction == Direction::ToClient => thread::sleep(time),
            _ => {}
        }
        if to.write_all(&bytes[..size]).is_err() {
            break;
        }
        passed += size;
        if direction == Direction::ToClient && matches!(fault, Fault::CutAfter(limit) if passed >= limit) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn start(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("proxy".into()).spawn(work).expect("a thread can be started");
}
