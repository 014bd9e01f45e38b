//! Keys of the tree. Pure.
//!
//! | bytes | key | value |
//! |---|---|---|
//! | 01 | the file system | `fs_record` |
//! | 10 dir:8 name | a directory entry | `entry` |
//! | 20 ino:8 | a node | `inode` |
//! | 30 ino:8 offset:8 | a piece of a file | raw bytes, or an extent |
//! | 40 ino:8 name | an extended attribute | raw bytes, or an extent |
//! | 50 ino:8 | work left to do | `deferred_record` |
//! | 60 | snapshots | reserved |
//!
//! Numbers are big-endian, so a directory, a file's pieces and a node's attributes are contiguous
//! and in order. Inode numbers take 8 bytes of which the first two are 0.

use crate::fs::attr::{INO_MAX, Ino};
use crate::fs::name::Name;

/// The key of the file system's own record.
pub(crate) const FS: &[u8] = &[0x01];
const ENTRY: u8 = 0x10;
const INODE: u8 = 0x20;
const PIECE: u8 = 0x30;
const XATTR: u8 = 0x40;
const DEFERRED: u8 = 0x50;
const INO_END: usize = 1 + 8;
const OFFSET_END: usize = INO_END + 8;

/// The range of keys `from..to`.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

fn of(kind: u8, ino: Ino, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(INO_END + rest.len());
    key.push(kind);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// Everything under one inode: numbers are at most [`INO_MAX`], so the successor exists.
fn under(kind: u8, ino: Ino) -> Range {
    Range { from: of(kind, ino, &[]), to: of(kind, Ino(ino.0 + 1), &[]) }
}

fn kind(kind: u8) -> Range {
    Range { from: vec![kind], to: vec![kind + 1] }
}

pub(crate) fn entry(dir: Ino, name: &Name) -> Vec<u8> {
    of(ENTRY, dir, name.raw())
}

pub(crate) fn entries(dir: Ino) -> Range {
    under(ENTRY, dir)
}

/// The entries after that name.
pub(crate) fn entries_after(dir: Ino, raw: &[u8]) -> Range {
    let mut range = entries(dir);
    range.from = of(ENTRY, dir, raw);
    range.from.push(0);
    range
}

pub(crate) fn all_entries() -> Range {
    kind(ENTRY)
}

pub(crate) fn inode(ino: Ino) -> Vec<u8> {
    of(INODE, ino, &[])
}

pub(crate) fn all_inodes() -> Range {
    kind(INODE)
}

pub(crate) fn piece(ino: Ino, offset: u64) -> Vec<u8> {
    of(PIECE, ino, &offset.to_be_bytes())
}

/// The pieces that begin in `from..to`.
pub(crate) fn pieces(ino: Ino, from: u64, to: u64) -> Range {
    Range { from: piece(ino, from), to: piece(ino, to) }
}

pub(crate) fn all_pieces() -> Range {
    kind(PIECE)
}

pub(crate) fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    of(XATTR, ino, name)
}

pub(crate) fn xattrs(ino: Ino) -> Range {
    under(XATTR, ino)
}

pub(crate) fn all_xattrs() -> Range {
    kind(XATTR)
}

pub(crate) fn deferred(ino: Ino) -> Vec<u8> {
    of(DEFERRED, ino, &[])
}

pub(crate) fn all_deferred() -> Range {
    kind(DEFERRED)
}

/// The inode number in any key but [`FS`]. `None`: the key is too short, or the number too great.
pub(crate) fn ino_of(key: &[u8]) -> Option<Ino> {
    let bytes = key.get(1..INO_END)?;
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (1..=INO_MAX).contains(&number).then_some(Ino(number))
}

/// What follows the inode number: a name.
pub(crate) fn name_of(key: &[u8]) -> &[u8] {
    key.get(INO_END..).unwrap_or_default()
}

/// The offset in a piece's key. `None`: the key has another length.
pub(crate) fn offset_of(key: &[u8]) -> Option<u64> {
    let bytes = key.get(INO_END..).filter(|_| key.len() == OFFSET_END)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let ino = Ino(0x0102_0304_0506);
        let name = Name::from_raw(b"n\xff").unwrap();
        assert_eq!(entry(ino, &name), [0x10, 0, 0, 1, 2, 3, 4, 5, 6, b'n', 0xff]);
        assert_eq!(inode(ino), [0x20, 0, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(piece(ino, 0x10000), [0x30, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(xattr(ino, b"user.a"), [&[0x40, 0, 0, 1, 2, 3, 4, 5, 6][..], b"user.a"].concat());
        assert_eq!(deferred(ino), [0x50, 0, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(ino_of(&piece(ino, 7)), Some(ino));
        assert_eq!(offset_of(&piece(ino, 7)), Some(7));
        assert_eq!(offset_of(&inode(ino)), None);
        assert_eq!(name_of(&entry(ino, &name)), b"n\xff");
        assert_eq!(ino_of(&[0x20, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(ino_of(&[0x20, 0, 1, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn the_empty_name_is_in_its_directory() {
        let range = entries(Ino(5));
        let empty = entry(Ino(5), &Name::from_raw(b"").unwrap());
        assert!(range.from <= empty && empty < range.to);
        assert!(entries_after(Ino(5), b"").from > empty);
        assert!(entries_after(Ino(5), &[0xff; 255]).from < range.to);
    }
}
