//! All or nothing, with both versions of transactions (KIP-98, KIP-890).

use std::sync::atomic::{AtomicI32, Ordering};

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    ApiKey, EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, add_partitions_to_txn_response as added,
    txn_offset_commit_response as committed,
};
use parking_lot::Mutex;

use super::*;
use crate::error::Retry;
use crate::kafka::fake::{Asked, Reply};
use crate::kafka::group::Identity;
use world::{State, refuse};

/// The requests that can fail in a transaction.
const STEPS: [ApiKey; 6] = [
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::Produce,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

fn transactional() -> ProducerSettings {
    let of = Transactional { id: "mover".into(), timeout: Duration::from_secs(60) };
    ProducerSettings { transactional: Some(of), ..settings() }
}

fn world(
    level: i16,
    nodes: usize,
    script: impl FnMut(&mut State, i32, &Asked) -> Option<Reply> + Send + 'static,
) -> World {
    let world = World::start(nodes, &[1, 1], script);
    world.with(|state| {
        state.level = level;
        state.coordinators = (nodes as i32, nodes as i32);
    });
    world
}

fn member() -> Identity {
    Identity { group: "g".into(), generation: 4, member: "me".into(), instance: None }
}

fn offsets(to: i64) -> Vec<GroupOffset> {
    let of = TopicPartition::new("in", 0);
    vec![GroupOffset { of, offset: to, leader_epoch: -1, metadata: format!("at {to}") }]
}

/// One transaction of two records.
fn move_two(producer: &mut Producer, out: Output, values: [&str; 2], to: i64) -> Result<Ended> {
    producer.begin()?;
    for value in values {
        producer.append(out, message(Some("k"), value))?;
    }
    producer.commit(&offsets(to), Some(&member()))
}

/// What counts: the records of both partitions, and the offset.
fn counted(world: &World) -> (Vec<String>, Option<i64>) {
    let place = ("in".to_string(), 0);
    let offset = world.with(|state| state.offsets.get(&place).map(|found| found.0));
    ([world.values(0), world.values(1)].concat(), offset)
}

fn code_of(asked: &Asked, code: i16) -> Reply {
    match asked.key {
        ApiKey::Produce => refuse(asked, code),
        ApiKey::InitProducerId => {
            asked.answer::<InitProducerIdRequest>(&InitProducerIdResponse::default().with_error_code(code))
        }
        ApiKey::AddPartitionsToTxn => {
            let partition =
                added::AddPartitionsToTxnPartitionResult::default().with_partition_error_code(code);
            let other = added::AddPartitionsToTxnPartitionResult::default().with_partition_error_code(55);
            let topic = added::AddPartitionsToTxnTopicResult::default()
                .with_results_by_partition(vec![other, partition]);
            asked.answer::<AddPartitionsToTxnRequest>(
                &AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![topic]),
            )
        }
        ApiKey::AddOffsetsToTxn => {
            asked.answer::<AddOffsetsToTxnRequest>(&AddOffsetsToTxnResponse::default().with_error_code(code))
        }
        ApiKey::TxnOffsetCommit => {
            let partition = committed::TxnOffsetCommitResponsePartition::default().with_error_code(code);
            let topic = committed::TxnOffsetCommitResponseTopic::default().with_partitions(vec![partition]);
            asked.answer::<TxnOffsetCommitRequest>(
                &TxnOffsetCommitResponse::default().with_topics(vec![topic]),
            )
        }
        ApiKey::EndTxn => asked.answer::<EndTxnRequest>(&EndTxnResponse::default().with_error_code(code)),
        key => panic!("unexpected {key:?}"),
    }
}

/// Answers the first request of `step` from the second transaction on with `code`.
fn failing(level: i16, step: ApiKey, code: i16) -> (World, Arc<AtomicI32>) {
    let armed = Arc::new(AtomicI32::new(0));
    let left = armed.clone();
    let world = world(level, 2, move |_, _, asked| {
        (asked.key == step && left.load(Ordering::SeqCst) > 0).then(|| {
            left.fetch_sub(1, Ordering::SeqCst);
            code_of(asked, code)
        })
    });
    (world, armed)
}

#[test]
fn records_and_offsets_count_together() {
    for level in [1, 2] {
        let world = world(level, 2, |_, _, _| None);
        let (mut producer, out) = producer(&world, transactional());
        for (values, to) in [(["a", "b"], 2), (["c", "d"], 4)] {
            assert_eq!(move_two(&mut producer, out, values, to).unwrap(), Ended::Committed);
        }
        assert_eq!(counted(&world), (["a", "b", "c", "d"].map(String::from).to_vec(), Some(4)));
        let implicit = level == 2;
        assert_eq!(world.calls(ApiKey::AddPartitionsToTxn).is_empty(), implicit);
        assert_eq!(world.calls(ApiKey::AddOffsetsToTxn).is_empty(), implicit);
        assert!(world.calls(ApiKey::Produce).iter().all(|call| (call.1 >= 12) == implicit));
        // The epoch rises with every end in the second version only.
        let rows = world.with(|state| [state.rows(0), state.rows(1)].concat());
        let mut epochs: Vec<_> = rows.iter().map(|row| row.producer.1).collect();
        epochs.dedup();
        assert_eq!(epochs.len(), level as usize);
        let metadata = world.with(|state| state.offsets[&("in".to_string(), 0)].1.clone());
        assert_eq!(metadata, "at 4");
    }
}

#[test]
fn an_aborted_transaction_does_not_count_and_the_next_one_does() {
    for level in [1, 2] {
        let world = world(level, 2, |_, _, _| None);
        let (mut producer, out) = producer(&world, transactional());
        producer.begin().unwrap();
        put(&mut producer, out, &["x"]);
        producer.flush().unwrap();
        producer.abort().unwrap();
        assert_eq!(move_two(&mut producer, out, ["a", "b"], 2).unwrap(), Ended::Committed);
        assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
        // Nothing was sent: there is nothing to end.
        let ends = world.calls(ApiKey::EndTxn).len();
        producer.begin().unwrap();
        put(&mut producer, out, &["x"]);
        producer.abort().unwrap();
        producer.begin().unwrap();
        assert_eq!(producer.commit(&[], None).unwrap(), Ended::Committed);
        assert_eq!(world.calls(ApiKey::EndTxn).len(), ends);
    }
}

#[test]
fn every_retriable_code_of_every_request_is_tried_again() {
    for level in [1, 2] {
        for step in STEPS {
            for code in (0..140).map(Code).filter(|code| code.retry() == Retry::Transient) {
                let (world, armed) = failing(level, step, code.0);
                let (mut producer, out) = producer(&world, transactional());
                armed.store(1, Ordering::SeqCst);
                let ended = move_two(&mut producer, out, ["a", "b"], 2);
                assert_eq!(ended.unwrap(), Ended::Committed, "{step:?} {code}");
                assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
            }
        }
    }
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    for level in [1, 2] {
        for step in STEPS {
            let mut dropped = false;
            let world = world(level, 2, move |state, node, asked| {
                (asked.key == step && !std::mem::replace(&mut dropped, true)).then(|| {
                    state.serve(node, asked);
                    Reply::Cut
                })
            });
            let (mut producer, out) = producer(&world, transactional());
            for (values, to) in [(["a", "b"], 2), (["c", "d"], 4)] {
                assert_eq!(move_two(&mut producer, out, values, to).unwrap(), Ended::Committed, "{step:?}");
            }
            let all = ["a", "b", "c", "d"].map(String::from).to_vec();
            assert_eq!(counted(&world), (all, Some(4)), "{step:?}");
        }
    }
}

#[test]
fn codes_that_fence_are_final() {
    for level in [1, 2] {
        for step in STEPS {
            for code in [47, 90] {
                if (step, code) == (ApiKey::Produce, 47) {
                    continue;
                }
                let (world, armed) = failing(level, step, code);
                let (mut producer, out) = producer(&world, transactional());
                armed.store(1, Ordering::SeqCst);
                let Err(error) = move_two(&mut producer, out, ["a", "b"], 2) else {
                    assert_eq!(armed.load(Ordering::SeqCst), 1, "{step:?} is not asked at this level");
                    continue;
                };
                assert!(matches!(error, Error::Fenced { .. }), "{step:?}: {error}");
                assert_eq!(error.retry(), Retry::Permanent);
                assert!(error.to_string().contains("transactional id mover took over"), "{error}");
                if step != ApiKey::InitProducerId {
                    assert!(matches!(producer.abort(), Err(Error::Fenced { .. })), "{step:?}");
                    assert!(matches!(producer.begin(), Err(Error::Fenced { .. })), "{step:?}");
                    assert_eq!(counted(&world), (vec![], None));
                }
            }
        }
    }
}

#[test]
fn codes_that_can_be_aborted_are_and_the_next_try_counts() {
    for level in [1, 2] {
        for (step, code) in [
            (ApiKey::Produce, 45),
            (ApiKey::Produce, 47),
            (ApiKey::Produce, 48),
            (ApiKey::Produce, 49),
            (ApiKey::Produce, 59),
            (ApiKey::Produce, 120),
            (ApiKey::AddPartitionsToTxn, 59),
            (ApiKey::AddPartitionsToTxn, 120),
            (ApiKey::AddOffsetsToTxn, 49),
            (ApiKey::AddOffsetsToTxn, 120),
            (ApiKey::TxnOffsetCommit, 120),
            (ApiKey::EndTxn, 120),
        ] {
            let (world, armed) = failing(level, step, code);
            let (mut producer, out) = producer(&world, transactional());
            armed.store(1, Ordering::SeqCst);
            if let Err(error) = move_two(&mut producer, out, ["a", "b"], 2) {
                assert!(matches!(error, Error::Abortable { .. }), "{step:?} {code}: {error}");
                assert_eq!(error.retry(), Retry::Transient);
                assert!(!producer.is_committing());
                producer.abort().unwrap();
                assert_eq!(counted(&world), (vec![], None));
                assert_eq!(move_two(&mut producer, out, ["a", "b"], 2).unwrap(), Ended::Committed);
            } else {
                assert_eq!(armed.load(Ordering::SeqCst), 1, "{step:?} is not asked at this level");
            }
            assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
        }
    }
}

#[test]
fn all_other_codes_are_permanent() {
    for level in [1, 2] {
        for step in STEPS {
            for code in [31, 35, 42, 50, 53, 29, 30, 43, 999] {
                let (world, armed) = failing(level, step, code);
                let (mut producer, out) = producer(&world, transactional());
                armed.store(i32::MAX, Ordering::SeqCst);
                let Err(error) = move_two(&mut producer, out, ["a", "b"], 2) else {
                    assert_eq!(armed.load(Ordering::SeqCst), i32::MAX, "{step:?} is not asked at this level");
                    continue;
                };
                assert_eq!(error.retry(), Retry::Permanent, "{step:?}: {error}");
                assert!(error.to_string().contains(Code(code).name()), "{step:?}: {error}");
                assert_eq!(counted(&world), (vec![], None));
            }
        }
    }
}

#[test]
fn a_member_that_lost_its_place_aborts_and_says_so() {
    for level in [1, 2] {
        for code in [22, 25, 82] {
            let (world, armed) = failing(level, ApiKey::TxnOffsetCommit, code);
            let (mut producer, out) = producer(&world, transactional());
            armed.store(1, Ordering::SeqCst);
            let ended = move_two(&mut producer, out, ["a", "b"], 2).unwrap();
            assert_eq!(ended, Ended::Refused(Code(code)));
            assert_eq!(counted(&world), (vec![], None));
            // At once again.
            assert_eq!(move_two(&mut producer, out, ["a", "b"], 2).unwrap(), Ended::Committed);
            assert_eq!(counted(&world).0, ["a", "b"]);
        }
    }
}

#[test]
fn a_coordinator_that_moves_between_offsets_and_end_is_found() {
    for level in [1, 2] {
        let mut moved = false;
        let world = world(level, 2, move |state, _, asked| {
            if asked.key == ApiKey::TxnOffsetCommit && !std::mem::replace(&mut moved, true) {
                // After this request: the transactions' coordinator, and after it the group's.
                state.coordinators = (1, 2);
            }
            None
        });
        let (mut producer, out) = producer(&world, transactional());
        assert_eq!(move_two(&mut producer, out, ["a", "b"], 2).unwrap(), Ended::Committed);
        assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
        let nodes: Vec<_> = world.calls(ApiKey::EndTxn).into_iter().map(|call| call.0).collect();
        assert_eq!(nodes, [2, 1]);
    }
}

/// A machine that is gone leads and coordinates nothing any more: whoever found that out waits for it once.
#[test]
fn a_node_that_falls_silent_is_waited_for_once() {
    for last in [ApiKey::Produce, ApiKey::TxnOffsetCommit, ApiKey::EndTxn] {
        let (began, heard) = (Arc::new(AtomicI32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, seen) = (began.clone(), heard.clone());
        let mut gone = false;
        let world = World::start(3, &[1, 1], move |state, node, asked| {
            if node == 1 && asked.key == last && count.load(Ordering::SeqCst) == 2 {
                gone = true;
                (state.leaders, state.coordinators) = (vec![(2, 1), (2, 1)], (2, 2));
            }
            (node == 1 && gone).then(|| {
                seen.lock().push(asked.key);
                Reply::Silence
            })
        });
        let (mut producer, out) = producer_waiting(&world, transactional(), Duration::from_secs(3));
        for (number, values) in [(1, ["a", "b"]), (2, ["c", "d"]), (3, ["e", "f"])] {
            began.store(number, Ordering::SeqCst);
            let ended = move_two(&mut producer, out, values, i64::from(number)).unwrap();
            assert_eq!(ended, Ended::Committed);
        }
        assert_eq!(counted(&world), (["a", "b", "c", "d", "e", "f"].map(String::from).to_vec(), Some(3)));
        assert_eq!(*heard.lock(), [last]);
    }
}

#[test]
fn whoever_comes_later_fences_the_earlier() {
    for level in [1, 2] {
        let world = world(level, 2, |_, _, _| None);
        let (mut early, out) = producer(&world, transactional());
        move_two(&mut early, out, ["a", "b"], 2).unwrap();
        early.begin().unwrap();
        put(&mut early, out, &["x"]);
        early.flush().unwrap();
        let (mut late, other) = producer(&world, transactional());
        move_two(&mut late, other, ["c", "d"], 4).unwrap();
        let error = early.commit(&offsets(3), Some(&member())).unwrap_err();
        assert!(matches!(error, Error::Fenced { .. }), "{error}");
        assert_eq!(counted(&world), (["a", "b", "c", "d"].map(String::from).to_vec(), Some(4)));
    }
}

#[test]
fn a_commit_whose_outcome_is_not_known_is_not_given_up() {
    for level in [1, 2] {
        let deaf = Arc::new(AtomicI32::new(1));
        let now = deaf.clone();
        let world = world(level, 2, move |state, node, asked| {
            (asked.key == ApiKey::EndTxn && now.load(Ordering::SeqCst) == 1).then(|| {
                state.serve(node, asked);
                Reply::Cut
            })
        });
        let short = ProducerSettings { delivery_timeout: Duration::from_secs(2), ..transactional() };
        let (mut producer, out) = producer(&world, short);
        let error = move_two(&mut producer, out, ["a", "b"], 2).unwrap_err();
        assert!(matches!(error, Error::GaveUp { .. }), "{error}");
        assert!(producer.is_committing());
        assert!(producer.abort().is_err() && producer.begin().is_err());
        deaf.store(0, Ordering::SeqCst);
        producer.finish().unwrap();
        assert!(!producer.is_committing());
        assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
        assert_eq!(move_two(&mut producer, out, ["c", "d"], 4).unwrap(), Ended::Committed);
    }
}

#[test]
fn an_abort_that_is_interrupted_is_finished_by_the_next_begin() {
    for level in [1, 2] {
        let (world, armed) = failing(level, ApiKey::EndTxn, 14);
        let short = ProducerSettings { delivery_timeout: Duration::from_secs(2), ..transactional() };
        let (mut producer, out) = producer(&world, short);
        producer.begin().unwrap();
        put(&mut producer, out, &["x"]);
        producer.flush().unwrap();
        armed.store(i32::MAX, Ordering::SeqCst);
        assert!(matches!(producer.abort(), Err(Error::GaveUp { .. })));
        armed.store(0, Ordering::SeqCst);
        assert_eq!(move_two(&mut producer, out, ["a", "b"], 2).unwrap(), Ended::Committed);
        assert_eq!(counted(&world), (["a", "b"].map(String::from).to_vec(), Some(2)));
    }
}
