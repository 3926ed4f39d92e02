//! Claims: what keeps two runs apart that store the same partitions and remember nothing ([`Claims`]).
//!
//! In a bucket a claim is an object below `.pipeline/claims/` that says what its run stores ([`BucketClaim`]). A run makes
//! its own, and then looks at the others: of two runs at least one sees the other, and gives way. It is renewed like a
//! lease, and over when it was not for a minute, or at once when its process, of this machine, is gone.

use std::sync::Arc;

#[cfg(feature = "s3")]
pub use bucket::BucketClaim;

use super::Leftovers;
use crate::error::Result;
use crate::sink::dir::temporary::Temporary;

/// Keeps other runs from what this one stores, for as long as it lives.
#[derive(Default)]
pub struct Claims {
    /// In directories.
    pub dirs: Vec<Arc<Temporary>>,
    /// In a bucket.
    #[cfg(feature = "s3")]
    pub bucket: Option<BucketClaim>,
}

impl Claims {
    /// Keeps them. To be called now and then while the run goes on, from a thread that may wait for a moment.
    ///
    /// # Errors
    /// [`crate::Error::Locked`] if another run did not know of them any more: nothing more may be stored.
    pub fn tend(&self) -> Result<()> {
        #[cfg(feature = "s3")]
        if let Some(claim) = &self.bucket {
            return claim.tend();
        }
        Ok(())
    }

    /// Deletes all objects of these partitions, which are claimed. Durable on return.
    ///
    /// # Errors
    /// If something cannot be deleted, or another run stores there meanwhile.
    pub fn remove<'a>(&self, from: &Leftovers, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        names.into_iter().try_for_each(|name| {
            self.tend()?;
            from.remove([name]).map(drop)
        })
    }
}

#[cfg(feature = "s3")]
mod bucket {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::Arc;
    use std::time::Instant;

    use parking_lot::Mutex;
    use serde::{Deserialize, Serialize};

    use crate::error::{Error, Result};
    use crate::s3::{self, Bucket, Condition, Content, Object};
    use crate::state::bucket::{LEASE, PAGE, RENEW, Tries, lives, process};

    /// A claim that stands in a bucket.
    pub struct BucketClaim {
        bucket: Arc<Bucket>,
        tries: Tries,
        key: String,
        body: Vec<u8>,
        due: Mutex<Instant>,
    }

    /// What stands in it.
    #[derive(Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Claimed {
        /// For people.
        holder: String,
        /// For runs on the same machine.
        process: String,
        /// Sorted.
        places: Vec<String>,
    }

    impl BucketClaim {
        /// Claims these places below `prefix`, which is empty or ends in a slash. Blocks.
        ///
        /// # Errors
        /// [`Error::Locked`] if another run has claimed one of them, or what keeps that from being known.
        pub fn take(
            bucket: Arc<Bucket>,
            prefix: &str,
            mut places: Vec<String>,
            tries: Tries,
        ) -> Result<Self> {
            places.sort_unstable();
            let id = std::process::id();
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let claimed = Claimed { holder: format!("process {id} on {host}"), process: process(id), places };
            let dir = format!("{prefix}.pipeline/claims/");
            let key = format!("{dir}{:016x}", RandomState::new().hash_one(id));
            let body = serde_json::to_vec(&claimed).unwrap_or_default();
            let due = Mutex::new(Instant::now() + RENEW);
            let claim = BucketClaim { bucket, tries, key, body, due };
            claim.tries.patiently(&claim.bucket, || claim.put(Condition::None))?;
            let mut from = None;
            loop {
                let list = || claim.bucket.list(&dir, None, PAGE, from.as_deref());
                let page = claim.tries.patiently(&claim.bucket, list)?;
                page.keys.iter().try_for_each(|other| claim.yield_to(other, &claimed.places))?;
                from = page.next;
                if from.is_none() {
                    return Ok(claim);
                }
            }
        }

        /// Looks at another claim.
        fn yield_to(&self, other: &str, ours: &[String]) -> Result<()> {
            if other == self.key {
                return Ok(());
            }
            let read = self.tries.patiently(&self.bucket, || self.bucket.get(other))?;
            // A run that just ends takes its claim with it.
            let Some((found, bytes)) = read else { return Ok(()) };
            let theirs: Claimed = serde_json::from_slice(&bytes).unwrap_or_default();
            if found.age.unwrap_or_default() >= LEASE || lives(&theirs.process) == Some(false) {
                // It says nothing any more, whether it can be deleted or not.
                if let Err(error) = self.bucket.delete(other) {
                    log::debug!("{error}");
                }
                return Ok(());
            }
            match theirs.places.iter().find(|place| ours.binary_search(place).is_ok()) {
                Some(place) => {
                    let holder = format!("{}, which stores {place}, too", theirs.holder);
                    Err(Error::Locked { path: self.bucket.url(other).into(), holder })
                }
                None => Ok(()),
            }
        }

        fn put(&self, condition: Condition<'_>) -> s3::Result<String> {
            let headers = [("content-type", "application/json".to_owned())];
            let object = Object { key: &self.key, headers: &headers, ..Object::default() };
            self.bucket.put(&object, Content::Bytes(&self.body), condition)
        }

        pub(super) fn tend(&self) -> Result<()> {
            let Some(mut due) = self.due.try_lock().filter(|due| **due <= Instant::now()) else {
                return Ok(());
            };
            *due = Instant::now() + RENEW;
            let renewed = self.bucket.head(&self.key).and_then(|found| match found {
                Some(found) => match self.put(Condition::Match(&found.etag)) {
                    Err(error) if matches!(error.status(), Some(404 | 412)) => Ok(false),
                    // The store knows no conditions.
                    Err(error) if matches!(error.status(), Some(400 | 501)) => {
                        self.put(Condition::None).map(|_| true)
                    }
                    other => other.map(|_| true),
                },
                None => Ok(false),
            });
            match renewed {
                Ok(true) => Ok(()),
                Ok(false) => {
                    let path = self.bucket.url(&self.key).into();
                    Err(Error::Locked { path, holder: "a run that has taken it over".into() })
                }
                Err(error) => {
                    *due = Instant::now() + RENEW / 4;
                    self.bucket.again(&error, 1, None, RENEW / 4);
                    Ok(())
                }
            }
        }
    }

    #[cfg(all(test, feature = "http"))]
    impl BucketClaim {
        /// It is to be renewed at once.
        pub(in crate::state) fn make_due(&self) {
            *self.due.lock() = Instant::now();
        }
    }

    impl Drop for BucketClaim {
        fn drop(&mut self) {
            if let Err(error) = self.bucket.delete(&self.key) {
                log::warn!("{error}; for a minute no other run stores here what this one did");
            }
        }
    }
}
