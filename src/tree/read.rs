//! Reading a snapshot: get and scan.

use crate::log::Pointer;
use crate::tree::inner::child_of;
use crate::tree::node::{Body, Edge};
use crate::tree::{Pages, TreeError, Value};
use std::ops::{Bound, ControlFlow};

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Rising keys.
    Forward,
    /// Falling keys.
    Backward,
}

/// A snapshot: the state after some batch. Cheap to clone, immutable, usable from any thread.
///
/// It keeps alive the pages that were in memory when it was taken. Stored pages that it refers to
/// stay readable as long as the owner of the log does not free their segments (R2).
#[derive(Clone)]
pub struct Root {
    pub(super) edge: Option<Edge>,
}

impl Root {
    /// The tree whose root page is stored there; `None`: the empty tree.
    pub fn stored(root: Option<Pointer>) -> Root {
        Root { edge: root.map(Edge::Stored) }
    }

    /// Whether it has no pairs.
    pub fn is_empty(&self) -> bool {
        self.edge.is_none()
    }

    /// The value of `key`.
    pub fn get(&self, pages: &dyn Pages, key: &[u8]) -> Result<Option<Value>, TreeError> {
        match &self.edge {
            Some(edge) => get(pages, edge, None, key),
            None => Ok(None),
        }
    }

    /// Calls `visit` with every pair between the bounds, in order, until it breaks. After an error
    /// the pairs visited so far have been visited: go on from the last one. Bounds that enclose
    /// nothing are no error.
    pub fn scan(
        &self,
        pages: &dyn Pages,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let Some(edge) = &self.edge else { return Ok(()) };
        let mut scan = Scan { pages, from, to, direction, visit };
        scan.walk(edge, None).map(|_| ())
    }
}

fn get(pages: &dyn Pages, edge: &Edge, level: Option<u8>, key: &[u8]) -> Result<Option<Value>, TreeError> {
    let node = edge.reach(pages, level)?;
    match &node.body {
        Body::Leaf(leaf) => Ok(leaf.search(key).ok().map(|i| leaf.value(i))),
        Body::Inner(inner) => get(pages, &inner.edges[child_of(&inner.keys, key)], Some(inner.level - 1), key),
    }
}

struct Scan<'s> {
    pages: &'s dyn Pages,
    from: Bound<&'s [u8]>,
    to: Bound<&'s [u8]>,
    direction: Direction,
    visit: &'s mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
}

impl Scan<'_> {
    fn walk(&mut self, edge: &Edge, level: Option<u8>) -> Result<ControlFlow<()>, TreeError> {
        let node = edge.reach(self.pages, level)?;
        match &node.body {
            Body::Leaf(leaf) => {
                let position = |key: &[u8], after: bool| match leaf.search(key) {
                    Ok(i) => i + usize::from(after),
                    Err(i) => i,
                };
                let first = match self.from {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => position(key, false),
                    Bound::Excluded(key) => position(key, true),
                };
                let end = match self.to {
                    Bound::Unbounded => leaf.len(),
                    Bound::Included(key) => position(key, true),
                    Bound::Excluded(key) => position(key, false),
                };
                let visit = &mut self.visit;
                let mut visit = |i| visit(leaf.key(i), &leaf.value(i));
                Ok(match self.direction {
                    Direction::Forward => (first..end).try_for_each(&mut visit),
                    Direction::Backward => (first..end).rev().try_for_each(&mut visit),
                })
            }
            Body::Inner(inner) => {
                let child = |key| child_of(&inner.keys, key);
                let first = match self.from {
                    Bound::Unbounded => 0,
                    Bound::Included(key) | Bound::Excluded(key) => child(key),
                };
                let last = match self.to {
                    Bound::Unbounded => inner.edges.len() - 1,
                    // What begins with an excluded key has nothing below it.
                    Bound::Excluded(key) => inner.keys.search(key).unwrap_or_else(|i| i).saturating_sub(1),
                    Bound::Included(key) => child(key),
                };
                let direction = self.direction;
                let mut walk = |i: usize| match self.walk(&inner.edges[i], Some(inner.level - 1)) {
                    Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                    stop => ControlFlow::Break(stop),
                };
                let stopped = match direction {
                    Direction::Forward => (first..=last).try_for_each(&mut walk),
                    Direction::Backward => (first..=last).rev().try_for_each(&mut walk),
                };
                stopped.break_value().unwrap_or(Ok(ControlFlow::Continue(())))
            }
        }
    }
}
