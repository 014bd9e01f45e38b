//! Names, numbers and attributes of what is in `.kivafs`. Pure.

use crate::fs::{Attr, FileType, INO_MAX, Ino, RESERVED, ROOT, Time};
use fuser::INodeNo;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// One of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    Stats,
    Metrics,
    Sync,
}

/// Files, by name.
pub const FILES: [(&str, Node); 3] = [("stats", Node::Stats), ("metrics", Node::Metrics), ("sync", Node::Sync)];

/// No file of a store has a number like these.
const FIRST: u64 = INO_MAX + 1;
const NODES: [Node; 4] = [Node::Directory, Node::Stats, Node::Metrics, Node::Sync];

/// Whether that is the number of one of ours.
pub fn has(node: INodeNo) -> bool {
    Node::of(node).is_some()
}

/// Whether that is a name of ours, or a name in our directory.
pub fn has_name(parent: INodeNo, name: &OsStr) -> bool {
    has(parent) || (parent.0 == ROOT.0 && name.as_bytes() == RESERVED)
}

impl Node {
    /// The node of that number.
    pub fn of(node: INodeNo) -> Option<Node> {
        let at = node.0.checked_sub(FIRST)?;
        NODES.get(usize::try_from(at).ok()?).copied()
    }

    /// The node of a name that [`has_name`] says is ours; `None`: there is none.
    pub fn named(parent: INodeNo, name: &OsStr) -> Option<Node> {
        match Node::of(parent) {
            None => Some(Node::Directory),
            Some(Node::Directory) => FILES.iter().find(|(file, _)| *file == name).map(|(_, node)| *node),
            Some(_) => None,
        }
    }

    pub fn ino(self) -> Ino {
        Ino(FIRST + self as u64)
    }

    /// Attributes of a mount that began then and is served by that user.
    pub fn attr(self, began: Time, (uid, gid): (u32, u32)) -> Attr {
        let (kind, perm, nlink, size) = match self {
            Node::Directory => (FileType::Directory, 0o700, 2, 4096),
            Node::Stats | Node::Metrics => (FileType::Regular, 0o400, 1, 0),
            Node::Sync => (FileType::Regular, 0o600, 1, 0),
        };
        let ino = self.ino();
        Attr { ino, kind, size, blocks: 0, perm, nlink, uid, gid, rdev: 0, atime: began, mtime: began, ctime: began }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_nodes() {
        for node in NODES {
            assert_eq!(Node::of(INodeNo(node.ino().0)), Some(node));
        }
        for number in [0, ROOT.0, INO_MAX, FIRST + NODES.len() as u64, u64::MAX] {
            assert!(!has(INodeNo(number)), "{number}");
        }
        let (root, own) = (INodeNo(ROOT.0), INodeNo(Node::Directory.ino().0));
        assert_eq!(Node::named(root, OsStr::new(".kivafs")), Some(Node::Directory));
        assert_eq!(Node::named(own, OsStr::new("sync")), Some(Node::Sync));
        assert!(!has_name(root, OsStr::new("sync")) && !has_name(INodeNo(7), OsStr::new(".kivafs")));
        for name in [".kivafs", "stat", "Sync"] {
            assert!(has_name(own, OsStr::new(name)) && Node::named(own, OsStr::new(name)).is_none());
        }
    }
}
