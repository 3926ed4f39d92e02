//! Zstandard, in one shot: the output buffer is the window, so no header can ask for another.
//!
//! Java's streams carry no content size, so the size is found by trying: when the buffer is too small it is
//! doubled and the batch done again. The buffer is recycled, so that happens a few times in a run.

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, zstd_sys::ZSTD_ErrorCode};

use super::super::unpack::{Output, Stuck};

/// A first guess at how much comes out of a byte.
const RATIO: usize = 4;

/// The decoder's state, about 100 KiB.
pub(crate) struct Unzstd(DCtx<'static>);

impl Unzstd {
    pub(crate) fn new() -> Self {
        Unzstd(DCtx::create())
    }

    /// Decompresses.
    pub(crate) fn unpack(&mut self, input: &[u8], out: &mut Output) -> Result<(), Stuck> {
        let mut wanted = input.len().saturating_mul(RATIO).max(4096);
        loop {
            out.room(wanted)?;
            let at_cap = out.is_at_cap();
            let (_, free) = out.split();
            wanted = free.len().saturating_mul(2);
            match self.0.decompress(free, input) {
                Ok(size) => {
                    out.advance(size);
                    return Ok(());
                }
                Err(code) if !zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
                    return Err(Stuck::damaged(zstd_safe::get_error_name(code)));
                }
                Err(_) if at_cap => return Err(Stuck::Full),
                Err(_) => {}
            }
        }
    }
}

/// The encoder's state.
pub(crate) struct Zstd(CCtx<'static>);

impl Zstd {
    pub(crate) fn new(level: i32) -> Self {
        let mut context = CCtx::create();
        // An impossible level leaves the default; the configuration was checked before.
        let _ = context.set_parameter(CParameter::CompressionLevel(level));
        Zstd(context)
    }

    /// Compresses `input` behind `out`.
    pub(crate) fn pack(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let at = out.len();
        out.resize(at + zstd_safe::compress_bound(input.len()), 0);
        let size = self
            .0
            .compress2(&mut out[at..], input)
            .map_err(|code| zstd_safe::get_error_name(code).to_string())?;
        out.truncate(at + size);
        Ok(())
    }
}
