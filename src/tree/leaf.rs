//! A leaf in memory: pairs, and how they change.

use crate::log::{POINTER_BYTES, Pointer};
use crate::tree::balance::{Cost, Growth};
use crate::tree::page::{self, StoredValue};
use crate::tree::sorted::{Sorted, shared_bytes};
use crate::tree::{DecodeError, Extent, Ledger, Value};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Kinds of entries in a leaf's `Sorted`, by what their tail is.
const TAIL_BYTES: u8 = 0;
const TAIL_EXTENT: u8 = 1;
const TAIL_LARGE: u8 = 2;

/// A page of pairs.
#[derive(Default)]
pub(super) struct Leaf {
    /// The tail of a short value is the value; of an extent its pointer, offset and length (u32
    /// big-endian); of a value that must be placed its index in `large` (u32 big-endian).
    pairs: Sorted,
    /// Values that must be placed. Empty where one is gone.
    large: Vec<Bytes>,
    /// Encoded size.
    bytes: usize,
    pub growth: Growth,
    /// The entries that the last batch inserted, if they were one run.
    run: Option<Range<usize>>,
}

/// A run of so many entries that come at once, and make up a quarter of the page, shows in itself
/// that keys are written in order.
const RUN_LONG: usize = 8;

/// One change of a batch. `None` deletes.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a Value>,
}

impl Leaf {
    /// Without pairs: for a moment only, T2.
    pub fn empty() -> Leaf {
        Leaf { bytes: page::HEADER_BYTES, ..Leaf::default() }
    }

    /// The leaf with this payload, whose header says so many pairs.
    pub fn decode(payload: &[u8], count: usize) -> Result<Leaf, DecodeError> {
        let mut pairs = Sorted::with_room(count, payload.len());
        page::decode_leaf(payload, |key, value| match value {
            StoredValue::Bytes(bytes) => pairs.push(key, TAIL_BYTES, bytes),
            StoredValue::Extent(extent) => pairs.push(key, TAIL_EXTENT, &extent_tail(&extent)),
        })?;
        pairs.fit();
        Ok(Leaf { pairs, bytes: payload.len(), ..Leaf::default() })
    }

    /// Its payload. Panics if a value must be placed (T6).
    pub fn encode(&self) -> Vec<u8> {
        let entries = (0..self.pairs.len()).map(|i| {
            let value = match self.pairs.kind(i) {
                TAIL_BYTES => StoredValue::Bytes(self.pairs.tail(i)),
                TAIL_EXTENT => StoredValue::Extent(tail_extent(self.pairs.tail(i))),
                _ => {
                    panic!("T6: the value of {:?} has to be placed first", self.pairs.key(i).escape_ascii().to_string())
                }
            };
            (self.pairs.key(i), value)
        });
        page::encode_leaf(self.bytes, entries)
    }

    /// Whether a value may be in it that must be placed (T6).
    pub fn has_large(&self) -> bool {
        self.large.iter().any(|bytes| !bytes.is_empty())
    }

    /// Whether a copy takes much less memory.
    pub fn is_wasteful(&self) -> bool {
        self.pairs.is_wasteful()
    }

    /// A copy that is about to be changed.
    pub fn copy(&self) -> Leaf {
        Leaf {
            pairs: self.pairs.copy(),
            large: self.large.clone(),
            bytes: self.bytes,
            growth: self.growth,
            run: self.run.clone(),
        }
    }

    /// Encoded size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory allocated.
    pub fn memory_bytes(&self) -> usize {
        self.pairs.memory_bytes() + self.large.iter().map(|bytes| size_of::<Bytes>() + bytes.len()).sum::<usize>()
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn key(&self, i: usize) -> &[u8] {
        self.pairs.key(i)
    }

    pub fn pairs(&self) -> &Sorted {
        &self.pairs
    }

    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.pairs.search(key)
    }

    pub fn value(&self, i: usize) -> Value {
        let tail = self.pairs.tail(i);
        match self.pairs.kind(i) {
            TAIL_BYTES => Value::Bytes(Bytes::copy_from_slice(tail)),
            TAIL_EXTENT => Value::Extent(tail_extent(tail)),
            _ => Value::Bytes(self.large[tail_index(tail)].clone()),
        }
    }

    /// The value of pair `i`, if it is an extent.
    pub fn extent(&self, i: usize) -> Option<Extent> {
        (self.pairs.kind(i) == TAIL_EXTENT).then(|| tail_extent(self.pairs.tail(i)))
    }

    /// Applies a part of a batch. Deletes what is there only.
    pub fn change(&mut self, changes: &[Change<'_>], ledger: &mut dyn Ledger) {
        let mut from = 0;
        let mut run: Option<Range<usize>> = None;
        let mut is_one_run = true;
        for change in changes {
            let found = self.pairs.search_from(from, change.key);
            ledger.before(change.key, &|| found.ok().map(|i| self.value(i)));
            match (found, change.value) {
                (Ok(i), Some(value)) => {
                    self.replace(i, value, ledger);
                    from = i + 1;
                }
                (Ok(i), None) => {
                    self.remove(i, ledger);
                    from = i;
                }
                (Err(i), Some(value)) => {
                    self.insert(i, change.key, value, ledger);
                    from = i + 1;
                    match &mut run {
                        None => run = Some(i..i + 1),
                        Some(run) if run.end == i => run.end += 1,
                        Some(_) => is_one_run = false,
                    }
                }
                (Err(_), None) => unreachable!("such deletes were left out"),
            }
        }
        self.growth = Growth::Anywhere;
        if run.is_some() {
            let run = run.filter(|_| is_one_run);
            self.growth = run.as_ref().map_or(Growth::Anywhere, |run| self.growth_of(run));
            self.run = run;
        }
    }

    /// How it grows, given the one run of entries that was inserted now.
    fn growth_of(&self, run: &Range<usize>) -> Growth {
        let goes_on_rising = self.run.as_ref().is_some_and(|before| before.end == run.start);
        let goes_on_falling = self.run.as_ref().is_some_and(|before| before.start == run.start);
        let is_long = run.len() >= RUN_LONG && run.len() > self.len() / 4;
        if run.end == self.len() || goes_on_rising || is_long {
            Growth::Rising(run.end)
        } else if run.start == 0 || goes_on_falling {
            Growth::Falling(run.start)
        } else {
            Growth::Anywhere
        }
    }

    fn insert(&mut self, i: usize, key: &[u8], value: &Value, ledger: &mut dyn Ledger) {
        let before = if i > 0 { shared_bytes(self.key(i - 1), key) } else { 0 };
        let mut bytes = self.bytes + page::key_cost(before, key.len());
        if i < self.len() {
            let next = self.key(i);
            let after = shared_bytes(key, next);
            // Of three keys in order, the outer two share what both pairs share.
            bytes -= page::key_cost(before.min(after), next.len());
            bytes += page::key_cost(after, next.len());
        }
        self.bytes = bytes;
        let (kind, tail) = self.enter(value, ledger);
        self.pairs.insert(i, key, kind, &tail);
        self.bytes += self.value_cost(i);
    }

    fn replace(&mut self, i: usize, value: &Value, ledger: &mut dyn Ledger) {
        self.bytes -= self.value_cost(i);
        self.leave(i, ledger);
        let (kind, tail) = self.enter(value, ledger);
        self.pairs.replace(i, kind, &tail);
        self.bytes += self.value_cost(i);
    }

    fn remove(&mut self, i: usize, ledger: &mut dyn Ledger) {
        let key = self.key(i);
        let before = if i > 0 { shared_bytes(self.key(i - 1), key) } else { 0 };
        let mut bytes = self.bytes - self.value_cost(i) - page::key_cost(before, key.len());
        if i + 1 < self.len() {
            let next = self.key(i + 1);
            let after = shared_bytes(key, next);
            bytes -= page::key_cost(after, next.len());
            bytes += page::key_cost(before.min(after), next.len());
        }
        self.bytes = bytes;
        self.leave(i, ledger);
        self.pairs.remove(i);
        self.run = None;
    }

    /// Counts a value that comes in, and makes its tail.
    fn enter<'v>(&mut self, value: &'v Value, ledger: &mut dyn Ledger) -> (u8, Cow<'v, [u8]>) {
        match value {
            Value::Extent(extent) => {
                ledger.add(extent.unit.segment, extent.counted());
                (TAIL_EXTENT, extent_tail(extent).to_vec().into())
            }
            Value::Bytes(bytes) if value.must_be_placed() => (TAIL_LARGE, self.keep_large(bytes).to_vec().into()),
            Value::Bytes(bytes) => (TAIL_BYTES, Cow::Borrowed(bytes)),
        }
    }

    fn keep_large(&mut self, bytes: &Bytes) -> [u8; 4] {
        let free = self.large.iter().position(Bytes::is_empty);
        let index = free.unwrap_or(self.large.len());
        match free {
            Some(index) => self.large[index] = bytes.clone(),
            None => self.large.push(bytes.clone()),
        }
        (index as u32).to_be_bytes()
    }

    /// Counts the value of pair `i`, which goes away.
    fn leave(&mut self, i: usize, ledger: &mut dyn Ledger) {
        match self.pairs.kind(i) {
            TAIL_EXTENT => {
                let extent = tail_extent(self.pairs.tail(i));
                ledger.sub(extent.unit.segment, extent.counted());
            }
            TAIL_LARGE => {
                let index = tail_index(self.pairs.tail(i));
                self.large[index] = Bytes::new();
            }
            _ => {}
        }
    }

    fn value_cost(&self, i: usize) -> usize {
        let tail = self.pairs.tail(i);
        match self.pairs.kind(i) {
            TAIL_BYTES => page::bytes_cost(tail.len()),
            TAIL_EXTENT => page::extent_cost(&tail_extent(tail)),
            _ => page::EXTENT_COST_MAX,
        }
    }

    /// Encoded bytes of each pair.
    pub fn costs(&self) -> Vec<Cost> {
        let mut before: &[u8] = &[];
        (0..self.len())
            .map(|i| {
                let (key, value) = (self.key(i), self.value_cost(i));
                let next = page::key_cost(shared_bytes(before, key), key.len()) + value;
                before = key;
                Cost { first: page::key_cost(0, key.len()) + value, next }
            })
            .collect()
    }

    /// A leaf of parts of others, whose keys follow each other.
    pub fn gather(parts: &[(&Leaf, Range<usize>)]) -> Leaf {
        let entries = parts.iter().map(|(_, range)| range.len()).sum();
        let heap_bytes = |(leaf, range): &(&Leaf, Range<usize>)| {
            range.clone().map(|i| leaf.pairs.key(i).len() + leaf.pairs.tail(i).len()).sum::<usize>()
        };
        let mut all = Leaf::empty();
        all.pairs = Sorted::with_room(entries, parts.iter().map(heap_bytes).sum());
        for (leaf, range) in parts {
            for i in range.clone() {
                let (key, kind, tail) = (leaf.pairs.key(i), leaf.pairs.kind(i), leaf.pairs.tail(i));
                let shared = all.len().checked_sub(1).map_or(0, |last| shared_bytes(all.key(last), key));
                all.bytes += page::key_cost(shared, key.len()) + leaf.value_cost(i);
                if kind == TAIL_LARGE {
                    let tail = all.keep_large(&leaf.large[tail_index(tail)]);
                    all.pairs.push(key, kind, &tail);
                } else {
                    all.pairs.push(key, kind, tail);
                }
            }
        }
        all
    }
}

const EXTENT_TAIL_BYTES: usize = POINTER_BYTES + 4 + 4;

fn extent_tail(extent: &Extent) -> [u8; EXTENT_TAIL_BYTES] {
    let mut tail = Vec::with_capacity(EXTENT_TAIL_BYTES);
    extent.unit.encode(&mut tail);
    tail.extend_from_slice(&extent.offset.to_be_bytes());
    tail.extend_from_slice(&extent.length.to_be_bytes());
    tail.try_into().expect("29 + 4 + 4")
}

fn tail_extent(tail: &[u8]) -> Extent {
    let (unit, rest) = tail.split_first_chunk().expect("made by extent_tail");
    let (offset, rest) = rest.split_first_chunk().expect("made by extent_tail");
    let length = rest.try_into().expect("made by extent_tail");
    Extent {
        unit: Pointer::decode(unit).expect("made by extent_tail"),
        offset: u32::from_be_bytes(*offset),
        length: u32::from_be_bytes(length),
    }
}

fn tail_index(tail: &[u8]) -> usize {
    u32::from_be_bytes(tail.try_into().expect("made by keep_large")) as usize
}
