//! Batches of which nobody knows what became of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline::cut::Limits;
use pipeline::pipeline::{End, Pipeline, Settings};
use pipeline::sink::{Order, Shape};
use pipeline::{Error, Result};

use super::fake::{Book, Lines, Memory};
use super::script::{Script, Step, chunk, tenancy, until};
use crate::support::watchdog;

const LIMIT: Duration = Duration::from_secs(60);
/// Enough for more than one part.
const RECORDS: u64 = 1000;

/// Reads a partition in one tenancy after another, each time that it is in doubt.
fn run(doubts: usize, tenancies: u64, book: &Arc<Book>) -> (Result<End>, Memory) {
    let mut steps = Vec::new();
    for epoch in 1..=tenancies {
        let partition = tenancy("a", epoch);
        if epoch > 1 {
            let (seen, before) = (book.clone(), tenancy("a", epoch - 1));
            let lost = before.clone();
            steps.push(until(move || seen.doubted.lock().contains(&before)));
            steps.push(Step::Lose(lost));
        }
        steps.extend([
            Step::Assign(partition.clone(), 0),
            chunk(&partition, 0, RECORDS),
            Step::End(partition.clone()),
        ]);
    }
    let shape = Shape { writers: 2, order: Order::Any, part: Some(4 << 10), ..Shape::default() };
    let sink = Memory::new(shape);
    sink.doubts.store(doubts, Ordering::SeqCst);
    let settings = Settings {
        workers: 1,
        memory_limit: 8 << 20,
        limits: Limits { block_bytes: 4 << 10, ..Limits::default() },
        ..Settings::default()
    };
    let script = Script::new(steps);
    let end = Pipeline::new(&script, &Lines, &sink).settings(settings).marks(book.clone()).run();
    (end, sink)
}

#[test]
fn a_batch_in_doubt_is_read_again_and_stored_once() {
    watchdog(LIMIT, || {
        let book = Arc::new(Book { plans: true, rereads: true, ..Book::default() });
        let (end, sink) = run(1, 2, &book);
        assert_eq!(end.unwrap(), End::Finished);
        let expected: Vec<String> = (0..RECORDS).map(|at| format!("a-{at}")).collect();
        assert_eq!(sink.ids(), expected);
        assert_eq!(book.watermark("a"), RECORDS);
        assert_eq!(sink.aborts.load(Ordering::SeqCst), 1, "what was begun is given up");
        assert_eq!(book.doubted.lock().len(), 1);
    });
}

#[test]
fn where_nothing_can_be_read_again_a_doubt_ends_the_run() {
    watchdog(LIMIT, || {
        let book = Arc::new(Book { plans: true, ..Book::default() });
        let (end, _) = run(1, 1, &book);
        let error = end.unwrap_err();
        assert!(matches!(error, Error::InDoubt { .. }), "{error}");
        assert_eq!((error.exit_code(), book.watermark("a")), (1, 0));
    });
}

#[test]
fn a_batch_that_is_in_doubt_again_and_again_ends_the_run() {
    watchdog(LIMIT, || {
        let book = Arc::new(Book { plans: true, rereads: true, ..Book::default() });
        let (end, _) = run(usize::MAX, 9, &book);
        assert!(matches!(end.unwrap_err(), Error::InDoubt { .. }));
        assert_eq!(book.doubted.lock().len(), 3);
    });
}
