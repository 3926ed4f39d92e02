//! Blocks of lines that workers read themselves, where they are as many as processors, or of which they count the lines,
//! where the reader decodes: nobody may be able to tell.
//! With one worker beside a free processor the reader reads everything that is not compressed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::runs::{Bench, Ran, Running, Tree, masked, until};

/// Megabytes of lines of all kinds: records, broken ones, blank ones, very many tiny ones, white space without an end.
fn input() -> String {
    let mut input = String::new();
    for n in 0..30_000 {
        input.push_str(&format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(n % 300)));
        match n % 3000 {
            500 => input.push_str("{\"half\":\n"),
            1000 => input.push_str(&" \n".repeat(45_000)),
            1500 => input.push_str(&"7\n".repeat(20_000)),
            2000 => input.push_str(&format!("\"{}\"\n", "long ".repeat(10_000))),
            2500 => input.push_str("\n\r\n\n"),
            _ => {}
        }
    }
    input
}

#[test]
fn what_is_stored_does_not_depend_on_who_reads() {
    let bench = Bench::new();
    bench.write("in.json", input());
    for pack in ["none", "gzip", "zstd"] {
        let run = |workers: &str| {
            let out = &format!("{pack}-{workers}");
            let args =
                ["-w", workers, "-z", pack, "--set", "processing.batch_bytes=1500KiB", "-o", out, "in.json"];
            bench
                .run(&[&args[..], &["--set", "output.envelope=none"]].concat())
                .expect(3, &["10 records (invalid_json 10)"]);
            bench.objects(out)
        };
        let by_reader = run("1");
        let names: Vec<&String> = by_reader.keys().collect();
        let failed = by_reader.keys().filter(|name| name.starts_with("failed/")).count();
        assert!(failed > 1 && by_reader.len() > failed + 3, "{names:?}");
        for workers in ["2", "4", "9"] {
            let by_workers = run(workers);
            let stored = |tree: &Tree| -> Tree {
                let stored = tree.iter().filter(|(name, _)| name.starts_with("processed/"));
                stored.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
            };
            assert!(stored(&by_workers) == stored(&by_reader), "{pack}, {workers} workers");
            assert_eq!(masked(&by_workers), masked(&by_reader), "with the lines of what was rejected");
        }
    }
}

/// Compressed files, of which workers count the lines: as it is where the reader reads everything of a plain one.
#[test]
fn what_is_stored_does_not_depend_on_who_counts() {
    // Blocks are 1024 of these lines, and in each 8 KiB of a block the reader looks at one: it sees nothing of the rest.
    let calm = |count: usize| format!("{{\"text\":\"{}\"}}\n", "x".repeat(244)).repeat(count);
    let deceiving = "\n".repeat(4500);
    let text = [calm(3 * 1024 + 5 * 32 + 1), deceiving, calm(5000), input(), input()].concat();
    let run = |bytes: &[u8], workers: &str| {
        let bench = Bench::new();
        bench.write("in.json", bytes);
        let set = ["--set", "processing.batch_bytes=7MiB", "--set", "output.envelope=none"];
        let ran = bench
            .run(&[&["-w", workers, "--log-level", "info", "in.json"], &set[..]].concat())
            .expect(3, &["20 records (invalid_json 20)"]);
        let (stored, failed): (Tree, Tree) =
            bench.objects("out").into_iter().partition(|(name, _)| name.starts_with("processed/"));
        (stored, masked(&failed), ran.stderr.matches("in.json is decoded again").count())
    };
    let (stored, failed, _) = run(text.as_bytes(), "1");
    assert!(stored.len() > 2 && failed.len() > 1, "{} and {}", stored.len(), failed.len());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("it is memory");
    let gzip = gzip.finish().expect("it is memory");
    let zstd = zstd::bulk::compress(text.as_bytes(), 1).expect("it is memory");
    for (packed, what) in [(gzip, "gzip"), (zstd, "zstd")] {
        for workers in ["1", "2", "5"] {
            let counted = run(&packed, workers);
            assert!(counted.0 == stored, "{what}, {workers} workers");
            assert_eq!(counted.1, failed, "with the lines of what was rejected");
            assert_eq!(counted.2, 1, "{what}, {workers} workers: the reader went back");
        }
    }
}

const SLOW: &[&str] = &["-w", "4", "-o", "-", "--state", "kept", "--set", "output.envelope=none", "in.json"];

/// Starts a run that has opened its input and is not done with it, for nobody reads what it writes; does something to
/// the input; lets the run go on.
fn meddled(bench: &Bench, meddle: impl FnOnce()) -> Ran {
    let mut command = bench.command(SLOW);
    command.stdout(Stdio::piped());
    let mut running = Running::start_unread(command);
    let pipe = running.child().stdout.take().expect("it is piped");
    until("the pipe is full", || rustix::io::ioctl_fionread(&pipe).expect("it is a pipe") > 50_000);
    meddle();
    let stdout = std::io::read_to_string(pipe).expect("it ends");
    Ran { stdout, ..running.ended() }
}

#[test]
fn a_file_that_is_changed_under_the_workers_is_never_mixed() {
    let line = |n: usize| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(1000));
    // More than a run holds.
    let text: String = (0..150_000).map(line).collect();
    let half = text.len() / 2;
    type Meddle<'a> = &'a dyn Fn(&Bench);
    let file =
        |bench: &Bench| fs::File::options().write(true).open(bench.path("in.json")).expect("it is there");
    let cases: [(&str, Meddle<'_>); 3] = [
        ("truncated while", &|bench| file(bench).set_len(half as u64).expect("it works")),
        ("while it was read", &|bench| bench.write("in.json", text.replace('\n', " "))),
        ("changed while", &|bench| {
            let upper = text.as_bytes()[half..].to_ascii_uppercase();
            file(bench).write_all_at(&upper, half as u64).expect("it works");
        }),
    ];
    for (said, meddle) in cases {
        let bench = Bench::new();
        bench.write("in.json", &text);
        let ran = meddled(&bench, || meddle(&bench)).expect(4, &["in.json is damaged", said]);
        // What was read before is whole and in order.
        let stored = ran.stdout.len();
        assert!(stored >= 50_000 && ran.stdout.ends_with('\n'), "{stored}");
        let same =
            ran.stdout.lines().zip(text.lines()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
        assert_eq!(same, ran.stdout.lines().count(), "{said}");
        // Nothing else is said to be done.
        let mark = &bench.state("kept")["partitions"]["in.json"]["watermark"];
        assert_eq!(mark.as_u64(), Some(ran.stdout.len() as u64), "{said}");
        bench.run(SLOW).expect(2, &["in.json", "--fresh"]);
    }
}
