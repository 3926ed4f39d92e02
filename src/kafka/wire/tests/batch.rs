use proptest::prelude::*;

use super::rows::*;
use crate::kafka::wire::writer::seal;
use crate::kafka::wire::*;

proptest! {
    #[test]
    fn what_is_written_is_read(compression in compression(), rows in rows()) {
        let bytes = batch(compression, &rows);
        let one = Batches::new(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(one.compression(), compression);
        prop_assert_eq!(one.count() as usize, rows.len());
        prop_assert_eq!(one.last_offset(), rows.len() as i64 - 1);
        prop_assert_eq!(one.max_timestamp(), rows.iter().map(|row| row.time).max().unwrap());
        prop_assert_eq!((one.producer_id(), one.producer_epoch(), one.base_sequence()), (7001, 3, 12));
        prop_assert!(one.is_transactional() && !one.is_control());
        prop_assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
    }

    #[test]
    fn recycled_buffers_carry_nothing_over(compression in compression(), first in rows(), second in rows()) {
        let mut writer = BatchWriter::new(compression, None);
        let mut unpacker = Unpacker::new(CAP);
        let (one, two) = (write(&mut writer, &first), write(&mut writer, &second));
        prop_assert_eq!(&two, &batch(compression, &second));
        prop_assert_eq!(read(&one, &mut unpacker, Crc::Check).unwrap(), first);
        prop_assert_eq!(read(&two, &mut unpacker, Crc::Check).unwrap(), second);
    }

    #[test]
    fn a_walk_goes_on_where_it_was_left(compression in compression(), rows in rows()) {
        let bytes = batch(compression, &rows);
        let one = Batches::new(&bytes).next().unwrap().unwrap();
        let mut unpacker = Unpacker::new(CAP);
        let mut offsets = Vec::new();
        let mut place = unpacker.records(&one).unwrap().place();
        loop {
            let mut records = unpacker.resume(&one, place).unwrap();
            let Some(record) = records.next() else { break };
            offsets.push(record.unwrap().offset);
            place = records.place();
        }
        prop_assert_eq!(offsets, rows.iter().map(|row| row.offset).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_of_exactly_the_cap_is_read_and_a_byte_more_is_not(compression in compression(), rows in rows()) {
        let raw = batch(Compression::None, &rows).len() - batch::HEADER;
        let bytes = batch(compression, &rows);
        prop_assert_eq!(read(&bytes, &mut Unpacker::new(raw), Crc::Check).unwrap(), rows);
        let mut small = Unpacker::new(raw - 1);
        let result = read(&bytes, &mut small, Crc::Check);
        prop_assert!(small.memory() < raw);
        if compression == Compression::None {
            prop_assert!(result.is_ok(), "it takes no buffer");
        } else {
            prop_assert_eq!(result.unwrap_err().fault, Fault::TooLarge { cap: raw - 1 });
        }
    }
}

#[test]
fn null_and_empty_are_different_and_headers_keep_order_and_duplicates() {
    let headers = vec![
        (b"a".to_vec(), Some(b"1".to_vec())),
        (b"a".to_vec(), None),
        (b"".to_vec(), Some(Vec::new())),
        (b"a".to_vec(), Some(b"1".to_vec())),
    ];
    let rows = [
        Row { key: None, value: None, headers, ..Row::new(0, 5, "") },
        Row { key: Some(Vec::new()), ..Row::new(1, -1, "") },
    ];
    assert_eq!(read(&batch(Compression::None, &rows), &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
}

/// A batch with its offset, and one change to its bytes behind which the checksum is right again.
fn changed(rows: &[Row], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = batch(Compression::Lz4, rows);
    change(&mut bytes);
    seal(&mut bytes);
    bytes
}

#[test]
fn offsets_count_from_the_base_and_the_next_is_behind_the_last_delta() {
    let rows = [Row::new(0, 1, "a"), Row::new(1, 2, "b")];
    let mut bytes = changed(&rows, |bytes| bytes[23..27].copy_from_slice(&9i32.to_be_bytes()));
    bytes[..8].copy_from_slice(&500i64.to_be_bytes());
    let one = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!((one.base_offset(), one.next_offset()), (500, 510));
    let read = read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap();
    assert_eq!(read.iter().map(|row| row.offset).collect::<Vec<_>>(), [500, 501]);
}

#[test]
fn log_append_time_is_the_batchs_time() {
    let rows = [Row::new(0, 1, "a"), Row::new(1, 2, "b")];
    let bytes = changed(&rows, |bytes| {
        bytes[22] |= 8;
        bytes[35..43].copy_from_slice(&777i64.to_be_bytes());
    });
    let one = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!(one.timestamp_type(), TimestampType::LogAppend);
    let read = read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap();
    assert_eq!(read.iter().map(|row| row.time).collect::<Vec<_>>(), [777, 777]);
}

#[test]
fn a_batch_that_compaction_emptied_advances() {
    let mut bytes = batch(Compression::None, &[Row::new(0, 1, "a")]);
    bytes.truncate(batch::HEADER);
    bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
    bytes[23..27].copy_from_slice(&41i32.to_be_bytes());
    bytes[57..61].copy_from_slice(&0i32.to_be_bytes());
    // The compression bits of what was there once.
    bytes[22] |= 4;
    seal(&mut bytes);
    let one = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!(one.next_offset(), 42);
    assert_eq!(Unpacker::new(CAP).records(&one).unwrap().count(), 0);
}

#[test]
fn a_batch_that_is_cut_off_ends_the_walk_quietly_at_every_length() {
    let first = batch(Compression::Zstd, &[Row::new(0, 1, "a")]);
    let both = [&first[..], &batch(Compression::None, &[Row::new(0, 1, "b")])].concat();
    for length in 0..both.len() {
        let mut batches = Batches::new(&both[..length]);
        let whole = batches.by_ref().map(Result::unwrap).count();
        assert_eq!(whole, usize::from(length >= first.len()), "{length}");
        assert_eq!(batches.remaining(), length - whole * first.len());
    }
}

#[test]
fn old_formats_are_named() {
    for magic in [0, 1] {
        let mut bytes = vec![0; 40];
        bytes[8..12].copy_from_slice(&28i32.to_be_bytes());
        bytes[16] = magic;
        let damage = Batches::new(&bytes).next().unwrap().unwrap_err();
        assert_eq!(damage.fault, Fault::OldFormat { magic: magic as i8 });
        assert!(damage.to_string().contains("0.11"), "{damage}");
    }
}

#[test]
fn a_new_stamp_changes_the_producer_and_nothing_else() {
    let rows = [Row::new(0, 1, "a"), Row::new(1, 2, "b")];
    let mut bytes = batch(Compression::Gzip, &rows);
    let stamp = Stamp { producer_id: 9, epoch: 4, sequence: 0, scope: Scope::Plain };
    writer::restamp(&mut bytes, &stamp);
    let one = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!((one.producer_id(), one.producer_epoch(), one.base_sequence()), (9, 4, 0));
    assert!(!one.is_transactional());
    assert_eq!(one.compression(), Compression::Gzip);
    assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
}

#[test]
fn nothing_is_written_for_no_records() {
    assert!(batch(Compression::Zstd, &[]).is_empty());
}

#[test]
fn raw_snappy_is_read_as_librdkafka_writes_it() {
    let rows = [Row::new(0, 1, "hello hello hello hello hello")];
    let plain = batch(Compression::None, &rows);
    let packed = snap::raw::Encoder::new().compress_vec(&plain[batch::HEADER..]).unwrap();
    let mut bytes = [&plain[..batch::HEADER], &packed].concat();
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= 2;
    seal(&mut bytes);
    assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
}

/// Puts `payload` in the place of the records of a batch.
fn with_payload(plain: &[u8], compression: Compression, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&plain[..batch::HEADER], payload].concat();
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = bytes[22] & !7 | compression as u8;
    seal(&mut bytes);
    bytes
}

#[test]
fn lz4_frames_of_every_kind_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;
    let value: String = (0..40_000).map(|n| format!("{} ", n % 777)).collect();
    let rows = [Row::new(0, 1, &value), Row::new(1, 1, &value)];
    let plain = batch(Compression::None, &rows);
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            let info = FrameInfo::new()
                .block_mode(mode)
                .block_size(size)
                .block_checksums(true)
                .content_checksum(true)
                .content_size(Some((plain.len() - batch::HEADER) as u64));
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&plain[batch::HEADER..]).unwrap();
            let bytes = with_payload(&plain, Compression::Lz4, &encoder.finish().unwrap());
            assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
        }
    }
}

#[test]
fn our_lz4_frames_are_read_by_another_reader() {
    use std::io::Read;
    let value: String = (0..40_000).map(|n| format!("{} ", n % 777)).collect();
    let rows = [Row::new(0, 1, &value)];
    let mut raw = Vec::new();
    let bytes = batch(Compression::Lz4, &rows);
    lz4_flex::frame::FrameDecoder::new(&bytes[batch::HEADER..]).read_to_end(&mut raw).unwrap();
    assert_eq!(raw, batch(Compression::None, &rows)[batch::HEADER..]);
}

#[test]
fn gzip_with_all_optional_fields_and_two_members_is_read() {
    use std::io::Write;
    let rows = [Row::new(0, 1, "hello"), Row::new(1, 1, "world")];
    let plain = batch(Compression::None, &rows);
    let (first, second) = plain[batch::HEADER..].split_at(9);
    let mut payload = Vec::new();
    for part in [first, second] {
        let builder = flate2::GzBuilder::new().filename("name").comment("text").extra([1, 2, 3].to_vec());
        let mut encoder = builder.write(&mut payload, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    let bytes = with_payload(&plain, Compression::Gzip, &payload);
    assert_eq!(read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap(), rows);
}

#[test]
fn a_bomb_stops_at_the_cap() {
    // 4 MiB of zeros in a few kilobytes, in each compression, under a cap of 1 MiB.
    let zeros = "\0".repeat(4 << 20);
    for compression in &Compression::ALL[1..] {
        let bytes = batch(*compression, &[Row::new(0, 1, &zeros)]);
        let mut unpacker = Unpacker::new(CAP);
        let damage = read(&bytes, &mut unpacker, Crc::Check).unwrap_err();
        assert_eq!(damage.fault, Fault::TooLarge { cap: CAP }, "{compression:?}");
        assert!(unpacker.memory() <= CAP, "{compression:?}");
    }
}

#[test]
fn a_zstd_window_that_the_header_asks_for_is_not_allocated() {
    // Frame header: magic, no content size, window of 2^31 bytes; one raw block of 3 bytes; garbage behind.
    let mut payload = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    payload.extend_from_slice(&[0x19, 0, 0, 1, 2, 3]);
    let plain = batch(Compression::None, &[Row::new(0, 1, "a")]);
    let mut unpacker = Unpacker::new(CAP);
    let result = read(&with_payload(&plain, Compression::Zstd, &payload), &mut unpacker, Crc::Check);
    assert!(matches!(result, Err(Damage { .. })), "{result:?}");
    assert!(unpacker.memory() <= CAP);
}
