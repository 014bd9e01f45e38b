//! How far it goes: the largest files, the longest names, the deepest and fullest directories.

use crate::place::{Medium, Place, Said, on_each_medium};
use crate::{ends_whole, noise, open, remount};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

on_each_medium!(
    a_file_is_as_long_as_an_offset_can_say,
    a_mapping_reaches_as_far_as_a_file,
    a_limit_on_the_size_of_files_holds,
    names_and_targets_have_their_limits,
    directories_lie_thousands_deep,
    a_directory_has_very_many_entries,
);

fn errno<T>(done: std::io::Result<T>) -> Errno {
    Errno::from_raw(done.map(drop).unwrap_err().raw_os_error().unwrap())
}

fn a_file_is_as_long_as_an_offset_can_say(medium: Medium) {
    const MAX: u64 = i64::MAX as u64;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (written, cut) = (place.dir.join("written"), place.dir.join("cut"));
    let file = open(&written);
    file.write_all_at(b"end", MAX - 3).unwrap();
    // Beyond, the kernel refuses it itself.
    assert_eq!(errno(file.write_at(b"end", MAX - 2)), Errno::EINVAL);
    assert_eq!(errno(file.write_at(b"e", MAX)), Errno::EINVAL);
    open(&cut).set_len(MAX).unwrap();
    drop(file);
    remount(&place, &[]);
    for (path, end) in [(&written, b"end"), (&cut, b"\0\0\0")] {
        let file = open(path);
        assert_eq!(file.metadata().unwrap().len(), MAX);
        assert!(file.metadata().unwrap().blocks() <= 1);
        let mut read = [1; 3];
        file.read_exact_at(&mut read, MAX - 3).unwrap();
        assert_eq!(&read, end);
        file.set_len(5).unwrap();
        file.set_len(MAX).unwrap();
        file.read_exact_at(&mut read, MAX - 3).unwrap();
        assert_eq!(read, [0; 3], "what was cut off does not come back");
    }
    ends_whole(&place);
}

fn a_mapping_reaches_as_far_as_a_file(medium: Medium) {
    const FAR: u64 = 1 << 62;
    const PAGE: usize = 4096;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    let file = open(&path);
    file.write_all_at(b"far away", FAR).unwrap();
    file.set_len(FAR + PAGE as u64).unwrap();
    let (both, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of a page that the file has; only this function uses it.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), PAGE, both, shared, file.as_raw_fd(), FAR as i64);
        assert_ne!(page, libc::MAP_FAILED, "{}", Errno::last());
        let bytes = std::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE);
        assert_eq!(&bytes[..9], b"far away\0");
        bytes[..3].copy_from_slice(b"FAR");
        bytes[PAGE - 1] = b'!';
        assert_eq!(libc::msync(page, PAGE, libc::MS_SYNC), 0);
        assert_eq!(libc::munmap(page, PAGE), 0);
    }
    drop(file);
    remount(&place, &[]);
    let mut read = vec![0; PAGE];
    File::open(&path).unwrap().read_exact_at(&mut read, FAR).unwrap();
    assert_eq!((&read[..8], read[PAGE - 1]), (&b"FAR away"[..], b'!'));
    ends_whole(&place);
}

fn a_limit_on_the_size_of_files_holds(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    for (change, length) in [
        ("head -c 2000 /dev/zero > $0", 1000),
        ("truncate -s 1001 $0", 0),
        ("truncate -s 1000 $0", 1000),
        ("fallocate -l 1001 $0", 0),
        ("fallocate -l 1000 $0", 1000),
    ] {
        std::fs::write(&path, "").unwrap();
        let script = format!("trap '' XFSZ; {change}");
        let done =
            Command::new("prlimit").args(["--fsize=1000", "--", "sh", "-c", &script]).arg(&path).output().unwrap();
        let fits = length == 1000 && !change.starts_with("head");
        assert_eq!(done.status.success(), fits, "{change}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length, "{change}");
    }
    ends_whole(&place);
}

fn names_and_targets_have_their_limits(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let names: [Vec<u8>; 4] =
        [vec![b'n'; 255], vec![0xff; 255], "ä".repeat(127).into_bytes(), "字".repeat(85).into_bytes()];
    for name in &names {
        let path = |more: &[u8]| place.dir.join(OsStr::from_bytes(&[name, more].concat()));
        let (fits, long) = (path(b""), path(b"xx"));
        std::fs::write(&fits, name).unwrap();
        for refused in [
            File::create(&long).map(drop),
            std::fs::create_dir(&long),
            symlink("x", &long),
            std::fs::rename(&fits, &long),
            std::fs::hard_link(&fits, &long),
            std::fs::metadata(&long).map(drop),
            std::fs::remove_file(&long),
        ] {
            assert_eq!(errno(refused), Errno::ENAMETOOLONG);
        }
    }
    let target = "t/".repeat(2048);
    symlink(&target[..4095], place.dir.join("link")).unwrap();
    assert_eq!(errno(symlink(&target, place.dir.join("long"))), Errno::ENAMETOOLONG);
    assert_eq!(errno(symlink("", place.dir.join("empty"))), Errno::ENOENT);
    remount(&place, &[]);
    for name in &names {
        assert_eq!(std::fs::read(place.dir.join(OsStr::from_bytes(name))).unwrap(), *name);
    }
    assert_eq!(std::fs::read_link(place.dir.join("link")).unwrap(), Path::new(&target[..4095]));
    assert_eq!(std::fs::read_dir(&place.dir).unwrap().count(), names.len() + 1);
    ends_whole(&place);
}

/// Goes down that many steps.
fn descend(from: &Path, steps: usize) -> OwnedFd {
    let mut at: OwnedFd = File::open(from).unwrap().into();
    for _ in 0..steps {
        at = openat(&at, "down", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    at
}

fn directories_lie_thousands_deep(medium: Medium) {
    const DEPTH: usize = 4000;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let top = place.dir.join("top");
    std::fs::create_dir(&top).unwrap();
    let mut at: OwnedFd = File::open(&top).unwrap().into();
    for _ in 0..DEPTH {
        mkdirat(&at, "down", Mode::S_IRWXU).unwrap();
        at = openat(&at, "down", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let bottom = openat(&at, "file", OFlag::O_CREAT | OFlag::O_RDWR, Mode::S_IRWXU).unwrap();
    File::from(bottom).write_all(b"bottom").unwrap();
    drop(at);
    // By its whole path it can't be named.
    let path = top.join(vec!["down"; DEPTH].join("/"));
    assert_eq!(errno(File::open(path)), Errno::ENAMETOOLONG);
    remount(&place, &[]);
    let at = descend(&top, DEPTH);
    let mut read = String::new();
    File::from(openat(&at, "file", OFlag::O_RDONLY, Mode::empty()).unwrap()).read_to_string(&mut read).unwrap();
    assert_eq!(read, "bottom");
    drop(at);
    Said(Command::new("rm").arg("-r").arg(&top).output().unwrap()).silently();
    assert_eq!(std::fs::read_dir(&place.dir).unwrap().count(), 0);
    ends_whole(&place);
}

/// An open directory of the C library: of the standard library's nobody can say where it is.
struct Listing(*mut libc::DIR);

impl Listing {
    fn open(path: &Path) -> Listing {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string ends with a NUL, and lives until the call returns.
        let dir = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!dir.is_null(), "{}", Errno::last());
        Listing(dir)
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        // SAFETY: it is open; the entry is valid until the next call.
        unsafe {
            let entry = libc::readdir64(self.0);
            (!entry.is_null()).then(|| CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec())
        }
    }

    fn tell(&mut self) -> libc::c_long {
        // SAFETY: it is open.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&mut self, place: libc::c_long) {
        // SAFETY: it is open, and the place is one that it told.
        unsafe { libc::seekdir(self.0, place) }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more.
        unsafe { libc::closedir(self.0) };
    }
}

/// So many entries: KIVAFS_ENTRIES, or as many as are usual.
fn entries() -> usize {
    match std::env::var("KIVAFS_ENTRIES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("KIVAFS_ENTRIES is not a number: {text:?}")),
        Err(_) => 100_000,
    }
}

fn a_directory_has_very_many_entries(medium: Medium) {
    let count = entries();
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let dir = place.dir.join("dir");
    std::fs::create_dir(&dir).unwrap();
    // In no order that a tree would like.
    let name = |number: usize| format!("{:x}-{number}", number.wrapping_mul(0x9e37_79b9) & 0xffff);
    for number in 0..count {
        File::create_new(dir.join(name(number))).unwrap();
    }
    let complete = || {
        let mut listing = Listing::open(&dir);
        let mut names = BTreeSet::new();
        let mut places = Vec::new();
        loop {
            let place = listing.tell();
            let Some(name) = listing.next() else { break };
            if names.len() % (count / 50 + 1) == 7 {
                places.push((place, name.clone()));
            }
            assert!(names.insert(name), "twice");
        }
        assert_eq!(names.len(), count + 2);
        assert!((0..count).all(|number| names.contains(name(number).as_bytes())));
        // Back to where it was, in another order.
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|at| noise(*at as u64, 8));
        for at in order {
            let (place, name) = &places[at];
            listing.seek(*place);
            assert_eq!(listing.next().as_ref(), Some(name));
        }
    };
    complete();
    assert_eq!(errno(std::fs::remove_dir(&dir)), Errno::ENOTEMPTY);
    remount(&place, &[]);
    complete();
    Said(Command::new("rm").arg("-r").arg(&dir).output().unwrap()).silently();
    assert_eq!(std::fs::read_dir(&place.dir).unwrap().count(), 0);
    ends_whole(&place);
}
