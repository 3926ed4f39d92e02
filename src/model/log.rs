//! The topic: records by offset, with gaps (control records, aborted transactions), retention and compaction; it may
//! be deleted and created again under its name.

use uuid::Uuid;

use super::random::Random;

/// A record: which topic of that name, which partition, which offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub topic: u8,
    pub partition: u8,
    pub offset: u32,
}

impl Id {
    /// How many bytes stand for one.
    pub const LEN: usize = 6;

    pub fn bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.offset.to_be_bytes();
        [self.topic, self.partition, a, b, c, d]
    }

    /// All that stand in a body.
    pub fn all(bytes: &[u8]) -> Vec<Id> {
        let id = |row: &[u8]| Id {
            topic: row[0],
            partition: row[1],
            offset: u32::from_be_bytes([row[2], row[3], row[4], row[5]]),
        };
        bytes.chunks_exact(Self::LEN).map(id).collect()
    }
}

/// One offset.
#[derive(Clone, Copy)]
pub struct Row {
    pub time: i64,
    /// Whether a record stands there now.
    pub there: bool,
    /// Whether one ever did.
    pub ever: bool,
}

#[derive(Default)]
pub struct Part {
    pub rows: Vec<Row>,
    /// The first offset that retention has left.
    pub start: u64,
    /// Whether the group had committed something when this came to be.
    pub late: bool,
    /// Where it was fetched from for the first time, by anyone.
    pub first_fetch: Option<u64>,
}

impl Part {
    pub fn end(&self) -> u64 {
        self.rows.len() as u64
    }
}

#[derive(Default)]
pub struct Log {
    /// All topics that had the name; the last one is there.
    pub topics: Vec<Vec<Part>>,
}

impl Log {
    /// What tells the topics of one name apart.
    pub fn id(topic: usize) -> Uuid {
        Uuid::from_u128((topic as u128 + 1) << 96)
    }

    pub fn current(&self) -> usize {
        self.topics.len() - 1
    }

    pub fn parts(&mut self) -> &mut Vec<Part> {
        self.topics.last_mut().expect("there is one from the start")
    }

    pub fn create(&mut self, partitions: usize, late: bool) {
        if let Some(before) = self.topics.last_mut() {
            before.iter_mut().flat_map(|part| &mut part.rows).for_each(|row| row.there = false);
        }
        self.topics.push((0..partitions).map(|_| Part { late, ..Part::default() }).collect());
    }

    /// Some more offsets, one in eight without a record.
    pub fn append(&mut self, random: &mut Random, now: i64) {
        let parts = self.parts();
        let at = random.index(parts.len());
        for _ in 0..=random.below(6) {
            let ever = !random.one_in(8);
            parts[at].rows.push(Row { time: now + random.below(3) as i64, there: ever, ever });
        }
    }

    /// Removes the oldest records of a partition, or single ones.
    pub fn remove(&mut self, random: &mut Random) {
        let parts = self.parts();
        let at = random.index(parts.len());
        let part = &mut parts[at];
        let from = part.start as usize;
        let len = (part.rows.len() - from) as u64;
        let count = random.below(len + 1).min(1 + random.below(6)) as usize;
        if random.one_in(2) {
            part.rows[from..from + count].iter_mut().for_each(|row| row.there = false);
            part.start += count as u64;
        } else {
            for _ in 0..count {
                part.rows[from + random.index(len as usize)].there = false;
            }
        }
    }
}
