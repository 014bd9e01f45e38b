//! What fits, what stays, what goes; a full disk below.

use crate::scratch::Scratch;
use crate::values::{SMALL, cache_files, disk_usage, hits, key, open, open_warm, put};
use kivafs::backend::{DiskCache, DiskCacheStats};
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const UNIT: usize = 64 << 10;
/// Values of 64 KiB that surely fit into the smallest cache.
const FITTING: u64 = SMALL / UNIT as u64 * 9 / 10;

/// Puts so that none is dropped.
fn fill(cache: &DiskCache, numbers: std::ops::Range<u64>, length: usize) {
    for number in numbers {
        put(cache, number, length);
        if number.is_multiple_of(64) {
            cache.flush();
        }
    }
    cache.flush();
}

fn count_hits(cache: &DiskCache, numbers: std::ops::Range<u64>, length: usize) -> u64 {
    numbers.filter(|number| hits(cache, *number, length)).count() as u64
}

#[test]
fn too_small_a_size_is_refused() {
    let scratch = Scratch::new();
    let error = DiskCache::open(&scratch.path("cache"), SMALL - 1, [0; 16]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("64 MiB"), "{error}");
    assert!(!scratch.path("cache").exists());
}

#[test]
fn what_fits_is_warm_after_reopening() {
    for (length, count) in [(UNIT, FITTING), (4 << 10, 13_000), (700, 20_000)] {
        let scratch = Scratch::new();
        let directory = scratch.path("cache");
        let cache = open(&directory, SMALL);
        fill(&cache, 0..count, length);
        let before = count_hits(&cache, 0..count, length);
        assert!(before * 1000 >= count * 999, "{before} of {count} values of {length} bytes");
        let stats = cache.stats();
        assert_eq!((stats.dropped, stats.failed), (0, 0));
        drop(cache);
        for time in 0..3 {
            let cache = open_warm(&directory, SMALL);
            assert_eq!(cache.stats().values, before, "time {time}");
            assert_eq!(count_hits(&cache, 0..count, length), before, "time {time}");
            assert!(disk_usage(&directory) <= SMALL, "time {time}");
        }
    }
}

#[test]
fn the_latest_stay_and_the_oldest_go() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = open(&directory, SMALL);
    let count = 4 * FITTING;
    for number in 0..count {
        put(&cache, number, UNIT);
        cache.flush();
        let used = disk_usage(&directory);
        assert!(used <= SMALL, "{used} bytes after value {number}");
    }
    assert_eq!(count_hits(&cache, count - FITTING * 9 / 10..count, UNIT), FITTING * 9 / 10);
    assert_eq!(count_hits(&cache, 0..count - SMALL / UNIT as u64, UNIT), 0);
    let stats = cache.stats();
    assert!(stats.evicted > 2 * FITTING, "{stats:?}");
    assert_eq!(stats.values + stats.evicted, count);
    assert!(stats.bytes <= SMALL);
}

/// Goes six times through the cache, and now and then uses `used`. Returns how many of them were there
/// each time, at least, and what the cache did.
fn use_while_filling(used: &[u64]) -> (usize, DiskCacheStats) {
    let scratch = Scratch::new();
    let cache = open(&scratch.path("cache"), SMALL);
    let mut least = used.len();
    for number in 0..6 * FITTING {
        put(&cache, number, UNIT);
        let looks = number.is_multiple_of(FITTING / 4) && number >= FITTING / 2;
        if looks || number.is_multiple_of(16) {
            cache.flush();
        }
        if looks {
            least = least.min(used.iter().filter(|number| hits(&cache, **number, UNIT)).count());
        }
    }
    let unused = (0..3 * FITTING).filter(|number| !used.contains(number));
    assert_eq!(unused.filter(|number| hits(&cache, *number, UNIT)).count(), 0, "nobody used them");
    (least, cache.stats())
}

#[test]
fn what_is_used_stays_longer_than_what_is_not() {
    let scattered: Vec<u64> = (0..FITTING / 2).step_by(8).collect();
    let (least, stats) = use_while_filling(&scattered);
    assert_eq!(least, scattered.len(), "{stats:?}");
    assert!((1..10).contains(&(stats.rescued / scattered.len() as u64)), "{stats:?}");
    // All of a file is used: what is new takes some of its room, before it can be rescued.
    let together: Vec<u64> = (0..FITTING / 8).collect();
    let (least, stats) = use_while_filling(&together);
    assert!(least > together.len() / 4, "{least} of {} {stats:?}", together.len());
}

#[test]
fn what_is_new_gets_in_even_if_everything_is_used() {
    let scratch = Scratch::new();
    let cache = open(&scratch.path("cache"), SMALL);
    for number in 0..3 * FITTING {
        put(&cache, number, UNIT);
        cache.flush();
        assert!(hits(&cache, number, UNIT));
    }
    assert!(count_hits(&cache, 2 * FITTING..3 * FITTING, UNIT) > FITTING / 2);
}

#[test]
fn a_value_too_long_is_dropped() {
    let scratch = Scratch::new();
    let cache = open(&scratch.path("cache"), SMALL);
    put(&cache, 1, (1 << 20) + 1);
    put(&cache, 2, 1 << 20);
    cache.flush();
    assert!(!hits(&cache, 1, 0) && hits(&cache, 2, 1 << 20));
    assert_eq!(cache.stats().dropped, 1);
}

#[test]
fn a_flood_is_dropped_and_not_waited_for() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = open(&directory, SMALL);
    let value = crate::values::value_of(0, 1 << 20);
    (0..2000).for_each(|number| cache.put(&key(number), value.clone()));
    cache.flush();
    let stats = cache.stats();
    assert_eq!(stats.stored + stats.dropped, 2000, "{stats:?}");
    assert!(stats.stored > 0 && disk_usage(&directory) <= SMALL);
}

#[test]
fn the_size_can_be_changed() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let sizes = [4 * SMALL, SMALL, 8 * SMALL, 2 * SMALL];
    let mut next = 0;
    for size in sizes {
        let cache = open_warm(&directory, size);
        assert!(disk_usage(&directory) <= size, "opened with {size}");
        let recent = next.min(size * 8 / 10 / UNIT as u64).min(300);
        assert_eq!(count_hits(&cache, next - recent..next, UNIT), recent, "the latest, with {size}");
        fill(&cache, next..next + 2 * FITTING, UNIT);
        next += 2 * FITTING;
        assert!(disk_usage(&directory) <= size, "filled with {size}");
    }
}

/// A tmpfs that goes away with this value. Needs root.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(path: PathBuf, bytes: u64) -> Tmpfs {
        std::fs::create_dir(&path).unwrap();
        let (target, data) = (c_path(&path), CString::new(format!("size={bytes}")).unwrap());
        // SAFETY: all are strings that end with a zero.
        let answer =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, data.as_ptr().cast()) };
        assert!(answer == 0, "cannot mount a tmpfs: {}; run this as root", std::io::Error::last_os_error());
        Tmpfs(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: a string that ends with a zero.
        unsafe { libc::umount2(c_path(&self.0).as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Bytes in use on a file system, deleted files that are open included.
fn bytes_in_use(path: &Path) -> u64 {
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a string that ends with a zero, and room for the answer.
    assert_eq!(unsafe { libc::statvfs(c_path(path).as_ptr(), answer.as_mut_ptr()) }, 0);
    // SAFETY: filled in by the call that succeeded.
    let answer = unsafe { answer.assume_init() };
    (answer.f_blocks - answer.f_bfree) * answer.f_frsize
}

/// Looks without pause at what the whole file system has in use, while several threads read and one
/// writes, so that files are deleted while they are read.
#[test]
fn the_size_holds_at_every_moment() {
    let scratch = Scratch::new();
    let disk = Tmpfs::new(scratch.path("disk"), 4 * SMALL);
    let directory = disk.0.join("cache");
    let cache = open(&directory, SMALL);
    let is_over = AtomicBool::new(false);
    let count = 6 * FITTING;
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (cache, is_over) = (&cache, &is_over);
            scope.spawn(move || {
                let mut random = crate::random::Random::new(reader);
                while !is_over.load(Ordering::Relaxed) {
                    hits(cache, random.within(0..count as usize) as u64, UNIT);
                }
            });
        }
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(bytes_in_use(&disk.0));
            }
            most
        });
        fill(&cache, 0..count, UNIT);
        is_over.store(true, Ordering::Relaxed);
        let most = watcher.join().unwrap();
        println!("at most {most} of {SMALL} bytes in use");
        assert!(most <= SMALL && most > SMALL / 2, "{most} bytes in use");
    });
    assert!(cache.stats().evicted > FITTING);
}

#[test]
fn a_full_disk_ends_storing_and_not_reading() {
    let scratch = Scratch::new();
    let disk = Tmpfs::new(scratch.path("disk"), 3 * SMALL / 4);
    let cache = open(&disk.0.join("cache"), SMALL);
    // Others fill the disk to its last byte.
    let count = FITTING / 4;
    fill(&cache, 0..count, UNIT);
    assert_eq!(count_hits(&cache, 0..count, UNIT), count);
    let junk = disk.0.join("junk");
    let mut file = File::create(&junk).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    let files = cache_files(&disk.0.join("cache")).len();
    fill(&cache, count..2 * count, UNIT);
    let stats = cache.stats();
    assert!(stats.dropped > 0 && stats.failed == 0, "{stats:?}");
    let left = count_hits(&cache, 0..count, UNIT);
    assert!(left >= count * 3 / 5, "only {left} of {count} are left");
    assert!(cache_files(&disk.0.join("cache")).len() + 1 >= files, "at most one file was given for new values");
    drop(file);
    std::fs::remove_file(&junk).unwrap();
    // It tries again after a while.
    let mut number = 1_000_000;
    loop {
        put(&cache, number, UNIT);
        cache.flush();
        if hits(&cache, number, UNIT) {
            break;
        }
        number += 1;
        std::thread::yield_now();
    }
    // With other data on the disk the cache makes do with what is left.
    fill(&cache, 2_000_000..2_000_000 + 2 * FITTING, UNIT);
    assert_eq!(count_hits(&cache, 2_000_000 + 2 * FITTING - FITTING / 4..2_000_000 + 2 * FITTING, UNIT), FITTING / 4);
}
