//! What records have besides their values: key, time and headers, for the sources that know them.
//!
//! They stand in a buffer beside the chunk's, as ranges in flat lists: nothing is allocated per record.

use std::ops::Range;

use crate::outgoing::{Headers, Pair};

/// What only some sources know of a record: its key, time and headers. Plain ranges, so that nothing is allocated
/// per record; `Record` has what they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Milliseconds since the epoch.
    pub time: Option<i64>,
    /// Whether the record has a null value: it says that its key was deleted.
    pub tombstone: bool,
    /// The key, where there is one.
    key: Option<Range<u32>>,
    /// Which of the chunk's headers are its own.
    headers: Range<u32>,
}

/// A header: ranges of its name and its value, which may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub name: Range<u32>,
    pub value: Option<Range<u32>>,
}

impl Header {
    /// Name and value.
    pub fn pair<'a>(&self, buffer: &'a [u8]) -> Pair<'a> {
        (slice(buffer, &self.name), self.value.as_ref().map(|value| slice(buffer, value)))
    }
}

fn slice<'a>(buffer: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &buffer[range.start as usize..range.end as usize]
}

/// Keys, times and headers of a chunk's records. They have a buffer of their own: values stand together, so that
/// one look at them all finds out whether they are UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub bytes: Vec<u8>,
    pub headers: Vec<Header>,
    pub extras: Vec<Extra>,
}

impl Side {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.headers.clear();
        self.extras.clear();
    }

    /// Adds what is known of one more record besides its value.
    pub fn push<'a, H>(&mut self, record: Incoming<'a, H>)
    where
        H: IntoIterator<Item = Pair<'a>>,
    {
        let key = record.key.map(|key| self.put(key));
        let first = self.headers.len() as u32;
        for (name, value) in record.headers {
            let (name, value) = (self.put(name), value.map(|value| self.put(value)));
            self.headers.push(Header { name, value });
        }
        let headers = first..self.headers.len() as u32;
        self.extras.push(Extra { time: record.time, tombstone: record.value.is_none(), key, headers });
    }

    fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let from = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len() as u32
    }

    /// The key of one of its records, where there is one.
    pub fn key(&self, of: &Extra) -> Option<&[u8]> {
        of.key.as_ref().map(|range| slice(&self.bytes, range))
    }

    /// The headers of one of its records.
    pub fn headers_of(&self, of: &Extra) -> Headers<'_> {
        let list = &self.headers[of.headers.start as usize..of.headers.end as usize];
        Headers::of_chunk(list, &self.bytes)
    }

    /// How many bytes of memory it holds.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.headers.capacity() * size_of::<Header>()
            + self.extras.capacity() * size_of::<Extra>()
    }
}

/// A record of a source that knows more of it than its value. Null and empty are different.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a, H> {
    /// The key; `None`: null.
    pub key: Option<&'a [u8]>,
    /// The value; `None`: null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch, where known.
    pub time: Option<i64>,
    /// Names and values of the headers, in order, duplicates kept.
    pub headers: H,
}
