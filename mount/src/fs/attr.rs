//! What the callers say and hear about a node: numbers, kinds, attributes. Pure.

use crate::fs::time::Time;
use std::fmt;

/// Number of a node: 48 bits, stable for the life of the file, never used twice (F1). It is also
/// the kernel's node id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

/// The root directory.
pub const ROOT: Ino = Ino(1);
/// Greatest inode number: at a million creations a second they last 8 years, at 10,000 they last 890.
pub const INO_MAX: u64 = (1 << 48) - 1;

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An open directory, from `opendir` to `releasedir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// Who asks. Which other groups it is in is not known here: the kernel checks permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Permissions that what it makes is not to have, unless a default ACL says what it has.
    pub umask: u32,
}

/// Kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileType {
    /// The kind that the `S_IFMT` bits of `mode` name. `None`: none of ours.
    pub fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => return None,
        })
    }
}

/// The attributes of a node at one instant, as stat(2) tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileType,
    /// Bytes; for a symlink the length of its target, for a directory always 4096.
    pub size: u64,
    /// 512-byte units that its content occupies: stored bytes rounded up, holes not counted,
    /// compression and sharing not considered. 0 for directories.
    pub blocks: u64,
    /// Permission bits, setuid, setgid and sticky: at most 0o7777.
    pub perm: u16,
    /// Names of a file; for a directory 2 + the number of its subdirectories; 0: removed.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number as the kernel encodes it; 0 unless a device.
    pub rdev: u32,
    /// Last access: see `AccessTimes`.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of content or attributes.
    pub ctime: Time,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The file system's clock.
    Now,
    /// This one.
    To(Time),
}

/// Which attributes to change; `None`: leave as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// New permission bits; other bits are ignored.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
    /// Whether setgid falls with a new owner even without group execution: who asks is neither in the
    /// file's group nor may he pass over that.
    pub kill_setgid: bool,
}

/// What `create` does when the name is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// Fail (`O_EXCL`).
    Fail,
    /// Open it.
    Open,
    /// Open it and cut it to length 0 (`O_TRUNC`).
    Truncate,
}

/// What `rename` does with the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace what is there.
    Replace,
    /// Fail with `Exists` if something is there.
    NoReplace,
    /// Swap the two.
    Exchange,
    /// Replace what is there, and leave a whiteout of that owner under the old name: a character
    /// device 0:0, by which overlayfs knows that a name is gone.
    Whiteout(Caller),
    /// The same, but fail with `Exists` if something is there.
    WhiteoutNoReplace(Caller),
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    /// At this offset.
    Offset(u64),
    /// At the end, wherever that is by then (`O_APPEND`).
    End,
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Mode 0: grow the file to the range's end. A log has no places to set aside: only whether
    /// the store has that much space now is checked.
    Reserve,
    /// `FALLOC_FL_KEEP_SIZE`: the check alone.
    ReserveKeepSize,
    /// `FALLOC_FL_PUNCH_HOLE` (with `KEEP_SIZE`, as the kernel demands).
    PunchHole,
    /// `FALLOC_FL_ZERO_RANGE`: zeros, and grow to the range's end.
    ZeroRange,
    /// `FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`.
    ZeroRangeKeepSize,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The first byte at or after the offset that is not in a hole.
    Data,
    /// The first byte at or after the offset that is in a hole; the end of the file counts as one.
    Hole,
}

/// How `setxattr` treats an attribute that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Either way.
    Any,
    /// `XATTR_CREATE`: fail with `Exists` if it is there.
    Create,
    /// `XATTR_REPLACE`: fail with `NoAttribute` if it is not.
    Replace,
}

/// One entry, as `readdir` hands it out.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The node's number.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileType,
    /// The name as shown (see [`crate::fs::Name`]).
    pub name: &'a [u8],
    /// The offset to go on from after this entry.
    pub next: u64,
    /// Attributes, if they were asked for. Except for "." and "..", the node has then been looked
    /// up once more.
    pub attr: Option<&'a Attr>,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes in a block.
    pub block_bytes: u32,
    /// Blocks that the store may come to occupy.
    pub blocks: u64,
    /// Blocks that can still be written.
    pub blocks_free: u64,
    /// Nodes there are.
    pub files: u64,
    /// Inode numbers left.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}
