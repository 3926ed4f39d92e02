//! Names of stored batches. Pure: no IO, no clock; a name comes from the partition and the start alone.
//!
//! Default names are `{prefix}processed/{partition}/{start, 20 digits}.ndjson[.gz|.zst]`, dead letters stand
//! under `failed/` with the same name. `{partition}` is the path as given for files, `{host and path}/{cycle}` for
//! endpoints, and `{source}/{name}` for every other kind of source, so that a program's own source never meets their
//! names. A file may be called like an endpoint: the state refuses a second source in an output, and a run whose state
//! knows nothing of the objects that are there refuses those.
//!
//! Partitions [of topics](crate::record::Identity::topic) have no end: their batches
//! stand by the hour of the first record (UTC; its own time, so that it is the same the second time), as
//! `{prefix}processed/{yyyy}/{mm}/{dd}/{hh}/{topic}-{partition}-{topic id, 8 hex}-{start, 20 digits}.ndjson[.gz|.zst]`.
//!
//! A [`Template`] takes the place of what stands between `processed/` and the extension.
//!
//! What must never happen: two partitions with one name, a name outside its prefix, a directory where another
//! partition's object belongs. So each segment of a path is either *plain* and stands as it is, or it is
//! *marked*: other characters become `_`, and `--` with eight hex digits of the SHA-256 of the original follow.
//! A segment that looks marked, looks like an object's name, or begins with a dot as hidden files do, is not plain. What is left is chance: two
//! marked segments alike but for characters that became `_` meet with probability 2^-32, and names that differ
//! only in one leading `/` do meet. [`Namer::clash`] finds both before a run begins, and [`Namer::too_long`] what
//! file systems and stores would refuse.

pub mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::batch::BatchId;
use crate::codec::Codec;
use crate::record::{Partition, TopicPart};
use crate::sink::Stream;
pub use template::Template;
use template::{Field, Piece};

/// Longest key that object stores take, in bytes.
pub const LONGEST_KEY: usize = 1024;
/// Longest segment of a name that file systems take, and stores that keep objects in them.
const SEGMENT: usize = 255;
/// `-`, start and the longest extension.
const STARTED: usize = 1 + 20 + ".ndjson.zst".len();
/// `--` and eight hex digits.
const MARK: usize = 10;

/// Gives batches their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namer {
    prefix: String,
    codec: Codec,
    template: Option<Arc<Template>>,
}

impl Namer {
    /// Names under `prefix`, which gets the slash that it lacks; an empty one stays empty. The extension
    /// follows from `codec`.
    pub fn new(prefix: impl Into<String>, codec: Codec) -> Self {
        let mut prefix = prefix.into();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Namer { prefix, codec, template: None }
    }

    /// With other names than the default ones, or with those again. The template must have passed
    /// [`Template::check`] for the source whose batches get names; what one lacks that has not is `_`.
    pub fn with_template(self, template: Option<Template>) -> Self {
        Namer { template: template.map(Arc::new), ..self }
    }

    /// The codec whose extension the names carry.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// What every name begins with: empty, or with a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Name of a batch's output.
    pub fn stored(&self, id: &BatchId) -> String {
        self.object(Stream::Stored, id)
    }

    /// Name of a batch's dead letters.
    pub fn failed(&self, id: &BatchId) -> String {
        self.object(Stream::Failed, id)
    }

    /// What all names of one stream of a partition begin with, without a slash at the end. No other partition's
    /// do. For sources whose partitions are not those of topics.
    pub fn directory(&self, stream: Stream, source: &str, name: &str) -> String {
        let mut text = format!("{}{}", self.prefix, top(stream));
        let template = self.template.as_deref();
        for segment in template.map_or(&[][..], Template::dirs) {
            text.push('/');
            for piece in segment {
                match piece {
                    Piece::Text(plain) => text.push_str(plain),
                    Piece::Field(Field::Path | Field::Name) => self.push_name(&mut text, source, name),
                    Piece::Field(Field::Source) => self.push_segment(&mut text, source, source),
                    Piece::Field(_) => text.push('_'),
                }
            }
        }
        if template.is_some_and(|it| it.has(Field::Path) || it.has(Field::Name)) {
            return text;
        }
        text.push('/');
        if !matches!(source, "file" | "http") {
            self.push_segment(&mut text, source, source);
            text.push('/');
        }
        self.push_name(&mut text, source, name);
        text
    }

    /// Where a batch begins, if this is the last segment of the name of one, with any codec. For sources whose
    /// partitions are not those of topics.
    pub fn start(&self, source: &str, segment: &str) -> Option<u64> {
        let (mut rest, _) =
            segment.split_once(".ndjson").filter(|(_, codec)| matches!(*codec, "" | ".gz" | ".zst"))?;
        let mut start = None;
        for piece in self.last() {
            rest = match piece {
                Piece::Text(plain) => rest.strip_prefix(plain.as_str())?,
                Piece::Field(Field::Start) => {
                    let (digits, behind) = rest.split_at_checked(20)?;
                    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                    start = is_number.then(|| digits.parse().ok()).flatten();
                    behind
                }
                Piece::Field(Field::Source) => rest.strip_prefix(&*plain_or_marked(source, SEGMENT))?,
                Piece::Field(_) => rest.strip_prefix('_')?,
            };
        }
        start.filter(|_| rest.is_empty())
    }

    /// Two of these partitions that would have the same names, if there are any.
    pub fn clash<'a>(
        &self,
        source: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Option<(&'a str, &'a str)> {
        let mut seen: HashMap<String, &'a str> = HashMap::new();
        names.into_iter().find_map(|name| {
            let earlier = seen.insert(self.directory(Stream::Stored, source, name), name)?;
            Some((earlier, name))
        })
    }

    /// What is too long about the names of this partition, if they are: a segment, or as a whole more than
    /// `most` bytes.
    pub fn too_long(&self, partition: &Partition, most: usize) -> Option<String> {
        let id = BatchId { partition: partition.clone(), start: u64::MAX, first_time: 0, opened_at: 0 };
        let name = self.stored(&id);
        let ours = name.get(self.prefix.len()..).unwrap_or_default();
        if let Some(long) = ours.split('/').find(|segment| segment.len() > SEGMENT) {
            let count = long.len();
            return Some(format!(
                "{long} in the names of {partition} has {count} bytes; expected {SEGMENT} at most"
            ));
        }
        let count = name.len();
        (count > most)
            .then(|| format!("{name}, a name of {partition}, has {count} bytes; expected {most} at most"))
    }

    fn object(&self, stream: Stream, id: &BatchId) -> String {
        let partition: &Partition = &id.partition;
        let mut text = match &partition.identity().topic {
            Some(topic) => self.of_topic(stream, topic, id),
            None => {
                let mut text = self.directory(stream, partition.source(), partition.name());
                if let Some(cycle) = partition.identity().cycle {
                    text.push_str(&format!("/{cycle}"));
                }
                text.push('/');
                for piece in self.last() {
                    match piece {
                        Piece::Text(plain) => text.push_str(plain),
                        Piece::Field(Field::Start) => text.push_str(&format!("{:020}", id.start)),
                        Piece::Field(Field::Source) => {
                            text.push_str(&plain_or_marked(partition.source(), SEGMENT))
                        }
                        Piece::Field(_) => text.push('_'),
                    }
                }
                text
            }
        };
        text.push_str(".ndjson");
        text.push_str(self.codec.extension());
        text
    }

    /// What stands behind the last slash.
    fn last(&self) -> &[Piece] {
        const START: &[Piece] = &[Piece::Field(Field::Start)];
        self.template.as_deref().and_then(Template::last).unwrap_or(START)
    }

    fn of_topic(&self, stream: Stream, topic: &TopicPart, id: &BatchId) -> String {
        let mut text = format!("{}{}/", self.prefix, top(stream));
        let template = self.template.as_deref();
        match template {
            None => text.push_str(&format!("{}/", date(id.first_time, "%Y/%m/%d/%H"))),
            Some(template) => template.dirs().iter().for_each(|segment| {
                push_pieces(&mut text, segment, topic, id);
                text.push('/');
            }),
        }
        match template.and_then(Template::last) {
            Some(last) => push_pieces(&mut text, last, topic, id),
            None => {
                text.push_str(&plain_or_marked(&topic.to_string(), SEGMENT - STARTED));
                text.push_str(&format!("-{:020}", id.start));
            }
        }
        text
    }

    /// The name of a partition, its slashes left in place.
    fn push_name(&self, text: &mut String, source: &str, name: &str) {
        let name = name.strip_prefix('/').unwrap_or(name);
        for (index, segment) in name.split('/').enumerate() {
            if index > 0 {
                text.push('/');
            }
            self.push_segment(text, source, segment);
        }
    }

    fn push_segment(&self, text: &mut String, source: &str, segment: &str) {
        let looks_stored = self.template.is_some() && self.start(source, segment).is_some();
        text.push_str(&match looks_stored {
            true => Cow::Owned(marked(segment, SEGMENT)),
            false => plain_or_marked(segment, SEGMENT),
        });
    }
}

fn push_pieces(text: &mut String, pieces: &[Piece], topic: &TopicPart, id: &BatchId) {
    for piece in pieces {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Field(Field::Source) => text.push_str(&plain_or_marked(id.partition.source(), SEGMENT)),
            Piece::Field(Field::Topic) => text.push_str(&plain_or_marked(&topic.topic, SEGMENT)),
            Piece::Field(Field::Partition) => text.push_str(&topic.partition.to_string()),
            Piece::Field(Field::TopicId) => text.push_str(&format!("{:08x}", topic.id)),
            Piece::Field(Field::Start) => text.push_str(&format!("{:020}", id.start)),
            Piece::Field(field) => {
                text.push_str(&field.time().map_or_else(|| "_".into(), |format| date(id.first_time, format)));
            }
        }
    }
}

/// A time in milliseconds since the epoch, UTC. What no calendar has is the time nearest to it.
fn date(milliseconds: i64, format: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds.max(0)).unwrap_or(jiff::Timestamp::MAX);
    time.strftime(format).to_string()
}

/// Whether this is the last segment of a batch's default name, with any codec.
fn is_object(segment: &str) -> bool {
    let Some((start, extension)) = segment.split_at_checked(20) else { return false };
    start.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(extension, ".ndjson" | ".ndjson.gz" | ".ndjson.zst")
}

/// Whether this segment can be that of a pass over an endpoint.
pub fn is_cycle(segment: &str) -> bool {
    segment.parse::<u64>().is_ok_and(|cycle| cycle.to_string() == segment)
}

/// The first segment behind the prefix.
pub fn top(stream: Stream) -> &'static str {
    match stream {
        Stream::Stored => "processed",
        Stream::Failed => "failed",
    }
}

/// A segment as it stands, if it may, and if it has no more than `most` bytes.
fn plain_or_marked(segment: &str, most: usize) -> Cow<'_, str> {
    match segment.len() <= most && is_plain(segment) {
        true => Cow::Borrowed(segment),
        false => Cow::Owned(marked(segment, most)),
    }
}

fn is_plain(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('.')
        && segment.len() <= SEGMENT
        && segment.bytes().all(|byte| is_allowed(byte as char))
        && !is_marked(segment)
        && !is_object(segment)
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '=' | '-')
}

/// Whether it ends the way [`marked`] segments do.
fn is_marked(segment: &str) -> bool {
    let Some(mark) = segment.len().checked_sub(MARK).and_then(|at| segment.get(at..)) else { return false };
    mark.starts_with("--") && mark[2..].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn marked(segment: &str, most: usize) -> String {
    let clean = segment.chars().map(|char| if is_allowed(char) { char } else { '_' });
    let mut text: String = clean.take(most - MARK).collect();
    // What is hidden is not found where the output is read again.
    let dots = text.chars().take_while(|char| *char == '.').count();
    text.replace_range(..dots, &"_".repeat(if text.is_empty() { 1 } else { dots }));
    let hash = Sha256::digest(segment.as_bytes());
    text.push_str("--");
    hash[..4].iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}
