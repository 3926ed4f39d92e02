//! Compression: [`Codec`] names it, [`Encoder`] compresses blocks in the pool, [`Framer`] joins blocks to one
//! container, [`decode`] reads compressed input.
//!
//! Gzip output is **one member** a container, put together like pigz does: the header; raw deflate a block, each
//! on a reset compressor and ending in a sync flush; an empty final block; the combined CRC-32 and the length.
//! Many readers stop after the first member, so members joined would lose data there. Zstd output is a frame a
//! block.

pub mod decode;
mod gunzip;
mod encode;
mod frame;
pub(crate) mod sum;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use encode::Encoder;
pub use frame::Framer;

const GZIP_LEVELS: RangeInclusive<u32> = 0..=9;
const ZSTD_LEVELS: RangeInclusive<i32> = -7..=19;

/// How output is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952) at level 0 to 9.
    Gzip(u32),
    /// Zstandard (RFC 8878) at level -7 to 19.
    Zstd(i32),
}

impl Codec {
    /// What is appended to a file's name: `""`, `".gz"`, `".zst"`.
    pub fn extension(self) -> &'static str {
        match self {
            Codec::None => "",
            Codec::Gzip(_) => ".gz",
            Codec::Zstd(_) => ".zst",
        }
    }

    /// The codec that a name means, with its level behind a colon: `none`, `gzip`, `gzip:6`, `zstd:3`; `gz` and
    /// `zst` are the same as `gzip` and `zstd`. Without a level it is 1: level 6 costs several times as much and
    /// saves a tenth.
    ///
    /// # Errors
    /// What was expected, for people.
    pub fn parse(text: &str) -> Result<Codec, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Codec::None),
            ("none", Some(_)) => Err(format!("`{text}`: no compression has no level")),
            ("gzip" | "gz", level) => level_in(text, level, GZIP_LEVELS).map(Codec::Gzip),
            ("zstd" | "zst", level) => level_in(text, level, ZSTD_LEVELS).map(Codec::Zstd),
            _ => Err(format!(
                "`{text}` is no compression: expected none, gzip, gzip:LEVEL, zstd or zstd:LEVEL"
            )),
        }
    }
}

/// The level that was written, 1 if there was none.
fn level_in<T>(text: &str, level: Option<&str>, levels: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display + From<bool>,
{
    let Some(level) = level else { return Ok(T::from(true)) };
    level.parse().ok().filter(|level| levels.contains(level)).ok_or_else(|| {
        format!("`{text}`: the level must be a whole number from {} to {}", levels.start(), levels.end())
    })
}

impl fmt::Display for Codec {
    /// As [`Codec::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Gzip(level) => write!(f, "gzip:{level}"),
            Codec::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels_are_read() {
        for (text, codec) in [
            ("none", Codec::None),
            ("gzip", Codec::Gzip(1)),
            ("gz", Codec::Gzip(1)),
            ("gzip:0", Codec::Gzip(0)),
            ("gz:9", Codec::Gzip(9)),
            ("zstd", Codec::Zstd(1)),
            ("zst:3", Codec::Zstd(3)),
            ("zstd:-7", Codec::Zstd(-7)),
            ("zstd:19", Codec::Zstd(19)),
        ] {
            assert_eq!(Codec::parse(text), Ok(codec));
            assert_eq!(Codec::parse(&codec.to_string()), Ok(codec));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("lz4", "expected none, gzip"),
            ("", "expected none, gzip"),
            ("GZIP", "expected none, gzip"),
            ("none:1", "has no level"),
            ("gzip:10", "from 0 to 9"),
            ("gzip:-1", "from 0 to 9"),
            ("gzip:", "from 0 to 9"),
            ("zstd:20", "from -7 to 19"),
            ("zstd:fast", "from -7 to 19"),
        ] {
            let error = Codec::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
