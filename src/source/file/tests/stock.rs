//! What workers fetch for a reader that decodes.

use super::super::bytes::{Home, PACKED, Place, Raw};
use super::super::stock::Stock;
use super::far::look;
use super::*;

/// Bytes of which any place can be told from any other one.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at / 7 + at / 65_537) as u8).collect()
}

fn stock(bytes: &[u8], look: super::super::bytes::Look) -> (Dir, Stock) {
    let dir = Dir::new();
    let path = dir.write("x", bytes);
    let raw = Raw::regular("x", Path::new(&path), &Arc::default()).unwrap();
    (dir, Stock::new(Place { look, ..raw.place().unwrap() }, 1000))
}

fn taken(stock: &Stock) -> Option<Vec<u8>> {
    let mut bytes = b"used".to_vec();
    stock.take(&mut bytes).then_some(bytes)
}

#[test]
fn pieces_follow_one_another_up_to_the_end_which_is_the_readers() {
    let bytes = bytes(1000 + 5 * PACKED + PACKED / 2);
    let (_dir, stock) = stock(&bytes, look);
    let mut at = 1000;
    for _ in 0..3 {
        stock.fill();
        for _ in 0..2 {
            let Some(piece) = taken(&stock) else { continue };
            assert!(piece == bytes[at..at + PACKED], "at {at}");
            at += PACKED;
        }
    }
    assert_eq!(at, 1000 + 5 * PACKED);
    stock.fill();
    assert!(taken(&stock).is_none());
}

#[test]
fn what_is_not_at_hand_is_not_waited_for() {
    let bytes = bytes(1000 + 9 * PACKED);
    // Half of a piece is at hand, and then nothing.
    let (_dir, stock) = stock(&bytes, |home, out, at| match at {
        1000 => look(home, &mut out[..PACKED / 2], at),
        _ => 0,
    });
    stock.fill();
    assert!(taken(&stock).unwrap() == bytes[1000..1000 + PACKED / 2]);
    assert!(taken(&stock).is_none());
}

fn meanwhile(_: &Home, _: &mut [u8], _: u64) -> usize {
    panic!("nobody fetches while the reader reads")
}

#[test]
fn while_the_reader_reads_nobody_fetches_and_then_what_is_behind_it() {
    let bytes = bytes(1000 + 9 * PACKED);
    let (_dir, idle) = stock(&bytes, meanwhile);
    assert!(taken(&idle).is_none());
    idle.fill();
    let (_dir, stock) = stock(&bytes, look);
    assert!(taken(&stock).is_none());
    stock.pass(5000);
    stock.fill();
    assert!(taken(&stock).unwrap() == bytes[5000..5000 + PACKED]);
}

/// The reader comes while a worker fetches the same.
#[test]
fn what_comes_too_late_is_thrown_away() {
    use std::sync::mpsc::{Receiver, Sender, channel};
    static GATES: parking_lot::Mutex<Option<(Sender<()>, Receiver<()>)>> = parking_lot::Mutex::new(None);
    let ((began, begun), (go, gone)) = (channel(), channel());
    *GATES.lock() = Some((began, gone));
    let bytes = bytes(1000 + 9 * PACKED);
    let (_dir, stock) = stock(&bytes, |home, out, at| {
        if let Some((began, gone)) = GATES.lock().take() {
            began.send(()).unwrap();
            gone.recv().unwrap();
        }
        look(home, out, at)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| stock.fill());
        begun.recv().unwrap();
        assert!(taken(&stock).is_none());
        // Others have something else to do.
        stock.fill();
        go.send(()).unwrap();
    });
    assert!(taken(&stock).is_none(), "it stands before what the reader reads");
    stock.pass(1000 + PACKED as u64);
    stock.fill();
    assert!(taken(&stock).unwrap() == bytes[1000 + PACKED..1000 + 2 * PACKED]);
}
