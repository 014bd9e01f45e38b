//! Each request for what is in `.kivafs`: its reply.

use crate::facade::Appearance;
use crate::facade::control::figures::Figures;
use crate::facade::control::nodes::{FILES, Node};
use crate::facade::control::open::Open;
use crate::facade::control::{metrics, stats};
use crate::facade::convert;
use crate::facade::core::Core;
use crate::facade::listing::Buffer;
use crate::facade::operation::Operation;
use crate::fs::{Attr, DirEntry, ROOT, SetAttr, Time, coarse_now};
use crate::meter::Kind;
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite,
};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The kernel asks each time.
const LIFETIME: Duration = Duration::ZERO;

/// What is in `.kivafs`. Its methods are for nodes and names that are ours ([`has`](super::has),
/// [`has_name`](super::has_name)).
pub struct Control {
    core: Arc<Core>,
    open: Open,
    began: (Instant, Time),
    owner: (u32, u32),
}

impl Control {
    /// Of a mount that begins now and is served by this process.
    pub fn new(core: Arc<Core>) -> Control {
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Control { core, open: Open::default(), began: (Instant::now(), coarse_now()), owner }
    }

    fn attr_of(&self, node: Node) -> Attr {
        node.attr(self.began.1, self.owner)
    }

    pub fn lookup(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match Node::named(parent, name) {
            Some(node) => reply.entry(&LIFETIME, &convert::attr(&self.attr_of(node)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    pub fn getattr(&self, node: INodeNo, reply: ReplyAttr) {
        match Node::of(node) {
            Some(node) => reply.attr(&LIFETIME, &convert::attr(&self.attr_of(node))),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// `: > sync` cuts it to nothing, and touch(1) sets its times: nothing comes of that.
    pub fn setattr(&self, node: INodeNo, change: &SetAttr, reply: ReplyAttr) {
        let is_nothing = change.mode.is_none() && change.uid.is_none() && change.gid.is_none();
        match Node::of(node) {
            Some(Node::Sync) if is_nothing => self.getattr(node, reply),
            _ => reply.error(Errno::EPERM),
        }
    }

    pub fn open(&self, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let told = match Node::of(node) {
            Some(Node::Sync) => return reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            _ if flags.0 & libc::O_ACCMODE != libc::O_RDONLY => return reply.error(Errno::EACCES),
            Some(Node::Stats) => stats::text(&self.figures()),
            _ => metrics::text(&self.figures()),
        };
        match self.open.add(told.into()) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(errno),
        }
    }

    fn figures(&self) -> Figures {
        Figures::of(&self.core, self.began.0)
    }

    pub fn read(&self, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        reply.data(&self.open.read(handle, offset, size));
    }

    pub fn release(&self, handle: FileHandle, reply: ReplyEmpty) {
        self.open.remove(handle);
        reply.ok();
    }

    /// Only `sync` can be open for that.
    pub fn write(&self, node: INodeNo, bytes: usize, reply: ReplyWrite) {
        self.core.sync_then(Operation::now(Kind::Fsync, node), move |done| match done {
            Ok(()) => reply.written(bytes as u32),
            Err(errno) => reply.error(errno),
        });
    }

    /// Entries from that offset on: ".", "..", and the files.
    pub fn list<B: Buffer>(&self, offset: u64, mut buffer: B) {
        let directory = self.attr_of(Node::Directory);
        let files = FILES.iter().map(|(name, node)| (*name, self.attr_of(*node)));
        let all = [(".", directory), ("..", Attr { ino: ROOT, ..directory })].into_iter().chain(files);
        for (at, (name, attr)) in (1..).zip(all).skip(offset.try_into().unwrap_or(usize::MAX)) {
            let entry = DirEntry { ino: attr.ino, kind: attr.kind, name: name.as_bytes(), next: at, attr: Some(&attr) };
            if !buffer.add(&entry, Appearance::default(), LIFETIME) {
                break;
            }
        }
        buffer.send(Ok(()));
    }
}
