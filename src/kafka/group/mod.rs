//! Membership of a consumer group.
pub mod assign;
pub mod metadata;
mod protocol;
