//! `[kafka]`, `[kafka.tls]`, `[kafka.sasl]`: how brokers are reached.

use super::read::{FILE, SWITCH, file, name, names, one_of, put, secret, switch};
use super::{Default, Key, Shape};
use crate::config::kafka::Mechanism;

pub(super) const KEYS: &[Key] = &[
    Key {
        section: "kafka",
        name: "brokers",
        shape: Shape::List,
        default: Default::Absent("[\"localhost:9092\"]", "none; also KAFKA_BROKERS"),
        help: "where to begin, HOST[:PORT] each; the cluster tells the others",
        expected: "HOST:PORT, several with commas between",
        set: |draft, value| put(&mut draft.config.kafka.brokers, names(value)?),
    },
    Key {
        section: "kafka",
        name: "client_id",
        shape: Shape::Text,
        default: Default::Is("pipeline"),
        help: "what the brokers' logs, metrics and quotas call this program",
        expected: "a name",
        set: |draft, value| put(&mut draft.config.kafka.client_id, name(value)?.to_owned()),
    },
    Key {
        section: "kafka.tls",
        name: "enabled",
        shape: Shape::Switch,
        default: Default::Is("false"),
        help: "encrypt connections",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.kafka.tls.enabled, switch(value)?),
    },
    Key {
        section: "kafka.tls",
        name: "ca",
        shape: Shape::Text,
        default: Default::Absent("ca.pem", "the system's"),
        help: "PEM file of the authorities that brokers are verified against",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.kafka.tls.ca, file(value)?),
    },
    Key {
        section: "kafka.tls",
        name: "cert",
        shape: Shape::Text,
        default: Default::Absent("client.pem", "none"),
        help: "PEM file of this client's certificate",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.kafka.tls.cert, file(value)?),
    },
    Key {
        section: "kafka.tls",
        name: "key",
        shape: Shape::Text,
        default: Default::Absent("client.key", "it stands in the file of the certificate"),
        help: "PEM file of this client's key, without a password",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.kafka.tls.key, file(value)?),
    },
    Key {
        section: "kafka.tls",
        name: "verify",
        shape: Shape::Switch,
        default: Default::Is("true"),
        help: "brokers must prove who they are; false: anybody can pretend to be one",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.kafka.tls.verify, switch(value)?),
    },
    Key {
        section: "kafka.sasl",
        name: "mechanism",
        shape: Shape::Text,
        default: Default::Absent("SCRAM-SHA-512", "PLAIN, where there is a username"),
        help: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        expected: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        set: |draft, value| {
            let kinds = [
                ("PLAIN", Mechanism::Plain),
                ("SCRAM-SHA-256", Mechanism::ScramSha256),
                ("SCRAM-SHA-512", Mechanism::ScramSha512),
            ];
            put(&mut draft.config.kafka.sasl.mechanism, Some(one_of(value, &kinds)?))
        },
    },
    Key {
        section: "kafka.sasl",
        name: "username",
        shape: Shape::Text,
        default: Default::Absent("alice", "nobody logs in; also KAFKA_SASL_USERNAME"),
        help: "who logs in",
        expected: "a name",
        set: |draft, value| put(&mut draft.config.kafka.sasl.username, Some(name(value)?.to_owned())),
    },
    Key {
        section: "kafka.sasl",
        name: "password",
        shape: Shape::Secret,
        default: Default::Absent("env:PASSWORD", "none; also KAFKA_SASL_PASSWORD"),
        help: "the password: env:NAME (a variable), file:PATH or the password itself",
        expected: "env:NAME, file:PATH or the password itself",
        set: |draft, value| put(&mut draft.config.kafka.sasl.password, Some(secret(value)?)),
    },
    Key {
        section: "kafka.sasl",
        name: "allow_plaintext",
        shape: Shape::Switch,
        default: Default::Is("false"),
        help: "PLAIN may send the password without encryption",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.kafka.sasl.allow_plaintext, switch(value)?),
    },
];
