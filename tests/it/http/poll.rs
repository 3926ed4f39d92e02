//! Asking again and again: only for what is newer than what was stored, until a signal drains the run.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use super::Api;
use super::server::{Reply, Seen};
use crate::runs::until;

/// Long enough for a drain, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(20);
const SINCE: &[&str] = &[
    "--set",
    "http.since=/meta/updated_at",
    "--set",
    "http.since_param=after",
    "--set",
    "http.pagination.style=page",
    "--set",
    "http.pagination.page_size=10",
];

/// Records by number, with the time of their last change.
type Records = Arc<Mutex<Vec<(usize, u32)>>>;

fn when(time: u32) -> String {
    format!("2026-11-{:02}T{:02}:00:00Z", 1 + time / 24, time % 24)
}

/// The records that are newer than asked for, in an order that is not that of their times.
fn newer(records: &Records, seen: &Seen) -> String {
    let after = seen.query("after").unwrap_or_default();
    let records = records.lock().expect("unpoisoned");
    let found = records
        .iter()
        .filter(|(_, time)| when(*time) > after)
        .skip((seen.number("page").expect("asked for") - 1) * 10);
    let line =
        |(n, time): &(usize, u32)| format!("{{\"n\":{n},\"meta\":{{\"updated_at\":\"{}\"}}}}", when(*time));
    format!("[{}]", found.take(10).map(line).collect::<Vec<_>>().join(","))
}

/// `count` records from number `from`, from this time on, with the newest one in the middle.
fn some(from: usize, count: usize, time: u32) -> Vec<(usize, u32)> {
    (0..count).map(|at| (from + at, time + ((at + count / 2) % count) as u32)).collect()
}

fn serving(records: &Records) -> Api {
    let records = records.clone();
    Api::new(move |seen| Reply::ok(newer(&records, seen)))
}

/// What `after` was in the requests for the first page, in order.
fn afters(api: &Api) -> Vec<Option<String>> {
    api.server
        .seen()
        .iter()
        .filter(|seen| seen.number("page") == Some(1))
        .map(|seen| seen.query("after"))
        .collect()
}

#[test]
fn a_run_asks_only_for_what_is_newer_than_the_last_one_stored() {
    let records: Records = Arc::new(Mutex::new(some(0, 25, 0)));
    let api = serving(&records);
    api.run(SINCE).expect(0, &[]);
    api.stored(0..25);
    api.run(SINCE).expect(0, &[]);
    api.stored(0..25);
    records.lock().expect("unpoisoned").extend(some(25, 13, 30));
    api.run(SINCE).expect(0, &[]);
    api.stored(0..38);
    api.run(SINCE).expect(0, &[]);
    api.stored(0..38);
    let expected = [None, Some(when(24)), Some(when(24)), Some(when(42))];
    assert_eq!(afters(&api), expected);
}

#[test]
fn a_value_counts_once_its_records_are_published() {
    let records: Records = Arc::new(Mutex::new(some(0, 25, 0)));
    let stuck = Arc::new(AtomicBool::new(false));
    let (all, is_stuck) = (records.clone(), stuck.clone());
    let api = Api::new(move |seen| {
        let body = newer(&all, seen);
        let stops = is_stuck.load(SeqCst) && seen.number("page") == Some(2);
        if stops { Reply::bare(|wire| wire.hold()) } else { Reply::ok(body) }
    });
    api.run(SINCE).expect(0, &[]);
    records.lock().expect("unpoisoned").extend(some(25, 25, 30));
    stuck.store(true, SeqCst);
    let asked = api.server.seen().len();
    let running = api.start(SINCE);
    until("page 2 is asked for", || {
        api.server.seen()[asked..].iter().any(|seen| seen.number("page") == Some(2))
    });
    running.kill();
    stuck.store(false, SeqCst);
    let asked = api.server.seen().len();
    api.run(SINCE).expect(0, &[]);
    api.stored(0..50);
    let again = &api.server.seen()[asked..];
    assert!(
        again.iter().all(|seen| seen.query("after") == Some(when(24))),
        "the cycle is still the same: {again:?}"
    );
}

#[test]
fn numbers_are_compared_as_numbers() {
    let records: Records = Arc::new(Mutex::new(vec![(0, 9), (1, 100), (2, 20)]));
    let api = Api::new(move |seen| {
        let after = seen.number("after").unwrap_or(0) as u32;
        let records = records.lock().expect("unpoisoned");
        let found = records.iter().filter(|(_, time)| *time > after);
        let lines: Vec<String> = found.map(|(n, time)| format!("{{\"n\":{n},\"seq\":{time}}}")).collect();
        Reply::ok(format!("[{}]", lines.join(",")))
    });
    let since = ["--set", "http.since=/seq", "--set", "http.since_param=after"];
    api.run(&since).expect(0, &[]);
    api.run(&since).expect(0, &[]);
    api.stored(0..3);
    let afters: Vec<_> = api.server.seen().iter().map(|seen| seen.number("after")).collect();
    assert_eq!(afters, [None, Some(100)]);
}

#[test]
fn a_poll_goes_on_until_it_is_drained() {
    let records: Records = Arc::new(Mutex::new(some(0, 25, 0)));
    let api = serving(&records);
    let poll = ["--set", "http.poll=50ms", "--set", "processing.batch_wait=50ms"];
    let running = api.start(&[SINCE, &poll].concat());
    until("all are stored", || api.seen() == 25);
    records.lock().expect("unpoisoned").extend(some(25, 13, 30));
    until("new ones are stored", || api.seen() == 38);
    let asked = api.server.seen().len();
    until("it still asks", || api.server.seen().len() > asked + 3);
    running.signal(Signal::TERM);
    running.ended_within(SOON).expect(0, &[]);
    api.stored(0..38);
    assert_eq!(api.bench.leftovers("out"), Vec::<String>::new());
    // And another one goes on where it was.
    records.lock().expect("unpoisoned").extend(some(38, 5, 50));
    let asked = api.server.seen().len();
    let running = api.start(&[SINCE, &poll].concat());
    until("new ones are stored", || api.seen() == 43);
    running.signal(Signal::INT);
    running.ended_within(SOON).expect(0, &[]);
    api.stored(0..43);
    assert_eq!(api.server.seen()[asked].query("after"), Some(when(42)));
}

#[test]
fn a_poll_that_waits_for_long_is_drained_at_once() {
    let records: Records = Arc::new(Mutex::new(some(0, 5, 0)));
    let api = serving(&records);
    let running = api.start(&[SINCE, &["--set", "http.poll=1h"]].concat());
    until("all are stored", || api.seen() == 5);
    running.signal(Signal::TERM);
    running.ended_within(SOON).expect(0, &[]);
}

#[test]
fn a_poll_outlives_a_server_that_is_away_for_a_while() {
    let records: Records = Arc::new(Mutex::new(some(0, 25, 0)));
    let away = Arc::new(AtomicBool::new(false));
    let (all, is_away) = (records.clone(), away.clone());
    let api = Api::new(move |seen| match is_away.load(SeqCst) {
        true => Reply::new(503, ""),
        false => Reply::ok(newer(&all, seen)),
    });
    let retries = [
        "--set",
        "http.poll=50ms",
        "--set",
        "processing.max_retries=1000",
        "--set",
        "processing.batch_wait=50ms",
    ];
    let running = api.start(&[SINCE, &retries].concat());
    until("all are stored", || api.seen() == 25);
    away.store(true, SeqCst);
    let asked = api.server.seen().len();
    until("it asks in vain", || api.server.seen().len() > asked + 5);
    records.lock().expect("unpoisoned").extend(some(25, 5, 30));
    away.store(false, SeqCst);
    until("new ones are stored", || api.seen() == 30);
    running.signal(Signal::TERM);
    running.ended_within(SOON).expect(0, &[]);
    api.stored(0..30);
}
