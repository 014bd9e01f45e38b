//! Files and links: made, compared, removed.

use crate::install::layout::{Item, What};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Made,
    /// It was there, and was another one.
    Replaced,
    /// It was there, just so.
    Kept,
    /// A setting that somebody changed, or a link of somebody else's: it stays.
    Left,
    Removed,
    /// There is none.
    Absent,
}

/// It could not be done.
#[derive(Debug, Error)]
#[error("{path}: {error}")]
pub struct PutError {
    pub path: PathBuf,
    pub error: io::Error,
}

/// Is the name free, or ours? Changes nothing.
pub fn may_be_put(root: &Path, item: &Item) -> Result<(), PutError> {
    let path = below(root, &item.path);
    let refused = |why: String| Err(PutError { path: path.clone(), error: io::Error::other(why) });
    match (&item.what, path.symlink_metadata()) {
        (_, Err(_)) => Ok(()),
        (_, Ok(meta)) if meta.is_dir() => refused("there is a directory of that name".into()),
        (What::Link(_), Ok(meta)) if !meta.is_symlink() => {
            refused("there is a file of that name, which is no link: move it away first".into())
        }
        (What::Link(target), Ok(_)) => match fs::read_link(&path) {
            Ok(old) if is_ours(&old, target) => Ok(()),
            Ok(old) => refused(format!("it leads to {}: move it away first", old.display())),
            Err(error) => Err(PutError { path, error }),
        },
        (What::File { .. } | What::Setting(_), Ok(_)) => Ok(()),
    }
}

/// Puts it in place.
pub fn put(root: &Path, item: &Item) -> Result<Done, PutError> {
    let path = below(root, &item.path);
    put_at(&path, &item.what).map_err(|error| PutError { path, error })
}

fn put_at(path: &Path, what: &What) -> io::Result<Done> {
    let old = state(path, what)?;
    match (old, what) {
        (State::Same, _) => return Ok(Done::Kept),
        (State::Other, What::Setting(_)) => return Ok(Done::Left),
        _ => {}
    }
    let folder = path.parent().expect("each item lies in a directory");
    fs::create_dir_all(folder)?;
    // The new one is whole before it takes the name: nobody ever runs or reads half of one.
    let name = path.file_name().expect("each item has a name").to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}", std::process::id()));
    let made = match what {
        What::File { bytes, mode } => write(&fresh, bytes, *mode),
        What::Setting(text) => write(&fresh, text.as_bytes(), 0o644),
        What::Link(target) => symlink(target, &fresh),
    };
    if let Err(error) = made.and_then(|()| fs::rename(&fresh, path)) {
        // What counts is why it could not be made.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    Ok(if old == State::Absent { Done::Made } else { Done::Replaced })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Takes it away, if it is ours.
pub fn remove(root: &Path, item: &Item) -> Result<Done, PutError> {
    let path = below(root, &item.path);
    let done = || {
        let state = state(&path, &item.what)?;
        match (state, &item.what) {
            (State::Absent, _) => return Ok(Done::Absent),
            (State::Other, What::Setting(_) | What::Link(_)) => return Ok(Done::Left),
            _ => fs::remove_file(&path)?,
        }
        Ok(Done::Removed)
    };
    done().map_err(|error| PutError { path: path.clone(), error })
}

/// Removes a directory that holds nothing any more.
pub fn remove_if_empty(root: &Path, folder: &str) {
    // Whatever is in it, or that it is not there, is no failure.
    let _ = fs::remove_dir(below(root, Path::new(folder)));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Same,
    Other,
}

fn state(path: &Path, what: &What) -> io::Result<State> {
    let meta = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
        meta => meta?,
    };
    let is_same = match what {
        What::Link(target) => meta.is_symlink() && is_ours(&fs::read_link(path)?, target),
        What::File { bytes, mode } => {
            meta.is_file() && meta.mode() & 0o7777 == *mode && meta.size() == bytes.len() as u64 && {
                fs::read(path)? == *bytes
            }
        }
        What::Setting(text) => meta.is_file() && fs::read(path)? == text.as_bytes(),
    };
    Ok(if is_same { State::Same } else { State::Other })
}

/// Two links to one program.
fn is_ours(old: &Path, target: &Path) -> bool {
    old == target
}

/// A path seen from the root, seen from here.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
