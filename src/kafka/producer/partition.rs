//! Which partition a record goes to: by its key as Java's clients choose (so that both put equal keys in one
//! place), and without a key into one partition until its batch is full.

/// The partition, of `partitions`, that Java's default partitioner gives to a record with this key.
///
/// Depends on the number of partitions: when a topic gets more, keys move. `partitions` below 1 counts as 1.
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Murmur2, 32 bits (Appleby 2008), with the seed that Java's clients use.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word = (word ^ (word >> 24)).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ word;
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MIX);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MIX);
    (hash ^ (hash >> 15)) as i32
}

/// Where records without a key go: one partition a batch, so that batches get large (KIP-480), one after the
/// other, because every batch here is about as large as the next.
#[derive(Debug, Default)]
pub(super) struct Sticky(i32);

impl Sticky {
    /// Begins at some partition, so that several producers do not all press on the first.
    pub fn starting_at(seed: u64) -> Self {
        Sticky((seed & 0xffff) as i32)
    }

    pub fn current(&self, partitions: i32) -> i32 {
        self.0 % partitions.max(1)
    }

    /// The batch is closed: the next partition's turn.
    pub fn advance(&mut self) {
        self.0 = self.0.wrapping_add(1) & 0x7fff_ffff;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // The values of Kafka's own UtilsTest.
        for (key, hash) in [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn every_partition_is_possible_and_none_beyond() {
        let mut seen = [0; 7];
        for number in 0..1000u32 {
            seen[partition_for(&number.to_be_bytes(), 7) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 80), "{seen:?}");
        assert_eq!(partition_for(b"", 1), 0);
        assert_eq!(partition_for(b"x", 0), 0);
    }

    #[test]
    fn records_without_a_key_take_turns() {
        let mut sticky = Sticky(0x7fff_fffe);
        let turns: Vec<_> = std::iter::repeat_with(|| {
            let now = sticky.current(3);
            sticky.advance();
            now
        })
        .take(4)
        .collect();
        assert_eq!(turns, [0x7fff_fffe % 3, 0x7fff_ffff % 3, 0, 1]);
        assert_eq!(Sticky::starting_at(u64::MAX).current(0), 0);
    }
}
