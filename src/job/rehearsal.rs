//! The sink of a dry run: prints the first outputs on stdout, counts the rest, stores nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use memchr::memchr_iter;

use crate::batch::{Batch, Body, Piece, Receipt};
use crate::error::Result;
use crate::sink::stream::StdoutSink;
use crate::sink::{DeadLetters, Shape, Sink};

/// How many outputs are printed.
const SHOWN: usize = 10;

/// Prints the first outputs and stores nothing.
pub(super) struct Rehearsal {
    out: StdoutSink,
    left: AtomicUsize,
    dead_letters: DeadLetters,
}

impl Rehearsal {
    /// `dead_letters`: what the run would do with them.
    pub(super) fn new(out: StdoutSink, dead_letters: DeadLetters) -> Self {
        Rehearsal { out, left: AtomicUsize::new(SHOWN), dead_letters }
    }

    /// The first lines of a body that are still to be shown.
    fn first_lines(&self, body: &Body) -> Body {
        let mut shown = Body::default();
        for piece in body.pieces() {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                break;
            }
            let ends: Vec<usize> = memchr_iter(b'\n', piece.bytes()).take(left).collect();
            self.left.fetch_sub(ends.len(), Ordering::Relaxed);
            let end = ends.last().map_or(0, |last| last + 1);
            shown.push(Piece::owned(piece.bytes()[..end].to_vec()));
        }
        shown
    }
}

impl Sink for Rehearsal {
    fn shape(&self) -> Shape {
        Shape { dead_letters: self.dead_letters, ..self.out.shape() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            let shown =
                Batch { stored: self.first_lines(&batch.stored), failed: Body::default(), ..batch.clone() };
            self.out.store(&[shown], &mut Vec::new())?;
            receipts.push(Receipt::of(batch, None, None));
        }
        Ok(())
    }
}
