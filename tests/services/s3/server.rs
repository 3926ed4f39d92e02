//! [`Server`]: the process of a real S3 server (versitygw), started by `s3.sh serve`, and gone when this process is.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/s3.sh");
pub const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";
/// Somebody who may do only what policies say.
const USERS: &str =
    r#"{"accessAccounts":{"somebody":{"access":"somebody","secret":"somebody-secret","role":"user"}}}"#;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    pub dir: PathBuf,
    pub port: u16,
    /// Its stdin keeps the server alive.
    script: Mutex<Child>,
}

impl Server {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        Server::start_with(&[])
    }

    /// The same, with options of its own.
    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("pipeline-s3-").tempdir().expect("a directory").keep();
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        std::fs::create_dir(dir.join("iam")).expect("it can be made");
        std::fs::write(dir.join("iam/users.json"), USERS).expect("it can be written");
        let script = Command::new(SCRIPT)
            .arg("serve")
            .arg(&dir)
            .arg(port.to_string())
            .args(options)
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
}

impl Drop for Server {
    fn drop(&mut self) {
        let script = self.script.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(script.stdin.take());
        let _ = script.wait();
    }
}

/// Whether a server can be started here. If not, it says so once; with `CI=true` it fails.
pub fn is_possible() -> bool {
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
