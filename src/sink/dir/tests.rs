//! Tests of the directory sink as the engine drives it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::temporary::{HIDDEN, Temporary};
use super::*;
use crate::batch::{Counts, Piece};
use crate::codec::Codec;
use crate::cut::Close;
use crate::error::Error;
use crate::record::{Identity, Partition};
use crate::sink::{Part, Totals};

/// A directory that goes away with it.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let random = RandomState::new().build_hasher().finish();
        let dir = std::env::temp_dir().join(format!("pipeline-sink-{}-{random:x}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn batch(name: &str, start: u64, stored: &[&str], failed: &[&str]) -> Batch {
    let identity = Identity { source: "file", name: name.into(), ..Identity::default() };
    let body = |texts: &[&str]| {
        let mut body = Body::default();
        texts.iter().for_each(|text| body.push(Piece::owned(text.as_bytes().to_vec())));
        body
    };
    Batch {
        id: BatchId { partition: Partition::new(identity), start, first_time: 0, opened_at: 0 },
        end: start + 10,
        line: 0,
        resume: None,
        counts: Counts {
            read: 1,
            stored: stored.len() as u64,
            rejected: failed.len() as u64,
            bytes_read: 10,
            ..Counts::default()
        },
        close: Close::Count,
        stored: body(stored),
        failed: body(failed),
    }
}

fn sink(root: &Path) -> DirSink {
    DirSink::prepare(DirOptions {
        root: root.to_owned(),
        namer: Namer::new("", Codec::None),
        fsync: Fsync::On,
        writers: 2,
        dead_letter: None,
        redo: false,
    })
    .unwrap()
}

/// All files below `dir` with their contents, those of the run itself left out.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, out);
            } else if entry.file_name() != "lock" {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                out.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(dir, dir, &mut out);
    out
}

#[track_caller]
fn check(dir: &Path, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    assert_eq!(tree(dir), expected);
}

const ONE: &str = "processed/a.json/00000000000000000000.ndjson";
const ONE_FAILED: &str = "failed/a.json/00000000000000000000.ndjson";
const TWO: &str = "processed/a.json/00000000000000000010.ndjson";

#[test]
fn a_directory_is_synced_once_a_call() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    let synced = |batches: &[Batch]| {
        let before = place::SYNCED.get();
        let mut receipts = Vec::new();
        sink.store(batches, &mut receipts).unwrap();
        assert_eq!(receipts.len(), batches.len());
        place::SYNCED.get() - before
    };
    // The first makes directories, which are synced too.
    let _ = synced(&[batch("a.json", 0, &["x\n"], &[])]);
    let many: Vec<Batch> = (1..=40).map(|at| batch("a.json", 10 * at, &["x\n"], &[])).collect();
    assert_eq!(synced(&many), 1);
}

#[test]
fn storing_again_replaces_and_takes_stale_files_away() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    let mut receipts = Vec::new();
    let first = [batch("a.json", 0, &["x\n", "y\n"], &["bad\n"]), batch("a.json", 10, &["z\n"], &[])];
    sink.store(&first, &mut receipts).unwrap();
    sink.store(&first, &mut receipts).unwrap();
    check(&dir.0, &[(ONE, "x\ny\n"), (ONE_FAILED, "bad\n"), (TWO, "z\n")]);
    assert_eq!(receipts.len(), 4);
    assert_eq!(receipts[0].key.as_deref(), Some(ONE));
    assert_eq!(receipts[0].failed_key.as_deref(), Some(ONE_FAILED));
    assert_eq!((receipts[0].bytes, receipts[0].crc32c), (8, crc32c::crc32c(b"x\ny\n")));
    assert_eq!(receipts[1].failed_key, None);

    let second = [batch("a.json", 0, &["x\n"], &[]), batch("a.json", 10, &[], &[])];
    sink.store(&second, &mut receipts).unwrap();
    check(&dir.0, &[(ONE, "x\n")]);
    assert_eq!((&receipts[4].failed_key, &receipts[5].key), (&None, &None));
}

#[test]
fn a_later_run_takes_stale_dead_letters_away() {
    let dir = Scratch::new();
    sink(&dir.0).store(&[batch("a.json", 0, &["x\n"], &["bad\n"])], &mut Vec::new()).unwrap();
    sink(&dir.0).store(&[batch("a.json", 0, &["x\n"], &[])], &mut Vec::new()).unwrap();
    check(&dir.0, &[(ONE, "x\n")]);
}

#[test]
fn more_batches_than_a_group_and_more_pieces_than_a_call_takes() {
    let dir = Scratch::new();
    let texts: Vec<String> = (0..3000).map(|number| format!("{number}\n")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batches: Vec<Batch> = (0..150).map(|start| batch("a.json", start, &texts, &["bad"])).collect();
    let mut receipts = Vec::new();
    sink(&dir.0).store(&batches, &mut receipts).unwrap();
    assert_eq!(receipts.len(), 150);
    let tree = tree(&dir.0);
    assert_eq!(tree.len(), 300);
    assert_eq!(tree["processed/a.json/00000000000000000149.ndjson"], texts.concat());
}

#[test]
fn nothing_is_left_behind_but_the_output() {
    let dir = Scratch::new();
    let root = dir.0.join("deep/out");
    let open = sink(&root);
    assert!(root.join(HIDDEN).is_dir());
    open.store(&[batch("a.json", 0, &["x\n"], &[])], &mut Vec::new()).unwrap();
    drop(open);
    let left: Vec<_> = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["processed"]);
}

#[test]
fn what_dead_runs_left_is_swept_and_what_live_runs_hold_is_not() {
    let dir = Scratch::new();
    let hidden = dir.0.join(HIDDEN);
    let dead = hidden.join("tmp-1-0123456789abcdef");
    fs::create_dir_all(&dead).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("7"), "half a batch").unwrap();
    let unlocked = hidden.join("tmp-1-0123456789abcdee");
    fs::create_dir_all(&unlocked).unwrap();
    let other = hidden.join("tmp-mine");
    fs::create_dir_all(&other).unwrap();
    fs::write(hidden.join("state.json"), "{}").unwrap();
    let live = Temporary::create(&dir.0).unwrap();
    let held = live.file().unwrap();
    let late = Temporary::create(&dir.0).unwrap();
    assert!(!dead.exists() && !unlocked.exists());
    assert!(other.exists() && hidden.join("state.json").exists());
    assert!(held.path().exists() && late.path().exists());
    drop(held);
    let path = live.path().to_owned();
    drop(live);
    assert!(!path.exists() && late.path().exists());
}

#[test]
fn a_directory_in_the_way_is_a_clear_error_and_the_batches_before_it_are_stored() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    fs::create_dir_all(dir.0.join(TWO)).unwrap();
    let batches = [
        batch("a.json", 0, &["x\n"], &[]),
        batch("a.json", 10, &["y\n"], &["bad\n"]),
        batch("a.json", 20, &["z\n"], &[]),
    ];
    let mut receipts = Vec::new();
    let error = sink.store(&batches, &mut receipts).unwrap_err();
    assert_eq!(receipts.len(), 1);
    assert!(error.to_string().contains(TWO), "{error}");
    assert!(!error.is_transient());
    // The dead letters come first; the output is whole or not there.
    check(&dir.0, &[(ONE, "x\n"), ("failed/a.json/00000000000000000010.ndjson", "bad\n")]);
}

#[test]
fn a_file_where_a_directory_belongs_is_a_clear_error() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    fs::write(dir.0.join("processed"), "in the way").unwrap();
    let error = sink.store(&[batch("a.json", 0, &["x\n"], &[])], &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory));
    assert!(error.to_string().contains("processed"), "{error}");
    // Stale dead letters cannot stand below a file either.
    check(&dir.0, &[("processed", "in the way")]);

    let root = dir.0.join("processed");
    let options = DirOptions {
        root: root.clone(),
        namer: Namer::new("", Codec::None),
        fsync: Fsync::On,
        writers: 1,
        dead_letter: None,
        redo: false,
    };
    let error = DirSink::prepare(options).unwrap_err();
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    sink.store(&[batch("a.json", 0, &["x\n"], &[])], &mut Vec::new()).unwrap();
    fs::remove_dir_all(dir.0.join("processed")).unwrap();
    sink.store(&[batch("a.json", 10, &["y\n"], &[])], &mut Vec::new()).unwrap();
    check(&dir.0, &[(TWO, "y\n")]);
}

#[test]
fn dead_letters_have_another_root_if_told() {
    let dir = Scratch::new();
    let options = DirOptions {
        root: dir.0.join("out"),
        namer: Namer::new("", Codec::None),
        fsync: Fsync::Off,
        writers: 1,
        dead_letter: Some(dir.0.join("dead")),
        redo: false,
    };
    let sink = DirSink::prepare(options).unwrap();
    sink.store(&[batch("a.json", 0, &["x\n"], &["bad\n"])], &mut Vec::new()).unwrap();
    check(&dir.0, &[(&format!("out/{ONE}"), "x\n"), (&format!("dead/{ONE_FAILED}"), "bad\n")]);
}

/// The text of each error that a full disk, a quota or a limit makes is the system's; what matters is the same
/// for all: the error is final, nothing is visible, nothing is left. A limit is what a test can set anywhere.
#[test]
fn a_file_that_grows_too_large_leaves_nothing() {
    const CHILD: &str = "PIPELINE_TEST_DIR";
    if let Some(dir) = std::env::var_os(CHILD) {
        return under_a_limit(Path::new(&dir));
    }
    let dir = Scratch::new();
    // 64 blocks of 512 or 1024 bytes, by shell.
    let script = r#"trap "" XFSZ; ulimit -f 64; exec "$0" --exact "$1" --nocapture"#;
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("sink::dir::tests::a_file_that_grows_too_large_leaves_nothing")
        .env(CHILD, &dir.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The child's own check ran: it stored what fits.
    check(&dir.0, &[(TWO, "y\n")]);
}

fn under_a_limit(dir: &Path) {
    let sink = sink(dir);
    let large = "x".repeat(100_000);
    let mut receipts = Vec::new();
    let error = sink.store(&[batch("a.json", 0, &[&large], &["bad\n"])], &mut receipts).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge));
    assert!(!error.is_transient() && receipts.is_empty());
    check(dir, &[]);
    let (batch_10, totals) = bare(&batch("a.json", 10, &[&large], &[]));
    let upload = sink.open(&batch_10.id).unwrap();
    upload.part(&part(Stream::Stored, 0, 0, &large.as_bytes()[..10_000])).unwrap();
    let error = upload.part(&part(Stream::Stored, 1, 10_000, &large.as_bytes()[10_000..])).unwrap_err();
    assert!(error.to_string().contains(TWO), "{error}");
    assert!(upload.publish(&batch_10, &totals).is_err());
    upload.abort();
    check(dir, &[]);
    sink.store(&[batch("a.json", 10, &["y\n"], &[])], &mut receipts).unwrap();
}

#[test]
fn several_threads_may_store_into_the_same_new_directories() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let sink = &sink;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("dir/{}/x", round % 5);
                    let batch = batch(&name, thread * 100 + round, &["x\n"], &["bad\n"]);
                    sink.store(&[batch], &mut Vec::new()).unwrap();
                }
            });
        }
    });
    assert_eq!(tree(&dir.0).len(), 160);
}

/// A batch as an upload gets it: without bodies.
fn bare(whole: &Batch) -> (Batch, Totals) {
    let totals = Totals {
        stored: whole.stored.len(),
        stored_crc32c: whole.stored.crc32c(),
        failed: whole.failed.len(),
    };
    (Batch { stored: Body::default(), failed: Body::default(), ..whole.clone() }, totals)
}

fn part(stream: Stream, index: u32, offset: u64, bytes: &[u8]) -> Part {
    let mut body = Body::default();
    body.push(Piece::owned(bytes.to_vec()));
    Part { stream, index, offset, body, last: false }
}

#[test]
fn publishing_twice_is_publishing_once() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    let whole = batch("a.json", 0, &["x\n"], &["bad\n"]);
    let (batch, totals) = bare(&whole);
    let upload = sink.open(&batch.id).unwrap();
    upload.part(&part(Stream::Failed, 0, 0, b"bad\n")).unwrap();
    upload.part(&part(Stream::Stored, 0, 0, b"x\n")).unwrap();
    check_hidden(&dir.0);
    // The first try fails in the middle: the dead letters are there, the output is not.
    fs::create_dir_all(dir.0.join(ONE)).unwrap();
    assert!(upload.publish(&batch, &totals).is_err());
    fs::remove_dir(dir.0.join(ONE)).unwrap();
    let first = upload.publish(&batch, &totals).unwrap();
    let second = upload.publish(&batch, &totals).unwrap();
    assert_eq!(first, second);
    assert_eq!(first, Receipt::of(&whole, Some(ONE.into()), Some(ONE_FAILED.into())));
    drop(upload);
    check(&dir.0, &[(ONE, "x\n"), (ONE_FAILED, "bad\n")]);
}

#[track_caller]
fn check_hidden(dir: &Path) {
    assert!(tree(dir).keys().all(|name| name.starts_with(HIDDEN)), "something is visible too early");
}

#[test]
fn an_upload_without_parts_takes_stale_files_away() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    sink.store(&[batch("a.json", 0, &["x\n"], &["bad\n"])], &mut Vec::new()).unwrap();
    let (batch, totals) = bare(&batch("a.json", 0, &[], &[]));
    let receipt = sink.open(&batch.id).unwrap().publish(&batch, &totals).unwrap();
    assert_eq!((receipt.key, receipt.failed_key), (None, None));
    check(&dir.0, &[]);
}

#[test]
fn an_aborted_upload_leaves_nothing_and_a_short_one_is_not_published() {
    let dir = Scratch::new();
    let sink = sink(&dir.0);
    let (batch, mut totals) = bare(&batch("a.json", 0, &["xyz\n"], &[]));
    let upload = sink.open(&batch.id).unwrap();
    upload.part(&part(Stream::Stored, 0, 0, b"xy")).unwrap();
    assert!(upload.publish(&batch, &totals).is_err());
    check_hidden(&dir.0);
    upload.abort();
    assert!(upload.part(&part(Stream::Stored, 1, 2, b"z\n")).is_err());
    totals.stored = 0;
    assert!(upload.publish(&batch, &totals).is_err());
    check(&dir.0, &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn parts_in_any_order_are_the_whole(
        text in proptest::collection::vec(any::<u8>(), 1..4000),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        order in any::<u64>(),
    ) {
        let dir = Scratch::new();
        let sink = sink(&dir.0);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        ends.push(text.len());
        ends.sort_unstable();
        let mut at = 0;
        let mut parts = Vec::new();
        for (index, end) in ends.into_iter().enumerate() {
            parts.push(part(Stream::Stored, index as u32, at as u64, &text[at..end]));
            at = end;
        }
        // Any permutation will do, and one part twice: it is tried again after an error.
        parts.sort_by_key(|part| (u64::from(part.index) + 1).wrapping_mul(order | 1).rotate_left(17));
        parts.push(parts[0].clone());
        let totals = Totals { stored: text.len() as u64, stored_crc32c: crc32c::crc32c(&text), failed: 0 };
        let (batch, _) = bare(&batch("a.json", 0, &[], &[]));
        let upload = sink.open(&batch.id).unwrap();
        std::thread::scope(|scope| {
            let (front, back) = parts.split_at(parts.len() / 2);
            scope.spawn(|| front.iter().for_each(|part| upload.part(part).unwrap()));
            back.iter().for_each(|part| upload.part(part).unwrap());
        });
        let receipt = upload.publish(&batch, &totals).unwrap();
        prop_assert_eq!(receipt.crc32c, totals.stored_crc32c);
        prop_assert_eq!(fs::read(dir.0.join(ONE)).unwrap(), text);
    }
}

fn dated(root: &Path) -> DirSink {
    let options = DirOptions { redo: true, ..DirOptions::new(root, Codec::None) };
    DirSink::prepare(options).unwrap()
}

/// A batch that an earlier owner planned, opened at `opened_at`.
fn again(opened_at: i64, stored: &[&str], failed: &[&str]) -> Batch {
    let batch = batch("a.json", 0, stored, failed);
    Batch { id: BatchId { opened_at, ..batch.id }, close: Close::Planned, ..batch }
}

#[test]
fn a_planned_batch_that_is_stored_already_is_left_alone() {
    let dir = Scratch::new();
    let sink = dated(&dir.0);
    let mut receipts = Vec::new();
    let first = Batch { close: Close::Count, ..again(1_700_000_000_123, &["x\n", "y\n"], &["bad\n"]) };
    sink.store(std::slice::from_ref(&first), &mut receipts).unwrap();
    // One of its records has left the topic since; then all have.
    sink.store(&[again(1_700_000_000_123, &["y\n"], &[])], &mut receipts).unwrap();
    sink.store(&[again(1_700_000_000_123, &[], &[])], &mut receipts).unwrap();
    check(&dir.0, &[(ONE, "x\ny\n"), (ONE_FAILED, "bad\n")]);
    for receipt in &receipts {
        assert_eq!((receipt.key.as_deref(), receipt.failed_key.as_deref()), (Some(ONE), Some(ONE_FAILED)));
    }
    // The same in parts.
    let (large, totals) = bare(&again(1_700_000_000_123, &["y\n"], &[]));
    let upload = sink.open(&large.id).unwrap();
    upload.part(&part(Stream::Stored, 0, 0, b"y\n")).unwrap();
    upload.publish(&large, &totals).unwrap();
    check(&dir.0, &[(ONE, "x\ny\n"), (ONE_FAILED, "bad\n")]);
    // One of the two is missing: it alone is stored.
    fs::remove_file(dir.0.join(ONE_FAILED)).unwrap();
    sink.store(&[again(1_700_000_000_123, &["y\n"], &["worse\n"])], &mut receipts).unwrap();
    check(&dir.0, &[(ONE, "x\ny\n"), (ONE_FAILED, "worse\n")]);
    // Opened at another time it is another batch.
    sink.store(&[again(1_700_000_000_124, &["y\n"], &[])], &mut receipts).unwrap();
    check(&dir.0, &[(ONE, "y\n")]);
}

#[test]
fn a_batch_that_nobody_planned_replaces_what_has_its_name() {
    let dir = Scratch::new();
    let sink = dated(&dir.0);
    sink.store(&[again(5, &["x\n", "y\n"], &[])], &mut Vec::new()).unwrap();
    let free = Batch { close: Close::Count, ..again(5, &["z\n"], &[]) };
    sink.store(&[free], &mut Vec::new()).unwrap();
    check(&dir.0, &[(ONE, "z\n")]);
    // In parts, too, it has its time.
    let (large, totals) = bare(&again(-7, &["w\n"], &[]));
    let upload = sink.open(&large.id).unwrap();
    upload.part(&part(Stream::Stored, 0, 0, b"w\n")).unwrap();
    upload.publish(&large, &totals).unwrap();
    let modified = fs::metadata(dir.0.join(ONE)).unwrap().modified().unwrap();
    assert_eq!(modified, std::time::UNIX_EPOCH - std::time::Duration::from_millis(7));
}
