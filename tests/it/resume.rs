//! SIGKILL at any moment: whoever looks sees whole objects only, and the run that goes on ends with the very
//! bytes of a run that nobody disturbed. Runs that are compared get the same start by a prepared state, so
//! nothing has to be masked.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::runs::{Bench, Dice, Running, Tree, count, lines, masked, numbers, text, until};

/// What one case of the loop reads, and with which options.
struct Case {
    name: &'static str,
    input: Vec<u8>,
    args: &'static [&'static str],
    code: i32,
}

fn cases() -> Vec<Case> {
    let mut broken = String::new();
    for (at, line) in lines(0..600).lines().enumerate() {
        broken.push_str(line);
        broken.push_str(if at % 100 == 7 { "\n{\"half\":\n" } else { "\n" });
    }
    let array = format!("[{}]", lines(0..600).trim_end().replace('\n', ",\n "));
    // So large that workers read most of it themselves.
    let wide = lines(0..600).replace("\"}", &format!("{}\"}}", "x".repeat(4000)));
    let pack = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).expect("it is memory");
        gzip.finish().expect("it is memory")
    };
    vec![
        Case { name: "lines", input: broken.into(), args: &["-b", "2", "-w", "3"], code: 3 },
        Case {
            name: "array",
            input: array.clone().into(),
            args: &["-b", "3", "-w", "2", "-z", "gzip"],
            code: 0,
        },
        Case {
            name: "blocks",
            input: wide.clone().into(),
            args: &["--set", "processing.batch_bytes=700KiB", "-w", "4"],
            code: 0,
        },
        Case {
            name: "packed blocks",
            input: pack(&wide.replace('x', "xyzxyz")),
            args: &["--set", "processing.batch_bytes=6MiB", "-w", "4"],
            code: 0,
        },
        Case { name: "gzip", input: pack(&lines(0..600)), args: &["-b", "1", "-w", "4"], code: 0 },
        Case {
            name: "packed array",
            input: pack(&array),
            args: &["-b", "5", "-w", "2", "-z", "zstd"],
            code: 0,
        },
    ]
}

/// Runs in `dir` that all begin at the same time, as the state says.
struct Seeded {
    bench: Bench,
    args: Vec<String>,
    state: Vec<u8>,
    reference: Tree,
}

impl Seeded {
    fn new(case: &Case) -> Self {
        let bench = Bench::new();
        bench.write("in.json", &case.input);
        bench.write("more.json", lines(600..620));
        let mut args: Vec<String> = case.args.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--set", "output.fsync=false", "in.json", "more.json"].map(str::to_owned));
        let mut seeded = Seeded { bench, args, state: Vec::new(), reference: Tree::new() };
        seeded.start("first").ended().expect(case.code, &[]);
        let mut state = seeded.bench.state("first/.pipeline");
        state["partitions"] = json!({});
        state["run"]["finished"] = json!(false);
        state["run"]["started_at"] = json!(1_700_000_000_000_i64);
        seeded.state = (state.to_string() + "\n").into();
        seeded.seed("reference");
        seeded.start("reference").ended().expect(case.code, &[]);
        seeded.reference = seeded.bench.objects("reference");
        let found: BTreeSet<u64> = numbers(&seeded.reference).into_iter().collect();
        assert_eq!(found, (0..620).collect(), "all that is in the input is in the output");
        assert_eq!(masked(&seeded.bench.objects("first")), masked(&seeded.reference));
        seeded
    }

    fn seed(&self, out: &str) {
        let _ = fs::remove_dir_all(self.bench.path(out));
        fs::create_dir_all(self.bench.path(out).join(".pipeline")).expect("it can be made");
        self.bench.write(&format!("{out}/.pipeline/state.json"), &self.state);
    }

    fn start(&self, out: &str) -> Running {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        args.extend(["-o", out]);
        self.bench.start(&args)
    }

    /// Everything that can be seen is already what it will be.
    fn check_visible(&self, out: &str) {
        for (name, bytes) in self.bench.objects(out) {
            let expected = self.reference.get(&name).unwrap_or_else(|| panic!("{name} should not be there"));
            assert!(*expected == bytes, "{name} is {}", text(&name, &bytes));
        }
    }
}

/// Lets a run go on for a while: some milliseconds, or until there are more objects.
fn wait_a_while(running: &mut Running, seeded: &Seeded, dice: &mut Dice) {
    let out = seeded.bench.path("out");
    if dice.below(3) == 0 {
        let end = Instant::now() + Duration::from_millis(dice.below(60));
        while Instant::now() < end && !running.is_over() {
            thread::yield_now();
        }
    } else {
        let ending = match dice.below(4) {
            0 => "",
            _ => ".ndjson",
        };
        let objects = || count(&out.join("processed"), ending) + count(&out.join(".pipeline"), ending);
        let wanted = objects() + 1 + dice.below((seeded.reference.len() as u64 / 8).max(1)) as usize;
        until("more objects", || objects() >= wanted || running.is_over());
    }
}

#[test]
fn killed_at_any_moment_and_started_again_it_ends_with_the_same_bytes() {
    let mut dice = Dice(20_261_123);
    let (mut kills, mut ends) = (0, 0);
    let begun = Instant::now();
    let cases: Vec<(Case, Seeded)> =
        cases().into_iter().map(|case| (Seeded::new(&case), case)).map(|(a, b)| (b, a)).collect();
    while kills < 50 || ends < cases.len() {
        let (case, seeded) = &cases[ends % cases.len()];
        seeded.seed("out");
        loop {
            let mut running = seeded.start("out");
            wait_a_while(&mut running, seeded, &mut dice);
            let ran = running.kill();
            seeded.check_visible("out");
            if ran.code.is_some() {
                ran.expect(case.code, &[]);
                break;
            }
            kills += 1;
        }
        ends += 1;
        assert!(seeded.bench.objects("out") == seeded.reference, "{}: not the same at the end", case.name);
        assert_eq!(seeded.bench.leftovers("out"), Vec::<String>::new(), "{}", case.name);
        assert!(begun.elapsed() < Duration::from_secs(300), "{kills} kills, {ends} ends");
    }
    eprintln!("{kills} kills, {ends} runs that came to their end, {:?}", begun.elapsed());
}

/// `--fresh` deletes before it begins, and may be killed at either.
#[test]
fn a_fresh_run_that_is_killed_leaves_nothing_of_the_old_one() {
    let mut dice = Dice(7);
    let bench = Bench::new();
    bench.write("in.json", lines(0..400).replace("}\n", "}\n{\"half\n"));
    let run = |batch, out, more: &[&'static str]| {
        let mut args = vec!["-b", batch, "--set", "output.fsync=false", "in.json", "-o", out];
        args.extend(more);
        bench.start(&args)
    };
    run("3", "reference", &[]).ended().expect(3, &[]);
    let reference = masked(&bench.objects("reference"));
    for _ in 0..6 {
        let _ = fs::remove_dir_all(bench.path("out"));
        run("2", "out", &[]).ended().expect(3, &[]);
        let before = bench.tree("out");
        let running = run("3", "out", &["--fresh"]);
        let began = || {
            fs::read(bench.path("out/.pipeline/state.json")).ok().as_ref()
                != before.get(".pipeline/state.json")
        };
        until("the old state is gone", began);
        let wanted = dice.below(120) as usize;
        until("some objects", || count(&bench.path("out/processed"), ".ndjson") <= 400 - wanted);
        running.kill();
        run("3", "out", &[]).ended().expect(3, &[]);
        assert!(masked(&bench.objects("out")) == reference);
        assert_eq!(bench.leftovers("out"), Vec::<String>::new());
    }
}
