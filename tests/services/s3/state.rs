//! What is remembered in the bucket of what is done.

use std::io::Write;
use std::process::Stdio;

use pipeline::s3::{Condition, Content, Object};

use super::fault::{Act, Asked, Faulty};
use super::{Server, Store, sorted};
use crate::runs::{Running, lines, until};

const RECORDS: usize = 3000;

/// A run in batches of 10, which takes a while.
fn start(store: &Store<'_>, args: &[&str]) -> Running {
    let url = store.url("p");
    Running::start(store.command(&[&["a.json", "-b", "10", "-o", &url][..], args].concat()))
}

#[test]
fn a_finished_run_is_not_done_again() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("done");
    store.bench.write("a.json", lines(0..100));
    start(&store, &[]).ended().expect(0, &["stored"]);
    let first = store.objects();
    assert!(store.all().contains_key("p/.pipeline/state.json"));
    assert!(!store.all().contains_key("p/.pipeline/lock"), "the lease is given back");
    start(&store, &[]).ended().expect(0, &["nothing to do"]);
    assert_eq!(store.objects(), first);
    store.bench.append("a.json", lines(100..105));
    start(&store, &[]).ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..105)));
    start(&store, &["-z", "gzip"]).ended().expect(2, &["compress", "--fresh"]);
    start(&store, &["-z", "gzip", "--fresh"]).ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..105)));
    assert!(store.objects().keys().all(|key| key.ends_with(".gz")), "what was there is gone");
}

/// Killed several times, it ends with the bytes of a run that nobody disturbed.
#[test]
fn killed_and_started_again_it_ends_with_the_same_bytes() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("killed");
    store.bench.write("a.json", lines(0..RECORDS));
    for stored in [20, 60, 120] {
        let run = start(&store, &[]);
        until("some batches are stored", || store.objects().len() >= stored);
        run.kill();
    }
    assert!(store.all().contains_key("p/.pipeline/lock"), "a killed run leaves its lease");
    start(&store, &[]).ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..RECORDS)));
    let state: serde_json::Value =
        serde_json::from_slice(&store.all()["p/.pipeline/state.json"]).expect("it is JSON");
    let began = state["run"]["started_at"].as_i64().expect("it is a time");
    let time = format!("\"processed_at\":\"{}", began_text(began));
    let objects = store.objects();
    assert_eq!(objects.len(), RECORDS / 10);
    let all_of_one_run =
        |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).lines().all(|line| line.contains(&time));
    assert!(objects.values().all(all_of_one_run), "each object is of the run that began first");
}

fn began_text(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days (Hinnant).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (d, m) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let y = year + era * 400 + i64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[test]
fn two_runs_do_not_share_a_state() {
    let Some(server) = Server::shared() else { return };
    // The first run waits for an answer for ever.
    let faulty = Faulty::new(server, |asked| if asked.is_put() { Act::Silence } else { Act::Pass });
    let store = server.bucket("two").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..100));
    let first = start(&store, &[]);
    until("it holds the lease", || faulty.seen().iter().any(Asked::is_put));
    start(&store, &[]).ended().expect(1, &["another run is at work here", "is locked by process"]);
    first.kill();
}

/// Nobody here can know whether a process of another machine lives; its lease tells.
#[test]
fn a_lease_of_another_machine_is_waited_for() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("far");
    store.bench.write("a.json", lines(0..100));
    let key = "p/.pipeline/lock";
    let renew = |renewed: u64| {
        let note = format!(
            "{{\"token\":\"t\",\"holder\":\"process 7 on far\",\"process\":\"elsewhere 7 1\",\"renewed\":{renewed}}}"
        );
        let object = Object { key, ..Object::default() };
        store.client().put(&object, Content::Bytes(note.as_bytes()), Condition::None).expect("it is stored");
    };
    renew(1);
    let run = start(&store, &[]);
    run.heard("is held by process 7 on far: waiting until that is over");
    renew(2);
    run.ended().expect(1, &["another run is at work here", "process 7 on far"]);
    let run = start(&store, &[]);
    run.heard("is held by process 7 on far: waiting until that is over");
    // A minute passes for the store.
    let path = store.path().join(key);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(61);
    let file = std::fs::File::options().write(true).open(path).expect("it is there");
    file.set_modified(long_ago).expect("it is ours");
    run.ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..100)));
    assert!(!store.all().contains_key(key));
}

/// Another run has taken over, which only a run can notice that was thought dead.
#[test]
fn a_run_that_was_thought_dead_stops() {
    let Some(server) = Server::shared() else { return };
    let faulty = Faulty::new(server, |_| Act::Pass);
    let store = server.bucket("dead").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..100_000));
    let run = start(&store, &[]);
    until("it stores", || faulty.seen().iter().any(Asked::is_put));
    let key = "p/.pipeline/state.json";
    let object = Object { key, ..Object::default() };
    store.client().put(&object, Content::Bytes(b"another run's"), Condition::None).expect("it is stored");
    run.ended().expect(1, &["another run is at work here", "taken it over"]);
}

#[test]
fn a_lost_answer_of_the_state_is_found_out() {
    let Some(server) = Server::shared() else { return };
    let mut left = 2;
    let faulty = Faulty::new(server, move |asked| {
        if left > 0 && asked.method == "PUT" && asked.is_of_state() {
            left -= 1;
            return Act::Swallow;
        }
        Act::Pass
    });
    let store = server.bucket("lost-state").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..100));
    start(&store, &[]).ended().expect(0, &[]);
    start(&store, &[]).ended().expect(0, &["nothing to do"]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..100)));
}

/// Cut into other batches, each would store what the other has stored, under names of its own.
#[test]
fn two_runs_do_not_store_what_nothing_is_remembered_of() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("claims");
    let url = store.url("p");
    let start = |batch: &str| {
        let mut command = store.command(&["-", "-b", batch, "-o", &url]);
        command.stdin(Stdio::piped());
        Running::start(command)
    };
    let claims = || store.all().keys().filter(|key| key.contains("/.pipeline/claims/")).count();
    let mut first = start("10");
    until("its claim", || claims() == 1);
    let holder = format!("is locked by process {} on ", first.id());
    start("7")
        .ended()
        .expect(1, &["another run is at work here", &holder, "which stores p/processed/stdin, too"]);
    store.bench.write("a.json", lines(0..20));
    store.run(&["a.json", "--state", "none", "-o", &url]).expect(0, &[]);
    let mut stdin = first.child().stdin.take().expect("it is piped");
    stdin.write_all(lines(0..100).as_bytes()).expect("it reads");
    drop(stdin);
    first.ended().expect(0, &[]);
    assert_eq!(claims(), 0);
    start("7").ended().expect(2, &["is there already"]);
    // One that was killed claims nothing.
    let fresh = || {
        let mut command = store.command(&["-", "--fresh", "-o", &url]);
        command.stdin(Stdio::piped());
        Running::start(command)
    };
    let dead = fresh();
    until("its claim", || claims() == 1);
    dead.kill();
    assert_eq!(claims(), 1);
    let mut last = fresh();
    drop(last.child().stdin.take());
    last.ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/stdin"), Vec::<String>::new());
    assert_eq!(claims(), 0);
}

#[test]
fn objects_of_an_unknown_run_are_not_mixed_with() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("unknown");
    store.bench.write("a.json", lines(0..100));
    start(&store, &["--state", "none"]).ended().expect(0, &[]);
    let first = store.objects();
    start(&store, &["--state", "none"]).ended().expect(2, &["is there already", "--fresh"]);
    start(&store, &[]).ended().expect(2, &["is there already", "--fresh"]);
    assert_eq!(store.objects(), first);
    start(&store, &["--fresh"]).ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..100)));
}
