//! The arguments as argh parses them, after [`super::normalise`]. Every value is a text here: what it means, and
//! what should have stood there instead, the table of configuration keys knows.

use argh::{ArgsInfo, FromArgs};
use pipeline::config::setting::Value;

/// Moves JSON records from files, Kafka and HTTP APIs to a directory, a file, S3, Kafka or stdout.
#[derive(FromArgs, ArgsInfo, Debug, Default)]
pub struct Args {
    /// what is read
    #[argh(option, short = 's')]
    pub source: Option<String>,
    /// format of the inputs
    #[argh(option, short = 'f')]
    pub format: Option<String>,
    /// stop after so many records
    #[argh(option, short = 'n')]
    pub limit: Option<String>,
    /// every Nth input
    #[argh(option)]
    pub shard: Option<String>,
    /// inputs are dead letters
    #[argh(switch)]
    pub replay: bool,
    /// endpoints that are read
    #[argh(option)]
    pub url: Vec<String>,
    /// where the cluster is
    #[argh(option)]
    pub brokers: Option<String>,
    /// topics that are read
    #[argh(option, short = 't')]
    pub topic: Vec<String>,
    /// whose members share the partitions
    #[argh(option, short = 'g')]
    pub group: Option<String>,
    /// where a partition begins
    #[argh(option)]
    pub from: Option<String>,
    /// where the run ends
    #[argh(option)]
    pub until: Option<String>,
    /// where the output goes
    #[argh(option, short = 'o')]
    pub output: Option<String>,
    /// the bucket that the output goes to
    #[argh(option)]
    pub s3_bucket: Option<String>,
    /// compression of the output
    #[argh(option, short = 'z')]
    pub compress: Option<String>,
    /// where rejected records go
    #[argh(option)]
    pub dead_letter: Option<String>,
    /// rejected records are no reason to exit 3
    #[argh(switch)]
    pub rejects_ok: bool,
    /// records in a batch
    #[argh(option, short = 'b')]
    pub batch_size: Option<String>,
    /// threads of the pool
    #[argh(option, short = 'w')]
    pub workers: Option<String>,
    /// limit of one request
    #[argh(option)]
    pub timeout: Option<String>,
    /// store nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// where the state is
    #[argh(option)]
    pub state: Option<String>,
    /// begin again
    #[argh(switch)]
    pub fresh: bool,
    /// configuration file
    #[argh(option, short = 'c')]
    pub config: Option<String>,
    /// any key of the configuration
    #[argh(option)]
    pub set: Vec<String>,
    /// validate, run nothing
    #[argh(switch)]
    pub check: bool,
    /// print the effective configuration
    #[argh(switch)]
    pub print_config: bool,
    /// whether progress is shown
    #[argh(option)]
    pub progress: Option<String>,
    /// the summary's kind
    #[argh(option)]
    pub summary: Option<String>,
    /// where the status is served
    #[argh(option)]
    pub status: Option<String>,
    /// file that holds the metrics
    #[argh(option)]
    pub metrics_file: Option<String>,
    /// nothing but errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// log more
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// what is logged
    #[argh(option)]
    pub log_level: Option<String>,
    /// how it is logged
    #[argh(option)]
    pub log_format: Option<String>,
    /// completions for a shell
    #[argh(option)]
    pub completions: Option<String>,
    /// the man page
    #[argh(switch)]
    pub man: bool,
    /// every default as a file
    #[argh(switch)]
    pub config_template: bool,
    /// files, directories and -
    #[argh(positional)]
    pub inputs: Vec<String>,
}

impl Args {
    /// The value of the option that sets a configuration key.
    pub fn value(&self, long: &str) -> Option<Value> {
        match long {
            "url" => (!self.url.is_empty()).then(|| Value::List(self.url.clone())),
            "topic" => (!self.topic.is_empty()).then(|| Value::List(self.topic.clone())),
            _ => self.text(long).map(|text| Value::Text(text.clone())),
        }
    }

    fn text(&self, long: &str) -> Option<&String> {
        match long {
            "source" => self.source.as_ref(),
            "format" => self.format.as_ref(),
            "shard" => self.shard.as_ref(),
            "brokers" => self.brokers.as_ref(),
            "group" => self.group.as_ref(),
            "from" => self.from.as_ref(),
            "until" => self.until.as_ref(),
            "output" => self.output.as_ref(),
            "s3-bucket" => self.s3_bucket.as_ref(),
            "compress" => self.compress.as_ref(),
            "dead-letter" => self.dead_letter.as_ref(),
            "batch-size" => self.batch_size.as_ref(),
            "workers" => self.workers.as_ref(),
            "timeout" => self.timeout.as_ref(),
            "state" => self.state.as_ref(),
            "status" => self.status.as_ref(),
            "metrics-file" => self.metrics_file.as_ref(),
            "log-level" => self.log_level.as_ref(),
            "log-format" => self.log_format.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{OPTIONS, Times};
    use super::*;
    use argh::{FlagInfoKind, Optionality};

    #[test]
    fn the_struct_and_the_table_have_the_same_options() {
        let info = Args::get_args_info();
        let ours: Vec<_> = OPTIONS.iter().filter(|it| !["help", "version"].contains(&it.long)).collect();
        let flags: Vec<_> = info.flags.iter().filter(|it| it.long != "--help").collect();
        assert_eq!(flags.len(), ours.len());
        for (flag, option) in flags.iter().zip(ours) {
            assert_eq!(flag.long, format!("--{}", option.long));
            assert_eq!(flag.short, option.short, "{}", option.long);
            let takes_value = matches!(flag.kind, FlagInfoKind::Option { .. });
            assert_eq!(takes_value, option.value.is_some(), "{}", option.long);
            let repeats = matches!(flag.optionality, Optionality::Repeating);
            assert_eq!(repeats, option.times == Times::Every, "{}", option.long);
        }
    }

    #[test]
    fn every_option_with_a_key_reaches_it() {
        for option in OPTIONS.iter().filter(|option| option.key.is_some()) {
            let name = format!("--{}", option.long);
            let args = Args::from_args(&["pipeline"], &[&name, "x"]).unwrap();
            let expected = match option.times {
                Times::Last => Value::Text("x".into()),
                Times::Every => Value::List(vec!["x".into()]),
            };
            assert_eq!(args.value(option.long), Some(expected), "{name}");
        }
    }

    #[test]
    fn inputs_behind_two_dashes_are_inputs() {
        let args =
            Args::from_args(&["pipeline"], &["--batch-size", "-1", "--", "help", "-", "--x", ""]).unwrap();
        assert_eq!(args.inputs, ["help", "-", "--x", ""]);
        assert_eq!(args.batch_size.as_deref(), Some("-1"));
    }
}
