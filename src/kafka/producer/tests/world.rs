//! A small cluster in this process that keeps what producers send as a broker does: it checks sequences, epochs
//! and transactions, and answers as the test's script says where that has an opinion.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::api_versions_response::FinalizedFeatureKey;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::decode_request_header_from_buffer;
use parking_lot::Mutex;

use crate::kafka::Address;
use crate::kafka::cluster::tests::{broker, metadata, topic};
use crate::kafka::fake::{Asked, Reply, versions};
use crate::kafka::wire::{Batches, Unpacker};

/// The topic that is there. Its id is 1.
pub const TOPIC: &str = "out";

/// A record as it stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub producer: (i64, i16),
    pub sequence: i32,
    /// `None`: its transaction is open.
    pub counts: Option<bool>,
}

#[derive(Default)]
struct Log {
    rows: Vec<Row>,
    /// Per producer id: epoch, and first and last sequences of its latest batches.
    producers: HashMap<i64, (i16, Vec<(i32, i32)>)>,
}

/// What the cluster keeps.
pub struct State {
    ports: Vec<u16>,
    /// Leader and epoch of each partition.
    pub leaders: Vec<(i32, i32)>,
    logs: Vec<Log>,
    next_id: i64,
    /// The node that coordinates transactions, and the one that coordinates groups.
    pub coordinators: (i32, i32),
    /// `transaction.version`.
    pub level: i16,
    /// The transactional producer.
    pub producer: (i64, i16),
    pub open: bool,
    /// The last end: epoch it was asked under, and whether it was a commit.
    ended: Option<(i16, bool)>,
    pending_offsets: BTreeMap<(String, i32), (i64, String)>,
    pub offsets: BTreeMap<(String, i32), (i64, String)>,
    added: Vec<i32>,
    pub calls: Vec<(i32, ApiKey, i16)>,
}

type Script = Box<dyn FnMut(&mut State, i32, &Asked) -> Option<Reply> + Send>;

/// The cluster. Dropping it stops it.
pub struct World {
    pub state: Arc<Mutex<(State, Script)>>,
    pub addresses: Vec<Arc<Address>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl World {
    /// `nodes` nodes from 1 on; partition `n` is led by `leaders[n]`.
    #[allow(clippy::disallowed_methods)]
    pub fn start(
        nodes: usize,
        leaders: &[i32],
        script: impl FnMut(&mut State, i32, &Asked) -> Option<Reply> + Send + 'static,
    ) -> World {
        let listeners: Vec<_> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let state = State {
            ports: ports.clone(),
            leaders: leaders.iter().map(|leader| (*leader, 0)).collect(),
            logs: leaders.iter().map(|_| Log::default()).collect(),
            next_id: 1000,
            coordinators: (1, 1),
            level: 2,
            producer: (-1, -1),
            open: false,
            ended: None,
            pending_offsets: BTreeMap::new(),
            offsets: BTreeMap::new(),
            added: Vec::new(),
            calls: Vec::new(),
        };
        let state = Arc::new(Mutex::new((state, Box::new(script) as Script)));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (node, listener) in (1..).zip(listeners) {
            let (state, stop) = (state.clone(), stop.clone());
            threads.push(std::thread::spawn(move || accept(node, &listener, &state, &stop)));
        }
        let at = |port: &u16| Arc::new(Address { host: "127.0.0.1".into(), port: *port });
        World { state, addresses: ports.iter().map(at).collect(), stop, threads }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().0)
    }

    /// The values in a partition's log, in order, those of aborted transactions left out.
    pub fn values(&self, partition: usize) -> Vec<String> {
        self.with(|state| state.values(partition))
    }

    /// All requests of this kind, by node and version.
    pub fn calls(&self, key: ApiKey) -> Vec<(i32, i16)> {
        let ours = |call: &(i32, ApiKey, i16)| (call.1 == key).then_some((call.0, call.2));
        self.with(|state| state.calls.iter().filter_map(ours).collect())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for address in &self.addresses {
            let _ = TcpStream::connect((&*address.host, address.port));
        }
        for thread in self.threads.drain(..) {
            let outcome = thread.join();
            if !std::thread::panicking() {
                outcome.expect("the world's script panicked");
            }
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn accept(node: i32, listener: &TcpListener, state: &Mutex<(State, Script)>, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept().unwrap();
            if stop.load(Ordering::SeqCst) {
                return;
            }
            scope.spawn(move || {
                stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                // The client went away, or was cut off: both are what tests want.
                let _ = converse(node, &stream, state, stop);
            });
        }
    });
}

fn converse(
    node: i32,
    mut stream: &TcpStream,
    state: &Mutex<(State, Script)>,
    stop: &AtomicBool,
) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        read(stream, &mut size, stop)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        read(stream, &mut frame, stop)?;
        let mut body = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut body).unwrap();
        let asked = Asked {
            key: ApiKey::try_from(header.request_api_key).unwrap(),
            version: header.request_api_version,
            correlation: header.correlation_id,
            client_id: None,
            body: body.copy_to_bytes(body.remaining()),
        };
        let reply = {
            let (state, script) = &mut *state.lock();
            state.calls.push((node, asked.key, asked.version));
            script(state, node, &asked).unwrap_or_else(|| state.serve(node, &asked))
        };
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes)?,
            Reply::Silence => {}
            Reply::Part(bytes) => return stream.write_all(&bytes),
            Reply::Cut | Reply::Drip(_) => return Ok(()),
        }
    }
}

fn read(mut stream: &TcpStream, out: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
    let mut filled = 0;
    while filled < out.len() {
        match stream.read(&mut out[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stop.load(Ordering::SeqCst) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An answer to Produce with this code for every partition that was sent.
pub fn refuse(asked: &Asked, code: i16) -> Reply {
    let request = asked.request::<ProduceRequest>();
    produced(asked, &request, |_, _| code)
}

fn produced(asked: &Asked, request: &ProduceRequest, mut code: impl FnMut(i32, &Bytes) -> i16) -> Reply {
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|data| {
            PartitionProduceResponse::default()
                .with_index(data.index)
                .with_log_start_offset(0)
                .with_error_code(code(data.index, data.records.as_ref().unwrap()))
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions.collect())
    });
    asked.answer::<ProduceRequest>(&ProduceResponse::default().with_responses(topics.collect()))
}

impl State {
    pub fn values(&self, partition: usize) -> Vec<String> {
        let rows = self.logs[partition].rows.iter().filter(|row| row.counts == Some(true));
        rows.map(|row| String::from_utf8(row.value.clone()).unwrap()).collect()
    }

    pub fn rows(&self, partition: usize) -> Vec<Row> {
        self.logs[partition].rows.clone()
    }

    /// Forgets the producers of a partition, as after the loss of its latest records.
    pub fn lose(&mut self, partition: usize, rows: usize) {
        let log = &mut self.logs[partition];
        log.rows.truncate(log.rows.len() - rows);
        for (_, batches) in log.producers.values_mut() {
            batches.pop();
        }
    }

    pub fn serve(&mut self, node: i32, asked: &Asked) -> Reply {
        match asked.key {
            ApiKey::ApiVersions => self.api_versions(asked),
            ApiKey::Metadata => self.metadata(asked),
            ApiKey::FindCoordinator => self.find(asked),
            ApiKey::InitProducerId => self.init(asked),
            ApiKey::Produce => {
                let request = asked.request::<ProduceRequest>();
                assert_eq!(request.acks, -1);
                produced(asked, &request, |partition, batch| self.append(node, partition as usize, batch))
            }
            ApiKey::AddPartitionsToTxn => self.add_partitions(node, asked),
            ApiKey::AddOffsetsToTxn => {
                let request = asked.request::<AddOffsetsToTxnRequest>();
                let code = self.coordinates(node, (request.producer_id.0, request.producer_epoch));
                self.open |= code == 0;
                asked.answer::<AddOffsetsToTxnRequest>(
                    &AddOffsetsToTxnResponse::default().with_error_code(code),
                )
            }
            ApiKey::TxnOffsetCommit => self.commit_offsets(node, asked),
            ApiKey::EndTxn => self.end(node, asked),
            key => panic!("unexpected {key:?}"),
        }
    }

    fn api_versions(&self, asked: &Asked) -> Reply {
        let level = FinalizedFeatureKey::default()
            .with_name("transaction.version".into())
            .with_max_version_level(self.level)
            .with_min_version_level(self.level);
        let answer = versions().with_finalized_features_epoch(1).with_finalized_features(vec![level]);
        asked.answer::<ApiVersionsRequest>(&answer)
    }

    fn metadata(&self, asked: &Asked) -> Reply {
        let at = |port: &u16| Address { host: "127.0.0.1".into(), port: *port };
        let nodes = (1..).zip(&self.ports).map(|(node, port)| broker(node, &at(port))).collect();
        let request = asked.request::<MetadataRequest>();
        let names = request.topics.unwrap_or_default().into_iter().filter_map(|topic| topic.name);
        let topics = names.map(|name| match &*name.0 {
            TOPIC => topic(TOPIC, 1, &self.leaders),
            other => topic(other, 0, &[]).with_error_code(3),
        });
        let topics = topics.collect();
        asked.answer::<MetadataRequest>(&metadata(nodes, topics))
    }

    fn find(&self, asked: &Asked) -> Reply {
        let request = asked.request::<FindCoordinatorRequest>();
        let node = if request.key_type == 1 { self.coordinators.0 } else { self.coordinators.1 };
        let found = Coordinator::default()
            .with_key(request.coordinator_keys[0].clone())
            .with_node_id(node.into())
            .with_host("127.0.0.1".into())
            .with_port(self.ports[node as usize - 1].into());
        let answer = FindCoordinatorResponse::default().with_coordinators(vec![found]);
        asked.answer::<FindCoordinatorRequest>(&answer)
    }

    fn init(&mut self, asked: &Asked) -> Reply {
        let request = asked.request::<InitProducerIdRequest>();
        let answer = InitProducerIdResponse::default();
        let answer = if request.transactional_id.is_none() {
            self.next_id += 1;
            answer.with_producer_id(self.next_id.into()).with_producer_epoch(0)
        } else if request.producer_epoch >= 0
            && (request.producer_id.0, request.producer_epoch) != self.producer
        {
            answer.with_error_code(90)
        } else {
            self.resolve(false);
            self.producer = (500, self.producer.1 + 1);
            answer.with_producer_id(500.into()).with_producer_epoch(self.producer.1)
        };
        asked.answer::<InitProducerIdRequest>(&answer)
    }

    /// Whether this node may be asked about transactions by this producer.
    fn coordinates(&self, node: i32, producer: (i64, i16)) -> i16 {
        match () {
            () if node != self.coordinators.0 => 16,
            () if producer != self.producer => 90,
            () => 0,
        }
    }

    fn add_partitions(&mut self, node: i32, asked: &Asked) -> Reply {
        let request = asked.request::<AddPartitionsToTxnRequest>();
        let producer = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
        let code = self.coordinates(node, producer);
        let topics = request.v3_and_below_topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                if code == 0 {
                    self.open = true;
                    self.added.push(*partition);
                }
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*partition)
                    .with_partition_error_code(code)
            });
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(partitions.collect())
        });
        let topics = topics.collect();
        let answer = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics);
        asked.answer::<AddPartitionsToTxnRequest>(&answer)
    }

    fn commit_offsets(&mut self, node: i32, asked: &Asked) -> Reply {
        let request = asked.request::<TxnOffsetCommitRequest>();
        let producer = (request.producer_id.0, request.producer_epoch);
        let code = match () {
            () if node != self.coordinators.1 => 16,
            () if producer != self.producer => 47,
            () => 0,
        };
        if code == 0 && self.level < 2 {
            assert!(self.open, "offsets before AddOffsetsToTxn");
        }
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                if code == 0 {
                    self.open = true;
                    let metadata = partition.committed_metadata.as_ref().unwrap().to_string();
                    let place = (topic.name.0.to_string(), partition.partition_index);
                    self.pending_offsets.insert(place, (partition.committed_offset, metadata));
                }
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code)
            });
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let answer = TxnOffsetCommitResponse::default().with_topics(topics.collect());
        asked.answer::<TxnOffsetCommitRequest>(&answer)
    }

    fn end(&mut self, node: i32, asked: &Asked) -> Reply {
        let request = asked.request::<EndTxnRequest>();
        let producer = (request.producer_id.0, request.producer_epoch);
        let raises = self.level >= 2;
        assert_eq!(asked.version >= 5, raises);
        let again = self.ended == Some((producer.1, request.committed)) && !self.open;
        let code = match self.coordinates(node, producer) {
            16 => 16,
            90 if !again || !raises => 90,
            _ if again => 0,
            _ if !self.open && (request.committed || !raises) => 48,
            _ => {
                self.resolve(request.committed);
                self.ended = Some((producer.1, request.committed));
                self.producer.1 += i16::from(raises);
                0
            }
        };
        let answer = EndTxnResponse::default()
            .with_error_code(code)
            .with_producer_id(if raises { self.producer.0 } else { -1 }.into())
            .with_producer_epoch(if raises { self.producer.1 } else { -1 });
        asked.answer::<EndTxnRequest>(&answer)
    }

    fn resolve(&mut self, committed: bool) {
        for row in self.logs.iter_mut().flat_map(|log| &mut log.rows) {
            row.counts.get_or_insert(committed);
        }
        let offsets = std::mem::take(&mut self.pending_offsets);
        if committed {
            self.offsets.extend(offsets);
        }
        self.added.clear();
        self.open = false;
    }

    /// Appends a batch as a leader does. Returns the code.
    fn append(&mut self, node: i32, partition: usize, bytes: &Bytes) -> i16 {
        if self.leaders[partition].0 != node {
            return 6;
        }
        let at = |from: usize| &bytes[from..];
        let id = i64::from_be_bytes(*at(43).first_chunk().unwrap());
        let epoch = i16::from_be_bytes(*at(51).first_chunk().unwrap());
        let first = i32::from_be_bytes(*at(53).first_chunk().unwrap());
        let batch = Batches::new(bytes).next().unwrap().unwrap();
        let last = first + batch.count() - 1;
        let transactional = batch.is_transactional();
        if transactional {
            if (id, epoch) != self.producer {
                return 47;
            }
            if self.level < 2 && !self.added.contains(&(partition as i32)) {
                return 48;
            }
            self.open = true;
        }
        let log = &mut self.logs[partition];
        let known = log.producers.entry(id).or_insert((epoch, Vec::new()));
        if epoch < known.0 {
            return 47;
        }
        if epoch > known.0 {
            *known = (epoch, Vec::new());
            if first != 0 {
                return 45;
            }
        }
        if known.1.contains(&(first, last)) {
            return 46;
        }
        if known.1.last().is_some_and(|(_, before)| before + 1 != first) {
            return 45;
        }
        known.1.push((first, last));
        let mut unpacker = Unpacker::new(1 << 26);
        for record in unpacker.records(&batch).unwrap().map(Result::unwrap) {
            log.rows.push(Row {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.unwrap_or_default().to_vec(),
                producer: (id, epoch),
                sequence: first,
                counts: (!transactional).then_some(true),
            });
        }
        0
    }
}
