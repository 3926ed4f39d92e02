//! `[kafka.source]`: what is read.

use std::time::Duration;

use super::read::{DURATION, check, duration, duration_within, name, names, one_of, put, size, text, time};
use super::{Default, Key, Shape, Wrong};
use crate::config::kafka::{Assignor, From, Isolation, OutOfRange, Until, check_group, check_name};
use crate::config::setting::Value;

const SECTION: &str = "kafka.source";
/// An answer is one buffer, and its length has 31 bits on the wire.
const LARGEST: u64 = 1 << 30;

pub(super) const KEYS: &[Key] = &[
    Key {
        section: SECTION,
        name: "topics",
        shape: Shape::List,
        default: Default::Absent("[\"orders\", \"events\"]", "named on the command line: -t"),
        help: "topics that are read",
        expected: "topics, several with commas between",
        set: |draft, value| {
            let topics = names(value)?;
            topics.iter().try_for_each(|topic| check_name("topic", topic)).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.source.topics, topics)
        },
    },
    Key {
        section: SECTION,
        name: "group",
        shape: Shape::Text,
        default: Default::Absent(
            "nightly",
            "pipeline-{topics}-{hash of the output}; none with one file or -o -",
        ),
        help: "group whose members share the partitions",
        expected: "a name",
        set: |draft, value| {
            let group = name(value)?;
            check_group("group", group).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.source.group, Some(group.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "from",
        shape: Shape::Text,
        default: Default::Is("earliest"),
        help: "where a partition begins of which the group has no commit: earliest, latest or a time",
        expected: "earliest, latest or a time like 2026-11-23T12:00:00Z or 2026-11-23",
        set: |draft, value| {
            let from = match text(value)? {
                "earliest" => From::Earliest,
                "latest" => From::Latest,
                _ => From::Time(time(value)?),
            };
            put(&mut draft.config.kafka.source.from, from)
        },
    },
    Key {
        section: SECTION,
        name: "on_out_of_range",
        shape: Shape::Text,
        default: Default::Is("error"),
        help: "where it goes on when records of the group were deleted: error (not at all), earliest or latest",
        expected: "error, earliest or latest",
        set: |draft, value| {
            let kinds = [
                ("error", OutOfRange::Error),
                ("earliest", OutOfRange::Earliest),
                ("latest", OutOfRange::Latest),
            ];
            put(&mut draft.config.kafka.source.on_out_of_range, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "until",
        shape: Shape::Text,
        default: Default::Is("forever"),
        help: "where the run ends: end (what was the end when it began), a time, or forever",
        expected: "end, forever or a time like 2026-11-23T12:00:00Z or 2026-11-23",
        set: |draft, value| {
            let until = match text(value)? {
                "end" => Until::End,
                "forever" => Until::Forever,
                _ => Until::Time(time(value)?),
            };
            put(&mut draft.config.kafka.source.until, until)
        },
    },
    Key {
        section: SECTION,
        name: "isolation",
        shape: Shape::Text,
        default: Default::Is("read_committed"),
        help: "read_committed: no records of aborted or open transactions; or read_uncommitted",
        expected: "read_committed or read_uncommitted",
        set: |draft, value| {
            let kinds = [
                ("read_committed", Isolation::ReadCommitted),
                ("read_uncommitted", Isolation::ReadUncommitted),
            ];
            put(&mut draft.config.kafka.source.isolation, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "instance_id",
        shape: Shape::Text,
        default: Default::Absent("host1", "none"),
        help: "static member of the group: a restart within session_timeout moves no partition",
        expected: "a name",
        set: |draft, value| {
            let id = name(value)?;
            check_name("instance_id", id).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.source.instance_id, Some(id.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "session_timeout",
        shape: Shape::Text,
        default: Default::Is("45s"),
        help: "a member that is not heard of for so long is dead; heartbeats come three times as often",
        // Brokers take 6 s to 30 min unless told otherwise; below a second heartbeats are mere noise.
        expected: "a duration from 1s to 30m",
        set: |draft, value| {
            let timeout = duration_within(value, Duration::from_secs(1), Duration::from_secs(1800))?;
            put(&mut draft.config.kafka.source.session_timeout, timeout)
        },
    },
    Key {
        section: SECTION,
        name: "max_poll_interval",
        shape: Shape::Text,
        default: Default::Is("5m"),
        help: "a member that takes no records for so long is stuck, and leaves the group",
        expected: "a duration from 1s to 1d",
        set: |draft, value| {
            let interval = duration_within(value, Duration::from_secs(1), Duration::from_secs(86_400))?;
            put(&mut draft.config.kafka.source.max_poll_interval, interval)
        },
    },
    Key {
        section: SECTION,
        name: "assignor",
        shape: Shape::Text,
        default: Default::Is("cooperative-sticky"),
        help: "how members share the partitions: cooperative-sticky or range",
        expected: "cooperative-sticky or range",
        set: |draft, value| {
            let kinds = [("cooperative-sticky", Assignor::CooperativeSticky), ("range", Assignor::Range)];
            put(&mut draft.config.kafka.source.assignor, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "fetch_max_bytes",
        shape: Shape::Text,
        default: Default::Is("8MiB"),
        help: "bytes in one answer of a broker",
        expected: "a size from 1KiB to 1GiB, like 8MiB",
        set: |draft, value| put(&mut draft.config.kafka.source.fetch_max_bytes, fetch(value, 1024)?),
    },
    Key {
        section: SECTION,
        name: "fetch_partition_max_bytes",
        shape: Shape::Text,
        default: Default::Is("1MiB"),
        help: "bytes of one partition in it",
        expected: "a size from 1KiB to 1GiB, like 1MiB",
        set: |draft, value| {
            put(&mut draft.config.kafka.source.fetch_partition_max_bytes, fetch(value, 1024)?)
        },
    },
    Key {
        section: SECTION,
        name: "fetch_min_bytes",
        shape: Shape::Text,
        default: Default::Is("1"),
        help: "a broker answers as soon as it has so many bytes",
        expected: "a size from 1 byte to 1GiB, like 1 or 64KiB",
        set: |draft, value| put(&mut draft.config.kafka.source.fetch_min_bytes, fetch(value, 1)?),
    },
    Key {
        section: SECTION,
        name: "fetch_max_wait",
        shape: Shape::Text,
        default: Default::Is("500ms"),
        help: "or after so long",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.kafka.source.fetch_max_wait, duration(value)?),
    },
];

fn fetch(value: &Value, least: u64) -> Result<u64, Wrong> {
    let bytes = size(value)?;
    check((least..=LARGEST).contains(&bytes))?;
    Ok(bytes)
}
