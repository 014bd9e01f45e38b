//! Walks a whole tree: the invariants, and everything that it refers to.

use crate::log::Pointer;
use crate::tree::leaf::Leaf;
use crate::tree::node::{Body, Edge, Node};
use crate::tree::{Extent, KEY_MAX, Pages, Root, TreeError, VALUE_MAX, Value};

/// Something stored that a tree refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A page; counts `pointer.length` bytes in the ledger.
    Page {
        /// Where it lies.
        pointer: Pointer,
        /// 0 for a leaf.
        level: u8,
    },
    /// A value that lies in a data segment; counts [`Extent::counted`] bytes in the ledger.
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
        let mut check = Check { pages, page_bytes, path: Vec::new(), found: Vec::new() };
        if let Some(edge) = &self.edge {
            if let Edge::Loaded(root) = edge
                && let Body::Inner(inner) = &root.body
                && root.place().is_none()
                && inner.edges.len() < 2
            {
                check.report("T2: a root with one child");
            }
            check.walk(edge, Expected { level: None, from: &[], to: None, above_is_stored: false });
        }
        check.found
    }

    /// Calls `visit` with everything stored that this tree refers to: each stored page once,
    /// parents before children, each mapping to an extent once.
    ///
    /// After an error some have been visited: begin again. With `pages` that read what is not in
    /// memory there is no [`TreeError::Miss`].
    pub fn references(&self, pages: &dyn Pages, visit: &mut dyn FnMut(Reference<'_>)) -> Result<(), TreeError> {
        match &self.edge {
            Some(edge) => references(edge, None, pages, visit),
            None => Ok(()),
        }
    }
}

fn references(
    edge: &Edge,
    level: Option<u8>,
    pages: &dyn Pages,
    visit: &mut dyn FnMut(Reference<'_>),
) -> Result<(), TreeError> {
    // The changes that a page has not taken refer to nothing (T9).
    let edge = edge.as_stored();
    let node = edge.reach(pages, level)?;
    if let Some(pointer) = node.place() {
        visit(Reference::Page { pointer, level: node.level() });
    }
    match &node.body {
        Body::Leaf(leaf) => {
            for i in 0..leaf.len() {
                if let Some(extent) = leaf.extent(i) {
                    visit(Reference::Extent { key: leaf.key(i), extent });
                }
            }
        }
        Body::Inner(inner) => {
            for edge in &inner.edges {
                references(edge, Some(inner.level - 1), pages, visit)?;
            }
        }
    }
    Ok(())
}

struct Check<'c> {
    pages: &'c dyn Pages,
    page_bytes: usize,
    path: Vec<usize>,
    found: Vec<String>,
}

/// What the pages above say of a page.
#[derive(Clone, Copy)]
struct Expected<'a> {
    level: Option<u8>,
    from: &'a [u8],
    to: Option<&'a [u8]>,
    above_is_stored: bool,
}

impl Check<'_> {
    fn report(&mut self, what: impl std::fmt::Display) {
        let path: String = self.path.iter().map(|child| format!(".{child}")).collect();
        self.found.push(format!("root{path}: {what}"));
    }

    fn walk(&mut self, edge: &Edge, expected: Expected<'_>) {
        let edge = edge.as_stored();
        let node = match edge.reach(self.pages, None) {
            Ok(node) => node,
            Err(error) => return self.report(error),
        };
        if let Some(level) = expected.level
            && level != node.level()
        {
            // Going on could be without end.
            return self.report(format!("T2: level: expected {level}, found {}", node.level()));
        }
        self.check_page(&node, expected);
        match &node.body {
            Body::Leaf(leaf) => (0..leaf.len()).for_each(|i| self.check_value(leaf, i)),
            Body::Inner(inner) => {
                for (i, edge) in inner.edges.iter().enumerate() {
                    self.path.push(i);
                    let below = Expected {
                        level: Some(inner.level - 1),
                        from: if i == 0 { expected.from } else { inner.keys.key(i) },
                        to: if i + 1 < inner.keys.len() { Some(inner.keys.key(i + 1)) } else { expected.to },
                        above_is_stored: node.place().is_some(),
                    };
                    self.walk(edge, below);
                    self.path.pop();
                }
            }
        }
    }

    fn check_page(&mut self, node: &Node, expected: Expected<'_>) {
        if expected.above_is_stored && node.place().is_none() {
            self.report("T4: not stored below a page that is");
        }
        if node.len() == 0 {
            self.report("T2: no entries");
        }
        if node.bytes() > self.page_bytes && node.len() > node.entries_free() {
            self.report(format!("T3: size: expected at most {}, found {}", self.page_bytes, node.bytes()));
        }
        let (keys, encoded): (Vec<&[u8]>, _) = match &node.body {
            Body::Leaf(leaf) => ((0..leaf.len()).map(|i| leaf.key(i)).collect(), leaf.costs()),
            Body::Inner(inner) => {
                if inner.keys.len() != inner.edges.len() {
                    self.report(format!("T1: {} separators of {} children", inner.keys.len(), inner.edges.len()));
                }
                if inner.keys.len() > 0 && !inner.keys.key(0).is_empty() {
                    self.report("T1: the first separator is not empty");
                }
                ((1..inner.keys.len()).map(|i| inner.keys.key(i)).collect(), inner.costs())
            }
        };
        let bytes = super::page::HEADER_BYTES + encoded.iter().map(|cost| cost.next).sum::<usize>();
        if bytes != node.bytes() {
            self.report(format!("size: expected {bytes}, found {}", node.bytes()));
        }
        for (i, key) in keys.iter().enumerate() {
            if !(1..=KEY_MAX).contains(&key.len()) {
                self.report(format!("key {i}: a key of {} bytes", key.len()));
            }
            if i > 0 && keys[i - 1] >= *key {
                self.report(format!("T1: key {i}: \"{}\" is not above the one before", key.escape_ascii()));
            }
            if *key < expected.from || expected.to.is_some_and(|to| *key >= to) {
                self.report(format!(
                    "T1: key {i}: \"{}\" is outside of \"{}\"..\"{}\"",
                    key.escape_ascii(),
                    expected.from.escape_ascii(),
                    expected.to.unwrap_or(b"(end)").escape_ascii()
                ));
            }
        }
    }

    fn check_value(&mut self, leaf: &Leaf, i: usize) {
        match leaf.value(i) {
            Value::Bytes(bytes) if bytes.len() > VALUE_MAX => {
                self.report(format!("value {i}: {} bytes", bytes.len()));
            }
            Value::Extent(Extent { offset, length, .. })
                if length == 0 || offset as usize + length as usize > VALUE_MAX =>
            {
                self.report(format!("value {i}: an extent {offset}+{length}"));
            }
            _ => {}
        }
    }
}
