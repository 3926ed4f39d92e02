//! What the program tells of a run beside its log: the status over HTTP, the metrics' file, systemd, and a line when
//! SIGUSR1 asks for one. [`Watch`] is fed with the run's snapshots; all but the server happens in that thread.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pipeline::config::{Config, Status};
use pipeline::job::Observer;
use pipeline::metrics::Metrics;
use pipeline::progress::Snapshot;
use pipeline::status::server::{Close, Server};
use pipeline::status::{Board, Doing};
use pipeline::stop::Stop;
use pipeline::summary::Outcome;
use pipeline::{Error, Result};

use crate::screen::Progress;

/// How often the metrics' file is replaced: as often as most scrape.
const FILE_EVERY: Duration = Duration::from_secs(15);
/// How often systemd is told how far the run is.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Sees a run and tells of it.
pub struct Watch<'a> {
    board: &'a Board,
    progress: &'a Progress,
    file: Option<PathBuf>,
    systemd: Option<Systemd>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    file: Option<Instant>,
    told: Option<Instant>,
    alive: Option<Instant>,
    ready: bool,
}

impl<'a> Watch<'a> {
    /// What `settings` ask for, drawing on `progress`.
    pub fn new(board: &'a Board, progress: &'a Progress, settings: &Status) -> Self {
        let (file, systemd) = (settings.metrics_file.clone(), Systemd::of_process());
        Watch { board, progress, file, systemd, last: Mutex::default() }
    }

    /// The run is over: the file has the last word.
    ///
    /// # Errors
    /// The metrics' file cannot be written.
    pub fn end(&self, outcome: Outcome) -> Result<()> {
        self.board.end(outcome);
        if let Some(systemd) = &self.systemd {
            // A service that ends without ever having been ready has failed, for systemd: there was nothing to do.
            if !self.last.lock().ready && outcome != Outcome::Failed {
                systemd.tell("READY=1");
            }
            systemd.tell(&format!("STOPPING=1\nSTATUS={}", self.board.line()));
        }
        match &self.file {
            Some(path) => replace(path, &self.board.text()).map_err(|error| Error::io("write", path, error)),
            None => Ok(()),
        }
    }

    fn write_file(&self, last: &mut Last) {
        let Some(path) = &self.file else { return };
        if is_due(&mut last.file, FILE_EVERY)
            && let Err(error) = replace(path, &self.board.text())
        {
            log::warn!("cannot write the metrics to {}: {error}", path.display());
        }
    }

    fn tell_systemd(&self, last: &mut Last) {
        let Some(systemd) = &self.systemd else { return };
        if !last.ready && self.board.doing() == Doing::Running {
            last.ready = true;
            systemd.tell("READY=1");
        }
        if is_due(&mut last.told, TOLD_EVERY) {
            systemd.tell(&format!("STATUS={}", self.board.line()));
        }
        if systemd.watchdog.is_some_and(|every| is_due(&mut last.alive, every / 2)) {
            systemd.tell("WATCHDOG=1");
        }
    }
}

impl Observer for Watch<'_> {
    fn begin(&self, metrics: &Arc<Metrics>) {
        self.board.begin(metrics);
    }

    fn tick(&self, snapshot: &Snapshot) {
        self.board.tick(snapshot);
        self.progress.tick(snapshot);
        let mut last = self.last.lock();
        self.write_file(&mut last);
        self.tell_systemd(&mut last);
    }
}

/// Whether it is time again; if so, it was done now.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// A board for this run.
pub fn board(config: &Config, stop: &Stop) -> Board {
    Board::new(config, stop)
}

/// Listens where the settings say, if they do.
///
/// # Errors
/// It cannot be listened there.
pub fn listen(settings: &Status) -> Result<Option<(Server, Close)>> {
    let Some(address) = &settings.listen else { return Ok(None) };
    let (server, close) = Server::bind(address, &settings.hosts)?;
    let at = server.address()?;
    log::info!(target: "pipeline::status", address = at.to_string().as_str(); "listening on http://{at}/");
    Ok(Some((server, close)))
}

/// Serves in a thread of its own until the server's [`Close`] is dropped.
///
/// # Errors
/// There is no thread.
pub fn serve<'scope>(
    server: &'scope Server,
    board: &'scope Board,
    scope: &'scope Scope<'scope, '_>,
) -> io::Result<()> {
    Builder::new().name("status".into()).spawn_scoped(scope, || server.serve(board)).map(drop)
}

/// What keeps the metrics' file from being written, found out before a run that may take hours.
pub fn unwritable(settings: &Status) -> Option<String> {
    let path = settings.metrics_file.as_ref()?;
    let tried = replace(path, "# the run has not begun\n");
    tried.err().map(|error| format!("--metrics-file: cannot write {}: {error}", path.display()))
}

/// Replaces a file so that whoever reads it sees the old or the new one. Its name for the time being begins with a
/// dot and does not end like the file's, so that no collector takes it. A device or a pipe is written to instead.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = &real(path);
    if is_special(path) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    }
    let temporary = temporary(path)?;
    let written = fs::File::create(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

/// Whether [`replace`] will be able to, as far as can be known without touching the file.
pub fn try_beside(path: &Path) -> io::Result<()> {
    let path = &real(path);
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if is_special(path) {
        // Opening a FIFO would wait for its reader.
        return rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from);
    }
    let temporary = temporary(path)?;
    fs::File::create(&temporary).and_then(|_| fs::remove_file(&temporary))
}

/// Where a link leads.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{}.tmp", std::process::id())))
}

/// The service manager, by the protocol of `sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names.
struct Systemd {
    socket: UnixDatagram,
    to: std::os::unix::net::SocketAddr,
    /// It must hear of this process at least so often.
    watchdog: Option<Duration>,
}

impl Systemd {
    fn of_process() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let to = address(&variable("NOTIFY_SOCKET")?)?;
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|micros| micros.parse().ok());
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not hold up the run.
        socket.set_nonblocking(true).ok()?;
        Some(Systemd { socket, to, watchdog: micros.map(Duration::from_micros) })
    }

    fn tell(&self, what: &str) {
        if let Err(error) = self.socket.send_to_addr(what.as_bytes(), &self.to) {
            log::debug!("systemd did not hear {what:?}: {error}");
        }
    }
}

/// A path, or behind `@` a name without one.
fn address(text: &str) -> Option<std::os::unix::net::SocketAddr> {
    use std::os::unix::net::SocketAddr;
    #[cfg(target_os = "linux")]
    if let Some(name) = text.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name).ok();
    }
    text.starts_with('/').then(|| SocketAddr::from_pathname(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.prom");
        replace(&path, "one\n").unwrap();
        replace(&path, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(replace(&dir.path().join("d"), "x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(try_beside(&path).is_ok() && try_beside(&dir.path().join("d")).is_err());
        assert!(try_beside(&dir.path().join("none/a")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn devices_stay_devices_and_links_stay_links() {
        assert!(replace(Path::new("/dev/null"), "x").is_ok() && try_beside(Path::new("/dev/null")).is_ok());
        assert!(is_special(Path::new("/dev/null")));
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn addresses_of_the_manager_are_paths_or_names() {
        assert!(address("/run/systemd/notify").is_some_and(|it| it.as_pathname().is_some()));
        assert!(address("@notify").is_some());
        assert!(address("vsock:2:1").is_none());
    }
}
