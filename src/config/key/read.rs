//! What the entries of the table read values with. Each says [`Wrong::Expected`] where a value is not of its kind.

use std::path::PathBuf;
use std::time::Duration;

use super::Wrong;
use crate::config::mask::stands_for_a_secret;
use crate::config::secret::{HIDDEN, Secret};
use crate::config::setting::Value;
use crate::config::{place, unit};

pub(super) const SIZE: &str = "a size like 64KiB, 8MiB, 1GB or a number of bytes";
pub(super) const DURATION: &str = "a duration like 500ms, 30s, 5m or 2h";

pub(super) fn text(value: &Value) -> Result<&str, Wrong> {
    match value {
        Value::Text(text) => Ok(text),
        Value::List(_) | Value::Secret(_) => Err(Wrong::Expected),
    }
}

pub(super) fn name(value: &Value) -> Result<&str, Wrong> {
    let name = text(value)?;
    check(!name.trim().is_empty())?;
    Ok(name)
}

/// A name in the local file system.
pub(super) fn local(value: &Value) -> Result<&str, Wrong> {
    let path = name(value)?;
    match place::foreign(path) {
        None => place::is_expanded(path).map(|()| path).map_err(Wrong::Because),
        Some(kind) => {
            Err(Wrong::Because(format!("what begins with {kind}: is no path; expected a local directory")))
        }
    }
}

pub(super) fn number<T: std::str::FromStr>(value: &Value) -> Result<T, Wrong> {
    text(value)?.trim().parse().map_err(|_| Wrong::Expected)
}

pub(super) fn size(value: &Value) -> Result<u64, Wrong> {
    unit::size(text(value)?).ok_or(Wrong::Expected)
}

pub(super) fn duration(value: &Value) -> Result<Duration, Wrong> {
    unit::duration(text(value)?).ok_or(Wrong::Expected)
}

pub(super) fn one_of<T: Copy>(value: &Value, kinds: &[(&str, T)]) -> Result<T, Wrong> {
    let text = text(value)?;
    kinds.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or(Wrong::Expected)
}

pub(super) fn check(holds: bool) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong::Expected) }
}

pub(super) fn put<T>(place: &mut T, value: T) -> Result<(), Wrong> {
    *place = value;
    Ok(())
}

pub(super) const SWITCH: &str = "true or false";
pub(super) const FILE: &str = "the name of a file";

pub(super) fn switch(value: &Value) -> Result<bool, Wrong> {
    one_of(value, &[("true", true), ("false", false)])
}

/// The name of a local file.
pub(super) fn file(value: &Value) -> Result<Option<PathBuf>, Wrong> {
    let path = name(value)?;
    place::is_expanded(path).map_err(Wrong::Because)?;
    Ok(Some(PathBuf::from(path)))
}

/// Names, one an item or several with commas between, each once.
pub(super) fn names(value: &Value) -> Result<Vec<String>, Wrong> {
    let items = match value {
        Value::List(items) => items.clone(),
        one => vec![text(one)?.to_owned()],
    };
    let mut names: Vec<String> = Vec::new();
    for name in items.iter().flat_map(|item| item.split(',')).map(str::trim) {
        check(!name.is_empty())?;
        if names.iter().all(|other| other != name) {
            names.push(name.into());
        }
    }
    check(!names.is_empty())?;
    Ok(names)
}

/// A duration from `least` to `most`.
pub(super) fn duration_within(value: &Value, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let found = duration(value)?;
    check((least..=most).contains(&found))?;
    Ok(found)
}

pub(super) fn time(value: &Value) -> Result<i64, Wrong> {
    unit::time(text(value)?.trim()).ok_or(Wrong::Expected)
}

/// A secret. What `--print-config` shows instead of one is none.
pub(super) fn secret(value: &Value) -> Result<Secret, Wrong> {
    let Value::Secret(secret) = value else { return Err(Wrong::Expected) };
    if secret.expose() == Some(HIDDEN) {
        return Err(Wrong::Because(stands_for_a_secret("env:NAME, file:PATH or the secret")));
    }
    check(secret.expose() != Some(""))?;
    Ok(secret.clone())
}

/// The items of a list, each with something in it.
pub(super) fn items(value: &Value) -> Result<Vec<String>, Wrong> {
    let items = match value {
        Value::List(items) => items.clone(),
        one => vec![text(one)?.to_owned()],
    };
    check(!items.is_empty() && items.iter().all(|item| !item.trim().is_empty()))?;
    Ok(items)
}

/// A JSON pointer (RFC 6901) to something inside a value.
pub(super) fn pointer(value: &Value) -> Result<String, Wrong> {
    let text = text(value)?;
    check(text.starts_with('/') && !text.chars().any(char::is_control))?;
    crate::transform::pointer::Pointer::new(text).map_err(|_| Wrong::Expected)?;
    Ok(text.to_owned())
}
