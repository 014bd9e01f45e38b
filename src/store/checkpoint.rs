//! Checkpoints: the tree as of a commit, stored in the background, so that recovery reads a short
//! tail only and dead segments come free.
//!
//! On the checkpoint thread, one at a time:
//!
//! 1. let leaves catch up that are behind since the store was opened (`replay`), storing those that have when
//!    they become many, and place what is settled (bytes that so far only commits hold);
//! 2. a commit N that freezes the tree and the segment table (`Errand::Freeze`); in a bulk load (W4)
//!    they are frozen without one;
//! 3. write the frozen tree's changed pages, then tell the tree where they are now;
//! 4. write the table's changed chunks and their list, where the pages above the leaves are ([`Core::upper`]);
//! 5. a commit C that names the roots (`Errand::Complete`). From then on recovery starts behind N.
//! 6. free the segments that the checkpoint does not refer to, once no reader has an older state.
//!
//! While a bulk load goes on, a checkpoint ends behind 3 as long as C can wait: nobody asks for what it
//! holds alone, and less than 64 MiB came since the last one was begun (C2). The pages stream to storage,
//! and no time is spent waiting for commits.
//!
//! A crash before C leaves garbage in data segments and recovery as before. A failure on the way
//! leaves everything changed as it was: the next checkpoint writes it.
//!
//! K1 A segment is freed only if it was full (or of an earlier mount) when the tree was frozen,
//! and neither the frozen tree nor the stored table lies in it (R2): nothing can come to refer to
//! it later, since new data goes to open segments and copies of extents refer to live ones.

use super::clean::VAIN_PASSES_MAX;
use super::commit::Errand;
use super::table::{self, Deltas, StoredChunk, Table};
use super::writer::{Phase, Writer};
use super::{Core, StoreError};
use crate::log::{Birth, Checkpoint, LogError, Need, Pointer, RootKind, SegmentNo, Sequence, Stream};
use crate::tree::{self, Frozen, Ledger, PageSink};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// When nothing else happens, a checkpoint is worth its while when it frees this many segments: what was
/// deleted comes free soon.
const DEAD_SEGMENTS_MAX: u64 = 8;

/// While there are changes, it has to free this many times as much as it may write, too. Where most of a store is
/// changed again and again, all that was stored before is dead soon, and each checkpoint writes all of it.
const DEAD_BY_DIRTY_MAX: u64 = 4;

/// Redo that is left to the next mount when a store in a bucket is closed.
const REDO_LEFT_BYTES_MAX: u64 = 16 << 10;

/// Segments that may be opened between two commits: they are all announced in the next, and their
/// numbers are below what the last reserved (S2).
const BIRTHS_MAX: usize = 40;

/// How long a checkpoint that failed is not tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How often who waits for readers looks whether they are done.
const READERS_POLL: Duration = Duration::from_millis(2);

/// Asks a commit to freeze the tree.
pub struct FreezeRequest {
    answer: Sender<FrozenState>,
}

/// Everything up to a commit.
struct FrozenState {
    as_of: Sequence,
    tree: Frozen,
    table: Table,
    changed_chunks: BTreeSet<u64>,
    /// Segments that were still being filled.
    open: Vec<SegmentNo>,
}

/// A frozen state whose pages are stored.
struct Written {
    as_of: Sequence,
    root: Option<Pointer>,
    table: Table,
    changed_chunks: BTreeSet<u64>,
    /// Segments of the table that were full when it was frozen.
    sealed: BTreeSet<SegmentNo>,
    upper: Stream,
}

/// What the newest durable checkpoint stored of the segment table.
#[derive(Default)]
pub struct StoredTable {
    pub chunks: BTreeMap<u64, StoredChunk>,
    pub list: Option<Pointer>,
}

/// Chunks of the segment table that are together no longer than this are always stored together.
const TABLE_TOGETHER_BYTES: u64 = 256 << 10;

/// Beyond that, chunks in one place are moved when they are at most so many times as long as all that is
/// stored anew with them: so there are few places, each several times as long as the one before.
const TABLE_GROWTH: u64 = 3;

impl StoredTable {
    /// Unchanged chunks that are to be stored again beside those that have changed. Opening reads all of
    /// them, from a bucket with one GET a place; left where they are, each checkpoint would add a place.
    fn worth_moving(&self, changed: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
        let mut places: BTreeMap<SegmentNo, (u64, Vec<u64>)> = BTreeMap::new();
        let mut bytes = 0;
        for (number, chunk) in &self.chunks {
            let length = u64::from(chunk.pointer.length);
            if changed.contains(number) {
                bytes += length;
            } else {
                let (together, numbers) = places.entry(chunk.pointer.segment).or_default();
                *together += length;
                numbers.push(*number);
            }
        }
        let mut places: Vec<(u64, Vec<u64>)> = places.into_values().collect();
        places.sort_unstable();
        let count = places
            .iter()
            .take_while(|(together, _)| {
                let is_worth_it = bytes + together <= TABLE_TOGETHER_BYTES || *together <= TABLE_GROWTH * bytes;
                bytes += together;
                is_worth_it
            })
            .count();
        places.truncate(count);
        places.into_iter().flat_map(|(_, numbers)| numbers)
    }

    pub fn lies_in(&self, number: SegmentNo) -> bool {
        self.list.is_some_and(|list| list.segment == number)
            || self.chunks.values().any(|chunk| chunk.pointer.segment == number)
    }
}

impl FreezeRequest {
    /// Under the writer lock, with nothing raw.
    pub fn freeze(self, as_of: Sequence, writer: &mut Writer, open: Vec<SegmentNo>) {
        let changed_chunks = writer.table.take_changed();
        writer.frozen_bytes = writer.tree.dirty_bytes();
        let (tree, table) = (writer.tree.freeze(), writer.table.clone());
        let state = FrozenState { as_of, tree, table, changed_chunks, open };
        // The checkpoint thread waits for it; if the store ends meanwhile, nobody needs it.
        if let Err(unwanted) = self.answer.send(state) {
            writer.table.put_back_changed(unwanted.0.changed_chunks);
        }
    }
}

/// Appends a checkpoint's pages, no faster than they are stored: they would pile up in memory, and a commit
/// would have to wait until all of them are written (C6).
struct Sink<'a> {
    core: &'a Core,
    /// For what is not a leaf.
    upper: Stream,
    /// Bytes since there was room for more.
    bytes: usize,
}

/// With so many segments of pages, those above the leaves have segments of their own. They are about a fiftieth.
const UPPER_FROM_SEGMENTS: u64 = 4;

/// How many bytes of pages are appended without asking whether there is room.
const UNASKED_BYTES: usize = 256 << 10;

impl PageSink for Sink<'_> {
    type Error = StoreError;

    fn write(&mut self, level: u8, first_key: &[u8], payload: &[u8]) -> Result<Pointer, StoreError> {
        self.bytes += payload.len();
        if self.bytes >= UNASKED_BYTES {
            self.bytes = 0;
            self.core.log.wait_for_room(None);
        }
        let stream = if level > 0 { self.upper } else { Stream::Pages };
        Ok(self.core.log.append(stream, payload, first_key)?)
    }
}

/// Whether a checkpoint would give back what is worth it, when there is nothing else to do.
pub fn frees_some(writer: &Writer) -> bool {
    writer.freeable() >= DEAD_SEGMENTS_MAX
}

impl Core {
    /// Whether it is time for a checkpoint.
    pub(super) fn checkpoint_is_due(&self, writer: &Writer) -> bool {
        let (tail, dirty) = (self.log.tail_bytes(), writer.tree.dirty_bytes());
        let dirty_max = if writer.skips_redo { self.limits.settled_max } else { self.dirty_max() };
        let is_due =
            dirty >= dirty_max || writer.settled_bytes as u64 >= self.limits.settled_max || self.frees_much(writer);
        match writer.skipped_since {
            // It need not be completed (`completion_can_wait`): how long the tail is does not matter.
            Some(_) => is_due || !writer.waiters.is_empty() || writer.bytes_since_freeze >= self.limits.changed,
            // A longer tail saves writing the same pages again and again; half of what a checkpoint
            // writes is worth keeping as redo. Without space it is kept as long as it can be: the checkpoint
            // would take the reserve.
            None => {
                let tail_max = self.tail_max();
                let tail_min = if writer.starved { tail_max } else { self.limits.tail_min.min(tail_max) };
                is_due || tail >= (dirty / 2).clamp(tail_min, tail_max) || self.log.ring_used() >= tail_max
            }
        }
    }

    /// Bytes of log behind the newest checkpoint at which the next begins in any case: what a large ring has beside what
    /// comes while a checkpoint is made, and that checkpoint's own two commits, wherever they have to wrap.
    pub(super) fn tail_max(&self) -> u64 {
        let ring = self.log.ring_bytes();
        (ring / 4).max(ring.saturating_sub(7 * self.log.commit_bytes_max()))
    }

    /// How many bytes of changed pages a ring is long enough for: a small one is full before a long checkpoint is made.
    fn dirty_of_ring(&self) -> u64 {
        4 * self.log.ring_bytes()
    }

    /// Whether the next checkpoint comes before it is worth what it writes, for want of a longer ring.
    fn is_cramped(&self, writer: &Writer) -> bool {
        let (tail_max, dirty) = (self.tail_max(), writer.tree.dirty_bytes());
        let is_full = self.log.tail_bytes().max(self.log.ring_used()) >= tail_max || dirty >= self.dirty_of_ring();
        is_full && dirty / 2 > tail_max && !writer.starved && writer.skipped_since.is_none()
    }

    /// How many bytes of changed pages may be in memory.
    fn dirty_max(&self) -> u64 {
        if !self.cache.has_room() {
            return self.limits.dirty_max;
        }
        self.limits.dirty_roomy.min(self.dirty_of_ring()).max(self.limits.dirty_max)
    }

    /// Whether more is still to be stored than a quarter of a segment, so that it might not find its space
    /// in the reserve alone, which is all that the next mount has on a full disk: there the redo becomes
    /// pages, and deleting changes more of them, before a checkpoint frees anything. Or whether there is no
    /// reserve, and something dead that could become one.
    ///
    /// In a bucket: whether the next mount would have many pages to fetch for the redo.
    pub(super) fn owes_much(&self) -> bool {
        match self.log.bucket() {
            Some(_) => self.log.tail_bytes() > REDO_LEFT_BYTES_MAX,
            None => {
                let writer = self.writer.lock();
                writer.owed_bytes() > u64::from(self.log.geometry().segment_bytes) / 4
                    || (self.log.is_without_reserve() && writer.may_free_something())
            }
        }
    }

    /// Whether a checkpoint would give back much space, for what it writes: where there is none, a segment is much.
    pub(super) fn frees_much(&self, writer: &Writer) -> bool {
        let bytes = writer.freeable() * u64::from(self.log.geometry().segment_bytes);
        match writer.starved {
            true => writer.freeable() >= 1,
            false => frees_some(writer) && bytes >= DEAD_BY_DIRTY_MAX * writer.tree.dirty_bytes(),
        }
    }

    /// Tells the checkpoint thread, unless it knows.
    pub(super) fn want_checkpoint(&self, writer: &mut Writer) {
        let too_early = writer.retry_at.is_some_and(|at| Instant::now() < at);
        if writer.phase == Phase::Idle && !too_early {
            writer.phase = Phase::Wanted;
            self.signals.want_checkpoint();
        }
    }

    /// Makes a checkpoint. On the checkpoint thread.
    pub(super) fn run_checkpoint(self: &Arc<Self>, stored: &mut StoredTable) -> Result<(), StoreError> {
        let is_cramped = {
            let mut writer = self.writer.lock();
            let is_cramped = self.is_cramped(&writer);
            writer.phase = Phase::Running;
            writer.relieves = std::mem::take(&mut writer.starved);
            is_cramped
        };
        if is_cramped {
            self.log.lengthen_ring();
        }
        let result = self.write_checkpoint(stored);
        if is_cramped {
            // If that could not be then: now it may.
            self.log.lengthen_ring();
        }
        let mut waiters = Vec::new();
        {
            let mut writer = self.writer.lock();
            writer.phase = Phase::Idle;
            writer.checkpoints_ended += 1;
            writer.frozen_bytes = 0;
            writer.awaits_relief = false;
            if result.is_ok() && writer.vain_passes >= VAIN_PASSES_MAX {
                // There may be more to gain now.
                writer.vain_passes = VAIN_PASSES_MAX / 4 * 3;
            }
            // Each failed try may use up a little of the log.
            writer.retry_at = result.is_err().then(|| Instant::now() + RETRY_AFTER);
            if result.is_err() {
                writer.unfreeze_skipped();
                if writer.has_skipped() {
                    waiters.append(&mut writer.waiters);
                }
            }
            if result.is_ok() && self.checkpoint_is_due(&writer) {
                self.want_checkpoint(&mut writer);
            }
        }
        self.room.notify_all();
        self.log.retry(result.as_ref().err().map(|_| LogError::NoSpace));
        for waiter in waiters {
            waiter(result.clone());
        }
        result
    }

    fn write_checkpoint(self: &Arc<Self>, stored: &mut StoredTable) -> Result<(), StoreError> {
        self.catch_up()?;
        // Before any of the log's room is used up: without space the checkpoint would be given up
        // half way, and the next, too.
        let (owed, skips_redo) = {
            let writer = self.writer.lock();
            (writer.owed_bytes(), writer.skips_redo)
        };
        self.log.ensure_capacity(owed, Need::Reserve)?;
        if skips_redo {
            // Without C to wait for, pages would pile up in memory before a storage that is slow (C6).
            self.log.wait_for_room(None);
        }
        self.place_settled()?;
        let (answer, answered) = channel();
        self.commit_and_wait(Errand::Freeze(FreezeRequest { answer }))?;
        let frozen = answered.recv().map_err(|_| StoreError::NoSpace)?;
        let changed = frozen.changed_chunks.clone();
        let put_back = || self.writer.lock().table.put_back_changed(changed);
        match self.write_pages(frozen) {
            Ok(_) if self.completion_can_wait() => {
                put_back();
                Ok(())
            }
            Ok(written) => self.complete(written, stored).inspect_err(|_| put_back()),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }

    /// Whether a bulk load goes on, so that the next checkpoint may as well make durable what this one
    /// has written. If so, it counts as not frozen again.
    fn completion_can_wait(&self) -> bool {
        let mut writer = self.writer.lock();
        // Whoever waits came after this was frozen, and so did more that has no redo: else it would not be
        // skipped any more. Only the next checkpoint, which waits for nothing further, is of use to them.
        let can_wait = writer.skips_redo
            && !writer.closing
            && !writer.is_short_of_space()
            && !self.frees_much(&writer)
            && self.log.unannounced_births() < BIRTHS_MAX
            && !self.signals.checkpoint_is_asked_for()
            && writer
                .skipped_in_frozen
                .is_some_and(|frozen| !self.signals.is_overdue(frozen.since) && frozen.bytes < self.limits.changed);
        if can_wait {
            writer.unfreeze_skipped();
        }
        can_wait
    }

    /// The first commit of an epoch; together with a checkpoint of what recovery found, if that left little
    /// room in the log: opening must not use up what a checkpoint needs, however often the store is opened and
    /// dies again.
    ///
    /// In a bucket the log has claimed the store already, and no ring can fill up.
    pub(super) fn claim(self: &Arc<Self>, as_of: Sequence, stored: &mut StoredTable) -> Result<(), StoreError> {
        if self.log.bucket().is_some() {
            return Ok(());
        }
        let owed = self.writer.lock().owed_bytes();
        if self.log.has_room_to_begin()
            || self.log.ensure_capacity(owed, Need::Reserve).is_err()
            || self.place_settled().is_err()
        {
            return self.commit_and_wait(Errand::Claim);
        }
        self.try_to_catch_up()?;
        let (answer, answered) = channel();
        {
            let _placing = self.placing.lock();
            let mut writer = self.lock_with_nothing_raw();
            assert!(!writer.has_raw(), "nothing comes in before the store is open");
            FreezeRequest { answer }.freeze(as_of, &mut writer, self.log.open_segments());
        }
        let frozen = answered.recv().expect("sent just now");
        let changed = frozen.changed_chunks.clone();
        match self.write_pages(frozen).and_then(|written| self.complete(written, stored)) {
            // A full store can still be read, and deleted from.
            Err(StoreError::NoSpace) => {
                let mut writer = self.writer.lock();
                writer.table.put_back_changed(changed);
                writer.frozen_bytes = 0;
                drop(writer);
                self.commit_and_wait(Errand::Claim)
            }
            result => result,
        }
    }

    /// Writes the frozen tree's changed pages, and lets the tree and its table know of it.
    fn write_pages(&self, frozen: FrozenState) -> Result<Written, StoreError> {
        let FrozenState { as_of, tree, mut table, mut changed_chunks, open } = frozen;
        // K1: those that are born from here on are not in it.
        let sealed: BTreeSet<SegmentNo> =
            table.iter().map(|(number, _)| number).filter(|number| !open.contains(number)).collect();
        let upper = self.upper(&table);
        let written = tree.write(&mut Sink { core: self, upper, bytes: 0 })?;
        let root = written.root();
        let mut deltas = Deltas::default();
        written.pages().for_each(|page| deltas.add_page(&page));
        self.install(written);
        for number in deltas.segments() {
            if table.get(number).is_none() {
                table.born(self.birth_of(number));
            }
        }
        assert!(table.apply(deltas), "the frozen tree's counts do not fit its table");
        let counted = table.take_changed();
        // Of a page that the tree has left meanwhile the current table knows nothing, and its chunk may not
        // change any more: the next checkpoint must store it all the same.
        self.writer.lock().table.put_back_changed(counted.clone());
        changed_chunks.extend(counted);
        Ok(Written { as_of, root, table, changed_chunks, sealed, upper })
    }

    /// Where a checkpoint puts what the next one will mostly write anew: the pages above the leaves, and the segment
    /// table. Among leaves they would leave holes; and whoever moves leaves that lie all over the tree writes nearly all
    /// of these pages, so that where there are many nothing would be gained by moving any.
    ///
    /// Where there are few they need no segment of their own, and in a bucket they are not worth one more request.
    fn upper(&self, table: &Table) -> Stream {
        if self.has_upper(table) { Stream::Upper } else { Stream::Pages }
    }

    /// Whether they have.
    pub(super) fn has_upper(&self, table: &Table) -> bool {
        let least = UPPER_FROM_SEGMENTS * u64::from(self.log.geometry().segment_bytes);
        self.log.disk().is_some() && table.pages().is_some_and(|pages| pages >= least)
    }

    /// Lets the tree and the table know where these pages are.
    fn install(&self, written: tree::Written) {
        // They are no longer counted as changed soon: now, so that they do not push each other out of the cache.
        let dirty = self.writer.lock().tree.dirty_bytes();
        self.cache.leave_room(dirty.saturating_sub(written.bytes()));
        written.leaves().for_each(|(at, leaf)| self.cache.put_page(at, leaf));
        {
            let mut writer = self.writer.lock();
            let mut current = Deltas::default();
            writer.frozen_bytes = 0;
            writer.tree.install(written, &mut current, &mut |at, page| self.cache.put_page(at, page));
            self.cache.leave_room(writer.tree.dirty_bytes());
            self.count(&mut writer, current);
            self.keep_room(&writer);
            // Readers got at the tree's pages through memory; from here on through the cache.
            self.published.write().root = writer.tree.root();
        }
        self.room.notify_all();
    }

    /// Stores leaves that have caught up since the store was opened, if many are in memory and, since that was done
    /// last, half as many have come. Whoever dies has as many changed pages as its cache is large, and who comes
    /// after it may have less (C6). A checkpoint they are not: if none comes, they are garbage, as those of one that
    /// is given up.
    ///
    /// Where there is no space for them they stay; and where segments are so small that more would be opened than
    /// the next commit announces. `left`: changed bytes that were not stored last.
    pub(super) fn store_leaves_that_caught_up(&self, left: &mut u64) -> Result<(), StoreError> {
        let (changed, owed, most) = {
            let writer = self.writer.lock();
            (writer.tree.changed_bytes(), writer.owed_bytes(), self.dirty_max())
        };
        if changed < most
            || changed < *left + most / 2
            || self.log.unannounced_births() >= BIRTHS_MAX
            || self.log.ensure_capacity(owed, Need::Reserve).is_err()
        {
            return Ok(());
        }
        let leaves = {
            let mut writer = self.writer.lock();
            // They need their space even if they leave the tree meanwhile.
            writer.frozen_bytes = writer.tree.changed_bytes();
            writer.tree.freeze_leaves()
        };
        let written = leaves.write(&mut Sink { core: self, upper: Stream::Pages, bytes: 0 });
        if written.is_err() {
            self.writer.lock().frozen_bytes = 0;
        }
        match written {
            Ok(written) => self.install(written),
            Err(StoreError::NoSpace) => {}
            Err(error) => return Err(error),
        }
        *left = self.writer.lock().tree.changed_bytes();
        Ok(())
    }

    /// Writes the table, and the commit that makes it all durable; then frees what is dead.
    fn complete(self: &Arc<Self>, written: Written, stored: &mut StoredTable) -> Result<(), StoreError> {
        let Written { as_of, root, table, changed_chunks, sealed, upper } = written;
        let new = self.store_table(upper, &table, changed_chunks, stored)?;
        let list = new.list.expect("just stored");
        let checkpoint = Checkpoint {
            as_of,
            roots: vec![(RootKind::Tree, root), (RootKind::Table, Some(list))],
            places: vec![self.birth_of(list.segment)],
        };
        self.commit_and_wait(Errand::Complete(checkpoint))?;
        *stored = new;
        // K1.
        let is_free = |number: &SegmentNo| sealed.contains(number) && !stored.lies_in(*number);
        let dead = table.iter().filter(|(_, entry)| entry.live == 0).map(|(number, _)| number);
        let (dead, left): (Vec<SegmentNo>, Vec<SegmentNo>) = dead.partition(is_free);
        self.retire(dead, left.len() as u64);
        Ok(())
    }

    fn birth_of(&self, number: SegmentNo) -> Birth {
        Birth { number, place: self.log.place_of(number).expect("what is referred to has not been freed") }
    }

    fn store_table(
        &self,
        stream: Stream,
        table: &Table,
        changed: BTreeSet<u64>,
        stored: &StoredTable,
    ) -> Result<StoredTable, StoreError> {
        let mut chunks = stored.chunks.clone();
        let changed: BTreeSet<u64> = match self.log.bucket() {
            Some(_) => stored.worth_moving(&changed).chain(changed.iter().copied()).collect(),
            // A disk does not mind.
            None => changed,
        };
        for number in changed {
            match table.encode_chunk(number) {
                Some(bytes) => {
                    let pointer = self.log.append(stream, &bytes, b"")?;
                    let place = self.birth_of(pointer.segment).place;
                    chunks.insert(number, StoredChunk { pointer, place });
                }
                None => {
                    chunks.remove(&number);
                }
            }
        }
        let list = self.log.append(stream, &table::encode_list(&chunks, table.pages()), b"")?;
        Ok(StoredTable { chunks, list: Some(list) })
    }

    fn commit_and_wait(self: &Arc<Self>, errand: Errand) -> Result<(), StoreError> {
        let (answer, answered) = channel();
        // Whoever asked is waiting just below.
        self.queue_commit(errand, Box::new(move |result| drop(answer.send(result))));
        // Or the store was given up meanwhile, and the storage thread has ended.
        answered.recv().unwrap_or_else(|_| Err(self.check_failure().expect_err("every commit is answered")))
    }

    /// Ends the era of readers that may know these segments, and frees them when it is over.
    /// `left`: how many dead ones had to be left.
    fn retire(self: &Arc<Self>, mut dead: Vec<SegmentNo>, left: u64) {
        {
            let mut writer = self.writer.lock();
            if self.log.frees_later() {
                // They stay in the table, and so in what is stored of it, until they are deleted:
                // a later mount then knows of what this one did not come to (R2).
                // One that was deleted since the tree was frozen is not to be deleted again.
                let Writer { table, condemned, .. } = &mut *writer;
                dead.retain(|number| table.get(*number).is_some() && condemned.insert(*number));
            } else {
                for number in &dead {
                    writer.table.remove(*number);
                }
            }
            // Not those that died since the tree was frozen: the next checkpoint frees them.
            writer.dead_before = (left + writer.condemned.len() as u64).min(writer.table.dead());
        }
        {
            // At once: a reader's era is the current one, or here.
            let mut published = self.published.write();
            let era = std::mem::take(&mut published.era);
            self.graveyard.lock().push_back((era, dead));
        }
        self.bury();
    }

    /// Waits until nobody reads what is to be freed, or until then. Answers whether that was waited for, and
    /// is so.
    pub(super) fn bury_until(self: &Arc<Self>, until: Instant) -> bool {
        let are_left = || self.graveyard.lock().iter().any(|(_, dead)| !dead.is_empty());
        if self.log.frees_later() || !are_left() {
            return false;
        }
        loop {
            self.bury();
            if !are_left() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            // A reader tells nobody when it is done: mostly that is a matter of microseconds.
            std::thread::sleep(READERS_POLL);
        }
    }

    /// Frees what no reader can know any more.
    pub(super) fn bury(self: &Arc<Self>) {
        // Later, if the cleaner reads just now.
        let Some(_unfreed) = self.unfreed.try_read() else { return };
        let mut graveyard = self.graveyard.lock();
        while graveyard.front().is_some_and(|(era, _)| Arc::strong_count(era) == 1) {
            let (_, dead) = graveyard.pop_front().expect("just seen");
            if !dead.is_empty() {
                // Not to keep a store alive that nobody uses any more.
                let core = Arc::downgrade(self);
                self.log.free(
                    dead,
                    None,
                    Box::new(move |freed| core.upgrade().iter().for_each(|core| core.freed(freed))),
                );
            }
        }
    }

    /// Frees what a mount before this one left: segments that were dead in its last checkpoint and
    /// still are. Readers elsewhere had the time since its last commit.
    ///
    /// In a file they may be free already, and known as dead only by that checkpoint, which was stored
    /// before they were freed. They can be the only space there is for the next one.
    pub(super) fn free_leftovers(self: &Arc<Self>, mut dead: Vec<SegmentNo>, stored: &StoredTable, since_ns: u64) {
        if !self.log.frees_later() {
            {
                let mut writer = self.writer.lock();
                // The redo may have brought one back to life.
                dead.retain(|number| writer.table.get(*number).is_some_and(|entry| entry.live == 0));
                for number in &dead {
                    writer.table.remove(*number);
                }
                // What else is dead, an interrupted checkpoint's pages above all, the next checkpoint frees.
                let is_left = |entry: &table::Entry, number| entry.live == 0 && stored.lies_in(number);
                writer.dead_before =
                    writer.table.iter().filter(|(number, entry)| is_left(entry, *number)).count() as u64;
            }
            if !dead.is_empty() {
                self.log.free(dead, None, Box::new(|_| {}));
            }
            return;
        }
        let dead: Vec<SegmentNo> = {
            let mut writer = self.writer.lock();
            let Writer { table, condemned, .. } = &mut *writer;
            let is_dead = |number: &SegmentNo| table.get(*number).is_some_and(|entry| entry.live == 0);
            let dead: Vec<SegmentNo> =
                dead.into_iter().filter(|number| is_dead(number) && condemned.insert(*number)).collect();
            // No checkpoint is needed to free these: a mount that changes nothing makes none.
            writer.dead_before = dead.len() as u64;
            dead
        };
        if !dead.is_empty() {
            let core = Arc::downgrade(self);
            let freed = Box::new(move |freed: &[SegmentNo]| core.upgrade().iter().for_each(|core| core.freed(freed)));
            self.log.free(dead, Some(since_ns), freed);
        }
    }

    /// Segments are gone. On the storage thread.
    fn freed(&self, numbers: &[SegmentNo]) {
        if self.log.frees_later() {
            let mut writer = self.writer.lock();
            for number in numbers {
                writer.condemned.remove(number);
                writer.table.remove(*number);
            }
            writer.dead_before = writer.dead_before.min(writer.table.dead());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::store::{CreateOptions, OpenOptions, Store};

    fn freeze(core: &Arc<Core>) -> FrozenState {
        let (answer, answered) = channel();
        core.commit_and_wait(Errand::Freeze(FreezeRequest { answer })).unwrap();
        answered.recv().unwrap()
    }

    /// What was stored of the segment table counted a page for ever that the tree left while it was written.
    #[test]
    fn a_page_that_is_left_while_it_is_written_is_not_counted_by_the_next_checkpoint() {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = Store::open_on(disk.clone(), &OpenOptions::default()).unwrap();
        let core = &store.core;
        let change = |key: &[u8], value: Option<Vec<u8>>| {
            let mut txn = store.begin().unwrap();
            match value {
                Some(value) => txn.put(key, value),
                None => txn.delete(key),
            }
            txn.commit().unwrap();
        };
        let mut stored = StoredTable::default();
        let mut complete = |frozen: FrozenState| {
            let written = core.write_pages(frozen).unwrap();
            core.complete(written, &mut stored).unwrap();
        };
        // The pages' segment is open, and in the table.
        change(b"a", Some(b"a".to_vec()));
        complete(freeze(core));
        change(b"a", None);
        change(b"b", Some(b"b".to_vec()));
        let frozen = freeze(core);
        change(b"b", None);
        complete(frozen);
        complete(freeze(core));
        store.close().unwrap();
        drop(store);
        assert_eq!(Store::check_on(disk, true).unwrap(), Vec::<String>::new());
    }
}
