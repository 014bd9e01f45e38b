//! Ranges of files: fallocate, data and holes, copies that share.

use crate::place::{Medium, Place, on_each_medium};
use crate::{ends_whole, noise, open, remount};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use nix::unistd::{Whence, lseek64};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

on_each_medium!(
    fallocate_in_every_mode,
    fallocate_refuses_what_ext4_refuses,
    what_does_not_fit_is_not_allocated,
    data_and_holes_are_told_apart,
    data_lies_as_far_out_as_an_offset_goes,
    copies_are_right_at_any_offset,
    copies_share_what_is_stored,
);

const KEEP: FallocateFlags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
const ZERO: FallocateFlags = FallocateFlags::FALLOC_FL_ZERO_RANGE;
const PUNCH: FallocateFlags = FallocateFlags::FALLOC_FL_PUNCH_HOLE;

/// The modes that there are: whether the range becomes zeros, and whether the file grows.
fn modes() -> [(FallocateFlags, bool, bool); 5] {
    [
        (FallocateFlags::empty(), false, true),
        (KEEP, false, false),
        (PUNCH | KEEP, true, false),
        (ZERO, true, true),
        (ZERO | KEEP, true, false),
    ]
}

fn fallocate_in_every_mode(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let mut expected = Vec::new();
    // One is part of its directory's entry, the others are in pieces.
    for size in [0, 500, 5000, 300_000] {
        for (mode, clears, grows) in modes() {
            for (offset, length) in [(0, 1), (10, 20), (450, 100), (0, 70_000), (65_536, 65_536), (290_001, 200_000)] {
                let path = place.dir.join(expected.len().to_string());
                let file = open(&path);
                let mut content = noise(expected.len() as u64, size);
                file.write_all_at(&content, 0).unwrap();
                let before = file.metadata().unwrap();
                fallocate(&file, mode, offset as i64, length as i64).unwrap();
                let end = offset + length;
                if clears {
                    content[offset.min(size)..end.min(size)].fill(0);
                }
                if grows && end > size {
                    content.resize(end, 0);
                }
                let after = file.metadata().unwrap();
                assert!((after.mtime(), after.mtime_nsec()) >= (before.mtime(), before.mtime_nsec()));
                // Zeros are not written, except for few that stay in the directory's entry.
                assert!(after.blocks() <= before.blocks() + 2, "{mode:?} {offset} + {length}");
                expected.push((path, content));
            }
        }
    }
    let compare = || {
        for (path, content) in &expected {
            assert!(std::fs::read(path).unwrap() == *content, "{}", path.display());
        }
    };
    compare();
    remount(&place, &[]);
    compare();
    ends_whole(&place);
}

fn fallocate_refuses_what_ext4_refuses(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    let file = open(&path);
    file.write_all_at(b"content", 0).unwrap();
    for (mode, ..) in modes() {
        for (offset, length, errno) in [
            (0, 0, Errno::EINVAL),
            (-1, 5, Errno::EINVAL),
            (5, -1, Errno::EINVAL),
            (i64::MAX, 1, Errno::EFBIG),
            (1 << 62, 1 << 62, Errno::EFBIG),
        ] {
            assert_eq!(fallocate(&file, mode, offset, length), Err(errno), "{mode:?} {offset} + {length}");
        }
        let only_read = File::open(&path).unwrap();
        assert_eq!(fallocate(&only_read, mode, 0, 1), Err(Errno::EBADF));
        let dir = File::open(&place.dir).unwrap();
        assert!(fallocate(&dir, mode, 0, 1).is_err());
    }
    for mode in [
        FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateFlags::FALLOC_FL_INSERT_RANGE,
        FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
        PUNCH,
    ] {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::EOPNOTSUPP), "{mode:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    drop(file);
    ends_whole(&place);
}

/// All that is promised: what could not be written now is refused.
fn what_does_not_fit_is_not_allocated(medium: Medium) {
    let place = Place::bare(medium);
    place.on_store("create", &["--size", "128M"]).silently();
    place.mount(&[]).silently();
    let file = open(&place.dir.join("file"));
    for mode in [FallocateFlags::empty(), KEEP] {
        assert_eq!(fallocate(&file, mode, 0, 1 << 30), Err(Errno::ENOSPC), "{mode:?}");
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
    // A range of zeros takes no space, however long.
    fallocate(&file, ZERO, 0, 1 << 40).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 40);
    drop(file);
    ends_whole(&place);
}

fn data(file: &File, offset: i64) -> Result<i64, Errno> {
    lseek64(file, offset, Whence::SeekData)
}

fn hole(file: &File, offset: i64) -> Result<i64, Errno> {
    lseek64(file, offset, Whence::SeekHole)
}

fn data_and_holes_are_told_apart(medium: Medium) {
    const UNIT: i64 = 65_536;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (small, large) = (place.dir.join("small"), place.dir.join("large"));
    std::fs::write(&small, "content").unwrap();
    let file = open(&large);
    file.write_all_at(&vec![b'd'; 16 * UNIT as usize], 0).unwrap();
    fallocate(&file, PUNCH | KEEP, 2 * UNIT, 3 * UNIT).unwrap();
    fallocate(&file, ZERO, 8 * UNIT, UNIT).unwrap();
    file.set_len(20 * UNIT as u64).unwrap();
    drop(file);
    for round in 0..2 {
        let file = File::open(&small).unwrap();
        assert_eq!((data(&file, 0), data(&file, 6), hole(&file, 0)), (Ok(0), Ok(6), Ok(7)));
        for offset in [-1, 7, 8, i64::MAX] {
            assert_eq!((data(&file, offset), hole(&file, offset)), (Err(Errno::ENXIO), Err(Errno::ENXIO)), "{offset}");
        }
        drop(file);
        let file = File::open(&large).unwrap();
        let mut edges = Vec::new();
        let mut at = 0;
        while let Ok(start) = data(&file, at) {
            at = hole(&file, start).unwrap();
            edges.push((start / UNIT, at / UNIT));
            assert_eq!((start % UNIT, at % UNIT), (0, 0));
        }
        assert_eq!(edges, [(0, 2), (5, 8), (9, 16)], "round {round}");
        assert_eq!((data(&file, 16 * UNIT), hole(&file, 16 * UNIT + 5)), (Err(Errno::ENXIO), Ok(16 * UNIT + 5)));
        assert_eq!((hole(&file, 20 * UNIT - 1), hole(&file, 20 * UNIT)), (Ok(20 * UNIT - 1), Err(Errno::ENXIO)));
        drop(file);
        remount(&place, &[]);
    }
    ends_whole(&place);
}

fn data_lies_as_far_out_as_an_offset_goes(medium: Medium) {
    const FAR: i64 = 1 << 62;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("far");
    open(&path).write_all_at(b"far", FAR as u64).unwrap();
    remount(&place, &[]);
    let file = open(&path);
    assert_eq!((data(&file, 0), hole(&file, 0), hole(&file, FAR)), (Ok(FAR), Ok(0), Ok(FAR + 3)));
    fallocate(&file, PUNCH | KEEP, FAR, 2).unwrap();
    assert_eq!(data(&file, 0), Ok(FAR + 2));
    fallocate(&file, PUNCH | KEEP, 0, i64::MAX).unwrap();
    assert_eq!((data(&file, 0), file.metadata().unwrap().blocks()), (Err(Errno::ENXIO), 0));
    drop(file);
    ends_whole(&place);
}

fn copy_file_range(from: &File, from_at: i64, to: &File, to_at: i64, length: usize) -> nix::Result<usize> {
    let (mut from_at, mut to_at) = (from_at, to_at);
    // SAFETY: both offsets live until the call returns.
    let copied =
        unsafe { libc::copy_file_range(from.as_raw_fd(), &raw mut from_at, to.as_raw_fd(), &raw mut to_at, length, 0) };
    Errno::result(copied).map(|copied| copied as usize)
}

/// Copies all of a range, as programs do: each call may do less.
fn copy(from: &File, from_at: i64, to: &File, to_at: i64, length: usize) {
    let mut done = 0;
    while done < length {
        let at = done as i64;
        let copied = copy_file_range(from, from_at + at, to, to_at + at, length - done).unwrap();
        assert!(copied > 0, "{done} bytes were copied");
        done += copied;
    }
}

fn copies_are_right_at_any_offset(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let content = noise(1, 500_000);
    let source = open(&place.dir.join("source"));
    source.write_all_at(&content, 0).unwrap();
    let mut expected = Vec::new();
    for round in 0..2 {
        for (from, to, length) in
            [(0, 0, 500_000), (1, 3, 70_000), (65_535, 65_537, 131_073), (400_000, 7, 300), (499_999, 1_000_000, 1)]
        {
            let path = place.dir.join(expected.len().to_string());
            let target = open(&path);
            let mut there = noise(2, if round == 0 { 0 } else { 400_000 });
            target.write_all_at(&there, 0).unwrap();
            copy(&source, from as i64, &target, to as i64, length);
            there.resize(there.len().max(to + length), 0);
            there[to..to + length].copy_from_slice(&content[from..from + length]);
            expected.push((path, there));
        }
        // The second time what is copied is stored already.
        source.sync_all().unwrap();
    }
    // Within one file, and what is refused there.
    let mut whole = content.clone();
    copy(&source, 0, &source, 500_000, 1000);
    copy(&source, 10, &source, 20_000, 10_000);
    whole.extend_from_within(..1000);
    whole.copy_within(10..10_010, 20_000);
    expected.push((place.dir.join("source"), whole));
    let once = |from, to, length| copy_file_range(&source, from, &source, to, length);
    assert_eq!([once(0, 99, 100), once(50, 0, 51), once(7, 7, 1)], [Err(Errno::EINVAL); 3], "they overlap");
    assert_eq!([once(501_000, 0, 10), once(1 << 40, 0, 10)], [Ok(0); 2], "nothing is there");
    assert_eq!(once(0, i64::MAX, 1), Err(Errno::EFBIG));
    drop(source);
    let compare = || {
        for (path, content) in &expected {
            assert!(std::fs::read(path).unwrap() == *content, "{}", path.display());
        }
    };
    compare();
    remount(&place, &[]);
    compare();
    ends_whole(&place);
}

const MIB: u64 = 1 << 20;
/// What is copied.
const SHARED: u64 = 256 * MIB;

/// What a process has written so far, to whatever.
fn written(place: &Place) -> u64 {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", place.server().unwrap())).unwrap();
    counters.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn used(dir: &Path) -> u64 {
    let full = nix::sys::statvfs::statvfs(dir).unwrap();
    (full.blocks() - full.blocks_free()) * full.fragment_size()
}

fn sync(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// Compares a file with that noise, a MiB at a time.
fn is_noise(path: &Path) {
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SHARED);
    let mut part = vec![0; MIB as usize];
    for number in 0..SHARED / MIB {
        file.read_exact_at(&mut part, number * MIB).unwrap();
        assert!(part == noise(number, MIB as usize), "{}: MiB {number}", path.display());
    }
}

fn copies_share_what_is_stored(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let dir = place.dir.clone();
    let path = |name: &str| dir.join(name);
    let file = open(&path("one"));
    for number in 0..SHARED / MIB {
        file.write_all_at(&noise(number, MIB as usize), number * MIB).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let (written_before, used_before) = (written(&place), used(&dir));
    copy(&File::open(path("one")).unwrap(), 0, &open(&path("two")), 0, SHARED as usize);
    let cp = |words: &[&str]| Command::new("cp").args(words).args([path("one"), path("three")]).output().unwrap();
    // FUSE does not pass on the ioctl that clones; cp then copies ranges, which shares as well.
    let refused = cp(&["--reflink=always"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("not supported"));
    assert!(cp(&["--reflink=auto"]).status.success());
    sync(&dir);
    let (copying, taken) = (written(&place) - written_before, used(&dir).saturating_sub(used_before));
    // The last few MiB lie in commits only when copying begins: each copy takes them as bytes, which
    // a commit may hold before they are stored. In a bucket what is shared counts twice as far as its
    // segment is not full.
    assert!(copying < SHARED / 4 && taken < SHARED / 4, "{copying} bytes written, {taken} taken");
    for name in ["one", "two", "three"] {
        assert_eq!(std::fs::metadata(path(name)).unwrap().blocks(), SHARED / 512);
    }
    is_noise(&path("two"));
    is_noise(&path("three"));
    // What one loses, the others keep.
    std::fs::remove_file(path("one")).unwrap();
    open(&path("two")).write_all_at(&[0; 100_000], 0).unwrap();
    sync(&dir);
    remount(&place, &[]);
    is_noise(&path("three"));
    let two = File::open(path("two")).unwrap();
    let mut part = vec![1; 100_000];
    two.read_exact_at(&mut part, 0).unwrap();
    assert!(part.iter().all(|byte| *byte == 0));
    drop(two);
    ends_whole(&place);
    // And with the last the space is free.
    place.mount(&[]).silently();
    std::fs::remove_file(path("two")).unwrap();
    std::fs::remove_file(path("three")).unwrap();
    crate::place::until("the space is free", || {
        sync(&dir);
        used(&dir) < SHARED / 4
    });
    ends_whole(&place);
}
