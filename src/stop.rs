//! [`Stop`]: the three states of a run. Running, then Drain (readers stop, what is in flight is finished), then
//! Abort (waits and retries end). It only ever goes forward.
//!
//! The library installs no signal handler: the first signal is the caller's `drain`, the second its `abort`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Stops a run from outside, or asks whether it was stopped. Clones are the same stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: AtomicU8,
    waiters: Mutex<Hooks>,
    changed: Condvar,
}

/// No clock counts so far that [`Duration::MAX`] could be added to it, which stands for "never".
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

type Hooks = Vec<Box<dyn Fn() + Send + Sync>>;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It runs.
    Running,
    /// Readers stop; what is in flight is finished and committed.
    Drain,
    /// Nothing waits and nothing is tried again.
    Abort,
}

impl Stop {
    /// A run that goes on until its end.
    pub fn new() -> Self {
        Stop::default()
    }

    /// The state now.
    pub fn phase(&self) -> Phase {
        match self.0.state.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Drain,
            _ => Phase::Abort,
        }
    }

    /// Whether readers go on.
    pub fn is_running(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// Whether waits and retries must end.
    pub fn is_aborted(&self) -> bool {
        self.phase() == Phase::Abort
    }

    /// Stops reading, finishes what is in flight.
    pub fn drain(&self) {
        self.advance(1);
    }

    /// Ends waits and retries: the run returns at once, but for a second or two in which it tells services that it is gone.
    pub fn abort(&self) {
        self.advance(2);
    }

    fn advance(&self, to: u8) {
        let hooks = self.0.waiters.lock();
        if self.0.state.fetch_max(to, Ordering::AcqRel) < to {
            self.0.changed.notify_all();
            for hook in hooks.iter() {
                // Others must hear of it all the same.
                if catch_unwind(AssertUnwindSafe(hook)).is_err() {
                    log::error!("what was to be called at a stop panicked");
                }
            }
        }
    }

    /// Calls `hook` at each change of state, from the thread that changes it: to wake a condition variable or to
    /// shut a socket down. It must not block, nor call this `Stop`.
    pub fn on_change(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.0.waiters.lock().push(Box::new(hook));
    }

    /// Calls `hook` once the run is aborted, at once if it is already. Otherwise like [`Stop::on_change`].
    pub fn on_abort(&self, hook: impl Fn() + Send + Sync + 'static) {
        // Weak, or the stop would hold itself.
        let inner = Arc::downgrade(&self.0);
        let hook = Arc::new(hook);
        let late = hook.clone();
        self.on_change(move || {
            if inner.upgrade().is_some_and(|inner| inner.state.load(Ordering::Acquire) >= 2) {
                hook();
            }
        });
        if self.is_aborted() {
            late();
        }
    }

    /// Waits. Blocks for `duration`, or until the abort.
    ///
    /// # Errors
    /// [`Error::Stopped`] on abort.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.wait(duration, Phase::Abort)
    }

    /// Waits. Blocks for `duration`, or until the drain.
    ///
    /// # Errors
    /// [`Error::Stopped`] on drain and abort.
    pub fn sleep_running(&self, duration: Duration) -> Result<()> {
        self.wait(duration, Phase::Drain)
    }

    fn wait(&self, duration: Duration, until: Phase) -> Result<()> {
        let deadline = Instant::now() + duration.min(CENTURY);
        let mut waiters = self.0.waiters.lock();
        loop {
            if self.phase() >= until {
                return Err(Error::Stopped);
            }
            if self.0.changed.wait_until(&mut waiters, deadline).timed_out() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_only_goes_forward() {
        let stop = Stop::new();
        assert_eq!(stop.phase(), Phase::Running);
        stop.abort();
        stop.drain();
        assert_eq!(stop.phase(), Phase::Abort);
    }

    #[test]
    fn a_hook_that_panics_keeps_the_stop_from_nobody() {
        let (stop, heard) = (Stop::new(), Arc::new(AtomicU8::new(0)));
        let other = heard.clone();
        stop.on_change(|| panic!("a hook"));
        stop.on_change(move || {
            other.fetch_add(1, Ordering::Relaxed);
        });
        stop.abort();
        assert!(stop.is_aborted() && heard.load(Ordering::Relaxed) == 1);
    }

    #[test]
    fn an_abort_ends_a_wait_and_a_drain_does_not() {
        let stop = Stop::new();
        stop.drain();
        assert!(stop.sleep(Duration::from_millis(1)).is_ok());
        assert!(stop.sleep_running(Duration::from_secs(3600)).is_err());
        let other = stop.clone();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.sleep(Duration::from_secs(3600)));
            other.abort();
            assert!(matches!(waiting.join(), Ok(Err(Error::Stopped))));
        });
    }

    #[test]
    fn one_may_wait_for_ever() {
        let stop = Stop::new();
        let other = stop.clone();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.sleep(Duration::MAX));
            other.abort();
            assert!(matches!(waiting.join(), Ok(Err(Error::Stopped))));
        });
    }

    #[test]
    fn each_change_calls_the_hooks_once() {
        let count = Arc::new(AtomicU8::new(0));
        let stop = Stop::new();
        let seen = count.clone();
        stop.on_change(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        stop.drain();
        stop.drain();
        stop.abort();
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
