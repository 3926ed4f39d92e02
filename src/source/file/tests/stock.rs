//! What workers fetch for a reader that decodes.

use super::super::bytes::{Home, PACKED, Place, Raw, Unpacked};
use super::super::stock::{Stock, Store};
use super::far::look;
use super::*;
use crate::codec::decode::Packing;

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
    // A piece is at hand, and then half of one: where a piece ends does not depend on that.
    let (_dir, stock) = stock(&bytes, |home, out, at| match at {
        1000 => look(home, out, at),
        _ => look(home, &mut out[..PACKED / 2], at),
    });
    stock.fill();
    assert!(taken(&stock).unwrap() == bytes[1000..1000 + PACKED]);
    assert!(taken(&stock).is_none());
}

#[test]
fn a_worker_fetches_no_more_than_is_kept_even_if_it_is_taken_meanwhile() {
    static STOCK: parking_lot::Mutex<Option<Arc<Stock>>> = parking_lot::Mutex::new(None);
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let (_dir, stock) = stock(&bytes(1000 + 50 * PACKED), |home, out, at| {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        let stock = STOCK.lock().clone().unwrap();
        while taken(&stock).is_some() {}
        stock.pass(at);
        look(home, out, at)
    });
    let stock = Arc::new(stock);
    *STOCK.lock() = Some(stock.clone());
    stock.fill();
    assert_eq!(LOOKS.load(Ordering::Relaxed), 3);
}

#[test]
fn when_the_reader_is_done_nobody_fetches() {
    let bytes = bytes(1000 + 9 * PACKED);
    let (_dir, stock) = stock(&bytes, look);
    let stock = Arc::new(stock);
    stock.fill();
    drop(Store(stock.clone()));
    assert!(taken(&stock).is_none());
    stock.fill();
    assert!(taken(&stock).is_none());
}

/// Lines that hardly compress.
fn noise(count: u64) -> Vec<u8> {
    let mixed = |n: u64, by: u64| n.wrapping_mul(by);
    let line =
        |n| format!("\"{:x}{:x}\"\n", mixed(n, 0x9e37_79b9_7f4a_7c15), mixed(n, 0xd6e8_feb8_6659_fd93));
    (0..count).map(line).collect::<String>().into_bytes()
}

#[test]
fn what_is_decoded_does_not_depend_on_who_reads() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let lines = noise(200_000);
    let looks: [super::super::bytes::Look; 4] = [
        look,
        |_, _, _| 0,
        |home, out, at| look(home, &mut out[..1000], at),
        // Now and then, with pauses in which all that was fetched is used.
        |home, out, at| if LOOKS.fetch_add(1, Ordering::Relaxed) % 16 < 13 { 0 } else { look(home, out, at) },
    ];
    for packing in [Packing::Gzip, Packing::Zstd] {
        let packed = match packing {
            Packing::Gzip => gzip(&lines),
            Packing::Zstd => zstd::bulk::compress(&lines, 1).unwrap(),
        };
        assert!(packed.len() > 20 * PACKED, "{}", packed.len());
        let dir = Dir::new();
        let path = dir.write("x", &packed);
        // How many bytes come up to the damage does not, either.
        let mut damaged = packed.clone();
        // Longer than a block.
        damaged[9 * PACKED..11 * PACKED].fill(0xff);
        let damaged = dir.write("y", damaged);
        let mut before = None;
        for look in looks {
            for (path, whole) in [(&path, true), (&damaged, false)] {
                let consumed = Arc::<AtomicU64>::default();
                let mut raw = Raw::regular("x", Path::new(path), &consumed).unwrap();
                let mut head = Vec::with_capacity(64 << 10);
                assert!(matches!(raw.read(&mut head), Got::Bytes));
                let mut unpacked = Unpacked::new(raw, head, packing, 8 << 20).looking(look);
                let mut decoded = Vec::new();
                let end = loop {
                    decoded.reserve(100_000);
                    match unpacked.read(&mut decoded) {
                        Got::Bytes => unpacked.stock().unwrap().fill(),
                        Got::Idle => {}
                        end => break end,
                    }
                };
                if whole {
                    assert!(matches!(end, Got::End(End::Whole)) && decoded == lines);
                    assert_eq!(consumed.load(Ordering::Relaxed), packed.len() as u64);
                } else {
                    let Got::Failed(error) = end else { panic!() };
                    let said = (decoded, error.to_string());
                    assert!(said.0.len() > 100_000);
                    assert!(*before.get_or_insert_with(|| said.clone()) == said, "{}", said.1);
                }
            }
        }
    }
    let looks = LOOKS.load(Ordering::Relaxed);
    assert!(looks > 40, "what was fetched is used: {looks}");
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
