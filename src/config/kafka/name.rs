//! Names that Kafka takes, and the name of a group that nobody named. Pure.

use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::{Output, Place};

/// The longest name of a topic: a directory of a broker is called so, with a partition behind it.
const LONGEST: usize = 249;
/// A string's length has 15 bits on the wire.
const LONGEST_TEXT: usize = i16::MAX as usize;
/// The topics' share of a group's default name.
const LONGEST_TOPICS: usize = 160;

/// Whether `name` may be a topic or an instance of a group: Kafka has one rule for both.
///
/// # Errors
/// One line on what was expected.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.is_empty() && name.len() <= LONGEST && !matches!(name, "." | "..") && name.bytes().all(is_legal)
    {
        return Ok(());
    }
    Err(format!("{what}: expected 1 to {LONGEST} of a-z, A-Z, 0-9, dot, _ and - (not . or ..), not {name:?}"))
}

/// Whether `name` may be a group or a transactional id. Kafka takes nearly everything; a control character, such
/// as the line break of a file it was read from, is surely a slip.
///
/// # Errors
/// One line on what was expected.
pub fn check_group(what: &str, name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.len() > LONGEST_TEXT || name.contains(char::is_control) {
        return Err(format!("{what}: expected a name without control characters, not {name:?}"));
    }
    Ok(())
}

/// `pipeline-{topics}-{hash}`: the group of a run that names none. The hash is of topics and output, so that the
/// same job is the same group wherever and whenever it is started, and two jobs never share a topic by
/// accident. Paths are made absolute with `cwd`; neither a link nor the disk is looked at.
pub fn default_group(topics: &[String], to: &Place, cwd: &Path) -> String {
    let mut topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut hash = Sha256::new();
    hash.update(location(to, cwd));
    for topic in &topics {
        hash.update([0]);
        hash.update(topic);
    }
    let mut name = topics.join(".");
    if name.len() > LONGEST_TOPICS {
        // Names of topics are ASCII; if these are not, the run ends before anybody hears of its group.
        name = name.chars().take(LONGEST_TOPICS).collect::<String>() + "..";
    }
    let mut group = format!("pipeline-{name}-");
    for byte in &hash.finalize()[..4] {
        let _ = write!(group, "{byte:02x}");
    }
    group
}

/// A number for an output and how its files are named, for commits: a group that goes on must know that its batches
/// went elsewhere, or under other names.
pub fn fingerprint(output: &Output, cwd: &Path) -> u64 {
    let key = output.key.as_ref().map_or_else(String::new, |key| format!("\0{key}"));
    let named = [output.codec.extension(), &key].concat();
    let hash = Sha256::digest([location(&output.to, cwd), named.into_bytes()].concat());
    hash[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// An output as one text.
fn location(to: &Place, cwd: &Path) -> Vec<u8> {
    let path = |kind: &str, path: &Path| {
        let absolute = normal(&cwd.join(path));
        [kind.as_bytes(), absolute.as_os_str().as_encoded_bytes()].concat()
    };
    match to {
        Place::Dir(dir) => path("dir:", dir),
        Place::File(file) => path("file:", file),
        Place::Kafka(topic) => format!("kafka:{topic}").into_bytes(),
        Place::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}").into_bytes(),
        Place::Stdout => b"-".to_vec(),
    }
}

/// Without `.`, `..` and doubled slashes.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_kafkas_rules() {
        for name in ["a", "A-b_c.9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check_name("topic", name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a,b", "a\n", &"x".repeat(250)] {
            let error = check_name("topic", name).unwrap_err();
            assert!(error.starts_with("topic: expected 1 to 249 of "), "{error}");
        }
    }

    #[test]
    fn groups_are_nearly_free() {
        for name in ["a", "team / job (ä)", "a:b"] {
            assert_eq!(check_group("group", name), Ok(()), "{name}");
        }
        for name in ["", "  ", "a\n", "a\0b", &"x".repeat(1 << 15)] {
            assert!(check_group("group", name).is_err(), "{name}");
        }
    }

    fn group(topics: &[&str], to: Place) -> String {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        default_group(&topics, &to, Path::new("/home/me"))
    }

    #[test]
    fn the_same_job_is_the_same_group() {
        let dir = |path: &str| Place::Dir(path.into());
        let name = group(&["orders", "events"], dir("out"));
        // Fixed: another name would export everything again after an update of this program.
        assert_eq!(name, "pipeline-events.orders-e0fe958f");
        for same in ["./out", "/home/me/out", "x/../out/", "/home//me/./out"] {
            assert_eq!(group(&["events", "orders", "events"], dir(same)), name, "{same}");
        }
        assert!(check_name("group", &name).is_ok(), "no character that a tool could stumble over");
    }

    #[test]
    fn another_job_is_another_group() {
        let places = [
            Place::Dir("out".into()),
            Place::Dir("out2".into()),
            Place::File("out".into()),
            Place::Kafka("out".into()),
            Place::Stdout,
        ];
        let mut groups: Vec<String> = places.into_iter().map(|to| group(&["a"], to)).collect();
        groups.push(group(&["a.b"], Place::Stdout));
        groups.push(group(&["a", "b"], Place::Stdout));
        let all = groups.len();
        groups.sort();
        groups.dedup();
        assert_eq!(groups.len(), all, "{groups:?}");
    }

    #[test]
    fn another_name_is_another_location() {
        let to = || Place::S3 { bucket: "logs".into(), prefix: "a/".into() };
        let key = |text| Some(crate::sink::key::Template::parse(text).unwrap());
        let plain = Output { to: to(), ..Output::default() };
        let outputs = [
            plain.clone(),
            Output { to: Place::S3 { bucket: "logs".into(), prefix: "b/".into() }, ..plain.clone() },
            Output { codec: crate::codec::Codec::Gzip(1), ..plain.clone() },
            Output { key: key("hive"), ..plain.clone() },
            Output { key: key("x/"), ..plain.clone() },
        ];
        let mut prints: Vec<u64> = outputs.iter().map(|it| fingerprint(it, Path::new("/"))).collect();
        // Fixed: with another number, groups that have begun batches would be refused after an update.
        assert_eq!(prints[0], 0xa445f17735018fd4);
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), outputs.len());
        let faster = Output { codec: crate::codec::Codec::Gzip(1), ..plain.clone() };
        let smaller = Output { codec: crate::codec::Codec::Gzip(9), ..plain };
        assert_eq!(fingerprint(&faster, Path::new("/")), fingerprint(&smaller, Path::new("/")));
    }

    #[test]
    fn many_topics_are_not_too_long_a_name() {
        let topics: Vec<String> = (0..500).map(|n| format!("topic-{n}")).collect();
        let one = default_group(&topics, &Place::Stdout, Path::new("/"));
        let other = default_group(&topics[1..], &Place::Stdout, Path::new("/"));
        assert!(one.len() < 200 && one != other, "{one}");
    }
}
