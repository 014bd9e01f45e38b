//! The state under the writer lock.
//!
//! W1 `pending` holds what every transaction since the last freeze did, one entry a key: what the
//! tree has now and the last frozen state had not. While redo is skipped it is empty.
//! W2 A value in the tree that must be placed is in exactly one of `raw` (its change is pending, or
//! without redo) and `settled` (a commit has it).
//! W3 The table's counters are those of the tree in memory (T7): they change with it, in the same
//! critical section.
//! W4 While changes without redo are in the tree, or in the checkpoint under way, no commit takes
//! redo: replayed without them it would be a state that never was (C2).

use super::commit::Waiter;
use super::durable::Held;
use super::pending::{Pending, Taken};
use super::redo;
use super::table::Table;
use crate::log::{SegmentNo, Sequence};
use crate::tree::{Key, Tree, Value};
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Where the work on a checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// None is under way.
    Idle,
    /// The checkpoint thread has been told.
    Wanted,
    /// It is at work.
    Running,
}

/// Changes without redo.
#[derive(Clone, Copy, Debug)]
pub struct Skipped {
    /// When the oldest came.
    pub since: Instant,
    /// Bytes put.
    pub bytes: u64,
}

/// What the writer lock guards.
pub struct Writer {
    pub tree: Tree,
    pub table: Table,
    pub pending: Pending,
    /// Redo bytes of `pending`, raw values apart.
    pub pending_bytes: usize,
    /// Bytes in memory of values that were there before what is pending.
    pub kept_bytes: usize,
    /// When the oldest pending change came.
    pub pending_since: Option<Instant>,
    /// Changes are not noted in `pending`: the next checkpoint is to make them durable.
    pub skips_redo: bool,
    /// When the oldest change without redo came that no frozen tree has. Only while redo is skipped.
    pub skipped_since: Option<Instant>,
    /// The checkpoint under way holds changes without redo.
    pub skipped_in_frozen: Option<Skipped>,
    /// The durable state, while it cannot be told from the current one: while redo is skipped.
    pub held: Option<Held>,
    /// Nobody has asked for durability since the last freeze.
    pub is_quiet: bool,
    /// The last commit that took what was pending.
    pub last_commit: Sequence,
    /// Bytes put since the last freeze, including what was put over.
    pub bytes_since_freeze: u64,
    /// Keys of pending raw values, least recently put first, with the values' lengths.
    pub raw: LruCache<Key, usize>,
    pub raw_bytes: usize,
    /// Keys of raw values that a commit has, with their lengths.
    pub settled: BTreeMap<Key, usize>,
    pub settled_bytes: usize,
    /// A commit is queued and not yet prepared.
    pub commit_queued: bool,
    pub waiters: Vec<Waiter>,
    pub phase: Phase,
    /// Segments without live bytes that the last checkpoint had to leave.
    pub dead_before: u64,
    /// Segments that the log was told to free, and that are still there.
    pub condemned: BTreeSet<SegmentNo>,
    /// Bytes of pages that a checkpoint is writing: they have left the count of changed ones, or
    /// will soon, and their space is still owed.
    pub frozen_bytes: u64,
    /// The last commit found no room in the log.
    pub is_stuck: bool,
    /// How many checkpoints have ended, done or failed.
    pub checkpoints_ended: u64,
    /// After a checkpoint failed, the next is not begun before this.
    pub retry_at: Option<Instant>,
    /// A transaction was refused for lack of space since the last checkpoint.
    pub starved: bool,
    /// The checkpoint under way, or the last one, was begun after that.
    pub relieves: bool,
    /// Somebody who deletes waits for the checkpoint that is wanted or under way.
    pub awaits_relief: bool,
    /// A transaction was refused for the room that is the cleaner's, since the cleaner looked last.
    pub squeezed: bool,
    /// What the last that was refused for lack of space would have added.
    pub refused_bytes: u64,
    /// Somebody who deletes waits for the cleaner.
    pub awaits_cleaner: bool,
    /// How many of its passes were waited for since there was room enough for who deletes: one that frees nothing
    /// counts several times.
    pub vain_passes: u32,
    /// The cleaner has nothing to gain before so many bytes are wasted.
    pub clean_from: u64,
    /// Nor before then, nor before more transactions have begun than these.
    pub clean_after: Option<(Instant, u64)>,
    /// No more transactions.
    pub closing: bool,
    /// No more commits.
    pub closed: bool,
}

impl Writer {
    /// A writer whose tree and table are what recovery found, up to the commit `last`.
    pub fn new(tree: Tree, table: Table, last: Sequence) -> Writer {
        Writer {
            tree,
            table,
            pending: Pending::default(),
            pending_bytes: 0,
            kept_bytes: 0,
            pending_since: None,
            skips_redo: false,
            skipped_since: None,
            skipped_in_frozen: None,
            held: None,
            is_quiet: true,
            last_commit: last,
            bytes_since_freeze: 0,
            raw: LruCache::unbounded(),
            raw_bytes: 0,
            settled: BTreeMap::new(),
            settled_bytes: 0,
            commit_queued: false,
            waiters: Vec::new(),
            phase: Phase::Idle,
            dead_before: 0,
            condemned: BTreeSet::new(),
            frozen_bytes: 0,
            is_stuck: false,
            checkpoints_ended: 0,
            retry_at: None,
            starved: false,
            relieves: false,
            awaits_relief: false,
            squeezed: false,
            refused_bytes: 0,
            awaits_cleaner: false,
            vain_passes: 0,
            clean_from: 0,
            clean_after: None,
            closing: false,
            closed: false,
        }
    }

    /// Notes a change that the tree has taken, and what was there before. Answers by how much the raw
    /// bytes grew or shrank.
    pub fn note(&mut self, key: Key, value: Option<Value>, before: Option<Value>) -> i64 {
        let raw_before = self.raw_bytes as i64;
        self.forget_raw(&key);
        if let Some(value) = &value
            && value.must_be_placed()
        {
            self.raw.put(key.clone(), value.len());
            self.raw_bytes += value.len();
        }
        self.bytes_since_freeze += (key.len() + value.as_ref().map_or(0, Value::len)) as u64;
        if self.skips_redo {
            self.skipped_since.get_or_insert_with(Instant::now);
        } else {
            self.pending_bytes += pending_cost(key.len(), value.as_ref());
            let key_bytes = key.len();
            let kept_bytes = if let Some(Value::Bytes(before)) = &before { before.len() } else { 0 };
            if let Some(before) = self.pending.put(key, value, before) {
                self.pending_bytes -= pending_cost(key_bytes, before.as_ref());
            } else {
                self.kept_bytes += kept_bytes;
            }
            self.pending_since.get_or_insert_with(Instant::now);
        }
        self.raw_bytes as i64 - raw_before
    }

    /// Notes a raw value that recovery found in the redo, or that it is gone.
    pub fn note_recovered(&mut self, key: &Key, value: Option<&Value>) {
        self.forget_raw(key);
        if let Some(value) = value
            && value.must_be_placed()
        {
            self.settled.insert(key.clone(), value.len());
            self.settled_bytes += value.len();
        }
    }

    /// W2: the key's value is about to be another.
    pub fn forget_raw(&mut self, key: &Key) {
        // Mostly there are none, and no key needs to be hashed.
        if !self.raw.is_empty()
            && let Some(length) = self.raw.pop(key)
        {
            self.raw_bytes -= length;
        }
        if let Some(length) = self.settled.remove(key) {
            self.settled_bytes -= length;
        }
    }

    /// Gives up the redo of what is pending, and of what comes: W4.
    pub fn skip_redo(&mut self) {
        self.held.get_or_insert_with(|| Held::of(&self.tree, &self.pending));
        self.skips_redo = true;
        self.skipped_since = oldest(self.skipped_since, self.pending_since.take());
        self.pending.clear();
        self.pending_bytes = 0;
        self.kept_bytes = 0;
    }

    /// The tree has been frozen with its changes without redo. `more`: redo is skipped further on.
    pub fn froze_skipped(&mut self, more: bool) {
        let bytes = std::mem::take(&mut self.bytes_since_freeze);
        self.skipped_in_frozen = self.skipped_since.take().map(|since| Skipped { since, bytes });
        self.skips_redo = more;
        self.is_quiet = self.waiters.is_empty();
    }

    /// What has been frozen without redo is left to the next checkpoint.
    pub fn unfreeze_skipped(&mut self) {
        if let Some(Skipped { since, bytes }) = self.skipped_in_frozen.take() {
            self.skip_redo();
            self.skipped_since = oldest(self.skipped_since, Some(since));
            self.bytes_since_freeze += bytes;
        }
    }

    /// Whether a commit would leave a gap before its redo: W4.
    pub fn has_skipped(&self) -> bool {
        self.skipped_since.is_some() || self.skipped_in_frozen.is_some()
    }

    /// Whether space is wanted back soon: then no checkpoint ends without its commit.
    pub fn is_short_of_space(&self) -> bool {
        self.starved || self.relieves
    }

    /// Dead segments that the next checkpoint can free.
    pub fn freeable(&self) -> u64 {
        self.table.dead().saturating_sub(self.dead_before)
    }

    /// Whether a checkpoint may find dead segments: also those that leaves which are behind do not refer to any
    /// more, once they have caught up.
    pub fn may_free_something(&self) -> bool {
        self.table.dead() > 0 || self.tree.leaves_behind() > 0
    }

    /// Whether the next checkpoint may free segments that the last one did not.
    pub fn may_free_more(&self) -> bool {
        self.freeable() > 0 || self.tree.leaves_behind() > 0
    }

    /// When the oldest change came that nothing on its way to storage has.
    pub fn oldest_change(&self) -> Option<Instant> {
        oldest(self.skipped_since, self.pending_since)
    }

    /// Takes what is pending for a commit. Answers it and the raw bytes in it, which are settled
    /// from now on.
    pub fn freeze(&mut self) -> (Taken, usize) {
        assert!(!self.has_skipped(), "W4: a commit with redo behind changes without");
        let raw = std::mem::take(&mut self.raw_bytes);
        while let Some((key, length)) = self.raw.pop_lru() {
            self.settled.insert(key, length);
        }
        self.settled_bytes += raw;
        self.pending_bytes = 0;
        self.kept_bytes = 0;
        self.pending_since = None;
        self.bytes_since_freeze = 0;
        self.is_quiet = self.waiters.is_empty();
        // Nothing came since redo was skipped for the last time.
        self.skips_redo = false;
        (self.pending.take(), raw)
    }

    /// Whether any value has to be placed before the tree can be stored.
    pub fn has_raw(&self) -> bool {
        !self.raw.is_empty() || !self.settled.is_empty()
    }

    /// Bytes that storage has accepted and will have to find room for: raw values, and pages that
    /// a checkpoint has to write.
    pub fn owed_bytes(&self) -> u64 {
        let pages = self.tree.dirty_bytes() + self.frozen_bytes;
        self.raw_bytes as u64 + self.settled_bytes as u64 + pages + self.table.stored_bytes_max()
    }
}

fn oldest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Redo bytes of a pending change. A raw value counts as the extent that it may become; its bytes
/// are counted apart.
pub fn pending_cost(key_bytes: usize, value: Option<&Value>) -> usize {
    match value {
        Some(value) if value.must_be_placed() => redo::cost(key_bytes, None) + redo::EXTENT_BYTES,
        value => redo::cost(key_bytes, value),
    }
}
