//! Replaying the redo behind the checkpoint.
//!
//! Each of its changes is of some leaf, and to read those, at random, would be nearly all of the time that
//! opening takes. So a store that is opened for writing postpones what can be postponed
//! (`tree::behind`): it is open as soon as the redo itself and the pages above the leaves are read. The
//! leaves catch up when somebody asks for them, and on the checkpoint thread, before its first checkpoint:
//! a frozen tree has none that is behind. When they become many, those that have caught up are stored (C6).
//! What could not be postponed is in changed pages when opening ends; a checkpoint is due then if that is much.
//!
//! In a bucket that costs requests: there they wait for that checkpoint, or for who asks.
//!
//! What is still damaged at the second try poisons the store (C5): the leaf can never be stored, and so no
//! checkpoint made.

use super::cache::Cache;
use super::checkpoint::RETRY_AFTER;
use super::gathered::last_of_each_key;
use super::table::Deltas;
use super::writer::Writer;
use super::{Core, StoreError};
use crate::log::{Log, LogError, Pointer};
use crate::tree::{InMemory, Key, Ledger, Node, Pages, Tree, TreeError, Value};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Changes that are replayed at once: the pages that they touch are all in memory, twice.
const REPLAYED_AT_ONCE: usize = 16 << 10;

/// Bytes of redo that may be in memory although later redo replaces them, unless that is more. The longest log of usual
/// stores, of short values, comes to about as much: to drop any of it on the way takes longer than to sort it once.
const REPLACED_BYTES: usize = 96 << 20;

/// Leaves that catch up at once: the writer lock is held for less than a millisecond.
const LEAVES_AT_ONCE: usize = 64;

/// Leaves that are fetched from a bucket at once: they have room in the smallest cache, and who asks for one of
/// them meanwhile waits for all.
const LEAVES_FETCHED_AT_ONCE: usize = 512;

/// Applies the redo of the commits behind the checkpoint, oldest first; each is read when it is its turn. `later`: what needs leaves that may
/// as well be read later is postponed.
pub fn replay(
    log: &Log,
    cache: &Cache,
    writer: &mut Writer,
    commits: impl Iterator<Item = Result<Bytes, LogError>>,
    later: bool,
) -> Result<(), StoreError> {
    let (postponed, mut others) = last_of_each_key(commits, REPLACED_BYTES, later)?;
    if !postponed.is_empty() {
        let postponed = Arc::new(postponed);
        let left = apply(log, cache, writer, |tree, pages, deltas| tree.postpone(pages, &postponed, deltas))?;
        // What is postponed needs no counting in `settled`: none of it is raw.
        let value = |bytes| Value::Bytes(Bytes::copy_from_slice(bytes));
        others.extend(
            left.into_iter().map(|index| postponed.get(index)).map(|(key, bytes)| (key.into(), bytes.map(value))),
        );
        others.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    }
    // Many at once: what is read is read once, and together.
    for some in others.chunks(REPLAYED_AT_ONCE) {
        apply(log, cache, writer, |tree, pages, deltas| tree.apply(pages, some, deltas))?;
    }
    for (key, value) in &others {
        writer.note_recovered(key, value.as_ref());
    }
    Ok(())
}

/// Changes the tree, reading what is missing, and the table with it.
fn apply<T>(
    log: &Log,
    cache: &Cache,
    writer: &mut Writer,
    mut change: impl FnMut(&mut Tree, &dyn Pages, &mut dyn Ledger) -> Result<T, TreeError>,
) -> Result<T, StoreError> {
    let mut pages = Replayed { cache, pages: HashMap::new() };
    loop {
        let mut deltas = Deltas::default();
        match change(&mut writer.tree, &pages, &mut deltas) {
            Ok(done) if writer.table.apply(deltas) => return Ok(done),
            Ok(_) => return Err(StoreError::damaged("the redo does not fit the segment table")),
            Err(TreeError::Miss(missing)) => {
                for (at, payload) in missing.iter().zip(log.read_all(&missing)?) {
                    let page = Node::decode(&payload, *at)
                        .map_err(|error| StoreError::Damaged(format!("page at {at}: {error}").into()))?;
                    pages.pages.insert(*at, Arc::new(page));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The pages that some redo touches: all of them at once, however small the cache is.
struct Replayed<'a> {
    cache: &'a Cache,
    pages: HashMap<Pointer, Arc<Node>>,
}

impl Pages for Replayed<'_> {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        match self.pages.get(at) {
            Some(page) => Ok(page.clone()),
            None => self.cache.page(at),
        }
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        self.cache.hold(look);
    }
}

impl Core {
    /// Lets all leaves that are behind catch up. Waits for storage, and in a bucket for as long as it takes,
    /// unless the store is being closed. What cannot be read, also when it is tried again, poisons the store.
    pub(super) fn catch_up(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut failed_with = None;
        while let Err(error) = self.try_to_catch_up() {
            self.check_failure()?;
            let (behind, closing) = {
                let writer = self.writer.lock();
                (writer.tree.leaves_behind(), writer.closing)
            };
            let may_come = self.log.bucket().is_some() && matches!(error, StoreError::Io(_));
            if self.signals.are_to_stop() || (may_come && closing) {
                return Err(error);
            }
            if !may_come && failed_with.replace(behind) == Some(behind) {
                self.log.fail(format!("replaying the log failed: {error}"));
                return Err(error);
            }
            tracing::warn!("replaying the log is tried again: {error}");
            self.signals.pause(RETRY_AFTER);
        }
        Ok(())
    }

    /// The same, once.
    pub(super) fn try_to_catch_up(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut from = Some(Key::default());
        // Leaves from there on that have been fetched, unless the cache has forgotten them.
        let mut fetched = 0;
        // Bytes of what has caught up and could not be stored.
        let mut left = 0;
        while let Some(key) = &from {
            self.check_failure()?;
            let caught_up = {
                let mut writer = self.writer.lock();
                if writer.tree.leaves_behind() == 0 {
                    return Ok(());
                }
                if self.signals.are_to_stop() {
                    return Err(StoreError::Poisoned("it was closed".into()));
                }
                if fetched == 0 && self.log.bucket().is_some() {
                    fetched = LEAVES_FETCHED_AT_ONCE;
                    self.miss_many(&writer, key)
                } else {
                    fetched = fetched.saturating_sub(LEAVES_AT_ONCE);
                    self.catch_up_some(&mut writer, key)
                }
            };
            match caught_up {
                Ok(next) => {
                    from = next;
                    self.store_leaves_that_caught_up(&mut left)?;
                }
                Err(StoreError::Miss(miss)) => drop(self.fetch(&miss, None)?),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those that are missing, as a miss: many come with one round trip.
    fn miss_many(&self, writer: &Writer, from: &[u8]) -> Result<Option<Key>, StoreError> {
        let needed = writer.tree.needed_to_catch_up(&self.cache, from, LEAVES_FETCHED_AT_ONCE);
        if needed.is_empty() { Ok(Some(from.into())) } else { Err(self.now(TreeError::Miss(needed).into())) }
    }

    fn catch_up_some(&self, writer: &mut Writer, from: &[u8]) -> Result<Option<Key>, StoreError> {
        let mut deltas = Deltas::default();
        let next = self
            .change_tree(writer, |tree, pages| tree.catch_up(pages, &mut deltas, from, LEAVES_AT_ONCE))
            .map_err(|error| self.now(error))?;
        if !writer.table.apply(deltas) {
            // The tree has changed: trying again would not find it any more.
            let what = "what the redo replaces does not fit the segment table";
            self.log.fail(format!("replaying the log failed: {what}"));
            return Err(StoreError::damaged(what));
        }
        Ok(next)
    }
}
