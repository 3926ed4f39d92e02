//! [`Leftovers`]: what earlier runs left in an output, and [`DirLeftovers`]: in a directory, under the names of given
//! partitions. It looks at, and deletes, only files that are named like a batch's object and stand directly in a
//! partition's directory, and follows no symbolic link to get to what a state does not know.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "s3")]
use super::BucketLeftovers;
use super::Claims;
use crate::error::{Error, Result};
use crate::sink::Stream;
use crate::sink::dir::place::{is_absent, sync_dir};
use crate::sink::dir::temporary::Temporary;
use crate::sink::key::{Namer, Template, is_cycle};

/// Where the objects of an output are.
#[derive(Clone, Debug)]
pub enum Leftovers {
    /// Below directories.
    Dir(DirLeftovers),
    /// In a bucket.
    #[cfg(feature = "s3")]
    Bucket(BucketLeftovers),
}

impl Leftovers {
    /// The same place, with the names that `template` gives; the default ones if it is empty.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no template.
    pub fn named(&self, template: &str) -> Result<Self> {
        let template = (!template.is_empty()).then(|| Template::parse(template)).transpose();
        let template =
            template.map_err(|why| Error::Usage(format!("earlier names cannot be read: {why}")))?;
        let mut other = self.clone();
        let namer = match &mut other {
            Leftovers::Dir(dir) => &mut dir.namer,
            #[cfg(feature = "s3")]
            Leftovers::Bucket(bucket) => bucket.namer(),
        };
        *namer = namer.clone().with_template(template);
        Ok(other)
    }

    /// Takes partitions of which nothing is remembered: no run that is at work stores where they are stored, and none of
    /// their objects is there already, unless the run is to be `fresh`. What is returned is to be kept while the run
    /// lasts.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Changed`], or what keeps that from being known.
    pub fn take(&self, names: &[&str], fresh: bool) -> Result<Claims> {
        if names.is_empty() {
            return Ok(Claims::default());
        }
        let mut claims = Claims::default();
        match self {
            Leftovers::Dir(dir) => claims.dirs = dir.claim(names)?,
            #[cfg(feature = "s3")]
            Leftovers::Bucket(bucket) => claims.bucket = Some(bucket.claim(names)?),
        }
        if !fresh && let Some(object) = self.existing(names.iter().copied())?.first() {
            let what = format!("{object} is there already, and nothing is remembered of how it was made");
            return Err(Error::Changed { what });
        }
        Ok(claims)
    }

    /// One object of each stream and partition that has any: what a stateless run would mix with its own.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn existing<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        match self {
            Leftovers::Dir(dir) => {
                let found = dir.existing(names)?;
                Ok(found.into_iter().map(|path| path.display().to_string()).collect())
            }
            #[cfg(feature = "s3")]
            Leftovers::Bucket(bucket) => bucket.existing(names),
        }
    }

    /// Deletes all objects of these partitions. Durable on return. Tells how many it deleted.
    ///
    /// # Errors
    /// If something cannot be deleted.
    pub fn remove<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        match self {
            Leftovers::Dir(dir) => dir.remove(names),
            #[cfg(feature = "s3")]
            Leftovers::Bucket(bucket) => bucket.remove(names),
        }
    }

    /// Deletes the objects of a partition that begin at `watermark` or behind it: a run that was killed had
    /// published them, and they are made again. If the input has changed there since, which nothing tells, they
    /// may be cut elsewhere, and the old ones would stay beside the new.
    ///
    /// # Errors
    /// If one cannot be deleted.
    pub fn remove_from(&self, name: &str, watermark: u64) -> Result<u64> {
        match self {
            Leftovers::Dir(dir) => dir.remove_from(name, watermark),
            #[cfg(feature = "s3")]
            Leftovers::Bucket(bucket) => bucket.remove_from(name, watermark),
        }
    }
}

/// Objects below directories.
#[derive(Clone, Debug)]
pub struct DirLeftovers {
    /// The directory under which `processed/` stands.
    pub stored: PathBuf,
    /// The directory under which `failed/` stands.
    pub failed: PathBuf,
    /// Their names.
    pub namer: Namer,
    /// The kind of source that the partitions belong to.
    pub source: String,
}

impl DirLeftovers {
    fn claim(&self, names: &[&str]) -> Result<Vec<Arc<Temporary>>> {
        // Others may store in the same directory, under other names.
        let place = |stream, name| format!("{name} in {}", self.namer.directory(stream, &self.source, name));
        let places = |stream| names.iter().map(move |name| place(stream, name)).collect::<Vec<_>>();
        let mut all = vec![(&self.stored, places(Stream::Stored))];
        match self.stored == self.failed {
            true => all[0].1.extend(places(Stream::Failed)),
            false => all.push((&self.failed, places(Stream::Failed))),
        }
        let claim = |(root, places): (&PathBuf, Vec<String>)| {
            let temporary = Temporary::create(root)?;
            temporary.claim(&places)?;
            Ok(temporary)
        };
        all.into_iter().map(claim).collect()
    }

    /// One object of each stream and partition that has any: what a stateless run would mix with its own.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn existing<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for name in names {
            for (_, dir) in self.directories(name)? {
                found.extend(self.objects(&dir)?.into_iter().map(|(_, path)| path).min());
            }
        }
        Ok(found)
    }

    /// Deletes all objects of these partitions, then the directories that are empty. Durable on return. Tells
    /// how many files it deleted.
    ///
    /// # Errors
    /// If something cannot be deleted, or a symbolic link is in the way.
    pub fn remove<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        let mut count = 0;
        for name in names {
            for (root, dir) in self.directories(name)? {
                count += self.remove_objects(root, &dir)?;
            }
        }
        Ok(count)
    }

    /// Deletes the objects of a partition from `watermark` on. Follows links: these names are ours.
    ///
    /// # Errors
    /// If one cannot be deleted.
    pub fn remove_from(&self, name: &str, watermark: u64) -> Result<u64> {
        let mut count = 0;
        for (_, dir) in self.directories(name)? {
            let mut behind = self.objects(&dir)?;
            behind.retain(|(start, _)| *start >= watermark);
            for (_, object) in &behind {
                fs::remove_file(object).map_err(|error| Error::io("remove", object, error))?;
            }
            if !behind.is_empty() {
                sync_dir(&dir)?;
            }
            count += behind.len() as u64;
        }
        Ok(count)
    }

    /// The directories in which objects of a partition may be: of an endpoint, one for each pass over it.
    fn directories(&self, name: &str) -> Result<Vec<(&Path, PathBuf)>> {
        let mut found = Vec::new();
        for (stream, root) in [(Stream::Stored, &self.stored), (Stream::Failed, &self.failed)] {
            let dir = root.join(self.namer.directory(stream, &self.source, name));
            match self.source == "http" {
                true => found.extend(cycles(&dir)?.into_iter().map(|dir| (root.as_path(), dir))),
                false => found.push((root.as_path(), dir)),
            }
        }
        Ok(found)
    }

    fn remove_objects(&self, root: &Path, dir: &Path) -> Result<u64> {
        if let Some(link) = link_between(root, dir) {
            return Err(Error::Usage(format!(
                "{} is a symbolic link; --fresh does not delete what is behind it: do so by hand",
                link.display()
            )));
        }
        let objects = self.objects(dir)?;
        for (_, object) in &objects {
            fs::remove_file(object).map_err(|error| Error::io("remove", object, error))?;
        }
        // The directories above may be empty now; the first one that is not stays, and so do those above it.
        let mut left = dir;
        while left != root && remove_if_empty(left)? {
            left = left.parent().unwrap_or(root);
        }
        if !objects.is_empty() {
            sync_dir(left)?;
        }
        Ok(objects.len() as u64)
    }

    /// Files directly in `dir` that are named like objects, and where their batches begin; none if there is no such
    /// directory.
    fn objects(&self, dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in entries(dir)? {
            let start = entry.file_name().to_str().and_then(|name| self.namer.start(&self.source, name));
            if let Some(start) = start.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) {
                found.push((start, entry.path()));
            }
        }
        Ok(found)
    }
}

/// Whether the directory is gone.
fn remove_if_empty(dir: &Path) -> Result<bool> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(Error::io("remove the directory", dir, error)),
    }
}

/// Directories directly in `dir` that are named like passes, in order; none if there is no such directory.
fn cycles(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_pass = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(is_cycle);
    let mut found: Vec<PathBuf> =
        entries(dir)?.into_iter().filter(is_pass).map(|entry| entry.path()).collect();
    found.sort_unstable();
    Ok(found)
}

/// What stands directly in `dir`; nothing if there is no such directory.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    let list = |error| Error::io("list", dir, error);
    match fs::read_dir(dir) {
        Ok(entries) => entries.collect::<io::Result<_>>().map_err(list),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(list(error)),
    }
}

/// The first symbolic link below `root` on the way to `dir`.
fn link_between<'a>(root: &Path, dir: &'a Path) -> Option<&'a Path> {
    let way: Vec<&Path> = dir.ancestors().take_while(|path| *path != root).collect();
    way.into_iter().rev().find(|path| path.is_symlink())
}
