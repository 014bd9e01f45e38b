//! A fresh directory, and its name: everything happens below it.

use crate::bench::figures::{Answer, text};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name that nobody has.
pub fn fresh_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("kivafs-bench-{}-{now}", std::process::id())
}

/// What `work` answers, which has a fresh directory below `dir` for itself: it is removed again.
pub fn with_scratch<T>(dir: &Path, name: &str, work: impl FnOnce(&Path) -> Answer<T>) -> Answer<T> {
    let fresh = make(dir, name).map_err(|error| {
        format!("{}: cannot make a directory there ({error}): give one that is there, to write to", dir.display())
    })?;
    let done = work(&fresh);
    let removed = std::fs::remove_dir_all(&fresh).map_err(|error| format!("{}: {}", fresh.display(), text(error)));
    let done = done?;
    removed.map(|()| done)
}

fn make(dir: &Path, name: &str) -> std::io::Result<PathBuf> {
    let fresh = dir.canonicalize()?.join(name);
    std::fs::create_dir(&fresh)?;
    Ok(fresh)
}
