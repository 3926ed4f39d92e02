//! What cannot work: the exit code, and a line that says what and where, in time.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::flow::{Flow, run_with, settings};
use crate::kafka::{Kafka, Listener, tls_file};
use crate::proxy::{Fault, Proxy};
use crate::runs::{Bench, Ran};

/// Everything that is refused is refused in this time, unless a test says something else.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Reads `topic` to its end by way of this listener, as somebody.
#[track_caller]
fn read(kafka: &Kafka, listener: Listener, topic: &str, keys: &[&str], password: Option<&str>) -> Ran {
    let (bench, brokers) = (Bench::new(), kafka.address(listener).to_string());
    let args = ["-s", "kafka", "--brokers", &brokers, "-t", topic, "--until", "end", "-o", "-"];
    let args = [&args[..], &settings(keys)].concat();
    let password = password.map(|password| ("KAFKA_SASL_PASSWORD", OsStr::new(password)));
    let began = Instant::now();
    let ran = run_with(&bench, &args, password.as_slice());
    assert!(began.elapsed() < AT_ONCE, "it took {:?}:\n{}", began.elapsed(), ran.stderr);
    ran
}

fn of(name: &str) -> String {
    tls_file(name).to_str().expect("it is text").to_string()
}

fn tls(ca: &str) -> [String; 2] {
    ["kafka.tls.enabled=true".into(), format!("kafka.tls.ca={}", of(ca))]
}

#[track_caller]
fn check(
    kafka: &Kafka,
    listener: Listener,
    keys: &[String],
    password: Option<&str>,
    code: i32,
    said: &[&str],
) {
    let topic = kafka.topic("access", 1);
    kafka.fill(&topic, 1, 10);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let ran = read(kafka, listener, &topic, &keys, password).expect(code, said);
    assert_eq!(ran.stdout.lines().count(), if code == 0 { 10 } else { 0 });
}

#[test]
fn every_listener_can_be_read() {
    let Some(kafka) = Kafka::shared() else { return };
    let user = |mechanism: &str| {
        let keys = ["kafka.sasl.username=alice".to_string(), format!("kafka.sasl.mechanism={mechanism}")];
        keys.to_vec()
    };
    check(kafka, Listener::Ssl, &tls("ca.pem"), None, 0, &[]);
    let client = [&tls("ca.pem")[..], &[format!("kafka.tls.cert={}", of("client.pem"))]].concat();
    check(kafka, Listener::Mutual, &client, None, 0, &[]);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        check(kafka, Listener::SaslPlaintext, &user(mechanism), Some("alice-secret"), 0, &[]);
    }
    let plain = [&tls("ca.pem")[..], &user("PLAIN")].concat();
    check(kafka, Listener::SaslSsl, &plain, Some("alice-secret"), 0, &[]);
}

#[test]
fn wrong_passwords_and_certificates_end_the_run_for_good() {
    let Some(kafka) = Kafka::shared() else { return };
    let user = ["kafka.sasl.username=alice".to_string(), "kafka.sasl.mechanism=SCRAM-SHA-512".to_string()];
    check(kafka, Listener::SaslPlaintext, &user, Some("wrong"), 4, &["SCRAM-SHA-512"]);
    check(kafka, Listener::Ssl, &tls("other-ca.pem"), None, 4, &["kafka.tls.ca"]);
    check(kafka, Listener::Expired, &tls("ca.pem"), None, 4, &["expired"]);
    check(kafka, Listener::Elsewhere, &tls("ca.pem"), None, 4, &["another host name"]);
    check(kafka, Listener::Mutual, &tls("ca.pem"), None, 4, &["client certificate"]);
    let plain = ["kafka.sasl.username=alice".to_string(), "kafka.sasl.mechanism=PLAIN".to_string()];
    check(kafka, Listener::SaslPlaintext, &plain, Some("alice-secret"), 2, &["allow_plaintext"]);
}

#[test]
fn a_missing_topic_is_named() {
    let Some(kafka) = Kafka::shared() else { return };
    let missing = read(kafka, Listener::Plaintext, "no-such-topic", &[], None);
    missing
        .expect(4, &["cannot read: topic no-such-topic", "hint: create the topic first, or check its name"]);
    read(kafka, Listener::Plaintext, "no/such", &[], None).expect(2, &["no/such"]);
}

#[test]
fn a_missing_acl_is_named() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("acl", 1);
    let allow =
        ["--add", "--force", "--allow-principal", "User:bob", "--operation", "All", "--topic", &topic];
    kafka.tool("AclCommand", &allow, "");
    let user = ["kafka.sasl.username=alice", "kafka.sasl.mechanism=SCRAM-SHA-256"];
    let refused = read(kafka, Listener::SaslPlaintext, &topic, &user, Some("alice-secret"));
    refused.expect(
        4,
        &[&topic, "TOPIC_AUTHORIZATION_FAILED", "hint: the user needs Read and Describe on topics"],
    );
}

#[test]
fn a_missing_output_topic_is_named() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "nowhere", 1);
    kafka.fill(&flow.topic, 1, 10);
    flow.until_end(&["-o", "kafka:no-such-output"]).expect(4, &["no-such-output"]);
}

/// Who does not answer is given up: a host without a name, a closed port, a network that swallows everything.
#[test]
fn nobody_who_answers_is_an_error_in_time() {
    let Some(kafka) = Kafka::shared() else { return };
    let proxy = Proxy::new(&kafka.address(Listener::Plaintext));
    proxy.set(Fault::BlackHole);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let closed = nobody.local_addr().expect("it is bound").to_string();
    drop(nobody);
    let quick = settings(&["processing.timeout=2s"]);
    let topic = ["-s", "kafka", "-t", "any", "--until", "end", "-o"];
    let file = [concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/data1.json"), "-o"];
    let ask = |brokers: String, input: &[&str], output: &str| {
        let args = [&["--brokers", &brokers], input, &[output]].concat();
        let (bench, began) = (Bench::new(), Instant::now());
        run_with(&bench, &[&args[..], &quick].concat(), &[]).expect(1, &[&brokers]);
        assert!(began.elapsed() < AT_ONCE, "{brokers} took {:?}", began.elapsed());
    };
    // Brokers may be starting just now, so each is tried for 20 seconds: side by side.
    std::thread::scope(|scope| {
        let hole = proxy.address().to_string();
        let cases = [
            (hole.clone(), &topic[..], "-"),
            (hole, &topic, "kafka:out"),
            (closed.clone(), &topic, "-"),
            (closed, &file, "kafka:out"),
            ("broker.invalid:9092".into(), &topic, "-"),
        ];
        for (brokers, input, output) in cases {
            let ask = || ask(brokers, input, output);
            let spawned = std::thread::Builder::new().name("ask".into()).spawn_scoped(scope, ask);
            spawned.expect("a thread can be started");
        }
    });
}

#[test]
fn shards_are_refused_because_the_group_shares() {
    let Some(kafka) = Kafka::shared() else { return };
    let flow = Flow::new(kafka, "shard", 1);
    flow.until_end(&["-o", "out", "--shard", "0/2"]).expect(2, &["group"]);
}
