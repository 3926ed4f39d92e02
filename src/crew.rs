//! Who takes the next task: [`Crew`].
//!
//! Tasks stand in a queue, first in, first out, and workers are called to it: a job in the pool takes tasks until there
//! are none. So the oldest task runs first whatever the pool does, and a reader that feeds a worker steadily makes no
//! system call for a chunk: the worker that runs out of tasks waits for the next a moment, awake, if it is likely to
//! come. Where readers decode they are what the run waits for, and to wake others is what they need not do. There are no
//! more tasks than permits.
//!
//! One worker waits at a time; the others sleep, in the pool. A second is called when the first falls behind, or when
//! the reader is about to wait itself: then there is a task for whoever is called.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So long a worker waits for the next task: twice as long as it takes to decode a chunk.
const PATIENCE: Duration = Duration::from_micros(400);

/// Where it waited in vain the next do not wait, and twice as many the next time, but for one in so many.
const SELDOM: u32 = 64;

/// So many tasks are left to who is at work, as long as the reader is not about to wait. Where the reader is slower
/// than one worker a second would only take the reader's processor.
pub(crate) const LEFT: usize = 6;

/// Tasks, and the workers that are called to them.
pub(crate) struct Crew<T> {
    state: Mutex<State<T>>,
    /// How many tasks there are, to be looked at by who waits.
    queued: AtomicUsize,
    /// So many may be at work.
    workers: usize,
    patience: Duration,
}

struct State<T> {
    tasks: VecDeque<T>,
    /// Workers that were called and have not left.
    at_work: usize,
    /// Whether one of them waits for a task.
    waits: bool,
    /// So many do not wait, because that was in vain for the last that did; and how many that will be the next time.
    skips: u32,
    again: u32,
}

/// What comes after a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another, very soon: the reader has more at hand.
    Soon,
    /// Nobody knows.
    Unknown,
}

impl<T> Crew<T> {
    pub fn new(workers: usize) -> Self {
        let state = State { tasks: VecDeque::new(), at_work: 0, waits: false, skips: 0, again: 1 };
        Crew {
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            workers: workers.max(1),
            patience: PATIENCE,
        }
    }

    /// Adds a task. Says whether a worker is to be called, which counts as called then.
    #[must_use]
    pub fn put(&self, task: T, next: Next) -> bool {
        let mut state = self.state.lock();
        state.tasks.push_back(task);
        self.queued.store(state.tasks.len(), Ordering::Release);
        let left = if next == Next::Soon && state.at_work > 0 { LEFT } else { 0 };
        self.calls(&mut state, left)
    }

    /// Nothing is added for a while. Says whether a worker is to be called.
    #[must_use]
    pub fn hurry(&self) -> bool {
        self.calls(&mut self.state.lock(), 0)
    }

    fn calls(&self, state: &mut State<T>, left: usize) -> bool {
        let calls = state.at_work < self.workers && state.tasks.len() > left + usize::from(state.waits);
        state.at_work += usize::from(calls);
        calls
    }

    /// The next task, for a worker that was called; `None` if it is to leave. Waits for a moment if one is likely to
    /// come.
    pub fn next(&self, next: Next) -> Option<T> {
        let mut state = self.state.lock();
        if state.tasks.is_empty() && next == Next::Soon && !state.waits {
            if state.skips > 0 {
                state.skips -= 1;
            } else {
                state.waits = true;
                drop(state);
                self.wait();
                state = self.state.lock();
                state.waits = false;
                if state.tasks.is_empty() {
                    (state.skips, state.again) = (state.again, SELDOM.min(state.again * 2));
                } else {
                    state.again = 1;
                }
            }
        }
        let task = state.tasks.pop_front();
        self.queued.store(state.tasks.len(), Ordering::Release);
        state.at_work -= usize::from(task.is_none());
        task
    }

    /// How many tasks there are.
    pub fn waiting(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Waits for a task, awake: others on this processor go first.
    fn wait(&self) {
        let begun = Instant::now();
        while self.queued.load(Ordering::Acquire) == 0 && begun.elapsed() < self.patience {
            std::thread::yield_now();
        }
    }

    /// A worker leaves although there may be tasks. Says whether another is to be called.
    #[must_use]
    pub fn leave(&self) -> bool {
        let mut state = self.state.lock();
        state.at_work -= 1;
        self.calls(&mut state, 0)
    }
}

#[cfg(test)]
mod tests;
