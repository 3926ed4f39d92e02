//! Writing to whatever a descriptor is: a file, a device, a pipe, a terminal. Waits for a reader by polling,
//! so that a stop is seen although nobody reads.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};

use crate::batch::Body;
use crate::stop::Stop;

/// How long a wait lasts before the stop is looked at.
pub const TICK: Duration = Duration::from_millis(100);
/// What a pipe takes at once where `poll` says that it takes anything: PIPE_BUF of Linux.
const ATOM: usize = 4096;

/// How a descriptor must be written so that nothing waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file or a block device: as it comes.
    Plain,
    /// It does not block: a write takes what there is room for.
    Open,
    /// It blocks, and must stay so because others share it: wait for room, then write no more than certainly
    /// fits.
    Shared,
}

impl Kind {
    /// What this descriptor is.
    pub fn of(file: &File) -> io::Result<Kind> {
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_block_device() {
            return Ok(Kind::Plain);
        }
        let blocks = !fcntl_getfl(file)?.contains(OFlags::NONBLOCK);
        Ok(if blocks { Kind::Shared } else { Kind::Open })
    }
}

/// Why not everything was written.
#[derive(Debug)]
pub enum WriteError {
    /// The run was aborted while nobody read.
    Stopped,
    /// The system said so.
    Io(io::Error),
}

/// Another descriptor of the same pipe or terminal that does not block. The flag belongs to the open file, which
/// this process shares with its parent, so it must not be set on the descriptor that was given; opening it
/// anew makes another one. `None` where that cannot be done: a socket, no `/proc`.
pub fn reopen(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    let kind = file.metadata().ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    open_device(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).ok()
}

/// Opens a device or a FIFO for writing that does not block. A FIFO that nobody reads is ENXIO.
pub fn open_device(path: &Path) -> io::Result<File> {
    // A terminal must not become the one that controls this process.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path)
}

/// Writes all of it. Blocks until it is written or the run is aborted.
pub fn write_all(file: &File, kind: Kind, body: &Body, stop: &Stop) -> Result<(), WriteError> {
    let limit = if kind == Kind::Shared { ATOM } else { usize::MAX };
    for group in body.pieces().chunks(64) {
        let pieces = group.iter().flat_map(|piece| piece.bytes().chunks(limit));
        let mut slices: Vec<IoSlice<'_>> = pieces.map(IoSlice::new).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            if stop.is_aborted() {
                return Err(WriteError::Stopped);
            }
            if kind == Kind::Shared && !writable(file)? {
                continue;
            }
            // One at a time where only so much certainly fits.
            let now = if kind == Kind::Shared { 1 } else { rest.len() };
            let mut out = file;
            match out.write_vectored(&rest[..now]) {
                Ok(0) => return Err(WriteError::Io(io::ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(writable(file)?),
                Err(error) => return Err(WriteError::Io(error)),
            }
        }
    }
    Ok(())
}

/// Waits for room, not longer than a tick. An error condition counts as room: the write then tells it.
fn writable(file: &File) -> Result<bool, WriteError> {
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)], Some(&tick)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(WriteError::Io(error.into())),
    }
}
