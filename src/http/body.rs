//! The body of an answer as it comes: unpacked, never longer than allowed, never slower than a trickle.

use std::io::Read;
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
    decoder: Option<Decoder>,
    buffer: Box<[u8]>,
    /// What of the buffer is not unpacked yet.
    rest: std::ops::Range<usize>,
    received: u64,
    unpacked: u64,
    limit: u64,
    pace: Pace,
    over: bool,
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
    /// The buffer grew.
    Bytes,
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
            decoder: packing.map(|packing| Decoder::new(packing, bounds.window)),
            buffer: vec![0; PIECE].into(),
            rest: 0..0,
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

    /// Appends to `out` what its spare capacity takes at most; there must be some. Blocks for as long as one read of a
    /// socket may take.
    ///
    /// # Errors
    /// What keeps the rest from being read.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<Got> {
        let before = out.len();
        let got = match self.decoder.take() {
            None => self.plain(out),
            Some(mut decoder) => {
                let got = self.unpack(&mut decoder, out);
                self.decoder = Some(decoder);
                got
            }
        }?;
        self.unpacked += (out.len() - before) as u64;
        if self.unpacked > self.limit {
            return Err(self.wrong(Fault::TooLong(self.limit)));
        }
        Ok(got)
    }

    fn plain(&mut self, out: &mut Vec<u8>) -> Result<Got> {
        if self.rest.is_empty() && !self.receive()? {
            return Ok(Got::End);
        }
        let count = self.rest.len().min(out.capacity() - out.len());
        out.extend_from_slice(&self.buffer[self.rest.start..self.rest.start + count]);
        self.rest.start += count;
        Ok(Got::Bytes)
    }

    fn unpack(&mut self, decoder: &mut Decoder, out: &mut Vec<u8>) -> Result<Got> {
        let before = out.len();
        for _ in 0..READS {
            let input = &self.buffer[self.rest.clone()];
            let used = decoder.decode(input, out).map_err(|why| self.wrong(Fault::Damaged(why)))?;
            self.rest.start += used;
            if out.len() > before {
                return Ok(Got::Bytes);
            }
            if used > 0 && !self.rest.is_empty() {
                continue;
            }
            if !self.rest.is_empty() {
                return Err(self.wrong(Fault::Damaged("it makes no sense".into())));
            }
            if !self.receive()? {
                decoder.finish().map_err(|why| self.wrong(Fault::Cut(why)))?;
                return Ok(Got::End);
            }
        }
        Ok(Got::Idle)
    }

    /// Fills the buffer; `false` if there is nothing more.
    fn receive(&mut self) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        let begun = Instant::now();
        let read = self.reader.read(&mut self.buffer);
        let count = read.map_err(|error| self.wrong(Fault::Cut(error.to_string())))?;
        self.rest = 0..count;
        self.received += count as u64;
        self.over = count == 0;
        if !self.over && !self.pace.keeps(count as u64, begun.elapsed()) {
            return Err(self.wrong(Fault::Slow));
        }
        Ok(!self.over)
    }

    fn wrong(&self, fault: Fault) -> Error {
        Error::Body { what: self.what.clone(), fault }
    }
}
