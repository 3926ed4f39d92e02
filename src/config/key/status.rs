//! `[status]`: how a run can be watched.

use super::read::{check, file, names, put, text};
use super::{Default, Key, Shape};

pub(super) const KEYS: &[Key] = &[
    Key {
        section: "status",
        name: "listen",
        shape: Shape::Text,
        default: Default::Absent("127.0.0.1:9464", "nobody is listened to"),
        help: "HOST:PORT that serves /metrics, /health, /ready, /status and a live page",
        expected: "HOST:PORT like 127.0.0.1:9464; port 0 takes a free one",
        set: |draft, value| {
            let address = text(value)?;
            let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            check(parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok()))?;
            put(&mut draft.status.listen, Some(address.into()))
        },
    },
    Key {
        section: "status",
        name: "hosts",
        shape: Shape::List,
        default: Default::Absent(
            "batch1.example.org",
            "addresses, localhost and the name that is listened on",
        ),
        help: "names under which the live page and /status are served, beside addresses and localhost",
        expected: "names of hosts",
        set: |draft, value| put(&mut draft.status.hosts, names(value)?),
    },
    Key {
        section: "status",
        name: "metrics_file",
        shape: Shape::Text,
        default: Default::Absent("/var/lib/node_exporter/pipeline.prom", "none"),
        help: "file that is replaced with the metrics every 15 seconds and at the end",
        expected: "the name of a file",
        set: |draft, value| put(&mut draft.status.metrics_file, file(value)?),
    },
];
