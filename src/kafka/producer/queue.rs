//! [`Queue`]: what waits for one partition. Records are collected in a writer, then sealed into batches that are
//! sent in order, one in flight at a time.
//!
//! Only the first batch is ever numbered (KIP-98), when it is first sent; from then on it keeps its producer,
//! epoch and sequence for as long as it may stand in the log already. That one rule is what makes a second
//! sending harmless, and it makes everything else simple: to split a batch or to go on under another epoch is
//! to take its number away.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::kafka::wire::writer::restamp;
use crate::kafka::wire::{BatchWriter, Batches, Damage, Scope, Stamp, Unpacker, Unwritable};

/// A producer's id and epoch as the cluster gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerId {
    pub id: i64,
    pub epoch: i16,
}

/// A batch as it will be sent.
#[derive(Debug)]
pub(super) struct Sealed {
    pub bytes: Bytes,
    pub count: i32,
    /// Its number, once it was sent.
    pub stamp: Option<Stamp>,
    /// Whether it may stand in the log although nobody said so.
    pub doubtful: bool,
}

/// What waits for one partition.
#[derive(Default)]
pub(super) struct Queue {
    pub writer: Option<BatchWriter>,
    pub sealed: VecDeque<Sealed>,
    /// For whom `next` counts.
    producer: Option<ProducerId>,
    /// The sequence of the next batch that gets a number.
    next: i32,
}

/// Why a batch could not be split.
#[derive(Debug)]
pub(super) enum Unsplittable {
    /// It is one record: its size before compression, and its key.
    OneRecord(usize, Option<Vec<u8>>),
    /// It does not read as what it was written as.
    Damaged(Damage),
    /// The halves cannot be written.
    Unwritable(Unwritable),
}

/// Writers that nobody uses. Each may hold a compressor of more than a megabyte, so few are kept.
pub(super) struct Spare {
    writers: Vec<BatchWriter>,
    make: Box<dyn Fn() -> BatchWriter + Send>,
}

/// How many writers without work are kept.
const SPARE: usize = 16;

impl Spare {
    pub fn new(make: impl Fn() -> BatchWriter + Send + 'static) -> Self {
        Spare { writers: Vec::new(), make: Box::new(make) }
    }

    pub fn take(&mut self) -> BatchWriter {
        self.writers.pop().unwrap_or_else(|| (self.make)())
    }

    pub fn give(&mut self, mut writer: BatchWriter) {
        writer.clear();
        if self.writers.len() < SPARE {
            self.writers.push(writer);
        }
    }
}

impl Queue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.writer.is_none()
    }

    /// Closes the batch that is being written, if there is one.
    ///
    /// # Errors
    /// [`Unwritable`]; the records are kept.
    pub fn seal(&mut self, spare: &mut Spare) -> Result<(), Unwritable> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let count = writer.len() as i32;
        let mut bytes = Vec::with_capacity(writer.size() / 2);
        writer.finish(&Stamp::NONE, &mut bytes)?;
        if count > 0 {
            self.sealed.push_back(Sealed { bytes: bytes.into(), count, stamp: None, doubtful: false });
        }
        if let Some(writer) = self.writer.take() {
            spare.give(writer);
        }
        Ok(())
    }

    /// The first batch with its number, which it gets from `producer` if it has none.
    pub fn stamped(&mut self, producer: ProducerId, scope: Scope) -> Option<&Sealed> {
        let first = self.sealed.front_mut()?;
        if first.stamp.is_none() {
            if self.producer != Some(producer) {
                (self.producer, self.next) = (Some(producer), 0);
            }
            let stamp = Stamp { producer_id: producer.id, epoch: producer.epoch, sequence: self.next, scope };
            self.next = after(self.next, first.count);
            first.bytes = stamp_bytes(std::mem::take(&mut first.bytes), &stamp);
            first.stamp = Some(stamp);
        }
        Some(first)
    }

    /// The first batch is stored.
    pub fn acknowledged(&mut self) {
        self.sealed.pop_front();
    }

    /// The first batch may be stored, but nobody said so.
    pub fn doubt(&mut self) {
        if let Some(first) = self.sealed.front_mut() {
            first.doubtful = true;
        }
    }

    /// Takes the first batch's number away: it is certain that it was not stored under it.
    pub fn unstamp(&mut self) {
        let Some(first) = self.sealed.front_mut() else { return };
        if let Some(stamp) = first.stamp.take()
            && self.producer == Some(ProducerId { id: stamp.producer_id, epoch: stamp.epoch })
        {
            self.next = stamp.sequence;
        }
    }

    /// Forgets everything that waits. Returns whether something of it had a number: then these numbers must not
    /// be used again.
    pub fn clear(&mut self, spare: &mut Spare) -> bool {
        if let Some(writer) = self.writer.take() {
            spare.give(writer);
        }
        let numbered = self.sealed.iter().any(|batch| batch.stamp.is_some());
        self.sealed.clear();
        numbered
    }

    /// Writes the first batch as two of half as many records. It is certain that it was not stored.
    pub fn split(&mut self, spare: &mut Spare) -> Result<(), Unsplittable> {
        self.unstamp();
        let Some(first) = self.sealed.front() else { return Ok(()) };
        let mut writer = spare.take();
        let halves = halve(first, &mut writer);
        spare.give(writer);
        let [one, other] = halves?;
        self.sealed.pop_front();
        self.sealed.push_front(other);
        self.sealed.push_front(one);
        Ok(())
    }
}

fn halve(batch: &Sealed, writer: &mut BatchWriter) -> Result<[Sealed; 2], Unsplittable> {
    let mut unpacker = Unpacker::new(i32::MAX as usize);
    let read = Batches::new(&batch.bytes).next().transpose().map_err(Unsplittable::Damaged)?;
    let Some(read) = read else { return Err(Unsplittable::OneRecord(batch.bytes.len(), None)) };
    let records = unpacker.records(&read).map_err(Unsplittable::Damaged)?;
    let size = records.remaining();
    let middle = batch.count / 2;
    let mut halves = Vec::with_capacity(2);
    for (index, record) in (0..).zip(records) {
        let record = record.map_err(Unsplittable::Damaged)?;
        if batch.count < 2 {
            return Err(Unsplittable::OneRecord(size, record.key.map(<[u8]>::to_vec)));
        }
        if index == middle {
            halves.push(seal(writer)?);
        }
        // They were written by us: headers that are damaged would be a fault of this program.
        let headers = record.headers.filter_map(Result::ok);
        writer.push(record.timestamp, record.key, record.value, headers).map_err(Unsplittable::Unwritable)?;
    }
    halves.push(seal(writer)?);
    halves.try_into().map_err(|_| Unsplittable::OneRecord(size, None))
}

fn seal(writer: &mut BatchWriter) -> Result<Sealed, Unsplittable> {
    let count = writer.len() as i32;
    let mut bytes = Vec::new();
    writer.finish(&Stamp::NONE, &mut bytes).map_err(Unsplittable::Unwritable)?;
    Ok(Sealed { bytes: bytes.into(), count, stamp: None, doubtful: false })
}

/// The batch's bytes under a number. Copied only if a request that was given up still holds them.
fn stamp_bytes(bytes: Bytes, stamp: &Stamp) -> Bytes {
    let mut own = bytes.try_into_mut().unwrap_or_else(|shared| shared[..].into());
    restamp(&mut own, stamp);
    own.freeze()
}

/// The sequence `count` records after `sequence`; behind the largest comes 0.
fn after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::wire::Compression;

    const PRODUCER: ProducerId = ProducerId { id: 7, epoch: 3 };

    fn spare() -> Spare {
        Spare::new(|| BatchWriter::new(Compression::Lz4, None))
    }

    fn put(queue: &mut Queue, spare: &mut Spare, records: i32) {
        let writer = queue.writer.get_or_insert_with(|| spare.take());
        for number in 0..records {
            let value = number.to_be_bytes();
            let header = [(&b"h"[..], None)];
            writer.push(1000 + i64::from(number), Some(b"k"), Some(&value), header.into_iter()).unwrap();
        }
        queue.seal(spare).unwrap();
    }

    fn send(queue: &mut Queue) -> (i32, i32, i16) {
        let sealed = queue.stamped(PRODUCER, Scope::Plain).unwrap();
        let stamp = sealed.stamp.unwrap();
        let batch = Batches::new(&sealed.bytes).next().unwrap().unwrap();
        assert_eq!(i32::from_be_bytes(sealed.bytes[53..57].try_into().unwrap()), stamp.sequence);
        assert_eq!(batch.count(), sealed.count);
        (stamp.sequence, sealed.count, stamp.epoch)
    }

    #[test]
    fn numbers_follow_each_other_and_stay() {
        let (mut queue, mut spare) = (Queue::default(), spare());
        put(&mut queue, &mut spare, 3);
        put(&mut queue, &mut spare, 2);
        assert_eq!(send(&mut queue), (0, 3, 3));
        queue.doubt();
        assert_eq!(send(&mut queue), (0, 3, 3));
        queue.acknowledged();
        assert_eq!(send(&mut queue), (3, 2, 3));
        // Another epoch begins at 0, for what has no number yet.
        let next = ProducerId { epoch: 4, ..PRODUCER };
        assert_eq!(queue.stamped(next, Scope::Plain).unwrap().stamp.unwrap().epoch, 3);
        queue.unstamp();
        let stamp = queue.stamped(next, Scope::Plain).unwrap().stamp.unwrap();
        assert_eq!((stamp.epoch, stamp.sequence), (4, 0));
    }

    #[test]
    fn behind_the_largest_sequence_comes_zero() {
        assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn a_split_batch_keeps_its_records_and_their_numbers() {
        let (mut queue, mut spare) = (Queue::default(), spare());
        put(&mut queue, &mut spare, 5);
        put(&mut queue, &mut spare, 1);
        assert_eq!(send(&mut queue), (0, 5, 3));
        queue.split(&mut spare).unwrap();
        let mut unpacker = Unpacker::new(1 << 20);
        let mut numbers = Vec::new();
        for expected in [(0, 2, 3), (2, 3, 3), (5, 1, 3)] {
            assert_eq!(send(&mut queue), expected);
            let first = queue.sealed.front().unwrap();
            let batch = Batches::new(&first.bytes).next().unwrap().unwrap();
            for record in unpacker.records(&batch).unwrap().map(Result::unwrap) {
                let number = i32::from_be_bytes(record.value.unwrap().try_into().unwrap());
                assert_eq!((record.timestamp, record.headers.len()), (1000 + i64::from(number), 1));
                numbers.push(number);
            }
            queue.acknowledged();
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4, 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn one_record_is_not_split() {
        let (mut queue, mut spare) = (Queue::default(), spare());
        put(&mut queue, &mut spare, 1);
        match queue.split(&mut spare) {
            Err(Unsplittable::OneRecord(size, Some(key))) => assert_eq!((size, &key[..]), (15, &b"k"[..])),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_forgotten_with_a_number_is_told() {
        let (mut queue, mut spare) = (Queue::default(), spare());
        put(&mut queue, &mut spare, 1);
        assert!(!queue.clear(&mut spare));
        put(&mut queue, &mut spare, 1);
        send(&mut queue);
        assert!(queue.clear(&mut spare));
        assert!(queue.is_empty());
    }
}
