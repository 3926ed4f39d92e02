//! Numbers of lines that workers count: [`Tally`].
//!
//! Whoever counts the lines of a block says so before it does anything else with it; then all numbers up to the first
//! block that was not counted yet are known. Workers wait for those of blocks before their own: these were handed out
//! earlier, and tasks start in the order in which they were handed out, so that somebody is counting them now. Who
//! gives a block up says so, too, or nobody behind it would come to an end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Where the blocks of one input stand, and with which lines they begin.
pub(super) struct Tally {
    state: Mutex<State>,
    told: Condvar,
    /// How many blocks were handed out that nobody has begun with.
    waiting: AtomicUsize,
}

struct State {
    /// Everything before `at` was counted; line `line` begins there.
    at: u64,
    line: u64,
    /// What was counted, by position, while somebody may ask for it.
    counted: BTreeMap<u64, Counted>,
    /// The first block that was given up, and why.
    given_up: Option<(u64, Why)>,
}

struct Counted {
    end: u64,
    lines: u64,
    /// Number of its first line, once that is known.
    first: Option<u64>,
    /// Nobody asks for it again. Those behind it are still to be numbered.
    forgotten: bool,
}

/// Why a block was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is not one block, or cannot be read: the reader has to look at it.
    Unfit,
    /// Nobody began with it: the run is aborted.
    Aborted,
}

/// What is known of the lines before a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// The number of the line that begins there.
    Line(u64),
    /// Somebody is still counting.
    NotYet,
    /// What stands from this position on, with this line, has to be read again.
    Back(u64, u64),
    /// They will not be counted.
    Aborted,
}

impl Tally {
    pub(super) fn new() -> Self {
        let state = State { at: 0, line: 0, counted: BTreeMap::new(), given_up: None };
        Tally { state: Mutex::new(state), told: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// One more block waits for a worker.
    pub(super) fn hand_out(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker begins with one, or nobody ever will.
    pub(super) fn take(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many blocks wait for workers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The next block that is handed out begins at `at`, with line `line`. Only where none is missing.
    pub(super) fn begin(&self, at: u64, line: u64) {
        let mut state = self.state.lock();
        (state.at, state.line) = (at, line);
    }

    /// The block from `start` to `end` has so many lines.
    pub(super) fn count(&self, start: u64, end: u64, lines: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.counted.insert(start, Counted { end, lines, first: None, forgotten: false });
        while let Some(next) = state.counted.get_mut(&state.at).filter(|next| next.first.is_none()) {
            next.first = Some(state.line);
            let (at, forgotten) = (state.at, next.forgotten);
            (state.at, state.line) = (next.end, state.line + next.lines);
            if forgotten {
                state.counted.remove(&at);
            }
        }
        self.told.notify_all();
    }

    /// The block at `start` will not be counted.
    pub(super) fn give_up(&self, start: u64, why: Why) {
        let mut state = self.state.lock();
        if state.given_up.as_ref().is_none_or(|(at, _)| start < *at) {
            state.given_up = Some((start, why));
        }
        self.told.notify_all();
    }

    /// Whether a block was given up: those behind it are of no use.
    pub(super) fn is_given_up(&self) -> bool {
        self.state.lock().given_up.is_some()
    }

    /// The numbers of the line with which the block at `start` begins, and of the one behind it; `None` if it was given
    /// up, or one before it. Blocks until that is known.
    pub(super) fn lines(&self, start: u64) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        loop {
            if let Some(Counted { first: Some(first), lines, .. }) = state.counted.get(&start) {
                return Some((*first, first + lines));
            }
            if state.given_up.as_ref().is_some_and(|(at, _)| *at <= start) {
                return None;
            }
            self.told.wait(&mut state);
        }
    }

    /// Nobody asks for the block at `start` again.
    pub(super) fn forget(&self, start: u64) {
        let mut state = self.state.lock();
        match state.counted.get_mut(&start) {
            Some(counted) if counted.first.is_none() => counted.forgotten = true,
            _ => drop(state.counted.remove(&start)),
        }
    }

    /// What became of all blocks up to `end`. Blocks for at most so long.
    pub(super) fn reach(&self, end: u64, patience: Duration) -> Reached {
        let mut state = self.state.lock();
        // Only up to the first that was given up will they ever be counted.
        let last = |state: &State| state.given_up.as_ref().map_or(end, |(at, _)| *at);
        if state.at < last(&state) {
            self.told.wait_for(&mut state, patience);
        }
        match state.given_up {
            Some((first, Why::Unfit)) if first == state.at => Reached::Back(first, state.line),
            Some((first, Why::Aborted)) if first == state.at => Reached::Aborted,
            None if state.at >= end => Reached::Line(state.line),
            _ => Reached::NotYet,
        }
    }
}
