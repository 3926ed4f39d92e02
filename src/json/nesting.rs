//! Brackets and strings: how deep a scan stands in a value.
//!
//! Within brackets sixty-four bytes are looked at together, with bits for what stands where; elsewhere the next
//! byte that matters is looked for. Both say the same of all bytes, of those that are no JSON, too.

use super::sixteen::{SixtyFour, Structure, brackets, commas, find, odd, quotes, structure};

/// How deep a scan stands, and whether in a string.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    depth: u64,
    string: InString,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InString {
    #[default]
    No,
    Yes,
    /// Behind a backslash.
    Escape,
}

/// What ends or separates values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A comma outside all brackets.
    Comma,
    /// A closing bracket that was never opened.
    Stray,
    /// The outermost bracket closed.
    Closed,
    /// A string outside all brackets ended.
    Quoted,
}

/// What a byte is outside strings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Quote,
    Open,
    Close,
    Comma,
}

/// One load a byte.
static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    classes[b'"' as usize] = Class::Quote;
    classes[b'{' as usize] = Class::Open;
    classes[b'[' as usize] = Class::Open;
    classes[b'}' as usize] = Class::Close;
    classes[b']' as usize] = Class::Close;
    classes[b',' as usize] = Class::Comma;
    classes
};

impl Nesting {
    /// The next event from `at` on, and its byte's index; `None`: all bytes were looked at.
    pub(super) fn next(&mut self, bytes: &[u8], mut at: usize) -> Option<(Event, usize)> {
        loop {
            if self.depth > 0
                && let Some(closed) = self.blocks(bytes, &mut at)
            {
                return Some((Event::Closed, closed));
            }
            if self.string != InString::No {
                at = self.string_end(bytes, at)?;
                if self.depth == 0 {
                    return Some((Event::Quoted, at - 1));
                }
            }
            let index = self.mark(bytes, at)?;
            at = index + 1;
            match CLASSES[bytes[index] as usize] {
                Class::Quote => self.string = InString::Yes,
                Class::Open => self.depth += 1,
                Class::Close if self.depth == 0 => return Some((Event::Stray, index)),
                Class::Close => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some((Event::Closed, index));
                    }
                }
                Class::Comma if self.depth == 0 => return Some((Event::Comma, index)),
                Class::Comma | Class::Other => {}
            }
        }
    }

    /// Goes on within brackets, block after block, as long as there are blocks and none is doubtful. The index of the
    /// bracket that closes the outermost one, if it comes.
    #[inline(always)]
    fn blocks(&mut self, bytes: &[u8], at: &mut usize) -> Option<usize> {
        while let Some(block) = bytes.get(*at..).and_then(|rest| rest.first_chunk::<64>()) {
            match self.block(block)? {
                Some(closed) => return Some(*at + closed),
                None => *at += block.len(),
            }
        }
        None
    }

    /// `None`: the block is doubtful, and nothing was taken of it. `Some(Some(_))`: the outermost bracket closes there.
    #[inline(always)]
    fn block(&mut self, block: &SixtyFour) -> Option<Option<usize>> {
        let Structure { quotes, slashes, opening, closing } = structure(block);
        let (escaped, carried) = match (slashes, self.string) {
            (0, InString::No | InString::Yes) => (0, false),
            (slashes, before) => escaped(slashes, before == InString::Escape),
        };
        let strings = odd(quotes & !escaped) ^ if self.string == InString::No { 0 } else { u64::MAX };
        if slashes & !strings != 0 {
            // Only in strings does a backslash mean something.
            return None;
        }
        let closing = closing & !strings;
        let mut brackets = (opening & !strings) | closing;
        while brackets != 0 {
            let index = brackets.trailing_zeros();
            if closing >> index & 1 == 0 {
                self.depth += 1;
            } else {
                self.depth -= 1;
                if self.depth == 0 {
                    self.string = InString::No;
                    return Some(Some(index as usize));
                }
            }
            brackets &= brackets - 1;
        }
        self.string = match (strings >> 63, carried) {
            (0, _) => InString::No,
            (_, false) => InString::Yes,
            (_, true) => InString::Escape,
        };
        Some(None)
    }

    /// The next quote or bracket outside strings; outside all brackets commas count, too.
    #[inline(always)]
    fn mark(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let class = |byte: u8| CLASSES[byte as usize];
        if self.depth > 0 {
            return find(bytes, at, brackets, |byte| !matches!(class(byte), Class::Other | Class::Comma));
        }
        // Between elements it is the very next one.
        if bytes.get(at).is_some_and(|byte| class(*byte) != Class::Other) {
            return Some(at);
        }
        find(bytes, at, |block| brackets(block) | commas(block), |byte| class(byte) != Class::Other)
    }

    /// Behind the quote that ends the string in which `at` stands.
    fn string_end(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            if self.string == InString::Escape {
                bytes.get(at)?;
                at += 1;
                self.string = InString::Yes;
            }
            at = find(bytes, at, quotes, |byte| matches!(byte, b'"' | b'\\'))? + 1;
            if bytes[at - 1] == b'"' {
                self.string = InString::No;
                return Some(at);
            }
            self.string = InString::Escape;
        }
    }
}

/// The bytes behind backslashes that are not escaped themselves, and whether that is the first byte of the next block.
/// `before`: whether such a backslash stands before the block.
#[cold]
fn escaped(mut slashes: u64, before: bool) -> (u64, bool) {
    let mut escaped = u64::from(before);
    let mut carried = false;
    while slashes != 0 {
        let bit = slashes & slashes.wrapping_neg();
        if escaped & bit == 0 {
            escaped |= bit << 1;
            carried = bit >> 63 == 1;
        }
        slashes ^= bit;
    }
    (escaped, carried)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a scan says, and where, when it is given this much at a time.
    fn events(text: &[u8], step: usize) -> Vec<(Event, usize)> {
        let (mut nesting, mut found, mut at) = (Nesting::default(), Vec::new(), 0);
        for end in (1..=text.len()).filter(|end| end % step == 0 || *end == text.len()) {
            while let Some((event, index)) = nesting.next(&text[..end], at) {
                found.push((event, index));
                at = index + 1;
            }
            at = end;
        }
        found
    }

    proptest! {
        /// Pieces of a few bytes are never looked at as blocks.
        #[test]
        fn blocks_say_what_single_bytes_say(
            text in proptest::collection::vec(prop_oneof![
                8 => Just(b'a'), 2 => Just(b'"'), 1 => Just(b'\\'), 2 => Just(b'{'), 1 => Just(b'['), 1 => Just(b'}'),
                1 => Just(b']'), 1 => Just(b','), 1 => any::<u8>()
            ], 0..700),
            depth in 0usize..4,
        ) {
            let text = [&b"[[[["[..depth], &text].concat();
            prop_assert_eq!(events(&text, text.len().max(1)), events(&text, 1));
            prop_assert_eq!(events(&text, 100), events(&text, 1));
        }
    }

    #[test]
    fn backslashes_at_the_ends_of_blocks_count() {
        for before in 50..70 {
            for slashes in 0..70 {
                let text = format!("[\"{}{}\" ,]\"]", "a".repeat(before), "\\".repeat(slashes));
                assert_eq!(
                    events(text.as_bytes(), text.len()),
                    events(text.as_bytes(), 1),
                    "{before} {slashes}"
                );
            }
        }
    }
}
