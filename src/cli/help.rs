//! `--help` and `--version`, made from the table of options. At most 100 columns.

use std::fmt::Write;

use super::table::{Group, shown};

const WIDTH: usize = 100;
const INDENT: usize = 31;

/// How the program is called.
pub const USAGE: &str = "pipeline [process] [OPTIONS] [FILE|DIR|- ...]";

/// What it is, in one sentence.
pub const ABOUT: &str =
    "Moves JSON records from files, Kafka and HTTP to a directory, a file, S3, Kafka or stdout.";

/// Calls that show how it is used, with what they do.
pub const EXAMPLES: [(&str, &str); 6] = [
    ("pipeline -s file -b 50 data1.json data2.json", "batches of 50 records under out/processed/"),
    ("zcat logs.gz | pipeline -o result.ndjson.zst -", "stdin to one compressed file"),
    ("pipeline -s kafka --brokers localhost:9092 -t orders", "a topic to out/, until Ctrl-C"),
    ("pipeline -t orders -o kafka:copy --until end", "to another topic (KAFKA_BROKERS is set)"),
    ("pipeline --url https://api.example.com/v1/items", "an HTTP endpoint to out/, page after page:"),
    ("pipeline -s http -c items.toml -o items", "[http] says what leads from page to page"),
];

/// What the exit codes mean.
pub const EXIT_CODES: [(&str, &str); 6] = [
    ("0", "all is stored, or a run without an end (Kafka, polling) was told to stop"),
    ("1", "failed; the same command goes on where it stopped (one file begins again)"),
    ("2", "wrong usage or configuration, or input or settings changed since the last run"),
    ("3", "done, but some records were rejected (--rejects-ok makes it 0)"),
    ("4", "failed, and running it again cannot help"),
    ("130, 143", "stopped by SIGINT or SIGTERM before its end"),
];

/// The text of `--help`.
pub fn help() -> String {
    let mut out = format!("{ABOUT}\n\nUsage: {USAGE}\n\nExamples:\n");
    for (command, what) in EXAMPLES {
        let _ = writeln!(out, "  {command:<53} # {what}");
    }
    for group in Group::SHOWN {
        let _ = writeln!(out, "\n{}:", group.title());
        for option in shown().filter(|option| option.group == group) {
            entry(&mut out, &option.usage(), option.help);
        }
    }
    out.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES {
        let _ = writeln!(out, "  {code:<9} {meaning}");
    }
    out.push_str("\nEvery key of the configuration: man pipeline, or --print-config.\n");
    out
}

/// The text of `--version`.
pub fn version() -> String {
    format!("pipeline {}\n", env!("CARGO_PKG_VERSION"))
}

fn entry(out: &mut String, name: &str, text: &str) {
    let mut line = format!("  {name:<width$} ", width = INDENT - 3);
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(INDENT);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_mentions_every_option_in_100_columns() {
        let help = help();
        for option in shown() {
            assert!(help.contains(&option.usage()), "{}", option.long);
        }
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        assert!(!help.contains("--completions"));
    }

    #[test]
    fn the_examples_are_right() {
        for (command, _) in EXAMPLES {
            let args: Vec<String> = command
                .split(' ')
                .skip_while(|word| *word != "pipeline")
                .skip(1)
                .map(str::to_owned)
                .collect();
            assert!(super::super::normalise::normalise(&args).is_ok(), "{command}");
        }
    }

    #[test]
    fn the_version_is_the_packages() {
        assert_eq!(version(), "pipeline 0.1.0\n");
    }
}
