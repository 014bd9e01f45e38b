//! Leaves that are behind: stored, with changes that they have not taken yet.
//!
//! Whoever opens a store that was not closed has its last changes as redo. To take them, each leaf that
//! they touch has to be read: at random, as many as there are changes. So they are *postponed*: kept
//! beside the edges to their leaves ([`Tree::postpone`]), which are read when somebody asks for them, and
//! in the background ([`Tree::catch_up`]). Until then the leaf that a reader gets is made of both.
//!
//! T9 Postponed changes refer to nothing: puts of short bytes, and deletes. So until a leaf has caught up
//! the ledger counts it and its extents as they were stored, which is never too little. An edge to a leaf
//! that is behind is the current tree's own: its inner page is not stored, and no checkpoint is made before
//! all leaves have caught up. Those that have may be stored before that ([`Tree::freeze_leaves`]), or all of
//! them would have to be in memory at once.

use crate::log::{Pointer, SegmentNo};
use crate::tree::balance;
use crate::tree::change::{Plan, Touched, Writer, each_child};
use crate::tree::inner::{Inner, child_of};
use crate::tree::leaf::{Change, Leaf};
use crate::tree::node::{Body, Edge, Node, stored};
use crate::tree::postponed::{Postponed, Where};
use crate::tree::{Key, Ledger, Pages, Tree, TreeError, Value};
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A leaf that is behind.
pub(super) struct Behind {
    /// Where it is stored.
    pub at: Pointer,
    /// Those of many leaves.
    changes: Arc<Postponed>,
    /// Which of them are its own; not empty.
    own: Range<usize>,
    /// What the tree counts as changed because of it: about its encoded bytes, rather more.
    pub dirty: u64,
    caught_up: OnceLock<CaughtUp>,
}

/// The leaf with its changes.
pub(super) struct CaughtUp {
    pub node: Arc<Node>,
    /// What the ledger has to hear when it takes the place of the one that is stored.
    pub freed: Vec<(SegmentNo, u64)>,
}

impl Behind {
    /// The leaf with its changes: made once, when the stored one is in memory.
    pub fn caught_up(&self, pages: &dyn Pages) -> Result<&CaughtUp, TreeError> {
        if let Some(caught_up) = self.caught_up.get() {
            return Ok(caught_up);
        }
        let node = stored(pages, &self.at)?;
        let Body::Leaf(leaf) = &node.body else {
            let what = format!("level: expected 0, found {}", node.level());
            return Err(TreeError::Damaged { at: self.at, what: what.into() });
        };
        Ok(self.caught_up.get_or_init(|| self.apply(leaf.copy())))
    }

    /// What has to be in memory for that.
    pub fn needs(&self) -> Option<Pointer> {
        self.caught_up.get().is_none().then_some(self.at)
    }

    /// The same, once it was made.
    pub fn into_caught_up(self: Arc<Behind>) -> CaughtUp {
        let made = "it was made in the first pass";
        Arc::try_unwrap(self).map_or_else(
            |shared| {
                let CaughtUp { node, freed } = shared.caught_up.get().expect(made);
                CaughtUp { node: node.clone(), freed: freed.clone() }
            },
            |behind| behind.caught_up.into_inner().expect(made),
        )
    }

    fn apply(&self, mut leaf: Leaf) -> CaughtUp {
        let changes: Vec<(&[u8], Option<Value>)> = self
            .own
            .clone()
            .map(|index| self.changes.get(index))
            .filter(|(key, value)| value.is_some() || leaf.search(key).is_ok())
            .map(|(key, value)| (key, value.map(|bytes| Value::Bytes(Bytes::copy_from_slice(bytes)))))
            .collect();
        let changes: Vec<Change<'_>> =
            changes.iter().map(|(key, value)| Change { key, value: value.as_ref() }).collect();
        let mut freed = Freed::default();
        leaf.change(&changes, &mut freed);
        CaughtUp { node: Arc::new(Node::new(Body::Leaf(leaf))), freed: freed.0 }
    }

    fn last_key(&self) -> &[u8] {
        self.changes.get(self.own.end - 1).0
    }
}

/// What leaves the tree when a leaf catches up, beside the leaf itself.
#[derive(Default)]
struct Freed(Vec<(SegmentNo, u64)>);

impl Ledger for Freed {
    fn add(&mut self, segment: SegmentNo, bytes: u64) {
        panic!("T9: postponed changes refer to {bytes} bytes of {segment:?}");
    }

    fn sub(&mut self, segment: SegmentNo, bytes: u64) {
        self.0.push((segment, bytes));
    }
}

/// More changes of one leaf are not postponed: whoever asks for it first would make it, which would take long.
const CHANGES_MAX: usize = 256;

impl Tree {
    /// Takes these changes, or with an error none, without reading a leaf. Answers which of them it has not taken,
    /// in order: those that come to one leaf in hundreds, and in a tree without inner pages all.
    ///
    /// No leaf may be in memory changed, nor be behind already. Ledger and errors as with [`Tree::apply`].
    pub fn postpone(
        &mut self,
        pages: &dyn Pages,
        changes: &Arc<Postponed>,
        ledger: &mut dyn Ledger,
    ) -> Result<Vec<usize>, TreeError> {
        let Some(root) = self.root.edge.as_ref().filter(|_| !changes.is_empty()) else {
            return Ok((0..changes.len()).collect());
        };
        if root.reach(pages, None)?.level() == 0 {
            return Ok((0..changes.len()).collect());
        }
        let mut plan = Plan::new(pages, 0);
        plan.walk_inner(root, None, changes, changes.all())?;
        let (_, pinned) = plan.finish()?;
        let mut left = Vec::new();
        self.write(pages, ledger, pinned, |writer, root| {
            writer.postpone(root, changes, 0..changes.len(), &mut left);
        });
        Ok(left)
    }

    /// What is stored of the first leaves that are behind from this key on, `most` of them, if it is not in
    /// memory.
    pub fn needed_to_catch_up(&self, pages: &dyn Pages, from: &[u8], most: usize) -> Vec<Pointer> {
        let mut found = Vec::new();
        if let Some(root) = &self.root.edge {
            find(root, from, most, &mut found);
        }
        found.iter().filter_map(|behind| behind.needs()).filter(|at| pages.page(at).is_err()).collect()
    }

    /// How many leaves are behind.
    pub fn leaves_behind(&self) -> usize {
        self.behind.leaves
    }

    /// Lets the first leaves that are behind from this key on (empty: from the beginning) catch up, `most` of
    /// them; or with an error none. Answers from which key on others may be behind, if any.
    ///
    /// Ledger and errors as with [`Tree::apply`].
    pub fn catch_up(
        &mut self,
        pages: &dyn Pages,
        ledger: &mut dyn Ledger,
        from: &[u8],
        most: usize,
    ) -> Result<Option<Key>, TreeError> {
        let mut found = Vec::new();
        if let Some(root) = &self.root.edge {
            find(root, from, most, &mut found);
        }
        let mut missing = Vec::new();
        for behind in &found {
            match behind.caught_up(pages) {
                Ok(_) => {}
                Err(TreeError::Miss(pages)) => missing.extend(pages),
                Err(error) => return Err(error),
            }
        }
        if !missing.is_empty() {
            return Err(TreeError::Miss(missing));
        }
        let Some(last) = found.last() else { return Ok(None) };
        let to: Key = last.last_key().into();
        let is_all = found.len() < most;
        self.write(pages, ledger, Vec::new(), |writer, root| {
            writer.catch_up(root, from, Some(&to));
        });
        Ok((!is_all).then_some(to))
    }
}

/// The first leaves that are behind at and below `edge`, from that key on.
fn find<'t>(edge: &'t Edge, from: &[u8], most: usize, found: &mut Vec<&'t Behind>) {
    match edge {
        Edge::Behind(behind) if found.len() < most => found.push(behind),
        Edge::Loaded(node) => {
            let Body::Inner(inner) = &node.body else { return };
            let first = child_of(&inner.keys, from);
            for (i, edge) in inner.edges.iter().enumerate().skip(first) {
                if found.len() >= most {
                    return;
                }
                find(edge, if i == first { from } else { &[] }, most, found);
            }
        }
        _ => {}
    }
}

impl Plan<'_, '_> {
    /// As `walk`, of inner pages only.
    fn walk_inner(
        &mut self,
        edge: &Edge,
        level: Option<u8>,
        changes: &Postponed,
        part: &[Where],
    ) -> Result<(), TreeError> {
        let Some(node) = self.reach(edge, level)? else { return Ok(()) };
        if let Edge::Stored(_) = edge {
            self.pinned.push(node.clone());
        }
        match &node.body {
            Body::Inner(inner) if inner.level > 1 => each_child(
                &inner.keys,
                part,
                |one| changes.key(one),
                |i, part| self.walk_inner(&inner.edges[i], Some(inner.level - 1), changes, part),
            ),
            _ => Ok(()),
        }
    }
}

impl Writer<'_> {
    /// Leaves that part of the changes beside the edges to the leaves below; but for those that go to `left`.
    fn postpone(&mut self, edge: &mut Edge, changes: &Arc<Postponed>, part: Range<usize>, left: &mut Vec<usize>) {
        let page_bytes = self.page_bytes as u64;
        let Body::Inner(inner) = &mut self.own(edge).body else { panic!("T2: a leaf among inner pages") };
        let Inner { level, keys, edges, .. } = inner;
        let Range { mut start, end } = part;
        each_child(
            keys,
            &changes.all()[start..end],
            |one| changes.key(one),
            |i, part| {
                let own = start..start + part.len();
                start = own.end;
                if *level > 1 {
                    self.postpone(&mut edges[i], changes, own, left);
                    return Ok(());
                }
                if part.len() > CHANGES_MAX {
                    left.extend(own);
                    return Ok(());
                }
                let Edge::Stored(at) = edges[i] else {
                    panic!("a leaf that is not stored: {:?}", changes.key(&part[0]))
                };
                let dirty = page_bytes + part.iter().map(Where::bytes_more).sum::<u64>();
                self.behind.bytes += dirty;
                self.behind.leaves += 1;
                let caught_up = OnceLock::new();
                edges[i] = Edge::Behind(Arc::new(Behind { at, changes: changes.clone(), own, dirty, caught_up }));
                Ok(())
            },
        )
        .expect("the visitor does not fail");
    }

    /// Lets what is behind at and below `edge` catch up, from that key on and to that one. Returns whether it
    /// may fit into a page with a neighbour now.
    fn catch_up(&mut self, edge: &mut Edge, from: &[u8], to: Option<&[u8]>) -> bool {
        let node = self.own(edge);
        let before = node.bytes();
        let Body::Inner(inner) = &mut node.body else {
            return before <= balance::merge_bytes(self.page_bytes);
        };
        let first = child_of(&inner.keys, from);
        let last = to.map_or(inner.edges.len() - 1, |to| child_of(&inner.keys, to));
        let mut touched = Vec::new();
        for index in first..=last {
            let edge = &mut inner.edges[index];
            let may_have_some = match edge {
                Edge::Stored(_) => false,
                Edge::Loaded(node) => node.level() > 0,
                Edge::Behind(_) => true,
            };
            if may_have_some {
                let from = if index == first { from } else { &[] };
                let is_short = self.catch_up(edge, from, to.filter(|_| index == last));
                touched.push(Touched { index, is_short });
            }
        }
        self.balance(inner, &touched);
        let after = node.bytes();
        self.dirty = self.dirty - before as u64 + after as u64;
        after < before && after <= balance::merge_bytes(self.page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Root;
    use crate::tree::shelf::{Cache, Counters, Reading, Shelf};

    fn key(number: u32) -> Key {
        number.to_be_bytes().into()
    }

    fn postponed(changes: &[(Key, Option<Value>)]) -> Arc<Postponed> {
        Arc::new(Postponed::of(changes.iter().map(|(key, value)| (&key[..], value))))
    }

    /// A tree of some hundred leaves, as it is found when a store is opened.
    fn opened() -> (Tree, Shelf, Counters) {
        let mut tree = Tree::empty(4096);
        let pairs: Vec<_> = (0..20_000).map(|number| (key(number), Some(Value::from(vec![3; 50])))).collect();
        tree.apply(&Cache::default(), &pairs, &mut Counters::default()).unwrap();
        let mut shelf = Shelf::default();
        let Ok(written) = tree.freeze().write(&mut shelf);
        let counters = Counters::of(&Root::stored(written.root()), &Reading(&Cache::default(), &shelf));
        (Tree::stored(written.root(), 4096), shelf, counters)
    }

    #[test]
    fn what_comes_to_one_leaf_in_hundreds_does_not_wait() {
        let (mut tree, shelf, mut counters) = opened();
        let cache = Cache::default();
        let hot = (5000_u32..5001)
            .flat_map(|number| (0..400_u32).map(move |i| [number.to_be_bytes(), i.to_be_bytes()].concat().into()));
        let keys = (0..20_000).step_by(1000).map(key).chain(hot);
        let mut changes: Vec<(Key, Option<Value>)> = keys.map(|key: Key| (key, Some(Value::from(vec![4])))).collect();
        changes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let changes = postponed(&changes);
        let (left, _) = cache.patiently(&shelf, || tree.postpone(&cache, &changes, &mut counters));
        assert_eq!(left.len(), 401);
        assert_eq!((tree.leaves_behind(), cache.0.borrow().values().filter(|page| page.level() == 0).count()), (19, 0));
        let value = |bytes: &[u8]| Value::from(bytes.to_vec());
        let rest: Vec<_> = left
            .into_iter()
            .map(|index| changes.get(index))
            .map(|(key, bytes)| (Key::from(key), bytes.map(value)))
            .collect();
        cache.patiently(&shelf, || tree.apply(&cache, &rest, &mut counters));
        let (keys, expected): (Vec<&[u8]>, Vec<Option<Value>>) =
            (0..changes.len()).map(|index| changes.get(index)).map(|(key, bytes)| (key, bytes.map(value))).unzip();
        for _ in 0..2 {
            let (values, _) = cache.patiently(&shelf, || tree.root().get_all(&cache, &keys));
            assert!(values == expected);
            cache.patiently(&shelf, || tree.catch_up(&cache, &mut counters, b"", 50));
        }
        assert_eq!(tree.root().check(&Reading(&cache, &shelf), 4096), [""; 0]);
    }

    #[test]
    fn what_is_needed_is_named_in_order_and_in_bounds() {
        let (mut tree, shelf, mut counters) = opened();
        let cache = Cache::default();
        let changes: Vec<(Key, Option<Value>)> = (0..20_000).step_by(500).map(|number| (key(number), None)).collect();
        let changes = postponed(&changes);
        cache.patiently(&shelf, || tree.postpone(&cache, &changes, &mut counters));
        assert_eq!((tree.leaves_behind(), tree.needed_to_catch_up(&cache, b"", 100).len()), (40, 40));
        let needed = tree.needed_to_catch_up(&cache, &key(4000), 10);
        let leaves: Vec<u32> = needed
            .iter()
            .map(|at| match &shelf.decode(at).body {
                Body::Leaf(leaf) => u32::from_be_bytes(leaf.key(0).try_into().unwrap()),
                Body::Inner(_) => panic!("an inner page"),
            })
            .collect();
        assert!(leaves.is_sorted() && leaves.len() == 10 && (3900..=4000).contains(&leaves[0]), "{leaves:?}");
        cache.patiently(&shelf, || tree.catch_up(&cache, &mut counters, &key(4000), 10));
        assert_eq!((tree.leaves_behind(), tree.needed_to_catch_up(&cache, &key(4000), 10).len()), (30, 10));
        let next = cache.patiently(&shelf, || tree.catch_up(&cache, &mut counters, b"", 50)).0;
        assert_eq!((next, tree.leaves_behind()), (None, 0));
        assert_eq!(counters, Counters::of(&tree.root(), &Reading(&cache, &shelf)));
    }
}
