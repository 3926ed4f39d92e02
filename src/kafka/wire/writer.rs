//! [`BatchWriter`]: builds one record batch (format v2) from records, in recycled buffers.
//!
//! Records are encoded as they come and compressed when the batch is finished. Producer id, epoch and sequence
//! are given at the end and can be stamped again on the finished bytes, because a producer whose epoch was
//! bumped sends the same records under new numbers.

use super::batch::{CRC_AT, CRC_FROM, Compression, HEADER, PREFIX};
use super::codec::{self, gzip::Gzip, zstd::Zstd};
use super::varint;

/// Java's defaults.
const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Who writes a batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// The producer's number, for this partition, of the batch's first record.
    pub sequence: i32,
    /// Whether the batch is part of a transaction.
    pub scope: Scope,
}

/// Whether a batch is part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It counts when it is appended.
    Plain,
    /// It counts when its transaction commits.
    Transaction,
}

impl Stamp {
    /// A producer without idempotence.
    pub const NONE: Stamp = Stamp { producer_id: -1, epoch: -1, sequence: -1, scope: Scope::Plain };
}

/// Why a record or a batch cannot be written.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// More than 2 GiB, or more records than a batch can count.
    TooLarge,
    /// A compressor failed.
    Compress {
        /// Which one.
        compression: Compression,
        /// What it said.
        reason: String,
    },
}

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unwritable::TooLarge => f.write_str("a record batch takes at most 2 GiB"),
            Unwritable::Compress { compression, reason } => {
                write!(f, "cannot compress with {}: {reason}", compression.name())
            }
        }
    }
}

impl std::error::Error for Unwritable {}

enum Packer {
    None,
    Gzip(Box<Gzip>),
    Snappy(Box<snap::raw::Encoder>),
    Lz4(Box<lz4_flex::block::CompressTable>),
    Zstd(Box<Zstd>),
}

impl Packer {
    fn new(compression: Compression, level: Option<i32>) -> Self {
        match compression {
            Compression::None => Packer::None,
            Compression::Gzip => Packer::Gzip(Box::new(Gzip::new(level.unwrap_or(GZIP_LEVEL)))),
            Compression::Snappy => Packer::Snappy(Box::new(snap::raw::Encoder::new())),
            // The small table turns into the large one at the first full block and stays so: the same records
            // would give other bytes before and after.
            Compression::Lz4 => Packer::Lz4(Box::new(lz4_flex::block::CompressTable::large())),
            Compression::Zstd => Packer::Zstd(Box::new(Zstd::new(level.unwrap_or(ZSTD_LEVEL)))),
        }
    }

    fn pack(&mut self, records: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Packer::None => {
                out.extend_from_slice(records);
                Ok(())
            }
            Packer::Gzip(gzip) => gzip.pack(records, out),
            Packer::Snappy(snappy) => codec::snappy::pack(snappy, records, out),
            Packer::Lz4(table) => codec::lz4::pack(table, records, out),
            Packer::Zstd(zstd) => zstd.pack(records, out),
        }
    }
}

/// Collects the records of one batch, then writes it. Keeps its memory from batch to batch.
pub struct BatchWriter {
    compression: Compression,
    packer: Packer,
    records: Vec<u8>,
    count: i32,
    base_time: i64,
    max_time: i64,
}

impl BatchWriter {
    /// Compresses with `compression` at `level` (`None`: Java's default; gzip and zstd only have levels).
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        let packer = Packer::new(compression, level);
        BatchWriter { compression, packer, records: Vec::new(), count: 0, base_time: -1, max_time: -1 }
    }

    /// Adds a record with a time in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`Unwritable::TooLarge`] if the batch would have more than 2 GiB before compression; nothing was added.
    pub fn push<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) -> Result<(), Unwritable> {
        let base_time = if self.count == 0 { timestamp } else { self.base_time };
        let (time, offset) = (timestamp.wrapping_sub(base_time), i64::from(self.count));
        let (mut names, mut size) = (0i64, 0usize);
        for (name, value) in headers.clone() {
            names += 1;
            size += slice_size(Some(name)) + slice_size(value);
        }
        size += 1 + varint::size(time) + varint::size(offset) + varint::size(names);
        size += slice_size(key) + slice_size(value);
        if self.records.len() + size + 5 > i32::MAX as usize - HEADER || self.count == i32::MAX {
            return Err(Unwritable::TooLarge);
        }
        self.records.reserve(size + 5);
        varint::put(&mut self.records, size as i64);
        self.records.push(0);
        varint::put(&mut self.records, time);
        varint::put(&mut self.records, offset);
        put_slice(&mut self.records, key);
        put_slice(&mut self.records, value);
        varint::put(&mut self.records, names);
        for (name, value) in headers {
            put_slice(&mut self.records, Some(name));
            put_slice(&mut self.records, value);
        }
        self.base_time = base_time;
        self.max_time = if self.count == 0 { timestamp } else { self.max_time.max(timestamp) };
        self.count += 1;
        Ok(())
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How large the batch would be without compression: what a broker limits after compression.
    pub fn size(&self) -> usize {
        HEADER + self.records.len()
    }

    /// Forgets the records.
    pub fn clear(&mut self) {
        self.records.clear();
        self.count = 0;
    }

    /// Appends the batch to `out` and begins a new one. Nothing is appended if there is no record. Its base
    /// offset is 0: the broker sets it.
    ///
    /// # Errors
    /// [`Unwritable`]; the records are kept and `out` is as it was.
    pub fn finish(&mut self, stamp: &Stamp, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if self.count == 0 {
            return Ok(());
        }
        let at = out.len();
        out.resize(at + HEADER, 0);
        if let Err(error) = self.pack(at, out) {
            out.truncate(at);
            return Err(error);
        }
        let batch = &mut out[at..];
        self.put_header(batch);
        restamp(batch, stamp);
        self.clear();
        Ok(())
    }

    fn pack(&mut self, at: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let compression = self.compression;
        self.packer
            .pack(&self.records, out)
            .map_err(|reason| Unwritable::Compress { compression, reason })?;
        if out.len() - at > i32::MAX as usize { Err(Unwritable::TooLarge) } else { Ok(()) }
    }

    fn put_header(&self, batch: &mut [u8]) {
        let length = (batch.len() - PREFIX) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        batch[16] = 2;
        batch[21..23].copy_from_slice(&u16::from(self.compression.id()).to_be_bytes());
        batch[23..27].copy_from_slice(&(self.count - 1).to_be_bytes());
        batch[27..35].copy_from_slice(&self.base_time.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_time.to_be_bytes());
        batch[57..61].copy_from_slice(&self.count.to_be_bytes());
    }
}

/// Writes producer, epoch, sequence and scope into a finished batch, and its checksum. What is too short to be
/// a batch is left as it is.
pub fn restamp(batch: &mut [u8], stamp: &Stamp) {
    if batch.len() < HEADER {
        return;
    }
    let transaction = if stamp.scope == Scope::Transaction { 16 } else { 0 };
    batch[22] = batch[22] & !16 | transaction;
    batch[43..51].copy_from_slice(&stamp.producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&stamp.epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&stamp.sequence.to_be_bytes());
    seal(batch);
}

/// Computes the checksum of a batch.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

fn slice_size(slice: Option<&[u8]>) -> usize {
    slice.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_slice(out: &mut Vec<u8>, slice: Option<&[u8]>) {
    match slice {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
