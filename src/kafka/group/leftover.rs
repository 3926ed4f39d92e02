//! Transactions of members that died: whoever leads ends them at once.
//!
//! What a killed member leaves open the cluster aborts only after the transaction's timeout. Until then nobody who
//! reads only committed records sees what stands behind it in the output, and no other member gets the offsets that
//! it was about to commit. So each member tells the leader its transactional id, in the user data of its join, and
//! the leader of a new generation looks for open transactions of this group's ids that no member has. It ends them by
//! taking their ids over (InitProducerId), which aborts what is open and fences whoever wakes up and goes on; a member
//! that was expelled and lives takes its id over again, and begins anew with what the group gives it.
//!
//! Nothing depends on it: where it is not allowed, or the brokers are older than Kafka 3.0, the timeout does it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{InitProducerIdRequest, ListTransactionsRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::member::{Member, text};
use super::protocol::Subscription;
use crate::error::Retry;
use crate::kafka::cluster::Coordinates;
use crate::kafka::code::Code;
use crate::kafka::error::{Call, Error, Result};
use crate::kafka::wire::Api;

/// Before brokers are asked again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// After this time the transactions' own timeout has done it.
const LONG: Duration = Duration::from_secs(60);
/// How long all of one try may take: the member sends no heartbeats meanwhile.
const WITHIN: Duration = Duration::from_secs(2);
/// Generation and round stand before the id.
const BEFORE: usize = 8;
/// Hex digits of what tells members apart.
const DIGITS: usize = 16;

/// A transactional id for a member of this group that no other process has: the group's name and chance.
pub fn transactional_id(group: &str) -> String {
    format!("{group}-{:0DIGITS$x}", RandomState::new().hash_one(std::process::id()))
}

/// The transactional id of a static member of this group. The length of the group's name tells where that ends: `b-c` in
/// `a` and `c` in `a-b` would fence each other without end.
pub fn static_transactional_id(group: &str, instance_id: &str) -> String {
    format!("{group}-{instance_id}-{}", group.len())
}

/// Whether [`transactional_id`] made it for this group.
fn is_of(group: &str, id: &str) -> bool {
    let chance = id.strip_prefix(group).and_then(|rest| rest.strip_prefix('-'));
    chance.is_some_and(|chance| {
        chance.len() == DIGITS && chance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The transactional id that a member has told.
pub(super) fn told_id(subscription: &Subscription) -> Option<String> {
    let told = subscription.user_data.as_deref()?.get(BEFORE..)?;
    Some(std::str::from_utf8(told).ok()?.to_string())
}

/// What is to be ended in a generation.
pub(super) struct Leftovers {
    /// The ids of those who live.
    live: BTreeSet<String>,
    due: Instant,
    until: Instant,
}

impl Leftovers {
    pub fn besides(live: BTreeSet<String>) -> Self {
        let now = Instant::now();
        Leftovers { live, due: now, until: now + LONG }
    }

    /// When they are to be looked for.
    pub fn due(&self) -> Instant {
        self.due
    }
}

impl Member<'_> {
    /// Looks for transactions of dead members and ends them, if this member leads and it is time to.
    pub fn end_leftovers(&mut self) {
        let now = Instant::now();
        let Some(mut leftovers) = self.leftovers.take_if(|leftovers| leftovers.due <= now) else { return };
        match self.try_end(&leftovers.live, now + WITHIN.min(self.group.settings.session_timeout / 3)) {
            Ok(()) => {}
            Err(error) if error.retry() == Retry::Transient && now < leftovers.until => {
                let what = format_args!("group {}: looking for open transactions", self.group.settings.group);
                self.group.cluster.again(&what, &error, 1, PAUSE);
                leftovers.due = Instant::now() + PAUSE;
                self.leftovers = Some(leftovers);
            }
            Err(error) => {
                log::info!(
                    "group {}: what dead members left open ends by its timeout: {error}",
                    self.group.settings.group
                );
            }
        }
    }

    /// Asks all brokers, since each knows of the transactions that it coordinates.
    fn try_end(&self, live: &BTreeSet<String>, deadline: Instant) -> Result<()> {
        let mut last = Ok(());
        for broker in self.group.cluster.brokers() {
            let outcome = self.open_at(broker, deadline).and_then(|open| {
                let dead = open.iter().filter(|id| !live.contains(*id));
                dead.map(|id| self.end(id, deadline)).fold(Ok(()), Result::and)
            });
            last = outcome.and(last);
        }
        last
    }

    /// The open transactions of the group at this broker.
    fn open_at(&self, broker: i32, deadline: Instant) -> Result<Vec<String>> {
        let mut connection = self.group.cluster.connect_by(broker, deadline)?;
        let version = connection.version::<ListTransactionsRequest>(0)?;
        let request =
            ListTransactionsRequest::default().with_state_filters(vec![StrBytes::from_static_str("Ongoing")]);
        let answer = connection.call_within(&request, version, left(deadline))?;
        let call = Call {
            broker: connection.broker().clone(),
            api: <ListTransactionsRequest as Api>::NAME,
            version,
        };
        Code(answer.error_code).check().map_err(|code| Error::Refused { call, code })?;
        let ids = answer.transaction_states.iter().map(|state| state.transactional_id.0.to_string());
        Ok(ids.filter(|id| is_of(&self.group.settings.group, id)).collect())
    }

    fn end(&self, id: &str, deadline: Instant) -> Result<()> {
        let mut connection = self.group.cluster.coordinator(Coordinates::Transaction, id, deadline)?;
        let version = connection.version::<InitProducerIdRequest>(4)?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_transaction_timeout_ms(LONG.as_millis() as i32);
        let answer = connection.call_within(&request, version, left(deadline))?;
        let call =
            Call { broker: connection.broker().clone(), api: <InitProducerIdRequest as Api>::NAME, version };
        match Code(answer.error_code) {
            // The abort has begun: that is all that is wanted.
            Code::NONE | Code::CONCURRENT_TRANSACTIONS => {
                log::info!(
                    "group {}: ended a transaction that a dead member left open: {id}",
                    self.group.settings.group
                );
                Ok(())
            }
            code => Err(Error::Refused { call, code }),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_belong_to_one_group() {
        let id = transactional_id("etl");
        assert!(is_of("etl", &id), "{id}");
        assert_ne!(id, transactional_id("etl"));
        assert!(!is_of("etl", &transactional_id("etl-2")));
        assert!(!is_of("etl-2", &id));
        for other in ["etl", "etl-", "etl-instance", "etl-0123456789ABCDEF", "etl-0123456789abcdef0"] {
            assert!(!is_of("etl", other), "{other}");
        }
    }

    #[test]
    fn static_members_of_two_groups_never_share_an_id() {
        let ids = [("a", "b-c"), ("a-b", "c"), ("a-b-c", "1"), ("a", "b-c-1"), ("a-b", "c-3")]
            .map(|(group, member)| static_transactional_id(group, member));
        assert_eq!(BTreeSet::from(ids.clone()).len(), ids.len(), "{ids:?}");
        assert_eq!(ids[0], static_transactional_id("a", "b-c"));
        // Nor are they taken for those of chance, which the leader ends.
        assert!(!is_of("a", &static_transactional_id("a", "0123456789abcdef")));
    }

    #[test]
    fn what_a_member_tells_is_read() {
        let told = |user_data: &[u8]| {
            told_id(&Subscription { user_data: Some(user_data.to_vec()), ..Subscription::default() })
        };
        assert_eq!(told(b"\0\0\0\x01\0\0\0\x02g-1").as_deref(), Some("g-1"));
        assert_eq!(told(&[0, 0, 0, 1]), None);
        assert_eq!(told(&[0, 0, 0, 1, 0, 0, 0, 0, 0xff]), None);
    }
}
