//! The HTTP source, by way of the real executable, against a server that answers as each test says ([`server`]).

mod auth;
mod faults;
mod limits;
mod origin;
mod pages;
mod poll;
mod resume;
mod secret;
mod server;
mod several;
mod tls;

use std::ops::Range;
use std::process::Command;

use crate::runs::{self, Bench, Ran, Running};
use crate::support;
use server::{Reply, Seen, Server};

/// A server, and a directory for runs that read from it.
struct Api {
    server: Server,
    bench: Bench,
}

impl Api {
    fn new(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Api { server: Server::start(answer), bench: Bench::new() }
    }

    /// A run over `/items` into `out`.
    fn command(&self, args: &[&str]) -> Command {
        let url = self.server.url("/items");
        command(&self.bench, &[&["--url", &url], args].concat())
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        self.start(args).ended()
    }

    /// The numbers of all records in `out`, in order.
    fn numbers(&self) -> Vec<u64> {
        let mut numbers = runs::numbers(&self.bench.objects("out"));
        numbers.sort_unstable();
        numbers
    }

    /// How many records in `out` can be seen, while a run may go on there.
    fn seen(&self) -> u64 {
        let objects = support::tree(&self.bench.path("out/processed"));
        support::lines(&objects, "")
    }

    /// Fails unless exactly the records of these numbers are stored, each once.
    #[track_caller]
    fn stored(&self, numbers: Range<u64>) {
        assert_eq!(self.numbers(), numbers.collect::<Vec<u64>>());
    }
}

/// The executable with the source `http`, short delays between attempts, and no proxy in its environment.
fn command(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.command(&[&["-s", "http"], args].concat());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
        .env("PIPELINE_PROCESSING__RETRY_DELAY", "5ms")
        .env("PIPELINE_PROCESSING__RETRY_MAX_DELAY", "20ms")
        .env("PIPELINE_OUTPUT__FSYNC", "false");
    command
}

/// One array of records with these numbers, on one line.
fn array(numbers: Range<usize>) -> String {
    format!("[{}]", runs::lines(numbers).trim_end().replace('\n', ","))
}

/// An answer with `total` records in pages: `at` is the first, `size` how many at most.
fn slice(at: usize, size: usize, total: usize) -> Range<usize> {
    at.min(total)..(at + size).min(total)
}
