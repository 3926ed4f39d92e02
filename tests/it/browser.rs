//! [`Browser`]: a real headless browser, spoken to over the pipe of its developer tools: no port, and it ends with the
//! test. It is not among what the set-up asks for: without one, tests say that they are skipped, but for `CI=true`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::runs::{DEADLINE, until};
use crate::support::TempDir;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// The rest is told over descriptors 3 and 4.
const OVER_PIPES: &str = "exec \"$@\" 3<&0 4>&1 < /dev/null > /dev/null 2>&1";
const QUIET: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// Everything that it told unasked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it, or says that there is none.
    pub fn start() -> Option<Self> {
        let Some(program) = installed() else {
            let lack = format!("no browser ({})", NAMES.join(", "));
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{lack}; make services installs one");
            eprintln!("skipped: {lack}");
            return None;
        };
        let profile = TempDir::new();
        let mut command = Command::new("sh");
        command.args(["-c", OVER_PIPES, "sh"]).arg(program).args(QUIET);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // A group of its own: it starts many processes, which end with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let to = child.stdin.take().expect("it is piped");
        let from = child.stdout.take().expect("it is piped");
        let (sender, messages) = channel();
        let reading = thread::Builder::new().name("browser".into()).spawn(move || listen(from, &sender));
        drop(reading.expect("a thread can be started"));
        let (session, calls, events) = (None, 0, Vec::new());
        let mut browser = Browser { child, to, messages, session, calls, events, _profile: profile };
        browser.open();
        Some(browser)
    }

    fn open(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Network", "Page", "Runtime"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Shows a page.
    pub fn show(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", asked)["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let browser = std::cell::RefCell::new(self);
        until(expression, || browser.borrow_mut().value(expression) == true);
    }

    /// Shows it with so many pixels, as a phone or not, in this colour scheme.
    pub fn look(&mut self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// All URLs that were asked for.
    pub fn requests(&self) -> Vec<&str> {
        let urls = self.told("Network.requestWillBeSent");
        urls.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    /// Errors of scripts.
    pub fn exceptions(&self) -> Vec<&Value> {
        self.told("Runtime.exceptionThrown").collect()
    }

    fn told<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["method"] == method)
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.to.write_all(&bytes).and_then(|()| self.to.flush()).expect("the browser listens");
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.messages.recv_timeout(left);
            let answer = answer.unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
            if answer["id"] == self.calls {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|file| file.is_file())
}

fn listen(from: ChildStdout, to: &Sender<Value>) {
    for message in BufReader::new(from).split(b'\0').map_while(Result::ok) {
        let Ok(message) = serde_json::from_slice(&message) else { return };
        if to.send(message).is_err() {
            return;
        }
    }
}
