//! The table of partitions: who reads which, since when, and what is still to be told to whom.
//!
//! The group's changes come in here and go out to the reader that has the partition; the commit thread asks here
//! what a partition's offset is committed as. One lock, never held over anything that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::start::Age;
use crate::kafka::cluster::TopicPartition;
use crate::kafka::group::{Change, Tenancy};
use crate::record::{Identity, Partition, TopicPart};

/// One partition in the hands of this run.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub tenancy: Arc<Tenancy>,
    pub partition: Partition,
    pub reader: usize,
    /// Whether its start is committed, or need not be.
    pub begun: bool,
    /// Whether it was read to its end, or as far as it can be.
    pub ended: bool,
    /// How old it is, where that is known without asking the group.
    pub age: Option<Age>,
}

/// What a reader must do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Begin with a partition.
    Take(Seat),
    /// Stop reading it; what was read of it is stored and committed.
    Give(Partition),
    /// Stop reading it; nothing of it may be committed.
    Drop(Partition),
}

#[derive(Default)]
pub(crate) struct Desk {
    table: Mutex<Table>,
    /// Everything is read and, in a group, committed by whoever had it.
    done: AtomicBool,
}

#[derive(Default)]
struct Table {
    orders: Vec<VecDeque<Order>>,
    /// By epoch.
    seats: HashMap<u64, Seat>,
    ends: Option<HashMap<TopicPartition, i64>>,
    /// What was given although no group did.
    alone: HashSet<TopicPartition>,
    /// Whether the rest of a partition could not be read.
    failed: bool,
}

impl Desk {
    /// Begins a run with so many readers. `ends`: where each partition ends.
    pub fn open(&self, readers: usize, ends: Option<Vec<(TopicPartition, i64)>>) {
        let ends = ends.map(|ends| ends.into_iter().collect());
        *self.table.lock() = Table { ends, ..Table::default() };
        self.table.lock().orders.resize_with(readers, VecDeque::new);
        self.done.store(false, Ordering::Release);
    }

    /// Gives a partition to a reader although no group did. One that was given already stays where it is: whether this
    /// one is new.
    pub fn assign_alone(&self, of: &TopicPartition, topic_id: uuid::Uuid, reader: usize, age: Age) -> bool {
        let mut table = self.table.lock();
        if !table.alone.insert(of.clone()) {
            return false;
        }
        let epoch = table.alone.len() as u64;
        let tenancy = Tenancy { of: of.clone(), topic_id, epoch, committed: None };
        let reader = reader % table.orders.len().max(1);
        table.take(tenancy, reader, true, Some(age));
        true
    }

    /// Passes the group's changes on; `reader` is who gets a new partition. All readers do this: what is next is asked
    /// under the lock, so that a loss cannot be overtaken by the tenancy behind it.
    pub fn pass_on(
        &self,
        mut next: impl FnMut() -> Option<Change>,
        reader: impl Fn(&TopicPartition) -> usize,
    ) {
        let mut table = self.table.lock();
        while let Some(change) = next() {
            match change {
                Change::Assigned(tenancy) => {
                    let reader = reader(&tenancy.of) % table.orders.len().max(1);
                    table.take(tenancy, reader, false, None);
                }
                Change::Revoked(_, epoch) => table.give(epoch, Order::Give),
                Change::Lost(_, epoch) => {
                    table.give(epoch, Order::Drop);
                    table.seats.remove(&epoch);
                }
            }
        }
    }

    /// The next thing that this reader must do.
    pub fn order(&self, reader: usize) -> Option<Order> {
        self.table.lock().orders.get_mut(reader)?.pop_front()
    }

    /// Where a partition ends: the outer `None` if nowhere. One that was not there at the start ends at once.
    pub fn end(&self, of: &TopicPartition) -> Option<u64> {
        let table = self.table.lock();
        table.ends.as_ref().map(|ends| ends.get(of).map_or(0, |end| (*end).max(0) as u64))
    }

    /// Where all partitions end.
    pub fn ends(&self) -> Option<Vec<(TopicPartition, i64)>> {
        let table = self.table.lock();
        table.ends.as_ref().map(|ends| ends.iter().map(|(of, end)| (of.clone(), *end)).collect())
    }

    /// The seat of a partition, while this run has it.
    pub fn seat(&self, partition: &Partition) -> Option<Seat> {
        self.table.lock().seats.get(&partition.identity().epoch).cloned()
    }

    /// The start of a partition is committed.
    pub fn begun(&self, partition: &Partition) {
        self.update(partition, |seat| seat.begun = true);
    }

    /// A partition was read to its end.
    pub fn ended(&self, partition: &Partition) {
        self.update(partition, |seat| seat.ended = true);
    }

    /// The rest of a partition cannot be read.
    pub fn failed(&self, partition: &Partition) {
        self.table.lock().failed = true;
        self.ended(partition);
    }

    /// Whether a partition failed. Then this run waits for no other member of its group: that one may have failed another
    /// partition, and would wait for this one for ever.
    pub fn has_failed(&self) -> bool {
        self.table.lock().failed
    }

    fn update(&self, partition: &Partition, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.table.lock().seats.get_mut(&partition.identity().epoch) {
            change(seat);
        }
    }

    /// Nothing of a partition is in flight any more, and it goes to another member.
    pub fn released(&self, partition: &Partition) -> Option<Seat> {
        self.table.lock().seats.remove(&partition.identity().epoch)
    }

    /// Whether all that this run has was read to its end, where there is one, and no order waits.
    pub fn is_read(&self) -> bool {
        let table = self.table.lock();
        table.ends.is_some()
            && table.seats.values().all(|seat| seat.ended)
            && table.orders.iter().all(VecDeque::is_empty)
    }

    /// Nothing is left to do for anyone.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Release);
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

impl Table {
    fn take(&mut self, tenancy: Tenancy, reader: usize, begun: bool, age: Option<Age>) {
        let begun = begun || tenancy.committed.is_some();
        let partition = partition(&tenancy);
        let seat = Seat { tenancy: Arc::new(tenancy), partition, reader, begun, ended: false, age };
        self.seats.insert(seat.tenancy.epoch, seat.clone());
        self.orders[reader].push_back(Order::Take(seat));
    }

    fn give(&mut self, epoch: u64, order: fn(Partition) -> Order) {
        if let Some(seat) = self.seats.get(&epoch) {
            self.orders[seat.reader].push_back(order(seat.partition.clone()));
        }
    }
}

/// The engine's name for a tenancy.
fn partition(tenancy: &Tenancy) -> Partition {
    let TopicPartition { topic, partition } = &tenancy.of;
    Partition::new(Identity {
        source: "kafka",
        name: format!("{topic}:{partition}"),
        metadata: format!("\"topic\":{},\"partition\":{partition}", serde_json::Value::from(topic.as_ref())),
        position: "offset",
        epoch: tenancy.epoch,
        topic: Some(TopicPart {
            topic: topic.to_string(),
            partition: *partition,
            id: tenancy.topic_id.as_fields().0,
        }),
        ..Identity::default()
    })
}
