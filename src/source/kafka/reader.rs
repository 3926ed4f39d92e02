//! One reader: carries out the desk's orders, fetches, and fills chunks.
//!
//! It asks the group's changes from the desk before it fetches, so a partition that is given up yields nothing
//! more. A fetched answer is worked off before the next is asked for; the fetcher has that one on its way already.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::desk::{Order, Seat};
use super::fill::{Fetch, Filled, Reading, resume};
use super::{Shared, refused};
use crate::config::kafka::OutOfRange;
use crate::error::{Error, Result};
use crate::kafka::Code;
use crate::kafka::cluster::{At, Isolation, TopicPartition};
use crate::kafka::consumer::{FetchFault, FetchFrom, Fetched, Fetcher};
use crate::kafka::wire::{Damage, Fault, Unpacker};
use crate::record::{Chunk, Partition};
use crate::source::{Flow, Read, Reader};
use crate::stop::Stop;

/// How long one `read` waits for records: the engine asks for less than 500 ms.
const WAIT: Duration = Duration::from_millis(200);
/// How often the group is asked whether everything is committed.
const ASK: Duration = Duration::from_millis(500);
/// How often at least, while it does not answer.
const ASK_AT_LEAST: Duration = Duration::from_secs(8);
/// How long a topic may be missing: a broker that has just started does not know of all of them.
const MISSING: Duration = Duration::from_secs(30);
/// More memory than this is given back after an unusually large record batch.
const KEEP: usize = 4 << 20;

pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    index: usize,
    stop: Stop,
    fetcher: Fetcher,
    unpacker: Unpacker,
    held: HashMap<TopicPartition, Held>,
    /// What was fetched and is not yet in chunks.
    current: Option<(TopicPartition, Fetch)>,
    /// What is to be told to the engine before anything else.
    news: VecDeque<Read>,
    asked: Instant,
    /// Since when the group cannot be asked for its commits, and how often that was tried.
    unasked: Option<(Instant, u32)>,
    /// When the cluster was asked whose answer was looked at for new partitions.
    told_at: Option<Instant>,
    /// Since when a topic is not there.
    missing: HashMap<Arc<str>, Instant>,
    left: u64,
}

/// A partition of this reader.
struct Held {
    partition: Partition,
    topic_id: uuid::Uuid,
    reading: Reading,
    begun: bool,
    /// What the engine wants of it, whether the fetcher knows the partition yet or not.
    flow: Flow,
}

impl KafkaReader {
    pub fn new(shared: Arc<Shared>, index: usize, stop: Stop) -> Self {
        let fetcher = Fetcher::new(shared.cluster.clone(), shared.options.fetch.clone());
        let unpacker = Unpacker::new(shared.unpack_cap());
        let left = shared.options.limit.unwrap_or(u64::MAX);
        KafkaReader {
            shared,
            index,
            stop,
            fetcher,
            unpacker,
            held: HashMap::new(),
            current: None,
            news: VecDeque::new(),
            asked: Instant::now(),
            unasked: None,
            told_at: None,
            missing: HashMap::new(),
            left,
        }
    }

    /// Asks the group for changes and carries out what the desk wants.
    fn orders(&mut self) -> Result<()> {
        if let Some(group) = &self.shared.group {
            group.polled();
            self.shared.desk.pass_on(|| group.next_change(), |of| self.shared.reader_of(of, usize::MAX));
        }
        while let Some(order) = self.shared.desk.order(self.index) {
            match order {
                Order::Take(seat) => self.take(seat)?,
                Order::Give(partition) => {
                    self.forget(&partition);
                    self.news.push_back(Read::Revoked(partition));
                }
                Order::Drop(partition) => {
                    self.forget(&partition);
                    self.news.push_back(Read::Lost(partition));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, seat: Seat) -> Result<()> {
        let begin = self.shared.begin(&seat)?;
        let of = &seat.tenancy.of;
        log::info!("{of}: reading from offset {}", begin.offset);
        self.news.push_back(Read::Assigned(seat.partition.clone(), Some(begin.mark(&seat))));
        let options = &self.shared.options;
        let reading = Reading {
            next: begin.offset,
            leader_epoch: begin.leader_epoch,
            end: begin.end(self.shared.desk.end(of)),
            left: self.left,
            payload: options.payload,
            max_record_bytes: options.max_record_bytes as usize,
        };
        let held = Held {
            partition: seat.partition.clone(),
            topic_id: seat.tenancy.topic_id,
            reading,
            begun: false,
            flow: Flow::Run,
        };
        // What was fetched for an earlier tenancy does not begin where this one does.
        self.drop_fetched(of);
        self.held.insert(of.clone(), held);
        Ok(())
    }

    fn forget(&mut self, partition: &Partition) {
        let of = self.held.iter().find(|(_, held)| held.partition == *partition).map(|(of, _)| of.clone());
        if let Some(of) = of {
            self.held.remove(&of);
            self.drop_fetched(&of);
        }
    }

    fn drop_fetched(&mut self, of: &TopicPartition) {
        self.fetcher.remove(of);
        self.current.take_if(|(current, _)| current == of);
    }

    /// Begins to fetch partitions whose start is committed, and ends those that begin at their end.
    fn begin_fetching(&mut self) {
        let waiting = self.held.iter_mut().filter(|(_, held)| !held.begun);
        for (of, held) in waiting {
            if !self.shared.desk.seat(&held.partition).is_some_and(|seat| seat.begun) {
                continue;
            }
            held.begun = true;
            if held.reading.is_at_end() {
                self.shared.desk.ended(&held.partition);
                self.news.push_back(Read::Ended(held.partition.clone()));
                continue;
            }
            self.fetcher.add(FetchFrom {
                of: of.clone(),
                topic_id: held.topic_id,
                offset: held.reading.next as i64,
                leader_epoch: held.reading.leader_epoch,
            });
            if held.flow == Flow::Pause {
                self.fetcher.pause(of);
            }
        }
    }

    /// Puts fetched records into the chunk. `None`: there was nothing in them.
    fn fill(&mut self, chunk: &mut Chunk) -> Option<Read> {
        let (of, fetch) = self.current.as_mut()?;
        let Some(held) = self.held.get_mut(of) else {
            self.current = None;
            return None;
        };
        let from = held.reading.next;
        held.reading.left = self.left;
        chunk.start(&held.partition, from);
        chunk.set_payload(held.reading.payload);
        let filled = fetch.fill(&mut held.reading, &mut self.unpacker, chunk);
        self.left = held.reading.left;
        chunk.set_resume(resume(held.reading.leader_epoch));
        let moved = held.reading.next > from;
        if matches!(filled, Ok(Filled::End)) {
            self.shared.desk.ended(&held.partition);
            self.news.push_back(Read::Ended(held.partition.clone()));
            self.fetcher.remove(of);
        }
        if !matches!(filled, Ok(Filled::Full)) {
            let of = of.clone();
            self.current = None;
            // Not before: the walk that was left goes on in this memory.
            self.unpacker.shrink(KEEP);
            chunk.close_block();
            if let Err(damage) = filled {
                self.fail(&of, damaged(&of, damage.base_offset.max(0) as u64, explained(&damage)));
            }
        }
        moved.then_some(Read::Chunk)
    }

    /// The rest of a partition cannot be read; what was read of it is stored.
    fn fail(&mut self, of: &TopicPartition, error: Error) {
        let Some(held) = self.held.get(of) else { return };
        self.shared.desk.failed(&held.partition);
        self.news.push_back(Read::Failed(held.partition.clone(), error));
        self.fetcher.remove(of);
    }

    /// What is to be told before anything else. A run without an end stops where a partition fails: it would go on
    /// without it for months. One with an end reads the others up to there.
    fn news(&mut self) -> Option<Read> {
        let news = self.news.pop_front()?;
        if let Read::Failed(partition, error) = &news {
            if self.shared.desk.ends().is_some() {
                log::warn!("{partition}: {error}; the rest of it is not read, the others are");
            } else {
                self.stop.drain();
            }
        }
        Some(news)
    }

    /// Takes what was fetched. Something comes of it at once only where nothing is left to be fetched.
    fn fetched(&mut self, fetched: Fetched, chunk: &mut Chunk) -> Result<Option<Read>> {
        let of = fetched.of;
        let Some(held) = self.held.get_mut(&of) else { return Ok(None) };
        if let Some(fault) = fetched.fault {
            return self.fault(&of, fault, chunk);
        }
        let readable = match self.shared.options.fetch.isolation {
            Isolation::ReadCommitted => fetched.last_stable,
            Isolation::ReadUncommitted => fetched.high_watermark,
        };
        let readable = held.reading.end.unwrap_or(u64::MAX).min(readable.max(0) as u64);
        chunk.set_readable(&held.partition, held.reading.next, readable);
        self.shared.consumed.fetch_add(fetched.records.len() as u64, Ordering::Relaxed);
        self.current = Some((of, Fetch::new(fetched.records, fetched.aborted)));
        Ok(None)
    }

    /// What comes next cannot be had.
    fn fault(&mut self, of: &TopicPartition, fault: FetchFault, chunk: &mut Chunk) -> Result<Option<Read>> {
        match fault {
            FetchFault::OutOfRange { log_start, high_watermark } => {
                self.out_of_range(of, log_start, high_watermark, chunk)
            }
            FetchFault::Truncated { offset, epoch, end } => {
                Err(refused(&of.to_string(), truncated(offset, epoch, end)))
            }
            FetchFault::Recreated { .. } => Err(refused(
                &of.to_string(),
                "the topic was deleted and created again while it was read: what was read of the old one and is not \
                 stored yet is gone with it; the same command reads the new one",
            )),
            FetchFault::Denied(code) | FetchFault::Other(code) => {
                let most = self.shared.options.fetch.max_bytes;
                Err(refused(&of.to_string(), unreadable(code, most)))
            }
        }
    }

    fn out_of_range(
        &mut self,
        of: &TopicPartition,
        log_start: i64,
        high_watermark: i64,
        chunk: &mut Chunk,
    ) -> Result<Option<Read>> {
        // Given up meanwhile.
        let Some(next) = self.held.get(of).map(|held| held.reading.next) else { return Ok(None) };
        let (log_start, high_watermark) = if log_start < 0 || high_watermark < 0 {
            (self.shared.resolve(of, At::Earliest)?.offset, self.shared.resolve(of, At::Latest)?.offset)
        } else {
            (log_start as u64, high_watermark as u64)
        };
        let why = format!("offset {next} is not there: the broker has {log_start} to {high_watermark}");
        let at = match self.shared.options.on_out_of_range {
            OutOfRange::Error => {
                let hint = "records were lost upstream, by retention or an unclean leader election; \
                            --set kafka.source.on_out_of_range=earliest or latest goes on without them";
                // What was read is stored: it may be gone where it came from.
                self.fail(of, damaged(of, next, format!("{why}; {hint}")));
                return Ok(None);
            }
            OutOfRange::Earliest => At::Earliest,
            OutOfRange::Latest => At::Latest,
        };
        let begin = self.shared.resolve(of, at)?;
        if begin.offset < next {
            let hint =
                "the log is shorter than what was read of it; reset the group's offsets to read it again";
            return Err(refused(&of.to_string(), format!("{why}; {hint}")));
        }
        log::warn!("{of}: {why}; going on at {}: the records between are lost", begin.offset);
        let Some(held) = self.held.get_mut(of) else { return Ok(None) };
        held.reading.next = begin.offset;
        held.reading.leader_epoch = -1;
        self.fetcher.remove(of);
        held.begun = false;
        // The gap is told: where no record follows it up to the end, a run that waits until all is committed up to
        // there would wait for ever.
        chunk.start(&held.partition, next);
        chunk.set_payload(held.reading.payload);
        // Batches that are planned to end in it, too, have no leader epoch to go on from.
        chunk.set_resume_within(resume(-1));
        chunk.set_end(held.reading.end.map_or(begin.offset, |end| end.min(begin.offset)).max(next));
        Ok((chunk.end > next).then_some(Read::Chunk))
    }

    /// Looks for partitions that were added, whenever the cluster has told something, whoever asked.
    fn look_for_partitions(&mut self) {
        let told_at = self.shared.cluster.told_at();
        if self.index == 0 && self.told_at != told_at {
            self.told_at = told_at;
            self.shared.add_partitions();
        }
    }

    /// A topic that was deleted ends the run, when it was missing for a while.
    fn miss_topics(&mut self) -> Result<()> {
        if self.index != 0 {
            return Ok(());
        }
        for topic in &self.shared.options.topics {
            let known = self.shared.cluster.topic(topic);
            if known.is_none_or(|known| known.error != Code::UNKNOWN_TOPIC_OR_PARTITION) {
                self.missing.remove(topic);
                continue;
            }
            let since = self.missing.entry(topic.clone()).or_insert_with(Instant::now);
            if since.elapsed() > MISSING {
                let why = "it is not there any more: it was deleted while it was read; what was read of it and is not \
                           stored yet is gone with it";
                return Err(refused(topic, why));
            }
        }
        Ok(())
    }

    /// Whether nothing is left to do, for this run and for the other members of its group.
    fn is_done(&mut self) -> Result<bool> {
        let desk = &self.shared.desk;
        if desk.is_done() || self.left == 0 {
            return Ok(true);
        }
        let failures = self.unasked.map_or(0, |(_, failures)| failures);
        if self.index != 0 || !desk.is_read() || self.asked.elapsed() < ask_in(failures) {
            return Ok(false);
        }
        self.asked = Instant::now();
        let done = match (&self.shared.group, desk.ends()) {
            (Some(_), Some(_)) if desk.has_failed() => true,
            (Some(group), Some(ends)) => match self.shared.is_committed(&ends) {
                Ok(done) => {
                    self.unasked = None;
                    done
                }
                Err(error) => {
                    let since = self.unasked.map_or_else(Instant::now, |(since, _)| since);
                    if !error.is_transient() || since.elapsed() >= group.settings().give_up_after {
                        return Err(error);
                    }
                    self.unasked = Some((since, failures + 1));
                    self.shared.again(&error, failures + 1, ask_in(failures + 1));
                    false
                }
            },
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if done {
            desk.finish();
        }
        Ok(done)
    }
}

impl Reader for KafkaReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if !self.stop.is_running() {
            return Ok(Read::Done);
        }
        self.look_for_partitions();
        self.orders()?;
        if let Some(news) = self.news() {
            return Ok(news);
        }
        self.miss_topics()?;
        self.begin_fetching();
        loop {
            if let Some(news) = self.news() {
                return Ok(news);
            }
            if let Some(read) = self.fill(chunk) {
                return Ok(read);
            }
            if !self.news.is_empty() || self.current.is_some() {
                continue;
            }
            if self.is_done()? {
                return Ok(Read::Done);
            }
            match self.fetcher.next(WAIT)? {
                Some(fetched) => {
                    if let Some(read) = self.fetched(fetched, chunk)? {
                        return Ok(read);
                    }
                }
                None => return Ok(Read::Idle),
            }
        }
    }

    fn pause(&mut self, partition: &Partition, flow: Flow) {
        let Some((of, held)) = self.held.iter_mut().find(|(_, held)| held.partition == *partition) else {
            return;
        };
        held.flow = flow;
        match flow {
            Flow::Pause => self.fetcher.pause(of),
            Flow::Run => self.fetcher.resume(of),
        }
    }
}

/// How long after the last time the group is asked for its commits, where that has failed so often.
fn ask_in(failures: u32) -> Duration {
    ASK.saturating_mul(1 << failures.min(10)).min(ASK_AT_LEAST)
}

/// What can be read of a partition ends at an offset.
fn damaged(of: &TopicPartition, offset: u64, reason: String) -> Error {
    Error::Damaged { name: format!("kafka topic partition {of}"), unit: "offset", position: offset, reason }
}

/// What is wrong with a record batch, and what to do where something can be done.
fn explained(damage: &Damage) -> String {
    match damage.fault {
        Fault::TooLarge { .. } => format!(
            "{damage}; a batch may unpack to four times input.max_record_bytes, and to 64 MiB at least: raise that"
        ),
        _ => damage.to_string(),
    }
}

/// Why a partition cannot be read, with answers of at most so many bytes.
fn unreadable(code: Code, most: i32) -> String {
    match code {
        // What the code means elsewhere is about writing.
        Code::MESSAGE_TOO_LARGE => format!(
            "a record batch does not fit into an answer of {most} bytes: raise kafka.source.fetch_max_bytes"
        ),
        code => code.to_string(),
    }
}

/// Why a position is not in the log any more. `end` is -1 where the leader does not know the epoch at all.
fn truncated(offset: i64, epoch: i32, end: i64) -> String {
    if end < 0 {
        return format!(
            "what was read up to offset {offset} is not in the log any more, or not as it was: the leader knows nothing \
             of leader epoch {epoch}, as after a cluster was restored or a topic made anew; reset the group's offset \
             to go on"
        );
    }
    format!(
        "records from offset {end} on that were read up to {offset} are not in the log any more: it was cut back by an \
         unclean leader election; reset the group's offset to {end} to go on there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_is_gone_is_told_with_where_to_go_on() {
        assert!(truncated(9, 3, 5).ends_with("reset the group's offset to 5 to go on there"));
        // Nobody knows where.
        let text = truncated(9, 3, -1);
        assert!(text.contains("up to offset 9 ") && text.contains("leader epoch 3,"), "{text}");
        assert!(!text.contains("-1"), "{text}");
    }

    #[test]
    fn a_group_that_does_not_answer_is_asked_later_and_later() {
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|failures| ask_in(failures).as_millis()),
            [500, 1000, 2000, 4000, 8000, 8000]
        );
    }

    #[test]
    fn a_batch_that_does_not_fit_into_an_answer_names_the_setting() {
        assert!(
            unreadable(Code::MESSAGE_TOO_LARGE, 7).ends_with("7 bytes: raise kafka.source.fetch_max_bytes")
        );
        assert_eq!(unreadable(Code(29), 7), Code(29).to_string());
    }

    #[test]
    fn a_batch_that_unpacks_to_too_much_names_the_setting() {
        let told = |fault| explained(&Damage { base_offset: 5, fault });
        assert!(
            told(Fault::TooLarge { cap: 7 })
                .ends_with("four times input.max_record_bytes, and to 64 MiB at least: raise that")
        );
        assert_eq!(told(Fault::UnknownCompression(5)), "batch at offset 5: unknown compression 5");
    }
}
