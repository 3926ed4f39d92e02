//! What cannot work is said clearly, before anything is read, with the right exit code.

use pipeline::s3::{Condition, Content, Object};

use super::fault::{Act, Faulty};
use super::{Server, Store};
use crate::runs::{Ran, Running, lines};

#[track_caller]
fn run(store: &Store<'_>, output: &str, set: &[(&str, &str)]) -> Ran {
    store.bench.write("a.json", lines(0..10));
    let mut command = store.command(&["a.json", "-o", output, "--set", "processing.max_retries=2"]);
    command.envs(set.iter().copied());
    Running::start(command).ended()
}

#[test]
fn wrong_keys_and_names_are_said() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("refused");
    let url = store.url("");
    run(&store, &url, &[("AWS_ACCESS_KEY_ID", "nobody")])
        .expect(4, &["403 InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"]);
    run(&store, &url, &[("AWS_SECRET_ACCESS_KEY", "wrong")])
        .expect(4, &["403 SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"]);
    run(&store, "s3://no-such-bucket", &[])
        .expect(4, &["s3://no-such-bucket/", "404 NoSuchBucket", "check the bucket's name", "request id"]);
    run(&store, &url, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")])
        .expect(2, &["no credentials", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"]);
    assert!(store.objects().is_empty());
}

#[test]
fn wrong_endpoints_are_said() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("endpoint");
    let url = store.url("");
    run(&store, &url, &[("AWS_ENDPOINT_URL", "localhost:9000")])
        .expect(2, &["AWS_ENDPOINT_URL", "has no http:// or https://"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let nobody = format!("http://{}", free.local_addr().expect("it is bound"));
    drop(free);
    run(&store, &url, &[("AWS_ENDPOINT_URL", &nobody)]).expect(1, &[&nobody, "Connection refused"]);
    run(&store, "s3://x", &[]).expect(2, &["expected the name of a bucket"]);
    run(&store, "s3://bucket/a/../b", &[]).expect(2, &["expected a prefix like"]);
    run(&store, "s3:", &[]).expect(2, &["expected s3://BUCKET or s3.bucket"]);
}

#[test]
fn a_wrong_region_is_said_with_the_right_one() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("region");
    run(&store, &store.url(""), &[("AWS_REGION", "eu-west-3")]).expect(4, &["eu-west-3", "region us-east-1"]);
}

/// As AWS says it, which the server here does not.
#[test]
fn a_redirect_to_another_region_is_said() {
    let Some(server) = Server::shared() else { return };
    let body = |code: &str| {
        format!("<Error><Code>{code}</Code><Message>m</Message><Region>eu-north-1</Region></Error>")
    };
    for (status, headers, body) in [
        (301, "x-amz-bucket-region: eu-north-1\r\n", body("PermanentRedirect")),
        (307, "Location: http://127.0.0.1:1/\r\nx-amz-bucket-region: eu-north-1\r\n", String::new()),
        (400, "", body("AuthorizationHeaderMalformed")),
    ] {
        let faulty = Faulty::new(server, move |_| Act::Answer(status, headers, body.clone()));
        let store = server.bucket("redirect").by(faulty.endpoint());
        run(&store, &store.url(""), &[("AWS_REGION", "eu-west-3")]).expect(
            4,
            &[&status.to_string(), "the bucket is in region eu-north-1, not eu-west-3: set s3.region"],
        );
        assert_eq!(faulty.seen().len(), 1, "no redirect is followed, and nothing is tried again");
    }
}

#[test]
fn an_object_of_somebody_else_is_not_replaced() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("occupied");
    let key = "processed/a.json/00000000000000000000.ndjson";
    let object = Object { key, ..Object::default() };
    store.client().put(&object, Content::Bytes(b"precious"), Condition::None).expect("it is stored");
    run(&store, &store.url(""), &[]).expect(2, &["is there already", "nothing is known of its run"]);
    assert_eq!(store.objects()[key], b"precious");
}

/// It comes when the run has looked already.
#[test]
fn an_object_that_comes_later_is_not_replaced_either() {
    let Some(server) = Server::shared() else { return };
    let key = "processed/a.json/00000000000000000000.ndjson";
    let direct = server.bucket("later");
    let other = direct.client();
    let mut came = false;
    let faulty = Faulty::new(server, move |asked| {
        if !came && asked.is_put() {
            came = true;
            let object = Object { key, ..Object::default() };
            other.put(&object, Content::Bytes(b"precious"), Condition::None).expect("it is stored");
        }
        Act::Pass
    });
    let store = direct.by(faulty.endpoint());
    run(&store, &store.url(""), &[]).expect(4, &["another object is there already"]);
    assert_eq!(store.objects()[key], b"precious");
}
