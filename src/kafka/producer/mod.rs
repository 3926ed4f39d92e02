//! [`Producer`]: stores records in topics, once each (KIP-98), or in transactions together with the offsets of the
//! records they were made of (KIP-447).
//!
//! Records are collected by partition (`queue`) and sent when [`Producer::flush`] is called: to all leaders side
//! by side, one request in flight at each, so that nothing ever overtakes. What was not acknowledged is sent again
//! under its number until it is, or until the delivery deadline. After that the records still wait: another
//! `flush` goes on with the same numbers, so that trying again is never a duplicate; [`Producer::forget`] drops
//! them. What each error code means stands in `verdict`.
//!
//! It has no thread: whoever calls, waits. One caller at a time. It holds what was appended until it is flushed;
//! how much that is, is the caller's choice.

mod desk;
mod identity;
mod partition;
mod queue;
mod round;
mod transaction;
mod verdict;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::group::Identity;
pub use partition::partition_for;
pub use transaction::{Ended, GroupOffset, Revived, Transactional, Whose};

use super::cluster::{Cluster, REACH, TopicPartition, endless};
use super::code::Code;
use super::connection::Connection;
use super::error::{Error, Result};
use super::wire::{BatchWriter, Compression, Unwritable};
use crate::error::Retry;
use crate::retry::{Delays, Policy};
use desk::Patience;
use partition::Sticky;
use queue::{ProducerId, Queue, Spare};
use transaction::Transaction;
use verdict::Mode;

/// A record larger than this is refused at once: brokers close the connection of whoever sends more than
/// `socket.request.max.bytes`, 100 MiB by default, without a word.
const LARGEST_RECORD: usize = 96 << 20;

/// How records are stored.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// How batches are compressed.
    pub compression: Compression,
    /// How hard; `None`: Java's default.
    pub level: Option<i32>,
    /// A batch gets no more records once it has this many bytes before compression. Brokers take batches of
    /// 1,048,588 bytes after it by default; what is too large is split.
    pub max_batch: usize,
    /// A request gets no more batches once it has this many bytes.
    pub max_request: usize,
    /// How long a `flush`, and each step of a transaction, tries.
    pub delivery_timeout: Duration,
    /// How long a topic that nobody knows is asked for: a new one takes a moment to get around.
    pub topic_timeout: Duration,
    /// The delays between tries; how many there are, the timeout says.
    pub retry: Policy,
    /// Transactions, where they are wanted.
    pub transactional: Option<Transactional>,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        ProducerSettings {
            compression: Compression::Lz4,
            level: None,
            max_batch: 1_000_000,
            max_request: 8 << 20,
            delivery_timeout: Duration::from_secs(120),
            topic_timeout: Duration::from_secs(5),
            retry: Policy {
                max_retries: u32::MAX,
                delay: Duration::from_millis(20),
                max_delay: Duration::from_secs(1),
            },
            transactional: None,
        }
    }
}

/// One record to be stored. Null and empty are different.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a, H> {
    /// The key; `None`: null.
    pub key: Option<&'a [u8]>,
    /// The value; `None`: null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch.
    pub time: i64,
    /// Names and values of the headers.
    pub headers: H,
}

/// A topic that a producer writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output(usize);

/// Stores records in topics.
pub struct Producer {
    cluster: Cluster,
    settings: ProducerSettings,
    outputs: Vec<Out>,
    links: HashMap<i32, Connection>,
    producer: Option<ProducerId>,
    spare: Spare,
    transaction: Option<Transaction>,
    refreshed_at: Instant,
}

/// What is known of a topic, and what waits for its partitions.
struct Out {
    name: Arc<str>,
    queues: Vec<Queue>,
    /// How many partitions records are spread over.
    partitions: i32,
    sticky: Sticky,
}

impl Out {
    fn of(&self, partition: usize) -> TopicPartition {
        TopicPartition { topic: self.name.clone(), partition: partition as i32 }
    }
}

impl Producer {
    /// Nothing is connected yet.
    pub fn new(cluster: Cluster, settings: ProducerSettings) -> Self {
        let (compression, level) = (settings.compression, settings.level);
        Producer {
            cluster,
            outputs: Vec::new(),
            links: HashMap::new(),
            producer: None,
            spare: Spare::new(move || BatchWriter::new(compression, level)),
            transaction: settings.transactional.clone().map(Transaction::new),
            refreshed_at: Instant::now(),
            settings,
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A topic to write to, by name. Blocks until the cluster has told of it.
    ///
    /// # Errors
    /// [`Error::GaveUp`] if no broker answers within [`REACH`]; [`Error::NoTopic`] if nobody knows it for the topic
    /// timeout; [`Error::Topic`] if it is not allowed.
    pub fn output(&mut self, topic: &str) -> Result<Output> {
        if let Some(known) = self.outputs.iter().position(|out| &*out.name == topic) {
            return Ok(Output(known));
        }
        let name: Arc<str> = topic.into();
        let reached = self.deadline().min(Instant::now() + REACH);
        let settled = self.deadline().min(Instant::now() + self.settings.topic_timeout);
        let (mut delays, mut tries) = (self.delays(), 0);
        let partitions = loop {
            self.cluster.refresh(std::slice::from_ref(&name), reached)?;
            let known = self.cluster.topic(topic);
            let (code, partitions) =
                known.map_or((Code(3), 0), |known| (known.error, known.partitions.len()));
            match code {
                Code::NONE if partitions > 0 => break partitions,
                Code::NONE => {}
                code if code.retry() == Retry::Permanent => return Err(Error::Topic { topic: name, code }),
                _ => {}
            }
            let delay = delays.next().unwrap_or_default();
            if Instant::now() + delay >= settled {
                return Err(Error::NoTopic { topic: name });
            }
            tries += 1;
            let missing = Error::Topic { topic: name.clone(), code: Code::UNKNOWN_TOPIC_OR_PARTITION };
            self.cluster.again(&"looking for a topic to write to", &missing, tries, delay);
            self.sleep(delay)?;
        };
        let mut queues = Vec::new();
        queues.resize_with(partitions, Queue::default);
        let sticky = Sticky::starting_at(super::cluster::random());
        self.outputs.push(Out { name, queues, partitions: partitions as i32, sticky });
        Ok(Output(self.outputs.len() - 1))
    }

    /// Adds a record to what waits for its partition: that of its key, else one after the other by batches.
    /// Sends nothing.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`], and [`Error::Unwritable`] if a compressor fails. The record was not added.
    pub fn append<'h, H>(&mut self, to: Output, message: Message<'_, H>) -> Result<()>
    where
        H: Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    {
        let out = &mut self.outputs[to.0];
        let partition = match message.key {
            Some(key) => partition_for(key, out.partitions),
            None => out.sticky.current(out.partitions),
        };
        let (at, queue) = (partition as usize, &mut out.queues[partition as usize]);
        let size = message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len);
        if size > LARGEST_RECORD {
            return Err(too_large(out.of(at), size, message.key));
        }
        let full = queue.writer.as_ref().is_some_and(|writer| {
            !writer.is_empty() && writer.size().saturating_add(size) > self.settings.max_batch
        });
        if full {
            queue.seal(&mut self.spare).map_err(|source| unwritable(out.name.clone(), source))?;
            if message.key.is_none() {
                // The next batch without keys goes elsewhere, and so does this record.
                out.sticky.advance();
                return self.append(to, message);
            }
        }
        let writer = queue.writer.get_or_insert_with(|| self.spare.take());
        writer
            .push(message.time, message.key, message.value, message.headers)
            .map_err(|_| too_large(out.of(at), size, message.key))
    }

    /// Sends what was appended and waits until all of it is acknowledged by all replicas in sync, for at most the
    /// delivery timeout.
    ///
    /// # Errors
    /// [`Error::GaveUp`] at the deadline: what is left waits for another `flush`. Otherwise what can never be
    /// stored; inside a transaction also [`Error::Abortable`]: abort it, and try it again from its beginning.
    pub fn flush(&mut self) -> Result<()> {
        self.seal()?;
        if self.is_empty() {
            return Ok(());
        }
        let (begun, deadline) = (Instant::now(), self.deadline());
        let (mut delays, mut tries) = (self.delays(), 0);
        let mut last = None;
        if self.leave_silent() || self.refreshed_at.elapsed() > self.cluster.metadata_age() {
            self.refresh(deadline)?;
        }
        loop {
            self.identify(deadline)?;
            let mut round = self.round(deadline)?;
            let troubles = std::mem::take(&mut round.troubles);
            if self.is_empty() {
                self.seal_turns();
                return Ok(());
            }
            if round.moved {
                self.refresh(deadline)?;
            }
            if round.progressed {
                (delays, tries) = (self.delays(), 0);
            }
            let delay = if round.progressed { Duration::ZERO } else { delays.next().unwrap_or_default() };
            let delay = delay.max(round.throttled);
            if Instant::now() + delay >= deadline {
                return Err(self.gave_up(begun.elapsed(), troubles.into_iter().last().or(last)));
            }
            tries += 1;
            for error in troubles {
                self.cluster.again(&"storing records", &error, tries, delay);
                last = Some(error);
            }
            self.sleep(delay)?;
        }
    }

    /// Whether nothing waits to be stored.
    pub fn is_empty(&self) -> bool {
        self.outputs.iter().flat_map(|out| &out.queues).all(Queue::is_empty)
    }

    /// Drops everything that was appended and not acknowledged. Some of it may be stored all the same.
    pub fn forget(&mut self) {
        let mut numbered = false;
        for queue in self.outputs.iter_mut().flat_map(|out| &mut out.queues) {
            numbered |= queue.clear(&mut self.spare);
        }
        // Numbers that may be in the log are never given to other records.
        if numbered && self.transaction.is_none() {
            self.bump();
        }
    }

    /// Closes connections to brokers that gave no answer to others, and tells whether there were any: they may lead
    /// nothing any more.
    fn leave_silent(&mut self) -> bool {
        let before = self.links.len();
        self.links.retain(|_, link| !self.cluster.is_silent(link.broker()));
        self.links.len() < before
    }

    fn seal(&mut self) -> Result<()> {
        for out in &mut self.outputs {
            for queue in &mut out.queues {
                queue.seal(&mut self.spare).map_err(|source| unwritable(out.name.clone(), source))?;
            }
        }
        Ok(())
    }

    /// After a flush the next partition gets the records without a key, and new partitions get their share.
    fn seal_turns(&mut self) {
        for out in &mut self.outputs {
            out.sticky.advance();
            let known = self.cluster.topic(&out.name).map_or(0, |topic| topic.partitions.len());
            if known > out.queues.len() {
                log::info!("topic {} has {known} partitions now, {} before", out.name, out.queues.len());
                out.queues.resize_with(known, Queue::default);
                out.partitions = known as i32;
            }
        }
    }

    fn refresh(&mut self, deadline: Instant) -> Result<()> {
        let names: Vec<_> = self.outputs.iter().map(|out| out.name.clone()).collect();
        self.cluster.refresh(&names, deadline)?;
        self.refreshed_at = Instant::now();
        Ok(())
    }

    /// What is wrong at the delivery deadline.
    fn gave_up(&self, after: Duration, last: Option<Error>) -> Error {
        let waiting = |out: &&Out| out.queues.iter().any(|queue| !queue.is_empty());
        let names: Vec<_> = self.outputs.iter().filter(waiting).map(|out| out.name.clone()).collect();
        for topic in &names {
            if self.cluster.topic(topic).is_some_and(|known| known.error.0 == 3) {
                return Error::NoTopic { topic: topic.clone() };
            }
        }
        let last = last.unwrap_or_else(|| Error::Unavailable("no answer came".into()));
        Error::GaveUp {
            what: format!("storing records in {}", names.join(", ")),
            after,
            last: Box::new(last),
        }
    }

    fn mode(&self) -> Mode {
        if self.transaction.is_some() { Mode::Transactional } else { Mode::Idempotent }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.delivery_timeout
    }

    fn delays(&self) -> Delays {
        endless(self.settings.retry)
    }

    fn patience(&self, deadline: Instant) -> Patience {
        Patience { cluster: self.cluster.clone(), retry: self.settings.retry, deadline }
    }

    fn sleep(&self, delay: Duration) -> Result<()> {
        self.cluster.stop().sleep(delay).map_err(|_| Error::HungUp)
    }
}

fn unwritable(topic: Arc<str>, source: Unwritable) -> Error {
    Error::Unwritable { topic, source }
}

fn too_large(of: TopicPartition, size: usize, key: Option<&[u8]>) -> Error {
    // Long keys are cut: the message is one line.
    let key = key.map(|key| key[..key.len().min(80)].escape_ascii().to_string());
    Error::RecordTooLarge { of, size, key }
}
