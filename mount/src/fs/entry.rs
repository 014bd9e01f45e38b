//! The value of a directory entry. Pure.
//!
//! Pair: a regular file or symlink with this one name, and its whole content.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | bits 4-7: version (1); bits 0-1: 0 = regular file, 1 = symlink; bit 2: it has extended attributes; bit 3: 0 |
//! | 1 | 6 | inode number |
//! | 7 | 7-47 | owner, permissions, times: see `stat` |
//! | 14-54 | 0 to [`INLINE_MAX`] | content to the end of the value |
//!
//! So what is there beside the content takes 14 bytes in the common case, 20 after a later write,
//! rename or chmod, and 2 more for an owner who is not root.
//!
//! Ref: everything else; the node has its own record.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | 0x12: version 1, kind 2 |
//! | 1 | 6 | inode number |
//! | 7 | 1 | type: see `inode` |

use crate::fs::attr::{FileType, INO_MAX, Ino};
use crate::fs::fields::{Fields, push};
use crate::fs::inode::{type_from_number, type_number};
use crate::fs::stat::{STAT_BYTES_MAX, Stat};
use bytes::{Buf, Bytes};
use kivafs::tree::VALUE_INLINE_MAX;

/// Longest content, in bytes, that is kept within an entry or an inode. A record with it still
/// lives in a leaf of the tree.
pub const INLINE_MAX: usize = 960;

const VERSION: u8 = 1 << 4;
const PAIR_REGULAR: u8 = 0;
const PAIR_SYMLINK: u8 = 1;
const REF: u8 = 2;
const HAS_XATTRS: u8 = 1 << 2;
const INO_BYTES: usize = 6;
const HEAD_BYTES_MAX: usize = 1 + INO_BYTES + STAT_BYTES_MAX;
const _: () = assert!(HEAD_BYTES_MAX + INLINE_MAX <= VALUE_INLINE_MAX);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Pair(Pair),
    Ref(Ref),
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) ino: Ino,
    /// Else a regular file.
    pub(crate) is_symlink: bool,
    pub(crate) has_xattrs: bool,
    pub(crate) stat: Stat,
    pub(crate) content: Bytes,
}

/// A node with its own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
}

impl Entry {
    pub(crate) fn ino(&self) -> Ino {
        match self {
            Entry::Pair(pair) => pair.ino,
            Entry::Ref(target) => target.ino,
        }
    }

    pub(crate) fn kind(&self) -> FileType {
        match self {
            Entry::Pair(pair) if pair.is_symlink => FileType::Symlink,
            Entry::Pair(_) => FileType::Regular,
            Entry::Ref(target) => target.kind,
        }
    }

    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Entry::Pair(pair) => {
                assert!(pair.content.len() <= INLINE_MAX, "a pair of {} bytes", pair.content.len());
                let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
                let form = if pair.is_symlink { PAIR_SYMLINK } else { PAIR_REGULAR };
                head.push(VERSION | form | if pair.has_xattrs { HAS_XATTRS } else { 0 });
                push::<INO_BYTES>(&mut head, pair.ino.0);
                pair.stat.encode(&mut head);
                // As long as it is: what has spare room costs its owners one more allocation.
                let mut out = Vec::with_capacity(head.len() + pair.content.len());
                out.extend_from_slice(&head);
                out.extend_from_slice(&pair.content);
                out
            }
            Entry::Ref(target) => {
                let mut out = vec![VERSION | REF];
                push::<INO_BYTES>(&mut out, target.ino.0);
                out.push(type_number(target.kind));
                out
            }
        }
    }

    /// Reads a record; a pair's content is the rest of `bytes`. `None`: these bytes are none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Entry> {
        let mut fields = Fields(&bytes);
        let tag = fields.u8()?;
        let ino = Ino(fields.number::<INO_BYTES>().filter(|number| (1..=INO_MAX).contains(number))?);
        if tag == VERSION | REF {
            let kind = type_from_number(fields.u8()?)?;
            fields.end()?;
            return Some(Entry::Ref(Ref { ino, kind }));
        }
        let is_symlink = match tag & !HAS_XATTRS {
            tag if tag == VERSION | PAIR_REGULAR => false,
            tag if tag == VERSION | PAIR_SYMLINK => true,
            _ => return None,
        };
        let stat = Stat::decode(&mut fields)?;
        let head = bytes.len() - fields.0.len();
        // Not a slice: that would have two owners for a moment.
        bytes.advance(head);
        let content = bytes;
        let has_xattrs = tag & HAS_XATTRS != 0;
        (content.len() <= INLINE_MAX).then_some(Entry::Pair(Pair { ino, is_symlink, has_xattrs, stat, content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::stat::tests::plain;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let mut pair = Pair {
            ino: Ino(0x0102_0304_0506),
            is_symlink: false,
            has_xattrs: false,
            stat: plain(),
            content: Bytes::from_static(b"hi"),
        };
        let golden = [0x10, 1, 2, 3, 4, 5, 6, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x7b, b'h', b'i'];
        assert_eq!(Entry::Pair(pair.clone()).encode(), golden);
        assert_eq!(Entry::decode(Bytes::copy_from_slice(&golden)), Some(Entry::Pair(pair.clone())));
        (pair.is_symlink, pair.has_xattrs) = (true, true);
        assert_eq!(Entry::Pair(pair).encode()[0], 0x15);
        let target = Entry::Ref(Ref { ino: Ino(7), kind: FileType::Directory });
        let golden = [0x12, 0, 0, 0, 0, 0, 7, 2];
        assert_eq!(target.encode(), golden);
        assert_eq!(Entry::decode(Bytes::copy_from_slice(&golden)), Some(target));
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused: [&[u8]; 7] = [
            b"",
            &[0x12, 0, 0, 0, 0, 0, 7],
            &[0x12, 0, 0, 0, 0, 0, 7, 9],
            &[0x12, 0, 0, 0, 0, 0, 7, 2, 0],
            &[0x12, 0, 0, 0, 0, 0, 0, 2],
            &[0x20, 0, 0, 0, 0, 0, 7, 0, 1, 2, 3, 4, 5, 6],
            &[0x13, 0, 0, 0, 0, 0, 7, 0, 1, 2, 3, 4, 5, 6],
        ];
        for bytes in refused {
            assert_eq!(Entry::decode(Bytes::copy_from_slice(bytes)), None, "{bytes:x?}");
        }
        let mut long = vec![0x10, 0, 0, 0, 0, 0, 7, 0, 1, 2, 3, 4, 5, 6];
        long.resize(14 + INLINE_MAX + 1, 0);
        assert_eq!(Entry::decode(long.into()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_safe_and_decode_to_themselves(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(entry) = Entry::decode(bytes.into()) {
                prop_assert_eq!(Entry::decode(entry.encode().into()), Some(entry));
            }
        }
    }
}
