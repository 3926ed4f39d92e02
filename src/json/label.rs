//! Labels: what stands before a member's value, from the brace or comma to the colon and white space. Pure.
//!
//! Records of one kind have the same labels in the same order. So each label that was found valid is remembered with
//! the one that came behind it; where that one stands again, it is valid, and its length is known without looking for
//! quotes. On flat events that is two thirds of the validator's work. A guess that fails costs one comparison.

use super::sixteen::{self, Seen, Sixteen};

/// Longer labels are not remembered.
const LONGEST: usize = size_of::<Sixteen>();

/// What a label begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// The comma behind another member, perhaps with white space before it.
    Comma,
    /// The brace of its object.
    Brace,
}

/// The labels of earlier values.
#[derive(Debug)]
pub(super) struct Labels {
    /// At a place that follows from its bytes: even behind a comma, odd behind a brace, so that neither is ever
    /// taken for the other. What begins a value is behind the label at place 0.
    known: Box<[Label; 256]>,
    /// The place of the last label.
    last: u8,
}

// Aligned so that an index is a shift.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Label {
    text: Sixteen,
    /// A bit for each of its bytes; one that never is there for a label that is not known.
    bits: u32,
    len: u8,
    /// The places of the labels that came behind it, by what they begin with.
    next: [u8; 2],
}

const UNKNOWN: Label = Label { text: [0; LONGEST], bits: u32::MAX, len: 0, next: [0, 1] };

impl Default for Labels {
    fn default() -> Self {
        Labels { known: Box::new([UNKNOWN; 256]), last: 0 }
    }
}

impl Labels {
    /// A value begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.last = 0;
    }

    /// The value behind the label, if it is the one that is expected.
    #[inline(always)]
    pub(super) fn follow<'a>(&mut self, before: Before, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let next = self.known[usize::from(self.last)].next[before as usize];
        let label = &self.known[usize::from(next)];
        let same = sixteen::same(bytes.first_chunk()?, &label.text);
        if label.bits & !same != 0 {
            return None;
        }
        self.last = next;
        Some(&bytes[usize::from(label.len)..])
    }

    /// Remembers the label that `bytes` begin with and that ends before `value`, which is a part of them; returns
    /// the value. One with CR or LF or what is not ASCII in it is forgotten: whoever follows it would not see them.
    #[inline(always)]
    pub(super) fn learn<'a>(
        &mut self,
        before: Before,
        bytes: &[u8],
        value: &'a [u8],
        seen: &mut Seen,
    ) -> &'a [u8] {
        if !self.learn_label(before, bytes, bytes.len() - value.len()) {
            seen.add_other();
        }
        value
    }

    /// Says whether the label is ASCII.
    #[inline(never)]
    fn learn_label(&mut self, before: Before, bytes: &[u8], len: usize) -> bool {
        let ascii = bytes[..len].is_ascii();
        let Some(text) = bytes.first_chunk::<LONGEST>() else { return ascii };
        let place = place(text, len) & 0xfe | before as u8;
        let label = &mut self.known[usize::from(place)];
        let next = label.next;
        *label = match text.get(..len) {
            Some(label) if ascii && memchr::memchr2(b'\n', b'\r', label).is_none() => {
                Label { text: *text, bits: (1 << len) - 1, len: len as u8, next }
            }
            _ => Label { next, ..UNKNOWN },
        };
        self.known[usize::from(self.last)].next[before as usize] = place;
        self.last = place;
        ascii
    }
}

/// Where a label is remembered.
fn place(text: &Sixteen, len: usize) -> u8 {
    let word = u128::from_le_bytes(*text) & u128::MAX >> (8 * LONGEST.saturating_sub(len));
    let folded = (word >> 64) as u64 ^ word as u64;
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}
