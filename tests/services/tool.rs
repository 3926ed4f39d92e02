//! Kafka's own programs, as rivals and as oracle. Each call starts a JVM: most of a second.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::kafka::Kafka;
use crate::nodes::SCRIPT;
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

    /// Kafka's console producer: lines of `headers<TAB>key<TAB>value`, headers as `name:value,name:value`. The word
    /// NULL stands for no header, key or value.
    #[track_caller]
    pub fn produce(&self, topic: &str, compression: &str, lines: &str) {
        let properties = ["parse.headers=true", "parse.key=true", "null.marker=NULL"];
        let properties = properties.iter().flat_map(|property| ["--reader-property", property]);
        let args = ["--topic", topic, "--compression-codec", compression];
        self.tool("ConsoleProducer", &args.into_iter().chain(properties).collect::<Vec<_>>(), lines);
    }

    /// What Kafka's console consumer reads of committed records, from the beginning, until it has `count` of them:
    /// `partition, offset, headers, key, value` a line, tabs between them.
    #[track_caller]
    pub fn consume(&self, topic: &str, count: usize) -> Vec<String> {
        let count = count.to_string();
        let print =
            ["partition", "offset", "headers", "key", "value"].map(|what| format!("print.{what}=true"));
        let print = print.iter().flat_map(|property| ["--formatter-property", property]);
        let args = ["--topic", topic, "--from-beginning", "--isolation-level", "read_committed"];
        let args = args.into_iter().chain(["--max-messages", &count, "--timeout-ms", "20000"]);
        let read = self.tool("ConsoleConsumer", &args.chain(print).collect::<Vec<_>>(), "");
        read.lines().map(str::to_string).collect()
    }
}
