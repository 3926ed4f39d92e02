//! What follows from what is remembered: [`Outcome`], and the refusals. Pure.

use std::collections::BTreeMap;

use super::StateOptions;
use super::record::Record;
use crate::error::{Error, Result};
use crate::source::Cuts;

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is remembered of these inputs.
    Begin,
    /// Some of it is done.
    Resume(Resume),
    /// Everything is stored already.
    NothingToDo {
        /// Records that were rejected.
        rejected: u64,
    },
}

/// How far the given inputs are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Inputs that are stored to their end.
    pub done: usize,
    /// Inputs that were left somewhere in between.
    pub open: usize,
    /// Inputs of which nothing is stored.
    pub new: usize,
    /// Inputs that were stored to their end and have grown.
    pub grown: Vec<String>,
    /// Records of them that were rejected by the run that this one goes on with.
    pub rejected: u64,
}

/// Refuses a state of another output or source.
pub(super) fn check_place(record: &Record, options: &StateOptions) -> Result<()> {
    let dir = options.home.name();
    if record.output != options.output {
        let name = |output: &str| match output {
            "here" => "that it stands in".to_owned(),
            other => other.to_owned(),
        };
        let (old, new) = (name(&record.output), name(&options.output));
        let what = format!(
            "the state in {dir} belongs to the output {old}, not {new}; each needs a --state of its own"
        );
        return Err(Error::Changed { what });
    }
    if record.source != options.source {
        let what = format!(
            "the state in {dir} belongs to a {} source, not {}; each needs a --state of its own",
            record.source, options.source
        );
        return Err(Error::Changed { what });
    }
    Ok(())
}

/// Refuses a state of another output or source, and other settings than those it was made with.
pub(super) fn check(record: &Record, options: &StateOptions) -> Result<()> {
    check_place(record, options)?;
    match changed(&record.settings, &options.settings) {
        Some(what) if !begins_another_pass(record, options) => Err(Error::Changed { what }),
        _ => Ok(()),
    }
}

/// Whether other settings do not matter: what is planned is done again at the same ends, but the next pass is another
/// one.
pub(super) fn begins_another_pass(record: &Record, options: &StateOptions) -> bool {
    options.cuts == Cuts::Early && record.run.finished
}

/// Each setting that is not what it was, with both values.
pub(super) fn changed(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Option<String> {
    let value = |settings: &BTreeMap<String, String>, name: &str| {
        settings.get(name).cloned().unwrap_or_else(|| "not set".into())
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let texts: Vec<String> = differ
        .map(|name| format!("{name} was {} and is {} now", value(old, name), value(new, name)))
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}
