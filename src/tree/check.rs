//! Walks a whole tree: the invariants, and everything that it refers to.

use crate::log::Pointer;
use crate::tree::{Extent, Pages, Root, TreeError};

/// Something stored that a tree refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A page; counts `pointer.length` bytes in the ledger.
    Page {
        /// Where it lies.
        pointer: Pointer,
        /// 0 for a leaf.
        level: u8,
        /// The least key that may be below it. (To have a page and all above it written anew, as
        /// the cleaner does: put any pair below it again as it is.)
        from: &'a [u8],
    },
    /// A value that lies in a data segment; counts `extent.length` bytes in the ledger.
    Extent {
        /// The key that maps to it.
        key: &'a [u8],
        /// The piece of a stored unit.
        extent: Extent,
    },
}

impl Root {
    /// Every violation of T1-T4 and of the bounds of keys and values, each with the path from the
    /// root (child numbers). `page_bytes` is the largest that the store ever had.
    ///
    /// `pages` should read what is not in memory: a page that it does not give is a violation.
    pub fn check(&self, pages: &dyn Pages, page_bytes: usize) -> Vec<String> {
        unimplemented!("{:p} {page_bytes}", pages)
    }

    /// Calls `visit` with everything stored that this tree refers to: each stored page once,
    /// parents before children, each mapping to an extent once.
    ///
    /// After an error some have been visited: begin again. With `pages` that read what is not in
    /// memory there is no [`TreeError::Miss`].
    pub fn references(&self, pages: &dyn Pages, visit: &mut dyn FnMut(Reference<'_>)) -> Result<(), TreeError> {
        unimplemented!("{:p} {:p}", pages, visit)
    }
}
