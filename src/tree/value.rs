//! What a key maps to.

use crate::log::Pointer;
use bytes::Bytes;

/// A key: 1 to [`KEY_MAX`] bytes, ordered by raw bytes.
pub type Key = Box<[u8]>;

/// Longest key in bytes.
pub const KEY_MAX: usize = 512;
/// Longest value in bytes; also the longest stored unit before compression.
pub const VALUE_MAX: usize = 64 << 10;
/// Values up to this many bytes live in the leaf; longer ones are placed in a data segment before
/// the leaf is stored. (Less than 1 KiB: in leaves, files of that size would leave room for three records a
/// page, and whoever lists or removes them would have to read all of their contents.)
pub const VALUE_INLINE_MAX: usize = 1020;

/// A value: bytes, or a piece of a stored unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The bytes themselves, at most [`VALUE_MAX`].
    Bytes(Bytes),
    /// Bytes that lie in a data segment.
    Extent(Extent),
}

/// A piece of a stored unit. A unit is at most [`VALUE_MAX`] bytes before compression, so that a
/// small read stays small; several extents may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The unit.
    pub unit: Pointer,
    /// Where the piece begins in the unit's payload.
    pub offset: u32,
    /// How many bytes it has; at least 1.
    pub length: u32,
}

impl Extent {
    /// What it counts in the ledger: the stored bytes that it refers to, about.
    pub fn counted(&self) -> u64 {
        self.unit.part(self.length)
    }
}

impl Value {
    /// Length in bytes of what the value stands for.
    pub fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Extent(extent) => extent.length as usize,
        }
    }

    /// Whether it stands for no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is too long to live in a leaf and has to be placed in a data segment first.
    pub fn must_be_placed(&self) -> bool {
        matches!(self, Value::Bytes(bytes) if bytes.len() > VALUE_INLINE_MAX)
    }

    /// The part `start..start + length` of this value. No bytes are copied.
    ///
    /// Panics when the range is empty or does not lie within the value.
    pub fn slice(&self, start: usize, length: usize) -> Value {
        assert!(length > 0 && start + length <= self.len(), "slice {start}+{length} of a value of {}", self.len());
        match self {
            Value::Bytes(bytes) => Value::Bytes(bytes.slice(start..start + length)),
            Value::Extent(extent) => {
                Value::Extent(Extent { unit: extent.unit, offset: extent.offset + start as u32, length: length as u32 })
            }
        }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Value {
        Value::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::Bytes(bytes.into())
    }
}
