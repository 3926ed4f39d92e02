//! [`Api`]: which requests this client sends, and what answers each.
//!
//! Our own list, because `kafka-protocol` ties a request to its answer only when its broker half is compiled in
//! too. The versions are those of its encoders, not of `ApiKey::valid_versions`, which are too high for some.

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, EndTxnRequest, EndTxnResponse, FetchRequest,
    FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    InitProducerIdRequest, InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListOffsetsRequest, ListOffsetsResponse, ListTransactionsRequest,
    ListTransactionsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProduceRequest, ProduceResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse, SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};

/// A request that this client sends.
pub trait Api: Encodable + HeaderVersion + Message {
    /// What answers it.
    type Answer: Decodable + HeaderVersion + Message;
    /// Its number.
    const KEY: ApiKey;
    /// Its name, for messages.
    const NAME: &'static str;

    /// How long brokers asked this client to wait, in milliseconds.
    fn throttle(answer: &Self::Answer) -> i32;
}

macro_rules! apis {
    ($($key:ident $request:ident $answer:ident $($throttle:ident)?;)*) => {$(
        impl Api for $request {
            type Answer = $answer;
            const KEY: ApiKey = ApiKey::$key;
            const NAME: &'static str = stringify!($key);
            fn throttle(_answer: &$answer) -> i32 {
                0 $( + _answer.$throttle)?
            }
        }
    )*};
}

apis! {
    Produce ProduceRequest ProduceResponse throttle_time_ms;
    Fetch FetchRequest FetchResponse throttle_time_ms;
    ListOffsets ListOffsetsRequest ListOffsetsResponse throttle_time_ms;
    Metadata MetadataRequest MetadataResponse throttle_time_ms;
    OffsetCommit OffsetCommitRequest OffsetCommitResponse throttle_time_ms;
    OffsetFetch OffsetFetchRequest OffsetFetchResponse throttle_time_ms;
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse throttle_time_ms;
    JoinGroup JoinGroupRequest JoinGroupResponse throttle_time_ms;
    Heartbeat HeartbeatRequest HeartbeatResponse throttle_time_ms;
    LeaveGroup LeaveGroupRequest LeaveGroupResponse throttle_time_ms;
    SyncGroup SyncGroupRequest SyncGroupResponse throttle_time_ms;
    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse;
    ApiVersions ApiVersionsRequest ApiVersionsResponse throttle_time_ms;
    CreateTopics CreateTopicsRequest CreateTopicsResponse throttle_time_ms;
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse throttle_time_ms;
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse throttle_time_ms;
    InitProducerId InitProducerIdRequest InitProducerIdResponse throttle_time_ms;
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse throttle_time_ms;
    AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse throttle_time_ms;
    AddOffsetsToTxn AddOffsetsToTxnRequest AddOffsetsToTxnResponse throttle_time_ms;
    EndTxn EndTxnRequest EndTxnResponse throttle_time_ms;
    TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse throttle_time_ms;
    SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse;
    ListTransactions ListTransactionsRequest ListTransactionsResponse throttle_time_ms;
    DescribeCluster DescribeClusterRequest DescribeClusterResponse throttle_time_ms;
}
