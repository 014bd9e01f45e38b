//! Measures the disk cache: `cargo run --release --example disk_cache [DIR [GIB]]`.
//!
//! Fills a cache in a directory below DIR (default: the current one) with GIB (default 1) of values of
//! 64 KiB, then with as much of 4 KiB, reads them with and without the kernel's copies, and opens the
//! cache again. The same disk's own rates with plain files of 1 MiB writes and 64 KiB reads are
//! measured in the same run.

use bytes::Bytes;
use kivafs::backend::DiskCache;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const STORE: [u8; 16] = [7; 16];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let gib: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let bytes = (gib * f64::from(1 << 30)) as u64;
    measure_disk(&parent.join("disk-cache-figures.plain"), bytes.min(1 << 30))?;
    for length in [64 << 10, 4 << 10] {
        let directory = parent.join("disk-cache-figures");
        let cache = DiskCache::open(&directory, size_for(bytes), STORE)?;
        fill(&cache, "put, as fast as a good network", bytes / length as u64, length, 400_000_000);
        println!("  the kernel keeps copies of {:.0} MiB", in_mib(cached_bytes(&directory)?));
        drop(cache);
        std::fs::remove_dir_all(&directory)?;
        measure(&directory, bytes, length)?;
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

fn measure(directory: &Path, bytes: u64, length: usize) -> std::io::Result<()> {
    let size = size_for(bytes);
    let count = bytes / length as u64;
    println!("{count} values of {} KiB", length >> 10);
    let cache = DiskCache::open(directory, size, STORE)?;
    fill(&cache, "put", count, length, u64::MAX);
    let stats = cache.stats();
    println!("  {} dropped; {:.3} of the disk's bytes are values", stats.dropped, bytes as f64 / stats.bytes as f64);
    println!("  the process has {:.1} MiB of memory", in_mib(resident_bytes()));
    println!("  the kernel keeps copies of {:.0} MiB", in_mib(cached_bytes(directory)?));

    let reads = count.min(100_000);
    let random = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
    for (what, kept) in [("none of them in the kernel's memory", false), ("all of them there", true)] {
        for threads in [1, 4] {
            let start = Instant::now();
            let mut missing = 0;
            if !kept {
                forget(directory)?;
            }
            std::thread::scope(|scope| {
                let readers: Vec<_> = (0..threads)
                    .map(|thread| {
                        let cache = &cache;
                        let reads = (thread..reads).step_by(threads as usize);
                        scope.spawn(move || reads.filter(|read| cache.get(&key(random(*read))).is_none()).count())
                    })
                    .collect();
                missing = readers.into_iter().map(|reader| reader.join().expect("no panic")).sum();
            });
            report(&format!("get at random, {threads} threads, {what}"), reads, length, start.elapsed());
            assert!(missing * 50 < reads as usize, "{missing} of {reads} missing");
        }
    }
    forget(directory)?;
    let start = Instant::now();
    (0..reads).for_each(|number| drop(cache.get(&key(number))));
    report("get in sequence, 1 thread, none of them in the kernel's memory", reads, length, start.elapsed());
    let start = Instant::now();
    (0..reads).for_each(|number| assert!(cache.get(&key(count + number)).is_none()));
    report("get of what is not there", reads, 0, start.elapsed());

    let start = Instant::now();
    drop(cache);
    println!("  close: {:?}", start.elapsed());
    for kept in [false, true] {
        if !kept {
            forget(directory)?;
        }
        let start = Instant::now();
        let cache = DiskCache::open(directory, size, STORE)?;
        let opened = start.elapsed();
        cache.flush();
        let found = cache.stats().values;
        println!("  open again: {opened:?}, and {:?} until all {found} values are found", start.elapsed());
    }
    Ok(())
}

/// Puts values, at most so many bytes in a second.
fn fill(cache: &DiskCache, what: &str, count: u64, length: usize, bytes_per_second: u64) {
    let value = Bytes::from(noise(1 << 20));
    let start = Instant::now();
    for number in 0..count {
        let from = (number as usize * 61) % (value.len() - length);
        cache.put(&key(number), value.slice(from..from + length));
        // A flood would be dropped, not waited for.
        if number % ((8 << 20) / length as u64) == 0 {
            cache.flush();
            let due = Duration::from_secs_f64((number * length as u64) as f64 / bytes_per_second as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    cache.flush();
    report(what, count, length, start.elapsed());
}

/// A cache that holds so many bytes of values: with room for headers, and for what is set aside.
fn size_for(bytes: u64) -> u64 {
    bytes + bytes / 8 + (64 << 20)
}

fn in_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn measure_disk(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let piece = noise(1 << 20);
    let start = Instant::now();
    for at in (0..bytes).step_by(1 << 20) {
        file.write_all_at(&piece, at)?;
    }
    report("plain file: write, in the kernel's memory", bytes >> 20, 1 << 20, start.elapsed());
    file.sync_data()?;
    report("plain file: write, on the disk", bytes >> 20, 1 << 20, start.elapsed());
    forget_file(&file);
    let mut buffer = vec![0; 64 << 10];
    let count = bytes >> 16;
    let start = Instant::now();
    for index in 0..count {
        file.read_exact_at(&mut buffer, index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count * (64 << 10))?;
    }
    report("plain file: read at random", count, 64 << 10, start.elapsed());
    std::fs::remove_file(path)
}

fn report(what: &str, count: u64, length: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let rate = count as f64 / seconds;
    println!(
        "  {what}: {rate:.0}/s, {:.0} MB/s, {:.1} us each",
        rate * length as f64 / 1e6,
        seconds / count as f64 * 1e6
    );
}

fn key(number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn files(directory: &Path) -> std::io::Result<Vec<File>> {
    std::fs::read_dir(directory)?.map(|entry| File::open(entry?.path())).collect()
}

fn forget(directory: &Path) -> std::io::Result<()> {
    files(directory)?.iter().for_each(forget_file);
    Ok(())
}

fn forget_file(file: &File) {
    // Dirty pages stay: write them first.
    let _ = file.sync_data();
    // SAFETY: the descriptor is open; no memory is handed over.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Bytes of the directory's files that are in the kernel's memory.
fn cached_bytes(directory: &Path) -> std::io::Result<u64> {
    let mut cached = 0;
    for file in files(directory)? {
        let length = file.metadata()?.len() as usize;
        if length == 0 {
            continue;
        }
        let mut residency = vec![0_u8; length.div_ceil(4096)];
        // SAFETY: maps a file for reading, asks about exactly this mapping with a byte for each of its
        // pages, and never reads through it.
        unsafe {
            let start =
                libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
            if start != libc::MAP_FAILED {
                libc::mincore(start, length, residency.as_mut_ptr());
                libc::munmap(start, length);
            }
        }
        cached += residency.iter().filter(|page| **page & 1 != 0).count() as u64 * 4096;
    }
    Ok(cached)
}
