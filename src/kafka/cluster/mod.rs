//! [`Cluster`]: which brokers there are, who leads which partition, who coordinates which group.
//!
//! One control connection answers questions about the cluster; work has connections of its own ([`Cluster::connect`]).
//! Every question is asked again, with backoff, until its deadline, unless the answer says that asking again is of
//! no use. When no known broker answers, the bootstrap list is tried again, in random order. No broker is asked for
//! ever: one that is cut off from the others would go on telling what was true before. So another is asked once the control
//! connection is old, and sooner where what was told does not help. Whoever does not answer, whatever was asked, is
//! asked last.
//!
//! What it must never do: create a topic by asking about it, or go back to an older leader epoch (see [`topic`]).
//! It has no thread. It holds its locks only while it copies, but for that of the control connection, which
//! others wait for until their deadline.

mod coordinator;
mod dial;
mod offsets;
pub mod settings;
pub mod topic;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;

pub use coordinator::Coordinates;
pub use offsets::{At, Isolation, Offset};
pub use settings::ClusterSettings;
pub use topic::{PartitionInfo, Topic, TopicPartition};

use super::code::Code;
use super::connection::Connection;
use super::connection::address::Address;
use super::connection::hangup::Hangup;
use super::connection::options::Options;
use super::error::{Call, Error, Result};
use super::wire::Api;
use crate::error::Retry;
use crate::retry::{Delays, Policy};
use crate::stop::Stop;
use dial::Control;

/// How long a run looks for its cluster before it begins: long enough for a broker that is being restarted, short
/// enough for whoever waits at a terminal and has mistyped an address.
pub const REACH: Duration = Duration::from_secs(20);
/// What metrics and logs call the brokers.
pub(crate) const SERVICE: &str = "kafka";
/// After so many failures of anything in a row another broker is asked about the cluster.
const UNHELPED: u32 = 3;
/// The longest delay before brokers are asked again, however patient the policy: one that is back after 35 s would have
/// to wait for half a minute more, and who hears nothing of it gives up after 60 s.
const LONGEST: Duration = Duration::from_secs(5);
/// From this version on a request can say that topics are not to be created.
const NEVER_CREATES: i16 = 4;

/// What is known of a cluster. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    bootstrap: Vec<Arc<Address>>,
    options: Arc<Options>,
    stop: Stop,
    settings: ClusterSettings,
    hangup: Hangup,
    known: Mutex<Known>,
    control: Mutex<Option<Control>>,
    /// Whether another broker is asked next.
    doubted: AtomicBool,
    /// Who gave no answer in time, and when. They are asked last.
    silent: Mutex<HashMap<Arc<Address>, Instant>>,
}

#[derive(Default)]
struct Known {
    brokers: BTreeMap<i32, Arc<Address>>,
    topics: HashMap<Arc<str>, Arc<Topic>>,
    /// All topics that were ever asked for.
    wanted: BTreeSet<Arc<str>>,
    /// When the request was sent whose answer is the last one.
    asked_at: Option<Instant>,
}

impl Cluster {
    /// Nothing is connected yet. Once `stop` is aborted, every wait of this cluster and its connections ends with
    /// [`Error::HungUp`].
    pub fn new(
        bootstrap: Vec<Arc<Address>>,
        options: Arc<Options>,
        stop: &Stop,
        settings: impl Into<ClusterSettings>,
    ) -> Self {
        let hangup = Hangup::new();
        let switch = hangup.clone();
        stop.on_abort(move || switch.shutdown());
        Cluster(Arc::new(Inner {
            bootstrap,
            options,
            stop: stop.clone(),
            settings: settings.into(),
            hangup,
            known: Mutex::default(),
            control: Mutex::default(),
            doubted: AtomicBool::new(false),
            silent: Mutex::default(),
        }))
    }

    /// The same cluster for what is to be said behind an abort. Nothing is connected yet, and nothing ends its waits but
    /// their deadlines.
    pub fn behind_abort(&self) -> Self {
        Cluster::new(self.0.bootstrap.clone(), self.0.options.clone(), &Stop::new(), self.0.settings)
    }

    /// How brokers are spoken to.
    pub fn options(&self) -> &Arc<Options> {
        &self.0.options
    }

    /// The run's stop.
    pub fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// The topic as last heard of; `None` if it was never asked for. Look at its error first.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.known.lock().topics.get(name).cloned()
    }

    /// The ids of the brokers as last heard of.
    pub fn brokers(&self) -> Vec<i32> {
        self.0.known.lock().brokers.keys().copied().collect()
    }

    /// Asks which brokers there are and who leads the partitions of `topics` and of all topics that were asked
    /// for before. Never creates a topic. That a topic is unknown, not allowed or has no valid name is no error:
    /// see [`Topic::error`]. If another thread asked the same after this call began, its answer is taken.
    ///
    /// Blocks until there is an answer, and at most until about `deadline`.
    ///
    /// # Errors
    /// [`Error::GaveUp`] with the last error at the deadline; at once what another try cannot help; and
    /// [`Error::HungUp`] after an abort.
    pub fn refresh(&self, topics: &[Arc<str>], deadline: Instant) -> Result<()> {
        let begun = Instant::now();
        self.0.known.lock().wanted.extend(topics.iter().cloned());
        let what = || match topics {
            [] => "metadata".to_string(),
            topics => format!("metadata of {}", topics.join(", ")),
        };
        self.persist(what, deadline, || {
            self.ask(deadline, |connection| {
                if self.0.known.lock().asked_at.is_some_and(|at| at > begun) && self.knows(topics) {
                    return Ok(());
                }
                self.ask_metadata(connection, deadline)
            })
        })
    }

    /// How old an answer may be before it is asked again although nothing is wrong.
    pub(crate) fn metadata_age(&self) -> Duration {
        self.0.settings.metadata_age
    }

    /// Another broker is asked next: what this one says may be untrue.
    pub(crate) fn doubt(&self) {
        self.0.doubted.store(true, Ordering::Relaxed);
    }

    /// If no answer came in time, whoever gave none is asked last about the cluster: of a machine that is gone nothing
    /// comes back, and each question to it takes the whole timeout. Until it answers one about the cluster, or to a
    /// producer, or metadata have become old.
    pub(crate) fn suspect(&self, error: &Error) {
        if let Some(broker) = error.silent() {
            self.0.silent.lock().insert(broker.clone(), Instant::now());
        }
    }

    /// Whether it gave no answer of late.
    pub(crate) fn is_silent(&self, broker: &Arc<Address>) -> bool {
        self.0.silent.lock().get(broker).is_some_and(|at| at.elapsed() < self.metadata_age())
    }

    /// It answers.
    pub(crate) fn trust(&self, broker: &Arc<Address>) {
        self.0.silent.lock().remove(broker);
    }

    /// What was told of a topic last; [`Code::NONE`] also if nothing was.
    pub(crate) fn topic_error(&self, topic: &str) -> Code {
        self.0.known.lock().topics.get(topic).map_or(Code::NONE, |known| known.error)
    }

    /// When the request was sent that was answered last.
    pub(crate) fn told_at(&self) -> Option<Instant> {
        self.0.known.lock().asked_at
    }

    fn knows(&self, topics: &[Arc<str>]) -> bool {
        let known = self.0.known.lock();
        topics.iter().all(|topic| known.topics.contains_key(topic))
    }

    fn ask_metadata(&self, connection: &mut Connection, deadline: Instant) -> Result<()> {
        let wanted: Vec<_> = self.0.known.lock().wanted.iter().cloned().collect();
        let named = |topic: &Arc<str>| MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        // An empty list is no topics; none at all would be every topic of the cluster.
        let request = MetadataRequest::default()
            .with_topics(Some(wanted.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false);
        let version = connection.version::<MetadataRequest>(i16::MAX)?;
        let call = Call { broker: connection.broker().clone(), api: <MetadataRequest as Api>::NAME, version };
        if version < NEVER_CREATES {
            let broker = call.broker;
            let ours = (NEVER_CREATES, i16::MAX);
            return Err(Error::Version { broker, api: call.api, ours, theirs: Some((0, version)) });
        }
        let asked_at = Instant::now();
        let answer = connection.call_within(&request, version, self.patience(deadline))?;
        if let Err(code) = Code(answer.error_code).check() {
            if code == Code::REBOOTSTRAP_REQUIRED {
                self.0.known.lock().brokers.clear();
            }
            connection.close();
            return Err(Error::Refused { call, code });
        }
        if answer.brokers.is_empty() {
            // A broker that has just started knows of nobody, itself included.
            connection.close();
            return Err(Error::Unavailable(format!("{} knows of no brokers yet", call.broker)));
        }
        self.0.known.lock().learn(&wanted, &answer, asked_at);
        Ok(())
    }

    /// For how long one answer is waited for.
    fn patience(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(Instant::now()).min(self.0.options.request_timeout)
    }

    /// Tries until it works, fails in a way that trying again cannot help, or the deadline is near.
    pub(crate) fn persist<T>(
        &self,
        what: impl Fn() -> String,
        deadline: Instant,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        let mut delays = self.delays();
        let (mut before, mut tries) = (None, 0);
        loop {
            let error = match attempt() {
                Err(error) if error.retry() == Retry::Transient => error,
                outcome => return outcome,
            };
            self.0.hangup.check()?;
            let delay = delays.next().unwrap_or(LONGEST);
            if deadline.saturating_duration_since(Instant::now()) <= delay {
                let last = Box::new(telling(error, before));
                return Err(Error::GaveUp { what: what(), after: begun.elapsed(), last });
            }
            tries += 1;
            self.again(&what(), &error, tries, delay);
            // Close to the deadline several answers may be cut short, one after the other.
            if before.is_none() || !is_cut_short(&error) {
                before = Some(error);
            }
            self.sleep(delay)?;
        }
    }

    /// Something failed and is tried again in `wait`: counts it and says so. `attempt` is the one that failed, the
    /// first being 1; how many there are, deadlines say. If what the cluster said does not help time and again, another
    /// broker is asked next: this one may be cut off from the others.
    pub(crate) fn again(&self, what: &dyn fmt::Display, error: &Error, attempt: u32, wait: Duration) {
        self.0.options.services.retry(SERVICE, error.kind());
        self.suspect(error);
        if attempt.is_multiple_of(UNHELPED) {
            self.doubt();
        }
        // Once is ordinary: a coordinator that is found for the first time, a leader that has just moved.
        let level = if attempt <= 1 { log::Level::Debug } else { log::Level::Warn };
        let wait = wait.as_millis() as u64;
        log::log!(
            level, service = SERVICE, attempt, wait_ms = wait;
            "{what}: {error}; attempt {attempt}, next in {wait} ms"
        );
    }

    /// Delays of the cluster's policy, as [`endless`] makes them.
    pub(crate) fn delays(&self) -> Delays {
        endless(self.0.settings.retry)
    }

    pub(crate) fn sleep(&self, delay: Duration) -> Result<()> {
        self.0.stop.sleep(delay).map_err(|_| Error::HungUp)
    }
}

impl Known {
    fn learn(&mut self, asked: &[Arc<str>], answer: &MetadataResponse, asked_at: Instant) {
        self.asked_at = Some(asked_at);
        self.brokers = answer
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                Some((broker.node_id.0, Arc::new(Address { host: broker.host.to_string(), port })))
            })
            .collect();
        for described in &answer.topics {
            let Some(name) = &described.name else { continue };
            // Only what was asked for: an answer is no reason to remember more.
            let Some(name) = asked.iter().find(|topic| topic[..] == name.0[..]) else { continue };
            let topic = Topic::after(self.topics.get(name).map(Arc::as_ref), name.clone(), described);
            self.topics.insert(name.clone(), Arc::new(topic));
        }
    }
}

/// The error to give up with: that the deadline cut the last answer short says less than what went wrong before.
fn telling(last: Error, before: Option<Error>) -> Error {
    match (last, before) {
        (Error::GaveUp { last, .. }, before) => telling(*last, before),
        (Error::Timeout { .. }, Some(before)) => telling(before, None),
        (last, _) => last,
    }
}

fn is_cut_short(error: &Error) -> bool {
    match error {
        Error::GaveUp { last, .. } => is_cut_short(last),
        error => matches!(error, Error::Timeout { .. }),
    }
}

/// A topic's name as messages have it.
pub(crate) fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_string()))
}

/// The policy's delays without an end, since deadlines end what is tried in vain, and none above [`LONGEST`].
pub(crate) fn endless(policy: Policy) -> Delays {
    Policy { max_retries: u32::MAX, max_delay: policy.max_delay.min(LONGEST), ..policy }.delays(random())
}

/// Some number, other every time.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
