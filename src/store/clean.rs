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
//! * What lives is counted as the segment table counts it: about as stored. (A part of what was compressed counts as
//!   that was on the whole.)
//! * What refers to them is found by walking the tree: its inner pages, and all its leaves if there is
//!   more in these segments than pages. A walk is for up to [`MOVED_MAX`] that are moved; in a bucket, where leaves that are
//!   not at hand cost requests, for [`BUCKET_MOVED_MAX`]. (The index of a segment names owners, but neither copies nor
//!   what has got another name.)
//!
//! # How
//!
//! (In `moving`.) A move is a transaction as any other: durable, atomic and undone as such, and a crash leaves what there was or
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
//!   changed, or somebody is refused for the cleaner's room: one that is idle is left alone.
//! * V6 Moving takes space before it gives any. So as long as there may be something to be gained, others leave it some
//!   ([`Core::room_to_clean`]). And where there is nothing, still what one segment is moved with: of a store that was
//!   filled to the brim, and of which every other file was deleted then, nothing could be moved any more, and it would
//!   be full for good. (Where others have taken the disk's space it may not be there, until enough has come free.)
//! * V7 What is deleted changes pages, and these are stored anew before what they replace comes free: where small files
//!   fill a store and some of them are deleted here and there, by and by all pages. So beside what moving needs as much
//!   is kept as one of [`PAGES_BY_ROOM`] pages takes, and a segment. Only who deletes may take that; what moving needs not
//!   even they, but they wait for the cleaner ([`Core::cleaner_may_help`]). It gives back what they took, since all of that
//!   is wasted elsewhere by then: on an average one of so many pages of each segment. (Not if each pass stored all pages
//!   above the leaves among these anew: [`Core::upper`].)

use super::writer::{Phase, Writer};
use super::{Core, StoreError};
use crate::log::{READY_SEGMENTS, SegmentNo};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most bytes that one pass moves: in a file, and in a bucket.
const MOVED_MAX: u64 = 128 << 20;
const BUCKET_MOVED_MAX: u64 = 1 << 30;
/// How long none is made after one that gained nothing.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a pass waits for what the one before it gained.
pub(super) const GIVE_BACK_WAIT: Duration = Duration::from_secs(5);

/// Of so many pages, room is kept for one (V7).
const PAGES_BY_ROOM: u64 = 16;

/// So many passes in a row who deletes waits for, if each frees a segment: what it gains may be a sixteenth of that, or,
/// now and then, nothing.
pub(super) const VAIN_PASSES_MAX: u32 = 64;

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

/// What one pass is about.
#[derive(Default)]
struct Plan {
    /// The segments that are to come free.
    victims: BTreeSet<SegmentNo>,
    /// There are some, but no room to move what lives in them; nor time to look.
    lacks_room: bool,
    /// There is much less room than is set aside for that (V6): there may be more to gain in a moment.
    is_short: bool,
}

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
        let is_of_use = writer.squeezed || self.wasted(writer) >= writer.clean_from;
        self.aim(writer).filter(|_| !is_too_early && is_of_use)
    }

    fn aim(&self, writer: &Writer) -> Option<Aim> {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        if writer.closing || writer.tree.leaves_behind() > 0 {
            return None;
        }
        let (wasted, slack) = (self.wasted(writer), self.slack(writer));
        let is_short = || writer.starved || self.log.unallocated_bytes() < slack + 4 * segment_bytes;
        // Who is refused is not to be for what is wasted, however little that is.
        if self.log.disk().is_some() && (writer.squeezed || wasted > slack && is_short()) {
            return Some(Aim::Space);
        }
        (wasted > writer.table.held() / 2 + slack).then_some(Aim::Ceiling)
    }

    /// Bytes of segments that hold something, and that do not. Those that are being filled do not count.
    fn wasted(&self, writer: &Writer) -> u64 {
        let being_filled = 2 + u64::from(self.has_upper(&writer.table));
        let being_filled = being_filled * u64::from(self.log.geometry().segment_bytes);
        writer.table.taken().saturating_sub(being_filled + writer.table.held())
    }

    /// The same, now; none: that cannot be told before the deadline.
    pub(super) fn wasted_now(&self, until: Instant) -> Option<u64> {
        self.writer.try_lock_until(until).map(|writer| self.wasted(&writer))
    }

    /// What may be wasted in any store; and as much room is needed to gain some where most of each segment lives. Less
    /// where there is little beside what lives: a part of it is to be wasted, a part is that room, and the rest is for
    /// who writes meanwhile.
    fn slack(&self, writer: &Writer) -> u64 {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        let beside = self.log.unallocated_bytes().saturating_add(self.wasted(writer));
        (writer.table.held() / 8).min(beside / 2).clamp(2 * segment_bytes, 8 * segment_bytes)
    }

    /// Whether there may be something to be gained in a file.
    fn is_worth_cleaning(&self, writer: &Writer) -> bool {
        let wasted = self.wasted(writer);
        self.log.disk().is_some() && wasted > self.slack(writer) && wasted >= writer.clean_from
    }

    /// V6: what is not for who adds to the store.
    pub(super) fn room_to_clean(&self, writer: &Writer) -> u64 {
        let kept = self.room_kept(writer);
        if self.is_worth_cleaning(writer) { kept.max(self.slack(writer)) } else { kept }
    }

    /// V6, V7: what is not even when there is nothing to be gained. With it gained what is deleted later. A store that
    /// holds next to nothing needs none to move that.
    pub(super) fn room_kept(&self, writer: &Writer) -> u64 {
        self.log.ready_capacity(u64::MAX).min(2 * (writer.table.held() + writer.owed_bytes()))
    }

    /// V6: what of that is not even for who deletes.
    pub(super) fn room_to_move(&self, kept: u64) -> u64 {
        self.log.ready_capacity(READY_SEGMENTS).min(kept)
    }

    /// V6, V7: what is to stand ready, for pages as they are now.
    pub(super) fn keep_room(&self, writer: &Writer) {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        let pages = writer.table.pages().unwrap_or(0);
        let for_pages = pages / PAGES_BY_ROOM + pages.min(segment_bytes);
        self.log.want_ready(READY_SEGMENTS + for_pages / segment_bytes);
    }

    /// What the cleaner may gain in a file: about, and not more than it will.
    pub(super) fn gainable(&self, writer: &Writer) -> u64 {
        let wasted = self.wasted(writer);
        match self.log.disk().is_some() && wasted >= writer.clean_from {
            // What is nearly full is not moved.
            true => wasted.saturating_sub(writer.table.held() / 16),
            false => 0,
        }
    }

    /// Cleans as long as that is due; whoever waits for that goes on. On the cleaner's thread.
    pub(super) fn clean_when_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut is_done = false;
        let result = self.clean_while_due(&mut is_done);
        if result.is_err() || !is_done {
            self.end_pass(&mut self.writer.lock(), false);
        }
        result
    }

    /// V7: whoever waits for the cleaner looks whether there is room now.
    fn end_pass(&self, writer: &mut Writer, has_gained: bool) {
        if std::mem::take(&mut writer.awaits_cleaner) {
            writer.vain_passes += if has_gained { 1 } else { VAIN_PASSES_MAX / 4 };
            self.room.notify_all();
        }
    }

    /// `is_done`: a pass was made, and ended.
    fn clean_while_due(self: &Arc<Self>, is_done: &mut bool) -> Result<(), StoreError> {
        let mut due = self.due_aim(&self.writer.lock());
        while let Some(aim) = due {
            if aim == Aim::Space {
                // What one under way stores counts twice: there would seem to be no room.
                self.wait_for_the_checkpoint(Instant::now() + GIVE_BACK_WAIT);
            }
            let count = || (self.begun.load(Ordering::SeqCst), self.moves.get());
            let (before, (begun_before, moves_before)) = (self.wasted(&self.writer.lock()), count());
            let outcome = self.clean(aim, None);
            let has_gained = matches!(outcome, Ok(true));
            let is_awaited = self.writer.lock().awaits_cleaner;
            if aim == Aim::Space && (has_gained || is_awaited) {
                // Then the next pass has what this one gained; or there was only what is owed in its way.
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
            *is_done = true;
            self.end_pass(&mut writer, has_gained);
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
        let wait = until.unwrap_or_else(|| Instant::now() + GIVE_BACK_WAIT);
        // Asked before it is looked what there is: what the next checkpoint frees is not in that. And the log may just be
        // about to give some back.
        let nothing_came = self.writer.try_lock_until(wait).is_some_and(|writer| self.nothing_comes(&writer));
        self.log.wait_until_freed(wait);
        let Plan { victims, lacks_room, is_short } = self.plan(&cleaner, aim, until);
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
            self.gains.add(1);
            writer.clean_from = 0;
        } else if is_all && !lacks_room && (!is_short || nothing_came && self.nothing_comes(&writer)) {
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
        // A checkpoint under way counts its pages twice.
        let is_quiet = writer.phase == Phase::Idle && !writer.has_raw() && writer.freeable() == 0;
        is_quiet && self.graveyard.lock().iter().all(|(_, dead)| dead.is_empty())
    }

    fn plan(&self, cleaner: &Cleaner, aim: Aim, until: Option<Instant>) -> Plan {
        let segment_bytes = u64::from(self.log.geometry().segment_bytes);
        let (table, wasted, slack, owed, open) = {
            let writer = match until {
                None => Some(self.writer.lock()),
                Some(until) => self.writer.try_lock_until(until),
            };
            // Walking over leaves that are behind would have them catch up in memory, all of them.
            let writer = writer.filter(|writer| writer.tree.leaves_behind() == 0);
            let Some(writer) = writer else { return Plan { lacks_room: true, ..Plan::default() } };
            let (wasted, slack) = (self.wasted(&writer), self.slack(&writer));
            (writer.table.clone(), wasted, slack, writer.owed_bytes(), self.log.open_segments())
        };
        // Where there is no space, any gain is worth it.
        let (sixteenths_max, gain_min, gain_wanted) = match aim {
            Aim::Ceiling => (12, segment_bytes / 8, wasted.saturating_sub(table.held() / 3)),
            Aim::Space => (15, segment_bytes / 16, 8 * segment_bytes),
        };
        let moved_max = if self.log.disk().is_some() { MOVED_MAX } else { BUCKET_MOVED_MAX };
        let newest = table.iter().last().map_or(0, |(number, _)| number.0);
        let worth = |number: SegmentNo, bytes: u64, live: u64| {
            let age = newest - number.0 + 1;
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
        // Beyond the quota of a file nothing may grow, not even for a moment: what is moved would be in the reserve.
        let is_beyond = self.log.is_beyond_quota();
        let room = if is_beyond { 0 } else { self.log.capacity_max().saturating_sub(owed) };
        let (mut gained, mut moved, mut lacks_room) = (0, 0, false);
        let mut victims = BTreeSet::new();
        for (_, number, bytes, live) in found {
            // The rest is for pages, and for what is lost at the ends of segments: less for a single one.
            let most = if victims.is_empty() { room / 3 * 2 } else { room / 2 };
            lacks_room = moved + live > most;
            if gained >= gain_wanted || lacks_room || moved + live > moved_max {
                break;
            }
            gained += bytes - live;
            moved += live;
            victims.insert(number);
        }
        if gained < gain_min {
            victims.clear();
        }
        Plan { victims, lacks_room: lacks_room && gained < gain_min, is_short: room < slack / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::log::Geometry;
    use crate::store::moving::{GATHERED_MAX, Moved, Piece};
    use crate::store::{CreateOptions, OpenOptions, Store};
    use crate::tree::{Extent, Value};
    use bytes::Bytes;

    const SEGMENT_BYTES: u32 = 64 << 10;

    fn store_on(disk: &Arc<MemoryDisk>) -> Store {
        let geometry =
            Geometry { ring_bytes: 1 << 20, ring_at_first: 1 << 20, segment_bytes: SEGMENT_BYTES, page_bytes: 1 << 10 };
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
        let wasted = || store.core.wasted(&store.core.writer.lock());
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
        let wasted = store.core.wasted(&store.core.writer.lock());
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

    /// As in a bucket.
    #[test]
    fn what_is_too_much_is_put_off() {
        let store = mostly_dead();
        let core = &store.core;
        let live = |number: &SegmentNo| core.writer.lock().table.get(*number).map_or(0, |entry| entry.live);
        let all: BTreeSet<SegmentNo> = (0..600).step_by(7).map(|number| extent(&store, number).unit.segment).collect();
        let (mut victims, mut put_off) = (all.clone(), BTreeSet::new());
        let pieces = core.gather(&mut victims, &mut put_off, None).unwrap().unwrap();
        assert!(
            pieces.len() <= GATHERED_MAX && pieces.iter().all(|piece| victims.contains(&piece.extent.unit.segment))
        );
        assert!(!victims.is_empty() && !put_off.is_empty() && victims.union(&put_off).eq(&all));
        let before: Vec<u64> = put_off.iter().map(live).collect();
        assert_eq!(core.move_data_in_bucket(all, None).unwrap(), put_off);
        assert!(victims.iter().all(|number| live(number) == 0));
        assert_eq!(put_off.iter().map(live).collect::<Vec<u64>>(), before);
        store.checkpoint().unwrap();
        for number in (0..600).step_by(7) {
            assert!(bytes(&store, number) == value(number, 0, 2000), "{number}");
        }
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
