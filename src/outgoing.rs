//! Records inside a [`Body`], for sinks that keep records apart: [`put`] frames one, [`read`] walks them.
//!
//! Where [`crate::sink::Shape::records`] is set, the output is not lines but frames: key, value, time and headers
//! of one record behind the other. A program calls `put` for each record; the sink reads them out of the batch.
//! Nothing is allocated per record on either side: what is read borrows from the body. A frame never straddles
//! two pieces of a body, because a piece holds the whole output of a section.
//!
//! A frame is a byte that says whether a time follows, the time (8 bytes, little endian), key and value (length
//! plus one, or 0 for null; LEB128), the number of headers, and their names and values likewise. It stays inside
//! the process, so it has no version and no checksum.

use std::slice;

use crate::batch::{Body, Piece};
use crate::record::Header;

/// One record as a sink stores it. Null and empty are different.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outgoing<'a> {
    /// The key; `None`: null.
    pub key: Option<&'a [u8]>,
    /// The value; `None`: null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch; `None`: not known, the sink's own clock stands for it.
    pub time: Option<i64>,
    /// The headers in order.
    pub headers: Headers<'a>,
}

/// Headers: an iterator over names and values, which may be null. Walk a copy to keep it.
#[derive(Clone, Copy)]
pub struct Headers<'a>(List<'a>);

/// A header's name and value.
pub type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

#[derive(Clone, Copy)]
enum List<'a> {
    /// Named one by one.
    Pairs(&'a [Pair<'a>]),
    /// Inside a frame: the bytes from the first on, and how many there are.
    Framed(&'a [u8], usize),
    /// Inside a chunk: ranges into a buffer.
    Chunk(&'a [Header], &'a [u8]),
}

impl<'a> Headers<'a> {
    /// Headers of a list.
    pub fn of(pairs: &'a [Pair<'a>]) -> Self {
        Headers(List::Pairs(pairs))
    }

    /// Headers of a record in a chunk, whose ranges are into `buffer`.
    pub(crate) fn of_chunk(list: &'a [Header], buffer: &'a [u8]) -> Self {
        Headers(List::Chunk(list, buffer))
    }
}

impl Default for Headers<'_> {
    fn default() -> Self {
        Headers(List::Pairs(&[]))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Pair<'a>> {
        match &mut self.0 {
            List::Pairs(pairs) => pairs.split_off_first().copied(),
            List::Framed(_, 0) => None,
            List::Framed(bytes, left) => {
                *left -= 1;
                Some((take_slice(bytes).unwrap_or_default(), take_slice(bytes)))
            }
            List::Chunk(list, buffer) => list.split_off_first().map(|header| header.pair(buffer)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match self.0 {
            List::Pairs(pairs) => pairs.len(),
            List::Framed(_, left) => left,
            List::Chunk(list, _) => list.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.eq_by_pairs(*other)
    }
}

impl Headers<'_> {
    fn eq_by_pairs(self, other: Headers<'_>) -> bool {
        self.len() == other.len() && self.zip(other).all(|(one, other)| one == other)
    }
}

/// Appends a record's frame.
#[inline]
pub fn put<'a>(out: &mut Vec<u8>, record: &Outgoing<'a>) {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    // Lengths take ten bytes at most; what headers need beyond is found out as they come.
    out.reserve(39 + len(record.key) + len(record.value));
    match record.time {
        Some(time) => {
            out.push(1);
            out.extend_from_slice(&time.to_le_bytes());
        }
        None => out.push(0),
    }
    put_slice(out, record.key);
    put_slice(out, record.value);
    put_number(out, record.headers.len());
    for (name, value) in record.headers {
        put_slice(out, Some(name));
        put_slice(out, value);
    }
}

/// The records of a body that [`put`] wrote, in order.
pub fn read(body: &Body) -> Records<'_> {
    Records { pieces: body.pieces().iter(), rest: &[] }
}

/// The records of one piece's bytes.
pub fn read_bytes(bytes: &[u8]) -> Records<'_> {
    Records { pieces: [].iter(), rest: bytes }
}

/// Records of a body. Made by [`read`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    pieces: slice::Iter<'a, Piece>,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Outgoing<'a>;

    #[inline]
    fn next(&mut self) -> Option<Outgoing<'a>> {
        while self.rest.is_empty() {
            self.rest = self.pieces.next()?.bytes();
        }
        Some(take(&mut self.rest))
    }
}

/// Why reading may rely on what it finds: a record that is passed over would be lost in silence.
const WHOLE: &str = "a body of records holds whole frames";

fn take<'a>(bytes: &mut &'a [u8]) -> Outgoing<'a> {
    let time = match bytes.split_off_first().expect(WHOLE) {
        0 => None,
        _ => {
            let (time, rest) = bytes.split_first_chunk::<8>().expect(WHOLE);
            *bytes = rest;
            Some(i64::from_le_bytes(*time))
        }
    };
    let (key, value, count) = (take_slice(bytes), take_slice(bytes), take_number(bytes));
    let headers = Headers(List::Framed(bytes, count));
    // Behind the headers stands the next record.
    for _ in 0..2 * count {
        take_slice(bytes);
    }
    Outgoing { key, value, time, headers }
}

#[inline]
fn put_slice(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_number(out, bytes.len() + 1);
            out.extend_from_slice(bytes);
        }
        None => out.push(0),
    }
}

#[inline]
fn take_slice<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(bytes).checked_sub(1)?;
    Some(bytes.split_off(..len).expect(WHOLE))
}

#[inline]
fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[inline]
fn take_number(bytes: &mut &[u8]) -> usize {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *bytes.split_off_first().expect(WHOLE);
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn framed(records: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value, time, headers) in records {
            let pairs: Vec<Pair<'_>> =
                headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
            let (key, value) = (key.as_deref(), value.as_deref());
            put(&mut out, &Outgoing { key, value, time: *time, headers: Headers::of(&pairs) });
        }
        out
    }

    fn owned(record: Outgoing<'_>) -> Owned {
        let headers = record.headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
        (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), record.time, headers.collect())
    }

    #[test]
    fn null_and_empty_are_different_and_order_is_kept() {
        let records = [
            (None, None, None, Vec::new()),
            (Some(Vec::new()), Some(Vec::new()), Some(-1), vec![(Vec::new(), None)]),
            (
                Some(b"k".to_vec()),
                Some(vec![7; 300]),
                Some(i64::MAX),
                vec![(b"h".to_vec(), Some(b"2".to_vec())), (b"h".to_vec(), Some(b"1".to_vec()))],
            ),
        ];
        let bytes = framed(&records);
        assert_eq!(read_bytes(&bytes).map(owned).collect::<Vec<_>>(), records);
        assert_eq!(read_bytes(&bytes).next().map(|first| first.headers.len()), Some(0));
    }

    #[test]
    fn a_small_record_takes_four_bytes_beside_its_own() {
        assert_eq!(
            framed(&[(Some(b"key".to_vec()), Some(b"value".to_vec()), None, Vec::new())]).len(),
            8 + 4
        );
    }

    #[test]
    fn headers_compare_by_what_they_say() {
        let pairs: [Pair<'_>; 2] = [(b"a", None), (b"b", Some(b"1"))];
        let mut out = Vec::new();
        put(&mut out, &Outgoing { headers: Headers::of(&pairs), ..Outgoing::default() });
        let read = read_bytes(&out).next().unwrap();
        assert_eq!(read.headers, Headers::of(&pairs));
        assert_ne!(read.headers, Headers::of(&pairs[..1]));
        assert_eq!(format!("{:?}", Headers::of(&pairs[..1])), "[([97], None)]");
    }

    #[test]
    #[should_panic(expected = "whole frames")]
    fn a_frame_that_was_cut_is_not_passed_over() {
        let bytes = framed(&[(None, Some(b"value".to_vec()), None, Vec::new())]);
        let _ = read_bytes(&bytes[..bytes.len() - 2]).count();
    }

    fn record() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let maybe = || proptest::option::of(bytes());
        let headers = proptest::collection::vec((bytes(), maybe()), 0..4);
        (maybe(), maybe(), any::<Option<i64>>(), headers)
    }

    proptest! {
        /// Whatever the records, and however they are spread over pieces (empty ones too): they come back.
        #[test]
        fn what_is_put_is_read(pieces in proptest::collection::vec(proptest::collection::vec(record(), 0..4), 0..5)) {
            let mut body = Body::default();
            for piece in &pieces {
                body.push(Piece::owned(framed(piece)));
            }
            prop_assert_eq!(read(&body).map(owned).collect::<Vec<_>>(), pieces.concat());
            // Each piece alone is whole.
            for (piece, records) in body.pieces().iter().zip(&pieces) {
                prop_assert_eq!(read_bytes(piece.bytes()).count(), records.len());
            }
        }
    }
}
