//! [`Config::check`]: what several values may be together. One place, for users and embedders alike; the only thing
//! it looks at is whether an output is a device.

use std::path::Path;

use super::kafka::{From, Kafka, Mechanism, Until, check_group, check_name};
use super::{Config, Format, LettersTo, Place, SourceKind, StateAt};
use crate::record::{Identity, Partition, TopicPart};
use crate::sink::key::LONGEST_KEY;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It stores, and remembers what it stored.
    Store,
    /// It only looks: a dry run or a check. It joins no group and commits nothing.
    Look,
}

impl Config {
    /// Whether a run with this intent is possible, as far as that can be known without asking anybody.
    ///
    /// # Errors
    /// Everything that is wrong, a line each that says what was expected.
    pub fn check(&self, intent: Intent) -> Result<(), Vec<String>> {
        let mut problems = Problems(Vec::new());
        match self.input.source {
            SourceKind::File => self.check_files(&mut problems),
            SourceKind::Kafka => self.check_topics(intent, &mut problems),
            SourceKind::Http => self.check_endpoints(&mut problems),
        }
        self.check_key(&mut problems);
        self.check_one_file(&mut problems);
        if self.uses_kafka() {
            self.check_written(&mut problems);
            check_brokers(&self.kafka, &mut problems);
            check_login(&self.kafka, &mut problems);
        }
        if matches!(self.output.to, Place::S3 { .. }) {
            problems.0.extend(self.s3.problems());
            problems.when(
                self.output.dead_letter_dir().is_some(),
                "--dead-letter DIR with a bucket: rejected records go to failed/ there; expected that, or \
                 kafka:TOPIC",
            );
        }
        if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
    }

    /// Whether brokers are needed.
    pub fn uses_kafka(&self) -> bool {
        self.input.source == SourceKind::Kafka || self.written_topics().next().is_some()
    }

    /// Topics that are written to, with what they are for: `output`, `dead letters`, `notifications`.
    pub fn written_topics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let output = match &self.output.to {
            Place::Kafka(topic) => Some(("output", topic.as_str())),
            Place::Dir(_) | Place::File(_) | Place::Stdout | Place::S3 { .. } => None,
        };
        let letters = match &self.output.dead_letter {
            Some(LettersTo::Kafka(topic)) => Some(("dead letters", topic.as_str())),
            Some(LettersTo::Dir(_)) | None => None,
        };
        let notify = self.kafka.notify.as_ref().map(|notify| ("notifications", notify.topic.as_str()));
        [output, letters, notify].into_iter().flatten()
    }

    /// Names, where anything gets one.
    fn check_key(&self, problems: &mut Problems) {
        let has_names = matches!(self.output.to, Place::Dir(_) | Place::S3 { .. });
        if !has_names && self.output.dead_letter_dir().is_none() {
            return;
        }
        let source = match self.input.source {
            SourceKind::File => "file",
            SourceKind::Kafka => "kafka",
            SourceKind::Http => "http",
        };
        if let Some(why) = self.output.key.as_ref().and_then(|key| key.check(source).err()) {
            return problems.say(format!("output.key: {why}"));
        }
        if self.input.source == SourceKind::Kafka {
            let part = |topic: &String| TopicPart { topic: topic.clone(), partition: i32::MAX, id: 0 };
            let partition = |topic: &String| {
                let (name, topic) = (topic.clone(), Some(part(topic)));
                Partition::new(Identity { source, name, topic, ..Identity::default() })
            };
            let topics = self.kafka.source.topics.iter();
            topics.filter_map(|topic| self.too_long(&partition(topic))).for_each(|why| problems.say(why));
        }
    }

    /// What is too long about the names of a partition's batches for where they go.
    pub(crate) fn too_long(&self, partition: &Partition) -> Option<String> {
        let most = match self.output.to {
            Place::S3 { .. } => LONGEST_KEY,
            // The system says so where it matters.
            _ => usize::MAX,
        };
        self.namer().too_long(partition, most)
    }

    fn check_files(&self, problems: &mut Problems) {
        problems.when(
            self.input.format == Format::Binary && !self.input.replay,
            "-f binary is for the values of Kafka, and for dead letters of them; expected auto, ndjson, json or text for \
             files",
        );
    }

    fn check_endpoints(&self, problems: &mut Problems) {
        problems.0.extend(self.http.problems());
        problems.when(
            self.input.format == Format::Binary,
            "-f binary is for the values of Kafka; expected auto, ndjson, json or text for pages",
        );
        problems.when(
            self.input.format != Format::Auto && self.http.records.is_some(),
            "-f with http.records: what stands at a pointer is JSON; expected one of them",
        );
        problems.when(
            self.input.replay,
            "--replay is for files; dead letters of endpoints are fed back as files, too: -s file --replay",
        );
    }

    /// One file appears when the run ends: nothing may remember what it holds before that, and the run must end.
    fn check_one_file(&self, problems: &mut Problems) {
        let Place::File(path) = &self.output.to else { return };
        if is_device(path) {
            return;
        }
        let kafka = self.input.source == SourceKind::Kafka;
        problems.when(
            !kafka && matches!(self.processing.state, StateAt::Dir(_)),
            "one file appears when the run ends, and --state would remember what it holds before that; expected no \
             --state, or a directory",
        );
        problems.when(
            kafka && self.kafka.source.group.is_some(),
            "one file appears when the run ends, and a group would remember what it holds before that; expected no \
             -g, or a directory",
        );
        problems.when(
            kafka && self.kafka.source.until == Until::Forever,
            "one file appears when the run ends, and one that reads Kafka does not; expected --until end, or a \
             directory",
        );
        problems.when(
            self.input.source == SourceKind::Http && self.http.poll.is_some(),
            "one file appears when the run ends, and one that polls does not; expected no http.poll, or a directory",
        );
    }

    fn check_topics(&self, intent: Intent, problems: &mut Problems) {
        let (processing, source) = (&self.processing, &self.kafka.source);
        problems.when(source.topics.is_empty(), "no topics: expected -t NAME (kafka.source.topics)");
        source.topics.iter().for_each(|topic| problems.unless(check_name("topic", topic)));
        problems.when(
            processing.shard.is_some(),
            "--shard is for files; jobs that read with the same group (-g) share the partitions of a topic",
        );
        problems.when(
            self.input.replay,
            "--replay is for files; a dead-letter topic holds the records themselves: read it with -t",
        );
        problems.when(
            processing.fresh,
            "--fresh is for files; what Kafka's group has read is begun again with another group: -g NAME",
        );
        problems.when(
            matches!(processing.state, StateAt::Dir(_)),
            "--state is for files; what was read of Kafka, the group remembers (-g)",
        );
        problems.when(
            processing.limit.is_some() && self.joins(intent),
            "--limit with a group would leave records out of the next run; expected it with one file or -o - and no -g, or \
             with --dry-run",
        );
        self.check_group(intent, problems);
        self.check_end(problems);
        problems.when(
            source.fetch_partition_max_bytes > source.fetch_max_bytes,
            "kafka.source.fetch_partition_max_bytes is more than fetch_max_bytes, which holds several partitions",
        );
        problems.when(
            source.fetch_max_wait >= processing.timeout,
            "kafka.source.fetch_max_wait must be shorter than the timeout of a request (--timeout)",
        );
    }

    fn check_group(&self, intent: Intent, problems: &mut Problems) {
        let source = &self.kafka.source;
        if let Some(group) = &source.group {
            problems.unless(check_group("-g", group));
        }
        if let Some(id) = &source.instance_id {
            problems.unless(check_name("kafka.source.instance_id", id));
            problems.when(
                intent == Intent::Store && !self.joins(intent),
                "kafka.source.instance_id is for members of a group, and one file and -o - join none; expected -g NAME",
            );
        }
        problems.when(
            source.max_poll_interval < source.session_timeout,
            "kafka.source.max_poll_interval must not be shorter than session_timeout",
        );
    }

    fn check_end(&self, problems: &mut Problems) {
        let source = &self.kafka.source;
        if let (From::Time(from), Until::Time(until)) = (source.from, source.until) {
            problems.when(until <= from, "--until must be later than --from");
        }
        problems.when(
            source.from == From::Latest && source.until == Until::End,
            "--from latest --until end would read nothing; expected another beginning or no end",
        );
    }

    /// What is written, and that it is not read again.
    fn check_written(&self, problems: &mut Problems) {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for (what, topic) in self.written_topics() {
            problems.unless(check_name(&format!("topic of the {what}"), topic));
            let reads = self.input.source == SourceKind::Kafka;
            if reads && self.kafka.source.topics.iter().any(|other| other == topic) {
                problems.say(format!("topic {topic} is read and also gets the {what}: that would never end"));
            }
            if let Some((other, _)) = seen.iter().find(|(_, other)| *other == topic) {
                problems.say(format!("topic {topic} gets the {other} and the {what}; expected two topics"));
            }
            seen.push((what, topic));
        }
        let sink = &self.kafka.sink;
        if let Some(id) = &sink.transactional_id {
            problems.unless(check_group("kafka.sink.transactional_id", id));
        }
        problems.when(
            sink.delivery_timeout < sink.linger + self.processing.timeout && !seen.is_empty(),
            "kafka.sink.delivery_timeout must be at least kafka.sink.linger and the timeout of a request \
             (--timeout) together",
        );
    }
}

fn check_brokers(kafka: &Kafka, problems: &mut Problems) {
    problems.when(
        !cfg!(feature = "kafka"),
        "this build has no Kafka client; expected one with the feature kafka",
    );
    problems.when(
        kafka.brokers.is_empty(),
        "no brokers: expected --brokers HOST:PORT[,...] (kafka.brokers or KAFKA_BROKERS)",
    );
    for broker in &kafka.brokers {
        if let Some((_, host)) = broker.rsplit_once('@') {
            problems.say(format!(
                "broker {host:?}: a user does not belong before it; expected HOST:PORT, and kafka.sasl.username and \
                 password"
            ));
            continue;
        }
        if let Some((scheme, _)) = broker.split_once("://") {
            let encrypted = scheme.to_ascii_uppercase().contains("SSL");
            let hint = if encrypted { "; kafka.tls.enabled = true encrypts" } else { "" };
            problems.say(format!("broker {broker:?}: expected HOST:PORT, without {scheme}://{hint}"));
            continue;
        }
        #[cfg(feature = "kafka")]
        problems.unless(broker.parse::<crate::kafka::Address>().map(drop));
    }
    // A string's length has 15 bits on the wire.
    problems.when(kafka.client_id.len() > i16::MAX as usize, "kafka.client_id is too long");
}

fn check_login(kafka: &Kafka, problems: &mut Problems) {
    let (tls, sasl) = (&kafka.tls, &kafka.sasl);
    problems.when(
        tls.key.is_some() && tls.cert.is_none(),
        "kafka.tls.key without kafka.tls.cert; expected both, or the certificate alone with the key in its file",
    );
    let given = [
        (tls.ca.is_some(), "ca"),
        (tls.cert.is_some(), "cert"),
        (tls.key.is_some(), "key"),
        (!tls.verify, "verify"),
    ];
    if let Some((_, name)) = given.iter().find(|(given, _)| *given).filter(|_| !tls.enabled) {
        problems.say(format!(
            "kafka.tls.{name} is set, but nothing is encrypted; expected kafka.tls.enabled = true"
        ));
    }
    match (&sasl.username, &sasl.password) {
        (Some(name), _) if name.is_empty() => problems.say("kafka.sasl.username is empty".into()),
        (Some(_), None) => {
            problems.say("kafka.sasl.username without a password; expected kafka.sasl.password too".into());
        }
        (None, Some(_)) => {
            problems.say("kafka.sasl.password without a username; expected kafka.sasl.username too".into());
        }
        (None, None) if sasl.mechanism.is_some() => {
            problems
                .say("kafka.sasl.mechanism without a user; expected kafka.sasl.username and password".into());
        }
        _ => {}
    }
    let is_plain = sasl.mechanism.unwrap_or_default() == Mechanism::Plain;
    problems.when(
        sasl.username.is_some() && is_plain && !tls.enabled && !sasl.allow_plaintext,
        "SASL PLAIN without TLS sends the password readable for everybody on the way; expected \
         kafka.tls.enabled = true, a SCRAM mechanism, or kafka.sasl.allow_plaintext = true if that is meant",
    );
}

/// What is there, and is no regular file, is written as it goes.
fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file())
}

/// What is wrong, a line each.
struct Problems(Vec<String>);

impl Problems {
    fn say(&mut self, line: String) {
        self.0.push(line);
    }

    fn when(&mut self, is_wrong: bool, line: &str) {
        if is_wrong {
            self.say(line.into());
        }
    }

    fn unless(&mut self, checked: Result<(), String>) {
        self.0.extend(checked.err());
    }
}

#[cfg(test)]
mod tests;
