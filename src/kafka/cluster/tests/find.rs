use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse,
};

use super::*;
use crate::kafka::fake::versions;

/// A broker whose FindCoordinator goes up to version `most` and answers with these codes, then with itself.
fn coordinating(most: i16, codes: &'static [i16], kind: i8) -> Fake {
    let mut count = 0;
    let port = Arc::new(AtomicUsize::new(0));
    let own = port.clone();
    let fake = Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => {
            let mut versions = versions();
            let find = versions.api_keys.iter_mut().find(|api| api.api_key == ApiKey::FindCoordinator as i16);
            find.unwrap().max_version = most;
            asked.answer::<kafka_protocol::messages::ApiVersionsRequest>(&versions)
        }
        _ => {
            let request = asked.request::<FindCoordinatorRequest>();
            assert_eq!((asked.version, request.key_type), (most, kind));
            let code = codes.get(count).copied().unwrap_or(0);
            count += 1;
            let (host, port) = match code {
                0 => ("localhost".to_string(), own.load(Ordering::SeqCst) as i32),
                _ => (String::new(), -1),
            };
            let answer = FindCoordinatorResponse::default();
            asked.answer::<FindCoordinatorRequest>(&if most >= 4 {
                assert_eq!(request.coordinator_keys[0].to_string(), "g");
                answer.with_coordinators(vec![
                    Coordinator::default()
                        .with_key("g".to_string().into())
                        .with_error_code(code)
                        .with_host(host.into())
                        .with_port(port),
                ])
            } else {
                assert_eq!(request.key.to_string(), "g");
                answer.with_error_code(code).with_host(host.into()).with_port(port)
            })
        }
    });
    port.store(fake.address.port.into(), Ordering::SeqCst);
    fake
}

/// The fake serves one connection after another, so the control connection must be closed before the
/// coordinator's opens: a cluster of the bootstrap address alone finds, this one connects.
#[track_caller]
fn check(most: i16, codes: &'static [i16], kind: Coordinates) {
    let fake = coordinating(most, codes, kind as i8);
    let cluster = cluster(&[&fake.address]);
    let found = cluster
        .persist(String::new, late(), || {
            cluster.ask(late(), |connection| cluster.find(connection, kind, "g", late()))
        })
        .unwrap();
    assert_eq!(*found, *fake.address);
}

#[test]
fn coordinators_are_found_in_old_and_new_versions_and_waited_for() {
    for most in [1, 3, 4, 6] {
        check(most, &[15, 14, 16, 15], Coordinates::Group);
        check(most, &[15], Coordinates::Transaction);
    }
    check(0, &[15], Coordinates::Group);
}

#[test]
fn a_coordinator_on_another_broker_is_connected_to() {
    let other = Fake::start(answer_versions);
    let at = other.address.clone();
    let fake = Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        _ => super::coordinator(asked, &at),
    });
    let cluster = cluster(&[&fake.address]);
    let connection = cluster.coordinator(Coordinates::Group, "g", late()).unwrap();
    assert_eq!(*connection.broker(), other.address);
}

#[test]
fn a_group_that_is_not_allowed_is_a_clear_error() {
    let fake = coordinating(6, &[30], 0);
    let error = cluster(&[&fake.address]).coordinator(Coordinates::Group, "g", late()).err().unwrap();
    assert!(error.to_string().starts_with("coordinator of group g: GROUP_AUTHORIZATION_FAILED"), "{error}");
    assert_eq!(error.retry(), Retry::Permanent);
}

#[test]
fn a_coordinator_that_never_comes_is_an_error_at_the_deadline() {
    let fake = coordinating(6, &[15; 100_000], 0);
    let soon = Instant::now() + Duration::from_millis(500);
    let error = cluster(&[&fake.address]).coordinator(Coordinates::Group, "g", soon).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("gave up") && text.contains("COORDINATOR_NOT_AVAILABLE"), "{text}");
}

/// A leader that answers ListOffsets for two partitions of "t" with these codes in turn, then well.
fn leading(codes: &'static [i16]) -> Fake {
    let mut count = 0;
    let port = Arc::new(AtomicUsize::new(0));
    let own = port.clone();
    let fake = Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        ApiKey::Metadata => {
            let here = Address { host: "localhost".into(), port: own.load(Ordering::SeqCst) as u16 };
            let topics = vec![topic("t", 5, &[(1, 4), (1, 4)])];
            asked.answer::<MetadataRequest>(&metadata(vec![broker(1, &here)], topics))
        }
        _ => {
            let request = asked.request::<ListOffsetsRequest>();
            assert_eq!((request.replica_id.0, request.isolation_level), (-1, 1));
            let code = codes.get(count).copied().unwrap_or(0);
            count += 1;
            let partition = |one: &kafka_protocol::messages::list_offsets_request::ListOffsetsPartition| {
                assert_eq!((one.timestamp, one.current_leader_epoch), (-2, 4));
                // Only partition 1 has trouble.
                let code = if one.partition_index == 1 { code } else { 0 };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(one.partition_index)
                    .with_error_code(code)
                    .with_offset(if code == 0 { 100 + i64::from(one.partition_index) } else { -1 })
            };
            let topics = request.topics.iter().map(|topic| {
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(topic.partitions.iter().map(partition).collect())
            });
            asked.answer::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(topics.collect()))
        }
    });
    port.store(fake.address.port.into(), Ordering::SeqCst);
    fake
}

fn offsets(codes: &'static [i16], deadline: Instant) -> (Result<Vec<i64>>, usize) {
    let leader = leading(codes);
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, at) = (count.clone(), leader.address.clone());
    let fake = telling(move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        Some(metadata(vec![broker(1, &at)], vec![topic("t", 5, &[(1, 4), (1, 4)])]))
    });
    let cluster = cluster(&[&fake.address]);
    let partitions = [TopicPartition::new("t", 1), TopicPartition::new("t", 0)];
    let found = cluster.offsets(&partitions, At::Earliest, Isolation::ReadCommitted, deadline);
    (found.map(|all| all.iter().map(|one| one.offset).collect()), count.load(Ordering::SeqCst))
}

#[test]
fn offsets_come_in_the_order_asked_for() {
    let (found, refreshes) = offsets(&[], late());
    assert_eq!((found.unwrap(), refreshes), (vec![101, 100], 1));
}

#[test]
fn every_code_that_may_pass_is_asked_again_after_a_refresh() {
    for code in [-1, 3, 5, 6, 9, 13, 56, 74, 75, 78, 100] {
        let codes: &'static [i16] = Box::leak(vec![code, code].into());
        let (found, refreshes) = offsets(codes, late());
        assert_eq!((found.unwrap(), refreshes), (vec![101, 100], 3), "{code}");
    }
}

#[test]
fn every_code_that_stays_is_an_error_that_names_the_partition() {
    for code in [1, 29, 35, 43] {
        let codes: &'static [i16] = Box::leak(vec![code].into());
        let error = offsets(codes, late()).0.unwrap_err();
        assert!(error.to_string().starts_with("partition t-1: ListOffsets failed: "), "{error}");
        assert_eq!(error.retry(), Retry::Permanent);
    }
}

#[test]
fn a_leader_that_is_never_found_ends_at_the_deadline_with_the_code() {
    let (found, _) = offsets(&[6; 100_000], Instant::now() + Duration::from_secs(2));
    let text = found.unwrap_err().to_string();
    assert!(text.contains("gave up") && text.contains("NOT_LEADER_OR_FOLLOWER"), "{text}");
}

#[test]
fn a_leader_that_moves_is_followed() {
    let leader = leading(&[]);
    let (at, gone) = (leader.address.clone(), nobody());
    let fake = telling(move |number, _| {
        let led = if number < 3 { (2, 3) } else { (1, 4) };
        Some(metadata(vec![broker(1, &at), broker(2, &gone)], vec![topic("t", 5, &[led])]))
    });
    let cluster = cluster(&[&fake.address]);
    let partitions = [TopicPartition::new("t", 0)];
    let found = cluster.offsets(&partitions, At::Earliest, Isolation::ReadCommitted, late()).unwrap();
    assert_eq!(found[0].offset, 100);
}

#[test]
fn any_broker_is_one_that_answers() {
    let fake = Fake::start(answer_versions);
    let cluster = cluster(&[&nobody(), &fake.address]);
    assert_eq!(*cluster.connect_any(late()).unwrap().broker(), fake.address);
    drop(fake);
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(matches!(cluster.connect_any(soon), Err(Error::GaveUp { .. })));
}

#[test]
fn a_broker_whose_answers_do_not_help_is_not_the_only_one_that_is_asked() {
    let leader = leading(&[]);
    // It has not heard that another leads.
    let (at, gone) = (leader.address.clone(), nobody());
    let behind = telling(move |_, _| {
        Some(metadata(vec![broker(1, &at), broker(2, &gone)], vec![topic("t", 5, &[(2, 3)])]))
    });
    let cluster = cluster(&[&behind.address]);
    let partitions = [TopicPartition::new("t", 0)];
    let found = cluster.offsets(&partitions, At::Earliest, Isolation::ReadCommitted, late()).unwrap();
    assert_eq!(found[0].offset, 100);
}

#[test]
fn a_broker_that_names_a_coordinator_who_is_gone_is_not_the_only_one_that_is_asked() {
    let coordinator = coordinating(6, &[], 0);
    let (at, gone) = (coordinator.address.clone(), nobody());
    let behind = Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata(vec![broker(1, &at)], vec![])),
        _ => super::coordinator(asked, &gone),
    });
    let cluster = cluster(&[&behind.address]);
    cluster.refresh(&[], late()).unwrap();
    let connection = cluster.coordinator(Coordinates::Group, "g", late()).unwrap();
    assert_eq!(*connection.broker(), coordinator.address);
}
