//! [`Temporary`]: a directory for files that are not whole yet, `ROOT/.pipeline/tmp-<pid>-<random>/`. It holds
//! a `lock` file that is locked as long as its run lives, and goes away with the [`Temporary`]. What dead runs
//! left is found by its free lock and swept; a directory whose lock is held, or cannot be tried, is never
//! touched.
//!
//! Making one races with another run's sweep at each step (no lock file yet, not locked yet, deleted before it
//! was locked), so the maker looks at the end whether its lock file is still there, and else begins again under
//! another name. Nobody ever waits for a lock.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Where everything stands that is not output.
pub const HIDDEN: &str = ".pipeline";
const LOCK: &str = "lock";
/// What a run stores that nothing else locks: names and places, a line each.
const CLAIM: &str = "claim";

/// A run's own directory for files that are not whole yet. Removed on drop.
#[derive(Debug)]
pub struct Temporary {
    dir: PathBuf,
    /// Locked until it is closed.
    _lock: File,
    next: AtomicU64,
}

impl Temporary {
    /// Sweeps what dead runs left under `root`, then makes a directory of its own there.
    ///
    /// # Errors
    /// If `root` is not a directory, or nothing can be made in it.
    pub fn create(root: &Path) -> Result<Arc<Self>> {
        let hidden = root.join(HIDDEN);
        sweep(&hidden);
        for _ in 0..16 {
            let name = format!("tmp-{}-{:016x}", std::process::id(), random());
            let dir = hidden.join(name);
            if let Some(lock) = make(&dir)? {
                return Ok(Arc::new(Temporary { dir, _lock: lock, next: AtomicU64::new(0) }));
            }
        }
        Err(Error::io("create a directory in", hidden, io::ErrorKind::ResourceBusy.into()))
    }

    /// A new, empty file. Removed on drop unless it was renamed.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn file(self: &Arc<Self>) -> Result<TempFile> {
        let path = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        Ok(TempFile { path, file, gone: false, _home: self.clone() })
    }

    /// Claims what is stored of partitions of which no state is kept, for as long as this lives: of two runs at once one
    /// would replace what the other stores. If both claim at the same moment, both may be refused.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run has claimed one of them.
    pub fn claim(&self, places: &[String]) -> Result<()> {
        let (new, path) = (self.dir.join("new"), self.dir.join(CLAIM));
        // One a line, whatever its name holds; seen whole or not at all.
        let lines: Vec<String> = places.iter().map(|place| format!("{place:?}")).collect();
        let ours: HashSet<&str> = lines.iter().map(String::as_str).collect();
        let text = lines.join("\n") + "\n";
        fs::write(&new, text).map_err(|error| Error::io("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| Error::io("rename a finished file to", &path, error))?;
        let hidden = self.dir.parent().unwrap_or(&self.dir);
        let others = fs::read_dir(hidden).map_err(|error| Error::io("list", hidden, error))?;
        for other in others.flatten().map(|entry| entry.path()) {
            let name = other.file_name().unwrap_or_default().to_string_lossy();
            if other == self.dir || !is_temporary(&name) || !is_held(&other) {
                continue;
            }
            // A run that just ends takes its claim with it.
            let Ok(claimed) = fs::read_to_string(other.join(CLAIM)) else { continue };
            if let Some(line) = claimed.lines().find(|line| ours.contains(line)) {
                let process = name.split('-').nth(1).unwrap_or_default();
                let holder = format!("process {process}, which stores {line}, too");
                return Err(Error::Locked { path: other.join(LOCK), holder });
            }
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

/// Whether the run that made this directory is alive.
fn is_held(dir: &Path) -> bool {
    let lock = File::open(dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        empty(&self.dir);
        // Only an empty one goes: the state stands there too.
        if let Some(hidden) = self.dir.parent() {
            let _ = fs::remove_dir(hidden);
        }
    }
}

/// A file that is not whole yet.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    gone: bool,
    _home: Arc<Temporary>,
}

impl TempFile {
    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name; what stood there is replaced.
    ///
    /// # Errors
    /// If it still has the temporary one.
    pub fn rename(&mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.gone = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.gone {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes and locks a directory; `None` if another run swept it meanwhile.
fn make(dir: &Path) -> Result<Option<File>> {
    let io = |error| Error::io("create", dir, error);
    // Not `create_dir_all` alone: the name must be new. The parent may be removed by a run that just ends.
    fs::create_dir_all(dir.parent().unwrap_or(dir)).map_err(io)?;
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            return Ok(None);
        }
        Err(error) => return Err(io(error)),
    }
    let path = dir.join(LOCK);
    let lock = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let _ = fs::remove_dir(dir);
            return Err(Error::io("create", path, error));
        }
    };
    Ok(hold(&lock, &path).then_some(lock))
}

/// Takes the lock of a file that this run made; false if a sweep was quicker.
pub fn hold(lock: &File, path: &Path) -> bool {
    match lock.try_lock() {
        // A file system without locks: no sweep can take it either.
        Ok(()) | Err(TryLockError::Error(_)) => same_file(lock, path),
        Err(TryLockError::WouldBlock) => false,
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => one.ino() == other.ino() && one.dev() == other.dev(),
        _ => false,
    }
}

/// Removes the temporary directories whose runs are dead. What fails is left for the next sweep.
fn sweep(hidden: &Path) {
    let Ok(entries) = fs::read_dir(hidden) else { return };
    for entry in entries.flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir || !is_temporary(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let dir = entry.path();
        match File::open(dir.join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() => {
                log::debug!("sweeping {}, left by a run that ended early", dir.display());
                empty(&dir);
            }
            Ok(_) => {}
            // Only goes if it is empty: another run may be about to make its lock.
            Err(_) => drop(fs::remove_dir(&dir)),
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let Some((pid, random)) = name.strip_prefix("tmp-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == 16
        && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes the files of a temporary directory, the lock last, and then the directory.
fn empty(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_file(dir.join(LOCK));
    let _ = fs::remove_dir(dir);
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
