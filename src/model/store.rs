//! The object store: objects become visible as a whole; a request may arrive late, long after its sender gave it up or
//! died; conditions are honoured or ignored.

use std::collections::{BTreeMap, HashSet};

use super::log::Id;
use crate::s3::{Condition, Found};
use crate::sink::s3::BATCH;

/// A location (whose fingerprint this is) and a key in it.
pub type Name = (u64, String);

/// A condition as it travels.
#[derive(Clone)]
pub enum When {
    Always,
    Absent,
    Match(String),
}

impl From<Condition<'_>> for When {
    fn from(condition: Condition<'_>) -> Self {
        match condition {
            Condition::None => When::Always,
            Condition::Absent => When::Absent,
            Condition::Match(etag) => When::Match(etag.to_owned()),
        }
    }
}

/// A request to store an object.
#[derive(Clone)]
pub struct Put {
    pub name: Name,
    /// What the object carries: start and `opened_at` of its batch.
    pub mark: String,
    /// Where its batch begins.
    pub start: u64,
    pub crc32c: u32,
    pub ids: Vec<Id>,
    pub when: When,
}

/// The store refused: 412.
pub struct Refused;

pub struct Object {
    found: Found,
    pub start: u64,
    pub ids: Vec<Id>,
}

#[derive(Default)]
pub struct Store {
    /// Whether conditions are honoured.
    pub honours: bool,
    pub objects: BTreeMap<Name, Object>,
    /// Requests that are on their way.
    pub late: Vec<Put>,
    /// All that was visible at any time.
    pub seen: HashSet<Id>,
    stored: u64,
}

impl Store {
    pub fn new(honours: bool) -> Self {
        Store { honours, ..Store::default() }
    }

    pub fn look(&self, name: &Name) -> Option<&Found> {
        self.objects.get(name).map(|object| &object.found)
    }

    pub fn put(&mut self, put: Put) -> Result<(), Refused> {
        let there = self.look(&put.name);
        let fits = match &put.when {
            When::Always => true,
            When::Absent => there.is_none(),
            When::Match(etag) => there.is_some_and(|found| found.etag == *etag),
        };
        if self.honours && !fits {
            return Err(Refused);
        }
        self.stored += 1;
        self.seen.extend(&put.ids);
        let found = Found {
            len: (put.ids.len() * Id::LEN) as u64,
            crc32c: Some(put.crc32c),
            etag: self.stored.to_string(),
            age: None,
            metadata: vec![(BATCH.to_owned(), put.mark)],
        };
        self.objects.insert(put.name, Object { found, start: put.start, ids: put.ids });
        Ok(())
    }
}
