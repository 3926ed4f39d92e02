//! Where results are taken: [`Desk`].
//!
//! A worker that is done with a task assembles what came of it, if nobody else is at it. A thread of its own for that,
//! which sleeps between two results, took three to four hundredths of a run's processor time, and in some runs it was
//! woken on the reader's processor hundreds of times, which is what a run waits for where readers decode.
//!
//! A worker never waits here. What finds no place in a channel is kept, and from then on results go to the
//! assembler's thread, which waits; it also takes results where workers meet, ticks, and the readers' want of bytes.
//! And where there are more processors than workers, and a worker is what the run waits for, it takes that one's
//! results: to wake others is work, too (a run of one worker took 1.15x of the time). While more is under way it lets
//! those gather for a moment.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select, tick};
use parking_lot::Mutex;

use super::{Assembler, MUCH, Reading};
use crate::error::Result;
use crate::process::guarded;
use crate::read::Message;
use crate::sink::Order;
use crate::source::Cuts;

/// Where a processor is free for the thread it takes the results of workers who have so many tasks before them: those
/// are what the run waits for.
const BEHIND: usize = 2;

/// The assembler, where workers and its own thread find it.
pub(crate) struct Desk<'a> {
    /// Until the run is over.
    assembler: Mutex<Option<Assembler<'a>>>,
    /// Whether a processor is free for the thread.
    spare: bool,
    /// Wakes the thread: a worker has left something for it.
    nudge: Sender<()>,
    nudged: Receiver<()>,
    /// Workers that are to be called again.
    recall: Sender<()>,
    recalled: Receiver<()>,
}

/// Takes the assembler away, and with it the channels that writers and the commit thread wait for: even if its thread
/// is never started.
pub(crate) struct Closing<'d, 'a>(&'d Desk<'a>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        drop(self.0.assembler.lock().take());
    }
}

impl<'a> Desk<'a> {
    /// For so many workers. `spare`: whether there are more processors than those.
    pub fn new(assembler: Assembler<'a>, workers: usize, spare: bool) -> Self {
        let ((nudge, nudged), (recall, recalled)) = (bounded(1), bounded(workers));
        Desk { assembler: Mutex::new(Some(assembler)), spare, nudge, nudged, recall, recalled }
    }

    /// For whoever runs it, to be dropped behind that.
    pub fn closing(&self) -> Closing<'_, 'a> {
        Closing(self)
    }

    /// Assembles what workers do not, until all readers are gone. Calls workers again, by `call`. Blocks.
    ///
    /// # Errors
    /// A panic of a transform; [`crate::error::Error::Stopped`] if writers or the commit thread are gone.
    pub fn run(&self, call: impl Fn()) -> Result<Reading> {
        let Some((at, results)) =
            self.assembler.lock().as_ref().map(|assembler| (assembler.at, assembler.ports.results.clone()))
        else {
            return Ok(Reading::Cut);
        };
        let early = at.cuts == Cuts::Early && at.shape.order == Order::Any;
        let wait = (at.batch_wait / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let ticks = if early { tick(wait) } else { never() };
        loop {
            select! {
                recv(results) -> message => match message {
                    Ok(message) => {
                        let much = message.bytes() >= MUCH;
                        self.act(|assembler| assembler.receive(message))?;
                        if much && results.is_empty() && self.is_any_under_way() {
                            std::thread::sleep(at.gather);
                        }
                    }
                    Err(_) => break,
                },
                recv(self.recalled) -> _ => call(),
                recv(self.nudged) -> _ => self.act(Assembler::queue_gathered)?,
                recv(at.budget.pressure()) -> _ => self.act(Assembler::relieve)?,
                recv(ticks) -> _ => self.act(Assembler::close_aged)?,
            }
        }
        let last = self.assembler.lock().take();
        last.map_or(Ok(Reading::Cut), Assembler::end)
    }

    /// What workers left is done first. Blocks.
    ///
    /// # Errors
    /// Nobody assembles behind one: what came next would be taken for what is missing.
    fn act(&self, act: impl FnOnce(&mut Assembler<'a>) -> Result<()>) -> Result<()> {
        let mut lock = self.assembler.lock();
        let Some(assembler) = lock.as_mut() else { return Ok(()) };
        let done = guarded(|| assembler.catch_up().and_then(|()| act(assembler))).and_then(|done| done);
        if done.is_err() {
            drop(lock.take());
        }
        done
    }

    /// A worker has a result: assembles it, or gives it back for the thread. `waiting`: how many tasks there are for
    /// the worker. Never blocks.
    pub fn offer(&self, message: Message, waiting: usize) -> Option<Message> {
        if self.spare && waiting >= BEHIND {
            return Some(message);
        }
        let Some(mut lock) = self.assembler.try_lock() else { return Some(message) };
        match lock.as_mut() {
            Some(assembler) if assembler.is_caught_up() => {
                self.try_act(assembler, |assembler| assembler.receive(message));
                None
            }
            _ => Some(message),
        }
    }

    /// A worker leaves although there are tasks: another is to be called. Never blocks.
    pub fn recall(&self) -> std::result::Result<(), TrySendError<()>> {
        self.recall.try_send(())
    }

    /// A worker leaves, and nobody knows when the next result comes: what was held back goes on. Never blocks.
    pub fn settle(&self) {
        match self.assembler.try_lock() {
            Some(mut lock) => {
                if let Some(assembler) = lock.as_mut().filter(|assembler| assembler.is_caught_up()) {
                    self.try_act(assembler, Assembler::queue_gathered);
                }
            }
            None => self.nudge(),
        }
    }

    fn try_act(&self, assembler: &mut Assembler<'a>, act: impl FnOnce(&mut Assembler<'a>) -> Result<()>) {
        assembler.may_wait = false;
        let done = guarded(|| act(assembler)).and_then(|done| done);
        assembler.may_wait = true;
        assembler.failed = done.err();
        if !assembler.is_caught_up() {
            self.nudge();
        }
    }

    fn is_any_under_way(&self) -> bool {
        self.assembler.lock().as_ref().is_some_and(Assembler::is_any_under_way)
    }

    fn nudge(&self) {
        // If it is full the thread has yet to look.
        let _ = self.nudge.try_send(());
    }
}

#[cfg(test)]
mod tests;
