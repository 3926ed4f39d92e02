//! [`Server`]: a real S3 server (versitygw), and runs of the executable that store there.
//!
//! Its buckets are directories and its objects files, so what a run has stored is read from the disk, without any
//! client of ours. Metadata of objects is asked for with the library's client.

mod client;
mod fault;
mod denied;
mod faults;
mod gone;
mod kafka;
mod lend;
mod names;
mod providers;
mod refused;
mod server;
mod session;
mod state;
mod stored;
mod ways;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use server::{KEY, SECRET, Server};

use crate::kafka::unique;
use crate::runs::{Bench, Ran, Running, Tree};

impl Server {
    /// The server that all tests of this process share, or `None` where tests with services are skipped.
    pub fn shared() -> Option<&'static Server> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| server::is_possible().then(Server::start)).as_ref()
    }

    /// A bucket that no other test has.
    pub fn bucket(&self, name: &str) -> Store<'_> {
        let bucket = unique(name);
        std::fs::create_dir(self.dir.join("data").join(&bucket)).expect("it can be made");
        Store { server: self, bucket, endpoint: self.endpoint(), bench: Bench::new() }
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
        for name in [
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_CA_BUNDLE",
            "S3_BUCKET",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.bench.path("home"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_EC2_METADATA_DISABLED", "true")
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
