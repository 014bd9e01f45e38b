//! The last change of each key of some commits' redo.
//!
//! There may be a million of them, and opening waits for it. What it costs is memory: to have it at all (the
//! system clears each page of it), and to wait for it. So bytes lie together, and what is sorted holds the eight bytes
//! of its key that tell most: those behind what all keys begin with (a file system's do with a kind and an inode
//! number), and where they are the same, the eight behind what these have in common.

use super::StoreError;
use super::redo::{self, Put};
use crate::log::LogError;
use crate::tree::{Postponed, VALUE_INLINE_MAX, Value, Where};
use bytes::Bytes;

/// Bytes of a key that are looked at together.
const HEAD_BYTES: usize = size_of::<u64>();

/// So few are compared key by key.
const FEW: usize = 8;

/// Some changes, oldest first, or in the order of their keys.
#[derive(Default)]
struct Gathered {
    /// The keys, each with its value behind it if that is short.
    bytes: Vec<u8>,
    /// Values that cannot be postponed. None: it was taken.
    others: Vec<Option<Value>>,
    changes: Vec<One>,
    /// Bytes of `others`.
    other_bytes: usize,
}

struct One {
    /// While they are sorted: some bytes of its key, in an order that never contradicts that of the keys; mostly that
    /// decides. While replaced bytes are dropped: its place.
    head: u64,
    /// Where its key is. Of two changes of one key the later one's is behind the earlier one's.
    at: usize,
    key_bytes: u16,
    value: Kept,
}

#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    /// So many bytes behind the key.
    Short(u16),
    /// That one of the others.
    Other(u32),
}

/// What is to be done, keys rising: what may be postponed, and the rest.
pub type LastChanges = (Postponed, Vec<redo::Change>);

/// The last change of each key. Of what is replaced by later commits little is in memory (C6), about so many bytes:
/// they may be of the same few values, again and again. `later`: what can be postponed is.
///
/// Of the commits only one is in memory at a time. (A thread that reads ahead made it slower: there are thousands of
/// them, and each had to wake somebody.)
pub fn last_of_each_key(
    commits: impl Iterator<Item = Result<Bytes, LogError>>,
    replaced_max: usize,
    later: bool,
) -> Result<LastChanges, StoreError> {
    let mut gathered = Gathered::with_room(replaced_max);
    let mut cost_max = replaced_max;
    for commit in commits {
        redo::decode(&commit?, |key, put| gathered.take(key, put)).map_err(|error| StoreError::damaged(error.what))?;
        if gathered.cost() > cost_max {
            gathered.sort();
            gathered.drop_replaced();
            cost_max = gathered.cost() + gathered.cost().max(replaced_max);
        }
    }
    gathered.sort();
    if gathered.is_mostly_replaced() {
        gathered.drop_replaced();
    }
    // All of it stays until each leaf has caught up: not with what was dropped on the way, too.
    gathered.bytes.shrink_to_fit();
    Ok(gathered.into_last(later))
}

impl Gathered {
    /// Without changes, with room for about so many bytes of them. What is not used of it costs nothing, and to
    /// move a million changes when there is no more does.
    fn with_room(bytes: usize) -> Gathered {
        Gathered {
            bytes: Vec::with_capacity(bytes),
            changes: Vec::with_capacity(bytes / 2 / size_of::<One>()),
            ..Gathered::default()
        }
    }

    fn take(&mut self, key: &[u8], put: Put<'_>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value = match put {
            Put::Nothing => Kept::Nothing,
            Put::Bytes(bytes) if bytes.len() <= VALUE_INLINE_MAX => {
                self.bytes.extend_from_slice(bytes);
                Kept::Short(bytes.len() as u16)
            }
            // A copy, so that it does not keep the whole commit in memory.
            Put::Bytes(bytes) => self.keep(Value::Bytes(Bytes::copy_from_slice(bytes))),
            Put::Extent(extent) => self.keep(Value::Extent(extent)),
        };
        self.changes.push(One { head: 0, at, key_bytes: key.len() as u16, value });
    }

    fn keep(&mut self, value: Value) -> Kept {
        self.other_bytes += other_bytes(&value);
        self.others.push(Some(value));
        Kept::Other(self.others.len() as u32 - 1)
    }

    /// About how many bytes of memory it takes.
    fn cost(&self) -> usize {
        self.bytes.len() + self.other_bytes + self.changes.len() * size_of::<One>()
    }

    fn key(&self, one: &One) -> &[u8] {
        one.key(&self.bytes)
    }

    fn short(&self, one: &One, length: u16) -> &[u8] {
        let at = one.at + usize::from(one.key_bytes);
        &self.bytes[at..at + usize::from(length)]
    }

    /// Only the last change of each key, in the order of the keys.
    fn sort(&mut self) {
        sort_behind(&mut self.changes, &self.bytes, 0);
        self.changes.retain(|one| !one.is_replaced());
    }

    /// Once it is sorted: whether more than half of its bytes are of changes that are no longer in it.
    fn is_mostly_replaced(&self) -> bool {
        self.changes.iter().map(One::bytes).sum::<usize>() < self.bytes.len() / 2
    }

    /// Once it is sorted: drops the bytes of what is no longer in it. Where they are: to have them twice is what opening
    /// would take most memory for.
    fn drop_replaced(&mut self) {
        for (place, one) in self.changes.iter_mut().enumerate() {
            one.head = place as u64;
        }
        // None is moved to where one that has not been moved yet still is.
        self.changes.sort_unstable_by_key(|one| one.at);
        let (mut end, mut others) = (0, Vec::new());
        for one in &mut self.changes {
            let length = one.bytes();
            self.bytes.copy_within(one.at..one.at + length, end);
            one.at = end;
            end += length;
            if let Kept::Other(index) = &mut one.value {
                others.push(self.others[*index as usize].take());
                *index = others.len() as u32 - 1;
            }
        }
        self.bytes.truncate(end);
        self.other_bytes = others.iter().flatten().map(other_bytes).sum();
        self.others = others;
        self.changes.sort_unstable_by_key(|one| one.head);
    }

    fn other(&mut self, index: u32) -> Value {
        self.others[index as usize].take().expect("each is of one change")
    }

    /// Once it is sorted.
    fn into_last(mut self, later: bool) -> LastChanges {
        let changes = std::mem::take(&mut self.changes);
        let mut postponed = Vec::new();
        let mut others = Vec::new();
        for one in &changes {
            let short = match one.value {
                Kept::Nothing => None,
                Kept::Short(length) => Some(length),
                Kept::Other(index) => {
                    let value = self.other(index);
                    others.push((self.key(one).into(), Some(value)));
                    continue;
                }
            };
            if later {
                postponed.push(Where { at: one.at, key_bytes: one.key_bytes, value_bytes: short });
            } else {
                let value = short.map(|length| Value::Bytes(Bytes::copy_from_slice(self.short(one, length))));
                others.push((self.key(one).into(), value));
            }
        }
        (Postponed::new(self.bytes, postponed), others)
    }
}

impl One {
    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.at..self.at + usize::from(self.key_bytes)]
    }

    /// It is not the last of its key.
    fn replace(&mut self) {
        self.key_bytes = 0;
    }

    fn is_replaced(&self) -> bool {
        // No key is empty.
        self.key_bytes == 0
    }

    /// Of its key and its short value.
    fn bytes(&self) -> usize {
        usize::from(self.key_bytes) + if let Kept::Short(length) = self.value { usize::from(length) } else { 0 }
    }
}

fn other_bytes(value: &Value) -> usize {
    size_of::<Option<Value>>() + if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }
}

/// Sorts changes whose keys have so many bytes in common; of each key all but the last are replaced.
fn sort_behind(changes: &mut [One], bytes: &[u8], common: usize) {
    if changes.len() <= FEW {
        return sort_by_key(changes, bytes);
    }
    let (first, rest) = changes.split_first().expect("there are some");
    let first = first.key(bytes);
    let common = rest.iter().fold(first.len(), |most, one| {
        let key = one.key(bytes);
        match key.get(common..most) == Some(&first[common..most]) {
            true => most,
            false => first.iter().zip(key).take_while(|(a, b)| a == b).count(),
        }
    });
    for one in &mut *changes {
        one.head = head(&one.key(bytes)[common..]);
    }
    changes.sort_unstable_by_key(|one| (one.head, one.at));
    for same in changes.chunk_by_mut(|one, other| one.head == other.head).filter(|same| same.len() > 1) {
        let behind = common + HEAD_BYTES;
        match same.iter().all(|one| usize::from(one.key_bytes) > behind) {
            true => sort_behind(same, bytes, behind),
            // A key that ends has the same head as one that goes on with zeros.
            false => sort_by_key(same, bytes),
        }
    }
}

/// The same by comparing whole keys.
fn sort_by_key(changes: &mut [One], bytes: &[u8]) {
    changes.sort_unstable_by(|one, other| one.key(bytes).cmp(other.key(bytes)).then(one.at.cmp(&other.at)));
    for i in 1..changes.len() {
        if changes[i - 1].key(bytes) == changes[i].key(bytes) {
            changes[i - 1].replace();
        }
    }
}

/// How that begins, as if zeros were behind it.
fn head(rest: &[u8]) -> u64 {
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut padded = [0; HEAD_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Codec, Pointer, SegmentNo};
    use crate::tree::{Extent, Key};
    use std::collections::BTreeMap;

    type Map = BTreeMap<Key, Option<Value>>;

    /// What becomes of these commits: all of it, and how much of it is postponed.
    fn last_of(commits: &[Map], replaced_max: usize, later: bool) -> (Map, usize) {
        let commits = commits.iter().map(|changes| Ok(redo::encode(changes.iter()).into()));
        let (postponed, others) = last_of_each_key(commits, replaced_max, later).unwrap();
        assert!(others.is_sorted_by(|one, other| one.0 < other.0), "keys rise");
        let value = |bytes: &[u8]| Value::from(bytes.to_vec());
        let short = (0..postponed.len()).map(|index| postponed.get(index));
        let all: Map = short.map(|(key, bytes)| (key.into(), bytes.map(value))).chain(others).collect();
        (all, postponed.len())
    }

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
        let value = |number: u32| (!number.is_multiple_of(5)).then(|| Value::from(number.to_be_bytes().to_vec()));
        let commits: Vec<Map> = (0..200)
            .filter(|number| !key(number * 7 % 60).is_empty())
            .map(|number| Map::from([(key(number * 7 % 60), value(number))]))
            .collect();
        let expected: Map = commits.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        for replaced_max in [0, 1000, 1 << 20] {
            assert_eq!(last_of(&commits, replaced_max, true), (expected.clone(), expected.len()));
            assert_eq!(last_of(&commits, replaced_max, false), (expected.clone(), 0));
        }
    }

    /// All that was ever written to a few values was in memory at once.
    #[test]
    fn the_last_of_each_key_counts_also_where_most_is_replaced() {
        let unit = Pointer { segment: SegmentNo(1), offset: 2, length: 3, codec: Codec::Raw, shrunk: 0, checksum: 4 };
        let mut commits = Vec::new();
        for round in 0..100_u8 {
            let value = |key: u8| match key.wrapping_mul(round) % 4 {
                _ if key == round % 20 => None,
                0 => Some(Value::Extent(Extent { unit, offset: 0, length: 1 + u32::from(round) })),
                1 => Some(Value::from(vec![round; VALUE_INLINE_MAX])),
                2 => Some(Value::from(vec![round; VALUE_INLINE_MAX + 1])),
                _ => Some(Value::from(vec![round; 60_000])),
            };
            let keys = (0..20_u8).filter(|key| (key ^ round) % 3 > 0);
            commits.push(keys.map(|key| (Key::from([key]), value(key))).collect::<Map>());
        }
        let expected: Map = commits.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let is_short = |value: &Value| matches!(value, Value::Bytes(bytes) if bytes.len() <= VALUE_INLINE_MAX);
        let short = expected.values().filter(|value| value.as_ref().is_none_or(is_short)).count();
        for replaced_max in [0, 8 << 20, 1 << 30] {
            assert_eq!(last_of(&commits, replaced_max, true), (expected.clone(), short));
            assert_eq!(last_of(&commits, replaced_max, false), (expected.clone(), 0));
        }
    }
}
