//! Reading a snapshot: get and scan.

use crate::log::Pointer;
use crate::tree::node::Edge;
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

    /// The value of `key`.
    pub fn get(&self, pages: &dyn Pages, key: &[u8]) -> Result<Option<Value>, TreeError> {
        unimplemented!("{:p} {key:?}", pages)
    }

    /// Calls `visit` with every pair between the bounds, in order, until it breaks. After an error
    /// the pairs visited so far have been visited: go on from the last one.
    pub fn scan(
        &self,
        pages: &dyn Pages,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        unimplemented!("{:p} {from:?} {to:?} {direction:?} {:p}", pages, visit)
    }
}
