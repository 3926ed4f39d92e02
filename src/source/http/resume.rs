//! What is remembered of an endpoint besides its watermark: [`Resume`], which asks for the same page again, and
//! [`Begin`], where a pass begins or goes on.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::desk::left_of;
use super::{HttpOptions, odd};
use crate::config::http::{Pagination, Style};
use crate::error::Result;
use crate::http::pagination::At;
use crate::record::Partition;
use crate::source::{Mark, Planned};

/// What asks for a page again, and what the pass has come to before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Which pass, counted from 0.
    pub cycle: u64,
    /// When it began, in milliseconds since the epoch: what stands for "now" in all its batches.
    pub started: i64,
    /// Which page of the pass, counted from 0.
    pub page: u64,
    /// How that is asked for.
    pub at: At,
    /// The value of `since` that this pass asks with, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// The highest value of `since` that was seen before this page, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

impl Resume {
    /// The first pass.
    fn first(now: i64, pagination: &Pagination) -> Self {
        Resume { cycle: 0, started: now, page: 0, at: first(pagination), sent: None, seen: None }
    }

    /// The pass behind the one that ended like this.
    pub fn next(&self, now: i64, pagination: &Pagination) -> Self {
        Resume {
            cycle: self.cycle + 1,
            started: now,
            page: 0,
            at: first(pagination),
            sent: self.seen.clone(),
            seen: self.seen.clone(),
        }
    }

    /// As it is stored.
    pub fn bytes(&self) -> Arc<[u8]> {
        // Nothing here can fail to be written as JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|error| odd("what is remembered of an endpoint cannot be read", error.to_string()))
    }
}

fn first(pagination: &Pagination) -> At {
    match pagination.style {
        Style::Page => At::Number(pagination.first_page),
        Style::Offset => At::Offset(0),
        Style::None | Style::Cursor | Style::Link | Style::NextUrl => At::First,
    }
}

/// Where a pass begins, or goes on.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    pub resume: Resume,
    pub watermark: u64,
    plan: Vec<Planned>,
    rejected: u64,
    wait: Duration,
}

impl Begin {
    fn at(resume: Resume) -> Self {
        Begin { resume, watermark: 0, plan: Vec::new(), rejected: 0, wait: Duration::ZERO }
    }

    /// The pass behind the one that ended like this, `poll` behind its beginning.
    pub fn next(last: &Resume, now: i64, poll: Duration, pagination: &Pagination) -> Self {
        let wait = left_of(poll, last.started, now);
        // It counts from when it is due, so that waiting for a commit makes no difference.
        let started = now + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2);
        Begin { wait, ..Begin::at(last.next(started, pagination)) }
    }

    /// How long it has to wait.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// What the engine is told of it.
    pub fn mark(&self, partition: &Partition) -> Mark {
        Mark {
            partition: partition.clone(),
            watermark: self.watermark,
            line: 0,
            resume: Some(self.resume.bytes()),
            plan: self.plan.clone(),
            rejected: self.rejected,
            ended: false,
            fresh: false,
        }
    }
}

/// Where an endpoint begins, of which this is remembered; `None`: it is done.
///
/// # Errors
/// If what is remembered cannot be read.
pub(super) fn begin(mark: Option<Mark>, options: &HttpOptions) -> Result<Option<Begin>> {
    let Some(mark) = mark else {
        return Ok(Some(Begin::at(Resume::first(options.now, &options.pagination))));
    };
    let resume = mark.resume.as_deref().map(Resume::parse).transpose()?;
    let resume = resume.unwrap_or_else(|| Resume::first(options.now, &options.pagination));
    if !mark.ended {
        let Mark { watermark, plan, rejected, .. } = mark;
        return Ok(Some(Begin { watermark, plan, rejected, ..Begin::at(resume) }));
    }
    Ok(match options.poll {
        // A run that polls goes on for days, over many starts: its beginning is not that of its passes.
        Some(poll) => Some(Begin::next(&resume, crate::read::now(), poll, &options.pagination)),
        None if options.unfinished => None,
        None => Some(Begin::at(resume.next(options.now, &options.pagination))),
    })
}
