//! Moving what lives in some segments elsewhere, so that they come free: how the cleaner (`clean`, with the invariants
//! V1 to V7) goes about it.

use super::cache::Cache;
use super::clean::GIVE_BACK_WAIT;
use super::txn::Txn;
use super::view::View;
use super::{Core, Reading, Room, StoreError};
use crate::log::{Codec, LogError, Need, Payload, Pointer, SegmentNo};
use crate::tree::{Direction, Extent, InMemory, KEY_MAX, Key, Node, Pages, Root, TreeError, VALUE_INLINE_MAX, Value};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most bytes that one step moves.
const STEP_BYTES: u64 = 1 << 20;
/// Pairs that are looked at in one step: as long it keeps what was freed from being used.
const STEP_PAIRS: usize = 50_000;
/// And bytes of these: in a bucket their leaves are all in memory meanwhile.
const STEP_WALKED_BYTES: usize = 8 << 20;
/// Pages that are moved in one step, and pieces: each may be in a leaf of its own, and all of these have to find room in
/// the cache together.
const STEP_PAGES: usize = 128;
const STEP_PIECES: usize = 256;
/// So many pieces are found before they are moved: each takes a hundred bytes or two. If there are more, fewer segments
/// are emptied. (In the cleaner's tests so few that it comes to that.)
pub(super) const GATHERED_MAX: usize = if cfg!(test) { 40 } else { 100_000 };
/// Units that are read together, each of which may have 64 KiB in memory: from a file, and from a bucket.
const UNITS_MAX: usize = 64;
const BUCKET_UNITS_MAX: usize = 256;
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
/// How long room is waited for before it is looked whether the store is to end.
const ROOM_WAIT: Duration = Duration::from_millis(200);

/// Pieces of units that a pass moved, and where to.
#[derive(Default)]
pub(super) struct Moved {
    /// By unit: its segment, and where it lies there.
    pieces: HashMap<(SegmentNo, u32), Vec<MovedPiece>>,
    /// None: it is about to be appended.
    pub(super) places: Vec<Option<Extent>>,
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
    pub(super) fn covering(&self, extent: &Extent) -> Option<(usize, u32)> {
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
pub(super) struct Piece {
    pub(super) key: Key,
    pub(super) extent: Extent,
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
pub(super) type Found<T> = (Vec<T>, Option<Key>);

/// What units hold.
type Units = HashMap<Pointer, Payload>;

impl Core {
    /// Moves what lives in these segments; answers of which of them it did not, since there was too much to do.
    pub(super) fn empty(
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
        let mut has_paid = false;
        while self.goes_on(until) {
            let Some((keys, last)) = self.pages_of(victims, behind.as_deref(), most, until)? else { break };
            // Between two steps: nobody else may come to it.
            self.bury();
            let moved = self.change_once_there(&keys, until, |txn| {
                let values = txn.get_all_before(&keys)?;
                for (key, value) in keys.iter().zip(values) {
                    // A page with a raw value is not stored (T6).
                    if let Some(value) = value.filter(|value| !value.must_be_placed()) {
                        txn.put(key, value);
                    }
                }
                Ok(())
            });
            match moved {
                // Until they are stored, pages count as they are before compression.
                Err(StoreError::NoSpace) if !has_paid => {
                    has_paid = true;
                    self.give_back(until.unwrap_or_else(|| Instant::now() + GIVE_BACK_WAIT));
                    continue;
                }
                Ok(has_moved) => has_paid &= !has_moved,
                Err(error) => return Err(error),
            }
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
            // What is missing, together. (From a file it would be read twice.)
            if self.log.disk().is_none() {
                root.get_all(pages, &from)?;
            }
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
        if self.log.disk().is_some() && self.goes_on(until) {
            let _unfreed = self.unfreed.write();
            let root = self.published.read().root.clone();
            return Ok(Some(walk(&root, &Reading(self))?));
        }
        let pages = Fetched { cache: &self.cache, pages: RefCell::default() };
        while self.goes_on(until) {
            // Each time anew: while an older state is held, pages are copied that need not be.
            let (root, era) = {
                let published = self.published.read();
                (published.root.clone(), published.era.clone())
            };
            match walk(&root, &pages).map_err(|error| StoreError::from(error).in_era(&era)) {
                Err(StoreError::Miss(miss)) => {
                    drop((root, era));
                    if !self.fetch(&miss, until)? {
                        break;
                    }
                }
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// What is not in pages. Answers as [`Core::empty`] does.
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
    pub(super) fn move_data_in_bucket(
        self: &Arc<Self>,
        mut victims: BTreeSet<SegmentNo>,
        until: Option<Instant>,
    ) -> Result<BTreeSet<SegmentNo>, StoreError> {
        let mut put_off = BTreeSet::new();
        let mut moved = Moved::default();
        for _ in 0..ROUNDS_MAX {
            let Some(mut pieces) = self.gather(&mut victims, &mut put_off, until)? else { break };
            let moved_before = self.moved_bytes.get();
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
            // What could not be moved the first time will not be the next.
            if victims.is_empty() || self.moved_bytes.get() == moved_before {
                break;
            }
        }
        Ok(put_off)
    }

    /// All extents in these segments, keys rising. Where they are too many, the newer segments are taken out of `victims`,
    /// and but for a last one, put off. None: there is no time.
    pub(super) fn gather(
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
                Some(key) if !victims.is_empty() => behind = Some(key),
                _ => return Ok(Some(pieces)),
            }
        }
    }

    /// The next extents in these segments behind that key, in so many units or few more pairs; and up to which key there
    /// are no more, if there may be some behind that. None: there is no time.
    pub(super) fn next_pieces(
        self: &Arc<Self>,
        victims: &BTreeSet<SegmentNo>,
        behind: Option<&[u8]>,
        units_max: usize,
        until: Option<Instant>,
    ) -> Result<Option<Found<Piece>>, StoreError> {
        let (mut pieces, mut units) = (Vec::new(), HashSet::new());
        let (mut pairs, mut bytes, mut is_over) = (0, 0, false);
        let mut seen = behind.map(<[u8]>::to_vec);
        let walked = self.walk(until, |root, pages| {
            let from = seen.clone();
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            root.scan(pages, from, Bound::Unbounded, Direction::Forward, &mut |key, value| {
                pairs += 1;
                bytes += key.len() + if let Value::Bytes(value) = value { value.len() } else { 0 };
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
                let is_much = pairs >= STEP_PAIRS || bytes >= STEP_WALKED_BYTES;
                is_over = is_much || units.len() >= units_max || is_late;
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })?;
        Ok(walked.map(|()| (pieces, seen.filter(|_| is_over).map(Key::from))))
    }

    /// Reads what these are, and moves it.
    pub(super) fn move_lot(
        self: &Arc<Self>,
        pieces: &[Piece],
        moved: &mut Moved,
        until: Option<Instant>,
    ) -> Result<(), StoreError> {
        if !self.goes_on(until) {
            return Ok(());
        }
        let to_read = pieces.iter().filter(|piece| moved.covering(&piece.extent).is_none());
        let units = self.read_units(units_of(to_read), until)?;
        // Between two steps: nobody else may come to it.
        self.bury();
        let (mut left, mut step_max) = (pieces, usize::MAX);
        while !left.is_empty() && self.goes_on(until) {
            let (step, rest) = left.split_at(self.step(left).min(step_max));
            // What nobody can read stays (V5). And so does what another piece was to bring that was not moved.
            let can_be_moved = |piece: &&Piece| {
                let Extent { unit, offset, length } = piece.extent;
                let end = u64::from(offset) + u64::from(length);
                units.get(&unit).is_some_and(|payload| payload.len() as u64 >= end)
                    || moved.covering(&piece.extent).is_some()
            };
            let step: Vec<Piece> = step.iter().filter(can_be_moved).cloned().collect();
            if !step.is_empty() {
                self.log.wait_for_room(until);
                match self.move_pieces(&step, &units, moved, until) {
                    // It was to be less than what room there is, and may be still.
                    Err(StoreError::NoSpace) if step.len() > 1 => {
                        step_max = step.len() / 2;
                        continue;
                    }
                    result => result?,
                }
            }
            left = rest;
        }
        Ok(())
    }

    /// How many of the first of these are moved in one step: at least one.
    fn step(&self, pieces: &[Piece]) -> usize {
        let (mut bytes, mut cost) = (0, 0);
        // What stands ready in a file has to have room for it, with pages and what is lost at the ends of segments.
        let bytes_max = STEP_BYTES.min(self.log.geometry().segment_bytes.into());
        let fits = |piece: &&Piece| {
            bytes += u64::from(piece.extent.length);
            cost += piece.key.len() + PIECE_COST;
            bytes <= bytes_max && cost < self.limits.txn / 2
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
            Err(error) if self.is_of_one_place(&error) => {
                let mut found = Units::new();
                for of_segment in units.chunk_by(|one, other| one.segment == other.segment) {
                    if !self.goes_on(until) {
                        break;
                    }
                    match self.log.read_all(of_segment) {
                        Ok(payloads) => found.extend(of_segment.iter().copied().zip(payloads)),
                        Err(error) if self.is_of_one_place(&error) => {
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

    /// Whether that error says nothing of what lies elsewhere.
    fn is_of_one_place(&self, error: &LogError) -> bool {
        match error {
            LogError::Damaged(_) | LogError::Gone(_) => true,
            // A bad block of a disk; of a bucket, that it does not answer.
            LogError::Io(_) => self.log.disk().is_some(),
            _ => false,
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
        let mut of_units: HashMap<Pointer, u64> = HashMap::new();
        let first = moved.places.len();
        for Piece { key, extent } in pieces {
            if moved.covering(extent).is_none() {
                moved.add(extent);
                *of_units.entry(extent.unit).or_default() += u64::from(extent.length);
                let payload = units.get(&extent.unit).expect("each unit was read");
                let (start, end) = (extent.offset as usize, extent.offset as usize + extent.length as usize);
                raw.push((key.clone(), payload.slice(start..end).into_bytes()));
            }
        }
        let bytes: u64 = raw.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        // Of one unit no more than that takes: what was compressed is again, whatever this mount compresses.
        let stored: u64 = of_units.iter().map(|(unit, bytes)| u64::from(unit.length).min(*bytes)).sum();
        let was_compressed = of_units.keys().any(|unit| unit.codec == Codec::Lz4);
        let codec = if was_compressed { Codec::Lz4 } else { self.log.codec() };
        let done = self.change_once_there(&keys, until, |txn| {
            let values = txn.get_all_before(&keys)?;
            // Only now: what misses anything is begun again. And with all that the transaction will need: refused
            // after this it would leave garbage behind, and less room than there was.
            let of_txn =
                self.pages_of_changes(keys.len()) + keys.iter().map(|key| (key.len() + PIECE_COST) as u64).sum::<u64>();
            // And somewhat more, since what is left of an open segment counts by half.
            self.log.ensure_capacity(txn.owed_bytes() + stored + stored / 2 + of_txn, Need::Growth)?;
            let placed = self.append_units_with(codec, &raw)?;
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
        });
        match done {
            Ok(true) => self.moved_bytes.add(bytes),
            // They have no place.
            Ok(false) | Err(_) => moved.take_back(first),
        }
        done.map(|_| ())
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
                let begun = self.begun.load(Ordering::SeqCst);
                let committed = txn.commit();
                // One that changes nothing is none.
                self.moves.add(u64::from(self.begun.load(Ordering::SeqCst) > begun));
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

    pub(super) fn goes_on(&self, until: Option<Instant>) -> bool {
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
