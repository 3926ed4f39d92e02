//! The library's client against the real server.

use std::time::Duration;

use pipeline::s3::{Bucket, Condition, Content, Credentials, Endpoint, Keys, Object, Options};

use super::fault::{Act, Asked, Faulty};
use super::{KEY, SECRET, Server, Store};

impl Store<'_> {
    /// The library's client.
    pub fn client(&self) -> Bucket {
        let endpoint =
            Endpoint::new(Some(&self.endpoint), &self.bucket, "us-east-1", None).expect("it is one");
        let keys = Keys { access_key_id: KEY.into(), secret_access_key: SECRET.into(), session_token: None };
        let timeout = Duration::from_secs(20);
        let credentials = Credentials::fixed(keys);
        Bucket::new(Options {
            endpoint,
            credentials,
            ca: None,
            timeout,
            connections: 2,
            services: Default::default(),
        })
        .expect("it is made")
    }
}

#[test]
fn objects_are_put_found_listed_and_deleted() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("client");
    let client = store.client();
    let names: Vec<String> = (0..5).map(|n| format!("a b/ü+&=~{n}")).collect();
    for name in &names {
        let object = Object { key: name, ..Object::default() };
        client.put(&object, Content::Bytes(name.as_bytes()), Condition::None).expect("it is stored");
    }
    assert_eq!(store.objects().into_keys().collect::<Vec<_>>(), names);
    let found = client.head(&names[0]).expect("answered").expect("it is there");
    assert_eq!(found.len, names[0].len() as u64);
    assert_eq!(found.crc32c, Some(crc32c::crc32c(names[0].as_bytes())));
    assert_eq!(client.head("nothing").expect("answered"), None);

    let mut keys = Vec::new();
    let mut listed = client.list("a b/", None, 2, None).expect("answered");
    loop {
        assert!(listed.keys.len() <= 2);
        keys.append(&mut listed.keys);
        let Some(next) = listed.next else { break };
        listed = client.list("a b/", None, 2, Some(&next)).expect("answered");
    }
    assert_eq!(keys, names);

    client.delete(&names[0]).expect("it is deleted");
    client.delete(&names[0]).expect("it need not be there");
    assert_eq!(client.head(&names[0]).expect("answered"), None);
}

#[test]
fn a_condition_is_honoured() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("condition");
    let client = store.client();
    let object = Object { key: "k", ..Object::default() };
    client.put(&object, Content::Bytes(b"first"), Condition::Absent).expect("nothing is there");
    let error = client.put(&object, Content::Bytes(b"second"), Condition::Absent).expect_err("it is there");
    assert_eq!(error.status(), Some(412), "{error}");
    assert_eq!(store.objects()["k"], b"first");
    client.put(&object, Content::Bytes(b"third"), Condition::None).expect("it may be replaced");
    assert_eq!(store.objects()["k"], b"third");
}

#[test]
fn an_aborted_upload_leaves_nothing() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("abort");
    let client = store.client();
    let upload = client.begin(&Object { key: "k", ..Object::default() }).expect("it is begun");
    client.part(&upload, 1, Content::Bytes(b"some")).expect("it is stored");
    assert!(store.uploads() > 0);
    client.abort(&upload).expect("it is given up");
    client.abort(&upload).expect("it need not be there");
    assert_eq!((store.uploads(), store.objects().len()), (0, 0));
}

#[test]
fn what_is_there_is_read_with_its_age() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("read");
    let client = store.client();
    assert_eq!(client.get("k").expect("answered"), None);
    let etag = client
        .put(&Object { key: "k", ..Object::default() }, Content::Bytes(b"first"), Condition::Absent)
        .expect("it is stored");
    let (found, bytes) = client.get("k").expect("answered").expect("it is there");
    assert_eq!((found.etag.as_str(), bytes.as_slice()), (etag.as_str(), b"first".as_slice()));
    assert!(found.age.is_some_and(|age| age < Duration::from_secs(60)), "{found:?}");
    let object = Object { key: "k", ..Object::default() };
    let second =
        client.put(&object, Content::Bytes(b"second"), Condition::Match(&etag)).expect("it is that one");
    assert_ne!(second, etag);
    let error =
        client.put(&object, Content::Bytes(b"third"), Condition::Match(&etag)).expect_err("it is not");
    assert_eq!(error.status(), Some(412), "{error}");
}

#[test]
fn a_check_tells_what_a_bucket_can() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("check");
    store.bench.write("a.json", "1\n");
    let url = store.url("p");
    let upload = store.client().begin(&Object { key: "p/left", ..Object::default() }).expect("it is begun");
    let ran = store.run(&["a.json", "-o", &url, "--check"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for said in [
        "list: with the keys of the environment",
        "conditions (If-None-Match) are honoured",
        "open uploads: 1, the first of p/left",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    store.client().abort(&upload).expect("it is given up");
    assert!(store.objects().is_empty(), "the probe is gone");
    store.run(&["-b", "2", "a.json", "-o", &url]).expect(0, &[]);
    for (size, code, said) in
        [("2", 0, "ok       what earlier runs left"), ("3", 2, "batch_size was 2 and is 3 now")]
    {
        let ran = store.run(&["-b", size, "a.json", "-o", &url, "--check"]).expect(code, &[]);
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let ran = store.run(&["a.json", "-o", "s3://no-such-bucket", "--check"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stdout);
    assert!(ran.stdout.contains("refused") && ran.stdout.contains("NoSuchBucket"), "{}", ran.stdout);
    let ran = store.by("localhost:1".into()).run(&["a.json", "-o", &url, "--check"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stdout);
}

/// The probe is deleted whatever the store makes of it.
#[test]
fn a_check_tells_how_conditions_are_taken() {
    let Some(server) = Server::shared() else { return };
    let lacks = "<Error><Code>NotImplemented</Code><Message>A header is not implemented.</Message></Error>";
    let ignored = ("the store does not honour conditions", 200, "", 1);
    let refused = ("the store refuses conditions", 501, lacks, 0);
    let broken = ("403 AccessDenied", 403, "<Error><Code>AccessDenied</Code></Error>", 1);
    for ((said, status, body, passed), code) in [(ignored, 0), (refused, 0), (broken, 4)] {
        let mut seen = 0;
        let faulty = Faulty::new(server, move |asked: &Asked| {
            let is_probe = asked.method == "PUT" && asked.header("if-none-match") == Some("*");
            seen += usize::from(is_probe);
            match is_probe && seen > passed {
                true => Act::Answer(status, "ETag: \"e\"\r\n", body.into()),
                false => Act::Pass,
            }
        });
        let store = server.bucket("conditions").by(faulty.endpoint());
        store.bench.write("a.json", "1\n");
        let ran = store.run(&["a.json", "-o", &store.url("p"), "--check"]);
        assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
        assert!(store.all().is_empty(), "the probe is gone");
        let stored = faulty.seen().iter().filter(|asked| asked.target.contains("check-")).count();
        assert!(stored >= 3, "it was stored, tried again and deleted: {stored}");
    }
}
