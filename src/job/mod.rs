//! A whole run as the configuration asks for it: [`run`] makes source, program, sink and state of a [`Config`],
//! lets the engine run, and sums up. What the command line does, an embedder can do with this.
//!
//! The order matters: the configuration is wrong before anything is touched; the sink is there before the state
//! is; the state is durable before anything is published. Read `memory.rs` for how inputs and state are joined.

mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod loops;
mod memory;
mod rehearsal;
mod report;
#[cfg(feature = "s3")]
pub mod s3;
mod sinks;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use crate::allowance::Allowance;
use crate::codec::Codec;
use crate::config::{Config, Intent, OnReject, Place, SourceKind};
use crate::cut::Limits;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::pipeline::{End, Pipeline, Settings};
use crate::progress::Snapshot;
use crate::sink::{Shape, Sink};
use crate::source::file::FileInput;
use crate::source::{Marks, Source};
use crate::stop::Stop;
use crate::summary::{Outcome, Summary};
use crate::transform::Transform;
use crate::transform::pointer::Pointer;
use crate::transform::recipe::{Key, Letters, Recipe, RecipeOptions, Replay};
use report::{Extent, Reporter};

/// How often the observer is called.
const OBSERVE: Duration = Duration::from_millis(200);
/// Under these the directory sink stores.
const PROCESSED: &str = "processed";
const FAILED: &str = "failed";

/// Whether a run stores what it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Store,
    /// It only prints the first outputs on stdout.
    Rehearse,
}

/// What came of a run. A run that fails after it began has both.
#[derive(Debug)]
pub struct Done {
    /// What it did, once it began.
    pub summary: Option<Summary>,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

impl Done {
    /// Of a run without an end of its own: that it was told to stop is how it ends.
    #[cfg(any(feature = "kafka", feature = "http"))]
    fn endless(mut self) -> Self {
        if let (Some(summary), None) = (&mut self.summary, &self.error)
            && summary.outcome == Outcome::Drained
        {
            summary.outcome = Outcome::Ended;
        }
        self
    }
}

/// Sees what a run does while it goes on, from the run's threads. It must not block for long.
pub trait Observer: Sync {
    /// The run begins to set itself up. What it counts stays valid behind its end.
    fn begin(&self, _metrics: &Arc<Metrics>) {}

    /// How far it is. Called about five times a second while records flow, and once at their end.
    fn tick(&self, snapshot: &Snapshot);
}

/// An observer that is a function.
struct Ticks<'a>(&'a (dyn Fn(&Snapshot) + Sync));

impl Observer for Ticks<'_> {
    fn tick(&self, snapshot: &Snapshot) {
        (self.0)(snapshot);
    }
}

/// Runs what the configuration asks for. Blocks. `observe` is called about five times a second, from another
/// thread.
pub fn run(config: &Config, mode: Mode, stop: &Stop, observe: &(dyn Fn(&Snapshot) + Sync)) -> Done {
    run_observed(config, &[], mode, stop, &Ticks(observe))
}

/// [`run`] with transforms of the caller's, applied in order before the envelope.
pub fn run_with(
    config: &Config,
    transforms: &[Arc<dyn Transform>],
    mode: Mode,
    stop: &Stop,
    observe: &(dyn Fn(&Snapshot) + Sync),
) -> Done {
    run_observed(config, transforms, mode, stop, &Ticks(observe))
}

/// [`run_with`] for an observer that looks at more than snapshots.
pub fn run_observed(
    config: &Config,
    transforms: &[Arc<dyn Transform>],
    mode: Mode,
    stop: &Stop,
    observer: &dyn Observer,
) -> Done {
    let job = Job::new(config, transforms, mode, stop, observer);
    observer.begin(&job.metrics);
    job.run().unwrap_or_else(|error| {
        job.metrics.failed(&error);
        Done { summary: None, error: Some(error) }
    })
}

/// Whether there is anything of earlier runs that one with this configuration goes on with. Only looks, at the state and
/// at each input: takes no lock, changes nothing. Blocks while a bucket is asked, once.
///
/// # Errors
/// [`Error::Changed`] where a run would be refused since its output, source, settings or inputs are others; what keeps
/// that from being known.
pub fn find_state(config: &Config) -> Result<bool> {
    if config.processing.fresh {
        return Ok(false);
    }
    let mut config = config.clone();
    config.processing.retry.max_retries = 0;
    let stop = Stop::new();
    let job = Job::new(&config, &[], Mode::Store, &stop, &Ticks(&|_| {}));
    match config.input.source {
        SourceKind::File => job.look_at_files(),
        #[cfg(feature = "http")]
        SourceKind::Http => job.look_at_endpoints(),
        // The group remembers.
        _ => Ok(false),
    }
}

/// Finds the files that a run would read, and reads nothing of them.
///
/// # Errors
/// What keeps the run from beginning: an input that is not there, is named twice, or is where the run writes; a directory
/// that cannot be listed.
pub fn find_files(config: &Config) -> Result<Vec<FileInput>> {
    let stop = Stop::new();
    let job = Job::new(config, &[], Mode::Rehearse, &stop, &Ticks(&|_| {}));
    job.source().map(|source| source.inputs())
}

struct Job<'a> {
    config: &'a Config,
    transforms: &'a [Arc<dyn Transform>],
    mode: Mode,
    stop: &'a Stop,
    observer: &'a dyn Observer,
    metrics: Arc<Metrics>,
    #[cfg(feature = "s3")]
    bucket: std::sync::OnceLock<Arc<crate::s3::Bucket>>,
}

/// What a run is put together of.
struct Parts<'a> {
    source: &'a dyn Source,
    recipe: &'a Recipe,
    sink: &'a dyn Sink,
    /// Where it is remembered what is done, for sources that do not remember it themselves.
    marks: Option<Arc<dyn Marks>>,
    /// Bytes, or offsets, that were read so far.
    consumed: Arc<AtomicU64>,
    /// How many of them count only because an earlier run had read them.
    skipped: Arc<AtomicU64>,
    /// Whether positions count pages.
    paged: bool,
    /// What progress is shown over.
    extent: Extent,
    /// Records that were rejected by the interrupted run that it goes on with.
    rejected: u64,
    /// Called now and then while it goes on; an error ends it at once.
    tend: &'a (dyn Fn() -> Result<()> + Sync),
}

impl<'a> Job<'a> {
    fn new(
        config: &'a Config,
        transforms: &'a [Arc<dyn Transform>],
        mode: Mode,
        stop: &'a Stop,
        observer: &'a dyn Observer,
    ) -> Self {
        Job {
            config,
            transforms,
            mode,
            stop,
            observer,
            metrics: Arc::default(),
            #[cfg(feature = "s3")]
            bucket: Default::default(),
        }
    }

    fn run(&self) -> Result<Done> {
        self.config.check(self.intent()).map_err(|problems| Error::Usage(problems.join("; ")))?;
        let memory_limit = self.config.processing.memory_limit;
        if let Some(complaint) = Allowance::find().and_then(|allowance| allowance.complaint(memory_limit)) {
            log::warn!("{complaint}");
        }
        match self.config.input.source {
            SourceKind::File => self.run_files(),
            #[cfg(feature = "kafka")]
            SourceKind::Kafka => self.run_kafka(),
            #[cfg(not(feature = "kafka"))]
            SourceKind::Kafka => Err(Error::Usage("this build has no Kafka (feature kafka)".into())),
            #[cfg(feature = "http")]
            SourceKind::Http => self.run_http(),
            #[cfg(not(feature = "http"))]
            SourceKind::Http => Err(Error::Usage("this build has no HTTP client (feature http)".into())),
        }
    }

    fn intent(&self) -> Intent {
        match self.mode {
            Mode::Store => Intent::Store,
            Mode::Rehearse => Intent::Look,
        }
    }

    fn engine(&self, parts: &Parts<'_>) -> Done {
        let reporter = Reporter::new(parts, self.observer);
        let lost = Mutex::new(None);
        let observe = |metrics: &Metrics| {
            reporter.tick(metrics);
            if let Err(error) = (parts.tend)() {
                lost.lock().get_or_insert(error);
                self.stop.abort();
            }
        };
        let mut pipeline = Pipeline::new(parts.source, parts.recipe, parts.sink)
            .settings(self.settings(parts.rejected))
            .stop(self.stop)
            .counting(&self.metrics)
            .observe(OBSERVE, &observe);
        if let Some(marks) = &parts.marks {
            pipeline = pipeline.marks(marks.clone());
        }
        let metrics = &self.metrics;
        if self.is_held() {
            metrics.hold();
        }
        let result = match (pipeline.run(), lost.into_inner()) {
            (Err(Error::Stopped), Some(lost)) => Err(lost),
            (result, _) => result,
        };
        let rehearsed = self.mode == Mode::Rehearse;
        if rehearsed || self.is_visible() {
            metrics.release();
        }
        let outcome = match &result {
            Ok(End::Finished) => Outcome::Finished,
            Ok(End::Drained) | Err(Error::Stopped | Error::OutputClosed) => Outcome::Drained,
            Err(_) => Outcome::Failed,
        };
        let mut summary = reporter.summary(metrics, outcome);
        if rehearsed {
            // The summary alone tells what would have been stored.
            metrics.hold();
        }
        summary.output = (!rehearsed && self.is_visible()).then(|| self.place());
        summary.dry_run = rehearsed;
        summary.rejected_earlier = parts.rejected;
        summary.dead_letters = self.dead_letters(summary.records_rejected + summary.rejected_earlier);
        Done { summary: Some(summary), error: result.err() }
    }

    /// Whether what was stored can be seen: of one file only if the run came to its end.
    fn is_visible(&self) -> bool {
        !self.is_held() || self.metrics.is_finished()
    }

    /// Whether nothing of the output can be seen before the end: one file is stored as a whole or not at all. A
    /// rehearsal never stores.
    fn is_held(&self) -> bool {
        if self.mode == Mode::Rehearse {
            return true;
        }
        let Place::File(path) = &self.config.output.to else { return false };
        let device = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        !device
    }

    /// What is made of records, in the form that the sink takes.
    fn recipe(&self, processed_by: String, shape: &Shape) -> Result<Recipe> {
        let recipe = Recipe::new(RecipeOptions {
            envelope: self.config.output.envelope,
            transforms: self.transforms.to_vec(),
            processed_by,
            dead_letters: match self.config.processing.on_reject {
                OnReject::Drop => Letters::Drop,
                OnReject::DeadLetter | OnReject::Fail if shape.letter_records => Letters::Records,
                OnReject::DeadLetter | OnReject::Fail => Letters::Keep,
            },
            replay: if self.config.input.replay { Replay::Yes } else { Replay::No },
            output_cap: 4 * self.config.input.max_record_bytes as usize,
        });
        if !shape.records {
            return Ok(recipe);
        }
        let key = match &self.config.kafka.sink.key {
            Some(pointer) => Key::Field(Pointer::new(pointer)?),
            None => Key::Source,
        };
        Ok(recipe.records(key))
    }

    fn settings(&self, rejected_before: u64) -> Settings {
        let processing = &self.config.processing;
        let rehearsed = self.mode == Mode::Rehearse;
        Settings {
            workers: processing.workers.get(),
            limits: Limits {
                batch_size: processing.batch_size,
                batch_bytes: processing.batch_bytes,
                ..Limits::default()
            },
            batch_wait: self.config.batch_wait(),
            memory_limit: processing.memory_limit,
            retry: processing.retry,
            codec: if rehearsed { Codec::None } else { self.config.output.codec },
            on_reject: processing.on_reject,
            max_rejected: processing.max_rejected,
            rejected_before,
            commit_interval: self.commit_interval(),
        }
    }

    /// How often it is remembered what is done. Each time is a request where that is in a bucket, and what is done
    /// again after a crash is the same.
    fn commit_interval(&self) -> Duration {
        let is_remote = matches!(self.config.output.to, Place::S3 { .. });
        let is_stateful = self.config.input.source != SourceKind::Kafka;
        Duration::from_millis(if is_remote && is_stateful { 2000 } else { 500 })
    }

    fn processed_by(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.config.processing.processed_by.clone().unwrap_or_else(host)
    }

    /// The output as a user would name it.
    fn place(&self) -> String {
        self.config.output.to.to_string()
    }

    /// Where dead letters are, if there can be any.
    fn dead_letters(&self, rejected: u64) -> Option<String> {
        let topic = self.config.output.dead_letter_topic();
        let root = match (self.config.output.dead_letter_dir(), &self.config.output.to) {
            _ if rejected == 0 || self.mode == Mode::Rehearse => return None,
            _ if self.config.processing.on_reject != OnReject::DeadLetter => return None,
            _ if topic.is_some() => return topic.map(|topic| format!("kafka:{topic}")),
            (Some(root), _) | (None, Place::Dir(root)) => root,
            (None, Place::S3 { .. }) => return Some(format!("{}{FAILED}", self.place())),
            (None, _) => return None,
        };
        Some(root.join(FAILED).display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Format;

    /// The command line checks before it calls; an embedder's configuration may come from anywhere.
    #[test]
    fn a_configuration_that_cannot_be_is_refused_before_anything_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut config = Config::new(vec![file!().into()], Place::Dir(out.clone()));
        config.input.format = Format::Binary;
        for mode in [Mode::Store, Mode::Rehearse] {
            let done = run(&config, mode, &Stop::new(), &|_| {});
            let error = done.error.unwrap();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with("-f binary is for the values of Kafka"), "{error}");
            assert!(done.summary.is_none() && !out.exists());
        }
    }
}
