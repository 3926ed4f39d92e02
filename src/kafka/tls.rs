//! [`Tls`]: certificates and keys from PEM files, once, into what connections need.
//!
//! Host names are verified against the certificate. With `ca` only those authorities count, as with Kafka's
//! own trust stores; without, the system's. `verify = false` is for those who ask for it, and is said aloud.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::{Error, Result};

/// Whether a broker must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its certificate must be valid, and for its host name.
    #[default]
    Host,
    /// Anybody will do: the connection is encrypted, but to whom is not known.
    Nothing,
}

/// Where certificates and keys are: `[kafka.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file of the authorities that brokers are verified against; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate and those that lead to its authority.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key; the file of the certificate if `None`.
    pub key: Option<PathBuf>,
    /// Whether brokers are verified.
    pub verify: Verify,
}

/// How connections are encrypted. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Config`] if one cannot be read or does not hold what it should.
    pub fn new(files: &TlsFiles) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Config(format!("TLS: {error}")))?;
        let builder = match files.verify {
            Verify::Host => builder.with_root_certificates(roots(files.ca.as_deref())?),
            Verify::Nothing => {
                log::warn!("kafka.tls.verify = false: anybody can pretend to be the broker");
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
        };
        let config = match client(files)? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::Config(format!("kafka.tls.cert and kafka.tls.key: {error}")))?,
        };
        Ok(Tls(Arc::new(config)))
    }

    /// A connection's state for a broker on `host`.
    pub(crate) fn connection(
        &self,
        host: &str,
    ) -> std::result::Result<rustls::ClientConnection, rustls::Error> {
        let name = ServerName::try_from(host.to_string()).map_err(|_| {
            rustls::Error::General(format!("{host:?} is not a name that a certificate can have"))
        })?;
        rustls::ClientConnection::new(self.0.clone(), name)
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path, "kafka.tls.ca")? {
            roots
                .add(certificate)
                .map_err(|error| Error::Config(format!("kafka.tls.ca {}: {error}", path.display())))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
        return Err(Error::Config(format!(
            "the system has no certificate authorities{why}; set kafka.tls.ca"
        )));
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client(files: &TlsFiles) -> Result<Option<Identity>> {
    let Some(cert) = &files.cert else {
        return match &files.key {
            Some(_) => Err(Error::Config("kafka.tls.key without kafka.tls.cert".into())),
            None => Ok(None),
        };
    };
    let path = files.key.as_ref().unwrap_or(cert);
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let path = path.display();
        Error::Config(format!("kafka.tls.key {path}: no private key without a password: {error}"))
    })?;
    Ok(Some((certificates(cert, "kafka.tls.cert")?, key)))
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: String| Error::Config(format!("{setting} {}: {why}", path.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(error.to_string()))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("no certificate in PEM format".into())) } else { Ok(found) }
}

/// Takes every certificate. Signatures are still checked, so that what is encrypted is at least consistent.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
