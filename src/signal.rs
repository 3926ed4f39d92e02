//! Signals of the program. The first SIGINT or SIGTERM drains the run, the second aborts it, and from then on the
//! next one kills the process: nobody is ever stuck.
//!
//! SIGUSR1 asks how far the run is, and changes nothing.
//!
//! SIGXFSZ is taken and forgotten, so that a file size limit is an error of `write` (EFBIG), not a death;
//! SIGPIPE is ignored by Rust's runtime, so that a closed pipe is one too (EPIPE).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pipeline::stop::Stop;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};

/// Which signal asked the run to stop, if one did.
#[derive(Clone, Default)]
pub struct Caught(Arc<AtomicUsize>);

impl Caught {
    /// 130 or 143, as a shell would report it.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            signal => u8::try_from(signal + 128).ok(),
        }
    }
}

/// Waits for signals until it is closed.
pub struct Watch {
    signals: Signals,
    deadly: Arc<AtomicBool>,
    stop: Stop,
    caught: Caught,
}

/// Takes the signals over. What they do begins with [`Watch::run`]; those before it are kept.
///
/// # Errors
/// The system refuses a handler.
pub fn install(stop: Stop) -> io::Result<(Watch, Handle, Caught)> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    // What was registered first acts first. So a signal finds `deadly` as the one before it left it: were this
    // registered last, the watch could learn of the second signal and set `deadly` while its handler still runs,
    // and the second would kill. Until both stand a signal does what it always did: none is lost in between.
    let deadly = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, deadly.clone())?;
    }
    let signals = Signals::new([SIGINT, SIGTERM])?;
    deadly.store(false, Ordering::SeqCst);
    // The last: who sees that it is caught knows that a signal to stop kills no more.
    signals.add_signal(SIGUSR1)?;
    let handle = signals.handle();
    let caught = Caught::default();
    Ok((Watch { signals, deadly, stop, caught: caught.clone() }, handle, caught))
}

impl Watch {
    /// Blocks until the handle is closed; stops the run when a signal comes, and calls `status` at each SIGUSR1.
    pub fn run(mut self, status: impl Fn()) {
        let mut times = 0;
        for signal in self.signals.forever() {
            if signal == SIGUSR1 {
                status();
                continue;
            }
            times += 1;
            let number = usize::try_from(signal).unwrap_or_default();
            if times == 1 {
                self.caught.0.store(number, Ordering::Release);
                log::warn!("stopping: what is in flight is finished first; a second signal aborts");
                self.stop.drain();
            } else {
                log::warn!("aborting");
                self.deadly.store(true, Ordering::SeqCst);
                self.stop.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::stop::Phase;
    use signal_hook::low_level::raise;
    use std::time::{Duration, Instant};

    /// One test for all: signals belong to the process.
    #[test]
    fn the_first_signal_drains_and_the_second_aborts() {
        let stop = Stop::new();
        let (watch, handle, caught) = install(stop.clone()).unwrap();
        raise(SIGXFSZ).unwrap();
        assert_eq!(caught.exit_code(), None);
        let asked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| watch.run(|| asked.store(true, Ordering::SeqCst)));
            raise(SIGUSR1).unwrap();
            until("asked", || asked.load(Ordering::SeqCst));
            assert!(stop.is_running());
            raise(SIGTERM).unwrap();
            until("drained", || stop.phase() == Phase::Drain);
            assert_eq!(caught.exit_code(), Some(143));
            raise(SIGINT).unwrap();
            until("aborted", || stop.phase() == Phase::Abort);
            assert_eq!(caught.exit_code(), Some(143));
            handle.close();
        });
    }

    /// Waits without sleeping for a fixed time: it ends when it is so, or the test fails.
    fn until(what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < until, "never {what}");
            std::thread::yield_now();
        }
    }
}
