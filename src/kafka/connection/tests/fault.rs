use kafka_protocol::messages::{
    ApiKey, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::error::Retry;
use crate::kafka::fake::Quirks;
use crate::kafka::wire::frame::FrameFault;
use crate::kafka::{Address, Error, Mechanism, Plaintext, Sasl};

/// Answers ApiVersions, and Metadata as `reply` says.
fn metadata_with(mut reply: impl FnMut(&Asked) -> Reply + Send + 'static) -> Fake {
    Fake::start(move |asked| if asked.key == ApiKey::Metadata { reply(asked) } else { serve(asked) })
}

/// The error of asking, after which the connection must be closed.
fn fails(fake: &Fake, options: Options) -> Error {
    let mut connection = open(fake, options).unwrap();
    let error = ask(&mut connection).unwrap_err();
    assert!(!connection.is_open());
    assert!(matches!(ask(&mut connection), Err(Error::Closed { .. })));
    error
}

#[test]
fn an_answer_to_another_request_closes_the_connection() {
    let fake = metadata_with(|asked| asked.answer_at::<MetadataRequest>(&metadata(), asked.version, 99));
    let error = fails(&fake, options());
    assert!(
        matches!(error, Error::Frame { fault: FrameFault::Correlation { found: 99, .. }, .. }),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Transient);
}

#[test]
fn swapped_answers_close_the_connection() {
    let mut held = None;
    let fake = metadata_with(move |asked| match held.replace(asked.correlation) {
        None => Reply::Silence,
        Some(first) => {
            let Reply::Bytes(mut both) = asked.answer::<MetadataRequest>(&metadata()) else { unreachable!() };
            let Reply::Bytes(other) = asked.answer_at::<MetadataRequest>(&metadata(), asked.version, first)
            else {
                unreachable!()
            };
            both.extend(other);
            Reply::Bytes(both)
        }
    });
    let mut connection = open(&fake, options()).unwrap();
    let first = connection.send(&MetadataRequest::default(), 12).unwrap();
    let second = connection.send(&MetadataRequest::default(), 12).unwrap();
    let timeout = Duration::from_secs(20);
    assert!(matches!(connection.receive(first, timeout), Err(Error::Frame { .. })));
    assert!(matches!(connection.receive(second, timeout), Err(Error::Closed { .. })));
}

#[test]
fn frames_beyond_the_cap_close_the_connection_at_once() {
    let small = || Options { max_answer: 5000, ..options() };
    for size in [5001, i32::MAX, -1, 3] {
        let fake = metadata_with(move |_| Reply::Bytes(size.to_be_bytes().to_vec()));
        let error = fails(&fake, small());
        assert!(matches!(error, Error::Frame { fault: FrameFault::Size { .. }, .. }), "{error}");
        assert_eq!(error.retry(), Retry::Permanent);
    }
    let fake = Fake::start(|_| Reply::Bytes(b"HTTP/1.1 400 Bad Request\r\n".to_vec()));
    let error = open(&fake, options()).err().unwrap().to_string();
    assert!(error.contains("this is an HTTP server"), "{error}");
}

#[test]
fn no_answer_in_time_closes_the_connection() {
    // Whatever comes later can no longer be taken for the answer to something else.
    let fake = metadata_with(|_| Reply::Silence);
    let timeout = Duration::from_millis(150);
    let begun = Instant::now();
    let mut connection = open(&fake, options()).unwrap();
    let error = connection.call_within(&MetadataRequest::default(), 12, timeout).err().unwrap();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(error.is_ambiguous() && error.retry() == Retry::Transient);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!connection.is_open());
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_deadline() {
    // Four ones make a size of 16 MiB; the body comes so slowly that it never ends.
    let fake = metadata_with(|_| Reply::Drip(1));
    let mut connection = open(&fake, options()).unwrap();
    let begun = Instant::now();
    let timeout = Duration::from_millis(200);
    let error = connection.call_within(&MetadataRequest::default(), 12, timeout).err().unwrap();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_connection_cut_at_every_byte_of_handshake_and_answer_is_a_transient_error() {
    let answers = |asked: &Asked| match asked.key {
        ApiKey::SaslHandshake => asked.answer::<SaslHandshakeRequest>(
            &SaslHandshakeResponse::default().with_mechanisms(vec!["PLAIN".to_string().into()]),
        ),
        ApiKey::SaslAuthenticate => {
            asked.answer::<SaslAuthenticateRequest>(&SaslAuthenticateResponse::default())
        }
        _ => serve(asked),
    };
    let sasl = Sasl {
        mechanism: Mechanism::Plain,
        username: "alice".into(),
        password: "secret".into(),
        plaintext: Plaintext::Allow,
    };
    let options = || Options { sasl: Some(sasl.clone()), ..options() };
    let whole = total(answers);
    let fake = Fake::with(Quirks { cuts: (0..whole).collect(), ..Quirks::default() }, answers);
    for cut in 0..whole {
        let error = open(&fake, options()).and_then(|mut connection| ask(&mut connection)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{cut} of {whole}: {error}");
        assert_eq!(error.retry(), Retry::Transient);
    }
    open(&fake, options()).and_then(|mut connection| ask(&mut connection)).unwrap();
}

/// How many bytes the four answers have together.
fn total(answers: impl Fn(&Asked) -> Reply) -> usize {
    let asked =
        |key, version| Asked { key, version, correlation: 0, client_id: None, body: Default::default() };
    let latest = |key: ApiKey| asked(key, key.valid_versions().max.min(crate::kafka::fake::most(key)));
    [ApiKey::ApiVersions, ApiKey::SaslHandshake, ApiKey::SaslAuthenticate, ApiKey::Metadata]
        .map(|key| match answers(&latest(key)) {
            Reply::Bytes(bytes) => bytes.len(),
            _ => 0,
        })
        .iter()
        .sum()
}

#[test]
fn garbage_in_an_answer_is_an_error_and_closes() {
    let fake = metadata_with(|asked| {
        let Reply::Bytes(mut bytes) = asked.answer::<MetadataRequest>(&metadata()) else { unreachable!() };
        bytes[9..].fill(0xff);
        Reply::Bytes(bytes)
    });
    let error = fails(&fake, options());
    assert!(matches!(error, Error::Frame { fault: FrameFault::Malformed { .. }, .. }), "{error}");
}

#[test]
fn a_hang_up_from_another_thread_ends_a_wait() {
    let (asked, wait) = mpsc::channel();
    let fake = metadata_with(move |_| {
        asked.send(()).unwrap();
        Reply::Silence
    });
    let hangup = Hangup::new();
    let options = Arc::new(options());
    let mut connection = Connection::open(&fake.address, &options, &hangup).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&mut connection));
        wait.recv().unwrap();
        hangup.shutdown();
        assert!(matches!(waiting.join().unwrap(), Err(Error::HungUp)));
    });
    assert!(matches!(ask(&mut connection), Err(Error::HungUp)));
    assert!(matches!(Connection::open(&fake.address, &options, &hangup), Err(Error::HungUp)));
}

#[test]
fn a_port_where_nobody_listens_names_what_was_tried() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let broker = Arc::new(Address { host: "127.0.0.1".into(), port });
    let error = Connection::open(&broker, &Arc::new(options()), &Hangup::new()).err().unwrap();
    assert_eq!(error.retry(), Retry::Transient);
    let text = error.to_string();
    assert!(
        text.contains(&format!("cannot connect to 127.0.0.1:{port}")) && text.contains("refused"),
        "{text}"
    );
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    // `localhost` is ::1 first on many machines; the fake listens on 127.0.0.1 only.
    let fake = Fake::start(serve);
    assert_eq!(fake.address.host, "localhost");
    ask(&mut open(&fake, options()).unwrap()).unwrap();
}

#[test]
fn an_unknown_host_is_a_transient_error() {
    let broker = Arc::new(Address { host: "no..such..host".into(), port: 1 });
    let error = Connection::open(&broker, &Arc::new(options()), &Hangup::new()).err().unwrap();
    assert!(matches!(error, Error::Resolve { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Transient);
}

/// A listener whose queue is full: whoever comes next gets no answer, not even a refusal.
struct BlackHole {
    _listener: rustix::fd::OwnedFd,
    _queue: Vec<rustix::fd::OwnedFd>,
    address: Arc<Address>,
}

fn black_hole() -> BlackHole {
    use rustix::net::*;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &any).unwrap();
    listen(&listener, 0).unwrap();
    let to = std::net::SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let fill = || {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let _ = connect(&socket, &to);
        socket
    };
    let queue = (0..8).map(|_| fill()).collect();
    let address = Arc::new(Address { host: "127.0.0.1".into(), port: to.port() });
    BlackHole { _listener: listener, _queue: queue, address }
}

#[test]
fn a_black_hole_ends_at_the_connect_timeout() {
    let hole = black_hole();
    let options = Options { connect_timeout: Duration::from_millis(150), ..options() };
    let begun = Instant::now();
    let error = Connection::open(&hole.address, &Arc::new(options), &Hangup::new()).err().unwrap();
    assert!(error.to_string().contains("no answer in time"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_hang_up_ends_dialling() {
    let hole = black_hole();
    let hangup = Hangup::new();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let dialling = scope.spawn(|| Connection::open(&hole.address, &Arc::new(options()), &hangup).err());
        hangup.shutdown();
        assert!(matches!(dialling.join().unwrap(), Some(Error::HungUp)));
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_broker_that_closes_on_the_first_request_is_suspected_of_tls() {
    let fake = Fake::start(|_| Reply::Cut);
    let error = open(&fake, options()).err().unwrap().to_string();
    assert!(error.contains("does this listener want TLS?"), "{error}");
    let fake = metadata_with(|_| Reply::Cut);
    let error = fails(&fake, options()).to_string();
    assert!(error.contains("does this listener want a login"), "{error}");
    // Later it is a broker that went away.
    let mut count = 0;
    let fake = metadata_with(move |asked| {
        count += 1;
        if count > 1 { Reply::Cut } else { serve(asked) }
    });
    let mut connection = open(&fake, options()).unwrap();
    ask(&mut connection).unwrap();
    let error = ask(&mut connection).unwrap_err().to_string();
    assert!(error.ends_with("the broker closed the connection"), "{error}");
}

#[test]
fn closing_a_connection_closes_its_socket() {
    let (gone, wait) = mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, &[0xff; 4]).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
            gone.send(()).unwrap();
        });
        let broker = Arc::new(Address { host: "127.0.0.1".into(), port });
        let hangup = Hangup::new();
        assert!(Connection::open(&broker, &Arc::new(options()), &hangup).is_err());
        // The switch lives on and must not hold the socket.
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    });
}
