//! [`Slot`]: one member of the group after another: started, killed, frozen, stopped, started again.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::schedule::Random;

/// How long a member may take to stop when it is asked to: its requests have timeouts, and faults go on.
const STOP: Duration = Duration::from_secs(60);

/// How a member ended that nobody killed.
#[allow(dead_code, reason = "shown as it is")]
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Whether it had been asked to stop.
    pub asked: bool,
    /// The end of what it said.
    pub said: String,
    pub log: PathBuf,
}

impl Ended {
    /// Whether this is how a member may end: stopped as asked, or failed in a way that another run goes on from.
    pub fn is_allowed(&self) -> bool {
        match self.code {
            Some(0 | 3 | 143) => self.asked,
            Some(1) => !self.said.contains("panicked"),
            _ => false,
        }
    }
}

/// A place for a member.
pub struct Slot {
    number: usize,
    dir: PathBuf,
    random: Random,
    pace: u32,
    started: usize,
    child: Option<Child>,
    log: PathBuf,
    thaw: Option<Instant>,
    stopping: Option<Instant>,
    start: Instant,
    pub wanted: bool,
}

impl Slot {
    pub fn new(number: usize, dir: &Path, random: Random, pace: u32) -> Self {
        Slot {
            number,
            dir: dir.to_owned(),
            random,
            pace,
            started: 0,
            child: None,
            log: PathBuf::new(),
            thaw: None,
            stopping: None,
            start: Instant::now(),
            wanted: false,
        }
    }

    /// What it is to be started with, if it is wanted, not there, and time for it.
    pub fn is_due(&mut self) -> Option<Vec<String>> {
        let due = self.child.is_none() && self.wanted && Instant::now() >= self.start;
        due.then(|| settings(&mut self.random))
    }

    /// Starts it; returns what to say about it.
    pub fn begin(&mut self, mut command: Command) -> String {
        self.started += 1;
        self.log = self.dir.join(format!("member-{}-{}.log", self.number, self.started));
        let log = File::create(&self.log).expect("a log can be made");
        command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log).stdin(Stdio::null());
        command.env("RUST_LOG", "info");
        self.child = Some(command.spawn().expect("the executable starts"));
        format!("member {} begins ({})", self.number, self.started)
    }

    /// How often it was started.
    pub fn started(&self) -> usize {
        self.started
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let pid = Pid::from_raw(child.id().cast_signed()).expect("a process has an id");
            kill_process(pid, signal).expect("it is not waited for yet");
        }
    }

    /// SIGKILL. It comes back after a while.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.rest();
    }

    fn rest(&mut self) {
        (self.thaw, self.stopping) = (None, None);
        self.start = Instant::now() + self.random.millis(0, 2_500) / self.pace;
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        if self.child.is_some() && self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.signal(Signal::TERM);
        }
    }

    /// SIGSTOP, and SIGCONT after `time`.
    pub fn freeze(&mut self, time: Duration) {
        if self.child.is_some() {
            self.signal(Signal::STOP);
            self.thaw = Some(Instant::now() + time);
        }
    }

    pub fn thaw(&mut self) {
        if self.thaw.take().is_some() {
            self.signal(Signal::CONT);
        }
    }

    /// Looks after it; returns how it ended by itself, if it did.
    pub fn watch(&mut self) -> Option<Ended> {
        if self.thaw.is_some_and(|thaw| Instant::now() >= thaw) {
            self.thaw();
            // The time that it was frozen is not its own.
            self.stopping = self.stopping.map(|_| Instant::now());
        }
        let status = self.child.as_mut()?.try_wait().expect("it is a child");
        if let Some(status) = status {
            self.child = None;
            let asked = self.stopping.is_some();
            self.rest();
            return Some(self.ended(status, asked));
        }
        let hangs = self.stopping.is_some_and(|since| since.elapsed() > STOP && self.thaw.is_none());
        assert!(!hangs, "still running {STOP:?} after SIGTERM: {}", self.log.display());
        None
    }

    fn ended(&self, status: ExitStatus, asked: bool) -> Ended {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let said = lines[lines.len().saturating_sub(6)..].join("\n");
        Ended { code: status.code(), signal: status.signal(), asked, said, log: self.log.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How one member works: each differently, and each time differently, because a batch that was planned must be cut
/// again at the same end by whoever does it again.
fn settings(random: &mut Random) -> Vec<String> {
    let set = |name: &str, value: &str| format!("{name}={value}");
    let settings = [
        set("processing.batch_size", random.pick(&["0", "5000", "500", "50"])),
        set("processing.batch_wait", random.pick(&["100ms", "500ms", "2s", "4s"])),
        set("processing.memory_limit", random.pick(&["80MiB", "128MiB", "256MiB"])),
        set("processing.max_retries", random.pick(&["4", "60"])),
        set("processing.retry_delay", "50ms"),
        set("processing.retry_max_delay", "1s"),
        set("processing.timeout", random.pick(&["3s", "8s"])),
        set("kafka.source.session_timeout", random.pick(&["2s", "3s"])),
        set("s3.concurrency", random.pick(&["1", "2", "3"])),
        set("s3.part_size", random.pick(&["5MiB", "8MiB"])),
    ];
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
}
