//! Whether the coordinator keeps what stands beside an offset (boundary plan, rule 9).
//!
//! A broker, or a proxy before it, that drops or shortens the metadata of commits would be found out only after a
//! crash, when the plan is missing and records are stored twice. So the first commit of a tenancy that carries a plan
//! is read back, before anything is published by that plan.

use std::time::Duration;

use kafka_protocol::messages::GroupId;

use super::Group;
use super::commit::{Commit, CommitPath};
use super::fault::permanent;
use super::member::text;
use super::metadata::Remembered;
use super::offsets::{LeftOut, Omissions, stable_offsets};
use super::state::Stored;
use crate::error::{Error, Result, Retry};
use crate::kafka::cluster::TopicPartition;
use crate::kafka::error::{Error as KafkaError, Result as KafkaResult};

/// Before offsets are asked for again.
const PAUSE: Duration = Duration::from_millis(100);

impl Group {
    /// Reads back the first plans among what was just committed. Blocks until each came back or its tenancy is over.
    ///
    /// # Errors
    /// If one did not come back as it was sent: no plan can be relied upon. If the coordinator leaves one out of its
    /// answers for `give_up_after`.
    pub(super) fn prove(&self, path: &mut CommitPath, offsets: &[Commit]) -> Result<()> {
        let (mut tries, mut omissions) = (0, Omissions::default());
        loop {
            let mut pause = PAUSE;
            let unproven = self.unproven(offsets);
            if unproven.is_empty() {
                return Ok(());
            }
            match self.read_back(path, &unproven) {
                Ok((Some(text), _)) => return Err(permanent(&self.settings, text)),
                Ok((None, left_out)) => pause = omissions.take(self, &left_out)?,
                Err(KafkaError::HungUp) => return Err(Error::Stopped),
                Err(error) if error.retry() == Retry::Transient => {
                    tries += 1;
                    let what = format_args!("group {}: reading back what was committed", self.settings.group);
                    self.cluster.again(&what, &error, tries, pause);
                    path.forget();
                }
                Err(error) => return Err(error.into()),
            }
            if !self.unproven(offsets).is_empty() {
                self.cluster.stop().sleep(pause)?;
            }
        }
    }

    fn unproven(&self, offsets: &[Commit]) -> Vec<(TopicPartition, u64, Stored)> {
        let state = self.state.lock();
        let planned = offsets.iter().filter(|commit| !commit.metadata.plan.is_empty());
        let row = |commit: &Commit| {
            Some((commit.of.clone(), commit.epoch, state.unproven(&commit.of, commit.epoch)?))
        };
        planned.filter_map(row).collect()
    }

    /// Asks once. Returns what to say if something did not come back, and what was left out of the answer.
    fn read_back(
        &self,
        path: &mut CommitPath,
        unproven: &[(TopicPartition, u64, Stored)],
    ) -> KafkaResult<(Option<String>, LeftOut)> {
        let partitions: Vec<TopicPartition> = unproven.iter().map(|(of, ..)| of.clone()).collect();
        let timeout = self.cluster.options().request_timeout;
        let group = GroupId(text(&self.settings.group));
        let (rows, left_out) = stable_offsets(path.connect(self)?, group, &partitions, timeout)?;
        for row in rows {
            let Some((of, epoch, sent)) = unproven.iter().find(|(of, ..)| *of == row.of) else { continue };
            match row.code.check() {
                Ok(()) => {}
                Err(code) if code.retry() == Retry::Transient => continue,
                Err(code) => {
                    return Err(KafkaError::Partition { of: row.of, api: "OffsetFetch", code });
                }
            }
            let lost = lost(sent, row.stored().as_ref());
            let mut state = self.state.lock();
            match lost {
                Some(lost) if state.unproven(of, *epoch).as_ref() == Some(sent) => {
                    let text = format!(
                        "the broker, or a proxy before it, does not keep the metadata of commits: {lost} for {of}. \
                         Where batches end stands there; without it records would be stored twice after a crash. Use \
                         a broker that keeps them, or another output: -o kafka:TOPIC needs none"
                    );
                    return Ok((Some(text), left_out));
                }
                _ => state.proven(of, *epoch),
            }
        }
        Ok((None, left_out))
    }
}

/// How what came back differs from what was sent, if it shows that metadata are not kept. A whole text of ours is
/// none of that: another member has the partition by now, and the next commit will hear so. Pure.
fn lost(sent: &Stored, found: Option<&Stored>) -> Option<String> {
    let text = found.map_or("", |found| &found.text);
    let whole = |found: &Stored| matches!(Remembered::read(Some(text), found.offset), Remembered::Ours(_));
    if text == sent.text || (found.is_some_and(whole) && !sent.text.starts_with(text)) {
        return None;
    }
    Some(format!("of {} bytes {} came back", sent.text.len(), text.len()))
}
