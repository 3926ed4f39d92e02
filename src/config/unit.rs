//! Durations, sizes and times as people write them: `500ms`, `64KiB`, `2026-11-23T12:00:00Z`. Pure.

use std::time::Duration;

use jiff::Timestamp;

const SIZES: [(&str, u64); 10] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

/// `500ms`, `30s`, `5m`, `2h`, `1d`; `None` for anything else, a number without a unit included.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(scale(number, millis)?))
}

/// `64KiB`, `8MiB`, `1GB` or a plain number of bytes; `None` for anything else.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return number.parse().ok();
    }
    let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    scale(number, *bytes)
}

/// `2026-11-23T12:00:00Z`, `2026-11-23T13:00:00+01:00`, `2026-11-23` (its beginning in UTC) or `@1790164800000`, in
/// milliseconds since 1970 (UTC); `None` for anything else, a time without its offset included.
pub fn time(text: &str) -> Option<i64> {
    if let Some(millis) = text.strip_prefix('@') {
        return millis.parse().ok().filter(|millis| *millis >= 0);
    }
    let is_date = text.len() == "2026-11-23".len();
    let whole = if is_date { format!("{text}T00:00:00Z") } else { text.into() };
    let time = whole.parse::<Timestamp>().ok()?;
    Some(time.as_millisecond()).filter(|millis| *millis >= 0)
}

/// A size with the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let exact = SIZES[..3].iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Number and unit, with or without spaces between.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number.starts_with(|c: char| c.is_ascii_digit())).then_some((number, unit.trim_start()))
}

/// `number` (at most 9 decimal places) times `unit`, if the product is whole and fits.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let (whole, places) = number.split_once('.').unwrap_or((number, "0"));
    if places.is_empty() || places.len() > 9 || !places.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let tens = 10u64.pow(places.len() as u32);
    let part = u128::from(places.parse::<u64>().ok()?) * u128::from(unit);
    if !part.is_multiple_of(u128::from(tens)) {
        return None;
    }
    let part = u64::try_from(part / u128::from(tens)).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("1.5s", 1500), ("0s", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "30", "s", "-1s", "5 parsecs", "1.s", "1.0001ms", "99999999999999999999h", "1..2s"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("64KiB", 65_536),
            ("8MiB", 8 << 20),
            ("1GB", 1_000_000_000),
            ("1.5 MiB", 1_572_864),
            ("2kb", 2000),
            ("5B", 5),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "-1", "MiB", "8 parsecs", "1.5", "0.3B", "99999999999TiB", "1e3"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_have_offsets() {
        for (text, millis) in [
            ("1970-01-02", 86_400_000),
            ("2026-11-23", 1_795_392_000_000),
            ("2026-11-23T12:00:00Z", 1_795_435_200_000),
            ("2026-11-23T12:00:00.5Z", 1_795_435_200_500),
            ("2026-11-23T13:00:00+01:00", 1_795_435_200_000),
            ("2026-11-23 12:00:00Z", 1_795_435_200_000),
            ("@0", 0),
            ("@1795435200000", 1_795_435_200_000),
        ] {
            assert_eq!(time(text), Some(millis), "{text}");
        }
        for wrong in
            ["", "2026", "2026-13-01", "2026-11-23T12:00:00", "12:00", "-1d", "@", "@-1", "1960-01-01"]
        {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_size_is_the_same_size(bytes: u64, shift in 0u32..40) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn nothing_panics(text in "[0-9]{0,25}[.]?[0-9]{0,12} ?[a-zA-Zµ-]{0,4}") {
            let _ = (size(&text), duration(&text), time(&text));
        }
    }
}
