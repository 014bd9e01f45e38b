//! Sorted entries in one piece of memory.
//!
//! A page has some dozens to hundreds of entries and is copied whole whenever a snapshot shares
//! it. So the entries' bytes lie in one heap, found through a vector of small slots: a copy is two
//! allocations, an insert moves slots of 12 bytes, and a change wastes the bytes that it replaces
//! until the next copy.

/// Entries with strictly rising keys. Each has a key, a kind (the owner's own number) and a tail
/// (the owner's own bytes).
#[derive(Default)]
pub(super) struct Sorted {
    heap: Vec<u8>,
    slots: Vec<Slot>,
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
        Sorted { heap: Vec::with_capacity(bytes), slots: Vec::with_capacity(entries), wasted: 0 }
    }

    /// A copy that is about to be changed: without waste, with some room.
    pub fn copy(&self) -> Sorted {
        let used = self.heap.len() - self.wasted;
        let mut copy = Sorted::with_room(self.slots.len() + 8, used + used / 8 + 64);
        if self.wasted == 0 {
            copy.heap.extend_from_slice(&self.heap);
            copy.slots.extend_from_slice(&self.slots);
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
        let slot = &self.slots[i];
        &self.heap[slot.start as usize..slot.key_end()]
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
        let heap = &self.heap;
        self.slots[start..]
            .binary_search_by(|slot| heap[slot.start as usize..slot.key_end()].cmp(key))
            .map(|i| i + start)
            .map_err(|i| i + start)
    }

    /// Adds an entry that comes after all others.
    pub fn push(&mut self, key: &[u8], kind: u8, tail: &[u8]) {
        self.insert(self.slots.len(), key, kind, tail);
    }

    /// Adds an entry before entry `i`, where its key belongs.
    pub fn insert(&mut self, i: usize, key: &[u8], kind: u8, tail: &[u8]) {
        let slot = Slot {
            start: u32::try_from(self.heap.len()).expect("a page in memory is below 4 GiB"),
            key_bytes: u16::try_from(key.len()).expect("keys are short"),
            tail_bytes: u16::try_from(tail.len()).expect("tails are short"),
            kind,
        };
        self.heap.extend_from_slice(key);
        self.heap.extend_from_slice(tail);
        self.slots.insert(i, slot);
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
            self.heap.extend_from_within(slot.start as usize..slot.key_end());
            self.heap.extend_from_slice(tail);
            let tail_bytes = u16::try_from(tail.len()).expect("tails are short");
            self.slots[i] = Slot { start, kind, tail_bytes, ..slot };
        }
        self.reclaim();
    }

    /// Removes entry `i`.
    pub fn remove(&mut self, i: usize) {
        self.wasted += self.slots.remove(i).bytes();
        self.reclaim();
    }

    /// Gives back what is allocated and not used.
    pub fn fit(&mut self) {
        self.heap.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    /// Bytes of memory allocated.
    pub fn memory_bytes(&self) -> usize {
        self.heap.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Copies when more is wasted than used, so that a page which is changed for long without
    /// being shared stays small.
    fn reclaim(&mut self) {
        if self.wasted > 1024 && self.wasted > self.heap.len() / 2 {
            *self = self.copy();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec(
                (prop::collection::vec(0u8..4, 0..4), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))),
                0..300,
            ),
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
                    for (i, (key, tail)) in model.iter().enumerate() {
                        prop_assert_eq!((sorted.key(i), sorted.kind(i), sorted.tail(i)), (&key[..], tail.len() as u8, &tail[..]));
                    }
                }
            }
        }
    }
}
