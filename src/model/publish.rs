//! The writers of a process: batches whose ends are planned go to the store, dead letters first.

use super::log::Id;
use super::outside::Outside;
use super::process::Process;
use super::store::{Put, Refused};
use crate::batch::{Batch, BatchId, Body, Receipt};
use crate::codec::Codec;
use crate::commit::{Note, Verdict};
use crate::record::{Identity, Partition, TopicPart};
use crate::sink::key::Namer;
use crate::sink::s3::publish::{Again, Conditional, Expected, Published, Publishing, Step};
use crate::sink::s3::{Occupied, mark};

/// How many batches are stored side by side.
const WRITERS: usize = 3;

/// A batch that is being published.
pub struct Uploading {
    batch: Batch,
    /// What names and marks are made of: the batch's own id, but for rules that are taken away.
    id: BatchId,
    /// 0: dead letters, 1: the output, 2: done.
    stream: usize,
    publishing: Option<Publishing>,
}

impl Process<'_> {
    /// One step of one writer. Says whether anything was done.
    pub fn publish(&mut self, outside: &mut Outside) -> bool {
        if self.uploads.len() < WRITERS && self.take_up(outside) {
            return true;
        }
        if self.uploads.is_empty() {
            return false;
        }
        let at = outside.random.index(self.uploads.len());
        let mut upload = self.uploads.swap_remove(at);
        if upload.stream == 2 {
            outside.say(|| format!("p{}: has published {}", self.number, name(&upload.batch)));
            let receipt = Receipt::of(&upload.batch, None, None);
            self.noted.push_back(Note::Published(vec![(receipt, upload.batch.close)]));
            return true;
        }
        upload.advance(self.number, self.location, outside);
        self.uploads.push(upload);
        true
    }

    /// Takes a batch whose fate is known.
    fn take_up(&mut self, outside: &mut Outside) -> bool {
        let first = outside.random.index(self.todo.len());
        for at in (0..self.todo.len()).map(|at| (at + first) % self.todo.len()) {
            let batch = &self.todo[at];
            match self.ledgers.verdict(&batch.id.partition, batch.end) {
                None => continue,
                Some(Verdict::Drop) => drop(self.todo.remove(at)),
                Some(Verdict::Publish) => {
                    let batch = self.todo.remove(at);
                    let id = id_of(&batch, outside);
                    self.uploads.push(Uploading { batch, id, stream: 0, publishing: None });
                }
            }
            return true;
        }
        false
    }
}

fn name(batch: &Batch) -> String {
    format!("{} [{}, {})", batch.id.partition, batch.id.start, batch.end)
}

fn id_of(batch: &Batch, outside: &Outside) -> BatchId {
    let mut id = batch.id.clone();
    if !outside.without.has(12) {
        // It starts where its first record stands.
        let ids = Id::all(&bytes(&batch.stored)).into_iter().chain(Id::all(&bytes(&batch.failed)));
        id.start = ids.map(|id| u64::from(id.offset)).min().unwrap_or(id.start);
    }
    if !outside.without.has(17) {
        let identity = id.partition.identity();
        let topic = identity.topic.clone().map(|topic| TopicPart { id: 0, ..topic });
        id.partition = Partition::new(Identity { topic, ..identity.clone() });
    }
    id
}

fn bytes(body: &Body) -> Vec<u8> {
    body.pieces().iter().flat_map(|piece| piece.bytes().iter().copied()).collect()
}

impl Uploading {
    fn body(&self) -> &Body {
        if self.stream == 0 { &self.batch.failed } else { &self.batch.stored }
    }

    /// One request, or what follows from its answer.
    fn advance(&mut self, process: usize, location: u64, outside: &mut Outside) {
        if self.body().is_empty() {
            self.stream += 1;
            return;
        }
        let namer = Namer::new("", Codec::None);
        let key = if self.stream == 0 { namer.failed(&self.id) } else { namer.stored(&self.id) };
        let again = if outside.without.has(15) { Again::of(&self.batch) } else { Again::Never };
        let before = self.publishing.take();
        let body = self.body();
        let expected = Expected { key: &key, id: &self.id, again, len: body.len(), crc32c: body.crc32c() };
        let conditional = if outside.store.honours { Conditional::Yes } else { Conditional::No };
        let mut publishing = before.unwrap_or_else(|| Publishing::new(again, conditional, Occupied::Replace));
        let step = publishing.step();
        let object = (location, key.clone());
        let put = step.condition().map(|condition| Put {
            name: object.clone(),
            mark: mark(&self.id),
            start: self.id.start,
            crc32c: body.crc32c(),
            ids: Id::all(&bytes(body)),
            when: condition.into(),
        });
        match (step, put) {
            (_, Some(put)) => {
                let what = name(&self.batch);
                outside.say(|| format!("p{process}: stores {what} as {key}"));
                self.publishing = send(put, publishing, outside);
            }
            (Step::Look, _) => {
                publishing.found(&expected, outside.store.look(&object));
                self.publishing = Some(publishing);
                // Where conditions are ignored, a request that another one overtakes since the look may lose vanished
                // records: users are told. So nothing comes between.
                if !outside.store.honours {
                    self.advance(process, location, outside);
                }
            }
            (Step::Done(published), _) => {
                if published == Published::Before {
                    outside.say(|| format!("p{process}: {key} is there already"));
                }
                self.stream += 1;
            }
            // Tried again from the start.
            _ => {}
        }
    }
}

/// Sends a request. `None`: nobody knows what came of it.
fn send(put: Put, mut publishing: Publishing, outside: &mut Outside) -> Option<Publishing> {
    let fate = if outside.is_quiet() { 9 } else { outside.random.below(10) };
    match fate {
        0 => None,
        1 => {
            let _ = outside.store.put(put);
            None
        }
        2 if outside.may_be_late => {
            outside.say(|| "  it will arrive late".into());
            outside.store.late.push(put);
            None
        }
        _ => {
            match outside.store.put(put) {
                Ok(()) => publishing.sent(),
                Err(Refused) => publishing.refused(),
            }
            Some(publishing)
        }
    }
}
