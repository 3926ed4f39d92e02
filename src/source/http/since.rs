//! What is new: [`Since`] keeps the highest value of a field that grows from change to change. Pure.

use jiff::Timestamp;

use crate::transform::pointer::Pointer;

/// The highest value that was seen, as JSON text.
#[derive(Clone, Debug)]
pub(super) struct Since {
    pointer: Option<Pointer>,
    highest: Option<String>,
}

impl Since {
    pub fn new(pointer: Option<&Pointer>, highest: Option<String>) -> Self {
        Since { pointer: pointer.cloned(), highest }
    }

    pub fn highest(&self) -> Option<&String> {
        self.highest.as_ref()
    }

    /// Looks at a record. One that is no JSON, or has no such text or number, is passed over.
    pub fn look(&mut self, record: &[u8]) {
        let Some(pointer) = &self.pointer else { return };
        let found = std::str::from_utf8(record).ok().and_then(|json| pointer.find(json));
        let Some(found) = found.filter(|text| is_scalar(text)) else { return };
        if self.highest.as_deref().is_none_or(|highest| is_later(found, highest)) {
            self.highest = Some(found.to_owned());
        }
    }
}

/// What is sent for a value: a text without its quotes, a number as it is written.
pub(super) fn parameter(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

fn is_scalar(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

/// Numbers by their size, times (RFC 3339) by time, other texts byte by byte.
fn is_later(one: &str, other: &str) -> bool {
    if let (Ok(one), Ok(other)) = (one.parse::<i128>(), other.parse::<i128>()) {
        return one > other;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) {
        return one > other;
    }
    let (one, other) = (parameter(one), parameter(other));
    match (one.parse::<Timestamp>(), other.parse::<Timestamp>()) {
        (Ok(one), Ok(other)) => one > other,
        _ => one > other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(records: &[&str], expected: Option<&str>) {
        let mut since = Since::new(Some(&Pointer::new("/at").unwrap()), None);
        records.iter().for_each(|record| since.look(record.as_bytes()));
        assert_eq!(since.highest().map(String::as_str), expected);
    }

    #[test]
    fn the_highest_value_counts() {
        check(&[r#"{"at":9}"#, r#"{"at":10}"#, r#"{"at":-3}"#, "{}", "nonsense"], Some("10"));
        check(&[r#"{"at":1.5}"#, r#"{"at":1.25e1}"#], Some("1.25e1"));
        check(&[r#"{"at":"b"}"#, r#"{"at":"a"}"#], Some("\"b\""));
        let (one, other) = (r#"{"at":"2026-11-23T12:00:00Z"}"#, r#"{"at":"2026-11-23T13:30:00+02:00"}"#);
        check(&[one, other], Some("\"2026-11-23T12:00:00Z\""));
        check(&[r#"{"at":null}"#, r#"{"at":{}}"#, r#"{"at":true}"#], None);
        assert_eq!((parameter("\"a\\\"b\"").as_str(), parameter("17").as_str()), ("a\"b", "17"));
    }
}
