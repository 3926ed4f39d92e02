//! One pass over one endpoint: page after page, each asked for until it came whole.

use std::sync::Arc;

use super::lane::{Lane, Over, Place};
use super::page::{Filled, Page, Taking};
use super::resume::{Begin, Resume};
use super::since::{Since, parameter};
use super::window::Window;
use super::{HttpOptions, Shared};
use crate::error::{Error, Retry};
use crate::http::pagination::{Next, Pages, Said};
use crate::http::{self, Tries};
use crate::json::Told;
use crate::record::{Identity, Partition, Room};

/// How often a page that makes no sense is asked for again, where retries are not fewer.
const AGAIN: u32 = 2;

/// A pass over an endpoint.
pub(super) struct Pass {
    endpoint: usize,
    partition: Partition,
    pages: Pages,
    /// What asks for the page under way.
    resume: Resume,
    within: Arc<[u8]>,
    /// Records of the page under way that were taken already.
    taken: u64,
    window: Window,
    since: Since,
    stage: Stage,
    tries: Tries,
    /// Whether another pass follows when this one has ended.
    polls: bool,
    damaged: u32,
}

enum Stage {
    /// The page is to be asked for.
    Ask,
    /// There is no further page; that is to be told.
    Tail,
    Over,
}

/// What came of [`Pass::read`].
pub(super) enum Step {
    /// It goes on.
    On,
    Ended,
    Failed(Error),
}

impl Pass {
    /// Will read an endpoint from there on.
    pub fn new(endpoint: usize, begin: &Begin, options: &HttpOptions) -> Self {
        let (name, url) = &options.endpoints[endpoint];
        let resume = begin.resume.clone();
        let mut query = options.query.clone();
        if let (Some((_, name)), Some(sent)) = (&options.since, &resume.sent) {
            query.push((name.clone(), parameter(sent)));
        }
        let taken = match begin.watermark >> 32 {
            page if page == resume.page => begin.watermark & u64::from(u32::MAX),
            _ => 0,
        };
        let mut pass = Pass {
            endpoint,
            partition: partition(name, &resume),
            pages: Pages::new(options.pagination.clone(), url, &query),
            within: resume.bytes(),
            taken,
            window: Window::default(),
            since: Since::new(options.since.as_ref().map(|(pointer, _)| pointer), resume.seen.clone()),
            stage: Stage::Ask,
            tries: Tries::new(options.retry),
            polls: options.poll.is_some(),
            damaged: 0,
            resume,
        };
        if begin.watermark >> 32 > pass.resume.page {
            // It was read to its end, and only that was not remembered.
            pass.stage = Stage::Tail;
        }
        pass
    }

    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// What is remembered of the pass at its end.
    pub fn last(&self) -> Resume {
        self.resume.clone()
    }

    /// Its server has failed for now: what was tried does not count any more.
    pub fn rest(&mut self) {
        self.stage = Stage::Ask;
        self.tries.reset();
        self.damaged = 0;
    }

    /// Goes on reading: at most one page. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`Over`].
    pub fn read(&mut self, shared: &Shared, lane: &Lane, left: &mut Option<u64>) -> Result<Step, Over> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Ask => self.page(shared, lane, left),
            Stage::Tail => self.tail(lane),
            Stage::Over => Ok(Step::Ended),
        }
    }

    /// Asks for the page, and reads it.
    fn page(&mut self, shared: &Shared, lane: &Lane, left: &mut Option<u64>) -> Result<Step, Over> {
        let home = &shared.options.endpoints[self.endpoint].1;
        self.stage = Stage::Ask;
        let url = match self.pages.url(&self.resume.at) {
            Ok(url) => url,
            Err(why) => return Ok(Step::Failed(self.odd(shared, why))),
        };
        log::debug!("{}: page {} of pass {}", self.partition, self.resume.page, self.resume.cycle);
        match shared.client.open_patiently(home, &url, &mut self.tries) {
            Ok(reply) => {
                let page = Page::new(shared.client.what(&url), reply, &shared.options);
                // Those of the page are looked at again.
                self.since = Since::new(
                    shared.options.since.as_ref().map(|(pointer, _)| pointer),
                    self.resume.seen.clone(),
                );
                self.fill(page, shared, lane, left)
            }
            Err(Error::Stopped) => Err(Over),
            Err(error) => Ok(Step::Failed(error)),
        }
    }

    fn fill(
        &mut self,
        mut page: Page,
        shared: &Shared,
        lane: &Lane,
        left: &mut Option<u64>,
    ) -> Result<Step, Over> {
        let mut taking = Taking {
            options: &shared.options,
            lane,
            partition: &self.partition,
            within: &self.within,
            since: &mut self.since,
            page: self.resume.page,
            skip: self.taken,
            left,
            consumed: &shared.consumed,
            tolerant: self.damaged >= patience(&shared.options),
        };
        self.window.truncate(0);
        let filled = page.fill(&mut self.window, &mut taking)?;
        if page.index() > self.taken {
            self.taken = page.index();
            self.tries.reset();
        }
        Ok(match filled {
            Filled::Over => self.next(&page, shared, *left),
            Filled::Failed(error) => self.again(error, shared),
            Filled::Damaged(why) => self.damaged(why, shared),
        })
    }

    /// The page did not come whole: waits, and asks for it again. Blocks.
    fn again(&mut self, error: http::Error, shared: &Shared) -> Step {
        self.stage = Stage::Ask;
        match shared.client.again(error, &mut self.tries) {
            Ok(()) | Err(Error::Stopped) => Step::On,
            Err(error) => Step::Failed(error),
        }
    }

    fn damaged(&mut self, why: &str, shared: &Shared) -> Step {
        self.damaged += 1;
        let what = self.what(shared);
        self.again(http::Error::Page { what, why: why.into(), retry: Retry::Transient }, shared)
    }

    /// The page is over: goes on with the next one.
    fn next(&mut self, page: &Page, shared: &Shared, left: Option<u64>) -> Step {
        let options = &shared.options;
        let pointer = Pages::pointer(&options.pagination);
        let was_damaged = self.damaged >= patience(options) && self.damaged > 0;
        (self.damaged, self.taken) = (0, 0);
        self.tries.reset();
        let said = match page.said(pointer) {
            Ok(said) => said,
            Err(error) => return Step::Failed(error.into()),
        };
        if was_damaged && pointer.is_some() && *said.told == Told::Nothing {
            let why = "the page makes no sense, and nothing in it leads on";
            return Step::Failed(self.page_error(shared, why.into(), Retry::Transient));
        }
        let next = match left {
            Some(0) => Ok(Next::End),
            _ => self.pages.next(&self.resume.at, self.resume.page, &said),
        };
        match next {
            Ok(Next::Page(at)) => {
                (self.resume.at, self.resume.page) = (at, self.resume.page + 1);
                self.seen();
                self.within = self.resume.bytes();
                self.stage = Stage::Ask;
            }
            Ok(next) => {
                self.say(&next, &said);
                self.seen();
                self.stage = Stage::Tail;
            }
            Err(why) => return Step::Failed(self.odd(shared, why)),
        }
        Step::On
    }

    fn seen(&mut self) {
        self.resume.seen = self.since.highest().cloned();
    }

    /// Says why there is no further page, where that is not the usual reason.
    fn say(&self, next: &Next, said: &Said<'_>) {
        let (partition, page) = (&self.partition, self.resume.page);
        match next {
            Next::Loop => {
                log::warn!("{partition}: what leads on from page {page} led here before; the pass ends")
            }
            Next::Capped(most) => {
                log::warn!(
                    "{partition}: there is more behind {most} pages (http.pagination.max_pages); the pass ends"
                );
            }
            Next::Alone { missing, full: true } if !self.polls => log::warn!(
                "{partition}: the first page is full and has {missing}, so the pass ends behind it; if there are more \
                 pages, http.pagination is wrong"
            ),
            Next::Alone { missing, .. } if !self.polls => {
                log::info!("{partition}: the first page has {missing}, so the pass ends behind it")
            }
            // Feeds that are polled have a cursor to come back with.
            Next::Empty if !self.polls => {
                log::warn!(
                    "{partition}: page {page} has no records, so the pass ends, although something leads on from it"
                );
            }
            Next::End | Next::Empty | Next::Alone { .. } | Next::Page(_) => {
                log::debug!("{partition}: page {page} is the last; {} records", said.records)
            }
        }
    }

    /// Tells what the pass has come to: behind its last record, since that is asked for with what stood before its
    /// page.
    fn tail(&mut self, lane: &Lane) -> Result<Step, Over> {
        let (page, end) = (self.resume.page, (self.resume.page + 1) << 32);
        let (last, partition) = (self.resume.bytes(), &self.partition);
        lane.fill(&Place { partition, position: end - 1, page, within: &self.within }, |chunk| {
            chunk.set_end(end);
            chunk.set_resume(last);
            Room::Full
        })?;
        Ok(Step::On)
    }

    fn what(&self, shared: &Shared) -> String {
        shared.client.what(&shared.options.endpoints[self.endpoint].1)
    }

    fn page_error(&self, shared: &Shared, why: String, retry: Retry) -> Error {
        let why = format!("page {}: {why}", self.resume.page);
        http::Error::Page { what: self.what(shared), why, retry }.into()
    }

    fn odd(&self, shared: &Shared, why: String) -> Error {
        self.page_error(shared, why, Retry::Permanent)
    }
}

/// How often a page that makes no sense is asked for again.
fn patience(options: &HttpOptions) -> u32 {
    AGAIN.min(options.retry.max_retries)
}

/// What a pass is called.
fn partition(name: &str, resume: &Resume) -> Partition {
    Partition::new(Identity {
        source: "http",
        name: name.to_owned(),
        metadata: format!("\"name\":{}", serde_json::Value::from(name)),
        opened_at: Some(resume.started),
        epoch: resume.cycle,
        cycle: Some(resume.cycle),
        ..Identity::default()
    })
}
