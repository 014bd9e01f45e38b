//! Reading a snapshot: get and scan.

use crate::log::Pointer;
use crate::tree::abreast;
use crate::tree::ahead::{Manner, Step};
use crate::tree::inner::{Inner, child_of};
use crate::tree::node::{Body, Edge, Node};
use crate::tree::{Pages, TreeError, Value};
use std::collections::HashSet;
use std::ops::{Bound, ControlFlow, Range};
use std::sync::Arc;

/// A miss of many gets names no more pages than this: they should find room in any cache.
pub(super) const MISSING_MAX: usize = 512;

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

    /// Whether both are known to be the same state, without looking at their pairs.
    pub fn is_same(&self, other: &Root) -> bool {
        match (&self.edge, &other.edge) {
            (Some(Edge::Stored(one)), Some(Edge::Stored(other))) => one == other,
            (Some(Edge::Loaded(one)), Some(Edge::Loaded(other))) => Arc::ptr_eq(one, other),
            (Some(Edge::Behind(one)), Some(Edge::Behind(other))) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Whether it has no pairs.
    pub fn is_empty(&self) -> bool {
        self.edge.is_none()
    }

    /// The value of `key`.
    pub fn get(&self, pages: &dyn Pages, key: &[u8]) -> Result<Option<Value>, TreeError> {
        let Some(edge) = &self.edge else { return Ok(None) };
        get(pages, &*edge.reach(pages, None)?, None, key)
    }

    /// The value of `key`, mostly without a search for its leaf if that is the one that `last` was left at by
    /// this root.
    pub fn get_near(&self, pages: &dyn Pages, last: &mut Option<Near>, key: &[u8]) -> Result<Option<Value>, TreeError> {
        if let Some(near) = last.as_ref().filter(|near| near.has(key)) {
            return get(pages, &near.leaf, None, key);
        }
        let Some(edge) = &self.edge else { return Ok(None) };
        let root = edge.reach(pages, None)?;
        find_near(pages, &root, None, key, (&[], None), last)
    }

    /// The values of these keys, in the same order. One miss names the pages that are missing for
    /// any of them, or some hundreds of those.
    pub fn get_all<K: AsRef<[u8]>>(&self, pages: &dyn Pages, keys: &[K]) -> Result<Vec<Option<Value>>, TreeError> {
        // Then many have the same leaf.
        if !keys.is_sorted_by(|one, other| one.as_ref() <= other.as_ref()) {
            return match &self.edge {
                Some(edge) => abreast::get_all(pages, edge, keys),
                None => Ok(vec![None; keys.len()]),
            };
        }
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Missing::default();
        let mut last = None;
        for key in keys {
            match self.get_near(pages, &mut last, key.as_ref()) {
                Ok(value) => values.push(value),
                Err(error) => missing.add(error)?,
            }
            if missing.len() >= MISSING_MAX {
                break;
            }
        }
        missing.or(values)
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
        let mut scan = Scan { pages, bounds: Bounds { from, to }, direction, visit };
        let root = edge.reach(pages, None)?;
        scan.walk(&root, None).map(|_| ())
    }
}

/// Pages that many gets miss, each once.
#[derive(Default)]
pub(super) struct Missing {
    pages: Vec<Pointer>,
    named: HashSet<Pointer>,
}

impl Missing {
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Takes note of a miss; any other error is returned.
    pub fn add(&mut self, error: TreeError) -> Result<(), TreeError> {
        let TreeError::Miss(pages) = error else { return Err(error) };
        self.pages.extend(pages.into_iter().filter(|at| self.named.insert(*at)));
        Ok(())
    }

    /// What was found, if nothing is missing.
    pub fn or<T>(mut self, found: T) -> Result<T, TreeError> {
        self.pages.truncate(MISSING_MAX);
        if self.pages.is_empty() { Ok(found) } else { Err(TreeError::Miss(self.pages)) }
    }
}

fn get(pages: &dyn Pages, node: &Node, above: Option<&Step<'_>>, key: &[u8]) -> Result<Option<Value>, TreeError> {
    match &node.body {
        Body::Leaf(leaf) => Ok(leaf.search(key).ok().map(|i| leaf.value(i))),
        Body::Inner(inner) => {
            let step = Step { inner, child: child_of(&inner.keys, key), above };
            let child = step.reach(pages).map_err(|error| step.name_ahead(pages, error, Manner::Get, |_| 0..0))?;
            get(pages, &child, Some(&step), key)
        }
    }
}

/// A leaf, and which keys belong there: from the first on, and below the second, if there is one.
pub struct Near {
    leaf: Arc<Node>,
    from: Box<[u8]>,
    to: Option<Box<[u8]>>,
}

impl Near {
    fn has(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_ref().is_none_or(|to| *key < **to)
    }
}

/// As `get`, of a node to which keys from the first on and below the second belong; leaves `last` at the leaf.
fn find_near(
    pages: &dyn Pages,
    node: &Arc<Node>,
    above: Option<&Step<'_>>,
    key: &[u8],
    (from, to): (&[u8], Option<&[u8]>),
    last: &mut Option<Near>,
) -> Result<Option<Value>, TreeError> {
    match &node.body {
        Body::Leaf(_) => {
            *last = Some(Near { leaf: Arc::clone(node), from: from.into(), to: to.map(Into::into) });
            get(pages, node, above, key)
        }
        Body::Inner(inner) => {
            let step = Step { inner, child: child_of(&inner.keys, key), above };
            let child = step.reach(pages).map_err(|error| step.name_ahead(pages, error, Manner::Get, |_| 0..0))?;
            let from = if step.child == 0 { from } else { inner.keys.key(step.child) };
            let to = if step.child + 1 < inner.keys.len() { Some(inner.keys.key(step.child + 1)) } else { to };
            find_near(pages, &child, Some(&step), key, (from, to), last)
        }
    }
}

#[derive(Clone, Copy)]
struct Bounds<'s> {
    from: Bound<&'s [u8]>,
    to: Bound<&'s [u8]>,
}

impl Bounds<'_> {
    /// The children of an inner page that have keys between the bounds.
    fn within(self, inner: &Inner) -> Range<usize> {
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
        first..last + 1
    }
}

struct Scan<'s> {
    pages: &'s dyn Pages,
    bounds: Bounds<'s>,
    direction: Direction,
    visit: &'s mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
}

impl Scan<'_> {
    fn walk(&mut self, node: &Node, above: Option<&Step<'_>>) -> Result<ControlFlow<()>, TreeError> {
        match &node.body {
            Body::Leaf(leaf) => {
                let position = |key: &[u8], after: bool| match leaf.search(key) {
                    Ok(i) => i + usize::from(after),
                    Err(i) => i,
                };
                let first = match self.bounds.from {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => position(key, false),
                    Bound::Excluded(key) => position(key, true),
                };
                let end = match self.bounds.to {
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
                let mut children = self.bounds.within(inner);
                let direction = self.direction;
                let mut walk = |child: usize| match self.walk_child(Step { inner, child, above }) {
                    Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                    stop => ControlFlow::Break(stop),
                };
                let stopped = match direction {
                    Direction::Forward => children.try_for_each(&mut walk),
                    Direction::Backward => children.rev().try_for_each(&mut walk),
                };
                stopped.break_value().unwrap_or(Ok(ControlFlow::Continue(())))
            }
        }
    }

    fn walk_child(&mut self, step: Step<'_>) -> Result<ControlFlow<()>, TreeError> {
        let (pages, manner, bounds) = (self.pages, Manner::Scan(self.direction), self.bounds);
        let child =
            step.reach(pages).map_err(|error| step.name_ahead(pages, error, manner, |inner| bounds.within(inner)))?;
        self.walk(&child, Some(&step))
    }
}
