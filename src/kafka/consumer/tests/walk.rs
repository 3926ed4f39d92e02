use super::super::answer::walk;
use super::batch;

/// As compaction leaves a batch of which nothing remains: the header.
fn emptied(base: i64, count: i32, epoch: i32) -> Vec<u8> {
    let mut header = batch(base, count, epoch);
    header.truncate(61);
    header[8..12].copy_from_slice(&49i32.to_be_bytes());
    header[57..61].copy_from_slice(&0i32.to_be_bytes());
    let crc = crc32c::crc32c(&header[21..]);
    header[17..21].copy_from_slice(&crc.to_be_bytes());
    header
}

#[test]
fn the_next_offset_is_behind_the_last_whole_batch() {
    let mut bytes = batch(10, 5, 3);
    bytes.extend(batch(17, 1, 4));
    let whole = bytes.len();
    bytes.extend(batch(18, 2, 5));
    for cut in whole..bytes.len() {
        let walk = walk(&bytes[..cut], 12);
        assert_eq!((walk.next, walk.epoch, walk.batches, walk.is_damaged), (18, 4, 2, false), "{cut}");
    }
    assert_eq!(walk(&bytes, 12).next, 20);
}

#[test]
fn batches_that_compaction_emptied_are_walked_over() {
    let mut bytes = emptied(10, 5, 3);
    assert_eq!(walk(&bytes, 10).next, 15);
    bytes.extend(emptied(15, 100, 3));
    let walk = walk(&bytes, 10);
    assert_eq!((walk.next, walk.epoch, walk.batches), (115, 3, 2));
}

#[test]
fn nothing_whole_is_no_progress() {
    let bytes = batch(10, 5, 3);
    for cut in 0..bytes.len() {
        let walk = walk(&bytes[..cut], 10);
        assert_eq!((walk.next, walk.epoch, walk.batches, walk.is_damaged), (10, -1, 0, false));
    }
}

#[test]
fn batches_from_before_what_was_asked_for_do_not_go_back() {
    assert_eq!(walk(&batch(10, 5, 3), 40).next, 40);
}

#[test]
fn damage_ends_the_walk_behind_what_is_whole() {
    let mut bytes = batch(10, 5, 3);
    let mut other = batch(15, 5, 3);
    other[16] = 1;
    bytes.extend(other);
    let walk = walk(&bytes, 10);
    assert_eq!((walk.next, walk.batches, walk.is_damaged), (15, 1, true));
}
