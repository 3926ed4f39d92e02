//! Sixteen bytes at a time: what the validator asks of strings, numbers and labels, and what a scan for the ends of
//! values asks. One bit a byte, the first byte's the lowest. Pure.
//!
//! Eight at a time in a `u64`, which needs no crate, the validator took 1.28x of the time: strings in records are
//! short, so the steps of one look are what counts, and here they are fewest.

use wide::u8x16;

/// How many bytes are looked at.
pub(super) type Sixteen = [u8; 16];
/// Four times as many.
pub(super) type SixtyFour = [u8; 64];

/// All bytes that were looked at, as far as it takes to tell whether they are ASCII.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(u8x16);

impl Seen {
    /// These, too.
    #[inline(always)]
    pub(super) fn add(&mut self, bytes: &Sixteen) {
        self.0 |= u8x16::new(*bytes);
    }

    /// One at least that is not.
    pub(super) fn add_other(&mut self) {
        self.add(&[0x80; 16]);
    }

    /// Whether all of them are.
    #[inline(always)]
    pub(super) fn is_ascii(self) -> bool {
        self.0.to_bitmask() == 0
    }
}

/// Quotes, backslashes and control characters.
#[inline(always)]
pub(super) fn marks(bytes: &Sixteen) -> u32 {
    let bytes = u8x16::new(*bytes);
    // With this bit turned the quote (0x22) is the byte above the control characters, and those stay among them.
    let low = (bytes ^ u8x16::splat(0x02)).simd_lt(u8x16::splat(0x21));
    (low | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}

/// Decimal digits.
#[inline(always)]
pub(super) fn digits(bytes: &Sixteen) -> u32 {
    (u8x16::new(*bytes) - u8x16::splat(b'0')).simd_lt(u8x16::splat(10)).to_bitmask()
}

/// Quotes and backslashes.
#[inline(always)]
pub(super) fn quotes(bytes: &Sixteen) -> u32 {
    let bytes = u8x16::new(*bytes);
    (bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}

/// Quotes and brackets of all kinds.
#[inline(always)]
pub(super) fn brackets(bytes: &Sixteen) -> u32 {
    let bytes = u8x16::new(*bytes);
    // This bit is all that square ones and curly ones differ in.
    let folded = bytes | u8x16::splat(0x20);
    let either = folded.simd_eq(u8x16::splat(b'{')) | folded.simd_eq(u8x16::splat(b'}'));
    (either | bytes.simd_eq(u8x16::splat(b'"'))).to_bitmask()
}

/// Commas.
#[inline(always)]
pub(super) fn commas(bytes: &Sixteen) -> u32 {
    u8x16::new(*bytes).simd_eq(u8x16::splat(b',')).to_bitmask()
}

/// Line feeds.
#[inline(always)]
pub(super) fn feeds(bytes: &SixtyFour) -> u64 {
    let (quarters, _) = bytes.as_chunks::<16>();
    quarters.iter().rev().fold(0, |mask, quarter| {
        mask << 16 | u64::from(u8x16::new(*quarter).simd_eq(u8x16::splat(b'\n')).to_bitmask())
    })
}

/// The index of the first byte from `at` on that `mask` marks; `is` says the same of one byte.
#[inline(always)]
pub(super) fn find(
    bytes: &[u8],
    mut at: usize,
    mask: impl Fn(&Sixteen) -> u32,
    is: impl Fn(u8) -> bool,
) -> Option<usize> {
    let mut rest = bytes.get(at..)?;
    while let Some((block, behind)) = rest.split_first_chunk() {
        let marked = mask(block);
        if marked != 0 {
            return Some(at + marked.trailing_zeros() as usize);
        }
        (rest, at) = (behind, at + 16);
    }
    rest.iter().position(|byte| is(*byte)).map(|offset| at + offset)
}

/// Where quotes, backslashes and brackets of all kinds stand in sixty-four bytes.
pub(super) struct Structure {
    pub quotes: u64,
    pub slashes: u64,
    pub opening: u64,
    pub closing: u64,
}

/// Quotes, backslashes and brackets, each with masks of their own.
#[inline(always)]
pub(super) fn structure(bytes: &SixtyFour) -> Structure {
    let mut found = Structure { quotes: 0, slashes: 0, opening: 0, closing: 0 };
    let (blocks, _) = bytes.as_chunks::<16>();
    for (index, block) in blocks.iter().enumerate() {
        let bytes = u8x16::new(*block);
        let folded = bytes | u8x16::splat(0x20);
        let mask = |found: u8x16| u64::from(found.to_bitmask()) << (16 * index);
        found.quotes |= mask(bytes.simd_eq(u8x16::splat(b'"')));
        found.slashes |= mask(bytes.simd_eq(u8x16::splat(b'\\')));
        found.opening |= mask(folded.simd_eq(u8x16::splat(b'{')));
        found.closing |= mask(folded.simd_eq(u8x16::splat(b'}')));
    }
    found
}

/// Each bit says whether the bits up to it, itself included, are odd in number: with quotes, whether a byte stands in a
/// string or begins one.
#[inline(always)]
pub(super) fn odd(mut bits: u64) -> u64 {
    for step in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << step;
    }
    bits
}

/// Bytes that are equal.
#[inline(always)]
pub(super) fn same(bytes: &Sixteen, others: &Sixteen) -> u32 {
    u8x16::new(*bytes).simd_eq(u8x16::new(*others)).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_bit() {
        for byte in 0..=255u8 {
            for at in 0..16 {
                let mut bytes = *b"a1b2c3d4e5f6g7h8";
                let digits_before = digits(&bytes) & !(1 << at);
                bytes[at] = byte;
                let bit = |yes: bool| u32::from(yes) << at;
                assert_eq!(marks(&bytes), bit(matches!(byte, b'"' | b'\\' | 0..=0x1f)), "{byte} at {at}");
                assert_eq!(quotes(&bytes), bit(matches!(byte, b'"' | b'\\')), "{byte} at {at}");
                let bracket = matches!(byte, b'"' | b'[' | b']' | b'{' | b'}');
                assert_eq!(brackets(&bytes), bit(bracket), "{byte} at {at}");
                assert_eq!(commas(&bytes), bit(byte == b','), "{byte} at {at}");
                assert_eq!(digits(&bytes), digits_before | bit(byte.is_ascii_digit()), "{byte} at {at}");
                let mut four = [b'a'; 64];
                four[3 * at] = byte;
                assert_eq!(feeds(&four), u64::from(byte == b'\n') << (3 * at), "{byte} at {at}");
                assert_eq!(same(&bytes, b"a1b2c3d4e5f6g7h8") | 1 << at, 0xffff, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn structure_has_each_byte_where_it_stands() {
        for byte in 0..=255u8 {
            for at in 0..64 {
                let mut bytes = [b'a'; 64];
                bytes[at] = byte;
                let found = structure(&bytes);
                let bit = |of: &[u8]| u64::from(of.contains(&byte)) << at;
                assert_eq!(found.quotes, bit(b"\""), "{byte} at {at}");
                assert_eq!(found.slashes, bit(b"\\"), "{byte} at {at}");
                assert_eq!(found.opening, bit(b"{["), "{byte} at {at}");
                assert_eq!(found.closing, bit(b"}]"), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn bits_are_counted_up_to_each() {
        for bits in [0u64, 1, 0b1001_0110, 1 << 63, u64::MAX, 0x9E37_79B9_7F4A_7C15] {
            let one = |at: u32| u64::from((bits & (u64::MAX >> (63 - at))).count_ones() % 2) << at;
            assert_eq!(odd(bits), (0..64).map(one).sum::<u64>(), "{bits:x}");
        }
    }
}
