//! Keys, the one value of each, and what a directory takes.

use crate::random::Random;
use bytes::Bytes;
use kivafs::backend::DiskCache;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The least size of a cache.
pub const SMALL: u64 = 64 << 20;
pub const STORE: [u8; 16] = *b"the test's store";

pub fn open(directory: &Path, bytes_max: u64) -> DiskCache {
    DiskCache::open(directory, bytes_max, STORE).unwrap()
}

/// An open cache that has found what was there.
pub fn open_warm(directory: &Path, bytes_max: u64) -> DiskCache {
    let cache = open(directory, bytes_max);
    cache.flush();
    cache
}

/// The key of that number.
pub fn key(number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    let mut random = Random::new(number);
    key.chunks_mut(8).for_each(|piece| piece.copy_from_slice(&random.next().to_le_bytes()));
    key
}

/// The value of that number's key, of so many bytes.
pub fn value_of(number: u64, length: usize) -> Bytes {
    let mut random = Random::new(!number);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

/// Puts that number's value.
pub fn put(cache: &DiskCache, number: u64, length: usize) {
    cache.put(&key(number), value_of(number, length));
}

/// Whether that number's value is there. If so, it must be right.
#[track_caller]
pub fn hits(cache: &DiskCache, number: u64, length: usize) -> bool {
    let found = cache.get(&key(number));
    if let Some(found) = &found {
        assert!(*found == value_of(number, length), "wrong bytes for {number}");
    }
    found.is_some()
}

/// Bytes of disk that a directory takes, as `du` counts them.
pub fn disk_usage(directory: &Path) -> u64 {
    let own = std::fs::metadata(directory).map_or(0, |metadata| metadata.blocks() * 512);
    let Ok(entries) = std::fs::read_dir(directory) else { return own };
    // What goes away while one looks takes nothing.
    let entries = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    own + entries.map(|metadata| metadata.blocks() * 512).sum::<u64>()
}

/// The cache's files in a directory, in order.
pub fn cache_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "cache")).collect();
    files.sort();
    files
}
