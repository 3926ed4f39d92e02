//! Once each, in order, whatever happens on the way.

use std::sync::Arc;

use kafka_protocol::messages::ApiKey;
use parking_lot::Mutex;

use super::*;
use crate::error::Retry;
use crate::kafka::fake::{Asked, Reply};
use crate::kafka::wire::Compression;
use world::{State, refuse};

#[test]
fn records_come_to_their_partitions_in_order() {
    for compression in Compression::ALL {
        let world = World::start(2, &[1, 2, 1], |_, _, _| None);
        let (mut producer, out) = producer(&world, ProducerSettings { compression, ..settings() });
        for round in 0..3 {
            for number in 0..50 {
                let (key, value) = (format!("key{number}"), format!("{number}/{round}"));
                producer.append(out, message(Some(&key), &value)).unwrap();
            }
            producer.flush().unwrap();
        }
        for number in 0..50 {
            let partition = partition_for(format!("key{number}").as_bytes(), 3) as usize;
            let ours: Vec<_> = world
                .values(partition)
                .into_iter()
                .filter(|value| value.starts_with(&format!("{number}/")))
                .collect();
            assert_eq!(ours, [0, 1, 2].map(|round| format!("{number}/{round}")));
        }
        assert_eq!((0..3).map(|partition| world.values(partition).len()).sum::<usize>(), 150);
        // One request a leader and flush.
        assert_eq!(world.calls(ApiKey::Produce).len(), 6);
    }
}

#[test]
fn records_without_a_key_fill_one_partition_after_the_other() {
    let world = World::start(1, &[1, 1, 1], |_, _, _| None);
    let (mut producer, out) = producer(&world, settings());
    for _ in 0..3 {
        put(&mut producer, out, &["a", "b"]);
        producer.flush().unwrap();
    }
    assert!((0..3).all(|partition| world.values(partition) == ["a", "b"]));
}

#[test]
fn a_full_batch_is_followed_by_another() {
    let world = World::start(1, &[1], |_, _, _| None);
    let (mut producer, out) = producer(&world, ProducerSettings { max_batch: 500, ..settings() });
    let values: Vec<_> = (0..100).map(|number| format!("{number:0>50}")).collect();
    put(&mut producer, out, &values.iter().map(String::as_str).collect::<Vec<_>>());
    producer.flush().unwrap();
    assert_eq!(world.values(0), values);
    assert!(world.calls(ApiKey::Produce).len() > 10);
}

/// The first Produce is appended, but its acknowledgement is dropped.
#[test]
fn a_lost_acknowledgement_is_no_duplicate() {
    let mut dropped = false;
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::Produce && !std::mem::replace(&mut dropped, true)).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a", "b"]);
    producer.flush().unwrap();
    put(&mut producer, out, &["c"]);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a", "b", "c"]);
    assert_eq!(world.calls(ApiKey::Produce).len(), 3);
    // The same producer and epoch all the time.
    assert!(world.with(|state| state.rows(0)).iter().all(|row| row.producer == (1001, 0)));
}

#[test]
fn an_answer_that_does_not_come_is_no_duplicate() {
    let mut silent = false;
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::Produce && !std::mem::replace(&mut silent, true)).then(|| {
            state.serve(node, asked);
            Reply::Silence
        })
    });
    let (mut producer, out) = producer_waiting(&world, settings(), Duration::from_millis(300));
    put(&mut producer, out, &["a"]);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a"]);
}

/// Refuses the first `times` Produce requests with `code`, appended or not.
#[track_caller]
fn after_code(code: i16, times: usize, appended: bool) -> (World, Result<()>) {
    let mut left = times;
    let world = World::start(1, &[1], move |state, node, asked| {
        if asked.key != ApiKey::Produce || left == 0 {
            return None;
        }
        left -= 1;
        if appended {
            state.serve(node, asked);
        }
        Some(refuse(asked, code))
    });
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a", "b"]);
    let outcome = producer.flush();
    (world, outcome)
}

#[test]
fn every_retriable_code_is_tried_again_and_stores_once() {
    for code in (-1..140).map(Code).filter(|code| code.retry() == Retry::Transient) {
        let (world, outcome) = after_code(code.0, 2, false);
        outcome.unwrap();
        assert_eq!(world.values(0), ["a", "b"], "{code}");
    }
    // These may be sent after the batch was appended.
    for code in [7, 13, 20] {
        let (world, outcome) = after_code(code, 1, true);
        outcome.unwrap();
        assert_eq!(world.values(0), ["a", "b"], "{code}");
    }
}

#[test]
fn every_other_code_is_permanent_and_names_the_partition() {
    let handled = [0, 10, 18, 45, 46, 47, 59];
    for code in (-1..140).map(Code) {
        if code.retry() == Retry::Transient || handled.contains(&code.0) {
            continue;
        }
        let (world, outcome) = after_code(code.0, usize::MAX, false);
        let error = outcome.unwrap_err();
        assert_eq!(error.retry(), Retry::Permanent, "{error}");
        let text = error.to_string();
        assert!(code.0 == 90 || text.contains("out-0") && text.contains(code.name()), "{text}");
        assert_eq!(world.calls(ApiKey::Produce).len(), 1, "{code}");
    }
}

#[test]
fn a_duplicate_is_success() {
    let (world, outcome) = after_code(46, 1, true);
    outcome.unwrap();
    assert_eq!(world.values(0), ["a", "b"]);
    assert_eq!(world.calls(ApiKey::Produce).len(), 1);
}

#[test]
fn lost_numbers_go_on_under_a_new_epoch_if_the_batch_was_never_in_doubt() {
    for code in [45, 47, 59] {
        let (world, outcome) = after_code(code, 1, false);
        outcome.unwrap();
        assert_eq!(world.values(0), ["a", "b"], "{code}");
        assert!(world.with(|state| state.rows(0)).iter().all(|row| row.producer == (1001, 1)));
    }
}

/// The broker loses acknowledged records: what comes next is stored, under a new epoch, once.
#[test]
fn a_log_that_lost_its_end_takes_the_next_records() {
    let world = World::start(1, &[1, 1], |_, _, _| None);
    let (mut producer, out) = producer(&world, settings());
    for values in [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]] {
        put(&mut producer, out, &values);
        producer.flush().unwrap();
    }
    let sticky = |world: &World| world.values(0).concat() + &world.values(1).concat();
    assert_eq!(sticky(&world).len(), 8);
    for partition in [0, 1] {
        world.with(|state| state.lose(partition, 2));
    }
    for values in [["i", "j"], ["k", "l"]] {
        put(&mut producer, out, &values);
        producer.flush().unwrap();
    }
    let mut left: Vec<char> = sticky(&world).chars().collect();
    left.sort_unstable();
    assert_eq!(left.into_iter().collect::<String>(), "abcdijkl");
}

#[test]
fn lost_numbers_of_a_batch_in_doubt_are_an_error_and_no_silent_duplicate() {
    let mut count = 0;
    let world = World::start(1, &[1], move |state, node, asked| {
        if asked.key != ApiKey::Produce {
            return None;
        }
        count += 1;
        if count == 1 {
            state.serve(node, asked);
            return Some(Reply::Cut);
        }
        Some(refuse(asked, 45))
    });
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a"]);
    let error = producer.flush().unwrap_err();
    assert!(matches!(error, Error::Uncertain { code: Code(45), .. }), "{error}");
    assert_eq!(world.values(0), ["a"]);
}

#[test]
fn a_leader_that_moves_during_a_flush_is_found() {
    let mut count = 0;
    let world = World::start(3, &[1, 2], move |state, _, asked| {
        if asked.key == ApiKey::Produce {
            count += 1;
            if count == 2 {
                // From here on the two have changed places.
                state.leaders = vec![(3, 1), (1, 1)];
            }
        }
        None
    });
    let (mut producer, out) = producer(&world, ProducerSettings { max_batch: 300, ..settings() });
    let values: Vec<_> = (0..60).map(|number| format!("{number:0>20}")).collect();
    for value in &values {
        producer.append(out, message(Some(value), value)).unwrap();
    }
    producer.flush().unwrap();
    let mut all = world.values(0);
    assert!(all.is_sorted() && world.values(1).is_sorted());
    all.extend(world.values(1));
    all.sort_unstable();
    assert_eq!(all, values);
    let told = producer.cluster().options().services.told();
    assert!(told[&("kafka", "NOT_LEADER_OR_FOLLOWER")].retries >= 1, "{told:?}");
}

/// A node that is cut off from the others: it has not heard that another leads.
fn behind(state: &mut State, node: i32, asked: &Asked) -> Option<Reply> {
    (node == 1 && asked.key == ApiKey::Metadata).then(|| {
        let leaders = std::mem::replace(&mut state.leaders, vec![(1, 0)]);
        let reply = state.serve(node, asked);
        state.leaders = leaders;
        reply
    })
}

#[test]
fn a_node_that_names_a_leader_who_is_none_is_not_the_only_one_that_is_asked() {
    let world = World::start(2, &[1], behind);
    // The other is known from the first answer only.
    let cluster = cluster_at(vec![world.addresses[0].clone()], Duration::from_secs(20));
    let soon = ProducerSettings { delivery_timeout: Duration::from_secs(5), ..settings() };
    let mut producer = Producer::new(cluster, soon);
    let out = producer.output(TOPIC).unwrap();
    put(&mut producer, out, &["a"]);
    producer.flush().unwrap();
    world.with(|state| state.leaders = vec![(2, 1)]);
    put(&mut producer, out, &["b"]);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a", "b"]);
}

#[test]
fn a_node_that_goes_away_is_left() {
    let world = World::start(2, &[1], |state, node, asked| {
        if node == 1 && asked.key == ApiKey::Produce {
            state.leaders = vec![(2, 1)];
            return Some(Reply::Cut);
        }
        None
    });
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a"]);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a"]);
}

/// A machine that is gone closes no connection: all that is sent to it waits for the whole timeout.
#[test]
fn a_node_that_falls_silent_is_asked_nothing_more() {
    let (mut gone, heard) = (false, Arc::new(Mutex::new(Vec::new())));
    let seen = heard.clone();
    let world = World::start(3, &[1], move |state, node, asked| {
        if node == 1 && asked.key == ApiKey::Produce && !state.values(0).is_empty() {
            gone = true;
            state.leaders = vec![(2, 1)];
        }
        (node == 1 && gone).then(|| {
            seen.lock().push(asked.key);
            Reply::Silence
        })
    });
    // It tells about the cluster, too; the others are known from its answer only.
    let cluster = cluster_at(vec![world.addresses[0].clone()], Duration::from_secs(3));
    let mut producer = Producer::new(cluster, settings());
    let out = producer.output(TOPIC).unwrap();
    for value in ["a", "b"] {
        put(&mut producer, out, &[value]);
        producer.flush().unwrap();
    }
    assert_eq!(world.values(0), ["a", "b"]);
    assert_eq!(*heard.lock(), [ApiKey::Produce]);
}

/// A topic that takes batches of `most` bytes.
fn taking(most: usize) -> World {
    World::start(1, &[1], move |_, _, asked| {
        if asked.key != ApiKey::Produce {
            return None;
        }
        let request = asked.request::<kafka_protocol::messages::ProduceRequest>();
        let size = request.topic_data[0].partition_data[0].records.as_ref().unwrap().len();
        (size > most).then(|| refuse(asked, 10))
    })
}

#[test]
fn a_batch_that_is_too_large_is_split_until_it_fits() {
    let world = taking(300);
    let plain = ProducerSettings { compression: Compression::None, ..settings() };
    let (mut producer, out) = producer(&world, plain);
    let values: Vec<_> = (0..40).map(|number| format!("{number:0>30}")).collect();
    put(&mut producer, out, &values.iter().map(String::as_str).collect::<Vec<_>>());
    producer.flush().unwrap();
    assert_eq!(world.values(0), values);
    assert!(world.with(|state| state.rows(0)).iter().all(|row| row.producer == (1001, 0)));
}

#[test]
fn one_record_that_is_too_large_is_named() {
    let world = taking(300);
    let plain = ProducerSettings { compression: Compression::None, ..settings() };
    let (mut producer, out) = producer(&world, plain);
    producer.append(out, message(Some("small"), "1")).unwrap();
    producer.append(out, message(Some("my\nkey"), &"x".repeat(1000))).unwrap();
    let error = producer.flush().unwrap_err();
    assert_eq!(error.retry(), Retry::Permanent);
    let text = error.to_string();
    assert!(text.contains("1015 bytes for out-0 with key \"my\\nkey\""), "{text}");
    assert_eq!(world.values(0), ["1"]);
}

#[test]
fn what_waits_at_the_deadline_is_sent_under_its_number_later() {
    let world = World::start(1, &[1], |state, node, asked| {
        (asked.key == ApiKey::Produce && state.level == 2).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let short = ProducerSettings { delivery_timeout: Duration::from_secs(2), ..settings() };
    let (mut producer, out) = producer(&world, short);
    put(&mut producer, out, &["a"]);
    let error = producer.flush().unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Transient);
    // It was stored by the first try.
    world.with(|state| state.level = 1);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a"]);
}

#[test]
fn what_is_forgotten_never_gives_its_number_to_others() {
    let world = World::start(1, &[1], |state, node, asked| {
        (asked.key == ApiKey::Produce && state.level == 2).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let short = ProducerSettings { delivery_timeout: Duration::from_secs(2), ..settings() };
    let (mut producer, out) = producer(&world, short);
    put(&mut producer, out, &["a"]);
    producer.flush().unwrap_err();
    producer.forget();
    world.with(|state| state.level = 1);
    put(&mut producer, out, &["b"]);
    producer.flush().unwrap();
    assert_eq!(world.values(0), ["a", "b"]);
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let world = World::start(1, &[1], |_, _, _| None);
    let soon = ProducerSettings { topic_timeout: Duration::from_millis(50), ..settings() };
    let (mut producer, _) = producer(&world, soon);
    let error = producer.output("nowhere").unwrap_err();
    assert_eq!(error.to_string(), "topic nowhere does not exist; create it, or correct its name");
    assert_eq!(crate::Error::from(error).exit_code(), 4);
}

#[test]
fn a_throttled_broker_is_left_alone() {
    let mut first = true;
    let world = World::start(1, &[1], move |_, _, asked| {
        (asked.key == ApiKey::Produce && std::mem::take(&mut first)).then(|| {
            let answer = kafka_protocol::messages::ProduceResponse::default()
                .with_throttle_time_ms(300)
                .with_responses(vec![]);
            asked.answer::<kafka_protocol::messages::ProduceRequest>(&answer)
        })
    });
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a"]);
    let begun = Instant::now();
    producer.flush().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.values(0), ["a"]);
}

#[test]
fn an_abort_ends_a_flush() {
    let world = World::start(1, &[1], |_, _, asked| (asked.key == ApiKey::Produce).then_some(Reply::Silence));
    let (mut producer, out) = producer(&world, settings());
    put(&mut producer, out, &["a"]);
    let stop = producer.cluster().stop().clone();
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| producer.flush());
        wait("the request came", || !world.calls(ApiKey::Produce).is_empty());
        stop.abort();
        assert!(matches!(flushing.join().unwrap(), Err(Error::HungUp)));
    });
}
