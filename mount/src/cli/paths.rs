//! get, put, ls, rm: one-shot access without a mount.

use crate::cli::failure::Failure;
use crate::cli::given::{self, Given};
use crate::cli::words::{GetWords, LsWords, PutWords, RmWords, StoreWords, TakeoverWords};
use crate::fs::{Caller, FileSystem, PathError, coarse_now};
use crate::life::drain::close;
use crate::life::holder::{patiently, sleep};
use kivafs::store::OpenOptions;
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// May the command change the store?
#[derive(Clone, Copy)]
enum Access<'a> {
    Read,
    Change(&'a TakeoverWords),
}

/// Opens the store, does `work`, and closes it: what was done is durable when this is Ok.
fn with_store(
    words: &StoreWords,
    path: &OsStr,
    access: Access<'_>,
    work: impl FnOnce(&FileSystem) -> Result<(), PathError>,
) -> Result<(), Failure> {
    let Given { place, options } = given::store(words)?;
    let (read_only, takeover) = match access {
        Access::Read => (true, false),
        Access::Change(takeover) => (false, given::takeover(takeover, &place)?),
    };
    let opening = OpenOptions { read_only, takeover, ..options.for_opening(&place) };
    let opened = patiently(&place, || place.open(&opening), &mut sleep);
    let store = Arc::new(opened.map_err(|error| Failure::from(error).naming(path))?);
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("{place}: {why}"));
    let fs = FileSystem::open(store.clone(), coarse_now).map_err(|error| failed(&error))?;
    // Closed also after a failure, which then is what to tell.
    let done = work(&fs).map_err(|error| Failure::Failed(error.to_string()));
    let closed = close(&place, store, options.timeout).map_err(|error| failed(&error));
    done.and(closed)
}

pub fn get(words: &GetWords) -> Result<(), Failure> {
    let path = words.path.as_bytes();
    with_store(&words.store, &words.path, Access::Read, |fs| {
        let mut output = stdout().lock();
        fs.read_path(path, &mut output)?;
        output.flush().map_err(|error| PathError::Io { path: path.into(), error })
    })
}

pub fn put(words: &PutWords) -> Result<(), Failure> {
    let mut input: Box<dyn Read> = match &words.file {
        None => Box::new(stdin().lock()),
        Some(file) => Box::new(
            std::fs::File::open(file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?,
        ),
    };
    let caller = Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    with_store(&words.store, &words.path, Access::Change(&words.takeover), |fs| {
        fs.put_path(caller, words.path.as_bytes(), &mut input).map(|_| ())
    })
}

pub fn ls(words: &LsWords) -> Result<(), Failure> {
    let path = words.path.as_bytes();
    with_store(&words.store, &words.path, Access::Read, |fs| {
        let mut output = BufWriter::new(stdout().lock());
        let written = fs.list_path(path)?.iter().try_for_each(|entry| {
            output.write_all(&entry.name)?;
            output.write_all(b"\n")
        });
        written.and_then(|()| output.flush()).map_err(|error| PathError::Io { path: path.into(), error })
    })
}

pub fn rm(words: &RmWords) -> Result<(), Failure> {
    with_store(&words.store, &words.path, Access::Change(&words.takeover), |fs| fs.remove_path(words.path.as_bytes()))
}
