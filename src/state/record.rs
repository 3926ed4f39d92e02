//! `state.json`: its shape, strict reading, atomic writing. A file that is not exactly what this program writes
//! is refused: guessing what is done would lose records or store them twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::sink::dir::place::sync_dir;

/// The file in the state's directory.
pub const FILE: &str = "state.json";
/// What is written until it is whole. The lock keeps it from being written twice at a time.
const NEW: &str = "state.json.new";
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
    /// Whether the partition only began: no mark of it was stored.
    pub fn is_untouched(&self) -> bool {
        self.watermark == 0 && !self.ended
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
            partitions: BTreeMap::new(),
        }
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is not whole.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => parse(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// Removes what a run left that was killed while it replaced the file. Only under the lock.
    pub fn sweep(dir: &Path) {
        // It may not be there, and it is replaced by the next write.
        let _ = fs::remove_file(dir.join(NEW));
    }

    /// Replaces the file. Durable on return; a crash leaves the old or the new one.
    ///
    /// # Errors
    /// If it is not durable.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (new, path) = (dir.join(NEW), dir.join(FILE));
        let written = (|| {
            let mut out = BufWriter::with_capacity(64 << 10, File::create(&new)?);
            serde_json::to_writer(&mut out, self)?;
            out.write_all(b"\n")?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
        })();
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(Error::io("write", new, error));
        }
        fs::rename(&new, &path).map_err(|error| Error::io("rename the state to", path, error))?;
        sync_dir(dir)
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Record> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |reason: String| {
        let hint = "--fresh begins again and replaces what the earlier run left";
        Error::Usage(format!("the state {} cannot be used: {reason}; {hint}", path.display()))
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
