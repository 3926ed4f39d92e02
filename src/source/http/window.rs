//! What of a page was not scanned yet: [`Window`], a buffer that is filled behind and forgotten from the front. No IO.

/// A buffer of which the first bytes are in use. It is used for page after page.
#[derive(Default)]
pub(super) struct Window {
    /// All of it is initialized, so that it can be read into.
    buffer: Vec<u8>,
    filled: usize,
}

/// A buffer that a large record has made larger than this does not stay.
const LARGEST: usize = 512 << 10;

impl Window {
    /// The bytes that are in use.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Room for at least so many bytes behind those in use; [`Window::grow`] takes what was written into it.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        if self.buffer.len() < self.filled + least {
            self.buffer.resize(self.filled + least, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were written behind those in use.
    pub fn grow(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// The first bytes are not needed any more.
    pub fn forget(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
        if self.filled == 0 && self.buffer.len() > LARGEST {
            self.buffer = Vec::new();
        }
    }

    /// Only the first bytes are needed.
    pub fn truncate(&mut self, len: usize) {
        self.filled = self.filled.min(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_behind_and_forgotten_from_the_front() {
        let mut window = Window::default();
        for text in [&b"abcdef"[..], b"ghi"] {
            window.room(text.len())[..text.len()].copy_from_slice(text);
            window.grow(text.len());
        }
        window.forget(4);
        assert_eq!(window.bytes(), b"efghi");
        window.truncate(2);
        assert_eq!(window.bytes(), b"ef");
        assert!(window.room(3).len() >= 3);
        window.room(LARGEST);
        window.forget(2);
        assert_eq!((window.bytes(), window.buffer.len()), (&b""[..], 0));
    }
}
