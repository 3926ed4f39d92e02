//! What each impossible combination says.

use super::*;
use crate::config::kafka::{Notify, Sasl};
use crate::config::secret::Secret;
use std::time::Duration;

/// A topic into a directory, which is fine.
fn fine() -> Config {
    Config::from_kafka(vec!["localhost".into()], vec!["in".into()], Place::Dir("out".into()))
}

#[track_caller]
fn wrong(change: impl FnOnce(&mut Config), expected: &str) {
    let mut config = fine();
    change(&mut config);
    let problems = config.check(Intent::Store).expect_err(expected);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains(expected), "{problems:?}");
    assert!(!problems[0].contains('\n'));
}

#[track_caller]
fn right(change: impl FnOnce(&mut Config)) {
    let mut config = fine();
    change(&mut config);
    assert_eq!(config.check(Intent::Store), Ok(()));
}

#[test]
fn the_defaults_are_fine() {
    right(|_| {});
    assert_eq!(Config::default().check(Intent::Store), Ok(()));
}

#[test]
fn a_source_needs_topics_and_brokers() {
    wrong(|it| it.kafka.source.topics.clear(), "no topics: expected -t NAME");
    wrong(|it| it.kafka.source.topics.push("a b".into()), "topic: expected 1 to 249 of");
    wrong(|it| it.kafka.brokers.clear(), "no brokers: expected --brokers HOST:PORT");
}

#[test]
fn brokers_are_hosts_and_ports() {
    let broker = |name: &'static str| move |it: &mut Config| it.kafka.brokers.push(name.into());
    wrong(broker("SASL_SSL://a:9"), "expected HOST:PORT, without SASL_SSL://; kafka.tls.enabled = true");
    wrong(broker("kafka://a:9"), "expected HOST:PORT, without kafka://");
    for with_user in ["u:s3cret@h:9", "s3cret@h:9", "SASL_SSL://u:s3cret@h:9"] {
        wrong(broker(with_user), "broker \"h:9\": a user does not belong before it; expected HOST:PORT");
    }
    right(broker("[::1]:9093"));
    right(broker("b"));
    #[cfg(feature = "kafka")]
    for bad in ["::1", "a:b", "a:0", "a b", "[::1"] {
        wrong(broker(bad), "expected host:port");
    }
}

#[test]
fn what_is_for_files_is_not_for_kafka() {
    wrong(|it| it.processing.shard = Some((0, 2)), "--shard is for files");
    wrong(|it| it.input.replay = true, "--replay is for files");
    wrong(|it| it.processing.fresh = true, "--fresh is for files");
    wrong(|it| it.processing.state = StateAt::Dir("s".into()), "--state is for files");
    right(|it| it.processing.state = StateAt::None);
    right(|it| it.input.format = Format::Binary);
    let mut files = Config {
        input: super::super::Input { format: Format::Binary, ..Default::default() },
        ..Config::default()
    };
    assert!(files.check(Intent::Store).unwrap_err()[0].starts_with("-f binary is for the values of Kafka"));
    // Those that were rejected stand in files.
    files.input.replay = true;
    assert_eq!(files.check(Intent::Store), Ok(()));
}

#[test]
fn a_limit_and_a_group_exclude_each_other() {
    wrong(|it| it.processing.limit = Some(5), "--limit with a group");
    right(|it| (it.processing.limit, it.output.to) = (Some(5), Place::Stdout));
    let named = |it: &mut Config| {
        (it.processing.limit, it.output.to) = (Some(5), Place::Stdout);
        it.kafka.source.group = Some("g".into());
    };
    wrong(named, "--limit with a group");
    let mut config = fine();
    named(&mut config);
    assert_eq!(config.check(Intent::Look), Ok(()), "a dry run joins no group");
}

#[test]
fn one_file_needs_an_end() {
    wrong(|it| it.output.to = Place::File("all.ndjson".into()), "expected --until end");
    right(|it| it.output.to = Place::File("/dev/null".into()));
    right(|it| (it.output.to, it.kafka.source.until) = (Place::File("a.json".into()), Until::End));
}

/// What a group remembers of a file that a killed run left behind unfinished would be lost.
#[test]
fn one_file_has_no_group() {
    let grouped = |path: &'static str| {
        move |it: &mut Config| {
            (it.output.to, it.kafka.source.until) = (Place::File(path.into()), Until::End);
            it.kafka.source.group = Some("g".into());
        }
    };
    wrong(grouped("a.json"), "expected no -g, or a directory");
    right(grouped("/dev/null"));
    for to in [Place::File("a.json".into()), Place::File("/dev/null".into()), Place::Stdout] {
        let mut config = fine();
        config.output.to = to;
        assert_eq!(config.group(Intent::Store, "/".as_ref()), None);
    }
    assert!(fine().group(Intent::Store, "/".as_ref()).is_some());
}

#[test]
fn an_end_is_behind_the_beginning() {
    let window = |from: i64, until: i64| {
        move |it: &mut Config| {
            (it.kafka.source.from, it.kafka.source.until) = (From::Time(from), Until::Time(until));
        }
    };
    right(window(1, 2));
    wrong(window(2, 2), "--until must be later than --from");
    let nothing =
        |it: &mut Config| (it.kafka.source.from, it.kafka.source.until) = (From::Latest, Until::End);
    wrong(nothing, "would read nothing");
}

#[test]
fn groups_and_sessions_fit_together() {
    wrong(|it| it.kafka.source.group = Some("a\n".into()), "-g: expected a name");
    wrong(|it| it.kafka.source.instance_id = Some("a b".into()), "instance_id: expected 1 to 249");
    let alone = |it: &mut Config| {
        (it.kafka.source.instance_id, it.output.to) = (Some("a".into()), Place::Stdout);
    };
    wrong(alone, "-o - join none");
    wrong(|it| it.kafka.source.max_poll_interval = Duration::from_secs(44), "max_poll_interval must not");
    wrong(|it| it.kafka.source.fetch_max_bytes = 1024, "fetch_partition_max_bytes is more");
    wrong(|it| it.processing.timeout = Duration::from_millis(500), "fetch_max_wait must be shorter");
}

#[test]
fn what_is_written_is_not_read_again() {
    let letters = |topic: &str| Some(LettersTo::Kafka(topic.into()));
    wrong(|it| it.output.to = Place::Kafka("in".into()), "topic in is read and also gets the output");
    wrong(|it| it.output.dead_letter = letters("in"), "also gets the dead letters");
    wrong(|it| it.kafka.notify = Some(Notify { topic: "in".into() }), "also gets the notifications");
    let twice = |it: &mut Config| {
        (it.output.to, it.output.dead_letter) = (Place::Kafka("out".into()), letters("out"));
    };
    wrong(twice, "gets the output and the dead letters; expected two topics");
    wrong(|it| it.output.to = Place::Kafka("a/b".into()), "topic of the output: expected 1 to 249");
    let late = |it: &mut Config| {
        (it.output.to, it.processing.timeout) = (Place::Kafka("out".into()), Duration::from_secs(120));
    };
    wrong(late, "delivery_timeout must be at least");
}

#[test]
fn files_to_topics_need_brokers() {
    let mut config = Config::new(vec!["a".into()], Place::Kafka("out".into()));
    assert!(config.check(Intent::Store).unwrap_err()[0].starts_with("no brokers"));
    config.kafka.brokers = vec!["localhost".into()];
    assert_eq!(config.check(Intent::Store), Ok(()));
    config.output.to = Place::Stdout;
    config.kafka.brokers.clear();
    assert_eq!(config.check(Intent::Store), Ok(()));
    config.output.dead_letter = Some(LettersTo::Kafka("bad".into()));
    assert!(config.check(Intent::Look).is_err());
}

#[test]
fn logins_are_whole_and_not_readable() {
    let sasl = |change: fn(&mut Sasl)| {
        move |it: &mut Config| {
            let name = (Some("alice".into()), Some(Secret::new("alice-secret")));
            (it.kafka.sasl.username, it.kafka.sasl.password) = name;
            it.kafka.sasl.mechanism = Some(Mechanism::ScramSha256);
            change(&mut it.kafka.sasl);
        }
    };
    right(sasl(|_| {}));
    wrong(sasl(|it| it.mechanism = None), "SASL PLAIN without TLS");
    right(sasl(|it| (it.mechanism, it.allow_plaintext) = (None, true)));
    right(|it| {
        sasl(|it| it.mechanism = None)(it);
        it.kafka.tls.enabled = true;
    });
    wrong(sasl(|it| it.password = None), "expected kafka.sasl.password too");
    wrong(sasl(|it| it.username = None), "expected kafka.sasl.username too");
    wrong(sasl(|it| (it.username, it.password) = (None, None)), "expected kafka.sasl.username and password");
}

#[test]
fn certificates_are_for_encryption() {
    wrong(|it| it.kafka.tls.ca = Some("ca".into()), "kafka.tls.ca is set, but nothing is encrypted");
    wrong(|it| it.kafka.tls.verify = false, "kafka.tls.verify is set");
    let key = |it: &mut Config| (it.kafka.tls.enabled, it.kafka.tls.key) = (true, Some("k".into()));
    wrong(key, "kafka.tls.key without kafka.tls.cert");
    right(|it| (it.kafka.tls.enabled, it.kafka.tls.cert) = (true, Some("both.pem".into())));
}

#[test]
fn groups_have_names_where_they_are_joined() {
    let config = fine();
    let cwd = Path::new("/srv");
    let default = config.group(Intent::Store, cwd).unwrap();
    assert!(default.starts_with("pipeline-in-"), "{default}");
    assert_eq!(config.group(Intent::Look, cwd), None);
    let mut config = fine();
    config.output.to = Place::Stdout;
    assert_eq!(config.group(Intent::Store, cwd), None);
    config.kafka.source.group = Some("g".into());
    assert_eq!(config.group(Intent::Store, cwd).as_deref(), Some("g"));
    config.input.source = SourceKind::File;
    assert_eq!(config.group(Intent::Store, cwd), None);
}

#[test]
fn names_must_tell_batches_apart() {
    let key = |text: &str| Some(crate::sink::key::Template::parse(text).unwrap());
    right(|it| it.output.key = key("hive"));
    wrong(|it| it.output.key = key("{topic}"), "output.key: {topic} lacks {partition}, so two batches could");
    wrong(|it| it.output.key = key("{path}/{start}"), "{path}: this source has nothing of that kind");
    // Nothing has a name there.
    right(|it| (it.output.key, it.output.to) = (key("x"), Place::Stdout));
    wrong(
        |it| {
            (it.output.key, it.output.to) = (key("x"), Place::Stdout);
            it.output.dead_letter = Some(LettersTo::Dir("rejected".into()));
        },
        "output.key: x lacks {topic}",
    );
    let long = || vec!["t".repeat(249)];
    right(|it| (it.output.key, it.kafka.source.topics) = (key("hive"), long()));
    wrong(
        |it| (it.output.key, it.kafka.source.topics) = (key("topic={topic}-x/"), long()),
        "bytes; expected 255 at most",
    );
    let files = |text: &str| {
        let config = Config::new(vec!["a".into()], Place::Dir("out".into()));
        let output = super::super::Output { key: key(text), ..config.output };
        Config { output, ..config }.check(Intent::Store).map_err(|problems| problems.concat())
    };
    assert_eq!(files("x/{path}/{start}"), Ok(()));
    assert!(files("hive").unwrap_err().starts_with("output.key: hive has {date}: records of this source"));
}
