use super::rows::*;
use crate::kafka::wire::writer::seal;
use crate::kafka::wire::*;

/// A batch of one record at `offset`, by `producer`.
fn data(offset: i64, producer: i64, scope: Scope) -> Vec<u8> {
    let mut writer = BatchWriter::new(Compression::None, None);
    writer.push(1, None, Some(b"x"), std::iter::empty()).unwrap();
    let mut bytes = Vec::new();
    writer.finish(&Stamp { producer_id: producer, epoch: 0, sequence: 0, scope }, &mut bytes).unwrap();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes
}

/// A marker at `offset`: 0 aborts, 1 commits.
fn marker(offset: i64, producer: i64, kind: u8) -> Vec<u8> {
    let mut writer = BatchWriter::new(Compression::None, None);
    writer.push(1, Some(&[0, 0, 0, kind]), Some(&[0; 6]), std::iter::empty()).unwrap();
    let mut bytes = Vec::new();
    let stamp = Stamp { producer_id: producer, epoch: 0, sequence: -1, scope: Scope::Transaction };
    writer.finish(&stamp, &mut bytes).unwrap();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[22] |= 32;
    seal(&mut bytes);
    bytes
}

#[track_caller]
fn check(aborted: &[(i64, i64)], batches: &[Vec<u8>], expected: &[i64]) {
    let bytes = batches.concat();
    let mut aborted = Aborted::new(aborted.iter().copied());
    let mut unpacker = Unpacker::new(CAP);
    let mut read = Vec::new();
    for batch in Batches::new(&bytes).map(Result::unwrap) {
        if aborted.verdict(&batch, &mut unpacker).unwrap() == Verdict::Read {
            read.push(batch.base_offset());
        }
    }
    assert_eq!(read, expected);
}

#[test]
fn aborted_transactions_are_skipped_and_others_are_not() {
    use Scope::{Plain, Transaction};
    let log = [
        data(0, 1, Transaction),
        data(1, 2, Transaction),
        data(2, -1, Plain),
        marker(3, 1, 0),
        data(4, 1, Transaction),
        marker(5, 2, 1),
        marker(6, 1, 1),
        data(7, 1, Transaction),
        marker(8, 1, 0),
    ];
    check(&[(1, 7), (1, 0)], &log, &[1, 2, 4]);
    // Uncommitted reading: no list. Markers are not data even then.
    check(&[], &log, &[0, 1, 2, 4, 7]);
}

#[test]
fn a_transaction_that_began_before_the_fetch_is_skipped() {
    let log = [data(100, 5, Scope::Transaction), marker(101, 5, 0), data(102, 5, Scope::Transaction)];
    check(&[(5, 42)], &log, &[102]);
}

#[test]
fn a_plain_batch_of_an_aborted_producer_is_data() {
    check(&[(5, 0)], &[data(0, 5, Scope::Plain), data(1, 5, Scope::Transaction)], &[0]);
}

#[test]
fn markers_are_told_apart() {
    let mut unpacker = Unpacker::new(CAP);
    for (bytes, expected) in [
        (marker(0, 1, 0), Some(Marker::Abort)),
        (marker(0, 1, 1), Some(Marker::Commit)),
        (marker(0, 1, 2), Some(Marker::Other)),
        (data(0, 1, Scope::Transaction), None),
    ] {
        let batch = Batches::new(&bytes).next().unwrap().unwrap();
        assert_eq!(Marker::of(&batch, &mut unpacker).unwrap(), expected);
    }
}
