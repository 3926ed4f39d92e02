//! What configured headers leave on the wire: they stand, signed, in what makes an object, and nowhere else.

use super::fault::{Act, Asked, Faulty};
use super::session::ask;
use super::{Server, Store};
use crate::runs::lines;

const SET: [&str; 14] = [
    "--set",
    "s3.storage_class=STANDARD_IA",
    "--set",
    "s3.sse=aws:kms",
    "--set",
    "s3.kms_key_id=alias/events",
    "--set",
    "s3.acl=bucket-owner-full-control",
    "--set",
    "s3.tags=team=a b,unit=x&y",
    "--set",
    "s3.metadata=origin=nightly",
    "--set",
    "s3.content_encoding=true",
];
const EXPECTED: [(&str, &str); 8] = [
    ("content-type", "application/x-ndjson"),
    ("content-encoding", "gzip"),
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-server-side-encryption", "aws:kms"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "alias/events"),
    ("x-amz-acl", "bucket-owner-full-control"),
    ("x-amz-tagging", "team=a%20b&unit=x%26y"),
    ("x-amz-meta-origin", "nightly"),
];

#[track_caller]
fn check(asked: &Asked) {
    let signed = asked.header("authorization").expect("it is signed").to_owned();
    let names = signed.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).expect("some");
    for (name, value) in EXPECTED {
        assert_eq!(asked.header(name), Some(value), "{name}: {}", asked.head);
        assert!(names.split(';').any(|other| other == name), "{name} is not signed: {names}");
    }
}

/// The real server does not know all of them, so the proxy says that an object was stored.
#[test]
fn a_put_carries_what_was_configured() {
    let Some(server) = Server::shared() else { return };
    let faulty = Faulty::new(server, |asked| match asked.is_put() {
        true => Act::Answer(200, "ETag: \"e\"\r\n", String::new()),
        false => Act::Pass,
    });
    let store = server.bucket("wire").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    store.run(&[&["a.json", "-z", "gzip", "-o", &url][..], &SET].concat()).expect(0, &[]);
    let seen = faulty.seen();
    let puts: Vec<&Asked> = seen.iter().filter(|asked| asked.is_put()).collect();
    assert_eq!(puts.len(), 1);
    check(puts[0]);
}

#[test]
fn an_upload_in_parts_carries_it_once() {
    let Some(server) = Server::shared() else { return };
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    let faulty =
        Faulty::new(server, move |asked| match asked.target.contains("uploads=") && asked.method == "POST" {
            true => Act::Answer(403, "", denied.into()),
            false => Act::Pass,
        });
    let store: Store<'_> = server.bucket("wire-parts").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..250_000));
    let url = store.url("");
    let args = [
        "a.json",
        "-z",
        "gzip:1",
        "-o",
        &url,
        "--set",
        "s3.part_size=5MiB",
        "--set",
        "input.max_record_bytes=1MiB",
    ];
    // Compressed it is too small for parts, so it is not; the header that says so is checked with the other test.
    let plain: Vec<&str> = args.iter().map(|arg| if *arg == "gzip:1" { "none" } else { arg }).collect();
    store.run(&[&plain[..], &SET].concat()).expect(4, &["403 AccessDenied"]);
    let seen = faulty.seen();
    let begun = seen.iter().find(|asked| asked.method == "POST").expect("it was tried");
    for (name, value) in EXPECTED.into_iter().filter(|(name, _)| *name != "content-encoding") {
        assert_eq!(begun.header(name), Some(value), "{name}: {}", begun.head);
    }
}

/// And what the real server keeps of it, asked for with other code than the library's.
#[test]
fn the_server_takes_encryption_and_tags() {
    let Some(server) = Server::shared() else { return };
    let faulty = Faulty::new(server, |_| Act::Pass);
    let store = server.bucket("wire-kept").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..10));
    let url = store.url("");
    let set = ["--set", "s3.tags=team=a b", "--set", "s3.metadata=origin=nightly", "--set", "s3.sse=AES256"];
    store.run(&[&["a.json", "-o", &url][..], &set].concat()).expect(0, &[]);
    let key = store.objects().into_keys().next().expect("one");
    let target = format!("/{}/{key}", store.bucket);
    let tags = ask(server, "GET", &format!("{target}?tagging="), "");
    assert!(tags.contains("<Key>team</Key><Value>a b</Value>"), "{tags}");
    let head = ask(server, "HEAD", &target, "").to_ascii_lowercase();
    assert!(head.contains("x-amz-meta-origin: nightly"), "{head}");
    // It does not say how it encrypts.
    let seen = faulty.seen();
    let put = seen.iter().find(|asked| asked.is_put()).expect("it was stored");
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("AES256"));
    assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), None);
}
