//! What the arguments mean: from names to inputs, each once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::record::{Identity, Partition};

use super::FileOptions;

/// One input.
pub(super) struct Input {
    pub(super) partition: Partition,
    pub(super) place: Place,
}

impl Input {
    /// Sets what stands for "now" in its batches.
    pub(super) fn set_opened_at(&mut self, at: i64) {
        let identity = self.partition.identity().clone();
        self.partition = Partition::new(Identity { opened_at: Some(at), ..identity });
    }
}

/// Where an input is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Regular {
        path: PathBuf,
        size: u64,
    },
    /// A pipe or a character device.
    Device {
        path: PathBuf,
    },
    Stdin,
}

impl Place {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Place::Regular { path, .. } | Place::Device { path } => Some(path),
            Place::Stdin => None,
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Place::Regular { size, .. } => Some(*size),
            _ => None,
        }
    }
}

/// The inputs that the options name, in order.
pub(super) fn expand(options: &FileOptions) -> Result<Vec<Input>> {
    // Where nothing stands yet, there is nothing to pass over.
    let own = options.outputs.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut found = Found { own, ..Found::default() };
    for given in &options.inputs {
        if given == "-" {
            found.add("stdin".into(), Place::Stdin, given)?;
            continue;
        }
        let path = Path::new(given);
        let metadata = fs::metadata(path).map_err(|error| missing(path, error))?;
        let before = found.inputs.len();
        if metadata.is_dir() {
            found.walk(path, given)?;
            if found.inputs.len() == before {
                let but =
                    if found.passed_over { " but what this run writes" } else { ", or only hidden ones" };
                return Err(Error::Usage(format!(
                    "directory {given} has no file in it{but}; name one with files"
                )));
            }
        } else {
            found.add_named(path, place(path, &metadata)?, given)?;
        }
    }
    let mut inputs = found.inputs;
    if let Some((index, count)) = options.shard {
        let mut at = 0;
        inputs.retain(|_| {
            at += 1;
            (at - 1) % count.max(1) == index
        });
    }
    Ok(inputs)
}

#[derive(Default)]
struct Found<'a> {
    inputs: Vec<Input>,
    /// Which argument named an input: by name, and by real path.
    names: HashMap<String, &'a str>,
    real: HashMap<PathBuf, &'a str>,
    /// Where the run writes, by real path. There may be thousands: one for each input that is replayed.
    own: HashSet<PathBuf>,
    /// Whether any of that was found.
    passed_over: bool,
}

impl<'a> Found<'a> {
    /// A file that was named.
    fn add_named(&mut self, path: &Path, place: Place, given: &'a str) -> Result<()> {
        let real = real(path);
        if self.is_own(&real) {
            return own(path);
        }
        self.add_file(path, real, place, given)
    }

    /// A file that is not what the run writes.
    fn add_file(&mut self, path: &Path, real: PathBuf, place: Place, given: &'a str) -> Result<()> {
        // A link to an input is that input: reading it as well would store its records twice.
        if let Some(other) = self.real.get(&real) {
            return Err(twice(&path.display().to_string(), given, other));
        }
        self.real.insert(real, given);
        self.add(name(path), place, given)
    }

    fn add(&mut self, name: String, place: Place, given: &'a str) -> Result<()> {
        if let Some(other) = self.names.get(&name) {
            return Err(twice(&name, given, other));
        }
        self.names.insert(name.clone(), given);
        let identity = Identity {
            source: "file",
            metadata: format!("\"path\":{}", serde_json::Value::String(name.clone())),
            name,
            position: "offset",
            opened_at: Some(0),
            once: place.size().is_none(),
            ..Identity::default()
        };
        self.inputs.push(Input { partition: Partition::new(identity), place });
        Ok(())
    }

    fn is_own(&self, real: &Path) -> bool {
        !self.own.is_empty() && real.ancestors().any(|path| self.own.contains(path))
    }

    /// All files below a directory, but not what the run itself writes. A link in it to an input that is there
    /// anyway is passed over.
    fn walk(&mut self, root: &Path, given: &'a str) -> Result<()> {
        if self.is_own(&real(root)) {
            return own(root);
        }
        let files = self.files_below(root)?;
        let mut parent = Parent::default();
        let plain: HashSet<PathBuf> = match files.iter().any(|file| file.is_link) {
            true => files.iter().filter(|file| !file.is_link).map(|file| parent.real(&file.path)).collect(),
            false => HashSet::new(),
        };
        for File { path, size, is_link } in files {
            let real = if is_link { real(&path) } else { parent.real(&path) };
            if is_link && (plain.contains(&real) || self.real.contains_key(&real)) {
                log::warn!("{} is a link to another input and is passed over", path.display());
            } else if self.is_own(&real) {
                self.pass_over(&path);
            } else {
                self.add_file(&path, real, Place::Regular { path: path.clone(), size }, given)?;
            }
        }
        Ok(())
    }

    /// All files below a directory, sorted by name, without hidden ones. Iterative: depth costs
    /// no stack. A directory that links lead to again is listed once, under the name that has no link in it: a link
    /// that is made later does not give its files other names.
    fn files_below(&mut self, root: &Path) -> Result<Vec<File>> {
        let (mut open, mut links) = (vec![root.to_owned()], VecDeque::new());
        let (mut seen, mut files) = (HashSet::new(), Vec::new());
        let next = |open: &mut Vec<PathBuf>, links: &mut VecDeque<PathBuf>| {
            let plain = open.pop().map(|path| (path, false));
            plain.or_else(|| links.pop_front().map(|path| (path, true)))
        };
        while let Some((path, is_link)) = next(&mut open, &mut links) {
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if leads_nowhere(&error) => {
                    log::warn!("{} leads nowhere and is passed over", path.display());
                    continue;
                }
                Err(error) => return Err(Error::io("open", path, error)),
            };
            if metadata.is_dir() {
                let real = real(&path);
                if self.is_own(&real) {
                    self.pass_over(&path);
                } else if seen.insert(real) {
                    let (linked, plain): (Vec<_>, Vec<_>) =
                        list(&path)?.into_iter().partition(|(_, is_link)| *is_link);
                    open.extend(plain.into_iter().rev().map(|(path, _)| path));
                    links.extend(linked.into_iter().map(|(path, _)| path));
                }
            } else if metadata.is_file() {
                files.push(File { path, size: metadata.len(), is_link });
            } else {
                log::warn!("{} is no regular file and is passed over", path.display());
            }
        }
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    fn pass_over(&mut self, path: &Path) {
        self.passed_over = true;
        log::info!("{} is what this run writes, and is passed over", path.display());
    }
}

/// A file that was found in a directory.
struct File {
    path: PathBuf,
    size: u64,
    is_link: bool,
}

/// The directory that was looked at last, by its name and by its real path. Files come by directory: to ask for the kind
/// and the real path of each of 100,000 took 3 of the 5 seconds of system time that a run with nothing to do had.
#[derive(Default)]
struct Parent {
    path: PathBuf,
    real: PathBuf,
}

impl Parent {
    /// The real path of a file that is no link.
    fn real(&mut self, path: &Path) -> PathBuf {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return real(path) };
        if self.path != parent {
            (self.path, self.real) = (parent.to_owned(), real(parent));
        }
        self.real.join(name)
    }
}

/// Whether there is nothing behind a name, or only links that lead to each other.
fn leads_nowhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// What stands in a directory, sorted, without hidden names, and whether it is a link.
fn list(directory: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let failed = |error| Error::io("list", directory, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().as_bytes().starts_with(b".") {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            paths.push((entry.path(), is_link));
        }
    }
    // As paths compare, part by part, but quicker: all but the last is the same.
    paths.sort_unstable_by(|one, other| one.0.as_os_str().cmp(other.0.as_os_str()));
    Ok(paths)
}

fn place(path: &Path, metadata: &Metadata) -> Result<Place> {
    let (path, kind) = (path.to_owned(), metadata.file_type());
    if kind.is_file() {
        return Ok(Place::Regular { path, size: metadata.len() });
    }
    if kind.is_fifo() || kind.is_char_device() {
        return Ok(Place::Device { path });
    }
    let kind = if kind.is_socket() { "a socket" } else { "a block device" };
    Err(Error::Usage(format!(
        "input {} is {kind}; a file, a directory or a pipe was expected",
        path.display()
    )))
}

fn twice(name: &str, given: &str, other: &str) -> Error {
    let how =
        if given == other { format!("by {given}, twice") } else { format!("by {other} and by {given}") };
    Error::Usage(format!("input {name} is given {how}; name it once"))
}

/// What shells make of `<(command)` has no real path.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Reading what the run itself writes would never end, or destroy the input.
fn own(path: &Path) -> Result<()> {
    let path = path.display();
    Err(Error::Usage(format!(
        "input {path} is where this run writes; name another input or another --output"
    )))
}

fn missing(path: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory {
        return Error::io("open", path, error);
    }
    let near = nearest(path).map_or(String::new(), |near| format!("; did you mean {}?", near.display()));
    Error::Usage(format!("input {} does not exist{near}", path.display()))
}

/// The name beside it that differs least, if it does so little.
fn nearest(path: &Path) -> Option<PathBuf> {
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let (near, _) = names
        .map(|name| (distance(&wanted, &name), name))
        .filter(|(distance, _)| *distance > 0 && *distance <= (wanted.chars().count() / 3).max(1))
        .min()
        .map(|(distance, name)| (name, distance))?;
    Some(parent.map_or_else(|| PathBuf::from(&near), |parent| parent.join(&near)))
}

/// How many characters must be changed, added or taken away (Levenshtein 1966).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The partition's name: the path as given, lexically normalised. Of a name that is not UTF-8 what can be read, and
/// a hash.
pub(super) fn name(path: &Path) -> String {
    let mut parts: Vec<&OsStr> = Vec::new();
    let mut rooted = false;
    for component in path.components() {
        match component {
            Component::RootDir => rooted = true,
            Component::ParentDir if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            Component::ParentDir if rooted => {}
            Component::ParentDir => parts.push(OsStr::new("..")),
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let joined = parts.join(OsStr::new("/"));
    let root = if rooted { "/" } else { "" };
    match joined.to_str() {
        Some(name) => format!("{root}{name}"),
        None => {
            let hash = Sha256::digest(joined.as_bytes());
            let hash: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{root}{}-{hash}", joined.to_string_lossy())
        }
    }
}
