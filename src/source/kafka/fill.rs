//! Fetched bytes to chunks: record batches are walked, unpacked and their records copied, each once.
//!
//! A chunk ends where a block or a batch of ours ends, in the middle of a record batch if need be: the walk is
//! left there and gone on with for the next chunk, without unpacking again. A chunk also ends with what was
//! fetched, so that records do not wait for others that may never come.

use std::sync::Arc;

use bytes::Bytes;

use crate::kafka::wire::{Aborted, Batch, Batches, Crc, Damage, Fault, Place, Record, Unpacker, Verdict};
use crate::record::{BEGINNING, Chunk, Incoming, Payload, RejectKind, Rejection, Room};

/// What was fetched of one partition and is not yet in chunks.
pub(super) struct Fetch {
    bytes: Bytes,
    /// Where the record batch begins that comes next.
    at: usize,
    /// Where inside it the walk was left.
    place: Option<Place>,
    aborted: Aborted,
}

/// How a partition is read.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The next offset.
    pub next: u64,
    /// The epoch of the leader that wrote the last record, or -1.
    pub leader_epoch: i32,
    /// The offset at which it ends.
    pub end: Option<u64>,
    /// Records that may still be taken.
    pub left: u64,
    pub payload: Payload,
    pub max_record_bytes: usize,
}

/// Why filling stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// The chunk is full; there is more.
    Full,
    /// Everything that was fetched is taken, or as many records as were asked for.
    Empty,
    /// The partition's end is reached.
    End,
}

impl Fetch {
    pub fn new(bytes: Bytes, aborted: Vec<(i64, i64)>) -> Self {
        Fetch { bytes, at: 0, place: None, aborted: Aborted::new(aborted) }
    }

    /// Puts records into a chunk that was started. In front of damage it has all that is whole.
    ///
    /// # Errors
    /// [`Damage`], naming the record batch.
    pub fn fill(
        &mut self,
        reading: &mut Reading,
        unpacker: &mut Unpacker,
        chunk: &mut Chunk,
    ) -> Result<Filled, Damage> {
        let filled = self.walk(reading, unpacker, chunk);
        let end = reading.end.map_or(reading.next, |end| end.min(reading.next));
        chunk.set_end(end.max(chunk.end));
        filled
    }

    fn walk(
        &mut self,
        reading: &mut Reading,
        unpacker: &mut Unpacker,
        chunk: &mut Chunk,
    ) -> Result<Filled, Damage> {
        let mut epoch = None;
        loop {
            if reading.is_at_end() {
                return Ok(Filled::End);
            }
            if reading.left == 0 {
                return Ok(Filled::Empty);
            }
            let bytes = self.bytes.clone();
            let crc = if self.place.is_some() { Crc::Skip } else { Crc::Check };
            let Some(batch) = Batches::with_crc(&bytes[self.at..], crc).next().transpose()? else {
                return Ok(Filled::Empty);
            };
            // A position in this chunk goes with the epoch of what stands before it, never with an earlier one: that
            // leader's log may end in front of it.
            if epoch != Some(batch.leader_epoch()) {
                epoch = Some(batch.leader_epoch());
                chunk.within.push((chunk.end + 1, resume(batch.leader_epoch())));
            }
            if self.batch(&batch, reading, unpacker, chunk)? == Room::Full {
                return Ok(Filled::Full);
            }
            if self.place.is_none() {
                self.at += batch.bytes().len();
                reading.next = reading.next.max(batch.next_offset() as u64);
                reading.leader_epoch = batch.leader_epoch();
            }
        }
    }

    /// Takes the records of one batch. Leaves the walk in `place` if it is not at its end.
    fn batch(
        &mut self,
        batch: &Batch<'_>,
        reading: &mut Reading,
        unpacker: &mut Unpacker,
        chunk: &mut Chunk,
    ) -> Result<Room, Damage> {
        let mut records = match self.place.take() {
            Some(place) => unpacker.resume(batch, place)?,
            None if self.aborted.verdict(batch, unpacker)? == Verdict::Skip => return Ok(Room::More),
            None => unpacker.records(batch)?,
        };
        loop {
            let before = records.place();
            let Some(record) = records.next().transpose()? else { return Ok(Room::More) };
            // A broker sends whole batches: what stands before the wanted offset is not ours.
            if (record.offset as u64) < reading.next {
                continue;
            }
            if let Some(end) = reading.end.filter(|end| record.offset as u64 >= *end) {
                // Nothing between the end and this record is there any more.
                reading.next = end;
                self.place = Some(before);
                return Ok(Room::More);
            }
            if reading.left == 0 {
                self.place = Some(before);
                return Ok(Room::More);
            }
            if record.headers.clone().any(|header| header.is_err()) {
                let index = (record.offset - batch.base_offset()) as i32;
                let fault = Fault::Record { index, what: "headers" };
                return Err(Damage { base_offset: batch.base_offset(), fault });
            }
            let room = reading.take(&record, chunk);
            reading.leader_epoch = batch.leader_epoch();
            if room == Room::Full {
                self.place = Some(records.place());
                return Ok(Room::Full);
            }
        }
    }
}

/// What is remembered with a position: the epoch of the leader that wrote the record before it.
pub(super) fn resume(leader_epoch: i32) -> Arc<[u8]> {
    leader_epoch.to_be_bytes().into()
}

impl Reading {
    /// Whether there is nothing more to read.
    pub fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// Copies one record into the chunk, whose headers are whole.
    fn take(&mut self, record: &Record<'_>, chunk: &mut Chunk) -> Room {
        self.next = record.offset as u64 + 1;
        self.left -= 1;
        let length = record.value.map_or(0, <[u8]>::len);
        let is_too_large = length > self.max_record_bytes;
        let kept = if is_too_large { BEGINNING.min(length) } else { length };
        let room = chunk.push_incoming(
            record.offset as u64,
            Incoming {
                key: record.key,
                value: record.value.map(|value| &value[..kept]),
                // -1 stands for no time.
                time: (record.timestamp >= 0).then_some(record.timestamp),
                headers: record.headers.map_while(Result::ok),
            },
        );
        if is_too_large {
            let message = format!("{length} bytes; max_record_bytes is {}", self.max_record_bytes);
            let rejection = Rejection::new(RejectKind::TooLarge, message);
            chunk.reject_last(Rejection { length: Some(length as u64), ..rejection });
        }
        room
    }
}
