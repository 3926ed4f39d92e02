//! [`WithLetterTopic`]: dead letters go to a topic, everything else to another sink. Dead letters first: a run that
//! is begun again may store some twice, but loses none.

use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Delivery, Mailbox, append_all};
use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::error::Result;
use crate::kafka::Cluster;
use crate::kafka::producer::ProducerSettings;
use crate::sink::{DeadLetters, Part, Shape, Sink, Stream, Totals, Upload};

/// Stores dead letters in a topic, and everything else in `main`.
pub struct WithLetterTopic<S> {
    main: S,
    letters: Arc<Letters>,
}

struct Letters {
    mailbox: Mutex<Mailbox>,
    place: String,
}

impl Letters {
    fn deliver<'b>(&self, bodies: impl Iterator<Item = (Delivery, &'b Body)>) -> Result<()> {
        self.mailbox.lock().deliver(bodies, append_all)
    }

    /// Puts what was stored here into a receipt of the main sink.
    fn complete(&self, receipt: &mut Receipt, failed: u64) {
        if failed > 0 {
            receipt.failed_key = Some(self.place.clone());
            receipt.bytes += failed;
        }
    }
}

impl<S: Sink> WithLetterTopic<S> {
    /// Finds the topic. Blocks until the cluster has told of it. The producer is idempotent, whatever `settings`
    /// say of transactions.
    ///
    /// # Errors
    /// If the topic is not there, or not allowed.
    pub fn prepare(main: S, cluster: Cluster, topic: &str, settings: ProducerSettings) -> Result<Self> {
        let settings = ProducerSettings { transactional: None, ..settings };
        let mailbox = Mailbox::open(cluster, topic, settings)?;
        let place = mailbox.place();
        Ok(WithLetterTopic { main, letters: Arc::new(Letters { mailbox: Mutex::new(mailbox), place }) })
    }
}

/// What the main sink gets: it has no place for dead letters, or another one.
fn without_letters(batches: &[Batch]) -> Vec<Batch> {
    batches.iter().map(|batch| Batch { failed: Body::default(), ..batch.clone() }).collect()
}

impl<S: Sink> Sink for WithLetterTopic<S> {
    fn shape(&self) -> Shape {
        Shape { dead_letters: DeadLetters::Store, letter_records: true, ..self.main.shape() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let rejected = || batches.iter().filter(|batch| !batch.failed.is_empty());
        if rejected().next().is_none() {
            return self.main.store(batches, receipts);
        }
        self.letters.deliver(rejected().map(|batch| (Delivery::of(batch), &batch.failed)))?;
        let before = receipts.len();
        let outcome = self.main.store(&without_letters(batches), receipts);
        let mut stored = receipts[before..].iter_mut().peekable();
        for batch in batches {
            let ours = |receipt: &&mut Receipt| receipt.id == batch.id;
            match stored.next_if(ours) {
                Some(receipt) => self.letters.complete(receipt, batch.failed.len()),
                // It will come again: its dead letters are there.
                None if outcome.is_err() && !batch.failed.is_empty() => {
                    self.letters.mailbox.lock().expect(std::iter::once(Delivery::of(batch)));
                }
                None => {}
            }
        }
        outcome
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        let main = self.main.open(id)?;
        Ok(Box::new(LetterUpload { main, letters: self.letters.clone(), id: id.clone() }))
    }

    fn finish(&self) -> Result<()> {
        self.main.finish()
    }
}

/// A batch in parts. Its dead letters are sent as they come: that is before it is published.
struct LetterUpload {
    main: Box<dyn Upload>,
    letters: Arc<Letters>,
    id: BatchId,
}

impl Upload for LetterUpload {
    fn part(&self, part: &Part) -> Result<()> {
        match part.stream {
            Stream::Stored => self.main.part(part),
            // The end of a batch that is still open is not known; its parts are told apart by their numbers.
            Stream::Failed => {
                let delivery = Delivery::new(&self.id, u64::MAX, part.index);
                self.letters.deliver(std::iter::once((delivery, &part.body)))
            }
        }
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        let mut receipt = self.main.publish(batch, &Totals { failed: 0, ..*totals })?;
        self.letters.complete(&mut receipt, totals.failed);
        Ok(receipt)
    }

    fn abort(&self) {
        self.main.abort();
    }
}
