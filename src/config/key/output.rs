//! `[output]`: as what it is stored.

use super::read::{SWITCH, one_of, put, switch, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::{EnvelopeKind, place};
use crate::sink::key::Template;

pub(super) const KEYS: &[Key] = &[
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
        name: "key",
        shape: Shape::Text,
        default: Default::Absent("hive", "by source, see README"),
        help: "names of files and objects: hive, or a template like dt={date}/{topic}/",
        expected: "hive or a template like dt={date}/{topic}/",
        set: |draft, value| {
            let key = Template::parse(text(value)?).map_err(Wrong::Because)?;
            put(&mut draft.config.output.key, Some(key))
        },
    },
    Key {
        section: "output",
        name: "dead_letter",
        shape: Shape::Text,
        default: Default::Absent("rejected", "failed/ in the output directory or bucket"),
        help: "a directory or kafka:TOPIC for rejected records",
        expected: "a directory or kafka:TOPIC",
        set: |draft, value| {
            let to = place::parse_letters(text(value)?).map_err(Wrong::Because)?;
            put(&mut draft.config.output.dead_letter, Some(to))
        },
    },
    Key {
        section: "output",
        name: "fsync",
        shape: Shape::Switch,
        default: Default::Is("true"),
        help: "sync files and directories before they count as stored",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.output.fsync, switch(value)?),
    },
];
