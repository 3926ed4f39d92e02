//! Keys that a program prints, as `credential_process` of a profile names it. It is killed with all that it started
//! when it takes too long; nothing of what it prints is told.

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::super::error::{Error, Result};
use super::http::Told;
use super::{Lent, Provider, failed};
use crate::error::Retry;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What it may print at most.
const PRINTED: usize = 64 << 10;
/// How often it is looked whether the run is over.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Process {
    command: String,
    limit: Duration,
    over: AtomicBool,
    /// The group of the program that is under way. Held for a look and a kill only.
    group: Mutex<Option<Pid>>,
}

impl Process {
    pub fn new(command: String) -> Self {
        Process { command, limit: LIMIT, over: AtomicBool::new(false), group: Mutex::default() }
    }

    /// What it prints, until it ends.
    fn output(&self, child: &mut Child, stdout: &mut ChildStdout) -> Result<String> {
        let end = Instant::now() + self.limit;
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            self.check(end)?;
            let slice = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
            let mut fds = [PollFd::new(&*stdout, PollFlags::IN)];
            match poll(&mut fds, Some(&slice)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|error| wrong(error.to_string()))?,
            };
            match stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(wrong(error.to_string())),
            }
            if text.len() > PRINTED {
                return Err(wrong("it prints more than 64 KiB; expected one JSON object"));
            }
        }
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => break,
                Ok(Some(status)) => return Err(failure(status)),
                Ok(None) => std::thread::sleep(LOOK),
                Err(error) => return Err(wrong(error.to_string())),
            }
            self.check(end)?;
        }
        if text.trim_ascii().is_empty() {
            return Err(passing("it prints nothing; expected one JSON object"));
        }
        String::from_utf8(text).map_err(|_| wrong("it prints no UTF-8; expected one JSON object"))
    }

    fn check(&self, end: Instant) -> Result<()> {
        if self.over.load(Ordering::Acquire) {
            return Err(passing("nobody waits for it any more"));
        }
        if Instant::now() >= end {
            return Err(passing(format!("it did not end within {} s", self.limit.as_secs())));
        }
        Ok(())
    }

    fn kill(&self) {
        if let Some(group) = self.group.lock().take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Provider for Process {
    fn lend(&self) -> Result<Lent> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .map_err(|error| wrong(format!("it cannot be started: {error}")))?;
        let mut stdout = child.stdout.take().ok_or_else(|| wrong("it has no stdout"))?;
        // Whoever ended it before this line finds no group: then `output` sees that.
        *self.group.lock() = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let text = self.output(&mut child, &mut stdout);
        if text.is_err() {
            // Its group still has its number: it has not been waited for, or left children behind.
            self.kill();
            let _ = child.wait();
        }
        *self.group.lock() = None;
        let told = Told::read(&text?).map_err(wrong)?;
        if told.version != Some(1) {
            return Err(wrong("expected \"Version\": 1 in what it prints"));
        }
        told.lent().map_err(wrong)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        // At once: whoever ends it may be gone before `output` looks again.
        self.kill();
    }
}

/// What no other try makes good: the program, or what it prints.
fn wrong(why: impl Into<String>) -> Error {
    failed(Retry::Permanent, why.into())
}

/// What may be otherwise in a moment: whom the program asks cannot be reached, say.
fn passing(why: impl Into<String>) -> Error {
    failed(Retry::Transient, why.into())
}

fn failure(status: ExitStatus) -> Error {
    match status.code() {
        // So the shell says that there is no such program, or none that it may start.
        Some(126 | 127) => wrong(format!("it cannot be started ({status})")),
        _ => passing(format!("it failed ({status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lend(command: &str) -> Result<Lent> {
        let limit = if command.contains("sleep") { Duration::from_millis(50) } else { LIMIT };
        Process { limit, ..Process::new(command.into()) }.lend()
    }

    #[test]
    fn a_program_prints_keys() {
        let printed = r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T","Expiration":"2040-01-01T00:00:00Z"}"#;
        let lent = lend(&format!("echo '{printed}'")).unwrap();
        assert_eq!(lent.keys.session_token.as_deref(), Some("T"));
        assert!(lent.until.is_some());
    }

    #[test]
    fn what_a_program_does_wrong_is_said_without_what_it_printed() {
        use Retry::{Permanent, Transient};
        for (command, said, retry) in [
            ("echo hidden; exit 3", "it failed (exit status: 3)", Transient),
            ("kill -9 $$", "it failed (signal: 9", Transient),
            ("/no/such/program", "it cannot be started (exit status: 127)", Permanent),
            ("echo; echo hidden >/dev/null", "it prints nothing", Transient),
            ("echo '{\"Version\":2,\"SecretAccessKey\":\"hidden\"}'", "\"Version\": 1", Permanent),
            ("echo '{\"Version\":1,\"SecretAccessKey\":\"hidden\"}'", "no AccessKeyId", Permanent),
            ("echo hidden", "no JSON", Permanent),
            ("echo hidden; sleep 100 & sleep 100", "did not end within", Transient),
            ("exec >&-; sleep 100", "did not end within", Transient),
            ("head -c 100000 /dev/zero", "more than 64 KiB", Permanent),
        ] {
            let error = lend(command).map(|_| ()).unwrap_err();
            assert_eq!(error.retry(), retry, "{command}: {error}");
            let error = error.to_string();
            assert!(error.contains(said) && !error.contains("hidden"), "{command}: {error}");
        }
    }
}
