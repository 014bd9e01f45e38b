//! A file, and what it should hold.

use crate::mapping::Mapping;
use crate::op::Way;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// A file, and what it should hold.
pub struct Twin {
    path: PathBuf,
    expected: Vec<u8>,
    plain: File,
    direct: File,
    append: File,
    durable: File,
}

/// While nothing of it is open.
pub struct Closed {
    path: PathBuf,
    expected: Vec<u8>,
}

type Done = Result<(), String>;

impl Twin {
    /// A new, empty one.
    pub fn new(path: PathBuf) -> Twin {
        File::create_new(&path).unwrap();
        Closed { path, expected: Vec::new() }.open()
    }

    pub fn close(self) -> Closed {
        Closed { path: self.path, expected: self.expected }
    }

    pub fn reopen(&mut self) -> Done {
        let closed = Closed { path: self.path.clone(), expected: std::mem::take(&mut self.expected) };
        *self = closed.open();
        Ok(())
    }

    pub fn length(&self) -> usize {
        self.expected.len()
    }

    pub fn read(&self, way: Way, range: &Range<usize>) -> Done {
        let expected = &self.expected[range.start.min(self.length())..range.end.min(self.length())];
        if way == Way::Map || way == Way::MapSync {
            let mut mapping = told("mmap", Mapping::new(&self.plain, range.start, range.len()))?;
            compare(range.start, mapping.bytes(), expected)?;
            if range.end == self.length() && mapping.rest_of_page().iter().any(|byte| *byte != 0) {
                return Err("what a mapping shows beyond the end is not zero".into());
            }
            return Ok(());
        }
        let file = self.file(way);
        let mut found = vec![0xee; range.len()];
        let mut read = 0;
        while read < found.len() {
            match told("pread", file.read_at(&mut found[read..], (range.start + read) as u64))? {
                0 => break,
                more => read += more,
            }
        }
        compare(range.start, &found[..read], expected)
    }

    /// A mapping only reaches to the file's end: that is moved first.
    pub fn write(&mut self, way: Way, offset: usize, bytes: &[u8]) -> Done {
        let end = offset + bytes.len();
        if matches!(way, Way::Map | Way::MapSync) {
            if end > self.length() {
                self.set_length(end)?;
            }
            let mut mapping = told("mmap", Mapping::new(&self.plain, offset, bytes.len()))?;
            mapping.bytes().copy_from_slice(bytes);
            if way == Way::MapSync {
                told("msync", mapping.sync())?;
            }
        } else {
            told("pwrite", self.file(way).write_all_at(bytes, offset as u64))?;
        }
        self.reach(end);
        self.expected[offset..end].copy_from_slice(bytes);
        self.compare_length()
    }

    pub fn append(&mut self, bytes: &[u8]) -> Done {
        told("write with O_APPEND", self.append.write_all(bytes))?;
        self.expected.extend_from_slice(bytes);
        self.compare_length()
    }

    pub fn set_length(&mut self, length: usize) -> Done {
        told("ftruncate", self.plain.set_len(length as u64))?;
        self.expected.resize(length, 0);
        self.compare_length()
    }

    pub fn allocate(&mut self, flags: i32, range: &Range<usize>) -> Done {
        let (offset, length) = (range.start as libc::off_t, range.len() as libc::off_t);
        // SAFETY: only numbers.
        let result = unsafe { libc::fallocate(self.plain.as_raw_fd(), flags, offset, length) };
        told("fallocate", if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })?;
        if flags & libc::FALLOC_FL_KEEP_SIZE == 0 {
            self.reach(range.end);
        }
        if flags & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            let length = self.length();
            self.expected[range.start.min(length)..range.end.min(length)].fill(0);
        }
        self.compare_length()
    }

    /// The ranges are within the first file, and do not overlap.
    pub fn copy(twins: &mut [Twin; 2], from: usize, range: &Range<usize>, to: usize, offset: usize) -> Done {
        let mut copied = 0;
        while copied < range.len() {
            let mut read_at = (range.start + copied) as libc::off64_t;
            let mut write_at = (offset + copied) as libc::off64_t;
            let (source, target) = (twins[from].plain.as_raw_fd(), twins[to].plain.as_raw_fd());
            let length = range.len() - copied;
            // SAFETY: the two places of offsets live as long as the call.
            let result = unsafe { libc::copy_file_range(source, &mut read_at, target, &mut write_at, length, 0) };
            match result {
                0 => return Err(format!("copy_file_range ended after {copied} bytes")),
                -1 => return Err(format!("copy_file_range: {}", io::Error::last_os_error())),
                more => copied += more as usize,
            }
        }
        let bytes = twins[from].expected[range.clone()].to_vec();
        let target = &mut twins[to];
        target.reach(offset + copied);
        target.expected[offset..offset + copied].copy_from_slice(&bytes);
        target.compare_length()
    }

    pub fn sync(&self) -> Done {
        told("fsync", self.plain.sync_all())
    }

    pub fn data_sync(&self) -> Done {
        told("fdatasync", self.plain.sync_data())
    }

    /// What the kernel has of it is written and dropped.
    pub fn forget(&self) -> Done {
        self.data_sync()?;
        // SAFETY: only numbers.
        let result = unsafe { libc::posix_fadvise(self.plain.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(format!("posix_fadvise: {}", io::Error::from_raw_os_error(result))) }
    }

    /// What is said to be a hole must be zero.
    pub fn holes(&self) -> Done {
        let mut at = 0;
        while at < self.length() {
            let data = self.seek(at, libc::SEEK_DATA)?.unwrap_or(self.length());
            if self.expected[at..data].iter().any(|byte| *byte != 0) {
                return Err(format!("SEEK_DATA says that there is a hole at {at}..{data}"));
            }
            if data == self.length() {
                break;
            }
            at = self.seek(data, libc::SEEK_HOLE)?.ok_or("SEEK_HOLE does not know the end")?;
            if at <= data || at > self.length() {
                return Err(format!("SEEK_HOLE from {data} on says {at}"));
            }
        }
        Ok(())
    }

    /// `None`: there is none.
    fn seek(&self, from: usize, whence: i32) -> Result<Option<usize>, String> {
        // SAFETY: only numbers.
        match unsafe { libc::lseek64(self.plain.as_raw_fd(), from as libc::off64_t, whence) } {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                error => Err(format!("lseek: {error}")),
            },
            found => Ok(Some(found as usize)),
        }
    }

    /// All of it.
    pub fn compare_all(&self) -> Done {
        self.compare_length()?;
        self.read(Way::Call, &(0..self.length()))?;
        self.holes()
    }

    fn compare_length(&self) -> Done {
        let found = told("fstat", self.plain.metadata())?.len();
        if found == self.length() as u64 { Ok(()) } else { Err(format!("{found} bytes, not {}", self.length())) }
    }

    fn reach(&mut self, end: usize) {
        let length = self.length().max(end);
        self.expected.resize(length, 0);
    }

    fn file(&self, way: Way) -> &File {
        match way {
            Way::Direct => &self.direct,
            Way::Durable => &self.durable,
            Way::Call | Way::Map | Way::MapSync => &self.plain,
        }
    }
}

impl Closed {
    pub fn open(self) -> Twin {
        let with = |flags: i32| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags).open(&self.path).unwrap()
        };
        let [plain, direct, append, durable] = [0, libc::O_DIRECT, libc::O_APPEND, libc::O_DSYNC].map(with);
        Twin { path: self.path, expected: self.expected, plain, direct, append, durable }
    }
}

fn told<T>(call: &str, done: io::Result<T>) -> Result<T, String> {
    done.map_err(|error| match error.kind() {
        ErrorKind::WriteZero => format!("{call}: nothing was taken"),
        _ => format!("{call}: {error}"),
    })
}

fn compare(start: usize, found: &[u8], expected: &[u8]) -> Done {
    if found == expected {
        return Ok(());
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => Err(format!("byte {} is {:#x}, not {:#x}", start + at, found[at], expected[at])),
        None => Err(format!("{} bytes from {start} on, not {}", found.len(), expected.len())),
    }
}
