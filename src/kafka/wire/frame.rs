//! Frames: a size, a header, a message. Encodes requests and decodes responses; reads and writes no socket.
//!
//! A response says which request it answers by a correlation id. Ours are checked: an answer with another id
//! means that the stream is no longer understood, and the connection must be closed.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::api::Api;
use super::guard::{Guard, Words};

/// Bytes before each frame: its size.
pub const PREFIX: usize = 4;

/// Why a frame cannot be written or understood.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// It says to be larger than the cap, or negative.
    Size {
        /// What it says.
        size: i32,
        /// The cap in bytes.
        cap: usize,
    },
    /// It answers another request.
    Correlation {
        /// The id of the request that waits.
        expected: i32,
        /// The id in the answer.
        found: i32,
    },
    /// It is not what it should be.
    Malformed {
        /// Why not.
        reason: String,
    },
    /// The request cannot be encoded in this version.
    Unencodable {
        /// Why not.
        reason: String,
    },
}

impl std::fmt::Display for FrameFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameFault::Size { size, cap } => {
                write!(f, "the answer says to have {size} bytes, which is not from 4 to {cap}")?;
                if let Some(guess) = stranger(*size) {
                    write!(f, "; {guess}")?;
                }
                Ok(())
            }
            FrameFault::Correlation { expected, found } => {
                write!(f, "the answer is to request {found}, but request {expected} waits for one")
            }
            FrameFault::Malformed { reason } => write!(f, "the answer is malformed: {reason}"),
            FrameFault::Unencodable { reason } => write!(f, "the request cannot be encoded: {reason}"),
        }
    }
}

impl std::error::Error for FrameFault {}

/// What the first four bytes look like when it is not Kafka that answers.
fn stranger(size: i32) -> Option<&'static str> {
    match size.to_be_bytes() {
        [b'H', b'T', b'T', b'P'] => Some("this is an HTTP server"),
        // An alert or handshake record: content type, then version 3.x.
        [0x15 | 0x16, 3, ..] => Some("the broker wants TLS: set kafka.tls.enabled = true"),
        _ => None,
    }
}

/// Appends a request as one frame to `out`.
///
/// # Errors
/// [`FrameFault::Unencodable`]: a field is set that the version does not have; `out` is as it was.
pub fn encode<R: Api>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
    out: &mut Vec<u8>,
) -> Result<(), FrameFault> {
    let at = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let done = header.encode(out, R::header_version(version)).and_then(|()| request.encode(out, version));
    let size = i32::try_from(out.len() - at - PREFIX);
    match (done, size) {
        (Ok(()), Ok(size)) => {
            out[at..at + PREFIX].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        (done, _) => {
            out.truncate(at);
            let reason = done.err().map_or("larger than 2 GiB".into(), |error| error.to_string());
            Err(FrameFault::Unencodable { reason })
        }
    }
}

/// The size of the frame behind `prefix`.
///
/// # Errors
/// [`FrameFault::Size`] if it has no place for a correlation id or is larger than `cap`.
pub fn size(prefix: [u8; PREFIX], cap: usize) -> Result<usize, FrameFault> {
    let size = i32::from_be_bytes(prefix);
    match usize::try_from(size) {
        Ok(fits) if fits >= 4 && fits <= cap => Ok(fits),
        _ => Err(FrameFault::Size { size, cap }),
    }
}

/// Checks that `frame`, without its size, answers the request `expected`.
///
/// # Errors
/// [`FrameFault::Correlation`] if it answers another.
pub fn check(frame: &[u8], expected: i32) -> Result<(), FrameFault> {
    match frame.split_first_chunk::<4>().map(|(id, _)| i32::from_be_bytes(*id)) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(FrameFault::Correlation { expected, found }),
        None => Err(FrameFault::Malformed { reason: "no header".into() }),
    }
}

/// Decodes the answer to `R` from `frame`, without its size. Byte fields, such as fetched records, are not
/// copied but share the frame's memory.
///
/// # Errors
/// [`FrameFault::Malformed`] if it is not one.
pub fn decode<R: Api>(mut frame: Bytes, version: i16) -> Result<R::Answer, FrameFault> {
    let malformed = |reason: String| FrameFault::Malformed { reason };
    if frame.len() < 4 {
        return Err(malformed("no header".into()));
    }
    frame.advance(4);
    let words = match R::KEY {
        ApiKey::SaslHandshake => Words::Counts,
        ApiKey::ApiVersions if version == 0 => Words::Counts,
        _ => Words::Any,
    };
    let mut guard = Guard::new(frame, words);
    if R::Answer::header_version(version) >= 1 {
        skip_tags(&mut guard).ok_or_else(|| malformed("its header is cut off".into()))?;
    }
    R::Answer::decode(&mut guard, version).map_err(|error| malformed(error.to_string()))
}

/// Skips the tagged fields of a response header.
fn skip_tags(guard: &mut Guard) -> Option<()> {
    for _ in 0..take_varint(guard)? {
        take_varint(guard)?;
        let size = take_varint(guard)? as usize;
        if size > guard.remaining() {
            return None;
        }
        guard.advance(size);
    }
    Some(())
}

fn take_varint(guard: &mut Guard) -> Option<u32> {
    let mut value = 0;
    for index in 0..5 {
        let byte = guard.try_get_u8().ok()?;
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}
