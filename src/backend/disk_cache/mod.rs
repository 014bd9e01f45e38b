//! Values that came from afar, kept on the local disk: a cache that may be lost at any time.
//!
//! Files, in reading order: `format` (what the files hold), `index` (where each value lies, in
//! memory), `folder` (the directory and its lock), `shelf` (one file), `stock` (all files and their
//! size), `queue` (what waits to be stored), `writer` (the thread that stores).
//!
//! # Contract
//!
//! * **Values.** A key stands for one value for ever: whoever puts says so. A `get` answers with the
//!   bytes that were put under that key in this store, or with nothing. What is damaged, gone or
//!   cannot be read is a miss; nothing here is ever an error to those above, or stops them.
//! * **Concurrency.** Any number of threads may call anything. `put` never waits. `get` waits for the
//!   local disk, and for nothing else: no lock is held during a read, and nothing of the writer's.
//! * **Durability.** None is asked for: no fsync(2) ever. What the kernel got to write before a power
//!   cut is found again, the rest is not. After the death of the process everything that was stored
//!   is found.
//! * **Size.** Never more than was said, by what `du` says, at any moment; a size that was
//!   lowered holds soon after opening. The directory is locked: two mounts never share one.
//! * **Deletion.** All of it or parts may be deleted at any time, also while it is used; within ten
//!   seconds its space is free.
//!
//! # Memory
//!
//! The index takes 8 bytes a value at best, and about 10 when it is as full as it gets without
//! loss (`index`). It gets 1/256 of the cache's size, so room for a value for each 2 KiB, but at most
//! 32 MiB: 4.2 million values, of which the last tenth may lose some. A cache of 100 GiB full of
//! 64 KiB values has 1.6 million of them and fills 40 % of that; so all sizes up to 230 GiB are
//! fully used then, or up to 14 GiB with values of 4 KiB. Beyond that the disk holds more
//! than the index can name, and the oldest values that were not used are forgotten early.
//! Besides: at most 16 MiB of values that wait to be stored (if they are slices of larger buffers, those
//! stay in memory as long), and 4 MiB while writing.
//!
//! # Which values stay
//!
//! First in, first out, by whole files, of which there are 64 (fewer below 256 MiB); a value that
//! was used since it was stored is stored once more instead of being deleted (`writer`).
//!
//! # The kernel's copies
//!
//! What is written is also in the memory of the one who put it. So the kernel is told to write
//! it out soon and to forget it then: otherwise filling the cache would push everything else out of
//! memory. Of what is read, the kernel may keep copies as it likes; they cost it nothing.

mod folder;
mod format;
mod index;
mod queue;
mod shelf;
mod stock;
mod writer;

use bytes::Bytes;
use folder::Folder;
use format::VALUE_BYTES_MAX;
use index::{FILES, Index};
use parking_lot::RwLock;
use queue::Queue;
use shelf::{Shelf, Wrong};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use stock::Stock;
use tracing::warn;
use writer::Writer;

/// What a value is kept under.
type Key = [u8; 32];

/// The least size of a cache, in bytes.
const BYTES_MIN: u64 = 64 << 20;
/// The most that a cache makes use of, in bytes.
const BYTES_MAX: u64 = 1 << 40;
/// The index gets this part of the cache's size,
const BYTES_PER_INDEX_BYTE: u64 = 256;
/// but at most so much memory.
const INDEX_BYTES_MAX: u64 = 32 << 20;
/// How long a writer that hangs on its disk is waited for at the end.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// A cache of values in a directory. The contract is in the module's docs.
pub struct DiskCache {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What a cache did since it was opened, and what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCacheStats {
    /// Values that were asked for and there.
    pub hits: u64,
    /// Bytes of these values.
    pub hit_bytes: u64,
    /// Values that were asked for and not there.
    pub misses: u64,
    /// Values that were stored, those that were rescued included.
    pub stored: u64,
    /// Bytes written for them.
    pub stored_bytes: u64,
    /// Values that were put but not stored: too many at once, or the disk was full or failed.
    pub dropped: u64,
    /// Values that were deleted to make room.
    pub evicted: u64,
    /// Values that were stored again, since they were used, when their file had to go.
    pub rescued: u64,
    /// Reads that found damaged bytes, or an I/O error.
    pub failed: u64,
    /// Values that are there.
    pub values: u64,
    /// Bytes of disk that the cache's files take.
    pub bytes: u64,
}

/// What all threads share.
struct Shared {
    index: Index,
    /// The files, by their number modulo [`FILES`].
    shelves: Vec<RwLock<Option<Arc<Shelf>>>>,
    queue: Queue,
    counters: Counters,
    /// Bytes of disk that are counted for files, deleted ones that are still open included.
    occupied: Arc<AtomicU64>,
    /// That something was unreadable was said.
    has_warned: AtomicBool,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    hit_bytes: AtomicU64,
    misses: AtomicU64,
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    dropped: AtomicU64,
    evicted: AtomicU64,
    rescued: AtomicU64,
    failed: AtomicU64,
}

impl DiskCache {
    /// Opens the cache in a directory, which is made if there is none, for the store of that id.
    /// What an earlier run left there for the same store is found again, in the background; what it
    /// left for another one is deleted.
    ///
    /// `bytes_max` is what the directory may take, at least 64 MiB; beyond 1 TiB no more is used.
    ///
    /// Errors are whole sentences. `ResourceBusy`: another process uses the directory (if that is
    /// just ending, up to a second was waited for it). `InvalidInput`: the size is too small, or
    /// the directory holds things that are not the cache's.
    pub fn open(directory: &Path, bytes_max: u64, store: [u8; 16]) -> io::Result<DiskCache> {
        if bytes_max < BYTES_MIN {
            let text =
                format!("a disk cache of {bytes_max} bytes is too small: it takes at least {BYTES_MIN} (64 MiB)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let folder = Folder::open(directory)?;
        let index_bytes = (bytes_max / BYTES_PER_INDEX_BYTE).min(INDEX_BYTES_MAX);
        let shared = Arc::new(Shared {
            index: Index::new(index_bytes as usize),
            shelves: (0..FILES).map(|_| RwLock::default()).collect(),
            queue: Queue::default(),
            counters: Counters::default(),
            occupied: Arc::default(),
            has_warned: AtomicBool::new(false),
        });
        // Everything that takes time is the writer's affair.
        let found = folder.numbers()?;
        let stock = Stock::new(folder, store, bytes_max.min(BYTES_MAX));
        let writer = Writer::new(shared.clone(), stock);
        let writer = std::thread::Builder::new().name("disk-cache".into()).spawn(move || writer.run(found))?;
        Ok(DiskCache { shared, writer: Some(writer) })
    }

    /// The value of that key, if it is there.
    pub fn get(&self, key: &[u8; 32]) -> Option<Bytes> {
        let counters = &self.shared.counters;
        let value = self.shared.read(key);
        match &value {
            Some(value) => {
                counters.hits.fetch_add(1, Ordering::Relaxed);
                counters.hit_bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
            }
            None => {
                counters.misses.fetch_add(1, Ordering::Relaxed);
            }
        }
        value
    }

    /// Has a value stored, some time soon or not at all. Values of more than 1 MiB never are.
    pub fn put(&self, key: &[u8; 32], value: Bytes) {
        if value.len() > VALUE_BYTES_MAX || !self.shared.queue.put(*key, value) {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything put so far is stored or dropped, until everything that an earlier
    /// run left is found, and until files that somebody deleted are forgotten.
    pub fn flush(&self) {
        self.shared.queue.flush();
    }

    /// What the cache did and has.
    pub fn stats(&self) -> DiskCacheStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCacheStats {
            hits: read(&counters.hits),
            hit_bytes: read(&counters.hit_bytes),
            misses: read(&counters.misses),
            stored: read(&counters.stored),
            stored_bytes: read(&counters.stored_bytes),
            dropped: read(&counters.dropped),
            evicted: read(&counters.evicted),
            rescued: read(&counters.rescued),
            failed: read(&counters.failed),
            values: self.shared.index.occupied() as u64,
            bytes: read(&self.shared.occupied),
        }
    }
}

impl Drop for DiskCache {
    /// Stores what waits, for a quarter of a second at most, and lets go of the directory.
    fn drop(&mut self) {
        if self.shared.queue.stop(END_PATIENCE) {
            if let Some(writer) = self.writer.take() {
                // It has said that it ends; its panic, if any, has been reported.
                let _ = writer.join();
            }
        } else {
            warn!("the disk below the cache does not answer: left to itself");
        }
    }
}

impl Shared {
    fn shelf(&self, id: u8) -> &RwLock<Option<Arc<Shelf>>> {
        &self.shelves[usize::from(id)]
    }

    fn read(&self, key: &Key) -> Option<Bytes> {
        for slot in self.index.find(self.index.hash(key)) {
            // Else the file was deleted just now.
            let Some(shelf) = self.shelf(slot.place().file).read().clone() else { continue };
            match shelf.read(slot.place(), Some(key)) {
                Ok(Some((_, value))) => {
                    self.index.mark(slot);
                    return Some(value);
                }
                Ok(None) => {}
                Err(wrong) => {
                    self.index.remove(slot);
                    self.tell(&shelf, wrong);
                }
            }
        }
        None
    }

    /// Whether that key has a value, as far as its header tells. It counts as used then.
    fn is_stored(&self, key: &Key) -> bool {
        let mut slots = self.index.find(self.index.hash(key));
        slots.any(|slot| {
            let shelf = self.shelf(slot.place().file).read().clone();
            let is_it = shelf.is_some_and(|shelf| shelf.has_key(slot.place().unit, key));
            if is_it {
                self.index.mark(slot);
            }
            is_it
        })
    }

    fn tell(&self, shelf: &Shelf, wrong: Wrong) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let number = shelf.number;
        match wrong {
            Wrong::Io(error) => warn!("disk cache, file {number:016x}: {error}; such values count as misses"),
            Wrong::Damaged => warn!("disk cache, file {number:016x}: damaged bytes; such values count as misses"),
        }
    }
}
