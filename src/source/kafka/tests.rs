mod scene;

use bytes::Bytes;
use proptest::prelude::*;

use super::fill::{Fetch, Filled, Reading};
use crate::cut::{Cutters, Limits};
use crate::kafka::wire::{BatchWriter, Compression, Damage, Fault, Scope, Stamp, Unpacker};
use crate::record::{Chunk, Partition, Payload, RejectKind};

const PLAIN: Stamp = Stamp { producer_id: -1, epoch: -1, sequence: -1, scope: Scope::Plain };

/// A record batch from `base` on, whose values are its offsets behind some padding.
fn batch(base: u64, count: usize, compression: Compression, stamp: &Stamp) -> Vec<u8> {
    let mut writer = BatchWriter::new(compression, None);
    for index in 0..count {
        let value = format!("{:04}{:>60}", base + index as u64, "");
        let headers = [(&b"h"[..], Some(&b"v"[..])), (b"h", None)];
        writer.push(1_000 + index as i64, Some(b"key"), Some(value.as_bytes()), headers.into_iter()).unwrap();
    }
    let mut out = Vec::new();
    writer.finish(stamp, &mut out).unwrap();
    out[..8].copy_from_slice(&(base as i64).to_be_bytes());
    out
}

fn reading(next: u64) -> Reading {
    Reading {
        next,
        leader_epoch: -1,
        end: None,
        left: u64::MAX,
        payload: Payload::Json,
        max_record_bytes: 1 << 20,
    }
}

struct Bench {
    chunk: Chunk,
    unpacker: Unpacker,
    reading: Reading,
    /// Offsets of the records, and the value's number.
    records: Vec<(u64, u64)>,
    chunks: usize,
}

impl Bench {
    fn new(next: u64, limits: Limits) -> Self {
        let chunk = Chunk { cutters: Cutters::new(limits), ..Chunk::default() };
        Bench {
            chunk,
            unpacker: Unpacker::new(1 << 20),
            reading: reading(next),
            records: Vec::new(),
            chunks: 0,
        }
    }

    /// Fills chunks until nothing is left of these bytes.
    fn take(&mut self, bytes: Vec<u8>, aborted: Vec<(i64, i64)>) -> Result<Filled, Damage> {
        let partition = Partition::named("kafka", "t:0");
        let mut fetch = Fetch::new(Bytes::from(bytes), aborted);
        loop {
            let from = self.reading.next;
            self.chunk.start(&partition, from);
            let filled = fetch.fill(&mut self.reading, &mut self.unpacker, &mut self.chunk);
            self.chunks += 1;
            for section in self.chunk.sections() {
                for entry in section.entries() {
                    let record = section.record(entry);
                    let text = std::str::from_utf8(record.bytes).unwrap().trim();
                    self.records.push((entry.position, text.parse().unwrap()));
                    assert_eq!(record.key(), Some(&b"key"[..]));
                    assert_eq!(record.headers().count(), 2);
                }
            }
            assert!(self.chunk.end >= from && self.chunk.end <= self.reading.next);
            if filled != Ok(Filled::Full) {
                return filled;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_record_comes_once_wherever_chunks_end(
        counts in proptest::collection::vec(1usize..40, 1..6),
        compression in 0usize..5,
        block_records in 1u64..30,
        skip in 0u64..50,
    ) {
        let compression = Compression::ALL[compression];
        let mut bytes = Vec::new();
        let mut next = 0;
        for count in counts {
            bytes.extend(batch(next, count, compression, &PLAIN));
            next += count as u64;
        }
        let skip = skip.min(next);
        let mut bench = Bench::new(skip, Limits { block_records, ..Limits::default() });
        prop_assert_eq!(bench.take(bytes, Vec::new()).unwrap(), Filled::Empty);
        let expected: Vec<(u64, u64)> = (skip..next).map(|n| (n, n)).collect();
        prop_assert_eq!(bench.records, expected);
        prop_assert_eq!(bench.reading.next, next);
    }
}

#[test]
fn a_partition_ends_at_its_end_and_not_behind_it() {
    let mut bench = Bench::new(0, Limits::default());
    bench.reading.end = Some(7);
    let filled = bench.take(batch(0, 20, Compression::Lz4, &PLAIN), Vec::new()).unwrap();
    assert_eq!((filled, bench.records.len(), bench.chunk.end), (Filled::End, 7, 7));
}

#[test]
fn an_end_in_a_gap_is_reached_by_position() {
    // Compaction took the offsets from 5 to 99: the end at 50 is met by no record.
    let mut bytes = batch(0, 5, Compression::None, &PLAIN);
    bytes.extend(batch(100, 5, Compression::None, &PLAIN));
    let mut bench = Bench::new(0, Limits::default());
    bench.reading.end = Some(50);
    let filled = bench.take(bytes, Vec::new()).unwrap();
    assert_eq!((filled, bench.records.len(), bench.chunk.end), (Filled::End, 5, 50));
}

#[test]
fn a_limit_ends_it_behind_so_many_records() {
    let mut bench = Bench::new(0, Limits::default());
    (bench.reading.left, bench.reading.end) = (3, Some(20));
    let filled = bench.take(batch(0, 20, Compression::Zstd, &PLAIN), Vec::new()).unwrap();
    assert_eq!((filled, bench.records.len(), bench.chunk.end), (Filled::Empty, 3, 3));
    assert_eq!((bench.reading.next, bench.reading.is_at_end()), (3, false));
}

/// An earlier epoch than that of the record before a position looks like a log that was cut back: the earlier leader's
/// may end in front of it.
#[test]
fn every_position_in_a_chunk_has_the_epoch_of_the_record_before_it() {
    let led = |mut batch: Vec<u8>, epoch: i32| {
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        batch
    };
    let inside = Stamp { producer_id: 9, epoch: 0, sequence: 0, scope: Scope::Transaction };
    let batches = [
        led(batch(0, 3, Compression::None, &PLAIN), 4),
        led(batch(3, 4, Compression::None, &PLAIN), 7),
        led(batch(7, 2, Compression::None, &inside), 8),
        led(batch(9, 2, Compression::Lz4, &PLAIN), 8),
    ];
    let epoch_of = |end: u64| match end {
        0..=3 => 4,
        4..=7 => 7,
        _ => 8,
    };
    for block_records in [1, 2, 100] {
        let mut bench = Bench::new(1, Limits { block_records, ..Limits::default() });
        bench.reading.leader_epoch = 2;
        let mut fetch = Fetch::new(Bytes::from(batches.concat()), vec![(9, 7)]);
        loop {
            let from = bench.reading.next;
            bench.chunk.start(&Partition::named("kafka", "t:0"), from);
            let filled = fetch.fill(&mut bench.reading, &mut bench.unpacker, &mut bench.chunk).unwrap();
            let within = &bench.chunk.within;
            for end in from + 1..=bench.chunk.end {
                let resume = within.iter().rev().find(|(at, _)| *at <= end);
                let epoch = resume.map(|(_, resume)| i32::from_be_bytes(resume[..].try_into().unwrap()));
                assert_eq!(epoch, Some(epoch_of(end)), "{end} in {within:?}");
            }
            if filled != Filled::Full {
                break;
            }
        }
        assert_eq!((bench.reading.next, bench.reading.leader_epoch), (11, 8));
    }
}

#[test]
fn aborted_transactions_are_advanced_over() {
    let inside = Stamp { producer_id: 9, epoch: 0, sequence: 0, scope: Scope::Transaction };
    let mut bytes = batch(0, 5, Compression::None, &inside);
    bytes.extend(batch(5, 2, Compression::None, &PLAIN));
    let mut bench = Bench::new(0, Limits::default());
    bench.take(bytes, vec![(9, 0)]).unwrap();
    assert_eq!(bench.records, [(5, 5), (6, 6)]);
    assert_eq!(bench.reading.next, 7);
}

#[test]
fn damage_is_told_with_the_place_and_what_stood_before_it_is_there() {
    let mut bytes = batch(0, 5, Compression::None, &PLAIN);
    let mut second = batch(5, 5, Compression::None, &PLAIN);
    *second.last_mut().unwrap() ^= 1;
    bytes.extend(second);
    for block_records in [5, 100] {
        let mut bench = Bench::new(0, Limits { block_records, ..Limits::default() });
        let damage = bench.take(bytes.clone(), Vec::new()).unwrap_err();
        assert!(matches!(damage, Damage { base_offset: 5, fault: Fault::Checksum { .. } }), "{damage:?}");
        assert_eq!((bench.records.len(), bench.reading.next, bench.chunk.end), (5, 5, 5));
    }
}

/// Its checksum is right: so it was written.
#[test]
fn a_record_with_damaged_headers_is_not_taken_and_those_before_it_are() {
    let mut bytes = batch(0, 5, Compression::None, &PLAIN);
    // The last header has no value, which is a length of -1; now it is one of -2.
    *bytes.last_mut().unwrap() = 3;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let mut bench = Bench::new(0, Limits::default());
    let damage = bench.take(bytes, Vec::new()).unwrap_err();
    let fault = Fault::Record { index: 4, what: "headers" };
    assert_eq!(damage, Damage { base_offset: 0, fault });
    assert_eq!((bench.records.len(), bench.reading.next, bench.chunk.end), (4, 4, 4));
    assert_eq!(bench.reading.left, u64::MAX - 4);
}

#[test]
fn a_record_that_is_too_large_is_rejected_with_its_beginning() {
    for (length, longest) in [(10_000, 9_999), (4096, 100), (200, 100)] {
        let mut writer = BatchWriter::new(Compression::None, None);
        writer.push(0, None, Some(&vec![b'x'; length]), [].into_iter()).unwrap();
        let mut bytes = Vec::new();
        writer.finish(&PLAIN, &mut bytes).unwrap();
        let mut bench = Bench::new(0, Limits::default());
        bench.reading.max_record_bytes = longest;
        bench.chunk.start(&Partition::named("kafka", "t:0"), 0);
        let mut fetch = Fetch::new(Bytes::from(bytes), Vec::new());
        fetch.fill(&mut bench.reading, &mut bench.unpacker, &mut bench.chunk).unwrap();
        let section = bench.chunk.sections().next().unwrap();
        let (at, why) = section.faults().next().unwrap();
        assert_eq!((at, why.kind, why.length), (0, RejectKind::TooLarge, Some(length as u64)));
        assert_eq!(section.record(&section.entries()[0]).bytes.len(), length.min(4096));
    }
}

#[test]
fn a_tombstone_is_marked() {
    let mut writer = BatchWriter::new(Compression::None, None);
    writer.push(0, Some(b"key"), None, [].into_iter()).unwrap();
    let mut bytes = Vec::new();
    writer.finish(&PLAIN, &mut bytes).unwrap();
    let mut bench = Bench::new(0, Limits::default());
    bench.chunk.start(&Partition::named("kafka", "t:0"), 0);
    Fetch::new(Bytes::from(bytes), Vec::new())
        .fill(&mut bench.reading, &mut bench.unpacker, &mut bench.chunk)
        .unwrap();
    let section = bench.chunk.sections().next().unwrap();
    assert!(section.record(&section.entries()[0]).is_tombstone());
}
