//! `[input]`: what is in what is read.

use super::read::{check, one_of, put, size, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::setting::Value;
use crate::config::{Format, place};

pub(super) const KEYS: &[Key] = &[
    Key {
        section: "input",
        name: "files",
        shape: Shape::List,
        default: Default::Absent("[\"data1.json\", \"logs/\"]", "named on the command line"),
        help: "files, directories and - (stdin), where none are named on the command line",
        expected: "a list of files, directories and -, none of them empty",
        set: |draft, value| {
            let files = match value {
                Value::List(files) => files.clone(),
                one => vec![text(one)?.to_owned()],
            };
            check(files.iter().all(|file| !file.is_empty()))?;
            for file in files.iter().filter(|file| !std::path::Path::new(file).exists()) {
                place::is_expanded(file).map_err(Wrong::Because)?;
                place::foreign(file).map_or(Ok(()), |kind| Err(elsewhere(kind)))?;
            }
            put(&mut draft.config.input.files, files)
        },
    },
    Key {
        section: "input",
        name: "format",
        shape: Shape::Text,
        default: Default::Is("auto"),
        help: "auto, ndjson, json (an array, or values one after another), text (lines) or binary (Kafka, and its dead letters)",
        expected: "auto, ndjson, json, text or binary",
        set: |draft, value| {
            let kinds = [
                ("auto", Format::Auto),
                ("ndjson", Format::Ndjson),
                ("jsonl", Format::Ndjson),
                ("json", Format::Json),
                ("text", Format::Text),
                ("binary", Format::Binary),
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
        expected: "a size from 1 byte to 1GiB, like 64KiB or 16MiB",
        set: |draft, value| {
            let bytes = size(value)?;
            draft.config.input.max_record_bytes = bytes;
            check((1..=1 << 30).contains(&bytes))
        },
    },
];

/// Where a kind of place that is no file is named. The place is not told: URLs may hold tokens.
fn elsewhere(kind: &str) -> Wrong {
    Wrong::Because(match kind {
        "http" | "https" => "a URL is no file; expected endpoints in --url (http.urls)".into(),
        "kafka" => "a topic is no file; expected it in -t (kafka.source.topics), without kafka:".into(),
        "file" => "a URL is no file; expected its path, without file://".into(),
        _ => format!(
            "nothing is read from {kind}; expected files, directories and - (stdin), into which other programs may write"
        ),
    })
}
