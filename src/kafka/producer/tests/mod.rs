//! Tests of a producer against a small cluster in this process.

mod idempotent;
mod transaction;
pub(crate) mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::kafka::Options;
use crate::kafka::cluster::tests::soon;
use crate::stop::Stop;
use world::{TOPIC, World};

pub(crate) fn settings() -> ProducerSettings {
    ProducerSettings {
        delivery_timeout: Duration::from_secs(20),
        retry: soon(),
        ..ProducerSettings::default()
    }
}

fn producer(world: &World, settings: ProducerSettings) -> (Producer, Output) {
    producer_waiting(world, settings, Duration::from_secs(20))
}

pub(crate) fn cluster(world: &World, answer: Duration) -> Cluster {
    cluster_at(world.addresses.clone(), answer)
}

fn cluster_at(addresses: Vec<Arc<crate::kafka::Address>>, answer: Duration) -> Cluster {
    let options =
        Options { request_timeout: answer, connect_timeout: Duration::from_secs(20), ..Options::default() };
    Cluster::new(addresses, Arc::new(options), &Stop::new(), soon())
}

fn producer_waiting(world: &World, settings: ProducerSettings, answer: Duration) -> (Producer, Output) {
    let mut producer = Producer::new(cluster(world, answer), settings);
    let output = producer.output(TOPIC).unwrap();
    (producer, output)
}

type None_ = std::iter::Empty<(&'static [u8], Option<&'static [u8]>)>;

fn message<'a>(key: Option<&'a str>, value: &'a str) -> Message<'a, None_> {
    Message {
        key: key.map(str::as_bytes),
        value: Some(value.as_bytes()),
        time: 1,
        headers: std::iter::empty(),
    }
}

fn put(producer: &mut Producer, to: Output, values: &[&str]) {
    for value in values {
        producer.append(to, message(None, value)).unwrap();
    }
}

/// Waits until it is so.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
