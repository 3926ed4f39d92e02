//! The HTTP source: endpoints that are read page after page, each a partition.
//!
//! Owns which page is asked for when, putting records of pages into chunks, and what another run needs to go on; how
//! a request is sent is the client's ([`crate::http`]). `desk` is the one table of endpoints, shared by the readers
//! and the commit thread. `pass` reads one endpoint once, `page` one page of it, `since` knows what is new, `resume`
//! is what is remembered. Read them in this order.
//!
//! Decided here:
//! - The position of a record is `page << 32 | index`, both counted from 0 in each pass. A pass (*cycle*) is a partition
//!   of its own, so positions only grow; its name is the endpoint's.
//! - A chunk holds records of one page alone, so what asks for that page is all that is needed to go on from any record
//!   in it: the page is asked for again, and what stands before the watermark is passed over. The same happens within a
//!   run when a page breaks off.
//! - The end of a page is no reason to wait: the reader asks for the next one while the pool works. It waits for the
//!   commit of a pass before it begins the next one, since that asks for what comes behind this one.
//! - A page that is damaged where it cannot be told what follows is asked for twice more; then its rest is one rejected
//!   record. What leads on must be known, or the endpoint has failed.

mod desk;
mod page;
mod pass;
mod resume;
mod since;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use url::Url;

use crate::config::Format;
use crate::config::http::Pagination;
use crate::error::{Error, Result, Retry};
use crate::http::Client;
use crate::record::{Chunk, Partition};
use crate::retry::Policy;
use crate::source::{Flow, Mark, Marks, Read, Reader, Source, Start};
use crate::stop::Stop;
use crate::transform::pointer::Pointer;

use desk::{Desk, Turn};
use pass::{Pass, Step};
pub use resume::Resume;

/// How long one `read` waits where there is nothing to do.
const WAIT: Duration = Duration::from_millis(100);
/// So many endpoints are read side by side, on however few processors.
const SIDE_BY_SIDE: usize = 8;
/// What a reader holds outside of chunks: buffers of the connection, of the body, and what was not yet scanned.
const BUFFERS: usize = 512 << 10;

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The endpoints: what they are called, and where they are.
    pub endpoints: Vec<(String, Url)>,
    /// Parameters of every first page.
    pub query: Vec<(String, String)>,
    /// What leads from page to page.
    pub pagination: Pagination,
    /// Where the array of records stands in a page; `None`: the page is the records.
    pub records: Option<Pointer>,
    /// Where a record's own identity stands in it.
    pub id: Option<Pointer>,
    /// What grows from change to change of a record, and the parameter that carries its highest value.
    pub since: Option<(Pointer, String)>,
    /// What is in a page that is the records.
    pub format: Format,
    /// The longest record.
    pub max_record_bytes: u64,
    /// How long after the beginning of a pass the next one begins; `None`: there is one pass.
    pub poll: Option<Duration>,
    /// Stop after so many records.
    pub limit: Option<u64>,
    /// How often a page is asked for.
    pub retry: Policy,
    /// When the run began, in milliseconds since the epoch.
    pub now: i64,
    /// Whether endpoints that were read to their end are left alone: the last run did not come to its own.
    pub unfinished: bool,
}

/// Reads endpoints.
pub struct HttpSource {
    shared: Arc<Shared>,
    memory: Arc<dyn Marks>,
}

/// What readers share.
struct Shared {
    client: Client,
    options: HttpOptions,
    desk: Desk,
    /// Bytes of pages that came so far, packed.
    consumed: Arc<AtomicU64>,
}

impl HttpSource {
    /// A source that asks nobody yet. `memory` remembers how far endpoints are read.
    ///
    /// # Errors
    /// [`Error::Usage`] if the options cannot be.
    pub fn new(client: Client, options: HttpOptions, memory: Arc<dyn Marks>) -> Result<Self> {
        if options.max_record_bytes > 1 << 30 {
            let longest = options.max_record_bytes;
            return Err(Error::Usage(format!("max_record_bytes is {longest}; at most 1GiB is possible")));
        }
        let mut names = HashSet::new();
        if let Some((name, _)) = options.endpoints.iter().find(|(name, _)| !names.insert(name)) {
            return Err(Error::Usage(format!("two endpoints are called {name}")));
        }
        let desk = Desk::default();
        let shared = Arc::new(Shared { client, options, desk, consumed: Arc::default() });
        Ok(HttpSource { shared, memory })
    }

    /// Bytes of pages that came so far: of packed ones, the packed bytes.
    pub fn consumed(&self) -> Arc<AtomicU64> {
        self.shared.consumed.clone()
    }
}

impl Source for HttpSource {
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let options = &self.shared.options;
        let begin = |(name, _): &(String, Url)| {
            let mark = self.memory.load(name)?;
            resume::begin(mark, options)
        };
        let seats = options.endpoints.iter().map(begin).collect::<Result<Vec<_>>>()?;
        self.shared.desk.open(seats);
        let readers = match options.limit {
            Some(_) => 1,
            None => start.readers.clamp(1, options.endpoints.len().max(1)),
        };
        let reader = |_| -> Box<dyn Reader> {
            Box::new(HttpReader {
                shared: self.shared.clone(),
                stop: start.stop.clone(),
                left: options.limit,
                pass: None,
                resting: Vec::new(),
                paused: HashSet::new(),
            })
        };
        Ok((0..readers).map(reader).collect())
    }

    /// One that waits for its server, or was asked to leave it alone, must not keep the others waiting.
    fn readers(&self, workers: usize) -> usize {
        workers.max(self.shared.options.endpoints.len().min(SIDE_BY_SIDE))
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        Some(Arc::new(PassMarks { shared: self.shared.clone(), memory: self.memory.clone() }))
    }

    fn buffers(&self) -> usize {
        self.shared.options.endpoints.len().clamp(1, SIDE_BY_SIDE) * BUFFERS
    }
}

/// Remembers, and tells the desk which passes are committed.
struct PassMarks {
    shared: Arc<Shared>,
    memory: Arc<dyn Marks>,
}

impl Marks for PassMarks {
    fn load(&self, partition: &str) -> Result<Option<Mark>> {
        self.memory.load(partition)
    }

    fn store(&self, marks: &mut [Mark], refused: &mut Vec<Partition>) -> Result<()> {
        self.memory.store(marks, refused)?;
        marks.iter().filter(|mark| mark.ended).for_each(|mark| self.shared.desk.committed(&mark.partition));
        Ok(())
    }

    fn service(&self) -> &'static str {
        self.memory.service()
    }

    fn plans(&self) -> bool {
        self.memory.plans()
    }

    fn finished(&self) -> Result<()> {
        self.memory.finished()
    }
}

/// Reads endpoints one after another, each for a pass.
struct HttpReader {
    shared: Arc<Shared>,
    stop: Stop,
    left: Option<u64>,
    pass: Option<Box<Pass>>,
    /// Passes whose server has failed for now: they go on later, with this reader, so that their chunks stay in order.
    resting: Vec<(Instant, Box<Pass>)>,
    paused: HashSet<Partition>,
}

impl Reader for HttpReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if !self.stop.is_running() {
            return Ok(Read::Done);
        }
        let Some(pass) = &mut self.pass else { return Ok(self.take()) };
        if self.paused.contains(pass.partition()) {
            return Ok(self.idle());
        }
        let step = pass.read(chunk, &self.shared, &mut self.left);
        let partition = pass.partition().clone();
        Ok(match step {
            Step::Chunk => Read::Chunk,
            Step::Idle => Read::Idle,
            Step::Ended => {
                if let Some(pass) = self.pass.take() {
                    self.shared.desk.ended(pass.endpoint(), &pass.last(), &self.shared.options);
                }
                Read::Ended(partition)
            }
            Step::Failed(error) => return self.failed(partition, error),
        })
    }

    fn pause(&mut self, partition: &Partition, flow: Flow) {
        match flow {
            Flow::Pause => self.paused.insert(partition.clone()),
            Flow::Run => self.paused.remove(partition),
        };
    }
}

impl HttpReader {
    /// Takes the next endpoint whose time has come.
    fn take(&mut self) -> Read {
        if self.left == Some(0) {
            return Read::Done;
        }
        let now = Instant::now();
        if let Some(at) = self.resting.iter().position(|(due, _)| *due <= now) {
            self.pass = Some(self.resting.remove(at).1);
            return Read::Idle;
        }
        match self.shared.desk.take(now) {
            Turn::Take(endpoint, begin) => {
                let pass = Pass::new(endpoint, &begin, &self.shared.options);
                let partition = pass.partition().clone();
                let mark = begin.mark(&partition);
                self.pass = Some(Box::new(pass));
                Read::Assigned(partition, Some(mark))
            }
            Turn::Wait => self.idle(),
            // What is read again and again may be left by another reader.
            Turn::Done if self.shared.options.poll.is_some() => self.idle(),
            Turn::Done => Read::Done,
        }
    }

    fn idle(&self) -> Read {
        // A stop is seen by the next call.
        let _ = self.stop.sleep_running(WAIT);
        Read::Idle
    }

    /// An endpoint could not be read any further: for good, or, where it is read again and again, for now.
    fn failed(&mut self, partition: Partition, error: Error) -> Result<Read> {
        let pass = self.pass.take();
        match (self.shared.options.poll, pass) {
            (Some(poll), Some(mut pass)) if error.is_transient() => {
                log::error!("{partition}: {error}; it goes on in {} s", poll.as_secs_f64());
                pass.rest();
                self.resting.push((Instant::now() + poll, pass));
                Ok(Read::Idle)
            }
            // A run that never ends must not go on without one of its endpoints.
            (Some(_), _) => Err(error),
            (None, _) => Ok(Read::Failed(partition, error)),
        }
    }
}

/// An error of a source that is told wrong things by its server or its state.
fn odd(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::other(what, Retry::Permanent, why.into())
}
