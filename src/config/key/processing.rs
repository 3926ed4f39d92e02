//! `[processing]`: how it runs.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::read::{DURATION, SIZE, check, duration, local, name, number, one_of, put, size, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::{MaxRejected, OnReject, SourceKind, StateAt, place};

pub(super) const KEYS: &[Key] = &[
    Key {
        section: "processing",
        name: "source",
        shape: Shape::Text,
        default: Default::Absent("file", "file, or kafka or http where only topics or URLs are named"),
        help: "what is read: file, kafka or http",
        expected: "file, kafka or http",
        set: |draft, value| match text(value)? {
            "file" => put(&mut draft.source, Some(SourceKind::File)),
            "kafka" => put(&mut draft.source, Some(SourceKind::Kafka)),
            "http" | "https" | "api" => put(&mut draft.source, Some(SourceKind::Http)),
            "s3" => Err(Wrong::Because(
                "s3 cannot be read from; expected file (files, directories and -), kafka or http".into(),
            )),
            _ => Err(Wrong::Expected),
        },
    },
    Key {
        section: "processing",
        name: "output",
        shape: Shape::Text,
        default: Default::Is("out"),
        help: "a directory, a file (.ndjson, .jsonl, .json, .txt, with .gz or .zst), s3://BUCKET[/PREFIX], kafka:TOPIC or - (stdout)",
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
        help: "bytes of records in a batch, of files with their line ends; 0: no limit by bytes",
        expected: SIZE,
        set: |draft, value| put(&mut draft.config.processing.batch_bytes, size(value)?),
    },
    Key {
        section: "processing",
        name: "batch_wait",
        shape: Shape::Text,
        default: Default::Absent(
            "10s",
            "directory 10s, s3 5m, kafka 200ms, stdout until nothing more is there",
        ),
        help: "how long a batch of a stream stays open",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.processing.batch_wait, Some(duration(value)?)),
    },
    Key {
        section: "processing",
        name: "memory_limit",
        shape: Shape::Text,
        default: Default::Absent(
            "48MiB",
            "8MiB for each worker, at least 48MiB for files and 256MiB for streams; parts for S3 come on top; less, but not below 48MiB, where a control group or the machine allows less",
        ),
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
        help: "the longest delay before a retry; before brokers are asked again never more than 5s",
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
];
