//! CRC-32C (RFC 3720) of bytes that are known by the checksums of their parts.
//!
//! A body has a checksum for each of its pieces, taken in the pool; theirs are joined wherever a whole one is
//! wanted. With the 32 by 32 matrices of the crate that takes the checksums, that took 4 percent of the processor
//! time of a run from Kafka to S3, and more than half of the assembler's. Here the first checksum is multiplied by
//! x^(8n) modulo the polynomial, where n is the length of the second part: one multiplication for each bit that is
//! set in n.

/// The polynomial of CRC-32C, its coefficients from low to high.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// `POWERS[k]` is x^(2^k) modulo the polynomial.
static POWERS: [u32; 64] = {
    let mut powers = [ONE >> 1; 64];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = product(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The CRC-32C of bytes of which `first` is the checksum of the first part and `second` that of the others, `len`
/// bytes.
pub fn joined(first: u32, second: u32, len: u64) -> u32 {
    let (mut shifted, mut left) = (first, len);
    // x^(8n): bits of n count from 2^3 on. No bytes are as many as 2^61.
    for power in &POWERS[3..] {
        if left == 0 {
            break;
        }
        if left & 1 == 1 {
            shifted = product(shifted, *power);
        }
        left >>= 1;
    }
    shifted ^ second
}

/// The product of two polynomials, modulo the polynomial.
const fn product(a: u32, mut b: u32) -> u32 {
    let (mut sum, mut bit) = (0, ONE);
    while bit > 0 {
        if a & bit > 0 {
            sum ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_empty_changes_nothing() {
        let sum = crc32c::crc32c(b"some bytes");
        assert_eq!(joined(sum, crc32c::crc32c(b""), 0), sum);
        assert_eq!(joined(crc32c::crc32c(b""), sum, 10), sum);
    }

    /// Against the crate, which joins lengths for which there are no bytes here.
    #[test]
    fn large_parts_are_joined_as_small_ones() {
        for shift in 0..48 {
            for len in [1u64 << shift, (2 << shift) - 1, (1 << shift) + 12_345] {
                let (first, second) = (0x1234_5678, 0x9abc_def0);
                let expected = crc32c::crc32c_combine(first, second, len as usize);
                assert_eq!(joined(first, second, len), expected, "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn joined_checksums_are_those_of_the_joined_bytes(
            first in prop::collection::vec(any::<u8>(), 0..5000),
            second in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let whole = [&first[..], &second].concat();
            let sum = joined(crc32c::crc32c(&first), crc32c::crc32c(&second), second.len() as u64);
            prop_assert_eq!(sum, crc32c::crc32c(&whole));
        }
    }
}
