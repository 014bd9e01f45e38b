//! A page in memory.

use crate::log::Pointer;
use crate::tree::DecodeError;
use std::sync::Arc;

/// What refers to a page.
#[derive(Clone)]
pub(super) enum Edge {
    /// It is stored there and reached through the cache.
    Stored(Pointer),
    /// It is in memory: changed since it was stored, or never stored.
    Loaded(Arc<Node>),
}

/// A page in memory. Immutable while shared.
pub struct Node {}

impl Node {
    /// The page with this payload, which is stored at `at`.
    pub fn decode(payload: &[u8], at: Pointer) -> Result<Node, DecodeError> {
        unimplemented!("{payload:?} {at}")
    }

    /// Bytes of memory that it takes, roughly: what a cache should count for it.
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
}
