use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, HeartbeatRequest,
    HeartbeatResponse, MetadataRequest,
};
use kafka_protocol::protocol::Message;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::kafka::Error;
use crate::kafka::wire::Api;

fn api<R: Api>(min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(R::KEY as i16).with_min_version(min).with_max_version(max)
}

/// A broker with these versions of Metadata.
fn with_metadata(min: i16, max: i16) -> Fake {
    Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => {
            let apis = vec![api::<ApiVersionsRequest>(0, 3), api::<MetadataRequest>(min, max)];
            asked.answer::<ApiVersionsRequest>(&ApiVersionsResponse::default().with_api_keys(apis))
        }
        _ => {
            assert_eq!(asked.client_id.as_deref(), Some("pipeline"));
            assert_eq!(asked.version, max.min(MetadataRequest::VERSIONS.max));
            asked.answer::<MetadataRequest>(&metadata())
        }
    })
}

#[test]
fn the_highest_version_that_both_have_is_used() {
    for (min, max) in [(0, 9), (4, 12), (12, 99), (0, 1)] {
        let fake = with_metadata(min, max);
        let mut connection = open(&fake, options()).unwrap();
        ask(&mut connection).unwrap();
        assert_eq!(connection.version::<MetadataRequest>(8).is_ok(), min <= 8);
    }
}

#[test]
fn no_common_version_is_said_with_both_ranges() {
    let fake = with_metadata(90, 95);
    let mut connection = open(&fake, options()).unwrap();
    let error = ask(&mut connection).unwrap_err().to_string();
    let ours = MetadataRequest::VERSIONS.max;
    assert!(error.ends_with(&format!("has Metadata v90 to v95, this program v0 to v{ours}")), "{error}");
    let error = connection.call(&HeartbeatRequest::default()).unwrap_err().to_string();
    assert!(error.ends_with("does not have Heartbeat"), "{error}");
    assert!(connection.is_open());
}

/// A broker that knows ApiVersions up to `max` only, and answers others with error 35 and `body` behind it.
#[track_caller]
fn check_fallback(max: i16, body: Vec<ApiVersion>, expected: &[i16]) {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let seen = asked_for.clone();
    let fake = Fake::start(move |asked| {
        if asked.key == ApiKey::Metadata {
            return serve(asked);
        }
        seen.lock().unwrap().push(asked.version);
        if asked.version <= max {
            return answer_versions(asked);
        }
        let answer = ApiVersionsResponse::default().with_error_code(35).with_api_keys(body.clone());
        match asked.answer_at::<ApiVersionsRequest>(&answer, 0, asked.correlation) {
            // Very old brokers send the code alone.
            Reply::Bytes(mut bytes) if body.is_empty() => {
                bytes.truncate(10);
                bytes[3] = 6;
                Reply::Bytes(bytes)
            }
            reply => reply,
        }
    });
    ask(&mut open(&fake, options()).unwrap()).unwrap();
    assert_eq!(*asked_for.lock().unwrap(), expected);
}

#[test]
fn error_35_is_followed_by_what_the_broker_has() {
    let newest = ApiVersionsRequest::VERSIONS.max;
    check_fallback(3, vec![api::<ApiVersionsRequest>(0, 3)], &[newest, 3]);
    check_fallback(2, vec![api::<ApiVersionsRequest>(0, 2)], &[newest, 2]);
    check_fallback(0, vec![api::<MetadataRequest>(0, 2)], &[newest, 0]);
    check_fallback(0, vec![], &[newest, 0]);
}

#[test]
fn a_broker_that_refuses_twice_is_an_error() {
    let fake = Fake::start(|asked| {
        let answer = ApiVersionsResponse::default().with_error_code(35);
        asked.answer_at::<ApiVersionsRequest>(&answer, 0, asked.correlation)
    });
    let error = open(&fake, options()).err().unwrap().to_string();
    assert!(error.contains("UNSUPPORTED_VERSION (35)"), "{error}");
}

#[test]
fn answers_to_requests_sent_ahead_come_in_order() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::Heartbeat => {
            asked.answer::<HeartbeatRequest>(&HeartbeatResponse::default().with_error_code(27))
        }
        _ => serve(asked),
    });
    let mut connection = open(&fake, options()).unwrap();
    let first = connection.send(&HeartbeatRequest::default(), 3).unwrap();
    let second = connection.send(&MetadataRequest::default(), 9).unwrap();
    assert_eq!(connection.receive(first, Duration::from_secs(20)).unwrap().error_code, 27);
    assert_eq!(connection.receive(second, Duration::from_secs(20)).unwrap().brokers.len(), 1);
}

#[test]
fn a_request_that_cannot_be_encoded_leaves_the_connection_open() {
    let fake = Fake::start(serve);
    let mut connection = open(&fake, options()).unwrap();
    assert!(matches!(connection.send(&MetadataRequest::default(), 99), Err(Error::Frame { .. })));
    ask(&mut connection).unwrap();
}

#[test]
fn throttling_is_told() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata().with_throttle_time_ms(60_000)),
        _ => serve(asked),
    });
    let mut connection = open(&fake, options()).unwrap();
    assert_eq!(connection.throttle(), Duration::ZERO);
    ask(&mut connection).unwrap();
    assert!(connection.throttle() > Duration::from_secs(50));
}

#[test]
fn a_broker_that_throttles_for_weeks_is_believed_for_a_minute() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata().with_throttle_time_ms(i32::MAX)),
        _ => serve(asked),
    });
    let mut connection = open(&fake, options()).unwrap();
    ask(&mut connection).unwrap();
    let throttle = connection.throttle();
    assert!(throttle > Duration::from_secs(50) && throttle <= Duration::from_secs(60), "{throttle:?}");
}

/// Fetches once; the records are `byte`, many times.
fn fetch(connection: &mut Connection, byte: u8) -> Bytes {
    let answer = connection.call(&FetchRequest::default().with_max_bytes(i32::from(byte))).unwrap();
    answer.responses[0].partitions[0].records.clone().unwrap()
}

#[test]
fn memory_of_an_answer_is_used_again_once_it_is_dropped_and_not_before() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::Fetch => {
            let byte = asked.request::<FetchRequest>().max_bytes as u8;
            let partition = PartitionData::default().with_records(Some(vec![byte; 300_000].into()));
            let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
            asked.answer::<FetchRequest>(&FetchResponse::default().with_responses(vec![topic]))
        }
        _ => serve(asked),
    });
    let mut connection = open(&fake, options()).unwrap();
    let first = fetch(&mut connection, 1);
    let held = first.as_ptr();
    let second = fetch(&mut connection, 2);
    assert_ne!(second.as_ptr(), held);
    assert!(first.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
    let freed = second.as_ptr();
    drop((first, second));
    let third = fetch(&mut connection, 3);
    assert_eq!(third.as_ptr(), freed);
    assert!(third.len() == 300_000 && third.iter().all(|byte| *byte == 3));
}

#[test]
fn a_connection_can_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<Connection>();
    check::<crate::kafka::wire::Unpacker>();
    check::<crate::kafka::wire::BatchWriter>();
}
