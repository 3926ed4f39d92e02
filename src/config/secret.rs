//! [`Secret`]: a password or a token. It is never printed, and what it held is overwritten when it is dropped.
//!
//! A user writes the secret itself, `env:NAME` for a variable, or `file:PATH` for a file (its last newline does
//! not count). Variables and files are looked at by [`Secret::load`], once and when they are needed: so
//! `--print-config` works where they are not there, and shows which they are.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A password or a token, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Held);

#[derive(Clone, PartialEq, Eq)]
enum Held {
    Text(String),
    Variable(String),
    File(PathBuf),
}

/// Where secrets are looked up. A parameter, so that tests touch neither the environment nor the disk.
pub struct Lookup<'a> {
    /// The value of a variable. One that is no text is there, too: it must not count as absent.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Reads a small file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Lookup<'static> {
    /// The environment and the files of this process.
    pub fn process() -> Self {
        Lookup { variable: &|name| std::env::var_os(name), read: &read_small }
    }
}

impl Lookup<'_> {
    /// The text of a variable; `None` where it is not set.
    ///
    /// # Errors
    /// One line, if it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, String> {
        let value = (self.variable)(name).map(OsString::into_string).transpose();
        value.map_err(|_| format!("the variable {name} is not UTF-8; expected text"))
    }
}

/// More than this is no secret and no configuration: `file:/dev/zero` has no end.
const LARGEST: u64 = 1 << 20;

/// Reads a file that holds a secret or settings. Blocks until it is read.
///
/// # Errors
/// Those of reading it; and if it has more than 1 MiB, or is not UTF-8.
pub fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(LARGEST + 1);
    let read = file.read_to_string(&mut text);
    if file.limit() == 0 {
        let kind = io::ErrorKind::FileTooLarge;
        return Err(io::Error::new(kind, "it has more than 1 MiB; expected a small file"));
    }
    read.map(|_| text)
}

impl Secret {
    /// This very text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Held::Text(text.into()))
    }

    /// As users write it: `env:NAME`, `file:PATH`, or the secret itself. `None` where nothing follows.
    pub fn parse(text: &str) -> Option<Self> {
        let held = match text.split_once(':') {
            Some(("env", name)) => Held::Variable(name.into()),
            Some(("file", path)) => Held::File(path.into()),
            _ => Held::Text(text.into()),
        };
        let is_empty = match &held {
            Held::Text(text) => text.is_empty(),
            Held::Variable(name) => name.is_empty() || name.contains(['=', '\0']),
            Held::File(path) => path.as_os_str().is_empty(),
        };
        (!is_empty).then_some(Secret(held))
    }

    /// The secret itself, read from where it is.
    ///
    /// # Errors
    /// One line, without the secret: the variable is not set, the file cannot be read, or it is empty.
    pub fn load(&self, lookup: &Lookup<'_>) -> Result<Secret, String> {
        let text = match &self.0 {
            Held::Text(text) => text.clone(),
            Held::Variable(name) => {
                lookup.text(name)?.ok_or_else(|| format!("the variable {name} is not set"))?
            }
            Held::File(path) => {
                let read = (lookup.read)(path);
                let text = read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                without_newline(&text).to_owned()
            }
        };
        match (&self.0, text.is_empty()) {
            (_, false) => Ok(Secret::new(text)),
            (Held::Variable(name), true) => Err(format!("the variable {name} is empty")),
            (Held::File(path), true) => Err(format!("the file {} is empty", path.display())),
            (Held::Text(_), true) => Err("it is empty".into()),
        }
    }

    /// The secret itself; `None` before it was loaded from where it is.
    pub fn expose(&self) -> Option<&str> {
        match &self.0 {
            Held::Text(text) => Some(text),
            Held::Variable(_) | Held::File(_) => None,
        }
    }

    /// Where it is, as users write it; `***` if it is the secret itself.
    pub fn shown(&self) -> String {
        match &self.0 {
            Held::Text(_) => HIDDEN.into(),
            Held::Variable(name) => format!("env:{name}"),
            Held::File(path) => format!("file:{}", path.display()),
        }
    }
}

/// What is printed instead of a secret.
pub const HIDDEN: &str = "***";

/// `user:password@` of a URL or an address as `***@`. What has no `:` before its `@` is none.
pub fn without_user(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + 3);
    let end = text[begin..].find(['/', '?', '#']).filter(|_| begin > 0).map_or(text.len(), |at| begin + at);
    match text[begin..end].rsplit_once('@') {
        Some((user, host)) if begin > 0 || user.contains(':') => {
            format!("{}{HIDDEN}@{host}{}", &text[..begin], &text[end..])
        }
        _ => text.into(),
    }
}

/// A text without its last newline: editors add one to files.
pub fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Not even its length is told.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Overwrites what it held, as far as that is possible without `unsafe`: earlier copies are beyond its reach.
impl Drop for Secret {
    fn drop(&mut self) {
        if let Held::Text(text) = &mut self.0 {
            let mut bytes = std::mem::take(text).into_bytes();
            bytes.fill(0);
            // Else the compiler would see that nobody reads the zeros.
            std::hint::black_box(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn load(text: &str) -> Result<String, String> {
        let secret = Secret::parse(text).expect("it is one").load(&Lookup {
            variable: &|name| match name {
                "SET" => Some("from env\n".into()),
                "EMPTY" => Some(OsString::new()),
                "BYTES" => Some(OsString::from_vec(vec![b's', 0xff])),
                _ => None,
            },
            read: &|path| match path.to_str() {
                Some("/run/secret") => Ok("from file\r\n".into()),
                Some("/run/lines") => Ok("a\n\n".into()),
                Some("/run/empty") => Ok("\n".into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        });
        secret.map(|secret| secret.expose().expect("it is loaded").to_owned())
    }

    #[test]
    fn a_user_and_a_password_are_left_out() {
        for (text, expected) in [
            ("u:s3cret@h:9092", "***@h:9092"),
            ("SASL_SSL://u:s3cret@h:9092", "SASL_SSL://***@h:9092"),
            ("https://token@h/a@b", "https://***@h/a@b"),
            ("http://u:p@s3@h?x#y", "http://***@h?x#y"),
            ("http://h/u:p@x", "http://h/u:p@x"),
            ("a@b", "a@b"),
            ("h:9092", "h:9092"),
        ] {
            assert_eq!(without_user(text), expected);
        }
    }

    #[test]
    fn secrets_are_found_where_they_are() {
        for (text, expected) in [
            ("plain", "plain"),
            ("with:colon", "with:colon"),
            ("env:SET", "from env\n"),
            ("file:/run/secret", "from file"),
            ("file:/run/lines", "a\n"),
        ] {
            assert_eq!(load(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(load("env:UNSET").unwrap_err(), "the variable UNSET is not set");
        assert_eq!(load("env:EMPTY").unwrap_err(), "the variable EMPTY is empty");
        assert_eq!(load("env:BYTES").unwrap_err(), "the variable BYTES is not UTF-8; expected text");
        assert!(load("file:/none").unwrap_err().starts_with("cannot read /none: "));
        assert_eq!(load("file:/run/empty").unwrap_err(), "the file /run/empty is empty");
        for nothing in ["", "env:", "file:", "env:A=B"] {
            assert_eq!(Secret::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn files_that_have_no_end_are_not_read_to_it() {
        let error = Secret::parse("file:/dev/zero").unwrap().load(&Lookup::process()).unwrap_err();
        assert_eq!(error, "cannot read /dev/zero: it has more than 1 MiB; expected a small file");
        let file = tempfile::NamedTempFile::new().unwrap();
        for (size, is_fine) in [(1 << 20, true), ((1 << 20) + 1, false)] {
            std::fs::write(file.path(), vec![b'x'; size]).unwrap();
            assert_eq!(read_small(file.path()).is_ok(), is_fine, "{size}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.shown(), "***");
        assert_eq!(Secret::parse("env:NAME").unwrap().shown(), "env:NAME");
        assert_eq!(Secret::parse("file:/a/b").unwrap().shown(), "file:/a/b");
    }
}
