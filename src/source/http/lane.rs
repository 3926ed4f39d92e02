//! Between the thread that fetches and the reader: [`Lane`]. The reader lends its chunk, the fetching thread adds the
//! records of page after page to it, and the reader takes it back when it is full, or soon after the first record came.
//!
//! So records never wait for a server: not while the next page is asked for, and not while a failed one is left alone.
//! And small pages come in chunks of many, however fast they come: each chunk costs the engine a dozen wake-ups.
//! An event (a partition ended) is told behind all records that came before it, and before any that come behind it.
//!
//! Both sides wait here and nowhere else, at most [`WAIT`] at a time; a stop is seen by the next look.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::record::{Chunk, Partition, Room};
use crate::source::{Flow, Read};
use crate::stop::Stop;

/// How long one look takes where there is nothing to do.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// How long the first record of a chunk waits for others.
const LINGER: Duration = Duration::from_millis(5);

/// Nobody wants records any more.
#[derive(Debug)]
pub(super) struct Over;

/// Where records come from.
pub(super) struct Place<'a> {
    pub partition: &'a Partition,
    /// The first of them.
    pub position: u64,
    /// Which page of the pass.
    pub page: u64,
    /// What asks for it.
    pub within: &'a Arc<[u8]>,
}

/// One reader and the thread that fetches for it.
pub(super) struct Lane {
    stop: Stop,
    state: Mutex<State>,
    /// The fetching thread has done something.
    filled: Condvar,
    /// The reader has done something.
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    /// What the reader has lent.
    chunk: Option<Chunk>,
    used: Used,
    event: Option<crate::Result<Read>>,
    paused: HashSet<Partition>,
    closed: bool,
}

/// What became of the chunk since it was lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Used {
    #[default]
    Not,
    /// There is something in it, since then; the last of it is of this page.
    Since(Instant, u64),
    /// It is to be taken back at once.
    Full,
}

impl Lane {
    /// A lane that ends with `stop`.
    pub fn new(stop: Stop) -> Self {
        Lane { stop, state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// The reader's side: lends the chunk, and returns what came, with the chunk as it is then. Blocks for about
    /// [`WAIT`] at most.
    ///
    /// # Errors
    /// Those that the fetching thread tells.
    pub fn lend(&self, chunk: &mut Chunk) -> crate::Result<Read> {
        let mut state = self.state.lock();
        (state.chunk, state.used) = (Some(std::mem::take(chunk)), Used::Not);
        self.emptied.notify_one();
        let end = Instant::now() + WAIT;
        let read = loop {
            if !self.stop.is_running() {
                // What was read by then is stored, too.
                break Ok(if state.used == Used::Not { Read::Done } else { Read::Chunk });
            }
            let now = Instant::now();
            let due = match state.used {
                Used::Full => break Ok(Read::Chunk),
                Used::Since(first, _) if state.event.is_some() || now >= first + LINGER => {
                    break Ok(Read::Chunk);
                }
                Used::Since(first, _) => first + LINGER,
                Used::Not => match state.event.take() {
                    Some(event) => break event,
                    None if now >= end => break Ok(Read::Idle),
                    None => end,
                },
            };
            self.filled.wait_until(&mut state, due);
        };
        *chunk = state.chunk.take().unwrap_or_default();
        self.emptied.notify_one();
        read
    }

    /// The reader's side: whether records of this partition may come.
    pub fn pause(&self, partition: &Partition, flow: Flow) {
        let mut state = self.state.lock();
        match flow {
            Flow::Pause => state.paused.insert(partition.clone()),
            Flow::Run => state.paused.remove(partition),
        };
        self.emptied.notify_one();
    }

    /// The reader is gone.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.emptied.notify_one();
    }

    /// The fetching thread's side: lets `fill` add to the chunk; it says whether more may be added. Blocks until there
    /// is a chunk that these records may go into.
    ///
    /// # Errors
    /// [`Over`], with nothing added.
    pub fn fill(&self, place: &Place<'_>, fill: impl FnOnce(&mut Chunk) -> Room) -> Result<(), Over> {
        let mut state = self.state.lock();
        while !state.takes(place.partition) {
            self.look(&state)?;
            if matches!(state.used, Used::Since(..)) {
                // It has records of another partition, or is to stay as it is for the time being.
                state.used = Used::Full;
                self.filled.notify_one();
            }
            self.emptied.wait_for(&mut state, WAIT);
        }
        self.look(&state)?;
        let State { chunk, used, .. } = &mut *state;
        let Some(chunk) = chunk else { return Ok(()) };
        match *used {
            Used::Since(_, page) if page == place.page => {}
            Used::Since(..) => chunk.set_resume_within(place.within.clone()),
            Used::Not | Used::Full => {
                chunk.start(place.partition, place.position);
                chunk.join_blocks();
                chunk.set_resume_within(place.within.clone());
            }
        }
        let room = fill(chunk);
        let before = *used;
        *used = match (room, before) {
            (Room::Full, _) => Used::Full,
            (Room::More, Used::Since(first, _)) => Used::Since(first, place.page),
            (Room::More, _) if chunk.is_empty() => Used::Not,
            (Room::More, _) => Used::Since(Instant::now(), place.page),
        };
        if *used == Used::Full || (before == Used::Not && *used != Used::Not) {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// The fetching thread's side: tells what happened, behind what was added before. Blocks until the event before it
    /// was taken.
    ///
    /// # Errors
    /// [`Over`], with nothing told.
    pub fn tell(&self, event: crate::Result<Read>) -> Result<(), Over> {
        let mut state = self.state.lock();
        while state.event.is_some() {
            self.look(&state)?;
            self.emptied.wait_for(&mut state, WAIT);
        }
        state.event = Some(event);
        self.filled.notify_one();
        Ok(())
    }

    /// The fetching thread's side: there is nothing to do for a while. Blocks for [`WAIT`].
    ///
    /// # Errors
    /// [`Over`].
    pub fn rest(&self) -> Result<(), Over> {
        // A stop is seen by the look.
        let _ = self.stop.sleep_running(WAIT);
        self.look(&self.state.lock())
    }

    /// The fetching thread's side.
    ///
    /// # Errors
    /// [`Over`].
    pub fn check(&self) -> Result<(), Over> {
        self.look(&self.state.lock())
    }

    fn look(&self, state: &State) -> Result<(), Over> {
        if state.closed || !self.stop.is_running() { Err(Over) } else { Ok(()) }
    }
}

impl State {
    /// Whether records of this partition may be added now.
    fn takes(&self, partition: &Partition) -> bool {
        let Some(chunk) = &self.chunk else { return false };
        let same = match self.used {
            Used::Not => true,
            Used::Since(..) => chunk.partition.as_ref() == Some(partition),
            Used::Full => false,
        };
        same && self.event.is_none() && !self.paused.contains(partition)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn partition(name: &str) -> Partition {
        Partition::named("http", name)
    }

    /// One record of a page, as the fetching thread adds it.
    fn add(lane: &Lane, partition: &Partition, page: u64, index: u64) -> Result<(), Over> {
        let (position, within) = (page << 32 | index, page.to_string().into_bytes().into());
        let place = Place { partition, position, page, within: &within };
        lane.fill(&place, |chunk| chunk.push(position, b"1"))
    }

    /// What a reader gets next, idle times passed over.
    fn lend(lane: &Lane) -> (Read, Chunk) {
        let mut chunk = Chunk::default();
        loop {
            match lane.lend(&mut chunk).unwrap() {
                Read::Idle => assert!(chunk.is_empty()),
                read => return (read, chunk),
            }
        }
    }

    fn positions(chunk: &Chunk) -> Vec<u64> {
        chunk.entries.iter().map(|entry| entry.position).collect()
    }

    /// Does both sides at once.
    fn beside(fetch: impl FnOnce(&Lane) + Send, read: impl FnOnce(&Lane)) {
        let lane = Lane::new(Stop::new());
        thread::scope(|scope| {
            scope.spawn(|| fetch(&lane));
            read(&lane);
        });
    }

    #[test]
    fn pages_share_a_chunk_that_knows_what_asks_for_each() {
        let of = partition("a");
        beside(
            |lane| {
                let within = |page: u64| page.to_string().into_bytes().into();
                let both: [Arc<[u8]>; 2] = [within(0), within(1)];
                lane.fill(&Place { partition: &of, position: 0, page: 0, within: &both[0] }, |chunk| {
                    chunk.push(0, b"1")
                })
                .unwrap();
                lane.fill(&Place { partition: &of, position: 1 << 32, page: 1, within: &both[1] }, |chunk| {
                    let _ = chunk.push(1 << 32, b"2");
                    Room::Full
                })
                .unwrap();
            },
            |lane| {
                let (read, chunk) = lend(lane);
                assert!(matches!(read, Read::Chunk));
                // If the machine rested for longer than a record waits, they come one by one.
                if chunk.len() == 2 {
                    let within: Vec<(u64, &[u8])> =
                        chunk.within.iter().map(|(at, it)| (*at, &**it)).collect();
                    assert_eq!(within, [(0, &b"0"[..]), (1, &b"1"[..])]);
                } else {
                    assert_eq!(positions(&chunk), [0]);
                    assert_eq!(positions(&lend(lane).1), [1 << 32]);
                }
            },
        );
    }

    /// The fetching thread does not return: it waits for a server.
    #[test]
    fn records_do_not_wait_for_the_next_page() {
        let (of, (done, answered)) = (partition("a"), crossbeam_channel::bounded::<()>(0));
        beside(
            |lane| {
                add(lane, &of, 0, 0).unwrap();
                answered.recv().unwrap();
                add(lane, &of, 1, 0).unwrap();
            },
            |lane| {
                assert_eq!(positions(&lend(lane).1), [0]);
                done.send(()).unwrap();
                assert_eq!(positions(&lend(lane).1), [1 << 32]);
            },
        );
    }

    #[test]
    fn events_stay_between_the_records_around_them() {
        let (one, other) = (partition("a"), partition("b"));
        beside(
            |lane| {
                lane.tell(Ok(Read::Assigned(one.clone(), None))).unwrap();
                add(lane, &one, 0, 0).unwrap();
                lane.tell(Ok(Read::Ended(one.clone()))).unwrap();
                lane.tell(Ok(Read::Assigned(other.clone(), None))).unwrap();
                add(lane, &other, 0, 0).unwrap();
                add(lane, &one, 0, 1).unwrap();
                lane.tell(Err(crate::Error::Usage("told".into()))).unwrap();
            },
            |lane| {
                assert!(matches!(lend(lane).0, Read::Assigned(..)));
                let (read, chunk) = lend(lane);
                assert!(matches!(read, Read::Chunk) && chunk.partition.as_ref() == Some(&one));
                assert!(matches!(lend(lane).0, Read::Ended(..)));
                assert!(matches!(lend(lane).0, Read::Assigned(..)));
                // Records of two partitions share no chunk.
                assert!(lend(lane).1.partition == Some(other.clone()));
                assert!(lend(lane).1.partition == Some(one.clone()));
                let mut chunk = Chunk::default();
                assert_eq!(lane.lend(&mut chunk).unwrap_err().to_string(), "told");
            },
        );
    }

    #[test]
    fn nothing_comes_of_what_is_paused_or_over() {
        let of = partition("a");
        let lane = Lane::new(Stop::new());
        lane.pause(&of, Flow::Pause);
        thread::scope(|scope| {
            let adding = scope.spawn(|| add(&lane, &of, 0, 0));
            assert!(matches!(lane.lend(&mut Chunk::default()).unwrap(), Read::Idle));
            lane.pause(&of, Flow::Run);
            assert_eq!(positions(&lend(&lane).1), [0]);
            assert!(adding.join().unwrap().is_ok());
            // There is no chunk for this one.
            let adding = scope.spawn(|| add(&lane, &of, 0, 1));
            lane.close();
            assert!(adding.join().unwrap().is_err());
        });
        assert!(lane.tell(Ok(Read::Done)).is_ok(), "there is room for one");
        assert!(lane.tell(Ok(Read::Done)).is_err() && lane.check().is_err() && lane.rest().is_err());
        let stop = Stop::new();
        let lane = Lane::new(stop.clone());
        stop.drain();
        assert!(add(&lane, &of, 0, 0).is_err());
        assert!(matches!(lane.lend(&mut Chunk::default()).unwrap(), Read::Done));
    }
}
