//! What the program draws on stderr: the progress bar, and log lines that do not tear it. [`Screen`] is shared
//! by both; nothing here ever touches stdout.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use pipeline::progress::{self, Meter, Snapshot};

use crate::cli::{Chatter, When};

/// Without a terminal there is a line this often, and if progress was asked for, more often.
const LINE_EVERY: Duration = Duration::from_secs(60);
const ALWAYS_EVERY: Duration = Duration::from_secs(10);

/// stderr, shared by the bar and by whoever writes lines.
#[derive(Clone)]
pub struct Screen(MultiProgress);

impl Screen {
    /// A screen without a bar.
    pub fn new() -> Self {
        Screen(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
    }

    /// Writes whole lines to stderr, the bar out of the way. A closed stderr is nobody's failure.
    pub fn write(&self, text: &[u8]) {
        self.0.suspend(|| {
            let _ = io::stderr().lock().write_all(text);
        });
    }
}

/// The screen as a place for log lines.
impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        Screen::write(self, text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows how far a run is. Called by one thread, some times a second.
pub struct Progress {
    face: Face,
    state: Mutex<State>,
}

enum Face {
    Bar(ProgressBar),
    /// A line this often: to the log, or to the screen whatever the log's level.
    Lines(Duration, Option<Screen>),
    Nothing,
}

#[derive(Default)]
struct State {
    meter: Meter,
    last_line: Duration,
}

impl Progress {
    /// A bar on a terminal, lines without one, or nothing.
    pub fn new(when: When, chatter: Chatter, screen: &Screen) -> Self {
        let when = if chatter == Chatter::Quiet && when == When::Auto { When::Never } else { when };
        let face = match (when, io::stderr().is_terminal()) {
            (When::Never, _) => Face::Nothing,
            (_, true) => Face::Bar(bar(screen)),
            (When::Auto, false) => Face::Lines(LINE_EVERY, None),
            (When::Always, false) => Face::Lines(ALWAYS_EVERY, Some(screen.clone())),
        };
        Progress { face, state: Mutex::default() }
    }

    /// Shows a snapshot.
    pub fn tick(&self, now: &Snapshot) {
        let mut state = self.state.lock();
        let rates = state.meter.tick(now);
        match &self.face {
            Face::Nothing => {}
            Face::Lines(every, _) if now.elapsed < state.last_line + *every => {}
            Face::Lines(_, to) => {
                state.last_line = now.elapsed;
                let line = progress::line(now, rates);
                match to {
                    Some(screen) => screen.write(format!("{line}\n").as_bytes()),
                    None => log::info!(target: "pipeline::progress", "{line}"),
                }
            }
            Face::Bar(bar) => draw(bar, now, progress::beside_bar(now, rates)),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Face::Bar(bar) = &self.face {
            bar.finish_and_clear();
        }
    }
}

const WITH_BAR: &str = "{bar:24} {percent:>3}% {wide_msg}";
const WITHOUT_BAR: &str = "{wide_msg}";

fn bar(screen: &Screen) -> ProgressBar {
    screen.0.add(ProgressBar::no_length().with_style(style(WITHOUT_BAR)))
}

/// A template that does not parse would be a mistake here; the default style is then good enough.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// There is a bar only while the whole is known, in bytes or in positions: an input without a length (stdin) may be
/// the next one.
fn draw(bar: &ProgressBar, now: &Snapshot, beside: String) {
    let share = now.share();
    match (share, bar.length()) {
        (Some(_), None) => bar.set_style(style(WITH_BAR)),
        (None, Some(_)) => bar.set_style(style(WITHOUT_BAR)),
        _ => {}
    }
    match share {
        Some((done, known)) => bar.set_length(known.max(done)),
        None => bar.unset_length(),
    }
    bar.set_position(share.map_or(now.bytes_done, |(done, _)| done));
    bar.set_message(beside);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(second: u64) -> Snapshot {
        Snapshot { elapsed: Duration::from_secs(second), bytes_known: Some(100), ..Snapshot::default() }
    }

    #[test]
    fn without_a_terminal_there_is_a_line_a_minute() {
        let progress = Progress { face: Face::Lines(LINE_EVERY, None), state: Mutex::default() };
        for (second, last_line) in [(59, 0), (61, 61), (120, 61), (121, 121)] {
            progress.tick(&snapshot(second));
            assert_eq!(progress.state.lock().last_line, Duration::from_secs(last_line));
        }
    }

    #[test]
    fn a_bar_follows_the_snapshot_and_goes_away() {
        let bar = ProgressBar::hidden();
        let progress = Progress { face: Face::Bar(bar.clone()), state: Mutex::default() };
        progress.tick(&Snapshot { bytes_done: 40, ..snapshot(1) });
        assert_eq!((bar.position(), bar.length()), (40, Some(100)));
        assert!(bar.message().starts_with("40 B/100 B"), "{}", bar.message());
        progress.tick(&Snapshot { bytes_done: 140, ..snapshot(2) });
        assert_eq!(bar.length(), Some(140));
        progress.tick(&Snapshot { bytes_known: None, ..snapshot(3) });
        assert_eq!(bar.length(), None);
        let positions =
            Snapshot { bytes_known: None, positions: Some((7, 20)), bytes_done: 900, ..snapshot(4) };
        progress.tick(&positions);
        assert_eq!((bar.position(), bar.length()), (7, Some(20)));
        progress.finish();
        assert!(bar.is_finished());
    }
}
