//! What a reader leaves to the worker that gets the chunk: [`Errand`].

use super::Chunk;

/// Something to be done before anybody looks at a chunk's records. Dropped when nobody will ask again, done or not.
pub(crate) trait Errand: Send + Sync {
    /// Brings the records: bytes, with lines or entries. Leaves the chunk empty if that fails.
    fn run(&mut self, chunk: &mut Chunk);

    /// The numbers of the line with which the chunk begins, and of the one behind it. Blocks until those who have begun
    /// with the chunks before it have told how many lines these have. `None` if nothing of the chunk may be stored: it
    /// could not be brought, or one of those before it.
    fn lines(&self) -> Option<(u64, u64)>;
}

#[cfg(test)]
mod tests {
    use crate::record::Section;

    /// Somebody's program may look at the records of a section side by side.
    #[test]
    fn sections_go_from_thread_to_thread() {
        fn check<T: Send + Sync>() {}
        check::<Section<'_>>();
    }
}
