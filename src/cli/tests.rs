//! The command line as a user meets it: precedence, provenance, and what each mistake says.

use super::*;

const FILE: &str = "[processing]\nbatch_size = 1\nworkers = 1\ntimeout = '1s'\noutput = 'from-file'\n";

/// Arguments, variables and one file, `c.toml`.
fn ask(args: &[&str], variables: &[(&str, &str)]) -> Result<Request, Vec<String>> {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
    let variables: Vec<_> = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    parse(&args, &|| Ambient {
        variables: variables.clone(),
        stdin_is_terminal: false,
        read: &|path| match path {
            "c.toml" => Ok(FILE.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
    })
}

#[track_caller]
fn run(args: &[&str], variables: &[(&str, &str)]) -> Invocation {
    match ask(args, variables) {
        Ok(Request::Run(invocation)) => *invocation,
        Ok(Request::Print(text)) => panic!("printed {text}"),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[track_caller]
fn print(args: &[&str], variables: &[(&str, &str)]) -> String {
    match ask(args, variables) {
        Ok(Request::Print(text)) => text,
        Ok(Request::Run(invocation)) => panic!("ran {invocation:?}"),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[track_caller]
fn wrong(args: &[&str], expected: &str) {
    match ask(args, &[]) {
        Err(problems) => assert_eq!(problems, [expected]),
        Ok(_) => panic!("{args:?} is taken"),
    }
}

#[test]
fn the_main_job_is_understood() {
    for args in [
        ["-s", "file", "-b", "50", "data1.json", "data2.json"],
        ["data1.json", "data2.json", "--batch-size", "50", "--source", "file"],
    ] {
        let config = run(&args, &[]).config;
        assert_eq!(config.processing.batch_size, 50);
        assert_eq!(config.input.files, ["data1.json", "data2.json"]);
        assert_eq!(config.output, pipeline::config::Output::default());
    }
    assert_eq!(run(&["process", "a", "--batch-size=0"], &[]).config.processing.batch_size, 0);
}

#[test]
fn flags_come_before_set_before_environment_before_file() {
    let variables = [
        ("PIPELINE_CONFIG", "c.toml"),
        ("PIPELINE_PROCESSING__BATCH_SIZE", "2"),
        ("PIPELINE_PROCESSING__WORKERS", "2"),
        ("PIPELINE_PROCESSING__TIMEOUT", "2s"),
    ];
    let set = ["--set", "processing.batch_size=3", "--set", "processing.workers=3", "-b4", "a"];
    let processing = run(&set, &variables).config.processing;
    assert_eq!(processing.batch_size, 4);
    assert_eq!(processing.workers.get(), 3);
    assert_eq!(processing.timeout.as_secs(), 2);

    let shown = print(&[&set[..], &["--print-config"]].concat(), &variables);
    for expected in [
        "batch_size = 4                           # flag -b\n",
        "workers = 3                              # --set\n",
        "timeout = \"2s\"                           # environment PIPELINE_PROCESSING__TIMEOUT\n",
        "output = \"from-file\"                     # c.toml:5\n",
        "max_retries = 8                          # default\n",
        "files = [\"a\"]                            # command line, inputs\n",
    ] {
        assert!(shown.contains(expected), "{expected}{shown}");
    }
}

#[test]
fn wrong_values_name_the_option_as_it_was_written() {
    let size = "expected a whole number of records, 0 or more (0: no limit by count)";
    wrong(&["-b", "-1", "a"], &format!("-b: {size}, not \"-1\""));
    wrong(&["--batch-size=x", "a"], &format!("--batch-size: {size}, not \"x\""));
    wrong(&["-w", "0", "a"], "-w: expected a whole number from 1 to 1024, not \"0\"");
    wrong(&["-f", "csv", "a"], "-f: expected auto, ndjson, json or text, not \"csv\"");
    wrong(&["-z", "lz4", "a"], "-z: expected none, gzip[:0…9] or zstd[:-7…19], not \"lz4\"");
    wrong(&["--shard", "4/4", "a"], "--shard: expected I/N with I from 0 to N-1, like 0/4, not \"4/4\"");
    wrong(&["-n", "x", "a"], "-n: expected a whole number of records, 0 or more, not \"x\"");
    wrong(&["--progress", "x", "a"], "--progress: expected auto, always or never, not \"x\"");
    wrong(&["--summary", "json=", "a"], "--summary: expected text, json or json=FILE, not \"json=\"");
    wrong(&["-qv", "a"], "-q and -v contradict each other; expected one of them");
    wrong(
        &["--check", "--dry-run", "a"],
        "--check and --dry-run contradict each other; expected one of them",
    );
    wrong(&["--set", "x", "a"], "--set: expected KEY=VALUE like processing.batch_size=50, not \"x\"");
    wrong(
        &["--set", "processing.bacth_size=1", "a"],
        "--set: unknown key processing.bacth_size; did you mean processing.batch_size?",
    );
    wrong(&["--set", "workers=1", "a"], "--set: unknown key workers; did you mean processing.workers?");
}

#[test]
fn what_this_build_cannot_do_yet_says_what_it_can() {
    let reads = "it reads from: file (files, directories and -)";
    wrong(&["-s", "kafka"], &format!("-s: this build cannot read from kafka yet; {reads}"));
    wrong(&["-s", "http"], &format!("-s: this build cannot read from http yet; {reads}"));
    wrong(&["-s", "api"], &format!("-s: this build cannot read from api yet; {reads}"));
    for (place, kind) in [("s3://bucket/x", "s3"), ("kafka:topic", "kafka")] {
        let problems = ask(&["-o", place, "a"], &[]).err().unwrap();
        let start = format!("-o: this build cannot write to {kind} yet; it writes to a directory, a file");
        assert!(problems[0].starts_with(&start), "{problems:?}");
    }
}

#[test]
fn no_inputs_is_a_hint() {
    let what = "expected files, directories or - (standard input)";
    wrong(&[], &format!("no inputs: {what}; to read what is piped in, add -"));
    wrong(&["-s", "file"], &format!("no inputs: {what}; --help shows examples"));
    wrong(&[""], "inputs: expected a list of files, directories and -, none of them empty, not [\"\"]");
    assert_eq!(run(&["-"], &[]).config.input.files, ["-"]);
    assert_eq!(run(&[], &[("PIPELINE_INPUT__FILES", "a b")]).config.input.files, ["a b"]);
    assert!(print(&["--print-config"], &[]).contains("[processing]"));
}

#[test]
fn a_missing_configuration_file_is_told() {
    let problems = ask(&["-c", "none.toml", "a"], &[]).err().unwrap();
    assert!(problems[0].starts_with("--config: expected a configuration file, cannot read \"none.toml\":"));
    assert_eq!(run(&["a"], &[("PIPELINE_CONFIG", "")]).config.processing.batch_size, 0);
}

#[test]
fn the_log_follows_the_strongest_word() {
    use log::LevelFilter::{Debug, Error, Info, Warn};
    let log = |args: &[&str], variables: &[(&str, &str)]| {
        let it = run(&[args, &["a"]].concat(), variables);
        (it.log.level, it.log_filter)
    };
    let rust_log = ("RUST_LOG", "trace");
    assert_eq!(log(&[], &[]), (Warn, None));
    assert_eq!(log(&[], &[rust_log]), (Warn, Some("trace".into())));
    assert_eq!(log(&["-v"], &[rust_log]), (Debug, None));
    assert_eq!(log(&["-q"], &[]), (Error, None));
    assert_eq!(log(&["-v", "--log-level=info"], &[]), (Info, None));
    assert_eq!(log(&[], &[rust_log, ("PIPELINE_LOG__LEVEL", "info")]), (Info, None));
}

#[test]
fn every_key_can_be_set_by_environment_and_by_set() {
    for key in key::KEYS {
        let (key::Default::Is(value) | key::Default::Absent(value, _)) = key.default;
        let by_variable = print(&["--print-config"], &[(&key.variable(), value)]);
        assert!(by_variable.contains(&format!("# environment {}\n", key.variable())), "{}", key.path());
        let by_set = print(&["--print-config", "--set", &format!("{}={value}", key.path())], &[]);
        let line = by_set.lines().find(|line| line.ends_with("# --set"));
        assert!(line.is_some_and(|line| line.starts_with(key.name)), "{}", key.path());
    }
}

#[test]
fn switches_reach_the_invocation() {
    let it = run(
        &["--fresh", "--replay", "-n5", "--rejects-ok", "--dry-run", "-q", "--summary=json=s.json", "a"],
        &[],
    );
    assert!(it.config.processing.fresh && it.config.input.replay && it.rejects_ok);
    assert_eq!(it.config.processing.limit, Some(5));
    assert_eq!((it.mode, it.chatter), (Mode::DryRun, Chatter::Quiet));
    assert_eq!(it.summary, SummaryTo::JsonFile("s.json".into()));
    assert_eq!(run(&["--check", "a"], &[]).mode, Mode::Check);
}

#[test]
fn packaging_prints() {
    assert!(print(&["--completions", "bash"], &[]).contains("_pipeline"));
    assert!(print(&["--man"], &[]).starts_with(".TH"));
    assert!(print(&["--config-template"], &[]).contains("[processing]"));
    assert_eq!(print(&["-V"], &[]), "pipeline 0.1.0\n");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let variables = [("PIPELINE_LOG__LEVEL", "loud"), ("PIPELINE_NONSENSE", "1")];
    let problems = ask(&["-w0", "--set", "x=1", "-c", "none.toml", "a"], &variables).err().unwrap();
    let starts: Vec<&str> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
    assert_eq!(starts.len(), 5, "{problems:?}");
    assert_eq!(
        [starts[0], starts[2], starts[3], starts[4]],
        ["--config", "--set", "-w", "PIPELINE_LOG__LEVEL"]
    );
}
