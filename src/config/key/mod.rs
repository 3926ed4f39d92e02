//! The one table of configuration keys: [`KEYS`]. A new key is one entry in the file of its section and one field
//! of its struct.
//!
//! From it come the check for unknown keys, the environment variables, `--set`, `--print-config` and the shipped
//! `config.toml`. What a value may be is decided by the entry's `set`, and what a user reads when it is wrong
//! stands right beside it. The table is the same whatever features a build has.

mod processing;
mod input;
mod output;
mod kafka;
mod kafka_source;
mod kafka_sink;
mod s3;
mod http;
mod http_pages;
mod status;
mod log;
mod read;

use super::nearest::did_you_mean;
use super::resolve::Draft;
use super::secret::Secret;
use super::setting::Value;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// How its value is written.
    pub shape: Shape,
    /// What it is when nobody sets it.
    pub default: Default,
    /// One comment on what it is for.
    pub help: &'static str,
    /// What a wrong value should have been.
    pub expected: &'static str,
    /// Checks a value and puts it into the draft.
    pub(super) set: fn(&mut Draft, &Value) -> Result<(), Wrong>,
}

/// How a value is written in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A bare number, or a text where a number alone does not say it.
    Number,
    /// `true` or `false`.
    Switch,
    /// A text in quotes.
    Text,
    /// Texts in brackets.
    List,
    /// A text in quotes that is never printed.
    Secret,
}

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Is(&'static str),
    /// Absent, or found out at the start: an example, and what that means.
    Absent(&'static str, &'static str),
}

/// Why a value cannot be.
pub(super) enum Wrong {
    /// It is not what the key expects.
    Expected,
    /// For a reason of its own.
    Because(String),
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        let section = self.section.replace('.', "__");
        format!("PIPELINE_{section}__{}", self.name).to_ascii_uppercase()
    }

    /// Its default, or an example of a value.
    pub fn example(&self) -> &'static str {
        match self.default {
            Default::Is(text) | Default::Absent(text, _) => text,
        }
    }

    /// A value that cannot be a reference to another place.
    pub fn read_as_it_is(&self, text: &str) -> Value {
        match self.shape {
            Shape::Secret => Value::Secret(Secret::new(text)),
            _ => self.read(text),
        }
    }

    /// A value from where there are only texts: a list may be one text or a TOML array.
    pub fn read(&self, text: &str) -> Value {
        match self.shape {
            Shape::Secret => return Secret::parse(text).map_or(Value::Text(String::new()), Value::Secret),
            Shape::List => {}
            _ => return Value::Text(text.into()),
        }
        let array = text.trim_start().starts_with('[').then(|| format!("list = {text}"));
        let list = array.and_then(|line| toml::from_str::<toml::Table>(&line).ok());
        let texts = list.and_then(|table| table.get("list")?.clone().try_into::<Vec<String>>().ok());
        Value::List(texts.unwrap_or_else(|| vec![text.into()]))
    }
}

/// The key of a path like `processing.workers`.
///
/// # Errors
/// One line that names the nearest key.
pub fn find(path: &str) -> Result<&'static Key, String> {
    KEYS.iter().find(|key| key.path() == path).ok_or_else(|| {
        let paths: Vec<String> = KEYS.iter().map(Key::path).collect();
        let meant = did_you_mean(path, paths.iter().map(String::as_str));
        // A name without its section is the likeliest slip, and no typo.
        let bare = KEYS.iter().find(|key| key.name == path).map(Key::path);
        let meant = bare.map_or(meant, |path| format!("; did you mean {path}?"));
        format!("unknown key {path}{meant}")
    })
}

/// The names of the tables, in order.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

/// Every key, section by section, in the order in which it is shown.
pub static KEYS: &[Key] = &joined::<COUNT>();

/// Tables that switch something on by being there, and the key that has its default then.
pub(super) static SWITCHED: &[(&str, &str)] = &[("kafka.notify", "kafka.notify.topic")];

const PARTS: [&[Key]; 11] = [
    processing::KEYS,
    input::KEYS,
    output::KEYS,
    kafka::KEYS,
    kafka_source::KEYS,
    kafka_sink::KEYS,
    s3::KEYS,
    http::KEYS,
    http_pages::KEYS,
    status::KEYS,
    log::KEYS,
];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

/// The parts, one behind the other. No iterators in constants yet.
const fn joined<const N: usize>() -> [Key; N] {
    let mut all = [PARTS[0][0]; N];
    let (mut at, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut index = 0;
        while index < PARTS[part].len() {
            all[at] = PARTS[part][index];
            (at, index) = (at + 1, index + 1);
        }
        part += 1;
    }
    all
}
