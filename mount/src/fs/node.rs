//! A node, wherever it is recorded: in an entry (pair) or in a record of its own.

use crate::fs::attr::{Attr, FileType, Ino};
use crate::fs::entry::{Entry, Pair};
use crate::fs::error::{FsError, Result};
use crate::fs::inode::{Body, Inode};
use crate::fs::records::Records;
use crate::fs::table::{Form, Place};

/// A node and where it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) ino: Ino,
    /// `Some`: a pair, in this entry.
    pub(crate) place: Option<Place>,
    /// What it is. Of a pair: what its record would be.
    pub(crate) inode: Inode,
}

/// What a directory's size is said to be.
const DIRECTORY_SIZE: u64 = 4096;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

impl Node {
    /// The node of an entry found at `place`.
    pub(crate) fn of_entry(records: &impl Records, place: Place, entry: Entry) -> Result<Node> {
        match entry {
            Entry::Pair(pair) => Ok(Node::of_pair(place, pair)),
            Entry::Ref(target) => match records.inode(target.ino)? {
                Some(inode) if inode.kind == target.kind => Ok(Node { ino: target.ino, place: None, inode }),
                Some(_) => Err(FsError::damaged(format!("{}: its entry tells another type", target.ino))),
                None => Err(FsError::damaged(format!("{}: has an entry, but no record", target.ino))),
            },
        }
    }

    /// The node of a pair found at `place`.
    pub(crate) fn of_pair(place: Place, pair: Pair) -> Node {
        let kind = if pair.is_symlink { FileType::Symlink } else { FileType::Regular };
        let Pair { ino, has_xattrs, stat, content, .. } = pair;
        Node { ino, place: Some(place), inode: Inode { kind, has_xattrs, links: 1, stat, body: Body::Inline(content) } }
    }

    /// The node of that number, recorded at `place` or (`None`) in a record of its own. `None`: it
    /// is not there.
    pub(crate) fn find(records: &impl Records, ino: Ino, place: Option<Place>) -> Result<Option<Node>> {
        match place {
            Some(place) => match records.entry(place.key())? {
                Some(Entry::Pair(pair)) if pair.ino == ino => Ok(Some(Node::of_pair(place, pair))),
                _ => Ok(None),
            },
            None => Ok(records.inode(ino)?.map(|inode| Node { ino, place: None, inode })),
        }
    }

    /// The entry of a pair with this node's content and attributes.
    pub(crate) fn pair(&self) -> Pair {
        let Inode { kind, has_xattrs, links, stat, body } = &self.inode;
        let Body::Inline(content) = body else { panic!("{}: a pair of {body:?}", self.ino) };
        assert_eq!(*links, 1, "{}: a pair has one name (F3)", self.ino);
        let is_symlink = *kind == FileType::Symlink;
        Pair { ino: self.ino, is_symlink, has_xattrs: *has_xattrs, stat: *stat, content: content.clone() }
    }

    /// How it is recorded.
    pub(crate) fn form(&self) -> Form {
        if self.place.is_some() { Form::Pair } else { Form::Record }
    }

    /// Length of the content of a file or symlink.
    pub(crate) fn size(&self) -> u64 {
        match &self.inode.body {
            Body::Inline(content) => content.len() as u64,
            Body::Mapped(mapped) => mapped.size,
            Body::Directory { .. } => DIRECTORY_SIZE,
            Body::Device(_) | Body::Nothing => 0,
        }
    }

    /// What stat(2) tells.
    pub(crate) fn attr(&self) -> Attr {
        let Inode { kind, links, stat, body, .. } = &self.inode;
        let size = self.size();
        let allocated = match body {
            Body::Inline(_) => size,
            // What is still to be cut away counts no more.
            Body::Mapped(mapped) => mapped.allocated.min(size),
            Body::Directory { .. } | Body::Device(_) | Body::Nothing => 0,
        };
        let nlink = match body {
            Body::Directory { subdirs, .. } if *links > 0 => subdirs.saturating_add(2),
            _ => *links,
        };
        Attr {
            ino: self.ino,
            kind: *kind,
            size,
            blocks: allocated.div_ceil(BLOCK_BYTES),
            perm: stat.perm,
            nlink,
            uid: stat.uid,
            gid: stat.gid,
            rdev: if let Body::Device(number) = body { *number } else { 0 },
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }

    /// Refuses what is no directory.
    pub(crate) fn must_be_directory(&self) -> Result<()> {
        match self.inode.kind {
            FileType::Directory => Ok(()),
            _ => Err(FsError::NotADirectory),
        }
    }

    /// Refuses what is no regular file.
    pub(crate) fn must_be_regular(&self) -> Result<()> {
        match self.inode.kind {
            FileType::Regular => Ok(()),
            FileType::Directory => Err(FsError::IsADirectory),
            _ => Err(FsError::Invalid),
        }
    }
}
