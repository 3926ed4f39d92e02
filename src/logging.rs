//! The logger of the program: lines of text or of JSON on stderr, through the [`Screen`] so that they do not tear
//! the progress bar. The library only logs; it never installs a logger.
//!
//! Of the lines of one place only so many are logged in a while, and how many were left out: [`limit`]. What was asked
//! for with debug or trace is not limited.

mod limit;

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use env_logger::fmt::Formatter;
use env_logger::{Builder, Target, WriteStyle};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};
use parking_lot::Mutex;
use pipeline::config::{Log, LogFormat};
use serde::Serialize;

use crate::screen::Screen;
use limit::{Limit, Verdict};

/// Installs the logger. `filter` is `RUST_LOG`'s, where it counts.
pub fn install(log: Log, filter: Option<&str>, screen: &Screen) {
    let mut builder = Builder::new();
    match filter {
        Some(filter) => {
            builder.parse_filters(filter);
        }
        None => {
            builder.filter_level(log.level);
            if log.level == LevelFilter::Warn {
                // Asked for by --progress, --status or SIGUSR1, and there are few of them.
                builder.filter_module("pipeline::progress", LevelFilter::Info);
                builder.filter_module("pipeline::status", LevelFilter::Info);
            }
        }
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !no_color;
    builder.write_style(if colours { WriteStyle::Always } else { WriteStyle::Never });
    builder.target(Target::Pipe(Box::new(screen.clone())));
    let (limit, format) = (Mutex::new(Limit::default()), log.format);
    builder.format(move |out, record| match verdict(&limit, record) {
        Verdict::LeaveOut => Ok(()),
        Verdict::Log(0) => line(format, record, out),
        Verdict::Log(left_out) => {
            let mut told = Record::builder();
            told.level(record.level()).target(record.target());
            let note = format!("{left_out} lines like those before were left out");
            line(format, &told.args(format_args!("{note}")).build(), out)?;
            if record.target() == LEFT_OUT { Ok(()) } else { line(format, record, out) }
        }
    });
    // A second logger can only be one of a test's.
    let _ = builder.try_init();
}

/// The target of what is said of lines that were left out, at the end.
const LEFT_OUT: &str = "pipeline::log";

/// The HTTP client and what is below it: with debug they log queries, with trace whole heads of requests. Whatever
/// level is asked for, that must not be seen: any of it may be secret.
const CLIENT: &str = "ureq";

/// Tells how many lines were left out last.
pub fn finish() {
    log::warn!(target: LEFT_OUT, "");
}

fn verdict(limit: &Mutex<Limit>, record: &Record<'_>) -> Verdict {
    if record.target() == LEFT_OUT {
        let rest = limit.lock().rest();
        return if rest == 0 { Verdict::LeaveOut } else { Verdict::Log(rest) };
    }
    match (record.level(), record.file_static(), record.line()) {
        (Level::Info | Level::Debug | Level::Trace, ..) if record.target().starts_with(CLIENT) => {
            Verdict::LeaveOut
        }
        (Level::Debug | Level::Trace, ..) => Verdict::Log(0),
        (_, Some(file), Some(line)) => limit.lock().line((file, line), Instant::now()),
        _ => Verdict::Log(0),
    }
}

fn line(format: LogFormat, record: &Record<'_>, out: &mut Formatter) -> io::Result<()> {
    match format {
        LogFormat::Text => text(out, record),
        LogFormat::Json => json(&out.timestamp_millis().to_string(), record, out),
    }
}

fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let time = out.timestamp_seconds();
    write!(out, "{time} {style}{:<5}{style:#} {}: ", record.level(), record.target())?;
    let message = record.args().to_string();
    // A record's own bytes may be part of a message; they must not reach the terminal as commands.
    out.write_all(printable(&message).as_bytes())?;
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields);
    for (name, value) in &fields.0 {
        let value = match value {
            serde_json::Value::String(text) if is_word(text) => text.clone(),
            other => other.to_string(),
        };
        write!(out, " {name}={}", printable(&value))?;
    }
    writeln!(out)
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || c == '=')
}

/// A log record as one object.
#[derive(Serialize)]
struct Line<'a> {
    ts: &'a str,
    level: &'a str,
    target: &'a str,
    msg: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

fn json(time: &str, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields);
    let line = Line {
        ts: time,
        level: &record.level().as_str().to_ascii_lowercase(),
        target: record.target(),
        msg: record.args().to_string(),
        fields: fields.0.into_iter().collect(),
    };
    writeln!(out, "{}", serde_json::to_string(&line)?)
}

/// The key-values of a log record, in order.
#[derive(Default)]
struct Fields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let number = value.to_u64().map(serde_json::Value::from);
        let number = number.or_else(|| value.to_i64().map(serde_json::Value::from));
        let number = number.or_else(|| value.to_f64().map(serde_json::Value::from));
        let read = number.or_else(|| value.to_bool().map(serde_json::Value::from));
        self.0.push((key.to_string(), read.unwrap_or_else(|| value.to_string().into())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_one_object() {
        let fields =
            [("bytes", Value::from(5u64)), ("path", Value::from("a \"b\"\n")), ("ok", Value::from(true))];
        let mut out = Vec::new();
        let record = Record::builder()
            .level(log::Level::Warn)
            .target("pipeline::source")
            .args(format_args!("two\nlines"))
            .key_values(&fields)
            .build();
        json("2026-11-23T12:00:00.000Z", &record, &mut out).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "ts": "2026-11-23T12:00:00.000Z", "level": "warn", "target": "pipeline::source",
            "msg": "two\nlines", "fields": {"bytes": 5, "path": "a \"b\"\n", "ok": true},
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert!(is_word("a/b") && !is_word("a b") && !is_word(""));
    }
}
