//! What is counted and measured, for people and for monitoring.

use super::Core;
use super::cache::CacheFigures;
use super::writer::Writer;
use crate::backend::{DiskCacheStats, Usage};
use std::sync::Arc;
use std::time::Duration;

/// What a bucket is taken to hold where no limit was given.
const BUCKET_BYTES: u64 = 1 << 50;
/// How long the writer lock is waited for. It may be held while a disk finds room for a segment, and a disk
/// may never answer: who asks how things are must not wait for that.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(10);

/// How full a store is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// What the store may come to occupy: what it takes now plus what can still be written.
    pub total: u64,
    /// What its log, its data segments and its reserve take, and what is kept for moving; without what can be gained by
    /// that.
    pub used: u64,
    /// What can still be written.
    pub free: u64,
}

/// What a store did since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Activity {
    /// Commits made.
    pub commits: u64,
    /// Flushes of the disk.
    pub syncs: u64,
    /// Bytes of commits written.
    pub commit_bytes: u64,
    /// Bytes of data segments written.
    pub data_bytes: u64,
    /// Pages and units read from storage (or its disk cache).
    pub reads: u64,
    /// Bytes of these, as stored.
    pub read_bytes: u64,
    /// Bytes of data that the cleaner has moved.
    pub moved_bytes: u64,
}

/// Data segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segments {
    /// How many there are.
    pub count: u64,
    /// Bytes that they take; those of a bucket's segments of which the length is not known, as much as one may have.
    pub bytes: u64,
    /// Those without live bytes: being filled for the first time, or to be freed by the next checkpoint.
    pub dead: u64,
    /// Of these, those that the next checkpoint frees.
    pub freeable: u64,
    /// Bytes of all that are referred to.
    pub live_bytes: u64,
    /// Bytes that hold these: what several copies share counts once.
    pub held_bytes: u64,
}

/// What only the writer knows, as it was when it was last asked.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    segments: Segments,
    changed_bytes: u64,
    /// What the cleaner may gain.
    gainable: u64,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Figures {
    pub activity: Activity,
    pub cache: CacheFigures,
    pub space: Space,
    pub segments: Segments,
    /// Bytes that were accepted and are not stored yet.
    pub unstored_bytes: u64,
    /// Bytes of pages that were changed since the last checkpoint, as they would be stored.
    pub changed_bytes: u64,
    /// Bytes of the log behind the newest checkpoint: what is read when the store is opened after a crash.
    pub tail_bytes: u64,
    /// Bytes of a file's ring that the log goes round in; in a bucket, a number that its bounds follow from.
    pub ring_bytes: u64,
    /// Requests to the bucket; none for a local store.
    pub usage: Option<Usage>,
    /// Of a bucket with a disk cache.
    pub disk_cache: Option<DiskCacheStats>,
    /// Why no more changes are taken (C5), if it has come to that.
    pub failure: Option<Arc<str>>,
}

impl Core {
    pub(super) fn activity(&self) -> Activity {
        let counters = self.log.counters();
        Activity {
            commits: counters.commits.get(),
            syncs: counters.syncs.get(),
            commit_bytes: counters.commit_bytes.get(),
            data_bytes: counters.data_bytes.get(),
            reads: counters.reads.get(),
            read_bytes: counters.read_bytes.get(),
            moved_bytes: self.moved_bytes.get(),
        }
    }

    fn see(&self, writer: &Writer) -> Seen {
        let table = &writer.table;
        let segments = Segments {
            count: table.count(),
            bytes: table.occupied(),
            dead: table.dead(),
            freeable: writer.freeable(),
            live_bytes: table.live(),
            held_bytes: table.held(),
        };
        Seen { segments, changed_bytes: writer.tree.dirty_bytes(), gainable: self.gainable(writer) }
    }

    pub(super) fn look(&self) -> Seen {
        let now = self.writer.try_lock_for(LOCK_WAIT_MAX).map(|writer| self.see(&writer));
        let mut seen = self.seen.lock();
        *seen = now.unwrap_or(*seen);
        *seen
    }

    pub(super) fn space(&self) -> Space {
        self.space_of(self.look())
    }

    fn space_of(&self, Seen { segments, gainable, .. }: Seen) -> Space {
        let Some(disk) = self.log.disk() else {
            let used = segments.held_bytes;
            let total = if self.size_limit > 0 { self.size_limit } else { BUCKET_BYTES };
            return Space { total: total.max(used), used, free: total.saturating_sub(used) };
        };
        let geometry = self.log.geometry();
        let segment_bytes = u64::from(geometry.segment_bytes);
        // Whoever needs these makes a checkpoint.
        let freeable = segments.freeable * segment_bytes;
        let there = self.log.free_bytes(disk.free_space().unwrap_or(0)) + freeable;
        // And the cleaner that, where it has anything to move with.
        let gainable = if there >= segment_bytes { gainable } else { 0 };
        let held = segments.count * segment_bytes - freeable - gainable;
        let free = there + gainable;
        // What fits at last, if twice what is held then is kept, but no more than that (V6).
        let fits = free.saturating_sub(2 * segments.held_bytes) / 3;
        let kept = (free - fits).min(self.log.ready_max() * segment_bytes);
        let used = self.log.overhead_bytes() + held + self.log.reserve_bytes() + kept;
        Space { total: used + free - kept, used, free: free - kept }
    }

    pub(super) fn figures(&self) -> Figures {
        let seen = self.look();
        let Seen { segments, changed_bytes, .. } = seen;
        Figures {
            activity: self.activity(),
            cache: self.cache.figures(),
            space: self.space_of(seen),
            segments,
            unstored_bytes: self.log.in_flight(),
            changed_bytes,
            tail_bytes: self.log.tail_bytes(),
            ring_bytes: self.log.ring_bytes(),
            usage: self.log.bucket().map(|bucket| bucket.usage()),
            disk_cache: self.log.bucket().and_then(|bucket| bucket.cache()).map(|cache| cache.stats()),
            failure: self.log.failure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::store::{CreateOptions, OpenOptions, Store, StoreError, View};

    fn open(disk: &Arc<MemoryDisk>) -> Store {
        let options = OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
        Store::open_on(disk.clone(), &options).unwrap()
    }

    fn read(store: &Store, key: &[u8]) -> Vec<u8> {
        let value = |view: View| -> Result<_, StoreError> { view.read(&[view.get(key)?.expect("it was put")]) };
        store.patiently(|| value(store.view())).unwrap().remove(0).to_vec()
    }

    #[test]
    fn figures_tell_what_was_done() {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = open(&disk);
        let before = store.figures();
        let mut txn = store.begin().unwrap();
        // Of a value that is in no page, and does not compress.
        let long: Vec<u8> =
            (0..60_000_u32).flat_map(|at| crate::log::checksum(&at.to_le_bytes()).to_le_bytes()).take(60_000).collect();
        txn.put(b"short", b"value".to_vec());
        txn.put(b"long", long.clone());
        // While it is under way nobody waits for it.
        assert_eq!(store.figures().changed_bytes, before.changed_bytes);
        txn.commit().unwrap();
        let changed = store.figures();
        assert!(changed.changed_bytes > before.changed_bytes);
        store.sync().unwrap();
        store.checkpoint().unwrap();
        let stored = store.figures();
        assert!(stored.activity.commits > before.activity.commits && stored.activity.syncs > before.activity.syncs);
        assert!(stored.activity.commit_bytes >= before.activity.commit_bytes + 60_000);
        assert!(stored.segments.live_bytes > 60_000 && stored.segments.count >= 1);
        assert_eq!((stored.unstored_bytes, stored.space.used), (0, store.space().used));
        store.close().unwrap();
        drop(store);

        let store = open(&disk);
        let before = store.figures();
        assert_eq!(before.segments.live_bytes, stored.segments.live_bytes);
        for _ in 0..2 {
            assert_eq!((read(&store, b"short"), read(&store, b"long")), (b"value".to_vec(), long.clone()));
        }
        let after = store.figures();
        let reads = after.activity.reads - before.activity.reads;
        assert!(reads >= 1 && after.activity.read_bytes >= before.activity.read_bytes + 60_000, "{after:?}");
        let (units, were) = (after.cache.units, before.cache.units);
        assert_eq!((units.misses - were.misses, units.hits - were.hits, units.count), (1, 2, 1));
        assert!(after.usage.is_none() && after.disk_cache.is_none() && after.failure.is_none());
        store.abandon("given up");
        assert!(store.figures().failure.is_some_and(|why| why.contains("given up")));
    }

    #[test]
    fn space_that_is_set_aside_for_data_is_free() {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = open(&disk);
        disk.set_capacity(disk.occupied_bytes() + (64 << 20));
        let before = store.space();
        let occupied = disk.occupied_bytes();
        // So little that it is not placed before it is committed.
        let mut txn = store.begin().unwrap();
        for number in 0..10_u32 {
            txn.put(&number.to_be_bytes(), vec![number as u8; 60_000]);
        }
        txn.commit().unwrap();
        assert!(disk.occupied_bytes() > occupied, "R7: it is there before it is needed");
        let after = store.space();
        assert!(after.total == before.total && after.free <= before.free, "{before:?} {after:?}");
    }
}
