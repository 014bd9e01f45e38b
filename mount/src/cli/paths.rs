//! get, put, ls, rm: one-shot access, to a store that is not mounted, or through a server of its keys.

use crate::cli::failure::Failure;
use crate::cli::given::{self, Given};
use crate::cli::keys;
use crate::cli::words::{GetWords, LsWords, PutWords, RmWords, SourceWords, TakeoverWords};
use crate::fs::{Caller, FileSystem, PathError, coarse_now};
use crate::life::drain::close;
use crate::life::holder::{patiently, sleep};
use crate::life::supervisor::Supervisor;
use kivafs::store::OpenOptions;
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// May the command change the store?
#[derive(Clone, Copy)]
enum Access<'a> {
    Read,
    Change(&'a TakeoverWords),
}

/// Opens the store, does `work`, and closes it: what was done is durable when this is Ok.
fn with_store(
    words: &SourceWords,
    path: &OsStr,
    access: Access<'_>,
    work: impl FnOnce(&FileSystem) -> Result<(), PathError>,
) -> Result<(), Failure> {
    let Given { place, options } = words.given()?;
    let (read_only, takeover) = match access {
        Access::Read => (true, false),
        Access::Change(takeover) => (false, given::takeover(takeover, &place)?),
    };
    let opening = OpenOptions { read_only, takeover, ..options.for_opening() };
    let opened = patiently(&place, || place.open(&opening), &mut sleep);
    let store = Arc::new(opened.map_err(|error| Failure::from(error).naming(path))?);
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("{place}: {why}"));
    let fs = FileSystem::open(store.clone(), coarse_now).map_err(|error| failed(&error))?;
    // Closed also after a failure, which then is what to tell.
    let done = work(&fs).map_err(|error| Failure::Failed(error.to_string()));
    let closed = close(&place, store, options.timeout, &mut Supervisor::nobody()).map_err(|error| failed(&error));
    done.and(closed)
}

fn path(given: Option<&OsStr>) -> &OsStr {
    given.expect("clap asks for it where there is no --kvlds")
}

pub fn get(words: &GetWords) -> Result<(), Failure> {
    if let Some(server) = words.source.server() {
        return keys::get(&server, words.source.name());
    }
    let path = path(words.path.as_deref());
    with_store(&words.source, path, Access::Read, |fs| {
        let mut output = stdout().lock();
        fs.read_path(path.as_bytes(), &mut output)?;
        output.flush().map_err(|error| PathError::Io { path: path.as_bytes().into(), error })
    })
}

pub fn put(words: &PutWords) -> Result<(), Failure> {
    if let Some(server) = words.source.server() {
        given::takeover_of_server(&words.takeover)?;
        // Without STORE the words stand one place further to the front.
        return keys::put(&server, words.source.name(), &mut *input(words.path.as_deref().map(Path::new))?);
    }
    let path = path(words.path.as_deref());
    let mut input = input(words.file.as_deref())?;
    let caller = Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), umask: 0 };
    with_store(&words.source, path, Access::Change(&words.takeover), |fs| {
        fs.put_path(caller, path.as_bytes(), &mut input).map(|_| ())
    })
}

/// FILE, or stdin.
fn input(file: Option<&Path>) -> Result<Box<dyn Read>, Failure> {
    let Some(file) = file else { return Ok(Box::new(stdin().lock())) };
    match std::fs::File::open(file) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", file.display()))),
    }
}

pub fn ls(words: &LsWords) -> Result<(), Failure> {
    if let Some(server) = words.source.server() {
        return keys::ls(&server, words.source.name());
    }
    let path = words.path.as_deref().unwrap_or("/".as_ref());
    with_store(&words.source, path, Access::Read, |fs| {
        let mut output = BufWriter::new(stdout().lock());
        let written = fs.list_path(path.as_bytes())?.iter().try_for_each(|entry| {
            output.write_all(&entry.name)?;
            output.write_all(b"\n")
        });
        written.and_then(|()| output.flush()).map_err(|error| PathError::Io { path: path.as_bytes().into(), error })
    })
}

pub fn rm(words: &RmWords) -> Result<(), Failure> {
    if let Some(server) = words.source.server() {
        given::takeover_of_server(&words.takeover)?;
        return keys::rm(&server, words.source.name());
    }
    let path = path(words.path.as_deref());
    with_store(&words.source, path, Access::Change(&words.takeover), |fs| fs.remove_path(path.as_bytes()))
}
