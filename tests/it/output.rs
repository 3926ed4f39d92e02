//! Where the records go: directories, files, stdout and devices, plain and compressed, read back by the tools that
//! others read them with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Ended, TempDir, clean, finish, lines, run, tree};

const BAD: &str = "{\"n\":1}\noops\n{\"n\":2}\n";

/// A directory with `a.ndjson`, that many records of about 40 bytes.
fn records(count: usize) -> TempDir {
    let dir = TempDir::new();
    let text: String = (0..count).map(|n| format!("{{\"n\":{n},\"text\":\"{:020}\"}}\n", n % 7)).collect();
    write(dir.path(), "a.ndjson", &text);
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("it can be written");
}

/// What a shell says to a script, with the executable as `$0`.
#[track_caller]
fn shell(dir: &Path, script: &str) -> Ended {
    let mut command = Command::new("bash");
    clean(&mut command, dir);
    command.args(["-c", script, env!("CARGO_BIN_EXE_pipeline")]);
    finish(command)
}

/// Whether a tool is there; says so aloud if it is not.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: no {tool} here");
    }
    there
}

/// What a tool makes of a file is what the run without compression wrote.
#[track_caller]
fn reads(dir: &Path, tool: &str, args: &[&str]) {
    if !has(tool) {
        return;
    }
    let mut command = Command::new(tool);
    clean(&mut command, dir);
    command.args(args);
    let ended = finish(command).exits(0);
    let plain = fs::read(dir.join("plain.ndjson")).expect("it is there");
    assert!(
        masked(&ended.stdout) == masked(&plain),
        "{tool} reads something else: {} bytes",
        ended.stdout.len()
    );
}

/// Without the time of the run.
fn masked(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).expect("outputs are UTF-8");
    let line = |line: &str| match line.split_once("\"processed_at\":\"") {
        Some((before, after)) => before.to_owned() + after.split_once('"').expect("a time ends").1,
        None => line.to_owned(),
    };
    text.lines().map(line).collect()
}

const PYTHON: &str = "import sys,zlib
d=zlib.decompressobj(31)
b=d.decompress(open(sys.argv[1],'rb').read())
assert d.eof and not d.unused_data
sys.stdout.buffer.write(b)";
const NODE: &str =
    "process.stdout.write(require('zlib').gunzipSync(require('fs').readFileSync(process.argv[1])))";

#[test]
fn a_file_is_one_gzip_member_that_everything_reads() {
    let dir = records(20_000);
    for output in ["plain.ndjson", "x.ndjson.gz", "x.ndjson.zst"] {
        run(dir.path(), &["a.ndjson", "-o", output, "-q"]).exits(0);
    }
    let left = tree(dir.path());
    assert_eq!(left.keys().collect::<Vec<_>>(), ["a.ndjson", "plain.ndjson", "x.ndjson.gz", "x.ndjson.zst"]);
    assert_eq!(lines(&left, "plain.ndjson"), 20_000);
    reads(dir.path(), "gzip", &["-dc", "x.ndjson.gz"]);
    reads(dir.path(), "python3", &["-c", PYTHON, "x.ndjson.gz"]);
    reads(dir.path(), "node", &["-e", NODE, "x.ndjson.gz"]);
    reads(dir.path(), "zstd", &["-dcq", "x.ndjson.zst"]);
    run(dir.path(), &["a.ndjson", "-o", "x.ndjson.gz", "-z", "zstd"])
        .exits(2)
        .says("expected a name that ends in .zst");
}

#[test]
fn each_object_is_one_gzip_member() {
    let dir = records(20_000);
    run(dir.path(), &["a.ndjson", "-o", "plain.ndjson", "-q"]).exits(0);
    let plain = tree(dir.path());
    let plain = masked(plain.get("plain.ndjson").unwrap_or_else(|| panic!("only {:?}", plain.keys())));
    for (name, tool, args) in [
        ("gzip", "python3", &["-c", PYTHON][..]),
        ("zstd:3", "zstd", &["-dcq"]),
        ("gzip:6", "gzip", &["-dc"]),
    ] {
        run(dir.path(), &["a.ndjson", "-z", name, "-b", "15000", "-o", name]).exits(0);
        let objects = tree(&dir.path().join(name));
        assert_eq!(objects.len(), 2, "{name}");
        if !has(tool) {
            continue;
        }
        let mut all = Vec::new();
        for object in objects.keys() {
            let mut command = Command::new(tool);
            clean(&mut command, dir.path());
            let path = dir.path().join(name).join(object);
            all.extend(
                finish({
                    command.args(args).arg(path);
                    command
                })
                .exits(0)
                .stdout,
            );
        }
        assert!(masked(&all) == plain, "{name}");
    }
}

#[test]
fn curl_reads_a_gzip_object_that_a_server_sends() {
    let dir = records(5000);
    for output in ["plain.ndjson", "x.ndjson.gz"] {
        run(dir.path(), &["a.ndjson", "-o", output, "-q"]).exits(0);
    }
    if !has("curl") {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/x", server.local_addr().expect("it is bound"));
    let body = fs::read(dir.path().join("x.ndjson.gz")).expect("it is there");
    let serve = move || {
        use std::io::{BufRead, BufReader, Write};
        let (mut peer, _) = server.accept().expect("curl comes");
        let head = BufReader::new(peer.try_clone().expect("it is a socket")).lines();
        head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
        peer.write_all(head.as_bytes()).and_then(|()| peer.write_all(&body)).expect("curl reads");
    };
    let serving =
        std::thread::Builder::new().name("serve".into()).spawn(serve).expect("a thread can be started");
    reads(dir.path(), "curl", &["-s", "--compressed", "--noproxy", "*", "--max-time", "20", &url]);
    serving.join().expect("it served");
}

#[test]
fn stdout_has_the_records_of_all_inputs_in_order() {
    let dir = records(10_000);
    write(dir.path(), "b.json", "[\"b\"]");
    write(dir.path(), "0.json", "\"last\"");
    let ended =
        run(dir.path(), &["a.ndjson", "b.json", "0.json", "-o", "-", "--set", "output.envelope=none"]);
    let text = String::from_utf8(ended.exits(0).stdout).expect("it is text");
    let input = fs::read_to_string(dir.path().join("a.ndjson")).expect("it is there");
    assert!(text == input + "\"b\"\n\"last\"\n");
    assert_eq!(tree(dir.path()).len(), 3, "nothing is left beside it");
}

#[test]
fn a_reader_of_stdout_that_goes_away_is_no_failure() {
    let dir = records(50_000);
    let ended = shell(dir.path(), "\"$0\" a.ndjson -o - | head -1; echo ${PIPESTATUS[0]}");
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines.last()), (2, Some(&"0")), "{text}");
    assert_eq!(ended.stderr, "");
    let closed = shell(dir.path(), "\"$0\" a.ndjson -o - >&-").stderr;
    assert!(!closed.contains("panicked"), "{closed}");
}

#[test]
fn a_record_without_a_place_ends_the_run_and_says_what_to_do() {
    for output in ["-", "x.ndjson"] {
        let dir = TempDir::new();
        write(dir.path(), "bad.json", BAD);
        let ended = run(dir.path(), &["bad.json", "-o", output]).exits(1);
        let ended = ended.says(
            "a record was rejected and there is no place for it: bad.json line 2 (byte 8): invalid_json",
        );
        ended.says("hint: --dead-letter DIR or kafka:TOPIC keeps rejected records and goes on");
        assert_eq!(tree(dir.path()).len(), 1, "no file is left: {:?}", tree(dir.path()).keys());

        let kept = run(dir.path(), &["bad.json", "-o", output, "--dead-letter", "kept", "--summary", "json"]);
        let summary = kept.exits(3).summary();
        assert_eq!((&summary["records_stored"], &summary["records_rejected"]), (&2.into(), &1.into()));
        assert_eq!(summary["dead_letters"], "kept/failed");
        assert_eq!(lines(&tree(&dir.path().join("kept/failed")), ""), 1);
        let dropped = run(dir.path(), &["bad.json", "-o", output, "--set", "processing.on_reject=drop"]);
        assert!(!dropped.exits(3).stderr.contains("kept in"));
    }
}

#[test]
fn devices_are_written_as_they_are() {
    let dir = records(3000);
    run(dir.path(), &["a.ndjson", "-o", "/dev/null"]).exits(0).says("stored    3,000 records");
    if Path::new("/dev/full").exists() {
        for args in [&["a.ndjson", "-o", "/dev/full"][..], &["a.ndjson", "-o", "/dev/full", "-z", "gzip"]] {
            let ended = run(dir.path(), args).exits(1).says("cannot write /dev/full: No space left");
            assert!(
                !ended.stderr.contains("panicked") && !ended.stderr.contains("goes on"),
                "{}",
                ended.stderr
            );
        }
        let ended = shell(dir.path(), "\"$0\" a.ndjson -o - >/dev/full").exits(1);
        assert!(ended.says("No space left").stdout.is_empty());
    }
    let left = tree(dir.path());
    assert_eq!(left.keys().collect::<Vec<_>>(), ["a.ndjson"]);
}

#[test]
fn a_file_is_replaced_only_when_all_is_there() {
    let dir = records(3000);
    write(dir.path(), "x.ndjson", "old\n");
    write(dir.path(), "bad.json", BAD);
    run(dir.path(), &["a.ndjson", "bad.json", "-o", "x.ndjson"]).exits(1);
    assert_eq!(fs::read_to_string(dir.path().join("x.ndjson")).expect("it is there"), "old\n");
    run(dir.path(), &["a.ndjson", "-o", "x.ndjson"]).exits(0);
    assert_eq!(lines(&tree(dir.path()), "x.ndjson"), 3000);
    let hidden = fs::read_dir(dir.path()).expect("it is there").flatten();
    let hidden: Vec<_> = hidden.filter(|it| it.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn what_a_run_writes_is_no_input() {
    let dir = records(10);
    let stored = |args: &[&str]| run(dir.path(), &[args, &["--summary", "json"]].concat()).exits(0).summary();
    assert_eq!(stored(&["."])["records_stored"], 10);
    assert_eq!(stored(&["."])["outcome"], "nothing-to-do");
    assert_eq!(stored(&[".", "--fresh"])["records_stored"], 10);
    let outputs = ["-o", "x.ndjson", "--state", "none"];
    assert_eq!(stored(&[&["a.ndjson"], &outputs[..]].concat())["records_stored"], 10);
    // Twice 10 from a.ndjson and ./out; none from x.ndjson, which is there now.
    assert_eq!(stored(&[&["."], &outputs[..]].concat())["records_stored"], 20);

    let refused = |args: &[&str], what: &str| {
        let said = format!(
            "pipeline: input {what} is where this run writes; name another input or another --output"
        );
        run(dir.path(), args).exits(2).says(&said)
    };
    refused(&["out/processed"], "out/processed");
    refused(&["a.ndjson", "-o", "./a.ndjson"], "a.ndjson");
    // The directory of the input is a fine place.
    assert_eq!(stored(&["a.ndjson", "-o", "."])["records_stored"], 10);
}

#[test]
fn what_stdout_goes_to_is_no_input() {
    let dir = records(10);
    let before = tree(dir.path());
    for script in ["\"$0\" a.ndjson -o - >> a.ndjson", "\"$0\" -o - - < a.ndjson >> a.ndjson"] {
        shell(dir.path(), script).exits(2).says(" is also where standard output goes");
    }
    assert_eq!(tree(dir.path()), before);
    shell(dir.path(), "\"$0\" -o - - < a.ndjson > b.ndjson").exits(0);
    assert_eq!(lines(&tree(dir.path()), "b.ndjson"), 10);
}
