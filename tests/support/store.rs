//! Transactions over a store and over a map, side by side.

use super::random::Random;
use kivafs::backend::{Disk, Objects};
use kivafs::store::{CreateOptions, Direction, Geometry, OpenError, OpenOptions, Store, StoreError, View};
use kivafs::tree::{VALUE_INLINE_MAX, VALUE_MAX, Value};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Once};
use std::time::Duration;

/// What a store should hold.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The sizes of a store, and of what may be put into one.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub geometry: Geometry,
    pub value_bytes_max: usize,
    /// Longest value that is put into a transaction's redo; those between this and
    /// `VALUE_INLINE_MAX` are not made, since one alone would fill a tiny store's commit.
    pub inline_bytes_max: usize,
    /// Of the redo of one transaction: what a quarter of a commit's body takes.
    pub redo_bytes_max: usize,
    pub keys: usize,
}

/// A store of a few blocks: commits go around the ring, and segments fill, all the time.
pub const TINY: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 48 << 10, ring_at_first: 48 << 10, segment_bytes: 8 << 10, page_bytes: 1 << 10 },
    value_bytes_max: 2500,
    inline_bytes_max: 400,
    redo_bytes_max: 700,
    keys: 60,
};

/// A store of a few hundred blocks, with a tree of several levels.
pub const SMALL: Sizes = Sizes {
    geometry: Geometry {
        ring_bytes: 192 << 10,
        ring_at_first: 192 << 10,
        segment_bytes: 64 << 10,
        page_bytes: 1 << 10,
    },
    value_bytes_max: 10_000,
    inline_bytes_max: VALUE_INLINE_MAX,
    redo_bytes_max: 3700,
    keys: 600,
};

/// A store of a few blocks and many short values: its log becomes three times as long when they change here and there.
pub const LENGTHENED: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 3 * TINY.geometry.ring_bytes, ..TINY.geometry },
    value_bytes_max: 100,
    inline_bytes_max: 100,
    keys: 800,
    ..TINY
};

/// A store as people make it.
pub const USUAL: Sizes = Sizes {
    geometry: Geometry { ring_bytes: 64 << 20, ring_at_first: 16 << 20, segment_bytes: 16 << 20, page_bytes: 4 << 10 },
    value_bytes_max: VALUE_MAX,
    inline_bytes_max: VALUE_INLINE_MAX,
    redo_bytes_max: 100_000,
    keys: 3000,
};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// The first keys, so many at most, from the one to just before the other. Only as the first
    /// change of a transaction, whose scans do not see its own changes.
    DeleteRange(Vec<u8>, Vec<u8>, usize),
    /// A piece of the first key's value becomes the second key's value: shares what is stored.
    CopyPiece(Vec<u8>, Vec<u8>, Piece),
}

/// A piece of a value of any length.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where it begins and ends, in thousandths of the value's length.
    pub thousandths: [usize; 2],
    pub length_max: usize,
}

pub fn create(disk: Arc<dyn Disk>, sizes: Sizes) -> Result<(), OpenError> {
    end_with_the_store();
    Store::create_on(disk, &CreateOptions { geometry: Some(sizes.geometry), ..CreateOptions::default() })
}

pub fn create_in(bucket: Arc<dyn Objects>, sizes: Sizes) -> Result<(), OpenError> {
    end_with_the_store();
    Store::create_in(bucket, &CreateOptions { geometry: Some(sizes.geometry), ..CreateOptions::default() })
}

/// A failed assertion in one of the store's threads ends the process, as it does in release: else
/// the test would wait for that thread for ever.
pub fn end_with_the_store() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            if std::thread::current().name().is_some_and(|name| name.starts_with("kivafs-")) {
                std::process::abort();
            }
        }));
    });
}

/// Nothing is committed to storage before it must be, so that the calls to a disk do not depend on
/// the clock.
pub fn unhurried() -> OpenOptions {
    OpenOptions { commit_interval: Duration::from_secs(3600), cache_bytes: 4 << 20, ..OpenOptions::default() }
}

pub fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..unhurried() }
}

/// What a change costs in redo beside its key and value, at most.
const OVERHEAD_BYTES: usize = 16;
/// What a long value costs there: where it is.
const EXTENT_BYTES: usize = 64;

/// Short values all over the tree: many pages for little redo.
pub fn scattered_changes(random: &mut Random, sizes: Sizes) -> Vec<Change> {
    let key = |random: &mut Random| format!("key {:03}", random.within(0..sizes.keys)).into_bytes();
    (0..12).map(|_| Change::Put(key(random), random.bytes(60))).collect()
}

/// A random transaction that fits the sizes.
pub fn random_changes(random: &mut Random, sizes: Sizes) -> Vec<Change> {
    let mut room = sizes.redo_bytes_max;
    let count = if random.one_in(8) { 30 } else { 1 + random.within(0..5) };
    let mut changes = Vec::new();
    for index in 0..count {
        let key = random_key(random, sizes);
        let mut cost = key.len() + OVERHEAD_BYTES;
        let change = match random.within(0..20) {
            0 if index == 0 => {
                let other = random_key(random, sizes);
                let count_max = 1 + random.within(0..(room / 100).min(100));
                cost = count_max * 100;
                Change::DeleteRange(key.clone().min(other.clone()), key.max(other), count_max)
            }
            0..4 => Change::Delete(key),
            4 | 5 => {
                let start = random.within(0..1000);
                let end = random.within(start..1000) + 1;
                cost += sizes.inline_bytes_max.max(EXTENT_BYTES);
                let piece = Piece { thousandths: [start, end], length_max: sizes.inline_bytes_max };
                Change::CopyPiece(random_key(random, sizes), key, piece)
            }
            _ => {
                let length = match random.within(0..10) {
                    0 => 0,
                    1..6 => random.within(0..120.min(sizes.inline_bytes_max)),
                    6 | 7 => random.within(0..sizes.inline_bytes_max + 1),
                    _ => random.within(VALUE_INLINE_MAX + 1..sizes.value_bytes_max + 1),
                };
                cost += if length > VALUE_INLINE_MAX { EXTENT_BYTES } else { length };
                Change::Put(key, random.bytes(length))
            }
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
                Change::DeleteRange(from, to, count_max) => {
                    assert_eq!(index, 0, "a scan does not see the transaction's own changes");
                    let mut doomed = Vec::new();
                    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                    txn.scan(bounds.0, bounds.1, Direction::Forward, &mut |key, _| {
                        doomed.push(key.to_vec());
                        if doomed.len() < *count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    })?;
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
            Change::DeleteRange(from, to, count_max) => {
                let doomed: Vec<_> =
                    state.keys().filter(|key| (from..to).contains(key)).take(*count_max).cloned().collect();
                doomed.iter().for_each(|key| {
                    state.remove(key);
                });
            }
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
fn piece_of(length: usize, piece: Piece) -> Option<(usize, usize)> {
    let [start, end] = piece.thousandths.map(|thousandth| length * thousandth / 1000);
    (start < end).then(|| (start, (end - start).min(piece.length_max)))
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
