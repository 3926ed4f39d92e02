//! Rights that lack something, told by the real server's policies; and refusals that only other stores have.

use super::fault::{Act, Asked, Faulty};
use super::session::ask;
use super::{Server, Store};
use crate::runs::{Ran, Running, lines};

/// Whom the server knows beside its owner.
const USER: &str = "somebody";

impl Store<'_> {
    /// Lets the user do this in the bucket, and nothing else.
    fn allow(&self, actions: &str) {
        let name = &self.bucket;
        let policy = format!(
            "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Principal\":{{\"AWS\":[\"{USER}\"]}},\
             \"Action\":[{actions}],\"Resource\":[\"arn:aws:s3:::{name}\",\"arn:aws:s3:::{name}/*\"]}}]}}"
        );
        ask(self.server, "PUT", &format!("/{name}?policy="), &policy);
    }

    /// As the user.
    #[track_caller]
    fn as_user(&self, args: &[&str]) -> Ran {
        self.bench.write("a.json", lines(0..10));
        let mut command = self.command(args);
        command.env("AWS_ACCESS_KEY_ID", USER).env("AWS_SECRET_ACCESS_KEY", "somebody-secret");
        Running::start(command).ended()
    }
}

#[test]
fn a_policy_that_denies_everything_is_said() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("nothing");
    store.as_user(&["a.json", "-o", &store.url("")]).expect(4, &["403 AccessDenied", "check the rights"]);
    let ran = store.as_user(&["a.json", "-o", &store.url(""), "--check"]);
    let ran = ran.expect(4, &[]);
    assert!(ran.stdout.contains("list: ") && ran.stdout.contains("403 AccessDenied"), "{}", ran.stdout);
    assert!(store.all().is_empty());
}

#[test]
fn a_bucket_that_can_only_be_read_is_said() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("read-only");
    store.allow("\"s3:ListBucket\",\"s3:GetObject\"");
    store.as_user(&["a.json", "-o", &store.url("")]).expect(4, &["403 AccessDenied", "s3:PutObject"]);
    let ran = store.as_user(&["a.json", "-o", &store.url(""), "--check"]).expect(4, &[]);
    let (listed, rest) = ran.stdout.split_once("write").expect("it was tried");
    assert!(listed.contains("list: with the keys of the environment"), "{}", ran.stdout);
    assert!(rest.contains("403 AccessDenied"), "{}", ran.stdout);
    assert!(store.all().is_empty());
}

#[test]
fn the_rights_that_are_said_to_suffice_do() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("enough");
    store.allow(
        "\"s3:ListBucket\",\"s3:GetObject\",\"s3:PutObject\",\"s3:AbortMultipartUpload\",\"s3:DeleteObject\"",
    );
    store.as_user(&["a.json", "-o", &store.url("")]).expect(0, &[]);
    assert_eq!(store.data("processed/").len(), 10);
}

#[test]
fn refusals_of_other_stores_end_a_run_clearly() {
    let Some(server) = Server::shared() else { return };
    for (status, code, exit, said) in [
        (403, "RequestTimeTooSkewed", 4, "this machine's clock is wrong"),
        (507, "XMinioStorageFull", 4, "the store is full"),
        (403, "QuotaExceeded", 4, "the store is full"),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let faulty = Faulty::new(server, move |asked: &Asked| match asked.is_put() {
            true => Act::Answer(status, "", body.clone()),
            false => Act::Pass,
        });
        let store = server.bucket("refusals").by(faulty.endpoint());
        store.bench.write("a.json", lines(0..300));
        let url = store.url("");
        let args = ["a.json", "-b", "100", "-o", &url, "--set", "processing.max_retries=1"];
        store.run(&args).expect(exit, &[&format!("{status} {code}"), said]);
        assert!(store.objects().is_empty());
        drop(faulty);
        // Nothing was remembered as stored.
        let store = store.by(server.endpoint());
        store.run(&args).expect(0, &[]);
        assert_eq!(store.data("processed/").len(), 300);
    }
}

#[test]
fn a_success_of_a_put_with_an_error_inside_is_none() {
    let Some(server) = Server::shared() else { return };
    let internal = "<Error><Code>InternalError</Code><Message>later</Message></Error>";
    let mut left = 2;
    let faulty = Faulty::new(server, move |asked| match asked.is_put() && left > 0 {
        true => {
            left -= 1;
            Act::Answer(200, "", internal.into())
        }
        false => Act::Pass,
    });
    let store = server.bucket("inside-put").by(faulty.endpoint());
    store.bench.write("a.json", lines(0..300));
    store.run(&["a.json", "-b", "100", "-o", &store.url("")]).expect(0, &[]);
    assert_eq!(store.data("processed/").len(), 300);
}
