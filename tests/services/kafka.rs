//! [`Kafka`]: one or more running brokers, and what tests ask of them.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataRequest;
use pipeline::kafka::{Address, Connection, Hangup, Mechanism, Options, Plaintext, Sasl, Tls, TlsFiles};

use crate::admin;
use crate::nodes::{Nodes, SCRIPT};

/// How long brokers may take to start, on a machine that does other things too.
const START: Duration = Duration::from_secs(120);

/// The brokers' listeners, in the order of the script's NAMES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Plaintext,
    SaslPlaintext,
    Ssl,
    SaslSsl,
    /// TLS that asks for a client's certificate.
    Mutual,
    /// TLS with a certificate that expired.
    Expired,
    /// TLS with a certificate for another host.
    Elsewhere,
}

/// Running brokers.
pub struct Kafka {
    pub nodes: Nodes,
}

impl Kafka {
    /// The broker that all tests of this process share, or `None` where tests with services are skipped.
    pub fn shared() -> Option<&'static Kafka> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        SHARED.get_or_init(|| is_possible().then(|| Kafka::start(1, &[]))).as_ref()
    }

    /// New brokers of one cluster; returns when all of them know each other.
    pub fn start(count: u16, settings: &[&str]) -> Self {
        let kafka = Kafka { nodes: Nodes::new(count, settings) };
        for node in 1..=count {
            kafka.nodes.order("start", node);
        }
        kafka.ready();
        kafka
    }

    /// Waits until every node answers with all nodes.
    #[track_caller]
    pub fn ready(&self) {
        let end = Instant::now() + START;
        for node in 1..=self.nodes.count() {
            loop {
                let known = self.brokers_known_to(node);
                if known == Ok(usize::from(self.nodes.count())) {
                    break;
                }
                let late = Instant::now() > end;
                if late || !self.nodes.order("alive", node) {
                    panic!("broker {node} did not start: {known:?}; its log ends:\n{}", self.nodes.log(node));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn brokers_known_to(&self, node: u16) -> Result<usize, String> {
        let said = |error: pipeline::kafka::Error| error.to_string();
        let mut connection = self.connect_to(node, Listener::Plaintext, options()).map_err(said)?;
        let request =
            MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(false);
        connection.call(&request).map(|answer| answer.brokers.len()).map_err(said)
    }

    /// Where the first node listens.
    pub fn address(&self, listener: Listener) -> Arc<Address> {
        self.address_of(1, listener)
    }

    /// Where a node listens.
    pub fn address_of(&self, node: u16, listener: Listener) -> Arc<Address> {
        let port = self.nodes.port(node, listener as u16);
        Arc::new(Address { host: "localhost".into(), port })
    }

    /// What `--brokers` takes: the plain listeners of all nodes.
    pub fn brokers(&self) -> String {
        let address = |node| self.address_of(node, Listener::Plaintext).to_string();
        (1..=self.nodes.count()).map(address).collect::<Vec<_>>().join(",")
    }

    pub fn connect(&self, listener: Listener, options: Options) -> pipeline::kafka::Result<Connection> {
        self.connect_to(1, listener, options)
    }

    pub fn connect_to(
        &self,
        node: u16,
        listener: Listener,
        options: Options,
    ) -> pipeline::kafka::Result<Connection> {
        Connection::open(&self.address_of(node, listener), &Arc::new(options), &Hangup::new())
    }

    /// A plain connection to any node that runs.
    #[track_caller]
    pub fn plain(&self) -> Connection {
        let open = |node| self.connect_to(node, Listener::Plaintext, options());
        let mut tried = (1..=self.nodes.count()).map(open);
        tried.find_map(Result::ok).expect("a broker runs")
    }

    /// Creates a topic with a name of its own that begins with `name`, and waits until it has its leaders.
    #[track_caller]
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        self.topic_with(name, partitions, &[])
    }

    /// The same with settings of the topic.
    #[track_caller]
    pub fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = unique(name);
        admin::create(self, &name, partitions, settings);
        name
    }
}

/// A name that no other test has.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Options with short timeouts: everything is on this machine.
pub fn options() -> Options {
    Options {
        client_id: "services".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(15),
        ..Options::default()
    }
}

/// A file of `testdata/kafka/tls`.
pub fn tls_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka/tls").join(name)
}

/// TLS that trusts this authority.
pub fn trusting(ca: &str) -> TlsFiles {
    TlsFiles { ca: Some(tls_file(ca)), ..TlsFiles::default() }
}

/// Options with TLS.
pub fn encrypted(files: &TlsFiles) -> Options {
    Options { tls: Some(Tls::new(files).expect("the files are good")), ..options() }
}

/// How the user alice logs in.
pub fn alice(mechanism: Mechanism) -> Sasl {
    let (username, password) = ("alice".into(), "alice-secret".into());
    Sasl { mechanism, username, password, plaintext: Plaintext::Allow }
}

/// Whether brokers can be started here. If not, it says so once; with `CI=true` it fails.
pub fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let asked = Command::new(SCRIPT).arg("missing").output().expect("bash is there");
        let missing = String::from_utf8_lossy(&asked.stdout).trim().to_string();
        if missing.is_empty() && asked.status.success() {
            return true;
        }
        let said = format!("tests with a real Kafka need {missing}");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{said}");
        // Not by a macro: what tests print is shown only when they fail.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {said}");
        false
    })
}
