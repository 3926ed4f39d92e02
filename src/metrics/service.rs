//! [`Services`]: what went wrong with whom, and what was tried again. A handle that sources, sinks and clients keep;
//! its clones count into the same table.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts errors and retries by service and kind. Only trouble costs anything: it locks.
///
/// The engine counts the calls of sinks and marks. A client that retries by itself counts where it decides:
///
/// ```
/// use pipeline::metrics::Services;
///
/// let services = Services::default();
/// services.retry("s3", "throttled");
/// services.error("s3", "denied");
/// let told = services.told();
/// assert_eq!((told[&("s3", "throttled")].errors, told[&("s3", "throttled")].retries), (1, 1));
/// assert_eq!((told[&("s3", "denied")].errors, told[&("s3", "denied")].retries), (1, 0));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<Mutex<Told>>);

/// Trouble by service and kind. Both are words of the program, never of an input or an answer, so there is a bounded
/// number of them.
pub type Told = BTreeMap<(&'static str, &'static str), Trouble>;

/// How often something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// How often it failed.
    pub errors: u64,
    /// How many of these were tried again.
    pub retries: u64,
}

impl Services {
    /// A request failed and is not tried again.
    pub fn error(&self, service: &'static str, kind: &'static str) {
        self.0.lock().entry((service, kind)).or_default().errors += 1;
    }

    /// A request failed and is tried again.
    pub fn retry(&self, service: &'static str, kind: &'static str) {
        let mut told = self.0.lock();
        let trouble = told.entry((service, kind)).or_default();
        trouble.errors += 1;
        trouble.retries += 1;
    }

    /// What was counted so far.
    pub fn told(&self) -> Told {
        self.0.lock().clone()
    }
}
