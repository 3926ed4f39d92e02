//! What is remembered between runs: nothing to do, changed settings, changed inputs, other outputs, locks,
//! `--fresh`, `--state`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::runs::{Bench, Ran, Running, Tree, count, lines, numbers, until};

/// A run over `in.json` in batches of 50.
const RUN: &[&str] = &["-b", "50", "in.json"];

/// One member.
fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

/// 120 records, processed once.
#[track_caller]
fn finished() -> Bench {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120));
    bench.run(RUN).expect(0, &[]);
    bench
}

/// Refuses, says why, and leaves everything as it was.
#[track_caller]
fn refused(bench: &Bench, args: &[&str], said: &[&str]) -> Ran {
    let before = stamps(bench);
    let ran = bench.run(args).expect(2, said);
    assert_eq!(stamps(bench), before, "something was touched");
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("pipeline: ")).count(), 1, "{}", ran.stderr);
    ran
}

/// When each file last changed, and which one it is.
fn stamps(bench: &Bench) -> Vec<(String, u64, i64, i64)> {
    let stamp = |name: String| {
        let about = fs::metadata(bench.path("out").join(&name)).expect("it is there");
        (name, about.ino(), about.mtime(), about.mtime_nsec())
    };
    bench.tree("out").into_keys().filter(|name| name != ".pipeline/lock").map(stamp).collect()
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.keys().map(String::as_str).collect()
}

#[track_caller]
fn is_whole(bench: &Bench, range: std::ops::Range<u64>) {
    let found = numbers(&bench.objects("out"));
    assert!(found == range.clone().collect::<Vec<u64>>(), "{} records instead of {range:?}", found.len());
}

#[test]
fn a_finished_run_is_not_done_again() {
    let bench = finished();
    let before = stamps(&bench);
    bench.run(RUN).expect(0, &["nothing to do", "--fresh"]);
    assert_eq!(stamps(&bench), before);

    bench.append("in.json", "{\"half\"\n");
    bench.run(RUN).expect(3, &[]);
    let before = stamps(&bench);
    bench.run(RUN).expect(3, &["nothing to do", "--fresh"]);
    bench.run(&["-b", "50", "in.json", "--rejects-ok"]).expect(0, &["nothing to do"]);
    assert_eq!(stamps(&bench), before);
    is_whole(&bench, 0..120);
}

#[test]
fn fresh_does_it_again_and_leaves_nothing_stale() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120) + "{\"half\"\n");
    bench.write("other.json", lines(500..510));
    bench.run(&["-b", "50", "in.json", "other.json"]).expect(3, &[]);
    assert_eq!(bench.objects("out").len(), 5);
    refused(
        &bench,
        &["-b", "100", "in.json", "other.json"],
        &["batch_size was 50 and is 100 now", "--fresh"],
    );

    bench.run(&["-b", "100", "in.json", "other.json", "--fresh"]).expect(3, &[]);
    let objects = bench.objects("out");
    assert_eq!(objects.len(), 4, "{:?}", names(&objects));
    assert_eq!(numbers(&objects), (0..120).chain(500..510).collect::<Vec<u64>>());
    bench.run(&["-b", "100", "in.json", "other.json"]).expect(3, &["nothing to do"]);

    // Another extension is another name: the old one must go too.
    bench.run(&["-b", "100", "-z", "gzip", "in.json", "other.json", "--fresh"]).expect(3, &[]);
    let objects = bench.objects("out");
    assert!(objects.len() == 4 && objects.keys().all(|name| name.ends_with(".gz")), "{:?}", names(&objects));
    assert_eq!(bench.leftovers("out"), Vec::<String>::new());
}

#[test]
fn fresh_leaves_alone_what_others_put_there() {
    let bench = finished();
    let [mine, theirs] = ["out/processed/in.json/notes.txt", "out/processed/else.json"];
    bench.write(mine, "mine");
    bench.write(theirs, "theirs");
    bench.run(&["-b", "100", "in.json", "--fresh"]).expect(0, &[]);
    let objects = bench.objects("out");
    assert_eq!(objects.len(), 4, "{:?}", names(&objects));
}

#[test]
fn each_changed_setting_is_named() {
    let bench = finished();
    let cases: [(&[&str], &str); 6] = [
        (&["-b", "51"], "batch_size was 50 and is 51 now"),
        (&["-z", "gzip"], "compress was none and is gzip"),
        (&["-f", "text"], "format was auto and is text now"),
        (&["--set", "output.envelope=none"], "envelope was default and is none now"),
        (&["--set", "output.key=x/"], "key was not set and is x/ now"),
        (&["--set", "processing.on_reject=drop"], "on_reject was dead-letter and is drop now"),
    ];
    for (args, said) in cases {
        let mut all = RUN.to_vec();
        all.extend(args);
        refused(&bench, &all, &[said, "--fresh"]);
    }
    // These change no byte.
    let mut all = RUN.to_vec();
    all.extend(["-w", "1", "--set", "processing.memory_limit=64MiB", "--set", "processing.max_rejected=5"]);
    bench.run(&all).expect(0, &["nothing to do"]);
}

/// `--fresh` replaces what stands under earlier names, too, whichever run it is that names an input.
#[test]
fn changed_names_leave_nothing_behind() {
    let bench = Bench::new();
    bench.write("a.json", lines(0..30) + "broken\n");
    bench.write("b.json", lines(30..60));
    let run = |args: &[&str]| bench.run(&[&["-b", "10", "--rejects-ok"], args].concat());
    let stored = |top: &str| {
        let tree = bench.objects("out");
        let below = |name: &String| Some(name.strip_prefix(top)?.trim_start_matches('/').to_owned());
        tree.keys().filter_map(below).collect::<Vec<String>>()
    };
    run(&["a.json", "b.json"]).expect(0, &[]);
    let hive = run(&["a.json", "b.json", "--set", "output.key=hive"]);
    hive.expect(2, &["output.key: hive has {date}", "no clock may name"]);
    let (x, y) = ("output.key=x/{path}/part-{start}", "output.key=y/");
    run(&["a.json", "b.json", "--set", x]).expect(2, &["key was not set and is x/{path}", "--fresh"]);
    run(&["a.json", "--set", x, "--fresh"]).expect(0, &[]);
    let at = |dir: &str, starts: [usize; 3]| starts.map(|start| format!("{dir}{start:020}.ndjson"));
    let starts = |from: usize| [0, 10, 20].map(|n| lines(from..from + n).len());
    assert_eq!(stored("processed"), [at("b.json/", starts(30)), at("x/a.json/part-", starts(0))].concat());
    assert_eq!(stored("failed"), [format!("x/a.json/part-{:020}.ndjson", lines(0..30).len())]);
    // What another run named, in the old way.
    run(&["a.json", "b.json", "--set", x]).expect(0, &["nothing to do"]);
    run(&["a.json", "b.json", "--set", y, "--fresh"]).expect(0, &[]);
    let both = [at("y/a.json/", starts(0)), at("y/b.json/", starts(30))].concat();
    assert_eq!(stored("processed"), both);
    assert_eq!(stored("failed"), [format!("y/a.json/{:020}.ndjson", lines(0..30).len())]);
    // Nobody knows how these were made.
    run(&["a.json", "--set", y, "--state", "none"])
        .expect(2, &["is there already", "out/processed/y/a.json/0000"]);
    run(&["a.json", "--set", y, "--state", "none", "--fresh"]).expect(0, &[]);
    assert_eq!(stored("processed"), both);
}

#[test]
fn a_changed_input_is_refused() {
    let old = lines(0..120);
    let cases: [(&str, String, &str); 4] = [
        ("same length", old.replacen("\"n\":5,", "\"n\":6,", 1), "in.json"),
        ("truncated", lines(0..60), "in.json shrank from"),
        ("another one", lines(300..600), "in.json"),
        ("grown in front", lines(600..601) + &old, "in.json"),
    ];
    for (what, text, said) in cases {
        let bench = finished();
        bench.write("in.json", text);
        let ran = refused(&bench, RUN, &[said, "--fresh"]);
        assert!(!ran.stderr.contains("nothing to do"), "{what}");
        bench.run(&["-b", "50", "in.json", "--fresh"]).expect(0, &[]);
    }
}

#[test]
fn what_was_appended_is_all_that_is_read() {
    let bench = finished();
    let old = bench.objects("out");
    bench.append("in.json", "\n\n".to_owned() + &lines(120..190) + "{\"half\":\n");
    let at = lines(0..120).len();
    bench.run(RUN).expect(3, &["71 "]);
    is_whole(&bench, 0..190);
    let new = bench.objects("out");
    assert!(old.iter().all(|(name, bytes)| new.get(name) == Some(bytes)), "what was there is as it was");
    let id = |n: usize| format!("\"message_id\":\"file:in.json:{}\"", at + 2 + lines(120..n).len());
    let first = &new[&format!("processed/in.json/{at:020}.ndjson")];
    assert!(String::from_utf8_lossy(first).contains(&id(120)), "{}", String::from_utf8_lossy(first));
    let letters: Vec<&Vec<u8>> =
        new.iter().filter(|(name, _)| name.starts_with("failed/")).map(|(_, l)| l).collect();
    let letter: Value = serde_json::from_slice(letters[0]).expect("one line");
    assert!(letter.to_string().contains("193"), "line 193: {letter}");
    bench.run(RUN).expect(3, &["nothing to do"]);
}

#[test]
fn an_input_that_grew_in_the_middle_of_a_record_is_refused() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120) + "{\"n\":12");
    bench.run(RUN).expect(3, &[]);
    bench.append("in.json", "0}\n");
    refused(&bench, RUN, &["in.json grew", "in the middle of a record", "--fresh"]);
}

#[test]
fn a_compressed_input_that_grew_in_the_middle_of_a_record_is_read_no_further() {
    let bench = Bench::new();
    bench.write("in.json", gzip(&(lines(0..120) + "12")));
    bench.run(RUN).expect(0, &[]);
    let before = bench.objects("out");
    bench.append("in.json", gzip("34\n5\n"));
    for _ in 0..2 {
        bench.run(RUN).expect(4, &["in.json", "it has grown in the middle of the last record", "--fresh"]);
        assert!(bench.objects("out") == before);
    }
    bench.run(&["-b", "50", "in.json", "--fresh"]).expect(0, &[]);
    bench.append("in.json", gzip("6\n"));
    bench.run(RUN).expect(0, &[]);
}

#[test]
fn new_inputs_are_read_and_old_ones_may_be_gone() {
    let bench = finished();
    bench.write("new.json", lines(120..180));
    bench.run(&["-b", "50", "in.json", "new.json"]).expect(0, &[]);
    is_whole(&bench, 0..180);
    bench.write("third.json", lines(180..190));
    fs::remove_file(bench.path("in.json")).expect("it is there");
    bench.run(&["-b", "50", "new.json", "third.json"]).expect(0, &[]);
    is_whole(&bench, 0..190);
    bench.run(&["-b", "50", "third.json"]).expect(0, &["nothing to do"]);
}

#[test]
fn a_state_belongs_to_one_output() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120));
    let run = |out: &'static str| vec!["-b", "50", "in.json", "--state", "kept", "-o", out];
    bench.run(&run("out")).expect(0, &[]);
    assert!(!bench.path("out/.pipeline").exists(), "the state is elsewhere");
    bench.run(&run("out")).expect(0, &["nothing to do"]);
    bench.run(&run("out/../out")).expect(0, &["nothing to do"]);
    refused(&bench, &run("other"), &["kept", "out", "other", "--fresh"]);
    assert!(numbers(&bench.objects("other")).is_empty());

    // Without that state, or with the one of another output, objects of unknown origin are there.
    refused(&bench, RUN, &["is there already", "--fresh"]);
    refused(&bench, &["-b", "50", "in.json", "--state", "new"], &["is there already", "--fresh"]);
}

#[test]
fn a_damaged_state_is_refused() {
    let bench = finished();
    let path = bench.path("out/.pipeline/state.json");
    let whole = fs::read_to_string(&path).expect("it is there");
    let cases = [
        String::new(),
        "{".into(),
        whole[..whole.len() / 2].into(),
        whole.trim_end().into(),
        whole.replace("\"version\":1", "\"version\":2"),
        whole.replace("\"watermark\"", "\"watermrak\""),
        whole.replace("\"watermark\":", "\"watermark\":-"),
        "[]\n".into(),
        "\0".repeat(100),
    ];
    for case in cases {
        fs::write(&path, &case).expect("it can be written");
        refused(&bench, RUN, &["state.json cannot be used", "--fresh"]);
    }
    bench.run(&["-b", "50", "in.json", "--fresh"]).expect(0, &[]);
    is_whole(&bench, 0..120);
    bench.run(RUN).expect(0, &["nothing to do"]);
}

#[test]
fn without_a_state_nothing_is_left_behind_and_nothing_is_mixed() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120));
    let run = ["-b", "50", "in.json", "--state", "none"];
    bench.run(&run).expect(0, &[]);
    is_whole(&bench, 0..120);
    assert!(!bench.path("out/.pipeline").exists(), "{:?}", names(&bench.tree("out")));
    refused(&bench, &run, &["is there already", "--fresh"]);
    bench.run(&["-b", "100", "in.json", "--state", "none", "--fresh"]).expect(0, &[]);
    assert_eq!(bench.tree("out").len(), 2, "{:?}", names(&bench.tree("out")));
    refused(&bench, RUN, &["is there already", "--fresh"]);
}

#[test]
fn stdin_is_not_mixed_with_what_is_there() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..120));
    let piped = |args: &[&str]| {
        let mut command = bench.command(args);
        command.stdin(fs::File::open(bench.path("in.json")).expect("it is there"));
        Running::start(command).ended()
    };
    piped(&["-b", "50", "-"]).expect(0, &[]);
    is_whole(&bench, 0..120);
    let before = bench.objects("out");
    piped(&["-b", "50", "-"]).expect(2, &["is there already", "--fresh"]);
    assert!(bench.objects("out") == before);
    piped(&["-b", "100", "-", "--fresh"]).expect(0, &[]);
    assert_eq!(bench.objects("out").len(), 2);
}

#[test]
fn two_runs_do_not_store_what_nothing_is_remembered_of() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..3));
    make_fifo(&bench.path("fifo"));
    let fifo = || fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
    let (_open, none) = (fifo(), ["--state", "none"]);
    let start = |args: &[&str]| {
        let mut command = bench.command(args);
        command.stdin(fifo());
        Running::start(command)
    };
    let first = start(&["-", "in.json", "--state", "none"]);
    let claims = || count(&bench.path("out/.pipeline"), "claim");
    until("its claim", || claims() == 1);
    let holder = format!("is locked by process {}, which stores \"stdin in processed/", first.id());
    start(&["-"]).ended().expect(1, &["another run is at work here: out/.pipeline/tmp-", &holder, "hint: "]);
    start(&["-", "--fresh"]).ended().expect(1, &[&holder]);
    bench.run(&[&["in.json"][..], &none].concat()).expect(1, &["which stores \"in.json in processed/"]);
    // What the other one does not store may be.
    bench.write("more.json", lines(3..6));
    bench.run(&[&["more.json"][..], &none].concat()).expect(0, &[]);
    first.signal(Signal::INT);
    first.ended().expect(130, &[]);
    assert_eq!(claims(), 0);
}

/// Starts a run that waits for a FIFO, with its state locked.
fn held(bench: &Bench) -> (Running, fs::File) {
    make_fifo(&bench.path("fifo"));
    let running = bench.start(&["-b", "1", "in.json", "fifo"]);
    // Opened for both, so that neither side waits for the other.
    let fifo = fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
    until("the first object", || count(&bench.path("out/processed"), ".ndjson") > 0);
    (running, fifo)
}

pub fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("FIFOs can be made");
}

#[test]
fn two_runs_do_not_share_a_state() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..3));
    let (first, fifo) = held(&bench);
    let second = bench.run(&["-b", "1", "in.json"]);
    let holder = format!("process {} on", first.id());
    second.expect(1, &["another run is at work here: out/.pipeline/lock is locked", &holder, "hint: "]);
    bench.run(&["-b", "1", "in.json", "--fresh"]).expect(1, &["another run is at work here"]);
    first.signal(Signal::INT);
    first.ended().expect(130, &[]);
    drop(fifo);
    is_whole(&bench, 0..3);
}

#[test]
fn a_limit_of_rejected_records_can_be_raised() {
    let bench = Bench::new();
    let bad: String = (0..20).map(|n| format!("{}{{\"half\":{n}\n", lines(n * 10..n * 10 + 10))).collect();
    bench.write("in.json", bad);
    let run = |limit: &'static str| vec!["-b", "5", "-w", "1", "in.json", "--set", limit];
    bench.run(&run("processing.max_rejected=3")).expect(1, &["max_rejected is 3", "hint: "]);
    bench.run(&run("processing.max_rejected=100%")).expect(3, &[]);
    is_whole(&bench, 0..200);
    let undisturbed = Bench::new();
    undisturbed.write("in.json", fs::read(bench.path("in.json")).expect("it is there"));
    undisturbed.run(&["-b", "5", "in.json"]).expect(3, &[]);
    assert_eq!(names(&bench.objects("out")), names(&undisturbed.objects("out")));
}

/// A limit is not passed by starting the same run again and again.
#[test]
fn rejected_records_of_an_interrupted_run_count_for_the_limit() {
    let bench = Bench::new();
    let line = |n: usize| match n % 20 {
        9 => "{\"half\":\n".to_owned(),
        _ => format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(20_000)),
    };
    bench.write("in.json", (0..100).map(line).collect::<String>());
    let run = ["-w", "1", "-b", "10", "in.json", "--set", "processing.max_rejected=3"];
    bench.run(&run).expect(1, &["4 of ", " records were rejected; max_rejected is 3"]);
    let again = "1 of ";
    bench.run(&run).expect(1, &[again, ", and 3 before the run was interrupted; max_rejected is 3"]);
    bench.run(&["-w", "1", "-b", "10", "in.json", "--set", "processing.max_rejected=5"]).expect(3, &[]);
    assert_eq!(numbers(&bench.objects("out")).len(), 95);
}

#[test]
fn an_input_that_was_begun_and_is_gone_is_told() {
    let bench = Bench::new();
    fs::create_dir(bench.path("d")).expect("it can be made");
    bench.write("d/a.json", lines(0..100));
    make_fifo(&bench.path("fifo"));
    let running = bench.start(&["-b", "10", "-w", "2", "d", "fifo"]);
    let _fifo = fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
    until("all of the file", || count(&bench.path("out/processed"), ".ndjson") == 10);
    running.signal(Signal::INT);
    running.ended().expect(130, &[]);
    let path = bench.path("out/.pipeline/state.json");
    // As a run that was stopped in the middle would have left it.
    let state = fs::read_to_string(&path).expect("there is a state");
    fs::write(&path, state.replacen("\"ended\":true", "\"ended\":false", 1)).expect("it can be written");
    fs::remove_file(bench.path("d/a.json")).expect("it is there");
    bench.write("d/b.json", lines(100..110));
    bench
        .run(&["-b", "10", "d"])
        .expect(0, &["d/a.json is stored up to byte", "is not among the inputs any more"]);
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5000));
    make_fifo(&bench.path("fifo"));
    for (out, rest) in [("x.ndjson.gz", ""), ("y.ndjson", "")] {
        let hidden = |bench: &Bench| count(&bench.path("."), ".tmp");
        let running = bench.start(&["-b", "10", "in.json", "fifo", "-o", out]);
        let fifo = fs::File::options().read(true).write(true).open(bench.path("fifo")).expect("it is there");
        until("the temporary file", || hidden(&bench) == 1);
        running.kill();
        assert!(!bench.path(out).exists());
        drop(fifo);
        bench.run(&["-b", "10", "in.json", "-o", out]).expect(0, &[rest]);
        assert_eq!(hidden(&bench), 0, "what the dead run left is gone");
        let text = crate::runs::text(out, &fs::read(bench.path(out)).expect("it is there"));
        assert_eq!(text.lines().count(), 5000);
        assert!(!bench.path("out").exists());
        bench.run(&["-b", "10", "in.json", "-o", out]).expect(0, &[]);
    }
}

#[test]
fn a_state_elsewhere_remembers_a_stream_too() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    let run = |bench: &Bench| {
        let mut command = bench.command(&["-b", "2", "in.json", "-o", "-", "--state", "kept"]);
        command.stdin(Stdio::null());
        Running::start(command).ended()
    };
    assert_eq!(run(&bench).expect(0, &[]).stdout.lines().count(), 5);
    assert_eq!(run(&bench).expect(0, &["nothing to do"]).stdout, "");
    bench.append("in.json", lines(5..7));
    assert_eq!(run(&bench).expect(0, &[]).stdout.lines().count(), 2);
    // Another stream has nothing of it yet.
    bench
        .run(&["-b", "2", "in.json", "-o", "/dev/null", "--state", "kept"])
        .expect(2, &["belongs to the output stdout, not /dev/null"]);
}

#[test]
fn a_check_tells_whether_a_run_would_go_on() {
    let bench = Bench::new();
    bench.write("in.json", lines(0..5));
    let check = |args: &[&str], code: i32, said: &str| {
        let before = bench.tree("out");
        let ran = bench.run(&[args, &["in.json", "--check"]].concat()).expect(code, &[]);
        assert!(ran.stdout.ends_with(said), "{said:?} is not the end of\n{}", ran.stdout);
        assert_eq!(bench.tree("out"), before);
    };
    let settings = "wrong    what earlier runs left: batch_size was 2 and is 3 now; --fresh begins again and replaces \
                    what the earlier run left\n";
    check(&["-b", "2"], 0, "ok       output out\n");
    bench.run(&["-b", "2", "in.json"]).expect(0, &[]);
    check(&["-b", "2"], 0, "ok       what earlier runs left\n");
    check(&["-b", "3"], 2, settings);
    for other in [["--fresh", "-b3"], ["-b3", "--state=none"], ["-b3", "-n1"]] {
        check(&other, 0, "ok       output out\n");
    }
    bench.write("in.json", lines(5..10));
    let input = "wrong    what earlier runs left: input in.json has another beginning than at the last run; --fresh begins \
                 again and replaces what the earlier run left\n";
    check(&["-b", "2"], 2, input);
    check(&["-b", "2", "--fresh"], 0, "ok       output out\n");
    bench.write("in.json", lines(0..7));
    check(&["-b", "2"], 0, "ok       what earlier runs left\n");
    bench.run(&["-b", "2", "in.json", "-o", "-", "--state", "kept"]).expect(0, &[]);
    let ran =
        bench.run(&["-b", "2", "in.json", "-o", "/dev/null", "--state", "kept", "--check"]).expect(2, &[]);
    assert!(ran.stdout.contains("belongs to the output stdout, not /dev/null"), "{}", ran.stdout);
    // An output that is not there yet.
    let new = ["-b", "2", "in.json", "-o", "new", "--state", "kept", "--check"];
    let ran = bench.run(&new).expect(2, &[]);
    assert!(ran.stdout.contains("belongs to the output stdout, not "), "{}", ran.stdout);
    bench.run(&[&new[..], &["--fresh"]].concat()).expect(0, &[]);
    assert!(!bench.path("new").exists());
}

/// The state that a run leaves that is killed before its first mark: everything is published, nothing known.
fn forget_marks(bench: &Bench) {
    let mut state = bench.state("out/.pipeline");
    state["run"]["finished"] = false.into();
    for entry in state["partitions"].as_object_mut().expect("a table").values_mut() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb924";
        (entry["watermark"], entry["line"], entry["ended"]) = (0.into(), 0.into(), false.into());
        entry["rejected"] = 0.into();
        entry["identity"]["block"] = nothing.into();
    }
    bench.write("out/.pipeline/state.json", state.to_string() + "\n");
}

/// A run that goes on with an interrupted one ends like that one would have; one that only has more to read, on its
/// own.
#[test]
fn what_an_interrupted_run_rejected_counts_when_it_is_gone_on_with() {
    let bench = Bench::new();
    bench.write("in.json", "broken\n".to_owned() + &lines(0..20));
    bench.write("more.json", lines(20..25));
    bench.run(&["in.json"]).expect(3, &["rejected  1 record (invalid_json 1), kept in out/failed"]);
    bench.run(&["in.json", "more.json"]).expect(0, &["stored    5 records"]);

    let mut state = bench.state("out/.pipeline");
    state["run"]["finished"] = false.into();
    bench.write("out/.pipeline/state.json", state.to_string() + "\n");
    bench.write("last.json", lines(25..30));
    let all = &["in.json", "more.json", "last.json"];
    let told =
        ["stored    5 records", "rejected  1 record before the run was interrupted, kept in out/failed"];
    bench.run(all).expect(3, &told);
    bench.run(all).expect(3, &["nothing to do"]);
}

#[test]
fn an_input_that_changes_before_the_first_mark_is_not_mixed() {
    let old = lines(0..120);
    for text in [lines(300..420), lines(0..119), old.replacen("\"n\":5,", "\"n\":6,", 1)] {
        let bench = finished();
        forget_marks(&bench);
        bench.write("in.json", text);
        refused(&bench, RUN, &["in.json", "--fresh"]);
    }
    let bench = finished();
    let before = bench.objects("out");
    forget_marks(&bench);
    bench.run(RUN).expect(0, &[]);
    assert!(bench.objects("out") == before);
}

/// Behind the first 64 KiB a change cannot be seen where nothing was marked. What is there beyond the mark is
/// done again in any case, so nothing of the old input may stay.
#[test]
fn what_was_published_beyond_the_mark_does_not_outlive_its_input() {
    let bench = Bench::new();
    let old = lines(0..4000);
    let (same, rest) = old.split_at(100_000 + old[100_000..].find('\n').expect("a line") + 1);
    let bad = "{\"half\n";
    bench.write("in.json", format!("{same}{bad}{rest}"));
    bench.run(RUN).expect(3, &[]);
    forget_marks(&bench);
    // Every batch behind the change begins elsewhere now, and the length is the same.
    let changed = format!("{same}{rest}{}", " ".repeat(bad.len()));
    bench.write("in.json", &changed);
    bench.run(RUN).expect(0, &[]);
    is_whole(&bench, 0..4000);
    let other = Bench::new();
    other.write("in.json", &changed);
    other.run(RUN).expect(0, &[]);
    assert_eq!(names(&bench.objects("out")), names(&other.objects("out")));
}
