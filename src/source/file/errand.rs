//! What a worker does with a block of lines that the reader left to it: [`Left`].

use std::sync::Arc;

use crate::cut::Limits;
use crate::record::{Chunk, Errand, Lined};

use super::bytes::Home;
use super::fill::may_have_gap;
use super::stock::Stock;
use super::tally::{Tally, Why};

/// A block whose lines a worker counts.
pub(super) struct Left {
    pub(super) bring: Bring,
    /// Where so many blocks wait there is no time to fetch what is decoded next.
    pub(super) behind: usize,
    pub(super) tally: Arc<Tally>,
    /// Where it stands.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) limits: Limits,
    pub(super) done: Done,
    /// Whether somebody has begun with it.
    pub(super) begun: bool,
}

/// How a block comes to a worker.
pub(super) enum Bring {
    /// It is read here.
    Read(Arc<Home>),
    /// The reader has decoded it, and this is what it decodes next.
    Stands(Arc<Stock>),
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
        self.begin();
        if self.done == Done::Nothing {
            self.count(chunk);
        }
        if let Bring::Stands(stock) = &self.bring
            && self.tally.waiting() < self.behind
        {
            stock.fill();
        }
    }

    fn lines(&self) -> Option<(u64, u64)> {
        self.tally.lines(self.start)
    }
}

impl Left {
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.tally.take();
        }
    }

    fn count(&mut self, chunk: &mut Chunk) {
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

    /// The block; nothing if it is not there, or another one by now.
    fn bring<'a>(&self, chunk: &'a mut Chunk) -> &'a [u8] {
        let (len, bytes) = ((self.end - self.start) as usize, &mut chunk.bytes);
        let Bring::Read(home) = &self.bring else { return bytes };
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
        self.begin();
        match self.done {
            Done::Nothing => self.tally.give_up(self.start, Why::Aborted),
            Done::Counted => self.tally.forget(self.start),
            Done::GivenUp => {}
        }
    }
}
