//! `[kafka]`: how brokers are reached, what is read from them and what is written to them. Plain data, there
//! without the feature `kafka` too; `client` makes of it what the Kafka client takes.
//!
//! Defaults: what loses nothing (read_committed, acks of all replicas, an error where data was lost upstream)
//! and what Kafka's own Java client has (sessions, assignor, partitioner, delivery). Not its compression: `lz4`
//! costs the least processor time of those that compress, every broker and client of the last ten years reads
//! it, and JSON shrinks to a fifth or a third; `none` would only move the cost to network and disks. Not its
//! fetch size either: 50 MiB an answer, twice a broker, would be most of `memory_limit`.

mod name;
#[cfg(feature = "kafka")]
mod client;

pub use name::{check_group, check_name, default_group, fingerprint};

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// Everything about Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Where to begin: `host:port` each. The cluster tells the others.
    pub brokers: Vec<String>,
    /// What the brokers' logs, metrics and quotas call this client.
    pub client_id: String,
    /// `[kafka.tls]`: encryption.
    pub tls: Tls,
    /// `[kafka.sasl]`: who logs in.
    pub sasl: Sasl,
    /// `[kafka.source]`: what is read.
    pub source: Source,
    /// `[kafka.sink]`: how it is written.
    pub sink: Sink,
    /// `[kafka.notify]`: a message for each published batch, where it is set.
    pub notify: Option<Notify>,
}

/// Encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// PEM file of the authorities that brokers are verified against; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key; it stands in the file of the certificate if `None`.
    pub key: Option<PathBuf>,
    /// Whether brokers must prove who they are.
    pub verify: bool,
}

/// Who logs in, and how. Nobody does where `username` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sasl {
    /// How; `None`: PLAIN.
    pub mechanism: Option<Mechanism>,
    /// Who.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Whether PLAIN may be used without TLS.
    pub allow_plaintext: bool,
}

/// How a user proves to be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// The password goes over the wire as it is.
    #[default]
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The topics.
    pub topics: Vec<String>,
    /// The group whose members share the partitions; `None`: see [`super::Config::group`].
    pub group: Option<String>,
    /// Where a partition begins of which the group has no commit.
    pub from: From,
    /// Where a partition goes on whose committed offset is not there any more.
    pub on_out_of_range: OutOfRange,
    /// Where the run ends.
    pub until: Until,
    /// Which records of transactions are read.
    pub isolation: Isolation,
    /// Static membership (KIP-345): a restart within the session timeout moves no partition.
    pub instance_id: Option<String>,
    /// A member of which nothing was heard for so long is dead. Heartbeats are sent three times as often.
    pub session_timeout: Duration,
    /// A member that asked for no records for so long is stuck, and leaves the group.
    pub max_poll_interval: Duration,
    /// How members share the partitions.
    pub assignor: Assignor,
    /// Bytes in one answer of one broker; a single record batch may be larger.
    pub fetch_max_bytes: u64,
    /// Bytes of one partition in it.
    pub fetch_partition_max_bytes: u64,
    /// A broker answers as soon as it has so many bytes.
    pub fetch_min_bytes: u64,
    /// Or after so long.
    pub fetch_max_wait: Duration,
}

/// Where a partition begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first one of this time or a later one, in milliseconds since 1970 (UTC).
    Time(i64),
}

/// Where a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Nowhere: it waits for more.
    #[default]
    Forever,
    /// At the offsets that were the ends when it began.
    End,
    /// Before the first record of this time or a later one, in milliseconds since 1970 (UTC). Most such times
    /// are in the past: a day is read again with `--from` and `--until`.
    Time(i64),
}

/// What happens where the offset to go on at is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// The run ends: data was lost upstream, and somebody must know.
    #[default]
    Error,
    /// It goes on at the first record that is there.
    Earliest,
    /// It goes on behind the last one.
    Latest,
}

/// Which records of transactions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Only those of committed ones.
    #[default]
    ReadCommitted,
    /// Those of aborted and open ones too.
    ReadUncommitted,
}

/// How members share the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// As evenly as possible, and each keeps what it has (KIP-429).
    #[default]
    CooperativeSticky,
    /// Topic by topic, in ranges; everything stops while it changes hands.
    Range,
}

/// How records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// The topic of `kafka:` where that names none.
    pub topic: Option<String>,
    /// A JSON pointer (RFC 6901) into the output: what it finds is the key. `None`: the key of the source's
    /// record, which a file has not.
    pub key: Option<String>,
    /// Which partition a record with a key goes to.
    pub partitioner: Partitioner,
    /// How record batches are compressed.
    pub compression: Compression,
    /// How much; `None`: the codec's own level.
    pub level: Option<i32>,
    /// How long batches are gathered for one request or transaction.
    pub linger: Duration,
    /// What a transactional producer is known by; `None`: made of the group, where Kafka is read.
    pub transactional_id: Option<String>,
    /// A record that is not acknowledged after so long ends the run.
    pub delivery_timeout: Duration,
}

/// Which partition a record with a key goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// That of Java's producer, so that equal keys meet whoever wrote them.
    #[default]
    Murmur2,
}

/// How record batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// The smallest that every client reads, and dear.
    Gzip,
    /// Between lz4 and none.
    Snappy,
    /// The cheapest.
    #[default]
    Lz4,
    /// The smallest; since Kafka 2.1.
    Zstd,
}

/// A message for each published batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// To this topic.
    pub topic: String,
}

/// The topic of notifications unless another is named.
pub const NOTIFY: &str = "processing-results";

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: Vec::new(),
            client_id: "pipeline".into(),
            tls: Tls::default(),
            sasl: Sasl::default(),
            source: Source::default(),
            sink: Sink::default(),
            notify: None,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls { enabled: false, ca: None, cert: None, key: None, verify: true }
    }
}

impl Default for Source {
    fn default() -> Self {
        Source {
            topics: Vec::new(),
            group: None,
            from: From::default(),
            on_out_of_range: OutOfRange::default(),
            until: Until::default(),
            isolation: Isolation::default(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            assignor: Assignor::default(),
            fetch_max_bytes: 8 << 20,
            fetch_partition_max_bytes: 1 << 20,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
        }
    }
}

impl Default for Sink {
    fn default() -> Self {
        Sink {
            topic: None,
            key: None,
            partitioner: Partitioner::default(),
            compression: Compression::default(),
            level: None,
            linger: Duration::from_millis(5),
            transactional_id: None,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}
