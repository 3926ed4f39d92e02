//! Tests against real services that they start themselves: Apache Kafka, from Maven packages (`kafka.sh`), an S3
//! server, from a Go module (`s3.sh`, [`s3::Server`]), and a JSON server, from npm (`json.sh`, [`json`]).
//!
//! One broker with every kind of listener serves all tests that leave it alone ([`kafka::Kafka::shared`]); three
//! brokers serve those that break them, one at a time ([`cluster::Cluster3`]). Where Java, Go or Node.js is missing the
//! tests are skipped and say so, unless `CI=true`.

mod access;
mod admin;
mod batches;
mod chaos;
mod client;
mod cluster;
mod directory;
mod exactly;
mod faults;
mod flow;
mod harness;
mod json;
mod kafka;
mod nodes;
mod planned;
mod proxy;
mod records;
mod refusals;
mod s3;
mod tool;

#[allow(dead_code, reason = "tests/it needs more of it")]
#[path = "../it/exposition.rs"]
mod exposition;
#[allow(dead_code, reason = "tests/it needs more of it")]
#[path = "../it/runs.rs"]
mod runs;
#[allow(dead_code, reason = "tests/it needs more of it")]
#[path = "../it/support.rs"]
mod support;
