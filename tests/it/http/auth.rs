//! Who a run says that it is, and what comes of it when it is not believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::server::{Reply, Seen};
use super::{Api, array, slice};

const TOTAL: usize = 23;
const PAGE: &[&str] = &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=5"];

fn page(seen: &Seen) -> Reply {
    Reply::ok(array(slice((seen.number("page").expect("it is asked for") - 1) * 5, 5, TOTAL)))
}

/// All pages are read with a header of this value, and with these settings.
#[track_caller]
fn check(settings: &[&str], name: &'static str, value: &'static str) {
    let api = Api::new(move |seen| match seen.header(name) == Some(value) {
        true => page(seen),
        false => Reply::new(401, "who are you?"),
    });
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    api.run(&[PAGE, &settings].concat()).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn every_way_to_log_in_works() {
    check(&["http.auth.bearer=t.o-k/e=n"], "authorization", "Bearer t.o-k/e=n");
    let basic = ["http.auth.username=anna", "http.auth.password=a:b ü"];
    check(&basic, "authorization", "Basic YW5uYTphOmIgw7w=");
    check(&["http.auth.header=X-Api-Key", "http.auth.value=key-1"], "x-api-key", "key-1");
    check(&["http.headers=Authorization=Weird abc"], "authorization", "Weird abc");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let api = Api::new(|seen| match seen.header("authorization") {
        Some("Bearer from-elsewhere") => page(seen),
        _ => Reply::new(401, ""),
    });
    api.bench.write("token", "from-elsewhere\n");
    api.run(&[PAGE, &["--set", "http.auth.bearer=file:token"]].concat()).expect(0, &[]);
    let mut command = api.command(&[PAGE, &["--set", "http.auth.bearer=env:THE_TOKEN", "-o", "b"]].concat());
    command.env("THE_TOKEN", "from-elsewhere");
    crate::runs::Running::start(command).ended().expect(0, &[]);
    let mut command = api.command(&[PAGE, &["-o", "c"]].concat());
    command.env("PIPELINE_HTTP__AUTH__BEARER_FILE", api.bench.path("token"));
    crate::runs::Running::start(command).ended().expect(0, &[]);
}

const OAUTH: &[&str] = &[
    "--set",
    "http.auth.client_id=me",
    "--set",
    "http.auth.client_secret=s3cr3t/+",
    "--set",
    "http.auth.scope=read all",
];

/// An API that gives tokens out: token N is good for `uses` requests, and said to be good for `expires` seconds.
fn with_tokens(uses: usize, expires: Option<u64>) -> (Api, Vec<String>) {
    let (given, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let api = Api::new(move |seen| {
        if seen.path() == "/token" {
            assert!(is_a_request_for_a_token(seen), "{seen:?}");
            let number = given.fetch_add(1, SeqCst) + 1;
            used.store(0, SeqCst);
            let expires = expires.map_or(String::new(), |seconds| format!(",\"expires_in\":{seconds}"));
            return Reply::ok(format!(
                "{{\"access_token\":\"token-{number}\",\"token_type\":\"bearer\"{expires}}}"
            ));
        }
        let current = format!("Bearer token-{}", given.load(SeqCst));
        match seen.header("authorization") == Some(&current) && used.fetch_add(1, SeqCst) < uses {
            true => page(seen),
            false => Reply::new(401, "{\"error\":\"expired\"}")
                .with("WWW-Authenticate", "Bearer error=\"invalid_token\""),
        }
    });
    let at = format!("http.auth.token_url={}", api.server.url("/token"));
    (api, vec!["--set".into(), at])
}

fn is_a_request_for_a_token(seen: &Seen) -> bool {
    let form =
        seen.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let basic = seen.header("authorization") == Some("Basic bWU6czNjcjN0JTJGJTJC");
    let in_form = seen.form("client_id").as_deref() == Some("me")
        && seen.form("client_secret").as_deref() == Some("s3cr3t/+");
    let grant = seen.form("grant_type").as_deref() == Some("client_credentials");
    let scope = seen.form("scope").as_deref() == Some("read all");
    seen.method == "POST" && form && (basic || in_form) && grant && scope
}

fn run_with_tokens(api: &Api, at: &[String]) -> crate::runs::Ran {
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    api.run(&[PAGE, OAUTH, &at].concat())
}

#[test]
fn a_token_is_fetched_once() {
    let (api, at) = with_tokens(usize::MAX, Some(3600));
    run_with_tokens(&api, &at).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    assert_eq!(api.server.asked("/token").len(), 1);
    // Without a time it is good until it is refused.
    let (api, at) = with_tokens(usize::MAX, None);
    run_with_tokens(&api, &at).expect(0, &[]);
    assert_eq!(api.server.asked("/token").len(), 1);
}

#[test]
fn a_token_that_is_refused_is_renewed() {
    let (api, at) = with_tokens(2, Some(3600));
    run_with_tokens(&api, &at).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let tokens = api.server.asked("/token").len();
    assert!((2..=4).contains(&tokens), "{tokens}");
}

#[test]
fn a_token_that_runs_out_is_renewed_before_it_is_refused() {
    let (api, at) = with_tokens(usize::MAX, Some(0));
    run_with_tokens(&api, &at).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    assert!(api.server.asked("/token").len() > 1, "one that is good for no time is not used for five pages");
}

#[test]
fn a_token_that_is_never_good_ends_the_run() {
    let (api, at) = with_tokens(0, Some(3600));
    run_with_tokens(&api, &at).expect(4, &["401", "hint"]);
    assert!(api.server.seen().len() <= 6, "{:?}", api.server.seen().len());
}

#[test]
fn a_place_that_gives_no_token_ends_the_run() {
    for (status, body, code) in
        [(400, "{\"error\":\"invalid_client\"}", 4), (401, "", 4), (200, "{\"nothing\":1}", 4), (503, "", 1)]
    {
        let api = Api::new(move |seen| match seen.path() {
            "/token" => Reply::new(status, body),
            _ => page(seen),
        });
        let at = format!("http.auth.token_url={}", api.server.url("/token"));
        let args = [PAGE, OAUTH, &["--set", &at, "--set", "processing.max_retries=2"]].concat();
        let ran = api.run(&args).expect(code, &["/token"]);
        assert!(!ran.stderr.contains("s3cr3t"), "{}", ran.stderr);
        assert!(api.server.asked("/items").is_empty());
    }
}

#[test]
fn who_is_refused_is_told_what_to_do() {
    for (status, settings) in
        [(401, &[][..]), (401, &["--set", "http.auth.bearer=old"]), (403, &[]), (404, &[]), (410, &[])]
    {
        let api = Api::new(move |_| Reply::new(status, "{\"message\":\"no, because of reasons\"}"));
        let ran = api.run(settings).expect(4, &[&status.to_string(), "/items", "hint"]);
        assert_eq!(api.server.seen().len(), 1, "it is not asked again: {}", ran.stderr);
    }
}

#[test]
fn one_who_is_refused_on_a_later_page_has_stored_the_pages_before() {
    let api = Api::new(|seen| if seen.number("page") == Some(4) { Reply::new(403, "") } else { page(seen) });
    api.run(PAGE).expect(4, &["403"]);
    let numbers = api.numbers();
    assert!(numbers.len() <= 15 && numbers.iter().enumerate().all(|(at, n)| at as u64 == *n), "{numbers:?}");
}

#[test]
fn half_a_login_is_a_wrong_configuration() {
    let api = Api::new(page);
    let wrong: &[&[&str]] = &[
        &["http.auth.username=anna"],
        &["http.auth.header=X-Key"],
        &["http.auth.bearer=a", "http.auth.username=b", "http.auth.password=c"],
        &["http.auth.token_url=http://localhost/token"],
        &["http.auth.header=X Key", "http.auth.value=v"],
        &["http.auth.bearer=a\nb"],
    ];
    for settings in wrong {
        let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        api.run(&args).expect(2, &["http.auth"]);
    }
    assert!(api.server.seen().is_empty());
}
