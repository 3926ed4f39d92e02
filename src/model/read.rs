//! The reader and the assembler's thread of a process.

use super::log::Id;
use super::outside::Outside;
use super::process::Process;
use crate::commit::Note;
use crate::config::kafka::From;
use crate::cut::Close;
use crate::error::{Error, Result, Retry};
use crate::kafka::group::Remembered;
use crate::read::Event;
use crate::record::{Incoming, Partition, Payload, Room};
use crate::source::Mark;
use crate::source::kafka::desk::{Order, Seat};
use crate::source::kafka::start::{Age, Begin, origin, recovered};

fn name(partition: &Partition) -> &str {
    partition.name()
}

/// A partition of the reader.
pub struct Held {
    pub partition: Partition,
    index: usize,
    /// Of which topic it was assigned.
    topic: usize,
    next: u64,
    pub paused: bool,
}

impl Process<'_> {
    /// Carries out the group's changes, then reads some offsets of one partition. Says whether anything was done.
    ///
    /// # Errors
    /// What ends the process.
    pub fn read(&mut self, outside: &mut Outside) -> Result<bool> {
        if self.assembler.is_none() {
            return Ok(false);
        }
        let mut did = false;
        self.shared.desk.pass_on(|| self.group.next_change(), |_| 0);
        while let Some(order) = self.shared.desk.order(0) {
            did = true;
            match order {
                Order::Take(seat) => self.take(&seat, outside)?,
                Order::Give(partition) => self.forget(partition, Event::Revoked, outside),
                Order::Drop(partition) => self.forget(partition, Event::Lost, outside),
            }
        }
        Ok(did || self.fill(outside)?)
    }

    fn forget(&mut self, partition: Partition, event: fn(Partition) -> Event, outside: &mut Outside) {
        outside.say(|| format!("p{}: stops reading {partition}", self.number));
        self.held.retain(|held| held.partition != partition);
        self.cutters.remove(&partition);
        self.pipe.push_back(event(partition));
    }

    fn take(&mut self, seat: &Seat, outside: &mut Outside) -> Result<()> {
        let begin = self.begin(seat, outside)?;
        let mut mark = begin.mark(seat);
        if !outside.without.has(7) {
            mark.fresh = false;
        }
        if !outside.without.has(13) {
            mark.plan.iter_mut().for_each(|planned| planned.opened_at = outside.now);
        }
        outside.say(|| {
            let ends: Vec<u64> = mark.plan.iter().map(|planned| planned.end).collect();
            format!("p{}: reads {} from {} with {ends:?}", self.number, seat.partition, begin.offset)
        });
        if outside.without.has(11) {
            self.cutters.assign(&seat.partition, &mark.plan);
        } else {
            self.cutters.assign(&seat.partition, &[]);
        }
        self.held.push(Held {
            partition: seat.partition.clone(),
            index: seat.tenancy.of.partition as usize,
            topic: self.known.0,
            next: begin.offset,
            paused: false,
        });
        self.pipe.push_back(Event::Assigned(seat.partition.clone(), Some(mark)));
        Ok(())
    }

    /// As the source does it, with the log's own answers.
    fn begin(&self, seat: &Seat, outside: &mut Outside) -> Result<Begin> {
        let of = &seat.tenancy.of;
        let known = !outside.coordinator.offsets.is_empty();
        let part = &outside.log.parts()[of.partition as usize];
        let (start, end) = (part.start, part.end());
        if let Some(committed) = &seat.tenancy.committed {
            let plan = recovered(of, committed, || Ok(end))?;
            debug_assert!(plan.is_empty() || matches!(committed.metadata, Remembered::Ours(_)));
            return Ok(Begin { offset: committed.offset as u64, leader_epoch: committed.leader_epoch, plan });
        }
        let offset = match origin(outside.from, if known { Age::Younger } else { Age::Older }) {
            From::Earliest => start,
            From::Latest | From::Time(_) => end,
        };
        Ok(Begin { offset, leader_epoch: -1, plan: Vec::new() })
    }

    fn fill(&mut self, outside: &mut Outside) -> Result<bool> {
        let count = self.held.len();
        let first = outside.random.index(count);
        for at in (0..count).map(|at| (at + first) % count) {
            let held = &self.held[at];
            let begun = self.shared.desk.seat(&held.partition).is_some_and(|seat| seat.begun);
            if held.paused || (!begun && outside.without.has(7)) {
                continue;
            }
            if held.topic != outside.log.current() {
                return Err(Error::other("fetch", Retry::Permanent, "the topic was created again"));
            }
            let end = outside.log.parts()[held.index].end();
            if held.next < end {
                let to = end.min(held.next + 1 + outside.random.below(8));
                self.chunk(at, to, outside)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A chunk with what is there up to `to`, or up to where it is full.
    fn chunk(&mut self, at: usize, to: u64, outside: &mut Outside) -> Result<()> {
        let topic = outside.log.current() as u8;
        let held = &mut self.held[at];
        let part = &mut outside.log.parts()[held.index];
        // What comes next is not there any more: `on_out_of_range` is earliest.
        held.next = held.next.max(part.start);
        part.first_fetch.get_or_insert(held.next);
        let mut chunk = self.chunks.take();
        chunk.cutters = std::mem::take(&mut self.cutters);
        chunk.cutters.set_now(outside.now);
        chunk.start(&held.partition, held.next);
        chunk.set_payload(Payload::Binary);
        while held.next < to {
            let row = part.rows[held.next as usize];
            let id = Id { topic, partition: held.index as u8, offset: held.next as u32 };
            held.next += 1;
            let record =
                Incoming { key: None, value: Some(&id.bytes()[..]), time: Some(row.time), headers: [] };
            if row.there && chunk.push_incoming(held.next - 1, record) == Room::Full {
                break;
            }
        }
        chunk.set_end(held.next);
        chunk.set_resume(0i32.to_be_bytes().into());
        self.cutters = std::mem::take(&mut chunk.cutters);
        let (partition, next) = (held.partition.clone(), held.next);
        outside.say(|| format!("p{}: reads {partition} up to {next}", self.number));
        self.pipe.push_back(Event::Chunk(Ok(self.shop.run(chunk)?)));
        Ok(())
    }

    /// Whether everything was read that may be.
    pub fn is_read(&self, outside: &mut Outside) -> bool {
        self.held.iter().all(|held| held.paused || held.next >= outside.log.parts()[held.index].end())
    }

    /// The assembler takes one event. Says whether there was one.
    ///
    /// # Errors
    /// What ends the process.
    pub fn assemble(&mut self, outside: &mut Outside) -> Result<bool> {
        let Some(assembler) = &mut self.assembler else { return Ok(false) };
        let Some(event) = self.pipe.pop_front() else { return Ok(false) };
        match event {
            // Without rule 11 the ledger alone knows of ends.
            Event::Assigned(partition, Some(mark)) if !outside.without.has(11) => {
                let bare = Mark { plan: Vec::new(), ..mark.clone() };
                assembler.event(0, Event::Assigned(partition, Some(bare)))?;
                self.sort();
                if let Some(Note::Assigned(_, _, noted)) = self.noted.back_mut() {
                    *noted = Some(mark);
                }
            }
            event => assembler.event(0, event)?,
        }
        self.sort();
        Ok(true)
    }

    /// Closes a batch because it was open for long enough. Says whether there was one to close.
    ///
    /// # Errors
    /// What ends the process.
    pub fn close(&mut self, outside: &mut Outside) -> Result<bool> {
        let Some(assembler) = &mut self.assembler else { return Ok(false) };
        let first = outside.random.index(self.held.len());
        let before = self.noted.len();
        for at in (0..self.held.len()).map(|at| (at + first) % self.held.len()) {
            let partition = self.held[at].partition.clone();
            if assembler.may_close(&partition) {
                assembler.close_early(&partition, Close::Wait)?;
                break;
            }
        }
        self.sort();
        Ok(self.noted.len() > before)
    }

    /// The run drains: what was read is assembled, what is open is closed, and all is given up.
    ///
    /// # Errors
    /// What ends the process.
    pub fn drain(&mut self, outside: &mut Outside) -> Result<()> {
        outside.say(|| format!("p{}: drains", self.number));
        while self.assemble(outside)? {}
        if let Some(assembler) = self.assembler.take() {
            assembler.end()?;
        }
        self.held.clear();
        // They come in the order of a hash, and the same seed must be the same history.
        let (batches, notes) = (self.todo.len(), self.noted.len());
        self.sort();
        self.todo[batches..].sort_by(|one, other| name(&one.id.partition).cmp(name(&other.id.partition)));
        let of = |note: &Note| match note {
            Note::Cut(partition, _) | Note::Revoked(partition) => name(partition).to_owned(),
            _ => String::new(),
        };
        self.noted.make_contiguous()[notes..].sort_by_key(of);
        Ok(())
    }
}
