//! The program of a run: validate, transform, envelope, in one pass over a section.
//!
//! A record is validated before the first transform sees it, and what a transform made of it before the next one
//! does. Nothing is allocated a record: outputs go through two buffers in turn, and lines are appended to the
//! caller's. A transform that panics is the engine's to catch.
//!
//! What records are that are no JSON: text is a JSON string, bytes are a JSON string in base64, and so transforms
//! see them; without an envelope and a transform, outgoing records have them as they were. A tombstone (null value)
//! is no value to transform: it passes all transforms by, becomes `null` in lines and in envelopes, which mark it,
//! and stays a tombstone in outgoing records without an envelope, so that it deletes its key there too.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use super::envelope::{Breaks, Data, Envelope, EnvelopeKind, Member, Origin, Parts, base64, string};
use super::letter::{self, Letter, Lines, Rejected, Tally};
use super::pointer::Pointer;
use super::value::{Values, utf8, value};
use super::{Form, Forms, Out, Outputs, Program, Transform};
use crate::batch::Counts;
use crate::budget::make_room;
use crate::outgoing::{self, Headers, Outgoing, Pair};
use crate::record::{Entry, Payload, Record, RejectKind, Rejection, Section};

/// What the transforms make of all records of a section may have so many bytes, envelopes included: a section
/// comes from a chunk of about 256 KiB.
const SECTION_CAP: usize = 64 << 20;

/// What a [`Recipe`] is made of.
pub struct RecipeOptions {
    /// What is put around records.
    pub envelope: EnvelopeKind,
    /// The transforms, in the order in which they are applied.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// What envelopes call this machine.
    pub processed_by: String,
    /// What becomes of rejected records.
    pub dead_letters: Letters,
    /// Whether the records are dead letters.
    pub replay: Replay,
    /// How many bytes the transforms may make of one record.
    pub output_cap: usize,
}

impl Default for RecipeOptions {
    /// The envelope, no transforms, dead letters kept, `processed_by` empty, 64 MiB an output.
    fn default() -> Self {
        RecipeOptions {
            envelope: EnvelopeKind::Default,
            transforms: Vec::new(),
            processed_by: String::new(),
            dead_letters: Letters::Keep,
            replay: Replay::No,
            output_cap: 64 << 20,
        }
    }
}

/// What becomes of rejected records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// They are counted and kept, as lines.
    Keep,
    /// They are counted and kept, as [`crate::outgoing`] frames: key, value, time and headers as they were, and
    /// headers that tell why. For sinks whose shape has `letter_records`.
    Records,
    /// They are counted.
    Drop,
}

/// Whether the records are dead letters that are fed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// They are records.
    No,
    /// They are dead letters: their payloads are the records.
    Yes,
}

/// What the key of an outgoing record is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The key of the record it was made of.
    #[default]
    Source,
    /// A field of the output, before it is put into an envelope: strings without quotes, everything else as it is
    /// written; without it, or where it is `null`, there is no key. A tombstone keeps its own.
    Field(Pointer),
}

/// The program of a run.
pub struct Recipe {
    envelope: Envelope,
    kind: EnvelopeKind,
    /// With it outputs are frames, without it lines.
    key: Option<Key>,
    transforms: Vec<Arc<dyn Transform>>,
    dead_letters: Letters,
    replay: Replay,
    output_cap: usize,
}

impl Recipe {
    /// A recipe.
    pub fn new(options: RecipeOptions) -> Self {
        Recipe {
            envelope: Envelope::new(options.envelope, &options.processed_by),
            kind: options.envelope,
            key: None,
            transforms: options.transforms,
            dead_letters: options.dead_letters,
            replay: options.replay,
            output_cap: options.output_cap,
        }
    }

    /// Adds a transform behind those that are there: it sees what they made.
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Bare records: no envelope around them.
    pub fn bare(mut self) -> Self {
        self.envelope = Envelope::new(EnvelopeKind::None, "");
        self.kind = EnvelopeKind::None;
        self
    }

    /// Outputs are [`crate::outgoing`] frames, not lines: for sinks whose shape has `records`. They have this key,
    /// and time and headers of the record they are made of.
    pub fn records(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether nothing is done with the records of this section but that they are validated and put into the envelope.
    fn is_plain(&self, section: &Section<'_>) -> bool {
        section.payload() == Payload::Json
            && self.replay == Replay::No
            && self.transforms.is_empty()
            && self.key.is_none()
    }
}

impl Default for Recipe {
    /// A recipe with default [`RecipeOptions`].
    fn default() -> Self {
        Recipe::new(RecipeOptions::default())
    }
}

impl Program for Recipe {
    fn run(&self, section: &Section<'_>, out: &mut Out) {
        let lines = section.lines().filter(|_| self.is_plain(section));
        let first = match lines {
            Some(_) => Some(section.line_entry(0, 0, 0)),
            None => section.entries().first().copied(),
        };
        let Some(first) = first else { return };
        let Out { stored, failed, counts, samples, rejects, outputs, parts, validator } = out;
        self.envelope.prepare(section, parts);
        let overhead = self.envelope.overhead(parts, first.position);
        match lines {
            Some(lines) => make_room(stored, section.buffer().len() + lines * overhead),
            None => {
                let bytes: usize = section.entries().iter().map(|entry| entry.len as usize).sum();
                make_room(stored, bytes + section.len() * overhead);
                counts.read += section.len() as u64;
                counts.bytes_read += bytes as u64;
            }
        }
        let mut run = Run {
            recipe: self,
            section,
            parts,
            outputs,
            began: stored.len(),
            stored,
            counts,
            tally: Tally { failed, samples, rejects, lines: Lines::default() },
        };
        let values = Values::new(section, validator);
        match lines {
            Some(_) => run.lines(values),
            None => run.records(values),
        }
    }

    fn forms(&self) -> Forms {
        Forms {
            stored: Some(if self.key.is_some() { Form::Frames } else { Form::Lines }),
            failed: match self.dead_letters {
                Letters::Keep => Some(Form::Lines),
                Letters::Records => Some(Form::Frames),
                Letters::Drop => None,
            },
        }
    }
}

/// A recipe at work on a section.
struct Run<'a> {
    recipe: &'a Recipe,
    section: &'a Section<'a>,
    parts: &'a mut Parts,
    outputs: &'a mut [Outputs; 2],
    stored: &'a mut Vec<u8>,
    /// How long the output was before this section.
    began: usize,
    counts: &'a mut Counts,
    tally: Tally<'a>,
}

impl<'a> Run<'a> {
    /// Plain records, in lines that nobody has looked for yet.
    fn lines(&mut self, mut values: Values<'a>) {
        let (section, recipe) = (self.section, self.recipe);
        let (mut at, end) = (0, section.buffer().len());
        while at < end {
            let line = values.line(at);
            let begin = std::mem::replace(&mut at, line.next);
            let Some(value) = line.value else { continue };
            self.counts.read += 1;
            self.counts.bytes_read += (line.end - begin) as u64;
            let entry = section.line_entry(begin, line.end, line.next);
            match value {
                Ok(value) => {
                    recipe.envelope.write(self.parts, entry.position, value, self.stored);
                    self.counts.stored += 1;
                }
                Err(why) => self.reject_read(&entry, why),
            }
        }
    }

    fn records(&mut self, mut values: Values<'a>) {
        let (section, recipe) = (self.section, self.recipe);
        let plain = recipe.is_plain(section);
        let mut faults = section.faults().peekable();
        for (index, entry) in section.entries().iter().enumerate() {
            let made = match faults.next_if(|(at, _)| *at == index) {
                Some((_, why)) => Err(why.clone()),
                // The usual case: nothing is known of the record but its position, and nothing is done with it.
                None if plain && entry.extra == 0 => values.next(entry).map(|value| {
                    recipe.envelope.write(self.parts, entry.position, value, self.stored);
                    self.counts.stored += 1;
                }),
                None => self.record(entry, &mut values),
            };
            if let Err(why) = made {
                self.reject_read(entry, why);
            }
        }
    }

    /// Rejects a record as it was read.
    fn reject_read(&mut self, entry: &Entry, why: Rejection) {
        let (section, record) = (self.section, self.section.record(entry));
        let origin = Origin::Read(record);
        self.reject(&Rejected { section, entry, origin, payload: record.bytes }, why, None);
    }

    /// A record that needs more than validation and the plain envelope.
    fn record(&mut self, entry: &Entry, values: &mut Values<'a>) -> Result<(), Rejection> {
        let record = self.section.record(entry);
        let origin = Origin::Read(record);
        if self.recipe.replay == Replay::Yes {
            return self.replayed(entry, record);
        }
        if record.is_tombstone() {
            self.emit(&origin, None, Output { data: Data::value(b"null", Breaks::None), raw: None });
            self.counts.stored += 1;
            return Ok(());
        }
        if let Some(length) = letter::cut_record(&record) {
            return Err(cut(length, "the header pipeline.error.length"));
        }
        if record.payload != Payload::Json {
            return self.text(&origin, record);
        }
        let (value, breaks) = values.next(entry)?;
        let raw = Some(record.bytes);
        let data = Data::value(value, breaks);
        self.json(&origin, Record { bytes: value, ..record }, Output { data, raw })
    }

    /// Text or bytes: they become a JSON string.
    fn text(&mut self, origin: &Origin<'_>, record: Record<'_>) -> Result<(), Rejection> {
        let mut quoted = mem::take(&mut self.parts.quoted);
        quoted.clear();
        let member = if record.payload == Payload::Binary {
            base64(record.bytes, &mut quoted);
            Member::Base64
        } else {
            string(utf8(record.bytes)?, &mut quoted);
            Member::Value
        };
        let data = Data { json: &quoted, breaks: Breaks::None, member };
        let output = Output { data, raw: Some(record.bytes) };
        let record = Record { bytes: &quoted, payload: Payload::Json, ..record };
        let made = self.json(origin, record, output);
        self.parts.quoted = quoted;
        made
    }

    /// A dead letter: its payload is the record.
    fn replayed(&mut self, entry: &Entry, record: Record<'_>) -> Result<(), Rejection> {
        let line = value(record.bytes)?;
        let letter = Letter::parse(line)?;
        let origin = Origin::Replayed(&letter);
        let payload = Record { bytes: &letter.payload, extra: None, ..record };
        let made = match letter.cut_from(record.payload) {
            Some(length) => Err(cut(length, "error.length")),
            None if record.payload != Payload::Json => self.text(&origin, payload),
            None => value(payload.bytes).and_then(|value| {
                let data = Data::value(value.as_bytes(), Breaks::Perhaps);
                let output = Output { data, raw: Some(payload.bytes) };
                self.json(&origin, Record { bytes: value.as_bytes(), ..payload }, output)
            }),
        };
        if let Err(why) = made {
            let rejected = Rejected { section: self.section, entry, origin, payload: payload.bytes };
            self.reject(&rejected, why, Some(letter.line));
        }
        Ok(())
    }

    /// One valid JSON value: transforms it and appends what becomes of it.
    #[inline]
    fn json(&mut self, origin: &Origin<'_>, record: Record<'_>, output: Output<'_>) -> Result<(), Rejection> {
        if self.recipe.transforms.is_empty() {
            self.emit(origin, None, output);
            self.counts.stored += 1;
            return Ok(());
        }
        let before = self.stored.len();
        let made = self.transform(origin, &record);
        if made.is_err() {
            self.stored.truncate(before);
        }
        self.counts.stored += made?;
        Ok(())
    }

    /// Applies the transforms and appends their outputs; returns how many there are.
    fn transform(&mut self, origin: &Origin<'_>, record: &Record<'_>) -> Result<u64, Rejection> {
        let outputs = chain(self.recipe, record, self.outputs)?;
        let count = outputs.len();
        for (number, output) in outputs.iter().enumerate() {
            let number = (count > 1).then_some(number);
            let data = Data::value(output.trim_ascii(), Breaks::Perhaps);
            emit(self.recipe, self.parts, self.stored, (origin, number, Output { data, raw: None }));
            if self.stored.len() - self.began > SECTION_CAP.max(self.recipe.output_cap) {
                return Err(Rejection::new(RejectKind::Output, "the outputs of its chunk are too large"));
            }
        }
        Ok(count as u64)
    }

    #[inline]
    fn emit(&mut self, origin: &Origin<'_>, number: Option<usize>, output: Output<'_>) {
        emit(self.recipe, self.parts, self.stored, (origin, number, output));
    }

    /// Counts a rejected record, and keeps it as a dead letter if they are kept. `line` is known beforehand for
    /// records that were read as dead letters.
    #[cold]
    fn reject(&mut self, rejected: &Rejected<'_>, why: Rejection, line: Option<Option<u64>>) {
        self.counts.rejected += 1;
        let here = self.tally.count(rejected, &why);
        let line = line.unwrap_or(here);
        match self.recipe.dead_letters {
            Letters::Keep => letter::write(self.parts, rejected, &why, line, self.tally.failed),
            Letters::Records => letter::put(self.parts, rejected, &why, line, self.tally.failed),
            Letters::Drop => {}
        }
    }
}

/// What a record became: the data, and the record's own bytes where they are the same value.
#[derive(Clone, Copy)]
struct Output<'a> {
    data: Data<'a>,
    raw: Option<&'a [u8]>,
}

/// Appends an output, as a line or as a frame. `number` tells apart the outputs of a record that has several.
#[inline]
fn emit(
    recipe: &Recipe,
    parts: &mut Parts,
    stored: &mut Vec<u8>,
    (origin, number, output): (&Origin<'_>, Option<usize>, Output<'_>),
) {
    match &recipe.key {
        None => recipe.envelope.write_any(parts, (origin, number), output.data, stored),
        Some(key) => put(recipe, key, parts, stored, (origin, number, output)),
    }
}

/// Appends an output as a frame.
fn put(
    recipe: &Recipe,
    key: &Key,
    parts: &mut Parts,
    stored: &mut Vec<u8>,
    (origin, number, output): (&Origin<'_>, Option<usize>, Output<'_>),
) {
    let record = match origin {
        Origin::Read(record) => Some(record),
        Origin::Bare(_) | Origin::Replayed(_) => None,
    };
    let tombstone = record.is_some_and(Record::is_tombstone);
    let found = match key {
        // What was validated is UTF-8.
        Key::Field(field) if !tombstone => {
            std::str::from_utf8(output.data.json).ok().and_then(|json| field.bytes(json))
        }
        _ => record.and_then(Record::key).map(Cow::Borrowed),
    };
    let mut envelope = mem::take(&mut parts.value);
    envelope.clear();
    let value = match recipe.kind {
        EnvelopeKind::None if tombstone => None,
        EnvelopeKind::None => Some(output.raw.unwrap_or(output.data.json)),
        EnvelopeKind::Default | EnvelopeKind::CloudEvents => {
            recipe.envelope.write_any(parts, (origin, number), output.data, &mut envelope);
            // Without the end of the line.
            Some(&envelope[..envelope.len() - 1])
        }
    };
    let (time, headers) =
        (record.and_then(Record::time), record.map_or_else(Headers::default, Record::headers));
    let is_length = |(name, _): &Pair<'_>| *name == letter::LENGTH.as_bytes();
    let mended: Vec<Pair<'_>>;
    let headers = if { headers }.any(|pair| is_length(&pair)) {
        mended = headers.filter(|pair| !is_length(pair)).collect();
        Headers::of(&mended)
    } else {
        headers
    };
    outgoing::put(stored, &Outgoing { key: found.as_deref(), value, time, headers });
    parts.value = envelope;
}

/// Why a dead letter of a record of this length is not done again; `told` is where the length stands.
#[cold]
fn cut(length: u64, told: &str) -> Rejection {
    let message = format!("only its beginning was kept; whoever mends it takes {told} away");
    Rejection { length: Some(length), ..Rejection::new(RejectKind::TooLarge, message) }
}

/// What the transforms, one behind the other, make of a record.
fn chain<'o>(
    recipe: &Recipe,
    record: &Record<'_>,
    [from, to]: &'o mut [Outputs; 2],
) -> Result<&'o Outputs, Rejection> {
    let (mut from, mut to) = (from, to);
    for (index, transform) in recipe.transforms.iter().enumerate() {
        to.begin(recipe.output_cap);
        if index == 0 {
            apply(&**transform, record, to)?;
        } else {
            for bytes in from.iter() {
                apply(&**transform, &Record { bytes, payload: Payload::Json, ..*record }, to)?;
            }
        }
        to.show_all();
        mem::swap(&mut from, &mut to);
    }
    Ok(from)
}

/// Applies one transform, and validates what it pushes.
fn apply(transform: &dyn Transform, record: &Record<'_>, out: &mut Outputs) -> Result<(), Rejection> {
    out.hide_all();
    transform.apply(record, out)?;
    if out.overflown {
        let message = format!("what it becomes has more than {} bytes", out.limit);
        return Err(Rejection::new(RejectKind::Output, message));
    }
    for output in out.iter() {
        // A filter pushes what it was given: comparing costs a tenth of validating again.
        if output != record.bytes {
            value(output).map_err(|why| {
                let message = format!("an output is not one JSON value: {}", why.message);
                Rejection::new(RejectKind::Output, message)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod pages;
#[cfg(test)]
mod tests;
