//! Uploads that the store has given up: nobody knows what became of the batch.

use super::fault::{Act, Faulty};
use super::{Server, sorted};
use crate::kafka::Kafka;
use crate::runs::lines;

const GONE: &str = "<Error><Code>NoSuchUpload</Code><Message>It is not there.</Message></Error>";

/// The first `Complete` is answered so.
fn faulty(server: &Server) -> Faulty {
    let mut left = 1;
    Faulty::new(server, move |asked| {
        if left > 0 && asked.is_complete() {
            left -= 1;
            return Act::Answer(404, "", GONE.into());
        }
        Act::Pass
    })
}

#[test]
fn a_topic_is_read_again_and_stored_once() {
    let (Some(kafka), Some(server)) = (Kafka::shared(), Server::shared()) else { return };
    let faulty = faulty(server);
    let store = server.bucket("gone").by(faulty.endpoint());
    let topic = kafka.topic("gone", 1);
    let lines = lines(0..60_000);
    let text: String = lines.lines().enumerate().map(|(n, line)| format!("NULL\tk{n}\t{line}\n")).collect();
    kafka.produce(&topic, "none", &text);
    let (brokers, url) = (kafka.brokers(), store.url("p"));
    let from = ["-s", "kafka", "--brokers", &brokers, "-t", &topic, "-g", &topic, "--until", "end"];
    let to = ["-o", &url, "--set", "s3.part_size=5MiB"];
    store.run(&[&from[..], &to].concat()).expect(0, &["NoSuchUpload", "is read again from its last commit"]);
    assert_eq!(store.data("p/processed/"), sorted(&lines));
    assert_eq!(store.uploads(), 0, "the first upload is given up");
}

#[test]
fn a_run_of_files_ends_and_the_next_goes_on() {
    let Some(server) = Server::shared() else { return };
    let faulty = faulty(server);
    let store = server.bucket("gone-files").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..60_000));
    let url = store.url("");
    let args = ["a.json", "-o", &url, "--set", "s3.part_size=5MiB"];
    store.run(&args).expect(1, &["NoSuchUpload", "it is not known what became of the batch"]);
    store.run(&args).expect(0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..60_000)));
    assert_eq!(store.uploads(), 0);
}
