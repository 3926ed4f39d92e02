//! The open batch of one partition: collects pieces, frames them, gives parts away.
//!
//! A small piece of a large buffer is copied out, so that it does not pin the whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batch, BatchId, Body, Buffer, Counts, Piece};
use crate::budget::{Budget, Recycler, copied};
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
        let mut piece = match copied(&bytes, bytes.capacity()) {
            Some(copy) => {
                tools.buffers.give(bytes);
                tools.piece(copy, None)
            }
            None => tools.piece(bytes, Some(&tools.buffers)),
        };
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
        let Some(copy) = copied(piece.bytes(), piece.pinned()) else { return piece };
        let mut copy = self.piece(copy, None);
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

#[cfg(test)]
impl Tools {
    /// What compresses nothing and makes no parts.
    pub(crate) fn plain(budget: &Arc<Budget>, buffers: &Arc<Recycler>) -> Self {
        Tools {
            codecs: [Codec::None; 2],
            framing: Framing::Batch,
            part: None,
            even_parts: [false; 2],
            budget: budget.clone(),
            checksums: true,
            buffers: buffers.clone(),
            encoder: Encoder::new(Codec::None),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Cut;

    fn tools(codec: Codec, part: Option<usize>) -> Tools {
        Tools {
            codecs: [codec; 2],
            framing: Framing::Stream,
            part,
            encoder: Encoder::new(codec),
            ..Tools::plain(&Budget::new(1 << 20), &Recycler::new(2 << 20, 1 << 20))
        }
    }

    fn partition() -> Partition {
        Partition::named("test", "a")
    }

    /// A section of one record that ends at `end`, in the line of that number.
    fn section(end: u64) -> SectionOut {
        SectionOut {
            cut: Cut { entry: 1, end, line: end, close: Close::Open, opened_at: 0 },
            opened_at: 0,
            first_time: None,
            counts: Counts { read: 1, ..Counts::default() },
            wait: Wait::Size,
            stored: None,
            failed: None,
        }
    }

    fn encoded(text: &str) -> Option<Block> {
        Some(Block::Encoded(Piece::owned(text.into())))
    }

    fn resume(byte: u8) -> Arc<[u8]> {
        Arc::from([byte])
    }

    #[test]
    fn a_batch_says_how_to_go_on_from_its_end() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::None, None));
        let close = |lot: &mut Lot, tools: &mut Tools| {
            let batch = lot.close(Close::Count, tools).batch;
            (batch.id.start, batch.end, batch.line, batch.resume)
        };
        lot.enter(vec![(10, resume(1)), (20, resume(2)), (40, resume(3))]);
        lot.add(section(20), &mut tools);
        assert_eq!(close(&mut lot, &mut tools), (0, 20, 20, Some(resume(2))));
        // Of the same chunk.
        lot.add(section(30), &mut tools);
        assert_eq!(close(&mut lot, &mut tools), (20, 30, 30, Some(resume(2))));
        // A range without records.
        lot.advance(50, Some(resume(4)));
        assert_eq!(close(&mut lot, &mut tools), (30, 50, 30, Some(resume(4))));
        // A planned end that stands before the first record that there is.
        lot.enter(vec![(70, resume(5))]);
        lot.add(section(60), &mut tools);
        assert_eq!(close(&mut lot, &mut tools), (50, 60, 60, Some(resume(5))));
        lot.add(section(80), &mut tools);
        lot.add(section(75), &mut tools);
        lot.advance(78, None);
        assert_eq!(lot.end(), 80, "it never goes back");
    }

    #[test]
    fn a_batch_is_opened_by_its_first_record() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::None, None));
        let none = SectionOut { counts: Counts::default(), opened_at: 1, first_time: Some(1), ..section(10) };
        lot.add(none, &mut tools);
        assert!(lot.age().is_none());
        lot.add(SectionOut { opened_at: 2, first_time: Some(3), ..section(20) }, &mut tools);
        lot.add(SectionOut { opened_at: 4, first_time: Some(5), ..section(30) }, &mut tools);
        assert!(lot.age().is_some());
        assert_eq!((lot.id().opened_at, lot.id().first_time), (2, 3));
    }

    #[test]
    fn only_ends_behind_its_start_are_planned() {
        let planned = |end| Planned { end, first_time: 0, opened_at: 0 };
        let mut lot = Lot::new(&partition(), 10, [planned(10), planned(20)]);
        assert!(lot.is_planned() && !Lot::new(&partition(), 10, [planned(10)]).is_planned());
        lot.advance(20, None);
        lot.close(Close::Planned, &mut tools(Codec::None, None));
        assert!(!lot.is_planned());
    }

    #[test]
    fn what_is_held_is_all_that_waits() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::Zstd(1), Some(100)));
        let raw = |len: usize| Some(Block::Raw(Piece::owned(vec![b'x'; len])));
        lot.add(SectionOut { stored: raw(7), failed: raw(5), ..section(10) }, &mut tools);
        assert_eq!(lot.held(), 12);
        let text = "x".repeat(100);
        lot.add(SectionOut { failed: encoded(&text), ..section(20) }, &mut tools);
        let pieces = lot.failed.body.pieces().iter().map(Piece::pinned).sum::<usize>();
        assert_eq!(lot.held(), 7 + pieces, "dead letters were compressed, the output was not");
        assert!(pieces >= 100);
        assert_eq!(lot.part(&tools).map(|part| part.stream), Some(Stream::Failed));
        assert_eq!(lot.held(), 7);
        lot.close(Close::Count, &mut tools);
        assert_eq!(lot.held(), 0);
    }

    #[test]
    fn what_is_compressed_here_holds_no_large_buffer() {
        for codec in [Codec::Gzip(6), Codec::Zstd(1)] {
            let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(codec, None));
            // What the compressor wants at most is much more than what it needs.
            for end in 1..=3 {
                let block = Some(Block::Raw(Piece::owned(vec![b'x'; RUN])));
                lot.add(SectionOut { stored: block, wait: Wait::Over, ..section(end) }, &mut tools);
            }
            let pieces = lot.stored.body.pieces();
            assert_eq!(pieces.len(), 3);
            assert!(pieces.iter().all(|piece| piece.pinned() < 1000), "{codec:?}");
            assert_eq!(tools.budget.used(), pieces.iter().map(Piece::pinned).sum::<usize>());
            assert!(tools.buffers.take().capacity() > RUN, "the next one uses it again");
        }
    }

    #[test]
    fn small_blocks_are_compressed_where_they_end_or_once_there_are_enough() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::Zstd(1), None));
        let mut add = |lot: &mut Lot, len: usize, wait: Wait| {
            let block = Some(Block::Raw(Piece::owned(vec![b'x'; len])));
            lot.add(SectionOut { stored: block, wait, ..section(10) }, &mut tools);
            let lens = lot.stored.body.pieces().iter().map(|piece| piece.raw_len).collect::<Vec<_>>();
            (lot.stored.raw.len(), lens)
        };
        assert_eq!(add(&mut lot, 10, Wait::Size), (10, vec![]));
        assert_eq!(add(&mut lot, 10, Wait::Over), (0, vec![20]));
        assert_eq!(add(&mut lot, RUN, Wait::Block), (RUN, vec![20]));
        assert_eq!(add(&mut lot, 1, Wait::Over), (0, vec![20, RUN as u64 + 1]));
        assert_eq!(add(&mut lot, RUN - 1, Wait::Size).0, RUN - 1);
        assert_eq!(add(&mut lot, 1, Wait::Size), (0, vec![20, RUN as u64 + 1, RUN as u64]));
    }

    #[test]
    fn what_is_compressed_already_stands_behind_what_waited() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::Zstd(1), None));
        let raw = Some(Block::Raw(Piece::owned(b"first".to_vec())));
        lot.add(SectionOut { stored: raw, ..section(10) }, &mut tools);
        lot.add(SectionOut { stored: encoded("second"), ..section(20) }, &mut tools);
        let pieces = lot.stored.body.pieces();
        assert_eq!((pieces.len(), pieces[1].bytes()), (2, &b"second"[..]));
    }

    /// Dead letters first: once the output is there, so are they.
    #[test]
    fn the_last_parts_are_dead_letters_and_output_with_the_totals_of_all() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::None, Some(4)));
        let both = SectionOut { stored: encoded("output"), failed: encoded("letter"), ..section(10) };
        lot.add(both, &mut tools);
        let upload = lot.upload();
        let mut parts = Vec::new();
        while let Some(part) = lot.part(&tools) {
            parts.push(part);
        }
        let rest = SectionOut { stored: encoded("abc"), failed: encoded("de"), ..section(20) };
        lot.add(rest, &mut tools);
        assert!(lot.part(&tools).is_none(), "too little");
        let rest = lot.close(Close::Count, &mut tools).upload.unwrap();
        assert!(Arc::ptr_eq(&rest.upload, &upload) && lot.take_upload().is_none());
        parts.extend(rest.parts);
        let parts: Vec<_> =
            parts.iter().map(|p| (p.stream, p.index, p.offset, p.body.len(), p.last)).collect();
        let (stored, failed) = (Stream::Stored, Stream::Failed);
        assert_eq!(
            parts,
            [
                (stored, 0, 0, 6, false),
                (failed, 0, 0, 6, false),
                (failed, 1, 6, 2, true),
                (stored, 1, 6, 3, true)
            ]
        );
        let totals = Totals { stored: 9, stored_crc32c: crc32c::crc32c(b"outputabc"), failed: 8 };
        assert_eq!(rest.totals, totals);
    }

    #[test]
    fn a_small_piece_is_copied_out_of_a_large_buffer() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::None, None));
        let buffer =
            Arc::new(Buffer { bytes: vec![b'x'; 1000], lease: crate::budget::Lease::default(), home: None });
        let piece = |range| {
            let mut piece = Piece::new(&buffer, range);
            (piece.raw_len, piece.raw_crc) = (7, 8);
            piece
        };
        let mut add = |range, close| {
            let block = Some(Block::Encoded(piece(range)));
            let cut = Cut { close, ..section(10).cut };
            lot.add(SectionOut { cut, stored: block, ..section(10) }, &mut tools);
            let last = lot.stored.body.pieces().last().unwrap();
            (last.pinned(), last.raw_len, last.raw_crc, last.crc32c != 0, tools.budget.used())
        };
        assert_eq!(add(0..250, Close::Open), (1000, 7, 8, false, 0), "it is no small one");
        assert_eq!(add(0..10, Close::Count), (1000, 7, 8, false, 0), "it does not stay");
        assert_eq!(add(0..249, Close::Open), (249, 7, 8, true, 249), "charged, and with its checksum");
    }

    #[test]
    fn what_a_part_leaves_does_not_pin_the_part() {
        let (mut lot, mut tools) = (Lot::new(&partition(), 0, []), tools(Codec::None, Some(900)));
        tools.even_parts = [true, false];
        let text = "x".repeat(1000);
        lot.add(SectionOut { stored: encoded(&text), ..section(10) }, &mut tools);
        assert_eq!(lot.part(&tools).map(|part| part.body.len()), Some(900));
        assert_eq!((lot.held(), tools.budget.used()), (100, 100));
    }
}
