//! Several endpoints: side by side, each a partition with a name of its own, and shared among the jobs of an array.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::server::{Reply, Server};
use super::{array, command};
use crate::runs::{self, Bench, DEADLINE, Ran, Running};

/// Endpoint `/N` has ten records from `10 * N`.
fn answer(path: &str) -> Reply {
    match path[1..].parse::<usize>() {
        Ok(number) => Reply::ok(array(number * 10..number * 10 + 10)),
        Err(_) => Reply::new(404, ""),
    }
}

fn run(bench: &Bench, server: &Server, paths: &[&str], args: &[&str]) -> Ran {
    let urls: Vec<String> = paths.iter().flat_map(|path| ["--url".into(), server.url(path)]).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    Running::start(command(bench, &[&urls, args].concat())).ended()
}

fn numbers(bench: &Bench, out: &str) -> Vec<u64> {
    let mut numbers = runs::numbers(&bench.objects(out));
    numbers.sort_unstable();
    numbers
}

#[test]
fn endpoints_are_read_side_by_side() {
    let both = (Mutex::new(BTreeSet::new()), Condvar::new());
    let server = Server::start(move |seen| {
        // None is answered before all are asked.
        let mut asked = both.0.lock().expect("unpoisoned");
        asked.insert(seen.path().to_owned());
        both.1.notify_all();
        let (asked, late) =
            both.1.wait_timeout_while(asked, DEADLINE, |asked| asked.len() < 3).expect("unpoisoned");
        assert!(!late.timed_out(), "only {asked:?} are asked");
        answer(seen.path())
    });
    let bench = Bench::new();
    run(&bench, &server, &["/0", "/1", "/2"], &[]).expect(0, &[]);
    assert_eq!(numbers(&bench, "out"), (0..30).collect::<Vec<u64>>());
    let objects = bench.objects("out");
    let names: BTreeSet<&str> =
        objects.keys().map(|name| name.rsplit_once('/').expect("it has parts").0).collect();
    assert_eq!(names.len(), 3, "each has names of its own: {names:?}");
}

#[test]
fn more_endpoints_than_threads_are_all_read() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let paths: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    run(&bench, &server, &paths, &["-w", "2"]).expect(0, &[]);
    assert_eq!(numbers(&bench, "out"), (0..400).collect::<Vec<u64>>());
}

#[test]
fn equal_names_are_refused() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let same = run(&bench, &server, &["/0?key=hidden-1", "/0?key=hidden-2"], &[]).expect(2, &["/0"]);
    assert!(!same.stderr.contains("hidden"), "{}", same.stderr);
    run(&bench, &server, &["/0", "/0"], &[]).expect(2, &["/0"]);
    assert!(server.seen().is_empty() && !bench.path("out").exists());
}

#[test]
fn jobs_of_an_array_share_the_endpoints() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let paths = ["/0", "/1", "/2", "/3", "/4"];
    run(&bench, &server, &paths, &["--shard", "0/2"]).expect(0, &[]);
    assert_eq!(numbers(&bench, "out"), [0..10, 20..30, 40..50].into_iter().flatten().collect::<Vec<u64>>());
    run(&bench, &server, &paths, &["--shard", "1/2"]).expect(0, &[]);
    assert_eq!(numbers(&bench, "out"), (0..50).collect::<Vec<u64>>());
    assert_eq!(server.seen().len(), 5, "none is asked twice");
    run(&bench, &server, &["/0"], &["--shard", "2/3", "-o", "none"]).expect(0, &[]);
    run(&bench, &server, &["/0"], &["--shard", "3/3"]).expect(2, &["--shard"]);
}

#[test]
fn one_endpoint_that_is_gone_ends_the_run_with_its_name() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let ran = run(&bench, &server, &["/0", "/gone", "/2"], &[]).expect(4, &["404", "/gone"]);
    assert!(!ran.stderr.contains("panicked"));
    run(&bench, &server, &["/0", "/2"], &["--fresh"]).expect(0, &[]);
}

#[test]
fn each_endpoint_that_fails_is_named() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    run(&bench, &server, &["/a", "/1", "/b", "/c"], &[])
        .expect(4, &["/a: the server", "/b: the server", "/c: the server"]);
    assert_eq!(numbers(&bench, "out"), (10..20).collect::<Vec<u64>>());
}

#[test]
fn requests_are_not_more_than_the_rate_allows() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let paths = ["/0", "/1", "/2", "/3", "/4", "/5"];
    run(&bench, &server, &paths, &["--set", "http.rate_limit=10"]).expect(0, &[]);
    let seen = server.seen();
    let took = seen[5].at - seen[0].at;
    // Six requests have five pauses of 100 ms; a first one may be free.
    assert!(took >= Duration::from_millis(390), "{took:?}");
}

#[test]
fn wrong_configuration_is_told_before_anything_is_asked() {
    let server = Server::start(|seen| answer(seen.path()));
    let bench = Bench::new();
    let wrong: &[(&[&str], &str)] = &[
        (&["--url", "api.example.com/items"], "http"),
        (&["--url", "ftp://127.0.0.1/items"], "http"),
        (&["--url", "http://"], "http"),
        (&["--url", ""], "url"),
        (&[], "--url"),
        (&["--url", "OWN", "--set", "http.pagination.style=pages"], "http.pagination.style"),
        (&["--url", "OWN", "--set", "http.pagination.stile=page"], "http.pagination.style"),
        (&["--url", "OWN", "--set", "http.records=items"], "http.records"),
        (&["--url", "OWN", "--set", "http.method=DELETE ALL"], "http.method"),
        (&["--url", "OWN", "--set", "http.headers=no-value"], "http.headers"),
        (&["--url", "OWN", "--set", "http.headers=A b=c"], "http.headers"),
        (&["--url", "OWN", "--set", "http.rate_limit=0"], "http.rate_limit"),
        (&["--url", "OWN", "--set", "http.poll=soon"], "http.poll"),
        (&["--url", "OWN", "--set", "http.since_param=a"], "http.since"),
        (&["--url", "OWN", "--set", "http.pagination.max_pages=0"], "max_pages"),
        (&["--url", "OWN", "--timeout", "0s"], "timeout"),
        (&["--url", "OWN", "x.json"], "no files"),
    ];
    let own = server.url("/0");
    for (args, expected) in wrong {
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "OWN" { own.as_str() } else { arg }).collect();
        let ran = Running::start(command(&bench, &args)).ended();
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
    assert!(server.seen().is_empty() && !bench.path("out").exists());
}
