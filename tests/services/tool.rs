//! Kafka's own programs, as rivals and as oracle. Each call starts a JVM: most of a second.

use std::io::Write;
use std::process::{Command, Stdio};

use pipeline::kafka::wire::Compression;

use crate::kafka::Kafka;
use crate::nodes::SCRIPT;
use crate::records::Row;
use crate::runs::Running;
use crate::support;

/// Runs one of Kafka's programs to its end and returns its stdout. The program is killed after a minute.
#[track_caller]
pub fn run(class: &str, args: &[&str], stdin: &str) -> String {
    let mut input = tempfile::tempfile().expect("a temporary file");
    input.write_all(stdin.as_bytes()).expect("it can be written");
    std::io::Seek::rewind(&mut input).expect("it is a file");
    let mut command = Command::new(SCRIPT);
    command.args(["tool", class]).args(args).stdin(Stdio::from(input));
    let ended = support::finish(command);
    assert_eq!(
        ended.code,
        Some(0),
        "{class} {args:?}:\n{}{}",
        ended.stderr,
        String::from_utf8_lossy(&ended.stdout)
    );
    String::from_utf8(ended.stdout).expect("it is text")
}

impl Kafka {
    /// The same against these brokers.
    #[track_caller]
    pub fn tool(&self, class: &str, args: &[&str], stdin: &str) -> String {
        let brokers = self.brokers();
        run(class, &[&["--bootstrap-server", &brokers], args].concat(), stdin)
    }

    /// One of Kafka's programs that goes on until it is dropped, which kills it.
    #[track_caller]
    pub fn background(&self, class: &str, args: &[&str]) -> Running {
        let mut command = Command::new(SCRIPT);
        command.args(["tool", class, "--bootstrap-server", &self.brokers()]).args(args).stdin(Stdio::null());
        Running::start(command)
    }

    /// Kafka's console producer: lines of `headers<TAB>key<TAB>value`, headers as `name:value,name:value`. The word
    /// NULL stands for no header, key or value.
    #[track_caller]
    pub fn produce(&self, topic: &str, compression: &str, lines: &str) {
        let properties = ["parse.headers=true", "parse.key=true", "null.marker=NULL"];
        let properties = properties.iter().flat_map(|property| ["--reader-property", property]);
        let args = ["--topic", topic, "--compression-codec", compression];
        self.tool("ConsoleProducer", &args.into_iter().chain(properties).collect::<Vec<_>>(), lines);
    }

    /// All committed records of a topic as Kafka's console consumer reads them: `partition, offset, headers, key,
    /// value` a line, tabs between them. There should be `count`; it fails if there are more, and returns fewer after
    /// 20 s without a record. To know that there are no more, each partition gets a last record, so this can be asked
    /// once for a topic.
    #[track_caller]
    pub fn consume(&self, topic: &str, count: usize) -> Vec<String> {
        const LAST: &str = "the last one";
        let partitions = self.ends(topic).len();
        for partition in 0..partitions {
            let last = Row { value: Some(LAST.into()), ..Row::default() };
            self.write(topic, partition as i32, Compression::None, &[last]);
        }
        let most = (count + partitions).to_string();
        let print =
            ["partition", "offset", "headers", "key", "value"].map(|what| format!("print.{what}=true"));
        let print = print.iter().flat_map(|property| ["--formatter-property", property]);
        let args = ["--topic", topic, "--from-beginning", "--isolation-level", "read_committed"];
        let args = args.into_iter().chain(["--max-messages", &most, "--timeout-ms", "20000"]);
        let read = self.tool("ConsoleConsumer", &args.chain(print).collect::<Vec<_>>(), "");
        let (last, lines): (Vec<&str>, Vec<&str>) = read.lines().partition(|line| line.ends_with(LAST));
        let all = last.len() == partitions || lines.len() < count;
        assert!(all, "more than {count} records are in {topic}: {} of {partitions} ends seen", last.len());
        lines.into_iter().map(str::to_string).collect()
    }
}
