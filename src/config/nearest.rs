//! The nearest of several names: what somebody may have meant. Pure.

/// The candidate nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_ascii_lowercase();
            // A beginning of a name is nearer than any typo; the shortest continuation is the nearest.
            let distance = match name.len() >= 3 && lower.starts_with(&name) {
                true => 0,
                false => distance(&name, &lower),
            };
            // Of equally near ones, the one with the same first letter: people rarely get that wrong.
            let begins_otherwise = lower.chars().next() != name.chars().next();
            (distance <= allowed).then_some((distance, begins_otherwise, candidate.len(), candidate))
        })
        .min_by_key(|(distance, begins_otherwise, length, _)| (*distance, *begins_otherwise, *length))
        .map(|(.., candidate)| candidate)
}

/// `; did you mean X?` or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// How many characters are inserted, removed, replaced or swapped with their neighbour (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("batch", "bacth", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["batch_size", "batch_bytes", "workers", "output"];
        assert_eq!(nearest("bacth_size", names), Some("batch_size"));
        assert_eq!(nearest("WORKER", names), Some("workers"));
        assert_eq!(nearest("batch_s", names), Some("batch_size"));
        assert_eq!(nearest("kafka", names), None);
        assert_eq!(nearest("wrokers", ["brokers", "workers"]), Some("workers"));
    }
}
