//! One page: its records into the lane's chunks while the rest of it has not come yet. Only what was not scanned yet is
//! held, and of a record that is too large only its beginning. Records that stand side by side are copied together.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::header;
use url::Url;

use super::HttpOptions;
use super::lane::{Lane, Over, Place};
use super::print::Print;
use super::since::Since;
use super::window::Window;
use crate::config::Format;
use crate::config::http::Style;
use crate::error::Retry;
use crate::http::pagination::{Pages, Said};
use crate::http::{Error, Got, Reply};
use crate::json::{Fault, Found, Listed, Scanner, Span, Syntax, Tail, Told, detect, is_decided};
use crate::record::{BEGINNING, Chunk, Entry, Incoming, Partition, Payload, RejectKind, Rejection, Room};

/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// The first bytes, by which the format is found out.
const HEAD: usize = 64 << 10;
/// Records with more than so many bytes between them are not copied together.
const GAP: usize = 16;
/// The most records of a page: an index has 32 bits.
const MOST: u64 = u32::MAX as u64;

/// A page that is being read.
pub(super) struct Page {
    what: String,
    reply: Reply,
    scan: Scan,
    payload: Payload,
    over: bool,
    /// Why the rest does not come, until what came before it is taken.
    failed: Option<Error>,
    /// How many bytes of the record under way were dropped.
    dropped: u64,
    /// Where the rest begins that makes no sense, and what is wrong with it.
    broken: Option<(usize, Fault)>,
    /// How many records were found.
    index: u64,
    /// Hash of the records, where it is looked at.
    print: Option<Print>,
    received: u64,
}

enum Scan {
    /// The first bytes are not there yet.
    Detect,
    Records(Scanner),
}

/// What came of [`Page::fill`].
pub(super) enum Filled {
    /// There is nothing more.
    Over,
    /// The rest did not come.
    Failed(Error),
    /// The rest makes no sense.
    Damaged(&'static str),
}

/// Copies records from the window into a chunk: those that stand side by side at once, with what stands between them.
struct Copy<'a> {
    window: &'a [u8],
    /// What is to be copied: so much of the window, to behind what the chunk has.
    run: Option<Range<usize>>,
}

impl Copy<'_> {
    /// Gives the record at `place` to the chunk; its bytes follow.
    fn mark(&mut self, chunk: &mut Chunk, position: u64, place: Range<usize>) -> Room {
        if self.run.as_ref().is_some_and(|run| place.start > run.end + GAP) {
            self.settle(chunk);
        }
        let run = self.run.get_or_insert(place.clone());
        run.end = place.end;
        let at = (chunk.bytes.len() + place.start - run.start) as u32;
        chunk.mark(Entry { position, at, len: place.len() as u32, span: 1, extra: 0 })
    }

    /// Copies what was put off.
    fn settle(&mut self, chunk: &mut Chunk) {
        if let Some(run) = self.run.take() {
            chunk.bytes.extend_from_slice(&self.window[run]);
        }
    }
}

/// How records of a page are taken.
pub(super) struct Taking<'a> {
    pub options: &'a HttpOptions,
    pub lane: &'a Lane,
    pub partition: &'a Partition,
    /// What asks for the page.
    pub within: &'a Arc<[u8]>,
    pub since: &'a mut Since,
    /// Which page.
    pub page: u64,
    /// Records before this one were taken before.
    pub skip: u64,
    /// How many records may still be taken.
    pub left: &'a mut Option<u64>,
    /// Bytes that came, of all pages.
    pub consumed: &'a AtomicU64,
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
        Page {
            what,
            reply,
            scan,
            payload,
            over: false,
            failed: None,
            dropped: 0,
            broken: None,
            index: 0,
            print: matches!(options.pagination.style, Style::Page | Style::Offset).then(Print::default),
            received: 0,
        }
    }

    /// How many records were found so far.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Reads the page to its end, as far as it comes. Blocks for as long as that takes; records are handed on
    /// meanwhile.
    ///
    /// # Errors
    /// [`Over`].
    pub fn fill(&mut self, window: &mut Window, taking: &mut Taking<'_>) -> Result<Filled, Over> {
        if self.has_no_content() {
            return Ok(Filled::Over);
        }
        loop {
            if let Some(filled) = self.scan(window, taking)? {
                return Ok(filled);
            }
            if let Some(error) = self.failed.take() {
                return Ok(Filled::Failed(error));
            }
            if self.over {
                return self.end(window, taking);
            }
            self.forget(window, taking.options.max_record_bytes as usize);
            self.failed = self.more(window).err();
            let before = std::mem::replace(&mut self.received, self.reply.body.received());
            taking.consumed.fetch_add(self.received - before, Ordering::Relaxed);
        }
    }

    /// There is nothing more to read.
    fn end(&mut self, window: &Window, taking: &mut Taking<'_>) -> Result<Filled, Over> {
        if let Some((begin, fault)) = self.broken {
            if !taking.tolerant {
                return Ok(Filled::Damaged(name(fault)));
            }
            self.broken = None;
            let bytes = window.bytes();
            let length = (bytes.len() - begin) as u64;
            let kept = begin..bytes.len().min(begin + taking.options.max_record_bytes as usize);
            self.hand(taking, |this, chunk, taking| {
                let mut copy = Copy { window: bytes, run: None };
                // Whether the chunk has room does not matter: the page ends here.
                this.reject(chunk, &mut copy, kept, (length, Some(fault)), taking)
            })?;
        }
        if let Some(print) = &mut self.print {
            print.settle(window.bytes());
        }
        Ok(Filled::Over)
    }

    /// Lets `add` add records to the chunk of the lane.
    fn hand(
        &mut self,
        taking: &mut Taking<'_>,
        add: impl FnOnce(&mut Self, &mut Chunk, &mut Taking<'_>) -> Room,
    ) -> Result<(), Over> {
        let first = self.index.max(taking.skip);
        let Taking { lane, partition, within, page, .. } = *taking;
        lane.fill(&Place { partition, position: page << 32 | first, page, within }, |chunk| {
            chunk.set_payload(self.payload);
            add(self, chunk, taking)
        })
    }

    /// Takes the records that stand in the window.
    fn scan(&mut self, window: &mut Window, taking: &mut Taking<'_>) -> Result<Option<Filled>, Over> {
        if self.broken.is_some()
            || (matches!(self.scan, Scan::Detect) && !self.detect(window, taking.options))
        {
            return taking.lane.check().map(|()| None);
        }
        loop {
            let (mut filled, mut full) = (None, false);
            self.hand(taking, |this, chunk, taking| {
                let mut copy = Copy { window: window.bytes(), run: None };
                let room = this.records(chunk, &mut copy, taking);
                copy.settle(chunk);
                full = matches!(room, Ok(Room::Full));
                room.unwrap_or_else(|why| {
                    filled = Some(why);
                    Room::More
                })
            })?;
            if !full {
                return Ok(filled);
            }
        }
    }

    /// Adds records to the chunk as long as there are some and it has room.
    fn records(
        &mut self,
        chunk: &mut Chunk,
        copy: &mut Copy<'_>,
        taking: &mut Taking<'_>,
    ) -> Result<Room, Filled> {
        let tail = if self.over { Tail::Last } else { Tail::Open };
        while taking.left.is_none_or(|left| left > 0) {
            let Scan::Records(scanner) = &mut self.scan else { break };
            let (span, fault) = match scanner.next(copy.window, tail) {
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
            if self.record(chunk, copy, span, taking) == Room::Full {
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
    fn detect(&mut self, window: &mut Window, options: &HttpOptions) -> bool {
        let white = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        if options.format != Format::Text {
            let bytes = window.bytes();
            let begin = bytes.iter().position(|byte| !white(byte)).unwrap_or(bytes.len());
            window.forget(begin);
        }
        let by_name =
            matches!(options.format, Format::Ndjson | Format::Text) || self.is_lines(options.format);
        let all = self.over || self.failed.is_some();
        let bytes = window.bytes();
        // Records of a page that comes slowly do not wait for more than is needed.
        if !by_name && !all && bytes.len() < HEAD && !is_decided(options.format, bytes) {
            return false;
        }
        let tail = if self.over { Tail::Last } else { Tail::Open };
        let syntax = match self.is_lines(options.format) {
            true => Syntax::Lines,
            false => detect(options.format, window.bytes(), tail),
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

    fn record(
        &mut self,
        chunk: &mut Chunk,
        copy: &mut Copy<'_>,
        span: Span,
        taking: &mut Taking<'_>,
    ) -> Room {
        let length = (span.stop - span.begin) as u64 + self.dropped;
        self.dropped = 0;
        let place = span.begin..span.end;
        if length > taking.options.max_record_bytes {
            let kept = place.start..place.end.min(place.start + BEGINNING);
            return self.reject(chunk, copy, kept, (length, None), taking);
        }
        taking.since.look(&copy.window[place.clone()]);
        self.push(chunk, copy, place, taking)
    }

    /// Gives a record to the chunk, unless it was given before.
    fn push(
        &mut self,
        chunk: &mut Chunk,
        copy: &mut Copy<'_>,
        place: Range<usize>,
        taking: &mut Taking<'_>,
    ) -> Room {
        let index = self.index;
        self.index += 1;
        if let Some(print) = &mut self.print {
            print.add(copy.window, place.clone());
        }
        if index < taking.skip {
            return Room::More;
        }
        if let Some(left) = taking.left {
            *left = left.saturating_sub(1);
        }
        let position = taking.page << 32 | index;
        let bytes = &copy.window[place.clone()];
        let json = taking.options.id.as_ref().and_then(|id| Some((id, std::str::from_utf8(bytes).ok()?)));
        match json.and_then(|(id, json)| id.bytes(json)) {
            Some(key) => {
                copy.settle(chunk);
                let none: [(&[u8], Option<&[u8]>); 0] = [];
                chunk.push_incoming(
                    position,
                    Incoming { key: Some(&key), value: Some(bytes), time: None, headers: none },
                )
            }
            None => copy.mark(chunk, position, place),
        }
    }

    /// Gives a record to the chunk that is known to be none. `why`: its length, and what is wrong if it is not that.
    fn reject(
        &mut self,
        chunk: &mut Chunk,
        copy: &mut Copy<'_>,
        place: Range<usize>,
        why: (u64, Option<Fault>),
        taking: &mut Taking<'_>,
    ) -> Room {
        let (before, (length, fault), kept) = (chunk.len(), why, place.len() as u64);
        let room = self.push(chunk, copy, place, taking);
        copy.settle(chunk);
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
        chunk.reject_last(Rejection { length: (length > kept).then_some(length), ..rejection });
        room
    }

    /// Takes away what was scanned, and the inside of a record that is too large.
    fn forget(&mut self, window: &mut Window, longest: usize) {
        if let Some(print) = &mut self.print {
            print.settle(window.bytes());
        }
        if let Some((begin, _)) = &mut self.broken {
            // What it is rejected with is all that matters of the rest.
            window.forget(*begin);
            *begin = 0;
            self.over |= window.bytes().len() > longest;
            return;
        }
        let Scan::Records(scanner) = &mut self.scan else { return };
        let begin = scanner.begin();
        window.forget(begin);
        scanner.rebase(begin);
        let (most, held) = (BEGINNING.max(longest.saturating_add(2)), window.bytes().len());
        if held > most && scanner.in_record() && scanner.looked_at() == held {
            self.dropped += (held - BEGINNING) as u64;
            window.truncate(BEGINNING);
            scanner.forget_from(BEGINNING);
        }
    }

    /// Reads on.
    fn more(&mut self, window: &mut Window) -> Result<(), Error> {
        match self.reply.body.read(window.room(PIECE))? {
            Got::Bytes(count) => window.grow(count),
            Got::Idle => {}
            Got::End => self.over = true,
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
        if self.index == 0 && !self.has_no_content() && matches!(listed, Listed::Missing | Listed::Other) {
            let why = "the page has no array where http.records says; check the pointer".to_owned();
            return Err(Error::Page { what: self.what.clone(), why, retry: Retry::Permanent });
        }
        let links = self.reply.headers.get_all(header::LINK).iter();
        Ok(Said {
            records: self.index,
            hash: u64::from(self.print.as_ref().map_or(0, Print::hash)) << 32
                | self.index & u64::from(u32::MAX),
            told,
            links: links.map(|value| ascii(value.as_bytes())).collect(),
            url: self.url(),
        })
    }

    /// Whether the server says that there is nothing on this page: the array at the pointer is missed by nobody.
    fn has_no_content(&self) -> bool {
        matches!(self.reply.status.as_u16(), 204 | 205)
    }

    fn url(&self) -> &Url {
        &self.reply.url
    }
}

/// A header as text: bytes beyond ASCII as a URL has them, in whichever encoding.
fn ascii(header: &[u8]) -> String {
    let escaped = |byte: &u8| match byte.is_ascii() {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    header.iter().map(escaped).collect()
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Incomplete => "the page ends before its records do",
        Fault::Behind => "something follows behind the end of the page's JSON",
        Fault::Broken => "what stands around the page's records is no JSON",
    }
}
