//! Tests of a cluster against scripted brokers.

mod find;
mod refresh;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
use uuid::Uuid;

use super::*;
use crate::kafka::fake::{Asked, Fake, Reply, answer_versions};

/// Delays that a test does not notice.
pub(crate) fn soon() -> Policy {
    Policy { delay: Duration::from_millis(1), max_delay: Duration::from_millis(5), ..Policy::default() }
}

/// Far more than any of these tests takes.
pub(crate) fn late() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn cluster(bootstrap: &[&Arc<Address>]) -> Cluster {
    cluster_with(bootstrap, soon().into())
}

pub(crate) fn cluster_with(bootstrap: &[&Arc<Address>], settings: ClusterSettings) -> Cluster {
    let long = Duration::from_secs(20);
    let options = Options { request_timeout: long, connect_timeout: long, ..Options::default() };
    let bootstrap = bootstrap.iter().map(|broker| Arc::clone(broker)).collect();
    Cluster::new(bootstrap, Arc::new(options), &Stop::new(), settings)
}

/// A port that nothing listens on. It is kept as long as this process lives, or another test's broker might get it.
pub(crate) fn nobody() -> Arc<Address> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap().port();
    std::mem::forget(socket);
    Arc::new(Address { host: "127.0.0.1".into(), port })
}

pub(crate) fn broker(id: i32, at: &Address) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(id.into())
        .with_host(at.host.clone().into())
        .with_port(at.port.into())
}

/// The answer to whoever looks for the coordinator of group "g": it is there.
pub(crate) fn coordinator(asked: &Asked, at: &Address) -> Reply {
    let found = Coordinator::default()
        .with_key("g".to_string().into())
        .with_host(at.host.clone().into())
        .with_port(at.port.into());
    asked.answer::<FindCoordinatorRequest>(&FindCoordinatorResponse::default().with_coordinators(vec![found]))
}

/// Partitions with leader and epoch, numbered from 0.
pub(crate) fn topic(name: &str, id: u128, partitions: &[(i32, i32)]) -> MetadataResponseTopic {
    let partition = |(index, (leader, epoch)): (i32, &(i32, i32))| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id((*leader).into())
            .with_leader_epoch(*epoch)
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(Uuid::from_u128(id))
        .with_partitions((0..).zip(partitions).map(partition).collect())
}

pub(crate) fn metadata(
    brokers: Vec<MetadataResponseBroker>,
    topics: Vec<MetadataResponseTopic>,
) -> MetadataResponse {
    MetadataResponse::default().with_brokers(brokers).with_topics(topics)
}

/// Every question is asked of another broker than the one before, if there is another.
fn restless() -> ClusterSettings {
    ClusterSettings { retry: soon(), metadata_age: Duration::ZERO }
}

fn names(topics: &[&str]) -> Vec<Arc<str>> {
    topics.iter().map(|topic| Arc::from(*topic)).collect()
}

/// A broker that answers metadata by the number of the request.
fn telling(mut answer: impl FnMut(usize, &Asked) -> Option<MetadataResponse> + Send + 'static) -> Fake {
    let mut count = 0;
    Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        ApiKey::Metadata => {
            count += 1;
            answer(count, asked).map_or(Reply::Cut, |answer| asked.answer::<MetadataRequest>(&answer))
        }
        key => panic!("unexpected {key:?}"),
    })
}

#[test]
fn brokers_that_are_back_are_not_kept_waiting_for_half_a_minute() {
    let patient =
        Policy { max_retries: 2, delay: Duration::from_millis(500), max_delay: Duration::from_secs(30) };
    let delays: Vec<_> = endless(patient).take(40).collect();
    assert_eq!(delays.len(), 40, "deadlines end what is tried in vain, not a number of retries");
    assert!(delays.iter().all(|delay| *delay <= LONGEST), "{delays:?}");
    assert!(delays[39] >= LONGEST / 2, "{delays:?}");

    let quick = Policy { max_delay: Duration::from_millis(800), ..patient };
    assert!(endless(quick).take(40).all(|delay| delay <= quick.max_delay));
}
