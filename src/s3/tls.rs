//! What connections to the service are encrypted with: the system's authorities or those of a file. The service must
//! always prove who it is.

use std::path::Path;

use ureq::tls::TlsConfig;

use super::error::{Error, Result};
use crate::tls::{self, Files};

/// How connections are encrypted.
///
/// # Errors
/// [`Error::Config`] if there are no authorities.
pub(super) fn config(ca: Option<&Path>) -> Result<TlsConfig> {
    let files = Files { settings: "s3.", ca: ca.map(Path::to_owned), ..Files::default() };
    tls::config(&files).map_err(Error::Config)
}
