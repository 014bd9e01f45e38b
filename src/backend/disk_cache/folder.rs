//! The cache's directory: its lock, its files' names, its space.
//!
//! Everything goes by descriptors, not by paths: a store may be mounted over the cache's directory
//! later, and a directory that was moved is still ours.

use super::super::file::{errno_if, free_space, lock};
use std::ffi::{CStr, CString, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOCK_NAME: &CStr = c"kivafs.lock";
/// Tells backup programs that nothing here is worth keeping (bford.info/cachedir).
const TAG_NAME: &CStr = c"CACHEDIR.TAG";
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of kivafs; safe to delete at any time.\n";
/// What may lie beside our files: a file system of its own has this one.
const LOST_AND_FOUND: &str = "lost+found";
const FILE_PREFIX: &str = "kivafs-";
const FILE_SUFFIX: &str = ".cache";
/// How long to wait for a process that is just ending to let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Foreign files that an error names; the others it counts.
const NAMES_MAX: usize = 3;

/// The directory.
pub struct Folder {
    path: PathBuf,
    /// To make the directory again when it is gone; none above "/".
    parent: Option<(File, CString)>,
    held: Option<Held>,
}

/// As long as this lives, no other process uses the directory.
struct Held {
    directory: File,
    lock: File,
}

impl Folder {
    /// Makes the directory if there is none, and locks it. Errors are whole sentences.
    pub fn open(path: &Path) -> io::Result<Folder> {
        open(path).map_err(|error| name_directory(error, path))
    }

    /// Makes and locks it anew, after it was deleted.
    pub fn open_again(&mut self) -> io::Result<()> {
        // First, since our own lock could be in the way.
        let before = self.held.take();
        let is_there = before.as_ref().is_some_and(|held| !is_deleted(&held.directory));
        let directory = match (before, &self.parent) {
            (Some(held), _) if is_there => held.directory,
            (_, Some((parent, name))) => {
                // SAFETY: the descriptor is open and the name ends with a zero.
                let made = errno_if(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o700) } == -1);
                if let Err(error) = made
                    && error.kind() != io::ErrorKind::AlreadyExists
                {
                    return Err(error);
                }
                open_at(parent, name, libc::O_RDONLY | libc::O_DIRECTORY)?
            }
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.held = Some(hold(directory, &self.path)?);
        Ok(())
    }

    /// Whether the directory, or the lock in it, was deleted.
    pub fn is_lost(&self) -> bool {
        self.held.as_ref().is_none_or(|held| is_deleted(&held.lock))
    }

    /// The numbers of the cache's files, in no order. Refuses a directory that holds other things:
    /// whoever named it meant another one. Errors are whole sentences.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        self.list().map_err(|error| name_directory(error, &self.path))
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        let ours = self.held()?.directory.metadata()?;
        let there = std::fs::metadata(&self.path)?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was moved, or something was mounted over it"));
        }
        let (mut numbers, mut foreign) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(number_of) {
                Some(number) if entry.file_type()?.is_file() => numbers.push(number),
                _ if [LOCK_NAME.to_bytes(), TAG_NAME.to_bytes(), LOST_AND_FOUND.as_bytes()]
                    .contains(&name.as_bytes()) => {}
                _ => foreign.push(name),
            }
        }
        if foreign.is_empty() { Ok(numbers) } else { Err(foreign_error(foreign)) }
    }

    /// Makes a file, of that number and empty.
    pub fn create_file(&self, number: u64) -> io::Result<File> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        open_at(&self.held()?.directory, &file_name(number), flags)
    }

    /// Opens the file of that number.
    pub fn open_file(&self, number: u64) -> io::Result<File> {
        let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        open_at(&self.held()?.directory, &file_name(number), flags)
    }

    /// Deletes the file of that number, if it is there.
    pub fn remove_file(&self, number: u64) -> io::Result<()> {
        let directory = self.held()?.directory.as_raw_fd();
        // SAFETY: the descriptor is open and the name ends with a zero.
        match errno_if(unsafe { libc::unlinkat(directory, file_name(number).as_ptr(), 0) } == -1) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Bytes that the disk below has left.
    pub fn free_space(&self) -> io::Result<u64> {
        free_space(&self.held()?.directory)
    }

    /// The file of that number, for people.
    pub fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(file_name(number).to_string_lossy().as_ref())
    }

    /// The directory, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn held(&self) -> io::Result<&Held> {
        self.held.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Whether no name leads to the file any more.
pub fn is_deleted(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

fn open(path: &Path) -> io::Result<Folder> {
    // Values are the content of files: nobody else gets to read them.
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let path = path.canonicalize()?;
    let open_directory = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let directory = open_directory(&path)?;
    let parent = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Some((open_directory(parent)?, CString::new(name.as_bytes())?)),
        _ => None,
    };
    let held = hold(directory, &path)?;
    Ok(Folder { path, parent, held: Some(held) })
}

/// Takes the lock in a directory, and writes into it who did.
fn hold(directory: File, path: &Path) -> io::Result<Held> {
    let mut file = open_at(&directory, LOCK_NAME, libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW)?;
    let patient_until = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = lock(&file, libc::F_OFD_SETLK, libc::F_WRLCK) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        if Instant::now() >= patient_until {
            return Err(busy_error(&mut file, path));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Only for the message to others: without it they learn less, and that is all.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id()));
    if let Ok(mut tag) = open_at(&directory, TAG_NAME, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL) {
        let _ = tag.write_all(TAG);
    }
    Ok(Held { directory, lock: file })
}

fn name_directory(error: io::Error, path: &Path) -> io::Error {
    match error.kind() {
        io::ErrorKind::ResourceBusy => error,
        kind => io::Error::new(kind, format!("the cache directory {}: {error}", path.display())),
    }
}

fn busy_error(lock: &mut File, path: &Path) -> io::Error {
    let mut text = [0; 32];
    let count = lock.read(&mut text).unwrap_or(0);
    let text = std::str::from_utf8(&text[..count]).unwrap_or("");
    let pid: Option<u32> = text.strip_prefix("pid ").and_then(|rest| rest.trim_end().parse().ok());
    let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    let path = path.display();
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!(
            "the cache directory {path} is used by {who}: give each mount a directory of its own, or wait until that process has ended"
        ),
    )
}

fn foreign_error(mut names: Vec<OsString>) -> io::Error {
    names.sort();
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|name| name.to_string_lossy().into_owned()).collect();
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("it holds what is not part of a cache ({}{more}); name a directory of its own", shown.join(", ")),
    )
}

fn file_name(number: u64) -> CString {
    CString::new(format!("{FILE_PREFIX}{number:016x}{FILE_SUFFIX}")).expect("a name without zeros")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(FILE_PREFIX)?.strip_suffix(FILE_SUFFIX)?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // Numbers go up from what is found: the last ones would have no successor.
    u64::from_str_radix(digits, 16).ok().filter(|number| is_ours && *number <= u64::MAX / 2)
}

fn open_at(directory: &File, name: &CStr, flags: libc::c_int) -> io::Result<File> {
    loop {
        // SAFETY: the descriptor is open and the name ends with a zero.
        let descriptor = unsafe {
            libc::openat(directory.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, 0o600 as libc::c_uint)
        };
        match errno_if(descriptor == -1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            // SAFETY: the descriptor was opened just now and belongs to nobody else.
            Ok(()) => return Ok(unsafe { File::from_raw_fd(descriptor) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_only_in_the_one_form() {
        assert_eq!(file_name(0x2a).as_c_str(), c"kivafs-000000000000002a.cache");
        assert_eq!(number_of("kivafs-000000000000002a.cache"), Some(0x2a));
        for name in ["kivafs-2a.cache", "kivafs-000000000000002A.cache", "kivafs-000000000000002a", "", "kivafs.lock"] {
            assert_eq!(number_of(name), None, "{name}");
        }
        assert_eq!(number_of("kivafs-ffffffffffffffff.cache"), None, "a number without a successor");
    }
}
