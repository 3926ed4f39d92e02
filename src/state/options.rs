//! What a state is opened with, and how a source tells that an input is still the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Home, Leftovers};
use crate::error::Result;
use crate::source::{Cuts, Same};

/// Tells by what an input is known again. Implemented by sources whose inputs can change between runs.
pub trait Identify: Send + Sync {
    /// What this input is known by as far as `watermark`. `None`: it cannot be told.
    ///
    /// # Errors
    /// If the input cannot be looked at.
    fn identify(&self, partition: &str, watermark: u64) -> Result<Option<Value>>;

    /// Whether an input is the one that was known as `old` when everything before `watermark` was stored.
    ///
    /// # Errors
    /// If the input cannot be looked at.
    fn compare(&self, partition: &str, watermark: u64, old: &Value) -> Result<Same>;
}

/// Whether the run begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// What was done is forgotten, and deleted.
    Yes,
    /// It goes on where the last one stopped.
    No,
}

/// What a [`super::State`] is opened with.
#[derive(Clone)]
pub struct StateOptions {
    /// Where it is kept. Made where it is missing.
    pub home: Arc<dyn Home>,
    /// Everything that decides which bytes a batch has and where it ends: name and value, for messages too.
    pub settings: BTreeMap<String, String>,
    /// Which output it belongs to. For a state inside its output a constant, so that the output may be moved.
    pub output: String,
    /// The kind of source: `file`.
    pub source: &'static str,
    /// What envelopes call this machine, unless an unfinished run already said otherwise.
    pub processed_by: String,
    /// The time, in milliseconds since the epoch.
    pub now_ms: i64,
    /// Whether the run begins again.
    pub fresh: Fresh,
    /// Knows inputs again.
    pub identify: Arc<dyn Identify>,
    /// Who decides where batches end. With [`Cuts::Early`] the ends of objects stand in the state before they are
    /// published, and a batch that is done again ends there.
    pub cuts: Cuts,
    /// Where the output's objects are, if it has any that are named by partition.
    pub leftovers: Option<Leftovers>,
}
