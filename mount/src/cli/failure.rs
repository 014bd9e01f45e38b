//! What went wrong: its line and its exit code.

use crate::life::LifeError;
use kivafs::store::OpenError;
use std::ffi::OsStr;

/// Why a command was not done.
#[derive(Debug)]
pub enum Failure {
    /// The world. Exit code 1.
    Failed(String),
    /// The command line. Exit code 2.
    Usage(String),
    /// Another process has the store. Exit code 3.
    InUse(String),
    /// The line is told already; this is the exit code.
    Told(u8),
}

impl Failure {
    /// What clap says, in one line.
    pub fn usage(error: &clap::Error) -> Failure {
        let text = error.to_string();
        let said = text.split("\n\nUsage:").next().unwrap_or_default().split("\n\nFor more").next().unwrap_or_default();
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        Failure::Usage(format!("{line}: see 'kivafs help'"))
    }

    /// A store that is in use has another way to `path`: the line names it in full.
    pub fn naming(self, path: &OsStr) -> Failure {
        match self {
            Failure::InUse(line) => match line.strip_suffix("/PATH") {
                Some(start) => Failure::InUse(format!("{start}/{}", path.to_string_lossy().trim_start_matches('/'))),
                None => Failure::InUse(line),
            },
            failure => failure,
        }
    }

    /// Writes the line.
    pub fn tell(&self) {
        match self {
            Failure::Failed(line) | Failure::Usage(line) | Failure::InUse(line) => eprintln!("kivafs: {line}"),
            Failure::Told(_) => {}
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::InUse(_) => 3,
            Failure::Told(code) => *code,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::InUse { path, holder } => Failure::InUse(match holder.serving_at {
                Some(dir) => format!(
                    "{}: mounted at {dir} by pid {}: use {dir}/PATH",
                    path.display(),
                    holder.pid,
                    dir = dir.display()
                ),
                None => format!("{}: in use by pid {}: wait for it to end", path.display(), holder.pid),
            }),
            error => Failure::Failed(error.to_string()),
        }
    }
}

impl From<LifeError> for Failure {
    fn from(error: LifeError) -> Failure {
        match error {
            LifeError::Store(error) => error.into(),
            LifeError::Relayed(code) => Failure::Told(code),
            error => Failure::Failed(error.to_string()),
        }
    }
}
