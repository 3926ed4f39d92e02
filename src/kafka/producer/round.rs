//! One round of a flush: the first batch of every partition to its leader, all leaders side by side, then all
//! answers. A batch leaves its queue only when it is acknowledged, so the next round sends what is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::queue::{ProducerId, Unsplittable};
use super::verdict::{Mode, Verdict, judge};
use super::{Producer, too_large, unwritable};
use crate::error::Retry;
use crate::kafka::cluster::topic_name;
use crate::kafka::code::Code;
use crate::kafka::connection::{Connection, Pending};
use crate::kafka::error::{Error, Result};
use crate::kafka::wire::Scope;

/// From this version on topics are named by their ids (KIP-516).
const BY_ID: i16 = 13;
/// The last version that does not add partitions to a transaction by itself (KIP-890).
const BEFORE_IMPLICIT: i16 = 11;
/// All replicas in sync.
const ALL: i16 = -1;

/// What a round came to.
#[derive(Default)]
pub(super) struct Round {
    /// Whether a batch was stored or split.
    pub progressed: bool,
    /// Whether leaders must be asked for.
    pub moved: bool,
    /// What went wrong and may pass: one of a partition or a broker at most.
    pub troubles: Vec<Error>,
    /// How long a broker asked to be left alone.
    pub throttled: Duration,
}

/// A partition: index of the output, and its number.
pub(super) type At = (usize, usize);

/// A request that waits for its answer.
struct Sent {
    broker: i32,
    pending: Pending<ProduceRequest>,
    places: Vec<At>,
    at: Instant,
}

impl Round {
    fn trouble(&mut self, error: Error) {
        self.troubles.push(error);
    }
}

impl Producer {
    /// Sends each partition's first batch and takes the answers. Blocks for at most the request timeout, and
    /// until about `deadline`.
    pub(super) fn round(&mut self, deadline: Instant) -> Result<Round> {
        let mut round = Round::default();
        let plan = self.plan(&mut round)?;
        self.enlist(plan.values().flatten(), deadline)?;
        let (mut sent, mut fatal) = (Vec::new(), None);
        for (broker, places) in plan {
            match self.send(broker, &places) {
                Ok(pending) => sent.push(Sent { broker, pending, places, at: Instant::now() }),
                Err(error) => self.lost(broker, &places, error, &mut round, &mut fatal),
            }
        }
        // Every answer is received, whatever the others say: what was sent is in doubt until then.
        for Sent { broker, pending, places, at } in sent {
            match self.receive(broker, pending, at, deadline) {
                Ok(answer) => {
                    for place in places {
                        if let Err(error) = self.settle(place, &answer, &mut round) {
                            fatal.get_or_insert(error);
                        }
                    }
                }
                Err(error) => self.lost(broker, &places, error, &mut round, &mut fatal),
            }
        }
        fatal.map_or(Ok(round), Err)
    }

    /// Which partitions' first batches go to which broker.
    fn plan(&self, round: &mut Round) -> Result<BTreeMap<i32, Vec<At>>> {
        let mut plan: BTreeMap<i32, (usize, Vec<At>)> = BTreeMap::new();
        for (index, out) in self.outputs.iter().enumerate() {
            let topic = self.cluster.topic(&out.name);
            for (partition, queue) in out.queues.iter().enumerate() {
                let Some(first) = queue.sealed.front() else { continue };
                let known = topic.as_ref().and_then(|topic| topic.partition(partition as i32));
                let Some(leader) = known.and_then(|known| known.leader) else {
                    let code = topic.as_ref().map_or(Code(3), |topic| topic.error);
                    if code != Code(0) && code.retry() == Retry::Permanent {
                        return Err(Error::Topic { topic: out.name.clone(), code });
                    }
                    let code = known.map_or(Code(3), |known| known.error);
                    round.moved = true;
                    let of = out.of(partition);
                    round.trouble(Error::Partition { of, api: "Produce", code });
                    continue;
                };
                let throttled = self.links.get(&leader).map_or(Duration::ZERO, Connection::throttle);
                if !throttled.is_zero() {
                    round.throttled = round.throttled.max(throttled);
                    continue;
                }
                let (size, places) = plan.entry(leader).or_default();
                if *size == 0 || *size + first.bytes.len() <= self.settings.max_request {
                    *size += first.bytes.len();
                    places.push((index, partition));
                }
            }
        }
        if !plan.is_empty() {
            round.throttled = Duration::ZERO;
        }
        Ok(plan.into_iter().map(|(broker, (_, places))| (broker, places)).collect())
    }

    fn send(&mut self, broker: i32, places: &[At]) -> Result<Pending<ProduceRequest>> {
        if !self.links.get(&broker).is_some_and(Connection::is_open) {
            let link = self.cluster.connect(broker)?;
            self.links.insert(broker, link);
        }
        let most = self.newest(places);
        let version = self.links[&broker].version::<ProduceRequest>(most)?;
        let request = self.request(places, version)?;
        let link = self.links.get_mut(&broker).expect("it was put in above");
        link.send(&request, version)
    }

    /// The highest version that these partitions may be sent in.
    fn newest(&self, places: &[At]) -> i16 {
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.is_implicit()) {
            return BEFORE_IMPLICIT;
        }
        let named = |(index, _): &At| self.cluster.topic(&self.outputs[*index].name);
        let ids = places.iter().all(|at| named(at).is_some_and(|topic| !topic.id.is_nil()));
        if ids { i16::MAX } else { BY_ID - 1 }
    }

    fn request(&mut self, places: &[At], version: i16) -> Result<ProduceRequest> {
        let producer = self.producer.ok_or_else(|| Error::Unavailable("no producer id".into()))?;
        let scope = if self.transaction.is_some() { Scope::Transaction } else { Scope::Plain };
        let mut topics: Vec<TopicProduceData> = Vec::new();
        let mut of = None;
        for (index, partition) in places {
            let out = &mut self.outputs[*index];
            if of.replace(*index) != Some(*index) {
                let id = self.cluster.topic(&out.name).map(|topic| topic.id).unwrap_or_default();
                topics.push(match version {
                    BY_ID.. => TopicProduceData::default().with_topic_id(id),
                    _ => TopicProduceData::default().with_name(topic_name(&out.name)),
                });
            }
            let Some(batch) = out.queues[*partition].stamped(producer, scope) else { continue };
            let data = PartitionProduceData::default()
                .with_index(*partition as i32)
                .with_records(Some(batch.bytes.clone()));
            topics.last_mut().expect("it was pushed above").partition_data.push(data);
        }
        // Sooner than the answer is given up, so that the broker says what it waited for.
        let timeout = self.cluster.options().request_timeout;
        let patience = timeout - (timeout / 4).min(Duration::from_secs(5));
        let id = self.transaction.as_ref().map(|transaction| transaction.id());
        Ok(ProduceRequest::default()
            .with_acks(ALL)
            .with_timeout_ms(i32::try_from(patience.as_millis()).unwrap_or(i32::MAX))
            .with_transactional_id(id.map(|id| TransactionalId(StrBytes::from_string(id.to_string()))))
            .with_topic_data(topics))
    }

    fn receive(
        &mut self,
        broker: i32,
        pending: Pending<ProduceRequest>,
        at: Instant,
        deadline: Instant,
    ) -> Result<ProduceResponse> {
        let until = (at + self.cluster.options().request_timeout).min(deadline);
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let link = self.links.get_mut(&broker).expect("it was sent on this connection");
        let answer = link.receive(pending, left)?;
        self.cluster.trust(link.broker());
        Ok(answer)
    }

    /// No answer came: what was sent may be stored.
    fn lost(
        &mut self,
        broker: i32,
        places: &[At],
        error: Error,
        round: &mut Round,
        fatal: &mut Option<Error>,
    ) {
        self.links.remove(&broker);
        // Before it is asked who leads now.
        self.cluster.suspect(&error);
        round.moved = true;
        if error.is_ambiguous() {
            for (index, partition) in places {
                self.outputs[*index].queues[*partition].doubt();
            }
        }
        if error.retry() == Retry::Transient {
            round.trouble(error);
        } else {
            fatal.get_or_insert(error);
        }
    }

    /// Takes the answer for one partition.
    fn settle(&mut self, (index, partition): At, answer: &ProduceResponse, round: &mut Round) -> Result<()> {
        let of = self.outputs[index].of(partition);
        let Some(answer) = self.find(index, partition, answer) else {
            // An answer without this partition says nothing.
            self.outputs[index].queues[partition].doubt();
            round.trouble(Error::Partition { of, api: "Produce", code: Code(-1) });
            return Ok(());
        };
        let code = Code(answer.error_code);
        let mut verdict = judge(code, self.mode());
        if code.0 == 59 && answer.log_start_offset == -1 && self.mode() == Mode::Idempotent {
            // The broker was losing the partition while it answered: it does not mean this.
            verdict = Verdict::Moved;
        }
        if verdict != Verdict::Stored {
            round.trouble(Error::Partition { of, api: "Produce", code });
        }
        let queue = &mut self.outputs[index].queues[partition];
        match verdict {
            Verdict::Stored => {
                queue.acknowledged();
                round.progressed = true;
            }
            Verdict::Again => {}
            Verdict::Moved => round.moved = true,
            Verdict::Doubtful => queue.doubt(),
            Verdict::Split => return self.split((index, partition), code, round),
            Verdict::Renumber => return self.renumber((index, partition), code),
            Verdict::Abort | Verdict::Fenced => return Err(self.transaction_failed("Produce", code)),
            Verdict::Refused => {
                let of = self.outputs[index].of(partition);
                return Err(Error::Records { of, code, detail: detail(answer) });
            }
        }
        Ok(())
    }

    fn find<'a>(
        &self,
        index: usize,
        partition: usize,
        answer: &'a ProduceResponse,
    ) -> Option<&'a PartitionProduceResponse> {
        let name = &self.outputs[index].name;
        let id = self.cluster.topic(name).map(|topic| topic.id).unwrap_or_default();
        let ours = |topic: &&kafka_protocol::messages::produce_response::TopicProduceResponse| {
            if topic.name.0.is_empty() { topic.topic_id == id } else { topic.name.0[..] == **name }
        };
        let topics = answer.responses.iter().filter(ours);
        topics.flat_map(|topic| &topic.partition_responses).find(|found| found.index == partition as i32)
    }

    /// The first batch is too large: two halves take its place.
    fn split(&mut self, (index, partition): At, code: Code, round: &mut Round) -> Result<()> {
        let out = &mut self.outputs[index];
        let queue = &mut out.queues[partition];
        if queue.sealed.front().is_some_and(|batch| batch.doubtful) {
            return Err(Error::Uncertain { of: out.of(partition), code });
        }
        round.progressed = true;
        match queue.split(&mut self.spare) {
            Ok(()) => Ok(()),
            Err(Unsplittable::OneRecord(size, key)) => {
                Err(too_large(out.of(partition), size, key.as_deref()))
            }
            Err(Unsplittable::Unwritable(source)) => Err(unwritable(out.name.clone(), source)),
            Err(Unsplittable::Damaged(damage)) => {
                let (of, detail) = (out.of(partition), format!("; it cannot be split: {damage}"));
                Err(Error::Records { of, code, detail })
            }
        }
    }

    /// The broker does not know the numbers before the first batch's. If this batch was never in doubt it is not
    /// stored, and can be stored under a new epoch without being there twice. Records before it may be gone.
    fn renumber(&mut self, (index, partition): At, code: Code) -> Result<()> {
        let out = &mut self.outputs[index];
        let queue = &mut out.queues[partition];
        let Some(first) = queue.sealed.front() else { return Ok(()) };
        if first.doubtful {
            return Err(Error::Uncertain { of: out.of(partition), code });
        }
        let under = first.stamp.map(|stamp| ProducerId { id: stamp.producer_id, epoch: stamp.epoch });
        log::warn!(
            "{}: {code}; going on with a new epoch. The topic's brokers may have lost acknowledged records",
            out.of(partition)
        );
        out.queues[partition].unstamp();
        if under == self.producer {
            self.bump();
        }
        Ok(())
    }
}

/// What the broker says beside the code.
fn detail(answer: &PartitionProduceResponse) -> String {
    let records = answer.record_errors.iter();
    let first = records.flat_map(|record| &record.batch_index_error_message).next();
    let text = answer.error_message.as_ref().or(first);
    text.map_or_else(String::new, |text| format!("; the broker says: {}", text.as_str()))
}
