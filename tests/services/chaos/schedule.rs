//! What happens when, and to whom: drawn from a seed, and nothing else.

use std::fmt;
use std::time::Duration;

use super::proxy::{Direction, Harm};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Another one that is drawn from for one purpose alone.
    pub fn fork(&self, purpose: u64) -> Self {
        let mut fork = Random(self.0 ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        fork.next();
        fork
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// Whether something happens that does so in this share of cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Milliseconds from this range.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Which connections are harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Kafka,
    S3,
}

/// One thing that happens.
#[derive(Clone, PartialEq)]
pub enum Act {
    /// SIGKILL to one member.
    Kill(usize),
    /// SIGKILL to all.
    KillAll,
    /// SIGTERM to one member, which comes back.
    Stop(usize),
    /// SIGSTOP to one member, and SIGCONT after so long.
    Freeze(usize, Duration),
    /// So many members from now on.
    Members(usize),
    /// Something is done to this share of connections, in percent, and of those that are opened in the time after it.
    Net(Net, Harm, u64, Duration),
    /// Records that are stored already leave the topic, up to so many before the last of them. Members may not have
    /// committed them yet.
    Retention(u64),
    /// The broker is frozen for so long.
    FreezeBroker(Duration),
    /// The broker is killed and started again.
    RestartBroker,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Kill(slot) => write!(f, "kill member {slot}"),
            Act::KillAll => write!(f, "kill all members"),
            Act::Stop(slot) => write!(f, "stop member {slot}"),
            Act::Freeze(slot, time) => write!(f, "freeze member {slot} for {time:?}"),
            Act::Members(count) => write!(f, "{count} members"),
            Act::Net(net, harm, share, time) => {
                write!(f, "{net:?}, {share} % of connections for {time:?}: {harm:?}")
            }
            Act::Retention(rest) => write!(f, "retention up to {rest} records before what is stored"),
            Act::FreezeBroker(time) => write!(f, "freeze the broker for {time:?}"),
            Act::RestartBroker => write!(f, "kill the broker and start it again"),
        }
    }
}

/// The acts of a seed, each with the time that passes before it.
pub struct Schedule {
    random: Random,
    pace: u32,
}

/// The most members at a time.
pub const MEMBERS: usize = 4;

impl Schedule {
    /// `pace`: how many times faster than usually things happen.
    pub fn new(random: Random, pace: u32) -> Self {
        Schedule { random, pace }
    }

    fn act(&mut self) -> Act {
        let random = &mut self.random;
        let slot = random.below(MEMBERS as u64) as usize;
        match random.below(100) {
            0..24 => Act::Kill(slot),
            24..27 => Act::KillAll,
            27..33 => Act::Stop(slot),
            33..43 => Act::Freeze(slot, random.millis(200, 2_000)),
            // Longer than a session: it wakes up as nobody.
            43..53 => Act::Freeze(slot, random.millis(3_500, 9_000)),
            53..59 => Act::Members(1 + random.below(MEMBERS as u64) as usize),
            59..78 => net(Net::Kafka, random),
            78..93 => net(Net::S3, random),
            // They take long: there is no room for them in a short round.
            93.. if self.pace > 1 => Act::Kill(slot),
            93..97 => Act::Retention(random.pick(&[0, 1, 100, 1000])),
            97..99 => Act::FreezeBroker(random.millis(500, 6_000)),
            _ => Act::RestartBroker,
        }
    }
}

fn net(net: Net, random: &mut Random) -> Act {
    Act::Net(net, harm(random), random.pick(&[20, 20, 50, 100]), random.millis(1, 3_000))
}

fn harm(random: &mut Random) -> Harm {
    let way = random.pick(&[Direction::ToServer, Direction::ToClient]);
    let bytes = random.pick(&[1, 30, 500, 20_000, 300_000]);
    let (short, long) = (random.millis(100, 1_500), random.millis(2_000, 8_000));
    match random.below(10) {
        0..2 => Harm::Cut,
        2..4 => Harm::CutAfter(way, 1 + random.below(bytes) as usize),
        // What was asked is done, and nobody hears of it.
        4 => Harm::HoldAndCut(Direction::ToClient, short),
        5 => Harm::HoldAndCut(Direction::ToClient, long),
        // What was asked arrives late, maybe when whoever asked is gone.
        6 => Harm::Hold(Direction::ToServer, long),
        7 => Harm::Hold(way, short),
        8 => Harm::Delay(random.millis(20, 300), long),
        _ => Harm::Refuse,
    }
}

impl Iterator for Schedule {
    type Item = (Duration, Act);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = match self.random.below(10) {
            0..5 => self.random.millis(50, 800),
            5..9 => self.random.millis(800, 3_000),
            // Long enough for the group to come to rest.
            _ => self.random.millis(3_000, 8_000),
        };
        Some((pause / self.pace, self.act()))
    }
}

#[test]
fn a_seed_makes_one_schedule() {
    let acts = |seed| Schedule::new(Random::new(seed), 1).take(50).collect::<Vec<_>>();
    assert!(acts(1) == acts(1) && acts(1) != acts(2));
}
