//! What members of a group tell each other through the coordinator: subscriptions and assignments, as Java's
//! consumers encode them (ConsumerProtocol, versions 0 to 3).
//!
//! Our own reader, because these bytes come from other members, not from the broker: the schemas' decoder takes
//! a count of four billion at its word. A version from the future is read as the highest known one; what stands
//! behind is skipped, as Java does it.

use std::sync::Arc;

use bytes::Bytes;

use crate::kafka::cluster::TopicPartition;

/// The version that is sent. Older members read the front of it.
const VERSION: i16 = 3;
/// No generation: the member was in none yet, or its client does not tell.
pub(crate) const NO_GENERATION: i32 = -1;

/// What a member wants, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// What it wants to read.
    pub topics: Vec<Arc<str>>,
    /// Bytes for its assignor.
    pub user_data: Option<Vec<u8>>,
    /// What it has and gives up only if it must (version 1, KIP-429).
    pub owned: Vec<TopicPartition>,
    /// The generation in which it got that (version 2); [`NO_GENERATION`] if unknown.
    pub generation: i32,
    /// Where it runs (version 3, KIP-881).
    pub rack: Option<String>,
}

/// The bytes end early, or say something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Subscription {
    /// In the version that we send.
    pub fn encode(&self) -> Bytes {
        let mut out = VERSION.to_be_bytes().to_vec();
        put_count(&mut out, self.topics.len());
        self.topics.iter().for_each(|topic| put_text(&mut out, topic));
        put_bytes(&mut out, self.user_data.as_deref());
        put_partitions(&mut out, &self.owned);
        out.extend_from_slice(&self.generation.to_be_bytes());
        match &self.rack {
            Some(rack) => put_text(&mut out, rack),
            None => out.extend_from_slice(&(-1i16).to_be_bytes()),
        }
        out.into()
    }

    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest(bytes);
        let version = rest.version()?;
        let mut topics = Vec::new();
        for _ in 0..rest.count(2)? {
            topics.push(rest.text()?.ok_or(Malformed)?.into());
        }
        let user_data = rest.bytes()?.map(<[u8]>::to_vec);
        let owned = if version >= 1 { rest.partitions()? } else { Vec::new() };
        let mut generation = if version >= 2 { rest.i32()? } else { NO_GENERATION };
        // Before version 2 the sticky assignors wrote it into their own bytes.
        if version < 2
            && let Some(Ok(told)) = user_data.as_deref().and_then(|data| data.get(..4)).map(TryInto::try_into)
        {
            generation = i32::from_be_bytes(told);
        }
        let rack = if version >= 3 { rest.text()?.map(String::from) } else { None };
        Ok(Subscription { topics, user_data, owned, generation, rack })
    }
}

/// Encodes what a member gets.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut out = VERSION.to_be_bytes().to_vec();
    put_partitions(&mut out, partitions);
    put_bytes(&mut out, None);
    out.into()
}

/// What a member gets. No bytes at all are no partitions: brokers send that to members whom the leader forgot.
///
/// # Errors
/// [`Malformed`].
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rest = Rest(bytes);
    rest.version()?;
    let partitions = rest.partitions()?;
    rest.bytes()?;
    Ok(partitions)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).expect("lists are far below two billion elements");
    out.extend_from_slice(&count.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let size = i16::try_from(text.len()).expect("brokers take no topic name above 249 bytes");
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
    }
}

/// By topic; the partitions of one need not stand together.
fn put_partitions(out: &mut Vec<u8>, partitions: &[TopicPartition]) {
    let mut sorted: Vec<&TopicPartition> = partitions.iter().collect();
    sorted.sort();
    let topics: Vec<_> = sorted.chunk_by(|a, b| a.topic == b.topic).collect();
    put_count(out, topics.len());
    for topic in topics {
        put_text(out, &topic[0].topic);
        put_count(out, topic.len());
        topic.iter().for_each(|of| out.extend_from_slice(&of.partition.to_be_bytes()));
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], Malformed> {
        let (front, back) = self.0.split_at_checked(size).ok_or(Malformed)?;
        self.0 = back;
        Ok(front)
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.take(2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.take(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn version(&mut self) -> Result<i16, Malformed> {
        self.i16().and_then(|version| if version < 0 { Err(Malformed) } else { Ok(version) })
    }

    /// A number of elements that take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.i32()?).map_err(|_| Malformed)?;
        if count > self.0.len() / least { Err(Malformed) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<Option<&'a str>, Malformed> {
        match self.i16()? {
            -1 => Ok(None),
            size => {
                let bytes = self.take(usize::try_from(size).map_err(|_| Malformed)?)?;
                std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed)
            }
        }
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            size => self.take(usize::try_from(size).map_err(|_| Malformed)?).map(Some),
        }
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>, Malformed> {
        let mut partitions = Vec::new();
        for _ in 0..self.count(6)? {
            let topic: Arc<str> = self.text()?.ok_or(Malformed)?.into();
            for _ in 0..self.count(4)? {
                let partition = self.i32()?;
                if partition < 0 {
                    return Err(Malformed);
                }
                partitions.push(TopicPartition { topic: topic.clone(), partition });
            }
        }
        Ok(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    fn partitions() -> impl Strategy<Value = Vec<TopicPartition>> {
        let of = ("[a-z]{1,3}", 0i32..100)
            .prop_map(|(topic, partition)| TopicPartition { topic: topic.into(), partition });
        proptest::collection::btree_set(of, 0..20).prop_map(|set| set.into_iter().collect())
    }

    fn subscription() -> impl Strategy<Value = Subscription> {
        let topics = proptest::collection::vec("[a-zA-Z0-9._-]{1,20}", 0..5);
        let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..10));
        (topics, data, partitions(), any::<i32>(), proptest::option::of("[a-z]{0,5}")).prop_map(
            |(topics, user_data, owned, generation, rack)| Subscription {
                topics: topics.into_iter().map(Into::into).collect(),
                user_data,
                owned,
                generation,
                rack,
            },
        )
    }

    proptest! {
        #[test]
        fn a_subscription_comes_back(given in subscription()) {
            prop_assert_eq!(Subscription::decode(&given.encode()), Ok(given));
        }

        #[test]
        fn an_assignment_comes_back_and_is_what_the_schema_reads(given in partitions()) {
            let bytes = encode_assignment(&given);
            prop_assert_eq!(decode_assignment(&bytes), Ok(given.clone()));
            let theirs = ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), 3).unwrap();
            let count: usize = theirs.assigned_partitions.iter().map(|topic| topic.partitions.len()).sum();
            prop_assert_eq!(count, given.len());
        }

        #[test]
        fn hostile_bytes_are_an_error_or_small(
            given in subscription(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()
        ) {
            let mut bytes = given.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(read) = Subscription::decode(&bytes) {
                prop_assert!(read.topics.len() + read.owned.len() <= bytes.len());
            }
            let _ = decode_assignment(&bytes);
        }
    }

    #[test]
    fn all_versions_of_the_schema_are_read() {
        let theirs = ConsumerProtocolSubscription::default()
            .with_topics(vec![StrBytes::from_static_str("in")])
            .with_user_data(Some(Bytes::from_static(&[0, 0, 0, 7])));
        for version in 0..=3i16 {
            let mut bytes = version.to_be_bytes().to_vec();
            let theirs = if version >= 2 { theirs.clone().with_generation_id(9) } else { theirs.clone() };
            theirs.encode(&mut bytes, version).unwrap();
            let read = Subscription::decode(&bytes).unwrap();
            assert_eq!((&*read.topics[0], read.topics.len()), ("in", 1));
            assert_eq!(read.generation, if version >= 2 { 9 } else { 7 });
        }
    }

    #[test]
    fn a_version_from_the_future_is_read_as_far_as_it_is_known() {
        let given = Subscription { topics: vec!["in".into()], generation: 4, ..Subscription::default() };
        let mut bytes = given.encode().to_vec();
        bytes[1] = 9;
        bytes.extend_from_slice(b"something new");
        assert_eq!(Subscription::decode(&bytes), Ok(given));
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused() {
        for bytes in
            [&[0u8, 0, 0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 0xff, 0xff, 0xff, 0xff], &[0], &[0xff, 0xff]]
        {
            assert_eq!(Subscription::decode(bytes), Err(Malformed));
            assert_eq!(decode_assignment(bytes), Err(Malformed));
        }
        assert_eq!(decode_assignment(&[]), Ok(vec![]));
    }
}
