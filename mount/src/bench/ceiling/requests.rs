//! Each request: its method and its reply.

use crate::bench::ceiling::tree::{Blank, Done, Tree};
use crate::facade::convert::{self, attr, caller, ino};
use crate::facade::kernel;
use crate::facade::lifetime::VALID;
use crate::fs::{Attr, Caller, FileType, NAME_MAX, SetAttr};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::RwLock;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const GENERATION: Generation = Generation(0);
const NO_HANDLE: FileHandle = FileHandle(0);
/// What statfs tells, in blocks of [`BLOCK_BYTES`]: as if memory had no end.
const BLOCKS: u64 = 1 << 32;
const BLOCK_BYTES: u32 = 4096;

/// The file system of one session.
pub struct Memory {
    tree: RwLock<Tree>,
}

impl Memory {
    /// Empty.
    pub fn new(owner: Caller) -> Memory {
        Memory { tree: RwLock::new(Tree::new(owner)) }
    }

    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, blank: Blank<'_>) -> Done<Attr> {
        self.tree.write().make(caller(request), ino(parent), name.as_bytes(), blank)
    }
}

/// How long the kernel may believe attributes. It does not know that a write took set-user-id bits away.
fn lifetime(attr: &Attr) -> Duration {
    if u32::from(attr.perm) & (libc::S_ISUID | libc::S_ISGID) != 0 { Duration::ZERO } else { VALID }
}

fn send_empty(reply: ReplyEmpty, done: Done<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn send_entry(reply: ReplyEntry, done: Done<Attr>) {
    match done {
        Ok(found) => reply.entry_with_ttls(&lifetime(&found), &VALID, &attr(&found), GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn send_attr(reply: ReplyAttr, done: Done<Attr>) {
    match done {
        Ok(found) => reply.attr(&lifetime(&found), &attr(&found)),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        kernel::agree(config, false, false);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.read().lookup(ino(parent), name.as_bytes()) {
            Err(Errno::ENOENT) => reply.entry(&VALID, &convert::absent(), GENERATION),
            done => send_entry(reply, done),
        }
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.tree.write().forget(ino(node), count);
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        send_attr(reply, self.tree.read().getattr(ino(node)));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let wanted = SetAttr { mode, uid, gid, size, atime, mtime, kill_setgid: false };
        let done = self.tree.write().setattr(caller(request), ino(node), &wanted);
        send_attr(reply, done);
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        match self.tree.read().readlink(ino(node)) {
            Ok(target) => reply.data(target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = FileType::from_mode(mode) else { return reply.error(Errno::EINVAL) };
        let blank = Blank { kind, mode: mode & !umask, rdev, target: b"" };
        send_entry(reply, self.make(request, parent, name, blank));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let blank = Blank { kind: FileType::Directory, mode: mode & !umask, rdev: 0, target: b"" };
        send_entry(reply, self.make(request, parent, name, blank));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let blank = Blank { kind: FileType::Symlink, mode: 0o777, rdev: 0, target };
        send_entry(reply, self.make(request, parent, name, blank));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.tree.write().unlink(ino(parent), name.as_bytes());
        send_empty(reply, done);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.tree.write().rmdir(ino(parent), name.as_bytes());
        send_empty(reply, done);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((ino(parent), name.as_bytes()), (ino(new_parent), new_name.as_bytes()));
        let done = convert::rename_mode(convert::caller(request), flags)
            .and_then(|mode| self.tree.write().rename(from, to, mode));
        send_empty(reply, done);
    }

    fn link(&self, _request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let done = self.tree.write().link(ino(node), ino(parent), name.as_bytes());
        send_entry(reply, done);
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
    }

    /// The kernel asks only if it knows of no such name: that it is there nevertheless would take two
    /// mounts.
    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let blank = Blank { kind: FileType::Regular, mode: mode & !umask, rdev: 0, target: b"" };
        match self.make(request, parent, name, blank) {
            Ok(made) => {
                reply.created(&lifetime(&made), &attr(&made), GENERATION, NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree.read().read(ino(node), offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let done = self.tree.write().write(ino(node), offset, data, kill);
        match done {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    /// As the façade: the kernel does not ask again.
    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(NO_HANDLE, FopenFlags::empty());
    }

    fn readdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, place: u64, mut reply: ReplyDirectory) {
        let tree = self.tree.read();
        let entries = match tree.list(ino(node), place) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(errno),
        };
        for (place, name, found) in entries {
            if reply.add(INodeNo(found.ino.0), place, convert::kind(found.kind), OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        place: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let tree = self.tree.read();
        let entries = match tree.list(ino(node), place) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(errno),
        };
        for (place, name, found) in entries {
            let (number, name) = (INodeNo(found.ino.0), OsStr::from_bytes(name));
            if reply.add(number, place, name, &lifetime(&found), &attr(&found), GENERATION) {
                break;
            }
            // `.` and `..` do not count as looked up.
            if place > 2 {
                tree.hold(found.ino).expect("it was just found");
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let files = self.tree.read().count();
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, files + BLOCKS, BLOCKS, BLOCK_BYTES, NAME_MAX as u32, BLOCK_BYTES);
    }

    /// There are none; that there could not be any would spare the kernel what it asks of others.
    fn getxattr(&self, _request: &Request, _node: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match mode {
            0 => {
                let done = self.tree.write().reserve(caller(request), ino(node), offset.saturating_add(length));
                send_empty(reply, done);
            }
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }
}
