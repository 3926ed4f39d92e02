use super::*;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

const FILE: &str = "# a\n[default]\naws_access_key_id = D\naws_secret_access_key=DS\n\n\
                    [ci]\naws_access_key_id=C\naws_secret_access_key = C=S\naws_session_token = T\n\
                    s3 =\n  aws_secret_access_key = nested\n[half]\naws_access_key_id = H\n";

const ASKS: Asks<'static> = Asks { region: "us-east-1", ca: None, timeout: Duration::from_secs(5) };

fn find(profile: Option<&str>, set: &[(&str, &str)]) -> Result<(Keys, String)> {
    let variable = |name: &str| {
        let all = set.iter().chain(&[("HOME", "/home/u"), ("AWS_EC2_METADATA_DISABLED", "true")]);
        all.into_iter().find(|(other, _)| *other == name).map(|(_, value)| match *value {
            "BYTES" => OsString::from_vec(vec![0xff]),
            text => text.into(),
        })
    };
    let read = |path: &Path| match path.to_str() {
        Some("/home/u/.aws/credentials") => Ok(FILE.to_owned()),
        Some("/home/u/.aws/config") => Ok("[profile ci]\nregion = eu-west-3\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let lookup = Lookup { variable: &variable, read: &read };
    let found = Credentials::find(profile, &lookup, &ASKS)?;
    assert_eq!(region_of(Some("ci"), &lookup).as_deref(), Some("eu-west-3"));
    assert_eq!(region_of(None, &lookup), None);
    Ok(((*found.keys()?).clone(), found.place().to_owned()))
}

#[test]
fn the_environment_comes_first_and_empty_values_are_none() {
    let (id, secret) = (("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "ES"));
    let (keys, place) = find(None, &[id, secret]).unwrap();
    assert_eq!((keys.access_key_id.as_str(), place.as_str()), ("E", "environment"));
    let (keys, place) = find(None, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", " ")]).unwrap();
    assert_eq!((keys.access_key_id.as_str(), place.as_str()), ("D", "profile default"));
    let error = find(None, &[id, ("AWS_SECRET_ACCESS_KEY", "BYTES")]).unwrap_err().to_string();
    assert!(error.contains("the variable AWS_SECRET_ACCESS_KEY is not UTF-8"), "{error}");
    let error = find(None, &[id]).unwrap_err().to_string();
    assert!(error.contains("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"), "{error}");
}

#[test]
fn a_named_profile_is_the_one() {
    let set = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "ES"), ("AWS_SESSION_TOKEN", "ET")];
    let (keys, _) = find(Some("ci"), &set).unwrap();
    assert_eq!(keys.secret_access_key, "C=S");
    assert_eq!(keys.session_token.as_deref(), Some("T"));
    for (missing, said) in [
        ("half", "has aws_access_key_id and no aws_secret_access_key in /home/u/.aws/credentials"),
        ("none", "has no keys in /home/u/.aws/credentials"),
    ] {
        let error = find(Some(missing), &set).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let elsewhere = [("AWS_SHARED_CREDENTIALS_FILE", "/x"), ("AWS_CONFIG_FILE", "/y")];
    let error = find(None, &elsewhere).unwrap_err().to_string();
    assert!(error.contains("no profile in /x or /y"), "{error}");
}

#[test]
fn keys_are_never_printed() {
    let keys = Keys { access_key_id: "A".into(), secret_access_key: "S".into(), session_token: None };
    assert_eq!(format!("{keys:?}"), "Keys(A)");
}

/// Lends what comes through a channel, and counts who asks.
struct Scripted {
    lends: crossbeam_channel::Receiver<Result<Lent>>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl Provider for Scripted {
    fn lend(&self) -> Result<Lent> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.lends.recv().unwrap_or_else(|_| Err(failed(Retry::Transient, "nobody lends".into())))
    }
}

fn lent(id: &str, valid: u64, due: u64) -> Lent {
    let keys = Keys { access_key_id: id.into(), secret_access_key: "S".into(), session_token: None };
    let now = SystemTime::now();
    let [until, renew] = [valid, due].map(|seconds| Some(now + Duration::from_secs(seconds)));
    Lent { keys: Arc::new(keys), until, renew }
}

type Script = (Credentials, crossbeam_channel::Sender<Result<Lent>>, Arc<std::sync::atomic::AtomicUsize>);

fn scripted(first: Option<Lent>) -> Script {
    let (lend, lends) = crossbeam_channel::bounded(4);
    let asked = Arc::<std::sync::atomic::AtomicUsize>::default();
    let provider = Scripted { lends, asked: asked.clone() };
    (Credentials::made(Some(Box::new(provider)), "test".into(), String::new(), first), lend, asked)
}

fn id(credentials: &Credentials) -> String {
    credentials.keys().unwrap().access_key_id.clone()
}

#[track_caller]
fn until(mut it: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !it() {
        assert!(std::time::Instant::now() < end, "it did not come");
        std::thread::yield_now();
    }
}

#[test]
fn valid_keys_are_used_while_others_are_asked_for() {
    use std::sync::atomic::Ordering::SeqCst;
    let (credentials, lend, asked) = scripted(Some(lent("old", 100, 0)));
    // The provider does not answer, and nobody waits for it.
    assert_eq!(id(&credentials), "old");
    until(|| asked.load(SeqCst) == 1);
    assert!((0..100).all(|_| id(&credentials) == "old"));
    assert_eq!(asked.load(SeqCst), 1);
    lend.send(Ok(lent("new", 100, 90))).unwrap();
    until(|| id(&credentials) == "new");
    assert_eq!(asked.load(SeqCst), 1);
}

#[test]
fn a_renewal_that_fails_leaves_keys_that_are_valid() {
    use std::sync::atomic::Ordering::SeqCst;
    let (credentials, lend, asked) = scripted(Some(lent("old", 100, 0)));
    let services = Services::default();
    credentials.count_into(&services);
    lend.send(Err(failed(Retry::Transient, "later".into()))).unwrap();
    assert_eq!(id(&credentials), "old");
    until(|| credentials.0.shared.current.lock().as_ref().is_some_and(|lent| !lent.is_due()));
    assert!((0..100).all(|_| id(&credentials) == "old"));
    assert_eq!(asked.load(SeqCst), 1, "it is left alone for a while");
    let told = services.told();
    assert_eq!(told[&("s3", "credentials")].retries, 1, "{told:?}");
}

#[test]
fn whoever_has_no_keys_waits_and_one_asks() {
    let (credentials, lend, asked) = scripted(None);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| id(&credentials))).collect();
        lend.send(Ok(lent("new", 100, 90))).unwrap();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == "new"));
    });
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    // The service says that they have expired: only those that were refused are given up.
    let first = credentials.keys().unwrap();
    assert!(credentials.expired(&first));
    lend.send(Ok(lent("newer", 100, 90))).unwrap();
    assert_eq!(id(&credentials), "newer");
    assert!(credentials.expired(&first));
    assert_eq!(id(&credentials), "newer");
    assert!(!Credentials::fixed((*first).clone()).expired(&first));
}

#[test]
fn keys_that_have_expired_already_are_no_keys() {
    let (credentials, lend, _) = scripted(None);
    let mut old = lent("old", 0, 0);
    old.until = Some(SystemTime::UNIX_EPOCH);
    lend.send(Ok(old)).unwrap();
    let error = credentials.keys().unwrap_err();
    assert!(error.to_string().contains("has expired already"), "{error}");
    assert_eq!(error.retry(), Retry::Transient);
}

#[test]
fn a_token_file_may_be_empty_while_it_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let retry = || of_file("TOKEN", &path).unwrap_err().retry();
    assert_eq!(retry(), Retry::Permanent, "there is none");
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(retry(), Retry::Transient);
    std::fs::write(&path, "a\nb\n").unwrap();
    assert_eq!(retry(), Retry::Permanent);
    std::fs::write(&path, "a\n").unwrap();
    assert_eq!(of_file("TOKEN", &path).unwrap(), "a");
}

#[test]
fn a_program_that_fails_is_named_once() {
    let failing = process::Process::new("exit 3".into());
    let place = "credential_process of profile f".to_owned();
    let error = Credentials::made(Some(Box::new(failing)), place, String::new(), None).keys().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no credentials: credential_process of profile f: it failed (exit status: 3)"
    );
}

/// The metadata of an instance that the environment says to be at this address.
#[cfg(feature = "http")]
fn machine(url: &str) -> Credentials {
    let variable = |name: &str| (name == "AWS_EC2_METADATA_SERVICE_ENDPOINT").then(|| url.into());
    let lookup = Lookup { variable: &variable, read: &|_| Err(io::ErrorKind::NotFound.into()) };
    Credentials::find(None, &lookup, &ASKS).unwrap()
}

#[cfg(feature = "http")]
#[test]
fn a_machine_that_has_answered_is_asked_again() {
    use crate::http::script::{Answer, Server};
    for (status, retry) in [(503, Retry::Transient), (404, Retry::Permanent), (403, Retry::Permanent)] {
        let server = Server::new(move |asked| match asked.method.as_str() {
            "PUT" => Answer::ok("session"),
            _ => Answer::status(status),
        });
        let error = machine(server.url("").as_str()).keys().unwrap_err();
        assert_eq!(error.retry(), retry, "{error}");
        assert!(
            error.to_string().contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"),
            "{error}"
        );
    }
    // Where nothing says that there is one, and nobody can be reached.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = machine(&format!("http://{nobody}")).keys().unwrap_err();
    assert_eq!(error.retry(), Retry::Permanent, "{error}");
}

/// Whether two that ask a bucket with these credentials, and wait for keys, end with the abort that follows `asked`.
#[track_caller]
fn ends_with_an_abort(credentials: &Credentials, asked: impl FnOnce()) {
    use super::super::{Bucket, Endpoint, Options, Style};
    let endpoint =
        Endpoint::new(Some("http://127.0.0.1:1"), "bucket", "us-east-1", Some(Style::Path)).unwrap();
    let (credentials, timeout) = (credentials.clone(), Duration::from_secs(5));
    let options =
        Options { endpoint, credentials, ca: None, timeout, connections: 1, services: Services::default() };
    let bucket = Bucket::new(options).unwrap();
    let stop = Stop::new();
    bucket.hang_up_with(&stop);
    // No second try: the first error is what comes of it.
    let policy = crate::retry::Policy { max_retries: 0, ..Default::default() };
    let ask = || bucket.patiently(policy, &stop, || bucket.list("", None, 1, None).map(drop));
    std::thread::scope(|scope| {
        let asking = [scope.spawn(ask), scope.spawn(ask)];
        asked();
        stop.abort();
        for it in asking {
            let ended = it.join().unwrap();
            assert!(matches!(ended, Err(crate::Error::Stopped)), "{ended:?}");
        }
    });
    let error = bucket.credentials().keys().unwrap_err();
    assert!(error.to_string().contains("the run was stopped"), "nobody is asked any more: {error}");
}

#[test]
fn an_abort_ends_a_wait_for_a_service() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let variable = |name: &str| match name {
        "AWS_WEB_IDENTITY_TOKEN_FILE" => Some(dir.path().join("token").into_os_string()),
        "AWS_ROLE_ARN" => Some("r".into()),
        "AWS_ENDPOINT_URL_STS" => Some(format!("http://{}", listener.local_addr().unwrap()).into()),
        _ => None,
    };
    let lookup = Lookup { variable: &variable, read: &|_| Err(io::ErrorKind::NotFound.into()) };
    let asks = Asks { timeout: Duration::from_secs(60), ..ASKS };
    let credentials = Credentials::find(None, &lookup, &asks).unwrap();
    let mut client = None;
    ends_with_an_abort(&credentials, || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        client = Some(stream);
    });
}

#[test]
fn an_abort_ends_a_wait_for_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let process = process::Process::new(format!("echo >'{}'; sleep 50", started.display()));
    let credentials = Credentials::made(Some(Box::new(process)), "test".into(), String::new(), None);
    ends_with_an_abort(&credentials, || until(|| started.exists()));
}

/// Asks a token service at `address` in an environment with these proxies.
#[cfg(feature = "http")]
fn ask_for_a_role(address: &str, proxies: &[(&str, &str)]) -> Result<Arc<Keys>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    let token = dir.path().join("token").display().to_string();
    let variable = |name: &str| match name {
        "AWS_WEB_IDENTITY_TOKEN_FILE" => Some(token.clone().into()),
        "AWS_ROLE_ARN" => Some("r".into()),
        "AWS_ENDPOINT_URL_STS" => Some(address.into()),
        _ => proxies.iter().find(|(proxy, _)| *proxy == name).map(|(_, url)| (*url).into()),
    };
    let lookup = Lookup { variable: &variable, read: &|_| Err(io::ErrorKind::NotFound.into()) };
    Credentials::find(None, &lookup, &ASKS)?.keys()
}

#[cfg(feature = "http")]
#[test]
fn the_token_service_is_asked_by_way_of_the_proxy_of_its_scheme() {
    use crate::http::script::{Answer, Server};
    let server = Server::new(|asked| match asked.method.as_str() {
        "CONNECT" => Answer::status(200),
        _ => Answer::status(403),
    });
    let other = Server::new(|_| Answer::status(502));
    let (proxy, wrong) = (server.url(""), other.url(""));
    let both = [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", wrong.as_str()), ("ALL_PROXY", &wrong)];
    let error = ask_for_a_role("http://sts.invalid/", &both).unwrap_err();
    assert!(error.to_string().contains("http://sts.invalid/: 403"), "{error}");
    let asked: Vec<String> = server.asked().into_iter().map(|it| it.target).collect();
    assert_eq!(asked, ["sts.invalid:80", "/"]);
    // Named, it is reached without.
    let without = [("HTTP_PROXY", wrong.as_str()), ("NO_PROXY", "127.0.0.1")];
    let error = ask_for_a_role(&server.url("/"), &without).unwrap_err();
    assert!(error.to_string().contains("403") && other.asked().is_empty(), "{error}");
    // What is no proxy that can be used is wrong usage.
    let error = ask_for_a_role("http://sts.invalid/", &[("HTTP_PROXY", "socks5://u:secret@h")]).unwrap_err();
    assert!(matches!(error, Error::Config(_)) && !error.to_string().contains("secret"), "{error}");
}

#[cfg(feature = "http")]
#[test]
fn secrets_of_an_address_are_not_told() {
    use crate::http::script::{Answer, Server};
    let told = |url: &str| {
        let variable = |name: &str| (name == "AWS_CONTAINER_CREDENTIALS_FULL_URI").then(|| url.into());
        let lookup = Lookup { variable: &variable, read: &|_| Err(io::ErrorKind::NotFound.into()) };
        let keys = Credentials::find(None, &lookup, &ASKS).and_then(|found| found.keys().map(drop));
        let told = keys.unwrap_err().to_string();
        assert!(!told.contains("SECRET"), "{told}");
        told
    };
    for answer in [|| Answer::status(401), || Answer::ok("{}")] {
        let server = Server::new(move |asked| match asked.target.as_str() {
            "/a?tok=SECRET" => answer(),
            _ => Answer::status(500),
        });
        let error = told(&server.url("/a?tok=SECRET#SECRET"));
        assert!(error.contains(&server.url("/a: ")) && !error.contains("500"), "{error}");
    }
    assert!(told("http://u:SECRET@127.0.0.1:1/a?tok=SECRET").contains("at http://127.0.0.1:1/a: "));
    assert!(told("http://example.com/a?tok=SECRET").contains("http://example.com/a: expected https://"));
    assert!(told("example.com/a?tok=SECRET").contains("AWS_CONTAINER_CREDENTIALS_FULL_URI: expected a URL"));
}
