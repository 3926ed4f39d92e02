//! A state in a corner of a bucket ([`BucketHome`]), and what earlier runs left there ([`BucketLeftovers`]).
//!
//! A bucket has no locks that end with their process, so a run holds a lease: an object that it renews every 20 s
//! and deletes at its end. One that was not renewed for 60 s, by the store's clock, is taken over; so is one of a
//! process of this machine that is gone. Whoever finds a younger one waits until it is renewed, which means that its
//! run lives, or ends. The lease is a courtesy: what keeps a run that was thought dead from harm is that every write
//! of the state replaces the very version that its run wrote last (`If-Match`), and that objects are stored under
//! names, with bytes and on conditions that are the same for both.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::claim::BucketClaim;
use super::home::{Held, Home};
use super::record::FILE;
use crate::error::{Error, Result};
use crate::retry::Policy;
use crate::s3::{self, Bucket, Condition, Content, Found, Object};
use crate::sink::Stream;
use crate::sink::key::{Namer, is_cycle, top};
use crate::stop::Stop;

/// A lease that was not renewed for so long is over.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed.
pub(super) const RENEW: Duration = Duration::from_secs(20);
/// How often a lease is looked at that may end.
const LOOK: Duration = Duration::from_secs(1);
/// How often a lease may be lost to others that do not show.
const LOSSES: u32 = 10;
/// Metadata of the state: which run wrote it.
const RUN: &str = "pipeline-run";
/// Keys that are asked for at a time.
pub(super) const PAGE: usize = 1000;

/// How patiently the store is asked where the engine does not try again itself.
#[derive(Clone)]
pub struct Tries {
    /// How often and when.
    pub policy: Policy,
    /// What ends the waiting.
    pub stop: Stop,
}

impl fmt::Debug for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tries({:?})", self.policy)
    }
}

impl Tries {
    pub(super) fn patiently<T>(&self, bucket: &Bucket, call: impl FnMut() -> s3::Result<T>) -> Result<T> {
        bucket.patiently(self.policy, &self.stop, call)
    }
}

/// A corner of a bucket.
#[derive(Debug)]
pub struct BucketHome {
    bucket: Arc<Bucket>,
    /// With a slash at its end.
    prefix: String,
    tries: Tries,
    /// What no other run is called.
    token: String,
    /// The version that was read or written last.
    etag: Mutex<Option<String>>,
    conditional: AtomicBool,
}

/// What came of a write.
enum Wrote {
    Done,
    /// Another run has written since.
    Lost,
}

impl BucketHome {
    /// The state below `prefix`, which ends in a slash. Asks nobody. `conditional`: whether the store knows conditions,
    /// which keep two runs at once apart.
    pub fn new(bucket: Arc<Bucket>, prefix: String, tries: Tries, conditional: bool) -> Self {
        let token = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let (etag, conditional) = (Mutex::default(), AtomicBool::new(conditional));
        BucketHome { bucket, prefix, tries, token, etag, conditional }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Stores an object as this run's, on a condition where the store knows of them.
    fn put(&self, key: &str, bytes: &[u8], condition: Condition<'_>) -> s3::Result<String> {
        let metadata = [(RUN, self.token.clone())];
        let headers = [("content-type", "application/json".to_owned())];
        let object = Object { key, headers: &headers, metadata: &metadata };
        let put = |condition| self.bucket.put(&object, Content::Bytes(bytes), condition);
        if !self.conditional.load(Ordering::Relaxed) {
            return put(Condition::None);
        }
        match put(condition) {
            Err(error) if error.status() == Some(501) => {
                log::warn!("{error}; keeping the state without conditions");
                self.conditional.store(false, Ordering::Relaxed);
                put(Condition::None)
            }
            other => other,
        }
    }

    fn is_ours(&self, found: &Found) -> bool {
        found.metadata(RUN) == Some(&self.token)
    }

    /// One attempt to replace the state.
    fn replace(&self, bytes: &[u8]) -> s3::Result<Wrote> {
        let key = self.key(FILE);
        let mut etag = self.etag.lock();
        let on = |etag: &Option<String>| match etag {
            Some(etag) => self.put(&key, bytes, Condition::Match(etag)),
            None => self.put(&key, bytes, Condition::Absent),
        };
        let wrote = match on(&etag) {
            Err(error) if matches!(error.status(), Some(404 | 412)) => match self.bucket.head(&key)? {
                // An earlier write was stored, and nobody heard of it.
                Some(found) if self.is_ours(&found) => {
                    *etag = Some(found.etag);
                    on(&etag)
                }
                _ => return Ok(Wrote::Lost),
            },
            other => other,
        };
        *etag = Some(wrote?);
        Ok(Wrote::Done)
    }

    fn settle(&self, wrote: Wrote) -> Result<()> {
        match wrote {
            Wrote::Done => Ok(()),
            Wrote::Lost => Err(self.locked("a run that has taken it over".into())),
        }
    }

    fn locked(&self, holder: String) -> Error {
        Error::Locked { path: self.bucket.url(&self.key(Lease::KEY)).into(), holder }
    }

    /// Tries to take the lease; with the error if it is somebody else's, or seems to be.
    fn take(&self, lease: &Note, condition: Condition<'_>) -> Result<s3::Result<String>> {
        let (key, bytes) = (self.key(Lease::KEY), lease.bytes());
        let gone = matches!(condition, Condition::Match(_));
        self.tries.patiently(&self.bucket, || match self.put(&key, &bytes, condition) {
            Err(error) if matches!(error.status(), Some(409 | 412)) => Ok(Err(error)),
            Err(error) if gone && error.status() == Some(404) => Ok(Err(error)),
            other => other.map(Ok),
        })
    }

    /// The lease could not be taken, and the next look at it says whose it is. If none says so, again and again, it is
    /// nobody's, and the store refuses it for another reason.
    fn lost(&self, error: s3::Error, losses: &mut u32) -> Result<()> {
        *losses += 1;
        if *losses > LOSSES {
            return Err(error.into());
        }
        self.tries.stop.sleep_running(LOOK / 10)
    }
}

impl Home for BucketHome {
    fn name(&self) -> String {
        self.bucket.url(&self.prefix)
    }

    fn lock(&self, host: &str) -> Result<Box<dyn Held>> {
        let mut note = Note {
            token: self.token.clone(),
            holder: format!("process {} on {host}", std::process::id()),
            process: process(std::process::id()),
            renewed: 0,
        };
        let key = self.key(Lease::KEY);
        let mut seen: Option<(String, Instant)> = None;
        let mut losses = 0;
        loop {
            let there = self.tries.patiently(&self.bucket, || self.bucket.get(&key))?;
            let taken = match &there {
                None => Some(self.take(&note, Condition::Absent)?),
                Some((found, _)) if self.is_ours(found) => Some(Ok(found.etag.clone())),
                Some((found, bytes)) => {
                    let theirs = Note::parse(bytes);
                    let unchanged = seen.as_ref().filter(|(etag, _)| *etag == found.etag);
                    let waited = unchanged.map_or(Duration::ZERO, |(_, since)| since.elapsed());
                    let is_old = found.age.unwrap_or_default().max(waited) >= LEASE;
                    let lives = lives(&theirs.process);
                    match (is_old || lives == Some(false), lives, &seen) {
                        (true, _, _) => Some(self.take(&note, Condition::Match(&found.etag))?),
                        (false, Some(true), _) => return Err(self.locked(theirs.holder)),
                        (false, _, Some(_)) if unchanged.is_none() => return Err(self.locked(theirs.holder)),
                        (false, _, first) => {
                            if first.is_none() {
                                let (name, holder) = (self.name(), theirs.holder);
                                log::warn!("{name} is held by {holder}: waiting until that is over");
                                seen = Some((found.etag.clone(), Instant::now()));
                            }
                            self.tries.stop.sleep_running(LOOK)?;
                            None
                        }
                    }
                }
            };
            let Some(taken) = taken else { continue };
            let etag = match taken {
                Ok(etag) => etag,
                Err(error) => {
                    self.lost(error, &mut losses)?;
                    continue;
                }
            };
            note.renewed += 1;
            let held = Mutex::new(Holding { note, etag, due: Instant::now() + RENEW, failures: 0 });
            let home = BucketHome {
                bucket: self.bucket.clone(),
                prefix: self.prefix.clone(),
                tries: self.tries.clone(),
                token: self.token.clone(),
                etag: Mutex::default(),
                conditional: AtomicBool::new(self.conditional.load(Ordering::Relaxed)),
            };
            return Ok(Box::new(Lease { home, held }));
        }
    }

    fn read(&self) -> Result<Option<Vec<u8>>> {
        let key = self.key(FILE);
        let Some((found, bytes)) = self.tries.patiently(&self.bucket, || self.bucket.get(&key))? else {
            return Ok(None);
        };
        *self.etag.lock() = Some(found.etag);
        Ok(Some(bytes))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.settle(self.replace(bytes)?)
    }

    fn write_patiently(&self, bytes: &[u8]) -> Result<()> {
        self.settle(self.tries.patiently(&self.bucket, || self.replace(bytes))?)
    }
}

/// What stands in a lease.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Note {
    token: String,
    /// For people.
    holder: String,
    /// For runs on the same machine.
    process: String,
    /// So that a renewed lease is another one.
    renewed: u64,
}

impl Note {
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// Whether the process that was known by this is there, if that can be known: it must be one of this machine that this
/// run can see.
pub(super) fn lives(known: &str) -> Option<bool> {
    let mut words = known.split(' ');
    let here = machine()?;
    if words.next() != Some(here.as_str()) {
        return None;
    }
    let id = words.next()?.parse().ok()?;
    Some(process(id) == known)
}

/// This start of this machine, and which of its processes are seen.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot.trim(), space.display()))
}

/// What a process is known by: machine, id and when it began. Empty where that is not told.
pub(super) fn process(id: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it.
    let began = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    match (machine(), began) {
        (Some(machine), Some(began)) => format!("{machine} {id} {began}"),
        _ => String::new(),
    }
}

/// A lease that is held.
struct Lease {
    home: BucketHome,
    held: Mutex<Holding>,
}

struct Holding {
    note: Note,
    etag: String,
    due: Instant,
    /// How often it could not be renewed since it was.
    failures: u32,
}

impl Lease {
    const KEY: &str = "lock";

    /// One attempt. A refusal may be for an earlier one, which was stored and nobody heard of; or this run was thought
    /// dead, and the lease is another's.
    fn renew(&self, held: &mut Holding) -> s3::Result<Wrote> {
        let key = self.home.key(Lease::KEY);
        let ours =
            || -> s3::Result<_> { Ok(self.home.bucket.head(&key)?.filter(|found| self.home.is_ours(found))) };
        // Where there are no conditions nothing else would tell.
        if !self.home.conditional.load(Ordering::Relaxed) && ours()?.is_none() {
            return Ok(Wrote::Lost);
        }
        let bytes = held.note.bytes();
        let put = |etag: &str| self.home.put(&key, &bytes, Condition::Match(etag));
        let etag = match put(&held.etag) {
            Err(error) if matches!(error.status(), Some(404 | 412)) => match ours()? {
                Some(found) => put(&found.etag)?,
                None => return Ok(Wrote::Lost),
            },
            other => other?,
        };
        held.etag = etag;
        Ok(Wrote::Done)
    }
}

impl Held for Lease {
    fn tend(&self) -> Result<()> {
        let Some(mut held) = self.held.try_lock().filter(|held| held.due <= Instant::now()) else {
            return Ok(());
        };
        held.due = Instant::now() + RENEW;
        match self.renew(&mut held) {
            Ok(Wrote::Done) => {
                held.failures = 0;
                held.note.renewed += 1;
            }
            Ok(Wrote::Lost) => return self.home.settle(Wrote::Lost),
            Err(error) => {
                held.due = Instant::now() + RENEW / 4;
                held.failures += 1;
                self.home.bucket.again(&error, held.failures, None, RENEW / 4);
            }
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let key = self.home.key(Lease::KEY);
        let released = self.home.bucket.head(&key).and_then(|found| match found {
            Some(found) if self.home.is_ours(&found) => self.home.bucket.delete(&key),
            _ => Ok(()),
        });
        if let Err(error) = released {
            log::warn!("{error}; the next run waits until the lease is over");
        }
    }
}

/// What earlier runs left in a bucket under the names of given partitions: only what is named like a batch's object
/// and stands directly under a partition's name.
#[derive(Clone, Debug)]
pub struct BucketLeftovers {
    bucket: Arc<Bucket>,
    namer: Namer,
    source: String,
    tries: Tries,
    /// Whether anything at all stands under `processed/` and `failed/`: mostly nothing does, and one question is
    /// enough for 100,000 names.
    any: Arc<[OnceLock<bool>; 2]>,
}

impl BucketLeftovers {
    /// What is in `bucket` of the partitions of this kind of source. Asks nobody.
    pub fn new(bucket: Arc<Bucket>, namer: Namer, source: String, tries: Tries) -> Self {
        BucketLeftovers { bucket, namer, source, tries, any: Arc::default() }
    }

    /// Bucket and prefix.
    pub fn url(&self) -> String {
        self.bucket.url(self.namer.prefix())
    }

    /// Keeps other runs from these partitions.
    pub(super) fn claim(&self, names: &[&str]) -> Result<BucketClaim> {
        let place = |name: &&str| self.namer.directory(Stream::Stored, &self.source, name);
        let places = names.iter().map(place).collect();
        BucketClaim::take(self.bucket.clone(), self.namer.prefix(), places, self.tries.clone())
    }

    pub(super) fn namer(&mut self) -> &mut Namer {
        &mut self.namer
    }

    pub(super) fn existing<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in names {
            for stream in [Stream::Stored, Stream::Failed] {
                let first = self.objects(stream, name)?.into_iter().map(|(_, key)| key).min();
                found.extend(first.map(|key| self.bucket.url(&key)));
            }
        }
        Ok(found)
    }

    pub(super) fn remove<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        names.into_iter().try_fold(0, |count, name| Ok(count + self.remove_from(name, 0)?))
    }

    pub(super) fn remove_from(&self, name: &str, watermark: u64) -> Result<u64> {
        let mut count = 0;
        for stream in [Stream::Stored, Stream::Failed] {
            for (start, key) in self.objects(stream, name)? {
                if start >= watermark {
                    self.tries.patiently(&self.bucket, || self.bucket.delete(&key))?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// Where the batches of a partition begin, and their keys.
    fn objects(&self, stream: Stream, name: &str) -> Result<Vec<(u64, String)>> {
        if !self.any(stream)? {
            return Ok(Vec::new());
        }
        let dir = format!("{}/", self.namer.directory(stream, &self.source, name));
        // Of an endpoint, each pass over it has a place of its own below that.
        let delimiter = (self.source != "http").then_some("/");
        let (mut keys, mut from) = (Vec::new(), None);
        loop {
            let page = self
                .tries
                .patiently(&self.bucket, || self.bucket.list(&dir, delimiter, PAGE, from.as_deref()))?;
            let start = |key: &str| self.start(key.strip_prefix(&dir)?);
            keys.extend(page.keys.into_iter().filter_map(|key| Some((start(&key)?, key))));
            from = page.next;
            if from.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Where a batch begins, from what stands behind the partition's directory in its key.
    fn start(&self, rest: &str) -> Option<u64> {
        let object = match rest.split_once('/') {
            Some((cycle, object)) if self.source == "http" && is_cycle(cycle) => object,
            None if self.source != "http" => rest,
            _ => return None,
        };
        self.namer.start(&self.source, object)
    }

    fn any(&self, stream: Stream) -> Result<bool> {
        let known = &self.any[stream as usize];
        if let Some(any) = known.get() {
            return Ok(*any);
        }
        let prefix = format!("{}{}/", self.namer.prefix(), top(stream));
        let listed = self.tries.patiently(&self.bucket, || self.bucket.list(&prefix, None, 1, None))?;
        Ok(*known.get_or_init(|| !listed.keys.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again() {
        let mut known = process(std::process::id());
        assert_eq!(lives(&known), Some(true));
        known.push('0');
        assert_eq!(lives(&known), Some(false), "another process has the same id");
        known = known.replacen('/', "-/", 1);
        assert_eq!(lives(&known), None, "another machine");
        assert_eq!(lives(&Note::parse(b"nonsense").process), None);
    }

    /// A run that was thought dead must not store beside the one that has taken over.
    #[cfg(feature = "http")]
    #[test]
    fn a_lease_that_another_run_has_is_lost() {
        use crate::http::script::{Answer, Asked, Server};
        use crate::s3::{Credentials, Endpoint, Keys, Options, Style};

        let lease = |head: fn() -> Answer| {
            let server = Server::new(move |asked: &Asked| match asked.method.as_str() {
                "PUT" if asked.header("if-match") == Some("\"2\"") => Answer::ok("").header("ETag", "\"3\""),
                "PUT" if asked.header("if-match").is_none() => Answer::ok("").header("ETag", "\"4\""),
                "PUT" => Answer::status(412),
                "HEAD" => head(),
                _ => Answer::status(404),
            });
            let endpoint =
                Endpoint::new(Some(server.url("").as_str()), "bucket", "us-east-1", Some(Style::Path));
            let bucket = Bucket::new(Options {
                endpoint: endpoint.unwrap(),
                credentials: Credentials::fixed(Keys {
                    access_key_id: "a".into(),
                    secret_access_key: "b".into(),
                    session_token: None,
                }),
                ca: None,
                timeout: Duration::from_secs(10),
                connections: 1,
                services: Default::default(),
            });
            let tries = Tries { policy: Policy::default(), stop: Stop::new() };
            let home = BucketHome::new(Arc::new(bucket.unwrap()), "p/".into(), tries, true);
            let held =
                Holding { note: Note::default(), etag: "\"1\"".into(), due: Instant::now(), failures: 0 };
            (server, Lease { home, held: Mutex::new(held) })
        };
        let found = || Answer::ok("").header("ETag", "\"2\"").header("x-amz-meta-pipeline-run", "other");
        let (_server, lost) = lease(found);
        let error = lost.tend().unwrap_err();
        assert!(
            matches!(error, Error::Locked { .. }) && error.to_string().contains("taken it over"),
            "{error}"
        );
        // Where there are no conditions, nothing refuses.
        let (_server, bare) = lease(found);
        bare.home.conditional.store(false, Ordering::Relaxed);
        assert!(matches!(bare.tend(), Err(Error::Locked { .. })));
        let (_server, gone) = lease(|| Answer::status(404));
        assert!(gone.tend().is_err());
        // Nobody says whose it is: that is looked at again, soon.
        let (_server, unsure) = lease(|| Answer::status(503));
        unsure.tend().unwrap();
        let held = unsure.held.lock();
        assert!((held.failures, held.etag.as_str()) == (1, "\"1\"") && held.due < Instant::now() + RENEW / 2);
        drop(held);
        // An answer was lost: it is renewed all the same.
        let (_server, mut ours) = lease(found);
        ours.home.token = "other".into();
        ours.tend().unwrap();
        let held = ours.held.lock();
        assert_eq!((held.note.renewed, held.etag.as_str()), (1, "\"3\""));
    }
}
