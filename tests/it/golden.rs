//! Golden runs: each folder of `testdata/` is a case. `in/` is copied to an empty directory, each line of `args` is
//! a run there, and `expected/` has what they exit with (`exit`, a line each) and leave under `out/`. Times, which
//! are the only thing that differs between two runs, are masked.
//!
//! `BLESS=1 make test` writes what came out as what is expected; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Ended, TempDir, lines, run, tree};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Every time that the program puts into an output, as `TIME`.
fn masked(bytes: &[u8]) -> String {
    let mut text = String::from_utf8(bytes.to_vec()).expect("outputs are UTF-8");
    for key in ["\"processed_at\":\"", "\"failed_at\":\"", "\"time\":\""] {
        let parts: Vec<&str> = text.split(key).collect();
        let rest = parts[1..].iter().map(|part| part.split_once('"').expect("a time ends").1);
        text = rest.fold(parts[0].to_owned(), |text, rest| text + key + "TIME\"" + rest);
    }
    text
}

fn texts(dir: &Path) -> BTreeMap<String, String> {
    tree(dir).into_iter().map(|(name, bytes)| (name, masked(&bytes))).collect()
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, bytes).expect("it can be written");
    }
}

/// One line of `args`.
fn one(dir: &Path, line: &str) -> Ended {
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(["--summary", "json", "--set", "processing.processed_by=host1"]);
    run(dir, &args)
}

/// What a run says that it did is what stands on the disk, to the last record.
fn agrees(ended: &Ended, before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    let summary = ended.summary();
    if summary["outcome"] == "nothing-to-do" {
        return assert_eq!(before, after);
    }
    let new = |prefix| lines(after, prefix) - lines(before, prefix);
    assert_eq!(summary["records_stored"], new("processed/"));
    assert_eq!(summary["records_rejected"], new("failed/"));
    assert_eq!(summary["records_read"], new("processed/") + new("failed/"));
    let bytes = |tree: &BTreeMap<String, Vec<u8>>| tree.values().map(Vec::len).sum::<usize>();
    assert_eq!(summary["bytes_out"], bytes(after) - bytes(before));
}

#[track_caller]
fn check(case: &str) {
    let (case, dir) = (testdata().join(case), TempDir::new());
    copy(&case.join("in"), dir.path());
    let (out, mut exits) = (dir.path().join("out"), String::new());
    for line in fs::read_to_string(case.join("args")).expect("a case has args").lines() {
        let before = tree(&out);
        let ended = one(dir.path(), line);
        agrees(&ended, &before, &tree(&out));
        exits += &format!("{}\n", ended.code.expect("no signal ends it"));
    }
    let (expected, found) = (case.join("expected"), texts(&out));
    if std::env::var_os("BLESS").is_some() {
        let _ = fs::remove_dir_all(&expected);
        fs::create_dir_all(&expected).expect("it can be made");
        fs::write(expected.join("exit"), &exits).expect("it can be written");
        for (name, text) in &found {
            let path = expected.join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
    }
    assert_eq!(exits, fs::read_to_string(expected.join("exit")).expect("it says the exit codes"));
    let mut wanted = texts(&expected);
    wanted.remove("exit");
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "other files");
    for (name, text) in &wanted {
        assert_eq!(&found[name], text, "{name}");
    }
}

#[test]
fn ndjson() {
    check("ndjson");
}

#[test]
fn batches_and_directories() {
    check("batches");
}

#[test]
fn a_pretty_array() {
    check("array");
}

#[test]
fn values_one_after_another() {
    check("concatenated");
}

#[test]
fn text() {
    check("text");
}

#[test]
fn windows_line_ends() {
    check("crlf");
}

#[test]
fn rejected_records() {
    check("rejected");
}

#[test]
fn cloudevents() {
    check("cloudevents");
}

#[test]
fn bare_records() {
    check("bare");
}

#[test]
fn compressed_inputs() {
    check("compressed");
}

#[test]
fn dead_letters_are_fed_back() {
    check("replay");
}

/// Those of a topic whose values are bytes.
#[test]
fn dead_letters_of_bytes_are_fed_back() {
    check("binary");
}

#[test]
fn names_of_a_template() {
    check("key");
}

/// The main job, in both forms that the README shows.
#[test]
fn the_main_job() {
    let dir = TempDir::new();
    copy(&testdata(), &dir.path().join("testdata"));
    let short = run(dir.path(), &["-s", "file", "-b", "50", "testdata/data1.json", "testdata/data2.json"]);
    let short = short.exits(0).says("read      195 records in ").says("stored    195 records in 5 batches (");
    assert!(short.stdout.is_empty());
    let out = tree(&dir.path().join("out"));
    let names: Vec<&str> = out.keys().map(String::as_str).collect();
    let object = |input, start| format!("processed/testdata/{input}/{start:020}.ndjson");
    let expected = [
        ("data1.json", 0),
        ("data1.json", 7581),
        ("data1.json", 15191),
        ("data2.json", 0),
        ("data2.json", 16157),
    ];
    assert_eq!(names, expected.map(|(input, start)| object(input, start)));
    for (input, records) in [("data1.json", 120), ("data2.json", 75)] {
        assert_eq!(lines(&out, &format!("processed/testdata/{input}/")), records);
        assert_eq!(lines(&out, &object(input, 0)), 50);
    }
    let long = ["process", "--source", "file", "data1.json", "data2.json", "--batch-size", "50"];
    let long = run(&dir.path().join("testdata"), &[&long[..], &["--summary", "json"]].concat()).exits(0);
    agrees(&long, &BTreeMap::new(), &tree(&dir.path().join("testdata/out")));
    assert_eq!(long.summary()["records_stored"], 195);
}
