//! Reading what is not in memory: how often storage is asked, and for how much.

use bytes::Bytes;
use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{AsMiss, CreateOptions, OpenOptions, Store};
use kivafs_mount::fs::*;
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const USER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A disk that counts what is read.
#[derive(Default)]
struct Counting {
    disk: MemoryDisk,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Disk for Counting {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.disk.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.reread(offset, length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space()
    }
}

/// A file system of which nothing is in memory.
struct Cold {
    disk: Arc<Counting>,
    fs: FileSystem,
    /// How often somebody had to wait.
    rounds: Cell<u64>,
}

impl Cold {
    /// `fill` makes what is in it.
    fn with(fill: impl FnOnce(&FileSystem)) -> Cold {
        let disk = Arc::new(Counting::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = Arc::new(Store::open_on(disk.clone(), &OpenOptions::default()).unwrap());
        let fs = FileSystem::open(store.clone(), coarse_now).unwrap();
        fill(&fs);
        store.checkpoint().unwrap();
        store.close().unwrap();
        drop((fs, store));
        let store = Arc::new(Store::open_on(disk.clone(), &OpenOptions::default()).unwrap());
        let cold = Cold { disk, fs: FileSystem::open(store, coarse_now).unwrap(), rounds: Cell::new(0) };
        cold.take_counts();
        cold
    }

    fn call<T>(&self, mut operation: impl FnMut(&FileSystem) -> Result<T>) -> Result<T> {
        loop {
            match operation(&self.fs) {
                Err(error) => match error.as_miss() {
                    Some(miss) => {
                        self.rounds.set(self.rounds.get() + 1);
                        self.fs.store().fetch(miss)?;
                    }
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// Reads and bytes since the last time.
    fn take_counts(&self) -> (u64, u64) {
        (self.disk.reads.swap(0, Ordering::Relaxed), self.disk.bytes.swap(0, Ordering::Relaxed))
    }

    fn open(&self, name: &[u8]) -> Ino {
        let ino = self.call(|fs| fs.lookup(ROOT, name)).unwrap().ino;
        self.call(|fs| fs.open_file(ino)).unwrap();
        ino
    }

    /// Nothing is on its way any more.
    fn settle(self) -> Arc<Counting> {
        self.fs.store().close().unwrap();
        self.disk
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    (0..length.div_ceil(4)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

fn write_file(fs: &FileSystem, name: &[u8], content: Vec<u8>) {
    let ino = fs.create(USER, ROOT, name, 0o644, IfExists::Fail).unwrap().ino;
    let content = Bytes::from(content);
    for offset in (0..content.len()).step_by(MIB as usize) {
        fs.store().wait_for_room();
        let part = content.slice(offset..content.len().min(offset + MIB as usize));
        let write = || fs.write(ino, WriteAt::Offset(offset as u64), &part, false);
        assert_eq!(fs.store().patiently(write).unwrap(), part.len());
    }
    fs.release(ino);
}

#[test]
fn a_file_read_in_order_is_read_from_storage_once_and_in_large_pieces() {
    const SIZE: u64 = 48 * MIB;
    let content = noise(1, SIZE as usize);
    let cold = Cold::with(|fs| write_file(fs, b"file", content.clone()));
    let ino = cold.open(b"file");
    cold.take_counts();
    for offset in (0..SIZE).step_by(128 << 10) {
        let read = cold.call(|fs| fs.read(ino, offset, 128 << 10)).unwrap().concat();
        assert!(read == content[offset as usize..][..128 << 10]);
    }
    let (reads, bytes) = cold.take_counts();
    println!("{reads} reads of {} KiB on average", bytes / reads / KIB);
    assert!(bytes < SIZE + SIZE / 20, "{bytes} bytes of a file of {SIZE}");
    assert!(reads < SIZE / (384 * KIB), "{reads} reads");
    cold.settle();
}

#[test]
fn reads_at_random_read_what_they_need() {
    const SIZE: u64 = 48 * MIB;
    let content = noise(2, SIZE as usize);
    let cold = Cold::with(|fs| write_file(fs, b"file", content.clone()));
    let ino = cold.open(b"file");
    cold.take_counts();
    let mut state = 1_u64;
    for _ in 0..1000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let offset = (state >> 30) % (SIZE / 4096) * 4096;
        let read = cold.call(|fs| fs.read(ino, offset, 4096)).unwrap().concat();
        assert!(read == content[offset as usize..][..4096]);
    }
    let disk = cold.settle();
    let bytes = disk.bytes.load(Ordering::Relaxed);
    // Units of 64 KiB, pages, and what closing reads.
    assert!(bytes < 1000 * 80 * KIB, "{bytes} bytes for 1000 reads");
}

#[test]
fn a_small_file_comes_with_its_first_read() {
    const SIZE: usize = 700 << 10;
    let content = noise(3, SIZE);
    let cold = Cold::with(|fs| write_file(fs, b"file", content.clone()));
    let ino = cold.open(b"file");
    cold.take_counts();
    let read = cold.call(|fs| fs.read(ino, 0, 4096)).unwrap().concat();
    assert!(read == content[..4096]);
    let rounds = cold.rounds.get();
    let read = cold.call(|fs| fs.read(ino, 4096, SIZE)).unwrap().concat();
    assert!(read == content[4096..]);
    assert_eq!(cold.rounds.get(), rounds, "all of it was there");
    let (reads, _) = cold.take_counts();
    assert!(reads <= 8, "{reads} reads");
}

/// Files whose records lie beside their names, and such whose do not.
fn many_files(lengths: &[usize], count: usize) -> Cold {
    Cold::with(|fs| {
        for number in 0..count {
            let name = format!("file-{number:06}");
            let ino =
                fs.store().patiently(|| fs.create(USER, ROOT, name.as_bytes(), 0o644, IfExists::Fail)).unwrap().ino;
            let content = Bytes::from(noise(number as u64, lengths[number % lengths.len()]));
            fs.store().patiently(|| fs.write(ino, WriteAt::Offset(0), &content, false)).unwrap();
            fs.release(ino);
            fs.forget(ino, 1);
        }
    })
}

fn list(cold: &Cold, plus: bool, each: &mut dyn FnMut(&DirEntry<'_>)) -> u64 {
    let before = cold.rounds.get();
    let handle = cold.call(|fs| fs.opendir(ROOT)).unwrap();
    let mut offset = 0;
    loop {
        let mut entries = 0;
        let from = offset;
        cold.call(|fs| {
            fs.readdir(handle, from, plus, &mut |entry| {
                each(entry);
                entries += 1;
                offset = entry.next;
                true
            })
        })
        .unwrap();
        if entries == 0 {
            break;
        }
    }
    cold.fs.releasedir(handle);
    cold.rounds.get() - before
}

#[test]
fn a_large_directory_is_listed_in_few_rounds() {
    const FILES: usize = 30_000;
    let cold = many_files(&[20, 1500], FILES);
    let mut names = 0;
    let rounds = list(&cold, false, &mut |_| names += 1);
    let (reads, _) = cold.take_counts();
    println!("names: {rounds} rounds, {reads} reads");
    assert_eq!(names, FILES + 2);
    assert!(rounds < 25, "{rounds} rounds");
    let cold = many_files(&[20, 1500], FILES);
    let mut bytes = 0;
    let rounds = list(&cold, true, &mut |entry| bytes += entry.attr.map_or(0, |attr| attr.size));
    let (reads, _) = cold.take_counts();
    println!("attributes: {rounds} rounds, {reads} reads");
    assert!(bytes > FILES as u64 * 750);
    assert!(rounds < 50, "{rounds} rounds");
}

#[test]
fn looking_up_one_name_after_the_other_takes_few_rounds() {
    const FILES: usize = 20_000;
    let cold = many_files(&[1500], FILES);
    for number in 0..FILES {
        let attr = cold.call(|fs| fs.lookup(ROOT, format!("file-{number:06}").as_bytes())).unwrap();
        assert_eq!(attr.size, 1500);
    }
    println!("{} rounds", cold.rounds.get());
    assert!(cold.rounds.get() < 50, "{} rounds", cold.rounds.get());
}
