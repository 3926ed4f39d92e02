//! The open batch of one partition: collects pieces, frames them, gives parts away.
//!
//! A small piece of a large buffer is copied out, so that it does not pin the whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batch, BatchId, Body, Buffer, Counts, Piece};
use crate::budget::{Budget, Recycler};
use crate::codec::sum::joined;
use crate::codec::{Codec, Encoder, Framer};
use crate::cut::Close;
use crate::process::{Block, SectionOut, Wait};
use crate::record::Partition;
use crate::sink::{Framing, Part, Stream, Totals};
use crate::source::Planned;
use crate::write::OpenUpload;

/// Small blocks are compressed together once there are so many bytes of them.
const RUN: usize = 64 << 10;

/// What lots need to frame and copy.
pub(crate) struct Tools {
    /// Of output and dead letters.
    pub codecs: [Codec; 2],
    pub framing: Framing,
    /// Size of a part, and whether it has no more, of output and dead letters: what is records is never cut inside one.
    pub part: Option<usize>,
    pub even_parts: [bool; 2],
    pub budget: Arc<Budget>,
    pub checksums: bool,
    pub buffers: Arc<Recycler>,
    pub encoder: Encoder,
}

/// The open batch of one partition.
pub(crate) struct Lot {
    partition: Partition,
    start: u64,
    end: u64,
    line: u64,
    resume: Option<Arc<[u8]>>,
    /// What the source needs to go on from where the chunk under way is cut, from the given positions on.
    within: Vec<(u64, Arc<[u8]>)>,
    first_time: Option<i64>,
    opened_at: Option<i64>,
    counts: Counts,
    stored: Strand,
    failed: Strand,
    upload: Option<Arc<OpenUpload>>,
    since: Option<Instant>,
    /// Ends that an earlier owner planned: until they are passed, the batch may not be closed early, and what its
    /// name is made of comes from the plan, since its first records may have vanished meanwhile.
    planned: VecDeque<Planned>,
}

/// One of the two streams of an open batch.
#[derive(Default)]
struct Strand {
    codec: Codec,
    framer: Option<Framer>,
    body: Body,
    held: usize,
    raw: Vec<u8>,
    offset: u64,
    index: u32,
    crc: u32,
}

impl Lot {
    /// An empty batch at `start`, with the ends beyond it that an earlier owner planned.
    pub fn new(partition: &Partition, start: u64, planned: impl IntoIterator<Item = Planned>) -> Self {
        Lot {
            partition: partition.clone(),
            start,
            end: start,
            line: 0,
            resume: None,
            within: Vec::new(),
            first_time: None,
            opened_at: None,
            counts: Counts::default(),
            stored: Strand::default(),
            failed: Strand::default(),
            upload: None,
            since: None,
            planned: planned.into_iter().filter(|planned| planned.end > start).collect(),
        }
    }

    /// Whether there is nothing to close, not even a range without records.
    pub fn is_void(&self) -> bool {
        self.start == self.end
    }

    /// How far its partition was taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether the batch ends where an earlier owner planned it, and nowhere else.
    pub fn is_planned(&self) -> bool {
        !self.planned.is_empty()
    }

    /// Bytes of memory that wait here.
    pub fn held(&self) -> usize {
        self.stored.held + self.failed.held + self.stored.raw.len() + self.failed.raw.len()
    }

    /// How long ago the first record came.
    pub fn age(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }

    /// A chunk begins: this is what the source needs to go on from positions in it.
    pub fn enter(&mut self, within: Vec<(u64, Arc<[u8]>)>) {
        self.within = within;
    }

    /// Takes the output of one section.
    pub fn add(&mut self, section: SectionOut, tools: &mut Tools) {
        self.end = section.cut.end.max(self.end);
        self.line = section.cut.line;
        let known = self.within.iter().rev().find(|(from, _)| *from <= section.cut.end);
        // A planned end may stand before the first record that there is.
        if let Some((_, resume)) = known.or(self.within.first()) {
            self.resume = Some(resume.clone());
        }
        self.counts += section.counts;
        if section.counts.read > 0 {
            self.since.get_or_insert_with(Instant::now);
            self.opened_at.get_or_insert(section.opened_at);
            // Of the first record alone, whichever chunk it came in: the batch's name is made of it.
            self.first_time.get_or_insert(section.first_time.unwrap_or(0));
        }
        let open = section.cut.close == Close::Open;
        let strands = [(&mut self.stored, section.stored), (&mut self.failed, section.failed)];
        for ((strand, block), codec) in strands.into_iter().zip(tools.codecs) {
            if let Some(block) = block {
                strand.codec = codec;
                strand.push(if open { block.compact(tools) } else { block }, tools);
            }
            let is_due = match section.wait {
                Wait::Size => strand.raw.len() >= RUN,
                Wait::Block => false,
                Wait::Over => true,
            };
            if is_due {
                strand.flush(tools);
            }
        }
    }

    /// The chunk is taken up to `end`.
    pub fn advance(&mut self, end: u64, resume: Option<Arc<[u8]>>) {
        self.end = self.end.max(end);
        self.resume = resume;
    }

    /// The next part, if a stream has so much.
    pub fn part(&mut self, tools: &Tools) -> Option<Part> {
        let size = tools.part? as u64;
        if self.stored.body.len() >= size {
            return Some(self.stored.part(Stream::Stored, tools));
        }
        (self.failed.body.len() >= size).then(|| self.failed.part(Stream::Failed, tools))
    }

    /// The upload that parts of this batch go to.
    pub fn upload(&mut self) -> Arc<OpenUpload> {
        let id = self.id();
        self.upload.get_or_insert_with(|| OpenUpload::new(id)).clone()
    }

    /// Gives up the upload, if one was begun.
    pub fn take_upload(&mut self) -> Option<Arc<OpenUpload>> {
        self.upload.take()
    }

    fn id(&self) -> BatchId {
        let planned = self.planned.front();
        BatchId {
            partition: self.partition.clone(),
            start: self.start,
            first_time: planned.map_or(self.first_time.unwrap_or(0), |planned| planned.first_time),
            opened_at: planned.map_or(self.opened_at.unwrap_or(0), |planned| planned.opened_at),
        }
    }

    /// Closes the batch; the next begins at its end.
    pub fn close(&mut self, reason: Close, tools: &mut Tools) -> Finished {
        let (id, upload) = (self.id(), self.upload.take());
        let mut next = Lot::new(&self.partition, self.end, self.planned.drain(..));
        next.line = self.line;
        next.within = std::mem::take(&mut self.within);
        let mut this = std::mem::replace(self, next);
        this.stored.finish(tools);
        this.failed.finish(tools);
        let upload = upload.map(|upload| (upload, last_parts(&mut this.stored, &mut this.failed, tools)));
        let batch = Batch {
            id,
            end: this.end,
            line: this.line,
            resume: this.resume,
            counts: this.counts,
            close: reason,
            stored: this.stored.body,
            failed: this.failed.body,
        };
        Finished { batch, upload: upload.map(|(upload, (parts, totals))| Rest { upload, parts, totals }) }
    }
}

/// A closed batch.
pub(crate) struct Finished {
    pub batch: Batch,
    /// Where it was begun to be stored in parts, and what is left to store; else it is all in the batch.
    pub upload: Option<Rest>,
}

/// What is left of a batch that is stored in parts.
pub(crate) struct Rest {
    pub upload: Arc<OpenUpload>,
    pub parts: Vec<Part>,
    pub totals: Totals,
}

fn last_parts(stored: &mut Strand, failed: &mut Strand, tools: &Tools) -> (Vec<Part>, Totals) {
    let mut parts = Vec::new();
    for (strand, stream) in [(&mut *failed, Stream::Failed), (&mut *stored, Stream::Stored)] {
        while !strand.body.is_empty() {
            let part = strand.part(stream, tools);
            parts.push(Part { last: strand.body.is_empty(), ..part });
        }
    }
    (parts, Totals { stored: stored.offset, stored_crc32c: stored.crc, failed: failed.offset })
}

impl Strand {
    fn push(&mut self, block: Block, tools: &mut Tools) {
        match block {
            Block::Raw(piece) => self.raw.extend_from_slice(piece.bytes()),
            Block::Encoded(piece) => {
                self.flush(tools);
                self.frame(piece, tools);
            }
        }
    }

    /// Compresses what waits.
    fn flush(&mut self, tools: &mut Tools) {
        if self.raw.is_empty() {
            return;
        }
        let raw = std::mem::take(&mut self.raw);
        let mut bytes = tools.buffers.take();
        let raw_crc = tools.encoder.encode(&raw, &mut bytes);
        let mut piece = tools.piece(bytes, Some(&tools.buffers));
        (piece.raw_len, piece.raw_crc) = (raw.len() as u64, raw_crc);
        self.frame(piece, tools);
        self.raw = raw;
        self.raw.clear();
    }

    fn frame(&mut self, piece: Piece, tools: &Tools) {
        self.held += piece.pinned();
        match tools.framing {
            Framing::Stream => self.body.push(piece),
            Framing::Batch => {
                let framer = self.framer.get_or_insert_with(|| Framer::new(self.codec));
                framer.push(piece, &mut self.body);
            }
        }
    }

    fn finish(&mut self, tools: &mut Tools) {
        self.flush(tools);
        if let Some(framer) = self.framer.take() {
            framer.finish(&mut self.body);
        }
    }

    fn part(&mut self, stream: Stream, tools: &Tools) -> Part {
        let [of_stored, of_failed] = tools.even_parts;
        let even = match stream {
            Stream::Stored => of_stored,
            Stream::Failed => of_failed,
        };
        let body = match tools.part.filter(|_| even) {
            Some(size) => self.body.take_front(size as u64),
            None => std::mem::take(&mut self.body),
        };
        if let Some(first) = self.body.first_mut() {
            *first = tools.compact(first.clone());
        }
        self.held = self.body.pieces().iter().map(Piece::pinned).sum();
        let (index, offset) = (self.index, self.offset);
        self.index += 1;
        self.offset += body.len();
        self.crc = if index == 0 { body.crc32c() } else { joined(self.crc, body.crc32c(), body.len()) };
        Part { stream, index, offset, body, last: false }
    }
}

impl Tools {
    /// Copies a small piece out of a large buffer.
    fn compact(&self, piece: Piece) -> Piece {
        if piece.len() * 4 >= piece.pinned() {
            return piece;
        }
        let mut copy = self.piece(piece.bytes().to_vec(), None);
        (copy.raw_len, copy.raw_crc) = (piece.raw_len, piece.raw_crc);
        copy
    }

    /// A piece with a buffer of its own, charged to the budget. Small ones are of no use to anybody else: they have no
    /// home.
    fn piece(&self, bytes: Vec<u8>, home: Option<&Arc<Recycler>>) -> Piece {
        let (len, lease) = (bytes.len(), self.budget.charge(bytes.capacity()));
        let buffer = Arc::new(Buffer { bytes, lease, home: home.cloned() });
        let mut piece = Piece::new(&buffer, 0..len);
        if self.checksums {
            piece.crc32c = crc32c::crc32c(piece.bytes());
        }
        piece
    }
}

impl Block {
    /// Copies a small piece out of a large buffer.
    fn compact(self, tools: &Tools) -> Block {
        match self {
            Block::Encoded(piece) => Block::Encoded(tools.compact(piece)),
            raw @ Block::Raw(_) => raw,
        }
    }
}
