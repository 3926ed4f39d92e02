//! [`Api`]: a real JSON server (json-server), and runs of the executable that read from it: links, pages and
//! offsets as an ordinary server has them, with compressed and pretty-printed arrays.

mod server;

use std::process::Command;

use serde_json::{Value, json};

use crate::kafka::Kafka;
use crate::runs::{self, Bench, Ran, Running, Tree, until};
use crate::s3;
use server::{Server, is_possible};

/// How many items there are.
const TOTAL: usize = 1234;

/// A server with the list `items`, and a directory for runs that read it. One a test: some add to the list.
struct Api {
    server: Server,
    bench: Bench,
}

impl Api {
    /// `None` where tests with services are skipped.
    fn start() -> Option<Self> {
        let item = |n: usize| json!({"id": n + 1, "n": n, "text": "ü".repeat(n % 50), "updated_at": n / 3});
        let items: Vec<Value> = (0..TOTAL).map(item).collect();
        let records = json!({"items": items, "few": [{"id": 1, "n": 5000}], "none": []});
        is_possible().then(|| Api { server: Server::start(&records), bench: Bench::new() })
    }

    fn run(&self, path: &str, args: &[&str]) -> Ran {
        Running::start(command(&self.bench, &self.server.url(path), args)).ended()
    }

    fn numbers(&self, out: &str) -> Vec<u64> {
        sorted(&self.bench.objects(out))
    }
}

fn command(bench: &Bench, url: &str, args: &[&str]) -> Command {
    let mut command = bench.command(&["process", "--source", "api", "--url", url, "--timeout", "60s"]);
    for name in ["http_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.args(args);
    command
}

fn sorted(tree: &Tree) -> Vec<u64> {
    let mut numbers = runs::numbers(tree);
    numbers.sort_unstable();
    numbers
}

fn all() -> Vec<u64> {
    (0..TOTAL as u64).collect()
}

const LINK: &[&str] = &["--set", "http.pagination.style=link"];

#[test]
fn links_are_followed_to_the_last_page() {
    let Some(api) = Api::start() else { return };
    api.run("/items?_page=1&_limit=100", LINK).expect(0, &[]);
    assert_eq!(api.numbers("out"), all());
    // A list of one page has no link at all.
    api.run("/few?_page=1&_limit=100", &[LINK, &["-o", "few"]].concat()).expect(0, &[]);
    assert_eq!(api.numbers("few"), [5000]);
    api.run("/none?_page=1&_limit=100", &[LINK, &["-o", "none"]].concat()).expect(0, &[]);
    assert_eq!(api.numbers("none"), Vec::<u64>::new());
}

#[test]
fn pages_and_offsets_are_counted() {
    let Some(api) = Api::start() else { return };
    let set = |settings: &[&'static str]| -> Vec<&'static str> {
        settings.iter().flat_map(|setting| ["--set", setting]).collect()
    };
    let pages = set(&[
        "http.pagination.style=page",
        "http.pagination.page_param=_page",
        "http.pagination.size_param=_limit",
        "http.pagination.page_size=100",
    ]);
    api.run("/items", &[&pages[..], &["-o", "pages", "-z", "gzip"]].concat()).expect(0, &[]);
    assert_eq!(api.numbers("pages"), all());
    let offsets = set(&[
        "http.pagination.style=offset",
        "http.pagination.offset_param=_start",
        "http.pagination.limit_param=_limit",
        "http.pagination.page_size=70",
    ]);
    api.run("/items", &[&offsets[..], &["-o", "offsets"]].concat()).expect(0, &[]);
    assert_eq!(api.numbers("offsets"), all());
    // Everything in one answer, lists side by side.
    let few = api.server.url("/few");
    api.run("/items", &["--url", &few, "-o", "whole"]).expect(0, &[]);
    assert_eq!(api.numbers("whole"), all().into_iter().chain([5000]).collect::<Vec<u64>>());
}

#[test]
fn a_list_that_is_not_there_is_told() {
    let Some(api) = Api::start() else { return };
    api.run("/itmes?_page=1", LINK).expect(4, &["404", "/itmes"]);
    assert_eq!(api.bench.objects("out").len(), 0);
}

#[test]
fn only_what_is_new_is_asked_for() {
    let Some(api) = Api::start() else { return };
    let since =
        [LINK, &["--set", "http.since=/updated_at", "--set", "http.since_param=updated_at_gte"]].concat();
    let path = "/items?_page=1&_limit=100&_sort=updated_at";
    api.run(path, &since).expect(0, &[]);
    assert_eq!(api.numbers("out"), all());
    for n in 0..3 {
        api.server.add("items", &json!({"n": 6000 + n, "updated_at": 9000}));
    }
    api.run(path, &since).expect(0, &[]);
    // The newest of before come again: this server's parameter is "as new as", not "newer than".
    let again = (0..TOTAL).filter(|n| n / 3 == (TOTAL - 1) / 3).count();
    let numbers = api.numbers("out");
    assert_eq!(numbers.len(), TOTAL + again + 3);
    assert_eq!(numbers[numbers.len() - 3..], [6000, 6001, 6002]);
}

#[test]
fn a_poll_stores_what_is_added() {
    let Some(api) = Api::start() else { return };
    let since = ["--set", "http.since=/updated_at", "--set", "http.since_param=updated_at_gte"];
    let poll = ["--set", "http.poll=100ms", "--set", "processing.batch_wait=100ms"];
    let args = [LINK, &since, &poll].concat();
    let running = Running::start(command(&api.bench, &api.server.url("/few?_page=1&_limit=100"), &args));
    until("the first is stored", || api.numbers("out").contains(&5000));
    api.server.add("few", &json!({"n": 5001, "updated_at": 7}));
    until("the second is stored", || api.numbers("out").contains(&5001));
    running.signal(rustix::process::Signal::TERM);
    running.ended().expect(0, &[]);
}

#[test]
fn pages_go_into_a_bucket() {
    let (Some(api), Some(store)) = (Api::start(), s3::Server::shared()) else { return };
    let bucket = store.bucket("pages");
    let url = api.server.url("/items?_page=1&_limit=100");
    let args =
        ["process", "--source", "api", "--s3-bucket", &bucket.bucket, "--timeout", "60s", "--url", &url];
    bucket.run(&[&args[..], LINK, &["-b", "50"]].concat()).expect(0, &[]);
    let objects = bucket.objects();
    assert_eq!(sorted(&objects), all());
    assert!(objects.len() >= TOTAL / 50, "{:?}", objects.keys());
    assert!(bucket.all().len() > objects.len(), "what is done is remembered there");
    assert_eq!(bucket.uploads(), 0);
}

/// The same objects, whether it was killed or not, read from a server and stored on another.
#[test]
fn killed_on_the_way_to_a_bucket_it_goes_on() {
    let (Some(api), Some(store)) = (Api::start(), s3::Server::shared()) else { return };
    let bucket = store.bucket("killed");
    let url = api.server.url("/items?_page=1&_limit=40");
    // Slow enough to be killed on its way.
    let base = ["-s", "http", "--url", &url, "-b", "20", "--set", "http.rate_limit=20"];
    let args = |to: &str| {
        [&base[..], LINK, &["-o", to]].concat().iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()
    };
    let (whole, part) = (bucket.url("whole"), bucket.url("part"));
    let start = |to: &str| {
        let args = args(to);
        Running::start(bucket.command(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    start(&whole).ended().expect(0, &[]);
    let stored = |top: &str| bucket.objects().keys().filter(|key| key.starts_with(top)).count();
    for more in [5, 20] {
        let running = start(&part);
        until("some are stored", || stored("part/processed") >= more);
        running.kill();
    }
    start(&part).ended().expect(0, &[]);
    assert_eq!(bucket.data("part/processed"), bucket.data("whole/processed"));
    assert_eq!(stored("part/"), stored("whole/"));
}

/// In the order of the list, with the field that is asked for as key, each once, although the run was stopped on
/// its way.
#[test]
fn pages_go_into_a_topic() {
    let (Some(api), Some(kafka)) = (Api::start(), Kafka::shared()) else { return };
    let (topic, brokers) = (kafka.topic("pages", 1), kafka.brokers());
    let to = format!("kafka:{topic}");
    let args = [LINK, &["-o", &to, "--brokers", &brokers, "--state", "kept"]].concat();
    let args = [&args[..], &["--set", "kafka.sink.key=/id", "--set", "output.envelope=none"]].concat();
    let path = "/items?_page=1&_limit=40";
    // Slow enough to be stopped on its way.
    let slow = [&args[..], &["--set", "http.rate_limit=20", "--set", "processing.batch_wait=50ms"]].concat();
    let running = Running::start(command(&api.bench, &api.server.url(path), &slow));
    until("some are stored", || kafka.ends(&topic).iter().sum::<i64>() >= 100);
    running.signal(rustix::process::Signal::TERM);
    running.ended().expect(143, &[]);
    api.run(path, &args).expect(0, &[]);
    // The server writes a record on several lines.
    let text = kafka.consume(&topic, TOTAL).join("\n");
    let records: Vec<&str> = text.split("Partition:").skip(1).collect();
    assert_eq!(records.len(), TOTAL);
    for (n, record) in records.iter().enumerate() {
        let fields: Vec<&str> = record.split('\t').collect();
        let value: Value = serde_json::from_str(fields[4]).expect("it is JSON");
        assert_eq!((fields[3], &value["n"]), ((n + 1).to_string().as_str(), &json!(n)), "{record}");
    }
}
