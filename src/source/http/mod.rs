//! The HTTP source: endpoints that are read page after page, each a partition.
//!
//! Owns which page is asked for when, putting records of pages into chunks, and what another run needs to go on; how
//! a request is sent is the client's ([`crate::http`]). `desk` is the one table of endpoints, shared by the readers
//! and the commit thread. Each reader has a thread that fetches for it (`fetch`) and hands it records by way of a
//! `lane`. `pass` reads one endpoint once, `page` one page of it (`window`: what was not scanned yet, `print`: whether
//! a page is the one before), `since` knows what is new, `resume` is what is remembered. Read them in this order.
//!
//! Decided here:
//! - The position of a record is `page << 32 | index`, both counted from 0 in each pass. A pass (*cycle*) is a
//!   partition of its own, so positions only grow; its name is the endpoint's.
//! - A chunk knows for each page that it has records of what asks for that page: that is all that is needed to go
//!   on from any record in it. The page is asked for again, and what stands before the watermark is passed over.
//!   The same happens within a run when a page breaks off.
//! - The end of a page is no reason to wait: the next one is asked for while the pool works, and no record waits
//!   for it. A page is never asked for before the one before it was read: that says whether there is another one.
//!   The commit of a pass is waited for before the next one begins, since that asks for what comes behind this one.
//! - A page that is damaged where it cannot be told what follows is asked for twice more; then its rest is one rejected
//!   record. What leads on must be known, or the endpoint has failed.

mod desk;
mod fetch;
mod lane;
mod page;
mod pass;
mod print;
mod resume;
mod since;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use url::Url;

use crate::config::Format;
use crate::config::http::Pagination;
use crate::error::{Error, Result, Retry};
use crate::http::Client;
use crate::record::{Chunk, Partition};
use crate::retry::Policy;
use crate::source::{Flow, Mark, Marks, Read, Reader, Source, Start, Task};
use crate::stop::Stop;
use crate::transform::pointer::Pointer;

use desk::Desk;
use fetch::Fetcher;
use lane::Lane;
pub use resume::Resume;

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
    /// Lanes that nobody fetches for yet.
    lanes: Mutex<Vec<Arc<Lane>>>,
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
        Ok(HttpSource { shared, memory, lanes: Mutex::default() })
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
        let lanes: Vec<Arc<Lane>> = (0..readers).map(|_| Arc::new(Lane::new(start.stop.clone()))).collect();
        let reader = |lane: &Arc<Lane>| -> Box<dyn Reader> {
            Box::new(HttpReader { lane: lane.clone(), stop: start.stop.clone() })
        };
        let readers = lanes.iter().map(reader).collect();
        *self.lanes.lock() = lanes;
        Ok(readers)
    }

    fn tasks(&self) -> Vec<Task<'_>> {
        let task = |(index, lane)| {
            let fetcher = Fetcher::new(self.shared.clone(), lane);
            Task { name: format!("fetch-{index}"), run: Box::new(move |_| fetcher.run()) }
        };
        self.lanes.lock().drain(..).enumerate().map(task).collect()
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

/// The engine's side of a lane.
struct HttpReader {
    lane: Arc<Lane>,
    stop: Stop,
}

impl Reader for HttpReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if !self.stop.is_running() {
            return Ok(Read::Done);
        }
        self.lane.lend(chunk)
    }

    fn pause(&mut self, partition: &Partition, flow: Flow) {
        self.lane.pause(partition, flow);
    }
}

impl Drop for HttpReader {
    fn drop(&mut self) {
        self.lane.close();
    }
}

/// An error of a source that is told wrong things by its server or its state.
fn odd(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::other(what, Retry::Permanent, why.into())
}
