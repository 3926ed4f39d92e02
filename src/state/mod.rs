//! What is remembered of a run beside its output: [`State`], in a directory or a corner of a bucket of its own that
//! one run at a time holds locked ([`Home`]).
//!
//! The order of things: [`State::open`] takes the lock, reads, and refuses what does not belong to this run;
//! [`State::outcome`] says what there is to do for the given inputs; [`State::begin`] makes the run's start
//! durable before anything is published, because output carries it, and does what `--fresh` asks; then the
//! commit thread stores marks, and at the end [`Marks::finished`]. A state must never claim more than is
//! stored: it forgets before objects are deleted, and it remembers that a deletion is under way until it is
//! complete, so that a run that is killed in between goes on with it.
//!
//! The file is `record.rs`, the lock `lock.rs`; what earlier runs left in the output is [`Leftovers`].

#[cfg(feature = "s3")]
mod bucket;
mod claim;
mod home;
mod leftover;
mod lock;
mod options;
mod outcome;
mod record;

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::value::{RawValue, Value, to_raw_value};

#[cfg(feature = "s3")]
pub use bucket::{BucketHome, BucketLeftovers, Tries};
pub use claim::Claims;
pub use home::{DirHome, Held, Home};
pub use leftover::{DirLeftovers, Leftovers};
pub use options::{Fresh, Identify, StateOptions};
pub use outcome::{Outcome, Resume};
pub use record::KEY;

use crate::error::{Error, Result, Retry};
use crate::record::Partition;
use crate::source::{Cuts, Mark, Marks, Planned, Same};
use outcome::{begins_another_pass, changed, check, check_place};
use record::{Entry, Plan, Record, Run};

/// What is remembered of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Everything before this position is stored.
    pub watermark: u64,
    /// Number of the line that begins there.
    pub line: u64,
    /// Records rejected up to there.
    pub rejected: u64,
    /// Whether it was read and stored to its end.
    pub ended: bool,
    /// What the source knew it by.
    pub identity: Option<Value>,
}

/// What is remembered, held for the run.
pub struct State {
    options: StateOptions,
    record: Mutex<Record>,
    lock: Box<dyn Held>,
}

impl State {
    /// Takes the lock, reads what is remembered and checks that it belongs to this run. Writes nothing but the
    /// lock.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run holds it, [`Error::Changed`] if output, source or settings are others,
    /// [`Error::Usage`] if the file is damaged. With [`Fresh::Yes`] only the first.
    pub fn open(options: StateOptions) -> Result<Self> {
        let lock = options.home.lock(&options.processed_by)?;
        let read = match Record::read(&*options.home) {
            Err(error) if options.fresh == Fresh::Yes => {
                log::warn!("beginning again: {error}");
                None
            }
            read => read?,
        };
        let run =
            Run { started_at: options.now_ms, processed_by: options.processed_by.clone(), finished: false };
        let new =
            || Record::new(options.output.clone(), options.source.into(), run, options.settings.clone());
        let record = match read {
            Some(mut record) if options.fresh == Fresh::No => {
                check(&record, &options)?;
                if begins_another_pass(&record, &options) {
                    record.remember_key(&options.settings);
                    record.settings = options.settings.clone();
                }
                record
            }
            // What belongs to another output or source is none of this run's business.
            Some(record) if check_place(&record, &options).is_ok() => record,
            _ => new(),
        };
        Ok(State { options, record: Mutex::new(record), lock })
    }

    /// Whether anything is remembered that a run with these options could go on with. Looks at each input that is known,
    /// takes no lock and changes nothing: another run may be at work.
    ///
    /// # Errors
    /// [`Error::Changed`] if output, source, settings or an input are others, [`Error::Usage`] if the file is damaged.
    pub fn look(options: &StateOptions) -> Result<bool> {
        let Some(record) = Record::read(&*options.home)? else { return Ok(false) };
        check(&record, options)?;
        if !begins_another_pass(&record, options) {
            for (name, entry) in &record.partitions {
                check_input(options, name, entry)?;
            }
        }
        Ok(true)
    }

    /// What there is to do for these inputs. Looks at each of them.
    ///
    /// # Errors
    /// [`Error::Changed`] if an input is not the one that was read, or if objects of it are there that no state
    /// knows of.
    pub fn outcome<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Outcome> {
        if self.options.fresh == Fresh::Yes {
            return Ok(Outcome::Begin);
        }
        let names: Vec<&str> = names.into_iter().collect();
        let record = self.record.lock();
        let (mut resume, mut rejected) = (Resume::default(), 0);
        for name in &names {
            let Some(entry) = record.partitions.get(*name) else {
                self.check_leftovers(name)?;
                resume.new += 1;
                continue;
            };
            let same = check_input(&self.options, name, entry)?;
            rejected += entry.rejected;
            match same {
                _ if entry.is_untouched() => resume.new += 1,
                _ if !entry.ended => resume.open += 1,
                Same::Grown { .. } => resume.grown.push((*name).to_owned()),
                Same::Unchanged | Same::Changed { .. } => resume.done += 1,
            }
        }
        Ok(match resume.new == names.len() {
            true => Outcome::Begin,
            false if resume.done == names.len() => Outcome::NothingToDo { rejected },
            // Those of a run that came to its end were told by it.
            false if record.run.finished => Outcome::Resume(resume),
            false => Outcome::Resume(Resume { rejected, ..resume }),
        })
    }

    /// Partitions that an earlier run has begun, did not end, and that are not among these: their names, and how far
    /// they are stored.
    pub fn abandoned(&self, names: &[String]) -> Vec<(String, u64)> {
        // All of 100,000 may be open: they have grown, and the run that found it was killed.
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let record = self.record.lock();
        let begun = record.partitions.iter().filter(|(_, entry)| !entry.ended && !entry.is_untouched());
        let abandoned = begun.filter(|(name, _)| !names.contains(name.as_str()));
        abandoned.map(|(name, entry)| (name.clone(), entry.watermark)).collect()
    }

    /// Begins the run: its start is durable on return, and with [`Fresh::Yes`] what earlier runs did for these
    /// inputs is forgotten and deleted. Nothing may be published before.
    ///
    /// # Errors
    /// If that fails; [`Error::Changed`] if it begins again with other settings while an input that is not
    /// named was left unfinished with the old ones.
    pub fn begin<'a>(&self, names: impl IntoIterator<Item = &'a str>, outcome: &Outcome) -> Result<()> {
        self.begin_again(names, outcome, &[])
    }

    /// The same for partitions that are read in pass after pass: those in `again` begin another one, from position 0,
    /// and this is what their source needs for it.
    ///
    /// # Errors
    /// Those of [`State::begin`].
    pub fn begin_again<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        outcome: &Outcome,
        again: &[(String, Arc<[u8]>)],
    ) -> Result<()> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut record = self.record.lock();
        if self.options.fresh == Fresh::Yes {
            self.forget(&mut record, &names)?;
        }
        let left_open = |name: &&str| record.partitions.get(*name).is_some_and(|entry| !entry.ended);
        if record.run.finished && !names.iter().any(left_open) {
            self.renew(&mut record);
        }
        for name in &names {
            if !record.partitions.contains_key(*name) {
                // From now on it may have objects, so it must be known again even if no mark is ever stored.
                let identity = self.identity(name, 0)?;
                record.partitions.insert((*name).to_owned(), Entry { identity, ..Entry::default() });
            }
        }
        if let Outcome::Resume(resume) = outcome {
            for name in &resume.grown {
                // What is new in them belongs to this run.
                record.partitions.entry(name.clone()).and_modify(|entry| {
                    entry.started_at = None;
                    entry.ended = false;
                });
            }
        }
        for (name, resume) in again {
            let (resume, identity) = (Some(STANDARD.encode(resume)), self.identity(name, 0)?);
            let entry = Entry { resume, identity, ..Entry::default() };
            record.partitions.insert(name.clone(), entry);
        }
        record.run.finished = false;
        record.write_patiently(&*self.options.home)?;
        self.clear(&mut record)?;
        self.clear_unmarked(&record, &names)
    }

    /// Whether the last run came to its end. Asked before [`State::begin`].
    pub fn is_finished(&self) -> bool {
        self.record.lock().run.finished
    }

    /// Keeps the lock. To be called now and then while the run goes on, from a thread that may wait for a moment.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run has taken it over: nothing more may be stored.
    pub fn tend(&self) -> Result<()> {
        self.lock.tend()
    }

    /// The start of this run, or of the unfinished one that it goes on with, in milliseconds since the epoch.
    pub fn started_at(&self) -> i64 {
        self.record.lock().run.started_at
    }

    /// The start that the batches of this partition carry. Final after [`State::begin`].
    pub fn started_at_of(&self, partition: &str) -> i64 {
        let record = self.record.lock();
        let own = record.partitions.get(partition).and_then(|entry| entry.started_at);
        own.unwrap_or(record.run.started_at)
    }

    /// What envelopes call this machine: what an unfinished run said, or this one.
    pub fn processed_by(&self) -> String {
        self.record.lock().run.processed_by.clone()
    }

    /// What is remembered of a partition.
    pub fn partition(&self, name: &str) -> Option<Remembered> {
        let record = self.record.lock();
        let entry = record.partitions.get(name).filter(|entry| !entry.is_untouched())?;
        Some(Remembered {
            watermark: entry.watermark,
            line: entry.line,
            rejected: entry.rejected,
            ended: entry.ended,
            identity: entry.identity.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()),
        })
    }

    /// A finished run is followed by a new one: entries that counted on its start get it for their own.
    fn renew(&self, record: &mut Record) {
        let old = record.run.started_at;
        for entry in record.partitions.values_mut() {
            entry.started_at.get_or_insert(old);
        }
        record.run.started_at = self.options.now_ms;
        record.run.processed_by = self.options.processed_by.clone();
    }

    fn forget(&self, record: &mut Record, names: &[&str]) -> Result<()> {
        for name in names {
            record.partitions.remove(*name);
        }
        let unfinished = record.partitions.iter().find(|(_, entry)| !entry.ended).map(|(name, _)| name);
        match (changed(&record.settings, &self.options.settings), unfinished) {
            (Some(what), Some(name)) => {
                let why = format!("{what}; {name} was left unfinished with the old value: name it too");
                return Err(Error::Changed { what: why });
            }
            _ => {
                record.remember_key(&self.options.settings);
                record.settings = self.options.settings.clone();
            }
        }
        let mut clearing: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        clearing.append(&mut record.clearing);
        clearing.sort_unstable();
        clearing.dedup();
        record.clearing = clearing;
        self.renew(record);
        Ok(())
    }

    /// Deletes what is to be deleted, also if an earlier run was killed while it did so.
    fn clear(&self, record: &mut Record) -> Result<()> {
        if record.clearing.is_empty() {
            return Ok(());
        }
        if let Some(leftovers) = &self.options.leftovers {
            let earlier = record.earlier_keys.iter().map(|key| leftovers.named(key));
            let mut count = 0;
            for place in std::iter::once(Ok(leftovers.clone())).chain(earlier) {
                let place = place?;
                for name in &record.clearing {
                    // It may take long, and what another run has stored meanwhile must not be deleted.
                    self.lock.tend()?;
                    count += place.remove([name.as_str()])?;
                }
            }
            log::info!("{count} files of earlier runs deleted");
        }
        record.clearing.clear();
        record.write_patiently(&*self.options.home)
    }

    /// Deletes what was published of unfinished partitions beyond their marks.
    fn clear_unmarked(&self, record: &Record, names: &[&str]) -> Result<()> {
        if self.plans() {
            // They are planned: whoever makes them again finds them at the same ends.
            return Ok(());
        }
        let Some(leftovers) = &self.options.leftovers else { return Ok(()) };
        let mut count = 0;
        for name in names {
            if let Some(entry) = record.partitions.get(*name).filter(|entry| !entry.ended) {
                self.lock.tend()?;
                count += leftovers.remove_from(name, entry.watermark)?;
            }
        }
        if count > 0 {
            log::info!(
                "{count} files deleted that the last run had stored but not marked: they are made again"
            );
        }
        Ok(())
    }

    /// Every input that ever began is in the state, so objects of another one are of unknown origin: this run
    /// might cut elsewhere and leave some of them beside its own.
    fn check_leftovers(&self, name: &str) -> Result<()> {
        let Some(leftovers) = &self.options.leftovers else { return Ok(()) };
        match leftovers.existing([name])?.first() {
            Some(object) => Err(Error::Changed {
                what: format!("{object} is there already, and nothing is known of its run"),
            }),
            None => Ok(()),
        }
    }

    fn identity(&self, name: &str, watermark: u64) -> Result<Option<Box<RawValue>>> {
        let raw = |value: Value| -> Result<Box<RawValue>> {
            to_raw_value(&value).map_err(|error| Error::other("cannot remember", Retry::Permanent, error))
        };
        self.options.identify.identify(name, watermark)?.map(raw).transpose()
    }

    fn entry(&self, mark: &Mark, started_at: Option<i64>) -> Result<Entry> {
        let identity = self.identity(mark.partition.name(), mark.watermark)?;
        Ok(Entry {
            watermark: mark.watermark,
            line: mark.line,
            rejected: mark.rejected,
            ended: mark.ended,
            started_at,
            identity,
            resume: mark.resume.as_ref().map(|bytes| STANDARD.encode(bytes)),
            plan: mark.plan.iter().map(Plan::from).collect(),
        })
    }
}

/// Whether the input goes on behind what was known of it.
fn check_input(options: &StateOptions, name: &str, entry: &Entry) -> Result<Same> {
    let Some(known) = &entry.identity else { return Ok(Same::Unchanged) };
    let known: Value = serde_json::from_str(known.get()).unwrap_or(Value::Null);
    match options.identify.compare(name, entry.watermark, &known)? {
        Same::Changed { what } => Err(Error::Changed { what }),
        same => Ok(same),
    }
}

impl Marks for State {
    fn load(&self, partition: &str) -> Result<Option<Mark>> {
        let record = self.record.lock();
        let entry = record.partitions.get(partition).filter(|entry| !entry.is_untouched());
        let Some(entry) = entry else { return Ok(None) };
        let resume = entry.resume.as_ref().map(|text| STANDARD.decode(text)).transpose();
        let resume = resume.map_err(|error| {
            Error::Usage(format!("the state {} is damaged: {error}", self.options.home.name()))
        })?;
        Ok(Some(Mark {
            partition: Partition::named(self.options.source, partition),
            watermark: entry.watermark,
            line: entry.line,
            resume: resume.map(Arc::from),
            plan: entry.plan.iter().map(Planned::from).collect(),
            rejected: entry.rejected,
            ended: entry.ended,
            fresh: false,
        }))
    }

    fn store(&self, marks: &mut [Mark], _refused: &mut Vec<Partition>) -> Result<()> {
        let mut record = self.record.lock();
        for mark in marks {
            let name = mark.partition.name();
            let started_at = record.partitions.get(name).and_then(|entry| entry.started_at);
            let entry = self.entry(mark, started_at)?;
            record.partitions.insert(name.to_owned(), entry);
        }
        record.write(&*self.options.home)
    }

    fn plans(&self) -> bool {
        self.options.cuts == Cuts::Early && self.options.leftovers.is_some()
    }

    fn finished(&self) -> Result<()> {
        let mut record = self.record.lock();
        record.run.finished = true;
        record.write_patiently(&*self.options.home)
    }
}

impl From<&Planned> for Plan {
    fn from(planned: &Planned) -> Self {
        Plan { end: planned.end, first_time: planned.first_time, opened_at: planned.opened_at }
    }
}

impl From<&Plan> for Planned {
    fn from(plan: &Plan) -> Self {
        Planned { end: plan.end, first_time: plan.first_time, opened_at: plan.opened_at }
    }
}

#[cfg(test)]
mod tests;
