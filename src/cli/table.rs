//! The one table of options: [`OPTIONS`]. Normalising, help, completions and the man page are made from it; a
//! test holds the argh struct against it. A new option is one entry here, one field there.

/// One option.
pub struct Opt {
    /// Its name without dashes.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; `None` for a switch.
    pub value: Option<&'static str>,
    /// Whether it may be given more than once; else the last one counts.
    pub times: Times,
    /// Under which heading it stands.
    pub group: Group,
    /// One line on what it does.
    pub help: &'static str,
    /// The configuration key that it sets.
    pub key: Option<&'static str>,
    /// What a shell proposes as its value.
    pub complete: Complete,
}

/// How often an option counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The last one counts.
    Last,
    /// All count.
    Every,
}

/// Headings of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Input,
    Kafka,
    Output,
    Run,
    State,
    Configuration,
    Reporting,
    /// Not shown: for packaging.
    Hidden,
}

impl Group {
    pub const SHOWN: [Group; 7] = [
        Group::Input,
        Group::Kafka,
        Group::Output,
        Group::Run,
        Group::State,
        Group::Configuration,
        Group::Reporting,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Group::Input => "Input",
            Group::Kafka => "Kafka",
            Group::Output => "Output",
            Group::Run => "How it runs",
            Group::State => "What was done before",
            Group::Configuration => "Configuration",
            Group::Reporting => "Reporting",
            Group::Hidden => "",
        }
    }
}

/// What a shell proposes as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// Nothing.
    Nothing,
    /// Files and directories.
    Paths,
    /// One of these.
    Words(&'static [&'static str]),
}

use Complete::{Nothing, Paths, Words};

const fn option(long: &'static str, value: &'static str, group: Group, help: &'static str) -> Opt {
    let (times, complete) = (Times::Last, Nothing);
    Opt { long, short: None, value: Some(value), times, group, help, key: None, complete }
}

const fn switch(long: &'static str, group: Group, help: &'static str) -> Opt {
    let (times, complete) = (Times::Last, Nothing);
    Opt { long, short: None, value: None, times, group, help, key: None, complete }
}

impl Opt {
    const fn short(self, short: char) -> Self {
        Opt { short: Some(short), ..self }
    }

    const fn key(self, key: &'static str) -> Self {
        Opt { key: Some(key), ..self }
    }

    const fn complete(self, complete: Complete) -> Self {
        Opt { complete, ..self }
    }

    const fn every(self) -> Self {
        Opt { times: Times::Every, ..self }
    }

    /// As a user may have spelled it: `-b, --batch-size N`.
    pub fn usage(&self) -> String {
        let short = self.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let value = self.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("{short}--{}{value}", self.long)
    }
}

const LEVELS: Complete = Words(&["error", "warn", "info", "debug", "trace", "off"]);
const SHELLS: Complete = Words(&["bash", "zsh", "fish"]);

/// Every option, in the order of the help.
pub static OPTIONS: &[Opt] = &[
    option(
        "source",
        "KIND",
        Group::Input,
        "file, kafka or http (api is the same); default: file, or what only topics or URLs are named for",
    )
    .short('s')
    .key("processing.source")
    .complete(Words(&["file", "kafka", "http"])),
    option(
        "format",
        "NAME",
        Group::Input,
        "auto, ndjson, json (an array, or values one after another), text, or binary (Kafka, and its dead letters)",
    )
    .short('f')
    .key("input.format")
    .complete(Words(&["auto", "ndjson", "json", "text", "binary"])),
    option("limit", "N", Group::Input, "stop after N records; such a run remembers nothing").short('n'),
    option(
        "shard",
        "I/N",
        Group::Input,
        "take every Nth input, beginning with the Ith, 0 … N-1 (arrays of jobs)",
    )
    .key("processing.shard"),
    switch("replay", Group::Input, "the inputs are dead letters: do their records again"),
    option(
        "url",
        "URL",
        Group::Input,
        "an HTTP endpoint to read (repeatable); see [http] in the configuration",
    )
    .key("http.urls")
    .every(),
    option("brokers", "LIST", Group::Kafka, "HOST[:PORT], several with commas between; also KAFKA_BROKERS")
        .key("kafka.brokers"),
    option("topic", "NAME", Group::Kafka, "a topic to read (repeatable)")
        .short('t')
        .key("kafka.source.topics")
        .every(),
    option(
        "group",
        "NAME",
        Group::Kafka,
        "jobs of one group share the partitions and go on where it stopped; default: named after topics and \
         output, none with one file or -o -",
    )
    .short('g')
    .key("kafka.source.group"),
    option(
        "from",
        "WHEN",
        Group::Kafka,
        "earliest (the default), latest or a time, where the group has no commit",
    )
    .key("kafka.source.from")
    .complete(Words(&["earliest", "latest"])),
    option(
        "until",
        "WHEN",
        Group::Kafka,
        "end (what is the end when it begins), a time, or forever (the default)",
    )
    .key("kafka.source.until")
    .complete(Words(&["end", "forever"])),
    option(
        "output",
        "WHERE",
        Group::Output,
        "DIR, FILE.ndjson[.gz|.zst], s3://BUCKET[/PREFIX], kafka:TOPIC or - (stdout); default out",
    )
    .short('o')
    .key("processing.output")
    .complete(Paths),
    option("s3-bucket", "NAME", Group::Output, "the same as -o s3://NAME; also S3_BUCKET").key("s3.bucket"),
    option(
        "compress",
        "NAME[:N]",
        Group::Output,
        "none, gzip or zstd, with a level; default: what the output's name says",
    )
    .short('z')
    .key("output.compress")
    .complete(Words(&["none", "gzip", "zstd"])),
    option(
        "dead-letter",
        "WHERE",
        Group::Output,
        "DIR or kafka:TOPIC for rejected records; default: failed/ in the output directory or bucket",
    )
    .key("output.dead_letter")
    .complete(Paths),
    switch("rejects-ok", Group::Output, "exit 0, not 3, when records were rejected"),
    option("batch-size", "N", Group::Run, "records in a batch (0, the default: no limit by count)")
        .short('b')
        .key("processing.batch_size"),
    option("workers", "N", Group::Run, "threads of the pool; default: one for each core")
        .short('w')
        .key("processing.workers"),
    option("timeout", "DURATION", Group::Run, "limit of one request to a service; default 30s")
        .key("processing.timeout"),
    switch("dry-run", Group::Run, "read and transform all input, store nothing, print the first outputs"),
    option(
        "state",
        "WHERE",
        Group::State,
        "directory that remembers what is done, or none; default: beside the output",
    )
    .key("processing.state")
    .complete(Paths),
    switch("fresh", Group::State, "begin again and replace what an earlier run left of these inputs"),
    option("config", "FILE", Group::Configuration, "read this configuration; also PIPELINE_CONFIG")
        .short('c')
        .complete(Paths),
    option("set", "KEY=VALUE", Group::Configuration, "set any key of the configuration (repeatable)").every(),
    switch(
        "check",
        Group::Configuration,
        "validate the configuration, try inputs, endpoints, brokers and output, run nothing",
    ),
    switch(
        "print-config",
        Group::Configuration,
        "the effective configuration, and where each value came from",
    ),
    option(
        "progress",
        "WHEN",
        Group::Reporting,
        "auto, always or never; without a terminal: one line a minute, with always one every 10 s",
    )
    .complete(Words(&["auto", "always", "never"])),
    option(
        "summary",
        "KIND",
        Group::Reporting,
        "text, json or json=FILE, at the end; default text on stderr",
    )
    .complete(Words(&["text", "json"])),
    option(
        "status",
        "ADDR",
        Group::Reporting,
        "serve /metrics, /health, /ready, /status and a live page: HOST:PORT; default: nowhere",
    )
    .key("status.listen"),
    option(
        "metrics-file",
        "FILE",
        Group::Reporting,
        "replace FILE with the metrics every 15 s and at the end",
    )
    .key("status.metrics_file")
    .complete(Paths),
    switch("quiet", Group::Reporting, "nothing but errors").short('q'),
    switch("verbose", Group::Reporting, "the same as --log-level debug").short('v'),
    option("log-level", "LEVEL", Group::Reporting, "off, error, warn (the default), info, debug or trace")
        .key("log.level")
        .complete(LEVELS),
    option("log-format", "NAME", Group::Reporting, "text, or json: one object a line")
        .key("log.format")
        .complete(Words(&["text", "json"])),
    switch("version", Group::Reporting, "print the version").short('V'),
    switch("help", Group::Reporting, "print this").short('h'),
    option("completions", "SHELL", Group::Hidden, "print completions for bash, zsh or fish").complete(SHELLS),
    switch("man", Group::Hidden, "print the man page"),
    switch("config-template", Group::Hidden, "print a configuration file with every default"),
];

/// The options that users see.
pub fn shown() -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(|option| option.group != Group::Hidden)
}
