//! Prints the configuration: [`effective`] for `--print-config`, [`template`] for the shipped `config.toml`.

use std::fmt::Write;

use super::key::{Default, KEYS, Key, SWITCHED, Shape};
use super::mask::masked;
use super::resolve::Resolved;
use super::setting::{Origin, Value};

/// The effective configuration as TOML that says the same when it is fed back; each line with where its value
/// came from. Lines of keys without a value are comments. Of secrets only where they are is shown, and `***` if
/// that is here; the same for what may be one in URLs, headers, parameters and the body.
pub fn effective(resolved: &Resolved) -> String {
    let mut out = String::new();
    let mut section = "";
    for it in &resolved.values {
        let is_on = |name| resolved.values.iter().any(|it| it.key.section == name && it.value.is_some());
        begin_section(&mut out, &mut section, it.key, is_on);
        let (line, origin) = match (&it.value, it.key.default) {
            (Some(value), _) => {
                (format!("{} = {}", it.key.name, literal(it.key, &hidden(it.key, value))), origin(&it.origin))
            }
            (None, Default::Absent(_, meaning)) => {
                (format!("# {} =", it.key.name), format!("default: {meaning}"))
            }
            (None, Default::Is(text)) => (format!("# {} = {text}", it.key.name), "default".into()),
        };
        let _ = writeln!(out, "{line:<40} # {origin}");
    }
    out
}

/// A path in an origin may hold a line break, and a comment must not.
fn origin(origin: &Origin) -> String {
    origin.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Every key with its default and one comment.
pub fn template() -> String {
    let mut out = String::from(
        "# Every key of `pipeline` with its default. Give this file with --config FILE or PIPELINE_CONFIG=FILE.\n\
         # Flags, --set and PIPELINE_<SECTION>__<KEY> come before what stands here. Lines that begin with # are off.\n\
         # Durations: 500ms, 30s, 5m, 2h. Sizes: 64KiB, 8MiB, 1GB or a number of bytes.\n\
         # Times: 2026-11-23T12:00:00Z, 2026-11-23 (its beginning in UTC). Secrets: env:NAME, file:PATH.\n\n",
    );
    let mut section = "";
    for key in KEYS {
        begin_section(&mut out, &mut section, key, |_| false);
        let (line, help) = match key.default {
            Default::Is(text) => {
                (format!("{} = {}", key.name, literal(key, &key.read(text))), key.help.into())
            }
            Default::Absent(example, meaning) => (
                format!("# {} = {}", key.name, literal(key, &key.read(example))),
                format!("{} (default: {meaning})", key.help),
            ),
        };
        let _ = writeln!(out, "{line:<34} # {help}");
    }
    out
}

/// A table that is a setting by being there stands in a comment unless it `is_on`.
fn begin_section(
    out: &mut String,
    section: &mut &'static str,
    key: &Key,
    is_on: impl Fn(&'static str) -> bool,
) {
    if *section != key.section {
        let gap = if section.is_empty() { "" } else { "\n" };
        let is_off = SWITCHED.iter().any(|(name, _)| *name == key.section) && !is_on(key.section);
        let mark = if is_off { "# " } else { "" };
        let _ = writeln!(out, "{gap}{mark}[{}]", key.section);
        *section = key.section;
    }
}

/// A value without what nobody must read.
fn hidden(key: &Key, value: &Value) -> Value {
    match value {
        Value::List(texts) => Value::List(texts.iter().map(|text| masked(key, text)).collect()),
        Value::Text(text) => Value::Text(masked(key, text)),
        Value::Secret(secret) => Value::Secret(secret.clone()),
    }
}

/// A value as TOML.
fn literal(key: &Key, value: &Value) -> String {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    match value {
        Value::List(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(", "))
        }
        Value::Secret(secret) => quoted(&secret.shown()),
        Value::Text(text) => match key.shape {
            Shape::Number if text.parse::<i64>().is_ok() => {
                text.parse::<i64>().map_or_else(|_| quoted(text), |n| n.to_string())
            }
            Shape::Switch => text.clone(),
            Shape::List => format!("[{}]", quoted(text)),
            _ => quoted(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::resolve::resolve;
    use super::super::setting::Setting;
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn the_shipped_file_is_the_table_and_changes_nothing() {
        let shipped = include_str!("../../config.toml");
        assert_eq!(shipped, template(), "write it anew: pipeline --config-template > config.toml");
        let resolved = resolve(file::parse(Path::new("config.toml"), shipped).checked().unwrap()).unwrap();
        let default = resolve(Vec::new()).unwrap();
        assert_eq!(resolved.config, default.config);
        assert_eq!(resolved.log, default.log);
    }

    #[test]
    fn the_shipped_file_is_right_with_every_line_on() {
        let on: String = template()
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| {
                        KEYS.iter().any(|key| rest.starts_with(&format!("{} =", key.name)))
                            || rest.starts_with('[')
                    })
                    .unwrap_or(line)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let settings = file::parse(Path::new("config.toml"), &on).checked().unwrap();
        assert_eq!(settings.len(), KEYS.len() + SWITCHED.len(), "a table that switches is a setting too");
        assert!(resolve(settings).is_ok());
    }

    #[test]
    fn values_show_where_they_came_from() {
        let settings = file::parse(Path::new("my.toml"), "[processing]\nbatch_size = 5").checked().unwrap();
        let shown = effective(&resolve(settings).unwrap());
        assert!(shown.contains("batch_size = 5                           # my.toml:2\n"), "{shown}");
        assert!(shown.contains("# default: beside the output"), "{shown}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "[kafka.sasl]\nusername = 'alice'\npassword = 'hunter2'";
        let resolved = resolve(file::parse(Path::new("my.toml"), text).checked().unwrap()).unwrap();
        let shown = effective(&resolved);
        assert!(shown.contains("password = \"***\"                         # my.toml:3\n"), "{shown}");
        assert!(!format!("{shown}{resolved:?}").contains("hunter2"));
        let text = "[kafka.sasl]\nusername = 'alice'\npassword = 'env:PASSWORD'";
        let resolved = resolve(file::parse(Path::new("my.toml"), text).checked().unwrap()).unwrap();
        let again = effective(&resolved);
        assert!(again.contains("password = \"env:PASSWORD\""), "{again}");
        let again = resolve(file::parse(Path::new("again.toml"), &again).checked().unwrap()).unwrap();
        assert_eq!(again.config, resolved.config);
        let problems = resolve(file::parse(Path::new("again.toml"), &shown).checked().unwrap()).unwrap_err();
        assert!(problems[0].contains("kafka.sasl.password: *** stands for a secret"), "{problems:?}");
    }

    #[test]
    fn a_table_that_switches_is_shown_only_where_it_is_on() {
        let shown = |settings| effective(&resolve(settings).unwrap());
        assert!(shown(Vec::new()).contains("\n# [kafka.notify]\n# topic ="));
        let on = file::parse(Path::new("my.toml"), "[kafka.notify]").checked().unwrap();
        assert!(shown(on).contains("\n[kafka.notify]\ntopic = \"processing-results\""));
    }

    proptest! {
        #[test]
        fn what_is_shown_says_the_same_when_it_is_fed_back(
            texts in proptest::collection::vec("[ -~ü\n\t]{1,12}", 3),
            numbers in proptest::collection::vec(0u32..5000, 6),
            chosen in proptest::collection::vec(any::<bool>(), 18),
        ) {
            let pairs = [
                ("processing.output", format!("d{}", texts[0])),
                ("processing.workers", (numbers[0] % 64 + 1).to_string()),
                ("processing.batch_size", numbers[1].to_string()),
                ("processing.batch_bytes", format!("{}KiB", numbers[2])),
                ("processing.max_rejected", format!("{}%", numbers[3] % 100)),
                ("processing.shard", format!("{}/{}", numbers[4], numbers[4] + 1)),
                ("processing.processed_by", format!("h{}", texts[1])),
                ("input.files", texts[2].clone()),
                ("output.fsync", (numbers[5] % 2 == 0).to_string()),
                ("output.compress", format!("zstd:{}", numbers[5] % 20)),
                ("log.level", "debug".to_owned()),
                ("processing.timeout", format!("{}ms", numbers[0] + 1)),
                ("kafka.brokers", format!("a{}:1, b", numbers[1])),
                ("kafka.source.topics", "a,b".to_owned()),
                ("kafka.source.from", format!("@{}", numbers[2])),
                ("kafka.sink.compression", format!("zstd:{}", numbers[3] % 20)),
                ("kafka.sink.linger", format!("{}ms", numbers[4])),
                ("kafka.notify.topic", format!("n{}", numbers[5])),
            ];
            let settings: Vec<Setting> = pairs
                .iter()
                .zip(chosen)
                .filter(|(_, chosen)| *chosen)
                .map(|((path, text), _)| {
                    let key = super::super::key::find(path).unwrap();
                    Setting { key, value: key.read(text), origin: Origin::Set }
                })
                .collect();
            if let Ok(first) = resolve(settings) {
                let shown = effective(&first);
                let again = resolve(file::parse(Path::new("again.toml"), &shown).checked().unwrap()).unwrap();
                prop_assert_eq!(first.config, again.config);
                prop_assert_eq!(first.log, again.log);
            }
        }
    }
}
