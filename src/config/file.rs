//! The configuration file as a layer of settings: TOML, with line and column of everything that is wrong.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, Key, Shape};
use super::nearest::did_you_mean;
use super::setting::{Layer, Origin, Setting, Value};

/// The settings in a file's text, and everything that is wrong with it: a line each, `file:line:column: what`.
/// Wrong are TOML that is none, unknown tables and keys, and values that are neither number, switch, text nor list
/// of texts.
pub fn parse(path: &Path, text: &str) -> Layer {
    let mut reader = Reader { path, text, layer: Layer::default() };
    match DeTable::parse(text) {
        Ok(table) => reader.sections(table.get_ref(), ""),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            reader.problem(at, error.message().lines().collect::<Vec<_>>().join(", "));
        }
    }
    reader.layer
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: Layer,
}

impl Reader<'_> {
    fn problem(&mut self, at: usize, what: String) {
        let (line, column) = place(self.text, at);
        self.layer.problems.push(format!("{}:{line}:{column}: {what}", self.path.display()));
    }

    /// The tables and keys of one table, which is called `section`.
    fn sections(&mut self, table: &DeTable<'_>, section: &str) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let path = if section.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{section}.{}", name.get_ref())
            };
            if let Some(key) = key::KEYS.iter().find(|key| key.path() == path) {
                self.value(key, value);
            } else if is_section(&path) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.section(inner, &path, value.span().start),
                    _ => self.problem(value.span().start, format!("{path}: expected a table")),
                }
            } else {
                self.problem(name.span().start, unknown(section, name.get_ref(), &path));
            }
        }
    }

    fn section(&mut self, table: &DeTable<'_>, section: &str, at: usize) {
        let switched = key::SWITCHED.iter().find(|(name, _)| *name == section);
        if let Some(key) = switched.and_then(|(_, path)| key::find(path).ok()) {
            // That the table is there is a setting. Keys in it come later, and count.
            let (line, column) = place(self.text, at);
            let origin = Origin::File { path: self.path.to_path_buf(), line, column };
            self.layer.settings.push(Setting { key, value: key.read(key.example()), origin });
        }
        self.sections(table, section);
    }

    fn value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        let Some(read) = read(value.get_ref()).map(|read| match read {
            Value::Text(text) if key.shape == Shape::Secret => key.read(&text),
            read => read,
        }) else {
            return self.problem(at, format!("{}: expected {}", key.path(), key.expected));
        };
        let (line, column) = place(self.text, at);
        let origin = Origin::File { path: self.path.to_path_buf(), line, column };
        self.layer.settings.push(Setting { key, value: read, origin });
    }
}

fn is_section(path: &str) -> bool {
    key::sections().iter().any(|section| *section == path || section.starts_with(&format!("{path}.")))
}

fn unknown(section: &str, name: &str, path: &str) -> String {
    if section.is_empty() {
        // A key above the first table is the likeliest slip.
        if let Some(key) = key::KEYS.iter().find(|key| key.name == name) {
            return format!("unknown table {name}; the key {name} stands in [{}]", key.section);
        }
        return format!("unknown table {name}{}", did_you_mean(name, key::sections()));
    }
    let here = key::KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let near = did_you_mean(name, here);
    let elsewhere = key::KEYS.iter().find(|key| key.name == name);
    let meant = match elsewhere {
        Some(key) => format!("; {name} stands in [{}]", key.section),
        None => near,
    };
    format!("unknown key {path}{meant}")
}

fn read(value: &DeValue<'_>) -> Option<Value> {
    if let DeValue::Array(items) = value {
        let texts: Option<Vec<String>> =
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        return texts.map(Value::List);
    }
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string(),
        DeValue::Float(number) => number.as_str().replace('_', ""),
        DeValue::Boolean(switch) => switch.to_string(),
        _ => return None,
    };
    Some(Value::Text(text))
}

/// Line and column (in characters) of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn wrong(text: &str, expected: &str) {
        let problems = parse(Path::new("c.toml"), text).problems;
        assert_eq!(problems, [expected], "{text}");
    }

    #[test]
    fn unknown_names_have_a_place_and_the_nearest_name() {
        wrong(
            "# ü\n[processing]\n  bacth_size = 5\n",
            "c.toml:3:3: unknown key processing.bacth_size; did you mean batch_size?",
        );
        wrong("[procesing]\nworkers = 2", "c.toml:1:2: unknown table procesing; did you mean processing?");
        wrong("workers = 2", "c.toml:1:1: unknown table workers; the key workers stands in [processing]");
        wrong(
            "[input]\nworkers = 2",
            "c.toml:2:1: unknown key input.workers; workers stands in [processing]",
        );
        wrong("[gcs]\nbucket = 'x'", "c.toml:1:2: unknown table gcs");
        wrong(
            "[kafka]\nsource.topcis = ['x']",
            "c.toml:2:8: unknown key kafka.source.topcis; did you mean topics?",
        );
        wrong("[kafka]\ngroup = 'x'", "c.toml:2:1: unknown key kafka.group; group stands in [kafka.source]");
        wrong("processing = 3", "c.toml:1:14: processing: expected a table");
    }

    #[test]
    fn wrong_toml_has_a_place() {
        let problems = parse(Path::new("c.toml"), "[processing]\nworkers = = 2\n").problems;
        assert!(problems[0].starts_with("c.toml:2:"), "{problems:?}");
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains('\n'));
    }

    #[test]
    fn values_of_the_wrong_kind_say_what_was_expected() {
        wrong(
            "[input]\nfiles = [1]",
            "c.toml:2:9: input.files: expected a list of files, directories and -, none of them empty",
        );
    }

    #[test]
    fn all_problems_are_told() {
        assert_eq!(parse(Path::new("c"), "[a]\n[input]\nb = 1\n[log]\nc = 2").problems.len(), 3);
    }

    #[test]
    fn every_form_of_a_value_is_read() {
        let text = "processing.workers = 0x10\nprocessing.batch_size = 1_000\ninput.files = ['a', 'b']\noutput = { fsync = false }";
        let settings = parse(Path::new("c"), text).checked().unwrap();
        let values: Vec<String> = settings.iter().map(|setting| setting.value.to_string()).collect();
        assert_eq!(values, ["\"16\"", "\"1000\"", "[\"a\", \"b\"]", "\"false\""]);
        assert_eq!(settings[1].origin.to_string(), "c:2");
    }

    #[test]
    fn notifications_are_on_where_their_table_is() {
        let settings = |text: &str| -> Vec<String> {
            let settings = parse(Path::new("c"), text).checked().unwrap();
            settings.iter().map(|it| format!("{} {} {}", it.key.path(), it.value, it.origin)).collect()
        };
        assert_eq!(settings("[kafka.notify]"), ["kafka.notify.topic \"processing-results\" c:1"]);
        assert_eq!(settings("[kafka.notify]\ntopic = 'x'").last().unwrap(), "kafka.notify.topic \"x\" c:2");
        assert!(settings("[kafka]\n[kafka.sink]").is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]a-z=.\"'#\n 0-9ü_{},-]{0,60}") {
            let _ = parse(Path::new("c"), &text);
        }
    }
}
