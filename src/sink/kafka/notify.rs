//! [`Notifying`]: tells a topic of each published batch, before the engine hears of it. So a notification may come
//! twice, when a run is begun again, but none is missing.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use super::mailbox::{Delivery, Mailbox, now};
use crate::batch::{Batch, BatchId, Receipt};
use crate::error::Result;
use crate::kafka::Cluster;
use crate::kafka::error as kafka;
use crate::kafka::producer::{Message, Output, Producer, ProducerSettings};
use crate::sink::{Part, Shape, Sink, Totals, Upload};

/// Sends one message for each batch that `main` has published.
pub struct Notifying<S> {
    main: S,
    notes: Arc<Notes>,
    /// Receipts whose notifications are not acknowledged.
    held: Mutex<Vec<Receipt>>,
}

struct Notes(Mutex<Mailbox>);

impl Notes {
    /// Blocks until a message for each of them is acknowledged. Ranges without records have none.
    fn tell(&self, receipts: &[Receipt]) -> Result<()> {
        let told = receipts.iter().filter(|receipt| receipt.counts.read > 0);
        let notes = told.map(|receipt| (Delivery::new(&receipt.id, receipt.end, 0), receipt));
        self.0.lock().deliver(notes, append)
    }
}

/// What is told of a batch. Keyed by the partition's name, so that a partition's messages keep their order.
#[derive(Serialize)]
struct Note<'a> {
    batch_id: String,
    source: &'static str,
    partition: &'a str,
    start: u64,
    end: u64,
    read: u64,
    stored: u64,
    rejected: u64,
    key: Option<&'a str>,
    failed_key: Option<&'a str>,
    bytes: u64,
    crc32c: Option<String>,
    opened_at: Option<String>,
    published_at: Option<String>,
}

fn append(producer: &mut Producer, to: Output, receipt: &Receipt) -> kafka::Result<()> {
    let (id, now) = (&receipt.id, now());
    let (source, partition) = (id.partition.source(), id.partition.name());
    let note = Note {
        batch_id: format!("{source}:{partition}:{}", id.start),
        source,
        partition,
        start: id.start,
        end: receipt.end,
        read: receipt.counts.read,
        stored: receipt.counts.stored,
        rejected: receipt.counts.rejected,
        key: receipt.key.as_deref(),
        failed_key: receipt.failed_key.as_deref(),
        // Of the object at `key`, as the checksum.
        bytes: receipt.bytes.saturating_sub(receipt.failed_bytes),
        crc32c: (receipt.crc32c != 0).then(|| format!("{:08x}", receipt.crc32c)),
        opened_at: time(id.opened_at),
        published_at: time(now),
    };
    let value = serde_json::to_vec(&note).expect("strings and numbers always serialise");
    let headers = std::iter::empty();
    producer.append(to, Message { key: Some(partition.as_bytes()), value: Some(&value), time: now, headers })
}

/// RFC 3339, milliseconds; `None` for a time that no calendar has.
fn time(millis: i64) -> Option<String> {
    Some(Timestamp::from_millisecond(millis).ok()?.to_string())
}

impl<S: Sink> Notifying<S> {
    /// Finds the topic. Blocks until the cluster has told of it. The producer is idempotent, whatever `settings`
    /// say of transactions.
    ///
    /// # Errors
    /// If the topic is not there, or not allowed.
    pub fn prepare(main: S, cluster: Cluster, topic: &str, settings: ProducerSettings) -> Result<Self> {
        let settings = ProducerSettings { transactional: None, ..settings };
        let mailbox = Mailbox::open(cluster, topic, settings)?;
        Ok(Notifying { main, notes: Arc::new(Notes(Mutex::new(mailbox))), held: Mutex::default() })
    }
}

/// The batches behind those that are published already.
fn unpublished<'b>(batches: &'b [Batch], held: &[Receipt]) -> &'b [Batch] {
    let last = held.iter().filter_map(|held| batches.iter().position(|batch| batch.id == held.id)).max();
    &batches[last.map_or(0, |last| last + 1)..]
}

impl<S: Sink> Sink for Notifying<S> {
    fn shape(&self) -> Shape {
        self.main.shape()
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        // Other writers may be at work: what they hold is theirs.
        let mut held = Vec::new();
        self.held.lock().retain(|receipt| {
            let ours = batches.iter().any(|batch| batch.id == receipt.id);
            if ours {
                held.push(receipt.clone());
            }
            !ours
        });
        let rest = unpublished(batches, &held);
        let outcome = if rest.is_empty() { Ok(()) } else { self.main.store(rest, &mut held) };
        if let Err(error) = self.notes.tell(&held) {
            self.held.lock().append(&mut held);
            return Err(error);
        }
        receipts.append(&mut held);
        outcome
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        let main = self.main.open(id)?;
        Ok(Box::new(NotifyingUpload { main, notes: self.notes.clone(), receipt: Mutex::default() }))
    }

    fn finish(&self) -> Result<()> {
        self.main.finish()
    }
}

/// A batch in parts.
struct NotifyingUpload {
    main: Box<dyn Upload>,
    notes: Arc<Notes>,
    /// It is published, but its notification is not acknowledged.
    receipt: Mutex<Option<Receipt>>,
}

impl Upload for NotifyingUpload {
    fn part(&self, part: &Part) -> Result<()> {
        self.main.part(part)
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        let mut published = self.receipt.lock();
        let receipt = match &*published {
            Some(receipt) => receipt,
            None => published.insert(self.main.publish(batch, totals)?),
        };
        self.notes.tell(std::slice::from_ref(receipt))?;
        Ok(receipt.clone())
    }

    fn abort(&self) {
        // What is published stays, whether or not somebody was told.
        if self.receipt.lock().is_none() {
            self.main.abort();
        }
    }
}
