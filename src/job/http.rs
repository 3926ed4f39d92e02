//! Jobs that read HTTP endpoints: the client, what earlier runs did of them, and the source made of both.
//!
//! The state beside the output remembers which page comes next; for objects, where their batches end before they are
//! published. A run that came to its end is followed by the next pass, one that did not is gone on with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::memory::output_of;
use super::report::Extent;
use super::{Done, Job, Parts};
use crate::config::Config;
use crate::config::http::{Auth, Http, Method, name};
use crate::config::secret::{Lookup, Secret};
use crate::error::{Error, Result};
use crate::http::{Bounds, Client, Hosts, Login, Options, Pace, Tls, Verify};
use crate::metrics::Services;
use crate::read::now;
use crate::record::{Identity, Partition};
use crate::sink::key::Namer;
use crate::source::http::{HttpOptions, HttpSource, Resume};
use crate::source::{Cuts, Forget, Marks, Same};
use crate::state::{Claims, Fresh, Home, Identify, Leftovers, Outcome, State, StateOptions};
use crate::stop::Stop;
use crate::transform::pointer::Pointer;

/// The largest zstd window that needs no larger `memory_limit`.
const WINDOW: u64 = 8 << 20;

/// The endpoints of a configuration that belong to this job, with their names.
///
/// # Errors
/// [`Error::Usage`] if one is no URL.
pub fn endpoints(config: &Config) -> Result<Vec<(String, Url)>> {
    let parsed = config.http.urls.iter().map(|text| {
        let name = name(text).map_err(|why| Error::Usage(format!("http.urls: {why}")))?;
        let url = Url::parse(text).map_err(|error| Error::Usage(format!("http.urls: {name}: {error}")))?;
        Ok((name, url))
    });
    let all = parsed.collect::<Result<Vec<_>>>()?;
    Ok(match config.processing.shard {
        Some((index, count)) => all.into_iter().skip(index as usize).step_by(count as usize).collect(),
        None => all,
    })
}

/// The client of a configuration. Asks nobody; reads certificates and secrets.
///
/// # Errors
/// [`crate::http::Error::Config`] if one of them cannot be used.
pub fn client(config: &Config, stop: &Stop, services: &Services) -> crate::http::Result<Client> {
    let http = &config.http;
    let urls = http.urls.iter().chain(&http.auth.token_url);
    let encrypted = urls.into_iter().any(|url| url.to_ascii_lowercase().starts_with("https:"));
    let tls = Tls {
        ca: http.tls.ca.clone(),
        cert: http.tls.cert.clone(),
        key: http.tls.key.clone(),
        verify: if http.tls.verify { Verify::Host } else { Verify::Nothing },
    };
    let options = Options {
        body: (http.method == Method::Post).then(|| http.body.clone().unwrap_or_default()),
        headers: http.headers.clone(),
        login: login(&http.auth)?,
        hosts: Hosts::new(http.allow_hosts.iter().cloned()),
        tls: (encrypted || !http.allow_hosts.is_empty()).then_some(tls),
        rate_limit: http.rate_limit,
        timeout: config.processing.timeout,
        bounds: Bounds {
            length: http.max_body_bytes,
            window: WINDOW.max(config.processing.memory_limit as u64 / 8),
            pace: Pace::default(),
        },
    };
    Client::new(options, stop, services)
}

fn login(auth: &Auth) -> crate::http::Result<Login> {
    let wrong = |why: String| crate::http::Error::Config(format!("http.auth: {why}"));
    let load = |secret: &Option<Secret>| {
        let secret = secret.as_ref().ok_or_else(|| wrong("a secret is not set".into()))?;
        secret.load(&Lookup::process()).map_err(wrong)
    };
    Ok(match auth {
        Auth { bearer: bearer @ Some(_), .. } => Login::Bearer(load(bearer)?),
        Auth { username: Some(username), password, .. } => {
            Login::Basic { username: username.clone(), password: load(password)? }
        }
        Auth { header: Some(header), value, .. } => {
            Login::Key { header: header.clone(), value: load(value)? }
        }
        Auth { token_url: Some(url), client_id, client_secret, scope, .. } => Login::OAuth {
            token_url: Url::parse(url).map_err(|error| wrong(format!("token_url: {error}")))?,
            client_id: client_id.clone().unwrap_or_default(),
            client_secret: load(client_secret)?,
            scope: scope.clone(),
        },
        _ => Login::None,
    })
}

impl Job<'_> {
    /// Endpoints in.
    pub(super) fn run_http(&self) -> Result<Done> {
        let endpoints = endpoints(self.config)?;
        let namer = self.config.namer();
        let names: Vec<String> = endpoints.iter().map(|(name, _)| name.clone()).collect();
        if let Some((one, other)) = namer.clash("http", names.iter().map(String::as_str)) {
            return Err(Error::Usage(format!("endpoints {one} and {other} would be stored under one name")));
        }
        if let Some(why) = names.iter().find_map(|name| self.too_long(name)) {
            return Err(Error::Usage(why));
        }
        let client = client(self.config, self.stop, &self.metrics.services)?;
        // What its source needs is the same whatever earlier runs did.
        let options = self.http_options(endpoints.clone(), &Past::default())?;
        self.check_memory(&HttpSource::new(client.clone(), options, Arc::new(Forget))?)?;
        let sink = self.sink(&namer)?;
        let past = self.past(&namer, &endpoints)?;
        let options = self.http_options(endpoints, &past)?;
        let memory: Arc<dyn Marks> = match &past.state {
            Some(state) => state.clone(),
            None => Arc::new(Forget),
        };
        let source = HttpSource::new(client, options, memory)?;
        let processed_by =
            past.state.as_ref().map_or_else(|| self.processed_by(), |state| state.processed_by());
        let recipe = self.recipe(processed_by, &sink.shape())?;
        let (marks, consumed) = (None, source.consumed());
        let done = self.engine(&Parts {
            source: &source,
            recipe: &recipe,
            sink: &*sink,
            marks,
            consumed,
            skipped: Arc::default(),
            paged: true,
            extent: Extent::Open,
            rejected: past.rejected,
            tend: &|| past.tend(),
        });
        Ok(if self.config.http.poll.is_some() { done.endless() } else { done })
    }

    /// What is too long about the names of an endpoint's batches for where they go, whichever pass it is.
    fn too_long(&self, name: &str) -> Option<String> {
        let (name, cycle) = (name.to_owned(), Some(u64::MAX));
        self.config.too_long(&Partition::new(Identity { source: "http", name, cycle, ..Identity::default() }))
    }

    fn http_options(&self, endpoints: Vec<(String, Url)>, past: &Past) -> Result<HttpOptions> {
        let Config { processing, input, http, .. } = self.config;
        let pointer = |text: &Option<String>| text.as_deref().map(Pointer::new).transpose();
        Ok(HttpOptions {
            endpoints,
            query: http.query.clone(),
            pagination: http.pagination.clone(),
            records: pointer(&http.records)?.filter(|pointer| !pointer.steps().is_empty()),
            id: pointer(&http.id)?,
            since: pointer(&http.since)?.zip(http.since_param()),
            format: input.format,
            max_record_bytes: input.max_record_bytes,
            poll: http.poll,
            limit: processing.limit,
            retry: processing.retry,
            now: past.started_at,
            unfinished: past.unfinished,
        })
    }

    /// What earlier runs did of these endpoints. The run's beginning is durable on return, and what a fresh run
    /// replaces is gone.
    fn past(&self, namer: &Namer, endpoints: &[(String, Url)]) -> Result<Past> {
        let names: Vec<String> = endpoints.iter().map(|(name, _)| name.clone()).collect();
        let names = &names;
        let leftovers = self.leftovers(namer, "http")?;
        let (fresh, now) = (self.config.processing.fresh, now());
        let all = || names.iter().map(String::as_str);
        let Some(home) = self.state_home()?.filter(|_| !names.is_empty()) else {
            let claims = take_stateless(leftovers.as_ref(), names, fresh)?;
            return Ok(Past { started_at: now, claims, ..Past::default() });
        };
        let queries = Arc::new(Queries::new(&self.config.http, endpoints));
        let state = State::open(self.state_options(home, leftovers, queries.clone(), now)?)?;
        queries.finished.store(state.is_finished(), Ordering::Relaxed);
        let outcome = state.outcome(all())?;
        let (again, unfinished) = self.passes(&state, names, fresh, now)?;
        state.begin_again(all(), &outcome, &again)?;
        let rejected = match &outcome {
            Outcome::Resume(resume) => {
                if resume.open > 0 {
                    let (open, new) = (resume.open, resume.new);
                    log::info!("going on where the last run stopped: {open} endpoints begun, {new} new");
                }
                resume.rejected
            }
            Outcome::NothingToDo { rejected } if unfinished => *rejected,
            Outcome::NothingToDo { .. } | Outcome::Begin => 0,
        };
        let started_at = state.started_at();
        Ok(Past { started_at, state: Some(Arc::new(state)), unfinished, rejected, claims: Claims::default() })
    }

    fn state_options(
        &self,
        home: Arc<dyn Home>,
        leftovers: Option<Leftovers>,
        queries: Arc<Queries>,
        now: i64,
    ) -> Result<StateOptions> {
        Ok(StateOptions {
            output: output_of(&*home, leftovers.as_ref(), &self.place())?,
            home,
            settings: self.http_settings().into_iter().collect(),
            source: "http",
            processed_by: self.processed_by(),
            now_ms: now,
            fresh: if self.config.processing.fresh { Fresh::Yes } else { Fresh::No },
            identify: queries,
            cuts: Cuts::Early,
            leftovers,
        })
    }

    /// Whether earlier runs left anything that this one could go on with. Only looks.
    ///
    /// # Errors
    /// If it could not go on with what is there.
    pub(super) fn look_at_endpoints(&self) -> Result<bool> {
        let Some(home) = self.state_home()? else { return Ok(false) };
        // Who asks what the output is called makes its directory.
        if home.read()?.is_none() {
            return Ok(false);
        }
        let leftovers = self.leftovers(&self.config.namer(), "http")?;
        let queries = Arc::new(Queries::new(&self.config.http, &endpoints(self.config)?));
        State::look(&self.state_options(home, leftovers, queries, now())?)
    }

    /// The endpoints that begin another pass now, and whether those that are at their end are left alone.
    fn passes(&self, state: &State, names: &[String], fresh: bool, now: i64) -> Result<(Passes, bool)> {
        let unfinished = !state.is_finished();
        let mut again = Vec::new();
        if fresh || unfinished || self.config.http.poll.is_some() {
            return Ok((again, unfinished));
        }
        for name in names {
            let Some(mark) = state.load(name)?.filter(|mark| mark.ended) else { continue };
            let last = mark.resume.as_deref().map(Resume::parse).transpose()?;
            if let Some(last) = last {
                again.push((name.clone(), last.next(now, &self.config.http.pagination).bytes()));
            }
        }
        Ok((again, unfinished))
    }

    /// Everything that decides which records there are and where batches end, for the state.
    fn http_settings(&self) -> Vec<(String, String)> {
        let http = &self.config.http;
        let Http { records, id, since, method, pagination, .. } = http;
        let shown = |pointer: &Option<String>| pointer.clone().unwrap_or_else(|| "none".into());
        let own = [
            ("records", shown(records)),
            ("id", shown(id)),
            ("since", shown(since)),
            ("method", format!("{method:?}")),
            ("pagination", pagination.style.name().to_owned()),
            ("first_page", pagination.first_page.to_string()),
            ("page_size", pagination.page_size.map_or_else(|| "none".into(), |size| size.to_string())),
        ];
        let settings = self.settings_text().into_iter().chain(own);
        settings.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What begins another pass: an endpoint, and what its source needs for it.
type Passes = Vec<(String, Arc<[u8]>)>;

/// What earlier runs did.
#[derive(Default)]
struct Past {
    state: Option<Arc<State>>,
    started_at: i64,
    unfinished: bool,
    /// Records that the interrupted run rejected.
    rejected: u64,
    /// Keeps endpoints of which nothing is remembered from other runs.
    claims: Claims,
}

impl Past {
    /// Keeps the lock of the state, and what is claimed.
    ///
    /// # Errors
    /// If another run has it.
    fn tend(&self) -> Result<()> {
        self.state.as_ref().map_or(Ok(()), |state| state.tend())?;
        self.claims.tend()
    }
}

/// Endpoints of which nothing is remembered: no other run stores them, and their objects are not there, or deleted.
fn take_stateless(leftovers: Option<&Leftovers>, names: &[String], fresh: bool) -> Result<Claims> {
    let Some(leftovers) = leftovers else { return Ok(Claims::default()) };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let claims = leftovers.take(&names, fresh)?;
    if fresh {
        claims.remove(leftovers, names)?;
    }
    Ok(claims)
}

/// What each endpoint is asked with: another query gives other pages. Only a hash of it is kept, since it may hold what
/// is secret.
struct Queries {
    hashes: HashMap<String, String>,
    /// Whether the last run came to its end: then another pass begins, with whatever query.
    finished: AtomicBool,
}

impl Queries {
    fn new(http: &Http, endpoints: &[(String, Url)]) -> Self {
        let hash = |url: &Url| {
            let asked = format!("{:?} {:?} {:?}", url.as_str(), http.query, http.body);
            let hash = Sha256::digest(asked.as_bytes());
            hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let hashes = endpoints.iter().map(|(name, url)| (name.clone(), hash(url))).collect();
        Queries { hashes, finished: AtomicBool::new(false) }
    }
}

impl Identify for Queries {
    fn identify(&self, partition: &str, _watermark: u64) -> Result<Option<Value>> {
        Ok(self.hashes.get(partition).map(|hash| Value::from(hash.as_str())))
    }

    fn compare(&self, partition: &str, _watermark: u64, old: &Value) -> Result<Same> {
        let now = self.hashes.get(partition).map(String::as_str);
        let same = self.finished.load(Ordering::Relaxed) || now.is_none() || old.as_str() == now;
        Ok(match same {
            true => Same::Unchanged,
            false => Same::Changed {
                what: format!(
                    "{partition} is asked with another query or body than the run that was not finished"
                ),
            },
        })
    }
}
