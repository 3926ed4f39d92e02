//! The part of `--check` that asks brokers.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pipeline::config::{Config, Intent, SourceKind};
use pipeline::error::Retry;
use pipeline::kafka::cluster::Cluster;
use pipeline::kafka::probe::{Found, Needs, Trouble, probe};
use pipeline::{Result, Stop};

use super::{Finding, PATIENCE, Verdict};

/// A line for everything that the run needs of the cluster; none if it needs nothing.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if !config.uses_kafka() {
        return Vec::new();
    }
    match reach(config) {
        Ok(cluster) => {
            let limit = config.processing.timeout.min(PATIENCE);
            probe(&cluster, &needs(config), Instant::now() + limit).into_iter().map(finding).collect()
        }
        Err(error) => {
            vec![Finding { what: "brokers".into(), verdict: Verdict::Wrong(error.to_string()) }]
        }
    }
}

fn reach(config: &Config) -> Result<Cluster> {
    let limit = config.processing.timeout.min(PATIENCE);
    let options = Arc::new(config.kafka.options(limit)?);
    Ok(Cluster::new(config.kafka.addresses()?, options, &Stop::new(), config.processing.retry))
}

/// What a run with this configuration would use. The check itself joins nothing.
fn needs(config: &Config) -> Needs {
    let source = &config.kafka.source.topics;
    let source = if config.input.source == SourceKind::Kafka { &source[..] } else { &[] };
    let read = source.iter().map(|topic| (format!("topic {topic}"), topic.as_str()));
    let written = config.written_topics().map(|(what, topic)| (format!("{what} kafka:{topic}"), topic));
    // A directory that is gone is no reason not to look at the rest: the name only has to be a likely one.
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    Needs {
        topics: read.chain(written).map(|(what, topic)| (what, Arc::from(topic))).collect(),
        group: config.group(Intent::Store, &cwd),
    }
}

fn finding(found: Found) -> Finding {
    let Found { what, outcome } = found;
    match outcome {
        Ok(detail) => Finding { what: format!("{what}: {detail}"), verdict: Verdict::Fine },
        Err(Trouble { why, retry: Retry::Transient }) => Finding { what, verdict: Verdict::Failed(why) },
        Err(Trouble { why, retry: Retry::Permanent }) => Finding { what, verdict: Verdict::Refused(why) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::exit_code;
    use super::*;
    use pipeline::config::{LettersTo, Place};

    /// A broker that nobody is.
    fn config(to: Place) -> Config {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = listener.local_addr().unwrap().to_string();
        let mut config = Config::from_kafka(vec![broker], vec!["in".into()], to);
        config.processing.timeout = Duration::from_millis(50);
        config.processing.retry.delay = Duration::from_millis(1);
        config
    }

    #[test]
    fn what_is_needed_follows_from_the_configuration() {
        let mut it = config(Place::Kafka("out".into()));
        it.output.dead_letter = Some(LettersTo::Kafka("bad".into()));
        let needs = needs(&it);
        let named: Vec<&str> = needs.topics.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(named, ["topic in", "output kafka:out", "dead letters kafka:bad"]);
        assert!(needs.group.unwrap().starts_with("pipeline-in-"));
        assert_eq!(super::needs(&config(Place::Stdout)).group, None);
        it.input.source = SourceKind::File;
        assert_eq!(super::needs(&it).topics.len(), 2);
    }

    #[test]
    fn brokers_that_are_not_there_may_be_later() {
        let found = findings(&config(Place::Stdout));
        assert_eq!((found.len(), exit_code(&found)), (1, 1), "{found:?}");
        assert!(found[0].line().starts_with("failed   brokers: "), "{found:?}");
        assert!(findings(&Config::default()).is_empty());
    }

    #[test]
    fn a_certificate_that_is_not_there_is_wrong_use() {
        let mut it = config(Place::Stdout);
        (it.kafka.tls.enabled, it.kafka.tls.ca) = (true, Some("/none/there".into()));
        let found = findings(&it);
        assert_eq!((found.len(), exit_code(&found)), (1, 2), "{found:?}");
        assert!(found[0].line().starts_with("wrong    brokers: kafka.tls.ca /none/there"), "{found:?}");
    }
}
