//! Ways to a bucket: encrypted, with the bucket in the host's name, and by several runs at once.

use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::fault::{Act, Faulty};
use super::{Server, Store, server, sorted};
use crate::runs::{Ran, Running, lines, until};

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kafka/tls");

/// A file of the authority or a server of tests.
fn pem(name: &str) -> String {
    format!("{TLS}/{name}.pem")
}

#[test]
fn a_store_proves_who_it_is() {
    if !server::is_possible() {
        return;
    }
    let certificate = pem("server");
    let server = Server::start_with(&["--cert", &certificate, "--key", &certificate]);
    let store = server.bucket("tls").by(format!("https://localhost:{}", server.port));
    store.bench.write("a.json", lines(0..250_000));
    let (ca, other) = (format!("s3.ca={}", pem("ca")), format!("s3.ca={}", pem("other-ca")));
    let run = |store: &Store<'_>, to: &str, args: &[&str]| -> Ran {
        store.run(&[&["a.json", "-o", &store.url(to), "--set", "s3.part_size=5MiB"][..], args].concat())
    };
    // Nothing is hashed for the signature there; checksums say that all is whole.
    run(&store, "a", &["--set", &ca]).expect(0, &[]);
    assert_eq!(store.data("a/processed/"), sorted(&lines(0..250_000)));
    let mut command = store.command(&["a.json", "-o", &store.url("b"), "--check"]);
    command.env("AWS_CA_BUNDLE", pem("ca"));
    let checked = Running::start(command).ended().expect(0, &[]);
    assert!(checked.stdout.contains("are honoured"), "{}", checked.stdout);
    run(&store, "c", &[]).expect(4, &["https://localhost:", "certificate"]);
    run(&store, "c", &["--set", &other]).expect(4, &["certificate"]);
    run(&store, "c", &["--set", "s3.ca=a.json"]).expect(2, &["s3.ca", "no certificate in PEM format"]);
    run(&store, "c", &["--set", "s3.ca=nothing.pem"]).expect(2, &["s3.ca", "nothing.pem"]);
    let plain = store.by(format!("http://localhost:{}", server.port));
    run(&plain, "c", &[]).expect(1, &["http://localhost:", "Peer disconnected; does it want https?"]);
    assert!(plain.objects().keys().all(|key| key.starts_with("a/")));
}

#[test]
fn a_service_without_tls_is_told() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("plain").by(format!("https://localhost:{}", server.port));
    store.bench.write("a.json", lines(0..3));
    let ran = store.run(&["a.json", "-o", &store.url("a")]);
    ran.expect(4, &["https://localhost:", "does not speak TLS here; check s3.endpoint: is it http://?"]);
}

/// Connects whoever asks to one server, whatever name they ask for: no name below `localhost` is known everywhere.
struct Proxy {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (asked, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, ended) = (asked.clone(), over.clone());
        begin(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                begin(move || drop(connect(client, port)));
            }
        });
        Proxy { address, asked, over }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn begin(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("proxy".into()).spawn(work).expect("a thread can be started");
}

fn connect(client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    assert!(head.starts_with("CONNECT logs.s3.test:"), "{head}");
    while reader.read_line(&mut head)? > 2 {}
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut to_server, mut to_client) = (server.try_clone()?, client);
    to_client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    begin(move || {
        let _ = copy(&mut reader, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    copy(&mut &server, &mut to_client).map(drop)
}

#[test]
fn a_bucket_may_stand_in_the_host() {
    if !server::is_possible() {
        return;
    }
    let server = Server::start_with(&["--virtual-domain", "s3.test"]);
    std::fs::create_dir(server.dir.join("data/logs")).expect("it can be made");
    let proxy = Proxy::start(server.port);
    let store = Store { bucket: "logs".into(), ..server.bucket("other") };
    let store = store.by(format!("http://s3.test:{}", server.port));
    store.bench.write("a.json", lines(0..100));
    let url = store.url("p");
    let args = ["a.json", "-o", &url, "-b", "30", "--set", "s3.path_style=false"];
    let mut command = store.command(&args);
    command.env("http_proxy", format!("http://{}", proxy.address));
    Running::start(command).ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..100)));
    assert!(proxy.asked.load(Ordering::Relaxed) > 0);
}

/// Parts are sent side by side while the batch is still open, and nothing is seen of it before its end.
#[test]
fn parts_do_not_wait_for_the_end_of_their_batch() {
    let Some(server) = Server::shared() else { return };
    let mut held = false;
    let faulty = Faulty::new(server, move |asked| {
        let first = !held && asked.is_part();
        held |= first;
        if first { Act::Silence } else { Act::Pass }
    });
    let store = server.bucket("open").by(faulty.endpoint());
    let url = store.url("");
    let args = ["-", "-f", "ndjson", "-o", &url, "--set", "s3.part_size=5MiB", "--timeout", "5s"];
    let mut command = store.command(&args);
    command.stdin(std::process::Stdio::piped());
    let mut run = Running::start(command);
    let mut input = run.child().stdin.take().expect("it is piped");
    let text = lines(0..120_000);
    input.write_all(text.as_bytes()).expect("it is read");
    // The first is not answered yet, and nobody has given it up.
    let parts = || -> Vec<String> {
        faulty.seen().into_iter().filter(|asked| asked.is_part()).map(|asked| asked.target).collect()
    };
    until("a second part is sent beside the first", || parts().len() > 1);
    assert_ne!(parts()[0], parts()[1]);
    assert!(store.objects().is_empty());
    drop(input);
    run.ended().expect(0, &["in 1 batch"]);
    assert!(store.data("processed/") == sorted(&text));
}

/// What was rejected is kept before anything of its batch counts as stored.
#[test]
fn dead_letters_are_there_first() {
    let Some(server) = Server::shared() else { return };
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    for refused in [false, true] {
        let faulty = Faulty::new(server, move |asked| {
            match refused && asked.target.contains("/failed/") && asked.is_put() {
                true => Act::Answer(403, "", denied.into()),
                false => Act::Pass,
            }
        });
        let store = server.bucket("first").by(faulty.endpoint());
        store.bench.write("a.json", "{\"a\":1}\nbroken\n{\"a\":2}\n");
        let url = store.url("");
        let code = if refused { 4 } else { 3 };
        store.run(&["a.json", "-f", "ndjson", "-o", &url]).expect(code, &[]);
        let puts: Vec<String> =
            faulty.seen().into_iter().filter(|asked| asked.is_put()).map(|asked| asked.target).collect();
        assert!(puts[0].contains("/failed/"), "{puts:?}");
        assert_eq!(store.objects().len(), if refused { 0 } else { 2 });
        let state = String::from_utf8_lossy(&store.all()[".pipeline/state.json"]).into_owned();
        assert_eq!(state.contains("\"finished\":false"), refused, "{state}");
    }
}

/// R2 takes no others.
#[test]
fn parts_are_of_one_size() {
    let Some(server) = Server::shared() else { return };
    for codec in ["none", "gzip", "zstd"] {
        let faulty = Faulty::new(server, |_| Act::Pass);
        let store = server.bucket("even").by(faulty.endpoint());
        // What does not compress well, and lines of many lengths.
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left((n % 64) as u32);
        let line = |n: u64| {
            let text: String = (0..n % 40).map(|k| format!("{:016x}", hash(n * 64 + k))).collect();
            format!("{{\"n\":\"{text}\"}}\n")
        };
        let input: String = (0..80_000).map(line).collect();
        store.bench.write("a.json", &input);
        let url = store.url("");
        let args = ["a.json", "-o", &url, "-z", codec, "--set", "s3.part_size=5MiB"];
        store.run(&args).expect(0, &["in 1 batch"]);
        assert!(store.data("processed/") == sorted(&input), "{codec}: other records");
        let seen = faulty.seen();
        let number = |target: &str| {
            let (_, rest) = target.split_once("partNumber=")?;
            rest.split('&').next()?.parse::<usize>().ok()
        };
        let length = |asked: &super::fault::Asked| asked.header("content-length")?.parse::<usize>().ok();
        let mut parts: Vec<(usize, usize)> = seen
            .iter()
            .filter(|asked| asked.is_part())
            .filter_map(|asked| Some((number(&asked.target)?, length(asked)?)))
            .collect();
        parts.sort_unstable();
        let (last, others) = parts.split_last().expect("there are parts");
        assert!(
            others.len() > 1 && others.iter().all(|(_, length)| *length == 5 << 20),
            "{codec}: {parts:?}"
        );
        assert!(last.1 <= 5 << 20, "{codec}: {parts:?}");
    }
}

/// The jobs of an array run side by side: each has a state and a lease of its own.
#[test]
fn shards_share_a_prefix() {
    let Some(server) = Server::shared() else { return };
    let store = server.bucket("shards");
    std::fs::create_dir(store.bench.path("logs")).expect("it can be made");
    for n in 0..6 {
        store.bench.write(&format!("logs/{n}.json"), lines(n * 1000..(n + 1) * 1000));
    }
    let url = store.url("p");
    let start =
        |shard: &str| Running::start(store.command(&["logs", "-o", &url, "-b", "10", "--shard", shard]));
    let leases = || store.all().keys().filter(|key| key.ends_with("/lock")).count();
    let shards = ["0/2", "1/2"].map(start);
    until("both are at work", || leases() == 2 && store.objects().len() > 20);
    let [first, second] = shards;
    first.kill();
    second.ended().expect(0, &[]);
    start("0/2").ended().expect(0, &[]);
    assert_eq!(store.data("p/processed/"), sorted(&lines(0..6000)));
    for shard in ["0/2", "1/2"] {
        start(shard).ended().expect(0, &["nothing to do"]);
    }
    let states: Vec<String> = store.all().into_keys().filter(|key| key.ends_with("state.json")).collect();
    assert_eq!(states, [0, 1].map(|n| format!("p/.pipeline/shard-{n}-of-2/state.json")));
    assert_eq!(leases(), 0);
}
