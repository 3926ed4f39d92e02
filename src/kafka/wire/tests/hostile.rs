use proptest::prelude::*;

use super::rows::*;
use crate::kafka::wire::writer::seal;
use crate::kafka::wire::*;

/// One way to damage bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Extend(Vec<u8>),
    Overwrite(prop::sample::Index, [u8; 4]),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let interesting = prop::sample::select(vec![0u8, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff]);
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        3 => (any::<prop::sample::Index>(), interesting).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Truncate),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Mutation::Extend),
        2 => (any::<prop::sample::Index>(), prop::sample::select(vec![[0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0x80, 0, 0, 0], [0; 4]]))
            .prop_map(|(at, word)| Mutation::Overwrite(at, word)),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(a, b)| Mutation::Swap(a, b)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Mutation::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Mutation::Set(at, byte) => *at.get_mut(bytes) = *byte,
            Mutation::Truncate(at) => bytes.truncate(at.index(bytes.len()).max(1)),
            Mutation::Extend(more) => bytes.extend_from_slice(more),
            Mutation::Overwrite(at, word) => {
                let at = at.index(bytes.len());
                bytes.iter_mut().skip(at).zip(word).for_each(|(byte, new)| *byte = *new);
            }
            Mutation::Swap(a, b) => {
                let length = bytes.len();
                bytes.swap(a.index(length), b.index(length));
            }
        }
    }
}

/// Reads everything there is. The only promise is to come back, within the cap.
fn survive(bytes: &[u8], cap: usize) -> Option<Damage> {
    let mut unpacker = Unpacker::new(cap);
    let mut damage = None;
    for crc in [Crc::Check, Crc::Skip] {
        let mut aborted = Aborted::new([(7001, 0)]);
        for one in Batches::with_crc(bytes, crc).flatten() {
            let _ = aborted.verdict(&one, &mut unpacker);
            assert!(one.next_offset() > one.base_offset());
        }
        damage = read(bytes, &mut unpacker, crc).err();
    }
    assert!(unpacker.memory() <= cap, "{} of {cap}", unpacker.memory());
    damage
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn damaged_batches_never_panic_and_stay_within_the_cap(
        compression in compression(),
        rows in rows(),
        mutations in prop::collection::vec(mutation(), 1..4),
        spare in 0usize..100_000,
    ) {
        let mut bytes = batch(compression, &rows);
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        survive(&bytes, spare);
        // Behind the checksum: the same damage with a right one, and with a right length.
        if bytes.len() >= batch::HEADER {
            seal(&mut bytes);
            survive(&bytes, spare);
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            seal(&mut bytes);
            survive(&bytes, CAP);
        }
    }

    #[test]
    fn damaged_records_behind_a_right_header_never_panic(
        compression in compression(),
        rows in rows(),
        mutations in prop::collection::vec(mutation(), 1..3),
    ) {
        let whole = batch(compression, &rows);
        let mut payload = whole[batch::HEADER..].to_vec();
        mutations.iter().for_each(|mutation| mutation.apply(&mut payload));
        let mut bytes = [&whole[..batch::HEADER], &payload].concat();
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        seal(&mut bytes);
        survive(&bytes, CAP);
    }

    #[test]
    fn a_changed_byte_behind_the_checksum_is_found(compression in compression(), rows in rows(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = batch(compression, &rows);
        let at = batch::CRC_AT + at.index(bytes.len() - batch::CRC_AT);
        bytes[at] ^= 1 << bit;
        let damage = read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap_err();
        prop_assert!(matches!(damage.fault, Fault::Checksum { .. }), "{}", damage);
    }

    #[test]
    fn any_bytes_at_all(mut bytes in prop::collection::vec(any::<u8>(), 0..300), head: bool) {
        if head && bytes.len() > 30 {
            bytes[16] = 2;
            bytes[..12].copy_from_slice(&[0; 12]);
            let length = bytes.len() - 12;
            bytes[10..12].copy_from_slice(&(length as u16).to_be_bytes());
        }
        survive(&bytes, 1000);
    }
}

#[track_caller]
fn check(fault: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = batch(Compression::None, &[Row::new(0, 1, "abc"), Row::new(1, 2, "def")]);
    change(&mut bytes);
    if bytes.len() > 21 {
        seal(&mut bytes);
    }
    let damage = read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap_err().to_string();
    assert!(damage.contains(fault), "{damage}");
}

#[test]
fn each_impossible_field_is_named() {
    check("impossible batch length", |b| b[8..12].copy_from_slice(&(-1i32).to_be_bytes()));
    check("impossible batch length", |b| b[8..12].copy_from_slice(&48i32.to_be_bytes()));
    check("unknown message format v3", |b| b[16] = 3);
    check("impossible base offset", |b| b[0] = 0x80);
    check("impossible base offset", |b| b[..8].copy_from_slice(&i64::MAX.to_be_bytes()));
    check("impossible last offset delta", |b| b[23] = 0x80);
    check("impossible record count", |b| b[57] = 0x80);
    check("impossible record count", |b| b[57..61].copy_from_slice(&i32::MAX.to_be_bytes()));
    check("unknown compression 5", |b| b[22] |= 5);
    check("record 0 has an impossible length", |b| b[61] = 0xff);
    check("record 0 has an impossible length", |b| b[61] = 1);
    check("record 0 has an impossible attributes", |b| b[61] = 0);
    check("record 0 has an impossible offset", |b| b[64] = 1);
    check("record 0 has an impossible offset", |b| b[64] = 4);
    check("record 0 has an impossible key length", |b| b[65] = 3);
    check("record 0 has an impossible value length", |b| b[66] = 0x7e);
    check("record 0 has an impossible header count", |b| b[70] = 1);
    check("record 0 has an impossible header count", |b| b[70] = 0x7e);
    check("record 1 has an impossible offset", |b| b[74] = 0);
    check("bytes follow the last record", |b| {
        b[57..61].copy_from_slice(&1i32.to_be_bytes());
    });
}

#[test]
fn damage_says_where() {
    let mut bytes = batch(Compression::Gzip, &[Row::new(0, 1, "abc")]);
    bytes[..8].copy_from_slice(&4711i64.to_be_bytes());
    bytes[batch::HEADER] = 0;
    seal(&mut bytes);
    let damage = read(&bytes, &mut Unpacker::new(CAP), Crc::Check).unwrap_err();
    assert_eq!(damage.to_string(), "batch at offset 4711: gzip records are damaged: not a gzip member");
}

#[test]
fn after_damage_an_iterator_is_at_its_end() {
    let mut bytes = batch(Compression::None, &[Row::new(0, 1, "abc"), Row::new(1, 2, "def")]);
    bytes[61] = 1;
    seal(&mut bytes);
    let one = Batches::new(&bytes).next().unwrap().unwrap();
    let mut unpacker = Unpacker::new(CAP);
    assert_eq!(unpacker.records(&one).unwrap().map(|record| record.is_err()).collect::<Vec<_>>(), [true]);
    bytes[30] ^= 1;
    assert_eq!(Batches::new(&bytes).map(|one| one.is_err()).collect::<Vec<_>>(), [true]);
}
