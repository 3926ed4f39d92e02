//! Is this one JSON value by RFC 8259? [`Validator::value`] answers with where the value stands, and nothing else:
//! nothing is decoded, so lone surrogates, numbers of any size and nesting of any depth pass as they stand. Pure.
//!
//! Of a run that only wraps records, nearly three quarters of the instructions were serde_json's skipping of
//! values. Two things make this faster. Strings and numbers are looked at in sixteen bytes at a time
//! (`sixteen`). And records of one kind have the same keys in the same order: what stands before a
//! member's value is compared with what stood there in the record before (`label`). It allocates only for
//! nesting beyond 64 levels.
//!
//! It only ever says yes: whoever gets a no asks serde_json, which has the last word and the message. That it never
//! says yes where serde_json says no is property-tested. Whether the bytes are UTF-8 is for the caller to check, where
//! they are not all ASCII: that is seen on the way.

use std::ops::Range;

use super::label::{Before, Labels};
use super::sixteen::{self, Seen, Sixteen};

/// Checks values. Remembers the labels of earlier ones, and keeps memory for nesting beyond 64 levels.
#[derive(Debug, Default)]
pub struct Validator {
    labels: Labels,
    /// Words of 64 outer levels each, one bit a level.
    outer: Vec<u64>,
    /// Whether CR or LF stands between tokens.
    breaks: bool,
    /// The bytes of strings, and some behind them.
    seen: Seen,
}

/// A value that is valid, if it is UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it stands, without the white space around it.
    pub range: Range<usize>,
    /// Whether CR or LF may stand between its tokens; nowhere else can they be.
    pub breaks: bool,
}

/// The open arrays and objects, one bit a level, the innermost lowest: a one is an object.
struct Levels<'a> {
    outer: &'a mut Vec<u64>,
    inner: u64,
    depth: usize,
}

impl Levels<'_> {
    #[inline]
    fn push(&mut self, object: u64) {
        if self.depth.is_multiple_of(64) {
            deeper(self.outer, self.inner);
        }
        self.inner = self.inner << 1 | object;
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.inner = if self.depth.is_multiple_of(64) { shallower(self.outer) } else { self.inner >> 1 };
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

// Apart and cold, because the vector's code in the loop costs it registers: 5% of the whole.
#[cold]
#[inline(never)]
fn deeper(outer: &mut Vec<u64>, inner: u64) {
    outer.push(inner);
}

#[cold]
#[inline(never)]
fn shallower(outer: &mut Vec<u64>) -> u64 {
    outer.pop().unwrap_or_default()
}

impl Validator {
    /// The value, if the first `len` bytes are one value with nothing but white space around it. More bytes may
    /// follow: a few are looked at, since that is faster than to stop exactly, but decide nothing.
    #[inline]
    pub fn value(&mut self, bytes: &[u8], len: usize) -> Option<Value> {
        // No more: thousands of records of white space would each be read to the end of all.
        let bytes = &bytes[..bytes.len().min(len + size_of::<Sixteen>())];
        self.breaks = false;
        let mut outside = false;
        let rest = space(bytes, &mut outside);
        let start = bytes.len() - rest.len();
        let end = bytes.len() - self.behind(rest)?.len();
        if end != len && (end > len || !space(&bytes[end..len], &mut outside).is_empty()) {
            return None;
        }
        Some(Value { range: start..end, breaks: self.breaks })
    }

    /// The line that `bytes` begin with, if it is one value (if that is UTF-8) with no white space around it: how
    /// long that is, and how long it is with its line ending. A no may cost a look at all of the bytes.
    #[inline]
    pub fn line(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        self.breaks = false;
        let rest = self.behind(bytes)?;
        let ending = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return None,
        };
        let len = bytes.len() - rest.len();
        (!self.breaks).then_some((len, len + ending))
    }

    /// Whether the last value that was found to be valid is ASCII. A no may be due to what stands behind it.
    #[inline(always)]
    pub fn is_ascii(&self) -> bool {
        self.seen.is_ascii()
    }

    /// What stands behind the value that `bytes` begin with.
    fn behind<'a>(&mut self, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        let Validator { labels, outer, breaks, .. } = self;
        outer.clear();
        labels.begin();
        let mut seen = Seen::default();
        let mut levels = Levels { outer, inner: 0, depth: 0 };
        loop {
            let (first, rest) = bytes.split_first()?;
            bytes = match first {
                b'"' => string(rest, &mut seen)?,
                b'0'..=b'9' => number(bytes)?,
                b'{' => {
                    if let Some(value) = labels.follow(Before::Brace, bytes) {
                        levels.push(1);
                        bytes = value;
                        continue;
                    }
                    match space(rest, breaks) {
                        [b'}', rest @ ..] => rest,
                        inside => {
                            levels.push(1);
                            bytes = labels.learn(Before::Brace, bytes, key(inside, breaks)?, &mut seen);
                            continue;
                        }
                    }
                }
                b'[' => match space(rest, breaks) {
                    [b']', rest @ ..] => rest,
                    inside => {
                        levels.push(0);
                        bytes = inside;
                        continue;
                    }
                },
                b'-' => any_number(bytes)?,
                _ => literal(bytes)?,
            };
            // Closes levels until there is a comma, or none is left.
            loop {
                if levels.in_object() {
                    if let Some(value) = labels.follow(Before::Comma, bytes) {
                        bytes = value;
                        break;
                    }
                } else if levels.depth == 0 {
                    self.seen = seen;
                    return Some(bytes);
                }
                let (first, rest) = space(bytes, breaks).split_first()?;
                match (first, levels.in_object()) {
                    (b',', true) => {
                        let value = key(space(rest, breaks), breaks)?;
                        bytes = labels.learn(Before::Comma, bytes, value, &mut seen);
                    }
                    (b',', false) => bytes = space(rest, breaks),
                    (b'}', true) | (b']', false) => {
                        levels.pop();
                        bytes = rest;
                        continue;
                    }
                    _ => return None,
                }
                break;
            }
        }
    }
}

/// What stands behind the white space, if there is some. Notes CR and LF.
#[inline(always)]
fn space<'a>(bytes: &'a [u8], breaks: &mut bool) -> &'a [u8] {
    match bytes.first() {
        Some(byte) if *byte <= b' ' => spaces(bytes, breaks),
        _ => bytes,
    }
}

#[inline(never)]
fn spaces<'a>(mut bytes: &'a [u8], breaks: &mut bool) -> &'a [u8] {
    while let [byte @ (b' ' | b'\n' | b'\r' | b'\t'), rest @ ..] = bytes {
        *breaks |= matches!(byte, b'\n' | b'\r');
        bytes = rest;
    }
    bytes
}

/// The value behind the key that `bytes` begin with.
#[inline(never)]
fn key<'a>(bytes: &'a [u8], breaks: &mut bool) -> Option<&'a [u8]> {
    let [b'"', bytes @ ..] = bytes else { return None };
    // The caller sees its bytes.
    match space(string(bytes, &mut Seen::default())?, breaks) {
        [b':', value @ ..] => Some(space(value, breaks)),
        _ => None,
    }
}

/// What stands behind a string, from its first byte behind the quote on.
#[inline(always)]
fn string<'a>(mut bytes: &'a [u8], seen: &mut Seen) -> Option<&'a [u8]> {
    while let Some((first, rest)) = bytes.split_first_chunk() {
        seen.add(first);
        let marks = sixteen::marks(first);
        if marks != 0 {
            let at = marks.trailing_zeros() as usize;
            if bytes[at] == b'"' {
                return Some(&bytes[at + 1..]);
            }
            break;
        }
        bytes = rest;
    }
    let (rest, ascii) = any_string(bytes)?;
    if !ascii {
        seen.add_other();
    }
    Some(rest)
}

/// The same for a string with escapes, or at the end of all bytes. Says also whether it is ASCII.
#[inline(never)]
fn any_string(mut bytes: &[u8]) -> Option<(&[u8], bool)> {
    let mut seen = Seen::default();
    loop {
        let marks = bytes.first_chunk().map(|first| {
            seen.add(first);
            sixteen::marks(first)
        });
        let plain = match marks {
            Some(0) => 16,
            Some(marks) => marks.trailing_zeros() as usize,
            None => {
                let plain = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
                if !bytes[..plain].is_ascii() {
                    seen.add_other();
                }
                plain
            }
        };
        match &bytes[plain..] {
            [b'"', rest @ ..] => return Some((rest, seen.is_ascii())),
            [b'\\', rest @ ..] => bytes = escape(rest)?,
            rest if plain == 16 => bytes = rest,
            _ => return None,
        }
    }
}

/// What stands behind an escape, from its letter on.
fn escape(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => Some(rest),
        [b'u', rest @ ..] => {
            let (digits, rest) = rest.split_first_chunk::<4>()?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(rest)
        }
        _ => None,
    }
}

/// What stands behind the number that `bytes` begin with. Here are the usual ones, which are short, have no sign and
/// no exponent.
#[inline(always)]
fn number(bytes: &[u8]) -> Option<&[u8]> {
    if let Some(first) = bytes.first_chunk() {
        let others = !sixteen::digits(first);
        let whole = others.trailing_zeros() as usize;
        if whole < 16 && (whole == 1 || bytes[0] != b'0') {
            let behind = &bytes[whole..];
            // A branch, because numbers with the same label are of the same kind: a choice between two ends would wait
            // for the fraction to be looked for.
            match behind[0] {
                b'.' => {
                    let end = whole + (others >> whole & !1).trailing_zeros() as usize;
                    if end < 16 && end > whole + 1 && bytes[end] | 0x20 != b'e' {
                        return Some(&bytes[end..]);
                    }
                }
                b'e' | b'E' => {}
                _ => return Some(behind),
            }
        }
    }
    any_number(bytes)
}

#[inline(never)]
fn any_number(bytes: &[u8]) -> Option<&[u8]> {
    let whole = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut rest = digits(whole)?;
    if whole[0] == b'0' && rest.len() + 1 < whole.len() {
        return None;
    }
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-"));
        rest = digits(unsigned.unwrap_or(exponent))?;
    }
    Some(rest)
}

/// What stands behind the digits that `bytes` begin with, if there is one at least.
fn digits(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    (count > 0).then(|| &bytes[count..])
}

/// What stands behind the literal that `bytes` begin with. Which one it is shall not be guessed: one comparison each,
/// and the length is reckoned.
#[inline(always)]
fn literal(bytes: &[u8]) -> Option<&[u8]> {
    let word = u32::from_le_bytes(*bytes.first_chunk()?);
    let is = |text: &[u8; 4]| word == u32::from_le_bytes(*text);
    let longer = is(b"fals");
    let known = is(b"true") | is(b"null") | (longer && bytes.get(4) == Some(&b'e'));
    known.then(|| &bytes[4 + usize::from(longer)..])
}

#[cfg(test)]
mod tests;
