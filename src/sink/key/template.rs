//! [`Template`]: what a user wants between `processed/` and the extension of a name. Pure, and validated once.
//!
//! Fields stand in braces, everything else is text: `team=a/dt={date}/{topic}-{partition}-{topic_id}-{start}`. A
//! template that ends in a slash names directories, and what tells batches apart follows as in default names; any
//! other one has to tell them apart itself. `hive` is short for `dt={date}/hour={hour}/`.
//!
//! Two batches of a run must never share a name, whatever topics and files are called, so [`Template::check`] lets
//! through only what can be read back: text is never empty between two fields of unknown length, a path stands between
//! slashes, and of what a source has nothing may be missing that tells its batches apart. Dates are those of the
//! first record. Where records have no time there are none: the only other time is that of a clock, and a run that
//! does a batch again would find another one there.

use std::fmt;

/// Longest template in bytes.
const LONGEST: usize = 512;

/// Names of batches as a user wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// What stands between slashes. The last one is empty where only directories are named.
    segments: Vec<Vec<Piece>>,
}

/// A piece of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Field(Field),
}

/// What is known of a batch before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Source,
    Path,
    Name,
    Topic,
    Partition,
    TopicId,
    Start,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Date,
}

use Field::{Date, Day, Hour, Minute, Month, Name, Partition, Path, Source, Start, Topic, TopicId, Year};

const FIELDS: [(&str, Field); 13] = [
    ("source", Source),
    ("path", Path),
    ("name", Name),
    ("topic", Topic),
    ("partition", Partition),
    ("topic_id", TopicId),
    ("start", Start),
    ("year", Year),
    ("month", Month),
    ("day", Day),
    ("hour", Hour),
    ("minute", Minute),
    ("date", Date),
];

impl Field {
    fn name(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// How a time is written, if it is one.
    pub(super) fn time(self) -> Option<&'static str> {
        Some(match self {
            Year => "%Y",
            Month => "%m",
            Day => "%d",
            Hour => "%H",
            Minute => "%M",
            Date => "%Y-%m-%d",
            Source | Path | Name | Topic | Partition | TopicId | Start => return None,
        })
    }

    fn is_of(self, source: &str) -> bool {
        match (self, source) {
            (Source | Start, _) => true,
            (Path, source) => source == "file",
            (Name, source) => !matches!(source, "file" | "kafka"),
            (_, source) => source == "kafka",
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// Reads a template, or the name of one.
    ///
    /// # Errors
    /// One sentence on what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let long = if text == "hive" { "dt={date}/hour={hour}/" } else { text };
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("expected hive or 1 to {LONGEST} bytes like dt={{date}}/{{topic}}/"));
        }
        let segments: Vec<Vec<Piece>> = long.split('/').map(segment).collect::<Result<_, _>>()?;
        let odd = |segment: &[Piece]| match segment {
            [] => true,
            [Piece::Text(text), ..] => text.starts_with('.'),
            _ => false,
        };
        let (last, dirs) = segments.split_last().expect("splitting yields one at least");
        if dirs.iter().any(|segment| odd(segment)) || (!last.is_empty() && odd(last)) {
            return Err(format!("{text:?} has an empty part, or one that begins with a dot"));
        }
        Ok(Template { text: text.to_owned(), segments })
    }

    /// The directories, between slashes.
    pub(super) fn dirs(&self) -> &[Vec<Piece>] {
        self.segments.split_last().map_or(&[], |(_, dirs)| dirs)
    }

    /// What stands behind the last slash; `None` where the template ends with it.
    pub(super) fn last(&self) -> Option<&[Piece]> {
        self.segments.last().map(Vec::as_slice).filter(|last| !last.is_empty())
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.fields().any(|found| found == field)
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        self.segments.iter().flatten().filter_map(Piece::field)
    }

    /// Whether it tells the batches of this kind of source apart: `file`, `kafka` or another one.
    ///
    /// # Errors
    /// One sentence on what was expected.
    pub fn check(&self, source: &str) -> Result<(), String> {
        if let Some(field) = self.fields().find(|field| !field.is_of(source)) {
            return Err(self.foreign(field, source));
        }
        if source == "kafka" { self.check_topics() } else { self.check_named(source) }
    }

    /// A field that the source does not have.
    fn foreign(&self, field: Field, source: &str) -> String {
        let known: Vec<String> = FIELDS
            .iter()
            .filter(|(_, field)| field.is_of(source))
            .map(|(name, _)| format!("{{{name}}}"))
            .collect();
        let why = match field.time() {
            Some(_) => "records of this source have no time, and no clock may name what is stored twice",
            None => "this source has nothing of that kind",
        };
        format!("{} has {{{}}}: {why}; expected text and {}", self.text, field.name(), known.join(", "))
    }

    /// Topics have partitions, and one that is created again begins anew.
    fn check_topics(&self) -> Result<(), String> {
        if self.last().is_none() {
            return Ok(());
        }
        let missing = [Topic, Partition, TopicId, Start].into_iter().find(|field| !self.has(*field));
        if let Some(field) = missing {
            return Err(format!(
                "{} lacks {{{}}}, so two batches could get one name; expected it, or a slash at the end, behind \
                 which {{topic}}-{{partition}}-{{topic_id}}-{{start}} follows",
                self.text,
                field.name()
            ));
        }
        if !self.is_readable() {
            return Err(format!(
                "{} does not tell where {{topic}} ends and {{partition}} begins; expected text between them that \
                 has no digit beside {{partition}}",
                self.text
            ));
        }
        Ok(())
    }

    /// Whether topic and partition can be read from a name. All other fields have a length that is known.
    fn is_readable(&self) -> bool {
        let (mut topic, mut partition) = (false, false);
        // The first round may find the one that the second needs.
        for segment in [&self.segments, &self.segments].into_iter().flatten() {
            let has = |field| segment.contains(&Piece::Field(field));
            match (has(Topic) && !topic, has(Partition) && !partition) {
                // Its length is what is left.
                (true, false) => topic = true,
                (false, true) => partition = true,
                (true, true) => partition = ends_apart(segment),
                (false, false) => {}
            }
        }
        topic && partition
    }

    /// Files and the like: their names stand between slashes, and their batches in a directory of their own.
    fn check_named(&self, source: &str) -> Result<(), String> {
        let name = if source == "file" { Path } else { Name };
        let is_name = |piece: &Piece| piece.field() == Some(name);
        let with_name: Vec<&Vec<Piece>> =
            self.segments.iter().filter(|segment| segment.iter().any(is_name)).collect();
        let last = self.last().unwrap_or_default();
        let starts = self.fields().filter(|field| *field == Start).count();
        let start_is_last = last.contains(&Piece::Field(Start));
        let stands = with_name.iter().all(|segment| segment.len() == 1) && !last.iter().any(is_name);
        let name = name.name();
        match (with_name.len(), starts, self.last().is_some()) {
            (2.., _, _) | (_, 2.., _) => {
                Err(format!("{} has a field twice that tells batches apart; expected it once", self.text))
            }
            (0, _, true) | (_, 0, true) => Err(format!(
                "{} does not tell all batches apart; expected {{{name}}} and {{start}} in it, or a slash at the \
                 end, behind which {{{name}}}/{{start}} follows",
                self.text
            )),
            (1, _, _) if !stands => Err(format!("{}: expected {{{name}}} between two slashes", self.text)),
            (_, 1, _) if !start_is_last => {
                Err(format!("{}: expected {{start}} behind the last slash", self.text))
            }
            _ => Ok(()),
        }
    }
}

impl Piece {
    pub(super) fn field(&self) -> Option<Field> {
        match self {
            Piece::Field(field) => Some(*field),
            Piece::Text(_) => None,
        }
    }
}

/// The pieces between two slashes.
fn segment(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (plain, field) = match rest.split_once('{') {
            Some((plain, field)) => (plain, Some(field)),
            None => (rest, None),
        };
        if !plain.is_empty() {
            check_text(plain)?;
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some(field) = field else { break };
        let (name, behind) = field.split_once('}').ok_or_else(|| format!("{{{field} has no }}"))?;
        pieces.push(Piece::Field(field_of(name)?));
        rest = behind;
    }
    Ok(pieces)
}

fn field_of(name: &str) -> Result<Field, String> {
    if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return Ok(*field);
    }
    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    let hint = if name.starts_with('{') { "; one brace is enough" } else { "" };
    Err(format!("there is no field {{{name}}}{hint}; expected one of {}", known.join(", ")))
}

fn check_text(text: &str) -> Result<(), String> {
    if let Some(odd) = text.chars().find(|char| !super::is_allowed(*char)) {
        let hint = match odd {
            '%' => "; dates are {year}, {month}, {day}, {hour}, {minute} and {date}",
            _ => "",
        };
        return Err(format!(
            "{odd:?} in {text:?} does not go into names; expected A-Z a-z 0-9 . _ = - /{hint}"
        ));
    }
    if text.contains(".ndjson") {
        return Err(format!("{text:?}: names get their extension without being told; leave it out"));
    }
    Ok(())
}

/// Whether the partition can be told from the topic in the same segment: it is the first of the two, or the last, and
/// text that has no digit there keeps it from what stands on its other side.
fn ends_apart(segment: &[Piece]) -> bool {
    let is_open = |piece: &&Piece| matches!(piece.field(), Some(Topic | Partition));
    let text = |piece: Option<&Piece>| match piece {
        Some(Piece::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let at = |index: Option<usize>| index.filter(|at| segment[*at].field() == Some(Partition));
    let first = at(segment.iter().position(|piece| is_open(&piece)));
    let last = at(segment.iter().rposition(|piece| is_open(&piece)));
    let behind = first.and_then(|at| text(segment.get(at + 1)).chars().next());
    let before = last.and_then(|at| text(segment.get(at.checked_sub(1)?)).chars().last());
    [behind, before].into_iter().flatten().any(|char| !char.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wrong(text: &str, expected: &str) {
        let said = Template::parse(text).expect_err(text);
        assert!(said.contains(expected), "{text}: {said}");
    }

    #[track_caller]
    fn refused(source: &str, text: &str, expected: &str) {
        let said = Template::parse(text).expect("it can be read").check(source).expect_err(text);
        assert!(said.contains(expected) && said.contains("expected "), "{text}: {said}");
    }

    #[track_caller]
    fn fine(source: &str, text: &str) {
        assert_eq!(Template::parse(text).expect("it can be read").check(source), Ok(()), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        wrong("", "expected hive or");
        wrong(&"x".repeat(600), "expected hive or");
        wrong("{topics}", "there is no field {topics}; expected one of source, path");
        wrong("{{topic}}", "one brace is enough");
        wrong("a/{topic", "{topic has no }");
        wrong("dt=%Y/", "dates are {year}");
        wrong("a b/", "' ' in \"a b\"");
        wrong("ü/", "'ü'");
        wrong("a}/", "'}'");
        wrong("{start}.ndjson.gz", "leave it out");
        for text in ["/a/", "a//b", "./a", "a/..", "../", "/", "a/./{start}"] {
            wrong(text, "has an empty part");
        }
    }

    #[test]
    fn names_of_topics_tell_everything_apart() {
        for text in [
            "hive",
            "x/",
            "{topic}/",
            "{topic}-{partition}-{topic_id}-{start}",
            "{year}{month}{day}/{topic_id}{start}-{partition}-{topic}",
            "{topic}/{partition}/{topic_id}/{start}",
            "{topic}/p={partition}/{topic}-{partition}-{topic_id}-{start}",
            "{topic}{partition}/{topic}/{topic_id}-{start}",
            "{topic}{partition}/{partition}/{topic_id}-{start}",
            "{partition}x9{topic}/{topic_id}/{start}",
        ] {
            fine("kafka", text);
        }
        for (text, lacks) in [
            ("{topic}-{partition}-{start}", "{topic_id}"),
            ("{topic}-{topic_id}-{start}", "{partition}"),
            ("{partition}-{topic_id}-{start}", "{topic}"),
            ("{topic}-{partition}-{topic_id}", "{start}"),
            ("x", "{topic}"),
        ] {
            refused("kafka", text, &format!("lacks {lacks}"));
        }
        for text in [
            "{topic}{partition}/{topic_id}{start}",
            "{topic}0{partition}/{topic_id}{start}",
            "{partition}{topic_id}{topic}/{start}",
            "{topic}-{partition}-{topic}/{topic_id}{start}",
        ] {
            refused("kafka", text, "does not tell where {topic} ends");
        }
        refused("kafka", "{path}/{start}", "{path}: this source has nothing of that kind");
    }

    #[test]
    fn names_of_files_tell_everything_apart() {
        for text in
            ["x/", "{path}/{start}", "a/{path}/b/part-{start}-of", "{source}/{path}/", "{path}/x-{start}"]
        {
            fine("file", text);
        }
        fine("http", "x/{name}/{start}");
        refused("file", "{start}", "expected {path} and {start} in it, or a slash at the end");
        refused("file", "{path}/x", "expected {path} and {start} in it, or a slash at the end");
        refused("file", "{path}/{path}/{start}", "has a field twice");
        refused("file", "a-{path}/{start}", "expected {path} between two slashes");
        refused("file", "{path}{start}", "expected {path} between two slashes");
        refused("file", "{start}/{path}/x", "expected {start} behind the last slash");
        refused("file", "{start}/", "expected {start} behind the last slash");
        refused("file", "{name}/{start}", "nothing of that kind");
        refused("file", "{topic}/", "nothing of that kind; expected text and {source}, {path}, {start}");
    }

    /// Invariant 2: names come from positions and data, never from a clock.
    #[test]
    fn where_records_have_no_time_there_are_no_dates() {
        for text in ["hive", "{year}/", "{minute}/{path}/{start}"] {
            refused("file", text, "records of this source have no time, and no clock may name");
        }
        refused("http", "hive", "have no time");
    }
}
