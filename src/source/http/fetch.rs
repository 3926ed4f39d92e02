//! The thread that fetches for one reader: [`Fetcher`] reads endpoints one after another, each for a pass.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::desk::Turn;
use super::lane::{Lane, Over};
use super::pass::{Pass, Step};
use crate::error::{Error, Result};
use crate::record::Partition;
use crate::source::Read;

/// Fetches for one lane.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    left: Option<u64>,
    pass: Option<Box<Pass>>,
    /// Passes whose server has failed for now: they go on later, in this lane, so that their records stay in order.
    resting: Vec<(Instant, Box<Pass>)>,
}

impl Fetcher {
    pub fn new(shared: Arc<Shared>, lane: Arc<Lane>) -> Self {
        let left = shared.options.limit;
        Fetcher { shared, lane, left, pass: None, resting: Vec::new() }
    }

    /// Fetches until there is nothing more or nobody wants it. Blocks. Errors are told to the reader.
    pub fn run(mut self) -> Result<()> {
        while self.step().is_ok() {}
        Ok(())
    }

    fn step(&mut self) -> std::result::Result<(), Over> {
        let Some(pass) = &mut self.pass else { return self.take() };
        let step = pass.read(&self.shared, &self.lane, &mut self.left)?;
        let partition = pass.partition().clone();
        match step {
            Step::On => Ok(()),
            Step::Ended => {
                if let Some(pass) = self.pass.take() {
                    self.shared.desk.ended(pass.endpoint(), &pass.last(), &self.shared.options);
                }
                self.lane.tell(Ok(Read::Ended(partition)))
            }
            Step::Failed(error) => self.failed(partition, error),
        }
    }

    /// Takes the next endpoint whose time has come.
    fn take(&mut self) -> std::result::Result<(), Over> {
        if self.left == Some(0) {
            return self.done();
        }
        let now = Instant::now();
        if let Some(at) = self.resting.iter().position(|(due, _)| *due <= now) {
            self.pass = Some(self.resting.remove(at).1);
            return Ok(());
        }
        match self.shared.desk.take(now) {
            Turn::Take(endpoint, begin) => {
                let pass = Pass::new(endpoint, &begin, &self.shared.options);
                let partition = pass.partition().clone();
                let mark = begin.mark(&partition);
                self.pass = Some(Box::new(pass));
                self.lane.tell(Ok(Read::Assigned(partition, Some(mark))))
            }
            Turn::Wait => self.lane.rest(),
            // What is read again and again may be left by another reader.
            Turn::Done if self.shared.options.poll.is_some() => self.lane.rest(),
            Turn::Done => self.done(),
        }
    }

    fn done(&self) -> std::result::Result<(), Over> {
        self.lane.tell(Ok(Read::Done))?;
        Err(Over)
    }

    /// An endpoint could not be read any further: for good, or, where it is read again and again, for now.
    fn failed(&mut self, partition: Partition, error: Error) -> std::result::Result<(), Over> {
        let pass = self.pass.take();
        match (self.shared.options.poll, pass) {
            (Some(poll), Some(mut pass)) if error.is_transient() => {
                log::error!("{partition}: {error}; it goes on in {} s", poll.as_secs_f64());
                pass.rest();
                self.resting.push((Instant::now() + poll, pass));
                Ok(())
            }
            // A run that never ends must not go on without one of its endpoints.
            (Some(_), _) => self.lane.tell(Err(error)),
            (None, _) => self.lane.tell(Ok(Read::Failed(partition, error))),
        }
    }
}
