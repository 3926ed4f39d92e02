//! The hot path allocates nothing per record. A binary of its own, because the counting allocator is global.

use std::alloc::System;
use std::sync::Arc;

use pipeline::batch::{Batch, Receipt};
use pipeline::config::EnvelopeKind;
use pipeline::outgoing::Pair;
use pipeline::pipeline::{Pipeline, Settings};
use pipeline::record::Incoming;
use pipeline::sink::{Order, Shape, Sink};
use pipeline::source::{Cuts, Read, Reader, Source, Start};
use pipeline::transform::pointer::Pointer;
use pipeline::transform::recipe::{Key, Letters, Recipe, RecipeOptions, Replay};
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

/// The same record so many times, as Kafka has it: with a key, a time and headers, and now and then a tombstone.
struct Keyed(u64);

struct KeyedReader(RepeatReader);

impl Source for Keyed {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let partition = Partition::named("repeat", "keyed");
        Ok(vec![Box::new(KeyedReader(RepeatReader { partition, position: 0, end: self.0 }))])
    }
}

impl Reader for KeyedReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        let this = &mut self.0;
        if this.position == this.end {
            return Ok(Read::Done);
        }
        chunk.start(&this.partition, this.position);
        chunk.set_readable(&this.partition, this.position, this.end);
        let headers: [Pair<'_>; 2] = [(b"trace", Some(b"0123456789")), (b"binary", Some(b"\xff\x00"))];
        while this.position < this.end {
            this.position += 1;
            let value = (!this.position.is_multiple_of(100)).then_some(RECORD);
            let record = Incoming { key: Some(b"user-17"), value, time: Some(1_795_435_200_999), headers };
            if chunk.push_incoming(this.position - 1, record) == Room::Full {
                break;
            }
        }
        Ok(Read::Chunk)
    }
}

/// Keeps nothing.
struct Null(Shape);

impl Sink for Null {
    fn shape(&self) -> Shape {
        self.0
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

fn recipe(transforms: Vec<Arc<dyn Transform>>) -> Recipe {
    Recipe::new(RecipeOptions {
        envelope: EnvelopeKind::Default,
        transforms,
        processed_by: "host1".into(),
        dead_letters: Letters::Keep,
        replay: Replay::No,
        output_cap: 1 << 20,
    })
}

/// Allocations and reallocations of a run.
fn allocations(source: &dyn Source, recipe: &Recipe, shape: Shape) -> usize {
    let settings = Settings { workers: 1, memory_limit: 48 << 20, ..Settings::default() };
    let region = Region::new(ALLOCATOR);
    Pipeline::new(source, recipe, &Null(shape)).settings(settings).run().expect("nothing can fail");
    let change = region.change();
    change.allocations + change.reallocations
}

/// 500,000 records are about 180 chunks of 256 KiB, and with keys and headers about 220. Some tens of allocations a
/// chunk are one in a hundred records; one a record would be 500,000.
#[track_caller]
fn check(allocations: impl Fn(u64) -> usize) {
    let (few, many) = (allocations(50_000), allocations(550_000));
    let more = many.saturating_sub(few);
    assert!(more < 10_000, "{more} allocations for 500,000 more records");
}

// One test: the counter is for all threads.
#[test]
fn more_records_are_no_more_allocations_but_a_few_per_chunk() {
    let any = Shape { order: Order::Any, ..Shape::default() };
    for transforms in [Vec::new(), vec![Arc::new(keep) as Arc<dyn Transform>]] {
        check(|records| allocations(&Repeat(records), &recipe(transforms.clone()), any));
        check(|records| allocations(&Keyed(records), &recipe(transforms.clone()), any));
        let shape = Shape { records: true, group: 1 << 20, ..Shape::default() };
        for key in [Key::Source, Key::Field(Pointer::new("/http/path").expect("it is one"))] {
            for bare in [false, true] {
                let recipe =
                    || if bare { recipe(transforms.clone()).bare() } else { recipe(transforms.clone()) };
                check(|records| allocations(&Keyed(records), &recipe().records(key.clone()), shape));
            }
        }
    }
}
