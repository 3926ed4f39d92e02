//! The commit thread of a process: notes, and one OffsetCommit in flight.

use super::outside::{Envelope, Outside};
use super::process::{Process, Shelf, Shelves};
use crate::commit::Flush;
use crate::error::Result;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::group::Commit;
use crate::kafka::group::round::{Attempt, Ready, Round, Sent};
use crate::source::kafka::marks::Committed;

/// The highest version of OffsetCommit that is spoken.
const VERSION: i16 = 9;

/// Marks that are being stored.
pub struct Flying<'a> {
    flush: Flush,
    offsets: &'a [Commit],
    round: Round<'a>,
    fenced: Vec<(TopicPartition, u64)>,
    /// The request that is out.
    out: Option<(u64, Attempt, Vec<Sent>)>,
}

impl<'a> Process<'a> {
    /// Applies a note. Says whether there was one.
    ///
    /// # Errors
    /// What ends the process.
    pub fn note(&mut self) -> Result<bool> {
        // While a commit is out the thread does nothing else.
        if self.flying.is_some() {
            return Ok(false);
        }
        let Some(note) = self.noted.pop_front() else { return Ok(false) };
        self.commit.apply(note)?;
        Ok(true)
    }

    /// One step of a commit. Says whether anything was done.
    ///
    /// # Errors
    /// What ends the process.
    pub fn step_commit(&mut self, shelves: &mut Shelves<'a>, outside: &mut Outside) -> Result<bool> {
        let Some(mut flying) = self.flying.take() else {
            self.flying = self.begin_commit(shelves, outside);
            return Ok(self.flying.is_some());
        };
        let did = match flying.out.take() {
            Some(out) => self.wait(&mut flying, out, outside)?,
            None => {
                let ready = flying.round.ready(&mut self.group.state(), &mut flying.fenced);
                match ready {
                    Ready::Done => return self.conclude(flying, outside).map(|()| true),
                    Ready::Wait => false,
                    Ready::Go(attempt) => {
                        self.send(&mut flying, attempt, outside);
                        true
                    }
                }
            }
        };
        self.flying = Some(flying);
        Ok(did)
    }

    fn begin_commit(&mut self, shelves: &mut Shelves<'a>, outside: &Outside) -> Option<Flying<'a>> {
        let mut flush = self.commit.begin()?;
        // They come in the order of a hash, and the same seed must be the same history.
        flush.requests.sort_by(|(one, _), (other, _)| one.name().cmp(other.name()));
        flush.marks.sort_by(|one, other| one.partition.name().cmp(other.partition.name()));
        if !outside.without.has(6) {
            // Only ends of this tenancy's own are carried.
            for ((partition, request), mark) in flush.requests.iter_mut().zip(&mut flush.marks) {
                let head = self.ledgers.with(partition, |ledger| ledger.head()).unwrap_or(0);
                request.plan.retain(|planned| planned.end <= head);
                mark.plan.retain(|planned| planned.end <= head);
            }
        }
        let commits = self.marks.commits(self.group, &flush.marks);
        let offsets: &'a Vec<Commit> = Shelf::put(&mut shelves.offsets, commits);
        let round = Round::new(self.group, offsets);
        Some(Flying { flush, offsets, round, fenced: Vec::new(), out: None })
    }

    fn send(&mut self, flying: &mut Flying<'a>, mut attempt: Attempt, outside: &mut Outside) {
        if !outside.without.has(10) {
            attempt.generation = -1;
        }
        let (request, sent) = flying.round.request(&attempt, VERSION, self.ends);
        outside.sent += 1;
        let id = outside.sent;
        outside.say(|| {
            let rows: Vec<String> = sent
                .iter()
                .map(|sent| {
                    let commit = &flying.offsets[sent.place];
                    let plan = commit.metadata.plan.iter().take(sent.ends).map(|planned| planned.end);
                    format!("{}@{} {:?}", commit.of.partition, commit.offset, plan.collect::<Vec<_>>())
                })
                .collect();
            format!("p{}: sends commit {id} in {}: {}", self.number, attempt.generation, rows.join(", "))
        });
        outside.network.push(Envelope { id, request });
        flying.out = Some((id, attempt, sent));
    }

    /// Takes the answer, waits, or gives up.
    fn wait(
        &mut self,
        flying: &mut Flying<'a>,
        (id, attempt, sent): (u64, Attempt, Vec<Sent>),
        outside: &mut Outside,
    ) -> Result<bool> {
        if let Some(at) = outside.answers.iter().position(|(answered, _)| *answered == id) {
            let (_, answer) = outside.answers.swap_remove(at);
            let learned = flying.round.learn(&attempt, &answer, &sent);
            let learned = learned.map_err(|error| flying.round.fatal(error))?;
            self.ends = learned.ends.unwrap_or(self.ends);
            return Ok(true);
        }
        let lost = !outside.network.iter().any(|envelope| envelope.id == id);
        if !lost && !outside.fails(5) {
            flying.out = Some((id, attempt, sent));
            return Ok(false);
        }
        outside.say(|| format!("p{}: no answer to commit {id}", self.number));
        // Without rule 1 it just tries again, in the same generation.
        if outside.without.has(1) {
            self.group.doubt("no answer");
        }
        Ok(true)
    }

    fn conclude(&mut self, flying: Flying<'a>, outside: &Outside) -> Result<()> {
        let Flying { mut flush, offsets, mut round, fenced, .. } = flying;
        let short = std::mem::take(&mut round.short);
        let mut refused = Vec::new();
        let outcome = Committed { commits: offsets, fenced: &fenced, short: &short };
        self.marks.committed(&mut flush.marks, &outcome, &mut refused);
        flush.marks.retain(|mark| !refused.contains(&mark.partition));
        if !outside.without.has(5) {
            // What was cut meanwhile counts as acknowledged too.
            for (partition, request) in &mut flush.requests {
                let all = self.ledgers.with(partition, |ledger| ledger.request());
                let Some(all) = all else { continue };
                if let Some(mark) = flush.marks.iter_mut().find(|mark| mark.partition == *partition) {
                    mark.plan.clone_from(&all.plan);
                }
                *request = all;
            }
        }
        self.commit.conclude(flush, &refused, Ok(()))
    }
}
