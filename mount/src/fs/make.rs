//! Making nodes: mknod, mkdir, symlink, create.

use crate::fs::acl::MODE_BITS;
use crate::fs::attr::{Attr, Caller, FileType, IfExists, Ino};
use crate::fs::change::Change;
use crate::fs::content::{Piece, replace};
use crate::fs::entry::INLINE_MAX;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::{Body, Inode, Mapped};
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::node_acl::inherit;
use crate::fs::setattr::{Resized, SETGID, drop_privileges, resize};
use crate::fs::stat::Stat;
use crate::fs::table::{Effect, Place};
use bytes::Bytes;
use kivafs::tree::Value;

/// Longest symlink target in bytes.
pub(crate) const TARGET_MAX: usize = 4095;
pub(crate) const PERM_MASK: u32 = 0o7777;
const USUAL_PERM: u16 = 0o666;

/// What a new node is to be.
pub(crate) struct Blank {
    pub(crate) kind: FileType,
    /// As it is asked for: the umask, or the default ACL of the directory, still takes something away.
    pub(crate) perm: u16,
    pub(crate) body: Body,
}

impl FileSystem {
    /// Makes an empty regular file, a fifo, a socket or a device, by the type bits of `mode` (0 is a
    /// regular file); `rdev` is a device's number. The kernel then holds it once.
    pub fn mknod(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32, rdev: u32) -> Result<Attr> {
        let kind = match mode & libc::S_IFMT {
            0 => FileType::Regular,
            _ => FileType::from_mode(mode).ok_or(FsError::Invalid)?,
        };
        let body = match kind {
            FileType::Regular => Body::Inline(Bytes::new()),
            FileType::Fifo | FileType::Socket => Body::Nothing,
            FileType::CharDevice | FileType::BlockDevice => Body::Device(rdev),
            FileType::Directory | FileType::Symlink => return Err(FsError::Invalid),
        };
        self.make(caller, parent, name, Blank { kind, perm: perm(mode), body })
    }

    /// Makes an empty directory. The kernel then holds it once.
    pub fn mkdir(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        let body = Body::Directory { parent, subdirs: 0 };
        self.make(caller, parent, name, Blank { kind: FileType::Directory, perm: perm(mode), body })
    }

    /// Makes a symlink; a target of more than 4095 bytes is `NameTooLong`. The kernel then holds it
    /// once.
    pub fn symlink(&self, caller: Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        if target.len() > TARGET_MAX {
            return Err(FsError::NameTooLong);
        }
        let body = Body::Inline(Bytes::copy_from_slice(target));
        self.make(caller, parent, name, Blank { kind: FileType::Symlink, perm: 0o777, body })
    }

    /// Makes a regular file, or finds one, and opens it. The kernel then holds it once more and has
    /// it open once more.
    pub fn create(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32, if_exists: IfExists) -> Result<Attr> {
        let mut change = self.change()?;
        // A key from the socket may have a name that cannot be made here, but can be opened.
        let name_found = Name::to_find(name);
        let found = name_found.as_ref().map_or(Ok(None), |name| change.child(parent, name))?;
        let node = match found {
            None => {
                let name = Name::to_make(name)?;
                let body = Body::Inline(Bytes::new());
                let blank = Blank { kind: FileType::Regular, perm: perm(mode), body };
                make(&mut change, caller, parent, &name, blank)?
            }
            Some(_) if if_exists == IfExists::Fail => return Err(FsError::Exists),
            Some(mut node) => {
                node.must_be_regular()?;
                if if_exists == IfExists::Truncate {
                    change.shrinks();
                    let resized = resize(&mut change, &mut node, 0)?;
                    assert_eq!(resized, Resized::Yes, "nothing is in the way of length 0");
                    if caller.uid != 0 {
                        drop_privileges(&mut change, &mut node);
                    }
                    node.inode.stat.mtime = change.now;
                    node.inode.stat.ctime = change.now;
                    change.put_node(&node);
                }
                node
            }
        };
        change.look(&node, Place::of(parent, &name_found?));
        change.then(Effect::Opened(node.ino));
        change.commit()?;
        Ok(node.attr())
    }

    fn make(&self, caller: Caller, parent: Ino, name: &[u8], blank: Blank) -> Result<Attr> {
        let name = Name::to_make(name)?;
        let mut change = self.change()?;
        if change.child(parent, &name)?.is_some() {
            return Err(FsError::Exists);
        }
        let node = make(&mut change, caller, parent, &name, blank)?;
        change.look(&node, Place::of(parent, &name));
        change.commit()?;
        Ok(node.attr())
    }
}

/// Permission bits of a mode.
fn perm(mode: u32) -> u16 {
    (mode & PERM_MASK) as u16
}

/// Makes a node under a name that is free.
pub(crate) fn make(change: &mut Change<'_>, caller: Caller, parent: Ino, name: &Name, blank: Blank) -> Result<Node> {
    let mut dir = change.directory(parent)?;
    let mut node = new_node(change, caller, Some(&dir), blank)?;
    if node.inode.kind == FileType::Directory {
        add_subdir(&mut dir, 1)?;
    }
    let place = Place::of(parent, name);
    if Change::fits_pair(&node.inode.body) {
        node.place = Some(place.clone());
    }
    change.put_named(&mut node, place);
    touch(change, &mut dir);
    Ok(node)
}

/// A node without a name, not yet put; but its number is taken, it is counted, and content that is
/// too long for its record is put in pieces, as are ACLs that it inherits.
pub(crate) fn new_node(change: &mut Change<'_>, caller: Caller, dir: Option<&Node>, blank: Blank) -> Result<Node> {
    let ino = change.new_ino()?;
    let now = change.now;
    let Blank { kind, mut perm, body } = blank;
    // A directory with setgid hands its group down, and to subdirectories setgid itself.
    let inherited = dir.map(|dir| &dir.inode.stat).filter(|stat| stat.perm & SETGID != 0);
    let gid = inherited.map_or(caller.gid, |stat| stat.gid);
    if inherited.is_some() && kind == FileType::Directory {
        perm |= SETGID;
    }
    let body = match body {
        Body::Inline(content) if content.len() > INLINE_MAX => {
            let size = content.len() as u64;
            let piece = Piece { offset: 0, value: Value::Bytes(content) };
            let turnover = replace(change.txn_mut(), ino, &[], 0, size, &[piece]);
            Body::Mapped(Mapped { size, allocated: turnover.apply(0)?, cutting: false })
        }
        body => body,
    };
    let stat = Stat { perm, uid: caller.uid, gid, mtime: now, ctime: now, atime: now };
    let mut node = Node { ino, place: None, inode: Inode { kind, has_xattrs: false, links: 1, stat, body } };
    inherit(change, dir, &mut node, caller.umask)?;
    Ok(node)
}

/// For a new file that nobody gave a mode: as if it were made with 0666 and an umask that leaves `perm`.
/// So it has these permissions, or what a default ACL says.
pub(crate) fn with_usual_perm(caller: Caller, perm: u16, body: Body) -> (Caller, Blank) {
    let blank = Blank { kind: FileType::Regular, perm: USUAL_PERM | perm, body };
    (Caller { umask: u32::from(!perm & MODE_BITS), ..caller }, blank)
}

/// A directory's entries have changed.
pub(crate) fn touch(change: &mut Change<'_>, dir: &mut Node) {
    dir.inode.stat.mtime = change.now;
    dir.inode.stat.ctime = change.now;
    change.put_node(dir);
}

/// Counts subdirectories that came or went.
pub(crate) fn add_subdir(dir: &mut Node, difference: i32) -> Result<()> {
    let Body::Directory { subdirs, .. } = &mut dir.inode.body else {
        panic!("{}: subdirectories of what is no directory", dir.ino)
    };
    *subdirs = match subdirs.checked_add_signed(difference) {
        Some(sum) => sum,
        None if difference > 0 => return Err(FsError::TooManyLinks),
        None => return Err(FsError::damaged(format!("{}: number of subdirectories: too small", dir.ino))),
    };
    Ok(())
}
