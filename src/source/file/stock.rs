//! Compressed bytes that workers fetch before the reader asks for them: [`Stock`].
//!
//! A reader that decodes is what the run waits for, and copied compressed bytes out of the page cache in four to seven
//! hundredths of its time. A worker that gets a block of which it may count the lines (`far`) does that instead.
//!
//! Nobody waits here: a worker takes what is in the page cache, and the reader reads itself what is not there yet,
//! even if a worker is at it. Pieces end at the same bytes whoever reads: of a damaged file a decoder gives more or
//! less, by that. The end of the file is the reader's, which sees what has become of the file.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bytes::{PACKED, Place};

/// So many pieces are kept: workers fetch when they come to a chunk, and may be some chunks behind the reader.
const PIECES: usize = 3;

/// The reader's end of it. When that is dropped nobody fetches any more.
pub(super) struct Store(pub(super) Arc<Stock>);

impl Drop for Store {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        (state.next, state.pieces, state.empty) = (None, VecDeque::new(), Vec::new());
    }
}

/// The next pieces of one file.
pub(super) struct Stock {
    place: Place,
    state: Mutex<State>,
}

struct State {
    /// Where the next piece begins that is to be fetched; `None` while the reader reads itself, and when it is done.
    next: Option<u64>,
    /// One behind the other; the last ends there.
    pieces: VecDeque<Vec<u8>>,
    /// Buffers that were used, each of a piece's size.
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
        for _ in 0..PIECES {
            let Some((at, mut bytes)) = self.begin() else { break };
            bytes.resize(PACKED, 0);
            let is_whole = (self.place.look)(&self.place.home, &mut bytes, at) == PACKED;
            if !self.end(at, bytes, is_whole) {
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
        Some((at, state.empty.pop().unwrap_or_else(|| Vec::with_capacity(PACKED))))
    }

    /// Keeps the piece that begins at `at`, if it is whole; says whether that was of use.
    fn end(&self, at: u64, bytes: Vec<u8>, is_whole: bool) -> bool {
        let mut state = self.state.lock();
        state.busy = false;
        let is_next = is_whole && state.next == Some(at);
        if is_next {
            state.next = Some(at + bytes.len() as u64);
            state.pieces.push_back(bytes);
        } else if state.next.is_some() {
            state.empty.push(bytes);
        }
        is_next
    }

    /// Puts the next piece in the place of what the buffer holds; `false` if there is none, and the reader reads
    /// itself: behind that comes [`Stock::pass`].
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        let Some(piece) = state.pieces.pop_front() else {
            // What a worker is about to bring is read twice.
            state.next = None;
            return false;
        };
        let used = std::mem::replace(bytes, piece);
        if used.capacity() == PACKED {
            state.empty.push(used);
        }
        true
    }

    /// The reader has read itself what stands before `at`.
    pub(super) fn pass(&self, at: u64) {
        self.state.lock().next = Some(at);
    }
}
