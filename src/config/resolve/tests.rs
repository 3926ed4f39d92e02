//! How settings become the configuration, and what wrong ones say.

use super::*;
use crate::allowance::Allowance;
use crate::config::kafka::{Compression, From, Until};
use crate::config::setting::parse_set;
use crate::config::{LettersTo, MaxRejected, StateAt, file};
use std::path::Path;

fn set(pairs: &[&str]) -> Result<Resolved, Vec<String>> {
    resolve(pairs.iter().map(|pair| parse_set(pair).unwrap()).collect())
}

/// A setting of one layer.
fn layer(path: &str, text: &str, origin: Origin) -> Setting {
    let key = crate::config::key::find(path).unwrap();
    Setting { key, value: key.read(text), origin }
}

#[track_caller]
fn wrong(pair: &str, expected: &str) {
    assert_eq!(set(&[pair]).unwrap_err(), [format!("--set {expected}")]);
}

#[test]
fn the_table_has_the_defaults_of_the_types() {
    let mut draft = Draft::default();
    for key in KEYS {
        if let KeyDefault::Is(text) = key.default {
            let set = (key.set)(&mut draft, &key.read(text));
            assert!(set.is_ok(), "{}", key.path());
        }
    }
    assert_eq!(draft.config, Config::default());
    assert_eq!(draft.log, Log::default());
}

#[test]
fn every_example_is_a_value() {
    for key in KEYS {
        if let KeyDefault::Absent(text, _) = key.default {
            let set = (key.set)(&mut Draft::default(), &key.read(text));
            assert!(set.is_ok(), "{}", key.path());
        }
    }
}

#[test]
fn values_reach_the_configuration() {
    let it = set(&[
        "processing.workers=3",
        "processing.max_rejected=2.5%",
        "processing.shard=1/4",
        "processing.state=none",
        "processing.output=x.json.gz",
        "input.files=[\"a\", \"b\"]",
    ])
    .unwrap()
    .config;
    assert_eq!(it.processing.workers.get(), 3);
    assert_eq!(it.processing.memory_limit, 48 << 20);
    assert_eq!(it.processing.max_rejected, Some(MaxRejected::Percent(2.5)));
    assert_eq!(it.processing.shard, Some((1, 4)));
    assert_eq!(it.processing.state, StateAt::None);
    assert_eq!(it.output.codec, Codec::Gzip(1));
    assert_eq!(it.input.files, ["a", "b"]);
}

#[test]
fn the_default_memory_limit_keeps_to_what_the_system_allows() {
    let allowance = |mebibytes: u64| Allowance { bytes: mebibytes << 20, file: "memory.max".into() };
    let default = |pairs: &[&str], allowed: Option<u64>| {
        set(pairs).unwrap().config.default_memory_within(allowed.map(allowance).as_ref()) >> 20
    };
    let files = ["processing.workers=16"];
    assert_eq!(
        [None, Some(1024), Some(100), Some(10)].map(|allowed| default(&files, allowed)),
        [128, 128, 80, 48]
    );
    let topic = ["kafka.brokers=localhost", "kafka.source.topics=orders"];
    assert_eq!(
        [None, Some(512), Some(200), Some(10)].map(|allowed| default(&topic, allowed)),
        [256, 256, 160, 48]
    );
    // Parts come on top.
    let bucket = ["s3.bucket=abc", "processing.workers=16"];
    assert_eq!(
        [None, Some(512), Some(200), Some(10)].map(|allowed| default(&bucket, allowed)),
        [192, 192, 160, 112]
    );
}

#[test]
fn the_memory_limit_follows_the_workers() {
    assert_eq!(set(&["processing.workers=8"]).unwrap().config.processing.memory_limit, 64 << 20);
    let both = ["processing.workers=8", "processing.memory_limit=16MiB"];
    assert_eq!(set(&both).unwrap().config.processing.memory_limit, 16 << 20);
}

#[test]
fn wrong_values_say_what_was_expected() {
    wrong("processing.workers=0", "processing.workers: expected a whole number from 1 to 1024, not \"0\"");
    wrong(
        "processing.batch_size=-1",
        "processing.batch_size: expected a whole number of records, 0 or more (0: no limit by count), not \"-1\"",
    );
    wrong(
        "processing.batch_wait=5",
        "processing.batch_wait: expected a duration like 500ms, 30s, 5m or 2h, not \"5\"",
    );
    wrong(
        "processing.source=s3",
        "processing.source: s3 cannot be read from; expected file (files, directories and -), kafka or http",
    );
    wrong(
        "kafka.sasl.password=",
        "kafka.sasl.password: expected env:NAME, file:PATH or the password itself, not \"\"",
    );
    wrong(
        "kafka.source.session_timeout=500ms",
        "kafka.source.session_timeout: expected a duration from 1s to 30m, not \"500ms\"",
    );
    wrong(
        "kafka.source.until=tomorrow",
        "kafka.source.until: expected end, forever or a time like 2026-11-23T12:00:00Z or 2026-11-23, not \"tomorrow\"",
    );
    wrong("kafka.sink.acks=1", "kafka.sink.acks: 1 may lose records that count as stored; expected all");
}

/// URLs may hold tokens, so they are not told.
#[test]
fn inputs_that_are_no_files_are_told_where_they_belong() {
    for (input, expected) in [
        (
            "https://api.example.com/items?token=s3cret",
            "a URL is no file; expected endpoints in --url (http.urls)",
        ),
        ("kafka:orders", "a topic is no file; expected it in -t (kafka.source.topics), without kafka:"),
        ("file:///var/log/a.json", "a URL is no file; expected its path, without file://"),
        (
            "s3://logs/a",
            "nothing is read from s3; expected files, directories and - (stdin), into which other programs may write",
        ),
    ] {
        wrong(&format!("input.files={input}"), &format!("input.files: {expected}"));
    }
}

#[test]
fn a_home_that_nobody_has_put_in_is_told() {
    for key in
        ["processing.output", "processing.state", "output.dead_letter", "status.metrics_file", "kafka.tls.ca"]
    {
        let wrong = set(&[&format!("{key}=~/x")]).unwrap_err();
        assert!(wrong[0].starts_with(&format!("--set {key}: ~ in ~/x means nothing here")), "{wrong:?}");
    }
}

#[test]
fn every_key_refuses_nonsense() {
    let takes_anything = [
        "processing.output",
        "processing.state",
        "processing.processed_by",
        "output.dead_letter",
        "status.metrics_file",
        "kafka.client_id",
        "kafka.tls.ca",
        "kafka.tls.cert",
        "kafka.tls.key",
        "kafka.sasl.username",
        "kafka.sasl.password",
        "s3.ca",
        "s3.profile",
        "s3.secret_access_key",
        "s3.session_token",
        "http.body",
        "http.since_param",
        "http.tls.ca",
        "http.tls.cert",
        "http.tls.key",
        "http.auth.bearer",
        "http.auth.username",
        "http.auth.password",
        "http.auth.value",
        "http.auth.client_id",
        "http.auth.client_secret",
        "http.auth.scope",
        "http.pagination.page_param",
        "http.pagination.size_param",
        "http.pagination.offset_param",
        "http.pagination.limit_param",
        "http.pagination.cursor_param",
    ];
    for key in KEYS {
        for nonsense in ["", "\u{0}?"] {
            if nonsense.is_empty()
                || !(takes_anything.contains(&key.path().as_str())
                    || key.shape == crate::config::key::Shape::List)
            {
                let problem = set(&[&format!("{}={nonsense}", key.path())]).unwrap_err();
                assert!(problem[0].contains("expected "), "{problem:?}");
            }
        }
    }
}

#[test]
fn a_bucket_that_is_named_is_the_output() {
    let (flag, env) = (|| Origin::Flag("-x".into()), || Origin::Env("X".into()));
    let to = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.output.to);
    let s3 = |bucket: &str, prefix: &str| Ok(Place::S3 { bucket: bucket.into(), prefix: prefix.into() });
    let (output, bucket, prefix) = ("processing.output", "s3.bucket", "s3.prefix");
    assert_eq!(to(vec![layer(bucket, "abc", env())]), s3("abc", ""));
    assert_eq!(to(vec![layer(bucket, "abc", env()), layer(prefix, "p", env())]), s3("abc", "p/"));
    assert_eq!(to(vec![layer(output, "s3:", env()), layer(bucket, "abc", env())]), s3("abc", ""));
    let dir = Ok(Place::Dir("d".into()));
    assert_eq!(to(vec![layer(bucket, "abc", env()), layer(output, "d", flag())]), dir);
    assert_eq!(to(vec![layer(bucket, "abc", env()), layer(output, "s3://xyz/p", flag())]), s3("xyz", "p/"));
    assert_eq!(to(vec![layer(output, "d", env()), layer(bucket, "abc", flag())]), s3("abc", ""));
    let both = to(vec![layer(output, "d", flag()), layer(bucket, "abc", flag())]).unwrap_err();
    assert_eq!(both, ["-x and -x name two outputs; expected one of them"]);
    let both = to(vec![layer(output, "s3://xyz", flag()), layer(bucket, "abc", flag())]).unwrap_err();
    assert_eq!(both, ["-x and -x name two buckets, xyz and abc; expected one of them"]);
    assert!(to(vec![layer(output, "s3:", flag())]).is_err());
    let in_file = |line| Origin::File { path: "p.toml".into(), line, column: 1 };
    let weak = || layer(output, "s3://weak/x", in_file(1));
    assert_eq!(to(vec![weak(), layer(bucket, "abc", flag())]), s3("abc", ""));
    assert_eq!(to(vec![weak(), layer(bucket, "abc", env())]), s3("abc", ""));
    let prefixed = vec![weak(), layer(prefix, "p", in_file(2)), layer(bucket, "abc", env())];
    assert_eq!(to(prefixed), s3("abc", "p/"));
    assert_eq!(to(vec![weak(), layer(bucket, "weak", flag())]), s3("weak", "x/"), "it says nothing new");
    let both = to(vec![weak(), layer(bucket, "abc", in_file(2))]).unwrap_err();
    let (one, other) = ("p.toml:1:1: processing.output", "p.toml:2:1: s3.bucket");
    assert_eq!(both, [format!("{one} and {other} name two buckets, weak and abc; expected one of them")]);
    let common = || layer(bucket, "abc", Origin::Env("S3_BUCKET".into()));
    assert_eq!(to(vec![common(), layer(output, "s3://xyz", env())]), s3("xyz", ""));
    let shown = resolve(vec![weak(), common()]).unwrap();
    assert_eq!(find(&shown.values, output).unwrap().value, Some(Value::Text("s3://abc/".into())));
    assert_eq!(shown.origin(output).to_string(), "environment S3_BUCKET");
    for settings in [
        vec![common(), layer(output, "s3://xyz", flag())],
        vec![common(), layer(prefix, "p", env()), layer(output, "s3://xyz/q", flag())],
        vec![layer(prefix, "p", env()), layer(output, "s3://xyz", flag())],
        vec![weak(), common(), layer(prefix, "p", env())],
    ] {
        let first = resolve(settings).unwrap();
        let shown = crate::config::show::effective(&first);
        let again = resolve(file::parse(Path::new("again.toml"), &shown).checked().unwrap()).unwrap();
        assert_eq!(first.config, again.config, "{shown}");
    }
}

#[test]
fn a_prefix_is_used_or_refused() {
    let (flag, env) = (|| Origin::Flag("-o".into()), || Origin::Env("X".into()));
    let to = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.output.to);
    let s3 = |prefix: &str| Ok(Place::S3 { bucket: "abc".into(), prefix: prefix.into() });
    let output = |text: &str, origin: Origin| layer("processing.output", text, origin);
    let prefix = |origin: Origin| layer("s3.prefix", "pre", origin);
    assert_eq!(to(vec![prefix(Origin::Set), output("s3://abc", flag())]), s3("pre/"));
    assert_eq!(to(vec![output("s3://abc/x", env()), prefix(Origin::Set)]), s3("pre/"));
    assert_eq!(to(vec![prefix(env()), output("s3://abc", flag())]), s3(""), "for another bucket");
    assert_eq!(to(vec![prefix(Origin::Set), output("s3://abc/pre", flag())]), s3("pre/"));
    let both = to(vec![prefix(Origin::Set), output("s3://abc/x", flag())]).unwrap_err();
    assert_eq!(both, ["-o and --set s3.prefix name two prefixes; expected one of them"]);
}

#[test]
fn memory_grows_with_the_parts_of_objects() {
    let it = set(&["processing.workers=2", "s3.bucket=abc"]).unwrap().config;
    assert_eq!(it.processing.memory_limit, (48 + 2 * 4 * 8) << 20);
    assert_eq!(it.batch_wait(), std::time::Duration::from_secs(300));
}

#[test]
fn kafka_is_configured() {
    let it = set(&[
        "kafka.brokers=a:1, b ,a:1",
        "kafka.source.topics=[\"x\", \"y,z\"]",
        "kafka.source.from=2026-11-23",
        "kafka.source.until=end",
        "kafka.sink.topic=named",
        "kafka.sink.compression=zstd:3",
        "processing.output=kafka:",
        "output.dead_letter=kafka:bad",
    ])
    .unwrap()
    .config;
    assert_eq!(it.input.source, SourceKind::Kafka);
    assert_eq!(it.kafka.brokers, ["a:1", "b"]);
    assert_eq!(it.kafka.source.topics, ["x", "y", "z"]);
    assert_eq!(it.kafka.source.from, From::Time(1_795_392_000_000));
    assert_eq!(it.kafka.source.until, Until::End);
    assert_eq!((it.kafka.sink.compression, it.kafka.sink.level), (Compression::Zstd, Some(3)));
    assert_eq!(it.output.to, Place::Kafka("named".into()));
    assert_eq!(it.output.dead_letter, Some(LettersTo::Kafka("bad".into())));
    assert_eq!(it.processing.memory_limit, 256 << 20);
    let problem = set(&["processing.output=kafka:"]).unwrap_err();
    assert!(problem[0].contains("expected kafka:TOPIC or kafka.sink.topic"), "{problem:?}");
}

#[test]
fn the_source_is_what_is_named() {
    let layer =
        |path: &str, origin: Origin| layer(path, if path.ends_with("source") { "file" } else { "x" }, origin);
    let file = || Origin::File { path: "p.toml".into(), line: 1, column: 1 };
    let flag = || Origin::Flag("-x".into());
    let (files, topics) = ("input.files", "kafka.source.topics");
    let source = |settings: Vec<Setting>| resolve(settings).map(|it| it.config.input.source);
    assert_eq!(source(vec![]), Ok(SourceKind::File));
    assert_eq!(source(vec![layer(topics, file())]), Ok(SourceKind::Kafka));
    assert_eq!(source(vec![layer(topics, file()), layer(files, flag())]), Ok(SourceKind::File));
    assert_eq!(source(vec![layer(files, file()), layer(topics, flag())]), Ok(SourceKind::Kafka));
    assert!(source(vec![layer(files, file()), layer(topics, file())]).is_err());
    assert!(source(vec![layer(files, flag()), layer(topics, flag())]).is_err());
    let by_file = || layer("processing.source", file());
    assert_eq!(source(vec![by_file(), layer(topics, file()), layer(files, file())]), Ok(SourceKind::File));
    assert!(source(vec![by_file(), layer(topics, flag())]).is_err());
    assert_eq!(
        source(vec![layer(files, file()), layer("kafka.source.group", flag())]).unwrap_err(),
        ["-x: the source is file (by default); expected it with -s kafka only"]
    );
}

#[test]
fn all_problems_are_told_and_overruled_ones_are_not() {
    assert_eq!(set(&["processing.workers=0", "log.level=x", "output.compress=lz4"]).unwrap_err().len(), 3);
    assert!(set(&["processing.workers=0", "processing.workers=1"]).is_ok());
}

#[test]
fn what_may_be_secret_is_not_told_where_it_is_wrong() {
    let read = |text: &str| file::parse(Path::new("c"), text).checked().unwrap();
    for (text, expected) in [
        (
            "[kafka.sasl]\npassword = ['hunter2']",
            "c:2:12: kafka.sasl.password: expected env:NAME, file:PATH or the password itself",
        ),
        (
            "[http.auth]\nvalue = ['hunter2']",
            "c:2:9: http.auth.value: expected env:NAME, file:PATH or the key itself",
        ),
        ("[http]\nbody = ['hunter2']", "c:2:8: http.body: expected a text"),
        (
            "[kafka]\nbrokers = ['u:hunter2@h', '']",
            "c:2:11: kafka.brokers: expected HOST:PORT, several with commas between, not [\"***@h\", \"\"]",
        ),
    ] {
        assert_eq!(resolve(read(text)).unwrap_err(), [expected]);
    }
    let problem = set(&["s3.endpoint=https://AK:hunter2@minio:9000"]).unwrap_err();
    assert!(problem[0].contains("not \"https://***@minio:9000\""), "{problem:?}");
}

#[test]
fn flags_that_nothing_uses_are_refused() {
    let (flag, env) = (|| Origin::Flag("-x".into()), || Origin::Env("X".into()));
    let said = |settings: Vec<Setting>| resolve(settings).map(drop);
    let brokers = || layer("kafka.brokers", "a", flag());
    let unused =
        "-x: Kafka is neither read nor written; expected it with -t, -o kafka:TOPIC or another topic";
    assert_eq!(said(vec![brokers()]).unwrap_err(), [unused]);
    for path in ["kafka.source.topics", "kafka.notify.topic"] {
        assert_eq!(said(vec![brokers(), layer(path, "t", env())]), Ok(()), "{path}");
    }
    assert_eq!(said(vec![brokers(), layer("processing.output", "kafka:t", env())]), Ok(()));
    assert_eq!(said(vec![layer("kafka.brokers", "a", env())]), Ok(()), "it is for other runs");
    let (letters, rule) = ("output.dead_letter", "processing.on_reject");
    for kind in ["drop", "fail"] {
        let both = said(vec![layer(rule, kind, env()), layer(letters, "d", flag())]).unwrap_err();
        let unused =
            "-x: nothing would ever be written there; expected processing.on_reject = dead-letter (X)";
        assert_eq!(both, [unused]);
        assert_eq!(said(vec![layer(letters, "d", env()), layer(rule, kind, Origin::Set)]), Ok(()));
    }
    assert_eq!(said(vec![layer(rule, "dead-letter", env()), layer(letters, "d", flag())]), Ok(()));
}
