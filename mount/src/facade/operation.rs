//! One request, as it is counted and told of.

use crate::facade::core::Effect;
use crate::meter::{Kind, Meter};
use fuser::{Errno, INodeNo};
use std::time::Instant;

/// What a request is, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    kind: Kind,
    /// The node that it is about; of one about a name, the directory.
    node: INodeNo,
    pub begun: Instant,
}

impl Operation {
    /// A request that comes now.
    pub fn now(kind: Kind, node: INodeNo) -> Operation {
        Operation { kind, node, begun: Instant::now() }
    }

    /// What it changes.
    pub fn effect(&self) -> Effect {
        match self.kind {
            Kind::Write | Kind::CopyFileRange => Effect::Bulk,
            Kind::Setattr | Kind::Setxattr | Kind::Removexattr | Kind::Fallocate => Effect::Node,
            Kind::Mknod
            | Kind::Mkdir
            | Kind::Unlink
            | Kind::Rmdir
            | Kind::Symlink
            | Kind::Rename
            | Kind::Link
            | Kind::Create => Effect::Names,
            Kind::Lookup
            | Kind::Getattr
            | Kind::Readlink
            | Kind::Open
            | Kind::Read
            | Kind::Release
            | Kind::Fsync
            | Kind::Opendir
            | Kind::Readdir
            | Kind::Readdirplus
            | Kind::Releasedir
            | Kind::Fsyncdir
            | Kind::Statfs
            | Kind::Getxattr
            | Kind::Listxattr
            | Kind::Lseek => Effect::None,
        }
    }

    /// It is about to be answered: counts it, and tells the log if that wants to know.
    pub fn answered<T>(&self, meter: &Meter, done: &Result<T, Errno>) {
        let took = self.begun.elapsed();
        meter.count(self.kind, took, done.is_err());
        tracing::debug!(
            operation = %self.kind.name(),
            inode = self.node.0,
            micros = took.as_micros() as u64,
            result = %done.as_ref().map_or_else(|errno| name(*errno), |_| "ok".into()),
            "request"
        );
    }
}

/// `ENOENT`
fn name(errno: Errno) -> String {
    format!("{:?}", nix::Error::from_raw(errno.code()))
}
