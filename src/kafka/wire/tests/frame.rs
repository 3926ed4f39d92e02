use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, ResponseHeader,
    SaslHandshakeRequest, SaslHandshakeResponse, fetch_response, metadata_response,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes};
use proptest::prelude::*;

use crate::kafka::wire::frame::{self, FrameFault};
use crate::kafka::wire::{Api, frame::PREFIX};

/// An answer as a broker frames it, without its size.
fn answer<R: Api>(answer: &R::Answer, version: i16, correlation: i32) -> Vec<u8>
where
    R::Answer: Encodable,
{
    let mut out = Vec::new();
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut out, R::Answer::header_version(version)).unwrap();
    answer.encode(&mut out, version).unwrap();
    out
}

fn metadata() -> MetadataResponse {
    let partition =
        metadata_response::MetadataResponsePartition::default().with_replica_nodes(vec![1.into(); 3]);
    let topic = metadata_response::MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_static_str("data-input").into()))
        .with_partitions(vec![partition; 5]);
    MetadataResponse::default().with_topics(vec![topic; 3])
}

#[test]
fn a_request_has_its_size_header_and_body() {
    let mut out = vec![7];
    let id = StrBytes::from_static_str("pipeline");
    frame::encode(&MetadataRequest::default(), 12, 99, &id, &mut out).unwrap();
    assert_eq!(out[0], 7, "it is appended");
    let size = frame::size(out[1..5].try_into().unwrap(), 1000).unwrap();
    assert_eq!(size, out.len() - 1 - PREFIX);
    let mut bytes = Bytes::from(out.split_off(5));
    let header = kafka_protocol::protocol::decode_request_header_from_buffer(&mut bytes).unwrap();
    assert_eq!((header.request_api_key, header.request_api_version, header.correlation_id), (3, 12, 99));
    assert_eq!(header.client_id.as_deref(), Some("pipeline"));
    assert_eq!(MetadataRequest::decode(&mut bytes, 12).unwrap(), MetadataRequest::default());
}

#[test]
fn a_request_that_its_version_cannot_hold_leaves_nothing_behind() {
    let mut out = vec![7];
    let error =
        frame::encode(&MetadataRequest::default(), 99, 1, &StrBytes::default(), &mut out).unwrap_err();
    assert!(matches!(error, FrameFault::Unencodable { .. }));
    assert_eq!(out, [7]);
}

#[test]
fn sizes_beyond_the_cap_are_refused_and_strangers_named() {
    assert_eq!(frame::size([0, 0, 0, 4], 10), Ok(4));
    for (prefix, text) in [
        ([0, 0, 0, 3], "3 bytes"),
        ([0, 0, 0, 11], "from 4 to 10"),
        ([0xff; 4], "-1 bytes"),
        (*b"HTTP", "an HTTP server"),
        ([0x15, 3, 3, 0], "kafka.tls.enabled"),
    ] {
        let error = frame::size(prefix, 10).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn an_answer_to_another_request_is_refused() {
    assert_eq!(frame::check(&[0, 0, 0, 9, 1], 9), Ok(()));
    assert_eq!(frame::check(&[0, 0, 0, 8], 9), Err(FrameFault::Correlation { expected: 9, found: 8 }));
    assert!(matches!(frame::check(&[0, 0, 0], 9), Err(FrameFault::Malformed { .. })));
}

#[test]
fn answers_of_every_version_are_decoded() {
    for version in 1..=MetadataRequest::VERSIONS.max {
        let mut sent = metadata();
        if version < 10 {
            sent.topics.iter_mut().for_each(|topic| topic.topic_id = Default::default());
        }
        let bytes = answer::<MetadataRequest>(&sent, version, 5);
        let found = frame::decode::<MetadataRequest>(bytes.into(), version).unwrap();
        assert_eq!(found.topics.len(), 3, "{version}");
        assert_eq!(found.topics[2].partitions.len(), 5);
    }
}

#[test]
fn a_hostile_count_is_an_error_and_not_an_abort() {
    // Flexible: the count of brokers, a varint, says four billion.
    let mut bytes = vec![0, 0, 0, 5, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(frame::decode::<MetadataRequest>(bytes.into(), 12).is_err());
    // Old: the counts of mechanisms and of versions are 32-bit numbers.
    let hostile = [0, 0, 0, 5, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    assert!(frame::decode::<SaslHandshakeRequest>(hostile.to_vec().into(), 1).is_err());
    assert!(frame::decode::<ApiVersionsRequest>(hostile.to_vec().into(), 0).is_err());
}

#[test]
fn fetched_records_share_the_memory_of_their_frame() {
    let partition =
        fetch_response::PartitionData::default().with_records(Some(Bytes::from(vec![9; 100_000])));
    let topic = fetch_response::FetchableTopicResponse::default().with_partitions(vec![partition]);
    let sent = FetchResponse::default().with_responses(vec![topic]);
    let bytes = Bytes::from(answer::<FetchRequest>(&sent, 16, 5));
    let range = bytes.as_ptr_range();
    let found = frame::decode::<FetchRequest>(bytes.clone(), 16).unwrap();
    let records = found.responses[0].partitions[0].records.as_ref().unwrap();
    assert_eq!(records.len(), 100_000);
    assert!(range.contains(&records.as_ptr()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn damaged_answers_never_panic(version in 9i16..=13, at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = answer::<MetadataRequest>(&metadata(), version, 5);
        let cut = cut.index(bytes.len());
        prop_assert!(frame::decode::<MetadataRequest>(bytes[..cut].to_vec().into(), version).is_err());
        *at.get_mut(&mut bytes) = byte;
        let _ = frame::decode::<MetadataRequest>(bytes.clone().into(), version);
        // Fewer of something may have been announced than were sent: then what is left may be whole.
        bytes.truncate(cut);
        let _ = frame::decode::<MetadataRequest>(bytes.into(), version);
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = frame::decode::<FetchRequest>(bytes.clone().into(), 17);
        let _ = frame::decode::<SaslHandshakeRequest>(bytes.clone().into(), 1);
        bytes.truncate(3);
        prop_assert!(frame::decode::<FetchRequest>(bytes.into(), 17).is_err());
    }
}

#[test]
fn a_handshake_answer_is_decoded() {
    let sent = SaslHandshakeResponse::default().with_mechanisms(vec!["PLAIN".to_string().into(); 3]);
    let bytes = answer::<SaslHandshakeRequest>(&sent, 1, 5);
    assert_eq!(frame::decode::<SaslHandshakeRequest>(bytes.into(), 1).unwrap(), sent);
}

/// Decodes `body` as the answer to `R` in each flexible version: it may be refused, and must not panic or abort.
fn survive<R: Api>(body: &[u8])
where
    R::Answer: Encodable,
{
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        if R::Answer::header_version(version) < 1 {
            continue;
        }
        let hostile = [&[0; 5], body].concat();
        if let Ok(answer) = frame::decode::<R>(hostile.into(), version) {
            let _ = R::throttle(&answer);
        }
    }
}

macro_rules! survive_all {
    ($body:expr, $($request:ident)*) => {$( survive::<kafka_protocol::messages::$request>($body); )*};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_answer_of_any_request_panics_on_any_bytes(
        body in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..120),
    ) {
        survive_all!(
            &body,
            ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
            FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest
            CreateTopicsRequest DeleteTopicsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
            AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest TxnOffsetCommitRequest
            SaslAuthenticateRequest DescribeClusterRequest
        );
        let hostile = [&[0; 4], &body[..]].concat();
        for version in 0..=4 {
            if version == 0 || version >= 3 {
                let _ = frame::decode::<ApiVersionsRequest>(hostile.clone().into(), version);
            }
        }
    }
}
