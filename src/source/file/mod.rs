//! The file source: files, directories, pipes and stdin, plain or compressed.
//!
//! Owns which inputs there are, opening them and finding their records; parses nothing. Readers take inputs from
//! one queue in the order given. What a chunk holds depends on the bytes alone (`fill`), so a run that goes on
//! where another one was killed makes the same batches. Read `inputs` (what the arguments mean), `task` (one
//! input from opening to end), `bytes` (reading), `fill` (chunks), in this order; then `far` (which blocks of lines
//! workers read themselves, or count the lines of), `errand` (what they do), `tally` (how lines are numbered all the
//! same), `stock` (what they fetch for a reader that decodes).

mod ahead;
mod bytes;
mod entries;
mod errand;
mod far;
mod fill;
mod growth;
pub mod identity;
mod inputs;
mod stock;
mod tally;
mod task;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::config::Format;
use crate::error::{Error, Result};
use crate::record::{Chunk, Partition};
use crate::source::{Cuts, Mark, Read, Reader, Source, Start};
use crate::stop::Stop;

use growth::Growth;
use inputs::{Input, Place};
use task::{Step, Task};

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Files, directories and `-`, as they were given.
    pub inputs: Vec<String>,
    /// What is in them.
    pub format: Format,
    /// The longest record, at most 1 GiB; of a longer one only the first 4 KiB are kept.
    pub max_record_bytes: u64,
    /// Take every Nth input: index and count.
    pub shard: Option<(u32, u32)>,
    /// Stop after so many records. The inputs are read one after another then, and the one in which the limit is
    /// reached counts as ended there, so no state may be kept of such a run.
    pub limit: Option<u64>,
    /// The largest window of a zstd frame, in bytes.
    pub window_limit: u64,
    /// Files and directories that the run writes to: passed over where they are found in a directory, an error
    /// where they are named. They need not be there.
    pub outputs: Vec<PathBuf>,
}

/// The name that an input has which is given so: its path, lexically normalised.
pub fn input_name(given: &str) -> String {
    inputs::name(Path::new(given))
}

impl FileOptions {
    /// These inputs, everything else as the program has it by default.
    pub fn new(inputs: Vec<String>) -> Self {
        FileOptions {
            outputs: Vec::new(),
            inputs,
            format: Format::Auto,
            max_record_bytes: 16 << 20,
            shard: None,
            limit: None,
            window_limit: 8 << 20,
        }
    }
}

/// An input of a [`FileSource`].
#[derive(Clone, Debug)]
pub struct FileInput {
    /// Its partition; its name is the normalised path.
    pub partition: Partition,
    /// Where it really is; `None` for stdin.
    pub path: Option<PathBuf>,
    /// Its size in bytes; `None` for stdin, pipes and devices, of which nothing can be remembered.
    pub size: Option<u64>,
}

/// Reads files, directories, pipes and stdin.
pub struct FileSource(Arc<Shared>);

/// What all readers share.
struct Shared {
    options: FileOptions,
    inputs: Vec<Arc<Input>>,
    next: AtomicUsize,
    consumed: Arc<AtomicU64>,
    /// Bytes that count as read because an earlier run had read them.
    skipped: Arc<AtomicU64>,
    growth: Arc<Growth>,
    /// Whether workers read what readers need not.
    far: AtomicBool,
    /// How many there are.
    workers: AtomicUsize,
}

impl FileSource {
    /// Finds the inputs. Reads nothing of them.
    ///
    /// # Errors
    /// [`Error::Usage`] for an input that does not exist, is given twice, or cannot be read as a file;
    /// [`Error::Io`] for a directory that cannot be listed.
    pub fn new(options: FileOptions) -> Result<Self> {
        if options.max_record_bytes > 1 << 30 {
            return Err(Error::Usage(format!(
                "max_record_bytes is {}; at most 1GiB is possible",
                options.max_record_bytes
            )));
        }
        let inputs = inputs::expand(&options)?.into_iter().map(Arc::new).collect();
        let (consumed, skipped, growth) = (Arc::default(), Arc::default(), Arc::default());
        let (next, far, workers) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(1));
        Ok(FileSource(Arc::new(Shared { options, inputs, next, consumed, skipped, growth, far, workers })))
    }

    /// The inputs in the order in which they are read.
    pub fn inputs(&self) -> Vec<FileInput> {
        let input = |input: &Arc<Input>| FileInput {
            partition: input.partition.clone(),
            path: input.place.path().map(Path::to_owned),
            size: input.place.size(),
        };
        self.0.inputs.iter().map(input).collect()
    }

    /// Sets what stands for "now" in the batches of each input, by its name: milliseconds since the epoch. Has no
    /// effect once the source was opened.
    pub fn set_opened_at(&mut self, at: impl Fn(&str) -> i64) {
        let Some(shared) = Arc::get_mut(&mut self.0) else { return };
        for input in shared.inputs.iter_mut().filter_map(Arc::get_mut) {
            input.set_opened_at(at(input.partition.name()));
        }
    }

    /// Raw bytes that were read so far: of a compressed file, the compressed ones.
    pub fn consumed(&self) -> Arc<AtomicU64> {
        self.0.consumed.clone()
    }

    /// How many of them this run has passed over, since an earlier one had read them.
    pub fn skipped(&self) -> Arc<AtomicU64> {
        self.0.skipped.clone()
    }
}

impl Source for FileSource {
    fn open(&self, start: &Start<'_>) -> Result<Vec<Box<dyn Reader>>> {
        let load = |input: &Arc<Input>| match input.place {
            Place::Regular { .. } => {
                let mark = start.marks.load(input.partition.name())?;
                // Of 100,000 inputs most have no mark, or one of a partition that is here already.
                Ok(mark.map(|mark| Box::new(Mark { partition: input.partition.clone(), ..mark })))
            }
            // Nobody can go back in a pipe.
            _ => Ok(None),
        };
        let marks = Arc::new(self.0.inputs.iter().map(load).collect::<Result<Vec<_>>>()?);
        let readers = match self.0.options.limit {
            Some(_) => 1,
            None => start.readers.clamp(1, self.0.inputs.len().max(1)),
        };
        let reader = |_| -> Box<dyn Reader> {
            Box::new(FileReader {
                shared: self.0.clone(),
                marks: marks.clone(),
                stop: start.stop.clone(),
                left: self.0.options.limit,
                task: None,
            })
        };
        self.0.next.store(0, Ordering::Relaxed);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.0.workers.store(start.workers, Ordering::Relaxed);
        self.0.far.store(far::is_worth_it(start.workers, processors), Ordering::Relaxed);
        Ok((0..readers).map(reader).collect())
    }

    fn cuts(&self) -> Cuts {
        Cuts::Fixed
    }

    fn size(&self) -> Option<u64> {
        self.0.inputs.iter().map(|input| input.place.size()).sum()
    }
}

/// Reads inputs one after another.
struct FileReader {
    shared: Arc<Shared>,
    marks: Arc<Vec<Option<Box<Mark>>>>,
    stop: Stop,
    left: Option<u64>,
    task: Option<Task>,
}

impl Reader for FileReader {
    fn read(&mut self, chunk: &mut Chunk) -> Result<Read> {
        if !self.stop.is_running() {
            return Ok(Read::Done);
        }
        let Some(task) = &mut self.task else {
            return Ok(self.take());
        };
        let step = task.read(chunk, &self.shared, &self.stop);
        self.left = task.left();
        let partition = task.input().partition.clone();
        Ok(match step {
            Step::Chunk => Read::Chunk,
            Step::Idle => Read::Idle,
            Step::Ended => {
                self.task = None;
                Read::Ended(partition)
            }
            Step::Failed(error) => {
                self.task = None;
                Read::Failed(partition, error)
            }
        })
    }

    fn has_more_at_hand(&self) -> bool {
        // A pipe's next bytes may be long in coming.
        self.task.as_ref().is_none_or(|task| matches!(task.input().place, Place::Regular { .. }))
    }
}

impl FileReader {
    /// Takes the next input.
    fn take(&mut self) -> Read {
        if self.left == Some(0) {
            return Read::Done;
        }
        let index = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(input) = self.shared.inputs.get(index) else {
            return Read::Done;
        };
        let mark = self.marks[index].as_deref().cloned();
        self.task = Some(Task::new(input.clone(), mark.clone(), self.left));
        Read::Assigned(input.partition.clone(), mark)
    }
}
