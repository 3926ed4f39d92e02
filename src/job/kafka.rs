//! Jobs that read topics: the cluster, the group, and the source made of them. The group remembers what is done,
//! so there is no state beside the output.

use std::sync::Arc;

use super::report::Extent;
use super::{Done, Job, Mode, Parts};
use crate::config::kafka as config;
use crate::config::{Format, Intent};
use crate::error::{Error, Result};
use crate::kafka::cluster::{Cluster, Isolation};
use crate::kafka::consumer::FetchSettings;
use crate::kafka::group::{Assignor, GroupSettings};
use crate::record::Payload;
use crate::sink::key::Namer;
use crate::source::kafka::{KafkaOptions, KafkaSource};

impl Job<'_> {
    /// Topics in.
    pub(super) fn run_kafka(&self) -> Result<Done> {
        let source = KafkaSource::new(self.cluster()?, self.kafka_options()?)?;
        if let Some(group) = source.group() {
            log::info!("group {}", group.settings().group);
        }
        let namer = Namer::new("", self.config.output.codec);
        let sink = self.sink(&namer)?;
        let recipe = self.recipe(self.processed_by());
        let extent = match self.config.kafka.source.until {
            config::Until::Forever => Extent::Open,
            config::Until::End | config::Until::Time(_) => Extent::Bounded,
        };
        let (marks, consumed) = (None, Arc::default());
        Ok(self.engine(&Parts { source: &source, recipe: &recipe, sink: &*sink, marks, consumed, extent }))
    }

    /// The cluster of the configuration, not connected yet.
    pub(super) fn cluster(&self) -> Result<Cluster> {
        let (kafka, processing) = (&self.config.kafka, &self.config.processing);
        let options = Arc::new(kafka.options(processing.timeout)?);
        Ok(Cluster::new(kafka.addresses()?, options, self.stop, processing.retry))
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
        })
    }

    /// The group to join, if this run joins one.
    fn group(&self, topics: &[Arc<str>]) -> Result<Option<GroupSettings>> {
        let source = &self.config.kafka.source;
        let intent = if self.mode == Mode::Store { Intent::Store } else { Intent::Look };
        let cwd = std::env::current_dir().map_err(|error| Error::io("find", ".", error))?;
        let Some(name) = self.config.group(intent, &cwd) else { return Ok(None) };
        let settings = GroupSettings {
            instance_id: source.instance_id.clone(),
            session_timeout: source.session_timeout,
            max_poll_interval: source.max_poll_interval,
            assignor: match source.assignor {
                config::Assignor::CooperativeSticky => Assignor::CooperativeSticky,
                config::Assignor::Range => Assignor::Range,
            },
            location: config::fingerprint(&self.config.output.to, &cwd),
            ..GroupSettings::new(name, topics.to_vec())
        };
        Ok(Some(settings))
    }
}

/// What the protocol has room for.
fn saturated(bytes: u64) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
