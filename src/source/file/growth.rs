//! One reader at a time may hold a chunk that outgrew its size: a record larger than a chunk grows on overdraft,
//! and with one of them at a time the overdraft is bounded by one record.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::stop::Stop;

/// How long one call waits: a reader's `read` returns within 500 ms.
const WAIT: Duration = Duration::from_millis(200);

/// Lends one permission.
#[derive(Default)]
pub(super) struct Growth {
    lent: Mutex<bool>,
    back: Condvar,
}

/// The permission to grow a chunk; given back on drop.
pub(super) struct Permission(Arc<Growth>);

impl Growth {
    /// Takes the permission. Blocks for at most 200 ms; `None` then, or when the run is stopped.
    pub(super) fn take(self: &Arc<Self>, stop: &Stop) -> Option<Permission> {
        let mut lent = self.lent.lock();
        if *lent && stop.is_running() {
            // A stop is seen at the end of this wait, which is short enough.
            self.back.wait_for(&mut lent, WAIT);
        }
        if *lent {
            return None;
        }
        *lent = true;
        Some(Permission(self.clone()))
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        *self.0.lent.lock() = false;
        self.0.back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let (growth, stop) = (Arc::new(Growth::default()), Stop::new());
        let first = growth.take(&stop);
        assert!(first.is_some());
        stop.drain();
        assert!(growth.take(&stop).is_none());
        drop(first);
        assert!(growth.take(&stop).is_some());
    }
}
