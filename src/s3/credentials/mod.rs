//! Who signs: [`Credentials`] yields [`Keys`], from the first place that has some, and renews those that expire.
//!
//! Keys of one place belong together: a session token of the environment is never used with keys of the
//! configuration. Empty values count as absent. A place that is set up but fails is an error: the next one would
//! sign as somebody else. Nothing here is ever printed but the place's name and what the service said.
//!
//! Keys are renewed early, in a thread of its own, while requests go on with those that are still valid: nobody
//! holds a lock while a service is asked but those who have no valid keys. That thread is joined when the last
//! owner of the credentials goes.

mod container;
mod http;
mod imds;
mod process;
mod profile;
mod web_identity;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use self::container::Container;
use self::imds::Instance;
pub use self::profile::region_of;
use self::profile::{DEFAULT, Files};
use self::web_identity::WebIdentity;
use super::error::{Error, Result};
use crate::config::secret::Lookup;
use crate::error::Retry;
use crate::metrics::Services;
use crate::stop::Stop;

/// How long before they expire keys are renewed; those that live shortly, after three quarters of their life.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// How long a service that failed to renew keys which are still valid is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// What a request is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Public.
    pub access_key_id: String,
    /// Secret.
    pub secret_access_key: String,
    /// Comes with keys that expire.
    pub session_token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.access_key_id)
    }
}

/// How places are asked that are not on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Asks<'a> {
    /// The region whose services are asked.
    pub region: &'a str,
    /// PEM file of the authorities that they are verified against; the system's if `None`.
    pub ca: Option<&'a Path>,
    /// Limit of a request.
    pub timeout: Duration,
}

/// Where keys are from.
trait Provider: Send + Sync {
    /// Asks for keys. Blocks.
    fn lend(&self) -> Result<Lent>;

    /// Ends what [`lend`](Self::lend) waits for, where that may be long, and whatever is asked later. Does not block.
    fn end(&self) {}
}

/// Keys, and how long they are valid.
#[derive(Clone)]
struct Lent {
    keys: Arc<Keys>,
    until: Option<SystemTime>,
    /// When to ask for new ones.
    renew: Option<SystemTime>,
}

impl Lent {
    fn new(keys: Keys, until: Option<SystemTime>) -> Self {
        let now = SystemTime::now();
        let early = |until: SystemTime| until - EARLY.min(until.duration_since(now).unwrap_or_default() / 4);
        Lent { keys: Arc::new(keys), until, renew: until.map(early) }
    }

    fn is_valid(&self) -> bool {
        self.until.is_none_or(|until| SystemTime::now() < until)
    }

    fn is_due(&self) -> bool {
        self.renew.is_some_and(|renew| SystemTime::now() >= renew)
    }
}

/// Who signs, and where that was found. Clones share keys.
#[derive(Clone)]
pub struct Credentials(Arc<Owner>);

/// Whoever owns the thread that renews.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    provider: Option<Box<dyn Provider>>,
    place: String,
    /// What was tried before this place.
    tried: String,
    /// Held for a look only.
    current: Mutex<Option<Lent>>,
    /// Held while the provider is asked.
    asking: Mutex<()>,
    /// How often they could not be renewed since they were.
    failures: AtomicU32,
    /// Nobody is asked any more.
    over: AtomicBool,
    services: OnceLock<Services>,
}

impl Credentials {
    /// These keys, whatever the environment says.
    pub fn fixed(keys: Keys) -> Self {
        Self::made(None, "configuration".into(), String::new(), Some(Lent::new(keys, None)))
    }

    fn made(provider: Option<Box<dyn Provider>>, place: String, tried: String, first: Option<Lent>) -> Self {
        let (current, asking) = (Mutex::new(first), Mutex::default());
        let shared = Shared {
            provider,
            place,
            tried,
            current,
            asking,
            failures: AtomicU32::new(0),
            over: AtomicBool::new(false),
            services: OnceLock::new(),
        };
        let shared = Arc::new(shared);
        Credentials(Arc::new(Owner { shared, thread: Mutex::default() }))
    }

    /// The first of: environment, profile `profile` or `default` of the shared files, web identity, container,
    /// instance metadata. A profile that is named is the only one. Asks nobody yet.
    ///
    /// # Errors
    /// [`Error::Credentials`] with everything that was tried.
    pub fn find(profile: Option<&str>, lookup: &Lookup<'_>, asks: &Asks<'_>) -> Result<Self> {
        let (id, secret, token) = KEYS;
        for name in [id, secret, token] {
            // Else the next place would sign as somebody else.
            lookup.text(name).map_err(|why| failed(Retry::Permanent, why))?;
        }
        let variable = |name: &str| {
            let text = lookup.text(name).ok().flatten();
            text.filter(|value| !value.trim().is_empty())
        };
        let files = Files::new(&variable);
        let lookup = &Lookup { variable: &|name| variable(name).map(OsString::from), read: lookup.read };
        let made = |provider, place, tried| Ok(Self::made(Some(provider), place, tried, None));
        // A profile that was named comes first, as with Amazon's own tools.
        if let Some(name) = profile {
            return match files.provider(name, lookup, asks)? {
                Some((provider, place)) => made(provider, place, String::new()),
                None => Err(failed(Retry::Permanent, format!("profile {name:?} has no keys in {files}"))),
            };
        }
        if let Some(keys) = of_environment(&variable)? {
            return Ok(Self::made(None, "environment".into(), String::new(), Some(Lent::new(keys, None))));
        }
        if let Some((provider, place)) = files.provider(DEFAULT, lookup, asks)? {
            return made(provider, place, String::new());
        }
        if let Some(provider) = WebIdentity::of_environment(&variable, asks)? {
            let role = variable("AWS_ROLE_ARN").unwrap_or_default();
            return made(Box::new(provider), format!("web identity (role {role})"), String::new());
        }
        if let Some((provider, name)) = Container::new(&variable)? {
            return made(Box::new(provider), format!("container ({name})"), String::new());
        }
        let tried = format!(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, there is no profile in {files}, neither \
             AWS_WEB_IDENTITY_TOKEN_FILE nor AWS_CONTAINER_CREDENTIALS_FULL_URI or …_RELATIVE_URI is set"
        );
        match Instance::new(&variable)? {
            Some(provider) => made(Box::new(provider), "instance metadata".into(), tried),
            None => {
                let why = format!("{tried}, and AWS_EC2_METADATA_DISABLED is true");
                Err(failed(Retry::Permanent, why))
            }
        }
    }

    /// Keys that are valid now. Blocks only where there are none.
    ///
    /// # Errors
    /// [`Error::Credentials`] if there are none to be had.
    pub fn keys(&self) -> Result<Arc<Keys>> {
        let shared = &self.0.shared;
        if let Some(lent) = shared.current.lock().clone().filter(Lent::is_valid) {
            if lent.is_due() {
                self.renew();
            }
            return Ok(lent.keys);
        }
        shared.ask()
    }

    /// Counts into these from now on that keys could not be renewed. The first who says so counts.
    pub(super) fn count_into(&self, services: &Services) {
        let _ = self.0.shared.services.set(services.clone());
    }

    /// Once `stop` is aborted nobody waits for keys: whoever lends some is left, and not asked again. Those that are
    /// valid can still be used.
    pub(super) fn hang_up_with(&self, stop: &Stop) {
        // Weak, or the stop would keep them for as long as it lives.
        let shared = Arc::downgrade(&self.0.shared);
        stop.on_abort(move || {
            if let Some(shared) = shared.upgrade() {
                shared.end();
            }
        });
    }

    /// Where they were found.
    pub fn place(&self) -> &str {
        &self.0.shared.place
    }

    /// The service says that these keys have expired. Whether there may be others.
    pub(super) fn expired(&self, keys: &Arc<Keys>) -> bool {
        let shared = &self.0.shared;
        if shared.provider.is_none() {
            return false;
        }
        if let Some(lent) = shared.current.lock().as_mut().filter(|lent| Arc::ptr_eq(&lent.keys, keys)) {
            lent.until = Some(SystemTime::UNIX_EPOCH);
        }
        true
    }

    /// Starts to ask for new keys, unless somebody asks already.
    fn renew(&self) {
        let Some(mut thread) = self.0.thread.try_lock() else { return };
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let shared = self.0.shared.clone();
        let work = move || shared.renew();
        match Builder::new().name("credentials".into()).spawn(work) {
            Ok(started) => drop(thread.replace(started).map(JoinHandle::join)),
            Err(error) => log::warn!("cannot start the thread that renews credentials: {error}"),
        }
    }
}

impl Shared {
    /// New keys for somebody who has none. Whoever comes meanwhile waits for them.
    fn ask(&self) -> Result<Arc<Keys>> {
        let _asking = self.asking.lock();
        if let Some(lent) = self.current.lock().clone().filter(Lent::is_valid) {
            return Ok(lent.keys);
        }
        let lent = self.lend()?;
        log::debug!("keys of the {}{}", self.place, Until(&lent));
        let keys = lent.keys.clone();
        *self.current.lock() = Some(lent);
        Ok(keys)
    }

    /// New keys while others are valid still.
    fn renew(&self) {
        let Some(_asking) = self.asking.try_lock() else { return };
        if self.current.lock().as_ref().is_some_and(|lent| !lent.is_due()) {
            return;
        }
        match self.lend() {
            Ok(lent) => {
                log::debug!("new keys of the {}{}", self.place, Until(&lent));
                *self.current.lock() = Some(lent);
                self.failures.store(0, Ordering::Relaxed);
            }
            Err(_) if self.is_over() => {}
            Err(error) => {
                if let Some(services) = self.services.get() {
                    services.retry(super::SERVICE, error.kind());
                }
                let attempt = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let wait = PAUSE.as_millis() as u64;
                log::warn!(
                    service = super::SERVICE, attempt, wait_ms = wait;
                    "{error}; going on with keys that are still valid; attempt {attempt}, next in {wait} ms"
                );
                if let Some(lent) = self.current.lock().as_mut() {
                    lent.renew = Some(SystemTime::now() + PAUSE);
                }
            }
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        if let Some(provider) = &self.provider {
            provider.end();
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn lend(&self) -> Result<Lent> {
        let Some(provider) = &self.provider else {
            return Err(failed(Retry::Permanent, format!("the keys of the {} have expired", self.place)));
        };
        // As something that passes: whoever tries again looks at the stop first, and ends as stopped.
        let stopped = || failed(Retry::Transient, format!("{}: the run was stopped", self.place));
        if self.is_over() {
            return Err(stopped());
        }
        let lent = provider.lend().and_then(|lent| match lent.is_valid() {
            true => Ok(lent),
            false => Err(failed(
                Retry::Transient,
                "what was given has expired already; is this machine's clock right?".into(),
            )),
        });
        lent.map_err(|error| match error {
            _ if self.is_over() => stopped(),
            Error::Credentials { why, retry } if self.tried.is_empty() => {
                Error::Credentials { why: format!("{}: {why}", self.place), retry }
            }
            Error::Credentials { why, retry } => {
                Error::Credentials { why: format!("{}, and {why}", self.tried), retry }
            }
            other => other,
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(thread) = self.thread.get_mut().take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.place())
    }
}

/// How long keys are valid, for logs.
struct Until<'a>(&'a Lent);

impl fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since =
            |until: SystemTime| until.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs().try_into().ok();
        match self.0.until.and_then(since).and_then(|second| jiff::Timestamp::from_second(second).ok()) {
            Some(until) => write!(f, ", valid until {until}"),
            None => Ok(()),
        }
    }
}

fn failed(retry: Retry, why: String) -> Error {
    Error::Credentials { why, retry }
}

/// A token of a file; whoever keeps it there renews it, and empties it for a moment.
fn of_file(name: &str, path: &Path) -> Result<String> {
    let wrong = |retry, why: &dyn fmt::Display| failed(retry, format!("{name} {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(Retry::Permanent, &error))?;
    match text.trim() {
        "" => Err(wrong(Retry::Transient, &"the file is empty")),
        token if token.contains(char::is_control) => Err(wrong(Retry::Permanent, &"expected one line")),
        token => Ok(token.to_owned()),
    }
}

/// Keys of the environment: id, secret and session token.
const KEYS: (&str, &str, &str) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN");

fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Keys>> {
    let [id, secret] = [KEYS.0, KEYS.1].map(variable);
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => {
            let session_token = variable(KEYS.2);
            Ok(Some(Keys { access_key_id, secret_access_key, session_token }))
        }
        (None, None) => Ok(None),
        (id, _) => {
            let (set, not) = if id.is_some() {
                ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
            } else {
                ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID")
            };
            let why = format!("AWS_{set} is set and AWS_{not} is not; expected both");
            Err(Error::Credentials { why, retry: Retry::Permanent })
        }
    }
}

#[cfg(test)]
mod tests;
