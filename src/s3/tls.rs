//! What connections to the service are encrypted with: rustls on ring, and the system's authorities or those of a
//! file. The service must always prove who it is.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::error::{Error, Result};

/// How connections are encrypted.
///
/// # Errors
/// [`Error::Config`] if there are no authorities.
pub(super) fn config(ca: Option<&Path>) -> Result<TlsConfig> {
    let authorities = match ca {
        Some(path) => of_file(path)?,
        None => of_system()?,
    };
    let authorities: Vec<Certificate<'static>> =
        authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .build())
}

fn of_file(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: &dyn std::fmt::Display| Error::Config(format!("s3.ca {}: {why}", path.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(&error))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"no certificate in PEM format")) } else { Ok(found) }
}

fn of_system() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
        return Err(Error::Config(format!("the system has no certificate authorities{why}; set s3.ca")));
    }
    Ok(found.certs)
}
