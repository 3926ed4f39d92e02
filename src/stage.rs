//! The only place that starts threads: named, scoped, guarded, joined.
//!
//! A stage that fails or panics stops the run, so that no other waits for it for ever. The others then see
//! disconnected channels or [`Error::Stopped`], which are consequences: the first *cause* is what the run
//! returns, not the first thread that happens to be joined.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, Scope};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::stop::Stop;

/// Starts the threads of one run.
pub(crate) struct Stages<'scope, 'env> {
    pub scope: &'scope Scope<'scope, 'env>,
    pub cause: &'scope Cause,
    pub stop: &'scope Stop,
}

impl<'scope> Stages<'scope, '_> {
    /// Starts `body` in a thread of this name. If it fails or panics, the run is aborted. The scope joins it.
    pub fn spawn(&self, name: impl Into<String>, body: impl FnOnce() -> Result<()> + Send + 'scope) {
        let name = name.into();
        let (cause, stop, label) = (self.cause, self.stop, name.clone());
        let guarded = move || {
            let result =
                catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&label, &*panic)));
            if let Err(error) = result {
                cause.report(error);
                stop.abort();
            }
        };
        if let Err(error) = Builder::new().name(name.clone()).spawn_scoped(self.scope, guarded) {
            self.cause.report(Error::io("start thread", name, error));
            self.stop.abort();
        }
    }
}

/// The error for a caught panic.
pub(crate) fn panicked(thread: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::Panicked { thread: thread.into(), message: message.unwrap_or_else(|| "no message".into()) }
}

/// The first cause of a run's end.
#[derive(Default)]
pub(crate) struct Cause(Mutex<Option<Error>>);

impl Cause {
    /// Keeps the error if it is the first that is a cause.
    pub fn report(&self, error: Error) {
        let mut first = self.0.lock();
        if first.is_none() && error.is_cause() {
            *first = Some(error);
        } else if error.is_cause() {
            log::warn!("after the first error: {error}");
        }
    }

    /// The cause, if there was one.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_is_kept_and_consequences_are_not() {
        let cause = Cause::default();
        cause.report(Error::Stopped);
        assert!(cause.0.lock().is_none());
        cause.report(Error::Usage("first".into()));
        cause.report(Error::Usage("second".into()));
        assert_eq!(cause.take().unwrap().to_string(), "first");
    }

    #[test]
    fn a_panic_stops_the_run_and_names_the_thread() {
        let (cause, stop) = (Cause::default(), Stop::new());
        std::thread::scope(|scope| {
            Stages { scope, cause: &cause, stop: &stop }.spawn("read-7", || panic!("told {}", "so"));
        });
        assert!(stop.is_aborted());
        assert_eq!(cause.take().unwrap().to_string(), "thread read-7 panicked: told so");
    }
}
