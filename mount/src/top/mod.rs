//! Rates of a mount, live: what `kivafs top` shows.
//!
//! # Contract
//!
//! * It reads `.kivafs/metrics` of the mount again and again, and shows what changed in between: nothing else
//!   is asked for, and the mount does nothing for it.
//! * Time is the mount's own: rates are over the time between two readings, however late they come.
//! * A mount that began anew meanwhile is shown from its beginning.
//!
//! | file | job |
//! |---|---|
//! | `samples.rs` | the metrics, read |
//! | `rates.rs` | what changed between two readings |
//! | `show.rs` | for people, and for programs |

mod rates;
mod samples;
mod show;

use rates::Rates;
use samples::Samples;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct TopPlan {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Time between two readings.
    pub interval: Duration,
    /// How often rates are shown; `None`: until a signal comes.
    pub times: Option<u64>,
    /// For programs: an object a line.
    pub json: bool,
    /// Each takes the place of the one before.
    pub is_terminal: bool,
}

/// Takes the cursor to the upper left, and what was there away.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows rates. An error is one line. Whoever reads them may go away at any time.
pub fn top(plan: &TopPlan, out: &mut dyn Write) -> Result<(), String> {
    let mut before = read(&plan.dir)?;
    let mut next = Instant::now();
    for time in 0.. {
        if plan.times.is_some_and(|times| time >= times) {
            break;
        }
        next += plan.interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let after = read(&plan.dir)?;
        let rates = Rates::between(&before, &after);
        let text = match plan.json {
            true => format!("{}\n", show::object(&rates)),
            false if plan.is_terminal => format!("{CLEAR}{}", show::table(&rates)),
            false if time > 0 => format!("\n{}", show::table(&rates)),
            false => show::table(&rates),
        };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            done => done.map_err(|error| format!("cannot write: {error}"))?,
        }
        before = after;
    }
    Ok(())
}

fn read(dir: &Path) -> Result<Samples, String> {
    let path = dir.join(".kivafs/metrics");
    let shown = dir.display();
    match std::fs::read_to_string(path) {
        Ok(text) => Samples::read(&text).ok_or_else(|| format!("{shown}: .kivafs/metrics: not what kivafs writes")),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                format!("{shown}: no kivafs mount there ('findmnt -t fuse.kivafs' lists them)")
            }
            ErrorKind::PermissionDenied => format!("{shown}: only who mounted it, and root, may look inside"),
            _ => format!("{shown}: .kivafs/metrics: {error}"),
        }),
    }
}
