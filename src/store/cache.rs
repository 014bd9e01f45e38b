//! The cache: decoded pages and units of data, together bounded in bytes (C6).
//!
//! Of C bytes in all (at least 8 MiB), units get at most U = C/2, and of storage that is far 5 C/8 where little is
//! changed. Pages get what units leave: C while nothing but names and small values is read, and C - U whatever units
//! come, so that reading a big file through does not push the tree out; but much that is changed takes their
//! place, down to C/8.
//!
//! A page that the tree has replaced goes at once, unless somebody reads an older state ([`Current`]).
//!
//! Each group is a queue, and forgets what is first in it, unless it was asked for since it came there:
//! then it goes to the end once more. (The exact order of use would have to be noted at each use, in
//! four places of memory that nothing else needs; and pages are asked for several times a read.)
//!
//! What is fetched ahead must still be here when it is asked for. Units that are read once, in
//! order ([`Cache::unit_once`]), keep their places in the queue of those to be forgotten, which so is
//! the order in which they came. Readers ahead keep at most W = C/4 between them that was fetched and not read
//! ([`Cache::ahead_bytes`]), from far away 5 C/16: there, what comes late holds up all that came before it. Since they
//! may come in any order, up to W came after a unit that is asked for next; the rest of U is for what is read at
//! random meanwhile: as much, and from far away where much is changed six tenths of it. What is on its
//! way ([`Cache::expect`]) has its room in U from the beginning: it is in memory, in parts.
//!
//! Units that were read in one go share their memory, if they are nearly all of it; it stays as long as
//! one of them does. So they come into the queue together and leave it together; a unit that leaves
//! that order, since it was asked for once and may be again ([`Cache::unit`]), gets memory of its own.
//! What is kept in vain is thus the rest of few reads: those that are at the queue's end.

use crate::log::{Payload, Pointer};
use crate::tree::{InMemory, Node, PAGES_TOGETHER, Pages, TreeError};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pages are sharded by address, since they are asked for so often; units have one queue, since
/// what is fetched ahead of one reader fills it to within an exact bound.
const PAGE_SHARDS: usize = 8;
/// The least: what one operation needs at once must stay until it is asked for again.
const BYTES_MIN: u64 = 8 << 20;
/// What pages have at least: what one operation needs at once must find room beside what others need.
const PAGE_BYTES_MIN: usize = BYTES_MIN as usize / 2;
/// Encoded bytes of changed pages that are not taken from the cache, and how many times as much the
/// others take in memory: there they have whole keys and room to grow, and while a checkpoint writes
/// them, some of those that change again are there twice.
const CHANGED_BESIDE_BYTES: u64 = 8 << 20;
const CHANGED_IN_MEMORY: usize = 2;
/// From far away, pages that a scan reads behind the one that it misses: mostly neighbours, and then they come with
/// the same GET.
const FAR_TOGETHER: usize = 16;
/// What a unit takes beside its bytes.
const UNIT_OVERHEAD_BYTES: usize = 128;

/// The cache of a store.
pub struct Cache {
    bytes: usize,
    is_far: bool,
    pages: [Mutex<Shard<Arc<Node>>>; PAGE_SHARDS],
    units: Mutex<Shard<Payload>>,
    /// Of units that are on their way.
    expected_bytes: AtomicUsize,
    /// Of changed pages, which the tree holds, what is taken from the cache.
    changed_bytes: AtomicUsize,
    /// What the groups hold now.
    page_bytes: AtomicUsize,
    unit_bytes: AtomicUsize,
}

struct Entry<T> {
    kept: T,
    bytes: usize,
    is_asked_for: Cell<bool>,
}

/// A pointer is hashed as one number, which is random enough.
#[derive(Default)]
struct Number(u64);

impl Hasher for Number {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a pointer is one number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Entries, and the sum of their sizes.
struct Shard<T> {
    entries: LruCache<Pointer, Entry<T>, BuildHasherDefault<Number>>,
    bytes: usize,
    /// Looks for what was here, and for what was not: counted under the lock that is held anyway.
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// What a group of the cache holds, and how often it was looked into since the store was opened. What
/// was not there is looked for once more when it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Looks for what was there.
    pub hits: u64,
    /// Looks for what was not.
    pub misses: u64,
    /// How many there are.
    pub count: u64,
    /// What they take in memory.
    pub bytes: u64,
}

/// What the cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// The most that it may take.
    pub bytes_max: u64,
    /// Pages of the tree.
    pub pages: Kept,
    /// Units of data.
    pub units: Kept,
}

impl<T> Default for Shard<T> {
    fn default() -> Shard<T> {
        let entries = LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        Shard { entries, bytes: 0, hits: Cell::new(0), misses: Cell::new(0) }
    }
}

impl<T> Shard<T> {
    fn put(&mut self, at: Pointer, kept: T, bytes: usize) {
        if let Some(old) = self.entries.put(at, Entry { kept, bytes, is_asked_for: Cell::new(false) }) {
            self.bytes -= old.bytes;
        }
        self.bytes += bytes;
    }

    /// What is there, for who may ask for it again.
    fn get(&mut self, at: &Pointer) -> Option<&mut T> {
        let entry = self.look(at)?;
        entry.is_asked_for.set(true);
        Some(&mut entry.kept)
    }

    fn look(&mut self, at: &Pointer) -> Option<&mut Entry<T>> {
        let found = self.entries.peek_mut(at);
        let counted = if found.is_some() { &self.hits } else { &self.misses };
        counted.set(counted.get() + 1);
        found
    }

    /// The same, for who only looks at it, and asks for it if it is not there.
    fn show(&self, at: &Pointer) -> Option<&T> {
        let entry = self.entries.peek(at)?;
        self.hits.set(self.hits.get() + 1);
        entry.is_asked_for.set(true);
        Some(&entry.kept)
    }

    /// Adds what this one holds.
    fn add_to(&self, kept: &mut Kept) {
        kept.hits += self.hits.get();
        kept.misses += self.misses.get();
        kept.count += self.entries.len() as u64;
        kept.bytes += self.bytes as u64;
    }

    /// Forgets until no more than that is left. Before something is put, so that it is not what goes:
    /// all others may have been asked for.
    fn trim(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some((&at, first)) = self.entries.peek_lru()
        {
            if first.is_asked_for.get() {
                self.entries.get_mut(&at).expect("just seen").is_asked_for.set(false);
            } else {
                self.bytes -= first.bytes;
                self.entries.pop_lru();
            }
        }
    }
}

impl Cache {
    /// A cache of that many bytes, of storage that is near.
    pub fn new(bytes: u64) -> Cache {
        Cache {
            is_far: false,
            bytes: bytes.max(BYTES_MIN) as usize,
            pages: Default::default(),
            units: Mutex::default(),
            expected_bytes: AtomicUsize::new(0),
            changed_bytes: AtomicUsize::new(0),
            page_bytes: AtomicUsize::new(0),
            unit_bytes: AtomicUsize::new(0),
        }
    }

    /// The same, of storage to which each way takes long.
    pub fn of_far(bytes: u64) -> Cache {
        Cache { is_far: true, ..Cache::new(bytes) }
    }

    /// Keeps a page.
    pub fn put_page(&self, at: Pointer, page: Arc<Node>) {
        // One that is stored just now does not know yet.
        assert!(page.place().is_none_or(|place| place == at), "the page at {at} is another: {page:?}");
        let bytes = page.memory_bytes();
        self.trim_shard(self.page_shard(&at), bytes, |shard| shard.put(at, page, bytes));
    }

    /// Keeps a page no longer.
    fn forget_page(&self, at: &Pointer) {
        let mut shard = self.page_shard(at).lock();
        if let Some(entry) = shard.entries.pop(at) {
            shard.bytes -= entry.bytes;
            self.page_bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        }
    }

    /// Keeps units that were read together.
    pub fn put_units(&self, read: impl Iterator<Item = (Pointer, Payload)>) {
        let sized = |(at, unit): (Pointer, Payload)| (at, unit.len() + UNIT_OVERHEAD_BYTES, unit);
        let read: Vec<(Pointer, usize, Payload)> = read.map(sized).collect();
        {
            let mut units = self.units.lock();
            self.trim_units(&mut units, read.iter().map(|(_, bytes, _)| bytes).sum());
            for (at, bytes, unit) in read {
                units.put(at, unit, bytes);
            }
            self.unit_bytes.store(units.bytes, Ordering::Relaxed);
        }
        self.trim_pages();
    }

    /// The tree holds changed pages of so many bytes as they would be stored, in place of cached ones.
    pub fn leave_room(&self, changed_bytes: u64) {
        let beyond = changed_bytes.saturating_sub(CHANGED_BESIDE_BYTES) as usize;
        self.changed_bytes.store(CHANGED_IN_MEMORY * beyond, Ordering::Relaxed);
        if self.unit_bytes.load(Ordering::Relaxed) > self.units_max() {
            self.trim_units(&mut self.units.lock(), 0);
        }
        self.trim_pages();
    }

    /// Whether more pages can be changed without that others are forgotten.
    pub fn has_room(&self) -> bool {
        self.page_bytes.load(Ordering::Relaxed) < self.left_by_others() / 8 * 7
    }

    fn room_for_pages(&self) -> usize {
        self.left_by_others().max(self.pages_min())
    }

    fn left_by_others(&self) -> usize {
        let taken = self.unit_bytes.load(Ordering::Relaxed) + self.changed_bytes.load(Ordering::Relaxed);
        self.bytes.saturating_sub(taken)
    }

    fn pages_min(&self) -> usize {
        (self.bytes / 8).max(PAGE_BYTES_MIN)
    }

    fn units_max(&self) -> usize {
        let most = if self.is_far { self.bytes / 8 * 5 } else { self.bytes / 2 };
        let taken = self.pages_min() + self.changed_bytes.load(Ordering::Relaxed);
        self.bytes.saturating_sub(taken).clamp(self.bytes / 2, most)
    }

    fn trim_pages(&self) {
        if self.page_bytes.load(Ordering::Relaxed) > self.room_for_pages() {
            self.pages.iter().for_each(|shard| self.trim_shard(shard, 0, |_| ()));
        }
    }

    /// So many bytes of units are on their way, and so much less is kept, until the value is dropped:
    /// when they have come, and before they are put here.
    pub fn expect(&self, bytes: u64) -> Expected<'_> {
        let bytes = bytes as usize;
        self.expected_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.trim_units(&mut self.units.lock(), 0);
        Expected { cache: self, bytes }
    }

    /// So that as much finds room.
    fn trim_units(&self, units: &mut Shard<Payload>, bytes: usize) {
        units.trim(self.units_max().saturating_sub(self.expected_bytes.load(Ordering::Relaxed) + bytes));
        self.unit_bytes.store(units.bytes, Ordering::Relaxed);
    }

    /// The unit, if it is here.
    pub fn unit(&self, at: &Pointer) -> Option<Payload> {
        let mut units = self.units.lock();
        let unit = units.get(at)?;
        if !unit.is_alone() {
            *unit = unit.alone().into();
        }
        Some(unit.clone())
    }

    /// The unit, if it is here, for who will not ask for it again.
    pub fn unit_once(&self, at: &Pointer) -> Option<Payload> {
        self.units.lock().look(at).map(|entry| entry.kept.clone())
    }

    /// Whether the unit is here.
    pub fn has_unit(&self, at: &Pointer) -> bool {
        self.units.lock().entries.contains(at)
    }

    /// Whether the page is here.
    pub fn has_page(&self, at: &Pointer) -> bool {
        self.page_shard(at).lock().entries.contains(at)
    }

    /// What is here, and how often it was looked for.
    pub fn figures(&self) -> CacheFigures {
        let mut figures = CacheFigures { bytes_max: self.bytes as u64, ..CacheFigures::default() };
        self.pages.iter().for_each(|shard| shard.lock().add_to(&mut figures.pages));
        self.units.lock().add_to(&mut figures.units);
        figures
    }

    /// Bytes of units that may be fetched before they are asked for, by all readers together.
    pub fn ahead_bytes(&self) -> u64 {
        let bytes = self.bytes as u64;
        if self.is_far { bytes / 16 * 5 } else { bytes / 4 }
    }

    fn page_shard(&self, at: &Pointer) -> &Mutex<Shard<Arc<Node>>> {
        &self.pages[shard_of(at)]
    }

    /// Takes from a shard what is beyond its share, so that as much finds room as then `comes`.
    fn trim_shard(&self, shard: &Mutex<Shard<Arc<Node>>>, bytes: usize, comes: impl FnOnce(&mut Shard<Arc<Node>>)) {
        let share = self.room_for_pages() / PAGE_SHARDS;
        let mut shard = shard.lock();
        let before = shard.bytes;
        shard.trim(share.saturating_sub(bytes));
        comes(&mut shard);
        // Of many changes at once each adds its difference.
        self.page_bytes.fetch_add(shard.bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// The shard of the page at `at`. The checksum is as good as a random number.
fn shard_of(at: &Pointer) -> usize {
    at.checksum as usize % PAGE_SHARDS
}

/// Room for units that are on their way.
pub struct Expected<'a> {
    cache: &'a Cache,
    bytes: usize,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.cache.expected_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pages for Cache {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        let mut shard = self.page_shard(at).lock();
        shard.get(at).map(|page| page.clone()).ok_or_else(|| TreeError::Miss(vec![*at]))
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        // Nobody else has two of them at once.
        look(&HeldPages(self.pages.each_ref().map(|shard| shard.lock())));
    }

    fn together(&self) -> usize {
        if self.is_far { FAR_TOGETHER } else { PAGES_TOGETHER }
    }
}

/// The pages, while nobody else can get at them.
struct HeldPages<'a>([MutexGuard<'a, Shard<Arc<Node>>>; PAGE_SHARDS]);

impl InMemory for HeldPages<'_> {
    fn page(&self, at: &Pointer) -> Option<&Node> {
        self.0[shard_of(at)].show(at).map(|page| &**page)
    }
}

/// The cache as it is while nobody reads an older state: then it keeps nothing of one. (Of what was durable
/// when storage failed, some may have to be read from there, if that was during a bulk load.)
pub struct Current<'a>(pub &'a Cache);

impl Pages for Current<'_> {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        self.0.page(at)
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        self.0.hold(look);
    }

    fn left(&self, at: &Pointer) {
        self.0.forget_page(at);
    }

    fn together(&self) -> usize {
        self.0.together()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Codec, SegmentNo, checksum};
    use crate::store::table::Deltas;
    use crate::tree::{PageSink, Tree, Value};
    use bytes::Bytes;
    use std::convert::Infallible;
    use std::ops::Range;

    const CACHE_BYTES: usize = 16 << 20;
    const UNIT_BYTES: usize = 64 << 10;

    fn at(number: u64) -> Pointer {
        let checksum = checksum(&number.to_be_bytes());
        Pointer { segment: SegmentNo(number), offset: 0, length: 1, codec: Codec::Raw, shrunk: 0, checksum }
    }

    fn put_unit(cache: &Cache, number: u64) {
        cache.put_units([(at(number), Bytes::from_static(&[0; UNIT_BYTES]).into())].into_iter());
    }

    fn put_units(cache: &Cache, numbers: Range<u64>) {
        numbers.for_each(|number| put_unit(cache, number));
    }

    /// Keeps pages of some 4 KiB; answers how much each takes.
    fn put_pages(cache: &Cache, numbers: Range<u64>) -> usize {
        struct Sink(Vec<u8>);
        impl PageSink for Sink {
            type Error = Infallible;

            fn write(&mut self, _: u8, _: &[u8], payload: &[u8]) -> Result<Pointer, Infallible> {
                self.0 = payload.to_vec();
                Ok(at(0))
            }
        }
        let mut tree = Tree::empty(4096);
        let pairs: Vec<_> = (0..40_u8).map(|key| ([key], Some(Value::from(vec![key; 90])))).collect();
        tree.apply(cache, &pairs, &mut Deltas::default()).unwrap();
        let mut sink = Sink(Vec::new());
        assert!(tree.freeze().write(&mut sink).is_ok());
        for number in numbers {
            cache.put_page(at(number), Arc::new(Node::decode(&sink.0, at(number)).unwrap()));
        }
        Node::decode(&sink.0, at(0)).unwrap().memory_bytes()
    }

    fn count(numbers: Range<u64>, is_there: impl Fn(&Pointer) -> bool) -> usize {
        numbers.filter(|number| is_there(&at(*number))).count()
    }

    fn held(cache: &Cache) -> usize {
        cache.page_bytes.load(Ordering::Relaxed) + cache.unit_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn pages_get_what_units_leave_and_units_at_most_half() {
        let cache = Cache::new(CACHE_BYTES as u64);
        let page_bytes = put_pages(&cache, 0..8000);
        assert!((3000..8000).contains(&page_bytes), "{page_bytes} bytes a page");
        let pages = || count(0..8000, |at| cache.has_page(at)) * page_bytes;
        assert!((CACHE_BYTES * 9 / 10..=CACHE_BYTES).contains(&pages()), "{} bytes of pages", pages());
        put_units(&cache, 0..20);
        assert!(pages() > CACHE_BYTES * 8 / 10 && held(&cache) <= CACHE_BYTES);
        put_units(&cache, 20..1000);
        let units = count(0..1000, |at| cache.has_unit(at)) * UNIT_BYTES;
        assert!((CACHE_BYTES * 4 / 10..=CACHE_BYTES / 2).contains(&units), "{units} bytes of units");
        assert!((CACHE_BYTES * 4 / 10..=CACHE_BYTES * 6 / 10).contains(&pages()), "{} bytes of pages", pages());
        put_pages(&cache, 8000..16_000);
        assert!(held(&cache) <= CACHE_BYTES, "{} bytes in all", held(&cache));
    }

    #[test]
    fn what_is_fetched_ahead_is_here_when_it_is_read_whatever_else_is_read() {
        let with_changes = Cache::of_far(CACHE_BYTES as u64);
        with_changes.leave_room(CHANGED_BESIDE_BYTES + CACHE_BYTES as u64 / 4);
        for cache in [Cache::new(CACHE_BYTES as u64), Cache::of_far(CACHE_BYTES as u64), with_changes] {
            let window = cache.ahead_bytes() / UNIT_BYTES as u64;
            put_units(&cache, 0..window);
            for next in 0..2000 {
                assert!(cache.unit_once(&at(next)).is_some(), "unit {next} of a window of {window}");
                put_units(&cache, next + window..next + window + 1);
                if next % 2 == 0 {
                    // Somebody else reads, half as fast, at random.
                    put_units(&cache, 1_000_000 + next..1_000_001 + next);
                }
            }
        }
    }

    #[test]
    fn from_far_away_units_have_more_unless_much_is_changed() {
        let cache = Cache::of_far(CACHE_BYTES as u64);
        let units = || count(0..1000, |at| cache.has_unit(at)) * UNIT_BYTES;
        put_units(&cache, 0..1000);
        assert!((CACHE_BYTES * 6 / 10..=CACHE_BYTES / 8 * 5).contains(&units()), "{} bytes of units", units());
        put_pages(&cache, 0..8000);
        assert!(held(&cache) <= CACHE_BYTES);
        cache.leave_room(CHANGED_BESIDE_BYTES + CACHE_BYTES as u64 / 4);
        assert!((CACHE_BYTES * 4 / 10..=CACHE_BYTES / 2).contains(&units()), "{} bytes of units", units());
    }

    #[test]
    fn what_is_on_its_way_has_its_room() {
        let cache = Cache::new(CACHE_BYTES as u64);
        put_units(&cache, 0..1000);
        let half = CACHE_BYTES / 2;
        let expected = cache.expect(half as u64 / 4);
        assert!((half * 2 / 3..=half * 3 / 4).contains(&held(&cache)), "{}", held(&cache));
        put_units(&cache, 1000..2000);
        assert!(held(&cache) <= half * 3 / 4, "{}", held(&cache));
        drop(expected);
        put_units(&cache, 2000..3000);
        assert!(held(&cache) > half * 3 / 4);
    }

    #[test]
    fn looks_are_counted() {
        let cache = Cache::new(CACHE_BYTES as u64);
        let page_bytes = put_pages(&cache, 0..10) as u64;
        put_units(&cache, 0..3);
        for number in 0..20 {
            assert_eq!(cache.page(&at(number)).is_ok(), number < 10);
            assert!(cache.unit(&at(3)).is_none() && cache.unit_once(&at(2)).is_some() && cache.unit(&at(1)).is_some());
            // Who only wants to know is not counted.
            assert!(!cache.has_unit(&at(3)) && cache.has_page(&at(9)));
        }
        let units = Kept { hits: 40, misses: 20, count: 3, bytes: 3 * (UNIT_BYTES + UNIT_OVERHEAD_BYTES) as u64 };
        let pages = Kept { hits: 10, misses: 10, count: 10, bytes: 10 * page_bytes };
        assert_eq!(cache.figures(), CacheFigures { bytes_max: CACHE_BYTES as u64, pages, units });
    }

    #[test]
    fn what_is_asked_for_again_stays() {
        let cache = Cache::new(CACHE_BYTES as u64);
        put_units(&cache, 0..1);
        for number in 1..1000 {
            put_units(&cache, number..number + 1);
            assert!(cache.unit(&at(0)).is_some());
        }
        assert!(!cache.has_unit(&at(1)));
    }

    #[test]
    fn units_read_together_share_memory_until_one_may_be_asked_for_again() {
        let cache = Cache::new(CACHE_BYTES as u64);
        let memory = Bytes::from(vec![7; 3 * UNIT_BYTES]);
        let part = |number: usize| Payload::part(&memory, number * UNIT_BYTES..(number + 1) * UNIT_BYTES);
        cache.put_units((0..3).map(|number| (at(number as u64), part(number))));
        let [first, second] = [0, 1].map(|number| cache.unit_once(&at(number)).unwrap());
        assert!(first.joined(&second).is_some() && !first.is_alone());
        assert!(cache.unit(&at(1)).unwrap().is_alone());
        let second = cache.unit_once(&at(1)).unwrap();
        assert!(second.is_alone() && second.iter().all(|byte| *byte == 7) && first.joined(&second).is_none());
        assert!(!cache.unit_once(&at(2)).unwrap().is_alone(), "it has not left the order");
    }

    #[test]
    fn what_comes_stays_though_all_others_were_asked_for() {
        let cache = Cache::new(CACHE_BYTES as u64);
        put_pages(&cache, 0..8000);
        for number in 8000..8500 {
            (0..number).for_each(|other| drop(cache.page(&at(other))));
            put_pages(&cache, number..number + 1);
            assert!(cache.has_page(&at(number)), "page {number}");
        }
        let units = CACHE_BYTES as u64 / 2 / UNIT_BYTES as u64 * 2;
        for number in 0..units {
            (0..number).for_each(|other| drop(cache.unit(&at(other))));
            put_unit(&cache, number);
            assert!(cache.has_unit(&at(number)), "unit {number}");
        }
    }

    #[test]
    fn changed_pages_take_the_place_of_cached_ones_but_not_of_all() {
        let cache = Cache::new(16 * CACHE_BYTES as u64);
        let page_bytes = put_pages(&cache, 0..10_000);
        cache.leave_room(CHANGED_BESIDE_BYTES);
        assert_eq!(count(0..10_000, |at| cache.has_page(at)), 10_000);
        cache.leave_room(1 << 40);
        let left = count(0..10_000, |at| cache.has_page(at)) * page_bytes;
        assert!((CACHE_BYTES..=2 * CACHE_BYTES).contains(&left), "{left}");
    }
}
