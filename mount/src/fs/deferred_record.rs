//! The record of work that a removal left to do. Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version (1) |
//! | 1 | 1 | bit 0: the node has no name: remove it all once nobody has it open; bit 1: cut |
//! | 2 | 8 | cut: remove the pieces from this offset on; else 0 |

use crate::fs::fields::{Fields, push};

const VERSION: u8 = 1;
const UNLINKED: u8 = 1 << 0;
const CUT: u8 = 1 << 1;

/// What is left to do for a node. At least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deferred {
    /// It has no name (F5).
    pub(crate) unlinked: bool,
    /// Its pieces from this offset on are no content (F6).
    pub(crate) cut_from: Option<u64>,
}

impl Deferred {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.unlinked || self.cut_from.is_some(), "nothing to do");
        let unlinked = if self.unlinked { UNLINKED } else { 0 };
        let cut = if self.cut_from.is_some() { CUT } else { 0 };
        let mut out = vec![VERSION, unlinked | cut];
        push::<8>(&mut out, self.cut_from.unwrap_or(0));
        out
    }

    /// Reads a record. `None`: these bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Deferred> {
        let mut fields = Fields(bytes);
        fields.u8().filter(|version| *version == VERSION)?;
        let flags = fields.u8().filter(|flags| (1..=UNLINKED | CUT).contains(flags))?;
        let from = fields.number::<8>()?;
        fields.end()?;
        Some(Deferred { unlinked: flags & UNLINKED != 0, cut_from: (flags & CUT != 0).then_some(from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        for (deferred, golden) in [
            (Deferred { unlinked: true, cut_from: None }, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Deferred { unlinked: false, cut_from: Some(0x0102) }, [1, 2, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Deferred { unlinked: true, cut_from: Some(0) }, [1, 3, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(deferred.encode(), golden);
            assert_eq!(Deferred::decode(&golden), Some(deferred));
        }
        for bytes in [&[][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 4, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 1, 0]] {
            assert_eq!(Deferred::decode(bytes), None);
        }
    }
}
