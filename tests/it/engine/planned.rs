//! Rules 6 and 9: what becomes of a batch whose end an earlier owner planned, and of a partition that is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline::cut::Limits;
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::record::Partition;
use pipeline::sink::{Order, Shape};

use super::fake::{Book, Lines, Memory};
use super::script::{Script, Step, chunk, tenancy, until};
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);

fn sink(part: usize) -> Memory {
    Memory::new(Shape { writers: 2, order: Order::Any, part: Some(part), ..Shape::default() })
}

fn settings(batch_wait: Duration) -> Settings {
    Settings {
        workers: 1,
        memory_limit: 4 << 20,
        limits: Limits { block_bytes: 16 << 10, ..Limits::default() },
        batch_wait,
        ..Settings::default()
    }
}

/// Runs a script to its end; tells which ranges are stored of each partition.
#[track_caller]
fn stored(steps: Vec<Step>, sink: &Memory, settings: Settings) -> Vec<(String, u64, u64)> {
    let book = Arc::new(Book { plans: true, ..Book::default() });
    let script = Script::new(steps);
    let run = Pipeline::new(&script, &Lines, sink).settings(settings).marks(book).run();
    assert_eq!(run.unwrap(), End::Finished);
    let objects = sink.objects.lock();
    objects.iter().map(|((name, start), object)| (name.clone(), *start, object.end)).collect()
}

fn planned(partition: &Partition, end: u64) -> Step {
    Step::Recover(partition.clone(), 0, vec![end])
}

#[test]
fn rule_6_a_planned_batch_does_not_close_when_its_wait_is_over() {
    watchdog(LIMIT, || {
        let (a, b, sink) = (tenancy("a", 1), tenancy("b", 1), sink(256 << 10));
        let objects = sink.objects.clone();
        let steps = vec![
            planned(&a, 777),
            chunk(&a, 0, 100),
            Step::Assign(b.clone(), 0),
            chunk(&b, 0, 10),
            // It was opened later: whatever closes it has looked at the other too.
            until(move || objects.lock().contains_key(&("b".into(), 0))),
            chunk(&a, 100, 1000),
            Step::End(a),
            Step::End(b),
        ];
        let stored = stored(steps, &sink, settings(Duration::from_millis(5)));
        let of_a: Vec<_> = stored.iter().filter(|(name, ..)| name == "a").collect();
        assert_eq!((of_a[0].1, of_a[0].2), (0, 777), "{stored:?}");
    });
}

#[test]
fn rule_6_a_planned_batch_does_not_close_at_the_end_of_a_run() {
    watchdog(LIMIT, || {
        let (a, sink) = (tenancy("a", 1), sink(256 << 10));
        let steps = vec![planned(&a, 777), chunk(&a, 0, 100)];
        assert_eq!(stored(steps, &sink, settings(Duration::from_secs(3600))), []);
    });
}

#[test]
fn rule_6_a_planned_batch_does_not_close_where_its_partition_fails() {
    watchdog(LIMIT, || {
        let (a, b) = (tenancy("a", 1), tenancy("b", 1));
        let steps = || {
            let begin = [planned(&a, 777), planned(&b, 50)];
            begin.into_iter().chain([chunk(&a, 0, 100), chunk(&b, 0, 100)])
        };
        // The first part of it is on its way already, or none is.
        for part in [1 << 10, 256 << 10] {
            let sink = sink(part);
            let script = Script::new(steps().chain([Step::Fail(a.clone()), Step::Fail(b.clone())]));
            let run = Pipeline::new(&script, &Lines, &sink).settings(settings(Duration::from_secs(3600)));
            let error = run.marks(Arc::new(Book { plans: true, ..Book::default() })).run().unwrap_err();
            assert!(error.to_string().contains("gone"), "{error}");
            let objects = sink.objects.lock();
            let ends: Vec<_> =
                objects.iter().map(|((name, start), object)| (&name[..], *start, object.end)).collect();
            assert_eq!(ends, [("b", 0, 50), ("b", 50, 100)], "parts of {part}");
        }
    });
}

#[test]
fn rule_6_a_planned_batch_does_not_close_under_pressure() {
    watchdog(LIMIT, || {
        // More than the budget, by a reader that was told to pause and does not.
        let (count, records) = (20, 14_000);
        let partitions: Vec<Partition> =
            (0..count).map(|index| tenancy(&format!("p{index:02}"), 1)).collect();
        let mut steps: Vec<Step> = partitions.iter().map(|partition| planned(partition, records)).collect();
        steps.extend(partitions.iter().map(|partition| chunk(partition, 0, records - 1)));
        steps.extend(partitions.iter().map(|partition| chunk(partition, records - 1, records)));
        steps.extend(partitions.iter().cloned().map(Step::End));
        let stored = stored(steps, &sink(512 << 10), settings(Duration::from_secs(3600)));
        let expected: Vec<_> = partitions.iter().map(|p| (p.name().to_owned(), 0, records)).collect();
        assert_eq!(stored, expected);
    });
}

#[test]
fn rule_9_no_upload_is_begun_for_chunks_of_a_lost_tenancy() {
    watchdog(LIMIT, || {
        let (old, new, sink) = (tenancy("a", 1), tenancy("a", 2), sink(4 << 10));
        let steps = vec![
            Step::Assign(old.clone(), 0),
            Step::Lose(old.clone()),
            Step::Assign(new.clone(), 40),
            chunk(&old, 0, 5000),
            chunk(&new, 40, 50),
            Step::End(new),
        ];
        let stored = stored(steps, &sink, settings(Duration::from_secs(3600)));
        assert_eq!(stored, [("a".to_owned(), 40, 50)]);
        assert_eq!(sink.uploads.load(Ordering::SeqCst), 0);
    });
}
