//! A state, claims and leftovers in a bucket that knows conditions and lists by pages of two keys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::bucket::process;
use super::super::claim::BucketClaim;
use super::*;
use crate::http::script::{Answer, Asked, Server};
use crate::retry::Policy;
use crate::s3::{Bucket, Credentials, Endpoint, Keys, Options, Style};
use crate::stop::Stop;

/// What is in the bucket: version, run and bytes.
#[derive(Default)]
struct Objects {
    all: BTreeMap<String, (u64, String, String)>,
    versions: u64,
    /// Of every object.
    old: bool,
    no_conditions: bool,
    /// How many writes are stored of which nobody hears.
    unheard: u32,
    /// What happens once, behind the next answer to this method.
    then: Option<(&'static str, Then)>,
}

impl Objects {
    fn put(&mut self, key: &str, run: &str, bytes: &str) -> u64 {
        self.versions += 1;
        self.all.insert(key.into(), (self.versions, run.into(), bytes.into()));
        self.versions
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        let answer = self.answered(asked);
        if let Some((_, then)) = self.then.take_if(|(method, _)| *method == asked.method) {
            then(self, asked.path().trim_start_matches("/bucket/"));
        }
        answer
    }

    fn answered(&mut self, asked: &Asked) -> Answer {
        let key = asked.path().trim_start_matches("/bucket").trim_start_matches('/').to_owned();
        if key.is_empty() {
            return self.list(asked);
        }
        let tag = |version: u64| format!("\"{version}\"");
        let found = self.all.get(&key).cloned();
        match (asked.method.as_str(), found) {
            ("PUT", found) => {
                let (absent, version) = (asked.header("if-none-match"), asked.header("if-match"));
                if self.no_conditions && (absent.is_some() || version.is_some()) {
                    return Answer::status(501);
                }
                match (version, &found) {
                    (Some(_), None) => return Answer::status(404),
                    (Some(wanted), Some(found)) if wanted != tag(found.0) => return Answer::status(412),
                    (None, Some(_)) if absent.is_some() => return Answer::status(412),
                    _ => {}
                }
                let run = asked.header("x-amz-meta-pipeline-run").unwrap_or_default().to_owned();
                let version = self.put(&key, &run, &asked.body);
                if self.unheard > 0 {
                    self.unheard -= 1;
                    return Answer::status(503);
                }
                Answer::ok("").header("ETag", tag(version))
            }
            ("DELETE", _) => {
                self.all.remove(&key);
                Answer::status(204)
            }
            (_, None) => Answer::status(404),
            (method, Some((version, run, bytes))) => {
                let now = if self.old { "00:01:01" } else { "00:00:00" };
                Answer::ok(if method == "HEAD" { String::new() } else { bytes })
                    .header("ETag", tag(version))
                    .header("x-amz-meta-pipeline-run", run)
                    .header("Date", format!("Thu, 01 Jan 2026 {now} GMT"))
                    .header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            }
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let (prefix, from) = (asked.param("prefix").unwrap(), asked.param("continuation-token"));
        let deeper = |key: &str| asked.param("delimiter").is_some() && key[prefix.len()..].contains('/');
        let keys = self.all.keys().filter(|key| key.starts_with(&prefix) && !deeper(key));
        let mut keys = keys.filter(|key| from.as_ref().is_none_or(|from| *key > from));
        let page: Vec<&String> = keys.by_ref().take(2).collect();
        let contents: String =
            page.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
        let next = keys.next().map_or(String::new(), |_| {
            let last = page[1];
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
        });
        Answer::ok(format!("<ListBucketResult>{contents}{next}</ListBucketResult>"))
    }
}

type Then = fn(&mut Objects, &str);

struct Store {
    server: Server,
    objects: Arc<Mutex<Objects>>,
    bucket: Arc<Bucket>,
}

impl Store {
    fn new() -> Self {
        let objects = Arc::<Mutex<Objects>>::default();
        let shared = objects.clone();
        let server = Server::new(move |asked| shared.lock().answer(asked));
        let url = server.url("");
        let endpoint = Endpoint::new(Some(url.as_str()), "bucket", "us-east-1", Some(Style::Path));
        let keys = Keys { access_key_id: "a".into(), secret_access_key: "b".into(), session_token: None };
        let bucket = Bucket::new(Options {
            endpoint: endpoint.unwrap(),
            credentials: Credentials::fixed(keys),
            ca: None,
            timeout: Duration::from_secs(10),
            connections: 1,
            services: Default::default(),
        });
        Store { server, objects, bucket: Arc::new(bucket.unwrap()) }
    }

    fn tries() -> Tries {
        let delay = Duration::from_millis(1);
        Tries { policy: Policy { max_retries: 3, delay, max_delay: delay }, stop: Stop::new() }
    }

    fn home(&self) -> BucketHome {
        BucketHome::new(self.bucket.clone(), "p/.pipeline/".into(), Self::tries(), true)
    }

    fn put(&self, key: &str, run: &str, bytes: &str) {
        self.objects.lock().put(key, run, bytes);
    }

    fn keys(&self) -> Vec<String> {
        self.objects.lock().all.keys().cloned().collect()
    }

    fn leftovers(&self, source: &str) -> Leftovers {
        let namer = Namer::new("p/", Codec::None);
        Leftovers::Bucket(BucketLeftovers::new(self.bucket.clone(), namer, source.into(), Self::tries()))
    }

    fn claim(&self, places: &[&str]) -> Result<BucketClaim> {
        let places = places.iter().map(|place| (*place).to_owned()).collect();
        BucketClaim::take(self.bucket.clone(), "p/", places, Self::tries())
    }
}

const LOCK: &str = "p/.pipeline/lock";

fn is_locked(result: Result<impl Sized>) -> bool {
    matches!(result, Err(Error::Locked { .. }))
}

/// The lease is a courtesy: this is what keeps two runs from writing over each other.
#[test]
fn a_state_that_another_run_has_written_is_not_replaced() {
    let store = Store::new();
    let (one, other) = (store.home(), store.home());
    assert!(one.read().unwrap().is_none() && other.read().unwrap().is_none());
    one.write(b"1").unwrap();
    one.write(b"2").unwrap();
    assert!(!store.server.asked().iter().any(|asked| asked.method == "HEAD"), "it knows its version");
    assert!(is_locked(other.write(b"3")));
    assert_eq!(other.read().unwrap().unwrap(), b"2");
    other.write_patiently(b"4").unwrap();
    assert!(is_locked(one.write(b"5")) && is_locked(one.write_patiently(b"5")));
    store.objects.lock().all.clear();
    assert!(is_locked(other.write(b"6")), "somebody has removed it");
}

#[test]
fn a_write_of_which_nobody_heard_is_found_out() {
    let store = Store::new();
    let home = store.home();
    for bytes in [&b"1"[..], b"2"] {
        store.objects.lock().unheard = 1;
        home.write_patiently(bytes).unwrap();
        assert_eq!(store.home().read().unwrap().unwrap(), bytes);
    }
}

#[test]
fn a_store_without_conditions_keeps_a_state_all_the_same() {
    let store = Store::new();
    store.objects.lock().no_conditions = true;
    let home = store.home();
    home.write(b"1").unwrap();
    home.write(b"2").unwrap();
    assert_eq!(home.read().unwrap().unwrap(), b"2");
}

#[test]
fn a_lease_is_one_runs_and_goes_with_it() {
    let store = Store::new();
    let (one, other) = (store.home(), store.home());
    let held = one.lock("here").unwrap();
    let put = store.server.asked().into_iter().find(|asked| asked.method == "PUT").unwrap();
    assert_eq!(put.header("if-none-match"), Some("*"));
    let refused = other.lock("there").err().unwrap().to_string();
    assert!(refused.contains(&format!("process {} on here", std::process::id())), "{refused}");
    drop(held);
    assert!(store.keys().is_empty());
    let held = other.lock("there").unwrap();
    store.put(LOCK, "another", "{}");
    drop(held);
    assert_eq!(store.keys(), [LOCK], "it is not ours any more");
}

/// Under a condition: of two that find it over, one takes it.
#[test]
fn a_lease_that_is_over_is_taken_over() {
    let known = process(std::process::id());
    for (process, old) in [("elsewhere 7 1".to_owned(), true), (known.clone(), true), (known + "0", false)] {
        let store = Store::new();
        store.objects.lock().old = old;
        store.put(LOCK, "another", &format!("{{\"process\":{process:?}}}"));
        let held = store.home().lock("here").unwrap();
        let put = store.server.asked().into_iter().find(|asked| asked.method == "PUT").unwrap();
        assert_eq!(put.header("if-match"), Some("\"1\""));
        drop(held);
        assert!(store.keys().is_empty());
    }
}

/// Two keys come at a time, so that all but the first are on a further page.
#[test]
fn leftovers_are_found_on_every_page_and_only_where_batches_stand() {
    let store = Store::new();
    assert!(store.leftovers("file").existing(["a"]).unwrap().is_empty());
    let object = |top: &str, dir: &str, start: u64| format!("p/{top}/{dir}/{start:020}.ndjson");
    let mut gone: Vec<String> = (40..45).map(|start| object("processed", "a", start)).collect();
    gone.push(object("failed", "a", 40));
    let before = [object("failed", "a", 39), object("processed", "a", 39)];
    let kept = [
        object("processed", "a/0", 40),
        object("processed", "a/deeper", 41),
        object("processed", "ab", 42),
        "p/processed/a/notes.txt".to_owned(),
    ];
    gone.iter().chain(&before).chain(&kept).for_each(|key| store.put(key, "", "x"));
    let leftovers = store.leftovers("file");
    let first = [&before[1], &before[0]].map(|key| store.bucket.url(key));
    assert_eq!(leftovers.existing(["a"]).unwrap(), first);
    assert_eq!(leftovers.remove_from("a", 40).unwrap(), 6);
    let sorted = |keys: &[&[String]]| {
        let mut keys = keys.concat();
        keys.sort_unstable();
        keys
    };
    assert_eq!(store.keys(), sorted(&[&before, &kept]));
    assert_eq!(leftovers.remove(["a"]).unwrap(), 2);
    assert_eq!(store.keys(), sorted(&[&kept]));
    // Of an endpoint, that is a pass.
    store.put(&before[0], "", "x");
    let passes = store.leftovers("http");
    assert_eq!(passes.existing(["a"]).unwrap(), [store.bucket.url(&kept[0])]);
    assert_eq!(passes.remove(["a"]).unwrap(), 1);
    assert_eq!(store.keys(), sorted(&[&before[..1], &kept[1..]]));
}

#[test]
fn a_claim_yields_to_one_that_is_held() {
    let store = Store::new();
    let _one = store.claim(&["z", "b", "y", "a"]).unwrap();
    let _more = ["c", "d", "e", "f"].map(|place| store.claim(&[place]).unwrap());
    assert_eq!(store.server.asked()[0].method, "PUT", "of two that look at once, one sees the other");
    for place in ["a", "b", "c", "d", "e", "f", "y", "z"] {
        assert!(is_locked(store.claim(&["x", place, "0"])), "{place}");
    }
    assert_eq!(store.keys().len(), 5, "who yields takes its claim with it");
    drop(store.claim(&["x"]).unwrap());
    assert_eq!(store.keys().len(), 5);
    store.objects.lock().old = true;
    let _other = store.claim(&["a", "c"]).unwrap();
    assert_eq!(store.keys().len(), 1, "those that are over say nothing");
}

#[test]
fn a_claim_of_a_process_that_is_gone_says_nothing() {
    let store = Store::new();
    let (key, gone) = ("p/.pipeline/claims/0", process(std::process::id()) + "0");
    for (process, holds) in [(gone, false), ("elsewhere 7 1".to_owned(), true)] {
        store.put(key, "", &format!("{{\"process\":{process:?},\"places\":[\"a\"]}}"));
        assert_eq!(is_locked(store.claim(&["a"])), holds);
        assert_eq!(store.keys().contains(&key.to_owned()), holds);
    }
}

/// One that another run deleted meanwhile is nobody's.
#[test]
fn a_lease_that_goes_while_it_is_taken_over_is_taken() {
    let store = Store::new();
    store.objects.lock().old = true;
    store.objects.lock().then = Some(("GET", |objects, key| drop(objects.all.remove(key))));
    store.put(LOCK, "another", "{}");
    let _held = store.home().lock("here").unwrap();
    assert_eq!(store.keys(), [LOCK]);
}

#[test]
fn a_claim_is_renewed_while_it_is_there() {
    let store = Store::new();
    let bucket = store.claim(&["a"]).unwrap();
    let claims = Claims { bucket: Some(bucket), ..Claims::default() };
    let tend = || {
        claims.bucket.as_ref().unwrap().make_due();
        claims.tend()
    };
    for no_conditions in [false, true] {
        store.objects.lock().no_conditions = no_conditions;
        let before = store.objects.lock().versions;
        tend().unwrap();
        claims.tend().unwrap();
        assert_eq!(store.objects.lock().versions, before + 1, "when it is due");
    }
    store.objects.lock().no_conditions = false;
    store.objects.lock().then = Some(("HEAD", |objects, key| _ = objects.put(key, "", "another")));
    assert!(is_locked(tend()), "somebody else wrote it");
}

/// What the run that has taken over has stored must not be deleted.
#[test]
fn nothing_is_deleted_once_a_claim_is_lost() {
    let store = Store::new();
    let bucket = store.claim(&["a"]).unwrap();
    let claims = Claims { bucket: Some(bucket), ..Claims::default() };
    store.objects.lock().all.clear();
    let key = "p/processed/a/00000000000000000000.ndjson";
    store.put(key, "", "x");
    claims.bucket.as_ref().unwrap().make_due();
    assert!(is_locked(claims.remove(&store.leftovers("file"), ["a"])));
    assert_eq!(store.keys(), [key]);
    claims.bucket.as_ref().unwrap().make_due();
    assert!(is_locked(claims.tend()));
}
