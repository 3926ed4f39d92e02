//! Runs of the real executable that are started, watched, killed and compared. Every wait has a deadline; a
//! process that is still there when its [`Running`] goes is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::TempDir;

/// How long anything may take before it counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// All files of a directory by their path below it.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// A directory of its own with inputs, and runs in it.
pub struct Bench(TempDir);

/// What a run said and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails unless it ended with this code and said all of this on stderr.
    #[track_caller]
    pub fn expect(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for text in said {
            assert!(self.stderr.contains(text), "not said: {text:?}\n{}", self.stderr);
        }
        self
    }
}

impl Bench {
    pub fn new() -> Self {
        Bench(TempDir::new())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("it can be written");
    }

    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = File::options().append(true).open(self.path(name)).expect("it is there");
        file.write_all(bytes.as_ref()).expect("it can be written");
    }

    /// The executable with an environment that says nothing, and a name for this machine that never changes.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_pipeline").as_ref(), args)
    }

    /// The same under a limit of the size of files, in KiB.
    pub fn limited(&self, kib: u32, args: &[&str]) -> Command {
        let mut command = self.command_of("sh".as_ref(), &[]);
        let script = format!("ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
        command.args(["-c", &script, env!("CARGO_BIN_EXE_pipeline")]).args(args);
        command
    }

    fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("PIPELINE_CONFIG");
        command.env("PIPELINE_PROCESSING__PROCESSED_BY", "here");
        command
    }

    /// Runs to the end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        Running::start(self.command(args)).ended()
    }

    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    pub fn tree(&self, name: &str) -> Tree {
        let mut tree = Tree::new();
        collect(&self.path(name), "", &mut tree);
        tree
    }

    /// Output and dead letters, without what is hidden beside them.
    pub fn objects(&self, name: &str) -> Tree {
        let mut tree = self.tree(name);
        tree.retain(|path, _| !path.starts_with(".pipeline/"));
        tree
    }

    pub fn state(&self, dir: &str) -> Value {
        let text = fs::read(self.path(dir).join("state.json")).expect("there is a state");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    /// Files that are neither output nor state nor lock.
    pub fn leftovers(&self, name: &str) -> Vec<String> {
        let known = |path: &str| matches!(path, ".pipeline/state.json" | ".pipeline/lock");
        let hidden = |path: &String| path.split('/').any(|part| part.starts_with('.'));
        self.tree(name).into_keys().filter(|path| hidden(path) && !known(path)).collect()
    }
}

/// A run that goes on.
pub struct Running {
    child: Child,
    out: Option<Said>,
    err: Option<Said>,
}

/// What a run has said on one stream so far, and the thread that listens.
struct Said(Arc<Mutex<Vec<u8>>>, thread::JoinHandle<()>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with it")).into_owned()
    }
}

impl Running {
    /// Starts it. What it says is read by threads, unless the command says where it goes.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut running = Running::start_unread(command);
        running.out = running.child.stdout.take().map(listen);
        running
    }

    /// The same with nobody who reads its stdout.
    pub fn start_unread(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the executable starts");
        let err = child.stderr.take().map(listen);
        Running { child, out: None, err }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, once the run has taken signals over.
    pub fn signal(&self, signal: Signal) {
        // SIGUSR1 is the last that a run takes over: from then on none kills it.
        until("signals are caught", || self.catches(signal) && self.catches(Signal::USR1));
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).expect("it is not waited for yet");
    }

    fn catches(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("Linux says so");
        let caught = u64::from_str_radix(caught.trim(), 16).expect("it is a set of signals");
        caught >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Waits until it has said something on stderr.
    #[track_caller]
    pub fn heard(&self, what: &str) {
        until(what, || self.err.as_ref().is_some_and(|said| said.text().contains(what)));
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.err.as_ref().map_or_else(String::new, Said::text)
    }

    /// What it has printed on stdout so far.
    pub fn printed(&self) -> String {
        self.out.as_ref().map_or_else(String::new, Said::text)
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_some()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Ran {
        let _ = self.child.kill();
        self.ended()
    }

    #[track_caller]
    pub fn ended(self) -> Ran {
        self.ended_within(DEADLINE)
    }

    #[track_caller]
    pub fn ended_within(mut self, limit: Duration) -> Ran {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                break status;
            }
            assert!(Instant::now() < end, "still running after {limit:?}");
            tick();
        };
        drop(self.child.stdout.take());
        let text = |said: &mut Option<Said>| {
            let Some(said) = said.take() else { return String::new() };
            until("its end", || said.1.is_finished());
            said.text()
        };
        Ran { code: status.code(), stdout: text(&mut self.out), stderr: text(&mut self.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(said) = self.err.as_ref().filter(|_| thread::panicking()) {
            // Shown with the failed test.
            println!("process {} said:\n{}", self.id(), last_lines(&said.text(), 200));
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn listen(mut from: impl Read + Send + 'static) -> Said {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = heard.clone();
    let thread = thread::Builder::new().name("listen".into());
    let thread = thread.spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            into.lock().expect("nobody panics with it").extend_from_slice(&bytes[..count]);
        }
    });
    Said(heard, thread.expect("a thread can be started"))
}

/// Waits for a condition. Looks again and again instead of trusting a length of time.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "never happened: {what}");
        tick();
    }
}

/// Lets others have the processor between two looks.
fn tick() {
    thread::sleep(Duration::from_millis(1));
}

/// How many files with this ending are below a directory that is being written to.
pub fn count(dir: &Path, ending: &str) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let one = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => count(&entry.path(), ending),
        Ok(_) => usize::from(entry.file_name().to_string_lossy().ends_with(ending)),
        Err(_) => 0,
    };
    entries.flatten().map(one).sum()
}

fn collect(dir: &Path, prefix: &str, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let entry = entry.expect("it can be listed");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("it is there").is_dir() {
            collect(&entry.path(), &format!("{name}/"), tree);
        } else {
            match fs::read(entry.path()) {
                Ok(bytes) => drop(tree.insert(name, bytes)),
                // Of a directory that is being written to: it has its final name by now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{} cannot be read: {error}", entry.path().display()),
            }
        }
    }
}

/// Records with numbers from `range`, a line each, of different lengths.
pub fn lines(range: std::ops::Range<usize>) -> String {
    let filler = "pack my box with five dozen liquor jugs";
    range.map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", &filler[..n * 7 % filler.len()])).collect()
}

/// An object's text, whatever it is compressed with. Fails if it is not whole.
pub fn text(name: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = match name.rsplit('.').next() {
        Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text),
        Some("zst") => zstd::stream::read::Decoder::new(bytes).expect("it starts").read_to_string(&mut text),
        _ => (&mut &*bytes).read_to_string(&mut text),
    };
    read.unwrap_or_else(|error| panic!("{name} is not whole: {error}"));
    assert!(text.ends_with('\n'), "{name} has half a line at its end");
    text
}

/// The numbers of all records that are stored, in order of names.
pub fn numbers(tree: &Tree) -> Vec<u64> {
    let mut numbers = Vec::new();
    for (name, bytes) in tree.iter().filter(|(name, _)| name.starts_with("processed/")) {
        for line in text(name, bytes).lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{name}: {line}"));
            numbers.push(value["data"]["n"].as_u64().unwrap_or_else(|| panic!("{name}: {line}")));
        }
    }
    numbers
}

/// The tree with the time of the run taken out of its lines, for runs that began at different times.
pub fn masked(tree: &Tree) -> BTreeMap<String, Vec<Value>> {
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).expect("it is JSON");
        for time in ["processed_at", "failed_at"] {
            if let Some(value) = value.get_mut(time) {
                *value = Value::Null;
            }
        }
        value
    };
    tree.iter().map(|(name, bytes)| (name.clone(), text(name, bytes).lines().map(line).collect())).collect()
}

/// Numbers that are the same in each run of the tests (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// The next number, below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % limit
    }
}
