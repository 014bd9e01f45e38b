//! get, put, ls, rm: one-shot access without a mount.

use crate::cli::failure::Failure;
use crate::cli::place;
use crate::cli::words::{LsWords, PathWords, PutWords};
use crate::fs::{Attr, Caller, FileSystem, FileType, FsError, IfExists, Ino, ROOT, RenameMode, WriteAt, coarse_now};
use crate::life::holder::{patiently, sleep};
use bytes::Bytes;
use kivafs::store::{OpenOptions, Store};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes taken at once.
const PIECE_BYTES: usize = 1 << 20;

/// A store opened for one command.
struct Session {
    store: Arc<Store>,
    fs: FileSystem,
    name: String,
}

impl Session {
    fn open(given: &Path, path: &OsStr, read_only: bool) -> Result<Session, Failure> {
        let place = place::store(given)?;
        let options = OpenOptions { read_only, ..OpenOptions::default() };
        let opened = patiently(&place, || Store::open_at(&place, &options), &mut sleep);
        let store = Arc::new(opened.map_err(|error| in_use_at(error.into(), path))?);
        let name = place.display().to_string();
        let fs = store
            .patiently(|| FileSystem::open(store.clone(), coarse_now))
            .map_err(|error: FsError| Failure::Failed(format!("{name}: {error}")))?;
        Ok(Session { store, fs, name })
    }

    fn patiently<T>(&self, operation: impl FnMut() -> Result<T, FsError>) -> Result<T, FsError> {
        self.store.patiently(operation)
    }

    /// Everything done is durable when this is Ok.
    fn close(self) -> Result<(), Failure> {
        self.store.close().map_err(|error| Failure::Failed(format!("{}: {error}", self.name)))
    }

    /// Walks down; links are not followed.
    fn find(&self, path: &OsStr) -> Result<Attr, FsError> {
        let mut found = self.patiently(|| self.fs.getattr(ROOT))?;
        for name in names(path) {
            found = self.patiently(|| self.fs.lookup(found.ino, name))?;
        }
        Ok(found)
    }

    /// The directory that holds the last name of `path`, and that name.
    fn find_parent<'a>(&self, path: &'a OsStr) -> Result<(Ino, &'a [u8]), FsError> {
        let names: Vec<&[u8]> = names(path).collect();
        let (last, above) = names.split_last().ok_or(FsError::IsADirectory)?;
        let mut dir = ROOT;
        for name in above {
            dir = self.patiently(|| self.fs.lookup(dir, name))?.ino;
        }
        Ok((dir, last))
    }
}

/// The line names the way that is open: the mount.
fn in_use_at(failure: Failure, path: &OsStr) -> Failure {
    match failure {
        Failure::InUse(line) => {
            let path = path.to_string_lossy();
            Failure::InUse(line.replace("/PATH", &format!("/{}", path.trim_start_matches('/'))))
        }
        failure => failure,
    }
}

fn names(path: &OsStr) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

fn output_failed(error: std::io::Error) -> Failure {
    Failure::Failed(format!("cannot write the output: {error}"))
}

pub fn get(words: &PathWords) -> Result<(), Failure> {
    let session = Session::open(&words.store, &words.path, true)?;
    let failed = |error| Failure::at(&words.path, error);
    let found = session.find(&words.path).map_err(failed)?;
    let mut output = std::io::stdout().lock();
    if found.kind == FileType::Symlink {
        let target = session.patiently(|| session.fs.readlink(found.ino)).map_err(failed)?;
        return output.write_all(&target).map_err(output_failed);
    }
    if found.kind != FileType::Regular {
        let kind = if found.kind == FileType::Directory { FsError::IsADirectory } else { FsError::NotSupported };
        return Err(failed(kind));
    }
    let mut offset = 0;
    while offset < found.size {
        let pieces = session.patiently(|| session.fs.read(found.ino, offset, PIECE_BYTES)).map_err(failed)?;
        for piece in &pieces {
            output.write_all(piece).map_err(output_failed)?;
            offset += piece.len() as u64;
        }
        assert!(!pieces.is_empty(), "a file that nobody else changes has its bytes");
    }
    output.flush().map_err(output_failed)
}

pub fn put(words: &PutWords) -> Result<(), Failure> {
    let mut input: Box<dyn Read> = match &words.file {
        None => Box::new(std::io::stdin().lock()),
        Some(file) => Box::new(
            std::fs::File::open(file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?,
        ),
    };
    let session = Session::open(&words.store, &words.path, false)?;
    let failed = |error| Failure::at(&words.path, error);
    let (dir, name) = session.find_parent(&words.path).map_err(failed)?;
    // What the new file keeps of the old one.
    let old = match session.patiently(|| session.fs.lookup(dir, name)) {
        Ok(old) if old.kind == FileType::Directory => return Err(failed(FsError::IsADirectory)),
        Ok(old) => Some(old),
        Err(FsError::NotFound) => None,
        Err(error) => return Err(failed(error)),
    };
    let caller = match &old {
        Some(old) => Caller { uid: old.uid, gid: old.gid },
        None => Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() },
    };
    let mode = libc::S_IFREG | old.as_ref().map_or(0o644, |old| u32::from(old.perm));
    let temporary = format!(".kivafs-put-{}", std::process::id());
    let temporary = temporary.as_bytes();
    let made = session.patiently(|| session.fs.create(caller, dir, temporary, mode, IfExists::Truncate));
    let made = made.map_err(failed)?;
    let replaced = fill(&session, made.ino, &mut input, &words.path).and_then(|()| {
        session.patiently(|| session.fs.rename((dir, temporary), (dir, name), RenameMode::Replace)).map_err(failed)
    });
    if replaced.is_err() {
        // The first error is the one to tell; what can't be removed is seen by the next 'ls'.
        let _ = session.patiently(|| session.fs.unlink(dir, temporary));
    }
    session.fs.release(made.ino);
    replaced.and(session.close())
}

fn fill(session: &Session, ino: Ino, input: &mut dyn Read, path: &OsStr) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = input.take(PIECE_BYTES as u64).read_to_end(&mut piece);
        read.map_err(|error| Failure::Failed(format!("cannot read the input: {error}")))?;
        if piece.is_empty() {
            return Ok(());
        }
        let mut left = Bytes::from(piece);
        while !left.is_empty() {
            session.store.wait_for_room();
            let written = session
                .patiently(|| session.fs.write(ino, WriteAt::Offset(offset), &left, false))
                .map_err(|error| Failure::at(path, error))?;
            assert!(written > 0, "a write takes something or fails");
            left = left.slice(written..);
            offset += written as u64;
        }
    }
}

pub fn ls(words: &LsWords) -> Result<(), Failure> {
    let session = Session::open(&words.store, &words.path, true)?;
    let failed = |error| Failure::at(&words.path, error);
    let found = session.find(&words.path).map_err(failed)?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    if found.kind != FileType::Directory {
        output.write_all(names(&words.path).last().unwrap_or_default()).map_err(output_failed)?;
        return writeln!(output).and_then(|()| output.flush()).map_err(output_failed);
    }
    let handle = session.patiently(|| session.fs.opendir(found.ino)).map_err(failed)?;
    let mut offset = 0;
    loop {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut next = offset;
        let listed = session.patiently(|| {
            (seen, next) = (Vec::new(), offset);
            session.fs.readdir(handle, offset, false, &mut |entry| {
                if !matches!(entry.name, b"." | b"..") {
                    seen.push(entry.name.to_vec());
                }
                next = entry.next;
                true
            })
        });
        listed.map_err(failed)?;
        if next == offset {
            break;
        }
        offset = next;
        for mut name in seen {
            name.push(b'\n');
            output.write_all(&name).map_err(output_failed)?;
        }
    }
    session.fs.releasedir(handle);
    output.flush().map_err(output_failed)
}

pub fn rm(words: &PathWords) -> Result<(), Failure> {
    let session = Session::open(&words.store, &words.path, false)?;
    let failed = |error| Failure::at(&words.path, error);
    let (dir, name) = session.find_parent(&words.path).map_err(failed)?;
    let found = session.patiently(|| session.fs.lookup(dir, name)).map_err(failed)?;
    let removed = match found.kind {
        FileType::Directory => session.patiently(|| session.fs.rmdir(dir, name)),
        _ => session.patiently(|| session.fs.unlink(dir, name)),
    };
    removed.map_err(failed)?;
    session.fs.forget(found.ino, 1);
    session.close()
}
