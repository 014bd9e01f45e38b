//! Storing the tree: freeze, write, install.

use crate::log::Pointer;
use crate::tree::{Ledger, Node, PageSink, Root, Tree};
use std::sync::Arc;

/// A snapshot to be stored. Goes to another thread.
pub struct Frozen {
    root: Root,
}

/// The pages that a checkpoint stored, still to be installed.
pub struct Written {
    root: Option<Pointer>,
    pages: Vec<(Arc<Node>, Pointer)>,
}

impl Tree {
    /// Takes the snapshot that the next checkpoint stores. O(1).
    ///
    /// Panics while an earlier [`Frozen`] or [`Written`] exists.
    pub fn freeze(&mut self) -> Frozen {
        Frozen { root: self.root() }
    }

    /// Takes note of where pages are stored now, on the writer's thread: those that are still in
    /// the current tree are added to `ledger`, leave the tree's own memory, and are handed to
    /// `cache`.
    ///
    /// Call it once the pages can be read through [`Pages`](super::Pages) (durability does not
    /// matter here).
    pub fn install(&mut self, written: Written, ledger: &mut dyn Ledger, cache: &mut dyn FnMut(Pointer, Arc<Node>)) {
        unimplemented!("{:?} {:p} {:p}", written.root, ledger, cache)
    }
}

impl Frozen {
    /// The state that is being stored.
    pub fn root(&self) -> Root {
        self.root.clone()
    }

    /// Stores every page of the snapshot that is not stored yet, children before parents. Runs on
    /// any thread while the tree goes on changing.
    ///
    /// After an error what `sink` took is garbage; drop this and freeze again, or write again.
    /// Panics if the snapshot holds a value that must be placed (T6).
    pub fn write<S: PageSink + ?Sized>(&self, sink: &mut S) -> Result<Written, S::Error> {
        let _ = sink;
        unimplemented!()
    }
}

impl Written {
    /// The root page of the stored tree; `None`: it is empty.
    pub fn root(&self) -> Option<Pointer> {
        self.root
    }

    /// The pages that were written now: what the stored tree refers to beyond what was stored
    /// before it was frozen.
    pub fn pages(&self) -> impl Iterator<Item = Pointer> + '_ {
        self.pages.iter().map(|(_, pointer)| *pointer)
    }
}
