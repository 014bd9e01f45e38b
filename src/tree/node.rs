//! A page in memory.

use crate::log::{POINTER_BYTES, Pointer};
use crate::tree::balance::{Cost, Growth};
use crate::tree::page::{self, StoredValue};
use crate::tree::sorted::Sorted;
use crate::tree::{DecodeError, Extent, Ledger, Pages, TreeError, Value};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What refers to a page.
#[derive(Clone)]
pub(super) enum Edge {
    /// It is stored there and reached through the cache.
    Stored(Pointer),
    /// It is in memory: changed since it was stored, or never stored.
    Loaded(Arc<Node>),
}

/// A page that an edge led to.
pub(super) enum Reached<'a> {
    Held(&'a Arc<Node>),
    Cached(Arc<Node>),
}

impl Deref for Reached<'_> {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        match self {
            Reached::Held(node) => node,
            Reached::Cached(node) => node,
        }
    }
}

impl Edge {
    pub fn new(body: Body) -> Edge {
        Edge::Loaded(Arc::new(Node::new(body)))
    }

    /// The page, which must have this level if one is given: so a walk down ends.
    pub fn reach(&self, pages: &dyn Pages, level: Option<u8>) -> Result<Reached<'_>, TreeError> {
        let node = match self {
            Edge::Loaded(node) => Reached::Held(node),
            Edge::Stored(at) => {
                let node = pages.page(at)?;
                assert!(node.place() == Some(*at), "asked for the page at {at}, got the one at {:?}", node.place());
                Reached::Cached(node)
            }
        };
        match level {
            Some(level) if level != node.level() => match node.place() {
                Some(at) => Err(TreeError::Damaged {
                    at,
                    what: format!("level: expected {level}, found {}", node.level()).into(),
                }),
                None => panic!("T2: level {} below level {}", node.level(), level + 1),
            },
            _ => Ok(node),
        }
    }

    /// The page of an edge that was just changed.
    pub fn loaded(&self) -> &Arc<Node> {
        match self {
            Edge::Loaded(node) => node,
            Edge::Stored(at) => panic!("the page at {at} has to be in memory"),
        }
    }
}

/// A page in memory: immutable while shared (T5).
pub struct Node {
    pub(super) body: Body,
    /// Where it is stored. Set once, by `install` on the writer's thread.
    place: OnceLock<Pointer>,
    /// It left the current tree before it was stored: should a running checkpoint store it, the
    /// current tree's ledger must not count it. Written and read on the writer's thread only.
    left: AtomicBool,
}

/// What a page holds.
pub(super) enum Body {
    Leaf(Leaf),
    Inner(Inner),
}

impl Node {
    /// The page with this payload, which is stored at `at`.
    pub fn decode(payload: &[u8], at: Pointer) -> Result<Node, DecodeError> {
        let header = page::decode_header(payload)?;
        let body = match header.level {
            0 => Body::Leaf(Leaf::decode(payload, header.count)?),
            level => Body::Inner(Inner::decode(payload, level, header.count)?),
        };
        Ok(Node::placed(body, at))
    }

    /// Bytes of memory that it takes, roughly: what a cache should count for it.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Node>()
            + match &self.body {
                Body::Leaf(leaf) => {
                    leaf.pairs.memory_bytes()
                        + leaf.large.iter().map(|bytes| size_of::<Bytes>() + bytes.len()).sum::<usize>()
                }
                Body::Inner(inner) => inner.keys.memory_bytes() + inner.edges.capacity() * size_of::<Edge>(),
            }
    }

    /// A page that is not stored.
    pub(super) fn new(body: Body) -> Node {
        Node { body, place: OnceLock::new(), left: AtomicBool::new(false) }
    }

    /// A page that is stored there.
    pub(super) fn placed(body: Body, at: Pointer) -> Node {
        Node { body, place: OnceLock::from(at), left: AtomicBool::new(false) }
    }

    /// Where it is stored.
    pub(super) fn place(&self) -> Option<Pointer> {
        self.place.get().copied()
    }

    /// Takes note of where it is stored.
    pub(super) fn set_place(&self, at: Pointer) {
        assert!(self.place.set(at).is_ok(), "stored twice: at {:?} and at {at}", self.place());
    }

    /// Whether it left the current tree before it was stored.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes note that it left the current tree.
    pub(super) fn set_left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    pub(super) fn level(&self) -> u8 {
        match &self.body {
            Body::Leaf(_) => 0,
            Body::Inner(inner) => inner.level,
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Leaf(leaf) => leaf.pairs.len(),
            Body::Inner(inner) => inner.edges.len(),
        }
    }

    /// Encoded size.
    pub(super) fn bytes(&self) -> usize {
        match &self.body {
            Body::Leaf(leaf) => leaf.bytes,
            Body::Inner(inner) => inner.bytes,
        }
    }

    /// So many entries may always share such a page: with one child less, cutting would never end.
    pub(super) fn entries_free(&self) -> usize {
        match &self.body {
            Body::Leaf(_) => 1,
            Body::Inner(_) => 2,
        }
    }
}

impl Body {
    /// A copy that is about to be changed.
    pub fn copy(&self) -> Body {
        match self {
            Body::Leaf(leaf) => Body::Leaf(Leaf {
                pairs: leaf.pairs.copy(),
                large: leaf.large.clone(),
                bytes: leaf.bytes,
                growth: leaf.growth,
                run: leaf.run.clone(),
            }),
            Body::Inner(inner) => Body::Inner(inner.with_edges(inner.edges.clone())),
        }
    }
}

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

    fn decode(payload: &[u8], count: usize) -> Result<Leaf, DecodeError> {
        let mut pairs = Sorted::with_room(count, payload.len());
        page::decode_leaf(payload, |key, value| match value {
            StoredValue::Bytes(bytes) => pairs.push(key, TAIL_BYTES, bytes),
            StoredValue::Extent(extent) => pairs.push(key, TAIL_EXTENT, &extent_tail(&extent)),
        })?;
        pairs.fit();
        Ok(Leaf { pairs, bytes: payload.len(), ..Leaf::default() })
    }

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

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn key(&self, i: usize) -> &[u8] {
        self.pairs.key(i)
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
            match (self.pairs.search_from(from, change.key), change.value) {
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
        let before = if i > 0 { page::shared_bytes(self.key(i - 1), key) } else { 0 };
        let mut bytes = self.bytes + page::key_cost(before, key.len());
        if i < self.len() {
            let next = self.key(i);
            let after = page::shared_bytes(key, next);
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
        let before = if i > 0 { page::shared_bytes(self.key(i - 1), key) } else { 0 };
        let mut bytes = self.bytes - self.value_cost(i) - page::key_cost(before, key.len());
        if i + 1 < self.len() {
            let next = self.key(i + 1);
            let after = page::shared_bytes(key, next);
            bytes -= page::key_cost(after, next.len());
            bytes += page::key_cost(before.min(after), next.len());
        }
        self.bytes = bytes;
        self.leave(i, ledger);
        self.pairs.remove(i);
        self.growth = Growth::Anywhere;
        self.run = None;
    }

    /// Counts a value that comes in, and makes its tail.
    fn enter<'v>(&mut self, value: &'v Value, ledger: &mut dyn Ledger) -> (u8, Cow<'v, [u8]>) {
        match value {
            Value::Extent(extent) => {
                ledger.add(extent.unit.segment, extent.length.into());
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
                ledger.sub(extent.unit.segment, extent.length.into());
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
                let next = page::key_cost(page::shared_bytes(before, key), key.len()) + value;
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
                let shared = all.len().checked_sub(1).map_or(0, |last| page::shared_bytes(all.key(last), key));
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

/// A page of separators and children.
pub(super) struct Inner {
    pub level: u8,
    /// As many as edges; the first is empty.
    pub keys: Sorted,
    pub edges: Vec<Edge>,
    /// Encoded size.
    bytes: usize,
    pub growth: Growth,
}

/// An entry of an inner page.
pub(super) struct Child<'a> {
    pub separator: Cow<'a, [u8]>,
    pub edge: Edge,
}

impl Inner {
    /// Of these children, the first separator of which does not matter.
    pub fn gather<'a>(level: u8, children: impl ExactSizeIterator<Item = Child<'a>>, growth: Growth) -> Inner {
        assert!((1..=page::LEVEL_MAX).contains(&level));
        let count = children.len();
        let mut inner = Inner {
            level,
            keys: Sorted::with_room(count, count * 8),
            edges: Vec::with_capacity(count),
            bytes: page::HEADER_BYTES,
            growth,
        };
        for (i, child) in children.enumerate() {
            let separator: &[u8] = if i == 0 { &[] } else { &child.separator };
            inner.push(separator, child.edge);
        }
        inner
    }

    fn decode(payload: &[u8], level: u8, count: usize) -> Result<Inner, DecodeError> {
        let mut inner = Inner {
            level,
            keys: Sorted::with_room(count, payload.len()),
            edges: Vec::with_capacity(count),
            bytes: payload.len(),
            growth: Growth::Anywhere,
        };
        page::decode_inner(payload, |key, pointer| {
            inner.keys.push(key, 0, &[]);
            inner.edges.push(Edge::Stored(pointer));
        })?;
        inner.keys.fit();
        Ok(inner)
    }

    fn push(&mut self, separator: &[u8], edge: Edge) {
        let shared =
            self.keys.len().checked_sub(1).map_or(0, |last| page::shared_bytes(self.keys.key(last), separator));
        self.bytes += page::key_cost(shared, separator.len()) + page::CHILD_COST;
        self.keys.push(separator, 0, &[]);
        self.edges.push(edge);
    }

    /// Its payload, when the children lie there.
    pub fn encode(&self, places: &[Pointer]) -> Vec<u8> {
        assert!(places.len() == self.edges.len());
        let entries = places.iter().enumerate().map(|(i, place)| (self.keys.key(i), *place));
        page::encode_inner(self.level, self.bytes, entries)
    }

    /// The same page with other edges to the same children.
    pub fn with_edges(&self, edges: Vec<Edge>) -> Inner {
        assert!(edges.len() == self.edges.len());
        Inner { level: self.level, keys: self.keys.copy(), edges, bytes: self.bytes, growth: self.growth }
    }

    /// Encoded bytes of each entry. The first of a page gives its separator to the page above, so
    /// that the second has nothing to share.
    pub fn costs(&self) -> Vec<Cost> {
        let next_cost = |i: usize| {
            let before = if i > 0 { self.keys.key(i - 1) } else { &[] };
            let key = self.keys.key(i);
            page::key_cost(page::shared_bytes(before, key), key.len())
        };
        let more_for_second = |i: usize| match i < self.keys.len() {
            true => page::key_cost(0, self.keys.key(i).len()) - next_cost(i),
            false => 0,
        };
        (0..self.edges.len())
            .map(|i| Cost {
                first: page::key_cost(0, 0) + page::CHILD_COST + more_for_second(i + 1),
                next: next_cost(i) + page::CHILD_COST,
            })
            .collect()
    }

    /// The children in that range, with their separators.
    pub fn children(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = Child<'_>> {
        range.map(|i| Child { separator: Cow::Borrowed(self.keys.key(i)), edge: self.edges[i].clone() })
    }
}

/// The child that a key belongs to, given the separators of an inner page.
pub(super) fn child_of(keys: &Sorted, key: &[u8]) -> usize {
    match keys.search(key) {
        Ok(i) => i,
        // Not 0: the first separator is empty, and no key comes before that.
        Err(i) => i - 1,
    }
}
