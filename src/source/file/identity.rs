//! Whether a file is still the one that an earlier run has read: [`fingerprint`] and [`compare`].
//!
//! Hashes of the first bytes and of those before the place that was reached, not times and inodes: those change
//! when a file is copied to the next machine, and stay when it is overwritten in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec::decode::{SNIFF, sniff};
use crate::error::{Error, Result};
use crate::source::Same;

/// How many bytes are hashed at either place.
const BLOCK: u64 = 64 << 10;

/// What a file is recognised by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Its length.
    pub len: u64,
    /// SHA-256 of its first bytes, the first half, in hexadecimal.
    pub head: String,
    /// How many bytes that are: 64 KiB, or all.
    pub head_len: u64,
    /// The same of the last 64 KiB before the watermark; of a compressed file before its end.
    pub block: String,
    /// Whether it is compressed: its watermark counts decoded bytes.
    pub compressed: bool,
}

/// Takes the fingerprint of a file that was read up to `watermark`; `None`: to its end. Of a file that has grown
/// beyond `len` meanwhile, the fingerprint that it had before: the next run must see that there is more.
///
/// # Errors
/// If it cannot be read.
pub fn fingerprint(path: &Path, watermark: Option<u64>, len: u64) -> Result<Fingerprint> {
    let mut file = Open::new(path)?;
    file.len = file.len.min(len);
    let compressed = sniff(&file.bytes(0, SNIFF as u64)?).is_some();
    let head_len = file.len.min(BLOCK);
    let end = if compressed { file.len } else { watermark.unwrap_or(file.len).min(file.len) };
    Ok(Fingerprint {
        len: file.len,
        head: file.hash(0, head_len)?,
        head_len,
        block: file.hash_before(end)?,
        compressed,
    })
}

/// Compares the file at `path`, which was read up to `watermark`, with what it was then.
///
/// # Errors
/// If it cannot be read.
pub fn compare(old: &Fingerprint, watermark: u64, path: &Path) -> Result<Same> {
    let file = Open::new(path)?;
    let changed = |what: String| Ok(Same::Changed { what: format!("input {} {what}", path.display()) });
    if file.len < old.len {
        return changed(format!("shrank from {} to {} bytes since the last run", old.len, file.len));
    }
    if file.hash(0, old.head_len)? != old.head {
        return changed("has another beginning than at the last run".into());
    }
    let end = if old.compressed { old.len } else { watermark.min(old.len) };
    if file.hash_before(end)? != old.block {
        return changed(format!("has other bytes before byte {end} than at the last run"));
    }
    if file.len == old.len {
        return Ok(Same::Unchanged);
    }
    // Without the line feed that ends it, the last record may have grown too.
    let end = watermark.min(file.len);
    if !old.compressed && end > 0 && file.bytes(end - 1, 1)? != b"\n" {
        return changed(format!(
            "grew from {} to {} bytes, in the middle of a record: byte {} is no line feed",
            old.len,
            file.len,
            end - 1
        ));
    }
    Ok(Same::Grown { from: old.len, to: file.len })
}

struct Open<'a> {
    path: &'a Path,
    file: File,
    len: u64,
}

impl<'a> Open<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let len = file.metadata().map_err(|error| Error::io("read", path, error))?.len();
        Ok(Open { path, file, len })
    }

    /// Up to `count` bytes from `at` on, at most a block.
    fn bytes(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count.min(BLOCK).min(self.len.saturating_sub(at)) as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| self.failed(at, error))?;
        Ok(bytes)
    }

    /// A file that ends before the length that it had a moment ago is no trouble of the disk.
    fn failed(&self, at: u64, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Damaged {
                name: self.path.display().to_string(),
                unit: "byte",
                position: at,
                reason: "it was truncated while it was read".into(),
            },
            _ => Error::io("read", self.path, error),
        }
    }

    fn hash(&self, at: u64, count: u64) -> Result<String> {
        let hash = Sha256::digest(self.bytes(at, count)?);
        Ok(hash[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn hash_before(&self, end: u64) -> Result<String> {
        let at = end.saturating_sub(BLOCK);
        self.hash(at, end - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_between_two_looks_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.json");
        std::fs::write(&path, "0123456789").unwrap();
        let open = Open { len: 20, ..Open::new(&path).unwrap() };
        assert!(open.hash(0, 10).is_ok());
        let error = open.hash_before(20).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("in.json is damaged"), "{error}");
        assert!(error.to_string().contains("it was truncated while it was read"), "{error}");
    }
}
