//! Changing the store: one transaction at a time.

use super::batch::Batch;
use super::cache::Current;
use super::clean::VAIN_PASSES_MAX;
use super::redo;
use super::table::Deltas;
use super::writer::{Phase, Writer, pending_cost};
use super::{Core, Room, StoreError};
use crate::log::{Birth, LogError, Need, Pointer, SegmentNo};
use crate::tree::{Direction, KEY_MAX, Ledger, Pages, Root, Tree, TreeError, VALUE_MAX, Value};
use bytes::Bytes;
use parking_lot::MutexGuard;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the lock may be waited for by who must not wait for storage. It is held for microseconds,
/// except where a local disk is slow to find space for a segment.
pub const LOCK_WAIT_MAX: Duration = Duration::from_millis(10);

/// Bytes of values that changes which are not durable have replaced. A commit under way has as many.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// How long the cleaner is waited for before it is looked whether that is still of use.
const CLEANING_WAIT: Duration = Duration::from_secs(1);

/// Most bytes of keys and values in one transaction.
pub const TXN_BYTES_MAX: usize = 5 << 18;

/// A transaction: reads the newest state and its own changes.
pub struct Txn<'a> {
    core: &'a Arc<Core>,
    writer: MutexGuard<'a, Writer>,
    changes: Batch,
    need: Need,
    /// It is the cleaner's.
    moves: bool,
}

impl<'a> Txn<'a> {
    /// Waits for room, if need be.
    pub(super) fn begin(core: &'a Arc<Core>) -> Result<Txn<'a>, StoreError> {
        core.check_writable()?;
        let writer = core.writer_with_room(core.writer.lock(), None)?;
        Ok(Txn::of(core, writer.expect("without a deadline it waits until there is room")))
    }

    /// Does not wait.
    pub(super) fn begin_now(core: &'a Arc<Core>) -> Result<Txn<'a>, StoreError> {
        core.check_writable()?;
        let Some(mut writer) = core.writer.try_lock_for(LOCK_WAIT_MAX) else {
            return Err(StoreError::no_room(Room::Change));
        };
        match core.is_ready(&mut writer)? {
            true => Ok(Txn::of(core, writer)),
            false => Err(StoreError::no_room(Room::Change)),
        }
    }

    fn of(core: &'a Arc<Core>, writer: MutexGuard<'a, Writer>) -> Txn<'a> {
        Txn { core, writer, changes: Batch::default(), need: Need::Growth, moves: false }
    }

    /// The value of `key`, this transaction's own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        match self.changed(key) {
            Some(change) => Ok(change.clone()),
            None => self.writer.tree.root().get(&self.core.cache, key).map_err(|error| self.core.now(error.into())),
        }
    }

    /// The values of these keys *before* this transaction, in the same order. One miss names the pages that are
    /// missing for any of them, or some hundreds of those.
    pub fn get_all_before<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, StoreError> {
        self.writer.tree.root().get_all(&self.core.cache, keys).map_err(|error| self.core.now(error.into()))
    }

    /// What this transaction has made of `key`, if anything: its value, or that it is gone.
    pub fn changed(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.changes.get(key)
    }

    /// Like [`View::scan`](super::View::scan), over the state *before* this transaction: its own
    /// changes are not seen.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let scanned = self.writer.tree.root().scan(&self.core.cache, from, to, direction, visit);
        scanned.map_err(|error| self.core.now(error.into()))
    }

    /// Like [`View::read`](super::View::read).
    pub fn read(&self, values: &[Value]) -> Result<Vec<Bytes>, StoreError> {
        self.core.read_bytes(values).map_err(|error| self.core.now(error))
    }

    /// Whether the value of `key` was put since the last commit to storage began. To put it again
    /// then adds nothing to what that commit writes but the difference in length; a value for
    /// which this is false is written anew as a whole.
    pub fn is_uncommitted(&self, key: &[u8]) -> bool {
        self.writer.skips_redo || self.writer.pending.contains(key)
    }

    /// This transaction helps to delete: it may use the space that is set aside for that, so that a
    /// full store can be emptied (R7). One that only deletes may in any case.
    pub fn may_use_reserve(&mut self) {
        self.need = Need::Reserve;
    }

    /// This transaction only moves what is stored: it may use the space that is set aside for that (V6, in `clean`).
    pub(super) fn only_moves(&mut self) {
        self.moves = true;
    }

    /// Bytes that will have to find room in storage, whatever becomes of this transaction.
    pub(super) fn owed_bytes(&self) -> u64 {
        self.writer.owed_bytes()
    }

    /// Whether something refers to that segment.
    pub(super) fn lives(&self, number: SegmentNo) -> bool {
        self.writer.table.get(number).is_some_and(|entry| entry.live > 0)
    }

    /// Sets `key` (1 to [`KEY_MAX`] bytes) to `value` (at most [`VALUE_MAX`] bytes; see also
    /// [`Store::value_bytes_max`](super::Store::value_bytes_max)). Out of bounds is a caller's bug
    /// and panics. So is an extent that this transaction has not read itself: read before it, it may have been
    /// moved since, though nobody has changed its key, and its space be freed.
    pub fn put(&mut self, key: &[u8], value: impl Into<Value>) {
        let value = value.into();
        assert!((1..=KEY_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        assert!(value.len() <= VALUE_MAX, "a value of {} bytes", value.len());
        self.changes.put(key.into(), Some(value));
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: &[u8]) {
        assert!((1..=KEY_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        self.changes.put(key.into(), None);
    }

    /// Applies the changes: all, or (with an error) none. On a disk that is full a transaction that may use
    /// the reserve can be a [`Miss`](super::Miss): it has to wait for a checkpoint to free space. At most [`TXN_BYTES_MAX`] bytes of keys
    /// and values; more is a caller's bug and panics.
    pub fn commit(self) -> Result<(), StoreError> {
        let Txn { core, mut writer, changes, mut need, moves } = self;
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.into_changes();
        if changes.iter().all(|(_, value)| value.is_none()) {
            need = Need::Reserve;
        }
        core.make_room(&mut writer, &changes, need, moves)?;
        // Before anybody sees it. If it comes to nothing, the next commit makes the count right.
        core.begun.fetch_add(1, Ordering::SeqCst);
        let before = if writer.skips_redo { Before::Unknown } else { Before::Kept };
        let before = core.apply(&mut writer, &changes, before).map_err(|error| core.now(error))?;
        core.note(&mut writer, changes, before);
        if writer.raw_bytes > core.limits.raw_inside {
            core.signals.wake_keeper();
        }
        if core.is_bulk_load(&writer) {
            writer.skip_redo();
        }
        if writer.skips_redo && core.checkpoint_is_due(&writer) {
            core.want_checkpoint(&mut writer);
        }
        if writer.bytes_since_freeze >= core.limits.changed
            || core.is_full(&writer)
            || core.signals.commits_at_once() && !moves
        {
            core.request_commit(&mut writer);
        }
        if need == Need::Reserve && writer.starved && self.core.frees_much(&writer) {
            core.want_checkpoint(&mut writer);
        }
        Ok(())
    }
}

/// What was there before changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Is kept until they are durable (D1).
    Kept,
    /// Is of no interest.
    Unknown,
}

/// What the tree says while it takes a batch.
struct Account<'a> {
    deltas: Deltas,
    keeps: bool,
    /// Those of which it has not said yet what was there before.
    changes: std::slice::Iter<'a, redo::Change>,
    before: Vec<Option<Value>>,
}

impl Ledger for Account<'_> {
    fn add(&mut self, segment: SegmentNo, bytes: u64) {
        self.deltas.add(segment, bytes);
    }

    fn sub(&mut self, segment: SegmentNo, bytes: u64) {
        self.deltas.sub(segment, bytes);
    }

    fn add_page(&mut self, at: &Pointer) {
        self.deltas.add_page(at);
    }

    fn sub_page(&mut self, at: &Pointer) {
        self.deltas.sub_page(at);
    }

    fn before(&mut self, key: &[u8], value: &dyn Fn() -> Option<Value>) {
        if self.keeps {
            // It does not speak of deletes that find nothing.
            let silent = self.changes.by_ref().take_while(|(other, _)| **other != *key);
            self.before.extend(silent.map(|_| None));
            self.before.push(value());
        }
    }
}

/// What a transaction has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// More is pending than a commit takes.
    Commit,
    /// More is in memory, for the next checkpoint to store, than may be (C6); or deleting needs the space
    /// that it frees.
    Checkpoint,
}

impl Core {
    /// Whether a transaction can begin. If not, what makes room has been asked for, and `room` will
    /// be signalled.
    fn is_ready(self: &Arc<Self>, writer: &mut Writer) -> Result<bool, StoreError> {
        if writer.closing {
            return Err(StoreError::Poisoned("the store was closed".into()));
        }
        let Some(wait) = self.must_wait(writer) else { return Ok(true) };
        // Whoever failed it woke those who waited before; nobody will wake those who come later.
        self.check_failure()?;
        let has_failed = writer.phase == Phase::Idle && writer.retry_at.is_some_and(|at| Instant::now() < at);
        if writer.is_stuck || (wait == Wait::Checkpoint && has_failed) {
            return Err(StoreError::NoSpace);
        }
        match wait {
            Wait::Commit => self.request_commit(writer),
            Wait::Checkpoint => self.want_checkpoint(writer),
        }
        Ok(false)
    }

    /// The lock, once a transaction can begin; or nothing, when the deadline has come before.
    fn writer_with_room<'a>(
        self: &'a Arc<Self>,
        mut writer: MutexGuard<'a, Writer>,
        until: Option<Instant>,
    ) -> Result<Option<MutexGuard<'a, Writer>>, StoreError> {
        while !self.is_ready(&mut writer)? {
            match until {
                None => self.room.wait(&mut writer),
                Some(until) if self.room.wait_until(&mut writer, until).timed_out() => return Ok(None),
                Some(_) => {}
            }
        }
        Ok(Some(writer))
    }

    /// Waits for room, or until the deadline; answers whether there was room just now.
    pub(super) fn wait_for_room(self: &Arc<Self>, room: Room, until: Option<Instant>) -> Result<bool, StoreError> {
        match room {
            Room::Bulk => Ok(self.log.wait_for_room(until)),
            Room::Change => {
                self.check_writable()?;
                let writer = match until {
                    None => self.writer.lock(),
                    Some(until) => match self.writer.try_lock_until(until) {
                        Some(writer) => writer,
                        None => return Ok(false),
                    },
                };
                Ok(self.writer_with_room(writer, until)?.is_some())
            }
            Room::Cleaning => {
                self.check_writable()?;
                let until = until.unwrap_or_else(|| Instant::now() + CLEANING_WAIT);
                let Some(mut writer) = self.writer.try_lock_until(until) else { return Ok(false) };
                while writer.awaits_cleaner && !writer.closing && self.log.failure().is_none() {
                    if self.room.wait_until(&mut writer, until).timed_out() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        self.check_failure()
    }

    /// Whether the redo of what is pending, as much as a commit takes, is not worth writing: nobody
    /// asked for durability while all of it came, and the next checkpoint, which is due about now,
    /// brings it. In a bulk load redo would be half of all bytes, and the half that has to be written one
    /// commit after the other.
    pub(super) fn is_bulk_load(&self, writer: &Writer) -> bool {
        writer.pending_bytes > self.limits.pending
            && writer.is_quiet
            // Its end would say that all is durable that the tree had when it was prepared (D2).
            && !self.in_flight.lock().brings_all()
            // Else everybody would have to wait at once for what is more than a load may have.
            && writer.tree.dirty_bytes() <= self.limits.settled_max
            && !writer.closing
            && !writer.starved
            && !writer.is_stuck
            && writer.retry_at.is_none()
            && !self.signals.commits_at_once()
    }

    /// Whether as much is pending as one commit takes, or as may be kept of what was before (C6: a delete
    /// is short, and what it deletes may be long).
    fn is_full(&self, writer: &Writer) -> bool {
        writer.pending_bytes > self.limits.pending || writer.kept_bytes > KEPT_BYTES_MAX
    }

    fn must_wait(&self, writer: &Writer) -> Option<Wait> {
        let (dirty, settled) = (writer.tree.dirty_bytes(), writer.settled_bytes as u64);
        let dirty_wait = if writer.skips_redo { 3 * self.limits.settled_max } else { self.limits.dirty_wait };
        if self.is_full(writer) || writer.bytes_since_freeze > 2 * self.limits.changed {
            Some(if writer.has_skipped() { Wait::Checkpoint } else { Wait::Commit })
        } else if writer.awaits_relief || settled > 3 * self.limits.settled_max || dirty > dirty_wait {
            Some(Wait::Checkpoint)
        } else {
            None
        }
    }

    /// The error of something that read the current state, under the writer lock: no checkpoint
    /// that began since is durable yet.
    pub(super) fn now(&self, error: StoreError) -> StoreError {
        error.in_era(&self.published.read().era)
    }

    /// Changes the tree, the table, and what readers see, in one step. Answers what was there before each
    /// of the changes, if that is to be kept; where the answer ends, there was nothing.
    pub(super) fn apply(
        &self,
        writer: &mut Writer,
        changes: &[redo::Change],
        before: Before,
    ) -> Result<Vec<Option<Value>>, StoreError> {
        let keeps = before == Before::Kept;
        let mut account = Account { deltas: Deltas::default(), changes: changes.iter(), keeps, before: Vec::new() };
        self.change_tree(writer, |tree, pages| tree.apply(pages, changes, &mut account))?;
        self.count(writer, account.deltas);
        Ok(account.before)
    }

    /// Changes the tree and what readers see.
    pub(super) fn change_tree<T>(
        &self,
        writer: &mut Writer,
        change: impl FnOnce(&mut Tree, &dyn Pages) -> Result<T, TreeError>,
    ) -> Result<T, StoreError> {
        let mut published = self.published.write();
        // While readers can get at no root, the tree changes its pages in place.
        published.root = Root::stored(None);
        // Whoever reads a state that was current once has its era.
        let is_read = Arc::strong_count(&published.era) > 1
            || self.graveyard.lock().iter().any(|(era, _)| Arc::strong_count(era) > 1);
        let current = Current(&self.cache);
        let result = change(&mut writer.tree, if is_read { &self.cache } else { &current });
        published.root = writer.tree.root();
        drop(published);
        self.cache.leave_room(writer.tree.dirty_bytes());
        Ok(result?)
    }

    /// W3: the table follows the tree. Segments opened since the last commit join it here, when
    /// something first refers to them.
    pub(super) fn count(&self, writer: &mut Writer, deltas: Deltas) {
        for number in deltas.segments() {
            if writer.table.get(number).is_none() {
                let place = self.log.place_of(number).expect("what is referred to has not been freed");
                writer.table.born(Birth { number, place });
            }
        }
        assert!(writer.table.apply(deltas), "W3: the tree's counts do not fit the segment table");
    }

    /// W1, W2: takes note of changes that the tree has taken.
    pub(super) fn note(&self, writer: &mut Writer, changes: Vec<redo::Change>, before: Vec<Option<Value>>) {
        let mut before = before.into_iter();
        let note = |(key, value)| writer.note(key, value, before.next().flatten());
        let raw_delta = changes.into_iter().map(note).sum();
        self.account_raw(raw_delta);
    }

    /// R7: room for everything that was accepted and for these changes is allocated before they
    /// are.
    fn make_room(
        self: &Arc<Self>,
        writer: &mut Writer,
        changes: &[redo::Change],
        need: Need,
        moves: bool,
    ) -> Result<(), StoreError> {
        let mut inside = 0;
        let mut total = 0;
        for (key, value) in changes {
            let cost = redo::cost(key.len(), value.as_ref());
            total += cost;
            inside += pending_cost(key.len(), value.as_ref());
            let length = value.as_ref().map_or(0, Value::len);
            assert!(length <= self.log.payload_bytes_max(), "a value of {length} bytes");
        }
        let count = changes.len();
        assert!(
            inside <= self.limits.txn && total - count * redo::OVERHEAD_BYTES <= TXN_BYTES_MAX,
            "a transaction of {total} bytes in {count} changes, {inside} of them to be in one commit"
        );
        if writer.is_short_of_space() && writer.skipped_since.is_none() {
            writer.skips_redo = false;
        }
        let more = total as u64 + self.pages_of_changes(count);
        let owed = writer.owed_bytes() + more;
        let for_cleaner = if need == Need::Growth && !moves { self.room_to_clean(writer) } else { 0 };
        // Beyond the quota of a file each checkpoint would let some more data in: into the rest of the reserve.
        if need == Need::Growth && self.log.is_beyond_quota() {
            writer.starved = true;
            self.want_checkpoint(writer);
            return Err(StoreError::NoSpace);
        }
        // What is moved in a bucket adds nothing to what it holds.
        if need == Need::Growth && !moves && self.is_beyond_limit(writer, more) {
            // What is dead does not count there. A checkpoint is of use, and worth its requests, if much of what is owed
            // may take less than is set aside for it.
            if writer.owed_bytes() > u64::from(self.log.geometry().segment_bytes) / 8 {
                writer.starved = true;
                self.want_checkpoint(writer);
            }
            return Err(StoreError::NoSpace);
        }
        // V7. What is kept for pages is not taken all at once: the more of it is left, the more the cleaner moves
        // together.
        if need == Need::Reserve {
            let kept = self.room_kept(writer);
            let to_move = self.room_to_move(kept);
            let is_enough = owed + to_move + owed.min(kept - to_move);
            if self.log.ensure_capacity(is_enough, Need::Growth).is_ok() {
                writer.vain_passes = 0;
                return Ok(());
            }
        }
        if need == Need::Reserve && self.cleaner_may_help(writer) {
            writer.starved = true;
            writer.squeezed = true;
            writer.awaits_cleaner = true;
            if self.frees_much(writer) {
                self.want_checkpoint(writer);
            }
            self.signals.want_cleaning();
            return Err(StoreError::no_room(Room::Cleaning));
        }
        if need == Need::Reserve && self.log.ensure_capacity(owed, Need::Growth).is_err() {
            // From here on deleting eats into the reserve: what it frees must come back soon. But a checkpoint
            // takes the reserve, and only if it frees a segment there is one again. So not before: what is
            // deleted in one mount after the other, a little in each, would use up all there is. (Unless so much
            // is owed that the reserve would not do later.)
            writer.starved = true;
            if self.frees_much(writer) || self.log.ensure_capacity(2 * owed, Need::Reserve).is_err() {
                self.want_checkpoint(writer);
            }
        }
        match self.log.ensure_capacity(owed + for_cleaner, need) {
            Ok(()) => Ok(()),
            // V6, in `clean`. It is the cleaner that makes room, or finds that it cannot: a checkpoint would only use some
            // up, unless it frees some.
            Err(LogError::NoSpace) if for_cleaner > 0 && self.log.ensure_capacity(owed, need).is_ok() => {
                if writer.may_free_more() {
                    writer.starved = true;
                    self.want_checkpoint(writer);
                }
                writer.squeezed = true;
                writer.refused_bytes = more;
                self.signals.want_cleaning();
                Err(StoreError::NoSpace)
            }
            // It makes the debt smaller, and the log has room for it: what was accepted before
            // finds its space when enough has been deleted.
            Err(LogError::NoSpace)
                if need == Need::Reserve
                    // Else there is no redo of it.
                    && !writer.skips_redo
                    && !writer.has_skipped()
                    && self.log.ring_used() < self.tail_max()
                    && writer.raw_bytes + total <= self.limits.raw_inside =>
            {
                writer.starved = true;
                Ok(())
            }
            Err(LogError::NoSpace) => {
                // Space that died since the last checkpoint comes back with the next.
                writer.starved = true;
                writer.refused_bytes = more;
                self.want_checkpoint(writer);
                if need == Need::Growth || writer.phase == Phase::Idle {
                    return Err(StoreError::NoSpace);
                }
                // With it comes room for deleting, too, at least in the log.
                writer.awaits_relief = true;
                Err(StoreError::no_room(Room::Change))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// V7: whether it is worth waiting for the cleaner. Few pages, whatever is deleted from them, have room enough.
    fn cleaner_may_help(&self, writer: &Writer) -> bool {
        let pages = writer.table.pages().unwrap_or(0) + writer.tree.dirty_bytes();
        if pages < u64::from(self.log.geometry().segment_bytes) {
            return false;
        }
        let can_clean = self.log.disk().is_some() && !writer.closing && writer.tree.leaves_behind() == 0;
        can_clean && writer.vain_passes < VAIN_PASSES_MAX && !self.log.is_beyond_quota()
    }

    /// Most bytes of pages that so many changes of one transaction are in.
    pub(super) fn pages_of_changes(&self, count: usize) -> u64 {
        (count as u64 + 4) * u64::from(self.log.geometry().page_bytes)
    }

    /// Keeps the count of bytes in flight.
    pub(super) fn account_raw(&self, delta: i64) {
        match delta {
            0 => {}
            1.. => self.log.accept(delta as u64),
            _ => self.log.release(delta.unsigned_abs()),
        }
    }
}
