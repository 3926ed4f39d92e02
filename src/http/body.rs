//! The body of an answer as it comes: unpacked, never longer than allowed, never slower than a trickle.

use std::io::Read;
use std::ops::Range;
use std::time::Instant;

use ureq::BodyReader;
use ureq::http::{HeaderMap, header};

use super::error::{Error, Fault, Result};
use super::pace::Pace;
use crate::codec::decode::{Decoder, Packing};

/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How often a packed body is read before the caller hears that there is nothing: input without output must not keep a
/// stop from being seen.
const READS: usize = 64;

/// A body that is being read.
pub struct Body {
    what: String,
    reader: BodyReader<'static>,
    packed: Option<Box<Packed>>,
    received: u64,
    unpacked: u64,
    limit: u64,
    pace: Pace,
    over: bool,
}

/// What a packed body needs besides.
struct Packed {
    decoder: Decoder,
    buffer: Box<[u8]>,
    /// What of the buffer is not unpacked yet.
    rest: Range<usize>,
    /// What was unpacked, and how much of it the caller has.
    out: Vec<u8>,
    given: usize,
}

/// What a [`Body`] may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most bytes, unpacked.
    pub length: u64,
    /// The largest window of zstd.
    pub window: u64,
    /// The slowest that it may come.
    pub pace: Pace,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Idle,
    /// This is all of it.
    End,
}

impl Body {
    /// The body of an answer with these headers. `what` was asked for.
    ///
    /// # Errors
    /// If it is packed in a way that is not known, or is too long by what it says of itself.
    pub(super) fn new(
        what: &str,
        headers: &HeaderMap,
        reader: BodyReader<'static>,
        bounds: Bounds,
    ) -> Result<Self> {
        let wrong = |fault| Error::Body { what: what.to_owned(), fault };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let packing = match text(header::CONTENT_ENCODING).unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Packing::Gzip),
            "zstd" => Some(Packing::Zstd),
            other => return Err(wrong(Fault::Packing(other.chars().take(40).collect()))),
        };
        let length = text(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if packing.is_none() && length.is_some_and(|length| length > bounds.length) {
            return Err(wrong(Fault::TooLong(bounds.length)));
        }
        Ok(Body {
            what: what.to_owned(),
            reader,
            packed: packing.map(|packing| Box::new(Packed::new(packing, bounds.window))),
            received: 0,
            unpacked: 0,
            limit: bounds.length,
            pace: bounds.pace,
            over: false,
        })
    }

    /// Bytes that came so far, packed.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads into `out`, which must not be empty. Blocks for as long as one read of a socket may take.
    ///
    /// # Errors
    /// What keeps the rest from being read.
    pub fn read(&mut self, out: &mut [u8]) -> Result<Got> {
        let got = match self.packed.take() {
            None => match self.receive(out)? {
                0 => Got::End,
                count => Got::Bytes(count),
            },
            Some(mut packed) => {
                let got = self.unpack(&mut packed, out);
                self.packed = Some(packed);
                got?
            }
        };
        if let Got::Bytes(count) = got {
            self.unpacked += count as u64;
        }
        if self.unpacked > self.limit {
            return Err(self.wrong(Fault::TooLong(self.limit)));
        }
        Ok(got)
    }

    fn unpack(&mut self, packed: &mut Packed, out: &mut [u8]) -> Result<Got> {
        for _ in 0..READS {
            let count = packed.give(out);
            if count > 0 {
                return Ok(Got::Bytes(count));
            }
            let used = packed.decode().map_err(|why| self.wrong(Fault::Damaged(why)))?;
            if !packed.out.is_empty() || (used > 0 && !packed.rest.is_empty()) {
                continue;
            }
            if !packed.rest.is_empty() {
                return Err(self.wrong(Fault::Damaged("it makes no sense".into())));
            }
            packed.rest = 0..self.receive(&mut packed.buffer)?;
            if packed.rest.is_empty() {
                packed.decoder.finish().map_err(|why| self.wrong(Fault::Cut(why)))?;
                return Ok(Got::End);
            }
        }
        Ok(Got::Idle)
    }

    /// Reads what comes; 0 if there is nothing more.
    fn receive(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.over {
            return Ok(0);
        }
        let begun = Instant::now();
        let read = self.reader.read(out);
        let count = read.map_err(|error| self.wrong(Fault::Cut(error.to_string())))?;
        self.received += count as u64;
        self.over = count == 0;
        if !self.over && !self.pace.keeps(count as u64, begun.elapsed()) {
            return Err(self.wrong(Fault::Slow));
        }
        Ok(count)
    }

    fn wrong(&self, fault: Fault) -> Error {
        Error::Body { what: self.what.clone(), fault }
    }
}

impl Packed {
    fn new(packing: Packing, window: u64) -> Self {
        Packed {
            decoder: Decoder::new(packing, window),
            buffer: vec![0; PIECE].into(),
            rest: 0..0,
            out: Vec::with_capacity(PIECE),
            given: 0,
        }
    }

    /// Unpacks until there is something, or more must come; says how much of the buffer that took.
    fn decode(&mut self) -> std::result::Result<usize, String> {
        self.out.clear();
        self.given = 0;
        let used = self.decoder.decode(&self.buffer[self.rest.clone()], &mut self.out)?;
        self.rest.start += used;
        Ok(used)
    }

    /// Gives of what was unpacked as much as `out` takes.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.out[self.given..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        count
    }
}
