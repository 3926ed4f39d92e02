//! Compressed bytes that workers fetch before the reader asks for them: [`Stock`].
//!
//! A reader that decodes is what the run waits for, and copied compressed bytes out of the page cache in four to seven
//! hundredths of its time. A worker that gets a chunk of what was decoded does that instead.
//!
//! Nobody waits here: a worker takes what is in the page cache, and the reader reads itself what is not there yet, be it
//! that a worker is at it. The end of the file is the reader's, which sees what has become of the file.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::bytes::{PACKED, Place};

/// So many pieces are kept. What was decoded lies before the workers in as many chunks as they are behind.
const PIECES: usize = 3;

/// The next pieces of one file.
pub(super) struct Stock {
    place: Place,
    state: Mutex<State>,
}

struct State {
    /// Where the next piece begins that is to be fetched; `None` while the reader reads itself.
    next: Option<u64>,
    /// One behind the other; the last ends there.
    pieces: VecDeque<Vec<u8>>,
    /// Buffers that were used.
    empty: Vec<Vec<u8>>,
    /// Whether a worker fetches one.
    busy: bool,
}

impl Stock {
    /// From byte `at` on.
    pub(super) fn new(place: Place, at: u64) -> Self {
        let state = State { next: Some(at), pieces: VecDeque::new(), empty: Vec::new(), busy: false };
        Stock { place, state: Mutex::new(state) }
    }

    /// Fetches what is wanted and at hand. Waits for nobody.
    pub(super) fn fill(&self) {
        while let Some((at, mut bytes)) = self.begin() {
            bytes.resize(PACKED, 0);
            let read = (self.place.look)(&self.place.home, &mut bytes, at);
            bytes.truncate(read);
            if !self.end(at, bytes) {
                break;
            }
        }
    }

    /// Where the next piece begins, and a buffer for it; `None` if none is wanted.
    fn begin(&self) -> Option<(u64, Vec<u8>)> {
        let mut state = self.state.try_lock()?;
        let at = state.next.filter(|at| at + PACKED as u64 <= self.place.size)?;
        if state.busy || state.pieces.len() == PIECES {
            return None;
        }
        state.busy = true;
        Some((at, state.empty.pop().unwrap_or_default()))
    }

    /// Keeps the piece that begins at `at`; says whether that was of use.
    fn end(&self, at: u64, bytes: Vec<u8>) -> bool {
        let mut state = self.state.lock();
        state.busy = false;
        let is_next = !bytes.is_empty() && state.next == Some(at);
        if is_next {
            state.next = Some(at + bytes.len() as u64);
            state.pieces.push_back(bytes);
        } else {
            state.empty.push(bytes);
        }
        is_next
    }

    /// Puts the next piece in the place of what the buffer holds; `false` if there is none, and the reader reads itself:
    /// behind that comes [`Stock::pass`].
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        let Some(piece) = state.pieces.pop_front() else {
            // What a worker is about to bring is read twice.
            state.next = None;
            return false;
        };
        state.empty.push(std::mem::replace(bytes, piece));
        true
    }

    /// The reader has read itself what stands before `at`.
    pub(super) fn pass(&self, at: u64) {
        self.state.lock().next = Some(at);
    }
}
