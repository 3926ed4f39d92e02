//! Where a run may be led: redirects and next addresses stay with scheme, host and port unless others are allowed,
//! and credentials stay in any case. And proxies.

use std::sync::Arc;

use super::server::{Reply, Seen, Server};
use super::{Api, array, command};
use crate::runs::{Bench, Ran, Running};

/// What must never reach another host.
const TOKEN: &str = "the-secret-token";
const AUTH: &[&str] = &[
    "--set",
    "http.auth.bearer=the-secret-token",
    "--set",
    "http.headers=[\"X-Own=the-secret-token\", \"Cookie=the-secret-token\"]",
];

/// Another origin, which would give records to whoever asks.
fn foreign() -> Arc<Server> {
    Arc::new(Server::start(|_| Reply::ok(array(50..60))))
}

/// Nothing of what was asked has a credential.
#[track_caller]
fn had_no_credentials(seen: &[Seen]) {
    for seen in seen {
        assert!(!format!("{seen:?}").contains(TOKEN), "{seen:?}");
        assert_eq!(seen.header("authorization"), None);
    }
}

#[test]
fn a_redirect_within_the_origin_is_followed_with_credentials() {
    for status in [301, 302, 303, 307, 308] {
        let api = Api::new(move |seen| match seen.path() {
            "/items" => Reply::moved(status, "/v2/items?a=1"),
            "/v2/items" => Reply::moved(status, "../v3/items"),
            _ if seen.header("authorization") == Some("Bearer the-secret-token") => Reply::ok(array(0..5)),
            _ => Reply::new(401, ""),
        });
        api.run(AUTH).expect(0, &[]);
        api.stored(0..5);
    }
}

#[test]
fn redirects_in_a_circle_end() {
    let api = Api::new(|seen| Reply::moved(302, if seen.path() == "/items" { "/other" } else { "/items" }));
    let ran = api.run(&[]);
    assert!(matches!(ran.code, Some(1 | 4)), "{}", ran.stderr);
    assert!(ran.stderr.contains("redirect"), "{}", ran.stderr);
    assert!(api.server.seen().len() < 200);
}

#[test]
fn a_redirect_to_another_host_is_refused() {
    for by in ["port", "name"] {
        let foreign = foreign();
        let elsewhere = foreign.clone();
        let api = Api::new(move |seen| match by {
            "port" => Reply::moved(302, &elsewhere.url("/items")),
            _ => Reply::moved(
                302,
                &format!(
                    "http://localhost:{}/items",
                    seen.header("host").expect("one").rsplit(':').next().expect("a port")
                ),
            ),
        });
        let ran = api.run(AUTH).expect(4, &["leads to", "allow_hosts"]);
        assert!(!ran.stderr.contains(TOKEN));
        assert_eq!(foreign.seen().len(), 0, "nobody asks there");
        assert_eq!(api.server.seen().len(), 1);
        assert_eq!(api.numbers(), Vec::<u64>::new());
    }
}

#[test]
fn a_redirect_to_a_host_that_is_allowed_is_followed_without_credentials() {
    let foreign = foreign();
    let elsewhere = foreign.clone();
    let api = Api::new(move |_| Reply::moved(307, &elsewhere.named("/items")));
    let allow = format!("http.allow_hosts=localhost:{}", foreign.port);
    api.run(&[AUTH, &["--set", &allow]].concat()).expect(0, &[]);
    assert_eq!(api.numbers(), (50..60).collect::<Vec<u64>>());
    assert_eq!(foreign.seen().len(), 1);
    had_no_credentials(&foreign.seen());
}

/// The styles whose next page is an address that the server says.
const LED: [&str; 2] = ["link", "next-url"];

/// First page here, then it goes on at `next`.
fn leads_to(style: &str, next: String) -> Reply {
    match style {
        "link" => Reply::ok(format!("{{\"items\":{}}}", array(0..5)))
            .with("Link", format!("<{next}>; rel=\"next\"")),
        _ => Reply::ok(format!("{{\"items\":{},\"next\":\"{next}\"}}", array(0..5))),
    }
}

fn led(style: &str) -> Vec<String> {
    vec![
        "--set".into(),
        format!("http.pagination.style={style}"),
        "--set".into(),
        "http.records=/items".into(),
    ]
}

#[test]
fn a_next_address_on_another_host_is_refused() {
    for style in LED {
        let foreign = foreign();
        let elsewhere = foreign.clone();
        let api = Api::new(move |_| leads_to(style, elsewhere.url("/items?page=2")));
        let args = led(style);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(AUTH.iter().copied()).collect();
        api.run(&args).expect(4, &["allow_hosts"]);
        assert_eq!(foreign.seen().len(), 0, "nobody asks there");
    }
}

#[test]
fn a_next_address_of_another_scheme_is_refused() {
    for next in
        ["https://127.0.0.1:1/items", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://a b/"]
    {
        let api = Api::new(move |_| leads_to("next-url", next.into()));
        let args = led("next-url");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = api.run(&args);
        assert!(matches!(ran.code, Some(1 | 4)), "{next}: {:?} {}", ran.code, ran.stderr);
        assert_eq!(api.server.seen().len(), 1, "{next}");
    }
}

#[test]
fn a_next_address_on_a_host_that_is_allowed_is_asked_without_credentials() {
    for style in LED {
        let foreign = Arc::new(Server::start(|_| Reply::ok(format!("{{\"items\":{}}}", array(5..9)))));
        let elsewhere = foreign.clone();
        let api = Api::new(move |_| leads_to(style, elsewhere.url("/items?page=2")));
        let allow = format!("http.allow_hosts=127.0.0.1:{}", foreign.port);
        let args = led(style);
        let args: Vec<&str> =
            args.iter().map(String::as_str).chain(AUTH.iter().copied()).chain(["--set", &allow]).collect();
        api.run(&args).expect(0, &[]);
        api.stored(0..9);
        had_no_credentials(&foreign.seen());
        assert_eq!(foreign.seen().len(), 1);
    }
}

#[test]
fn a_user_in_the_address_is_no_login_that_shows() {
    let bench = Bench::new();
    let ran =
        Running::start(command(&bench, &["--url", "http://anna:the-secret-token@127.0.0.1:1/items"])).ended();
    assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

/// A server that is asked for the pages of a host which exists nowhere.
#[test]
fn a_proxy_of_the_environment_is_used() {
    let proxy = Server::start(|seen| {
        assert!(
            seen.target.starts_with("http://api.invalid/items") || seen.target.starts_with("/items"),
            "{seen:?}"
        );
        Reply::ok(array(0..5))
    });
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        let bench = Bench::new();
        let mut command = command(&bench, &["--url", "http://api.invalid/items"]);
        command.env(name, format!("http://127.0.0.1:{}", proxy.port));
        Running::start(command).ended().expect(0, &[]);
        assert_eq!(crate::runs::numbers(&bench.objects("out")), (0..5).collect::<Vec<u64>>(), "{name}");
    }
    assert!(proxy.seen().len() >= 3);
}

#[test]
fn a_proxy_that_cannot_be_used_is_named_before_anybody_is_asked() {
    let told = |ran: Ran, what: &str| {
        assert!((ran.stdout.clone() + &ran.stderr).contains(what), "{}{}", ran.stdout, ran.stderr);
        ran.expect(2, &[]);
    };
    let buckets = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    for proxy in ["socks5://127.0.0.1:1", "socks4://127.0.0.1:1", "https://127.0.0.1:1"] {
        for more in [&[][..], &["--check"]] {
            let bench = Bench::new();
            let args = [&["--url", "http://api.invalid/items"], more].concat();
            let mut http = command(&bench, &args);
            http.env("HTTP_PROXY", proxy);
            told(Running::start(http).ended(), "HTTP_PROXY: expected a proxy like http://HOST:PORT");
            bench.write("in.json", "1\n");
            let to = ["in.json", "-o", "s3://bucket/x", "--set", "s3.endpoint=http://127.0.0.1:9"];
            let mut s3 = bench.command(&[&to, more].concat());
            s3.env("ALL_PROXY", proxy).envs(buckets);
            told(Running::start(s3).ended(), "ALL_PROXY: expected a proxy like http://HOST:PORT");
        }
    }
}

#[test]
fn hosts_that_need_no_proxy_are_asked_directly() {
    let proxy = Server::start(|_| Reply::new(500, "not me"));
    let api = Api::new(|_| Reply::ok(array(0..5)));
    let mut command = api.command(&[]);
    command
        .env("http_proxy", format!("http://127.0.0.1:{}", proxy.port))
        .env("no_proxy", "other.example,127.0.0.1");
    Running::start(command).ended().expect(0, &[]);
    api.stored(0..5);
    assert!(proxy.seen().is_empty());
}

#[test]
fn a_proxy_has_a_login_that_does_not_show() {
    let proxy = Server::start(|seen| match (seen.method.as_str(), seen.header("proxy-authorization")) {
        ("CONNECT", _) | (_, Some("Basic YW5uYTp0aGUtc2VjcmV0LXRva2Vu")) => Reply::ok(array(0..5)),
        (_, None) if seen.target.starts_with('/') => Reply::ok(array(0..5)),
        _ => Reply::new(407, ""),
    });
    let bench = Bench::new();
    let mut command = command(&bench, &["--url", "http://api.invalid/items", "--log-level", "trace"]);
    command.env("http_proxy", format!("http://anna:{TOKEN}@127.0.0.1:{}", proxy.port));
    let ran = Running::start(command).ended().expect(0, &[]);
    assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
    assert!(proxy.seen().iter().any(|seen| seen.header("proxy-authorization").is_some()));
}
