//! Bad input, bad arguments, full disks: a clear error or a dead letter, never a panic, never much memory, and
//! nothing half visible.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::formats::within;
use crate::support::{Ended, TempDir, clean, command, finish, lines, run, tree};

/// Writes a file and returns its directory.
fn with(name: &str, bytes: impl AsRef<[u8]>) -> TempDir {
    let dir = TempDir::new();
    fs::write(dir.path().join(name), bytes).expect("it can be written");
    dir
}

fn out(dir: &TempDir) -> BTreeMap<String, Vec<u8>> {
    tree(&dir.path().join("out"))
}

/// A run under a limit on the size of files, in KiB.
fn limited(dir: &Path, limit: u32, args: &str) -> Ended {
    let mut shell = Command::new("bash");
    clean(&mut shell, dir);
    shell.args(["-c", &format!("ulimit -f {limit}; exec \"$0\" {args}"), env!("CARGO_BIN_EXE_pipeline")]);
    finish(shell)
}

#[test]
fn inputs_that_are_not_there_or_there_twice() {
    let dir = with("data1.json", "{}");
    run(dir.path(), &["data.json"])
        .exits(2)
        .says("input data.json: no such file or directory; did you mean data1.json?");
    run(dir.path(), &["data1.json/x"]).exits(2).says("input data1.json/x");
    let twice = "given by data1.json and by ./data1.json; name it once";
    run(dir.path(), &["data1.json", "./data1.json"]).exits(2).says(twice);
    run(dir.path(), &["data1.json", "data1.json"]).exits(2).says("given by data1.json, twice; name it once");
    run(dir.path(), &[".", "data1.json"]).exits(2).says("name it once");
    fs::create_dir(dir.path().join("empty")).expect("it can be made");
    fs::write(dir.path().join("empty/.new.json"), "{}").expect("it can be written");
    let hidden = "directory empty has no file in it, or only hidden ones; name one with files";
    run(dir.path(), &["empty"]).exits(2).says(hidden);
    assert_eq!(tree(dir.path()).len(), 1);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn what_may_not_be_read_is_said() {
    let dir = with("closed.json", "{}");
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).expect("it can be made");
    for path in [&closed, &dir.path().join("closed.json")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).expect("it is ours");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let as_nobody = |input: &str| {
        let mut command = Command::new("setpriv");
        clean(&mut command, dir.path());
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_pipeline"),
            input,
        ]);
        finish(command)
    };
    let ended = |input: &str| match fs::read_dir(&closed) {
        // Root may read everything.
        Ok(_) => as_nobody(input),
        Err(_) => run(dir.path(), &[input]),
    };
    let first = ended("closed");
    if first.stderr.contains("setpriv") {
        eprintln!("skipped: root reads everything, and setpriv: {}", first.stderr);
    } else {
        first.exits(4).says("cannot list closed: Permission denied").says("hint: check the owner and mode");
        ended("closed.json").exits(4).says("closed.json: Permission denied");
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
}

#[test]
fn inputs_without_a_record() {
    for (name, bytes) in [
        ("empty.json", &b""[..]),
        ("array.json", b"[]"),
        ("spaced.json", b" [ \n ] \n"),
        ("blank.json", b"\n\r\n  \n\t\n"),
        ("bom.json", b"\xef\xbb\xbf"),
    ] {
        let dir = with(name, bytes);
        let ended = run(dir.path(), &[name, "--summary", "json"]).exits(0);
        assert_eq!(ended.summary()["records_read"], 0, "{name}");
        assert!(out(&dir).is_empty(), "{name}: no object without a record");
        run(dir.path(), &[name]).exits(0).says("nothing to do");
        assert!(run(dir.path(), &[name, "-o", "-"]).exits(0).stdout.is_empty());
    }
}

#[test]
fn binary_garbage_is_kept_as_dead_letters() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut garbage = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    let bytes: Vec<u8> = (0..300_000).map(&mut garbage).collect();
    for format in ["auto", "ndjson", "json", "text"] {
        let dir = with("x.bin", &bytes);
        let ended = run(dir.path(), &["x.bin", "-f", format, "--summary", "json"]).exits(3);
        let (summary, out) = (ended.summary(), out(&dir));
        assert_eq!(summary["records_rejected"], lines(&out, "failed/"), "{format}");
        assert_eq!(summary["records_stored"], lines(&out, "processed/"), "{format}");
        assert_eq!(summary["samples"].as_array().map(Vec::len), Some(3), "{format}");
    }
}

#[test]
fn a_gzip_that_ends_too_early_leaves_the_records_before() {
    let text: String = (0..20_000).map(|n| format!("{{\"n\":{n},\"x\":\"{:x}\"}}\n", n * 7919)).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("to memory");
    let whole = encoder.finish().expect("to memory");
    let dir = with("cut.gz", &whole[..whole.len() / 2]);
    let said = format!(
        "input cut.gz is damaged at byte {}: it ends in the middle of a gzip member",
        whole.len() / 2
    );
    // One file appears with what could be read, as README says.
    let one = run(dir.path(), &["cut.gz", "-o", "one.ndjson", "--summary", "json"]).exits(4).says(&said);
    let there = fs::read_to_string(dir.path().join("one.ndjson")).expect("it is there");
    assert_eq!(one.summary()["records_stored"], there.lines().count());
    let first = run(dir.path(), &["cut.gz", "-b", "1000", "--summary", "json"]).exits(4).says(&said);
    let stored = out(&dir);
    assert_eq!(first.summary()["records_stored"], lines(&stored, "processed/"));
    assert!(lines(&stored, "processed/") > 5000);
    let data = |line: &str| line[line.find("\"data\":").expect("an envelope") + 7..line.len() - 1].to_owned();
    let objects = stored.values().map(|object| std::str::from_utf8(object).expect("it is text"));
    let records: Vec<String> = objects.flat_map(str::lines).map(data).collect();
    assert!(
        text.lines().zip(&records).all(|(line, record)| line == record),
        "all that stands before the cut"
    );
    let again = run(dir.path(), &["cut.gz", "-b", "1000", "--summary", "json"]).exits(4).says(&said);
    assert_eq!(again.summary()["records_stored"], 0);
    assert_eq!(out(&dir), stored, "the second run changes nothing");

    let mut wrong = whole.clone();
    let at = whole.len() / 2;
    wrong[at..at + 8].fill(0xff);
    let dir = with("wrong.gz", wrong);
    run(dir.path(), &["wrong.gz"]).exits(4).says("input wrong.gz is damaged at byte ");
    let mut more = whole;
    more.extend(b"garbage behind it");
    let dir = with("more.gz", more);
    let ended = run(dir.path(), &["more.gz"]);
    assert!(!ended.stderr.contains("panicked") && lines(&out(&dir), "processed/") == 20_000, "{ended:?}");
}

#[test]
fn a_line_of_1_gib_takes_little_memory() {
    let dir = TempDir::new();
    let file = fs::File::create(dir.path().join("line")).expect("it can be made");
    // A hole: it takes no room on the disk.
    file.set_len(1 << 30).expect("a file can have a hole");
    let args = ["line", "-w", "2", "-f", "ndjson", "--summary", "json"];
    let summary = run(dir.path(), &args).exits(3).summary();
    assert_eq!((&summary["rejected"]["too_large"], &summary["records_read"]), (&1.into(), &1.into()));
    within(&summary, 64);
}

#[test]
fn a_zstd_bomb_takes_little_memory() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("it can be made");
    let zeros = vec![b' '; 1 << 20];
    encoder.write_all(b"{\"first\":1}\n{\"a\":").expect("to memory");
    (0..512).for_each(|_| encoder.write_all(&zeros).expect("to memory"));
    encoder.write_all(b"1}\n{\"last\":1}\n").expect("to memory");
    let bomb = encoder.finish().expect("to memory");
    assert!(bomb.len() < 100_000);
    let dir = with("bomb.zst", bomb);
    let args = ["bomb.zst", "-w", "2", "-f", "ndjson", "--summary", "json"];
    let summary = run(dir.path(), &args).exits(3).summary();
    assert_eq!((&summary["rejected"]["too_large"], &summary["records_stored"]), (&1.into(), &2.into()));
    within(&summary, 64);
}

#[test]
fn a_zstd_window_of_128_mib_needs_to_be_allowed() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("it can be made");
    encoder.window_log(27).expect("it is possible");
    (0..20_000).for_each(|n| writeln!(encoder, "{{\"n\":{n}}}").expect("to memory"));
    let dir = with("wide.zst", encoder.finish().expect("to memory"));
    let ended = run(dir.path(), &["wide.zst"]).exits(4).says("a zstd frame needs a window of 131072 KiB");
    ended.says("a larger memory_limit reads it");
    assert!(out(&dir).is_empty());
    let allowed = ["wide.zst", "--set", "processing.memory_limit=1GiB", "--summary", "json"];
    assert_eq!(run(dir.path(), &allowed).exits(0).summary()["records_stored"], 20_000);
}

#[test]
fn a_hundred_thousand_levels_pass_unchanged() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
    let (arrays, objects) = (deep("[", "]"), deep("{\"a\":", "}"));
    for (format, text) in [
        ("ndjson", format!("{arrays}\n{objects}\n")),
        ("json", format!("[{arrays},{objects}]")),
        ("json", format!("{{}}\n{arrays}\n{objects}\n")),
    ] {
        let dir = with("deep.json", text);
        run(dir.path(), &["deep.json", "-f", format]).exits(0);
        let stored: String = out(&dir).values().map(|object| String::from_utf8_lossy(object)).collect();
        assert!(stored.contains(&format!("\"data\":{arrays}}}\n")) && stored.contains(&objects), "{format}");
    }
    let dir = with("open.json", "[".repeat(100_000));
    assert_eq!(run(dir.path(), &["open.json", "-f", "ndjson"]).exits(3).says("invalid_json").code, Some(3));
    run(dir.path(), &["open.json", "-o", "x", "-f", "json"]).exits(3).says("incomplete");
}

#[test]
fn an_output_that_cannot_be_written_is_said() {
    let dir = with("a.json", "{}\n");
    let ended = run(dir.path(), &["a.json", "-o", "/proc/nothing"]).exits(4);
    assert!(ended.says("pipeline: cannot create ").stdout.is_empty());
    for output in ["a.json/x", "a.json/"] {
        let ended = run(dir.path(), &["a.json", "-o", output]).exits(2);
        assert!(
            ended.says("cannot create the directory a.json").says("a.json is no directory").stdout.is_empty()
        );
        let check = run(dir.path(), &["a.json", "-o", output, "--check"]).exits(2);
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(said.contains("a.json is no directory"), "{said}");
    }
    // The directory of a file is never made, so a wrong name is wrong use.
    for (output, missing) in [
        ("/proc/nothing/x.ndjson", "/proc/nothing is not there; make it first"),
        ("a.json/x.ndjson", "a.json is no directory"),
    ] {
        let said = format!("pipeline: the output {output}: {missing}");
        assert!(
            run(dir.path(), &["a.json", "-o", output]).exits(2).says(&said).stdout.is_empty(),
            "{output}"
        );
    }
    assert_eq!(tree(dir.path()).len(), 1);
}

#[test]
fn a_full_disk_leaves_nothing_half_and_the_next_run_goes_on() {
    // The first hundreds fit under the limit, the last do not.
    let line = |n: usize| format!("{{\"n\":{n},\"pad\":\"{:width$}\"}}\n", 0, width = n / 8);
    let text: String = (0..3000).map(line).collect();
    let all = "--set processing.processed_by=host1 a.json";
    for settings in ["-b 100 -w 1", "-b 0", "-b 0 -z gzip:0"] {
        let dir = with("a.json", &text);
        let args = format!("{settings} {all}");
        let ended = limited(dir.path(), 40, &args).exits(1).says("File too large").says("hint: make room");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let before = out(&dir);
        assert_eq!(before.is_empty(), settings.starts_with("-b 0"), "{settings}");
        let args: Vec<&str> = args.split(' ').chain(["--summary", "json"]).collect();
        let summary = run(dir.path(), &args).exits(0).summary();
        let after = out(&dir);
        assert!(before.iter().all(|(name, object)| &after[name] == object), "what was there is unchanged");
        assert_eq!(summary["records_stored"], 3000 - lines(&before, "processed/"));
        let hidden = tree(&dir.path().join("out/.pipeline"));
        assert_eq!(hidden.keys().collect::<Vec<_>>(), ["lock", "state.json"], "no temporary file is left");
    }
    let dir = with("a.json", &text);
    limited(dir.path(), 40, "-o x.ndjson a.json").exits(1).says("cannot write x.ndjson: File too large");
    assert_eq!(tree(dir.path()).len(), 1);
}

#[test]
fn arguments_anywhere() {
    let dir = with("a.json", "{}\n{}\n{}\n");
    let batches = |args: &[&str]| {
        let ended = run(dir.path(), &[args, &["--summary", "json", "--fresh"]].concat());
        ended.exits(0).summary()["batches"].clone()
    };
    assert_eq!(batches(&["a.json", "-b", "2"]), 2);
    assert_eq!(batches(&["-b1", "a.json"]), 3);
    assert_eq!(batches(&["a.json", "--batch-size=0"]), 1);
    assert_eq!(batches(&["process", "-b", "2", "a.json"]), 2);
    for (args, said) in [
        (&["a.json", "-b", "many"][..], "-b: expected a whole number of records, 0 or more"),
        (&["a.json", "-b", "99999999999999999999999"], "-b: expected a whole number"),
        (&["a.json", "-b"], "-b needs a value"),
        (&["a.json", "--wrokers", "2"], "unknown option --wrokers; did you mean --workers?"),
        (&["a.json", "-z", "bzip2"], "-z: expected none, gzip"),
        (&["a.json", "-f", "xml"], "-f: expected auto, ndjson, json, text or binary, not \"xml\""),
        (&["a.json", "-n", "-3"], "-n: expected"),
        (&["a.json", "--set", "processing.batch_siez=3"], "did you mean processing.batch_size?"),
        (&["a.json", "--set", "nonsense"], "--set"),
        (&["a.json", "-o", ""], "-o: expected a directory"),
        (&["a.json", "-o", "s3://b/p"], "expected the name of a bucket"),
        (&["a.json", "-c", "nope.toml"], "nope.toml"),
    ] {
        let ended = run(dir.path(), args).exits(2).says(said);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn rejects_are_counted_shown_and_limited() {
    let text: String =
        (0..10).map(|n| if n % 2 == 0 { format!("{n}\n") } else { format!("bad {n}\n") }).collect();
    let dir = with("a.json", &text);
    let rejected = |args: &[&str]| {
        let mut command = command(dir.path());
        command.arg("a.json").args(args).arg("--fresh");
        finish(command)
    };
    let shown = "rejected  5 records (invalid_json 5), kept in out/failed
          a.json line 2 (byte 2): invalid_json: expected value at column 1 of the record
          a.json line 4 (byte 10): invalid_json: expected value at column 1 of the record
          a.json line 6 (byte 18): invalid_json: expected value at column 1 of the record
          … and 2 more\n";
    rejected(&[]).exits(3).says(shown);
    rejected(&["--rejects-ok"]).exits(0).says(shown);
    rejected(&["--set", "processing.max_rejected=5"]).exits(3);
    let many = "5 of 10 records were rejected; max_rejected is ";
    rejected(&["--set", "processing.max_rejected=4"])
        .exits(1)
        .says(&format!("{many}4\n"))
        .says("refused   a.json line 2 (byte 2): invalid_json")
        .says("hint: the summary shows");
    rejected(&["--set", "processing.max_rejected=50%"]).exits(3);
    rejected(&["--set", "processing.max_rejected=49%", "--rejects-ok"])
        .exits(1)
        .says(&format!("{many}49%\n"));
    let fails = rejected(&["--set", "processing.on_reject=fail"])
        .exits(1)
        .says("a record was rejected and on_reject is fail: a.json line 2");
    assert!(out(&dir).is_empty(), "{}", fails.stderr);
    let dropped = rejected(&["--set", "processing.on_reject=drop"]).exits(3).says("rejected  5 records");
    assert!(!dropped.stderr.contains("kept in") && lines(&out(&dir), "failed/") == 0, "{}", dropped.stderr);
    assert_eq!(lines(&out(&dir), "processed/"), 5);
}

#[test]
fn what_is_known_to_be_no_text_is_said_at_once() {
    let heads: [(&[u8], &str); 4] = [
        (b"\xfd7zXZ\0\0\x04 1 2 3", "it is xz;"),
        (b"BZh91AY&SY 1 2 3", "it is bzip2;"),
        (b"PK\x03\x04 1 2 3", "it is a zip archive;"),
        (b"\xff\xfe{\0}\0", "it is UTF-16;"),
    ];
    for (bytes, said) in heads {
        let dir = with("in.json", bytes);
        run(dir.path(), &["in.json"]).exits(4).says(said);
        assert!(out(&dir).keys().all(|name| !name.starts_with("processed") && !name.starts_with("failed")));
    }
    // Whoever says what it is has the last word.
    let dir = with("in.txt", b"PK\x03\x04 a line\n");
    run(dir.path(), &["-f", "text", "in.txt"]).exits(0);
}

/// A control group inside of our own that may take so many bytes. Empty again, it is removed when it is dropped.
struct Group(PathBuf);

impl Group {
    /// Says what keeps it from being made.
    fn new(bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let (mount, group, limit) = own
            .lines()
            .find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
                [_, "memory", group] => Some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes")),
                [_, "", group] if !own.contains(":memory:") => Some(("/sys/fs/cgroup", group, "memory.max")),
                _ => None,
            })
            .ok_or("no control groups here")?;
        let name = format!("pipeline-test-{}", std::process::id());
        let path = Path::new(mount).join(group.trim_start_matches('/')).join(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let made = Group(path);
        fs::write(made.0.join(limit), bytes.to_string()).map_err(|error| format!("{limit}: {error}"))?;
        Ok(made)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_memory_limit_keeps_to_that_of_the_control_group_or_is_warned_of() {
    let group = match Group::new(100 << 20) {
        Ok(group) => group,
        Err(lack) => return eprintln!("skipped: no control group can be made: {lack}"),
    };
    let dir = with("a.json", "1\n");
    let inside = |args: &[&str]| {
        let mut command = Command::new("sh");
        clean(&mut command, dir.path());
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.0.join("cgroup.procs"));
        command.arg(env!("CARGO_BIN_EXE_pipeline")).args(args);
        finish(command)
    };
    let shown = inside(&["-w", "16", "a.json", "--print-config"]).exits(0);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("memory_limit = \"80MiB\""), "{text}");
    let fits = inside(&["-w", "16", "a.json"]).exits(0);
    assert!(!fits.stderr.contains("memory_limit"), "{}", fits.stderr);
    inside(&["a.json", "--fresh", "--set", "processing.memory_limit=90MiB"])
        .exits(0)
        .says("processing.memory_limit is 90 MiB, and ")
        .says(" allows this process 100 MiB in all: it may be killed without a word; 80 MiB fit");
}

#[test]
fn a_memory_limit_that_is_too_small_is_refused_with_the_arithmetic() {
    let outputs: [&[&str]; 6] = [
        &[],
        &["-s", "http", "--url", "http://127.0.0.1:1/items"],
        &["-o", "x.ndjson", "--dead-letter", "letters"],
        &["-o", "-", "--state", "kept"],
        &["-o", "s3://bucket", "--set", "s3.endpoint=http://127.0.0.1:1"],
        &["--dry-run"],
    ];
    for output in outputs {
        let dir = with("a.json", "1\n");
        let file: &[&str] = if output.contains(&"http") { &[] } else { &["a.json"] };
        let small = ["--set", "processing.memory_limit=1MiB"];
        run(dir.path(), &[file, &small, output].concat())
            .exits(2)
            .says("memory_limit is 1024 KiB, but at least ")
            .says(" KiB are needed: 512 for reading, ");
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a.json"], "nothing is touched");
    }
}
