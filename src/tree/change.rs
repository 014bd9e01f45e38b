//! The writer's tree: apply a batch.

use crate::log::Pointer;
use crate::tree::{Ledger, Pages, Root, TreeError, Value};

/// The current tree, the writer's own.
pub struct Tree {
    root: Root,
}

impl Tree {
    /// A tree without pairs. `page_bytes`: the size that a page may fill to, before compression
    /// ([`PAGE_BYTES_MIN`](super::PAGE_BYTES_MIN) to [`PAGE_BYTES_MAX`](super::PAGE_BYTES_MAX)).
    pub fn empty(page_bytes: usize) -> Tree {
        Tree::stored(None, page_bytes)
    }

    /// The tree whose root page is stored there; `None`: without pairs. Its pages may have been
    /// written with another `page_bytes`.
    pub fn stored(root: Option<Pointer>, page_bytes: usize) -> Tree {
        let _ = page_bytes;
        Tree { root: Root::stored(root) }
    }

    /// A snapshot of the current state.
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
        unimplemented!("{:p} {} {:p}", pages, changes.len(), ledger)
    }

    /// Encoded bytes of the pages that are not stored, roughly what a checkpoint would write
    /// before compression. Pages being written count until they are installed.
    pub fn dirty_bytes(&self) -> u64 {
        unimplemented!()
    }
}
