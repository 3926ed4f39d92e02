//! One page: its records into chunks while the rest of it has not come yet. Only what was not scanned yet is held,
//! and of a record that is too large only its beginning.

use std::time::{Duration, Instant};

use ureq::http::header;
use url::Url;

use super::HttpOptions;
use super::since::Since;
use crate::config::Format;
use crate::config::http::Style;
use crate::error::Retry;
use crate::http::pagination::{Pages, Said};
use crate::http::{Error, Got, Reply};
use crate::json::{Fault, Found, Listed, Scanner, Span, Syntax, Tail, Told, detect};
use crate::record::{Chunk, Incoming, Payload, RejectKind, Rejection, Room};

/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How much of a record that is too large is kept.
const PREFIX: usize = 4 << 10;
/// The first bytes, by which the format is found out.
const HEAD: usize = 64 << 10;
/// A call returns after so long even if there is more.
const PATIENCE: Duration = Duration::from_millis(300);
/// The most records of a page: an index has 32 bits.
const MOST: u64 = u32::MAX as u64;

/// A page that is being read.
pub(super) struct Page {
    what: String,
    reply: Reply,
    scan: Scan,
    payload: Payload,
    window: Vec<u8>,
    over: bool,
    /// Why the rest does not come, until what came before it is taken.
    failed: Option<Error>,
    /// How many bytes of the record under way were dropped.
    dropped: u64,
    /// Where the rest begins that makes no sense, and what is wrong with it.
    broken: Option<(usize, Fault)>,
    /// How many records were found.
    index: u64,
    /// Hash of the records, where it is looked at: it takes a fifteenth of a reader's time.
    hash: Option<u32>,
    received: u64,
}

enum Scan {
    /// The first bytes are not there yet.
    Detect,
    Records(Scanner),
}

/// What came of [`Page::fill`].
pub(super) enum Filled {
    /// A chunk with records.
    Chunk,
    /// Nothing yet.
    Idle,
    /// There is nothing more.
    Over,
    /// The rest did not come.
    Failed(Error),
    /// The rest makes no sense.
    Damaged(&'static str),
}

/// How records of a page are taken.
pub(super) struct Taking<'a> {
    pub options: &'a HttpOptions,
    pub since: &'a mut Since,
    /// Which page.
    pub page: u64,
    /// Records before this one were taken before.
    pub skip: u64,
    /// How many records may still be taken.
    pub left: &'a mut Option<u64>,
    /// Whether a rest that makes no sense is taken as a record that is rejected.
    pub tolerant: bool,
}

impl Page {
    /// The page that came as `reply` when `what` was asked for.
    pub fn new(what: String, reply: Reply, options: &HttpOptions) -> Self {
        let (scan, payload) = match &options.records {
            Some(records) => {
                let leads = Pages::pointer(&options.pagination);
                let leads = leads.and_then(|text| crate::transform::pointer::Pointer::new(text).ok());
                let pointers = [Some(records), leads.as_ref()].into_iter().flatten();
                let pointers = pointers.map(|pointer| pointer.steps().to_vec()).collect();
                (Scan::Records(Scanner::page(pointers)), Payload::Json)
            }
            None => {
                let payload = if options.format == Format::Text { Payload::Text } else { Payload::Json };
                (Scan::Detect, payload)
            }
        };
        let over = matches!(reply.status.as_u16(), 204 | 205);
        Page {
            what,
            reply,
            scan,
            payload,
            window: Vec::new(),
            over,
            failed: None,
            dropped: 0,
            broken: None,
            index: 0,
            hash: matches!(options.pagination.style, Style::Page | Style::Offset).then_some(0),
            received: 0,
        }
    }

    /// How many records were found so far.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Bytes that came since the last call.
    pub fn received(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.received, self.reply.body.received());
        self.received - before
    }

    /// Fills a chunk, which was started.
    pub fn fill(&mut self, chunk: &mut Chunk, taking: &mut Taking<'_>) -> Filled {
        chunk.set_payload(self.payload);
        let began = Instant::now();
        loop {
            match self.scan(chunk, taking) {
                Ok(Room::Full) => return Filled::Chunk,
                Ok(Room::More) => {}
                Err(filled) => return filled,
            }
            if let Some(error) = self.failed.take() {
                return Filled::Failed(error);
            }
            if self.over {
                return self.end(chunk, taking);
            }
            self.forget(taking.options.max_record_bytes as usize);
            if began.elapsed() > PATIENCE {
                return if chunk.is_empty() { Filled::Idle } else { Filled::Chunk };
            }
            self.failed = self.more().err();
        }
    }

    /// There is nothing more to read.
    fn end(&mut self, chunk: &mut Chunk, taking: &mut Taking<'_>) -> Filled {
        if let Some((begin, fault)) = self.broken.take() {
            if !taking.tolerant {
                self.broken = Some((begin, fault));
                return Filled::Damaged(name(fault));
            }
            let length = (self.window.len() - begin) as u64;
            let kept = self.window.len().min(begin + taking.options.max_record_bytes as usize);
            let rest = std::mem::take(&mut self.window);
            // Whether the chunk has room does not matter: the page ends here.
            let _ = self.reject(chunk, &rest[begin..kept], length, Some(fault), taking);
        }
        if chunk.is_empty() {
            return Filled::Over;
        }
        // The page's end ends the block: it is the same whatever reads returned.
        chunk.close_block();
        Filled::Chunk
    }

    /// Takes the records that stand in the window.
    fn scan(&mut self, chunk: &mut Chunk, taking: &mut Taking<'_>) -> Result<Room, Filled> {
        if self.broken.is_some() || (matches!(self.scan, Scan::Detect) && !self.detect(taking.options)) {
            return Ok(Room::More);
        }
        let tail = if self.over { Tail::Last } else { Tail::Open };
        while taking.left.is_none_or(|left| left > 0) {
            let Scan::Records(scanner) = &mut self.scan else { break };
            let (span, fault) = match scanner.next(&self.window, tail) {
                Found::Record(span) => (span, None),
                Found::Fault(span, fault) => (span, Some(fault)),
                Found::Nothing => return Ok(Room::More),
            };
            if self.index == MOST {
                let why = "it has more records than can be counted".to_owned();
                let what = self.what.clone();
                return Err(Filled::Failed(Error::Page { what, why, retry: Retry::Permanent }));
            }
            if let Some(fault) = fault {
                self.broken = Some((span.begin, fault));
                return Ok(Room::More);
            }
            if self.record(chunk, span, taking) == Room::Full {
                return Ok(Room::Full);
            }
        }
        if taking.left.is_some_and(|left| left == 0) {
            self.over = true;
            self.broken = None;
        }
        Ok(Room::More)
    }

    /// Finds out how records stand in the page, once enough of it is there.
    fn detect(&mut self, options: &HttpOptions) -> bool {
        let white = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        if options.format != Format::Text {
            let begin = self.window.iter().position(|byte| !white(byte)).unwrap_or(self.window.len());
            self.window.drain(..begin);
        }
        let by_name =
            matches!(options.format, Format::Ndjson | Format::Text) || self.is_lines(options.format);
        if !by_name && !self.over && self.failed.is_none() && self.window.len() < HEAD {
            return false;
        }
        let tail = if self.over { Tail::Last } else { Tail::Open };
        let syntax = match self.is_lines(options.format) {
            true => Syntax::Lines,
            false => detect(options.format, &self.window, tail),
        };
        self.scan = Scan::Records(Scanner::new(syntax, options.max_record_bytes as usize));
        true
    }

    /// Whether the server says that records stand on lines.
    fn is_lines(&self, format: Format) -> bool {
        let value = self.reply.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind =
            value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let lines =
            ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"];
        format == Format::Auto && (lines.contains(&kind.as_str()) || kind == "application/x-jsonlines")
    }

    fn record(&mut self, chunk: &mut Chunk, span: Span, taking: &mut Taking<'_>) -> Room {
        let length = (span.stop - span.begin) as u64 + self.dropped;
        self.dropped = 0;
        let window = std::mem::take(&mut self.window);
        let bytes = &window[span.begin..span.end];
        let room = if length > taking.options.max_record_bytes {
            self.reject(chunk, &bytes[..bytes.len().min(PREFIX)], length, None, taking)
        } else {
            taking.since.look(bytes);
            self.push(chunk, bytes, taking)
        };
        self.window = window;
        room
    }

    /// Gives a record to the chunk, unless it was given before.
    fn push(&mut self, chunk: &mut Chunk, bytes: &[u8], taking: &mut Taking<'_>) -> Room {
        let index = self.index;
        self.index += 1;
        if let Some(hash) = &mut self.hash {
            *hash = crc32c::crc32c_append(hash.rotate_left(1), bytes);
        }
        if index < taking.skip {
            return Room::More;
        }
        if let Some(left) = taking.left {
            *left = left.saturating_sub(1);
        }
        let position = taking.page << 32 | index;
        let json = taking.options.id.as_ref().and_then(|id| Some((id, std::str::from_utf8(bytes).ok()?)));
        match json.and_then(|(id, json)| id.bytes(json)) {
            Some(key) => {
                let none: [(&[u8], Option<&[u8]>); 0] = [];
                chunk.push_incoming(
                    position,
                    Incoming { key: Some(&key), value: Some(bytes), time: None, headers: none },
                )
            }
            None => chunk.push(position, bytes),
        }
    }

    /// Gives a record to the chunk that is known to be none.
    fn reject(
        &mut self,
        chunk: &mut Chunk,
        bytes: &[u8],
        length: u64,
        fault: Option<Fault>,
        taking: &mut Taking<'_>,
    ) -> Room {
        let before = chunk.len();
        let room = self.push(chunk, bytes, taking);
        if chunk.len() == before {
            return room;
        }
        let longest = taking.options.max_record_bytes;
        let rejection = match fault {
            None => {
                Rejection::new(RejectKind::TooLarge, format!("{length} bytes; max_record_bytes is {longest}"))
            }
            Some(Fault::Incomplete) => Rejection::new(RejectKind::Incomplete, name(Fault::Incomplete)),
            Some(fault) => Rejection::new(RejectKind::InvalidJson, name(fault)),
        };
        let cut = length > bytes.len() as u64;
        chunk.reject_last(Rejection { length: cut.then_some(length), ..rejection });
        room
    }

    /// Takes away what was scanned, and the inside of a record that is too large.
    fn forget(&mut self, longest: usize) {
        if let Some((begin, _)) = &mut self.broken {
            // What it is rejected with is all that matters of the rest.
            self.window.drain(..*begin);
            *begin = 0;
            self.over |= self.window.len() > longest;
            return;
        }
        let Scan::Records(scanner) = &mut self.scan else { return };
        let begin = scanner.begin();
        self.window.drain(..begin);
        scanner.rebase(begin);
        let most = PREFIX.max(longest.saturating_add(2));
        if self.window.len() > most && scanner.in_record() && scanner.looked_at() == self.window.len() {
            self.dropped += (self.window.len() - PREFIX) as u64;
            self.window.truncate(PREFIX);
            scanner.forget_from(PREFIX);
        }
        if self.window.is_empty() && self.window.capacity() > 8 * PIECE {
            self.window = Vec::new();
        }
    }

    /// Reads on.
    fn more(&mut self) -> Result<(), Error> {
        self.window.reserve(PIECE);
        if self.reply.body.read(&mut self.window)? == Got::End {
            self.over = true;
        }
        Ok(())
    }

    /// What the page says about what comes next.
    ///
    /// # Errors
    /// If it is no page of records at all.
    pub fn said(&self, pointer: Option<&str>) -> Result<Said<'_>, Error> {
        let (told, listed) = match &self.scan {
            Scan::Records(scanner) if pointer.is_some() => (scanner.told(0), scanner.listed()),
            Scan::Records(scanner) => (&Told::Nothing, scanner.listed()),
            Scan::Detect => (&Told::Nothing, Listed::Array),
        };
        let empty = matches!(self.reply.status.as_u16(), 204 | 205);
        if self.index == 0 && !empty && matches!(listed, Listed::Missing | Listed::Other) {
            let why = "the page has no array where http.records says; check the pointer".to_owned();
            return Err(Error::Page { what: self.what.clone(), why, retry: Retry::Permanent });
        }
        let links = self.reply.headers.get_all(header::LINK);
        Ok(Said {
            records: self.index,
            hash: u64::from(self.hash.unwrap_or(0)) << 32 | self.index & u64::from(u32::MAX),
            told,
            links: links.iter().filter_map(|value| value.to_str().ok()).collect(),
            url: self.url(),
        })
    }

    fn url(&self) -> &Url {
        &self.reply.url
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Incomplete => "the page ends before its records do",
        Fault::Behind => "something follows behind the end of the page's JSON",
        Fault::Broken => "what stands around the page's records is no JSON",
    }
}
