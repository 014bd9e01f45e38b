//! The durable state, which is what a crash would leave now: the current one, with what is not durable
//! taken back.
//!
//! It could be held as a snapshot of the tree. But then each commit would make the next change of a page
//! copy it, and those above it: a tenth of the rate of random SETs. So each change that is not durable
//! keeps what was there before, and who asks for the durable state (when storage has failed) gets the
//! current tree and, before it, these values.
//!
//! D1 What was before a change that is not durable can be read as long as that change is not durable: the
//! checkpoint that frees its space has everything up to a later commit.
//!
//! D2 While redo is skipped (W4), changes keep nothing. The tree as it was then is held instead: pages are
//! stored soon after each other then, and hardly one is changed twice. It is held until a commit makes
//! durable all that the tree has, or until another takes its place: that of a checkpoint which is durable.
//! Redo begins to be skipped only while no commit is under way whose end would say the former.

use super::Core;
use super::pending::Pending;
use super::txn::LOCK_WAIT_MAX;
use super::view::View;
use crate::tree::{Key, Root, Tree, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What some keys were, for who reads a tree that has newer values of them; none: there was no such key.
pub type Undone = BTreeMap<Key, Option<Value>>;

/// A state: a snapshot of the tree, but for some keys.
pub struct Held {
    root: Root,
    undone: Undone,
}

impl Held {
    /// The tree, without what is pending. No commit with changes is under way.
    pub fn of(tree: &Tree, pending: &Pending) -> Held {
        Held { root: tree.root(), undone: undone_of(pending.before()) }
    }

    /// The tree whose root that is.
    pub fn stored(root: Root) -> Held {
        Held { root, undone: Undone::new() }
    }
}

impl Core {
    /// The state as of the newest durable commit.
    pub(super) fn durable_view(self: &Arc<Self>) -> View {
        let writer = self.writer.lock();
        // A checkpoint that ends the era meanwhile then waits for this view.
        let era = self.published.read().era.clone();
        let (root, undone) = match &writer.held {
            Some(held) => (held.root.clone(), held.undone.clone()),
            None => {
                let in_flight = self.in_flight.lock();
                let on_its_way = in_flight.changes.iter().map(|change| (&change.key, &change.before));
                // What was before these was before those, too: of one key, the last counts.
                (writer.tree.root(), undone_of(writer.pending.before().chain(on_its_way)))
            }
        };
        drop(writer);
        View::of(self, root, era, (!undone.is_empty()).then(|| Arc::new(undone)))
    }

    /// Whether each of these keys has no change that is not durable.
    pub(super) fn are_durable<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<bool> {
        // It may be held while space is looked for.
        let writer = self.writer.try_lock_for(LOCK_WAIT_MAX).filter(|writer| writer.held.is_none());
        let Some(writer) = writer else { return vec![false; keys.len()] };
        let in_flight = self.in_flight.lock();
        let is_durable =
            |key: &K| !writer.pending.contains(key.as_ref()) && !in_flight.changes.changes_key(key.as_ref());
        keys.iter().map(is_durable).collect()
    }
}

fn undone_of<'a>(before: impl Iterator<Item = (&'a Key, &'a Option<Value>)>) -> Undone {
    before.map(|(key, before)| (key.clone(), before.clone())).collect()
}
