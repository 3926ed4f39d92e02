//! What is stored in a bucket, and that it is stored once.

use super::{Server, sorted};
use crate::runs::lines;

#[test]
fn files_go_to_a_bucket() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("files");
    store.bench.write("data1.json", lines(0..120));
    store.run(&["process", "--source", "file", "data1.json", "--s3-bucket", &store.bucket]).expect(0, &[]);
    let keys: Vec<String> = store.objects().into_keys().collect();
    assert_eq!(keys, ["processed/data1.json/00000000000000000000.ndjson"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..120)));
}

#[test]
fn batches_are_objects_under_the_prefix_and_compressed_as_asked() {
    let Some(server) = Server::shared() else { return };
    for (codec, extension) in [("gzip", ".gz"), ("zstd", ".zst")] {
        let store = server.bucket("prefix");
        store.bench.write("a.json", lines(0..120));
        store
            .run(&["-s", "file", "-b", "50", "a.json", "-o", &store.url("jobs/7"), "-z", codec])
            .expect(0, &["in 3 batches", &store.url("jobs/7/")]);
        let objects = store.objects();
        assert_eq!(objects.len(), 3);
        let fits = |key: &String| {
            key.starts_with("jobs/7/processed/a.json/") && key.ends_with(&format!(".ndjson{extension}"))
        };
        assert!(objects.keys().all(fits), "{:?}", objects.keys());
        assert_eq!(store.data("jobs/7/processed/"), sorted(&lines(0..120)));
    }
}

#[test]
fn a_large_batch_is_stored_in_parts() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("parts");
    let input = lines(0..250_000);
    store.bench.write("large.json", &input);
    store
        .run(&["large.json", "-o", &store.url(""), "--set", "s3.part_size=5MiB", "-v"])
        .expect(0, &["in 1 batch"]);
    let objects = store.objects();
    assert_eq!(objects.len(), 1);
    let bytes = objects.values().next().expect("there is one");
    assert!(bytes.len() > 20 << 20, "{} bytes are no four parts", bytes.len());
    assert_eq!(store.data("processed/"), sorted(&input));
    assert_eq!(store.uploads(), 0, "no upload is left open");
    // A multipart object's ETag ends in the number of its parts.
    let found = store.client().head(objects.keys().next().expect("one")).expect("answered").expect("there");
    let parts =
        found.etag.trim_matches('"').rsplit_once('-').and_then(|(_, parts)| parts.parse::<u32>().ok());
    assert!(parts.is_some_and(|parts| parts >= 4), "{found:?}");
    assert_eq!(found.crc32c, Some(crc32c::crc32c(bytes)));
}

#[test]
fn dead_letters_stand_in_the_same_bucket() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("letters");
    store.bench.write("bad.json", "{\"a\":1}\nnot json\n{\"a\":2}\n");
    store
        .run(&["bad.json", "-f", "ndjson", "-o", &store.url("p")])
        .expect(3, &[&format!("{}failed", store.url("p/"))]);
    let objects = store.objects();
    let keys: Vec<&String> = objects.keys().collect();
    let name = "bad.json/00000000000000000000.ndjson";
    assert_eq!(keys, [&format!("p/failed/{name}"), &format!("p/processed/{name}")]);
    let letter = String::from_utf8_lossy(&objects[keys[0]]);
    assert!(letter.contains("\"payload\":\"not json\""), "{letter}");
    assert_eq!(store.data("p/processed/"), ["{\"a\":1}", "{\"a\":2}"]);
}

#[test]
fn a_run_with_a_state_stores_nothing_twice() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("again");
    store.bench.write("a.json", lines(0..1000));
    let url = store.url("");
    let args = ["a.json", "-b", "100", "-o", &url, "--state", "state"];
    store.run(&args).expect(0, &[]);
    let first = store.objects();
    store.run(&args).expect(0, &["nothing to do"]);
    assert_eq!(store.objects(), first);
    store.bench.append("a.json", lines(1000..1100));
    store.run(&args).expect(0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..1100)));
}

#[test]
fn objects_carry_what_was_configured() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("headers");
    store.bench.write("a.json", lines(0..10));
    let args = ["a.json", "-z", "gzip", "-o", &store.url(""), "--set", "s3.metadata=origin=nightly,team=a b"];
    let more = [
        "--set",
        "s3.content_encoding=true",
        "--set",
        "s3.storage_class=STANDARD",
        "--set",
        "s3.tags=a=b c,d=1",
    ];
    store.run(&[&args[..], &more].concat()).expect(0, &[]);
    let client = store.client();
    let key = store.objects().into_keys().next().expect("one");
    let found = client.head(&key).expect("answered").expect("there");
    assert_eq!((found.metadata("origin"), found.metadata("team")), (Some("nightly"), Some("a b")));
    assert!(found.metadata("pipeline-batch").is_some_and(|mark| mark.starts_with("0@")), "{found:?}");
}

#[test]
fn keys_come_from_a_profile_or_the_configuration() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("profile");
    store.bench.write("a.json", lines(0..10));
    std::fs::create_dir_all(store.bench.path("home/.aws")).expect("it can be made");
    let profile = "[other]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n";
    store.bench.write("home/.aws/credentials", profile);
    let mut command = store.command(&["a.json", "-o", &store.url("1"), "-v"]);
    command.env("AWS_PROFILE", "other").env("AWS_SECRET_ACCESS_KEY", "wrong");
    crate::runs::Running::start(command).ended().expect(0, &["with the keys of the profile other"]);
    store.bench.write("secret", "test-secret\n");
    let url = store.url("2");
    let keys = ["--set", "s3.access_key_id=test-key", "--set", "s3.secret_access_key=file:secret"];
    let mut command = store.command(&[&["a.json", "-o", &url, "-v"][..], &keys].concat());
    command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    crate::runs::Running::start(command).ended().expect(0, &["with the keys of the configuration"]);
    assert_eq!(store.objects().len(), 2);
}
