//! Where a reader writes entries down before a chunk takes them: [`Entries`].

use crate::record::{Chunk, Entry};

/// Where entries are written down. A chunk's own buffer was read by a worker, so it stands in the cache of another
/// processor, and to fetch it from there line by line took longer than to find the records. So they are written to a
/// buffer that only this reader uses, and copied at once.
#[derive(Default)]
pub(super) struct Entries {
    /// This reader's.
    near: Vec<Entry>,
    /// That of the chunk which is being filled.
    far: Vec<Entry>,
}

impl Entries {
    /// Gives an empty chunk the near buffer.
    pub(super) fn lend(&mut self, chunk: &mut Chunk) {
        self.far = std::mem::replace(&mut chunk.entries, std::mem::take(&mut self.near));
    }

    /// Gives a chunk that is full its own buffer back.
    pub(super) fn copy(&mut self, chunk: &mut Chunk) {
        let mut far = std::mem::take(&mut self.far);
        far.clear();
        far.extend_from_slice(&chunk.entries);
        self.near = std::mem::replace(&mut chunk.entries, far);
        self.near.clear();
    }
}
