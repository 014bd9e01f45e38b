//! The writer's tree: apply a batch.
//!
//! Two passes. `Plan` walks down, changes nothing, and may fail: it finds every stored page that
//! the batch changes and holds it aside, makes the leaves that are behind, and leaves out the deletes that
//! find nothing. `Writer`
//! walks the same way again, can't fail, and changes: pages on the way that are stored or shared
//! are replaced, by copies if anybody else has them, and on the way up pages that became too long
//! are cut and pages that shrank are merged with their neighbours.

use crate::log::Pointer;
use crate::tree::balance::{self, Growth, Limit};
use crate::tree::behind::CaughtUp;
use crate::tree::inner::{Child, Inner, child_of};
use crate::tree::leaf::{Change, Leaf};
use crate::tree::node::{Body, Edge, Node, Reached};
use crate::tree::page;
use crate::tree::sorted::{Sorted, shared_bytes};
use crate::tree::{KEY_MAX, Ledger, PAGE_BYTES_MAX, PAGE_BYTES_MIN, Pages, Root, TreeError, VALUE_MAX, Value};
use std::borrow::Cow;
use std::sync::{Arc, Weak};

/// The current tree, the writer's own.
pub struct Tree {
    pub(super) root: Root,
    page_bytes: usize,
    /// Encoded bytes of the current tree's pages that are not stored.
    pub(super) dirty: u64,
    /// Leaves that are behind.
    pub(super) behind: Late,
    /// Alive while a checkpoint is.
    pub(super) in_flight: Weak<()>,
}

/// Leaves that are behind, and about how many bytes they will have when they have caught up.
#[derive(Clone, Copy, Default)]
pub(super) struct Late {
    pub leaves: usize,
    pub bytes: u64,
}

impl Tree {
    /// A tree without pairs. `page_bytes`: the size that a page may fill to, before compression
    /// ([`PAGE_BYTES_MIN`] to [`PAGE_BYTES_MAX`]).
    pub fn empty(page_bytes: usize) -> Tree {
        Tree::stored(None, page_bytes)
    }

    /// The tree whose root page is stored there; `None`: without pairs. Its pages may have been
    /// written with another `page_bytes`.
    pub fn stored(root: Option<Pointer>, page_bytes: usize) -> Tree {
        assert!((PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes), "page_bytes {page_bytes}");
        Tree { root: Root::stored(root), page_bytes, dirty: 0, behind: Late::default(), in_flight: Weak::new() }
    }

    /// A snapshot of the current state. The next batch copies the pages that it changes instead of
    /// changing them in place, if the snapshot still lives then.
    pub fn root(&self) -> Root {
        self.root.clone()
    }

    /// Applies all of `changes` (put or delete; keys strictly rising), or with an error none.
    ///
    /// Tells `ledger` what came into the tree and what left it. A put dirties the page of its key
    /// and all above it even if the value was there already; a delete of what is not there
    /// changes nothing.
    ///
    /// Errors: [`TreeError::Miss`] names every page that is known to be needed, so that a batch
    /// takes at most as many rounds as the tree has levels; [`TreeError::Damaged`] and others as
    /// `pages` gave them. Panics when keys or values are out of bounds or out of order.
    pub fn apply<K: AsRef<[u8]>>(
        &mut self,
        pages: &dyn Pages,
        changes: &[(K, Option<Value>)],
        ledger: &mut dyn Ledger,
    ) -> Result<(), TreeError> {
        let changes: Vec<_> =
            changes.iter().map(|(key, value)| Change { key: key.as_ref(), value: value.as_ref() }).collect();
        check_changes(&changes);
        if changes.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::new(pages, changes.len());
        match &self.root.edge {
            Some(edge) => plan.walk(edge, None, &changes)?,
            None => plan.changes.extend(changes.iter().filter(|change| change.value.is_some())),
        }
        let (changes, pinned) = plan.finish()?;
        if !changes.is_empty() {
            self.write(pages, ledger, pinned, |writer, root| {
                writer.change(root, &changes);
            });
        }
        Ok(())
    }

    /// The second pass: `change` gets the root.
    pub(super) fn write<'t>(
        &'t mut self,
        pages: &'t dyn Pages,
        ledger: &'t mut dyn Ledger,
        pinned: Vec<Arc<Node>>,
        change: impl FnOnce(&mut Writer<'t>, &mut Edge),
    ) {
        let (page_bytes, dirty, behind) = (self.page_bytes, self.dirty, self.behind);
        let mut writer = Writer { pages, ledger, pinned: pinned.into_iter(), page_bytes, dirty, behind };
        let mut edge = self.root.edge.take().unwrap_or_else(|| writer.enter(Body::Leaf(Leaf::empty())));
        change(&mut writer, &mut edge);
        assert!(writer.pinned.len() == 0, "both passes go the same way");
        self.root.edge = writer.finish_root(edge);
        (self.dirty, self.behind) = (writer.dirty, writer.behind);
    }

    /// Encoded bytes of the pages that are not stored, roughly what a checkpoint would write
    /// before compression. Pages being written count until they are installed.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty + self.behind.bytes
    }

    /// The same without leaves that are behind: of pages that are in memory.
    pub fn changed_bytes(&self) -> u64 {
        self.dirty
    }
}

fn check_changes(changes: &[Change<'_>]) {
    assert!(changes.is_sorted_by(|a, b| a.key < b.key), "the keys of a batch rise strictly");
    for Change { key, value } in changes {
        assert!((1..=KEY_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        match value {
            Some(Value::Bytes(bytes)) => assert!(bytes.len() <= VALUE_MAX, "a value of {} bytes", bytes.len()),
            Some(Value::Extent(extent)) => assert!(
                extent.length > 0 && extent.offset as usize + extent.length as usize <= VALUE_MAX,
                "an extent {}+{}",
                extent.offset,
                extent.length
            ),
            None => {}
        }
    }
}

/// How many of these are below, which come first. Looks near the beginning first: mostly it is one or two of
/// thousands.
fn first_above<C>(changes: &[C], is_below: impl Fn(&C) -> bool) -> usize {
    let mut end = 1;
    while changes.get(end - 1).is_some_and(&is_below) {
        end *= 2;
    }
    let start = end / 2;
    start + changes[start..changes.len().min(end)].partition_point(is_below)
}

/// Calls `visit` with each child that has a part in a batch, and its part.
pub(super) fn each_child<'c, 'k, C>(
    keys: &Sorted,
    mut changes: &'c [C],
    key_of: impl Fn(&C) -> &'k [u8],
    mut visit: impl FnMut(usize, &'c [C]) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    while let Some(first) = changes.first() {
        let i = child_of(keys, key_of(first));
        let end = match i + 1 < keys.len() {
            true => first_above(changes, |change| key_of(change) < keys.key(i + 1)),
            false => changes.len(),
        };
        let (part, rest) = changes.split_at(end);
        visit(i, part)?;
        changes = rest;
    }
    Ok(())
}

/// The first pass.
pub(super) struct Plan<'p, 'a> {
    pages: &'p dyn Pages,
    /// The changes that change something.
    changes: Vec<Change<'a>>,
    /// The stored pages that change, in the order in which the second pass meets them.
    pub pinned: Vec<Arc<Node>>,
    missing: Vec<Pointer>,
}

impl<'p, 'a> Plan<'p, 'a> {
    /// For a batch of which at most so many changes change something.
    pub fn new(pages: &'p dyn Pages, changes: usize) -> Plan<'p, 'a> {
        Plan { pages, changes: Vec::with_capacity(changes), pinned: Vec::new(), missing: Vec::new() }
    }

    /// What the second pass needs, if nothing is missing.
    pub fn finish(self) -> Result<(Vec<Change<'a>>, Vec<Arc<Node>>), TreeError> {
        if self.missing.is_empty() { Ok((self.changes, self.pinned)) } else { Err(TreeError::Miss(self.missing)) }
    }

    /// The page, if it is in memory; else takes note of what is missing.
    pub fn reach<'e>(&mut self, edge: &'e Edge, level: Option<u8>) -> Result<Option<Reached<'e>>, TreeError> {
        match edge.reach(self.pages, level) {
            Ok(node) => Ok(Some(node)),
            Err(TreeError::Miss(missing)) => {
                self.missing.extend(missing);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn walk(&mut self, edge: &Edge, level: Option<u8>, changes: &[Change<'a>]) -> Result<(), TreeError> {
        let Some(node) = self.reach(edge, level)? else { return Ok(()) };
        let (pinned_before, changes_before) = (self.pinned.len(), self.changes.len());
        if let Edge::Stored(_) = edge {
            self.pinned.push(Arc::clone(&node));
        }
        match &node.body {
            Body::Leaf(leaf) => self
                .changes
                .extend(changes.iter().filter(|change| change.value.is_some() || leaf.search(change.key).is_ok())),
            Body::Inner(inner) => {
                let key_of = |change: &Change<'a>| change.key;
                each_child(&inner.keys, changes, key_of, |i, part| {
                    self.walk(&inner.edges[i], Some(inner.level - 1), part)
                })?;
            }
        }
        if self.changes.len() == changes_before {
            self.pinned.truncate(pinned_before);
        }
        Ok(())
    }
}

/// The second pass.
pub(super) struct Writer<'t> {
    pages: &'t dyn Pages,
    ledger: &'t mut dyn Ledger,
    pinned: std::vec::IntoIter<Arc<Node>>,
    pub page_bytes: usize,
    pub dirty: u64,
    pub behind: Late,
}

/// A child that changed.
pub(super) struct Touched {
    pub index: usize,
    /// It may fit into a page with a neighbour now.
    pub is_short: bool,
}

impl Writer<'_> {
    /// Applies its part of the batch to a page. It may be too long then, or without entries.
    /// Returns whether it may fit into a page with a neighbour now.
    fn change(&mut self, edge: &mut Edge, changes: &[Change<'_>]) -> bool {
        let node = self.own(edge);
        let before = node.bytes();
        match &mut node.body {
            Body::Leaf(leaf) => leaf.change(changes, self.ledger),
            Body::Inner(inner) => self.change_children(inner, changes),
        }
        let after = node.bytes();
        self.dirty = self.dirty - before as u64 + after as u64;
        after < before && after <= balance::merge_bytes(self.page_bytes)
    }

    fn change_children(&mut self, inner: &mut Inner, changes: &[Change<'_>]) {
        let mut touched = Vec::new();
        let edges = &mut inner.edges;
        each_child(
            &inner.keys,
            changes,
            |change| change.key,
            |index, part| {
                let is_short = self.change(&mut edges[index], part);
                touched.push(Touched { index, is_short });
                Ok(())
            },
        )
        .expect("the visitor does not fail");
        self.balance(inner, &touched);
    }

    /// Repairs what children that changed have become, if need be.
    pub fn balance(&mut self, inner: &mut Inner, touched: &[Touched]) {
        let is_balanced = |&Touched { index, is_short }: &Touched| {
            let node = inner.edges[index].loaded();
            // All children are looked at and moved below: not for nothing, once for each key that is deleted.
            let may_merge = |left: usize| self.may_merge(&inner.edges[left], &inner.edges[left + 1]);
            let has_short_neighbour =
                || index > 0 && may_merge(index - 1) || index + 1 < inner.edges.len() && may_merge(index);
            node.len() > 0 && !self.is_overfull(node) && !(is_short && has_short_neighbour())
        };
        if !touched.iter().all(is_balanced) {
            self.rebalance(inner, touched);
        }
    }

    /// Drops children without entries, cuts those that are too long, merges short ones.
    fn rebalance(&mut self, inner: &mut Inner, touched: &[Touched]) {
        let last = inner.edges.len() - 1;
        let mut cuts = Vec::new();
        let mut touched = touched.iter().peekable();
        let mut children: Vec<Child<'_>> = Vec::with_capacity(inner.edges.len() + 1);
        let mut is_short_before = false;
        for (i, edge) in std::mem::take(&mut inner.edges).into_iter().enumerate() {
            let separator = Cow::Borrowed(inner.keys.key(i));
            let mut is_short = false;
            if let Some(touched) = touched.next_if(|touched| touched.index == i) {
                let node = edge.loaded();
                if node.len() == 0 {
                    self.leave(&edge);
                    continue;
                }
                if self.is_overfull(node) {
                    cuts.push((i, growth(node)));
                    children.extend(self.cut(separator, &edge));
                    is_short_before = false;
                    continue;
                }
                is_short = touched.is_short;
            }
            if (is_short || is_short_before)
                && let Some(before) = children.last()
                && let Some(merged) = self.merge(&before.edge, &separator, &edge)
            {
                children.last_mut().expect("looked at just now").edge = merged;
                is_short_before = true;
            } else {
                children.push(Child { separator, edge });
                is_short_before = is_short;
            }
        }
        let growth = match cuts[..] {
            [(i, Growth::Rising(_))] if i == last => Growth::Rising(children.len()),
            [(0, Growth::Falling(_))] => Growth::Falling(0),
            _ => Growth::Anywhere,
        };
        *inner = Inner::gather(inner.level, children.into_iter(), growth);
    }

    /// The root after a batch: cut if it is too long, cut down to its only child.
    fn finish_root(&mut self, root: Edge) -> Option<Edge> {
        let mut edge = root;
        loop {
            if let Edge::Behind(_) = edge {
                // Its time comes.
                return Some(edge);
            }
            let Ok(node) = edge.reach(self.pages, None).map(|node| Arc::clone(&node)) else {
                // T2: a stored child that is not in memory becomes the root as it is.
                return Some(edge);
            };
            edge = match &node.body {
                _ if node.len() == 0 => {
                    self.leave(&edge);
                    return None;
                }
                _ if self.is_overfull(&node) => {
                    let growth = growth(&node);
                    let pieces = self.cut(Cow::Borrowed(&[]), &edge);
                    let growth = match growth {
                        Growth::Rising(_) => Growth::Rising(pieces.len()),
                        Growth::Falling(_) => Growth::Falling(0),
                        Growth::Anywhere => Growth::Anywhere,
                    };
                    self.enter(Body::Inner(Inner::gather(node.level() + 1, pieces.into_iter(), growth)))
                }
                Body::Inner(inner) if inner.edges.len() == 1 => {
                    self.leave(&edge);
                    inner.edges[0].clone()
                }
                _ => return Some(edge),
            };
        }
    }

    fn is_overfull(&self, node: &Node) -> bool {
        node.bytes() > self.page_bytes && node.len() > node.entries_free()
    }

    /// The page that this edge leads to, to be changed: neither stored nor shared (T5).
    pub fn own<'e>(&mut self, edge: &'e mut Edge) -> &'e mut Node {
        match edge {
            Edge::Stored(at) => {
                let node = self.pinned.next().expect("both passes go the same way");
                assert!(node.place() == Some(*at), "both passes go the same way");
                self.leave(edge);
                *edge = self.enter(Node::into_changeable(node));
            }
            Edge::Loaded(node) => {
                // Whoever shares it holds it itself or a page above it. The latter is why a page
                // is owned before its children: its copy then shares them.
                if Arc::get_mut(node).is_none_or(|node| node.place().is_some()) {
                    let copy = node.body.copy();
                    self.leave(edge);
                    *edge = self.enter(copy);
                }
            }
            Edge::Behind(behind) => {
                let at = behind.at;
                self.behind.bytes -= behind.dirty;
                self.behind.leaves -= 1;
                let Edge::Behind(behind) = std::mem::replace(edge, Edge::Stored(at)) else { unreachable!("looked at") };
                self.leave(edge);
                let CaughtUp { node, freed } = behind.into_caught_up();
                freed.iter().for_each(|(segment, bytes)| self.ledger.sub(*segment, *bytes));
                *edge = self.enter(Node::into_changeable(node));
            }
        }
        match edge {
            Edge::Loaded(node) => Arc::get_mut(node).expect("T5: it is new, or was found to be ours alone"),
            Edge::Stored(_) | Edge::Behind(_) => unreachable!("it was replaced above"),
        }
    }

    /// A new page of the current tree.
    fn enter(&mut self, body: Body) -> Edge {
        let edge = Edge::new(body);
        self.dirty += edge.loaded().bytes() as u64;
        edge
    }

    /// This page is no longer one of the current tree's (T7).
    fn leave(&mut self, edge: &Edge) {
        let place = match edge {
            Edge::Stored(at) => Some(*at),
            Edge::Loaded(node) => node.place(),
            Edge::Behind(behind) => panic!("T9: the leaf at {} leaves without its changes", behind.at),
        };
        match (place, edge) {
            (Some(at), _) => {
                self.ledger.sub_page(&at);
                self.pages.left(&at);
            }
            (None, edge) => {
                let node = edge.loaded();
                node.set_left();
                self.dirty -= node.bytes() as u64;
            }
        }
    }

    /// Cuts a page that is too long. The first of the pieces keeps its separator.
    fn cut<'k>(&mut self, separator: Cow<'k, [u8]>, edge: &Edge) -> Vec<Child<'k>> {
        let node = edge.loaded();
        let limit = Limit { header: page::HEADER_BYTES, bytes: self.page_bytes, entries: node.entries_free() };
        let costs = match &node.body {
            Body::Leaf(leaf) => leaf.costs(),
            Body::Inner(inner) => inner.costs(),
        };
        let mut children = Vec::new();
        self.leave(edge);
        for range in balance::cut(&costs, limit, growth(node)) {
            let start = range.start;
            let own_separator = match &node.body {
                _ if start == 0 => separator.clone(),
                Body::Leaf(leaf) => shortest_separator(leaf.key(start - 1), leaf.key(start)).to_vec().into(),
                Body::Inner(inner) => inner.keys.key(start).to_vec().into(),
            };
            let body = match &node.body {
                Body::Leaf(leaf) => Body::Leaf(Leaf::gather(&[(leaf, range)])),
                Body::Inner(inner) => Body::Inner(Inner::gather(inner.level, inner.children(range), Growth::Anywhere)),
            };
            children.push(Child { separator: own_separator, edge: self.enter(body) });
        }
        children
    }

    /// Whether two adjacent pages are in memory and short enough to be one.
    fn may_merge(&self, left: &Edge, right: &Edge) -> bool {
        self.short_neighbours(left, right).is_some()
    }

    fn short_neighbours<'e>(&self, left: &'e Edge, right: &'e Edge) -> Option<(Reached<'e>, Reached<'e>)> {
        if [left, right].iter().any(|edge| matches!(edge, Edge::Behind(_))) {
            return None;
        }
        let (left, right) = (left.reach(self.pages, None).ok()?, right.reach(self.pages, None).ok()?);
        (left.bytes() + right.bytes() <= balance::merge_bytes(self.page_bytes)).then_some((left, right))
    }

    /// Two adjacent pages as one, if both are in memory and short enough. `separator`: of the
    /// right one.
    fn merge(&mut self, left: &Edge, separator: &[u8], right: &Edge) -> Option<Edge> {
        let (left_node, right_node) = self.short_neighbours(left, right)?;
        let body = match (&left_node.body, &right_node.body) {
            (Body::Leaf(left), Body::Leaf(right)) => {
                Body::Leaf(Leaf::gather(&[(left, 0..left.len()), (right, 0..right.len())]))
            }
            (Body::Inner(left), Body::Inner(right)) if left.level == right.level => {
                let mut children: Vec<_> = left.children(0..left.edges.len()).collect();
                let boundary = children.len();
                children.extend(right.children(0..right.edges.len()));
                children[boundary].separator = Cow::Borrowed(separator);
                Body::Inner(Inner::gather(left.level, children.into_iter(), Growth::Anywhere))
            }
            // A damaged store: whoever reads that page is told.
            _ => return None,
        };
        let merged = Node::new(body);
        if merged.bytes() > self.page_bytes {
            // Between inner pages a long separator comes in.
            return None;
        }
        self.leave(left);
        self.leave(right);
        self.dirty += merged.bytes() as u64;
        Some(Edge::Loaded(Arc::new(merged)))
    }
}

fn growth(node: &Node) -> Growth {
    match &node.body {
        Body::Leaf(leaf) => leaf.growth,
        Body::Inner(inner) => inner.growth,
    }
}

/// The shortest key that is above `left` and not above `right`.
fn shortest_separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    &right[..shared_bytes(left, right) + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_is_counted() {
        for length in 0..70 {
            let numbers: Vec<usize> = (0..length).collect();
            for bound in 0..length + 2 {
                assert_eq!(first_above(&numbers, |number| *number < bound), bound.min(length), "{bound} of {length}");
            }
        }
    }

    #[test]
    fn separators_are_short() {
        assert_eq!(shortest_separator(b"apple", b"banana"), b"b");
        assert_eq!(shortest_separator(b"apple", b"applf"), b"applf");
        assert_eq!(shortest_separator(b"a", b"abc"), b"ab");
    }
}
