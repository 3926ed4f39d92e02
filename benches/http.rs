//! HTTP in, against a bare loop of `ureq` over the same pages: whole runs of the release binary against a server in
//! this process.
//!
//! `make bench-http`. Pages are arrays of flat events of 200 bytes that the server holds in memory. The loop asks for
//! one page after the other over one connection, reads each into memory and looks at nothing: it is this program
//! started again, so that both have a process of their own, whose start counts. Every round runs every variant once.
//! The server answers at once, as none does that has to look for its records, or takes 5 ms for a page, as a quick one
//! does; json-server is an ordinary one. `BENCH_MB` (512) is what a run reads, a sixteenth of it in small pages and
//! from json-server, a quarter from the slower server; `BENCH_ROUNDS` (9).

mod corpus;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a page.
const LARGE: usize = 256 << 10;
const SMALL: usize = 4 << 10;
/// What the server takes for a page, where it does not answer at once.
const TAKES: Duration = Duration::from_millis(5);
/// How many different pages there are of each size.
const DIFFERENT: usize = 16;
/// Set for the process that is the bare loop: the address of the pages.
const LOOP: &str = "BENCH_HTTP_LOOP";

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if let Ok(url) = std::env::var(LOOP) {
        return bare_loop(&url);
    }
    let (bytes, rounds) = (setting("BENCH_MB", 512) << 20, setting("BENCH_ROUNDS", 9));
    let server = Server::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    speed(&server, dir.path(), bytes, rounds);
    memory(&server, dir.path());
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What everything is measured by.
fn bare_loop(url: &str) {
    let config = ureq::Agent::config_builder().http_status_as_error(true).build();
    let agent: ureq::Agent = config.into();
    for page in 1.. {
        // As ours asks: json-server takes longer to pack a page than to find it.
        let request =
            agent.get(url.replace("{page}", &page.to_string())).header("Accept-Encoding", "gzip, zstd");
        let mut response = request.call().expect("it answers");
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec().expect("it is whole");
        // An empty array, perhaps packed.
        if body.len() <= 30 {
            return;
        }
    }
}

/// What is measured: a name, whether it is what others are measured by, the bytes that are read, and how it is done
/// once.
struct Variant<'a> {
    name: String,
    looped: bool,
    bytes: usize,
    run: Box<dyn Fn() -> f64 + 'a>,
    seconds: Vec<f64>,
}

fn speed(server: &Server, dir: &Path, bytes: usize, rounds: usize) {
    let (few, some, slow) = (bytes / 16, bytes / 4, format!("&takes={}", TAKES.as_millis()));
    let (large, small) = (server.pages(LARGE, bytes), server.pages(SMALL, few));
    let (slow_large, slow_small) = (server.pages(LARGE, some) + &slow, server.pages(SMALL, few / 8) + &slow);
    let mut variants = vec![
        bare("pages of 256 KiB", bytes, &large),
        number(
            dir,
            "bare, to /dev/null",
            bytes,
            &large,
            &["--set", "output.envelope=none", "-o", "/dev/null"],
        ),
        number(dir, "envelope, to /dev/null", bytes, &large, &["-o", "/dev/null"]),
        cursor(dir, bytes, &large),
        number(dir, "envelope, to a directory", bytes, &large, &["-o", "out"]),
        bare("pages of 4 KiB", few, &small),
        number(dir, "envelope, to /dev/null", few, &small, &["-o", "/dev/null"]),
        cursor(dir, few, &small),
        bare("pages of 256 KiB that take 5 ms", some, &slow_large),
        number(dir, "envelope, to /dev/null", some, &slow_large, &["-o", "/dev/null"]),
        cursor(dir, some, &slow_large),
        number(dir, "envelope, to a directory", some, &slow_large, &["-o", "out"]),
        bare("pages of 4 KiB that take 5 ms", few / 8, &slow_small),
        number(dir, "envelope, to a directory", few / 8, &slow_small, &["-o", "out"]),
    ];
    let api = Api::start(dir, few);
    if let Some(api) = &api {
        variants.extend(api.variants(dir, few));
    }
    for _ in 0..rounds {
        for variant in &mut variants {
            variant.seconds.push((variant.run)());
        }
    }
    tell(&variants);
}

/// An ordinary server: json-server, which `make services` installs, with a list of flat events.
struct Api {
    /// Its stdin keeps the server alive.
    script: Child,
    port: u16,
}

impl Api {
    /// `None` where it is not installed.
    fn start(dir: &Path, bytes: usize) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/json.sh");
        let asked = Command::new(script).arg("missing").output().ok()?;
        if !asked.status.success() || !asked.stdout.trim_ascii().is_empty() {
            eprintln!("json-server is not measured: make services installs it");
            return None;
        }
        let home = dir.join("api");
        fs::create_dir(&home).expect("it can be made");
        let lines = corpus::flat(bytes);
        let list = String::from_utf8(lines).expect("it is JSON").trim_end().replace('\n', ",");
        fs::write(home.join("db.json"), format!("{{\"items\":[{list}]}}")).expect("it can be written");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut command = Command::new(script);
        command.arg("serve").arg(&home).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        let api = Api { script: command.spawn().expect("the script starts"), port };
        let begun = Instant::now();
        let first = format!("{}?_page=1&_limit=1", api.url());
        while ureq::get(&first).call().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "json-server does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        Some(api)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/items", self.port)
    }

    fn variants<'a>(&self, dir: &'a Path, bytes: usize) -> Vec<Variant<'a>> {
        let url = self.url();
        let page = ["style=page", "page_param=_page", "size_param=_limit", "page_size=1000"];
        let page = page.map(|setting| format!("http.pagination.{setting}"));
        let page: Vec<&str> = page.iter().flat_map(|setting| ["--set", setting]).collect();
        let first = format!("{url}?_page=1&_limit=1000");
        let link = ["--url", &first, "--set", "http.pagination.style=link", "-o", "/dev/null"];
        let number = |to| [&["--url", &url], &page[..], &["-o", to]].concat();
        vec![
            bare("1000 records a page from json-server", bytes, &format!("{url}?_limit=1000&_page={{page}}")),
            ours(dir, "by number, envelope, to /dev/null".into(), bytes, &number("/dev/null")),
            ours(dir, "by link, envelope, to /dev/null".into(), bytes, &link),
            ours(dir, "by number, envelope, to a directory".into(), bytes, &number("out")),
        ]
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// A table with the ratios to the loop over the same pages.
fn tell(variants: &[Variant<'_>]) {
    println!(
        "| what | MB/s, median | MB/s, best | of the loop's speed (goal: 0.9x), median | ratio of the best |"
    );
    println!("|---|---|---|---|---|");
    let mut against = &variants[0];
    for of in variants {
        let rate = |seconds: f64| of.bytes as f64 / 1e6 / seconds;
        let (middle, fastest) = (rate(median(of.seconds.clone())), rate(best(&of.seconds)));
        if of.looped {
            against = of;
            println!("| **{}**: a loop of ureq | {middle:.1} | {fastest:.1} | | |", of.name);
            continue;
        }
        let ratios = of.seconds.iter().zip(&against.seconds).map(|(one, other)| other / one).collect();
        let of_best = best(&against.seconds) / best(&of.seconds);
        println!("| {} | {middle:.1} | {fastest:.1} | {:.2}x | {of_best:.2}x |", of.name, median(ratios));
    }
}

/// The loop; `{page}` in the URL is the number of the page.
fn bare<'a>(name: &str, bytes: usize, url: &str) -> Variant<'a> {
    let url = if url.contains("{page}") { url.to_owned() } else { format!("{url}&page={{page}}") };
    let run = move || seconds(&mut looping(&url));
    Variant { name: name.into(), looped: true, bytes, run: Box::new(run), seconds: Vec::new() }
}

/// Pages by number.
fn number<'a>(dir: &'a Path, name: &str, bytes: usize, url: &str, args: &[&str]) -> Variant<'a> {
    let args = [&["--url", url, "--set", "http.pagination.style=page"], args].concat();
    ours(dir, format!("by number, {name}"), bytes, &args)
}

/// Pages by a cursor in each.
fn cursor<'a>(dir: &'a Path, bytes: usize, url: &str) -> Variant<'a> {
    let url = format!("{url}&cursor=");
    let settings = ["style=cursor", "cursor_param=page"].map(|setting| format!("http.pagination.{setting}"));
    let args = ["--url", &url, "--set", "http.records=/items", "--set", &settings[0], "--set", &settings[1]];
    let args = [&args[..], &["-o", "/dev/null"]].concat();
    ours(dir, "by cursor, envelope, to /dev/null".into(), bytes, &args)
}

fn ours<'a>(dir: &'a Path, name: String, bytes: usize, args: &[&str]) -> Variant<'a> {
    let args: Vec<String> = args.iter().map(|it| (*it).to_owned()).collect();
    let run = move || {
        let _ = fs::remove_dir_all(dir.join("out"));
        seconds(pipeline(dir).args(&args))
    };
    Variant { name, looped: false, bytes, run: Box::new(run), seconds: Vec::new() }
}

/// This program as the loop.
fn looping(url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("it has a path"));
    command.env(LOOP, url).env_remove("http_proxy").env_remove("HTTP_PROXY");
    command
}

/// Ours: quiet, without a state.
fn pipeline(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.args(["-s", "http", "-q", "--progress", "never", "--state", "none"]).current_dir(dir);
    command.env_remove("http_proxy").env_remove("HTTP_PROXY");
    command
}

fn seconds(command: &mut Command) -> f64 {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("it starts");
    assert!(status.success(), "{command:?}");
    begun.elapsed().as_secs_f64()
}

/// The least time: what others on the machine disturb least.
fn best(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Peak memory as the program's own summary states it (VmHWM).
fn memory(server: &Server, dir: &Path) {
    println!("\n| peak memory, two workers, memory_limit 64 MiB, to a directory | MiB |\n|---|---|");
    for (name, page, bytes) in [
        ("512 MiB in pages of 256 KiB", LARGE, 512 << 20),
        ("one body of 512 MiB", 512 << 20, 512 << 20),
        ("one body of 2 GiB", 2 << 30, 2 << 30),
    ] {
        let url = server.pages(page, bytes);
        let mut command = pipeline(dir);
        command.args(["--url", &url, "--set", "http.pagination.style=page", "-w", "2", "-o", "out"]);
        command.args(["--set", "processing.memory_limit=64MiB", "--summary", "json=s.json"]);
        let _ = fs::remove_dir_all(dir.join("out"));
        seconds(&mut command);
        let text = fs::read_to_string(dir.join("s.json")).expect("the summary is there");
        let value: serde_json::Value = serde_json::from_str(&text).expect("the summary is JSON");
        let peak = value["peak_memory_bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
        println!("| {name} | {peak:.0} |");
    }
}

/// Serves `/pages?size=BYTES&count=PAGES&page=N`, counted from 1: whoever asks behind the last gets an empty array.
/// With `takes=MS` it waits before it answers.
struct Server {
    port: u16,
}

/// What pages are made of, shared by all threads.
struct Corpus {
    /// Records with commas between, [`LARGE`] bytes each.
    large: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let corpus = Arc::new(Corpus { large: records(LARGE), small: records(SMALL) });
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let corpus = corpus.clone();
                let serve = move || {
                    // It ends when the client has gone.
                    let _ = connection(stream, &corpus);
                };
                thread::Builder::new().spawn(serve).expect("a thread can be started");
            }
        };
        thread::Builder::new().spawn(accept).expect("a thread can be started");
        Server { port }
    }

    /// Pages of so many bytes each, and in all.
    fn pages(&self, size: usize, bytes: usize) -> String {
        format!("http://127.0.0.1:{}/pages?size={size}&count={}", self.port, bytes / size)
    }
}

/// The inside of arrays of so many bytes.
fn records(bytes: usize) -> Vec<Vec<u8>> {
    let lines = corpus::flat(bytes * (DIFFERENT + 1));
    let mut rest = &lines[..];
    let one = |_| {
        let end = bytes - 2 + memchr::memchr(b'\n', &rest[bytes - 2..]).expect("a line ends");
        let page = rest[..end].iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }).collect();
        rest = &rest[end + 1..];
        page
    };
    (0..DIFFERENT).map(one).collect()
}

fn connection(stream: TcpStream, corpus: &Corpus) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while line.trim_end() != "" {
            line.clear();
            lines.read_line(&mut line)?;
        }
        thread::sleep(Duration::from_millis(parameter(&target, "takes").unwrap_or(0) as u64));
        answer(lines.get_mut(), &target, corpus)?;
    }
}

fn parameter(target: &str, name: &str) -> Option<usize> {
    let pairs = target.split(['?', '&']).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(other, _)| *other == name).find_map(|(_, value)| value.parse().ok())
}

/// A page is an array, and with `cursor=` in the query an object that names the next page beside it.
fn answer(stream: &mut TcpStream, target: &str, corpus: &Corpus) -> std::io::Result<()> {
    let number = |name| parameter(target, name).unwrap_or(1);
    let (size, count, page) = (number("size"), number("count"), number("page"));
    let pieces = if size < LARGE { &corpus.small } else { &corpus.large };
    let repeats = if page > count { 0 } else { (size / LARGE).max(1) };
    let pieces: Vec<&Vec<u8>> = (0..repeats).map(|at| &pieces[(page + at) % DIFFERENT]).collect();
    let (open, close) = match target.contains("cursor=") {
        true if page < count => ("{\"items\":[", format!("],\"next_cursor\":{}}}", page + 1)),
        true => ("{\"items\":[", "]}".into()),
        false => ("[", "]".into()),
    };
    let commas = pieces.len().saturating_sub(1);
    let length = open.len() + close.len() + commas + pieces.iter().map(|piece| piece.len()).sum::<usize>();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{open}"
    );
    let mut whole = head.into_bytes();
    for (at, piece) in pieces.iter().enumerate() {
        whole.extend_from_slice(if at == 0 { b"" } else { b"," });
        whole.extend_from_slice(piece);
        if whole.len() >= LARGE {
            stream.write_all(&whole)?;
            whole.clear();
        }
    }
    whole.extend_from_slice(close.as_bytes());
    stream.write_all(&whole)
}
