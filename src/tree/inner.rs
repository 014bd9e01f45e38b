//! An inner page in memory: separators and children.

use crate::log::Pointer;
use crate::tree::DecodeError;
use crate::tree::balance::{Cost, Growth};
use crate::tree::node::Edge;
use crate::tree::page;
use crate::tree::sorted::{Sorted, shared_bytes};
use std::borrow::Cow;
use std::ops::Range;

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

    /// The inner page with this payload, whose header says so.
    pub fn decode(payload: &[u8], level: u8, count: usize) -> Result<Inner, DecodeError> {
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

    /// Encoded size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, separator: &[u8], edge: Edge) {
        let shared = self.keys.len().checked_sub(1).map_or(0, |last| shared_bytes(self.keys.key(last), separator));
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
            page::key_cost(shared_bytes(before, key), key.len())
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
    child_of_found(keys.search(key))
}

/// The same, when the key was searched for among the separators.
pub(super) fn child_of_found(found: Result<usize, usize>) -> usize {
    match found {
        Ok(i) => i,
        // Not 0: the first separator is empty, and no key comes before that.
        Err(i) => i - 1,
    }
}
