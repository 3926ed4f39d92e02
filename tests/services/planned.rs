//! Kafka to a directory stores nothing twice: the ends of batches are committed before the batches are published.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::flow::Flow;
use crate::kafka::Kafka;
use crate::records::Feeder;
use crate::runs::{Running, count, until};

/// How many batches are stored.
fn files(flow: &Flow<'_>) -> usize {
    count(&flow.bench.path("out"), ".ndjson")
}

/// Killed again and again while records come in, and started again by the same command: each record stands in one
/// file. Batches that a dead run published beyond its last commit are made again at the same ends.
#[test]
fn sigkill_stores_nothing_twice_in_a_directory() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "planned", 3);
    let feeder = Feeder::start(kafka, &flow.topic, 3, Duration::from_millis(3));
    for _ in 0..6 {
        let before = files(&flow);
        let run = flow.start(&["-o", "out", "-b", "7"]);
        until("the run stores", || files(&flow) > before + 15);
        run.kill();
    }
    feeder.stop();
    flow.to_dir();
    flow.is_stored_once();
}

/// Members that are killed, leave and join while records flow, all into one directory.
#[test]
fn members_come_and_go_and_store_nothing_twice_in_a_directory() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "shared-dir", 6);
    let feeder = Feeder::start(kafka, &flow.topic, 6, Duration::from_millis(3));
    let join = || flow.start(&["-o", "out", "-b", "7"]);
    let works = || {
        let before = files(&flow);
        until("the group stores", || files(&flow) > before + 15);
    };
    let mut members: Vec<Running> = vec![join(), join()];
    works();
    members.push(join());
    works();
    members.remove(0).kill();
    works();
    members.push(join());
    works();
    members.remove(0).kill();
    works();
    feeder.stop();
    drop(members);
    flow.to_dir();
    flow.is_stored_once();
}

/// A member that is frozen for longer than its session wakes up as nobody. What it had in hand it either publishes
/// as its successor did, or not at all.
#[test]
fn a_frozen_member_stores_nothing_twice_in_a_directory() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "frozen-dir", 4);
    let feeder = Feeder::start(kafka, &flow.topic, 4, Duration::from_millis(3));
    let join = || flow.start(&["-o", "out", "-b", "7"]);
    let works = || {
        let before = files(&flow);
        until("the group stores", || files(&flow) > before + 30);
    };
    let (first, second) = (join(), join());
    let signal = |signal| {
        let pid = Pid::from_raw(first.id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).expect("it runs");
    };
    works();
    for _ in 0..2 {
        signal(Signal::STOP);
        // The fault is a length of time: the session lasts three seconds.
        std::thread::sleep(Duration::from_secs(5));
        works();
        signal(Signal::CONT);
        works();
    }
    feeder.stop();
    for member in [first, second] {
        member.signal(Signal::TERM);
        member.ended().expect(0, &[]);
    }
    flow.to_dir();
    flow.is_stored_once();
}

/// A run to the end that has done its own part waits for what another member has read and not stored.
#[test]
fn a_run_to_the_end_waits_for_what_others_have_in_hand() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "waits", 4);
    kafka.fill(&flow.topic, 4, 400);
    // Its batches stay open until it is told to stop.
    let first = flow.start(&["-o", "out", "--set", "processing.batch_wait=1h"]);
    first.heard("reading from offset");
    let mut second = flow.start(&["-o", "out", "--until", "end"]);
    until("the second one stores its part", || files(&flow) > 0);
    // The fault is that it ends too early: it asks twice a second.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(2) {
        assert!(!second.is_over(), "it did not wait: {}", second.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    first.signal(Signal::TERM);
    first.ended().expect(0, &[]);
    second.ended().expect(0, &[]);
    flow.is_stored_once();
}
