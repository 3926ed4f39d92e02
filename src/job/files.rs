//! Jobs whose inputs are files: which they are, what earlier runs did of them, and what this one writes itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::memory::{Memory, Remember};
use super::report::Extent;
use super::{Done, FAILED, Job, Mode, PROCESSED, Parts, loops};
#[cfg(feature = "s3")]
use crate::config::s3::Conditional;
use crate::config::{Config, EnvelopeKind, Format, OnReject, Place, StateAt};
use crate::error::{Error, Result};
use crate::read::now;
use crate::sink::Stream;
use crate::sink::dir::temporary::HIDDEN;
use crate::sink::key::Namer;
use crate::source::file::{FileInput, FileOptions, FileSource, input_name};
#[cfg(feature = "s3")]
use crate::state::{BucketHome, BucketLeftovers};
use crate::state::{DirHome, DirLeftovers, Home, KEY, Leftovers};
use crate::summary::{Outcome, Summary};

/// The largest zstd window that needs no larger `memory_limit`.
const WINDOW: u64 = 8 << 20;

impl Job<'_> {
    /// Files in: their state is beside the output, or where `--state` says.
    pub(super) fn run_files(&self) -> Result<Done> {
        let mut source = self.source()?;
        let namer = self.config.namer();
        let inputs = source.inputs();
        if self.config.output.to == Place::Stdout && self.mode == Mode::Store {
            loops::refuse(&inputs)?;
        }
        let clash = namer.clash("file", inputs.iter().map(|input| input.partition.name()));
        if let Some((one, other)) = clash {
            return Err(Error::Usage(format!("inputs {one} and {other} would be stored under one name")));
        }
        self.check_lengths(&inputs)?;
        self.check_memory(&source)?;
        let sink = self.sink(&namer)?;
        let memory = Memory::open(self.remember(&namer)?, &inputs)?;
        if let Some(rejected) = memory.nothing_to_do() {
            let summary =
                Summary { outcome: Outcome::NothingToDo, rejected_earlier: rejected, ..Summary::default() };
            let summary =
                Summary { output: Some(self.place()), dead_letters: self.dead_letters(rejected), ..summary };
            return Ok(Done { summary: Some(summary), error: None });
        }
        // What is remembered of 100,000 of them is enough to hold.
        drop(inputs);
        memory.begin()?;
        source.set_opened_at(|name| memory.started_at(name));
        let recipe = self.recipe(memory.processed_by(), &sink.shape())?;
        let (marks, consumed) = (Some(memory.marks()), source.consumed());
        Ok(self.engine(&Parts {
            source: &source,
            recipe: &recipe,
            sink: &*sink,
            marks,
            consumed,
            skipped: source.skipped(),
            paged: false,
            extent: Extent::Open,
            rejected: memory.rejected(),
            tend: &|| memory.tend(),
        }))
    }

    fn remember(&self, namer: &Namer) -> Result<Remember> {
        Ok(Remember {
            state: self.state_home()?,
            leftovers: self.leftovers(namer, "file")?,
            place: self.place(),
            settings: self.settings_of_files(),
            processed_by: self.processed_by(),
            now: now(),
            fresh: self.config.processing.fresh,
        })
    }

    /// Whether earlier runs left anything that this one could go on with. Only looks.
    ///
    /// # Errors
    /// If it could not go on with what is there.
    pub(super) fn look_at_files(&self) -> Result<bool> {
        let is_known = |input: &FileInput| input.size.is_some();
        let inputs = self.source()?.inputs();
        Ok(inputs.iter().any(is_known) && self.remember(&self.config.namer())?.look(&inputs)?)
    }

    /// Names must be possible before anything is stored under the first of them.
    fn check_lengths(&self, inputs: &[FileInput]) -> Result<()> {
        let named = matches!(self.config.output.to, Place::Dir(_) | Place::S3 { .. });
        let too_long = |input: &FileInput| self.config.too_long(&input.partition);
        match inputs.iter().filter(|_| named).find_map(too_long) {
            Some(why) => Err(Error::Usage(why)),
            None => Ok(()),
        }
    }

    pub(super) fn source(&self) -> Result<FileSource> {
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
            Place::File(_) | Place::Stdout | Place::Kafka(_) | Place::S3 { .. } => None,
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
        let output = &self.config.output;
        let namer = Namer::new("", output.codec).with_template(output.key.clone());
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

    /// Everything that decides which bytes a batch has and where it ends, for the state.
    fn settings_of_files(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.settings_text();
        settings.push(("replay", self.config.input.replay.to_string()));
        settings
    }

    /// The part of it that is the same whatever is read.
    pub(super) fn settings_text(&self) -> Vec<(&'static str, String)> {
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
        let mut settings = vec![
            ("batch_size", processing.batch_size.to_string()),
            ("batch_bytes", processing.batch_bytes.to_string()),
            ("format", format.into()),
            ("max_record_bytes", input.max_record_bytes.to_string()),
            ("compress", output.codec.to_string()),
            ("envelope", envelope.into()),
            ("on_reject", rejects.into()),
        ];
        settings.extend(output.key.as_ref().map(|key| (KEY, key.to_string())));
        settings
    }

    /// Where the state is kept, if anywhere.
    pub(super) fn state_home(&self) -> Result<Option<Arc<dyn Home>>> {
        let processing = &self.config.processing;
        if self.mode == Mode::Rehearse || processing.limit.is_some() {
            return Ok(None);
        }
        Ok(match (&processing.state, &self.config.output.to) {
            (StateAt::Dir(dir), _) => Some(Arc::new(DirHome(self.own(dir.clone())))),
            (StateAt::Output, Place::Dir(root)) => Some(Arc::new(DirHome(self.own(root.join(HIDDEN))))),
            #[cfg(feature = "s3")]
            (StateAt::Output, Place::S3 { bucket, prefix }) => {
                let dir = self.own(PathBuf::from(HIDDEN)).display().to_string();
                let conditional = self.config.s3.conditional != Conditional::Off;
                let (bucket, prefix) = (self.bucket(bucket)?, format!("{prefix}{dir}/"));
                Some(Arc::new(BucketHome::new(bucket, prefix, self.tries(), conditional)))
            }
            (StateAt::Output, _) | (StateAt::None, _) => None,
        })
    }

    /// The corner of a state's directory that belongs to this job.
    fn own(&self, dir: PathBuf) -> PathBuf {
        // What is fed back is another job than the one that rejected it, with inputs of its own.
        let dir = if self.config.input.replay { dir.join("replay") } else { dir };
        // Each job of an array has a state of its own: they run side by side.
        match self.config.processing.shard {
            Some((index, count)) => dir.join(format!("shard-{index}-of-{count}")),
            None => dir,
        }
    }

    /// Where objects of earlier runs may stand, if the output has objects.
    pub(super) fn leftovers(&self, namer: &Namer, source: &str) -> Result<Option<Leftovers>> {
        let output = &self.config.output;
        Ok(match &output.to {
            Place::Dir(root) if self.mode == Mode::Store => Some(Leftovers::Dir(DirLeftovers {
                stored: root.clone(),
                failed: output.dead_letter_dir().unwrap_or(root).clone(),
                namer: namer.clone(),
                source: source.into(),
            })),
            #[cfg(feature = "s3")]
            Place::S3 { bucket, .. } if self.mode == Mode::Store => {
                let (bucket, tries) = (self.bucket(bucket)?, self.tries());
                Some(Leftovers::Bucket(BucketLeftovers::new(bucket, namer.clone(), source.into(), tries)))
            }
            _ => None,
        })
    }
}
