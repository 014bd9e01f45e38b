//! The record of a node that is no pair. Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version (1) |
//! | 1 | 1 | bits 0-3: type, below; bit 4: it has extended attributes; bit 5: mapped (see below); bit 6: pieces beyond the end are still to be removed |
//! | 2 | 4 | number of names; 0 (removed, or of a directory: see below) |
//! | 6 | 7-47 | owner, permissions, times: see `stat` |
//! | | | by type: |
//! | | 6, 4 | directory: inode number of its parent, number of its subdirectories |
//! | | 4 | device: its number |
//! | | 8, 8 | regular file or symlink, mapped: size in bytes, bytes in its pieces |
//! | | 0-[`INLINE_MAX`] | regular file or symlink, not mapped: content to the end of the value |
//!
//! Types: 1 regular file, 2 directory, 3 symlink, 4 fifo, 5 socket, 6 character device, 7 block
//! device. A directory's number of names is always written as 1.

use crate::fs::attr::{FileType, INO_MAX, Ino};
use crate::fs::entry::INLINE_MAX;
use crate::fs::fields::{Fields, push};
use crate::fs::stat::{STAT_BYTES_MAX, Stat};
use bytes::Bytes;
use kivafs::tree::VALUE_INLINE_MAX;

const VERSION: u8 = 1;
const TYPE_MASK: u8 = 0x0f;
const HAS_XATTRS: u8 = 1 << 4;
const MAPPED: u8 = 1 << 5;
const CUTTING: u8 = 1 << 6;
const FIXED_BYTES: usize = 1 + 1 + 4;
const _: () = assert!(FIXED_BYTES + STAT_BYTES_MAX + INLINE_MAX <= VALUE_INLINE_MAX);
/// Longest file: what a file offset can express.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// A node's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) kind: FileType,
    pub(crate) has_xattrs: bool,
    /// Names; 0: removed but open. 1 for a directory.
    pub(crate) links: u32,
    pub(crate) stat: Stat,
    pub(crate) body: Body,
}

/// What a node consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Content of a regular file or a symlink, at most [`INLINE_MAX`] bytes.
    Inline(Bytes),
    /// The content of a regular file or a symlink is in pieces under keys of their own.
    Mapped(Mapped),
    Directory {
        parent: Ino,
        subdirs: u32,
    },
    Device(u32),
    /// A fifo or socket.
    Nothing,
}

/// A file in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Sum of the lengths of all its pieces.
    pub(crate) allocated: u64,
    /// Pieces beyond the end are still to be removed: the deferred record says from where on.
    pub(crate) cutting: bool,
}

/// The type's number in records.
pub(crate) fn type_number(kind: FileType) -> u8 {
    match kind {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharDevice => 6,
        FileType::BlockDevice => 7,
    }
}

/// The type of that number.
pub(crate) fn type_from_number(number: u8) -> Option<FileType> {
    Some(match number {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::Symlink,
        4 => FileType::Fifo,
        5 => FileType::Socket,
        6 => FileType::CharDevice,
        7 => FileType::BlockDevice,
        _ => return None,
    })
}

impl Inode {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut kind = type_number(self.kind) | if self.has_xattrs { HAS_XATTRS } else { 0 };
        if let Body::Mapped(mapped) = &self.body {
            kind |= MAPPED | if mapped.cutting { CUTTING } else { 0 };
        }
        out.extend_from_slice(&[VERSION, kind]);
        push::<4>(&mut out, self.links.into());
        self.stat.encode(&mut out);
        match (&self.body, self.kind) {
            (Body::Inline(content), FileType::Regular | FileType::Symlink) => {
                assert!(content.len() <= INLINE_MAX, "{} bytes within an inode", content.len());
                out.extend_from_slice(content);
            }
            (Body::Mapped(mapped), FileType::Regular | FileType::Symlink) => {
                push::<8>(&mut out, mapped.size);
                push::<8>(&mut out, mapped.allocated);
            }
            (Body::Directory { parent, subdirs }, FileType::Directory) => {
                push::<6>(&mut out, parent.0);
                push::<4>(&mut out, (*subdirs).into());
            }
            (Body::Device(number), FileType::CharDevice | FileType::BlockDevice) => {
                push::<4>(&mut out, (*number).into());
            }
            (Body::Nothing, FileType::Fifo | FileType::Socket) => {}
            (body, kind) => panic!("a {kind:?} of {body:?}"),
        }
        out
    }

    /// Reads a record; inline content is a slice of `bytes`. `None`: these bytes are none.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Inode> {
        let mut fields = Fields(bytes);
        fields.u8().filter(|version| *version == VERSION)?;
        let flags = fields.u8().filter(|flags| flags >> 7 == 0)?;
        let kind = type_from_number(flags & TYPE_MASK)?;
        let links = fields.u32()?;
        let stat = Stat::decode(&mut fields)?;
        let cutting = flags & CUTTING != 0;
        let body = match (kind, flags & MAPPED != 0) {
            (FileType::Regular | FileType::Symlink, true) => {
                let size = fields.number::<8>().filter(|size| *size <= SIZE_MAX)?;
                Body::Mapped(Mapped { size, allocated: fields.number::<8>()?, cutting })
            }
            (FileType::Regular | FileType::Symlink, false) => {
                let length = fields.0.len();
                fields.bytes(length).filter(|content| content.len() <= INLINE_MAX)?;
                Body::Inline(bytes.slice(bytes.len() - length..))
            }
            (FileType::Directory, false) => {
                let parent = fields.number::<6>().filter(|number| (1..=INO_MAX).contains(number))?;
                Body::Directory { parent: Ino(parent), subdirs: fields.u32()? }
            }
            (FileType::CharDevice | FileType::BlockDevice, false) => Body::Device(fields.u32()?),
            (FileType::Fifo | FileType::Socket, false) => Body::Nothing,
            _ => return None,
        };
        fields.end()?;
        (!cutting || matches!(body, Body::Mapped(_))).then_some(Inode {
            kind,
            has_xattrs: flags & HAS_XATTRS != 0,
            links,
            stat,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::stat::tests::plain;
    use proptest::prelude::*;

    const STAT: [u8; 7] = [0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x7b];

    fn check(kind: FileType, body: Body, head: [u8; 6], tail: &[u8]) {
        let inode = Inode { kind, has_xattrs: false, links: 1, stat: plain(), body };
        let golden = [&head[..], &STAT, tail].concat();
        assert_eq!(inode.encode(), golden);
        assert_eq!(Inode::decode(&golden.clone().into()), Some(inode));
        let (length, exact) = (golden.len(), kind == FileType::Regular && head[1] == 1);
        assert_eq!(Inode::decode(&[&golden[..], &[0]].concat().into()).is_none(), !exact, "one byte more");
        assert!(Inode::decode(&Bytes::copy_from_slice(&golden[..length.min(12)])).is_none(), "cut");
    }

    #[test]
    fn golden_bytes() {
        check(FileType::Regular, Body::Inline(Bytes::from_static(b"hi")), [1, 1, 0, 0, 0, 1], b"hi");
        check(
            FileType::Regular,
            Body::Mapped(Mapped { size: 0x0102, allocated: 3, cutting: true }),
            [1, 0x61, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3],
        );
        check(
            FileType::Directory,
            Body::Directory { parent: ROOT_FOR_TEST, subdirs: 5 },
            [1, 2, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 1, 0, 0, 0, 5],
        );
        check(FileType::CharDevice, Body::Device(0x0103), [1, 6, 0, 0, 0, 1], &[0, 0, 1, 3]);
        check(FileType::Fifo, Body::Nothing, [1, 4, 0, 0, 0, 1], &[]);
    }

    const ROOT_FOR_TEST: Ino = Ino(1);

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_safe_and_decode_to_themselves(
            kind in 0..=255u8, bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(inode) = Inode::decode(&[&[1, kind][..], &bytes].concat().into()) {
                prop_assert_eq!(Inode::decode(&inode.encode().into()), Some(inode));
            }
        }
    }
}
