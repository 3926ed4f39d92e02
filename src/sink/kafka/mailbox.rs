//! [`Mailbox`]: stores the records of deliveries in one topic, so that a delivery that is tried again after an
//! error is not there twice.
//!
//! What was appended and not acknowledged stays in the producer under its number, whoever's call failed; the next
//! call sends it along. So a delivery is appended once, and whoever comes again for one that has arrived in the
//! meantime is told so.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::batch::{Batch, BatchId, Body};
use crate::error::{Result, Retry};
use crate::kafka::Cluster;
use crate::kafka::error as kafka;
use crate::kafka::producer::{Message, Output, Producer, ProducerSettings};
use crate::outgoing::{self, Outgoing};
use crate::record::Partition;

/// What a delivery is known by: a batch, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    partition: Partition,
    start: u64,
    end: u64,
    index: u32,
}

impl Delivery {
    pub fn of(batch: &Batch) -> Self {
        Delivery::new(&batch.id, batch.end, 0)
    }

    pub fn new(id: &BatchId, end: u64, index: u32) -> Self {
        Delivery { partition: id.partition.clone(), start: id.start, end, index }
    }
}

/// One topic, and what is on its way there.
pub(super) struct Mailbox {
    producer: Producer,
    output: Output,
    topic: String,
    /// Appended and not acknowledged.
    sent: HashSet<Delivery>,
    /// Acknowledged, while nobody was there to hear it.
    arrived: HashSet<Delivery>,
}

impl Mailbox {
    /// Finds the topic. Blocks until the cluster has told of it.
    ///
    /// # Errors
    /// If it is not there, or not allowed.
    pub fn open(cluster: Cluster, topic: &str, settings: ProducerSettings) -> Result<Self> {
        let mut producer = Producer::new(cluster, settings);
        let output = producer.output(topic)?;
        let topic = topic.to_string();
        Ok(Mailbox { producer, output, topic, sent: HashSet::new(), arrived: HashSet::new() })
    }

    /// Where receipts say that records are.
    pub fn place(&self) -> String {
        format!("kafka:{}", self.topic)
    }

    pub fn producer(&mut self) -> (&mut Producer, Output) {
        (&mut self.producer, self.output)
    }

    /// Stores what `append` appends for each delivery, unless it is on its way or there already. Blocks until all
    /// is acknowledged.
    ///
    /// # Errors
    /// If that is not so. After a transient error the same call goes on where this one ended.
    pub fn deliver<D>(
        &mut self,
        deliveries: impl Iterator<Item = (Delivery, D)>,
        append: impl Fn(&mut Producer, Output, D) -> kafka::Result<()>,
    ) -> Result<()> {
        let mut ours = Vec::new();
        let done = self.send(deliveries, append, &mut ours);
        if let Err(error) = done {
            if error.retry() == Retry::Permanent {
                self.producer.forget();
                self.sent.clear();
            }
            return Err(error.into());
        }
        self.arrived.extend(self.sent.drain());
        for delivery in ours {
            self.arrived.remove(&delivery);
        }
        Ok(())
    }

    fn send<D>(
        &mut self,
        deliveries: impl Iterator<Item = (Delivery, D)>,
        append: impl Fn(&mut Producer, Output, D) -> kafka::Result<()>,
        ours: &mut Vec<Delivery>,
    ) -> kafka::Result<()> {
        for (delivery, what) in deliveries {
            if !self.arrived.contains(&delivery) && self.sent.insert(delivery.clone()) {
                append(&mut self.producer, self.output, what)?;
            }
            ours.push(delivery);
        }
        self.producer.flush()
    }

    /// What was delivered will be asked for again, because something else failed.
    pub fn expect(&mut self, deliveries: impl Iterator<Item = Delivery>) {
        self.arrived.extend(deliveries);
    }
}

/// Appends the records of a body.
pub(super) fn append_all(producer: &mut Producer, to: Output, body: &Body) -> kafka::Result<()> {
    let now = now();
    outgoing::read(body).try_for_each(|record| producer.append(to, message(&record, now)))
}

fn message<'a>(record: &Outgoing<'a>, now: i64) -> Message<'a, outgoing::Headers<'a>> {
    // A record without a time, -1 in old logs: brokers refuse it.
    let time = record.time.filter(|time| *time >= 0).unwrap_or(now);
    Message { key: record.key, value: record.value, time, headers: record.headers }
}

/// Milliseconds since the epoch.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
