//! Queries and credentials are in no id, name, log line, metric, summary or state: all that a run wrote is searched.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::server::{Reply, Seen, Server};
use super::{array, command, slice};
use crate::runs::{Bench, Running};

/// Stands in everything that is secret.
const SECRET: &str = "hush-hush";

const SAID: &[&str] = &["--log-level", "trace", "--summary", "json=s.json", "--metrics-file", "m.prom"];

/// Fails if anything that was said or written has the secret.
#[track_caller]
fn is_silent(bench: &Bench, ran: &crate::runs::Ran) {
    let told =
        |text: &str| text.lines().filter(|line| line.contains(SECRET)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(told(&ran.stderr), Vec::<String>::new(), "on stderr");
    assert_eq!(told(&ran.stdout), Vec::<String>::new(), "on stdout");
    for (name, bytes) in bench.tree(".") {
        assert!(!name.contains(SECRET), "{name}");
        assert_eq!(told(&String::from_utf8_lossy(&bytes)), Vec::<String>::new(), "in {name}");
        if name.ends_with("state.json") {
            assert_eq!(told(&resumes(&bytes)), Vec::<String>::new(), "in {name}");
        }
    }
}

/// What a state remembers for the source, which is in base64 there.
fn resumes(state: &[u8]) -> String {
    let state: serde_json::Value = serde_json::from_slice(state).expect("it is JSON");
    let all = state["partitions"].as_object().expect("a table").values();
    let text = |it: &serde_json::Value| BASE64_STANDARD.decode(it["resume"].as_str()?).ok();
    all.filter_map(text).map(|it| String::from_utf8_lossy(&it).into_owned() + "\n").collect()
}

/// Runs with the secret wherever one may stand: in the address, in queries and headers, in each login.
#[track_caller]
fn check(server: &Server, args: &[&str], code: i32) {
    let logins: &[&[&str]] = &[
        &["http.auth.bearer=hush-hush"],
        &["http.auth.username=anna", "http.auth.password=hush-hush"],
        &["http.auth.header=X-Key", "http.auth.value=hush-hush"],
        &["http.auth.token_url=TOKEN", "http.auth.client_id=me", "http.auth.client_secret=hush-hush"],
    ];
    let (url, token) = (server.url("/items?key=hush-hush"), server.url("/token?key=hush-hush"));
    for login in logins {
        let bench = Bench::new();
        let own = ["http.query=other=hush-hush", "http.headers=X-Own=hush-hush", "processing.max_retries=1"];
        let settings: Vec<String> = login.iter().chain(&own).map(|it| it.replace("TOKEN", &token)).collect();
        let settings: Vec<&str> = settings.iter().flat_map(|it| ["--set", it]).collect();
        let all = [&["--url", &url], &settings[..], args, SAID].concat();
        let ran = Running::start(command(&bench, &all)).ended();
        is_silent(&bench, &ran);
        ran.expect(code, &[]);
        let shown = Running::start(command(&bench, &[&all[..], &["--print-config"]].concat())).ended();
        // Addresses, parameters and headers are shown to whoever asks for the configuration; logins are not.
        let set = shown.stdout.lines().filter(|line| line.contains(SECRET));
        let set: Vec<&str> = set.filter_map(|line| line.split(" = ").next()).collect();
        assert!(set.iter().all(|key| ["urls", "headers", "query", "token_url"].contains(key)), "{set:?}");
        shown.expect(0, &[]);
    }
}

fn with_tokens(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |seen| match seen.path() {
        "/token" => Reply::ok("{\"access_token\":\"hush-hush-token\",\"expires_in\":3600}"),
        _ => answer(seen),
    })
}

#[test]
fn a_good_run_tells_no_secret() {
    let server = with_tokens(|seen| {
        assert_eq!(
            (seen.query("key").as_deref(), seen.query("other").as_deref()),
            (Some(SECRET), Some(SECRET))
        );
        assert_eq!(seen.header("x-own"), Some(SECRET));
        Reply::ok(array(slice((seen.number("page").expect("asked for") - 1) * 5, 5, 23)))
    });
    check(&server, &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=5"], 0);
}

#[test]
fn a_run_with_retries_and_dead_letters_tells_no_secret() {
    let count = AtomicUsize::new(0);
    let server = with_tokens(move |_| match count.fetch_add(1, SeqCst) % 2 {
        0 => Reply::new(500, "no"),
        _ => Reply::ok("{\"n\":1}\nbroken\n{\"n\":2}\n"),
    });
    check(&server, &[], 3);
}

#[test]
fn errors_tell_no_secret() {
    for (status, code) in [(401, 4), (403, 4), (404, 4), (500, 1), (302, 4)] {
        let server = with_tokens(move |seen| match status {
            302 => Reply::moved(302, "http://localhost:9/items?key=hush-hush"),
            _ => Reply::new(status, format!("{} has no {}", "somebody", seen.path())),
        });
        check(&server, &[], code);
    }
    let server = with_tokens(|_| Reply::ok("<html>no JSON</html>"));
    let bench = Bench::new();
    let url = server.url("/items?key=hush-hush");
    let ran = Running::start(command(&bench, &[&["--url", &url], SAID].concat())).ended();
    is_silent(&bench, &ran);
}

#[test]
fn addresses_of_next_pages_are_not_told() {
    for style in ["link", "next-url", "cursor"] {
        let server = with_tokens(move |seen| {
            let at = seen
                .number("at")
                .or(seen.query("cursor").and_then(|it| it.rsplit('-').next()?.parse().ok()))
                .unwrap_or(0);
            let (items, next) = (array(slice(at, 5, 23)), format!("/items?key=hush-hush&at={}", at + 5));
            let body = match style {
                "next-url" if at < 20 => format!("{{\"items\":{items},\"next\":\"{next}\"}}"),
                "cursor" if at < 20 => {
                    format!("{{\"items\":{items},\"next_cursor\":\"at-{}\"}}", at + 5)
                }
                _ => format!("{{\"items\":{items}}}"),
            };
            let reply = Reply::ok(body);
            if style == "link" && at < 20 { reply.with("Link", format!("<{next}>; rel=next")) } else { reply }
        });
        let style = format!("http.pagination.style={style}");
        check(&server, &["--set", &style, "--set", "http.records=/items"], 0);
    }
}

#[test]
fn a_host_that_cannot_be_reached_is_told_without_the_query() {
    let bench = Bench::new();
    for url in [
        "http://127.0.0.1:1/items?key=hush-hush",
        "https://127.0.0.1:1/items?key=hush-hush",
        "http://no.invalid/items?key=hush-hush",
        "http:/items?hush-hush",
        "foo://x/hush-hush?hush-hush",
    ] {
        let args = ["--url", url, "--set", "processing.max_retries=1", "--timeout", "5s"];
        let ran = Running::start(command(&bench, &[&args[..], SAID].concat())).ended();
        let said: Vec<&str> =
            ran.stderr.lines().filter(|line| line.contains("?key") || line.contains("key=")).collect();
        assert_eq!(said, Vec::<&str>::new());
        assert!(matches!(ran.code, Some(1 | 2)), "{url}: {}", ran.stderr);
    }
}
