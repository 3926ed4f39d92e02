//! The real executable, as far as it does not run the engine: what it prints, what it refuses, what it exits with.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::runs::Bench;
use crate::support::TempDir;

/// The executable in a directory of its own, with an environment that says nothing.
fn pipeline(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.current_dir(dir).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("PIPELINE_CONFIG");
    command
}

fn output(dir: &Path, args: &[&str]) -> Output {
    pipeline(dir).args(args).output().expect("the executable starts")
}

/// Exit 2, nothing on stdout, and exactly this on stderr.
#[track_caller]
fn wrong(args: &[&str], expected: &str) {
    let dir = TempDir::new();
    let output = output(dir.path(), args);
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("pipeline: {expected}\n"));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").collect();
    assert!(left.is_empty(), "wrong use leaves nothing behind: {left:?}");
}

#[test]
fn questions_are_answered_on_stdout() {
    let dir = TempDir::new();
    for args in [&["--version"][..], &["-V"], &["process", "-V"], &["a", "-b", "1", "--version"]] {
        let output = output(dir.path(), args);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "pipeline 0.1.0\n");
        assert_eq!(output.status.code(), Some(0));
    }
    let help = output(dir.path(), &["-h"]);
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(String::from_utf8_lossy(&help.stdout).contains("pipeline -s file -b 50 data1.json data2.json"));
}

#[test]
fn wrong_use_is_one_line() {
    let none = "no inputs: expected files, directories or - (standard input)";
    wrong(&[], &format!("{none}; to read what is piped in, add -"));
    wrong(&["--bacth-size", "5", "a"], "unknown option --bacth-size; did you mean --batch-size?");
    wrong(&["-w", "0", "a"], "-w: expected a whole number from 1 to 1024, not \"0\"");
    let count = "expected a whole number of records, 0 or more (0: no limit by count)";
    wrong(&["a", "-b", "-1"], &format!("-b: {count}, not \"-1\""));
    wrong(&["help"], "input help: no such file or directory");
    wrong(&["-s", "http"], "no endpoints: expected --url URL (http.urls)");
    wrong(
        &["--url", "ftp://h/?token=secret"],
        "--url: a URL begins with \"ftp\"; expected http://HOST[:PORT]/PATH or https://…",
    );
    wrong(
        &["--url", "http://h/", "a"],
        "files and URLs are named; expected one of them, or -s file or -s http",
    );
    wrong(
        &["-s", "file", "--url", "http://h/", "a"],
        "--url: the source is file (flag -s); expected it with -s http only",
    );
}

#[test]
fn a_typo_in_the_configuration_has_a_place() {
    let dir = TempDir::new();
    std::fs::write(dir.path().join("p.toml"), "[processing]\nbatch_szie = 5\n").expect("it can be written");
    for by_flag in [true, false] {
        let mut command = pipeline(dir.path());
        if by_flag {
            command.args(["-c", "p.toml", "a"])
        } else {
            command.arg("a").env("PIPELINE_CONFIG", "p.toml")
        };
        let output = command.output().expect("the executable starts");
        let expected = "pipeline: p.toml:2:1: unknown key processing.batch_szie; did you mean batch_size?\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn an_unknown_variable_is_a_typo() {
    let dir = TempDir::new();
    let output = pipeline(dir.path()).arg("a").env("PIPELINE_PROCESSING__WORKER", "2").output();
    let output = output.expect("the executable starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean PIPELINE_PROCESSING__WORKERS?"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_is_printed_as_configuration_is_one() {
    let dir = TempDir::new();
    let args = ["-b50", "-o", "x", "-z", "zstd:3", "in put.json", "--print-config"];
    let first = output(dir.path(), &args);
    assert!(first.status.success(), "{first:?}");
    std::fs::write(dir.path().join("p.toml"), &first.stdout).expect("it can be written");
    let again = output(dir.path(), &["-c", "p.toml", "--print-config"]);
    let values = |output: &Output| -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned()).collect()
    };
    assert_eq!(values(&first), values(&again));
    assert!(String::from_utf8_lossy(&again.stdout).contains("# p.toml:5"), "{again:?}");
}

#[test]
fn a_check_tells_everything_and_creates_nothing() {
    let dir = TempDir::new();
    std::fs::write(dir.path().join("a.json"), "{}").expect("it can be written");
    let fine = output(dir.path(), &["--check", "a.json"]);
    assert_eq!(
        String::from_utf8_lossy(&fine.stdout),
        "ok       configuration\nok       input a.json\nok       output out\n"
    );
    assert_eq!(fine.status.code(), Some(0));
    assert!(!dir.path().join("out").exists());
    let bad = output(dir.path(), &["--check", "b.json", "c.json", "-o", "a.json/x"]);
    assert_eq!(String::from_utf8_lossy(&bad.stdout).matches("wrong    ").count(), 3);
    assert_eq!(bad.status.code(), Some(2));
}

#[test]
fn a_closed_stdout_is_quiet_and_a_full_one_is_an_error() {
    let dir = TempDir::new();
    let mut child = pipeline(dir.path()).arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("the executable starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is text");
    assert_eq!((child.wait().expect("it ends").code(), said.as_str()), (Some(0), ""));

    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return eprintln!("skipped: no /dev/full here");
    };
    let output = pipeline(dir.path()).arg("--help").stdout(full).stderr(Stdio::piped()).output();
    assert_eq!(output.expect("the executable starts").status.code(), Some(1));
}

#[test]
fn a_summary_that_cannot_be_written_is_said_before_the_run() {
    let dir = TempDir::new();
    std::fs::write(dir.path().join("a.json"), "{}").expect("it can be written");
    let output = output(dir.path(), &["a.json", "--summary", "json=none/there.json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("pipeline: --summary: cannot write none/there.json: "), "{said}");
    assert_eq!(output.status.code(), Some(2));
    assert!(!dir.path().join("out").exists(), "nothing was run");
}

#[test]
fn wrong_use_of_kafka_is_one_line() {
    wrong(&["-s", "kafka", "--brokers", "a"], "no topics: expected -t NAME (kafka.source.topics)");
    let brokers = "no brokers: expected --brokers HOST:PORT[,...] (kafka.brokers or KAFKA_BROKERS)";
    wrong(&["-t", "a"], brokers);
    wrong(&["-o", "kafka:a", "b.json"], brokers);
    wrong(
        &["-t", "a", "--brokers", "SSL://b:9093"],
        "broker \"SSL://b:9093\": expected HOST:PORT, without SSL://; kafka.tls.enabled = true encrypts",
    );
    wrong(
        &["-t", "a/b", "--brokers", "b"],
        "-t: topic: expected 1 to 249 of a-z, A-Z, 0-9, dot, _ and - (not . or ..), not \"a/b\"",
    );
    wrong(
        &[
            "-t",
            "a",
            "--brokers",
            "b",
            "--set",
            "kafka.sasl.username=u",
            "--set",
            "kafka.sasl.password=env:NONE",
        ],
        "SASL PLAIN without TLS sends the password readable for everybody on the way; expected \
         kafka.tls.enabled = true, a SCRAM mechanism, or kafka.sasl.allow_plaintext = true if that is meant",
    );
}

#[test]
fn a_secret_of_the_environment_is_never_said() {
    let dir = TempDir::new();
    let asked = |args: &[&str]| {
        let mut command = pipeline(dir.path());
        command.env("KAFKA_SASL_PASSWORD", "hunter2").env("KAFKA_SASL_USERNAME", "alice");
        command.env("KAFKA_BROKERS", "a:1,b");
        let output = command.args(args).output().expect("the executable starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("it is text");
        assert!(!said.contains("hunter2"), "{said}");
        (output.status.code(), said)
    };
    let (code, shown) = asked(&["-t", "x", "--print-config"]);
    assert_eq!(code, Some(0));
    for line in [
        "source = \"kafka\"                         # default\n",
        "brokers = [\"a:1,b\"]                      # environment KAFKA_BROKERS\n",
        "password = \"***\"                         # environment KAFKA_SASL_PASSWORD\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    assert_eq!(asked(&["-t", "x", "-v"]).0, Some(2), "PLAIN without TLS");
}

/// What remembers how far topics are read is named, unless it was named to us.
#[test]
fn a_group_that_nobody_named_is_said() {
    for (named, says) in [(&[][..], true), (&["-g", "mine"], false)] {
        let bench = Bench::new();
        let args = ["-t", "in", "--brokers", "nowhere.invalid:9092", "-o", "out"];
        let running = bench.start(&[&args[..], named].concat());
        running.heard("nowhere.invalid");
        let ran = running.kill();
        assert_eq!(ran.stderr.contains("group pipeline-in-"), says, "{}", ran.stderr);
    }
}

/// Whatever asks for JSON: a collector would drop or split lines of text.
#[test]
fn wrong_settings_are_told_in_the_format_that_is_asked_for() {
    let dir = TempDir::new();
    let told = |args: &[&str], variable: Option<&str>| {
        let mut command = pipeline(dir.path());
        command.args(args).args(["-w", "0", "a"]).envs(variable.map(|it| ("PIPELINE_LOG__FORMAT", it)));
        let output = command.output().expect("the executable starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(told(&[], None).starts_with("pipeline: -w: expected"));
    for (args, variable) in
        [(&["--log-format", "json"][..], None), (&["--set", "log.format=json"], None), (&[], Some("json"))]
    {
        let line = told(args, variable);
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(event.to_string().contains("-w: expected a whole number"), "{line}");
    }
}
