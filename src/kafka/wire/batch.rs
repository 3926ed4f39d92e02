//! [`Batches`] and [`Batch`]: walks the record batches (format v2) of a Fetch response without copying.
//!
//! Checks what a header claims before anyone believes it: format, length, checksum, compression, counts. It
//! allocates nothing. Records are walked by [`super::record`], after [`super::unpack`] has decompressed them.
//! Layout: the Kafka protocol guide, "Record Batch"; delete horizons and control records: KIP-534, KIP-98.

use super::damage::{Damage, Fault};
use super::record::{Cursor, Records};

/// Bytes of a batch's header.
pub const HEADER: usize = 61;
/// Base offset and length: what stands before the bytes that the length counts.
pub(crate) const PREFIX: usize = 12;
/// Where the format's number stands, in all formats.
pub(crate) const MAGIC_AT: usize = 16;
/// Where the checksum stands.
pub(crate) const CRC_AT: usize = 17;
/// Where the bytes that the checksum covers begin.
pub(crate) const CRC_FROM: usize = 21;
/// No record takes fewer bytes: seven fields of one byte each.
const LEAST_RECORD: usize = 7;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in blocks as Java's library frames them, or raw.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (KIP-110).
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The name that Kafka's settings give it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The number in a batch's attributes.
    pub(crate) fn id(self) -> u8 {
        self as u8
    }
}

/// Whose clock a batch's timestamps are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    Create,
    /// The broker's: all records have the batch's largest.
    LogAppend,
}

/// Whether checksums are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crc {
    /// They are, and must match.
    #[default]
    Check,
    /// They are believed (`check.crcs=false` in Java's words).
    Skip,
}

/// Iterates over the batches in the records of one partition of a Fetch response.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    crc: Crc,
}

impl<'a> Batches<'a> {
    /// Walks `bytes`, checking checksums.
    pub fn new(bytes: &'a [u8]) -> Self {
        Batches::with_crc(bytes, Crc::Check)
    }

    /// Walks `bytes`; checksums as told.
    pub fn with_crc(bytes: &'a [u8], crc: Crc) -> Self {
        Batches { rest: bytes, crc }
    }

    /// How many bytes were not walked. At the end: the size of a last batch that is cut off, which is normal
    /// unless no batch came before it (a broker sends the first one whole since Fetch v3).
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn advance(&mut self) -> Result<Option<Batch<'a>>, Damage> {
        if self.rest.len() <= MAGIC_AT {
            return Ok(None);
        }
        let base_offset = i64_at(self.rest, 0);
        let size = whole_size(self.rest).map_err(|fault| Damage { base_offset, fault })?;
        if size > self.rest.len() {
            return Ok(None);
        }
        let (bytes, rest) = self.rest.split_at(size);
        self.rest = rest;
        if self.crc == Crc::Check {
            check_crc(bytes).map_err(|fault| Damage { base_offset, fault })?;
        }
        let batch = Batch { bytes };
        batch.check().map_err(|fault| Damage { base_offset, fault })?;
        Ok(Some(batch))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Damage>;

    /// The next batch. After damage the walk is over.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.rest = &[];
        }
        next.transpose()
    }
}

/// The size of the batch at the front of `bytes` (at least 17 of them), header included.
fn whole_size(bytes: &[u8]) -> Result<usize, Fault> {
    let length = i32_at(bytes, 8);
    // The format first: older formats have shorter headers, and deserve the clearer message.
    match bytes[MAGIC_AT] as i8 {
        2 => {}
        magic @ 0..=1 => return Err(Fault::OldFormat { magic }),
        magic => return Err(Fault::UnknownFormat { magic }),
    }
    match usize::try_from(length) {
        Ok(length) if length >= HEADER - PREFIX => Ok(length + PREFIX),
        _ => Err(Fault::Header("batch length")),
    }
}

fn check_crc(bytes: &[u8]) -> Result<(), Fault> {
    let stored = i32_at(bytes, CRC_AT) as u32;
    let computed = crc32c::crc32c(&bytes[CRC_FROM..]);
    if stored == computed { Ok(()) } else { Err(Fault::Checksum { stored, computed }) }
}

/// One record batch, borrowed: a header that was checked, and records not yet looked at.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// At least [`HEADER`] bytes.
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    fn check(&self) -> Result<(), Fault> {
        let last = i32_at(self.bytes, 23);
        if self.base_offset() < 0 || self.base_offset().checked_add(i64::from(last) + 1).is_none() {
            return Err(Fault::Header("base offset"));
        }
        if last < 0 {
            return Err(Fault::Header("last offset delta"));
        }
        // Offsets within a batch only grow, so there are at most as many records as offsets.
        if !(0..=i64::from(last) + 1).contains(&i64::from(self.count())) {
            return Err(Fault::Header("record count"));
        }
        self.codec().map(drop)
    }

    fn codec(&self) -> Result<Compression, Fault> {
        let id = self.attributes() & 7;
        Compression::ALL.get(id as usize).copied().ok_or(Fault::UnknownCompression(id as u8))
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records as they stand in the batch: compressed, if it is.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER..]
    }

    fn attributes(&self) -> u16 {
        u16::from_be_bytes([self.bytes[21], self.bytes[22]])
    }

    /// The offset of the first record that was written into it; compaction may have removed that one.
    pub fn base_offset(&self) -> i64 {
        i64_at(self.bytes, 0)
    }

    /// The offset of the last record that was written into it, removed or not.
    pub fn last_offset(&self) -> i64 {
        self.base_offset() + i64::from(i32_at(self.bytes, 23))
    }

    /// Where to read on: also over a batch that compaction has emptied.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The epoch of the leader that wrote it, or -1.
    pub fn leader_epoch(&self) -> i32 {
        i32_at(self.bytes, 12)
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Compression {
        self.codec().unwrap_or_default()
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & 8 == 0 { TimestampType::Create } else { TimestampType::LogAppend }
    }

    /// Whether it is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & 16 != 0
    }

    /// Whether it holds no data but a marker: how a transaction ended, or who leads.
    pub fn is_control(&self) -> bool {
        self.attributes() & 32 != 0
    }

    /// Milliseconds since the epoch from which the records' times count. (Of a compacted batch with a delete
    /// horizon this is the horizon; the records' differences count from it just the same.)
    pub fn base_timestamp(&self) -> i64 {
        i64_at(self.bytes, 27)
    }

    /// The largest time of its records in milliseconds since the epoch, or -1.
    pub fn max_timestamp(&self) -> i64 {
        i64_at(self.bytes, 35)
    }

    /// Who wrote it, or -1.
    pub fn producer_id(&self) -> i64 {
        i64_at(self.bytes, 43)
    }

    /// The writer's epoch, or -1.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes([self.bytes[51], self.bytes[52]])
    }

    /// The writer's number of the first record, or -1.
    pub fn base_sequence(&self) -> i32 {
        i32_at(self.bytes, 53)
    }

    /// How many records it says to hold. Do not reserve memory for them on its word alone.
    pub fn count(&self) -> i32 {
        i32_at(self.bytes, 57)
    }

    /// Walks `records`, the payload after decompression.
    pub(crate) fn walk<'r>(&self, records: &'r [u8]) -> Result<Records<'r>, Damage> {
        let base_offset = self.base_offset();
        if (self.count() as usize).saturating_mul(LEAST_RECORD) > records.len() {
            return Err(Damage { base_offset, fault: Fault::Header("record count") });
        }
        let log_append = self.timestamp_type() == TimestampType::LogAppend;
        Ok(Records::new(Cursor {
            rest: records,
            index: 0,
            count: self.count(),
            base_offset,
            last_delta: i32_at(self.bytes, 23),
            previous_delta: -1,
            base_time: self.base_timestamp(),
            append_time: log_append.then(|| self.max_timestamp()),
        }))
    }
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    (i64::from(i32_at(bytes, at)) << 32) | i64::from(i32_at(bytes, at + 4) as u32)
}
