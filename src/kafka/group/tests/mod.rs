//! Tests of a group against a scripted coordinator.
#![allow(clippy::disallowed_methods)]

mod plain;
mod world;
