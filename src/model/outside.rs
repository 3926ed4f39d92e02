//! What is outside of all processes: the log, the coordinator, the store, the network, the time; and which rule is
//! taken away.

use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::coordinator::{Coordinator, Trouble};
use super::log::Log;
use super::random::Random;
use super::store::Store;
use crate::config::kafka::From;

/// The rule that is taken away, if one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Without(pub Option<u8>);

impl Without {
    /// Whether this rule is kept.
    pub fn has(self, rule: u8) -> bool {
        self.0 != Some(rule)
    }
}

/// Whether members let go of everything before each join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Eager,
    Cooperative,
}

/// An OffsetCommit on its way.
pub struct Envelope {
    pub id: u64,
    pub request: OffsetCommitRequest,
}

pub struct Outside {
    pub random: Random,
    pub without: Without,
    pub protocol: Protocol,
    pub from: From,
    pub log: Log,
    pub coordinator: Coordinator,
    pub store: Store,
    pub network: Vec<Envelope>,
    /// Answers to commits, by the id of the request.
    pub answers: Vec<(u64, OffsetCommitResponse)>,
    /// Whether requests to the store may arrive late.
    pub may_be_late: bool,
    pub now: i64,
    /// Whether things still go wrong.
    pub trouble: Trouble,
    /// Counts requests.
    pub sent: u64,
    /// What happened, where somebody wants to read it.
    pub trace: Option<Vec<String>>,
}

impl Outside {
    /// Writes a line of the trace.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.trouble == Trouble::None
    }

    /// Once in so many times, while things still go wrong.
    pub fn fails(&mut self, times: u64) -> bool {
        !self.is_quiet() && self.random.one_in(times)
    }

    /// A commit arrives, with or without its answer.
    pub fn deliver(&mut self, at: usize) {
        let Envelope { id, request } = self.network.swap_remove(at);
        let answer = self.coordinator.commit(&request, &mut self.random, self.trouble);
        self.say(|| {
            let rows = request.topics.iter().flat_map(|topic| &topic.partitions);
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
            let rows: Vec<String> = rows
                .zip(codes)
                .map(|(one, code)| format!("{}@{} ({code})", one.partition_index, one.committed_offset))
                .collect();
            format!("  commit {id} arrives: {}", rows.join(", "))
        });
        if self.fails(8) {
            self.say(|| format!("  its answer {id} is lost"));
        } else {
            self.answers.push((id, answer));
        }
    }
}
