//! Tests of a group against a scripted coordinator.
//!
//! Tried by hand against Apache Kafka 4.3.1 as well, six partitions: with a Java console consumer in the group, as
//! leader and as follower, by range and by cooperative-sticky: all partitions were assigned exactly once after each
//! join, and what one committed the next went on from. A member stopped for 9 s (session timeout 6 s) lost all
//! by itself when it went on, before it asked anyone, and joined again. A minute of up to four members that
//! joined, left, were stopped and killed -9 at random, by either assignor: of some 800 commits that each added one
//! to the offset found, no offset was acknowledged to two.
#![allow(clippy::disallowed_methods)]

mod cooperative;
mod fault;
mod leaving;
mod plain;
mod proof;
mod world;

use kafka_protocol::messages::ApiKey;
