//! The client against a scripted server: who is told what, what is tried again, and what is refused.

use std::io::Write;
use std::time::Instant;

use super::script::{Answer, Asked, Server};
use super::*;
use crate::config::secret::Secret;

fn options() -> Options {
    Options {
        body: None,
        headers: Vec::new(),
        login: Login::None,
        hosts: Hosts::default(),
        tls: None,
        rate_limit: None,
        timeout: Duration::from_secs(10),
        bounds: Bounds { length: 1 << 20, window: 8 << 20, pace: Pace::default() },
    }
}

fn policy(max_retries: u32) -> Policy {
    Policy { max_retries, delay: Duration::from_millis(1), max_delay: Duration::from_millis(2) }
}

fn client(options: Options) -> Client {
    Client::new(options, &Stop::new(), &Services::default()).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// Asks for a path and reads what comes.
fn get(client: &Client, at: &str) -> Result<String> {
    let at = url(at);
    let reply = client.open(&at, &at)?;
    read(reply.body)
}

fn read(mut body: Body) -> Result<String> {
    let (mut out, mut piece) = (Vec::new(), [0; 100]);
    loop {
        match body.read(&mut piece)? {
            Got::Bytes(count) => out.extend_from_slice(&piece[..count]),
            Got::Idle => {}
            Got::End => return Ok(String::from_utf8(out).unwrap()),
        }
    }
}

fn login(login: Login) -> Options {
    Options { login, ..options() }
}

#[test]
fn a_request_says_who_asks_and_what_it_takes() {
    let server = Server::new(|_| Answer::ok("[1]"));
    let headers = vec![("X-Team".into(), "data".into()), ("Accept".into(), "text/x".into())];
    let it = client(Options { headers, ..options() });
    assert_eq!(get(&it, &server.url("/a/b?x=1&y=%20")).unwrap(), "[1]");
    let body = Some("{\"q\":1}".to_owned());
    get(&client(Options { body, ..options() }), &server.url("/")).unwrap();
    let [one, two] = &server.asked()[..] else { panic!("two requests") };
    assert_eq!((one.method.as_str(), one.target.as_str()), ("GET", "/a/b?x=1&y=%20"));
    assert_eq!((one.header("x-team"), one.header("accept")), (Some("data"), Some("text/x")));
    assert_eq!(one.header("accept-encoding"), Some("gzip, zstd"));
    assert!(one.header("user-agent").unwrap().starts_with("pipeline/"));
    assert_eq!((two.method.as_str(), two.body.as_str()), ("POST", "{\"q\":1}"));
    assert_eq!(two.header("content-type"), Some("application/json"));
}

#[test]
fn each_login_has_its_header() {
    let server = Server::new(|_| Answer::ok(""));
    let ways = [
        Login::Bearer(Secret::new("t0")),
        Login::Basic { username: "alice".into(), password: Secret::new("p:w") },
        Login::Key { header: "X-Api-Key".into(), value: Secret::new("k0") },
    ];
    for way in ways {
        get(&client(login(way)), &server.url("/")).unwrap();
    }
    let sent: Vec<(Option<String>, Option<String>)> = server
        .asked()
        .iter()
        .map(|it| (it.header("authorization").map(str::to_owned), it.header("x-api-key").map(str::to_owned)))
        .collect();
    let auth = |text: &str| (Some(text.to_owned()), None);
    assert_eq!(sent, [auth("Bearer t0"), auth("Basic YWxpY2U6cDp3"), (None, Some("k0".into()))]);
    for token in ["a\nb", "tök"] {
        let odd = client(login(Login::Bearer(Secret::new(token))));
        let error = get(&odd, &server.url("/")).unwrap_err();
        assert!(matches!(error, Error::Config(_)) && !error.to_string().contains(token), "{error}");
    }
}

/// With a length of its own a request without a body never ended, and heard of no stop.
#[test]
fn what_frames_a_message_is_the_clients_alone() {
    let key = Login::Key { header: "Content-Length".into(), value: Secret::new("5") };
    let headers = vec![("transfer-encoding".into(), "chunked".into())];
    for (options, name) in
        [(login(key), "Content-Length"), (Options { headers, ..options() }, "transfer-encoding")]
    {
        let error = Client::new(options, &Stop::new(), &Services::default()).err().unwrap();
        assert_eq!(error.to_string(), format!("the header {name} is set by this client alone"));
    }
}

fn oauth(server: &Server) -> Login {
    Login::OAuth {
        token_url: url(&server.url("/token?secret=1")),
        client_id: "id/1".into(),
        client_secret: Secret::new("s e"),
        scope: Some("read all".into()),
    }
}

#[test]
fn a_token_is_fetched_once_and_again_where_it_is_refused() {
    let server = Server::new(|asked: &Asked| match asked.path() {
        "/token" => Answer::ok(format!("{{\"access_token\":\"t{}\",\"expires_in\":3600}}", asked.index)),
        "/old" if asked.header("authorization") == Some("Bearer t0") => Answer::status(401),
        _ => Answer::ok("fine"),
    });
    let it = client(login(oauth(&server)));
    for path in ["/a", "/b", "/old", "/c"] {
        assert_eq!(get(&it, &server.url(path)).unwrap(), "fine", "{path}");
    }
    let asked = server.asked();
    let paths: Vec<&str> = asked.iter().map(Asked::path).collect();
    assert_eq!(paths, ["/token", "/a", "/b", "/old", "/token", "/old", "/c"]);
    assert_eq!(asked[0].header("authorization"), Some("Basic aWQlMkYxOnMrZQ=="));
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=read+all");
    assert_eq!(asked[6].header("authorization"), Some("Bearer t4"));
}

#[test]
fn a_token_that_is_about_to_expire_is_renewed() {
    let server = Server::new(|asked: &Asked| match asked.path() {
        "/token" => Answer::ok("{\"access_token\":\"t\",\"expires_in\":\"0\"}"),
        _ => Answer::ok(""),
    });
    let it = client(login(oauth(&server)));
    get(&it, &server.url("/a")).unwrap();
    get(&it, &server.url("/a")).unwrap();
    assert_eq!(server.asked().iter().filter(|it| it.path() == "/token").count(), 2);
}

#[test]
fn credentials_for_tokens_may_stand_in_the_body() {
    let server =
        Server::new(|asked: &Asked| match (asked.path(), asked.body.contains("client_secret=s+e")) {
            ("/token", false) => Answer::status(401),
            ("/token", true) => Answer::ok("{\"access_token\":\"t\"}"),
            _ => Answer::ok("fine"),
        });
    assert_eq!(get(&client(login(oauth(&server))), &server.url("/a")).unwrap(), "fine");
    let none = Server::new(|_| Answer::status(403));
    let error = get(&client(login(oauth(&none))), &none.url("/a")).unwrap_err();
    assert_eq!((error.kind(), error.retry()), ("token", Retry::Permanent));
    let text = error.to_string();
    assert!(text.contains("/token") && !text.contains("secret") && !text.contains("s e"), "{text}");
}

#[test]
fn redirects_stay_at_home_with_credentials_or_go_to_allowed_strangers_without() {
    let stranger = Server::new(|_| Answer::ok("stranger"));
    let there = stranger.url("/x?y");
    let server = Server::new(move |asked: &Asked| match asked.path() {
        "/home" => Answer::status(302).header("Location", "/here?z=1"),
        "/away" => Answer::status(307).header("Location", there.clone()),
        "/as-somebody" => Answer::status(307).header("Location", there.replace("://", "://evil:pw@")),
        "/round" => Answer::status(301).header("Location", "/round"),
        _ => Answer::ok("home"),
    });
    let headers = vec![("X-Secret".into(), "s".into())];
    let with = |hosts: Hosts, body: Option<String>| {
        let login = Login::Bearer(Secret::new("t0"));
        client(Options { hosts, body, headers: headers.clone(), login, ..options() })
    };
    let (closed, open) = (with(Hosts::default(), None), with(Hosts::new(["127.0.0.1".into()]), None));
    assert_eq!(get(&closed, &server.url("/home")).unwrap(), "home");
    let last = server.asked().pop().unwrap();
    assert_eq!((last.target.as_str(), last.header("authorization")), ("/here?z=1", Some("Bearer t0")));
    let error = get(&closed, &server.url("/away?q=secret")).unwrap_err();
    assert_eq!((error.kind(), error.retry()), ("elsewhere", Retry::Permanent));
    assert!(!error.to_string().contains("secret") && error.hint().unwrap().contains("allow_hosts"));
    assert!(stranger.asked().is_empty());
    assert_eq!(get(&open, &server.url("/away")).unwrap(), "stranger");
    let told = stranger.asked().pop().unwrap();
    assert_eq!((told.header("authorization"), told.header("x-secret")), (None, None));
    assert_eq!(get(&open, &server.url("/as-somebody")).unwrap(), "stranger");
    assert_eq!(stranger.asked().pop().unwrap().header("authorization"), None, "no server says who asks");
    let posting = with(Hosts::new(["127.0.0.1".into()]), Some("secret".into()));
    assert_eq!(get(&posting, &server.url("/away")).unwrap_err().kind(), "elsewhere");
    assert_eq!(stranger.asked().len(), 2, "a body goes nowhere else");
    assert!(get(&closed, &server.url("/round")).unwrap_err().to_string().contains("leads on and on"));
}

#[test]
fn what_may_pass_is_tried_again_and_counted() {
    let server = Server::new(|asked: &Asked| match asked.index {
        0 => Answer::status(503),
        1 => Answer::status(429).header("Retry-After", "0"),
        2 => Answer::ok("").declaring(0).header("Bad Header", "x"),
        _ => Answer::ok("fine"),
    });
    let services = Services::default();
    let it = Client::new(options(), &Stop::new(), &services).unwrap();
    let at = url(&server.url("/a?t=secret"));
    let reply = it.open_patiently(&at, &at, &mut Tries::new(policy(5))).unwrap();
    assert_eq!(read(reply.body).unwrap(), "fine");
    let told = services.told();
    assert_eq!((told[&("http", "server")].retries, told[&("http", "throttled")].retries), (1, 1));
    let storm = Server::new(|_| Answer::status(500));
    let at = url(&storm.url("/"));
    let error = it.open_patiently(&at, &at, &mut Tries::new(policy(3))).err().unwrap();
    assert_eq!((storm.asked().len(), error.exit_code()), (4, 1));
    let denied = Server::new(|_| Answer::status(401));
    let at = url(&denied.url("/a?t=secret"));
    let error = it.open_patiently(&at, &at, &mut Tries::new(policy(3))).err().unwrap();
    assert_eq!((denied.asked().len(), error.exit_code()), (1, 4));
    assert!(error.hint().unwrap().contains("http.auth") && !error.to_string().contains("secret"));
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_wants() {
    let server = Server::new(|asked: &Asked| match asked.index {
        0 => Answer::status(429).header("Retry-After", "1"),
        _ => Answer::ok(""),
    });
    let (it, at, begun) = (client(options()), url(&server.url("/")), Instant::now());
    it.open_patiently(&at, &at, &mut Tries::new(policy(1))).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_wait_is_told_in_seconds_or_as_a_date() {
    let after = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700))
    };
    assert_eq!(after("120"), Some(Duration::from_secs(120)));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(77)));
    assert_eq!(after("Tue, 06 Nov 1990 08:49:37 GMT"), Some(Duration::ZERO));
    assert_eq!(after("99999999"), Some(PATIENCE));
    assert_eq!(after("soon"), None);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bodies_are_unpacked() {
    let text = "[1,2,3] ".repeat(50_000);
    let packed = [("gzip", gzip(&text)), ("zstd", zstd::bulk::compress(text.as_bytes(), 1).unwrap())];
    let bodies = packed.clone();
    let server = Server::new(move |asked: &Asked| match asked.path() {
        "/gzip" => Answer::ok(bodies[0].1.clone()).header("Content-Encoding", "gzip"),
        "/zstd" => Answer::ok(bodies[1].1.clone()).header("Content-Encoding", "zstd"),
        "/cut" => Answer::ok(&bodies[0].1[..100]).header("Content-Encoding", "gzip"),
        "/none" => Answer::ok("plain").header("Content-Encoding", "gzip"),
        _ => Answer::ok("").header("Content-Encoding", "br"),
    });
    let it = client(options());
    for (name, _) in packed {
        assert_eq!(get(&it, &server.url(&format!("/{name}"))).unwrap(), text, "{name}");
    }
    assert_eq!(get(&it, &server.url("/cut")).unwrap_err().kind(), "cut");
    assert_eq!(get(&it, &server.url("/none")).unwrap_err().retry(), Retry::Transient);
    assert_eq!(get(&it, &server.url("/br")).unwrap_err().retry(), Retry::Permanent);
}

#[test]
fn a_body_is_no_longer_than_allowed_whatever_it_unpacks_to() {
    let long = "a".repeat(3 << 20);
    let bomb = gzip(&long);
    assert!(bomb.len() < 1 << 16);
    let server = Server::new(move |asked: &Asked| match asked.path() {
        "/bomb" => Answer::ok(bomb.clone()).header("Content-Encoding", "gzip"),
        "/quiet" => Answer::ok(long.clone()).unbounded(),
        _ => Answer::ok(long.clone()),
    });
    let it = client(options());
    for path in ["/bomb", "/quiet", "/told"] {
        let error = get(&it, &server.url(path)).unwrap_err();
        assert_eq!((error.kind(), error.retry()), ("too_large", Retry::Permanent), "{path}");
        assert!(error.to_string().ends_with("has more than 1048576 bytes"), "{error}");
    }
}

#[test]
fn a_body_that_is_cut_or_lied_about_is_an_error() {
    let server = Server::new(|asked: &Asked| match asked.path() {
        "/cut" => Answer::ok("[1,2").declaring(100),
        "/chunked" => Answer::ok("4\r\n[1,2\r\n").unbounded().header("Transfer-Encoding", "chunked"),
        _ => Answer::ok("[1]"),
    });
    let it = client(options());
    for path in ["/cut", "/chunked"] {
        let error = get(&it, &server.url(path)).unwrap_err();
        assert_eq!((error.kind(), error.retry()), ("cut", Retry::Transient), "{path}: {error}");
    }
    assert_eq!(get(&it, &server.url("/")).unwrap(), "[1]");
}

#[test]
fn a_trickle_is_not_waited_for() {
    let server = Server::new(|_| Answer::ok("x".repeat(10_000)).trickling());
    let pace = Pace::new(Duration::from_millis(300), 30_000);
    let it = client(Options { bounds: Bounds { pace, ..options().bounds }, ..options() });
    let error = get(&it, &server.url("/")).unwrap_err();
    assert_eq!((error.kind(), error.retry()), ("slow", Retry::Transient));
}

#[test]
fn no_answer_is_an_error_in_time() {
    let server = Server::new(|_| Answer::ok("[1").hanging());
    let it = client(Options { timeout: Duration::from_millis(200), ..options() });
    let begun = Instant::now();
    let error = get(&it, &server.url("/")).unwrap_err();
    assert_eq!((error.kind(), error.retry()), ("cut", Retry::Transient), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_drain_ends_requests_bodies_and_waits() {
    let server = Server::new(|asked: &Asked| match asked.path() {
        "/busy" => Answer::status(503).header("Retry-After", "3000"),
        _ => Answer::ok("[1").hanging(),
    });
    for path in ["/busy", "/body"] {
        let (stop, begun) = (Stop::new(), Instant::now());
        let it = Client::new(options(), &stop, &Services::default()).unwrap();
        let at = url(&server.url(path));
        let before = server.asked().len();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let reply = it.open_patiently(&at, &at, &mut Tries::new(policy(3)));
                reply.map(|reply| read(reply.body).is_err())
            });
            while server.asked().len() == before {
                assert!(begun.elapsed() < Duration::from_secs(60), "{path} is never asked for");
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.drain();
            assert!(waiting.join().unwrap().unwrap_or(true));
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}");
        let refused = it.open_patiently(&at, &at, &mut Tries::new(policy(3)));
        assert!(matches!(refused, Err(crate::Error::Stopped)));
    }
}

#[test]
fn nothing_encrypted_is_led_to_where_no_authorities_were_read() {
    let server = Server::new(|_| Answer::status(302).header("Location", "https://127.0.0.1:1/"));
    let hosts = Hosts::new(["127.0.0.1".into()]);
    let it = client(Options { hosts, ..options() });
    assert_eq!(get(&it, &server.url("/")).unwrap_err().kind(), "elsewhere");
}

#[test]
fn requests_go_through_the_proxy_of_the_environment() {
    // A tunnel, also where nothing is encrypted: what comes behind it is the request.
    let proxy = Server::new(|asked: &Asked| match asked.method.as_str() {
        "CONNECT" => Answer::status(200),
        _ => Answer::ok("through"),
    });
    let at = url("http://api.invalid/a?b=1");
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| proxy.url(""));
    let proxies = Proxies::of(&variable);
    let line = Line { agent: ureq::agent(), proxies };
    let request = Request::get(at.as_str()).body(()).unwrap();
    let mut answer = line.send("GET", &at, request).unwrap();
    assert_eq!(answer.body_mut().read_to_string().unwrap(), "through");
    let asked: Vec<String> = proxy.asked().into_iter().map(|it| it.target).collect();
    assert_eq!(asked, ["api.invalid:80", "/a?b=1"]);
}

#[test]
fn a_proxy_that_forbids_is_believed_and_one_that_cannot_is_asked_again() {
    for (status, retry, said) in [
        (403, Retry::Permanent, "it must allow CONNECT to this port, for plain http, too"),
        (407, Retry::Permanent, "the proxy wants another name and password (407)"),
        (503, Retry::Transient, "the proxy cannot connect to it (503)"),
    ] {
        let proxy = Server::new(move |_| Answer::status(status));
        let variable = |name: &str| (name == "HTTP_PROXY").then(|| proxy.url(""));
        let at = url("http://api.invalid/a");
        let line = Line { agent: ureq::agent(), proxies: Proxies::of(&variable) };
        let error = line.send("GET", &at, Request::get(at.as_str()).body(()).unwrap()).unwrap_err();
        assert_eq!(error.retry(), retry, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
