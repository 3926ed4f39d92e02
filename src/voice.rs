//! [`Voice`]: what the program says beside its log, in the log's format: why it failed, what it did, and panics. A
//! program that reads stderr as JSON finds nothing but objects there, whatever happens.

use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};

use jiff::Timestamp;
use pipeline::config::LogFormat;
use pipeline::summary::Summary;
use serde_json::{Map, Value, json};

/// How it is said.
#[derive(Clone, Copy)]
pub struct Voice(pub LogFormat);

impl Voice {
    /// An error: one line, and in text one more for what to do about it.
    pub fn complain(self, problem: &str, hint: Option<&str>) {
        if self.0 == LogFormat::Json {
            let fields = hint.map(|hint| ("hint".to_owned(), hint.into())).into_iter().collect();
            return object("error", "pipeline", problem, fields);
        }
        say(&format!("pipeline: {}\n", problem.replace(['\n', '\r'], " ")));
        if let Some(hint) = hint {
            say(&format!("hint: {hint}\n"));
        }
    }

    /// Something worth knowing.
    pub fn tell(self, text: &str) {
        match self.0 {
            LogFormat::Json => object("info", "pipeline", text, Map::new()),
            LogFormat::Text => say(&format!("{text}\n")),
        }
    }

    /// What a run did.
    pub fn summarise(self, summary: &Summary) {
        match self.0 {
            LogFormat::Json => {
                let fields = serde_json::to_value(summary).ok().and_then(|all| all.as_object().cloned());
                object("info", "pipeline::summary", "what the run did", fields.unwrap_or_default());
            }
            LogFormat::Text => say(&summary.text()),
        }
    }

    /// Makes panics objects too, where the log is made of them. In text they are what Rust makes of them.
    pub fn take_panics(self) {
        if self.0 == LogFormat::Json {
            panic::set_hook(Box::new(|panic| {
                let (message, fields) = panicked(panic);
                object("error", "pipeline", &message, fields);
            }));
        }
    }
}

fn panicked(panic: &PanicHookInfo<'_>) -> (String, Map<String, Value>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    let fields = [("thread", json!(name)), ("place", json!(place))];
    let fields = fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    (format!("thread {name} panicked: {message}"), fields)
}

fn object(level: &str, target: &str, message: &str, fields: Map<String, Value>) {
    say(&line(Timestamp::now(), level, target, message, fields));
}

/// The same keys as the log's, in the same order.
fn line(now: Timestamp, level: &str, target: &str, message: &str, fields: Map<String, Value>) -> String {
    let text = |text: &str| Value::from(text).to_string();
    format!(
        "{{\"ts\":\"{now:.3}\",\"level\":\"{level}\",\"target\":\"{target}\",\"msg\":{},\"fields\":{}}}\n",
        text(message),
        Value::from(fields),
    )
}

/// Text on stderr, in one piece. If that is closed, there is nobody to tell.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_logs_keys_and_is_one_line() {
        let fields = json!({"hint": "a \"b\"\n"}).as_object().cloned().unwrap();
        let now: Timestamp = "2026-11-23T12:00:00.5Z".parse().unwrap();
        let line = line(now, "error", "pipeline", "two\nlines", fields);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "ts": "2026-11-23T12:00:00.500Z", "level": "error", "target": "pipeline", "msg": "two\nlines",
            "fields": {"hint": "a \"b\"\n"},
        });
        assert_eq!(read, expected);
    }
}
