//! All integration tests in one binary: the engine's rules by way of the library, everything else by way of the
//! real executable.

mod badinput;
mod browser;
mod changing;
mod cli;
mod engine;
mod exposition;
mod formats;
mod golden;
mod http;
mod output;
mod pipes;
mod page;
mod resume;
mod runs;
mod serving;
mod signals;
mod state;
mod status;
mod blocks;
mod readme;
mod recipes;
mod support;
mod told;
