//! Prometheus' text format, read as strictly as `promtool check metrics` does: every sample belongs to a family with
//! help and type, families are in one piece, names follow the conventions, histograms add up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

/// Samples by name.
#[derive(Debug)]
pub struct Exposition(BTreeMap<String, Vec<Sample>>);

/// Labels and value.
type Sample = (BTreeMap<String, String>, f64);

impl Exposition {
    /// Reads a document.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has its end");
        let (mut samples, mut kinds, mut helps) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (mut current, mut seen) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help has a text");
                assert!(seen.insert(name.to_owned()), "the family {name} is in one piece");
                assert!(help.ends_with('.') && helps.insert(name.to_owned()), "{line}");
                current = name.into();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a kind");
                assert_eq!(name, current, "type and help are together");
                convention(name, kind);
                kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, labels, value) = sample(line);
                let histogram = kinds.get(&current).is_some_and(|kind| kind == "histogram");
                let own = ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{current}{end}"));
                assert!(
                    if histogram { own } else { name == current },
                    "{line} stands in the family {current}"
                );
                let of: &mut Vec<_> = samples.entry(name).or_default();
                assert!(of.iter().all(|(other, _)| *other != labels), "twice: {line}");
                of.push((labels, value));
            }
        }
        assert_eq!(kinds.len(), helps.len());
        let read = Exposition(samples);
        kinds.iter().filter(|(_, kind)| *kind == "histogram").for_each(|(name, _)| read.adds_up(name));
        read
    }

    fn adds_up(&self, name: &str) {
        let buckets = &self.0[&format!("{name}_bucket")];
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} is cumulative");
        let bound = |(labels, _): &Sample| -> f64 {
            labels["le"].replace("+Inf", "inf").parse().expect("a bound is a number")
        };
        assert!(buckets.windows(2).all(|pair| bound(&pair[0]) < bound(&pair[1])), "{name} is in order");
        let last = buckets.last().expect("there are buckets");
        assert_eq!((bound(last), last.1), (f64::INFINITY, self.sum(&format!("{name}_count"))));
    }

    /// The sum over all samples of a name; fails if there is none.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        let of = self.0.get(name).unwrap_or_else(|| panic!("no metric {name}"));
        of.iter().map(|(_, value)| value).sum()
    }

    /// The sample with this label.
    #[track_caller]
    pub fn of(&self, name: &str, label: &str, is: &str) -> f64 {
        let of = self.0.get(name).unwrap_or_else(|| panic!("no metric {name}"));
        let found = of.iter().find(|(labels, _)| labels.get(label).is_some_and(|it| it == is));
        found.unwrap_or_else(|| panic!("no {name} with {label}={is}")).1
    }
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    begins && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[track_caller]
fn convention(name: &str, kind: &str) {
    assert!(is_name(name), "{name}");
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    for end in ["_bucket", "_sum", "_count"] {
        assert!(!name.ends_with(end), "{name} ends like a part of a histogram");
    }
    // No unit but base units, none of them cut short, and no kind of metric.
    for word in name.split('_') {
        assert!(!NO_WORDS.contains(&word), "{name} has {word} in it");
    }
}

/// What `promtool check metrics` wants in no name.
const NO_WORDS: [&str; 37] = [
    "gauge",
    "counter",
    "histogram",
    "summary",
    "s",
    "sec",
    "ms",
    "us",
    "ns",
    "m",
    "min",
    "h",
    "d",
    "b",
    "kb",
    "mb",
    "gb",
    "tb",
    "pb",
    "kib",
    "mib",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "bits",
    "percent",
    "celsius",
    "fahrenheit",
    "miles",
    "inches",
];

/// Asks `promtool` itself, where it is installed.
#[track_caller]
pub fn promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        return eprintln!("skipped: no promtool; the test's own parser has the same rules");
    };
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it is taken");
    let told = promtool.wait_with_output().expect("it was started");
    let said = String::from_utf8_lossy(&told.stderr) + String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success() && said.trim().is_empty(), "{said}");
}

/// Name, labels and value of a line.
#[track_caller]
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, mut rest)) = key.split_once('{') else {
        assert!(is_name(key), "{line}");
        return (key.into(), BTreeMap::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    while rest != "}" {
        let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(label), "{line}");
        // These are a histogram's and a summary's.
        let reserved = label == "quantile" || label == "le" && !name.ends_with("_bucket");
        assert!(!reserved, "{line}");
        let (mut text, mut chars) = (String::new(), quoted.char_indices());
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("no end: {line}")) {
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => text.push(c),
                    other => panic!("wrong escape {other:?}: {line}"),
                },
                (at, '"') => break at,
                (_, c) => text.push(c),
            }
        };
        assert!(labels.insert(label.to_owned(), text).is_none(), "a label twice: {line}");
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    (name.into(), labels, value)
}

#[test]
#[should_panic(expected = "is in one piece")]
fn a_family_in_two_pieces_is_refused() {
    Exposition::parse("# HELP a A.\n# TYPE a gauge\na 1\n# HELP c C.\n# TYPE c gauge\nc 1\n# HELP a A.\n");
}

#[test]
#[should_panic(expected = "has ms in it")]
fn a_unit_that_is_no_base_unit_is_refused() {
    Exposition::parse("# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n");
}

#[test]
#[should_panic(expected = "is a gauge")]
fn a_total_that_is_no_counter_is_refused() {
    Exposition::parse("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n");
}

#[test]
#[should_panic(expected = "stands in the family")]
fn a_sample_of_another_family_is_refused() {
    Exposition::parse("# HELP a A.\n# TYPE a gauge\nc 1\n");
}
