//! [`Server`]: a real S3 server (versitygw), and runs of the executable that store there.
//!
//! Its buckets are directories and its objects files, so what a run has stored is read from the disk, without any
//! client of ours. Metadata of objects is asked for with the library's client.

mod client;
mod fault;
mod faults;
mod kafka;
mod refused;
mod state;
mod stored;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::unique;
use crate::runs::{Bench, Ran, Running, Tree};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/s3.sh");
pub const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    dir: PathBuf,
    pub port: u16,
    /// Its stdin keeps the server alive.
    script: Mutex<Child>,
}

impl Server {
    /// The server that all tests of this process share, or `None` where tests with services are skipped.
    pub fn shared() -> Option<&'static Server> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| is_possible().then(Server::start)).as_ref()
    }

    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pipeline-s3-").tempdir().expect("a directory").keep();
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let script = Command::new(SCRIPT)
            .arg("serve")
            .arg(&dir)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the script starts");
        let server = Server { dir, port, script: Mutex::new(script) };
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(server.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the S3 server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// What `s3.endpoint` takes.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A bucket that no other test has.
    pub fn bucket(&self, name: &str) -> Store<'_> {
        let bucket = unique(name);
        std::fs::create_dir(self.dir.join("data").join(&bucket)).expect("it can be made");
        Store { server: self, bucket, endpoint: self.endpoint(), bench: Bench::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let script = self.script.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(script.stdin.take());
        let _ = script.wait();
    }
}

/// A bucket of a test, and a directory with inputs.
pub struct Store<'a> {
    server: &'a Server,
    pub bucket: String,
    /// Where runs look for it.
    pub endpoint: String,
    pub bench: Bench,
}

impl Store<'_> {
    /// The same bucket, reached in another way.
    pub fn by(mut self, endpoint: String) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// `s3://bucket/path`.
    pub fn url(&self, path: &str) -> String {
        format!("s3://{}/{path}", self.bucket)
    }

    fn path(&self) -> PathBuf {
        self.server.dir.join("data").join(&self.bucket)
    }

    /// All objects by key, without what is remembered beside them.
    pub fn objects(&self) -> Tree {
        let mut tree = self.all();
        tree.retain(|key, _| !key.contains(".pipeline/"));
        tree
    }

    /// All objects by key.
    pub fn all(&self) -> Tree {
        let mut tree = Tree::new();
        collect(&self.path(), "", &mut tree);
        tree
    }

    /// Uploads that were begun and are neither complete nor aborted.
    pub fn uploads(&self) -> usize {
        let mut tree = Tree::new();
        collect(&self.path().join(".sgwtmp/multipart"), "", &mut tree);
        tree.len()
    }

    /// The executable, with keys, endpoint and short delays.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "S3_BUCKET"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.bench.path("home"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("PIPELINE_PROCESSING__RETRY_DELAY", "5ms")
            .env("PIPELINE_PROCESSING__RETRY_MAX_DELAY", "20ms");
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        Running::start(self.command(args)).ended()
    }

    /// The `data` of all envelopes below `top`, sorted.
    #[track_caller]
    pub fn data(&self, top: &str) -> Vec<String> {
        let mut data = Vec::new();
        for (key, bytes) in self.objects().range(top.to_owned()..).filter(|(key, _)| key.starts_with(top)) {
            for line in crate::runs::text(key, bytes).lines() {
                let (_, rest) = line.split_once("\"data\":").expect("an envelope has data");
                data.push(rest.strip_suffix('}').expect("it ends").to_owned());
            }
        }
        data.sort();
        data
    }
}

fn collect(dir: &Path, prefix: &str, tree: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if prefix.is_empty() && name.starts_with(".sgw") {
            continue;
        }
        let key = format!("{prefix}{name}");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &format!("{key}/"), tree);
        } else if let Ok(bytes) = std::fs::read(entry.path()) {
            tree.insert(key, bytes);
        }
    }
}

/// The lines of a text, sorted.
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Whether a server can be started here. If not, it says so once; with `CI=true` it fails.
fn is_possible() -> bool {
    let asked = Command::new(SCRIPT).arg("missing").output().expect("bash is there");
    let missing = String::from_utf8_lossy(&asked.stdout).trim().to_string();
    if missing.is_empty() && asked.status.success() {
        return true;
    }
    let said = format!("tests with a real S3 server need {missing}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{said}");
    // Not by a macro: what tests print is shown only when they fail.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {said}");
    false
}
