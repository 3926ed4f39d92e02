//! A blocking Kafka client, layer on layer: [`wire`] (bytes only), [`connection`] (one broker), then cluster,
//! group, consumer and producer.
//!
//! No async runtime, no thread of its own: whoever calls, waits, and every wait has a deadline. Message schemas
//! come from `kafka-protocol`; frames, record batches and compression are ours, because a client that reads
//! untrusted bytes must bound what it allocates (see [`wire`]).

pub mod code;
pub mod error;
pub mod wire;
pub mod sasl;
pub mod tls;
pub mod connection;
pub mod cluster;
pub mod consumer;
pub mod producer;
pub mod probe;
pub mod group;
#[cfg(test)]
pub(crate) mod fake;

pub use cluster::{
    At, Cluster, ClusterSettings, Coordinates, Isolation, Offset, PartitionInfo, Topic, TopicPartition,
};
pub use code::Code;
pub use connection::address::Address;
pub use connection::hangup::Hangup;
pub use connection::options::Options;
pub use connection::{Connection, Pending};
pub use consumer::{FetchFault, FetchFrom, FetchSettings, Fetched, Fetcher};
pub use error::{Call, Error, Result};
pub use sasl::{Mechanism, Plaintext, Sasl};
pub use tls::{Tls, TlsFiles, Verify};
