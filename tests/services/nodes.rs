//! [`Nodes`]: processes of Kafka, started and stopped by `kafka.sh serve`, and gone when this process is gone.
//!
//! The script reads our orders from a pipe whose only writing end is here. The kernel closes it however this
//! process ends, SIGKILL included; then the script kills the brokers and removes their directory. It runs in a
//! process group of its own, so that Ctrl-C ends us first.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// The script beside this file.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/kafka.sh");

/// How many ports a node has, as the script counts them.
const PORTS: u16 = 10;

/// Brokers with one directory and consecutive ports. Dropping it ends them.
pub struct Nodes {
    control: Mutex<Option<Control>>,
    script: Mutex<Child>,
    dir: PathBuf,
    port: u16,
    count: u16,
}

struct Control {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Nodes {
    /// Nothing is started yet. `settings` are lines of the brokers' configuration; in them `{2}` is
    /// the port of the first node's third listener.
    pub fn new(count: u16, settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("pipeline-kafka-").tempdir().expect("a directory").keep();
        let port = free_ports(count * PORTS);
        let mut script = Command::new(SCRIPT)
            .arg("serve")
            .arg(&dir)
            .args([count.to_string(), port.to_string()])
            .args(settings.iter().map(|setting| with_ports(setting, port)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the script starts");
        let orders = script.stdin.take().expect("it is piped");
        let answers = BufReader::new(script.stdout.take().expect("it is piped"));
        let control = Mutex::new(Some(Control { orders, answers }));
        Nodes { control, script: Mutex::new(script), dir, port, count }
    }

    /// How many.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The port of a node's listener; nodes are counted from 1.
    pub fn port(&self, node: u16, listener: u16) -> u16 {
        assert!((1..=self.count).contains(&node) && listener < PORTS);
        self.port + (node - 1) * PORTS + listener
    }

    /// Gives the script an order; see there. False if there is no such process any more.
    pub fn order(&self, word: &str, node: u16) -> bool {
        let mut control = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let control = control.as_mut().expect("taken only by drop");
        writeln!(control.orders, "{word} {node}").expect("the script runs");
        let mut answer = String::new();
        control.answers.read_line(&mut answer).expect("the script answers");
        answer == "done\n"
    }

    /// The end of a node's log.
    pub fn log(&self, node: u16) -> String {
        let text = fs::read(self.dir.join(format!("{node}/log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let skip = text.lines().count().saturating_sub(60);
        text.lines().skip(skip).flat_map(|line| [line, "\n"]).collect()
    }

    /// Where the brokers' files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let script = self.script.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = script.wait();
    }
}

/// A setting with the ports of the first node in it: `{2}` stands for that of its third listener.
fn with_ports(setting: &str, first: u16) -> String {
    let port = |setting: String, listener: u16| {
        setting.replace(&format!("{{{listener}}}"), &(first + listener).to_string())
    };
    (0..PORTS).fold(setting.to_owned(), port)
}

/// The first of `count` consecutive ports that nobody has. They are below those that the kernel gives to outgoing
/// connections: one of these could otherwise take the port of a broker that is down.
fn free_ports(count: u16) -> u16 {
    let (low, high) = (10_240, 32_000 - count);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let start = u64::from(now / 1000) + u64::from(std::process::id()) * 7919;
    let candidates = (0..2000u64).map(|step| low + ((start + step * 97) % u64::from(high - low)) as u16);
    let is_free = |first: &u16| {
        let listeners = (*first..first + count).map(|port| TcpListener::bind(("127.0.0.1", port)));
        listeners.collect::<Result<Vec<_>, _>>().is_ok()
    };
    candidates.into_iter().find(is_free).expect("some ports are free")
}
