//! Where the values lie: a table in memory, of a size that is fixed when it is made. Pure.
//!
//! A slot is one 64-bit word:
//!
//! | bits | field |
//! |---|---|
//! | 0-27 | unit at which the entry begins |
//! | 28-41 | units of its value, less 1 |
//! | 42-48 | file: its number modulo 128 |
//! | 49 | used since it was written |
//! | 50-63 | tag: 14 bits of the key's hash |
//!
//! A word of zeros is a free slot (no entry begins at unit 0). Eight slots make a bucket, which is
//! one line of the processor's cache, and each key may lie in either of two buckets: a new one goes
//! to the emptier. So of all values one in 5,000 has found no slot when the table is 80 % full, one
//! in 140 at 90 %, and one in 24 at 100 %. Where there is none, the oldest value of the two buckets
//! is forgotten, first those that nobody used.
//!
//! The key itself is not here: of 1,000 keys that are looked for and not there, about one
//! meets a tag like its own in its two buckets, and whoever reads what the slot names sees
//! another key.
//!
//! One thread adds; any number of threads look up, mark as used, and remove, at the same time,
//! without a lock.

use super::Key;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use xxhash_rust::xxh3::xxh3_128;

/// Files are told apart by their number modulo this.
pub const FILES: u64 = 128;
/// The longest file, in units.
pub const FILE_UNITS_MAX: u32 = 1 << UNIT_BITS;

const UNIT_BITS: u32 = 28;
const UNITS_BITS: u32 = 14;
const FILE_BITS: u32 = 7;
const TAG_BITS: u32 = 14;
const UNITS_SHIFT: u32 = UNIT_BITS;
const FILE_SHIFT: u32 = UNITS_SHIFT + UNITS_BITS;
const USED: u64 = 1 << (FILE_SHIFT + FILE_BITS);
const TAG_SHIFT: u32 = FILE_SHIFT + FILE_BITS + 1;
const FREE: u64 = 0;
const BUCKET_SLOTS: usize = 8;
const _: () = assert!(TAG_SHIFT + TAG_BITS == 64 && 1 << FILE_BITS == FILES);

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's number modulo [`FILES`].
    pub file: u8,
    /// Where its header begins.
    pub unit: u32,
    /// Units of its value.
    pub units: u32,
}

/// A slot, and the word that was seen in it.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    at: usize,
    word: u64,
}

/// What the table makes of a key.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    buckets: [usize; 2],
    tag: u64,
}

/// The table.
pub struct Index {
    buckets: Vec<Bucket>,
    occupied: AtomicUsize,
}

/// Aligned, so that looking at it loads one cache line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET_SLOTS]);

impl Slot {
    pub fn place(&self) -> Place {
        let bits = |shift: u32, count: u32| self.word >> shift & ((1 << count) - 1);
        Place {
            file: bits(FILE_SHIFT, FILE_BITS) as u8,
            unit: bits(0, UNIT_BITS) as u32,
            units: bits(UNITS_SHIFT, UNITS_BITS) as u32 + 1,
        }
    }

    pub fn was_used(&self) -> bool {
        self.word & USED != 0
    }
}

impl Index {
    /// A table that takes so many bytes of memory, and room for one value for 8 of them.
    pub fn new(bytes: usize) -> Index {
        let buckets = (bytes / size_of::<Bucket>()).max(1);
        Index { buckets: (0..buckets).map(|_| Bucket::default()).collect(), occupied: AtomicUsize::new(0) }
    }

    /// What to look for a key by.
    pub fn hash(&self, key: &Key) -> Hash {
        let hash = xxh3_128(key);
        let (low, high) = (hash as u64, (hash >> 64) as u64);
        // The top bits choose the bucket, so the tag takes the lowest.
        let bucket = |half: u64| ((u128::from(half) * self.buckets.len() as u128) >> 64) as usize;
        Hash { buckets: [bucket(low), bucket(high)], tag: low & ((1 << TAG_BITS) - 1) }
    }

    /// The slots that may be the key's: those with its tag.
    pub fn find(&self, hash: Hash) -> impl Iterator<Item = Slot> {
        let [first, second] = hash.buckets;
        let buckets = if first == second { 1 } else { 2 };
        hash.buckets
            .into_iter()
            .take(buckets)
            .flat_map(slots_of)
            .map(|at| self.slot(at))
            .filter(move |slot| slot.word != FREE && slot.word >> TAG_SHIFT == hash.tag)
    }

    /// Marks as used.
    pub fn mark(&self, slot: Slot) {
        if !slot.was_used() {
            // Lost to somebody who removed or replaced it, or marked it as well: nothing to do.
            let _ =
                self.word(slot.at).compare_exchange(slot.word, slot.word | USED, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Removes what was seen in a slot, unless something else lies there now.
    pub fn remove(&self, slot: Slot) {
        let word = self.word(slot.at);
        for seen in [slot.word, slot.word | USED] {
            if word.compare_exchange(seen, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.occupied.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Adds a value in the newest file. Where there is no room, the oldest of the two buckets goes.
    /// Returns whether one did. By the one thread that adds.
    pub fn add(&self, hash: Hash, place: Place) -> bool {
        if self.add_if_room(hash, place) {
            return false;
        }
        let slots = hash.buckets.into_iter().flat_map(slots_of);
        let age = |slot: &Slot| (u64::from(place.file) + FILES - u64::from(slot.place().file)) % FILES;
        let victim = slots.map(|at| self.slot(at)).max_by_key(|slot| (!slot.was_used(), age(slot)));
        let victim = victim.expect("a bucket has slots");
        // Between the look and now it can have been marked or removed, but by nobody filled.
        let before = self.word(victim.at).swap(word_of(hash, place), Ordering::AcqRel);
        if before == FREE {
            self.occupied.fetch_add(1, Ordering::Relaxed);
        }
        before != FREE
    }

    /// Adds a value, unless there is no room for it. By the one thread that adds.
    pub fn add_if_room(&self, hash: Hash, place: Place) -> bool {
        let free = |bucket: usize| {
            let free = slots_of(bucket).filter(|at| self.slot(*at).word == FREE);
            (free.clone().count(), free.min())
        };
        let (_, at) = hash.buckets.map(free).into_iter().max().expect("two buckets");
        let Some(at) = at else { return false };
        self.word(at).store(word_of(hash, place), Ordering::Release);
        self.occupied.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Removes everything in a file. Returns how many values that were.
    pub fn clear(&self, file: u8) -> u64 {
        let mut cleared = 0;
        for at in 0..self.slots() {
            let slot = self.slot(at);
            if slot.word != FREE && slot.place().file == file {
                self.remove(slot);
                cleared += 1;
            }
        }
        cleared
    }

    /// The slot of that number, if it holds a value of that file that was used.
    pub fn used_in(&self, at: usize, file: u8) -> Option<Slot> {
        let slot = self.slot(at);
        (slot.was_used() && slot.place().file == file).then_some(slot)
    }

    /// How many slots there are. They are numbered from 0.
    pub fn slots(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    /// How many hold a value.
    pub fn occupied(&self) -> usize {
        self.occupied.load(Ordering::Relaxed)
    }

    fn slot(&self, at: usize) -> Slot {
        Slot { at, word: self.word(at).load(Ordering::Acquire) }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.buckets[at / BUCKET_SLOTS].0[at % BUCKET_SLOTS]
    }
}

fn slots_of(bucket: usize) -> Range<usize> {
    bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS
}

fn word_of(hash: Hash, place: Place) -> u64 {
    assert!(0 < place.unit && place.unit < FILE_UNITS_MAX, "unit {}", place.unit);
    assert!((1..=1 << UNITS_BITS).contains(&place.units), "{} units", place.units);
    assert!(u64::from(place.file) < FILES, "file {}", place.file);
    hash.tag << TAG_SHIFT
        | u64::from(place.file) << FILE_SHIFT
        | u64::from(place.units - 1) << UNITS_SHIFT
        | u64::from(place.unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    fn place(number: u64) -> Place {
        Place { file: (number % 3) as u8, unit: number as u32 + 2, units: number as u32 % 16384 + 1 }
    }

    fn finds(index: &Index, number: u64) -> bool {
        index.find(index.hash(&key(number))).any(|slot| slot.place() == place(number))
    }

    #[test]
    fn a_slot_keeps_every_bit_of_a_place() {
        let index = Index::new(4096);
        for (file, unit, units) in [(0, 2, 1), (127, FILE_UNITS_MAX - 1, 16384), (5, 1 << 20, 64)] {
            let place = Place { file, unit, units };
            let hash = index.hash(&key(u64::from(unit)));
            assert!(index.add_if_room(hash, place));
            let slot = index.find(hash).next().unwrap();
            assert_eq!(slot.place(), place);
            index.mark(slot);
            let marked = index.find(hash).next().unwrap();
            assert!(marked.was_used() && !slot.was_used());
            assert_eq!(marked.place(), place);
        }
    }

    #[test]
    fn nine_tenths_of_the_table_fill_nearly_without_loss() {
        let index = Index::new(1 << 20);
        let count = index.slots() as u64 * 9 / 10;
        let lost = (0..count).filter(|number| !index.add_if_room(index.hash(&key(*number)), place(*number))).count();
        assert!(lost < count as usize / 100, "{lost} of {count} found no slot");
        assert_eq!(index.occupied(), count as usize - lost);
        assert_eq!((0..count).filter(|number| !finds(&index, *number)).count(), lost);
        let like_it: usize = (count..2 * count).map(|number| index.find(index.hash(&key(number))).count()).sum();
        assert!(like_it < count as usize / 500, "{like_it} of {count} absent keys met a tag like theirs");
    }

    #[test]
    fn a_full_table_forgets_the_oldest_first_and_what_was_used_last() {
        let index = Index::new(64);
        let at = |file, unit| Place { file, unit, units: 1 };
        for number in 0..8 {
            assert!(index.add_if_room(index.hash(&key(number)), at(120 + number as u8, 2)));
        }
        // The oldest file is 120: numbers go round.
        let oldest = index.find(index.hash(&key(0))).next().unwrap();
        index.mark(oldest);
        assert!(index.add(index.hash(&key(8)), at(0, 2)), "one is forgotten");
        assert_eq!(index.occupied(), 8);
        let there = |number| index.find(index.hash(&key(number))).next().is_some();
        assert!(there(8) && there(0), "the new one, and the oldest, since it was used");
        assert!(!there(1), "the oldest that nobody used");
        assert!(!index.add_if_room(index.hash(&key(9)), at(0, 3)));
    }

    #[test]
    fn files_are_forgotten_as_a_whole() {
        let index = Index::new(1 << 16);
        for number in 0..3000 {
            assert!(index.add_if_room(index.hash(&key(number)), place(number)));
        }
        assert_eq!(index.clear(1), 1000);
        assert_eq!(index.occupied(), 2000);
        assert!((0..3000).all(|number| finds(&index, number) == (number % 3 != 1)));
    }

    #[test]
    fn removing_what_was_replaced_removes_nothing() {
        let index = Index::new(64);
        let hash = index.hash(&key(1));
        index.add_if_room(hash, place(1));
        let old = index.find(hash).next().unwrap();
        index.mark(old);
        index.remove(old);
        assert_eq!(index.occupied(), 0, "marked since, but the same");
        index.add_if_room(hash, place(2));
        index.remove(old);
        index.mark(old);
        assert_eq!(index.occupied(), 1);
        assert!(!index.find(hash).next().unwrap().was_used());
    }
}
