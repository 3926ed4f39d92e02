//! Runs that are killed and started again: they go on at the page and record where they were, and end with the very
//! bytes of a run that nobody disturbed. A run that was finished begins the next cycle.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::{Reply, Seen};
use super::{Api, array, slice};
use crate::runs::{self, Dice, Ran, Tree, count, until};

/// Twelve pages, the last one not full.
const TOTAL: usize = 1150;
const SIZE: usize = 100;
const PAGE: &[&str] =
    &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=100", "-b", "30", "-w", "2"];

fn body(page: usize) -> String {
    array(slice((page - 1) * SIZE, SIZE, TOTAL))
}

fn page(seen: &Seen) -> usize {
    seen.number("page").expect("it is asked for")
}

/// Says half of a page, and the rest never.
fn half(body: String) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    Reply::bare(move |wire| {
        wire.write(head.as_bytes())?;
        wire.write(&body.as_bytes()[..body.len() / 2])?;
        wire.hold()
    })
}

/// Objects with the one time of their run taken out, else to the byte.
fn undated(tree: &Tree) -> Tree {
    let mut times = BTreeSet::new();
    let mut bare = |name: &String, bytes: &Vec<u8>| {
        let mut text = runs::text(name, bytes);
        for key in ["\"processed_at\":\"", "\"failed_at\":\""] {
            while let Some(at) = text.find(key) {
                let end = at + key.len() + text[at + key.len()..].find('"').expect("a text ends");
                times.insert(text[at + key.len()..end].to_owned());
                text.replace_range(at + 1..end, "when");
            }
        }
        (name.clone(), text.into_bytes())
    };
    let undated = tree.iter().map(|(name, bytes)| bare(name, bytes)).collect();
    assert!(times.len() <= 1, "all that is there is of one run: {times:?}");
    undated
}

/// All that can be seen in `out` is already what it will be.
#[track_caller]
fn is_part_of(out: &Tree, whole: &Tree) {
    let whole = undated(whole);
    for (name, bytes) in undated(out) {
        let expected = whole.get(&name).unwrap_or_else(|| panic!("{name} should not be there"));
        assert!(*expected == bytes, "{name} is {}", String::from_utf8_lossy(&bytes));
    }
}

/// What runs have remembered so far; `null` if nothing.
fn state(api: &Api) -> serde_json::Value {
    let state = std::fs::read(api.bench.path("out/.pipeline/state.json")).unwrap_or_default();
    serde_json::from_slice(&state).unwrap_or_default()
}

/// Whether the pass is over: the run has ended, or was killed when only its exit was left. Another run would begin the
/// next pass.
fn is_over(api: &Api, ran: Ran, code: i32) -> bool {
    match ran.code {
        Some(_) => {
            ran.expect(code, &[]);
            assert_eq!(api.bench.leftovers("out"), Vec::<String>::new());
            true
        }
        None => state(api)["run"]["finished"] == true,
    }
}

/// The page up to which a run has remembered what it did.
fn remembered(api: &Api) -> u64 {
    let state = state(api);
    let all = state["partitions"].as_object().map(|all| all.values().collect::<Vec<_>>()).unwrap_or_default();
    all.iter().filter_map(|it| it["watermark"].as_u64()).max().unwrap_or(0) >> 32
}

#[test]
fn killed_in_the_middle_of_page_7_it_goes_on_there() {
    let stuck = Arc::new(AtomicBool::new(false));
    let is_stuck = stuck.clone();
    let api = Api::new(move |seen| match page(seen) {
        7 if is_stuck.load(SeqCst) => half(body(7)),
        page => Reply::ok(body(page)),
    });
    api.run(&[PAGE, &["-o", "reference"]].concat()).expect(0, &[]);
    let reference = api.bench.objects("reference");
    assert_eq!(runs::numbers(&reference).len(), TOTAL);

    stuck.store(true, SeqCst);
    let asked = api.server.seen().len();
    let running = api.start(PAGE);
    until("page 7 is asked for", || api.server.seen()[asked..].iter().any(|seen| page(seen) == 7));
    until("pages before it are remembered", || remembered(&api) >= 4);
    running.kill();
    let before = api.bench.objects("out");
    is_part_of(&before, &reference);

    stuck.store(false, SeqCst);
    let asked = api.server.seen().len();
    api.run(PAGE).expect(0, &[]);
    let after = api.bench.objects("out");
    assert!(undated(&after) == undated(&reference), "not the same at the end");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "what was there is as it was");
    assert_eq!(api.bench.leftovers("out"), Vec::<String>::new());
    let first = api.server.seen()[asked..].iter().map(page).min().expect("something");
    assert!((5..=7).contains(&first), "it does not begin again, but at page {first}");
}

/// A style: its settings, and what the server answers.
struct Style {
    name: &'static str,
    args: &'static [&'static str],
    answer: fn(&Seen) -> Reply,
    code: i32,
}

fn styles() -> [Style; 4] {
    let cursor = |seen: &Seen| {
        let at = seen.query("cursor").map_or(0, |cursor| cursor.parse().expect("our own"));
        let next = if at + 70 < TOTAL { format!("\"{}\"", at + 70) } else { "null".into() };
        Reply::ok(format!("{{\"items\":{},\"next_cursor\":{next}}}", array(slice(at, 70, TOTAL))))
    };
    let link = |seen: &Seen| {
        let at = seen.number("after").unwrap_or(0);
        let reply = Reply::ok(runs::lines(slice(at, 90, TOTAL)));
        let next = format!("<?after={}>; rel=next", at + 90);
        if at + 90 < TOTAL { reply.with("Link", next) } else { reply }
    };
    let broken = |seen: &Seen| {
        let at = seen.number("offset").expect("it is asked for");
        let lines = runs::lines(slice(at, SIZE, TOTAL));
        Reply::ok(if lines.is_empty() { lines } else { format!("{lines}broken\n") })
    };
    [
        Style { name: "page", args: PAGE, answer: |seen| Reply::ok(body(page(seen))), code: 0 },
        Style {
            name: "cursor",
            args: &[
                "--set",
                "http.pagination.style=cursor",
                "--set",
                "http.records=/items",
                "-b",
                "25",
                "-w",
                "3",
                "-z",
                "gzip",
            ],
            answer: cursor,
            code: 0,
        },
        Style {
            name: "link",
            args: &["--set", "http.pagination.style=link", "-b", "7", "-w", "2"],
            answer: link,
            code: 0,
        },
        Style {
            name: "offset, with dead letters",
            args: &[
                "--set",
                "http.pagination.style=offset",
                "--set",
                "http.pagination.page_size=101",
                "-b",
                "11",
            ],
            answer: broken,
            code: 3,
        },
    ]
}

/// The state of a run that has only begun: all that go on from it have begun at the same time.
fn seed(api: &Api, style: &Style) -> String {
    api.run(&[style.args, &["-o", "first"]].concat()).expect(style.code, &[]);
    let mut state = api.bench.state("first/.pipeline");
    state["partitions"] = serde_json::json!({});
    state["run"]["finished"] = false.into();
    state.to_string() + "\n"
}

#[test]
fn killed_at_any_moment_and_started_again_it_ends_with_the_same_bytes() {
    let mut dice = Dice(6_202_611);
    let begun = Instant::now();
    for style in styles() {
        let api = Api::new(style.answer);
        let seed = seed(&api, &style);
        let begin = |out: &str| {
            let _ = std::fs::remove_dir_all(api.bench.path(out));
            std::fs::create_dir_all(api.bench.path(out).join(".pipeline")).expect("it can be made");
            api.bench.write(&format!("{out}/.pipeline/state.json"), &seed);
        };
        begin("reference");
        api.run(&[style.args, &["-o", "reference"]].concat()).expect(style.code, &[]);
        let reference = api.bench.objects("reference");
        let objects = reference.len();
        let (mut kills, mut ends) = (0, 0);
        while kills < 10 || ends == 0 {
            begin("out");
            loop {
                let mut running = api.start(style.args);
                let wanted = count(&api.bench.path("out"), "") + 1 + dice.below(objects as u64 / 4) as usize;
                let end = Instant::now() + Duration::from_millis(dice.below(60));
                match dice.below(3) {
                    0 => until("a while is over", || Instant::now() >= end || running.is_over()),
                    _ => until("more objects", || {
                        count(&api.bench.path("out"), "") >= wanted || running.is_over()
                    }),
                }
                let ran = running.kill();
                for (name, bytes) in api.bench.objects("out") {
                    assert!(reference.get(&name) == Some(&bytes), "{}: {name} is another", style.name);
                }
                kills += usize::from(ran.code.is_none());
                if is_over(&api, ran, style.code) {
                    break;
                }
            }
            ends += 1;
            assert!(api.bench.objects("out") == reference, "{}: not the same", style.name);
            assert!(begun.elapsed() < Duration::from_secs(300), "{}: {kills} kills, {ends} ends", style.name);
        }
    }
}

/// It was killed when all was remembered but that it came to its end: nothing is left to read, and what it rejected is
/// told all the same.
#[test]
fn what_an_interrupted_run_rejected_is_told_by_the_one_that_has_nothing_left() {
    let api = Api::new(|_| Reply::ok("[1,nul,2]"));
    api.run(&[]).expect(3, &["rejected  1 record (invalid_json 1)"]);
    let mut state = state(&api);
    state["run"]["finished"] = false.into();
    api.bench.write("out/.pipeline/state.json", state.to_string() + "\n");
    let told = ["stored    0 records", "rejected  1 record before the run was interrupted"];
    api.run(&[]).expect(3, &told);
    assert_eq!(api.server.seen().len(), 1, "nothing is asked for again");
    // The next pass is a run of its own.
    let ran = api.run(&[]).expect(3, &["stored    2 records", "rejected  1 record (invalid_json 1)"]);
    assert!(!ran.stderr.contains("interrupted"), "{}", ran.stderr);
}

/// Batches that end with time, not with a count, end elsewhere in each run. What was planned before it was published is
/// kept to: no record is there twice, none is missing, and no object ever changes.
#[test]
fn killed_while_time_ends_the_batches_it_stores_each_record_once() {
    let mut dice = Dice(14);
    let api = Api::new(|seen| {
        let body = body(page(seen));
        Reply::script(move |wire| {
            // Batches end within pages, too.
            for piece in body.as_bytes().chunks(1200) {
                wire.rest(Duration::from_millis(4))?;
                wire.write(piece)?;
            }
            Ok(())
        })
    });
    let args = &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=100", "-w", "2"];
    let args = &[&args[..], &["--set", "processing.batch_wait=10ms"]].concat();
    let mut kills = 0;
    while kills < 12 {
        let _ = std::fs::remove_dir_all(api.bench.path("out"));
        kills += kill_until_it_is_over(&api, args, &mut dice);
        api.stored(0..TOTAL as u64);
    }
}

/// How often it was killed. No object that was seen once may change.
fn kill_until_it_is_over(api: &Api, args: &[&str], dice: &mut Dice) -> u32 {
    let (mut kills, mut seen) = (0, Tree::new());
    loop {
        let mut running = api.start(args);
        let wanted = count(&api.bench.path("out/processed"), "") + 1 + dice.below(4) as usize;
        until("more objects", || count(&api.bench.path("out/processed"), "") >= wanted || running.is_over());
        let ran = running.kill();
        let objects = api.bench.objects("out");
        for (name, bytes) in &seen {
            assert!(objects.get(name) == Some(bytes), "{name} has changed after {kills} kills");
        }
        seen = objects;
        kills += u32::from(ran.code.is_none());
        if is_over(api, ran, 0) {
            return kills;
        }
    }
}

/// The pages are others when the run goes on: what was stored stays, and it ends.
#[test]
fn pages_that_change_between_runs_lose_nothing_that_was_stored() {
    let changes: [fn(usize) -> String; 4] = [
        // All is later by some records: new ones came before them.
        |page| {
            array(
                slice((page - 1) * SIZE, SIZE, TOTAL).start.saturating_sub(37)
                    ..slice(page * SIZE, 0, TOTAL).end.saturating_sub(37),
            )
        },
        // Shorter than where the run was.
        |page| if page < 9 { array(page * 10_000..page * 10_000 + 3) } else { "[]".into() },
        |_| "[]".into(),
        |page| if page < 12 { array(page * 10_000..page * 10_000 + 500) } else { "[]".into() },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let changed = Arc::new(AtomicBool::new(false));
        let is_changed = changed.clone();
        let api = Api::new(move |seen| match page(seen) {
            page if is_changed.load(SeqCst) => Reply::ok(change(page)),
            7 => half(body(7)),
            page => Reply::ok(body(page)),
        });
        let running = api.start(PAGE);
        until("what was read before is stored", || count(&api.bench.path("out/processed"), ".ndjson") >= 15);
        running.kill();
        let before = api.bench.objects("out");
        changed.store(true, SeqCst);
        let ran = api.run(PAGE);
        assert!(matches!(ran.code, Some(0 | 4)), "{number}: {:?} {}", ran.code, ran.stderr);
        let after = api.bench.objects("out");
        for (name, bytes) in &before {
            assert!(after.get(name) == Some(bytes), "{number}: {name} has changed");
        }
        assert_eq!(api.bench.leftovers("out"), Vec::<String>::new());
    }
}

#[test]
fn a_finished_run_begins_the_next_cycle() {
    let state = Arc::new(Mutex::new(0..250));
    let now = state.clone();
    let api = Api::new(move |seen| {
        let range = now.lock().expect("unpoisoned").clone();
        let at = range.start + (page(seen) - 1) * SIZE;
        Reply::ok(array(at.min(range.end)..(at + SIZE).min(range.end)))
    });
    api.run(PAGE).expect(0, &[]);
    let first = api.bench.objects("out");
    *state.lock().expect("unpoisoned") = 1000..1100;
    api.run(PAGE).expect(0, &[]);
    let second = api.bench.objects("out");
    assert!(first.iter().all(|(name, bytes)| second.get(name) == Some(bytes)), "the first cycle stays");
    assert_eq!(api.numbers(), (0..250).chain(1000..1100).collect::<Vec<u64>>());
    let cycles: BTreeSet<&str> = second.keys().filter_map(|name| name.rsplit('/').nth(1)).collect();
    assert_eq!(cycles.len(), 2, "{cycles:?}");
    // From the beginning, and nothing of before is left.
    api.run(&[PAGE, &["--fresh"]].concat()).expect(0, &[]);
    assert_eq!(api.numbers(), (1000..1100).collect::<Vec<u64>>());
}

#[test]
fn what_would_change_the_cuts_is_refused_in_the_middle_of_a_cycle() {
    let api = Api::new(|seen| match page(seen) {
        7 => half(body(7)),
        page => Reply::ok(body(page)),
    });
    let running = api.start(PAGE);
    until("what was read before is stored", || count(&api.bench.path("out/processed"), ".ndjson") >= 15);
    running.kill();
    api.run(&[PAGE, &["-b", "31"]].concat()).expect(2, &["--fresh"]);
    let checked = api.run(&[PAGE, &["-b", "31", "--check"]].concat()).expect(2, &[]);
    assert!(checked.stdout.contains("wrong    what earlier runs left: batch_size was"), "{}", checked.stdout);
    let checked = api.run(&[PAGE, &["--set", "http.query=a=1", "--check"]].concat()).expect(2, &[]);
    assert!(checked.stdout.contains("is asked with another query or body than"), "{}", checked.stdout);
    api.run(&[PAGE, &["--set", "http.pagination.page_size=50"]].concat()).expect(2, &["--fresh"]);
    assert!(runs::numbers(&api.bench.objects("out")).len() < 700, "nothing was added");
}

#[test]
fn a_run_that_is_stopped_goes_on() {
    let waits = Arc::new(AtomicUsize::new(0));
    let waiting = waits.clone();
    let api = Api::new(move |seen| match page(seen) {
        7 if waiting.fetch_add(1, SeqCst) == 0 => half(body(7)),
        page => Reply::ok(body(page)),
    });
    api.run(&[PAGE, &["-o", "reference", "--set", "http.pagination.max_pages=6"]].concat()).expect(0, &[]);
    let running = api.start(PAGE);
    until("page 7 is asked for", || api.server.seen().iter().any(|seen| page(seen) == 7));
    running.signal(rustix::process::Signal::TERM);
    running.ended_within(Duration::from_secs(20)).expect(143, &[]);
    let before = api.bench.objects("out");
    assert_eq!(api.bench.leftovers("out"), Vec::<String>::new());
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let after = api.bench.objects("out");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
}

#[test]
fn stdout_has_all_records_in_order_and_no_state() {
    let api = Api::new(|seen| Reply::ok(body(page(seen))));
    let ran = api.run(&[PAGE, &["-o", "-", "--set", "output.envelope=none"]].concat()).expect(0, &[]);
    assert_eq!(ran.stdout, runs::lines(0..TOTAL));
    assert!(
        std::fs::read_dir(api.bench.path(".")).expect("it is there").next().is_none(),
        "nothing is written"
    );
    api.run(&[PAGE, &["-o", "all.ndjson", "--set", "output.envelope=none"]].concat()).expect(0, &[]);
    assert_eq!(
        std::fs::read_to_string(api.bench.path("all.ndjson")).expect("it is there"),
        runs::lines(0..TOTAL)
    );
}
