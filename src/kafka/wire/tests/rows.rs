//! Records that own their bytes, and the way from them to a batch and back.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::kafka::wire::{BatchWriter, Batches, Compression, Crc, Damage, Scope, Stamp, Unpacker};

/// Larger than anything these tests make on purpose.
pub const CAP: usize = 1 << 20;

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub offset: i64,
    pub time: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Row {
    pub fn new(offset: i64, time: i64, value: &str) -> Self {
        let value = Some(value.as_bytes().to_vec());
        Row { offset, time, key: None, value, headers: Vec::new() }
    }
}

pub const STAMP: Stamp = Stamp { producer_id: 7001, epoch: 3, sequence: 12, scope: Scope::Transaction };

pub fn write(writer: &mut BatchWriter, rows: &[Row]) -> Vec<u8> {
    for row in rows {
        let headers = row.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
        writer.push(row.time, row.key.as_deref(), row.value.as_deref(), headers).unwrap();
    }
    let mut out = Vec::new();
    writer.finish(&STAMP, &mut out).unwrap();
    out
}

pub fn batch(compression: Compression, rows: &[Row]) -> Vec<u8> {
    write(&mut BatchWriter::new(compression, None), rows)
}

/// All records of all batches of data, with everything checked on the way.
pub fn read(bytes: &[u8], unpacker: &mut Unpacker, crc: Crc) -> Result<Vec<Row>, Damage> {
    let mut rows = Vec::new();
    for batch in Batches::with_crc(bytes, crc) {
        let batch = batch?;
        for record in unpacker.records(&batch)? {
            let record = record?;
            let headers = record
                .headers
                .flatten()
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect();
            rows.push(Row {
                offset: record.offset,
                time: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers,
            });
        }
    }
    Ok(rows)
}

pub fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    // Half of it repeats, so that compressors have something to find.
    option::of(prop_oneof![
        vec(any::<u8>(), 0..most),
        (0..most, any::<u8>()).prop_map(|(length, byte)| vec![byte; length])
    ])
}

/// Rows as a producer numbers them: offsets from 0.
pub fn rows() -> impl Strategy<Value = Vec<Row>> {
    let header = (vec(any::<u8>(), 0..9), bytes(20));
    let row = (-5_000i64..5_000, bytes(20), bytes(700), vec(header, 0..4));
    vec(row, 1..14).prop_map(|rows| {
        let number = |(index, (time, key, value, headers))| Row {
            offset: index as i64,
            time: 1_700_000_000_000 + time,
            key,
            value,
            headers,
        };
        rows.into_iter().enumerate().map(number).collect()
    })
}
