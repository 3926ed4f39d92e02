//! What a healthy server never does, and that nothing is lost or doubled by it.

use std::time::Duration;

use pipeline::s3::{Condition, Content, Object};
use rustix::process::Signal;

use super::fault::{Act, Asked, Faulty};
use super::{Server, Store, sorted};
use crate::exposition::Exposition;
use crate::runs::{Ran, Running, lines, until};

const SLOW_DOWN: &str =
    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
const INTERNAL: &str =
    "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>later</Message></Error>";

/// A bucket behind this rule.
fn behind<'a>(
    server: &'a Server,
    name: &str,
    rule: impl FnMut(&Asked) -> Act + Send + 'static,
) -> (Store<'a>, Faulty) {
    let faulty = Faulty::new(server, rule);
    (server.bucket(name).by(faulty.endpoint()), faulty)
}

/// Stores in small batches, one PUT each.
#[track_caller]
fn small(store: &Store<'_>) -> Ran {
    store.bench.write("a.json", lines(0..300));
    store.run(&["a.json", "-b", "100", "-o", &store.url("")])
}

/// Stores one batch in five parts or so.
#[track_caller]
fn large(store: &Store<'_>, args: &[&str]) -> Ran {
    store.bench.write("a.json", lines(0..250_000));
    let url = store.url("");
    store.run(&[&["a.json", "-o", &url, "--set", "s3.part_size=5MiB"][..], args].concat())
}

/// The first `count` requests that fit get this act.
fn first(
    count: usize,
    fits: impl Fn(&Asked) -> bool + Send + 'static,
    act: Act,
) -> impl FnMut(&Asked) -> Act + Send {
    let mut left = count;
    move |asked| {
        if left > 0 && fits(asked) {
            left -= 1;
            return act.clone();
        }
        Act::Pass
    }
}

#[test]
fn a_storm_of_503_passes() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) =
        behind(server, "storm", first(6, |_| true, Act::Answer(503, "Retry-After: 0\r\n", SLOW_DOWN.into())));
    store.bench.write("a.json", lines(0..300));
    let url = store.url("");
    let args = ["a.json", "-b", "100", "-o", &url, "--metrics-file", "m.prom", "--log-format", "json"];
    let ran = store.run(&args).expect(0, &["503 SlowDown"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    assert!(faulty.seen().len() > 9);
    let metrics =
        Exposition::parse(&std::fs::read_to_string(store.bench.path("m.prom")).expect("it is there"));
    for counter in ["pipeline_service_errors_total", "pipeline_service_retries_total"] {
        assert_eq!(metrics.of(counter, "kind", "throttled"), 6.0, "{counter}");
    }
    // Each says what, which attempt it was, and how long until the next.
    let told: Vec<serde_json::Value> =
        ran.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let retries: Vec<_> = told.iter().filter(|line| line["fields"]["service"] == "s3").collect();
    assert_eq!(retries.len(), 6, "{}", ran.stderr);
    for retry in retries {
        let fields = &retry["fields"];
        assert!(fields["attempt"].as_u64() > Some(0) && fields["wait_ms"].is_u64(), "{retry}");
        assert!(
            retry["msg"].as_str().is_some_and(|it| it.contains("s3://") && it.contains(" next in ")),
            "{retry}"
        );
    }
}

#[test]
fn a_storm_that_does_not_end_ends_the_run_and_the_next_goes_on() {
    let Some(server) = Server::shared() else { return };
    let puts = |asked: &Asked| asked.is_put() && asked.target.contains("00000000000000000000");
    let (store, faulty) =
        behind(server, "storms", first(usize::MAX, puts, Act::Answer(503, "", SLOW_DOWN.into())));
    store.bench.write("a.json", lines(0..300));
    let url = store.url("");
    let args = ["a.json", "-b", "100", "-o", &url, "--state", "state", "--set", "processing.max_retries=2"];
    store.run(&args).expect(1, &["503 SlowDown"]);
    drop(faulty);
    let store = store.by(server.endpoint());
    store.run(&args).expect(0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
}

#[test]
fn a_lost_answer_to_a_put_is_found_out() {
    let Some(server) = Server::shared() else { return };
    let (store, _faulty) = behind(server, "lost", first(2, Asked::is_put, Act::Swallow));
    // Stored on a condition, the second try is refused; the object says that it is ours.
    small(&store).expect(0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    assert!(_faulty.seen().iter().any(|asked| asked.method == "HEAD"));
}

#[test]
fn a_lost_answer_to_complete_is_found_out() {
    let Some(server) = Server::shared() else { return };
    for conditional in ["s3.conditional=on", "s3.conditional=off"] {
        let (store, _faulty) = behind(server, "complete", first(1, Asked::is_complete, Act::Swallow));
        large(&store, &["--set", conditional]).expect(0, &[]);
        assert_eq!(store.data("processed/"), sorted(&lines(0..250_000)));
        assert_eq!(store.uploads(), 0);
    }
}

#[test]
fn a_success_with_an_error_inside_is_none() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) =
        behind(server, "inside", first(2, Asked::is_complete, Act::Answer(200, "", INTERNAL.into())));
    large(&store, &[]).expect(0, &["InternalError"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..250_000)));
    assert_eq!(faulty.seen().iter().filter(|asked| asked.is_complete()).count(), 3);
}

#[test]
fn what_is_damaged_on_the_way_is_not_stored() {
    let Some(server) = Server::shared() else { return };
    let (store, _faulty) = behind(server, "spoilt", first(2, Asked::is_put, Act::Spoil));
    small(&store).expect(0, &["XAmzContentSHA256Mismatch"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    let (store, _faulty) = behind(server, "spoilt-part", first(2, Asked::is_part, Act::Spoil));
    large(&store, &[]).expect(0, &["cannot store a part"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..250_000)));
}

#[test]
fn a_connection_cut_in_the_middle_of_a_part_is_tried_again() {
    let Some(server) = Server::shared() else { return };
    let (store, _faulty) = behind(server, "cut", first(3, Asked::is_part, Act::Cut(1 << 20)));
    large(&store, &[]).expect(0, &["cannot store a part"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..250_000)));
}

#[test]
fn a_part_that_never_succeeds_leaves_no_upload() {
    let Some(server) = Server::shared() else { return };
    let (store, _faulty) = behind(
        server,
        "never",
        first(
            usize::MAX,
            |asked| asked.target.contains("partNumber=2&"),
            Act::Answer(503, "", SLOW_DOWN.into()),
        ),
    );
    large(&store, &["--set", "processing.max_retries=1"]).expect(1, &["503 SlowDown"]);
    assert_eq!((store.objects().len(), store.uploads()), (0, 0));
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let Some(server) = Server::shared() else { return };
    let (store, _faulty) = behind(server, "silent", first(1, Asked::is_put, Act::Silence));
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    store.run(&["a.json", "-o", &url, "--timeout", "500ms"]).expect(0, &["no answer in time"]);
    let (store, _faulty) = behind(server, "silent", first(usize::MAX, |_| true, Act::Silence));
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    let args = ["a.json", "-o", &url, "--timeout", "300ms", "--set", "processing.max_retries=1"];
    store.run(&args).expect(1, &["no answer in time"]);
}

#[test]
fn a_second_signal_waits_for_no_answer() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) = behind(server, "hanging", first(usize::MAX, Asked::is_put, Act::Silence));
    store.bench.write("a.json", lines(0..300));
    let run = Running::start(store.command(&["a.json", "-b", "100", "-o", &store.url("")]));
    until("it stores", || faulty.seen().iter().any(Asked::is_put));
    run.signal(Signal::INT);
    run.heard("a second signal aborts");
    run.signal(Signal::INT);
    // An answer is waited for three times as long.
    run.ended_within(Duration::from_secs(10)).expect(130, &[]);
    let lease = || store.all().keys().any(|key| key.ends_with("/lock"));
    assert!(!lease(), "it is given back");
}

#[test]
fn a_refusal_in_the_middle_of_a_run_ends_it() {
    let Some(server) = Server::shared() else { return };
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";
    let (store, faulty) =
        behind(server, "denied", first(usize::MAX, Asked::is_put, Act::Answer(403, "", denied.into())));
    small(&store).expect(4, &["403 AccessDenied", "check the rights", "s3:PutObject"]);
    assert!(store.objects().is_empty());
    let puts = faulty.seen().iter().filter(|asked| asked.is_put()).count();
    assert!(puts <= 4, "a refusal is not tried again: {puts}");
}

/// Who holds the lease shows when it is looked at. If nobody does, it is refused for another reason.
#[test]
fn a_lease_that_nobody_holds_and_nobody_gets_ends_the_run() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("parent");
    store
        .client()
        .put(&Object { key: "a", ..Object::default() }, Content::Bytes(b"1"), Condition::None)
        .unwrap();
    store.bench.write("a.json", lines(0..10));
    store.run(&["a.json", "-o", &store.url("a/b")]).expect(4, &["409 ObjectParentIsFile", "lock"]);
    let busy = "<Error><Code>OperationAborted</Code><Message>busy</Message></Error>";
    let is_lock = |asked: &Asked| asked.method == "PUT" && asked.target.ends_with("/lock");
    let rule = first(usize::MAX, is_lock, Act::Answer(409, "", busy.into()));
    let (store, faulty) = behind(server, "aborted", rule);
    let ran = small(&store);
    assert!(ran.code != Some(0) && ran.stderr.contains("409 OperationAborted"), "{}", ran.stderr);
    assert!(faulty.seen().len() < 100, "{} requests", faulty.seen().len());
}

#[test]
fn what_is_no_whole_listing_is_not_believed() {
    let Some(server) = Server::shared() else { return };
    let cut = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    for (name, body) in [("html", "<html><body>Sign in</body></html>"), ("cut", cut)] {
        let is_listing = |asked: &Asked| asked.target.contains("list-type=2");
        let (store, _faulty) =
            behind(server, name, first(usize::MAX, is_listing, Act::Answer(200, "", body.into())));
        let ran = small(&store);
        assert!(ran.code != Some(0) && ran.stderr.contains("list"), "{}", ran.stderr);
        assert!(store.objects().is_empty());
    }
}

#[test]
fn an_answer_that_trickles_is_given_up() {
    let Some(server) = Server::shared() else { return };
    let is_listing = |asked: &Asked| asked.target.contains("list-type=2");
    let (store, _faulty) = behind(server, "trickle", first(1, is_listing, Act::Trickle));
    store.bench.write("a.json", lines(0..10));
    store.run(&["a.json", "-o", &store.url(""), "--timeout", "500ms"]).expect(0, &["no answer in time"]);
}

#[test]
fn a_store_without_conditions_is_asked_without_them() {
    let Some(server) = Server::shared() else { return };
    let lacks = "<Error><Code>NotImplemented</Code><Message>A header is not implemented.</Message></Error>";
    let (store, _faulty) =
        behind(server, "lacks", first(1, Asked::is_put, Act::Answer(501, "", lacks.into())));
    small(&store).expect(0, &["s3.conditional = off"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    let (store, _faulty) =
        behind(server, "lacks", first(1, Asked::is_put, Act::Answer(501, "", lacks.into())));
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    store.run(&["a.json", "-o", &url, "--set", "s3.conditional=on"]).expect(4, &["501 NotImplemented"]);
    // Where it is known the state goes without them, too.
    let knows = |asked: &Asked| asked.header("if-none-match").is_some() || asked.header("if-match").is_some();
    let rule = first(usize::MAX, knows, Act::Answer(400, "", lacks.into()));
    let (store, _faulty) = behind(server, "knows-none", rule);
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    store.run(&["a.json", "-o", &url, "--set", "s3.conditional=off"]).expect(0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..10)));
}
