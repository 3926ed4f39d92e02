//! How one gets to a broker: every kind of listener of a real one, and what is said where it does not work.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;
use pipeline::kafka::{Code, Connection, Error, Hangup, Mechanism, Options, Sasl, TlsFiles, Verify};

use crate::admin;
use crate::kafka::{Kafka, Listener, alice, encrypted, options, tls_file, trusting};
use crate::proxy::{Fault, Proxy};
use crate::runs::until;

/// Connects and asks something.
fn ask(kafka: &Kafka, listener: Listener, options: Options) -> Result<(), Error> {
    let mut connection = kafka.connect(listener, options)?;
    let request = MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(false);
    connection.call(&request).map(|answer| assert_eq!(answer.brokers.len(), 1))
}

#[track_caller]
fn works(kafka: &Kafka, listener: Listener, options: Options) {
    if let Err(error) = ask(kafka, listener, options.clone()) {
        panic!("{listener:?} with {options:?}: {error}");
    }
}

/// It fails with an error that says all of this.
#[track_caller]
fn fails(kafka: &Kafka, listener: Listener, options: Options, said: &[&str]) -> Error {
    let error = ask(kafka, listener, options).expect_err("it must not work");
    for text in said {
        assert!(error.to_string().contains(text), "{text:?} is not in {error}");
    }
    error
}

fn logged_in(options: Options, sasl: Sasl) -> Options {
    Options { sasl: Some(sasl), ..options }
}

fn mutual() -> Options {
    encrypted(&TlsFiles { cert: Some(tls_file("client.pem")), ..trusting("ca.pem") })
}

#[test]
fn every_listener_lets_in_who_is_allowed_in() {
    let Some(kafka) = Kafka::shared() else { return };
    works(kafka, Listener::Plaintext, options());
    works(kafka, Listener::Ssl, encrypted(&trusting("ca.pem")));
    works(kafka, Listener::Mutual, mutual());
    for mechanism in Mechanism::ALL {
        works(kafka, Listener::SaslPlaintext, logged_in(options(), alice(mechanism)));
        works(kafka, Listener::SaslSsl, logged_in(encrypted(&trusting("ca.pem")), alice(mechanism)));
    }
}

#[test]
fn who_cannot_log_in_is_refused() {
    let Some(kafka) = Kafka::shared() else { return };
    for mechanism in Mechanism::ALL {
        for wrong in [
            Sasl { password: "wrong".into(), ..alice(mechanism) },
            Sasl { username: "nobody".into(), ..alice(mechanism) },
        ] {
            let said = [mechanism.name(), "Authentication failed"];
            let error = fails(kafka, Listener::SaslPlaintext, logged_in(options(), wrong), &said);
            assert!(matches!(error, Error::Authenticate { .. }), "{error}");
        }
    }
}

#[test]
fn wrong_certificates_are_refused() {
    let Some(kafka) = Kafka::shared() else { return };
    let good = || encrypted(&trusting("ca.pem"));
    fails(kafka, Listener::Ssl, encrypted(&trusting("other-ca.pem")), &["kafka.tls.ca"]);
    fails(kafka, Listener::Ssl, encrypted(&TlsFiles::default()), &["kafka.tls.ca"]);
    fails(kafka, Listener::Expired, good(), &["expired"]);
    fails(kafka, Listener::Elsewhere, good(), &["another host name"]);
    fails(kafka, Listener::Mutual, good(), &["client certificate"]);
    let anybody = TlsFiles { verify: Verify::Nothing, ..TlsFiles::default() };
    works(kafka, Listener::Elsewhere, encrypted(&anybody));
}

#[test]
fn the_wrong_listener_is_guessed() {
    let Some(kafka) = Kafka::shared() else { return };
    let encrypted = || encrypted(&trusting("ca.pem"));
    fails(kafka, Listener::Ssl, options(), &["TLS"]);
    fails(kafka, Listener::Plaintext, encrypted(), &["TLS"]);
    fails(kafka, Listener::SaslPlaintext, options(), &["kafka.sasl"]);
    fails(kafka, Listener::Plaintext, logged_in(options(), alice(Mechanism::ScramSha256)), &[]);
}

/// ACLs of a topic end what everybody may do with it.
#[test]
fn a_missing_acl_is_an_error_of_the_topic() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("forbidden", 1);
    let allow_bob =
        ["--add", "--force", "--allow-principal", "User:bob", "--operation", "All", "--topic", &topic];
    kafka.tool("AclCommand", &allow_bob, "");
    let see = |name: &str| {
        let user = Sasl {
            username: name.into(),
            password: format!("{name}-secret"),
            ..alice(Mechanism::ScramSha512)
        };
        let options = logged_in(options(), user);
        let mut connection = kafka.connect(Listener::SaslPlaintext, options).expect("it is a user");
        Code(admin::describe(&mut connection, &topic).error_code)
    };
    until("alice is refused", || see("alice").name() == "TOPIC_AUTHORIZATION_FAILED");
    assert_eq!(see("bob").name(), "NONE");
}

/// What a proxy does to a real broker's connections ends within the timeouts.
#[test]
fn a_broken_network_is_an_error_in_time() {
    let Some(kafka) = Kafka::shared() else { return };
    let proxy = Proxy::new(&kafka.address(Listener::Plaintext));
    let short = Options {
        request_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        ..options()
    };
    let open =
        |options: &Options| Connection::open(&proxy.address(), &Arc::new(options.clone()), &Hangup::new());
    assert!(open(&options()).is_ok());
    for fault in [Fault::CutAfter(3), Fault::CutAfter(100), Fault::BlackHole, Fault::HalfOpen] {
        proxy.set(fault);
        let error = open(&short).err().unwrap_or_else(|| panic!("{fault:?} does nothing"));
        assert!(matches!(error, Error::Io { .. } | Error::Timeout { .. }), "{fault:?}: {error}");
    }
    proxy.set(Fault::Delay(Duration::from_millis(20)));
    assert!(open(&options()).is_ok());
}
