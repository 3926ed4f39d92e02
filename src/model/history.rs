//! One history: processes and the world take steps at random, things go wrong, then a quiet recovery; at its end the
//! oracle looks.

use std::sync::Arc;

use super::coordinator::{Coordinator, Late, Trouble, Which};
use super::log::Log;
use super::oracle::{self, Reset};
use super::outside::{Outside, Protocol, Without};
use super::process::{Base, Process, Shelf, Shelves};
use super::random::Random;
use super::store::Store;
use crate::config::kafka::From;
use crate::error::{Error, Result};
use crate::kafka::cluster::Cluster;
use crate::kafka::group::Remembered;
use crate::kafka::group::state::Stored;
use crate::retry::Policy;
use crate::stop::Stop;

/// How many processes may be alive at once, and be started in all.
const ALIVE: usize = 3;
const STARTED: usize = 8;
/// How many threads of a process take steps.
const ROLES: usize = 7;
/// So many rounds of all threads are enough for any recovery.
const ROUNDS: usize = 3000;

pub struct History<'a> {
    outside: Outside,
    /// Whether records vanish: by retention, by compaction.
    vanish: bool,
    cluster: &'a Cluster,
    shelves: Shelves<'a>,
    processes: Vec<Process<'a>>,
    started: usize,
    location: u64,
    resets: Vec<Reset>,
    /// What may never happen.
    broken: Option<String>,
}

/// How a history went.
pub struct Played {
    /// What the oracle found, if it found anything.
    pub found: Result<(), String>,
    /// What happened, where that was asked for.
    pub trace: Vec<String>,
}

/// Whether what happens is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    Keep,
    Skip,
}

/// Plays one history.
pub fn play(seed: u64, without: Without, trace: Trace) -> Played {
    let cluster = Cluster::new(Vec::new(), Arc::default(), &Stop::new(), Policy::default());
    let (bases, assemblies, offsets) = (Shelf::default(), Shelf::default(), Shelf::default());
    let shelves = Shelves { bases: &bases, assemblies: &assemblies, offsets: &offsets };
    let mut history = History::new(seed, without, &cluster, shelves);
    history.outside.trace = (trace == Trace::Keep).then(Vec::new);
    let found = history.run();
    Played { found, trace: history.outside.trace.take().unwrap_or_default() }
}

impl<'a> History<'a> {
    fn new(seed: u64, without: Without, cluster: &'a Cluster, shelves: Shelves<'a>) -> Self {
        let mut random = Random::new(seed);
        let honours = random.one_in(2);
        let late = honours || random.one_in(2);
        // A late request without a condition may replace what holds vanished records: users are told.
        let vanish = random.one_in(2) && (honours || !late);
        let mut log = Log::default();
        log.create(1 + random.index(3), false);
        let limit = if random.one_in(3) { 70 + random.index(40) } else { 4096 };
        let outside = Outside {
            protocol: if random.one_in(2) { Protocol::Eager } else { Protocol::Cooperative },
            from: if random.one_in(3) { From::Latest } else { From::Earliest },
            log,
            coordinator: Coordinator::new(limit),
            store: Store::new(honours),
            network: Vec::new(),
            answers: Vec::new(),
            may_be_late: late,
            now: 0,
            trouble: Trouble::Some,
            sent: 0,
            trace: None,
            random,
            without,
        };
        History {
            outside,
            vanish,
            cluster,
            shelves,
            processes: Vec::new(),
            started: 0,
            location: 1,
            resets: Vec::new(),
            broken: None,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.outside.random.below(3) {
            self.outside.log.append(&mut self.outside.random, 0);
        }
        self.start();
        self.go_on(4);
        for _ in 0..25 + self.outside.random.below(60) {
            self.outside.now += self.outside.random.below(20_000) as i64;
            self.step();
        }
        self.recover()?;
        while let Some(put) = self.outside.store.late.pop() {
            self.outside.say(|| format!("  late: {}", put.name.1));
            let _ = self.outside.store.put(put);
        }
        oracle::check(&mut self.outside, &self.resets)
    }

    fn start(&mut self) {
        let (number, location) = (self.started, self.location);
        self.started += 1;
        self.outside.say(|| format!("p{number}: starts, output {location}"));
        let base = Base::new(self.cluster, location, &self.outside);
        let base = Shelf::put(&mut self.shelves.bases, base);
        let assembly = Shelf::put(&mut self.shelves.assemblies, base.assembly());
        self.processes.push(Process::start(number, location, base, assembly, &mut self.outside));
    }

    fn step(&mut self) {
        match self.outside.random.below(200) {
            0..130 => self.step_process(),
            130..140 => self.outside.log.append(&mut self.outside.random, self.outside.now),
            140..148 if self.vanish => {
                self.outside.say(|| "records vanish".into());
                self.outside.log.remove(&mut self.outside.random);
            }
            148..172 => self.carry(),
            172..176 => self.arrive(),
            176..190 => self.complete(),
            190..193 if self.processes.len() < ALIVE && self.started < STARTED => {
                self.start();
                if self.outside.random.one_in(2) {
                    self.go_on(4);
                }
            }
            193..196 if !self.processes.is_empty() => self.kill(),
            196 | 197 => self.expire(),
            198 => self.rare(),
            _ => self.step_process(),
        }
    }

    fn step_process(&mut self) {
        if self.processes.is_empty() {
            if self.started < STARTED {
                self.start();
            }
            return;
        }
        let at = self.outside.random.index(self.processes.len());
        let first = self.outside.random.index(ROLES);
        let times = 1 + self.outside.random.below(8) as usize;
        for role in (0..ROLES).map(|role| (role + first) % ROLES) {
            if self.act_often(at, role, times) > 0 {
                return;
            }
        }
    }

    /// One thread of a process goes on for a while. Says how often it did something.
    fn act_often(&mut self, at: usize, role: usize, times: usize) -> usize {
        for done in 0..times {
            match self.act(at, role) {
                Ok(true) => {}
                Ok(false) => return done,
                Err(error) => {
                    self.ended(at, &error);
                    return done + 1;
                }
            }
        }
        times
    }

    /// A while without trouble.
    fn go_on(&mut self, rounds: usize) {
        let before = std::mem::replace(&mut self.outside.trouble, Trouble::None);
        for _ in 0..rounds {
            self.clean_up();
            self.round(3);
        }
        self.outside.trouble = before;
    }

    /// All threads of all processes, each for a while.
    fn round(&mut self, times: usize) {
        for at in (0..self.processes.len()).rev() {
            let alive = self.processes.len();
            for role in 0..ROLES {
                self.act_often(at, role, times);
                if self.processes.len() < alive {
                    break;
                }
            }
        }
    }

    /// One step of one thread of a process.
    fn act(&mut self, at: usize, role: usize) -> Result<bool> {
        let (process, outside) = (&mut self.processes[at], &mut self.outside);
        match role {
            0 => process.tend(outside),
            1 => process.read(outside),
            2 => process.assemble(outside),
            3 => process.note(),
            4 => process.step_commit(&mut self.shelves, outside),
            5 => Ok(process.publish(outside)),
            _ if outside.is_quiet() && !process.is_read(outside) => Ok(false),
            _ if !outside.is_quiet() && !outside.random.one_in(3) => Ok(false),
            _ => process.close(outside),
        }
    }

    /// A process has ended with an error.
    fn ended(&mut self, at: usize, error: &Error) {
        let process = self.processes.swap_remove(at);
        self.outside.say(|| format!("p{}: ends: {error}", process.number));
        if error.to_string().contains("internal error") {
            self.broken.get_or_insert(error.to_string());
        }
        if matches!(error, Error::Usage(_)) && process.location == self.location {
            // It says: finish with the other output.
            self.location = 3 - self.location;
        }
    }

    fn kill(&mut self) {
        let at = self.outside.random.index(self.processes.len());
        if self.outside.random.one_in(3) {
            if let Err(error) = self.processes[at].drain(&mut self.outside) {
                self.ended(at, &error);
            }
            return;
        }
        let process = self.processes.swap_remove(at);
        self.outside.say(|| format!("p{}: is killed", process.number));
    }

    /// A commit arrives, or is lost on its way.
    fn carry(&mut self) {
        if self.outside.network.is_empty() {
            return;
        }
        let at = self.outside.random.index(self.outside.network.len());
        if self.outside.fails(10) {
            let id = self.outside.network.swap_remove(at).id;
            self.outside.say(|| format!("  commit {id} is lost"));
        } else {
            self.outside.deliver(at);
        }
    }

    /// A late request arrives at the store.
    fn arrive(&mut self) {
        let store = &mut self.outside.store;
        if !store.late.is_empty() {
            let put = store.late.swap_remove(self.outside.random.index(store.late.len()));
            self.outside.say(|| format!("  late: {}", put.name.1));
            let _ = self.outside.store.put(put);
        }
    }

    fn complete(&mut self) {
        let partitions = self.outside.log.parts().len();
        let Outside { random, coordinator, trouble, .. } = &mut self.outside;
        let late = if *trouble == Trouble::Some && random.one_in(4) { Late::Expel } else { Late::Wait };
        if coordinator.complete(random, partitions, late) {
            self.outside.say(|| "a generation begins".into());
        }
    }

    /// The session of a member is over, whether it lives or not.
    fn expire(&mut self) {
        let members = self.outside.coordinator.members();
        if let Some(member) = members.get(self.outside.random.index(members.len())) {
            self.outside.say(|| format!("the session of {member} is over"));
            self.outside.coordinator.remove(member);
        }
    }

    fn rare(&mut self) {
        match self.outside.random.below(4) {
            0 => {
                let late = !self.outside.coordinator.offsets.is_empty();
                if self.outside.log.parts().len() < 4 {
                    let part = super::log::Part { late, ..Default::default() };
                    self.outside.log.parts().push(part);
                }
            }
            1 if self.outside.log.topics.len() < 3 => self.recreate(),
            2 => self.reset(),
            3 => self.move_away(),
            _ => {}
        }
    }

    /// The topic is deleted, with or without its commits, and created again.
    fn recreate(&mut self) {
        let which = if self.outside.random.one_in(2) { Which::All } else { Which::Unnamed };
        self.outside.coordinator.forget(which);
        let late = !self.outside.coordinator.offsets.is_empty();
        let partitions = self.outside.log.parts().len();
        self.outside.log.create(partitions, late);
        self.outside.say(|| "the topic is created again".into());
    }

    /// Nobody is alive, and nothing is on its way to the coordinator.
    fn silence(&mut self) {
        self.processes.clear();
        while !self.outside.network.is_empty() {
            self.outside.deliver(0);
        }
        for member in self.outside.coordinator.members() {
            self.outside.coordinator.remove(&member);
        }
        // Who changes things by hand waits for what is under way.
        if !self.outside.store.honours {
            while !self.outside.store.late.is_empty() {
                self.arrive();
            }
        }
    }

    /// An operator sets an offset.
    fn reset(&mut self) {
        self.silence();
        let topic = self.outside.log.current();
        let partition = self.outside.random.index(self.outside.log.parts().len());
        let end = self.outside.log.parts()[partition].end();
        let offset = self.outside.random.below(end + 1);
        self.outside.say(|| format!("{partition} is set to {offset} by hand"));
        self.outside.coordinator.set(partition as i32, Stored { offset: offset as i64, text: String::new() });
        self.resets.push(Reset { topic, partition, offset });
    }

    /// The next processes have another output.
    fn move_away(&mut self) {
        self.silence();
        self.location = 3 - self.location;
        if self.started < STARTED {
            self.start();
        }
        // Alone until it has settled, or was told to finish with the first output.
        for _ in 0..20 {
            if self.processes.is_empty() {
                return;
            }
            self.complete();
            if let Err(error) = self.act(0, 0) {
                self.ended(0, &error);
            }
        }
    }

    /// Nothing goes wrong any more: all is stored and committed, or something is broken.
    fn recover(&mut self) -> Result<(), String> {
        self.outside.say(|| "recovery".into());
        self.outside.trouble = Trouble::None;
        if self.outside.random.one_in(2) {
            self.processes.clear();
        }
        for _ in 0..ROUNDS {
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            if self.processes.is_empty() {
                self.start();
            }
            self.clean_up();
            self.round(50);
            self.processes.retain(|process| !process.is_over());
            if self.is_done() {
                return Ok(());
            }
        }
        Err("it is stuck".into())
    }

    /// The network delivers, and the coordinator misses the dead.
    fn clean_up(&mut self) {
        while !self.outside.network.is_empty() {
            let last = self.outside.network.len() - 1;
            self.outside.deliver(last);
        }
        for member in self.outside.coordinator.members() {
            if !self.processes.iter().any(|process| process.is(&member)) {
                self.outside.coordinator.remove(&member);
            }
        }
        self.complete();
    }

    fn is_done(&mut self) -> bool {
        let id = Log::id(self.outside.log.current());
        // Without rule 7 what has nothing to read has no commit either.
        let count = self.outside.log.parts().len();
        let read = !self.outside.without.has(7)
            && self.processes.iter().map(|process| process.held.len()).sum::<usize>() == count
            && self.processes.iter().all(|process| process.is_read(&mut self.outside));
        let offsets = &self.outside.coordinator.offsets;
        let done = self.outside.log.topics.last().into_iter().flatten().enumerate().all(|(index, part)| {
            part.end() == 0
                || (read && !offsets.contains_key(&(index as i32)))
                || offsets.get(&(index as i32)).is_some_and(|stored| {
                    let ours = match Remembered::read(Some(&stored.text), stored.offset) {
                        Remembered::Ours(metadata) => metadata.topic_id == id,
                        _ => true,
                    };
                    ours && stored.offset as u64 >= part.end()
                })
        });
        done && self.processes.iter().all(Process::is_quiet)
    }
}
