//! One line on a terminal for what takes long; nothing in a pipe or a log.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// What is soon over needs no line.
const QUIET: Duration = Duration::from_millis(500);

/// A line on stderr that is rewritten, and wiped away at the end.
pub struct Progress {
    since: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn start() -> Progress {
        Progress { since: Instant::now(), terminal: stderr().is_terminal(), shown: false }
    }

    /// How long it has lasted.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Shows `what` and how long it has lasted.
    pub fn tick(&mut self, what: &str) {
        if self.terminal && self.elapsed() >= QUIET {
            // A terminal that is gone must not stop the wait.
            let _ = write!(stderr(), "\r\x1b[K{what} ({} s)", self.elapsed().as_secs());
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
