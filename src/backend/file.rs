//! One local file, locked.
//!
//! # What a reader gets to see (R4)
//!
//! After a failed fdatasync the kernel drops the error with the process that saw it, but keeps the
//! pages, clean: the next process would read from memory what the disk never got, build on it, and
//! lose what it then acknowledges. So [`FileDisk::open`] with [`Hold::Exclusive`] takes the lock and
//! calls fdatasync, and the log drops the cached pages of whatever tells it what is durable
//! ([`Disk::reread`]) before it reads that. A test looks with
//! mincore(2) that they are gone. What is seen to drop them: ext4 (where the tests were run); the
//! code that does it in the kernel is common to xfs, btrfs and overlay. tmpfs has no disk below and
//! keeps its pages; nothing on it survives a power cut anyway. Pages that another process has
//! mapped stay: nobody but us has reason to map a store.
//!
//! # The lock
//!
//! An open file description lock (F_OFD_SETLK) over the whole file. It goes away with the last
//! descriptor, so with the process, however that ends. Other kinds would not do: a POSIX record
//! lock is lost as soon as *any* descriptor of the file is closed in the process (`info` on one's
//! own store), and of a flock(2) nobody can learn whether it is held without taking it, which
//! makes the one who opens at that moment fail. Descriptors are close-on-exec, so that programs we
//! start do not hold the store; a child that forks and never executes anything would.

use super::Disk;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How to hold a file while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// For writing: nobody else has a hold of it.
    Exclusive,
    /// For reading: others may do the same, nobody writes.
    Shared,
    /// For looking at what somebody may be writing just now. Never stands in anybody's way.
    None,
}

/// One regular file. The lock, if any, lasts as long as this value.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    hold: Hold,
}

/// The kernel caches pages in folios, and drops whole ones only: none of one that reaches out of the range that it is
/// told of. They are aligned, and have at most this many pages wherever there are any.
const FOLIO_PAGES_MAX: u64 = 1 << 13;
/// Zeros are written in pieces of this size where the file system has no fallocate(2).
const PIECE_BYTES: usize = 1 << 20;
/// Whether space was found for a block is not asked for less than this.
const BLOCK_BYTES: usize = 4096;

impl FileDisk {
    /// Makes a new file, empty, held exclusively. `AlreadyExists`: something has that name.
    ///
    /// Its bytes are made durable by `sync`, its name by [`FileDisk::sync_name`].
    pub fn create(path: &Path) -> io::Result<FileDisk> {
        // The umask decides who else may read a store, as with every file that a tool makes;
        // others never get to write, since that would be a way around every mode inside.
        let file = open_with(OpenOptions::new().read(true).write(true).create_new(true).mode(0o644), path)?;
        // Somebody who looks at the file while it is still empty holds it for a moment: wait.
        lock(&file, libc::F_OFD_SETLKW, libc::F_WRLCK)?;
        Ok(FileDisk { file, hold: Hold::Exclusive })
    }

    /// Opens a file that is there. `WouldBlock`: others hold it in a way that does not go with
    /// `hold`. Never waits. Files that are not regular ones are refused: `IsADirectory`, or
    /// `InvalidInput` and what it is.
    ///
    /// With [`Hold::Exclusive`] fdatasync is called, so that [`Disk::reread`] can do its work (R4); its error is
    /// returned. The others can only read.
    pub fn open(path: &Path, hold: Hold) -> io::Result<FileDisk> {
        let file = open_with(OpenOptions::new().read(true).write(hold == Hold::Exclusive), path)?;
        refuse_irregular(&file)?;
        match hold {
            Hold::Exclusive => lock(&file, libc::F_OFD_SETLK, libc::F_WRLCK)?,
            Hold::Shared => lock(&file, libc::F_OFD_SETLK, libc::F_RDLCK)?,
            Hold::None => {}
        }
        if hold == Hold::Exclusive {
            // Dirty pages cannot be dropped (`reread`): write them first.
            file.sync_data()?;
        }
        Ok(FileDisk { file, hold })
    }

    /// Makes the file's name survive a power cut.
    pub fn sync_name(path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }

    /// Whether somebody else holds the file exclusively. Asks without taking a lock.
    pub fn is_held_by_other(&self) -> io::Result<bool> {
        let mut question = whole_file(libc::F_RDLCK);
        // SAFETY: the descriptor is open and `question` is a flock that the kernel fills in.
        let answer = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_GETLK, &mut question) };
        errno_if(answer == -1)?;
        Ok(question.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// Bytes of disk that the file occupies; holes occupy none.
    pub fn occupied_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Allocates where there is no fallocate(2): writes zeros over whatever reads as zeros, and
    /// leaves alone what holds other bytes and so has its space.
    fn allocate_by_writing(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = offset;
        while at < end {
            let wanted = PIECE_BYTES.min((end - at) as usize);
            let there = self.len()?.saturating_sub(at).min(wanted as u64) as usize;
            self.read_at(at, &mut piece[..there])?;
            piece[there..wanted].fill(0);
            for (index, block) in piece[..wanted].chunks(BLOCK_BYTES).enumerate() {
                if block.iter().all(|byte| *byte == 0) {
                    self.file.write_all_at(block, at + (index * BLOCK_BYTES) as u64)?;
                }
            }
            at += wanted as u64;
        }
        Ok(())
    }

    /// Makes a range read as zeros where holes cannot be punched. Its space is not given back.
    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; PIECE_BYTES];
        let end = self.len()?.min(offset + length);
        let mut at = offset;
        while at < end {
            let wanted = PIECE_BYTES.min((end - at) as usize);
            self.file.write_all_at(&zeros[..wanted], at)?;
            at += wanted as u64;
        }
        Ok(())
    }
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        // Who only looks leaves the writer's pages alone.
        if self.hold != Hold::Exclusive {
            return Ok(());
        }
        let folio = FOLIO_PAGES_MAX * page_bytes();
        let (first, end) = (offset / folio, (offset + length).div_ceil(folio));
        // No length at all would mean: to the file's end.
        advise(&self.file, first * folio, (end - first).max(1) * folio, libc::POSIX_FADV_DONTNEED)
    }

    fn will_read(&self, offset: u64, length: u64) {
        // Whatever comes of it, `read_at` reads.
        drop(advise(&self.file, offset, length, libc::POSIX_FADV_WILLNEED));
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(full_as_one)
    }

    fn will_sync(&self, offset: u64, length: u64) {
        let (offset, length) = (offset as libc::off64_t, length as libc::off64_t);
        // Without the flags that wait, which would also take an error away from the fdatasync(2) that has to see it.
        // SAFETY: the descriptor is open, and no memory is involved.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let length_before = self.len()?;
        let outcome = match fallocate(&self.file, 0, offset, length) {
            Err(error) if is_unsupported(&error) => self.allocate_by_writing(offset, length),
            outcome => outcome,
        };
        if outcome.is_err() {
            // ext4 keeps what it found before the disk was full; a refused batch must not cost
            // space. Where there were no bytes before there is nothing to lose. (Cutting the file
            // back to its length instead would race with those who make it longer.)
            let start = offset.max(length_before);
            self.punch(start, (offset + length).saturating_sub(start))?;
        }
        outcome.map_err(full_as_one)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            // fallocate(2) refuses it.
            return Ok(());
        }
        match fallocate(&self.file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, length) {
            Err(error) if is_unsupported(&error) => self.write_zeros(offset, length).map_err(full_as_one),
            outcome => outcome,
        }
    }

    fn free_space(&self) -> io::Result<u64> {
        free_space(&self.file)
    }
}

/// Opens without waiting (a FIFO would wait for its other end) and without becoming a terminal's
/// process. std adds O_CLOEXEC.
fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn refuse_irregular(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file"));
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is a device, pipe or socket, not a regular file"));
    }
    Ok(())
}

/// A lock over the whole file, whatever its length becomes.
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

pub(super) fn lock(file: &File, command: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    let request = whole_file(kind);
    loop {
        // SAFETY: the descriptor is open and `request` is a flock that outlives the call.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, &request) };
        match errno_if(answer == -1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // fcntl(2) allows both for "held by another".
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            done => return done,
        }
    }
}

/// fallocate(2), taken up again after signals.
pub(super) fn fallocate(file: &File, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
    let range = (libc::off_t::try_from(offset), libc::off_t::try_from(length));
    let (Ok(offset), Ok(length)) = range else { return Err(io::ErrorKind::StorageFull.into()) };
    loop {
        // SAFETY: the descriptor is open; no memory is handed over.
        let answer = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) };
        match errno_if(answer == -1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Bytes that the file system of this file or directory has left for us.
pub(super) fn free_space(file: &File) -> io::Result<u64> {
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open and `answer` has room for a statvfs.
    errno_if(unsafe { libc::fstatvfs(file.as_raw_fd(), answer.as_mut_ptr()) } == -1)?;
    // SAFETY: fstatvfs succeeded, so it has filled `answer` in.
    let answer = unsafe { answer.assume_init() };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// Bytes of a page of memory.
fn page_bytes() -> u64 {
    // SAFETY: it only asks.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("every system has pages")
}

/// posix_fadvise(2).
fn advise(file: &File, offset: u64, length: u64, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; no memory is handed over.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), offset as libc::off_t, length as libc::off_t, advice) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

pub(super) fn errno_if(failed: bool) -> io::Result<()> {
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// A full disk, a used-up quota and a file at its longest are one thing to the caller: no space.
pub(super) fn full_as_one(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EDQUOT | libc::EFBIG) => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}
