//! [`Unpacker`]: decompresses the records of a batch into one recycled buffer, never beyond a cap.
//!
//! What a compressed stream claims about its size is never believed: the buffer grows with what comes out, up to
//! the cap, and the buffer is what is reused as window, so a decoder allocates nothing that grows. (zstd's
//! one-shot decoder needs no window of its own; a streaming one takes up to 128 MiB because a header says so.)
//! Uncompressed batches are walked where they stand.

use super::batch::{Batch, Compression};
use super::codec::{self, gzip::Gunzip, zstd::Unzstd};
use super::damage::{Damage, Fault};
use super::record::{Place, Records};

/// The decompression buffer of one reader with the decoders' state. Keeps its memory from batch to batch.
pub struct Unpacker {
    out: Output,
    gzip: Option<Gunzip>,
    zstd: Option<Unzstd>,
}

impl Unpacker {
    /// Decompresses at most `cap` bytes a batch.
    pub fn new(cap: usize) -> Self {
        Unpacker { out: Output::new(cap), gzip: None, zstd: None }
    }

    /// Walks the records of `batch`, decompressing them first where they are compressed.
    ///
    /// # Errors
    /// [`Damage`] if they do not decompress, or to more than the cap.
    pub fn records<'r>(&'r mut self, batch: &Batch<'r>) -> Result<Records<'r>, Damage> {
        let payload = batch.payload();
        // Compaction leaves empty batches whose compression bits may stand.
        if batch.compression() == Compression::None || (batch.count() == 0 && payload.is_empty()) {
            return batch.walk(payload);
        }
        let size = self
            .unpack(batch.compression(), payload)
            .map_err(|fault| Damage { base_offset: batch.base_offset(), fault })?;
        batch.walk(&self.out.bytes[..size])
    }

    /// Goes on with the records of `batch` where a walk was left, without decompressing them again. Nothing else
    /// may have been unpacked since.
    ///
    /// # Errors
    /// [`Damage`] if this is another batch than the one that was left.
    pub fn resume<'r>(&'r self, batch: &Batch<'r>, place: Place) -> Result<Records<'r>, Damage> {
        let payload = batch.payload();
        let packed = batch.compression() != Compression::None;
        let records = batch.walk(if packed { &self.out.bytes[..self.out.used] } else { payload })?;
        let fault = Fault::Header("place of a walk that was left");
        records.resume(place).ok_or(Damage { base_offset: batch.base_offset(), fault })
    }

    fn unpack(&mut self, compression: Compression, payload: &[u8]) -> Result<usize, Fault> {
        self.out.used = 0;
        let out = &mut self.out;
        let done = match compression {
            Compression::None => unreachable!("uncompressed records are walked where they stand"),
            Compression::Gzip => self.gzip.get_or_insert_with(Gunzip::new).unpack(payload, out),
            Compression::Snappy => codec::snappy::unpack(payload, out),
            Compression::Lz4 => codec::lz4::unpack(payload, out),
            Compression::Zstd => self.zstd.get_or_insert_with(Unzstd::new).unpack(payload, out),
        };
        match done {
            Ok(()) => Ok(self.out.used),
            Err(Stuck::Full) => Err(Fault::TooLarge { cap: self.out.cap }),
            Err(Stuck::Damaged(reason)) => Err(Fault::Decompress { compression, reason }),
        }
    }

    /// How many bytes the buffer takes.
    pub fn memory(&self) -> usize {
        self.out.bytes.capacity()
    }

    /// Gives memory back that is above `keep` bytes: after an unusually large batch.
    pub fn shrink(&mut self, keep: usize) {
        if self.out.bytes.len() > keep {
            self.out.bytes.truncate(keep);
            self.out.bytes.shrink_to_fit();
        }
    }
}

/// Why decompression does not go on.
#[derive(Debug)]
pub(crate) enum Stuck {
    /// The cap is reached.
    Full,
    /// The input is damaged.
    Damaged(String),
}

impl Stuck {
    pub(crate) fn damaged(reason: impl ToString) -> Self {
        Stuck::Damaged(reason.to_string())
    }
}

/// The buffer: `bytes` stay initialised up to the largest size so far, so that nothing is zeroed twice.
pub(crate) struct Output {
    bytes: Vec<u8>,
    used: usize,
    cap: usize,
}

impl Output {
    fn new(cap: usize) -> Self {
        Output { bytes: Vec::new(), used: 0, cap }
    }

    /// What was written so far, and all the room there is behind it without growing.
    pub(crate) fn split(&mut self) -> (&[u8], &mut [u8]) {
        let (written, free) = self.bytes.split_at_mut(self.used);
        (written, free)
    }

    /// Counts `n` bytes as written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.used += n;
        debug_assert!(self.used <= self.bytes.len());
    }

    /// Makes room for `wanted` more bytes, or for as many as the cap still allows; fails when that is none.
    pub(crate) fn room(&mut self, wanted: usize) -> Result<(), Stuck> {
        let target = self.used.saturating_add(wanted).min(self.cap);
        if target <= self.bytes.len() {
            return if target > self.used || wanted == 0 { Ok(()) } else { Err(Stuck::Full) };
        }
        // Doubling keeps growth linear; exact, because the allocator's own doubling knows no cap.
        let target = target.max(self.bytes.len().saturating_mul(2)).min(self.cap);
        self.bytes.reserve_exact(target - self.bytes.len());
        self.bytes.resize(target, 0);
        Ok(())
    }

    /// Makes room for `wanted` more bytes and no less.
    pub(crate) fn room_exact(&mut self, wanted: usize) -> Result<&mut [u8], Stuck> {
        if wanted > self.cap - self.used {
            return Err(Stuck::Full);
        }
        self.room(wanted)?;
        Ok(&mut self.bytes[self.used..self.used + wanted])
    }

    /// Whether no more room can be made than there is now.
    pub(crate) fn is_at_cap(&self) -> bool {
        self.bytes.len() >= self.cap
    }
}
