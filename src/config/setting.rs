//! One value that somebody set for one key, and where: [`Setting`]. Layers of them lie over the defaults.

use std::fmt;
use std::path::PathBuf;

use super::key::Key;
use super::secret::Secret;

/// A value as it was written, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, a switch or a text: what it is, its key knows.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
    /// A secret, or where it is. Never printed.
    Secret(Secret),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::List(texts) => write!(f, "{texts:?}"),
            Value::Secret(secret) => write!(f, "{secret}"),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// Column of the value in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Env(String),
    /// A file that an environment variable names.
    EnvFile(String),
    /// `--set`.
    Set,
    /// A flag, as it is spelled, or the inputs.
    Flag(String),
}

impl Origin {
    /// How strong it is: what is higher covers what is lower.
    pub fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Env(_) | Origin::EnvFile(_) => 2,
            Origin::Set => 3,
            Origin::Flag(_) => 4,
        }
    }

    /// Where to look for a wrong value of `key`: begins the message.
    pub fn locate(&self, key: &Key) -> String {
        match self {
            Origin::Default => key.path(),
            Origin::Set => format!("--set {}", key.path()),
            Origin::File { path, line, column } => {
                format!("{}:{line}:{column}: {}", path.display(), key.path())
            }
            Origin::Env(name) | Origin::EnvFile(name) | Origin::Flag(name) => name.clone(),
        }
    }
}

/// As `--print-config` shows it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) | Origin::EnvFile(name) => write!(f, "environment {name}"),
            Origin::Set => f.write_str("--set"),
            Origin::Flag(name) if name.starts_with('-') => write!(f, "flag {name}"),
            Origin::Flag(name) => write!(f, "command line, {name}"),
        }
    }
}

/// A value, its key and where it came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// The value as it was written.
    pub value: Value,
    /// Where.
    pub origin: Origin,
}

/// The settings of one source, and what is wrong with it: a line each. What is right is kept, so that everything
/// that is wrong can be told at once.
#[derive(Debug, Default)]
pub struct Layer {
    /// What was set.
    pub settings: Vec<Setting>,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl Layer {
    /// A layer that could not be read at all.
    pub fn wrong(problem: String) -> Self {
        Layer { settings: Vec::new(), problems: vec![problem] }
    }

    /// Lays `above` over this.
    pub fn cover(&mut self, above: Layer) {
        self.settings.extend(above.settings);
        self.problems.extend(above.problems);
    }

    /// The settings, if nothing is wrong.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn checked(self) -> Result<Vec<Setting>, Vec<String>> {
        if self.problems.is_empty() { Ok(self.settings) } else { Err(self.problems) }
    }
}

/// One setting, or what is wrong with it.
impl From<Result<Setting, String>> for Layer {
    fn from(read: Result<Setting, String>) -> Self {
        match read {
            Ok(setting) => Layer { settings: vec![setting], problems: Vec::new() },
            Err(problem) => Layer::wrong(problem),
        }
    }
}

/// Reads `KEY=VALUE` as `--set` takes it.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_set(text: &str) -> Result<Setting, String> {
    // What stands behind a name may be a password: `kafka.sasl.password:…`.
    let name = text.trim_start().split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).next();
    let name = name.unwrap_or_default();
    let wrong = |told: &str| format!("--set: expected KEY=VALUE like processing.batch_size=50, not {told}");
    match text.split_once('=') {
        Some((path, value)) if path.trim() == name => {
            let key = super::key::find(name).map_err(|error| format!("--set: {error}"))?;
            Ok(Setting { key, value: key.read(value), origin: Origin::Set })
        }
        None if text == name => Err(wrong(&format!("{text:?}"))),
        _ => Err(wrong(&format!("{name:?} with something else behind it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_told_where_the_sign_is_wrong() {
        for text in
            ["kafka.sasl.password:hunter2", "kafka.sasl.password:hunter2=", "kafka.sasl.password hunter2"]
        {
            let said = parse_set(text).unwrap_err();
            let expected = "expected KEY=VALUE like processing.batch_size=50, not \"kafka.sasl.password\" with something";
            assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
        }
        assert!(parse_set(" kafka.client_id = x").is_ok());
    }
}
