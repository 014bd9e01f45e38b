//! Replaying the redo behind the checkpoint.
//!
//! Each of its changes is of some leaf, and to read those, at random, would be nearly all of the time that
//! opening takes. So a store that is opened for writing postpones what can be postponed
//! (`tree::behind`): it is open as soon as the redo itself and the pages above the leaves are read. The
//! leaves catch up when somebody asks for them, and on the checkpoint thread, before its first checkpoint:
//! a frozen tree has none that is behind.
//!
//! In a bucket that costs requests: there they wait for that checkpoint, or for who asks.
//!
//! What is still damaged at the second try poisons the store (C5): the leaf can never be stored, and so no
//! checkpoint made.

use super::cache::Cache;
use super::checkpoint::RETRY_AFTER;
use super::table::Deltas;
use super::writer::Writer;
use super::{Core, StoreError, redo};
use crate::log::{Log, Packed, Pointer};
use crate::tree::{Key, Ledger, Node, Pages, Tree, TreeError, can_be_postponed};
use std::collections::HashMap;
use std::sync::Arc;

/// Changes that are replayed at once: the pages that they touch are all in memory, twice.
const REPLAYED_AT_ONCE: usize = 16 << 10;

/// Bytes of redo that may be in memory although later redo replaces them, unless that is more: an eighth of the
/// cache, which is empty still, but no less than this, and no more than is of use.
const REPLACED_BYTES: std::ops::RangeInclusive<u64> = 8 << 20..=64 << 20;

/// Leaves that catch up at once: the writer lock is held for less than a millisecond.
const LEAVES_AT_ONCE: usize = 64;

/// Leaves that are fetched from a bucket at once: they have room in the smallest cache, and who asks for one of
/// them meanwhile waits for all.
const LEAVES_FETCHED_AT_ONCE: usize = 512;

/// Applies the redo of the commits behind the checkpoint, oldest first. `later`: what needs leaves that may
/// as well be read later is postponed.
pub fn replay(
    log: &Log,
    cache: &Cache,
    writer: &mut Writer,
    commits: &[Packed],
    later: bool,
) -> Result<(), StoreError> {
    let replaced_max = (cache.figures().bytes_max / 8).clamp(*REPLACED_BYTES.start(), *REPLACED_BYTES.end());
    let redo = last_of_each_key(commits, replaced_max as usize)?;
    let (short, mut others): (Vec<_>, Vec<_>) =
        redo.into_iter().partition(|(_, value)| later && can_be_postponed(value.as_ref()));
    if !short.is_empty() {
        let short = Arc::from(short);
        let left = apply(log, cache, writer, |tree, pages, deltas| tree.postpone(pages, &short, deltas))?;
        // What is postponed needs no counting in `settled`: none of it is raw.
        others.extend(left.into_iter().map(|i| short[i].clone()));
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

/// Keys rise. Of what is replaced by later commits little is in memory (C6): they may be of the same few
/// values, again and again.
fn last_of_each_key(commits: &[Packed], replaced_max: usize) -> Result<Vec<redo::Change>, StoreError> {
    let mut redo = Vec::new();
    let cost = |redo: &[redo::Change]| -> usize {
        redo.iter().map(|(key, value)| size_of::<redo::Change>() + redo::cost(key.len(), value.as_ref())).sum()
    };
    let (mut bytes, mut bytes_max) = (0, replaced_max);
    for commit in commits {
        let body = commit.unpack().ok_or_else(|| StoreError::damaged("the redo of a commit cannot be decompressed"))?;
        let more = redo::decode(&body).map_err(|error| StoreError::damaged(error.what))?;
        bytes += cost(&more);
        redo.extend(more);
        if bytes > bytes_max {
            redo = without_replaced(redo);
            bytes = cost(&redo);
            bytes_max = bytes + bytes.max(replaced_max);
        }
    }
    Ok(without_replaced(redo))
}

fn without_replaced(mut redo: Vec<redo::Change>) -> Vec<redo::Change> {
    let mut order = by_key(&redo);
    order.dedup_by(|later, earlier| {
        let is_same = redo[later.1].0 == redo[earlier.1].0;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    order.into_iter().map(|(_, i)| std::mem::take(&mut redo[i])).collect()
}

/// Where the changes are, in the order of their keys, and of those of one key in theirs. Beside each, how its key
/// begins: mostly that decides. (To compare the keys themselves would mean to wait for memory twice each time, and was
/// most of what opening took.)
fn by_key(redo: &[redo::Change]) -> Vec<([u64; HEAD_WORDS], usize)> {
    let mut order: Vec<_> = redo.iter().enumerate().map(|(i, (key, _))| (head(key), i)).collect();
    order.sort_unstable_by(|one, other| {
        let keys = || redo[one.1].0.cmp(&redo[other.1].0);
        one.0.cmp(&other.0).then_with(keys).then(one.1.cmp(&other.1))
    });
    order
}

/// Enough to reach beyond what many keys begin with (a file system's: a kind and an inode number).
const HEAD_WORDS: usize = 3;

/// How a key begins, in an order that never contradicts that of the keys.
fn head(key: &[u8]) -> [u64; HEAD_WORDS] {
    let mut words = [0; HEAD_WORDS];
    for (word, bytes) in words.iter_mut().zip(key.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_be_bytes(padded);
    }
    words
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
                Ok(next) => from = next,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Value;
    use std::collections::BTreeMap;

    #[test]
    fn keys_that_differ_late_or_only_in_length_are_in_order() {
        let key = |number: u32| -> Key {
            let tail = [&b"00000000"[..], b"0000000\0", b"0000000", b"", b"00000000\0", b"1"][number as usize % 6];
            [
                &b"what all of them begin with"[..number as usize % 2 * 27],
                tail,
                &number.to_be_bytes()[..number as usize / 6 % 5],
            ]
            .concat()
            .into()
        };
        let changes: Vec<redo::Change> =
            (0..200).map(|number| (key(number * 7 % 60), Some(Value::from(number.to_be_bytes().to_vec())))).collect();
        let expected: BTreeMap<Key, Option<Value>> = changes.iter().cloned().collect();
        assert_eq!(without_replaced(changes), expected.into_iter().collect::<Vec<_>>());
    }

    /// All that was ever written to a few values was in memory at once.
    #[test]
    fn the_last_of_each_key_counts_also_where_most_is_replaced() {
        let mut expected: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        let mut commits = Vec::new();
        for round in 0..100_u8 {
            let keys = (0..20_u8).filter(|key| (key ^ round) % 3 > 0).map(|key| Key::from([key]));
            let value = |key: &Key| (key[0] != round % 20).then(|| Value::from(vec![round; 60_000]));
            let changes: Vec<redo::Change> = keys.map(|key| (key.clone(), value(&key))).collect();
            commits.push(Packed::plain(redo::encode(changes.iter().map(|(key, value)| (key, value))).into()));
            expected.extend(changes);
        }
        assert_eq!(last_of_each_key(&commits, 8 << 20).unwrap(), expected.into_iter().collect::<Vec<_>>());
    }
}
