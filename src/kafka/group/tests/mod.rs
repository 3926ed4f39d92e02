//! Tests of a group against a scripted coordinator.
#![allow(clippy::disallowed_methods)]

mod cooperative;
mod fault;
mod plain;
mod world;

use kafka_protocol::messages::ApiKey;
