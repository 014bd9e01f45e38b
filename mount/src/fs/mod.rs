//! The POSIX file system over a store: files, directories, names. Nothing here knows FUSE, errno,
//! pages or segments.
//!
//! Files, in reading order. What callers say and hear: `attr` (numbers, kinds, attributes), `time`,
//! `error`, `name` (shown names and raw keys). Stored formats, pure: `key`, `fields` (reading and
//! appending numbers), `stat` (owner, permissions, times), `acl`, `entry` (pair or reference), `inode`,
//! `fs_record`, `deferred_record`. State: `records` (reading them), `node` (a node, wherever it is
//! recorded), `node_acl` (its ACLs), `table` (what the kernel holds), `change` (a transaction and its
//! effects on the table), `filesystem` (open, find, count). Operations: `make`, `setattr` (and lengths), `remove` (and what
//! it leaves to do), `link` (and rename), `content` (pieces of a file), `ahead` (which reads follow
//! each other), `atime` (when they were read), `file` (read, write, holes), `copy`, `directory`, `xattr`, `keys` (the key directory as a key-value store). For the command line:
//! `paths`, `check`. And `tests`, of what no single operation promises.
//!
//! # Contract
//!
//! * **Misses.** Every method answers [`FsError::Miss`] when something it needs is not in memory, or
//!   when the store has no room for a change. Then nothing has changed that anybody could see, no
//!   count, no handle: fetch it, with no lock held, and call the same method again with the same
//!   arguments. No method waits for storage, except [`FileSystem::open`], [`check`] and those of
//!   `paths`.
//! * **Order.** Each method takes effect at one instant, between call and return, and is in the store
//!   as one transaction. (A long `fallocate` takes several: see there; so does `put_path`, of which
//!   only the last shows.) Reading methods never wait for a change under way, except for the moment
//!   in which the node they ask for moves.
//! * **Durability** is the store's: sync it.
//! * **Counting.** Answers of `lookup`, the methods that make a node, `link` and `readdir` with
//!   attributes count one lookup each; `forget` takes them back. `open_file` and `create` count one
//!   open; `release` takes it back.
//! * **Permissions** are the kernel's: it checks them before we are asked (`default_permissions`).
//!   What the new node inherits and which bits fall is settled here.
//! * **Failure.** What is stored wrongly is [`FsError::Damaged`], never a panic.
//!
//! # Invariants (checked by [`check`], cited as F1...)
//!
//! * F1 An inode number is given out once: all are below `next` in the file system's record.
//! * F2 A reference's node has a record of the same type; a directory has one reference, in its
//!   parent; a node's record counts exactly its references.
//! * F3 A pair is a regular file or symlink with one name and at most `INLINE_MAX` bytes, and has no
//!   record of its own and no pieces.
//! * F4 The file system's record counts the nodes; a directory's record its subdirectories.
//! * F5 A node without a name has a deferred record that says so, and no other node has such a one.
//! * F6 Pieces belong to mapped files, do not overlap, cross no multiple of 64 KiB, and end at or
//!   before the file's end, except those from `cut_from` on, which are no content; their lengths add
//!   up to `allocated`. A file never grows beyond `cut_from` while pieces lie there.
//! * F7 Changes are made one after another, each first in the store, then in the table.
//! * F8 The table's place of a pair is where the newest view has it, except within a change. (What
//!   was found in a view gets into the table only if that node did not move since before the view was
//!   taken; a move after that finds it in the table.) In the same way who changes keys finds in the
//!   table who is told of what was before, or that is not told.
//! * F9 A stored ACL is valid. An access ACL says more than a mode does, and of the mode's nine bits the
//!   same as the mode; a symlink has none. A default ACL is a directory's.

mod acl;
mod ahead;
mod atime;
mod attr;
mod change;
mod check;
mod content;
mod copy;
mod deferred_record;
mod directory;
mod entry;
mod error;
mod fields;
mod file;
mod filesystem;
mod fs_record;
mod inode;
mod key;
mod keys;
mod link;
mod make;
mod name;
mod node;
mod node_acl;
mod paths;
mod records;
mod remove;
mod setattr;
mod stat;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod xattr;

pub use acl::masked_acl;
pub use atime::AccessTimes;
pub use attr::{
    Allocate, Attr, Caller, DirEntry, FileType, Handle, INO_MAX, IfExists, Ino, ROOT, RenameMode, Seek, SetAttr,
    SetTime, SetXattr, Statfs, WriteAt,
};
pub use check::check;
pub use entry::INLINE_MAX;
pub use error::{FsError, Result};
pub use file::WRITE_MAX;
pub use filesystem::FileSystem;
pub use keys::{CHANGES_AT_ONCE, Changed, If, KEYS_AT_ONCE, KeyChange, KeyFound, KeyRange, Outcome, VALUE_MAX};
pub use link::LINKS_MAX;
pub use name::{NAME_MAX, Name, RESERVED, SHOWN_MAX};
pub use node_acl::ACCESS_ACL;
pub use paths::{Listed, PathError, names};
pub use remove::SPACE_WAIT;
pub use table::{Forget, Stale};
#[cfg(test)]
pub(crate) use tests::{Silence, SilentDisk, open_on, store_on};
pub use time::{Clock, Time, coarse_now};
