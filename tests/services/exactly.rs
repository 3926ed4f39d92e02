//! From Kafka to Kafka: exactly once, in order, and read by Kafka's own consumer.

use std::collections::HashMap;
use std::time::Duration;

use pipeline::kafka::wire::Compression;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::flow::{Flow, Times, id, same_ids, settings};
use crate::kafka::{Kafka, unique};
use crate::records::{Feeder, Id, Row};
use crate::runs::{Running, until};

/// A record of the output topic as Kafka's console consumer prints it.
struct Printed {
    partition: String,
    headers: String,
    key: String,
    value: String,
}

fn printed(line: &str) -> Printed {
    let mut parts = line.splitn(5, '\t').map(str::to_string);
    let mut next = || parts.next().unwrap_or_else(|| panic!("not five parts: {line}"));
    let (partition, _, headers, key, value) = (next(), next(), next(), next(), next());
    Printed { partition, headers, key, value }
}

/// Every record of the flow's topic is in `output` exactly once, as Kafka's own consumer of committed records sees
/// it, and those of one partition and key are in order. Returns them.
#[track_caller]
fn is_there_once(flow: &Flow<'_>, output: &str) -> Vec<Printed> {
    let expected = flow.kafka.ids(&flow.topic);
    let read = flow.kafka.consume(output, expected.len());
    let mut found: Vec<Id> = Vec::new();
    let mut last: HashMap<(&String, &String, u32), u64> = HashMap::new();
    let read: Vec<Printed> = read.iter().map(|line| printed(line)).collect();
    for line in &read {
        let value: Value = serde_json::from_str(&line.value).expect("it is an envelope");
        let (partition, offset) = id(&value, &flow.topic);
        assert_eq!(value["metadata"]["key"], line.key, "the key is carried over");
        found.push((partition, offset));
        let before = last.insert((&line.partition, &line.key, partition), offset);
        assert!(before.is_none_or(|before| before < offset), "{before:?} came before {offset}");
    }
    same_ids(found, &expected, Times::Once);
    read
}

fn output(flow: &Flow<'_>, partitions: i32) -> (String, String) {
    let output = flow.kafka.topic(&format!("{}-out", flow.topic), partitions);
    (format!("kafka:{output}"), output)
}

/// How much was written to a topic, markers included.
fn size(kafka: &Kafka, topic: &str) -> i64 {
    kafka.ends(topic).iter().sum()
}

#[test]
fn a_topic_is_copied_with_keys_headers_and_times() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "copy", 3);
    let (place, output) = output(&flow, 3);
    kafka.fill(&flow.topic, 3, 300);
    let headers = vec![("trace".to_string(), Some(b"7".to_vec()))];
    let row = Row { headers, ..Row::numbered(300) };
    kafka.write(&flow.topic, 1, Compression::Snappy, &[row]);
    flow.until_end(&["-o", &place]).expect(0, &[]);
    // There is nothing new.
    flow.until_end(&["-o", &place]).expect(0, &[]);
    let copied = is_there_once(&flow, &output);
    assert_eq!(copied.iter().filter(|line| line.headers == "trace:7").count(), 1);
}

/// Bare values: what was null stays null, keys go where Java's producer sends them.
#[test]
fn bare_values_stay_what_they_are() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "bare", 1);
    let (place, output) = output(&flow, 5);
    let javas = kafka.topic("javas", 5);
    let rows: String = (0..50).map(|number| format!("NULL\tkey-{number}\t{{\"n\": {number}}}\n")).collect();
    kafka.produce(&flow.topic, "none", &rows);
    kafka.produce(&javas, "none", &rows);
    kafka.write(&flow.topic, 0, Compression::None, &[Row { value: None, ..Row::numbered(3) }]);
    let bare = settings(&["output.envelope=none"]);
    flow.until_end(&[&["-o", &place], &bare[..]].concat()).expect(0, &[]);
    let places = |lines: Vec<String>| {
        let place = |line: &String| (printed(line).key, printed(line).partition, printed(line).value);
        let mut places: Vec<_> = lines.iter().map(place).filter(|(_, _, value)| value != "null").collect();
        places.sort();
        places
    };
    let ours = kafka.consume(&output, 51);
    assert_eq!(ours.iter().filter(|line| printed(line).value == "null").count(), 1);
    assert_eq!(places(ours), places(kafka.consume(&javas, 50)));
}

/// Killed again and again while records come in, and started again by the same command.
#[test]
fn sigkill_leaves_no_gap_and_nothing_twice() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "killed", 3);
    let (place, output) = output(&flow, 3);
    let feeder = Feeder::start(kafka, &flow.topic, 3, Duration::from_millis(3));
    for _ in 0..5 {
        let run = flow.start(&["-o", &place, "-b", "40"]);
        let before = size(kafka, &output);
        until("the run writes", || size(kafka, &output) > before + 150);
        run.kill();
    }
    feeder.stop();
    flow.until_end(&["-o", &place]).expect(0, &[]);
    is_there_once(&flow, &output);
}

/// Two to four members that join and leave, politely and not, while records flow.
#[test]
fn members_come_and_go() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "members", 6);
    let (place, output) = output(&flow, 3);
    let feeder = Feeder::start(kafka, &flow.topic, 6, Duration::from_millis(3));
    let join = || flow.start(&["-o", &place, "-b", "40"]);
    let works = || {
        let before = size(kafka, &output);
        until("the group writes", || size(kafka, &output) > before + 100);
    };
    let mut members: Vec<Running> = vec![join(), join()];
    works();
    members.push(join());
    works();
    members.push(join());
    works();
    members.remove(0).kill();
    works();
    let leaving = members.remove(0);
    leaving.heard("reading from offset");
    leaving.signal(Signal::TERM);
    leaving.ended().expect(0, &[]);
    works();
    members.push(join());
    works();
    feeder.stop();
    for member in members {
        member.signal(Signal::TERM);
        member.ended().expect(0, &[]);
    }
    flow.until_end(&["-o", &place]).expect(0, &[]);
    is_there_once(&flow, &output);
}

/// A member that is frozen for longer than its session wakes up as nobody: what it had in hand must not count.
#[test]
fn a_frozen_member_wakes_up_as_a_zombie() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "frozen", 4);
    let (place, output) = output(&flow, 3);
    let feeder = Feeder::start(kafka, &flow.topic, 4, Duration::from_millis(3));
    let (first, second) = (flow.start(&["-o", &place, "-b", "40"]), flow.start(&["-o", &place, "-b", "40"]));
    for member in [&first, &second] {
        member.heard("reading from offset");
    }
    let before = size(kafka, &output);
    until("they write", || size(kafka, &output) > before + 300);
    let signal = |signal| {
        let pid = Pid::from_raw(first.id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).expect("it runs");
    };
    signal(Signal::STOP);
    // The fault is a length of time: the session lasts three seconds.
    std::thread::sleep(Duration::from_secs(5));
    let before = size(kafka, &output);
    until("the other one goes on", || size(kafka, &output) > before + 300);
    signal(Signal::CONT);
    first.heard("joining again");
    let before = size(kafka, &output);
    until("they write on", || size(kafka, &output) > before + 300);
    feeder.stop();
    for member in [first, second] {
        member.signal(Signal::TERM);
        member.ended().expect(0, &[]);
    }
    flow.until_end(&["-o", &place]).expect(0, &[]);
    is_there_once(&flow, &output);
}

#[test]
fn each_batch_is_announced() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "told", 2);
    let notes = kafka.topic("results", 1);
    // In one batch with others: its object is not theirs.
    let bad = Row { value: Some(b"{not json".to_vec()), ..Row::numbered(5) };
    kafka.write(&flow.topic, 0, Compression::None, &[bad]);
    kafka.fill(&flow.topic, 2, 100);
    let notify = format!("kafka.notify.topic={notes}");
    flow.until_end(&["-o", "out", "-b", "50", "--set", &notify]).expect(3, &[]);
    let mut objects = flow.bench.objects("out");
    objects.retain(|name, _| name.starts_with("processed/"));
    let told = kafka.consume(&notes, objects.len());
    let (mut stored, mut rejected) = (0, 0);
    for line in told {
        let note: Value = serde_json::from_str(&printed(&line).value).expect("it is JSON");
        let count = |name: &str| note[name].as_u64().expect("it counts");
        let object = objects.remove(note["key"].as_str().expect("it names the object"));
        assert_eq!(Some(count("bytes")), object.map(|object| object.len() as u64), "{note}");
        assert_eq!(note["failed_key"].is_string(), count("rejected") > 0, "{note}");
        (stored, rejected) = (stored + count("stored"), rejected + count("rejected"));
    }
    assert_eq!((stored, rejected, objects.len()), (200, 1, 0));
}

#[test]
fn dead_letters_go_to_a_topic_with_all_they_had() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "letters", 1);
    let (place, output) = output(&flow, 1);
    let letters = kafka.topic("data-input-failed", 1);
    let headers = vec![("trace".to_string(), Some(b"7".to_vec()))];
    let bad = Row { value: Some(b"{not json".to_vec()), headers, ..Row::numbered(5) };
    kafka.write(&flow.topic, 0, Compression::Lz4, &[Row::numbered(0), bad, Row::numbered(1)]);
    let to = format!("kafka:{letters}");
    let kept = format!("kept in {to}\n");
    flow.until_end(&["-o", &place, "--dead-letter", &to]).expect(3, &[&kept]);
    assert_eq!(kafka.consume(&output, 2).len(), 2);
    let read = kafka.consume(&letters, 1);
    assert_eq!(read.len(), 1);
    let letter = printed(&read[0]);
    assert_eq!((&letter.key[..], &letter.value[..]), ("key-5", "{not json"));
    assert!(letter.headers.starts_with("trace:7,"), "{}", letter.headers);
    assert!(letter.headers.contains("invalid_json"), "{}", letter.headers);
    assert!(letter.headers.contains(&format!("kafka:{}:0:1", flow.topic)), "{}", letter.headers);
}

/// A run that writes nothing more must not keep readers of committed records waiting.
#[test]
fn nothing_stays_open_behind_a_run() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "open", 2);
    let (place, output) = output(&flow, 1);
    kafka.fill(&flow.topic, 2, 100);
    flow.until_end(&["-o", &place]).expect(0, &[]);
    let again =
        Flow { kafka, topic: output.clone(), group: unique("again"), bench: crate::runs::Bench::new() };
    again.to_dir();
    assert_eq!(again.stored().len(), 200);
}
