//! What tests share: a watchdog, temporary directories, and runs of the real executable.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `test` in a thread and fails if it has not ended after `limit`: a hang is a failure, not a stuck suite.
#[track_caller]
pub fn watchdog<T: Send + 'static>(limit: Duration, test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new().name("watched".into());
    let watched = thread.spawn(move || {
        let _ = done.send(test());
    });
    match result.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs: nothing after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match watched.expect("started").join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the sender is dropped only by a panic"),
        },
    }
}

/// A directory that is removed with the value.
///
/// Its name is random and it is made by whoever asks first: test runs of several containers may share one
/// directory for temporary files, and their process ids are the same.
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// A new directory of its own.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pipeline-it-").tempdir();
        TempDir(dir.expect("a temporary directory can be made"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// How a run of the real executable ended.
#[derive(Debug)]
pub struct Ended {
    /// What it exited with; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
}

impl Ended {
    /// The summary of a run with `--summary json`: the one line of stderr that is an object with an outcome.
    #[track_caller]
    pub fn summary(&self) -> serde_json::Value {
        let found = self.stderr.lines().rev().find(|line| line.starts_with("{\"outcome\":"));
        serde_json::from_str(found.unwrap_or_else(|| panic!("no summary: {self:?}"))).expect("it is JSON")
    }

    /// Fails unless it exited with `code`. Returns itself.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }

    /// Fails unless stderr has this text. Returns itself.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected {text:?} in:\n{}", self.stderr);
        self
    }
}

/// The executable in a directory of its own, with an environment that says nothing.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    clean(&mut command, dir);
    command
}

/// Lets a command run in `dir` without what the environment could say to the executable.
pub fn clean(command: &mut Command, dir: &Path) {
    command.current_dir(dir).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("PIPELINE_CONFIG");
}

/// Runs the executable in `dir` to its end, for at most a minute.
#[track_caller]
pub fn run(dir: &Path, args: &[&str]) -> Ended {
    let mut command = command(dir);
    command.args(args);
    finish(command)
}

/// Runs a command to its end, for at most a minute; one that hangs is killed and fails the test.
#[track_caller]
pub fn finish(mut command: Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let limit = Duration::from_secs(60);
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(limit), stderr.recv_timeout(limit)) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("hangs: {command:?} has not ended after {limit:?}");
    };
    let code = child.wait().expect("it was started").code();
    Ended { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Everything that comes out of a pipe, once it ends.
fn collect(mut pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, all) = mpsc::channel();
    let reading = thread::Builder::new().name("collect".into()).spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = done.send(bytes);
    });
    reading.expect("a thread can be started");
    all
}

/// The files below a directory by their relative path, without hidden ones; none if there is no such directory.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(dir).expect("it is below").to_string_lossy().into_owned();
            match entry.file_name().to_string_lossy().starts_with('.') {
                true => {}
                false if path.is_dir() => open.push(path),
                false => drop(files.insert(name, std::fs::read(&path).expect("it can be read"))),
            }
        }
    }
    files
}

/// How many lines all files of a tree have whose path begins so.
pub fn lines(tree: &BTreeMap<String, Vec<u8>>, prefix: &str) -> u64 {
    let of = tree.iter().filter(|(name, _)| name.starts_with(prefix));
    of.map(|(_, bytes)| bytes.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}
