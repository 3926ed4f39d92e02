//! [`Hangup`]: shuts the sockets of a client from another thread, so that whoever waits on one comes back.
//!
//! One for a whole client. Connections put their socket in when they are opened and take it out when they are
//! dropped. After [`Hangup::shutdown`] no connection opens any more. It never blocks, so a `Stop` hook may call it.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::kafka::error::{Error, Result};

/// A switch that ends every wait of a client, once. Clones are the same switch.
#[derive(Clone, Default)]
pub struct Hangup(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    down: bool,
    next: u64,
    sockets: HashMap<u64, TcpStream>,
}

/// A socket's place in a [`Hangup`]; dropping it takes the socket out.
pub(crate) struct Place {
    hangup: Hangup,
    id: u64,
}

impl Hangup {
    /// Nothing is shut down.
    pub fn new() -> Self {
        Hangup::default()
    }

    /// Ends all waits: connections fail with [`Error::HungUp`], now and later.
    pub fn shutdown(&self) {
        let mut state = self.0.lock();
        state.down = true;
        for socket in state.sockets.values() {
            // It may be closed already, which is what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether it was called.
    pub fn is_down(&self) -> bool {
        self.0.lock().down
    }

    /// # Errors
    /// [`Error::HungUp`] after [`Hangup::shutdown`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_down() { Err(Error::HungUp) } else { Ok(()) }
    }

    /// Puts a socket in. It is shut down at once if it comes too late.
    pub(crate) fn enter(&self, socket: &TcpStream) -> std::io::Result<Place> {
        let socket = socket.try_clone()?;
        let mut state = self.0.lock();
        if state.down {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let id = state.next;
        state.next += 1;
        state.sockets.insert(id, socket);
        Ok(Place { hangup: self.clone(), id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hangup.0.lock().sockets.remove(&self.id);
    }
}
