use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::error::Retry;
use crate::kafka::fake::Quirks;
use crate::kafka::{Error, Tls, TlsFiles, Verify};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka/tls").join(name)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A broker that shows `certificate` and asks clients for one if `mutual`.
fn broker(certificate: &str, mutual: bool) -> Fake {
    broker_with(certificate, mutual, serve)
}

fn broker_with(certificate: &str, mutual: bool, serve: impl FnMut(&Asked) -> Reply + Send + 'static) -> Fake {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(file(certificate)).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file(certificate)).unwrap();
    let tls = Some(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    Fake::with(Quirks { tls, ..Quirks::default() }, serve)
}

fn trusting(ca: &str) -> TlsFiles {
    TlsFiles { ca: Some(file(ca)), ..TlsFiles::default() }
}

fn run(fake: &Fake, files: &TlsFiles) -> Result<()> {
    let options = Options { tls: Some(Tls::new(files).unwrap()), ..options() };
    open(fake, options).and_then(|mut connection| ask(&mut connection))
}

#[track_caller]
fn refused(fake: &Fake, files: &TlsFiles, expected: &str) {
    let error = run(fake, files).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Permanent);
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_certificate_by_our_own_authority_is_good() {
    run(&broker("server.pem", false), &trusting("ca.pem")).unwrap();
}

#[test]
fn wrong_certificates_are_refused_with_a_hint() {
    refused(&broker("server.pem", false), &trusting("other-ca.pem"), "kafka.tls.ca names the authority");
    refused(&broker("server.pem", false), &TlsFiles::default(), "kafka.tls.ca names the authority");
    refused(&broker("wrong-host.pem", false), &trusting("ca.pem"), "another host name");
    refused(&broker("expired.pem", false), &trusting("ca.pem"), "expired");
}

#[test]
fn verification_is_off_only_when_asked() {
    let files = TlsFiles { verify: Verify::Nothing, ..TlsFiles::default() };
    run(&broker("expired.pem", false), &files).unwrap();
    run(&broker("wrong-host.pem", false), &files).unwrap();
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let fake = broker("server.pem", true);
    run(&fake, &TlsFiles { cert: Some(file("client.pem")), ..trusting("ca.pem") }).unwrap();
    refused(&fake, &trusting("ca.pem"), "does the broker ask for a client certificate?");
}

#[test]
fn tls_and_plain_are_told_apart() {
    let error = open(&broker("server.pem", false), options()).err().unwrap();
    // What a listener for TLS makes of plain bytes: an alert, or silence and the end.
    assert!(error.to_string().contains("TLS"), "{error}");
    let plain = Fake::start(|_| Reply::Bytes(b"not TLS at all".to_vec()));
    let options = Options {
        tls: Some(Tls::new(&trusting("ca.pem")).unwrap()),
        request_timeout: Duration::from_millis(200),
        connect_timeout: Duration::from_millis(200),
        ..options()
    };
    let error = open(&plain, options).err().unwrap();
    assert!(matches!(error, Error::Tls { .. } | Error::Timeout { .. } | Error::Io { .. }), "{error}");
}

#[test]
fn missing_and_useless_files_are_usage_errors_that_name_them() {
    let check = |files: TlsFiles, expected: &str| {
        let error = Tls::new(&files).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(trusting("none.pem"), "kafka.tls.ca");
    check(trusting("README.md"), "no certificate in PEM format");
    check(TlsFiles { cert: Some(file("ca.pem")), ..trusting("ca.pem") }, "kafka.tls.key");
    check(TlsFiles { key: Some(file("client.pem")), ..trusting("ca.pem") }, "without kafka.tls.cert");
    let mismatch =
        TlsFiles { cert: Some(file("client.pem")), key: Some(file("server.pem")), ..trusting("ca.pem") };
    check(mismatch, "kafka.tls.key");
}

#[test]
fn what_tls_has_unpacked_is_found_although_the_socket_is_empty() {
    // Both answers come in one TLS record.
    let mut held = None;
    let fake = broker_with("server.pem", false, move |asked| match (asked.key, held.take()) {
        (ApiKey::Metadata, None) => {
            held = Some(asked.answer::<MetadataRequest>(&metadata()));
            Reply::Silence
        }
        (ApiKey::Metadata, Some(Reply::Bytes(mut both))) => {
            let Reply::Bytes(second) = asked.answer::<MetadataRequest>(&metadata()) else { unreachable!() };
            both.extend(second);
            Reply::Bytes(both)
        }
        _ => serve(asked),
    });
    let options = Options { tls: Some(Tls::new(&trusting("ca.pem")).unwrap()), ..options() };
    let mut connection = open(&fake, options).unwrap();
    let first = connection.send(&MetadataRequest::default(), 9).unwrap();
    assert!(connection.look(&first).unwrap().is_none());
    let second = connection.send(&MetadataRequest::default(), 9).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while connection.look(&first).unwrap().is_none() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(connection.has_buffered());
    assert!(connection.look(&second).unwrap().is_some());
    assert!(!connection.has_buffered());
}
