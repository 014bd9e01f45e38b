//! Storing the tree, or only leaves of it: freeze, write, install.
//!
//! While a checkpoint is written, batches go on. Nothing but `install` sets a page's place, on the
//! writer's thread, so to both threads each page looks the same all the while. What can happen to
//! a page that is being written:
//!
//! | meanwhile | then `install` |
//! |---|---|
//! | nothing | counts it for the current tree; it is reached through the cache from then on |
//! | it is changed: the snapshot shares it, so a copy is, and it is marked as left | counts nothing; the copy stays dirty |
//! | it is merged, cut, or emptied away: marked as left too | counts nothing |
//! | a page above it is copied | as with nothing: the copy leads to the same page |
//! | a reader's snapshot holds it | as with nothing; the reader goes on with what it has |
//!
//! Pages that hold loaded children can't go to the cache, which would then keep alive what it does
//! not count. So `install` hands it copies with stored edges, and the current tree lets go of both. Leaves can
//! go there before ([`Written::leaves`]): nobody asks for them until they are installed, and most of them are
//! leaves, so that the writer is held up for little.

use crate::log::Pointer;
use crate::tree::inner::Inner;
use crate::tree::node::{Body, Edge, Node};
use crate::tree::{Ledger, PageSink, Root, Tree};
use std::sync::Arc;

/// A snapshot to be stored. Goes to another thread.
pub struct Frozen(Snapshot);

/// A snapshot of which leaves are to be stored. Goes to another thread.
pub struct FrozenLeaves(Snapshot);

struct Snapshot {
    root: Root,
    in_flight: Arc<()>,
}

/// The pages that were stored, still to be installed.
pub struct Written {
    root: Option<Pointer>,
    pages: Vec<(Arc<Node>, Pointer)>,
    in_flight: Arc<()>,
}

impl Tree {
    /// Takes the snapshot that the next checkpoint stores. O(1).
    ///
    /// Panics while an earlier [`Frozen`], [`FrozenLeaves`] or [`Written`] exists, or while leaves are behind.
    pub fn freeze(&mut self) -> Frozen {
        assert!(self.behind.leaves == 0, "T9: {} leaves have to catch up first", self.behind.leaves);
        Frozen(self.snapshot())
    }

    /// Takes a snapshot of which [changed leaves are stored](FrozenLeaves::write), so that they need not stay in
    /// memory: no checkpoint, which it does not replace. O(1).
    ///
    /// Panics while an earlier [`Frozen`], [`FrozenLeaves`] or [`Written`] exists.
    pub fn freeze_leaves(&mut self) -> FrozenLeaves {
        FrozenLeaves(self.snapshot())
    }

    fn snapshot(&mut self) -> Snapshot {
        assert!(self.in_flight.strong_count() == 0, "one checkpoint at a time");
        let in_flight = Arc::new(());
        self.in_flight = Arc::downgrade(&in_flight);
        Snapshot { root: self.root(), in_flight }
    }

    /// Takes note of where pages are stored now, on the writer's thread: those that are still in
    /// the current tree are added to `ledger` and leave the tree's own memory; inner pages are handed to
    /// `cache`, where leaves may be already.
    ///
    /// Call it once the pages can be read through [`Pages`](super::Pages) (durability does not
    /// matter here). Panics if `written` comes from another tree.
    pub fn install(&mut self, written: Written, ledger: &mut dyn Ledger, cache: &mut dyn FnMut(Pointer, Arc<Node>)) {
        assert!(self.in_flight.as_ptr() == Arc::as_ptr(&written.in_flight), "another tree's checkpoint");
        for (node, at) in &written.pages {
            node.set_place(*at);
            if !node.has_left() {
                ledger.add_page(at);
            }
        }
        drop(written);
        self.dirty = 0;
        if let Some(Edge::Loaded(root)) = &self.root.edge
            && let Some(edge) = settle(root, &mut self.dirty, cache)
        {
            self.root.edge = Some(edge);
        }
    }
}

/// Hands the stored inner pages at and below `node` to `cache` and sums up the others. Returns the edge
/// that is to replace the one to `node`, if any.
fn settle(node: &Arc<Node>, dirty: &mut u64, cache: &mut dyn FnMut(Pointer, Arc<Node>)) -> Option<Edge> {
    let place = node.place();
    let mut settled = Arc::clone(node);
    if let Body::Inner(inner) = &node.body {
        let edges: Vec<_> = inner
            .edges
            .iter()
            .map(|edge| match edge {
                Edge::Loaded(child) => settle(child, dirty, cache),
                Edge::Stored(_) | Edge::Behind(_) => None,
            })
            .collect();
        if edges.iter().any(Option::is_some) {
            let edges = inner.edges.iter().zip(edges).map(|(old, new)| new.unwrap_or_else(|| old.clone())).collect();
            let body = Body::Inner(inner.with_edges(edges));
            settled = Arc::new(match place {
                Some(at) => Node::placed(body, at),
                None => Node::new(body),
            });
        }
        assert!(place.is_none() || is_all_stored(&settled), "T4: a stored page has only stored children");
    }
    match place {
        Some(at) => {
            if settled.level() > 0 {
                cache(at, settled);
            }
            Some(Edge::Stored(at))
        }
        None => {
            *dirty += node.bytes() as u64;
            (!Arc::ptr_eq(node, &settled)).then_some(Edge::Loaded(settled))
        }
    }
}

fn is_all_stored(node: &Node) -> bool {
    match &node.body {
        Body::Leaf(_) => true,
        Body::Inner(inner) => inner.edges.iter().all(|edge| matches!(edge, Edge::Stored(_))),
    }
}

impl Frozen {
    /// The state that is to be stored.
    pub fn root(&self) -> Root {
        self.0.root.clone()
    }

    /// Stores every page of the snapshot that is not stored yet, children before parents. Runs on
    /// any thread while the tree goes on changing.
    ///
    /// After an error what `sink` took is garbage: freeze again, and all is written anew. Panics
    /// if the snapshot holds a value that must be placed (T6).
    pub fn write<S: PageSink + ?Sized>(self, sink: &mut S) -> Result<Written, S::Error> {
        let Snapshot { root, in_flight } = self.0;
        let mut pages = Vec::new();
        let root = match &root.edge {
            Some(edge) => Some(write(edge, &[], sink, &mut pages)?),
            None => None,
        };
        Ok(Written { root, pages, in_flight })
    }
}

impl FrozenLeaves {
    /// Stores every leaf of the snapshot that is changed, unless it is behind or a value in it must be placed. Else
    /// as [`Frozen::write`]; the answer has no root.
    pub fn write<S: PageSink + ?Sized>(self, sink: &mut S) -> Result<Written, S::Error> {
        let Snapshot { root, in_flight } = self.0;
        let mut pages = Vec::new();
        if let Some(edge) = &root.edge {
            write_leaves(edge, sink, &mut pages)?;
        }
        Ok(Written { root: None, pages, in_flight })
    }
}

fn write_leaves<S: PageSink + ?Sized>(
    edge: &Edge,
    sink: &mut S,
    pages: &mut Vec<(Arc<Node>, Pointer)>,
) -> Result<(), S::Error> {
    let Edge::Loaded(node) = edge else { return Ok(()) };
    match &node.body {
        Body::Inner(inner) => inner.edges.iter().try_for_each(|edge| write_leaves(edge, sink, pages)),
        Body::Leaf(leaf) => {
            if node.place().is_none() && !leaf.has_large() {
                pages.push((Arc::clone(node), sink.write(0, leaf.key(0), &leaf.encode())?));
            }
            Ok(())
        }
    }
}

/// Stores what is not stored at and below `edge`. `from`: no key below it is less.
fn write<S: PageSink + ?Sized>(
    edge: &Edge,
    from: &[u8],
    sink: &mut S,
    pages: &mut Vec<(Arc<Node>, Pointer)>,
) -> Result<Pointer, S::Error> {
    let node = match edge {
        Edge::Stored(at) => return Ok(*at),
        Edge::Loaded(node) => node,
        Edge::Behind(behind) => panic!("T9: the leaf at {} is behind in a frozen tree", behind.at),
    };
    if let Some(at) = node.place() {
        return Ok(at);
    }
    let at = match &node.body {
        Body::Leaf(leaf) => sink.write(0, leaf.key(0), &leaf.encode())?,
        Body::Inner(inner) => {
            let places = write_children(inner, from, sink, pages)?;
            sink.write(inner.level, from, &inner.encode(&places))?
        }
    };
    pages.push((Arc::clone(node), at));
    Ok(at)
}

fn write_children<S: PageSink + ?Sized>(
    inner: &Inner,
    from: &[u8],
    sink: &mut S,
    pages: &mut Vec<(Arc<Node>, Pointer)>,
) -> Result<Vec<Pointer>, S::Error> {
    let separators = (0..inner.edges.len()).map(|i| if i == 0 { from } else { inner.keys.key(i) });
    inner.edges.iter().zip(separators).map(|(edge, from)| write(edge, from, sink, pages)).collect()
}

impl Written {
    /// The root page of the stored tree; `None`: it is empty, or only leaves were stored.
    pub fn root(&self) -> Option<Pointer> {
        self.root
    }

    /// The leaves that were written now and that the current tree has still, as far as can be told while it
    /// changes. They do not know their places before they are installed.
    pub fn leaves(&self) -> impl Iterator<Item = (Pointer, Arc<Node>)> + '_ {
        let leaves = self.pages.iter().filter(|(node, _)| node.level() == 0 && !node.has_left());
        leaves.map(|(node, pointer)| (*pointer, Arc::clone(node)))
    }

    /// Encoded bytes of the pages that were written now.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(|(node, _)| node.bytes() as u64).sum()
    }

    /// The pages that were written now: what the stored tree refers to beyond what was stored
    /// before it was frozen.
    pub fn pages(&self) -> impl Iterator<Item = Pointer> + '_ {
        self.pages.iter().map(|(_, pointer)| *pointer)
    }
}
