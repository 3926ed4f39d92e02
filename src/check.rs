//! `--check`: tries what a run needs and runs nothing. Every finding is a line; nothing is created or changed.

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "s3")]
mod s3;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::Error;
use pipeline::config::nearest::did_you_mean;
use pipeline::config::{Config, Place, StateAt, Status};
use pipeline::job::{find_files, find_state};
use pipeline::status::server::Server;
use rustix::fs::{Access, access};

use crate::cli::SummaryTo;
use crate::watch;

/// Somebody waits for the answers of services: no longer than this, where `--timeout` is not shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out about one thing that a run needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried: `input a.json`, `output out`.
    pub what: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of trying something.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be used.
    Fine,
    /// It is not there, or not what it should be: wrong use.
    Wrong(String),
    /// It is there and refuses us, or it is a service that has not what is needed: trying again cannot help.
    Refused(String),
    /// It does not answer, or its place is taken, which may be otherwise later.
    Failed(String),
}

impl Finding {
    /// The finding as a line.
    pub fn line(&self) -> String {
        match &self.verdict {
            Verdict::Fine => format!("ok       {}\n", self.what),
            Verdict::Wrong(why) => format!("wrong    {}: {why}\n", self.what),
            Verdict::Refused(why) => format!("refused  {}: {why}\n", self.what),
            Verdict::Failed(why) => format!("failed   {}: {why}\n", self.what),
        }
    }
}

/// What a check that found this exits with: the gravest of it. What is wrong in the command or the configuration comes
/// first, since mending it may change the rest; then what refuses for good; then what may be otherwise later.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let any = |wanted: fn(&Verdict) -> bool| findings.iter().any(|it| wanted(&it.verdict));
    match () {
        () if any(|verdict| matches!(verdict, Verdict::Wrong(_))) => 2,
        () if any(|verdict| matches!(verdict, Verdict::Refused(_))) => 4,
        () if any(|verdict| matches!(verdict, Verdict::Failed(_))) => 1,
        () => 0,
    }
}

/// Tries inputs, output, dead letters, state and services. Blocks while services are asked, side by side, each for
/// some seconds at most if nobody answers.
pub fn run(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config.input.files.iter().map(|file| input(file)).collect();
    if findings.iter().all(|finding| finding.verdict == Verdict::Fine) {
        findings.extend(all_inputs(config));
    }
    findings.extend(output(&config.output.to));
    if let Some(dir) = config.output.dead_letter_dir() {
        findings.push(directory("dead letters", dir));
    }
    if let StateAt::Dir(dir) = &config.processing.state {
        findings.push(directory("state", dir));
    }
    findings.extend(side_by_side(config, SERVICES));
    if findings.iter().all(|finding| finding.verdict == Verdict::Fine) {
        findings.extend(earlier_runs(config));
    }
    findings
}

/// What asks one kind of service.
type Ask = fn(&Config) -> Vec<Finding>;

/// Everything that asks somebody, in the order in which it is told.
const SERVICES: &[Ask] = &[
    #[cfg(feature = "kafka")]
    kafka::findings,
    #[cfg(feature = "s3")]
    s3::findings,
    #[cfg(feature = "http")]
    http::findings,
];

/// Asks all services at once: where several do not answer, nobody waits for one after the other.
fn side_by_side(config: &Config, all: &[Ask]) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = all.iter().map(|ask| scope.spawn(|| ask(config))).collect();
        let answers =
            asked.into_iter().map(|asking| asking.join().unwrap_or_else(|panic| resume_unwind(panic)));
        answers.flatten().collect()
    })
}

/// Tries what the run would tell of itself: where it listens, and the files that it writes beside its output.
pub fn told(config: &Config, status: &Status, summary: &SummaryTo) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(address) = &status.listen {
        let verdict = match Server::bind(address, &[]) {
            Ok(_) => Verdict::Fine,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Verdict::Refused(source.to_string())
            }
            Err(error) => Verdict::Failed(error.to_string()),
        };
        findings.push(Finding { what: format!("status {address}"), verdict });
    }
    for (name, path) in written(status, summary) {
        if let Some(what) = replaces(config, path) {
            let verdict = Verdict::Wrong(format!("it is {what}"));
            findings.push(Finding { what: format!("{name} {}", path.display()), verdict });
            continue;
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let missing = || format!("{} is not there", parent.display());
        let verdict = verdict(watch::try_beside(path), missing);
        findings.push(Finding { what: format!("{name} {}", path.display()), verdict });
    }
    findings
}

/// The first input that is not there, as one line. A run asks before it starts: a wrong name is wrong use.
pub fn missing_input(config: &Config) -> Option<String> {
    config.input.files.iter().filter(|file| *file != "-").find_map(|file| {
        let error = fs::metadata(file).err()?;
        (is_missing(&error)).then(|| format!("input {file}: {}", not_there(file)))
    })
}

/// The files that a run writes beside its output, by what they hold.
fn written<'a>(status: &'a Status, summary: &'a SummaryTo) -> impl Iterator<Item = (&'static str, &'a Path)> {
    let summary = match summary {
        SummaryTo::JsonFile(path) => Some(("summary", &**path)),
        SummaryTo::Text | SummaryTo::Json => None,
    };
    status.metrics_file.iter().map(|path| ("metrics file", &**path)).chain(summary)
}

/// What this run would read, or stores, and would replace by its summary or its metrics.
pub fn replaced(config: &Config, status: &Status, summary: &SummaryTo) -> Option<String> {
    written(status, summary).find_map(|(name, path)| {
        let what = replaces(config, path)?;
        Some(format!("the {name} {} is {what}; name another file", path.display()))
    })
}

fn replaces(config: &Config, path: &Path) -> Option<String> {
    let there = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let named = fs::canonicalize(path).ok().filter(|_| there.is_some());
    let parent = |path: &Path| fs::canonicalize(path.parent()?.join(".")).ok();
    // Where it stands, or will.
    let place = parent(path).and_then(|parent| Some(parent.join(path.file_name()?)));
    for input in config.input.files.iter().filter(|input| *input != "-") {
        let Ok(real) = fs::canonicalize(input) else { continue };
        if named.as_ref() == Some(&real) {
            return Some(format!("the input {input}"));
        }
        let below = [&named, &place].into_iter().flatten().filter_map(|it| it.strip_prefix(&real).ok());
        let hidden = |it: &Path| it.iter().any(|part| part.as_bytes().starts_with(b"."));
        if real.is_dir() && below.into_iter().any(|it| !hidden(it)) {
            return Some(format!("in the input {input}"));
        }
    }
    match &config.output.to {
        Place::File(out) if named.is_some() && named == fs::canonicalize(out).ok() => {
            Some("the output".into())
        }
        Place::File(out) if path.file_name() == out.file_name() => {
            (parent(path).is_some() && parent(path) == parent(out)).then(|| "the output".into())
        }
        Place::Stdout => {
            let stdout = rustix::fs::fstat(io::stdout()).ok()?;
            let there = there?;
            ((there.dev(), there.ino()) == (stdout.st_dev, stdout.st_ino)).then(|| "the output".into())
        }
        _ => None,
    }
}

fn input(file: &str) -> Finding {
    let what = format!("input {file}");
    if file == "-" {
        return Finding { what: "input - (standard input)".into(), verdict: Verdict::Fine };
    }
    let tried = match fs::metadata(file) {
        Ok(found) if found.is_dir() => fs::read_dir(file).map(drop),
        // Opening a FIFO would wait for its writer.
        Ok(found) if !found.is_file() => access(file, Access::READ_OK).map_err(io::Error::from),
        Ok(_) => fs::File::open(file).map(drop),
        Err(error) => Err(error),
    };
    Finding { what, verdict: verdict(tried, || not_there(file)) }
}

/// What is wrong with inputs that are fine one by one: that they are two names of one, or hold what cannot be listed.
fn all_inputs(config: &Config) -> Option<Finding> {
    if config.input.files.is_empty() {
        return None;
    }
    let error = find_files(config).err()?;
    Some(Finding { what: "inputs".into(), verdict: refusal(&error) })
}

/// Whether a run would go on where earlier ones stopped, or be refused.
fn earlier_runs(config: &Config) -> Option<Finding> {
    let mut config = config.clone();
    config.processing.timeout = config.processing.timeout.min(PATIENCE);
    let verdict = match find_state(&config) {
        Ok(false) => return None,
        Ok(true) => Verdict::Fine,
        Err(error) => refusal(&error),
    };
    Some(Finding { what: "what earlier runs left".into(), verdict })
}

fn refusal(error: &Error) -> Verdict {
    let why = match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    match error.exit_code() {
        2 => Verdict::Wrong(why),
        4 => Verdict::Refused(why),
        _ => Verdict::Failed(why),
    }
}

fn output(to: &Place) -> Option<Finding> {
    Some(match to {
        Place::Stdout => Finding { what: "output - (stdout)".into(), verdict: Verdict::Fine },
        // Among what the cluster is asked for.
        Place::Kafka(_) => return None,
        // Among what the store is asked for.
        Place::S3 { .. } => return None,
        Place::Dir(dir) => directory("output", dir),
        Place::File(path) => {
            let what = format!("output {}", path.display());
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let verdict = match fs::metadata(path) {
                Ok(found) if !found.is_file() => {
                    verdict(access(path, Access::WRITE_OK).map_err(io::Error::from), || {
                        "it is not there".into()
                    })
                }
                // Nobody makes it.
                _ if is_missing_path(parent) => {
                    Verdict::Wrong(format!("{} is no directory", parent.display()))
                }
                _ => writable(parent),
            };
            Finding { what, verdict }
        }
    })
}

fn directory(name: &str, dir: &Path) -> Finding {
    Finding { what: format!("{name} {}", dir.display()), verdict: writable(dir) }
}

/// Whether `path` is a directory that can be written, or one that can be made in the nearest one above it that exists.
fn writable(path: &Path) -> Verdict {
    // Without a slash at its end, by which a file is not found.
    let mut at: PathBuf = path.components().collect();
    while is_missing_path(&at) {
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent.to_path_buf(),
            _ => at = PathBuf::from("."),
        }
    }
    if fs::metadata(&at).is_ok_and(|found| !found.is_dir()) {
        return Verdict::Wrong(format!("{} is no directory", at.display()));
    }
    let rights = access(&at, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
    verdict(rights, || "it is not there".into())
}

fn is_missing_path(path: &Path) -> bool {
    path != Path::new(".")
        && path != Path::new("/")
        && fs::metadata(path).is_err_and(|error| is_missing(&error))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput
    )
}

fn verdict(tried: io::Result<()>, missing: impl Fn() -> String) -> Verdict {
    match tried {
        Ok(()) => Verdict::Fine,
        Err(error) if is_missing(&error) => Verdict::Wrong(missing()),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

/// `no such file or directory`, with the nearest name that is there.
fn not_there(file: &str) -> String {
    let path = Path::new(file);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(parent).into_iter().flatten().take(1000);
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let near = did_you_mean(name, names.iter().map(String::as_str));
    format!("no such file or directory{near}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that is gone when the test is.
    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Dir(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn everything_that_is_there_is_fine_and_nothing_is_created() {
        let dir = Dir::new();
        fs::create_dir(dir.path("d")).unwrap();
        for name in ["a.json", "d/b.json"] {
            fs::write(dir.path(name), "1").unwrap();
        }
        let out = dir.path("new/out");
        let inputs = vec![dir.path("a.json"), dir.path("d"), "-".into()];
        let config = Config::new(inputs, Place::Dir((&out).into()));
        let findings = run(&config);
        assert!(findings.iter().all(|it| it.verdict == Verdict::Fine), "{findings:?}");
        assert_eq!((findings.len(), exit_code(&findings)), (4, 0));
        assert_eq!(findings[0].line(), format!("ok       input {}\n", dir.path("a.json")));
        assert!(!Path::new(&out).exists());
    }

    #[test]
    fn the_gravest_finding_decides() {
        let (wrong, refused, failed) =
            (Verdict::Wrong("w".into()), Verdict::Refused("r".into()), Verdict::Failed("f".into()));
        let mut findings: Vec<Finding> = Vec::new();
        for (verdict, code) in [(Verdict::Fine, 0), (failed, 1), (refused, 4), (wrong, 2)] {
            findings.push(Finding { what: "it".into(), verdict });
            assert_eq!(exit_code(&findings), code);
            findings.reverse();
            assert_eq!(exit_code(&findings), code);
        }
    }

    #[test]
    fn services_are_asked_at_the_same_time() {
        // Each waits for the other: one after the other would never end.
        static BOTH: std::sync::Barrier = std::sync::Barrier::new(2);
        let ask: Ask = |_| {
            BOTH.wait();
            vec![Finding { what: "it".into(), verdict: Verdict::Fine }]
        };
        assert_eq!(side_by_side(&Config::default(), &[ask, ask]).len(), 2);
    }

    #[test]
    fn what_the_run_would_tell_is_tried_and_nothing_is_left() {
        let dir = Dir::new();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let status = Status {
            listen: Some(taken.local_addr().unwrap().to_string()),
            metrics_file: Some(dir.path("none/m.prom").into()),
            ..Status::default()
        };
        let config = Config::new(vec![], Place::Stdout);
        let findings = told(&config, &status, &SummaryTo::JsonFile(dir.path("s.json").into()));
        let codes: Vec<u8> = findings.iter().map(|it| exit_code(std::slice::from_ref(it))).collect();
        assert_eq!(codes, [1, 2, 0], "{findings:?}");
        assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 0);
        let free = Status { listen: Some("127.0.0.1:0".into()), ..Status::default() };
        assert_eq!(exit_code(&told(&config, &free, &SummaryTo::Text)), 0);
    }

    #[test]
    fn a_missing_input_is_wrong_use_with_the_nearest_name() {
        let dir = Dir::new();
        fs::write(dir.path("data1.json"), "1").unwrap();
        let config = Config::new(vec![dir.path("daat1.json")], Place::Stdout);
        let findings = run(&config);
        assert_eq!(exit_code(&findings), 2);
        let line = missing_input(&config).unwrap();
        assert!(line.ends_with("no such file or directory; did you mean data1.json?"), "{line}");
        assert_eq!(missing_input(&Config::new(vec!["-".into()], Place::Stdout)), None);
    }

    #[test]
    fn an_input_that_is_named_twice_is_wrong() {
        let dir = Dir::new();
        fs::write(dir.path("a.json"), "1").unwrap();
        let twice = vec![dir.path("a.json"), dir.path("./a.json")];
        let findings = run(&Config::new(twice, Place::Stdout));
        assert_eq!(exit_code(&findings), 2, "{findings:?}");
        assert!(findings.iter().any(|finding| finding.line().contains("name it once")), "{findings:?}");
    }

    #[test]
    fn an_output_below_a_file_is_wrong() {
        let dir = Dir::new();
        fs::write(dir.path("f"), "1").unwrap();
        let findings = run(&Config::new(vec!["-".into()], Place::Dir(dir.path("f/out").into())));
        assert_eq!(exit_code(&findings), 2, "{findings:?}");
    }

    #[test]
    fn what_should_be_a_directory_is_wrong_if_it_is_none() {
        let dir = Dir::new();
        fs::write(dir.path("f"), "1").unwrap();
        let input = || vec!["-".into()];
        let mut config = Config::new(input(), Place::Stdout);
        config.processing.state = StateAt::Dir(dir.path("f").into());
        for config in [
            config,
            Config::new(input(), Place::File(dir.path("none/a.ndjson").into())),
            Config::new(input(), Place::File(dir.path("f/a.ndjson").into())),
        ] {
            let findings = run(&config);
            assert_eq!(exit_code(&findings), 2, "{findings:?}");
            assert!(findings.iter().any(|it| it.line().ends_with(" is no directory\n")), "{findings:?}");
        }
        for fine in [dir.path("a.ndjson"), "/dev/null".into()] {
            let findings = run(&Config::new(input(), Place::File(fine.into())));
            assert_eq!(exit_code(&findings), 0, "{findings:?}");
        }
    }

    #[test]
    fn what_the_system_refuses_is_refused() {
        let dir = Dir::new();
        fs::write(dir.path("a"), "1").unwrap();
        fs::set_permissions(dir.path("a"), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(dir.path("a")).is_ok() {
            return eprintln!("skipped: this user may read everything");
        }
        let findings = run(&Config::new(vec![dir.path("a")], Place::Stdout));
        assert_eq!(exit_code(&findings), 4, "{findings:?}");
    }
}
