//! top.

use crate::cli::failure::Failure;
use crate::cli::words::TopWords;
use crate::top;
use std::io::IsTerminal;
use std::time::Duration;

pub fn top(words: &TopWords) -> Result<(), Failure> {
    let stdout = std::io::stdout();
    let plan = top::TopPlan {
        dir: words.dir.clone(),
        interval: Duration::from_secs(words.interval),
        times: if words.once { Some(1) } else { words.times },
        json: words.json,
        is_terminal: stdout.is_terminal(),
    };
    top::top(&plan, &mut stdout.lock()).map_err(Failure::Failed)
}
