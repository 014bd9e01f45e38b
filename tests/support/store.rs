//! Transactions over a store and over a map, side by side.

use super::random::Random;
use kivafs::backend::Disk;
use kivafs::store::{CreateOptions, Direction, Geometry, OpenError, OpenOptions, Store, StoreError, View};
use kivafs::tree::Value;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

/// What a store should hold.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The sizes of a store, and of what may be put into one.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub geometry: Geometry,
    pub value_bytes_max: usize,
    /// Of one transaction: keys, values and a few bytes for each.
    pub txn_bytes_max: usize,
    pub keys: usize,
}

/// A store of a few blocks: commits go around the ring, and segments fill, all the time.
pub const TINY: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 24 << 10, segment_bytes: 8 << 10, page_bytes: 1 << 10 },
    value_bytes_max: 2000,
    txn_bytes_max: 2500,
    keys: 60,
};

/// A store of a few hundred blocks, with a tree of several levels.
pub const SMALL: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 96 << 10, segment_bytes: 64 << 10, page_bytes: 1 << 10 },
    value_bytes_max: 10_000,
    txn_bytes_max: 12_000,
    keys: 600,
};

/// A store as people make it.
pub const USUAL: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 16 << 20, segment_bytes: 16 << 20, page_bytes: 4 << 10 },
    value_bytes_max: 64 << 10,
    txn_bytes_max: 1 << 20,
    keys: 3000,
};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Every key from the first to just before the second.
    DeleteRange(Vec<u8>, Vec<u8>),
    /// The piece of the first key's value that begins and ends at these thousandths of its length
    /// becomes the second key's value: shares what is stored.
    CopyPiece(Vec<u8>, Vec<u8>, [usize; 2]),
}

pub fn create(disk: Arc<dyn Disk>, sizes: Sizes) -> Result<(), OpenError> {
    Store::create_on(disk, &CreateOptions { geometry: sizes.geometry, ..CreateOptions::default() })
}

/// Nothing is committed to storage before it must be, so that the calls to a disk do not depend on
/// the clock.
pub fn unhurried() -> OpenOptions {
    OpenOptions { commit_interval: Duration::from_secs(3600), cache_bytes: 4 << 20, ..OpenOptions::default() }
}

pub fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..unhurried() }
}

/// A random transaction that fits the sizes.
pub fn random_changes(random: &mut Random, sizes: Sizes) -> Vec<Change> {
    let mut room = sizes.txn_bytes_max;
    let count = if random.one_in(8) { 30 } else { 1 + random.within(0..5) };
    let mut changes = Vec::new();
    for _ in 0..count {
        let key = random_key(random, sizes);
        let change = match random.within(0..20) {
            0..4 => Change::Delete(key),
            4 => {
                let other = random_key(random, sizes);
                Change::DeleteRange(key.clone().min(other.clone()), key.max(other))
            }
            5 | 6 => {
                let start = random.within(0..1000);
                let end = random.within(start..1000) + 1;
                Change::CopyPiece(random_key(random, sizes), key, [start, end])
            }
            _ => {
                let most = sizes.value_bytes_max + 1;
                let length = match random.within(0..10) {
                    0 => 0,
                    1..7 => random.within(0..most.min(120)),
                    7 | 8 => random.within(0..most.min(1500)),
                    _ => random.within(0..most),
                };
                Change::Put(key, random.bytes(length))
            }
        };
        let cost = match &change {
            Change::Put(key, value) => key.len() + value.len() + 16,
            // Copied bytes may have to be written again.
            Change::CopyPiece(_, key, _) => key.len() + sizes.value_bytes_max + 16,
            // Each key that a range holds is deleted by itself; a few in these small key spaces.
            Change::Delete(key) => key.len() + 16,
            Change::DeleteRange(..) => sizes.txn_bytes_max / 2,
        };
        if cost <= room {
            room -= cost;
            changes.push(change);
        }
    }
    changes
}

/// Short and long ones; some with bytes that sort at the ends.
pub fn random_key(random: &mut Random, sizes: Sizes) -> Vec<u8> {
    let number = random.within(0..sizes.keys);
    let mut key = format!("k{number:04}").into_bytes();
    match number % 11 {
        0 => key.insert(0, 0xff),
        1 => key.insert(0, 0),
        2 => key.extend(std::iter::repeat_n(b'x', number % 60)),
        _ => {}
    }
    key
}

/// Commits the changes, whatever has to be fetched for that.
pub fn commit(store: &Store, changes: &[Change]) -> Result<(), StoreError> {
    store.patiently(|| {
        let mut txn = store.begin()?;
        for (index, change) in changes.iter().enumerate() {
            match change {
                Change::Put(key, value) => txn.put(key, value.clone()),
                Change::Delete(key) => txn.delete(key),
                Change::CopyPiece(from, to, piece) => {
                    if let Some(value) = txn.get(from)?
                        && let Some((start, length)) = piece_of(value.len(), *piece)
                    {
                        txn.put(to, value.slice(start, length));
                    }
                }
                Change::DeleteRange(from, to) => {
                    let mut doomed = Vec::new();
                    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                    txn.scan(bounds.0, bounds.1, Direction::Forward, &mut |key, _| {
                        doomed.push(key.to_vec());
                        ControlFlow::Continue(())
                    })?;
                    // A scan does not see the transaction's own changes.
                    for change in &changes[..index] {
                        if let Change::Put(key, _) | Change::CopyPiece(_, key, _) = change
                            && (from..to).contains(&key)
                        {
                            doomed.push(key.clone());
                        }
                    }
                    doomed.iter().for_each(|key| txn.delete(key));
                }
            }
        }
        txn.commit()
    })
}

/// The same to a map.
pub fn apply(state: &mut State, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                state.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                state.remove(key);
            }
            Change::DeleteRange(from, to) => state.retain(|key, _| !(from..to).contains(&key)),
            Change::CopyPiece(from, to, piece) => {
                if let Some(value) = state.get(from)
                    && let Some((start, length)) = piece_of(value.len(), *piece)
                {
                    let piece = value[start..start + length].to_vec();
                    state.insert(to.clone(), piece);
                }
            }
        }
    }
}

/// Start and length of a piece, unless it is empty.
fn piece_of(length: usize, [start, end]: [usize; 2]) -> Option<(usize, usize)> {
    let (start, end) = (length * start / 1000, length * end / 1000);
    (start < end).then_some((start, end - start))
}

/// A scan that goes on where it missed: one that began again from its start would never end when
/// the range is larger than the cache.
pub fn scan(
    store: &Store,
    view: &View,
    (mut from, mut to): (Bound<Vec<u8>>, Bound<Vec<u8>>),
    direction: Direction,
    count_max: usize,
) -> Result<Vec<(Vec<u8>, Value)>, StoreError> {
    let mut pairs: Vec<(Vec<u8>, Value)> = Vec::new();
    while pairs.len() < count_max {
        let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let outcome = view.scan(bounds.0, bounds.1, direction, &mut |key, value| {
            pairs.push((key.to_vec(), value.clone()));
            if pairs.len() < count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match outcome {
            Ok(()) => break,
            Err(StoreError::Miss(miss)) => store.fetch(&miss)?,
            Err(error) => return Err(error),
        }
        if let Some((last, _)) = pairs.last() {
            match direction {
                Direction::Forward => from = Bound::Excluded(last.clone()),
                Direction::Backward => to = Bound::Excluded(last.clone()),
            }
        }
    }
    Ok(pairs)
}

/// The bytes of one value. One at a time, since all together may be larger than the cache.
pub fn bytes_of(store: &Store, view: &View, value: Value) -> Result<Vec<u8>, StoreError> {
    let values = [value];
    let bytes = store.patiently(|| view.read(&values))?;
    assert_eq!(bytes.len(), 1);
    Ok(bytes[0].to_vec())
}

/// Everything that the view holds, each byte of it read.
pub fn read_view(store: &Store, view: &View) -> Result<State, StoreError> {
    let pairs = scan(store, view, (Bound::Unbounded, Bound::Unbounded), Direction::Forward, usize::MAX)?;
    pairs.into_iter().map(|(key, value)| Ok((key, bytes_of(store, view, value)?))).collect()
}

pub fn read_state(store: &Store) -> Result<State, StoreError> {
    read_view(store, &store.view())
}

/// Panics unless the store on that disk is whole, every byte of it.
#[track_caller]
pub fn assert_whole(disk: Arc<dyn Disk>, context: &str) {
    let found = Store::check_on(disk, true).unwrap_or_else(|error| panic!("{context}: check: {error}"));
    assert!(found.is_empty(), "{context}: check: {found:#?}");
}

/// Where two states differ, in few words.
pub fn difference(found: &State, expected: &State) -> String {
    let missing = expected.keys().filter(|key| !found.contains_key(*key)).count();
    let extra = found.keys().filter(|key| !expected.contains_key(*key)).count();
    let wrong: Vec<String> = expected
        .iter()
        .filter_map(|(key, value)| Some((key, value, found.get(key)?)))
        .filter(|(_, value, found)| value != found)
        .map(|(key, value, found)| {
            format!("{:?} has {} bytes, not {}", String::from_utf8_lossy(key), found.len(), value.len())
        })
        .take(3)
        .collect();
    format!("{} of {} keys missing, {} extra, wrong: {wrong:?}", missing, expected.len(), extra)
}
