//! Which kind of place an output names: a directory, a file or stdout, and how it is compressed.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{LettersTo, Place};
use crate::codec::Codec;

const NAMES: [&str; 4] = [".ndjson", ".jsonl", ".json", ".txt"];

/// Names of files of other kinds end like this. Whoever gives one wants a file, not a directory of that name.
const OTHERS: [&str; 15] = [
    ".arrow", ".avro", ".bz2", ".csv", ".gz", ".log", ".orc", ".parquet", ".tsv", ".xml", ".xz", ".yaml",
    ".yml", ".zip", ".zst",
];

/// What is expected of an output.
pub const EXPECTED: &str = "a directory, a file (.ndjson, .jsonl, .json or .txt, with .gz or .zst), s3://BUCKET[/PREFIX], kafka:TOPIC or - (stdout)";

/// What a name of a topic stands behind.
const KAFKA: &str = "kafka:";
/// What a bucket stands behind.
const S3: &str = "s3:";

/// The place that `text` names. Looks at the file system only for what exists already: a device, a FIFO or a
/// directory is what it is, whatever its name.
///
/// # Errors
/// One sentence on what was expected.
pub fn parse(text: &str) -> Result<Place, String> {
    if text.is_empty() {
        return Err(format!("expected {EXPECTED}, not an empty name"));
    }
    if text == "-" {
        return Ok(Place::Stdout);
    }
    if let Some(topic) = topic(text)? {
        return Ok(Place::Kafka(topic));
    }
    if let Some(rest) = text.strip_prefix(S3) {
        return bucket(rest.strip_prefix("//").unwrap_or(rest));
    }
    if let Some(kind) = foreign(text) {
        return Err(format!("nothing is written to {kind}; expected {EXPECTED}"));
    }
    is_expanded(text)?;
    let path = PathBuf::from(text);
    match fs::metadata(&path).map(|found| found.file_type()) {
        Ok(kind) if kind.is_dir() => Ok(Place::Dir(path)),
        Ok(kind) if is_stream(kind) => Ok(Place::File(path)),
        Ok(_) if extension(text).is_none() => {
            Err(format!("{text} is a file and its name is not one of an output file; expected {EXPECTED}"))
        }
        _ if extension(text).is_some() => Ok(Place::File(path)),
        Err(_) if is_other(text) => Err(format!(
            "{text} looks like a file, and only files with JSON lines are written; expected {EXPECTED}; a directory of \
             that name: {text}/"
        )),
        _ => Ok(Place::Dir(path)),
    }
}

/// The place for rejected records that `text` names.
///
/// # Errors
/// One sentence on what was expected.
pub fn parse_letters(text: &str) -> Result<LettersTo, String> {
    const EXPECTED: &str = "expected a directory or kafka:TOPIC";
    if text.trim().is_empty() || text == "-" {
        return Err(format!("{EXPECTED}, not {text:?}"));
    }
    match (topic(text)?, foreign(text)) {
        (Some(topic), _) if topic.is_empty() => Err(format!("{EXPECTED}, not {text:?}")),
        (Some(topic), _) => Ok(LettersTo::Kafka(topic)),
        (None, Some(kind)) => Err(format!("dead letters are not written to {kind}; {EXPECTED}")),
        (None, None) => is_expanded(text).map(|()| LettersTo::Dir(text.into())),
    }
}

/// Refuses a path that begins with `~`: shells put somebody's home there, but not behind `--output=`, nor in quotes, and
/// here nobody does. A directory of that name is what no one wants to remove.
pub fn is_expanded(text: &str) -> Result<(), String> {
    match text.split('/').next() {
        Some("~") => Err(format!(
            "~ in {text} means nothing here, and the shell has not replaced it; expected the whole path, or ./{text} \
             if that is its name"
        )),
        _ => Ok(()),
    }
}

/// The place of `BUCKET/PREFIX`; the bucket is empty where none is named.
fn bucket(text: &str) -> Result<Place, String> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    #[cfg(feature = "s3")]
    if !text.is_empty() {
        crate::s3::check_bucket(bucket)?;
    }
    Ok(Place::S3 { bucket: bucket.to_owned(), prefix: super::s3::prefix(prefix)? })
}

/// The topic of `kafka:TOPIC`; empty where it names none.
fn topic(text: &str) -> Result<Option<String>, String> {
    match text.strip_prefix(KAFKA) {
        None => Ok(None),
        // `kafka://host/topic` is how others write it: our brokers stand elsewhere.
        Some(rest) if rest.starts_with("//") => {
            Err("expected kafka:TOPIC, and the brokers in --brokers".into())
        }
        Some("") => Ok(Some(String::new())),
        Some(name) => super::kafka::check_name("topic", name).map(|()| Some(name.to_owned())),
    }
}

/// Whether this is the name of a file of another kind, or of one of ours in capitals; `.gz` alone is none.
fn is_other(text: &str) -> bool {
    let name = text.rsplit('/').next().unwrap_or(text).to_ascii_lowercase();
    OTHERS.iter().chain(&NAMES).any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

fn is_stream(kind: fs::FileType) -> bool {
    kind.is_char_device() || kind.is_block_device() || kind.is_fifo()
}

/// `s3` of `s3://bucket`, `kafka` of `kafka:topic`: places that are no path.
pub fn foreign(text: &str) -> Option<&str> {
    if let Some(kind) = [KAFKA, S3].into_iter().find(|kind| text.starts_with(kind)) {
        return Some(kind.trim_end_matches(':'));
    }
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
    is_scheme.then_some(scheme)
}

/// The compression extension of a name that means a file: `""`, `".gz"`, `".zst"`.
fn extension(text: &str) -> Option<&'static str> {
    [".gz", ".zst", ""].into_iter().find(|compressed| {
        text.strip_suffix(compressed).is_some_and(|name| {
            let name = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
            !text.ends_with('/') && NAMES.iter().any(|end| name.ends_with(end) && name.len() > end.len())
        })
    })
}

/// How an output is compressed: as asked for, else as its name says.
///
/// # Errors
/// The name says one thing and the setting another.
pub fn codec(to: &Place, asked: Option<Codec>) -> Result<Codec, String> {
    let path = match (to, asked) {
        (Place::File(path), _) => path,
        (Place::Kafka(_), Some(Codec::Gzip(_) | Codec::Zstd(_))) => {
            return Err("messages to Kafka are compressed by kafka.sink.compression: set that one".into());
        }
        _ => return Ok(asked.unwrap_or_default()),
    };
    let text = path.to_string_lossy();
    let Some(named) = extension(&text) else { return Ok(asked.unwrap_or_default()) };
    let by_name = match named {
        ".gz" => Codec::Gzip(1),
        ".zst" => Codec::Zstd(1),
        _ => Codec::None,
    };
    match asked {
        None => Ok(by_name),
        Some(asked) if asked.extension() == named => Ok(asked),
        Some(asked) => Err(format!(
            "the output {text} is named {} and the compression asked for is {}; expected a name that ends in {}",
            name_of(by_name),
            name_of(asked),
            match asked.extension() {
                "" => "no .gz or .zst",
                other => other,
            }
        )),
    }
}

/// `none`, `gzip:1`, `zstd:3`: what `--compress` takes.
pub fn show_codec(codec: Codec) -> String {
    match codec {
        Codec::None => "none".into(),
        Codec::Gzip(level) => format!("gzip:{level}"),
        Codec::Zstd(level) => format!("zstd:{level}"),
    }
}

fn name_of(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "uncompressed",
        Codec::Gzip(_) => "gzip",
        Codec::Zstd(_) => "zstd",
    }
}

/// Reads `none`, `gzip`, `zstd`, each with `:LEVEL` where it has levels; level 1 unless told otherwise.
pub fn parse_codec(text: &str) -> Option<Codec> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse::<i32>().ok()?)),
        None => (text, None),
    };
    match (name, level) {
        ("none", None) => Some(Codec::None),
        ("gzip" | "gz", level) => {
            u32::try_from(level.unwrap_or(1)).ok().filter(|level| *level <= 9).map(Codec::Gzip)
        }
        ("zstd" | "zst", level) => {
            Some(level.unwrap_or(1)).filter(|level| (-7..=19).contains(level)).map(Codec::Zstd)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn file(text: &str, expected: Codec) {
        let to = parse(text).unwrap();
        assert_eq!(to, Place::File(PathBuf::from(text)));
        assert_eq!(codec(&to, None), Ok(expected), "{text}");
    }

    #[test]
    fn names_of_files_mean_files() {
        file("result.ndjson", Codec::None);
        file("/no/such/a.jsonl", Codec::None);
        file("a.json.gz", Codec::Gzip(1));
        file("a.txt.zst", Codec::Zstd(1));
        file("/dev/null", Codec::None);
    }

    #[test]
    fn everything_else_is_a_directory_or_stdout() {
        for text in ["out", "./out", "a.json/", ".json", "a.csv/", "a.gz/b", ".gz", "dir.d", "v1.2", "none"] {
            assert_eq!(parse(text), Ok(Place::Dir(PathBuf::from(text))), "{text}");
        }
        assert_eq!(parse("-"), Ok(Place::Stdout));
    }

    #[test]
    fn a_name_of_another_kind_of_file_is_refused_unless_it_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.csv", "a.gz", "all.PARQUET", "a.json.xz", "ALL.JSON", "ALL.ndjson.GZ"] {
            let text = format!("{}/{name}", dir.path().display());
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(&format!("{text} looks like a file")), "{error}");
            assert!(error.ends_with(&format!("a directory of that name: {text}/")), "{error}");
            fs::create_dir(&text).unwrap();
            assert_eq!(parse(&text), Ok(Place::Dir(PathBuf::from(&text))), "it is there");
        }
    }

    #[test]
    fn nobody_gets_a_directory_called_tilde() {
        for text in ["~", "~/out", "~/all.ndjson"] {
            let errors = [parse(text).unwrap_err(), parse_letters(text).unwrap_err()];
            for error in errors {
                assert!(error.starts_with(&format!("~ in {text} means nothing here")), "{error}");
            }
        }
        for text in ["./~", "~user/out", "a~", "a/~"] {
            assert_eq!(parse(text), Ok(Place::Dir(PathBuf::from(text))), "{text}");
        }
    }

    #[test]
    fn an_existing_directory_is_one_whatever_its_name() {
        let dir = tempfile::Builder::new().suffix(".json").tempdir().unwrap();
        assert_eq!(parse(dir.path().to_str().unwrap()), Ok(Place::Dir(dir.path().to_owned())));
    }

    #[test]
    fn places_that_are_not_written_to_are_named() {
        for (text, kind) in [("s4://bucket/x", "s4"), ("gs://b/a.json", "gs")] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, format!("nothing is written to {kind}; expected {EXPECTED}"));
        }
        assert!(parse("").is_err());
        assert_eq!(foreign("a/b:c"), None);
    }

    #[test]
    fn buckets_are_places() {
        let s3 = |bucket: &str, prefix: &str| Ok(Place::S3 { bucket: bucket.into(), prefix: prefix.into() });
        assert_eq!(parse("s3://logs"), s3("logs", ""));
        assert_eq!(parse("s3://logs/a/b.json"), s3("logs", "a/b.json/"));
        assert_eq!(parse("s3:"), s3("", ""), "s3.bucket names it");
        assert!(parse("s3://logs/a//b").unwrap_err().starts_with("expected a prefix"));
    }

    #[test]
    fn topics_are_places() {
        assert_eq!(parse("kafka:a.b-c"), Ok(Place::Kafka("a.b-c".into())));
        assert_eq!(parse("kafka:"), Ok(Place::Kafka(String::new())), "kafka.sink.topic names it");
        assert!(parse("kafka:a/b").unwrap_err().starts_with("topic: expected 1 to 249 of"));
        assert!(parse("kafka://host:9092/a").unwrap_err().contains("expected kafka:TOPIC"));
        let to = Place::Kafka("a".into());
        assert_eq!(codec(&to, None), Ok(Codec::None));
        assert!(codec(&to, Some(Codec::Gzip(1))).unwrap_err().contains("kafka.sink.compression"));
    }

    #[test]
    fn rejected_records_go_to_directories_and_topics() {
        assert_eq!(parse_letters("kafka:t"), Ok(LettersTo::Kafka("t".into())));
        assert_eq!(parse_letters("bad.json"), Ok(LettersTo::Dir("bad.json".into())));
        for wrong in ["", " ", "-", "kafka:", "kafka:a b", "s3://b"] {
            assert!(parse_letters(wrong).unwrap_err().contains("expected "), "{wrong}");
        }
    }

    #[test]
    fn a_name_and_a_compression_that_contradict_are_refused() {
        let to = parse("a.ndjson.gz").unwrap();
        assert_eq!(codec(&to, Some(Codec::Gzip(6))), Ok(Codec::Gzip(6)));
        assert!(codec(&to, Some(Codec::Zstd(1))).unwrap_err().contains("ends in .zst"));
        assert!(codec(&to, Some(Codec::None)).unwrap_err().contains("no .gz or .zst"));
        assert!(codec(&parse("a.json").unwrap(), Some(Codec::Gzip(1))).is_err());
        assert_eq!(codec(&Place::Stdout, Some(Codec::Gzip(1))), Ok(Codec::Gzip(1)));
        assert_eq!(codec(&Place::File("/dev/null".into()), Some(Codec::Zstd(1))), Ok(Codec::Zstd(1)));
    }

    #[test]
    fn codecs_have_levels() {
        for (text, expected) in [
            ("none", Some(Codec::None)),
            ("gzip", Some(Codec::Gzip(1))),
            ("gzip:9", Some(Codec::Gzip(9))),
            ("zstd:-5", Some(Codec::Zstd(-5))),
            ("zstd", Some(Codec::Zstd(1))),
            ("gzip:10", None),
            ("zstd:20", None),
            ("none:1", None),
            ("gzip:", None),
            ("lz4", None),
        ] {
            assert_eq!(parse_codec(text), expected, "{text}");
        }
    }
}
