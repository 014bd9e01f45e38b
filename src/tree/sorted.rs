//! Sorted entries in one piece of memory.
//!
//! A page has some dozens to hundreds of entries and is copied whole whenever a snapshot shares
//! it. So the entries' bytes lie in one heap, found through a vector of small slots: a copy is three
//! allocations, an insert moves slots of 12 bytes, and a change wastes the bytes that it replaces
//! until the next copy.
//!
//! Searching would meet a cache miss in the heap for each key that it compares. So it goes through the heads: of each
//! key the first bytes that tell it from others, those after the prefix that all share. They lie by themselves,
//! 16 to a line of the processor's cache.

use std::cmp::Ordering;

/// Entries with strictly rising keys. Each has a key, a kind (the owner's own number) and a tail
/// (the owner's own bytes).
#[derive(Default)]
pub(super) struct Sorted {
    heap: Vec<u8>,
    /// Of each key the bytes after the skipped ones, as `head` has them.
    heads: Vec<u32>,
    slots: Vec<Slot>,
    /// Every key begins with the same so many bytes, but an empty one.
    skip: usize,
    /// Bytes of the heap that no slot refers to.
    wasted: usize,
}

/// An entry lies in the heap as its key, then its tail.
#[derive(Clone, Copy)]
struct Slot {
    start: u32,
    key_bytes: u16,
    tail_bytes: u16,
    kind: u8,
}

impl Slot {
    fn key_end(&self) -> usize {
        self.start as usize + usize::from(self.key_bytes)
    }

    fn bytes(&self) -> usize {
        usize::from(self.key_bytes) + usize::from(self.tail_bytes)
    }
}

impl Sorted {
    /// Without entries, with room for so many that have so many bytes together.
    pub fn with_room(entries: usize, bytes: usize) -> Sorted {
        Sorted {
            heap: Vec::with_capacity(bytes),
            heads: Vec::with_capacity(entries),
            slots: Vec::with_capacity(entries),
            skip: 0,
            wasted: 0,
        }
    }

    /// A copy that is about to be changed: without waste, with some room.
    pub fn copy(&self) -> Sorted {
        let used = self.heap.len() - self.wasted;
        let mut copy = Sorted::with_room(self.slots.len() + 8, used + used / 8 + 64);
        if self.wasted == 0 {
            copy.heap.extend_from_slice(&self.heap);
            copy.heads.extend_from_slice(&self.heads);
            copy.slots.extend_from_slice(&self.slots);
            copy.skip = self.skip;
        } else {
            for i in 0..self.len() {
                copy.push(self.key(i), self.kind(i), self.tail(i));
            }
        }
        copy
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn key(&self, i: usize) -> &[u8] {
        self.key_of(&self.slots[i])
    }

    pub fn kind(&self, i: usize) -> u8 {
        self.slots[i].kind
    }

    pub fn tail(&self, i: usize) -> &[u8] {
        let slot = &self.slots[i];
        &self.heap[slot.key_end()..][..usize::from(slot.tail_bytes)]
    }

    /// `Ok`: the entry with that key; `Err`: where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.search_from(0, key)
    }

    /// Like `search`, when all entries before `start` are known to have lesser keys.
    pub fn search_from(&self, start: usize, key: &[u8]) -> Result<usize, usize> {
        let head = head(key, self.skip);
        let first = start + self.heads[start..].partition_point(|before| *before < head);
        self.search_at(start, first, head, key)
    }

    /// The same, when it is known which entry from `start` on is the first that has at least this head.
    fn search_at(&self, start: usize, first: usize, head: u32, key: &[u8]) -> Result<usize, usize> {
        let Some(last) = self.slots[start..].last() else { return Err(start) };
        // Mostly it is the one with this head, and the only key that is looked at.
        if self.heads.get(first) == Some(&head) && self.key(first) == key {
            return Ok(first);
        }
        // Else the last tells whether this one begins as all do: each search looks at the same.
        let last = self.key_of(last);
        if last.is_empty() {
            return self.search_among(start, key);
        }
        match key[..key.len().min(self.skip)].cmp(&last[..self.skip]) {
            // Nothing can come before it but an empty key.
            Ordering::Less => self.search_among(start, key),
            Ordering::Greater => Err(self.slots.len()),
            Ordering::Equal => {
                let same = self.heads[first..].partition_point(|other| *other == head);
                let found = self.slots[first..first + same].binary_search_by(|slot| self.key_of(slot).cmp(key));
                found.map(|i| first + i).map_err(|i| first + i)
            }
        }
    }

    /// The same, where the heads do not help.
    fn search_among(&self, start: usize, key: &[u8]) -> Result<usize, usize> {
        let found = self.slots[start..].binary_search_by(|slot| self.key_of(slot).cmp(key));
        found.map(|i| i + start).map_err(|i| i + start)
    }

    fn key_of(&self, slot: &Slot) -> &[u8] {
        &self.heap[slot.start as usize..slot.key_end()]
    }

    /// Adds an entry that comes after all others.
    pub fn push(&mut self, key: &[u8], kind: u8, tail: &[u8]) {
        self.insert(self.slots.len(), key, kind, tail);
    }

    /// Adds an entry before entry `i`, where its key belongs.
    pub fn insert(&mut self, i: usize, key: &[u8], kind: u8, tail: &[u8]) {
        if !key.is_empty() {
            self.skip_only_shared(key);
        }
        let slot = Slot {
            start: u32::try_from(self.heap.len()).expect("a page in memory is below 4 GiB"),
            key_bytes: u16::try_from(key.len()).expect("keys are short"),
            tail_bytes: u16::try_from(tail.len()).expect("tails are short"),
            kind,
        };
        // Else the page is being made, or grows in order: then room is best taken in large steps.
        if i < self.len() {
            self.make_room(slot.bytes());
        }
        self.heap.extend_from_slice(key);
        self.heap.extend_from_slice(tail);
        self.heads.insert(i, head(key, self.skip));
        self.slots.insert(i, slot);
    }

    /// Room for an entry of so many bytes that comes into a page, and no more than a copy would have: a page that
    /// was as small as can be must not become twice as large.
    fn make_room(&mut self, bytes: usize) {
        if self.heap.capacity() - self.heap.len() < bytes {
            self.heap.reserve_exact(bytes + self.heap.len() / 8 + 64);
        }
        if self.slots.capacity() == self.slots.len() {
            self.heads.reserve_exact(self.slots.len() / 8 + 8);
            self.slots.reserve_exact(self.slots.len() / 8 + 8);
        }
    }

    /// Whether a copy would be smaller by much.
    pub fn is_wasteful(&self) -> bool {
        self.wasted > self.heap.len() / 8
    }

    /// Makes all keys, and this one, begin with what is skipped.
    fn skip_only_shared(&mut self, key: &[u8]) {
        // The last is not empty if any is not.
        let shared = match self.slots.last() {
            Some(last) if last.key_bytes > 0 => shared_bytes(&self.key(self.len() - 1)[..self.skip], key),
            _ => key.len(),
        };
        if shared != self.skip {
            self.skip = shared;
            let heap = &self.heap;
            for (slot, of_slot) in self.slots.iter().zip(&mut self.heads) {
                *of_slot = head(&heap[slot.start as usize..slot.key_end()], shared);
            }
        }
    }

    /// Replaces kind and tail of entry `i`.
    pub fn replace(&mut self, i: usize, kind: u8, tail: &[u8]) {
        let slot = self.slots[i];
        if tail.len() <= usize::from(slot.tail_bytes) {
            self.wasted += usize::from(slot.tail_bytes) - tail.len();
            self.heap[slot.key_end()..][..tail.len()].copy_from_slice(tail);
            self.slots[i] = Slot { kind, tail_bytes: tail.len() as u16, ..slot };
        } else {
            self.wasted += slot.bytes();
            let start = u32::try_from(self.heap.len()).expect("a page in memory is below 4 GiB");
            self.make_room(usize::from(slot.key_bytes) + tail.len());
            self.heap.extend_from_within(slot.start as usize..slot.key_end());
            self.heap.extend_from_slice(tail);
            let tail_bytes = u16::try_from(tail.len()).expect("tails are short");
            self.slots[i] = Slot { start, kind, tail_bytes, ..slot };
        }
        self.reclaim();
    }

    /// Removes entry `i`.
    pub fn remove(&mut self, i: usize) {
        self.heads.remove(i);
        self.wasted += self.slots.remove(i).bytes();
        self.reclaim();
    }

    /// Gives back what is allocated and not used.
    pub fn fit(&mut self) {
        self.heap.shrink_to_fit();
        self.heads.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    /// Bytes of memory allocated.
    pub fn memory_bytes(&self) -> usize {
        self.heap.capacity() + self.heads.capacity() * size_of::<u32>() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Copies when more is wasted than used, so that a page which is changed for long without
    /// being shared stays small.
    fn reclaim(&mut self) {
        if self.wasted > 1024 && self.wasted > self.heap.len() / 2 {
            *self = self.copy();
        }
    }
}

/// How many searches go side by side: as many as a processor can wait for memory at once, and some more.
pub(super) const LANES: usize = 32;

struct Lane<'a> {
    heads: &'a [u32],
    head: u32,
    /// The one that is looked for is this one, or one of so many after it.
    base: usize,
    left: usize,
}

/// Searches at most [`LANES`] keys, each among its own entries, side by side: each step of all before the next of any.
pub(super) fn search_abreast(searches: &[(&Sorted, &[u8])], found: &mut Vec<Result<usize, usize>>) {
    let mut lanes: [Lane<'_>; LANES] = std::array::from_fn(|i| match searches.get(i) {
        Some((sorted, key)) => {
            Lane { heads: &sorted.heads, head: head(key, sorted.skip), base: 0, left: sorted.heads.len() }
        }
        None => Lane { heads: &[], head: 0, base: 0, left: 0 },
    });
    let lanes = &mut lanes[..searches.len()];
    let longest = lanes.iter().map(|lane| lane.left).max().unwrap_or(0);
    for _ in 0..longest.checked_ilog2().map_or(0, |log| log + 1) {
        for lane in &mut *lanes {
            let half = lane.left / 2;
            // Nothing is foretold here: which half is next is random.
            let is_below = lane.heads.get(lane.base + half).is_some_and(|head| *head < lane.head);
            lane.base += half * usize::from(is_below);
            lane.left -= half;
        }
    }
    for lane in &mut *lanes {
        lane.base += usize::from(lane.heads.get(lane.base).is_some_and(|head| *head < lane.head));
    }
    // The keys themselves are waited for together, too.
    let touched = lanes.iter().zip(searches).fold(0, |sum, (lane, (sorted, _))| {
        let slot = sorted.slots.get(lane.base);
        sum ^ slot.and_then(|slot| sorted.heap.get(slot.start as usize)).copied().unwrap_or(0)
    });
    std::hint::black_box(touched);
    found.clear();
    found
        .extend(lanes.iter().zip(searches).map(|(lane, (sorted, key))| sorted.search_at(0, lane.base, lane.head, key)));
}

/// Orders keys that share `skip` bytes as far as the next four bytes can. Short keys are filled up
/// with zeros, so equal heads say nothing.
fn head(key: &[u8], skip: usize) -> u32 {
    let rest = key.get(skip..).unwrap_or(&[]);
    match rest.first_chunk() {
        Some(four) => u32::from_be_bytes(*four),
        None => {
            let mut four = [0; 4];
            four[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(four)
        }
    }
}

/// How many bytes two keys share from their beginning.
pub(super) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let end = || prop::collection::vec(0u8..4, 0..7);
        prop_oneof![9 => end().prop_map(|end| [&[2; 9][..], &end].concat()), 1 => end()]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec(
                (any_key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))),
                0..300,
            ),
            others in prop::collection::vec(any_key(), 20),
        ) {
            let mut sorted = Sorted::default();
            let mut model = BTreeMap::new();
            for (key, tail) in steps {
                match (sorted.search(&key), &tail) {
                    (Ok(i), Some(tail)) => sorted.replace(i, tail.len() as u8, tail),
                    (Ok(i), None) => sorted.remove(i),
                    (Err(i), Some(tail)) => sorted.insert(i, &key, tail.len() as u8, tail),
                    (Err(_), None) => {}
                }
                match tail {
                    Some(tail) => model.insert(key, tail),
                    None => model.remove(&key),
                };
                prop_assert!(sorted.heap.len() <= 2 * model.iter().map(|(k, t)| k.len() + t.len()).sum::<usize>() + 1024);
                for sorted in [&sorted, &sorted.copy()] {
                    prop_assert_eq!(sorted.len(), model.len());
                    let searches: Vec<(&Sorted, &[u8])> = others.iter().map(|key| (sorted, &key[..])).collect();
                    let mut abreast = Vec::new();
                    search_abreast(&searches, &mut abreast);
                    for (key, found) in others.iter().zip(&abreast) {
                        prop_assert_eq!(sorted.search(key), *found);
                    }
                    for key in &others {
                        let rank = model.range::<Vec<u8>, _>(..key).count();
                        let expected = if model.contains_key(key) { Ok(rank) } else { Err(rank) };
                        prop_assert_eq!(sorted.search(key), expected);
                        prop_assert_eq!(sorted.search_from(rank / 2, key), expected);
                    }
                    for (i, (key, tail)) in model.iter().enumerate() {
                        prop_assert_eq!((sorted.key(i), sorted.kind(i), sorted.tail(i)), (&key[..], tail.len() as u8, &tail[..]));
                    }
                }
            }
        }
    }
}
