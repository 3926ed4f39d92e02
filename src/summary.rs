//! What a run did: [`Summary`], as text for people and as JSON for programs. Plain data and rendering, no IO.
//!
//! The JSON has one key for each field here, in snake_case, on one line. Keys are only ever added.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Records read, rejected ones included.
    pub records_read: u64,
    /// Outputs stored: more or fewer than records read where a transform makes several or none.
    pub records_stored: u64,
    /// Records rejected.
    pub records_rejected: u64,
    /// Records that were rejected before it, by the interrupted run that it went on with.
    pub rejected_earlier: u64,
    /// Records rejected by kind: the name of [`crate::RejectKind`] and how many.
    pub rejected: BTreeMap<String, u64>,
    /// Bytes read from the inputs as they stand there (compressed, if they are).
    pub bytes_in: u64,
    /// Bytes written, dead letters included (compressed, if they are).
    pub bytes_out: u64,
    /// Batches published.
    pub batches: u64,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Records read a second.
    pub records_per_second: f64,
    /// Millions of bytes read a second.
    pub megabytes_per_second: f64,
    /// Positions that could be read and were not committed when the run ended, of partitions whose end is known (for
    /// Kafka: records); `null` where there is none.
    pub lag: Option<u64>,
    /// The most memory the process held at once (VmHWM), in bytes; `null` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Why batches were closed: the name of [`crate::cut::Close`] and how often.
    pub close_reasons: BTreeMap<String, u64>,
    /// How many partitions this run began. One that went elsewhere and came back counts again once it is not listed.
    pub partition_count: u64,
    /// What was read of each partition by this run, in order; of more than a thousand, of a thousand.
    pub partitions: Vec<PartitionRange>,
    /// The first rejected records, at most three.
    pub samples: Vec<RejectedRecord>,
    /// Where dead letters are, if there are any.
    pub dead_letters: Option<String>,
    /// Where the output is.
    pub output: Option<String>,
    /// Whether it was a dry run: what counts as stored was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything is stored.
    #[default]
    Finished,
    /// It was stopped before its end; what was in flight is stored, unless it was aborted or its output was closed.
    Drained,
    /// It had no end of its own and was told to stop; everything that was taken is stored.
    Ended,
    /// It ended with an error.
    Failed,
    /// An earlier run has done everything already.
    NothingToDo,
}

/// What a run read of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionRange {
    /// Its name.
    pub name: String,
    /// The first position read.
    pub start: u64,
    /// The position up to which everything is stored.
    pub end: u64,
    /// Records read.
    pub records: u64,
    /// Whether it was read to its end.
    pub ended: bool,
    /// Positions that could be read and were not committed; `null` where the source does not know.
    pub lag: Option<u64>,
    /// Whether positions count pages: `page << 32 | index`.
    #[serde(skip)]
    pub paged: bool,
}

/// A rejected record as the summary shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RejectedRecord {
    /// Path, line and position.
    pub place: String,
    /// Kind and message.
    pub reason: String,
}

/// How many partitions the text of a summary has a line for; the JSON has more.
const RANGES: usize = 3;

impl Summary {
    /// Fills in the rates from counts and seconds; 0 where no time has passed.
    pub fn with_rates(mut self) -> Self {
        let per_second = |count: u64| if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 };
        let (records, bytes) = (per_second(self.records_read), per_second(self.bytes_in));
        self.records_per_second = round(records, 10.0);
        self.megabytes_per_second = round(bytes / 1e6, 100.0);
        self
    }

    /// Whether records were rejected, by this run or the interrupted one that it went on with.
    pub fn any_rejected(&self) -> bool {
        self.records_rejected + self.rejected_earlier > 0
    }

    /// One JSON object, without a line break.
    pub fn json(&self) -> String {
        // Every map here has keys that are texts, the only thing that could fail.
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()))
    }

    /// A few lines for people, each with its line break.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.outcome == Outcome::NothingToDo {
            out.push_str("nothing to do: an earlier run has stored everything; --fresh does it again\n");
            self.rejections(&mut out);
            return out;
        }
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<9} {text}");
        };
        let (title, after) = self.title();
        line(title, format!("{after}{} in {}", records(self.records_read), seconds(self.seconds)));
        let batches = plural(self.batches, "batch", "batches");
        let closed = self.reasons();
        let stored = records(self.records_stored);
        line(
            "stored",
            match self.dry_run {
                // How many batches, it cannot tell: it closes one behind each chunk.
                true => format!("nothing; without --dry-run {stored}"),
                false => format!("{stored} in {batches}{closed}{}", self.place()),
            },
        );
        line("bytes", format!("{} in, {} out", bytes(self.bytes_in), bytes(self.bytes_out)));
        line("rate", self.rate());
        if let Some(lag) = self.lag {
            line("lag", self.lagging(lag));
        }
        if let Some(peak) = self.peak_memory_bytes {
            line("memory", format!("{} at most", bytes(peak)));
        }
        self.ranges(&mut line);
        self.rejections(&mut out);
        out
    }

    /// What was read of the first partitions.
    fn ranges(&self, line: &mut impl FnMut(&str, String)) {
        for (index, range) in self.partitions.iter().take(RANGES).enumerate() {
            let span = match range.paged {
                true => format!("pages {} to {}", count(range.start >> 32), count(range.end >> 32)),
                false => format!("{} to {}", count(range.start), count(range.end)),
            };
            let title = if index == 0 { "ranges" } else { "" };
            line(title, format!("{} {span}, {}", printable(&range.name), records(range.records)));
        }
        // Not all of them need be listed.
        let all = self.partition_count.max(self.partitions.len() as u64);
        let more = all - self.partitions.len().min(RANGES) as u64;
        if more > 0 {
            line("", format!("… and {} more", count(more)));
        }
    }

    fn title(&self) -> (&'static str, &'static str) {
        match self.outcome {
            Outcome::Drained | Outcome::Ended => ("stopped", "after "),
            Outcome::Failed => ("failed", "after "),
            _ => ("read", ""),
        }
    }

    fn place(&self) -> String {
        self.output.as_ref().map_or_else(String::new, |output| format!(" to {}", printable(output)))
    }

    fn rate(&self) -> String {
        let records = count(self.records_per_second.round() as u64);
        format!("{records} records/s, {:.1} MB/s", self.megabytes_per_second)
    }

    fn lagging(&self, lag: u64) -> String {
        let behind = self.partitions.iter().filter(|range| range.lag.is_some_and(|lag| lag > 0));
        let most = behind.max_by_key(|range| range.lag);
        let most = most.map(|range| (printable(&range.name), count(range.lag.unwrap_or_default())));
        most.map_or_else(|| records(lag), |(name, lags)| format!("{} (most: {name} {lags})", records(lag)))
    }

    /// Why batches were closed, where there is more to say than that their partition ended.
    fn reasons(&self) -> String {
        if self.close_reasons.keys().all(|name| name == "end") {
            return String::new();
        }
        let reasons: Vec<String> =
            self.close_reasons.iter().map(|(name, times)| format!("{name} {}", count(*times))).collect();
        format!(" ({})", reasons.join(", "))
    }

    fn letters(&self) -> String {
        let place = self.dead_letters.as_ref();
        place.map_or_else(String::new, |place| format!(", kept in {}", printable(place)))
    }

    fn rejections(&self, out: &mut String) {
        if self.rejected_earlier > 0 {
            let (earlier, place) = (records(self.rejected_earlier), self.letters());
            let when = match self.outcome {
                Outcome::NothingToDo => "by that run",
                _ => "before the run was interrupted",
            };
            let _ = writeln!(out, "{:<9} {earlier} {when}{place}", "rejected");
        }
        if self.records_rejected == 0 {
            // A run that would not go on with a rejected record stored none of its chunk.
            for sample in &self.samples {
                let _ = writeln!(
                    out,
                    "{:<9} {}: {}",
                    "refused",
                    printable(&sample.place),
                    printable(&sample.reason)
                );
            }
            return;
        }
        let kinds: Vec<String> =
            self.rejected.iter().map(|(kind, times)| format!("{kind} {}", count(*times))).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        let all = records(self.records_rejected);
        let _ = writeln!(out, "{:<9} {all}{kinds}{}", "rejected", self.letters());
        for sample in &self.samples {
            let _ = writeln!(out, "{:<9} {}: {}", "", printable(&sample.place), printable(&sample.reason));
        }
        let more = self.records_rejected.saturating_sub(self.samples.len() as u64);
        if more > 0 && !self.samples.is_empty() {
            let _ = writeln!(out, "{:<9} … and {} more", "", count(more));
        }
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// Text from an input, safe to show on a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn records(number: u64) -> String {
    plural(number, "record", "records")
}

fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A number with commas between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes with three digits or so: `1.5 MB`.
pub fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            let places = usize::from(unit != "B" && value < 99.95);
            return format!("{value:.places$} {unit}");
        }
        value /= 1000.0;
    }
    number.to_string()
}

/// A time with as many digits as matter: `0.12 s`, `4.2 s`, `3m 05s`, `2h 07m`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..3 => format!("{seconds:.2} s"),
        3..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Summary {
        Summary {
            records_read: 1_234_567,
            records_stored: 1_234_563,
            records_rejected: 4,
            rejected: [("invalid_json".to_owned(), 3), ("too_large".to_owned(), 1)].into(),
            bytes_in: 250_000_000,
            bytes_out: 310_000_000,
            batches: 5,
            seconds: 2.0,
            peak_memory_bytes: Some(51_000_000),
            close_reasons: [("bytes".to_owned(), 4), ("end".to_owned(), 1)].into(),
            partitions: vec![PartitionRange {
                name: "a.json".into(),
                start: 0,
                end: 250_000_000,
                records: 1_234_567,
                ended: true,
                lag: None,
                paged: false,
            }],
            samples: vec![RejectedRecord {
                place: "a.json line 7 (byte 812)".into(),
                reason: "invalid_json: expected value\u{1b}[2J".into(),
            }],
            dead_letters: Some("out/failed".into()),
            output: Some("out".into()),
            ..Summary::default()
        }
        .with_rates()
    }

    #[test]
    fn the_text_is_short_and_aligned() {
        let expected = "\
read      1,234,567 records in 2.00 s
stored    1,234,563 records in 5 batches (bytes 4, end 1) to out
bytes     250 MB in, 310 MB out
rate      617,284 records/s, 125.0 MB/s
memory    51.0 MB at most
ranges    a.json 0 to 250,000,000, 1,234,567 records
rejected  4 records (invalid_json 3, too_large 1), kept in out/failed
          a.json line 7 (byte 812): invalid_json: expected value\u{fffd}[2J
          … and 3 more
";
        assert_eq!(example().text(), expected);
    }

    #[test]
    fn what_was_rejected_before_an_interruption_is_told_too() {
        let told = "rejected  7 records before the run was interrupted, kept in out/failed\n";
        let both = Summary { rejected_earlier: 7, ..example() };
        assert!(both.text().contains(&format!("{told}rejected  4 records (")), "{}", both.text());
        let earlier = Summary { records_rejected: 0, samples: Vec::new(), ..both };
        assert!(earlier.any_rejected() && earlier.text().ends_with(told), "{}", earlier.text());
    }

    #[test]
    fn partitions_that_are_not_listed_are_counted() {
        let partitions = vec![PartitionRange::default(); 1000];
        let summary = Summary { partition_count: 20_000, partitions, ..Summary::default() };
        assert!(summary.text().ends_with("          … and 19,997 more\n"), "{}", summary.text());
        assert!(!example().text().contains("more\nrejected"));
    }

    #[test]
    fn lag_is_told_where_it_is_known() {
        let range = |name: &str, lag| PartitionRange { name: name.into(), lag, ..PartitionRange::default() };
        let partitions = vec![range("t:0", Some(17)), range("t:1", Some(1_200)), range("f", None)];
        let summary = Summary { lag: Some(1_217), partitions, ..Summary::default() };
        assert!(
            summary.text().contains("\nlag       1,217 records (most: t:1 1,200)\n"),
            "{}",
            summary.text()
        );
        let json: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!((&json["lag"], &json["partitions"][0]["lag"]), (&1217.into(), &17.into()));
        assert!(json["partitions"][2]["lag"].is_null());
        let done = Summary { lag: Some(0), ..Summary::default() };
        assert!(done.text().contains("\nlag       0 records\n"));
        assert!(!example().text().contains("\nlag"));
    }

    #[test]
    fn nothing_to_do_says_so() {
        let summary = Summary { outcome: Outcome::NothingToDo, ..Summary::default() };
        let expected = "nothing to do: an earlier run has stored everything; --fresh does it again\n";
        assert_eq!(summary.text(), expected);
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let json: serde_json::Value = serde_json::from_str(&example().json()).unwrap();
        assert_eq!(json["outcome"], "finished");
        assert_eq!(json["records_read"], 1_234_567);
        assert_eq!(json["rejected"]["too_large"], 1);
        assert_eq!(json["records_per_second"], 617_283.5);
        assert_eq!(json["partitions"][0]["ended"], true);
        assert_eq!(json["samples"][0]["place"], "a.json line 7 (byte 812)");
        assert_eq!(json["close_reasons"]["end"], 1);
        let nothing = Summary { outcome: Outcome::NothingToDo, ..Summary::default() }.json();
        assert!(nothing.contains("\"outcome\":\"nothing-to-do\"") && !nothing.contains('\n'));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(0), count(999), count(1000), count(1_000_000)], ["0", "999", "1,000", "1,000,000"]);
        assert_eq!([bytes(0), bytes(999), bytes(1000), bytes(999_999)], ["0 B", "999 B", "1.0 kB", "1.0 MB"]);
        assert_eq!([bytes(123_456_789), bytes(u64::MAX)], ["123 MB", "18446744 TB"]);
        assert_eq!([seconds(0.123), seconds(4.25), seconds(185.0)], ["0.12 s", "4.2 s", "3m 05s"]);
        assert_eq!(seconds(7_620.0), "2h 07m");
    }

    #[test]
    fn no_time_makes_no_rate() {
        assert_eq!(Summary { records_read: 5, ..Summary::default() }.with_rates().records_per_second, 0.0);
    }
}
