//! The library's client against the real server.

use std::time::Duration;

use pipeline::s3::{Bucket, Condition, Content, Credentials, Endpoint, Keys, Object, Options};

use super::{KEY, SECRET, Server, Store};

impl Store<'_> {
    /// The library's client.
    pub fn client(&self) -> Bucket {
        let endpoint =
            Endpoint::new(Some(&self.endpoint), &self.bucket, "us-east-1", None).expect("it is one");
        let keys = Keys { access_key_id: KEY.into(), secret_access_key: SECRET.into(), session_token: None };
        let timeout = Duration::from_secs(20);
        let credentials = Credentials::fixed(keys);
        Bucket::new(Options { endpoint, credentials, ca: None, timeout, connections: 2 }).expect("it is made")
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
    let mut listed = client.list("a b/", 2, None).expect("answered");
    loop {
        assert!(listed.keys.len() <= 2);
        keys.append(&mut listed.keys);
        let Some(next) = listed.next else { break };
        listed = client.list("a b/", 2, Some(&next)).expect("answered");
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
