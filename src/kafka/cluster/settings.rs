//! [`ClusterSettings`]: how patiently a cluster is asked, and how long an answer counts.

use std::time::Duration;

use crate::retry::Policy;

/// How a [`super::Cluster`] asks. A [`Policy`] is one with Kafka's own times.
#[derive(Clone, Copy, Debug)]
pub struct ClusterSettings {
    /// The delays between tries; how many there are, deadlines say.
    pub retry: Policy,
    /// How old an answer may be before whoever relies on it asks again although nothing is wrong, and how long one
    /// broker is asked before another is: Java's `metadata.max.age.ms`. Leaders move and topics get partitions
    /// without anyone being told, and a broker that is cut off from the others does not hear of it either.
    pub metadata_age: Duration,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings { retry: Policy::default(), metadata_age: Duration::from_secs(300) }
    }
}

impl From<Policy> for ClusterSettings {
    fn from(retry: Policy) -> Self {
        ClusterSettings { retry, ..ClusterSettings::default() }
    }
}
