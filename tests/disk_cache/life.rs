//! Locks, other stores, foreign files, deletion under a running cache, many threads.

use crate::random::Random;
use crate::scratch::Scratch;
use crate::values::{SMALL, STORE, cache_files, disk_usage, hits, key, open, open_warm, put};
use kivafs::backend::DiskCache;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const LENGTH: usize = 10_000;

fn error_of(directory: &Path) -> std::io::Error {
    DiskCache::open(directory, SMALL, STORE).err().expect("an error")
}

fn filled(directory: &Path, count: u64) -> DiskCache {
    let cache = open_warm(directory, SMALL);
    (0..count).for_each(|number| put(&cache, number, LENGTH));
    cache.flush();
    assert_eq!(found(&cache, count), count);
    cache
}

fn found(cache: &DiskCache, count: u64) -> u64 {
    (0..count).filter(|number| hits(cache, *number, LENGTH)).count() as u64
}

#[test]
fn one_directory_serves_one_cache() {
    let scratch = Scratch::new();
    let directory = scratch.path("deep/down/cache");
    let cache = filled(&directory, 10);
    let error = error_of(&directory);
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    let text = error.to_string();
    let pid = format!("process {}", std::process::id());
    assert!(text.contains(&pid) && text.contains("deep/down/cache") && text.contains("directory of its own"), "{text}");
    assert_eq!(found(&cache, 10), 10);
    drop(cache);
    assert_eq!(found(&open_warm(&directory, SMALL), 10), 10);
}

#[test]
fn nobody_else_can_read_what_is_cached() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    drop(filled(&directory, 1));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&directory), 0);
    assert_eq!(mode(&cache_files(&directory)[0]), 0);
    assert!(std::fs::read(directory.join("CACHEDIR.TAG")).unwrap().starts_with(b"Signature: 8a477f597d28d172"));
}

#[test]
fn another_store_finds_nothing_and_takes_its_place() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    drop(filled(&directory, 100));
    let other = DiskCache::open(&directory, SMALL, *b"another one's id").unwrap();
    other.flush();
    assert_eq!(found(&other, 100), 0);
    assert_eq!(cache_files(&directory).len(), 0, "of no use to anybody");
    drop(other);
    assert_eq!(found(&open_warm(&directory, SMALL), 100), 0);
}

#[test]
fn a_directory_of_other_things_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let directory = scratch.path("home");
    std::fs::create_dir(&directory).unwrap();
    for name in ["thesis.txt", "photos", "kivafs-1.cache", "a", "b"] {
        std::fs::write(directory.join(name), "precious").unwrap();
    }
    std::fs::create_dir(directory.join("lost+found")).unwrap();
    let error = error_of(&directory);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("a, b, kivafs-1.cache and 2 more") && text.contains(directory.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read(directory.join("thesis.txt")).unwrap(), b"precious");

    for name in ["thesis.txt", "photos", "kivafs-1.cache", "a", "b"] {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    open(&directory, SMALL);
    std::fs::write(scratch.path("file-instead"), "").unwrap();
    assert_eq!(error_of(&scratch.path("file-instead")).kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_foreign_file_with_our_name_is_left_alone_and_counted() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    std::fs::create_dir(&directory).unwrap();
    let foreign = directory.join("kivafs-0000000000000007.cache");
    std::fs::write(&foreign, vec![b'x'; 20 << 20]).unwrap();
    let empty = directory.join("kivafs-0000000000000005.cache");
    std::fs::write(&empty, "").unwrap();
    let cache = open_warm(&directory, SMALL);
    assert!(!empty.exists(), "what a power cut left");
    for number in 0..2 * SMALL / 60_000 {
        put(&cache, number, 60_000);
        cache.flush();
        let used = disk_usage(&directory);
        assert!(used <= SMALL, "{used}");
    }
    drop(cache);
    assert_eq!(std::fs::metadata(&foreign).unwrap().len(), 20 << 20);
    assert!(cache_files(&directory).iter().any(|path| *path > foreign), "numbers go on behind it");
    assert!(hits(&open_warm(&directory, SMALL), 2 * SMALL / 60_000 - 1, 60_000));
}

#[test]
fn a_deleted_directory_is_made_anew() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = filled(&directory, 100);
    for _ in 0..2 {
        std::fs::remove_dir_all(&directory).unwrap();
        cache.flush();
        assert_eq!(cache.stats().bytes, 0, "its space is given back");
        assert_eq!((found(&cache, 100), cache.stats().values), (0, 0));
        (0..100).for_each(|number| put(&cache, number, LENGTH));
        cache.flush();
        assert_eq!(found(&cache, 100), 100);
        assert!(disk_usage(&directory) > 0);
        assert_eq!(error_of(&directory).kind(), ErrorKind::ResourceBusy, "and locked");
    }
    drop(cache);
    assert_eq!(found(&open_warm(&directory, SMALL), 100), 100);
}

#[test]
fn a_directory_that_cannot_be_made_anew_ends_the_cache_quietly() {
    let scratch = Scratch::new();
    let cache = filled(&scratch.path("parent/cache"), 100);
    std::fs::remove_dir_all(scratch.path("parent")).unwrap();
    for _ in 0..3 {
        cache.flush();
        assert_eq!(found(&cache, 100), 0);
        (0..100).for_each(|number| put(&cache, number, LENGTH));
    }
    cache.flush();
    let stats = cache.stats();
    assert_eq!((found(&cache, 100), stats.dropped, stats.bytes), (0, 300, 0));
}

#[test]
fn files_may_be_deleted_one_by_one() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = filled(&directory, 1500);
    let mut before = 1500;
    let mut files = cache_files(&directory);
    assert!(files.len() >= 3);
    // The one that is appended to, then the others.
    while let Some(path) = files.pop() {
        std::fs::remove_file(path).unwrap();
        cache.flush();
        let now = found(&cache, 1500);
        assert!(now < before, "{now} values, {before} before");
        before = now;
    }
    assert_eq!((before, cache.stats().bytes, cache.stats().failed), (0, 0, 0));
    put(&cache, 0, LENGTH);
    cache.flush();
    assert_eq!(found(&cache, 1500), 1);
    assert_eq!(cache.stats().dropped, 0);
}

#[test]
fn a_deleted_lock_is_taken_anew() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = filled(&directory, 100);
    std::fs::remove_file(directory.join("kivafs.lock")).unwrap();
    cache.flush();
    assert_eq!(error_of(&directory).kind(), ErrorKind::ResourceBusy);
    put(&cache, 100, LENGTH);
    cache.flush();
    assert!(hits(&cache, 100, LENGTH));
}

#[test]
fn files_cut_short_under_a_running_cache_are_misses() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = filled(&directory, 600);
    for path in cache_files(&directory) {
        std::fs::File::options().write(true).open(path).unwrap().set_len(100_000).unwrap();
    }
    let left = found(&cache, 600);
    assert!((9..100).contains(&left), "{left}");
    assert_eq!(cache.stats().failed, 600 - left);
    (0..600).for_each(|number| put(&cache, number, LENGTH));
    cache.flush();
    assert_eq!(found(&cache, 600), 600);
}

/// Sets or clears what makes a file refuse all writes. Needs root, and a file system that has this.
fn set_immutable(path: &Path, immutable: bool) {
    const FS_IMMUTABLE_FL: libc::c_long = 0x10;
    let file = std::fs::File::open(path).unwrap();
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open, and the flags are of the type that both calls take.
    let done = unsafe {
        libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) == 0 && {
            flags = if immutable { flags | FS_IMMUTABLE_FL } else { flags & !FS_IMMUTABLE_FL };
            libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags) == 0
        }
    };
    let error = std::io::Error::last_os_error();
    assert!(
        done,
        "cannot make {} immutable, or end that: {error}; run this as root, on ext4 or the like",
        path.display()
    );
}

#[test]
fn a_failing_write_ends_storing_for_a_while() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = filled(&directory, 100);
    let [path] = &cache_files(&directory)[..] else { panic!("one file") };
    set_immutable(path, true);
    (100..200).for_each(|number| put(&cache, number, LENGTH));
    cache.flush();
    (200..300).for_each(|number| put(&cache, number, LENGTH));
    cache.flush();
    let (found_meanwhile, stats) = (found(&cache, 300), cache.stats());
    // Before anything can fail: an immutable file cannot be cleared away.
    set_immutable(path, false);
    assert_eq!((found_meanwhile, stats.dropped, stats.failed), (100, 200, 0), "what is there is served");
    while !hits(&cache, 300, LENGTH) {
        put(&cache, 300, LENGTH);
        cache.flush();
    }
    put(&cache, 301, LENGTH);
    drop(cache);
    let cache = open_warm(&directory, SMALL);
    assert_eq!(found(&cache, 300), 100);
    assert!(hits(&cache, 300, LENGTH) && hits(&cache, 301, LENGTH));
    assert_eq!(cache_files(&directory).len(), 1, "the same file went on");
}

#[test]
fn many_threads_get_right_bytes_or_none() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = open(&directory, SMALL);
    let length = |number: u64| 1 + (number as usize * 7919) % 60_000;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let cache = &cache;
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for _ in 0..3000 {
                    // The cache holds less than all of them.
                    let number = random.within(0..4000) as u64;
                    if !hits(cache, number, length(number)) {
                        put(cache, number, length(number));
                    }
                    if random.one_in(40) {
                        cache.flush();
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.failed, 0, "{stats:?}");
    assert!(stats.hits > 1000 && stats.evicted > 0, "{stats:?}");
    assert_eq!(stats.hits + stats.misses, 8 * 3000);
    assert!(disk_usage(&directory) <= SMALL);
}

#[test]
fn the_last_values_before_closing_are_found_again() {
    let scratch = Scratch::new();
    let directory = scratch.path("cache");
    let cache = open(&directory, SMALL);
    put(&cache, 7, LENGTH);
    drop(cache);
    assert!(hits(&open_warm(&directory, SMALL), 7, LENGTH));
    assert!(cache_files(&directory).len() == 1 && key(7) != key(8));
}
