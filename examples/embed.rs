//! Embeds the pipeline in a program of its own: events from memory, a closure as the transform, a sink that
//! counts, the program's own thread pool, and a handle that stops an endless source.
//!
//! Run it with `cargo run --example embed --no-default-features`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use pipeline::batch::Counts;
use pipeline::cut::Limits;
use pipeline::metrics::Metrics;
use pipeline::sink::{Order, Shape};
use pipeline::{Batch, Receipt, Sink};
use pipeline::{Chunk, Partition, Read, Reader, Room, Source, Start};
use pipeline::{End, Error, Pipeline, Result, Settings, Stop};
use pipeline::{Outputs, Recipe, Record, RejectKind, Rejection};

/// The program stops when so many events were stored.
const ENOUGH: u64 = 100_000;

/// What the shops send, again and again. The last one is half an event, and becomes a dead letter.
const EVENTS: [&str; 4] = [
    r#"{"kind":"sale","item":"tea","cents":450}"#,
    r#"{"kind":"visit","item":"cup"}"#,
    r#"{"kind":"sale","item":"cup","cents":1200}"#,
    r#"{"kind":"sale","item":"#,
];

/// Endless events of some shops: a partition, a reader and a thread each.
struct Shops(&'static [&'static str]);

impl Source for Shops {
    fn open(&self, _: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let shop = |name: &&str| -> Box<dyn Reader> {
            Box::new(Shop { partition: Partition::named("shops", *name), next: 0 })
        };
        Ok(self.0.iter().map(shop).collect())
    }

    /// However few workers there are.
    fn readers(&self, _: usize) -> usize {
        self.0.len()
    }
}

/// One shop.
struct Shop {
    partition: Partition,
    next: u64,
}

impl Reader for Shop {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        chunk.start(&self.partition, self.next);
        loop {
            let event = EVENTS[self.next as usize % EVENTS.len()];
            let room = chunk.push(self.next, event.as_bytes());
            self.next += 1;
            if room == Room::Full {
                return Ok(Read::Chunk);
            }
        }
    }
}

/// What a transform looks at; everything else of an event is skipped without being stored anywhere.
#[derive(serde::Deserialize)]
struct Event<'a> {
    kind: &'a str,
    cents: Option<u64>,
}

/// Keeps sales that have a price. An event that is no event at all is rejected with the reason.
fn sales(record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection> {
    let event: Event<'_> = serde_json::from_slice(record.bytes)
        .map_err(|error| Rejection::new(RejectKind::Transform, error.to_string()))?;
    if event.kind == "sale" && event.cents.is_some() {
        out.push(record.bytes);
    }
    Ok(())
}

/// Counts what would be stored, by shop.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, Counts>>);

impl Sink for Tally {
    fn shape(&self) -> Shape {
        Shape { writers: 2, order: Order::Any, ..Shape::default() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        let mut tally = self.0.lock().expect("no holder panics");
        for batch in batches {
            *tally.entry(batch.id.partition.name().to_owned()).or_default() += batch.counts;
            receipts.push(Receipt::of(batch, None, None));
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The pool may serve the rest of the program as well.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let (source, recipe, tally) =
        (Shops(&["Oslo", "Rome"]), Recipe::default().transform(sales).bare(), Tally::default());
    let limits = Limits { batch_size: 5_000, ..Limits::default() };
    let stop = Stop::new();
    // In earnest a signal handler or a request would hold a clone of the handle.
    let watch = |metrics: &Metrics| {
        if metrics.totals().stored >= ENOUGH {
            stop.drain();
        }
    };

    let end = Pipeline::new(&source, &recipe, &tally)
        .settings(Settings { limits, memory_limit: 32 << 20, ..Settings::default() })
        .pool(&pool)
        .stop(&stop)
        .observe(Duration::from_millis(10), &watch)
        .run();

    match end {
        Ok(End::Drained) => println!("stopped when there was enough"),
        Ok(End::Finished) => println!("the shops have closed"),
        Err(error @ Error::Panicked { .. }) => println!("a bug in this program: {error}"),
        Err(error) => return Err(error.into()),
    }
    for (shop, counts) in tally.0.into_inner()? {
        println!("{shop}: {} events, {} sales, {} rejected", counts.read, counts.stored, counts.rejected);
    }
    Ok(())
}
