//! What is counted and measured, for people and for monitoring.

use super::Core;
use super::cache::CacheFigures;
use super::table::Table;
use crate::backend::{DiskCacheStats, Usage};
use std::sync::Arc;

/// What a bucket is taken to hold where no limit was given.
const BUCKET_BYTES: u64 = 1 << 50;

/// How full a store is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// What the store may come to occupy: what it takes now plus what can still be written.
    pub total: u64,
    /// What its log and its data segments take.
    pub used: u64,
    /// What can still be written.
    pub free: u64,
}

/// What a store did since it was opened.
#[derive(Clone, Copy, Debug, Default)]
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
}

/// Data segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segments {
    /// How many there are.
    pub count: u64,
    /// Those without live bytes: being filled for the first time, or to be freed by the next checkpoint.
    pub dead: u64,
    /// Bytes of all that are referred to.
    pub live_bytes: u64,
}

impl Segments {
    pub(super) fn of(table: &Table) -> Segments {
        Segments { count: table.count(), dead: table.dead(), live_bytes: table.live() }
    }
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
        }
    }

    pub(super) fn space(&self, segments: Segments) -> Space {
        let Some(disk) = self.log.disk() else {
            let used = segments.live_bytes;
            let total = if self.size_limit > 0 { self.size_limit } else { BUCKET_BYTES };
            return Space { total: total.max(used), used, free: total.saturating_sub(used) };
        };
        let geometry = self.log.geometry();
        let used = geometry.slots_offset() + segments.count * u64::from(geometry.segment_bytes);
        let free = disk.free_space().unwrap_or(0).min(self.log.unallocated_bytes());
        Space { total: used + free, used, free }
    }

    pub(super) fn figures(&self) -> Figures {
        let (segments, changed_bytes) = {
            let writer = self.writer.lock();
            (Segments::of(&writer.table), writer.tree.dirty_bytes())
        };
        Figures {
            activity: self.activity(),
            cache: self.cache.figures(),
            space: self.space(segments),
            segments,
            unstored_bytes: self.log.in_flight(),
            changed_bytes,
            usage: self.log.bucket().map(|bucket| bucket.usage()),
            disk_cache: self.log.bucket().and_then(|bucket| bucket.cache()).map(|cache| cache.stats()),
            failure: self.log.failure(),
        }
    }
}
