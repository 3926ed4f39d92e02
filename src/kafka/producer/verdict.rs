//! [`Verdict`]: what a Produce error code means for the batch it is about. Pure.
//!
//! KIP-98 and KIP-360: a batch is sent again under its number, so that it is stored once. Only a code that says
//! that the broker has lost track of the numbers needs new ones, and only for a batch that cannot be stored.

use crate::error::Retry;
use crate::kafka::code::Code;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is stored.
    Stored,
    /// It was not stored: send it again.
    Again,
    /// The same, after asking who leads the partition.
    Moved,
    /// It may be stored: send it again under its number.
    Doubtful,
    /// It is too large: split it.
    Split,
    /// The broker lost track of this producer's numbers.
    Renumber,
    /// The transaction must be aborted.
    Abort,
    /// Another producer took over.
    Fenced,
    /// It will never be stored.
    Refused,
}

/// Whether batches are part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Idempotent,
    Transactional,
}

pub(super) fn judge(code: Code, mode: Mode) -> Verdict {
    match (code.0, mode) {
        // 46: it is there from an earlier try.
        (0 | 46, _) => Verdict::Stored,
        // Appended, but the answer to whether it stays came too late.
        (7 | 13 | 20, _) => Verdict::Doubtful,
        (3 | 5 | 6 | 9 | 56 | 72 | 74 | 75 | 100 | 103 | 129, _) => Verdict::Moved,
        (10 | 18, _) => Verdict::Split,
        (45 | 47 | 59, Mode::Idempotent) => Verdict::Renumber,
        // 47: whether another producer took over is for the coordinator to say, when the transaction is ended.
        (45 | 47 | 48 | 49 | 59 | 120, Mode::Transactional) => Verdict::Abort,
        (90, _) => Verdict::Fenced,
        _ if code.retry() == Retry::Transient => Verdict::Again,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_verdict_that_fits_the_table() {
        for mode in [Mode::Idempotent, Mode::Transactional] {
            for code in (-1..140).map(Code) {
                let verdict = judge(code, mode);
                let again = matches!(verdict, Verdict::Again | Verdict::Moved | Verdict::Doubtful);
                assert_eq!(again, code.retry() == Retry::Transient, "{code}");
            }
        }
    }

    #[test]
    fn what_another_try_cannot_help_is_refused() {
        for code in [-1, 1, 4, 17, 21, 29, 31, 32, 42, 43, 44, 53, 76, 87, 999] {
            assert_eq!(judge(Code(code), Mode::Idempotent), Verdict::Refused, "{code}");
            assert_eq!(judge(Code(code), Mode::Transactional), Verdict::Refused, "{code}");
        }
    }
}
