//! Bytes only: what stands on the wire, without sockets, threads or a clock.
//!
//! Read [`frame`] for requests and responses, [`batch`], [`record`] and [`unpack`] for what a Fetch brings,
//! [`aborted`] for what a reader of committed records skips, [`writer`] for what a Produce takes.
//!
//! Everything read here may be hostile: each length is checked against the bytes that are there, each count
//! against what it would take, and decompression stops at a cap. Damage is an error that names what is wrong.

pub mod api;
pub mod frame;
pub mod batch;
pub mod record;
pub mod unpack;
pub mod aborted;
pub mod writer;
pub mod damage;
mod codec;
mod guard;
pub(crate) mod varint;
#[cfg(test)]
mod tests;

pub use aborted::{Aborted, Marker, Verdict};
pub use api::Api;
pub use batch::{Batch, Batches, Compression, Crc, TimestampType};
pub use damage::{Damage, Fault};
pub use record::{Headers, Place, Record, Records};
pub use unpack::Unpacker;
pub use writer::{BatchWriter, Scope, Stamp, Unwritable};
