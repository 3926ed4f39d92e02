//! [`Records`], [`Record`] and [`Headers`]: walks the records of one batch, borrowed from where they stand.
//!
//! Every length is checked against the bytes that are there, every count against what was walked, so hostile
//! numbers are damage and never a panic or an allocation: nothing is allocated here at all.

use super::damage::{Damage, Fault};
use super::varint::{take_i32, take_i64};

/// One record, borrowed from the batch or from the decompression buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, or -1; the broker's time where the topic says so.
    pub timestamp: i64,
    /// The key; null and empty are different.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, not yet walked.
    pub headers: Headers<'a>,
}

/// Where a walk stands.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    pub rest: &'a [u8],
    pub index: i32,
    pub count: i32,
    pub base_offset: i64,
    pub last_delta: i32,
    pub previous_delta: i32,
    pub base_time: i64,
    pub append_time: Option<i64>,
}

/// Where a walk over a batch was left, to go on with [`super::Unpacker::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    left: usize,
    index: i32,
    previous_delta: i32,
}

/// Iterates over the records of a batch. After damage the walk is over.
#[derive(Clone, Debug)]
pub struct Records<'a>(Cursor<'a>);

impl<'a> Records<'a> {
    pub(crate) fn new(cursor: Cursor<'a>) -> Self {
        Records(cursor)
    }

    /// Where it stands now.
    pub fn place(&self) -> Place {
        let Cursor { rest, index, previous_delta, .. } = &self.0;
        Place { left: rest.len(), index: *index, previous_delta: *previous_delta }
    }

    /// Goes on where another walk over the same records was left. `None` if there are not as many bytes.
    pub(crate) fn resume(mut self, place: Place) -> Option<Self> {
        let at = self.0.rest.len().checked_sub(place.left)?;
        self.0.rest = &self.0.rest[at..];
        (self.0.index, self.0.previous_delta) = (place.index, place.previous_delta);
        Some(self)
    }

    /// The bytes not yet walked.
    pub fn remaining(&self) -> usize {
        self.0.rest.len()
    }

    #[inline(always)]
    fn step(&mut self) -> Result<Record<'a>, &'static str> {
        let cursor = &mut self.0;
        let mut body = take_slice(&mut cursor.rest).ok_or("length")?.ok_or("length")?;
        let ([_attributes, rest @ ..], body) = (body, &mut body) else { return Err("attributes") };
        *body = rest;
        let time = take_i64(body).ok_or("timestamp")?;
        let delta = take_i32(body).ok_or("offset")?;
        if delta <= cursor.previous_delta || delta > cursor.last_delta {
            return Err("offset");
        }
        cursor.previous_delta = delta;
        let key = take_slice(body).ok_or("key length")?;
        let value = take_slice(body).ok_or("value length")?;
        let count = take_i32(body).ok_or("header count")?;
        // A header takes two bytes at least; without any, nothing may follow.
        if count < 0 || count as usize > body.len() / 2 || (count == 0 && !body.is_empty()) {
            return Err("header count");
        }
        cursor.index += 1;
        Ok(Record {
            offset: cursor.base_offset + i64::from(delta),
            timestamp: cursor.append_time.unwrap_or_else(|| cursor.base_time.wrapping_add(time)),
            key,
            value,
            headers: Headers { rest: body, count },
        })
    }

    #[cold]
    fn damage(&mut self, what: &'static str) -> Damage {
        let (base_offset, index) = (self.0.base_offset, self.0.index);
        self.0.rest = &[];
        self.0.index = self.0.count;
        Damage { base_offset, fault: Fault::Record { index, what } }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damage>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.index >= self.0.count {
            // What no record accounts for means that the count is wrong: records would be lost in silence.
            return (!self.0.rest.is_empty())
                .then(|| Err(self.damage("successor: bytes follow the last record")));
        }
        Some(self.step().map_err(|what| self.damage(what)))
    }
}

/// Takes a slice that its length precedes. `None`: impossible. `Some(None)`: null.
#[inline(always)]
fn take_slice<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_i32(bytes)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let (taken, rest) = bytes.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(Some(taken))
}

/// The headers of a record: a list in which names may repeat. Walk a clone, or hold it as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: i32,
}

/// The headers of a record are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHeaders;

impl<'a> Headers<'a> {
    /// How many there are, at most half as many as there are bytes.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn step(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let name = take_slice(&mut self.rest)??;
        let value = take_slice(&mut self.rest)?;
        Some((name, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    /// Name (UTF-8 by the protocol, not checked here) and value, which may be null.
    type Item = Result<(&'a [u8], Option<&'a [u8]>), BadHeaders>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return (!self.rest.is_empty()).then(|| {
                self.rest = &[];
                Err(BadHeaders)
            });
        }
        self.count -= 1;
        Some(self.step().ok_or_else(|| {
            (self.rest, self.count) = (&[], 0);
            BadHeaders
        }))
    }
}

impl std::fmt::Display for BadHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the record's headers are damaged")
    }
}

impl std::error::Error for BadHeaders {}
