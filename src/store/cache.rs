//! The page cache: decoded pages and units of data, bounded in bytes.
//!
//! Two groups, each sharded by address: pages get three quarters of the memory, units one quarter,
//! so that reading a big file through does not push the tree out. Each shard forgets what was used
//! least recently.

use crate::log::Pointer;
use crate::tree::{Node, Pages, TreeError};
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::Arc;

const SHARDS: usize = 8;
/// The least that a shard may hold: what one operation needs at once must stay until it is asked
/// for again.
const SHARD_BYTES_MIN: usize = 512 << 10;

/// The cache of a store.
pub struct Cache {
    pages: Group<Arc<Node>>,
    units: Group<Bytes>,
}

struct Group<T> {
    shards: Vec<Mutex<Shard<T>>>,
    shard_bytes: usize,
}

struct Shard<T> {
    entries: LruCache<Pointer, (T, usize)>,
    bytes: usize,
}

impl<T: Clone> Group<T> {
    fn new(bytes: u64) -> Group<T> {
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded(), bytes: 0 });
        let shard_bytes = (bytes as usize / SHARDS).max(SHARD_BYTES_MIN);
        Group { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes }
    }

    fn shard(&self, at: &Pointer) -> &Mutex<Shard<T>> {
        // The checksum is as good as a random number.
        &self.shards[at.checksum as usize % SHARDS]
    }

    fn get(&self, at: &Pointer) -> Option<T> {
        self.shard(at).lock().entries.get(at).map(|(entry, _)| entry.clone())
    }

    fn put(&self, at: Pointer, entry: T, bytes: usize) {
        let mut shard = self.shard(&at).lock();
        if let Some((_, old)) = shard.entries.put(at, (entry, bytes)) {
            shard.bytes -= old;
        }
        shard.bytes += bytes;
        while shard.bytes > self.shard_bytes && shard.entries.len() > 1 {
            let (_, (_, old)) = shard.entries.pop_lru().expect("more than one entry");
            shard.bytes -= old;
        }
    }
}

impl Cache {
    /// A cache of about that many bytes.
    pub fn new(bytes: u64) -> Cache {
        Cache { pages: Group::new(bytes / 4 * 3), units: Group::new(bytes / 4) }
    }

    /// Keeps a page.
    pub fn put_page(&self, at: Pointer, page: Arc<Node>) {
        let bytes = page.memory_bytes();
        self.pages.put(at, page, bytes);
    }

    /// Keeps a unit.
    pub fn put_unit(&self, at: Pointer, unit: Bytes) {
        let bytes = unit.len() + 128;
        self.units.put(at, unit, bytes);
    }

    /// The unit, if it is here.
    pub fn unit(&self, at: &Pointer) -> Option<Bytes> {
        self.units.get(at)
    }
}

impl Pages for Cache {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        self.pages.get(at).ok_or_else(|| TreeError::Miss(vec![*at]))
    }
}
