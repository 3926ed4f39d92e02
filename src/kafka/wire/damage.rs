//! [`Damage`]: why bytes that should be record batches are not. Data, not I/O: the reader of a partition adds
//! topic and partition and decides what to do; nothing damaged is ever skipped in silence.

use std::fmt;

use super::batch::Compression;

/// A batch that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The offset that the batch claims to begin at; not covered by its checksum.
    pub base_offset: i64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a batch.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Message format v0 or v1, from before Kafka 0.11.
    OldFormat {
        /// The format's number.
        magic: i8,
    },
    /// A format that does not exist yet.
    UnknownFormat {
        /// The format's number.
        magic: i8,
    },
    /// The checksum does not match.
    Checksum {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A field of the batch's header cannot be.
    Header(&'static str),
    /// A compression that does not exist.
    UnknownCompression(u8),
    /// The compressed records cannot be decompressed.
    Decompress {
        /// How they are compressed.
        compression: Compression,
        /// Why not.
        reason: String,
    },
    /// The records are larger than the cap, decompressed.
    TooLarge {
        /// The cap in bytes.
        cap: usize,
    },
    /// A record cannot be read.
    Record {
        /// Which record of the batch, from 0.
        index: i32,
        /// Which part of it.
        what: &'static str,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch at offset {}: {}", self.base_offset, self.fault)
    }
}

impl std::error::Error for Damage {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::OldFormat { magic } => write!(
                f,
                "message format v{magic} is from before Kafka 0.11 and is not read; copy the topic with newer tools"
            ),
            Fault::UnknownFormat { magic } => write!(f, "unknown message format v{magic}"),
            Fault::Checksum { stored, computed } => {
                write!(f, "checksum mismatch: the batch says {stored:08x}, its bytes give {computed:08x}")
            }
            Fault::Header(field) => write!(f, "impossible {field}"),
            Fault::UnknownCompression(id) => write!(f, "unknown compression {id}"),
            Fault::Decompress { compression, reason } => {
                write!(f, "{} records are damaged: {reason}", compression.name())
            }
            Fault::TooLarge { cap } => write!(f, "decompressed records are larger than {cap} bytes"),
            Fault::Record { index, what } => write!(f, "record {index} has an impossible {what}"),
        }
    }
}
