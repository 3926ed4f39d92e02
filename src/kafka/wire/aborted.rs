//! [`Aborted`]: which batches a reader of committed records must not see. Pure.
//!
//! A Fetch response at `read_committed` lists the aborted transactions that overlap it, each by producer and
//! first offset. A producer has one transaction at a time, which ends with a marker, so it is enough to know,
//! batch by batch, which producers are inside an aborted one (KIP-98, as in Java's `CompletedFetch`).

use std::collections::BTreeSet;

use super::batch::Batch;
use super::damage::Damage;
use super::unpack::Unpacker;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Its records do not count.
    Abort,
    /// Its records count.
    Commit,
    /// A control record that says nothing about transactions.
    Other,
}

impl Marker {
    /// What a control batch says. `None` for a batch of data, and for a control batch that compaction emptied.
    ///
    /// # Errors
    /// [`Damage`] if it cannot be read.
    pub fn of(batch: &Batch<'_>, unpacker: &mut Unpacker) -> Result<Option<Marker>, Damage> {
        if !batch.is_control() {
            return Ok(None);
        }
        let Some(record) = unpacker.records(batch)?.next().transpose()? else { return Ok(None) };
        // Key: version, then type, each of two bytes; later versions may append.
        Ok(Some(match record.key {
            Some([_, _, 0, 0, ..]) => Marker::Abort,
            Some([_, _, 0, 1, ..]) => Marker::Commit,
            _ => Marker::Other,
        }))
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its records are data.
    Read,
    /// Advance over it.
    Skip,
}

/// The aborted transactions of one Fetch response and partition, followed along its batches.
#[derive(Clone, Debug, Default)]
pub struct Aborted {
    /// By first offset, the largest first.
    ahead: Vec<(i64, i64)>,
    inside: BTreeSet<i64>,
}

impl Aborted {
    /// From the response's list of (producer id, first offset); empty for `read_uncommitted`.
    pub fn new(transactions: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut ahead: Vec<_> =
            transactions.into_iter().map(|(producer, first_offset)| (first_offset, producer)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Aborted { ahead, inside: BTreeSet::new() }
    }

    /// Whether the records of `batch` count. Must see every batch of the response in order. Control batches are
    /// never data.
    ///
    /// # Errors
    /// [`Damage`] if a control batch cannot be read.
    pub fn verdict(&mut self, batch: &Batch<'_>, unpacker: &mut Unpacker) -> Result<Verdict, Damage> {
        while let Some((_, producer)) = self.ahead.pop_if(|(first, _)| *first <= batch.last_offset()) {
            self.inside.insert(producer);
        }
        if batch.is_control() {
            if Marker::of(batch, unpacker)? == Some(Marker::Abort) {
                self.inside.remove(&batch.producer_id());
            }
            return Ok(Verdict::Skip);
        }
        let aborted = batch.is_transactional() && self.inside.contains(&batch.producer_id());
        Ok(if aborted { Verdict::Skip } else { Verdict::Read })
    }
}
