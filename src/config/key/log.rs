//! `[log]`: what is said about it.

use super::read::{one_of, put, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::LogFormat;

pub(super) const KEYS: &[Key] = &[
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
