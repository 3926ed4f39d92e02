//! One file as the output: written under `.<name>.<pid>.tmp` beside it, renamed by [`Sink::finish`], removed
//! if the run ends before that. What stands under the name is replaced only then.
//!
//! Devices and FIFOs are written as they are: no temporary name, no sync. The temporary file is locked while
//! its run lives, so that the next run can tell what a dead one left behind, and two runs at once do not race
//! for the name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Out, pipe, shape};
use crate::batch::{Batch, Receipt};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::sink::dir::place::{Fsync, is_absent, sync_dir};
use crate::sink::dir::temporary::hold;
use crate::sink::{Shape, Sink};
use crate::stop::Stop;

/// What a [`FileSink`] is made of.
#[derive(Clone)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// How it is compressed.
    pub codec: Codec,
    /// Whether the finished file survives a power failure.
    pub fsync: Fsync,
    /// Ends waits for whoever reads a FIFO.
    pub stop: Stop,
}

/// Stores everything in one file, visible when the run is finished.
pub struct FileSink {
    out: Mutex<Out>,
    /// `None` for devices, which have their name already.
    temporary: Option<Mutex<Unfinished>>,
}

impl FileSink {
    /// Opens the device, or makes the temporary file. Blocks until someone reads a FIFO, or until the abort.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run writes this file; otherwise if it cannot be written.
    pub fn create(options: FileOptions) -> Result<Self> {
        // A link stays: what it points to is replaced.
        let path = fs::canonicalize(&options.path).unwrap_or_else(|_| options.path.clone());
        let (file, temporary) = match fs::metadata(&options.path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::io("write", path, io::ErrorKind::IsADirectory.into()));
            }
            Ok(metadata) if !metadata.is_file() => (open_device(&options)?, None),
            _ => {
                let (file, unfinished) = Unfinished::create(path, options.fsync)?;
                (file, Some(Mutex::new(unfinished)))
            }
        };
        let out = Out::new(file, options.path, options.codec, options.stop)?;
        Ok(FileSink { out: Mutex::new(out), temporary })
    }
}

impl Sink for FileSink {
    fn shape(&self) -> Shape {
        Shape { service: "file", ..shape() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        self.out.lock().store(batches, receipts)
    }

    fn finish(&self) -> Result<()> {
        let mut out = self.out.lock();
        out.finish()?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let published = temporary.lock().publish(&out.file);
        // After a sync that failed the next one would succeed, without the pages that were lost.
        out.broken |= published.is_err();
        published
    }
}

fn open_device(options: &FileOptions) -> Result<File> {
    loop {
        match pipe::open_device(&options.path) {
            Ok(file) => return Ok(file),
            // A FIFO that nobody reads yet.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                options.stop.sleep_running(Duration::from_millis(50))?;
            }
            Err(error) => return Err(Error::io("open", &options.path, error)),
        }
    }
}

/// The temporary file; removed on drop unless it was published.
struct Unfinished {
    path: PathBuf,
    target: PathBuf,
    fsync: Fsync,
    published: bool,
}

impl Unfinished {
    fn create(target: PathBuf, fsync: Fsync) -> Result<(File, Self)> {
        let name = target
            .file_name()
            .ok_or_else(|| Error::Usage(format!("the output {} has no file name", target.display())))?;
        let name = format!(".{}.", name.to_string_lossy());
        let dir = directory(&target);
        // The name of the temporary file would tell nobody what is missing.
        let wrong = |what: &str| {
            let (target, dir) = (target.display(), dir.display());
            Error::Usage(format!("the output {target}: {dir} is {what}"))
        };
        match fs::metadata(dir) {
            Ok(found) if !found.is_dir() => return Err(wrong("no directory")),
            Err(error) if is_absent(&error) => return Err(wrong("not there; make it first")),
            _ => {}
        }
        sweep(dir, &name)?;
        let path = dir.join(format!("{name}{}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        if !hold(&file, &path) {
            return Err(Error::Locked { path, holder: String::new() });
        }
        Ok((file, Unfinished { path, target, fsync, published: false }))
    }

    /// Makes it visible. Again, it only makes that durable.
    fn publish(&mut self, file: &File) -> Result<()> {
        if self.fsync == Fsync::On {
            file.sync_all().map_err(|error| Error::io("sync", &self.path, error))?;
        }
        if !self.published {
            fs::rename(&self.path, &self.target)
                .map_err(|error| Error::io("rename a finished file to", &self.target, error))?;
            self.published = true;
        }
        match self.fsync {
            Fsync::On => sync_dir(directory(&self.target)),
            Fsync::Off => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what dead runs left of this output.
fn sweep(dir: &Path, prefix: &str) -> Result<()> {
    // If it cannot be listed, creating a file tells why.
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(".tmp"));
        let ours = pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        match File::open(&path).map(|file| file.try_lock()) {
            Ok(Err(fs::TryLockError::WouldBlock)) => {
                return Err(Error::Locked { path, holder: format!("process {}", pid.unwrap_or_default()) });
            }
            Ok(Ok(())) => drop(fs::remove_file(&path)),
            Ok(Err(fs::TryLockError::Error(_))) | Err(_) => {}
        }
    }
    Ok(())
}
