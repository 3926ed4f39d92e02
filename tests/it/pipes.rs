//! Pipes as inputs: what was written to them is handed on when nothing more comes, and stored when the run is stopped.

use std::io::Write as _;
use std::process::{ChildStdin, Stdio};

use rustix::process::Signal;

use crate::runs::{Bench, Running, lines, numbers, until};

/// A run with a pipe as its stdin that stays open.
fn piped(bench: &Bench, args: &[&str]) -> (Running, ChildStdin) {
    let mut command = bench.command(args);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let pipe = running.child().stdin.take().expect("it is piped");
    (running, pipe)
}

#[test]
fn lines_of_a_pipe_are_handed_on_as_they_come() {
    let bare = ["-", "-o", "-", "--set", "output.envelope=none"];
    // A format that is given, one that is found out, and records that are no lines.
    for (more, first, second) in [
        (&["-f", "ndjson"][..], "{\"n\":1}\n{\"n\":2}\n{\"half", "\":3}\n"),
        (&[], "{\"n\":1}\n{\"n\":2}\n{\"half", "\":3}\n"),
        (&["-f", "json"], "{\n\"n\":1}\n{\"n\":2}\n{\"half", "\":3}\n"),
        (&[], "[{\"n\":1},\n{\"n\":2},{\"half", "\":3},\n"),
    ] {
        let bench = Bench::new();
        let (running, mut pipe) = piped(&bench, &[&bare[..], more].concat());
        pipe.write_all(first.as_bytes()).expect("it is read");
        until("two records", || running.printed().matches("\"n\"").count() == 2);
        pipe.write_all(second.as_bytes()).expect("it is read");
        until("the third", || running.printed().ends_with("{\"half\":3}\n"));
        running.signal(Signal::INT);
        let ended = running.ended().expect(130, &["3 records"]);
        assert!(ended.stdout.ends_with("{\"n\":2}\n{\"half\":3}\n"), "{}", ended.stdout);
    }
}

#[test]
fn what_was_read_of_a_pipe_is_stored_by_a_run_that_is_stopped() {
    let bench = Bench::new();
    bench.write("in.json", lines(100..200));
    let (running, mut pipe) = piped(&bench, &["-", "-b", "80"]);
    pipe.write_all(lines(0..100).as_bytes()).expect("it is read");
    until("the first batch", || numbers(&bench.objects("out")).len() == 80);
    running.signal(Signal::INT);
    running.ended().expect(130, &["100 records"]);
    assert_eq!(numbers(&bench.objects("out")), (0..100).collect::<Vec<_>>());
}
