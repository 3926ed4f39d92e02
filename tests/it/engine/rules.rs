//! One test a rule of the engine, and a property over all settings.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pipeline::batch::{Batch, BatchId, Receipt};
use pipeline::codec::Codec;
use pipeline::cut::Limits;
use pipeline::error::Retry;
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::record::Section;
use pipeline::retry::Policy;
use pipeline::sink::{Order, Part, Shape, Sink, Stream, Totals, Upload};
use pipeline::source::{Cuts, Flow, Marks};
use pipeline::stop::Stop;
use pipeline::transform::{Out, Program};
use pipeline::{Error, Result, outgoing};
use proptest::prelude::*;

use super::fake::{After, Book, Lines, Memory, Numbers, ids};
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

fn any(part: usize) -> Shape {
    Shape { writers: 2, order: Order::Any, part: Some(part), checksums: true, ..Shape::default() }
}

fn small(workers: usize) -> Settings {
    Settings {
        workers,
        memory_limit: 16 << 20,
        limits: Limits { block_bytes: 16 << 10, ..Limits::default() },
        retry: Policy { delay: Duration::from_millis(1), ..Policy::default() },
        batch_wait: Duration::from_secs(3600),
        ..Settings::default()
    }
}

/// Runs to the end and checks that every id is there once.
#[track_caller]
fn check(source: &Numbers, sink: &Memory, settings: Settings) -> Arc<pipeline::metrics::Metrics> {
    let pipeline = Pipeline::new(source, &Lines, sink).settings(settings);
    let metrics = pipeline.metrics();
    assert_eq!(pipeline.run().unwrap(), End::Finished);
    sink.check(source);
    metrics
}

#[test]
fn rule_1_many_readers_share_a_tiny_budget() {
    for at_hand in [false, true] {
        watchdog(LIMIT, move || {
            let source = Numbers { turn: 50, at_hand, ..Numbers::new(8, 3000) };
            let settings = Settings { memory_limit: 2 << 20, ..small(8) };
            let settings =
                Settings { limits: Limits { block_bytes: 4 << 10, ..settings.limits }, ..settings };
            check(&source, &Memory::new(any(64 << 10)), settings);
        });
    }
}

#[test]
fn rule_2_records_larger_than_the_budget_go_through() {
    watchdog(LIMIT, || {
        let source = Numbers { size: 6 << 20, ..Numbers::new(2, 3) };
        let settings = Settings { memory_limit: 4 << 20, ..small(2) };
        check(&source, &Memory::new(any(256 << 10)), settings);
    });
}

/// Holds the first chunk until `others` chunks behind it were processed.
struct HoldFirst {
    others: usize,
    seen: Mutex<usize>,
    changed: Condvar,
}

impl Program for HoldFirst {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let mut seen = self.seen.lock();
        *seen += 1;
        self.changed.notify_all();
        if section.entries()[0].position == 0 {
            self.changed.wait_while(&mut seen, |seen| *seen <= self.others);
        }
        drop(seen);
        Lines.run(section, out);
    }
}

/// Small chunks share a permit while more is at hand. Nothing is held back behind that, whatever comes then.
#[test]
fn rule_3_what_is_small_goes_on_before_a_reader_waits() {
    for at_hand in [false, true] {
        watchdog(LIMIT, move || {
            // A sink that keeps order gets every record at once: each chunk closes its batch.
            let limits = Limits { batch_size: 1, ..small(1).limits };
            let source = Numbers { turn: 1, endless: true, at_hand, ..Numbers::new(3, 500) };
            let sink = Memory::new(Shape { writers: 1, order: Order::Total, ..Shape::default() });
            let stop = Stop::new();
            std::thread::scope(|scope| {
                let run = scope.spawn(|| {
                    let settings = Settings { limits, ..small(1) };
                    Pipeline::new(&source, &Lines, &sink).settings(settings).stop(&stop).run()
                });
                while sink.objects.lock().len() < 1500 {
                    assert!(!run.is_finished());
                    std::thread::yield_now();
                }
                stop.drain();
                assert_eq!(run.join().unwrap().unwrap(), End::Drained);
            });
            sink.check(&source);
        });
    }
}

#[test]
fn rule_3_a_permit_comes_back_when_a_result_arrives_even_out_of_order() {
    watchdog(LIMIT, || {
        // Two workers have four permits; with one of them held, far more than four chunks must pass.
        let source = Numbers::new(1, 6000);
        let program = HoldFirst { others: 12, seen: Mutex::new(0), changed: Condvar::new() };
        let sink = Memory::new(any(64 << 10));
        assert_eq!(Pipeline::new(&source, &program, &sink).settings(small(2)).run().unwrap(), End::Finished);
        sink.check(&source);
    });
}

struct PanicAt(u64);

impl Program for PanicAt {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        assert!(
            section.entries().iter().all(|entry| entry.position != self.0),
            "record {} is cursed",
            self.0
        );
        Lines.run(section, out);
    }
}

#[test]
fn rule_4_a_panic_in_the_pool_ends_the_run_with_its_message() {
    for workers in [1, 2] {
        let error = watchdog(LIMIT, move || {
            let (source, sink) = (Numbers::new(3, 5000), Memory::new(any(64 << 10)));
            Pipeline::new(&source, &PanicAt(2500), &sink).settings(small(workers)).run().unwrap_err()
        });
        assert!(matches!(&error, Error::Panicked { thread, .. } if thread.starts_with("work-")), "{error}");
        assert!(error.to_string().contains("record 2500 is cursed"), "{error}");
    }
}

#[test]
fn rule_5_pressure_closes_batches_of_500_partitions() {
    for at_hand in [false, true] {
        let metrics = watchdog(LIMIT, move || {
            let source = Numbers { turn: 100, size: 300, at_hand, ..Numbers::new(500, 400) };
            check(&source, &Memory::new(any(1 << 20)), Settings { memory_limit: 12 << 20, ..small(2) })
        });
        let closes = metrics.totals().closes;
        assert!(closes.get(&pipeline::cut::Close::Pressure).is_some_and(|count| *count > 0), "{closes:?}");
        let peak = metrics.peak_bytes.load(Ordering::Relaxed);
        assert!(peak < 14 << 20, "{peak} bytes in flight");
    }
}

#[test]
fn rule_6_partitions_with_planned_ends_wait_for_a_slot_and_end_there() {
    watchdog(LIMIT, || {
        let source = Numbers { turn: 100, size: 300, ..Numbers::new(40, 2000) };
        let book = Arc::new(Book { plans: true, ..Book::default() });
        for index in 0..40 {
            book.plan(&Numbers::partition(index), &[777, 1500]);
        }
        // Names come from the plan: the records that a batch was made of may have vanished.
        let odd = Arc::new(Mutex::new(Vec::new()));
        let seen = odd.clone();
        let sink = Memory::failing(any(64 << 10), move |id| {
            if id.start < 1500 && (id.first_time, id.opened_at) != (7, 11) {
                seen.lock().push(id.clone());
            }
            Ok(())
        });
        let settings = Settings { memory_limit: 12 << 20, ..small(2) };
        let pipeline = Pipeline::new(&source, &Lines, &sink).settings(settings).marks(book.clone());
        assert_eq!(pipeline.run().unwrap(), End::Finished);
        sink.check(&source);
        for index in 0..40 {
            let objects = sink.objects.lock();
            assert_eq!(objects[&(format!("p{index}"), 0)].end, 777);
            assert_eq!(objects[&(format!("p{index}"), 777)].end, 1500);
        }
        assert_eq!(*odd.lock(), []);
        let pauses = source.pauses.lock();
        assert!(pauses.iter().any(|(_, flow)| *flow == Flow::Pause), "no partition ever waited for a slot");
        assert!(pauses.iter().any(|(_, flow)| *flow == Flow::Run));
    });
}

#[test]
fn rule_7_writers_retry_in_place_and_keep_order_where_asked() {
    watchdog(LIMIT, || {
        let tries = Mutex::new(std::collections::HashMap::new());
        let fault = move |id: &pipeline::batch::BatchId| -> Result<()> {
            let mut tries = tries.lock();
            let count = tries.entry((id.partition.name().to_string(), id.start)).or_insert(0);
            *count += 1;
            if *count < 3 {
                return Err(Error::other("scripted", Retry::Transient, "busy"));
            }
            Ok(())
        };
        let source = Numbers { turn: 70, ..Numbers::new(4, 500) };
        let sink = Memory::failing(Shape::default(), fault);
        let metrics = check(&source, &sink, small(2));
        assert!(metrics.retries.load(Ordering::Relaxed) > 0);
        let order = sink.order.lock();
        for partition in 0..4 {
            let name = format!("p{partition}");
            let starts: Vec<u64> =
                order.iter().filter(|(p, _)| *p == name).map(|(_, start)| *start).collect();
            assert!(starts.is_sorted(), "{starts:?}");
        }
    });
}

#[test]
fn rule_7_a_sink_that_fails_for_good_stops_the_run_and_commits_nothing_past_it() {
    watchdog(LIMIT, || {
        let source = Numbers { turn: 100, ..Numbers::new(1, 5000) };
        let sink = Memory::failing(any(1 << 20), |id| match id.start {
            2000 => Err(Error::other("scripted", Retry::Permanent, "access denied")),
            _ => Ok(()),
        });
        let settings = Settings { limits: Limits { batch_size: 500, ..small(2).limits }, ..small(2) };
        let book = Arc::new(Book::default());
        let run = Pipeline::new(&source, &Lines, &sink).settings(settings).marks(book.clone()).run();
        let error = run.unwrap_err();
        assert_eq!((error.to_string(), error.exit_code()), ("scripted: access denied".into(), 4));
        assert_eq!(book.watermark("p0"), 2000);
    });
}

#[test]
fn rule_8_nothing_is_published_before_its_end_is_planned() {
    nothing_unplanned(None);
}

#[test]
fn rule_8_ends_that_a_plan_has_no_room_for_wait_for_a_later_one() {
    nothing_unplanned(Some(1));
}

fn nothing_unplanned(room: Option<usize>) {
    watchdog(LIMIT, move || {
        let book = Arc::new(Book { plans: true, room, ..Book::default() });
        let (seen, violations) = (book.clone(), Arc::new(AtomicUsize::new(0)));
        let count = violations.clone();
        // Batches of 100: the end of the batch at `start` is `start + 100`.
        let sink = Memory::failing(any(1 << 20), move |id| {
            let mark = seen.load(id.partition.name())?;
            let planned = mark.is_some_and(|mark| mark.plan.iter().any(|p| p.end == id.start + 100));
            count.fetch_add(usize::from(!planned), Ordering::SeqCst);
            Ok(())
        });
        let source = Numbers::new(3, 3000);
        let settings = Settings { limits: Limits { batch_size: 100, ..small(2).limits }, ..small(2) };
        Pipeline::new(&source, &Lines, &sink).settings(settings).marks(book.clone()).run().unwrap();
        sink.check(&source);
        assert_eq!(violations.load(Ordering::SeqCst), 0);
        assert_eq!(book.watermark("p2"), 3000);
        assert!(book.marks.lock()["p2"].plan.is_empty() && book.marks.lock()["p2"].ended);
    });
}

#[test]
fn rule_9_a_revoked_partition_is_released_when_its_batches_are_published() {
    watchdog(LIMIT, || {
        let source = Numbers { turn: 100, after: Some((1000, After::Revoke)), ..Numbers::new(3, 5000) };
        let book = Arc::new(Book { plans: true, ..Book::default() });
        let sink = Memory::new(any(1 << 20));
        let settings = Settings { limits: Limits { batch_size: 300, ..small(2).limits }, ..small(2) };
        Pipeline::new(&source, &Lines, &sink).settings(settings).marks(book.clone()).run().unwrap();
        // Three batches of 300; the open one of 100 is dropped and belongs to the next owner.
        assert_eq!(sink.ids().len(), 3 * 900);
        let mut released = book.released.lock().clone();
        released.sort();
        assert_eq!(released, ["p0", "p1", "p2"]);
        assert_eq!(book.watermark("p1"), 900);
    });
}

#[test]
fn rule_9_of_a_lost_partition_nothing_more_is_committed() {
    watchdog(LIMIT, || {
        let source = Numbers { turn: 100, after: Some((1000, After::Lose)), ..Numbers::new(1, 5000) };
        let book = Arc::new(Book { plans: true, ..Book::default() });
        let settings = Settings { limits: Limits { batch_size: 5000, ..small(1).limits }, ..small(1) };
        let sink = Memory::new(any(1 << 20));
        Pipeline::new(&source, &Lines, &sink).settings(settings).marks(book.clone()).run().unwrap();
        assert!(sink.ids().is_empty() && book.released.lock().is_empty());
        assert_eq!(book.watermark("p0"), 0);
    });
}

#[test]
fn rule_12_batches_of_one_record_are_stored_many_a_call() {
    watchdog(LIMIT, || {
        let source = Numbers { cuts: Cuts::Fixed, ..Numbers::new(1, 20_000) };
        let settings = Settings { limits: Limits { batch_size: 1, ..Limits::default() }, ..small(2) };
        let sink = Memory::new(any(1 << 20));
        let metrics = check(&source, &sink, settings);
        assert_eq!(metrics.totals().batches, 20_000);
        let calls = sink.calls.load(Ordering::SeqCst);
        assert!(calls < 100, "{calls} calls for 20,000 batches");
    });
}

#[test]
fn rule_13_fixed_cuts_do_not_depend_on_workers_memory_or_time() {
    let objects = |workers: usize, memory: usize, codec: Codec| {
        watchdog(LIMIT, move || {
            let source = Numbers { cuts: Cuts::Fixed, ..Numbers::new(5, 9000) };
            let limits = Limits { batch_bytes: 300_000, batch_size: 4001, ..small(1).limits };
            // A wait that is over at once: it must not count for fixed cuts.
            let batch_wait = Duration::from_millis(1);
            let settings = Settings { memory_limit: memory, limits, codec, batch_wait, ..small(workers) };
            let sink = Memory::new(any(1 << 10));
            Pipeline::new(&source, &Lines, &sink).settings(settings).run().unwrap();
            let objects = sink.objects.lock().clone();
            assert!(sink.uploads.load(Ordering::SeqCst) > 0, "the test needs batches larger than a part");
            objects
        })
    };
    for codec in [Codec::None, Codec::Gzip(1), Codec::Zstd(1)] {
        let one = objects(1, 4 << 20, codec);
        assert_eq!(one.len(), 5 * 3, "{:?}", one.keys());
        assert!(one == objects(3, 64 << 20, codec), "{codec:?} differs");
    }
}

#[test]
fn rule_14_gzip_is_one_member_a_batch() {
    watchdog(LIMIT, || {
        let source = Numbers::new(1, 50_000);
        let settings = Settings { codec: Codec::Gzip(1), ..small(2) };
        let sink = Memory::new(any(64 << 10));
        Pipeline::new(&source, &Lines, &sink).settings(settings).run().unwrap();
        let objects = sink.objects.lock();
        assert_eq!(objects.len(), 1);
        let mut text = Vec::new();
        let gzip = &objects.values().next().unwrap().bytes;
        // This decoder stops behind the first member.
        flate2::bufread::GzDecoder::new(&gzip[..]).read_to_end(&mut text).unwrap();
        assert_eq!(ids(&text).len(), 50_000);
    });
}

#[test]
fn small_blocks_of_streams_are_compressed_together() {
    let size = |turn: u64| {
        watchdog(LIMIT, move || {
            let source = Numbers { turn, ..Numbers::new(1, 20_000) };
            let sink = Memory::new(any(1 << 20));
            let settings = Settings { codec: Codec::Zstd(1), workers: 1, ..Settings::default() };
            Pipeline::new(&source, &Lines, &sink).settings(settings).run().unwrap();
            sink.objects.lock().values().map(|object| object.bytes.len()).sum::<usize>()
        })
    };
    let (tiny, whole) = (size(20), size(0));
    assert!(tiny < whole * 5 / 4, "{tiny} bytes from chunks of 20 records, {whole} from whole chunks");
}

#[test]
fn a_partition_that_fails_is_stored_up_to_there_and_the_others_go_on() {
    watchdog(LIMIT, || {
        let source = Numbers {
            turn: 100,
            cuts: Cuts::Fixed,
            after: Some((1000, After::Fail)),
            ..Numbers::new(2, 5000)
        };
        let sink = Memory::new(any(1 << 20));
        let book = Arc::new(Book::default());
        let run = Pipeline::new(&source, &Lines, &sink).settings(small(2)).marks(book.clone()).run();
        assert_eq!(run.unwrap_err().exit_code(), 4);
        assert_eq!((sink.ids().len(), book.watermark("p0"), book.watermark("p1")), (2000, 1000, 1000));
        assert!(!book.marks.lock()["p0"].ended);
    });
}

#[test]
fn a_run_inside_its_own_pool_is_an_error_and_the_pool_of_the_caller_works() {
    watchdog(LIMIT, || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (source, sink) = (Numbers::new(2, 100), Memory::new(any(1 << 20)));
        let inside =
            pool.install(|| Pipeline::new(&source, &Lines, &sink).pool(&pool).settings(small(1)).run());
        assert!(matches!(inside, Err(Error::OwnPool)));
        Pipeline::new(&source, &Lines, &sink).pool(&pool).settings(small(1)).run().unwrap();
        sink.check(&source);
    });
}

/// A program and a sink of dead letters that are records: every record is one.
#[derive(Default)]
struct Letters(Arc<Mutex<Vec<Vec<u8>>>>);

impl Program for Letters {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        for entry in section.entries() {
            let value = Some(section.record(entry).bytes);
            outgoing::put(&mut out.failed, &outgoing::Outgoing { value, ..Default::default() });
            out.counts.read += 1;
            out.counts.rejected += 1;
        }
    }
}

impl Sink for Letters {
    fn shape(&self) -> Shape {
        Shape { even_parts: true, letter_records: true, ..any(4 << 10) }
    }

    fn store(&self, _: &[Batch], _: &mut Vec<Receipt>) -> Result<()> {
        panic!("all of it is larger than a part")
    }

    fn open(&self, _: &BatchId) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Letters(self.0.clone())))
    }
}

impl Upload for Letters {
    fn part(&self, part: &Part) -> Result<()> {
        assert_eq!(part.stream, Stream::Failed);
        let values = outgoing::read(&part.body).map(|letter| letter.value.unwrap_or_default().to_vec());
        self.0.lock().extend(values);
        Ok(())
    }

    fn publish(&self, batch: &Batch, totals: &Totals) -> Result<Receipt> {
        Ok(totals.receipt(batch, None, None))
    }

    fn abort(&self) {}
}

/// Whoever wants parts of a size, as object stores do, gets no half of a record.
#[test]
fn parts_of_dead_letters_that_are_records_end_where_one_does() {
    watchdog(LIMIT, || {
        let (source, letters) = (Numbers { size: 300, ..Numbers::new(1, 1000) }, Letters::default());
        Pipeline::new(&source, &letters, &letters).settings(small(2)).run().unwrap();
        let mut found = ids(&letters.0.lock().join(&b'\n'));
        found.sort();
        let mut expected: Vec<String> = (0..1000).map(|record| format!("p0-{record}")).collect();
        expected.sort();
        assert_eq!(found, expected);
    });
}

#[derive(Clone, Debug)]
struct Case {
    workers: usize,
    memory: usize,
    batch_size: u64,
    batch_bytes: u64,
    part: Option<usize>,
    order: Order,
    cuts: Cuts,
    codec: Codec,
    source: (usize, u64, usize, u64),
    at_hand: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let shapes = (
        prop_oneof![Just(None), (1usize << 10..1 << 20).prop_map(Some)],
        prop_oneof![Just(Order::Any), Just(Order::Partition), Just(Order::Total)],
        prop_oneof![Just(Cuts::Fixed), Just(Cuts::Early)],
        prop_oneof![Just(Codec::None), Just(Codec::Gzip(1)), Just(Codec::Zstd(1))],
    );
    let limits = (1usize..4, 5usize << 20..32 << 20, 0u64..2000, 1000u64..2_000_000);
    let source = (1usize..20, 0u64..600, 20usize..800, 0u64..300);
    (limits, shapes, source, proptest::bool::ANY).prop_map(|(limits, shape, source, at_hand)| {
        let (workers, memory, batch_size, batch_bytes) = limits;
        let (part, order, cuts, codec) = shape;
        Case { workers, memory, batch_size, batch_bytes, part, order, cuts, codec, source, at_hand }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Whatever the settings: the run ends, and every record is stored once.
    #[test]
    fn every_record_is_stored_once(case in cases()) {
        watchdog(LIMIT, move || {
            let (partitions, records, size, turn) = case.source;
            let (cuts, at_hand) = (case.cuts, case.at_hand);
            let source = Numbers { size, turn, cuts, at_hand, ..Numbers::new(partitions, records) };
            let part = case.part.filter(|_| case.order == Order::Any);
            let group = if at_hand { 4 << 10 } else { 0 };
            let shape = Shape { writers: 2, order: case.order, part, group, ..Shape::default() };
            let limits = Limits { batch_size: case.batch_size, batch_bytes: case.batch_bytes, ..small(1).limits };
            let settings = Settings { memory_limit: case.memory, limits, codec: case.codec, ..small(case.workers) };
            check(&source, &Memory { codec: case.codec, ..Memory::new(shape) }, settings);
        });
    }
}
