//! The bytes of one input, decoded: [`Bytes`], and [`Raw`] and [`Unpacked`], which give them.
//!
//! Plain `read` and `pread` into the caller's spare capacity, which needs neither zeroing nor a copy. A regular file is
//! read up to the size it had when it was opened; at its end it is asked whether it is still the same. Pipes and
//! devices are polled, so that a stop is seen.

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::codec::decode::{Decoder, Packing};
use crate::error::{Error, Result, Retry};

use super::stock::{Stock, Store};

/// Gives the bytes of one input.
pub(super) trait Bytes: Send {
    /// Appends to `out` as many bytes as its spare capacity takes; there must be some. Returns within 200 ms.
    fn read(&mut self, out: &mut Vec<u8>) -> Got;

    /// The next read begins at byte `to`, wherever the last one ended: somebody else reads what stands between, or it
    /// is read again. `false` if that cannot be: nothing but a regular file that is not compressed has such places.
    fn pass(&mut self, to: u64) -> bool;
}

/// What came of a read.
#[derive(Debug)]
pub(super) enum Got {
    /// The buffer grew.
    Bytes,
    /// Nothing yet.
    Idle,
    /// There is nothing more; says so again if asked again.
    End(End),
    /// The rest cannot be read.
    Failed(Error),
}

/// How an input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This is all of it.
    Whole,
    /// It grew while it was read, and was read up to its size before.
    Grew,
}

/// A pipe is asked this long before the caller hears that there is nothing.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// How much of a compressed file is read at a time. Not whole pages: the kernel would copy from the beginning of a page
/// to a few bytes behind one, where the allocator puts large buffers, and that takes some processors six times as long.
pub(super) const PACKED: usize = (128 << 10) - 64;

/// What is said of one that is not what it was.
pub(super) const CHANGED: &str = "it was changed while it was read";

/// By so many of its first bytes a file that grew is told from one that was overwritten.
const HEAD: usize = 4 << 10;

/// How often a compressed file is read before the caller hears that there is nothing.
const READS: usize = 256;

/// How it is seen what nobody has to wait for: [`Home::at_hand`].
pub(super) type Look = fn(&Home, &mut [u8], u64) -> usize;

/// A file in which anybody may read anywhere.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) home: Arc<Home>,
    /// How large it was when it was opened.
    pub(super) size: u64,
    pub(super) look: Look,
}

/// An open file, and what it is called.
pub(super) struct Home {
    file: File,
    name: String,
    path: PathBuf,
}

impl Home {
    pub(super) fn damaged(&self, position: u64, reason: impl Into<String>) -> Error {
        Error::Damaged { name: self.name.clone(), unit: "byte", position, reason: reason.into() }
    }

    /// It ends at `position`, where there were `before` bytes.
    pub(super) fn truncated(&self, position: u64, before: u64) -> Error {
        let now = self.file.metadata().map_or(position, |now| now.len());
        let reason = format!("it was truncated while it was read, from {before} to {now} bytes");
        self.damaged(position, reason)
    }

    /// Appends to `out` what stands from `at` on, as much as its spare capacity takes; says how much.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn read_at(&self, out: &mut Vec<u8>, at: u64) -> Result<usize> {
        loop {
            match rustix::io::pread(&self.file, spare_capacity(out), at) {
                Err(Errno::INTR) => {}
                other => return other.map_err(|error| Error::io("read", &self.path, error.into())),
            }
        }
    }

    /// Reads what stands from `at` on if nobody has to wait for it; says how much that is.
    #[cfg(target_os = "linux")]
    pub(super) fn at_hand(&self, out: &mut [u8], at: u64) -> usize {
        let out = &mut [IoSliceMut::new(out)];
        rustix::io::preadv2(&self.file, out, at, rustix::io::ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    /// Whether anybody would have to wait is not known here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn at_hand(&self, _out: &mut [u8], _at: u64) -> usize {
        0
    }
}

/// The bytes of a file as they are, or of stdin, a pipe, a device.
pub(super) struct Raw {
    home: Arc<Home>,
    /// What a regular file was when it was opened; `None` for what has no size.
    opened: Option<Metadata>,
    /// The first bytes of a regular file as they were read.
    head: Vec<u8>,
    at: u64,
    consumed: Arc<AtomicU64>,
    /// How many bytes of this are in `consumed`: what is read again is not.
    told: u64,
    end: Option<End>,
}

impl Raw {
    /// Opens a regular file.
    pub(super) fn regular(name: &str, path: &Path, consumed: &Arc<AtomicU64>) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            // It was there when the run began, so the next one does not ask for it.
            io::ErrorKind::NotFound => {
                Error::other(format!("input {name} is gone since the run began"), Retry::Transient, error)
            }
            _ => Error::io("open", path, error),
        })?;
        let opened = file.metadata().map_err(|error| Error::io("read", path, error))?;
        let opened = opened.is_file().then_some(opened);
        Ok(Raw { opened, ..Raw::stream(name, path, file, consumed) })
    }

    /// Opens a pipe or a device. Without waiting for whoever writes to it: `open` would not see a stop.
    pub(super) fn device(name: &str, path: &Path, consumed: &Arc<AtomicU64>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::io("open", path, error.into()))?;
        Ok(Raw::stream(name, path, File::from(fd), consumed))
    }

    /// Standard input.
    pub(super) fn stdin(consumed: &Arc<AtomicU64>) -> Result<Self> {
        let fd = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::io("open", "standard input", error))?;
        Ok(Raw::stream("stdin", Path::new("standard input"), File::from(fd), consumed))
    }

    fn stream(name: &str, path: &Path, file: File, consumed: &Arc<AtomicU64>) -> Self {
        let (name, path, consumed) = (name.to_owned(), path.to_owned(), consumed.clone());
        let home = Arc::new(Home { file, name, path });
        Raw { home, opened: None, head: Vec::new(), at: 0, consumed, told: 0, end: None }
    }

    /// Its size when it was opened; `None` for what has no size.
    pub(super) fn size(&self) -> Option<u64> {
        self.opened.as_ref().map(Metadata::len)
    }

    /// How many of these bytes are still to be read.
    pub(super) fn rest(&self) -> Option<u64> {
        self.size().map(|size| size.saturating_sub(self.at))
    }

    /// Goes on at byte `to` of a regular file.
    pub(super) fn seek(&mut self, to: u64) {
        (self.at, self.end) = (to, None);
        self.tell();
    }

    fn tell(&mut self) {
        let more = self.at.saturating_sub(self.told);
        self.consumed.fetch_add(more, Ordering::Relaxed);
        self.told += more;
    }

    /// The file, if it is a regular one.
    pub(super) fn place(&self) -> Option<Place> {
        let size = self.size()?;
        Some(Place { home: self.home.clone(), size, look: Home::at_hand })
    }

    /// How many bytes were read, or passed over.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.home.damaged(self.at, reason)
    }

    fn failed(&self, error: io::Error) -> Got {
        Got::Failed(Error::io("read", &self.home.path, error))
    }

    /// Whether it is the file still that it was when it was opened, or that one with more behind it.
    ///
    /// # Errors
    /// What has become of it, or [`Error::Io`].
    pub(super) fn check_now(&self) -> Result<()> {
        self.opened.as_ref().map_or(Ok(()), |opened| self.check(opened).map(drop))
    }

    /// What became of a regular file while it was read, and its size.
    fn check(&self, opened: &Metadata) -> Result<(End, u64)> {
        let now = self.home.file.metadata().map_err(|error| Error::io("read", &self.home.path, error))?;
        if now.len() < opened.len() {
            return Err(self.home.truncated(self.at, opened.len()));
        }
        // A file that was removed meanwhile was read whole all the same.
        if let Ok(other) = std::fs::metadata(&self.home.path)
            && (other.dev(), other.ino()) != (opened.dev(), opened.ino())
        {
            return Err(self.damaged("it was replaced by another file while it was read"));
        }
        if now.len() > opened.len() {
            // Who appends leaves the beginning alone.
            let mut head = vec![0; self.head.len()];
            let read = self.home.file.read_exact_at(&mut head, 0);
            let shorter = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
            if shorter || (read.is_ok() && head != self.head) {
                return Err(self.damaged("it was overwritten while it was read"));
            }
            read.map_err(|error| Error::io("read", &self.home.path, error))?;
            return Ok((End::Grew, now.len()));
        }
        if now.modified().ok() != opened.modified().ok() {
            return Err(self.damaged(CHANGED));
        }
        Ok((End::Whole, now.len()))
    }

    fn read_regular(&mut self, out: &mut Vec<u8>, opened: &Metadata) -> Got {
        if self.at >= opened.len() {
            return match self.check(opened) {
                Ok((end, now)) => {
                    if end == End::Grew {
                        log::warn!(
                            "{} grew from {} to {now} bytes while it was read; run again to process the rest",
                            self.home.name,
                            opened.len(),
                        );
                    }
                    self.ended(end)
                }
                Err(error) => Got::Failed(error),
            };
        }
        match self.home.read_at(out, self.at) {
            Ok(0) => Got::Failed(self.home.truncated(self.at, opened.len())),
            Ok(count) => {
                let beyond = (self.at + count as u64).saturating_sub(opened.len());
                out.truncate(out.len() - beyond as usize);
                // The first time: what it was then is what counts.
                if self.at == 0 && self.head.is_empty() {
                    let first = out.len() - (count - beyond as usize);
                    self.head = out[first..].iter().copied().take(HEAD).collect();
                }
                self.took(count as u64 - beyond)
            }
            Err(error) => Got::Failed(error),
        }
    }

    fn read_stream(&mut self, out: &mut Vec<u8>) -> Got {
        let mut fds = [PollFd::new(&self.home.file, PollFlags::IN)];
        match poll(&mut fds, Some(&PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => return Got::Idle,
            Ok(_) => {}
            Err(error) => return self.failed(error.into()),
        }
        match read(&self.home.file, out) {
            Ok(0) => self.ended(End::Whole),
            Ok(count) => self.took(count as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Got::Idle,
            Err(error) => self.failed(error),
        }
    }

    fn took(&mut self, count: u64) -> Got {
        self.at += count;
        self.tell();
        Got::Bytes
    }

    fn ended(&mut self, end: End) -> Got {
        self.end = Some(end);
        Got::End(end)
    }
}

/// Reads into the spare capacity.
fn read(file: &File, out: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match rustix::io::read(file, spare_capacity(out)) {
            Err(Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

impl Bytes for Raw {
    fn pass(&mut self, to: u64) -> bool {
        if self.opened.is_some() {
            self.seek(to);
        }
        self.opened.is_some()
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        if let Some(end) = self.end {
            return Got::End(end);
        }
        match self.opened.take() {
            Some(opened) => {
                let got = self.read_regular(out, &opened);
                self.opened = Some(opened);
                got
            }
            None => self.read_stream(out),
        }
    }
}

/// The bytes of a compressed input, decoded.
pub(super) struct Unpacked {
    raw: Raw,
    /// What workers fetch of them.
    stock: Option<Store>,
    input: Vec<u8>,
    at: usize,
    decoder: Decoder,
    decoded: u64,
    /// What is wrong with the rest.
    failed: Option<String>,
}

impl Unpacked {
    /// Decodes `raw`, of which `head` was read already.
    pub(super) fn new(raw: Raw, head: Vec<u8>, packing: Packing, window_limit: u64) -> Self {
        Unpacked {
            stock: raw.place().map(|place| Store(Arc::new(Stock::new(place, raw.at())))),
            raw,
            input: head,
            at: 0,
            decoder: Decoder::new(packing, window_limit),
            decoded: 0,
            failed: None,
        }
    }

    /// The compressed bytes.
    pub(super) fn raw(&self) -> &Raw {
        &self.raw
    }

    /// The same, to be read in another way.
    pub(super) fn into_raw(self) -> Raw {
        self.raw
    }

    /// What workers fetch of them, if anybody can.
    pub(super) fn stock(&self) -> Option<&Arc<Stock>> {
        self.stock.as_ref().map(|store| &store.0)
    }

    /// Looks in another way at what is at hand.
    #[cfg(test)]
    pub(super) fn looking(self, look: Look) -> Self {
        let place = self.raw.place().map(|place| Place { look, ..place });
        Unpacked { stock: place.map(|place| Store(Arc::new(Stock::new(place, self.raw.at())))), ..self }
    }

    fn refill(&mut self) -> Got {
        self.at = 0;
        if self.stock.as_ref().is_some_and(|store| store.0.take(&mut self.input)) {
            return self.raw.took(self.input.len() as u64);
        }
        self.input.clear();
        self.input.reserve_exact(PACKED);
        let got = self.raw.read(&mut self.input);
        if let Some(store) = &self.stock {
            store.0.pass(self.raw.at());
        }
        match got {
            Got::End(end) => match self.decoder.finish() {
                Ok(()) => Got::End(end),
                Err(reason) => self.fault(reason),
            },
            other => other,
        }
    }

    fn fault(&mut self, reason: String) -> Got {
        let position = self.raw.at() - (self.input.len() - self.at) as u64;
        self.failed = Some(reason.clone());
        let reason = format!(
            "{reason} (of the compressed file, there or behind it; {} bytes were decoded)",
            self.decoded
        );
        Got::Failed(Error::Damaged { name: self.raw.home.name.clone(), unit: "byte", position, reason })
    }
}

impl Bytes for Unpacked {
    fn pass(&mut self, _to: u64) -> bool {
        false
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        // Bounded, since input without output (a thousand empty members) must not keep a stop from being seen.
        for _ in 0..READS {
            if let Some(reason) = self.failed.take() {
                return self.fault(reason);
            }
            let before = out.len();
            let result = self.decoder.decode(&self.input[self.at..], out);
            let grew = out.len() - before;
            self.decoded += grew as u64;
            match result {
                Ok(0) if grew == 0 && self.at < self.input.len() => {
                    self.failed = Some("it makes no sense".into())
                }
                Ok(used) => self.at += used,
                Err(reason) => self.failed = Some(reason),
            }
            if grew > 0 {
                return Got::Bytes;
            }
            if self.at < self.input.len() || self.failed.is_some() {
                continue;
            }
            match self.refill() {
                Got::Bytes => {}
                other => return other,
            }
        }
        Got::Idle
    }
}
