//! HTTPS with authorities and certificates of our own, and what is told where they do not fit.

use std::io::{ErrorKind, Write, copy, sink};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::server::{Reply, Server};
use super::{array, command};
use crate::runs::{self, Bench, Ran, Running};

/// See testdata/kafka/tls/README.md.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka/tls").join(name)
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy)]
enum Clients {
    Any,
    Known,
}

fn server(certificate: &str, clients: Clients) -> Server {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has them");
    let builder = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::Known => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(file("ca.pem")).expect("a certificate"))
                .expect("it is good");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there are roots"))
        }
    };
    let chain = vec![CertificateDer::from_pem_file(file(certificate)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file(certificate)).expect("a key");
    let tls = builder.with_single_cert(chain, key).expect("they fit");
    Server::start_tls(tls, |_| Reply::ok(array(0..5)))
}

/// A run over `localhost`, for which the certificate is. Settings whose value is a file of ours are `key=@name`.
fn run(server: &Server, settings: &[&str]) -> (Bench, Ran) {
    let bench = Bench::new();
    let url = server.named("/items");
    let with_file = |setting: &&str| match setting.split_once('@') {
        Some((key, name)) => format!("{key}{}", file(name).display()),
        None => (*setting).to_owned(),
    };
    let settings: Vec<String> = settings.iter().map(with_file).collect();
    let mut args = vec!["--url", &url, "--timeout", "20s", "--set", "processing.max_retries=2"];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let ran = Running::start(command(&bench, &args)).ended();
    (bench, ran)
}

#[track_caller]
fn works(server: &Server, settings: &[&str]) {
    let (bench, ran) = run(server, settings);
    ran.expect(0, &[]);
    assert_eq!(runs::numbers(&bench.objects("out")), (0..5).collect::<Vec<u64>>());
}

#[track_caller]
fn refused(server: &Server, settings: &[&str], expected: &[&str]) {
    let (bench, ran) = run(server, settings);
    ran.expect(4, expected);
    assert!(server.seen().is_empty() && runs::numbers(&bench.objects("out")).is_empty());
}

#[test]
fn an_authority_of_our_own_is_trusted_when_it_is_named() {
    works(&server("server.pem", Clients::Any), &["http.tls.ca=@ca.pem"]);
}

#[test]
fn what_cannot_be_trusted_is_refused_with_a_hint() {
    refused(&server("server.pem", Clients::Any), &[], &["http.tls.ca"]);
    refused(&server("server.pem", Clients::Any), &["http.tls.ca=@other-ca.pem"], &["http.tls.ca"]);
    refused(&server("wrong-host.pem", Clients::Any), &["http.tls.ca=@ca.pem"], &["localhost"]);
    refused(&server("expired.pem", Clients::Any), &["http.tls.ca=@ca.pem"], &["expired"]);
}

#[test]
fn verification_is_off_only_when_asked() {
    works(&server("wrong-host.pem", Clients::Any), &["http.tls.verify=false"]);
    works(&server("expired.pem", Clients::Any), &["http.tls.verify=false"]);
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let asking = server("server.pem", Clients::Known);
    works(&asking, &["http.tls.ca=@ca.pem", "http.tls.cert=@client.pem"]);
    works(&asking, &["http.tls.ca=@ca.pem", "http.tls.cert=@client.pem", "http.tls.key=@client.pem"]);
    let (_, ran) = run(&asking, &["http.tls.ca=@ca.pem"]);
    assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);
}

/// An allowed host is a stranger all the same.
#[test]
fn a_client_certificate_is_shown_to_nobody_else() {
    let asking = server("server.pem", Clients::Known);
    let there = asking.named("/items");
    let home = Server::start(move |_| Reply::moved(302, &there));
    let all = ["http.tls.ca=@ca.pem", "http.tls.cert=@client.pem", "http.allow_hosts=localhost"];
    let (_, ran) = run(&home, &all);
    assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.contains("certificate") && asking.seen().is_empty(), "{}", ran.stderr);
}

#[test]
fn files_that_are_no_certificates_are_a_wrong_configuration() {
    let server = server("server.pem", Clients::Any);
    let wrong: &[(&[&str], &str)] = &[
        (&["http.tls.ca=@none.pem"], "http.tls.ca"),
        (&["http.tls.ca=@README.md"], "http.tls.ca"),
        (&["http.tls.ca=@ca.pem", "http.tls.key=@client.pem"], "http.tls.cert"),
        (&["http.tls.ca=@ca.pem", "http.tls.cert=@client.pem", "http.tls.key=@server.pem"], "http.tls.key"),
    ];
    for (settings, expected) in wrong {
        run(&server, settings).1.expect(2, &[expected]);
    }
    assert!(server.seen().is_empty());
}

/// TLS where the server speaks plain HTTP, and the other way round.
#[test]
fn a_wrong_scheme_is_an_error() {
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("https://{}/items", plain.local_addr().expect("it is bound"));
    let ran = std::thread::scope(|scope| {
        // A client that never comes is a failure, and no hang.
        plain.set_nonblocking(true).expect("it can wait otherwise");
        scope.spawn(|| {
            let mut came = Err(ErrorKind::WouldBlock.into());
            runs::until("a client", || {
                came = plain.accept();
                came.is_ok()
            });
            let (mut client, _) = came?;
            client.set_nonblocking(false)?;
            client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
            copy(&mut client, &mut sink())
        });
        let bench = Bench::new();
        let args = ["--url", &url, "--timeout", "20s", "--set", "processing.max_retries=1"];
        Running::start(command(&bench, &args)).ended()
    });
    ran.expect(4, &["the server does not speak TLS here", "check the URL: is it http://"]);
    let (bench, tls) = (Bench::new(), server("server.pem", Clients::Any));
    let url = tls.named("/items").replace("https:", "http:");
    let args = ["--url", &url, "--timeout", "2s", "--set", "processing.max_retries=1"];
    let ran = Running::start(command(&bench, &args)).ended();
    assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
}
