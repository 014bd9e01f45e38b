//! Many gets side by side.
//!
//! A get waits for memory at each step: for the page, its slots, the key, the value. The steps of one get come
//! one after another, but those of several do not depend on each other: so some dozens take each step
//! together, and the processor waits for them together, too. For that to be so, nothing between them may hold it up: no
//! lock and no count of references for each page ([`Pages::hold`]), and no branch that it cannot foretell.

use crate::tree::inner::{child_of, child_of_found};
use crate::tree::node::{Body, Edge, Node};
use crate::tree::read::{MISSING_MAX, Missing};
use crate::tree::sorted::{self, LANES, Sorted};
use crate::tree::{InMemory, Pages, TreeError, Value};

/// The values of these keys, in any order. One miss names the pages that are missing for any of them, or some hundreds
/// of those.
pub(super) fn get_all<K: AsRef<[u8]>>(
    pages: &dyn Pages,
    root: &Edge,
    keys: &[K],
) -> Result<Vec<Option<Value>>, TreeError> {
    let mut values = Vec::with_capacity(keys.len());
    let mut missing = Missing::default();
    for keys in keys.chunks(LANES) {
        let begin = values.len();
        values.resize(begin + keys.len(), None);
        let mut left = Vec::new();
        pages.hold(&mut |held| left = get_some(held, root, keys, &mut values[begin..]));
        // What is not in memory, or behind.
        for i in left {
            match get(pages, root, None, keys[i].as_ref()) {
                Ok(value) => values[begin + i] = value,
                Err(error) => missing.add(error)?,
            }
        }
        if missing.len() >= MISSING_MAX {
            break;
        }
    }
    missing.or(values)
}

/// The value of a key; what is missing for it, and nothing that others may want.
fn get(pages: &dyn Pages, edge: &Edge, level: Option<u8>, key: &[u8]) -> Result<Option<Value>, TreeError> {
    let node = edge.reach(pages, level)?;
    match &node.body {
        Body::Leaf(leaf) => Ok(leaf.search(key).ok().map(|i| leaf.value(i))),
        Body::Inner(inner) => get(pages, &inner.edges[child_of(&inner.keys, key)], Some(inner.level - 1), key),
    }
}

/// The values of at most [`LANES`] keys; answers which of them have to be looked for otherwise.
fn get_some<K: AsRef<[u8]>>(held: &dyn InMemory, root: &Edge, keys: &[K], values: &mut [Option<Value>]) -> Vec<usize> {
    let mut left = Vec::new();
    let Some(root) = page_of(held, root) else { return (0..keys.len()).collect() };
    let mut level = root.level();
    let mut at: Vec<(usize, &Node)> = (0..keys.len()).map(|i| (i, root)).collect();
    let mut searches: Vec<(&Sorted, &[u8])> = Vec::with_capacity(keys.len());
    let mut found = Vec::with_capacity(keys.len());
    loop {
        searches.clear();
        searches.extend(at.iter().map(|(i, node)| (node.body.entries(), keys[*i].as_ref())));
        sorted::search_abreast(&searches, &mut found);
        if level == 0 {
            break;
        }
        level -= 1;
        let below = at.iter().zip(&found).map(|((i, node), found)| match &node.body {
            Body::Inner(inner) => (*i, page_of(held, &inner.edges[child_of_found(*found)])),
            Body::Leaf(_) => unreachable!("its level was looked at"),
        });
        at = below
            .filter_map(|(i, node)| {
                let node = node.filter(|node| node.level() == level);
                if node.is_none() {
                    left.push(i);
                }
                Some((i, node?))
            })
            .collect();
    }
    for ((i, node), found) in at.iter().zip(&found) {
        match &node.body {
            Body::Leaf(leaf) => values[*i] = found.ok().map(|place| leaf.value(place)),
            Body::Inner(_) => unreachable!("its level was looked at"),
        }
    }
    left
}

/// The page that an edge leads to, if it is in memory and has all its changes.
fn page_of<'h>(held: &'h dyn InMemory, edge: &'h Edge) -> Option<&'h Node> {
    match edge {
        Edge::Loaded(node) => Some(node),
        Edge::Stored(at) => held.page(at),
        Edge::Behind(_) => None,
    }
}
