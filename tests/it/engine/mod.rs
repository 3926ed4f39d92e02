//! The rules of the engine, each with a test that fails without it, under a watchdog.

mod calls;
mod contract;
mod doubt;
mod fake;
mod memory;
mod planned;
mod pools;
mod rules;
mod script;
mod stopping;
mod streams;
