//! Settings become the validated configuration, once: [`resolve`].

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use super::key::{Default as KeyDefault, KEYS, Key, Wrong};
use super::setting::{Origin, Setting, Value};
use super::{Config, Log, Place, SourceKind, Status, place, unit};
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
            && let Err(wrong) = (it.key.set)(&mut draft, value)
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
        Wrong::Expected => format!("{place}: expected {}, not {value}", it.key.expected),
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
}

/// `s3.bucket` is the same as an output `s3://BUCKET`, and of both the stronger one counts: the output `s3:` goes to
/// `s3.bucket`, and a bucket that is named above another output takes its place, prefix and all. Two in one layer
/// contradict each other.
fn bucket(config: &mut Config, values: &mut [Effective]) -> Option<String> {
    let set = |path: &str| find(values, path).filter(|it| it.origin != Origin::Default);
    let (output, named) = (set("processing.output"), set("s3.bucket"));
    let ours = || Place::S3 {
        bucket: config.s3.bucket.clone().unwrap_or_default(),
        prefix: config.s3.prefix.clone(),
    };
    let two = |output: &Effective, named: &Effective, what: &str| {
        let (output, named) = (output.origin.locate(output.key), named.origin.locate(named.key));
        Some(format!("{output} and {named} name two {what}; expected one of them"))
    };
    let to = match (&config.output.to, output, named) {
        (Place::S3 { bucket, prefix }, _, named) if bucket.is_empty() => match named {
            Some(_) if prefix.is_empty() => ours(),
            _ => return Some("the output s3: names no bucket; expected s3://BUCKET or s3.bucket".into()),
        },
        (Place::S3 { bucket, prefix }, Some(output), named) => {
            let other = named.zip(config.s3.bucket.as_ref()).filter(|(_, other)| *other != bucket);
            match other
                .map(|(named, other)| (strength(&named.origin).cmp(&strength(&output.origin)), named, other))
            {
                Some((Ordering::Greater, ..)) => ours(),
                Some((Ordering::Equal, named, other)) => {
                    return two(output, named, &format!("buckets, {bucket} and {other}"));
                }
                Some((Ordering::Less, ..)) | None => match prefix_of(prefix, output, set("s3.prefix")) {
                    Prefix::Stays => return None,
                    Prefix::Is => Place::S3 { bucket: bucket.clone(), prefix: config.s3.prefix.clone() },
                    Prefix::Differs(_) if *prefix == config.s3.prefix => return None,
                    Prefix::Differs(named) => return two(output, named, "prefixes"),
                },
            }
        }
        (_, None, Some(_)) => ours(),
        (_, Some(output), Some(named)) if named.origin.rank() > output.origin.rank() => ours(),
        (_, Some(output), Some(named)) if matches!(named.origin, Origin::Flag(_)) => {
            return two(output, named, "outputs");
        }
        _ => return None,
    };
    if let Place::S3 { bucket, prefix } = &to
        && let Some(it) = values.iter_mut().find(|it| it.key.path() == "processing.output")
    {
        it.value = Some(Value::Text(format!("s3://{bucket}/{prefix}")));
        config.output.to = to;
    }
    None
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
mod tests {
    use super::*;
    use crate::config::kafka::{Compression, From, Until};
    use crate::config::setting::parse_set;
    use crate::config::{LettersTo, MaxRejected, StateAt};

    fn set(pairs: &[&str]) -> Result<Resolved, Vec<String>> {
        resolve(pairs.iter().map(|pair| parse_set(pair).unwrap()).collect())
    }

    #[track_caller]
    fn wrong(pair: &str, expected: &str) {
        assert_eq!(set(&[pair]).unwrap_err(), [format!("--set {expected}")]);
    }

    #[test]
    fn the_table_has_the_defaults_of_the_types() {
        let mut draft = Draft::default();
        for key in KEYS {
            if let KeyDefault::Is(text) = key.default {
                let set = (key.set)(&mut draft, &key.read(text));
                assert!(set.is_ok(), "{}", key.path());
            }
        }
        assert_eq!(draft.config, Config::default());
        assert_eq!(draft.log, Log::default());
    }

    #[test]
    fn every_example_is_a_value() {
        for key in KEYS {
            if let KeyDefault::Absent(text, _) = key.default {
                let set = (key.set)(&mut Draft::default(), &key.read(text));
                assert!(set.is_ok(), "{}", key.path());
            }
        }
    }

    #[test]
    fn values_reach_the_configuration() {
        let it = set(&[
            "processing.workers=3",
            "processing.max_rejected=2.5%",
            "processing.shard=1/4",
            "processing.state=none",
            "processing.output=x.json.gz",
            "input.files=[\"a\", \"b\"]",
        ])
        .unwrap()
        .config;
        assert_eq!(it.processing.workers.get(), 3);
        assert_eq!(it.processing.memory_limit, 48 << 20);
        assert_eq!(it.processing.max_rejected, Some(MaxRejected::Percent(2.5)));
        assert_eq!(it.processing.shard, Some((1, 4)));
        assert_eq!(it.processing.state, StateAt::None);
        assert_eq!(it.output.codec, Codec::Gzip(1));
        assert_eq!(it.input.files, ["a", "b"]);
    }

    #[test]
    fn the_memory_limit_follows_the_workers() {
        assert_eq!(set(&["processing.workers=8"]).unwrap().config.processing.memory_limit, 64 << 20);
        let both = ["processing.workers=8", "processing.memory_limit=16MiB"];
        assert_eq!(set(&both).unwrap().config.processing.memory_limit, 16 << 20);
    }

    #[test]
    fn wrong_values_say_what_was_expected() {
        wrong(
            "processing.workers=0",
            "processing.workers: expected a whole number from 1 to 1024, not \"0\"",
        );
        wrong(
            "processing.batch_size=-1",
            "processing.batch_size: expected a whole number of records, 0 or more (0: no limit by count), not \"-1\"",
        );
        wrong(
            "processing.batch_wait=5",
            "processing.batch_wait: expected a duration like 500ms, 30s, 5m or 2h, not \"5\"",
        );
        wrong(
            "processing.source=s3",
            "processing.source: s3 cannot be read from; expected file (files, directories and -), kafka or http",
        );
        wrong(
            "kafka.sasl.password=",
            "kafka.sasl.password: expected env:NAME, file:PATH or the password itself, not \"\"",
        );
        wrong(
            "kafka.source.session_timeout=500ms",
            "kafka.source.session_timeout: expected a duration from 1s to 30m, not \"500ms\"",
        );
        wrong(
            "kafka.source.until=tomorrow",
            "kafka.source.until: expected end, forever or a time like 2026-11-23T12:00:00Z or 2026-11-23, not \"tomorrow\"",
        );
        wrong("kafka.sink.acks=1", "kafka.sink.acks: 1 may lose records that count as stored; expected all");
    }

    #[test]
    fn every_key_refuses_nonsense() {
        let takes_anything = [
            "processing.output",
            "processing.state",
            "processing.processed_by",
            "output.dead_letter",
            "status.metrics_file",
            "kafka.client_id",
            "kafka.tls.ca",
            "kafka.tls.cert",
            "kafka.tls.key",
            "kafka.sasl.username",
            "kafka.sasl.password",
            "s3.ca",
            "s3.profile",
            "s3.secret_access_key",
            "s3.session_token",
            "http.body",
            "http.since_param",
            "http.tls.ca",
            "http.tls.cert",
            "http.tls.key",
            "http.auth.bearer",
            "http.auth.username",
            "http.auth.password",
            "http.auth.value",
            "http.auth.client_id",
            "http.auth.client_secret",
            "http.auth.scope",
            "http.pagination.page_param",
            "http.pagination.size_param",
            "http.pagination.offset_param",
            "http.pagination.limit_param",
            "http.pagination.cursor_param",
        ];
        for key in KEYS {
            for nonsense in ["", "\u{0}?"] {
                if nonsense.is_empty()
                    || !(takes_anything.contains(&key.path().as_str())
                        || key.shape == super::super::key::Shape::List)
                {
                    let problem = set(&[&format!("{}={nonsense}", key.path())]).unwrap_err();
                    assert!(problem[0].contains("expected "), "{problem:?}");
                }
            }
        }
    }

    #[test]
    fn a_bucket_that_is_named_is_the_output() {
        let layer = |path: &str, text: &str, origin: Origin| {
            let key = super::super::key::find(path).unwrap();
            Setting { key, value: key.read(text), origin }
        };
        let (flag, env) = (|| Origin::Flag("-x".into()), || Origin::Env("X".into()));
        let to = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.output.to);
        let s3 = |bucket: &str, prefix: &str| Ok(Place::S3 { bucket: bucket.into(), prefix: prefix.into() });
        let (output, bucket, prefix) = ("processing.output", "s3.bucket", "s3.prefix");
        assert_eq!(to(vec![layer(bucket, "abc", env())]), s3("abc", ""));
        assert_eq!(to(vec![layer(bucket, "abc", env()), layer(prefix, "p", env())]), s3("abc", "p/"));
        assert_eq!(to(vec![layer(output, "s3:", env()), layer(bucket, "abc", env())]), s3("abc", ""));
        let dir = Ok(Place::Dir("d".into()));
        assert_eq!(to(vec![layer(bucket, "abc", env()), layer(output, "d", flag())]), dir);
        assert_eq!(
            to(vec![layer(bucket, "abc", env()), layer(output, "s3://xyz/p", flag())]),
            s3("xyz", "p/")
        );
        assert_eq!(to(vec![layer(output, "d", env()), layer(bucket, "abc", flag())]), s3("abc", ""));
        let both = to(vec![layer(output, "d", flag()), layer(bucket, "abc", flag())]).unwrap_err();
        assert_eq!(both, ["-x and -x name two outputs; expected one of them"]);
        let both = to(vec![layer(output, "s3://xyz", flag()), layer(bucket, "abc", flag())]).unwrap_err();
        assert_eq!(both, ["-x and -x name two buckets, xyz and abc; expected one of them"]);
        assert!(to(vec![layer(output, "s3:", flag())]).is_err());
        let in_file = |line| Origin::File { path: "p.toml".into(), line, column: 1 };
        let weak = || layer(output, "s3://weak/x", in_file(1));
        assert_eq!(to(vec![weak(), layer(bucket, "abc", flag())]), s3("abc", ""));
        assert_eq!(to(vec![weak(), layer(bucket, "abc", env())]), s3("abc", ""));
        let prefixed = vec![weak(), layer(prefix, "p", in_file(2)), layer(bucket, "abc", env())];
        assert_eq!(to(prefixed), s3("abc", "p/"));
        assert_eq!(to(vec![weak(), layer(bucket, "weak", flag())]), s3("weak", "x/"), "it says nothing new");
        let both = to(vec![weak(), layer(bucket, "abc", in_file(2))]).unwrap_err();
        let (one, other) = ("p.toml:1:1: processing.output", "p.toml:2:1: s3.bucket");
        assert_eq!(both, [format!("{one} and {other} name two buckets, weak and abc; expected one of them")]);
        let common = || layer(bucket, "abc", Origin::Env("S3_BUCKET".into()));
        assert_eq!(to(vec![common(), layer(output, "s3://xyz", env())]), s3("xyz", ""));
        let shown = resolve(vec![weak(), common()]).unwrap();
        assert_eq!(find(&shown.values, output).unwrap().value, Some(Value::Text("s3://abc/".into())));
    }

    #[test]
    fn a_prefix_is_used_or_refused() {
        let layer = |path: &str, text: &str, origin: Origin| {
            let key = super::super::key::find(path).unwrap();
            Setting { key, value: key.read(text), origin }
        };
        let (flag, env) = (|| Origin::Flag("-o".into()), || Origin::Env("X".into()));
        let to = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.output.to);
        let s3 = |prefix: &str| Ok(Place::S3 { bucket: "abc".into(), prefix: prefix.into() });
        let output = |text: &str, origin: Origin| layer("processing.output", text, origin);
        let prefix = |origin: Origin| layer("s3.prefix", "pre", origin);
        assert_eq!(to(vec![prefix(Origin::Set), output("s3://abc", flag())]), s3("pre/"));
        assert_eq!(to(vec![output("s3://abc/x", env()), prefix(Origin::Set)]), s3("pre/"));
        assert_eq!(to(vec![prefix(env()), output("s3://abc", flag())]), s3(""), "for another bucket");
        assert_eq!(to(vec![prefix(Origin::Set), output("s3://abc/pre", flag())]), s3("pre/"));
        let both = to(vec![prefix(Origin::Set), output("s3://abc/x", flag())]).unwrap_err();
        assert_eq!(both, ["-o and --set s3.prefix name two prefixes; expected one of them"]);
    }

    #[test]
    fn memory_grows_with_the_parts_of_objects() {
        let it = set(&["processing.workers=2", "s3.bucket=abc"]).unwrap().config;
        assert_eq!(it.processing.memory_limit, (48 + 2 * 4 * 8) << 20);
        assert_eq!(it.batch_wait(), std::time::Duration::from_secs(300));
    }

    #[test]
    fn kafka_is_configured() {
        let it = set(&[
            "kafka.brokers=a:1, b ,a:1",
            "kafka.source.topics=[\"x\", \"y,z\"]",
            "kafka.source.from=2026-11-23",
            "kafka.source.until=end",
            "kafka.sink.topic=named",
            "kafka.sink.compression=zstd:3",
            "processing.output=kafka:",
            "output.dead_letter=kafka:bad",
        ])
        .unwrap()
        .config;
        assert_eq!(it.input.source, SourceKind::Kafka);
        assert_eq!(it.kafka.brokers, ["a:1", "b"]);
        assert_eq!(it.kafka.source.topics, ["x", "y", "z"]);
        assert_eq!(it.kafka.source.from, From::Time(1_795_392_000_000));
        assert_eq!(it.kafka.source.until, Until::End);
        assert_eq!((it.kafka.sink.compression, it.kafka.sink.level), (Compression::Zstd, Some(3)));
        assert_eq!(it.output.to, Place::Kafka("named".into()));
        assert_eq!(it.output.dead_letter, Some(LettersTo::Kafka("bad".into())));
        assert_eq!(it.processing.memory_limit, 256 << 20);
        let problem = set(&["processing.output=kafka:"]).unwrap_err();
        assert!(problem[0].contains("expected kafka:TOPIC or kafka.sink.topic"), "{problem:?}");
    }

    #[test]
    fn the_source_is_what_is_named() {
        let layer = |path: &str, origin: Origin| {
            let key = super::super::key::find(path).unwrap();
            Setting { key, value: key.read(if path.ends_with("source") { "file" } else { "x" }), origin }
        };
        let file = || Origin::File { path: "p.toml".into(), line: 1, column: 1 };
        let flag = || Origin::Flag("-x".into());
        let (files, topics) = ("input.files", "kafka.source.topics");
        let source = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.input.source);
        assert_eq!(source(vec![]), Ok(SourceKind::File));
        assert_eq!(source(vec![layer(topics, file())]), Ok(SourceKind::Kafka));
        assert_eq!(source(vec![layer(topics, file()), layer(files, flag())]), Ok(SourceKind::File));
        assert_eq!(source(vec![layer(files, file()), layer(topics, flag())]), Ok(SourceKind::Kafka));
        assert!(source(vec![layer(files, file()), layer(topics, file())]).is_err());
        assert!(source(vec![layer(files, flag()), layer(topics, flag())]).is_err());
        let by_file = || layer("processing.source", file());
        assert_eq!(
            source(vec![by_file(), layer(topics, file()), layer(files, file())]),
            Ok(SourceKind::File)
        );
        assert!(source(vec![by_file(), layer(topics, flag())]).is_err());
        assert_eq!(
            source(vec![layer(files, file()), layer("kafka.source.group", flag())]).unwrap_err(),
            ["-x: the source is file (by default); expected it with -s kafka only"]
        );
    }

    #[test]
    fn all_problems_are_told_and_overruled_ones_are_not() {
        assert_eq!(
            set(&["processing.workers=0", "log.level=x", "output.compress=lz4"]).unwrap_err().len(),
            3
        );
        assert!(set(&["processing.workers=0", "processing.workers=1"]).is_ok());
    }
}
