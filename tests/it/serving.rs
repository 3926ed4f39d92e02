//! What the status's server does with clients that mean no good, or are old; and that it gives nothing away.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::runs::Bench;
use crate::status::{CONTENT, port_of, watched};

/// What comes back for these bytes, whatever they are, until the connection ends.
#[track_caller]
fn answer(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    // The server may have had enough before everything is sent.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[track_caller]
fn check(port: u16, bytes: &[u8], begins: &str) {
    let answer = answer(port, bytes);
    let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
    assert!(answer.starts_with(begins), "{shown:?}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer to {shown:?}");
}

#[test]
fn whatever_is_sent_is_answered_once() {
    let watched = watched(&[]);
    watched.settled();
    let port = watched.port;
    check(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n\x00\xff\x00garbage", "HTTP/1.1 200 ");
    check(port, &b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50), "HTTP/1.1 200 ");
    check(port, format!("GET /{} HTTP/1.1\r\n", "a".repeat(100 << 10)).as_bytes(), "HTTP/1.1 431 ");
    // The beginning of TLS, and of HTTP/2.
    check(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400 ");
    check(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 ");
    check(port, b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400 ");
    check(port, b"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "HTTP/1.1 400 ");
    // Scrapers of 1996 send no host: what names inputs is not for them.
    check(port, b"GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ");
    check(port, b"GET /readyz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ");
    check(port, b"GET /status HTTP/1.0\r\n\r\n", "HTTP/1.1 421 ");
    check(port, b"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 421 ");
    watched.end().1.expect(3, &[]);
}

#[test]
fn a_head_is_that_of_the_whole() {
    let watched = watched(&[]);
    watched.settled();
    for path in ["/", "/livez", "/nothing"] {
        let ask = |method: &str| watched.ask(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let (whole, head) = (ask("GET"), ask("HEAD"));
        assert_eq!((head.code, head.head, head.body.as_str()), (whole.code, whole.head, ""), "{path}");
        assert!(!whole.body.is_empty());
    }
    watched.end().1.expect(3, &[]);
}

#[test]
fn an_address_of_version_6_is_listened_on() {
    if TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let (bench, more) = (Bench::new(), "more");
    crate::state::make_fifo(&bench.path(more));
    let _writer =
        std::fs::File::options().read(true).write(true).open(bench.path(more)).expect("it is there");
    let running = bench.start(&[more, "--status", "[::1]:0"]);
    let port = port_of(&running);
    let mut stream = TcpStream::connect(("::1", port)).expect("it listens");
    let asked = format!("GET /status HTTP/1.1\r\nHost: [::1]:{port}\r\n\r\n");
    stream.write_all(asked.as_bytes()).expect("it is taken");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer");
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
    running.kill();
}

/// The keys whose values are never told.
const SECRETS: [&str; 3] = ["kafka.sasl.password", "s3.secret_access_key", "s3.session_token"];

#[test]
fn no_secret_and_no_record_is_told_anywhere() {
    let settings: Vec<String> = SECRETS.iter().map(|key| format!("{key}=hunter2-{key}")).collect();
    let mut args = vec!["--metrics-file", "m.prom", "--summary", "json=s.json", "--log-level", "trace"];
    args.extend(["--set", "kafka.sasl.username=alice", "--set", "s3.access_key_id=id"]);
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    let watched = watched(&args);
    watched.settled();
    let paths = ["/", "/status", "/metrics", "/health", "/livez", "/ready", "/readyz", "/nothing"];
    let served: Vec<String> = paths.iter().map(|path| watched.get(path).body).collect();
    let (bench, ran) = watched.end();
    let ran = ran.expect(3, &[]);
    let file = |name: &str| std::fs::read_to_string(bench.path(name)).expect("it is there");
    // The summary on a terminal shows the first rejected records: that is for who runs it.
    let quiet = [file("m.prom"), ran.stdout];
    for text in served.iter().chain(&quiet) {
        assert!(!text.contains(CONTENT), "a record is told: {text}");
    }
    for text in served.iter().chain(&quiet).chain([&file("s.json"), &ran.stderr]) {
        assert!(!text.contains("hunter2"), "a secret is told: {text}");
    }
}
