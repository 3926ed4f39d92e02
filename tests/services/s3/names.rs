//! Names that a template gives, from a real Kafka and from files to a real S3 server.

use std::time::Duration;

use pipeline::kafka::wire::Compression;

use super::kafka::{start, stored_ids};
use super::{Server, Store, sorted};
use crate::flow::{Times, same_ids};
use crate::kafka::Kafka;
use crate::records::{Feeder, Row};
use crate::runs::{lines, until};

/// The hour in which [`Row::numbered`] begins.
const HOUR: &str = "dt=2023-11-14/hour=22/";

fn names(store: &Store<'_>) -> Vec<String> {
    store.objects().into_keys().collect()
}

/// Objects stand by the hours of their records, and another template only names what comes next.
#[test]
fn a_topic_stands_by_day_and_hour() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let (store, topic) = (server.bucket("hive"), kafka.topic("hive", 1));
    let write = |numbers: std::ops::Range<usize>| {
        let rows: Vec<Row> = numbers.map(Row::numbered).collect();
        kafka.write(&topic, 0, Compression::Lz4, &rows);
    };
    let run =
        |key: &str| start(&store, kafka, &topic, &["--until", "end", "--set", key]).ended().expect(0, &[]);
    write(0..7);
    // Three hours later.
    write(10_800_000..10_800_010);
    run("output.key=hive");
    let (first, last) = (format!("p/processed/{HOUR}{topic}-0-"), "-00000000000000000000.ndjson");
    let stored = names(&store);
    assert_eq!(stored.len(), 3, "{stored:?}");
    assert!(stored[0].starts_with(&first) && stored[0].ends_with(last), "{stored:?}");
    let later = "p/processed/dt=2023-11-15/hour=01/";
    assert!(
        stored[1].starts_with(later) && stored[1].ends_with("-00000000000000000007.ndjson"),
        "{stored:?}"
    );
    assert!(
        stored[2].starts_with(later) && stored[2].ends_with("-00000000000000000014.ndjson"),
        "{stored:?}"
    );
    write(20..25);
    run("output.key={topic}/{year}-{month}-{day}/{partition}-{topic_id}-{start}");
    assert_eq!(names(&store)[..2], stored[..2], "what is there stays");
    let other = format!("p/processed/{topic}/2023-11-14/0-");
    assert!(names(&store).iter().any(|name| name.starts_with(&other)), "{:?}", names(&store));
    same_ids(stored_ids(&store, &topic), &kafka.ids(&topic), Times::Once);
    let lacks = start(&store, kafka, &topic, &["--set", "output.key={topic}/{start}"]).ended();
    lacks.expect(2, &["output.key: {topic}/{start} lacks {partition}, so two batches could get one name"]);
}

/// Killed and started again with a template, each record stands in one object.
#[test]
fn sigkill_stores_nothing_twice_under_a_template() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let (store, topic) = (server.bucket("hive-killed"), kafka.topic("hive-killed", 2));
    let feeder = Feeder::start(kafka, &topic, 2, Duration::from_millis(3));
    for _ in 0..3 {
        let before = store.objects().len();
        let run = start(&store, kafka, &topic, &["--set", "output.key=hive"]);
        until("the run stores", || store.objects().len() > before + 15);
        run.kill();
    }
    feeder.stop();
    start(&store, kafka, &topic, &["--until", "end", "--set", "output.key=hive"]).ended().expect(0, &[]);
    same_ids(stored_ids(&store, &topic), &kafka.ids(&topic), Times::Once);
    assert!(names(&store).iter().all(|name| name.starts_with("p/processed/dt=")), "{:?}", names(&store));
}

/// What is deleted, and what is there already, is found under the names of the template, earlier ones included.
#[test]
fn files_are_found_again_under_their_templates() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("key");
    store.bench.write("a.json", lines(0..100));
    let url = store.url("p");
    let run = |args: &[&str]| store.run(&[&["a.json", "-b", "30", "-o", &url][..], args].concat());
    let (x, y) = ("output.key=x/{path}/part-{start}", "output.key=y/");
    run(&["--set", x]).expect(0, &[]);
    assert!(names(&store).iter().all(|name| name.starts_with("p/processed/x/a.json/part-0")));
    run(&["--set", y]).expect(2, &["key was x/{path}/part-{start} and is y/ now", "--fresh"]);
    run(&["--set", x, "--state", "none"]).expect(2, &["p/processed/x/a.json/part-0", "is there already"]);
    run(&["--set", y, "--fresh"]).expect(0, &[]);
    assert!(
        names(&store).iter().all(|name| name.starts_with("p/processed/y/a.json/0")),
        "{:?}",
        names(&store)
    );
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..100)));
    let deep = ["d".repeat(250), "e".repeat(250), "f".repeat(250), "g".repeat(250)].join("/");
    std::fs::create_dir_all(store.bench.path(&deep)).expect("it can be made");
    store.bench.write(&format!("{deep}/a.json"), lines(0..1));
    store.run(&["d".repeat(250).as_str(), "-o", &url]).expect(2, &["bytes; expected 1024 at most"]);
}
