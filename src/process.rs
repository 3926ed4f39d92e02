//! What one pool task does: a chunk in, encoded output out. Nothing here blocks, but for the number of a rejected
//! record's line where others count the lines before it ([`Errand::lines`]).
//!
//! The program runs once for each section (the records of one batch), then the section is compressed as one
//! block. A task always answers, even if a transform panics ([`run`]): otherwise its place in the order and its
//! permit would be lost and the run would hang.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::batch::{Buffer, Counts, Piece};
use crate::budget::{Lease, Recycler, copied};
use crate::codec::{Codec, Encoder};
use crate::cut::Close;
use crate::error::Result;
use crate::record::{Chunk, Cut, Errand, Partition, Section};
use crate::source::Cuts;
use crate::stage::panicked;
use crate::transform::{Out, Program, Sample};

/// Sections below this many bytes that end no block are left for the assembler to compress together: frames of a
/// few KiB are a quarter larger.
const SMALL: usize = 64 << 10;

/// A chunk's output.
pub(crate) struct Processed {
    pub partition: Partition,
    pub start: u64,
    /// Position of the first record, if there is any.
    pub first: Option<u64>,
    pub end: u64,
    pub sections: Vec<SectionOut>,
    pub resume: Option<Arc<[u8]>>,
    pub within: Vec<(u64, Arc<[u8]>)>,
    pub samples: Vec<Sample>,
    /// What its reader left to the worker: it knows whether anything of this may be stored.
    pub errand: Option<Box<dyn Errand>>,
}

/// One section's output: what one batch takes from the chunk.
pub(crate) struct SectionOut {
    pub cut: Cut,
    pub opened_at: i64,
    pub first_time: Option<i64>,
    pub counts: Counts,
    pub wait: Wait,
    pub stored: Option<Block>,
    pub failed: Option<Block>,
}

/// For what pieces that are still to be compressed wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For enough of them.
    Size,
    /// For the end of their block, which comes later.
    Block,
    /// For nothing: here it ends.
    Over,
}

/// A piece, compressed or still to be compressed.
pub(crate) enum Block {
    /// Ready for the container.
    Encoded(Piece),
    /// Too small to compress alone, or not a whole block.
    Raw(Piece),
}

/// What tasks share.
pub(crate) struct Shop<'a> {
    pub program: &'a dyn Program,
    /// Of output and dead letters.
    pub codecs: [Codec; 2],
    pub checksums: bool,
    pub cuts: Cuts,
    pub buffers: Arc<Recycler>,
    pub chunks: &'a Chunks,
    idle: Mutex<Vec<Bench>>,
}

/// A worker's tools, used again and again.
struct Bench {
    out: Out,
    encoder: Encoder,
    stored: Vec<u8>,
    failed: Vec<u8>,
}

/// Chunks that keep their buffers for the next use.
pub(crate) struct Chunks {
    #[allow(clippy::vec_box, reason = "chunks travel as boxes: a pointer moves, not three hundred bytes")]
    idle: Mutex<Vec<Box<Chunk>>>,
    keep: usize,
    largest: usize,
}

impl Chunks {
    pub fn new(keep: usize, largest: usize) -> Self {
        Chunks { idle: Mutex::default(), keep, largest }
    }

    pub fn take(&self) -> Box<Chunk> {
        self.idle.lock().pop().unwrap_or_default()
    }

    pub fn give(&self, mut chunk: Box<Chunk>) {
        chunk.clear();
        chunk.lease = Lease::default();
        let mut idle = self.idle.lock();
        if chunk.memory() <= self.largest && idle.len() < self.keep {
            idle.push(chunk);
        }
    }
}

/// A span of the output of one section.
#[derive(Clone, Copy)]
struct Span {
    from: usize,
    to: usize,
    raw_len: u64,
    raw_crc: u32,
    raw: bool,
}

impl<'a> Shop<'a> {
    pub fn new(
        program: &'a dyn Program,
        codecs: [Codec; 2],
        buffers: Arc<Recycler>,
        chunks: &'a Chunks,
    ) -> Self {
        Shop { program, codecs, checksums: false, cuts: Cuts::Fixed, buffers, chunks, idle: Mutex::default() }
    }

    /// Processes a chunk; a panic of the program becomes an error.
    pub fn run(&self, chunk: Box<Chunk>) -> Result<Processed> {
        guarded(|| self.process(chunk))
    }

    fn process(&self, mut chunk: Box<Chunk>) -> Processed {
        let idle = self.idle.lock().pop();
        let mut bench = idle.unwrap_or_else(|| Bench::new(self.codecs));
        let mut spans = Vec::with_capacity(chunk.cuts.len() + 1);
        let mut sections = Vec::with_capacity(chunk.cuts.len() + 1);
        for section in chunk.sections() {
            let wait = wait(&section, &chunk);
            let begins = chunk.block_begin || !spans.is_empty();
            let fixed = self.cuts == Cuts::Fixed && !chunk.joins;
            let whole = fixed || (wait == Wait::Over && (begins || !chunk.joins));
            let least = if whole {
                0
            } else if chunk.joins {
                usize::MAX
            } else {
                SMALL
            };
            let span = self.section(&section, least, &mut bench);
            for (kind, count) in bench.out.rejects.drain(..) {
                bench.out.counts.kinds.add(kind, count);
            }
            sections.push(SectionOut {
                cut: section.cut(),
                opened_at: section.opened_at(),
                first_time: section.first_time(),
                counts: std::mem::take(&mut bench.out.counts),
                wait,
                stored: None,
                failed: None,
            });
            spans.push(span);
        }
        let partition = chunk.partition.clone().expect("a chunk that is processed was started");
        let mut processed = Processed {
            partition,
            start: chunk.start,
            first: chunk.span().map(|(first, _)| first),
            end: chunk.end,
            sections,
            resume: chunk.resume.take(),
            within: std::mem::take(&mut chunk.within),
            samples: std::mem::take(&mut bench.out.samples),
            errand: chunk.errand.take(),
        };
        let lease = std::mem::take(&mut chunk.lease);
        self.chunks.give(chunk);
        self.pieces(&mut processed, &spans, &mut bench, lease);
        self.idle.lock().push(bench);
        processed
    }

    /// `least`: less output than this is not compressed here.
    fn section(&self, section: &Section<'_>, least: usize, bench: &mut Bench) -> [Span; 2] {
        let before = (bench.out.stored.len(), bench.out.failed.len());
        self.program.run(section, &mut bench.out);
        // Somebody's program that counts nothing: what it made is stored all the same.
        if bench.out.counts.read == 0 && (bench.out.stored.len(), bench.out.failed.len()) != before {
            bench.out.counts.read = section.len() as u64;
        }
        let Bench { out, encoder, stored, failed } = bench;
        [
            encode(self.codecs[0], least, &mut out.stored, before.0, (encoder, stored)),
            encode(self.codecs[1], least, &mut out.failed, before.1, (encoder, failed)),
        ]
    }

    /// Turns the bench's buffers into pieces, and takes new buffers for the next chunk.
    fn pieces(&self, processed: &mut Processed, spans: &[[Span; 2]], bench: &mut Bench, mut lease: Lease) {
        let plain = self.codecs.map(|codec| codec == Codec::None);
        let mut stored = self.buffer(if plain[0] { &mut bench.out.stored } else { &mut bench.stored });
        let mut failed = self.buffer(if plain[1] { &mut bench.out.failed } else { &mut bench.failed });
        // What was compressed.
        self.buffers.trim(&mut bench.out.stored);
        self.buffers.trim(&mut bench.out.failed);
        lease.resize(stored.bytes.capacity() + failed.bytes.capacity());
        failed.lease = lease.split(failed.bytes.capacity());
        stored.lease = lease;
        let (stored, failed) = (Arc::new(stored), Arc::new(failed));
        for (section, [first, second]) in processed.sections.iter_mut().zip(spans) {
            section.stored = self.block(&stored, *first);
            section.failed = self.block(&failed, *second);
        }
    }

    /// The output in `used`, which is empty again. Little output is copied: its buffer would be held for as long as
    /// the batch is, and the next chunk's needs as much room again.
    fn buffer(&self, used: &mut Vec<u8>) -> Buffer {
        let (bytes, home) = match copied(used, used.capacity()) {
            Some(copy) => (copy, None),
            None => (std::mem::replace(used, self.buffers.take()), Some(self.buffers.clone())),
        };
        self.buffers.trim(used);
        Buffer { bytes, lease: Lease::default(), home }
    }

    fn block(&self, buffer: &Arc<Buffer>, span: Span) -> Option<Block> {
        if span.from == span.to {
            return None;
        }
        let mut piece = Piece::new(buffer, span.from..span.to);
        (piece.raw_len, piece.raw_crc) = (span.raw_len, span.raw_crc);
        if self.checksums {
            piece.crc32c = crc32c::crc32c(piece.bytes());
        }
        Some(if span.raw { Block::Raw(piece) } else { Block::Encoded(piece) })
    }
}

/// A panic becomes an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let thread = std::thread::current();
        panicked(thread.name().unwrap_or("worker"), &*panic)
    })
}

impl Bench {
    fn new(codecs: [Codec; 2]) -> Self {
        // At least one of them is what the run compresses with, if it compresses at all.
        let codec = codecs.into_iter().find(|codec| *codec != Codec::None).unwrap_or(Codec::None);
        Bench { out: Out::default(), encoder: Encoder::new(codec), stored: Vec::new(), failed: Vec::new() }
    }
}

/// For what the pieces of a section wait that are not compressed here.
fn wait(section: &Section<'_>, chunk: &Chunk) -> Wait {
    match section.cut().close {
        Close::Open if chunk.block_end => Wait::Over,
        Close::Open if chunk.joins => Wait::Block,
        Close::Open => Wait::Size,
        _ => Wait::Over,
    }
}

/// Encodes what stands in `raw` from `from` on; less than `least` bytes are passed on as they are.
fn encode(
    codec: Codec,
    least: usize,
    raw: &mut Vec<u8>,
    from: usize,
    tools: (&mut Encoder, &mut Vec<u8>),
) -> Span {
    let (encoder, out) = tools;
    let raw_len = (raw.len() - from) as u64;
    if codec == Codec::None || raw_len == 0 {
        return Span { from, to: raw.len(), raw_len, raw_crc: 0, raw: false };
    }
    let at = out.len();
    let small = raw.len() - from < least;
    let raw_crc = if small {
        out.extend_from_slice(&raw[from..]);
        0
    } else {
        encoder.encode(&raw[from..], out)
    };
    raw.truncate(from);
    Span { from: at, to: out.len(), raw_len, raw_crc, raw: small }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Identity;

    /// Makes each record as large as its number says, and a dead letter of so many bytes of it.
    struct Grow {
        letter: usize,
    }

    impl Program for Grow {
        fn run(&self, section: &Section<'_>, out: &mut Out) {
            for entry in section.entries() {
                let size = std::str::from_utf8(section.record(entry).bytes).unwrap();
                let size: usize = size.parse().unwrap();
                out.stored.resize(out.stored.len() + size, b'a');
                out.failed.resize(out.failed.len() + self.letter, b'b');
            }
        }
    }

    /// The bytes that its buffers hold, of output and dead letters, behind a chunk of one record.
    fn held(shop: &Shop<'_>, size: &str) -> [usize; 2] {
        let mut chunk = shop.chunks.take();
        let partition = Partition::new(Identity { source: "test", name: "p".into(), ..Identity::default() });
        chunk.start(&partition, 0);
        let _ = chunk.push(0, size.as_bytes());
        let processed = shop.run(chunk).unwrap();
        let section = &processed.sections[0];
        [&section.stored, &section.failed].map(|block| match block {
            Some(Block::Encoded(piece) | Block::Raw(piece)) => piece.pinned(),
            None => 0,
        })
    }

    #[test]
    fn little_output_holds_no_large_buffer() {
        let chunks = Chunks::new(2, 1 << 20);
        for codec in [Codec::None, Codec::Gzip(6), Codec::Zstd(3)] {
            let shop = Shop::new(&Grow { letter: 10 }, [codec; 2], Recycler::new(4 << 20, 1 << 20), &chunks);
            let [stored, failed] = held(&shop, "400000");
            let least = if codec == Codec::None { 400_000 } else { 10 };
            assert!((least..=4 * least.max(1000)).contains(&stored), "{codec:?}: {stored}");
            // The buffers are used again, and are large now.
            let [_, again] = held(&shop, "400000");
            let [small, _] = held(&shop, "100");
            assert!(failed < 1000 && again < 1000 && small < 1000, "{codec:?}: {failed} {again} {small}");
        }
    }

    #[test]
    fn whoever_has_no_output_takes_no_buffer() {
        let chunks = Chunks::new(2, 1 << 20);
        for codec in [Codec::None, Codec::Gzip(6)] {
            let buffers = Recycler::new(4 << 20, 1 << 20);
            for _ in 0..3 {
                buffers.give(Vec::with_capacity(400_000));
            }
            let shop = Shop::new(&Grow { letter: 0 }, [codec; 2], buffers, &chunks);
            assert_eq!(held(&shop, "400000")[1], 0);
            let idle = shop.idle.lock();
            assert!(idle[0].failed.capacity() + idle[0].out.failed.capacity() == 0, "{codec:?}");
        }
    }

    #[test]
    fn nobody_keeps_the_buffers_of_a_very_large_record() {
        let chunks = Chunks::new(2, 1 << 20);
        for codec in [Codec::None, Codec::Gzip(6), Codec::Zstd(3)] {
            let shop = Shop::new(&Grow { letter: 10 }, [codec; 2], Recycler::new(4 << 20, 1 << 20), &chunks);
            held(&shop, "9000000");
            let idle = shop.idle.lock();
            let kept = idle.iter().flat_map(|bench| [&bench.out.stored, &bench.out.failed, &bench.stored]);
            assert!(kept.into_iter().all(|buffer| buffer.capacity() <= 1 << 20), "{codec:?}");
        }
    }
}
