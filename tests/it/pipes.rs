//! Pipes as inputs: what was written to them is handed on when nothing more comes, and stored when the run is stopped.

use std::io::Write as _;
use std::process::{ChildStdin, Stdio};

use rustix::process::Signal;

use crate::runs::{Bench, Running, count, lines, numbers, until};

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
        (&[], "{\n\"n\":1}\n{\"n\":2}\n{\"half", "\":3}\n"),
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
    until("the first batch", || count(&bench.path("out/processed"), ".ndjson") == 1);
    running.signal(Signal::INT);
    running.ended().expect(130, &["100 records"]);
    assert_eq!(numbers(&bench.objects("out")), (0..100).collect::<Vec<_>>());
}

/// Lines that come one by one without a pause long enough to count as one.
#[test]
fn lines_that_come_all_the_time_are_handed_on() {
    for more in [&["-f", "ndjson"][..], &[]] {
        let bench = Bench::new();
        let (running, mut pipe) = piped(&bench, &[&["-", "-o", "-"], more].concat());
        let mut next = 0;
        until("some come out while others go in", || {
            pipe.write_all(lines(next..next + 1).as_bytes()).expect("it is read");
            next += 1;
            running.printed().lines().count() > 20
        });
        running.signal(Signal::INT);
        running.ended().expect(130, &[]);
    }
}

/// The first bytes, which tell nothing yet, may come for ever.
#[test]
fn a_pipe_whose_form_is_not_known_yet_can_be_stopped() {
    let bench = Bench::new();
    let (running, mut pipe) = piped(&bench, &["-", "-o", "-"]);
    pipe.write_all(b"{\"long\":\"").expect("it is read");
    until("it is read", || rustix::io::ioctl_fionread(&pipe).is_ok_and(|left| left == 0));
    running.signal(Signal::INT);
    // A byte now and then.
    until("its end", || pipe.write_all(b"x").is_err());
    running.ended().expect(130, &["0 records"]);
}
