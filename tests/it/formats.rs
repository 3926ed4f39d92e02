//! Inputs of every form and size: all records arrive, in bounded memory, once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::{TempDir, finish, lines, run, tree};

/// Writes a file and returns its directory.
fn with(name: &str, bytes: &[u8]) -> TempDir {
    let dir = TempDir::new();
    fs::write(dir.path().join(name), bytes).expect("it can be written");
    dir
}

/// The `data` members of all envelopes below `out`, in no order.
fn data(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (_, bytes) in tree(&dir.join("out/processed")) {
        for line in String::from_utf8(bytes).expect("outputs are UTF-8").lines() {
            let at = line.find("\"data\":").expect("an envelope has data");
            found.push(line[at + 7..line.len() - 1].to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn an_array_of_20_mb_on_one_line_takes_little_memory() {
    let mut text = String::from("[");
    for id in 0..100_000 {
        let _ = write!(text, "{{\"id\":{id},\"pad\":\"{:0180}\"}},", 0);
    }
    text.pop();
    text.push(']');
    let dir = with("array.json", text.as_bytes());
    let ended = run(dir.path(), &["array.json", "-w", "2", "--summary", "json"]).exits(0);
    let (summary, out) = (ended.summary(), tree(&dir.path().join("out")));
    assert!(text.len() > 19_000_000);
    assert_eq!(summary["records_read"], 100_000);
    assert_eq!(summary["bytes_in"], text.len());
    assert_eq!(lines(&out, "processed/"), 100_000);
    within(&summary, 64);
}

/// Fails if a run has held more MiB than that.
#[track_caller]
pub fn within(summary: &serde_json::Value, mib: u64) {
    match summary["peak_memory_bytes"].as_u64() {
        Some(peak) => assert!(peak <= mib << 20, "{} MiB at most, not {}", mib, peak >> 20),
        None => eprintln!("skipped: this system does not tell the peak of the memory"),
    }
}

#[test]
fn ten_thousand_tiny_files_all_arrive() {
    let dir = TempDir::new();
    for id in 0..10_000 {
        let sub = dir.path().join(format!("in/{}", id % 7));
        if id < 7 {
            fs::create_dir_all(&sub).expect("it can be made");
        }
        fs::write(sub.join(format!("{id}.json")), format!("{{\"id\":{id}}}")).expect("it can be written");
    }
    let no_sync = ["--set", "output.fsync=false"];
    let ended = run(dir.path(), &[&["in", "--summary", "json"], &no_sync[..]].concat()).exits(0);
    assert_eq!(ended.summary()["batches"], 10_000);
    let ids: BTreeSet<String> = data(dir.path()).into_iter().collect();
    assert_eq!(ids.len(), 10_000);
    assert_eq!(tree(&dir.path().join("out/processed")).len(), 10_000);
    run(dir.path(), &[&["in"], &no_sync[..]].concat()).exits(0).says("nothing to do");
}

#[test]
fn shards_take_all_inputs_once() {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("in")).expect("it can be made");
    for id in 0..9 {
        fs::write(dir.path().join(format!("in/{id}.json")), format!("{id}")).expect("it can be written");
    }
    let shard = |shard| run(dir.path(), &["in", "--shard", shard, "--summary", "json"]).exits(0).summary();
    assert_eq!(shard("0/2")["records_stored"], 5);
    assert_eq!(shard("1/2")["records_stored"], 4);
    assert_eq!(data(dir.path()), ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    run(dir.path(), &["in", "--shard", "1/2"]).exits(0).says("nothing to do");
    run(dir.path(), &["in", "--shard", "2/2"]).exits(2).says("--shard: expected I/N");
}

#[test]
fn a_limit_is_kept_to_the_record() {
    let dir = with("a.json", b"{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
    fs::write(dir.path().join("b.json"), "[5, 6]").expect("it can be written");
    let ended = run(dir.path(), &["a.json", "b.json", "-n", "5", "--summary", "json"]).exits(0);
    assert_eq!(ended.summary()["records_stored"], 5);
    assert_eq!(data(dir.path()), ["5", "{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}"]);
    assert!(!dir.path().join("out/.pipeline/state.json").exists(), "a part is no state to go on from");
}

#[test]
fn a_record_above_the_limit_is_a_dead_letter_in_every_format() {
    let long = "x".repeat(5000);
    let cases = [
        ("ndjson", format!("{{\"n\":1}}\n{{\"s\":\"{long}\"}}\n{{\"n\":2}}\n")),
        ("json", format!("[{{\"n\":1}},\n{{\"s\":\"{long}\"}},\n{{\"n\":2}}]")),
        ("json", format!("{{\"n\":1}}\n{{\"s\":\"{long}\"}}\n{{\"n\":2}}")),
        ("text", format!("{{\"n\":1}}\n{{\"s\":\"{long}\"}}\n{{\"n\":2}}\n")),
    ];
    for (format, text) in cases {
        let dir = with("a", text.as_bytes());
        let args = ["a", "-f", format, "--set", "input.max_record_bytes=1000", "--summary", "json"];
        let summary = run(dir.path(), &args).exits(3).summary();
        assert_eq!((&summary["records_stored"], &summary["rejected"]["too_large"]), (&2.into(), &1.into()));
        let (_, letter) = tree(&dir.path().join("out/failed")).pop_first().expect("a dead letter");
        let letter: serde_json::Value = serde_json::from_slice(&letter).expect("it is JSON");
        assert_eq!(letter["error"]["length"], 5008, "{format}");
        assert_eq!(letter["error"]["line"], 2, "{format}");
        let kept = letter["payload"].as_str().expect("it is text");
        assert!(kept.len() <= 4096 && kept.starts_with("{\"s\":\"xxx"), "{format}");
        assert_eq!(data(dir.path()).len(), 2, "{format}");
    }
}

/// Where a line is longer than what is looked at first, it is not taken for a value that spans lines: half a line would
/// hide all lines behind it.
#[test]
fn a_broken_line_among_long_ones_is_one_dead_letter() {
    let line = |n: usize| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(100_000));
    let text: Vec<String> =
        (0..40).map(|n| if n == 10 { line(n)[..50_000].to_owned() } else { line(n) }).collect();
    for more in [&[][..], &["-b", "7"]] {
        let dir = with("long.json", text.join("\n").as_bytes());
        let summary =
            run(dir.path(), &[&["long.json", "--summary", "json"], more].concat()).exits(3).summary();
        assert_eq!((&summary["records_stored"], &summary["records_rejected"]), (&39.into(), &1.into()));
    }
}

#[test]
fn stdin_is_an_input() {
    let dir = TempDir::new();
    let mut command = Command::new("sh");
    crate::support::clean(&mut command, dir.path());
    command.args(["-c", "printf '[1,\\n 2]' | \"$0\" - --summary json", env!("CARGO_BIN_EXE_pipeline")]);
    let summary = finish(command).exits(0).summary();
    assert_eq!(summary["records_stored"], 2);
    assert_eq!(data(dir.path()), ["1", "2"]);
    run(dir.path(), &["-"]).exits(2).says("is there already").says("--fresh");
    run(dir.path(), &["-", "--fresh"]).exits(0);
    assert!(data(dir.path()).is_empty(), "the input was empty this time");
}

#[test]
fn a_dry_run_shows_ten_and_stores_nothing() {
    let mut text = String::new();
    for id in 0..50 {
        let _ = writeln!(text, "{{\"id\":{id}}}");
    }
    let dir = with("a.json", text.as_bytes());
    let ended = run(dir.path(), &["a.json", "--dry-run", "-z", "gzip"]).exits(0).says("read      50 records");
    let ended = ended.says("stored    nothing; without --dry-run 50 records\n");
    let shown = String::from_utf8(ended.stdout).expect("it is text");
    assert_eq!(shown.lines().count(), 10);
    assert!(shown.starts_with("{\"message_id\":\"file:a.json:0\",") && shown.contains("\"data\":{\"id\":9}"));
    assert!(!dir.path().join("out").exists());
    let told = ["a.json", "--dry-run", "--metrics-file", "m.prom"];
    run(dir.path(), &told).exits(0);
    let metrics = fs::read_to_string(dir.path().join("m.prom")).expect("it is written");
    let value = |name: &str| {
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
    };
    assert_eq!(value("pipeline_records_read_total").as_deref(), Some("50"), "{metrics}");
    assert_eq!(value("pipeline_records_stored_total").as_deref(), Some("0"), "{metrics}");
}

/// It ends as the run would: where there is no place for a rejected record, at the first one.
#[test]
fn a_dry_run_fails_where_the_run_would() {
    let dir = with("a.json", b"1\nx\n2\n");
    for (to, code) in [("out", 3), ("out.ndjson", 1), ("-", 1)] {
        for more in [&["--dry-run"][..], &[]] {
            let ended = run(dir.path(), &[&["a.json", "-o", to], more].concat()).exits(code);
            if code == 1 {
                ended.says("there is no place for it");
            }
        }
    }
    run(dir.path(), &["a.json", "-o", "-", "--dead-letter", "bad", "--dry-run"]).exits(3);
    assert!(!dir.path().join("bad").exists());
}

#[test]
fn a_file_of_a_name_with_everything_in_it_has_a_place() {
    let names = ["a b\"c\\.json", "ünï.json", "-x.json", "'$(id)`.json", "new\nline.json", "a..json"];
    let dir = TempDir::new();
    for name in names {
        let mut file = fs::File::create(dir.path().join(name)).expect("it can be made");
        file.write_all(b"{\"is\":\"here\"}").expect("it can be written");
    }
    let ended = run(
        dir.path(),
        &["--summary", "json", "--", names[0], names[1], names[2], names[3], names[4], names[5]],
    );
    assert_eq!(ended.exits(0).summary()["records_stored"], 6);
    let out = tree(&dir.path().join("out"));
    let mut paths = BTreeSet::new();
    for (key, bytes) in &out {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._=/-".contains(c);
        assert!(key.chars().all(plain), "{key}");
        let envelope: serde_json::Value = serde_json::from_slice(bytes).expect("it is JSON");
        paths.insert(envelope["metadata"]["path"].as_str().expect("it is text").to_owned());
    }
    assert_eq!(paths, names.map(str::to_owned).into());
}

#[test]
fn lines_that_are_arrays_are_told_how_to_be_read() {
    let dir = with("rows.json", b"[1,2]\n[3,4]\n[5]\n");
    run(dir.path(), &["rows.json"]).exits(3).says("rows.json line 2 (byte 6): ").says("need --format ndjson");
    run(dir.path(), &["rows.json", "-f", "ndjson", "--fresh"]).exits(0);
    assert_eq!(data(dir.path()), ["[1,2]", "[3,4]", "[5]"]);
}

/// What a reader of the configuration's errors needs: file, line, column, and what was expected.
#[test]
fn a_wrong_value_in_a_configuration_has_a_place() {
    let dir = with("a.json", b"{}");
    let said = |text: &str, said: &str| {
        fs::write(dir.path().join("p.toml"), text).expect("it can be written");
        run(dir.path(), &["-c", "p.toml", "a.json"]).exits(2).says(said)
    };
    said(
        "[processing]\nbatch_size = \"many\"\n",
        "pipeline: p.toml:2:14: processing.batch_size: expected a whole",
    );
    said("[processing\n", "pipeline: p.toml:1:12: ");
    said("[procesing]\n", "p.toml:1:2: ");
    fs::write(dir.path().join("p.toml"), "[input]\nfiles = [\"a.json\"]\n").expect("it can be written");
    run(dir.path(), &["-c", "p.toml"]).exits(0).says("stored    1 record ");
}
