//! [`Home`]: where a state is kept. A directory ([`DirHome`]) or a bucket (`bucket.rs`).

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lock::Lock;
use super::record::{FILE, NEW};
use crate::error::{Error, Result};
use crate::sink::dir::place::sync_dir;

/// Where a state is kept. One run at a time holds it.
pub trait Home: Debug + Send + Sync {
    /// How people find the state.
    fn name(&self) -> String;

    /// Takes the lock for as long as what is returned lives. `host` is for people.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run holds it.
    fn lock(&self, host: &str) -> Result<Box<dyn Held>>;

    /// What is remembered; `None` if nothing is. Without the lock it may be replaced at once.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self) -> Result<Option<Vec<u8>>>;

    /// Replaces what is remembered, as a whole. Durable on return. Only under the lock.
    ///
    /// # Errors
    /// If it is not durable.
    fn write(&self, bytes: &[u8]) -> Result<()>;

    /// The same, tried again as often as is worth it. For writes that nobody else tries again.
    ///
    /// # Errors
    /// If it is not durable.
    fn write_patiently(&self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }

    /// The directory, if it is one.
    fn dir(&self) -> Option<&Path> {
        None
    }
}

/// A lock that is held.
pub trait Held: Send + Sync {
    /// Called now and then while the run goes on, from a thread that may wait for a moment.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked) if it was lost to another run.
    fn tend(&self) -> Result<()> {
        Ok(())
    }
}

impl Held for Lock {}

/// A directory of its own.
#[derive(Clone, Debug)]
pub struct DirHome(pub PathBuf);

impl Home for DirHome {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn lock(&self, host: &str) -> Result<Box<dyn Held>> {
        let lock = Lock::take(&self.0, host)?;
        // What a run left that was killed while it replaced the file. It may not be there, and it is replaced by
        // the next write.
        let _ = fs::remove_file(self.0.join(NEW));
        Ok(Box::new(lock))
    }

    fn read(&self) -> Result<Option<Vec<u8>>> {
        let path = self.0.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        let (new, path) = (self.0.join(NEW), self.0.join(FILE));
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(Error::io("write", new, error));
        }
        fs::rename(&new, &path).map_err(|error| Error::io("rename the state to", path, error))?;
        sync_dir(&self.0)
    }

    fn dir(&self) -> Option<&Path> {
        Some(&self.0)
    }
}
