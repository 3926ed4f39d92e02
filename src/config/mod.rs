//! The validated configuration of a run. Raw settings become this once; nothing behind it checks again.
//!
//! The types here are always there and have defaults, so that an embedder fills in only what differs. With the
//! feature `cli` come the settings of a user: `key` is the one table of keys; `file`, `env` and the
//! flags are layers of settings over its defaults; `resolve` makes the [`Config`] of them and
//! `show` prints it with where each value came from.
//!
//! The table takes the place of serde shapes: one line a key gives the check for unknown keys, line and column of
//! wrong values, the environment variable, `--set`, `--print-config` and the shipped `config.toml`, so none of
//! them can be forgotten when a key is added.
//!
//! What one value may be, its key knows; what several of them may be together, [`Config::check`] does, for
//! embedders as for users.

pub mod kafka;
pub mod s3;
pub mod http;
pub mod secret;
pub mod check;
#[cfg(feature = "cli")]
pub mod unit;
#[cfg(feature = "cli")]
pub mod setting;
#[cfg(feature = "cli")]
pub mod key;
#[cfg(feature = "cli")]
pub mod nearest;
#[cfg(feature = "cli")]
pub mod file;
#[cfg(feature = "cli")]
pub mod env;
#[cfg(feature = "cli")]
pub mod place;
#[cfg(feature = "cli")]
pub mod mask;
#[cfg(feature = "cli")]
pub mod resolve;
#[cfg(feature = "cli")]
pub mod show;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::allowance::Allowance;
use crate::codec::Codec;
use crate::retry::Policy;
use crate::sink::key::{Namer, Template};
pub use check::Intent;
pub use http::Http;
pub use kafka::Kafka;
pub use s3::S3;

/// What is to be done, checked and with every default filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[processing]`: how it runs.
    pub processing: Processing,
    /// `[input]`: what is read.
    pub input: Input,
    /// `[output]`: where it goes and as what.
    pub output: Output,
    /// `[kafka]`: brokers, and what is read from them and written to them.
    pub kafka: Kafka,
    /// `[s3]`: buckets and what is stored there.
    pub s3: S3,
    /// `[http]`: endpoints, and how they are read.
    pub http: Http,
}

/// How a run is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Processing {
    /// Threads of the pool.
    pub workers: NonZeroUsize,
    /// Records in a batch; 0: no limit by count.
    pub batch_size: u64,
    /// Bytes of records in a batch.
    pub batch_bytes: u64,
    /// How long a batch of a stream stays open; `None`: the output's default.
    pub batch_wait: Option<Duration>,
    /// Bytes between read and stored.
    pub memory_limit: usize,
    /// Limit of one request to a service.
    pub timeout: Duration,
    /// Retries of transient failures.
    pub retry: Policy,
    /// What becomes of rejected records.
    pub on_reject: OnReject,
    /// How many rejected records end the run.
    pub max_rejected: Option<MaxRejected>,
    /// Where the state is kept.
    pub state: StateAt,
    /// Begin again.
    pub fresh: bool,
    /// Take every Nth input: index and count.
    pub shard: Option<(u32, u32)>,
    /// Stop after so many records.
    pub limit: Option<u64>,
    /// What envelopes call this machine; `None`: the host's name.
    pub processed_by: Option<String>,
}

/// What is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// What kind of thing is read.
    pub source: SourceKind,
    /// Files, directories and `-`, as they were given.
    pub files: Vec<String>,
    /// What is in them.
    pub format: Format,
    /// The longest record; longer ones are rejected without being held in memory.
    pub max_record_bytes: u64,
    /// The inputs are dead letters: their payloads are the records.
    pub replay: bool,
}

/// Where the output goes and as what.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Where.
    pub to: Place,
    /// Compression.
    pub codec: Codec,
    /// What is put around a record.
    pub envelope: EnvelopeKind,
    /// How batches are named; `None`: the default names.
    pub key: Option<Template>,
    /// Where rejected records go; `None`: the sink's own place, if it has one.
    pub dead_letter: Option<LettersTo>,
    /// Whether files and directories are synced before they count as stored.
    pub fsync: bool,
}

impl Config {
    /// These inputs to this place, everything else as it is by default.
    pub fn new(files: Vec<String>, to: Place) -> Self {
        Config {
            processing: Processing::default(),
            input: Input { files, ..Input::default() },
            output: Output { to, ..Output::default() },
            kafka: Kafka::default(),
            s3: S3::default(),
            http: Http::default(),
        }
        .with_memory()
    }

    /// These topics of the cluster of these brokers to this place, everything else as it is by default.
    pub fn from_kafka(brokers: Vec<String>, topics: Vec<String>, to: Place) -> Self {
        let mut config = Config::new(Vec::new(), to);
        config.input.source = SourceKind::Kafka;
        (config.kafka.brokers, config.kafka.source.topics) = (brokers, topics);
        config.with_memory()
    }

    /// These endpoints to this place, everything else as it is by default.
    pub fn from_http(urls: Vec<String>, to: Place) -> Self {
        let mut config = Config::new(Vec::new(), to);
        config.input.source = SourceKind::Http;
        config.http.urls = urls;
        config.with_memory()
    }

    /// With the `memory_limit` that fits source and output.
    fn with_memory(mut self) -> Self {
        self.processing.memory_limit = self.default_memory();
        self
    }

    /// The default `memory_limit`: that of the source, and what parts of objects take; less where the system allows
    /// this process less (a control group, or the machine's memory), but never below
    /// [`LEAST_MEMORY`] and those parts.
    pub fn default_memory(&self) -> usize {
        self.default_memory_within(Allowance::find().as_ref())
    }

    fn default_memory_within(&self, allowance: Option<&Allowance>) -> usize {
        let workers = self.processing.workers;
        let own = match self.input.source {
            SourceKind::File => memory_for_files(workers),
            SourceKind::Kafka | SourceKind::Http => memory_for_streams(workers),
        };
        let parts = match &self.output.to {
            Place::S3 { .. } => self.s3.parts(),
            _ => 0,
        };
        let allowed =
            allowance.map_or(usize::MAX, Allowance::fitting).max(LEAST_MEMORY.saturating_add(parts));
        own.saturating_add(parts).min(allowed)
    }

    /// How long a batch of a stream stays open: as configured, else 5 min for objects, 10 s for files, 200 ms for
    /// Kafka, whose readers wait; zero for stdout, where a batch ends as soon as nothing more is there.
    pub fn batch_wait(&self) -> Duration {
        self.processing.batch_wait.unwrap_or(match self.output.to {
            Place::S3 { .. } => Duration::from_secs(300),
            Place::Dir(_) | Place::File(_) => Duration::from_secs(10),
            Place::Kafka(_) => Duration::from_millis(200),
            Place::Stdout => Duration::ZERO,
        })
    }

    /// The group that a run with this intent joins; `None`: it joins none and commits nothing. A group that
    /// nobody named is called after topics and output, `cwd` being where relative paths begin.
    ///
    /// A dry run and a check join none; neither does a run to one file or stdout, unless a group is named. A file
    /// is there only when the run has ended: what a group committed before would be lost with a run that dies.
    pub fn group(&self, intent: Intent, cwd: &Path) -> Option<String> {
        let source = &self.kafka.source;
        self.joins(intent).then(|| {
            let default = || kafka::default_group(&source.topics, &self.output.to, cwd);
            source.group.clone().unwrap_or_else(default)
        })
    }

    /// Gives batches their names. Those of files and directories begin at the output, those of buckets with the
    /// prefix.
    pub fn namer(&self) -> Namer {
        let prefix = match &self.output.to {
            Place::S3 { prefix, .. } => prefix,
            _ => "",
        };
        Namer::new(prefix, self.output.codec).with_template(self.output.key.clone())
    }

    /// Whether the group, or the state of a run that reads endpoints, remembers where batches end before they are
    /// published, so that whoever redoes one makes the same file or object of it.
    pub(crate) fn plans(&self) -> bool {
        let remembers = match self.input.source {
            SourceKind::File => false,
            SourceKind::Kafka => self.joins(Intent::Store),
            SourceKind::Http => self.processing.state != StateAt::None && self.processing.limit.is_none(),
        };
        remembers && matches!(self.output.to, Place::Dir(_) | Place::S3 { .. })
    }

    /// Whether a run with this intent joins a group.
    fn joins(&self, intent: Intent) -> bool {
        let named = self.kafka.source.group.is_some();
        self.input.source == SourceKind::Kafka
            && intent == Intent::Store
            && (named || !matches!(self.output.to, Place::Stdout | Place::File(_)))
    }
}

impl Output {
    /// The directory that was named for rejected records, if one was.
    pub fn dead_letter_dir(&self) -> Option<&PathBuf> {
        match &self.dead_letter {
            Some(LettersTo::Dir(dir)) => Some(dir),
            Some(LettersTo::Kafka(_)) | None => None,
        }
    }

    /// The topic that was named for rejected records, if one was.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        match &self.dead_letter {
            Some(LettersTo::Kafka(topic)) => Some(topic),
            Some(LettersTo::Dir(_)) | None => None,
        }
    }
}

impl Default for Processing {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Processing {
            workers,
            batch_size: 0,
            batch_bytes: 64 << 20,
            batch_wait: None,
            memory_limit: memory_for_files(workers),
            timeout: Duration::from_secs(30),
            retry: Policy::default(),
            on_reject: OnReject::default(),
            max_rejected: None,
            state: StateAt::default(),
            fresh: false,
            shard: None,
            limit: None,
            processed_by: None,
        }
    }
}

/// No default `memory_limit` is less than 48 MiB.
pub const LEAST_MEMORY: usize = 48 << 20;

/// The default `memory_limit` of file sources: the larger of 48 MiB and 8 MiB a worker.
pub fn memory_for_files(workers: NonZeroUsize) -> usize {
    workers.get().saturating_mul(8 << 20).max(LEAST_MEMORY)
}

/// The default `memory_limit` of streams: 256 MiB, or 8 MiB a worker where that is more.
pub fn memory_for_streams(workers: NonZeroUsize) -> usize {
    memory_for_files(workers).max(256 << 20)
}

impl Default for Input {
    fn default() -> Self {
        Input {
            source: SourceKind::default(),
            files: Vec::new(),
            format: Format::default(),
            max_record_bytes: 16 << 20,
            replay: false,
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Output {
            to: Place::Dir(PathBuf::from("out")),
            codec: Codec::None,
            envelope: EnvelopeKind::default(),
            key: None,
            dead_letter: None,
            fsync: true,
        }
    }
}

/// A kind of output and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory: one file a batch.
    Dir(PathBuf),
    /// One file, named at the end of the run; or a device, which is written as it is.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A topic.
    Kafka(String),
    /// A bucket: one object a batch.
    S3 {
        /// Its name.
        bucket: String,
        /// What keys begin with: empty, or with a slash at its end.
        prefix: String,
    },
}

impl fmt::Display for Place {
    /// As a user would name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Dir(path) | Place::File(path) => write!(f, "{}", path.display()),
            Place::Kafka(topic) => write!(f, "kafka:{topic}"),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Place::Stdout => f.write_str("stdout"),
        }
    }
}

/// Where rejected records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LettersTo {
    /// Below this directory.
    Dir(PathBuf),
    /// To this topic.
    Kafka(String),
}

/// What kind of thing is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// Files, directories and stdin.
    #[default]
    File,
    /// Topics.
    Kafka,
    /// HTTP endpoints.
    Http,
}

/// What is in an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Found out from the first 64 KiB.
    #[default]
    Auto,
    /// One JSON value a line.
    Ndjson,
    /// One array, or concatenated or pretty-printed values.
    Json,
    /// Lines of text; of Kafka: each value is a text.
    Text,
    /// Bytes. Of Kafka, and of its dead letters, only: each value is a record, whatever is in it.
    Binary,
}

/// What is put around a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// The project's own: message_id, source, processed_at, processed_by, metadata, data.
    #[default]
    Default,
    /// Nothing: bare records.
    None,
    /// CloudEvents 1.0, JSON format.
    CloudEvents,
}

/// What becomes of rejected records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReject {
    /// They are kept as dead letters; where there is no place for them, the run ends.
    #[default]
    DeadLetter,
    /// The run ends.
    Fail,
    /// They are counted and dropped.
    Drop,
}

/// How many rejected records end the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejected {
    /// More than so many.
    Count(u64),
    /// More than so many of a hundred read.
    Percent(f64),
}

/// Where the state is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateAt {
    /// Beside the output, where there is such a place; else nowhere.
    #[default]
    Output,
    /// Nowhere.
    None,
    /// In this directory.
    Dir(PathBuf),
}

/// How a run can be watched. The program serves and writes it; an embedder uses [`crate::metrics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Where the status is served, `HOST:PORT`; `None`: nowhere.
    pub listen: Option<String>,
    /// Names under which the live page is served, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// File that holds the metrics.
    pub metrics_file: Option<PathBuf>,
}

/// What is logged and how. The library only logs; the program installs the logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Nothing below this level.
    pub level: log::LevelFilter,
    /// Lines of text or of JSON.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: log::LevelFilter::Warn, format: LogFormat::Text }
    }
}

/// What log lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
