//! Jobs that read topics: the cluster, the group, and the source made of them. The group remembers what is done,
//! so there is no state beside the output.

use std::sync::Arc;
use std::time::Duration;

use super::report::Extent;
use super::{Done, Job, Mode, Parts};
use crate::config::kafka as config;
use crate::config::{Format, Place};
use crate::error::{Error, Result};
use crate::kafka::cluster::{Cluster, Isolation};
use crate::kafka::consumer::FetchSettings;
use crate::kafka::group::{Assignor, Group, GroupSettings, static_transactional_id, transactional_id};
use crate::kafka::producer::{ProducerSettings, Transactional};
use crate::kafka::wire::Compression;
use crate::record::Payload;
use crate::sink::Sink;
use crate::sink::kafka::{KafkaSink, Notifying, WithLetterTopic};
use crate::sink::key::Namer;
use crate::source::kafka::{KafkaOptions, KafkaSource};

/// A transaction that a dead process left open is aborted by the cluster after this time, if the leader of the group
/// has not ended it before. Longer than brokers are usually away: what is open for longer is done again.
const OPEN_AT_MOST: Duration = Duration::from_secs(60);

impl Job<'_> {
    /// Topics in.
    pub(super) fn run_kafka(&self) -> Result<Done> {
        let source = KafkaSource::new(self.cluster()?, self.kafka_options()?)?;
        self.check_memory(&source)?;
        source.reach()?;
        if let Some(group) = source.group() {
            log::info!("group {}", group.settings().group);
        }
        let namer = self.config.namer();
        let sink = match self.mode {
            Mode::Store => self.sink_with_kafka(&namer, source.cluster(), source.group())?,
            Mode::Rehearse => self.local_sink(&namer)?,
        };
        let recipe = self.recipe(self.processed_by(), &sink.shape())?;
        let endless = matches!(self.config.kafka.source.until, config::Until::Forever);
        let extent = if endless { Extent::Open } else { Extent::Bounded };
        let (marks, consumed) = (None, source.consumed());
        let done = self.engine(&Parts {
            source: &source,
            recipe: &recipe,
            sink: &*sink,
            marks,
            consumed,
            skipped: Arc::default(),
            paged: false,
            extent,
            rejected: 0,
            tend: &|| Ok(()),
        });
        Ok(if endless { done.endless() } else { done })
    }

    /// The cluster of the configuration, not connected yet.
    pub(super) fn cluster(&self) -> Result<Cluster> {
        let (kafka, processing) = (&self.config.kafka, &self.config.processing);
        let mut options = kafka.options(processing.timeout)?;
        options.services = self.metrics.services.clone();
        Ok(Cluster::new(kafka.addresses()?, Arc::new(options), self.stop, processing.retry))
    }

    fn kafka_options(&self) -> Result<KafkaOptions> {
        let (input, source) = (&self.config.input, &self.config.kafka.source);
        let topics: Vec<Arc<str>> = source.topics.iter().map(|topic| topic.as_str().into()).collect();
        Ok(KafkaOptions {
            group: self.group(&topics)?,
            topics,
            from: source.from,
            until: source.until,
            on_out_of_range: source.on_out_of_range,
            fetch: FetchSettings {
                isolation: match source.isolation {
                    config::Isolation::ReadCommitted => Isolation::ReadCommitted,
                    config::Isolation::ReadUncommitted => Isolation::ReadUncommitted,
                },
                max_bytes: saturated(source.fetch_max_bytes),
                partition_max_bytes: saturated(source.fetch_partition_max_bytes),
                min_bytes: saturated(source.fetch_min_bytes),
                max_wait: source.fetch_max_wait,
                ..FetchSettings::default()
            },
            payload: match input.format {
                Format::Auto | Format::Ndjson | Format::Json => Payload::Json,
                Format::Text => Payload::Text,
                Format::Binary => Payload::Binary,
            },
            max_record_bytes: input.max_record_bytes,
            limit: self.config.processing.limit,
            plans: self.config.plans(),
        })
    }

    /// The group to join, if this run joins one.
    fn group(&self, topics: &[Arc<str>]) -> Result<Option<GroupSettings>> {
        let source = &self.config.kafka.source;
        let cwd = std::env::current_dir().map_err(|error| Error::io("find", ".", error))?;
        let Some(name) = self.config.group(self.intent(), &cwd) else { return Ok(None) };
        let settings = GroupSettings {
            instance_id: source.instance_id.clone(),
            session_timeout: source.session_timeout,
            max_poll_interval: source.max_poll_interval,
            assignor: match source.assignor {
                config::Assignor::CooperativeSticky => Assignor::CooperativeSticky,
                config::Assignor::Range => Assignor::Range,
            },
            location: config::fingerprint(&self.config.output, &cwd),
            transactional_id: self.own_id(&name),
            ..GroupSettings::new(name, topics.to_vec())
        };
        Ok(Some(settings))
    }

    /// The transactional id of this member of a group: its offsets go into transactions wherever the output is a topic.
    /// Each process needs an id of its own, or they would fence one another: it is made of the static member's id,
    /// else of chance, since what fences a dead member is its group (KIP-447).
    fn own_id(&self, group: &str) -> Option<String> {
        let kafka = &self.config.kafka;
        let own = matches!(self.config.output.to, Place::Kafka(_)) && kafka.sink.transactional_id.is_none();
        own.then(|| match &kafka.source.instance_id {
            Some(member) => static_transactional_id(group, member),
            None => transactional_id(group),
        })
    }
}

/// Sinks with brokers.
impl Job<'_> {
    /// The output, with dead letters and notifications where they go to topics.
    pub(super) fn sink_with_kafka(
        &self,
        namer: &Namer,
        cluster: &Cluster,
        group: Option<Arc<Group>>,
    ) -> Result<Box<dyn Sink>> {
        let main = match &self.config.output.to {
            Place::Kafka(topic) => {
                let settings = self.producer(self.transactional(group.as_deref()));
                self.with_letters(KafkaSink::prepare(cluster.clone(), topic, settings, group)?, namer)?
            }
            Place::Dir(_) | Place::File(_) | Place::Stdout | Place::S3 { .. } => self.local_sink(namer)?,
        };
        let lettered: Box<dyn Sink> = match self.config.output.dead_letter_topic() {
            Some(topic) => {
                Box::new(WithLetterTopic::prepare(main, cluster.clone(), topic, self.producer(None))?)
            }
            None => main,
        };
        Ok(match &self.config.kafka.notify {
            Some(notify) => {
                Box::new(Notifying::prepare(lettered, cluster.clone(), &notify.topic, self.producer(None))?)
            }
            None => lettered,
        })
    }

    fn producer(&self, transactional: Option<Transactional>) -> ProducerSettings {
        let sink = &self.config.kafka.sink;
        ProducerSettings {
            compression: match sink.compression {
                config::Compression::None => Compression::None,
                config::Compression::Gzip => Compression::Gzip,
                config::Compression::Snappy => Compression::Snappy,
                config::Compression::Lz4 => Compression::Lz4,
                config::Compression::Zstd => Compression::Zstd,
            },
            level: sink.level,
            delivery_timeout: sink.delivery_timeout,
            transactional,
            ..ProducerSettings::default()
        }
    }

    /// Transactions: wherever the offsets of a group can go into them, and where an id asks for them.
    fn transactional(&self, group: Option<&Group>) -> Option<Transactional> {
        let configured = self.config.kafka.sink.transactional_id.as_ref();
        let id = configured.or_else(|| group?.settings().transactional_id.as_ref())?.clone();
        Some(Transactional { id, timeout: OPEN_AT_MOST })
    }
}

/// What the protocol has room for.
fn saturated(bytes: u64) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
