//! A page in memory, and what refers to it.

use crate::log::Pointer;
use crate::tree::behind::Behind;
use crate::tree::inner::Inner;
use crate::tree::leaf::Leaf;
use crate::tree::page;
use crate::tree::sorted::Sorted;
use crate::tree::{DecodeError, Pages, TreeError};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What refers to a page.
#[derive(Clone)]
pub(super) enum Edge {
    /// It is stored there and reached through the cache.
    Stored(Pointer),
    /// It is in memory: changed since it was stored, or never stored.
    Loaded(Arc<Node>),
    /// A leaf that is stored, and has not taken its last changes yet (T9).
    Behind(Arc<Behind>),
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
            Edge::Stored(at) => Reached::Cached(stored(pages, at)?),
            Edge::Behind(behind) => Reached::Held(&behind.caught_up(pages)?.node),
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
            Edge::Behind(behind) => panic!("the page at {} has to be changed", behind.at),
        }
    }

    /// What of it is stored: where the page that it leads to is behind, that page as it was.
    pub fn as_stored(&self) -> Cow<'_, Edge> {
        match self {
            Edge::Behind(behind) => Cow::Owned(Edge::Stored(behind.at)),
            edge => Cow::Borrowed(edge),
        }
    }
}

pub(super) fn stored(pages: &dyn Pages, at: &Pointer) -> Result<Arc<Node>, TreeError> {
    let node = pages.page(at)?;
    assert!(node.place() == Some(*at), "asked for the page at {at}, got the one at {:?}", node.place());
    Ok(node)
}

/// A page in memory: immutable while shared (T5).
pub struct Node {
    pub(super) body: Body,
    /// Where it is stored. Set once, by `install` on the writer's thread.
    place: OnceLock<Pointer>,
    /// It left the current tree before it was stored: should a running checkpoint store it, the
    /// current tree's ledger must not count it. Written on the writer's thread; elsewhere a hint.
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
                Body::Leaf(leaf) => leaf.memory_bytes(),
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

    /// What a stored page holds, to be changed: itself, if nobody else has it.
    pub(super) fn into_changeable(node: Arc<Node>) -> Body {
        if node.body.is_wasteful() {
            return node.body.copy();
        }
        Arc::try_unwrap(node).map_or_else(|shared| shared.body.copy(), |node| node.body)
    }

    /// Where it is stored.
    pub fn place(&self) -> Option<Pointer> {
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
            Body::Leaf(leaf) => leaf.len(),
            Body::Inner(inner) => inner.edges.len(),
        }
    }

    /// Encoded size.
    pub(super) fn bytes(&self) -> usize {
        match &self.body {
            Body::Leaf(leaf) => leaf.bytes(),
            Body::Inner(inner) => inner.bytes(),
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page of level {}, {} entries, {} bytes", self.level(), self.len(), self.bytes())?;
        self.place().map_or(Ok(()), |at| write!(f, ", at {at}"))
    }
}

impl Body {
    /// Pairs, or children by their separators.
    pub fn entries(&self) -> &Sorted {
        match self {
            Body::Leaf(leaf) => leaf.pairs(),
            Body::Inner(inner) => &inner.keys,
        }
    }

    /// Whether a copy takes much less memory.
    fn is_wasteful(&self) -> bool {
        match self {
            Body::Leaf(leaf) => leaf.is_wasteful(),
            Body::Inner(inner) => inner.keys.is_wasteful(),
        }
    }

    /// A copy that is about to be changed.
    pub fn copy(&self) -> Body {
        match self {
            Body::Leaf(leaf) => Body::Leaf(leaf.copy()),
            Body::Inner(inner) => Body::Inner(inner.with_edges(inner.edges.clone())),
        }
    }
}
