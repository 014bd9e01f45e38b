//! What went wrong: its line and its exit code.

use crate::life::LifeError;
use crate::life::holder::socket_of;
use crate::shown;
use kivafs::store::{Holder, OpenError};
use std::ffi::OsStr;
use std::path::Path;
use std::time::SystemTime;

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

    /// The exit code, as mount(8) and umount(8) hand it on: 1 the words are wrong, 32 it was not done.
    pub fn code_of_helper(&self) -> u8 {
        match self.code() {
            2 => 1,
            _ => 32,
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

/// Who has the store, and what to do. `last_commit`: when the holder last did something.
fn held(store: &Path, holder: &Holder, last_commit: Option<SystemTime>) -> String {
    let store = store.display();
    let who = match holder.pid {
        0 => "another process".to_string(),
        pid => format!("pid {pid}"),
    };
    let dir = holder.serving_at.as_ref().map(|dir| dir.display());
    let is_elsewhere = holder.remote && !holder.here;
    if let Some(socket) = socket_of(holder).filter(|_| !is_elsewhere) {
        return format!("{store}: its keys are served at {socket} by {who}: ask there, or end that");
    }
    match (is_elsewhere, dir) {
        (false, Some(dir)) => format!("{store}: mounted at {dir} by {who}: use {dir}/PATH"),
        (false, None) => format!("{store}: in use by {who}: wait for it to end"),
        (true, dir) => {
            let host = holder.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
            let dir = dir.map_or_else(String::new, |dir| format!(" at {dir}"));
            let since = holder.since.map_or_else(String::new, |since| format!(" since {}", shown::instant(since)));
            // The other machine's clock may be ahead of ours.
            let idle = last_commit
                .and_then(|time| time.elapsed().ok())
                .map_or_else(String::new, |idle| format!(" (no commit for {})", shown::time_span(idle)));
            format!(
                "{store}: held by {who}{host}{dir}{since}{idle}: \
                 if that process is gone for good, take the store over with --takeover"
            )
        }
    }
}

/// A store that is named by more than one layer is named once.
fn named_once(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, rest)) => format!("{name}: {}", rest.strip_prefix(&format!("{name}: ")).unwrap_or(rest)),
        None => line.to_string(),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::InUse { path, holder } => Failure::InUse(held(&path, &holder, None)),
            error => Failure::Failed(named_once(&error.to_string())),
        }
    }
}

impl From<LifeError> for Failure {
    fn from(error: LifeError) -> Failure {
        match error {
            LifeError::Store(error) => error.into(),
            LifeError::HeldElsewhere { store, holder, last_commit } => {
                Failure::InUse(held(&store, &holder, last_commit))
            }
            LifeError::Relayed(code) => Failure::Told(code),
            error @ (LifeError::AlreadyMounted { .. }
            | LifeError::HeldByReader { .. }
            | LifeError::HeldDetached { .. }) => Failure::InUse(error.to_string()),
            error => Failure::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn holder() -> Holder {
        Holder {
            pid: 7,
            serving_at: Some("/mnt/notes".into()),
            draining: false,
            host: None,
            since: None,
            remote: false,
            here: true,
        }
    }

    fn far_holder() -> Holder {
        let since = Some(UNIX_EPOCH + Duration::from_secs(1_795_362_060));
        Holder { host: Some("hay".into()), since, remote: true, here: false, ..holder() }
    }

    #[test]
    fn a_holder_on_this_machine_is_told_with_another_way_to_the_path() {
        for (store, holder) in [("/srv/store", holder()), ("s3://bucket/notes", Holder { here: true, ..far_holder() })]
        {
            let Failure::InUse(line) = Failure::from(OpenError::InUse { path: store.into(), holder }) else { panic!() };
            assert_eq!(line, format!("{store}: mounted at /mnt/notes by pid 7: use /mnt/notes/PATH"));
            let Failure::InUse(line) = Failure::InUse(line).naming("/a/b".as_ref()) else { panic!() };
            assert!(line.ends_with(": use /mnt/notes/a/b"), "{line}");
        }
        let socket = Holder { serving_at: Some("kvlds:127.0.0.1:7007".into()), ..holder() };
        assert_eq!(
            held("/srv/store".as_ref(), &socket, None),
            "/srv/store: its keys are served at 127.0.0.1:7007 by pid 7: ask there, or end that"
        );
        let nowhere = Holder { serving_at: None, ..holder() };
        assert_eq!(held("/srv/store".as_ref(), &nowhere, None), "/srv/store: in use by pid 7: wait for it to end");
        let unknown = Holder { pid: 0, ..nowhere };
        assert!(held("/srv/store".as_ref(), &unknown, None).contains("in use by another process"));
    }

    #[test]
    fn a_store_is_named_once() {
        assert_eq!(named_once("s3://b/p: s3://b/p: reading: refused"), "s3://b/p: reading: refused");
        assert_eq!(named_once("s3://b/p: no s3://b/p: there"), "s3://b/p: no s3://b/p: there");
        assert_eq!(named_once("alone"), "alone");
    }

    #[test]
    fn a_holder_on_another_machine_is_told_with_what_takes_the_store_over() {
        let store = Path::new("s3://bucket/notes");
        let cure = "if that process is gone for good, take the store over with --takeover";
        assert_eq!(
            held(store, &far_holder(), Some(SystemTime::now() - Duration::from_secs(10_000))),
            format!(
                "s3://bucket/notes: held by pid 7 on hay at /mnt/notes since 2026-11-22 15:41 UTC \
                 (no commit for 2 h): {cure}"
            )
        );
        let ahead = Some(SystemTime::now() + Duration::from_secs(1000));
        let bare = Holder { serving_at: None, since: None, host: None, ..far_holder() };
        assert_eq!(held(store, &bare, ahead), format!("s3://bucket/notes: held by pid 7: {cure}"));
    }
}
