//! SIGINT and SIGTERM: the first drains, the second aborts, and neither waits for others; what comes after goes
//! on where it stopped.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::runs::{Bench, Running, count, lines, masked, numbers, until};
use crate::state::make_fifo;

/// "Within a second", on a machine that does other things too.
const SOON: Duration = Duration::from_secs(10);

/// Many inputs, so that a run is never done with reading when it is stopped: some hundreds are in flight.
const FILES: usize = 4000;

const RUN: &[&str] = &["-b", "2", "-w", "2", "--set", "output.fsync=false", "in"];

fn inputs() -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("in")).expect("it is new");
    for file in 0..FILES {
        bench.write(&format!("in/{file:04}.json"), lines(file * 5..file * 5 + 5));
    }
    bench
}

fn begun(bench: &Bench) -> Running {
    let running = bench.start(RUN);
    until("the first object", || count(&bench.path("out/processed"), ".ndjson") > 0);
    running
}

/// The output is what a run makes that nobody disturbed.
#[track_caller]
fn is_as_undisturbed(bench: &Bench) {
    let other = inputs();
    other.run(RUN).expect(0, &[]);
    assert!(masked(&bench.objects("out")) == masked(&other.objects("out")));
    assert_eq!(bench.leftovers("out"), Vec::<String>::new());
    assert_eq!(numbers(&bench.objects("out")), (0..5 * FILES as u64).collect::<Vec<u64>>());
}

/// How many records stand before the marks.
fn marked(bench: &Bench) -> usize {
    let state = bench.state("out/.pipeline");
    let done = |(name, entry): (&String, &serde_json::Value)| {
        let text = fs::read(bench.path(name)).expect("it is there");
        let mark = entry["watermark"].as_u64().expect("a number") as usize;
        text[..mark].iter().filter(|byte| **byte == b'\n').count()
    };
    state["partitions"].as_object().expect("a table").iter().map(done).sum()
}

#[test]
fn a_signal_drains_and_the_next_run_goes_on() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let bench = inputs();
        let running = begun(&bench);
        running.signal(signal);
        running.ended().expect(code, &["stopping", "stopped"]);
        assert_eq!(bench.leftovers("out"), Vec::<String>::new());
        let before = bench.objects("out");
        let stored = numbers(&before).len();
        assert!(stored < 5 * FILES, "it was stopped too late");
        assert_eq!(marked(&bench), stored, "all that is stored is remembered: nothing is done twice");
        bench.run(RUN).expect(0, &[]);
        let after = bench.objects("out");
        assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
        is_as_undisturbed(&bench);
    }
}

#[test]
fn a_second_signal_aborts_and_the_next_run_goes_on() {
    let bench = inputs();
    let running = begun(&bench);
    running.signal(Signal::INT);
    // Not merged into one by the kernel: the first has been seen.
    running.heard("stopping");
    running.signal(Signal::INT);
    running.ended_within(SOON).expect(130, &[]);
    bench.run(RUN).expect(0, &[]);
    is_as_undisturbed(&bench);
}

#[test]
fn a_run_that_waits_for_its_input_can_be_stopped() {
    let bench = Bench::new();
    make_fifo(&bench.path("fifo"));
    let open = || fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
    for (input, signal, code) in [("-", Signal::INT, 130), ("fifo", Signal::TERM, 143)] {
        for out in ["out", "-", "x.ndjson"] {
            let writer = open();
            let mut command = bench.command(&["-b", "5", input, "-o", out]);
            command.stdin(open());
            let running = Running::start(command);
            running.signal(signal);
            running.ended_within(SOON).expect(code, &["stopping"]);
            assert!(!bench.path("x.ndjson").exists());
            drop(writer);
        }
    }
}

/// One file appears although an input is damaged, but not where the run was stopped, and then nothing counts as stored.
#[test]
fn a_file_that_does_not_appear_is_not_told_of() {
    let bench = Bench::new();
    bench.write("cut.gz", [0x1f, 0x8b, 8, 0]);
    make_fifo(&bench.path("fifo"));
    let args = ["cut.gz", "fifo", "-o", "x.ndjson", "--summary", "json"];
    let running = Running::start(bench.command(&args));
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let open = || fs::File::options().write(true).custom_flags(nonblock).open(bench.path("fifo")).ok();
    let mut writer = None;
    until("the second input is read", || {
        writer = open();
        writer.is_some()
    });
    let mut writer = writer.expect("it was opened");
    writer.write_all(b"{}\n").expect("it is read");
    running.signal(Signal::INT);
    let ran = running.ended_within(SOON).expect(4, &["input cut.gz is damaged"]);
    assert!(!bench.path("x.ndjson").exists());
    let summary = ran.stderr.lines().find(|line| line.starts_with('{')).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(summary).expect("it is JSON");
    assert_eq!((&summary["output"], &summary["records_stored"]), (&serde_json::Value::Null, &0.into()));
}

#[test]
fn a_run_whose_reader_does_not_read_can_be_aborted() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..20_000));
    make_fifo(&bench.path("fifo"));
    let unread = fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
    for out in ["-", "fifo"] {
        let mut command = bench.command(&["-b", "50", "in.json", "-o", out]);
        command.stdout(Stdio::piped());
        let mut running = Running::start_unread(command);
        let pipe = running.child().stdout.take().expect("it is piped");
        let waiting = || match out {
            "-" => rustix::io::ioctl_fionread(&pipe),
            _ => rustix::io::ioctl_fionread(&unread),
        };
        until("the pipe is full", || waiting().expect("it is a pipe") > 50_000);
        running.signal(Signal::INT);
        running.heard("stopping");
        running.signal(Signal::INT);
        running.ended_within(SOON).expect(130, &["aborting"]);
    }
}

#[cfg(feature = "s3")]
#[test]
fn a_second_signal_waits_for_no_keys() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..3));
    bench.write("config", "[default]\ncredential_process = echo >started; sleep 50\n");
    let mut command = bench.command(&["in.json", "-o", "s3://bucket/"]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    command.envs([
        ("AWS_CONFIG_FILE", "config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "none"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
    ]);
    let running = Running::start(command);
    until("the program", || bench.path("started").exists());
    running.signal(Signal::INT);
    running.heard("stopping");
    running.signal(Signal::INT);
    // The program has the run's stderr, whose end is waited for: nothing of it is left behind.
    running.ended_within(SOON).expect(130, &["aborting"]);
}

/// A disk that is full: no file may be larger than the limit.
#[test]
fn a_run_for_which_there_is_no_room_goes_on_when_there_is() {
    let bench = Bench::new();
    let mut text = String::new();
    for n in 0..400 {
        let long = if n == 250 { 40_000 } else { 10 };
        text.push_str(&format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(long)));
    }
    bench.write("in.json", text);
    let run = ["-b", "5", "-w", "2", "in.json"];
    let limited = || Running::start(bench.limited(16, &run)).ended();
    limited().expect(1, &["cannot write", "hint: make room and run the same command again"]);
    let before = bench.objects("out");
    assert!(!before.contains_key("x") && numbers(&before).len() < 400);
    limited().expect(1, &["cannot write"]);
    assert_eq!(bench.leftovers("out"), Vec::<String>::new());
    bench.run(&run).expect(0, &[]);
    let after = bench.objects("out");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    assert_eq!(numbers(&after), (0..400).collect::<Vec<u64>>());
    let mut times: Vec<String> = Vec::new();
    for (name, bytes) in &after {
        for line in crate::runs::text(name, bytes).lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
            times.push(line["processed_at"].to_string());
        }
    }
    times.dedup();
    assert_eq!(times.len(), 1, "all three runs are one: {times:?}");
}
