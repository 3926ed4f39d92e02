//! [`Server`]: the process of a real JSON server, started by `json.sh serve`, and gone when this process is.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/json.sh");

/// How long a server may take to start: it is a Node.js, and others may be busy beside it.
const START: Duration = Duration::from_secs(60);

/// A running server.
pub struct Server {
    dir: PathBuf,
    port: u16,
    /// Its stdin keeps the server alive.
    script: Child,
}

impl Server {
    /// Starts one with these lists, and waits until it listens.
    pub fn start(lists: &Value) -> Self {
        let dir = tempfile::Builder::new().prefix("pipeline-json-").tempdir().expect("a directory").keep();
        std::fs::write(dir.join("db.json"), lists.to_string()).expect("it can be written");
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
        let server = Server { dir, port, script };
        let end = Instant::now() + START;
        while !server.ask("GET", "/db", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            let log = || std::fs::read_to_string(server.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the JSON server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Adds a record to a list.
    pub fn add(&self, list: &str, record: &Value) {
        let answer = self.ask("POST", &format!("/{list}"), &record.to_string()).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// One request over a connection of its own, and the whole answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        if stream.local_addr()? == stream.peer_addr()? {
            // Where nobody listens yet, a connection may by chance be one with itself.
            return Err(ErrorKind::ConnectionRefused.into());
        }
        stream.set_read_timeout(Some(START))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Whether a server can be started here. If not, it says so once; with `CI=true` it fails.
pub fn is_possible() -> bool {
    let asked = Command::new(SCRIPT).arg("missing").output().expect("bash is there");
    let missing = String::from_utf8_lossy(&asked.stdout).trim().to_string();
    if missing.is_empty() && asked.status.success() {
        return true;
    }
    let said = format!("tests with a real JSON server need {missing}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{said}");
    // Not by a macro: what tests print is shown only when they fail.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {said}");
    false
}
