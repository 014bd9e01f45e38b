//! Changes that wait beside the leaves that they are of.
//!
//! There may be a million of them when a store is opened, and that it takes no longer than it must each is a few
//! numbers beside the bytes of them all, in one piece of memory.

use crate::tree::{KEY_MAX, VALUE_INLINE_MAX, page};

/// Puts of short bytes, and deletes (T9); keys rise strictly.
pub struct Postponed {
    bytes: Vec<u8>,
    changes: Vec<Where>,
}

/// Where a change is among the bytes of them all: its key, and its value behind it.
#[derive(Clone, Copy, Debug)]
pub struct Where {
    /// Where its key begins.
    pub at: usize,
    /// The key's length.
    pub key_bytes: u16,
    /// The value's; `None`: a delete.
    pub value_bytes: Option<u16>,
}

impl Postponed {
    /// Those changes. `bytes` may have others in it. Panics if keys do not rise, or are too long or empty, or if
    /// values are too long, or not there.
    pub fn new(bytes: Vec<u8>, changes: Vec<Where>) -> Postponed {
        for Where { at, key_bytes, value_bytes } in &changes {
            assert!((1..=KEY_MAX).contains(&usize::from(*key_bytes)), "a key of {key_bytes} bytes");
            let value_bytes = usize::from(value_bytes.unwrap_or(0));
            assert!(value_bytes <= VALUE_INLINE_MAX, "T9: a value of {value_bytes} bytes");
            assert!(at + usize::from(*key_bytes) + value_bytes <= bytes.len(), "a change behind the end");
        }
        let postponed = Postponed { bytes, changes };
        let all = &postponed.changes;
        assert!(all.is_sorted_by(|a, b| postponed.key(a) < postponed.key(b)), "the keys of a batch rise strictly");
        postponed
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// That key and its value.
    pub fn get(&self, index: usize) -> (&[u8], Option<&[u8]>) {
        let one = &self.changes[index];
        let value_at = one.at + usize::from(one.key_bytes);
        (self.key(one), one.value_bytes.map(|length| &self.bytes[value_at..value_at + usize::from(length)]))
    }

    pub(super) fn all(&self) -> &[Where] {
        &self.changes
    }

    pub(super) fn key(&self, one: &Where) -> &[u8] {
        &self.bytes[one.at..one.at + usize::from(one.key_bytes)]
    }
}

#[cfg(test)]
impl Postponed {
    /// These changes. Panics unless they can be postponed.
    pub fn of<'c>(changes: impl Iterator<Item = (&'c [u8], &'c Option<crate::tree::Value>)>) -> Postponed {
        use crate::tree::Value;
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (key, value) in changes {
            let value = value.as_ref().map(|value| match value {
                Value::Bytes(bytes) => &bytes[..],
                Value::Extent(extent) => panic!("T9: {extent:?}"),
            });
            let value_bytes = value.map(|value| value.len() as u16);
            places.push(Where { at: bytes.len(), key_bytes: key.len() as u16, value_bytes });
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value.unwrap_or_default());
        }
        Postponed::new(bytes, places)
    }
}

impl Where {
    /// By about how many bytes it makes an encoded page longer, if its key is new.
    pub(super) fn bytes_more(&self) -> u64 {
        let key_bytes = usize::from(self.key_bytes);
        let more = |value: u16| page::key_cost(0, key_bytes) + page::bytes_cost(value.into());
        self.value_bytes.map_or(0, more) as u64
    }
}
