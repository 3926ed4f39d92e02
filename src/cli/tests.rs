//! The command line as a user meets it: precedence, provenance, and what each mistake says.

use super::*;

const FILE: &str = "[processing]\nbatch_size = 1\nworkers = 1\ntimeout = '1s'\noutput = 'from-file'\n";

/// Arguments, variables and one file, `c.toml`.
fn ask(args: &[&str], variables: &[(&str, &str)]) -> Result<Request, Vec<String>> {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
    let variables: Vec<_> = variables.iter().map(|(a, b)| (a.to_string(), OsString::from(b))).collect();
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
    wrong(&["-f", "csv", "a"], "-f: expected auto, ndjson, json, text or binary, not \"csv\"");
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
fn what_is_missing_or_unknown_is_said_with_what_is_expected() {
    for source in ["http", "api"] {
        wrong(&["-s", source], "no endpoints: expected --url URL (http.urls)");
    }
    let problems = ask(&["-o", "gs://bucket/x", "a"], &[]).err().unwrap();
    let start = "-o: nothing is written to gs; expected a directory, a file";
    assert!(problems[0].starts_with(start), "{problems:?}");
}

#[test]
fn topics_are_read() {
    let args = ["-t", "orders", "-t", "events,payments", "--brokers", "a:1,b", "-g", "nightly"];
    let args = [&args[..], &["--from=latest", "--until", "2026-11-23T12:00:00Z", "-f", "binary"]].concat();
    for source in [&[][..], &["-s", "kafka"]] {
        let config = run(&[&args[..], source].concat(), &[]).config;
        assert_eq!(config.input.source, SourceKind::Kafka);
        let (kafka, source) = (&config.kafka, &config.kafka.source);
        assert_eq!(kafka.brokers, ["a:1", "b"]);
        assert_eq!(source.topics, ["orders", "events", "payments"]);
        assert_eq!(source.group.as_deref(), Some("nightly"));
        assert_eq!(config.processing.memory_limit, 256 << 20);
    }
}

#[test]
fn the_environment_says_where_the_cluster_is() {
    let variables = [
        ("KAFKA_BOOTSTRAP_SERVERS", "c"),
        ("KAFKA_BROKERS", "a,b"),
        ("KAFKA_SASL_USERNAME", "alice"),
        ("KAFKA_SASL_PASSWORD", "env:literally"),
        ("PIPELINE_KAFKA__SASL__MECHANISM", "SCRAM-SHA-256"),
        ("PIPELINE_KAFKA__SOURCE__GROUP", "nightly"),
    ];
    let config = run(&["-t", "orders"], &variables).config;
    assert_eq!(config.kafka.brokers, ["a", "b"]);
    assert_eq!(config.kafka.source.group.as_deref(), Some("nightly"));
    let password = config.kafka.sasl.password.as_ref().and_then(|it| it.expose());
    assert_eq!(password, Some("env:literally"));
    assert!(!format!("{config:?}").contains("literally"));
    // A file is read as ever, whatever else stands in the environment.
    assert_eq!(run(&["a"], &[("KAFKA_BROKERS", "SSL://nonsense")]).config.input.files, ["a"]);
    assert_eq!(run(&["-t", "x", "--brokers", "flag"], &variables).config.kafka.brokers, ["flag"]);
}

#[test]
fn secrets_are_looked_up_where_they_are_needed() {
    let with = |password: &str, variables: &[(&str, &str)]| {
        let set = format!("kafka.sasl.password={password}");
        let mechanism = "kafka.sasl.mechanism=SCRAM-SHA-512";
        let args = ["-t", "x", "--brokers", "a", "--set", &set, "--set", mechanism];
        let result = ask(&[&args[..], &["--set", "kafka.sasl.username=alice"]].concat(), variables);
        result.map(|request| match request {
            Request::Run(it) => it.config.kafka.sasl.password.unwrap().expose().unwrap().to_owned(),
            Request::Print(text) => panic!("printed {text}"),
        })
    };
    assert_eq!(with("env:PASSWORD", &[("PASSWORD", "s3cret")]).unwrap(), "s3cret");
    assert_eq!(with("file:c.toml", &[]).unwrap(), FILE.trim_end_matches('\n'));
    let problems = with("env:PASSWORD", &[]).unwrap_err();
    assert_eq!(problems, ["kafka.sasl.password: the variable PASSWORD is not set"]);
    assert!(with("file:none", &[]).unwrap_err()[0].starts_with("kafka.sasl.password: cannot read none: "));
    // Neither a run that needs none nor a look at the configuration asks for it.
    let set = ["--set", "kafka.sasl.password=env:NONE"];
    assert!(ask(&[&set[..], &["a"]].concat(), &[]).is_ok());
    assert!(print(&[&set[..], &["--print-config"]].concat(), &[]).contains("password = \"env:NONE\""));
    let shown = print(&["--set", "kafka.sasl.password=s3cret", "--print-config"], &[]);
    assert!(shown.contains("password = \"***\"") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let topic = ["-t", "x", "--brokers", "a"];
    let both = |more: &[&str], expected: &str| wrong(&[&topic[..], more].concat(), expected);
    both(&["-s", "file", "f"], "-t: the source is file (flag -s); expected it with -s kafka only");
    both(&["-s", "kafka", "f"], "inputs: the source is kafka (flag -s); expected topics (-t), no files");
    both(&["f"], "files and topics are named; expected one of them, or -s file or -s kafka");
    wrong(&["-g", "x", "f"], "-g: the source is file (by default); expected it with -s kafka only");
    wrong(&["-s", "kafka", "--brokers", "a"], "no topics: expected -t NAME (kafka.source.topics)");
    wrong(&["-t", "x"], "no brokers: expected --brokers HOST:PORT[,...] (kafka.brokers or KAFKA_BROKERS)");
    both(
        &["--shard", "0/2"],
        "--shard is for files; jobs that read with the same group (-g) share the partitions of a topic",
    );
    both(
        &["-o", "a.ndjson"],
        "one file appears when the run ends, and one that reads Kafka does not; expected --until end, or a directory",
    );
    wrong(
        &["-o", "a.ndjson", "--state", "s", "f"],
        "one file appears when the run ends, and --state would remember what it holds before that; expected no --state, \
         or a directory",
    );
    assert!(ask(&["-o", "/dev/null", "--state", "s", "f"], &[]).is_ok());
    both(
        &["-n", "5"],
        "--limit with a group would leave records out of the next run; expected it with one file or -o - and no -g, or with \
         --dry-run",
    );
    for more in [&["-n", "5", "-o", "-"][..], &["-n", "5", "--dry-run"], &["-o", "a.json", "--until=end"]] {
        assert!(ask(&[&topic[..], more].concat(), &[]).is_ok(), "{more:?}");
    }
    for more in [
        &["--replay"][..],
        &["--fresh"],
        &["--state", "s"],
        &["-o", "kafka:x"],
        &["-z", "gzip", "-o", "kafka:y"],
    ] {
        let problems = ask(&[&topic[..], more].concat(), &[]).err();
        assert_eq!(problems.as_ref().map(Vec::len), Some(1), "{more:?}: {problems:?}");
    }
    wrong(
        &["-o", "kafka:x", "f"],
        "no brokers: expected --brokers HOST:PORT[,...] (kafka.brokers or KAFKA_BROKERS)",
    );
    wrong(
        &["--dead-letter", "kafka:a/b", "f"],
        "--dead-letter: topic: expected 1 to 249 of a-z, A-Z, 0-9, dot, _ and - (not . or ..), not \"a/b\"",
    );
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
        let value = key.example();
        let by_variable = print(&["--print-config"], &[(&key.variable(), value)]);
        assert!(by_variable.contains(&format!("# environment {}\n", key.variable())), "{}", key.path());
        let by_set = print(&["--print-config", "--set", &format!("{}={value}", key.path())], &[]);
        let mut lines = by_set.lines().filter(|line| line.ends_with("# --set"));
        assert!(lines.any(|line| line.starts_with(key.name)), "{}", key.path());
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

#[test]
fn variables_that_are_no_text_are_told_where_they_count() {
    use std::os::unix::ffi::OsStringExt;
    let ask = |name: &'static str, more: &[&str]| {
        let args: Vec<String> = ["a"].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        parse(&args, &|| Ambient {
            variables: vec![(name.to_owned(), OsString::from_vec(b"out\xff".to_vec()))],
            stdin_is_terminal: false,
            read: &|_| Err(io::ErrorKind::NotFound.into()),
        })
        .map(drop)
    };
    for name in [
        "PIPELINE_PROCESSING__OUTPUT",
        "PIPELINE_KAFKA__SASL__PASSWORD_FILE",
        "PIPELINE_CONFIG",
        "KAFKA_BROKERS",
        "S3_BUCKET",
    ] {
        assert_eq!(ask(name, &[]).unwrap_err(), [format!("{name}: it is not UTF-8; expected text")]);
    }
    for name in ["HOME", "PIPELINE_SERVICE_HOST", "TOKEN"] {
        assert_eq!(ask(name, &[]), Ok(()), "{name}");
    }
    let api = ["-s", "http", "--url", "http://h/x", "--set", "http.auth.bearer=env:TOKEN"];
    let api: Vec<String> = api.iter().map(|arg| (*arg).to_owned()).collect();
    let asked = parse(&api, &|| Ambient {
        variables: vec![("TOKEN".to_owned(), OsString::from_vec(vec![b't', 0xff]))],
        stdin_is_terminal: false,
        read: &|_| Err(io::ErrorKind::NotFound.into()),
    });
    let expected = "http.auth.bearer: the variable TOKEN is not UTF-8; expected text";
    assert_eq!(asked.map(drop).unwrap_err(), [expected]);
}

#[test]
fn problems_are_told_in_the_format_that_is_asked_for() {
    let asked = |args: &[&str], variable: Option<&str>| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        asked_format(&args, variable.map(OsString::from))
    };
    use LogFormat::{Json, Text};
    assert_eq!(asked(&["a"], None), Text);
    assert_eq!(asked(&["a"], Some("json")), Json);
    assert_eq!(asked(&["--set", "log.format=json", "a"], None), Json);
    assert_eq!(asked(&["--set=log.format=text"], Some("json")), Text);
    assert_eq!(asked(&["--set", "log.format=text", "--set=log.format=json"], None), Json);
    assert_eq!(asked(&["--log-format", "text", "--set=log.format=json"], Some("json")), Text);
    assert_eq!(asked(&["--log-format=json", "--set=log.format=text"], None), Json);
    assert_eq!(asked(&["--", "--log-format=json"], None), Text);
}
