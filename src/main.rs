//! The command line program: parse the arguments, set up logging and signals, run, map the result to an exit
//! code. Everything else is the library's; what belongs to a terminal or a process is here.

mod cli;
mod check;
mod logging;
mod screen;
mod signal;
mod voice;
mod watch;
mod finish;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use pipeline::config::{Intent, LogFormat, Place};
use pipeline::error::Retry;
use pipeline::job;
use pipeline::stop::Stop;
use pipeline::summary::Summary;
use pipeline::{Error, Result};

use cli::{Ambient, Chatter, Invocation, Mode, Request, SummaryTo, When};
use finish::{Finish, Rejects, chain, hint};
use screen::{Progress, Screen};
use voice::{Voice, say};
use watch::Watch;

fn main() -> ExitCode {
    let code = match arguments().and_then(|args| cli::parse(&args, &Ambient::process)) {
        Ok(Request::Print(text)) => print(&text),
        Ok(Request::Run(invocation)) if invocation.mode == Mode::Check => check(&invocation),
        Ok(Request::Run(invocation)) => perform(&invocation),
        Err(problems) => {
            let args: Vec<_> = std::env::args_os().skip(1).collect();
            let format = cli::asked_format(&args, std::env::var_os("PIPELINE_LOG__FORMAT"));
            problems.iter().for_each(|problem| Voice(format).complain(problem, None));
            2
        }
    };
    ExitCode::from(code)
}

/// The arguments without the program's name.
fn arguments() -> Result<Vec<String>, Vec<String>> {
    let text = |arg: std::ffi::OsString| {
        arg.into_string().map_err(|arg| vec![format!("argument {arg:?}: expected text in UTF-8")])
    };
    std::env::args_os().skip(1).map(text).collect()
}

/// Runs, and says what came of it.
fn perform(invocation: &Invocation) -> u8 {
    let voice = Voice(invocation.log.format);
    voice.take_panics();
    let problem = check::missing_input(&invocation.config)
        .or_else(|| check::replaced(&invocation.config, &invocation.status, &invocation.summary))
        .or_else(|| unwritable_summary(&invocation.summary))
        .or_else(|| watch::unwritable(&invocation.status));
    if let Some(problem) = problem {
        voice.complain(&problem, None);
        return 2;
    }
    let screen = Screen::new();
    logging::install(invocation.log, invocation.log_filter.as_deref(), &screen);
    let stop = Stop::new();
    let board = watch::board(&invocation.config, &stop);
    let serving = match watch::listen(&invocation.status) {
        Ok(serving) => serving,
        Err(error) => {
            voice.complain(&chain(&error), hint(&error));
            return 1;
        }
    };
    let (watch, signals, caught) = match signal::install(stop.clone()) {
        Ok(installed) => installed,
        Err(error) => {
            voice.complain(&format!("cannot take over signals: {error}"), None);
            return 1;
        }
    };
    if let Some(group) = unnamed_group(invocation) {
        voice.tell(&format!("group {group}; -g NAME names another"));
    }
    let progress = Progress::new(when(invocation), invocation.chatter, &screen);
    let (server, close) = serving.unzip();
    let watcher = Watch::new(&board, &progress, &invocation.status);
    let (finish, told) = thread::scope(|scope| {
        let board = &board;
        let status = || log::info!(target: "pipeline::status", "{}", board.line());
        let signals_thread = thread::Builder::new().name("signals".into());
        let watching = signals_thread.spawn_scoped(scope, move || watch.run(status));
        let serving = server.as_ref().map_or(Ok(()), |server| watch::serve(server, board, scope));
        let finish = match watching.and(serving) {
            Ok(()) => run(invocation, &stop, &watcher),
            Err(error) => Err(Error::other("cannot start a thread", Retry::Transient, error)).into(),
        };
        let told = watcher.end(finish.outcome());
        signals.close();
        drop(close);
        (finish, told)
    });
    progress.finish();
    logging::finish();
    conclude(invocation, &finish, told, caught.exit_code())
}

/// Whether a bar is drawn: not between records that appear on the same screen, unless it was asked for.
fn when(invocation: &Invocation) -> When {
    let shown = invocation.config.output.to == Place::Stdout || invocation.mode == Mode::DryRun;
    match invocation.progress {
        When::Auto if shown && io::stdout().is_terminal() => When::Never,
        when => when,
    }
}

/// The group that nobody named, and that remembers what this run reads of its topics.
fn unnamed_group(invocation: &Invocation) -> Option<String> {
    let config = &invocation.config;
    let told = invocation.chatter == Chatter::Normal && invocation.mode == Mode::Run;
    let unnamed = told && config.kafka.source.group.is_none();
    // Without a working directory the run says so itself.
    std::env::current_dir().ok().filter(|_| unnamed).and_then(|cwd| config.group(Intent::Store, &cwd))
}

/// What keeps the summary from being written, looked at before a run that may take hours.
fn unwritable_summary(to: &SummaryTo) -> Option<String> {
    let SummaryTo::JsonFile(path) = to else { return None };
    let tried = watch::try_beside(path);
    tried.err().map(|error| format!("--summary: cannot write {}: {error}", path.display()))
}

/// Lets the library do it. The observer draws.
fn run(invocation: &Invocation, stop: &Stop, watch: &Watch<'_>) -> Finish {
    let mode = if invocation.mode == Mode::DryRun { job::Mode::Rehearse } else { job::Mode::Store };
    let done = job::run_observed(&invocation.config, &[], mode, stop, watch);
    Finish { summary: done.summary, error: done.error }
}

/// Writes the summary and the error, in this order: the error is what must be read.
fn conclude(invocation: &Invocation, finish: &Finish, told: Result<()>, signal: Option<u8>) -> u8 {
    let voice = Voice(invocation.log.format);
    let summary = match invocation.summary {
        SummaryTo::JsonFile(_) => finish.summary.as_ref(),
        SummaryTo::Text | SummaryTo::Json => finish.told(),
    };
    let reported = summary.map_or(Ok(()), |summary| report(invocation, summary)).and(told);
    if let Some(error) = finish.complaint() {
        voice.complain(&chain(error), hint(error));
    }
    let rejects = if invocation.rejects_ok { Rejects::AreFine } else { Rejects::Count };
    match (finish.exit_code(rejects, signal), reported) {
        (0, Err(error)) => {
            voice.complain(&chain(&error), hint(&error));
            1
        }
        (code, _) => code,
    }
}

/// Writes the summary where it was asked for.
fn report(invocation: &Invocation, summary: &Summary) -> Result<()> {
    match &invocation.summary {
        SummaryTo::JsonFile(path) => {
            let text = summary.json() + "\n";
            watch::replace(path, &text).map_err(|error| Error::io("write", path, error))?;
        }
        SummaryTo::Json => say(&(summary.json() + "\n")),
        SummaryTo::Text if invocation.chatter == Chatter::Normal => {
            Voice(invocation.log.format).summarise(summary);
        }
        SummaryTo::Text => {}
    }
    Ok(())
}

/// `--check`: a line for each thing that a run needs, on stdout.
fn check(invocation: &Invocation) -> u8 {
    let mut findings = check::run(&invocation.config);
    findings.extend(check::told(&invocation.config, &invocation.status, &invocation.summary));
    let lines: String = findings.iter().map(check::Finding::line).collect();
    let printed = print(&format!("ok       configuration\n{lines}"));
    printed.max(check::exit_code(&findings))
}

/// Prints on stdout. A closed pipe is the reader's choice, not a failure.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            Voice(LogFormat::Text).complain(&format!("cannot write to stdout: {error}"), None);
            1
        }
    }
}
