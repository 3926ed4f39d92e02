//! The hot path allocates nothing per record. A binary of its own, because the counting allocator is global.

use std::alloc::System;
use std::sync::Arc;

use pipeline::batch::{Batch, Receipt};
use pipeline::config::EnvelopeKind;
use pipeline::pipeline::{Pipeline, Settings};
use pipeline::sink::{Order, Shape, Sink};
use pipeline::source::{Cuts, Read, Reader, Source, Start};
use pipeline::transform::recipe::{Letters, Recipe, RecipeOptions, Replay};
use pipeline::{Chunk, Outputs, Partition, Record, Rejection, Result, Room, Transform};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORD: &[u8] =
    br#"{"id":12345,"level":"info","tags":["a","b"],"http":{"status":200,"path":"/x"},"ms":17}"#;

/// The same record so many times.
struct Repeat(u64);

struct RepeatReader {
    partition: Partition,
    position: u64,
    end: u64,
}

impl Source for Repeat {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        Ok(vec![Box::new(RepeatReader {
            partition: Partition::named("repeat", "one"),
            position: 0,
            end: self.0,
        })])
    }

    fn cuts(&self) -> Cuts {
        Cuts::Fixed
    }
}

impl Reader for RepeatReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if self.position == self.end {
            return Ok(Read::Done);
        }
        chunk.start(&self.partition, self.position);
        while self.position < self.end {
            self.position += 1;
            if chunk.push(self.position - 1, RECORD) == Room::Full {
                break;
            }
        }
        Ok(Read::Chunk)
    }
}

/// Keeps nothing.
struct Null;

impl Sink for Null {
    fn shape(&self) -> Shape {
        Shape { order: Order::Any, ..Shape::default() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        receipts.extend(batches.iter().map(|batch| Receipt::of(batch, None, None)));
        Ok(())
    }
}

fn keep(record: &Record<'_>, out: &mut Outputs) -> std::result::Result<(), Rejection> {
    out.push(record.bytes);
    Ok(())
}

/// Allocations and reallocations of a run over so many records.
fn allocations(records: u64, transforms: Vec<Arc<dyn Transform>>) -> usize {
    let recipe = Recipe::new(RecipeOptions {
        envelope: EnvelopeKind::Default,
        transforms,
        processed_by: "host1".into(),
        dead_letters: Letters::Keep,
        replay: Replay::No,
        output_cap: 1 << 20,
    });
    let settings = Settings { workers: 1, memory_limit: 48 << 20, ..Settings::default() };
    let region = Region::new(ALLOCATOR);
    Pipeline::new(&Repeat(records), &recipe, &Null).settings(settings).run().expect("nothing can fail");
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn more_records_are_no_more_allocations_but_a_few_per_chunk() {
    for transforms in [Vec::new(), vec![Arc::new(keep) as Arc<dyn Transform>]] {
        let (few, many) = (allocations(50_000, transforms.clone()), allocations(550_000, transforms));
        // 500,000 records are about 180 chunks of 256 KiB. Some tens of allocations a chunk are one in a hundred
        // records; one a record would be 500,000.
        let more = many.saturating_sub(few);
        assert!(more < 10_000, "{more} allocations for 500,000 more records");
    }
}
