//! The table of endpoints: whose turn it is. Shared by the readers, which take turns, and the commit thread, which
//! tells that a pass is remembered. No IO; the time is a parameter.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::HttpOptions;
use super::resume::{Begin, Resume};
use crate::record::Partition;

/// Which endpoints there are to read.
#[derive(Default)]
pub(super) struct Desk(Mutex<Vec<Seat>>);

/// One endpoint.
enum Seat {
    /// It is to be read from there, not before this time.
    Waiting(Begin, Instant),
    /// A reader has it.
    Taken,
    /// It was read to its end; where it is read again, that begins when the end is remembered.
    Ended { cycle: u64, name: String, next: Option<(Begin, Instant)> },
}

/// What a reader is to do.
pub(super) enum Turn {
    /// Read this endpoint.
    Take(usize, Begin),
    /// Ask again later.
    Wait,
    /// Nothing more.
    Done,
}

impl Desk {
    /// Begins: where each endpoint goes on, or that it does not.
    pub fn open(&self, seats: Vec<Option<Begin>>) {
        let now = Instant::now();
        let seat = |begin: Option<Begin>| match begin {
            Some(begin) => {
                let due = now + begin.wait();
                Seat::Waiting(begin, due)
            }
            None => Seat::Ended { cycle: 0, name: String::new(), next: None },
        };
        *self.0.lock() = seats.into_iter().map(seat).collect();
    }

    /// The endpoint that has waited longest.
    pub fn take(&self, now: Instant) -> Turn {
        let mut seats = self.0.lock();
        let waiting = seats.iter().enumerate().filter_map(|(index, seat)| match seat {
            Seat::Waiting(_, due) => Some((*due, index)),
            _ => None,
        });
        match waiting.min() {
            Some((due, index)) if due <= now => match std::mem::replace(&mut seats[index], Seat::Taken) {
                Seat::Waiting(begin, _) => Turn::Take(index, begin),
                other => {
                    seats[index] = other;
                    Turn::Wait
                }
            },
            Some(_) => Turn::Wait,
            None if seats.iter().any(|seat| matches!(seat, Seat::Ended { next: Some(_), .. })) => Turn::Wait,
            // Who reads them keeps them.
            None => Turn::Done,
        }
    }

    /// An endpoint was read to its end; `last` is what is remembered of it.
    pub fn ended(&self, endpoint: usize, last: &Resume, options: &HttpOptions) {
        let next = options.poll.map(|poll| {
            let begin = Begin::next(last, crate::read::now(), poll, &options.pagination);
            let due = Instant::now() + begin.wait();
            (begin, due)
        });
        let name = options.endpoints[endpoint].0.clone();
        self.0.lock()[endpoint] = Seat::Ended { cycle: last.cycle, name, next };
    }

    /// A pass is remembered to its end: the next one may begin.
    pub fn committed(&self, partition: &Partition) {
        let mut seats = self.0.lock();
        let seat = seats.iter_mut().find(|seat| {
            matches!(seat, Seat::Ended { cycle, name, .. }
                if *name == partition.name() && Some(*cycle) == partition.identity().cycle)
        });
        if let Some(seat) = seat
            && let Seat::Ended { next: next @ Some(_), .. } = seat
            && let Some((begin, due)) = next.take()
        {
            *seat = Seat::Waiting(begin, due);
        }
    }
}

/// How long is left of an interval that began at `from` (milliseconds since the epoch).
pub(super) fn left_of(interval: Duration, from: i64, now: i64) -> Duration {
    let gone = Duration::from_millis(u64::try_from(now - from).unwrap_or(0));
    interval.saturating_sub(gone)
}
