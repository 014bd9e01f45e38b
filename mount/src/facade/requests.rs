//! Each request: its method and its reply.

use crate::facade::Appearance;
use crate::facade::control::{self, Control};
use crate::facade::convert::{self, attr, caller, ino, maker};
use crate::facade::core::Core;
use crate::facade::groups::keeps_setgid;
use crate::facade::kernel;
use crate::facade::lifetime::VALID;
use crate::facade::listing::{Buffer, Listing};
use crate::facade::operation::Operation;
use crate::fs::{self, ACCESS_ACL, Attr, Caller, FileSystem, FsError, Handle, SetAttr, Stale, WriteAt};
use crate::meter::Kind;
use bytes::{Buf, Bytes};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Most bytes that one copy_file_range is asked for: its answer is 32 bits wide.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// Inode numbers are never used twice.
const GENERATION: Generation = Generation(0);

/// Files have no handles: every method takes the node's number.
const NO_HANDLE: FileHandle = FileHandle(0);

/// The façade of one session.
pub struct Facade {
    core: Arc<Core>,
    control: Control,
}

fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

fn send_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn send_entry(reply: ReplyEntry, appearance: Appearance, done: Result<Attr, Errno>) {
    match done {
        Ok(found) => reply.entry(&VALID, &attr(&appearance.of(&found)), GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn send_attr(
    reply: ReplyAttr,
    appearance: Appearance,
    lifetime: impl Fn(&Attr) -> Duration,
    done: Result<Attr, Errno>,
) {
    match done {
        Ok(found) => reply.attr(&lifetime(&found), &attr(&appearance.of(&found))),
        Err(errno) => reply.error(errno),
    }
}

/// `room`: what the caller has room for; 0 asks for the length.
fn send_xattr(reply: ReplyXattr, room: u32, done: Result<impl AsRef<[u8]>, Errno>) {
    match done {
        Ok(value) if room == 0 => reply.size(value.as_ref().len() as u32),
        Ok(value) if value.as_ref().len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(value.as_ref()),
        Err(errno) => reply.error(errno),
    }
}

/// Will a change of contents take set-user-id or set-group-id bits away? The kernel believes that
/// it changes size and times only, and would go on running the file with the bits for as long as
/// it keeps the mode: then it must be told to forget that, before the change is answered.
fn bits_fall(fs: &FileSystem, node: INodeNo, may_keep: bool) -> fs::Result<bool> {
    Ok(!may_keep && u32::from(fs.getattr(ino(node))?.perm) & (libc::S_ISUID | libc::S_ISGID) != 0)
}

/// Does setting an access ACL or an owner take set-group-id away, whoever may execute? (As chmod does, which
/// the kernel sees to itself.)
fn setgid_falls(
    fs: &FileSystem,
    appearance: Appearance,
    caller: Caller,
    process: u32,
    node: INodeNo,
) -> fs::Result<bool> {
    let shown = appearance.of(&fs.getattr(ino(node))?);
    Ok(u32::from(shown.perm) & libc::S_ISGID != 0 && !keeps_setgid(caller, process, shown.gid))
}

/// A write under way: a file in very many pieces takes it in parts, and each may miss.
struct Writing {
    /// What is still to be written.
    data: Bytes,
    /// Bytes written.
    done: usize,
    /// Set-user-id or set-group-id bits fell with it.
    falls: bool,
    /// It is not where the kernel has it in its pages.
    is_elsewhere: bool,
}

impl Facade {
    pub(super) fn new(core: Arc<Core>) -> Facade {
        Facade { control: Control::new(core.clone()), core }
    }

    fn list<B: Buffer + Send + 'static>(
        &self,
        operation: Operation,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        buffer: B,
    ) {
        let appearance = self.core.appearance();
        let listing = Listing { buffer, handle: Handle(handle.0), offset, taken: false, appearance };
        self.core.answer(
            operation,
            0,
            listing,
            move |fs, listing| {
                listing.fill(fs)?;
                fs.accessed(ino(node));
                Ok(())
            },
            |listing, done| listing.buffer.send(done),
        );
    }
}

impl Filesystem for Facade {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        kernel::agree(config, self.core.serves_keys(), self.core.fs.keeps_access_times());
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if control::has_name(parent, name) {
            return self.control.lookup(parent, name, reply);
        }
        let absent = self.core.lifetimes().of_absence(ino(parent));
        let appearance = self.core.appearance();
        self.core.answer(
            Operation::now(Kind::Lookup, parent),
            0,
            owned(name),
            // That there is none is an answer, and no error.
            move |fs, name| match fs.lookup(ino(parent), name) {
                Err(FsError::NotFound) => Ok(None),
                found => found.map(Some),
            },
            move |_, done| match done.transpose() {
                None => reply.entry(&absent, &convert::absent(), GENERATION),
                Some(done) => send_entry(reply, appearance, done),
            },
        );
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        if control::has(node) {
            return;
        }
        self.core.forget(ino(node), count);
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        if control::has(node) {
            return self.control.getattr(node, reply);
        }
        let appearance = self.core.appearance();
        self.core.answer(
            Operation::now(Kind::Getattr, node),
            0,
            (),
            move |fs, ()| fs.getattr(ino(node)),
            move |(), done| send_attr(reply, appearance, |_| VALID, done),
        );
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
        let caller = caller(request);
        let (lifetimes, appearance) = (self.core.lifetimes(), self.core.appearance());
        let process = request.pid();
        let [atime, mtime] = [atime, mtime].map(|time| time.map(convert::set_time));
        let change = SetAttr { mode, uid, gid, size, atime, mtime, kill_setgid: false };
        let sets_length_or_times = size.is_some() || atime.is_some() || mtime.is_some();
        let sets_owner = uid.is_some() || gid.is_some() || mode.is_none() && !sets_length_or_times;
        if control::has(node) {
            return self.control.setattr(node, &change, reply);
        }
        let change = match appearance.stored(caller, change) {
            Ok(change) => change,
            Err(errno) => return reply.error(errno),
        };
        self.core.answer(
            Operation::now(Kind::Setattr, node),
            0,
            change,
            move |fs, change| {
                change.kill_setgid = sets_owner && setgid_falls(fs, appearance, caller, process, node)?;
                fs.setattr(caller, ino(node), change)
            },
            move |_, done| send_attr(reply, appearance, |attr| lifetimes.after_change(attr), done),
        );
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        self.core.answer(
            Operation::now(Kind::Readlink, node),
            0,
            (),
            move |fs, ()| {
                let target = fs.readlink(ino(node))?;
                fs.accessed(ino(node));
                Ok(target)
            },
            move |(), done| match done {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
        );
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
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let (caller, appearance) = (maker(request, umask), self.core.appearance());
        let mode = self.core.appearance().stored_mode(caller, mode);
        self.core.answer(
            Operation::now(Kind::Mknod, parent),
            0,
            owned(name),
            move |fs, name| fs.mknod(caller, ino(parent), name, mode, rdev),
            move |_, done| send_entry(reply, appearance, done),
        );
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let (caller, appearance) = (maker(request, umask), self.core.appearance());
        let mode = self.core.appearance().stored_mode(caller, mode);
        self.core.answer(
            Operation::now(Kind::Mkdir, parent),
            0,
            owned(name),
            move |fs, name| fs.mkdir(caller, ino(parent), name, mode),
            move |_, done| send_entry(reply, appearance, done),
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        self.core.answer(
            Operation::now(Kind::Unlink, parent),
            0,
            owned(name),
            move |fs, name| fs.unlink(ino(parent), name),
            move |_, done| send_empty(reply, done),
        );
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        self.core.answer(
            Operation::now(Kind::Rmdir, parent),
            0,
            owned(name),
            move |fs, name| fs.rmdir(ino(parent), name),
            move |_, done| send_empty(reply, done),
        );
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let (caller, appearance) = (caller(request), self.core.appearance());
        self.core.answer(
            Operation::now(Kind::Symlink, parent),
            0,
            (owned(name), owned(target.as_os_str())),
            move |fs, (name, target)| fs.symlink(caller, ino(parent), name, target),
            move |_, done| send_entry(reply, appearance, done),
        );
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
        if control::has_name(parent, name) || control::has_name(new_parent, new_name) {
            return reply.error(Errno::EPERM);
        }
        let mode = match convert::rename_mode(caller(request), flags) {
            Ok(mode) => mode,
            Err(errno) => return reply.error(errno),
        };
        self.core.answer(
            Operation::now(Kind::Rename, parent),
            0,
            (owned(name), owned(new_name)),
            move |fs, (name, new_name)| fs.rename((ino(parent), name), (ino(new_parent), new_name), mode),
            move |_, done| send_empty(reply, done),
        );
    }

    fn link(&self, _request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if control::has(node) || control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let (lifetimes, appearance) = (self.core.lifetimes(), self.core.appearance());
        self.core.answer(
            Operation::now(Kind::Link, node),
            0,
            owned(name),
            move |fs, name| fs.link(ino(node), ino(parent), name),
            move |_, done| match done {
                Ok(found) => {
                    let shown = attr(&appearance.of(&found));
                    reply.entry_with_ttls(&lifetimes.after_change(&found), &VALID, &shown, GENERATION);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn open(&self, _request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if control::has(node) {
            return self.control.open(node, flags, reply);
        }
        let reads = convert::changes_atime(flags) && flags.acc_mode() != OpenAccMode::O_WRONLY;
        self.core.answer(
            Operation::now(Kind::Open, node),
            0,
            (),
            move |fs, ()| {
                // Without its pages the kernel asks for what is read, so that we hear of it.
                let is_to_ask = reads && fs.access_is_due(ino(node))?;
                fs.open_file(ino(node))?;
                Ok(if is_to_ask { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE })
            },
            move |(), done| match done {
                Ok(pages) => reply.opened(NO_HANDLE, pages),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if control::has_name(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let caller = maker(request, umask);
        let (lifetimes, appearance) = (self.core.lifetimes(), self.core.appearance());
        let if_exists = convert::if_exists(flags);
        let mode = self.core.appearance().stored_mode(caller, mode);
        self.core.answer(
            Operation::now(Kind::Create, parent),
            0,
            owned(name),
            move |fs, name| fs.create(caller, ino(parent), name, mode, if_exists),
            move |_, done| match done {
                Ok(made) => {
                    let lifetime = lifetimes.after_create(&made);
                    let shown = attr(&appearance.of(&made));
                    reply.created(&lifetime, &shown, GENERATION, NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if control::has(node) {
            return self.control.read(handle, offset, size, reply);
        }
        let core = self.core.clone();
        self.core.answer(
            Operation::now(Kind::Read, node),
            0,
            (),
            // No kernel asks for more; whoever did would get the memory of all of it filled.
            move |fs, ()| {
                let read = fs.read(ino(node), offset, size.min(kernel::REQUEST_BYTES_MAX) as usize)?;
                if convert::changes_atime(flags) {
                    fs.accessed(ino(node));
                }
                Ok(read)
            },
            move |(), done| {
                core.meter.read(done.iter().flatten().map(Bytes::len).sum());
                match done.as_deref() {
                    Ok([piece]) => reply.data(piece),
                    Ok(pieces) => reply.data(&pieces.concat()),
                    Err(errno) => reply.error(*errno),
                }
            },
        );
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if control::has(node) {
            return self.control.write(node, data.len(), reply);
        }
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        // From a mapping's pages: the kernel does not look at the length of the answer, and takes
        // all of them for written.
        let must_be_whole = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let appends = !must_be_whole && self.core.lifetimes().appends(flags.0);
        let core = self.core.clone();
        self.core.answer(
            Operation::now(Kind::Write, node),
            data.len(),
            Writing { data: Bytes::copy_from_slice(data), done: 0, falls: false, is_elsewhere: false },
            move |fs, writing| {
                writing.falls |= writing.done == 0 && bits_fall(fs, node, !kill)?;
                loop {
                    let offset = offset.saturating_add(writing.done as u64);
                    if appends {
                        // A key that is set between this and the write is told of after both.
                        writing.is_elsewhere |= fs.getattr(ino(node))?.size != offset;
                    }
                    let at = if appends { WriteAt::End } else { WriteAt::Offset(offset) };
                    match fs.write(ino(node), at, &writing.data, kill) {
                        Ok(length) => {
                            writing.done += length;
                            writing.data.advance(length);
                        }
                        Err(error @ FsError::Miss(_)) => return Err(error),
                        Err(_) if writing.done > 0 && !must_be_whole => break,
                        Err(error) => return Err(error),
                    }
                    if writing.data.is_empty() {
                        break;
                    }
                }
                Ok((writing.done, writing.falls))
            },
            move |writing, done| {
                core.meter.written(done.map_or(0, |(length, _)| length));
                match done {
                    Ok((length, true)) => core.forget_attributes(ino(node), move || reply.written(length as u32)),
                    Ok((length, false)) => reply.written(length as u32),
                    Err(errno) => reply.error(errno),
                }
                if writing.is_elsewhere {
                    // Not before the answer: until then the kernel holds the page.
                    core.forgetting().forget(vec![Stale::Contents(ino(node))], Box::new(|| {}));
                }
            },
        );
    }

    /// ENOSYS is an answer that the kernel remembers: close(2) then succeeds without asking (what
    /// a mapping has changed is still written first), which is what "OK" would mean each time.
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
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if control::has(node) {
            return self.control.release(handle, reply);
        }
        self.core.at_once(Operation::now(Kind::Release, node), |fs| fs.release(ino(node)), || reply.ok());
        self.core.ring();
    }

    fn fsync(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.core.sync_then(Operation::now(Kind::Fsync, node), move |done| send_empty(reply, done));
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if control::has(node) {
            return reply.opened(NO_HANDLE, FopenFlags::empty());
        }
        self.core.answer(
            Operation::now(Kind::Opendir, node),
            0,
            (),
            move |fs, ()| fs.opendir(ino(node)),
            move |(), done| match done {
                Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readdir(&self, _request: &Request, node: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        if control::has(node) {
            return self.control.list(offset, reply);
        }
        self.list(Operation::now(Kind::Readdir, node), node, handle, offset, reply);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        if control::has(node) {
            return self.control.list(offset, reply);
        }
        self.list(Operation::now(Kind::Readdirplus, node), node, handle, offset, reply);
    }

    fn releasedir(&self, _request: &Request, node: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        if control::has(node) {
            return reply.ok();
        }
        let operation = Operation::now(Kind::Releasedir, node);
        self.core.at_once(operation, |fs| fs.releasedir(Handle(handle.0)), || reply.ok());
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.core.sync_then(Operation::now(Kind::Fsyncdir, node), move |done| send_empty(reply, done));
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        self.core.answer(
            Operation::now(Kind::Statfs, node),
            0,
            (),
            |fs, ()| fs.statfs(),
            |(), done| match done {
                Ok(full) => reply.statfs(
                    full.blocks,
                    full.blocks_free,
                    full.blocks_free,
                    // The kernel asks for the total.
                    full.files.saturating_add(full.files_free),
                    full.files_free,
                    full.block_bytes,
                    full.name_max,
                    full.block_bytes,
                ),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if control::has(node) {
            return reply.error(Errno::EPERM);
        }
        let how = match convert::set_xattr(flags) {
            Ok(how) => how,
            Err(errno) => return reply.error(errno),
        };
        let (caller, process, appearance) = (caller(request), request.pid(), self.core.appearance());
        self.core.answer(
            Operation::now(Kind::Setxattr, node),
            value.len(),
            (owned(name), Box::<[u8]>::from(value)),
            move |fs, (name, value)| {
                let falls = **name == *ACCESS_ACL && setgid_falls(fs, appearance, caller, process, node)?;
                fs.setxattr(ino(node), name, value, how, falls)
            },
            move |_, done| send_empty(reply, done),
        );
    }

    fn getxattr(&self, _request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if control::has(node) {
            return reply.error(Errno::NO_XATTR);
        }
        let appearance = self.core.appearance();
        self.core.answer(
            Operation::now(Kind::Getxattr, node),
            0,
            owned(name),
            move |fs, name| fs.getxattr(ino(node), name),
            move |name, done| send_xattr(reply, size, done.map(|value| appearance.of_xattr(&name, value))),
        );
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        if control::has(node) {
            return send_xattr(reply, size, Ok([]));
        }
        let caller = caller(request);
        self.core.answer(
            Operation::now(Kind::Listxattr, node),
            0,
            (),
            move |fs, ()| fs.listxattr(caller, ino(node)),
            move |(), done| send_xattr(reply, size, done),
        );
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if control::has(node) {
            return reply.error(Errno::EPERM);
        }
        self.core.answer(
            Operation::now(Kind::Removexattr, node),
            0,
            owned(name),
            move |fs, name| fs.removexattr(ino(node), name),
            move |_, done| send_empty(reply, done),
        );
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
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
        if control::has(node) {
            return reply.error(Errno::EPERM);
        }
        let caller = caller(request);
        let core = self.core.clone();
        let what = match convert::allocate(mode) {
            Ok(what) => what,
            Err(errno) => return reply.error(errno),
        };
        self.core.answer(
            Operation::now(Kind::Fallocate, node),
            0,
            // A long one is asked for again, when its first part has made them fall.
            false,
            move |fs, falls| {
                *falls |= bits_fall(fs, node, caller.uid == 0)?;
                fs.fallocate(caller, ino(node), offset, length, what)
            },
            move |falls, done| match done {
                Ok(()) if falls => core.forget_attributes(ino(node), move || reply.ok()),
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        if control::has(node) {
            return reply.error(Errno::EINVAL);
        }
        let (what, offset) = match (convert::seek(whence), u64::try_from(offset)) {
            (Ok(what), Ok(offset)) => (what, offset),
            (Ok(_), Err(_)) => return reply.error(Errno::ENXIO),
            (Err(errno), _) => return reply.error(errno),
        };
        self.core.answer(
            Operation::now(Kind::Lseek, node),
            0,
            (),
            move |fs, ()| fs.lseek(ino(node), offset, what),
            move |(), done| match done {
                Ok(found) => reply.offset(found as i64),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if control::has(from) || control::has(to) {
            // Whoever asked reads and writes instead.
            return reply.error(Errno::EXDEV);
        }
        let caller = caller(request);
        let core = self.core.clone();
        let length = length.min(COPY_BYTES_MAX);
        self.core.answer(
            Operation::now(Kind::CopyFileRange, to),
            0,
            (),
            move |fs, ()| {
                let falls = bits_fall(fs, to, caller.uid == 0)?;
                let (from, to) = ((ino(from), from_offset), (ino(to), to_offset));
                Ok((fs.copy_file_range(caller, from, to, length)?, falls))
            },
            move |(), done| match done {
                Ok((copied, true)) => core.forget_attributes(ino(to), move || reply.written(copied as u32)),
                Ok((copied, false)) => reply.written(copied as u32),
                Err(errno) => reply.error(errno),
            },
        );
    }
}
