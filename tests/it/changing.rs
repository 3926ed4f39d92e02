//! Inputs that grow, are changed or go while they are read.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::runs::{Bench, Ran, Running, lines, until};

/// Starts a run that has opened its input and is not done with it, for nobody reads what it writes; does
/// something to the input; lets the run go on.
fn meddled(bench: &Bench, meddle: impl FnOnce()) -> Ran {
    let mut command = bench.command(SLOW);
    command.stdout(Stdio::piped());
    let mut running = Running::start_unread(command);
    let mut pipe = running.child().stdout.take().expect("it is piped");
    until("the pipe is full", || rustix::io::ioctl_fionread(&pipe).expect("it is a pipe") > 50_000);
    meddle();
    let mut stdout = Vec::new();
    pipe.read_to_end(&mut stdout).expect("it ends");
    let mut ran = running.ended();
    ran.stdout = String::from_utf8_lossy(&stdout).into_owned();
    ran
}

const SLOW: &[&str] =
    &["-w", "1", "-o", "-", "--state", "kept", "--set", "processing.memory_limit=8MiB", "-b", "1", "in.json"];

/// Records that a run cannot hold all at once.
fn large(count: usize) -> String {
    (0..count).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(700_000))).collect()
}

#[test]
fn an_input_that_grows_while_it_is_read_is_read_to_its_end_by_the_next_run() {
    let bench = Bench::new();
    bench.write("in.json", large(40));
    let ran =
        meddled(&bench, || bench.append("in.json", lines(40..45))).expect(0, &["grew from", "run again"]);
    assert_eq!(ran.stdout.lines().count(), 40);
    let ran = bench.run(SLOW).expect(0, &[]);
    assert_eq!(ran.stdout.lines().count(), 5);
    bench.run(SLOW).expect(0, &["nothing to do"]);
}

#[test]
fn an_input_that_is_changed_while_it_is_read_is_never_gone_on_with() {
    let text = large(40);
    type Meddle = fn(&Bench, &str);
    let cases: [(&str, Meddle); 3] = [
        ("truncated while", |bench, text| bench.write("in.json", &text[..text.len() / 2])),
        ("replaced by another file while", |bench, text| {
            bench.write("other", text.replace('x', "y"));
            fs::rename(bench.path("other"), bench.path("in.json")).expect("it can be renamed");
        }),
        ("changed while", |bench, text| {
            let file = fs::File::options().write(true).open(bench.path("in.json")).expect("it is there");
            let half = text.len() / 2;
            file.write_all_at(&text.as_bytes()[half..].to_ascii_uppercase(), half as u64).expect("it works");
        }),
    ];
    for (said, meddle) in cases {
        let bench = Bench::new();
        bench.write("in.json", &text);
        meddled(&bench, || meddle(&bench, &text)).expect(4, &["in.json is damaged", said]);
        bench.run(SLOW).expect(2, &["in.json", "--fresh"]);
    }
}

#[test]
fn an_input_that_is_removed_while_it_is_read_is_read_whole() {
    let bench = Bench::new();
    bench.write("in.json", large(40));
    let remove = || fs::remove_file(bench.path("in.json")).expect("it is there");
    let ran = meddled(&bench, remove).expect(0, &[]);
    assert_eq!(ran.stdout.lines().count(), 40);
    bench.write("in.json", large(40).replace('x', "y"));
    bench.run(SLOW).expect(2, &["in.json", "--fresh"]);
}
