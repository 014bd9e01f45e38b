//! The cleaner: moves what lives out of segments that are mostly dead, so that they come free.
//!
//! A segment comes free when nothing refers to it any more (R13). Where parts of large files change again and again,
//! as a database's do, hardly a segment ever comes to that by itself: each keeps a little that lives, and the store
//! would take several times the space of what it holds, and more with each day.
//!
//! # What is moved, and when
//!
//! * When the segments take half as much again as what lives in them and a few segments more, until they take a third
//!   more; or when space is running short in a file, until there is some. The keeper looks. (How long an object in a
//!   bucket is, the table knows unless a crash came first, or it is one of those that a store was closed with: then it
//!   counts as a full one, and is moved the sooner.)
//! * From the segments with the best ratio of what is gained, and of how long it will last, to what it costs:
//!   cost-benefit (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992),
//!   where the number of a segment stands for its age. What changes often soon dies by itself where it is.
//! * What lives is counted as the segment table counts it, before compression. So of what compresses less is moved, and
//!   later, and the ceiling is one of what the store holds, not of what that takes.
//! * What refers to them is found by walking the tree: its inner pages, and all its leaves if there is
//!   more in these segments than pages. A walk is for up to [`MOVED_MAX`] at once; in a bucket, where leaves that are
//!   not at hand cost requests, for [`BUCKET_MOVED_MAX`]. (The index of a segment names owners, but neither copies nor
//!   what has got another name.)
//!
//! # How
//!
//! A move is a transaction as any other: durable, atomic and undone as such, and a crash leaves what there was or
//! what there is. So segments come free with the next checkpoint, under its rules (R2, K1).
//!
//! * V1 A value is replaced only if it still is the extent that was read. One that was put meanwhile stays, and what was
//!   written in its place is garbage. (Pointers are never used twice, R3: equal is the same.)
//! * V2 `placing` is held from the append of what is moved to the change that refers to it, as for all data: else a
//!   checkpoint could take its segment for dead.
//! * V3 What shared an extent, or a part of one, shares it afterwards. To what was moved in an earlier step only while its
//!   segment lives: if it is dead, it may be on its way to be freed.
//! * V4 A page is moved by putting a pair below it again as it is: that has it, and all above it, stored anew by the
//!   next checkpoint.
//! * V5 What cannot be moved, or came to refer to a segment behind the walk, keeps that segment; it is not tried
//!   again before something else of it has died. After a pass that gained nothing there is none before the store has
//!   changed: one that is idle is left alone.
//! * V6 Moving takes space before it gives any. So as long as there may be something to be gained, others leave it some
//!   ([`Core::room_to_clean`]).

use super::cache::Cache;
use super::txn::Txn;
use super::view::View;
use super::writer::Writer;
use super::{Core, Reading, Room, StoreError};
use crate::log::{LogError, Need, Payload, Pointer, SegmentNo};
use crate::tree::{Direction, Extent, InMemory, KEY_MAX, Key, Node, Pages, Root, TreeError, VALUE_INLINE_MAX, Value};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most bytes that one pass moves: in a file, and in a bucket.
const MOVED_MAX: u64 = 128 << 20;
const BUCKET_MOVED_MAX: u64 = 1 << 30;
/// Most bytes that one step moves.
const STEP_BYTES: u64 = 1 << 20;
/// Pairs that are looked at in one step: as long it keeps what was freed from being used.
const STEP_PAIRS: usize = 50_000;
/// Pages that are moved in one step, and pieces: each may be in a leaf of its own, and all of these have to find room in
/// the cache together.
const STEP_PAGES: usize = 128;
const STEP_PIECES: usize = 256;
/// So many pieces are found before they are moved: each takes a hundred bytes or two. If there are more, fewer segments
/// are emptied. (In the tests below so few that it comes to that.)
const GATHERED_MAX: usize = if cfg!(test) { 40 } else { 100_000 };
/// Units that are read together, each of which may have 64 KiB in memory: from a file, and from a bucket.
const UNITS_MAX: usize = 64;
const BUCKET_UNITS_MAX: usize = 512;
/// How often what is left in the segments of a bucket is looked for.
const ROUNDS_MAX: usize = 3;
/// What a moved piece has in a transaction beside its key.
const PIECE_COST: usize = 60;
/// The same of a page: a pair with the longest key and value in it.
const PAGE_COST: usize = KEY_MAX + VALUE_INLINE_MAX + 20;
/// A step that finds the store busy, or what it needs pushed out of memory, is begun again so often.
const TRIES_MAX: usize = 10;
/// And what it needs is fetched so often. A tree has fewer levels.
const FETCHES_MAX: usize = 20;
/// How long none is made after one that gained nothing.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a pass waits for what the one before it gained.
const GIVE_BACK_WAIT: Duration = Duration::from_secs(5);
/// How long room is waited for before it is looked whether the store is to end.
const ROOM_WAIT: Duration = Duration::from_millis(200);

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// That the store does not take much more than it holds.
    Ceiling,
    /// Some space, where there is none.
    Space,
}

/// What the cleaner remembers from one pass to the next.
#[derive(Default)]
pub struct Cleaner {
    /// Segments that are left over from a pass, and what lived in them then (V5).
    left: HashMap<SegmentNo, u64>,
}

/// Pieces of units that a pass moved, and where to.
#[derive(Default)]
struct Moved {
    /// By unit: its segment, and where it lies there.
    pieces: HashMap<(SegmentNo, u32), Vec<MovedPiece>>,
    /// None: it is about to be appended.
    places: Vec<Option<Extent>>,
}

/// A piece of a unit.
struct MovedPiece {
    /// Where it began there.
    start: u32,
    length: u32,
    /// Which place is its.
    place: usize,
}

impl Moved {
    /// A piece that covers this one: its place, and where in it this one begins.
    fn covering(&self, extent: &Extent) -> Option<(usize, u32)> {
        let pieces = self.pieces.get(&(extent.unit.segment, extent.unit.offset))?;
        let end = extent.offset + extent.length;
        let covers = |piece: &&MovedPiece| piece.start <= extent.offset && end <= piece.start + piece.length;
        pieces.iter().find(covers).map(|piece| (piece.place, extent.offset - piece.start))
    }

    /// A piece that is about to be appended.
    fn add(&mut self, extent: &Extent) {
        let piece = MovedPiece { start: extent.offset, length: extent.length, place: self.places.len() };
        self.pieces.entry((extent.unit.segment, extent.unit.offset)).or_default().push(piece);
        self.places.push(None);
    }

    /// Those from that one on were not moved after all.
    fn take_back(&mut self, first: usize) {
        self.places.truncate(first);
        self.pieces.values_mut().for_each(|of_unit| of_unit.retain(|piece| piece.place < first));
    }
}

/// An extent in a segment that is to come free.
#[derive(Clone)]
struct Piece {
    key: Key,
    extent: Extent,
}

/// Pages that are in memory; those that were found stay there.
struct Fetched<'a> {
    cache: &'a Cache,
    pages: RefCell<HashMap<Pointer, Arc<Node>>>,
}

impl Pages for Fetched<'_> {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        if let Some(page) = self.pages.borrow().get(at) {
            return Ok(page.clone());
        }
        let page = self.cache.page(at)?;
        self.pages.borrow_mut().insert(*at, page.clone());
        Ok(page)
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        self.cache.hold(look);
    }

    fn together(&self) -> usize {
        self.cache.together()
    }
}

/// What a part of a walk found; and up to which key there are no more, if there may be some behind that.
type Found<T> = (Vec<T>, Option<Key>);

/// What units hold.
type Units = HashMap<Pointer, Payload>;

impl Core {
    /// Whether the store takes much more than it holds, or so that it has hardly any space left, and something
    /// has died since there was nothing to be done about that.
    pub(super) fn cleaning_is_due(&self, writer: &Writer) -> bool {
        self.due_aim(writer).is_some()
    }

    fn due_aim(&self, writer: &Writer) -> Option<Aim> {
        let is_too_early = writer.clean_after.is_some_and(|(at, begun)| {
            Instant::now() < at || (self.begun.load(Ordering::SeqCst) == begun && !writer.starved)
        });
        let is_too_early = is_too_early && !writer.squeezed;
        self.aim(writer).filter(|_| !is_too_early && self.wasted(writer) >= writer.clean_from)
    }

    fn aim(&self, writer: &Writer) -> Option<Aim> {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        if writer.closing || writer.tree.leaves_behind() > 0 {
            return None;
        }
        let (wasted, slack) = (self.wasted(writer), self.slack(writer));
        let is_short = || writer.starved || writer.squeezed || self.log.unallocated_bytes() < slack + 4 * segment_bytes;
        if wasted > slack && self.log.disk().is_some() && is_short() {
            return Some(Aim::Space);
        }
        (wasted > writer.table.held() / 2 + slack).then_some(Aim::Ceiling)
    }

    /// Bytes of segments that hold something, and that do not. Those that are being filled do not count.
    fn wasted(&self, writer: &Writer) -> u64 {
        let being_filled = 2 * u64::from(self.log.geometry().segment_bytes);
        writer.table.taken().saturating_sub(being_filled + writer.table.held())
    }

    /// The same, now.
    pub(super) fn wasted_now(&self) -> u64 {
        self.wasted(&self.writer.lock())
    }

    /// What may be wasted in any store; and as much room is needed to gain some where most of each segment lives.
    fn slack(&self, writer: &Writer) -> u64 {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        (writer.table.held() / 8).clamp(2 * segment_bytes, 8 * segment_bytes)
    }

    /// V6: what is not for who adds to the store.
    pub(super) fn room_to_clean(&self, writer: &Writer) -> u64 {
        let (wasted, slack) = (self.wasted(writer), self.slack(writer));
        // Where there is nothing to be gained, others may have it.
        let is_of_use = self.log.disk().is_some() && wasted > slack && wasted >= writer.clean_from;
        if is_of_use { slack } else { 0 }
    }

    /// Whether something can be added to the store; not, if that cannot be told before the deadline.
    pub(super) fn has_room_to_grow(&self, until: Instant) -> bool {
        let Some(writer) = self.writer.try_lock_until(until) else { return false };
        let room = writer.owed_bytes() + self.room_to_clean(&writer) + u64::from(self.log.geometry().segment_bytes);
        self.log.capacity_max() >= room
    }

    /// Cleans as long as that is due. On the cleaner's thread.
    pub(super) fn clean_when_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut due = self.due_aim(&self.writer.lock());
        while let Some(aim) = due {
            let count = || (self.begun.load(Ordering::SeqCst), self.moves.get());
            let (before, (begun_before, moves_before)) = (self.wasted_now(), count());
            let outcome = self.clean(aim, None);
            let has_gained = matches!(outcome, Ok(true));
            if aim == Aim::Space && has_gained {
                // Then the next pass has what this one gained.
                self.give_back(Instant::now() + GIVE_BACK_WAIT);
            }
            let mut writer = self.writer.lock();
            let wasted = self.wasted(&writer);
            let (begun, moves) = count();
            // What fills segments badly may be moved for ever, and gain nothing. (Unless others waste more meanwhile.)
            let others_change = (begun - begun_before).saturating_sub(moves - moves_before) > 0;
            let is_of_use = has_gained && (wasted < before || others_change);
            writer.clean_after = (!is_of_use).then(|| (Instant::now() + RETRY_AFTER, begun));
            outcome?;
            let goes_on = aim == Aim::Ceiling && is_of_use && wasted > writer.table.held() / 3 + self.slack(&writer);
            due = self.due_aim(&writer).or(goes_on.then_some(Aim::Ceiling));
        }
        Ok(())
    }

    /// Makes one pass, until the deadline at most; answers whether a segment is dead for it. It comes free with the
    /// next checkpoint.
    pub(super) fn clean(self: &Arc<Self>, aim: Aim, until: Option<Instant>) -> Result<bool, StoreError> {
        let mut cleaner = match until {
            None => self.cleaner.lock(),
            Some(until) => match self.cleaner.try_lock_until(until) {
                Some(cleaner) => cleaner,
                None => return Ok(false),
            },
        };
        let (victims, is_cramped) = self.victims(&cleaner, aim, until);
        let result = match victims.is_empty() {
            true => Ok(BTreeSet::new()),
            false => self.empty(&victims, until),
        };
        let is_complete = result.is_ok() && self.goes_on(until);
        let is_put_off = |number: &SegmentNo| result.as_ref().is_ok_and(|put_off| put_off.contains(number));
        let mut writer = self.writer.lock();
        writer.squeezed = false;
        let lives = |number: &SegmentNo| writer.table.get(*number).map(|entry| entry.live).filter(|live| *live > 0);
        let left: Vec<(SegmentNo, u64)> =
            victims.iter().filter_map(|number| lives(number).map(|live| (*number, live))).collect();
        let has_gained = left.len() < victims.len();
        if !victims.is_empty() {
            let (all, dead) = (victims.len(), victims.len() - left.len());
            tracing::debug!(?aim, is_complete, "{dead} of {all} segments came to hold nothing");
        }
        cleaner.left.retain(|number, live| lives(number) == Some(*live));
        if is_complete {
            cleaner.left.extend(left.into_iter().filter(|(number, _)| !is_put_off(number)));
        }
        let is_all = is_complete && !victims.iter().any(is_put_off);
        if has_gained {
            writer.clean_from = 0;
        } else if (is_all && !is_cramped) || (is_cramped && self.nothing_comes(&writer)) {
            // Others may have what room there is (V6).
            writer.clean_from = self.wasted(&writer) + self.slack(&writer);
        }
        match result {
            Err(error) if !has_gained => Err(error),
            _ => Ok(has_gained),
        }
    }

    /// Whether there will be no more room in a moment than there is now.
    fn nothing_comes(&self, writer: &Writer) -> bool {
        !writer.has_raw() && writer.freeable() == 0 && self.graveyard.lock().iter().all(|(_, dead)| dead.is_empty())
    }

    /// The segments that are to come free; and whether there is much less room for moving than is set aside for that
    /// (V6), so that there may be more to gain in a moment.
    fn victims(&self, cleaner: &Cleaner, aim: Aim, until: Option<Instant>) -> (BTreeSet<SegmentNo>, bool) {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        let (table, wasted, slack, owed, open) = {
            let writer = match until {
                None => Some(self.writer.lock()),
                Some(until) => self.writer.try_lock_until(until),
            };
            // Walking over leaves that are behind would have them catch up in memory, all of them.
            let writer = writer.filter(|writer| writer.tree.leaves_behind() == 0);
            let Some(writer) = writer else { return (BTreeSet::new(), true) };
            let (wasted, slack) = (self.wasted(&writer), self.slack(&writer));
            (writer.table.clone(), wasted, slack, writer.owed_bytes(), self.log.open_segments())
        };
        let (sixteenths_max, gain_wanted) = match aim {
            Aim::Ceiling => (12, wasted.saturating_sub(table.held() / 3)),
            Aim::Space => (15, 8 * segment_bytes),
        };
        let moved_max = if self.log.disk().is_some() { MOVED_MAX } else { BUCKET_MOVED_MAX };
        let newest = table.iter().last().map_or(0, |(number, _)| number.0);
        let worth = |number: SegmentNo, bytes: u64, live: u64| {
            let age = match aim {
                Aim::Ceiling => newest - number.0 + 1,
                Aim::Space => 1,
            };
            (bytes - live) as f64 * age as f64 / (bytes + live) as f64
        };
        let mut found: Vec<(f64, SegmentNo, u64, u64)> = table
            .iter()
            .filter(|(number, entry)| {
                let is_left = cleaner.left.get(number) == Some(&entry.live);
                let live_max = table.bytes_of(*entry) * sixteenths_max / 16;
                (1..=live_max).contains(&entry.live) && !open.contains(number) && !is_left
            })
            .map(|(number, entry)| (number, table.bytes_of(entry), entry.live))
            .map(|(number, bytes, live)| (worth(number, bytes, live), number, bytes, live))
            .collect();
        found.sort_unstable_by(|(one, ..), (other, ..)| other.total_cmp(one));
        let room = self.log.capacity_max().saturating_sub(owed);
        let (mut gained, mut moved) = (0, 0);
        let mut victims = BTreeSet::new();
        for (_, number, bytes, live) in found {
            // The rest is for pages, and for what is lost at the ends of segments.
            if gained >= gain_wanted || moved + live > moved_max.min(room / 2) {
                break;
            }
            gained += bytes - live;
            moved += live;
            victims.insert(number);
        }
        if gained < segment_bytes / 8 {
            victims.clear();
        }
        (victims, room < slack / 2)
    }

    /// Moves what lives in these segments; answers of which of them it did not, since there was too much to do.
    fn empty(
        self: &Arc<Self>,
        victims: &BTreeSet<SegmentNo>,
        until: Option<Instant>,
    ) -> Result<BTreeSet<SegmentNo>, StoreError> {
        self.move_pages(victims, until)?;
        // In segments of pages there is nothing else, and no leaf has to be read for them.
        let is_left = |number: &&SegmentNo| self.writer.lock().table.get(**number).is_some_and(|entry| entry.live > 0);
        let rest: BTreeSet<SegmentNo> = victims.iter().filter(is_left).copied().collect();
        if rest.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.move_data(rest, until)
    }

    /// V4.
    fn move_pages(self: &Arc<Self>, victims: &BTreeSet<SegmentNo>, until: Option<Instant>) -> Result<(), StoreError> {
        let most = (self.limits.txn / 2 / PAGE_COST).clamp(1, STEP_PAGES);
        let mut behind: Option<Key> = None;
        while self.goes_on(until) {
            let Some((keys, last)) = self.pages_of(victims, behind.as_deref(), most, until)? else { break };
            // Between two steps: nobody else may come to it.
            self.bury();
            self.change_once_there(&keys, until, |txn| {
                let values = txn.get_all_before(&keys)?;
                for (key, value) in keys.iter().zip(values) {
                    // A page with a raw value is not stored (T6).
                    if let Some(value) = value.filter(|value| !value.must_be_placed()) {
                        txn.put(key, value);
                    }
                }
                Ok(())
            })?;
            match last {
                Some(last) => behind = Some(last),
                None => break,
            }
        }
        Ok(())
    }

    /// A key below each of the first pages in these segments below which no key is up to `behind`; and up to which
    /// key there are no more, if there may be some behind that.
    fn pages_of(
        self: &Arc<Self>,
        victims: &BTreeSet<SegmentNo>,
        behind: Option<&[u8]>,
        most: usize,
        until: Option<Instant>,
    ) -> Result<Option<Found<Key>>, StoreError> {
        self.walk(until, |root, pages| {
            let mut from: Vec<Key> = Vec::new();
            let (mut seen, mut seen_pages, mut is_over) = (Vec::new(), 0, false);
            root.stored_pages(pages, behind, &mut |key, at| {
                // Pages that begin with one key lie above each other.
                let is_new = seen_pages == 0 || seen != key;
                is_over = is_new && (from.len() >= most || seen_pages >= STEP_PAIRS);
                if is_over {
                    return ControlFlow::Break(());
                }
                if victims.contains(&at.segment) && from.last().is_none_or(|last| **last != *key) {
                    from.push(key.into());
                }
                if is_new {
                    seen.clear();
                    seen.extend_from_slice(key);
                }
                seen_pages += 1;
                ControlFlow::Continue(())
            })?;
            let mut keys = Vec::with_capacity(from.len());
            for from in &from {
                let first = &mut |key: &[u8], _: &Value| {
                    keys.push(Key::from(key));
                    ControlFlow::Break(())
                };
                root.scan(pages, Bound::Included(from), Bound::Unbounded, Direction::Forward, first)?;
            }
            Ok((keys, is_over.then(|| Key::from(seen))))
        })
    }

    /// Walks over a part of the current state; none: there is no time. In a file what is not in memory is read without
    /// keeping it, and nothing is freed meanwhile. In a bucket it is fetched, neighbours together, and `walk` is begun
    /// again; with what it had found before, however small the cache is.
    fn walk<T>(
        self: &Arc<Self>,
        until: Option<Instant>,
        mut walk: impl FnMut(&Root, &dyn Pages) -> Result<T, TreeError>,
    ) -> Result<Option<T>, StoreError> {
        if self.log.disk().is_some() {
            let _unfreed = self.unfreed.write();
            let root = self.published.read().root.clone();
            return Ok(Some(walk(&root, &Reading(self))?));
        }
        let (root, era) = {
            let published = self.published.read();
            (published.root.clone(), published.era.clone())
        };
        let pages = Fetched { cache: &self.cache, pages: RefCell::default() };
        while self.goes_on(until) {
            match walk(&root, &pages).map_err(|error| StoreError::from(error).in_era(&era)) {
                Err(StoreError::Miss(miss)) if self.fetch(&miss, until)? => {}
                Err(StoreError::Miss(_)) => break,
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    fn move_data(
        self: &Arc<Self>,
        victims: BTreeSet<SegmentNo>,
        until: Option<Instant>,
    ) -> Result<BTreeSet<SegmentNo>, StoreError> {
        if self.log.disk().is_none() {
            return self.move_data_in_bucket(victims, until);
        }
        // Found, read and moved in steps: what is found is mostly still so when it is to be moved, few leaves change for
        // much that is moved, and to read a unit twice costs little.
        let mut moved = Moved::default();
        let mut behind = None;
        while let Some((pieces, last)) = self.next_pieces(&victims, behind.as_deref(), UNITS_MAX, until)? {
            self.move_lot(&pieces, &mut moved, until)?;
            match last {
                Some(key) => behind = Some(key),
                None => break,
            }
        }
        Ok(BTreeSet::new())
    }

    /// All that refers to a unit is found first, and then moved together: each unit is read once, and much of a segment
    /// with one request. What others changed meanwhile is looked for once more.
    fn move_data_in_bucket(
        self: &Arc<Self>,
        mut victims: BTreeSet<SegmentNo>,
        until: Option<Instant>,
    ) -> Result<BTreeSet<SegmentNo>, StoreError> {
        let mut put_off = BTreeSet::new();
        let mut moved = Moved::default();
        for _ in 0..ROUNDS_MAX {
            let Some(mut pieces) = self.gather(&mut victims, &mut put_off, until)? else { break };
            let units = units_of(pieces.iter());
            let lots: Vec<&[Pointer]> = units.chunks(BUCKET_UNITS_MAX).collect();
            let lot_of = |piece: &Piece| lots.partition_point(|lot| lot.last().map(at) < Some(at(&piece.extent.unit)));
            // In each lot the keys rise: so neighbours in the tree are moved together.
            pieces.sort_by_cached_key(lot_of);
            for lot in pieces.chunk_by(|one, other| lot_of(one) == lot_of(other)) {
                self.move_lot(lot, &mut moved, until)?;
            }
            let lives = |number: &SegmentNo| self.writer.lock().table.get(*number).is_some_and(|entry| entry.live > 0);
            victims.retain(lives);
            if victims.is_empty() {
                break;
            }
        }
        Ok(put_off)
    }

    /// All extents in these segments, or if they are too many, in some of them. None: there is no time.
    fn gather(
        self: &Arc<Self>,
        victims: &mut BTreeSet<SegmentNo>,
        put_off: &mut BTreeSet<SegmentNo>,
        until: Option<Instant>,
    ) -> Result<Option<Vec<Piece>>, StoreError> {
        let mut pieces = Vec::new();
        let mut behind = None;
        loop {
            let Some((some, last)) = self.next_pieces(victims, behind.as_deref(), usize::MAX, until)? else {
                return Ok(None);
            };
            pieces.extend(some);
            while pieces.len() > GATHERED_MAX {
                // A single one that is referred to so often will not come free (V5).
                let Some(first) = victims.iter().nth(victims.len() / 2).copied() else { break };
                let mut others = victims.split_off(&first);
                pieces.retain(|piece| piece.extent.unit.segment < first);
                if !victims.is_empty() {
                    put_off.append(&mut others);
                }
            }
            match last {
                Some(key) => behind = Some(key),
                None => return Ok(Some(pieces)),
            }
        }
    }

    /// The next extents in these segments behind that key, in so many units or few more pairs; and up to which key there
    /// are no more, if there may be some behind that. None: there is no time.
    fn next_pieces(
        self: &Arc<Self>,
        victims: &BTreeSet<SegmentNo>,
        behind: Option<&[u8]>,
        units_max: usize,
        until: Option<Instant>,
    ) -> Result<Option<Found<Piece>>, StoreError> {
        let (mut pieces, mut units) = (Vec::new(), HashSet::new());
        let (mut pairs, mut is_over) = (0, false);
        let mut seen = behind.map(<[u8]>::to_vec);
        let walked = self.walk(until, |root, pages| {
            let from = seen.clone();
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            root.scan(pages, from, Bound::Unbounded, Direction::Forward, &mut |key, value| {
                pairs += 1;
                if let Value::Extent(extent) = value
                    && victims.contains(&extent.unit.segment)
                {
                    units.insert(extent.unit);
                    pieces.push(Piece { key: key.into(), extent: *extent });
                }
                let seen = seen.get_or_insert_default();
                seen.clear();
                seen.extend_from_slice(key);
                let is_late = pairs % 1024 == 0 && !self.goes_on(until);
                is_over = pairs >= STEP_PAIRS || units.len() >= units_max || is_late;
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })?;
        Ok(walked.map(|()| (pieces, seen.filter(|_| is_over).map(Key::from))))
    }

    /// Reads what these are, and moves it.
    fn move_lot(
        self: &Arc<Self>,
        pieces: &[Piece],
        moved: &mut Moved,
        until: Option<Instant>,
    ) -> Result<(), StoreError> {
        let to_read = pieces.iter().filter(|piece| moved.covering(&piece.extent).is_none());
        let units = self.read_units(units_of(to_read), until)?;
        // Between two steps: nobody else may come to it.
        self.bury();
        let mut left = pieces;
        while !left.is_empty() && self.goes_on(until) {
            let step;
            (step, left) = left.split_at(self.step(left));
            // What nobody can read stays (V5). And so does what another piece was to bring that was not moved.
            let can_be_moved =
                |piece: &&Piece| units.contains_key(&piece.extent.unit) || moved.covering(&piece.extent).is_some();
            let step: Vec<Piece> = step.iter().filter(can_be_moved).cloned().collect();
            if !step.is_empty() {
                self.log.wait_for_room(until);
                self.move_pieces(&step, &units, moved, until)?;
            }
        }
        Ok(())
    }

    /// How many of the first of these are moved in one step: at least one.
    fn step(&self, pieces: &[Piece]) -> usize {
        let (mut bytes, mut cost) = (0, 0);
        let fits = |piece: &&Piece| {
            bytes += u64::from(piece.extent.length);
            cost += piece.key.len() + PIECE_COST;
            bytes <= STEP_BYTES && cost < self.limits.txn / 2
        };
        pieces.iter().take(STEP_PIECES).take_while(fits).count().max(1)
    }

    /// What these hold, as far as their segments are still there and it can be read.
    fn read_units(self: &Arc<Self>, mut units: Vec<Pointer>, until: Option<Instant>) -> Result<Units, StoreError> {
        // A segment that something lives in now cannot be freed before the units have been read.
        let _unfreed = self.unfreed.write();
        {
            let writer = self.writer.lock();
            units.retain(|unit| writer.table.get(unit.segment).is_some_and(|entry| entry.live > 0));
        }
        match self.log.read_all(&units) {
            Ok(payloads) => Ok(units.into_iter().zip(payloads).collect()),
            // Something of it is damaged, or not there. Then its segment stays, and all that is in it (V5).
            Err(LogError::Damaged(_) | LogError::Gone(_)) => {
                let mut found = Units::new();
                for of_segment in units.chunk_by(|one, other| one.segment == other.segment) {
                    if !self.goes_on(until) {
                        break;
                    }
                    match self.log.read_all(of_segment) {
                        Ok(payloads) => found.extend(of_segment.iter().copied().zip(payloads)),
                        Err(error @ (LogError::Damaged(_) | LogError::Gone(_))) => {
                            tracing::warn!("cannot be moved: {error}");
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts them elsewhere.
    fn move_pieces(
        self: &Arc<Self>,
        pieces: &[Piece],
        units: &Units,
        moved: &mut Moved,
        until: Option<Instant>,
    ) -> Result<(), StoreError> {
        let keys: Vec<&Key> = pieces.iter().map(|piece| &piece.key).collect();
        let mut raw: Vec<(Key, Bytes)> = Vec::new();
        let first = moved.places.len();
        for Piece { key, extent } in pieces {
            if moved.covering(extent).is_none() {
                moved.add(extent);
                raw.push((key.clone(), bytes_of(units, extent)?));
            }
        }
        let bytes: u64 = raw.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let done = self.change_once_there(&keys, until, |txn| {
            let values = txn.get_all_before(&keys)?;
            // Only now: what misses anything is begun again. And with all that the transaction will need: refused
            // after this it would leave garbage behind, and less room than there was.
            let of_txn =
                self.pages_of_changes(keys.len()) + keys.iter().map(|key| (key.len() + PIECE_COST) as u64).sum::<u64>();
            // And somewhat more, since what is left of an open segment counts by half.
            self.log.ensure_capacity(txn.owed_bytes() + bytes + bytes / 2 + of_txn, Need::Growth)?;
            let placed = self.append_units(&raw)?;
            for (place, (.., extent)) in moved.places[first..].iter_mut().zip(placed) {
                *place = Some(extent);
            }
            for (Piece { key, extent }, value) in pieces.iter().zip(values) {
                let (which, start) = moved.covering(extent).expect("each was looked for");
                let place = moved.places[which].expect("appended just now, or before");
                // V1, V3.
                if value == Some(Value::Extent(*extent)) && (which >= first || txn.lives(place.unit.segment)) {
                    txn.put(key, Value::Extent(place).slice(start as usize, extent.length as usize));
                }
            }
            Ok(())
        })?;
        match done {
            true => self.moved_bytes.add(bytes),
            // They have no place.
            false => moved.take_back(first),
        }
        Ok(())
    }

    /// Makes a change when the leaves of these keys are in memory and there is room for it; answers whether it came to
    /// that. `change` is begun again after a miss. V2.
    fn change_once_there<K: AsRef<[u8]>>(
        self: &Arc<Self>,
        keys: &[K],
        until: Option<Instant>,
        mut change: impl FnMut(&mut Txn<'_>) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES_MAX {
            if !self.goes_on(until) {
                return Ok(false);
            }
            if !self.have_leaves(keys, until)? {
                return Ok(false);
            }
            while !self.wait_for_room(Room::Change, Some(Instant::now() + ROOM_WAIT))? {
                if !self.goes_on(until) {
                    return Ok(false);
                }
            }
            let _placing = self.placing.lock();
            let result = Txn::begin_now(self).and_then(|mut txn| {
                txn.only_moves();
                change(&mut txn)?;
                let committed = txn.commit();
                self.moves.add(u64::from(committed.is_ok()));
                committed
            });
            match result {
                // Somebody was faster, or pushed a page out of memory.
                Err(StoreError::Miss(_)) => {}
                result => return result.map(|()| true),
            }
        }
        Ok(false)
    }

    /// Has the leaves of these keys in memory, unless there is no time for it, or others push them out.
    fn have_leaves<K: AsRef<[u8]>>(self: &Arc<Self>, keys: &[K], until: Option<Instant>) -> Result<bool, StoreError> {
        for _ in 0..FETCHES_MAX {
            match View::new(self).get_all(keys) {
                Ok(_) => return Ok(true),
                Err(StoreError::Miss(miss)) if self.goes_on(until) && self.fetch(&miss, until)? => {}
                Err(StoreError::Miss(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn goes_on(&self, until: Option<Instant>) -> bool {
        !self.signals.are_to_stop() && self.log.failure().is_none() && until.is_none_or(|until| Instant::now() < until)
    }
}

/// Where a unit lies: so neighbours are in order.
fn at(unit: &Pointer) -> (SegmentNo, u32) {
    (unit.segment, unit.offset)
}

/// The units of these pieces, each once and in order.
fn units_of<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<Pointer> {
    let mut units: Vec<Pointer> = pieces.map(|piece| piece.extent.unit).collect();
    units.sort_unstable_by_key(at);
    units.dedup();
    units
}

/// What of a unit an extent is.
fn bytes_of(units: &Units, extent: &Extent) -> Result<Bytes, StoreError> {
    let Extent { unit, offset, length } = *extent;
    let (start, end) = (offset as usize, offset as usize + length as usize);
    let payload = units.get(&unit).expect("each unit was read");
    if payload.len() < end {
        let what = format!("unit at {unit}: {} bytes, of which {start}..{end} are in use", payload.len());
        return Err(StoreError::Damaged(what.into()));
    }
    Ok(payload.slice(start..end).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::log::Geometry;
    use crate::store::{CreateOptions, OpenOptions, Store};

    const SEGMENT_BYTES: u32 = 64 << 10;

    fn store_on(disk: &Arc<MemoryDisk>) -> Store {
        let geometry = Geometry { ring_bytes: 1 << 20, segment_bytes: SEGMENT_BYTES, page_bytes: 1 << 10 };
        let options = CreateOptions { geometry: Some(geometry), ..CreateOptions::default() };
        Store::create_on(disk.clone(), &options).unwrap();
        Store::open_on(disk.clone(), &OpenOptions { cache_bytes: 8 << 20, ..OpenOptions::default() }).unwrap()
    }

    /// So that the background does nothing of it.
    fn store() -> Store {
        let store = store_on(&Arc::default());
        store.core.writer.lock().clean_from = u64::MAX;
        store
    }

    fn key(number: usize) -> [u8; 4] {
        (number as u32).to_be_bytes()
    }

    /// Nothing of it can be compressed, so that a unit takes what is in it.
    fn value(number: usize, round: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut seed = (number as u64) << 32 | round as u64 | 1 << 63;
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (seed >> 56) as u8;
        }
        bytes
    }

    fn put(store: &Store, pairs: impl Iterator<Item = (usize, Value)>) {
        let pairs: Vec<_> = pairs.collect();
        for some in pairs.chunks(50) {
            store
                .patiently(|| {
                    let mut txn = store.begin()?;
                    some.iter().for_each(|(number, value)| txn.put(&key(*number), value.clone()));
                    txn.commit()
                })
                .unwrap();
        }
    }

    fn get(store: &Store, number: usize) -> Value {
        store.patiently(|| store.view().get(&key(number))).unwrap().unwrap()
    }

    fn bytes(store: &Store, number: usize) -> Bytes {
        let value = get(store, number);
        store.patiently(|| store.view().read(std::slice::from_ref(&value))).unwrap().remove(0)
    }

    fn extent(store: &Store, number: usize) -> Extent {
        match get(store, number) {
            Value::Extent(extent) => extent,
            Value::Bytes(_) => panic!("{number} is not placed"),
        }
    }

    fn assert_whole(store: &Store) {
        assert_eq!(store.core.check(true), Vec::<String>::new());
    }

    /// Segments that hold something.
    fn filled(store: &Store) -> u64 {
        let writer = store.core.writer.lock();
        writer.table.count() - writer.table.dead()
    }

    /// 600 values of 2000 bytes, of which all but each seventh were put over.
    fn mostly_dead() -> Store {
        let store = store();
        put(&store, (0..600).map(|number| (number, value(number, 0, 2000).into())));
        store.checkpoint().unwrap();
        put(&store, (0..600).filter(|number| number % 7 != 0).map(|number| (number, value(number, 1, 2000).into())));
        store.checkpoint().unwrap();
        store
    }

    fn clean_all(store: &Store) {
        let wasted = || store.core.wasted_now();
        loop {
            let before = wasted();
            if !store.clean().unwrap() {
                return;
            }
            store.checkpoint().unwrap();
            if wasted() >= before {
                return;
            }
        }
    }

    fn clean_to_ceiling(store: &Store) {
        loop {
            let aim = store.core.aim(&store.core.writer.lock());
            if aim.is_none_or(|aim| !store.core.clean(aim, None).unwrap()) {
                return;
            }
        }
    }

    #[test]
    fn what_lives_is_moved_and_the_space_comes_free() {
        let store = mostly_dead();
        let before = filled(&store);
        clean_all(&store);
        let after = filled(&store);
        // 1.2 MB of data, and the pages.
        assert!(before >= 35 && after <= 26, "{before} segments before, {after} after");
        assert!(store.activity().moved_bytes >= 80 * 2000);
        for number in 0..600 {
            assert!(bytes(&store, number) == value(number, usize::from(number % 7 != 0), 2000), "{number}");
        }
        assert_whole(&store);
        // And little more is to be gained.
        let wasted = store.core.wasted_now();
        assert!(wasted <= 8 * u64::from(SEGMENT_BYTES), "{wasted} bytes");
    }

    #[test]
    fn a_store_that_always_changes_in_place_stays_within_its_ceiling() {
        let store = store_on(&Arc::default());
        let mut seed = 1_u64;
        for round in 0..60 {
            let some = (0..60).map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let number = (seed >> 33) as usize % 600;
                (number, value(number, round, 2000).into())
            });
            put(&store, some.collect::<Vec<_>>().into_iter());
            store.checkpoint().unwrap();
            clean_to_ceiling(&store);
        }
        store.checkpoint().unwrap();
        clean_to_ceiling(&store);
        // The keeper may have it done, too.
        drop(store.core.cleaner.lock());
        let held = store.core.writer.lock().table.held();
        let filled = filled(&store);
        let ceiling = held / 2 * 3 / u64::from(SEGMENT_BYTES) + 8 + 3;
        assert!(filled <= ceiling, "{filled} segments hold {held} bytes, {ceiling} would do");
        assert!(store.activity().moved_bytes > 0);
        assert_whole(&store);
    }

    #[test]
    fn pages_that_do_not_change_are_moved_too() {
        let store = store();
        let all = |round| (0..4000).map(move |number| (number, value(number, round, 200).into()));
        put(&store, all(0));
        store.checkpoint().unwrap();
        // All pages but every eighth: of four pairs each.
        put(&store, all(1).filter(|(number, _)| number / 4 % 8 != 0));
        store.checkpoint().unwrap();
        let before = filled(&store);
        clean_all(&store);
        let after = filled(&store);
        assert!(before >= 24 && after <= before - 8, "{before} segments before, {after} after");
        for number in 0..4000 {
            assert!(bytes(&store, number) == value(number, usize::from(number / 4 % 8 != 0), 200), "{number}");
        }
        assert_whole(&store);
    }

    /// V3.
    #[test]
    fn copies_share_what_was_moved() {
        let store = mostly_dead();
        let first = get(&store, 0);
        // Both in other steps, should a step end between; a part of it, too.
        put(&store, [(700, first.clone()), (701, first.slice(100, 900))].into_iter());
        store.checkpoint().unwrap();
        clean_all(&store);
        let moved = extent(&store, 0);
        assert_ne!(Value::Extent(moved), first);
        assert_eq!(extent(&store, 700), moved);
        assert_eq!(get(&store, 701), Value::Extent(moved).slice(100, 900));
        assert!(bytes(&store, 0) == value(0, 0, 2000) && bytes(&store, 701) == value(0, 0, 2000)[100..1000]);
        assert_whole(&store);
    }

    /// V3: the place is in a segment that may be on its way to be freed.
    #[test]
    fn what_was_moved_and_has_died_since_is_not_shared() {
        let store = mostly_dead();
        put(&store, [(700, get(&store, 0))].into_iter());
        store.checkpoint().unwrap();
        let core = &store.core;
        let victims = BTreeSet::from([extent(&store, 0).unit.segment]);
        let (mut pieces, _) = core.next_pieces(&victims, None, usize::MAX, None).unwrap().unwrap();
        let of_copy = pieces.pop().unwrap();
        assert!(*of_copy.key == key(700) && *pieces[0].key == key(0));
        let mut moved = Moved::default();
        core.move_lot(&pieces, &mut moved, None).unwrap();
        // All that is in it dies.
        let place = moved.places[0].unwrap().unit.segment;
        let mut round = 2;
        while core.log.open_segments().contains(&place) || core.writer.lock().table.get(place).is_some() {
            put(&store, (0..600).map(|number| (number, value(number, round, 2000).into())));
            store.checkpoint().unwrap();
            round += 1;
            assert!(round < 100, "{place:?} does not come free");
        }
        let still = extent(&store, 700);
        assert!(moved.covering(&still).is_some());
        core.move_lot(&[Piece { key: of_copy.key, extent: still }], &mut moved, None).unwrap();
        assert_eq!(extent(&store, 700), still);
        assert_whole(&store);
    }

    /// V1.
    #[test]
    fn what_is_put_while_it_is_moved_stays() {
        let store = mostly_dead();
        let core = &store.core;
        let victims = BTreeSet::from([extent(&store, 0).unit.segment]);
        let (pieces, _) = core.next_pieces(&victims, None, usize::MAX, None).unwrap().unwrap();
        let number = |piece: &Piece| u32::from_be_bytes((*piece.key).try_into().unwrap()) as usize;
        let (first, second) = (number(&pieces[0]), number(&pieces[1]));
        let mut txn = store.begin().unwrap();
        txn.put(&key(first), b"new".to_vec());
        txn.delete(&key(second));
        txn.commit().unwrap();
        core.move_lot(&pieces, &mut Moved::default(), None).unwrap();
        assert_eq!(bytes(&store, first), &b"new"[..]);
        assert!(store.view().get(&key(second)).unwrap().is_none());
        assert!(core.writer.lock().table.get(*victims.first().unwrap()).unwrap().live == 0);
        store.checkpoint().unwrap();
        assert_whole(&store);
    }

    /// V5.
    #[test]
    fn what_cannot_be_read_stays_where_it_is() {
        let disk: Arc<MemoryDisk> = Arc::default();
        let store = store_on(&disk);
        store.core.writer.lock().clean_from = u64::MAX;
        put(&store, (0..600).map(|number| (number, value(number, 0, 2000).into())));
        store.checkpoint().unwrap();
        put(&store, (0..600).filter(|number| number % 7 != 0).map(|number| (number, value(number, 1, 2000).into())));
        store.checkpoint().unwrap();
        let damaged = extent(&store, 0);
        let place = store.core.writer.lock().table.get(damaged.unit.segment).unwrap().place;
        let at = store.core.log.geometry().slots_offset()
            + u64::from(place) * u64::from(SEGMENT_BYTES)
            + u64::from(damaged.unit.offset);
        use crate::backend::Disk;
        let mut byte = [0];
        disk.read_at(at, &mut byte).unwrap();
        disk.write_at(at, &[byte[0] ^ 1]).unwrap();
        clean_all(&store);
        assert_eq!(extent(&store, 0), damaged);
        assert!(filled(&store) <= 28, "{} segments", filled(&store));
        assert!(store.core.log.failure().is_none());
    }
}
