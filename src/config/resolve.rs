//! Settings become the validated configuration, once: [`resolve`].

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use super::key::{Default as KeyDefault, KEYS, Key, Wrong};
use super::setting::{Origin, Setting, Value};
use super::{Config, Log, OnReject, Place, SourceKind, Status, mask, place, unit};
use crate::codec::Codec;

/// What the settings have said so far. What depends on several of them is decided at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) log: Log,
    pub(super) status: Status,
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) memory_limit: Option<usize>,
    pub(super) codec: Option<Codec>,
    pub(super) source: Option<SourceKind>,
}

/// The configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Checked, with every default filled in.
    pub config: Config,
    /// What is logged and how.
    pub log: Log,
    /// How the run can be watched.
    pub status: Status,
    /// Every key in the order of [`KEYS`].
    pub values: Vec<Effective>,
}

/// What a key came to.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Which key.
    pub key: &'static Key,
    /// Its value; `None` where nobody set it and it has none by default.
    pub value: Option<Value>,
    /// Where the value came from.
    pub origin: Origin,
}

impl Resolved {
    /// Where the value of `section.name` came from.
    pub fn origin(&self, path: &str) -> &Origin {
        find(&self.values, path).map_or(&Origin::Default, |it| &it.origin)
    }
}

/// Lays `settings` over the defaults, the later ones over the earlier ones.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn resolve(settings: Vec<Setting>) -> Result<Resolved, Vec<String>> {
    let mut draft = Draft::default();
    let mut problems = Vec::new();
    let mut values: Vec<Effective> = KEYS.iter().map(|key| effective(key, &settings)).collect();
    for it in values.iter().filter(|it| it.origin != Origin::Default) {
        if let Some(value) = &it.value
            && let Err(wrong) = mask::is_itself(it.key, value).and_then(|()| (it.key.set)(&mut draft, value))
        {
            problems.push(explain(it, value, wrong));
        }
    }
    finish(&mut draft, &mut values, &mut problems);
    if problems.is_empty() {
        Ok(Resolved { config: draft.config, log: draft.log, status: draft.status, values })
    } else {
        Err(problems)
    }
}

fn find<'a>(values: &'a [Effective], path: &str) -> Option<&'a Effective> {
    values.iter().find(|it| it.key.path() == path)
}

/// The last setting of a key is the one that counts. One that is overruled is not even checked: what it said
/// does not matter to this run.
fn effective(key: &'static Key, settings: &[Setting]) -> Effective {
    let set = settings.iter().rev().find(|setting| std::ptr::eq(setting.key, key));
    match (set, key.default) {
        (Some(setting), _) => {
            Effective { key, value: Some(setting.value.clone()), origin: setting.origin.clone() }
        }
        (None, KeyDefault::Is(text)) => {
            Effective { key, value: Some(key.read(text)), origin: Origin::Default }
        }
        (None, KeyDefault::Absent(..)) => Effective { key, value: None, origin: Origin::Default },
    }
}

fn explain(it: &Effective, value: &Value, wrong: Wrong) -> String {
    let place = it.origin.locate(it.key);
    match wrong {
        Wrong::Expected => match mask::told(it.key, value) {
            Some(value) => format!("{place}: expected {}, not {value}", it.key.expected),
            None => format!("{place}: expected {}", it.key.expected),
        },
        Wrong::Because(reason) => format!("{place}: {reason}"),
    }
}

/// Fills in what depends on other values or on the machine.
fn finish(draft: &mut Draft, values: &mut [Effective], problems: &mut Vec<String>) {
    match source(draft.source, values) {
        Ok(source) => draft.config.input.source = source,
        Err(problem) => problems.push(problem),
    }
    let config = &mut draft.config;
    let source = config.input.source;
    if source != SourceKind::File {
        // Those of a weaker layer: they are for runs that read files.
        config.input.files.clear();
    }
    if let Some(workers) = draft.workers {
        config.processing.workers = workers;
    }
    let workers = config.processing.workers;
    problems.extend(bucket(config, values));
    config.processing.memory_limit = draft.memory_limit.unwrap_or(config.default_memory());
    problems.extend(unnamed_topic(config));
    match place::codec(&config.output.to, draft.codec) {
        Ok(codec) => config.output.codec = codec,
        Err(problem) => problems.push(problem),
    }
    computed(values, "processing.source", source_name(source).into());
    computed(values, "processing.workers", workers.to_string());
    computed(values, "processing.memory_limit", unit::show_size(config.processing.memory_limit as u64));
    if !matches!(config.output.to, Place::Kafka(_)) {
        computed(values, "output.compress", place::show_codec(config.output.codec));
    }
    if problems.is_empty() {
        problems.extend(useless(config, values));
    }
}

/// `s3.bucket` is the same as an output `s3://BUCKET`, and of both the stronger one counts: the output `s3:` goes to
/// `s3.bucket`, and a bucket that is named above another output takes its place, prefix and all. Two in one layer
/// contradict each other. What is overruled is not shown: fed back, all of it would stand in one layer.
fn bucket(config: &mut Config, values: &mut [Effective]) -> Option<String> {
    let (to, origin) = match bucket_of(config, values) {
        Ok(found) => found?,
        Err(problem) => return Some(problem),
    };
    let Place::S3 { bucket, prefix } = &to else { return None };
    for it in values {
        match it.key.path().as_str() {
            "processing.output" if config.output.to != to => {
                it.value = Some(Value::Text(format!("s3://{bucket}/{prefix}")));
                it.origin = origin.clone();
            }
            "s3.bucket" if config.s3.bucket.as_ref().is_some_and(|other| other != bucket) => {
                config.s3.bucket = None;
                (it.value, it.origin) = (None, Origin::Default);
            }
            "s3.prefix" if config.s3.prefix != *prefix => {
                config.s3.prefix.clear();
                (it.value, it.origin) = (None, Origin::Default);
            }
            _ => {}
        }
    }
    config.output.to = to;
    None
}

/// The output, if it is a bucket, and who says so.
fn bucket_of(config: &Config, values: &[Effective]) -> Result<Option<(Place, Origin)>, String> {
    let set = |path: &str| find(values, path).filter(|it| it.origin != Origin::Default);
    let (output, named) = (set("processing.output"), set("s3.bucket"));
    let ours = |by: &Effective| {
        let (bucket, prefix) = (config.s3.bucket.clone().unwrap_or_default(), config.s3.prefix.clone());
        Ok(Some((Place::S3 { bucket, prefix }, by.origin.clone())))
    };
    let two = |output: &Effective, named: &Effective, what: &str| {
        let (output, named) = (output.origin.locate(output.key), named.origin.locate(named.key));
        Err(format!("{output} and {named} name two {what}; expected one of them"))
    };
    let (bucket, prefix, output) = match (&config.output.to, output, named) {
        (Place::S3 { bucket, prefix }, Some(output), Some(_)) if bucket.is_empty() && prefix.is_empty() => {
            return ours(output);
        }
        (Place::S3 { bucket, .. }, ..) if bucket.is_empty() => {
            return Err("the output s3: names no bucket; expected s3://BUCKET or s3.bucket".into());
        }
        (Place::S3 { bucket, prefix }, Some(output), _) => (bucket, prefix, output),
        (_, None, Some(named)) => return ours(named),
        (_, Some(output), Some(named)) if named.origin.rank() > output.origin.rank() => return ours(named),
        (_, Some(output), Some(named)) if matches!(named.origin, Origin::Flag(_)) => {
            return two(output, named, "outputs");
        }
        _ => return Ok(None),
    };
    if let Some((named, other)) = named.zip(config.s3.bucket.as_ref()).filter(|(_, other)| *other != bucket) {
        match strength(&named.origin).cmp(&strength(&output.origin)) {
            Ordering::Greater => return ours(named),
            Ordering::Equal => return two(output, named, &format!("buckets, {bucket} and {other}")),
            Ordering::Less => {}
        }
    }
    let prefix = match prefix_of(prefix, output, set("s3.prefix")) {
        Prefix::Is => &config.s3.prefix,
        Prefix::Differs(named) if *prefix != config.s3.prefix => return two(output, named, "prefixes"),
        Prefix::Differs(_) | Prefix::Stays => prefix,
    };
    Ok(Some((Place::S3 { bucket: bucket.clone(), prefix: prefix.clone() }, output.origin.clone())))
}

/// `S3_BUCKET` is for every program here, and stands below what names this one.
fn strength(origin: &Origin) -> (u8, bool) {
    (origin.rank(), !matches!(origin, Origin::Env(name) if name == "S3_BUCKET"))
}

/// What `s3.prefix` is to an output that names its bucket.
enum Prefix<'a> {
    /// It is for another output, or there is none.
    Stays,
    /// Objects go there.
    Is,
    /// The output names its own in the same layer.
    Differs(&'a Effective),
}

/// The prefix of a weaker layer is for the bucket there. The command line is one layer: there is no flag for a prefix.
fn prefix_of<'a>(own: &str, output: &Effective, named: Option<&'a Effective>) -> Prefix<'a> {
    let layer = |it: &Effective| it.origin.rank().min(Origin::Set.rank());
    match named.map(|named| (layer(named).cmp(&layer(output)), named)) {
        None | Some((Ordering::Less, _)) => Prefix::Stays,
        Some((Ordering::Equal, named)) if !own.is_empty() => Prefix::Differs(named),
        Some((Ordering::Equal | Ordering::Greater, _)) => Prefix::Is,
    }
}

/// The output `kafka:` goes to `kafka.sink.topic`.
fn unnamed_topic(config: &mut Config) -> Option<String> {
    let Place::Kafka(topic) = &mut config.output.to else { return None };
    if topic.is_empty() {
        match &config.kafka.sink.topic {
            Some(named) => topic.clone_from(named),
            None => {
                return Some(
                    "the output kafka: names no topic; expected kafka:TOPIC or kafka.sink.topic".into(),
                );
            }
        }
    }
    None
}

/// What each source reads, and the keys that only it has a use for.
const SOURCES: [(SourceKind, &str, &str, &[&str]); 3] = [
    (SourceKind::File, "file", "files", &["input.files"]),
    (
        SourceKind::Kafka,
        "kafka",
        "topics",
        &["kafka.source.topics", "kafka.source.group", "kafka.source.from", "kafka.source.until"],
    ),
    (SourceKind::Http, "http", "URLs", &["http.urls"]),
];

/// What is read. Whoever says `source` decides; else what is named does, files, topics or URLs, and of several that
/// which is named in the strongest layer: flags before `--set` before the environment before the file. Flags that
/// the source has no use for are mistakes; in weaker layers they are for other runs with the same settings.
fn source(asked: Option<SourceKind>, values: &[Effective]) -> Result<SourceKind, String> {
    let set = |path: &str| find(values, path).filter(|it| it.origin != Origin::Default);
    let by = set("processing.source");
    let rank = |it: Option<&Effective>| it.map_or(0, |it| it.origin.rank());
    let named = || SOURCES.iter().map(|source| (source, rank(set(source.3[0]))));
    let strongest = named().map(|(_, rank)| rank).max().unwrap_or(0);
    let source = match asked {
        Some(source) => source,
        None if strongest == 0 => SourceKind::File,
        None => {
            let all: Vec<_> = named().filter(|(_, rank)| *rank == strongest).map(|(it, _)| it).collect();
            if let [one, other, ..] = all[..] {
                return Err(format!(
                    "{} and {} are named; expected one of them, or -s {} or -s {}",
                    one.2, other.2, one.1, other.1
                ));
            }
            all[0].0
        }
    };
    let others = SOURCES.iter().filter(|(kind, ..)| *kind != source);
    let is_mistake = |it: &&Effective| {
        matches!(it.origin, Origin::Flag(_)) || (by.is_some() && it.origin.rank() > rank(by))
    };
    let useless = others.flat_map(|other| other.3.iter().map(move |path| (other, path)));
    let found = useless.filter_map(|(other, path)| Some((other, set(path)?)));
    let Some((other, mistake)) = found.into_iter().find(|(_, it)| is_mistake(it)) else {
        return Ok(source);
    };
    let place = mistake.origin.locate(mistake.key);
    let because = by.map_or_else(|| "by default".into(), |it| it.origin.to_string());
    let name = source_name(source);
    Err(match source {
        SourceKind::Kafka if other.0 == SourceKind::File => {
            format!("{place}: the source is kafka ({because}); expected topics (-t), no files")
        }
        SourceKind::Http if other.0 == SourceKind::File => {
            format!("{place}: the source is http ({because}); expected endpoints (--url), no files")
        }
        _ => format!("{place}: the source is {name} ({because}); expected it with -s {} only", other.1),
    })
}

/// Flags that nothing uses are mistakes, as those of another source are; in weaker layers they are for other runs.
fn useless(config: &Config, values: &[Effective]) -> Vec<String> {
    let flag = |path: &str| find(values, path).filter(|it| matches!(it.origin, Origin::Flag(_)));
    let brokers = flag("kafka.brokers").filter(|_| !config.uses_kafka()).map(|it| {
        let place = it.origin.locate(it.key);
        format!(
            "{place}: Kafka is neither read nor written; expected it with -t, -o kafka:TOPIC or another topic"
        )
    });
    let keeps = config.processing.on_reject == OnReject::DeadLetter;
    let rule = find(values, "processing.on_reject").filter(|_| !keeps);
    let letters = rule.zip(find(values, "output.dead_letter")).and_then(|(rule, it)| {
        let is_mistake = matches!(it.origin, Origin::Flag(_)) || it.origin.rank() > rule.origin.rank();
        let (place, by) = (it.origin.locate(it.key), rule.origin.locate(rule.key));
        is_mistake.then(|| {
            format!("{place}: nothing would ever be written there; expected processing.on_reject = dead-letter ({by})")
        })
    });
    brokers.into_iter().chain(letters).collect()
}

/// As `processing.source` is written.
fn source_name(source: SourceKind) -> &'static str {
    SOURCES.iter().find(|(kind, ..)| *kind == source).map_or("file", |it| it.1)
}

/// Shows what a value came to that nobody set.
fn computed(values: &mut [Effective], path: &str, text: String) {
    if let Some(it) = values.iter_mut().find(|it| it.key.path() == path && it.value.is_none()) {
        it.value = Some(Value::Text(text));
    }
}

#[cfg(test)]
mod tests;
