//! A whole run as the configuration asks for it: [`run`] makes source, program, sink and state of a [`Config`],
//! lets the engine run, and sums up. What the command line does, an embedder can do with this.
//!
//! The order matters: the configuration is wrong before anything is touched; the sink is there before the state
//! is; the state is durable before anything is published. Read `memory.rs` for how inputs and state are joined.

mod loops;
mod memory;
mod rehearsal;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Codec;
use crate::config::{Config, EnvelopeKind, Format, OnReject, Place, StateAt};
use crate::cut::Limits;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::pipeline::{End, Pipeline, Settings};
use crate::progress::Snapshot;
use crate::read::now;
use crate::sink::dir::temporary::HIDDEN;
use crate::sink::dir::{DirOptions, DirSink, Fsync};
use crate::sink::key::Namer;
use crate::sink::stream::{FileOptions as FileTo, FileSink, StdoutSink, WithDeadLetters};
use crate::sink::{Sink, Stream};
use crate::source::Source;
use crate::source::file::{FileOptions, FileSource, input_name};
use crate::state::Leftovers;
use crate::stop::Stop;
use crate::summary::{Outcome, Summary};
use crate::transform::Transform;
use crate::transform::recipe::{Letters, Recipe, RecipeOptions, Replay};
use memory::{Memory, Remember};
use rehearsal::Rehearsal;
use report::Reporter;

/// How often the observer is called.
const OBSERVE: Duration = Duration::from_millis(200);
/// Threads that store files: they mostly wait for the disk.
const WRITERS: usize = 4;
/// The largest zstd window that needs no larger `memory_limit`.
const WINDOW: u64 = 8 << 20;

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

/// Runs what the configuration asks for. Blocks. `observe` is called about five times a second, from another
/// thread.
pub fn run(config: &Config, mode: Mode, stop: &Stop, observe: &(dyn Fn(&Snapshot) + Sync)) -> Done {
    run_with(config, &[], mode, stop, observe)
}

/// [`run`] with transforms of the caller's, applied in order before the envelope.
pub fn run_with(
    config: &Config,
    transforms: &[Arc<dyn Transform>],
    mode: Mode,
    stop: &Stop,
    observe: &(dyn Fn(&Snapshot) + Sync),
) -> Done {
    let job = Job { config, transforms, mode, stop, observe };
    job.run().unwrap_or_else(|error| Done { summary: None, error: Some(error) })
}

struct Job<'a> {
    config: &'a Config,
    transforms: &'a [Arc<dyn Transform>],
    mode: Mode,
    stop: &'a Stop,
    observe: &'a (dyn Fn(&Snapshot) + Sync),
}

impl Job<'_> {
    fn run(&self) -> Result<Done> {
        if self.config.uses_kafka() {
            return Err(Error::Usage("this build cannot run jobs with Kafka yet".into()));
        }
        let mut source = self.source()?;
        let namer = Namer::new("", self.config.output.codec);
        let inputs = source.inputs();
        if self.config.output.to == Place::Stdout && self.mode == Mode::Store {
            loops::refuse(&inputs)?;
        }
        let clash = namer.clash("file", inputs.iter().map(|input| input.partition.name()));
        if let Some((one, other)) = clash {
            return Err(Error::Usage(format!("inputs {one} and {other} would be stored under one name")));
        }
        let sink = self.sink(&namer)?;
        let remember = Remember {
            state: self.state_dir(),
            leftovers: self.leftovers(&namer),
            settings: self.settings_text(),
            processed_by: self.processed_by(),
            now: now(),
            fresh: self.config.processing.fresh,
        };
        let memory = Memory::open(remember, &inputs)?;
        if let Some(rejected) = memory.nothing_to_do() {
            let summary =
                Summary { outcome: Outcome::NothingToDo, records_rejected: rejected, ..Summary::default() };
            let summary =
                Summary { output: Some(self.place()), dead_letters: self.dead_letters(rejected), ..summary };
            return Ok(Done { summary: Some(summary), error: None });
        }
        memory.begin()?;
        source.set_opened_at(|name| memory.started_at(name));
        let recipe = self.recipe(memory.processed_by());
        Ok(self.engine(&source, &recipe, &*sink, &memory))
    }

    fn engine(&self, source: &FileSource, recipe: &Recipe, sink: &dyn Sink, memory: &Memory) -> Done {
        let reporter = Reporter::new(source.size(), source.consumed(), self.observe);
        let observe = |metrics: &Metrics| reporter.tick(metrics);
        let pipeline = Pipeline::new(source, recipe, sink)
            .settings(self.settings())
            .marks(memory.marks())
            .stop(self.stop)
            .observe(OBSERVE, &observe);
        let metrics = pipeline.metrics();
        let result = pipeline.run();
        let outcome = match &result {
            Ok(End::Finished) => Outcome::Finished,
            Ok(End::Drained) | Err(Error::Stopped | Error::OutputClosed) => Outcome::Drained,
            Err(_) => Outcome::Failed,
        };
        let mut summary = reporter.summary(&metrics, outcome);
        summary.output = (self.mode == Mode::Store).then(|| self.place());
        summary.dead_letters = self.dead_letters(summary.records_rejected);
        if !self.is_visible(&result) {
            // One file is stored as a whole or not at all.
            (summary.records_stored, summary.bytes_out, summary.batches) = (0, 0, 0);
            (summary.output, summary.close_reasons) = (None, Default::default());
        }
        Done { summary: Some(summary), error: result.err() }
    }

    /// Whether what was stored can be seen: of one file only if the run came to its end.
    fn is_visible(&self, result: &Result<End>) -> bool {
        let Place::File(path) = &self.config.output.to else { return true };
        let device = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        device || matches!(result, Ok(End::Finished) | Err(Error::Damaged { .. }))
    }

    fn source(&self) -> Result<FileSource> {
        let (processing, input) = (&self.config.processing, &self.config.input);
        FileSource::new(FileOptions {
            inputs: input.files.clone(),
            format: input.format,
            max_record_bytes: input.max_record_bytes,
            shard: processing.shard,
            limit: processing.limit,
            window_limit: WINDOW.max(processing.memory_limit as u64 / 8),
            outputs: self.outputs(),
        })
    }

    /// What this run writes and therefore must not read. Not all of the output directory: `-o .` is fine.
    fn outputs(&self) -> Vec<PathBuf> {
        let (processing, output) = (&self.config.processing, &self.config.output);
        let root = match &output.to {
            Place::Dir(root) => Some(root),
            Place::File(_) | Place::Stdout | Place::Kafka(_) => None,
        };
        let mut places: Vec<PathBuf> = root.iter().map(|root| root.join(PROCESSED)).collect();
        places.extend(output.dead_letter_dir().or(root).map(|root| root.join(FAILED)));
        if let StateAt::Dir(dir) = &processing.state {
            places.push(dir.clone());
        }
        if let Place::File(path) = &output.to {
            places.extend(path.is_file().then(|| path.clone()));
        }
        if self.config.input.replay { self.but_for_replay(places) } else { places }
    }

    /// Dead letters are fed back from where the run writes: there, only what it rejects again is passed over.
    fn but_for_replay(&self, places: Vec<PathBuf>) -> Vec<PathBuf> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let namer = Namer::new("", self.config.output.codec);
        let again = |root: &Path, file: &String| {
            root.join(namer.directory(Stream::Failed, "file", &input_name(file)))
        };
        let narrow = |place: PathBuf| -> Vec<PathBuf> {
            let within = |file: &&String| real(Path::new(file)).starts_with(real(&place));
            let inside: Vec<&String> = self.config.input.files.iter().filter(within).collect();
            match (inside.is_empty(), place.parent()) {
                (false, Some(root)) => inside.into_iter().map(|file| again(root, file)).collect(),
                _ => vec![place],
            }
        };
        places.into_iter().flat_map(narrow).collect()
    }

    fn sink(&self, namer: &Namer) -> Result<Box<dyn Sink>> {
        let output = &self.config.output;
        if self.mode == Mode::Rehearse {
            return Ok(Box::new(Rehearsal::new(StdoutSink::new(Codec::None, self.stop)?)));
        }
        let fsync = if output.fsync { Fsync::On } else { Fsync::Off };
        let (codec, stop) = (output.codec, self.stop.clone());
        match &output.to {
            Place::Dir(root) => Ok(Box::new(DirSink::prepare(DirOptions {
                root: root.clone(),
                namer: namer.clone(),
                fsync,
                writers: WRITERS,
                dead_letter: output.dead_letter_dir().cloned(),
            })?)),
            Place::File(path) => self.with_letters(
                FileSink::create(FileTo { path: path.clone(), codec, fsync, stop })?,
                namer,
                fsync,
            ),
            Place::Stdout => self.with_letters(StdoutSink::new(codec, self.stop)?, namer, fsync),
            Place::Kafka(topic) => Err(Error::Usage(format!("this build cannot write to kafka:{topic} yet"))),
        }
    }

    fn with_letters<S: Sink + 'static>(&self, main: S, namer: &Namer, fsync: Fsync) -> Result<Box<dyn Sink>> {
        match self.config.output.dead_letter_dir() {
            Some(root) => Ok(Box::new(WithDeadLetters::prepare(main, root, namer.clone(), fsync)?)),
            None => Ok(Box::new(main)),
        }
    }

    fn recipe(&self, processed_by: String) -> Recipe {
        Recipe::new(RecipeOptions {
            envelope: self.config.output.envelope,
            transforms: self.transforms.to_vec(),
            processed_by,
            dead_letters: match self.config.processing.on_reject {
                OnReject::Drop => Letters::Drop,
                OnReject::DeadLetter | OnReject::Fail => Letters::Keep,
            },
            replay: if self.config.input.replay { Replay::Yes } else { Replay::No },
            output_cap: 4 * self.config.input.max_record_bytes as usize,
        })
    }

    fn settings(&self) -> Settings {
        let processing = &self.config.processing;
        let rehearsed = self.mode == Mode::Rehearse;
        Settings {
            workers: processing.workers.get(),
            limits: Limits {
                batch_size: processing.batch_size,
                batch_bytes: processing.batch_bytes,
                ..Limits::default()
            },
            batch_wait: processing.batch_wait.unwrap_or(Duration::from_secs(10)),
            memory_limit: processing.memory_limit,
            retry: processing.retry,
            codec: if rehearsed { Codec::None } else { self.config.output.codec },
            on_reject: processing.on_reject,
            max_rejected: processing.max_rejected,
            commit_interval: Duration::from_millis(500),
        }
    }

    /// Everything that decides which bytes a batch has and where it ends, for the state.
    fn settings_text(&self) -> Vec<(&'static str, String)> {
        let Config { processing, input, output, .. } = self.config;
        let format = match input.format {
            Format::Auto => "auto",
            Format::Ndjson => "ndjson",
            Format::Json => "json",
            Format::Text => "text",
            Format::Binary => "binary",
        };
        let envelope = match output.envelope {
            EnvelopeKind::Default => "default",
            EnvelopeKind::None => "none",
            EnvelopeKind::CloudEvents => "cloudevents",
        };
        // Whether a rejected record ends the run changes no byte of what is stored before it.
        let rejects = if processing.on_reject == OnReject::Drop { "drop" } else { "dead-letter" };
        vec![
            ("batch_size", processing.batch_size.to_string()),
            ("batch_bytes", processing.batch_bytes.to_string()),
            ("format", format.into()),
            ("max_record_bytes", input.max_record_bytes.to_string()),
            ("replay", input.replay.to_string()),
            ("compress", output.codec.to_string()),
            ("envelope", envelope.into()),
            ("on_reject", rejects.into()),
        ]
    }

    /// Where the state is kept, if anywhere.
    fn state_dir(&self) -> Option<PathBuf> {
        let processing = &self.config.processing;
        if self.mode == Mode::Rehearse || processing.limit.is_some() {
            return None;
        }
        let dir = match (&processing.state, &self.config.output.to) {
            (StateAt::Dir(dir), _) => dir.clone(),
            (StateAt::Output, Place::Dir(root)) => root.join(HIDDEN),
            (StateAt::Output, _) | (StateAt::None, _) => return None,
        };
        // What is fed back is another job than the one that rejected it, with inputs of its own.
        let dir = if self.config.input.replay { dir.join("replay") } else { dir };
        // Each job of an array has a state of its own: they run side by side.
        Some(match processing.shard {
            Some((index, count)) => dir.join(format!("shard-{index}-of-{count}")),
            None => dir,
        })
    }

    /// Where objects of earlier runs may stand, if the output has objects.
    fn leftovers(&self, namer: &Namer) -> Option<Leftovers> {
        let output = &self.config.output;
        match &output.to {
            Place::Dir(root) if self.mode == Mode::Store => Some(Leftovers {
                stored: root.clone(),
                failed: output.dead_letter_dir().unwrap_or(root).clone(),
                namer: namer.clone(),
                source: "file".into(),
            }),
            _ => None,
        }
    }

    fn processed_by(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.config.processing.processed_by.clone().unwrap_or_else(host)
    }

    /// The output as a user would name it.
    fn place(&self) -> String {
        match &self.config.output.to {
            Place::Dir(path) | Place::File(path) => path.display().to_string(),
            Place::Stdout => "stdout".into(),
            Place::Kafka(topic) => format!("kafka:{topic}"),
        }
    }

    /// Where dead letters are, if there can be any.
    fn dead_letters(&self, rejected: u64) -> Option<String> {
        let root = match (self.config.output.dead_letter_dir(), &self.config.output.to) {
            _ if rejected == 0 || self.mode == Mode::Rehearse => return None,
            _ if self.config.processing.on_reject != OnReject::DeadLetter => return None,
            (Some(root), _) | (None, Place::Dir(root)) => root,
            (None, _) => return None,
        };
        Some(root.join(FAILED).display().to_string())
    }
}
