//! `state.json`: its shape, strict reading, atomic writing. A file that is not exactly what this program writes
//! is refused: guessing what is done would lose records or store them twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::home::Home;
use crate::error::{Error, Result, Retry};

/// The file in the state's directory.
pub const FILE: &str = "state.json";
/// What is written until it is whole. The lock keeps it from being written twice at a time.
pub const NEW: &str = "state.json.new";
/// The setting that names objects, where it is not the default.
pub const KEY: &str = "key";
const VERSION: u32 = 1;

/// Everything that is remembered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub version: u32,
    /// Where the output goes, as the caller names it.
    pub output: String,
    /// The kind of source.
    pub source: String,
    pub run: Run,
    pub settings: BTreeMap<String, String>,
    /// Partitions whose objects are being deleted; not empty only while `--fresh` is at it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clearing: Vec<String>,
    /// Templates that named objects before the one of the settings does; an empty one is the default names. What
    /// `--fresh` replaces may have any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_keys: Vec<String>,
    pub partitions: BTreeMap<String, Entry>,
}

/// The run that last began.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub started_at: i64,
    pub processed_by: String,
    pub finished: bool,
}

/// How far a partition is done. Compact: there may be 100,000.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub watermark: u64,
    pub line: u64,
    pub rejected: u64,
    pub ended: bool,
    /// The start of the run that its batches carry, where that is not the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// What the source knows its input by, as it gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Box<RawValue>>,
    /// What the source needs besides to go on, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Plan>,
}

impl Entry {
    /// Whether the partition only began: no mark of it was stored. One that is planned, or in a later pass, did more.
    pub fn is_untouched(&self) -> bool {
        self.watermark == 0 && !self.ended && self.resume.is_none() && self.plan.is_empty()
    }
}

/// An end at which a batch may already be published.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub end: u64,
    pub first_time: i64,
    pub opened_at: i64,
}

impl Record {
    /// Nothing done yet.
    pub fn new(output: String, source: String, run: Run, settings: BTreeMap<String, String>) -> Self {
        Record {
            version: VERSION,
            output,
            source,
            run,
            settings,
            clearing: Vec::new(),
            earlier_keys: Vec::new(),
            partitions: BTreeMap::new(),
        }
    }

    /// Remembers how objects were named so far, where these settings name them otherwise.
    pub fn remember_key(&mut self, settings: &BTreeMap<String, String>) {
        let key = |settings: &BTreeMap<String, String>| settings.get(KEY).cloned().unwrap_or_default();
        let (old, new) = (key(&self.settings), key(settings));
        if old != new && !self.earlier_keys.contains(&old) {
            self.earlier_keys.push(old);
        }
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is not whole.
    pub fn read(home: &dyn Home) -> Result<Option<Self>> {
        let place = format!("{}/{FILE}", home.name().trim_end_matches('/'));
        home.read()?.map(|bytes| parse(&bytes, &place)).transpose()
    }

    /// Replaces what is remembered. Durable on return; a crash leaves the old or the new one.
    ///
    /// # Errors
    /// If it is not durable.
    pub fn write(&self, home: &dyn Home) -> Result<()> {
        home.write(&self.bytes()?)
    }

    /// The same, for writes that nobody tries again.
    ///
    /// # Errors
    /// If it is not durable.
    pub fn write_patiently(&self, home: &dyn Home) -> Result<()> {
        home.write_patiently(&self.bytes()?)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let odd = |error| Error::other("cannot write the state", Retry::Permanent, error);
        let mut bytes = serde_json::to_vec(self).map_err(odd)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

fn parse(bytes: &[u8], place: &str) -> Result<Record> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |reason: String| {
        let hint = "--fresh begins again and replaces what the earlier run left";
        Error::Usage(format!("the state {place} cannot be used: {reason}; {hint}"))
    };
    let version = serde_json::from_slice::<Versioned>(bytes).map_err(|error| damaged(error.to_string()))?;
    if version.version != VERSION {
        let theirs = version.version;
        return Err(damaged(format!("it has version {theirs}, and this program knows version {VERSION}")));
    }
    if bytes.last() != Some(&b'\n') {
        return Err(damaged("its end is missing".into()));
    }
    serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))
}
