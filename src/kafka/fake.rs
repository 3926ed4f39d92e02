//! A scripted broker in this process, for tests: it takes connections and answers each
//! request as the test's closure says, cut, garbled or not at all if it says so.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Message, decode_request_header_from_buffer,
};
use parking_lot::Mutex;

use super::Address;
use super::wire::Api;

/// One request as it came.
pub(crate) struct Asked {
    pub key: ApiKey,
    pub version: i16,
    pub correlation: i32,
    pub client_id: Option<String>,
    pub body: Bytes,
}

impl Asked {
    /// The request, decoded.
    pub fn request<R: Api + Decodable>(&self) -> R {
        assert_eq!(self.key, R::KEY);
        R::decode(&mut self.body.clone(), self.version).unwrap()
    }

    /// An answer with the right header.
    pub fn answer<R: Api>(&self, answer: &R::Answer) -> Reply
    where
        R::Answer: Encodable,
    {
        self.answer_at::<R>(answer, self.version, self.correlation)
    }

    /// An answer in another version, or to another request.
    pub fn answer_at<R: Api>(&self, answer: &R::Answer, version: i16, correlation: i32) -> Reply
    where
        R::Answer: Encodable,
    {
        let mut frame = vec![0; 4];
        let header = ResponseHeader::default().with_correlation_id(correlation);
        header.encode(&mut frame, R::Answer::header_version(version)).unwrap();
        answer.encode(&mut frame, version).unwrap();
        let size = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        Reply::Bytes(frame)
    }
}

/// What to do with a request.
pub(crate) enum Reply {
    /// Send these bytes.
    Bytes(Vec<u8>),
    /// Send these bytes and close the connection.
    Part(Vec<u8>),
    /// Send this byte again and again until the client has enough, or for some seconds.
    Drip(u8),
    /// Say nothing and read on.
    Silence,
    /// Close the connection.
    Cut,
}

type Serve = Mutex<Box<dyn FnMut(&Asked) -> Reply + Send>>;

/// The broker. Dropping it stops it.
pub(crate) struct Fake {
    pub address: Arc<Address>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What is unusual about a broker.
#[derive(Default)]
pub(crate) struct Quirks {
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Bytes that the n-th connection sends before it closes.
    pub cuts: Vec<usize>,
}

impl Fake {
    pub fn start(serve: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Fake::with(Quirks::default(), serve)
    }

    pub fn with(quirks: Quirks, serve: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, serve): (_, Serve) = (stop.clone(), Mutex::new(Box::new(serve)));
        let thread = std::thread::Builder::new()
            .name("fake-broker".into())
            .spawn(move || accept(&listener, &quirks, &seen, &serve))
            .unwrap();
        let address = Arc::new(Address { host: "localhost".into(), port });
        Fake { address, stop, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.address.port));
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.expect("the fake broker's script panicked");
        }
    }
}

/// Connections are served side by side; the script answers one request at a time.
fn accept(listener: &TcpListener, quirks: &Quirks, stop: &AtomicBool, serve: &Serve) {
    std::thread::scope(|scope| {
        for count in 0.. {
            let (stream, _) = listener.accept().unwrap();
            if stop.load(Ordering::SeqCst) {
                return;
            }
            scope.spawn(move || {
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let left = quirks.cuts.get(count).copied().unwrap_or(usize::MAX);
                // The client went away, or was cut off: both are what tests want.
                let _ = match &quirks.tls {
                    None => converse(&mut &stream, left, stop, serve),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config.clone()).unwrap();
                        converse(&mut rustls::StreamOwned::new(session, &stream), left, stop, serve)
                    }
                };
            });
        }
    });
}

fn converse(
    stream: &mut (impl Read + Write),
    mut left: usize,
    stop: &AtomicBool,
    serve: &Serve,
) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        read(stream, &mut size, stop)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        read(stream, &mut frame, stop)?;
        let mut body = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut body).unwrap();
        let asked = Asked {
            key: ApiKey::try_from(header.request_api_key).unwrap(),
            version: header.request_api_version,
            correlation: header.correlation_id,
            client_id: header.client_id.map(|id| id.to_string()),
            body: body.copy_to_bytes(body.remaining()),
        };
        let reply = serve.lock()(&asked);
        match reply {
            Reply::Bytes(bytes) => {
                let sent = bytes.len().min(left);
                stream.write_all(&bytes[..sent])?;
                stream.flush()?;
                left -= sent;
                if sent < bytes.len() {
                    return Ok(());
                }
            }
            Reply::Part(bytes) => {
                stream.write_all(&bytes)?;
                return stream.flush();
            }
            // Not for ever, so that a client without a deadline fails its test instead of hanging.
            Reply::Drip(byte) => {
                for _ in 0..1000 {
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(());
            }
            Reply::Silence => {}
            Reply::Cut => return Ok(()),
        }
    }
}

fn read(stream: &mut impl Read, out: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
    let mut filled = 0;
    while filled < out.len() {
        match stream.read(&mut out[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stop.load(Ordering::SeqCst) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every request that there is, in all our versions.
pub(crate) fn versions() -> ApiVersionsResponse {
    let api = |key: ApiKey| {
        let range = key.valid_versions();
        ApiVersion::default().with_api_key(key as i16).with_min_version(range.min).with_max_version(range.max)
    };
    ApiVersionsResponse::default().with_api_keys(ApiKey::iter().map(api).collect())
}

/// The answer to ApiVersions.
pub(crate) fn answer_versions(asked: &Asked) -> Reply {
    assert!(asked.version <= ApiVersionsRequest::VERSIONS.max);
    asked.answer::<ApiVersionsRequest>(&versions())
}

/// The highest version of the handshake's requests that we send.
pub(crate) fn most(key: ApiKey) -> i16 {
    use kafka_protocol::messages::*;
    match key {
        ApiKey::ApiVersions => ApiVersionsRequest::VERSIONS.max,
        ApiKey::SaslHandshake => SaslHandshakeRequest::VERSIONS.max,
        ApiKey::SaslAuthenticate => SaslAuthenticateRequest::VERSIONS.max,
        ApiKey::Metadata => MetadataRequest::VERSIONS.max,
        _ => unreachable!(),
    }
}
