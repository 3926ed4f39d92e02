//! Scripted sources, sinks and marks.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pipeline::batch::{Batch, BatchId, Receipt};
use pipeline::codec::Codec;
use pipeline::record::{Chunk, Partition, Room, Section};
use pipeline::sink::{Part, Shape, Sink, Stream, Totals, Upload};
use pipeline::source::{Cuts, Flow, Mark, Marks, Planned, Read, Reader, Source, Start};
use pipeline::transform::{Out, Program};
use pipeline::{Error, Result};

/// A source with `partitions` of `records` records each, `size` bytes a record, read in turn by each reader.
#[derive(Clone)]
pub struct Numbers {
    pub partitions: usize,
    pub records: u64,
    pub size: usize,
    pub cuts: Cuts,
    /// At most so many records a chunk, so that readers change partitions often; 0: until the chunk is full.
    pub turn: u64,
    /// Whether the source ends, or goes on being idle for ever.
    pub endless: bool,
    /// Whether readers say that there is more at hand, even where they are idle next.
    pub at_hand: bool,
    pub pauses: Arc<Mutex<Vec<(String, Flow)>>>,
    /// Given up after so many records of a partition: what then happens.
    pub after: Option<(u64, After)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum After {
    Revoke,
    Lose,
    Fail,
}

impl Numbers {
    pub fn new(partitions: usize, records: u64) -> Self {
        Numbers {
            partitions,
            records,
            size: 100,
            cuts: Cuts::Early,
            turn: 0,
            endless: false,
            at_hand: false,
            pauses: Arc::default(),
            after: None,
        }
    }

    pub fn partition(index: usize) -> Partition {
        Partition::named("numbers", format!("p{index}"))
    }
}

struct NumbersReader {
    source: Numbers,
    queue: VecDeque<(Partition, u64)>,
    assigned: VecDeque<(Partition, Option<Mark>)>,
    paused: Vec<Partition>,
    line: Vec<u8>,
}

impl Source for Numbers {
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let readers = start.readers.min(self.partitions).max(1);
        let mut all: Vec<NumbersReader> = (0..readers)
            .map(|_| NumbersReader {
                source: self.clone(),
                queue: VecDeque::new(),
                assigned: VecDeque::new(),
                paused: Vec::new(),
                line: Vec::new(),
            })
            .collect();
        for index in 0..self.partitions {
            let partition = Numbers::partition(index);
            let mark = start.marks.load(partition.name())?;
            all[index % readers].assigned.push_back((partition, mark));
        }
        Ok(all.into_iter().map(|reader| Box::new(reader) as Box<dyn Reader>).collect())
    }

    fn cuts(&self) -> Cuts {
        self.cuts
    }
}

impl Reader for NumbersReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if let Some((partition, mark)) = self.assigned.pop_front() {
            self.queue.push_back((partition.clone(), mark.as_ref().map_or(0, |mark| mark.watermark)));
            return Ok(Read::Assigned(partition, mark));
        }
        let Some(next) = self.queue.iter().position(|(partition, _)| !self.paused.contains(partition)) else {
            return Ok(if self.queue.is_empty() && !self.source.endless { Read::Done } else { idle() });
        };
        let (partition, mut position) = self.queue.remove(next).expect("just found");
        if let Some((after, what)) = self.source.after.filter(|(after, _)| position >= *after) {
            return Ok(match what {
                After::Revoke => Read::Revoked(partition),
                After::Lose => Read::Lost(partition),
                After::Fail => {
                    let name = partition.name().to_string();
                    Read::Failed(
                        partition,
                        Error::Damaged { name, unit: "record", position: after, reason: "scripted".into() },
                    )
                }
            });
        }
        if position == self.source.records {
            if self.source.endless {
                return Ok(idle());
            }
            return Ok(Read::Ended(partition));
        }
        chunk.start(&partition, position);
        let last = match (self.source.turn, self.source.after) {
            (0, None) => self.source.records,
            (0, Some((after, _))) => after,
            (turn, Some((after, _))) => (position + turn).min(after),
            (turn, None) => (position + turn).min(self.source.records),
        };
        while position < last {
            self.line.clear();
            let id = format!("{{\"id\":\"{}-{position}\"", partition.name());
            self.line.extend_from_slice(id.as_bytes());
            if self.line.len() + 10 < self.source.size {
                let pad = self.source.size - self.line.len() - 8;
                self.line.extend_from_slice(b",\"x\":\"");
                self.line.resize(self.line.len() + pad, b'x');
                self.line.push(b'"');
            }
            self.line.push(b'}');
            position += 1;
            if chunk.push(position - 1, &self.line) == Room::Full {
                break;
            }
        }
        self.queue.push_back((partition, position));
        Ok(Read::Chunk)
    }

    fn has_more_at_hand(&self) -> bool {
        self.source.at_hand
    }

    fn pause(&mut self, partition: &Partition, flow: Flow) {
        self.source.pauses.lock().push((partition.name().into(), flow));
        match flow {
            Flow::Pause => self.paused.push(partition.clone()),
            Flow::Run => self.paused.retain(|paused| paused != partition),
        }
    }
}

/// Nothing to read: gives the processor away, as a poll with a time limit would.
fn idle() -> Read {
    std::thread::yield_now();
    Read::Idle
}

/// Each record becomes a line.
pub struct Lines;

impl Program for Lines {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        for entry in section.entries() {
            let record = section.record(entry);
            out.stored.extend_from_slice(record.bytes);
            out.stored.push(b'\n');
            out.counts.read += 1;
            out.counts.stored += 1;
            out.counts.bytes_read += record.bytes.len() as u64;
        }
    }
}

/// A stored batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub end: u64,
    pub bytes: Vec<u8>,
}

/// What a sink has published, by partition and start.
pub type Objects = BTreeMap<(String, u64), Object>;

/// What a sink does before it stores.
pub type Fault = Box<dyn Fn(&BatchId) -> Result<()> + Send + Sync>;

/// Keeps everything in memory.
pub struct Memory {
    pub shape: Shape,
    pub codec: Codec,
    pub objects: Arc<Mutex<Objects>>,
    pub order: Arc<Mutex<Vec<(String, u64)>>>,
    pub calls: AtomicUsize,
    pub uploads: AtomicUsize,
    pub aborts: Arc<AtomicUsize>,
    pub finished: AtomicUsize,
    pub fault: Fault,
    /// So many uploads are in doubt when they are to be published.
    pub doubts: Arc<AtomicUsize>,
}

impl Memory {
    pub fn new(shape: Shape) -> Self {
        Memory {
            shape,
            codec: Codec::None,
            objects: Arc::default(),
            order: Arc::default(),
            calls: AtomicUsize::new(0),
            uploads: AtomicUsize::new(0),
            aborts: Arc::default(),
            finished: AtomicUsize::new(0),
            fault: Box::new(|_| Ok(())),
            doubts: Arc::default(),
        }
    }

    pub fn failing(shape: Shape, fault: impl Fn(&BatchId) -> Result<()> + Send + Sync + 'static) -> Self {
        Memory { fault: Box::new(fault), ..Memory::new(shape) }
    }

    /// The ids that are stored, in order of partition and start.
    pub fn ids(&self) -> Vec<String> {
        let objects = self.objects.lock();
        let text: Vec<u8> = objects.values().flat_map(|object| decoded(self.codec, &object.bytes)).collect();
        ids(&text)
    }

    /// Every id of `source` once, in order inside its partition, and no gap between batches.
    #[track_caller]
    pub fn check(&self, source: &Numbers) {
        let mut expected: Vec<(String, String)> = (0..source.partitions)
            .flat_map(|p| (0..source.records).map(move |r| (format!("p{p}"), format!("p{p}-{r}"))))
            .collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let expected: Vec<String> = expected.into_iter().map(|(_, id)| id).collect();
        assert!(self.ids() == expected, "{} ids stored, {} expected", self.ids().len(), expected.len());
    }
}

/// One container: of gzip one member, of zstd all frames.
fn decoded(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match codec {
        Codec::None => text.extend_from_slice(bytes),
        Codec::Gzip(_) => {
            flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut text).expect("one member");
        }
        Codec::Zstd(_) => {
            zstd::Decoder::new(bytes).and_then(|mut zstd| zstd.read_to_end(&mut text)).expect("frames");
        }
    }
    text
}

pub fn ids(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).expect("a whole line");
            value["id"].as_str().expect("an id").to_string()
        })
        .collect()
}

fn joined(body: &pipeline::batch::Body) -> Vec<u8> {
    body.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

impl Sink for Memory {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        for batch in batches {
            (self.fault)(&batch.id)?;
            let key = (batch.id.partition.name().to_string(), batch.id.start);
            self.order.lock().push(key.clone());
            self.objects.lock().insert(key, Object { end: batch.end, bytes: joined(&batch.stored) });
            receipts.push(Receipt::of(batch, None, None));
        }
        Ok(())
    }

    fn open(&self, id: &BatchId) -> Result<Box<dyn Upload>> {
        self.uploads.fetch_add(1, Ordering::SeqCst);
        (self.fault)(id)?;
        Ok(Box::new(MemoryUpload {
            parts: Mutex::default(),
            objects: self.objects.clone(),
            aborts: self.aborts.clone(),
            doubts: self.doubts.clone(),
        }))
    }

    fn finish(&self) -> Result<()> {
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct MemoryUpload {
    parts: Mutex<BTreeMap<u64, Vec<u8>>>,
    objects: Arc<Mutex<Objects>>,
    aborts: Arc<AtomicUsize>,
    doubts: Arc<AtomicUsize>,
}

impl Upload for MemoryUpload {
    fn part(&self, part: &Part) -> Result<()> {
        assert_eq!(part.stream, Stream::Stored);
        self.parts.lock().insert(part.offset, joined(&part.body));
        Ok(())
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        let less = |doubts: usize| doubts.checked_sub(1);
        if self.doubts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Err(Error::InDoubt { what: "scripted".into() });
        }
        let bytes: Vec<u8> = self.parts.lock().values().flatten().copied().collect();
        assert_eq!(bytes.len() as u64, totals.stored);
        let key = (batch.id.partition.name().to_string(), batch.id.start);
        self.objects.lock().insert(key, Object { end: batch.end, bytes });
        Ok(Receipt { bytes: totals.stored, ..Receipt::of(batch, None, None) })
    }

    fn abort(&self) {
        self.aborts.fetch_add(1, Ordering::SeqCst);
    }
}

/// Marks in memory, which may plan.
#[derive(Default)]
pub struct Book {
    pub marks: Mutex<BTreeMap<String, Mark>>,
    pub plans: bool,
    /// How many ends a stored plan has room for.
    pub room: Option<usize>,
    pub stores: AtomicUsize,
    pub released: Mutex<Vec<String>>,
    /// The watermark that was stored when a partition was released.
    pub released_at: Mutex<Vec<u64>>,
    /// Which marks are refused, as if another owner had taken the partition over.
    pub refuse: Refuse,
    /// Whether partitions in doubt can be read again.
    pub rereads: bool,
    pub doubted: Mutex<Vec<Partition>>,
}

/// Says of a mark whether it is refused.
pub struct Refuse(pub Box<dyn Fn(&Mark) -> bool + Send + Sync>);

impl Default for Refuse {
    fn default() -> Self {
        Refuse(Box::new(|_| false))
    }
}

impl Book {
    /// Remembers that an earlier owner planned these ends.
    pub fn plan(&self, partition: &Partition, ends: &[u64]) {
        let plan = ends.iter().map(|end| Planned { end: *end, first_time: 7, opened_at: 11 }).collect();
        let mark = Mark {
            partition: partition.clone(),
            watermark: 0,
            line: 0,
            resume: None,
            plan,
            rejected: 0,
            ended: false,
            fresh: false,
        };
        self.marks.lock().insert(partition.name().into(), mark);
    }

    pub fn watermark(&self, partition: &str) -> u64 {
        self.marks.lock().get(partition).map_or(0, |mark| mark.watermark)
    }
}

impl Marks for Book {
    fn load(&self, partition: &str) -> Result<Option<Mark>> {
        Ok(self.marks.lock().get(partition).cloned())
    }

    fn store(&self, marks: &mut [Mark], refused: &mut Vec<Partition>) -> Result<()> {
        self.stores.fetch_add(1, Ordering::SeqCst);
        for mark in marks {
            if (self.refuse.0)(mark) {
                refused.push(mark.partition.clone());
                continue;
            }
            mark.plan.truncate(self.room.unwrap_or(usize::MAX));
            self.marks.lock().insert(mark.partition.name().into(), mark.clone());
        }
        Ok(())
    }

    fn plans(&self) -> bool {
        self.plans
    }

    fn rereads(&self) -> bool {
        self.rereads
    }

    fn doubted(&self, partition: &Partition) {
        self.doubted.lock().push(partition.clone());
    }

    fn released(&self, partition: &Partition) {
        self.released_at.lock().push(self.watermark(partition.name()));
        self.released.lock().push(partition.name().into());
    }
}
