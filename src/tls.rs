//! What connections of HTTP clients are encrypted with: rustls on ring, the system's authorities or those of a file,
//! and a certificate of the client's where one is asked for. Shared by the object store's client and the source's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// What is wrong with a file, in words that name its setting.
pub(crate) type Fault = String;

/// Where certificates are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// What the settings are called: `s3.`, `http.tls.`.
    pub settings: &'static str,
    /// PEM file of the authorities; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of its key; the file of the certificate if `None`.
    pub key: Option<PathBuf>,
    /// Whether anybody may pretend to be the server.
    pub trusting: bool,
}

/// How connections are encrypted. Reads the files.
///
/// # Errors
/// If one is not what it should be, or there are no authorities.
pub(crate) fn config(files: &Files) -> Result<TlsConfig, Fault> {
    let authorities = match (&files.ca, files.trusting) {
        (Some(path), _) => authorities(path, &format!("{}ca", files.settings))?,
        (None, true) => Vec::new(),
        (None, false) => of_system(files.settings)?,
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&owned(&authorities)))
        .client_cert(client(files)?)
        .disable_verification(files.trusting)
        .build())
}

fn owned(found: &[CertificateDer<'static>]) -> Vec<Certificate<'static>> {
    found.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

fn client(files: &Files) -> Result<Option<ClientCert>, Fault> {
    let Some(cert) = &files.cert else { return Ok(None) };
    let chain = certificates(cert, &format!("{}cert", files.settings))?;
    let path = files.key.as_ref().unwrap_or(cert);
    let wrong = |why: &dyn std::fmt::Display| {
        format!("{}key {}: no private key without a password: {why}", files.settings, path.display())
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| wrong(&error))?;
    fits(&chain, path).map_err(|error| {
        format!(
            "{0}key {1}: it is not the key of {0}cert {2}: {error}",
            files.settings,
            path.display(),
            cert.display()
        )
    })?;
    Ok(Some(ClientCert::new_with_certs(&owned(&chain), key)))
}

/// Whether the key in a file is that of a certificate. Nobody asks later: the client takes both as they are, and
/// panics.
fn fits(chain: &[CertificateDer<'static>], key: &Path) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| error.to_string())?;
    let both = CertifiedKey::from_der(chain.to_vec(), key, &ring::default_provider());
    both.map(drop).map_err(|error| error.to_string())
}

/// Certificates that can be trusted as authorities. Among many of a system one may be odd; that is told, since it may
/// be the one that is meant.
fn authorities(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let mut roots = RootCertStore::empty();
    let (mut found, mut odd) = (Vec::new(), Vec::new());
    for (index, der) in certificates(path, setting)?.into_iter().enumerate() {
        match roots.add(der.clone()) {
            Ok(()) => found.push(der),
            Err(error) => {
                odd.push(format!("{setting} {}: certificate {}: {error}", path.display(), index + 1))
            }
        }
    }
    match odd.first() {
        Some(why) if found.is_empty() => Err(why.clone()),
        _ => {
            odd.iter().for_each(|why| log::warn!("{why}; it is left out"));
            Ok(found)
        }
    }
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let wrong = |why: &dyn std::fmt::Display| format!("{setting} {}: {why}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"no certificate in PEM format")) } else { Ok(found) }
}

fn of_system(settings: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
        return Err(format!("the system has no certificate authorities{why}; set {settings}ca"));
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left out, it would be missed at the first connection, and nobody would know why.
    #[test]
    fn an_authority_that_cannot_be_read_is_told_before_anybody_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let files = Files { settings: "s3.", ca: Some(path.clone()), ..Files::default() };
        let fault = config(&files).err().unwrap();
        assert!(fault.starts_with(&format!("s3.ca {}: certificate 1: ", path.display())), "{fault}");
        // Among many of a system one may be odd.
        let good = include_str!("../testdata/kafka/tls/ca.pem");
        let odd = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{odd}{good}")).unwrap();
        assert_eq!(authorities(&path, "s3.ca").map(|found| found.len()), Ok(1));
        assert!(config(&files).is_ok());
    }
}
