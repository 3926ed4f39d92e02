//! What a file run remembers: joins the inputs ([`FileInput`]) and the [`State`] beside the output, where both
//! can be remembered. Pipes and stdin cannot be read twice, so nothing is remembered of them; neither is there a
//! state with `--state none`, `--limit`, or an output that is one stream. There, objects of the same names that
//! exist already are an error, because nobody knows whether they would be replaced by the same records.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::record::Partition;
use crate::sink::dir::place::{is_absent, make_dir};
use crate::source::file::FileInput;
use crate::source::file::identity::{Fingerprint, compare, fingerprint};
use crate::source::{Cuts, Forget, Mark, Marks, Same};
use crate::state::{Claims, Fresh, Home, Identify, Leftovers, Outcome, State, StateOptions};

/// What memory is opened with.
pub(super) struct Remember {
    /// Where the state is kept, if there is one.
    pub state: Option<Arc<dyn Home>>,
    /// Where objects of earlier runs may stand.
    pub leftovers: Option<Leftovers>,
    /// What the output is called.
    pub place: String,
    /// What decides which bytes a batch has.
    pub settings: Vec<(&'static str, String)>,
    /// What envelopes call this machine.
    pub processed_by: String,
    /// Milliseconds since the epoch.
    pub now: i64,
    /// Whether the run begins again.
    pub fresh: bool,
}

/// What a run remembers of earlier ones.
pub(super) struct Memory {
    remember: Remember,
    state: Option<(Arc<State>, Outcome)>,
    /// Inputs that the state knows.
    known: Vec<String>,
    /// Inputs that nothing is remembered of.
    passing: Vec<String>,
    /// Keeps them from other runs.
    claims: Claims,
}

impl Memory {
    /// Looks at what earlier runs did. Changes nothing but the locks.
    ///
    /// # Errors
    /// If this run cannot go on where the earlier ones stopped.
    pub(super) fn open(remember: Remember, inputs: &[FileInput]) -> Result<Self> {
        let name = |input: &FileInput| input.partition.name().to_owned();
        let (known, passing): (Vec<_>, Vec<_>) =
            inputs.iter().partition(|input| input.size.is_some() && remember.state.is_some());
        let paths = Paths::of(known.iter().copied());
        let (known, passing): (Vec<_>, Vec<_>) =
            (known.into_iter().map(name).collect(), passing.into_iter().map(name).collect());
        let state = match &remember.state {
            Some(home) if !known.is_empty() => Some(open_state(&remember, home.clone(), paths, &known)?),
            _ => None,
        };
        let names: Vec<&str> = passing.iter().map(String::as_str).collect();
        let leftovers = remember.leftovers.as_ref();
        let claims = leftovers.map(|leftovers| leftovers.take(&names, remember.fresh)).transpose()?;
        Ok(Memory { remember, state, known, passing, claims: claims.unwrap_or_default() })
    }

    /// How many records were rejected, if everything is stored already.
    pub(super) fn nothing_to_do(&self) -> Option<u64> {
        match &self.state {
            Some((_, Outcome::NothingToDo { rejected })) if self.passing.is_empty() => Some(*rejected),
            _ => None,
        }
    }

    /// How many records were rejected by the interrupted run that this one goes on with.
    pub(super) fn rejected(&self) -> u64 {
        match &self.state {
            Some((_, Outcome::Resume(resume))) => resume.rejected,
            _ => 0,
        }
    }

    /// Makes the run's start durable, and deletes what a fresh run replaces.
    pub(super) fn begin(&self) -> Result<()> {
        if let Some((state, outcome)) = &self.state {
            state.begin(self.known.iter().map(String::as_str), outcome)?;
            if let Outcome::Resume(resume) = outcome {
                log::info!(
                    "going on where the last run stopped: {} inputs done, {} begun, {} new, {} grown",
                    resume.done,
                    resume.open,
                    resume.new,
                    resume.grown.len()
                );
            }
        }
        if let Some(leftovers) = self.remember.leftovers.as_ref().filter(|_| self.remember.fresh) {
            self.claims.remove(leftovers, self.passing.iter().map(String::as_str))?;
        }
        Ok(())
    }

    /// The start that batches of this input carry.
    pub(super) fn started_at(&self, name: &str) -> i64 {
        self.state.as_ref().map_or(self.remember.now, |(state, _)| state.started_at_of(name))
    }

    /// What envelopes call this machine.
    pub(super) fn processed_by(&self) -> String {
        self.state
            .as_ref()
            .map_or_else(|| self.remember.processed_by.clone(), |(state, _)| state.processed_by())
    }

    /// Keeps the lock of the state, and what is claimed.
    ///
    /// # Errors
    /// If another run has it.
    pub(super) fn tend(&self) -> Result<()> {
        self.state.as_ref().map_or(Ok(()), |(state, _)| state.tend())?;
        self.claims.tend()
    }

    /// Where marks are stored.
    pub(super) fn marks(&self) -> Arc<dyn Marks> {
        match &self.state {
            Some((state, _)) => {
                Arc::new(Known { state: state.clone(), passing: self.passing.iter().cloned().collect() })
            }
            None => Arc::new(Forget),
        }
    }
}

impl Remember {
    /// Whether there is anything that this run could go on with. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// If this run could not go on with what is there.
    pub(super) fn look(&self, inputs: &[FileInput]) -> Result<bool> {
        let Some(home) = &self.state else { return Ok(false) };
        // Who asks what the output is called makes its directory.
        Ok(home.read()?.is_some() && State::look(&self.options(home.clone(), Paths::of(inputs))?)?)
    }

    fn options(&self, home: Arc<dyn Home>, paths: Paths) -> Result<StateOptions> {
        let settings = self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Ok(StateOptions {
            output: output_of(&*home, self.leftovers.as_ref(), &self.place)?,
            home,
            settings: settings.collect(),
            source: "file",
            processed_by: self.processed_by.clone(),
            now_ms: self.now,
            fresh: if self.fresh { Fresh::Yes } else { Fresh::No },
            identify: Arc::new(paths),
            cuts: Cuts::Fixed,
            leftovers: self.leftovers.clone(),
        })
    }
}

fn open_state(
    remember: &Remember,
    home: Arc<dyn Home>,
    paths: Paths,
    known: &[String],
) -> Result<(Arc<State>, Outcome)> {
    let state = State::open(remember.options(home, paths)?)?;
    let outcome = state.outcome(known.iter().map(String::as_str))?;
    if !remember.fresh {
        for (name, watermark) in state.abandoned(known) {
            log::warn!("{name} is stored up to byte {watermark} only, and is not among the inputs any more");
        }
    }
    Ok((Arc::new(state), outcome))
}

/// What the state calls its output, which is `place` where it has no objects. Not as it was written where it has: `out`
/// is another directory in another place.
pub(super) fn output_of(home: &dyn Home, leftovers: Option<&Leftovers>, place: &str) -> Result<String> {
    let leftovers = match leftovers {
        None => return Ok(place.to_owned()),
        #[cfg(feature = "s3")]
        Some(Leftovers::Bucket(bucket)) if home.dir().is_some() => return Ok(bucket.url()),
        #[cfg(feature = "s3")]
        Some(Leftovers::Bucket(_)) => return Ok("here".to_owned()),
        Some(Leftovers::Dir(dir)) => dir,
    };
    let Some(dir) = home.dir() else { return Ok(leftovers.stored.display().to_string()) };
    // Who only looks has not made it.
    let missing = |error: io::Error, path: &Path| match error.kind() {
        io::ErrorKind::NotFound => path::absolute(path),
        _ => Err(error),
    };
    let real = |path: &Path| {
        let found = fs::canonicalize(path).or_else(|error| missing(error, path));
        found.map_err(|error| Error::io("find", path, error))
    };
    make_dir(dir)?;
    let stored = real(&leftovers.stored)?;
    Ok(match real(dir)?.starts_with(&stored) {
        // The state stands inside its output: the output may be moved with it.
        true => "here".to_owned(),
        false => stored.display().to_string(),
    })
}

/// Where the inputs are, by name, and what they were when the run began.
struct Paths(HashMap<String, Seen>);

impl Paths {
    /// Pipes and stdin are not among them.
    fn of<'a>(inputs: impl IntoIterator<Item = &'a FileInput>) -> Self {
        let named = |input: &FileInput| Some((input.partition.name().to_owned(), Seen::new(input)?));
        Paths(inputs.into_iter().filter_map(named).collect())
    }
}

/// What an input was when the run began. A mark must not be stored with the fingerprint of what another file, or
/// other bytes, have made of it meanwhile: the next run would take those for the ones that were read.
struct Seen {
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
    /// Hash of its beginning, and how many bytes that is.
    head: OnceLock<(String, u64)>,
}

impl Seen {
    fn new(input: &FileInput) -> Option<Self> {
        let (path, len) = (input.path.clone()?, input.size?);
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        Some(Seen { path, len, modified, head: OnceLock::new() })
    }

    /// Whether bytes that were there may be others now. A file that has grown may still be the same in front.
    fn is_disturbed(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |now| {
            now.len() < self.len || (now.len() == self.len && now.modified().ok() != self.modified)
        })
    }

    /// Its fingerprint as far as `watermark`; one that fits no file if it was disturbed.
    fn fingerprint(&self, watermark: u64) -> Result<Fingerprint> {
        let mut print = match fingerprint(&self.path, Some(watermark), self.len) {
            // It was removed while it was read, and that is no fault: it was open.
            Err(Error::Io { source, .. }) if is_absent(&source) => Fingerprint::default(),
            print => print?,
        };
        if self.is_disturbed() {
            print.block = "changed while it was read".into();
        }
        let head = self.head.get_or_init(|| (print.head.clone(), print.head_len));
        (print.len, (print.head, print.head_len)) = (self.len, head.clone());
        Ok(print)
    }
}

impl Identify for Paths {
    fn identify(&self, partition: &str, watermark: u64) -> Result<Option<Value>> {
        let Some(seen) = self.0.get(partition) else { return Ok(None) };
        Ok(serde_json::to_value(seen.fingerprint(watermark)?).ok())
    }

    fn compare(&self, partition: &str, watermark: u64, old: &Value) -> Result<Same> {
        let Some(seen) = self.0.get(partition) else { return Ok(Same::Unchanged) };
        match serde_json::from_value::<Fingerprint>(old.clone()) {
            Ok(old) => {
                let same = compare(&old, watermark, &seen.path)?;
                let _ = seen.head.set((old.head, old.head_len));
                Ok(same)
            }
            Err(error) => {
                Ok(Same::Changed { what: format!("the state's identity of {partition} is damaged: {error}") })
            }
        }
    }
}

/// The marks of inputs that the state knows: of all but those that pass.
struct Known {
    state: Arc<State>,
    passing: std::collections::HashSet<String>,
}

impl Marks for Known {
    fn load(&self, partition: &str) -> Result<Option<Mark>> {
        if self.passing.contains(partition) { Ok(None) } else { self.state.load(partition) }
    }

    fn store(&self, marks: &mut [Mark], refused: &mut Vec<Partition>) -> Result<()> {
        let known = |mark: &&Mark| !self.passing.contains(mark.partition.name());
        let mut marks: Vec<Mark> = marks.iter().filter(known).cloned().collect();
        if marks.is_empty() { Ok(()) } else { self.state.store(&mut marks, refused) }
    }

    fn finished(&self) -> Result<()> {
        self.state.finished()
    }
}
