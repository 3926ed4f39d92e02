//! What the program tells of a run where no server is asked for: objects on stderr, files, systemd, and `--check`.

use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::runs::{Bench, Running, lines};
use crate::state::make_fifo;

/// All of stderr as objects; each has the keys of a line of the log.
#[track_caller]
fn objects(stderr: &str) -> Vec<Value> {
    let object = |line: &str| {
        let read: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let keys: Vec<&String> = read.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["fields", "level", "msg", "target", "ts"], "{line}");
        read
    };
    stderr.lines().map(object).collect()
}

/// What is told must not replace what is read or stored.
#[test]
fn no_input_and_no_output_is_written_over() {
    let bench = Bench::new();
    fs::create_dir(bench.path("d")).expect("it can be made");
    for (name, numbers) in [("in.json", 0..5), ("d/a.json", 5..9)] {
        bench.write(name, lines(numbers));
    }
    let before = (bench.tree("d"), fs::read(bench.path("in.json")).expect("it is there"));
    for (args, is) in [
        (&["in.json", "--summary", "json=./in.json"][..], "the summary ./in.json is the input in.json"),
        (&["in.json", "--metrics-file", "in.json"], "the metrics file in.json is the input in.json"),
        (&["d", "--summary", "json=d/a.json"], "the summary d/a.json is in the input d"),
        (&["in.json", "-o", "x.ndjson", "--summary", "json=d/../x.ndjson"], "x.ndjson is the output"),
        (
            &["in.json", "-o", "x.ndjson", "--metrics-file", "x.ndjson"],
            "the metrics file x.ndjson is the output",
        ),
    ] {
        bench.run(args).expect(2, &[is, "name another file"]);
        let checked = bench.run(&[args, &["--check"]].concat());
        assert!(checked.code == Some(2) && checked.stdout.contains("wrong "), "{}", checked.stdout);
    }
    let mut command = bench.command(&["in.json", "-o", "-", "--summary", "json=/dev/stdout"]);
    command.stdout(fs::File::create(bench.path("all.ndjson")).expect("it can be made"));
    Running::start_unread(command).ended().expect(2, &["the summary /dev/stdout is the output"]);
    assert!(before == (bench.tree("d"), fs::read(bench.path("in.json")).expect("it is there")));
    bench.run(&["d", "--summary", "json=d/new.json"]).expect(2, &["is in the input d"]);
    bench.run(&["d", "--summary", "json=d/.s.json", "--metrics-file", "m.prom"]).expect(0, &[]);
    bench.run(&["d", "--fresh", "--summary", "json=d/.s.json", "--metrics-file", "/dev/null"]).expect(0, &[]);
}

#[test]
fn errors_hints_and_the_summary_are_objects_where_the_log_is() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5) + "{broken\n");
    let ran = bench.run(&["in.json", "-o", "-", "--log-format", "json"]).expect(1, &[]);
    let told = objects(&ran.stderr);
    let error = told.iter().find(|it| it["level"] == "error").expect("it says why");
    assert!(error["msg"].as_str().is_some_and(|it| it.contains("a record was rejected")), "{error}");
    assert!(error["fields"]["hint"].as_str().is_some_and(|it| it.contains("--dead-letter")), "{error}");
    let ran = bench.run(&["in.json", "--log-format", "json"]).expect(3, &[]);
    let told = objects(&ran.stderr);
    let summary = told.iter().find(|it| it["target"] == "pipeline::summary").expect("it sums up");
    assert_eq!(
        (&summary["fields"]["outcome"], &summary["fields"]["records_stored"]),
        (&"finished".into(), &5.into())
    );
    for wrong in ["--log-format=json", "--batch-sice=3"] {
        objects(
            &bench
                .run(&["in.json", wrong, "--set", "no.key=1", "--log-format", "json"])
                .expect(2, &[])
                .stderr,
        );
    }
    let ran = bench.run(&["none.json", "--log-format", "json"]).expect(2, &[]);
    assert_eq!(objects(&ran.stderr)[0]["level"], "error");
}

#[test]
fn a_summary_replaces_a_file_and_nothing_else() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    bench.write("s.json", "old");
    let inode =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(bench.path(name)).expect("there"));
    let before = inode("s.json");
    bench.run(&["in.json", "--summary", "json=s.json"]).expect(0, &[]);
    assert_ne!(inode("s.json"), before, "who reads sees the old one or the new one");
    let ran = bench.run(&["in.json", "--fresh", "--summary", "json=/dev/stderr"]).expect(0, &[]);
    let last = ran.stderr.lines().last().expect("a line");
    assert_eq!(serde_json::from_str::<Value>(last).expect("JSON")["records_stored"], 5);
    bench
        .run(&["in.json", "--fresh", "--summary", "json=none/s.json"])
        .expect(2, &["--summary: cannot write none/s.json"]);
}

#[test]
fn check_tells_everything_and_touches_nothing() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let told = [
        "--check",
        "in.json",
        "nothing.json",
        "-o",
        "in.json/out",
        "--state",
        "in.json/state",
        "--status",
        &address,
        "--metrics-file",
        "none/m.prom",
        "--summary",
        "json=s.json",
    ];
    let ran = bench.run(&told).expect(2, &[]);
    let words: Vec<String> = ran.stdout.lines().map(|line| line.chars().take(20).collect()).collect();
    let expected = [
        "ok       configurati",
        "ok       input in.js",
        "wrong    input nothi",
        "wrong    output in.j",
        "wrong    state in.js",
        "failed   status 127.",
        "wrong    metrics fil",
        "ok       summary s.j",
    ];
    assert_eq!(words, expected, "{}", ran.stdout);
    assert_eq!(bench.tree("").len(), 1);
    bench.run(&["--check", "in.json", "--status", &address]).expect(1, &[]);
    bench.run(&["--check", "in.json", "--status", "127.0.0.1:0"]).expect(0, &[]);
}

/// Listens as systemd does.
fn manager(at: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(at).expect("it can be bound");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    socket
}

/// What was said from where the last of it is said to `until`.
#[track_caller]
fn hear(socket: &UnixDatagram, until: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(until) {
        let mut message = [0; 4096];
        let count = socket.recv(&mut message).unwrap_or_else(|error| panic!("no {until} ({error}): {heard}"));
        heard.push_str(&String::from_utf8_lossy(&message[..count]));
        heard.push('\n');
    }
    heard
}

/// A run that waits for the end of `more`, told where its manager is.
fn managed(bench: &Bench, at: &str, variables: &[(&str, &str)]) -> (Running, File) {
    make_fifo(&bench.path("more"));
    let more = File::options().read(true).write(true).open(bench.path("more")).expect("it is there");
    let mut command = bench.command(&["more"]);
    command.env("NOTIFY_SOCKET", at).envs(variables.iter().copied());
    (Running::start(command), more)
}

fn path(path: &Path) -> (SocketAddr, String) {
    (SocketAddr::from_pathname(path).expect("it is short"), path.to_string_lossy().into_owned())
}

#[test]
fn systemd_hears_of_the_run() {
    let bench = Bench::new();
    let (at, name) = path(&bench.path("notify"));
    let socket = manager(&at);
    let (running, more) = managed(&bench, &name, &[("WATCHDOG_USEC", "100000")]);
    hear(&socket, "READY=1\n");
    hear(&socket, "STATUS=running: ");
    // Again and again, although nothing happens: who is not heard of is taken for dead.
    for _ in 0..3 {
        hear(&socket, "WATCHDOG=1\n");
    }
    drop(more);
    hear(&socket, "STOPPING=1\nSTATUS=finished: ");
    running.ended().expect(0, &[]);
}

/// Inside containers the socket has no path; and a watchdog may be another process's.
#[test]
fn systemd_hears_of_the_run_at_a_name_without_a_path() {
    let bench = Bench::new();
    let name = format!("pipeline-test-{}", bench.path("").display()).replace('/', "-");
    let socket = manager(&SocketAddr::from_abstract_name(&name).expect("it is short"));
    let foreign = [("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let (running, more) = managed(&bench, &format!("@{name}"), &foreign);
    let mut heard = hear(&socket, "STATUS=running: ");
    drop(more);
    heard.push_str(&hear(&socket, "STOPPING=1\n"));
    assert!(heard.contains("READY=1\n") && !heard.contains("WATCHDOG"), "{heard}");
    running.ended().expect(0, &[]);
}

#[test]
fn a_run_that_has_nothing_to_do_was_ready_all_the_same() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    bench.run(&["in.json"]).expect(0, &[]);
    let (at, name) = path(&bench.path("notify"));
    let socket = manager(&at);
    let mut command = bench.command(&["in.json"]);
    command.env("NOTIFY_SOCKET", name);
    Running::start(command).ended().expect(0, &["nothing to do"]);
    let heard = hear(&socket, "STOPPING=1\n");
    assert!(heard.starts_with("READY=1\n") && heard.contains("STATUS=nothing-to-do: "), "{heard}");
}
