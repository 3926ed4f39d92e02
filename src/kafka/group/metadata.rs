//! [`Metadata`]: what stands beside each committed offset, so that a later owner goes on exactly.
//!
//! A version, the topic's id, a fingerprint of the output's location, and the plan: the ends beyond the offset at
//! which a batch may already be published. Never empty, so that an absent one means that an operator or another
//! tool has set the offset. Compact, because a broker takes 4,096 bytes unless told otherwise
//! (`offset.metadata.max.bytes`): numbers are differences in base 128, the whole is base 64, since the field is
//! text. Pure.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use uuid::Uuid;

use crate::kafka::wire::varint;
use crate::source::Planned;

/// Stands before every text of ours: the format's name and version.
const PREFIX: &str = "pipeline1.";
/// The longest text that is written, in bytes: below every broker's limit that is not set by hand.
pub(crate) const LONGEST: usize = 3500;
/// Topic id and location.
const HEAD: usize = 16 + 8;
/// No number of our own is longer: longer texts are not read.
const LONGEST_READ: usize = 1 << 20;

/// What is remembered beside an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Which topic of that name. Zero where the brokers have no topic ids.
    pub topic_id: Uuid,
    /// Fingerprint of where the output goes.
    pub location: u64,
    /// Ends beyond the offset, ascending.
    pub plan: Vec<Planned>,
}

/// What was found beside an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing: an operator's reset, or a tool that writes none.
    Absent,
    /// Something that this program did not write, or not in a version that it knows.
    Foreign(String),
    /// Ours.
    Ours(Metadata),
}

/// A [`Metadata`] as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The field's text.
    pub text: String,
    /// How many ends of the plan stand in it, from the first: fewer than there are if they do not fit.
    pub ends: usize,
}

impl Metadata {
    /// Writes it beside `offset`, with at most `ends` ends. The first `kept` are durable already, and batches may be
    /// published there: they are never left out.
    pub(crate) fn write(&self, offset: i64, ends: usize, kept: usize) -> Written {
        let mut bytes = Vec::with_capacity(HEAD + 16 * self.plan.len());
        bytes.extend_from_slice(self.topic_id.as_bytes());
        bytes.extend_from_slice(&self.location.to_be_bytes());
        let most = (LONGEST - PREFIX.len()) / 4 * 3;
        let (mut last, mut written) = ((offset, 0, 0), 0);
        for planned in self.plan.iter().take(ends.max(kept)) {
            let size = bytes.len();
            let end = planned.end as i64;
            varint::put(&mut bytes, end.wrapping_sub(last.0));
            varint::put(&mut bytes, planned.first_time.wrapping_sub(last.1));
            varint::put(&mut bytes, planned.opened_at.wrapping_sub(last.2));
            if written >= kept && bytes.len() > most {
                bytes.truncate(size);
                break;
            }
            last = (end, planned.first_time, planned.opened_at);
            written += 1;
        }
        let mut text = String::from(PREFIX);
        BASE64.encode_string(&bytes, &mut text);
        Written { text, ends: written }
    }
}

impl Remembered {
    /// Reads what stands beside `offset`.
    pub(crate) fn read(text: Option<&str>, offset: i64) -> Self {
        match text {
            None | Some("") => Remembered::Absent,
            Some(text) => match read(text, offset) {
                Some(metadata) => Remembered::Ours(metadata),
                None => Remembered::Foreign(text.chars().take(100).collect()),
            },
        }
    }
}

/// Whether this text, which cannot be read, is ours all the same: of another version of the format, or damaged.
pub(crate) fn seems_ours(text: &str) -> bool {
    text.strip_prefix("pipeline").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn read(text: &str, offset: i64) -> Option<Metadata> {
    let text = text.strip_prefix(PREFIX).filter(|text| text.len() <= LONGEST_READ)?;
    let bytes = BASE64.decode(text).ok()?;
    let (head, mut rest) = bytes.split_at_checked(HEAD)?;
    let topic_id = Uuid::from_slice(&head[..16]).ok()?;
    let location = u64::from_be_bytes(head[16..].try_into().ok()?);
    let (mut plan, mut last) = (Vec::new(), (offset, 0i64, 0i64));
    while !rest.is_empty() {
        let mut next = |before: i64| Some(before.wrapping_add(varint::take_i64(&mut rest)?));
        let (end, first_time, opened_at) = (next(last.0)?, next(last.1)?, next(last.2)?);
        if end <= last.0 || end < 0 {
            return None;
        }
        plan.push(Planned { end: end as u64, first_time, opened_at });
        last = (end, first_time, opened_at);
    }
    Some(Metadata { topic_id, location, plan })
}

impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remembered::Absent => f.write_str("no metadata"),
            Remembered::Foreign(text) => write!(f, "foreign metadata {text:?}"),
            Remembered::Ours(metadata) => write!(f, "{} planned ends", metadata.plan.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(plan: Vec<Planned>) -> Metadata {
        Metadata { topic_id: Uuid::from_u128(7), location: 0xdead_beef, plan }
    }

    /// A plan as a busy partition has it.
    fn usual(offset: i64, ends: usize) -> Vec<Planned> {
        let now = 1_795_000_000_000;
        (1..=ends as i64)
            .map(|n| Planned {
                end: (offset + n * 100_000) as u64,
                first_time: now + n * 4_711,
                opened_at: now + n * 5_013,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(
            offset in 0i64..i64::MAX / 2, id: u128, location: u64,
            steps in proptest::collection::vec((1u64..1 << 40, any::<i64>(), any::<i64>()), 0..40),
        ) {
            let mut end = offset as u64;
            let plan: Vec<Planned> = steps
                .into_iter()
                .map(|(step, first_time, opened_at)| {
                    end += step;
                    Planned { end, first_time, opened_at }
                })
                .collect();
            let given = Metadata { topic_id: Uuid::from_u128(id), location, plan };
            let written = given.write(offset, usize::MAX, 0);
            prop_assert_eq!(written.ends, given.plan.len());
            prop_assert!(written.text.is_ascii());
            prop_assert_eq!(Remembered::read(Some(&written.text), offset), Remembered::Ours(given));
        }

        #[test]
        fn hostile_text_is_read_without_a_panic(text in ".*", offset: i64, bytes: Vec<u8>) {
            let _ = Remembered::read(Some(&text), offset);
            let ours = format!("{PREFIX}{}", BASE64.encode(bytes));
            if let Remembered::Ours(read) = Remembered::read(Some(&ours), offset) {
                prop_assert!(read.plan.is_sorted_by(|a, b| a.end < b.end));
                prop_assert!(read.plan.first().is_none_or(|planned| planned.end as i64 > offset));
            }
        }
    }

    #[test]
    fn it_is_never_empty_and_short() {
        let written = metadata(vec![]).write(5, 64, 0);
        assert_eq!(Remembered::read(Some(&written.text), 5), Remembered::Ours(metadata(vec![])));
        assert!(written.text.len() < 50, "{}", written.text.len());
        let written = metadata(usual(5, 100)).write(5, usize::MAX, 0);
        assert_eq!(written.ends, 100);
        assert!(written.text.len() < 1500, "{}", written.text.len());
    }

    #[test]
    fn ends_that_do_not_fit_are_left_out_and_that_is_told() {
        let given = metadata(usual(5, 10_000));
        let written = given.write(5, usize::MAX, 0);
        assert!(written.ends > 200 && written.ends < 10_000, "{}", written.ends);
        assert!(written.text.len() <= LONGEST);
        let Remembered::Ours(read) = Remembered::read(Some(&written.text), 5) else { panic!() };
        assert_eq!(read.plan, given.plan[..written.ends]);
        assert_eq!(given.write(5, 3, 0).ends, 3);
        // But never those at which something may be published already.
        assert_eq!(given.write(5, 3, 7).ends, 7);
        assert_eq!(given.write(5, usize::MAX, written.ends + 50).ends, written.ends + 50);
    }

    #[test]
    fn what_is_not_ours_is_foreign_and_nothing_is_absent() {
        assert_eq!(Remembered::read(None, 0), Remembered::Absent);
        assert_eq!(Remembered::read(Some(""), 0), Remembered::Absent);
        let good = metadata(usual(5, 2)).write(5, 9, 0).text;
        let longer = format!("{good}A");
        for text in ["NONE", "pipeline2.AAAA", PREFIX, &good[..good.len() - 1], &longer, "pipeline1.!!"] {
            assert!(matches!(Remembered::read(Some(text), 5), Remembered::Foreign(_)), "{text}");
        }
    }
}
