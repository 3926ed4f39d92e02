//! Settings become the validated configuration, once: [`resolve`].

use std::num::NonZeroUsize;

use super::key::{Default as KeyDefault, KEYS, Key, Wrong};
use super::setting::{Origin, Setting, Value};
use super::{Config, Log, memory_for_files, place, unit};
use crate::codec::Codec;

/// What the settings have said so far. What depends on several of them is decided at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) log: Log,
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) memory_limit: Option<usize>,
    pub(super) codec: Option<Codec>,
}

/// The configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Checked, with every default filled in.
    pub config: Config,
    /// What is logged and how.
    pub log: Log,
    /// Every key in the order of [`KEYS`].
    pub values: Vec<Effective>,
}

/// What a key came to.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Which key.
    pub key: &'static Key,
    /// Its value; `None` where nobody set it and it has none by default.
    pub value: Option<Value>,
    /// Where the value came from.
    pub origin: Origin,
}

impl Resolved {
    /// Where the value of `section.name` came from.
    pub fn origin(&self, path: &str) -> &Origin {
        self.values.iter().find(|it| it.key.path() == path).map_or(&Origin::Default, |it| &it.origin)
    }
}

/// Lays `settings` over the defaults, the later ones over the earlier ones.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn resolve(settings: Vec<Setting>) -> Result<Resolved, Vec<String>> {
    let mut draft = Draft::default();
    let mut problems = Vec::new();
    let mut values: Vec<Effective> = KEYS.iter().map(|key| effective(key, &settings)).collect();
    for it in values.iter().filter(|it| it.origin != Origin::Default) {
        if let Some(value) = &it.value
            && let Err(wrong) = (it.key.set)(&mut draft, value)
        {
            problems.push(explain(it, value, wrong));
        }
    }
    finish(&mut draft, &mut values, &mut problems);
    if problems.is_empty() {
        Ok(Resolved { config: draft.config, log: draft.log, values })
    } else {
        Err(problems)
    }
}

/// The last setting of a key is the one that counts. One that is overruled is not even checked: what it said
/// does not matter to this run.
fn effective(key: &'static Key, settings: &[Setting]) -> Effective {
    let set = settings.iter().rev().find(|setting| std::ptr::eq(setting.key, key));
    match (set, key.default) {
        (Some(setting), _) => {
            Effective { key, value: Some(setting.value.clone()), origin: setting.origin.clone() }
        }
        (None, KeyDefault::Is(text)) => {
            Effective { key, value: Some(Value::Text(text.into())), origin: Origin::Default }
        }
        (None, KeyDefault::Absent(..)) => Effective { key, value: None, origin: Origin::Default },
    }
}

fn explain(it: &Effective, value: &Value, wrong: Wrong) -> String {
    let place = it.origin.locate(it.key);
    match wrong {
        Wrong::Expected => format!("{place}: expected {}, not {value}", it.key.expected),
        Wrong::Because(reason) => format!("{place}: {reason}"),
    }
}

/// Fills in what depends on other values or on the machine.
fn finish(draft: &mut Draft, values: &mut [Effective], problems: &mut Vec<String>) {
    let config = &mut draft.config;
    if let Some(workers) = draft.workers {
        config.processing.workers = workers;
    }
    let workers = config.processing.workers;
    config.processing.memory_limit = draft.memory_limit.unwrap_or_else(|| memory_for_files(workers));
    match place::codec(&config.output.to, draft.codec) {
        Ok(codec) => config.output.codec = codec,
        Err(problem) => problems.push(problem),
    }
    computed(values, "processing.workers", workers.to_string());
    computed(values, "processing.memory_limit", unit::show_size(config.processing.memory_limit as u64));
    computed(values, "output.compress", place::show_codec(config.output.codec));
}

/// Shows what a value came to that nobody set.
fn computed(values: &mut [Effective], path: &str, text: String) {
    if let Some(it) = values.iter_mut().find(|it| it.key.path() == path && it.value.is_none()) {
        it.value = Some(Value::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::parse_set;
    use crate::config::{MaxRejected, StateAt};

    fn set(pairs: &[&str]) -> Result<Resolved, Vec<String>> {
        resolve(pairs.iter().map(|pair| parse_set(pair).unwrap()).collect())
    }

    #[track_caller]
    fn wrong(pair: &str, expected: &str) {
        assert_eq!(set(&[pair]).unwrap_err(), [format!("--set {expected}")]);
    }

    #[test]
    fn the_table_has_the_defaults_of_the_types() {
        let mut draft = Draft::default();
        for key in KEYS {
            if let KeyDefault::Is(text) = key.default {
                let set = (key.set)(&mut draft, &key.read(text));
                assert!(set.is_ok(), "{}", key.path());
            }
        }
        assert_eq!(draft.config, Config::default());
        assert_eq!(draft.log, Log::default());
    }

    #[test]
    fn every_example_is_a_value() {
        for key in KEYS {
            if let KeyDefault::Absent(text, _) = key.default {
                let set = (key.set)(&mut Draft::default(), &key.read(text));
                assert!(set.is_ok(), "{}", key.path());
            }
        }
    }

    #[test]
    fn values_reach_the_configuration() {
        let it = set(&[
            "processing.workers=3",
            "processing.max_rejected=2.5%",
            "processing.shard=1/4",
            "processing.state=none",
            "processing.output=x.json.gz",
            "input.files=[\"a\", \"b\"]",
        ])
        .unwrap()
        .config;
        assert_eq!(it.processing.workers.get(), 3);
        assert_eq!(it.processing.memory_limit, 48 << 20);
        assert_eq!(it.processing.max_rejected, Some(MaxRejected::Percent(2.5)));
        assert_eq!(it.processing.shard, Some((1, 4)));
        assert_eq!(it.processing.state, StateAt::None);
        assert_eq!(it.output.codec, Codec::Gzip(1));
        assert_eq!(it.input.files, ["a", "b"]);
    }

    #[test]
    fn the_memory_limit_follows_the_workers() {
        assert_eq!(set(&["processing.workers=8"]).unwrap().config.processing.memory_limit, 64 << 20);
        let both = ["processing.workers=8", "processing.memory_limit=16MiB"];
        assert_eq!(set(&both).unwrap().config.processing.memory_limit, 16 << 20);
    }

    #[test]
    fn wrong_values_say_what_was_expected() {
        wrong(
            "processing.workers=0",
            "processing.workers: expected a whole number from 1 to 1024, not \"0\"",
        );
        wrong(
            "processing.batch_size=-1",
            "processing.batch_size: expected a whole number of records, 0 or more (0: no limit by count), not \"-1\"",
        );
        wrong(
            "processing.batch_wait=5",
            "processing.batch_wait: expected a duration like 500ms, 30s, 5m or 2h, not \"5\"",
        );
        wrong(
            "processing.source=kafka",
            "processing.source: this build cannot read from kafka yet; \
             it reads from: file (files, directories and -)",
        );
    }

    #[test]
    fn every_key_refuses_nonsense() {
        let takes_anything =
            ["processing.output", "processing.state", "processing.processed_by", "output.dead_letter"];
        for key in KEYS {
            for nonsense in ["", "\u{0}?"] {
                if nonsense.is_empty()
                    || !(takes_anything.contains(&key.path().as_str())
                        || key.shape == super::super::key::Shape::List)
                {
                    let problem = set(&[&format!("{}={nonsense}", key.path())]).unwrap_err();
                    assert!(problem[0].contains("expected "), "{problem:?}");
                }
            }
        }
    }

    #[test]
    fn all_problems_are_told_and_overruled_ones_are_not() {
        assert_eq!(
            set(&["processing.workers=0", "log.level=x", "output.compress=lz4"]).unwrap_err().len(),
            3
        );
        assert!(set(&["processing.workers=0", "processing.workers=1"]).is_ok());
    }
}
