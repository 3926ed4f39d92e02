//! Sixteen bytes at a time: what the validator asks of strings, numbers and labels, and what a scan for the ends of
//! values asks. One bit a byte, the first byte's the lowest. Pure.
//!
//! Eight at a time in a `u64`, which needs no crate, the validator took 1.28x of the time: strings in records are
//! short, so the steps of one look are what counts, and here they are fewest.

use wide::u8x16;

/// How many bytes are looked at.
pub(super) type Sixteen = [u8; 16];

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

/// Line feeds in four times as many.
#[inline(always)]
pub(super) fn feeds(bytes: &[u8; 64]) -> u64 {
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
}
