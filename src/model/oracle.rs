//! What must be true at the end: each record stands in the visible objects exactly once, in order.
//!
//! Missing may be what had vanished before it was stored, and what was not to be read: records before the first fetch
//! where `from` is `latest`, and those that an operator has skipped. Twice may be what an operator has set the offset
//! back for; what had vanished by then may be missing.

use std::collections::{BTreeMap, HashMap};

use super::log::Id;
use super::outside::Outside;
use crate::config::kafka::From;

/// An operator has set an offset.
pub struct Reset {
    pub topic: usize,
    pub partition: usize,
    pub offset: u64,
}

/// # Errors
/// What is wrong.
pub fn check(outside: &mut Outside, resets: &[Reset]) -> Result<(), String> {
    let reset = |id: Id| {
        let of = |reset: &&Reset| {
            (reset.topic, reset.partition) == (usize::from(id.topic), usize::from(id.partition))
        };
        let offsets = resets.iter().filter(of).map(|reset| reset.offset);
        offsets.clone().min().zip(offsets.max())
    };
    let mut places: HashMap<Id, u32> = HashMap::new();
    let mut runs: BTreeMap<(bool, u8, u8, u64), &[Id]> = BTreeMap::new();
    for ((_, key), object) in &outside.store.objects {
        object.ids.iter().for_each(|id| *places.entry(*id).or_default() += 1);
        if let Some(first) = object.ids.first() {
            runs.insert(
                (key.starts_with("failed/"), first.topic, first.partition, object.start),
                &object.ids,
            );
        }
    }
    for (id, count) in &places {
        let again = reset(*id).is_some_and(|(from, _)| u64::from(id.offset) >= from);
        if *count > 1 && !again {
            return Err(format!("{id:?} is stored {count} times"));
        }
    }
    for (at, topic) in outside.log.topics.iter().enumerate() {
        for (partition, part) in topic.iter().enumerate() {
            let first = match outside.from {
                From::Earliest => 0,
                _ if part.late => 0,
                _ => part.first_fetch.unwrap_or(u64::MAX),
            };
            for (offset, row) in part.rows.iter().enumerate() {
                let id = Id { topic: at as u8, partition: partition as u8, offset: offset as u32 };
                let was_there = outside.store.seen.contains(&id);
                let skipped = (offset as u64) < first
                    || reset(id).is_some_and(|(_, skipped)| (offset as u64) < skipped);
                // What is exported again lacks what has vanished, and may have the name of what has it.
                let again = !row.there && reset(id).is_some_and(|(from, _)| (offset as u64) >= from);
                let wanted = (was_there && !again) || (row.there && !skipped);
                if wanted && row.ever && !places.contains_key(&id) {
                    return Err(format!("{id:?} is lost{}", if was_there { ", it was there" } else { "" }));
                }
            }
        }
    }
    order(&runs, |id| reset(id).is_some())
}

/// In each partition output and dead letters go on where the object before ended.
fn order(runs: &BTreeMap<(bool, u8, u8, u64), &[Id]>, is_reset: impl Fn(Id) -> bool) -> Result<(), String> {
    let mut last: Option<((bool, u8, u8), Id)> = None;
    for ((failed, topic, partition, _), ids) in runs {
        let of = (*failed, *topic, *partition);
        let before = last.filter(|(other, _)| *other == of).map(|(_, id)| id);
        let mut all = before.into_iter().chain(ids.iter().copied());
        if !is_reset(ids[0]) && !all.is_sorted_by_key_strictly() {
            return Err(format!("{ids:?} does not follow {before:?}"));
        }
        last = ids.last().map(|id| (of, *id));
    }
    Ok(())
}

/// Whether all are greater than the one before.
trait Ascending: Iterator<Item = Id> + Sized {
    fn is_sorted_by_key_strictly(&mut self) -> bool {
        let Some(mut before) = self.next() else { return true };
        self.all(|id| std::mem::replace(&mut before, id) < id)
    }
}

impl<I: Iterator<Item = Id>> Ascending for I {}
