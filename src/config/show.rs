//! Prints the configuration: [`effective`] for `--print-config`, [`template`] for the shipped `config.toml`.

use std::fmt::Write;

use super::key::{Default, KEYS, Key, Shape};
use super::resolve::Resolved;
use super::setting::{Origin, Value};

/// The effective configuration as TOML that says the same when it is fed back; each line with where its value
/// came from. Lines of keys without a value are comments.
pub fn effective(resolved: &Resolved) -> String {
    let mut out = String::new();
    let mut section = "";
    for it in &resolved.values {
        begin_section(&mut out, &mut section, it.key);
        let (line, origin) = match (&it.value, it.key.default) {
            (Some(value), _) => (format!("{} = {}", it.key.name, literal(it.key, value)), origin(&it.origin)),
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
         # Durations: 500ms, 30s, 5m, 2h. Sizes: 64KiB, 8MiB, 1GB or a number of bytes.\n\n",
    );
    let mut section = "";
    for key in KEYS {
        begin_section(&mut out, &mut section, key);
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

fn begin_section(out: &mut String, section: &mut &'static str, key: &Key) {
    if *section != key.section {
        let gap = if section.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}[{}]", key.section);
        *section = key.section;
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
                    .filter(|rest| KEYS.iter().any(|key| rest.starts_with(&format!("{} =", key.name))))
                    .unwrap_or(line)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let settings = file::parse(Path::new("config.toml"), &on).checked().unwrap();
        assert_eq!(settings.len(), KEYS.len());
        assert!(resolve(settings).is_ok());
    }

    #[test]
    fn values_show_where_they_came_from() {
        let settings = file::parse(Path::new("my.toml"), "[processing]\nbatch_size = 5").checked().unwrap();
        let shown = effective(&resolve(settings).unwrap());
        assert!(shown.contains("batch_size = 5                           # my.toml:2\n"), "{shown}");
        assert!(shown.contains("# default: beside the output"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_shown_says_the_same_when_it_is_fed_back(
            texts in proptest::collection::vec("[ -~ü\n\t]{1,12}", 3),
            numbers in proptest::collection::vec(0u32..5000, 6),
            chosen in proptest::collection::vec(any::<bool>(), 12),
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
