//! Kafka's error codes: [`Code`], with name, meaning and whether another try can help.
//!
//! The one table of the client. "Again" is what Java calls retriable, plus the two that its own clients answer
//! by trying again (51, 129). Codes that need more than another try (a rejoin, a new leader) are for the layer
//! that asked. Source: the protocol guide's list up to Kafka 4.1; a code from the future is permanent.

use std::fmt;

use crate::error::Retry;

/// An error code as a broker sends it. 0 is no error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub i16);

use Retry::{Permanent as No, Transient as Again};

/// Number, name, whether another try can help, and meaning; ascending.
const TABLE: &[(i16, &str, Retry, &str)] = &[
    (-1, "UNKNOWN_SERVER_ERROR", No, "the broker failed in a way it did not expect; see its log"),
    (0, "NONE", No, "no error"),
    (1, "OFFSET_OUT_OF_RANGE", No, "the log no longer has this offset, or not yet"),
    (2, "CORRUPT_MESSAGE", Again, "records are damaged, or have no key where the topic is compacted"),
    (3, "UNKNOWN_TOPIC_OR_PARTITION", Again, "there is no such topic or partition on this broker"),
    (4, "INVALID_FETCH_SIZE", No, "the fetch size is not valid"),
    (5, "LEADER_NOT_AVAILABLE", Again, "the partition has no leader at the moment"),
    (6, "NOT_LEADER_OR_FOLLOWER", Again, "another broker leads this partition"),
    (7, "REQUEST_TIMED_OUT", Again, "the broker could not finish in time"),
    (8, "BROKER_NOT_AVAILABLE", No, "the broker is not available"),
    (9, "REPLICA_NOT_AVAILABLE", Again, "the broker has no copy of this partition yet"),
    (10, "MESSAGE_TOO_LARGE", No, "the batch is larger than the topic's max.message.bytes"),
    (11, "STALE_CONTROLLER_EPOCH", No, "the controller moved"),
    (12, "OFFSET_METADATA_TOO_LARGE", No, "the commit's metadata is larger than the broker takes"),
    (13, "NETWORK_EXCEPTION", Again, "a broker lost its connection to another"),
    (14, "COORDINATOR_LOAD_IN_PROGRESS", Again, "the coordinator is still loading"),
    (15, "COORDINATOR_NOT_AVAILABLE", Again, "there is no coordinator at the moment"),
    (16, "NOT_COORDINATOR", Again, "another broker is the coordinator"),
    (17, "INVALID_TOPIC_EXCEPTION", No, "the topic's name is not allowed, or the topic is internal"),
    (18, "RECORD_LIST_TOO_LARGE", No, "the batch is larger than a log segment"),
    (19, "NOT_ENOUGH_REPLICAS", Again, "fewer replicas are in sync than min.insync.replicas"),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Again, "appended, but then too few replicas were in sync"),
    (21, "INVALID_REQUIRED_ACKS", No, "the acks setting is not valid"),
    (22, "ILLEGAL_GENERATION", No, "the group has gone on to another generation"),
    (23, "INCONSISTENT_GROUP_PROTOCOL", No, "no assignor in common with the group's other members"),
    (24, "INVALID_GROUP_ID", No, "the group's name is not allowed"),
    (25, "UNKNOWN_MEMBER_ID", No, "the group no longer knows this member"),
    (26, "INVALID_SESSION_TIMEOUT", No, "the broker does not allow this session timeout"),
    (27, "REBALANCE_IN_PROGRESS", No, "the group is rebalancing: the member must join again"),
    (28, "INVALID_COMMIT_OFFSET_SIZE", No, "the commit is larger than the broker takes"),
    (29, "TOPIC_AUTHORIZATION_FAILED", No, "not allowed to use this topic: check the ACLs"),
    (30, "GROUP_AUTHORIZATION_FAILED", No, "not allowed to use this group: check the ACLs"),
    (31, "CLUSTER_AUTHORIZATION_FAILED", No, "not allowed on this cluster: check the ACLs"),
    (32, "INVALID_TIMESTAMP", No, "a timestamp is outside what the topic takes"),
    (33, "UNSUPPORTED_SASL_MECHANISM", No, "the broker does not have this SASL mechanism"),
    (34, "ILLEGAL_SASL_STATE", No, "the listener expects no authentication now"),
    (35, "UNSUPPORTED_VERSION", No, "the broker does not have this version of the request"),
    (36, "TOPIC_ALREADY_EXISTS", No, "the topic is already there"),
    (37, "INVALID_PARTITIONS", No, "the number of partitions is not valid"),
    (38, "INVALID_REPLICATION_FACTOR", No, "more replicas than brokers, or none"),
    (39, "INVALID_REPLICA_ASSIGNMENT", No, "the assignment of replicas is not valid"),
    (40, "INVALID_CONFIG", No, "a setting is not valid"),
    (41, "NOT_CONTROLLER", Again, "another broker is the controller"),
    (42, "INVALID_REQUEST", No, "the broker does not understand the request"),
    (43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", No, "the topic's message format is too old for this"),
    (44, "POLICY_VIOLATION", No, "a policy of the cluster forbids this"),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", No, "the broker misses batches of this producer"),
    (46, "DUPLICATE_SEQUENCE_NUMBER", No, "the broker already has this batch"),
    (47, "INVALID_PRODUCER_EPOCH", No, "a newer producer has taken over"),
    (48, "INVALID_TXN_STATE", No, "the transaction is in no state for this"),
    (49, "INVALID_PRODUCER_ID_MAPPING", No, "the transactional id belongs to another producer id now"),
    (50, "INVALID_TRANSACTION_TIMEOUT", No, "above the broker's transaction.max.timeout.ms"),
    (51, "CONCURRENT_TRANSACTIONS", Again, "the previous transaction is still ending"),
    (52, "TRANSACTION_COORDINATOR_FENCED", No, "the transaction's coordinator moved"),
    (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", No, "not allowed to use this transactional id"),
    (54, "SECURITY_DISABLED", No, "the cluster has no security features"),
    (55, "OPERATION_NOT_ATTEMPTED", No, "not tried, because another part of the request failed"),
    (56, "KAFKA_STORAGE_ERROR", Again, "the broker's disk failed; the leader will move"),
    (57, "LOG_DIR_NOT_FOUND", No, "the broker has no such log directory"),
    (58, "SASL_AUTHENTICATION_FAILED", No, "wrong user name or password"),
    (59, "UNKNOWN_PRODUCER_ID", No, "the broker no longer knows this producer"),
    (60, "REASSIGNMENT_IN_PROGRESS", No, "partitions are being moved"),
    (61, "DELEGATION_TOKEN_AUTH_DISABLED", No, "delegation tokens are off"),
    (62, "DELEGATION_TOKEN_NOT_FOUND", No, "no such delegation token"),
    (63, "DELEGATION_TOKEN_OWNER_MISMATCH", No, "the delegation token is someone else's"),
    (64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", No, "delegation tokens are not given on this listener"),
    (65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", No, "not allowed to use this delegation token"),
    (66, "DELEGATION_TOKEN_EXPIRED", No, "the delegation token has expired"),
    (67, "INVALID_PRINCIPAL_TYPE", No, "this kind of principal is not supported"),
    (68, "NON_EMPTY_GROUP", No, "the group has members"),
    (69, "GROUP_ID_NOT_FOUND", No, "there is no such group"),
    (70, "FETCH_SESSION_ID_NOT_FOUND", Again, "the fetch session is gone"),
    (71, "INVALID_FETCH_SESSION_EPOCH", Again, "the fetch session went on without this client"),
    (72, "LISTENER_NOT_FOUND", Again, "the leader has no listener of this name"),
    (73, "TOPIC_DELETION_DISABLED", No, "topics cannot be deleted here"),
    (74, "FENCED_LEADER_EPOCH", Again, "the client's view of the leader is older than the broker's"),
    (75, "UNKNOWN_LEADER_EPOCH", Again, "the client's view of the leader is newer than the broker's"),
    (76, "UNSUPPORTED_COMPRESSION_TYPE", No, "the records' compression needs a newer request version"),
    (77, "STALE_BROKER_EPOCH", No, "the broker was registered anew"),
    (78, "OFFSET_NOT_AVAILABLE", Again, "a new leader does not know the end of the log yet"),
    (79, "MEMBER_ID_REQUIRED", No, "join again with the member id that came along"),
    (80, "PREFERRED_LEADER_NOT_AVAILABLE", Again, "the preferred leader is away"),
    (81, "GROUP_MAX_SIZE_REACHED", No, "the group takes no more members"),
    (82, "FENCED_INSTANCE_ID", No, "another consumer runs with the same instance id"),
    (83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", Again, "no replica may become leader now"),
    (84, "ELECTION_NOT_NEEDED", Again, "the partition has its leader"),
    (85, "NO_REASSIGNMENT_IN_PROGRESS", No, "no partition is being moved"),
    (86, "GROUP_SUBSCRIBED_TO_TOPIC", No, "the group still reads this topic"),
    (87, "INVALID_RECORD", No, "the broker refuses a record"),
    (88, "UNSTABLE_OFFSET_COMMIT", Again, "a transaction with these offsets is still open"),
    (89, "THROTTLING_QUOTA_EXCEEDED", Again, "over quota"),
    (90, "PRODUCER_FENCED", No, "a newer producer has taken over the transactional id"),
    (91, "RESOURCE_NOT_FOUND", No, "there is no such thing"),
    (92, "DUPLICATE_RESOURCE", No, "the request names something twice"),
    (93, "UNACCEPTABLE_CREDENTIAL", No, "the credential does not meet the rules"),
    (94, "INCONSISTENT_VOTER_SET", No, "sender and recipient do not both vote"),
    (95, "INVALID_UPDATE_VERSION", No, "the version to update is not valid"),
    (96, "FEATURE_UPDATE_FAILED", No, "the cluster's features could not be updated"),
    (97, "PRINCIPAL_DESERIALIZATION_FAILURE", No, "a forwarded request's principal is not readable"),
    (98, "SNAPSHOT_NOT_FOUND", No, "there is no such snapshot"),
    (99, "POSITION_OUT_OF_RANGE", No, "the position is outside the snapshot"),
    (100, "UNKNOWN_TOPIC_ID", Again, "no topic has this id: it may have been created anew"),
    (101, "DUPLICATE_BROKER_REGISTRATION", No, "the broker's id is taken"),
    (102, "BROKER_ID_NOT_REGISTERED", No, "no broker has this id"),
    (103, "INCONSISTENT_TOPIC_ID", Again, "the topic was created anew"),
    (104, "INCONSISTENT_CLUSTER_ID", No, "this is another cluster"),
    (105, "TRANSACTIONAL_ID_NOT_FOUND", No, "there is no such transactional id"),
    (106, "FETCH_SESSION_TOPIC_ID_ERROR", Again, "the fetch session mixes topic names and ids"),
    (107, "INELIGIBLE_REPLICA", No, "a replica may not be in sync now"),
    (108, "NEW_LEADER_ELECTED", No, "the leader changed on the way"),
    (109, "OFFSET_MOVED_TO_TIERED_STORAGE", No, "the offset is only in remote storage"),
    (110, "FENCED_MEMBER_EPOCH", No, "the group has given this member's partitions away"),
    (111, "UNRELEASED_INSTANCE_ID", No, "the instance id still belongs to another member"),
    (112, "UNSUPPORTED_ASSIGNOR", No, "the group does not have this assignor"),
    (113, "STALE_MEMBER_EPOCH", No, "the member's epoch is old: the next heartbeat brings the new one"),
    (114, "MISMATCHED_ENDPOINT_TYPE", No, "this endpoint is for other requests"),
    (115, "UNSUPPORTED_ENDPOINT_TYPE", No, "unknown kind of endpoint"),
    (116, "UNKNOWN_CONTROLLER_ID", No, "no controller has this id"),
    (117, "UNKNOWN_SUBSCRIPTION_ID", No, "the telemetry subscription is old"),
    (118, "TELEMETRY_TOO_LARGE", No, "the telemetry is larger than the broker takes"),
    (119, "INVALID_REGISTRATION", No, "the controller refuses the broker's registration"),
    (120, "TRANSACTION_ABORTABLE", No, "the transaction must be aborted, then the producer can go on"),
    (121, "INVALID_RECORD_STATE", No, "the record cannot be acknowledged in this state"),
    (122, "SHARE_SESSION_NOT_FOUND", Again, "the share session is gone"),
    (123, "INVALID_SHARE_SESSION_EPOCH", Again, "the share session went on without this client"),
    (124, "FENCED_STATE_EPOCH", No, "the share group has a newer state"),
    (125, "INVALID_VOTER_KEY", No, "the voter's key is another"),
    (126, "DUPLICATE_VOTER", No, "the voter is already there"),
    (127, "VOTER_NOT_FOUND", No, "there is no such voter"),
    (128, "INVALID_REGULAR_EXPRESSION", No, "the regular expression is not valid"),
    (
        129,
        "REBOOTSTRAP_REQUIRED",
        Again,
        "what the client knows of the cluster is too old: begin with bootstrap",
    ),
    (130, "STREAMS_INVALID_TOPOLOGY", No, "the streams topology is not valid"),
    (131, "STREAMS_INVALID_TOPOLOGY_EPOCH", No, "the streams topology's epoch is not valid"),
    (132, "STREAMS_TOPOLOGY_FENCED", No, "the group has a newer streams topology"),
    (133, "SHARE_SESSION_LIMIT_REACHED", Again, "too many share sessions"),
];

impl Code {
    /// The broker failed in a way it did not expect.
    pub const UNKNOWN_SERVER_ERROR: Code = Code(-1);
    /// No error.
    pub const NONE: Code = Code(0);
    /// The log no longer has this offset, or not yet.
    pub const OFFSET_OUT_OF_RANGE: Code = Code(1);
    /// There is no such topic or partition on this broker.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Code = Code(3);
    /// The partition has no leader at the moment.
    pub const LEADER_NOT_AVAILABLE: Code = Code(5);
    /// Another broker leads this partition.
    pub const NOT_LEADER_OR_FOLLOWER: Code = Code(6);
    /// There is no coordinator at the moment.
    pub const COORDINATOR_NOT_AVAILABLE: Code = Code(15);
    /// The topic's name is not allowed.
    pub const INVALID_TOPIC_EXCEPTION: Code = Code(17);
    /// The batch is larger than what is allowed.
    pub const MESSAGE_TOO_LARGE: Code = Code(10);
    /// Records are damaged.
    pub const CORRUPT_MESSAGE: Code = Code(2);
    /// Not allowed to use this topic.
    pub const TOPIC_AUTHORIZATION_FAILED: Code = Code(29);
    /// The client's view of the leader is older than the broker's.
    pub const FENCED_LEADER_EPOCH: Code = Code(74);
    /// The client's view of the leader is newer than the broker's.
    pub const UNKNOWN_LEADER_EPOCH: Code = Code(75);
    /// A new leader does not know the end of the log yet.
    pub const OFFSET_NOT_AVAILABLE: Code = Code(78);
    /// No topic has this id.
    pub const UNKNOWN_TOPIC_ID: Code = Code(100);
    /// The topic was created anew.
    pub const INCONSISTENT_TOPIC_ID: Code = Code(103);
    /// What the client knows of the cluster is too old (KIP-1102).
    pub const REBOOTSTRAP_REQUIRED: Code = Code(129);
    /// The coordinator is still loading.
    pub const COORDINATOR_LOAD_IN_PROGRESS: Code = Code(14);
    /// Another broker is the coordinator.
    pub const NOT_COORDINATOR: Code = Code(16);
    /// The broker could not finish in time.
    pub const REQUEST_TIMED_OUT: Code = Code(7);
    /// The commit's metadata is larger than the broker takes.
    pub const OFFSET_METADATA_TOO_LARGE: Code = Code(12);
    /// The group has gone on to another generation.
    pub const ILLEGAL_GENERATION: Code = Code(22);
    /// No assignor in common with the other members.
    pub const INCONSISTENT_GROUP_PROTOCOL: Code = Code(23);
    /// The group's name is not allowed.
    pub const INVALID_GROUP_ID: Code = Code(24);
    /// The group no longer knows this member.
    pub const UNKNOWN_MEMBER_ID: Code = Code(25);
    /// The broker does not allow this session timeout.
    pub const INVALID_SESSION_TIMEOUT: Code = Code(26);
    /// The group is rebalancing.
    pub const REBALANCE_IN_PROGRESS: Code = Code(27);
    /// Not allowed to use this group.
    pub const GROUP_AUTHORIZATION_FAILED: Code = Code(30);
    /// Join again with the member id that came along.
    pub const MEMBER_ID_REQUIRED: Code = Code(79);
    /// The group takes no more members.
    pub const GROUP_MAX_SIZE_REACHED: Code = Code(81);
    /// Another consumer runs with the same instance id.
    pub const FENCED_INSTANCE_ID: Code = Code(82);
    /// A transaction with these offsets is still open.
    pub const UNSTABLE_OFFSET_COMMIT: Code = Code(88);
    /// The transaction before is still ending.
    pub const CONCURRENT_TRANSACTIONS: Code = Code(51);
    /// The broker does not have this version of a request.
    pub const UNSUPPORTED_VERSION: Code = Code(35);
    /// Wrong user name or password.
    pub const SASL_AUTHENTICATION_FAILED: Code = Code(58);

    /// `Ok` for 0.
    ///
    /// # Errors
    /// The code itself for anything else.
    pub fn check(self) -> Result<(), Code> {
        if self == Code::NONE { Ok(()) } else { Err(self) }
    }

    fn row(self) -> Option<&'static (i16, &'static str, Retry, &'static str)> {
        let index = TABLE.binary_search_by_key(&self.0, |row| row.0).ok()?;
        Some(&TABLE[index])
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        self.row().map_or("UNKNOWN_CODE", |row| row.1)
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        self.row().map_or("a code that this program does not know", |row| row.3)
    }

    /// Whether another try can help.
    pub fn retry(self) -> Retry {
        self.row().map_or(Retry::Permanent, |row| row.2)
    }

    /// The same for a question about a log, which changes nothing: there a failure that the broker did not expect may
    /// pass, too, as when its remote storage does not answer. Java's consumer asks again.
    pub(crate) fn retry_reading(self) -> Retry {
        if self == Code::UNKNOWN_SERVER_ERROR { Retry::Transient } else { self.retry() }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.0, self.meaning())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({} {})", self.0, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::ResponseError;

    #[test]
    fn the_table_is_complete_and_in_order() {
        assert!(TABLE.iter().zip(-1..).all(|(row, code)| row.0 == code));
        assert_eq!(Code(134).name(), "UNKNOWN_CODE");
        assert_eq!(Code(134).retry(), Retry::Permanent);
        assert_eq!(Code(i16::MIN).name(), "UNKNOWN_CODE");
    }

    #[test]
    fn the_table_agrees_with_the_schemas_list() {
        for (code, name, retry, _) in TABLE.iter().filter(|row| row.0 != 0) {
            let other = ResponseError::try_from_code(*code).unwrap();
            let plain = name.replace('_', "").to_lowercase();
            assert_eq!(format!("{other:?}").to_lowercase(), plain);
            let ours_alone = matches!(code, 51 | 129);
            assert_eq!(other.is_retriable() || ours_alone, *retry == Retry::Transient, "{name}");
        }
    }
}
