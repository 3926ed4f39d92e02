//! How a run can be watched: over HTTP while it goes on, in files and by its log. What is told is compared with what
//! is stored.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::exposition::{Exposition, promtool};
use crate::runs::{Bench, Running, Tree, lines, text, until};
use crate::state::make_fifo;

/// What stands in every record and may stand nowhere else.
pub const CONTENT: &str = "liquor jugs";

/// A run that has read a file with broken records, and waits for more from a pipe.
pub struct Watched {
    pub bench: Bench,
    pub running: Running,
    more: Option<File>,
    pub port: u16,
}

/// Records in the file, and with those in the pipe, which are stored when it is closed.
pub const FIRST: usize = 200;
const GOOD: usize = 300;
pub const BROKEN: usize = 7;

pub fn watched(args: &[&str]) -> Watched {
    let bench = Bench::new();
    let broken = format!("{{\"n\": {CONTENT}\n").repeat(BROKEN);
    bench.write("in.json", lines(0..FIRST) + &broken);
    make_fifo(&bench.path("more"));
    let mut all = vec!["-b", "10", "-w", "2", "in.json", "more", "--status", "127.0.0.1:0"];
    all.extend(args);
    let running = bench.start(&all);
    let port = port_of(&running);
    let more = File::options().read(true).write(true).open(bench.path("more")).expect("it is there");
    Watched { bench, running, more: Some(more), port }
}

/// Where a run listens.
pub fn port_of(running: &Running) -> u16 {
    running.heard("listening on http://");
    let said = running.said();
    let at = said.split("listening on http://").nth(1).and_then(|rest| rest.split('/').next());
    let port = at.and_then(|at| at.rsplit(':').next()?.parse().ok());
    port.expect("the port is told")
}

/// What a server answers.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Watched {
    pub fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("it is taken");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an answer to its end");
        let (head, body) = all.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { code, head: head.into(), body: body.into() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", self.port))
    }

    fn metrics(&self) -> Exposition {
        let answer = self.get("/metrics");
        assert!(answer.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", answer.head);
        Exposition::parse(&answer.body)
    }

    /// The same, as `promtool` reads it.
    fn promtool(&self) {
        promtool(&self.get("/metrics").body);
    }

    /// Waits until all of the file is stored.
    pub fn settled(&self) {
        until("all is stored", || {
            let metrics = self.metrics();
            let ended = || metrics.of("pipeline_partition_ended", "partition", "in.json");
            metrics.sum("pipeline_records_stored_total") == FIRST as f64 && ended() == 1.0
        });
    }

    /// Writes the rest of the input, and ends it.
    pub fn end(mut self) -> (Bench, crate::runs::Ran) {
        if let Some(mut more) = self.more.take() {
            more.write_all(lines(FIRST..GOOD).as_bytes()).expect("there is room");
        }
        (self.bench, self.running.ended())
    }
}

fn stored(tree: &Tree, prefix: &str) -> usize {
    tree.iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, it)| text(name, it).lines().count())
        .sum()
}

fn bytes(tree: &Tree) -> usize {
    tree.values().map(Vec::len).sum()
}

fn files(tree: &Tree, prefix: &str) -> usize {
    tree.keys().filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn metrics_summary_and_objects_agree_to_the_last_record() {
    let watched = watched(&["--metrics-file", "m.prom", "--summary", "json=s.json"]);
    watched.settled();
    let (live, objects) = (watched.metrics(), watched.bench.objects("out"));
    watched.promtool();
    assert_eq!(live.sum("pipeline_records_stored_total"), stored(&objects, "processed/") as f64);
    assert_eq!(live.sum("pipeline_bytes_stored_total"), bytes(&objects) as f64);
    assert_eq!(live.of("pipeline_phase", "phase", "running"), 1.0);
    assert!(live.sum("pipeline_inflight_limit_bytes") > 0.0);
    for of in ["fetch", "process", "publish", "commit"] {
        assert!(live.sum(&format!("pipeline_{of}_duration_seconds_count")) > 0.0, "{of}");
    }
    let status: Value = serde_json::from_str(&watched.get("/status").body).expect("it is JSON");
    assert_eq!(status["records_stored"], FIRST);
    assert_eq!(status["rejected"]["invalid_json"], BROKEN);
    assert_eq!(status["dead_letters"][0]["kind"], "invalid_json");

    let (bench, ran) = watched.end();
    ran.expect(3, &[]);
    let objects = bench.objects("out");
    let summary: Value =
        serde_json::from_slice(&fs::read(bench.path("s.json")).expect("it is there")).expect("JSON");
    let file = fs::read_to_string(bench.path("m.prom")).expect("it is there");
    let last = Exposition::parse(&file);
    promtool(&file);
    let told = [
        ("records_read", "pipeline_records_read_total", GOOD + BROKEN),
        ("records_stored", "pipeline_records_stored_total", stored(&objects, "processed/")),
        ("records_rejected", "pipeline_records_rejected_total", stored(&objects, "failed/")),
        ("bytes_out", "pipeline_bytes_stored_total", bytes(&objects)),
        ("batches", "pipeline_batches_published_total", files(&objects, "processed/") + 1),
        ("bytes_in", "pipeline_source_bytes_total", summary["bytes_in"].as_u64().expect("a number") as usize),
    ];
    for (key, metric, expected) in told {
        assert_eq!(
            (summary[key].as_u64(), last.sum(metric)),
            (Some(expected as u64), expected as f64),
            "{key}"
        );
    }
    assert_eq!(stored(&objects, "failed/"), BROKEN);
    assert_eq!(last.of("pipeline_phase", "phase", "finished"), 1.0);
    let beside = fs::read_dir(bench.path(".")).expect("it is there").flatten();
    assert!(beside.filter(|it| it.file_name().to_string_lossy().contains(".tmp")).count() == 0);
}

#[test]
fn one_file_counts_as_stored_when_it_is_there() {
    let watched = watched(&["-o", "all.ndjson", "--dead-letter", "bad", "--metrics-file", "m.prom"]);
    until("it is read", || watched.metrics().sum("pipeline_records_read_total") > 0.0);
    assert_eq!(watched.metrics().sum("pipeline_records_stored_total"), 0.0);
    let (bench, ran) = watched.end();
    ran.expect(3, &[]);
    let all = fs::read_to_string(bench.path("all.ndjson")).expect("it is there");
    let last = Exposition::parse(&fs::read_to_string(bench.path("m.prom")).expect("it is there"));
    assert_eq!((all.lines().count(), last.sum("pipeline_records_stored_total")), (GOOD, GOOD as f64));
}

#[test]
fn a_stopped_run_tells_what_is_stored() {
    let watched = watched(&["--metrics-file", "m.prom", "--summary", "json=s.json"]);
    watched.settled();
    watched.running.signal(Signal::TERM);
    let Watched { bench, running, more, .. } = watched;
    running.ended().expect(143, &[]);
    drop(more);
    let (objects, file) =
        (bench.objects("out"), fs::read_to_string(bench.path("m.prom")).expect("it is there"));
    let last = Exposition::parse(&file);
    let summary: Value =
        serde_json::from_slice(&fs::read(bench.path("s.json")).expect("it is there")).expect("JSON");
    assert_eq!(summary["records_stored"], stored(&objects, "processed/"));
    assert_eq!(last.sum("pipeline_records_stored_total"), stored(&objects, "processed/") as f64);
    assert_eq!(summary["rejected"]["invalid_json"], summary["records_rejected"]);
    assert_eq!(last.of("pipeline_phase", "phase", "drained"), 1.0);
}

#[test]
fn names_inputs_and_outputs_only_to_names_that_no_site_can_have() {
    let watched = watched(&["--set", "status.hosts=box.example"]);
    watched.settled();
    let ask =
        |path: &str, host: &str| watched.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).code;
    for path in ["/", "/status"] {
        let codes = ["localhost", "127.0.0.1:1", "box.example", "evil.example"].map(|host| ask(path, host));
        assert_eq!(codes, [200, 200, 200, 421], "{path}");
    }
    for path in ["/metrics", "/health", "/livez", "/ready", "/readyz"] {
        assert_eq!(ask(path, "evil.example"), 200, "{path}");
    }
    assert_eq!(watched.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").code, 405);
    assert_eq!(watched.ask("GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n").code, 404);
    let head = watched.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    for path in ["/", "/status", "/metrics", "/ready"] {
        assert!(!watched.get(path).body.contains(CONTENT), "{path} has a record's content");
    }
    watched.end().1.expect(3, &[]);
}

#[test]
fn slow_clients_keep_nobody_out_and_are_sent_away() {
    let watched = watched(&[]);
    let slow = || {
        let mut stream = TcpStream::connect(("127.0.0.1", watched.port)).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("it is taken");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        stream
    };
    let streams: Vec<TcpStream> = (0..100).map(|_| slow()).collect();
    assert_eq!(watched.get("/health").code, 200);
    for mut stream in streams {
        // The end, or a reset where something was not read.
        assert!(!matches!(stream.read(&mut [0; 16]), Ok(1..)), "half a request has no answer");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}", "a".repeat(8 << 10));
    assert_eq!(watched.ask(&long).code, 431);
    watched.end().1.expect(3, &[]);
}

/// No socket of a run that was not asked for one is listened on.
#[test]
fn nobody_is_listened_to_unless_asked_for() {
    let bench = Bench::new();
    make_fifo(&bench.path("more"));
    let writer = File::options().read(true).write(true).open(bench.path("more")).expect("it is there");
    let running = bench.start(&["more"]);
    until("it runs", || threads(running.id()).contains(&"commit".to_owned()));
    assert_eq!(listening(running.id()), 0);
    drop(writer);
    running.ended().expect(0, &[]);
    let watched = watched(&[]);
    assert_eq!(listening(watched.running.id()), 1, "it would be seen");
}

fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|it| it.trim().into())
        .collect()
}

fn listening(process: u32) -> usize {
    let own: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .expect("it runs")
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|to| Some(to.to_string_lossy().strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default());
    let listens = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(3) == Some(&"0A") && columns.get(9).is_some_and(|inode| own.iter().any(|it| it == inode))
    };
    tables.iter().flat_map(|table| table.lines()).filter(listens).count()
}

#[test]
fn the_page_needs_nothing_from_outside_and_its_script_parses() {
    let watched = watched(&[]);
    let page = watched.get("/");
    assert!(page.head.contains("Content-Security-Policy: default-src 'none';"), "{}", page.head);
    for outside in ["http:", "https:", "src=", "@import", "url(", "//cdn", "<link rel=\"stylesheet\""] {
        let found = page.body.replace("http://www.w3.org/2000/svg", "").contains(outside);
        assert!(!found, "the page has {outside}");
    }
    let script =
        page.body.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next()).expect("a script");
    let node = Command::new("node").args(["--check", "-"]).stdin(Stdio::piped()).spawn();
    if let Ok(mut node) = node {
        node.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("it is taken");
        assert!(node.wait().expect("it was started").success());
    } else {
        eprintln!("no node: the page's script is not parsed");
    }
    // What the script asks of the status is there.
    let status: Value = serde_json::from_str(&watched.get("/status").body).expect("it is JSON");
    for key in script
        .split("now.")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next())
    {
        assert!(status.get(key).is_some(), "the page asks for {key}");
    }
    watched.end().1.expect(3, &[]);
}

#[test]
fn a_signal_asks_for_the_status_and_logs_are_objects() {
    let watched = watched(&["--log-format", "json"]);
    watched.settled();
    watched.running.signal(Signal::USR1);
    watched.running.heard("running: ");
    let log = watched.running.said();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no object: {line}"));
        assert!(line["ts"].is_string() && line["target"].is_string() && line["fields"].is_object(), "{line}");
        assert_eq!(line["level"], "info");
    }
    assert!(log.contains("200 stored"), "{log}");
    watched.end().1.expect(3, &[]);
}

#[test]
fn what_cannot_be_served_or_written_is_told_before_the_run() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = taken.local_addr().expect("it has one").to_string();
    bench.run(&["in.json", "--status", &address]).expect(1, &["cannot listen on 127.0.0.1:"]);
    bench.run(&["in.json", "--status", "9464"]).expect(2, &["--status: expected HOST:PORT"]);
    bench
        .run(&["in.json", "--metrics-file", "no/m.prom"])
        .expect(2, &["--metrics-file: cannot write no/m.prom"]);
    assert!(!bench.path("out").exists());
}
