//! Where the pages of a snapshot lie: for who has to move some of them. (`check` has a walk over all that a tree refers
//! to. It reads the leaves, which is most of what there is to read, and cannot go on where it left off.)

use crate::log::Pointer;
use crate::tree::inner::child_of;
use crate::tree::node::{Body, Edge};
use crate::tree::{Pages, Root, TreeError};
use std::ops::ControlFlow;

impl Root {
    /// Calls `visit` with where each stored page lies, and with a key that no key below it is less than, until it
    /// breaks; pages above before those below, in the order of these keys. Only those for which that key is
    /// above `behind`, if there is one. No leaf is read for it (but the root, if it is one).
    pub fn stored_pages(
        &self,
        pages: &dyn Pages,
        behind: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Pointer) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        match &self.edge {
            Some(edge) => stored_pages(edge, None, &[], pages, behind, visit).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// Visits the stored pages of a subtree of that level, below which no key is less than `from`: see
/// [`Root::stored_pages`].
fn stored_pages(
    edge: &Edge,
    level: Option<u8>,
    from: &[u8],
    pages: &dyn Pages,
    behind: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], Pointer) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, TreeError> {
    let is_behind = |from: &[u8]| behind.is_none_or(|behind| from > behind);
    if level == Some(0) {
        let place = match edge {
            Edge::Stored(at) => Some(*at),
            Edge::Loaded(node) => node.place(),
            Edge::Behind(behind) => Some(behind.at),
        };
        return Ok(match place {
            Some(at) if is_behind(from) => visit(from, at),
            _ => ControlFlow::Continue(()),
        });
    }
    let node = edge.reach(pages, level)?;
    if let Some(at) = node.place()
        && is_behind(from)
        && visit(from, at).is_break()
    {
        return Ok(ControlFlow::Break(()));
    }
    let Body::Inner(inner) = &node.body else { return Ok(ControlFlow::Continue(())) };
    let first = behind.map_or(0, |behind| child_of(&inner.keys, behind));
    for (i, edge) in inner.edges.iter().enumerate().skip(first) {
        let from = if i == 0 { from } else { inner.keys.key(i) };
        if stored_pages(edge, Some(inner.level - 1), from, pages, behind, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
