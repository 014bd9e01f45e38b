//! getdents with small buffers, and what one listing must show.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of what the kernel writes before a name.
const HEAD: usize = 19;
/// The smallest buffer that every name of the test fits into.
const BUFFER_MIN: usize = 64;
const BUFFER_MAX: usize = 8192;

/// One entry of a listing.
pub struct Entry {
    pub name: Vec<u8>,
    ino: u64,
    kind: u8,
}

/// A directory with entries that last, by their names: what they are.
pub struct Lasting {
    pub path: PathBuf,
    entries: BTreeMap<Vec<u8>, (u64, u8)>,
}

impl Lasting {
    /// Regular files, directories and symlinks.
    pub fn make(path: PathBuf, entries: usize, random: &mut Random) -> Lasting {
        fs::create_dir(&path).unwrap();
        let mut lasting = BTreeMap::new();
        for number in 0..entries {
            // They come between the others in any order of names.
            let name = format!("{:08x} lasts {number}", random.next() as u32);
            let at = path.join(&name);
            let kind = match random.within(0..12) {
                0 => fs::create_dir(&at).map(|()| libc::DT_DIR),
                1 => std::os::unix::fs::symlink(&name, &at).map(|()| libc::DT_LNK),
                2 => fs::write(&at, [7; 2000]).map(|()| libc::DT_REG),
                _ => File::create_new(&at).map(|_| libc::DT_REG),
            };
            lasting.insert(name.into_bytes(), (fs::symlink_metadata(&at).unwrap().ino(), kind.unwrap()));
        }
        Lasting { path, entries: lasting }
    }

    pub fn names(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.entries.keys().cloned().chain([b".".to_vec(), b"..".to_vec()])
    }

    /// All that last, and no name twice.
    pub fn check(&self, listing: &[Entry]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for entry in listing {
            let shown = String::from_utf8_lossy(&entry.name);
            if !seen.insert(entry.name.as_slice()) {
                return Err(format!("{shown} is listed twice"));
            }
            match self.entries.get(&entry.name) {
                Some(is) if *is != (entry.ino, entry.kind) => {
                    return Err(format!("{shown} is {:?}, not {is:?}", (entry.ino, entry.kind)));
                }
                _ => {}
            }
        }
        match self.names().find(|name| !seen.contains(name.as_slice())) {
            Some(missing) => {
                Err(format!("{} is missing among {} entries", String::from_utf8_lossy(&missing), listing.len()))
            }
            None => Ok(()),
        }
    }
}

/// For so long, and longer, a listing may go back: offsets last as long as the state that they are of.
const RETURNS_MAX: Duration = Duration::from_secs(20);

/// Lists a directory, by buffers of one size. Now and then it goes back to an entry from before, and on
/// from there: what had come after that comes again.
pub fn list(path: &Path, random: &mut Random) -> Vec<Entry> {
    let (dir, since) = (File::open(path).unwrap(), Instant::now());
    let size = BUFFER_MIN << random.within(0..(BUFFER_MAX / BUFFER_MIN).ilog2() as usize + 1);
    let mut buffer = vec![0u64; size / 8];
    // Each with where to go on after it.
    let mut found: Vec<(Entry, i64)> = Vec::new();
    let mut returns = random.within(0..4);
    loop {
        // SAFETY: the buffer is as long as is said.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), size) };
        assert!(read >= 0, "getdents64: {}", std::io::Error::last_os_error());
        if read == 0 {
            return found.into_iter().map(|(entry, _)| entry).collect();
        }
        // SAFETY: the buffer is longer than what was read into it.
        let mut rest = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), read as usize) };
        while !rest.is_empty() {
            let number = |at: usize| u64::from_ne_bytes(*rest[at..].first_chunk().unwrap());
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[HEAD..length].split(|byte| *byte == 0).next().unwrap().to_vec();
            found.push((Entry { name, ino: number(0), kind: rest[18] }, number(8) as i64));
            rest = &rest[length..];
        }
        if returns > 0 && random.one_in(20) && since.elapsed() < RETURNS_MAX {
            returns -= 1;
            found.truncate(random.within(0..found.len()) + 1);
            let to = found.last().unwrap().1;
            // SAFETY: only numbers.
            let at = unsafe { libc::lseek64(dir.as_raw_fd(), to, libc::SEEK_SET) };
            assert_eq!(at, to, "lseek: {}", std::io::Error::last_os_error());
        }
    }
}
