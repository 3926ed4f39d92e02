//! The command line: from arguments, environment and configuration file to an [`Invocation`]. The library never
//! sees any of it.
//!
//! [`table`] has every option; [`normalise`] brings arguments into the form that argh takes; [`help`], [`man`]
//! and [`completion`] are made from the table. Nothing here starts a run or installs a logger.

pub mod args;
pub mod completion;
pub mod help;
pub mod man;
pub mod normalise;
pub mod table;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use pipeline::config::key;
use pipeline::config::resolve::{Resolved, resolve};
use pipeline::config::secret::{Lookup, Secret, read_small};
use pipeline::config::setting::{Layer, Origin, Setting, Value, parse_set};
use pipeline::config::{Config, Intent, Log, LogFormat, Place, SourceKind, Status, env, file, show};

use args::Args;
use normalise::{Asked, Normal, normalise};

/// What the user asked for.
pub enum Request {
    /// A run, or a rehearsal of one.
    Run(Box<Invocation>),
    /// This text on stdout, and nothing else.
    Print(String),
}

/// A run as it was asked for.
#[derive(Debug)]
pub struct Invocation {
    /// What is to be done.
    pub config: Config,
    /// Whether it is done at all.
    pub mode: Mode,
    /// Whether progress is shown.
    pub progress: When,
    /// Where the summary goes.
    pub summary: SummaryTo,
    /// How much is said on stderr.
    pub chatter: Chatter,
    /// Rejected records are no reason to exit 3.
    pub rejects_ok: bool,
    /// What is logged and how.
    pub log: Log,
    /// How the run can be watched.
    pub status: Status,
    /// `RUST_LOG`, where nothing that comes before it says what is logged.
    pub log_filter: Option<String>,
}

/// Whether a run is done, or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is done.
    Run,
    /// Configuration, inputs and output are tried.
    Check,
    /// Records are read and transformed, nothing is stored.
    DryRun,
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A bar on a terminal, else one line a minute.
    Auto,
    /// A bar.
    Always,
    /// Not at all.
    Never,
}

/// Where the summary goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SummaryTo {
    /// As text on stderr.
    Text,
    /// As JSON on stderr.
    Json,
    /// As JSON to a file.
    JsonFile(PathBuf),
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chatter {
    /// What there is to say.
    Normal,
    /// Nothing but errors.
    Quiet,
}

/// What the process knows that the arguments do not say. A parameter, so that tests touch no process.
pub struct Ambient<'a> {
    /// The environment. Names that are no text cannot be ours; a value that is none must be told.
    pub variables: Vec<(String, OsString)>,
    /// Whether stdin is a terminal.
    pub stdin_is_terminal: bool,
    /// Reads a small file.
    pub read: &'a dyn Fn(&str) -> io::Result<String>,
}

impl Ambient<'_> {
    /// What this process knows.
    pub fn process() -> Ambient<'static> {
        use std::io::IsTerminal;
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Ambient {
            variables: std::env::vars_os().filter_map(text).collect(),
            stdin_is_terminal: io::stdin().is_terminal(),
            read: &|path| read_small(Path::new(path)),
        }
    }

    /// The value of a variable; an empty one is none.
    fn value(&self, name: &str) -> Option<&OsStr> {
        let found = self.variables.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(OsStr::to_str)
    }

    /// The settings of the environment.
    fn layer(&self) -> Layer {
        let text = |(name, value): &(String, OsString)| Some((name.clone(), value.to_str()?.to_owned()));
        let texts: Vec<(String, String)> = self.variables.iter().filter_map(text).collect();
        let mut layer = env::parse(&texts, self.read);
        let odd =
            self.variables.iter().filter(|(name, value)| env::is_read(name) && value.to_str().is_none());
        layer.problems.extend(odd.map(|(name, _)| format!("{name}: it is not UTF-8; expected text")));
        layer
    }
}

/// How it is to be said what is wrong with settings that could not be read: as the strongest of a flag, `--set` and the
/// environment asks for it.
pub fn asked_format(args: &[OsString], variable: Option<OsString>) -> LogFormat {
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--").collect();
    let values = |option: &str| -> Vec<&str> {
        let apart = args.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1]);
        let joined = args.iter().filter_map(|arg| arg.strip_prefix(option)?.strip_prefix('='));
        apart.chain(joined).collect()
    };
    let by_set = || {
        let pairs = values("--set").into_iter().filter_map(|text| text.split_once('='));
        pairs.rev().find(|(path, _)| path.trim() == "log.format").map(|(_, value)| value)
    };
    let variable = variable.as_deref().and_then(OsStr::to_str);
    match values("--log-format").last().copied().or_else(by_set).or(variable) {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

/// What the arguments (without the program's name) ask for.
///
/// # Errors
/// Everything that is wrong, a line each; arguments are the first, and only one of them is told.
pub fn parse(args: &[String], ambient: &dyn Fn() -> Ambient<'static>) -> Result<Request, Vec<String>> {
    let normal = match normalise(args).map_err(|problem| vec![problem])? {
        Asked::Help => return Ok(Request::Print(help::help())),
        Asked::Version => return Ok(Request::Print(help::version())),
        Asked::Run(normal) => normal,
    };
    let words: Vec<&str> = normal.args.iter().map(String::as_str).collect();
    let args = Args::from_args(&["pipeline"], &words).map_err(|exit| vec![exit.output.trim().to_owned()])?;
    if let Some(text) = packaging(&args).map_err(|problem| vec![problem])? {
        return Ok(Request::Print(text));
    }
    invocation(&args, &normal, &ambient())
}

fn packaging(args: &Args) -> Result<Option<String>, String> {
    match &args.completions {
        Some(shell) => completion::completions(shell).map(Some),
        None if args.man => Ok(Some(man::page())),
        None if args.config_template => Ok(Some(show::template())),
        None => Ok(None),
    }
}

fn invocation(args: &Args, normal: &Normal, ambient: &Ambient<'_>) -> Result<Request, Vec<String>> {
    let Layer { settings, mut problems } = layers(args, normal, ambient);
    let resolved = match resolve(settings) {
        Ok(resolved) if problems.is_empty() => resolved,
        Ok(_) => return Err(problems),
        Err(more) => {
            problems.extend(more);
            return Err(problems);
        }
    };
    if args.print_config {
        return Ok(Request::Print(show::effective(&resolved)));
    }
    run(args, normal, ambient, resolved).map(|it| Request::Run(Box::new(it)))
}

/// What only flags say is laid over the configuration, and all of it is checked together.
fn run(
    args: &Args,
    normal: &Normal,
    ambient: &Ambient<'_>,
    resolved: Resolved,
) -> Result<Invocation, Vec<String>> {
    let one = |problem| vec![problem];
    let log_filter = log_filter(&resolved, ambient);
    let mode = mode(args).map_err(one)?;
    let mut config = resolved.config;
    config.processing.fresh = args.fresh;
    config.input.replay = args.replay;
    if let Some(text) = &args.limit {
        config.processing.limit = Some(limit(normal.spelling("limit"), text).map_err(one)?);
    }
    if config.input.source == SourceKind::File && config.input.files.is_empty() {
        return Err(one(no_inputs(args, ambient)));
    }
    config.check(if mode == Mode::Run { Intent::Store } else { Intent::Look })?;
    load_secrets(&mut config, ambient).map_err(one)?;
    Ok(Invocation {
        config,
        mode,
        progress: when(args.progress.as_deref()).map_err(one)?,
        summary: summary(args.summary.as_deref()).map_err(one)?,
        chatter: if args.quiet { Chatter::Quiet } else { Chatter::Normal },
        rejects_ok: args.rejects_ok,
        log: resolved.log,
        status: resolved.status,
        log_filter,
    })
}

/// Reads secrets from where they are, if this run needs them.
fn load_secrets(config: &mut Config, ambient: &Ambient<'_>) -> Result<(), String> {
    let read = |path: &Path| match path.to_str() {
        Some(path) => (ambient.read)(path),
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    let variable = |name: &str| ambient.value(name).map(OsStr::to_owned);
    let lookup = Lookup { variable: &variable, read: &read };
    let load = |name: &str, secret: Option<&mut Secret>| -> Result<(), String> {
        let Some(secret) = secret else { return Ok(()) };
        *secret = secret.load(&lookup).map_err(|error| format!("{name}: {error}"))?;
        Ok(())
    };
    if config.uses_kafka() {
        load("kafka.sasl.password", config.kafka.sasl.password.as_mut())?;
    }
    if matches!(config.output.to, Place::S3 { .. }) {
        load("s3.secret_access_key", config.s3.secret_access_key.as_mut())?;
        load("s3.session_token", config.s3.session_token.as_mut())?;
    }
    if config.input.source == SourceKind::Http {
        let auth = &mut config.http.auth;
        load("http.auth.bearer", auth.bearer.as_mut())?;
        load("http.auth.password", auth.password.as_mut())?;
        load("http.auth.value", auth.value.as_mut())?;
        load("http.auth.client_secret", auth.client_secret.as_mut())?;
    }
    Ok(())
}

/// All layers, the weakest first: file, environment, `--set`, flags.
fn layers(args: &Args, normal: &Normal, ambient: &Ambient<'_>) -> Layer {
    let mut layer = config_file(args, ambient);
    layer.cover(ambient.layer());
    for text in &args.set {
        layer.cover(parse_set(text).into());
    }
    layer.cover(flags(args, normal));
    layer
}

fn config_file(args: &Args, ambient: &Ambient<'_>) -> Layer {
    let (path, named_by) = match (&args.config, ambient.variable(env::CONFIG)) {
        (Some(path), _) => (path.as_str(), "--config"),
        (None, Some(path)) => (path, env::CONFIG),
        (None, None) => return Layer::default(),
    };
    match (ambient.read)(path) {
        Ok(text) => file::parse(Path::new(path), &text),
        Err(error) => {
            let expected = format!("{named_by}: expected a configuration file");
            Layer::wrong(format!("{expected}, cannot read {path:?}: {error}"))
        }
    }
}

/// Flags that set keys, the inputs among them.
fn flags(args: &Args, normal: &Normal) -> Layer {
    if args.quiet && args.verbose {
        return Layer::wrong("-q and -v contradict each other; expected one of them".into());
    }
    let mut layer = Layer::default();
    let mut flag = |path: &str, spelled: &str, value: Value| {
        let origin = Origin::Flag(spelled.to_owned());
        layer.cover(key::find(path).map(|key| Setting { key, value, origin }).into());
    };
    for (switch, level, name) in [(args.quiet, "error", "-q"), (args.verbose, "debug", "-v")] {
        if switch {
            flag("log.level", name, Value::Text(level.into()));
        }
    }
    for option in table::OPTIONS {
        if let (Some(path), Some(value)) = (option.key, args.value(option.long)) {
            flag(path, normal.spelling(option.long), value);
        }
    }
    if !args.inputs.is_empty() {
        flag("input.files", "inputs", Value::List(args.inputs.clone()));
    }
    layer
}

/// `RUST_LOG` counts as environment, below `PIPELINE_LOG__LEVEL`, which names us.
fn log_filter(resolved: &Resolved, ambient: &Ambient<'_>) -> Option<String> {
    let below = matches!(resolved.origin("log.level"), Origin::Default | Origin::File { .. });
    ambient.variable("RUST_LOG").filter(|_| below).map(str::to_owned)
}

fn limit(spelled: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{spelled}: expected a whole number of records, 0 or more, not {text:?}"))
}

fn no_inputs(args: &Args, ambient: &Ambient<'_>) -> String {
    let what = "expected files, directories or - (standard input)";
    match (ambient.stdin_is_terminal, &args.source) {
        (false, None) => format!("no inputs: {what}; to read what is piped in, add -"),
        _ => format!("no inputs: {what}; --help shows examples"),
    }
}

fn mode(args: &Args) -> Result<Mode, String> {
    match (args.check, args.dry_run) {
        (true, true) => Err("--check and --dry-run contradict each other; expected one of them".into()),
        (true, false) => Ok(Mode::Check),
        (false, true) => Ok(Mode::DryRun),
        (false, false) => Ok(Mode::Run),
    }
}

fn when(text: Option<&str>) -> Result<When, String> {
    match text {
        None | Some("auto") => Ok(When::Auto),
        Some("always") => Ok(When::Always),
        Some("never") => Ok(When::Never),
        Some(other) => Err(format!("--progress: expected auto, always or never, not {other:?}")),
    }
}

fn summary(text: Option<&str>) -> Result<SummaryTo, String> {
    match text {
        None | Some("text") => Ok(SummaryTo::Text),
        Some("json") => Ok(SummaryTo::Json),
        Some(other) => match other.strip_prefix("json=").filter(|path| !path.is_empty()) {
            Some(path) => Ok(SummaryTo::JsonFile(path.into())),
            None => Err(format!("--summary: expected text, json or json=FILE, not {other:?}")),
        },
    }
}

#[cfg(test)]
mod tests;
