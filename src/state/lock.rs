//! [`Lock`]: one run at a time holds a state. The lock is the system's and ends with the process; the text in
//! the file is for people.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sink::dir::place::make_dir;

const FILE: &str = "lock";

/// Held until it is dropped. The file stays: removing it would race with the next run.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory where it is missing and takes its lock. Does not wait.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run holds it; what [`make_dir`] says.
    pub fn take(dir: &Path, host: &str) -> Result<Self> {
        make_dir(dir)?;
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|error| Error::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Err(Error::Locked { path, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
        }
        // It says who, and holds without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "process {} on {host}", std::process::id()));
        Ok(Lock { _file: file })
    }
}
