//! What is ordered by itself: [`Partition`], and what it is made of. Partitions are compared by source, name and epoch:
//! one that changed hands and came back is another.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One independently ordered stream of a source: a file, a topic-partition, an endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Partition(Arc<Identity>);

/// What a [`Partition`] is made of.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The kind of source: `file`, `kafka`, `http`. The first part of every message id.
    pub source: &'static str,
    /// The name, unique within the source: a normalised path, `topic-0`, host and path.
    pub name: String,
    /// Members of the envelope's `metadata` object that are the same for every record, as JSON text without
    /// braces: `"path":"data1.json"`.
    pub metadata: String,
    /// The metadata member that holds a record's position: `offset`.
    pub position: &'static str,
    /// Milliseconds since the epoch that stand for "now" in every batch of this partition, where they do not
    /// depend on the batch: the persisted start of the run for files. `None`: the time the batch was opened.
    pub opened_at: Option<i64>,
    /// Which tenancy of the partition this is: greater than every earlier one in this run; 0 where partitions never
    /// change hands.
    pub epoch: u64,
    /// The partition of a topic that it is, if it is one. Names of its batches then have this and the time of their
    /// first record in them instead of the name.
    pub topic: Option<TopicPart>,
    /// Which pass over its source this is, counted from 0, for partitions that are read in pages again and again. A
    /// position is then `page << 32 | index`, envelopes tell all three, and each pass has a place of its own in the
    /// output. `None`: a position is one number.
    pub cycle: Option<u64>,
    /// Whether it can be read only once, as a pipe can: what was read of it is stored also by a run that is stopped.
    pub once: bool,
}

/// A partition of a topic as names of batches have it: `{topic}-{partition}-{topic id, 8 hex digits}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPart {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The beginning of the topic's id: one that is created again under the same name has another.
    pub id: u32,
}

impl fmt::Display for TopicPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}", self.topic, self.partition, self.id)
    }
}

impl Partition {
    /// A partition from its parts.
    pub fn new(identity: Identity) -> Self {
        Partition(Arc::new(identity))
    }

    /// A partition of an embedder's source: `name` must be unique within `source`.
    pub fn named(source: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        let metadata = format!("\"name\":{}", serde_json::Value::String(name.clone()));
        Partition::new(Identity { source, name, metadata, position: "position", ..Identity::default() })
    }

    /// Its parts.
    pub fn identity(&self) -> &Identity {
        &self.0
    }

    /// The name, unique within the source.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kind of source.
    pub fn source(&self) -> &'static str {
        self.0.source
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.epoch == other.0.epoch
                && self.0.source == other.0.source
                && self.0.name == other.0.name)
    }
}

impl Eq for Partition {}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
        self.0.epoch.hash(state);
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.source, self.0.name)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}
