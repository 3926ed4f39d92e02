//! One input from its opening to its end: [`Task`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memchr::memchr;

use crate::codec::decode::{SNIFF, foreign, sniff};
use crate::config::Format;
use crate::error::Error;
use crate::json::{Scanner, Syntax, Tail, detect, is_decided, is_white};
use crate::record::{Chunk, Payload};
use crate::source::Mark;
use crate::stop::Stop;

use super::ahead::Ahead;
use super::bytes::{Bytes, CHANGED, Got, Raw, Unpacked};
use super::far::{Far, Way};
use super::fill::{Begin, Filled, Filler};
use super::growth::Growth;
use super::inputs::{self, Input};
use super::{FileOptions, Shared};

/// The first bytes, by which the format is found out.
const HEAD: usize = 64 << 10;

/// How long a first line may be that is looked at whole: where it does not end in the first bytes, it is not known
/// whether records are lines, and a broken record may hide all others behind it where they are not.
const LINE: usize = 1 << 20;

/// How often a read is thrown away before the caller hears of it: decoding gigabytes must not keep a stop from
/// being seen.
const SKIPS: usize = 256;

/// The first bytes of a pipe may come one by one; a stop is seen after so long.
const PATIENCE: Duration = Duration::from_millis(100);

const SHORTER: &str = "it is shorter than what an earlier run has read of it";

/// Of plain files that is known before they are opened (`identity`).
const TORN: &str =
    "it has grown in the middle of the last record that an earlier run has read of it; --fresh begins again";

/// Reads one input.
pub(super) struct Task {
    input: Arc<Input>,
    /// Where it begins, and with which line.
    watermark: u64,
    line: u64,
    /// Whether that is where the reader has gone back to.
    back: bool,
    left: Option<u64>,
    stage: Stage,
}

enum Stage {
    Closed,
    /// Reads the first bytes as they stand in the file: are they compressed?
    Peek(Box<Raw>, Vec<u8>),
    /// Reads the first bytes, decoded: in which format are the records?
    Detect(Open, Vec<u8>),
    /// Decodes what is done: where it stands, and the last byte.
    Skip(Open, Syntax, u64, u8),
    Fill(Open, Box<Filler>),
    Over,
}

/// An open input.
enum Open {
    Plain(Box<Raw>),
    Packed(Box<Unpacked>),
}

impl Open {
    fn raw(&self) -> &Raw {
        match self {
            Open::Plain(raw) => raw,
            Open::Packed(unpacked) => unpacked.raw(),
        }
    }

    /// How many bytes it had when it was opened, if that is known.
    fn size(&self) -> Option<u64> {
        match self {
            Open::Plain(raw) => raw.size(),
            Open::Packed(_) => None,
        }
    }

    /// Whoever leaves blocks of it to workers, if anybody can.
    fn far(&self, shared: &Shared) -> Option<Far> {
        let way = match self {
            Open::Plain(raw) => Way::Read(raw.place().filter(|_| shared.far.load(Ordering::Relaxed))?),
            Open::Packed(unpacked) => Way::Count(unpacked.stock()?.clone()),
        };
        Some(Far::new(way, shared.workers.load(Ordering::Relaxed)))
    }

    /// How many of them are still to be read.
    fn rest(&self) -> Option<u64> {
        match self {
            Open::Plain(raw) => raw.rest(),
            Open::Packed(_) => None,
        }
    }
}

impl Bytes for Open {
    fn pass(&mut self, to: u64) -> bool {
        match self {
            Open::Plain(raw) => raw.pass(to),
            Open::Packed(unpacked) => unpacked.pass(to),
        }
    }

    fn read(&mut self, out: &mut Vec<u8>) -> Got {
        match self {
            Open::Plain(raw) => raw.read(out),
            Open::Packed(unpacked) => unpacked.read(out),
        }
    }
}

/// What came of [`Task::read`].
pub(super) enum Step {
    Chunk,
    Idle,
    Ended,
    Failed(Error),
}

/// What a step of the opening came to.
enum Next {
    Stage(Stage),
    Wait(Stage),
    Failed(Error),
}

impl Task {
    /// Will read `input` from its mark on, up to `left` records; not at all if it was read to its end.
    pub(super) fn new(input: Arc<Input>, mark: Option<Mark>, left: Option<u64>) -> Self {
        let (ended, watermark, line) =
            mark.map_or((false, 0, 1), |mark| (mark.ended, mark.watermark, mark.line.max(1)));
        let stage = if ended { Stage::Over } else { Stage::Closed };
        Task { input, watermark, line, back: false, left, stage }
    }

    pub(super) fn input(&self) -> &Arc<Input> {
        &self.input
    }

    /// How many records may still be read, if that is limited.
    pub(super) fn left(&self) -> Option<u64> {
        match &self.stage {
            Stage::Fill(_, filler) => filler.left(),
            _ => self.left,
        }
    }

    fn is_once(&self) -> bool {
        self.input.partition.identity().once
    }

    /// Goes on reading.
    pub(super) fn read(&mut self, chunk: &mut Chunk, shared: &Shared, stop: &Stop) -> Step {
        loop {
            let next = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Closed => self.open(shared),
                Stage::Peek(raw, head) => self.peek(raw, head, &shared.options),
                Stage::Detect(open, head) => self.detect(open, head, shared),
                Stage::Skip(open, syntax, at, last) => self.skip(open, (syntax, at, last), shared),
                Stage::Fill(mut open, mut filler) => {
                    let step = match filler.fill(chunk, &mut open, stop) {
                        Filled::Chunk => Step::Chunk,
                        Filled::Idle => Step::Idle,
                        Filled::Back(at, line) => {
                            self.stage = self.go_back(open, at, line);
                            continue;
                        }
                        Filled::Over(None) => Step::Ended,
                        Filled::Over(Some(error)) => Step::Failed(error),
                    };
                    self.stage = Stage::Fill(open, filler);
                    return step;
                }
                Stage::Over => return Step::Ended,
            };
            match next {
                Next::Stage(stage) => self.stage = stage,
                Next::Wait(stage) => {
                    self.stage = stage;
                    return Step::Idle;
                }
                Next::Failed(error) => return Step::Failed(error),
            }
        }
    }

    fn open(&self, shared: &Shared) -> Next {
        let (name, consumed) = (self.input.partition.name(), &shared.consumed);
        let raw = match &self.input.place {
            inputs::Place::Regular { path, .. } => Raw::regular(name, path, consumed),
            inputs::Place::Device { path } => Raw::device(name, path, consumed),
            inputs::Place::Stdin => Raw::stdin(consumed),
        };
        match raw {
            Ok(raw) => Next::Stage(Stage::Peek(Box::new(raw), Vec::new())),
            Err(error) => Next::Failed(error),
        }
    }

    fn peek(&self, mut raw: Box<Raw>, mut head: Vec<u8>, options: &FileOptions) -> Next {
        make_room(&mut head, raw.rest());
        let failed = match raw.read(&mut head) {
            Got::Idle => return Next::Wait(Stage::Peek(raw, head)),
            Got::Bytes if head.len() < SNIFF => return Next::Stage(Stage::Peek(raw, head)),
            Got::Bytes | Got::End(_) => None,
            Got::Failed(error) => Some(error),
        };
        match (sniff(&head), failed) {
            (_, Some(error)) => Next::Failed(error),
            (Some(packing), None) => {
                let unpacked = Unpacked::new(*raw, head, packing, options.window_limit);
                Next::Stage(Stage::Detect(Open::Packed(Box::new(unpacked)), Vec::new()))
            }
            // It was compressed.
            (None, None) if self.back => self.failed(&raw, raw.damaged(CHANGED)),
            (None, None) => match foreign(&head).filter(|_| options.format == Format::Auto) {
                Some(what) => Next::Failed(self.unreadable(what)),
                None => Next::Stage(Stage::Detect(Open::Plain(raw), head)),
            },
        }
    }

    fn unreadable(&self, what: &str) -> Error {
        Error::Damaged {
            name: self.input.partition.name().to_owned(),
            unit: "byte",
            position: 0,
            reason: format!("it is {what}; plain UTF-8, gzip and zstd are read, so convert it first"),
        }
    }

    fn detect(&self, mut open: Open, mut head: Vec<u8>, shared: &Shared) -> Next {
        let format = shared.options.format;
        let (mut tail, began) = (Tail::Open, Instant::now());
        let by_name = matches!(format, Format::Ndjson | Format::Text | Format::Binary);
        // Looked at in steps of a size, however much a read returns.
        while !by_name && (!is_step(&head) || is_undecided(format, &head)) {
            make_room(&mut head, open.rest());
            match open.read(&mut head) {
                Got::Bytes if began.elapsed() < PATIENCE => {}
                // Whoever writes to a pipe may wait for what comes of the first lines.
                Got::Bytes | Got::Idle if self.is_once() && is_decided(format, &head) => break,
                Got::Bytes | Got::Idle => return Next::Wait(Stage::Detect(open, head)),
                // Said again to whoever reads on.
                Got::End(_) => {
                    tail = Tail::Last;
                    break;
                }
                // What was decoded before it is read first. The input says it again when it is read again: a
                // decoder keeps its fault, and a file that is shorter than it was stays so.
                Got::Failed(_) => break,
            }
        }
        let syntax = detect(format, &head, tail);
        self.go_to_mark(open, syntax, head, shared)
    }

    /// Reads again what stands from `at` on, where line `line` begins. From now on the reader counts the lines itself.
    fn go_back(&mut self, open: Open, at: u64, line: u64) -> Stage {
        (self.watermark, self.line, self.back) = (at, line, true);
        log::info!("{} is decoded again, up to byte {at}", self.input.partition.name());
        let mut raw = match open {
            Open::Plain(raw) => raw,
            Open::Packed(unpacked) => Box::new(unpacked.into_raw()),
        };
        raw.seek(0);
        Stage::Peek(raw, Vec::new())
    }

    /// What stands before the mark cannot be read, or is not what stood there when that was read: `why`, unless the
    /// reader has gone back and the file is another one now.
    fn failed(&self, raw: &Raw, why: Error) -> Next {
        let changed = if self.back { raw.check_now().err() } else { None };
        Next::Failed(changed.unwrap_or(why))
    }

    fn go_to_mark(&self, mut open: Open, syntax: Syntax, mut head: Vec<u8>, shared: &Shared) -> Next {
        let watermark = self.watermark;
        if watermark == 0 {
            return self.fill(open, syntax, (head, None), shared);
        }
        match &mut open {
            Open::Plain(raw) => {
                if raw.size().is_some_and(|size| size < watermark) {
                    return self.failed(raw, raw.damaged(SHORTER));
                }
                raw.seek(watermark - 1);
                shared.skipped.fetch_add(watermark, Ordering::Relaxed);
                Next::Stage(Stage::Skip(open, syntax, watermark - 1, 0))
            }
            // As much, too: what follows may be of the record that ended there.
            Open::Packed(_) if head.len() as u64 <= watermark => {
                let last = head.last().copied().unwrap_or(0);
                Next::Stage(Stage::Skip(open, syntax, head.len() as u64, last))
            }
            Open::Packed(_) => {
                let last = head[watermark as usize - 1];
                head.drain(..watermark as usize);
                self.go_on(open, syntax, (head, last), shared)
            }
        }
    }

    /// Goes on with `rest`, which follows the byte `last` before the mark: unless both are of one record.
    fn go_on(&self, open: Open, syntax: Syntax, (rest, last): (Vec<u8>, u8), shared: &Shared) -> Next {
        let raw = open.raw();
        if is_torn(syntax, last, rest.first()) {
            return self.failed(raw, raw.damaged(TORN));
        }
        // Else all that is read from here on would be of another file.
        if self.back
            && let Err(error) = raw.check_now()
        {
            return Next::Failed(error);
        }
        self.fill(open, syntax, (rest, Some(last)), shared)
    }

    /// Reads up to the mark and throws it away; what a read returns beyond it is the first to be scanned.
    fn skip(&self, mut open: Open, (syntax, mut at, mut last): (Syntax, u64, u8), shared: &Shared) -> Next {
        let mut buffer = Vec::with_capacity(HEAD);
        for _ in 0..SKIPS {
            buffer.clear();
            let wanted = self.watermark - at;
            match open.read(&mut buffer) {
                Got::Bytes => {}
                Got::Idle => break,
                // Said again to whoever reads on.
                Got::End(_) if wanted == 0 => return self.go_on(open, syntax, (Vec::new(), last), shared),
                Got::End(_) => return self.failed(open.raw(), open.raw().damaged(SHORTER)),
                Got::Failed(error) => return self.failed(open.raw(), error),
            }
            let passed = buffer.len().min(wanted as usize);
            last = buffer[..passed].last().copied().unwrap_or(last);
            if buffer.len() > passed {
                buffer.drain(..passed);
                return self.go_on(open, syntax, (buffer, last), shared);
            }
            at += passed as u64;
        }
        Next::Wait(Stage::Skip(open, syntax, at, last))
    }

    /// Begins to fill chunks with `rest`, which was read already and follows the byte `before`.
    fn fill(
        &self,
        open: Open,
        syntax: Syntax,
        (rest, before): (Vec<u8>, Option<u8>),
        shared: &Shared,
    ) -> Next {
        let longest = shared.options.max_record_bytes as usize;
        let mut scanner = Scanner::new(syntax, longest);
        if let Some(before) = before {
            scanner.resume(before);
        }
        let mut ahead = Ahead::default();
        *ahead.buffer() = rest;
        let filler = Filler::new(Begin {
            partition: self.input.partition.clone(),
            payload: match shared.options.format {
                // Dead letters of such records, which stand in lines.
                Format::Binary => Payload::Binary,
                _ if syntax == Syntax::Text => Payload::Text,
                _ => Payload::Json,
            },
            scanner,
            ahead,
            position: self.watermark,
            line: self.line,
            longest,
            left: self.left,
            size: open.size(),
            far: open.far(shared).filter(|_| !self.back),
            growth: Arc::<Growth>::clone(&shared.growth),
        });
        Next::Stage(Stage::Fill(open, Box::new(filler)))
    }
}

/// Whether the byte before a mark and the one behind it, if there is one, are of one record: the input ended in between
/// when it was read. Not all of that can be told from two bytes; of a value over lines nothing is known but that it has
/// no end.
fn is_torn(syntax: Syntax, before: u8, behind: Option<&u8>) -> bool {
    let Some(behind) = behind else { return false };
    match syntax {
        Syntax::Lines | Syntax::Text => before != b'\n',
        Syntax::Values => {
            !is_white(before)
                && !matches!(before, b'}' | b']' | b'"')
                && !is_white(*behind)
                && !matches!(behind, b'{' | b'[')
        }
        // Behind one that was not closed there is nothing but faults.
        Syntax::Array => false,
    }
}

/// Room for the next step; where no more than `rest` is to come no more than it takes, and to see the end.
fn make_room(head: &mut Vec<u8>, rest: Option<u64>) {
    let rest = rest.unwrap_or(u64::MAX);
    let step = HEAD - head.len() % HEAD;
    head.reserve_exact(usize::try_from(rest).map_or(step, |rest| step.min(rest.saturating_add(1))));
}

fn is_step(head: &[u8]) -> bool {
    !head.is_empty() && head.len().is_multiple_of(HEAD)
}

/// Whether nothing tells yet if records are lines.
fn is_undecided(format: Format, head: &[u8]) -> bool {
    let one_line = || memchr(b'\n', head).is_none();
    head.len() < LINE
        && format == Format::Auto
        && one_line()
        && detect(format, head, Tail::Open) == Syntax::Values
}
