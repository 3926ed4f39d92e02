//! Variable-length integers as Kafka's records have them: zigzag, seven bits a byte, least significant first.
//!
//! Reading takes from the front of a slice and never looks past its end; a number that is cut off or longer
//! than its type is `None`, and the caller says which field it was.

/// Takes a 32-bit number from the front of `bytes`.
#[inline(always)]
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    if let [first, rest @ ..] = *bytes
        && *first < 0x80
    {
        *bytes = rest;
        return Some(unzigzag_32(u32::from(*first)));
    }
    let long = take_long(bytes, 5)?;
    Some(unzigzag_32(u32::try_from(long).ok()?))
}

/// Takes a 64-bit number from the front of `bytes`.
#[inline(always)]
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    if let [first, rest @ ..] = *bytes
        && *first < 0x80
    {
        *bytes = rest;
        return Some(unzigzag_64(u64::from(*first)));
    }
    take_long(bytes, 10).map(unzigzag_64)
}

/// Takes up to `most` bytes of one number. Two bytes first: lengths of 64 to 8,191 are the usual case.
#[inline(always)]
fn take_long(bytes: &mut &[u8], most: usize) -> Option<u64> {
    if let [first, second, rest @ ..] = *bytes
        && *second < 0x80
    {
        *bytes = rest;
        return Some(u64::from(first & 0x7f) | u64::from(*second) << 7);
    }
    take_any(bytes, most)
}

#[inline(never)]
fn take_any(bytes: &mut &[u8], most: usize) -> Option<u64> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(most).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if *byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a number. A 32-bit number is the same bytes as its 64-bit extension.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut bits = zigzag_64(value);
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// How many bytes [`put`] appends.
#[inline]
pub(crate) fn size(value: i64) -> usize {
    let used = 64 - (zigzag_64(value) | 1).leading_zeros() as usize;
    used.div_ceil(7)
}

fn zigzag_64(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
fn unzigzag_64(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

#[inline(always)]
fn unzigzag_32(bits: u32) -> i32 {
    (bits >> 1) as i32 ^ -((bits & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0i64, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (64, &[0x80, 1]),
            (-65, &[0x81, 1]),
            (300, &[0xd8, 4]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(take_i64(&mut &out[..]), Some(value));
        }
    }

    #[test]
    fn a_number_that_is_cut_off_or_too_long_is_none() {
        assert_eq!(take_i32(&mut &[][..]), None);
        assert_eq!(take_i32(&mut &[0x80][..]), None);
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), None);
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(take_i64(&mut &[0x80; 11][..]), None);
        assert_eq!(take_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back_and_leaves_the_rest(value: i64, shift in 0u32..64, small: i32) {
            let value = value >> shift;
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), size(value));
            put(&mut out, i64::from(small));
            let mut rest = &out[..];
            prop_assert_eq!(take_i64(&mut rest), Some(value));
            prop_assert_eq!(take_i32(&mut rest), Some(small));
            prop_assert!(rest.is_empty());
        }
    }
}
