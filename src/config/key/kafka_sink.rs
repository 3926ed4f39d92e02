//! `[kafka.sink]`, `[kafka.notify]`: what is written.

use super::read::{DURATION, check, duration, name, one_of, put, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::kafka::{Compression, NOTIFY, Partitioner, check_group, check_name};

const SECTION: &str = "kafka.sink";

pub(super) const KEYS: &[Key] = &[
    Key {
        section: SECTION,
        name: "topic",
        shape: Shape::Text,
        default: Default::Absent("results", "named by the output: kafka:TOPIC"),
        help: "topic of the output kafka:, where that names none",
        expected: "a topic",
        set: |draft, value| {
            let topic = name(value)?;
            check_name("topic", topic).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.sink.topic, Some(topic.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "key",
        shape: Shape::Text,
        default: Default::Absent("/id", "the key of the record that was read"),
        help: "JSON pointer into the output without its envelope: what it finds is the message's key",
        expected: "a JSON pointer like /id",
        set: |draft, value| {
            let pointer = text(value)?;
            check(is_pointer(pointer))?;
            put(&mut draft.config.kafka.sink.key, Some(pointer.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "partitioner",
        shape: Shape::Text,
        default: Default::Is("murmur2"),
        help: "which partition a key goes to: murmur2, as with Java's producer",
        expected: "murmur2",
        set: |draft, value| {
            let kinds = [("murmur2", Partitioner::Murmur2)];
            put(&mut draft.config.kafka.sink.partitioner, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "compression",
        shape: Shape::Text,
        default: Default::Is("lz4"),
        help: "none, gzip, snappy, lz4 or zstd; gzip and zstd with a level: zstd:3",
        expected: "none, gzip[:0…9], snappy, lz4 or zstd[:-7…19]",
        set: |draft, value| {
            let (compression, level) = compression(text(value)?).ok_or(Wrong::Expected)?;
            draft.config.kafka.sink.level = level;
            put(&mut draft.config.kafka.sink.compression, compression)
        },
    },
    Key {
        section: SECTION,
        name: "acks",
        shape: Shape::Text,
        default: Default::Is("all"),
        help: "how many replicas have a record before it counts as stored: all",
        expected: "all",
        set: |_, value| match text(value)? {
            "all" | "-1" => Ok(()),
            other @ ("0" | "1") => {
                Err(Wrong::Because(format!("{other} may lose records that count as stored; expected all")))
            }
            _ => Err(Wrong::Expected),
        },
    },
    Key {
        section: SECTION,
        name: "linger",
        shape: Shape::Text,
        default: Default::Is("5ms"),
        help: "how long batches are gathered for one request or transaction",
        expected: DURATION,
        set: |draft, value| put(&mut draft.config.kafka.sink.linger, duration(value)?),
    },
    Key {
        section: SECTION,
        name: "transactional_id",
        shape: Shape::Text,
        default: Default::Absent("copy-1", "made of the group, where kafka is read"),
        help: "what a transactional producer is known by; no two at a time may have the same",
        expected: "a name",
        set: |draft, value| {
            let id = name(value)?;
            check_group("transactional_id", id).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.sink.transactional_id, Some(id.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "delivery_timeout",
        shape: Shape::Text,
        default: Default::Is("2m"),
        help: "a record that is not acknowledged for so long ends the run",
        expected: "a duration above 0, like 30s, 2m or 1h",
        set: |draft, value| {
            let timeout = duration(value)?;
            check(!timeout.is_zero())?;
            put(&mut draft.config.kafka.sink.delivery_timeout, timeout)
        },
    },
    Key {
        section: "kafka.notify",
        name: "topic",
        shape: Shape::Text,
        default: Default::Absent(NOTIFY, "off, unless the table is there"),
        help: "topic that gets a message for each published batch",
        expected: "a topic",
        set: |draft, value| {
            let topic = name(value)?;
            check_name("topic", topic).map_err(Wrong::Because)?;
            put(&mut draft.config.kafka.notify, Some(crate::config::kafka::Notify { topic: topic.into() }))
        },
    },
];

/// RFC 6901: `/name` or `/0`, as often as need be; `~` only as `~0` and `~1`. The empty pointer is the whole
/// output, which is no key.
fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.starts_with('/') && escapes
}

fn compression(text: &str) -> Option<(Compression, Option<i32>)> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse::<i32>().ok()?)),
        None => (text, None),
    };
    let (compression, levels) = match name {
        "none" => (Compression::None, None),
        "gzip" => (Compression::Gzip, Some(0..=9)),
        "snappy" => (Compression::Snappy, None),
        "lz4" => (Compression::Lz4, None),
        "zstd" => (Compression::Zstd, Some(-7..=19)),
        _ => return None,
    };
    let is_level = |level: i32| levels.is_some_and(|levels| levels.contains(&level));
    level.is_none_or(is_level).then_some((compression, level))
}
