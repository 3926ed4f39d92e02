//! The one table of configuration keys: [`KEYS`]. A new key is one entry here and one field of its struct.
//!
//! From it come the check for unknown keys, the environment variables, `--set`, `--print-config` and the shipped
//! `config.toml`. What a value may be is decided by the entry's `set`, and what a user reads when it is wrong
//! stands right beside it. The file is long because the table is: split it by section when it gets longer.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::nearest::did_you_mean;
use super::resolve::Draft;
use super::setting::Value;
use super::{EnvelopeKind, Format, LogFormat, MaxRejected, OnReject, StateAt, place, unit};

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// How its value is written.
    pub shape: Shape,
    /// What it is when nobody sets it.
    pub default: Default,
    /// One comment on what it is for.
    pub help: &'static str,
    /// What a wrong value should have been.
    pub expected: &'static str,
    /// Checks a value and puts it into the draft.
    pub(super) set: fn(&mut Draft, &Value) -> Result<(), Wrong>,
}

/// How a value is written in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A bare number, or a text where a number alone does not say it.
    Number,
    /// `true` or `false`.
    Switch,
    /// A text in quotes.
    Text,
    /// Texts in brackets.
    List,
}

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Is(&'static str),
    /// Absent, or found out at the start: an example, and what that means.
    Absent(&'static str, &'static str),
}

/// Why a value cannot be.
pub(super) enum Wrong {
    /// It is not what the key expects.
    Expected,
    /// For a reason of its own.
    Because(String),
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        let section = self.section.replace('.', "__");
        format!("PIPELINE_{section}__{}", self.name).to_ascii_uppercase()
    }

    /// A value from where there are only texts: a list may be one text or a TOML array.
    pub fn read(&self, text: &str) -> Value {
        if self.shape != Shape::List {
            return Value::Text(text.into());
        }
        let array = text.trim_start().starts_with('[').then(|| format!("list = {text}"));
        let list = array.and_then(|line| toml::from_str::<toml::Table>(&line).ok());
        let texts = list.and_then(|table| table.get("list")?.clone().try_into::<Vec<String>>().ok());
        Value::List(texts.unwrap_or_else(|| vec![text.into()]))
    }
}

/// The key of a path like `processing.workers`.
///
/// # Errors
/// One line that names the nearest key.
pub fn find(path: &str) -> Result<&'static Key, String> {
    KEYS.iter().find(|key| key.path() == path).ok_or_else(|| {
        let paths: Vec<String> = KEYS.iter().map(Key::path).collect();
        let meant = did_you_mean(path, paths.iter().map(String::as_str));
        // A name without its section is the likeliest slip, and no typo.
        let bare = KEYS.iter().find(|key| key.name == path).map(Key::path);
        let meant = bare.map_or(meant, |path| format!("; did you mean {path}?"));
        format!("unknown key {path}{meant}")
    })
}

/// The names of the tables, in order.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

/// Every key, section by section, in the order in which it is shown.
pub static KEYS: &[Key] = &[
    Key {
        section: "processing",
        name: "source",
        shape: Shape::Text,
        default: Default::Is("file"),
        help: "what is read: file",
        expected: "file",
        set: |_, value| match text(value)? {
            "file" => Ok(()),
            other @ ("kafka" | "http" | "https" | "api" | "s3") => Err(Wrong::Because(format!(
                "this build cannot read from {other} yet; it reads from: file (files, directories and -)"
            ))),
            _ => Err(Wrong::Expected),
        },
    },
    Key {
        section: "processing",
        name: "output",
        shape: Shape::Text,
        default: Default::Is("out"),
        help: "a directory, a file (.ndjson, .jsonl, .json, .txt, with .gz or .zst) or - (stdout)",
        expected: place::EXPECTED,
        set: |draft, value| {
            draft.config.output.to = place::parse(text(value)?).map_err(Wrong::Because)?;
            Ok(())
        },
    },
    Key {
        section: "processing",
        name: "workers",
        shape: Shape::Number,
        default: Default::Absent("2", "one for each core"),
        help: "threads that parse, transform and compress",
        expected: "a whole number from 1 to 1024",
        set: |draft, value| {
            let workers = number::<NonZeroUsize>(value)?;
            draft.workers = Some(workers);
            check(workers.get() <= 1024)
        },
    },
    Key {
        section: "processing",
        name: "batch_size",
        shape: Shape::Number,
        default: Default::Is("0"),
        help: "records in a batch; 0: no limit by count",
        expected: "a whole number of records, 0 or more (0: no limit by count)",
        set: |draft, value| put(&mut draft.config.processing.batch_size, number(value)?),
    },
    Key {
        section: "processing",
        name: "batch_bytes",
        shape: Shape::Text,
        default: Default::Is("64MiB"),
        help: "bytes of records in a batch; 0: no limit by bytes",
        expected: SIZE,
        set: |draft, value| put(&mut draft.config.processing.batch_bytes, size(value)?),
    },
    Key {
        section: "processing",
        name: "batch_wait",
        shape: Shape::Text,
        default: Default::Absent("10s", "the output's own"),
        help: "how long a batch of a stream stays open",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.processing.batch_wait, Some(duration(value)?)),
    },
    Key {
        section: "processing",
        name: "memory_limit",
        shape: Shape::Text,
        default: Default::Absent("48MiB", "the larger of 48MiB and 8MiB for each worker"),
        help: "bytes that may be between read and stored",
        expected: "a size of at least 1MiB, like 48MiB or 1GB",
        set: |draft, value| {
            let bytes = usize::try_from(size(value)?).map_err(|_| Wrong::Expected)?;
            draft.memory_limit = Some(bytes);
            check(bytes >= 1 << 20)
        },
    },
    Key {
        section: "processing",
        name: "timeout",
        shape: Shape::Text,
        default: Default::Is("30s"),
        help: "limit of one request to a service",
        expected: "a duration above 0, like 500ms, 30s, 5m or 2h",
        set: |draft, value| {
            let timeout = duration(value)?;
            draft.config.processing.timeout = timeout;
            check(!timeout.is_zero())
        },
    },
    Key {
        section: "processing",
        name: "max_retries",
        shape: Shape::Number,
        default: Default::Is("8"),
        help: "how often a transient failure is tried again",
        expected: "a whole number of retries, 0 or more",
        set: |draft, value| put(&mut draft.config.processing.retry.max_retries, number(value)?),
    },
    Key {
        section: "processing",
        name: "retry_delay",
        shape: Shape::Text,
        default: Default::Is("500ms"),
        help: "the first delay before a retry; it doubles with each",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.processing.retry.delay, duration(value)?),
    },
    Key {
        section: "processing",
        name: "retry_max_delay",
        shape: Shape::Text,
        default: Default::Is("30s"),
        help: "the longest delay before a retry",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.processing.retry.max_delay, duration(value)?),
    },
    Key {
        section: "processing",
        name: "on_reject",
        shape: Shape::Text,
        default: Default::Is("dead-letter"),
        help: "what becomes of rejected records: dead-letter, fail or drop",
        expected: "dead-letter, fail or drop",
        set: |draft, value| {
            let kinds =
                [("dead-letter", OnReject::DeadLetter), ("fail", OnReject::Fail), ("drop", OnReject::Drop)];
            put(&mut draft.config.processing.on_reject, one_of(value, &kinds)?)
        },
    },
    Key {
        section: "processing",
        name: "max_rejected",
        shape: Shape::Number,
        default: Default::Absent("1000", "no limit"),
        help: "more rejected records than this, or than this share (\"5%\"), end the run",
        expected: "a whole number of records, or a percentage from 0% to 100%",
        set: |draft, value| {
            let limit = match text(value)?.strip_suffix('%') {
                None => MaxRejected::Count(number(value)?),
                Some(percent) => {
                    let percent = percent.trim().parse::<f64>().map_err(|_| Wrong::Expected)?;
                    check((0.0..=100.0).contains(&percent))?;
                    MaxRejected::Percent(percent)
                }
            };
            put(&mut draft.config.processing.max_rejected, Some(limit))
        },
    },
    Key {
        section: "processing",
        name: "state",
        shape: Shape::Text,
        default: Default::Absent("/var/lib/pipeline", "beside the output"),
        help: "directory that remembers what is done, or none",
        expected: "a directory, or none",
        set: |draft, value| {
            let state = match local(value)? {
                "none" => StateAt::None,
                dir => StateAt::Dir(PathBuf::from(dir)),
            };
            put(&mut draft.config.processing.state, state)
        },
    },
    Key {
        section: "processing",
        name: "shard",
        shape: Shape::Text,
        default: Default::Absent("0/4", "every input"),
        help: "I/N: every Nth input, beginning with the Ith (from 0)",
        expected: "I/N with I from 0 to N-1, like 0/4",
        set: |draft, value| {
            let (index, count) = text(value)?.split_once('/').ok_or(Wrong::Expected)?;
            let parse = |text: &str| text.trim().parse::<u32>().map_err(|_| Wrong::Expected);
            let (index, count) = (parse(index)?, parse(count)?);
            draft.config.processing.shard = Some((index, count));
            check(index < count)
        },
    },
    Key {
        section: "processing",
        name: "processed_by",
        shape: Shape::Text,
        default: Default::Absent("host1", "the host's name"),
        help: "what envelopes call this machine",
        expected: "a name",
        set: |draft, value| put(&mut draft.config.processing.processed_by, Some(name(value)?.to_owned())),
    },
    Key {
        section: "input",
        name: "files",
        shape: Shape::List,
        default: Default::Absent("[\"data1.json\", \"logs/\"]", "named on the command line"),
        help: "files, directories and - (stdin), where none are named on the command line",
        expected: "a list of files, directories and -, none of them empty",
        set: |draft, value| {
            let files = match value {
                Value::Text(file) => vec![file.clone()],
                Value::List(files) => files.clone(),
            };
            if let Some((file, kind)) = files.iter().find_map(|file| Some((file, place::foreign(file)?)))
                && !std::path::Path::new(file).exists()
            {
                let can = "it reads files, directories and - (stdin)";
                return Err(Wrong::Because(format!("this build cannot read {file} ({kind}) yet; {can}")));
            }
            check(files.iter().all(|file| !file.is_empty()))?;
            put(&mut draft.config.input.files, files)
        },
    },
    Key {
        section: "input",
        name: "format",
        shape: Shape::Text,
        default: Default::Is("auto"),
        help: "auto, ndjson, json (an array, or values one after another) or text (lines)",
        expected: "auto, ndjson, json or text",
        set: |draft, value| {
            let kinds = [
                ("auto", Format::Auto),
                ("ndjson", Format::Ndjson),
                ("jsonl", Format::Ndjson),
                ("json", Format::Json),
                ("text", Format::Text),
            ];
            put(&mut draft.config.input.format, one_of(value, &kinds)?)
        },
    },
    Key {
        section: "input",
        name: "max_record_bytes",
        shape: Shape::Text,
        default: Default::Is("16MiB"),
        help: "a longer record becomes a dead letter (its beginning only)",
        expected: "a size from 1 byte to 2GiB, like 64KiB or 16MiB",
        set: |draft, value| {
            // Offsets in a chunk are 32 bits wide.
            let bytes = size(value)?;
            draft.config.input.max_record_bytes = bytes;
            check((1..=2 << 30).contains(&bytes))
        },
    },
    Key {
        section: "output",
        name: "compress",
        shape: Shape::Text,
        default: Default::Absent("gzip:1", "what the output's name says, else none"),
        help: "none, gzip or zstd, with a level: gzip:6",
        expected: "none, gzip[:0…9] or zstd[:-7…19]",
        set: |draft, value| {
            put(&mut draft.codec, Some(place::parse_codec(text(value)?).ok_or(Wrong::Expected)?))
        },
    },
    Key {
        section: "output",
        name: "envelope",
        shape: Shape::Text,
        default: Default::Is("default"),
        help: "what is put around a record: default, none or cloudevents",
        expected: "default, none or cloudevents",
        set: |draft, value| {
            let kinds = [
                ("default", EnvelopeKind::Default),
                ("none", EnvelopeKind::None),
                ("cloudevents", EnvelopeKind::CloudEvents),
            ];
            put(&mut draft.config.output.envelope, one_of(value, &kinds)?)
        },
    },
    Key {
        section: "output",
        name: "dead_letter",
        shape: Shape::Text,
        default: Default::Absent("rejected", "failed/ in the output directory"),
        help: "directory for rejected records",
        expected: "a directory",
        set: |draft, value| {
            let dir = local(value)?;
            check(dir != "-")?;
            put(&mut draft.config.output.dead_letter, Some(PathBuf::from(dir)))
        },
    },
    Key {
        section: "output",
        name: "fsync",
        shape: Shape::Switch,
        default: Default::Is("true"),
        help: "sync files and directories before they count as stored",
        expected: "true or false",
        set: |draft, value| {
            put(&mut draft.config.output.fsync, one_of(value, &[("true", true), ("false", false)])?)
        },
    },
    Key {
        section: "log",
        name: "level",
        shape: Shape::Text,
        default: Default::Is("warn"),
        help: "off, error, warn, info, debug or trace",
        expected: "off, error, warn, info, debug or trace",
        set: |draft, value| put(&mut draft.log.level, text(value)?.parse().map_err(|_| Wrong::Expected)?),
    },
    Key {
        section: "log",
        name: "format",
        shape: Shape::Text,
        default: Default::Is("text"),
        help: "text, or json: one object a line",
        expected: "text or json",
        set: |draft, value| {
            let kinds = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            put(&mut draft.log.format, one_of(value, &kinds)?)
        },
    },
];

const SIZE: &str = "a size like 64KiB, 8MiB, 1GB or a number of bytes";
const DURATION: &str = "a duration like 500ms, 30s, 5m or 2h";

fn text(value: &Value) -> Result<&str, Wrong> {
    match value {
        Value::Text(text) => Ok(text),
        Value::List(_) => Err(Wrong::Expected),
    }
}

fn name(value: &Value) -> Result<&str, Wrong> {
    let name = text(value)?;
    check(!name.trim().is_empty())?;
    Ok(name)
}

/// A name in the local file system.
fn local(value: &Value) -> Result<&str, Wrong> {
    let path = name(value)?;
    match place::foreign(path) {
        None => Ok(path),
        Some(kind) => {
            Err(Wrong::Because(format!("this build cannot write to {kind} yet; expected a local directory")))
        }
    }
}

fn number<T: std::str::FromStr>(value: &Value) -> Result<T, Wrong> {
    text(value)?.trim().parse().map_err(|_| Wrong::Expected)
}

fn size(value: &Value) -> Result<u64, Wrong> {
    unit::size(text(value)?).ok_or(Wrong::Expected)
}

fn duration(value: &Value) -> Result<Duration, Wrong> {
    unit::duration(text(value)?).ok_or(Wrong::Expected)
}

fn one_of<T: Copy>(value: &Value, kinds: &[(&str, T)]) -> Result<T, Wrong> {
    let text = text(value)?;
    kinds.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or(Wrong::Expected)
}

fn check(holds: bool) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong::Expected) }
}

fn put<T>(place: &mut T, value: T) -> Result<(), Wrong> {
    *place = value;
    Ok(())
}
