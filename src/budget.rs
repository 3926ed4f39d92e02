//! The byte budget: everything between read and stored is charged to it.
//!
//! Only readers wait for it, and whoever waits holds none of it ([`Budget::acquire`]); everyone else charges
//! what it allocates without waiting ([`Lease::resize`]). A [`Lease`] gives its bytes back when it is dropped,
//! so an error or a panic cannot leak budget. While a reader waits, the assembler is woken ([`Budget::pressure`])
//! to close a batch: with nothing in flight no chunk would arrive to do so.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::stop::Stop;

/// A number of bytes that may be between read and stored.
pub struct Budget {
    state: Mutex<State>,
    freed: Condvar,
    wake: Sender<()>,
    pressure: Receiver<()>,
    limit: usize,
}

#[derive(Default)]
struct State {
    used: usize,
    peak: usize,
    waiting: usize,
    granted: usize,
}

impl Budget {
    /// A budget of `limit` bytes. It may be overdrawn by those who do not wait.
    pub fn new(limit: usize) -> Arc<Self> {
        let (wake, pressure) = bounded(1);
        Arc::new(Budget { state: Mutex::default(), freed: Condvar::new(), wake, pressure, limit })
    }

    /// Takes `bytes`. Blocks until they are free, or until the run is stopped. The caller must hold no lease.
    /// A request above the limit is granted when nothing else is out.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the run is drained or aborted.
    pub fn acquire(self: &Arc<Self>, bytes: usize, stop: &Stop) -> Result<Lease> {
        let mut state = self.state.lock();
        if !self.fits(&state, bytes) {
            state.waiting += 1;
            let granted = loop {
                if !stop.is_running() {
                    break false;
                }
                let _ = self.wake.try_send(());
                // The time limit only repeats the wake-up: what frees bytes notifies.
                let _ = self.freed.wait_for(&mut state, Duration::from_millis(100));
                if self.fits(&state, bytes) {
                    break true;
                }
                if state.granted > 0 {
                    state.granted -= 1;
                    break true;
                }
            };
            state.waiting -= 1;
            state.granted = state.granted.min(state.waiting);
            if !granted {
                return Err(Error::Stopped);
            }
        }
        Ok(self.grant(state, bytes))
    }

    /// Takes `bytes` if they are free.
    pub fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let state = self.state.lock();
        if !self.fits(&state, bytes) {
            return None;
        }
        Some(self.grant(state, bytes))
    }

    fn grant(self: &Arc<Self>, mut state: MutexGuard<'_, State>, bytes: usize) -> Lease {
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        drop(state);
        Lease { budget: Some(self.clone()), bytes }
    }

    fn fits(&self, state: &State, bytes: usize) -> bool {
        state.used == 0 || state.used + bytes <= self.limit
    }

    /// Charges `bytes` without waiting, beyond the limit if need be.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Lease {
        let mut lease = Lease { budget: Some(self.clone()), bytes: 0 };
        lease.resize(bytes);
        lease
    }

    /// Lets one reader that waits go on beyond the limit: nothing is in flight, nothing may be closed, so nothing
    /// would ever be freed. Costs memory instead of a hang.
    pub fn overdraw(&self) {
        let mut state = self.state.lock();
        if state.waiting > state.granted {
            state.granted += 1;
            self.freed.notify_one();
        }
    }

    /// Receives a message when a reader waits for bytes.
    pub fn pressure(&self) -> &Receiver<()> {
        &self.pressure
    }

    /// How many readers wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// How many readers wait and were not let go on.
    #[cfg(test)]
    pub(crate) fn waiting_still(&self) -> usize {
        let state = self.state.lock();
        state.waiting - state.granted
    }

    /// Bytes that are out now.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// The most bytes that were out at once.
    pub fn peak(&self) -> usize {
        self.state.lock().peak
    }

    /// Bytes that may be out before readers wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Wakes all who wait, so that they see a stop.
    pub fn notify(&self) {
        self.freed.notify_all();
    }

    fn change(&self, from: usize, to: usize) {
        let mut state = self.state.lock();
        state.used = state.used - from + to;
        state.peak = state.peak.max(state.used);
        if to < from && state.waiting > 0 {
            self.freed.notify_all();
        }
    }
}

/// Bytes taken from a [`Budget`]. Given back on drop. The default lease holds nothing, of no budget.
#[derive(Default)]
pub struct Lease {
    budget: Option<Arc<Budget>>,
    bytes: usize,
}

impl Lease {
    /// Holds `bytes` from now on; never waits.
    pub fn resize(&mut self, bytes: usize) {
        if let Some(budget) = &self.budget
            && bytes != self.bytes
        {
            budget.change(self.bytes, bytes);
        }
        self.bytes = bytes;
    }

    /// A lease of `bytes` of these, or of all there are.
    pub fn split(&mut self, bytes: usize) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease { budget: self.budget.clone(), bytes }
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.resize(0);
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.bytes)
    }
}

/// Byte buffers that keep their memory for the next use. Holds a bounded number of bytes, in buffers of bounded size:
/// what is larger, or too much, is freed.
#[derive(Debug)]
pub struct Recycler {
    idle: Mutex<Idle>,
    most: usize,
    largest: usize,
}

#[derive(Debug, Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Recycler {
    /// Keeps up to `most` bytes, in buffers of up to `largest` bytes each.
    pub fn new(most: usize, largest: usize) -> Arc<Self> {
        Arc::new(Recycler { idle: Mutex::default(), most, largest })
    }

    /// An empty buffer, used before if there is one.
    pub fn take(&self) -> Vec<u8> {
        let mut idle = self.idle.lock();
        let buffer = idle.buffers.pop().unwrap_or_default();
        idle.bytes -= buffer.capacity();
        buffer
    }

    /// Empties a buffer that its owner uses again, and frees it if it is larger than those that are kept.
    pub fn trim(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        if buffer.capacity() > self.largest {
            *buffer = Vec::new();
        }
    }

    /// Keeps a buffer for the next use.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size == 0 || size > self.largest {
            return;
        }
        buffer.clear();
        let mut idle = self.idle.lock();
        if idle.bytes + size <= self.most {
            idle.bytes += size;
            idle.buffers.push(buffer);
        }
    }
}

/// A copy of what stands in a buffer of `size` bytes, if it is so little that it must not hold the buffer; nothing is
/// little, too.
pub(crate) fn copied(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    (bytes.is_empty() || bytes.len() < size / 4).then(|| bytes.to_vec())
}

/// What buffers grow by at least.
const STEP: usize = 64 << 10;

/// Makes room for `more` bytes in `buffer`. In steps, so that a buffer which is used again has room for the next chunk
/// too, and not by doubling: the budget would pay for memory that nobody needs.
pub(crate) fn make_room(buffer: &mut Vec<u8>, more: usize) {
    let len = buffer.len();
    let size = len.saturating_add(more);
    if size <= buffer.capacity() {
        return;
    }
    // Where there is much, a quarter more: each step copies.
    let size = size.max(len + len / 4).checked_next_multiple_of(STEP).unwrap_or(size);
    if len == 0 {
        // To grow would copy what nobody wants.
        *buffer = Vec::new();
    }
    buffer.reserve_exact(size - len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_gives_back_what_it_holds() {
        let budget = Budget::new(100);
        let mut lease = budget.acquire(60, &Stop::new()).unwrap();
        lease.resize(150);
        assert_eq!((budget.used(), budget.peak()), (150, 150));
        drop(lease);
        assert_eq!((budget.used(), budget.peak()), (0, 150));
    }

    #[test]
    fn a_request_above_the_limit_is_granted_alone() {
        let budget = Budget::new(10);
        assert_eq!(budget.acquire(1000, &Stop::new()).unwrap().bytes(), 1000);
    }

    #[test]
    fn who_waits_wakes_the_assembler_and_gets_what_is_freed() {
        let budget = Budget::new(100);
        let stop = Stop::new();
        let first = budget.acquire(80, &stop).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| budget.acquire(50, &stop).map(|lease| lease.bytes()));
            budget.pressure().recv().unwrap();
            assert_eq!(budget.waiting(), 1);
            drop(first);
            assert_eq!(second.join().unwrap().unwrap(), 50);
        });
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let budget = Budget::new(100);
        let stop = Stop::new();
        let _all = budget.acquire(100, &stop).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.acquire(1, &stop).is_err());
            budget.pressure().recv().unwrap();
            stop.drain();
            budget.notify();
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_recycler_is_bounded() {
        let recycler = Recycler::new(100, 64);
        recycler.give(Vec::with_capacity(65));
        assert_eq!(recycler.take().capacity(), 0, "too large");
        for _ in 0..3 {
            recycler.give(Vec::with_capacity(48));
        }
        let kept: Vec<usize> = (0..3).map(|_| recycler.take().capacity()).collect();
        assert_eq!(kept, [48, 48, 0], "the third is too much");
        recycler.give(Vec::with_capacity(64));
        assert_eq!(recycler.take().capacity(), 64, "what was taken counts no more");
        let (mut large, mut small) = (vec![0; 65], vec![0; 64]);
        recycler.trim(&mut large);
        recycler.trim(&mut small);
        assert_eq!((large.capacity(), small.capacity(), small.len()), (0, 64, 0));
    }

    #[test]
    fn room_is_made_in_steps_and_what_stands_there_stays() {
        let mut buffer = Vec::new();
        make_room(&mut buffer, 1);
        assert_eq!(buffer.capacity(), STEP);
        make_room(&mut buffer, STEP + 1);
        assert_eq!(buffer.capacity(), 2 * STEP);
        buffer.resize(2 * STEP, 7);
        make_room(&mut buffer, 0);
        assert_eq!(buffer.capacity(), 2 * STEP, "nothing is wanted");
        make_room(&mut buffer, 1);
        assert_eq!(buffer.capacity(), 3 * STEP);
        buffer.resize(16 * STEP, 7);
        make_room(&mut buffer, 1);
        assert_eq!(buffer.capacity(), 20 * STEP, "a quarter more");
        assert!(buffer.iter().all(|byte| *byte == 7) && buffer.len() == 16 * STEP);
    }
}
