//! Where keys are from: each place by its own protocol, objects stored with its keys on the real server, and what
//! is said when a place fails. Requests pass a proxy that looks at the token they are signed with.

use std::process::Command;

use super::fault::{Act, Asked, Faulty};
use super::lend::{Lender, Wish, after, keys};
use super::{KEY, SECRET, Server, Store, sorted};
use crate::runs::{Ran, Running, lines};

const EXPIRED: &str =
    "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";

/// Runs without keys of the environment.
#[track_caller]
fn run(store: &Store<'_>, args: &[&str], set: &[(&str, &str)]) -> Ran {
    Running::start(command(store, args, set)).ended()
}

fn command(store: &Store<'_>, args: &[&str], set: &[(&str, &str)]) -> Command {
    store.bench.write("a.json", lines(0..300));
    let mut command = store.command(&[&["a.json", "-b", "100"][..], args].concat());
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(name);
    }
    command.env("PIPELINE_PROCESSING__MAX_RETRIES", "2").envs(set.iter().copied());
    command
}

fn token(asked: &Asked) -> Option<&str> {
    asked.header("x-amz-security-token")
}

/// Everything is stored, signed with this token; nobody was told a secret.
#[track_caller]
fn stored(store: &Store<'_>, faulty: &Faulty, expected: &str) {
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    let seen = faulty.seen();
    assert!(seen.len() > 3 && seen.iter().all(|asked| token(asked) == Some(expected)), "{seen:?}");
}

#[track_caller]
fn told(ran: Ran, code: i32, said: &[&str]) -> Ran {
    let ran = ran.expect(code, said);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    for secret in [SECRET, "SESSION", "PROOF"] {
        assert!(!all.contains(secret), "{secret} was told: {all}");
    }
    ran
}

fn behind<'a>(server: &'a Server, name: &str) -> (Store<'a>, Faulty) {
    let faulty = Faulty::new(server, |_| Act::Pass);
    (server.bucket(name).by(faulty.endpoint()), faulty)
}

fn sts(wish: &Wish) -> (u16, String) {
    assert_eq!(wish.line, "POST /");
    let until = after(3600);
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>s</SubjectFromWebIdentityToken><Credentials>\
         <SessionToken>SESSION</SessionToken><SecretAccessKey>{SECRET}</SecretAccessKey><Expiration>{until}</Expiration>\
         <AccessKeyId>{KEY}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
    );
    (200, body)
}

#[test]
fn a_web_identity_becomes_a_role() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) = behind(server, "irsa");
    let lender = Lender::new(sts);
    store.bench.write("token", "PROOF+/=\n");
    let url = lender.url("/");
    let set = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ROLE_SESSION_NAME", "nightly"),
        ("AWS_ENDPOINT_URL_STS", url.as_str()),
    ];
    let ran = run(&store, &["-o", &store.url(""), "-v"], &set);
    told(ran, 0, &["keys of the web identity (role arn:aws:iam::1:role/r)", "valid until"]);
    stored(&store, &faulty, "SESSION");
    let asked = lender.seen();
    assert_eq!(asked.len(), 1);
    for part in [
        "Action=AssumeRoleWithWebIdentity",
        "&Version=2011-06-15",
        "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr",
        "&RoleSessionName=nightly",
        "&WebIdentityToken=PROOF%2B%2F%3D",
    ] {
        assert!(asked[0].body.contains(part), "{part}: {}", asked[0].body);
    }
    assert!(!asked[0].headers.contains("authorization"), "it is not signed");
    // A profile may say the same.
    let text = "[profile irsa]\nrole_arn = arn:aws:iam::1:role/p\nweb_identity_token_file = token\n";
    store.bench.write("config", text);
    let set = [("AWS_CONFIG_FILE", "config"), ("AWS_PROFILE", "irsa"), ("AWS_ENDPOINT_URL_STS", &url)];
    let ran = run(&store, &["-o", &store.url("again"), "-v"], &set);
    told(ran, 0, &["web identity of profile irsa (role arn:aws:iam::1:role/p)"]);
}

#[test]
fn a_web_identity_that_is_refused_is_said() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("irsa-no");
    let lender = Lender::new(|_| {
        let text = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                    <Code>AccessDenied</Code><Message>Not authorized with PROOF</Message></Error>\
                    <RequestId>R7</RequestId></ErrorResponse>";
        (403, text.into())
    });
    let url = lender.url("/");
    let base = [("AWS_WEB_IDENTITY_TOKEN_FILE", "token"), ("AWS_ENDPOINT_URL_STS", url.as_str())];
    told(run(&store, &["-o", &store.url("")], &base), 2, &["AWS_ROLE_ARN is not"]);
    let set = [base[0], base[1], ("AWS_ROLE_ARN", "arn:r")];
    told(run(&store, &["-o", &store.url("")], &set), 2, &["AWS_WEB_IDENTITY_TOKEN_FILE token: No such file"]);
    store.bench.write("token", "\n");
    told(run(&store, &["-o", &store.url("")], &set), 1, &["token: the file is empty"]);
    store.bench.write("token", "PROOF");
    let said = ["web identity (role arn:r)", "403 AccessDenied Not authorized with ***", "request id R7"];
    told(run(&store, &["-o", &store.url("")], &set), 2, &said);
    assert!(store.objects().is_empty());
}

#[test]
fn a_container_has_keys() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) = behind(server, "pod");
    let lender = Lender::new(|wish| match wish.headers.contains("\r\nauthorization: proof\r\n") {
        true => (200, keys("SESSION", 3600)),
        false => (401, "{\"code\":\"x\",\"Message\":\"who are you\"}".into()),
    });
    let url = lender.url("/v1/credentials");
    store.bench.write("token", "PROOF\n");
    let set = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "token"),
    ];
    let ran = run(&store, &["-o", &store.url(""), "-v"], &set);
    told(ran, 0, &["keys of the container (AWS_CONTAINER_CREDENTIALS_FULL_URI)"]);
    stored(&store, &faulty, "SESSION");
    assert_eq!(lender.seen()[0].line, "GET /v1/credentials");
    let set = [set[0], ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "PROOF")];
    told(run(&store, &["-o", &store.url("again")], &set), 0, &[]);
    told(
        run(&store, &["-o", &store.url("no")], &set[..1]),
        2,
        &["credential service at http://127.0.0.1", "401"],
    );
    let set = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/")];
    told(
        run(&store, &["-o", &store.url("no")], &set),
        2,
        &["expected https://, or http:// and an address of this"],
    );
}

#[test]
fn a_machine_has_keys() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) = behind(server, "machine");
    let lender = Lender::new(|wish| {
        let session = wish.headers.contains("x-aws-ec2-metadata-token: proof");
        match wish.line.as_str() {
            "PUT /latest/api/token"
                if wish.headers.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600") =>
            {
                (200, "PROOF".into())
            }
            "GET /latest/meta-data/iam/security-credentials/" if session => (200, "the-role\n".into()),
            "GET /latest/meta-data/iam/security-credentials/the-role" if session => {
                (200, keys("SESSION", 3600))
            }
            _ => (401, String::new()),
        }
    });
    let url = lender.url("");
    let set = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let ran = run(&store, &["-o", &store.url(""), "-v"], &set);
    told(ran, 0, &["keys of the instance metadata"]);
    stored(&store, &faulty, "SESSION");
    let ran = run(&store, &["-o", &store.url("x"), "--check"], &set);
    let ran = told(ran, 0, &[]);
    assert!(ran.stdout.contains("list: with the keys of the instance metadata"), "{}", ran.stdout);
    for (roles, said, code) in [(404, "this machine has no role", 2), (500, "500", 1)] {
        let lender = Lender::new(move |wish| match wish.line.starts_with("PUT") {
            true => (200, "PROOF".into()),
            false => (roles, String::new()),
        });
        let url = lender.url("");
        let set = [set[0], ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
        told(run(&store, &["-o", &store.url("no")], &set), code, &["AWS_ACCESS_KEY_ID and", said]);
    }
    let set = [set[0], ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")];
    let said = ["no profile in", "AWS_WEB_IDENTITY_TOKEN_FILE", "instance metadata service", "refused"];
    told(run(&store, &["-o", &store.url("no")], &set), 2, &said);
}

#[test]
fn a_program_has_keys() {
    let Some(server) = Server::shared() else { return };
    let (store, faulty) = behind(server, "program");
    let printed = keys("SESSION", 3600)
        .replace("\"Code\":\"Success\"", "\"Version\":1")
        .replace("\"Token\"", "\"SessionToken\"");
    store.bench.write("printed", printed);
    store.bench.write(
        "config",
        "[default]\ncredential_process = cat 'printed'\n[profile s]\nsso_session = x\n\
         [profile f]\ncredential_process = exit 3\n[profile g]\ncredential_process = echo SESSION\n",
    );
    let set = [("AWS_CONFIG_FILE", "config")];
    let ran = run(&store, &["-o", &store.url(""), "-v"], &set);
    told(ran, 0, &["keys of the credential_process of profile default"]);
    stored(&store, &faulty, "SESSION");
    let ran = run(&store, &["-o", &store.url("no")], &[set[0], ("AWS_PROFILE", "s")]);
    told(ran, 2, &["sso_session, which is not supported", "aws configure export-credentials --profile s"]);
    // What may pass is tried again; what will not is wrong usage.
    let ran = run(&store, &["-o", &store.url("no")], &[set[0], ("AWS_PROFILE", "f")]);
    told(ran, 1, &["profile f: it failed (exit status: 3); attempt 2 of 3"]);
    let ran = run(&store, &["-o", &store.url("no")], &[set[0], ("AWS_PROFILE", "g")]);
    told(ran, 2, &["profile g: the answer is no JSON of keys"]);
}

/// Answers as a service does to requests whose token is `old`.
fn refuses(server: &Server, mut is_old: impl FnMut(&Asked) -> bool + Send + 'static) -> Faulty {
    Faulty::new(server, move |asked| match is_old(asked) {
        true => Act::Answer(400, "", EXPIRED.into()),
        false => Act::Pass,
    })
}

#[test]
fn a_token_that_expires_in_the_middle_of_a_run_is_renewed() {
    let Some(server) = Server::shared() else { return };
    let mut puts = 0;
    let faulty = refuses(server, move |asked| {
        puts += usize::from(asked.is_put());
        puts > 1 && token(asked) == Some("SESSION-0")
    });
    let store = server.bucket("expires").by(faulty.endpoint());
    let lender = Lender::new(|wish| (200, keys(&format!("SESSION-{}", wish.number.min(1)), 3600)));
    let url = lender.url("/");
    let set = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())];
    let ran = run(&store, &["-o", &store.url("")], &set);
    told(ran, 0, &["400 ExpiredToken", "asking for new ones"]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
    assert_eq!(lender.seen().len(), 2, "all writers share the new keys");
}

#[test]
fn a_token_that_nobody_renews_is_said() {
    let Some(server) = Server::shared() else { return };
    let mut puts = 0;
    let faulty = refuses(server, move |asked| {
        puts += usize::from(asked.is_put());
        puts > 1
    });
    let store = server.bucket("expired").by(faulty.endpoint());
    let set =
        [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_SESSION_TOKEN", "SESSION")];
    let ran = run(&store, &["-o", &store.url("")], &set);
    told(ran, 4, &["400 ExpiredToken", "the session token is not valid any more: get a new one"]);
    // A run with a new one goes on.
    let faulty = Faulty::new(server, |_| Act::Pass);
    let store = store.by(faulty.endpoint());
    told(run(&store, &["-o", &store.url("")], &set), 0, &[]);
    assert_eq!(store.data("processed/"), sorted(&lines(0..300)));
}
