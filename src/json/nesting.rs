//! Brackets and strings: how deep a scan stands in a value.

use super::sixteen::{brackets, commas, find, quotes};

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

    /// The next quote or bracket outside strings; outside all brackets commas count, too.
    #[inline(always)]
    fn mark(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let class = |byte: u8| CLASSES[byte as usize];
        if self.depth > 0 {
            return find(bytes, at, brackets, |byte| !matches!(class(byte), Class::Other | Class::Comma));
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
