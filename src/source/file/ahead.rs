//! Bytes that were read but stand in no chunk yet.

/// Bytes read ahead of the chunks.
#[derive(Default)]
pub(super) struct Ahead {
    bytes: Vec<u8>,
    at: usize,
}

/// Memory above this is freed once its bytes are used: a huge record went through.
const KEEP: usize = 1 << 20;

impl Ahead {
    /// Nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Appends up to `count` bytes to `out`.
    pub(super) fn take(&mut self, count: usize, out: &mut Vec<u8>) {
        let end = self.bytes.len().min(self.at + count);
        out.extend_from_slice(&self.bytes[self.at..end]);
        self.at = end;
    }

    /// All bytes were taken and others will be read: what is given back from now on was not taken from here.
    pub(super) fn forget(&mut self) {
        debug_assert!(self.is_empty());
        self.at = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// Gives back the last bytes of what was taken, or read since [`Ahead::forget`].
    pub(super) fn give_back(&mut self, rest: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(rest);
        } else {
            self.at -= rest.len();
        }
    }

    /// The buffer, to append to; nothing was taken yet.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}
