//! What a worker does with a block of lines that the reader left to it: [`Left`].

use std::sync::Arc;

use crate::cut::Limits;
use crate::record::{Chunk, Errand, Lined};

use super::bytes::Home;
use super::fill::may_have_gap;
use super::tally::{Tally, Why};

/// A block whose lines a worker counts.
pub(super) struct Left {
    /// Where it reads the block; `None` if the reader has brought that.
    pub(super) home: Option<Arc<Home>>,
    pub(super) tally: Arc<Tally>,
    /// Where it stands.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) limits: Limits,
    pub(super) done: Done,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Nothing,
    Counted,
    GivenUp,
}

impl Errand for Left {
    fn run(&mut self, chunk: &mut Chunk) {
        if self.done == Done::Counted {
            return;
        }
        let lines = bytecount::count(self.bring(chunk), b'\n');
        // The reader would have ended blocks elsewhere, or there is a fault: it shall see that itself.
        if lines == 0 || lines as u64 >= self.limits.block_records || may_have_gap(&chunk.bytes) {
            self.done = Done::GivenUp;
            self.tally.give_up(self.start, Why::Unfit);
            chunk.bytes.clear();
            return;
        }
        self.done = Done::Counted;
        self.tally.count(self.start, self.end, lines as u64);
        chunk.lined = Lined::new(lines as u32);
    }

    fn lines(&self) -> Option<(u64, u64)> {
        self.tally.lines(self.start)
    }
}

impl Left {
    /// The block; nothing if it is not there, or another one by now.
    fn bring<'a>(&self, chunk: &'a mut Chunk) -> &'a [u8] {
        let (len, bytes) = ((self.end - self.start) as usize, &mut chunk.bytes);
        let Some(home) = &self.home else { return bytes };
        bytes.clear();
        bytes.reserve_exact(len);
        while bytes.len() < len {
            match home.read_at(bytes, self.start + bytes.len() as u64) {
                Ok(0) | Err(_) => return &[],
                Ok(_) => {}
            }
        }
        bytes.truncate(len);
        if bytes.ends_with(b"\n") { bytes } else { &[] }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        match self.done {
            Done::Nothing => self.tally.give_up(self.start, Why::Aborted),
            Done::Counted => self.tally.forget(self.start),
            Done::GivenUp => {}
        }
    }
}
