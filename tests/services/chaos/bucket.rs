//! What is in the bucket, as a client sees it that is not ours, compared with what was written to Kafka.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use ::s3::creds::Credentials;
use ::s3::{Bucket, Region};
use serde_json::Value;

use crate::runs::text;
use crate::s3::{KEY, SECRET};

/// One object, and which records are in it.
struct Found {
    key: String,
    bytes: Vec<u8>,
    /// Where its batch begins, by its name.
    start: u64,
    numbers: Vec<u64>,
}

/// Objects by partition.
type Partitions = BTreeMap<usize, Vec<Found>>;

/// Looks at everything.
pub struct Inspector {
    bucket: Box<Bucket>,
    prefix: String,
}

impl Inspector {
    pub fn new(endpoint: String, bucket: &str, prefix: &str) -> Self {
        let region = Region::Custom { region: "us-east-1".into(), endpoint };
        let credentials =
            Credentials::new(Some(KEY), Some(SECRET), None, None, None).expect("these are keys");
        let bucket = Bucket::new(bucket, region, credentials).expect("it is a bucket").with_path_style();
        Inspector { bucket, prefix: prefix.into() }
    }

    /// All objects under `top`.
    fn objects(&self, top: &str, topic: &str) -> Result<Partitions, String> {
        let pages = self.bucket.list(format!("{}{top}/", self.prefix), None).expect("it can be listed");
        let mut partitions = Partitions::new();
        for object in pages.into_iter().flat_map(|page| page.contents) {
            let answer = self.bucket.get_object(&object.key).expect("it can be read");
            if answer.status_code() != 200 || answer.bytes().len() as u64 != object.size {
                return Err(format!(
                    "{}: status {}, {} bytes",
                    object.key,
                    answer.status_code(),
                    object.size
                ));
            }
            let (partition, start) =
                name(&object.key, topic).ok_or_else(|| format!("a strange key: {}", object.key))?;
            let bytes = answer.bytes().to_vec();
            let numbers = numbers(&object.key, &bytes, partition)?;
            let found = Found { key: object.key, bytes, start, numbers };
            partitions.entry(partition).or_default().push(found);
        }
        partitions.values_mut().for_each(|objects| objects.sort_by_key(|found| found.start));
        Ok(partitions)
    }

    /// Up to where every record of each partition is stored. A batch has up to two objects, and a member may be killed
    /// between them: one counts only with all its records.
    ///
    /// # Errors
    /// If an object is not what it should be.
    pub fn stored(&self, topic: &str, partitions: usize) -> Result<Vec<u64>, String> {
        let mut batches = vec![BTreeMap::new(); partitions];
        for top in ["processed", "failed"] {
            for (partition, objects) in self.objects(top, topic)? {
                for found in objects {
                    let (end, count) = batches[partition].entry(found.start).or_insert((0u64, 0u64));
                    *end = (*end).max(found.numbers.last().map_or(0, |last| last + 1));
                    *count += found.numbers.len() as u64;
                }
            }
        }
        let until = |batches: BTreeMap<u64, (u64, u64)>| {
            let mut at = 0;
            while let Some(&(end, count)) = batches.get(&at)
                && count > 0
                && at + count == end
            {
                at = end;
            }
            at
        };
        Ok(batches.into_iter().map(until).collect())
    }

    /// Compares with how many records each partition has: each record once, in order. Says what was found. What is
    /// wrong goes to `evidence`, with the objects.
    ///
    /// # Errors
    /// What is wrong.
    pub fn compare(&self, topic: &str, written: &[u64], evidence: &Path) -> Result<String, String> {
        let stored = self.objects("processed", topic)?;
        let failed = self.objects("failed", topic)?;
        let mut wrong = String::new();
        let mut suspects: Vec<&Found> = Vec::new();
        for objects in stored.values().chain(failed.values()) {
            out_of_order(objects, &mut wrong, &mut suspects);
        }
        let none = Vec::new();
        for (partition, &count) in written.iter().enumerate() {
            let of = |all: &'_ Partitions| all.get(&partition).map_or(0, Vec::len);
            let all = stored.get(&partition).unwrap_or(&none).iter();
            let all = all.chain(failed.get(&partition).unwrap_or(&none));
            let before = wrong.len();
            compare_partition(partition, count, all, &mut wrong, &mut suspects);
            if wrong.len() > before {
                let _ = writeln!(wrong, "partition {partition}: {} and {} objects", of(&stored), of(&failed));
            }
        }
        if let Some(partition) = stored.keys().chain(failed.keys()).find(|it| **it >= written.len()) {
            let _ = writeln!(wrong, "partition {partition} does not exist");
        }
        if !wrong.is_empty() {
            keep(&stored, &failed, &suspects, evidence);
            return Err(wrong);
        }
        let count = |all: &Partitions| all.values().map(Vec::len).sum::<usize>();
        let letters: usize = failed.values().flatten().map(|found| found.numbers.len()).sum();
        let records: u64 = written.iter().sum();
        Ok(format!(
            "{records} records in {} objects, {letters} of them dead letters in {} objects",
            count(&stored),
            count(&failed)
        ))
    }
}

/// Partition and start of an object, by its key.
fn name(key: &str, topic: &str) -> Option<(usize, u64)> {
    let name = key.rsplit('/').next()?.split('.').next()?;
    let mut parts = name.strip_prefix(topic)?.strip_prefix('-')?.split('-');
    let (partition, _id, start) = (parts.next()?, parts.next()?, parts.next()?);
    Some((partition.parse().ok()?, start.parse().ok()?))
}

/// The numbers of all records in an object.
fn numbers(key: &str, bytes: &[u8], partition: usize) -> Result<Vec<u64>, String> {
    let text = text(key, bytes);
    text.lines().map(|line| number(line, partition).ok_or_else(|| format!("{key}: {line}"))).collect()
}

/// The number of a record, or of a dead letter, if everything about it is right.
fn number(line: &str, partition: usize) -> Option<u64> {
    let value: Value = serde_json::from_str(line).ok()?;
    let (of, n) = match value.get("payload") {
        Some(payload) => {
            let mut words = payload.as_str()?.strip_prefix("no JSON ")?.split(' ');
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
        }
        None => (value["data"]["p"].as_u64()?, value["data"]["n"].as_u64()?),
    };
    let offset = value["metadata"]["offset"].as_u64()?;
    (of == partition as u64 && n == offset).then_some(n)
}

/// Inside an object and from one to the next, numbers only grow.
fn out_of_order<'a>(objects: &'a [Found], wrong: &mut String, suspects: &mut Vec<&'a Found>) {
    let mut last = None;
    for found in objects {
        for &number in &found.numbers {
            if number < found.start || last.is_some_and(|last| number <= last) {
                let _ = writeln!(wrong, "out of order: {number} after {last:?} in {}", found.key);
                suspects.push(found);
                break;
            }
            last = Some(number);
        }
    }
}

fn compare_partition<'a>(
    partition: usize,
    count: u64,
    objects: impl Iterator<Item = &'a Found>,
    wrong: &mut String,
    suspects: &mut Vec<&'a Found>,
) {
    let mut seen: Vec<Option<&Found>> = vec![None; count as usize];
    let mut twice: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for found in objects {
        for &number in &found.numbers {
            let Some(place) = seen.get_mut(number as usize) else {
                let _ = writeln!(wrong, "{partition}:{number} was never written, and is in {}", found.key);
                continue;
            };
            if let Some(first) = place.replace(found) {
                twice.entry((&first.key, &found.key)).or_default().push(number);
                suspects.extend([first, found]);
            }
        }
    }
    for ((one, other), numbers) in twice {
        let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
        let _ =
            writeln!(wrong, "twice: {partition}:{first}..={last} ({}) in {one} and {other}", numbers.len());
    }
    let missing: Vec<u64> = seen
        .iter()
        .enumerate()
        .filter(|(_, found)| found.is_none())
        .map(|(number, _)| number as u64)
        .collect();
    for run in missing.chunk_by(|one, next| one + 1 == *next) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let before = first.checked_sub(1).and_then(|number| seen[number as usize]);
        let before = before.map_or("nothing", |found| &found.key);
        let _ = writeln!(wrong, "missing: {partition}:{first}..={last} behind what is in {before}");
    }
}

/// A list of all objects, and those that something is wrong with.
fn keep(stored: &Partitions, failed: &Partitions, suspects: &[&Found], evidence: &Path) {
    let mut list = String::new();
    for found in stored.values().chain(failed.values()).flatten() {
        let (first, last) = (found.numbers.first(), found.numbers.last());
        let count = found.numbers.len();
        let _ = writeln!(list, "{} start {}: {count} records, {first:?} to {last:?}", found.key, found.start);
    }
    std::fs::write(evidence.join("objects.txt"), list).expect("it can be written");
    for found in suspects {
        std::fs::write(evidence.join(found.key.replace('/', "_")), &found.bytes).expect("it can be written");
    }
}
