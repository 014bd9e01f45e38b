//! The copy-on-write B+Tree.
//!
//! Files, in reading order: `value` (what a key maps to), `sorted` (entries in one piece of
//! memory), `node` (a page in memory: a `leaf` or `inner`), `page` (a page as stored: the format),
//! `read` (get and scan), `abreast` (many gets side by side), `ahead` (what a miss names beside the
//! page that is missing), `change` (apply a batch), `balance` (where pages are cut), `behind` (changes that leaves take later;
//! `postponed` holds them), `checkpoint` (freeze, write, install), `check`
//! (walk everything), `places` (where pages lie). For tests: `shelf` (storage, cache and ledger in
//! memory), `model` (the tree
//! against a map).
//!
//! # Contract
//!
//! * A [`Tree`] is the writer's: one thread at a time calls its `&mut` methods. A [`Root`] is a
//!   snapshot: cheap to clone, immutable, usable from any thread, never blocked by the writer.
//! * The tree does no I/O. It reads pages through [`Pages`], which answers from memory or says
//!   [`TreeError::Miss`]: then nothing has changed, the caller fetches those pages and asks again.
//!   (The first that a miss names is needed; others may only be likely to be needed next.)
//!   It writes pages through [`PageSink`] (checkpoint only).
//! * [`Tree::apply`] is atomic: on any error the tree is what it was. So is [`Tree::postpone`], which takes
//!   changes without reading the leaves that they are of; before the next checkpoint all of those have to
//!   catch up ([`Tree::catch_up`]).
//! * What is durable is not the tree's business: it has the current state, no other. A crash
//!   leaves nothing of it but the pages that [`PageSink`] took, and those mean nothing until a
//!   commit names their root.
//!
//! # Checkpoints
//!
//! [`Tree::freeze`] takes a snapshot; [`Frozen::write`] stores what of it is not stored, on
//! another thread while batches go on; [`Tree::install`] tells the tree where its pages lie now.
//! At most one is in flight. A [`Frozen`] or [`Written`] that is dropped instead (storage failed)
//! costs nothing: its pages stay dirty. Leaves can be stored between checkpoints in the same way
//! ([`Tree::freeze_leaves`]): that bounds memory, and makes nothing durable.
//!
//! # Costs
//!
//! With n pairs, height h = O(log n), and pages of constant size: `get` is O(h); `scan` O(h) plus
//! what it visits; a batch of m changes O(m h) at worst, O(m + pages touched) when sorted keys
//! share pages. `root`, `freeze` and cloning a [`Root`] are O(1), but the first change to a page
//! after that copies it. `write` and `install` are linear in the pages that changed.
//!
//! # Invariants (checked by [`Root::check`], cited as T1...)
//!
//! * T1 Keys within a page rise strictly; every key of a child lies in [its separator, the next).
//!   The first separator of an inner page is empty: the page's own range begins there.
//! * T2 All leaves have the same depth: a leaf has level 0, an inner page one more than each of
//!   its children. A leaf has at least one entry, an inner page at least one child; the root, if
//!   it is an inner page that is not stored, at least two. (A stored root can have a single child:
//!   it was cut down to when it was not in memory. The next batch that changes it repairs it.)
//! * T3 The encoded size of a page is at most `page_bytes`, except for a leaf with one entry and
//!   an inner page with two children (long keys). A value that must be placed counts as an extent.
//! * T4 A stored page has only stored children; everything above a page that is not stored is not
//!   stored.
//! * T5 A page is changed in place only while nobody else holds it.
//! * T6 A frozen root holds no value that must be placed (see [`Value::must_be_placed`]).
//! * T7 The ledger was told of every pointer that came into the current tree and of every one that
//!   left it, once.
//! * T8 Between calls, no page of the current tree that is stored is held by it in memory: clean
//!   pages live in the cache behind [`Pages`], which bounds them.
//! * T9: in `behind`.

mod abreast;
mod ahead;
mod balance;
mod behind;
mod change;
mod check;
mod checkpoint;
mod inner;
mod leaf;
mod node;
mod page;
mod places;
mod postponed;
mod read;
mod sorted;
mod value;

#[cfg(test)]
mod model;
#[cfg(test)]
mod shelf;

pub use change::Tree;
pub use check::Reference;
pub use checkpoint::{Frozen, FrozenLeaves, Written};
pub use node::Node;
pub use page::DecodeError;
pub use postponed::{Postponed, Where};
pub use read::{Direction, Near, Root};
pub use value::{Extent, KEY_MAX, Key, VALUE_INLINE_MAX, VALUE_MAX, Value};

use crate::log::{Pointer, SegmentNo};
use std::sync::Arc;
use thiserror::Error;

/// Least `page_bytes`.
pub const PAGE_BYTES_MIN: usize = 1 << 10;
/// Most `page_bytes`.
pub const PAGE_BYTES_MAX: usize = 32 << 10;

/// What [`Pages::together`] says unless it knows better.
pub const PAGES_TOGETHER: usize = 4;

/// Where the tree gets stored pages from: a cache. Must be usable from several threads.
pub trait Pages {
    /// The page stored at `at`, as [`Node::decode`], [`Written::leaves`] or [`Tree::install`] gave it.
    ///
    /// Errors: [`TreeError::Miss`] naming `at` when it is not in memory; [`TreeError::Damaged`];
    /// an implementation that reads storage itself also [`TreeError::Io`]. Another page than the
    /// one asked for is a bug and panics.
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError>;

    /// Has `look` look at pages that are in memory. Meanwhile others may have to wait, and nothing else may be asked
    /// for from there.
    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory));

    /// The page at `at` has left the current tree for good: [`Tree::apply`] says so when it can fail no more.
    /// Whoever has an older root may still ask for it; if nobody has one, it is kept in vain.
    fn left(&self, _at: &Pointer) {}

    /// How many of the pages after one that a scan misses are worth reading with it, if it may want them: as many
    /// as come in the time that the first takes.
    fn together(&self) -> usize {
        PAGES_TOGETHER
    }
}

/// Pages as they are in memory, for a moment.
pub trait InMemory {
    /// The page stored at `at`, if it is in memory; and never another.
    fn page(&self, at: &Pointer) -> Option<&Node>;
}

/// Where a checkpoint puts pages.
pub trait PageSink {
    /// Why storing failed.
    type Error;

    /// Stores `payload` (compresses it, computes the checksum) and tells where. `level` is 0 for a
    /// leaf; every key below the page is at least `first_key`, which a leaf contains. Both are
    /// hints for whoever looks for the page's owner.
    fn write(&mut self, level: u8, first_key: &[u8], payload: &[u8]) -> Result<Pointer, Self::Error>;
}

/// Counts the live bytes of each segment (R13, T7): a stored page counts its stored length, an
/// extent the length of the piece that is mapped.
pub trait Ledger {
    /// So many bytes more of `segment` are in use.
    fn add(&mut self, segment: SegmentNo, bytes: u64);
    /// So many fewer. Within one call of the tree, this may come before the `add` that it undoes.
    fn sub(&mut self, segment: SegmentNo, bytes: u64);
    /// This stored page is one of the tree's.
    fn add_page(&mut self, at: &Pointer) {
        self.add(at.segment, at.length.into());
    }
    /// It is so no longer.
    fn sub_page(&mut self, at: &Pointer) {
        self.sub(at.segment, at.length.into());
    }
    /// `key` is about to change; `value` finds what it was. Keys rise within a batch; a delete that finds
    /// nothing is not told.
    fn before(&mut self, _key: &[u8], _value: &dyn Fn() -> Option<Value>) {}
}

/// Why the tree did not do what it was asked. By what the caller does next.
#[derive(Clone, Debug, Error)]
pub enum TreeError {
    /// These pages (at least one) are not in memory: fetch them and ask again.
    #[error("not in memory: {0:?}")]
    Miss(Vec<Pointer>),
    /// A stored page is not what was stored there.
    #[error("page at {at} is damaged: {what}")]
    Damaged {
        /// The page.
        at: Pointer,
        /// What was expected and what was found.
        what: Arc<str>,
    },
    /// A stored page can't be read. The tree itself never says this, only [`Pages`] that do I/O.
    #[error("page at {at} cannot be read: {cause}")]
    Io {
        /// The page.
        at: Pointer,
        /// What the system said.
        cause: Arc<str>,
    },
}
