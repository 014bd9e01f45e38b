//! Nodes in memory, and what changes them. Answers are errno, as the kernel wants them.

use crate::bench::ceiling::content::Content;
use crate::bench::ceiling::directory::Directory;
use crate::fs::{
    Attr, Caller, FileType, Ino, LINKS_MAX, NAME_MAX, ROOT, RenameMode, SetAttr, SetTime, Time, coarse_now,
};
use fuser::Errno;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest symlink target in bytes.
const TARGET_MAX: usize = 4095;
/// What a directory's length is said to be.
const DIRECTORY_BYTES: u64 = 4096;
const PERM_MASK: u32 = 0o7777;
const SETUID: u16 = libc::S_ISUID as u16;
const SETGID: u16 = libc::S_ISGID as u16;
const GROUP_EXECUTE: u16 = libc::S_IXGRP as u16;

pub type Done<T> = Result<T, Errno>;

/// What a new node is to be.
pub struct Blank<'a> {
    pub kind: FileType,
    pub mode: u32,
    pub rdev: u32,
    /// Of a symlink.
    pub target: &'a [u8],
}

/// All nodes. One stays while it has a name or the kernel holds it.
pub struct Tree {
    nodes: HashMap<Ino, Node>,
    next: u64,
}

struct Node {
    /// Its length and blocks are not kept up to date: see [`Node::attr`].
    attr: Attr,
    body: Body,
    /// How often the kernel was told of it, less what it has given back.
    held: AtomicU64,
}

enum Body {
    File(Content),
    Directory(Directory),
    Symlink(Box<[u8]>),
    /// Fifos, sockets, devices: the kernel's own.
    Nothing,
}

impl Node {
    fn attr(&self) -> Attr {
        let (size, stored) = match &self.body {
            Body::File(content) => (content.length(), content.stored()),
            Body::Directory(_) => (DIRECTORY_BYTES, 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Nothing => (0, 0),
        };
        Attr { size, blocks: stored.div_ceil(512), ..self.attr }
    }

    fn hold(&self) -> Attr {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.attr()
    }

    /// As Linux has it: setgid without group execution marks mandatory locking, and stays.
    fn drop_privileges(&mut self) {
        self.attr.perm &= !SETUID;
        if self.attr.perm & GROUP_EXECUTE != 0 {
            self.attr.perm &= !SETGID;
        }
    }

    fn content(&mut self) -> Done<&mut Content> {
        match &mut self.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::EISDIR),
            Body::Symlink(_) | Body::Nothing => Err(Errno::EINVAL),
        }
    }

    fn touch(&mut self, now: Time) {
        self.attr.mtime = now;
        self.attr.ctime = now;
    }
}

impl Tree {
    /// An empty root, which belongs to who makes it.
    pub fn new(owner: Caller) -> Tree {
        let mut tree = Tree { nodes: HashMap::new(), next: ROOT.0 };
        let blank = Blank { kind: FileType::Directory, mode: 0o755, rdev: 0, target: b"" };
        let root = tree.new_node(owner, ROOT, owner.gid, &blank);
        assert_eq!(root, ROOT, "it is the first");
        tree.nodes.get(&root).expect("just made").hold();
        tree
    }

    /// How many there are, the root too.
    pub fn count(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn node(&self, ino: Ino) -> Done<&Node> {
        self.nodes.get(&ino).ok_or(Errno::ESTALE)
    }

    fn node_mut(&mut self, ino: Ino) -> Done<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn directory(&self, ino: Ino) -> Done<&Directory> {
        match &self.node(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, ino: Ino) -> Done<&mut Directory> {
        match &mut self.node_mut(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn child(&self, parent: Ino, name: &[u8]) -> Done<Option<Ino>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(self.directory(parent)?.get(name))
    }

    fn is_directory(&self, ino: Ino) -> Done<bool> {
        Ok(self.node(ino)?.attr.kind == FileType::Directory)
    }

    /// The kernel then holds it once more.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Done<Attr> {
        let ino = self.child(parent, name)?.ok_or(Errno::ENOENT)?;
        self.hold(ino)
    }

    pub fn hold(&self, ino: Ino) -> Done<Attr> {
        Ok(self.node(ino)?.hold())
    }

    pub fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(node) = self.nodes.get(&ino) {
            node.held.fetch_sub(count, Ordering::Relaxed);
            self.drop_if_gone(ino);
        }
    }

    pub fn getattr(&self, ino: Ino) -> Done<Attr> {
        Ok(self.node(ino)?.attr())
    }

    pub fn setattr(&mut self, caller: Caller, ino: Ino, wanted: &SetAttr) -> Done<Attr> {
        let now = coarse_now();
        let node = self.node_mut(ino)?;
        if let Some(size) = wanted.size {
            if size > i64::MAX as u64 {
                return Err(Errno::EFBIG);
            }
            node.content()?.resize(size);
            node.attr.mtime = now;
            if caller.uid != 0 {
                node.drop_privileges();
            }
        }
        if (wanted.uid.is_some() || wanted.gid.is_some()) && node.attr.kind != FileType::Directory {
            node.drop_privileges();
        }
        let time = |wanted, old| match wanted {
            None => old,
            Some(SetTime::Now) => now,
            Some(SetTime::To(time)) => time,
        };
        let attr = &mut node.attr;
        attr.uid = wanted.uid.unwrap_or(attr.uid);
        attr.gid = wanted.gid.unwrap_or(attr.gid);
        attr.perm = wanted.mode.map_or(attr.perm, |mode| (mode & PERM_MASK) as u16);
        attr.atime = time(wanted.atime, attr.atime);
        attr.mtime = time(wanted.mtime, attr.mtime);
        attr.ctime = now;
        Ok(node.attr())
    }

    pub fn readlink(&self, ino: Ino) -> Done<&[u8]> {
        match &self.node(ino)?.body {
            Body::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A node under a name that must be free. The kernel then holds it once.
    pub fn make(&mut self, caller: Caller, parent: Ino, name: &[u8], mut blank: Blank<'_>) -> Done<Attr> {
        if blank.target.len() > TARGET_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.child(parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        // A directory with setgid hands its group down, and to subdirectories setgid itself.
        let above = self.node(parent)?.attr;
        let inherits = above.perm & SETGID != 0;
        if inherits && blank.kind == FileType::Directory {
            blank.mode |= libc::S_ISGID;
        }
        let ino = self.new_node(caller, parent, if inherits { above.gid } else { caller.gid }, &blank);
        self.enter(parent, name, ino, coarse_now())?;
        self.hold(ino)
    }

    fn new_node(&mut self, caller: Caller, parent: Ino, gid: u32, blank: &Blank<'_>) -> Ino {
        let (ino, now) = (Ino(self.next), coarse_now());
        self.next += 1;
        let body = match blank.kind {
            FileType::Regular => Body::File(Content::default()),
            FileType::Directory => Body::Directory(Directory::new(parent)),
            FileType::Symlink => Body::Symlink(blank.target.into()),
            FileType::Fifo | FileType::Socket | FileType::CharDevice | FileType::BlockDevice => Body::Nothing,
        };
        let attr = Attr {
            ino,
            kind: blank.kind,
            size: 0,
            blocks: 0,
            perm: (blank.mode & PERM_MASK) as u16,
            nlink: if blank.kind == FileType::Directory { 2 } else { 1 },
            uid: caller.uid,
            gid,
            rdev: blank.rdev,
            atime: now,
            mtime: now,
            ctime: now,
        };
        self.nodes.insert(ino, Node { attr, body, held: AtomicU64::new(0) });
        ino
    }

    /// Puts a node under a name that is free.
    fn enter(&mut self, parent: Ino, name: &[u8], ino: Ino, now: Time) -> Done<()> {
        self.directory_mut(parent)?.insert(name, ino);
        if let Body::Directory(directory) = &mut self.node_mut(ino)?.body {
            directory.parent = parent;
            self.node_mut(parent)?.attr.nlink += 1;
        }
        self.node_mut(parent)?.touch(now);
        self.node_mut(ino)?.attr.ctime = now;
        Ok(())
    }

    /// Takes a name away; answers what it stood for, which is left without.
    fn leave(&mut self, parent: Ino, name: &[u8], now: Time) -> Done<Ino> {
        let ino = self.directory_mut(parent)?.remove(name).ok_or(Errno::ENOENT)?;
        if self.is_directory(ino)? {
            self.node_mut(parent)?.attr.nlink -= 1;
        }
        self.node_mut(parent)?.touch(now);
        Ok(ino)
    }

    /// A node has one name less: a directory its only one.
    fn drop_link(&mut self, ino: Ino, now: Time) -> Done<()> {
        let attr = &mut self.node_mut(ino)?.attr;
        attr.nlink = if attr.kind == FileType::Directory { 0 } else { attr.nlink - 1 };
        attr.ctime = now;
        self.drop_if_gone(ino);
        Ok(())
    }

    fn drop_if_gone(&mut self, ino: Ino) {
        let gone = |node: &Node| node.attr.nlink == 0 && node.held.load(Ordering::Relaxed) == 0;
        if self.nodes.get(&ino).is_some_and(gone) {
            self.nodes.remove(&ino);
        }
    }

    pub fn unlink(&mut self, parent: Ino, name: &[u8]) -> Done<()> {
        let ino = self.child(parent, name)?.ok_or(Errno::ENOENT)?;
        if self.is_directory(ino)? {
            return Err(Errno::EISDIR);
        }
        let now = coarse_now();
        self.leave(parent, name, now)?;
        self.drop_link(ino, now)
    }

    pub fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Done<()> {
        let ino = self.child(parent, name)?.ok_or(Errno::ENOENT)?;
        if !self.directory(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let now = coarse_now();
        self.leave(parent, name, now)?;
        self.drop_link(ino, now)
    }

    /// The kernel then holds it once more.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Done<Attr> {
        if self.child(parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let attr = &mut self.node_mut(ino)?.attr;
        match attr.nlink {
            _ if attr.kind == FileType::Directory => return Err(Errno::EPERM),
            0 => return Err(Errno::ENOENT),
            LINKS_MAX.. => return Err(Errno::EMLINK),
            _ => attr.nlink += 1,
        }
        self.enter(parent, name, ino, coarse_now())?;
        self.hold(ino)
    }

    pub fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Done<()> {
        let ino = self.child(from.0, from.1)?.ok_or(Errno::ENOENT)?;
        let target = self.child(to.0, to.1)?;
        if self.is_under(to.0, ino)? {
            return Err(Errno::EINVAL);
        }
        let now = coarse_now();
        match (mode, target) {
            // No row asks for one.
            (RenameMode::Whiteout(_) | RenameMode::WhiteoutNoReplace(_), _) => return Err(Errno::EINVAL),
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            (_, Some(target)) if target == ino => return Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                if self.is_under(from.0, target)? {
                    return Err(Errno::EINVAL);
                }
                self.leave(from.0, from.1, now)?;
                self.leave(to.0, to.1, now)?;
                self.enter(from.0, from.1, target, now)?;
            }
            (_, Some(target)) => {
                match (self.is_directory(ino)?, self.is_directory(target)?) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.directory(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                self.leave(to.0, to.1, now)?;
                self.drop_link(target, now)?;
                self.leave(from.0, from.1, now)?;
            }
            (_, None) => drop(self.leave(from.0, from.1, now)?),
        }
        self.enter(to.0, to.1, ino, now)
    }

    /// Whether the directory `at` is `ino` or lies somewhere under it.
    fn is_under(&self, mut at: Ino, ino: Ino) -> Done<bool> {
        if !self.is_directory(ino)? {
            return Ok(false);
        }
        while at != ino && at != ROOT {
            at = self.directory(at)?.parent;
        }
        Ok(at == ino)
    }

    pub fn read(&self, ino: Ino, offset: u64, size: usize) -> Done<Cow<'_, [u8]>> {
        match &self.node(ino)?.body {
            Body::File(content) => Ok(content.read(offset, size)),
            _ => Err(Errno::EINVAL),
        }
    }

    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], kill: bool) -> Done<()> {
        let node = self.node_mut(ino)?;
        node.content()?.write(offset, bytes);
        node.touch(coarse_now());
        if kill {
            node.drop_privileges();
        }
        Ok(())
    }

    /// The file reaches to there, at least.
    pub fn reserve(&mut self, caller: Caller, ino: Ino, end: u64) -> Done<()> {
        if end > self.getattr(ino)?.size {
            let wanted = SetAttr { size: Some(end), ..SetAttr::default() };
            self.setattr(caller, ino, &wanted)?;
        }
        Ok(())
    }

    /// What comes after a place in a directory: its own place, its name, its node. `.` and `..` are at 1
    /// and 2.
    pub fn list(&self, dir: Ino, place: u64) -> Done<impl Iterator<Item = (u64, &[u8], Attr)>> {
        let directory = self.directory(dir)?;
        let dots = [(1, &b"."[..], dir), (2, &b".."[..], directory.parent)];
        let dots = dots.into_iter().filter(move |(own, ..)| *own > place);
        let all = dots.chain(directory.after(place));
        Ok(all.filter_map(|(own, name, ino)| Some((own, name, self.node(ino).ok()?.attr()))))
    }
}
