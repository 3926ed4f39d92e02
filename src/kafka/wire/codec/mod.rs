//! The four compressions, each into and out of recycled buffers. Bytes only.

pub(crate) mod gzip;
pub(crate) mod snappy;
pub(crate) mod lz4;
pub(crate) mod zstd;
