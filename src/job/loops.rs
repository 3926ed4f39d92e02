//! An input that is also what standard output was redirected to: reading one's own output does not end before the
//! disk is full. Outputs that the program opens itself are the file source's business.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FileType, fstat};

use crate::error::{Error, Result};
use crate::source::file::FileInput;

/// Refuses inputs that are the very file to which standard output goes. Terminals, pipes and devices may be both.
pub(super) fn refuse(inputs: &[FileInput]) -> Result<()> {
    let Ok(out) = fstat(io::stdout()) else { return Ok(()) };
    if !FileType::from_raw_mode(out.st_mode).is_file() {
        return Ok(());
    }
    for input in inputs {
        let file = match &input.path {
            Some(path) => fs::metadata(path).ok().map(|it| (it.dev(), it.ino())),
            None => fstat(io::stdin()).ok().map(|it| (it.st_dev, it.st_ino)),
        };
        if file == Some((out.st_dev, out.st_ino)) {
            let name = input.partition.name();
            return Err(Error::Usage(format!(
                "input {name} is also where standard output goes; name another"
            )));
        }
    }
    Ok(())
}
