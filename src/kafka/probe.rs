//! [`probe`]: whether a cluster has what a job needs. Asks and looks; joins no group, writes nothing, creates
//! nothing. `--check` is made of it.
//!
//! It connects to every broker that leads a wanted partition: that the first one answers says nothing of the
//! addresses that it gives for the others, and those are what is wrong most often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::cluster::{Cluster, Coordinates, Topic};
use super::code::Code;
use super::error::{Error, Result};
use crate::error::Retry;

/// What a job needs of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Topics, with what they are called in findings: `topic orders`, `output kafka:copy`.
    pub topics: Vec<(String, Arc<str>)>,
    /// The group that it joins, if it joins one.
    pub group: Option<String>,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was looked at.
    pub what: String,
    /// What is to be said of it.
    pub outcome: std::result::Result<String, Trouble>,
}

/// Why something cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One line.
    pub why: String,
    /// Whether trying again later can help.
    pub retry: Retry,
}

/// Looks at everything that is needed. If no broker can be reached that is the only finding. Blocks until about
/// `deadline`, and longer by the time that brokers take to refuse a connection.
pub fn probe(cluster: &Cluster, needs: &Needs, deadline: Instant) -> Vec<Found> {
    let mut found = vec![Found::new("brokers", entrance(cluster, needs, deadline))];
    if found[0].outcome.is_err() {
        return found;
    }
    for (what, name) in &needs.topics {
        found.push(Found { what: what.clone(), outcome: topic(cluster.topic(name).as_deref()) });
    }
    for (leader, partitions) in leaders(cluster, needs) {
        let reached = cluster.connect(leader).map(|connection| {
            let count = plural(partitions, "wanted partition");
            format!("{}, leads {count}", connection.broker())
        });
        found.push(Found::new(format!("broker {leader}"), reached));
    }
    if let Some(group) = &needs.group {
        let coordinator = cluster.coordinator(Coordinates::Group, group, deadline);
        let at = coordinator.map(|connection| format!("coordinated by {}", connection.broker()));
        found.push(Found::new(format!("group {group}"), at));
    }
    found
}

/// The first broker that answers, and how it is spoken to.
fn entrance(cluster: &Cluster, needs: &Needs, deadline: Instant) -> Result<String> {
    let broker = cluster.connect_any(deadline)?.broker().clone();
    let names: Vec<Arc<str>> = needs.topics.iter().map(|(_, name)| name.clone()).collect();
    cluster.refresh(&names, deadline)?;
    let options = cluster.options();
    let tls = if options.tls.is_some() { "TLS" } else { "no TLS" };
    let user = match &options.sasl {
        Some(sasl) => format!("{} as {}", sasl.mechanism.name(), sasl.username),
        None => "no login".into(),
    };
    let all = plural(cluster.brokers().len(), "broker");
    Ok(format!("{broker} answers, {tls}, {user}; the cluster has {all}"))
}

fn topic(topic: Option<&Topic>) -> std::result::Result<String, Trouble> {
    let error = topic.map_or(Code::UNKNOWN_TOPIC_OR_PARTITION, |topic| topic.error);
    let partitions = topic.map(|topic| &topic.partitions[..]).unwrap_or_default();
    let trouble = |why: String, retry| Err(Trouble { why, retry });
    if error == Code::UNKNOWN_TOPIC_OR_PARTITION {
        // Retriable for a client that sees a topic come into being; whoever checks wants it to be there.
        return trouble("there is no such topic, or this user may not see it".into(), Retry::Permanent);
    }
    if error != Code::NONE {
        return trouble(error.to_string(), error.retry());
    }
    let headless = partitions.iter().filter(|partition| partition.leader.is_none()).count();
    if headless > 0 {
        let why = format!("{headless} of {} have no leader", plural(partitions.len(), "partition"));
        return trouble(why, Retry::Transient);
    }
    Ok(plural(partitions.len(), "partition"))
}

/// Who leads how many of the partitions that are needed.
fn leaders(cluster: &Cluster, needs: &Needs) -> BTreeMap<i32, usize> {
    let mut leaders = BTreeMap::new();
    let mut names: Vec<&Arc<str>> = needs.topics.iter().map(|(_, name)| name).collect();
    names.sort();
    names.dedup();
    for topic in names.into_iter().filter_map(|name| cluster.topic(name)) {
        for leader in topic.partitions.iter().filter_map(|partition| partition.leader) {
            *leaders.entry(leader).or_default() += 1;
        }
    }
    leaders
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

impl Found {
    fn new(what: impl Into<String>, outcome: Result<String>) -> Self {
        let trouble = |error: Error| Trouble { why: error.to_string(), retry: error.retry() };
        Found { what: what.into(), outcome: outcome.map_err(trouble) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_protocol::messages::{ApiKey, MetadataRequest};

    use super::super::cluster::tests::{broker, cluster, coordinator, late, metadata, nobody, topic};
    use super::super::fake::{Fake, answer_versions};
    use super::*;

    /// A broker that others only connect to.
    fn silent() -> Fake {
        Fake::start(answer_versions)
    }

    /// The findings as text: a `!` before what trying again may help, a `!!` before what it cannot.
    fn lines(found: &[Found]) -> Vec<String> {
        let line = |found: &Found| match &found.outcome {
            Ok(detail) => format!("{}: {detail}", found.what),
            Err(Trouble { why, retry: Retry::Transient }) => format!("! {}: {why}", found.what),
            Err(Trouble { why, .. }) => format!("!! {}: {why}", found.what),
        };
        found.iter().map(line).collect()
    }

    fn needs(topics: &[&str]) -> Needs {
        let named = |name: &&str| (format!("topic {name}"), Arc::from(*name));
        Needs { topics: topics.iter().map(named).collect(), group: Some("g".into()) }
    }

    #[test]
    fn everything_that_is_needed_is_looked_at() {
        let (other, lost) = (silent(), nobody());
        let (at, gone) = (other.address.clone(), lost.clone());
        let first = Fake::start(move |asked| match asked.key {
            ApiKey::ApiVersions => answer_versions(asked),
            ApiKey::Metadata => {
                let mut missing = topic("missing", 0, &[]);
                missing.error_code = 3;
                let mut denied = topic("denied", 0, &[]);
                denied.error_code = 29;
                let topics =
                    vec![topic("a", 1, &[(2, 0), (2, 0), (3, 0)]), topic("b", 2, &[(-1, 0), (2, 0)])];
                let all = topics.into_iter().chain([missing, denied]).collect();
                asked.answer::<MetadataRequest>(&metadata(vec![broker(2, &at), broker(3, &gone)], all))
            }
            ApiKey::FindCoordinator => coordinator(asked, &at),
            key => panic!("a check does not ask for {key:?}"),
        });
        let cluster = cluster(&[&first.address]);
        let found = lines(&probe(&cluster, &needs(&["a", "b", "missing", "denied"]), late()));
        let (first, other) = (&first.address, &other.address);
        assert_eq!(
            found[0],
            format!("brokers: {first} answers, no TLS, no login; the cluster has 2 brokers")
        );
        assert_eq!(found[1], "topic a: 3 partitions");
        assert_eq!(found[2], "! topic b: 1 of 2 partitions have no leader");
        assert_eq!(found[3], "!! topic missing: there is no such topic, or this user may not see it");
        assert!(found[4].starts_with("!! topic denied: TOPIC_AUTHORIZATION_FAILED"), "{}", found[4]);
        assert_eq!(found[5], format!("broker 2: {other}, leads 3 wanted partitions"));
        assert!(found[6].starts_with(&format!("! broker 3: cannot connect to {lost}")), "{}", found[6]);
        assert_eq!(found[7], format!("group g: coordinated by {other}"));
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn nobody_there_is_one_finding() {
        let soon = Instant::now() + Duration::from_millis(50);
        let found = lines(&probe(&cluster(&[&nobody()]), &needs(&["a"]), soon));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("! brokers: connecting to any broker: gave up after "), "{found:?}");
    }
}
