//! A source in memory and a sink that keeps nothing, for benches of the engine alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline::batch::{Batch, Receipt};
use pipeline::config::EnvelopeKind;
use pipeline::sink::{Order, Shape, Sink};
use pipeline::source::{Cuts, Read, Reader, Source, Start};
use pipeline::transform::recipe::{Letters, Recipe, RecipeOptions, Replay};
use pipeline::{Chunk, Partition, Result, Room};

/// Lines in memory, one partition.
pub struct Memory(pub Arc<Vec<u8>>);

struct MemoryReader {
    lines: Arc<Vec<u8>>,
    partition: Partition,
    at: usize,
    begun: bool,
}

impl Source for Memory {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let partition = Partition::named("memory", "lines");
        Ok(vec![Box::new(MemoryReader { lines: self.0.clone(), partition, at: 0, begun: false })])
    }

    fn cuts(&self) -> Cuts {
        Cuts::Fixed
    }
}

impl Reader for MemoryReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(Read::Assigned(self.partition.clone(), None));
        }
        if self.at >= self.lines.len() {
            return Ok(Read::Done);
        }
        chunk.start(&self.partition, self.at as u64);
        while self.at < self.lines.len() {
            let rest = &self.lines[self.at..];
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let room = chunk.push_spanning(self.at as u64, end as u32 + 1, &rest[..end]);
            self.at += end + 1;
            if room == Room::Full {
                break;
            }
        }
        Ok(Read::Chunk)
    }
}

/// Takes everything and keeps nothing.
#[derive(Default)]
pub struct Null(AtomicUsize);

impl Sink for Null {
    fn shape(&self) -> Shape {
        Shape { order: Order::Any, writers: 1, ..Shape::default() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            self.0.fetch_add(batch.stored.len() as usize, Ordering::Relaxed);
            receipts.push(Receipt::of(batch, None, None));
        }
        Ok(())
    }
}

/// The default envelope and nothing else.
pub fn recipe() -> Recipe {
    Recipe::new(RecipeOptions {
        envelope: EnvelopeKind::Default,
        transforms: Vec::new(),
        processed_by: "host1".into(),
        dead_letters: Letters::Keep,
        replay: Replay::No,
        output_cap: 64 << 20,
    })
}
