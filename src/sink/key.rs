//! Names of stored batches. Pure: no IO, no clock; a name comes from the partition and the start alone.
//!
//! Default names are `{prefix}processed/{partition}/{start, 20 digits}.ndjson[.gz|.zst]`, dead letters stand
//! under `failed/` with the same name. `{partition}` is the path as given for files, `{host and path}/{cycle}` for
//! endpoints, and `{source}/{name}` for every other kind of source, so that a program's own source never meets their
//! names. A file may be called like an endpoint: the state refuses a second source in an output, and a run whose state
//! knows nothing of the objects that are there refuses those.
//!
//! Partitions with a [stem](crate::record::Identity::stem) are those of topics, which have no end: their batches
//! stand by the hour of the first record (UTC; its own time, so that it is the same the second time), as
//! `{prefix}processed/{yyyy}/{mm}/{dd}/{hh}/{stem}-{start, 20 digits}.ndjson[.gz|.zst]`.
//!
//! What must never happen: two partitions with one name, a name outside its prefix, a directory where another
//! partition's object belongs. So each segment of a path is either *plain* and stands as it is, or it is
//! *marked*: other characters become `_`, and `--` with eight hex digits of the SHA-256 of the original follow.
//! A segment that looks marked, or looks like an object's name, is not plain. What is left is chance: two
//! marked segments alike but for characters that became `_` meet with probability 2^-32, and names that differ
//! only in one leading `/` do meet. [`Namer::clash`] finds both before a run begins.
//!
//! Key templates belong here too, as further ways for [`Namer::stored`] to find the part behind the prefix.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::batch::BatchId;
use crate::codec::Codec;
use crate::record::Partition;
use crate::sink::Stream;

/// Longest segment of a name that file systems take.
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
}

impl Namer {
    /// Names under `prefix`, which gets the slash that it lacks; an empty one stays empty. The extension
    /// follows from `codec`.
    pub fn new(prefix: impl Into<String>, codec: Codec) -> Self {
        let mut prefix = prefix.into();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Namer { prefix, codec }
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

    /// What all names of one stream of a partition begin with, without a slash at the end.
    pub fn directory(&self, stream: Stream, source: &str, name: &str) -> String {
        let mut text = format!("{}{}/", self.prefix, top(stream));
        if !matches!(source, "file" | "http") {
            push_segment(&mut text, source);
            text.push('/');
        }
        let name = name.strip_prefix('/').unwrap_or(name);
        for (index, segment) in name.split('/').enumerate() {
            if index > 0 {
                text.push('/');
            }
            push_segment(&mut text, segment);
        }
        text
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

    fn object(&self, stream: Stream, id: &BatchId) -> String {
        let partition: &Partition = &id.partition;
        if let Some(stem) = &partition.identity().stem {
            return self.dated(stream, stem, id);
        }
        let mut text = self.directory(stream, partition.source(), partition.name());
        if let Some(cycle) = partition.identity().cycle {
            text.push_str(&format!("/{cycle}"));
        }
        text.push_str(&format!("/{:020}.ndjson{}", id.start, self.codec.extension()));
        text
    }

    fn dated(&self, stream: Stream, stem: &str, id: &BatchId) -> String {
        let mut text = format!("{}{}/{}/", self.prefix, top(stream), hour(id.first_time));
        let most = SEGMENT - STARTED;
        let plain = stem.len() <= most && is_plain(stem);
        text.push_str(&if plain { Cow::Borrowed(stem) } else { Cow::Owned(marked(stem, most)) });
        text.push_str(&format!("-{:020}.ndjson{}", id.start, self.codec.extension()));
        text
    }
}

/// The hour of a time in milliseconds since the epoch, UTC. What no calendar has is the hour nearest to it.
fn hour(milliseconds: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds.max(0)).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y/%m/%d/%H").to_string()
}

/// Whether this is the last segment of a batch's default name, with any codec.
pub fn is_object(segment: &str) -> bool {
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

fn push_segment(text: &mut String, segment: &str) {
    text.push_str(&if is_plain(segment) {
        Cow::Borrowed(segment)
    } else {
        Cow::Owned(marked(segment, SEGMENT))
    });
}

fn is_plain(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
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
    if text.chars().all(|char| char == '.') {
        // `.`, `..` and the empty segment: the result should not begin like a hidden file.
        text = "_".repeat(text.len().max(1));
    }
    let hash = Sha256::digest(segment.as_bytes());
    text.push_str("--");
    hash[..4].iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Identity;
    use proptest::prelude::*;

    fn file(name: &str, start: u64) -> BatchId {
        let identity = Identity { source: "file", name: name.into(), ..Identity::default() };
        BatchId { partition: Partition::new(identity), start, first_time: 0, opened_at: 0 }
    }

    #[track_caller]
    fn check(name: &str, directory: &str) {
        let namer = Namer::new("", Codec::None);
        assert_eq!(namer.directory(Stream::Stored, "file", name), format!("processed/{directory}"));
    }

    #[test]
    fn plain_paths_stand_as_they_are() {
        check("data1.json", "data1.json");
        check("a/dt=2026-11-23/b_c.json.gz", "a/dt=2026-11-23/b_c.json.gz");
        check("/var/log/x", "var/log/x");
        check("events-20261123", "events-20261123");
    }

    #[test]
    fn other_characters_are_marked() {
        check("my file.json", "my_file.json--c635e7ca");
        check("../x", "__--5ec1f7e7/x");
        check("a//b", "a/_--e3b0c442/b");
        check("", "_--e3b0c442");
    }

    #[test]
    fn names_have_prefix_start_and_extension() {
        let id = file("data1.json", 1234);
        let namer = Namer::new("jobs/7", Codec::Gzip(1));
        assert_eq!(namer.stored(&id), "jobs/7/processed/data1.json/00000000000000001234.ndjson.gz");
        assert_eq!(namer.failed(&id), "jobs/7/failed/data1.json/00000000000000001234.ndjson.gz");
        let largest = Namer::new("", Codec::Zstd(1)).stored(&file("x", u64::MAX));
        assert_eq!(largest, "processed/x/18446744073709551615.ndjson.zst");
    }

    #[test]
    fn other_sources_have_their_kind_in_front() {
        let namer = Namer::new("", Codec::None);
        let id =
            BatchId { partition: Partition::named("memory", "x y"), start: 0, first_time: 0, opened_at: 0 };
        assert!(namer.stored(&id).starts_with("processed/memory/x_y--"));
    }

    #[test]
    fn what_looks_marked_or_like_an_object_is_marked() {
        let namer = Namer::new("", Codec::None);
        let once = namer.directory(Stream::Stored, "file", "a b");
        let name = once.strip_prefix("processed/").unwrap();
        assert_ne!(namer.directory(Stream::Stored, "file", name), once);
        let object = "00000000000000000000.ndjson.gz";
        assert!(is_object(object));
        assert!(!is_object("0000000000000000000.ndjson"));
        assert!(!is_object("00000000000000000000.ndjson.bak"));
        assert!(!is_object("é0000000000000000000.ndjson"));
        assert_ne!(namer.directory(Stream::Stored, "file", object), format!("processed/{object}"));
    }

    #[test]
    fn a_clash_is_found() {
        let namer = Namer::new("", Codec::None);
        assert_eq!(namer.clash("file", ["/a", "b", "a"]), Some(("/a", "a")));
        assert_eq!(namer.clash("file", ["/a", "b", "c"]), None);
    }

    #[test]
    fn each_pass_over_an_endpoint_has_a_place_of_its_own() {
        let name = "api.example.com/v1/items".to_owned();
        let identity = Identity { source: "http", name, cycle: Some(3), ..Identity::default() };
        let partition = Partition::new(identity);
        let id = BatchId { partition, start: 7 << 32 | 5, first_time: 0, opened_at: 0 };
        let stored = Namer::new("p", Codec::None).stored(&id);
        assert_eq!(stored, "p/processed/api.example.com/v1/items/3/00000000030064771077.ndjson");
        let port = Namer::new("", Codec::None).directory(Stream::Stored, "http", "127.0.0.1:80/a");
        assert!(port.starts_with("processed/127.0.0.1_80--") && port.ends_with("/a"), "{port}");
    }

    fn topic(stem: &str, start: u64, first_time: i64) -> BatchId {
        let stem = Some(stem.to_owned());
        let identity = Identity { source: "kafka", name: "t:0".into(), stem, ..Identity::default() };
        BatchId { partition: Partition::new(identity), start, first_time, opened_at: 0 }
    }

    #[test]
    fn batches_of_topics_stand_by_the_hour_of_their_first_record() {
        let namer = Namer::new("jobs", Codec::Gzip(1));
        let id = topic("data-input-3-0a1b2c3d", 42, 1_795_435_200_999);
        let name = "2026/11/23/12/data-input-3-0a1b2c3d-00000000000000000042.ndjson.gz";
        assert_eq!(namer.stored(&id), format!("jobs/processed/{name}"));
        assert_eq!(namer.failed(&id), format!("jobs/failed/{name}"));
    }

    #[test]
    fn every_time_has_an_hour() {
        for (time, expected) in [
            (0, "1970/01/01/00"),
            (-1, "1970/01/01/00"),
            (i64::MIN, "1970/01/01/00"),
            (3_599_999, "1970/01/01/00"),
            (3_600_000, "1970/01/01/01"),
            (i64::MAX, "9999/12/30/22"),
        ] {
            assert_eq!(hour(time), expected, "{time}");
        }
    }

    #[test]
    fn long_and_odd_stems_are_marked() {
        let namer = Namer::new("", Codec::Zstd(1));
        let last = |stem: &str| {
            let name = namer.stored(&topic(stem, u64::MAX, 0));
            name.rsplit_once('/').map(|(_, last)| last.to_owned()).unwrap_or_default()
        };
        let (long, other) = ("t".repeat(249) + "-0-00000000", "t".repeat(249) + "-1-00000000");
        assert!(last(&long).len() <= SEGMENT && last(&long).starts_with("ttt"), "{}", last(&long));
        assert_ne!(last(&long), last(&other));
        assert!(last("../x").starts_with(".._x--"), "{}", last("../x"));
        assert!(last("a b").starts_with("a_b--") && last("a b").chars().all(is_allowed));
        assert_ne!(last("a_b"), last("a b"));
    }

    /// Paths made of pieces that are hard to tell apart.
    fn path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("."),
            Just(".."),
            Just(" "),
            Just("_"),
            Just("a"),
            Just("A"),
            Just("é"),
            Just("\\"),
            Just("\0"),
            Just("\n"),
            Just("--e3b0c442"),
            Just("00000000000000000000"),
            Just(".ndjson"),
            Just("%2e"),
            Just("-"),
            Just("="),
            Just(
                "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
            ),
        ];
        prop_oneof![
            proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
            any::<String>()
        ]
    }

    proptest! {
        #[test]
        fn two_partitions_never_share_a_name(one in path(), other in path()) {
            let namer = Namer::new("p", Codec::None);
            let relative = |name: &str| name.strip_prefix('/').unwrap_or(name).to_owned();
            let same = relative(&one) == relative(&other);
            let names = |name: &str| namer.directory(Stream::Stored, "file", name);
            prop_assert_eq!(names(&one) == names(&other), same);
            // Nor is one's object another's directory.
            let object = namer.stored(&file(&one, 0));
            let inside = format!("{}/", names(&other));
            let beneath = inside.starts_with(&format!("{object}/"));
            prop_assert!(!beneath);
        }

        #[test]
        fn a_name_never_leaves_its_prefix(name in path(), source in "[a-z./ ]{0,9}", start: u64) {
            let source: &'static str = Box::leak(source.into_boxed_str());
            let id = BatchId { partition: Partition::named(source, name), start, first_time: 0, opened_at: 0 };
            for key in [Namer::new("p", Codec::None).stored(&id), Namer::new("p", Codec::None).failed(&id)] {
                prop_assert!(key.starts_with("p/processed/") || key.starts_with("p/failed/"));
                for segment in key.split('/') {
                    prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
                    prop_assert!(segment.len() <= SEGMENT);
                    prop_assert!(segment.chars().all(is_allowed), "{}", key);
                }
            }
        }
    }
}
